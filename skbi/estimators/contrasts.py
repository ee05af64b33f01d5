"""What a ratio is trained by: pairs (theta_i, x_i) and contrasts (theta_j, x_i), as a matrix.

With f the log ratio, h = exp f, and K contrasts of each x:

    NRE-C: L = log(1 + gamma m) / (1 + gamma) + gamma (log(1 + gamma m') - f) / (1 + gamma),

where m is the mean of h over the contrasts, and m' that over the pair and K - 1 contrasts;

    NRE-A: L = (softplus(-f) + mean softplus(f_j)) / 2.

Both are smallest for f = log p(x | theta) / p(x) if contrasts are drawn as pairs are. A balanced
ratio pays lambda (E_pairs sigmoid f + E_contrasts sigmoid f - 1)^2 besides, which the same f makes
zero.

References
----------
Miller, Weniger and Forre, Contrastive neural ratio estimation, 2022,
https://arxiv.org/abs/2210.06170; Hermans, Begy and Louppe, Likelihood-free MCMC with amortized
approximate ratio estimators, 2019, https://arxiv.org/abs/1903.04057; Delaunoy et al., Towards
reliable simulation-based inference with balanced neural ratio estimation, 2022,
https://arxiv.org/abs/2208.13624.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from skbi.preprocessing.batches import Batch
from skbi.training.ensemble import Ensemble, JointTraining

__all__ = ["ContrastiveLoss", "Contrasts", "imbalance", "log_mean", "nre_a", "nre_c"]

_VALIDATION_ROWS = 500  # evaluated at a time


def nre_c(own: Tensor, contrasts: Tensor, log_weights: Tensor, gamma: float = 1.0) -> Tensor:
    """Loss of the class "none of them" and of that of the pair, (..., n).

    Parameters
    ----------
    own : Tensor, shape (..., n)
        f of the pairs.
    contrasts : Tensor, shape (..., n, K)
        f of the contrasts.
    log_weights : Tensor, shape (n, K)
        How much each contrast counts; -inf for one that is none, because it is the pair itself.
    gamma : float, default=1
        Odds of the pair's class.
    """
    weighted, log_gamma = contrasts + log_weights, math.log(gamma)
    most, weight = torch.logsumexp(weighted[..., :-1], -1), log_weights[:, :-1].exp().sum(-1)
    every = torch.logaddexp(most, weighted[..., -1])
    log_m = every - (weight + log_weights[:, -1].exp()).log()
    log_m_with_pair = torch.logaddexp(own, most) - torch.log1p(weight)
    none = softplus(log_gamma + log_m)
    pair = softplus(log_gamma + log_m_with_pair) - own
    return (none + gamma * pair) / (1 + gamma)


def log_mean(contrasts: Tensor, log_weights: Tensor) -> Tensor:
    """Log of the weighted mean of h over the contrasts (..., n, K), (..., n)."""
    return torch.logsumexp(contrasts + log_weights.log_softmax(-1), -1)


def nre_a(own: Tensor, contrasts: Tensor, log_weights: Tensor) -> Tensor:
    """Binary cross-entropy of the pair and of the mean contrast, (..., n)."""
    return 0.5 * (softplus(-own) + (softplus(contrasts) * log_weights.softmax(-1)).sum(-1))


def imbalance(own: Tensor, contrasts: Tensor, log_weights: Tensor, row_weights: Tensor) -> Tensor:
    """Return (E_pairs sigmoid f + E_contrasts sigmoid f - 1)^2, (..., 1)."""
    of_contrasts = (contrasts.sigmoid() * log_weights.softmax(-1)).sum(-1)
    both = (row_weights * (own.sigmoid() + of_contrasts)).sum(-1, keepdim=True)
    return (both / row_weights.sum() - 1).square()


@dataclass
class Contrasts:
    """Scores of rows: of their own theta, and of the theta that they are contrasted with.

    Attributes
    ----------
    training : JointTraining
        Of members with ``embed_parameters``, ``embed_observations``, ``of_all`` and ``of_pairs``.
    take : callable
        Returns the observations of some rows, ``take(rows, fraction)``.
    z : Tensor, shape (n, p)
        What networks read of each pair's theta.
    weights : Tensor, shape (n,)
        Of the pairs.
    owners : Tensor of int
        The pair of each row.
    pool : Tensor of int
        Pairs whose theta are contrasts: in training, besides those of the minibatch; otherwise the
        first ``n_fixed`` of them are all contrasts.
    n_contrasts, n_fixed : int
        How many there are in training, and otherwise.
    generator : torch.Generator
        Draws from the pool.
    """

    training: JointTraining
    take: Callable[[Tensor, float], Batch]
    z: Tensor
    weights: Tensor
    owners: Tensor
    pool: Tensor
    n_contrasts: int
    n_fixed: int
    generator: torch.Generator

    def __call__(self, rows: Tensor, fraction: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return f of the rows (members, n), of contrasts (members, n, K), and both's weights.

        The weights of the contrasts (n, K) are logarithms.
        """
        pairs, batch = self.owners[rows], self.take(rows, fraction)
        others, n_first = self._others(pairs)
        z, n = self.z[torch.cat([pairs, others])], len(pairs)

        def scores(member: Any) -> Tensor:
            theta, x = member.embed_parameters(z), member.embed_observations(batch)
            own = member.of_pairs(theta[:n], x)
            contrasts = torch.cat([theta[:n_first], theta[n:]])
            return torch.cat([own[:, None], member.of_all(contrasts, x)], dim=1)

        found = self.training.each(scores)
        others = torch.cat([pairs[:n_first], others])
        log_weights = self.weights[others].log().expand(n, -1)
        log_weights = log_weights.masked_fill(pairs[:, None] == others, -math.inf)
        return found[..., 0], found[..., 1:], log_weights, self.weights[pairs]

    def _others(self, pairs: Tensor) -> tuple[Tensor, int]:
        """Return the contrasts besides those of the rows, and how many of the rows are some.

        Two come from the pool at least, of which one is another pair than the row's own.
        """
        if not self.training.training:
            return self.pool[: self.n_fixed], 0
        n_first = min(len(pairs), self.n_contrasts - 1)
        size = min(self.n_contrasts + 1 - n_first, len(self.pool))
        options = {"generator": self.generator, "device": pairs.device}
        start = torch.randint(len(self.pool), (1,), **options)
        consecutive = start + torch.arange(size, device=pairs.device)
        return self.pool[consecutive % len(self.pool)], n_first


@dataclass
class ContrastiveLoss:
    """The objective: NRE-C or NRE-A, and what a balanced ratio pays besides.

    Attributes
    ----------
    contrasts : Contrasts
    loss, gamma, balance
        As of `NREEstimator`.
    """

    contrasts: Contrasts
    loss: str
    gamma: float
    balance: float

    def __call__(self, rows: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
        """Return the losses of rows (members, n), and their weights (n,)."""
        own, others, log_weights, weights = self.contrasts(rows, fraction)
        if self.loss == "nre-c":
            losses = nre_c(own, others, log_weights, self.gamma)
        else:
            losses = nre_a(own, others, log_weights)
        if self.balance:
            losses = losses + self.balance * imbalance(own, others, log_weights, weights)
        return losses, weights

    @torch.no_grad()
    def weigh(self, validation: Tensor) -> float:
        """Weigh the members by how much they prefer pairs to contrasts.

        Return the score of their mixture, minus its NRE-C loss for gamma = 1.
        """
        found = [self.contrasts(rows, 1.0) for rows in validation.split(_VALIDATION_ROWS)]
        own, others, log_weights, weights = zip(*found, strict=True)
        own, others = torch.cat(own, dim=-1), torch.cat(others, dim=-2)
        log_weights, weights = torch.cat(log_weights), torch.cat(weights)
        ensemble = Ensemble(self.contrasts.training.members)
        ensemble.weigh(own - log_mean(others, log_weights), weights)
        losses = nre_c(ensemble.mix(own), ensemble.mix(others), log_weights)
        return -float((weights * losses).mean())
