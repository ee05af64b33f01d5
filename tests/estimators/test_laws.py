"""Laws of every estimator, on priors, data of every form, sizes, types and seeds by hypothesis."""

import copy
import io
import pickle

import cloudpickle
import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from answers import answers
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from skbi import (
    CMPEEstimator,
    FMPEEstimator,
    JointPrior,
    NLEEstimator,
    NPEEstimator,
    NREEstimator,
    coverage_score,
)

pytestmark = pytest.mark.filterwarnings("ignore:flow='realnvp' needs at least 2 variables")

MARGINALS = [
    st.builds(stats.uniform, st.floats(-5, 5), st.floats(0.1, 10)),
    st.builds(stats.norm, st.floats(-5, 5), st.floats(0.01, 10)),
    st.builds(stats.lognorm, st.floats(0.1, 1.5), scale=st.floats(0.1, 10)),
    st.builds(stats.halfnorm, scale=st.floats(0.1, 10)),
    st.builds(stats.gamma, st.floats(0.5, 5)),
    st.builds(stats.beta, st.floats(0.5, 3), st.floats(0.5, 3)),
    st.builds(stats.t, st.floats(2.5, 10)),
    st.builds(stats.expon, st.floats(-1, 1), st.floats(0.1, 10)),
    st.builds(stats.truncnorm, st.floats(-2, -0.5), st.floats(0.5, 2)),
]
PRIORS = st.lists(st.one_of(MARGINALS), min_size=1, max_size=3).map(
    lambda marginals: JointPrior(dict(zip("abc", marginals, strict=False)))
)
SEEDS = st.integers(0, 2**32 - 1)
DIRECT = NPEEstimator, FMPEEstimator, CMPEEstimator  # draw without a sampler
DENSITIES = NPEEstimator, NLEEstimator, FMPEEstimator
KINDS = *DIRECT, NLEEstimator, NREEstimator
FORMS = ["vectors", "sets", "ragged", "objects", "padded"]


@st.composite
def estimators(draw, kinds=KINDS):
    kind = draw(st.sampled_from(kinds))
    options = {
        "prior": draw(PRIORS),
        "hidden_layer_sizes": draw(st.lists(st.integers(1, 9), min_size=1, max_size=2)),
        "n_estimators": draw(st.integers(1, 2)),
        "batch_size": draw(st.sampled_from(["auto", 7, 1000])),
        "early_stopping": draw(st.booleans()),
        "max_iter": 1,
        "random_state": draw(SEEDS),
    }
    if kind is NREEstimator:
        options["loss"] = draw(st.sampled_from(["nre-c", "nre-a"]))
        options["sets"] = draw(st.sampled_from(["summary", "sum"]))
    elif kind in (NPEEstimator, NLEEstimator):
        options["flow"] = draw(st.sampled_from(["realnvp", "spline"]))
        options["n_transforms"] = draw(st.integers(1, 3))
    elif kind is CMPEEstimator:
        options["n_steps"] = draw(st.integers(1, 3))
    if kind is not NLEEstimator:
        options["missing"] = draw(st.sampled_from(["error", "mask"]))
    return kind(**options)


@st.composite
def pairs(draw, prior, forms=FORMS):
    """Parameters of the prior, and data of one of the forms."""
    n, d = draw(st.integers(20, 40)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(SEEDS))
    theta = prior.sample(n, random_state=rng)
    form, dtype = draw(st.sampled_from(forms)), draw(st.sampled_from([np.float64, np.float32]))
    mix, unit = rng.normal(size=(theta.shape[1], d)), 10.0 ** draw(st.integers(-6, 6))
    mean = np.arcsinh(theta) @ mix
    if form == "vectors":
        return theta, (unit * (mean + rng.normal(size=(n, d)))).astype(dtype)
    low, high = (5, 5) if form == "sets" else (1, draw(st.integers(1, 8)))
    sizes = rng.integers(low, high, n, endpoint=True)
    sets = [
        (unit * (m + rng.normal(size=(s, d)))).astype(dtype)
        for m, s in zip(mean, sizes, strict=True)
    ]
    return theta, {"sets": np.array, "ragged": list, "objects": objects, "padded": padded}[form](
        sets
    )


def objects(sets):
    array = np.empty(len(sets), dtype=object)
    array[:] = sets
    return array


def padded(sets, extra=0):
    X = np.full((len(sets), max(map(len, sets)) + extra, sets[0].shape[1]), np.nan)
    for row, x in zip(X, sets, strict=True):
        row[: len(x)] = x
    return X


@st.composite
def fits(draw, kinds=KINDS, forms=FORMS):
    """Return a fitted estimator and the pairs that it has learnt from."""
    estimator = draw(estimators(kinds))
    theta, X = draw(pairs(estimator.prior, forms))
    return estimator.fit(theta, X), theta, X


def single(X, i):
    """Return a single observation, as an array with an axis less."""
    x = X[i]
    return x[~np.isnan(x).all(axis=-1)] if x.ndim == 2 else x


@given(fit=fits(), n=st.integers(1, 4), n_samples=st.integers(1, 30))
def test_shapes(fit, n, n_samples):
    estimator, theta, X = fit
    p = theta.shape[1]
    if not isinstance(estimator, CMPEEstimator):
        assert estimator.log_prob(theta, X).shape == (len(theta),)
        assert estimator.log_prob(theta, single(X, 0)).shape == (len(theta),)
    assert isinstance(estimator.score(theta, X), float)
    assert estimator.n_parameters_in_ == p
    if isinstance(estimator, NLEEstimator):
        points = estimator.sample_likelihood(theta[:n], n_samples)
        assert points.shape == (n, n_samples, estimator.n_features_in_)
        assert np.isfinite(points).all()
    elif isinstance(estimator, DIRECT):
        assert estimator.sample_posterior(X[:n], n_samples).shape == (n, n_samples, p)
        assert estimator.sample_posterior(single(X, 0), n_samples).shape == (n_samples, p)
        assert estimator.sample_posterior([single(X, 0)], n_samples).shape == (1, n_samples, p)


@given(fit=fits(kinds=DIRECT), n=st.integers(1, 5))
def test_draws_lie_in_the_support_and_have_a_density(fit, n):
    estimator, _, X = fit
    low, high = estimator.prior.support.T
    for i, draws in enumerate(estimator.sample_posterior(X[:n], 50)):
        assert (draws > low).all()
        assert (draws < high).all()
        if not isinstance(estimator, CMPEEstimator):
            assert np.isfinite(estimator.log_prob(draws, single(X, i))).all()


@given(fit=fits(kinds=[*DENSITIES, NREEstimator]), step=st.floats(1e-9, 1e3))
def test_outside_the_support_there_is_no_density(fit, step):
    estimator, theta, X = fit
    for j, bounds in enumerate(estimator.prior.support):
        for bound, sign in zip(bounds, (-1, 1), strict=True):
            if np.isfinite(bound):
                moved = theta.copy()
                moved[:, j] = bound + sign * step
                assume((moved[:, j] != bound).all())
                assert (estimator.log_prob(moved, X) == -np.inf).all()


@given(fit=fits(forms=["sets", "ragged", "objects", "padded"]), seed=SEEDS)
def test_the_order_of_points_and_padding_change_nothing(fit, seed):
    estimator, theta, X = fit
    rng = np.random.default_rng(seed)
    sets = [single(X, i) for i in range(len(theta))]
    expected = answers(estimator, theta, X)
    for same in (sets, objects(sets), padded(sets, 3), [rng.permutation(x) for x in sets]):
        np.testing.assert_allclose(answers(estimator, theta, same), expected, atol=1e-5)


@given(fit=fits(kinds=[*DENSITIES, NREEstimator]))
def test_a_batch_is_its_observations_one_by_one(fit):
    estimator, theta, X = fit
    expected = [estimator.log_prob(t[None], single(X, i))[0] for i, t in enumerate(theta[:5])]
    np.testing.assert_allclose(estimator.log_prob(theta, X)[:5], expected, atol=1e-5)


@given(data=st.data(), estimator=estimators())
def test_the_random_state_decides_and_the_global_generators_rest(data, estimator):
    theta, X = data.draw(pairs(estimator.prior))
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    first = answers(estimator.fit(theta, X), theta, X)
    again = copy.deepcopy(estimator).fit(theta, X)
    np.testing.assert_array_equal(answers(again, theta, X), first)
    if isinstance(estimator, DIRECT):
        seed = data.draw(SEEDS)
        draws = [estimator.sample_posterior(X, 3, random_state=seed) for _ in range(2)]
        np.testing.assert_array_equal(*draws)
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])


@given(fit=fits())
def test_a_pickle_is_the_estimator(fit):
    estimator, theta, X = fit
    expected = answers(estimator, theta, X)
    file = io.BytesIO()
    joblib.dump(estimator, file)
    file.seek(0)
    copies = [pickle.loads(pickle.dumps(estimator)), copy.deepcopy(estimator), joblib.load(file)]
    for twin in [*copies, cloudpickle.loads(cloudpickle.dumps(estimator))]:
        np.testing.assert_array_equal(answers(twin, theta, X), expected)
        assert repr(twin) == repr(estimator)


@given(data=st.data(), estimator=estimators(), factor=st.sampled_from([1e-3, 7.0]))
def test_weights_are_relative_and_pairs_without_weight_do_not_count(data, estimator, factor):
    theta, X = data.draw(pairs(estimator.prior, ["vectors", "sets"]))
    rng = np.random.default_rng(data.draw(SEEDS))
    weights = rng.integers(0, 3, len(theta)).astype(float)
    assume((weights > 0).sum() >= 10)
    kept = weights > 0
    expected = copy.deepcopy(estimator).fit(theta[kept], X[kept], weights[kept])
    theta_bad, X_bad = theta.copy(), X.copy()
    theta_bad[~kept] = theta[kept][0]
    X_bad[~kept] = np.nan
    found = estimator.fit(theta_bad, X_bad, factor * weights)
    np.testing.assert_allclose(
        answers(found, theta[kept], X[kept]), answers(expected, theta[kept], X[kept]), atol=1e-3
    )
    equal = copy.deepcopy(estimator).fit(theta, X, np.full(len(theta), factor))
    none = copy.deepcopy(estimator).fit(theta, X)
    np.testing.assert_array_equal(answers(equal, theta, X), answers(none, theta, X))


@given(fit=fits(kinds=DENSITIES), weights_seed=SEEDS)
def test_the_score_is_the_weighted_mean(fit, weights_seed):
    estimator, theta, X = fit
    log_q = estimator.log_prob(theta, X)
    assert np.isclose(estimator.score(theta, X), log_q.mean())
    weights = np.random.default_rng(weights_seed).integers(1, 4, len(theta))
    repeated = np.repeat(log_q, weights).mean()
    assert np.isclose(estimator.score(theta, X, sample_weight=weights), repeated)


@given(
    fit=fits(kinds=[NPEEstimator, FMPEEstimator]),
    kind=st.sampled_from(["rank", "sigma", "hpd", "tarp"]),
    n_samples=st.integers(2, 40),
    seed=SEEDS,
)
def test_coverage_scores_lie_between_zero_and_one(fit, kind, n_samples, seed):
    options = {"n_samples": n_samples, "kind": kind, "random_state": seed}
    assert 0 <= coverage_score(*fit, **options) <= 1


@given(data=st.data(), estimator=estimators())
def test_frames_are_arrays_with_names(data, estimator):
    theta, X = data.draw(pairs(estimator.prior, ["vectors"]))
    names = [f"x{j}" for j in range(X.shape[1])]
    frames = pd.DataFrame(theta, columns=estimator.prior.names), pd.DataFrame(X, columns=names)
    named = copy.deepcopy(estimator).fit(*frames)
    assert named.feature_names_in_.tolist() == names
    assert named.parameter_names_in_.tolist() == list(estimator.prior.names)
    expected = answers(estimator.fit(theta, X), theta, X)
    np.testing.assert_array_equal(answers(named, *frames), expected)
