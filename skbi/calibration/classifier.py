"""C2ST: the classifier two-sample test, the accuracy with which two samples are told apart."""

from __future__ import annotations

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin, clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import KFold
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from skbi.randomness import RandomState, as_generator

__all__ = ["c2st_score"]


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
