"""Means and standard deviations of columns, whatever their size, with entries missing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skbi.preprocessing.packed import chunks

__all__ = ["mean_and_sd"]


def mean_and_sd(
    points: NDArray[Any],
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
    """Return which columns of points (N, d) are constant, their means and standard deviations.

    NaN are left out. Columns are scaled to [0, 1] first, so that squares do not overflow.
    """
    low, high, count = np.inf, -np.inf, 0
    for x in chunks(points):
        missing = np.isnan(x)
        low = np.minimum(low, np.where(missing, np.inf, x).min(axis=0))
        high = np.maximum(high, np.where(missing, -np.inf, x).max(axis=0))
        count = count + (~missing).sum(axis=0)
    constant = ~(high - low > 1e-12 * np.maximum(np.abs(low), np.abs(high)))
    low = np.where(count, low, 0.0).astype(np.float64)  # points may be in single precision
    span = np.where(constant, 1.0, high - low)

    def moment(power: int, centre: Any) -> NDArray[np.float64]:
        powers = (((x - low) / span - centre) ** power for x in chunks(points))
        return sum(np.nansum(part, axis=0) for part in powers) / np.maximum(count, 1)

    mean = moment(1, 0.0)
    return constant, low + span * mean, span * np.sqrt(moment(2, mean))
