"""Heavy-tailed columns of X: how they are found, and which transformation makes them more normal.

A column is heavy-tailed if its standard deviation is much larger than its quartiles suggest,

    sd > 1.3 (q_75 - q_25) / 1.349,

where (q_75 - q_25) / 1.349 is the standard deviation of a normal distribution with these quartiles.
log(x) or asinh((x - centre) / scale) makes it more normal if the correlation of its values with
normal quantiles rises by more than 0.01.

References
----------
Filliben, The probability plot correlation coefficient test for normality, 1975,
https://doi.org/10.2307/1268008.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import probplot

from skbi.preprocessing.packed import Packed, chunks

__all__ = [
    "MIN_CORRELATION_GAIN",
    "find_asinh_columns",
    "find_log_columns",
    "heavy_tailed",
    "normality",
    "subsample",
]

_MAX_POINTS = 2000  # points whose tails are examined
_MAX_SETS = 100  # sets that these points are taken from
_MIN_SD_RATIO = 1.3  # of a heavy-tailed column: its sd, relative to that of a normal distribution
_IQR_OF_NORMAL = 1.349  # interquartile range of the standard normal distribution
MIN_CORRELATION_GAIN = 0.01  # of a transformed column, in its correlation with normal quantiles
_MIN_ASINH_SCALE = 1e-100  # relative to a column's largest absolute value


def subsample(X: Packed) -> Packed:
    """Pick the points whose tails are examined, in double precision.

    Parameters
    ----------
    X : Packed
        Training observations.

    Returns
    -------
    Packed
        At most 2000 of the vectors, or points from at most 100 of the sets, at most 2000 in all.
    """
    rng = np.random.default_rng(0)  # evenly spaced rows could miss one of two kinds that alternate
    n = min(len(X), _MAX_POINTS if X.sizes is None else _MAX_SETS)
    rows = np.sort(rng.choice(len(X), n, replace=False))
    if X.sizes is None:
        return Packed(X.take(rows).points.astype(np.float64))
    sets = [X[row : row + 1].points for row in rows.tolist()]
    most = _MAX_POINTS // n  # points of each set
    sets = [x[np.linspace(0, len(x) - 1, min(len(x), most)).astype(int)] for x in sets]
    return Packed(np.concatenate(sets).astype(np.float64), np.array([len(x) for x in sets]))


def find_log_columns(
    points: NDArray[np.float64],
    sample: NDArray[np.float64],
    allowed: NDArray[np.bool_],
    width: NDArray[np.float64] | float = 0.0,
) -> NDArray[np.float64]:
    """Find the heavy-tailed, positive columns that log(x + width) makes more normal.

    Parameters
    ----------
    points : ndarray, shape (N, d)
        All training points.
    sample : ndarray, shape (m, d)
        The points of `subsample`.
    allowed : ndarray of bool, shape (d,)
        Columns that may be replaced by their logarithm.
    width : float or ndarray, shape (d,), default=0
        Of noise that the columns come with: columns that have some may be zero.

    Returns
    -------
    ndarray, shape (d,)
        The smallest training value, plus the width, of the columns that were found; 0 for others.
    """
    width = np.broadcast_to(width, allowed.shape)
    chosen = allowed & (np.where(width > 0, sample >= 0, sample > 0)).all(axis=0)
    chosen &= heavy_tailed(sample) if chosen.any() else False
    for j in np.flatnonzero(chosen):
        x = sample[:, j]
        gain = normality(np.log(x + width[j])) - normality(_to_unit_size(x)[0])
        chosen[j] = gain > MIN_CORRELATION_GAIN
    if not chosen.any():
        return np.zeros(len(chosen))
    smallest = np.min([part.min(axis=0) for part in chunks(points)], axis=0)
    chosen &= np.where(width > 0, smallest >= 0, smallest > 0)
    return np.where(chosen, smallest + width, 0.0)


def find_asinh_columns(
    sample: Packed, allowed: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Find the heavy-tailed columns that asinh((x - centre) / scale) makes more normal.

    Parameters
    ----------
    sample : Packed
        The observations of `subsample`. Sets are standardised one by one before their columns are
        examined for heavy tails, because `DeepSet` standardises them in this way.
    allowed : ndarray of bool, shape (d,)
        Columns that may be transformed.

    Returns
    -------
    columns : ndarray of int, shape (n_columns,)
    centre, scale : ndarray, shape (n_columns,)
        Of each of these columns, in its own units.
    """
    heavy = allowed & heavy_tailed(_standardise_within_sets(sample)) if allowed.any() else allowed
    chosen = {j: _choose_asinh(sample.points[:, j]) for j in np.flatnonzero(heavy)}
    chosen = {j: transform for j, transform in chosen.items() if transform is not None}
    centre, scale = np.array([*chosen.values()]).reshape(-1, 2).T
    return np.array([*chosen], dtype=int), centre, scale


def heavy_tailed(
    points: NDArray[np.float64], min_sd_ratio: float = _MIN_SD_RATIO
) -> NDArray[np.bool_]:
    """Tell which columns of points (N, d) have a much larger sd than their quartiles suggest."""
    columns = [_to_unit_size(column)[0] for column in points.T]
    quartiles = np.array([np.quantile(x, [0.25, 0.75]) for x in columns])
    normal_sd = np.diff(quartiles)[:, 0] / _IQR_OF_NORMAL
    return np.array([x.std() for x in columns]) > min_sd_ratio * normal_sd


def _standardise_within_sets(X: Packed) -> NDArray[np.float64]:
    """Standardise the points (N, d) of each set by their own mean and standard deviation.

    Vectors are returned as they are. A column that is constant within a set becomes NaN there.
    """
    if X.sizes is None:
        return X.points
    largest = np.fmax.reduce(np.abs(X.points))
    x = X.points / np.where(largest > 0, largest, 1.0)  # so that squares do not overflow
    present, starts = ~np.isnan(x), np.cumsum(X.sizes) - X.sizes

    def mean_of_set(values: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.add.reduceat(np.where(present, values, 0.0), starts)
        return (total / np.maximum(np.add.reduceat(present, starts, dtype=int), 1))[X.owners()]

    mean = mean_of_set(x)
    sd = np.sqrt(mean_of_set((x - mean) ** 2))
    return np.where(sd > 1e-12 * np.abs(mean), x - mean, np.nan) / np.where(sd > 0, sd, 1)


def _choose_asinh(x: NDArray[np.float64]) -> tuple[float, float] | None:
    """Choose the centre and scale of a column (N,); None if none makes it more normal.

    The centre is the column's minimum, median or maximum. The scale is the 1 %, 10 % or 50 %
    quantile of the distances from the centre.
    """
    x, median, size = _to_unit_size(x)
    best, chosen = normality(x) + MIN_CORRELATION_GAIN, None
    for centre in (x[0], 0.0, x[-1]):
        distances = np.abs(x - centre)
        scales = np.quantile(distances[distances > 0], [0.01, 0.1, 0.5])
        for scale in scales.clip(min=_MIN_ASINH_SCALE):
            value = normality(np.arcsinh((x - centre) / scale))
            if value > best:
                best, chosen = value, (median + size * centre, size * scale)
    return chosen


def _to_unit_size(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], float, float]:
    """Sort a column without its NaN, as (x - median) / size, where size is its largest |x|.

    Squares of the result neither overflow nor vanish. The median and the size are returned too. A
    constant column becomes a single zero.
    """
    x = np.sort(x[~np.isnan(x)])
    if not len(x) or x[0] == x[-1]:
        return np.zeros(1), 0.0, 1.0
    size = max(abs(x[0]), abs(x[-1]))
    median = np.median(x / size)
    return x / size - median, size * median, size


def normality(x: NDArray[np.float64]) -> float:
    """Correlation of a column's sorted values with normal quantiles: 1 if they are normal."""
    return float(np.nan_to_num(probplot(x)[1][2]))
