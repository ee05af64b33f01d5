"""The verdict on the loss: whether training was long enough, and whether it learnt by heart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skbi.diagnosis.findings import Finding

__all__ = ["check_fit", "check_length", "check_training"]

_LAST = 0.2  # share of the epochs
_MAX_GAIN = 0.05  # of the loss in the last epochs, over what it gained in all of them
_LEAST_GAIN = 0.02  # nats that are worth training for
_MAX_GAP = 0.2  # nats between training and held-out pairs, from which on pairs are too few
_OVERFITTED = 1.0  # nats


def check_training(estimator: Any, log_q: NDArray[np.float64] | None) -> list[Finding]:
    """Run both checks. Pairs that are learnt by heart have a training loss that falls for ever.

    Parameters
    ----------
    estimator, log_q
        As in `check_fit`.

    Returns
    -------
    list of Finding
    """
    length, fit = check_length(estimator), check_fit(estimator, log_q)
    if fit.passed is False and not _is_held_out(estimator):
        length = Finding(length.check, None, "no held-out loss; fit with early_stopping=True")
    return [length, fit]


def check_length(estimator: Any) -> Finding:
    """Tell whether the loss was still falling when training ended."""
    name = "length of training"
    losses = _held_out_losses(estimator)
    if losses is None:
        return Finding(name, None, "the estimator has no loss_curve_")
    n = len(losses)
    n_last = max(1, round(_LAST * n))
    if n == 1:
        return Finding(name, False, "a single epoch cannot show that the loss has stopped falling",
                       "Raise max_iter.")  # fmt: skip
    gain = losses[:-n_last].min() - losses.min()
    total = losses[0] - losses.min()
    numbers = f"in the last {n_last} of {n} epochs it fell by {gain:.2g}, of {total:.2g} in all"
    if gain > max(_MAX_GAIN * total, _LEAST_GAIN):
        return Finding(name, False, f"the loss is still falling: {numbers}", "Raise max_iter.")
    return Finding(name, True, f"the loss has stopped falling: {numbers}")


def check_fit(estimator: Any, log_q: NDArray[np.float64] | None) -> Finding:
    """Tell whether training pairs are fitted much better than held-out ones.

    Parameters
    ----------
    estimator : object
    log_q : ndarray, shape (n,), or None
        Log density of each held-out pair, if that is what training maximised.
    """
    name = "overfitting"
    losses = _held_out_losses(estimator)
    if losses is None:
        return Finding(name, None, "the estimator has no loss_curve_")
    best = int(np.argmin(losses)) if _is_held_out(estimator) else len(losses) - 1
    trained = estimator.loss_curve_[best]
    if log_q is not None:
        gap, error = -trained - log_q.mean(), log_q.std() / len(log_q) ** 0.5
    elif _is_held_out(estimator):
        gap, error = losses[best] - trained, 0.0
    else:
        return Finding(name, None, "no held-out loss is known; fit with early_stopping=True")
    numbers = f"training pairs score {gap:.2f} +- {error:.2f} nats better than held-out ones"
    if gap - 2 * error > _OVERFITTED:
        remedy = "Simulate more pairs, use early_stopping=True or raise alpha."
        return Finding(name, False, f"overfitted: {numbers}", remedy)
    if gap - 2 * error > _MAX_GAP:
        remedy = "Simulate more: the gap closes about as 1 over the number of pairs."
        return Finding(name, False, f"too few pairs: {numbers}", remedy)
    return Finding(name, True, numbers)


def _is_held_out(estimator: Any) -> bool:
    return getattr(estimator, "validation_scores_", None) is not None


def _held_out_losses(estimator: Any) -> NDArray[np.float64] | None:
    """Return the validation loss of each epoch, or else the training loss, if there is one."""
    if not hasattr(estimator, "loss_curve_"):
        return None
    if _is_held_out(estimator):
        return -np.asarray(estimator.validation_scores_)
    return np.asarray(estimator.loss_curve_)
