"""Priors, and the map from parameters to Gaussian coordinates that have no bounds.

p(theta) = prod_j p_j(theta_j),   z_j = Phi^-1(F_j(theta_j)) ~ N(0, 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import ndtr, ndtri

from skbi.randomness import RandomState, as_generator

__all__ = ["JointPrior", "Prior", "from_latent", "from_normal", "off_bounds", "to_normal"]

_MAX_Z = 37.0  # Phi(-z) is a positive float64 up to here
_MAX_Z_FROM_CDF = 8.0  # Phi(z) is a float64 below 1 up to here


@runtime_checkable
class Prior(Protocol):
    """What skbi asks of a prior.

    `JointPrior` has these attributes and methods. For dependent parameters, such as those of a
    hierarchical model, write a class of your own that has them.

    ``cdf`` maps theta (n, p) to the unit cube (n, p), where the prior is uniform, and ``ppf`` is
    its inverse. For dependent parameters this is the Rosenblatt map [1]_: column j of ``cdf`` is
    the conditional distribution function of theta_j given theta_1, ..., theta_{j-1}.

    Attributes
    ----------
    names : tuple of str
        The parameters' names, in the order of theta's columns.
    discrete : ndarray of bool, shape (p,)
        Which parameters are discrete.
    support : ndarray, shape (p, 2)
        Lower and upper bound of each parameter.

    References
    ----------
    .. [1] Rosenblatt, "Remarks on a Multivariate Transformation" (1952),
       https://doi.org/10.1214/aoms/1177729394

    Examples
    --------
    A hierarchical prior: scale ~ Exponential(1), and value ~ N(0, scale^2) given the scale.

    >>> import numpy as np
    >>> from scipy import stats
    >>> class Hierarchical:
    ...     names = ("scale", "value")
    ...     discrete = np.array([False, False])
    ...     support = np.array([[0, np.inf], [-np.inf, np.inf]])
    ...
    ...     def sample(self, n, random_state=None):
    ...         return self.ppf(np.random.default_rng(random_state).random((n, 2)))
    ...
    ...     def log_prob(self, theta):
    ...         scale, value = np.asarray(theta).T
    ...         positive = np.where(scale > 0, scale, 1)
    ...         return stats.expon.logpdf(scale) + stats.norm.logpdf(value, scale=positive)
    ...
    ...     def cdf(self, theta):
    ...         scale, value = np.asarray(theta).T
    ...         return np.column_stack([stats.expon.cdf(scale), stats.norm.cdf(value, scale=scale)])
    ...
    ...     def ppf(self, u):
    ...         scale = stats.expon.ppf(u[:, 0])
    ...         return np.column_stack([scale, stats.norm.ppf(u[:, 1], scale=scale)])
    >>> isinstance(Hierarchical(), Prior)
    True
    """

    names: tuple[str, ...]
    discrete: NDArray[np.bool_]
    support: NDArray[np.float64]

    def sample(self, n: int, random_state: RandomState = None) -> NDArray[np.float64]:
        """Draw theta (n, p)."""

    def log_prob(self, theta: ArrayLike) -> NDArray[np.float64]:
        """Return the log density (n,) of theta (n, p), which is -inf outside the support."""

    def cdf(self, theta: ArrayLike) -> NDArray[np.float64]:
        """Map theta (n, p) to the unit cube (n, p)."""

    def ppf(self, u: ArrayLike) -> NDArray[np.float64]:
        """Map points u (n, p) of the unit cube to theta (n, p)."""


class JointPrior:
    """A prior of independent parameters, each with a name and a distribution of scipy.stats.

    Parameters
    ----------
    marginals : mapping of str to frozen scipy.stats distribution
        The distribution of each parameter by its name, in the order of theta's columns.
        Distributions may be continuous or discrete.

    Attributes
    ----------
    names : tuple of str
        The parameters' names, in the order of theta's columns.
    discrete : ndarray of bool, shape (p,)
        Which parameters are discrete.
    support : ndarray, shape (p, 2)
        Lower and upper bound of each parameter.

    Raises
    ------
    TypeError
        If a marginal is not a frozen scipy.stats distribution.
    ValueError
        If the parameters of a marginal are invalid, or if they are arrays.

    Examples
    --------
    >>> from scipy import stats
    >>> prior = JointPrior({"rate": stats.gamma(2), "shift": stats.uniform(-1, 2)})
    >>> prior.sample(4, random_state=0).shape
    (4, 2)
    >>> prior.log_prob([[1.0, 0.0], [1.0, 5.0]]).round(3)
    array([-1.693,   -inf])
    """

    def __init__(self, marginals: Mapping[str, Any]) -> None:
        self.marginals = dict(_check_marginals(marginals))
        self.names = tuple(self.marginals)
        self.discrete = np.array([hasattr(m, "pmf") for m in self.marginals.values()])
        self.support = np.array([m.support() for m in self.marginals.values()], dtype=float)
        self._closed_forms = [_closed_form(m) for m in self.marginals.values()]

    def __getstate__(self) -> dict[str, Any]:
        """Return each marginal as a name and numbers, so that files name no classes of scipy."""
        return {"marginals": {name: _serialise(m) for name, m in self.marginals.items()}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        JointPrior.__init__(self, {name: _deserialise(m) for name, m in state["marginals"].items()})

    def __repr__(self) -> str:
        marginals = ", ".join(f"{name}: {_describe(m)}" for name, m in self.marginals.items())
        return f"JointPrior({marginals})"

    def without(self, *names: str) -> JointPrior:
        """Return the prior of the other parameters.

        Parameters
        ----------
        *names : str
            Parameters to leave out, such as the ``nuisance`` of `simulate`.

        Returns
        -------
        JointPrior

        Raises
        ------
        ValueError
            If this prior has no parameter of such a name.

        Examples
        --------
        >>> from scipy import stats
        >>> JointPrior({"mu": stats.norm(), "noise": stats.expon()}).without("noise")
        JointPrior(mu: norm())
        """
        unknown = [name for name in names if name not in self.names]
        if unknown:
            raise ValueError(
                f"The parameters to leave out must be among those of this prior, {self.names}; "
                f"got {unknown}."
            )
        return JointPrior({k: m for k, m in self.marginals.items() if k not in names})

    def sample(self, n: int, random_state: RandomState = None) -> NDArray[np.float64]:
        """Draw from the prior.

        Parameters
        ----------
        n : int
            Number of draws.
        random_state : int, SeedSequence, Generator, RandomState or None, default=None
            The only source of randomness.

        Returns
        -------
        ndarray, shape (n, p)
        """
        rng = as_generator(random_state)
        draws = [m.rvs(size=n, random_state=rng) for m in self.marginals.values()]
        return np.column_stack(draws).astype(np.float64)

    def log_prob(self, theta: ArrayLike) -> NDArray[np.float64]:
        """Return the log density of each row of theta.

        Discrete parameters enter with their probability mass.

        Parameters
        ----------
        theta : array-like, shape (n, p)

        Returns
        -------
        ndarray, shape (n,)
            It is -inf outside the support.
        """
        columns = zip(self.marginals.values(), self.discrete, self._columns(theta), strict=True)
        return np.sum([m.logpmf(x) if d else m.logpdf(x) for m, d, x in columns], axis=0)

    def cdf(self, theta: ArrayLike) -> NDArray[np.float64]:
        """Return the cumulative distribution function of each parameter.

        Parameters
        ----------
        theta : array-like, shape (n, p)

        Returns
        -------
        ndarray, shape (n, p), in [0, 1]
        """
        return self._apply_to_columns("cdf", theta)

    def ppf(self, u: ArrayLike) -> NDArray[np.float64]:
        """Return the quantiles of each parameter: the map from the unit cube to theta.

        Parameters
        ----------
        u : array-like, shape (n, p), in [0, 1]

        Returns
        -------
        ndarray, shape (n, p)
        """
        return self._apply_to_columns("ppf", u)

    def to_normal(self, theta: ArrayLike) -> NDArray[np.float64]:
        """Map theta to its Gaussian coordinates z = Phi^-1(F(theta)).

        The map is precise in both tails. Coordinates beyond +-37 are clipped to these values.

        Parameters
        ----------
        theta : array-like, shape (n, p), inside the support

        Returns
        -------
        ndarray, shape (n, p)
            Discrete parameters, which have no such coordinate, stay as they are.

        Examples
        --------
        >>> from scipy import stats
        >>> JointPrior({"mu": stats.norm(5, 2)}).to_normal([[7.0], [9.0]])
        array([[1.],
               [2.]])
        """
        lower_tail = self._apply_to_columns("cdf", theta)
        upper_tail = self._apply_to_columns("sf", theta)
        z = np.where(lower_tail < 0.5, ndtri(lower_tail), -ndtri(upper_tail))
        return np.where(self.discrete, theta, np.clip(z, -_MAX_Z, _MAX_Z))

    def from_normal(self, z: ArrayLike) -> NDArray[np.float64]:
        """Map Gaussian coordinates to theta. This is the inverse of `to_normal`.

        Parameters
        ----------
        z : array-like, shape (n, p)

        Returns
        -------
        ndarray, shape (n, p)
            Continuous parameters lie strictly inside their support, and discrete ones stay as
            they are.

        Examples
        --------
        >>> from scipy import stats
        >>> JointPrior({"mu": stats.norm(5, 2)}).from_normal([[1.0], [2.0]])
        array([[7.],
               [9.]])
        """
        theta = np.array(z, dtype=np.float64)
        marginals, columns = list(self.marginals.values()), self._columns(z)
        for j in np.flatnonzero(~self.discrete):
            z_j = np.clip(columns[j], -_MAX_Z, _MAX_Z)
            theta[:, j] = _quantiles(marginals[j], z_j, *self._closed_forms[j])
        return _clip_to_support(theta, self.support, self.discrete)

    def _columns(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return the columns (p, n) of an array (n, p), one for each parameter."""
        values = np.asarray(values, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.names):
            raise ValueError(
                f"This prior has {len(self.names)} parameters {self.names}: expected an array of "
                f"shape (n, {len(self.names)}), got shape {values.shape}."
            )
        return values.T

    def _apply_to_columns(self, method: str, values: ArrayLike) -> NDArray[np.float64]:
        """Call a method of each marginal with the column of its parameter."""
        columns = zip(self.marginals.values(), self._columns(values), strict=True)
        return np.column_stack([getattr(m, method)(x) for m, x in columns]).astype(np.float64)


def to_normal(prior: Prior, theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map theta to its Gaussian coordinates under any prior.

    A prior's own method `to_normal` is used if there is one. Otherwise the coordinates are
    Phi^-1(cdf(theta)), clipped to +-8, beyond which the distribution function rounds to 1.

    Parameters
    ----------
    prior : Prior
    theta : ndarray, shape (n, p), inside the support

    Returns
    -------
    ndarray, shape (n, p)
        Discrete parameters, which have no such coordinate, stay as they are.
    """
    if hasattr(prior, "to_normal"):
        return np.asarray(prior.to_normal(theta))
    z = ndtri(np.asarray(prior.cdf(theta), dtype=np.float64))
    return np.where(prior.discrete, theta, np.clip(z, -_MAX_Z_FROM_CDF, _MAX_Z_FROM_CDF))


def from_normal(prior: Prior, z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map Gaussian coordinates to theta under any prior. This is the inverse of `to_normal`.

    Parameters
    ----------
    prior : Prior
    z : ndarray, shape (n, p)

    Returns
    -------
    ndarray, shape (n, p), strictly inside the support of continuous parameters

    Raises
    ------
    ValueError
        If the prior has discrete parameters but no method `from_normal` of its own.
    """
    if hasattr(prior, "from_normal"):
        return np.asarray(prior.from_normal(z))
    if np.any(prior.discrete):
        raise ValueError(
            f"The Gaussian coordinates of {type(prior).__name__}, which has discrete parameters, "
            "can be inverted only if it has a method from_normal, as JointPrior has."
        )
    u = ndtr(np.clip(z, -_MAX_Z_FROM_CDF, _MAX_Z_FROM_CDF))
    theta = np.asarray(prior.ppf(u), dtype=np.float64)
    return _clip_to_support(theta, np.asarray(prior.support), np.asarray(prior.discrete))


def from_latent(prior: Prior, z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map z ~ N(0, I) to theta under any prior, discrete parameters included.

    Those are the quantiles at Phi(z). Continuous parameters lie strictly inside their support.

    >>> prior = JointPrior({"k": stats.bernoulli(0.3), "mu": stats.norm(5, 2)})
    >>> from_latent(prior, np.array([[0.4, 1.0], [0.6, 1.0]]))
    array([[0., 7.],
           [1., 7.]])
    """
    discrete = np.asarray(prior.discrete)
    if not discrete.any():
        return from_normal(prior, z)
    u = ndtr(np.clip(z, -_MAX_Z_FROM_CDF, _MAX_Z_FROM_CDF))
    theta = np.asarray(prior.ppf(u), dtype=np.float64)
    if hasattr(prior, "from_normal"):  # continuous parameters by their nearer tail
        return np.asarray(prior.from_normal(np.where(discrete, theta, z)))
    return _clip_to_support(theta, np.asarray(prior.support), discrete)


def off_bounds(prior: Prior, z: NDArray[np.float64], edge: float) -> NDArray[np.float64]:
    """Replace the Gaussian coordinates of parameters on a bound of the prior by +-edge.

    The coordinate of a parameter on a bound is infinite, which `to_normal` clips to a very large
    number.

    Parameters
    ----------
    prior : Prior
    z : ndarray, shape (n, p)
        Gaussian coordinates from `to_normal`.
    edge : float
        Absolute value of the coordinate that stands for a bound.

    Returns
    -------
    ndarray, shape (n, p)
    """
    max_z = _MAX_Z if hasattr(prior, "to_normal") else _MAX_Z_FROM_CDF
    on_bound = (np.abs(z) >= max_z) & ~np.asarray(prior.discrete)
    return np.where(on_bound, np.copysign(edge, z), z)


def _check_marginals(marginals: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(marginals, Mapping) or not marginals:
        raise TypeError(
            "JointPrior expects a non-empty dict of name -> frozen scipy.stats distribution, such "
            f"as {{'mu': scipy.stats.norm(0, 1)}}; got {marginals!r}."
        )
    for name, marginal in marginals.items():
        if not isinstance(name, str):
            raise TypeError(f"Parameter names must be strings; got {name!r}.")
        if not (hasattr(marginal, "dist") and hasattr(marginal, "rvs")):
            raise TypeError(
                f"The marginal of {name!r} must be a frozen scipy.stats distribution, such as "
                f"scipy.stats.norm(0, 1); got {type(marginal).__name__}."
            )
        if np.ndim(marginal.mean()) or np.isnan(np.asarray(marginal.support(), float)).any():
            raise ValueError(
                f"The marginal of {name!r} must be one distribution with valid parameters; "
                f"got {_describe(marginal)}, support {marginal.support()}."
            )
    return marginals


def _describe(marginal: Any) -> str:
    """Write a marginal as a call, such as halfnorm(scale=2)."""
    values = [("", v) for v in marginal.args] + [(f"{k}=", v) for k, v in marginal.kwds.items()]
    arguments = (name + (f"{v:g}" if np.ndim(v) == 0 else str(v)) for name, v in values)
    return f"{marginal.dist.name}({', '.join(arguments)})"


def _serialise(marginal: Any) -> Any:
    """Return name, arguments and keywords of a distribution of scipy.stats.

    A distribution of the user's own is returned unchanged.
    """
    name = marginal.dist.name
    if type(getattr(stats, name, None)) is not type(marginal.dist):
        return marginal
    return name, list(marginal.args), dict(marginal.kwds)


def _deserialise(marginal: Any) -> Any:
    """Return the distribution that `_serialise` was given."""
    if not isinstance(marginal, tuple):
        return marginal
    name, args, kwds = marginal
    family = getattr(stats, name, None)
    if not isinstance(family, stats.rv_continuous | stats.rv_discrete):
        raise ValueError(
            "A saved prior must name distributions of scipy.stats, which has no distribution "
            f"{name!r}. Load only files that skbi has written."
        )
    return family(*args, **kwds)


def _closed_form(marginal: Any) -> tuple[str, float, float]:
    """Return the family and two parameters of a marginal whose quantiles have a closed form.

    They are ("normal", mean, standard deviation), ("uniform", lower bound, upper bound), or
    ("", nan, nan) for any other family.
    """
    family = type(marginal.dist)
    if family is type(stats.norm):
        return "normal", marginal.mean(), marginal.std()
    if family is type(stats.uniform):
        return "uniform", *marginal.support()
    return "", np.nan, np.nan


def _quantiles(
    marginal: Any, z: NDArray[np.float64], family: str, a: float, b: float
) -> NDArray[np.float64]:
    """Return the quantiles of a marginal at Phi(z), computed from the nearer tail.

    ``family``, ``a`` and ``b`` are what `_closed_form` returns. Closed forms are faster than
    scipy's quantiles.
    """
    if family == "normal":
        return a + b * z
    tail, is_lower = ndtr(-np.abs(z)), z < 0
    if family == "uniform":
        distance = (b - a) * tail
        return np.where(is_lower, a + distance, b - distance)
    theta = np.empty_like(z)
    theta[is_lower] = marginal.ppf(tail[is_lower])
    theta[~is_lower] = marginal.isf(tail[~is_lower])
    return theta


def _clip_to_support(
    theta: NDArray[np.float64], support: NDArray[np.float64], discrete: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Move continuous parameters that rounding has put on a bound to the nearest float inside."""
    low, high = np.nextafter(support[:, 0], np.inf), np.nextafter(support[:, 1], -np.inf)
    return np.where(discrete, theta, np.clip(theta, low, high))
