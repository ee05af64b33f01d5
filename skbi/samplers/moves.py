"""Metropolis moves of many particles at a time, proposed by what other particles tell.

A move proposes z' ~ q(z' | z) and is accepted with probability min(1, p(z') q(z | z') / p(z) q(z' |
z)). The particles that a proposal learns from, the cloud, stay fixed while it is used, so that each
move leaves p as it is.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from skbi.samplers.info import Array
from skbi.samplers.mixture import StudentMixture

__all__ = ["Cloud", "Move", "Moves"]

_JITTER = 1e-3  # of the cloud's covariance, added to a difference: few particles span no space
_LEAST_SHARE = 0.05  # of the sweeps that each kind of move gets
_MEMORY = 0.7  # share of what is known of a kind of move that a sweep leaves in force
_ADAPTATION_RATE = 0.7


class Cloud:
    """Particles that proposals learn from.

    Parameters
    ----------
    points : ndarray, shape (n, k)
        Draws of the target, or nearly so.
    latent : ndarray of bool, shape (k,)
        Which coordinates belong to discrete parameters.
    rng : numpy.random.Generator
    """

    def __init__(self, points: Array, latent: NDArray[np.bool_], rng: np.random.Generator) -> None:
        self.points, self.latent = points, np.flatnonzero(latent)
        self.mixture = StudentMixture(points, rng)
        self.mean, self.root = self.mixture.mean, self.mixture.root

    def whiten(self, differences: Array) -> Array:
        """Measure differences (m, k) in units of the cloud's standard deviations."""
        return differences @ self.mixture.to_whitened.T

    def squared_distance(self, steps: Array) -> Array:
        """Measure steps (m, k): the mean square is 1 between independent particles."""
        return (self.whiten(steps) ** 2).sum(axis=1) / (2 * steps.shape[1])

    def draw_differences(self, m: int, rng: np.random.Generator) -> Array:
        """Draw differences (m, k) of two particles."""
        first, second = rng.integers(len(self.points), size=(2, m))
        noise = _JITTER * rng.standard_normal((m, len(self.mean))) @ self.root.T
        return self.points[first] - self.points[second] + noise


class Move(ABC):
    """One kind of move.

    Attributes
    ----------
    scale : float
        Size of the step, adapted towards ``target_acceptance``.
    efficiency : float
        Running mean of acceptance times squared distance, in units of the cloud.
    """

    scale = 1.0
    max_scale = 3.0
    efficiency = 1.0
    target_acceptance: float | None = 0.25

    @abstractmethod
    def propose(
        self, z: Array, cloud: Cloud, rng: np.random.Generator
    ) -> tuple[Array, Array | float]:
        """Return proposals (m, k), and log q(z | z') - log q(z' | z)."""

    def learn(self, acceptance: Array, distance: Array) -> None:
        """Adapt to the acceptance probabilities and squared distances (m,) of a sweep."""
        gained = float((acceptance * np.minimum(distance, 1)).mean())
        self.efficiency = _MEMORY * self.efficiency + (1 - _MEMORY) * gained
        if self.target_acceptance is not None:
            excess = float(acceptance.mean()) - self.target_acceptance
            self.scale = min(self.max_scale, self.scale * math.exp(_ADAPTATION_RATE * excess))


class Independent(Move):
    """Propose from a mixture fitted to the cloud, wherever the particle is."""

    target_acceptance = None

    def propose(self, z: Array, cloud: Cloud, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw from the mixture."""
        proposed = cloud.mixture.sample(len(z), rng)
        return proposed, cloud.mixture.log_prob(z) - cloud.mixture.log_prob(proposed)


class Differences(Move):
    """Step along the difference of two particles, scaled (ter Braak 2006)."""

    def propose(self, z: Array, cloud: Cloud, rng: np.random.Generator) -> tuple[Array, float]:
        """Add a difference."""
        step = self.scale * 2.38 / math.sqrt(2 * z.shape[1])
        return z + step * cloud.draw_differences(len(z), rng), 0.0


class Hop(Move):
    """Step along the whole difference of two particles, from one mode to another."""

    target_acceptance = None

    def propose(self, z: Array, cloud: Cloud, rng: np.random.Generator) -> tuple[Array, float]:
        """Add a difference."""
        return z + cloud.draw_differences(len(z), rng), 0.0


class Autoregressive(Move):
    """Move towards the cloud's mean and out again: long steps in many dimensions.

    z' = m + sqrt(1 - s^2) (z - m) + s w, with noise w whose scale is drawn so that the move leaves
    a Student t distribution with the cloud's moments as it is.

    References
    ----------
    Cotter et al., MCMC methods for functions, 2013, https://arxiv.org/abs/1202.0709; Grumitt,
    Karamanis and Seljak, Flow annealed Kalman inversion, 2024, https://arxiv.org/abs/2309.11490.
    """

    max_scale = 1.0
    target_acceptance = 0.4
    degrees_of_freedom = 5.0

    def propose(self, z: Array, cloud: Cloud, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw from the autoregressive process."""
        nu, k = self.degrees_of_freedom, z.shape[1]
        y = cloud.whiten(z - cloud.mean)
        squared = (y**2).sum(axis=1)
        variance = (nu + squared) / rng.chisquare(nu + k, len(z))
        noise = np.sqrt(variance)[:, None] * rng.standard_normal(z.shape)
        proposed = math.sqrt(1 - self.scale**2) * y + self.scale * noise
        ratio = np.log1p((proposed**2).sum(axis=1) / nu) - np.log1p(squared / nu)
        return cloud.mean + proposed @ cloud.root.T, 0.5 * (nu + k) * ratio


class Local(Move):
    """Step as the mixture's component that the particle belongs to is wide."""

    def propose(self, z: Array, cloud: Cloud, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw from the components' covariances."""
        return cloud.mixture.step(z, self.scale * 2.38 / math.sqrt(z.shape[1]), rng)


class Redraw(Move):
    """Draw one discrete parameter anew from its prior."""

    target_acceptance = None

    def propose(self, z: Array, cloud: Cloud, rng: np.random.Generator) -> tuple[Array, Array]:
        """Replace a coordinate; the prior's own ratio is taken out again."""
        proposed, rows = z.copy(), np.arange(len(z))
        column = cloud.latent[rng.integers(len(cloud.latent), size=len(z))]
        new = rng.standard_normal(len(z))
        ratio = 0.5 * (new**2 - z[rows, column] ** 2)
        proposed[rows, column] = new
        return proposed, ratio


class Moves:
    """All kinds of moves, each tried as often as it has proved to be worth.

    Parameters
    ----------
    latent : ndarray of bool, shape (k,)
        Which coordinates belong to discrete parameters.
    """

    def __init__(self, latent: NDArray[np.bool_]) -> None:
        self.kinds: list[Move] = [Independent(), Differences(), Hop(), Autoregressive(), Local()]
        if latent.any():
            self.kinds.append(Redraw())

    def choose(self, rng: np.random.Generator) -> Move:
        """Choose a kind at random."""
        worth = np.array([kind.efficiency for kind in self.kinds]) + 1e-12
        share = (1 - _LEAST_SHARE * len(worth)) * worth / worth.sum() + _LEAST_SHARE
        return self.kinds[int(np.searchsorted(share.cumsum(), rng.random() * share.sum()))]
