"""What a worker does: simulate a run of rows one by one or in blocks, and tell what failed.

Row i draws from the i-th child of its block's seed, a block of rows from that seed itself: results
do not depend on how rows are dealt to workers.
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

from skbi.simulators import FunctionSimulator, as_observations

__all__ = ["BLOCK", "Failure", "Kind", "Outcome", "Task", "by_row", "run"]

BLOCK = 1000  # rows that share a seed; a simulator of arrays gets them together


class Kind(NamedTuple):
    """What one observation looks like: its type and shape, None for the size of a set."""

    dtype: str
    shape: tuple[int | None, ...]

    @classmethod
    def of(cls, x: NDArray[Any]) -> Kind:
        """Describe an observation (d,), a set (S, d) or any other array."""
        return cls(x.dtype.str, (None, x.shape[1]) if x.ndim == 2 else x.shape)

    def fits(self, x: NDArray[Any]) -> bool:
        """Whether another observation has the same shape, sets but for their size."""
        return Kind.of(x).shape == self.shape and x.size > 0


class Failure(NamedTuple):
    """A simulation that gave nothing to learn from."""

    row: int
    kind: str
    message: str


class Task(NamedTuple):
    """A run of simulations for one worker, from row ``start`` of ``n_samples``.

    ``seeds`` are those of the blocks that hold its rows; ``kind`` is what results must look like,
    None to take the first for a pattern. ``guarded`` simulates in a child process, so that one that
    dies is missed alone.
    """

    simulator: Any
    theta: NDArray[np.float64]
    start: int
    n_samples: int
    seeds: tuple[int, ...]
    kind: Kind | None
    missing: str
    timeout: float | None
    guarded: bool

    @property
    def stop(self) -> int:
        """The row after the last."""
        return self.start + len(self.theta)

    def seed(self, row: int) -> int:
        """Return the seed of the block that holds a row."""
        return self.seeds[row // BLOCK - self.start // BLOCK]

    def part(self, start: int, stop: int) -> Task:
        """Return the task of some of the rows."""
        theta = self.theta[start - self.start : stop - self.start]
        first = start // BLOCK - self.start // BLOCK
        seeds = self.seeds[first : first + -(-stop // BLOCK) - start // BLOCK]
        return self._replace(start=start, theta=theta, seeds=seeds)


@dataclass
class Outcome:
    """What came of the rows from ``start`` to ``stop``.

    ``X`` holds the observations of ``rows`` (k, ...), or the points of sets (N, d), one set after
    another, whose numbers are ``sizes`` (k,). ``seconds`` is the time that it took.
    """

    start: int
    stop: int
    rows: NDArray[np.int64]
    X: NDArray[Any]
    sizes: NDArray[np.int64] | None
    kind: Kind | None
    failures: list[Failure]
    seconds: float = 0.0


def by_row(simulator: Any) -> bool:
    """Whether each row is simulated on its own, rather than blocks by ``transform``."""
    return isinstance(simulator, FunctionSimulator) and not simulator.vectorized


def run(task: Task) -> Outcome:
    """Simulate all rows of a task."""
    began = time.perf_counter()
    guarded = task.guarded and hasattr(os, "fork")
    found = list(_guarded(task) if guarded else _simulations(task))
    failures = [part for part in found if isinstance(part, Failure)]
    parts = [part for part in found if not isinstance(part, Failure)]
    rows = np.array([row for some, _ in parts for row in some], dtype=np.int64)
    kind, X, sizes = task.kind, np.empty(0), None
    if parts:
        kind, X, flaws = _sift(_join([X for _, X in parts]), kind, task.missing)
        failures += [Failure(int(rows[i]), *flaw) for i, flaw in flaws.items()]
        rows = np.delete(rows, list(flaws))
        X, sizes = _pack(X, kind) if len(rows) else (np.empty(0), None)
    seconds = time.perf_counter() - began
    return Outcome(task.start, task.stop, rows, X, sizes, kind, _brief(failures), seconds)


Part = Failure | tuple[range, NDArray[Any]]


def _simulations(task: Task) -> Iterator[Part]:
    """Simulate in order; yield observations with their rows, and failures."""
    if by_row(task.simulator):
        simulate = partial(_row, task, task.simulator.takes_rng)
        return map(simulate, range(task.start, task.stop), task.theta)
    return chain.from_iterable(_block(task.part(*edges)) for edges in _blocks(task))


def _row(task: Task, takes_rng: bool, row: int, theta: NDArray[np.float64]) -> Part:
    rng = np.random.default_rng(_child(task.seed(row), row)) if takes_rng else None
    result = _attempt(row, task.timeout, task.simulator.one, theta, rng)
    return result if isinstance(result, Failure) else (range(row, row + 1), result[None])


def _blocks(task: Task) -> Iterator[tuple[int, int]]:
    second = task.start - task.start % BLOCK + BLOCK
    return pairwise([task.start, *range(second, task.stop, BLOCK), task.stop])


def _block(task: Task) -> Iterator[Part]:
    """Simulate rows together; if that fails in halves, down to the row that is to blame."""
    timeout = None if task.timeout is None else task.timeout * len(task.theta)
    result = _attempt(task.start, timeout, _transform, task)
    if not isinstance(result, Failure):
        yield range(task.start, task.stop), result
    elif len(task.theta) == 1:
        yield result
    else:
        for half in _halves(task):
            yield from _block(half)


def _halves(task: Task) -> tuple[Task, Task]:
    middle = (task.start + task.stop) // 2
    return task.part(task.start, middle), task.part(middle, task.stop)


def _transform(task: Task) -> NDArray[Any]:
    simulator, seed = task.simulator, task.seed(task.start)
    if hasattr(simulator, "get_params") and "random_state" in simulator.get_params(deep=False):
        if task.start % BLOCK or task.stop != min(task.start + BLOCK, task.n_samples):  # not whole
            seed = int(_child(seed, task.start, task.stop).generate_state(1)[0])
        simulator = copy.copy(simulator).set_params(random_state=seed)
    X = as_observations(simulator.transform(task.theta))
    if len(X) != len(task.theta):
        raise ValueError(f"transform gave {len(X)} observations of {len(task.theta)} rows.")
    return X


def _child(seed: int, *key: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=key)


# ---- failures


def _guarded(task: Task) -> Iterator[Part]:
    """Simulate in children; one that dies takes with it the simulation that it was at."""
    start = task.start
    while start < task.stop:
        began = time.perf_counter()
        for part in _from_child(task.part(start, task.stop)):
            yield part
            start = part.row + 1 if isinstance(part, Failure) else part[0].stop
            began = time.perf_counter()
        if start < task.stop:
            rest = task.part(start, task.stop)
            stop = start + 1 if by_row(task.simulator) else next(_blocks(rest))[1]
            yield from _lost(task.part(start, stop), time.perf_counter() - began)
            start = stop


def _lost(task: Task, seconds: float) -> Iterator[Part]:
    if len(task.theta) > 1:
        for half in _halves(task):
            yield from _guarded(half)
    elif task.timeout is not None and seconds > task.timeout:
        yield Failure(task.start, "timeout", f"did not stop after {task.timeout:g} s")
    else:
        yield Failure(task.start, "killed", "its process died: a crash, or no memory left")


def _from_child(task: Task) -> Iterator[Part]:
    """Simulate in a child of this process; yield what it gives until it ends or dies."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if not child:
        try:
            for part in _simulations(task):
                sender.send(part)
        finally:
            os._exit(0)
    sender.close()
    with receiver, suppress(EOFError):
        while True:
            yield receiver.recv()
    os.waitpid(child, 0)


def _attempt(row: int, timeout: float | None, call: Callable[..., Any], *args: Any) -> Any:
    """Return what the call gives, or how it failed."""
    try:
        return call(*args) if timeout is None else _within(timeout, call, *args)
    except _TimeUp:
        return Failure(row, "timeout", f"took longer than {timeout:g} s")
    except (Exception, SystemExit):
        return Failure(row, "exception", traceback.format_exc().strip())


class _TimeUp(BaseException):
    """The time for a simulation is up; not to be caught by the simulator's ``except Exception``."""


def _within(seconds: float, call: Callable[..., Any], *args: Any) -> Any:
    """Call within a time limit, by a signal where the platform and the thread allow it."""
    if hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():
        with _alarm(seconds):
            return call(*args)
    future: Future[Any] = Future()
    threading.Thread(target=_settle, args=(future, call, *args), daemon=True).start()
    if not wait([future], seconds).done:
        raise _TimeUp
    return future.result()


def _settle(future: Future[Any], call: Callable[..., Any], *args: Any) -> None:
    try:
        future.set_result(call(*args))
    except BaseException as error:
        future.set_exception(error)


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Interrupt Python by a signal; a worker whose code cannot be interrupted ends itself."""
    before = signal.signal(signal.SIGALRM, _ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    if multiprocessing.parent_process() is not None:
        faulthandler.dump_traceback_later(2 * seconds + 1, exit=True, file=_nowhere())
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        faulthandler.cancel_dump_traceback_later()


def _ring(signum: int, frame: Any) -> None:
    raise _TimeUp


@cache
def _nowhere() -> int:
    return os.open(os.devnull, os.O_WRONLY)


def _brief(failures: list[Failure]) -> list[Failure]:
    """Order by row, and keep the message of the first of each kind alone."""
    told: set[str] = set()
    brief = []
    for row, kind, message in sorted(failures):
        brief.append(Failure(row, kind, "" if kind in told else message))
        told.add(kind)
    return brief


# ---- results


def _join(parts: list[NDArray[Any]]) -> NDArray[Any]:
    if len(parts) == 1:
        return parts[0]
    if len({(X.dtype, X.shape[1:]) for X in parts}) == 1:
        return np.concatenate(parts)
    return as_observations([x for X in parts for x in X])


def _sift(
    X: NDArray[Any], kind: Kind | None, missing: str
) -> tuple[Kind | None, NDArray[Any], dict[int, tuple[str, str]]]:
    """Return what observations look like, those without a flaw, and the flaws of the others."""
    if X.dtype != object and np.isfinite(X).all():  # all at once, as is usual
        kind = kind or Kind.of(X[0])
        if kind.fits(X[0]):
            return kind, X, {}
    flaws = {}
    for i, x in enumerate(X):
        flaw = _flaw(x, kind, missing)
        if flaw:
            flaws[i] = flaw
        else:
            kind = kind or Kind.of(x)
    return kind, np.delete(X, list(flaws), axis=0), flaws


def _flaw(x: NDArray[Any], kind: Kind | None, missing: str) -> tuple[str, str] | None:
    """Kind of failure and message, if an observation has one."""
    if not x.size or (kind and not kind.fits(x)):
        expected = f"; the first simulation's was {kind.shape}" if kind else ""
        return "shape", f"its shape is {x.shape}{expected}"
    if np.isfinite(x).all():
        return None
    if np.isinf(x).any():
        return "infinite", f"{np.isinf(x).sum()} of {x.size} numbers are infinite"
    absent = np.isnan(x)
    if x.ndim == 2:  # rows of nothing but NaN mean "no point here"
        absent = absent[~absent.all(axis=1)]
    if absent.all() or (missing == "error" and absent.any()):
        return "nan", f"{np.isnan(x).sum()} of {x.size} numbers are NaN"
    return None


def _pack(X: NDArray[Any], kind: Kind) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    """Lay sets one after another, (N, d), with their sizes; leave the rest as it is."""
    if kind.shape[0] is not None:
        X = np.stack(X) if X.dtype == object else X
        return X.astype(kind.dtype, copy=False), None
    sizes = np.array([len(x) for x in X], dtype=np.int64)
    points = np.concatenate(X) if X.dtype == object else X.reshape(-1, X.shape[2])
    return points.astype(kind.dtype, copy=False), sizes
