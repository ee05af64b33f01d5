"""skbi: simulation-based inference with the scikit-learn API.

The folders are the way of the data: priors, simulation, preprocessing, networks, flows, training,
estimators, samplers, calibration, plotting.
"""

from skbi.analysis import (
    ConditionalPosterior,
    map_estimate,
    posterior_frame,
    posterior_summary,
    prior_sensitivity,
    to_arviz,
)
from skbi.calibration import (
    c2st_score,
    calibration_report,
    coverage_curve,
    coverage_score,
    ecdf_band,
    energy_score,
    lc2st,
    misspecification_score,
    posterior_predictive,
    sbc_ranks,
    tarp_curve,
    uniformity_test,
)
from skbi.diagnosis import diagnose
from skbi.estimators import (
    CMPEEstimator,
    FMPEEstimator,
    ModelClassifier,
    NLEEstimator,
    NPEEstimator,
    NREEstimator,
    Typicality,
    sequential,
)
from skbi.estimators.ordered import OrderedSummary
from skbi.plotting import (
    ContractionDisplay,
    CoverageDisplay,
    LC2STDisplay,
    LossCurveDisplay,
    PosteriorDisplay,
    PredictiveDisplay,
    RankDisplay,
    RecoveryDisplay,
)
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
from skbi.simulation import DoubleMoonSimulator, FunctionSimulator, simulate, simulate_models

__all__ = [
    "TRUSTED_TYPES",
    "CMPEEstimator",
    "ConditionalPosterior",
    "ContractionDisplay",
    "CoverageDisplay",
    "DoubleMoonSimulator",
    "FMPEEstimator",
    "FunctionSimulator",
    "JointPrior",
    "LC2STDisplay",
    "LossCurveDisplay",
    "ModelClassifier",
    "NLEEstimator",
    "NPEEstimator",
    "NREEstimator",
    "PosteriorDisplay",
    "PredictiveDisplay",
    "Prior",
    "RankDisplay",
    "RecoveryDisplay",
    "c2st_score",
    "calibration_report",
    "coverage_curve",
    "coverage_score",
    "diagnose",
    "ecdf_band",
    "energy_score",
    "lc2st",
    "map_estimate",
    "misspecification_score",
    "posterior_frame",
    "posterior_predictive",
    "posterior_summary",
    "prior_sensitivity",
    "sbc_ranks",
    "sequential",
    "simulate",
    "simulate_models",
    "tarp_curve",
    "to_arviz",
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
        ModelClassifier,
        NLEEstimator,
        NPEEstimator,
        NREEstimator,
        OrderedSummary,
        ParameterMap,
        Projection,
        Stabiliser,
        TailCoordinates,
        Typicality,
    )
]
"""What ``skops.io.load(path, trusted=skbi.TRUSTED_TYPES)`` must trust in a file of an estimator."""
