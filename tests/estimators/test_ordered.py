"""Laws of estimators of series and images: every form of X, padding, masks, errors, files."""

import pickle
from functools import cache

import numpy as np
import pandas as pd
import pytest
import skops.io
from answers import answers
from scipy import stats

import skbi
from skbi import (
    CMPEEstimator,
    FMPEEstimator,
    JointPrior,
    NLEEstimator,
    NPEEstimator,
    NREEstimator,
    coverage_score,
)
from skbi.estimators.ordered import OrderedSummary

KINDS = [NPEEstimator, NREEstimator, FMPEEstimator, CMPEEstimator]
PRIOR = JointPrior({"phi": stats.uniform(-0.9, 1.8), "sigma": stats.lognorm(0.5)})
THETA = PRIOR.sample(40, random_state=0)
RNG = np.random.default_rng(1)
NOISE = RNG.normal(size=(12, 40))
kinds = pytest.mark.parametrize("kind", KINDS)


def autoregressive():
    """Return series (40, 12)."""
    x = [NOISE[0]]
    for step in NOISE[1:]:
        x.append(THETA[:, 0] * x[-1] + THETA[:, 1] * step)
    return np.array(x).T


SERIES = autoregressive()
LENGTHS = RNG.integers(3, 12, 40, endpoint=True)
RAGGED = [x[:length] for x, length in zip(SERIES, LENGTHS, strict=True)]
GAPPED = np.where(RNG.random(SERIES.shape) < 0.1, np.nan, SERIES)
GAPPED[:, [0, -1]] = SERIES[:, [0, -1]]
FORMS = {
    "series": ("series", SERIES),
    "channels": ("series", SERIES.reshape(40, 6, 2)),
    "ragged": ("series", RAGGED),
    "images": ("image", SERIES.reshape(40, 4, 3)),
    "colours": ("image", SERIES.reshape(40, 2, 3, 2)),
}
forms = pytest.mark.parametrize("form", FORMS)


def quick(kind, **options):
    """Return a small, unfitted estimator."""
    small = {"hidden_layer_sizes": (8,), "n_summary_features": 4, "max_iter": 1, "n_estimators": 1}
    return kind(prior=PRIOR, random_state=0, **{**small, **options})


@cache
def fitted(kind, form, missing="error"):
    summary, X = FORMS[form]
    return quick(kind, summary=summary, missing=missing).fit(THETA, X)


def padded(series, extra=0):
    X = np.full((len(series), max(map(len, series)) + extra, *series[0].shape[1:]), np.nan)
    for row, x in zip(X, series, strict=True):
        row[: len(x)] = x
    return X


@kinds
@forms
def test_one_observation_or_many(kind, form):
    estimator, X = fitted(kind, form), FORMS[form][1]
    assert estimator.n_features_in_ == (2 if form in ("channels", "colours") else 1)
    batch = answers(estimator, THETA[:5], X[:5])
    if kind is not CMPEEstimator:
        one = [estimator.log_prob(t[None], x)[0] for t, x in zip(THETA[:5], X[:5], strict=True)]
        np.testing.assert_allclose(batch, one, atol=1e-5)
    assert np.isfinite(batch).all()
    if kind is not NREEstimator:
        assert estimator.sample_posterior(X[0], 3).shape == (3, 2)
        assert estimator.sample_posterior(X[:2], 3).shape == (2, 3, 2)
        assert estimator.sample_posterior([X[0]], 3).shape == (1, 3, 2)


@kinds
def test_every_way_to_write_series_is_the_same(kind):
    expected = answers(fitted(kind, "ragged"), THETA, RAGGED)
    objects = np.empty(40, dtype=object)
    objects[:] = RAGGED
    for same in (tuple(RAGGED), objects, padded(RAGGED), padded(RAGGED, 7)):
        found = answers(fitted(kind, "ragged"), THETA, same)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        again = quick(kind, summary="series").fit(THETA, same)
        np.testing.assert_allclose(answers(again, THETA, same), expected, atol=1e-5)
    columns = [x[:, None] for x in RAGGED]
    again = quick(kind, summary="series").fit(THETA, columns)
    np.testing.assert_allclose(answers(again, THETA, padded(columns, 2)), expected, atol=1e-5)


@kinds
@forms
def test_the_order_counts(kind, form):
    estimator, X = fitted(kind, form), FORMS[form][1]
    turned = [x[::-1] for x in X] if form == "ragged" else X[:, ::-1]
    change = answers(estimator, THETA, turned) - answers(estimator, THETA, X)
    assert np.abs(change).max() > 1e-4


def test_frames_of_series_have_times_and_no_features():
    npe = quick(NPEEstimator, summary="series").fit(THETA, pd.DataFrame(SERIES))
    assert not hasattr(npe, "feature_names_in_")
    shorter = SERIES[:, :8]
    with pytest.warns(UserWarning, match="it has 8 times, and training had 12 to 12"):
        found = [npe.log_prob(THETA, X) for X in (pd.DataFrame(shorter), shorter)]
    np.testing.assert_array_equal(*found)


@kinds
@pytest.mark.parametrize("order", ["series", "image"])
def test_missing_entries_are_masked(kind, order):
    X = GAPPED if order == "series" else GAPPED.reshape(40, 4, 3)
    with pytest.raises(ValueError, match=r"missing values \(NaN\) in rows .*missing='mask'"):
        quick(kind, summary=order).fit(THETA, X)
    estimator = quick(kind, summary=order, missing="mask").fit(THETA, X)
    found = answers(estimator, THETA, X)
    assert np.isfinite(found).all()
    at_mean = np.where(np.isnan(X), np.nanmean(X), X)  # which is not the same as being missing
    assert np.abs(answers(estimator, THETA, at_mean) - found).max() > 1e-6


@kinds
def test_lengths_that_are_not_those_of_training_are_reported(kind):
    estimator = fitted(kind, "ragged")
    longest = max(RAGGED, key=len)
    longer = np.append(longest, longest[:2])
    with pytest.warns(UserWarning, match=r"1 of 2 series .* row 1: it has 14 times.* 3 to 12"):
        estimator.score(THETA[:2], [longest, longer])


PAIRS = {
    "one series": ("series", SERIES[0], r"series \(n, T\).*got shape \(12,\).*X\[None\]"),
    "4-D series": ("series", SERIES[None, None], r"series \(n, T, c\).*\(1, 1, 40, 12\)"),
    "channels of two kinds": ("series", [*RAGGED[:39], np.ones((3, 2))], r"every one \(T_i, c\)"),
    "a series of nothing": (
        "series",
        [*RAGGED[:39], np.full(3, np.nan)],
        r"one value; series \[39",
    ),
    "an empty series": ("series", [*RAGGED[:39], np.ones(0)], r"at least one value; series \[39\]"),
    "one image": ("image", SERIES[0].reshape(4, 3), r"images \(n, H, W\).*\(4, 3\).*X\[None\]"),
    "images of two sizes": ("image", [np.ones((2, 2))] * 39 + [np.ones((2, 3))], "real numbers"),
    "no rows": ("image", np.ones((40, 0, 3)), "have no rows"),
    "no columns": ("image", np.ones((40, 3, 0)), r"0 feature\(s\)"),
    "infinite": ("series", np.where(SERIES[3, 2] == SERIES, np.inf, SERIES), "infinite.*row 3"),
}


@pytest.mark.parametrize("case", PAIRS)
def test_wrong_input_is_refused_before_training(case):
    summary, X, message = PAIRS[case]
    for kind in KINDS:
        with pytest.raises(ValueError, match=f"(?s){message}"):
            quick(kind, summary=summary).fit(THETA, X)


OBSERVATIONS = {
    "a number": ("series", 1.0, r"fitted on series \(n, T\)"),
    "too many axes": ("series", SERIES.reshape(40, 6, 2), r"series \(n, T\).*\(40, 6, 2\)"),
    "too few axes": ("channels", SERIES[0], r"series \(n, T, c\).*with 1 axes"),
    "too few channels": ("channels", np.ones((5, 6, 1)), "1 features, .* expecting 2"),
    "another size": ("images", np.ones((2, 4, 4)), "size of fit, 4 x 3; got 4 x 4"),
    "too few colours": ("colours", np.ones((2, 2, 3, 3)), "3 features, .* expecting 2"),
    "a vector": ("images", SERIES[0], r"images \(n, H, W\); got \(12,\)"),
    "a gap": ("series", GAPPED, "missing values"),
}


@kinds
@pytest.mark.parametrize("case", OBSERVATIONS)
def test_observations_unlike_those_of_fit(kind, case):
    form, X_obs, message = OBSERVATIONS[case]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        fitted(kind, form).sample_posterior(X_obs)


def test_points_that_add_up_have_no_order():
    with pytest.raises(ValueError, match=r"sets='sum'.*summary='series'"):
        quick(NREEstimator, summary="series", sets="sum").fit(THETA, SERIES)


def test_a_likelihood_of_series_is_one_of_pairs():
    with pytest.raises(TypeError, match="summary"):
        NLEEstimator(summary="series")


@kinds
@pytest.mark.parametrize("form", ["ragged", "colours"])
def test_files_and_jobs_change_nothing(kind, form):
    estimator, X = fitted(kind, form), FORMS[form][1]
    expected = answers(estimator, THETA, X)
    opened = skops.io.loads(skops.io.dumps(estimator), trusted=skbi.TRUSTED_TYPES)
    for twin in (opened, pickle.loads(pickle.dumps(estimator))):
        np.testing.assert_array_equal(answers(twin, THETA, X), expected)
    if kind is not NREEstimator:
        scores = [
            coverage_score(estimator, THETA, X, n_samples=9, random_state=0, n_jobs=n_jobs)
            for n_jobs in (1, 2)
        ]
        assert scores[0] == scores[1]


@kinds
def test_training_goes_on_with_data_of_the_same_form(kind):
    estimator = quick(kind, summary="image", warm_start=True).fit(THETA, FORMS["images"][1])
    estimator.fit(THETA, FORMS["images"][1])
    with pytest.raises(ValueError, match="size of fit, 4 x 3; got 3 x 4"):
        estimator.fit(THETA, SERIES.reshape(40, 3, 4))
    with pytest.raises(ValueError, match="'summary'"):
        estimator.set_params(summary="series").fit(THETA, SERIES.reshape(40, 4, 3))
    with pytest.raises(ValueError, match="'missing'"):
        estimator.set_params(summary="image", missing="mask").fit(THETA, FORMS["images"][1])


def test_weights_and_the_random_state():
    X = FORMS["ragged"][1]
    weights = np.tile([0, 1, 2], 14)[:40]
    first = quick(FMPEEstimator, summary="series").fit(THETA, X, weights)
    kept = np.flatnonzero(weights)
    again = quick(FMPEEstimator, summary="series")
    again.fit(THETA[kept], [X[i] for i in kept], weights[kept])
    np.testing.assert_array_equal(first.log_prob(THETA, X), again.log_prob(THETA, X))


def test_the_posterior_of_an_autoregressive_series_is_the_exact_one():
    """The correlation phi of 20 to 60 values of unit innovations, whose start is stationary."""
    rng = np.random.default_rng(0)
    prior = JointPrior({"phi": stats.uniform(-0.9, 1.8)})

    def simulate(n):
        phi = prior.sample(n, random_state=rng)
        x = [rng.normal(size=n) / np.sqrt(1 - phi[:, 0] ** 2)]
        for step in rng.normal(size=(59, n)):
            x.append(phi[:, 0] * x[-1] + step)
        lengths = rng.integers(20, 60, n, endpoint=True)
        return phi, [row[:length] for row, length in zip(np.array(x).T, lengths, strict=True)]

    def log_likelihood(phi, x):
        steps = x[1:] - phi * x[:-1]
        left = 1 - phi**2
        return (0.5 * np.log(left) - 0.5 * left * x[0] ** 2)[:, 0] - 0.5 * (steps**2).sum(axis=1)

    npe = NPEEstimator(prior=prior, summary="series", n_estimators=2, max_iter=8, random_state=0)
    npe.fit(*simulate(2000))
    phi, X = simulate(300)
    grid = np.linspace(-0.9, 0.9, 362)[1:-1, None]
    exact = [
        log_likelihood(truth[None], x)[0] - np.log(np.exp(log_likelihood(grid, x)).mean() * 1.8)
        for truth, x in zip(phi, X, strict=True)
    ]
    assert np.mean(exact) - npe.score(phi, X) < 0.15  # nats, of the 1.24 that a series tells
    assert coverage_score(npe, phi, X, n_samples=200, random_state=0) > 0.93


def test_proposals_are_of_vectors():
    nre, npe = fitted(NREEstimator, "series"), fitted(NPEEstimator, "series")
    with pytest.raises(ValueError, match="'importance' draws from proposals of vectors"):
        nre.sample_posterior(SERIES[0], 5, sampler="importance", proposal=npe)


def test_training_pairs_are_read_by_the_predictor_that_has_not_seen_them():
    npe, training, rng = quick(NPEEstimator, summary="series"), np.arange(30), np.random.default_rng
    npe.set_params(max_iter=20)
    summary, vectors = OrderedSummary.fit(npe, SERIES, THETA, training, rng(0))
    assert len(summary.weights) == 2
    seen, both = vectors[:30], summary.transform(SERIES)
    n_moments = len(summary.kept)
    np.testing.assert_array_equal(vectors[30:], both[30:])
    np.testing.assert_array_equal(seen[:, :n_moments], both[:30, :n_moments])
    for half in (0, 1):  # its own theta say nothing of a half
        rows = np.arange(15) + 15 * half
        changed = THETA.copy()
        changed[rows] = changed[rows[::-1]]
        again = OrderedSummary.fit(npe, SERIES, changed, training, rng(0))[1]
        np.testing.assert_array_equal(again[rows], vectors[rows])
        others = np.setdiff1d(training, rows)
        assert np.abs(again[others] - vectors[others]).max() > 1e-3


def test_discrete_parameters_of_a_ratio_and_a_single_training_pair():
    prior = JointPrior({"on": stats.bernoulli(0.5), "sigma": stats.lognorm(0.5)})
    theta = prior.sample(40, random_state=0)
    nre = quick(NREEstimator, summary="series").set_params(prior=prior)
    assert np.isfinite(nre.fit(theta, SERIES).log_prob(theta, SERIES)).all()
    few = quick(NPEEstimator, summary="series").fit(THETA[:2], SERIES[:2])
    assert np.isfinite(few.log_prob(THETA[:2], SERIES[:2])).all()


def test_no_pairs_are_made_of_series():
    with pytest.raises(ValueError, match=r"needs vectors.*got series or images"):
        quick(NPEEstimator, summary="series", augment=5).fit(THETA, SERIES)


@pytest.mark.parametrize("ragged", [False, True])
def test_a_channel_that_never_falls_is_a_clock(ragged):
    """Unless its steps are all the same: lags tell as much then."""
    rng = np.random.default_rng(0)
    times = rng.exponential(size=(60, 30)).cumsum(axis=1)
    values = rng.normal(size=(60, 30))

    def found(*channels):
        X = np.stack(channels, axis=2)
        X = [x[: 10 + i % 20] for i, x in enumerate(X)] if ragged else X
        options = {"summary": "series", "max_iter": 1, "n_estimators": 1, "random_state": 0}
        npe = NPEEstimator(**options, n_transforms=1).fit(rng.normal(size=(60, 1)), X)
        return npe.summary_transformer_

    clocked = found(values, times)
    assert clocked.clock == 1
    scale = clocked.features.scale[1]
    gaps = np.diff(times, axis=1).ravel()
    assert gaps.min() < clocked.bounds[0] * scale < np.median(gaps) < clocked.bounds[-1] * scale
    assert found(values, np.tile(np.arange(30.0), (60, 1))).clock is None
    assert found(values, -times).clock is None


def test_a_detector_that_fails_for_good_is_no_clock():
    """Flags of missing entries never fall then, and their steps differ."""
    values = np.random.default_rng(0).normal(size=(40, 30, 2))
    for i, series in enumerate(values):
        series[10 + i % 15 :, 1] = np.nan
    npe = quick(NPEEstimator, summary="series", missing="mask").fit(THETA, values)
    assert npe.summary_transformer_.clock is None
