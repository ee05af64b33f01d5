"""skbi: simulation-based inference with the scikit-learn API.

The folders are the way of the data: priors, simulation, preprocessing, networks, flows, training,
estimators, samplers, calibration, plotting.
"""

from skbi.calibration import (
    c2st_score,
    calibration_report,
    coverage_curve,
    coverage_score,
    ecdf_band,
    energy_score,
    misspecification_score,
    posterior_predictive,
    sbc_ranks,
    tarp_curve,
    uniformity_test,
)
from skbi.estimators import (
    CMPEEstimator,
    FMPEEstimator,
    NLEEstimator,
    NPEEstimator,
    NREEstimator,
    Typicality,
    sequential,
)
from skbi.plotting import CoverageDisplay, LossCurveDisplay, PosteriorDisplay, RankDisplay
from skbi.preprocessing import (
    Basis,
    Compression,
    Directions,
    Emulator,
    FeatureMap,
    Gaps,
    Location,
    Maps,
    ParameterMap,
    Projection,
    Stabiliser,
    TailCoordinates,
)
from skbi.priors import JointPrior, Prior
from skbi.simulation import DoubleMoonSimulator, FunctionSimulator, simulate

__all__ = [
    "TRUSTED_TYPES",
    "CMPEEstimator",
    "CoverageDisplay",
    "DoubleMoonSimulator",
    "FMPEEstimator",
    "FunctionSimulator",
    "JointPrior",
    "LossCurveDisplay",
    "NLEEstimator",
    "NPEEstimator",
    "NREEstimator",
    "PosteriorDisplay",
    "Prior",
    "RankDisplay",
    "c2st_score",
    "calibration_report",
    "coverage_curve",
    "coverage_score",
    "ecdf_band",
    "energy_score",
    "misspecification_score",
    "posterior_predictive",
    "sbc_ranks",
    "sequential",
    "simulate",
    "tarp_curve",
    "uniformity_test",
]

__version__ = "0.1.0"

TRUSTED_TYPES = [
    f"{kind.__module__}.{kind.__qualname__}"
    for kind in (
        Basis,
        CMPEEstimator,
        Compression,
        Directions,
        Emulator,
        FMPEEstimator,
        FeatureMap,
        Gaps,
        JointPrior,
        Location,
        Maps,
        NLEEstimator,
        NPEEstimator,
        NREEstimator,
        ParameterMap,
        Projection,
        Stabiliser,
        TailCoordinates,
        Typicality,
    )
]
"""What ``skops.io.load(path, trusted=skbi.TRUSTED_TYPES)`` must trust in a file of an estimator."""
