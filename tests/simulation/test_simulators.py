"""Simulators: the double moon has its closed-form moments, and functions may return anything."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.base import clone

from skbi import DoubleMoonSimulator, FunctionSimulator, simulate

PRIOR = DoubleMoonSimulator.prior()


@given(
    d=st.floats(0, 1), sigma=st.floats(0, 0.5), t=st.floats(0, 5), seed=st.integers(0, 2**31 - 1)
)
def test_double_moon_has_its_closed_form_moments(d, sigma, t, seed):
    n = 20_000
    points = DoubleMoonSimulator(n_points=n, random_state=seed).transform([[d, sigma, t]])[0]
    mean_sine = 2 / np.pi
    mean = np.array([1 - d, t * (d * mean_sine + (1 - d) * (0.5 - mean_sine))])
    mean_square = np.array(
        [0.5 + (1 - d) + sigma**2, t**2 * (0.5 + (1 - d) * (0.25 - mean_sine) + sigma**2)]
    )
    sd = np.sqrt(np.maximum(mean_square - mean**2, 0))
    np.testing.assert_allclose(points.mean(axis=0), mean, atol=6 * sd.max() / np.sqrt(n) + 1e-9)
    np.testing.assert_allclose(points.std(axis=0), sd, atol=0.05 * (1 + t))


def test_noise_is_added_before_the_vertical_stretch():
    t = 100.0
    points = DoubleMoonSimulator(n_points=1000, random_state=0).transform([[1, 0.01, t]])[0]
    x, y = points[:, 0], points[:, 1] / t
    residual = y - np.sin(np.arctan2(y, x))
    assert 0.002 < residual.std() < 0.02


def test_points_of_one_set_are_independent():
    theta = np.tile([0.5, 0.0, 1.0], (4000, 1))
    X = DoubleMoonSimulator(n_points=2, random_state=0).transform(theta)
    assert abs(np.corrcoef(X[:, 0, 0], X[:, 1, 0])[0, 1]) < 5 / np.sqrt(4000)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_prior_and_the_simulator_may_share_a_seed(seed):
    """Angles do not repeat the random numbers that theta was drawn from."""
    theta = DoubleMoonSimulator.prior("event").sample(4000, random_state=seed)
    X = DoubleMoonSimulator(n_points=1, random_state=seed).transform(theta)[:, 0]
    d, sigma, t = theta.T
    sine = X[:, 1] / t
    angle = np.arctan2(np.where(d == 1, sine, 0.5 - sine), np.where(d == 1, X[:, 0], 1 - X[:, 0]))
    ranks = [stats.rankdata(a) for a in (angle, d, sigma, t)]
    assert np.abs(np.corrcoef(ranks)[0, 1:]).max() < 5 / np.sqrt(4000)


def test_an_integer_random_state_repeats_the_data():
    theta = PRIOR.sample(5, random_state=0)
    simulator = DoubleMoonSimulator(n_points=7, random_state=3)
    np.testing.assert_array_equal(simulator.transform(theta), clone(simulator).transform(theta))
    assert (DoubleMoonSimulator(random_state=4, n_points=7).transform(theta) !=
            simulator.transform(theta)).all()  # fmt: skip


@given(low=st.integers(1, 20), width=st.integers(0, 20))
def test_a_size_range_gives_ragged_sets(low, width):
    theta = PRIOR.sample(30, random_state=0)
    X = DoubleMoonSimulator(n_points=(low, low + width), random_state=0).transform(theta)
    assert X.dtype == object
    assert len(X) == 30
    assert all(low <= len(x) <= low + width and x.shape[1] == 2 for x in X)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1.2, 0.1, 1], r"d must lie in \[0, 1\]; row 1"),
        ([0.5, -0.1, 1], "sigma must not be negative; row 1"),
        ([0.5, 0.1, -1], "t must not be negative; row 1"),
        ([0.5, np.nan, 1], "finite.*row 1"),
    ],
)
def test_a_value_out_of_range_is_an_error_that_names_its_row(row, message):
    with pytest.raises(ValueError, match=message):
        DoubleMoonSimulator().transform([[0.5, 0.1, 1], row])


def test_widths_of_theta_and_sizes_of_sets_are_checked():
    with pytest.raises(ValueError, match=r"\(n, 3\)"):
        DoubleMoonSimulator().transform([[0.5, 0.1]])
    for n_points in (0, (5, 2), 2.5):
        with pytest.raises(ValueError, match="n_points"):
            DoubleMoonSimulator(n_points=n_points).transform([[0.5, 0.1, 1.0]])
    with pytest.raises(ValueError, match="problem"):
        DoubleMoonSimulator.prior("sets")


def test_the_event_prior_chooses_one_of_two_moons():
    theta, X = simulate(DoubleMoonSimulator.prior("event"), DoubleMoonSimulator(n_points=1), 50)
    assert set(theta[:, 0]) == {0.0, 1.0}
    assert X.shape == (50, 1, 2)


# ---- FunctionSimulator


THETA = np.array([[0.0, 1.0], [5.0, 0.1], [2.0, 3.0]])
TABLE = pd.DataFrame({"u": [1.0, 2.0], "v": [3.0, 4.0]})
RETURNS = {
    "number": (lambda t: t[0], (3, 1)),
    "python number": (lambda t: 3, (3, 1)),
    "vector": (lambda t: np.repeat(t, 2), (3, 4)),
    "list": (lambda t: [1, 2, 3], (3, 3)),
    "set": (lambda t: np.outer(np.arange(5), t), (3, 5, 2)),
    "dict": (lambda t: {"a": t[0], "b": np.array([1.0, 2.0])}, (3, 3)),
    "Series": (lambda t: pd.Series({"u": t[0], "v": 1.0}), (3, 2)),
    "DataFrame row": (lambda t: TABLE.iloc[0], (3, 2)),
    "DataFrame": (lambda t: TABLE, (3, 2, 2)),
}
COLUMN_NAMES = {
    "dict": ["a", "b0", "b1"],
    "Series": ["u", "v"],
    "DataFrame row": ["u", "v"],
    "DataFrame": ["u", "v"],
    "number": ["x0"],
    "set": ["x0", "x1"],
}


@pytest.mark.parametrize("name", RETURNS)
def test_a_function_may_return_anything_that_holds_numbers(name):
    func, shape = RETURNS[name]
    simulator = FunctionSimulator(func)
    X = simulator.transform(THETA)
    assert (X.shape, X.dtype) == (shape, np.float64)
    if name in COLUMN_NAMES:
        assert simulator.fit(THETA).get_feature_names_out().tolist() == COLUMN_NAMES[name]


def test_sets_of_different_sizes_are_an_object_array():
    X = FunctionSimulator(lambda t: np.ones((int(t[0]) + 1, 2))).transform(THETA)
    assert [x.shape for x in X] == [(1, 2), (6, 2), (3, 2)]


@pytest.mark.parametrize(
    "func",
    [
        lambda t: t[:, 0],
        lambda t: {"a": t[:, 0], "b": t},
        lambda t: pd.DataFrame(t),
        lambda t: list(t),
        lambda t: t[:, None],
    ],
)
def test_vectorized_functions_see_all_rows(func):
    X = FunctionSimulator(func, vectorized=True).transform(THETA)
    np.testing.assert_array_equal(X.reshape(3, -1)[:, 0], THETA[:, 0])
    with pytest.raises(ValueError, match=r"as theta has rows, 3; got 1.*vectorized=False"):
        FunctionSimulator(lambda t: [0.0], vectorized=True).transform(THETA)


def test_functions_get_an_rng_only_if_they_have_such_an_argument():
    def noisy(theta, rng, scale=1.0):
        return theta + scale * rng.normal(size=2)

    simulator = FunctionSimulator(noisy, random_state=0)
    X = simulator.transform(THETA)
    np.testing.assert_array_equal(X, clone(simulator).transform(THETA))
    np.testing.assert_array_equal(X[:2], simulator.transform(THETA[:2]))
    noiseless = FunctionSimulator(noisy, kwargs={"scale": 0.0})
    np.testing.assert_array_equal(noiseless.transform(THETA), THETA)
    np.testing.assert_array_equal(FunctionSimulator(np.square).transform(THETA), THETA**2)


def test_float32_is_kept():
    assert FunctionSimulator(np.float32).transform(THETA).dtype == np.float32


@pytest.mark.parametrize("output", ["text", None, [1 + 2j], object()])
def test_output_without_numbers_is_refused(output):
    with pytest.raises(TypeError, match="must return numbers"):
        FunctionSimulator(lambda t: output).transform(THETA)


def test_pandas_output_has_the_names_of_a_dict():
    simulator = FunctionSimulator(RETURNS["dict"][0]).set_output(transform="pandas")
    assert simulator.fit_transform(THETA).columns.tolist() == ["a", "b0", "b1"]
