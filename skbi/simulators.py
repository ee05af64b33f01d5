"""Simulators: x ~ g(theta, eta). A simulator is a scikit-learn transformer from theta to data."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from skbi.priors import JointPrior, RandomState, as_generator

__all__ = ["DoubleMoonSimulator", "FunctionSimulator", "as_numbers", "as_observations"]


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


class FunctionSimulator(TransformerMixin, BaseEstimator):
    """A function of theta as a simulator.

    Parameters
    ----------
    func : callable
        ``func(row)`` of one row of theta (p,), or ``func(block)`` of many (n, p) if ``vectorized``.
        If it has an argument ``rng``, it gets a `numpy.random.Generator` as that: its only source
        of randomness, if results are to repeat.
    vectorized : bool, default=False
        Whether ``func`` simulates all rows of an array at once.
    kwargs : dict or None, default=None
        Further keyword arguments of ``func``.
    random_state : int, Generator, RandomState or None, default=None
        An integer gives the same data at every call.

    Attributes
    ----------
    feature_names_out_ : ndarray of str
        Names of an observation's columns, once `fit` has tried the function on one row.

    Notes
    -----
    One row gives a number, a vector (d,), a set (S, d) of any size, a pandas Series (a vector), a
    DataFrame (a set, one row a point), or a dict of numbers and arrays, which are joined to one
    vector. Results are float64, or float32 if the function returns that.

    Examples
    --------
    >>> def walk(theta, rng, n_steps):
    ...     return theta[0] + theta[1] * rng.normal(size=n_steps).cumsum()
    >>> simulator = FunctionSimulator(walk, kwargs={"n_steps": 10}, random_state=0)
    >>> simulator.transform([[0.0, 1.0], [5.0, 0.1]]).shape
    (2, 10)

    A program on the command line, which gets theta and a seed and prints numbers:

    >>> import subprocess, sys
    >>> program = "import random, sys; _, low, high, seed = sys.argv; random.seed(seed);" + (
    ...     "print(*(random.uniform(float(low), float(high)) for _ in range(3)))")
    >>> def command_line(theta, rng):
    ...     words = [sys.executable, "-c", program, *map(str, theta), str(rng.integers(2**31))]
    ...     done = subprocess.run(words, capture_output=True, text=True, check=True)
    ...     return [float(word) for word in done.stdout.split()]
    >>> X = FunctionSimulator(command_line, random_state=0).transform([[0, 1], [8, 9]])
    >>> X.astype(int) // 8
    array([[0, 0, 0],
           [1, 1, 1]])
    """

    def __init__(
        self,
        func: Callable[..., Any],
        *,
        vectorized: bool = False,
        kwargs: Mapping[str, Any] | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.func = func
        self.vectorized = vectorized
        self.kwargs = kwargs
        self.random_state = random_state

    def fit(self, theta: ArrayLike, y: None = None) -> Self:
        """Try the function on the first row of theta, to learn the names of what it returns.

        `transform` and `simulate` do without.

        Parameters
        ----------
        theta : array-like, shape (n, p)
        y : None
            Ignored.

        Returns
        -------
        self
        """
        theta = validate_data(self, theta, dtype=np.float64)
        rng = self._generators(1)[0]
        output = self._call(theta[:1] if self.vectorized else theta[0], rng)
        self.feature_names_out_ = np.array(self._names(output), dtype=object)
        return self

    def transform(self, theta: ArrayLike) -> NDArray[Any]:
        """Simulate one observation for each row of theta.

        Parameters
        ----------
        theta : array-like, shape (n, p)

        Returns
        -------
        ndarray, shape (n, d) or (n, S, d), or an object array of n arrays (S_i, d)
        """
        theta = validate_data(self, theta, dtype=np.float64, reset=False)
        if self.vectorized:
            X = as_observations(self._call(theta, self._generators(1)[0]))
            return _check_length(X, len(theta))
        generators = self._generators(len(theta))
        return as_observations([self.one(*pair) for pair in zip(theta, generators, strict=True)])

    def one(self, theta: NDArray[np.float64], rng: np.random.Generator | None) -> NDArray[Any]:
        """Simulate a single observation.

        Parameters
        ----------
        theta : ndarray, shape (p,)
        rng : Generator or None
            None if the function takes none, see `takes_rng`.

        Returns
        -------
        ndarray, shape (d,) or (S, d)
        """
        return as_numbers(self._call(theta, rng))

    @property
    def takes_rng(self) -> bool:
        """Whether the function has an argument ``rng``."""
        try:
            return "rng" in inspect.signature(self.func).parameters
        except ValueError:  # written in C, without a signature
            return False

    def get_feature_names_out(self, input_features: Sequence[str] | None = None) -> NDArray[Any]:
        """Return the names of an observation's columns.

        Parameters
        ----------
        input_features : sequence of str or None, default=None
            Ignored.

        Returns
        -------
        ndarray of str, shape (d,)
            The keys of a dict or Series (with a number, if an entry is an array), or x0, x1 ...
        """
        check_is_fitted(self, "feature_names_out_")
        return self.feature_names_out_

    def _call(self, theta: NDArray[np.float64], rng: np.random.Generator | None) -> Any:
        kwargs = dict(self.kwargs or {})
        return self.func(theta, **kwargs) if rng is None else self.func(theta, rng=rng, **kwargs)

    def _generators(self, n: int) -> list[np.random.Generator | None]:
        if not self.takes_rng:
            return [None] * n
        return list(as_generator(_own_stream(self.random_state)).spawn(n))

    def _names(self, output: Any) -> list[str]:
        if isinstance(output, Mapping):
            first = {k: np.asarray(v)[0] for k, v in output.items()} if self.vectorized else output
            return [name for item in first.items() for name in _numbered(*item)]
        if hasattr(output, "columns"):  # a DataFrame
            return [str(name) for name in output.columns]
        if hasattr(output, "index") and not isinstance(output, list | tuple):  # a Series
            return [str(name) for name in output.index]
        X = as_observations(output if self.vectorized else [output])
        return [f"x{j}" for j in range(X[0].shape[-1])]

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.non_deterministic = True
        return tags


def as_numbers(output: Any) -> NDArray[Any]:
    """Return what a simulation gave as an array (d,) or (S, d) of float64 or float32."""
    if isinstance(output, Mapping):
        output = np.concatenate([np.ravel(value) for value in output.values()])
    x = np.asarray(output)
    if x.dtype.kind not in "buif":
        raise TypeError(f"A simulation must return numbers; got dtype {x.dtype}: {output!r:.80}.")
    x = x if x.dtype == np.float32 else x.astype(np.float64, copy=False)
    return x if x.ndim else x[None]


def as_observations(outputs: Any) -> NDArray[Any]:
    """Stack n observations: an array (n, ...), or an object array if they differ in shape."""
    if isinstance(outputs, Mapping):
        outputs = np.column_stack(list(outputs.values()))
    apart = isinstance(outputs, list | tuple) or np.asarray(outputs).dtype.kind == "O"
    if not apart:
        X = as_numbers(outputs)
        return X if X.ndim > 1 else X[:, None]
    rows = [as_numbers(x) for x in outputs]
    if len({x.shape for x in rows}) == 1:
        return np.stack(rows)
    sets = np.empty(len(rows), dtype=object)
    sets[:] = rows
    return sets


def _numbered(name: str, value: Any) -> list[str]:
    return [name] if np.ndim(value) == 0 else [f"{name}{j}" for j in range(np.size(value))]


def _check_length(X: NDArray[Any], n: int) -> NDArray[Any]:
    if len(X) != n:
        raise ValueError(
            f"A vectorized function must return as many observations as theta has rows, {n}; got "
            f"{len(X)}. If it simulates one row at a time, set vectorized=False."
        )
    return X


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
