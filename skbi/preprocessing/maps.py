"""The maps between the user's units and the networks': theta <-> z and X -> x.

Networks learn best from numbers of order one that may take any value. Parameters become such
numbers through their prior's distribution functions, observations through means, standard
deviations and, for heavy tails, logarithms. A density in the user's units is

    log q(theta) = log q_z(z) + log |det dz/dtheta|,    log q(X) = log q_x(x) + log |det dx/dX|.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from torch import Tensor

from skbi.preprocessing.packed import Batch, Indexer, MappedIndexer, Packed, chunks, file_of
from skbi.preprocessing.tails import find_asinh_columns, find_log_columns, subsample
from skbi.priors import Prior, from_normal, off_bounds, to_normal

__all__ = ["FeatureMap", "FlatCoordinates", "Maps", "ParameterMap"]

_MAX_BYTES_IN_MEMORY = 2**28  # of a memory-mapped X; a larger one stays in its file
_MAX_LOG = math.log(np.finfo(np.float64).max)


@dataclass(frozen=True)
class ParameterMap:
    """theta <-> z: the parameters in the user's units, and as a network describes them.

    With a prior, theta becomes z in three steps.

    1. It is mapped to Gaussian coordinates, g = Phi^-1(F(theta)), where F is the distribution
       function of the prior and Phi that of the standard normal distribution. In these coordinates
       the prior is standard normal. They may take any values: the inverse of this step maps all of
       them into the prior's support, so that no draw from a network lies outside.
    2. The Gaussian coordinates of parameters whose prior is flat are replaced by
       `FlatCoordinates`, if `fit` is asked to.
    3. The coordinates are standardised: their mean over the training parameters is subtracted, and
       the result is divided by their standard deviation.

    Without a prior, theta itself is standardised. The log determinant of the first step is
    log p(theta) - log N(g; 0, I), where p is the prior's density. Those of the other steps have
    closed forms.

    The first step maps a theta on a bound of the prior to infinity. Such a coordinate is replaced
    by -``edge`` or ``edge``, which is about the outermost coordinate of the training parameters. A
    discrete parameter is its own coordinate.

    Attributes
    ----------
    prior : Prior or None
    mean, scale : ndarray, shape (p,)
        Mean and standard deviation of the training parameters after the second step.
    flat : ndarray of bool, shape (p,)
        Which parameters have `FlatCoordinates`.
    edge : float
        Absolute Gaussian coordinate of a theta on a bound of the prior.

    Examples
    --------
    >>> from scipy import stats
    >>> from skbi import JointPrior
    >>> prior = JointPrior({"rate": stats.gamma(2), "shift": stats.uniform(-1, 2)})
    >>> theta = prior.sample(1000, random_state=0)
    >>> mapping = ParameterMap.fit(prior, theta, flat_coordinates=True)
    >>> mapping.flat
    array([False,  True])
    >>> z, log_det = mapping.forward(theta)
    >>> z.shape, log_det.shape
    ((1000, 2), (1000,))
    >>> bool(np.allclose(mapping.inverse(z), theta))
    True
    """

    prior: Prior | None
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    flat: NDArray[np.bool_]
    edge: float

    @classmethod
    def fit(
        cls, prior: Prior | None, theta: NDArray[np.float64], *, flat_coordinates: bool = False
    ) -> Self:
        """Choose the coordinates and standardise them by the training parameters.

        Parameters
        ----------
        prior : Prior or None
        theta : ndarray, shape (n, p)
            The training parameters.
        flat_coordinates : bool, default=False
            Whether parameters whose prior is flat get `FlatCoordinates`. Discrete parameters never
            do.

        Returns
        -------
        ParameterMap
        """
        edge = float(-ndtri(0.5 / len(theta)))  # about the largest |g| of n draws
        if prior is None:
            _, mean, scale = _mean_and_sd(theta)
            return cls(prior, mean, scale, np.zeros(theta.shape[1], bool), edge)
        g = off_bounds(prior, to_normal(prior, theta), edge)
        flat = _has_flat_prior(prior) if flat_coordinates else np.zeros(g.shape[1], bool)
        g[:, flat] = FlatCoordinates.forward(g[:, flat])[0]
        return cls(prior, g.mean(axis=0), g.std(axis=0), flat, edge)

    def scaled(self, coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
        """Standardise coordinates (n, p): the third step of the map."""
        return (coordinates - self.mean) / self.scale

    def forward(self, theta: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """Return z (n, p) and log |det dz/dtheta| (n,), which is -inf outside the support."""
        log_det = np.full(len(theta), -np.log(self.scale).sum())
        if self.prior is None:
            return self.scaled(theta), log_det
        log_prior = np.asarray(self.prior.log_prob(theta), dtype=np.float64)
        inside = np.isfinite(log_prior)
        g = np.zeros(theta.shape)
        g[inside] = off_bounds(self.prior, to_normal(self.prior, theta[inside]), self.edge)
        log_normal = -0.5 * (g**2 + math.log(2 * math.pi)).sum(axis=1)
        g[:, self.flat], log_slope = FlatCoordinates.forward(g[:, self.flat])
        return self.scaled(g), log_det + log_prior - log_normal + log_slope.sum(axis=1)

    def inverse(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return theta (n, p), inside the prior's support, for any z (n, p)."""
        g = self.mean + self.scale * z
        g[:, self.flat] = FlatCoordinates.inverse(g[:, self.flat])
        return g if self.prior is None else from_normal(self.prior, g)


def _has_flat_prior(prior: Prior) -> NDArray[np.bool_]:
    """Tell which parameters are bounded and have a nearly constant density, (p,).

    Of 25 evenly spaced quantiles, from 2 % to 98 %, the largest distance between neighbours must be
    less than 3 times the smallest one.
    """
    p = len(prior.names)
    bounded = np.isfinite(np.asarray(prior.support, dtype=np.float64)).all(axis=1)
    u = np.linspace(0.02, 0.98, 25)[:, None]
    quantiles = np.asarray(prior.ppf(np.broadcast_to(u, (25, p))), dtype=np.float64)
    gaps = np.diff(quantiles, axis=0)
    return bounded & ~np.asarray(prior.discrete) & (gaps.max(axis=0) < 3 * gaps.min(axis=0))


class FlatCoordinates:
    """g <-> s: Gaussian coordinates, and those of parameters whose prior is flat.

    Let u = Phi(g) be the quantile of the parameter under its prior. The coordinate s solves

        u = (softplus(k s) - softplus(k (s - 1))) / k,    softplus(a) = log(1 + exp(a)).

    Away from the bounds s is nearly u, and u is linear in theta where the prior is flat. Within
    about 1 / k of a bound (u = 0 or u = 1) s turns away from u and goes on to minus or plus
    infinity. A posterior that is Gaussian in theta is therefore Gaussian in s too, unless it
    reaches a bound. In Gaussian coordinates it would be distorted everywhere, and a network would
    have to learn the distortion.

    Attributes
    ----------
    k : float
        How sharply s turns away from u near the bounds.

    Examples
    --------
    >>> g = np.array([-3.0, -1.0, 0.0, 1.0, 3.0])
    >>> ndtr(g).round(3)
    array([0.001, 0.159, 0.5  , 0.841, 0.999])
    >>> s, _ = FlatCoordinates.forward(g)
    >>> s.round(3)
    array([-0.18 ,  0.157,  0.5  ,  0.843,  1.18 ])
    """

    k = 20.0

    @classmethod
    def forward(cls, g: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return s and log ds/dg, both of the shape of g."""
        below, above = cls.k * ndtr(g), cls.k * ndtr(-g)
        s = (np.log(np.expm1(below)) - np.log(-np.expm1(-above))) / cls.k
        return s, cls._log_slope(s) - 0.5 * (g**2 + math.log(2 * math.pi))

    @classmethod
    def inverse(cls, s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return g, of the shape of s."""
        growth = np.exp(cls.k * np.minimum(s, 1 - s))  # from the nearer bound, for precision
        tail = np.log1p(growth * -math.expm1(-cls.k) / (1 + growth * math.exp(-cls.k))) / cls.k
        return np.copysign(ndtri(tail), s - 0.5)

    @classmethod
    def _log_slope(cls, s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return log ds/du."""
        edges = np.logaddexp(0, -cls.k * s) + np.logaddexp(0, -cls.k * (1 - s))
        return edges - math.log(-math.expm1(-cls.k))


@dataclass(frozen=True)
class FeatureMap:
    """X -> x: points in the user's units, and as a network reads them.

    From every column the mean over the training points is subtracted, and the result is divided by
    their standard deviation. A constant column becomes zero.

    **Heavy tails.** A few huge values can make the standard deviation of a column so large that
    its other values differ by only a small fraction of it. A network hardly sees such differences.
    There are two remedies, which `fit` has to be asked for. With ``asinh``, a heavy-tailed column
    is given a second time, as asinh((X - centre) / scale). This function is linear near the centre
    and logarithmic far away. With ``log``, a heavy-tailed column that is positive in all of
    training is replaced by its logarithm, and values that are not positive are read as the smallest
    training value. The map then still has an inverse and a determinant, which a density over X
    needs.

    **Masks.** With ``mask``, a missing entry (NaN) becomes 0, the mean of a standardised column.
    One more column for each feature tells the network where entries are missing (1) or not (0).

    The columns of x are the features, then those given a second time, then the mask's.

    Attributes
    ----------
    mean, scale : ndarray, shape (d + n_asinh,)
        What standardises the features and then the columns given a second time.
    mask : bool
        Whether columns that tell what is missing are appended.
    asinh_columns : ndarray of int, shape (n_asinh,)
        The features that are given a second time, asinh-transformed.
    asinh_centre, asinh_scale : ndarray, shape (n_asinh,)
        Centre and scale of these transformations, in X's units.
    log_floor : ndarray, shape (d,)
        The smallest training value of a feature that is replaced by its logarithm; 0 for the
        others.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = np.column_stack([rng.normal(size=1000), rng.lognormal(0, 3, size=1000)])
    >>> mapping = FeatureMap.fit(Packed(X), mask=False, asinh=True)
    >>> mapping.asinh_columns
    array([1])
    >>> mapping.forward(X).shape
    (1000, 3)
    >>> mapping = FeatureMap.fit(Packed(X), mask=False, log=True)
    >>> mapping.log_columns
    array([False,  True])
    >>> bool(np.allclose(mapping.inverse(mapping.forward(X)), X))
    True
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    mask: bool
    asinh_columns: NDArray[np.int64]
    asinh_centre: NDArray[np.float64]
    asinh_scale: NDArray[np.float64]
    log_floor: NDArray[np.float64]

    @classmethod
    def fit(
        cls,
        X: Packed,
        mask: bool,
        *,
        asinh: bool = False,
        log: bool | NDArray[np.bool_] = False,
    ) -> Self:
        """Learn the map from the entries of the training points that are not missing.

        Parameters
        ----------
        X : Packed
            The training observations.
        mask : bool
            Whether entries may be missing.
        asinh : bool, default=False
            Whether heavy-tailed columns are given a second time, asinh-transformed. Tails of sets
            are those within a set.
        log : bool or ndarray of bool, shape (d,), default=False
            Which columns may be replaced by their logarithm, if they are positive and heavy-tailed.

        Returns
        -------
        FeatureMap
        """
        constant, mean, scale = _mean_and_sd(X.points)
        scale = np.where(constant, 1.0, scale)
        sample = subsample(X)
        log_floor = find_log_columns(X.points, sample.points, log & ~constant)
        logs = log_floor > 0
        if logs.any():
            _, mean[logs], scale[logs] = _mean_and_sd(np.log(sample.points[:, logs]))
        asinh_columns, centre, asinh_scale = find_asinh_columns(sample, asinh & ~constant)
        if len(asinh_columns):
            transformed = np.arcsinh((sample.points[:, asinh_columns] - centre) / asinh_scale)
            mean, scale = np.hstack([[mean, scale], _mean_and_sd(transformed)[1:]])
        return cls(mean, scale, mask, asinh_columns, centre, asinh_scale, log_floor)

    @property
    def n_features(self) -> int:
        """Number of columns of X, d."""
        return len(self.log_floor)

    @property
    def width(self) -> int:
        """Number of columns of x."""
        return len(self.mean) + (self.n_features if self.mask else 0)

    @property
    def log_columns(self) -> NDArray[np.bool_]:
        """Which features are replaced by their logarithm, (d,)."""
        return self.log_floor > 0

    def possible(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which points (N, d) are positive wherever their logarithm is taken, (N,)."""
        return (points[:, self.log_columns] > 0).all(axis=1)

    def forward(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return x (N, width) of points (N, d)."""
        x, logs = points, self.log_columns
        if logs.any():
            x = points.astype(np.float64)  # a copy
            x[:, logs] = np.log(np.where(x[:, logs] > 0, x[:, logs], self.log_floor[logs]))
        if len(self.asinh_columns):
            distance = x[:, self.asinh_columns] - self.asinh_centre
            x = np.hstack([x, np.arcsinh(distance / self.asinh_scale)])
        x = (x - self.mean) / self.scale
        return np.hstack([np.nan_to_num(x), np.isnan(points)]) if self.mask else x

    def inverse(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return points (..., d) of x (..., d), for a map without asinh columns and mask."""
        points, logs = self.mean + self.scale * x, self.log_columns
        points[..., logs] = np.exp(np.minimum(points[..., logs], _MAX_LOG))
        return points

    def volume(self) -> tuple[float, NDArray[np.float64]]:
        """Return c and s (d,) of log |det dX/dx| = c + x @ s."""
        constant = np.log(self.scale).sum() + self.mean[self.log_columns].sum()
        return float(constant), np.where(self.log_columns, self.scale, 0.0)

    def log_volume(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return log |det dX/dx| (N,) at x (N, d), for a map without asinh columns and mask."""
        constant, slopes = self.volume()
        return constant + x @ slopes


def _mean_and_sd(
    points: NDArray[Any],
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
    """Return which columns of points (N, d) are constant, their means and standard deviations.

    NaN are left out. Columns are scaled to [0, 1] first, so that squares do not overflow.
    """
    low, high, count = np.inf, -np.inf, 0
    for x in chunks(points):
        missing = np.isnan(x)
        low = np.minimum(low, np.where(missing, np.inf, x).min(axis=0))
        high = np.maximum(high, np.where(missing, -np.inf, x).max(axis=0))
        count = count + (~missing).sum(axis=0)
    constant = ~(high - low > 1e-12 * np.maximum(np.abs(low), np.abs(high)))
    low = np.where(count, low, 0.0).astype(np.float64)  # points may be in single precision
    span = np.where(constant, 1.0, high - low)

    def moment(power: int, centre: Any) -> NDArray[np.float64]:
        powers = (((x - low) / span - centre) ** power for x in chunks(points))
        return sum(np.nansum(part, axis=0) for part in powers) / np.maximum(count, 1)

    mean = moment(1, 0.0)
    return constant, low + span * mean, span * np.sqrt(moment(2, mean))


@dataclass(frozen=True)
class Maps:
    """The two maps of an estimator.

    Attributes
    ----------
    theta : ParameterMap
    X : FeatureMap
    """

    theta: ParameterMap
    X: FeatureMap

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
            As in `FeatureMap.fit`, where ``tails`` are ``asinh`` and ``log``.

        Returns
        -------
        Maps
        """
        parameters = ParameterMap.fit(prior, theta, flat_coordinates=flat_coordinates)
        return cls(parameters, FeatureMap.fit(X, mask, **tails))

    def batch(self, X: Packed, like: Tensor) -> Batch:
        """Return observations as the networks read them, with the type and device of ``like``."""
        return X.tensors(self.X.forward(X.points), like)

    def indexer(self, X: Packed, like: Tensor, rng: np.random.Generator) -> Indexer | MappedIndexer:
        """Return what takes minibatches of X, by index, as the networks read them.

        Observations are mapped once and kept in memory, unless they are many in a memory-mapped
        file. Those are read, and mapped, whenever a minibatch is taken.

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
        if X.points.nbytes > _MAX_BYTES_IN_MEMORY and file_of(X.points) is not None:
            return MappedIndexer(X, to_batch, rng)
        return Indexer(to_batch(X), rng)
