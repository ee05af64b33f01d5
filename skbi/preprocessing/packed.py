"""Observations of every kind in one form; this is the only file that knows what an X is.

n observations become one array of points (N, d). For sets there are also the n sizes, with sum N:

    X = [x_1 (S_1, d), ..., x_n (S_n, d)]  ->  points = concatenate(X), sizes = [S_1, ..., S_n].

Padding is dropped here and never seen again, so that a ragged batch costs what its points cost.
Series are packed like sets, but for their order, and so are images: row after row of pixels.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import _get_feature_names
from torch import Tensor

from skbi.preprocessing.batches import Batch
from skbi.preprocessing.shapes import describe_uneven_rows

__all__ = [
    "Packed",
    "as_batch",
    "as_table",
    "axes_of",
    "chunks",
    "file_of",
    "pack",
    "release_pages",
    "to_tensor",
    "width_of",
]

_NUMBERS_PER_CHUNK = 2**23  # 64 MB in double precision
_OBSERVATIONS_PER_READ = 64  # from a memory-mapped file, before its pages are released
_FORMS = {  # by the order of points, and the number of axes
    None: {2: "vectors (n, d)", 3: "sets (n, S, d), or a list of n arrays (S_i, d)"},
    "series": {
        2: "series (n, T), or a list of n arrays (T_i,)",
        3: "series (n, T, c), or a list of n arrays (T_i, c)",
    },
    "image": {3: "images (n, H, W)", 4: "images (n, H, W, channels)"},
}


@dataclass(frozen=True)
class Packed:
    """n observations in packed form; slicing them gives packed observations again.

    Attributes
    ----------
    points : ndarray, shape (N, d)
        The observations themselves (vectors), or the points of all sets, one set after another.
    sizes : ndarray of int, shape (n,), or None
        Number of points of each set; None for vectors.
    order : {"series", "image"} or None
        What the order of an observation's points is: that of time, or that of the rows of a grid;
        None where it means nothing.
    grid : tuple of int or None
        Height and width of images.
    """

    points: NDArray[np.float64]
    sizes: NDArray[np.int64] | None = None
    order: str | None = None
    grid: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.points) if self.sizes is None else len(self.sizes)

    @property
    def n_axes(self) -> int:
        """2 for vectors, 3 for sets, and for series and images, which are packed like sets."""
        return 2 if self.sizes is None else 3

    def __getitem__(self, rows: slice) -> Packed:
        if self.sizes is None:
            return Packed(self.points[rows])
        start, stop, _ = rows.indices(len(self))
        points = self.points[self._edges[start] : self._edges[stop]]
        return replace(self, points=points, sizes=self.sizes[rows])

    def take(self, rows: NDArray[np.int64]) -> Packed:
        """Pick observations by their indices."""
        if self.sizes is None:
            return Packed(_copy_rows(self.points, rows, _OBSERVATIONS_PER_READ))
        sizes, starts = self.sizes[rows], self._edges[rows]
        offsets = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        points_per_read = _OBSERVATIONS_PER_READ * int(sizes.max(initial=1))
        points = _copy_rows(self.points, np.repeat(starts, sizes) + offsets, points_per_read)
        return replace(self, points=points, sizes=sizes)

    @property
    def lengths(self) -> tuple[int, int] | None:
        """The shortest and the longest length of series; None of other observations."""
        return (int(self.sizes.min()), int(self.sizes.max())) if self.order == "series" else None

    @cached_property
    def _edges(self) -> NDArray[np.int64]:
        """First row in ``points`` of every set, then the number of rows, (n + 1,)."""
        return np.concatenate([[0], np.cumsum(self.sizes)])

    def owners(self) -> NDArray[np.int64]:
        """Return the index of the observation that each point belongs to, (N,)."""
        n = np.arange(len(self))
        return n if self.sizes is None else np.repeat(n, self.sizes)

    def blocks(self, n_points: int) -> Iterator[slice]:
        """Cut the observations into consecutive slices of at most ``n_points`` points each.

        An observation that has more points is a slice of its own.
        """
        edges = np.arange(1, len(self) + 1) if self.sizes is None else self._edges[1:]
        start = used = 0
        while start < len(self):
            stop = max(start + 1, int(np.searchsorted(edges, used + n_points, side="right")))
            yield slice(start, stop)
            start, used = stop, int(edges[stop - 1])

    def tensors(self, points: NDArray[np.float64], like: Tensor) -> Batch:
        """Return a `Batch` with the type and device of ``like``.

        ``points`` (N, width) take the place of the observations' own: they are the same points as a
        network reads them.
        """
        sizes = None if self.sizes is None else torch.as_tensor(self.sizes, device=like.device)
        return Batch(to_tensor(points, like), sizes)


def _copy_rows(
    points: NDArray[np.float64], rows: NDArray[np.int64], n_per_read: int
) -> NDArray[np.float64]:
    """Copy rows of points (N, d); from a memory-mapped file only ``n_per_read`` rows at a time.

    A row brings its neighbours in the file into memory. They are released after every read.
    """
    if file_of(points) is None:
        return points[rows]
    copied = np.empty((len(rows), points.shape[1]), dtype=points.dtype)
    for start in range(0, len(rows), n_per_read):
        copied[start : start + n_per_read] = points[rows[start : start + n_per_read]]
        release_pages(points)
    return copied


def pack(X: Any, *, order: str | None = None, missing: str = "error", name: str = "X") -> Packed:
    """Pack a batch of observations.

    Parameters
    ----------
    X : array-like, shape (n, d) or (n, S, d), or a list, tuple or object array of n arrays
        Vectors, sets, or ragged sets (S_i, d). Rows of a set that are all NaN mean "no point here".
        Series are (n, T), (n, T, c), or n arrays (T_i,) or (T_i, c), and NaN at their end means
        that they have ended. Images are (n, H, W) or (n, H, W, channels).
    order : {"series", "image"} or None, default=None
        What X is, if not vectors or sets.
    missing : {"error", "mask"}, default="error"
        Whether NaN among other entries of a row is an error or stays NaN, for the mask of
        `FeatureMap`.
    name : str, default="X"
        What errors call X.

    Returns
    -------
    Packed

    Raises
    ------
    ValueError
        If X has another shape, holds no observation or an empty set, holds infinite values, or
        holds NaN and ``missing="error"``. The error names the first offending rows and column.
    TypeError
        If X is sparse.

    Examples
    --------
    >>> packed = pack([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0]]])
    >>> packed.points
    array([[1., 2.],
           [3., 4.],
           [5., 6.]])
    >>> packed.sizes
    array([2, 1])
    """
    if order == "image":
        packed = _pack_images(X, name)
    elif order == "series":
        packed = _pack_series(X, name)
    else:
        packed = _pack_ragged(X, name) if _is_ragged(X) else _pack_array(X, name)
    if not len(packed):
        raise ValueError(f"{name} holds no observation, 0 sample(s): at least one is needed.")
    _check_finite(packed, missing, name)
    return packed


def _is_ragged(X: Any) -> bool:
    """Tell whether X is a sequence of separate sets rather than one array."""
    if isinstance(X, np.ndarray):
        return X.dtype == object and X.ndim == 1
    return isinstance(X, list | tuple) and len(X) > 0 and np.ndim(X[0]) == 2


def _pack_ragged(X: Any, name: str) -> Packed:
    """Pack separate sets."""
    return _pack_sets([_as_floats(x, f"{name}[{i}]") for i, x in enumerate(X)])


def _pack_array(X: Any, name: str) -> Packed:
    """Pack vectors, or sets in one array."""
    array = _as_floats(X, name)
    hint = "Use reshape(-1, 1) for a single feature." if array.ndim == 1 else ""
    _check_form(array, name, None, hint or "Images are read with summary='image'.")
    return Packed(array) if array.ndim == 2 else _pack_sets(array)


def _pack_series(X: Any, name: str) -> Packed:
    """Pack series, without the NaN at their end."""
    separate = isinstance(X, list | tuple) and len(X) > 0 and np.ndim(X[0]) in (1, 2)
    if separate or _is_ragged(X):
        series = [_as_floats(x, f"{name}[{i}]") for i, x in enumerate(X)]
        array = [x[:, None] if x.ndim == 1 else x for x in series]
        if len({x.ndim for x in series}) > 1 or len({x.shape[1:] for x in array}) > 1:
            raise ValueError(
                "Every series must be an array (T_i,), or every one (T_i, c) with the same c; got "
                f"shapes {[x.shape for x in series[:5]]}..."
            )
        lengths, points = np.array([len(x) for x in array]), np.concatenate(array)
    else:
        array = _as_floats(X, name)
        _check_form(array, name, "series", "A single series is X[None].")
        lengths = np.full(len(array), array.shape[1])
        points = array.reshape(-1, array.shape[2] if array.ndim == 3 else 1)
    points, lengths = _drop_ends(points, lengths)
    if not lengths.all():
        raise ValueError(
            f"Every series needs at least one value; series {np.flatnonzero(lengths == 0)[:5]} "
            "have none (NaN at the end of a series means that it has ended)."
        )
    return Packed(points, lengths, "series")


def _drop_ends(
    points: NDArray[np.float64], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Drop the points after the last one of each series that is not all NaN."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(points)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    ends, present = np.zeros_like(lengths), ~np.isnan(points).all(axis=1)
    np.maximum.at(ends, owner[present], place[present] + 1)
    return points[place < ends[owner]], ends


def _pack_images(X: Any, name: str) -> Packed:
    """Pack images, row after row of pixels."""
    array = _as_floats(X, name)
    _check_form(array, name, "image", "All images must be of one size; a single image is X[None].")
    if array.ndim == 3:
        array = array[..., None]
    n, height, width, n_channels = array.shape
    if not height:
        raise ValueError(f"Images of {name} have no rows; got shape {array.shape}.")
    sizes = np.full(n, height * width)
    return Packed(array.reshape(-1, n_channels), sizes, "image", (height, width))


def _check_form(array: NDArray[np.float64], name: str, order: str | None, hint: str) -> None:
    """Refuse an array of another number of axes than observations of this kind have."""
    forms = _FORMS[order]
    if array.ndim not in forms:
        raise ValueError(
            f"{name} must be {' or '.join(forms.values())}; got shape {array.shape}. {hint}"
        )
    _check_has_columns(array, name)


def _as_floats(values: Any, name: str) -> NDArray[np.float64]:
    """Return a float64 array; one in single precision in a memory-mapped file stays as it is."""
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
        uneven = describe_uneven_rows(values, of_observations=name != "theta")
        reason = uneven or f"{error}."
        raise type(error)(f"{name} must be an array of real numbers; {reason}") from error


def _check_has_columns(array: NDArray[np.float64], name: str) -> None:
    if array.shape[-1] == 0:
        raise ValueError(
            f"{name} has 0 feature(s) (shape={array.shape}) while a minimum of 1 is required."
        )


def _pack_sets(sets: Sequence[NDArray[np.float64]] | NDArray[np.float64]) -> Packed:
    """Pack sets (S_i, d), without their padding."""
    widths = {x.shape[1:] for x in sets}
    if len(sets) and (len(widths) != 1 or sets[0].ndim != 2):
        raise ValueError(
            "Every set must be an array (S_i, d) with the same d; got shapes "
            f"{[x.shape for x in sets[:5]]}... A set of numbers is an array (S_i, 1); "
            "vectors (d,) of one length are one array, np.stack(X)."
        )
    if isinstance(sets, np.ndarray):
        points = sets.reshape(-1, sets.shape[2])
        sizes = np.full(len(sets), sets.shape[1])
    else:
        points = np.concatenate(sets) if len(sets) else np.empty((0, 1))
        sizes = np.array([len(x) for x in sets], dtype=np.int64)
    points, sizes = _drop_padding(points, sizes)
    if (sizes == 0).any():
        raise ValueError(
            f"Every set needs at least one point; sets {np.flatnonzero(sizes == 0)[:5].tolist()} "
            "have none (all-NaN rows mean 'no point here')."
        )
    return Packed(points, sizes.astype(np.int64))


def _drop_padding(
    points: NDArray[np.float64], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Drop the points that are all NaN, and count those that remain in every set."""
    if not any(np.isnan(x).any() and np.isnan(x).all(axis=1).any() for x in chunks(points)):
        return points, sizes
    present = ~np.isnan(points).all(axis=1)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    return points[present], np.bincount(owner[present], minlength=len(sizes))


def _check_finite(packed: Packed, missing: str, name: str) -> None:
    """Refuse infinite entries, and NaN unless they are to be masked."""
    allowed = (lambda x: ~np.isinf(x)) if missing == "mask" else np.isfinite
    if all(allowed(part).all() for part in chunks(packed.points)):
        return
    infinite, bad = np.isinf(packed.points), ~allowed(packed.points)
    points, columns = np.nonzero(infinite if infinite.any() else bad)
    rows = points
    if packed.sizes is not None:
        rows = np.searchsorted(np.cumsum(packed.sizes), points, side="right")
    if infinite.any():
        raise ValueError(
            f"{name} has infinite values, first in row {rows[0]}, column {columns[0]}. Remove or "
            "transform them."
        )
    raise ValueError(
        f"{name} has missing values (NaN) in rows {np.unique(rows)[:5].tolist()}, first in column "
        f"{columns[0]}. Impute them, drop the rows knowing why they are missing, or use NPE with "
        "missing='mask' to learn from incomplete ones. Failed ones NLE takes by failures='learn'."
    )


def as_batch(X: Any, n_axes: int, order: str | None = None) -> tuple[Any, bool]:
    """Turn a batch or one observation into a batch, told apart by the number of axes.

    Parameters
    ----------
    X : array-like
        A batch, with ``n_axes`` axes, or one observation, an array with one axis fewer.
    n_axes : int
        Number of axes of the X that an estimator was fitted on.
    order : {"series", "image"} or None, default=None
        What that X was, if not vectors or sets.

    Returns
    -------
    X : as given, or an array with one more axis
        A batch.
    single : bool
        Whether X was one observation.

    Raises
    ------
    ValueError
        If X has any other number of axes.
    """
    axes = axes_of(X)
    if axes == n_axes:
        return X, False
    if axes == n_axes - 1 and not isinstance(X, list | tuple):
        row_of_frame = axes == 1 and hasattr(X, "to_frame")  # whose labels are the feature names
        return X.to_frame().T if row_of_frame else np.asarray(X)[None], True
    got = _FORMS[order][3] if _is_ragged(X) else getattr(X, "shape", type(X).__name__)
    raise ValueError(
        f"This estimator was fitted on {_FORMS[order][n_axes]}; got {got}, with {axes} axes. Pass "
        f"a batch with {n_axes}, or one observation as an array with {n_axes - 1}."
    )


def as_table(
    values: Any, name: str, p: int | None = None
) -> tuple[NDArray[np.float64], NDArray[Any] | None]:
    """Return a 2-D float64 array and, for a DataFrame, its column names.

    Parameters
    ----------
    values : array-like or DataFrame, shape (n, p)
        Parameters, usually.
    name : str
        What errors call the values.
    p : int, optional
        How many columns are expected, by which errors recognise a single row.

    Returns
    -------
    table : ndarray, shape (n, p)
    column_names : ndarray of str, shape (p,), or None

    Raises
    ------
    ValueError
        If the values are no numbers, have no columns, or do not have two axes.
    TypeError
        If the values are sparse.
    """
    table = _as_floats(values, name)
    if table.ndim != 2:
        single_row = p is not None and table.shape == (p,) != (1,)
        shape, what = ("(1, -1)", "row") if single_row else ("(-1, 1)", "column")
        hint = f" Use reshape{shape} for a single {what}." if table.ndim == 1 else ""
        hint += " Are theta and X swapped? It is fit(theta, X)." if table.ndim == 3 else ""
        raise ValueError(f"{name} must have shape (n, p); got shape {table.shape}.{hint}")
    _check_has_columns(table, name)
    return table, _get_feature_names(values)


def axes_of(X: Any) -> int:
    """Return X's number of axes; a sequence of separate arrays has one more than these."""
    if isinstance(X, list | tuple) or _is_ragged(X):
        return 1 + (len(_shape(X[0])) if len(X) else 0)
    return len(_shape(X))


def width_of(X: Any, order: str | None = None) -> int:
    """Return the number of features of a batch: of a vector, a point, a time or a pixel."""
    if order is not None and axes_of(X) == min(_FORMS[order]):
        return 1
    separate = isinstance(X, list | tuple) or _is_ragged(X)
    return int(_shape(X[0] if separate else X)[-1])


def _shape(X: Any) -> tuple[int, ...]:
    return tuple(X.shape) if hasattr(X, "shape") else np.asarray(X).shape


def to_tensor(array: NDArray[Any], like: Tensor) -> Tensor:
    """Return an array as a tensor of the type and device of ``like``."""
    return torch.as_tensor(array, dtype=like.dtype, device=like.device)


def chunks(points: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """Go through points (N, d) in chunks of bounded size, so that a large file stays on disk."""
    step = max(1, _NUMBERS_PER_CHUNK // points.shape[1])
    for start in range(0, len(points), step):
        yield points[start : start + step]
        release_pages(points)


def file_of(array: NDArray[Any]) -> mmap.mmap | None:
    """Return the read-only memory map that holds an array's numbers; None if they are in memory."""
    mode, base = None, array
    while isinstance(base, np.ndarray):
        mode, base = getattr(base, "mode", mode), base.base
    return base if mode == "r" and isinstance(base, mmap.mmap) else None


def release_pages(array: NDArray[Any]) -> None:
    """Release the memory of what was read of a memory-mapped array; it can be read again."""
    file = file_of(array)
    if file is not None and hasattr(mmap, "MADV_DONTNEED"):
        file.madvise(mmap.MADV_DONTNEED)
