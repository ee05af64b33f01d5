"""Predictive checks: whether the data at hand look like what the model could have produced.

Posterior predictive data are x_rep ~ p(x | theta) with theta ~ q(theta | x_obs).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skbi.randomness import RandomState, as_generator
from skbi.simulation.run import simulate_at

__all__ = ["misspecification_score", "posterior_predictive"]


def posterior_predictive(
    estimator: Any,
    simulator: Any,
    X_obs: Any,
    *,
    n_samples: int = 100,
    n_jobs: int | None = None,
    random_state: RandomState = None,
) -> NDArray[Any]:
    """Simulate data from the posterior of each observation, to compare with the observation.

    If the replicated data look unlike the observed ones, the simulator or the posterior is wrong.
    Agreement is only a weak confirmation, because the replications are drawn given the observation.

    Parameters
    ----------
    estimator : object with ``sample_posterior``
        As in `coverage_score`.
    simulator : callable, or object with ``transform(theta)``
        As in `skbi.simulate`.
    X_obs : array-like
        A batch of observations.
    n_samples : int, default=100
        Number of replications of each observation.
    n_jobs : int or None, default=None
        Number of parallel jobs of the simulator, through joblib. The result does not depend on it.
    random_state : int, Generator, RandomState or None, default=None
        The only source of randomness.

    Returns
    -------
    ndarray, shape (n_obs, n_samples, ...)
        Or an object array of shape (n_obs, n_samples), if the simulator returns sets of different
        sizes.

    Raises
    ------
    ValueError
        If ``X_obs`` is a single observation instead of a batch.

    Examples
    --------
    >>> from skbi import DoubleMoonSimulator, NPEEstimator, simulate
    >>> prior, simulator = DoubleMoonSimulator.prior(), DoubleMoonSimulator(n_points=20)
    >>> theta, X = simulate(prior, simulator, 200, random_state=0)
    >>> npe = NPEEstimator(prior=prior, max_iter=2, random_state=0).fit(theta, X)
    >>> posterior_predictive(npe, simulator, X[:3], n_samples=10, random_state=0).shape
    (3, 10, 20, 2)
    """
    rng = as_generator(random_state)
    seed = int(rng.integers(2**31))
    draws = np.asarray(estimator.sample_posterior(X_obs, n_samples, random_state=seed))
    if draws.ndim != 3:
        raise ValueError(
            "X_obs must be a batch of observations, such as X[None] for a single one X; the "
            f"posterior draws have shape {draws.shape}."
        )
    data = simulate_at(draws.reshape(-1, draws.shape[2]), simulator, n_jobs=n_jobs, rng=rng)
    return data.reshape(draws.shape[:2] + data.shape[1:])


def misspecification_score(estimator: Any, X_obs: Any) -> Any:
    """Compute a p-value that tells whether an observation is like the training simulations.

    The distance from the observation to the nearest training simulations is divided by their
    spacing there, and the result is compared with that of held-out simulations. Distances are taken
    between the estimator's summaries, which for a set include its mean, spread and size. An NLE
    compares the points themselves. A neural posterior means nothing far from its training data.

    Parameters
    ----------
    estimator : NPEEstimator or NLEEstimator, or an object with ``typicality(X_obs)``
        A fitted estimator.
    X_obs : array-like
        One observation or a batch, as in ``sample_posterior``.

    Returns
    -------
    ndarray, shape (n_obs,), or float for one observation
        The share of simulations that lie further out than the observation: near 0, the observation
        is unlike all of them. It is uniform on (0, 1) for data from the simulator, as far as the
        held-out simulations can tell, which are a tenth of the training pairs and at most 2,000.
        Beyond the largest tenth of these, the p-value follows the power law of their tail; with
        fewer than 50 of them it falls at most as 1 over the distance. For a set of points under an
        NLE, it is the smallest p-value of the points times their number.

    Raises
    ------
    TypeError
        If the estimator has no ``typicality``.

    References
    ----------
    Schmitt et al., Detecting model misspecification in amortized Bayesian inference with neural
    networks, 2021, https://arxiv.org/abs/2112.08866; Breunig et al., LOF: identifying density-based
    local outliers, 2000, https://doi.org/10.1145/335191.335388.

    Examples
    --------
    >>> from skbi import NPEEstimator
    >>> rng = np.random.default_rng(0)
    >>> theta = rng.normal(size=(500, 1))
    >>> X = theta + 0.1 * rng.normal(size=(500, 2))
    >>> npe = NPEEstimator(max_iter=2, random_state=0).fit(theta, X)
    >>> misspecification_score(npe, X[0]) > 0.01, misspecification_score(npe, X[0] + 50) < 1e-3
    (True, True)
    """
    if not callable(getattr(estimator, "typicality", None)):
        raise TypeError(
            "misspecification_score needs an NPEEstimator or NLEEstimator, which remember their "
            "training simulations, or another object with a method typicality(X_obs); got "
            f"{type(estimator).__name__}."
        )
    return estimator.typicality(X_obs)
