"""skbi: simulation-based inference with the scikit-learn API."""

from skbi.nle import NLEEstimator
from skbi.npe import NPEEstimator
from skbi.priors import JointPrior, Prior
from skbi.simulators import DoubleMoonSimulator, simulate

__all__ = ["DoubleMoonSimulator", "JointPrior", "NLEEstimator", "NPEEstimator", "Prior", "simulate"]

__version__ = "0.1.0"
