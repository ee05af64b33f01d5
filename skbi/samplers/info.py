"""What a sampler reports besides its draws, and two diagnostics of Markov chains.

R-hat^2 = (estimated total variance) / (mean variance within chains), which is 1 when chains agree.
ESS = n m / (1 + 2 sum_t rho_t), for m chains of n draws with the autocorrelation rho_t at lag t.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "LogLikelihood", "SamplerInfo", "effective_sample_size", "r_hat"]

_MAX_SHOWN = 6  # numbers of an array that are printed one by one

Array = NDArray[np.float64]
LogLikelihood = Callable[[Array], Array]  # maps theta (m, p) to log L (m,)


@dataclass(frozen=True)
class SamplerInfo:
    """What a sampler found besides the draws; print it to read it in a line.

    Attributes
    ----------
    sampler : str
        "smc", "nested", "nuts", "importance" or "enumerate".
    n_calls : int
        Number of likelihood evaluations, one for each theta.
    log_evidence, log_evidence_error : float or None
        Log of the evidence Z, the integral of likelihood times prior, in nats, and the standard
        error of the sampling. None from "nuts", which does not estimate the evidence.
    likelihood_error : float or None
        What the error of a learnt likelihood adds to that of log Z, in nats, by how the members of
        an ensemble differ; from `log_evidence` only.
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
    likelihood_error: float | None = None
    ess: Array | None = None
    r_hat: Array | None = None
    pareto_k: float | None = None
    results: Any = None
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        known = {field.name: getattr(self, field.name) for field in fields(self)}
        described = [
            f"{name}={_describe(value)}"
            for name, value in known.items()
            if not (value is None or (name == "warnings" and not value))
        ]
        return f"SamplerInfo({', '.join(described)})"


def _describe(value: Any) -> str:
    """Describe a number by four digits, a long array by its range, and an object by its type."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int | str | tuple):
        return repr(value)
    if not isinstance(value, np.ndarray):
        return f"<{type(value).__name__}>"
    if value.size <= _MAX_SHOWN:
        return f"[{', '.join(f'{x:.4g}' for x in value.ravel())}]"
    low, high = np.fmin.reduce(value.ravel()), np.fmax.reduce(value.ravel())
    return f"<{value.size} from {low:.4g} to {high:.4g}>"


def r_hat(draws: Array) -> float:
    """Rank-normalised split R-hat of one parameter, by arviz-stats.

    Parameters
    ----------
    draws : ndarray, shape (n_draws, n_chains)
        The halves of a single chain count as two chains.

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
    from arviz_stats.base import array_stats  # slow to import beside arviz-base

    n_draws, n_chains = draws.shape
    if n_chains == 1:
        draws = np.hstack([draws[: n_draws // 2], draws[-(n_draws // 2) :]])
    return float(array_stats.rhat(draws, chain_axis=1, draw_axis=0))


def effective_sample_size(draws: Array) -> float:
    """Effective number of independent draws for the mean of one parameter, by arviz-stats.

    The draws are rank-normalised and the chains split, as for R-hat. The sum over lags is
    truncated by Geyer's initial monotone sequence.

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
    from arviz_stats.base import array_stats

    return float(array_stats.ess(draws, chain_axis=1, draw_axis=0))
