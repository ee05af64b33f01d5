"""Importance sampling: draws of a proposal q, weighted by w = L(theta) p(theta) / q(theta).

Any object with the methods ``sample(n, rng)`` and ``log_prob(theta)`` of the protocol `Proposal` is
a proposal. `AmortisedProposal` gives these methods to a fitted amortised estimator, such as an
`NPEEstimator`, at one observation.
"""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import numpy as np
from scipy.special import logsumexp, softmax

from skbi.priors import Prior
from skbi.samplers.info import Array, LogLikelihood, SamplerInfo

__all__ = [
    "AmortisedProposal",
    "Proposal",
    "importance",
    "pareto_smoothed",
    "systematic_resample",
]

_PRIOR_FRACTION = 0.05  # of the draws, from the prior: a defensive mixture
_MAX_RELIABLE_K = 0.7  # tail index up to which importance weights are reliable
_MIN_TAIL_SIZE = 5  # number of weights that a Pareto distribution can be fitted to
_MAX_TAIL_RANGE = 600.0  # nats between the weights of the tail, whose ratios must be doubles


@runtime_checkable
class Proposal(Protocol):
    """What importance sampling draws from: an approximate posterior of the one observation."""

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draw theta, of shape (n, p)."""

    def log_prob(self, theta: Array) -> Array:
        """Return the normalised log density, of shape (n,), of theta, of shape (n, p)."""


class AmortisedProposal:
    """The posterior of an amortised estimator at one observation, as a `Proposal`.

    Parameters
    ----------
    estimator : object
        A fitted estimator with ``sample_posterior(X_obs, n, random_state=rng)`` and a normalised
        ``log_prob(theta, X_obs)``, such as `skbi.NPEEstimator`.
    X_obs : array-like
        One observation, without the leading axis of a batch, so that the estimator's draws have
        the shape (n, p).

    Examples
    --------
    >>> from scipy import stats
    >>> from skbi import JointPrior, NPEEstimator
    >>> prior = JointPrior({"mu": stats.norm()})
    >>> theta = prior.sample(200, random_state=0)
    >>> X = theta + 0.5 * np.random.default_rng(1).normal(size=(200, 2))
    >>> npe = NPEEstimator(prior=prior, max_iter=2, random_state=0).fit(theta, X)
    >>> proposal = AmortisedProposal(npe, X[0])
    >>> draws = proposal.sample(10, np.random.default_rng(0))
    >>> draws.shape, proposal.log_prob(draws).shape
    ((10, 1), (10,))
    """

    def __init__(self, estimator: Any, X_obs: Any) -> None:
        self.estimator, self.X_obs = estimator, X_obs

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draw theta, of shape (n, p), from the posterior of the observation."""
        return self.estimator.sample_posterior(self.X_obs, n, random_state=rng)

    def log_prob(self, theta: Array) -> Array:
        """Return the log density, of shape (n,), of theta, of shape (n, p), in nats."""
        return self.estimator.log_prob(theta, self.X_obs)


def importance(
    log_likelihood: LogLikelihood,
    prior: Prior,
    n_samples: int,
    rng: np.random.Generator,
    *,
    proposal: Proposal,
    n_proposals: int = 5000,
) -> tuple[Array, SamplerInfo]:
    """Sample the posterior by reweighting draws of a proposal, such as an amortised posterior.

    A twentieth of the draws comes from the prior instead, and q is the density of this mixture.
    Regions that the proposal leaves out can then be seen: they show as a few large weights, which
    raise ``pareto_k``. The largest weights are smoothed (see `pareto_smoothed`).

    Parameters
    ----------
    log_likelihood : callable
        Maps theta (m, p) to log L (m,), in nats.
    prior : JointPrior or an object with its methods
    n_samples : int
        Number of draws.
    rng : numpy.random.Generator
    proposal : object with ``sample(n, rng)`` and ``log_prob(theta)``
        See `Proposal`.
    n_proposals : int, default=5000
        Number of weighted draws, whose likelihoods are evaluated in one call.

    Returns
    -------
    samples : ndarray, shape (n_samples, p)
        Draws with equal weights, in random order. A draw with a large weight is repeated.
    info : SamplerInfo
        With ``log_evidence``, ``ess`` and ``pareto_k``. Its ``warnings`` say so if ``pareto_k``
        exceeds 0.7, which means that the proposal misses too much of the posterior, or if
        ``n_samples`` exceeds ``ess``, so that draws are repeated.

    Raises
    ------
    ValueError
        If none of the draws has a likelihood above zero.

    References
    ----------
    Hesterberg, Weighted average importance sampling and defensive mixture distributions, 1995,
    https://doi.org/10.1080/00401706.1995.10484303; Dax et al., Neural importance sampling for rapid
    and reliable gravitational-wave inference, 2023, https://arxiv.org/abs/2210.05686.

    Examples
    --------
    One observation, 0.8, of a parameter with the prior N(0, 1) and noise of standard deviation 0.5:
    the posterior is N(0.64, 0.447). A prior can serve as the proposal.

    >>> from scipy import stats
    >>> from skbi.priors import JointPrior
    >>> prior = JointPrior({"mu": stats.norm(0, 1)})
    >>> def log_likelihood(theta):
    ...     return stats.norm.logpdf(0.8, theta[:, 0], 0.5)
    >>> proposal = JointPrior({"mu": stats.norm(0.6, 0.6)})
    >>> rng = np.random.default_rng(0)
    >>> samples, info = importance(log_likelihood, prior, 1000, rng, proposal=proposal)
    >>> samples.shape, abs(float(samples.mean()) - 0.64) < 0.05
    ((1000, 1), True)
    >>> exact = stats.norm.logpdf(0.8, 0, (1 + 0.5**2) ** 0.5)
    >>> bool(abs(info.log_evidence - exact) < 4 * info.log_evidence_error)
    True
    """
    theta, log_prior, log_q = _draw_from_mixture(proposal, prior, n_proposals, rng)
    log_weights = log_likelihood(theta) + log_prior - log_q
    if not np.isfinite(log_weights).any():
        raise ValueError(
            "Importance sampling needs draws with a likelihood above zero; none of the proposal's "
            f"{n_proposals} has one. Use sampler='smc', or train the proposal further."
        )
    log_weights, k = pareto_smoothed(log_weights)
    weights = softmax(log_weights)
    remedy = "Raise n_proposals."
    samples, ess, repeat_message = systematic_resample(theta, weights, n_samples, rng, remedy)
    info = SamplerInfo(
        "importance",
        n_calls=n_proposals,
        log_evidence=float(logsumexp(log_weights) - math.log(n_proposals)),
        log_evidence_error=float(weights.std() * n_proposals**0.5),
        ess=np.full(theta.shape[1], ess),
        pareto_k=k,
        warnings=tuple(message for message in (_heavy_tail_message(k), repeat_message) if message),
    )
    return samples, info


def _draw_from_mixture(
    proposal: Proposal, prior: Prior, n_proposals: int, rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """Draw from the proposal and the prior; return also the log densities of prior and mixture."""
    n_prior = math.ceil(_PRIOR_FRACTION * n_proposals)
    fraction = n_prior / n_proposals
    parts = [proposal.sample(n_proposals - n_prior, rng), prior.sample(n_prior, random_state=rng)]
    theta = np.vstack(parts)
    log_prior, log_proposal = prior.log_prob(theta), proposal.log_prob(theta)
    log_q = np.logaddexp(math.log1p(-fraction) + log_proposal, math.log(fraction) + log_prior)
    return theta, log_prior, log_q


def _heavy_tail_message(k: float) -> str | None:
    """Return the message for weights whose tail is too heavy, or None."""
    if not k > _MAX_RELIABLE_K:
        return None
    shown = math.ceil(100 * k) / 100  # never the limit itself
    return (
        f"The proposal misses too much of the posterior to be reweighted (pareto_k = {shown:.2f}, "
        f"reliable up to {_MAX_RELIABLE_K}). Use sampler='smc', or train the proposal further."
    )


def systematic_resample(
    points: Array, weights: Array, n_samples: int, rng: np.random.Generator, remedy: str
) -> tuple[Array, float, str | None]:
    """Turn weighted points into draws with equal weights, by systematic resampling.

    Parameters
    ----------
    points : ndarray, shape (n, p)
    weights : ndarray, shape (n,)
        Not negative. They need not be normalised.
    n_samples : int
        Number of draws.
    rng : numpy.random.Generator
    remedy : str
        Last sentence of the message: how to get more independent draws.

    Returns
    -------
    samples : ndarray, shape (n_samples, p)
        In random order.
    ess : float
        Effective sample size of the weighted points, (sum w)^2 / sum w^2.
    message : str or None
        A warning for the user if ``n_samples`` exceeds ``ess``.

    References
    ----------
    Kitagawa, Monte Carlo filter and smoother for non-Gaussian nonlinear state space models, 1996,
    https://doi.org/10.1080/10618600.1996.10474692.

    Examples
    --------
    >>> points, weights = np.array([[0.0], [1.0], [2.0]]), np.array([2.0, 1.0, 1.0])
    >>> rng = np.random.default_rng(0)
    >>> samples, ess, message = systematic_resample(points, weights, 4, rng, "Use more points.")
    >>> sorted(samples[:, 0].tolist()), round(ess, 2)
    ([0.0, 0.0, 1.0, 2.0], 2.67)
    >>> message.endswith("Use more points.")
    True
    """
    cumulative = weights.cumsum() / weights.sum()
    ess = float(weights.sum() ** 2 / (weights**2).sum())
    chosen = np.searchsorted(cumulative, (np.arange(n_samples) + rng.random()) / n_samples)
    message = None
    if n_samples > ess:
        message = (
            f"{n_samples} draws were requested, but the run holds only about {int(ess)} "
            f"independent draws, so that some draws repeat. {remedy}"
        )
    return points[rng.permutation(chosen)], ess, message


def pareto_smoothed(log_weights: Array) -> tuple[Array, float]:
    """Replace the largest importance weights by quantiles of a Pareto distribution fitted to them.

    arviz-stats fits and smooths. If the weights have a light tail (a fitted k of zero or less),
    they stay as they are, because smoothing would widen the posterior.

    Parameters
    ----------
    log_weights : ndarray, shape (n,)
        Need not be normalised; -inf for a weight of zero.

    Returns
    -------
    log_weights : ndarray, shape (n,)
        With the largest ones, at most a fifth of them, smoothed.
    k : float
        Tail index of the generalised Pareto distribution, shrunk towards 1/2: moments of order
        1 / k and above do not exist. NaN if there is nothing to fit: fewer than 25 weights are
        positive, the largest ones are equal, or a quarter of them equal the next smaller weight.
        Infinite if the largest ones differ by 600 nats or more. No weight is smoothed then.

    References
    ----------
    Vehtari et al., Pareto smoothed importance sampling, 2015, https://arxiv.org/abs/1507.02646.

    Examples
    --------
    Weights whose logarithm is exponential have a Pareto distribution with k = 1:

    >>> log_weights = np.random.default_rng(0).standard_exponential(10_000)
    >>> smoothed, k = pareto_smoothed(log_weights)
    >>> abs(k - 1) < 0.2, bool(smoothed.max() <= log_weights.max())
    (True, True)
    """
    from arviz_stats.base import array_stats

    n_positive = int(np.isfinite(log_weights).sum())
    n_tail = int(min(n_positive / 5, 3 * math.sqrt(n_positive)))  # as arviz-stats has it
    if n_tail < _MIN_TAIL_SIZE:
        return log_weights, math.nan
    order = np.argsort(log_weights)[-n_positive:]
    threshold, *log_tail = log_weights[order[-n_tail - 1 :]]
    largest = log_tail[-1]
    if largest - threshold >= _MAX_TAIL_RANGE:
        return log_weights, math.inf
    excess = np.exp(log_tail - largest) - np.exp(threshold - largest)
    if not excess[int(n_tail / 4 + 0.5) - 1] > 0 or excess[0] == excess[-1]:
        return log_weights, math.nan
    with np.errstate(over="ignore"):  # no weight exceeds the largest, whatever its quantile
        smoothed, k = array_stats.psislw(-log_weights[order])
    if k <= 5 / (n_tail + 10):  # a fitted k of zero, shrunk as by ten observations of k = 1/2
        return log_weights, float(k)
    smoothed = np.sort(smoothed)[-n_tail - 1 :]  # normalised
    result = log_weights.copy()
    result[order[-n_tail:]] = np.minimum(smoothed[1:] - smoothed[0] + threshold, largest)
    return result, float(k)
