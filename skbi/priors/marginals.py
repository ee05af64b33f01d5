"""The distribution of one parameter: scipy.stats has two kinds of them, which here look alike."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import betaincinv, betaln, ndtr

__all__ = ["EXPECTED", "Marginal", "load_marginal"]

Array = NDArray[np.float64]

EXPECTED = (
    "a distribution of scipy.stats with its parameters, such as scipy.stats.norm(0, 1) or "
    "scipy.stats.Normal(mu=0, sigma=1)"
)

_OLD = ("cdf", "sf", "ppf", "isf")  # of a frozen distribution, such as stats.norm(0, 1)
_NEW = ("cdf", "ccdf", "icdf", "iccdf")  # of one such as stats.Normal(mu=0, sigma=1)
_FAR_TAIL = 1e-9  # quantile of a beta distribution, below which its power law is exact
_JOINT = "multivariate_normal", "dirichlet"  # of several parameters
_TESTED = np.array([0.03, 0.2, 0.5, 0.8, 0.97])  # quantiles that identify a distribution


class Marginal:
    """The distribution of one parameter.

    Parameters
    ----------
    distribution : distribution of scipy.stats
        A frozen one, or one of the newer kind with methods `icdf` and `sample`, such as
        ``stats.Normal(mu=0)``, ``stats.Mixture([...])`` and ``stats.truncate(...)``.

    Attributes
    ----------
    cdf, sf, ppf, isf : callable
        Distribution function, what it lacks to 1, and the inverses of both.
    support : tuple of float
    discrete : bool

    Raises
    ------
    TypeError
        If it is not a distribution of scipy.stats.
    ValueError
        If its parameters are invalid, or if they are arrays.

    Examples
    --------
    >>> marginal = Marginal(stats.norm(5, 2))
    >>> str(marginal), marginal.from_normal(np.array([1.0]))
    ('norm(5, 2)', array([7.]))
    """

    def __init__(self, distribution: Any) -> None:
        self.distribution = distribution
        self._is_new = all(hasattr(distribution, name) for name in (*_NEW, "sample", "logpmf"))
        if not self._is_new and not (
            hasattr(distribution, "dist") and hasattr(distribution, "rvs")
        ):
            raise TypeError(f"must be {EXPECTED}; got {_describe_type(distribution)}")
        methods = _NEW if self._is_new else _OLD
        self.cdf, self.sf, self.ppf, self.isf = (getattr(distribution, m) for m in methods)
        support = distribution.support()
        if np.ndim(self.ppf(0.5)) or np.isnan(np.asarray(support, dtype=float)).any():
            raise ValueError(
                f"must be one distribution with valid parameters; got {self}, support {support}"
            )
        self.support = float(support[0]), float(support[1])
        self.discrete = self._is_discrete()
        self._log_prob = distribution.logpmf if self.discrete else distribution.logpdf
        self._closed_form = _closed_form(distribution)

    def __str__(self) -> str:
        marginal = self.distribution
        if self._is_new:
            line = " ".join(str(marginal).split())
            return line.replace("( [ ", "([").replace("], )", "])").replace(", ]", "]")
        values = [("", v) for v in marginal.args] + [(f"{k}=", v) for k, v in marginal.kwds.items()]
        arguments = (name + (f"{v:g}" if np.ndim(v) == 0 else str(v)) for name, v in values)
        return f"{marginal.dist.name}({', '.join(arguments)})"

    def _is_discrete(self) -> bool:
        """Tell whether there is no density at the quantiles; new distributions have all methods."""
        if not self._is_new:
            return hasattr(self.distribution, "pmf")
        return not np.isfinite(self.distribution.logpdf(self.ppf(_TESTED))).any()

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n values, (n,)."""
        if self._is_new:
            return np.asarray(self.distribution.sample(n, rng=rng), dtype=np.float64)
        return np.asarray(self.distribution.rvs(size=n, random_state=rng), dtype=np.float64)

    def log_prob(self, x: Array) -> Array:
        """Return the log density, or the log mass, of values (n,)."""
        return np.asarray(self._log_prob(x), dtype=np.float64)

    def from_normal(self, z: Array) -> Array:
        """Return the quantiles at Phi(z), (n,), computed from the nearer tail.

        Closed forms are faster than scipy's quantiles.
        """
        family, numbers = self._closed_form
        if family == "normal":
            mean, sd = numbers
            return mean + sd * z
        tail, is_lower = ndtr(-np.abs(z)), z < 0
        if family:
            low, high, a, b = numbers
            theta = np.empty_like(z)
            theta[is_lower] = low + (high - low) * _beta_quantile(tail[is_lower], a, b)
            theta[~is_lower] = high - (high - low) * _beta_quantile(tail[~is_lower], b, a)
            return theta
        theta = np.empty_like(z)
        theta[is_lower] = self.ppf(tail[is_lower])
        theta[~is_lower] = self.isf(tail[~is_lower])
        return theta

    def save(self) -> Any:
        """Return names and numbers that `load_marginal` makes the distribution of.

        A frozen distribution of the user's own class is returned unchanged.

        Raises
        ------
        TypeError
            If a distribution of the newer kind cannot be made from what is written of it.
        """
        if self._is_new:
            return self._formula()
        family = self.distribution.dist
        if type(getattr(stats, family.name, None)) is not type(family):
            return self.distribution
        return family.name, list(self.distribution.args), dict(self.distribution.kwds)

    def _formula(self) -> str:
        """Return how scipy writes a distribution of the newer kind, with all digits."""
        with np.printoptions(precision=17, floatmode="unique"):
            formula = repr(self.distribution)
        try:
            same = np.array_equal(load_marginal(formula).icdf(_TESTED), self.ppf(_TESTED))
        except (ValueError, SyntaxError):
            same = False
        if not same:
            raise TypeError(
                f"{self} cannot be saved: scipy makes it of classes that a file cannot name. Take "
                "a frozen distribution, such as scipy.stats.gamma(2), or one that is made of "
                "scipy.stats.Normal, Uniform, Mixture, truncate, exp, log and abs."
            )
        return formula


def load_marginal(saved: Any) -> Any:
    """Return the distribution that `Marginal.save` was given.

    >>> load_marginal("exp(Normal(mu=np.float64(1.0), sigma=np.float64(2.0)))").icdf(0.5).round(3)
    np.float64(2.718)
    """
    if isinstance(saved, list):
        return [load_marginal(each) for each in saved]
    if isinstance(saved, str):
        return _evaluate(ast.parse(saved, mode="eval").body)
    if not isinstance(saved, tuple):
        return saved
    name, args, kwds = saved
    family = getattr(stats, name, None)
    if name not in _JOINT and not isinstance(family, stats.rv_continuous | stats.rv_discrete):
        raise _unknown(name)
    return family(*args, **kwds)


_MAKERS = (
    "Binomial", "Logistic", "Mixture", "Normal", "Uniform",
    "abs", "exp", "log", "order_statistic", "truncate",
)  # fmt: skip
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
}
_NUMBERS = {"inf": np.inf, "float64": float, "int64": int, "array": np.array}


def _evaluate(node: ast.expr) -> Any:
    """Evaluate a formula of distributions and numbers, and of nothing else."""
    match node:
        case ast.Constant(value=int() | float() as value):
            return value
        case ast.List(elts=elements):
            return [_evaluate(element) for element in elements]
        case ast.UnaryOp(op=op, operand=x) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_evaluate(x))
        case ast.BinOp(left=x, op=op, right=y) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_evaluate(x), _evaluate(y))
        case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="np"), attr=name):
            return _named(name)
        case ast.Call(func=function, args=args, keywords=keywords):
            named = {str(k.arg): _evaluate(k.value) for k in keywords}
            return _evaluate(function)(*map(_evaluate, args), **named)
    raise _unknown(ast.unparse(node))


def _named(name: str) -> Any:
    """Return what a name in a formula stands for."""
    name = {"StandardNormal": "Normal"}.get(name, name)
    if name in _NUMBERS:
        return _NUMBERS[name]
    if name not in _MAKERS or not hasattr(stats, name):
        raise _unknown(name)
    return getattr(stats, name)


def _unknown(name: str) -> ValueError:
    return ValueError(
        "A saved prior must name distributions of scipy.stats, which has no distribution "
        f"{name!r}. Load only files that skbi has written."
    )


def _closed_form(distribution: Any) -> tuple[str, tuple[float, ...]]:
    """Return the family and the parameters of a marginal whose quantiles skbi computes itself.

    They are ("normal", (mean, standard deviation)), ("beta", (lower bound, upper bound, a, b)), of
    which a uniform distribution is one, or ("", ()) for any other family.
    """
    family = type(getattr(distribution, "dist", None))
    if family is type(stats.norm):
        return "normal", (distribution.mean(), distribution.std())
    if family is type(stats.uniform):
        return "beta", (*distribution.support(), 1.0, 1.0)
    if family is type(stats.beta):
        (a, b), *_ = distribution.dist._parse_args(*distribution.args, **distribution.kwds)
        return "beta", (*distribution.support(), float(a), float(b))
    return "", ()


def _beta_quantile(q: Array, a: float, b: float) -> Array:
    """Return quantiles of a beta distribution; scipy's are wrong, and warn, in the far lower tail.

    There, q = x^a / (a B(a, b)). Those of the uniform distribution, a = b = 1, are q.
    """
    if a == b == 1:
        return q
    x = np.exp((np.log(q) + np.log(a) + betaln(a, b)) / a)
    inside = x > _FAR_TAIL
    x[inside] = betaincinv(a, b, q[inside])
    return x


def _describe_type(value: Any) -> str:
    """Name what came instead of a distribution, with the module it is from."""
    if isinstance(value, stats.rv_continuous | stats.rv_discrete):
        return f"scipy.stats.{value.name} without parameters (call it to freeze it)"
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
