"""Randomness from ``random_state`` alone: numpy generators, and torch's initial weights."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["RandomState", "as_generator", "seeded"]

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
