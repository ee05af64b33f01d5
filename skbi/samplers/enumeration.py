"""The exact posterior of discrete parameters, from the likelihood of every combination of values.

p(theta | X) = L(theta) p(theta) / Z,   Z = sum over theta of L(theta) p(theta).
"""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from skbi.priors import Prior, bounds_of_values
from skbi.samplers.info import Array, LogLikelihood, SamplerInfo

__all__ = ["can_enumerate", "discrete_combinations", "enumerate_all"]

_MAX_COMBINATIONS = 100_000


def enumerate_all(
    log_likelihood: LogLikelihood, prior: Prior, n_samples: int, rng: np.random.Generator
) -> tuple[Array, SamplerInfo]:
    """Sample parameters that are all discrete from their exact posterior.

    Parameters
    ----------
    log_likelihood : callable
        Maps theta (m, p) to log L (m,), in nats.
    prior : JointPrior or an object with its methods
        Its parameters must all be discrete and take integer values.
    n_samples : int
        Number of draws.
    rng : numpy.random.Generator

    Returns
    -------
    samples : ndarray, shape (n_samples, p)
        Independent draws.
    info : SamplerInfo
        With the exact ``log_evidence``.

    Raises
    ------
    ValueError
        If a parameter is continuous, or if there are more than 100,000 combinations of values.

    Examples
    --------
    A Poisson number of events, each of which is detected with probability 0.3:

    >>> from scipy import stats
    >>> from skbi.priors import JointPrior
    >>> prior = JointPrior({"n": stats.poisson(4)})
    >>> def log_likelihood(theta):  # two events were detected
    ...     return stats.binom.logpmf(2, theta[:, 0], 0.3)
    >>> rng = np.random.default_rng(0)
    >>> samples, info = enumerate_all(log_likelihood, prior, 1000, rng)
    >>> bool(abs(info.log_evidence - stats.poisson(1.2).logpmf(2)) < 1e-9)  # thinned Poisson
    True
    """
    if not np.all(prior.discrete):
        names = [n for n, d in zip(prior.names, prior.discrete, strict=True) if not d]
        raise ValueError(
            "Enumeration needs parameters that are all discrete; got the continuous parameters "
            f"{names}, which cannot be enumerated. Use sampler='smc'."
        )
    theta = discrete_combinations(prior, _MAX_COMBINATIONS)
    log_joint = log_likelihood(theta) + prior.log_prob(theta)
    log_evidence = float(logsumexp(log_joint))
    samples = theta[rng.choice(len(theta), size=n_samples, p=np.exp(log_joint - log_evidence))]
    info = SamplerInfo(
        "enumerate",
        n_calls=len(theta),
        log_evidence=log_evidence,
        log_evidence_error=0.0,
        ess=np.full(theta.shape[1], float(n_samples)),
    )
    return samples, info


def can_enumerate(prior: Prior) -> bool:
    """Whether all parameters of a prior are discrete, and their combinations are few enough."""
    if not np.all(prior.discrete):
        return False
    lowest, highest = bounds_of_values(prior)
    return float(np.prod(highest - lowest + 1)) <= _MAX_COMBINATIONS


def discrete_combinations(prior: Prior, max_combinations: int) -> Array:
    """Return every combination of the values of the prior's discrete parameters.

    Parameters
    ----------
    prior : JointPrior or an object with its methods
        Its discrete parameters must take integer values. An infinite support is cut off where a
        probability of 1e-12 remains.
    max_combinations : int
        Number of combinations above which to refuse.

    Returns
    -------
    ndarray, shape (n_combinations, n_discrete)

    Raises
    ------
    ValueError
        If there are more than ``max_combinations``.

    Examples
    --------
    >>> from scipy import stats
    >>> from skbi.priors import JointPrior
    >>> prior = JointPrior({"k": stats.bernoulli(0.5), "a": stats.norm(), "n": stats.randint(3, 5)})
    >>> discrete_combinations(prior, 100).tolist()
    [[0.0, 3.0], [0.0, 4.0], [1.0, 3.0], [1.0, 4.0]]
    """
    lowest, highest = bounds_of_values(prior)
    n_combinations = float(np.prod(highest - lowest + 1))
    if n_combinations > max_combinations:
        raise ValueError(
            f"The discrete parameters have {n_combinations:.0f} combinations of values; at most "
            f"{max_combinations} can be enumerated. Use sampler='smc'."
        )
    values = [np.arange(low, high + 1) for low, high in zip(lowest, highest, strict=True)]
    return np.stack(np.meshgrid(*values, indexing="ij"), axis=-1).reshape(-1, len(values))
