"""Calibration: whether a posterior can be trusted, tested on simulations whose truth is known."""

from skbi.calibration.classifier import LocalTest, c2st_score, lc2st
from skbi.calibration.coverage import coverage_curve, coverage_score, tarp_curve
from skbi.calibration.energy import energy_score
from skbi.calibration.predictive import misspecification_score, posterior_predictive
from skbi.calibration.ranks import ecdf_band, sbc_ranks, uniformity_test
from skbi.calibration.recovery import Recovery
from skbi.calibration.report import CalibrationReport, calibration_report

__all__ = [
    "CalibrationReport",
    "LocalTest",
    "Recovery",
    "c2st_score",
    "calibration_report",
    "coverage_curve",
    "coverage_score",
    "ecdf_band",
    "energy_score",
    "lc2st",
    "misspecification_score",
    "posterior_predictive",
    "sbc_ranks",
    "tarp_curve",
    "uniformity_test",
]
