"""The loss curve draws what an estimator recorded."""

import numpy as np
from figures import blank_axes, labelled_curves
from sklearn.base import BaseEstimator

from skbi import LossCurveDisplay


def test_the_loss_is_drawn_by_epoch(fitted):
    (ax,) = blank_axes(1)
    npe = fitted[0]
    display = LossCurveDisplay.from_estimator(npe, ax=ax)
    assert display.ax_ is ax
    np.testing.assert_allclose(labelled_curves(ax)["training"][:, 1], npe.loss_curve_)
    held_out = labelled_curves(ax)["held out"]
    np.testing.assert_allclose(held_out[:, 1], np.negative(npe.validation_scores_))
    alone = LossCurveDisplay.from_predictions([2.0, 1.0])
    assert list(labelled_curves(alone.ax_)) == ["training"]
    later = LossCurveDisplay.from_predictions([3.0, 2.0, 1.0], [-1.5])  # of the last epoch
    np.testing.assert_allclose(labelled_curves(later.ax_)["held out"], [[3, 1.5]])


def test_the_loss_has_the_name_that_the_estimator_gives_it():
    class Estimator(BaseEstimator):
        loss_curve_, validation_scores_ = [2.0, 1.0], None

        def fit(self):
            """Nothing to do."""

    assert LossCurveDisplay.from_estimator(Estimator()).ax_.get_ylabel() == "-log q [nats]"
    Estimator.loss_name = "cross-entropy [nats]"
    display = LossCurveDisplay.from_estimator(Estimator())
    assert display.ax_.get_ylabel() == "cross-entropy [nats]"
    assert display.plot().ax_.get_ylabel() == "cross-entropy [nats]"
