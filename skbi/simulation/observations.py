"""Observations: what a simulation returns, as an array, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skbi.simulation.checks import InvalidSimulatorError

__all__ = [
    "ObservationSpec",
    "as_observation",
    "concatenate",
    "pack",
    "remove_flawed",
    "stack_observations",
]


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


def as_observation(output: Any) -> NDArray[Any]:
    """Convert what a function returned for one row of theta to an array.

    Parameters
    ----------
    output : number, array-like, Series, DataFrame or dict of numbers and arrays

    Returns
    -------
    ndarray of float64 or float32, shape (d,), (S, d) or (H, W, channels)

    Raises
    ------
    TypeError
        If it holds something other than numbers.
    InvalidSimulatorError
        If it has four or more axes.
    """
    if not isinstance(output, np.ndarray) and isinstance(output, Mapping):
        output = np.concatenate([np.ravel(value) for value in output.values()])
    x = _as_numbers(output)
    _check_axes(x.shape)
    return x if x.ndim else x[None]


def stack_observations(outputs: Any) -> NDArray[Any]:
    """Convert n observations to one array.

    Parameters
    ----------
    outputs : array-like, shape (n, ...), sequence of n observations, or dict of arrays (n, ...)

    Returns
    -------
    ndarray, shape (n, d), (n, S, d) or (n, H, W, channels)
        If observations differ in shape, an object array of n arrays instead.

    Raises
    ------
    TypeError, InvalidSimulatorError
        As in `as_observation`.
    """
    if isinstance(outputs, Mapping):
        outputs = np.column_stack(list(outputs.values()))
    is_sequence = isinstance(outputs, list | tuple) or np.asarray(outputs).dtype.kind == "O"
    if not is_sequence:
        X = _as_numbers(outputs)
        _check_axes(X.shape[1:])
        return X.reshape(-1, 1) if X.ndim < 2 else X
    observations = [as_observation(output) for output in outputs]
    if len({x.shape for x in observations}) == 1:
        return np.stack(observations)
    X = np.empty(len(observations), dtype=object)
    X[:] = observations
    return X


def _as_numbers(values: Any) -> NDArray[Any]:
    """Return an array of float64, or of float32 if the values are."""
    x = np.asarray(values)
    if x.dtype.kind not in "buif":
        raise TypeError(f"A simulation must return numbers; got dtype {x.dtype}: {values!r:.80}.")
    return x if x.dtype == np.float32 else x.astype(np.float64, copy=False)


def _check_axes(shape: tuple[int, ...]) -> None:
    """Refuse the shape of an observation that is no vector, set, series or image."""
    if len(shape) > 3:
        raise InvalidSimulatorError(
            "A simulation must return a number, a vector (d,), a set of points or a series (S, d), "
            f"or an image (H, W) or (H, W, channels); got an array of shape {shape}. Return "
            "summaries of it, or all its numbers as one vector, x.ravel()."
        )


def concatenate(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """Join arrays of observations, which may differ in shape."""
    if len(parts) == 1:
        return parts[0]
    if len({(X.dtype, X.shape[1:]) for X in parts}) == 1:
        return np.concatenate(parts)
    return stack_observations([x for X in parts for x in X])


def remove_flawed(
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
        hint = "" if is_missing.all() else "; with missing='mask' they are missing entries"
        return "nan", f"{np.isnan(x).sum()} of {x.size} numbers are NaN{hint}"
    return None


def pack(X: NDArray[Any], spec: ObservationSpec) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    """Join sets to one array of points (N, d), and return it with the sets' sizes.

    Observations that are no sets are returned in one array, with None for the sizes.
    """
    if spec.shape[0] is not None:
        X = np.stack(X) if X.dtype == object else X
        return X.astype(spec.dtype, copy=False), None
    sizes = np.array([len(x) for x in X], dtype=np.int64)
    points = np.concatenate(X) if X.dtype == object else X.reshape(-1, X.shape[2])
    return points.astype(spec.dtype, copy=False), sizes
