"""Posteriors by samplers: requests, warnings at the user's line, proposals, learnt likelihoods."""

import numpy as np
import pytest
from scipy import stats

from skbi import JointPrior, NLEEstimator, NPEEstimator
from skbi.estimators.sampled import extend_range
from skbi.samplers import Sampler, SamplerInfo

PRIOR = JointPrior({"mu": stats.norm(0, 1)})
THETA = PRIOR.sample(400, random_state=0)
X = THETA + 0.5 * np.random.default_rng(0).normal(size=(400, 2))


@pytest.fixture(scope="module")
def nle():
    return NLEEstimator(prior=PRIOR, max_iter=3, random_state=0).fit(THETA, X)


def draw_from_prior(likelihood, prior, n_samples, rng):
    info = SamplerInfo("prior", 0, warnings=("These are draws of the prior.",))
    return prior.sample(n_samples, random_state=rng), info


PRIOR_SAMPLER = Sampler("prior", draw_from_prior, many_observations=True)


def test_a_sampler_of_ones_own_is_handed_over_and_its_warnings_reach_the_user(nle):
    with pytest.warns(UserWarning, match="These are draws of the prior") as caught:
        draws = nle.sample_posterior(X[0], 50, sampler=PRIOR_SAMPLER)
    assert draws.shape == (50, 1)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="2 of 2 observations, first row 0: These"):
        nle.sample_posterior(X[:2], 50, sampler=PRIOR_SAMPLER, n_jobs=2)
    with pytest.raises(ValueError, match="'prior' does not know the evidence"):
        nle.log_evidence(X[0], sampler=PRIOR_SAMPLER)


def test_observations_unlike_the_training_points_are_reported_at_the_users_line(nle):
    with pytest.warns(UserWarning, match="lies outside the training points|draws") as caught:
        nle.sample_posterior(X[0] + [9.0, 9.0], 20, sampler=PRIOR_SAMPLER)
    assert "lies outside the training points" in str(caught[0].message)
    assert {warning.filename for warning in caught} == {__file__}
    with pytest.warns(UserWarning, match="draws of the prior") as caught:
        nle.sample_posterior(X[0] + 9.0, 20, sampler=PRIOR_SAMPLER, check_typicality=False)
    assert len(caught) == 1


def test_any_object_with_draws_and_a_density_is_a_proposal(nle):
    class Wide:
        def sample(self, n, rng):
            return rng.normal(0, 2, size=(n, 1))

        def log_prob(self, theta):
            return stats.norm(0, 2).logpdf(theta[:, 0])

    options = {"sampler": "importance", "random_state": 0}
    by_hand = nle.sample_posterior(X[0], 500, proposal=Wide(), **options)
    npe = NPEEstimator(prior=PRIOR, max_iter=10, random_state=0).fit(THETA, X)
    by_npe = nle.sample_posterior(X[0], 500, proposal=npe, **options)
    assert stats.ks_2samp(by_hand[:, 0], by_npe[:, 0]).pvalue > 1e-3
    np.testing.assert_array_equal(
        npe.sample_posterior(X[0], 500, refine=nle, random_state=0), by_npe
    )
    with pytest.raises(ValueError, match="for one observation"):
        nle.sample_posterior(X[:2], 500, proposal=Wide(), **options)


def test_ranges_grow():
    a, b = np.array([[1.0, 5.0], [2.0, 4.0]]), np.array([[0.0, 4.5]])
    assert extend_range(a).tolist() == [[1, 4], [2, 5]]
    assert extend_range(b, extend_range(a)).tolist() == [[0, 4], [2, 5]]
