"""The no-U-turn sampler against closed forms: moments, quantiles, and whether it has converged."""

import math
import re
import warnings

import numpy as np
import pytest
from likelihoods import CoinAndShift, GivenLikelihood, LinearGaussian
from scipy import stats

from skbi import JointPrior
from skbi.samplers.nuts import _convergence_message, nuts


@pytest.mark.parametrize("p", [1, 3, 10])
def test_nuts_finds_the_moments_of_a_gaussian(p):
    model = LinearGaussian(p=p, d=p + 2, seed=p)
    draws, info = nuts(model, model.prior, 3000, np.random.default_rng(0))
    sd = np.sqrt(np.diag(model.covariance))
    assert np.abs((draws.mean(axis=0) - model.mean) / sd).max() < 5 / math.sqrt(info.ess.min())
    whitened = np.linalg.solve(np.linalg.cholesky(model.covariance), (draws - model.mean).T)
    # the square of a normal has sd sqrt(2); its draws are worth at least a third of those of x
    np.testing.assert_allclose((whitened**2).mean(axis=1), 1, atol=5 * math.sqrt(2 / 1000))
    assert info.warnings == ()


def test_nuts_leaves_a_skewed_target_as_it_is():
    """exp(z) ~ Gamma(2): quantiles of the draws follow the exact distribution."""
    likelihood = GivenLikelihood(  # the sampler multiplies by the prior N(0, 1): divide by it
        lambda z: (2 * z - np.exp(z) + z**2 / 2).sum(axis=1), lambda z: 2 - np.exp(z) + z
    )
    prior = JointPrior({"z": stats.norm()})
    draws, info = nuts(likelihood, prior, 2000, np.random.default_rng(0))
    quantiles = stats.gamma(2).cdf(np.exp(draws[:, 0]))
    n = int(min(info.ess[0], 2000))
    assert stats.kstest(quantiles[:: math.ceil(2000 / n)], "uniform").pvalue > 1e-3


def test_discrete_parameters_beside_continuous_ones():
    model = CoinAndShift()
    draws, info = nuts(model, model.prior, 1000, np.random.default_rng(0))
    model.assert_follows_posterior(draws[:, 0])
    assert np.isnan(info.r_hat[0])
    assert info.r_hat[1] < 1.05


def test_chains_that_disagree_are_reported():
    """Two narrow modes 20 sd apart: chains cannot cross."""

    def residual(z):
        return (z - np.where(z > 0, 1, -1)) / 0.05

    likelihood = GivenLikelihood(
        lambda z: -0.5 * (residual(z) ** 2).sum(axis=1), lambda z: -residual(z) / 0.05
    )
    prior = JointPrior({"z": stats.norm()})
    _, info = nuts(likelihood, prior, 500, np.random.default_rng(0))
    (message,) = info.warnings
    assert re.search(r"separate modes.* R-hat is .*'smc'", message)


@pytest.mark.parametrize(
    ("r_hat", "ess", "limit", "expected"),
    [
        (1.0501, 400.0, 1.05, ["R-hat is up to 1.06 (should be below 1.05)"]),
        (1.71, 99.9, 1.72, ["size is down to 99 (should be 100 or more)"]),
        (1.8, 3.0, 1.719, ["up to 1.80 (should be below 1.71), and", "down to 3 (should be 100"]),
        (1.71, 100.0, 1.72, []),
    ],
)
def test_messages_name_only_what_is_wrong(r_hat, ess, limit, expected):
    nans = np.array([np.nan, 1.0])
    message = _convergence_message(np.array([np.nan, r_hat]), np.array([np.nan, ess]), limit * nans)
    assert (message is None) == (not expected)
    for text in expected:
        assert text in message
    if expected:
        assert ("R-hat" in message) == (r_hat > limit)
        assert ("effective sample size" in message) == (ess < 100)


def test_chains_need_a_warm_up():
    model, rng = LinearGaussian(), np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"n_warmup >= 10, to adapt; got 8 and 1\."):
        nuts(model, model.prior, 10, rng, n_warmup=1)


def test_nuts_is_quiet_and_repeats(capsys):
    model = LinearGaussian()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one, two = (nuts(model, model.prior, 50, np.random.default_rng(1))[0] for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert capsys.readouterr() == ("", "")
