"""Joint distributions of several parameters: their maps, their densities and their files."""

import copy
import pickle

import numpy as np
import pytest
import skops.io
from scipy import stats
from scipy.special import ndtr

import skbi
from skbi import JointPrior, NPEEstimator

MEAN, COVARIANCE = [1.0, -2.0], [[1.0, 0.9], [0.9, 2.0]]
ALPHA = [0.7, 2.0, 3.0]
PRIORS = {
    "normal": JointPrior({("a", "b"): stats.multivariate_normal(MEAN, COVARIANCE)}),
    "shares": JointPrior({("a", "b"): stats.dirichlet(ALPHA)}),
    "mixed": JointPrior(
        {"k": stats.poisson(2), ("a", "b"): stats.dirichlet(ALPHA), "c": stats.gamma(2)}
    ),
    "list": JointPrior({("a", "b"): [stats.norm(1, 2), stats.gamma(3)]}),
}
every = pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)


@every
def test_gaussian_coordinates_are_gaussian_and_invertible(prior):
    theta = prior.sample(4000, random_state=0)
    z = prior.to_normal(theta)
    continuous = ~prior.discrete
    correlation = np.corrcoef(z[:, continuous].T)
    np.testing.assert_allclose(correlation, np.eye(continuous.sum()), atol=5 * 4000**-0.5)
    for column in z[:, continuous].T:
        assert stats.kstest(column, "norm").pvalue > 1e-4
    np.testing.assert_allclose(prior.from_normal(z), theta, rtol=1e-9)
    np.testing.assert_allclose(prior.cdf(theta)[:, continuous], ndtr(z[:, continuous]))
    if not prior.discrete.any():
        np.testing.assert_allclose(prior.ppf(prior.cdf(theta)), theta, rtol=1e-6)


@every
def test_the_density_is_the_determinant_of_the_map(prior):
    theta = prior.sample(200, random_state=1)
    columns = np.flatnonzero(~prior.discrete)
    step = 1e-6
    slopes = []
    for j in columns:
        moved = step * np.eye(theta.shape[1])[j] * np.minimum(1, np.abs(theta[:, [j]]))
        difference = prior.to_normal(theta + moved) - prior.to_normal(theta - moved)
        slopes.append(difference[:, columns] / (2 * moved[:, [j]]))
    log_det = np.linalg.slogdet(np.stack(slopes, axis=2))[1]
    of_normal = stats.norm.logpdf(prior.to_normal(theta)[:, columns]).sum(axis=1)
    masses = prior.log_masses(theta).sum(axis=1)
    np.testing.assert_allclose(prior.log_prob(theta), of_normal + log_det + masses, atol=1e-2)


def test_densities_are_those_of_scipy():
    theta = PRIORS["shares"].sample(50, random_state=0)
    shares = np.column_stack([theta, 1 - theta.sum(axis=1)])
    expected = stats.dirichlet(ALPHA).logpdf(shares.T)
    np.testing.assert_allclose(PRIORS["shares"].log_prob(theta), expected)
    theta = PRIORS["normal"].sample(50, random_state=0)
    expected = stats.multivariate_normal(MEAN, COVARIANCE).logpdf(theta)
    np.testing.assert_allclose(PRIORS["normal"].log_prob(theta), expected)


def test_shares_never_leave_the_simplex():
    z = np.random.default_rng(0).uniform(-40, 40, size=(2000, 2))
    theta = PRIORS["shares"].from_normal(z)
    assert (theta > 0).all()
    assert (theta.sum(axis=1) <= 1).all()
    outside = [[0.6, 0.5], [-0.1, 0.5], [0.0, 0.5]]
    np.testing.assert_array_equal(PRIORS["shares"].log_prob(outside), -np.inf)


@every
def test_files_hold_names_and_numbers(prior, tmp_path):
    theta = prior.sample(5, random_state=0)
    for twin in (pickle.loads(pickle.dumps(prior)), copy.deepcopy(prior)):
        np.testing.assert_array_equal(twin.log_prob(theta), prior.log_prob(theta))
        assert (twin.names, repr(twin)) == (prior.names, repr(prior))
    skops.io.dump(NPEEstimator(prior=prior), tmp_path / "npe.skops")
    opened = skops.io.load(tmp_path / "npe.skops", trusted=skbi.TRUSTED_TYPES)
    np.testing.assert_array_equal(opened.prior.log_prob(theta), prior.log_prob(theta))


def test_posteriors_of_shares_are_those_of_bayes_rule():
    """Counts of three kinds: alpha is updated by the counts."""
    prior = PRIORS["shares"]
    theta = prior.sample(2000, random_state=0)
    shares = np.column_stack([theta, 1 - theta.sum(axis=1)])
    x = np.random.default_rng(0).multinomial(50, shares)
    options = {"max_iter": 8, "n_transforms": 2, "n_estimators": 1, "random_state": 0}
    npe = NPEEstimator(prior=prior, **options).fit(theta, x)
    x_obs = np.array([[20, 20, 10], [5, 15, 30]])
    draws = npe.sample_posterior(x_obs, 2000, random_state=0)
    assert np.isfinite(prior.log_prob(draws.reshape(-1, 2))).all()
    for counts, of_one in zip(x_obs, draws, strict=True):
        alpha = ALPHA + counts
        mean = alpha[:2] / alpha.sum()
        sd = (mean * (1 - mean) / (alpha.sum() + 1)) ** 0.5
        np.testing.assert_allclose((of_one.mean(axis=0) - mean) / sd, 0, atol=0.3)
        np.testing.assert_allclose(of_one.std(axis=0) / sd, 1, atol=0.2)


def test_a_prior_that_is_known_by_its_samples_needs_no_prior():
    """NPE learns the posterior under what theta was drawn from; here a correlated normal one."""
    theta = PRIORS["normal"].sample(2000, random_state=0)
    x = theta + np.random.default_rng(1).normal(size=theta.shape)
    npe = NPEEstimator(max_iter=3, n_transforms=1, n_estimators=1, random_state=0).fit(theta, x)
    draws = npe.sample_posterior(np.zeros(2), 2000, random_state=0)
    precision = np.linalg.inv(COVARIANCE)
    covariance = np.linalg.inv(precision + np.eye(2))
    off = draws.mean(axis=0) - covariance @ precision @ MEAN
    np.testing.assert_allclose(off / np.diag(covariance) ** 0.5, 0, atol=0.25)
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.1)


@pytest.mark.parametrize(
    ("marginals", "error", "message"),
    [
        (
            {("a",): stats.dirichlet([1, 1, 1])},
            ValueError,
            r"parameters as names, 1; got 2",
        ),
        ({"a": stats.multivariate_normal([0, 0])}, ValueError, r"names, 1; got 2 of multivariate"),
        ({("a", "b"): stats.norm()}, ValueError, r"names, 2; got 1 of norm"),
        ({("a", 3): stats.dirichlet([1, 1, 1])}, TypeError, "strings, or tuples of them"),
        ({("a", "b"): stats.dirichlet([1, 1, 1]), "a": stats.norm()}, ValueError, "must differ"),
        (
            {("a", "b"): stats.multivariate_normal([0, 0], [[1, 1], [1, 1]], allow_singular=True)},
            ValueError,
            "covariance matrix of full rank",
        ),
    ],
)
def test_bad_input_says_what_was_expected(marginals, error, message):
    with pytest.raises(error, match=message):
        JointPrior(marginals)


def test_parameters_that_are_drawn_together_are_left_out_together():
    prior = PRIORS["mixed"]
    assert prior.without("a", "b").names == ("k", "c")
    with pytest.raises(ValueError, match=r"a part of \('a', 'b'\)"):
        prior.without("a")
