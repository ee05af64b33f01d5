"""Classifier two-sample tests (C2ST): how well a classifier tells two samples apart.

The local test (L-C2ST) tells the truths theta of simulations x from draws theta' ~ q(. | x). With d
the probability of "truth" that the classifier gives, its statistic at an observation x_o is

    mean over theta' ~ q(. | x_o) of (d(theta', x_o) - 1/2)^2,

which is zero if q(. | x_o) is the posterior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin, clone
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.model_selection import KFold
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from skbi.calibration.observations import feature_tables, sample_observations
from skbi.calibration.recovery import Recovery, recover
from skbi.calibration.runs import fitted_estimator, parameter_names
from skbi.parallel import progress_options
from skbi.randomness import RandomState, as_generator

__all__ = ["LocalTest", "c2st_score", "lc2st", "run_local_test"]

_N_DRAWS = 100  # of each simulation's posterior
_MAX_FEATURES = 20  # of an observation, beyond which principal components take their place


def c2st_score(
    a: ArrayLike,
    b: ArrayLike,
    *,
    classifier: str = "mlp",
    cv: int = 5,
    n_jobs: int | None = None,
    random_state: RandomState = None,
) -> float:
    """Measure how well a classifier tells two samples apart: 0.5 if they are alike, 1 at most.

    The columns are standardised by the first sample, and the accuracy is cross-validated. Compare
    scores of the same classifier only: either may see differences that the other does not.

    Parameters
    ----------
    a, b : array-like, shape (n, p)
        The two samples. They should be of about the same length, because guessing the longer one
        is right for its share of the rows. ``a`` is the reference, which sets the units.
    classifier : {"mlp", "forest"}, default="mlp"
        "mlp" is the classifier of the published SBI benchmark [1]_: a perceptron with two hidden
        layers of 10 p units each. "forest" is scikit-learn's random forest with its defaults, the
        classifier of ``c2st`` in the package sbi 0.27. It recognises rows that repeat: draws that
        were resampled with replacement score badly.
    cv : int, default=5
        Number of folds of the cross-validation.
    n_jobs : int or None, default=None
        Number of folds in parallel, through joblib. The result does not depend on it.
    random_state : int, Generator, RandomState or None, default=None
        The only source of randomness.

    Returns
    -------
    float
        Mean accuracy on held-out rows. Lower is better.

    Raises
    ------
    ValueError
        If the samples differ in width, are not finite, or have fewer than ``cv`` rows, or if there
        is no such classifier.

    See Also
    --------
    lc2st : A test at an observation, without reference draws.

    References
    ----------
    .. [1] Lueckmann et al., Benchmarking simulation-based inference, 2021,
       https://arxiv.org/abs/2101.04653
    .. [2] Lopez-Paz and Oquab, Revisiting classifier two-sample tests, 2016,
       https://arxiv.org/abs/1610.06545

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.normal(size=(2, 200, 2))
    >>> c2st_score(a, b, random_state=0) < 0.6, c2st_score(a, b + 5, random_state=0) > 0.99
    (True, True)
    """
    a, b = _check_samples(a, b, cv)
    rng = as_generator(random_state)
    sd = a.std(axis=0)
    rows = (np.vstack([a, b]) - a.mean(axis=0)) / np.where(sd > 0, sd, 1)
    labels = np.repeat([0, 1], [len(a), len(b)])
    seeds = rng.integers(2**31, size=2).tolist()
    unfitted = _unfitted(classifier, a.shape[1], seeds[0])
    folds = KFold(cv, shuffle=True, random_state=seeds[1]).split(rows)
    accuracies = Parallel(n_jobs=n_jobs)(
        delayed(_accuracy)(clone(unfitted), rows, labels, *fold) for fold in folds
    )
    return float(np.mean(accuracies))


def _unfitted(classifier: str, n_features: int, seed: int) -> ClassifierMixin:
    if classifier == "mlp":
        return MLPClassifier((10 * n_features,) * 2, max_iter=10_000, random_state=seed)
    if classifier == "forest":
        return RandomForestClassifier(random_state=seed)
    raise ValueError(f'classifier must be "mlp" or "forest"; got {classifier!r}.')


def _check_samples(
    a: ArrayLike, b: ArrayLike, cv: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = (np.asarray(sample, dtype=np.float64) for sample in (a, b))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(
            f"a and b must be samples (n, p) of the same width; got shapes {a.shape}, {b.shape}."
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("a and b must be finite.")
    if min(len(a), len(b)) < cv:
        raise ValueError(f"Each sample needs at least cv={cv} rows; got {len(a)} and {len(b)}.")
    return a, b


def _accuracy(
    classifier: ClassifierMixin,
    rows: NDArray[np.float64],
    labels: NDArray[np.int64],
    train: NDArray[np.int64],
    test: NDArray[np.int64],
) -> float:
    """Train on one part of the rows and return the accuracy on the other."""
    with threadpool_limits(1):  # so that sums round in the same way in every worker
        return float(classifier.fit(rows[train], labels[train]).score(rows[test], labels[test]))


@dataclass(frozen=True, eq=False)
class LocalTest:
    """What `lc2st` found at each observation.

    Attributes
    ----------
    statistic : ndarray, shape (n_obs,)
        Mean of (d - 1/2)^2 over the draws of the observation's posterior, between 0 and 1/4.
    p_value : ndarray, shape (n_obs,)
        Share of the statistics under the null hypothesis that are at least as large, of which the
        statistic itself is one: at least 1 / (n_null + 1).
    null_statistics : ndarray, shape (n_null, n_obs)
        The statistics of classifiers that were trained with truths and draws exchanged at random.
    probabilities : ndarray, shape (n_obs, n_samples)
        d, the probability of being a truth, of every draw. Below 1/2 the posterior has too much
        density there, above it too little.
    samples : ndarray, shape (n_obs, n_samples, p)
        The draws.
    names : list of p str
        Names of the parameters.
    """

    statistic: NDArray[np.float64]
    p_value: NDArray[np.float64]
    null_statistics: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    samples: NDArray[np.float64]
    names: Sequence[str]

    def __repr__(self) -> str:
        rows = zip(self.statistic, self.p_value, strict=True)
        return "\n".join(
            f"observation {i}: L-C2ST statistic {t:.4f}, p = {p:.3g}"
            for i, (t, p) in enumerate(rows)
        )


def lc2st(
    estimator: Any,
    theta: ArrayLike,
    X: Any,
    X_obs: Any,
    *,
    n_samples: int = 1000,
    n_null: int = 100,
    classifier: ClassifierMixin | None = None,
    names: Sequence[str] | None = None,
    n_jobs: int | None = None,
    random_state: RandomState = None,
    verbose: int | str = "auto",
) -> LocalTest:
    """Test whether the posterior is right at an observation (local C2ST).

    Coverage and ranks average over the prior, so that errors of opposite sign may hide each other.
    Here a classifier learns to tell truths from posterior draws, given their simulation, and is
    then asked about the draws at the observation, where no truth is known.

    The null hypothesis is that no classifier can tell them apart. Its distribution comes from
    classifiers that are trained with truth and draw of every pair exchanged with probability 1/2.
    They do not depend on the observation and are fitted once, for any number of observations. Under
    an exact posterior the p-values are uniform for any number of pairs.

    Parameters
    ----------
    estimator : object with ``sample_posterior(X, n_samples, random_state=seed)``
        As of `coverage_score`.
    theta : array-like or DataFrame, shape (n, p)
        The truths of simulations that were held out from training, drawn from the prior. A thousand
        or more are needed to see moderate errors.
    X : array-like or sequence of n observations
        The simulations.
    X_obs : array-like
        One observation or a batch, as in ``sample_posterior``.
    n_samples : int, default=1000
        Draws for each observation. Each simulation gets 100, whose mean and standard deviation
        standardise its truth and the draw that stands against it.
    n_null : int, default=100
        Number of classifiers under the null hypothesis. The smallest p-value is 1 / (n_null + 1).
    classifier : scikit-learn classifier with ``predict_proba``, optional
        It is cloned, and seeded if it has a parameter ``random_state``. Its features are theta in
        posterior standard deviations from the posterior mean, and the observation: vectors of up
        to 20 features as they are, others by their principal components, sets by the moments of
        their columns. By default it is `HistGradientBoostingClassifier` with 30 trees.
    names : sequence of str, optional
        Names of the parameters; by default the estimator's.
    n_jobs : int or None, default=None
        Number of parallel jobs, through joblib. The result does not depend on it.
    random_state : int, Generator, RandomState or None, default=None
        The only source of randomness.
    verbose : int or "auto", default="auto"
        1 shows a progress bar, 0 none; "auto" shows one on a terminal, of what takes more than 5
        seconds.

    Returns
    -------
    LocalTest
        With ``statistic`` and ``p_value``, arrays (n_obs,).

    Raises
    ------
    TypeError
        If the classifier has no ``predict_proba``.
    ValueError
        If an option or an array cannot be used.

    See Also
    --------
    LC2STDisplay : Where the posterior is wrong.
    c2st_score : Two samples, without observations.

    References
    ----------
    Linhart et al., L-C2ST: Local diagnostics for posterior approximations in simulation-based
    inference, 2023, https://arxiv.org/abs/2306.03580.

    Examples
    --------
    The prior is calibrated on average over x, and wrong at every single one:

    >>> class Ignorant:  # theta ~ N(0, 1), x ~ N(theta, 1)
    ...     def sample_posterior(self, X, n_samples, *, random_state=None):
    ...         return np.random.default_rng(random_state).normal(size=(len(X), n_samples, 1))
    >>> rng = np.random.default_rng(0)
    >>> theta = rng.normal(size=(1000, 1))
    >>> X = theta + rng.normal(size=(1000, 1))
    >>> lc2st(Ignorant(), theta, X, [[1.0]], n_null=19, random_state=0).p_value.tolist()
    [0.05]
    """
    estimator, rng = fitted_estimator(estimator), as_generator(random_state)
    options = {"n_jobs": n_jobs, "verbose": verbose}
    recovery = recover(estimator, theta, X, n_samples=_N_DRAWS, random_state=rng, **options)
    drawn = sample_observations(estimator, X_obs, n_samples, rng)
    names = parameter_names(drawn.samples.shape[2], names, estimator)
    options |= {"kind": getattr(estimator, "summary", None), "names": names, "random_state": rng}
    return run_local_test(
        recovery, X, drawn.samples, drawn.X_obs, n_null=n_null, classifier=classifier, **options
    )


def run_local_test(
    recovery: Recovery,
    X: Any,
    samples: NDArray[np.float64],
    X_obs: Any,
    *,
    names: Sequence[str],
    kind: Any = None,
    n_null: int = 100,
    classifier: ClassifierMixin | None = None,
    n_jobs: int | None = None,
    random_state: RandomState = None,
    verbose: int | str = 0,
) -> LocalTest:
    """Run `lc2st` on draws that are there.

    Parameters
    ----------
    recovery : Recovery
        Of n simulations.
    X : n observations
        The simulations.
    samples : ndarray, shape (n_obs, n_samples, p)
        Draws at each observation of the batch ``X_obs``.
    names, n_null, classifier, n_jobs, random_state, verbose
        As in `lc2st`.
    kind : str, optional
        As of `feature_tables`.

    Returns
    -------
    LocalTest
    """
    if n_null < 1:
        raise ValueError(f"n_null must be at least 1; got {n_null}.")
    classifier = _check_classifier(classifier)
    rng = as_generator(random_state)
    seeds = rng.integers(2**31, size=n_null + 1).tolist()
    exchanged = rng.random((n_null + 1, len(recovery.theta))) < 0.5
    exchanged[0] = False
    seen, seen_obs = _standardised_features(X, X_obs, kind)
    truths, draws = (_standardise(x, recovery) for x in (recovery.theta, recovery.draw))
    n_samples = samples.shape[1]
    asked = np.hstack([_own_units(samples), np.repeat(seen_obs, n_samples, axis=0)])
    fit = partial(_probabilities, classifier, truths, draws, seen, asked)
    parallel = Parallel(n_jobs=n_jobs, return_as="generator")
    tasks = (delayed(fit)(swap, seed) for swap, seed in zip(exchanged, seeds, strict=True))
    bar = tqdm(parallel(tasks), "L-C2ST", n_null + 1, unit="fit", **progress_options(verbose))
    d = np.stack(list(bar)).reshape(n_null + 1, len(samples), n_samples)
    statistics = ((d - 0.5) ** 2).mean(axis=2)
    p_value = (statistics >= statistics[0]).mean(axis=0)
    return LocalTest(statistics[0], p_value, statistics[1:], d[0], samples, names)


def _check_classifier(classifier: ClassifierMixin | None) -> ClassifierMixin:
    if classifier is None:
        return HistGradientBoostingClassifier(max_iter=30, max_leaf_nodes=8)
    if not hasattr(classifier, "predict_proba"):
        raise TypeError(
            "classifier must be a classifier of scikit-learn with predict_proba; got "
            f"{classifier!r}. Of an SVC, say probability=True."
        )
    return classifier


def _standardise(theta: NDArray[np.float64], recovery: Recovery) -> NDArray[np.float64]:
    """Return theta in posterior standard deviations from the posterior mean."""
    return (theta - recovery.mean) / np.where(recovery.sd > 0, recovery.sd, 1)


def _own_units(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standardise draws (n_obs, n_samples, p) by their own moments, one a row."""
    sd = samples.std(axis=1, keepdims=True, ddof=1)
    scaled = (samples - samples.mean(axis=1, keepdims=True)) / np.where(sd > 0, sd, 1)
    return scaled.reshape(-1, samples.shape[2])


def _standardised_features(
    X: Any, X_obs: Any, kind: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return standardised features of simulations (n, k) and of observations (n_obs, k)."""
    tables, _ = feature_tables(X, X_obs, kind=kind)
    scale = StandardScaler().fit(tables[0])
    seen, seen_obs = (np.nan_to_num(scale.transform(table)) for table in tables)
    if seen.shape[1] <= _MAX_FEATURES:
        return seen, seen_obs
    projection = PCA(min(_MAX_FEATURES, len(seen)), svd_solver="full").fit(seen)
    return projection.transform(seen), projection.transform(seen_obs)


def _probabilities(
    classifier: ClassifierMixin,
    truths: NDArray[np.float64],
    draws: NDArray[np.float64],
    seen: NDArray[np.float64],
    asked: NDArray[np.float64],
    exchanged: NDArray[np.bool_],
    seed: int,
) -> NDArray[np.float64]:
    """Train on truths against draws, some pairs exchanged; return P(truth) of what is asked."""
    swap = exchanged[:, None]
    first, second = np.where(swap, draws, truths), np.where(swap, truths, draws)
    rows = np.vstack([np.hstack([first, seen]), np.hstack([second, seen])])
    labels = np.repeat([1, 0], len(seen))
    unfitted = clone(classifier)
    seeded = {name: seed for name in unfitted.get_params() if name.endswith("random_state")}
    with threadpool_limits(1):  # so that sums round in the same way in every worker
        return unfitted.set_params(**seeded).fit(rows, labels).predict_proba(asked)[:, 1]
