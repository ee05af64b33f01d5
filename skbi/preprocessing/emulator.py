"""What a simulator gives on average: x = f(w) + noise, by ridge regression of x on theta.

    f(w) = sum_i a_i k(w, c_i) + b + w B,    k(w, c) = exp(-|(w - c) / l|^2 / 2),

where w (n, p) are the parameters in coordinates that suit a regression on them, c_i are some of the
training parameters, and l has a length scale for every parameter. Penalties and length scales are
chosen by leave-one-out errors, which tell the noise's level, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

__all__ = ["MIN_NOISE", "Basis", "Emulator", "Ridge", "choose_length_scales"]

MIN_NOISE = 1e-4  # of a column, over its standard deviation
_MAX_CENTRES = 500
_JITTER = 1e-8  # added to the diagonal of the centres' kernel matrix, so that it has a root
_PENALTIES = 10.0 ** np.arange(-6, 4)
_MAX_LEVERAGE = 1 - 1e-8  # of a row on its own prediction
_LENGTH_SCALES = 0.5, 1.0, 2.0, 4.0  # tried for all parameters at once; w is of unit scale
_LENGTH_FACTOR = 0.6  # by which that of one parameter is changed, or divided, while errors fall
_MIN_GAIN = 1e-3  # in the logarithm of a column's mean square error
_MAX_SEARCHED = 12  # parameters up to which each has a length scale of its own
_SEARCH_ROWS, _SEARCH_CENTRES, _SEARCH_SWEEPS = 3000, 300, 2


@dataclass(frozen=True)
class Basis:
    """The functions of w that x is regressed on: kernels at some centres, a constant, w itself.

    Attributes
    ----------
    centres : ndarray, shape (m, p)
    length_scales : ndarray, shape (p,)
    """

    centres: NDArray[np.float64]
    length_scales: NDArray[np.float64]

    @classmethod
    def fit(
        cls,
        w: NDArray[np.float64],
        length_scales: NDArray[np.float64],
        rng: np.random.Generator,
        n_centres: int = _MAX_CENTRES,
    ) -> Self:
        """Pick the centres among rows of w (n, p)."""
        rows = rng.choice(len(w), min(n_centres, len(w)), replace=False)
        return cls(w[rows], length_scales)

    def kernel(self, w: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return k(w, c), (n, m)."""
        a, b = w / self.length_scales, self.centres / self.length_scales
        distance = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
        return np.exp(-0.5 * np.maximum(distance, 0))

    def root(self) -> NDArray[np.float64]:
        """Return the lower Cholesky root of the centres' kernel matrix, (m, m)."""
        return np.linalg.cholesky(self.kernel(self.centres) + _JITTER * np.eye(len(self.centres)))

    def design(self, w: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the matrix (n, m + 1 + p) of a ridge regression, its kernels uncorrelated."""
        kernels = solve_triangular(self.root(), self.kernel(w).T, lower=True).T
        return np.hstack([kernels, np.ones((len(w), 1)), w])


class Ridge:
    """Ridge regressions of many columns on one design, each with its own penalty.

    Leave-one-out errors are residual_i / (1 - leverage_i).

    Parameters
    ----------
    design : ndarray, shape (n, m)

    Attributes
    ----------
    rotated : ndarray, shape (n, m)
        The design in the eigenbasis of its Gram matrix, for which coefficients are given.

    References
    ----------
    Allen, The relationship between variable selection and data augmentation and a method for
    prediction, 1974, https://doi.org/10.1080/00401706.1974.10489157.
    """

    def __init__(self, design: NDArray[np.float64]) -> None:
        values, self.axes = np.linalg.eigh(design.T @ design)
        self.values = np.maximum(values, 0)
        self.rotated = design @ self.axes
        shares = 1 / (self.values + _PENALTIES[:, None])  # (penalties, m)
        self.leverages = np.minimum((self.rotated**2) @ shares.T, _MAX_LEVERAGE)

    def choose(
        self, y: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Choose penalties for columns y (n, k).

        Returns
        -------
        penalties : ndarray of int, shape (k,)
            Indices of the penalties.
        errors : ndarray, shape (k,)
            Mean square leave-one-out errors.
        products : ndarray, shape (m, k)
            ``rotated.T @ y``.
        """
        products = self.rotated.T @ y
        errors = np.stack([self._errors(y, products, i) for i in range(len(_PENALTIES))])
        return errors.argmin(axis=0), errors.min(axis=0), products

    def solve(
        self, y: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Fit columns y (n, k).

        Returns
        -------
        coefficients : ndarray, shape (m, k)
            Predictions are ``rotated @ coefficients``.
        errors : ndarray, shape (k,)
            Mean square leave-one-out errors.
        degrees : ndarray, shape (k,)
            Degrees of freedom of each fit.
        """
        penalties, errors, products = self.choose(y)
        coefficients = products / (self.values[:, None] + _PENALTIES[penalties])
        return coefficients, errors, self.leverages.sum(axis=0)[penalties]

    def residuals(
        self, y: NDArray[np.float64], coefficients: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the leave-one-out errors (n, k) of columns that were fitted by `solve`."""
        penalties, _, _ = self.choose(y)
        return (y - self.rotated @ coefficients) / (1 - self.leverages[:, penalties])

    def _errors(
        self, y: NDArray[np.float64], products: NDArray[np.float64], i: int
    ) -> NDArray[np.float64]:
        fitted = self.rotated @ (products / (self.values + _PENALTIES[i])[:, None])
        return (((y - fitted) / (1 - self.leverages[:, i : i + 1])) ** 2).mean(axis=0)


def choose_length_scales(
    w: NDArray[np.float64], y: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Choose length scales by the leave-one-out errors of some columns.

    One length for all parameters comes first. Then each is changed for itself, as long as the sum
    of the logarithms of the columns' mean square errors falls.

    Parameters
    ----------
    w : ndarray, shape (n, p)
        Of about unit scale.
    y : ndarray, shape (n, k)
    rng : Generator

    Returns
    -------
    ndarray, shape (p,)
    """
    p = w.shape[1]
    rows = rng.choice(len(w), min(len(w), _SEARCH_ROWS), replace=False)
    start = Basis.fit(w[rows], np.ones(p), rng, _SEARCH_CENTRES)
    w, y = w[rows], y[rows]

    def loss(lengths: NDArray[np.float64]) -> float:
        _, errors, _ = Ridge(Basis(start.centres, lengths).design(w)).choose(y)
        return float(np.log(errors + np.finfo(np.float64).tiny).mean())

    best, lengths = min((loss(np.full(p, length)), length) for length in _LENGTH_SCALES)
    lengths = np.full(p, lengths)
    for _ in range(_SEARCH_SWEEPS if 1 < p <= _MAX_SEARCHED else 0):
        before = best
        for j, factor in [(j, f) for j in range(p) for f in (_LENGTH_FACTOR, 1 / _LENGTH_FACTOR)]:
            tried = lengths * np.where(np.arange(p) == j, factor, 1)
            while (found := loss(tried)) < best - _MIN_GAIN:
                best, lengths = found, tried
                tried = lengths * np.where(np.arange(p) == j, factor, 1)
        if best == before:
            break
    return lengths


@dataclass(frozen=True)
class Emulator:
    """The fitted regression: f and its derivative.

    Attributes
    ----------
    basis : Basis
    kernel_weights : ndarray, shape (m, k)
    linear_weights : ndarray, shape (1 + p, k)
        b, then B.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> w = rng.uniform(-2, 2, size=(500, 1))
    >>> y = np.sin(w) + 0.01 * rng.normal(size=(500, 1))
    >>> emulator, errors = Emulator.fit(w, y, np.ones(1), rng)
    >>> f, slope = emulator.value_and_slope(np.zeros((1, 1)))
    >>> abs(f.item()) < 0.01, abs(slope.item() - 1) < 0.05, bool(errors.std() < 0.012)
    (True, True, True)
    """

    basis: Basis
    kernel_weights: NDArray[np.float64]
    linear_weights: NDArray[np.float64]

    @classmethod
    def fit(
        cls,
        w: NDArray[np.float64],
        y: NDArray[np.float64],
        length_scales: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> tuple[Self, NDArray[np.float64]]:
        """Regress y (n, k) on w (n, p); also return the leave-one-out errors, (n, k)."""
        basis = Basis.fit(w, length_scales, rng)
        ridge = Ridge(basis.design(w))
        coefficients, _, _ = ridge.solve(y)
        weights = ridge.axes @ coefficients
        m = len(basis.centres)
        kernel_weights = solve_triangular(basis.root(), weights[:m], lower=True, trans="T")
        return cls(basis, kernel_weights, weights[m:]), ridge.residuals(y, coefficients)

    def transformed(self, matrix: NDArray[np.float64]) -> Emulator:
        """Return the emulator of y @ matrix."""
        return Emulator(self.basis, self.kernel_weights @ matrix, self.linear_weights @ matrix)

    def __call__(self, w: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return f(w), (n, k)."""
        return self.basis.kernel(w) @ self.kernel_weights + self._linear(w)

    def value_and_slope(
        self, w: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return f(w) (n, k) and df/dw (n, k, p)."""
        products = self.basis.centres.T[:, :, None] * self.kernel_weights  # c_j times the weights
        weights = np.hstack([self.kernel_weights, *products])
        value, *means = np.split(self.basis.kernel(w) @ weights, 1 + len(products), axis=1)
        slope = np.stack(means, axis=2) - value[:, :, None] * w[:, None]  # sum_c (c - w) k(w, c)
        slope = slope / self.basis.length_scales**2 + self.linear_weights[1:].T
        return value + self._linear(w), slope

    def _linear(self, w: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.linear_weights[0] + w @ self.linear_weights[1:]
