"""The maps between the user's units and the networks': theta <-> z, and X -> scaled points."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import probplot
from torch import Tensor

from skbi._data import Batch, Indexer, MappedIndexer, Packed, chunks, file_of
from skbi.priors import Prior, from_normal, off_bounds, to_normal

__all__ = ["FeatureMap", "Maps", "ParameterMap"]

_LARGE = 2**28  # bytes of memory-mapped data, beyond which they stay in their file
_SEEN = 2000  # points, at most, whose tails are looked at
_SEEN_SETS = 100  # sets, at most, that they are taken from
_HEAVY = 1.3  # from which on sd / (sd of a normal distribution with these quartiles) is heavy
_STRAIGHTER = 0.01  # how much a bent column must gain in correlation with normal quantiles
_LEAST_UNIT = 1e-100  # of a column's largest value
_LARGEST_LOG = math.log(np.finfo(np.float64).max)


@dataclass(frozen=True)
class ParameterMap:
    """theta <-> z: the prior's Gaussian coordinates (theta itself without a prior), standardised.

    log q(theta) = log q_z(z) + log |det dz/dtheta|, and the determinant of the prior's map is
    p(theta) / N(z; 0, I). Draws of z therefore land in the prior's support. Coordinates that are
    ``straight`` go on through `Straight`: proportional to theta where the prior is flat.
    """

    prior: Prior | None
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    straight: NDArray[np.bool_]
    edge: float  # z of what lies on a bound of the prior

    @classmethod
    def fit(
        cls, prior: Prior | None, theta: NDArray[np.float64], *, straight: bool = False
    ) -> Self:
        """Standardise by the training parameters; optionally keep flat ones straight."""
        edge = float(-ndtri(0.5 / len(theta)))  # of n draws, about the outermost
        if prior is None:
            _, mean, scale = _spread_of(theta)
            return cls(prior, mean, scale, np.zeros(theta.shape[1], bool), edge)
        z = off_bounds(prior, to_normal(prior, theta), edge)
        flat = _is_flat(prior) if straight else np.zeros(z.shape[1], bool)
        z[:, flat] = Straight.forward(z[:, flat])[0]
        return cls(prior, z.mean(axis=0), z.std(axis=0), flat, edge)

    def scaled(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Standardise coordinates."""
        return (z - self.mean) / self.scale

    def forward(self, theta: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """Return z (n, p) and log |det dz/dtheta| (n,), which is -inf outside the support."""
        log_det = np.full(len(theta), -np.log(self.scale).sum())
        if self.prior is None:
            return self.scaled(theta), log_det
        log_prior = np.asarray(self.prior.log_prob(theta), dtype=np.float64)
        inside = np.isfinite(log_prior)
        z = np.zeros(theta.shape)
        z[inside] = off_bounds(self.prior, to_normal(self.prior, theta[inside]), self.edge)
        log_normal = -0.5 * (z**2 + math.log(2 * math.pi)).sum(axis=1)
        z[:, self.straight], log_slope = Straight.forward(z[:, self.straight])
        return self.scaled(z), log_det + log_prior - log_normal + log_slope.sum(axis=1)

    def inverse(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return theta (n, p)."""
        z = self.mean + self.scale * z
        z[:, self.straight] = Straight.inverse(z[:, self.straight])
        return z if self.prior is None else from_normal(self.prior, z)


class Straight:
    """z ~ N(0, 1) -> s, with u = Phi(z) = (softplus(k s) - softplus(k (s - 1))) / k.

    So s is u but near the edges, where it goes on to infinity. The Gaussian coordinates of a flat
    prior bend posteriors everywhere.
    """

    k = 20.0

    @classmethod
    def forward(cls, z: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return s and log ds/dz."""
        below, above = cls.k * ndtr(z), cls.k * ndtr(-z)
        s = (np.log(np.expm1(below)) - np.log(-np.expm1(-above))) / cls.k
        return s, cls._log_slope(s) - 0.5 * (z**2 + math.log(2 * math.pi))

    @classmethod
    def inverse(cls, s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return z."""
        growth = np.exp(cls.k * np.minimum(s, 1 - s))
        tail = np.log1p(growth * -math.expm1(-cls.k) / (1 + growth * math.exp(-cls.k))) / cls.k
        return np.copysign(ndtri(tail), s - 0.5)

    @classmethod
    def _log_slope(cls, s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log ds/du."""
        edges = np.logaddexp(0, -cls.k * s) + np.logaddexp(0, -cls.k * (1 - s))
        return edges - math.log(-math.expm1(-cls.k))


def _is_flat(prior: Prior) -> NDArray[np.bool_]:
    """Which parameters are bounded, with a density that hardly varies between the bounds."""
    p = len(prior.names)
    bounded = np.isfinite(np.asarray(prior.support, dtype=np.float64)).all(axis=1)
    u = np.linspace(0.02, 0.98, 25)[:, None]
    gaps = np.diff(np.asarray(prior.ppf(np.broadcast_to(u, (25, p))), dtype=np.float64), axis=0)
    return bounded & ~np.asarray(prior.discrete) & (gaps.max(axis=0) < 3 * gaps.min(axis=0))


@dataclass(frozen=True)
class FeatureMap:
    """Points standardised column by column; with ``mask``, NaN become 0 and columns say where.

    Heavy tails leave everything else within a small part of a standard deviation. Columns ``bent``
    are therefore given a second time, as asinh((x - centre) / unit), and those with a ``floor``,
    the least value seen, only as their logarithm; zero and less are read as the floor.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    mask: bool
    bent: NDArray[np.int64]
    centre: NDArray[np.float64]
    unit: NDArray[np.float64]
    floor: NDArray[np.float64]

    @classmethod
    def fit(
        cls, X: Packed, mask: bool, *, bend: bool = False, log: bool | NDArray[np.bool_] = False
    ) -> Self:
        """Learn all of it from what is present.

        ``bend`` gives columns that are heavy-tailed (in sets: within them) once more; ``log``, for
        each column or for all, takes the logarithm of those that are positive and heavy-tailed.
        """
        constant, mean, scale = _spread_of(X.points)
        scale = np.where(constant, 1.0, scale)
        some = _some(X)
        floor = _floor(X.points, some.points, log & ~constant)
        logged = floor > 0
        if logged.any():
            _, mean[logged], scale[logged] = _spread_of(np.log(some.points[:, logged]))
        bent, centre, unit = _bends(some, bend & ~constant)
        if len(bent):
            _, *spread = _spread_of(np.arcsinh((some.points[:, bent] - centre) / unit))
            mean, scale = np.hstack([[mean, scale], spread])
        return cls(mean, scale, mask, bent, centre, unit, floor)

    @property
    def n_features(self) -> int:
        """Columns before the map."""
        return len(self.floor)

    @property
    def width(self) -> int:
        """Columns after the map."""
        return len(self.mean) + (self.n_features if self.mask else 0)

    @property
    def logged(self) -> NDArray[np.bool_]:
        """Which columns are given as their logarithm, (n_features,)."""
        return self.floor > 0

    def possible(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether points have the logarithms that they need, (N,)."""
        return (points[:, self.logged] > 0).all(axis=1)

    def forward(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scaled points (N, width)."""
        x, logged = points, self.logged
        if logged.any():
            x = points.astype(np.float64)  # a copy
            positive = np.where(x[:, logged] > 0, x[:, logged], self.floor[logged])
            x[:, logged] = np.log(positive)
        if len(self.bent):
            x = np.hstack([x, np.arcsinh((x[:, self.bent] - self.centre) / self.unit)])
        x = (x - self.mean) / self.scale
        return np.hstack([np.nan_to_num(x), np.isnan(points)]) if self.mask else x

    def inverse(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the points of scaled ones (..., n_features), if no column is given twice."""
        points, logged = self.mean + self.scale * x, self.logged
        points[..., logged] = np.exp(np.minimum(points[..., logged], _LARGEST_LOG))
        return points

    def volume(self) -> tuple[float, NDArray[np.float64]]:
        """Return c and s (n_features,) of log |d points / d x| = c + x @ s."""
        constant = np.log(self.scale).sum() + self.mean[self.logged].sum()
        return float(constant), np.where(self.logged, self.scale, 0.0)

    def log_volume(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return log |d points / d x| at scaled points (N, n_features), (N,)."""
        constant, slopes = self.volume()
        return constant + x @ slopes


def _some(X: Packed) -> Packed:
    """Pick up to `_SEEN` points, in double precision: vectors, or some of each of a few sets."""
    rng = np.random.default_rng(0)  # not every k-th: the pairs may alternate
    n = min(len(X), _SEEN if X.sizes is None else _SEEN_SETS)
    rows = np.sort(rng.choice(len(X), n, replace=False))
    if X.sizes is None:
        return Packed(X.take(rows).points.astype(np.float64))
    parts = [X[row : row + 1].points for row in rows.tolist()]
    parts = [x[np.linspace(0, len(x) - 1, min(len(x), _SEEN // n)).astype(int)] for x in parts]
    return Packed(np.concatenate(parts).astype(np.float64), np.array([len(x) for x in parts]))


def _standardised_by_set(X: Packed) -> NDArray[np.float64]:
    """Standardise the points (N, d) of each set by themselves; vectors stay as they are.

    NaN is what does not vary within its set.
    """
    if X.sizes is None:
        return X.points
    largest = np.fmax.reduce(np.abs(X.points))
    x = X.points / np.where(largest > 0, largest, 1.0)  # no square leaves a float64's range
    present, starts = ~np.isnan(x), np.cumsum(X.sizes) - X.sizes

    def average(values: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.add.reduceat(np.where(present, values, 0.0), starts)
        return (total / np.maximum(np.add.reduceat(present, starts, dtype=int), 1))[X.owners()]

    mean = average(x)
    scale = np.sqrt(average((x - mean) ** 2))
    return np.where(scale > 1e-12 * np.abs(mean), x - mean, np.nan) / np.where(scale > 0, scale, 1)


def _are_heavy(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether the standard deviations of columns (N, d) are far larger than quartiles tell."""
    columns = [_scaled(column)[0] for column in points.T]
    quartiles = np.array([np.quantile(x, [0.25, 0.75]) for x in columns])
    normal = np.diff(quartiles)[:, 0] / 1.349  # the standard deviation, were they normal
    return np.array([x.std() for x in columns]) > _HEAVY * normal


def _floor(
    points: NDArray[np.float64], sample: NDArray[np.float64], allowed: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the least value of columns that their logarithm makes more normal, 0 of others."""
    chosen = allowed & (sample > 0).all(axis=0)
    chosen &= _are_heavy(sample) if chosen.any() else False
    for j in np.flatnonzero(chosen):
        x = sample[:, j]
        chosen[j] = _straightness(np.log(x)) > _straightness(_scaled(x)[0]) + _STRAIGHTER
    if not chosen.any():
        return np.zeros(len(chosen))
    least = np.min([part.min(axis=0) for part in chunks(points)], axis=0)
    return np.where(chosen & (least > 0), least, 0.0)


def _bends(
    X: Packed, allowed: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return which columns are to be bent, their centres and their units, (n_bent,) each."""
    heavy = allowed & _are_heavy(_standardised_by_set(X)) if allowed.any() else allowed
    found = {j: _choose_bend(X.points[:, j]) for j in np.flatnonzero(heavy)}
    found = {j: bend for j, bend in found.items() if bend is not None}
    centre, unit = np.array([*found.values()]).reshape(-1, 2).T
    return np.array([*found], dtype=int), centre, unit


def _choose_bend(x: NDArray[np.float64]) -> tuple[float, float] | None:
    """Choose a column's centre and unit, None if no bend makes it more normal.

    The centre is its lowest, median or highest value and the unit a quantile of the distance from
    there.
    """
    x, median, size = _scaled(x)
    best, chosen = _straightness(x) + _STRAIGHTER, None
    for centre in (x[0], 0.0, x[-1]):
        distances = np.abs(x - centre)
        for unit in np.quantile(distances[distances > 0], [0.01, 0.1, 0.5]).clip(min=_LEAST_UNIT):
            straightness = _straightness(np.arcsinh((x - centre) / unit))
            if straightness > best:
                best, chosen = straightness, (median + size * centre, size * unit)
    return chosen


def _scaled(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], float, float]:
    """Sort what is present of a column, take its median away, divide by its largest value.

    So no square leaves the range of a float64. Give also what was taken away, and the divisor.
    """
    x = np.sort(x[~np.isnan(x)])
    if not len(x) or x[0] == x[-1]:
        return np.zeros(1), 0.0, 1.0
    size = max(abs(x[0]), abs(x[-1]))
    median = np.median(x / size)
    return x / size - median, size * median, size


def _straightness(x: NDArray[np.float64]) -> float:
    """Correlation of a column with normal quantiles."""
    return float(np.nan_to_num(probplot(x)[1][2]))


def _spread_of(
    points: NDArray[Any],
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
    """Which columns (N, d) are constant, their means and standard deviations, without NaN.

    Columns are scaled to [0, 1] first, so that no square leaves the range of a float64.
    """
    low, high, count = np.inf, -np.inf, 0
    for x in chunks(points):
        absent = np.isnan(x)
        low = np.minimum(low, np.where(absent, np.inf, x).min(axis=0))
        high = np.maximum(high, np.where(absent, -np.inf, x).max(axis=0))
        count = count + (~absent).sum(axis=0)
    constant = ~(high - low > 1e-12 * np.maximum(np.abs(low), np.abs(high)))
    low = np.where(count, low, 0.0).astype(np.float64)  # a file may hold single precision
    span = np.where(constant, 1.0, high - low)

    def average(power: int, centre: Any) -> NDArray[np.float64]:
        units = (((x - low) / span - centre) ** power for x in chunks(points))
        return sum(np.nansum(u, axis=0) for u in units) / np.maximum(count, 1)

    mean = average(1, 0.0)
    return constant, low + span * mean, span * np.sqrt(average(2, mean))


@dataclass(frozen=True)
class Maps:
    """The two maps between the user's units and the networks'."""

    theta: ParameterMap
    X: FeatureMap

    @classmethod
    def fit(
        cls,
        prior: Prior | None,
        theta: NDArray[np.float64],
        X: Packed,
        mask: bool,
        *,
        straight: bool,
        **tails: Any,
    ) -> Self:
        """Fit both to training pairs."""
        parameters = ParameterMap.fit(prior, theta, straight=straight)
        return cls(parameters, FeatureMap.fit(X, mask, **tails))

    def batch(self, X: Packed, like: Tensor) -> Batch:
        """Scale observations and move them to the type and device of ``like``."""
        return X.tensors(self.X.forward(X.points), like)

    def indexer(self, X: Packed, like: Tensor, rng: np.random.Generator) -> Indexer | MappedIndexer:
        """Take minibatches of scaled observations, of many memory-mapped ones from the file."""
        scale = partial(self.batch, like=like)
        if X.points.nbytes > _LARGE and file_of(X.points) is not None:
            return MappedIndexer(X, scale, rng)
        return Indexer(scale(X), rng)
