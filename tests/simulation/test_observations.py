"""Observations: numbers, vectors and sets are taken, and nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulators import PRIOR

from skbi import FunctionSimulator, simulate
from skbi.simulation.checks import InvalidSimulatorError
from skbi.simulation.observations import as_observation, stack_observations

shapes = st.lists(st.integers(1, 4), max_size=6).map(tuple)


@given(shape=shapes, n=st.integers(1, 4))
def test_vectors_sets_and_images_are_taken_and_more_axes_are_not(shape, n):
    x = np.ones(shape)
    if len(shape) < 4:
        assert as_observation(x).shape == (shape or (1,))
        assert stack_observations([x] * n).shape == (n, *(shape or (1,)))
        assert stack_observations(np.ones((n, *shape))).shape == (n, *(shape or (1,)))
        return
    for call in (as_observation, lambda x: stack_observations([x] * n)):
        with pytest.raises(InvalidSimulatorError, match=r"vector \(d,\), a set of points"):
            call(x)
    with pytest.raises(InvalidSimulatorError, match="array of shape"):
        stack_observations(np.ones((n, *shape)))


@pytest.mark.parametrize("on_error", ["raise", "drop", "nan"])
@pytest.mark.parametrize("vectorized", [False, True])
def test_too_many_axes_stop_a_run_at_its_first_simulation(on_error, vectorized):
    calls = []

    def image(theta, rng):
        calls.append(theta)
        return rng.normal(size=(*np.shape(theta)[:-1], 8, 8, 3, 2))

    simulator = FunctionSimulator(image, vectorized=vectorized)
    with pytest.raises(ValueError, match=r"got an array of shape \(8, 8, 3, 2\).*x\.ravel\(\)"):
        simulate(PRIOR, simulator, 50, on_error=on_error, random_state=0)
    assert len(calls) == 1


def test_some_missing_entries_name_the_option_that_keeps_them():
    def one_gap(theta):
        return [theta[0], np.nan]

    def nothing(theta):
        return [np.nan, np.nan]

    with pytest.raises(RuntimeError, match=r"missing='mask'.*\n.*on_error='drop'"):
        simulate(PRIOR, one_gap, 5, random_state=0)
    with pytest.raises(RuntimeError, match="2 of 2 numbers are NaN\n"):
        simulate(PRIOR, nothing, 5, random_state=0)
    assert simulate(PRIOR, one_gap, 5, missing="mask", random_state=0)[1].shape == (5, 2)


@pytest.mark.parametrize("vectorized", [False, True])
def test_images_with_channels_are_simulated_and_stored(vectorized, tmp_path):
    def image(theta, rng):
        return rng.normal(size=(*np.shape(theta)[:-1], 4, 3, 2))

    simulator = FunctionSimulator(image, vectorized=vectorized)
    expected = simulate(PRIOR, simulator, 20, random_state=0)[1]
    assert expected.shape == (20, 4, 3, 2)
    stored = simulate(PRIOR, simulator, 20, random_state=0, store=tmp_path / "store")[1]
    np.testing.assert_array_equal(stored, expected)
