"""Parameters that are drawn together: the prior of some columns of theta, and its Rosenblatt map.

With F_j the distribution function of theta_j given the parameters before it,

    z_j = Phi^-1(F_j(theta_j | theta_1, ..., theta_{j-1})) ~ N(0, 1).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import ndtr, ndtri

from skbi.priors.marginals import Marginal

__all__ = ["MAX_Z", "Block", "IndependentBlock", "NormalBlock", "SharesBlock"]

Array = NDArray[np.float64]

MAX_Z = 37.0  # Phi(-z) is a positive float64 up to here


class Block(ABC):
    """The joint distribution of k parameters.

    Attributes
    ----------
    distribution : object
        What the user gave.
    discrete : ndarray of bool, shape (k,)
    support : ndarray, shape (k, 2)
        Bounds of each parameter.
    """

    distribution: Any
    discrete: NDArray[np.bool_]
    support: Array

    @abstractmethod
    def log_prob(self, theta: Array) -> Array:
        """Return the log density (n,) of theta (n, k)."""

    @abstractmethod
    def to_normal(self, theta: Array) -> Array:
        """Return Gaussian coordinates (n, k) of theta (n, k) inside the support."""

    @abstractmethod
    def from_normal(self, z: Array) -> Array:
        """Return theta (n, k) of Gaussian coordinates (n, k), |z| <= 37."""

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draw theta (n, k)."""
        return self.from_normal(rng.standard_normal((n, len(self.discrete))))

    def log_masses(self, theta: Array) -> Array:
        """Return the log probability of discrete parameters, and 0 for continuous ones, (n, k)."""
        return np.zeros(theta.shape)

    def cdf(self, theta: Array) -> Array:
        """Map theta (n, k) to the unit cube (n, k)."""
        return ndtr(self.to_normal(theta))

    def ppf(self, u: Array) -> Array:
        """Map the unit cube to theta, (n, k)."""
        return self.from_normal(np.clip(ndtri(u), -MAX_Z, MAX_Z))

    def save(self) -> Any:
        """Return what the block can be made from: a name and numbers, or the distribution."""
        return self.distribution


class IndependentBlock(Block):
    """Independent parameters, by the distribution of each."""

    def __init__(self, marginals: list[Marginal], distribution: Any) -> None:
        self.marginals, self.distribution = marginals, distribution
        self.discrete = np.array([m.discrete for m in marginals])
        self.support = np.array([m.support for m in marginals])

    def __str__(self) -> str:
        return ", ".join(map(str, self.marginals))

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draw theta (n, k)."""
        return np.column_stack([m.sample(n, rng) for m in self.marginals])

    def log_prob(self, theta: Array) -> Array:
        """Return the log density (n,) of theta (n, k); discrete parameters enter by their mass."""
        return np.sum([m.log_prob(x) for m, x in self._columns(theta)], axis=0)

    def log_masses(self, theta: Array) -> Array:
        """Return the log probability of discrete parameters, and 0 for continuous ones, (n, k)."""
        columns = self._columns(theta)
        return np.column_stack([m.log_prob(x) if m.discrete else 0 * x for m, x in columns])

    def cdf(self, theta: Array) -> Array:
        """Return the distribution function of each parameter, (n, k)."""
        return np.column_stack([m.cdf(x) for m, x in self._columns(theta)]).astype(np.float64)

    def ppf(self, u: Array) -> Array:
        """Return the quantiles of each parameter, (n, k)."""
        return np.column_stack([m.ppf(x) for m, x in self._columns(u)]).astype(np.float64)

    def to_normal(self, theta: Array) -> Array:
        """Return Gaussian coordinates (n, k), precise in both tails; discrete ones stay."""
        lower = self.cdf(theta)
        upper = np.column_stack([m.sf(x) for m, x in self._columns(theta)]).astype(np.float64)
        z = np.where(lower < 0.5, ndtri(lower), -ndtri(upper))
        return np.where(self.discrete, theta, np.clip(z, -MAX_Z, MAX_Z))

    def from_normal(self, z: Array) -> Array:
        """Return theta (n, k); discrete parameters stay as they are."""
        return np.column_stack([x if m.discrete else m.from_normal(x) for m, x in self._columns(z)])

    def save(self) -> Any:
        """Return names and numbers."""
        saved = [marginal.save() for marginal in self.marginals]
        return saved if len(saved) > 1 else saved[0]

    def _columns(self, values: Array) -> list[tuple[Marginal, Array]]:
        return list(zip(self.marginals, values.T, strict=True))


class NormalBlock(Block):
    """A multivariate normal distribution: theta = mean + L z, with L L^T the covariance matrix."""

    def __init__(self, mean: Array, covariance: Array, distribution: Any) -> None:
        self.mean, self.covariance = np.atleast_1d(mean), np.atleast_2d(covariance)
        self.distribution, k = distribution, len(self.mean)
        try:
            self.root = np.linalg.cholesky(self.covariance)
        except np.linalg.LinAlgError:
            raise ValueError(
                "must have a covariance matrix of full rank, as parameters have no joint density "
                f"otherwise; got {self.covariance.tolist()}"
            ) from None
        self.discrete = np.zeros(k, dtype=bool)
        self.support = np.tile([-np.inf, np.inf], (k, 1))

    def __str__(self) -> str:
        return f"multivariate_normal({self.mean.tolist()}, {self.covariance.tolist()})"

    def log_prob(self, theta: Array) -> Array:
        """Return the log density (n,) of theta (n, k)."""
        z = self.to_normal(theta)
        return stats.norm.logpdf(z).sum(axis=1) - np.log(np.diag(self.root)).sum()

    def to_normal(self, theta: Array) -> Array:
        """Return Gaussian coordinates (n, k)."""
        return np.linalg.solve(self.root, (theta - self.mean).T).T

    def from_normal(self, z: Array) -> Array:
        """Return theta (n, k)."""
        return self.mean + z @ self.root.T

    def save(self) -> Any:
        """Return a name and numbers."""
        return "multivariate_normal", [self.mean.tolist(), self.covariance.tolist()], {}


class SharesBlock(Block):
    """All but the last of the shares of a Dirichlet distribution, which sum to less than one.

    Each share is a beta distributed part of what those before it leave:
    theta_j = v_j (1 - theta_1 - ... - theta_{j-1}), v_j ~ Beta(alpha_j, alpha_{j+1} + ...).
    """

    def __init__(self, alpha: Array, distribution: Any) -> None:
        self.alpha, self.distribution = np.asarray(alpha, dtype=np.float64), distribution
        rest = self.alpha[::-1].cumsum()[::-1]
        pairs = zip(self.alpha[:-1], rest[1:], strict=True)
        marginals = [Marginal(stats.beta(a, b)) for a, b in pairs]
        self.parts = IndependentBlock(marginals, distribution)
        self.discrete = np.zeros(len(alpha) - 1, dtype=bool)
        self.support = np.tile([0.0, 1.0], (len(alpha) - 1, 1))

    def __str__(self) -> str:
        return f"dirichlet({self.alpha.tolist()})"

    def log_prob(self, theta: Array) -> Array:
        """Return the log density (n,) of theta (n, k)."""
        inside = (theta > 0).all(axis=1) & (theta.sum(axis=1) < 1)
        found = np.full(len(theta), -np.inf)
        left = self._left(theta[inside])
        found[inside] = self.parts.log_prob(theta[inside] / left) - np.log(left).sum(axis=1)
        return found

    def to_normal(self, theta: Array) -> Array:
        """Return Gaussian coordinates (n, k)."""
        return self.parts.to_normal(theta / self._left(theta))

    def from_normal(self, z: Array) -> Array:
        """Return theta (n, k)."""
        parts = np.clip(self.parts.from_normal(z), np.finfo(float).tiny, 1 - 2**-53)
        left = np.cumprod(1 - parts, axis=1)
        return parts * np.column_stack([np.ones(len(z)), left[:, :-1]])

    def save(self) -> Any:
        """Return a name and numbers."""
        return "dirichlet", [self.alpha.tolist()], {}

    @staticmethod
    def _left(theta: Array) -> Array:
        """Return what the shares before each one leave, (n, k)."""
        before = np.cumsum(theta, axis=1) - theta
        return np.maximum(1 - before, np.finfo(float).tiny)
