"""Which pairs train and which validate, and the plan that options make of them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skbi import NLEEstimator, NPEEstimator
from skbi.estimators.pairs import TrainingData, plan_training, split_pairs
from skbi.preprocessing import pack


def data(n, d=2, fitted=()):
    X = pack(np.zeros((n, d)))
    pairs = np.arange(n)
    return TrainingData(np.zeros((n, 1)), X, None, np.ones(n), pairs, None, pairs, fitted=fitted)


@given(n=st.integers(2, 500), fraction=st.floats(0.01, 0.49))
def test_every_pair_trains_or_validates(n, fraction):
    training, validation = split_pairs(n, fraction, np.random.default_rng(0))
    assert sorted([*training, *validation]) == list(range(n))
    assert len(validation) == np.ceil(fraction * n)
    assert split_pairs(n, None, np.random.default_rng(0))[1] is None


def test_too_few_pairs_are_an_error_with_a_remedy():
    with pytest.raises(ValueError, match="At least 2"):
        split_pairs(1, 0.1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="lower it"):
        split_pairs(2, 0.9, np.random.default_rng(0))


def test_rows_belong_to_pairs():
    owners = np.array([0, 0, 1, 2, 2])
    points = TrainingData(None, None, None, None, None, None, owners)
    assert points.rows_of(np.array([0, 2])).tolist() == [0, 1, 3, 4]


def with_outlier(sets=False, row=17):
    rng = np.random.default_rng(0)
    X = rng.normal(3, 2, size=(400, 2))
    X[row, 1] = -1e12
    packed = pack(list(X.reshape(100, 4, 2))) if sets else pack(X)
    owners = packed.owners() if sets else np.arange(400)
    n = len(packed)
    training, validation = split_pairs(n, 0.1, rng)
    return TrainingData(np.zeros((n, 1)), packed, None, np.ones(n), training, validation, owners)


@pytest.mark.parametrize("sets", [False, True])
def test_rows_with_an_outlier_are_left_out_and_named(sets):
    data = with_outlier(sets).without_outliers()
    assert (data.owners < 0).tolist() == [i == 17 for i in range(400)]
    rows = [*data.rows_of(data.training), *data.rows_of(data.validation)]
    assert sorted(rows) == [i for i in range(400) if i != 17]
    (message,) = data.advice
    assert ("point 17" if sets else "row 17") in message
    assert "has -1e+12 in column 1" in message


def test_a_set_with_an_outlier_is_learnt_from_as_it_is():
    data = with_outlier(sets=True)
    whole = replace(data, owners=np.arange(100))
    assert whole.without_outliers() is whole


def test_data_without_outliers_are_the_same_object():
    plain = data(200)
    assert plain.without_outliers() is plain


def test_an_outlier_has_a_say_neither_in_scales_nor_in_ranges():
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(200, 1))
    X = theta + rng.normal(size=(200, 2))
    spoilt = np.r_[X, [[0, 1e12]]]
    theta = np.r_[theta, [[0.0]]]
    for cls in (NPEEstimator, NLEEstimator):
        with pytest.warns(UserWarning, match=r"row 200 has 1e\+12 in column 1"):
            fitted = cls(max_iter=1, random_state=0).fit(theta, spoilt)
        np.testing.assert_allclose(fitted._maps.X.mean[1], X[:, 1].mean())
        np.testing.assert_allclose(fitted._maps.X.scale[1], X[:, 1].std())
    np.testing.assert_allclose(fitted._X_range, [X.min(axis=0), X.max(axis=0)])


def test_options_become_a_plan():
    plan = plan_training(
        NLEEstimator(n_estimators=3, alpha=1.3), data(10_000), shrinkage_range=25.0
    )
    assert plan.batch_size == 256
    assert plan.learning_rate == 1e-2
    assert plan.shrinkage[-1] == pytest.approx(1.3 * (256 / 10_000) ** 0.5)
    assert plan.shrinkage[-1] / plan.shrinkage[0] == pytest.approx(25)
    slow = plan_training(NLEEstimator(n_estimators=3), data(10_000), slowdown=2)
    assert (slow.batch_size, slow.learning_rate) == (128, 5e-3)
    npe = NPEEstimator(batch_size=50, learning_rate_init=0.1)
    given = plan_training(npe, data(40), n_members=2)
    assert (given.batch_size, given.learning_rate, given.n_members) == (40, 0.1, 2)


def test_training_that_goes_on_reads_whole_sets():
    parts = ((0.5, 0.1), (1.0, 1.0))
    options = {"n_members": 1, "set_fractions": parts}
    assert plan_training(NPEEstimator(), data(40), **options).set_fraction(0) == 0.1
    resumed = data(40, fitted=(object(),))
    assert plan_training(NPEEstimator(), resumed, **options).set_fraction(0) == 1
