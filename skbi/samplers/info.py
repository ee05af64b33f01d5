"""What a sampler reports besides its draws, and two diagnostics of Markov chains.

R-hat^2 = (estimated total variance) / (mean variance within chains), which is 1 when chains agree.
ESS = n m / (1 + 2 sum_t rho_t), for m chains of n draws with the autocorrelation rho_t at lag t.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, stats

__all__ = ["Array", "LogLikelihood", "SamplerInfo", "effective_sample_size", "r_hat"]

Array = NDArray[np.float64]
LogLikelihood = Callable[[Array], Array]  # maps theta (m, p) to log L (m,)


@dataclass(frozen=True)
class SamplerInfo:
    """What a sampler found besides the draws.

    Attributes
    ----------
    sampler : str
        "nested", "nuts", "importance" or "enumerate".
    n_calls : int
        Number of likelihood evaluations, one for each theta.
    log_evidence, log_evidence_error : float or None
        Log of the evidence Z, the integral of likelihood times prior, in nats, and its standard
        error. None from "nuts", which does not estimate the evidence.
    ess : ndarray, shape (p,), or None
        Effective sample size: the number of independent draws that would determine the parameter
        as well. NaN for the discrete parameters of "nuts".
    r_hat : ndarray, shape (p,), or None
        R-hat of each parameter, which is 1 when all chains agree; from "nuts" only. NaN for
        discrete parameters.
    pareto_k : float or None
        Tail index of the importance weights: up to 0.7 the draws are reliable; from "importance"
        only.
    results : dynesty.results.Results or None
        What dynesty returned, for its own plots; from "nested" only.
    warnings : tuple of str, default=()
        What the user should know about the draws; the estimator's method warns of it.

    Examples
    --------
    >>> from scipy import stats
    >>> from skbi.priors import JointPrior
    >>> from skbi.samplers import enumerate_all
    >>> def log_likelihood(theta):  # the coin k showed heads, which has probability 0.2 or 0.8
    ...     return np.log(np.where(theta[:, 0] == 1, 0.8, 0.2))
    >>> prior = JointPrior({"k": stats.bernoulli(0.5)})
    >>> _, info = enumerate_all(log_likelihood, prior, 100, np.random.default_rng(0))
    >>> info.n_calls, round(float(np.exp(info.log_evidence)), 3), info.warnings
    (2, 0.5, ())
    """

    sampler: str
    n_calls: int
    log_evidence: float | None = None
    log_evidence_error: float | None = None
    ess: Array | None = None
    r_hat: Array | None = None
    pareto_k: float | None = None
    results: Any = None
    warnings: tuple[str, ...] = ()


def r_hat(draws: Array) -> float:
    """Rank-normalised split R-hat of one parameter.

    Parameters
    ----------
    draws : ndarray, shape (n_draws, n_chains)

    Returns
    -------
    float
        The larger of two values: R-hat of the draws, which compares the chains' locations, and
        R-hat of their distances from the median, which compares the chains' scales.

    References
    ----------
    Vehtari et al., Rank-normalization, folding, and localization, 2021,
    https://arxiv.org/abs/1903.08008.

    Examples
    --------
    >>> round(r_hat(np.random.default_rng(0).normal(size=(500, 4))), 2)
    1.0
    """
    folded = np.abs(draws - np.median(draws))
    return max(_r_hat(_normal_scores(_split_chains(x))) for x in (draws, folded))


def effective_sample_size(draws: Array) -> float:
    """Effective number of independent draws for the mean of one rank-normalised parameter.

    The sum over lags is truncated by Geyer's initial monotone sequence: it adds pairs of
    neighbouring lags for as long as they are positive, and lets no pair exceed the one before.

    Parameters
    ----------
    draws : ndarray, shape (n_draws, n_chains)

    Returns
    -------
    float
        At most n m log10(n m) for n m draws, which anticorrelated chains can reach.

    References
    ----------
    Vehtari et al., Rank-normalization, folding, and localization, 2021,
    https://arxiv.org/abs/1903.08008.

    Examples
    --------
    >>> 1500 < effective_sample_size(np.random.default_rng(0).normal(size=(500, 4))) < 2600
    True
    """
    x = _normal_scores(_split_chains(draws))
    n, m = x.shape
    within, total = _variances(x)
    autocorrelation = 1 - (within - _mean_autocovariance(x) * n / (n - 1)) / total
    pairs = autocorrelation[: n // 2 * 2].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(pairs < 0)
    pairs = np.minimum.accumulate(pairs[: negative[0] if len(negative) else len(pairs)])
    return float(n * m / max(2 * pairs.sum() - 1, 1 / math.log10(n * m)))


def _split_chains(draws: Array) -> Array:
    """Split every chain in two, so that a drift within a chain is seen as well."""
    n = len(draws) // 2
    return np.concatenate([draws[:n], draws[-n:]], axis=1)


def _normal_scores(draws: Array) -> Array:
    """Replace the draws by the normal quantiles of their ranks among all chains."""
    ranks = stats.rankdata(draws).reshape(draws.shape)
    return stats.norm.ppf((ranks - 0.375) / (draws.size + 0.25))


def _variances(x: Array) -> tuple[float, float]:
    """Return the mean variance within chains, and the estimate of the total variance."""
    within = x.var(axis=0, ddof=1).mean()
    return within, within * (len(x) - 1) / len(x) + x.mean(axis=0).var(ddof=1)


def _r_hat(x: Array) -> float:
    within, total = _variances(x)
    return math.sqrt(total / within)


def _mean_autocovariance(x: Array) -> Array:
    """Autocovariance at the lags 0 to n - 1, averaged over chains, by the Fourier transform."""
    n = len(x)
    size = fft.next_fast_len(2 * n)
    spectrum = fft.rfft(x - x.mean(axis=0), n=size, axis=0)
    return fft.irfft(np.abs(spectrum) ** 2, n=size, axis=0)[:n].mean(axis=1) / n
