"""Can the posterior be trusted? Coverage, ranks and TARP over simulated truths; predictive checks.

Draw theta* from the prior, simulate x, sample q(theta | x). Every kind of credible region gives the
run a level, the posterior probability of the smallest region that holds theta*. Over many runs the
levels of a calibrated posterior are uniform on (0, 1): P(level <= a) = a.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import erf, gammaln, ndtri
from sklearn.base import clone
from sklearn.model_selection import KFold
from sklearn.neural_network import MLPClassifier
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from skbi.base import BaseDensityEstimator, check_names, trusted
from skbi.priors import RandomState, as_generator
from skbi.simulation import simulate_at
from skbi.training import one_thread

__all__ = [
    "CalibrationReport",
    "c2st_score",
    "calibration_report",
    "coverage_curve",
    "coverage_score",
    "ecdf_band",
    "misspecification_score",
    "posterior_predictive",
    "sbc_ranks",
    "tarp_curve",
    "uniformity_test",
]

Array = NDArray[np.float64]

_KINDS = ("rank", "sigma", "hpd", "tarp")
_BLOCK = 50  # observations a task: the work is split in the same way for any number of jobs
_MOST_POINTS = 100  # at which an empirical distribution function is looked at


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
    verbose: int = 0,
) -> Any:
    """Score how often credible regions hold the truth: 1 if as often as they say.

    The score is 1 - 2 * mean |empirical - nominal coverage| over all nominal levels. It has the
    signature of a scikit-learn scorer: ``GridSearchCV(npe, ..., scoring=coverage_score)``, or
    ``functools.partial(coverage_score, random_state=0)`` for a search that repeats. The prior
    itself scores 1, so read it beside the held-out log density, ``estimator.score``.

    Parameters
    ----------
    estimator : object with ``sample_posterior(X, n_samples, random_state=seed)``
        Which returns draws (n_obs, n_samples, p) for a batch of observations. An NLE uses its
        default sampler; for another, pass an object that passes ``sampler="nuts"`` on.
    theta : array-like, shape (n, p)
        The truths, drawn from the prior.
    X : array-like or sequence of n observations
        What the simulator made of them, held out from training.
    n_samples : int, default=1000
        Draws for each observation.
    kind : {"rank", "sigma", "hpd", "tarp"}, default="rank"
        The credible regions. "rank": central intervals of each parameter, by the truth's rank among
        the draws, exact for any shape; ties of discrete parameters are broken at random. "sigma":
        within k standard deviations of the mean against erf(k / sqrt 2), for Gaussian marginals
        only. "hpd": regions of highest joint density, by the estimator's ``log_posterior(theta,
        X)`` or else its ``log_prob``, called with many theta and one observation. "tarp": balls
        around random points, joint.
    multioutput : {"uniform_average", "raw_values"}, default="uniform_average"
        The mean over parameters, or one score for each (a single one for joint kinds).
    n_jobs : int or None, default=None
        Parallel jobs, through joblib. The result does not depend on it.
    random_state : int, Generator, RandomState or None, default=None
        The only source of randomness.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    float, or ndarray of shape (p,) or (1,)
        In [0, 1]. Over n runs of a calibrated posterior about 1 - 0.6 / sqrt(n): 0.986 for 2,000.

    References
    ----------
    Talts et al., Validating Bayesian inference algorithms with simulation-based calibration, 2018,
    https://arxiv.org/abs/1804.06788; Hermans et al., A trust crisis in simulation-based inference?,
    2021, https://arxiv.org/abs/2110.06581; Lemos et al., Sampling-based accuracy testing of
    posterior estimators (TARP), 2023, https://arxiv.org/abs/2302.03026.

    Examples
    --------
    Anything that samples can be scored: here an exact posterior.

    >>> class Exact:  # theta ~ N(0, 1), x ~ N(theta, 1): the posterior is N(x / 2, 1 / 2)
    ...     def sample_posterior(self, X, n_samples, *, random_state=None):
    ...         rng = np.random.default_rng(random_state)
    ...         return X[:, None] / 2 + 0.5**0.5 * rng.normal(size=(len(X), n_samples, 1))
    >>> rng = np.random.default_rng(0)
    >>> theta = rng.normal(size=(500, 1))
    >>> X = theta + rng.normal(size=(500, 1))
    >>> coverage_score(Exact(), theta, X, n_samples=200, random_state=0) > 0.95
    True

    A posterior of sbi behind an adapter:

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
    _check_kind(kind)
    options = {"n_samples": n_samples, "n_jobs": n_jobs, "random_state": random_state}
    scores = _scores(_measure(estimator, theta, X, kind, verbose=verbose, **options))
    return scores if multioutput == "raw_values" else float(scores.mean())


def coverage_curve(
    theta: ArrayLike,
    samples: ArrayLike,
    *,
    kind: str = "rank",
    log_density: tuple[ArrayLike, ArrayLike] | None = None,
    references: ArrayLike | None = None,
    confidence: float = 0.95,
    random_state: RandomState = None,
) -> tuple[Array, Array, Array, Array]:
    """Empirical against nominal coverage.

    Parameters
    ----------
    theta : array-like, shape (n, p)
        The truths.
    samples : array-like, shape (n, n_samples, p)
        Posterior draws for each.
    kind : {"rank", "sigma", "hpd", "tarp"}, default="rank"
        See `coverage_score`.
    log_density : (array-like of shape (n,), array-like of shape (n, n_samples)), optional
        Of "hpd": log posterior density of the truths and of the draws; a constant for each run may
        be missing.
    references : array-like, shape (n, p), optional
        Of "tarp": the random points, by default uniform in the box that holds all truths (which
        a truth helps to span: do so with 200 runs or more).
    confidence : float, default=0.95
        Probability that a calibrated curve lies in the band, at each level taken by itself.
    random_state : int, Generator, RandomState or None, default=None
        Breaks ties, places the references.

    Returns
    -------
    nominal : ndarray, shape (m,)
        What a Gaussian holds within k sigma, erf(k / sqrt 2), for k = 0, 0.1, 0.2 ... as far as
        truths remain beyond.
    empirical : ndarray, shape (m, p), or (m, 1) for joint kinds
    lower, upper : ndarray, shape (m,)
        Binomial band around the nominal coverage.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> theta, samples = rng.normal(size=(200, 1)), rng.normal(size=(200, 100, 1))
    >>> nominal, empirical, lower, upper = coverage_curve(theta, samples, random_state=0)
    >>> bool(np.mean((lower <= empirical[:, 0]) & (empirical[:, 0] <= upper)) > 0.8)
    True
    """
    _check_kind(kind)
    _check_confidence(confidence)
    theta, samples = _check_draws(theta, samples)
    if kind == "hpd" and log_density is None:
        raise ValueError("kind='hpd' needs log_density=(of the truths, of the draws).")
    if kind == "tarp" and references is not None and np.shape(references) != theta.shape:
        raise ValueError(
            f"references must have theta's shape {theta.shape}; got {np.shape(references)}."
        )
    span = _span(theta) if kind == "tarp" else None
    rng = as_generator(random_state)
    levels = _levels(theta, samples, kind, rng, log_density, span, references)
    return _curve(levels, confidence)


def tarp_curve(
    theta: ArrayLike,
    samples: ArrayLike,
    *,
    references: ArrayLike | None = None,
    confidence: float = 0.95,
    random_state: RandomState = None,
) -> tuple[Array, Array, Array, Array]:
    """Compute the expected coverage of balls around random points: a joint test.

    Parameters
    ----------
    theta : array-like, shape (n, p)
    samples : array-like, shape (n, n_samples, p)
    references : array-like, shape (n, p), optional
        Centres of the balls, by default uniform in the box that holds all truths.
    confidence : float, default=0.95
    random_state : int, Generator, RandomState or None, default=None

    Returns
    -------
    nominal : ndarray, shape (m,)
    empirical : ndarray, shape (m, 1)
    lower, upper : ndarray, shape (m,)
        See `coverage_curve`.

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


# ---- ranks


def sbc_ranks(
    theta: ArrayLike, samples: ArrayLike, *, random_state: RandomState = None
) -> NDArray[np.int64]:
    """Rank of the truth among the posterior draws, uniform on 0 ... n_samples when calibrated.

    Parameters
    ----------
    theta : array-like, shape (n, p)
    samples : array-like, shape (n, n_samples, p)
    random_state : int, Generator, RandomState or None, default=None
        Breaks ties, as discrete parameters have them.

    Returns
    -------
    ndarray of int, shape (n, p)

    References
    ----------
    Talts et al., Validating Bayesian inference algorithms with simulation-based calibration, 2018,
    https://arxiv.org/abs/1804.06788.

    Examples
    --------
    >>> sbc_ranks([[0.5], [2.0]], [[[0.0], [1.0], [3.0]], [[0.0], [1.0], [3.0]]]).tolist()
    [[1], [2]]
    """
    theta, samples = _check_draws(theta, samples)
    return _ranks(_pit(theta, samples, as_generator(random_state)), samples.shape[1])


def uniformity_test(ranks: ArrayLike, n_samples: int) -> Array:
    """p-value of uniform ranks, exact for any number of runs and draws.

    The statistic is the worst two-sided binomial p-value of the ranks' distribution function over
    at most 100 points; its own distribution is computed, not simulated.

    Parameters
    ----------
    ranks : array-like of int, shape (n, p)
        Of `sbc_ranks`.
    n_samples : int
        Draws that the ranks were taken among.

    Returns
    -------
    ndarray, shape (p,)
        Below 1e-10, an upper bound.

    References
    ----------
    Säilynoja, Bürkner and Vehtari, Graphical test for discrete uniformity and its applications in
    goodness of fit evaluation and multiple sample comparison, 2022,
    https://arxiv.org/abs/2103.10522.

    Examples
    --------
    >>> ranks = np.random.default_rng(0).integers(101, size=(500, 1))
    >>> uniformity_test(ranks, 100)[0] > 0.01, uniformity_test(ranks // 2, 100)[0] < 1e-6
    (np.True_, np.True_)
    """
    ranks = np.asarray(ranks)
    if ranks.ndim != 2 or not len(ranks) or ranks.min() < 0 or ranks.max() > n_samples:
        raise ValueError(
            f"ranks must have shape (n, p), n > 0, and lie in 0 ... {n_samples} (n_samples); got "
            f"shape {ranks.shape}" + (f", up to {ranks.max()}." if ranks.size else ".")
        )
    at, levels = rank_grid(n_samples)
    counts, n = (ranks[:, :, None] <= at).sum(axis=0), len(ranks)
    tails = np.minimum(stats.binom.cdf(counts, n, levels), stats.binom.sf(counts - 1, n, levels))
    worst = 2 * tails.min(axis=1)
    p_values = len(at) * worst  # at most; binomial quantiles end before such tails
    for j in np.flatnonzero(p_values > 1e-10):
        p_values[j] = 1 - _stay_probability(n, levels, *_limits(n, levels, worst[j]))
    return np.clip(p_values, 0, 1)


def ecdf_band(n: int, levels: ArrayLike, confidence: float = 0.95) -> tuple[Array, Array]:
    """Simultaneous band of the empirical distribution function of n uniform numbers.

    Parameters
    ----------
    n : int
    levels : array-like, shape (m,), increasing, in (0, 1)
        Where the function is looked at.
    confidence : float, default=0.95
        Probability that the function stays in the band at all levels together.

    Returns
    -------
    lower, upper : ndarray, shape (m,)

    References
    ----------
    Säilynoja, Bürkner and Vehtari, Graphical test for discrete uniformity and its applications in
    goodness of fit evaluation and multiple sample comparison, 2022,
    https://arxiv.org/abs/2103.10522.

    Examples
    --------
    >>> lower, upper = ecdf_band(100, [0.25, 0.5, 0.75])
    >>> lower.round(2), upper.round(2)
    (array([0.15, 0.39, 0.65]), array([0.35, 0.61, 0.85]))
    """
    levels = np.asarray(levels, dtype=np.float64)
    _check_confidence(confidence)
    if levels.ndim != 1 or not (np.diff([0, *levels, 1]) > 0).all():
        raise ValueError(f"levels must increase within (0, 1); got {levels}.")
    low, high = math.log((1 - confidence) / len(levels) / 2), math.log(1 - confidence)
    for _ in range(30):  # the least pointwise confidence that holds all of the curve
        middle = (low + high) / 2
        inside = _stay_probability(n, levels, *_limits(n, levels, math.exp(middle)))
        low, high = (middle, high) if inside >= confidence else (low, middle)
    lower, upper = _limits(n, levels, math.exp(low))
    return lower / n, upper / n


# ---- the report


@dataclass(frozen=True, eq=False)
class CalibrationReport:
    """What `calibration_report` found; print it.

    Attributes
    ----------
    names : sequence of str
        The p parameters.
    coverage : ndarray, shape (p,)
        `coverage_score`, kind "rank".
    bias : ndarray, shape (p,)
        How far the posterior sits above the truth on average, in its standard deviations.
    spread : ndarray, shape (p,)
        Standard deviation of the truth's place in the posterior: 2 says that errors are twice what
        the posterior claims. Both saturate where truths lie beyond all draws, at 3.3 for 1,000.
    bias_pvalue, spread_pvalue, shape_pvalue : ndarray, shape (p,)
        Of no bias (t-test), of spread 1 (chi-squared test) and of uniform ranks
        (`uniformity_test`), times 3 p, the number of tests. No narrow spread is found where too
        many truths lie beyond all draws: it may be theirs that is cut off.
    log_score : float or None
        Mean log density of the held-out pairs, in nats, of estimators that have a ``score``.
    n_runs : int
    significance : float
        Below which a p-value is a finding; also the most chance of any finding if all is well.
    """

    names: Sequence[str]
    coverage: Array
    bias: Array
    spread: Array
    bias_pvalue: Array
    spread_pvalue: Array
    shape_pvalue: Array
    log_score: float | None
    n_runs: int
    significance: float

    @property
    def verdicts(self) -> list[str]:
        """One for each parameter, such as "biased high, overconfident", or "calibrated"."""
        return [self._verdict(j) for j in range(len(self.names))]

    def _verdict(self, j: int) -> str:
        found = []
        if self.bias_pvalue[j] < self.significance:
            found.append("biased high" if self.bias[j] > 0 else "biased low")
        if self.spread_pvalue[j] < self.significance:
            found.append("overconfident" if self.spread[j] > 1 else "underconfident")
        if not found and self.shape_pvalue[j] < self.significance:
            found.append("wrong shape")
        return ", ".join(found) or "calibrated"

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        width = max(9, *(len(name) for name in self.names))
        head = (
            f"{'parameter':{width}}  coverage  bias [sd]   (p)   spread   (p)   shape (p)  verdict"
        )
        rows = [
            f"{name:{width}}  {c:8.3f}  {b:+9.2f}  {bp:6.3f}  {s:6.2f}  {sp:6.3f}  {up:9.3f}  {v}"
            for name, c, b, bp, s, sp, up, v in zip(
                self.names, self.coverage, self.bias, self.bias_pvalue, self.spread,
                self.spread_pvalue, self.shape_pvalue, self.verdicts, strict=True,
            )
        ]  # fmt: skip
        foot = f"{self.n_runs} runs; p-values are corrected for {3 * len(self.names)} tests"
        if self.log_score is not None:
            foot += f"; held-out log score {self.log_score:.3f} nats"
        return "\n".join([head, *rows, foot])


def calibration_report(
    estimator: Any,
    theta: ArrayLike,
    X: Any,
    *,
    n_samples: int = 1000,
    names: Sequence[str] | None = None,
    significance: float = 0.05,
    n_jobs: int | None = None,
    random_state: RandomState = None,
    verbose: int = 0,
) -> CalibrationReport:
    """Say in words whether each parameter's posterior is biased, too narrow or too wide.

    The truth's rank among the draws, turned into a standard normal number, is exactly N(0, 1) for
    a calibrated posterior of any shape: its mean tells bias, its standard deviation tells whether
    the posterior is too narrow or too wide.

    Parameters
    ----------
    estimator, theta, X, n_samples, n_jobs, random_state, verbose
        As in `coverage_score`.
    names : sequence of str, optional
        Of the parameters; by default the estimator's ``parameter_names_in_``.
    significance : float, default=0.05
        Chance of any finding when the posterior is calibrated.

    Returns
    -------
    CalibrationReport

    Examples
    --------
    >>> class Narrow:  # theta ~ N(0, 1), x ~ N(theta, 1): the sd should be 0.71
    ...     def sample_posterior(self, X, n_samples, *, random_state=None):
    ...         rng = np.random.default_rng(random_state)
    ...         return X[:, None] / 2 + 0.4 * rng.normal(size=(len(X), n_samples, 1))
    >>> rng = np.random.default_rng(0)
    >>> theta = rng.normal(size=(500, 1))
    >>> X = theta + rng.normal(size=(500, 1))
    >>> calibration_report(Narrow(), theta, X, n_samples=200, random_state=0).verdicts
    ['overconfident']
    """
    options = {"n_samples": n_samples, "n_jobs": n_jobs, "random_state": random_state}
    pit = _measure(estimator, theta, X, "pit", verbose=verbose, **options)
    n, p = pit.shape
    if n < 2:
        raise ValueError(f"A report needs at least 2 runs, better 200 or more; got {n}.")
    if names is None:
        names = list(getattr(estimator, "parameter_names_in_", [f"theta_{j}" for j in range(p)]))
    if len(names) != p:
        raise ValueError(f"names must hold {p} names; got {list(names)}.")
    z, ranks = ndtri(pit), _ranks(pit, n_samples)
    pvalues = stats.ttest_1samp(z, 0).pvalue, _spread_pvalue(z, ranks, n_samples)
    pvalues += (uniformity_test(ranks, n_samples),)
    score = getattr(estimator, "score", None)
    return CalibrationReport(
        names,
        _scores(np.abs(2 * pit - 1)),
        -z.mean(axis=0),
        z.std(axis=0, ddof=1),
        *(np.minimum(1, 3 * p * value) for value in pvalues),
        log_score=None if score is None else float(score(theta, X)),
        n_runs=n,
        significance=significance,
    )


def _spread_pvalue(z: Array, ranks: NDArray[np.int64], n_samples: int) -> Array:
    """Two-sided p-values of sd 1; 1 for narrow columns that the ends of the draws cut off."""
    n, square = len(z), (z - z.mean(axis=0)) ** 2
    low, high = stats.chi2(n - 1).cdf(square.sum(axis=0)), stats.chi2(n - 1).sf(square.sum(axis=0))
    outside = ((ranks == 0) | (ranks == n_samples)).sum(axis=0)
    cut_off = stats.binom.sf(outside - 1, n, 2 / (n_samples + 1)) < 0.01
    return np.where(cut_off & (low < high), 1.0, 2 * np.minimum(low, high))


# ---- two samples, the data


def c2st_score(
    a: ArrayLike,
    b: ArrayLike,
    *,
    cv: int = 5,
    n_jobs: int | None = None,
    random_state: RandomState = None,
) -> float:
    """Accuracy of a classifier that tells two samples apart: 0.5 if they are alike, 1 if separate.

    The classifier of the published SBI benchmark: a perceptron with two hidden layers of 10 p
    units on columns standardised by the first sample, cross-validated.

    Parameters
    ----------
    a, b : array-like, shape (n, p)
        Of about the same length: the share of the longer one is the accuracy of guessing.
    cv : int, default=5
        Folds.
    n_jobs : int or None, default=None
        Folds in parallel, through joblib.
    random_state : int, Generator, RandomState or None, default=None

    Returns
    -------
    float
        Lower is better.

    References
    ----------
    Lueckmann et al., Benchmarking simulation-based inference, 2021,
    https://arxiv.org/abs/2101.04653; Lopez-Paz and Oquab, Revisiting classifier two-sample tests,
    2016, https://arxiv.org/abs/1610.06545.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.normal(size=(2, 200, 2))
    >>> c2st_score(a, b, random_state=0) < 0.6, c2st_score(a, b + 5, random_state=0) > 0.99
    (True, True)
    """
    a, b = (np.asarray(x, dtype=np.float64) for x in (a, b))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(
            f"a and b must be samples (n, p) of the same width; got shapes {a.shape}, {b.shape}."
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("a and b must be finite.")
    if min(len(a), len(b)) < cv:
        raise ValueError(f"Each sample needs at least cv={cv} rows; got {len(a)} and {len(b)}.")
    rng = as_generator(random_state)
    scale = a.std(axis=0)
    both = (np.vstack([a, b]) - a.mean(axis=0)) / np.where(scale > 0, scale, 1)
    from_b = np.repeat([0, 1], [len(a), len(b)])
    width, seeds = 10 * a.shape[1], rng.integers(2**31, size=2).tolist()
    classifier = MLPClassifier((width, width), max_iter=10_000, random_state=seeds[0])
    folds = KFold(cv, shuffle=True, random_state=seeds[1]).split(both)
    accuracies = Parallel(n_jobs=n_jobs)(
        delayed(_accuracy)(clone(classifier), both, from_b, *fold) for fold in folds
    )
    return float(np.mean(accuracies))


def _accuracy(
    classifier: MLPClassifier,
    x: Array,
    y: NDArray[np.int64],
    train: NDArray[np.int64],
    test: NDArray[np.int64],
) -> float:
    with threadpool_limits(1):  # sums round alike in every worker
        return float(classifier.fit(x[train], y[train]).score(x[test], y[test]))


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

    Where the replicated data look unlike the observed ones, the simulator is wrong or the posterior
    is. (They are drawn given the observation, so agreement is a weak confirmation.)

    Parameters
    ----------
    estimator : object with ``sample_posterior``
        As in `coverage_score`.
    simulator : transformer
        As in `skbi.simulate`.
    X_obs : array-like
        A batch of observations.
    n_samples : int, default=100
        Replications of each.
    n_jobs : int or None, default=None
        Parallel jobs of the simulator, through joblib. The result does not depend on it.
    random_state : int, Generator, RandomState or None, default=None

    Returns
    -------
    ndarray, shape (n_obs, n_samples, ...), or an object array (n_obs, n_samples) of sets

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
    """How unlike the training simulations an observation is, as a p-value: 0 is unlike any.

    The distance of the observation to the nearest training simulations, in the space of the
    estimator's summaries (a set's mean, spread and size among them; of an NLE, the points
    themselves) and over their spacing there, is compared with that of held-out simulations. No
    neural posterior means anything far from its training data.

    Parameters
    ----------
    estimator : NPEEstimator or NLEEstimator
        Fitted.
    X_obs : array-like
        Observations, as in ``sample_posterior``.

    Returns
    -------
    ndarray, shape (n_obs,), or float for one observation
        The share of simulations that are further out: uniform on (0, 1) for data from the
        simulator, up to the accuracy of a tenth of the training pairs, at most 2,000; beyond the
        largest tenth of them it follows their tail (of less than 50, at most as 1 over the
        distance). Of sets, for an NLE, the least value of their points times their number.

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
    if not isinstance(estimator, BaseDensityEstimator):
        raise TypeError(
            "misspecification_score needs an NPEEstimator or NLEEstimator, which remember their "
            f"training simulations; got {type(estimator).__name__}."
        )
    return estimator._misspecification(X_obs)


# ---- what every run is measured by


def simulated_curve(
    estimator: Any, theta: ArrayLike, X: Any, kind: str, confidence: float, **options: Any
) -> tuple[Array, Array, Array, Array]:
    """`coverage_curve` of an estimator; options are those of `coverage_score`."""
    _check_kind(kind)
    _check_confidence(confidence)
    return _curve(_measure(estimator, theta, X, kind, **options), confidence)


def simulated_ranks(
    estimator: Any, theta: ArrayLike, X: Any, n_samples: int, **options: Any
) -> NDArray[np.int64]:
    """`sbc_ranks` of an estimator; options are those of `coverage_score`."""
    return _ranks(_measure(estimator, theta, X, "pit", n_samples=n_samples, **options), n_samples)


def _check_kind(kind: str) -> None:
    if kind not in _KINDS:
        raise ValueError(f"kind must be one of {list(_KINDS)}; got {kind!r}.")


def _check_truths(theta: ArrayLike) -> Array:
    theta = np.asarray(theta, dtype=np.float64)
    if theta.ndim != 2 or not theta.size:
        raise ValueError(f"theta must have shape (n, p), one truth a row; got {theta.shape}.")
    if not np.isfinite(theta).all():
        raise ValueError(f"theta must be finite; row {_first(~np.isfinite(theta))} is not.")
    return theta


def _first(bad: NDArray[np.bool_]) -> int:
    """Return the first row where any is bad."""
    return int(bad.reshape(len(bad), -1).any(axis=1).argmax())


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, such as 0.95; got {confidence}.")


def _check_draws(theta: ArrayLike, samples: ArrayLike) -> tuple[Array, Array]:
    theta, samples = _check_truths(theta), np.asarray(samples, dtype=np.float64)
    n, p = theta.shape
    if samples.ndim != 3 or (len(samples), samples.shape[2]) != (n, p) or not samples.shape[1]:
        raise ValueError(
            f"Posterior draws of {n} observations and {p} parameters must have shape ({n}, "
            f"n_samples, {p}); got {samples.shape}."
        )
    if not np.isfinite(samples).all():
        row = _first(~np.isfinite(samples))
        raise ValueError(f"Posterior draws must be finite; those of observation {row} are not.")
    return theta, samples


def _measure(
    estimator: Any,
    theta: ArrayLike,
    X: Any,
    kind: str,
    *,
    n_samples: int,
    n_jobs: int | None,
    random_state: RandomState,
    verbose: int = 0,
) -> Array:
    """Sample the posterior of every observation and measure the truths, (n, k)."""
    if hasattr(theta, "columns") and hasattr(estimator, "parameter_names_in_"):
        check_names(np.asarray(theta.columns), estimator.parameter_names_in_)
    theta, n = _check_truths(theta), _num_samples(X)
    if len(theta) != n:
        raise ValueError(
            f"theta and X must hold the same number of runs; got {len(theta)} and {n}."
        )
    starts = range(0, n, _BLOCK)
    seeds = as_generator(random_state).integers(2**31, size=len(starts))
    span = _span(theta) if kind == "tarp" else None
    # threads where the network does the work; a process for what may be slow in Python
    parallel = Parallel(
        n_jobs=n_jobs, prefer=getattr(estimator, "_prefer", "processes"), return_as="generator"
    )
    tasks = (
        delayed(_measure_block)(
            estimator, theta[i : i + _BLOCK], _rows(X, i, _BLOCK), kind, n_samples, seed, span
        )
        for i, seed in zip(starts, seeds.tolist(), strict=True)
    )
    bar = tqdm(parallel(tasks), "calibration", len(starts), unit="block", disable=verbose < 1)
    return np.concatenate(list(bar))


def _rows(X: Any, start: int, n: int) -> Any:
    return _safe_indexing(X, slice(start, start + n))


def _measure_block(
    estimator: Any,
    theta: Array,
    X: Any,
    kind: str,
    n_samples: int,
    seed: int,
    span: Array | None,
) -> Array:
    rng = np.random.default_rng(seed)
    with one_thread(), trusted():
        draws = estimator.sample_posterior(X, n_samples, random_state=int(rng.integers(2**31)))
        theta, samples = _check_draws(theta, draws)
        log_density = _log_density(estimator, theta, samples, X) if kind == "hpd" else None
    return _levels(theta, samples, kind, rng, log_density, span)


def _log_density(estimator: Any, theta: Array, samples: Array, X: Any) -> tuple[Array, Array]:
    """Log posterior density of truths (n,) and draws (n, S), up to a constant for each run."""
    log_prob = getattr(estimator, "log_posterior", None) or getattr(estimator, "log_prob", None)
    if log_prob is None:
        raise TypeError(
            f"kind='hpd' needs an estimator with log_prob(theta, X); {type(estimator).__name__} "
            "has none. Use kind='tarp' for a joint test that needs draws only."
        )
    rows = [
        log_prob(np.vstack([truth, draws]), _rows(X, i, 1))
        for i, (truth, draws) in enumerate(zip(theta, samples, strict=True))
    ]
    values = np.stack(rows)
    return values[:, 0], values[:, 1:]


def _levels(
    theta: Array,
    samples: Array,
    kind: str,
    rng: np.random.Generator,
    log_density: tuple[ArrayLike, ArrayLike] | None = None,
    span: Array | None = None,
    references: ArrayLike | None = None,
) -> Array:
    """Level of every run, (n, p), or (n, 1) for joint kinds; "pit" is not folded."""
    if kind == "pit":
        return _pit(theta, samples, rng)
    if kind == "rank":
        return np.abs(2 * _pit(theta, samples, rng) - 1)
    if kind == "sigma":
        error, sd = np.abs(theta - samples.mean(axis=1)), samples.std(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return erf(np.where(error == 0, 0, error / sd) / math.sqrt(2))
    if kind == "hpd":
        at_truth, at_draws = (np.asarray(a, dtype=np.float64) for a in log_density)
        if (at_truth.shape, at_draws.shape) != (samples.shape[:1], samples.shape[:2]):
            raise ValueError(
                f"log_density must have shapes {samples.shape[:1]} and {samples.shape[:2]}; got "
                f"{at_truth.shape} and {at_draws.shape}."
            )
        if np.isnan(at_truth).any() or np.isnan(at_draws).any():
            raise ValueError("The log densities of the truths and of the draws must not be NaN.")
        return _pit(-at_truth[:, None], -at_draws[:, :, None], rng)
    low, high = span
    width = np.where(high > low, high - low, 1)
    if references is None:
        references = rng.uniform(low, high, size=theta.shape)
    centre = np.asarray(references, dtype=np.float64)
    distance = np.linalg.norm((theta - centre) / width, axis=-1)
    distances = np.linalg.norm((samples - centre[:, None]) / width, axis=-1)
    return _pit(distance[:, None], distances[:, :, None], rng)


def _pit(theta: Array, samples: Array, rng: np.random.Generator) -> Array:
    """Place of the truth among the draws, in (0, 1), ties broken at random, (n, p).

    Uniform within the slot of its rank: exactly uniform for truths exchangeable with the draws.
    """
    below = (samples < theta[:, None]).sum(axis=1)
    equal = (samples == theta[:, None]).sum(axis=1)
    return (below + (equal + 1) * rng.random(theta.shape)) / (samples.shape[1] + 1)


def _ranks(pit: Array, n_samples: int) -> NDArray[np.int64]:
    return np.floor(pit * (n_samples + 1)).astype(np.int64)


def _span(theta: Array) -> Array:
    return np.array([theta.min(axis=0), theta.max(axis=0)])


def _scores(levels: Array) -> Array:
    """1 - 2 * the area between the levels' distribution function and the diagonal, (k,)."""
    nominal = (np.arange(1000) + 0.5) / 1000
    return 1 - 2 * np.abs(_distribution(levels, nominal) - nominal[:, None]).mean(axis=0)


def _distribution(levels: Array, at: Array) -> Array:
    """Share of the levels up to each of ``at``, (m, k)."""
    columns = [np.searchsorted(np.sort(column), at, side="right") for column in levels.T]
    return np.stack(columns, axis=1) / len(levels)


def _curve(levels: Array, confidence: float) -> tuple[Array, Array, Array, Array]:
    furthest = -ndtri((1 - min(levels.max(), 1 - 1e-15)) / 2)
    nominal = erf(np.arange(0, furthest + 0.1, 0.1) / math.sqrt(2))
    lower, upper = binomial_band(len(levels), nominal, confidence)
    return nominal, _distribution(levels, nominal), lower, upper


def binomial_band(n: int, share: Array, confidence: float) -> tuple[Array, Array]:
    """Where the share of n runs lies with this confidence, if each counts with ``share``."""
    edges = [[0.5 - confidence / 2], [0.5 + confidence / 2]]
    lower, upper = stats.binom.ppf(edges, n, share) / n
    return np.maximum(lower, 0), upper


# ---- the distribution of an empirical distribution function


def rank_grid(n_samples: int) -> tuple[NDArray[np.int64], Array]:
    """Ranks to look at, and the share of uniform ranks up to each."""
    n_points = min(n_samples, _MOST_POINTS)
    at = np.linspace(0, n_samples - 1, n_points).astype(np.int64)
    return at, (at + 1) / (n_samples + 1)


def _limits(n: int, levels: Array, tail: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return from which to which count, at each level, the two-sided p-value exceeds ``tail``."""
    half = min(0.5, tail / 2 * (1 + 1e-9))
    low, high = stats.binom.ppf(half, n, levels), n - stats.binom.ppf(half, n, 1 - levels)
    return low.astype(np.int64), high.astype(np.int64)


def _stay_probability(
    n: int, levels: Array, lower: NDArray[np.int64], upper: NDArray[np.int64]
) -> float:
    """Probability that the counts of n uniform numbers below each level stay within limits.

    Given how many lie below one level, the number between it and the next is binomial.
    """
    log_factorial = gammaln(np.arange(n + 1) + 1)
    counts, probability, before = np.zeros(1, dtype=np.int64), np.ones(1), 0.0
    for level, low, high in zip(levels, lower, upper, strict=True):
        new = np.arange(low, high + 1)
        more = new - counts[:, None]
        left = n - counts[:, None]
        share = (level - before) / (1 - before)
        allowed = more >= 0
        more = np.where(allowed, more, 0)
        log_pmf = log_factorial[left] - log_factorial[more] - log_factorial[left - more]
        log_pmf += more * math.log(share) + (left - more) * math.log1p(-share)
        probability = probability @ np.where(allowed, np.exp(log_pmf), 0)
        counts, before = new, level
    return float(probability.sum())
