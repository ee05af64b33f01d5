"""What is refused before any training, and what the errors say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from skbi import JointPrior
from skbi.estimators.checks import (
    check_columns,
    check_device,
    check_hidden_layer_sizes,
    check_n_samples,
    check_pairing,
    check_theta_under_prior,
    default_names,
    describe_atoms,
    describe_shared_values,
    linearly_dependent,
)


@pytest.mark.parametrize("n_samples", [0, -1, 2.0, True, "3", None])
def test_numbers_of_draws_are_positive_integers(n_samples):
    check_n_samples(np.int64(3))
    with pytest.raises(ValueError, match="n_samples must be a positive integer"):
        check_n_samples(n_samples)


@pytest.mark.parametrize("lengths", [(3, 3), (1, 3), (3, 1), (1, 1)])
def test_pairs_are_row_by_row_or_with_a_single_one(lengths):
    check_pairing(*lengths)
    with pytest.raises(ValueError, match=r"paired row by row.*4 rows of theta and 3 obs"):
        check_pairing(4, 3)


def test_columns_keep_their_names_and_order():
    check_columns(None, ["a", "b"])
    check_columns(np.array(["x", "y"]), default_names(2))
    with pytest.raises(ValueError, match=r"must be those of fit, \['a', 'b'\]; got \['b', 'a'\]"):
        check_columns(np.array(["b", "a"]), ["a", "b"])


def test_a_prior_has_the_methods_of_one_and_theta_lies_inside():
    prior = JointPrior({"a": stats.uniform(0, 1), "b": stats.norm()})
    check_theta_under_prior(prior, np.array([[0.5, 3.0]]), None)
    with pytest.raises(TypeError, match=r"got builtins.dict, which lacks \['names'"):
        check_theta_under_prior({}, np.zeros((1, 2)), None)
    with pytest.raises(ValueError, match=r"row 0: .*outside the support of \['a'\]"):
        check_theta_under_prior(prior, np.array([[2.0, 0.0]]), None)


def test_options_are_named_with_a_remedy():
    with pytest.raises(ValueError, match="such as"):
        check_hidden_layer_sizes([])
    with pytest.raises(ValueError, match="Use 'cpu'"):
        check_device("abacus")


@given(share=st.sampled_from([0.0, 0.001, 0.1, 0.5, 0.9]), seed=st.integers(0, 99))
def test_a_value_that_continuous_points_often_take_is_named(share, seed):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(2000, 2))
    points[rng.random(2000) < share, 1] = 0.5
    messages = describe_atoms(points, np.array([0, 3]))
    assert bool(messages) == (share > 0.01)
    assert all("3 is exactly 0.5 in " in message for message in messages)


def test_columns_of_few_values_are_named_and_few_points_tell_nothing():
    points = np.column_stack([np.arange(500) % 7, np.linspace(0, 1, 500)])
    (message,) = describe_atoms(points, np.arange(2))
    assert "Features [0] of X take few distinct values" in message
    assert not describe_atoms(points[:50], np.arange(2))


@given(
    seed=st.integers(0, 999),
    offset=st.floats(-100, 100),
    scale=st.floats(1e-6, 1e6),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_linear_constraints_are_found_whatever_their_units(seed, offset, scale, dtype):
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet([1, 2, 3], size=200).astype(dtype).astype(float)
    other = rng.normal(size=(200, 2))
    other[:2] = 1e12  # outliers neither hide a constraint nor look like one
    assert not linearly_dependent(np.hstack([shares[:, :2], other])).any()
    theta = np.hstack([other, shares * [1, 1, scale] + [0, 0, offset * scale]])
    if dtype is np.float64:
        assert linearly_dependent(theta).tolist() == [False, False, True, True, True]
    assert linearly_dependent(shares).all()


def test_columns_of_few_values_are_no_constraint():
    rng = np.random.default_rng(0)
    coins = (rng.random((300, 2)) < 0.2).astype(float)  # most rows are (0, 0)
    assert not linearly_dependent(coins).any()
    assert not linearly_dependent(coins[:, :1]).any()


def test_two_linear_constraints_are_found_together():
    a, b, c = np.random.default_rng(0).normal(size=(3, 100))
    theta = np.column_stack([a, 3 - 2 * a, b, c, b + c])
    assert linearly_dependent(theta).all()
    assert not linearly_dependent(theta[:, [0, 2, 3]]).any()
    assert not linearly_dependent(theta[:3]).any()  # too few rows to tell


def test_values_that_many_rows_share_are_described():
    theta = np.random.default_rng(0).normal(size=(200, 2))
    names = np.array(["a", "b"])
    assert describe_shared_values(theta, names) == []
    theta[:60, 1] = 0
    (message,) = describe_shared_values(theta, names)
    assert "30% of the rows of ['b']" in message
    assert describe_shared_values(theta[:99], names) == []
