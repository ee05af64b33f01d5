"""theta <-> z: the parameters in the user's units, and as a network describes them.

Networks learn best from numbers of order one that may take any value. Parameters become such
numbers through their prior's distribution functions. A density in the user's units is

    log q(theta) = log q_z(z) + log |det dz/dtheta|.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from skbi.preprocessing.scales import mean_and_sd
from skbi.preprocessing.tailed import TailCoordinates
from skbi.priors import Prior, from_normal, log_masses, off_bounds, to_normal

__all__ = ["SD_OF_UNIFORM", "FlatCoordinates", "ParameterMap", "has_flat_prior"]

SD_OF_UNIFORM = 12**-0.5
_EDGE = 1e-3  # the quantile that stands for a bound, in what a regression gives


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

    Without a prior, theta itself is standardised, or, where its tails are heavy, its
    `TailCoordinates`. With a prior, the log determinant of the first step is
    log p(theta) - log N(g; 0, I), where p is the prior's density. Those of the other steps have
    closed forms.

    The first step maps a theta on a bound of the prior to infinity. Such a coordinate is replaced
    by -``edge`` or ``edge``, which is about the outermost coordinate of the training parameters. A
    discrete parameter is its own coordinate, standardised. It has a mass and no density: the log
    determinant is that of the continuous parameters, and the inverse rounds.

    Attributes
    ----------
    prior : Prior or None
    mean, scale : ndarray, shape (p,)
        Mean and standard deviation of the training parameters after the second step.
    flat : ndarray of bool, shape (p,)
        Which parameters have `FlatCoordinates`.
    edge : float
        Absolute Gaussian coordinate of a theta on a bound of the prior.
    tails : TailCoordinates or None
        Of parameters with heavy tails and no prior.

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
    tails: TailCoordinates | None = None

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
            tails = TailCoordinates.fit(theta)
            _, mean, scale = mean_and_sd(theta if tails is None else tails.forward(theta)[0])
            return cls(prior, mean, scale, np.zeros(theta.shape[1], bool), edge, tails)
        g = off_bounds(prior, to_normal(prior, theta), edge)
        flat = has_flat_prior(prior) if flat_coordinates else np.zeros(g.shape[1], bool)
        g[:, flat] = FlatCoordinates.forward(g[:, flat])[0]
        scale = g.std(axis=0)
        return cls(prior, g.mean(axis=0), np.where(scale > 0, scale, 1.0), flat, edge)

    @property
    def discrete(self) -> NDArray[np.bool_]:
        """Which parameters are discrete, (p,): those of which the prior says so."""
        if self.prior is None:
            return np.zeros(len(self.mean), dtype=bool)
        return np.asarray(self.prior.discrete, dtype=bool)

    def scaled(self, coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
        """Standardise coordinates (n, p): the third step of the map."""
        return (coordinates - self.mean) / self.scale

    def forward(self, theta: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """Return z (n, p) and ``log |det dz/dtheta|`` (n,), which is -inf outside the support.

        Without a prior, that is where `TailCoordinates` have no logarithm.
        """
        log_det = np.full(len(theta), -np.log(self.scale[~self.discrete]).sum())
        if self.prior is None:
            if self.tails is None:
                return self.scaled(theta), log_det
            y, log_slope = self.tails.forward(theta)
            return self.scaled(y), log_det + log_slope.sum(axis=1)
        log_prior = np.array(self.prior.log_prob(theta), dtype=np.float64)
        inside = np.isfinite(log_prior)
        g = np.zeros(theta.shape)
        g[inside] = off_bounds(self.prior, to_normal(self.prior, theta[inside]), self.edge)
        log_normal = -0.5 * (g[:, ~self.discrete] ** 2 + math.log(2 * math.pi)).sum(axis=1)
        if self.discrete.any():
            masses = log_masses(self.prior, theta[inside]).sum(axis=1)
            log_prior[inside] -= np.where(np.isfinite(masses), masses, 0)  # or lost to rounding
        g[:, self.flat], log_slope = FlatCoordinates.forward(g[:, self.flat])
        return self.scaled(g), log_det + log_prior - log_normal + log_slope.sum(axis=1)

    def inverse(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return theta (n, p), where `forward` has a finite determinant, for any z (n, p)."""
        g = self.mean + self.scale * z
        g[:, self.flat] = FlatCoordinates.inverse(g[:, self.flat])
        g[:, self.discrete] = g[:, self.discrete].round()
        if self.prior is not None:
            return from_normal(self.prior, g)
        return g if self.tails is None else self.tails.inverse(g)

    def regressors(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return theta as w (n, p), of unit scale, which suits a regression on theta.

        A simulator is a smooth function of theta. Where the prior is flat w is proportional to
        theta, up to the bounds; elsewhere it is the Gaussian coordinate. Without a prior w is z.
        """
        if self.prior is None:
            return self.forward(theta)[0]
        w = off_bounds(self.prior, to_normal(self.prior, theta), self.edge)
        w[:, self.flat] = (ndtr(w[:, self.flat]) - 0.5) / SD_OF_UNIFORM
        return w

    @property
    def regressor_precision(self) -> NDArray[np.float64]:
        """Precision of the prior of w, (p,): zero where it is uniform."""
        return np.where(self.flat, 0.0, 1.0)

    def from_regressors(
        self, w: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return z (n, p) and dz/dw (n, p) of w within its training range."""
        if self.prior is None:
            return w, np.ones(w.shape)
        g, slope = w.copy(), np.ones(w.shape)
        u = np.clip(0.5 + SD_OF_UNIFORM * w[:, self.flat], _EDGE, 1 - _EDGE)
        g[:, self.flat], slope[:, self.flat] = FlatCoordinates.of_quantiles(u)
        slope[:, self.flat] *= SD_OF_UNIFORM
        return self.scaled(g), slope / self.scale


def has_flat_prior(prior: Prior) -> NDArray[np.bool_]:
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
    def of_quantiles(
        cls, u: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return s and ds/du, both of the shape of u."""
        s = (np.log(np.expm1(cls.k * u)) - np.log(-np.expm1(-cls.k * (1 - u)))) / cls.k
        return s, np.exp(cls._log_slope(s))

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
