"""Simulation of training pairs in parallel: theta_i ~ p(theta), x_i ~ p(x | theta_i)."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from numbers import Integral, Real
from typing import Any

import joblib
import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from joblib.parallel import get_active_backend
from numpy.typing import NDArray
from tqdm.auto import tqdm

from skbi.priors import Prior, check_prior
from skbi.randomness import RandomState, as_generator
from skbi.simulation.report import SimulationReport
from skbi.simulation.seeding import names_of_own_generators
from skbi.simulation.simulators import FunctionSimulator
from skbi.simulation.store import Results, StoredResults, choose_seed, describe
from skbi.simulation.tasks import (
    ROWS_PER_BLOCK,
    Failure,
    Outcome,
    Task,
    run_task,
    simulates_by_row,
)

__all__ = ["check_on_error", "simulate", "simulate_at"]

_MAX_SECONDS_PER_TASK = 0.5  # much longer than joblib needs to hand out a task
_MIN_SECONDS_PER_TASK = 0.02
_MAX_BYTES_PER_TASK = 5e7  # of the results that a worker sends back
_MAX_TASKS_PER_SECOND = 100  # handed out by this process to all workers together
_MAX_FAILURES_WITHOUT_SUCCESS = 100


def simulate(
    prior: Prior,
    simulator: Any,
    n_samples: int,
    *,
    n_jobs: int | None = None,
    batch_size: int | str = "auto",
    random_state: RandomState = None,
    nuisance: Sequence[str] = (),
    on_error: str = "raise",
    missing: str = "error",
    timeout: float | None = None,
    store: Any = None,
    verbose: int = 0,
    return_report: bool = False,
) -> Any:
    """Draw training pairs: theta from the prior, and X from the simulator at each theta.

    Every simulation has a seed of its own, which is drawn before the work is split. The pairs
    therefore do not depend on ``n_jobs``, on ``batch_size``, on joblib's backend, or on whether the
    run was killed and resumed.

    Parameters
    ----------
    prior : JointPrior, or any other `Prior`
    simulator : callable, or object with a method ``transform(theta)``
        A function of one row of theta stands for ``FunctionSimulator(function)``. An object with
        ``transform``, such as a vectorized `FunctionSimulator`, simulates blocks of 1,000 rows. If
        it has a parameter ``random_state``, each block is simulated by a copy with its own seed.
    n_samples : int
        Number of simulations.
    n_jobs : int or None, default=None
        Number of parallel jobs, which joblib runs. Inside
        ``joblib.parallel_config(backend="dask")`` they run on a Dask cluster.
    batch_size : int or "auto", default="auto"
        Number of simulations that a worker is given at a time. Simulators of blocks are given whole
        blocks. "auto" measures the simulator and chooses the number so that it takes about half a
        second, or less towards the end of the run.
    random_state : int, SeedSequence, Generator, RandomState or None, default=None
        The only source of randomness. With None, a run with a ``store`` uses the seed that is
        recorded there.
    nuisance : sequence of str, default=()
        Names of parameters that are drawn and passed to the simulator but left out of theta. The
        posterior of the other parameters is then marginal over them. The prior of the others is
        ``prior.without(*nuisance)``.
    on_error : {"raise", "drop", "nan"}, default="raise"
        What to do with a simulation that fails. It fails if it raises an exception, returns NaN or
        infinite numbers, returns another shape than the first one, exceeds the time limit, or kills
        its worker. "raise" stops the run (a ``store`` keeps the other pairs). "drop" leaves the
        pair out. "nan" keeps theta and fills X with NaN; if sets differ in size, the failed one is
        empty instead. Notes say what NPE and NLE learn without it.
    missing : {"error", "mask"}, default="error"
        Whether an observation with NaN has failed ("error"), or NaN are missing entries, as in
        ``NPEEstimator(missing="mask")`` ("mask"). An observation of nothing but NaN has failed in
        both cases. A row of a set that is all NaN always means "no point here".
    timeout : float or None, default=None
        Time limit of each simulation in seconds. The limit of n rows that are simulated together is
        n times as long. See Notes.
    store : path or None, default=None
        Folder for the results. If it holds an incomplete run, the run continues where it stopped.
        If it holds a complete run, its results are opened. X and theta are memory-mapped. See
        Notes.
    verbose : int, default=0
        1 shows a progress bar with the rate and the remaining time.
    return_report : bool, default=False
        Whether to return also a report on which simulations failed, how, and whether that depends
        on theta.

    Returns
    -------
    theta : ndarray, shape (n, p)
        n is ``n_samples``, or with ``on_error="drop"`` the number of successful simulations.
    X : ndarray, shape (n, d) or (n, S, d)
        If sets differ in size, an object array of n sets (S_i, d) instead.
    report : SimulationReport
        Only if ``return_report``.

    Raises
    ------
    RuntimeError
        If a simulation fails and ``on_error="raise"``, or if all of the first 100 fail. The message
        shows theta and the simulator's error.
    ValueError
        If an argument is invalid, or if the store was made with another prior, simulator or seed.
        Whatever ``on_error`` is, also if a simulation returns an array with four or more axes, or
        if a simulator of blocks turns out to be a function of one row.
    TypeError
        If the simulator is neither a function nor an object with a method ``transform``.

    Warns
    -----
    UserWarning
        If workers get copies of a generator that the simulator holds, whose noise then repeats.
        If failures depend on theta, with what NPE and NLE learn from the pairs that are left. Also
        if simulations failed and no report is returned.

    See Also
    --------
    simulate_models : Simulations of several models.
    sequential : Simulations in rounds, for one observation.

    Notes
    -----
    *Global generators.* Those of Python's random, numpy and torch are seeded for every simulation,
    so that simulators which draw from them repeat their results for every ``n_jobs``, and are put
    back at the end. As threads share them, this is so only in the main thread of a process, in
    which simulations run without ``n_jobs`` and in the workers of joblib's default backend. Fast
    simulators are spared the seeding, which takes 30 microseconds: simulations that turn out to
    draw from a global generator after others that did not are then done twice.

    *Failures.* Pairs without the failed simulations have the density p(theta, x | success). If
    failing is part of the model, so that data like the observed ones cannot have failed, then
    p(theta | x, success), which NPE learns, is the posterior. What NLE learns is p(x | theta,
    success), whose posterior lacks a factor P(success | theta). If failing is a flaw of the
    simulator, it is the other way round: NPE learns with the prior p(theta | success), and NLE
    learns the likelihood, unless failing depends on x as well.

    *Time limits.* A time limit interrupts Python code and waiting; ``subprocess.run`` then ends its
    program. This needs the main thread of a process, in which simulations run without ``n_jobs``
    and in the workers of joblib's default backend. Such a worker is ended if code in another
    language keeps it busy for as long again. In other threads, such as those of Dask's workers, a
    simulation that exceeds the limit counts as failed but goes on in the background.

    *Workers that die.* A crash or a lack of memory may kill a worker. joblib's default backend then
    starts a new one, and from then on simulations run in child processes, so that one that kills
    its process does not harm the others (not on Windows). Dask repeats the work of a lost worker on
    another one, but once a simulation has killed four workers the run waits forever. In that case
    stop it, and find the simulation with the default backend. Without ``n_jobs``, a crash ends the
    program.

    *Stores.* A store holds ``X.npy``, ``theta.npy`` and ``store.json``. If sets differ in size,
    ``X.npy`` holds the points of one set after another and ``sizes.npy`` the sizes. The arrays can
    be read by ``numpy.load(..., mmap_mode="r")``. ``store.json`` holds their checksums, which are
    compared whenever the store is opened. While the run goes on, results are written in chunks
    every second. In the end the chunks are put in order, which needs the same disk space again. A
    simulator is recognised by its parameters and by the code of its functions, but not by the code
    of functions that these call.

    Examples
    --------
    >>> from scipy import stats
    >>> from skbi import JointPrior
    >>> prior = JointPrior({"rate": stats.gamma(2), "noise": stats.uniform(0.1, 1)})
    >>> def counts(theta, rng):
    ...     rate, noise = theta
    ...     return rng.poisson(rate, size=20) + noise * rng.normal(size=20)
    >>> theta, X = simulate(prior, counts, 100, nuisance=["noise"], random_state=0)
    >>> theta.shape, X.shape, prior.without("noise")
    ((100, 1), (100, 20), JointPrior(rate: gamma(2)))
    """
    _check_options(n_samples, batch_size, on_error, missing, timeout)
    check_prior(prior)
    simulator, kept = _as_simulator(simulator), _columns_without(nuisance, prior)
    seed = random_state if store is None else choose_seed(store, random_state)
    rng = as_generator(seed)
    theta = prior.sample(n_samples, random_state=rng)
    seeds = _draw_block_seeds(n_samples, rng)
    run = _Run(theta, simulator, seeds, n_jobs, batch_size, missing, timeout)
    results = _open_results(store, run, prior, nuisance, seed)
    run.fill(results, on_error, verbose)
    report = SimulationReport.of(results.failures, theta, prior.names)
    message = None if on_error == "raise" else report.warning(is_returned=return_report)
    if message:
        warnings.warn(message, stacklevel=2)
    pairs = results.finish(theta[:, kept], on_error)
    return (*pairs, report) if return_report else pairs


def simulate_at(
    theta: NDArray[np.float64],
    simulator: Any,
    *,
    n_jobs: int | None,
    rng: np.random.Generator,
    on_error: str = "raise",
    missing: str = "mask",
) -> tuple[NDArray[Any], list[Failure]]:
    """Simulate an observation at each row of a given theta.

    Parameters
    ----------
    theta : ndarray, shape (n, p)
    simulator : callable, or object with a method ``transform(theta)``
        As in `simulate`.
    n_jobs : int or None
        Number of parallel jobs.
    rng : Generator
        The seeds of all simulations are drawn from it.
    on_error, missing : str
        As in `simulate`.

    Returns
    -------
    X : ndarray, shape (n, d) or (n, S, d), or an object array of n sets (S_i, d)
        With ``on_error="drop"``, n is the number of successful simulations.
    failures : list of Failure
        Sorted by row.

    Raises
    ------
    RuntimeError
        If a simulation fails and ``on_error="raise"``, or if all of the first 100 fail.
    """
    simulator, seeds = _as_simulator(simulator), _draw_block_seeds(len(theta), rng)
    run = _Run(theta, simulator, seeds, n_jobs, batch_size="auto", missing=missing, timeout=None)
    results = Results(len(theta))
    run.fill(results, on_error, verbose=0)
    return results.finish(theta, on_error)[1], sorted(results.failures)


@dataclass
class _Run:
    """All simulations of one call, and what is learnt about them on the way.

    ``theta`` (n, p) and ``seeds``, one for each block, are drawn before. The seconds and bytes of a
    simulation are measured. ``isolated`` is set when a worker has died.
    """

    theta: NDArray[np.float64]
    simulator: Any
    seeds: NDArray[np.int64]
    n_jobs: int | None
    batch_size: int | str
    missing: str
    timeout: float | None
    seconds_per_simulation: float = _MAX_SECONDS_PER_TASK
    bytes_per_simulation: float = 8.0
    isolated: bool = False

    def fill(self, results: Results, on_error: str, verbose: int) -> None:
        """Do the pending simulations and add them to the results."""
        self._warn_of_copied_generators()
        n_done = int(np.count_nonzero(~results.is_pending))
        options = {"total": len(self.theta), "initial": n_done, "disable": not verbose}
        with (
            tqdm(desc="simulate", unit="simulation", **options) as bar,
            closing(self._outcomes(results)) as outcomes,
            _flushed_at_exit(results),
        ):
            for outcome in outcomes:
                if outcome.failures and on_error == "raise":
                    raise RuntimeError(self._describe_failure(outcome.failures[0]))
                results.add(outcome)
                bar.update(outcome.stop - outcome.start)
                self._check_success(results)

    def _warn_of_copied_generators(self) -> None:
        names = names_of_own_generators(self.simulator)
        shares_memory = getattr(get_active_backend()[0], "supports_sharedmem", False)
        if names and effective_n_jobs(self.n_jobs) > 1 and not shares_memory:
            warnings.warn(
                f"The simulator draws from a generator of its own, {', '.join(names)}. Every "
                "worker gets copies of it, so that the same noise repeats in many simulations. "
                "Give the function an argument rng, and draw from that.",
                stacklevel=4,
            )

    def _check_success(self, results: Results) -> None:
        max_failures = min(_MAX_FAILURES_WITHOUT_SUCCESS, len(self.theta))
        if results.spec is None and len(results.failures) >= max_failures:
            raise RuntimeError("None succeeded: " + self._describe_failure(results.failures[0]))

    def _describe_failure(self, failure: Failure) -> str:
        return (
            f"Simulation {failure.row} failed ({failure.kind}) at theta = "
            f"{self.theta[failure.row].tolist()}:\n{failure.message}\n"
            "Use on_error='drop' or 'nan' to go on without the simulations that fail."
        )

    def _outcomes(self, results: Results) -> Iterator[Outcome]:
        """Yield outcomes until nothing is pending. After a worker has died, isolate simulations."""
        while (n_pending := np.count_nonzero(results.is_pending)) > 0:
            try:
                yield from self._outcomes_in_parallel(results)
            except BrokenExecutor:
                if self.isolated and n_pending == np.count_nonzero(results.is_pending):
                    raise
                self.isolated = True

    def _outcomes_in_parallel(self, results: Results) -> Iterator[Outcome]:
        """Yield outcomes as they come. Closing this iterator cancels the tasks under way."""
        n_jobs = effective_n_jobs(self.n_jobs)
        outcomes = _as_completed(self.n_jobs, self._calls(results, n_jobs), 4 * n_jobs)
        try:
            for outcome in outcomes:
                n = outcome.stop - outcome.start
                self.seconds_per_simulation = max(1e-9, outcome.seconds / n)
                self.bytes_per_simulation = max(8.0, outcome.X.nbytes / n)
                yield outcome
        finally:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "[0-9]+ tasks", UserWarning)
                outcomes.close()

    def _calls(self, results: Results, n_jobs: int) -> Iterator[Any]:
        """Divide the pending simulations into tasks, and yield a call of `run_task` for each.

        Every task is made only when it is due, so that its size follows the latest measurements.
        Until a simulation has succeeded, which shows what an observation looks like, this yields
        only one task, as small as possible.
        """
        is_pending = results.is_pending
        edges = np.flatnonzero(np.diff(is_pending, prepend=False, append=False))
        n_left, no_success_yet = int(np.count_nonzero(is_pending)), results.spec is None
        for start, stop in edges.reshape(-1, 2).tolist():
            while start < stop:
                size = 1 if no_success_yet else self._choose_size(n_left, n_jobs)
                end = min(stop, self._end_of_task(start, size))
                yield delayed(run_task)(self._task(start, end, results))
                if no_success_yet:
                    return
                n_left, start = n_left - (end - start), end

    def _choose_size(self, n_left: int, n_jobs: int) -> int:
        """Choose the number of simulations in the next task.

        Towards the end tasks get smaller, so that all workers end at about the same time.
        """
        if self.batch_size != "auto":
            return self.batch_size
        max_seconds = max(_MAX_SECONDS_PER_TASK, n_jobs / _MAX_TASKS_PER_SECOND)
        max_size = max_seconds / self.seconds_per_simulation
        min_size = _MIN_SECONDS_PER_TASK / self.seconds_per_simulation
        max_size_in_memory = _MAX_BYTES_PER_TASK / self.bytes_per_simulation
        size = min(max_size, max(min_size, n_left / (4 * n_jobs)), max_size_in_memory)
        return max(1, int(size))

    def _end_of_task(self, start: int, size: int) -> int:
        """Return where a task of about this size ends. Blocks are not divided."""
        if not simulates_by_row(self.simulator):
            size = -(-(start + size) // ROWS_PER_BLOCK) * ROWS_PER_BLOCK - start
        return min(start + size, len(self.theta))

    def _task(self, start: int, stop: int, results: Results) -> Task:
        theta, n_samples = self.theta[start:stop], len(self.theta)
        seeds = self.seeds[start // ROWS_PER_BLOCK : -(-stop // ROWS_PER_BLOCK)]
        options = results.spec, self.missing, self.timeout, self.isolated
        return Task(self.simulator, theta, start, n_samples, tuple(seeds.tolist()), *options)


@contextmanager
def _flushed_at_exit(results: Results) -> Iterator[None]:
    try:
        yield
    finally:
        results.flush()


def _as_completed(n_jobs: int | None, calls: Iterator[Any], n_calls: int) -> Iterator[Outcome]:
    """Make calls in parallel and yield their results as they come.

    For backends of joblib that cannot do this, ``n_calls`` at a time are made and waited for.
    """
    if get_active_backend()[0].supports_return_generator:
        options = {"pre_dispatch": "2*n_jobs", "return_as": "generator_unordered"}
        return Parallel(n_jobs=n_jobs, batch_size=1, **options)(calls)
    groups = iter(lambda: list(islice(calls, n_calls)), [])
    return (outcome for group in groups for outcome in Parallel(n_jobs, batch_size=1)(group))


def _draw_block_seeds(n_samples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return rng.integers(2**31, size=-(-n_samples // ROWS_PER_BLOCK))


def _as_simulator(simulator: Any) -> Any:
    if hasattr(simulator, "transform"):
        return simulator
    if callable(simulator):
        return FunctionSimulator(simulator)
    raise TypeError(
        "simulator must be a function of one row of theta, or have a transform(theta) method; got "
        f"{type(simulator).__name__}."
    )


def _columns_without(nuisance: Sequence[str], prior: Prior) -> list[int]:
    """Return the columns of theta whose parameters are no nuisance parameters."""
    unknown = [name for name in nuisance if name not in prior.names]
    if isinstance(nuisance, str) or unknown or len(set(nuisance)) == len(prior.names):
        raise ValueError(
            f"nuisance must be a list of some, not all, of the parameters {tuple(prior.names)}; "
            f"got {nuisance!r}."
        )
    return [j for j, name in enumerate(prior.names) if name not in nuisance]


def _open_results(
    store: Any, run: _Run, prior: Prior, nuisance: Sequence[str], seed: Any
) -> Results:
    """Return empty results in memory, or those in the store if there is one."""
    if store is None:
        return Results(len(run.theta))
    has_repr = type(prior).__repr__ is not object.__repr__
    made_by = {
        "n_samples": len(run.theta),
        "prior": repr(prior) if has_repr else type(prior).__qualname__,
        "random_state": joblib.hash((run.theta, run.seeds)),
        "simulator": describe(run.simulator),
        "nuisance": list(nuisance),
        "missing": run.missing,
    }
    seed = int(seed) if isinstance(seed, Integral) else None
    return StoredResults(store, len(run.theta), json.loads(json.dumps(made_by)), seed)


def _check_options(
    n_samples: Any, batch_size: Any, on_error: str, missing: str, timeout: float | None
) -> None:
    for name, value in {"n_samples": n_samples, "batch_size": batch_size}.items():
        is_whole = isinstance(value, Integral) and not isinstance(value, bool) and value > 0
        if not is_whole and (name, value) != ("batch_size", "auto"):
            alternative = " or 'auto'" if name == "batch_size" else ""
            raise ValueError(f"{name} must be a positive integer{alternative}; got {value!r}.")
    check_on_error(on_error)
    if missing not in ("error", "mask"):
        raise ValueError(f"missing must be 'error' or 'mask'; got {missing!r}.")
    if timeout is not None and not (isinstance(timeout, Real) and timeout > 0):
        raise ValueError(f"timeout must be a positive number of seconds or None; got {timeout!r}.")


def check_on_error(on_error: Any) -> None:
    """Refuse an ``on_error`` that `simulate` does not know."""
    if on_error not in ("raise", "drop", "nan"):
        raise ValueError(f"on_error must be 'raise', 'drop' or 'nan'; got {on_error!r}.")
