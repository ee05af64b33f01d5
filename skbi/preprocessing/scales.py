"""Means and standard deviations of columns, whatever their size, with entries missing.

Outliers do not count. The values of a column are at distances from its median whose median is d_50
and whose 98 % quantile is d_98. Outliers are values beyond

    d_98 max(d_98 / d_50, 4)^2.5,

which is 75 standard deviations of a normal distribution, and so far out for heavier tails that a
Cauchy distribution reaches it once in 300,000 values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skbi.preprocessing.packed import chunks

__all__ = ["mean_and_sd", "outlier_bounds"]

_MAX_NUMBERS = 4 * 10**6  # that tell where a column's values lie
_MIN_ROWS, _MAX_ROWS = 2000, 10_000  # of points, for that
_MIN_COUNT = 100  # values of a column, for any of them to be an outlier
_MIN_RATIO, _POWER = 4.0, 2.5


def mean_and_sd(
    points: NDArray[Any],
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
    """Return which columns of points (N, d) are constant, their means and standard deviations.

    NaN and outliers are left out. Columns are scaled to [0, 1] first, so that squares do not
    overflow.
    """
    least, largest = outlier_bounds(points)

    def parts() -> Iterator[NDArray[Any]]:
        for x in chunks(points):
            outlying = (x < least) | (x > largest)
            yield np.where(outlying, np.nan, x) if outlying.any() else x

    low, high, count = np.inf, -np.inf, 0
    for x in parts():
        missing = np.isnan(x)
        low = np.minimum(low, np.where(missing, np.inf, x).min(axis=0))
        high = np.maximum(high, np.where(missing, -np.inf, x).max(axis=0))
        count = count + (~missing).sum(axis=0)
    constant = ~(high - low > 1e-12 * np.maximum(np.abs(low), np.abs(high)))
    low = np.where(count, low, 0.0).astype(np.float64)  # points may be in single precision
    span = np.where(constant, 1.0, high - low)

    def moment(power: int, centre: Any) -> NDArray[np.float64]:
        powers = (((x - low) / span - centre) ** power for x in parts())
        return sum(np.nansum(part, axis=0) for part in powers) / np.maximum(count, 1)

    mean = moment(1, 0.0)
    return constant, low + span * mean, span * np.sqrt(moment(2, mean))


def outlier_bounds(points: NDArray[Any]) -> NDArray[np.float64]:
    """Return the least and the largest value of every column (2, d) that is not an outlier.

    They are infinite for columns of less than 100 values.
    """
    n, d = points.shape
    size = int(np.clip(_MAX_NUMBERS // max(d, 1), _MIN_ROWS, _MAX_ROWS))
    rows = np.arange(n)
    if n > size:
        rows = np.sort(np.random.default_rng(0).choice(n, size, replace=False))
    x = points[rows].astype(np.float64)
    (centre,), _ = _order_statistics(x, 0.5)
    distance = np.abs(x - centre)
    (middle, far), count = _order_statistics(np.where(distance > 0, distance, np.nan), 0.5, 0.98)
    with np.errstate(over="ignore", invalid="ignore"):
        limit = far * np.maximum(far / middle, _MIN_RATIO) ** _POWER
    limit = np.where(count >= _MIN_COUNT, limit, np.inf)
    return np.stack([centre - limit, centre + limit])


def _order_statistics(
    x: NDArray[np.float64], *shares: float
) -> tuple[list[NDArray[np.float64]], NDArray[np.int64]]:
    """Return the value of every column below which each share lies, (d,) each, and the counts."""
    ordered, count = np.sort(x, axis=0), (~np.isnan(x)).sum(axis=0)  # NaN come last
    at = [(share * np.maximum(count - 1, 0)).astype(int) for share in shares]
    return [np.take_along_axis(ordered, i[None], axis=0)[0] for i in at], count
