"""NPE against closed forms, quadrature and its own density."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from hierarchical import Hierarchical
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import make_column_transformer
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.random_projection import GaussianRandomProjection
from torch import nn

from skbi import DoubleMoonSimulator, JointPrior, NPEEstimator, simulate
from skbi.estimators.amortised import _MAX_DRAWS
from skbi.estimators.summaries import embed_observations
from skbi.flows import BASE_SCALES
from skbi.networks import DeepSet

pytestmark = pytest.mark.filterwarnings("ignore:flow='realnvp' needs at least 2 variables")

QUICK = {"max_iter": 4, "n_transforms": 3, "hidden_layer_sizes": (16,), "random_state": 0}
flows = pytest.mark.parametrize("flow", ["realnvp", "spline"])


def linear_gaussian(p, n, seed=0):
    """Pairs of theta ~ N(0, I) and two noisy looks at a mixture of it."""
    rng = np.random.default_rng(seed)
    mix = np.linspace(0.5, 1.5, p * p).reshape(p, p) + np.eye(p)
    theta = rng.normal(size=(n, p))
    noise = np.array([0.3, 1.0])
    X = (theta @ mix)[:, None, :] + noise[:, None] * rng.normal(size=(n, 2, p))
    precision = np.eye(p) + mix @ mix.T * (1 / noise**2).sum()
    covariance = np.linalg.inv(precision)
    mean = (X / noise[:, None] ** 2).sum(axis=1) @ mix.T @ covariance
    return theta, X.reshape(n, 2 * p), mean, covariance


def ragged_pairs(n, sizes=(3, 25), seed=0):
    prior = DoubleMoonSimulator.prior()
    return simulate(prior, DoubleMoonSimulator(n_points=sizes), n, random_state=seed)


@pytest.fixture(scope="module")
def on_sets():
    """Return an estimator fitted on ragged sets, and further pairs."""
    npe = NPEEstimator(prior=DoubleMoonSimulator.prior(), **QUICK)
    return npe.fit(*ragged_pairs(1000)), *ragged_pairs(40, seed=1)


# ---- a closed-form posterior


@pytest.mark.parametrize("p", [1, 5])
def test_defaults_recover_a_conjugate_gaussian_posterior(p):
    theta, X, _, _ = linear_gaussian(p, 4000)
    _, X_obs, mean, covariance = linear_gaussian(p, 200, seed=1)
    prior = JointPrior({f"mu_{j}": stats.norm() for j in range(p)})
    npe = NPEEstimator(prior=prior, random_state=0).fit(theta, X)
    draws = npe.sample_posterior(X_obs, 4000)
    sd = np.sqrt(np.diag(covariance))
    error = (draws.mean(axis=1) - mean) / sd
    ratio = draws.std(axis=1) / sd
    assert np.sqrt((error**2).mean(axis=0)).max() < 0.1
    assert np.abs(ratio - 1).mean(axis=0).max() < 0.1


# ---- normalised densities


PRIORS = {
    "uniform": JointPrior({"a": stats.uniform(-3, 5)}),
    "narrow normal": JointPrior({"a": stats.norm(100, 0.01)}),
    "lognormal": JointPrior({"a": stats.lognorm(0.7, scale=np.exp(-3))}),
    "infinite at its edge": JointPrior({"a": stats.gamma(0.5)}),
    "infinite at both edges": JointPrior({"a": stats.beta(0.5, 0.5)}),
    "heavy tails": JointPrior({"a": stats.t(3)}),
    "two": JointPrior({"a": stats.uniform(0, 1), "b": stats.halfnorm(scale=2)}),
    "dependent": Hierarchical(),
    "none, one parameter": 1,
    "none, two parameters": 2,
}


def nodes(low, high, n):
    """Points and weights of a trapezoidal rule on (low, high), after a smooth substitution."""
    if np.isfinite([low, high]).all():
        s = np.linspace(-20, 20, n)
        share = 1 / (1 + np.exp(-s))
        theta, slope = low + (high - low) * share, (high - low) * share * (1 - share)
    elif np.isfinite(low):
        s = np.linspace(-25, 5, n)
        theta, slope = low + np.exp(s), np.exp(s)
    else:
        s = np.linspace(-5, 5, n)
        theta, slope = np.sinh(s), np.cosh(s)
    return theta, slope * (s[1] - s[0])


@flows
@pytest.mark.parametrize("n_estimators", [1, 2])
@pytest.mark.parametrize("kind", PRIORS)
def test_the_posterior_integrates_to_one(kind, n_estimators, flow):
    prior = PRIORS[kind]
    rng = np.random.default_rng(1)  # not the prior's seed, or the noise is theta and X tells all
    if isinstance(prior, int):
        prior, theta = None, rng.normal(size=(400, prior))
    else:
        theta = prior.sample(400, random_state=0)
    X = theta + 0.5 * theta.std(axis=0) * rng.normal(size=theta.shape)
    npe = NPEEstimator(prior=prior, flow=flow, n_estimators=n_estimators, **QUICK).fit(theta, X)
    p = theta.shape[1]
    support = np.tile([-np.inf, np.inf], (p, 1)) if prior is None else prior.support
    shift = 100 if kind == "narrow normal" else 0
    unit = 0.01 if kind == "narrow normal" else 1
    axes = [nodes(*bounds, 20_001 if p == 1 else 401) for bounds in support]
    grid = np.stack(np.meshgrid(*(theta for theta, _ in axes), indexing="ij"), -1).reshape(-1, p)
    weight = np.prod(np.meshgrid(*(w for _, w in axes), indexing="ij"), axis=0).ravel() * unit
    if kind == "dependent":  # the value in units of the scale: the density is singular at (0, 0)
        grid, weight = grid * np.column_stack([1 + 0 * weight, grid[:, 0]]), weight * grid[:, 0]
    inside = (grid > support[:, 0]).all(axis=1) & (grid < support[:, 1]).all(axis=1)
    for x in X[:2]:
        density = np.exp(npe.log_prob(shift + unit * grid[inside], x))
        # draws of the widest component may be nearer to a bound than the grid, or a number, gets
        beyond = float(max(member.flow.base_shares[-1] for member in npe.members_))
        assert abs((density * weight[inside]).sum() - 1) < 1e-3 + beyond


def test_outside_the_support_the_density_is_zero_and_no_draw_falls_there():
    prior = JointPrior({"a": stats.uniform(0, 1), "b": stats.halfnorm()})
    theta = prior.sample(300, random_state=0)
    npe = NPEEstimator(prior=prior, **QUICK).fit(theta, theta)
    X_obs = np.array([[0.0, 0.0], [1.0, 5.0], [-50.0, 1e6]])
    with pytest.warns(UserWarning, match="1 of 3 observations are unlike"):
        draws = npe.sample_posterior(X_obs, 2000)
    assert np.isfinite(prior.log_prob(draws.reshape(-1, 2))).all()
    assert (npe.log_prob([[-0.1, 1], [0.5, -0.1], [1.1, 1]], X_obs) == -np.inf).all()
    assert np.isfinite(npe.log_prob([[0.5, 1]], X_obs[:1])).all()


@flows
@pytest.mark.parametrize("n_estimators", [1, 3])
@pytest.mark.parametrize("p", [1, 2])
def test_draws_follow_the_density(p, n_estimators, flow):
    prior = JointPrior({"a": stats.uniform(-2, 4), "b": stats.lognorm(0.5)})
    prior = JointPrior(dict(list(prior.marginals.items())[:p]))
    theta = prior.sample(1000, random_state=0)
    X = theta**2 + 0.3 * np.random.default_rng(0).normal(size=theta.shape)
    npe = NPEEstimator(prior=prior, flow=flow, n_estimators=n_estimators, **QUICK).fit(theta, X)
    draws = npe.sample_posterior(X[0], 4000)
    candidates = prior.sample(400_000, random_state=1)
    weights = np.exp(npe.log_prob(candidates, X[0]) - prior.log_prob(candidates))
    rng = np.random.default_rng(2)
    accepted = candidates[rng.random(len(candidates)) < weights / weights.max()]
    assert len(accepted) > 2000
    directions = np.vstack([np.eye(p), rng.normal(size=(4, p))])
    for direction in directions:
        test = stats.ks_2samp(draws @ direction, accepted @ direction)
        assert test.pvalue > 1e-3 / len(directions)


def test_an_ensemble_is_the_mixture_of_its_members():
    theta, X, _, _ = linear_gaussian(2, 300)
    npe = NPEEstimator(n_estimators=3, **QUICK).fit(theta, X)
    members, together = npe.members_, npe.log_prob(theta, X)
    weights = np.exp([float(member.log_weight) for member in members])
    assert weights.sum() == pytest.approx(1)
    parts = []
    for member in members:
        npe.members_ = [member]
        parts.append(npe.log_prob(theta, X))
    mixed = np.average(np.exp(parts), axis=0, weights=weights)
    np.testing.assert_allclose(np.exp(together), mixed, rtol=1e-6)
    assert np.ptp(parts, axis=0).max() > 0.01


# ---- sets


def padded(sets, length):
    X = np.full((len(sets), length, 2), np.nan)
    for row, x in zip(X, sets, strict=True):
        row[: len(x)] = x
    return X


def test_ragged_sets_give_the_same_densities_alone_in_batches_and_padded(on_sets):
    npe, theta, X = on_sets
    expected = np.concatenate([npe.log_prob(t[None], x) for t, x in zip(theta, X, strict=True)])
    for form in (X, list(X), tuple(X), padded(X, 25), padded(X, 60)):
        np.testing.assert_allclose(npe.log_prob(theta, form), expected, atol=1e-5)
    for k in (1, 7, 39):
        np.testing.assert_allclose(npe.log_prob(theta[:k], X[:k]), expected[:k], atol=1e-5)


@settings(max_examples=10)
@given(seed=st.integers(0, 999))
def test_permuting_the_points_of_a_set_changes_nothing(on_sets, seed):
    npe, theta, X = on_sets
    rng = np.random.default_rng(seed)
    shuffled = [rng.permutation(x) for x in X]
    np.testing.assert_allclose(npe.log_prob(theta, shuffled), npe.log_prob(theta, X), atol=1e-5)


@pytest.mark.parametrize("n_summary_features", [32, 1])
def test_sets_start_at_a_regression_on_their_moments(n_summary_features):
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(2000, 2))
    X = theta[:, None] + rng.normal(size=(2000, 10, 2))
    prior = JointPrior({"a": stats.norm(), "b": stats.norm()})
    options = {"n_summary_features": n_summary_features, "random_state": 0}
    npe = NPEEstimator(prior=prior, max_iter=1, learning_rate_init=1e-12, **options)
    log_q = npe.fit(theta[:1000], X[:1000]).log_prob(theta[1000:], X[1000:])
    exact = stats.norm(X.sum(axis=1) / 11, 11**-0.5).logpdf(theta)[1000:]
    unknown = stats.norm.logpdf(theta[1000:, n_summary_features:])
    known = exact[:, :n_summary_features].sum(axis=1) + unknown.sum(axis=1)
    assert (known - log_q).mean() < 0.1


def test_a_larger_set_narrows_the_posterior():
    """With theta the mean of the points, the posterior sd is 1 / sqrt(1 + S), whatever S."""
    prior = JointPrior({"mu": stats.norm()})
    rng = np.random.default_rng(0)
    theta = prior.sample(4000, random_state=0)
    X = [t + rng.normal(size=(s, 1)) for t, s in zip(theta, rng.integers(1, 21, 4000), strict=True)]
    npe = NPEEstimator(prior=prior, n_estimators=1, max_iter=15, random_state=0).fit(theta, X)
    for size in (3, 10, 18):
        X_obs = rng.normal(size=(100, 1, 1)) + rng.normal(size=(100, size, 1))
        draws, exact = npe.sample_posterior(X_obs, 1000), X_obs.sum(axis=(1, 2)) / (1 + size)
        sd = 1 / np.sqrt(1 + size)
        assert abs(draws.std(axis=1).mean() / sd - 1) < 0.1
        assert np.sqrt(((draws.mean(axis=(1, 2)) - exact) ** 2).mean()) < 0.2 * sd


# ---- shapes, pairing, randomness


def test_one_observation_or_many():
    theta, X, _, _ = linear_gaussian(2, 300)
    npe = NPEEstimator(**QUICK).fit(theta, X)
    many = npe.sample_posterior(X[:3], 5)
    one = npe.sample_posterior(X[0], 5)
    assert many.shape == (3, 5, 2)
    assert one.shape == (5, 2)
    assert many.dtype == one.dtype == np.float64
    np.testing.assert_allclose(one, npe.sample_posterior(X[:1], 5)[0])
    np.testing.assert_allclose(npe.log_prob(theta, X[0]), npe.log_prob(theta, X[[0] * 300]))
    assert npe.score(theta, X) == npe.log_prob(theta, X).mean()


@pytest.mark.parametrize("n_samples", [1, 700, _MAX_DRAWS + 1])
def test_blocks_of_draws_do_not_show(n_samples):
    """However many draws are asked for, they follow the flow's base."""
    theta, X, _, _ = linear_gaussian(1, 300)
    npe = NPEEstimator(n_estimators=1, **QUICK).fit(theta, X)
    n_obs = 3 if n_samples > _MAX_DRAWS else 90
    draws = npe.sample_posterior(X[:n_obs], n_samples)
    assert draws.shape == (n_obs, n_samples, 1)
    assert len(np.unique(draws)) > 0.99 * draws.size
    u = []
    for x, sample in zip(X, draws, strict=False):
        (context,), *_ = embed_observations(npe._check_observations(x)[0], npe._maps, npe.members_)
        z = torch.as_tensor(npe._maps.theta.forward(sample)[0])
        with torch.no_grad():
            u.append(npe.flow_(z.float(), context.expand(len(z), -1))[0].numpy())
    shares = npe.flow_.base_shares.numpy()
    base = lambda u: stats.norm.cdf(u[:, None] / BASE_SCALES) @ shares  # noqa: E731
    assert stats.kstest(np.concatenate(u).ravel(), base).pvalue > 1e-3


def test_the_number_of_threads_changes_no_draw(on_sets):
    npe, _, X = on_sets
    draws, before = [], torch.get_num_threads()
    try:
        for n_threads in (1, 2, 4):
            torch.set_num_threads(n_threads)
            draws.append(npe.sample_posterior(X[:3], _MAX_DRAWS + 1))
            assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(draws[0], draws[1])
    assert np.array_equal(draws[0], draws[2])


@pytest.mark.parametrize("kind", ["vectors", "ragged sets"])
def test_the_random_state_decides_and_global_generators_are_untouched(kind):
    theta, X = linear_gaussian(2, 300)[:2] if kind == "vectors" else ragged_pairs(300)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    first, again, other = (
        NPEEstimator(**{**QUICK, "random_state": seed}).fit(theta, X) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.log_prob(theta, X), again.log_prob(theta, X))
    assert not np.array_equal(first.log_prob(theta, X), other.log_prob(theta, X))
    draws = first.sample_posterior(X[:2], 10)
    np.testing.assert_array_equal(draws, again.sample_posterior(X[:2], 10))
    given = first.sample_posterior(X[:2], 10, random_state=5)
    np.testing.assert_array_equal(given, again.sample_posterior(X[:2], 10, random_state=5))
    assert not np.array_equal(draws, given)
    np.testing.assert_array_equal(before[0], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(before[1], torch.get_rng_state())


def test_missing_entries_can_be_masked():
    """Two looks at theta, the second often missing: the posterior must know which it has.

    Not to know costs log(7) - 1/2 = 1.4 nats where the second look is there, whose posterior is
    seven times narrower; a tenth of that is left to learning from 2,000 pairs.
    """
    rng, prior = np.random.default_rng(0), JointPrior({"mu": stats.norm()})
    theta = rng.normal(size=(4000, 1))
    X = theta + np.array([1.0, 0.1]) * rng.normal(size=(4000, 2))
    missing = rng.random(4000) < 0.5
    X[missing, 1] = np.nan
    npe = NPEEstimator(prior=prior, missing="mask", max_iter=20, random_state=0)
    npe.fit(theta[:2000], X[:2000])
    precision = 1 + (np.array([1, 100]) * ~np.isnan(X)).sum(axis=1)
    mean = np.nansum(np.array([1, 100]) * X, axis=1) / precision
    exact = stats.norm.logpdf(theta[:, 0], mean, precision**-0.5)
    gap = exact[2000:] - npe.log_prob(theta[2000:], X[2000:])
    for some in (missing[2000:], ~missing[2000:]):
        assert gap[some].mean() < 0.14
    assert npe.sample_posterior([[0.3, np.nan]], 1000).std() > 0.5


def test_log_prob_needs_pairs(on_sets):
    npe, theta, X = on_sets
    with pytest.raises(ValueError, match="as many as theta has rows, 3; got 2"):
        npe.log_prob(theta[:3], X[:2])
    with pytest.raises(ValueError, match="must have 3 columns"):
        npe.log_prob(theta[:2, :2], X[:2])


# ---- summaries of the user's own


class Moments(nn.Module):
    """Mean and square of packed sets: points (N, d), sizes (n,) -> (n, 2d)."""

    def forward(self, points, sizes):
        parts = points.split(sizes.tolist())
        return torch.stack([torch.cat([x.mean(dim=0), (x**2).mean(dim=0)]) for x in parts])


class Seen(BaseEstimator, TransformerMixin):
    """Remembers what it was fitted on, and takes column means of sets."""

    def fit(self, X, y):
        self.X_, self.y_ = X, y
        return self

    def transform(self, X):
        return np.array([np.mean(x, axis=0) for x in X])


NOISY = np.random.default_rng(1).normal(size=(400, 8))
NETWORK = nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Dropout(0.1), nn.Linear(16, 3))


def looks(n=400):
    """Two parameters seen through eight noisy features, and through sets of four points."""
    theta = np.random.default_rng(0).normal(size=(n, 2))
    X = theta @ np.linspace(-1, 1, 16).reshape(2, 8) + 0.3 * NOISY[:n]
    return theta, X, theta[:, None] + 0.5 * NOISY[:n].reshape(n, 4, 2)


VECTORS = [PCA(3), PLSRegression(2), make_pipeline(StandardScaler(), PCA(2)), NETWORK]
SETS = [Seen(), Moments(), DeepSet(2, 6, n_rounds=1)]


@pytest.mark.parametrize("n_estimators", [1, 2])
@pytest.mark.parametrize("summary", VECTORS + SETS, ids=lambda s: type(s).__name__)
def test_a_summary_is_learnt_from_copied_and_kept(summary, n_estimators, tmp_path):
    theta, X, sets = looks()
    X = X if summary in VECTORS else sets
    before = copy.deepcopy(summary)
    options = {**QUICK, "n_estimators": n_estimators, "summary": summary, "max_iter": 10}
    npe = NPEEstimator(**options).fit(theta, X)
    blind = NPEEstimator(**{**options, "summary": "auto"}).fit(theta, np.ones((400, 1)))
    assert npe.score(theta, X) > blind.score(theta, np.ones((400, 1))) + 0.5
    assert npe.n_features_in_ == X.shape[-1]
    for twin in (pickle.loads(pickle.dumps(npe)), clone(npe).fit(theta, X)):
        np.testing.assert_array_equal(twin.log_prob(theta, X), npe.log_prob(theta, X))
    np.testing.assert_allclose(npe.sample_posterior(X[0], 3), npe.sample_posterior(X[:1], 3)[0])
    if isinstance(summary, nn.Module):  # the user's own stays as it was
        assert npe.summary_transformer_ is None
        assert type(npe.summary_net_) is type(summary)
        for one, other in zip(summary.parameters(), before.parameters(), strict=True):
            assert torch.equal(one, other)
    else:
        assert npe.summary_net_ is None
        assert not any(name.endswith("_") for name in vars(summary) if name[0] != "_")


def test_a_transformer_is_fitted_on_the_pairs_to_learn_from():
    theta, _, sets = looks(100)
    options = {"n_estimators": 1, "validation_fraction": 0.2, **QUICK}
    npe = NPEEstimator(summary=Seen(), **options).fit(theta, sets)
    seen = npe.summary_transformer_
    assert len(seen.X_) == len(seen.y_) == 80
    rows = [int(np.flatnonzero((theta == t).all(axis=1))[0]) for t in seen.y_]
    np.testing.assert_array_equal(seen.X_, sets[rows])
    kept = np.delete(theta, rows, axis=0), np.delete(sets, rows, axis=0)
    assert npe.best_validation_score_ == pytest.approx(npe.score(*kept), abs=1e-4)
    npe.set_params(warm_start=True).fit(theta, sets)
    assert npe.summary_transformer_ is seen


def test_warm_start_goes_on_behind_a_transformer_that_changes_the_width():
    theta = np.random.default_rng(0).normal(size=(100, 1))
    X = theta @ np.ones((1, 5)) + np.random.default_rng(1).normal(size=(100, 5))
    npe = NPEEstimator(summary=PCA(2), warm_start=True, **QUICK).fit(theta, X)
    n_before = len(npe.loss_curve_)
    assert len(npe.fit(theta, X).loss_curve_) == 2 * n_before


def test_a_transformer_may_return_sets():
    theta, X, _ = looks()
    to_sets = FunctionTransformer(lambda X: X.reshape(-1, 4, 2))
    npe = NPEEstimator(summary=to_sets, **QUICK).fit(theta, X)
    assert isinstance(npe.summary_net_, DeepSet)
    turned = X.reshape(-1, 4, 2)[:, ::-1].reshape(-1, 8)
    np.testing.assert_allclose(npe.log_prob(theta, turned), npe.log_prob(theta, X), atol=1e-5)


def test_frames_of_mixed_columns_pass_through_a_column_transformer():
    theta, X, _ = looks()
    frame = pd.DataFrame(X[:, :2], columns=["x", "y"])
    frame["side"] = np.where(theta[:, 0] > 0, "left", "right")
    summary = make_column_transformer(
        (StandardScaler(), ["x", "y"]), (OneHotEncoder(sparse_output=False), ["side"])
    )
    npe = NPEEstimator(summary=summary, **{**QUICK, "max_iter": 15}).fit(theta, frame)
    assert npe.feature_names_in_.tolist() == ["x", "y", "side"]
    left = npe.sample_posterior(frame[frame.side == "left"], 20)
    assert np.mean(left[..., 0] > 0) > 0.9
    with pytest.raises(ValueError, match="feature names"):
        npe.log_prob(theta, frame.rename(columns={"side": "hand"}))


def test_options_of_a_transformer_can_be_searched():
    theta, X, _ = looks()
    search = GridSearchCV(
        NPEEstimator(summary=PCA(), **{**QUICK, "max_iter": 10}),
        {"summary__n_components": [1, 2]},
        cv=2,
    )
    assert search.fit(theta, X).best_params_ == {"summary__n_components": 2}


def test_a_random_transformer_follows_the_random_state():
    theta, X, _ = looks()
    projection = GaussianRandomProjection(4)
    one, other = (NPEEstimator(summary=projection, **QUICK).fit(theta, X) for _ in range(2))
    np.testing.assert_array_equal(one.log_prob(theta, X), other.log_prob(theta, X))


def test_values_out_of_a_transformer_are_checked():
    theta, X, _ = looks(50)
    with pytest.raises(ValueError, match=r"summary\.transform\(X\) has missing values"):
        NPEEstimator(
            summary=FunctionTransformer(lambda X: np.where(X > 0, X, np.nan)), **QUICK
        ).fit(theta, X)
    with pytest.raises(ValueError, match="same number of pairs; got 50 and 49"):
        NPEEstimator(summary=PCA(2), **QUICK).fit(theta, X[1:])
