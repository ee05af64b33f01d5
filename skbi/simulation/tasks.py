"""Tasks: a worker simulates consecutive rows of theta and reports which simulations failed.

Rows form blocks of 1,000, each with a seed. A row that is simulated on its own uses a child of its
block's seed, and a block that is simulated together uses the seed itself. Results therefore do not
depend on how rows are divided among workers.
"""

from __future__ import annotations

import copy
import faulthandler
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skbi.simulation.simulators import FunctionSimulator, stack_observations

__all__ = [
    "ROWS_PER_BLOCK",
    "Failure",
    "ObservationSpec",
    "Outcome",
    "Task",
    "call_within",
    "run_task",
    "simulates_by_row",
]

ROWS_PER_BLOCK = 1000


class ObservationSpec(NamedTuple):
    """The dtype and the shape of one observation, with None for the number of points in a set."""

    dtype: str
    shape: tuple[int | None, ...]

    @classmethod
    def of(cls, x: NDArray[Any]) -> ObservationSpec:
        """Describe a vector (d,), a set (S, d) or an array with more axes."""
        return cls(x.dtype.str, (None, x.shape[1]) if x.ndim == 2 else x.shape)

    def matches(self, x: NDArray[Any]) -> bool:
        """Whether an observation has this shape and is not empty."""
        return ObservationSpec.of(x).shape == self.shape and x.size > 0


class Failure(NamedTuple):
    """A simulation that gave no usable observation.

    ``kind`` is "exception", "nan", "infinite", "shape", "timeout" or "killed". Of the failures of
    one kind in a task, only the first has a message.
    """

    row: int
    kind: str
    message: str


class Task(NamedTuple):
    """Consecutive simulations for one worker.

    Attributes
    ----------
    simulator : object with ``transform(theta)``
    theta : ndarray, shape (k, p)
        Parameters of the rows from ``start`` on.
    start : int
        Position of the first row among all rows of the run.
    n_samples : int
        Number of rows of the run.
    seeds : tuple of int
        Seeds of the blocks that hold the rows of the task.
    spec : ObservationSpec or None
        What every observation must look like. None means that it must look like the first one.
    missing : {"error", "mask"}
        Whether an observation with some NaN counts as failed.
    timeout : float or None
        Time limit of each simulation in seconds.
    isolated : bool
        Whether to simulate in a child process. If a simulation kills that process, only its own
        result is lost.
    """

    simulator: Any
    theta: NDArray[np.float64]
    start: int
    n_samples: int
    seeds: tuple[int, ...]
    spec: ObservationSpec | None
    missing: str
    timeout: float | None
    isolated: bool

    @property
    def stop(self) -> int:
        """The position after the last row."""
        return self.start + len(self.theta)

    def seed(self, row: int) -> int:
        """Return the seed of the block that holds a row."""
        return self.seeds[row // ROWS_PER_BLOCK - self.start // ROWS_PER_BLOCK]

    def subtask(self, start: int, stop: int) -> Task:
        """Return the task of the rows from ``start`` to ``stop``."""
        theta = self.theta[start - self.start : stop - self.start]
        first = start // ROWS_PER_BLOCK - self.start // ROWS_PER_BLOCK
        n_blocks = -(-stop // ROWS_PER_BLOCK) - start // ROWS_PER_BLOCK
        seeds = self.seeds[first : first + n_blocks]
        return self._replace(start=start, theta=theta, seeds=seeds)

    def blocks(self) -> Iterator[Task]:
        """Divide the task into one for each block that it holds rows of."""
        second = self.start - self.start % ROWS_PER_BLOCK + ROWS_PER_BLOCK
        edges = [self.start, *range(second, self.stop, ROWS_PER_BLOCK), self.stop]
        return (self.subtask(*pair) for pair in pairwise(edges))

    def halves(self) -> tuple[Task, Task]:
        """Divide the task in the middle."""
        middle = (self.start + self.stop) // 2
        return self.subtask(self.start, middle), self.subtask(middle, self.stop)


@dataclass
class Outcome:
    """Observations and failures of a task.

    Attributes
    ----------
    start, stop : int
        The task's first row, and the row after its last.
    rows : ndarray of int, shape (k,)
        Rows that gave an observation.
    X : ndarray, shape (k, ...) or (N, d)
        Their observations. Of sets, the N points of all of them, one set after another.
    sizes : ndarray of int, shape (k,), or None
        Number of points in each set. None unless observations are sets.
    spec : ObservationSpec or None
        What an observation looks like, once one is known.
    failures : list of Failure
        Sorted by row.
    seconds : float
        Time that the task took.
    """

    start: int
    stop: int
    rows: NDArray[np.int64]
    X: NDArray[Any]
    sizes: NDArray[np.int64] | None
    spec: ObservationSpec | None
    failures: list[Failure]
    seconds: float = 0.0


def simulates_by_row(simulator: Any) -> bool:
    """Whether rows are simulated one by one, rather than a block at a time by ``transform``."""
    return isinstance(simulator, FunctionSimulator) and not simulator.vectorized


def run_task(task: Task) -> Outcome:
    """Simulate all rows of a task."""
    began = time.perf_counter()
    isolated = task.isolated and hasattr(os, "fork")
    results = list(_simulate_isolated(task) if isolated else _simulate(task))
    failures = [result for result in results if isinstance(result, Failure)]
    successes = [result for result in results if not isinstance(result, Failure)]
    rows = np.array([row for some_rows, _ in successes for row in some_rows], dtype=np.int64)
    spec, X, sizes = task.spec, np.empty(0), None
    if successes:
        X = _concatenate([X for _, X in successes])
        spec, X, flaws = _remove_flawed(X, spec, task.missing)
        failures += [Failure(int(rows[i]), *flaw) for i, flaw in flaws.items()]
        rows = np.delete(rows, list(flaws))
        X, sizes = _pack(X, spec) if len(rows) else (np.empty(0), None)
    failures, seconds = _sort_and_shorten(failures), time.perf_counter() - began
    return Outcome(task.start, task.stop, rows, X, sizes, spec, failures, seconds)


# What `_simulate` yields: consecutive rows with their observations, or the failure of one row.
_Result = Failure | tuple[range, NDArray[Any]]


def _simulate(task: Task) -> Iterator[_Result]:
    """Simulate in the order of the rows."""
    if simulates_by_row(task.simulator):
        simulate_row = partial(_simulate_row, task, task.simulator.takes_rng)
        return map(simulate_row, range(task.start, task.stop), task.theta)
    return chain.from_iterable(map(_simulate_block, task.blocks()))


def _simulate_row(task: Task, takes_rng: bool, row: int, theta: NDArray[np.float64]) -> _Result:
    seed = task.seed(row)
    rng = np.random.default_rng(_child_seed(seed, row)) if takes_rng else None
    result = _attempt(row, task.timeout, task.simulator.one, theta, rng)
    return result if isinstance(result, Failure) else (range(row, row + 1), result[None])


def _simulate_block(task: Task) -> Iterator[_Result]:
    """Simulate all rows together. If that fails, simulate halves, down to single rows."""
    timeout = None if task.timeout is None else task.timeout * len(task.theta)
    result = _attempt(task.start, timeout, _transform, task)
    if not isinstance(result, Failure):
        yield range(task.start, task.stop), result
    elif len(task.theta) == 1:
        yield result
    else:
        for half in task.halves():
            yield from _simulate_block(half)


def _transform(task: Task) -> NDArray[Any]:
    """Call the simulator's ``transform``, with a seed if it has a parameter ``random_state``."""
    simulator, start, stop = task.simulator, task.start, task.stop
    if hasattr(simulator, "get_params") and "random_state" in simulator.get_params(deep=False):
        seed = task.seed(start)
        is_whole_block = not start % ROWS_PER_BLOCK and stop == min(
            start + ROWS_PER_BLOCK, task.n_samples
        )
        if not is_whole_block:
            seed = int(_child_seed(seed, start, stop).generate_state(1)[0])
        simulator = copy.copy(simulator).set_params(random_state=seed)
    X = stack_observations(simulator.transform(task.theta))
    if len(X) != len(task.theta):
        raise ValueError(f"transform gave {len(X)} observations of {len(task.theta)} rows.")
    return X


def _child_seed(seed: int, *key: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=key)


def _simulate_isolated(task: Task) -> Iterator[_Result]:
    """Simulate in child processes, and start another one after the row that killed one."""
    start = task.start
    while start < task.stop:
        began = time.perf_counter()
        for result in _simulate_in_child(task.subtask(start, task.stop)):
            yield result
            start = result.row + 1 if isinstance(result, Failure) else result[0].stop
            began = time.perf_counter()
        if start < task.stop:  # the child has died
            rest, by_row = task.subtask(start, task.stop), simulates_by_row(task.simulator)
            suspects = rest.subtask(start, start + 1) if by_row else next(rest.blocks())
            yield from _find_fatal_row(suspects, time.perf_counter() - began)
            start = suspects.stop


def _simulate_in_child(task: Task) -> Iterator[_Result]:
    """Simulate in a child of this process, and yield its results until it ends or dies."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if not child:
        try:
            for result in _simulate(task):
                sender.send(result)
        finally:
            os._exit(0)
    sender.close()
    with receiver, suppress(EOFError):
        while True:
            yield receiver.recv()
    os.waitpid(child, 0)


def _find_fatal_row(task: Task, seconds: float) -> Iterator[_Result]:
    """Simulate again, in halves, what a child was at when it died, until one row is to blame.

    ``seconds`` is the time that the child had spent on it.
    """
    if len(task.theta) > 1:
        for half in task.halves():
            yield from _simulate_isolated(half)
    elif task.timeout is not None and seconds > task.timeout:
        yield Failure(task.start, "timeout", f"did not stop after {task.timeout:g} s")
    else:
        yield Failure(task.start, "killed", "its process died: a crash, or no memory left")


def _attempt(row: int, timeout: float | None, call: Callable[..., Any], *args: Any) -> Any:
    """Return the result of a call, or a `Failure` if it raised or took too long."""
    try:
        return call(*args) if timeout is None else call_within(timeout, call, *args)
    except _TimeLimitExceeded:
        return Failure(row, "timeout", f"took longer than {timeout:g} s")
    except (Exception, SystemExit):
        return Failure(row, "exception", traceback.format_exc().strip())


class _TimeLimitExceeded(BaseException):
    """A simulation took too long. A simulator's ``except Exception`` does not catch this."""


def call_within(seconds: float, call: Callable[..., Any], *args: Any) -> Any:
    """Return the result of a call, or interrupt it when the time limit is reached.

    The call is interrupted by a signal if the platform has one and this is the main thread.
    Otherwise the call runs in a thread of its own, which goes on in the background.
    """
    if hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():
        with _interrupt_after(seconds):
            return call(*args)
    future: Future[Any] = Future()
    threading.Thread(target=_call_for_future, args=(future, call, *args), daemon=True).start()
    if not wait([future], seconds).done:
        raise _TimeLimitExceeded
    return future.result()


def _call_for_future(future: Future[Any], call: Callable[..., Any], *args: Any) -> None:
    try:
        future.set_result(call(*args))
    except BaseException as error:
        future.set_exception(error)


@contextmanager
def _interrupt_after(seconds: float) -> Iterator[None]:
    """Interrupt the Python code of a ``with`` block by a signal when the time limit is reached.

    A signal does not interrupt code in other languages. If such code goes on in a worker process
    for as long again, that process is ended.
    """
    previous_handler = signal.signal(signal.SIGALRM, _raise_time_limit_exceeded)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    if multiprocessing.parent_process() is not None:
        faulthandler.dump_traceback_later(2 * seconds + 1, exit=True, file=_null_device())
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous_handler)
        faulthandler.cancel_dump_traceback_later()


def _raise_time_limit_exceeded(signum: int, frame: Any) -> None:
    raise _TimeLimitExceeded


@cache
def _null_device() -> int:
    """Return a file descriptor that discards what is written to it."""
    return os.open(os.devnull, os.O_WRONLY)


def _concatenate(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """Join arrays of observations, which may differ in shape."""
    if len(parts) == 1:
        return parts[0]
    if len({(X.dtype, X.shape[1:]) for X in parts}) == 1:
        return np.concatenate(parts)
    return stack_observations([x for X in parts for x in X])


def _remove_flawed(
    X: NDArray[Any], spec: ObservationSpec | None, missing: str
) -> tuple[ObservationSpec | None, NDArray[Any], dict[int, tuple[str, str]]]:
    """Remove observations that count as failed.

    Returns what the others look like, the others, and the flaws of those removed by position.
    """
    if X.dtype != object and np.isfinite(X).all():  # the usual case, checked for all at once
        spec = spec or ObservationSpec.of(X[0])
        if spec.matches(X[0]):
            return spec, X, {}
    flaws = {}
    for i, x in enumerate(X):
        flaw = _find_flaw(x, spec, missing)
        if flaw:
            flaws[i] = flaw
        else:
            spec = spec or ObservationSpec.of(x)
    return spec, np.delete(X, list(flaws), axis=0), flaws


def _find_flaw(
    x: NDArray[Any], spec: ObservationSpec | None, missing: str
) -> tuple[str, str] | None:
    """Return the kind and the message of the failure if an observation counts as failed."""
    if not x.size or (spec and not spec.matches(x)):
        expected = f"; the first simulation's was {spec.shape}" if spec else ""
        return "shape", f"its shape is {x.shape}{expected}"
    if np.isfinite(x).all():
        return None
    if np.isinf(x).any():
        return "infinite", f"{np.isinf(x).sum()} of {x.size} numbers are infinite"
    is_missing = np.isnan(x)
    if x.ndim == 2:  # a row of a set that is all NaN means "no point here"
        is_missing = is_missing[~is_missing.all(axis=1)]
    if is_missing.all() or (missing == "error" and is_missing.any()):
        return "nan", f"{np.isnan(x).sum()} of {x.size} numbers are NaN"
    return None


def _pack(X: NDArray[Any], spec: ObservationSpec) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    """Join sets to one array of points (N, d), and return it with the sets' sizes.

    Observations that are no sets are returned in one array, with None for the sizes.
    """
    if spec.shape[0] is not None:
        X = np.stack(X) if X.dtype == object else X
        return X.astype(spec.dtype, copy=False), None
    sizes = np.array([len(x) for x in X], dtype=np.int64)
    points = np.concatenate(X) if X.dtype == object else X.reshape(-1, X.shape[2])
    return points.astype(spec.dtype, copy=False), sizes


def _sort_and_shorten(failures: list[Failure]) -> list[Failure]:
    """Sort failures by row, and keep only the first message of each kind."""
    kinds: set[str] = set()
    shortened = []
    for row, kind, message in sorted(failures):
        shortened.append(Failure(row, kind, "" if kind in kinds else message))
        kinds.add(kind)
    return shortened
