"""Signs that data mean something else than what they were passed as, which a fit cannot refuse.

Each is a test of something that neither chance nor what is usual shows: of 8 standard errors, or of
digits that only a scaler leaves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from skbi.estimators.pairs import TrainingData
from skbi.preprocessing.packed import Packed
from skbi.preprocessing.scales import outlier_bounds
from skbi.priors import Prior

__all__ = ["describe_scaling", "signs_of_misuse"]

_CERTAIN, _BY_CHANCE = 8.0, 4.5  # standard errors
_LEAST_RELATION = 0.5  # correlation of a parameter and a feature, if either determines the other
_MAX_ROWS, _MAX_COLUMNS = 5000, 50
_MIN_SETS = 30  # by which a standard error is known
_MAX_SETS, _MAX_POINTS = 250, 100  # of each set
_PRECISION = 1e-8  # of the mean and the scale that a scaler leaves
_SCALED_ROWS = 20  # from which on that is no chance


def signs_of_misuse(data: TrainingData, prior: Prior | None) -> list[str]:
    """Return warnings of training pairs that were probably not meant as they were passed."""
    if data.resumed:
        return []
    if message := _describe_outlier(data.theta, data.parameter_names):
        return [message]
    if prior is not None and (message := describe_scaling(data.theta, prior)):
        return [message]
    if data.X.sizes is not None:
        return _signs_of_order(data.X)
    if prior is None and data.transformer is None:
        return _signs_of_swapping(data.theta, data.X.points)
    return []


def _describe_outlier(theta: NDArray[np.float64], names: NDArray[Any]) -> str:
    """Return a message if theta holds an outlier, and else nothing."""
    low, high = outlier_bounds(theta)
    outlying = (theta < low) | (theta > high)
    if not outlying.any():
        return ""
    row, column = np.argwhere(outlying)[0]
    others = theta[~outlying[:, column], column]
    return (
        f"{outlying.any(axis=1).sum()} of {len(theta)} rows of theta hold outliers: row {row} has "
        f"{theta[row, column]:.4g} of {names[column]!r}, whose other values lie in "
        f"[{others.min():.4g}, {others.max():.4g}]. Posteriors come out too wide: mend or drop "
        "such rows, unless the prior has tails as long."
    )


def describe_scaling(theta: NDArray[np.float64], prior: Prior) -> str:
    """Return a message if theta was scaled, and else nothing."""
    if not _was_scaled(theta, prior):
        return ""
    return (
        "theta was scaled rather than drawn from the prior: the location of its columns is 0 and "
        "their scale 1, to all digits. A Pipeline transforms the first argument of fit(theta, X). "
        "Fit without it: estimators scale theta and X themselves, and what X is to pass through is "
        "summary=, as in NPEEstimator(summary=StandardScaler())."
    )


def _was_scaled(theta: NDArray[np.float64], prior: Prior) -> bool:
    """Whether every continuous column is as StandardScaler, MinMaxScaler and others leave it."""
    theta = theta[:, ~np.asarray(prior.discrete)]
    if len(theta) < _SCALED_ROWS or not theta.shape[1]:
        return False
    low, high = theta.min(axis=0), theta.max(axis=0)
    if any(np.ptp(np.diff(np.unique(x))) < _PRECISION for x in theta.T if np.ptp(x) > 0):
        return False  # a grid, which may end at 0 and 1
    quartiles = np.quantile(theta, [0.25, 0.5, 0.75], axis=0)
    location_and_scale = (
        (theta.mean(axis=0), theta.std(axis=0)),
        (low, high - low),
        (quartiles[1], quartiles[2] - quartiles[0]),
        (0.0, np.maximum(-low, high)),
    )
    return any(
        bool(np.all((np.abs(at) < _PRECISION) & (np.abs(scale - 1) < _PRECISION)))
        for at, scale in location_and_scale
    )


def _signs_of_swapping(theta: NDArray[np.float64], X: NDArray[np.float64]) -> list[str]:
    """Warn if theta's columns depend on each other and X's do not.

    Most priors are of independent parameters, whereas simulations share them.
    """
    complete = np.flatnonzero(np.isfinite(X[:_MAX_ROWS]).all(axis=1))
    if len(complete) < _CERTAIN**2:  # not even a correlation of one is certain
        return []
    scores = [_rank_scores(a[complete]) for a in (theta, X)]
    if min(a.shape[1] for a in scores) < 4:  # a single column that varies shows nothing
        return []
    n = len(complete)
    of_theta, of_X = (_largest_correlation(a) * np.sqrt(n) for a in scores)
    relation = np.abs(scores[0].T @ scores[1]).max() / n
    if of_theta < _CERTAIN or of_X > _BY_CHANCE or relation < _LEAST_RELATION:
        return []
    return [
        "Are theta and X swapped? It is fit(theta, X). The columns of theta depend on each other, "
        f"as simulations do (correlation {of_theta / np.sqrt(n):.2f}), and those of X do not, as "
        "draws of a prior do. If they are not swapped, give prior= to say so."
    ]


def _rank_scores(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks of the columns that vary (n, k), then their distances from the middle (n, k).

    All have mean 0 and scale 1. Correlations of the latter show dependence that has no direction.
    """
    x = x[:, np.ptp(x, axis=0) > 0][:, :_MAX_COLUMNS]
    ranks = _standardised(stats.rankdata(x, axis=0))
    return np.hstack([ranks, _standardised(np.abs(ranks))])


def _standardised(x: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = x - x.mean(axis=0)
    scale = centred.std(axis=0)
    return centred / np.where(scale > _PRECISION, scale, np.inf)


def _largest_correlation(scores: NDArray[np.float64]) -> Any:
    """Return the largest correlation between different columns."""
    k = scores.shape[1] // 2
    correlations = np.abs(scores.T @ scores) / len(scores)
    return correlations[np.tile(np.eye(k), (2, 2)) == 0].max()


def _signs_of_order(X: Packed) -> list[str]:
    """Warn if neighbouring points of sets are more, or less, alike than others.

    If a column increases, or decreases, throughout all sets, it tells the order by itself.
    """
    if len(X) < _MIN_SETS:
        return []
    points, owners = _first_points(X)
    steps = np.diff(points, axis=0)[np.diff(owners) == 0]
    if not len(steps) or ((steps >= 0).all(axis=0) | (steps <= 0).all(axis=0)).any():
        return []
    rng = np.random.default_rng(0)
    found = _lag_one_correlations(points, owners, rng)
    shuffled = points[np.lexsort((rng.random(len(points)), owners))]
    by_chance = _lag_one_correlations(shuffled, owners, rng)
    z = np.maximum(
        np.abs(_standard_errors(found - by_chance)), _standard_errors(found**2 - by_chance**2)
    )
    if z.max() < _CERTAIN:
        return []
    j = int(z.argmax())
    size = np.sqrt((found[:, j] ** 2).mean())
    return [
        "The order of a set's points is not read, and here it seems to tell something: neighbours "
        f"are related (feature {j}, a rank correlation of {size:.2f} in size). If X is a series, "
        "say so to NPE, NRE, FMPE or CMPE by summary='series', or add the time as a feature of "
        "each point. If the order means nothing, shuffle the points."
    ]


def _first_points(X: Packed) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the first points (N, d) of the first sets, and whose they are, (N,)."""
    sizes = X.sizes[:_MAX_SETS]
    owners = np.repeat(np.arange(len(sizes)), sizes)
    number = np.arange(len(owners)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    some = np.flatnonzero(number < _MAX_POINTS)
    points = np.asarray(X.points[some, :_MAX_COLUMNS], dtype=np.float64)
    return points, owners[some]


def _lag_one_correlations(
    points: NDArray[np.float64], owners: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return the correlation of each point's rank in its set with that of the next, (n, d)."""
    sizes = np.bincount(owners)
    starts, neighbours = np.cumsum(sizes) - sizes, np.flatnonzero(np.diff(owners) == 0)
    found = np.empty((len(sizes), points.shape[1]))
    for j, x in enumerate(points.T):
        rank = np.empty(len(x))  # ties are broken at random
        rank[np.lexsort((rng.random(len(x)), x, owners))] = np.arange(len(x))
        rank -= (starts + (sizes - 1) / 2)[owners]
        products = rank[neighbours] * rank[neighbours + 1]
        found[:, j] = np.bincount(owners[neighbours], products, minlength=len(sizes))
        found[:, j] /= np.maximum(np.bincount(owners, rank**2), _PRECISION)
    return found


def _standard_errors(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over sets in units of its standard error, (d,)."""
    error = x.std(axis=0) / np.sqrt(len(x))
    return x.mean(axis=0) / np.where(error > 0, error, np.inf)
