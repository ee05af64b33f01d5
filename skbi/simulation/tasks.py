"""Tasks: a worker simulates consecutive rows of theta and reports which simulations failed.

Rows form blocks of 1,000, each with a seed. A row that is simulated on its own uses a seed that
follows from its block's, and a block that is simulated together uses the seed itself. The global
generators are seeded in the same way. Results therefore do not depend on how rows are divided among
workers.
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
from functools import cache, lru_cache
from itertools import chain, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skbi.randomness import global_generators_restored, seed_global_generators, seed_words
from skbi.simulation.checks import (
    MAX_ROWS,
    InvalidSimulatorError,
    check_block_simulator,
    check_length,
)
from skbi.simulation.observations import (
    ObservationSpec,
    concatenate,
    pack,
    remove_flawed,
    stack_observations,
)
from skbi.simulation.seeding import call_each, call_seeded
from skbi.simulation.simulators import FunctionSimulator

__all__ = [
    "ROWS_PER_BLOCK",
    "Failure",
    "Outcome",
    "Task",
    "call_within",
    "run_task",
    "simulates_by_row",
]

ROWS_PER_BLOCK = 1000


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
    with global_generators_restored():
        results = list(_simulate_isolated(task) if isolated else _simulate(task))
    failures = [result for result in results if isinstance(result, Failure)]
    successes = [result for result in results if not isinstance(result, Failure)]
    rows = np.array([row for some_rows, _ in successes for row in some_rows], dtype=np.int64)
    spec, X, sizes = task.spec, np.empty(0), None
    if successes:
        X = concatenate([X for _, X in successes])
        spec, X, flaws = remove_flawed(X, spec, task.missing)
        failures += [Failure(int(rows[i]), *flaw) for i, flaw in flaws.items()]
        rows = np.delete(rows, list(flaws))
        X, sizes = pack(X, spec) if len(rows) else (np.empty(0), None)
    failures, seconds = _sort_and_shorten(failures), time.perf_counter() - began
    return Outcome(task.start, task.stop, rows, X, sizes, spec, failures, seconds)


# What `_simulate` yields: consecutive rows with their observations, or the failure of one row.
_Result = Failure | tuple[range, NDArray[Any]]


def _simulate(task: Task) -> Iterator[_Result]:
    """Simulate in the order of the rows."""
    if simulates_by_row(task.simulator):
        return _simulate_rows(task)
    return chain.from_iterable(map(_simulate_block, task.blocks()))


def _simulate_rows(task: Task) -> Iterator[_Result]:
    """Simulate one row after another."""
    simulator, start = task.simulator, task.start

    def simulate(i: int, rng: np.random.Generator | None) -> _Result:
        x = _attempt(start + i, task.timeout, simulator.one, task.theta[i], rng)
        return x if isinstance(x, Failure) else (range(start + i, start + i + 1), x[None])

    words = np.concatenate([_words(block) for block in task.blocks()])
    return call_each(simulate, words, simulator.takes_rng, only_once=task.isolated)


def _words(task: Task) -> NDArray[np.uint64]:
    """Return the words of the seeds of rows of one block, shape (k, 4)."""
    block, first = divmod(task.start, ROWS_PER_BLOCK)
    return _words_of_block(task.seed(task.start), block)[first : first + len(task.theta)]


@lru_cache(maxsize=8)
def _words_of_block(seed: int, block: int) -> NDArray[np.uint64]:
    return seed_words(_child_seed(seed, block), ROWS_PER_BLOCK)


def _simulate_block(task: Task) -> Iterator[_Result]:
    """Simulate all rows together. If that fails, simulate halves, down to single rows."""
    n, limit = len(task.theta), _time_limit(task, len(task.theta))
    result = _attempt(task.start, limit, _simulate_together, task, _seed_of_rows(task))
    if not isinstance(result, Failure):
        if task.spec is None:
            _check_simulator(task)
        yield range(task.start, task.stop), result
    elif n == 1:
        yield result
    else:
        for half in task.halves():
            yield from _simulate_block(half)


def _time_limit(task: Task, n: int) -> float | None:
    """Return the time limit of n simulations."""
    return None if task.timeout is None else task.timeout * n


def _seed_of_rows(task: Task) -> int:
    """Return the seed of rows that are simulated together: that of the block if it is whole."""
    seed, start, stop = task.seed(task.start), task.start, task.stop
    if not start % ROWS_PER_BLOCK and stop == min(start + ROWS_PER_BLOCK, task.n_samples):
        return seed
    return _first_word(_child_seed(seed, start, stop))


def _check_simulator(task: Task) -> None:
    """Check that the simulator simulates every row by itself. Without a result in time, go on."""
    sequence = _child_seed(task.seed(task.start), task.start, task.stop, 0)

    def simulate(theta: NDArray[np.float64]) -> NDArray[Any]:
        return _transform(task._replace(theta=theta), _first_word(sequence.spawn(1)[0]))

    limit = _time_limit(task, MAX_ROWS)
    _attempt(task.start, limit, check_block_simulator, simulate, task.theta[0], len(task.theta))


def _simulate_together(task: Task, seed: int) -> NDArray[Any]:
    return check_length(_transform(task, seed), len(task.theta))


def _transform(task: Task, seed: int) -> NDArray[Any]:
    """Call ``transform``, with the global generators seeded and a seed for ``random_state``."""
    simulator = task.simulator
    if isinstance(simulator, FunctionSimulator):
        return call_seeded(simulator.block, task.theta, _child_seed(seed), simulator.takes_rng)
    seed_global_generators(_child_seed(seed))
    if hasattr(simulator, "get_params") and "random_state" in simulator.get_params(deep=False):
        simulator = copy.copy(simulator).set_params(random_state=seed)
    return stack_observations(simulator.transform(task.theta))


def _first_word(sequence: np.random.SeedSequence) -> int:
    return int(sequence.generate_state(1)[0])


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
    """Return the result of a call, or a `Failure` if it raised or took too long.

    An `InvalidSimulatorError` is raised, as it is not a failure of this simulation alone.
    """
    try:
        return call(*args) if timeout is None else call_within(timeout, call, *args)
    except _TimeLimitExceeded:
        return Failure(row, "timeout", f"took longer than {timeout:g} s")
    except InvalidSimulatorError:
        raise
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


def _sort_and_shorten(failures: list[Failure]) -> list[Failure]:
    """Sort failures by row, and keep only the first message of each kind."""
    kinds: set[str] = set()
    shortened = []
    for row, kind, message in sorted(failures):
        shortened.append(Failure(row, kind, "" if kind in kinds else message))
        kinds.add(kind)
    return shortened
