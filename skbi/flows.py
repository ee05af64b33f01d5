"""Conditional normalising flows: z -> u ~ N(0, I), log q(z | h) = log N(u; 0, I) + log |det du/dz|.

A triangular matrix and a conditional affine map of all of z come first, then coupling layers: each
moves one part of z by a map whose parameters a network reads from the other part and from h, and
swaps the two parts.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import pad, softplus

from skbi.networks import Gated, affine, bounded, linear, soft_clip, zero

__all__ = ["NeuralSplineFlow", "RealNVP"]

_BOX = 5.0  # splines act inside [-5, 5] and are the identity outside
_BINS = 8
_SMALLEST = 1e-2  # of a spline's bin width and height (as a share of the box) and of its slope
_UNIT_SLOPE = math.log(math.expm1(1 - _SMALLEST))  # softplus maps it to slope 1: the identity


class CouplingFlow(nn.Module):
    """What RealNVP and NeuralSplineFlow share; they differ in `n_values` and `transform`.

    Shapes: z is (n, p) or (n, draws, p) and the context (n, c) stands for all draws of its row, so
    that an observation is embedded and projected once however many draws are made. In a
    `stack` every weight has a leading axis, and so have z (flows, n, p) and the context.

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
        self.last = [layer.widths[1] for layer in self.layers]
        self.mix = nn.Parameter(torch.zeros(n_features, n_features))
        self.start = zero(nn.Linear(n_context, 2 * n_features))
        self.inject = nn.Linear(n_context, sum(self.first))
        self.steer = zero(nn.Linear(n_context, sum(self.last)))

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Map z to (u, log |det du/dz|); log_det has z's shape less the last axis."""
        layers, shift, log_scale = self._steps(context, z.ndim)
        z = z + z @ self.mix.triu(1)
        z, log_det = shift + z * log_scale.exp(), log_scale.sum(dim=-1)
        for layer, first, last in layers:
            z, change = layer(z, first, last, self.transform)
            log_det = log_det + change
        return z, log_det

    def inverse(self, u: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Map u to (z, log |det dz/du|)."""
        layers, shift, log_scale = self._steps(context, u.ndim)
        log_det = -log_scale.sum(dim=-1)
        for layer, first, last in reversed(layers):
            u, change = layer.inverse(u, first, last, self.transform)
            log_det = log_det + change
        z = (u - shift) * (-log_scale).exp()
        mix = self.mix.triu(1)
        z = torch.linalg.solve_triangular(mix, z, upper=True, left=False, unitriangular=True)
        return z, log_det

    def log_prob(self, z: Tensor, context: Tensor) -> Tensor:
        """Log density of z given the context, normalised over z."""
        return log_density(*self(z, context))

    @torch.no_grad()
    def begin(
        self, slopes: NDArray[np.float64], intercept: NDArray[np.float64], root: NDArray[np.float64]
    ) -> None:
        """Start at (z - context @ slopes - intercept) @ root ~ N(0, I), ``root`` upper triangular.

        A minibatch algorithm takes long to find it where contexts are correlated.
        """
        scale = np.diag(root)
        log_scale = 10 * np.arctanh(np.log(scale) / 10)
        values = (
            (self.mix, np.triu(root / scale, 1)),
            (self.start.weight[: len(scale)], -(slopes @ root).T),
            (self.start.bias, np.concatenate([-intercept @ root, log_scale])),
        )
        for weights, value in values:
            weights.copy_(torch.as_tensor(value, device="cpu"))

    def shrunk(self) -> list[str]:
        """Name what shrinkage pulls to zero: the layers' weights, not the map that comes first.

        In a `stack` biases have two axes and are among them.
        """
        return [
            name
            for name, weights in self.named_parameters()
            if weights.ndim > 1 and name.split(".")[0] in ("layers", "inject", "steer")
        ]

    def _steps(self, context: Tensor, n_axes: int) -> tuple[list[Any], Tensor, Tensor]:
        """Compute what the context decides: each layer's additions, the affine map's two halves."""
        context = context.unsqueeze(1) if n_axes > context.ndim else context
        first = linear(self.inject, context).split(self.first, dim=-1)
        last = linear(self.steer, context).split(self.last, dim=-1)
        shift, log_scale = linear(self.start, context).chunk(2, dim=-1)
        return list(zip(self.layers, first, last, strict=True)), shift, bounded(log_scale, 10.0)

    @staticmethod
    def transform(x: Tensor, values: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """Map each component of x (..., k) by its values (..., k, n_values); also log |dy/dx|."""
        raise NotImplementedError


def stack(flows: Sequence[CouplingFlow]) -> CouplingFlow:
    """Join flows of one shape: every weight, z and the context get a leading axis, a flow each.

    The processor is busy with starting small operations: four flows together cost little more than
    one.
    """
    stacked = copy.deepcopy(flows[0])
    for name, _ in list(stacked.named_parameters()):
        module, _, last = name.rpartition(".")
        together = torch.stack([flow.get_parameter(name).detach() for flow in flows])
        setattr(stacked.get_submodule(module), last, nn.Parameter(together))
    return stacked


@torch.no_grad()
def unstack(stacked: CouplingFlow, flows: Sequence[CouplingFlow]) -> None:
    """Hand the weights of joined flows back to them."""
    for name, weights in stacked.named_parameters():
        for flow, mine in zip(flows, weights, strict=True):
            flow.get_parameter(name).copy_(mine)


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
        if torch.is_grad_enabled() and not inverse:
            return Spline.apply(x, values.expand(*x.shape, values.shape[-1]))
        x_in = x.clamp(-_BOX, _BOX)
        piece = _find(x_in, values, axis=1 if inverse else 0)
        y, log_slope = _rational_quadratic(x_in, *piece.picked, inverse)
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
            h = layer(soft_clip(h))
        return affine(self.last, h, last).unflatten(-1, (-1, self.n_values))


def log_density(u: Tensor, log_det: Tensor) -> Tensor:
    """Log density that the map to u has, with the log determinant of its Jacobian."""
    return log_det - 0.5 * (u.square() + math.log(2 * math.pi)).sum(dim=-1)


Transform = Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor]]


class Spline(torch.autograd.Function):
    """The splines of x (..., k) given their values (..., k, n_values), with derivatives by hand.

    Autograd would record some hundred operations on small arrays for every layer.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return y and log dy/dx."""
        x_in = x.clamp(-_BOX, _BOX)
        piece = _find(x_in, values, axis=0)
        x0, y0, width, height, left, right = piece.picked
        t = (x_in - x0) / width
        rise, dy, *_ = _evaluate(t, height / width, left, right, height)
        inside = x.abs() < _BOX
        ctx.save_for_backward(*piece[:3], t, width, height, left, right, inside)
        return torch.where(inside, y0 + rise, x), torch.where(inside, dy.log(), 0.0)

    @staticmethod
    def backward(ctx: Any, d_y: Tensor, d_log: Tensor) -> tuple[Tensor, Tensor]:
        """Chain the derivatives of y and log dy/dx with those of the loss."""
        share, bin_, raw, t, width, height, left, right, inside = ctx.saved_tensors
        slope = height / width
        outside, d_y, d_log = d_y * ~inside, d_y * inside, d_log * inside
        _, dy, below, above, gain = _evaluate(t, slope, left, right, height)
        rest = t - t * t
        bend, turn = left + right - 2 * slope, 1 - 2 * t
        per_gain, per_below = d_log / gain, 2 * d_log / below
        lift = d_y * height / below.square()
        d_t = 2 * per_gain * (right * t + slope * turn - left * (1 - t)) - per_below * bend * turn
        d_x = d_y * dy + d_t / width
        still = 1 - 2 * rest
        d_slope = lift * (t * t * below - above * still) + 2 * (d_log / slope + rest * per_gain)
        d_slope = (d_slope - still * per_below) / width
        d_left = lift * rest * (below - above) + (1 - t).square() * per_gain - rest * per_below
        d_right = t * t * per_gain - rest * (lift * above + per_below)
        d_size = torch.stack([-d_x * t - d_slope * slope, d_y * above / below + d_slope], dim=-1)
        d_start = torch.stack([-d_x, d_y], dim=-1)
        d_ends = torch.stack([d_left, d_right], dim=-1) * (raw + _UNIT_SLOPE).sigmoid()
        return d_x + outside, _spread(share, bin_, d_start, d_size, d_ends)


class Piece(NamedTuple):
    """The bin of every component of x (..., k)."""

    share: Tensor  # (..., k, 2, bins): of the box, every bin's width and height
    bin_: Tensor  # (..., k, 1)
    raw: Tensor  # (..., k, 2): what decides the slopes at its two ends
    picked: tuple[Tensor, ...]  # its corner, width, height and two slopes, (..., k) each


def _find(x: Tensor, values: Tensor, axis: int) -> Piece:
    """Find the bin that x lies in, along the spline's input (axis 0) or output (axis 1)."""
    shape = x.shape
    share = values[..., : 2 * _BINS].clamp(-60, 60).exp().unflatten(-1, (2, _BINS))
    total = share.cumsum(dim=-1)
    share, total = share / total[..., -1:], total / total[..., -1:]
    floor = _SMALLEST * torch.arange(1, _BINS + 1, dtype=x.dtype, device=x.device)
    edges = _stretch(floor[:-1], total[..., axis, :-1]) - _BOX
    bin_ = (x.unsqueeze(-1) >= edges).sum(dim=-1, keepdim=True)

    def pick(table: Tensor) -> Tensor:
        row = bin_.unsqueeze(-2).expand(*shape, 2, 1)
        return table.expand(*shape, 2, _BINS).gather(-1, row).squeeze(-1)

    size = _stretch(_SMALLEST, pick(share))
    start = _stretch(floor[bin_], pick(total)) - _BOX - size
    raw = pad(values[..., 2 * _BINS :], (1, 1)).expand(*shape, _BINS + 1)  # slope 1 at both ends
    raw = raw.gather(-1, torch.cat([bin_, bin_ + 1], dim=-1))
    slopes = _SMALLEST + softplus(raw + _UNIT_SLOPE)
    picked = *start.unbind(dim=-1), *size.unbind(dim=-1), *slopes.unbind(dim=-1)
    return Piece(share, bin_, raw, picked)


def _stretch(floor: Tensor | float, share: Tensor) -> Tensor:
    """Turn shares of the box into lengths, on top of what is the bins' by right."""
    return 2 * _BOX * floor + 2 * _BOX * (1 - _BINS * _SMALLEST) * share


def _spread(share: Tensor, bin_: Tensor, d_start: Tensor, d_size: Tensor, d_ends: Tensor) -> Tensor:
    """Hand derivatives by a bin's start, size and slopes to the values of all bins."""
    both = bin_.unsqueeze(-2).expand(*bin_.shape[:-1], 2, 1)
    before = torch.arange(_BINS, device=bin_.device) < bin_.unsqueeze(-2)
    d_share = (d_start.unsqueeze(-1) * before).scatter_(-1, both, d_size.unsqueeze(-1)) * share
    d_share = d_share - share * d_share.sum(dim=-1, keepdim=True)
    d_raw = d_ends.new_zeros(*bin_.shape[:-1], _BINS + 1)
    d_raw = d_raw.scatter_(-1, torch.cat([bin_, bin_ + 1], dim=-1), d_ends)[..., 1:-1]
    return torch.cat([_stretch(0.0, d_share).flatten(-2), d_raw], dim=-1)


def _evaluate(
    t: Tensor, slope: Tensor, left: Tensor, right: Tensor, height: Tensor
) -> tuple[Tensor, ...]:
    """One bin of the spline at a share t of its width (Durkan et al., equations 4 and 5).

    Returns the rise over its left end, the slope there, and the parts that they are made of.
    """
    rest, square = t - t * t, t * t
    below = slope + (left + right - 2 * slope) * rest
    above = slope * square + left * rest
    gain = right * square + 2 * slope * rest + left * (1 - t).square()
    return height * above / below, gain * (slope / below).square(), below, above, gain


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
    """One bin of the spline, or of its inverse (equations 6 to 8), and the log of its slope."""
    slope = height / width
    bend = left + right - 2 * slope
    if inverse:
        rise = x - y0
        a = height * (slope - left) + rise * bend
        b = height * left - rise * bend
        c = -slope * rise
        t = 2 * c / (-b - (b.square() - 4 * a * c).clamp_min(0).sqrt())
        return x0 + t * width, -_evaluate(t, slope, left, right, height)[1].log()
    rise, gain, *_ = _evaluate((x - x0) / width, slope, left, right, height)
    return y0 + rise, gain.log()
