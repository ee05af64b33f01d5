"""Predictive checks: whether the data at hand look like what the model could have produced.

Posterior predictive data are x_rep ~ p(x | theta) with theta ~ q(theta | x_obs).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skbi.calibration.observations import feature_tables
from skbi.calibration.runs import fitted_estimator, parameter_names
from skbi.randomness import RandomState, as_generator
from skbi.simulation.report import SimulationReport
from skbi.simulation.run import check_on_error, simulate_at
from skbi.simulation.tasks import Failure

__all__ = [
    "PredictiveCheck",
    "compare_with_replications",
    "misspecification_score",
    "posterior_predictive",
    "prior_predictive",
]

_TAIL = 0.025  # of the replications, beyond which a distance exceeds 1


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

    See Also
    --------
    PredictiveDisplay : A picture, beside the observation.
    misspecification_score : Whether the observation is like the simulations.

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
        names = parameter_names(theta.shape[1], None, estimator)
        warnings.warn(_describe_failures(failures, theta, names), stacklevel=2)
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


def prior_predictive(
    prior: Any, simulator: Any, n: int, *, n_jobs: int | None, rng: np.random.Generator
) -> NDArray[Any]:
    """Simulate n data sets at draws of the prior; those that fail are left out, with a warning."""
    theta = prior.sample(n, random_state=rng)
    data, failures = simulate_at(theta, simulator, n_jobs=n_jobs, rng=rng, on_error="drop")
    if failures:
        warnings.warn(_describe_failures(failures, theta, prior.names), stacklevel=3)
    return data


def _describe_failures(
    failures: list[Failure], theta: NDArray[np.float64], names: Sequence[str]
) -> str:
    report = SimulationReport.of(failures, theta, tuple(names))
    return f"{report}\nThe other replications are conditional on success."


@dataclass(frozen=True, eq=False)
class PredictiveCheck:
    """Where an observation lies among replications.

    Attributes
    ----------
    names : list of k str
        What is compared, see `feature_tables`.
    observed : ndarray, shape (k,)
        The observation's features.
    replicated : ndarray, shape (n, k)
        The replications' features.
    tail_probability : ndarray, shape (k,)
        Two-sided: twice the share of replications, the observation among them, that lie at least
        as far out on the same side. It is at least 2 / (n + 1).
    p_value : float
        Of all features together: the share of replications, the observation among them, whose
        most extreme feature is at least as extreme.
    """

    names: list[str]
    observed: NDArray[np.float64]
    replicated: NDArray[np.float64]
    tail_probability: NDArray[np.float64]
    p_value: float


def compare_with_replications(
    replicated: Any, X_obs: Any, kind: str | None = None
) -> PredictiveCheck:
    """Tell where an observation lies among n replications, feature by feature and altogether.

    How extreme a feature is, is measured from the median in units of the distance to the quantile
    that leaves 2.5 % on that side. If the observation is exchangeable with the replications, as
    under the prior, p-values are exact; under the posterior, which knows the observation, they are
    too large.

    Parameters
    ----------
    replicated : n observations
    X_obs : array-like
        A batch of one observation.
    kind : str, optional
        As of `feature_tables`.

    Returns
    -------
    PredictiveCheck
    """
    (observed, table), names = feature_tables(X_obs, replicated, kind=kind)
    if table.shape[1] != observed.shape[1] or len(observed) != 1:
        raise ValueError(
            f"X_obs must be a single observation of the same kind as the replications, with "
            f"{table.shape[1]} features; got {len(observed)} with {observed.shape[1]}."
        )
    pooled = np.vstack([observed, table])
    above, below = (
        np.nanmean(f(pooled, observed), axis=0) for f in (np.greater_equal, np.less_equal)
    )
    extremes = np.nanmax(_extremeness(pooled), axis=1)
    tail = np.minimum(1, 2 * np.minimum(above, below))
    return PredictiveCheck(names, observed[0], table, tail, float((extremes >= extremes[0]).mean()))


def _extremeness(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of features from their medians, in units of the tail on that side, (n, k)."""
    low, middle, high = np.nanquantile(table, [_TAIL, 0.5, 1 - _TAIL], axis=0)
    width = np.where(table >= middle, high - middle, middle - low)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(table == middle, 0.0, np.abs(table - middle) / width)


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

    See Also
    --------
    posterior_predictive : Data to compare with the observation.
    diagnose : All checks in one call.

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
