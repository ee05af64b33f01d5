"""Priors of independent parameters, or groups of them: p(theta) = prod_j p_j(theta_j)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from skbi.priors.blocks import MAX_Z, Block, IndependentBlock, NormalBlock, SharesBlock
from skbi.priors.gaussian import clip_to_support
from skbi.priors.marginals import EXPECTED, Marginal, load_marginal
from skbi.priors.torch_priors import block_of_torch, is_of_torch
from skbi.randomness import RandomState, as_generator

__all__ = ["JointPrior"]


class JointPrior:
    """A prior of named parameters, each with its distribution, or of groups with joint ones.

    Parameters
    ----------
    marginals : mapping of str, or tuple of str, to distribution
        The distribution of each parameter by its name, in the order of theta's columns: a frozen
        one of scipy, such as ``stats.norm(0, 1)``, or one of the newer kind, such as
        ``stats.Normal(mu=0)``, ``stats.Mixture([...])`` and ``stats.truncate(...)``. It may be
        continuous or discrete. A tuple of names has a joint distribution:
        ``stats.multivariate_normal(mean, cov)``, or ``stats.dirichlet(alpha)`` of shares, whose
        last one has no name, as it is what the others leave of one. Distributions of torch are
        taken as well: univariate ones, ``Independent``, ``MultivariateNormal``, ``Dirichlet`` and
        ``TransformedDistribution`` of these.

    Attributes
    ----------
    marginals : dict
        The distributions, as they were given.
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

    See Also
    --------
    Prior : What a prior of your own must have.

    Examples
    --------
    >>> from scipy import stats
    >>> prior = JointPrior({"rate": stats.gamma(2), "shift": stats.uniform(-1, 2)})
    >>> prior.sample(4, random_state=0).shape
    (4, 2)
    >>> prior.log_prob([[1.0, 0.0], [1.0, 5.0]]).round(3)
    array([-1.693,   -inf])

    Two correlated parameters, and the first two of three shares:

    >>> related = stats.multivariate_normal([0, 1], [[1, 0.8], [0.8, 1]])
    >>> prior = JointPrior({("a", "b"): related, ("first", "second"): stats.dirichlet([1, 1, 1])})
    >>> prior.names
    ('a', 'b', 'first', 'second')
    """

    def __init__(self, marginals: Mapping[Any, Any]) -> None:
        self._blocks = _check_marginals(marginals)
        self.marginals = {name: block.distribution for name, block in self._blocks.items()}
        self.names = tuple(name for key in self._blocks for name in _names_of(key))
        self.discrete = np.concatenate([b.discrete for b in self._blocks.values()])
        self.support = np.concatenate([b.support for b in self._blocks.values()])

    def __getstate__(self) -> dict[str, Any]:
        """Return each marginal as a name and numbers, so that files name no classes of scipy."""
        saved = {_names_of(key)[0]: block.save() for key, block in self._blocks.items()}
        together = {key[0]: list(key) for key in self._blocks if not isinstance(key, str)}
        return {"marginals": saved, "together": together}

    def __setstate__(self, state: dict[str, Any]) -> None:
        keys = {name: tuple(names) for name, names in state["together"].items()}
        saved = state["marginals"].items()
        JointPrior.__init__(self, {keys.get(name, name): load_marginal(m) for name, m in saved})

    def __deepcopy__(self, memo: Any) -> JointPrior:
        """Return a prior of the same marginals, which never change."""
        return type(self)(self.marginals)

    def __repr__(self) -> str:
        described = ((", ".join(_names_of(key)), block) for key, block in self._blocks.items())
        return f"JointPrior({', '.join(f'{names}: {block}' for names, block in described)})"

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
        left = {k: m for k, m in self.marginals.items() if not set(_names_of(k)) <= set(names)}
        divided = [k for k in left if set(_names_of(k)) & set(names)]
        if divided:
            raise ValueError(
                f"Parameters that are drawn together can only be left out together; got {names}, a "
                f"part of {divided[0]}."
            )
        return JointPrior(left)

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
        draws = np.hstack([block.sample(n, rng) for block in self._blocks.values()])
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
        return np.sum([block.log_prob(x) for block, x in self._parts(theta)], axis=0)

    def log_masses(self, theta: ArrayLike) -> NDArray[np.float64]:
        """Return the log probability of each discrete parameter, and 0 for continuous ones.

        Parameters
        ----------
        theta : array-like, shape (n, p)

        Returns
        -------
        ndarray, shape (n, p)
        """
        return self._apply_to_blocks("log_masses", theta)

    def cdf(self, theta: ArrayLike) -> NDArray[np.float64]:
        """Return the cumulative distribution function of each parameter.

        Parameters
        ----------
        theta : array-like, shape (n, p)

        Returns
        -------
        ndarray, shape (n, p), in [0, 1]
        """
        return self._apply_to_blocks("cdf", theta)

    def ppf(self, u: ArrayLike) -> NDArray[np.float64]:
        """Return the quantiles of each parameter: the map from the unit cube to theta.

        Parameters
        ----------
        u : array-like, shape (n, p), in [0, 1]

        Returns
        -------
        ndarray, shape (n, p)
        """
        return self._apply_to_blocks("ppf", u)

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
        return self._apply_to_blocks("to_normal", theta)

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
        z = np.asarray(z, dtype=np.float64)
        clipped = np.clip(z, -MAX_Z, MAX_Z)
        theta = self._apply_to_blocks("from_normal", np.where(self.discrete, z, clipped))
        return clip_to_support(theta, self.support, self.discrete)

    def _parts(self, values: ArrayLike) -> list[tuple[Block, NDArray[np.float64]]]:
        """Return each block with its columns of an array (n, p)."""
        values = np.asarray(values, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.names):
            raise ValueError(
                f"This prior has {len(self.names)} parameters {self.names}: expected an array of "
                f"shape (n, {len(self.names)}), got shape {values.shape}."
            )
        ends = np.cumsum([len(block.discrete) for block in self._blocks.values()])[:-1]
        return list(zip(self._blocks.values(), np.split(values, ends, axis=1), strict=True))

    def _apply_to_blocks(self, method: str, values: ArrayLike) -> NDArray[np.float64]:
        """Call a method of each block with the columns of its parameters."""
        return np.hstack([getattr(block, method)(x) for block, x in self._parts(values)])


def _names_of(key: str | tuple[str, ...]) -> tuple[str, ...]:
    return (key,) if isinstance(key, str) else key


def _check_marginals(marginals: Mapping[Any, Any]) -> dict[Any, Block]:
    """Return the blocks of a joint prior; refuse what is none, by name."""
    if not isinstance(marginals, Mapping) or not marginals:
        raise TypeError(
            f"JointPrior expects a non-empty dict of name -> {EXPECTED}; got {marginals!r}."
        )
    checked: dict[Any, Block] = {}
    for key, distribution in marginals.items():
        names = _names_of(key)
        if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"Parameter names must be strings, or tuples of them; got {key!r}.")
        try:
            checked[key] = _block_of(distribution)
            if len(checked[key].discrete) != len(names):
                raise ValueError(
                    f"must have as many parameters as names, {len(names)}; got "
                    f"{len(checked[key].discrete)} of {checked[key]}"
                )
        except (TypeError, ValueError) as error:
            raise type(error)(f"The marginal of {key!r} {error}.") from None
    names = [name for key in checked for name in _names_of(key)]
    if len(set(names)) < len(names):
        raise ValueError(f"Parameter names must differ; got {names}.")
    return checked


def _block_of(distribution: Any) -> Block:
    """Return what a distribution of scipy or torch is as a prior."""
    if is_of_torch(distribution):
        return block_of_torch(distribution)
    if isinstance(distribution, type(stats.multivariate_normal())):
        return NormalBlock(distribution.mean, distribution.cov, distribution)
    if isinstance(distribution, type(stats.dirichlet([1, 1]))):
        return SharesBlock(distribution.alpha, distribution)
    several = distribution if isinstance(distribution, list) else [distribution]
    return IndependentBlock([Marginal(each) for each in several], distribution)
