"""The loss curve: training and validation loss after each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skbi.calibration.runs import fitted_estimator
from skbi.plotting.axes import as_axes, colours

__all__ = ["LossCurveDisplay"]

_LOSS_NAME = "-log q [nats]"


class LossCurveDisplay:
    """Training and validation loss after each epoch.

    Parameters
    ----------
    loss_curve : sequence of float
        Training loss of each epoch, such as an estimator's ``loss_curve_``.
    validation_scores : sequence of float or None, default=None
        Minus the validation loss of the last epochs, such as ``validation_scores_``.
    loss_name : str, default="-log q [nats]"
        Label of the loss axis.

    Attributes
    ----------
    ax_ : Axes
    figure_ : Figure

    See Also
    --------
    diagnose : Says whether training was long enough.

    Examples
    --------
    >>> LossCurveDisplay.from_predictions([3.0, 2.0, 1.5], [-3.1, -2.2, -1.8]).ax_.get_xlabel()
    'epoch'
    """

    def __init__(
        self,
        loss_curve: Sequence[float],
        validation_scores: Sequence[float] | None = None,
        *,
        loss_name: str = _LOSS_NAME,
    ) -> None:
        self.loss_curve, self.validation_scores = loss_curve, validation_scores
        self.loss_name = loss_name

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> Self:
        """Plot the losses that a fitted estimator recorded.

        Parameters
        ----------
        estimator : object with ``loss_curve_`` and ``validation_scores_``
            A fitted estimator. Its ``loss_name``, if it has one, labels the loss axis.
        ax : Axes, optional
            By default those of a new figure.

        Returns
        -------
        LossCurveDisplay
        """
        estimator = fitted_estimator(estimator)
        check_is_fitted(estimator, "loss_curve_")
        loss_name = getattr(estimator, "loss_name", _LOSS_NAME)
        curves = estimator.loss_curve_, estimator.validation_scores_
        return cls(*curves, loss_name=loss_name).plot(ax)

    @classmethod
    def from_predictions(
        cls,
        loss_curve: Sequence[float],
        validation_scores: Sequence[float] | None = None,
        *,
        ax: Any = None,
    ) -> Self:
        """Plot given losses.

        Parameters
        ----------
        loss_curve : sequence of float
            Training loss of each epoch.
        validation_scores : sequence of float, optional
            Minus the validation loss of the last epochs.
        ax : Axes, optional
            By default those of a new figure.

        Returns
        -------
        LossCurveDisplay
        """
        return cls(loss_curve, validation_scores).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : Axes, optional
            By default those of a new figure.

        Returns
        -------
        self
        """
        (ax,) = as_axes(ax, 1)
        training_colour, validation_colour = colours(2)
        epochs = np.arange(1, len(self.loss_curve) + 1)
        ax.plot(epochs, self.loss_curve, color=training_colour, label="training")
        if self.validation_scores is not None:
            losses = np.negative(self.validation_scores)
            ax.plot(epochs[-len(losses) :], losses, color=validation_colour, label="held out")
        ax.set(xlabel="epoch", ylabel=self.loss_name)
        ax.legend(frameon=False)
        self.ax_, self.figure_ = ax, ax.figure
        return self
