"""The coverage plot draws the curves of `coverage_curve`."""

import numpy as np
import pytest
from figures import SAMPLES, THETA, blank_axes, labelled_curves

from skbi import CoverageDisplay, coverage_curve


def test_coverage_is_drawn_on_linear_and_logarithmic_axes():
    linear, log = blank_axes(2)
    display = CoverageDisplay.from_predictions(
        THETA, SAMPLES, names=["a", "b"], random_state=0, ax=[linear, log]
    )
    nominal, empirical, *_ = coverage_curve(THETA, SAMPLES, random_state=0)
    assert list(labelled_curves(linear)) == list(labelled_curves(log)) == ["a", "b"]
    for name, column in zip(["a", "b"], empirical.T, strict=True):
        expected = np.column_stack([nominal, column])
        np.testing.assert_allclose(labelled_curves(linear)[name], expected)
        drawn = labelled_curves(log)[name][:-1]
        np.testing.assert_allclose(drawn, 1 - expected[:-1], atol=1e-9)
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
    assert list(labelled_curves(np.ravel(display.ax_)[0])) == names


def test_the_display_of_an_estimator_takes_its_names(fitted):
    npe, theta, X = fitted
    options = {"n_samples": 50, "random_state": 0}
    coverage = CoverageDisplay.from_estimator(npe, theta, X, **options)
    assert coverage.names == ["a", "b"]
    joint = CoverageDisplay.from_estimator(npe, theta[:60], X[:60], kind="hpd", **options)
    assert joint.names == ["highest density"]


def test_one_run_can_be_drawn():
    CoverageDisplay.from_predictions(THETA[:1], SAMPLES[:1], random_state=0)


def test_bad_requests_say_what_was_expected():
    with pytest.raises(ValueError, match="names must hold 2"):
        CoverageDisplay.from_predictions(THETA, SAMPLES, names=["a"])
    with pytest.raises(ValueError, match="ax must hold 2"):
        CoverageDisplay.from_predictions(THETA, SAMPLES, ax=blank_axes(1)[0])
    with pytest.raises(ValueError, match="scale must be"):
        CoverageDisplay.from_predictions(THETA, SAMPLES, scale="loglog")
