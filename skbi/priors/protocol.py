"""What skbi asks of a prior, and the one message to a prior that lacks some of it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skbi.randomness import RandomState

__all__ = ["Prior", "check_prior"]


@runtime_checkable
class Prior(Protocol):
    """What skbi asks of a prior: three attributes and four methods.

    `JointPrior` has them. For dependent parameters, such as those of a hierarchical model, write a
    class of your own that has all seven: ``names``, ``discrete``, ``support``, ``sample``,
    ``log_prob``, ``cdf`` and ``ppf``. It need not inherit from this one.

    ``cdf`` maps theta (n, p) to the unit cube (n, p), where the prior is uniform, and ``ppf`` is
    its inverse. For dependent parameters this is the Rosenblatt map [1]_: column j of ``cdf`` is
    the conditional distribution function of theta_j given theta_1, ..., theta_{j-1}.

    Two more methods are optional. ``to_normal(theta)`` returns Phi^-1(cdf(theta)), of shape (n, p),
    and ``from_normal(z)`` is its inverse; discrete parameters stay as they are. Without them both
    are computed from ``cdf`` and ``ppf``, which lose the upper tail beyond 8 standard deviations. A
    prior of discrete and continuous parameters needs ``from_normal``.

    Attributes
    ----------
    names : tuple of str
        The p parameters' names, in the order of theta's columns.
    discrete : ndarray of bool, shape (p,)
        Which parameters are discrete.
    support : ndarray, shape (p, 2)
        Lower and upper bound of each parameter, infinite where there is none.

    See Also
    --------
    JointPrior : Independent parameters, and groups with distributions of scipy or torch.

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


_ASKED = ("names", "discrete", "support", "sample", "log_prob", "cdf", "ppf")


def check_prior(prior: Any) -> None:
    """Refuse what is not a prior; say what it lacks and what to do.

    Parameters
    ----------
    prior : object

    Raises
    ------
    TypeError
        If it lacks an attribute or a method of `Prior`.
    ValueError
        If ``discrete`` or ``support`` do not fit the number of ``names``.

    Examples
    --------
    >>> from scipy import stats
    >>> check_prior(stats.norm(0, 1))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    TypeError: prior must be a JointPrior, or an object with all that skbi.Prior lists; got ...
    """
    if isinstance(prior, type):
        raise TypeError(f"prior must be an object; got the class {prior.__name__}. Call it first.")
    lacking = [name for name in _ASKED if _lacks(prior, name)]
    if lacking:
        kind = type(prior)
        raise TypeError(
            "prior must be a JointPrior, or an object with all that skbi.Prior lists; got "
            f"{kind.__module__}.{kind.__name__}, which lacks {lacking}. {_remedy(kind.__module__)}"
        )
    p = len(prior.names)
    for name, shape in (("discrete", (p,)), ("support", (p, 2))):
        if np.shape(getattr(prior, name)) != shape:
            raise ValueError(
                f"{name} of {type(prior).__name__} must have shape {shape}, as it has {p} names "
                f"{tuple(prior.names)}; got {np.shape(getattr(prior, name))}."
            )


def _lacks(prior: Any, name: str) -> bool:
    """Tell whether a prior has no such attribute, or only inherits it from the protocol."""
    inherited = getattr(type(prior), name, None)
    return not hasattr(prior, name) or (
        inherited is not None and inherited is getattr(Prior, name, None)
    )


def _remedy(module: str) -> str:
    """Say what to do about an object of this module that is not a prior."""
    independent = "JointPrior({'theta': scipy.stats.norm(0, 1)})"
    if module.startswith("torch"):
        return "Distributions of torch need names of parameters: JointPrior({('a', 'b'): prior})."
    return (
        f"Independent parameters are {independent}; for dependent ones write a class with all of "
        "these: help(skbi.Prior) has an example."
    )
