"""Work that takes a while: pieces that run side by side, each in one torch thread; progress."""

from __future__ import annotations

import multiprocessing
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from numbers import Integral
from typing import Any

import torch
from threadpoolctl import ThreadpoolController

__all__ = [
    "blocks",
    "each_in_one_thread",
    "n_threads",
    "one_blas_thread",
    "one_thread",
    "progress_options",
]

_SECONDS_UNTIL_PROGRESS = 5.0


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread while the context lasts.

    Workers that run side by side then do not compete for cores. A sum is also rounded in the same
    way wherever it is computed: in this thread, in another one, or in another process. The context
    may be entered by several threads at a time, and again inside itself. The number of threads that
    torch had before the first of them is put back at the end.

    Examples
    --------
    >>> with one_thread():
    ...     torch.get_num_threads()
    1
    """
    if getattr(_THIS_THREAD, "is_inside", False):
        yield
        return
    with _USERS.lock:
        n_threads = torch.get_num_threads()  # this call also sets up a new thread's own number
        if _USERS.n_inside == 0:
            _USERS.before = n_threads
        _USERS.n_inside += 1
        torch.set_num_threads(1)  # for this thread, and for those that start from now on
    _THIS_THREAD.is_inside = True
    try:
        yield
    finally:
        _THIS_THREAD.is_inside = False
        with _USERS.lock:
            _USERS.n_inside -= 1
            torch.set_num_threads(_USERS.before)


@dataclass
class _Users:
    """The threads of this process that are inside `one_thread`, or inside `one_blas_thread`.

    Attributes
    ----------
    lock : Lock
        Held while the other attributes change.
    n_inside : int
        How many threads are inside.
    before : object
        What there was before the first of them entered: the number of torch's threads, or the limit
        that it has set, which knows the number of BLAS's.
    """

    lock: Any = field(default_factory=threading.Lock)
    n_inside: int = 0
    before: Any = None


_USERS, _BLAS_USERS, _THIS_THREAD = _Users(), _Users(), threading.local()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep the matrix products of numpy and scipy to one thread while the context lasts.

    Their threads wait for each other in a loop. Beside another busy process that takes ten times as
    long as one thread does, and on a quiet machine our products gain nothing from them. The context
    may be entered by several threads at a time, and again inside itself.
    """
    if getattr(_THIS_THREAD, "has_one_blas_thread", False):
        yield
        return
    with _BLAS_USERS.lock:
        limit = _blas().limit(limits=1)  # for this thread or for all, as the library has it
        if _BLAS_USERS.n_inside == 0:
            _BLAS_USERS.before = limit
        _BLAS_USERS.n_inside += 1
    _THIS_THREAD.has_one_blas_thread = True
    try:
        yield
    finally:
        _THIS_THREAD.has_one_blas_thread = False
        with _BLAS_USERS.lock:
            _BLAS_USERS.before.restore_original_limits()
            _BLAS_USERS.n_inside -= 1


@cache
def _blas() -> ThreadpoolController:
    """Return the libraries of linear algebra of this process, which take a millisecond to find."""
    return ThreadpoolController().select(user_api="blas")


def each_in_one_thread(
    task: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    pool: ThreadPoolExecutor | None = None,
) -> list[Any]:
    """Call a task with each of several arguments, many calls at a time.

    Every call runs in one torch thread: the arrays of a call are too small to be shared among
    threads.

    Parameters
    ----------
    task : callable
    arguments : sequence of tuple
        The arguments of every call.
    pool : ThreadPoolExecutor, optional
        The threads. By default new ones, as many as torch would have.

    Returns
    -------
    list
        What the calls return.

    Examples
    --------
    >>> each_in_one_thread(pow, [(0, 2), (1, 2), (2, 2)])
    [0, 1, 4]
    """

    def run(each: tuple[Any, ...]) -> Any:
        with one_thread():
            return task(*each)

    n = min(len(arguments), n_threads())
    if len(arguments) == 1 or (pool is None and n <= 1):
        return [run(each) for each in arguments]
    with nullcontext(pool) if pool else ThreadPoolExecutor(n) as threads:
        return list(threads.map(run, arguments))


def n_threads() -> int:
    """Return how many pieces of work run side by side: as many as torch would have threads."""
    return torch.get_num_threads()


def progress_options(verbose: int | str) -> dict[str, Any]:
    """Return how tqdm is to show progress.

    Parameters
    ----------
    verbose : int or "auto"
        1: a bar, at once. 0: none. "auto": a bar that appears after 5 seconds of work, if standard
        error is a terminal; never in a pipe, a notebook or a worker process.

    Returns
    -------
    dict
        Options of ``tqdm.tqdm``. A bar must be updated, or it would show itself too early, rather
        than refreshed.

    Examples
    --------
    >>> progress_options(0), progress_options(1)
    ({'disable': True}, {'disable': False})
    """
    if isinstance(verbose, Integral):
        return {"disable": verbose < 1}
    if verbose != "auto":
        raise ValueError(f"verbose must be 'auto', 0 or 1; got {verbose!r}.")
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    shown = is_terminal and multiprocessing.parent_process() is None
    return {"disable": not shown, "delay": _SECONDS_UNTIL_PROGRESS, "leave": None}


def blocks(n: int, size: int) -> Iterator[slice]:
    """Cut n rows into consecutive slices of at most ``size`` rows.

    Examples
    --------
    >>> list(blocks(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
