"""Distributions of torch as priors: by the same family of scipy, or by their transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import distributions

from skbi.priors.blocks import Block, IndependentBlock, NormalBlock, SharesBlock
from skbi.priors.marginals import Marginal

__all__ = ["block_of_torch", "is_of_torch"]

Array = NDArray[np.float64]

_FAMILIES: dict[type, Callable[..., Any]] = {
    distributions.Normal: lambda d: (stats.norm, d.loc, d.scale),
    distributions.Uniform: lambda d: (stats.uniform, d.low, d.high - d.low),
    distributions.LogNormal: lambda d: (stats.lognorm, d.scale, 0 * d.scale, d.loc.exp()),
    distributions.HalfNormal: lambda d: (stats.halfnorm, 0 * d.scale, d.scale),
    distributions.Exponential: lambda d: (stats.expon, 0 * d.rate, 1 / d.rate),
    distributions.Gamma: lambda d: (stats.gamma, d.concentration, 0 * d.rate, 1 / d.rate),
    distributions.Beta: lambda d: (stats.beta, d.concentration1, d.concentration0),
    distributions.Cauchy: lambda d: (stats.cauchy, d.loc, d.scale),
    distributions.HalfCauchy: lambda d: (stats.halfcauchy, 0 * d.scale, d.scale),
    distributions.Laplace: lambda d: (stats.laplace, d.loc, d.scale),
    distributions.StudentT: lambda d: (stats.t, d.df, d.loc, d.scale),
    distributions.Bernoulli: lambda d: (stats.bernoulli, d.probs),
    distributions.Binomial: lambda d: (stats.binom, d.total_count, d.probs),
    distributions.Poisson: lambda d: (stats.poisson, d.rate),
    distributions.Geometric: lambda d: (stats.geom, d.probs, 0 * d.probs - 1),
}


def is_of_torch(distribution: Any) -> bool:
    """Whether this is a distribution of torch."""
    return isinstance(distribution, distributions.Distribution)


def block_of_torch(distribution: Any) -> Block:
    """Return the prior of the parameters that a distribution of torch is one of.

    Parameters
    ----------
    distribution : torch.distributions.Distribution
        A univariate one, `Independent` ones, a `MultivariateNormal`, a `Dirichlet`, or a
        `TransformedDistribution` of these.

    Raises
    ------
    TypeError
        If its map to Gaussian coordinates is not known.

    Examples
    --------
    >>> base = distributions.Normal(torch.zeros(2), torch.ones(2))
    >>> print(block_of_torch(distributions.Independent(base, 1)))
    norm(0, 1), norm(0, 1)
    """
    while isinstance(distribution, distributions.Independent):
        distribution = distribution.base_dist
    kind = type(distribution)
    if kind in _FAMILIES:
        family, *parameters = _FAMILIES[kind](distribution)
        columns = np.broadcast_arrays(*(np.atleast_1d(_array(p)) for p in parameters))
        rows = zip(*(_numbers(c) for c in columns), strict=True)
        return IndependentBlock([Marginal(family(*row)) for row in rows], distribution)
    if kind is distributions.MultivariateNormal:
        mean, covariance = distribution.loc, distribution.covariance_matrix
        return NormalBlock(_array(mean), _array(covariance), distribution)
    if kind is distributions.Dirichlet:
        return SharesBlock(_array(distribution.concentration), distribution)
    if kind is distributions.TransformedDistribution:
        return _TransformedBlock(distribution)
    known = ", ".join(k.__name__ for k in _FAMILIES)
    raise TypeError(
        f"must be one whose Gaussian coordinates are known ({known}, Independent, "
        f"MultivariateNormal, Dirichlet, TransformedDistribution of these); got {kind.__name__}"
    )


class _TransformedBlock(Block):
    """Invertible transforms of a distribution whose Gaussian coordinates are known."""

    def __init__(self, distribution: Any) -> None:
        self.distribution, self.base = distribution, block_of_torch(distribution.base_dist)
        self.transform = distributions.ComposeTransform(list(distribution.transforms))
        self.discrete = self.base.discrete
        if self.discrete.any():
            raise TypeError(f"must transform continuous parameters; got {distribution}")
        ends = self._apply(self.transform, self.base.support.T)
        ends = np.where(np.isnan(ends), [[-np.inf], [np.inf]], ends)
        self.support = np.sort(ends, axis=0).T

    def __str__(self) -> str:
        return f"{self.distribution} of ({self.base})"

    def log_prob(self, theta: Array) -> Array:
        inside = ((theta > self.support[:, 0]) & (theta < self.support[:, 1])).all(axis=1)
        found = np.full(len(theta), -np.inf)
        y = torch.as_tensor(theta[inside], dtype=torch.float64)
        x = self.transform.inv(y)
        log_det = self.transform.log_abs_det_jacobian(x, y).numpy()
        total = log_det.sum(axis=1) if log_det.ndim == 2 else log_det
        found[inside] = self.base.log_prob(x.numpy()) - total
        return found

    def to_normal(self, theta: Array) -> Array:
        return self.base.to_normal(self._apply(self.transform.inv, theta))

    def from_normal(self, z: Array) -> Array:
        return self._apply(self.transform, self.base.from_normal(z))

    @staticmethod
    def _apply(transform: Any, values: Array) -> Array:
        return transform(torch.as_tensor(values, dtype=torch.float64)).numpy()


def _numbers(column: Array) -> list[Any]:
    """Return plain numbers, whole ones as integers, as some families of scipy want them."""
    return [int(x) if x == int(x) else x for x in column.ravel().tolist()]


def _array(tensor: Any) -> Array:
    return torch.as_tensor(tensor).detach().cpu().double().numpy()
