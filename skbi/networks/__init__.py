"""Networks: gated perceptrons, and permutation-invariant summaries of sets."""

from skbi.networks.layers import MLP
from skbi.networks.sets import DeepSet

__all__ = ["MLP", "DeepSet"]
