"""Joint priors: maps are inverse to each other, and densities agree with them."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from skbi import JointPrior

MARGINALS = {
    "uniform": stats.uniform(-3, 5),
    "normal": stats.norm(2, 0.1),
    "lognormal": stats.lognorm(0.7, scale=np.exp(-3)),
    "halfnormal": stats.halfnorm(scale=2),
    "gamma": stats.gamma(0.5),
    "beta": stats.beta(0.5, 0.5),
    "student": stats.t(3),
    "truncated": stats.truncnorm(-1, 4),
}


@pytest.mark.parametrize("name", MARGINALS)
@given(seed=st.integers(0, 1000))
def test_gaussian_coordinates_are_gaussian_and_invertible(name, seed):
    prior = JointPrior({name: MARGINALS[name]})
    z = np.random.default_rng(seed).normal(size=(50, 1))
    theta = prior.from_normal(z)
    np.testing.assert_allclose(prior.to_normal(theta), z, atol=1e-6)
    np.testing.assert_allclose(prior.cdf(theta), stats.norm.cdf(z), atol=1e-9)
    np.testing.assert_allclose(prior.ppf(prior.cdf(theta)), theta, rtol=1e-6)


def test_gaussian_coordinates_keep_their_precision_in_the_far_tails():
    prior = JointPrior({"a": stats.norm(0, 1), "b": stats.expon()})
    z = np.array([[-20.0, -8.0], [20.0, 12.0]])
    np.testing.assert_allclose(prior.to_normal(prior.from_normal(z)), z, rtol=1e-6)


@pytest.mark.parametrize("name", MARGINALS)
@given(z=st.floats(-1e6, 1e6))
def test_every_theta_lies_strictly_inside_the_support(name, z):
    prior = JointPrior({name: MARGINALS[name]})
    theta = prior.from_normal([[z]])
    low, high = prior.support[0]
    assert low < theta[0, 0] < high
    if abs(z) < 30:
        assert np.isfinite(prior.log_prob(theta)).all()


def test_log_prob_is_the_derivative_of_cdf():
    prior = JointPrior({n: m for n, m in MARGINALS.items() if n not in ("gamma", "beta")})
    theta = prior.sample(200, random_state=0)
    sd = np.array([m.std() if np.isfinite(m.std()) else 1.0 for m in prior.marginals.values()])
    step = 1e-6 * sd
    log_slope = np.log((prior.cdf(theta + step) - prior.cdf(theta - step)) / (2 * step))
    np.testing.assert_allclose(log_slope.sum(axis=1), prior.log_prob(theta), atol=1e-2)


def test_the_density_is_zero_outside_the_support():
    prior = JointPrior({"a": stats.uniform(0, 1), "b": stats.norm()})
    assert (prior.log_prob([[-0.1, 0.0], [1.1, 0.0]]) == -np.inf).all()


def test_sample_follows_the_marginals_and_random_state():
    prior = JointPrior(MARGINALS)
    theta = prior.sample(5000, random_state=3)
    for column, marginal in zip(theta.T, MARGINALS.values(), strict=True):
        assert stats.kstest(column, marginal.cdf).pvalue > 1e-4
    np.testing.assert_array_equal(theta, prior.sample(5000, random_state=3))
    np.testing.assert_array_equal(theta, prior.sample(5000, random_state=np.random.default_rng(3)))


def test_discrete_marginals():
    prior = JointPrior({"model": stats.bernoulli(0.3), "k": stats.poisson(4), "x": stats.norm()})
    assert prior.discrete.tolist() == [True, True, False]
    theta = prior.sample(1000, random_state=0)
    assert set(theta[:, 0]) == {0.0, 1.0}
    expected = stats.poisson(4).logpmf(2) + np.log(0.3) + stats.norm.logpdf(0)
    np.testing.assert_allclose(prior.log_prob([[1, 2, 0]]), expected)
    np.testing.assert_array_equal(prior.ppf([[0.6, 0.5, 0.5]]), [[0, 4, 0]])


def test_repr_names_the_parameters_and_their_distributions():
    prior = JointPrior({"d": stats.uniform(0, 1), "t": stats.halfnorm(scale=2)})
    assert repr(prior) == "JointPrior(d: uniform(0, 1), t: halfnorm(scale=2))"


@pytest.mark.parametrize(
    ("marginals", "error", "message"),
    [
        ({}, TypeError, "non-empty dict"),
        ([stats.norm()], TypeError, "non-empty dict"),
        ({"a": stats.norm}, TypeError, r"'a' must be .*got scipy.stats.norm without parameters"),
        ({"a": 1.0}, TypeError, "'a' must be .*got float"),
        ({"a": torch.distributions.VonMises(0, 1)}, TypeError, r"Independent.*got VonMises"),
        ({3: stats.norm()}, TypeError, "strings"),
        ({"a": stats.norm(0, -1)}, ValueError, "valid parameters"),
        ({"a": stats.norm([0, 1], 1)}, ValueError, "one distribution"),
    ],
)
def test_marginals_are_checked(marginals, error, message):
    with pytest.raises(error, match=message):
        JointPrior(marginals)


def test_a_wrong_number_of_columns_is_an_error_that_names_the_right_one():
    with pytest.raises(ValueError, match=r"\(n, 2\), got shape \(4, 3\)"):
        JointPrior({"a": stats.norm(), "b": stats.norm()}).log_prob(np.zeros((4, 3)))


class Triangle(stats.rv_continuous):
    """A distribution that a user might write."""

    def _pdf(self, x):
        return 2 * x


def test_pickles_of_scipy_marginals_hold_names_and_numbers():
    marginals = {
        "a": stats.norm(1, 2),
        "b": stats.gamma(2, scale=3),
        "k": stats.poisson(4),
        "own": Triangle(a=0, b=1, name="triangle")(),
    }
    prior = JointPrior(marginals)
    state = prior.__getstate__()["marginals"]
    assert state["a"] == ("norm", [1, 2], {})
    assert state["b"] == ("gamma", [2], {"scale": 3})
    theta = prior.sample(5, random_state=0)
    for other in (pickle.loads(pickle.dumps(prior)), copy.deepcopy(prior)):
        np.testing.assert_array_equal(other.log_prob(theta), prior.log_prob(theta))
        assert other.names == prior.names
    with pytest.raises(ValueError, match="no distribution 'sys'"):
        JointPrior.__new__(JointPrior).__setstate__(
            {"marginals": {"a": ("sys", [], {})}, "together": {}}
        )


@pytest.mark.parametrize(
    "marginal",
    [
        stats.beta(0.01, 0.01),
        stats.gamma(0.001),
        stats.weibull_min(0.01),
        stats.lognorm(200),
        stats.pareto(0.001),
        stats.Uniform(a=1, b=1 + 1e-15),
    ],
)
def test_draws_that_are_rounded_to_a_bound_lie_beside_it(marginal):
    """Such draws had an infinite density, and a fit refused them."""
    prior = JointPrior({"a": marginal})
    low, high = prior.support[0]
    with np.errstate(over="ignore", divide="ignore"):
        theta = prior.sample(5000, random_state=0)
    assert ((low < theta) & (theta < high)).all()
    assert np.isfinite(prior.log_prob(theta)).all()
    assert np.isfinite(prior.to_normal(theta)).all()
