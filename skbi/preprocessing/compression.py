"""What hundreds of features say on theta, in a few numbers: x (n, d) -> columns (n, c).

The mean of x given theta varies in a few directions only. They are found by regression of x on
theta (`skbi.preprocessing.emulator`): with f the regression, and noise of variance psi_j in
feature j, they are the principal components of f(theta) / sqrt(psi), as long as these exceed what
noise alone would give,

    lambda > (sqrt(degrees of freedom of f) + sqrt(d))^2 / n.

Not principal components of x: these would hold noise where it is large. But where noise is common
to many features (a baseline that drifts, a parameter that is not asked for), it has to be known to
be taken off: principal components of (x - f(theta)) / sqrt(psi) that exceed what independent noise
would give are directions, too, and those of f are sought beside them. The columns are

- the directions of x, and the logarithm of the mean square of what they leave out;
- the directions of |x|, for variances that depend on theta;
- quantiles of each row's features, for samples and for series whose order says little;
- where an emulator of the first columns puts theta, how precisely, and how well it fits there
  (`skbi.preprocessing.location`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.extmath import randomized_svd

from skbi.parallel import blocks
from skbi.preprocessing.coordinates import ParameterMap
from skbi.preprocessing.emulator import MIN_NOISE, Basis, Ridge, choose_length_scales
from skbi.preprocessing.features import FeatureMap
from skbi.preprocessing.gaps import Gaps
from skbi.preprocessing.location import Frame, Location
from skbi.preprocessing.packed import Packed
from skbi.preprocessing.stabiliser import Stabiliser

__all__ = ["MAX_COMMON", "MAX_DIRECTIONS", "MAX_FEATURES", "Compression", "Directions"]

MAX_DIRECTIONS = 24  # of x, or twice as many as parameters
MAX_COMMON = 16  # directions of noise that is common to many features
MAX_FEATURES = 128  # features up to which networks read them, besides what compresses them
_MAX_ABSOLUTE_DIRECTIONS = 12
_SEARCH_COLUMNS = 48  # features that length scales are chosen by
_COLUMNS = 512  # features regressed at a time
_QUANTILES = np.linspace(0, 1, 21)
_MAX_ORDERED = 1000  # features that the quantiles of a row are taken from
_MAX_SCORED = 1000  # pairs that tell which way of reading features tells most
_MAX_LOCATED = 16  # parameters up to which an emulator says where theta lies
_NUMBERS = 2**22  # of x at a time
_MARGIN = 1.2  # by which the variance of a direction of noise exceeds that by chance
_FURTHEST = 4.0  # standard deviations that noise counts
_TINY = 1e-12


@dataclass(frozen=True)
class Directions:
    """Linear combinations of the features, in units of their noise, and what they are chosen for.

    First come those whose mean depends on theta, then those of noise common to many features.

    Attributes
    ----------
    mean, noise : ndarray, shape (d,)
        Of the features.
    axes : ndarray, shape (d, k)
        Orthonormal, of the features in units of their noise.
    length_scales : ndarray, shape (p,)
        Of the regression on theta.
    information : float
        What the directions say on theta if all were Gaussian, sum log(1 + lambda) / 2, in nats.
    """

    mean: NDArray[np.float64]
    noise: NDArray[np.float64]
    axes: NDArray[np.float64]
    length_scales: NDArray[np.float64]
    information: float

    @classmethod
    def fit(
        cls,
        w: NDArray[np.float64],
        x: NDArray[np.float64],
        most: int,
        rng: np.random.Generator,
        transform: Callable[[NDArray[np.float64]], NDArray[np.float64]] = np.asarray,
        most_common: int = 0,
    ) -> Self:
        """Find at most so many directions of transform(x), x (n, d), that depend on w (n, p).

        At most ``most_common`` directions of noise that is common to many features come after them.
        """
        n, d = x.shape
        mean = np.concatenate(
            [transform(x[:, columns]).mean(axis=0) for columns in blocks(d, _COLUMNS)]
        )
        some = np.sort(rng.choice(d, min(d, _SEARCH_COLUMNS), replace=False))
        length_scales = choose_length_scales(w, transform(x[:, some]) - mean[some], rng)
        ridge = Ridge(Basis.fit(w, length_scales, rng).design(w))
        solved = [
            ridge.solve(transform(x[:, columns]) - mean[columns]) for columns in blocks(d, _COLUMNS)
        ]
        coefficients, errors, degrees = (
            np.concatenate(a, axis=-1) for a in zip(*solved, strict=True)
        )
        noise = np.maximum(np.sqrt(errors), MIN_NOISE)
        slopes, common, own = coefficients / noise, np.empty((d, 0)), 1.0
        if most_common:
            rows = np.sort(rng.choice(n, min(n, max(1, _NUMBERS // d)), replace=False))
            left = (transform(x[rows]) - mean) / noise - ridge.rotated[rows] @ slopes
            common, own = _common_noise(left, most_common, rng)
        values, axes = _principal_axes(ridge.rotated, slopes - slopes @ common @ common.T)
        by_chance = own * (np.sqrt(degrees.mean()) + np.sqrt(d)) ** 2 / n
        k = np.clip((values > by_chance).sum(), 1, min(most, len(values)))
        information = 0.5 * np.log1p(values[:k] / own).sum()
        axes = np.hstack([axes[:, :k], common])
        return cls(mean, noise, axes, length_scales, float(information))

    def __call__(self, x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the directions (n, k), and the log mean square of what is left out, (n, 1)."""
        y = (x - self.mean) / self.noise
        inside = y @ self.axes
        left = (y**2).sum(axis=1) - (inside**2).sum(axis=1)
        n_left = max(1, y.shape[1] - inside.shape[1])
        return inside, np.log(np.maximum(left / n_left, _TINY))[:, None]


def _common_noise(
    noise: NDArray[np.float64], most: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], float]:
    """Return the axes (d, k) of what is common to the columns of noise (n, d), of about unit scale.

    Variances along them exceed what independent columns would give (Marchenko and Pastur 1967,
    https://doi.org/10.1070/SM1967v001n04ABEH001994). Second comes the mean variance across them,
    as a share of that of all.
    """
    noise = np.clip(noise, -_FURTHEST, _FURTHEST)
    n, d = noise.shape
    most = min(most, n // 2, d // 2)
    if not most or not noise.any():
        return np.empty((d, 0)), 1.0
    seed = int(rng.integers(2**31))
    _, singular, axes = randomized_svd(noise, most, random_state=seed)
    total = (noise**2).sum()
    left, by_chance, k = total, _MARGIN * (1 + np.sqrt(d / n)) ** 2, 0
    while k < most and singular[k] ** 2 > by_chance * left / (d - k):
        left -= singular[k] ** 2
        k += 1
    return axes[:k].T, left / total * d / (d - k)


def _principal_axes(
    rotated: NDArray[np.float64], coefficients: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return variances (m,) and axes (d, m) of predictions, rotated @ coefficients, largest first.

    The predictions (n, d) are never computed: coefficients (m, d) are smaller.
    """
    centred = rotated - rotated.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T @ coefficients
    _, singular, axes = np.linalg.svd(root, full_matrices=False)
    return singular**2, axes.T


@dataclass(frozen=True)
class Compression:
    """The columns that compress x, fitted.

    Attributes
    ----------
    stabiliser : Stabiliser
        How features are read: so that the emulator's posterior is best.
    gaps : Gaps or None
        What fills missing entries, with a mask.
    direct, absolute : Directions
        Of x and of ``|x|``.
    location : Location or None
        None for many parameters.
    scaling : FeatureMap
        Standardises the columns, and gives those of heavy tails a second time.
    widths : dict of str to int
        Number of columns of each group before that, in their order.
    """

    stabiliser: Stabiliser
    gaps: Gaps | None
    direct: Directions
    absolute: Directions
    location: Location | None
    scaling: FeatureMap
    widths: dict[str, int]

    @classmethod
    def fit(
        cls,
        parameters: ParameterMap,
        features: FeatureMap,
        theta: NDArray[np.float64],
        points: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> Self:
        """Learn from training pairs: theta (n, p), and points (n, d)."""
        w, precision = parameters.regressors(theta), parameters.regressor_precision
        fit = partial(cls._fit_directions, features, w, points, precision, rng=rng)
        candidates = [fit(stabiliser) for stabiliser in Stabiliser.candidates(features, points)]
        _, stabiliser, gaps, direct, location, x = max(candidates, key=itemgetter(0))
        absolute = Directions.fit(w, x, _MAX_ABSOLUTE_DIRECTIONS, rng, np.abs)
        unscaled = cls(stabiliser, gaps, direct, absolute, location, features, {})
        parts, _ = unscaled.parts(points, parameters, features)
        widths = {name: part.shape[1] for name, part in parts.items()}
        scaling = FeatureMap.fit(Packed(np.hstack(list(parts.values()))), False, asinh=True)
        return cls(stabiliser, gaps, direct, absolute, location, scaling, widths)

    @staticmethod
    def _fit_directions(
        features: FeatureMap,
        w: NDArray[np.float64],
        points: NDArray[np.float64],
        prior_precision: NDArray[np.float64],
        stabiliser: Stabiliser,
        rng: np.random.Generator,
    ) -> tuple[Any, ...]:
        """Return how well features read in this way tell theta, and what was fitted to them."""
        x = y = stabiliser(features, points)
        present, gaps, location = None, None, None
        if features.mask:
            present = ~np.isnan(points)
            gaps = Gaps.fit(w, x, present, prior_precision, rng)
            x, _ = gaps.fill(x, present)
        most = max(MAX_DIRECTIONS, 2 * w.shape[1])
        most_common = MAX_COMMON if x.shape[1] > MAX_FEATURES else 0  # else networks read them all
        direct = Directions.fit(w, x, most, rng, most_common=most_common)
        score = direct.information
        if w.shape[1] <= _MAX_LOCATED:
            if gaps is not None:
                location = gaps.location
            else:
                y = np.concatenate([direct(x[rows])[0] for rows in _row_blocks(x)])
                location = Location.fit(w, y, direct.length_scales, prior_precision, rng)
            some = slice(_MAX_SCORED)
            score = location.score(w[some], y[some], None if present is None else present[some])
        return score, stabiliser, gaps, direct, location, x

    @property
    def width(self) -> int:
        """Number of columns, c."""
        return self.scaling.width

    @property
    def groups(self) -> dict[str, NDArray[np.int64]]:
        """Which columns are what."""
        sizes = list(self.widths.values())
        owners = np.repeat(list(self.widths), sizes)
        owners = np.concatenate([owners, owners[self.scaling.asinh_columns]])
        return {name: np.flatnonzero(owners == name) for name in self.widths}

    def forward(
        self, points: NDArray[np.float64], parameters: ParameterMap, features: FeatureMap
    ) -> tuple[NDArray[np.float64], Frame | None]:
        """Return the columns (n, c) of points (n, d), and the frame of the emulator's posterior."""
        parts, frame = self.parts(points, parameters, features)
        return self.scaling.forward(np.hstack(list(parts.values()))), frame

    def parts(
        self, points: NDArray[np.float64], parameters: ParameterMap, features: FeatureMap
    ) -> tuple[dict[str, NDArray[Any]], Frame | None]:
        """Return the groups of columns as they are, by name, and the frame."""
        found = [self._of_rows(points[rows], features) for rows in _row_blocks(points)]
        parts = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
        if self.location is None:
            return parts, None
        w, precision, misfit = (parts.pop(name) for name in ("w", "w precision", "loss"))
        z, slope = parameters.from_regressors(w)
        precision = precision / slope[:, :, None] / slope[:, None, :]
        frame = Frame.fit(z, precision + np.diag(parameters.flat.astype(float)))
        parts["location"], parts["precision"] = frame.centre, frame.log_scales
        parts["misfit"] = np.log(np.maximum(misfit, _TINY))[:, None]
        return parts, frame

    def _of_rows(
        self, points: NDArray[np.float64], features: FeatureMap
    ) -> dict[str, NDArray[Any]]:
        x, found = self.stabiliser(features, points), None
        if self.gaps is not None:
            present = ~np.isnan(points)
            x, found = self.gaps.fill(x, present)
            points = np.where(present, points, features.mean[: x.shape[1]])
        direct, rest = self.direct(x)
        if found is None and self.location is not None:
            found = self.location.find(direct)
        columns = np.linspace(0, x.shape[1] - 1, min(x.shape[1], _MAX_ORDERED)).astype(int)
        parts = {
            "direct": direct,
            "rest": rest,
            "absolute": self.absolute(np.abs(x))[0],
            "quantiles": np.quantile(points[:, columns], _QUANTILES, axis=1).T,
        }
        if self.gaps is not None and x.shape[1] <= MAX_FEATURES:
            parts["filled"] = x
        if self.location is None:
            return parts
        return parts | dict(zip(("w", "w precision", "loss"), found, strict=True))


def _row_blocks(x: NDArray[np.float64]) -> list[slice]:
    return list(blocks(len(x), max(1, _NUMBERS // x.shape[1])))
