"""Samplers: draws from the posterior p(theta | X) = L(theta) p(theta) / Z of a known likelihood L.

All samplers have the same signature::

    samples, info = sampler(likelihood, prior, n_samples, rng, **options)

The likelihood is always called with many theta at once, because a network evaluates fifty of them
in little more than the time of one. Samplers issue no warnings of their own: what the user should
know about the draws is in ``info.warnings``.
"""

from skbi.samplers.enumeration import enumerate_all
from skbi.samplers.importance import AmortisedProposal, Proposal, importance, pareto_smoothed
from skbi.samplers.info import SamplerInfo, effective_sample_size, r_hat
from skbi.samplers.nested import Batched, BatchPool, nested
from skbi.samplers.nuts import nuts
from skbi.samplers.registry import Sampler, find_sampler, register_sampler, sample_each
from skbi.samplers.smc import smc
from skbi.samplers.targets import DifferentiableLikelihood

__all__ = [
    "AmortisedProposal",
    "BatchPool",
    "Batched",
    "DifferentiableLikelihood",
    "Proposal",
    "Sampler",
    "SamplerInfo",
    "effective_sample_size",
    "enumerate_all",
    "find_sampler",
    "importance",
    "nested",
    "nuts",
    "pareto_smoothed",
    "r_hat",
    "register_sampler",
    "sample_each",
    "smc",
]
