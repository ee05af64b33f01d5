"""What FMPE and CMPE share: where training starts, draws in parts, and options of both."""

import numpy as np
import pytest
from scipy import stats

from skbi import CMPEEstimator, FMPEEstimator, JointPrior
from skbi.estimators import amortised
from skbi.estimators.residuals import TransportMember

START = {"max_iter": 1, "learning_rate_init": 1e-9, "hidden_layer_sizes": (4,), "random_state": 0}
PRIOR = JointPrior({"a": stats.uniform(-1, 2), "b": stats.halfnorm()})
kinds = pytest.mark.parametrize("kind", [FMPEEstimator, CMPEEstimator])


def pairs(n, seed=0):
    theta = PRIOR.sample(n, random_state=seed)
    return theta, theta + 0.3 * np.random.default_rng([seed, 1]).normal(size=theta.shape)


@kinds
def test_draws_of_a_start_have_the_residuals_that_its_regression_found(kind):
    """In the coordinates of the prior, they are normal around what is predicted."""
    theta, X = pairs(3000)
    fitted = kind(prior=PRIOR, **START).fit(theta, X)
    draws = fitted.sample_posterior(X[0], 5000)
    z = fitted._maps.theta.forward(draws)[0]
    member = fitted.members_[0]
    root = member.root.double().numpy()
    np.testing.assert_allclose(np.cov(z.T), np.linalg.inv(root @ root.T), rtol=0.1, atol=0.01)
    centred = (z - z.mean(axis=0)) @ root
    assert stats.kstest(centred.ravel(), "norm").statistic < 0.02


@kinds
def test_parts_of_any_size_draw_inside_the_support(kind, monkeypatch):
    monkeypatch.setattr(amortised, "_MAX_DRAWS", 50)
    theta, X = pairs(200)
    fitted = kind(prior=PRIOR, **START).fit(theta, X)
    for n_obs, n_samples in ((3, 20), (7, 120), (1, 1)):
        draws = fitted.sample_posterior(X[:n_obs], n_samples, random_state=1)
        assert draws.shape == (n_obs, n_samples, 2)
        assert np.isfinite(PRIOR.log_prob(draws.reshape(-1, 2))).all()
        assert len(np.unique(draws[..., 0])) == n_obs * n_samples
        again = fitted.sample_posterior(X[:n_obs], n_samples, random_state=1)
        np.testing.assert_array_equal(draws, again)


@kinds
def test_each_observation_of_a_batch_has_its_own_posterior(kind):
    theta, X = pairs(3000)
    fitted = kind(prior=PRIOR, **START).fit(theta, X)
    together = fitted.sample_posterior(X[:4], 4000, random_state=0)
    for x, draws in zip(X[:4], together, strict=True):
        alone = fitted.sample_posterior(x, 4000, random_state=1)
        for one, other in zip(alone.T, draws.T, strict=True):
            assert stats.ks_2samp(one, other).pvalue > 1e-4


@kinds
def test_noise_is_as_wide_as_validation_pairs_need(kind, monkeypatch):
    """A posterior that is too narrow by a third, N(4 x / 5, 1/5), gets its width back."""

    def start(self, regression, start_at=TransportMember.start_at):
        slopes, intercept, root = regression
        start_at(self, (slopes, intercept, 1.5 * root))

    monkeypatch.setattr(TransportMember, "start_at", start)
    theta, rng = stats.norm(0, 1).rvs((5000, 1), random_state=0), np.random.default_rng(1)
    X = theta + 0.5 * rng.normal(size=theta.shape)
    fitted = kind(**START).fit(theta, X)
    assert fitted.noise_scale_ == pytest.approx(1.5, rel=0.1)
    draws = fitted.sample_posterior(X[0], 5000)
    assert draws.std() == pytest.approx(0.2**0.5, rel=0.1)
    assert kind(**START, early_stopping=False).fit(theta, X).noise_scale_ == 1


@kinds
def test_untypical_observations_are_pointed_out(kind):
    theta, X = pairs(500)
    fitted = kind(prior=PRIOR, **START).fit(theta, X)
    with pytest.warns(UserWarning, match="unlike") as caught:
        fitted.sample_posterior(X[0] + 50, 5)
    assert caught[0].filename == __file__
    fitted.sample_posterior(X[0] + 50, 5, check_typicality=False)


@pytest.mark.parametrize(("p", "compressed"), [(2, True), (21, False)])
def test_wide_vectors_are_compressed_unless_parameters_are_many(p, compressed):
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(100, p))
    X = theta @ rng.normal(size=(p, 20)) + rng.normal(size=(100, 20))
    fmpe = FMPEEstimator(**START).fit(theta, X)
    assert (fmpe._maps.compression is not None) == compressed
    assert np.isfinite(fmpe.log_prob(theta, X)).all()
