"""Where an emulator says that theta lies: a Gaussian posterior for every observation.

With y = f(w) + noise of covariance C, and a Gaussian prior of precision P on w,

    w_hat = argmin |root^T (y - f(w))|^2 + w^T P w,    H = J^T C^-1 J + P,    J = df/dw at w_hat,

by the steps of Levenberg and Marquardt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf

from skbi.parallel import blocks
from skbi.preprocessing.emulator import Emulator

__all__ = ["Frame", "Location", "join_frames"]

_N_CANDIDATES = 2000  # training parameters, the best of which is where the steps start
_N_STEPS = 15  # at most
_LEAST_GAIN = 1e-8  # in the sum of squares, that a step must promise for another to follow
_MAX_NUMBERS = 2**22  # in an array of slopes at one time
_FURTHEST = 10.0  # standard deviations that a score counts
_MIN_VARIANCE = 1e-12  # of the noise, where y is of about unit scale or larger
_MIN_PRECISION = 1e-3  # of w, whose scale is one
_DAMPING, _LESS_DAMPING, _MORE_DAMPING = 1e-2, 0.2, 5.0
_DAMPING_RANGE = 1e-8, 1e6


@dataclass(frozen=True)
class Frame:
    """z <-> root (z - centre): the coordinates in which a Gaussian posterior is standard normal.

    Attributes
    ----------
    centre : ndarray, shape (n, p)
    root : ndarray, shape (n, p, p)
        Upper triangular; root.T @ root is the precision.
    """

    centre: NDArray[np.float64]
    root: NDArray[np.float64]

    @classmethod
    def fit(cls, centre: NDArray[np.float64], precision: NDArray[np.float64]) -> Self:
        """Return the frame of a mean (n, p) and a precision matrix (n, p, p)."""
        return cls(centre, np.swapaxes(np.linalg.cholesky(precision), 1, 2))

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> Frame:
        return Frame(self.centre[rows], self.root[rows])

    def __len__(self) -> int:
        return len(self.centre)

    @property
    def columns(self) -> NDArray[np.float64]:
        """Centre and root side by side, (n, p + p^2)."""
        return np.hstack([self.centre, self.root.reshape(len(self), -1)])

    @property
    def log_scales(self) -> NDArray[np.float64]:
        """Logarithm of the root's diagonal, (n, p)."""
        return np.log(np.einsum("nii->ni", self.root))

    def forward(self, z: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Map z (n, p), or one frame's (m, p); also return the log determinant, (n,) or (1,)."""
        mapped = np.matmul(self.root, (z - self.centre)[:, :, None])[:, :, 0]
        return mapped, self.log_scales.sum(axis=1)

    def inverse(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map draws (n, draws, p) back."""
        shift = np.linalg.solve(self.root, np.swapaxes(z, 1, 2))
        return self.centre[:, None] + np.swapaxes(shift, 1, 2)


def join_frames(frames: Sequence[Frame | None]) -> Frame | None:
    """Join the frames of consecutive observations; None if there are none."""
    found = [frame for frame in frames if frame is not None]
    if not found:
        return None
    centres, roots = zip(*((frame.centre, frame.root) for frame in found), strict=True)
    return Frame(np.concatenate(centres), np.concatenate(roots))


@dataclass(frozen=True)
class Location:
    """The Gaussian posterior of an emulator, for observations y.

    Attributes
    ----------
    emulator : Emulator
        Of y @ root, whose noise is white.
    root : ndarray, shape (k, k)
    prior_precision : ndarray, shape (p,)
    low, high : ndarray, shape (p,)
        The range of the training parameters, where w_hat is looked for.
    candidates : ndarray, shape (m, p)
    """

    emulator: Emulator
    root: NDArray[np.float64]
    prior_precision: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    candidates: NDArray[np.float64]

    @classmethod
    def fit(
        cls,
        w: NDArray[np.float64],
        y: NDArray[np.float64],
        length_scales: NDArray[np.float64],
        prior_precision: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> Self:
        """Emulate y (n, k) at w (n, p); the noise is what leave-one-out errors are."""
        emulator, errors = Emulator.fit(w, y, length_scales, rng)
        covariance = LedoitWolf(assume_centered=True).fit(errors).covariance_
        return cls.of_emulator(w, emulator, covariance, prior_precision)

    @classmethod
    def of_emulator(
        cls,
        w: NDArray[np.float64],
        emulator: Emulator,
        covariance: NDArray[np.float64],
        prior_precision: NDArray[np.float64],
    ) -> Self:
        """Use a fitted emulator, for noise of this covariance (k, k)."""
        covariance = covariance + _MIN_VARIANCE * np.eye(len(covariance))
        root = np.linalg.inv(np.linalg.cholesky(covariance)).T
        precision = prior_precision + _MIN_PRECISION
        low, high = w.min(axis=0), w.max(axis=0)
        return cls(emulator.transformed(root), root, precision, low, high, w[:_N_CANDIDATES])

    def score(
        self,
        w: NDArray[np.float64],
        y: NDArray[np.float64],
        present: NDArray[np.bool_] | None = None,
    ) -> float:
        """Return the mean log density of known w (n, p), rows that are far off cut short."""
        w_hat, precision, _ = self.find(y, present)
        frame = Frame.fit(w_hat, precision)
        u, log_det = frame.forward(w)
        return float(np.mean(log_det - 0.5 * np.minimum((u**2).sum(axis=1), _FURTHEST**2)))

    def expected(self, w: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return f(w), (n, k), in the units of y."""
        return self.emulator(w) @ np.linalg.inv(self.root)

    def find(
        self, y: NDArray[np.float64], present: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return w_hat (n, p), its precision (n, p, p) and the smallest sum of squares (n,).

        Entries of y (n, k) may be missing, if the noise is independent.
        """
        y = y @ self.root
        weights = np.ones(y.shape) if present is None else present.astype(np.float64)
        size = max(1, _MAX_NUMBERS // (y.shape[1] * len(self.low)))
        parts = [self._find(y[rows], weights[rows]) for rows in blocks(len(y), size)]
        w, precision, loss = (np.concatenate(part) for part in zip(*parts, strict=True))
        return w, precision, loss

    def _find(
        self, y: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        p = len(self.low)
        w, damping = self._start(y, weights), np.full((len(y), 1), _DAMPING)
        error, slope = self._errors(w, y, weights)
        loss = self._loss(w, error)
        going = np.arange(len(y))  # rows whose steps still gain something
        for _ in range(_N_STEPS):
            damped = self._precision(slope[going])
            downhill = np.einsum("nkp,nk->np", slope[going], error[going])
            downhill -= self.prior_precision * w[going]
            damped[:, range(p), range(p)] *= 1 + damping[going]
            step = np.linalg.solve(damped, downhill[:, :, None])[:, :, 0]
            tried = np.clip(w[going] + step, self.low, self.high)
            found = tried, *self._errors(tried, y[going], weights[going])
            loss_tried = self._loss(*found[:2])
            better = loss_tried < loss[going]
            for old, new in zip((w, error, slope, loss), (*found, loss_tried), strict=True):
                old[going[better]] = new[better]
            change = np.where(better, _LESS_DAMPING, _MORE_DAMPING)[:, None]
            damping[going] = np.clip(damping[going] * change, *_DAMPING_RANGE)
            going = going[(step * downhill).sum(axis=1) > _LEAST_GAIN]
        # noise that is larger than expected, or a w far from the best, leaves more open
        excess = np.maximum(1, loss / (weights.sum(axis=1) + p))
        return w, self._precision(slope) / excess[:, None, None], loss

    def _errors(
        self, w: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return y - f(w) (n, k) and df/dw (n, k, p), zero where y is missing."""
        f, slope = self.emulator.value_and_slope(w)
        return weights * (y - f), weights[:, :, None] * slope

    def _start(self, y: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the best candidate of every observation, (n, p)."""
        f = self.emulator(self.candidates)
        losses = weights @ (f**2).T - 2 * (weights * y) @ f.T
        losses += (self.prior_precision * self.candidates**2).sum(axis=1)
        return self.candidates[losses.argmin(axis=1)]

    def _loss(self, w: NDArray[np.float64], error: NDArray[np.float64]) -> NDArray[np.float64]:
        return (error**2).sum(axis=1) + (self.prior_precision * w**2).sum(axis=1)

    def _precision(self, slope: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.einsum("nkp,nkq->npq", slope, slope) + np.diag(self.prior_precision)
