"""Priors of independent parameters: p(theta) = prod_j p_j(theta_j)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from skbi.priors.gaussian import MAX_Z, clip_to_support
from skbi.priors.marginals import EXPECTED, Marginal, load_marginal
from skbi.randomness import RandomState, as_generator

__all__ = ["JointPrior"]


class JointPrior:
    """A prior of independent parameters, each with a name and a distribution of scipy.stats.

    Parameters
    ----------
    marginals : mapping of str to distribution of scipy.stats
        The distribution of each parameter by its name, in the order of theta's columns: a frozen
        one, such as ``stats.norm(0, 1)``, or one of the newer kind, such as ``stats.Normal(mu=0)``,
        ``stats.Mixture([...])`` and ``stats.truncate(...)``. It may be continuous or discrete.

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
        If a marginal is not a distribution of scipy.stats, or if a prior that is to be pickled has
        one that cannot be saved (such as those of ``stats.make_distribution``).
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
        self._marginals = _check_marginals(marginals)
        self.marginals = {name: m.distribution for name, m in self._marginals.items()}
        self.names = tuple(self.marginals)
        self.discrete = np.array([m.discrete for m in self._marginals.values()])
        self.support = np.array([m.support for m in self._marginals.values()])

    def __getstate__(self) -> dict[str, Any]:
        """Return each marginal as a name and numbers, so that files name no classes of scipy."""
        return {"marginals": {name: m.save() for name, m in self._marginals.items()}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        saved = state["marginals"].items()
        JointPrior.__init__(self, {name: load_marginal(marginal) for name, marginal in saved})

    def __deepcopy__(self, memo: Any) -> JointPrior:
        """Return a prior of the same marginals, which never change."""
        return type(self)(self.marginals)

    def __repr__(self) -> str:
        marginals = ", ".join(f"{name}: {marginal}" for name, marginal in self._marginals.items())
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

        Continuous parameters lie strictly inside their support, also where a draw is so near a
        bound that it is rounded to it (as many of ``beta(0.01, 0.01)`` are).

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
        draws = np.column_stack([m.sample(n, rng) for m in self._marginals.values()])
        return clip_to_support(draws, self.support, self.discrete)

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
        columns = zip(self._marginals.values(), self._columns(theta), strict=True)
        return np.sum([marginal.log_prob(x) for marginal, x in columns], axis=0)

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
        return np.where(self.discrete, theta, np.clip(z, -MAX_Z, MAX_Z))

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
        columns = zip(self._marginals.values(), self._columns(z), strict=True)
        for j, (marginal, column) in enumerate(columns):
            if not marginal.discrete:
                theta[:, j] = marginal.from_normal(np.clip(column, -MAX_Z, MAX_Z))
        return clip_to_support(theta, self.support, self.discrete)

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
        columns = zip(self._marginals.values(), self._columns(values), strict=True)
        return np.column_stack([getattr(m, method)(x) for m, x in columns]).astype(np.float64)


def _check_marginals(marginals: Mapping[str, Any]) -> dict[str, Marginal]:
    """Return the marginals of a joint prior; refuse what is none, by name."""
    if not isinstance(marginals, Mapping) or not marginals:
        raise TypeError(
            f"JointPrior expects a non-empty dict of name -> {EXPECTED}; got {marginals!r}."
        )
    checked = {}
    for name, distribution in marginals.items():
        if not isinstance(name, str):
            raise TypeError(f"Parameter names must be strings; got {name!r}.")
        try:
            checked[name] = Marginal(distribution)
        except (TypeError, ValueError) as error:
            raise type(error)(f"The marginal of {name!r} {error}.") from None
    return checked
