"""Coverage: how often credible regions hold the truth, compared with how often they claim to.

The empirical coverage at a nominal coverage a is the share of runs whose credible level is at most
a (see `skbi.calibration.runs`). If the posterior is calibrated, it equals a up to chance.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erf, ndtri

from skbi.calibration.ranks import binomial_band, check_confidence, check_draws
from skbi.calibration.runs import check_kind, credible_levels, measure_runs
from skbi.randomness import RandomState, as_generator

__all__ = [
    "Curve",
    "coverage_curve",
    "coverage_score",
    "curve_of_levels",
    "estimator_curve",
    "score_levels",
    "tarp_curve",
]

# nominal (m,) and empirical (m, k) coverage, lower and upper limit (m,) of the band
Curve = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def coverage_score(
    estimator: Any,
    theta: ArrayLike,
    X: Any,
    *,
    n_samples: int = 1000,
    kind: str = "rank",
    multioutput: str = "uniform_average",
    n_jobs: int | None = None,
    random_state: RandomState = None,
    verbose: int | str = "auto",
) -> Any:
    """Score how well the coverage of credible regions agrees with their probability; 1 is best.

    The score is one minus twice the mean absolute difference of empirical and nominal coverage,
    over all nominal coverages. The prior itself scores 1, so read the score together with the
    held-out log density, ``estimator.score``.

    The function has the signature of a scikit-learn scorer: write ``GridSearchCV(npe, ...,
    scoring=coverage_score)``, or ``functools.partial(coverage_score, random_state=0)`` for a search
    that is reproducible.

    Parameters
    ----------
    estimator : object with ``sample_posterior(X, n_samples, random_state=seed)``
        The method returns draws of shape (n_obs, n_samples, p) for a batch of observations. Of a
        fitted search such as GridSearchCV, the best estimator is meant. An NLE
        uses its default sampler; for another one, pass an object of your own that calls it with
        ``sampler="nuts"``. If the method has a parameter ``check_typicality``, it is called with
        False, because the observations are known to be simulations.
    theta : array-like or DataFrame, shape (n, p)
        The truths, drawn from the prior.
    X : array-like or sequence of n observations
        The simulations at these truths, held out from training.
    n_samples : int, default=1000
        Number of draws for each observation.
    kind : {"rank", "sigma", "hpd", "tarp"}, default="rank"
        The kind of credible region.

        - "rank": central intervals of each parameter, from the truth's rank among the draws. It is
          exact for posteriors of any shape. Ties of discrete parameters are broken at random.
        - "sigma": intervals within k standard deviations of the mean of each parameter, which
          claim erf(k / sqrt 2). Suitable for Gaussian marginals only.
        - "hpd": regions of highest joint density, from the estimator's ``log_posterior(theta, X)``
          or else its ``log_prob``. It is called with many theta and one observation.
        - "tarp": balls around random reference points, a joint test that needs draws only.
    multioutput : {"uniform_average", "raw_values"}, default="uniform_average"
        Whether to return the mean over the parameters or one score for each parameter. Joint kinds
        have a single score.
    n_jobs : int or None, default=None
        Number of parallel jobs, through joblib. The result does not depend on it.
    random_state : int, Generator, RandomState or None, default=None
        The only source of randomness.
    verbose : int or "auto", default="auto"
        1 shows a progress bar, 0 none; "auto" shows one on a terminal, of what takes more than 5
        seconds.

    Returns
    -------
    float, or ndarray of shape (p,) or (1,)
        A score in [0, 1]. For a calibrated posterior and n runs it is about 1 - 0.6 / sqrt(n), or
        0.986 for 2,000 runs.

    Raises
    ------
    ValueError
        If an option or an array cannot be used.
    TypeError
        If ``kind="hpd"`` and the estimator has no density.

    See Also
    --------
    CoverageDisplay : The curve behind the score.
    calibration_report : Each parameter in words.

    References
    ----------
    Talts et al., Validating Bayesian inference algorithms with simulation-based calibration, 2018,
    https://arxiv.org/abs/1804.06788; Hermans et al., A trust crisis in simulation-based inference?,
    2021, https://arxiv.org/abs/2110.06581; Lemos et al., Sampling-based accuracy testing of
    posterior estimators (TARP), 2023, https://arxiv.org/abs/2302.03026.

    Examples
    --------
    Anything that samples can be scored. This is an exact posterior:

    >>> class Exact:  # theta ~ N(0, 1), x ~ N(theta, 1): the posterior is N(x / 2, 1 / 2)
    ...     def sample_posterior(self, X, n_samples, *, random_state=None):
    ...         rng = np.random.default_rng(random_state)
    ...         return X[:, None] / 2 + 0.5**0.5 * rng.normal(size=(len(X), n_samples, 1))
    >>> rng = np.random.default_rng(0)
    >>> theta = rng.normal(size=(500, 1))
    >>> X = theta + rng.normal(size=(500, 1))
    >>> coverage_score(Exact(), theta, X, n_samples=200, random_state=0) > 0.95
    True

    An adapter for a posterior of the package sbi:

    >>> class FromSbi:
    ...     def __init__(self, posterior):
    ...         self.posterior = posterior
    ...     def sample_posterior(self, X, n_samples, *, random_state=None):
    ...         import torch
    ...         with torch.random.fork_rng():
    ...             torch.manual_seed(random_state)
    ...             x = torch.as_tensor(X, dtype=torch.float32)
    ...             draws = self.posterior.sample_batched((n_samples,), x=x)
    ...         return draws.transpose(0, 1).numpy()
    """
    if multioutput not in ("uniform_average", "raw_values"):
        raise ValueError(
            f"multioutput must be 'uniform_average' or 'raw_values'; got {multioutput!r}."
        )
    check_kind(kind)
    options = {"n_samples": n_samples, "n_jobs": n_jobs, "random_state": random_state}
    scores = score_levels(measure_runs(estimator, theta, X, kind, verbose=verbose, **options))
    return scores if multioutput == "raw_values" else float(scores.mean())


def score_levels(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Score credible levels (n, k): 1 - 2 * the area between coverage curve and diagonal, (k,)."""
    nominal = (np.arange(1000) + 0.5) / 1000
    return 1 - 2 * np.abs(_share_up_to(levels, nominal) - nominal[:, None]).mean(axis=0)


def coverage_curve(
    theta: ArrayLike,
    samples: ArrayLike,
    *,
    kind: str = "rank",
    log_density: tuple[ArrayLike, ArrayLike] | None = None,
    references: ArrayLike | None = None,
    confidence: float = 0.95,
    random_state: RandomState = None,
) -> Curve:
    """Compute empirical against nominal coverage from posterior draws.

    Parameters
    ----------
    theta : array-like, shape (n, p)
        The true parameters of n runs.
    samples : array-like, shape (n, n_samples, p)
        Posterior draws for each run.
    kind : {"rank", "sigma", "hpd", "tarp"}, default="rank"
        The kind of credible region, see `coverage_score`.
    log_density : (array-like of shape (n,), array-like of shape (n, n_samples)), optional
        Log posterior density of the truths and of the draws, required for "hpd". Each run may lack
        a constant of its own.
    references : array-like, shape (n, p), optional
        The reference points of "tarp". By default they are uniform in the box that the truths
        span. The truths are then not quite independent of the box, so use at least 200 runs.
    confidence : float, default=0.95
        Probability that a calibrated curve lies within the band, at each nominal coverage by
        itself.
    random_state : int, Generator, RandomState or None, default=None
        Breaks ties and places the references.

    Returns
    -------
    nominal : ndarray, shape (m,)
        The probability of a Gaussian within k standard deviations, erf(k / sqrt 2), for k = 0, 0.1,
        0.2 and so on until no truth lies outside.
    empirical : ndarray, shape (m, p), or (m, 1) for joint kinds
    lower, upper : ndarray, shape (m,)
        Binomial band around the nominal coverage.

    Raises
    ------
    ValueError
        If an option or an array cannot be used.

    See Also
    --------
    coverage_score : One number.
    CoverageDisplay : A picture.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> theta, samples = rng.normal(size=(200, 1)), rng.normal(size=(200, 100, 1))
    >>> nominal, empirical, lower, upper = coverage_curve(theta, samples, random_state=0)
    >>> bool(np.mean((lower <= empirical[:, 0]) & (empirical[:, 0] <= upper)) > 0.8)
    True
    """
    check_kind(kind)
    check_confidence(confidence)
    theta, samples = check_draws(theta, samples)
    if kind == "hpd" and log_density is None:
        raise ValueError("kind='hpd' needs log_density=(of the truths, of the draws).")
    if kind == "tarp" and references is not None and np.shape(references) != theta.shape:
        raise ValueError(
            f"references must have theta's shape {theta.shape}; got {np.shape(references)}."
        )
    levels = credible_levels(
        theta,
        samples,
        kind,
        as_generator(random_state),
        log_density=log_density,
        references=references,
    )
    return curve_of_levels(levels, confidence)


def tarp_curve(
    theta: ArrayLike,
    samples: ArrayLike,
    *,
    references: ArrayLike | None = None,
    confidence: float = 0.95,
    random_state: RandomState = None,
) -> Curve:
    """Compute the expected coverage of balls around random points (TARP), a joint test.

    Parameters
    ----------
    theta : array-like, shape (n, p)
        The true parameters of n runs.
    samples : array-like, shape (n, n_samples, p)
        Posterior draws for each run.
    references : array-like, shape (n, p), optional
        Centres of the balls. By default they are uniform in the box that the truths span.
    confidence : float, default=0.95
        Probability that a calibrated curve lies within the band, at each nominal coverage by
        itself.
    random_state : int, Generator, RandomState or None, default=None
        Breaks ties and places the references.

    Returns
    -------
    nominal : ndarray, shape (m,)
    empirical : ndarray, shape (m, 1)
    lower, upper : ndarray, shape (m,)
        As in `coverage_curve`.

    See Also
    --------
    coverage_score : The same with ``kind="tarp"``, as one number.

    References
    ----------
    Lemos et al., Sampling-based accuracy testing of posterior estimators, 2023,
    https://arxiv.org/abs/2302.03026.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> theta, samples = rng.normal(size=(200, 3)), rng.normal(size=(200, 100, 3))
    >>> nominal, empirical, *_ = tarp_curve(theta, samples, random_state=0)
    >>> bool(np.abs(empirical[:, 0] - nominal).max() < 0.15)
    True
    """
    options = {"references": references, "confidence": confidence, "random_state": random_state}
    return coverage_curve(theta, samples, kind="tarp", **options)


def estimator_curve(
    estimator: Any, theta: ArrayLike, X: Any, kind: str, confidence: float, **options: Any
) -> Curve:
    """Compute the `coverage_curve` of an estimator; the options are those of `measure_runs`."""
    check_kind(kind)
    check_confidence(confidence)
    return curve_of_levels(measure_runs(estimator, theta, X, kind, **options), confidence)


def curve_of_levels(levels: NDArray[np.float64], confidence: float) -> Curve:
    """Evaluate coverage at multiples of 0.1 sigma, up to the highest credible level."""
    max_sigma = -ndtri((1 - min(levels.max(), 1 - 1e-15)) / 2)
    nominal = erf(np.arange(0, max_sigma + 0.1, 0.1) / math.sqrt(2))
    lower, upper = binomial_band(len(levels), nominal, confidence)
    return nominal, _share_up_to(levels, nominal), lower, upper


def _share_up_to(levels: NDArray[np.float64], nominal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the credible levels (n, k) that are at most as high as each nominal one, (m, k)."""
    columns = [np.searchsorted(np.sort(column), nominal, side="right") for column in levels.T]
    return np.stack(columns, axis=1) / len(levels)
