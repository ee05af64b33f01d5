"""Ensembles: members trained side by side, and the mixture that they form.

q(z | x) = sum_k w_k q_k(z | x). The mixture weights w_k maximise the likelihood of the validation
rows, so that a member that overfits counts for little.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skbi.flows.flow import BASE_SCALES, ConditionalFlow, stack, unstack
from skbi.training.parameters import StackedParameters

__all__ = ["DensityMember", "Ensemble", "JointTraining", "Member"]

_N_EM_STEPS = 100
_BASE_COUNTS = 1.0, 10.0, 1.0, 0.2  # rows that a flow's base components count as, beforehand
_PLAIN = nn.Linear, nn.ModuleList, nn.Sequential  # modules that hold nothing else than they list
_MIN_ACTIVE_WEIGHT = 0.01  # mixture weight from which on a member takes part in draws and densities


class Member(nn.Module):
    """One member of an ensemble: any network, and the logarithm of its weight in the mixture.

    Nothing else is needed to be trained: what the network computes is between the member and the
    objective of its estimator.

    Attributes
    ----------
    log_weight : Tensor, shape ()
        Unnormalised; zero until the ensemble is weighed.
    needed : Tensor of bool, shape ()
        Whether the mixture is better with this member than without.
    """

    log_weight: Tensor
    needed: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("log_weight", torch.zeros(()))
        self.register_buffer("needed", torch.ones((), dtype=torch.bool))

    def shrunk(self) -> list[nn.Parameter]:
        """Return the parameters that shrinkage pulls to zero (besides those of a flow)."""
        return []

    def reset(self) -> None:
        """Forget what validation rows decided, before training goes on."""
        self.log_weight.zero_()
        self.needed.fill_(True)


class DensityMember(Member):
    """A member that is a conditional density, by a flow (None if all it describes is discrete).

    A subclass embeds what the density is conditioned on: ``embed_observations`` for a posterior,
    ``embed_parameters`` for a likelihood, both (n, ``flow.n_context``).
    """

    def __init__(self, flow: ConditionalFlow | None) -> None:
        super().__init__()
        self.flow = flow

    def log_prob(self, z: Tensor, context: Tensor) -> Tensor:
        """Log density of z (..., k), given its context."""
        return self.flow.log_prob(z, context)

    def inverse(self, u: Tensor, context: Tensor) -> Tensor:
        """Turn draws of the flow's base (n, draws, k) into draws of the density."""
        return self.flow.inverse(u, context)[0]

    def draw(self, u: Tensor, context: Tensor, rng: np.random.Generator) -> Tensor:
        """Turn standard normal u (n, draws, k) into draws of the density."""
        return self.inverse(self.flow.scale_draws(u, rng), context)

    def reset(self) -> None:
        """Forget the mixture weight and the width of the flow's base."""
        super().reset()
        if self.flow is not None:
            self.flow.set_base()


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
    def weights(self) -> NDArray[np.float64]:
        """The members' weights in the mixture (their sum is one)."""
        return self._log_weights().double().softmax(dim=0).cpu().numpy()

    @property
    def like(self) -> Tensor:
        """A tensor of the members' type, on their device."""
        return next(self.members[0].parameters())

    def active(self, least: float = _MIN_ACTIVE_WEIGHT) -> Ensemble:
        """Return the needed members of at least this weight: draws and densities are theirs."""
        pairs = zip(self.members, self.weights, strict=True)
        return Ensemble([member for member, share in pairs if share >= least and member.needed])

    def double(self) -> Ensemble:
        """Return a copy in double precision, for densities."""
        return Ensemble([in_double(member) for member in self.members])

    def mix(self, log_values: Sequence[Tensor]) -> Tensor:
        """Average what members give, by their mixture weights: logarithms in, a logarithm out."""
        weighted = [m.log_weight + v for m, v in zip(self.members, log_values, strict=True)]
        total = torch.logsumexp(self._log_weights(), dim=0)
        return torch.logsumexp(torch.stack(weighted), dim=0) - total

    def log_prob(self, z: Tensor, contexts: Sequence[Tensor]) -> Tensor:
        """Log density of z (..., k) under the mixture, a context for each member."""
        pairs = zip(self.members, contexts, strict=True)
        return self.mix([member.log_prob(z, context) for member, context in pairs])

    @torch.no_grad()
    def draw(
        self,
        contexts: Sequence[Tensor],
        shape: tuple[int, ...],
        rng: np.random.Generator,
        restore: Callable[[Member, NDArray[np.float64]], NDArray[np.float64]] | None = None,
    ) -> NDArray[np.float64]:
        """Draw (n, draws, k) from the mixture.

        Each draw is from a member at random, the same one for all n, so that contexts need not be
        repeated. ``restore`` maps the draws of a member's flow to common coordinates.
        """
        device = contexts[0].device
        u = torch.as_tensor(rng.standard_normal(shape, dtype=np.float32), device=device)
        chosen = rng.choice(len(self.members), size=shape[1], p=self.weights)
        z = np.empty(shape)
        for i, (member, context) in enumerate(zip(self.members, contexts, strict=True)):
            columns = np.flatnonzero(chosen == i)
            drawn = member.draw(u[:, columns], context, rng).double().cpu().numpy()
            z[:, columns] = drawn if restore is None else restore(member, drawn)
        return z

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
        log_weights, _, score = _weigh(log_scores[:, None], row_weights, 1.0, (1.0,))
        for member, log_weight in zip(self.members, log_weights, strict=True):
            member.log_weight.copy_(log_weight)
        return score

    def _log_weights(self) -> Tensor:
        return torch.stack([member.log_weight for member in self.members])


def in_double(module: nn.Module) -> nn.Module:
    """Return a copy of a module in double precision.

    Of skbi's own modules only the numbers are copied: a density of one pair takes less time than a
    deep copy of its network would.
    """
    if not (type(module).__module__.startswith("skbi.") or type(module) in _PLAIN):
        return copy.deepcopy(module).double()
    twin = copy.copy(module)
    twin._parameters = {
        name: parameter if parameter is None else nn.Parameter(parameter.detach().double(), False)
        for name, parameter in module._parameters.items()
    }
    twin._buffers = {
        name: buffer.double() if buffer is not None and buffer.is_floating_point() else buffer
        for name, buffer in module._buffers.items()
    }
    twin._modules = {
        name: child if child is None else in_double(child)
        for name, child in module._modules.items()
    }
    return twin


def _weigh(
    log_scores: Tensor, row_weights: Tensor, count: float, base_counts: Sequence[float]
) -> tuple[Tensor, Tensor, float]:
    """Find the weights of members and, the same for all members, of the components of their bases.

    Both maximise the likelihood of rows, sum_k w_k sum_s b_s q_ks, by expectation maximisation.

    Parameters
    ----------
    log_scores : Tensor, shape (members, components, n)
    row_weights : Tensor, shape (n,)
    count, base_counts
        How many rows more each member and each component counts as, that only it explains.

    Returns
    -------
    log_weights : Tensor, shape (members,)
    log_shares : Tensor, shape (components,)
    score : float
        The rows' weighted mean log probability.
    """
    log_scores = log_scores.double()
    log_weights = torch.zeros_like(log_scores[:, 0, 0])
    counts = torch.as_tensor(base_counts, dtype=torch.float64, device=log_scores.device)
    log_shares = (counts / counts.sum()).log()

    def joint() -> Tensor:
        return (log_scores + log_weights[:, None, None] + log_shares[:, None]).flatten(0, 1)

    for _ in range(_N_EM_STEPS):
        found = joint().softmax(dim=0) * row_weights
        found = found.sum(dim=1).unflatten(0, log_scores.shape[:2])
        log_weights = (found.sum(dim=1) + count).log().log_softmax(dim=0)
        log_shares = (found.sum(dim=0) + counts).log().log_softmax(dim=0)
    mixed = torch.logsumexp(joint(), dim=0)
    return log_weights, log_shares, float((row_weights * mixed).mean())


def _weigh_needed(
    log_scores: Tensor, row_weights: Tensor, count: float, least_gain: float
) -> tuple[Tensor, Tensor, float, list[int]]:
    """Weigh members, and leave out those that add less than ``least_gain`` nats to all rows.

    Return what `_weigh` does, and which members are needed. The others keep their weights.
    """
    log_weights, log_shares, score = _weigh(log_scores, row_weights, count, _BASE_COUNTS)
    needed = list(range(len(log_scores)))
    for i in log_weights.argsort().tolist()[:-1] if least_gain else ():
        others = [j for j in needed if j != i]
        found = _weigh(log_scores[others], row_weights, count, _BASE_COUNTS)
        if (score - found[2]) * len(row_weights) < least_gain:
            needed, log_shares, score = others, *found[1:]
            log_weights[needed] = found[0] + log_weights[needed].logsumexp(dim=0)
    return log_weights, log_shares, score, needed


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
        if getattr(members[0], "flow", None) is not None:
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
        """Log density, (members still trained, n), of z (n, k) or (members still trained, n, k)."""
        return self.flow.log_prob(z.expand(len(contexts), *z.shape[-2:]), contexts)

    @torch.no_grad()
    def weigh(
        self,
        log_prob: Callable[[], tuple[Tensor, Tensor]],
        count: float = 1.0,
        least_gain: float = 0.0,
    ) -> float:
        """Set the mixture weights of densities, and the width of their bases, by validation rows.

        Parameters
        ----------
        log_prob : callable
            Computes the rows' log probabilities (members, n) and weights (n,).
        count : float, default=1
            How many rows more each member counts as.
        least_gain : float, default=0
            Nats, of all rows together, that a member must add in order to be needed.

        Returns
        -------
        float
            The rows' weighted mean log probability under the mixture.
        """
        log_scores = []
        for component in range(len(BASE_SCALES)):
            self.flow.set_base(component)
            scores, row_weights = log_prob()
            log_scores.append(scores)
        self.flow.set_base()
        stacked = torch.stack(log_scores, dim=1)
        log_weights, log_shares, score, needed = _weigh_needed(
            stacked, row_weights, count, least_gain
        )
        for i, member in enumerate(self.members):
            member.log_weight.copy_(log_weights[i])
            member.needed.fill_(i in needed)
            self._flows[i].base_shares.copy_(log_shares.exp())
        return score

    def release(self) -> None:
        """Give the members their flows, with the weights that were learnt."""
        if self.flow is not None:
            unstack(self.flow, self._flows)
        for member, flow in zip(self.members, self._flows, strict=False):
            member.flow = flow.eval()
