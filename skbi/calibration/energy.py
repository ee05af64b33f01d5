"""The energy score: how close draws are to the truth, and to one another.

For a truth theta and independent draws a and b of its posterior,

    score = E |a - theta| - E |a - b| / 2,

whose mean over pairs (theta, x) is lowest for the exact posterior, and for no other distribution.
"""

from __future__ import annotations

from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import pdist
from sklearn.utils.validation import _check_sample_weight

from skbi.calibration.ranks import check_truths
from skbi.calibration.runs import map_runs
from skbi.randomness import RandomState

__all__ = ["energy_score"]


def energy_score(
    estimator: Any,
    theta: ArrayLike,
    X: Any,
    *,
    n_samples: int = 100,
    sample_weight: ArrayLike | None = None,
    n_jobs: int | None = None,
    random_state: RandomState = None,
    verbose: int | str = "auto",
) -> float:
    """Score posteriors by draws alone; lower is better.

    It is a proper score: its mean over pairs is lowest for the exact posterior. Unlike a log
    density it needs no density, so that all estimators can be compared by it, and it judges
    marginals more than how parameters depend on one another. Parameters are divided by the standard
    deviation of the truths.

    As a scorer of scikit-learn, whose scores are better if higher, write
    ``scoring=lambda *given: -energy_score(*given, random_state=0)``.

    Parameters
    ----------
    estimator : object with ``sample_posterior(X, n_samples, random_state=seed)``
        As of `coverage_score`.
    theta : array-like or DataFrame, shape (n, p)
        The truths.
    X : array-like or sequence of n observations
        The simulations at these truths, held out from training.
    n_samples : int, default=100
        Draws for each observation, at least two. The score is unbiased for any number.
    sample_weight : array-like, shape (n,), optional
        How much each pair counts beside the others.
    n_jobs : int or None, default=None
        Number of parallel jobs, through joblib. The result does not depend on it.
    random_state : int, Generator, RandomState or None, default=None
        The only source of randomness.
    verbose : int or "auto", default="auto"
        1 shows a progress bar, 0 none; "auto" shows one on a terminal, of what takes more than 5
        seconds.

    Returns
    -------
    float
        In standard deviations of the truths.

    Raises
    ------
    ValueError
        If an option or an array cannot be used.

    See Also
    --------
    coverage_score : Calibration, which the energy score mixes with sharpness.

    References
    ----------
    Gneiting and Raftery, Strictly proper scoring rules, prediction, and estimation, 2007,
    https://doi.org/10.1198/016214506000001437.

    Examples
    --------
    >>> class Posterior:  # theta ~ N(0, 1), x ~ N(theta, 1): the posterior is N(x / 2, 1 / 2)
    ...     def __init__(self, sd):
    ...         self.sd = sd
    ...     def sample_posterior(self, X, n_samples, *, random_state=None):
    ...         rng = np.random.default_rng(random_state)
    ...         return X[:, None] / 2 + self.sd * rng.normal(size=(len(X), n_samples, 1))
    >>> rng = np.random.default_rng(0)
    >>> theta = rng.normal(size=(2000, 1))
    >>> X = theta + rng.normal(size=(2000, 1))
    >>> exact, narrow = Posterior(0.5**0.5), Posterior(0.3)
    >>> energy_score(exact, theta, X, random_state=0) < energy_score(narrow, theta, X)
    True
    """
    if not isinstance(n_samples, Integral) or n_samples < 2:
        raise ValueError(f"n_samples must be an integer of at least 2; got {n_samples!r}.")
    truths = check_truths(theta)
    sd = truths.std(axis=0)
    measure = partial(_energies, scale=np.where(sd > 0, sd, 1.0))
    options = {"n_jobs": n_jobs, "random_state": random_state, "verbose": verbose}
    found = map_runs(estimator, theta, X, measure, n_samples=n_samples, **options)[:, 0]
    weights = _check_sample_weight(sample_weight, truths, ensure_non_negative=True)
    return float(np.average(found, weights=weights))


def _energies(
    estimator: Any,
    theta: NDArray[np.float64],
    samples: NDArray[np.float64],
    X: Any,
    rng: np.random.Generator,
    *,
    scale: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the score of each run, (n, 1)."""
    to_truth = np.linalg.norm((samples - theta[:, None]) / scale, axis=-1).mean(axis=1)
    to_others = [pdist(draws / scale).mean() for draws in samples]
    return (to_truth - 0.5 * np.array(to_others))[:, None]
