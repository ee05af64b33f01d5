"""Truncated sequential NPE: simulate where the posterior of one observation lies.

Each round draws theta from the prior restricted to R = {theta : q(theta | x_o) >= c}, which holds
all but a share epsilon of q. Inside R the posterior is only rescaled, so that the objective of NPE
needs no correction.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.base import clone
from sklearn.utils import _safe_indexing
from tqdm.auto import tqdm

from skbi.estimators.checks import check_n_samples
from skbi.estimators.npe import NPEEstimator
from skbi.estimators.typicality import describe_untypical
from skbi.preprocessing.packed import axes_of, width_of
from skbi.priors import Prior, from_normal, to_normal
from skbi.randomness import RandomState, as_generator
from skbi.simulation.run import simulate_at

__all__ = ["Region", "sequential"]

_N_DRAWS = 10_000  # posterior draws that decide a region, and prior draws tried at a time
_MAX_TRIES = 1000  # rounds of prior draws that are tried before giving up


def sequential(
    prior: Prior,
    simulator: Any,
    X_obs: Any,
    estimator: NPEEstimator,
    *,
    rounds: int = 5,
    n_samples: int = 1000,
    epsilon: float = 1e-4,
    n_jobs: int | None = None,
    random_state: RandomState = None,
    verbose: int = 0,
) -> tuple[NPEEstimator, NDArray[np.float64], Any]:
    """Fit the posterior of one observation in rounds, which simulate ever closer to it.

    The first round simulates from the prior. Each further round simulates from the prior restricted
    to where the last posterior lies, and fits anew to all pairs so far that lie there.

    Parameters
    ----------
    prior : JointPrior or an object with its methods
        Of continuous parameters.
    simulator : callable, or object with ``transform(theta)``
        As in `simulate`.
    X_obs : array-like
        The one observation, as `NPEEstimator.sample_posterior` takes it.
    estimator : NPEEstimator
        Cloned for every round, with this prior and a random_state of its own.
    rounds : int, default=5
    n_samples : int, default=1000
        Simulations of each round.
    epsilon : float, default=1e-4
        Share of the posterior that each round may cut off.
    n_jobs : int or None, default=None
        Of the simulations, see `simulate`.
    random_state : int, Generator, RandomState or None, default=None
        The only source of randomness.
    verbose : int, default=0
        1 shows a progress bar over the rounds.

    Returns
    -------
    npe : NPEEstimator
        The estimator of the last round, valid for ``X_obs`` and observations much like it.
    theta : ndarray, shape (n, p)
        The parameters that it was fitted to.
    X : ndarray, shape (n, ...)
        Their simulations.

    Raises
    ------
    RuntimeError
        If the posterior fills so little of the box around it that draws seldom hit it.

    References
    ----------
    Deistler et al., Truncated proposals for scalable and hassle-free simulation-based inference,
    2022, https://arxiv.org/abs/2210.04815.

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
    rng, X_obs, regions = as_generator(random_state), np.asarray(X_obs), []
    theta, X = np.empty((0, len(prior.names))), None
    bar = tqdm(range(rounds), "sequential", unit="round", disable=verbose < 1)
    for i in bar:
        new = regions[-1].sample(n_samples, rng) if regions else prior.sample(n_samples, rng)
        X_new = simulate_at(new, simulator, n_jobs=n_jobs, rng=rng)
        if X is None:
            _check_observation(X_obs, X_new)
        theta, X = np.vstack([theta, new]), X_new if X is None else np.concatenate([X, X_new])
        npe = clone(estimator).set_params(prior=prior, random_state=int(rng.integers(2**31)))
        npe.fit(theta, X)
        message = describe_untypical(np.atleast_1d(npe.typicality(X_obs)))
        if message:
            warnings.warn(message, stacklevel=2)
        if i < rounds - 1:
            regions.append(Region(npe, X_obs, epsilon, rng, regions[-1] if regions else None))
            inside = np.flatnonzero(regions[-1].contains(theta))
            theta, X = theta[inside], _safe_indexing(X, inside)
    return npe, theta, X


class Region:
    """Where a posterior lies: in a box around its draws, and where its density exceeds a quantile.

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
        z = to_normal(npe.prior, draws)
        margin = 0.1 * np.ptp(z, axis=0)  # beyond the outermost draws
        self.low, self.high = z.min(axis=0) - margin, z.max(axis=0) + margin

    def contains(self, theta: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether each theta (n, p) lies inside."""
        z = to_normal(self.npe.prior, theta)
        inside = ((z >= self.low) & (z <= self.high)).all(axis=1)
        inside &= self.npe.log_prob(theta, self.X_obs) >= self.level
        return inside if self.within is None else inside & self.within.contains(theta)

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw theta (n, p) from the prior inside the region, by rejection in the box."""
        found: list[NDArray[np.float64]] = []
        for tried in range(1, _MAX_TRIES + 1):
            shape = (_N_DRAWS, len(self.low))
            z = stats.truncnorm.rvs(self.low, self.high, size=shape, random_state=rng)
            theta = from_normal(self.npe.prior, z)
            found.append(theta[self.contains(theta)])
            n_found = sum(map(len, found))
            if n_found >= n:
                return np.concatenate(found)[:n]
            if n_found < n * tried / _MAX_TRIES / 2 and tried >= 100:
                break
        raise RuntimeError(
            f"Of {tried * _N_DRAWS} draws of the prior in the box around the posterior {n_found} "
            f"lie inside it, {n} were asked for: it is too narrow or curved for truncated rounds. "
            "Use fewer rounds, or a parametrisation in which it is less so."
        )


def _check_observation(X_obs: NDArray[np.float64], X: Any) -> None:
    """Refuse, before any training, what cannot be an observation of the simulator."""
    if axes_of(X_obs) != axes_of(X) - 1 or width_of(X_obs[None]) != width_of(X):
        raise ValueError(
            f"X_obs must be one observation, as the simulator makes {len(X)} of shape {X.shape}; "
            f"got shape {X_obs.shape}."
        )
