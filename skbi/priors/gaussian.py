"""theta <-> z: Gaussian coordinates z = Phi^-1(F(theta)), in which any prior is standard normal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from skbi.priors.blocks import MAX_Z
from skbi.priors.protocol import Prior

__all__ = ["clip_to_support", "from_latent", "from_normal", "off_bounds", "to_normal"]

_MAX_Z_FROM_CDF = 8.0  # Phi(z) is a float64 below 1 up to here


def to_normal(prior: Prior, theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map theta to its Gaussian coordinates under any prior.

    A prior's own method `to_normal` is used if there is one. Otherwise the coordinates are
    Phi^-1(cdf(theta)), clipped to +-8, beyond which the distribution function rounds to 1.

    Parameters
    ----------
    prior : Prior
    theta : ndarray, shape (n, p), inside the support

    Returns
    -------
    ndarray, shape (n, p)
        Discrete parameters, which have no such coordinate, stay as they are.
    """
    if hasattr(prior, "to_normal"):
        return np.asarray(prior.to_normal(theta))
    z = ndtri(np.asarray(prior.cdf(theta), dtype=np.float64))
    return np.where(prior.discrete, theta, np.clip(z, -_MAX_Z_FROM_CDF, _MAX_Z_FROM_CDF))


def from_normal(prior: Prior, z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map Gaussian coordinates to theta under any prior. This is the inverse of `to_normal`.

    Parameters
    ----------
    prior : Prior
    z : ndarray, shape (n, p)

    Returns
    -------
    ndarray, shape (n, p), strictly inside the support of continuous parameters

    Raises
    ------
    ValueError
        If the prior has discrete parameters but no method `from_normal` of its own.
    """
    if hasattr(prior, "from_normal"):
        return np.asarray(prior.from_normal(z))
    if np.any(prior.discrete):
        raise ValueError(
            f"The Gaussian coordinates of {type(prior).__name__}, which has discrete parameters, "
            "can be inverted only if it has a method from_normal, as JointPrior has."
        )
    u = ndtr(np.clip(z, -_MAX_Z_FROM_CDF, _MAX_Z_FROM_CDF))
    theta = np.asarray(prior.ppf(u), dtype=np.float64)
    return clip_to_support(theta, np.asarray(prior.support), np.asarray(prior.discrete))


def from_latent(prior: Prior, z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map z ~ N(0, I) to theta under any prior, discrete parameters included.

    Those are the quantiles at Phi(z). Continuous parameters lie strictly inside their support.

    >>> from scipy import stats
    >>> from skbi import JointPrior
    >>> prior = JointPrior({"k": stats.bernoulli(0.3), "mu": stats.norm(5, 2)})
    >>> from_latent(prior, np.array([[0.4, 1.0], [0.6, 1.0]]))
    array([[0., 7.],
           [1., 7.]])
    """
    discrete = np.asarray(prior.discrete)
    if not discrete.any():
        return from_normal(prior, z)
    u = ndtr(np.clip(z, -_MAX_Z_FROM_CDF, _MAX_Z_FROM_CDF))
    theta = np.asarray(prior.ppf(u), dtype=np.float64)
    if hasattr(prior, "from_normal"):  # continuous parameters by their nearer tail
        return np.asarray(prior.from_normal(np.where(discrete, theta, z)))
    return clip_to_support(theta, np.asarray(prior.support), discrete)


def off_bounds(prior: Prior, z: NDArray[np.float64], edge: float) -> NDArray[np.float64]:
    """Replace the Gaussian coordinates of parameters on a bound of the prior by +-edge.

    The coordinate of a parameter on a bound is infinite, which `to_normal` clips to a very large
    number.

    Parameters
    ----------
    prior : Prior
    z : ndarray, shape (n, p)
        Gaussian coordinates from `to_normal`.
    edge : float
        Absolute value of the coordinate that stands for a bound.

    Returns
    -------
    ndarray, shape (n, p)
    """
    max_z = MAX_Z if hasattr(prior, "to_normal") else _MAX_Z_FROM_CDF
    on_bound = (np.abs(z) >= max_z) & ~np.asarray(prior.discrete)
    return np.where(on_bound, np.copysign(edge, z), z)


def clip_to_support(
    theta: NDArray[np.float64], support: NDArray[np.float64], discrete: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Move continuous parameters that rounding has put on a bound to the nearest float inside."""
    low, high = np.nextafter(support[:, 0], np.inf), np.nextafter(support[:, 1], -np.inf)
    return np.where(discrete, theta, np.clip(theta, low, high))
