"""skbi: simulation-based inference with the scikit-learn API."""

from skbi.calibration import (
    c2st_score,
    calibration_report,
    coverage_curve,
    coverage_score,
    ecdf_band,
    misspecification_score,
    posterior_predictive,
    sbc_ranks,
    tarp_curve,
    uniformity_test,
)
from skbi.nle import NLEEstimator
from skbi.npe import NPEEstimator
from skbi.plotting import CoverageDisplay, LossCurveDisplay, PosteriorDisplay, RankDisplay
from skbi.priors import JointPrior, Prior
from skbi.rounds import sequential
from skbi.simulation import simulate
from skbi.simulators import DoubleMoonSimulator, FunctionSimulator

__all__ = [
    "CoverageDisplay",
    "DoubleMoonSimulator",
    "FunctionSimulator",
    "JointPrior",
    "LossCurveDisplay",
    "NLEEstimator",
    "NPEEstimator",
    "PosteriorDisplay",
    "Prior",
    "RankDisplay",
    "c2st_score",
    "calibration_report",
    "coverage_curve",
    "coverage_score",
    "ecdf_band",
    "misspecification_score",
    "posterior_predictive",
    "sbc_ranks",
    "sequential",
    "simulate",
    "tarp_curve",
    "uniformity_test",
]

__version__ = "0.1.0"
