"""The picture of a local test shows every draw in the colour of its probability."""

import numpy as np
import pytest
from figures import SAMPLES, assert_readable
from sklearn.linear_model import LogisticRegression

from skbi import LC2STDisplay

D = 0.5 + 0.2 * np.tanh(SAMPLES[0, :, 0])


@pytest.mark.parametrize("p", [1, 2, 4])
def test_every_pair_of_parameters_is_shown(p):
    draws = np.random.default_rng(0).normal(size=(300, p))
    display = LC2STDisplay.from_predictions(draws, 0.5 + 0.2 * np.tanh(draws[:, 0]))
    visible = np.array([[ax.get_visible() for ax in row] for row in display.ax_])
    np.testing.assert_array_equal(visible, np.tri(p, dtype=bool))
    assert_readable(display.figure_)


def test_draws_have_the_colours_of_their_probabilities():
    display = LC2STDisplay.from_predictions(SAMPLES[0], D, names=["a", "b"])
    (points,) = display.ax_[1, 0].collections
    shown = {tuple(xy): d for xy, d in zip(points.get_offsets(), points.get_array(), strict=True)}
    assert shown == {tuple(xy): d for xy, d in zip(SAMPLES[0], D, strict=True)}


def test_the_mean_follows_the_probability():
    rng = np.random.default_rng(0)
    draws = rng.uniform(-1, 1, size=(5000, 2))
    display = LC2STDisplay.from_predictions(draws, 0.5 + 0.3 * draws[:, 0])
    x, mean = display.ax_[0, 0].get_lines()[-1].get_data()
    np.testing.assert_allclose(mean, 0.5 + 0.3 * x, atol=0.02)
    assert np.nanmax(np.abs(display.ax_[1, 1].get_lines()[-1].get_ydata() - 0.5)) < 0.1


def test_the_display_of_an_estimator_runs_the_test(fitted):
    npe, theta, X = fitted
    options = {"classifier": LogisticRegression(), "n_null": 3, "random_state": 0}
    display = LC2STDisplay.from_estimator(npe, theta, X, X[0], n_samples=60, **options)
    assert display.result.names == ["a", "b"]
    assert display.result.samples.shape == (1, 60, 2)
