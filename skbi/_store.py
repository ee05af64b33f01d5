"""Where outcomes are kept: in memory, or in a folder of .npy and JSON files that outlives a kill.

Observations are laid one after another: a vector is one item, a set as many as it has points.
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

from skbi._tasks import Failure, Kind, Outcome

__all__ = ["Memory", "Store", "describe", "seed_of"]

_FORMAT = 1
_SECONDS = 1.0  # between writes
_HEAD, _CHUNKS = "store.json", "chunks"


class Part(NamedTuple):
    """Observations of some rows, laid one after another, and how many items each has."""

    rows: NDArray[np.int64]
    X: NDArray[Any]
    sizes: NDArray[np.int64]


class Memory:
    """Outcomes in memory.

    ``sizes`` (n_samples,) says how many items each observation has, 0 if it failed and -1 if it is
    yet to come; ``kind`` what observations look like, once one is known.
    """

    def __init__(self, n_samples: int) -> None:
        self.sizes = np.full(n_samples, -1)
        self.kind: Kind | None = None
        self.failures: list[Failure] = []
        self._parts: list[Part] = []

    def add(self, outcome: Outcome) -> None:
        """Take what a worker sent."""
        sizes = np.ones_like(outcome.rows) if outcome.sizes is None else outcome.sizes
        part = Part(outcome.rows, outcome.X, sizes)
        self._note(part.rows, sizes, outcome.failures, outcome.kind)
        self._parts.append(part)

    def flush(self) -> None:
        """Write what is not yet written: here, nothing."""

    def finish(
        self, theta: NDArray[np.float64], on_error: str
    ) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """Return the pairs in order, failed ones left out or NaN; the parts are given up."""
        X, sizes = self._merge(self._drain(), on_error, np.empty)
        return theta[self._kept(on_error)], _cut(X, sizes)

    def _drain(self) -> Iterator[Part]:
        while self._parts:
            yield self._parts.pop()

    def _note(
        self,
        rows: NDArray[np.int64],
        sizes: NDArray[np.int64],
        failures: list[Failure],
        kind: Kind | None,
    ) -> None:
        self.sizes[rows] = sizes
        self.sizes[[failure.row for failure in failures]] = 0
        self.failures += failures
        self.kind = self.kind or kind

    def _kept(self, on_error: str) -> NDArray[np.int64]:
        return np.flatnonzero(self.sizes >= (0 if on_error == "nan" else 1))

    def _merge(
        self, parts: Iterable[Part], on_error: str, create: Callable[..., NDArray[Any]]
    ) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
        """Write the parts to their places; also return how to cut X into sets unlike in size."""
        kept, found = self._kept(on_error), self.sizes[self.sizes > 0]
        same = int(found[0]) if (found == found[0]).all() else 0
        sizes = np.where(self.sizes > 0, self.sizes, same)[kept]
        starts = np.zeros_like(self.sizes)
        starts[kept] = np.cumsum(sizes) - sizes
        size, *item = self.kind.shape if self.kind.shape[0] is None else (1, *self.kind.shape)
        axes = [int(sizes.sum())] if not same else [len(kept)] if size else [len(kept), same]
        X = create(shape=(*axes, *item), dtype=self.kind.dtype)
        flat = X.reshape(-1, *item)
        for failed in kept[self.sizes[kept] == 0]:
            flat[starts[failed] : starts[failed] + same] = np.nan
        for part in filter(lambda part: len(part.rows), parts):
            flat[_spread(starts[part.rows], part.sizes)] = part.X
        return X, None if same else sizes


class Store(Memory):
    """Outcomes in a folder: chunks while they come, X.npy and theta.npy once they are complete.

    Parameters
    ----------
    folder : path
    n_samples : int
    made_by : dict
        What decides the results, as plain values: a folder of others is refused.
    seed : int or None
        With which a run without a seed of its own goes on.
    """

    def __init__(self, folder: Any, n_samples: int, made_by: dict[str, Any], seed: Any) -> None:
        super().__init__(n_samples)
        self.folder, self._written, self._n_told = Path(folder), time.monotonic(), 0
        self._head = _read_head(self.folder)
        if self._head is None:
            self._head = {"format": _FORMAT, "seed": seed, "made_by": made_by, "finished": None}
            self._write_head()
        _check_same(self.folder, self._head["made_by"], made_by)
        self._resume()

    @property
    def finished(self) -> bool:
        """Whether all pairs are here."""
        return self._head["finished"] is not None

    def add(self, outcome: Outcome) -> None:
        """Take what a worker sent, and write what came in the last second."""
        super().add(outcome)
        if time.monotonic() - self._written > _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write a chunk of what is not yet written."""
        parts, failures = [*self._drain()][::-1], self.failures[self._n_told :]
        if parts:
            rows = np.concatenate([part.rows for part in parts])
            first = min([*rows, *(failure.row for failure in failures)])
            with _written_at_once(self.folder / _CHUNKS / f"{first:012d}.npz") as file:
                np.savez(
                    file,
                    rows=rows,
                    X=np.concatenate([part.X for part in parts if len(part.rows)] or [[]]),
                    sizes=np.concatenate([part.sizes for part in parts]),
                    failures=json.dumps(failures),
                    kind=json.dumps(self.kind),
                )
        self._written, self._n_told = time.monotonic(), len(self.failures)

    def finish(
        self, theta: NDArray[np.float64], on_error: str
    ) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """Put the chunks in order, once; return the pairs as memory-mapped arrays."""
        if not self.finished:
            self.flush()
            self._complete(theta, on_error)
        found = self._head["finished"]
        if found["on_error"] not in (on_error, None):
            raise ValueError(
                f"{self.folder} was completed with on_error={found['on_error']!r} and has failed "
                f"simulations; got on_error={on_error!r}. Ask for the same, or use another folder."
            )
        arrays = {name: self._open(name, digest) for name, digest in found["files"].items()}
        return arrays["theta.npy"], _cut(arrays["X.npy"], arrays.get("sizes.npy"))

    def _complete(self, theta: NDArray[np.float64], on_error: str) -> None:
        create = partial(open_memmap, self.folder / "X.npy", mode="w+")
        X, sizes = self._merge(map(_read_part, self._paths()), on_error, create)
        X.flush()
        arrays = {"theta.npy": theta[self._kept(on_error)]}
        arrays |= {} if sizes is None else {"sizes.npy": sizes}
        for name, array in arrays.items():
            with _written_at_once(self.folder / name) as file:
                np.save(file, array)
        digests = {name: _digest(self.folder / name) for name in ["X.npy", *arrays]}
        on_error = on_error if self.failures else None
        failures = sorted(self.failures)
        self._head["finished"] = {"on_error": on_error, "failures": failures, "files": digests}
        self._write_head()
        shutil.rmtree(self.folder / _CHUNKS)

    def _resume(self) -> None:
        """Recall what earlier runs have done."""
        if self.finished:
            self.failures = [Failure(*f) for f in self._head["finished"]["failures"]]
            self.sizes[:] = 1
            shutil.rmtree(self.folder / _CHUNKS, ignore_errors=True)
            return
        (self.folder / _CHUNKS).mkdir(exist_ok=True)
        for path in self._paths():
            with _chunk(path) as chunk:
                failures = [Failure(*f) for f in json.loads(str(chunk["failures"]))]
                self._note(chunk["rows"], chunk["sizes"], failures, _as_kind(chunk["kind"]))
        self._n_told = len(self.failures)

    def _paths(self) -> list[Path]:
        return sorted((self.folder / _CHUNKS).glob("*.npz"))

    def _open(self, name: str, digest: str) -> NDArray[Any]:
        if _digest(self.folder / name) != digest:
            raise ValueError(
                f"{self.folder / name} is not what was written: its checksum differs. Restore it, "
                "or delete the folder and simulate again."
            )
        return np.load(self.folder / name, mmap_mode="r", allow_pickle=False)

    def _write_head(self) -> None:
        with _written_at_once(self.folder / _HEAD) as file:
            file.write(json.dumps(self._head, indent=1).encode())


def seed_of(folder: Any, random_state: Any) -> Any:
    """Return the seed to go on with: the given one, or else the store's, or else a new one."""
    if random_state is not None:
        return random_state
    head = _read_head(Path(folder))
    return np.random.SeedSequence().entropy if head is None else head["seed"]


def describe(value: Any) -> Any:
    """Tell what decides a simulator's results: parameters, functions by their code, data by hash.

    What its functions call in turn is not looked at.
    """
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, partial):
        return describe([value.func, value.args, value.keywords])
    if hasattr(value, "__code__"):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        bound = [value.__defaults__, value.__kwdefaults__, getattr(value, "__self__", None)]
        inside = [item for item in [*bound, *cells] if item is not value]
        return [value.__qualname__, _code_digest(value.__code__), *describe(inside)]
    if hasattr(value, "get_params"):
        params = {k: v for k, v in value.get_params(deep=False).items() if k != "random_state"}
        return [type(value).__qualname__, describe(params)]
    return value if isinstance(value, str | int | float | None) else joblib.hash(value)


def _code_digest(code: CodeType) -> str:
    constants = []
    for constant in code.co_consts:
        nested = isinstance(constant, CodeType)
        ordered = sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant
        constants.append(_code_digest(constant) if nested else repr(ordered))
    return hashlib.sha256(repr((code.co_code, code.co_names, constants)).encode()).hexdigest()


def _check_same(folder: Path, stored: dict[str, Any], asked: dict[str, Any]) -> None:
    other = {
        key: (stored.get(key), value) for key, value in asked.items() if stored.get(key) != value
    }
    if other:
        what = "; ".join(
            f"{key}: {old!r:.200} there, {new!r:.200} now" for key, (old, new) in other.items()
        )
        raise ValueError(
            f"{folder} holds simulations of another {' and '.join(other)} ({what}). Go on with "
            "what it was begun with, or use another folder."
        )


def _read_head(folder: Path) -> dict[str, Any] | None:
    if not (folder / _HEAD).exists():
        if any(path.suffix != ".part" for path in folder.glob("*")):
            raise ValueError(f"{folder} is not empty and holds no {_HEAD}: use another folder.")
        return None
    head = json.loads((folder / _HEAD).read_text())
    if head["format"] != _FORMAT:
        raise ValueError(f"{folder} has format {head['format']}; this version reads {_FORMAT}.")
    return head


@contextmanager
def _written_at_once(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that is there in full or not at all, whenever the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    with open(unfinished, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


@contextmanager
def _chunk(path: Path) -> Iterator[Mapping[str, NDArray[Any]]]:
    """Open a chunk; what is read from it is checked against the checksums of its zip file."""
    try:
        with np.load(path, allow_pickle=False) as chunk:
            yield chunk
    except (BadZipFile, ValueError) as error:
        raise ValueError(
            f"{path} is damaged ({error}). Delete that file: its pairs are simulated again."
        ) from error


def _read_part(path: Path) -> Part:
    with _chunk(path) as chunk:
        return Part(chunk["rows"], chunk["X"], chunk["sizes"])


def _as_kind(text: NDArray[np.str_]) -> Kind | None:
    found = json.loads(str(text))
    return None if found is None else Kind(found[0], tuple(found[1]))


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _spread(starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of all items of sets that begin at ``starts``."""
    before = np.cumsum(sizes) - sizes
    return np.repeat(starts - before, sizes) + np.arange(sizes.sum())


def _cut(X: NDArray[Any], sizes: NDArray[np.int64] | None) -> NDArray[Any]:
    """Cut into sets unlike in size, an object array of views; leave the rest as it is."""
    if sizes is None:
        return X
    sets = np.empty(len(sizes), dtype=object)
    sets[:] = np.split(X, np.cumsum(sizes)[:-1])
    return sets
