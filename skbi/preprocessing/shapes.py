"""What to say of arrays of the wrong shape: what came, and what it may become."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["describe_uneven_rows", "describe_width"]


def describe_uneven_rows(values: Any, *, of_observations: bool) -> str | None:
    """Say why rows of different shapes are no array, and what to do; None if that is not why.

    Parameters
    ----------
    values : sequence
        What could not be turned into an array.
    of_observations : bool
        Whether rows are observations, which may be sets or have missing entries, or parameters.

    Returns
    -------
    str or None

    Examples
    --------
    >>> describe_uneven_rows([[1, 2], [3]], of_observations=False)
    'got rows of different lengths, [2, 1]: every row must hold all parameters.'
    """
    try:
        shapes = [np.shape(row) for row in values]
    except (TypeError, ValueError):
        return None
    if len(set(shapes)) < 2:
        return None
    if {len(shape) for shape in shapes} != {1}:
        return (
            f"got rows of different shapes, {_first(shapes)}: all must be vectors (d,), or "
            "all sets (S_i, d)."
        )
    lengths = f"got rows of different lengths, {_first([shape[0] for shape in shapes])}"
    if not of_observations:
        return f"{lengths}: every row must hold all parameters."
    return (
        f"{lengths}. Pad vectors, such as curves that end early, with NaN to one length, for "
        "missing='mask'. A set of numbers is an array (S_i, 1), np.reshape(x, (-1, 1))."
    )


def _first(values: Sequence[Any]) -> str:
    """Return the first five values as text."""
    return f"[{', '.join(str(value) for value in values[:5])}{', ...' if len(values) > 5 else ''}]"


def describe_width(found: int, expected: int, n_axes: int, missing: str | None) -> str:
    """Say what to do about observations of another width than in `fit`.

    Parameters
    ----------
    found, expected : int
        Numbers of features.
    n_axes : int
        Of the X of `fit`: 2 for vectors, 3 for sets.
    missing : str or None
        The estimator's option, or None if it has none.

    Returns
    -------
    str

    Examples
    --------
    >>> describe_width(8, 14, 2, "mask")
    'Pad X with NaN to 14 features, as where simulations of fit lack values.'
    """
    if found > expected or n_axes == 3 or missing is None:
        return f"Pass the {expected} features of fit, or fit to simulations of these {found}."
    if missing == "mask":
        return f"Pad X with NaN to {expected} features, as where simulations of fit lack values."
    return (
        f"To observe less than was simulated, fit with missing='mask' and with NaN in some of the "
        f"simulations, where observations may lack values; then pad X with NaN to {expected} "
        f"features. Or fit to simulations of these {found}."
    )
