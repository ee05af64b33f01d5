"""The density of a posterior at one observation, as a function of theta alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LogDensity", "log_density_at"]

LogDensity = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Maps theta (m, p) to log densities (m,), in nats, up to a constant."""


def log_density_at(estimator: Any, X: Any) -> LogDensity:
    """Return the log density of the posterior of one observation.

    Parameters
    ----------
    estimator : object with ``log_posterior(theta, X)`` or ``log_prob(theta, X)``
        It is called with many theta and one observation.
    X : array-like
        A batch of one observation.

    Returns
    -------
    callable
        See `LogDensity`.
    """
    log_prob = getattr(estimator, "log_posterior", None) or getattr(estimator, "log_prob", None)
    if log_prob is None:
        raise TypeError(
            f"This needs a density, and {type(estimator).__name__} has no log_prob(theta, X). Use "
            "an estimator that has one, such as NPEEstimator."
        )
    return lambda theta: log_prob(theta, X)
