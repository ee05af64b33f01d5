"""Priors: independent named marginals, and the map that gives them unbounded Gaussian coordinates.

p(theta) = prod_j p_j(theta_j),   z_j = Phi^-1(F_j(theta_j)) ~ N(0, 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import ndtr, ndtri

__all__ = ["JointPrior", "Prior", "RandomState", "as_generator"]

_FAR = 37.0  # up to which Phi(-z) is a positive float64
_NEAR = 8.0  # up to which Phi(z) is below 1

RandomState = int | np.random.Generator | np.random.RandomState | np.random.SeedSequence | None


def as_generator(random_state: RandomState) -> np.random.Generator:
    """Return the generator that ``random_state`` stands for; numpy's global one is never used.

    Parameters
    ----------
    random_state : int, SeedSequence, Generator, RandomState or None
        None is fresh entropy from the operating system. A generator is used (and advanced) itself.

    Returns
    -------
    numpy.random.Generator

    Examples
    --------
    >>> int(as_generator(0).integers(100))
    85
    """
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31, size=4))
    return np.random.default_rng(random_state)


@runtime_checkable
class Prior(Protocol):
    """What skbi asks of a prior; write a class with these to use a dependent (hierarchical) one.

    ``cdf`` and ``ppf`` are inverse maps between theta (n, p) and the unit cube (n, p) under which
    the prior is uniform. For dependent parameters that is the Rosenblatt map: column j of ``cdf``
    is the conditional distribution function of theta_j given theta_1 .. theta_{j-1}.
    """

    names: tuple[str, ...]
    discrete: NDArray[np.bool_]
    support: NDArray[np.float64]

    def sample(self, n: int, random_state: RandomState = None) -> NDArray[np.float64]:
        """Draw theta (n, p)."""

    def log_prob(self, theta: ArrayLike) -> NDArray[np.float64]:
        """Log density (n,), -inf outside the support."""

    def cdf(self, theta: ArrayLike) -> NDArray[np.float64]:
        """Map theta (n, p) to the unit cube (n, p)."""

    def ppf(self, u: ArrayLike) -> NDArray[np.float64]:
        """Map the unit cube (n, p) to theta (n, p)."""


class JointPrior:
    """A prior of independent, named marginals from scipy.stats.

    Parameters
    ----------
    marginals : mapping of str to frozen scipy.stats distribution
        Continuous or discrete, in the order of theta's columns.

    Attributes
    ----------
    names : tuple of str
        The parameters' names.
    discrete : ndarray of bool, shape (p,)
        Which parameters are discrete.
    support : ndarray, shape (p, 2)
        Lower and upper bound of each parameter.

    Raises
    ------
    TypeError
        If a marginal is not a frozen scipy.stats distribution.

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
        self._closed = [_closed_form(m) for m in self.marginals.values()]

    def __getstate__(self) -> dict[str, Any]:
        """Name the marginals of scipy.stats, so that a file of them holds names and numbers."""
        return {"marginals": {name: _as_plain(m) for name, m in self.marginals.items()}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        JointPrior.__init__(self, {name: _from_plain(m) for name, m in state["marginals"].items()})

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}: {_describe(m)}" for name, m in self.marginals.items())
        return f"JointPrior({inside})"

    def without(self, *names: str) -> JointPrior:
        """Return the prior of the other parameters.

        Parameters
        ----------
        names : str
            Parameters to leave out, such as the ``nuisance`` of `simulate`.

        Returns
        -------
        JointPrior

        Examples
        --------
        >>> from scipy import stats
        >>> JointPrior({"mu": stats.norm(), "noise": stats.expon()}).without("noise")
        JointPrior(mu: norm())
        """
        unknown = [name for name in names if name not in self.names]
        if unknown:
            raise ValueError(f"This prior has parameters {self.names}; got {unknown}.")
        return JointPrior({k: m for k, m in self.marginals.items() if k not in names})

    def sample(self, n: int, random_state: RandomState = None) -> NDArray[np.float64]:
        """Draw from the prior.

        Parameters
        ----------
        n : int
            Number of draws.
        random_state : int, Generator, RandomState or None
            The only source of randomness.

        Returns
        -------
        ndarray, shape (n, p)
        """
        rng = as_generator(random_state)
        draws = [m.rvs(size=n, random_state=rng) for m in self.marginals.values()]
        return np.column_stack(draws).astype(np.float64)

    def log_prob(self, theta: ArrayLike) -> NDArray[np.float64]:
        """Log density (mass, for discrete parameters) of each row.

        Parameters
        ----------
        theta : array-like, shape (n, p)

        Returns
        -------
        ndarray, shape (n,)
            -inf outside the support.
        """
        columns = zip(self.marginals.values(), self.discrete, self._columns(theta), strict=True)
        return np.sum([m.logpmf(x) if d else m.logpdf(x) for m, d, x in columns], axis=0)

    def cdf(self, theta: ArrayLike) -> NDArray[np.float64]:
        """Distribution function of every parameter.

        Parameters
        ----------
        theta : array-like, shape (n, p)

        Returns
        -------
        ndarray, shape (n, p)
        """
        return self._apply("cdf", theta)

    def ppf(self, u: ArrayLike) -> NDArray[np.float64]:
        """Quantile function: the map from the unit cube to theta.

        Parameters
        ----------
        u : array-like, shape (n, p), in [0, 1]

        Returns
        -------
        ndarray, shape (n, p)
        """
        return self._apply("ppf", u)

    def to_normal(self, theta: ArrayLike) -> NDArray[np.float64]:
        """Gaussian coordinates z = Phi^-1(F(theta)), precise in both tails.

        Parameters
        ----------
        theta : array-like, shape (n, p), inside the support

        Returns
        -------
        ndarray, shape (n, p)
            Discrete parameters, which have no such coordinate, stay as they are.
        """
        lower, upper = self._apply("cdf", theta), self._apply("sf", theta)
        z = _within(np.where(lower < 0.5, ndtri(lower), -ndtri(upper)))
        return np.where(self.discrete, theta, z)

    def from_normal(self, z: ArrayLike) -> NDArray[np.float64]:
        """Theta from its Gaussian coordinates; the inverse of `to_normal`.

        Parameters
        ----------
        z : array-like, shape (n, p)

        Returns
        -------
        ndarray, shape (n, p), strictly inside the support of continuous parameters
        """
        theta = np.array(z, dtype=np.float64)
        columns = list(zip(self.marginals.values(), self._columns(z), strict=True))
        for j in np.flatnonzero(~self.discrete):
            marginal, x = columns[j]
            theta[:, j] = _quantiles(marginal, _within(x), *self._closed[j])
        return _inside(theta, self.support, self.discrete)

    def _columns(self, values: ArrayLike) -> NDArray[np.float64]:
        values = np.asarray(values, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.names):
            raise ValueError(
                f"This prior has {len(self.names)} parameters {self.names}: expected an array of "
                f"shape (n, {len(self.names)}), got shape {values.shape}."
            )
        return values.T

    def _apply(self, method: str, values: ArrayLike) -> NDArray[np.float64]:
        columns = zip(self.marginals.values(), self._columns(values), strict=True)
        return np.column_stack([getattr(m, method)(x) for m, x in columns]).astype(np.float64)


def _closed_form(marginal: Any) -> tuple[str, float, float]:
    """Name a marginal whose quantiles are quick to write down, with two numbers that tell all."""
    family = type(marginal.dist)
    if family is type(stats.norm):
        return "normal", marginal.mean(), marginal.std()
    if family is type(stats.uniform):
        return "uniform", *marginal.support()
    return "", np.nan, np.nan


def _quantiles(
    marginal: Any, z: NDArray[np.float64], closed: str, a: float, b: float
) -> NDArray[np.float64]:
    """Quantiles of a marginal at Phi(z), from the nearer tail.

    Closed forms, as scipy's quantiles take 2 to 7 times as long: a quarter of posterior draws.
    """
    if closed == "normal":
        return a + b * z
    tail, low = ndtr(-np.abs(z)), z < 0
    if closed == "uniform":
        rise = (b - a) * tail
        return np.where(low, a + rise, b - rise)
    theta = np.empty_like(z)
    theta[low], theta[~low] = marginal.ppf(tail[low]), marginal.isf(tail[~low])
    return theta


def to_normal(prior: Prior, theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian coordinates of theta under any prior, by its own `to_normal` if it has one."""
    if hasattr(prior, "to_normal"):
        return np.asarray(prior.to_normal(theta))
    z = _within(ndtri(np.asarray(prior.cdf(theta), dtype=np.float64)), _NEAR)
    return np.where(prior.discrete, theta, z)


def from_normal(prior: Prior, z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Theta from Gaussian coordinates; the inverse of `to_normal`."""
    if hasattr(prior, "from_normal"):
        return np.asarray(prior.from_normal(z))
    if np.any(prior.discrete):
        raise ValueError(
            f"The Gaussian coordinates of {type(prior).__name__}, which has discrete parameters, "
            "can be inverted only if it has a method from_normal, as JointPrior has."
        )
    theta = np.asarray(prior.ppf(ndtr(_within(z, _NEAR))), dtype=np.float64)
    return _inside(theta, np.asarray(prior.support), np.asarray(prior.discrete))


def off_bounds(prior: Prior, z: NDArray[np.float64], edge: float) -> NDArray[np.float64]:
    """Replace z of a theta on a bound of the prior, where it is as good as infinite, by +-edge."""
    outermost = _FAR if hasattr(prior, "to_normal") else _NEAR
    on_bound = (np.abs(z) >= outermost) & ~np.asarray(prior.discrete)
    return np.where(on_bound, np.copysign(edge, z), z)


def _within(z: NDArray[np.float64], bound: float = _FAR) -> NDArray[np.float64]:
    """Clip z to (-bound, bound)."""
    return np.clip(z, -bound, bound)


def _inside(
    theta: NDArray[np.float64], support: NDArray[np.float64], discrete: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Pull values that rounding put on a bound back inside."""
    low, high = np.nextafter(support[:, 0], np.inf), np.nextafter(support[:, 1], -np.inf)
    return np.where(discrete, theta, np.clip(theta, low, high))


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
    values = [("", v) for v in marginal.args] + [(f"{k}=", v) for k, v in marginal.kwds.items()]
    arguments = (name + (f"{v:g}" if np.ndim(v) == 0 else str(v)) for name, v in values)
    return f"{marginal.dist.name}({', '.join(arguments)})"


def _as_plain(marginal: Any) -> Any:
    """Name, arguments and keywords of a distribution of scipy.stats; another one as it is."""
    name = marginal.dist.name
    if type(getattr(stats, name, None)) is not type(marginal.dist):
        return marginal
    return name, list(marginal.args), dict(marginal.kwds)


def _from_plain(plain: Any) -> Any:
    if not isinstance(plain, tuple):
        return plain
    name, args, kwds = plain
    family = getattr(stats, name, None)
    if not isinstance(family, stats.rv_continuous | stats.rv_discrete):
        raise ValueError(f"scipy.stats has no distribution {name!r}: was the file made by skbi?")
    return family(*args, **kwds)
