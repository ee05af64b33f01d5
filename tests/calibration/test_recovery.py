"""Recovery and contraction have their closed forms for a Gaussian."""

import numpy as np
import pytest
from known_posterior import Gaussian, gaussian_runs
from scipy import stats

from skbi.calibration.recovery import recover, recovery_of_draws

OPTIONS = {"n_samples": 200, "n_jobs": None, "random_state": 0}


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_numbers_have_their_closed_forms(scale):
    """The posterior mean explains half of the variance; the sd is scale * sqrt(1/2)."""
    theta, X = gaussian_runs(4000)
    found = recover(Gaussian(scale=scale), theta, X, **OPTIONS)
    np.testing.assert_allclose(found.r2, 0.5, atol=0.05)
    np.testing.assert_allclose(found.nrmse**2, 1 - found.r2)
    np.testing.assert_allclose(1 - found.contraction.mean(axis=0), scale**2 / 2, rtol=0.1)
    np.testing.assert_allclose(found.z_score.std(axis=0), 1 / scale, rtol=0.05)
    inside = ((found.lower <= theta) & (theta <= found.upper)).mean()
    assert inside == pytest.approx(2 * stats.norm.cdf(scale * stats.norm.ppf(0.95)) - 1, abs=0.03)


def test_a_draw_cannot_be_told_from_the_truth_by_its_standardised_value():
    theta, X = gaussian_runs(4000)
    found = recover(Gaussian(), theta, X, **{**OPTIONS, "n_samples": 5})
    pairs = ((x - found.mean) / found.sd for x in (theta, found.draw))
    assert stats.ks_2samp(*(z.ravel() for z in pairs)).pvalue > 1e-3


def test_given_draws_say_the_same_as_the_estimator():
    theta, X = gaussian_runs(30)
    samples = Gaussian().sample_posterior(X, 50, random_state=1)
    found = recovery_of_draws(theta, samples, np.random.default_rng(0))
    np.testing.assert_array_equal(found.mean, samples[:, 1:].mean(axis=1))
    np.testing.assert_array_equal(found.ranks, (samples < theta[:, None]).sum(axis=1))


def test_constant_draws_have_finite_numbers():
    """As a discrete parameter's may be."""
    theta = np.repeat([[0.0], [1.0]], 5, axis=0)
    found = recovery_of_draws(theta, np.repeat(theta[:, None], 9, axis=1), np.random.default_rng(0))
    assert found.r2 == found.contraction.mean() == 1
    assert (found.z_score == 0).all()


def test_too_few_draws_are_refused():
    theta, X = gaussian_runs(5)
    with pytest.raises(ValueError, match="n_samples must be at least 3"):
        recover(Gaussian(), theta, X, **{**OPTIONS, "n_samples": 2})
