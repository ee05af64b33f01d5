"""Runs: posteriors of many simulations, and the credible level of each simulation's truth.

One run draws theta* from the prior, simulates x at theta* and samples q(theta | x). Every kind of
credible region gives the run a level: the posterior probability of the smallest region of that kind
that holds theta*. The levels of a calibrated posterior are uniform: P(level <= a) = a.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import ArrayLike, NDArray
from scipy.special import erf
from sklearn.exceptions import NotFittedError
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples
from tqdm.auto import tqdm

from skbi.calibration.ranks import check_draws, check_truths, pit_values, ranks_of_pit
from skbi.parallel import blocks, one_blas_thread, one_thread, progress_options
from skbi.randomness import RandomState, as_generator

__all__ = [
    "check_kind",
    "credible_levels",
    "default_parameter_names",
    "estimator_ranks",
    "fitted_estimator",
    "map_runs",
    "measure_runs",
    "parameter_names",
    "takes",
    "without_typicality_check",
]

_KINDS = ("rank", "sigma", "hpd", "tarp")
_OBSERVATIONS_PER_TASK = 50  # fixed, so that the result is the same for any number of jobs

Measure = Callable[..., NDArray[np.float64]]


def measure_runs(
    estimator: Any,
    theta: ArrayLike,
    X: Any,
    kind: str,
    *,
    n_samples: int,
    n_jobs: int | None,
    random_state: RandomState,
    verbose: int | str = 0,
) -> NDArray[np.float64]:
    """Sample the posterior of every observation and measure the truths.

    Parameters
    ----------
    estimator, theta, X, n_samples, n_jobs, random_state, verbose
        As in `coverage_score`.
    kind : {"pit", "rank", "sigma", "hpd", "tarp"}
        As in `credible_levels`.

    Returns
    -------
    ndarray, shape (n, p), or (n, 1) for joint kinds
    """
    box = _box_of_truths(check_truths(theta)) if kind == "tarp" else None
    measure = partial(_levels_of_runs, kind=kind, box=box)
    options = {"n_samples": n_samples, "n_jobs": n_jobs, "random_state": random_state}
    return map_runs(estimator, theta, X, measure, verbose=verbose, **options)


def map_runs(
    estimator: Any,
    theta: ArrayLike,
    X: Any,
    measure: Measure,
    *,
    n_samples: int,
    n_jobs: int | None,
    random_state: RandomState,
    verbose: int | str = 0,
) -> NDArray[np.float64]:
    """Sample the posterior of every observation and measure something of the draws.

    Parameters
    ----------
    estimator, theta, X, n_samples, n_jobs, random_state, verbose
        As in `coverage_score`.
    measure : callable
        ``measure(estimator, theta, samples, X, rng)`` returns numbers (n, k) for n of the runs.

    Returns
    -------
    ndarray, shape (n, k)
    """
    estimator = fitted_estimator(estimator)
    _check_parameter_names(estimator, theta)
    theta, n = check_truths(theta), _num_samples(X)
    if len(theta) != n:
        raise ValueError(
            f"theta and X must hold the same number of runs; got {len(theta)} and {n}."
        )
    rows = list(blocks(n, _OBSERVATIONS_PER_TASK))
    seeds = as_generator(random_state).integers(2**31, size=len(rows))
    # an estimator asks for threads if its work frees the interpreter; others get processes
    prefer = getattr(estimator, "_joblib_prefer", "processes")
    parallel = Parallel(n_jobs=n_jobs, prefer=prefer, return_as="generator")
    tasks = (
        delayed(_measure_block)(
            estimator, theta[block], _safe_indexing(X, block), measure, n_samples, seed
        )
        for block, seed in zip(rows, seeds.tolist(), strict=True)
    )
    options = {"unit": "block", **progress_options(verbose)}
    bar = tqdm(parallel(tasks), "calibration", len(rows), **options)
    return np.concatenate(list(bar))


def fitted_estimator(estimator: Any) -> Any:
    """Return the best estimator of a search such as GridSearchCV; anything else as it is."""
    if hasattr(estimator, "best_estimator_") or not hasattr(estimator, "refit"):
        return getattr(estimator, "best_estimator_", estimator)
    kind = type(estimator).__name__
    raise NotFittedError(f"{kind} has no best estimator yet: call its fit, with refit=True.")


def _check_parameter_names(estimator: Any, theta: Any) -> None:
    """Refuse a table of truths whose columns are not the parameters that the estimator knows."""
    if not (hasattr(theta, "columns") and hasattr(estimator, "parameter_names_in_")):
        return
    names, fitted = list(theta.columns), list(estimator.parameter_names_in_)
    if names != fitted and fitted != default_parameter_names(len(fitted)):
        raise ValueError(f"theta's columns must be those of fit, {fitted}; got {names}.")


def default_parameter_names(p: int) -> list[str]:
    """Names of p parameters that the user has not named: theta_0, theta_1 and so on."""
    return [f"theta_{j}" for j in range(p)]


def parameter_names(p: int, names: Sequence[str] | None, estimator: Any = None) -> list[str]:
    """Name p parameters: as given, or else as the estimator does, or else by their numbers."""
    if names is None:
        names = getattr(estimator, "parameter_names_in_", None)
    names = default_parameter_names(p) if names is None else list(names)
    if len(names) != p:
        raise ValueError(f"names must hold {p} names; got {names}.")
    return names


def _measure_block(
    estimator: Any,
    theta: NDArray[np.float64],
    X: Any,
    measure: Measure,
    n_samples: int,
    seed: int,
) -> NDArray[np.float64]:
    """Measure the runs of one task."""
    rng = np.random.default_rng(seed)
    options = {"random_state": int(rng.integers(2**31)), **without_typicality_check(estimator)}
    with one_thread(), one_blas_thread():
        theta, samples = check_draws(theta, estimator.sample_posterior(X, n_samples, **options))
        return measure(estimator, theta, samples, X, rng)


def _levels_of_runs(
    estimator: Any,
    theta: NDArray[np.float64],
    samples: NDArray[np.float64],
    X: Any,
    rng: np.random.Generator,
    *,
    kind: str,
    box: NDArray[np.float64] | None,
) -> NDArray[np.float64]:
    log_density = _log_densities(estimator, theta, samples, X) if kind == "hpd" else None
    return credible_levels(theta, samples, kind, rng, log_density=log_density, box=box)


def without_typicality_check(estimator: Any) -> dict[str, bool]:
    """Keyword that turns off the warning of untypical observations, if the estimator has it.

    The observations of runs are known to come from the simulator.
    """
    return {"check_typicality": False} if takes(estimator, "check_typicality") else {}


def takes(estimator: Any, option: str) -> bool:
    """Whether an estimator's ``sample_posterior`` has a parameter of this name."""
    with suppress(ValueError):  # compiled methods may have no signature
        return option in inspect.signature(estimator.sample_posterior).parameters
    return False


def _log_densities(
    estimator: Any, theta: NDArray[np.float64], samples: NDArray[np.float64], X: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log posterior density of truths (n,) and draws (n, S), up to a constant for each run."""
    log_prob = getattr(estimator, "log_posterior", None) or getattr(estimator, "log_prob", None)
    if log_prob is None:
        raise TypeError(
            f"kind='hpd' needs an estimator with log_prob(theta, X); {type(estimator).__name__} "
            "has none. Use kind='tarp' for a joint test that needs draws only."
        )
    values = np.stack(
        [
            log_prob(np.vstack([truth, draws]), _safe_indexing(X, slice(i, i + 1)))
            for i, (truth, draws) in enumerate(zip(theta, samples, strict=True))
        ]
    )
    return values[:, 0], values[:, 1:]


def credible_levels(
    theta: NDArray[np.float64],
    samples: NDArray[np.float64],
    kind: str,
    rng: np.random.Generator,
    *,
    log_density: tuple[ArrayLike, ArrayLike] | None = None,
    box: NDArray[np.float64] | None = None,
    references: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Compute the posterior probability of the smallest credible region that holds each truth.

    Parameters
    ----------
    theta : ndarray, shape (n, p)
        The truths.
    samples : ndarray, shape (n, n_samples, p)
        Posterior draws for each of them.
    kind : {"pit", "rank", "sigma", "hpd", "tarp"}
        The credible regions, as in `coverage_score`. "pit" instead returns the `pit_values`, from
        which the levels of central intervals ("rank") follow.
    rng : Generator
        Breaks ties and places the references.
    log_density : (array-like of shape (n,), array-like of shape (n, n_samples)), optional
        Log posterior density of the truths and of the draws, for "hpd".
    box : ndarray, shape (2, p), optional
        Lowest and highest truth, for "tarp"; by default those of ``theta``.
    references : array-like, shape (n, p), optional
        Centres of the balls, for "tarp"; by default uniform in the box.

    Returns
    -------
    ndarray, shape (n, p), or (n, 1) for the joint kinds "hpd" and "tarp"
    """
    if kind == "pit":
        return pit_values(theta, samples, rng)
    if kind == "rank":
        return np.abs(2 * pit_values(theta, samples, rng) - 1)
    if kind == "sigma":
        return _sigma_levels(theta, samples)
    if kind == "hpd":
        return _highest_density_levels(samples, log_density, rng)
    return _tarp_levels(theta, samples, box, references, rng)


def _sigma_levels(theta: NDArray[np.float64], samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian probability within as many standard deviations as the truth is from the mean."""
    error, sd = np.abs(theta - samples.mean(axis=1)), samples.std(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return erf(np.where(error == 0, 0, error / sd) / math.sqrt(2))


def _highest_density_levels(
    samples: NDArray[np.float64],
    log_density: tuple[ArrayLike, ArrayLike],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Share of the draws whose density is higher than the truth's."""
    at_truth, at_draws = (np.asarray(values, dtype=np.float64) for values in log_density)
    if (at_truth.shape, at_draws.shape) != (samples.shape[:1], samples.shape[:2]):
        raise ValueError(
            f"log_density must have shapes {samples.shape[:1]} and {samples.shape[:2]}; got "
            f"{at_truth.shape} and {at_draws.shape}."
        )
    if np.isnan(at_truth).any() or np.isnan(at_draws).any():
        raise ValueError("The log densities of the truths and of the draws must not be NaN.")
    return pit_values(-at_truth[:, None], -at_draws[:, :, None], rng)


def _tarp_levels(
    theta: NDArray[np.float64],
    samples: NDArray[np.float64],
    box: NDArray[np.float64] | None,
    references: ArrayLike | None,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Share of the draws that are nearer to a reference point than the truth is."""
    low, high = _box_of_truths(theta) if box is None else box
    width = np.where(high > low, high - low, 1)
    if references is None:
        references = rng.uniform(low, high, size=theta.shape)
    centre = np.asarray(references, dtype=np.float64)
    radius = np.linalg.norm((theta - centre) / width, axis=-1)
    distances = np.linalg.norm((samples - centre[:, None]) / width, axis=-1)
    return pit_values(radius[:, None], distances[:, :, None], rng)


def _box_of_truths(theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lowest and highest truth of each parameter, (2, p)."""
    return np.array([theta.min(axis=0), theta.max(axis=0)])


def check_kind(kind: str) -> None:
    """Refuse an unknown kind of credible region."""
    if kind not in _KINDS:
        raise ValueError(f"kind must be one of {list(_KINDS)}; got {kind!r}.")


def estimator_ranks(
    estimator: Any, theta: ArrayLike, X: Any, n_samples: int, **options: Any
) -> NDArray[np.int64]:
    """Compute the `sbc_ranks` of an estimator; the options are those of `measure_runs`."""
    pit = measure_runs(estimator, theta, X, "pit", n_samples=n_samples, **options)
    return ranks_of_pit(pit, n_samples)
