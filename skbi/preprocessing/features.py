"""X -> x: points in the user's units, and as a network reads them.

Observations become numbers of order one through means, standard deviations and, for heavy tails,
logarithms. A density in the user's units is

    log q(X) = log q_x(x) + log |det dx/dX|.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skbi.preprocessing.packed import Packed, to_tensor
from skbi.preprocessing.scales import mean_and_sd
from skbi.preprocessing.tails import find_asinh_columns, find_log_columns, subsample

__all__ = ["FeatureMap"]

_MAX_LOG = math.log(np.finfo(np.float64).max)


@dataclass(frozen=True)
class FeatureMap:
    """X -> x: points in the user's units, and as a network reads them.

    From every column the mean over the training points is subtracted, and the result is divided by
    their standard deviation. A constant column becomes zero.

    **Heavy tails.** A few huge values can make the standard deviation of a column so large that
    its other values differ by only a small fraction of it. A network hardly sees such differences.
    There are two remedies, which `fit` has to be asked for. With ``asinh``, a heavy-tailed column
    is given a second time, as asinh((X - centre) / scale). This function is linear near the centre
    and logarithmic far away. With ``log``, a heavy-tailed column that is positive in all of
    training is replaced by its logarithm, and values that are not positive are read as the smallest
    training value. The map then still has an inverse and a determinant, which a density over X
    needs. Counts c, which are given noise of width w (``noise_width``), are replaced by log(c + w),
    so that zero has a logarithm, and one that the noise changes little.

    **Masks.** With ``mask``, a missing entry (NaN) becomes 0, the mean of a standardised column.
    One more column for each feature tells the network where entries are missing (1) or not (0).

    The columns of x are the features, then those given a second time, then the mask's.

    Attributes
    ----------
    mean, scale : ndarray, shape (d + n_asinh,)
        What standardises the features and then the columns given a second time.
    mask : bool
        Whether columns that tell what is missing are appended.
    asinh_columns : ndarray of int, shape (n_asinh,)
        The features that are given a second time, asinh-transformed.
    asinh_centre, asinh_scale : ndarray, shape (n_asinh,)
        Centre and scale of these transformations, in X's units.
    log_floor : ndarray, shape (d,)
        The smallest training value, plus ``noise_width``, of a feature that is replaced by its
        logarithm; 0 for the others.
    noise_width : ndarray, shape (d,)
        Of the noise that features come with.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = np.column_stack([rng.normal(size=1000), rng.lognormal(0, 3, size=1000)])
    >>> mapping = FeatureMap.fit(Packed(X), mask=False, asinh=True)
    >>> mapping.asinh_columns
    array([1])
    >>> mapping.forward(X).shape
    (1000, 3)
    >>> mapping = FeatureMap.fit(Packed(X), mask=False, log=True)
    >>> mapping.log_columns
    array([False,  True])
    >>> bool(np.allclose(mapping.inverse(mapping.forward(X)), X))
    True
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    mask: bool
    asinh_columns: NDArray[np.int64]
    asinh_centre: NDArray[np.float64]
    asinh_scale: NDArray[np.float64]
    log_floor: NDArray[np.float64]
    noise_width: NDArray[np.float64]

    @classmethod
    def fit(
        cls,
        X: Packed,
        mask: bool,
        *,
        asinh: bool = False,
        log: bool = False,
        noise_width: float | NDArray[np.float64] = 0.0,
    ) -> Self:
        """Learn the map from the entries of the training points that are not missing.

        Parameters
        ----------
        X : Packed
            The training observations.
        mask : bool
            Whether entries may be missing.
        asinh : bool, default=False
            Whether heavy-tailed columns are given a second time, asinh-transformed. Tails of sets
            are those within a set.
        log : bool, default=False
            Whether columns that are positive and heavy-tailed are replaced by their logarithm.
        noise_width : float or ndarray, shape (d,), default=0
            Of noise, centred on zero, that columns come with.

        Returns
        -------
        FeatureMap
        """
        constant, mean, scale = mean_and_sd(X.points)
        scale = np.where(constant, 1.0, scale)
        sample = subsample(X)
        width = np.full(scale.shape, noise_width, dtype=np.float64)
        log_floor = find_log_columns(X.points, sample.points, log & ~constant, width)
        logs = log_floor > 0
        if logs.any():
            shifted = sample.points[:, logs] + width[logs]
            _, mean[logs], scale[logs] = mean_and_sd(np.log(shifted))
        asinh_columns, centre, asinh_scale = find_asinh_columns(sample, asinh & ~constant)
        if len(asinh_columns):
            transformed = np.arcsinh((sample.points[:, asinh_columns] - centre) / asinh_scale)
            mean, scale = np.hstack([[mean, scale], mean_and_sd(transformed)[1:]])
        return cls(mean, scale, mask, asinh_columns, centre, asinh_scale, log_floor, width)

    @property
    def n_features(self) -> int:
        """Number of columns of X, d."""
        return len(self.log_floor)

    @property
    def width(self) -> int:
        """Number of columns of x."""
        return len(self.mean) + (self.n_features if self.mask else 0)

    @property
    def log_columns(self) -> NDArray[np.bool_]:
        """Which features are replaced by their logarithm, (d,)."""
        return self.log_floor > 0

    def possible(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which points (N, d) are positive wherever their logarithm is taken, (N,)."""
        logs = self.log_columns
        return (points[:, logs] + self.noise_width[logs] > 0).all(axis=1)

    def forward(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return x (N, width) of points (N, d)."""
        x, logs = points, self.log_columns
        if logs.any():
            x = points.astype(np.float64)  # a copy
            shifted = x[:, logs] + self.noise_width[logs]
            x[:, logs] = np.log(np.where(shifted > 0, shifted, self.log_floor[logs]))
        if len(self.asinh_columns):
            distance = x[:, self.asinh_columns] - self.asinh_centre
            x = np.hstack([x, np.arcsinh(distance / self.asinh_scale)])
        x = (x - self.mean) / self.scale
        return np.hstack([np.nan_to_num(x), np.isnan(points)]) if self.mask else x

    def standardised(self, points: NDArray[np.float64], *, asinh: bool) -> NDArray[np.float64]:
        """Return every feature of points once, (N, d), heavy-tailed ones asinh-transformed or not.

        Missing entries become 0.
        """
        x, d = self.forward(points), self.n_features
        once = x[:, :d]
        if asinh:
            once[:, self.asinh_columns] = x[:, d : len(self.mean)]
        return once

    def inverse(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return points (..., d) of x (..., d), for a map without asinh columns and mask."""
        points, logs = self.mean + self.scale * x, self.log_columns
        points[..., logs] = np.exp(np.minimum(points[..., logs], _MAX_LOG)) - self.noise_width[logs]
        return points

    def add_noise(self, x: Tensor, noise: Tensor) -> Tensor:
        """Add noise (N, d), in units of ``noise_width``, to x (N, d).

        The map is one without asinh columns and mask.
        """
        mean, scale, width = (to_tensor(a, x) for a in (self.mean, self.scale, self.noise_width))
        added = x + noise * (width / scale)
        if not (self.log_columns & (self.noise_width > 0)).any():
            return added
        logs = torch.as_tensor(self.log_columns, device=x.device)
        size = (mean + scale * x).exp()
        return torch.where(logs, ((size + noise * width).log() - mean) / scale, added)

    def volume(self) -> tuple[float, NDArray[np.float64]]:
        """Return c and s (d,) of ``log |det dX/dx| = c + x @ s``."""
        constant = np.log(self.scale).sum() + self.mean[self.log_columns].sum()
        return float(constant), np.where(self.log_columns, self.scale, 0.0)

    def log_volume(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ``log |det dX/dx|`` (N,) at x (N, d), for a map without asinh columns and mask."""
        constant, slopes = self.volume()
        return constant + x @ slopes
