"""Nested sampling by dynesty, in the unit cube that the prior's quantile function maps to theta.

Z = integral of L(theta) p(theta) dtheta = integral of L(V) dV from V = 0 to 1, where L(V) is the
likelihood that a fraction V of the prior exceeds. dynesty asks for one likelihood at a time; a
`BatchPool` gathers these calls, so that a network evaluates many theta at once.
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple, Self

import dynesty
import numpy as np
from dynesty.results import print_fn
from tqdm.auto import tqdm

from skbi.parallel import progress_options
from skbi.priors import Prior
from skbi.samplers.importance import systematic_resample
from skbi.samplers.info import Array, LogLikelihood, SamplerInfo

__all__ = ["BatchPool", "Batched", "nested"]

_CURRENT_TASK = threading.local()  # has the attribute `evaluate` in the threads of a BatchPool


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
    verbose: int | str = "auto",
    **options: Any,
) -> tuple[Array, SamplerInfo]:
    """Sample the posterior and estimate the evidence by nested sampling.

    Parameters
    ----------
    log_likelihood : callable
        Maps theta (m, p) to log L (m,), in nats. It is pickled into the checkpoint, and a run
        resumes only if the pickled one equals the one given, by ``==``, which should compare the
        data.
    prior : JointPrior or an object with its methods
        It may have discrete parameters if at least one parameter is continuous.
    n_samples : int
        Number of draws.
    rng : numpy.random.Generator
    nlive : int, default=500
        Number of live points. The error of log Z falls as 1 / sqrt(nlive), and the time grows as
        nlive.
    dynamic : bool, default=False
        Use dynesty's DynamicNestedSampler.
    queue_size : int, optional
        Number of points that are proposed at a time, and whose likelihoods are evaluated together;
        1 evaluates one by one. The default is a tenth of the live points. Larger batches bias
        log Z if points are proposed by random walks or slices, and waste evaluations if they are
        proposed uniformly.
    checkpoint_file : path, optional
        Where to save the state of the run once a minute (every ``checkpoint_every`` seconds).
    resume : bool, default=False
        Continue from ``checkpoint_file`` if it exists. The file is a pickle: open only your own.
    verbose : int or "auto", default="auto"
        1 shows dynesty's progress, 0 none; "auto" shows it on a terminal, of a run that takes more
        than 5 seconds.
    **options
        For dynesty's sampler (``bound``, ``sample``, ``walks``...) and for its ``run_nested``
        (``dlogz``, ``maxcall``...).

    Returns
    -------
    samples : ndarray, shape (n_samples, p)
        Draws with equal weights, in random order.
    info : SamplerInfo
        With ``log_evidence``, ``ess`` and dynesty's ``results``. Its ``warnings`` say so if the
        run holds fewer independent draws than ``n_samples``.

    Raises
    ------
    ValueError
        If all parameters are discrete, or if the checkpoint belongs to other data.

    References
    ----------
    Skilling, Nested sampling for general Bayesian computation, 2006,
    https://doi.org/10.1214/06-BA127; Speagle, dynesty, 2020, https://arxiv.org/abs/1904.02180.

    Examples
    --------
    >>> from scipy import stats
    >>> from skbi.priors import JointPrior
    >>> prior = JointPrior({"mu": stats.norm(0, 1)})
    >>> def log_likelihood(theta):  # one observation, 0.8, with noise of standard deviation 0.5
    ...     return stats.norm.logpdf(0.8, theta[:, 0], 0.5)
    >>> rng = np.random.default_rng(0)
    >>> samples, info = nested(log_likelihood, prior, 50, rng, nlive=50)
    >>> samples.shape
    (50, 1)
    >>> exact = stats.norm.logpdf(0.8, 0, (1 + 0.5**2) ** 0.5)
    >>> bool(abs(info.log_evidence - exact) < 4 * info.log_evidence_error)
    True
    """
    if np.all(prior.discrete):
        raise ValueError(
            "Nested sampling needs a continuous parameter, along which the likelihood can rise "
            "gradually; got discrete ones only. Use sampler='enumerate', which is exact."
        )
    kind = dynesty.DynamicNestedSampler if dynamic else dynesty.NestedSampler
    names_for_run = _argument_names(kind.run_nested)
    run_options = {name: options.pop(name) for name in list(options) if name in names_for_run}
    size = max(1, nlive // 10) if queue_size is None else queue_size
    resume = resume and checkpoint_file is not None and os.path.exists(checkpoint_file)
    with BatchPool(size) as pool:
        if resume:
            sampler = _restore(kind, checkpoint_file, log_likelihood, pool)
        else:
            sampler = _create(kind, log_likelihood, prior, pool, nlive=nlive, rstate=rng, **options)
        if checkpoint_file is not None:
            run_options["checkpoint_file"] = os.fspath(checkpoint_file)
        if not (resume and _is_finished(sampler)):
            with tqdm(desc="nested", unit="point", **progress_options(verbose)) as bar:
                show = {"print_progress": not bar.disable}
                run_options = {"print_func": partial(print_fn, pbar=bar), **run_options}
                sampler.run_nested(resume=resume, **show, **run_options)
    return _equally_weighted(sampler.results, n_samples, rng)


def _argument_names(run_nested: Callable[..., Any]) -> set[str]:
    """Return the arguments of dynesty's ``run_nested`` that the user may give."""
    return set(inspect.signature(run_nested).parameters) - {"self", "print_progress", "resume"}


def _create(
    kind: Any, log_likelihood: LogLikelihood, prior: Prior, pool: BatchPool, **options: Any
) -> Any:
    """Return a new sampler of dynesty."""
    functions = Batched(log_likelihood), Batched(prior.ppf)
    pooled = {"pool": pool, "queue_size": pool.size} if pool.size > 1 else {}
    return kind(*functions, ndim=len(prior.names), **pooled, **options)


def _restore(
    kind: Any, path: str | os.PathLike[str], log_likelihood: LogLikelihood, pool: BatchPool
) -> Any:
    """Return the sampler of a checkpoint, if it belongs to the same likelihood."""
    sampler = kind.restore(os.fspath(path), pool=pool if pool.size > 1 else None)
    saved = sampler.loglikelihood.loglikelihood.func.function
    if saved != log_likelihood:
        raise ValueError(
            f"The checkpoint {os.fspath(path)!r} belongs to another estimator or observation. Give "
            "another checkpoint_file, or delete this one to start afresh."
        )
    return sampler


def _is_finished(sampler: Any) -> bool:
    """Whether the run of a checkpoint had already ended."""
    if isinstance(sampler, dynesty.DynamicNestedSampler):
        return sampler.internal_state.name == "RUN_DONE"
    return sampler.added_live


def _equally_weighted(
    results: Any, n_samples: int, rng: np.random.Generator
) -> tuple[Array, SamplerInfo]:
    """Return draws with equal weights from dynesty's weighted points, and what the run found."""
    remedy = "Raise nlive (or n_effective, with dynamic=True)."
    weights = results.importance_weights()
    samples, ess, message = systematic_resample(results.samples, weights, n_samples, rng, remedy)
    info = SamplerInfo(
        "nested",
        n_calls=int(np.sum(results.ncall)),
        log_evidence=float(results.logz[-1]),
        log_evidence_error=float(results.logzerr[-1]),
        ess=np.full(samples.shape[1], ess),
        results=results,
        warnings=() if message is None else (message,),
    )
    return samples, info


class Batched:
    """A function of many rows that can be called with one row, as dynesty calls it.

    Inside a `BatchPool`, the calls of all tasks are gathered into one call of the function.

    Parameters
    ----------
    function : callable
        Maps an array (m, ...) to m values.

    Examples
    --------
    >>> squared_norm = Batched(lambda rows: (rows**2).sum(axis=1))
    >>> float(squared_norm(np.array([3.0, 4.0])))
    25.0
    """

    def __init__(self, function: Callable[[Array], Array]) -> None:
        self.function = function

    def __call__(self, row: Array) -> Any:
        """Evaluate one row."""
        evaluate = getattr(_CURRENT_TASK, "evaluate", None)
        return self.function(row[None])[0] if evaluate is None else evaluate(self, row)


class BatchPool:
    """A pool of threads for dynesty, which evaluates the `Batched` calls of its tasks together.

    A task that calls a `Batched` function waits. When all running tasks wait, one call of the
    function answers all of them. The result of a task does not depend on the other tasks.

    Parameters
    ----------
    size : int
        Number of tasks that run at a time.

    Examples
    --------
    >>> sizes = []
    >>> def squared_norm(rows):
    ...     sizes.append(len(rows))
    ...     return (rows**2).sum(axis=1)
    >>> with BatchPool(2) as pool:
    ...     values = pool.map(Batched(squared_norm), np.ones((3, 4)))
    >>> [float(value) for value in values], sizes
    ([4.0, 4.0, 4.0], [2, 1])
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __enter__(self) -> Self:
        self.threads = ThreadPoolExecutor(self.size)
        return self

    def __exit__(self, *error: object) -> None:
        self.threads.shutdown()

    def map(self, task: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """Return [task(item) for item in items].

        An exception in a `Batched` function ends every running task and is then raised.
        """
        items, results = list(items), []
        for start in range(0, len(items), self.size):
            results += self._run_together(task, items[start : start + self.size])
        return results

    def _run_together(self, task: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """Run one task for each item at the same time."""
        requests: SimpleQueue[_Request] = SimpleQueue()
        replies: list[SimpleQueue[Any]] = [SimpleQueue() for _ in items]
        futures = [
            self.threads.submit(_run_task, task, item, i, requests, replies[i])
            for i, item in enumerate(items)
        ]
        failure = _answer_until_all_end(requests, replies)
        if failure is not None:
            raise failure
        return [future.result() for future in futures]


class _Request(NamedTuple):
    """A task's call of a `Batched` function, or, without a function, the end of the task."""

    task: int
    function: Batched | None = None
    row: Array | None = None


def _run_task(
    task: Callable[[Any], Any],
    item: Any,
    i: int,
    requests: SimpleQueue[_Request],
    replies: SimpleQueue[Any],
) -> Any:
    """Run task number i in a thread of the pool; its `Batched` calls become requests."""

    def evaluate(function: Batched, row: Array) -> Any:
        requests.put(_Request(i, function, row))
        reply = replies.get()
        if isinstance(reply, BaseException):
            raise reply
        return reply

    _CURRENT_TASK.evaluate = evaluate
    try:
        return task(item)
    finally:
        del _CURRENT_TASK.evaluate
        requests.put(_Request(i))


def _answer_until_all_end(
    requests: SimpleQueue[_Request], replies: Sequence[SimpleQueue[Any]]
) -> BaseException | None:
    """Answer the requests of all tasks together, until every task has ended.

    Return the exception that a function raised, or None. From then on, each request is answered
    with the exception, so that every task ends.
    """
    n_running = len(replies)
    failure: BaseException | None = None
    while n_running:
        waiting: list[_Request] = []
        while len(waiting) < n_running:
            try:
                request = requests.get()
            except KeyboardInterrupt as error:
                failure = error
                continue
            if request.function is None:
                n_running -= 1
            else:
                waiting.append(request)
        try:
            answers = _evaluate(waiting) if failure is None else [failure] * len(waiting)
        except BaseException as error:
            failure = error
            answers = [error] * len(waiting)
        for request, answer in zip(waiting, answers, strict=True):
            replies[request.task].put(answer)
    return failure


def _evaluate(requests: Sequence[_Request]) -> list[Any]:
    """Call each function once, with its rows in the order of the tasks; return the answers."""
    values: dict[int, Any] = {}
    for function in {id(request.function): request.function for request in requests}.values():
        tasks = {request.task: request.row for request in requests if request.function is function}
        rows = np.stack([tasks[task] for task in sorted(tasks)])
        values |= dict(zip(sorted(tasks), function.function(rows), strict=True))
    return [values[request.task] for request in requests]
