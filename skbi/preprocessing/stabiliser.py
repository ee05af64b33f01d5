"""Which function of a feature has noise that depends on theta least: itself, asinh or its root.

The regression of x on theta takes the noise as one Gaussian, whatever theta is. Counts have a
variance of their mean, and their square roots, sqrt(x + 3/8), one of about 1/4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from skbi.preprocessing.features import FeatureMap
from skbi.preprocessing.scales import mean_and_sd

__all__ = ["Stabiliser"]

_ANSCOMBE = 3 / 8


@dataclass(frozen=True)
class Stabiliser:
    """One way to read every feature once, standardised.

    Attributes
    ----------
    asinh : bool
        Whether features of heavy tails are asinh-transformed.
    roots : ndarray of bool, shape (d,)
        Which features are replaced by their square root.
    offset, mean, scale : ndarray, shape (number of roots,)
        What is added before the root is taken, 3/8 for counts, and what standardises it.

    References
    ----------
    Anscombe, The transformation of Poisson, binomial and negative-binomial data, 1948,
    https://doi.org/10.1093/biomet/35.3-4.246.
    """

    asinh: bool
    roots: NDArray[np.bool_]
    offset: NDArray[np.float64]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def candidates(cls, features: FeatureMap, points: NDArray[np.float64]) -> list[Self]:
        """Return what can be tried for training points (n, d): roots if some are never negative."""
        none, empty = np.zeros(features.n_features, dtype=bool), np.empty(0)
        found = [cls(False, none, empty, empty, empty)]
        if len(features.asinh_columns):
            found.append(cls(True, none, empty, empty, empty))
        roots = np.nanmin(points, axis=0, initial=np.inf) >= 0
        if roots.any():
            whole = np.all((points[:, roots] % 1 == 0) | np.isnan(points[:, roots]), axis=0)
            offset = np.where(whole, _ANSCOMBE, 0.0)
            constant, mean, scale = mean_and_sd(np.sqrt(points[:, roots] + offset))
            found.append(cls(False, roots, offset, mean, np.where(constant, 1.0, scale)))
        return found

    def __call__(self, features: FeatureMap, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return x (n, d) of points (n, d); missing entries become 0."""
        x = features.standardised(points, asinh=self.asinh)
        if self.roots.any():
            root = np.sqrt(np.maximum(points[:, self.roots], 0) + self.offset)
            x[:, self.roots] = np.nan_to_num((root - self.mean) / self.scale)
        return x
