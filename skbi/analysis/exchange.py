"""Posteriors as tables of pandas and as an arviz DataTree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skbi.calibration.observations import ObservedDraws, sample_observations
from skbi.calibration.predictive import posterior_predictive, prior_predictive
from skbi.calibration.runs import fitted_estimator, parameter_names, takes
from skbi.randomness import RandomState, as_generator

__all__ = ["posterior_frame", "posterior_summary", "to_arviz"]


def posterior_frame(
    estimator: Any, X_obs: Any, *, n_samples: int = 1000, random_state: RandomState = None
) -> Any:
    """Return posterior draws as a DataFrame with a column for each parameter.

    Parameters
    ----------
    estimator : object with ``sample_posterior``
        As of `coverage_score`.
    X_obs : array-like
        One observation or a batch, as in ``sample_posterior``.
    n_samples : int, default=1000
        Draws for each observation.
    random_state : int, Generator, RandomState or None, default=None
        The only source of randomness.

    Returns
    -------
    pandas.DataFrame
        With an index "draw", or of a batch ("observation", "draw").

    Raises
    ------
    ImportError
        If pandas is not installed.

    See Also
    --------
    posterior_summary : A table of each parameter.
    to_arviz : Draws, data and predictions for arviz.

    Examples
    --------
    >>> class Exact:  # theta ~ N(0, 1), x ~ N(theta, 1): the posterior is N(x / 2, 1 / 2)
    ...     parameter_names_in_ = ["mu"]
    ...     def sample_posterior(self, X, n_samples, *, random_state=None):
    ...         noise = np.random.default_rng(random_state).normal(size=(len(X), n_samples, 1))
    ...         return np.asarray(X)[:, None] / 2 + 0.5**0.5 * noise
    >>> frame = posterior_frame(Exact(), np.zeros((2, 1)), n_samples=100, random_state=0)
    >>> frame.columns.tolist(), list(frame.index.names), len(frame)
    (['mu'], ['observation', 'draw'], 200)
    """
    pandas, estimator = _import_pandas(), fitted_estimator(estimator)
    drawn = sample_observations(estimator, X_obs, n_samples, as_generator(random_state))
    names = parameter_names(drawn.samples.shape[2], None, estimator)
    if drawn.single:
        index = pandas.RangeIndex(n_samples, name="draw")
        return pandas.DataFrame(drawn.samples[0], index, names)
    levels = range(len(drawn.samples)), range(n_samples)
    index = pandas.MultiIndex.from_product(levels, names=["observation", "draw"])
    return pandas.DataFrame(drawn.samples.reshape(-1, len(names)), index, names)


def posterior_summary(
    estimator: Any,
    X_obs: Any,
    *,
    n_samples: int = 10_000,
    intervals: Sequence[float] = (0.68, 0.95),
    random_state: RandomState = None,
) -> Any:
    """Summarise the posterior of one observation or of a batch, a row for each parameter.

    Parameters
    ----------
    estimator : object with ``sample_posterior``
        As of `coverage_score`.
    X_obs : array-like
        One observation or a batch, as in ``sample_posterior``.
    n_samples : int, default=10,000
        Draws for each observation.
    intervals : sequence of float, default=(0.68, 0.95)
        Probabilities of the central intervals whose ends are given: one and two sigma of a
        Gaussian.
    random_state : int, Generator, RandomState or None, default=None
        The only source of randomness.

    Returns
    -------
    pandas.DataFrame
        With the columns "mean", "sd", "median" and the ends of every interval, such as "68% low"
        and "68% high". Its index is "parameter", or of a batch ("observation", "parameter").

    Raises
    ------
    ImportError
        If pandas is not installed.
    ValueError
        If a probability does not lie between 0 and 1.

    See Also
    --------
    posterior_frame : The draws.
    map_estimate : Where the density is highest.

    Examples
    --------
    >>> class Exact:  # theta ~ N(0, 1), x ~ N(theta, 1): the posterior is N(x / 2, 1 / 2)
    ...     parameter_names_in_ = ["mu"]
    ...     def sample_posterior(self, X, n_samples, *, random_state=None):
    ...         noise = np.random.default_rng(random_state).normal(size=(len(X), n_samples, 1))
    ...         return np.asarray(X)[:, None] / 2 + 0.5**0.5 * noise
    >>> posterior_summary(Exact(), np.ones((1, 1)), intervals=[0.9], random_state=0).round(1)
                           mean   sd  median  90% low  90% high
    observation parameter
    0           mu          0.5  0.7     0.5     -0.6       1.7
    """
    pandas = _import_pandas()
    if not all(0 < p < 1 for p in intervals):
        raise ValueError(f"intervals must lie between 0 and 1; got {list(intervals)}.")
    frame = posterior_frame(estimator, X_obs, n_samples=n_samples, random_state=random_state)
    names, batch = frame.columns, frame.index.nlevels == 2
    draws = frame.to_numpy().reshape(-1, n_samples, len(names))
    columns = {"mean": draws.mean(axis=1), "sd": draws.std(axis=1, ddof=1)}
    columns["median"] = np.median(draws, axis=1)
    for p in intervals:
        low, high = np.quantile(draws, [0.5 - p / 2, 0.5 + p / 2], axis=1)
        columns |= {f"{100 * p:g}% low": low, f"{100 * p:g}% high": high}
    index = pandas.Index(names, name="parameter")
    if batch:
        levels = range(len(draws)), names
        index = pandas.MultiIndex.from_product(levels, names=["observation", "parameter"])
    return pandas.DataFrame({name: values.ravel() for name, values in columns.items()}, index)


def to_arviz(
    estimator: Any,
    X_obs: Any,
    *,
    simulator: Any = None,
    n_samples: int = 1000,
    n_chains: int = 4,
    n_jobs: int | None = None,
    random_state: RandomState = None,
) -> Any:
    """Return the posterior of one observation as an arviz DataTree.

    Its groups are ``posterior``; ``observed_data``; ``sample_stats`` with ``lp``, the log density
    of the draws, if the estimator has one; ``prior``, if it has a prior; ``posterior_predictive``
    and ``prior_predictive``, if a simulator is given. What the sampler reports stands in the
    attributes of ``sample_stats``.

    Parameters
    ----------
    estimator : object with ``sample_posterior``
        As of `coverage_score`.
    X_obs : array-like
        One observation, or a batch that holds one.
    simulator : callable, or object with ``transform(theta)``, optional
        As in `skbi.simulate`. Sets of different sizes have no place in a DataTree.
    n_samples : int, default=1000
        Draws for each chain.
    n_chains : int, default=4
        Chains that the draws are dealt to. The draws are exchangeable, so that chains agree by
        construction; R-hat says nothing of the sampler here.
    n_jobs : int or None, default=None
        Number of parallel jobs of the simulator. The result does not depend on it.
    random_state : int, Generator, RandomState or None, default=None
        The only source of randomness.

    Returns
    -------
    xarray.DataTree

    Raises
    ------
    ImportError
        If arviz-base is not installed.
    ValueError
        If X_obs holds several observations.

    See Also
    --------
    posterior_frame : The draws alone, for pandas.

    Examples
    --------
    >>> class Exact:  # theta ~ N(0, 1), x ~ N(theta, 1): the posterior is N(x / 2, 1 / 2)
    ...     parameter_names_in_ = ["mu"]
    ...     def sample_posterior(self, X, n_samples, *, random_state=None):
    ...         noise = np.random.default_rng(random_state).normal(size=(len(X), n_samples, 1))
    ...         return np.asarray(X)[:, None] / 2 + 0.5**0.5 * noise
    >>> tree = to_arviz(Exact(), np.ones((1, 1)), random_state=0)
    >>> dict(tree["posterior"].sizes), list(tree["posterior"])
    ({'chain': 4, 'draw': 1000}, ['mu'])
    """
    arviz_base, estimator = _import_arviz_base(), fitted_estimator(estimator)
    rng, shape = as_generator(random_state), (n_chains, n_samples)
    options = {"return_info": True} if takes(estimator, "return_info") else {}
    drawn = sample_observations(estimator, X_obs, n_chains * n_samples, rng, **options)
    if len(drawn.samples) != 1:
        raise ValueError(f"X_obs must be one observation; got {len(drawn.samples)}.")
    draws, names = drawn.samples[0], parameter_names(drawn.samples.shape[2], None, estimator)
    groups = {
        "posterior": _by_name(draws, names, shape),
        "observed_data": {"x": np.asarray(drawn.X_obs[0])},
        **_statistics(estimator, drawn, draws, shape),
        **_prior_groups(estimator, simulator, names, n_samples, n_jobs, rng),
    }
    if simulator is not None:
        chosen = _Fixed(draws)
        data = posterior_predictive(chosen, simulator, None, n_samples=len(draws), n_jobs=n_jobs,
                                    random_state=rng)  # fmt: skip
        groups["posterior_predictive"] = {"x": data.reshape(*shape, *data.shape[1:])}
    tree = arviz_base.from_dict(groups)
    if drawn.infos and "sample_stats" in groups:
        tree["sample_stats"].attrs["sampler"] = repr(drawn.infos[0])
    return tree


class _Fixed:
    """Draws that are there, as an estimator, so that data are simulated at these."""

    def __init__(self, draws: NDArray[np.float64]) -> None:
        self.draws = draws

    def sample_posterior(self, X: Any, n: int, *, random_state: Any) -> NDArray[np.float64]:
        return self.draws


def _by_name(
    draws: NDArray[np.float64], names: Sequence[str], shape: tuple[int, int]
) -> dict[str, NDArray[np.float64]]:
    """Deal the draws (n, p) of each parameter to chains."""
    return {str(n): column.reshape(shape) for n, column in zip(names, draws.T, strict=True)}


def _statistics(
    estimator: Any, drawn: ObservedDraws, draws: NDArray[np.float64], shape: tuple[int, int]
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Return the log density of the draws, if there is one."""
    log_prob = getattr(estimator, "log_posterior", None) or getattr(estimator, "log_prob", None)
    if log_prob is None:
        return {}
    return {"sample_stats": {"lp": np.reshape(log_prob(draws, drawn.X_obs), shape)}}


def _prior_groups(
    estimator: Any,
    simulator: Any,
    names: Sequence[str],
    n_samples: int,
    n_jobs: int | None,
    rng: np.random.Generator,
) -> dict[str, dict[str, NDArray[Any]]]:
    """Return draws of the prior, and data simulated from it, in one chain."""
    prior = getattr(estimator, "prior", None)
    if prior is None:
        return {}
    groups = {"prior": _by_name(prior.sample(n_samples, random_state=rng), names, (1, n_samples))}
    if simulator is not None:
        data = prior_predictive(prior, simulator, n_samples, n_jobs=n_jobs, rng=rng)
        groups["prior_predictive"] = {"x": data[None]}
    return groups


def _import_pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise ImportError('Tables need pandas: pip install "skbi[exchange]"') from error
    return pandas


def _import_arviz_base() -> Any:
    try:
        import arviz_base
    except ImportError as error:
        raise ImportError('A DataTree needs arviz-base: pip install "skbi[exchange]"') from error
    return arviz_base
