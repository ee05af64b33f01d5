"""Randomness from ``random_state`` alone: numpy generators, seeds, and the global generators."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.random.bit_generator import ISpawnableSeedSequence
from numpy.typing import NDArray

__all__ = [
    "RandomState",
    "Seed",
    "are_same_states",
    "as_generator",
    "controls_global_generators",
    "global_generators_restored",
    "global_states",
    "seed_global_generators",
    "seed_words",
    "seeded",
]

RandomState = int | np.random.Generator | np.random.RandomState | np.random.SeedSequence | None

_TORCH_GENERATOR_LOCK = threading.Lock()


def as_generator(random_state: RandomState) -> np.random.Generator:
    """Return the numpy generator that ``random_state`` stands for.

    Numpy's global generator is neither read nor advanced.

    Parameters
    ----------
    random_state : int, SeedSequence, Generator, RandomState or None
        An integer or a SeedSequence seeds a new generator. A Generator is returned itself, so that
        drawing from the result advances it. A RandomState is advanced once, to seed a new
        generator. None takes fresh entropy from the operating system.

    Returns
    -------
    numpy.random.Generator

    Examples
    --------
    >>> int(as_generator(0).integers(100))
    85
    """
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31, size=4))
    return np.random.default_rng(random_state)


@contextmanager
def seeded(rng: np.random.Generator) -> Iterator[None]:
    """Seed torch's global generator from ``rng`` inside a ``with`` block.

    Modules that are created in the block get their initial weights from ``rng``, in single
    precision and on the CPU. When the block ends, torch's global generator and its default dtype
    are restored. Only one thread at a time can be in such a block.

    Parameters
    ----------
    rng : numpy.random.Generator
        One integer is drawn from it.

    Examples
    --------
    >>> import torch
    >>> with seeded(as_generator(0)):
    ...     first = torch.nn.Linear(2, 1)
    >>> with seeded(as_generator(0)):
    ...     second = torch.nn.Linear(2, 1)
    >>> torch.equal(first.weight, second.weight)
    True
    """
    with _TORCH_GENERATOR_LOCK, torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(int(rng.integers(2**63)))
        default_dtype = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(default_dtype)


class Seed(ISpawnableSeedSequence):
    """The seed of a generator, as the words that a `numpy.random.PCG64` starts from.

    It gives a generator ten times as fast as a `numpy.random.SeedSequence` does, which computes
    these words for every generator anew.

    Parameters
    ----------
    words : ndarray of uint64, shape (4,)

    Examples
    --------
    >>> first, second = map(Seed, seed_words(np.random.SeedSequence(0), 2))
    >>> np.random.default_rng(first).random() == np.random.default_rng(second).random()
    False
    """

    def __init__(self, words: NDArray[np.uint64]) -> None:
        self.words = words

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> NDArray[Any]:
        """Return ``n_words`` words of random bits, of dtype uint32 or uint64."""
        if n_words == len(self.words) and np.dtype(dtype) == self.words.dtype:
            return self.words
        return self._sequence.generate_state(n_words, dtype)

    def spawn(self, n_children: int) -> list[Seed]:
        """Return further seeds, other ones at every call."""
        children = self._sequence.spawn(n_children)
        return [Seed(child.generate_state(4, np.uint64)) for child in children]

    @cached_property
    def _sequence(self) -> np.random.SeedSequence:
        return np.random.SeedSequence(self.words.tolist())


def seed_words(sequence: np.random.SeedSequence, n: int) -> NDArray[np.uint64]:
    """Return the words of n `Seed`, shape (n, 4), of which the first rows do not depend on n."""
    return sequence.generate_state(4 * n, np.uint64).reshape(n, 4)


def controls_global_generators() -> bool:
    """Whether this is the main thread. All threads share the global generators."""
    return threading.current_thread() is threading.main_thread()


def seed_global_generators(seed: Seed | np.random.SeedSequence) -> None:
    """Seed the global generators of Python's random, numpy and torch.

    In threads other than the main one nothing is done, because all threads share these generators.

    Parameters
    ----------
    seed : Seed or SeedSequence
    """
    if not controls_global_generators():
        return
    words = seed.generate_state(4, np.uint64)
    random.seed(int.from_bytes(words[:2].tobytes(), "little"))
    bits = np.random.get_bit_generator()
    if isinstance(bits, np.random.MT19937):  # the usual one
        np.random.seed(words[2:].view(np.uint32))  # noqa: NPY002
    else:
        np.random.set_state(type(bits)(seed).state)  # noqa: NPY002
    with _TORCH_GENERATOR_LOCK:
        torch.default_generator.manual_seed(int(words[0]))
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(int(words[0]))


def global_states() -> tuple[Any, ...]:
    """Return the states of the global generators of Python's random, numpy and torch."""
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    in_numpy = np.random.get_state(legacy=False)  # noqa: NPY002
    return random.getstate(), in_numpy, torch.get_rng_state(), on_gpus


def are_same_states(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Whether the global generators have not moved between two calls of `global_states`."""
    in_numpy = all(map(np.array_equal, _leaves(one[1]), _leaves(other[1])))
    on_gpus = len(one[3]) == len(other[3]) and all(map(torch.equal, one[3], other[3]))
    return one[0] == other[0] and in_numpy and torch.equal(one[2], other[2]) and on_gpus


def _leaves(state: Any) -> Iterator[Any]:
    """Yield what the dicts in a state of numpy's generator hold."""
    for value in state.values():
        yield from _leaves(value) if isinstance(value, dict) else [value]


@contextmanager
def global_generators_restored() -> Iterator[None]:
    """Put the states of the global generators back when a ``with`` block ends.

    In threads other than the main one nothing is done.

    Examples
    --------
    >>> before = random.getstate()
    >>> with global_generators_restored():
    ...     random.seed(0)
    >>> random.getstate() == before
    True
    """
    if not controls_global_generators():
        yield
        return
    in_python, in_numpy, in_torch, on_gpus = global_states()
    try:
        yield
    finally:
        random.setstate(in_python)
        np.random.set_state(in_numpy)  # noqa: NPY002
        with _TORCH_GENERATOR_LOCK:
            torch.set_rng_state(in_torch)
            if on_gpus:
                torch.cuda.set_rng_state_all(on_gpus)
