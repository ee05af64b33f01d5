"""Conditional normalising flows: z -> u ~ N(0, I), log q(z | h) = log N(u; 0, I) + log |det du/dz|.

A conditional affine map of all of z comes first, then coupling layers: each moves one part of z by
a map whose parameters a network reads from the other part and from h, and swaps the two parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad, softplus

from skbi.networks import Gated, affine, bounded, zero

__all__ = ["NeuralSplineFlow", "RealNVP"]

_BOX = 5.0  # splines act inside [-5, 5] and are the identity outside
_BINS = 8
_SMALLEST = 1e-2  # of a spline's bin width and height (as a share of the box) and of its slope
_UNIT_SLOPE = math.log(math.expm1(1 - _SMALLEST))  # softplus maps it to slope 1: the identity


class CouplingFlow(nn.Module):
    """What RealNVP and NeuralSplineFlow share; they differ in `n_values` and `transform`.

    Shapes: z is (n, p) or (n, draws, p) and the context (n, c) stands for all draws of its row, so
    that an observation is embedded and projected once however many draws are made.

    Parameters
    ----------
    n_features : int
        p, the width of z.
    n_context : int
        c, the width of the context h.
    n_transforms : int, default=6
        Number of coupling layers.
    hidden_layer_sizes : sequence of int, default=(64,)
        Gated hidden layers of each coupling layer's network.
    """

    n_values: int  # numbers that describe the map of one component

    def __init__(
        self,
        n_features: int,
        n_context: int,
        *,
        n_transforms: int = 6,
        hidden_layer_sizes: Sequence[int] = (64,),
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            Coupling(n_features, i, self.n_values, hidden_layer_sizes) for i in range(n_transforms)
        )
        self.first = [layer.widths[0] for layer in self.layers]
        self.last = [2 * n_features, *(layer.widths[1] for layer in self.layers)]
        self.inject = nn.Linear(n_context, sum(self.first))
        self.steer = zero(nn.Linear(n_context, sum(self.last)))

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Map z to (u, log |det du/dz|); log_det has z's shape less the last axis."""
        layers, shift, log_scale = self._steps(context.unsqueeze(1) if z.ndim == 3 else context)
        z, log_det = shift + z * log_scale.exp(), log_scale.sum(dim=-1)
        for layer, first, last in layers:
            z, change = layer(z, first, last, self.transform)
            log_det = log_det + change
        return z, log_det

    def inverse(self, u: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Map u to (z, log |det dz/du|)."""
        layers, shift, log_scale = self._steps(context.unsqueeze(1) if u.ndim == 3 else context)
        log_det = -log_scale.sum(dim=-1)
        for layer, first, last in reversed(layers):
            u, change = layer.inverse(u, first, last, self.transform)
            log_det = log_det + change
        return (u - shift) * (-log_scale).exp(), log_det

    def log_prob(self, z: Tensor, context: Tensor) -> Tensor:
        """Log density of z given the context, normalised over z."""
        u, log_det = self(z, context)
        return log_det - 0.5 * (u.square() + math.log(2 * math.pi)).sum(dim=-1)

    def decayed(self) -> list[Tensor]:
        """Return what weight decay shrinks: the layers' networks, not the linear path past them."""
        networks = [*self.inject.parameters(), *self.layers.parameters()]
        return [weights for weights in networks if weights.ndim > 1]

    def _steps(self, context: Tensor) -> tuple[list[Any], Tensor, Tensor]:
        """Compute what the context decides: each layer's additions, the affine map's two halves."""
        first = self.inject(context).split(self.first, dim=-1)
        start, *last = self.steer(context).split(self.last, dim=-1)
        shift, log_scale = start.chunk(2, dim=-1)
        return list(zip(self.layers, first, last, strict=True)), shift, bounded(log_scale, 10.0)

    @staticmethod
    def transform(x: Tensor, values: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """Map each component of x (..., k) by its values (..., k, n_values); also log |dy/dx|."""
        raise NotImplementedError


class RealNVP(CouplingFlow):
    """Affine couplings: x -> x * exp(s) + t, with s within (-2, 2).

    In one dimension a coupling keeps nothing, and any stack of affine maps is a Gaussian.

    References
    ----------
    Dinh et al., Density estimation using Real NVP, 2016, https://arxiv.org/abs/1605.08803;
    Winkler et al., Learning likelihoods with conditional normalizing flows, 2019,
    https://arxiv.org/abs/1912.00042.

    Examples
    --------
    >>> z, context = torch.zeros(5, 3), torch.zeros(5, 2)
    >>> RealNVP(n_features=3, n_context=2).log_prob(z, context).shape
    torch.Size([5])
    """

    n_values = 2

    @staticmethod
    def transform(x: Tensor, values: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """Scale and shift."""
        shift, log_scale = values[..., 0], 2 * values[..., 1].tanh()
        if inverse:
            return (x - shift) * (-log_scale).exp(), -log_scale
        return x * log_scale.exp() + shift, log_scale


class NeuralSplineFlow(CouplingFlow):
    """Couplings by monotone rational-quadratic splines of 8 bins on [-5, 5], the identity outside.

    References
    ----------
    Durkan et al., Neural spline flows, 2019, https://arxiv.org/abs/1906.04032.

    Examples
    --------
    >>> z, context = torch.zeros(5, 1), torch.zeros(5, 2)
    >>> NeuralSplineFlow(n_features=1, n_context=2).log_prob(z, context).shape
    torch.Size([5])
    """

    n_values = 3 * _BINS - 1

    @staticmethod
    def transform(x: Tensor, values: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """Evaluate the spline, or its inverse, and the log of its slope."""
        shape, axis = x.shape, 1 if inverse else 0
        share = _shares(values[..., : 2 * _BINS].unflatten(-1, (2, _BINS)))
        total = share.cumsum(dim=-1)
        floor = _SMALLEST * torch.arange(1, _BINS + 1, dtype=x.dtype, device=x.device)
        x_in = x.clamp(-_BOX, _BOX)
        edges = _stretch(floor[:-1], total[..., axis, :-1]) - _BOX
        bin_ = (x_in.unsqueeze(-1) >= edges).sum(dim=-1, keepdim=True)

        def pick(table: Tensor) -> Tensor:
            row = bin_.unsqueeze(-2).expand(*shape, 2, 1)
            return table.expand(*shape, 2, _BINS).gather(-1, row).squeeze(-1)

        size = _stretch(_SMALLEST, pick(share))
        start = _stretch(floor[bin_], pick(total)) - _BOX - size
        slopes = pad(values[..., 2 * _BINS :], (1, 1)).expand(*shape, _BINS + 1)  # 1 at both ends
        slopes = slopes.gather(-1, torch.cat([bin_, bin_ + 1], dim=-1))
        slopes = _SMALLEST + softplus(slopes + _UNIT_SLOPE)
        picked = (*start.unbind(dim=-1), *size.unbind(dim=-1), *slopes.unbind(dim=-1))
        y, log_slope = _rational_quadratic(x_in, *picked, inverse)
        inside = x.abs() < _BOX
        return torch.where(inside, y, x), torch.where(inside, log_slope, 0.0)


class Coupling(nn.Module):
    """Moves the second part of z by the first and swaps the two.

    Layers come in pairs, which together move everything; before every further pair the components
    change places, always in the same way.
    """

    order: Tensor | None

    def __init__(self, n_features: int, i: int, n_values: int, hidden: Sequence[int]) -> None:
        super().__init__()
        order = np.random.default_rng([n_features, i]).permutation(n_features)
        shuffle = i > 0 and i % 2 == 0 and n_features > 2
        self.register_buffer("order", torch.as_tensor(order) if shuffle else None)
        self.n_values = n_values
        n_kept = (n_features + i % 2) // 2 if n_features > 1 else 0
        self.sizes = [n_kept, n_features - n_kept]
        widths = [max(n_kept, 1), *hidden]
        self.hidden = nn.ModuleList(Gated(a, b) for a, b in pairwise(widths))
        self.last = zero(nn.Linear(widths[-1], self.sizes[1] * n_values))
        self.widths = [2 * hidden[0], self.sizes[1] * n_values]

    def forward(
        self, z: Tensor, first: Tensor, last: Tensor, transform: Transform
    ) -> tuple[Tensor, Tensor]:
        """Move z; ``first`` and ``last`` add the context to the first layer and the output."""
        if self.order is not None:
            z = z.index_select(-1, self.order)
        kept, moved = z.split(self.sizes, dim=-1)
        moved, log_slope = transform(moved, self._values(kept, first, last), False)
        return torch.cat([moved, kept], dim=-1), log_slope.sum(dim=-1)

    def inverse(
        self, z: Tensor, first: Tensor, last: Tensor, transform: Transform
    ) -> tuple[Tensor, Tensor]:
        """Undo `forward`."""
        moved, kept = z.split(self.sizes[::-1], dim=-1)
        moved, log_slope = transform(moved, self._values(kept, first, last), True)
        z = torch.cat([kept, moved], dim=-1)
        if self.order is not None:
            z = z.index_select(-1, self.order.argsort())
        return z, log_slope.sum(dim=-1)

    def _values(self, kept: Tensor, first: Tensor, last: Tensor) -> Tensor:
        """Parameters of the maps, (..., moved, n_values)."""
        h = kept.clamp(-8, 8) if self.sizes[0] else first.new_zeros(*first.shape[:-1], 1)
        h = self.hidden[0](h, first)
        for layer in self.hidden[1:]:
            h = layer(h)
        return affine(self.last, h, last).unflatten(-1, (-1, self.n_values))


Transform = Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor]]


def _shares(values: Tensor) -> Tensor:
    """Softmax over the last axis, of values within 60 of zero: on short axes 9 times as fast."""
    values = values.clamp(-60, 60).exp()
    return values / values.sum(dim=-1, keepdim=True)


def _stretch(floor: Tensor | float, share: Tensor) -> Tensor:
    """Turn shares of the box into lengths, on top of what is the bins' by right."""
    return 2 * _BOX * (floor + (1 - _BINS * _SMALLEST) * share)


def _rational_quadratic(
    x: Tensor,
    x0: Tensor,
    y0: Tensor,
    width: Tensor,
    height: Tensor,
    left: Tensor,
    right: Tensor,
    inverse: bool,
) -> tuple[Tensor, Tensor]:
    """One bin of the spline (Durkan et al., equations 4 to 8) and the log of its slope."""
    slope = height / width
    bend = left + right - 2 * slope
    if inverse:
        rise = x - y0
        a = height * (slope - left) + rise * bend
        b = height * left - rise * bend
        c = -slope * rise
        share = 2 * c / (-b - (b.square() - 4 * a * c).clamp_min(0).sqrt())
    else:
        share = (x - x0) / width
    rest = share * (1 - share)
    below = slope + bend * rest
    y = x0 + share * width if inverse else y0 + height * (slope * share**2 + left * rest) / below
    gain = right * share.square() + 2 * slope * rest + left * (1 - share).square()
    log_slope = 2 * slope.log() + gain.log() - 2 * below.log()
    return y, -log_slope if inverse else log_slope
