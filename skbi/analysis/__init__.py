"""Analysis of a posterior: its maximum, conditionals, summaries, and how much the prior matters."""

from skbi.analysis.conditional import ConditionalPosterior
from skbi.analysis.exchange import posterior_frame, posterior_summary, to_arviz
from skbi.analysis.modes import map_estimate
from skbi.analysis.sensitivity import PriorSensitivity, prior_sensitivity

__all__ = [
    "ConditionalPosterior",
    "PriorSensitivity",
    "map_estimate",
    "posterior_frame",
    "posterior_summary",
    "prior_sensitivity",
    "to_arviz",
]
