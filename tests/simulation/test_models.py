"""Simulations of several models: each its own run, in one store."""

import numpy as np
import pytest
from scipy import stats

from skbi import JointPrior, simulate, simulate_models

PRIOR = JointPrior({"mu": stats.norm()})


def normal(theta, rng):
    return rng.normal(theta[0], size=3)


def laplace(theta, rng):
    return rng.laplace(theta[0], size=3)


def failing(theta, rng):
    if rng.random() < 0.3:
        raise ArithmeticError("no solution")
    return rng.normal(theta[0], size=3)


def ragged(theta, rng):
    return rng.normal(theta[0], size=(rng.integers(1, 4), 2))


MODELS = {"normal": (PRIOR, normal), "laplace": (PRIOR, laplace)}


def test_each_model_is_simulated_as_by_itself():
    X, model, theta = simulate_models(
        MODELS, {"normal": 5, "laplace": 7}, random_state=0, return_theta=True
    )
    assert X.shape == (12, 3)
    np.testing.assert_array_equal(model, ["normal"] * 5 + ["laplace"] * 7)
    assert {name: t.shape for name, t in theta.items()} == {"normal": (5, 1), "laplace": (7, 1)}
    again, _ = simulate_models(MODELS, {"normal": 5, "laplace": 7}, random_state=0)
    np.testing.assert_array_equal(again, X)


def test_a_model_that_is_added_leaves_the_others_as_they_are():
    X, _ = simulate_models(MODELS, 5, random_state=0)
    more, _ = simulate_models(MODELS | {"again": (PRIOR, normal)}, 5, random_state=0)
    np.testing.assert_array_equal(more[:10], X)


@pytest.mark.parametrize("seed", [None, 3])
def test_a_store_keeps_all_and_opens_the_pairs_of_one(tmp_path, seed):
    X, _, theta = simulate_models(MODELS, 6, store=tmp_path, random_state=seed, return_theta=True)
    again, model = simulate_models(MODELS, 6, store=tmp_path)
    np.testing.assert_array_equal(again, X)
    own_theta, own_X = simulate(PRIOR, laplace, 6, store=tmp_path / "laplace")
    np.testing.assert_array_equal(own_X, X[model == "laplace"])
    np.testing.assert_array_equal(own_theta, theta["laplace"])


def test_failures_are_dropped_and_reported_by_model():
    models = {"normal": (PRIOR, normal), "failing": (PRIOR, failing)}
    with pytest.warns(UserWarning, match=r"Model 'failing': (?s:.*)no solution"):
        X, model = simulate_models(models, 40, random_state=0, on_error="drop")
    assert 15 < (model == "failing").sum() < 40
    assert np.isfinite(X).all()
    with pytest.raises(RuntimeError, match="no solution"):
        simulate_models(models, 40, random_state=0)


def test_sets_of_several_sizes_become_objects():
    X, _ = simulate_models({"a": (PRIOR, ragged), "b": (PRIOR, ragged)}, 6, random_state=0)
    assert X.dtype == object
    assert X.shape == (12,)
    assert {x.shape[1] for x in X} == {2}


@pytest.mark.parametrize(
    ("models", "options", "error", "message"),
    [
        ([PRIOR, normal], {}, TypeError, r"name -> \(prior, simulator\)"),
        ({"a": (PRIOR, normal)}, {}, TypeError, "two or more models"),
        ({"a": (PRIOR, normal), 1: (PRIOR, normal)}, {}, TypeError, "must be strings; got 1"),
        ({"a": (PRIOR, normal), "b": normal}, {}, TypeError, "of 'b'"),
        (MODELS, {"n_samples": {"normal": 5}}, ValueError, r"one for each of the models"),
        (MODELS, {"on_error": "nan"}, ValueError, "'raise' or 'drop'"),
        (MODELS | {"c": (PRIOR, ragged)}, {}, ValueError, r"of one shape.*'c': '\(S, 2\)'"),
    ],
)
def test_bad_input_says_what_was_expected(models, options, error, message):
    with pytest.raises(error, match=message):
        simulate_models(models, **{"n_samples": 5, "random_state": 0, **options})
