"""theta <-> z: the inverse, its determinant, and bounds of the prior."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from skbi import JointPrior
from skbi.preprocessing.coordinates import FlatCoordinates, ParameterMap

PRIOR = JointPrior({"a": stats.uniform(-1, 2), "b": stats.halfnorm()})


@pytest.mark.parametrize("prior", [PRIOR, None], ids=["prior", "no prior"])
@given(seed=st.integers(0, 999), flat_coordinates=st.booleans())
def test_the_parameter_map_has_its_inverse_and_determinant(prior, seed, flat_coordinates):
    theta = 0.9 * PRIOR.sample(50, random_state=seed)
    mapping = ParameterMap.fit(prior, theta, flat_coordinates=flat_coordinates)
    z, log_det = mapping.forward(theta)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(z.std(axis=0), 1)
    np.testing.assert_allclose(mapping.inverse(z), theta, atol=1e-8)
    step = 1e-6
    slopes = [mapping.forward(theta + step * e)[0] - mapping.forward(theta - step * e)[0]
              for e in np.eye(2)]  # fmt: skip
    jacobian = np.stack(slopes, axis=-1) / (2 * step)
    np.testing.assert_allclose(np.linalg.slogdet(jacobian)[1], log_det, atol=1e-3)


@given(seed=st.integers(0, 999), flat_coordinates=st.booleans(), n_on_bound=st.integers(1, 5))
def test_theta_on_a_bound_is_mapped_like_the_outermost_draws(seed, flat_coordinates, n_on_bound):
    theta = PRIOR.sample(200, random_state=seed)
    theta[:n_on_bound] = [[1.0, 0.0]]
    mapping = ParameterMap.fit(PRIOR, theta, flat_coordinates=flat_coordinates)
    z, log_det = mapping.forward(theta)
    assert np.abs(z).max() < 10
    assert np.abs(log_det).max() < 20
    beside = mapping.forward(np.array([[0.995, 0.003]]))
    np.testing.assert_allclose(z[0], beside[0][0], atol=0.5)


@pytest.mark.parametrize("prior", [PRIOR, None], ids=["prior", "no prior"])
@given(seed=st.integers(0, 999), flat_coordinates=st.booleans())
def test_what_a_regression_reads_leads_back_to_z(prior, seed, flat_coordinates):
    theta = 0.9 * PRIOR.sample(50, random_state=seed)
    mapping = ParameterMap.fit(prior, theta, flat_coordinates=flat_coordinates)
    w = mapping.regressors(theta)
    z, slope = mapping.from_regressors(w)
    np.testing.assert_allclose(z, mapping.forward(theta)[0], atol=1e-6)
    step = 1e-6
    above, below = (mapping.from_regressors(w + s)[0] for s in (step, -step))
    np.testing.assert_allclose(slope, (above - below) / (2 * step), rtol=1e-4)


@given(seed=st.integers(0, 999))
def test_a_flat_parameter_is_its_own_regressor_of_unit_scale(seed):
    theta = PRIOR.sample(1000, random_state=seed)
    mapping = ParameterMap.fit(PRIOR, theta, flat_coordinates=True)
    np.testing.assert_array_equal(mapping.flat, [True, False])
    np.testing.assert_array_equal(mapping.regressor_precision, [0, 1])
    w = mapping.regressors(theta)
    np.testing.assert_allclose(w[:, 0], theta[:, 0] / (2 / 12**0.5), atol=1e-9)
    np.testing.assert_allclose(w.std(axis=0), 1, atol=0.15)
    beyond = mapping.from_regressors(np.array([[-9.0, 0.0], [9.0, 0.0]]))
    assert np.isfinite(beyond).all()


@given(seed=st.integers(0, 999))
def test_flat_coordinates_of_quantiles_are_those_of_gaussian_coordinates(seed):
    u = np.random.default_rng(seed).uniform(1e-6, 1 - 1e-6, size=20)
    s, slope = FlatCoordinates.of_quantiles(u)
    from_g, log_slope = FlatCoordinates.forward(stats.norm.ppf(u))
    np.testing.assert_allclose(s, from_g, atol=1e-9)
    np.testing.assert_allclose(np.log(slope) + stats.norm.logpdf(stats.norm.ppf(u)), log_slope)
    np.testing.assert_allclose(stats.norm.cdf(FlatCoordinates.inverse(s)), u)


@given(seed=st.integers(0, 999), flat_coordinates=st.booleans())
def test_discrete_parameters_round_and_have_no_part_in_the_determinant(seed, flat_coordinates):
    mixed = JointPrior({"a": PRIOR.marginals["a"], "k": stats.poisson(3), "b": stats.halfnorm()})
    theta = mixed.sample(50, random_state=seed)
    mapping = ParameterMap.fit(mixed, theta, flat_coordinates=flat_coordinates)
    alone = ParameterMap.fit(PRIOR, theta[:, [0, 2]], flat_coordinates=flat_coordinates)
    z, log_det = mapping.forward(theta)
    np.testing.assert_allclose(log_det, alone.forward(theta[:, [0, 2]])[1], atol=1e-9)
    back = mapping.inverse(z + np.array([0, 0.01, 0]))
    np.testing.assert_array_equal(back[:, 1], theta[:, 1])
    np.testing.assert_allclose(back, theta, atol=1e-8)
