"""Simulators: x ~ g(theta, eta). A simulator is a scikit-learn transformer from theta to data."""

from __future__ import annotations

from numbers import Integral
from typing import Any, Self

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils.validation import validate_data

from skbi.priors import JointPrior, Prior, RandomState, as_generator

__all__ = ["DoubleMoonSimulator", "simulate"]

_BLOCK = 1000


class DoubleMoonSimulator(TransformerMixin, BaseEstimator):
    """Sets of points on two interleaved noisy arcs, vertically dilated.

    One point: a ~ Uniform(0, pi); with probability d the upper moon (cos a, sin a), otherwise the
    lower one (1 - cos a, 1/2 - sin a); noise N(0, sigma^2 I) is added, then the second coordinate
    is multiplied by t. Theta's columns are d in [0, 1], sigma >= 0 and t >= 0. Unlike
    `sklearn.datasets.make_moons`, which puts the angles on an even grid, points are independent.

    Parameters
    ----------
    n_points : int or (int, int), default=200
        Points of each set, or the bounds (low, high), both included, of a size drawn for each set.
    random_state : int, Generator, RandomState or None, default=None
        An integer gives the same data at every call.

    Examples
    --------
    >>> simulator = DoubleMoonSimulator(n_points=50, random_state=0)
    >>> simulator.transform([[0.5, 0.05, 1.0], [0.2, 0.1, 2.0]]).shape
    (2, 50, 2)
    """

    def __init__(
        self, *, n_points: int | tuple[int, int] = 200, random_state: RandomState = None
    ) -> None:
        self.n_points = n_points
        self.random_state = random_state

    @classmethod
    def prior(cls, problem: str = "set") -> JointPrior:
        """Return the prior of the running problem.

        Parameters
        ----------
        problem : {"set", "event"}, default="set"
            "set": d is the fraction of points on the upper moon, Uniform(0, 1). "event": d is the
            moon of a single point, Bernoulli(1/2). Both: sigma ~ LogNormal(-3, 0.7),
            t ~ HalfNormal(2).

        Returns
        -------
        JointPrior

        Examples
        --------
        >>> DoubleMoonSimulator.prior("event").discrete
        array([ True, False, False])
        """
        fractions = {"set": stats.uniform(0, 1), "event": stats.bernoulli(0.5)}
        if problem not in fractions:
            raise ValueError(f"problem must be one of {sorted(fractions)}; got {problem!r}.")
        sigma, t = stats.lognorm(0.7, scale=np.exp(-3)), stats.halfnorm(scale=2)
        return JointPrior({"d": fractions[problem], "sigma": sigma, "t": t})

    def fit(self, theta: ArrayLike, y: None = None) -> Self:
        """Check theta; there is nothing to learn.

        Parameters
        ----------
        theta : array-like, shape (n, 3)
        y : None
            Ignored.

        Returns
        -------
        self
        """
        self._check(theta, reset=True)
        return self

    def transform(self, theta: ArrayLike) -> NDArray[Any]:
        """Simulate one set for each row of theta.

        Parameters
        ----------
        theta : array-like, shape (n, 3)
            Columns d, sigma, t.

        Returns
        -------
        ndarray, shape (n, n_points, 2), or an object array of n arrays (S_i, 2) for a size range

        Raises
        ------
        ValueError
            If theta's width is not 3 or a value is out of its range; the row is named.
        """
        theta = self._check(theta, reset=False)
        rng = as_generator(_own_stream(self.random_state))
        sizes = self._sizes(len(theta), rng)
        d, sigma, t = np.repeat(theta, sizes, axis=0).T
        angle = rng.uniform(0, np.pi, d.size)
        x, y, upper = np.cos(angle), np.sin(angle), rng.random(d.size) < d
        points = np.column_stack([np.where(upper, x, 1 - x), np.where(upper, y, 0.5 - y)])
        points += sigma[:, None] * rng.standard_normal(points.shape)
        points[:, 1] *= t
        if np.ndim(self.n_points) == 0:
            return points.reshape(len(theta), -1, 2)
        sets = np.empty(len(theta), dtype=object)
        sets[:] = np.split(points, np.cumsum(sizes)[:-1])
        return sets

    def _check(self, theta: ArrayLike, *, reset: bool) -> NDArray[np.float64]:
        options = {"dtype": np.float64, "ensure_all_finite": False, "reset": reset}
        return _check_double_moon(validate_data(self, theta, **options))

    def _sizes(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        low, high = np.broadcast_to(self.n_points, 2)
        if not (float(low).is_integer() and float(high).is_integer() and 1 <= low <= high):
            raise ValueError(
                "n_points must be a positive integer or a pair low <= high of them; "
                f"got {self.n_points!r}."
            )
        return rng.integers(low, high, size=n, endpoint=True)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.non_deterministic = True  # a row's noise depends on where it stands
        return tags


def simulate(
    prior: Prior,
    simulator: Any,
    n_samples: int,
    *,
    n_jobs: int | None = None,
    random_state: RandomState = None,
) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Draw training pairs: theta from the prior, X from the simulator at each theta.

    Parameters
    ----------
    prior : JointPrior or an object with its methods
    simulator : object with ``transform(theta)``
        A scikit-learn transformer. If it has a ``random_state`` parameter, every block of 1,000
        rows is simulated by a clone with a seed of its own, drawn before the work is split.
    n_samples : int
        Number of pairs.
    n_jobs : int or None, default=None
        Parallel jobs, through joblib. The result does not depend on it.
    random_state : int, Generator, RandomState or None, default=None
        The only source of randomness.

    Returns
    -------
    theta : ndarray, shape (n_samples, p)
    X : ndarray, shape (n_samples, ...), or an object array of n_samples sets

    Examples
    --------
    >>> prior = DoubleMoonSimulator.prior()
    >>> theta, X = simulate(prior, DoubleMoonSimulator(n_points=20), 5, random_state=0)
    >>> theta.shape, X.shape
    ((5, 3), (5, 20, 2))
    """
    if not isinstance(n_samples, int | np.integer) or n_samples < 1:
        raise ValueError(f"n_samples must be a positive integer; got {n_samples!r}.")
    rng = as_generator(random_state)
    theta = prior.sample(n_samples, random_state=rng)
    return theta, simulate_at(theta, simulator, n_jobs=n_jobs, rng=rng)


def simulate_at(
    theta: NDArray[np.float64], simulator: Any, *, n_jobs: int | None, rng: np.random.Generator
) -> NDArray[Any]:
    """Simulate at given theta (n, p), (n, ...)."""
    if not hasattr(simulator, "transform"):
        raise TypeError(
            "simulator must be a transformer with a transform(theta) method; got "
            f"{type(simulator).__name__}. For a function of theta (n, p), use "
            "sklearn.preprocessing.FunctionTransformer."
        )
    blocks = np.split(theta, range(_BLOCK, len(theta), _BLOCK))
    seeds = rng.integers(2**31, size=len(blocks))
    X = Parallel(n_jobs=n_jobs)(
        delayed(_simulate_block)(simulator, block, int(seed))
        for block, seed in zip(blocks, seeds, strict=True)
    )
    return np.concatenate(X)


def _simulate_block(simulator: Any, theta: NDArray[np.float64], seed: int) -> NDArray[Any]:
    if hasattr(simulator, "get_params") and "random_state" in simulator.get_params():
        simulator = clone(simulator).set_params(random_state=seed)
    X = simulator.transform(theta)
    if isinstance(X, list | tuple) and len({np.shape(x) for x in X}) > 1:  # ragged sets
        sets = np.empty(len(X), dtype=object)
        sets[:] = X
        return sets
    return np.asarray(X)


def _own_stream(random_state: RandomState) -> RandomState:
    """Keep apart from a prior that has drawn theta from the same integer.

    Angles would otherwise be the very numbers that decided theta.
    """
    if isinstance(random_state, Integral):
        return np.random.SeedSequence(int(random_state), spawn_key=(1,))
    return random_state


def _check_double_moon(theta: NDArray[np.float64]) -> NDArray[np.float64]:
    if theta.shape[1] != 3:
        raise ValueError(
            f"theta must have shape (n, 3), columns d, sigma, t; got shape {theta.shape}."
        )
    d, sigma, t = theta.T
    rules = {
        "theta must be finite, without NaN or inf": ~np.isfinite(theta).all(axis=1),
        "d must lie in [0, 1]": (d < 0) | (d > 1),
        "sigma must not be negative": sigma < 0,
        "t must not be negative": t < 0,
    }
    for rule, broken in rules.items():
        if broken.any():
            row = int(broken.argmax())
            raise ValueError(f"{rule}; row {row} of theta is {theta[row].tolist()}.")
    return theta
