"""Estimators whose members are flows: which kind of flow, and what it is told."""

import numpy as np
import pytest
from scipy import stats

from skbi import JointPrior, NLEEstimator, NPEEstimator
from skbi.flows import NeuralSplineFlow, RealNVP

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


@pytest.mark.parametrize("kind", [NPEEstimator, NLEEstimator])
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
