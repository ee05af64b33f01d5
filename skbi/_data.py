"""The only file that knows what an X is: vectors, sets, ragged sets, missing entries; one form.

n observations become one block of points (N, d) and, for sets, the n sizes with sum N. A ragged
batch therefore costs what its points cost; padding is dropped here and never seen again.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import _get_feature_names
from torch import Tensor

__all__ = [
    "Packed",
    "as_batch",
    "as_table",
    "axes_of",
    "chunks",
    "file_of",
    "pack",
    "to_tensor",
    "width_of",
]

_CHUNK = 2**23  # numbers looked at together: 64 MB
_FEW = 64  # observations of a file read together
_KINDS = {2: "vectors (n, d)", 3: "sets (n, S, d), or a list of n arrays (S_i, d)"}


@dataclass(frozen=True)
class Packed:
    """n observations in packed form.

    Attributes
    ----------
    points : ndarray, shape (N, d)
        One row an observation (vectors) or a point (sets, one set after another).
    sizes : ndarray of int, shape (n,), or None
        Points of each set; None for vectors.
    """

    points: NDArray[np.float64]
    sizes: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.points) if self.sizes is None else len(self.sizes)

    @property
    def n_axes(self) -> int:
        """Number of axes of the X this came from: 2 for vectors, 3 for sets."""
        return 2 if self.sizes is None else 3

    def __getitem__(self, rows: slice) -> Packed:
        if self.sizes is None:
            return Packed(self.points[rows])
        start, stop, _ = rows.indices(len(self))
        return Packed(self.points[self._edges[start] : self._edges[stop]], self.sizes[rows])

    def take(self, rows: NDArray[np.int64]) -> Packed:
        """Pick observations by index."""
        if self.sizes is None:
            return Packed(_pick(self.points, rows, _FEW))
        sizes, starts = self.sizes[rows], self._edges[rows]
        offsets = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        places = np.repeat(starts, sizes) + offsets
        return Packed(_pick(self.points, places, _FEW * int(sizes.max(initial=1))), sizes)

    @cached_property
    def _edges(self) -> NDArray[np.int64]:
        """Where sets begin, and the last one ends."""
        return np.concatenate([[0], np.cumsum(self.sizes)])

    def owners(self) -> NDArray[np.int64]:
        """Return the observation of each point, (N,)."""
        n = np.arange(len(self))
        return n if self.sizes is None else np.repeat(n, self.sizes)

    def blocks(self, n_points: int) -> Iterator[slice]:
        """Cut into runs of whole observations of at most ``n_points`` points (or one of more)."""
        edges = np.arange(1, len(self) + 1) if self.sizes is None else self._edges[1:]
        start = used = 0
        while start < len(self):
            stop = max(start + 1, int(np.searchsorted(edges, used + n_points, side="right")))
            yield slice(start, stop)
            start, used = stop, int(edges[stop - 1])

    def tensors(self, points: NDArray[np.float64], like: Tensor) -> Batch:
        """Move to the type and device of ``like``, with scaled ``points`` for the raw ones."""
        sizes = None if self.sizes is None else torch.as_tensor(self.sizes, device=like.device)
        return Batch(to_tensor(points, like), sizes)


@dataclass(frozen=True)
class Batch:
    """Packed observations as tensors: points (N, d) and, for sets, sizes (n,).

    ``totals`` are the sizes of the whole sets when ``points`` are a random part of them.
    """

    points: Tensor
    sizes: Tensor | None = None
    totals: Tensor | None = None

    def __len__(self) -> int:
        return len(self.points) if self.sizes is None else len(self.sizes)


class Indexer:
    """Takes minibatches from a `Batch` by index, whole sets or a random part of each.

    Points are shuffled within their sets once, so that a run of neighbours is a random part.
    """

    def __init__(self, batch: Batch, rng: np.random.Generator) -> None:
        self.batch, self.rng = batch, rng
        if batch.sizes is not None:
            owner = np.repeat(np.arange(len(batch)), batch.sizes.cpu())
            order = np.lexsort((rng.random(len(owner)), owner))
            points = batch.points[torch.as_tensor(order, device=batch.points.device)]
            self.batch = Batch(points, batch.sizes)
            self.starts = batch.sizes.cumsum(0) - batch.sizes

    def take(self, rows: Tensor, fraction: float = 1.0) -> Batch:
        """Observations ``rows``, of sets a random ``fraction`` of the points (at least one)."""
        points, totals = self.batch.points, self.batch.sizes
        if totals is None:
            return Batch(points[rows])
        totals = totals[rows]
        sizes = (totals.float() * fraction).ceil().long()
        first = sizes.cumsum(0) - sizes
        offset = torch.arange(int(sizes.sum()), device=points.device) - repeat(first, sizes)
        if fraction < 1:
            offset = (offset + int(self.rng.integers(2**31))) % repeat(totals, sizes)
        return Batch(points[repeat(self.starts[rows], sizes) + offset], sizes, totals)


class MappedIndexer:
    """Takes minibatches as `Indexer` does, but from a file, which stays out of memory."""

    def __init__(
        self, X: Packed, scale: Callable[[Packed], Batch], rng: np.random.Generator
    ) -> None:
        self.X, self.scale, self.rng = X, scale, rng

    def take(self, rows: Tensor, fraction: float = 1.0) -> Batch:
        """Read observations ``rows`` and scale them."""
        batch = self.scale(self.X.take(rows.cpu().numpy()))
        return Indexer(batch, self.rng).take(torch.arange(len(batch), device=rows.device), fraction)


def _pick(points: NDArray[np.float64], rows: NDArray[np.int64], few: int) -> NDArray[np.float64]:
    """Copy rows of points (N, d), of a file a few at a time: each is read with its neighbours."""
    if file_of(points) is None:
        return points[rows]
    picked = np.empty((len(rows), points.shape[1]), dtype=points.dtype)
    for start in range(0, len(rows), few):
        picked[start : start + few] = points[rows[start : start + few]]
        let_go(points)
    return picked


def chunks(points: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """Go through points (N, d) a bounded part at a time."""
    step = max(1, _CHUNK // points.shape[1])
    for start in range(0, len(points), step):
        yield points[start : start + step]
        let_go(points)


def file_of(array: NDArray[Any]) -> mmap.mmap | None:
    """Return the memory map that an array only reads, if it does."""
    mode, base = None, array
    while isinstance(base, np.ndarray):
        mode, base = getattr(base, "mode", mode), base.base
    return base if mode == "r" and isinstance(base, mmap.mmap) else None


def let_go(array: NDArray[Any]) -> None:
    """Let what was read of a memory-mapped array leave memory; the system may still cache it."""
    file = file_of(array)
    if file is not None and hasattr(mmap, "MADV_DONTNEED"):
        file.madvise(mmap.MADV_DONTNEED)


def to_tensor(array: NDArray[Any], like: Tensor) -> Tensor:
    """Give an array the type and device of ``like``, whatever torch's defaults are."""
    return torch.as_tensor(array, dtype=like.dtype, device=like.device)


def repeat(values: Tensor, sizes: Tensor) -> Tensor:
    """Hand each set's value (n, ...) to its points (N, ...)."""
    return values.repeat_interleave(sizes, dim=0)


def as_table(values: Any, name: str) -> tuple[NDArray[np.float64], NDArray[Any] | None]:
    """Return a 2-D float64 array and, for a DataFrame, its column names."""
    table = _as_floats(values, name)
    if table.ndim != 2:
        hint = " Use reshape(-1, 1) for a single column." if table.ndim == 1 else ""
        hint += " Are theta and X swapped? It is fit(theta, X)." if table.ndim == 3 else ""
        raise ValueError(f"{name} must have shape (n, p); got shape {table.shape}.{hint}")
    if table.shape[1] == 0:
        raise ValueError(
            f"{name} has 0 feature(s) (shape={table.shape}) while a minimum of 1 is required."
        )
    return table, _get_feature_names(values)


def pack(X: Any, *, missing: str = "error", name: str = "X") -> Packed:
    """Pack a batch of observations.

    Parameters
    ----------
    X : array-like, shape (n, d) or (n, S, d), or a list, tuple or object array of n arrays
        Vectors, sets, or ragged sets (S_i, d). Rows of a set that are all NaN mean "no point here".
    missing : {"error", "mask"}
        What to do about NaN inside a present row.
    name : str, default="X"
        What errors call it.

    Returns
    -------
    Packed

    Raises
    ------
    ValueError
        On infinite values, on NaN (unless masked), on empty sets; rows and columns are named.
    """
    if _is_ragged(X):
        packed = _pack_sets([_as_floats(x, f"{name}[{i}]") for i, x in enumerate(X)])
    else:
        array = _as_floats(X, name)
        if array.ndim not in _KINDS:
            raise ValueError(
                f"{name} must be {_KINDS[2]} or {_KINDS[3]}; got shape {array.shape}."
                + (" Use reshape(-1, 1) for a single feature." if array.ndim == 1 else "")
            )
        if array.shape[-1] == 0:
            raise ValueError(
                f"{name} has 0 feature(s) (shape={array.shape}) while a minimum of 1 is required."
            )
        packed = Packed(array) if array.ndim == 2 else _pack_sets(array)
    if not len(packed):
        raise ValueError(f"{name} holds no observation, 0 sample(s): at least one is needed.")
    _check_finite(packed, missing, name)
    return packed


def as_batch(X: Any, n_axes: int) -> tuple[Any, bool]:
    """Tell one observation from many by the number of axes that `fit` saw.

    Returns
    -------
    X : as given, or an array with one more axis
        A batch.
    single : bool
        Whether X was one observation: an array with one axis fewer than in `fit`.
    """
    axes = axes_of(X)
    if axes == n_axes:
        return X, False
    if axes == n_axes - 1 and not isinstance(X, list | tuple):
        row_of_frame = axes == 1 and hasattr(X, "to_frame")  # which knows the columns' names
        return X.to_frame().T if row_of_frame else np.asarray(X)[None], True
    raise ValueError(
        f"This estimator was fitted on {_KINDS[n_axes]}; got "
        f"{_KINDS[3] if _is_ragged(X) else getattr(X, 'shape', type(X).__name__)}, with {axes} "
        f"axes. Pass a batch with {n_axes}, or one observation as an array with {n_axes - 1}."
    )


def axes_of(X: Any) -> int:
    """Return X's number of axes; a sequence of separate sets has three."""
    if isinstance(X, list | tuple):
        return 1 + (len(_shape(X[0])) if len(X) else 0)
    return 3 if _is_ragged(X) else len(_shape(X))


def width_of(X: Any) -> int:
    """Return the number of features of a batch."""
    separate = isinstance(X, list | tuple) or _is_ragged(X)
    return int(_shape(X[0] if separate else X)[-1])


def _shape(X: Any) -> tuple[int, ...]:
    return tuple(X.shape) if hasattr(X, "shape") else np.asarray(X).shape


def _is_ragged(X: Any) -> bool:
    """Whether X is a sequence of separate sets rather than one array."""
    if isinstance(X, np.ndarray):
        return X.dtype == object and X.ndim == 1
    return isinstance(X, list | tuple) and len(X) > 0 and np.ndim(X[0]) == 2


def _as_floats(values: Any, name: str) -> NDArray[np.float64]:
    if values is None:
        raise ValueError(
            f"{name} is None. Expected array-like (array or non-string sequence), got None: "
            "fit(theta, X) needs both."
        )
    if hasattr(values, "toarray"):
        raise TypeError(f"{name} is sparse; skbi needs a dense array: pass {name}.toarray().")
    try:
        array = np.asarray(values)
        if array.dtype.kind == "c":
            raise ValueError("Complex data not supported: pass real and imaginary parts apart")
        if array.dtype.kind not in "buifO":
            raise ValueError(f"its dtype is {array.dtype}")
        if array.dtype == np.float32 and array.flags.c_contiguous and file_of(array) is not None:
            return array
        return np.asarray(array, dtype=np.float64, order="C")
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} must be an array of real numbers; {error}.") from error


def _pack_sets(sets: Sequence[NDArray[np.float64]] | NDArray[np.float64]) -> Packed:
    widths = {x.shape[1:] for x in sets}
    if len(sets) and (len(widths) != 1 or sets[0].ndim != 2):
        raise ValueError(
            "Every set must be an array (S_i, d) with the same d; got shapes "
            f"{[x.shape for x in sets[:5]]}... A set of numbers is an array (S_i, 1)."
        )
    if isinstance(sets, np.ndarray):
        points = sets.reshape(-1, sets.shape[2])
        sizes = np.full(len(sets), sets.shape[1])
    else:
        points = np.concatenate(sets) if len(sets) else np.empty((0, 1))
        sizes = np.array([len(x) for x in sets], dtype=np.int64)
    if any(np.isnan(part).any() and np.isnan(part).all(axis=1).any() for part in chunks(points)):
        absent = np.isnan(points).all(axis=1)
        owner = np.repeat(np.arange(len(sizes)), sizes)
        points, sizes = points[~absent], np.bincount(owner[~absent], minlength=len(sizes))
    if (sizes == 0).any():
        raise ValueError(
            f"Every set needs at least one point; sets {np.flatnonzero(sizes == 0)[:5].tolist()} "
            "have none (all-NaN rows mean 'no point here')."
        )
    return Packed(points, sizes.astype(np.int64))


def _check_finite(packed: Packed, missing: str, name: str) -> None:
    allowed = (lambda x: ~np.isinf(x)) if missing == "mask" else np.isfinite
    if all(allowed(part).all() for part in chunks(packed.points)):
        return
    infinite, bad = np.isinf(packed.points), ~allowed(packed.points)
    rows, columns = np.nonzero(infinite if infinite.any() else bad)
    where = rows
    if packed.sizes is not None:
        where = np.searchsorted(np.cumsum(packed.sizes), rows, side="right")
    if infinite.any():
        raise ValueError(
            f"{name} has infinite values, first in row {where[0]}, column {columns[0]}. Remove or "
            "transform them."
        )
    raise ValueError(
        f"{name} has missing values (NaN) in rows {np.unique(where)[:5].tolist()}, first in column "
        f"{columns[0]}. Impute them, drop the rows knowing why they are missing, or use "
        "missing='mask' to let the network know which entries are missing."
    )
