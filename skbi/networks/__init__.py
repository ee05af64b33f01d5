"""Networks: gated perceptrons, summaries of sets, and critics that compare theta with x."""

from skbi.networks.critic import Critic
from skbi.networks.layers import MLP
from skbi.networks.sets import DeepSet

__all__ = ["MLP", "Critic", "DeepSet"]
