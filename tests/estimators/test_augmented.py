"""Made pairs: what they look like, that they help or are not used, and what they need."""

import numpy as np
import pytest
import torch
from scipy import stats

from skbi import JointPrior, NLEEstimator, NPEEstimator, sequential
from skbi.estimators.pairs import TrainingData
from skbi.preprocessing.packed import Packed

PRIOR = JointPrior({"a": stats.uniform(-1, 2), "b": stats.norm()})
SMALL = {"prior": PRIOR, "max_iter": 4, "n_estimators": 2, "random_state": 0}


def pairs(n, seed):
    """Simulate a count, whose logarithmic mean is a, and b or -b with noise."""
    rng = np.random.default_rng(seed)
    theta = PRIOR.sample(n, random_state=seed)
    counts = rng.poisson(np.exp(1 + theta[:, 0]))
    X = np.c_[counts, theta[:, 1] * rng.choice([-1, 1], n) + 0.2 * rng.normal(size=n)]
    return theta, X


def training_data(theta, X):
    n = np.arange(len(theta))
    return TrainingData(
        theta, Packed(X), np.array(["a", "b"]), np.ones(len(n)), n[50:], n[:50], n.copy()
    )


@pytest.fixture(scope="module")
def made():
    """Pairs made from 400, the first 50 of which validate."""
    npe = NPEEstimator(prior=PRIOR)
    data = training_data(*pairs(400, 0))
    return data, npe._with_made_pairs(data, 3000, np.random.default_rng(0))


def test_made_pairs_come_last_and_train_only(made):
    data, both = made
    np.testing.assert_array_equal(both.theta[:400], data.theta)
    np.testing.assert_array_equal(both.X.points[:400], data.X.points)
    np.testing.assert_array_equal(both.validation, data.validation)
    np.testing.assert_array_equal(both.training[:350], data.training)
    np.testing.assert_array_equal(both.training[350:], np.arange(400, 3400))
    np.testing.assert_array_equal(both.rows_of(both.training), both.training)


def test_made_pairs_are_distributed_as_simulated_ones(made):
    """The margin is twice what 400 simulated pairs, that the likelihood knows, tell of moments."""
    theta, X = made[1].theta[400:], made[1].X.points[400:]
    new_theta, new_X = pairs(3000, 1)
    assert np.isfinite(PRIOR.log_prob(theta)).all()
    features = [np.c_[t, x, x**2, t * x] for t, x in ((theta, X), (new_theta, new_X))]
    error = np.abs(features[0].mean(axis=0) - features[1].mean(axis=0))
    assert (error < 2 * 3 * features[1].std(axis=0) / np.sqrt(350)).all()


def test_whole_numbers_stay_whole(made):
    X = made[1].X.points[400:]
    np.testing.assert_array_equal(X[:, 0], np.round(X[:, 0]))
    assert (np.round(X[:, 1]) != X[:, 1]).all()


def test_without_a_prior_theta_is_one_of_the_training_parameters():
    theta, X = pairs(300, 0)
    data = training_data(theta, X)
    both = NPEEstimator(max_iter=2)._with_made_pairs(data, 500, np.random.default_rng(0))
    assert np.isin(both.theta[300:], theta[50:]).all()


def test_training_goes_on_from_simulated_pairs_and_validates_no_worse():
    theta, X = pairs(600, 0)
    options = {**SMALL, "max_iter": 10}
    plain = NPEEstimator(**options).fit(theta, X)
    augmented = NPEEstimator(augment=10, **options).fit(theta, X)
    assert augmented.loss_curve_[:10] == plain.loss_curve_
    assert augmented.n_iter_ == 15
    assert augmented.best_validation_score_ > plain.best_validation_score_


@pytest.mark.parametrize("max_iter", [4, 10])
def test_pairs_that_do_not_help_are_not_used(monkeypatch, max_iter):
    """Here theta of made pairs has nothing to do with X.

    Nor are the members that were to learn from them used alone, however they score.
    """
    make = NPEEstimator._with_made_pairs

    def spoil(self, data, n_made, rng):
        both = make(self, data, n_made, rng)
        both.theta[-n_made:] = rng.permutation(both.theta[-n_made:])
        return both

    monkeypatch.setattr(NPEEstimator, "_with_made_pairs", spoil)
    theta, X = pairs(500, 0)
    options = {**SMALL, "max_iter": max_iter}
    plain = NPEEstimator(**options).fit(theta, X)
    with pytest.warns(UserWarning, match="did not help"):
        spoilt = NPEEstimator(augment=5, **options).fit(theta, X)
    np.testing.assert_array_equal(spoilt.log_prob(theta, X), plain.log_prob(theta, X))
    assert spoilt.best_validation_score_ == plain.best_validation_score_


@pytest.mark.filterwarnings("ignore:Pairs made")  # so short a training may not help
@pytest.mark.parametrize(("many", "n_members"), [(101, 2), (100, 1)])
def test_one_member_learns_from_many_pairs_and_two_from_few(monkeypatch, many, n_members):
    plans, plan = [], NPEEstimator._plan_on_made_pairs

    def keep_plan(self, data, **options):
        plans.append(plan(self, data, **options))
        return plans[-1]

    monkeypatch.setattr("skbi.estimators.augmented._MANY_PAIRS", many)
    monkeypatch.setattr(NPEEstimator, "_plan_on_made_pairs", keep_plan)
    NPEEstimator(augment=1, **{**SMALL, "max_iter": 40}).fit(*pairs(100, 0))
    assert {each.n_members for each in plans} == {n_members}
    assert {each.epoch_share * each.max_iter for each in plans} == {10 / n_members}


def test_auto_makes_none_of_sets_and_says_so():
    theta, X = pairs(200, 0)
    sets = np.stack([X, X], axis=1)
    with pytest.warns(UserWarning, match="auto' makes no pairs: it needs vectors, as"):
        npe = NPEEstimator(augment="auto", **SMALL).fit(theta, sets)
    assert npe.n_iter_ == 4


@pytest.mark.parametrize(
    ("options", "X", "needs"),
    [
        ({}, np.ones((50, 3, 2)) * np.arange(50)[:, None, None], "vectors"),
        ({"missing": "mask"}, None, "missing='error'"),
        ({"early_stopping": False}, None, "early_stopping=True"),
    ],
)
def test_what_is_needed_is_said_before_training(options, X, needs):
    theta, vectors = pairs(50, 0)
    npe = NPEEstimator(augment=5, **SMALL, **options)
    with pytest.raises(ValueError, match=rf"augment=5 needs {needs}.*augment='auto'"):
        npe.fit(theta, vectors if X is None else X)
    assert not hasattr(npe, "members_")


@pytest.mark.parametrize("odd", [np.full(50, 0.5), None])
def test_features_without_a_density_are_named_before_training(odd):
    theta, vectors = pairs(50, 0)
    X = np.c_[vectors, vectors[:, 1] if odd is None else odd]
    columns = r"\[1, 2\]" if odd is None else r"\[2\]"
    with pytest.raises(ValueError, match=rf"augment=5 needs features that .* columns {columns}"):
        NPEEstimator(augment=5, **SMALL).fit(theta, X)
    with pytest.warns(UserWarning, match=rf"makes no pairs: .* columns {columns}"):
        NPEEstimator(augment="auto", **SMALL).fit(theta, X)


def test_rounds_refuse_it():
    def simulate(theta, rng):
        return theta + rng.normal(size=2)

    with pytest.raises(ValueError, match="augment=0"):
        sequential(PRIOR, simulate, [0.0, 0.0], NPEEstimator(augment=5), n_samples=50)


@pytest.mark.filterwarnings("ignore:Pairs made by a likelihood did not help")
def test_the_likelihood_does_not_see_the_validation_pairs(monkeypatch):
    seen = []
    fit = NLEEstimator.fit
    monkeypatch.setattr(
        NLEEstimator, "fit", lambda self, theta, X, w: seen.append(X) or fit(self, theta, X, w)
    )
    theta, X = pairs(200, 0)
    X = X + np.arange(200)[:, None] * [0, 1e-9]  # so that all rows differ
    NPEEstimator(augment=2, **SMALL).fit(theta, X)
    assert len(np.unique(seen[0][:, 1])) == 180


def test_interrupted_training_makes_no_pairs(monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    theta, X = pairs(200, 0)
    npe = NPEEstimator(augment=5, **SMALL)
    step, n_steps = torch.optim.Adam.step, []

    def interrupted_step(self, *args, **kwargs):
        n_steps.append(1)
        return interrupt() if len(n_steps) > 10 else step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", interrupted_step)
    with pytest.warns(UserWarning, match="interrupted"):
        npe.fit(theta, X)
    assert npe.n_iter_ < 4
