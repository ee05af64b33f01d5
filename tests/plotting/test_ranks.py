"""The rank plot draws the ranks of `sbc_ranks` and the band of `ecdf_band`."""

import itertools

import numpy as np
import pytest
from figures import SAMPLES, THETA, blank_axes, labelled_curves

from skbi import RankDisplay, ecdf_band, sbc_ranks


def test_ranks_are_drawn_as_histogram_and_as_ecdf_difference():
    *histograms, ecdf = blank_axes(3)
    RankDisplay.from_predictions(
        THETA, SAMPLES, names=["a", "b"], random_state=0, ax=[*histograms, ecdf]
    )
    ranks = sbc_ranks(THETA, SAMPLES, random_state=0)
    levels = np.arange(1, 100) / 100
    for j, name in enumerate(["a", "b"]):
        (bars,) = histograms[j].patches  # no parameter hides another one
        assert histograms[j].get_title() == bars.get_label() == name
        counts = bars.get_data().values
        expected = np.histogram(ranks[:, j], np.linspace(-0.5, 99.5, 21))[0]
        np.testing.assert_allclose(counts, expected)
        share = (ranks[:, j, None] <= np.arange(99)).mean(axis=0)
        np.testing.assert_allclose(
            labelled_curves(ecdf)[name], np.column_stack([levels, share - levels]), atol=1e-12
        )
    band = ecdf.collections[0].get_paths()[0].vertices
    lower, upper = ecdf_band(200, levels)
    assert band[:, 1].min() == pytest.approx((lower - levels).min())
    assert band[:, 1].max() == pytest.approx((upper - levels).max())


def test_the_histogram_is_level_for_any_number_of_draws():
    """Bins that hold one rank more than others are scaled to it."""
    rng = np.random.default_rng(1)
    samples = rng.normal(size=(4000, 30, 1))
    display = RankDisplay.from_predictions(
        rng.normal(size=(4000, 1)), samples, kind="histogram", random_state=0, confidence=0.9999
    )
    (bars,) = display.ax_.patches
    counts = bars.get_data().values
    assert abs(counts / 200 - 1).max() < 0.45
    assert np.corrcoef(counts, np.diff(np.ceil(bars.get_data().edges)))[0, 1] < 0.6


def test_the_display_of_an_estimator_takes_its_names(fitted):
    npe, theta, X = fitted
    display = RankDisplay.from_estimator(npe, theta, X, n_samples=50, random_state=0)
    assert display.ranks.max() <= 50
    assert display.names == ["a", "b"]


@pytest.mark.parametrize("p", [1, 4, 9])
def test_every_parameter_has_a_readable_panel_of_its_own(p):
    rng = np.random.default_rng(0)
    theta, samples = rng.normal(size=(50, p)), rng.normal(size=(50, 20, p))
    display = RankDisplay.from_predictions(theta, samples, random_state=0)
    assert len(display.ax_) == len(display.figure_.axes) == p + 1
    display.figure_.canvas.draw()
    boxes = [ax.get_tightbbox() for ax in display.ax_]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    histograms = RankDisplay.from_predictions(theta, samples, random_state=0, kind="histogram")
    assert np.size(histograms.ax_) == p
    with pytest.raises(ValueError, match=rf"ax must hold {p + 1} axes; got 30"):
        display.plot(blank_axes(30))


def test_one_run_can_be_drawn():
    RankDisplay.from_predictions(THETA[:1], SAMPLES[:1, :1], random_state=0)


def test_bad_requests_say_what_was_expected():
    with pytest.raises(ValueError, match="kind must be"):
        RankDisplay.from_predictions(THETA, SAMPLES, kind="hist")


def test_the_legend_hides_nothing():
    display = RankDisplay.from_predictions(THETA, SAMPLES, names=["a", "b"], random_state=0)
    display.figure_.canvas.draw()
    legend = display.ax_[-1].get_legend().get_window_extent()
    assert not any(legend.overlaps(ax.bbox) for ax in display.ax_)
    assert legend.x1 <= display.figure_.bbox.x1
