"""What NRE learns: members f = log r(theta, x), and log L(theta) = sum_i f(theta, x_i) of points.

Training begins where a Gaussian describes w, the parameters as a regression reads them, given x:

    f = log N(w; c(x), (R'R)^-1) - log N(w; mean, covariance),

with c and R of the regression of w on x, or of the emulator of compressed vectors, where w is z and
R depends on x. The network goes on from there, and reads the residuals R (w - c(x)).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skbi.estimators.contrasts import nre_c
from skbi.estimators.regressors import ReadsParameters
from skbi.estimators.sampled import LearntLikelihood
from skbi.estimators.summaries import read_linearly, regress_on_moments, summarise
from skbi.networks.critic import Critic
from skbi.networks.layers import soft_clip
from skbi.networks.sets import DeepSet
from skbi.parallel import blocks, each_in_one_thread, one_thread
from skbi.preprocessing.batches import Batch
from skbi.preprocessing.maps import Maps
from skbi.preprocessing.packed import Packed, to_tensor
from skbi.priors import Prior
from skbi.training.ensemble import Ensemble, Member
from skbi.training.start import regress

__all__ = [
    "GaussianRatio",
    "Ratio",
    "RatioMember",
    "as_rows",
    "contrastive_losses",
    "embed_observations",
    "embed_parameters",
    "evaluate_draws",
    "log_ratio",
    "ratios_of",
    "scores_against",
    "start_at_moments",
    "start_at_regression",
]

MAX_ROWS = 2**13  # observations, or parameters, that are embedded at a time
_MIN_VARIANCE = 1e-6  # added to the variance of every regressor
_MAX_SCORES = 2**16  # scores of a theta and a point that are computed at a time


class GaussianRatio(nn.Module):
    """log N(w; c(x), (R'R)^-1) - log N(w) of w (p), and x (d) or frames; zero until it is set.

    Attributes
    ----------
    slopes : Tensor, shape (d, p)
    intercept : Tensor, shape (p,)
        c(x) = x @ slopes + intercept, without frames.
    root : Tensor, shape (p, p)
        R, without frames.
    mean : Tensor, shape (p,)
    prior_root : Tensor, shape (p, p)
        Of w: prior_root (w - mean) has unit covariance.
    """

    slopes: Tensor
    intercept: Tensor
    root: Tensor
    mean: Tensor
    prior_root: Tensor

    def __init__(self, n_parameters: int, n_features: int) -> None:
        super().__init__()
        square, vector = torch.eye(n_parameters), torch.zeros(n_parameters)
        self.register_buffer("slopes", torch.zeros(n_features, n_parameters))
        self.register_buffer("intercept", vector)
        self.register_buffer("root", square)
        self.register_buffer("mean", vector.clone())
        self.register_buffer("prior_root", square.clone())

    def set_prior(self, w: NDArray[np.float64]) -> None:
        """Set the Gaussian of w (n, p)."""
        covariance = np.cov(w, rowvar=False) + _MIN_VARIANCE * np.eye(w.shape[1])
        self._copy(mean=w.mean(axis=0), prior_root=np.linalg.inv(np.linalg.cholesky(covariance)))

    def set(self, w: NDArray[np.float64], regression: Sequence[NDArray[np.float64]]) -> None:
        """Set both Gaussians, by w (n, p) and its regression: slopes, intercept and root."""
        slopes, intercept, root = regression
        self.set_prior(w)
        self._copy(slopes=slopes, intercept=intercept, root=root.T)

    def _copy(self, **values: NDArray[np.float64]) -> None:
        for name, value in values.items():
            getattr(self, name).copy_(torch.as_tensor(value, device="cpu"))

    def log_prior(self, w: Tensor) -> Tensor:
        """Return log N(w) of w (n, p), but for a constant, (n, 1)."""
        y = (w - self.mean) @ self.prior_root.mT
        log_det = self.prior_root.diagonal().abs().log().sum()
        return log_det - 0.5 * y.square().sum(dim=-1, keepdim=True)

    def frames(self, x: Tensor) -> Tensor:
        """Return c(x) and R of the regression, for x (n, d), as columns (n, p + p^2)."""
        root = self.root.flatten().expand(len(x), -1)
        return torch.cat([x @ self.slopes + self.intercept, root], dim=-1)

    @staticmethod
    def residuals(w: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return R (w - c) of w (n, m, p) and frames (n, p + p^2), and log N(w; c) (n, m)."""
        p = w.shape[-1]
        root = frames[:, p:].unflatten(-1, (p, p))
        y = (w - frames[:, None, :p]) @ root.mT
        log_det = root.diagonal(dim1=-2, dim2=-1).abs().log().sum(dim=-1, keepdim=True)
        return y, log_det - 0.5 * y.square().sum(dim=-1)


class RatioMember(ReadsParameters, Member):
    """f = log r: a summary network, if there is one, a Gaussian ratio, and a critic for the rest.

    Parameters
    ----------
    summary : Module or None
    gaussian : GaussianRatio
        Of the regressors, and of vectors or the moments of sets; or of z, and an emulator's frames.
    critic : Critic
        Of the regressors, and of summaries.
    reads_sets : bool, default=False
        Whether an observation is a set.
    framed : bool, default=False
        Whether vectors end with an emulator's frames.

    Attributes
    ----------
    flat, mean, scale
        As of `ReadsParameters`.
    low, high : Tensor, shape (p,)
        The range of the regressors in training. The critic reads those beyond as these, as no
        contrast has told it what is there.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        summary: nn.Module | None,
        gaussian: GaussianRatio,
        critic: Critic,
        reads_sets: bool = False,
        framed: bool = False,
    ) -> None:
        super().__init__()
        self.reads_sets, self.framed = reads_sets, framed
        self.summary, self.gaussian, self.critic = summary, gaussian, critic
        p = len(gaussian.mean)
        self._register(p)
        self.register_buffer("low", torch.full((p,), -torch.inf))
        self.register_buffer("high", torch.full((p,), torch.inf))

    @property
    def width(self) -> int:
        """Width of embedded observations."""
        p = len(self.gaussian.mean)
        return self.critic.width + p + p**2

    @torch.no_grad()
    def read_range(self, z: NDArray[np.float64]) -> None:
        """Learn the range of w from the training parameters' z (n, p)."""
        w = self.regressors(to_tensor(z, self.scale))
        self.low.copy_(w.amin(dim=0))
        self.high.copy_(w.amax(dim=0))

    def embed_parameters(self, z: Tensor) -> Tensor:
        """Embed parameters, (n, k)."""
        w = self.regressors(z)
        found, located = self.critic.of_parameters(w.clamp(self.low, self.high)), self.located(z)
        return torch.cat([found, located, self.gaussian.log_prior(located)], dim=-1)

    def embed_observations(self, batch: Batch) -> Tensor:
        """Embed observations, (n, width)."""
        if self.framed:
            n = self.width - self.critic.width
            frames, batch = batch.points[:, -n:], Batch(batch.points[:, :-n])
        else:
            frames = self.gaussian.frames(self.regressed(batch))
        found = self.critic.of_observations(summarise(self.summary, batch))
        return torch.cat([found, frames], dim=-1)

    def of_all(self, theta: Tensor, x: Tensor) -> Tensor:
        """Return f of every embedded theta (m, k) with every embedded x (n, width), (n, m)."""
        (theta, w, log_prior), (x, frames) = self._split(theta, x)
        y, log_prob = self.gaussian.residuals(w.expand(len(x), -1, -1), frames)
        return log_prob - log_prior.mT + self.critic.of_all(theta, x, soft_clip(y))

    def of_pairs(self, theta: Tensor, x: Tensor) -> Tensor:
        """Return f of embedded pairs, (n,): as `of_all` does the diagonal."""
        (theta, w, log_prior), (x, frames) = self._split(theta, x)
        y, log_prob = self.gaussian.residuals(w[:, None], frames)
        score = self.critic.of_pairs(theta, x, soft_clip(y[:, 0]))
        return (log_prob - log_prior)[:, 0] + score

    def _split(self, theta: Tensor, x: Tensor) -> tuple[Any, Any]:
        n, p = self.critic.width, len(self.gaussian.mean)
        return theta.split([n, p, 1], dim=-1), x.split([n, p + p**2], dim=-1)

    def located(self, z: Tensor) -> Tensor:
        """Return what the Gaussians describe: z in an emulator's frames, otherwise regressors."""
        return z if self.framed else self.regressors(z)

    def regressed(self, batch: Batch) -> Tensor:
        """Return what the regression reads: vectors, or the moments of sets."""
        return read_linearly(self.summary, batch, len(self.gaussian.slopes))

    def shrunk(self) -> list[nn.Parameter]:
        """Return the weights that shrinkage pulls to zero, of the networks that are skbi's own."""
        own = self.summary.shrunk() if isinstance(self.summary, DeepSet) else []
        return [*own, *self.critic.shrunk()]


def start_at_regression(
    members: Sequence[RatioMember], z: NDArray[np.float64], batch: Batch
) -> None:
    """Start members without a summary at the Gaussian ratio of theta and x, or of frames."""
    w = _located(members[0], z)
    if members[0].framed:
        for member in members:
            member.gaussian.set_prior(w)
        return
    x = members[0].regressed(batch).double().cpu().numpy()
    regression = regress(x, w)
    for member in members:
        member.gaussian.set(w, regression)


def start_at_moments(
    members: Sequence[RatioMember],
    z: NDArray[np.float64],
    read: Callable[[], Iterable[Batch]],
) -> None:
    """Start members with a `DeepSet` at the Gaussian ratio of theta and the moments of sets.

    The summary starts at what the regression on these moments predicts.
    """
    w = _located(members[0], z)
    regression = regress_on_moments(members[0].summary, w, read)
    slopes, intercept, _ = regression
    k = min(w.shape[1], members[0].summary.start.out_features)
    for member in members:
        member.gaussian.set(w, regression)
        of_summary = slopes[:, :k], intercept[:k]
        member.summary.start_at(*(to_tensor(a, member.log_weight) for a in of_summary))


@torch.no_grad()
def _located(member: RatioMember, z: NDArray[np.float64]) -> NDArray[np.float64]:
    return member.located(to_tensor(z, member.log_weight)).double().cpu().numpy()


class Ratio(LearntLikelihood):
    """log L(theta) = sum_i log r(theta, x_i) over the rows of one observation.

    Parameters
    ----------
    ensemble, maps, observation, prior
        As of `LearntLikelihood`.
    embedded : list of Tensor, shape (S, k)
        The rows, embedded by each member.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        maps: Maps,
        observation: Packed,
        prior: Prior | None,
        embedded: list[Tensor],
    ) -> None:
        super().__init__(ensemble, maps, observation, prior)
        self.embedded = embedded

    def parts(self) -> list[list[Tensor]]:
        """Return the rows, in blocks."""
        rows = blocks(len(self.embedded[0]), _MAX_SCORES)
        return [[x[some] for x in self.embedded] for some in rows]

    def embed(self, z: Tensor) -> list[Tensor]:
        """Embed parameters with every member."""
        return [member.embed_parameters(z) for member in self.ensemble.members]

    def log_prob(self, part: list[Tensor], contexts: list[Tensor]) -> Tensor:
        """Sum log r of rows over them, for every theta, (m,)."""
        each = zip(self.ensemble.members, contexts, part, strict=True)
        scores = [member.of_all(theta, x) for member, theta, x in each]
        return self.ensemble.mix(scores).double().sum(dim=0)

    def rows_at_once(self, part: list[Tensor]) -> int:
        """Return how many theta meet a block of rows at one time."""
        return max(1, min(MAX_ROWS, _MAX_SCORES // len(part[0])))


def as_rows(X: Packed, *, by_point: bool) -> tuple[Packed, NDArray[np.int64]]:
    """Return observations, or single points, as rows, and the observation of each."""
    if by_point and X.sizes is not None:
        return Packed(X.points), X.owners()
    return X, np.arange(len(X))


def embed_observations(packed: Packed, maps: Maps, ensemble: Ensemble) -> list[Tensor]:
    """Embed every observation once with every member, a block of them in each thread."""
    found = [ensemble.like.new_empty(len(packed), member.width) for member in ensemble.members]

    @torch.no_grad()
    def embed(rows: slice) -> None:
        batch = maps.batch(packed[rows], ensemble.like)
        for embedded, member in zip(found, ensemble.members, strict=True):
            embedded[rows] = member.embed_observations(batch)

    each_in_one_thread(embed, [(rows,) for rows in packed.blocks(MAX_ROWS)])
    return found


def ratios_of(
    ensemble: Ensemble, maps: Maps, X: Packed, prior: Prior | None, *, by_point: bool
) -> list[Ratio]:
    """Return the ratio of each observation, whose rows are embedded once."""
    rows, owners = as_rows(X, by_point=by_point)
    embedded = embed_observations(rows, maps, ensemble)
    ends = np.searchsorted(owners, np.arange(len(X) + 1)).tolist()
    return [
        Ratio(ensemble, maps, X[i : i + 1], prior, [x[start:stop] for x in embedded])
        for i, (start, stop) in enumerate(pairwise(ends))
    ]


def evaluate_draws(ratios: Sequence[Ratio], z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log r at draws z (n, m, p) for each observation, (n, m); one of either serves all."""
    n = max(len(ratios), len(z))
    each = zip(list(ratios) * (n // len(ratios)), list(z) * (n // len(z)), strict=True)
    return np.stack([ratio.evaluate(draws) for ratio, draws in each])


@torch.no_grad()
def embed_parameters(z: NDArray[np.float64], ensemble: Ensemble) -> list[Tensor]:
    """Embed parameters z (n, p) with every member."""
    tensor = to_tensor(z, ensemble.like)
    return [member.embed_parameters(tensor) for member in ensemble.members]


def log_ratio(
    ensemble: Ensemble, maps: Maps, z: NDArray[np.float64], packed: Packed, rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return log r of every observation with z[rows], (n,); z are embedded once."""
    values = np.empty(len(packed))

    @torch.no_grad()  # which holds for the calling thread only
    def evaluate_block(some: slice) -> None:
        x = embed_observations(packed[some], maps, ensemble)
        used, inverse = np.unique(rows[some], return_inverse=True)
        theta = [t[inverse] for t in embed_parameters(z[used], ensemble)]
        each = zip(ensemble.members, theta, x, strict=True)
        values[some] = ensemble.mix([m.of_pairs(t, h) for m, t, h in each]).cpu().numpy()

    each_in_one_thread(evaluate_block, [(some,) for some in packed.blocks(MAX_ROWS)])
    return values


def contrastive_losses(
    ensemble: Ensemble,
    maps: Maps,
    z: NDArray[np.float64],
    packed: Packed,
    rows: NDArray[np.int64],
    contrasts: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Return the NRE-C loss of every observation with z[rows], (n,).

    ``contrasts`` are what all are contrasted with, as z (K, p), and how much each counts, (K,).
    """
    own = torch.as_tensor(log_ratio(ensemble, maps, z, packed, rows))
    others = scores_against(ensemble, maps, contrasts[0], packed)
    log_weights = torch.as_tensor(contrasts[1]).log().expand(len(own), -1)
    return nre_c(own, others, log_weights).numpy()


def scores_against(
    ensemble: Ensemble, maps: Maps, z: NDArray[np.float64], packed: Packed
) -> Tensor:
    """Return log r of every observation with every z (m, p), (n, m), in double precision."""
    with one_thread():
        theta = embed_parameters(z, ensemble)

    @torch.no_grad()  # which holds for the calling thread only
    def evaluate_block(some: slice) -> Tensor:
        x = embed_observations(packed[some], maps, ensemble)
        each = zip(ensemble.members, theta, x, strict=True)
        return ensemble.mix([m.of_all(t, h) for m, t, h in each]).double().cpu()

    parts = packed.blocks(max(1, _MAX_SCORES // len(z)))
    return torch.cat(each_in_one_thread(evaluate_block, [(some,) for some in parts]))
