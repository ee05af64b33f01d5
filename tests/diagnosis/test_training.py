"""Curves that still fall, or that part, are named."""

from types import SimpleNamespace

import numpy as np
import pytest

from skbi.diagnosis.training import check_fit, check_length, check_training


def fit(training, validation=None):
    """Return an estimator with these losses."""
    scores = None if validation is None else np.negative(validation)
    return SimpleNamespace(loss_curve_=list(training), validation_scores_=scores)


FLAT = [3.0, *np.full(9, 1.0)]


@pytest.mark.parametrize(
    ("losses", "passed"),
    [
        (np.linspace(3, 1, 10), False),
        (FLAT, True),
        (1 + np.exp(-np.arange(50.0)), True),
        ([3.0, 2.0], False),
        ([3.0], False),
        ([3.0, 1.0, 1.5, 2.0, 2.5], True),  # the best is long past
        (1 + 0.01 * np.linspace(1, 0, 10), True),  # nothing to gain
    ],
)
def test_a_loss_that_still_falls_is_named(losses, passed):
    for estimator in (fit(losses), fit(np.ones(len(losses)), losses)):
        finding = check_length(estimator)
        assert finding.passed is passed
        assert ("max_iter" in str(finding)) is not passed


@pytest.mark.parametrize(
    ("held_out", "verdict"), [(1.0, None), (1.5, "too few pairs"), (4.0, "overfitted")]
)
def test_pairs_that_are_learnt_by_heart_are_named(held_out, verdict):
    log_q = np.random.default_rng(0).normal(-held_out, 0.1, size=500)
    findings = [
        check_fit(fit(FLAT, FLAT), log_q),
        check_fit(fit(FLAT), log_q),
        check_fit(fit(FLAT, [5.0, *np.full(9, held_out)]), None),
    ]
    for finding in findings:
        assert finding.passed is (verdict is None)
        assert verdict is None or verdict in finding.verdict


def test_a_gap_within_its_error_is_no_finding():
    log_q = np.random.default_rng(0).normal(-1.3, 3, size=100)
    assert check_fit(fit(FLAT), log_q).passed


def test_the_gap_is_that_of_the_weights_that_were_kept():
    """Validation pairs choose the first epochs; what training does later is of no account."""
    estimator = fit([3.0, 1.0, -5.0, -9.0], [3.0, 1.1, 4.0, 9.0])
    assert check_fit(estimator, None).passed


def test_what_has_no_losses_is_not_checked():
    assert check_length(object()).passed is check_fit(object(), None).passed is None
    assert check_fit(fit(FLAT), None).passed is None


def test_a_training_loss_that_falls_by_heart_is_no_reason_to_train_longer():
    log_q = np.full(100, -9.0)
    length, overfitting = check_training(fit(np.linspace(3, 1, 10)), log_q)
    assert (length.passed, overfitting.passed) == (None, False)
    length, _ = check_training(fit(np.linspace(3, 1, 10), np.linspace(3, 1, 10)), log_q)
    assert length.passed is False
