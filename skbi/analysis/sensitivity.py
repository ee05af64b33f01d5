"""Sensitivity to the prior: draws under one prior, weighted to be draws under another.

w(theta) = p_new(theta) / p(theta); the posterior under p_new is proportional to w q(theta | x).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from skbi.calibration.observations import sample_observations
from skbi.calibration.runs import fitted_estimator, without_typicality_check
from skbi.priors import Prior, check_prior
from skbi.randomness import RandomState, as_generator
from skbi.samplers.importance import pareto_smoothed, systematic_resample

__all__ = ["PriorSensitivity", "prior_sensitivity"]

_MAX_RELIABLE_K = 0.7  # tail index up to which importance weights are reliable


@dataclass(frozen=True, eq=False)
class PriorSensitivity:
    """The posterior under another prior, beside that under the estimator's; print it for a table.

    Attributes
    ----------
    names : list of p str
        Names of the parameters.
    samples : ndarray, shape (n_samples, p)
        Draws under the estimator's prior.
    weights : ndarray, shape (n_samples,)
        Their weights under the other prior, which sum to 1.
    reweighted : ndarray, shape (n_samples, p)
        Draws under the other prior: those above, drawn anew by their weights.
    shift : ndarray, shape (p,)
        By how many of its standard deviations the posterior mean moves.
    sd_ratio : ndarray, shape (p,)
        Standard deviation under the other prior over that under the estimator's.
    ess : float
        Effective sample size of the weights.
    pareto_k : float
        Tail index of the weights: up to 0.7 they are reliable.
    """

    names: Sequence[str]
    samples: NDArray[np.float64]
    weights: NDArray[np.float64]
    reweighted: NDArray[np.float64]
    shift: NDArray[np.float64]
    sd_ratio: NDArray[np.float64]
    ess: float
    pareto_k: float

    def __repr__(self) -> str:
        rows = zip(self.names, self.shift, self.sd_ratio, strict=True)
        table = [f"{name}: mean moves by {a:+.2f} sd, sd times {b:.2f}" for name, a, b in rows]
        footer = f"effective sample size {self.ess:.0f} of {len(self.weights)}"
        return "\n".join([*table, f"{footer}, Pareto k = {self.pareto_k:.2f}"])


def prior_sensitivity(
    estimator: Any,
    X_obs: Any,
    prior: Prior,
    *,
    n_samples: int = 10_000,
    random_state: RandomState = None,
) -> PriorSensitivity:
    """Tell how the posterior of one observation would change under another prior.

    Nothing is fitted anew: posterior draws are weighted by the ratio of the priors, and the largest
    weights are smoothed. That is reliable as long as the other prior does not ask for regions where
    there are hardly any draws, which the tail index k of the weights tells.

    Parameters
    ----------
    estimator : object with ``sample_posterior`` and ``prior``
        A fitted estimator.
    X_obs : array-like
        One observation, or a batch that holds one.
    prior : JointPrior, or any other `Prior`
        The other prior, of the same parameters in the same order.
    n_samples : int, default=10,000
        Number of posterior draws.
    random_state : int, Generator, RandomState or None, default=None
        The only source of randomness.

    Returns
    -------
    PriorSensitivity

    Raises
    ------
    ValueError
        If the estimator has no prior, if the parameters differ, or if the other prior has no
        density at any draw.

    Warns
    -----
    UserWarning
        If k exceeds 0.7: fit again under the other prior.

    See Also
    --------
    posterior_summary : The posterior under the prior of the fit.

    References
    ----------
    Kallioinen et al., Detecting and diagnosing prior and likelihood sensitivity with power-scaling,
    2021, https://arxiv.org/abs/2107.14054; Vehtari et al., Pareto smoothed importance sampling,
    2015, https://arxiv.org/abs/1507.02646.

    Examples
    --------
    >>> from scipy import stats
    >>> from skbi import JointPrior
    >>> class Exact:  # theta ~ N(0, 1), x ~ N(theta, 1): the posterior is N(x / 2, 1 / 2)
    ...     prior = JointPrior({"mu": stats.norm(0, 1)})
    ...     def sample_posterior(self, X, n_samples, *, random_state=None):
    ...         noise = np.random.default_rng(random_state).normal(size=(len(X), n_samples, 1))
    ...         return np.asarray(X)[:, None] / 2 + 0.5**0.5 * noise
    >>> wider = JointPrior({"mu": stats.norm(0, 2)})  # the posterior is N(0.8 x, 0.8)
    >>> result = prior_sensitivity(Exact(), np.array([[1.0]]), wider, random_state=0)
    >>> abs(float(result.reweighted.mean()) - 0.8) < 0.1, result.pareto_k < 0.7
    (True, True)
    """
    estimator, rng = fitted_estimator(estimator), as_generator(random_state)
    old = getattr(estimator, "prior", None)
    if old is None:
        raise ValueError("prior_sensitivity needs an estimator with a prior to divide by.")
    check_prior(prior)
    if tuple(prior.names) != tuple(old.names):
        raise ValueError(f"prior must have the parameters {old.names}; got {prior.names}.")
    options = without_typicality_check(estimator)
    draws = sample_observations(estimator, X_obs, n_samples, rng, **options).samples
    if len(draws) != 1:
        raise ValueError(f"X_obs must be one observation; got {len(draws)}.")
    samples = draws[0]
    log_weights = prior.log_prob(samples) - old.log_prob(samples)
    if np.isneginf(log_weights).all():
        raise ValueError("The other prior has no density at any draw: fit again with it.")
    smoothed, k = pareto_smoothed(log_weights)
    weights = softmax(smoothed)
    if k > _MAX_RELIABLE_K:
        warnings.warn(
            f"The weights under the other prior have a heavy tail (k = {k:.2f}, reliable up to "
            f"{_MAX_RELIABLE_K}): it asks for regions with hardly any draws. Fit again with it.",
            stacklevel=2,
        )
    reweighted, ess, _ = systematic_resample(samples, weights, n_samples, rng, "")
    (old_mean, old_sd), (mean, sd) = (
        (samples.mean(axis=0), samples.std(axis=0)),
        _moments(samples, weights),
    )
    return PriorSensitivity(
        names=list(prior.names),
        samples=samples,
        weights=weights,
        reweighted=reweighted,
        shift=(mean - old_mean) / old_sd,
        sd_ratio=sd / old_sd,
        ess=ess,
        pareto_k=k,
    )


def _moments(
    samples: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of weighted draws."""
    mean = weights @ samples
    return mean, np.sqrt(weights @ (samples - mean) ** 2)
