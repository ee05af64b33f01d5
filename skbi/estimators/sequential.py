"""Rounds of simulations ever closer to the posterior of one observation.

For a likelihood or a ratio each round draws theta from the last posterior, and some from the prior.
The objective of NLE needs no correction, as it holds for any theta; nor does that of NRE, whose
contrasts are drawn as its pairs are.

For NPE each round draws theta from the prior restricted to R = {theta : q(theta | x_o) >= c}, which
holds all but a share epsilon of q. Inside R the posterior is only rescaled, so that the objective
of NPE needs no correction.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils import _safe_indexing
from tqdm.auto import tqdm

from skbi.estimators.checks import check_n_samples
from skbi.estimators.cmpe import CMPEEstimator
from skbi.estimators.fmpe import FMPEEstimator
from skbi.estimators.nle import NLEEstimator
from skbi.estimators.npe import NPEEstimator
from skbi.estimators.nre import NREEstimator
from skbi.estimators.sampled import SampledPosterior
from skbi.estimators.typicality import describe_untypical
from skbi.parallel import progress_options
from skbi.preprocessing.packed import axes_of, width_of
from skbi.priors import Prior, check_prior
from skbi.randomness import RandomState, as_generator
from skbi.samplers.smc import smc
from skbi.simulation.report import SimulationReport
from skbi.simulation.run import check_on_error, simulate_at

__all__ = ["Region", "sequential"]

Estimator = NPEEstimator | FMPEEstimator | NLEEstimator | NREEstimator

_N_DRAWS = 10_000  # posterior draws that decide a region
_MAX_TRIES = 20  # rounds of draws that are tried before giving up
_STEEPNESS = 10.0  # how much faster than q the density falls that approaches a region
_PRIOR_SHARE = 0.2  # of the draws that a likelihood learns from next


def sequential(
    prior: Prior,
    simulator: Any,
    X_obs: Any,
    estimator: Estimator,
    *,
    rounds: int = 5,
    n_samples: int = 1000,
    epsilon: float = 1e-4,
    on_error: str = "raise",
    n_jobs: int | None = None,
    random_state: RandomState = None,
    verbose: int | str = "auto",
) -> tuple[Estimator, NDArray[np.float64], Any]:
    """Fit the posterior of one observation in rounds, which simulate ever closer to it.

    The first round simulates from the prior. With NLE and NRE each further round simulates at
    draws of the last posterior, a fifth of them replaced by draws of the prior, and fits anew to
    all pairs so far. With NPE and FMPE it simulates from the prior restricted to where the last
    posterior lies, and fits anew to all pairs that lie there.

    Parameters
    ----------
    prior : JointPrior or an object with its methods
    simulator : callable, or object with ``transform(theta)``
        As in `simulate`.
    X_obs : array-like
        The one observation, as the estimator's ``sample_posterior`` takes it.
    estimator : NPEEstimator, FMPEEstimator, NLEEstimator or NREEstimator
        Cloned for every round, with this prior and a random_state of its own.
    rounds : int, default=5
    n_samples : int, default=1000
        Simulations of each round.
    epsilon : float, default=1e-4
        Share of the posterior that each round of NPE or FMPE may cut off.
    on_error : {"raise", "drop", "nan"}, default="raise"
        What to do with a simulation that fails, as in `simulate`: "raise" stops, "drop" goes on
        without the pair, and "nan" leaves an X of NaN to the estimator. Whether NaN are missing
        entries follows from the estimator's ``missing``.
    n_jobs : int or None, default=None
        Of the simulations, see `simulate`.
    random_state : int, Generator, RandomState or None, default=None
        The only source of randomness.
    verbose : int or "auto", default="auto"
        1 shows a progress bar over the rounds, 0 none; "auto" shows one on a terminal, of what
        takes more than 5 seconds.

    Returns
    -------
    estimator : NPEEstimator, FMPEEstimator, NLEEstimator or NREEstimator
        That of the last round, valid for ``X_obs`` and observations much like it.
    theta : ndarray, shape (n, p)
        The parameters that it was fitted to.
    X : ndarray, shape (n, ...)
        Their simulations.

    Raises
    ------
    ValueError
        Before any simulation, if an argument cannot be used.
    RuntimeError
        If the posterior of a round is too narrow for draws of the prior to hit it. Also if a
        simulation fails and ``on_error="raise"``, or if all of a round's first 100 fail.

    Warns
    -----
    UserWarning
        At the end, if simulations failed: how many in all rounds together, how, and whether that
        depends on theta.

    See Also
    --------
    simulate : All simulations at once, from the prior.

    References
    ----------
    Deistler et al., Truncated proposals for scalable and hassle-free simulation-based inference,
    2022, https://arxiv.org/abs/2210.04815; Papamakarios, Sterratt and Murray, Sequential neural
    likelihood, 2018, https://arxiv.org/abs/1805.07226.

    Examples
    --------
    >>> from scipy import stats
    >>> from skbi import JointPrior
    >>> prior = JointPrior({"rate": stats.uniform(0, 100)})
    >>> def counts(theta, rng):
    ...     return rng.poisson(theta, size=5)
    >>> npe = NPEEstimator(max_iter=15)
    >>> options = {"rounds": 2, "n_samples": 300, "random_state": 0}
    >>> npe, theta, _ = sequential(prior, counts, [7, 5, 9, 6, 8], npe, **options)
    >>> bool(np.median(theta) < 25)
    True
    """
    for number in (rounds, n_samples):
        check_n_samples(number)
    check_on_error(on_error)
    check_prior(prior)
    _check_estimator(estimator)
    rng, X_obs = as_generator(random_state), np.asarray(X_obs)
    missing = getattr(estimator, "missing", "error")
    options = {"n_jobs": n_jobs, "rng": rng, "on_error": on_error, "missing": missing}
    theta, X, fitted, region = np.empty((0, len(prior.names))), None, None, None
    simulated, failures = [], []
    bar = tqdm(range(rounds), "sequential", unit="round", **progress_options(verbose))
    for i in bar:
        new = _next_parameters(prior, fitted, region, X_obs, n_samples, rng)
        X_new, failed = simulate_at(new, simulator, **options)
        failures += [each._replace(row=each.row + i * n_samples) for each in failed]
        simulated.append(new)
        if on_error == "drop":
            new = np.delete(new, [each.row for each in failed], axis=0)
        if X is None:
            _check_observation(X_obs, X_new)
        theta, X = np.vstack([theta, new]), X_new if X is None else np.concatenate([X, X_new])
        fitted = clone(estimator).set_params(prior=prior, random_state=int(rng.integers(2**31)))
        fitted.fit(theta, X)
        message = describe_untypical(np.atleast_1d(fitted.typicality(X_obs)))
        if message:
            warnings.warn(message, stacklevel=2)
        if i < rounds - 1 and not isinstance(fitted, SampledPosterior):
            region = Region(fitted, X_obs, epsilon, rng, region)
            inside = np.flatnonzero(region.contains(theta))
            theta, X = theta[inside], _safe_indexing(X, inside)
    report = SimulationReport.of(failures, np.vstack(simulated), prior.names)
    if message := report.warning(is_returned=False):
        warnings.warn(message, stacklevel=2)
    return fitted, theta, X


def _next_parameters(
    prior: Prior,
    fitted: NPEEstimator | SampledPosterior | None,
    region: Region | None,
    X_obs: NDArray[np.float64],
    n: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Draw what the next round simulates at, (n, p)."""
    if fitted is None:
        return prior.sample(n, random_state=rng)
    if region is not None:
        return region.sample(n, rng)
    n_prior = math.ceil(_PRIOR_SHARE * n)
    parts = [prior.sample(n_prior, random_state=rng)]
    if n > n_prior:
        options = {"check_typicality": False, "random_state": rng}
        parts.append(fitted.sample_posterior(X_obs, n - n_prior, **options))
    return np.vstack(parts)


class Region:
    """Where a posterior lies: where its density exceeds a quantile.

    Parameters
    ----------
    npe : NPEEstimator
        With a prior.
    X_obs : ndarray
        One observation.
    epsilon : float
        Share of the posterior that is left outside.
    rng : Generator
    within : Region, optional
        The region of the round before; this one lies inside it.
    """

    def __init__(
        self,
        npe: NPEEstimator,
        X_obs: NDArray[np.float64],
        epsilon: float,
        rng: np.random.Generator,
        within: Region | None = None,
    ) -> None:
        self.npe, self.X_obs, self.within = npe, X_obs, within
        draws = npe.sample_posterior(X_obs, _N_DRAWS, check_typicality=False, random_state=rng)
        self.level = np.quantile(npe.log_prob(draws, X_obs), epsilon)

    def depth(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return zero inside and, outside, minus how far densities are below their levels, (n,).

        Those are the densities of this region and of the ones that it lies in, all added up: the
        sum rises on the way from outside the widest to inside the narrowest.
        """
        own = np.minimum(self.npe.log_prob(theta, self.X_obs) - self.level, 0)
        return own if self.within is None else own + self.within.depth(theta)

    def contains(self, theta: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether each theta (n, p) lies inside."""
        return self.depth(theta) == 0

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw theta (n, p) from the prior inside the region.

        Sequential Monte Carlo approaches it, however narrow and curved it is, from a density that
        falls off steeply outside; draws that end there are dropped.
        """
        found, n_found = [], 0
        for _ in range(_MAX_TRIES):
            draws, _ = smc(lambda theta: _STEEPNESS * self.depth(theta), self.npe.prior, n, rng)
            found.append(draws[self.contains(draws)])
            n_found += len(found[-1])
            if n_found >= n:
                return np.concatenate(found)[:n]
        raise RuntimeError(
            f"Of {_MAX_TRIES * n} draws near the posterior {n_found} lie inside it, {n} were asked "
            "for: it is too narrow for truncated rounds. Use fewer rounds."
        )


def _check_estimator(estimator: Estimator) -> None:
    """Refuse estimators that cannot learn in rounds."""
    if isinstance(estimator, CMPEEstimator):
        raise ValueError(
            "Rounds simulate where the posterior has density, and CMPE has no density. Use "
            "FMPEEstimator or NPEEstimator."
        )
    if getattr(estimator, "augment", 0):
        raise ValueError(
            "augment makes pairs at draws of the whole prior, and rounds learn where they simulate "
            "only. Set augment=0."
        )


def _check_observation(X_obs: NDArray[np.float64], X: Any) -> None:
    """Refuse, before any training, what cannot be an observation of the simulator."""
    if axes_of(X_obs) != axes_of(X) - 1 or width_of(X_obs[None]) != width_of(X):
        raise ValueError(
            f"X_obs must be one observation, as the simulator makes {len(X)} of shape {X.shape}; "
            f"got shape {X_obs.shape}."
        )
