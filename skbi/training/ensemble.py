"""Ensembles: members trained side by side, and the mixture that they form.

q(z | x) = sum_k w_k q_k(z | x). The mixture weights w_k maximise the likelihood of the validation
rows, so that a member that overfits counts for little.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skbi.flows.flow import ConditionalFlow, stack, unstack
from skbi.training.parameters import StackedParameters

__all__ = ["DensityMember", "Ensemble", "JointTraining", "Member"]

_N_EM_STEPS = 100
_MIN_ACTIVE_WEIGHT = 0.01  # mixture weight from which on a member takes part in draws and densities


class Member(nn.Module):
    """One member of an ensemble: any network, and the logarithm of its weight in the mixture.

    Nothing else is needed to be trained: what the network computes is between the member and the
    objective of its estimator.

    Attributes
    ----------
    log_weight : Tensor, shape ()
        Unnormalised; zero until the ensemble is weighed.
    """

    log_weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("log_weight", torch.zeros(()))

    def shrunk(self) -> list[nn.Parameter]:
        """Return the parameters that shrinkage pulls to zero (besides those of a flow)."""
        return []


class DensityMember(Member):
    """A member that is a conditional density, by a flow.

    A subclass embeds what the density is conditioned on: ``embed_observations`` for a posterior,
    ``embed_parameters`` for a likelihood, both (n, ``flow.n_context``).
    """

    def __init__(self, flow: ConditionalFlow) -> None:
        super().__init__()
        self.flow = flow


class Ensemble:
    """The mixture of trained members.

    Parameters
    ----------
    members : sequence of Member
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)

    def __getstate__(self) -> dict[str, Any]:
        return {"members": [copy.deepcopy(member).cpu() for member in self.members]}

    @property
    def leader(self) -> Member:
        """The member with the largest mixture weight."""
        return max(self.members, key=lambda member: float(member.log_weight))

    @property
    def like(self) -> Tensor:
        """A tensor of the members' type, on their device."""
        return next(self.members[0].parameters())

    def active(self) -> Ensemble:
        """Return the members of a hundredth or more, which draws and densities are made of."""
        shares = self._log_weights().softmax(dim=0).tolist()
        pairs = zip(self.members, shares, strict=True)
        return Ensemble([member for member, share in pairs if share >= _MIN_ACTIVE_WEIGHT])

    def double(self) -> Ensemble:
        """Return a copy in double precision, for densities."""
        return Ensemble([copy.deepcopy(member).double() for member in self.members])

    def mix(self, log_values: Sequence[Tensor]) -> Tensor:
        """Average what members give, by their mixture weights: logarithms in, a logarithm out."""
        weighted = [m.log_weight + v for m, v in zip(self.members, log_values, strict=True)]
        total = torch.logsumexp(self._log_weights(), dim=0)
        return torch.logsumexp(torch.stack(weighted), dim=0) - total

    def log_prob(self, z: Tensor, contexts: Sequence[Tensor]) -> Tensor:
        """Log density of z (..., k) under the mixture of flows, a context for each member."""
        pairs = zip(self.members, contexts, strict=True)
        return self.mix([member.flow.log_prob(z, context) for member, context in pairs])

    @torch.no_grad()
    def draw(
        self, contexts: Sequence[Tensor], shape: tuple[int, ...], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Draw (n, draws, k) from the mixture of flows.

        Each draw is from a member at random, the same one for all n, so that contexts need not be
        repeated.
        """
        device = contexts[0].device
        u = torch.as_tensor(rng.standard_normal(shape, dtype=np.float32), device=device)
        if len(self.members) == 1:
            z, _ = self.members[0].flow.inverse(u, contexts[0])
            return z.double().cpu().numpy()
        shares = self._log_weights().double().softmax(dim=0).cpu().numpy()
        chosen = torch.as_tensor(rng.choice(len(shares), size=shape[1], p=shares), device=device)
        z = torch.empty_like(u)
        for i, (member, context) in enumerate(zip(self.members, contexts, strict=True)):
            columns = torch.nonzero(chosen == i)[:, 0]
            z[:, columns], _ = member.flow.inverse(u[:, columns], context)
        return z.double().cpu().numpy()

    @torch.no_grad()
    def weigh(self, log_scores: Tensor, row_weights: Tensor) -> float:
        """Set the mixture weights by expectation maximisation on validation rows.

        Each member counts as one row more that only it explains, so that no weight is zero.

        Parameters
        ----------
        log_scores : Tensor, shape (members, n)
            Each member's log probability of each row.
        row_weights : Tensor, shape (n,)
            How much each row counts.

        Returns
        -------
        float
            The rows' weighted mean log probability under the mixture.
        """
        log_scores = log_scores.double()
        log_weights = torch.zeros_like(log_scores[:, :1])
        for _ in range(_N_EM_STEPS):
            shares = torch.softmax(log_scores + log_weights, dim=0) * row_weights
            log_weights = (shares.sum(dim=1, keepdim=True) + 1).log()
        total = math.log(log_scores.shape[1] + len(self.members))
        for member, log_weight in zip(self.members, log_weights, strict=True):
            member.log_weight.copy_(log_weight[0] - total)
        mixed = torch.logsumexp(log_scores + log_weights, dim=0)
        mixed = mixed - torch.logsumexp(log_weights, dim=0)
        return float((row_weights * mixed).mean())

    def _log_weights(self) -> Tensor:
        return torch.stack([member.log_weight for member in self.members])


class JointTraining(nn.Module):
    """Members while they are trained: each for itself, but in one pass, their flows as one network.

    Meanwhile members that are densities have no flows of their own; `release` gives them back.

    Parameters
    ----------
    members : sequence of Member
        Of one kind and shape.

    Attributes
    ----------
    weights : StackedParameters
        The parameters of all members as one array.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        super().__init__()
        self.flow, self._flows = None, []  # a list is not registered as a submodule
        if isinstance(members[0], DensityMember):
            self._flows = [member.flow for member in members]
            self.flow = stack(self._flows)
            for member in members:
                member.flow = None
        self.members = nn.ModuleList(members)
        shrunk = [*(self.flow.shrunk() if self.flow else []), *members[0].shrunk()]
        stacked = list(self.flow.parameters()) if self.flow else []
        self.weights = StackedParameters(stacked, members, shrunk)

    def each(self, compute: Callable[[Any], Tensor]) -> Tensor:
        """Stack what is computed for each member that is still trained, (members, ...)."""
        return torch.stack([compute(self.members[i]) for i in self.weights.trained])

    def log_prob(self, z: Tensor, contexts: Tensor) -> Tensor:
        """Log density of z (n, k) in each member still trained, (members, n)."""
        return self.flow.log_prob(z.expand(len(contexts), *z.shape), contexts)

    def release(self) -> None:
        """Give the members their flows, with the weights that were learnt."""
        if self.flow is not None:
            unstack(self.flow, self._flows)
        for member, flow in zip(self.members, self._flows, strict=False):
            member.flow = flow.eval()
