"""Recovery and contraction plots show what the numbers say."""

import numpy as np
import pytest
from figures import SAMPLES, THETA, blank_axes

from skbi import ContractionDisplay, RecoveryDisplay

both = pytest.mark.parametrize("display", [RecoveryDisplay, ContractionDisplay])


@both
def test_points_are_the_numbers_of_the_runs(display):
    axes = blank_axes(2)
    shown = display.from_predictions(THETA, SAMPLES, names=["a", "b"], random_state=0, ax=axes)
    r = shown.recovery
    expected = {
        RecoveryDisplay: (r.theta, r.mean),
        ContractionDisplay: (r.contraction, r.z_score),
    }
    for j, ax in enumerate(axes):
        x, y = (values[:, j] for values in expected[display])
        x = np.maximum(x, ax.get_xlim()[0])  # contractions that lie far out
        np.testing.assert_allclose(ax.collections[-1].get_offsets(), np.column_stack([x, y]))
        assert ax.get_title().startswith("ab"[j])


@both
def test_the_display_of_an_estimator_takes_its_names(fitted, display):
    npe, theta, X = fitted
    shown = display.from_estimator(npe, theta, X, n_samples=50, random_state=0)
    assert shown.names == ["a", "b"]
    assert len(shown.figure_.axes) == 2


def test_the_titles_have_the_numbers():
    shown = RecoveryDisplay.from_predictions(THETA[:, :1], SAMPLES[..., :1], random_state=0)
    assert f"NRMSE = {shown.recovery.nrmse[0]:.2f}" in shown.ax_.get_title()
    shown = ContractionDisplay(shown.recovery, names=["a"]).plot()
    assert f"{np.median(shown.recovery.contraction):.2f}" in shown.ax_.get_title()
