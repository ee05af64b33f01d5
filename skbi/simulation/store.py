"""Results of a run, kept in memory or in a folder of files that outlives the process.

Observations are items of one array, one after another. A vector is one item, and a set has one item
for each of its points.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import CodeType
from typing import IO, Any, NamedTuple
from zipfile import BadZipFile

import joblib
import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from skbi.simulation.observations import ObservationSpec
from skbi.simulation.tasks import Failure, Outcome

__all__ = ["Results", "StoredResults", "choose_seed", "describe"]

_FORMAT_VERSION = 1
_HEADER_FILE, _CHUNK_FOLDER = "store.json", "chunks"
_SECONDS_BETWEEN_WRITES = 1.0


class Results:
    """Observations and failures of a run, in memory.

    Parameters
    ----------
    n_samples : int
        Number of simulations in the run.

    Attributes
    ----------
    sizes : ndarray of int, shape (n_samples,)
        Number of items of each observation: 0 if its simulation failed, and -1 if it is pending.
    spec : ObservationSpec or None
        What an observation looks like, once one is known.
    failures : list of Failure
    """

    def __init__(self, n_samples: int) -> None:
        self.sizes = np.full(n_samples, -1)
        self.spec: ObservationSpec | None = None
        self.failures: list[Failure] = []
        self._observations: list[_Observations] = []

    @property
    def is_pending(self) -> NDArray[np.bool_]:
        """Which simulations are still to be done, shape (n_samples,)."""
        return self.sizes < 0

    def add(self, outcome: Outcome) -> None:
        """Add the outcome of a task."""
        sizes = np.ones_like(outcome.rows) if outcome.sizes is None else outcome.sizes
        self._record(outcome.rows, sizes, outcome.failures, outcome.spec)
        self._observations.append(_Observations(outcome.rows, outcome.X, sizes))

    def flush(self) -> None:
        """Write what is not yet written. Results in memory write nothing."""

    def finish(
        self, theta: NDArray[np.float64], on_error: str
    ) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """Return theta and X in the order of the rows, and release the results.

        Failed simulations are filled with NaN if ``on_error`` is "nan", and left out otherwise.
        """
        X, sizes = self._assemble(self._release(), on_error, np.empty)
        return theta[self._kept_rows(on_error)], _cut_into_sets(X, sizes)

    def _record(
        self,
        rows: NDArray[np.int64],
        sizes: NDArray[np.int64],
        failures: list[Failure],
        spec: ObservationSpec | None,
    ) -> None:
        """Record which simulations are done, without their observations."""
        self.sizes[rows] = sizes
        self.sizes[[failure.row for failure in failures]] = 0
        self.failures += failures
        self.spec = self.spec or spec

    def _release(self) -> Iterator[_Observations]:
        """Yield the observations, the last ones first, and keep none of them."""
        while self._observations:
            yield self._observations.pop()

    def _kept_rows(self, on_error: str) -> NDArray[np.int64]:
        return np.flatnonzero(self.sizes >= (0 if on_error == "nan" else 1))

    def _assemble(
        self, parts: Iterable[_Observations], on_error: str, create: Callable[..., NDArray[Any]]
    ) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
        """Write all observations to one array in the order of their rows.

        If sets differ in size, the array holds their points and is returned with their sizes.
        Otherwise the sizes are None. ``create`` makes an array of a shape and a dtype.
        """
        kept, known_sizes = self._kept_rows(on_error), self.sizes[self.sizes > 0]
        common_size = int(known_sizes[0]) if (known_sizes == known_sizes[0]).all() else 0
        sizes = np.where(self.sizes > 0, self.sizes, common_size)[kept]
        starts = np.zeros_like(self.sizes)
        starts[kept] = np.cumsum(sizes) - sizes
        is_set = self.spec.shape[0] is None
        item_shape = self.spec.shape[1:] if is_set else self.spec.shape
        in_sets = [len(kept), common_size] if is_set else [len(kept)]
        leading_shape = in_sets if common_size else [int(sizes.sum())]
        X = create(shape=(*leading_shape, *item_shape), dtype=self.spec.dtype)
        items = X.reshape(-1, *item_shape)
        for failed in kept[self.sizes[kept] == 0]:
            items[starts[failed] : starts[failed] + common_size] = np.nan
        for part in filter(lambda part: len(part.rows), parts):
            items[_positions(starts[part.rows], part.sizes)] = part.items
        return X, None if common_size else sizes


class StoredResults(Results):
    """Observations and failures of a run, in a folder.

    While the run goes on, the folder holds chunks of results. Once all simulations are done, it
    holds ``X.npy``, ``theta.npy`` and, for sets of several sizes, ``sizes.npy``.

    Parameters
    ----------
    folder : path
        If it holds results of this run, these are taken over.
    n_samples : int
        Number of simulations in the run.
    made_by : dict
        Everything that decides the results, as values that JSON can represent.
    seed : int or None
        The seed for later runs that give none.

    Raises
    ------
    ValueError
        If the folder holds other files or the results of another run, or if a chunk is damaged.
    """

    def __init__(self, folder: Any, n_samples: int, made_by: dict[str, Any], seed: Any) -> None:
        super().__init__(n_samples)
        self.folder, self._time_of_write = Path(folder), time.monotonic()
        self._n_failures_written = 0
        self._header = _read_header(self.folder)
        if self._header is None:
            self._header = {
                "format": _FORMAT_VERSION,
                "seed": seed,
                "made_by": made_by,
                "finished": None,
            }
            self._write_header()
        _check_made_by(self.folder, self._header["made_by"], made_by)
        self._resume()

    @property
    def finished(self) -> bool:
        """Whether all simulations are done and in order."""
        return self._header["finished"] is not None

    def add(self, outcome: Outcome) -> None:
        """Add the outcome of a task, and write a chunk if the last one is a second old."""
        super().add(outcome)
        if time.monotonic() - self._time_of_write > _SECONDS_BETWEEN_WRITES:
            self.flush()

    def flush(self) -> None:
        """Write a chunk of what is not yet written."""
        parts, failures = [*self._release()][::-1], self.failures[self._n_failures_written :]
        if parts:
            rows = np.concatenate([part.rows for part in parts])
            first_row = min([*rows, *(failure.row for failure in failures)])
            with _written_atomically(self._chunk_path(first_row)) as file:
                np.savez(
                    file,
                    rows=rows,
                    X=np.concatenate([part.items for part in parts if len(part.rows)] or [[]]),
                    sizes=np.concatenate([part.sizes for part in parts]),
                    failures=json.dumps(failures),
                    kind=json.dumps(self.spec),
                )
        self._time_of_write, self._n_failures_written = time.monotonic(), len(self.failures)

    def finish(
        self, theta: NDArray[np.float64], on_error: str
    ) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """Return theta and X in the order of the rows, as memory-mapped arrays.

        The first call puts the chunks in order, which leaves failed simulations out or fills them
        with NaN. Later calls must be made with the same ``on_error``.
        """
        if not self.finished:
            self.flush()
            self._complete(theta, on_error)
        finished = self._header["finished"]
        if finished["on_error"] not in (on_error, None):
            raise ValueError(
                f"{self.folder} was completed with on_error={finished['on_error']!r} and has "
                f"failed simulations; got on_error={on_error!r}. Ask for the same, or use another "
                "folder."
            )
        arrays = {
            name: self._open_array(name, checksum) for name, checksum in finished["files"].items()
        }
        return arrays["theta.npy"], _cut_into_sets(arrays["X.npy"], arrays.get("sizes.npy"))

    def _resume(self) -> None:
        """Take over what earlier runs have done."""
        if self.finished:
            self.failures = [Failure(*f) for f in self._header["finished"]["failures"]]
            self.sizes[:] = 1
            shutil.rmtree(self.folder / _CHUNK_FOLDER, ignore_errors=True)
            return
        (self.folder / _CHUNK_FOLDER).mkdir(exist_ok=True)
        for path in self._chunk_paths():
            with _opened_chunk(path) as chunk:
                failures = [Failure(*f) for f in json.loads(str(chunk["failures"]))]
                spec = _spec_from_json(str(chunk["kind"]))
                self._record(chunk["rows"], chunk["sizes"], failures, spec)
        self._n_failures_written = len(self.failures)

    def _complete(self, theta: NDArray[np.float64], on_error: str) -> None:
        """Replace the chunks by arrays in the order of the rows, with checksums in the header."""
        create = partial(open_memmap, self.folder / "X.npy", mode="w+")
        X, sizes = self._assemble(map(_read_observations, self._chunk_paths()), on_error, create)
        X.flush()
        arrays = {"theta.npy": theta[self._kept_rows(on_error)]}
        arrays |= {} if sizes is None else {"sizes.npy": sizes}
        for name, array in arrays.items():
            with _written_atomically(self.folder / name) as file:
                np.save(file, array)
        self._header["finished"] = {
            "on_error": on_error if self.failures else None,
            "failures": sorted(self.failures),
            "files": {name: _file_checksum(self.folder / name) for name in ["X.npy", *arrays]},
        }
        self._write_header()
        shutil.rmtree(self.folder / _CHUNK_FOLDER)

    def _chunk_path(self, first_row: int) -> Path:
        return self.folder / _CHUNK_FOLDER / f"{first_row:012d}.npz"

    def _chunk_paths(self) -> list[Path]:
        return sorted((self.folder / _CHUNK_FOLDER).glob("*.npz"))

    def _open_array(self, name: str, checksum: str) -> NDArray[Any]:
        if _file_checksum(self.folder / name) != checksum:
            raise ValueError(
                f"{self.folder / name} is not what was written: its checksum differs. Restore it, "
                "or delete the folder and simulate again."
            )
        return np.load(self.folder / name, mmap_mode="r", allow_pickle=False)

    def _write_header(self) -> None:
        with _written_atomically(self.folder / _HEADER_FILE) as file:
            file.write(json.dumps(self._header, indent=1).encode())


def choose_seed(folder: Any, random_state: Any) -> Any:
    """Return the seed of a run with a store.

    That is ``random_state``, or if it is None the seed of the store, or a new one if there is no
    store yet.
    """
    if random_state is not None:
        return random_state
    header = _read_header(Path(folder))
    return np.random.SeedSequence().entropy if header is None else header["seed"]


def describe(value: Any) -> Any:
    """Describe a simulator by what decides its results, in values that JSON can represent.

    A scikit-learn estimator is described by its parameters except ``random_state``, a function by
    its code and by the values that it is bound to, and any other object by a hash. The code of
    functions that a function calls is not part of its description.
    """
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, partial):
        return describe([value.func, value.args, value.keywords])
    if hasattr(value, "__code__"):
        closure = [cell.cell_contents for cell in value.__closure__ or ()]
        bound = [value.__defaults__, value.__kwdefaults__, getattr(value, "__self__", None)]
        values = [item for item in [*bound, *closure] if item is not value]
        return [value.__qualname__, _code_checksum(value.__code__), *describe(values)]
    if hasattr(value, "get_params"):
        params = {k: v for k, v in value.get_params(deep=False).items() if k != "random_state"}
        return [type(value).__qualname__, describe(params)]
    return value if isinstance(value, str | int | float | None) else joblib.hash(value)


def _code_checksum(code: CodeType) -> str:
    """Return a checksum of a function's code that is the same in every process."""
    constants = []
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            constants.append(_code_checksum(constant))
        elif isinstance(constant, frozenset):  # its order depends on the process
            constants.append(repr(sorted(map(repr, constant))))
        else:
            constants.append(repr(constant))
    return hashlib.sha256(repr((code.co_code, code.co_names, constants)).encode()).hexdigest()


class _Observations(NamedTuple):
    """Items of the observations of some rows, and the number of items of each observation."""

    rows: NDArray[np.int64]
    items: NDArray[Any]
    sizes: NDArray[np.int64]


def _positions(starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions of all items of observations that begin at ``starts``."""
    n_items_before = np.cumsum(sizes) - sizes
    return np.repeat(starts - n_items_before, sizes) + np.arange(sizes.sum())


def _cut_into_sets(X: NDArray[Any], sizes: NDArray[np.int64] | None) -> NDArray[Any]:
    """Cut points into sets of several sizes, as an object array of views.

    Without sizes, X is returned unchanged.
    """
    if sizes is None:
        return X
    sets = np.empty(len(sizes), dtype=object)
    sets[:] = np.split(X, np.cumsum(sizes)[:-1])
    return sets


def _read_header(folder: Path) -> dict[str, Any] | None:
    """Read the header of a store, or return None if the folder is empty or does not exist."""
    path = folder / _HEADER_FILE
    if not path.exists():
        if any(other.suffix != ".part" for other in folder.glob("*")):
            raise ValueError(
                f"{folder} is not empty and holds no {_HEADER_FILE}: use another folder."
            )
        return None
    header = json.loads(path.read_text())
    if header["format"] != _FORMAT_VERSION:
        raise ValueError(
            f"{folder} has format {header['format']}; this version of skbi reads format "
            f"{_FORMAT_VERSION}. Use the version that wrote it, or another folder."
        )
    return header


def _check_made_by(folder: Path, stored: dict[str, Any], requested: dict[str, Any]) -> None:
    changed = [key for key, value in requested.items() if stored.get(key) != value]
    if changed:
        changes = "; ".join(
            f"{key}: {stored.get(key)!r:.200} in the store, {requested[key]!r:.200} now"
            for key in changed
        )
        raise ValueError(
            f"{folder} holds simulations of another {' and '.join(changed)} ({changes}). Use the "
            "arguments that it was made with, or another folder."
        )


@contextmanager
def _written_atomically(path: Path) -> Iterator[IO[bytes]]:
    """Write a file so that it is complete or absent, even if the process is killed meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    with open(unfinished, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


@contextmanager
def _opened_chunk(path: Path) -> Iterator[Mapping[str, NDArray[Any]]]:
    """Open a chunk, whose content is checked against the checksums of its zip file when read."""
    try:
        with np.load(path, allow_pickle=False) as chunk:
            yield chunk
    except (BadZipFile, ValueError) as error:
        raise ValueError(
            f"{path} is damaged ({error}). Delete that file: its pairs are simulated again."
        ) from error


def _read_observations(path: Path) -> _Observations:
    with _opened_chunk(path) as chunk:
        return _Observations(chunk["rows"], chunk["X"], chunk["sizes"])


def _spec_from_json(text: str) -> ObservationSpec | None:
    spec = json.loads(text)
    return None if spec is None else ObservationSpec(spec[0], tuple(spec[1]))


def _file_checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
