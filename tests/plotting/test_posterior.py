"""The corner plot shows the draws and the truth, and all its text can be read."""

import itertools
import sys

import numpy as np
import pandas as pd
import pytest
from figures import SAMPLES, assert_readable

from skbi import PosteriorDisplay


def normal(p, n=2000, seed=0):
    """Return draws of correlated parameters."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, p)) @ rng.normal(size=(p, p)) / p**0.5


def lognormal(n=20_000, seed=0):
    """Return draws over more than four decades, and draws with a correlation to their logarithm."""
    z = np.random.default_rng(seed).normal(size=(n, 2))
    return np.column_stack([10.0 ** (z[:, 0] - 3), z[:, 0] + z[:, 1]])


UNITS = np.array([1e-7, 1e-3, 1.0, 10.0, 1e3, 1e5, 1e9, 1e-20])
OFFSETS = np.array([0, 1, 0.8, 123_456, 0, -1e6, 1e12, 0])
PROSE = "the concentration of a halo of dark matter [dimensionless]"
SNAKE = "virial_mass_of_the_second_halo_in_the_catalogue"
MATHS = r"$\log_{10} \left( M_\mathrm{vir} / M_\odot \right)$ of the first halo"
CONSTANT = normal(3)
CONSTANT[:, 1] = 123_456.0
PICTURES = {
    "one parameter": {"samples": normal(1), "truth": [0.0]},
    "one parameter, several": {"samples": {"one posterior": normal(1), "two": normal(1) + 1}},
    "one parameter, many": {"samples": {f"posterior {i}": normal(1, seed=i) for i in range(8)}},
    "three parameters": {"samples": normal(3), "truth": [0.0, 0.0, 0.0]},
    "eight parameters": {"samples": normal(8), "truth": np.zeros(8)},
    "units": {"samples": normal(8) * UNITS + OFFSETS, "truth": OFFSETS},
    "narrow": {"samples": normal(3) * 1e-7 + 123_456, "truth": None},
    "long names": {"samples": normal(3), "names": [PROSE, SNAKE, MATHS], "truth": np.zeros(3)},
    "several": {"samples": {f"posterior {i}": normal(3, seed=i) for i in range(9)}},
    "long labels": {"samples": {label: normal(2) for label in [PROSE, SNAKE, 3 * MATHS]}},
    "truth outside": {"samples": normal(3), "truth": [1e3, -40.0, None]},
    "lognormal": {"samples": lognormal(), "truth": [1e-3, 0.0], "names": [PROSE, SNAKE]},
    "lognormal, one parameter": {"samples": lognormal()[:, :1]},
    "constant": {"samples": CONSTANT},
    "all constant": {"samples": np.full((50, 3), [1e-7, 0.0, -123_456.0])},
    "one constant of two": {"samples": {"one": normal(3), "two": CONSTANT}, "truth": [0.0] * 3},
    "few draws": {"samples": normal(2, 3)},
    "discrete": {"samples": np.random.default_rng(0).integers(2, size=(500, 2))},
}


@pytest.mark.parametrize("picture", PICTURES)
def test_all_text_can_be_read(picture):
    display = PosteriorDisplay.from_predictions(**PICTURES[picture])
    assert_readable(display.figure_)
    p = len(display.names)
    for legend, i in itertools.product(display.figure_.legends, range(p)):
        for j in range(i + 1):
            assert not legend.get_window_extent().overlaps(display.ax_[i, j].bbox)
    for axis in [ax.xaxis for ax in display.ax_[-1]] + [ax.yaxis for ax in display.ax_[1:, 0]]:
        assert any(label.get_text() for label in axis.get_ticklabels())
        assert axis.label.get_text()


@pytest.mark.parametrize("p", [1, 2, 3])
def test_the_names_of_axes_are_on_the_picture(p):
    draws = 0.80001 + 1e-3 * np.random.default_rng(0).normal(size=(100, p))
    display = PosteriorDisplay.from_predictions(draws, truth=np.full(p, 0.8))
    figure, ax = display.figure_, display.ax_
    figure.canvas.draw()
    for label in [a.xaxis.label for a in ax[-1]] + [a.yaxis.label for a in ax[1:, 0]]:
        box = label.get_window_extent()
        assert label.get_text()
        assert min(box.x0, box.y0) >= 0
        assert box.x1 <= figure.bbox.x1


def test_posteriors_are_overlaid_with_the_truth():
    display = PosteriorDisplay.from_predictions(
        {"one": SAMPLES[0], "two": SAMPLES[1] + 1}, names=["a", "b"], truth=[0.5, -9.0]
    )
    assert display.ax_.shape == (2, 2)
    assert [t.get_text() for t in display.figure_.legends[0].get_texts()] == ["one", "two", "truth"]
    assert display.ax_[1, 0].get_xlabel() == "a"
    low, high = display.ax_[1, 0].get_ylim()
    assert low < -9 < high


def test_positive_parameters_over_decades_have_logarithmic_axes():
    display = PosteriorDisplay.from_predictions(lognormal(), names=["rate", "shift"])
    scales = [(ax.get_xscale(), ax.get_yscale()) for ax in display.ax_[np.tril_indices(2)]]
    assert scales == [("log", "linear"), ("log", "linear"), ("linear", "linear")]
    display.figure_.canvas.draw()
    labels = [label.get_text() for label in display.ax_[1, 0].get_xticklabels()]
    assert len(labels) >= 2
    assert all("10^{" in label for label in labels)
    np.testing.assert_allclose(np.log10(display.ax_[1, 0].get_xticks()) % 1, 0, atol=1e-12)


@pytest.mark.parametrize(
    ("samples", "truth", "scale"),
    [
        (lognormal(), [0.0, 0.0], "linear"),  # the truth is not positive
        (lognormal(), [None, 0.0], "log"),
        (lognormal(), [1e3, 0.0], "log"),
        (np.abs(lognormal()) ** 0.2, None, "linear"),  # about one decade
        ({"one": lognormal(), "two": -lognormal()}, None, "linear"),
        (lognormal() * [-1, 1], None, "linear"),
        (np.vstack([lognormal(), np.zeros((9, 2))]), None, "log"),  # some zeros
        (np.vstack([lognormal(200), np.zeros((800, 2))]), None, "log"),  # mostly zeros
        (np.repeat([[0.0, 1.0], [1.0, 2.0]], 500, axis=0), None, "linear"),  # only zeros and ones
        ({"one": np.exp(SAMPLES[0] / 9), "two": 1e3 * np.exp(SAMPLES[1] / 9)}, None, "log"),
    ],
)
def test_only_those_have_logarithmic_axes(samples, truth, scale):
    display = PosteriorDisplay.from_predictions(samples, truth=truth)
    assert display.ax_[0, 0].get_xscale() == display.ax_[1, 0].get_xscale() == scale
    low, high = display.ax_[0, 0].get_xlim()
    if truth and truth[0] is not None:
        assert low < truth[0] < high


def test_the_histogram_on_a_logarithmic_axis_is_one_of_decades():
    draws = lognormal()[:, :1]
    (ax,) = PosteriorDisplay.from_predictions(draws).ax_[0]
    outline = ax.patches[0].get_xy()
    edges = np.unique(outline[:, 0])
    np.testing.assert_allclose(np.diff(np.log10(edges)), np.log10(edges[-1] / edges[0]) / 40)
    counts = np.histogram(np.log10(draws), np.log10(edges))[0]
    np.testing.assert_allclose(outline[1:-1:2, 1], counts / len(draws), atol=3 / len(draws))


def test_zeros_are_shown_at_the_lower_end_of_a_logarithmic_axis():
    draws = np.concatenate([lognormal(6000)[:, :1], np.zeros((2000, 1))])
    (ax,) = PosteriorDisplay.from_predictions(draws).ax_[0]
    outline = ax.patches[0].get_xy()
    assert outline[0, 0] > 0
    assert outline[1, 1] == pytest.approx(0.25, abs=0.01)
    assert outline[1:-1:2, 1].sum() == pytest.approx(1, abs=0.01)


def test_chosen_parameters_are_shown_in_their_order_within_chosen_limits(fitted):
    draws = {"one": normal(3), "two": normal(3, seed=1)}
    options = {"names": ["a", "b", "c"], "truth": [0.1, 0.2, 0.3], "limits": {"a": (-0.5, 2)}}
    some = PosteriorDisplay.from_predictions(draws, parameters=["c", 0], **options)
    assert some.names == ["c", "a"]
    for label in draws:
        np.testing.assert_array_equal(some.samples[label], draws[label][:, [2, 0]])
    assert some.ax_[1, 1].get_xlim() == some.ax_[1, 0].get_ylim() == (-0.5, 2)
    assert [line.get_xdata()[0] for line in some.ax_[1, 0].lines if line.get_xdata()[0] == 0.3]
    outline = some.ax_[1, 1].patches[0].get_xy()
    counts = np.histogram(draws["one"][:, 0], 40, (-0.5, 2))[0]
    np.testing.assert_allclose(outline[1:-1:2, 1], counts / 2000)
    whole = PosteriorDisplay.from_predictions(draws, parameters=["c", "a"], names=options["names"])
    assert some.ax_[0, 0].get_xlim() == whole.ax_[0, 0].get_xlim()
    npe, _, X = fitted
    one = PosteriorDisplay.from_estimator(npe, X[0], parameters=["b"], limits=[(-9, 9)])
    assert one.ax_[0, 0].get_xlim() == (-9, 9)
    assert one.ax_[0, 0].get_xlabel() == "b"


def test_limits_decide_whether_an_axis_is_logarithmic():
    for limits, scale in [((0, 0.1), "linear"), ((1e-4, 0.1), "log"), ((0.1, 1), "linear")]:
        display = PosteriorDisplay.from_predictions(lognormal(), limits=[limits, None])
        assert display.ax_[0, 0].get_xscale() == display.ax_[1, 0].get_xscale() == scale
        assert display.ax_[0, 0].get_xlim() == pytest.approx(limits)


@pytest.mark.parametrize("log", [True, False])
def test_contours_hold_their_share_of_the_draws(log):
    draws = lognormal()
    if not log:
        draws[:, 0] = np.log10(draws[:, 0])
    ax = PosteriorDisplay.from_predictions(draws).ax_[1, 0]
    contours = next(c for c in ax.collections if getattr(c, "filled", None) is False)
    assert len(contours.get_paths()) == 2
    transform = ax.transScale.transform
    for path, share in zip(contours.get_paths(), [0.865, 0.393], strict=True):
        inside = path.transformed(ax.transScale).contains_points(transform(draws))
        assert inside.mean() == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("value", [0.0, 5e-324, 1e-7, -123_456.0, 1e17, 1e20, -1e280])
@pytest.mark.parametrize("p", [1, 3])
def test_identical_draws_are_drawn_in_the_middle(value, p, caplog):
    display = PosteriorDisplay.from_predictions(np.full((100, p), value))
    for ax in display.ax_[-1]:
        low, high = ax.get_xlim()
        assert (low + high) / 2 == pytest.approx(value)
    assert not caplog.records


def test_draws_that_are_identical_in_one_of_several_posteriors_hide_no_others(caplog):
    display = PosteriorDisplay.from_predictions({"one": normal(3), "two": CONSTANT})
    for order in (display.samples, dict(reversed(display.samples.items()))):
        axes = PosteriorDisplay.from_predictions(order).ax_
        heights = [outline.get_xy()[:, 1].max() for outline in axes[1, 1].patches]
        assert axes[1, 1].get_ylim()[1] == pytest.approx(1.1 * heights[list(order).index("one")])
        low, high = axes[1, 1].get_xlim()
        assert low < np.median(normal(3)[:, 1]) < 123_456 < high
    assert not caplog.records


def test_the_display_of_an_estimator_takes_its_names(fitted):
    npe, theta, X = fitted
    posterior = PosteriorDisplay.from_estimator(npe, X[0], truth=theta[0], n_samples=500)
    assert posterior.ax_[1, 1].get_xlabel() == "b"
    batch = PosteriorDisplay.from_estimator(npe, X[:1], n_samples=500)
    assert batch.ax_.shape == (2, 2)
    with pytest.raises(ValueError, match="of one observation"):
        PosteriorDisplay.from_estimator(npe, X[:2])


def test_unknown_truths_and_data_frames_can_be_drawn():
    frame = pd.DataFrame(SAMPLES[0], columns=["a", "b"])
    display = PosteriorDisplay.from_predictions(frame, truth=[0.0, None])
    assert display.names == ["a", "b"]


def test_bad_requests_say_what_was_expected():
    with pytest.raises(ValueError, match=r"more than 2 draws.* 'posterior' has 1"):
        PosteriorDisplay.from_predictions(SAMPLES[0, :1])
    with pytest.raises(ValueError, match="of which 0 finite"):
        PosteriorDisplay.from_predictions(SAMPLES[0] * np.nan)
    with pytest.raises(ValueError, match=r"shape \(2,\); got \(3,\)"):
        PosteriorDisplay.from_predictions(SAMPLES[0], truth=[0, 0, 0])
    with pytest.raises(ValueError, match="truth must be finite, or None"):
        PosteriorDisplay.from_predictions(SAMPLES[0], truth=[0, np.inf])
    with pytest.raises(ValueError, match=r"up to 1e\+300 .* reach 1\.00e\+305.*logarithm"):
        PosteriorDisplay.from_predictions(np.full((50, 2), 1e305))
    with pytest.raises(ValueError, match=r"some of \['theta_0', 'theta_1'\].*got \['a'\]"):
        PosteriorDisplay.from_predictions(SAMPLES[0], parameters=["a"])
    for limits in ({"theta_0": (1, 1)}, {"theta_0": 3}, [(1, np.inf), None]):
        with pytest.raises(ValueError, match=r"limits of 'theta_0' must be \(low, high\)"):
            PosteriorDisplay.from_predictions(SAMPLES[0], limits=limits)
    with pytest.raises(ValueError, match=r"limits are for \['b'\]; the parameters are"):
        PosteriorDisplay.from_predictions(SAMPLES[0], limits={"b": (0, 1)})
    with pytest.raises(ValueError, match=r"a pair .* for each of .*; got 1"):
        PosteriorDisplay.from_predictions(SAMPLES[0], limits=[(0, 1)])
    with pytest.raises(ValueError, match=r"No draw of 'posterior' .* \['theta_1'\].*span"):
        PosteriorDisplay.from_predictions(SAMPLES[0], limits={"theta_1": (1e3, 1e4)})


@pytest.mark.parametrize("missing", ["matplotlib.pyplot", "corner"])
def test_a_missing_library_is_an_error_that_names_the_extra(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"skbi\[plot\]"):
        PosteriorDisplay.from_predictions(SAMPLES[0])


def test_titles_have_the_median_and_the_distances_to_the_quantiles():
    draws = np.random.default_rng(0).normal(2, 0.5, size=(20_000, 2))
    display = PosteriorDisplay.from_predictions(draws, titles=True)
    low, median, high = np.quantile(draws[:, 0], [0.16, 0.5, 0.84])
    title = display.ax_[0, 0].get_title()
    assert title == f"${median:.2f}_{{-{median - low:.2f}}}^{{+{high - median:.2f}}}$"
    lines = [line.get_xdata()[0] for line in display.ax_[0, 0].get_lines()]
    np.testing.assert_allclose(lines, [low, median, high])
    assert_readable(display.figure_)
    top = display.figure_.bbox.y1
    assert all(ax.title.get_window_extent().y1 <= top for ax in display.ax_.diagonal())


def test_parameters_can_be_given_values(fitted):
    npe, _, X = fitted
    display = PosteriorDisplay.from_estimator(
        npe, X[0], given={"a": 0.3}, n_samples=600, random_state=0
    )
    assert display.names == ["b"]
