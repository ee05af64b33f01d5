"""Estimators whose members are flows: which kind of flow, and what it is told."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from skbi import JointPrior, NLEEstimator, NPEEstimator
from skbi.flows import NeuralSplineFlow, RealNVP
from skbi.networks.sets import DeepSet

both = pytest.mark.parametrize("kind", [NPEEstimator, NLEEstimator])
QUICK = {"max_iter": 2, "n_transforms": 2, "hidden_layer_sizes": (8,), "random_state": 0}


def pairs(p, d, n=60):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, p)), rng.normal(size=(n, d))


@pytest.mark.parametrize(("kind", "shape"), [(NPEEstimator, (1, 3)), (NLEEstimator, (3, 1))])
def test_affine_maps_of_one_variable_give_way_to_splines_and_say_so(kind, shape):
    with pytest.warns(UserWarning, match="'realnvp' needs at least 2 variables") as caught:
        estimator = kind(flow="realnvp", **QUICK).fit(*pairs(*shape))
    assert caught[0].filename == __file__
    assert isinstance(estimator.flow_, NeuralSplineFlow)
    assert isinstance(kind(flow="realnvp", **QUICK).fit(*pairs(2, 2)).flow_, RealNVP)
    assert isinstance(kind(flow="spline", **QUICK).fit(*pairs(1, 1)).flow_, NeuralSplineFlow)


@both
def test_an_unknown_flow_is_refused_with_the_known_ones(kind):
    with pytest.raises(ValueError, match=r"'flow' parameter .* among .*'realnvp'.* Got 'maf'"):
        kind(flow="maf", **QUICK).fit(*pairs(2, 2))


def test_the_score_is_the_weighted_mean_of_log_densities():
    theta, X = pairs(2, 2)
    npe = NPEEstimator(prior=JointPrior({"a": stats.norm(), "b": stats.norm()}), **QUICK)
    npe.fit(theta, X)
    log_q = npe.log_prob(theta, X)
    assert npe.score(theta, X) == pytest.approx(log_q.mean())
    weights = np.arange(60.0)
    assert npe.score(theta, X, weights) == pytest.approx(np.average(log_q, weights=weights))


def observations(form, n, rng):
    """Return theta (n, 2) under a prior, and observations of it."""
    prior = JointPrior({"a": stats.norm(), "b": stats.halfnorm()})
    theta = prior.sample(n, random_state=rng)
    if form == "vectors":
        return prior, theta, theta + rng.normal(size=(n, 2))
    if form == "curves":
        return prior, theta, theta @ rng.normal(size=(2, 20)) + rng.normal(size=(n, 20))
    sizes = rng.integers(1, 50, n)  # few points and many are evaluated in other ways
    return (
        prior,
        theta,
        [t + rng.normal(size=(size, 2)) for t, size in zip(theta, sizes, strict=True)],
    )


@both
@pytest.mark.parametrize("form", ["vectors", "curves", "sets"])
def test_what_draws_look_like_densities_take(kind, form):
    rng = np.random.default_rng(0)
    prior, theta, X = observations(form, 80, rng)
    estimator = kind(prior=prior, **QUICK).fit(theta, X)
    draws = prior.sample(5 * 7, random_state=rng).reshape(5, 7, 2)
    draws[2, 3] = [0, -1]  # outside the prior
    some = [X[i] for i in range(5)]
    one_by_one = [estimator.log_prob(t, [x]) for t, x in zip(draws, some, strict=True)]
    assert np.isneginf(one_by_one[2][3])
    np.testing.assert_allclose(estimator.log_prob(draws, some), one_by_one, rtol=1e-6)
    np.testing.assert_allclose(
        estimator.log_prob(draws, some[1:2]), [estimator.log_prob(t, some[1:2]) for t in draws]
    )
    if kind is NLEEstimator:
        expected = np.array(one_by_one) + prior.log_prob(draws.reshape(-1, 2)).reshape(5, 7)
        np.testing.assert_allclose(estimator.log_posterior(draws, some), expected, rtol=1e-6)
        same = estimator.log_prob(draws[:1], some)
        expected = [estimator.log_prob(draws[0], [x]) for x in some]
        np.testing.assert_allclose(same, expected, rtol=1e-6)


def test_the_density_of_draws_embeds_each_observation_once(monkeypatch):
    prior, theta, X = observations("sets", 80, np.random.default_rng(0))
    npe = NPEEstimator(prior=prior, n_estimators=1, **QUICK).fit(theta, X)
    embedded, forward = [], DeepSet.forward

    def counted(self, points, sizes, totals=None):
        embedded.append(len(sizes))
        return forward(self, points, sizes, totals)

    monkeypatch.setattr(DeepSet, "forward", counted)
    assert npe.log_prob(theta[:60].reshape(3, 20, 2), X[:3]).shape == (3, 20)
    assert sum(embedded) == 3


@both
def test_thetas_of_other_shapes_are_told_what_to_become(kind):
    prior, theta, X = observations("vectors", 40, np.random.default_rng(0))
    estimator = kind(prior=prior, **QUICK).fit(theta, X)
    with pytest.raises(ValueError, match=r"shape \(2,\)\. Use reshape\(1, -1\) for a single row"):
        estimator.log_prob(theta[0], X[0])
    with pytest.raises(ValueError, match=r"shape \(40,\)\. Use reshape\(-1, 1\) for a single col"):
        estimator.log_prob(theta[:, 0], X)
    with pytest.raises(ValueError, match=r"(rows, 5; got 2|5 rows of theta and 2 obs)"):
        estimator.log_prob(theta[:20].reshape(5, 4, 2), X[:2])
    with pytest.raises(ValueError, match=r"2 columns .*got 1"):
        estimator.log_prob(theta.reshape(40, 2, 1), X)
    frame = pd.DataFrame(theta[:3], columns=["a", "b"])
    np.testing.assert_array_equal(
        estimator.log_prob(frame, X[:3]), estimator.log_prob(theta[:3], X[:3])
    )
