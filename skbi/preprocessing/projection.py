"""x <-> y: the directions of x that depend on theta, the size of the rest and its direction.

With whitened features (x - mean) / noise = V c + r, where V (d, k) are orthonormal axes and r is
orthogonal to them, y = (c, e) and e = log(|r|^2 / (d - k)). The density of x follows from that of
y if the direction of r is uniform, whatever theta is:

    log p(x) = log p(c, e) + log 2 - (d - k) log |r| - log S - sum_j log noise_j,

where S is the surface of the unit sphere in d - k dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skbi.preprocessing.compression import MAX_COMMON, MAX_DIRECTIONS, Directions
from skbi.preprocessing.packed import to_tensor

__all__ = ["Projection"]

_TINY = 1e-12


@dataclass(frozen=True)
class Projection:
    """The map, fitted.

    Attributes
    ----------
    directions : Directions
    mean, scale : ndarray, shape (k + 1,)
        What standardises y.
    """

    directions: Directions
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def fit(cls, w: NDArray[np.float64], x: NDArray[np.float64], rng: np.random.Generator) -> Self:
        """Learn from training pairs: w (n, p), and x (n, d), of unit scale."""
        directions = Directions.fit(
            w, x, max(MAX_DIRECTIONS, 2 * w.shape[1]), rng, most_common=MAX_COMMON
        )
        unscaled = cls(directions, np.zeros(1), np.ones(1))
        y, _ = unscaled.forward(x)
        return cls(directions, y.mean(axis=0), np.maximum(y.std(axis=0), _TINY))

    @property
    def width(self) -> int:
        """Number of columns of y, k + 1."""
        return len(self.mean)

    @property
    def _n_rest(self) -> int:
        return self.directions.axes.shape[0] - self.directions.axes.shape[1]

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map x (n, d) to y (n, k + 1), with ``log |p(x) / p(y)|``, (n,)."""
        parts = self.directions.mean, self.directions.noise, self.directions.axes
        mean, noise, axes = (to_tensor(part, x) for part in parts)
        white, m = (x - mean) / noise, self._n_rest
        inside = white @ axes
        rest = (white - inside @ axes.mT).square().sum(dim=1).clamp(min=_TINY)
        y = torch.cat([inside, (rest / m).log()[:, None]], dim=1)
        y = (y - to_tensor(self.mean, x)) / to_tensor(self.scale, x)
        log_surface = math.log(2) + 0.5 * m * math.log(math.pi) - math.lgamma(0.5 * m)
        constant = math.log(2) - log_surface - np.log(self.directions.noise).sum()
        return y, constant - np.log(self.scale).sum() - 0.5 * m * rest.log()

    def forward(self, x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Map arrays, see `project`."""
        y, log_ratio = self.project(torch.as_tensor(np.ascontiguousarray(x), device="cpu"))
        return y.numpy(), log_ratio.numpy()

    def inverse(self, y: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
        """Return x (..., d) of y (..., k + 1), the rest in random directions."""
        axes, y = self.directions.axes, self.mean + self.scale * y
        rest = rng.standard_normal((*y.shape[:-1], len(axes)))
        rest -= rest @ axes @ axes.T
        size = np.sqrt(self._n_rest * np.exp(y[..., -1:]))
        rest *= size / np.linalg.norm(rest, axis=-1, keepdims=True)
        return self.directions.mean + self.directions.noise * (y[..., :-1] @ axes.T + rest)
