"""Blocks: a function of one row is found out, whatever it returns; others pass."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulators import PRIOR
from sklearn.preprocessing import FunctionTransformer

from skbi import FunctionSimulator, simulate
from skbi.simulation.checks import InvalidSimulatorError, check_block_simulator


def unpacked(theta, rng):
    a, b = theta
    return np.array([np.sum(a) + rng.normal(), np.sum(b) + rng.normal()])


def indexed(theta, rng):
    return [np.sum(theta[0]) + rng.normal(), np.sum(theta[-1])]


def summed(theta, rng):
    return np.sum(theta) + rng.normal(size=1)


def long_curve(theta, rng):
    return np.linspace(0, 1, 7) * np.sum(theta) + rng.normal(size=7)


def with_shared_noise(theta, rng):
    return theta + rng.normal(size=2)


def with_shared_count(theta, rng):
    return theta + rng.poisson(1e6)


def with_shared_global_noise(theta):
    return theta + np.random.normal()  # noqa: NPY002


OF_ONE_ROW = [
    unpacked, indexed, summed, long_curve, with_shared_noise, with_shared_count,
    with_shared_global_noise,
]  # fmt: skip


@pytest.mark.parametrize("n", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("func", OF_ONE_ROW)
@pytest.mark.parametrize("on_error", ["raise", "drop"])
def test_a_function_of_one_row_is_no_block_simulator(func, n, on_error):
    simulator = FunctionSimulator(func, vectorized=True)
    with pytest.raises((InvalidSimulatorError, RuntimeError), match=r"vectorized=False|unpack"):
        simulate(PRIOR, simulator, n, on_error=on_error, random_state=0)


@pytest.mark.parametrize("func", OF_ONE_ROW)
def test_transform_refuses_it_as_well(func):
    simulator = FunctionSimulator(func, vectorized=True, random_state=0)
    for n in (1, 2, 3, 7):
        with pytest.raises(ValueError, match=r"vectorized=False|unpack"):
            simulator.transform(PRIOR.sample(n, random_state=0))


def test_a_transformer_of_one_row_is_found_out():
    transformer = FunctionTransformer(lambda theta: [np.sum(theta[0]), np.sum(theta[1])])
    with pytest.raises(InvalidSimulatorError, match="takes 2 rows of theta, but of 3 rows"):
        simulate(PRIOR, transformer, 2, random_state=0)


ROWS = {
    "exact": lambda theta, rng: theta**2,
    "noisy": lambda theta, rng: theta + rng.normal(size=theta.shape),
    "coins": lambda theta, rng: rng.random((len(theta), 1)) < 0.5,
    "rare coins": lambda theta, rng: rng.random((len(theta), 1)) < 0.02,
    "sets": lambda theta, rng: rng.normal(size=(len(theta), 4, 2)),
    "ragged": lambda theta, rng: [np.ones((rng.integers(1, 5), 2)) for _ in theta],
    "missing": lambda theta, rng: np.where(rng.random(theta.shape) < 0.5, np.nan, theta),
}


@given(seed=st.integers(0, 2**31), n=st.integers(1, 20))
@pytest.mark.parametrize("name", ROWS)
def test_what_simulates_every_row_passes(name, seed, n):
    """A coin shows the same side 16 times in two calls, and another side in each, never."""
    rng = np.random.default_rng(seed)
    check_block_simulator(lambda theta: ROWS[name](theta, rng), rng.normal(size=2), n)


@pytest.mark.filterwarnings("ignore:.* simulations failed")
@pytest.mark.parametrize("n", [1, 2, 1500])
@pytest.mark.parametrize("name", ROWS)
def test_the_check_changes_no_result(name, n, monkeypatch):
    simulator, options = FunctionSimulator(ROWS[name], vectorized=True), {"random_state": 0}
    checked = simulate(PRIOR, simulator, n, missing="mask", on_error="nan", **options)[1]
    monkeypatch.setattr("skbi.simulation.tasks.check_block_simulator", lambda *_: None)
    unchecked = simulate(PRIOR, simulator, n, missing="mask", on_error="nan", **options)[1]
    assert len(checked) == len(unchecked) == n
    for x, y in zip(checked, unchecked, strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_simulator_that_fails_by_chance_passes():
    rng = np.random.default_rng(0)

    def fails_often(theta):
        if rng.random() < 0.5:
            raise ArithmeticError
        return theta + rng.normal(size=theta.shape)

    for _ in range(20):
        check_block_simulator(fails_often, np.zeros(2), 5)
