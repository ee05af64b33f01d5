"""Networks: gated perceptrons, summaries of sets, series and images, and critics."""

from skbi.networks.critic import Critic
from skbi.networks.images import ImageSummary
from skbi.networks.layers import MLP
from skbi.networks.series import SeriesSummary
from skbi.networks.sets import DeepSet

__all__ = ["MLP", "Critic", "DeepSet", "ImageSummary", "SeriesSummary"]
