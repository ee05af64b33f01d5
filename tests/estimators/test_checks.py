"""What is refused before any training, and what the errors say."""

import numpy as np
import pytest
from scipy import stats

from skbi import JointPrior
from skbi.estimators.checks import (
    check_columns,
    check_device,
    check_hidden_layer_sizes,
    check_n_samples,
    check_theta_under_prior,
    default_names,
)


@pytest.mark.parametrize("n_samples", [0, -1, 2.0, True, "3", None])
def test_numbers_of_draws_are_positive_integers(n_samples):
    check_n_samples(np.int64(3))
    with pytest.raises(ValueError, match="n_samples must be a positive integer"):
        check_n_samples(n_samples)


def test_columns_keep_their_names_and_order():
    check_columns(None, ["a", "b"])
    check_columns(np.array(["x", "y"]), default_names(2))
    with pytest.raises(ValueError, match=r"must be those of fit, \['a', 'b'\]; got \['b', 'a'\]"):
        check_columns(np.array(["b", "a"]), ["a", "b"])


def test_a_prior_has_the_methods_of_one_and_theta_lies_inside():
    prior = JointPrior({"a": stats.uniform(0, 1), "b": stats.norm()})
    check_theta_under_prior(prior, np.array([[0.5, 3.0]]), None)
    with pytest.raises(TypeError, match=r"got dict, which lacks \['names'"):
        check_theta_under_prior({}, np.zeros((1, 2)), None)
    with pytest.raises(ValueError, match=r"row 0: .*outside the support of \['a'\]"):
        check_theta_under_prior(prior, np.array([[2.0, 0.0]]), None)


def test_options_are_named_with_a_remedy():
    with pytest.raises(ValueError, match="such as"):
        check_hidden_layer_sizes([])
    with pytest.raises(ValueError, match="Use 'cpu'"):
        check_device("abacus")
