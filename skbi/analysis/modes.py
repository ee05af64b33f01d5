"""The maximum of a posterior's density: theta_MAP = argmax log q(theta | x)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from skbi.analysis.densities import LogDensity, log_density_at
from skbi.calibration.observations import sample_observations
from skbi.calibration.runs import fitted_estimator, without_typicality_check
from skbi.randomness import RandomState, as_generator

__all__ = ["map_estimate"]

_STEP = 1e-4  # of finite differences, in posterior standard deviations
_EDGE = 1e-9  # distance to keep from bounds of the support, in posterior standard deviations
_LOW = 1e10  # stands for minus the log of no density, where a finite number is needed


def map_estimate(
    estimator: Any,
    X_obs: Any,
    *,
    n_starts: int = 10,
    n_samples: int = 1000,
    random_state: RandomState = None,
) -> NDArray[np.float64]:
    """Find where the posterior's density is highest (maximum a posteriori).

    The density is that of theta as the user has it: the maximum of the density of log(theta) is
    elsewhere. A maximum says nothing of the width around it, and in many dimensions hardly any
    posterior probability is near it; see `posterior_summary` for mean, median and intervals.

    The search starts at the densest of each of ``n_starts`` groups of posterior draws, so that
    several modes are visited, and follows the gradient within the prior's support (L-BFGS-B).

    Parameters
    ----------
    estimator : object with ``sample_posterior`` and ``log_prob`` or ``log_posterior``
        A fitted estimator; CMPE has no density.
    X_obs : array-like
        One observation or a batch, as in ``sample_posterior``.
    n_starts : int, default=10
        Number of starts. All end at the same point if there is one mode.
    n_samples : int, default=1000
        Posterior draws to choose the starts from.
    random_state : int, Generator, RandomState or None, default=None
        The only source of randomness.

    Returns
    -------
    ndarray, shape (n_obs, p), or (p,) for one observation

    Raises
    ------
    TypeError
        If the estimator has no density.
    ValueError
        If a parameter is discrete, or an option cannot be used.

    See Also
    --------
    posterior_summary : Means, medians and intervals.

    Examples
    --------
    >>> class Exact:  # theta ~ N(0, 1), x ~ N(theta, 1): the posterior is N(x / 2, 1 / 2)
    ...     def sample_posterior(self, X, n_samples, *, random_state=None):
    ...         noise = np.random.default_rng(random_state).normal(size=(len(X), n_samples, 1))
    ...         return np.asarray(X)[:, None] / 2 + 0.5**0.5 * noise
    ...     def log_prob(self, theta, X):
    ...         return -((theta - X / 2) ** 2)[:, 0]
    >>> map_estimate(Exact(), np.array([[1.0], [3.0]]), random_state=0).round(3)
    array([[0.5],
           [1.5]])
    """
    if not 1 <= n_starts <= n_samples:
        raise ValueError(f"n_starts must be from 1 to n_samples, {n_samples}; got {n_starts}.")
    estimator = fitted_estimator(estimator)
    prior = getattr(estimator, "prior", None)
    if prior is not None and np.any(prior.discrete):
        raise ValueError(
            "map_estimate follows gradients, and some parameters are discrete. Count the draws of "
            "sample_posterior instead."
        )
    options = without_typicality_check(estimator)
    rng = as_generator(random_state)
    drawn = sample_observations(estimator, X_obs, n_samples, rng, **options)
    support = None if prior is None else np.asarray(prior.support, dtype=np.float64)
    found = np.stack(
        [
            _highest(log_density_at(estimator, drawn.one(i)), draws, support, n_starts)
            for i, draws in enumerate(drawn.samples)
        ]
    )
    return found[0] if drawn.single else found


def _highest(
    log_density: LogDensity,
    draws: NDArray[np.float64],
    support: NDArray[np.float64] | None,
    n_starts: int,
) -> NDArray[np.float64]:
    """Return the highest of the maxima that are found from several starts, (p,)."""
    centre, sd = draws.mean(axis=0), draws.std(axis=0)
    scale = np.where(sd > 0, sd, 1.0)
    bounds = None
    if support is not None:
        low, high = (support.T - centre) / scale
        bounds = np.column_stack([low + _EDGE, high - _EDGE])
    groups = np.array_split(log_density(draws), n_starts)
    offsets = np.cumsum([0, *map(len, groups)])[:-1]
    starts = draws[[offset + group.argmax() for offset, group in zip(offsets, groups, strict=True)]]

    def loss(u: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return minus the log density and its gradient, by one call for all differences."""
        steps = _STEP * np.eye(len(u))
        around = np.vstack([u, u + steps, u - steps])
        if bounds is not None:
            around = np.clip(around, *bounds.T)
        values = np.nan_to_num(-log_density(centre + scale * around), posinf=_LOW)
        up, down = np.split(values[1:], 2)
        width = np.diag(around[1 : len(u) + 1] - around[len(u) + 1 :])
        return float(values[0]), (up - down) / width

    ends = [minimize(loss, (s - centre) / scale, jac=True, bounds=bounds) for s in starts]
    return centre + scale * min(ends, key=lambda end: end.fun).x
