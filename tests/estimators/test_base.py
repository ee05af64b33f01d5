"""What every estimator owes a user of scikit-learn."""

import copy
import io
import pickle

import cloudpickle
import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from scipy import stats
from sklearn.base import clone

from skbi import TRUSTED_TYPES, JointPrior, NLEEstimator, NPEEstimator
from skbi.flows import NeuralSplineFlow
from skbi.preprocessing import maps

pytestmark = pytest.mark.filterwarnings("ignore:flow='realnvp' needs at least 2 variables")

QUICK = {"max_iter": 3, "n_transforms": 2, "hidden_layer_sizes": (8,), "random_state": 0}
PRIOR = JointPrior({"a": stats.uniform(-1, 2), "b": stats.halfnorm()})


def pairs(n=200, prior=PRIOR, seed=0):
    theta = prior.sample(n, random_state=seed)
    return theta, theta + 0.1 * np.random.default_rng(seed).normal(size=theta.shape)


def sets(n=60, seed=0):
    rng = np.random.default_rng(seed)
    theta = PRIOR.sample(n, random_state=seed)
    sizes = rng.integers(1, 9, n)
    X = np.empty(n, dtype=object)
    X[:] = [t + 0.1 * rng.normal(size=(s, 2)) for t, s in zip(theta, sizes, strict=True)]
    return theta, X


@pytest.fixture(scope="module")
def fitted():
    return NPEEstimator(prior=PRIOR, **QUICK).fit(*pairs())


# ---- scikit-learn


def test_the_constructor_stores_what_it_is_given():
    options = {"hidden_layer_sizes": [7, 7], "prior": PRIOR, "batch_size": 3, "flow": "anything"}
    npe = NPEEstimator(**options)
    assert all(npe.get_params()[name] is value for name, value in options.items())
    assert vars(clone(npe)).keys() == npe.get_params().keys()


def test_data_frames_give_names():
    theta, X = pairs()
    frame = pd.DataFrame(X, columns=["x", "y"])
    npe = NPEEstimator(**QUICK).fit(pd.DataFrame(theta, columns=["a", "b"]), frame)
    assert npe.feature_names_in_.tolist() == ["x", "y"]
    assert npe.parameter_names_in_.tolist() == ["a", "b"]
    plain = NPEEstimator(**QUICK).fit(theta, X)
    np.testing.assert_array_equal(npe.log_prob(theta, frame), plain.log_prob(theta, X))
    with pytest.raises(ValueError, match="feature names"):
        npe.log_prob(theta, frame.rename(columns={"x": "z"}))


def test_names_come_from_the_prior_or_are_numbered(fitted):
    assert fitted.parameter_names_in_.tolist() == ["a", "b"]
    assert fitted.n_parameters_in_ == fitted.n_features_in_ == 2
    assert not hasattr(fitted, "feature_names_in_")
    npe = NPEEstimator(**QUICK).fit(*pairs())
    assert npe.parameter_names_in_.tolist() == ["theta_0", "theta_1"]


# ---- fitting


def test_fitted_attributes_tell_what_happened(fitted):
    assert fitted.n_iter_ == len(fitted.loss_curve_) == len(fitted.validation_scores_) == 3
    alone = NPEEstimator(**QUICK, n_estimators=1).fit(*pairs())
    assert alone.best_validation_score_ >= max(alone.validation_scores_)  # or where it started
    best_of_mean = max(fitted.validation_scores_)  # whereas each member is kept at its own best
    assert fitted.best_validation_score_ >= best_of_mean
    assert isinstance(fitted.flow_, NeuralSplineFlow)
    assert fitted.summary_net_ is None
    npe = NPEEstimator(**QUICK, early_stopping=False).fit(*pairs())
    assert npe.validation_scores_ is None
    assert npe.best_validation_score_ is None


def test_the_validation_score_is_the_score_of_the_validation_pairs():
    theta, X = pairs(2000)
    npe = NPEEstimator(prior=PRIOR, **{**QUICK, "max_iter": 20}).fit(theta, X)
    fresh = pairs(2000, seed=1)
    spread = npe.log_prob(*fresh).std() / np.sqrt(200)
    assert abs(npe.score(*fresh) - npe.best_validation_score_) < 5 * spread


@pytest.mark.parametrize("kind", [NPEEstimator, NLEEstimator])
def test_weighted_pairs_of_another_proposal_count_as_the_priors(kind):
    """Theta ~ N(1, 4) weighted to the prior N(0, 1); x = theta + N(0, 1)."""
    rng, prior = np.random.default_rng(0), JointPrior({"mu": stats.norm()})
    proposal = stats.norm(1, 2)
    theta = proposal.rvs((4000, 1), random_state=0)
    X = theta + rng.normal(size=theta.shape)
    weights = prior.log_prob(theta) - proposal.logpdf(theta[:, 0])
    fitted = kind(prior=prior, max_iter=15, random_state=0).fit(theta, X, np.exp(weights))
    grid = np.linspace(-2.5, 2.5, 101)
    for x in (-1.0, 0.0, 1.5):
        density = fitted.log_prob(grid[:, None], [[x]])
        if kind is NLEEstimator:
            density = density + stats.norm.logpdf(grid)
        density = np.exp(density - density.max())
        mean = (grid * density).sum() / density.sum()
        sd = np.sqrt(((grid - mean) ** 2 * density).sum() / density.sum())
        exact = stats.truncnorm(*(np.array([-2.5, 2.5]) - x / 2) / 0.5**0.5, x / 2, 0.5**0.5)
        assert abs(mean - exact.mean()) < 0.15 * exact.std()
        assert abs(sd / exact.std() - 1) < 0.15


def test_a_fitted_estimator_moves_to_a_device():
    theta, X = pairs()
    npe = NPEEstimator(**QUICK).fit(theta, X)
    before = npe.log_prob(theta, X)
    with pytest.raises(ValueError, match="cannot be used here"):
        npe.set_params(device="abacus")
    assert npe.device == "cpu"
    assert npe.set_params(device="meta").members_[0].flow.to_hidden.weight.is_meta  # no numbers
    npe = NPEEstimator(**QUICK).fit(theta, X).set_params(device="cpu:0")
    np.testing.assert_array_equal(npe.log_prob(theta, X), before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [NPEEstimator, NLEEstimator])
def test_large_files_are_read_batch_by_batch(kind, dtype, tmp_path, monkeypatch):
    theta, X = pairs()
    X = X.astype(dtype)
    expected = kind(**QUICK).fit(theta, X).log_prob(theta, X)
    np.save(tmp_path / "X.npy", X)
    monkeypatch.setattr(maps, "_MAX_BYTES_IN_MEMORY", 0)
    monkeypatch.setattr(maps, "Indexer", None)  # which holds all in memory
    fitted = kind(**QUICK).fit(theta, np.load(tmp_path / "X.npy", mmap_mode="r"))
    np.testing.assert_allclose(fitted.log_prob(theta, X), expected, atol=1e-3)  # rounded otherwise


def test_sets_in_a_large_file_are_read_in_parts(tmp_path, monkeypatch):
    theta = PRIOR.sample(300, random_state=0)
    X = theta[:, None] + 0.3 * np.random.default_rng(0).normal(size=(300, 80, 2))
    np.save(tmp_path / "X.npy", X)
    options = {**QUICK, "max_iter": 15}
    inside = NPEEstimator(prior=PRIOR, **options).fit(theta, X).score(theta, X)
    monkeypatch.setattr(maps, "_MAX_BYTES_IN_MEMORY", 0)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    npe = NPEEstimator(prior=PRIOR, **options).fit(theta, mapped)
    assert abs(npe.score(theta, mapped) - inside) < 0.5
    assert npe.score(theta, mapped) > PRIOR.log_prob(theta).mean() + 1


def test_warm_start_continues():
    theta, X = pairs(500)
    npe = NPEEstimator(prior=PRIOR, warm_start=True, **{**QUICK, "max_iter": 10})
    first = npe.fit(theta, X).score(theta, X)
    more = [np.vstack([a, b]) for a, b in zip(pairs(500), pairs(300, seed=1), strict=True)]
    npe.set_params(max_iter=1, learning_rate_init=1e-6).fit(*more)
    assert npe.n_iter_ == 1
    assert len(npe.loss_curve_) == 11
    assert abs(npe.score(theta, X) - first) < 0.03  # new validation pairs weight the members anew
    with pytest.raises(ValueError, match="data of the same shape"):
        npe.fit(theta, X[:, :1])
    assert abs(npe.score(theta, X) - first) < 0.03


def test_warm_start_grows_an_ensemble():
    npe = NPEEstimator(warm_start=True, **QUICK).fit(*pairs())
    npe.set_params(n_estimators=3).fit(*pairs())
    assert len(npe.members_) == 3


def test_warm_start_of_sets_keeps_the_start_if_nothing_is_better():
    theta, X = sets(100)
    npe = NPEEstimator(prior=PRIOR, warm_start=True, **{**QUICK, "max_iter": 8}).fit(theta, X)
    before = npe.score(theta, X)
    npe.set_params(learning_rate_init=0.3).fit(theta, X)
    assert npe.score(theta, X) > before - 0.5  # other pairs are kept aside, on which it is chosen


def test_warm_start_refuses_what_would_need_another_network():
    theta, X = pairs()
    npe = NPEEstimator(prior=PRIOR, warm_start=True, missing="mask", **QUICK).fit(theta, X)
    for change in ({"flow": "realnvp"}, {"hidden_layer_sizes": (9,)}, {"missing": "error"}):
        with pytest.raises(ValueError, match=rf"\['{next(iter(change))}'\] changed"):
            copy.deepcopy(npe).set_params(**change).fit(theta, X)
    wide = JointPrior({"a": stats.uniform(-9, 18), "b": stats.halfnorm()})
    with pytest.raises(ValueError, match="outside the prior"):
        npe.set_params(prior=wide).fit(wide.sample(len(X), random_state=1), X)


def test_warm_start_without_pairs_aside_weights_members_equally():
    npe = NPEEstimator(warm_start=True, n_estimators=2, **QUICK).fit(*pairs())
    npe.set_params(early_stopping=False, n_estimators=3).fit(*pairs())
    assert len({float(member.log_weight) for member in npe.members_}) == 1


@pytest.mark.parametrize("kind", [NPEEstimator, NLEEstimator])
def test_fitted_networks_shown_are_those_of_the_heaviest_member(kind):
    estimator = kind(n_estimators=3, **QUICK).fit(*pairs())
    heaviest = int(np.argmax([float(member.log_weight) for member in estimator.members_]))
    assert estimator.flow_ is estimator.members_[heaviest].flow


def test_what_missing_means_is_decided_by_fit():
    theta, X = pairs()
    X[3] = np.nan
    npe = NPEEstimator(**QUICK).fit(*pairs()).set_params(missing="mask")
    with pytest.raises(ValueError, match="missing values"):
        npe.log_prob(theta, X)
    npe = NPEEstimator(missing="mask", **QUICK).fit(*pairs()).set_params(missing="error")
    assert np.isfinite(npe.log_prob(theta, X)).all()


def test_a_joblib_context_of_processes_does_not_matter(fitted):
    with joblib.parallel_config(prefer="processes"):
        there = fitted.sample_posterior(pairs()[1], 5)
    np.testing.assert_array_equal(there, fitted.sample_posterior(pairs()[1], 5))


def test_a_failed_fit_leaves_the_fitted_estimator_usable():
    theta, X = pairs()
    npe = NPEEstimator(**QUICK).fit(theta, X)
    before = npe.log_prob(theta, X)
    with pytest.raises(ValueError, match="same number of pairs"):
        npe.fit(theta[:5], X)
    with pytest.raises(TypeError, match="string"):
        npe.fit(theta, pd.DataFrame(X, columns=["u", 3]))
    with pytest.raises(FloatingPointError):
        npe.set_params(learning_rate_init=1e30).fit(theta, X)
    np.testing.assert_array_equal(npe.log_prob(theta, X), before)


def test_nothing_is_printed_unless_asked(capsys):
    NPEEstimator(**QUICK).fit(*pairs())
    assert capsys.readouterr() == ("", "")
    NPEEstimator(**QUICK, verbose=1).fit(*pairs())
    assert "validation loss" in capsys.readouterr().err


# ---- files


@pytest.mark.parametrize("n_estimators", [1, 2])
@pytest.mark.parametrize("data", [pairs, sets])
def test_copies_and_files_give_the_same_densities(data, n_estimators):
    theta, X = data()
    npe = NPEEstimator(prior=PRIOR, n_estimators=n_estimators, **QUICK).fit(theta, X)
    file = io.BytesIO()
    joblib.dump(npe, file)
    file.seek(0)
    for twin in (
        pickle.loads(pickle.dumps(npe)),
        cloudpickle.loads(cloudpickle.dumps(npe)),
        copy.deepcopy(npe),
        joblib.load(file),
    ):
        np.testing.assert_array_equal(twin.log_prob(theta, X), npe.log_prob(theta, X))
        np.testing.assert_array_equal(twin.sample_posterior(X, 3), npe.sample_posterior(X, 3))


def test_the_state_holds_arrays_and_no_modules(fitted):
    def leaves(value):
        if isinstance(value, dict):
            for inner in value.values():
                yield from leaves(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                yield from leaves(inner)
        else:
            yield value

    kinds = {type(leaf) for leaf in leaves(fitted.__getstate__()["members_"])}
    assert kinds == {np.ndarray}
    assert not any(isinstance(v, torch.nn.Module) for v in leaves(fitted.__getstate__()))


@pytest.mark.parametrize("kind", [NPEEstimator, NLEEstimator])
def test_a_safe_file_opens_with_the_trusted_types(kind, tmp_path):
    theta, X = pairs(50)
    prior = JointPrior({"a": stats.norm(0, 3), "b": stats.uniform(loc=-9, scale=18)})
    fitted = kind(prior=prior, **QUICK).fit(theta, X)
    skops.io.dump(fitted, tmp_path / "x.skops")
    assert set(skops.io.get_untrusted_types(file=tmp_path / "x.skops")) <= set(TRUSTED_TYPES)
    opened = skops.io.load(tmp_path / "x.skops", trusted=TRUSTED_TYPES)
    np.testing.assert_array_equal(opened.log_prob(theta, X), fitted.log_prob(theta, X))
    assert repr(opened.prior) == repr(prior)


def test_a_file_of_another_version_says_so(fitted):
    state = fitted.__getstate__()
    version = state["_skbi_version"]
    other = {**state, "_skbi_version": "99.1.0"}
    with pytest.warns(UserWarning, match=rf"by skbi 99\.1\.0 and is opened by {version}"):
        clone(fitted).__setstate__(other)
    clone(fitted).__setstate__(state)  # warnings are errors
