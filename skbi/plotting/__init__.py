"""Pictures, by scikit-learn's display protocol: `from_estimator`, `from_predictions`, `plot`."""

from skbi.plotting.coverage import CoverageDisplay
from skbi.plotting.local import LC2STDisplay
from skbi.plotting.loss import LossCurveDisplay
from skbi.plotting.posterior import PosteriorDisplay
from skbi.plotting.predictive import PredictiveDisplay
from skbi.plotting.ranks import RankDisplay
from skbi.plotting.recovery import ContractionDisplay, RecoveryDisplay

__all__ = [
    "ContractionDisplay",
    "CoverageDisplay",
    "LC2STDisplay",
    "LossCurveDisplay",
    "PosteriorDisplay",
    "PredictiveDisplay",
    "RankDisplay",
    "RecoveryDisplay",
]
