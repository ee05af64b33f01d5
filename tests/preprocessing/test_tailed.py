"""Parameters with heavy tails and no prior: the map, its determinant, and posteriors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from skbi import JointPrior, NLEEstimator, NPEEstimator
from skbi.preprocessing.coordinates import ParameterMap
from skbi.preprocessing.packed import pack
from skbi.preprocessing.tailed import TailCoordinates

HEAVY = {
    "lognormal": (stats.lognorm(3), [1, 0]),
    "negative": (stats.lognorm(3), [-1, 0]),
    "log-uniform": (stats.loguniform(1e-150, 1e150), [1, 0]),
    "cauchy": (stats.cauchy(50, 1e-3), [0, 1]),
    "from five on": (stats.lognorm(3, loc=5), [0, 1]),
}
ORDINARY = {
    "normal": stats.norm(5, 2),
    "uniform": stats.uniform(1, 2),
    "exponential": stats.expon(scale=1e6),
    "student": stats.t(10),
    "bimodal": stats.beta(0.1, 0.1),
    "constant but for a few": stats.poisson(0.02),
}


def draws_of(name, n, seed):
    theta = HEAVY[name][0].rvs((n, 1), random_state=seed)
    return -theta if name == "negative" else theta


@pytest.mark.parametrize("name", HEAVY)
@given(seed=st.integers(0, 99), n=st.integers(500, 2000))
def test_heavy_tails_become_light(name, seed, n):
    theta = draws_of(name, n, seed)
    tails = TailCoordinates.fit(theta)
    assert [tails.sign[0], tails.asinh[0]] == HEAVY[name][1]
    mapping = ParameterMap.fit(None, theta)
    z, log_det = mapping.forward(theta)
    assert np.abs(z).max() < 15
    assert np.isfinite(log_det).all()
    np.testing.assert_allclose(mapping.inverse(z), theta, rtol=1e-9)


@pytest.mark.parametrize("name", HEAVY)
@given(seed=st.integers(0, 99))
def test_the_determinant_is_that_of_differences(name, seed):
    tails = TailCoordinates.fit(draws_of(name, 1000, seed))
    y = np.random.default_rng(seed).normal(0, 3, size=(20, 1))
    theta, step = tails.inverse(y), 1e-5
    slope = (tails.inverse(y + step) - tails.inverse(y - step)) / (2 * step)
    np.testing.assert_allclose(tails.forward(theta)[1], -np.log(np.abs(slope)), atol=1e-4)


@pytest.mark.parametrize("name", HEAVY)
def test_every_coordinate_is_a_finite_theta_of_the_right_sign(name):
    tails = TailCoordinates.fit(draws_of(name, 1000, 0))
    theta = tails.inverse(np.array([[-1e300], [-1e4], [0.0], [1e4], [1e300]]))
    assert np.isfinite(theta).all()
    sign = tails.sign[0]
    if sign:
        assert (sign * theta > 0).all()
        assert np.isneginf(tails.forward(np.array([[0.0], [-sign]]))[1]).all()


@pytest.mark.parametrize("name", ORDINARY)
@given(seed=st.integers(0, 99))
def test_other_parameters_are_standardised_as_they_are(name, seed):
    theta = ORDINARY[name].rvs((2000, 1), random_state=seed).astype(float)
    mapping = ParameterMap.fit(None, theta)
    assert mapping.tails is None
    np.testing.assert_allclose(mapping.forward(theta)[0], (theta - theta.mean()) / theta.std())


def test_columns_are_chosen_one_by_one():
    theta = np.hstack([draws_of("lognormal", 800, 0), draws_of("cauchy", 800, 0)])
    theta = np.column_stack([ORDINARY["normal"].rvs(800, random_state=1), theta])
    tails = TailCoordinates.fit(theta)
    np.testing.assert_array_equal(tails.sign, [0, 1, 0])
    np.testing.assert_array_equal(tails.asinh, [False, False, True])
    y, log_slope = tails.forward(theta)
    np.testing.assert_array_equal(y[:, 0], theta[:, 0])
    assert not log_slope[:, 0].any()


def test_one_outlier_leaves_the_others_their_spread():
    theta = np.random.default_rng(0).normal(size=(4000, 1))
    theta[17] = 1e12
    z, _ = ParameterMap.fit(None, theta).forward(theta)
    assert np.delete(z, 17).std() > 0.3


def test_the_posterior_of_a_lognormal_parameter_without_a_prior():
    """Standardised, half of the draws were negative, and KS was 0.5."""
    rng = np.random.default_rng(0)
    theta = rng.lognormal(0, 3, size=(1000, 1))
    X = np.log(theta) + rng.normal(size=theta.shape)
    npe = NPEEstimator(n_estimators=1, max_iter=12, random_state=0).fit(theta, X)
    for x in (-3.0, 0.0, 4.0):
        exact = stats.norm(0.9 * x, 0.9**0.5)  # of log theta
        draws = npe.sample_posterior(np.array([x]), 2000, random_state=1)
        assert (draws > 0).all()
        assert stats.kstest(np.log(draws[:, 0]), exact.cdf).statistic < 0.1
        y = exact.ppf(np.linspace(0.01, 0.99, 50))
        log_q = npe.log_prob(np.exp(y)[:, None], np.array([[x]]))
        np.testing.assert_allclose(log_q, exact.logpdf(y) - y, atol=0.5)
    assert np.isneginf(npe.log_prob([[0.0], [-1.0]], np.array([[0.0]]))).all()


def test_the_likelihood_of_a_lognormal_parameter_without_a_prior():
    rng = np.random.default_rng(0)
    theta = rng.lognormal(0, 3, size=(1000, 1))
    X = np.log(theta) + rng.normal(size=theta.shape)
    nle = NLEEstimator(n_estimators=1, max_iter=12, random_state=0).fit(theta, X)
    x = np.linspace(-5, 5, 11)[:, None]
    np.testing.assert_allclose(nle.log_prob(np.exp(x), x + 1), stats.norm.logpdf(1), atol=0.15)
    nle.set_params(prior=JointPrior({"theta_0": stats.norm(1, 1)}))
    with pytest.raises(ValueError, match="outside the sign that theta has in training"):
        nle.sample_posterior(np.array([[[0.0]]]))
    nle.set_params(prior=JointPrior({"theta_0": stats.lognorm(3)}))
    draws = nle.sample_posterior(np.array([[[2.0]]]), 1000, random_state=0)
    assert stats.kstest(np.log(draws[0, :, 0]), stats.norm(1.8, 0.9**0.5).cdf).statistic < 0.1
    likelihood = nle._likelihoods(pack(np.array([[[2.0]]])), nle.prior)[0]
    z, step = np.array([[-1.0], [0.3], [1.0]]), 0.01
    value, gradient = likelihood.value_and_gradient(z)
    np.testing.assert_allclose(value, likelihood(nle.prior.from_normal(z)), atol=1e-4)
    above, below = (likelihood.value_and_gradient(z + s)[0] for s in (step, -step))
    np.testing.assert_allclose(gradient[:, 0], (above - below) / (2 * step), rtol=0.05, atol=0.05)
