"""Posteriors from a likelihood: p(theta | X) = L(theta) p(theta) / Z, sampled or enumerated.

Every sampler asks for the likelihood of many theta at once: the network answers fifty in little
more than the time of one.
"""

from __future__ import annotations

import inspect
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol, Self

import dynesty
import numpy as np
from numpy.typing import NDArray
from scipy import fft, stats
from scipy.special import logsumexp, softmax
from tqdm.auto import tqdm

from skbi.priors import JointPrior, Prior, from_normal

__all__ = [
    "SamplerInfo",
    "effective_sample_size",
    "enumerate_all",
    "importance",
    "nested",
    "nuts",
    "pareto_smoothed",
    "r_hat",
]

Array = NDArray[np.float64]
LogLikelihood = Callable[[Array], Array]

_MOST_ATOMS = 100_000
_MOST_MIXED_ATOMS = 64  # with continuous parameters beside them: each costs a network call a step
_TAIL = 1e-12  # probability left out of an infinite discrete prior, at each end
_DEFENSIVE = 0.05  # share of importance sampling's proposals that come from the prior
_LEAST_WARMUP = 10
_LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class SamplerInfo:
    """What a sampler found besides the draws.

    Attributes
    ----------
    sampler : str
        "nested", "nuts", "importance" or "enumerate".
    n_calls : int
        Likelihood evaluations.
    log_evidence, log_evidence_error : float or None
        log Z = log of the integral of likelihood times prior, in nats, and its standard error;
        None from "nuts", which cannot know it.
    ess : ndarray, shape (p,), or None
        Effective number of independent draws, of each parameter.
    r_hat : ndarray, shape (p,), or None
        Disagreement of the chains, 1 for none; "nuts" only.
    pareto_k : float or None
        Tail index of the weights: up to 0.7 the draws can be relied on; "importance" only.
    results : dynesty.results.Results or None
        What dynesty returned, for its own plots; "nested" only.
    """

    sampler: str
    n_calls: int
    log_evidence: float | None = None
    log_evidence_error: float | None = None
    ess: Array | None = None
    r_hat: Array | None = None
    pareto_k: float | None = None
    results: Any = None


# ---- nested sampling


def nested(
    log_likelihood: LogLikelihood,
    prior: Prior,
    n_samples: int,
    rng: np.random.Generator,
    *,
    nlive: int = 500,
    dynamic: bool = False,
    queue_size: int | None = None,
    checkpoint_file: str | os.PathLike[str] | None = None,
    resume: bool = False,
    verbose: int = 0,
    **options: Any,
) -> tuple[Array, SamplerInfo]:
    """Sample by dynesty, in the unit cube that the prior's ppf maps to theta.

    Parameters
    ----------
    log_likelihood : callable
        Maps theta (m, p) to log L (m,). Pickled into the checkpoint, where `==` tells whether a
        checkpoint belongs to the same data.
    prior : JointPrior or an object with its methods
        Discrete parameters are welcome beside continuous ones.
    n_samples : int
    rng : Generator
    nlive : int, default=500
        Live points: the error of log Z falls as 1 / sqrt(nlive), the time grows as nlive.
    dynamic : bool, default=False
        Use dynesty's DynamicNestedSampler.
    queue_size : int, optional
        Points proposed at a time, whose likelihoods are evaluated together; 1 evaluates one by one.
        By default a tenth of the live points: larger ones bias log Z of walks and slices, and with
        uniform sampling waste by stale proposals what they gain.
    checkpoint_file : path, optional
        Save the state of the run there once a minute (``checkpoint_every`` seconds).
    resume : bool, default=False
        Continue from ``checkpoint_file`` if it exists. It is a pickle: open only your own.
    verbose : int, default=0
        1 shows dynesty's progress.
    **options
        For dynesty's sampler (``bound``, ``sample``, ``walks``...) and its ``run_nested``
        (``dlogz``, ``maxcall``...).

    Returns
    -------
    samples : ndarray, shape (n_samples, p)
    info : SamplerInfo

    References
    ----------
    Skilling, Nested sampling for general Bayesian computation, 2006,
    https://doi.org/10.1214/06-BA127; Speagle, dynesty, 2020, https://arxiv.org/abs/1904.02180.
    """
    if np.all(prior.discrete):
        raise ValueError(
            "Nested sampling needs a continuous parameter: with discrete ones only, the likelihood "
            "has no gradual rise to follow. Use sampler='enumerate', which is exact."
        )
    kind = dynesty.DynamicNestedSampler if dynamic else dynesty.NestedSampler
    run = {k: options.pop(k) for k in list(options) if k in _arguments(kind.run_nested)}
    size = max(1, nlive // 10) if queue_size is None else queue_size
    with BatchPool(size) as pool:
        if resume and checkpoint_file is not None and os.path.exists(checkpoint_file):
            sampler = _restore(kind, checkpoint_file, log_likelihood, pool)
        else:
            functions = Batched(log_likelihood), Batched(prior.ppf)
            shape = {"ndim": len(prior.names), "nlive": nlive}
            pooled = {"pool": pool, "queue_size": size} if size > 1 else {}
            sampler, resume = kind(*functions, **shape, **pooled, rstate=rng, **options), False
        if checkpoint_file is not None:
            run["checkpoint_file"] = os.fspath(checkpoint_file)
        if not (resume and _finished(sampler)):
            sampler.run_nested(print_progress=verbose > 0, resume=resume, **run)
    return _equal_weights(sampler.results, n_samples, rng)


def _arguments(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters) - {"self", "print_progress", "resume"}


def _restore(
    kind: type, path: str | os.PathLike[str], log_likelihood: LogLikelihood, pool: BatchPool
) -> Any:
    sampler = kind.restore(os.fspath(path), pool=pool if pool.size > 1 else None)
    saved = sampler.loglikelihood.loglikelihood.func.function
    if saved != log_likelihood:
        raise ValueError(
            f"The checkpoint {os.fspath(path)!r} belongs to another estimator or observation. Give "
            "another checkpoint_file, or delete it to start afresh."
        )
    return sampler


def _finished(sampler: Any) -> bool:
    if isinstance(sampler, dynesty.DynamicNestedSampler):
        return sampler.internal_state.name == "RUN_DONE"
    return sampler.added_live


def _equal_weights(
    results: Any, n_samples: int, rng: np.random.Generator
) -> tuple[Array, SamplerInfo]:
    more = "Raise nlive (with dynamic=True, n_effective)."
    weights = results.importance_weights()
    samples, ess = _resample(results.samples, weights, n_samples, rng, more)
    info = SamplerInfo(
        "nested",
        n_calls=int(np.sum(results.ncall)),
        log_evidence=float(results.logz[-1]),
        log_evidence_error=float(results.logzerr[-1]),
        ess=np.full(samples.shape[1], ess),
        results=results,
    )
    return samples, info


def _resample(
    points: Array, weights: Array, n_samples: int, rng: np.random.Generator, more: str
) -> tuple[Array, float]:
    """Turn weighted points into draws, systematically; return also how many are independent."""
    edges = weights.cumsum() / weights.sum()
    ess = float(weights.sum() ** 2 / (weights**2).sum())
    if n_samples > ess:
        warnings.warn(
            f"{n_samples} draws were asked for, and the run holds about {ess:.0f} independent "
            f"ones: some repeat. {more}",
            stacklevel=5,
        )
    chosen = np.searchsorted(edges, (np.arange(n_samples) + rng.random()) / n_samples)
    return points[rng.permutation(chosen)], ess


class Batched:
    """A function of rows that dynesty calls with one; inside a `BatchPool`, calls are gathered."""

    def __init__(self, function: Callable[[Array], Array]) -> None:
        self.function = function

    def __call__(self, row: Array) -> Any:
        """Evaluate one row."""
        ask = getattr(_TASK, "ask", None)
        return self.function(row[None])[0] if ask is None else ask(self, row)


_TASK = threading.local()  # .ask is set in the threads of a BatchPool


class BatchPool:
    """A pool for dynesty inside one process, which batches the calls of its tasks.

    Tasks are threads. A task that calls a `Batched` function waits; when all tasks wait, one call
    of the function answers them all. What a task computes does not depend on the others.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __enter__(self) -> Self:
        self.threads = ThreadPoolExecutor(self.size)
        return self

    def __exit__(self, *error: object) -> None:
        self.threads.shutdown()

    def map(self, task: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """Return [task(item) for item in items]."""
        items, results = list(items), []
        for start in range(0, len(items), self.size):
            results += self._together(task, items[start : start + self.size])
        return results

    def _together(self, task: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        inbox: SimpleQueue[tuple[int, Any, Any]] = SimpleQueue()
        answers = [SimpleQueue() for _ in items]
        futures = [
            self.threads.submit(_run_task, task, item, i, inbox, answers[i])
            for i, item in enumerate(items)
        ]
        n_active, failure = len(items), None
        while n_active:
            asked: dict[int, tuple[Batched, Array]] = {}
            while len(asked) < n_active:
                try:
                    i, function, row = inbox.get()
                except KeyboardInterrupt as error:
                    failure = error
                    continue
                if function is None:
                    n_active -= 1
                else:
                    asked[i] = function, row
            try:
                replies = dict.fromkeys(asked, failure) if failure else _evaluate(asked)
            except BaseException as error:  # every task must end before it is raised
                failure = error
                replies = dict.fromkeys(asked, error)
            for i, reply in replies.items():
                answers[i].put(reply)
        if failure is not None:
            raise failure
        return [future.result() for future in futures]


def _evaluate(asked: dict[int, tuple[Batched, Array]]) -> dict[int, Any]:
    """Answer the calls, all of one function together, in the order of the tasks."""
    replies = {}
    for function in {id(function): function for function, _ in asked.values()}.values():
        tasks = sorted(i for i, (f, _) in asked.items() if f is function)
        values = function.function(np.stack([asked[i][1] for i in tasks]))
        replies |= dict(zip(tasks, values, strict=True))
    return replies


def _run_task(
    task: Callable[[Any], Any], item: Any, i: int, inbox: SimpleQueue, answers: SimpleQueue
) -> Any:
    def ask(function: Batched, row: Array) -> Any:
        inbox.put((i, function, row))
        reply = answers.get()
        if isinstance(reply, BaseException):
            raise reply
        return reply

    _TASK.ask = ask
    try:
        return task(item)
    finally:
        del _TASK.ask
        inbox.put((i, None, None))


# ---- importance sampling


class Proposal(Protocol):
    """What importance sampling draws from: an approximate posterior of the one observation."""

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draw theta (n, p)."""

    def log_prob(self, theta: Array) -> Array:
        """Normalised log density of theta (n, p), (n,)."""


def importance(
    log_likelihood: LogLikelihood,
    prior: Prior,
    n_samples: int,
    rng: np.random.Generator,
    *,
    proposal: Proposal,
    n_proposals: int = 5000,
) -> tuple[Array, SamplerInfo]:
    """Reweight draws of a proposal q, such as an amortised posterior, by L(theta) p(theta) / q.

    A twentieth of the draws come from the prior instead, so that what q leaves out has a chance to
    be seen; then a few large weights raise ``pareto_k``. The largest weights are smoothed.

    Parameters
    ----------
    log_likelihood, prior, n_samples, rng
        As in `nested`.
    proposal : object with ``sample(n, rng)`` and ``log_prob(theta)``
    n_proposals : int, default=5000
        Likelihoods to evaluate, all at once.

    Returns
    -------
    samples : ndarray, shape (n_samples, p)
    info : SamplerInfo
        With ``log_evidence``, ``ess`` and ``pareto_k``.

    Warns
    -----
    UserWarning
        If ``pareto_k`` exceeds 0.7: the proposal misses too much of the posterior.

    References
    ----------
    Hesterberg, Weighted average importance sampling and defensive mixture distributions, 1995,
    https://doi.org/10.1080/00401706.1995.10484303; Dax et al., Neural importance sampling for rapid
    and reliable gravitational-wave inference, 2023, https://arxiv.org/abs/2210.05686.
    """
    n_prior = math.ceil(_DEFENSIVE * n_proposals)
    share = n_prior / n_proposals
    parts = [proposal.sample(n_proposals - n_prior, rng), prior.sample(n_prior, random_state=rng)]
    theta = np.vstack(parts)
    log_prior = prior.log_prob(theta)
    log_q = np.logaddexp(math.log1p(-share) + proposal.log_prob(theta), math.log(share) + log_prior)
    log_weights = log_likelihood(theta) + log_prior - log_q
    if not np.isfinite(log_weights).any():
        raise ValueError(
            f"None of the proposal's {n_proposals} draws has a likelihood above zero: use "
            "sampler='nested', or train the proposal further."
        )
    log_weights, k = pareto_smoothed(log_weights)
    if k > 0.7:
        warnings.warn(
            f"The proposal misses too much of the posterior to be reweighted (pareto_k = {k:.2f}, "
            "reliable up to 0.7): use sampler='nested', or train the proposal further.",
            stacklevel=4,
        )
    weights = softmax(log_weights)
    samples, ess = _resample(theta, weights, n_samples, rng, "Raise n_proposals.")
    info = SamplerInfo(
        "importance",
        n_calls=n_proposals,
        log_evidence=float(logsumexp(log_weights) - math.log(n_proposals)),
        log_evidence_error=float(weights.std() * n_proposals**0.5),
        ess=np.full(theta.shape[1], ess),
        pareto_k=k,
    )
    return samples, info


def pareto_smoothed(log_weights: Array) -> tuple[Array, float]:
    """Replace the largest importance weights by quantiles of a Pareto distribution fitted to them.

    Weights with a light tail, k below zero, stay: smoothing made the sd of a narrow Gaussian 1.16
    times as large.

    Parameters
    ----------
    log_weights : ndarray, shape (n,)

    Returns
    -------
    log_weights : ndarray, shape (n,)
    k : float
        The distribution's tail index: moments of order 1 / k and above do not exist. NaN for fewer
        than 25 positive weights, or equal ones.

    References
    ----------
    Vehtari et al., Pareto smoothed importance sampling, 2015, https://arxiv.org/abs/1507.02646.

    Examples
    --------
    >>> heavy = np.random.default_rng(0).standard_exponential(10_000)  # of log: a Pareto, k = 1
    >>> smooth, k = pareto_smoothed(heavy)
    >>> abs(k - 1) < 0.2, bool(smooth.max() <= heavy.max())
    (True, True)
    """
    n = int(np.isfinite(log_weights).sum())
    n_tail = int(min(n / 5, 3 * math.sqrt(n)))
    order = np.argsort(log_weights)[-n_tail - 1 :]
    top = log_weights[order[-1]]
    edge, *tail = np.exp(log_weights[order] - top)
    excess = np.array(tail) - edge
    if n_tail < 5 or not excess.mean() > 0:
        return log_weights, math.nan
    unit = excess.mean()
    k, _, scale = stats.genpareto.fit(excess / unit, floc=0)
    shrunk = (n_tail * k + 5) / (n_tail + 10)  # ten observations' worth of k = 1/2, against noise
    if k <= 0:
        return log_weights, float(shrunk)
    levels = (np.arange(n_tail) + 0.5) / n_tail
    smooth = log_weights.copy()
    quantiles = edge + stats.genpareto.ppf(levels, shrunk, scale=scale * unit)
    smooth[order[1:]] = top + np.log(np.minimum(quantiles, 1))
    return smooth, float(shrunk)


# ---- enumeration of discrete parameters


def enumerate_all(
    log_likelihood: LogLikelihood, prior: Prior, n_samples: int, rng: np.random.Generator
) -> tuple[Array, SamplerInfo]:
    """Evaluate every value of parameters that are all discrete: exact, with an exact evidence.

    Parameters
    ----------
    log_likelihood : callable
        Maps theta (m, p) to log L (m,).
    prior : JointPrior or an object with its methods
        All discrete.
    n_samples : int
    rng : Generator

    Returns
    -------
    samples : ndarray, shape (n_samples, p)
    info : SamplerInfo
    """
    if not np.all(prior.discrete):
        names = [n for n, d in zip(prior.names, prior.discrete, strict=True) if not d]
        raise ValueError(f"Continuous parameters {names} cannot be enumerated: use 'nested'.")
    theta = _atoms(prior, _MOST_ATOMS)
    log_joint = log_likelihood(theta) + prior.log_prob(theta)
    log_evidence = float(logsumexp(log_joint))
    samples = theta[rng.choice(len(theta), size=n_samples, p=np.exp(log_joint - log_evidence))]
    ess = np.full(theta.shape[1], float(n_samples))
    return samples, SamplerInfo("enumerate", len(theta), log_evidence, 0.0, ess)


def _atoms(prior: Prior, most: int) -> Array:
    """Return every combination of the discrete parameters' values, (K, number of them)."""
    p = len(prior.names)
    low, high = np.asarray(prior.support, dtype=np.float64)[prior.discrete].T
    tails = np.asarray(prior.ppf(np.outer([_TAIL, 1 - _TAIL], np.ones(p))))[:, prior.discrete]
    low, high = (np.where(np.isfinite(b), b, t) for b, t in zip((low, high), tails, strict=True))
    if np.prod(high - low + 1) > most:
        raise ValueError(
            f"The discrete parameters have {np.prod(high - low + 1):.0f} combinations of values, "
            f"more than the {most} that are enumerated. Use sampler='nested'."
        )
    values = [np.arange(a, b + 1) for a, b in zip(low, high, strict=True)]
    return np.stack(np.meshgrid(*values, indexing="ij"), axis=-1).reshape(-1, len(values))


# ---- gradient-based sampling


def nuts(
    likelihood: DifferentiableLikelihood,
    prior: Prior,
    n_samples: int,
    rng: np.random.Generator,
    *,
    n_chains: int = 8,
    n_warmup: int = 60,
    target_accept: float = 0.8,
    max_depth: int = 8,
    verbose: int = 0,
) -> tuple[Array, SamplerInfo]:
    """Sample by the no-U-turn sampler, all chains as one batch, in the prior's Gaussian space.

    There the prior is N(0, I) and nothing has bounds. Discrete parameters are summed out, and
    drawn afterwards given the continuous ones. Population Monte Carlo finds where the chains start
    and their first mass matrix: from draws of the prior, chains on a sharp posterior still had
    R-hat 1.06 after three times as long.

    Parameters
    ----------
    likelihood : DifferentiableLikelihood
    prior : JointPrior or an object with its methods
        With discrete parameters, a JointPrior.
    n_samples : int
    rng : Generator
    n_chains : int, default=8
        Each makes 100 draws or more, so that R-hat means something.
    n_warmup : int, default=60
        Steps of each chain that adapt the step size and the (dense) mass matrix, by what all
        chains have seen, and are then dropped.
    target_accept : float, default=0.8
        Acceptance that the step size aims at.
    max_depth : int, default=8
        At most 2^max_depth leapfrog steps a draw.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    samples : ndarray, shape (n_samples, p)
    info : SamplerInfo

    References
    ----------
    Hoffman and Gelman, The no-U-turn sampler, 2014, https://arxiv.org/abs/1111.4246; Betancourt, A
    conceptual introduction to Hamiltonian Monte Carlo, 2017, https://arxiv.org/abs/1701.02434;
    Cappe et al., Population Monte Carlo, 2004, https://doi.org/10.1198/106186004X12803.
    """
    if n_chains < 1 or n_warmup < _LEAST_WARMUP:
        raise ValueError(
            f"nuts needs n_chains >= 1 and n_warmup >= {_LEAST_WARMUP}, to adapt; got {n_chains} "
            f"and {n_warmup}."
        )
    target = _Target(likelihood, prior)
    z, weights = target.explore(rng)
    start = z[rng.choice(len(z), size=n_chains, p=weights)]
    chains = _Chains(target, start, _covariance(z, weights), rng, target_accept, max_depth)
    n_draws = max(100, math.ceil(n_samples / n_chains))
    total = n_warmup + n_draws
    with tqdm(total=total, desc="NUTS", unit="step", disable=verbose < 1) as bar:
        seen = chains.run(n_warmup // 2, bar, adapt=True)[n_warmup // 8 :]
        seen = seen.reshape(-1, seen.shape[-1])
        chains.rescale(_covariance(seen, np.full(len(seen), 1 / len(seen))))
        chains.run(n_warmup - n_warmup // 2, bar, adapt=True)
        chains.freeze()
        draws = chains.run(n_draws, bar, adapt=False)
    keep = np.linspace(0, n_draws * n_chains - 1, n_samples).astype(int)
    z = target.complete(draws.reshape(n_draws * n_chains, -1)[keep], rng)
    info = _diagnose(draws, target)
    return from_normal(prior, z), info


class DifferentiableLikelihood(Protocol):
    """What `nuts` samples."""

    def __call__(self, theta: Array) -> Array:
        """Log L of theta (m, p), (m,)."""

    def value_and_gradient(self, z: Array) -> tuple[Array, Array]:
        """Log L (m,) and gradient (m, p) at the prior's Gaussian coordinates z (m, p).

        Discrete parameters are in z as they are; their gradient is not read.
        """


class _Target:
    """log L(z) + log N(z; 0, I) over the continuous coordinates, discrete parameters summed out."""

    def __init__(self, likelihood: DifferentiableLikelihood, prior: Prior) -> None:
        self.likelihood, self.prior = likelihood, prior
        self.discrete = np.asarray(prior.discrete)
        self.n_calls = 0
        if self.discrete.all():
            raise ValueError(
                "NUTS needs a continuous parameter. Use sampler='enumerate', which is exact."
            )
        self.atoms, self.log_mass = np.empty((1, 0)), np.zeros(1)
        if self.discrete.any():
            if not isinstance(prior, JointPrior):
                raise ValueError(
                    "NUTS sums discrete parameters out only under a JointPrior, whose parameters "
                    f"are independent; got {type(prior).__name__}. Use sampler='nested'."
                )
            self.atoms = _atoms(prior, _MOST_MIXED_ATOMS)
            marginals = np.array(list(prior.marginals.values()), dtype=object)[self.discrete]
            mass = [m.logpmf(a) for m, a in zip(marginals, self.atoms.T, strict=True)]
            self.log_mass = np.sum(mass, axis=0)

    def __call__(self, z: Array) -> tuple[Array, Array]:
        """Log density and gradient at the continuous coordinates z (m, k)."""
        value, gradient = self.likelihood.value_and_gradient(self._spread(z))
        log_joint = self._joint(value)
        share = softmax(log_joint, axis=1)[..., None]
        gradient = gradient.reshape(*log_joint.shape, -1)[..., ~self.discrete]
        value = logsumexp(log_joint, axis=1) + _log_normal(z)
        return value, (share * gradient).sum(axis=1) - z

    def joint(self, z: Array) -> Array:
        """Log of likelihood times mass for every atom, (m, K)."""
        return self._joint(self.likelihood(from_normal(self.prior, self._spread(z))))

    def _spread(self, z: Array) -> Array:
        """Combine z (m, k) with every atom, (m K, p)."""
        both = np.empty((len(z), len(self.atoms), len(self.discrete)))
        both[..., ~self.discrete], both[..., self.discrete] = z[:, None], self.atoms
        return both.reshape(-1, len(self.discrete))

    def _joint(self, value: Array) -> Array:
        self.n_calls += len(value)
        return value.reshape(-1, len(self.atoms)) + self.log_mass

    def complete(self, z: Array, rng: np.random.Generator) -> Array:
        """Draw the discrete parameters given the continuous coordinates, (m, p)."""
        both = np.empty((len(z), len(self.discrete)))
        both[:, ~self.discrete] = z
        if self.discrete.any():
            log_joint = self.joint(z) if len(self.atoms) > 1 else np.zeros((len(z), 1))
            noisy = log_joint + rng.gumbel(size=log_joint.shape)
            both[:, self.discrete] = self.atoms[noisy.argmax(axis=1)]
        return both

    def explore(
        self, rng: np.random.Generator, n: int = 200, n_rounds: int = 20
    ) -> tuple[Array, Array]:
        """Move n draws of the prior to the posterior by population Monte Carlo; also their weights.

        A round weights the draws by the posterior, tempered as far as an eighth of them count, and
        draws the next from a kernel estimate. Atoms without a share anywhere are then dropped.
        """
        z = rng.standard_normal((n, int((~self.discrete).sum())))
        log_q = _log_normal(z)
        for _ in range(n_rounds):
            log_joint = self.joint(z)
            log_weights, power = logsumexp(log_joint, axis=1) + _log_normal(z) - log_q, 1.0
            while 1 / (softmax(power * log_weights) ** 2).sum() < n / 8:
                power *= 0.8
            weights = softmax(power * log_weights)
            if power == 1:
                break
            z, log_q = _kernel_draws(z, weights, rng)
        share = softmax(log_joint[weights > 1e-6], axis=1).max(axis=0)
        self.atoms, self.log_mass = self.atoms[share > 1e-10], self.log_mass[share > 1e-10]
        return z, weights


def _log_normal(z: Array) -> Array:
    return -0.5 * (z**2 + _LOG_2PI).sum(axis=1)


def _covariance(z: Array, weights: Array) -> Array:
    """Covariance of weighted draws, shrunk towards its diagonal."""
    centred = z - weights @ z
    covariance, n = (weights * centred.T) @ centred, 1 / (weights**2).sum()
    diagonal = np.diag(np.diag(covariance) + 1e-12)
    return (n * covariance + 5 * diagonal) / (n + 5)


def _kernel_draws(z: Array, weights: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw as many again from a kernel estimate of the same covariance; also its log density."""
    root = np.linalg.cholesky(_covariance(z, weights))
    centres = weights @ z + math.sqrt(0.5) * (z - weights @ z)
    n, k = z.shape
    chosen = rng.choice(n, size=n, p=weights)
    new = centres[chosen] + math.sqrt(0.5) * rng.standard_normal((n, k)) @ root.T
    apart = np.linalg.solve(root, (new[:, None] - centres).reshape(-1, k).T).T.reshape(n, n, k)
    log_kernel = -(apart**2).sum(axis=2) - 0.5 * k * (_LOG_2PI + math.log(0.5))
    return new, logsumexp(log_kernel, b=weights, axis=1) - np.log(np.diag(root)).sum()


class _Chains:
    """The state of all chains: positions, step size (dual averaging) and mass matrix."""

    def __init__(
        self,
        target: Callable[[Array], tuple[Array, Array]],
        z: Array,
        covariance: Array,
        rng: np.random.Generator,
        target_accept: float,
        max_depth: int,
    ) -> None:
        self.target, self.rng = target, rng
        self.target_accept, self.max_depth = target_accept, max_depth
        self.z = z
        self.value, self.gradient = target(z)
        self.rescale(covariance)

    def rescale(self, covariance: Array) -> None:
        """Set the mass matrix, to the inverse of this; start the step size afresh."""
        self.root = np.linalg.cholesky(covariance)
        self.log_step = self.log_average = 0.0
        self.error, self.n_adapted = 0.0, 0

    @property
    def step_size(self) -> float:
        """In units of the mass matrix."""
        return math.exp(self.log_step)

    def freeze(self) -> None:
        """End the adaptation with the average step size."""
        self.log_step = self.log_average

    def run(self, n_draws: int, bar: tqdm, *, adapt: bool) -> Array:
        """Draw in every chain, (n_draws, chains, k)."""
        seen = np.empty((n_draws, *self.z.shape))
        for i in range(n_draws):
            self._step(adapt)
            seen[i] = self.z
            bar.set_postfix_str(f"step size {self.step_size:.2g}", refresh=False)
            bar.update()
        return seen

    def _step(self, adapt: bool) -> None:
        accepted = _Tree(self).grow()
        if adapt:  # Hoffman and Gelman, section 3.2, with their constants
            self.n_adapted += 1
            t = self.n_adapted
            self.error += (self.target_accept - accepted - self.error) / (t + 10)
            self.log_step = math.log(2) - math.sqrt(t) / 0.05 * self.error
            self.log_average += t**-0.75 * (self.log_step - self.log_average)

    def leapfrog(
        self, q: Array, r: Array, gradient: Array, step: Array
    ) -> tuple[Array, Array, Array, Array]:
        """One step of positions z, momenta r (unit mass, in the scaled space)."""
        half = 0.5 * step[:, None]
        r = r + half * (gradient @ self.root)
        q = q + step[:, None] * (r @ self.root.T)
        value, gradient = self.target(q)
        return q, r + half * (gradient @ self.root), value, gradient


class _Tree:
    """One draw of every chain: trajectories that double until they turn back.

    Multinomial sampling along the trajectory (Betancourt 2017, appendix A); turns inside a half
    are found without recursion, by keeping the momenta at the left ends of its sub-trees.
    """

    def __init__(self, chains: _Chains) -> None:
        self.chains = chains
        n, k = chains.z.shape
        self.r = chains.rng.standard_normal((n, k))
        self.energy = chains.value - 0.5 * (self.r**2).sum(axis=1)
        # the two ends: [left, right] x chain
        self.q = np.stack([chains.z] * 2)
        self.ends = np.stack([self.r] * 2)
        self.gradients = np.stack([chains.gradient] * 2)
        self.momentum = self.r.copy()  # summed along the trajectory
        self.log_weight = np.zeros(n)
        self.accepted, self.n_leaves = np.zeros(n), np.zeros(n)
        self.alive = np.ones(n, dtype=bool)

    def grow(self) -> float:
        """Move the chains; return the mean acceptance statistic."""
        for depth in range(self.chains.max_depth):
            self._double(2**depth)
            if not self.alive.any():
                break
        return float((self.accepted / self.n_leaves).mean())

    def _double(self, n_steps: int) -> None:
        """Add as many steps as there are, at a random end of each living chain."""
        chains, rng = self.chains, self.chains.rng
        rows = np.flatnonzero(self.alive)
        side = rng.integers(2, size=len(rows))
        step = chains.step_size * (2 * side - 1)
        q, r, gradient = self.q[side, rows], self.ends[side, rows], self.gradients[side, rows]
        half = _Half(q, n_steps)
        going = np.ones(len(rows), dtype=bool)
        for leaf in range(n_steps):
            now = np.flatnonzero(going)
            q[now], r[now], value, gradient[now] = chains.leapfrog(
                q[now], r[now], gradient[now], step[now]
            )
            log_weight = value - 0.5 * (r[now] ** 2).sum(axis=1) - self.energy[rows[now]]
            log_weight = np.where(np.isfinite(log_weight), log_weight, -np.inf)
            self.accepted[rows[now]] += np.exp(np.minimum(log_weight, 0))
            self.n_leaves[rows[now]] += 1
            half.add(now, q[now], value, gradient[now], log_weight, rng)
            turned = half.turned(now, r[now], leaf)
            going[now[turned | (log_weight < -1000)]] = False
            if not going.any():
                break
        self.alive[rows[~going]] = False
        rows, side, half = rows[going], side[going], half.take(going)
        self.q[side, rows], self.ends[side, rows] = q[going], r[going]
        self.gradients[side, rows] = gradient[going]
        better = np.log(rng.random(len(rows))) < half.log_weight - self.log_weight[rows]
        chains.z[rows[better]] = half.q[better]
        chains.value[rows[better]] = half.value[better]
        chains.gradient[rows[better]] = half.gradient[better]
        self.log_weight[rows] = np.logaddexp(self.log_weight[rows], half.log_weight)
        self.momentum[rows] += half.momentum
        turned = _turning(self.ends[0, rows], self.ends[1, rows], self.momentum[rows])
        self.alive[rows[turned]] = False


class _Half:
    """The new half of a trajectory: its candidate, its weight and its momenta."""

    def __init__(self, q: Array, n_steps: int) -> None:
        n, k = q.shape
        depth = n_steps.bit_length()
        self.q, self.gradient, self.momentum = q.copy(), np.zeros((n, k)), np.zeros((n, k))
        self.value, self.log_weight = np.zeros(n), np.full(n, -np.inf)
        self.kept = np.zeros((depth, n, k))  # momenta at the left ends of open sub-trees
        self.sums = np.zeros((depth, n, k))  # and the sums up to there

    def take(self, rows: NDArray[np.bool_]) -> Self:
        """Keep some chains."""
        for name in ("q", "gradient", "momentum", "value", "log_weight"):
            setattr(self, name, getattr(self, name)[rows])
        return self

    def add(
        self,
        rows: NDArray[np.int64],
        q: Array,
        value: Array,
        gradient: Array,
        log_weight: Array,
        rng: np.random.Generator,
    ) -> None:
        """Add a leaf, which becomes the candidate by its share of the weight."""
        total = np.logaddexp(self.log_weight[rows], log_weight)
        chosen = np.log(rng.random(len(rows))) < log_weight - total
        new = rows[chosen]
        self.q[new], self.gradient[new] = q[chosen], gradient[chosen]
        self.value[new] = value[chosen]
        self.log_weight[rows] = total

    def turned(self, rows: NDArray[np.int64], r: Array, leaf: int) -> NDArray[np.bool_]:
        """Whether any sub-tree that ends with this leaf turns back."""
        self.momentum[rows] += r
        level = (leaf >> 1).bit_count()
        if leaf % 2 == 0:
            self.kept[level, rows], self.sums[level, rows] = r, self.momentum[rows]
            return np.zeros(len(rows), dtype=bool)
        turned = np.zeros(len(rows), dtype=bool)
        n_subtrees = (~leaf & (leaf + 1)).bit_length() - 1  # trailing ones of leaf
        for i in range(level, level - n_subtrees, -1):
            first = self.kept[i, rows]
            turned |= _turning(first, r, self.momentum[rows] - self.sums[i, rows] + first)
        return turned


def _turning(left: Array, right: Array, momentum: Array) -> NDArray[np.bool_]:
    """Whether an end moves against the sum of the momenta (its own counted half)."""
    momentum = momentum - 0.5 * (left + right)
    return ((left * momentum).sum(axis=1) <= 0) | ((right * momentum).sum(axis=1) <= 0)


# ---- diagnostics


def _diagnose(draws: Array, target: _Target) -> SamplerInfo:
    """Compute R-hat and the effective sample size of continuous parameters; warn when bad."""
    p, n_halves = len(target.discrete), 2 * draws.shape[1]
    worst, sizes, limit = np.full((3, p), np.nan)
    chance = stats.chi2.ppf(0.999, n_halves - 1) / (n_halves - 1) - 1  # of the variance of means
    for j, column in zip(np.flatnonzero(~target.discrete), np.moveaxis(draws, 2, 0), strict=True):
        worst[j], sizes[j] = r_hat(column), effective_sample_size(column)
        least = min(sizes[j], effective_sample_size(np.abs(column - np.median(column))))
        limit[j] = max(1.05, math.sqrt(1 + chance * n_halves / least))
    if (worst > limit).any() or np.nanmin(sizes) < 100:
        j = int(np.nanargmax(worst / limit))
        warnings.warn(
            f"The chains have not converged: R-hat up to {worst[j]:.2f} (should be below "
            f"{limit[j]:.2f}), effective sample size down to {np.nanmin(sizes):.0f} (should be 100 "
            "or more). Raise n_warmup and n_samples; if the posterior has separate modes, use "
            "sampler='nested'.",
            stacklevel=4,
        )
    return SamplerInfo("nuts", target.n_calls, ess=sizes, r_hat=worst)


def r_hat(draws: Array) -> float:
    """Rank-normalised split R-hat of one parameter.

    Parameters
    ----------
    draws : ndarray, shape (n_draws, n_chains)

    Returns
    -------
    float
        The larger of the R-hat of location and of scale; 1 when the chains agree.

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
    return max(_split_r_hat(_normal_scores(_halves(x))) for x in (draws, folded))


def effective_sample_size(draws: Array) -> float:
    """Effective number of independent draws, for the mean of one rank-normalised parameter.

    Parameters
    ----------
    draws : ndarray, shape (n_draws, n_chains)

    Returns
    -------
    float

    References
    ----------
    Vehtari et al., Rank-normalization, folding, and localization, 2021,
    https://arxiv.org/abs/1903.08008.

    Examples
    --------
    >>> 1500 < effective_sample_size(np.random.default_rng(0).normal(size=(500, 4))) < 2600
    True
    """
    x = _normal_scores(_halves(draws))
    n, m = x.shape
    within, total = _variances(x)
    size = fft.next_fast_len(2 * n)
    spectrum = fft.rfft(x - x.mean(axis=0), n=size, axis=0)
    covariance = fft.irfft(np.abs(spectrum) ** 2, n=size, axis=0)[:n].mean(axis=1) / n
    rho = 1 - (within - covariance * n / (n - 1)) / total
    pairs = rho[: n // 2 * 2].reshape(-1, 2).sum(axis=1)  # Geyer: positive, then monotone
    negative = np.flatnonzero(pairs < 0)
    pairs = np.minimum.accumulate(pairs[: negative[0] if len(negative) else len(pairs)])
    return float(n * m / max(2 * pairs.sum() - 1, 1 / math.log10(n * m)))


def _halves(draws: Array) -> Array:
    """Split every chain in two."""
    n = len(draws) // 2
    return np.concatenate([draws[:n], draws[-n:]], axis=1)


def _normal_scores(draws: Array) -> Array:
    ranks = stats.rankdata(draws).reshape(draws.shape)
    return stats.norm.ppf((ranks - 0.375) / (draws.size + 0.25))


def _variances(x: Array) -> tuple[float, float]:
    """Mean variance within chains, and the estimate of the whole variance."""
    within = x.var(axis=0, ddof=1).mean()
    return within, within * (len(x) - 1) / len(x) + x.mean(axis=0).var(ddof=1)


def _split_r_hat(x: Array) -> float:
    within, total = _variances(x)
    return math.sqrt(total / within)
