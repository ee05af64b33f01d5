"""Sequential Monte Carlo, of one observation or of many together.

Particles move from the prior to the posterior (`skbi.samplers.particles`). Each observation's run
asks for likelihoods; those of all runs are answered in one call, because a network evaluates many
theta in little more than the time of one.

A likelihood that is costly may offer cheaper ones to begin with: the path then leads from the prior
through each of them to the likelihood itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from skbi.parallel import progress_options
from skbi.priors import Prior
from skbi.samplers.info import Array, LogLikelihood, SamplerInfo
from skbi.samplers.particles import MIN_CHAINS, Particles, Request, Run

__all__ = ["smc", "smc_together"]

_LEAST_CHAINS, _MOST_CHAINS = 512, 2048
_ROWS_TOGETHER = 8192  # theta that are evaluated in one call, over observations


def smc(
    log_likelihood: LogLikelihood,
    prior: Prior,
    n_samples: int,
    rng: np.random.Generator,
    *,
    n_particles: int | None = None,
    verbose: int | str = "auto",
) -> tuple[Array, SamplerInfo]:
    """Sample the posterior and estimate the evidence by tempered sequential Monte Carlo.

    Every step evaluates the likelihoods of all particles in one call. Separate modes, ridges and
    discrete parameters are all moved by the same steps: in the prior's Gaussian coordinates, those
    of discrete parameters included, proposals are drawn from a mixture of Student t distributions
    fitted to the particles, from differences of two of them, and from an autoregressive process
    around their mean. Each kind is used as much as it has proved to be worth, and a half of the
    particles learns from the other one. At every temperature particles move until they have
    forgotten where they started and their means drift no more.

    Parameters
    ----------
    log_likelihood : callable
        Maps theta (m, p) to log L (m,), in nats. It may have a method ``approximations()``, which
        returns cheaper likelihoods, of growing accuracy, to begin with.
    prior : JointPrior or an object with its methods
    n_samples : int
        Number of draws.
    rng : numpy.random.Generator
    n_particles : int, optional
        Number of chains, which one call of the likelihood moves. By default a quarter of
        ``n_samples``, but from 512 to 2,048. Four times as many halve the error of the shares of
        separate modes, for up to four times the time.
    verbose : int or "auto", default="auto"
        1 shows a progress bar, 0 none; "auto" shows one on a terminal, of a run that takes more
        than 5 seconds.

    Returns
    -------
    samples : ndarray, shape (n_samples, p)
        Draws with equal weights, in random order.
    info : SamplerInfo
        With ``log_evidence``, whose error is that of the bridge, and ``ess``. Its ``warnings`` say
        so if the particles have not mixed.

    Raises
    ------
    ValueError
        If hardly any draw of the prior has a likelihood above zero.

    References
    ----------
    Del Moral, Doucet and Jasra, Sequential Monte Carlo samplers, 2006,
    https://doi.org/10.1111/j.1467-9868.2006.00553.x; Dau and Chopin, Waste-free sequential Monte
    Carlo, 2022, https://arxiv.org/abs/2011.02328; ter Braak, A Markov chain Monte Carlo version of
    the genetic algorithm differential evolution, 2006, https://doi.org/10.1007/s11222-006-8769-1;
    Meng and Wong, Simulating ratios of normalizing constants, 1996,
    https://www3.stat.sinica.edu.tw/statistica/oldpdf/A6n43.pdf.

    Examples
    --------
    >>> from scipy import stats
    >>> from skbi.priors import JointPrior
    >>> prior = JointPrior({"mu": stats.norm(0, 1)})
    >>> def log_likelihood(theta):  # one observation, 0.8, with noise of standard deviation 0.5
    ...     return stats.norm.logpdf(0.8, theta[:, 0], 0.5)
    >>> samples, info = smc(log_likelihood, prior, 1000, np.random.default_rng(0))
    >>> samples.shape, abs(float(samples.mean()) - 0.64) < 0.05
    ((1000, 1), True)
    >>> exact = stats.norm.logpdf(0.8, 0, (1 + 0.5**2) ** 0.5)
    >>> bool(abs(info.log_evidence - exact) < 4 * info.log_evidence_error)
    True
    """
    options = {"n_particles": n_particles, "verbose": verbose}
    samples, infos = smc_together([log_likelihood], prior, n_samples, [rng], **options)
    return samples[0], infos[0]


def smc_together(
    log_likelihoods: Sequence[LogLikelihood],
    prior: Prior,
    n_samples: int,
    rngs: Sequence[np.random.Generator],
    *,
    n_particles: int | None = None,
    verbose: int | str = "auto",
) -> tuple[list[Array], list[SamplerInfo]]:
    """Sample the posteriors of several observations; each result is the one that `smc` gives.

    Likelihoods of one class that has a static method ``evaluate_together(likelihoods, thetas)`` are
    evaluated in one call, for as many observations at a time as share the work well.

    Parameters
    ----------
    log_likelihoods : sequence of callable
        One for each observation.
    prior, n_samples, n_particles, verbose
        As in `smc`.
    rngs : sequence of numpy.random.Generator
        One for each observation.

    Returns
    -------
    samples : list of ndarray, shape (n_samples, p)
    infos : list of SamplerInfo
    """
    n_chains = int(np.clip(n_samples // 4, _LEAST_CHAINS, _MOST_CHAINS))
    if n_particles is not None:
        n_chains = n_particles
    if n_chains < MIN_CHAINS:
        raise ValueError(
            f"smc needs n_particles >= {MIN_CHAINS}, as they learn from each other; got "
            f"{n_particles}. Raise it."
        )
    runs = [
        Particles(prior, n_samples, rng, n_chains).run(_path(likelihood))
        for likelihood, rng in zip(log_likelihoods, rngs, strict=True)
    ]
    found = _run_together(runs, max(1, _ROWS_TOGETHER // n_chains), verbose)
    return [samples for samples, _ in found], [info for _, info in found]


def _path(likelihood: Any) -> list[LogLikelihood]:
    """Return the likelihoods on the way, from the cheapest to the one that is asked for."""
    approximations = getattr(likelihood, "approximations", None)
    return [*(approximations() if approximations else []), likelihood]


def _run_together(
    runs: Sequence[Run], n_at_once: int, verbose: int | str
) -> list[tuple[Array, SamplerInfo]]:
    """Advance runs side by side, their requests answered together; return what each returns."""
    found: dict[int, tuple[Array, SamplerInfo]] = {}
    waiting: dict[int, Request] = {}
    queue = iter(enumerate(runs))
    options = {"desc": "SMC", "unit": "posterior", "miniters": 0, **progress_options(verbose)}
    with tqdm(total=len(runs), **options) as bar:
        while len(found) < len(runs):
            while len(waiting) < n_at_once and (new := next(queue, None)) is not None:
                waiting[new[0]] = next(new[1])
            bar.set_postfix_str(next(iter(waiting.values())).progress, refresh=False)
            bar.update(0)  # which shows it, once it is time
            answers = _evaluate(waiting.values())
            for i, answer in zip(list(waiting), answers, strict=True):
                try:
                    waiting[i] = runs[i].send(answer)
                except StopIteration as end:
                    found[i] = end.value
                    del waiting[i]
                    bar.update()
    return [found[i] for i in range(len(runs))]


def _evaluate(requests: Collection[Request]) -> list[list[Array]]:
    """Answer requests: one call for likelihoods of a class that takes many, else one for each."""
    pairs = [(each, request.theta) for request in requests for each in request.likelihoods]
    together = getattr(type(pairs[0][0]), "evaluate_together", None)
    if together is None:
        values = [likelihood(theta) for likelihood, theta in pairs]
    else:
        values = together(*zip(*pairs, strict=True))
    left = iter([np.where(np.isfinite(value), value, -np.inf) for value in values])
    return [[next(left) for _ in request.likelihoods] for request in requests]
