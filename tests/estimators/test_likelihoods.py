"""Members of a likelihood: what they are conditioned on, and the density that they start at."""

import numpy as np
import pytest
import torch
from scipy import stats

from skbi import JointPrior, NLEEstimator
from skbi.estimators.likelihoods import LikelihoodMember, start_at_regression
from skbi.flows import FLOWS
from skbi.networks.layers import MLP
from skbi.preprocessing.coordinates import ParameterMap
from skbi.training.ensemble import Ensemble

PRIOR = JointPrior(
    {"flat": stats.uniform(-2, 6), "normal": stats.norm(1, 2), "coin": stats.bernoulli(0.4)}
)
QUICK = {"max_iter": 1, "learning_rate_init": 1e-9, "random_state": 0}
flows = pytest.mark.parametrize("flow", sorted(FLOWS))


def member(p, d, flow="spline"):
    """Build a member with an embedding of 5 numbers."""
    return LikelihoodMember(MLP(p, 5, (8,)), FLOWS[flow](d, 5 + p, n_transforms=2))


def linear_gaussian(n, seed=0):
    """Pairs of a flat and a normal parameter, and their exact log likelihood."""
    prior = JointPrior({name: PRIOR.marginals[name] for name in ("flat", "normal")})
    theta = prior.sample(n, random_state=seed)
    mean = theta @ [[1.0, 0.5, -2.0], [0.3, 1.0, 0.0]] + 3
    root = np.array([[0.5, 0.3, 0.0], [0.0, 0.2, 0.4], [0.0, 0.0, 1.0]])
    X = mean + np.random.default_rng([seed, 1]).normal(size=(n, 3)) @ root
    exact = stats.multivariate_normal(np.zeros(3), root.T @ root).logpdf(X - mean)
    return prior, theta, X, exact


def test_the_context_ends_with_the_regressors():
    theta = PRIOR.sample(200, random_state=0)
    parameters, likelihood = ParameterMap.fit(PRIOR, theta), member(3, 2)
    likelihood.read(parameters)
    z = torch.as_tensor(parameters.forward(theta)[0], dtype=torch.float32)
    context = likelihood.embed_parameters(z).detach()
    torch.testing.assert_close(context[:, :5], likelihood.embedding(z).detach())
    flat, *others = context[:, 5:].double().numpy().T
    np.testing.assert_allclose(flat, (theta[:, 0] - 1) / np.sqrt(3), atol=1e-4)
    np.testing.assert_array_equal(np.transpose(others), z[:, 1:].double().numpy())


@flows
def test_a_linear_gaussian_likelihood_is_exact_where_it_starts(flow):
    _, theta, X, exact = linear_gaussian(5000)
    likelihood = member(2, 3, flow)
    scale, shift = X.std(axis=0), X.mean(axis=0)
    z = torch.as_tensor((theta - theta.mean(axis=0)) / theta.std(axis=0), dtype=torch.float32)
    x = (X - shift) / scale
    start_at_regression([likelihood], z.double().numpy(), x)
    with torch.no_grad():
        context = likelihood.embed_parameters(z)
        log_q = likelihood.flow.log_prob(torch.as_tensor(x, dtype=torch.float32), context)
    gap = exact + np.log(scale).sum() - log_q.double().numpy()
    assert abs(gap.mean()) < 0.005
    assert np.abs(gap).mean() < 0.05


@flows
@pytest.mark.parametrize("n_estimators", [1, 2, 3])
def test_before_any_training_the_ensemble_is_at_the_regression(n_estimators, flow):
    """The prior is flat in one parameter, whose Gaussian coordinate would bend the line."""
    prior, theta, X, _ = linear_gaussian(3000)
    nle = NLEEstimator(prior=prior, flow=flow, n_estimators=n_estimators, **QUICK).fit(theta, X)
    _, theta, X, exact = linear_gaussian(1000, seed=1)
    assert abs((exact - nle.log_prob(theta, X)).mean()) < 0.02
    leader = Ensemble(nle.members_).leader
    assert nle.members_.index(leader) % 2 == 0


def test_members_that_are_added_take_turns_with_those_that_are_fitted():
    prior, theta, X, _ = linear_gaussian(500)
    nle = NLEEstimator(prior=prior, n_estimators=1, warm_start=True, **QUICK).fit(theta, X)
    nle.set_params(n_estimators=3).fit(theta, X)
    started = [bool(m.flow.start.weight.abs().max() > 1e-3) for m in nle.members_]
    assert started == [True, False, True]


def test_counts_start_at_the_regression_of_counts_with_noise():
    prior = JointPrior({"rate": stats.uniform(50, 100)})
    theta = prior.sample(3000, random_state=0)
    X = np.random.default_rng(0).poisson(theta).astype(float)
    nle = NLEEstimator(prior=prior, dequantize=1, **QUICK).fit(theta, X)
    exact = stats.poisson.logpmf(X, theta).mean()
    assert exact - nle.score(theta, X) == pytest.approx(0, abs=0.05)


@pytest.fixture(scope="module")
def nle():
    prior = JointPrior({"a": stats.norm(), "b": stats.norm()})
    theta = prior.sample(600, random_state=0)
    X = theta + 0.5 * np.random.default_rng(1).normal(size=(600, 2))
    return NLEEstimator(prior=prior, max_iter=4, random_state=0).fit(theta, X)


@pytest.mark.parametrize("n_particles", [64, 100])
def test_an_observation_does_not_change_another(nle, n_particles):
    """Bit for bit: single points, small sets and larger ones, in any company and on any worker."""
    rng = np.random.default_rng(2)
    sets = [rng.normal(size=(n, 2)) for n in (3, 1, 40, 7)]
    options = {"n_particles": n_particles, "random_state": 5, "check_typicality": False}
    for X in (rng.normal(size=(4, 2)), sets):
        together = nle.sample_posterior(X, 50, **options)
        for n_jobs in (1, 2):
            again = nle.sample_posterior(X, 50, n_jobs=n_jobs, **options)
            np.testing.assert_array_equal(again, together)
        fewer = nle.sample_posterior(X[:2], 50, **options)
        np.testing.assert_array_equal(fewer, together[:2])


@pytest.mark.parametrize(("n_particles", "n_threads"), [(64, 1), (90, 1), (90, 2), (None, 2)])
def test_a_batch_is_what_its_observations_are_one_by_one(nle, n_particles, n_threads):
    """Seeds are drawn in turn: one generator gives the batch and the single ones the same."""
    rng, before = np.random.default_rng(3), torch.get_num_threads()
    ragged = [rng.normal(size=(n, 2)) for n in (2, 70, 1, 31, 5, 32)]
    options = {"n_particles": n_particles, "check_typicality": False}
    torch.set_num_threads(n_threads)
    try:
        for X in (ragged, rng.normal(size=(5, 2))):
            together = nle.sample_posterior(X, 40, random_state=7, **options)
            seeds = np.random.default_rng(7)
            for i, draws in enumerate(together):
                one = nle.sample_posterior(X[i : i + 1], 40, random_state=seeds, **options)
                np.testing.assert_array_equal(one[0], draws)
    finally:
        torch.set_num_threads(before)


def test_the_likelihood_of_few_points_is_the_sum_over_points(nle):
    theta = nle.prior.sample(70, random_state=3)
    X = np.random.default_rng(4).normal(size=(5, 2))
    by_point = sum(nle.log_prob(theta, x[None]) for x in X)
    likelihood = nle._likelihoods(nle._check_observations(X[None])[0], nle.prior)[0]
    np.testing.assert_allclose(likelihood(theta), by_point, rtol=1e-5, atol=1e-4)


def test_approximations_lead_to_the_likelihood_whatever_the_order(nle):
    X = np.random.default_rng(5).normal(size=(300, 2))
    theta = nle.prior.sample(5, random_state=6)
    packed = [nle._check_observations(points[None])[0] for points in (X, X[::-1])]
    first, second = (nle._likelihoods(p, nle.prior)[0].approximations() for p in packed)
    assert len(first[0].scaled) == 37
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a(theta), b(theta), rtol=1e-5)


def test_the_evidence_has_the_error_of_the_likelihood(nle):
    X = np.random.default_rng(7).normal(size=(1, 10, 2))
    log_z, error, (info,) = nle.log_evidence(X, return_info=True, random_state=0)
    assert info.likelihood_error > 0
    assert error[0] == pytest.approx(np.hypot(info.log_evidence_error, info.likelihood_error))
    assert log_z[0] == info.log_evidence


def test_between_the_edge_and_a_bound_the_likelihood_is_that_at_the_edge():
    theta = PRIOR.sample(200, random_state=0)
    parameters, likelihood = ParameterMap.fit(PRIOR, theta), member(3, 2)
    likelihood.read(parameters)
    g = torch.linspace(2, 6, 9)[:, None] * torch.tensor([1.0, 1.0, 0.0])
    z = (g - likelihood.mean) / likelihood.scale
    flat = likelihood.embed_parameters(z * torch.tensor([1.0, 0.0, 0.0]))
    beyond = g[:, 0] > parameters.edge
    assert bool((flat[beyond] == flat[-1]).all())
    assert not bool((flat[~beyond] == flat[-1]).all(dim=1).any())
    normal = likelihood.embed_parameters(z * torch.tensor([0.0, 1.0, 0.0]))
    assert bool((normal[1:] != normal[:-1]).any(dim=1).all())
