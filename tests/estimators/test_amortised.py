"""What amortised posteriors refuse, and how many at a time are drawn."""

import numpy as np
import pytest
from scipy import stats

from skbi import CMPEEstimator, FMPEEstimator, JointPrior, NPEEstimator
from skbi.estimators.amortised import draw_in_parts
from skbi.preprocessing.maps import Maps
from skbi.preprocessing.packed import pack

kinds = pytest.mark.parametrize("kind", [NPEEstimator, FMPEEstimator, CMPEEstimator])


@pytest.mark.parametrize(("n", "n_samples"), [(1, 1), (3, 7), (20_000, 1), (2, 20_000)])
def test_every_draw_is_drawn_once_from_a_seed_of_its_part(n, n_samples):
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(100, 1))
    maps = Maps.fit(None, theta, pack(theta), False)
    seen = []

    def fill(rows, shape, rng):
        seen.append((rows, shape))
        return rng.normal(size=shape)

    draws = draw_in_parts(fill, n, n_samples, maps, np.random.default_rng(1))
    assert draws.shape == (n, n_samples, 1)
    assert len(np.unique(draws)) == n * n_samples
    assert sum(np.prod(shape) for _, shape in seen) == n * n_samples
    assert max(shape[0] * shape[1] for _, shape in seen) <= 2**14
    again = draw_in_parts(fill, n, n_samples, maps, np.random.default_rng(1))
    np.testing.assert_array_equal(draws, again)


@kinds
def test_parameters_without_a_density_are_refused_by_name(kind):
    theta = np.random.default_rng(0).dirichlet([2, 2, 2], size=50)
    with pytest.raises(ValueError, match="combination of the parameters"):
        kind(max_iter=1).fit(theta, theta)


@pytest.mark.parametrize("kind", [FMPEEstimator, CMPEEstimator])
def test_discrete_parameters_are_refused_by_name(kind):
    theta = np.random.default_rng(0).normal(size=(50, 2))
    prior = JointPrior({"a": stats.bernoulli(0.5), "b": stats.norm()})
    name = kind.__name__.removesuffix("Estimator")
    with pytest.raises(ValueError, match=rf"\['a'\] are discrete, and {name} learns"):
        kind(prior=prior, max_iter=1).fit(prior.sample(50, random_state=0), theta)
