"""The maps between the user's units and the networks': theta <-> z and X -> x.

Networks learn best from numbers of order one that may take any value. Parameters become such
numbers through their prior's distribution functions, observations (and parameters without a prior)
through means, standard deviations and, for heavy tails, logarithms. A density in the user's units
is

    log q(theta) = log q_z(z) + log |det dz/dtheta|,    log q(X) = log q_x(x) + log |det dx/dX|.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from skbi.parallel import blocks, one_blas_thread
from skbi.preprocessing.batches import Batch, Indexer, MappedIndexer
from skbi.preprocessing.compression import MAX_FEATURES, Compression, Directions
from skbi.preprocessing.coordinates import ParameterMap
from skbi.preprocessing.features import FeatureMap
from skbi.preprocessing.location import Frame, join_frames
from skbi.preprocessing.packed import Packed, file_of
from skbi.preprocessing.projection import Projection
from skbi.priors import Prior

__all__ = ["Maps"]

_MAX_BYTES_IN_MEMORY = 2**28  # of a memory-mapped X; a larger one stays in its file
_NUMBERS_READ = 2**24  # of X, compressed at a time
_MIN_WIDTH = 16  # features from which on vectors are compressed
_MIN_PROJECTED_WIDTH = 33  # features from which on a density describes directions only
_N_EXAMINED = 1000  # pairs that tell whether narrower ones are:
_MIN_INFORMATION = 4.0  # nats a parameter from which on; noise of half a per cent of the prior
_MIN_COMPRESSED_PAIRS, _MAX_COMPRESSED_PAIRS = 2000, 10_000  # that a compression is fitted to
_COMPRESSED_NUMBERS = 4 * 10**7  # of X that a compression is fitted to, about


@dataclass(frozen=True)
class Maps:
    """The maps of an estimator.

    Attributes
    ----------
    theta : ParameterMap
    X : FeatureMap
    compression : Compression or None
        Of vectors of many features, whose columns come after those of X. From more than 128
        features on, networks read these columns only.
    projection : Projection or None
        Of vectors of many features whose density is learnt.
    with_frames : bool
        Whether `batch` gives the emulator's frames after the columns: centre and root of each.
    """

    theta: ParameterMap
    X: FeatureMap
    compression: Compression | None = None
    projection: Projection | None = None
    with_frames: bool = False

    @classmethod
    def fit(
        cls,
        prior: Prior | None,
        theta: NDArray[np.float64],
        X: Packed,
        mask: bool,
        *,
        flat_coordinates: bool = False,
        **tails: Any,
    ) -> Self:
        """Fit both maps to training pairs.

        Parameters
        ----------
        prior, theta, flat_coordinates
            As in `ParameterMap.fit`.
        X, mask, **tails
            As in `FeatureMap.fit`, where ``tails`` are ``asinh``, ``log`` and ``noise_width``.

        Returns
        -------
        Maps
        """
        parameters = ParameterMap.fit(prior, theta, flat_coordinates=flat_coordinates)
        return cls(parameters, FeatureMap.fit(X, mask, **tails))

    def with_compression(
        self,
        theta: NDArray[np.float64],
        X: Packed,
        training: NDArray[np.int64],
        rng: np.random.Generator,
        *,
        with_frames: bool = False,
    ) -> Self:
        """Return the maps with a compression of training pairs, if X is wide, masked or precise.

        An emulator says where a precise X puts theta far more closely than a network learns to.

        Parameters
        ----------
        theta : ndarray, shape (n, p)
        X : Packed
            n vectors or sets.
        training : ndarray of int
            The training pairs.
        rng : Generator
        with_frames : bool, default=False
            Whether batches are to hold the emulator's frames, if there is one.

        Returns
        -------
        Maps
        """
        if X.sizes is not None:
            return self
        narrow = self.X.n_features < _MIN_WIDTH and not self.X.mask
        if narrow and not self._are_precise(theta, X, training, rng.spawn(1)[0]):
            return self
        pairs = training[: self._n_compressed]
        compression = Compression.fit(self.theta, self.X, theta[pairs], X.take(pairs).points, rng)
        with_frames = with_frames and compression.location is not None
        return replace(self, compression=compression, with_frames=with_frames)

    def _are_precise(
        self,
        theta: NDArray[np.float64],
        X: Packed,
        training: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> bool:
        """Tell whether a regression of X on theta says that X tells very much of theta."""
        pairs = training[:_N_EXAMINED]
        if len(pairs) < _N_EXAMINED:
            return False
        w, x = self.theta.regressors(theta[pairs]), self.X.forward(X.take(pairs).points)
        directions = Directions.fit(w, x[:, : self.X.n_features], w.shape[1], rng)
        return directions.information > _MIN_INFORMATION * w.shape[1]

    def with_projection(
        self, theta: NDArray[np.float64], points: NDArray[np.float64], rng: np.random.Generator
    ) -> Self:
        """Return the maps with a projection of points (N, d), if they are wide.

        Parameters
        ----------
        theta : ndarray, shape (N, p)
            Of each point.
        points : ndarray, shape (N, d)
            Training points.
        rng : Generator

        Returns
        -------
        Maps
        """
        if self.X.n_features < _MIN_PROJECTED_WIDTH:
            return self
        w, some = self.theta.regressors(theta[: self._n_compressed]), points[: self._n_compressed]
        return replace(self, projection=Projection.fit(w, self.X.forward(some), rng))

    @property
    def _n_compressed(self) -> int:
        """Number of pairs that a compression is fitted to."""
        most = max(_MIN_COMPRESSED_PAIRS, _COMPRESSED_NUMBERS // self.X.n_features)
        return min(_MAX_COMPRESSED_PAIRS, most)

    @property
    def width_of_density(self) -> int:
        """Number of variables that a density of X describes."""
        return self.X.n_features if self.projection is None else self.projection.width

    def to_density(
        self, points: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return points (N, d) as a density describes them, and ``log |p(X) / p(y)|``, (N,)."""
        x = self.X.forward(points)
        log_ratio = -self.X.log_volume(x)
        if self.projection is None:
            return x, log_ratio
        y, log_change = self.projection.forward(x)
        return y, log_ratio + log_change

    def from_density(self, y: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
        """Return points (..., d) of what a density describes."""
        x = y if self.projection is None else self.projection.inverse(y, rng)
        return self.X.inverse(x)

    @property
    def width(self) -> int:
        """Number of columns that networks read."""
        n_compressed = 0 if self.compression is None else self.compression.width
        return self._n_read + n_compressed

    @property
    def _n_read(self) -> int:
        """Number of columns of the feature map that networks read."""
        if self.compression is not None and self.X.n_features > MAX_FEATURES:
            return 0
        return self.X.width

    @property
    def groups(self) -> dict[str, NDArray[np.int64]]:
        """Which columns are what: the features, and the groups of the compression."""
        n = self._n_read
        features = {"features": np.arange(n)}
        if self.X.mask and n:
            features["missing"] = np.arange(n - self.X.n_features, n)
        if self.compression is None:
            return features
        return features | {name: n + g for name, g in self.compression.groups.items()}

    def read(self, X: Packed) -> tuple[NDArray[np.float64], Frame | None]:
        """Return observations as the networks read them, (N, width), and the emulator's frame."""
        if self.compression is None:
            return self.X.forward(X.points), None
        size = max(1, _NUMBERS_READ // self.X.n_features)
        with one_blas_thread():
            found = [self._read(X.points[rows]) for rows in blocks(len(X), size)]
        columns, frames = zip(*found, strict=True)
        return np.concatenate(columns), join_frames(frames)

    def _read(self, points: NDArray[np.float64]) -> tuple[NDArray[np.float64], Frame | None]:
        columns, frame = self.compression.forward(points, self.theta, self.X)
        if not self._n_read:
            return columns, frame
        return np.hstack([self.X.forward(points), columns]), frame

    def batch(self, X: Packed, like: Tensor) -> Batch:
        """Return observations as the networks read them, with the type and device of ``like``."""
        return self.batch_and_frame(X, like)[0]

    def batch_and_frame(self, X: Packed, like: Tensor) -> tuple[Batch, Frame | None]:
        """Return what `batch` does, and the emulator's frame."""
        columns, frame = self.read(X)
        if self.with_frames:
            columns = np.hstack([columns, frame.columns])
        return X.tensors(columns, like), frame

    def indexer(self, X: Packed, like: Tensor, rng: np.random.Generator) -> Indexer | MappedIndexer:
        """Return what takes minibatches of X, by index, as the networks read them.

        Observations are mapped once and kept in memory, unless they are many in a memory-mapped
        file. Those are read, and mapped, whenever a minibatch is taken, if they are not compressed.

        Parameters
        ----------
        X : Packed
            Observations in the user's units.
        like : Tensor
            Whose type and device the minibatches have.
        rng : Generator
            Chooses the points, where a minibatch holds only a part of each set.

        Returns
        -------
        Indexer or MappedIndexer
        """
        to_batch = partial(self.batch, like=like)
        in_file = X.points.nbytes > _MAX_BYTES_IN_MEMORY and file_of(X.points) is not None
        if in_file and self.compression is None:
            return MappedIndexer(X, to_batch, rng)
        return Indexer(to_batch(X), rng, ordered=X.order is not None)
