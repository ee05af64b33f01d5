"""Predictive data of every kind stand beside the observation."""

import numpy as np
import pytest

from skbi import PredictiveDisplay

RNG = np.random.default_rng(0)


def replicated(*shape):
    return RNG.normal(size=(200, *shape))


@pytest.mark.parametrize(
    ("shape", "kind", "n_panels"),
    [
        ((3,), "vector", 3),
        ((12,), "vector", 12),
        ((30,), "series", 1),
        ((20, 2), "set", 1 + 8),
        ((20, 1), "set", 4),
        ((20, 4), "set", 12),
        ((6, 6, 1), "image", 8),
    ],
)
def test_the_kind_follows_from_the_axes(shape, kind, n_panels):
    data, prior = replicated(*shape), 3 * replicated(*shape)
    display = PredictiveDisplay.from_predictions(data, data[0], prior_replicated=prior)
    assert display.kind == kind
    assert np.size(display.ax_) == n_panels


@pytest.mark.parametrize(("kind", "n_panels"), [("series", 2), ("image", 7), ("set", 9)])
def test_the_kind_can_be_said(kind, n_panels):
    data = replicated(15, 2)
    display = PredictiveDisplay.from_predictions(data, data[0], kind=kind)
    assert np.size(display.ax_) == n_panels


def test_the_observation_is_marked_with_its_tail_probability():
    data = replicated(2)
    display = PredictiveDisplay.from_predictions(data, [0.0, 9.0])
    assert display.check.tail_probability[1] == pytest.approx(2 / 201)
    assert display.ax_[1].get_title() == "tail probability 0.01"
    assert [ax.get_lines()[0].get_xdata()[0] for ax in display.ax_] == [0.0, 9.0]
    labels = [text.get_text() for text in display.figure_.legends[0].get_texts()]
    assert labels == ["posterior predictive", "observed"]


def test_the_features_that_lie_furthest_out_are_shown():
    data = replicated(40)
    x = data[0].copy()
    x[37] = 9.0
    display = PredictiveDisplay.from_predictions(data, x, kind="vector")
    assert "x_37" in [ax.get_xlabel() for ax in display.ax_]


def test_bands_hold_what_they_claim():
    data = replicated(50)
    display = PredictiveDisplay.from_predictions(data, data[0], kind="series")
    outer = display.ax_.collections[0].get_paths()[0].vertices[1:51, 1]
    np.testing.assert_allclose(outer, np.quantile(data, 0.05, axis=0))


def test_the_display_of_an_estimator_simulates_from_posterior_and_prior(fitted):
    npe, _, X = fitted

    def noisy(theta, rng):
        return theta + 0.5 * rng.normal(size=2)

    display = PredictiveDisplay.from_estimator(npe, noisy, X[0], n_samples=50, random_state=0)
    again = PredictiveDisplay.from_estimator(npe, noisy, X[:1], n_samples=50, random_state=0)
    assert list(display.predictions) == ["posterior predictive", "prior predictive"]
    for label, data in display.predictions.items():
        assert data.shape == (50, 2)
        np.testing.assert_array_equal(data, again.predictions[label])
    sd = {label: data.std() for label, data in display.predictions.items()}
    assert sd["posterior predictive"] < sd["prior predictive"]


def test_bad_requests_say_what_was_expected():
    with pytest.raises(ValueError, match="kind must be one of"):
        PredictiveDisplay.from_predictions(replicated(3), np.zeros(3), kind="curve")
    with pytest.raises(ValueError, match="with 3 features; got 1 with 4"):
        PredictiveDisplay.from_predictions(replicated(3), np.zeros(4))
