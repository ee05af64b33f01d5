"""What is written against the public interfaces works like what skbi brings: a flow, a ratio.

(A sampler of one's own is in tests/samplers/test_registry.py.)
"""

import copy
import pickle

import autoregressive
import numpy as np
import pytest
from scipy import stats
from tiny_ratio import TinyNRE

from skbi import JointPrior, NLEEstimator, NPEEstimator, coverage_score
from skbi.flows import FLOWS

PRIOR = JointPrior({"a": stats.norm(0, 1), "b": stats.norm(1, 2)})
NOISE_SD = 0.5


def pairs(n, seed=0, theta=None):
    """Return theta, and x = theta + noise."""
    theta = PRIOR.sample(n, random_state=seed) if theta is None else theta
    noise = np.random.default_rng(seed).normal(size=theta.shape)
    return theta, theta + NOISE_SD * noise


def exact_posterior(x):
    """Return means and standard deviations."""
    mean, sd = np.array([0.0, 1.0]), np.array([1.0, 2.0])
    variance = 1 / (1 / sd**2 + 1 / NOISE_SD**2)
    return variance * (mean / sd**2 + x / NOISE_SD**2), variance**0.5


@pytest.mark.parametrize("kind", [NPEEstimator, NLEEstimator])
def test_a_flow_of_another_kind_is_a_choice(kind):
    assert FLOWS["autoregressive"] is autoregressive.AutoregressiveFlow
    theta, X = pairs(3000)
    estimator = kind(prior=PRIOR, flow="autoregressive", n_estimators=2, random_state=0)
    estimator.fit(theta, X)
    fresh = pairs(500, seed=1)
    if kind is NPEEstimator:
        mean, sd = exact_posterior(fresh[1])
        exact = stats.norm(mean, sd).logpdf(fresh[0]).sum(axis=1).mean()
        draws = estimator.sample_posterior(fresh[1][:5], 4000)
        np.testing.assert_allclose(draws.mean(axis=1), mean[:5], atol=0.3 * sd.min())
    else:
        exact = stats.norm(fresh[0], NOISE_SD).logpdf(fresh[1]).sum(axis=1).mean()
    assert estimator.score(*fresh) > exact - 0.1
    twin = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(twin.log_prob(*fresh), estimator.log_prob(*fresh))


@pytest.fixture(scope="module")
def ratio():
    return TinyNRE(prior=PRIOR, n_estimators=2, random_state=0).fit(*pairs(4000))


def ratio_errors(estimator, x):
    """Return how far posterior means and sds are from the exact ones, in exact sds."""
    draws = estimator.sample_posterior(x, 2000, sampler="nuts", random_state=0)
    mean, sd = exact_posterior(x)
    return np.abs(draws.mean(axis=0) - mean) / sd, np.abs(draws.std(axis=0) / sd - 1)


def test_a_ratio_estimator_needs_no_flow(ratio):
    assert len(ratio.members_) == 2
    assert not hasattr(ratio, "flow_")
    assert not hasattr(ratio.members_[0], "flow")
    off, wide = ratio_errors(ratio, np.array([0.5, 2.0]))
    assert off.max() < 0.25
    assert wide.max() < 0.25


@pytest.mark.filterwarnings("ignore:.*outside the range of the training parameters")
def test_a_ratio_estimator_is_sampled_pickled_and_calibrated_as_any_other(ratio):
    x = pairs(3, seed=2)[1]
    options = {"sampler": "nested", "nlive": 60, "random_state": 0}
    draws = ratio.sample_posterior(x[0], 40, **options)
    twin = pickle.loads(pickle.dumps(ratio))
    np.testing.assert_array_equal(twin.sample_posterior(x[0], 40, **options), draws)
    assert ratio.typicality(x[0]) > 1e-3 > ratio.typicality(x[0] + 100)
    theta, X = pairs(3, seed=3)
    assert 0 <= coverage_score(ratio, theta, X, n_samples=20, random_state=0) <= 1


def test_contrasts_weigh_the_product_of_their_rows():
    """Pairs of another proposal, weighted to the prior, give the prior's posterior."""
    proposal = stats.norm([1.0, 0.0], [1.5, 3.0])
    theta = proposal.rvs((6000, 2), random_state=0)
    log_weights = PRIOR.log_prob(theta) - proposal.logpdf(theta).sum(axis=1)
    estimator = TinyNRE(prior=PRIOR, random_state=0)
    estimator.fit(*pairs(6000, theta=theta), np.exp(log_weights))
    off, wide = ratio_errors(estimator, np.array([0.0, 1.0]))
    assert off.max() < 0.3
    assert wide.max() < 0.3


def test_a_ratio_estimator_goes_on_where_it_stopped(ratio):
    more = copy.deepcopy(ratio).set_params(warm_start=True, max_iter=2, learning_rate_init=1e-4)
    more.fit(*pairs(4000))
    assert len(more.loss_curve_) == ratio.n_iter_ + more.n_iter_
