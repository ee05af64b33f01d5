"""theta <-> y: parameters with heavy tails and no prior, and numbers whose tails are light.

y = log(theta), log(-theta) or asinh((theta - centre) / scale); theta itself where its tails allow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from skbi.preprocessing.packed import Packed
from skbi.preprocessing.tails import (
    MIN_CORRELATION_GAIN,
    find_asinh_columns,
    find_log_columns,
    heavy_tailed,
    normality,
)

__all__ = ["TailCoordinates"]

Array = NDArray[np.float64]

_N_QUANTILES = 2000  # of a parameter, the extremes included, whose tails are examined
_MAX_LOG = 700.0  # exp and sinh of it are finite
_MIN_SD_RATIO = 3.0  # of a column that is transformed, see `skbi.preprocessing.tails`


@dataclass(frozen=True)
class TailCoordinates:
    """theta <-> y: parameters with heavy tails and no prior, and numbers whose tails are light.

    If theta spans decades, a few huge values decide its standard deviation, and all the others are
    the same number to a network. A column whose standard deviation is more than three times what
    its quartiles suggest is therefore replaced by its logarithm if it is positive in all of
    training (by that of -theta if it is negative), or by asinh((theta - centre) / scale), which is
    linear near the centre and logarithmic far away: whichever makes the column more normal.

    Attributes
    ----------
    sign : ndarray, shape (p,)
        1 for columns replaced by log(theta), -1 for those replaced by log(-theta), otherwise 0.
    asinh : ndarray of bool, shape (p,)
        Columns that are asinh-transformed.
    centre, scale : ndarray, shape (p,)
        Of these transformations, in theta's units.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> theta = np.column_stack([rng.lognormal(0, 3, 500), rng.standard_cauchy(500)])
    >>> tails = TailCoordinates.fit(theta)
    >>> tails.sign, tails.asinh
    (array([1., 0.]), array([False,  True]))
    >>> y, log_slope = tails.forward(theta)
    >>> bool(np.allclose(tails.inverse(y), theta))
    True
    >>> TailCoordinates.fit(rng.normal(size=(500, 1))) is None
    True
    """

    sign: Array
    asinh: NDArray[np.bool_]
    centre: Array
    scale: Array

    @classmethod
    def fit(cls, theta: Array) -> Self | None:
        """Choose the coordinates of each column of theta (n, p); None if all stay as they are."""
        n, p = theta.shape
        u = np.linspace(0, 1, min(n, _N_QUANTILES))
        sample = np.quantile(theta, u, axis=0, method="nearest")
        heavy = heavy_tailed(sample, _MIN_SD_RATIO)
        sign = np.sign(sample[0]) * (heavy & (np.sign(sample[0]) == np.sign(sample[-1])))
        sign *= find_log_columns(sign * sample, sign * sample, sign != 0) > 0
        columns, centres, scales = find_asinh_columns(Packed(sample), heavy)
        found = cls(sign, np.zeros(p, dtype=bool), np.zeros(p), np.ones(p))
        logs = found.forward(sample)[0]
        for j, centre, scale in zip(columns, centres, scales, strict=True):
            y = np.arcsinh((sample[:, j] - centre) / scale)
            if not sign[j] or normality(y) > normality(logs[:, j]) + MIN_CORRELATION_GAIN:
                sign[j], found.asinh[j], found.centre[j], found.scale[j] = 0, True, centre, scale
        return found if sign.any() or found.asinh.any() else None

    def forward(self, theta: Array) -> tuple[Array, Array]:
        """Return y and ``log |dy/dtheta|``, both (n, p); -inf where no logarithm exists."""
        y, log_slope = theta.astype(np.float64), np.zeros(theta.shape)  # a copy
        logs = self.sign != 0
        size = self.sign[logs] * theta[:, logs]
        y[:, logs] = np.log(np.where(size > 0, size, 1.0))
        log_slope[:, logs] = np.where(size > 0, -y[:, logs], -np.inf)
        scale = self.scale[self.asinh]
        distance = (theta[:, self.asinh] - self.centre[self.asinh]) / scale
        y[:, self.asinh] = np.arcsinh(distance)
        log_slope[:, self.asinh] = -np.log(scale) - np.log(np.hypot(1, distance))
        return y, log_slope

    def inverse(self, y: Array) -> Array:
        """Return theta (n, p), finite for any y (n, p)."""
        theta, logs = y.copy(), self.sign != 0
        bounded = np.clip(y, -_MAX_LOG, _MAX_LOG)
        theta[:, logs] = self.sign[logs] * np.exp(bounded[:, logs])
        largest = _MAX_LOG - np.maximum(0, np.log(self.scale[self.asinh]))
        sinh = np.sinh(np.clip(y[:, self.asinh], -largest, largest))
        theta[:, self.asinh] = self.centre[self.asinh] + self.scale[self.asinh] * sinh
        return theta
