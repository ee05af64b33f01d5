"""Training: ensembles of networks, the regression they start from, and the loop that fits them."""

from skbi.training.ensemble import DensityMember, Ensemble, JointTraining, Member
from skbi.training.loop import WHOLE_SETS, History, Objective, TrainingPlan, evaluate, train
from skbi.training.parameters import StackedParameters
from skbi.training.start import regress

__all__ = [
    "WHOLE_SETS",
    "DensityMember",
    "Ensemble",
    "History",
    "JointTraining",
    "Member",
    "Objective",
    "StackedParameters",
    "TrainingPlan",
    "evaluate",
    "regress",
    "train",
]
