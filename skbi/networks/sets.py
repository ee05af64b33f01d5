"""Permutation-invariant summaries of sets: DeepSet(x) = Phi(mean_i phi(x_i)), in rounds.

The summary is built up in a vector called the context. In every round the points of a set are read
again, shifted and scaled by the context of the round before:

    x_i <- (x_i - shift(context)) * scale(context),
    context <- context + Phi(mean_i phi(x_i, context), context).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise

import torch
from torch import Tensor, nn

from skbi.networks.layers import MLP, Gated, bounded, hard_clip, soft_clip, zero

__all__ = ["DeepSet", "Sets", "n_moments"]

_MIN_VARIANCE = 1e-8  # added to the variance of each set
_MAX_LOG_SCALE = 2.0  # of the factor by which a round scales the points
_MAX_STEP = 2.0  # by which a round changes the context


def n_moments(n_features: int) -> int:
    """Return how many moments of a set with so many features a `DeepSet` starts from."""
    return 5 * n_features + 2


class DeepSet(nn.Module):
    """A permutation-invariant summary of sets of any size.

    Every set is standardised by its own mean and standard deviation. The context starts as a linear
    function of the set's moments: of the mean and its asinh, of the logarithm of the standard
    deviation, of the asinh of the smallest and largest value, and of the logarithm of the set's
    size. Every round then updates the context, as a
    Newton step would, from the mean of phi over the points. The last context is the summary.

    Parameters
    ----------
    n_features : int
        d, the width of a point.
    n_out : int
        Width of the summary.
    hidden_layer_sizes : sequence of int, default=(32, 32)
        Widths of the gated layers of phi, which is applied to every point.
    n_rounds : int, default=3
        How often the points of every set are read.

    References
    ----------
    Zaheer et al., Deep sets, 2017, https://arxiv.org/abs/1703.06114.

    Examples
    --------
    >>> points, sizes = torch.zeros(7, 2), torch.tensor([3, 4])
    >>> DeepSet(n_features=2, n_out=8)(points, sizes).shape
    torch.Size([2, 8])
    """

    def __init__(
        self,
        n_features: int,
        n_out: int,
        *,
        hidden_layer_sizes: Sequence[int] = (32, 32),
        n_rounds: int = 3,
    ) -> None:
        super().__init__()
        self.start = nn.Linear(n_moments(n_features), n_out)
        self.rounds = nn.ModuleList(
            Round(n_features, n_out, hidden_layer_sizes) for _ in range(n_rounds)
        )

    def shrunk(self) -> list[nn.Parameter]:
        """Return the weights that shrinkage pulls to zero.

        These are the rounds' weights, but neither those of a linear path from context to context
        nor those that shift and scale the points.
        """
        layers = [[r.to_hidden, r.phi, r.Phi.hidden, r.Phi.last] for r in self.rounds]
        named = nn.ModuleList(chain(*layers)).named_parameters()
        return [weights for name, weights in named if name.endswith("weight")]

    def moments(self, points: Tensor, sizes: Tensor, totals: Tensor | None = None) -> Tensor:
        """Return the moments of every set that the context starts from, (n, 5 n_features + 2)."""
        return _standardise(Sets(sizes), points, sizes if totals is None else totals)[1]

    @torch.no_grad()
    def start_at(self, slopes: Tensor, intercept: Tensor) -> None:
        """Start the first k numbers of the context at moments @ slopes + intercept.

        Parameters
        ----------
        slopes : Tensor, shape (5 n_features + 2, k)
        intercept : Tensor, shape (k,)
        """
        k = len(intercept)
        self.start.weight[:k], self.start.bias[:k] = slopes.mT, intercept

    def forward(self, points: Tensor, sizes: Tensor, totals: Tensor | None = None) -> Tensor:
        """Summarise packed sets.

        Parameters
        ----------
        points : Tensor, shape (N, n_features)
            The points of all sets, one set after another.
        sizes : Tensor of int, shape (n,), sum N
            Number of points of each set.
        totals : Tensor of int, shape (n,), optional
            Sizes of the whole sets, if the points are a random part of each set.

        Returns
        -------
        Tensor, shape (n, n_out)
        """
        sets = Sets(sizes)
        x, moments = _standardise(sets, points, sizes if totals is None else totals)
        context = self.start(moments)
        for update in self.rounds:
            x, context = update(x, context, sets)
        return context


def _standardise(sets: Sets, points: Tensor, totals: Tensor) -> tuple[Tensor, Tensor]:
    """Standardise every set by its own mean and sd; return the arranged points and the moments.

    The moments are in forms that are bounded or grow slowly, for sets that are far from training.
    """
    x = sets.arrange(points)
    mean, extremes = sets.mean(x), [values.asinh() for values in sets.extremes(x)]
    x = x - sets.to_points(mean)
    sd = (sets.mean(x.square()) + _MIN_VARIANCE).sqrt()
    n_points = torch.stack([sets.sizes, totals], dim=-1).to(points)
    moments = [hard_clip(mean), mean.asinh(), sd.log(), *extremes, n_points.log()]
    return x / sets.to_points(sd), torch.cat(moments, dim=-1)


class Round(nn.Module):
    """One reading of the sets: shift and scale the points, pool them, update the context."""

    def __init__(self, n_features: int, n_context: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.to_shift_and_scale = zero(nn.Linear(n_context, 2 * n_features))
        self.to_hidden = nn.Linear(n_context, 2 * hidden[0])
        self.phi = nn.ModuleList(Gated(a, b) for a, b in pairwise([n_features, *hidden]))
        self.Phi = MLP(hidden[-1] + n_context, n_context)

    def forward(self, x: Tensor, context: Tensor, sets: Sets) -> tuple[Tensor, Tensor]:
        """Return the shifted and scaled points, and the updated context (n, n_context)."""
        shift, log_scale = self.to_shift_and_scale(context).chunk(2, dim=-1)
        scale = bounded(-log_scale, _MAX_LOG_SCALE).exp()
        x = (x - sets.to_points(shift)) * sets.to_points(scale)
        h = self.phi[0](soft_clip(x), sets.to_points(self.to_hidden(context)))
        for layer in self.phi[1:]:
            h = layer(h)
        step = self.Phi(soft_clip(torch.cat([sets.mean(h), context], dim=-1)))
        return x, soft_clip(context + soft_clip(step, _MAX_STEP))  # a long step could saturate it


class Sets:
    """Which set each point belongs to.

    Points are arranged for fast operations: those of sets of one size as (n, S, k), those of sets
    of several sizes packed, as (N, k).

    Parameters
    ----------
    sizes : Tensor of int, shape (n,), sum N
        Number of points of each set.

    Examples
    --------
    >>> sets = Sets(torch.tensor([1, 2]))
    >>> x = sets.arrange(torch.tensor([[1.0], [2.0], [4.0]]))
    >>> mean = sets.mean(x)
    >>> mean
    tensor([[1.],
            [3.]])
    >>> x - sets.to_points(mean)
    tensor([[ 0.],
            [-1.],
            [ 1.]])
    """

    def __init__(self, sizes: Tensor) -> None:
        self.sizes = sizes
        self.equal = bool((sizes == sizes[0]).all())
        if not self.equal:
            self.owner = torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)

    def arrange(self, points: Tensor) -> Tensor:
        """Arrange packed points (N, k)."""
        return points.unflatten(0, (len(self.sizes), -1)) if self.equal else points

    def to_points(self, values: Tensor) -> Tensor:
        """Give every point the values of its set (n, k), for operations with arranged points."""
        return values.unsqueeze(1) if self.equal else values.index_select(0, self.owner)

    def mean(self, x: Tensor) -> Tensor:
        """Average arranged points over each set, (n, k)."""
        if self.equal:
            return x.mean(dim=1)
        total = x.new_zeros(len(self.sizes), x.shape[-1]).index_add(0, self.owner, x)
        return total / self.sizes.unsqueeze(-1)

    def extremes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the smallest and largest values of arranged points in each set, (n, k) each."""
        if self.equal:
            return x.amin(dim=1), x.amax(dim=1)
        owner = self.owner.unsqueeze(-1).expand_as(x)
        empty = x.new_zeros(len(self.sizes), x.shape[-1])
        low, high = (
            empty.scatter_reduce(0, owner, x, kind, include_self=False) for kind in ("amin", "amax")
        )
        return low, high
