"""Predictive checks: whether the data at hand look like what the model could have produced.

Posterior predictive data are x_rep ~ p(x | theta) with theta ~ q(theta | x_obs).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skbi.calibration.runs import default_parameter_names, fitted_estimator
from skbi.randomness import RandomState, as_generator
from skbi.simulation.report import SimulationReport
from skbi.simulation.run import check_on_error, simulate_at
from skbi.simulation.tasks import Failure

__all__ = ["misspecification_score", "posterior_predictive"]


def posterior_predictive(
    estimator: Any,
    simulator: Any,
    X_obs: Any,
    *,
    n_samples: int = 100,
    on_error: str = "raise",
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
        One observation or a batch, as in ``sample_posterior``.
    n_samples : int, default=100
        Number of replications of each observation.
    on_error : {"raise", "drop", "nan"}, default="raise"
        What to do with a replication that fails, as in `skbi.simulate`: "raise" stops, "drop"
        leaves it out, and "nan" fills it with NaN (in ragged sets it is empty). NaN among other
        entries are missing entries and no failure.
    n_jobs : int or None, default=None
        Number of parallel jobs of the simulator, through joblib. The result does not depend on it.
    random_state : int, Generator, RandomState or None, default=None
        The only source of randomness.

    Returns
    -------
    ndarray, shape (n_obs, n_samples, ...), or (n_samples, ...) for one observation
        Or an object array of shape (n_obs, n_samples) or (n_samples,), if the simulator returns
        sets of different sizes. With ``on_error="drop"``, a batch gives an object array of n_obs
        arrays, each with the replications that succeeded.

    Raises
    ------
    RuntimeError
        If a simulation fails and ``on_error="raise"``, or if all of the first 100 fail.

    Warns
    -----
    UserWarning
        If replications failed: how many, how, and whether that depends on theta.

    Examples
    --------
    >>> from skbi import DoubleMoonSimulator, NPEEstimator, simulate
    >>> prior, simulator = DoubleMoonSimulator.prior(), DoubleMoonSimulator(n_points=20)
    >>> theta, X = simulate(prior, simulator, 200, random_state=0)
    >>> npe = NPEEstimator(prior=prior, max_iter=2, random_state=0).fit(theta, X)
    >>> posterior_predictive(npe, simulator, X[:3], n_samples=10, random_state=0).shape
    (3, 10, 20, 2)
    """
    check_on_error(on_error)
    estimator, rng = fitted_estimator(estimator), as_generator(random_state)
    seed = int(rng.integers(2**31))
    draws = np.asarray(estimator.sample_posterior(X_obs, n_samples, random_state=seed))
    theta = draws.reshape(-1, draws.shape[-1])
    data, failures = simulate_at(theta, simulator, n_jobs=n_jobs, rng=rng, on_error=on_error)
    if failures:
        names = getattr(estimator, "parameter_names_in_", default_parameter_names(theta.shape[1]))
        report = SimulationReport.of(failures, theta, tuple(names))
        warnings.warn(f"{report}\nThe other replications are conditional on success.", stacklevel=2)
    if on_error != "drop":
        return data.reshape(draws.shape[:-1] + data.shape[1:])
    return data if draws.ndim == 2 else _split(data, failures, draws.shape[:2])


def _split(data: NDArray[Any], failures: list[Failure], shape: tuple[int, int]) -> NDArray[Any]:
    """Split the replications that succeeded, of (n_obs, n_samples), by observation."""
    failed = np.array([failure.row for failure in failures], dtype=np.int64)
    n_kept = shape[1] - np.bincount(failed // shape[1], minlength=shape[0])
    parts = np.empty(shape[0], dtype=object)
    parts[:] = np.split(data, np.cumsum(n_kept)[:-1])
    return parts


def misspecification_score(estimator: Any, X_obs: Any) -> Any:
    """Compute a p-value that tells whether an observation is like the training simulations.

    The distance from the observation to the nearest training simulations is divided by their
    spacing there, and the result is compared with that of held-out simulations. Distances are taken
    between the estimator's summaries, which for a set include its mean, spread and size. An NLE
    compares the points themselves. A neural posterior means nothing far from its training data.

    Parameters
    ----------
    estimator : an estimator of skbi, or an object with ``typicality(X_obs)``
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
    estimator = fitted_estimator(estimator)
    if not callable(getattr(estimator, "typicality", None)):
        raise TypeError(
            "misspecification_score needs an estimator of skbi, such as NPEEstimator, which "
            "remembers its training simulations, or another object with a method "
            f"typicality(X_obs); got {type(estimator).__name__}."
        )
    return estimator.typicality(X_obs)
