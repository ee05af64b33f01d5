"""Displays draw what they are given, on the axes they are given; scikit-learn's protocol."""

import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats

from skbi import (
    CoverageDisplay,
    JointPrior,
    LossCurveDisplay,
    NPEEstimator,
    PosteriorDisplay,
    RankDisplay,
    coverage_curve,
    ecdf_band,
    sbc_ranks,
)

RNG = np.random.default_rng(0)
THETA, SAMPLES = RNG.normal(size=(200, 2)), RNG.normal(size=(200, 99, 2))


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt = sys.modules.get("matplotlib.pyplot")
    if plt is not None:
        plt.close("all")


@pytest.fixture(scope="module")
def fitted():
    prior = JointPrior({"a": stats.norm(), "b": stats.norm()})
    theta = prior.sample(300, random_state=0)
    X = theta + 0.5 * np.random.default_rng(1).normal(size=theta.shape)
    options = {"max_iter": 2, "n_transforms": 2, "random_state": 0}
    return NPEEstimator(prior=prior, **options).fit(theta, X), theta, X


def axes(n):
    return Figure().subplots(1, n, squeeze=False)[0]


def curves(ax):
    return {
        line.get_label(): line.get_xydata()
        for line in ax.get_lines()
        if not line.get_label().startswith("_")
    }


def test_coverage_is_drawn_on_linear_and_logarithmic_axes():
    linear, log = axes(2)
    display = CoverageDisplay.from_predictions(
        THETA, SAMPLES, names=["a", "b"], random_state=0, ax=[linear, log]
    )
    nominal, empirical, *_ = coverage_curve(THETA, SAMPLES, random_state=0)
    assert list(curves(linear)) == list(curves(log)) == ["a", "b"]
    for name, column in zip(["a", "b"], empirical.T, strict=True):
        np.testing.assert_allclose(curves(linear)[name], np.column_stack([nominal, column]))
        drawn = curves(log)[name][:-1]
        np.testing.assert_allclose(drawn, 1 - np.column_stack([nominal, column])[:-1], atol=1e-9)
    assert (linear.get_xscale(), log.get_xscale(), log.get_yscale()) == ("linear", "log", "log")
    assert list(display.ax_) == [linear, log]
    assert display.figure_ is linear.figure


@pytest.mark.parametrize("scale", ["linear", "log", "both"])
@pytest.mark.parametrize("kind", ["rank", "sigma", "tarp"])
def test_every_kind_of_coverage_plots_anew(kind, scale):
    display = CoverageDisplay.from_predictions(THETA, SAMPLES, kind=kind, random_state=0)
    before = display.figure_
    assert display.plot(scale=scale) is display
    assert display.figure_ is not before
    names = ["TARP"] if kind == "tarp" else ["theta_0", "theta_1"]
    assert list(curves(np.ravel(display.ax_)[0])) == names


def test_ranks_are_drawn_as_histogram_and_as_ecdf_difference():
    histogram, ecdf = axes(2)
    RankDisplay.from_predictions(
        THETA, SAMPLES, names=["a", "b"], random_state=0, ax=[histogram, ecdf]
    )
    ranks = sbc_ranks(THETA, SAMPLES, random_state=0)
    levels = np.arange(1, 100) / 100
    for j, name in enumerate(["a", "b"]):
        counts = next(p for p in histogram.patches if p.get_label() == name).get_data().values
        expected = np.histogram(ranks[:, j], np.linspace(-0.5, 99.5, 21))[0]
        np.testing.assert_allclose(counts, expected)
        share = (ranks[:, j, None] <= np.arange(99)).mean(axis=0)
        np.testing.assert_allclose(
            curves(ecdf)[name], np.column_stack([levels, share - levels]), atol=1e-12
        )
    band = ecdf.collections[0].get_paths()[0].vertices
    lower, upper = ecdf_band(200, levels)
    assert band[:, 1].min() == pytest.approx((lower - levels).min())
    assert band[:, 1].max() == pytest.approx((upper - levels).max())


def test_the_histogram_is_level_for_any_number_of_draws():
    """Bins that hold one rank more than others are scaled to it."""
    samples = RNG.normal(size=(4000, 30, 1))
    display = RankDisplay.from_predictions(
        RNG.normal(size=(4000, 1)), samples, kind="histogram", random_state=0, confidence=0.9999
    )
    (bars,) = display.ax_.patches
    counts = bars.get_data().values
    assert abs(counts / 200 - 1).max() < 0.45
    assert np.corrcoef(counts, np.diff(np.ceil(bars.get_data().edges)))[0, 1] < 0.6


def test_posteriors_are_overlaid_with_the_truth():
    display = PosteriorDisplay.from_predictions(
        {"one": SAMPLES[0], "two": SAMPLES[1] + 1}, names=["a", "b"], truth=[0.5, -9.0]
    )
    assert display.ax_.shape == (2, 2)
    assert [t.get_text() for t in display.figure_.legends[0].get_texts()] == ["one", "two", "truth"]
    assert display.ax_[1, 0].get_xlabel() == "a"
    low, high = display.ax_[1, 0].get_ylim()
    assert low < -9 < high


def test_displays_of_an_estimator_take_its_names(fitted):
    npe, theta, X = fitted
    options = {"n_samples": 50, "random_state": 0}
    coverage = CoverageDisplay.from_estimator(npe, theta, X, **options)
    assert coverage.names == ["a", "b"]
    joint = CoverageDisplay.from_estimator(npe, theta[:60], X[:60], kind="hpd", **options)
    assert joint.names == ["highest density"]
    assert RankDisplay.from_estimator(npe, theta, X, **options).ranks.max() <= 50
    posterior = PosteriorDisplay.from_estimator(npe, X[0], truth=theta[0], n_samples=500)
    assert posterior.ax_[1, 1].get_xlabel() == "b"
    batch = PosteriorDisplay.from_estimator(npe, X[:1], n_samples=500)
    assert batch.ax_.shape == (2, 2)
    with pytest.raises(ValueError, match="of one observation"):
        PosteriorDisplay.from_estimator(npe, X[:2])


def test_the_loss_is_drawn_by_epoch(fitted):
    (ax,) = axes(1)
    npe = fitted[0]
    display = LossCurveDisplay.from_estimator(npe, ax=ax)
    assert display.ax_ is ax
    np.testing.assert_allclose(curves(ax)["training"][:, 1], npe.loss_curve_)
    np.testing.assert_allclose(curves(ax)["held out"][:, 1], np.negative(npe.validation_scores_))
    alone = LossCurveDisplay.from_predictions([2.0, 1.0])
    assert list(curves(alone.ax_)) == ["training"]
    later = LossCurveDisplay.from_predictions([3.0, 2.0, 1.0], [-1.5])  # of the last epoch
    np.testing.assert_allclose(curves(later.ax_)["held out"], [[3, 1.5]])


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


def test_one_run_unknown_truths_and_data_frames_can_be_drawn():
    CoverageDisplay.from_predictions(THETA[:1], SAMPLES[:1], random_state=0)
    RankDisplay.from_predictions(THETA[:1], SAMPLES[:1, :1], random_state=0)
    frame = pd.DataFrame(SAMPLES[0], columns=["a", "b"])
    display = PosteriorDisplay.from_predictions(frame, truth=[0.0, None])
    assert display.names == ["a", "b"]


def test_bad_requests_say_what_was_expected():
    with pytest.raises(ValueError, match="names must hold 2"):
        CoverageDisplay.from_predictions(THETA, SAMPLES, names=["a"])
    with pytest.raises(ValueError, match="ax must hold 2"):
        CoverageDisplay.from_predictions(THETA, SAMPLES, ax=axes(1)[0])
    with pytest.raises(ValueError, match="scale must be"):
        CoverageDisplay.from_predictions(THETA, SAMPLES, scale="loglog")
    with pytest.raises(ValueError, match=r"more than 2 draws.* 'posterior' has 1"):
        PosteriorDisplay.from_predictions(SAMPLES[0, :1])
    with pytest.raises(ValueError, match="of which 0 finite"):
        PosteriorDisplay.from_predictions(SAMPLES[0] * np.nan)
    with pytest.raises(ValueError, match=r"shape \(2,\); got \(3,\)"):
        PosteriorDisplay.from_predictions(SAMPLES[0], truth=[0, 0, 0])
    with pytest.raises(ValueError, match="kind must be"):
        RankDisplay.from_predictions(THETA, SAMPLES, kind="hist")


@pytest.mark.parametrize("missing", ["matplotlib.pyplot", "corner"])
def test_a_missing_library_is_an_error_that_names_the_extra(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"skbi\[plot\]"):
        PosteriorDisplay.from_predictions(SAMPLES[0])


def test_skbi_itself_does_not_import_matplotlib():
    import subprocess

    code = "import sys, skbi; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
