"""Pictures, by scikit-learn's display protocol: `from_estimator`, `from_predictions`, `plot`."""

from skbi.plotting.coverage import CoverageDisplay
from skbi.plotting.loss import LossCurveDisplay
from skbi.plotting.posterior import PosteriorDisplay
from skbi.plotting.ranks import RankDisplay

__all__ = ["CoverageDisplay", "LossCurveDisplay", "PosteriorDisplay", "RankDisplay"]
