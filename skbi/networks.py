"""Networks: gated perceptrons and permutation-invariant summaries of sets.

DeepSet(x) = Phi(mean_i phi(x_i)), in rounds: each round reads every set again, moved and scaled by
what the round before has learnt about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

__all__ = ["MLP", "DeepSet"]


def soft_clip(x: Tensor, bound: float = 8.0) -> Tensor:
    """Bend x smoothly into (-bound, bound), so that products stay bounded far from the data."""
    return x * torch.addcmul(x.new_ones(()), x, x, value=bound**-2).rsqrt_()


def hard_clip(x: Tensor, bound: float = 8.0) -> Tensor:
    """As `soft_clip`, but straight in between: off by 5e-5 of x at 3, where that is off by 7 %."""
    x = x.clamp(-1e4 * bound, 1e4 * bound)  # whose eighth power is a float32
    return x * (1 + (x / bound).pow(8)).pow(-1 / 8)


def bounded(x: Tensor, bound: float) -> Tensor:
    """Bend x into (-bound, bound) by tanh: for logarithms of scales."""
    return bound * torch.tanh(x / bound)


def zero(linear: nn.Linear) -> nn.Linear:
    """Start a linear layer at zero, so that the map it steers starts at the identity."""
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


class Gated(nn.Module):
    """x -> SiLU(W x + a) * (V x + b): a layer that multiplies, as estimators of scale must."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_in, 2 * n_out)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Apply the layer; ``bias`` is added before the product."""
        h = self.linear(x) if bias is None else affine(self.linear, x, bias)
        gate, value = h.chunk(2, dim=-1)
        if torch.is_grad_enabled():
            return silu(gate) * value
        return silu(gate, inplace=True).mul_(value)  # twice as fast: no new memory


def affine(linear: nn.Linear, x: Tensor, bias: Tensor) -> Tensor:
    """linear(x) + bias in one pass: x is (n, k) with bias (n, m), or (n, S, k) with (n, 1, m)."""
    weight, bias = linear.weight.mT, bias + linear.bias
    if linear.in_features == 1:
        return torch.addcmul(bias, x, weight)  # 4 to 6 times faster than a matrix product
    if x.ndim == 2:
        return torch.addmm(bias, x, weight)
    return torch.baddbmm(bias, x, weight.expand(len(x), -1, -1))


class MLP(nn.Module):
    """Gated hidden layers, added to a linear path from input to output.

    Parameters
    ----------
    n_in, n_out : int
        Width of the input and of the output.
    hidden_layer_sizes : sequence of int, default=(64,)
        Width of each gated layer.

    Examples
    --------
    >>> MLP(3, 2)(torch.zeros(5, 3)).shape
    torch.Size([5, 2])
    """

    def __init__(self, n_in: int, n_out: int, hidden_layer_sizes: Sequence[int] = (64,)) -> None:
        super().__init__()
        sizes = [n_in, *hidden_layer_sizes]
        self.hidden = nn.Sequential(*(Gated(a, b) for a, b in pairwise(sizes)))
        self.last = nn.Linear(sizes[-1], n_out)
        self.linear = nn.Linear(n_in, n_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n_in) to (..., n_out)."""
        return self.last(self.hidden(x)) + self.linear(x)


class DeepSet(nn.Module):
    """A permutation-invariant summary of sets of any size.

    Every set is standardised by its own mean and standard deviation. The context starts linear in
    both (in the mean and its asinh, and in the logarithm of the other) and in the logarithm of the
    set's size. Each round then moves and scales the points by the context, pools
    phi(point, context) by its mean, and adds Phi(pooled, context) to the context, as a Newton step
    would.

    Parameters
    ----------
    n_features : int
        d, the width of a point.
    n_out : int
        Width of the summary.
    hidden_layer_sizes : sequence of int, default=(32, 32)
        Gated layers of phi, applied to every point.
    n_rounds : int, default=3
        How often every set is read.

    References
    ----------
    Zaheer et al., Deep Sets, 2017, https://arxiv.org/abs/1703.06114.

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
        self.start = nn.Linear(3 * n_features + 2, n_out)
        self.rounds = nn.ModuleList(
            Round(n_features, n_out, hidden_layer_sizes) for _ in range(n_rounds)
        )

    def shrunk(self) -> list[nn.Parameter]:
        """Return what shrinkage pulls to zero: the rounds' layers, not what is linear in them."""
        layers = [[step.inject, step.phi, step.Phi.hidden, step.Phi.last] for step in self.rounds]
        named = nn.ModuleList(chain(*layers)).named_parameters()
        return [weights for name, weights in named if name.endswith("weight")]

    def moments(self, points: Tensor, sizes: Tensor, totals: Tensor | None = None) -> Tensor:
        """Return what the context starts from, linearly, (n, 3 n_features + 2)."""
        return _standardise(Sets(sizes), points, sizes if totals is None else totals)[1]

    @torch.no_grad()
    def begin(self, slopes: Tensor, intercept: Tensor) -> None:
        """Start the context's first k numbers at moments @ slopes (., k) + intercept (k,)."""
        k = len(intercept)
        self.start.weight[:k], self.start.bias[:k] = slopes.mT, intercept

    def forward(self, points: Tensor, sizes: Tensor, totals: Tensor | None = None) -> Tensor:
        """Summarise packed sets.

        Parameters
        ----------
        points : Tensor, shape (N, n_features)
            The points of all sets, one set after another.
        sizes : Tensor of int, shape (n,), sum N
            Points of each set.
        totals : Tensor of int, shape (n,), optional
            Sizes of the whole sets, when the points given are a random part of them.

        Returns
        -------
        Tensor, shape (n, n_out)
        """
        sets = Sets(sizes)
        x, moments = _standardise(sets, points, sizes if totals is None else totals)
        context = self.start(moments)
        for step in self.rounds:
            x, context = step(x, context, sets)
        return context


def _standardise(sets: Sets, points: Tensor, totals: Tensor) -> tuple[Tensor, Tensor]:
    """Standardise each set by its own moments; return these too, in bounded or slow forms."""
    x = sets.split(points)
    mean = sets.mean(x)
    x = x - sets.spread(mean)
    scale = (sets.mean(x.square()) + 1e-8).sqrt()
    n_points = torch.stack([sets.sizes, totals], dim=-1).to(points)
    moments = [hard_clip(mean), mean.asinh(), scale.log(), n_points.log()]
    return x / sets.spread(scale), torch.cat(moments, dim=-1)


class Round(nn.Module):
    """One reading of the sets: move and scale the points, pool them, update the context."""

    def __init__(self, n_features: int, n_context: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.move = zero(nn.Linear(n_context, 2 * n_features))
        self.inject = nn.Linear(n_context, 2 * hidden[0])
        self.phi = nn.ModuleList(Gated(a, b) for a, b in pairwise([n_features, *hidden]))
        self.Phi = MLP(hidden[-1] + n_context, n_context)

    def forward(self, x: Tensor, context: Tensor, sets: Sets) -> tuple[Tensor, Tensor]:
        """Return the moved points and the updated context."""
        shift, log_scale = self.move(context).chunk(2, dim=-1)
        x = (x - sets.spread(shift)) * sets.spread(bounded(-log_scale, 2.0).exp())
        h = self.phi[0](soft_clip(x), sets.spread(self.inject(context)))
        for layer in self.phi[1:]:
            h = layer(h)
        step = self.Phi(soft_clip(torch.cat([sets.mean(h), context], dim=-1)))
        return x, soft_clip(context + soft_clip(step, 2.0))  # longer steps can end in saturation


class Sets:
    """How points belong to sets. Sets of one size form an array (n, S, d); others stay packed."""

    def __init__(self, sizes: Tensor) -> None:
        self.sizes = sizes
        self.equal = bool((sizes == sizes[0]).all())
        if not self.equal:
            self.owner = torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)

    def split(self, points: Tensor) -> Tensor:
        """Arrange packed points (N, d)."""
        return points.unflatten(0, (len(self.sizes), -1)) if self.equal else points

    def spread(self, values: Tensor) -> Tensor:
        """Hand each set's values (n, k) to its points."""
        return values.unsqueeze(1) if self.equal else values.index_select(0, self.owner)

    def mean(self, x: Tensor) -> Tensor:
        """Average over each set's points, (n, k)."""
        if self.equal:
            return x.mean(dim=1)
        total = x.new_zeros(len(self.sizes), x.shape[-1]).index_add(0, self.owner, x)
        return total / self.sizes.unsqueeze(-1)
