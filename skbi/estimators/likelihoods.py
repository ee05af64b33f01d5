"""What NLE learns: members q(x | theta), and log L(theta) = sum_i log q(x_i | theta) of points x_i.

Training begins at x ~ N(w @ slopes + intercept, C), a linear regression on the parameters w. Points
are evaluated in blocks that fit into the cache, those of several observations together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import logsigmoid

from skbi.estimators.regressors import ReadsParameters
from skbi.estimators.sampled import LearntLikelihood
from skbi.flows import ConditionalFlow
from skbi.networks.layers import MLP
from skbi.parallel import blocks, each_in_one_thread, one_thread
from skbi.preprocessing.coordinates import ParameterMap
from skbi.preprocessing.maps import Maps
from skbi.preprocessing.packed import Packed, to_tensor
from skbi.priors import Prior
from skbi.training.ensemble import DensityMember, Ensemble
from skbi.training.start import regress

__all__ = [
    "MAX_POINTS",
    "Likelihood",
    "LikelihoodMember",
    "embed_parameters",
    "log_likelihood",
    "start_at_regression",
]

MAX_POINTS = 6144  # points in the flow at one time: more no longer fit into the cache
_ALIGNMENT = 64  # rows
_MIN_POINTS = 32  # of an observation, from which on it has a pass of its own
_MIN_DIVIDED = 64  # points, from which on a sampler begins with a part of them:
_FRACTION = 8  # an eighth


class LikelihoodMember(ReadsParameters, DensityMember):
    """q(x | h): a conditional flow, whose context h is an embedding of the parameters, and w.

    The regressors w are the parameters as a regression reads them (`ParameterMap.regressors`). By
    them the flow can begin at a linear regression of x on theta.

    Where simulations can fail, it is q(x | h) P(success | z). The logit of that probability is then
    the last number of the context, which the flow does not read.

    Parameters
    ----------
    embedding : MLP
        Of z, what networks read of theta.
    flow : ConditionalFlow
        Its context is as wide as the embedding and w together.
    success : MLP, optional
        Of z, to the logit.

    Attributes
    ----------
    flat, mean, scale
        As of `ReadsParameters`.
    edge : Tensor, shape ()
        About the outermost Gaussian coordinate of the training parameters. Between it and a bound
        of a flat prior, which no simulation has come closer to, the likelihood is that at the edge.
    """

    edge: Tensor

    def __init__(self, embedding: MLP, flow: ConditionalFlow, success: MLP | None = None) -> None:
        super().__init__(flow)
        self.embedding, self.success = embedding, success
        self._register(embedding.linear.in_features)
        self.register_buffer("edge", torch.full((), torch.inf))

    def read(self, parameters: ParameterMap) -> None:
        """Learn how z becomes w, and where the edge is."""
        super().read(parameters)
        self.edge.fill_(parameters.edge)

    def embed_parameters(self, z: Tensor) -> Tensor:
        """Return the context: the embedding of z, then w, then the logit of success if any."""
        low, high = ((edge - self.mean) / self.scale for edge in (-self.edge, self.edge))
        z = torch.where(self.flat, z.clamp(low, high), z)
        parts = [self.embedding(z), self.regressors(z)]
        return torch.cat([*parts, self.success(z)] if self.success else parts, dim=-1)

    def log_prob(self, z: Tensor, context: Tensor) -> Tensor:
        """Log density of points (..., d), and of their being there at all."""
        if self.success is None:
            return super().log_prob(z, context)
        log_q = super().log_prob(z, context[..., :-1])
        logit = context[..., -1]
        return log_q + logsigmoid(logit).reshape(*logit.shape, *[1] * (log_q.ndim - logit.ndim))

    def inverse(self, u: Tensor, context: Tensor) -> Tensor:
        """Draw points of simulations that succeed."""
        return super().inverse(u, context if self.success is None else context[..., :-1])


def start_at_regression(
    members: Sequence[LikelihoodMember], z: NDArray[np.float64], x: NDArray[np.float64]
) -> None:
    """Start flows at a linear regression of x (n, k) on the parameters z (n, p).

    The embedding has no part in it, as it is what training is about to change.
    """
    if not members:
        return
    w = members[0].regressors(to_tensor(z, members[0].log_weight))
    slopes, *rest = regress(w.double().cpu().numpy(), x)
    for member in members:
        unused = member.flow.n_context - len(slopes)
        member.flow.start_at(np.pad(slopes, ((unused, 0), (0, 0))), *rest)


class Likelihood(LearntLikelihood):
    """log L(theta) = sum_i log q(x_i | theta) over the points of one observation."""

    def __init__(
        self, ensemble: Ensemble, maps: Maps, observation: Packed, prior: Prior | None
    ) -> None:
        super().__init__(ensemble, maps, observation, prior)
        self.scaled, log_ratio = maps.to_density(observation.points)
        self.constant = float(log_ratio.sum())

    def approximations(self) -> list[LearntLikelihood]:
        """Return the leading member's likelihood of an eighth of the points, and of all of them."""
        leader = Ensemble([self.ensemble.leader])
        order = np.lexsort(self.scaled.T)  # a subset that does not depend on the points' order
        sizes, n = [], len(order)
        while n >= _MIN_DIVIDED:
            n //= _FRACTION
            sizes.insert(0, n)
        if len(self.ensemble.members) > 1:
            sizes.append(len(order))
        return [
            Likelihood(leader, self.maps, self._some(order, size), self.prior) for size in sizes
        ]

    def _some(self, order: NDArray[np.int64], size: int) -> Packed:
        """Return evenly many of the points, in this order."""
        chosen = order[(np.arange(size) + 0.5).astype(int) * len(order) // size]
        return Packed(self.observation.points[chosen], np.array([size]))

    def parts(self) -> list[Tensor]:
        """Return the points, in blocks."""
        x = to_tensor(self.scaled, self.ensemble.like)
        return [x[points] for points in blocks(len(x), MAX_POINTS)]

    def embed(self, z: Tensor) -> list[Tensor]:
        """Embed parameters with every member."""
        return [member.embed_parameters(z) for member in self.ensemble.members]

    def log_prob(self, part: Tensor, contexts: list[Tensor]) -> Tensor:
        """Sum the log density of points (S, d) under every context, (m,)."""
        points = part.expand(len(contexts[0]), -1, -1)
        return self.ensemble.log_prob(points, contexts).double().sum(dim=1)

    def rows_at_once(self, part: Tensor) -> int:
        """Return how many theta meet a block of points at one time."""
        return max(1, MAX_POINTS // len(part))

    @torch.no_grad()
    def error(self, theta: NDArray[np.float64]) -> float | None:
        """Return the standard error of log L at draws of the posterior, by how members differ.

        With l_mi the log density of point i by member m of weight w_m, and d_mi its distance from
        the members' weighted mean, the variance is sum_m w_m^2 (sum_i d_mi^2 + (sum_i d_mi)^2):
        errors of the points on their own, and those that they share.
        """
        if len(self.ensemble.members) == 1:
            return None
        z = to_tensor(self.maps.theta.forward(theta)[0], self.ensemble.like)
        x, densities = to_tensor(self.scaled, self.ensemble.like), []
        for member in self.ensemble.members:
            context = member.embed_parameters(z)
            found = [
                member.log_prob(x.expand(len(some), -1, -1), some).double().sum(dim=0)
                for some in context.split(self.rows_at_once(x))
            ]
            densities.append(sum(found).cpu().numpy() / len(z))
        weights = self.ensemble.weights
        distance = np.array(densities) - weights @ np.array(densities)
        squared = (distance**2).sum(axis=1) + distance.sum(axis=1) ** 2
        return float(np.sqrt(weights**2 @ squared))

    @classmethod
    def evaluate_each(
        cls, likelihoods: Sequence[Any], zs: Sequence[NDArray[np.float64]]
    ) -> list[NDArray[np.float64]]:
        """Evaluate every likelihood at its z (m, p); observations of few points share a pass."""
        values = [
            likelihood.evaluate(z) if len(likelihood.scaled) >= _MIN_POINTS else None
            for likelihood, z in zip(likelihoods, zs, strict=True)
        ]
        for group in _groups_of_few_points(likelihoods, zs):
            found = _evaluate_few_points([likelihoods[i] for i in group], [zs[i] for i in group])
            for i, value in zip(group, found, strict=True):
                values[i] = value
        return values


def _groups_of_few_points(
    likelihoods: Sequence[Likelihood], zs: Sequence[NDArray[np.float64]]
) -> list[list[int]]:
    """Group observations of few points that fit into one pass of the same networks."""
    groups, last, room = [], None, 0
    for i, (likelihood, z) in enumerate(zip(likelihoods, zs, strict=True)):
        if len(likelihood.scaled) >= _MIN_POINTS:
            continue
        members, size = list(map(id, likelihood.ensemble.members)), len(z) * len(likelihood.scaled)
        if members != last or size > room:
            groups.append([])
            last, room = members, MAX_POINTS
        groups[-1].append(i)
        room -= size
    return groups


@torch.no_grad()
def _evaluate_few_points(
    likelihoods: Sequence[Likelihood], zs: Sequence[NDArray[np.float64]]
) -> list[NDArray[np.float64]]:
    """Evaluate observations in one pass, every pair of theta and point a row.

    Each observation fills a multiple of 64 rows. Matrix products then round its rows alike wherever
    they stand, so that no observation changes the values of another.
    """
    ensemble = likelihoods[0].ensemble
    padded = [np.concatenate([z, np.repeat(z[-1:], -len(z) % _ALIGNMENT, axis=0)]) for z in zs]
    pairs = list(zip(likelihoods, padded, strict=True))
    points = [np.tile(each.scaled, (len(z), 1)) for each, z in pairs]
    n_points = np.concatenate([np.full(len(z), len(each.scaled)) for each, z in pairs])
    z, x = (to_tensor(np.concatenate(a), ensemble.like) for a in (padded, points))
    repeats = torch.as_tensor(n_points, device=z.device)
    values = np.empty(len(x))
    with one_thread():
        contexts = [member.embed_parameters(z) for member in ensemble.members]
        contexts = [context.repeat_interleave(repeats, dim=0) for context in contexts]
        for rows in blocks(len(x), MAX_POINTS):
            density = ensemble.log_prob(x[rows], [context[rows] for context in contexts])
            values[rows] = density.double().cpu().numpy()
    ends = np.cumsum([len(p) for p in points])
    return [
        value.reshape(-1, len(likelihood.scaled)).sum(axis=1)[: len(own)] + likelihood.constant
        for likelihood, own, value in zip(likelihoods, zs, np.split(values, ends[:-1]), strict=True)
    ]


@torch.no_grad()
def embed_parameters(ensemble: Ensemble, z: NDArray[np.float64]) -> list[Tensor]:
    """Embed parameters z (n, p) with every member."""
    z = to_tensor(z, ensemble.like)
    with one_thread():
        return [member.embed_parameters(z) for member in ensemble.members]


def log_likelihood(
    ensemble: Ensemble, maps: Maps, z: NDArray[np.float64], packed: Packed
) -> NDArray[np.float64]:
    """Sum log q(x | z) over the points of each observation; z is embedded once.

    Of z (n, p) that is (n,), row by row; of z (n, m, p) it is (n, m). Either n may be one.
    """
    if z.ndim == 3:
        n, m, p = z.shape
        if len(packed) == 1:
            return log_likelihood(ensemble, maps, z.reshape(-1, p), packed).reshape(n, m)
        likelihoods = [
            Likelihood(ensemble, maps, packed[i : i + 1], None) for i in range(len(packed))
        ]
        each_z = np.repeat(z, len(packed) // n, axis=0)
        return np.stack(Likelihood.evaluate_each(likelihoods, each_z))
    if len(packed) == 1:
        return Likelihood(ensemble, maps, packed, None).evaluate(z)
    contexts = embed_parameters(ensemble, z)
    y, log_ratio = maps.to_density(packed.points)
    x = to_tensor(y, contexts[0])
    owners, values = packed.owners(), np.empty(len(x))

    @torch.no_grad()  # which holds for the calling thread only
    def evaluate_block(rows: slice) -> None:
        if len(z) == 1:
            values[rows] = ensemble.log_prob(x[None, rows], contexts)[0].cpu()
        else:
            paired = [context[owners[rows]] for context in contexts]
            values[rows] = ensemble.log_prob(x[rows], paired).cpu()

    each_in_one_thread(evaluate_block, [(rows,) for rows in blocks(len(x), MAX_POINTS)])
    return np.bincount(owners, values + log_ratio, minlength=len(packed))
