"""Estimators: what users fit, and what an estimator of one's own is made of."""

from skbi.estimators.base import BaseSBIEstimator
from skbi.estimators.classifier import ModelClassifier
from skbi.estimators.cmpe import CMPEEstimator
from skbi.estimators.density import DensityEstimator
from skbi.estimators.fmpe import FMPEEstimator
from skbi.estimators.nle import NLEEstimator
from skbi.estimators.npe import NPEEstimator
from skbi.estimators.nre import NREEstimator
from skbi.estimators.pairs import TrainingData, plan_training
from skbi.estimators.sampled import LearntLikelihood, SampledPosterior
from skbi.estimators.sequential import sequential
from skbi.estimators.typicality import Typicality

__all__ = [
    "BaseSBIEstimator",
    "CMPEEstimator",
    "DensityEstimator",
    "FMPEEstimator",
    "LearntLikelihood",
    "ModelClassifier",
    "NLEEstimator",
    "NPEEstimator",
    "NREEstimator",
    "SampledPosterior",
    "TrainingData",
    "Typicality",
    "plan_training",
    "sequential",
]
