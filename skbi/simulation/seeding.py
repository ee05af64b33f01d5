"""Calls of a simulator, each with random numbers of its own.

Random numbers come from a Generator that a call is given, or from the global generators of Python's
random, numpy and torch, which are seeded for every call.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skbi.randomness import (
    Seed,
    are_same_states,
    controls_global_generators,
    global_states,
    seed_global_generators,
)

__all__ = ["call_each", "call_seeded", "names_of_own_generators"]

_GENERATORS = np.random.Generator, np.random.RandomState, random.Random
_MAX_DEPTH = 4  # of what a simulator holds: its function, that function's object, and so on


def call_seeded(
    func: Callable[..., Any], argument: Any, seed: Seed | np.random.SeedSequence, takes_rng: bool
) -> Any:
    """Call ``func(argument, rng)`` after seeding the global generators.

    Parameters
    ----------
    func : callable
    argument : object
    seed : Seed or SeedSequence
        Of all random numbers.
    takes_rng : bool
        Whether to make a Generator for ``rng``, which is None otherwise.

    Returns
    -------
    object
        What ``func`` returns.
    """
    seed_global_generators(seed)
    return func(argument, np.random.default_rng(seed) if takes_rng else None)


def call_each(
    func: Callable[..., Any], words: NDArray[np.uint64], takes_rng: bool, *, only_once: bool = False
) -> Iterator[Any]:
    """Call ``func(i, rng)`` for each i from 0 to n - 1.

    Seeding the global generators takes longer than many a simulation. If the first call has not
    moved them, the others are therefore made without seeding, and once more if they do move them.

    Parameters
    ----------
    func : callable
    words : ndarray of uint64, shape (n, 4)
        The words of the seed of each call.
    takes_rng : bool
        As in `call_seeded`.
    only_once : bool, default=False
        Whether to seed for every call, so that none is made twice.

    Returns
    -------
    iterator of object
        The results, in order.

    Examples
    --------
    >>> import random
    >>> from skbi.randomness import seed_words
    >>> words = seed_words(np.random.SeedSequence(0), 4)
    >>> forwards = list(call_each(lambda i, rng: random.random(), words, False))
    >>> backwards = list(call_each(lambda i, rng: random.random(), words[::-1], False))
    >>> forwards == backwards[::-1]
    True
    """

    def seeded(i: int) -> Any:
        return call_seeded(func, i, Seed(words[i]), takes_rng)

    def unseeded(i: int) -> Any:
        return func(i, np.random.default_rng(Seed(words[i])) if takes_rng else None)

    n = len(words)
    if not controls_global_generators():
        return map(unseeded, range(n))
    if only_once or n == 1:
        return map(seeded, range(n))
    return _call_in_turn(seeded, unseeded, words)


def _call_in_turn(
    seeded: Callable[[int], Any], unseeded: Callable[[int], Any], words: NDArray[np.uint64]
) -> Iterator[Any]:
    """Make the first call seeded, and the others only if a call moves the global generators."""
    yield seeded(0)
    others, before = range(1, len(words)), global_states()
    seed_global_generators(Seed(words[0]))
    if are_same_states(before, global_states()):
        results = list(map(unseeded, others))
        if are_same_states(before, global_states()):
            yield from results
            return
    yield from map(seeded, others)


def names_of_own_generators(simulator: Any) -> list[str]:
    """Return the names by which a simulator refers to generators of its own.

    Those are its attributes except ``random_state`` and, of a function, what it is bound to, its
    defaults, and the variables around it that it uses.

    Examples
    --------
    >>> noise = np.random.default_rng(0)
    >>> names_of_own_generators(lambda theta: theta + noise.normal())
    ['noise']
    """
    return sorted({name for name, value in _held_by(simulator) if isinstance(value, _GENERATORS)})


def _held_by(value: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield what an object or a function refers to, by name, and what that refers to."""
    if isinstance(value, Mapping):
        held = dict(value)
    elif isinstance(value, partial):
        held = {"func": value.func, **dict(enumerate(value.args)), **value.keywords}
    elif hasattr(value, "__code__"):
        held = _held_by_function(value)
    else:
        held = {k: v for k, v in getattr(value, "__dict__", {}).items() if k != "random_state"}
    for name, item in held.items():
        yield str(name), item
        if depth < _MAX_DEPTH and (callable(item) or isinstance(item, Mapping) or name == "self"):
            yield from _held_by(item, depth + 1)


def _held_by_function(func: Any) -> dict[str, Any]:
    code, defaults = func.__code__, func.__defaults__ or ()
    arguments = code.co_varnames[: code.co_argcount]
    cells = zip(code.co_freevars, func.__closure__ or (), strict=True)
    return {
        **{name: func.__globals__[name] for name in code.co_names if name in func.__globals__},
        **{name: cell.cell_contents for name, cell in cells},
        **dict(zip(arguments[len(arguments) - len(defaults) :], defaults, strict=True)),
        **(func.__kwdefaults__ or {}),
        "self": getattr(func, "__self__", None),
    }
