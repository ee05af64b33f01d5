"""Marginals of both kinds that scipy.stats has: the same laws, and saved as names and numbers."""

import copy
import pickle

import numpy as np
import pytest
import skops.io
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from scipy.special import ndtr

import skbi
from skbi import JointPrior, NPEEstimator, simulate
from skbi.priors.marginals import Marginal, load_marginal

NEWER = {
    "Normal": stats.Normal(mu=1, sigma=1 / 3),
    "Uniform": stats.Uniform(a=-3, b=2),
    "Mixture": stats.Mixture(
        [stats.Normal(mu=-2), stats.Uniform(a=0, b=1)], weights=[1 / 3, 2 / 3]
    ),
    "truncate": stats.truncate(stats.Normal(), lb=0, ub=2),
    "exp": stats.exp(stats.Normal(mu=1)),
    "abs": stats.abs(stats.Normal()),
    "scaled": 3 - 2 * stats.Normal(),
    "power": stats.Uniform(a=1, b=2) ** 3,
    "made": stats.make_distribution(stats.gamma)(a=2.0),
}


SAVED = [name for name in NEWER if name != "made"]


@pytest.mark.parametrize("name", NEWER)
def test_newer_distributions_are_marginals(name):
    prior = JointPrior({name: NEWER[name]})
    z = np.random.default_rng(0).normal(size=(50, 1))
    theta = prior.from_normal(z)
    np.testing.assert_allclose(prior.to_normal(theta), z, atol=1e-6)
    np.testing.assert_allclose(prior.ppf(prior.cdf(theta)), theta, rtol=1e-6)
    low, high = prior.ppf([[0.2], [0.7]])[:, 0]
    mass, _ = integrate.quad(lambda x: np.exp(prior.log_prob([[x]])[0]), low, high)
    np.testing.assert_allclose(mass, 0.5, rtol=1e-6)
    draws = prior.sample(2000, random_state=3)
    assert stats.kstest(draws[:, 0], NEWER[name].cdf).pvalue > 1e-4
    np.testing.assert_array_equal(draws, prior.sample(2000, random_state=3))


def test_both_kinds_of_a_distribution_agree():
    old = JointPrior({"a": stats.norm(1, 2), "b": stats.lognorm(1), "k": stats.binom(5, 0.3)})
    lognormal, binomial = stats.exp(stats.Normal()), stats.Binomial(n=5, p=0.3)
    new = JointPrior({"a": stats.Normal(mu=1, sigma=2), "b": lognormal, "k": binomial})
    assert new.discrete.tolist() == [False, False, True]
    np.testing.assert_array_equal(new.support, old.support)
    theta = old.sample(20, random_state=0)
    u = np.random.default_rng(0).random((20, 3))
    for method, values in (("log_prob", theta), ("cdf", theta), ("to_normal", theta), ("ppf", u)):
        results = (getattr(prior, method)(values) for prior in (old, new))
        np.testing.assert_allclose(*results, rtol=1e-9, atol=1e-12)


def test_newer_distributions_are_written_in_one_line():
    prior = JointPrior({name: NEWER[name] for name in ("Uniform", "Mixture")})
    assert "\n" not in repr(prior)
    assert "Uniform: Uniform(a=-3.0, b=2.0), Mixture: Mixture([Normal(mu=-2.0, " in repr(prior)


def test_newer_distributions_are_pickled_as_their_formula():
    prior = JointPrior({name: NEWER[name] for name in SAVED})
    formulas = prior.__getstate__()["marginals"]
    assert all(isinstance(formula, str) for formula in formulas.values())
    restored = pickle.loads(pickle.dumps(prior))
    theta = prior.sample(20, random_state=0)
    np.testing.assert_array_equal(restored.log_prob(theta), prior.log_prob(theta))
    draws = (p.sample(5, random_state=1) for p in (restored, prior))
    np.testing.assert_array_equal(*draws)


def test_what_scipy_makes_of_unnamed_classes_can_be_copied_but_not_saved():
    prior = JointPrior({"a": NEWER["made"]})
    theta = prior.sample(20, random_state=0)
    np.testing.assert_array_equal(copy.deepcopy(prior).log_prob(theta), prior.log_prob(theta))
    with pytest.raises(TypeError, match=r"Gamma\(a=2.0\) cannot be saved.*Take a frozen"):
        pickle.dumps(prior)


@pytest.mark.parametrize(
    "formula",
    ["__import__('os')", "Normal.__class__", "open('x')", "(lambda: 1)()", "os.system('ls')"],
)
def test_formulas_hold_distributions_and_numbers_only(formula):
    with pytest.raises(ValueError, match="has no distribution"):
        load_marginal(formula)


def test_closed_forms_of_quantiles_are_the_quantiles():
    z = np.linspace(-5, 5, 11)
    beta = stats.beta(2, 3, loc=-1, scale=4)
    for distribution in (stats.norm(3, 2), stats.uniform(-1, 4), beta):
        expected = distribution.ppf(stats.norm.cdf(z))
        np.testing.assert_allclose(Marginal(distribution).from_normal(z), expected, atol=1e-9)


@given(a=st.floats(0.2, 30), b=st.floats(0.2, 30), z=st.floats(-8, 0))
def test_quantiles_of_beta_distributions_are_right_in_the_tails(a, b, z):
    """Those of scipy warn, and are wrong: at z = -5.5 and a = 0.5, b = 3 by a factor of 1e7."""
    lower = Marginal(stats.beta(a, b)).from_normal(np.array([z]))
    np.testing.assert_allclose(stats.beta(a, b).cdf(lower), ndtr(z), rtol=1e-6)
    upper = Marginal(stats.beta(b, a)).from_normal(np.array([-z]))
    np.testing.assert_allclose(upper, 1 - lower, atol=1e-12)


def test_a_fit_under_newer_distributions_is_saved_by_skops(tmp_path):
    prior = JointPrior({"a": NEWER["Mixture"], "b": NEWER["truncate"], "c": stats.beta(0.1, 2)})
    theta, X = simulate(prior, lambda theta, rng: theta + rng.normal(size=3), 200, random_state=0)
    npe = NPEEstimator(prior=prior, n_estimators=1, max_iter=1, random_state=0).fit(theta, X)
    skops.io.dump(npe, tmp_path / "npe.skops")
    restored = skops.io.load(tmp_path / "npe.skops", trusted=skbi.TRUSTED_TYPES)
    densities = (fitted.log_prob(theta[:9], X[:9]) for fitted in (restored, npe))
    np.testing.assert_array_equal(*densities)
    draws = restored.sample_posterior(X[0], 100, random_state=0)
    assert np.isfinite(prior.log_prob(draws)).all()
