"""Checks of a simulator of blocks: that it simulates every row of a block by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MAX_CALLS",
    "MAX_ROWS",
    "InvalidSimulatorError",
    "check_block_simulator",
    "check_length",
]

_N_COPIES = 16  # of one row: that many independent binary outcomes hardly ever agree twice
_MAX_TRIES = 10  # calls of a simulator that may fail by chance
MAX_CALLS = 4 * _MAX_TRIES  # of `check_block_simulator`
MAX_ROWS = 2 * (3 + _N_COPIES)  # that it simulates if no call fails


class InvalidSimulatorError(ValueError):
    """A simulator is wrong for every theta. No ``on_error`` goes on after this."""


def check_block_simulator(
    simulate: Callable[[NDArray[np.float64]], NDArray[Any]],
    theta: NDArray[np.float64],
    n_rows: int,
) -> None:
    """Refuse a function of one row of theta that is called with a block of rows.

    Such a function may return as many values as the block has rows, by chance, or add the same
    noise to all rows. It is therefore called with another number of rows, which are all equal: it
    must return as many observations, with noise of their own if there is noise.

    Parameters
    ----------
    simulate : callable
        Returns the observations of rows of theta, with new random numbers at every call.
    theta : ndarray, shape (p,)
        A row that has been simulated with success.
    n_rows : int
        The number of rows that were simulated together.

    Raises
    ------
    InvalidSimulatorError
        If it does not simulate every row by itself.

    Examples
    --------
    >>> check_block_simulator(np.square, np.ones(3), 100)
    """
    n = 3 if n_rows == 2 else 2
    first, second = (_simulate_copies(simulate, theta, n, n_rows) for _ in range(2))
    if not (_repeats(first) and _repeats(second)) or np.array_equal(first[0], second[0]):
        return
    many, more = (_simulate_copies(simulate, theta, _N_COPIES, n_rows) for _ in range(2))
    if _repeats(many) and _repeats(more) and not np.array_equal(many[0], more[0]):
        raise InvalidSimulatorError(
            "The simulator adds the same noise to all rows of theta that it is given together. "
            "Draw random numbers of shape (len(theta), ...), so that every row has its own. If "
            "the function simulates one row at a time, set vectorized=False."
        )


def check_length(X: NDArray[Any], n_rows: int) -> NDArray[Any]:
    """Return the observations, if there are as many as theta has rows."""
    if len(X) != n_rows:
        raise ValueError(
            f"A simulator of blocks must return as many observations as theta has rows, {n_rows}; "
            f"got {len(X)}. If it is a function of one row, set vectorized=False."
        )
    return X


def _simulate_copies(
    simulate: Callable[[NDArray[np.float64]], NDArray[Any]],
    theta: NDArray[np.float64],
    n: int,
    n_rows: int,
) -> NDArray[Any]:
    """Simulate n copies of a row. A simulator that fails by chance is called again."""
    came: Any = None
    for _ in range(_MAX_TRIES):
        try:
            X = simulate(np.tile(theta, (n, 1)))
        except Exception as error:
            came = error
            continue
        if len(X) == n:
            return X
        came = ValueError(f"it returns {len(X)} observations")
        break
    raise InvalidSimulatorError(
        f"The simulator takes {n_rows} rows of theta, but of {n} rows it must return {n} "
        f"observations, too; got {type(came).__name__}: {came}. If the function simulates one row "
        "at a time, set vectorized=False."
    ) from came


def _repeats(X: NDArray[Any]) -> bool:
    """Whether all observations are the same."""
    return all(np.array_equal(x, X[0]) for x in X[1:])
