"""The values that discrete parameters can take, and their probability under the prior."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skbi.priors.protocol import Prior

__all__ = ["bounds_of_values", "log_masses", "possible_values"]

_TAIL_PROBABILITY = 1e-12  # left out at each end of an infinite support


def bounds_of_values(prior: Prior) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lowest and the highest value of each discrete parameter, (n_discrete,) each.

    An infinite support is cut off where a probability of 1e-12 remains.
    """
    bounds = np.asarray(prior.support, dtype=np.float64)[prior.discrete].T
    tails = np.outer([_TAIL_PROBABILITY, 1 - _TAIL_PROBABILITY], np.ones(len(prior.names)))
    quantiles = np.asarray(prior.ppf(tails))[:, prior.discrete]
    lowest, highest = np.where(np.isfinite(bounds), bounds, quantiles)
    return lowest, highest


def possible_values(prior: Prior, most: int) -> list[NDArray[np.float64]]:
    """Return the values of each discrete parameter that the prior allows, in increasing order.

    Parameters
    ----------
    prior : Prior
        Its discrete parameters take whole numbers. An infinite support is cut off where a
        probability of 1e-12 remains.
    most : int
        Number of values above which to refuse.

    Returns
    -------
    list of ndarray

    Raises
    ------
    ValueError
        If a parameter has more values.

    Examples
    --------
    >>> from scipy import stats
    >>> from skbi import JointPrior
    >>> die = stats.rv_discrete(values=([1, 2, 6], [0.2, 0.3, 0.5]))
    >>> possible_values(JointPrior({"k": stats.bernoulli(0.5), "die": die()}), most=10)
    [array([0., 1.]), array([1., 2., 6.])]
    """
    columns, found = np.flatnonzero(prior.discrete), []
    row = np.asarray(prior.ppf(np.full((1, len(prior.names)), 0.5)), dtype=np.float64)
    for j, low, high in zip(columns, *bounds_of_values(prior), strict=True):
        if high - low >= most:
            raise ValueError(
                f"The discrete parameter {prior.names[j]!r} has {high - low + 1:.0f} possible "
                f"values, from {low:g} to {high:g}; at most {most} can each have a probability. "
                "Use NLEEstimator or NREEstimator, which read it as a number, or a prior of fewer "
                "values."
            )
        values = np.arange(low, high + 1)
        theta = np.repeat(row, len(values), axis=0)
        theta[:, j] = values
        found.append(values[np.isfinite(log_masses(prior, theta)[:, j])])
    return found


def log_masses(prior: Prior, theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log probability of each discrete parameter, (n, p); 0 for continuous ones.

    Of dependent parameters it is that given the parameters before. A prior's own method
    ``log_masses`` is used if there is one. Otherwise it is the step of ``cdf`` at theta.

    Parameters
    ----------
    prior : Prior
    theta : ndarray, shape (n, p)

    Returns
    -------
    ndarray, shape (n, p)
        In nats, -inf where there is no probability.
    """
    if hasattr(prior, "log_masses"):
        return np.asarray(prior.log_masses(theta))
    found, upper = np.zeros(theta.shape), np.asarray(prior.cdf(theta))
    for j in np.flatnonzero(prior.discrete):
        below = theta.copy()
        below[:, j] -= 1
        step = upper[:, j] - np.asarray(prior.cdf(below))[:, j]
        with np.errstate(divide="ignore"):
            found[:, j] = np.log(np.maximum(step, 0))
    return found
