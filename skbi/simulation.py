"""Simulate at scale: theta_i ~ p(theta), x_i ~ g(theta_i), on every core, failures and all."""

from __future__ import annotations

import json
import warnings
from collections import Counter
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
from scipy import stats
from tqdm.auto import tqdm

from skbi._store import Memory, Store, describe, seed_of
from skbi._tasks import BLOCK, Failure, Outcome, Task, by_row, run
from skbi.priors import Prior, RandomState, as_generator
from skbi.simulators import FunctionSimulator

__all__ = ["SimulationReport", "simulate", "simulate_at"]

_SECONDS = 0.5  # that a task should take: scheduling one costs about a millisecond
_LEAST_SECONDS = 0.02  # towards the end, where tasks get smaller so that workers end together
_MOST_BYTES = 5e7  # of a task's results
_TASKS_A_SECOND = 100  # that one process should have to hand out
_HOPELESS = 100  # simulations in a row that fail before any succeeds


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
    """Draw training pairs: theta from the prior, X from the simulator at each theta.

    Every simulation has a seed of its own, drawn before the work is split: pairs do not depend on
    ``n_jobs``, ``batch_size``, the backend of joblib, or on a run having been killed and resumed.

    Parameters
    ----------
    prior : JointPrior or an object with its methods
    simulator : callable, or object with ``transform(theta)``
        A function of one row of theta is taken as ``FunctionSimulator(function)``. A transformer
        (also a vectorized `FunctionSimulator`) simulates 1,000 rows at a time; if it has a
        ``random_state`` parameter, a copy with a seed of its own does each thousand.
    n_samples : int
        Number of simulations.
    n_jobs : int or None, default=None
        Parallel jobs, through joblib: ``joblib.parallel_config(backend="dask")`` takes a cluster.
    batch_size : int or "auto", default="auto"
        Simulations a task (whole thousands, where those go together). "auto" measures: half a
        second each, less towards the end.
    random_state : int, Generator, RandomState or None, default=None
        The only source of randomness. None goes on with the seed of an existing ``store``.
    nuisance : sequence of str, default=()
        Parameters that are drawn and passed to the simulator but left out of theta: the posterior
        of the others is then marginal over them. Their prior is ``prior.without(*nuisance)``.
    on_error : {"raise", "drop", "nan"}, default="raise"
        What becomes of a simulation that fails: by an exception, NaN or infinite numbers, a shape
        unlike the first's, the time limit, or the death of its worker. "raise" stops (a ``store``
        keeps the others); "drop" leaves the pair out; "nan" keeps theta and fills X with NaN (a
        set among sets of several sizes becomes empty).
    missing : {"error", "mask"}, default="error"
        "mask" takes NaN for missing entries, as ``NPEEstimator(missing="mask")`` does, unless
        nothing else is there. Rows of a set that are all NaN always mean "no point here".
    timeout : float or None, default=None
        Seconds that a simulation may take (times the rows, for a vectorized simulator). See Notes.
    store : path or None, default=None
        A folder for the results. A run that was killed goes on where it stopped, a complete one
        opens; both X and theta are then memory-mapped. See Notes.
    verbose : int, default=0
        1 shows a progress bar with the rate and the remaining time.
    return_report : bool, default=False
        Also return which simulations failed, how, and whether that depends on theta.

    Returns
    -------
    theta : ndarray, shape (n, p)
        n is n_samples, less the failed ones with ``on_error="drop"``.
    X : ndarray, shape (n, d) or (n, S, d), or an object array of n sets (S_i, d)
    report : SimulationReport
        If ``return_report``.

    Raises
    ------
    RuntimeError
        If a simulation fails and ``on_error="raise"``, or if the first 100 all do. Its theta and
        the error of the simulator are shown.
    ValueError
        If an option cannot be used, or the store holds another prior, simulator or seed.

    Warns
    -----
    UserWarning
        If simulations failed and no report was asked for; or if failures depend on theta. Leaving
        them out then changes the prior that NPE learns with.

    Notes
    -----
    *Time limits* stop Python code and waiting (``subprocess.run`` ends its program) where tasks run
    in the main thread of a process: without n_jobs, and in workers of joblib's default backend,
    which are ended if they do not stop for as long again. In threads (Dask's workers) a simulation
    is given up and goes on in the background.

    *A worker that dies*, by a crash or for want of memory, costs what it was doing. joblib's
    default backend starts another, and from then on simulations run in child processes, so that one
    that dies is missed alone (not on Windows). Dask does elsewhere what a lost worker was doing;
    but after a simulation has ended four workers the run waits in vain: stop it, and find the
    simulation with the default backend. Without n_jobs, a crash ends the program.

    *A store* holds ``X.npy``, ``theta.npy`` (and ``sizes.npy``, for sets of several sizes, which
    X.npy holds one after another), readable by ``numpy.load(..., mmap_mode="r")``, and
    ``store.json`` with checksums, which are compared at every opening. While it grows, chunks are
    written every second; once complete they are put in order, which takes as much disk again.
    The simulator is recognised by its parameters and the code of its functions, but not of
    functions that these call.

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
    simulator, kept = _as_simulator(simulator), _others(prior, nuisance)
    seed = random_state if store is None else seed_of(store, random_state)
    rng = as_generator(seed)
    theta = prior.sample(n_samples, random_state=rng)
    plan = _Plan(theta, simulator, _seeds(n_samples, rng), n_jobs, batch_size, missing, timeout)
    results = Memory(n_samples) if store is None else _open(store, plan, prior, nuisance, seed)
    plan.carry_out(results, on_error, verbose)
    report = SimulationReport.of(results.failures, theta, prior.names)
    if on_error != "raise":
        report.warn(unless_known=return_report)
    pairs = results.finish(theta[:, kept], on_error)
    return (*pairs, report) if return_report else pairs


def simulate_at(
    theta: NDArray[np.float64], simulator: Any, *, n_jobs: int | None, rng: np.random.Generator
) -> NDArray[Any]:
    """Simulate at given theta (n, p), (n, ...); NaN are let pass."""
    simulator, seeds = _as_simulator(simulator), _seeds(len(theta), rng)
    results = Memory(len(theta))
    _Plan(theta, simulator, seeds, n_jobs, "auto", "mask", None).carry_out(results, "raise", 0)
    return results.finish(theta, "raise")[1]


@dataclass(frozen=True)
class SimulationReport:
    """Which simulations failed, how, and whether that depends on theta.

    Attributes
    ----------
    n_samples : int
        Simulations, failed ones included.
    names : tuple of str
        Of all parameters, nuisance included.
    rows : ndarray of int, shape (k,)
        The simulations that failed.
    theta : ndarray, shape (k, p)
        Their parameters, nuisance included.
    kinds : ndarray of str, shape (k,)
        "exception", "nan", "infinite", "shape", "timeout" or "killed".
    first : dict of str to str
        What was said of the first failure of each kind: of exceptions, the traceback.
    p_values : ndarray, shape (p,)
        Of each parameter having the same distribution whether or not simulations fail, by a
        Kolmogorov-Smirnov test; 1 without failures.
    """

    n_samples: int
    names: tuple[str, ...]
    rows: NDArray[np.int64]
    theta: NDArray[np.float64]
    kinds: NDArray[np.str_]
    first: dict[str, str]
    p_values: NDArray[np.float64]

    @classmethod
    def of(
        cls, failures: list[Failure], theta: NDArray[np.float64], names: Sequence[str]
    ) -> SimulationReport:
        """Summarise failures among simulations at theta (n_samples, p)."""
        failures = sorted(failures)
        rows = np.array([failure.row for failure in failures], dtype=np.int64)
        first = {failure.kind: failure.message for failure in reversed(failures) if failure.message}
        kinds, p_values = np.array([f.kind for f in failures], dtype=str), _compare(theta, rows)
        return cls(len(theta), tuple(names), rows, theta[rows], kinds, first, p_values)

    @property
    def share(self) -> float:
        """Share of simulations that failed."""
        return len(self.rows) / self.n_samples

    @property
    def depends_on(self) -> list[str]:
        """Parameters that failing depends on, at a level of 0.001 over all."""
        limit = 1e-3 / len(self.names)
        return [name for name, p in zip(self.names, self.p_values, strict=True) if p < limit]

    def __str__(self) -> str:
        lines = [f"{len(self.rows)} of {self.n_samples} simulations failed ({self.share:.2%})"]
        for kind, count in Counter(self.kinds.tolist()).most_common():
            theta = self.theta[np.argmax(self.kinds == kind)]
            lines.append(
                f"{kind}: {count}, first at {_at(theta, self.names)}: {_end(self.first[kind])}"
            )
        for name in self.depends_on:
            low, high = np.quantile(self.theta[:, self.names.index(name)], [0.05, 0.95])
            lines.append(f"depends on {name}: 90 % of the failed have {low:.3g} to {high:.3g}")
        return "\n".join(lines)

    def warn(self, *, unless_known: bool) -> None:
        """Warn of failures, and of what their dependence on theta does to NPE."""
        if self.depends_on:
            warnings.warn(
                f"Whether a simulation fails depends on theta. Without the failed ones NPE learns "
                "with another prior, which favours theta that seldom fail: mend the simulator, or "
                f"narrow the prior to where it works.\n{self}",
                stacklevel=3,
            )
        elif len(self.rows) and not unless_known:
            warnings.warn(str(self), stacklevel=3)


def _compare(theta: NDArray[np.float64], failed: NDArray[np.int64]) -> NDArray[np.float64]:
    """p-value of each parameter being distributed alike among failed and other simulations."""
    if not 0 < len(failed) < len(theta):
        return np.ones(theta.shape[1])
    others = np.delete(theta, failed, axis=0)
    return stats.ks_2samp(theta[failed], others, method="asymp").pvalue


def _at(theta: NDArray[np.float64], names: Sequence[str]) -> str:
    return ", ".join(f"{name} = {value:.6g}" for name, value in zip(names, theta, strict=True))


def _end(message: str) -> str:
    return message.splitlines()[-1]


# ---- dealing out the work


@dataclass
class _Plan:
    """All simulations of a run, and what is seen of them on the way."""

    theta: NDArray[np.float64]
    simulator: Any
    seeds: NDArray[np.int64]
    n_jobs: int | None
    batch_size: int | str
    missing: str
    timeout: float | None
    seconds: float = _SECONDS  # that a simulation takes
    n_bytes: float = 8.0  # of what it gives
    guarded: bool = False

    def carry_out(self, results: Memory, on_error: str, verbose: int) -> None:
        """Simulate what is not yet done."""
        done = int(np.count_nonzero(results.sizes >= 0))
        options = {"total": len(self.theta), "initial": done, "disable": not verbose}
        with (
            tqdm(desc="simulate", unit="simulation", **options) as bar,
            closing(self._outcomes(results)) as outcomes,
            _flushed(results),
        ):
            for outcome in outcomes:
                if outcome.failures and on_error == "raise":
                    raise RuntimeError(self._explain(outcome.failures[0]))
                results.add(outcome)
                bar.update(outcome.stop - outcome.start)
                if results.kind is None and len(results.failures) >= min(
                    _HOPELESS, len(self.theta)
                ):
                    raise RuntimeError("None succeeded: " + self._explain(results.failures[0]))

    def _outcomes(self, results: Memory) -> Iterator[Outcome]:
        """Simulate in parallel until all is done, guarded from when a worker has died."""
        while (pending := np.count_nonzero(results.sizes < 0)) > 0:
            try:
                yield from self._in_parallel(results)
            except BrokenExecutor:
                if self.guarded and pending == np.count_nonzero(results.sizes < 0):
                    raise
                self.guarded = True

    def _in_parallel(self, results: Memory) -> Iterator[Outcome]:
        """Yield outcomes as they come; what is under way when the loop is left is cancelled."""
        n_jobs = effective_n_jobs(self.n_jobs)
        outcomes = _as_completed(self.n_jobs, self._calls(results, n_jobs), 4 * n_jobs)
        try:
            for outcome in outcomes:
                self.seconds = max(1e-9, outcome.seconds / (outcome.stop - outcome.start))
                self.n_bytes = max(8.0, outcome.X.nbytes / (outcome.stop - outcome.start))
                yield outcome
        finally:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "[0-9]+ tasks", UserWarning)
                outcomes.close()

    def _calls(self, results: Memory, n_jobs: int) -> Iterator[Any]:
        """Cut what is left into calls, sized by what was seen by the time that each is due.

        Until one has succeeded, which shows what results look like, they go one by one.
        """
        pending = np.diff(results.sizes < 0, prepend=False, append=False)
        left, alone = int(np.count_nonzero(results.sizes < 0)), results.kind is None
        for start, stop in np.flatnonzero(pending).reshape(-1, 2).tolist():
            while start < stop:
                size = 1 if alone else self._size(left, n_jobs)
                end = min(stop, self._end(start, size))
                yield delayed(run)(self._task(start, end, results))
                if alone:
                    return
                left, start = left - (end - start), end

    def _size(self, left: int, n_jobs: int) -> int:
        if self.batch_size != "auto":
            return self.batch_size
        longest = max(_SECONDS, n_jobs / _TASKS_A_SECOND) / self.seconds
        shortest = _LEAST_SECONDS / self.seconds
        size = min(longest, max(shortest, left / (4 * n_jobs)), _MOST_BYTES / self.n_bytes)
        return max(1, int(size))

    def _end(self, start: int, size: int) -> int:
        """Where a task of about so many rows ends: blocks are not divided."""
        if not by_row(self.simulator):
            size = -(-(start + size) // BLOCK) * BLOCK - start
        return min(start + size, len(self.theta))

    def _task(self, start: int, stop: int, results: Memory) -> Task:
        theta, n = self.theta[start:stop], len(self.theta)
        seeds = tuple(self.seeds[start // BLOCK : -(-stop // BLOCK)].tolist())
        options = results.kind, self.missing, self.timeout, self.guarded
        return Task(self.simulator, theta, start, n, seeds, *options)

    def _explain(self, failure: Failure) -> str:
        return (
            f"Simulation {failure.row} failed ({failure.kind}) at theta = "
            f"{self.theta[failure.row].tolist()}:\n{failure.message}\n"
            "on_error='drop' or 'nan' goes on without those that fail."
        )


@contextmanager
def _flushed(results: Memory) -> Iterator[None]:
    try:
        yield
    finally:
        results.flush()


def _as_completed(n_jobs: int | None, calls: Iterator[Any], n_calls: int) -> Iterator[Outcome]:
    """Results as they come; of backends that cannot, ``n_calls`` at a time."""
    if get_active_backend()[0].supports_return_generator:
        options = {"pre_dispatch": "2*n_jobs", "return_as": "generator_unordered"}
        return Parallel(n_jobs=n_jobs, batch_size=1, **options)(calls)
    rounds = iter(lambda: list(islice(calls, n_calls)), [])
    return (outcome for some in rounds for outcome in Parallel(n_jobs, batch_size=1)(some))


# ---- what is asked for


def _seeds(n_samples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return rng.integers(2**31, size=-(-n_samples // BLOCK))


def _as_simulator(simulator: Any) -> Any:
    if hasattr(simulator, "transform"):
        return simulator
    if callable(simulator):
        return FunctionSimulator(simulator)
    raise TypeError(
        "simulator must be a function of one row of theta, or have a transform(theta) method; got "
        f"{type(simulator).__name__}."
    )


def _others(prior: Prior, nuisance: Sequence[str]) -> list[int]:
    """Columns of the parameters that are not nuisance."""
    unknown = [name for name in nuisance if name not in prior.names]
    if isinstance(nuisance, str) or unknown or len(set(nuisance)) == len(prior.names):
        raise ValueError(
            f"nuisance must be a list of some, not all, of the parameters {tuple(prior.names)}; "
            f"got {nuisance!r}."
        )
    return [j for j, name in enumerate(prior.names) if name not in nuisance]


def _open(store: Any, plan: _Plan, prior: Prior, nuisance: Sequence[str], seed: Any) -> Store:
    told = type(prior).__repr__ is not object.__repr__
    made_by = {
        "n_samples": len(plan.theta),
        "prior": repr(prior) if told else type(prior).__qualname__,
        "random_state": joblib.hash((plan.theta, plan.seeds)),
        "simulator": describe(plan.simulator),
        "nuisance": list(nuisance),
        "missing": plan.missing,
    }
    seed = int(seed) if isinstance(seed, Integral) else None
    return Store(store, len(plan.theta), json.loads(json.dumps(made_by)), seed)


def _check_options(
    n_samples: Any, batch_size: Any, on_error: str, missing: str, timeout: float | None
) -> None:
    for name, value in {"n_samples": n_samples, "batch_size": batch_size}.items():
        whole = isinstance(value, Integral) and not isinstance(value, bool) and value > 0
        if not whole and (name, value) != ("batch_size", "auto"):
            raise ValueError(f"{name} must be a positive integer; got {value!r}.")
    if on_error not in ("raise", "drop", "nan"):
        raise ValueError(f"on_error must be 'raise', 'drop' or 'nan'; got {on_error!r}.")
    if missing not in ("error", "mask"):
        raise ValueError(f"missing must be 'error' or 'mask'; got {missing!r}.")
    if timeout is not None and not (isinstance(timeout, Real) and timeout > 0):
        raise ValueError(f"timeout must be a positive number of seconds or None; got {timeout!r}.")
