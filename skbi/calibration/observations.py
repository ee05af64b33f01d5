"""Features of observations of any kind, as one table: what checks compare and classifiers read.

Vectors are their own features. A set, a series or a picture is described by the mean, the standard
deviation, the lowest and the highest value of each of its columns, and by its number of points if
that varies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing

__all__ = ["ObservedDraws", "as_batch", "feature_tables", "sample_observations"]

_STATISTICS = ("mean", "sd", "lowest", "highest")
_SIZE = "number of points"


def feature_tables(
    *batches: Any, kind: str | None = None
) -> tuple[list[NDArray[np.float64]], list[str]]:
    """Describe observations by numbers, the same ones in every batch.

    Parameters
    ----------
    *batches : array-like or sequence of n observations
        Vectors (n, d); sets or series (n, S, d), or n arrays (S_i, d), where rows of nothing but
        NaN mean "no point here"; pictures (n, H, W, channels).
    kind : str, optional
        "image": three axes are pictures (n, H, W).

    Returns
    -------
    tables : list of ndarray of shape (n, k)
        One for each batch.
    names : list of k str

    Examples
    --------
    >>> (table,), names = feature_tables([[[1.0], [3.0]], [[2.0], [2.0]]])
    >>> names, table.tolist()
    (['mean', 'sd', 'lowest', 'highest'], [[2.0, 1.0, 1.0, 3.0], [2.0, 0.0, 2.0, 2.0]])
    """
    described = [_feature_table(X, kind) for X in batches]
    tables, names = [table for table, _ in described], described[0][1]
    if names[-1] == _SIZE and len(np.unique(np.concatenate([t[:, -1] for t in tables]))) == 1:
        return [table[:, :-1] for table in tables], names[:-1]
    return tables, names


def _feature_table(X: Any, kind: str | None) -> tuple[NDArray[np.float64], list[str]]:
    """Describe one batch; of all but vectors, also by the number of points."""
    columns = getattr(X, "columns", None)
    if columns is not None:
        return np.asarray(X, dtype=np.float64), [str(name) for name in columns]
    array = _as_array(X)
    if array.dtype != object and array.ndim == 2:
        return array.astype(np.float64), _numbered("x_", array.shape[1])
    if kind == "image" and array.ndim == 3:
        array = array[..., None]
    points = [_present_points(observation) for observation in array]
    suffixes = _numbered(" of x_", points[0].shape[1]) if points[0].shape[1] > 1 else [""]
    names = [statistic + suffix for statistic in _STATISTICS for suffix in suffixes]
    sizes = np.array([len(x) for x in points], dtype=np.float64)
    return np.column_stack([np.stack([_describe(x) for x in points]), sizes]), [*names, _SIZE]


@dataclass(frozen=True, eq=False)
class ObservedDraws:
    """Posterior draws at one observation or at a batch.

    Attributes
    ----------
    samples : ndarray, shape (n_obs, n_samples, p)
    X_obs : array-like
        The batch: one observation has got a leading axis.
    single : bool
        Whether it was one observation.
    infos : list of SamplerInfo
        What the sampler reports of each observation, if it was asked to.
    """

    samples: NDArray[np.float64]
    X_obs: Any
    single: bool
    infos: list[Any]

    def one(self, i: int) -> Any:
        """Return a batch of the i-th observation alone."""
        return _safe_indexing(self.X_obs, slice(i, i + 1))


def sample_observations(
    estimator: Any, X_obs: Any, n_samples: int, rng: np.random.Generator, **options: Any
) -> ObservedDraws:
    """Draw from the posterior of one observation or of a batch.

    Whether it is a batch, the estimator decides, by the axes of its answer.
    """
    X_obs, infos = X_obs if hasattr(X_obs, "columns") else _as_array(X_obs), None
    seed = int(rng.integers(2**31))
    samples = estimator.sample_posterior(X_obs, n_samples, random_state=seed, **options)
    if isinstance(samples, tuple):
        samples, infos = samples
    if np.ndim(samples) == 3:
        return ObservedDraws(samples, X_obs, False, infos or [])
    return ObservedDraws(samples[None], as_batch(X_obs), True, [infos] if infos else [])


def as_batch(observation: Any) -> Any:
    """Give one observation a leading axis."""
    return observation.to_frame().T if hasattr(observation, "to_frame") else observation[None]


def _as_array(X: Any) -> NDArray[Any]:
    if isinstance(X, np.ndarray) or hasattr(X, "to_frame"):
        return X
    shapes = {np.shape(x) for x in X}
    if len(shapes) == 1:
        return np.asarray(X, dtype=np.float64)
    array = np.empty(len(X), dtype=object)
    array[:] = list(X)
    return array


def _numbered(prefix: str, n: int) -> list[str]:
    return [f"{prefix}{j}" for j in range(n)]


def _present_points(observation: Any) -> NDArray[np.float64]:
    """Return the points (S, d) of a set or series that are there, or the pixels of a picture."""
    points = np.asarray(observation, dtype=np.float64)
    points = points.reshape(-1, points.shape[-1])
    return points[~np.isnan(points).all(axis=1)]


def _describe(points: NDArray[np.float64]) -> NDArray[np.float64]:
    if not len(points):
        return np.full(len(_STATISTICS) * points.shape[1], np.nan)
    parts = [f(points, axis=0) for f in (np.nanmean, np.nanstd, np.nanmin, np.nanmax)]
    return np.concatenate(parts)
