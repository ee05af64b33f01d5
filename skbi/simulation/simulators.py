"""Simulators: x ~ p(x | theta), as scikit-learn transformers from theta to observations."""

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

from skbi.priors import JointPrior
from skbi.randomness import (
    RandomState,
    Seed,
    as_generator,
    global_generators_restored,
    seed_words,
)
from skbi.simulation.checks import MAX_CALLS, check_block_simulator, check_length
from skbi.simulation.observations import as_observation, stack_observations
from skbi.simulation.seeding import call_each, call_seeded

__all__ = ["DoubleMoonSimulator", "FunctionSimulator"]


class DoubleMoonSimulator(TransformerMixin, BaseEstimator):
    """Simulator of sets of points on two interleaved, noisy, vertically stretched half circles.

    The columns of theta are d in [0, 1], sigma >= 0 and t >= 0. Each point is drawn in four steps:

    1. An angle a is drawn from Uniform(0, pi).
    2. With probability d the point lies on the upper moon, at (cos a, sin a). Otherwise it lies on
       the lower moon, at (1 - cos a, 1/2 - sin a).
    3. Noise from N(0, sigma^2 I) is added to it.
    4. Its second coordinate is multiplied by t.

    The points of a set are independent, unlike those of `sklearn.datasets.make_moons`, whose angles
    form a regular grid.

    Parameters
    ----------
    n_points : int or (int, int), default=200
        Number of points in each set. A pair (low, high) draws it for each set from the integers
        low, ..., high.
    random_state : int, SeedSequence, Generator, RandomState or None, default=None
        The only source of randomness. An integer gives the same data at every call.

    See Also
    --------
    FunctionSimulator : A simulator of your own.

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
        """Return the prior of the double-moon problem.

        In both problems sigma ~ LogNormal(-3, 0.7) and t ~ HalfNormal(2).

        Parameters
        ----------
        problem : {"set", "event"}, default="set"
            In the problem "set", d is the expected fraction of points on the upper moon, with the
            prior Uniform(0, 1). In the problem "event", d says which moon a single point lies on
            (1 is the upper one), with the prior Bernoulli(1/2).

        Returns
        -------
        JointPrior

        Raises
        ------
        ValueError
            If there is no such problem.

        Examples
        --------
        >>> DoubleMoonSimulator.prior("event").discrete
        array([ True, False, False])
        """
        d = {"set": stats.uniform(0, 1), "event": stats.bernoulli(0.5)}
        if problem not in d:
            raise ValueError(f"problem must be one of {sorted(d)}; got {problem!r}.")
        sigma, t = stats.lognorm(0.7, scale=np.exp(-3)), stats.halfnorm(scale=2)
        return JointPrior({"d": d[problem], "sigma": sigma, "t": t})

    def fit(self, theta: ArrayLike, y: None = None) -> Self:
        """Check theta. The simulator itself has nothing to learn.

        Parameters
        ----------
        theta : array-like, shape (n, 3)
            Columns d, sigma, t.
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
        ndarray, shape (n, n_points, 2)
            If ``n_points`` is a pair, an object array of n sets (S_i, 2) instead.

        Raises
        ------
        ValueError
            If theta does not have three columns, or if a value is out of its range. The message
            names the first such row.
        """
        theta = self._check(theta, reset=False)
        rng = as_generator(_simulator_seed(self.random_state))
        sizes = self._draw_sizes(len(theta), rng)
        d, sigma, t = np.repeat(theta, sizes, axis=0).T
        angle = rng.uniform(0, np.pi, d.size)
        x, y, is_upper = np.cos(angle), np.sin(angle), rng.random(d.size) < d
        points = np.column_stack([np.where(is_upper, x, 1 - x), np.where(is_upper, y, 0.5 - y)])
        points += sigma[:, None] * rng.standard_normal(points.shape)
        points[:, 1] *= t
        if np.ndim(self.n_points) == 0:
            return points.reshape(len(theta), -1, 2)
        sets = np.empty(len(theta), dtype=object)
        sets[:] = np.split(points, np.cumsum(sizes)[:-1])
        return sets

    def _check(self, theta: ArrayLike, *, reset: bool) -> NDArray[np.float64]:
        options = {"dtype": np.float64, "ensure_all_finite": False, "reset": reset}
        return _check_double_moon_theta(validate_data(self, theta, **options))

    def _draw_sizes(self, n_sets: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw the number of points in each set."""
        low, high = np.broadcast_to(self.n_points, 2)
        if not (float(low).is_integer() and float(high).is_integer() and 1 <= low <= high):
            raise ValueError(
                "n_points must be a positive integer, or a pair (low, high) of positive integers "
                f"with low <= high; got {self.n_points!r}."
            )
        return rng.integers(low, high, size=n_sets, endpoint=True)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.non_deterministic = True  # the noise of a row depends on its position in theta
        return tags


class FunctionSimulator(TransformerMixin, BaseEstimator):
    """Simulator that calls a function of theta.

    Parameters
    ----------
    func : callable
        A function of one row of theta, shape (p,), which returns one observation (see Notes). If
        ``vectorized``, it is a function of many rows, shape (n, p), and returns n observations. If
        it has an argument ``rng``, it is given a `numpy.random.Generator` for it. The global
        generators of Python's random, numpy and torch are seeded before every call, and put back
        afterwards, so that functions which draw from them repeat their results as well. In threads
        other than the main one they are left alone.
    vectorized : bool, default=False
        Whether ``func`` simulates all rows of an array at once.
    kwargs : dict or None, default=None
        Further keyword arguments of ``func``.
    random_state : int, SeedSequence, Generator, RandomState or None, default=None
        The only source of randomness. An integer gives the same data at every call.

    Attributes
    ----------
    feature_names_out_ : ndarray of str, shape (d,)
        Names of an observation's columns. It exists after `fit`, which calls the function on one
        row.

    See Also
    --------
    simulate : Takes plain functions of one row, too, and runs them in parallel.

    Notes
    -----
    For one row of theta the function may return

    - a number,
    - a vector (d,) or a pandas Series, which is a vector,
    - a set (S, d) of any size S, or a DataFrame, which is a set with one row for each point,
    - a series (T, c) of any length, or an image (H, W) or (H, W, channels),
    - a dict of numbers and arrays, which are joined to one vector.

    Observations are float64, or float32 if the function returns float32. Arrays with more axes
    are refused: return their summaries, or all their numbers as one vector, ``x.ravel()``.

    Examples
    --------
    >>> def walk(theta, rng, n_steps):
    ...     return theta[0] + theta[1] * rng.normal(size=n_steps).cumsum()
    >>> simulator = FunctionSimulator(walk, kwargs={"n_steps": 10}, random_state=0)
    >>> simulator.transform([[0.0, 1.0], [5.0, 0.1]]).shape
    (2, 10)

    The simulator may also be a program. This one takes two parameters and a seed from its command
    line, and prints three numbers:

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
        """Call the function on the first row of theta to learn the names of what it returns.

        `transform` and `simulate` do not need this.

        Parameters
        ----------
        theta : array-like, shape (n, p)
            Only the first row is used.
        y : None
            Ignored.

        Returns
        -------
        self
        """
        theta = validate_data(self, theta, dtype=np.float64)
        first = theta[:1] if self.vectorized else theta[0]
        with global_generators_restored():
            output = call_seeded(self._call, first, Seed(self._words(1)[0]), self.takes_rng)
        self.feature_names_out_ = np.array(self._column_names(output), dtype=object)
        return self

    def transform(self, theta: ArrayLike) -> NDArray[Any]:
        """Simulate one observation for each row of theta.

        Parameters
        ----------
        theta : array-like, shape (n, p)

        Returns
        -------
        ndarray, shape (n, d) or (n, S, d)
            If sets differ in size, an object array of n sets (S_i, d) instead.

        Raises
        ------
        TypeError
            If the function returns something that holds no numbers.
        ValueError
            If a vectorized function does not return one observation for each row of theta.
        """
        theta = validate_data(self, theta, dtype=np.float64, reset=False)
        with global_generators_restored():
            return self._transform_block(theta) if self.vectorized else self._transform_rows(theta)

    def one(self, theta: NDArray[np.float64], rng: np.random.Generator | None) -> NDArray[Any]:
        """Simulate a single observation, with a function that is not vectorized.

        Parameters
        ----------
        theta : ndarray, shape (p,)
        rng : Generator or None
            The generator for the function's argument ``rng``. It must be None if the function has
            no such argument (see `takes_rng`).

        Returns
        -------
        ndarray, shape (d,) or (S, d)
        """
        return as_observation(self._call(theta, rng))

    def block(self, theta: NDArray[np.float64], rng: np.random.Generator | None) -> NDArray[Any]:
        """Simulate all rows of theta together, with a function that is vectorized.

        Parameters
        ----------
        theta : ndarray, shape (n, p)
        rng : Generator or None
            As in `one`.

        Returns
        -------
        ndarray, shape (n, d) or (n, S, d), or an object array of n sets (S_i, d)
        """
        return stack_observations(self._call(theta, rng))

    def _transform_rows(self, theta: NDArray[np.float64]) -> NDArray[Any]:
        def simulate(i: int, rng: np.random.Generator | None) -> NDArray[Any]:
            return self.one(theta[i], rng)

        words = self._words(len(theta))
        return stack_observations(list(call_each(simulate, words, self.takes_rng)))

    def _transform_block(self, theta: NDArray[np.float64]) -> NDArray[Any]:
        takes_rng, seeds = self.takes_rng, map(Seed, self._words(1 + MAX_CALLS))

        def simulate(rows: NDArray[np.float64]) -> NDArray[Any]:
            return call_seeded(self.block, rows, next(seeds), takes_rng)

        X = check_length(simulate(theta), len(theta))
        check_block_simulator(simulate, theta[0], len(theta))
        return X

    @property
    def takes_rng(self) -> bool:
        """Whether the function has an argument ``rng``."""
        try:
            return "rng" in inspect.signature(self.func).parameters
        except ValueError:  # a function written in C may have no signature
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
            The names of a DataFrame's columns, or the keys of a dict or Series. The entries of an
            array in a dict are numbered. Other columns are called x0, x1, and so on.

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        """
        check_is_fitted(self, "feature_names_out_")
        return self.feature_names_out_

    def _call(self, theta: NDArray[np.float64], rng: np.random.Generator | None) -> Any:
        """Call the function, with ``rng`` only if it takes one."""
        kwargs = dict(self.kwargs or {})
        return self.func(theta, **kwargs) if rng is None else self.func(theta, rng=rng, **kwargs)

    def _words(self, n: int) -> NDArray[np.uint64]:
        """Return the words of the seeds of n calls, shape (n, 4)."""
        rng = as_generator(_simulator_seed(self.random_state))
        return seed_words(rng.bit_generator.seed_seq.spawn(1)[0], n)

    def _column_names(self, output: Any) -> list[str]:
        """Name the columns of what the function returned for the first row of theta."""
        if isinstance(output, Mapping):
            first = {k: np.asarray(v)[0] for k, v in output.items()} if self.vectorized else output
            return [name for item in first.items() for name in _numbered_names(*item)]
        if hasattr(output, "columns"):  # a DataFrame
            return [str(name) for name in output.columns]
        if hasattr(output, "index") and not isinstance(output, list | tuple):  # a Series
            return [str(name) for name in output.index]
        X = stack_observations(output if self.vectorized else [output])
        return [f"x{j}" for j in range(X[0].shape[-1])]

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.non_deterministic = True
        return tags


def _simulator_seed(random_state: RandomState) -> RandomState:
    """Derive another seed from an integer, and return any other ``random_state`` unchanged.

    If a prior has drawn theta with the same integer, a simulator would otherwise use the same
    random numbers again.
    """
    if isinstance(random_state, Integral):
        return np.random.SeedSequence(int(random_state), spawn_key=(1,))
    return random_state


def _check_double_moon_theta(theta: NDArray[np.float64]) -> NDArray[np.float64]:
    if theta.shape[1] != 3:
        raise ValueError(
            f"theta must have shape (n, 3), columns d, sigma, t; got shape {theta.shape}."
        )
    d, sigma, t = theta.T
    violations = {
        "theta must be finite, without NaN or inf": ~np.isfinite(theta).all(axis=1),
        "d must lie in [0, 1]": (d < 0) | (d > 1),
        "sigma must not be negative": sigma < 0,
        "t must not be negative": t < 0,
    }
    for rule, is_violated in violations.items():
        if is_violated.any():
            row = int(is_violated.argmax())
            raise ValueError(f"{rule}; row {row} of theta is {theta[row].tolist()}.")
    return theta


def _numbered_names(name: str, value: Any) -> list[str]:
    """Return the name of a number, or one numbered name for each entry of an array."""
    return [name] if np.ndim(value) == 0 else [f"{name}{j}" for j in range(np.size(value))]
