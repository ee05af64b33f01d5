"""Posteriors of discrete parameters, alone and beside continuous ones, against Bayes' rule."""

import copy
import pickle

import numpy as np
import pytest
import skops.io
import torch
from scipy import stats
from scipy.special import logsumexp

import skbi
from skbi import JointPrior, NLEEstimator, NPEEstimator, coverage_score, sequential
from skbi.estimators.mixed import MixedMember, width_for_flow
from skbi.flows import make_flow
from skbi.networks.categories import Categories
from skbi.samplers.enumeration import discrete_combinations

QUICK = {"max_iter": 2, "n_transforms": 1, "hidden_layer_sizes": (8,), "n_estimators": 2}
PRIOR = JointPrior({"k": stats.bernoulli(0.4), "c": stats.norm(), "n": stats.binom(3, 0.5)})
ALONE = JointPrior({"n": stats.poisson(2)})
SHIFTED = JointPrior({"k": stats.bernoulli(0.3), "c": stats.norm()})
NOISE_SD = 0.6


def pairs(n, seed=0, prior=PRIOR):
    """Return theta, and x = two sums of its columns with noise."""
    theta = prior.sample(n, random_state=seed)
    mix = np.random.default_rng(9).normal(size=(theta.shape[1], 2))
    return theta, theta @ mix + NOISE_SD * np.random.default_rng(seed).normal(size=(n, 2))


def switched(n, seed=0):
    """Return theta = (k, c), and x = (1 + k) c + k + noise and c + noise."""
    theta = SHIFTED.sample(n, random_state=seed)
    k, c = theta.T
    x = np.column_stack([(1 + k) * c + k, c])
    return theta, x + NOISE_SD * np.random.default_rng(seed).normal(size=(n, 2))


def exact(x):
    """Return P(k = 1 | x), and mean and sd of c given k and x, (n, 2) and (2,), of `switched`."""
    log_p, means, sds = [], [], []
    for k, mass in enumerate([0.7, 0.3]):
        a, b = np.array([1.0 + k, 1.0]), np.array([k, 0.0])
        marginal = stats.multivariate_normal(b, np.outer(a, a) + NOISE_SD**2 * np.eye(2))
        log_p.append(marginal.logpdf(x) + np.log(mass))
        precision = 1 + a @ a / NOISE_SD**2
        means.append((x - b) @ a / NOISE_SD**2 / precision)
        sds.append(precision**-0.5)
    return np.exp(log_p[1] - logsumexp(log_p, axis=0)), np.array(means).T, np.array(sds)


@pytest.fixture(scope="module")
def fitted():
    options = {"max_iter": 15, "n_estimators": 2, "random_state": 0}
    return NPEEstimator(prior=SHIFTED, **options).fit(*switched(3000))


def test_the_posterior_is_that_of_bayes_rule(fitted):
    """Within 0.03 and 0.1 standard deviations at 10,000 pairs; here of 3,000."""
    margin = (10_000 / 3000) ** 0.5
    _, x = switched(200, seed=1)
    p, means, sds = exact(x)
    draws = fitted.sample_posterior(x, 2000, check_typicality=False, random_state=0)
    assert np.abs(draws[..., 0].mean(axis=1) - p).mean() < 0.03 * margin
    for k in (0, 1):
        likely = np.abs(p - 1 + k) > 0.2
        some = draws[likely]
        of_k = np.where(some[..., :1] == k, some[..., 1:], np.nan)[..., 0]
        off = np.abs(np.nanmean(of_k, axis=1) - means[likely, k]) / sds[k]
        assert off.mean() < 0.1 * margin
        assert np.nanstd(of_k, axis=1).mean() == pytest.approx(sds[k], rel=0.1 * margin)


def test_the_log_prob_is_mass_times_density_and_normalised(fitted):
    _, x = switched(3, seed=2)
    grid = np.linspace(-8, 8, 2001)
    for one in x:
        total = [
            np.exp(fitted.log_prob(np.column_stack([np.full_like(grid, k), grid]), one)).sum()
            for k in (0, 1)
        ]
        assert sum(total) * (grid[1] - grid[0]) == pytest.approx(1, abs=1e-3)
        draws = fitted.sample_posterior(one, 4000, random_state=0)
        mass = total[1] * (grid[1] - grid[0])
        assert abs(draws[:, 0].mean() - mass) < 4 * (mass * (1 - mass) / 4000) ** 0.5 + 1e-3


def test_an_estimate_of_the_score_is_near_that_of_the_exact_posterior(fitted):
    theta, x = switched(500, seed=3)
    p, means, sds = exact(x)
    k = theta[:, 0].astype(int)
    density = stats.norm(means[np.arange(500), k], sds[k]).logpdf(theta[:, 1])
    of_exact = (np.log(np.where(k == 1, p, 1 - p)) + density).mean()
    assert of_exact - 0.1 < fitted.score(theta, x) < of_exact + 0.02
    assert coverage_score(fitted, theta[:200], x[:200], n_samples=200, random_state=0) > 0.9


# ---- where training starts


@pytest.mark.parametrize("n_values", [2, 3, 50])
def test_training_starts_at_bayes_rule_for_gaussians(n_values):
    """X ~ N(m_k, 0.5^2 I) given k, with any mean for each of few values, and a line for many."""
    rng, n = np.random.default_rng(0), 20_000
    values = np.arange(n_values) / 2.0
    means = np.outer(values, [1.0, -0.5]) if n_values > 32 else rng.normal(size=(n_values, 2))
    index = rng.integers(n_values, size=n)
    x = means[index] + 0.5 * rng.normal(size=(n, 2))
    member = MixedMember(None, None, Categories([n_values], 2), [True])
    member.learn_values([values], [np.full(n_values, -np.log(n_values))])
    member.start_at(x, values[index][:, None], np.arange(2))
    log_p = stats.norm(means, 0.5).logpdf(x[:300, None]).sum(axis=2)
    p = np.exp(log_p - logsumexp(log_p, axis=1, keepdims=True))
    found = member.categories.log_probs(torch.tensor(x[:300]).float()).exp().detach().numpy()
    assert 0.5 * np.abs(found - p).sum(axis=1).mean() < 0.03


def test_the_flow_starts_at_a_regression_for_each_value():
    """C = (1 + k) x + k + noise: products of the context and the codes of k make it linear."""
    rng = np.random.default_rng(0)
    k, x = rng.integers(2, size=5000), rng.normal(size=(5000, 1))
    z = np.column_stack([2.0 * k - 1, (1 + k) * x[:, 0] + k + 0.3 * rng.normal(size=5000)])
    categories = Categories([2], 1)
    flow = make_flow("spline", 1, width_for_flow(1, categories.width), n_transforms=1)
    member = MixedMember(None, flow, categories, [True, False])
    member.learn_values([np.array([-1.0, 1.0])], [np.log([0.5, 0.5])])
    member.start_at(x, z, np.arange(1))
    log_q = member.log_prob(*(torch.tensor(a).float() for a in (z, x))).detach().numpy()
    mass = np.log(0.5) + stats.norm((1 + k) * x[:, 0] + k, 0.3).logpdf(z[:, 1])
    assert log_q.mean() == pytest.approx(mass.mean(), abs=0.02)


# ---- every kind of data and every option


FORMS = {
    "vectors": lambda x: x,
    "wide": lambda x: np.hstack([x + 0.1 * i for i in range(9)]),
    "sets": lambda x: x[:, None] + np.zeros((1, 3, 1)) + 0.1 * np.arange(3)[:, None],
    "ragged": lambda x: [np.repeat(row[None], 1 + i % 3, axis=0) for i, row in enumerate(x)],
}


@pytest.mark.parametrize("prior", [PRIOR, ALONE], ids=["beside continuous", "alone"])
@pytest.mark.parametrize("form", FORMS)
def test_draws_lie_in_the_support_and_a_pickle_repeats_them(prior, form):
    theta, x = pairs(150, prior=prior)
    X = FORMS[form](x)
    npe = NPEEstimator(prior=prior, random_state=0, **QUICK).fit(theta, X)
    options = {"check_typicality": False, "random_state": 0}
    draws = npe.sample_posterior(X[:4], 50, **options)
    whole = draws[..., prior.discrete]
    np.testing.assert_array_equal(whole, whole.round())
    assert np.isfinite(prior.log_prob(draws.reshape(-1, theta.shape[1]))).all()
    assert np.isfinite(npe.log_prob(draws, X[:4])).all()
    twin = pickle.loads(pickle.dumps(npe))
    np.testing.assert_array_equal(twin.sample_posterior(X[:4], 50, **options), draws)
    np.testing.assert_array_equal(twin.log_prob(theta, X), npe.log_prob(theta, X))


@pytest.mark.parametrize("prior", [PRIOR, ALONE], ids=["beside continuous", "alone"])
def test_the_masses_of_discrete_parameters_sum_to_one(prior):
    theta, x = pairs(300, prior=prior)
    npe = NPEEstimator(prior=prior, random_state=0, **QUICK).fit(theta, x)
    k = discrete_combinations(prior, 1000)
    if prior is ALONE:
        assert np.exp(npe.log_prob(k, x[0])).sum() == pytest.approx(1)
        assert npe.flow_ is None
        return
    c = np.linspace(-9, 9, 1501)
    grid = np.column_stack([np.repeat(k[:, 0], 1501), np.tile(c, len(k)), np.repeat(k[:, 1], 1501)])
    assert np.exp(npe.log_prob(grid, x[0])).sum() * (c[1] - c[0]) == pytest.approx(1, abs=1e-3)


def test_what_no_value_is_has_no_probability():
    theta, x = pairs(150)
    npe = NPEEstimator(prior=PRIOR, random_state=0, **QUICK).fit(theta, x)
    outside = np.array([[0.5, 0.0, 1.0], [2.0, 0.0, 1.0], [1.0, 0.0, 4.0], [1.0, 0.0, -1.0]])
    np.testing.assert_array_equal(npe.log_prob(outside, x[:4]), -np.inf)
    theta, x = pairs(150, prior=ALONE)
    npe = NPEEstimator(prior=ALONE, random_state=0, **QUICK).fit(theta, x)
    assert npe.log_prob([[200.0]], x[:1]) == -np.inf  # beyond what is left out of a Poisson


def test_options_files_and_further_training(tmp_path):
    theta, x = pairs(200)
    gaps = np.where(np.random.default_rng(0).random(x.shape) < 0.2, np.nan, x)
    masked = NPEEstimator(prior=PRIOR, missing="mask", random_state=0, **QUICK).fit(theta, gaps)
    assert masked.sample_posterior(gaps[0], 5, check_typicality=False).shape == (5, 3)
    module = NPEEstimator(prior=PRIOR, summary=torch.nn.Linear(2, 3), random_state=0, **QUICK)
    assert module.fit(theta, x).sample_posterior(x[0], 5).shape == (5, 3)
    affine = NPEEstimator(prior=PRIOR, flow="realnvp", warm_start=True, random_state=0, **QUICK)
    with pytest.warns(UserWarning, match="needs at least 2 variables and has 1"):
        affine.fit(theta, x)
    more = copy.deepcopy(affine)
    with pytest.warns(UserWarning, match="needs at least 2"):
        more.fit(theta, x)
    assert len(more.loss_curve_) == 4
    skops.io.dump(affine, tmp_path / "npe.skops")
    opened = skops.io.load(tmp_path / "npe.skops", trusted=skbi.TRUSTED_TYPES)
    np.testing.assert_array_equal(opened.log_prob(theta, x), affine.log_prob(theta, x))


def test_a_likelihood_refines_the_draws(fitted):
    theta, x = switched(1500)
    nle = NLEEstimator(prior=SHIFTED, max_iter=10, n_estimators=1, random_state=0).fit(theta, x)
    x_obs = np.array([[0.2, 0.1], [1.5, 0.5]])
    draws = fitted.sample_posterior(x_obs, 500, refine=nle, random_state=0)
    assert set(np.unique(draws[..., 0])) <= {0, 1}
    np.testing.assert_allclose(draws[..., 0].mean(axis=1), exact(x_obs)[0], atol=0.2)


def test_rounds_end_where_a_discrete_parameter_is_certain():
    prior = JointPrior({"k": stats.bernoulli(0.5), "c": stats.norm()})

    def simulator(theta, rng):
        return theta + 0.05 * rng.normal(size=2)

    npe = NPEEstimator(max_iter=5, n_transforms=1, n_estimators=1)
    options = {"rounds": 3, "n_samples": 200, "random_state": 0}
    found, *_ = sequential(prior, simulator, [1.0, 0.3], npe, **options)
    assert found.sample_posterior(np.array([1.0, 0.3]), 100)[:, 0].mean() == 1


@pytest.mark.parametrize(
    ("prior", "theta", "message"),
    [
        (PRIOR, [0.5, 0.0, 1.0], "1 rows of theta have no finite prior density, first row 3"),
        (
            ALONE,
            [150.0],
            r"'n' takes whole numbers from 0 to 1\d under.*got 150 in row 3",
        ),
        (JointPrior({"n": stats.randint(0, 9999)}), [5.0], "'n' has 9999 possible values.*NLE"),
        (JointPrior({"a": stats.norm(), "n": stats.randint(3, 4)}), [0, 3], "'n' can only be 3"),
    ],
)
def test_bad_input_says_what_was_expected(prior, theta, message):
    table, x = pairs(20, prior=prior)
    table[3] = theta
    with pytest.raises(ValueError, match=message):
        NPEEstimator(prior=prior, **QUICK).fit(table, x)
