"""Spline couplings: monotone rational-quadratic maps, with their derivatives written by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus

from skbi.flows.coupling import Coupling
from skbi.flows.flow import ConditionalFlow, Layer, register_flow

__all__ = ["NeuralSplineFlow", "Spline", "SplineCoupling"]

_BOX = 5.0  # splines act inside [-5, 5] and are the identity outside
_BINS = 8
_SMALLEST = 1e-2  # of a spline's bin width and height (as a share of the box) and of its slope
_UNIT_SLOPE = math.log(math.expm1(1 - _SMALLEST))  # softplus maps it to slope 1: the identity


class SplineCoupling(Coupling):
    """Monotone rational-quadratic splines of 8 bins on [-5, 5], the identity outside."""

    n_values = 3 * _BINS - 1

    @staticmethod
    def transform(x: Tensor, values: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """Evaluate the spline, or its inverse, and the log of its slope."""
        if torch.is_grad_enabled() and not inverse:
            return Spline.apply(x, values)
        x_in = x.clamp(-_BOX, _BOX)
        *_, bin_ = _find(x_in, values, axis=int(inverse))
        y, log_slope = _rational_quadratic(x_in, bin_, inverse)
        inside = x.abs() < _BOX
        return torch.where(inside, y, x), torch.where(inside, log_slope, 0.0)


@register_flow("spline")
class NeuralSplineFlow(ConditionalFlow):
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

    @classmethod
    def make_layer(cls, n_features: int, i: int, hidden_layer_sizes: Sequence[int]) -> Layer:
        """Make the i-th layer, a `SplineCoupling`."""
        return SplineCoupling(n_features, i, hidden_layer_sizes)


class Bin(NamedTuple):
    """The bin of every component of x (batch, k, n), each of these shapes."""

    x0: Tensor
    y0: Tensor
    width: Tensor
    height: Tensor
    left: Tensor  # the slopes at its two ends
    right: Tensor


class Spline(torch.autograd.Function):
    """The splines of x (batch, k, n) by their values, with derivatives by hand.

    Autograd would record some hundred operations on small arrays for every layer.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return y and log dy/dx."""
        x_in = x.clamp(-_BOX, _BOX)
        share, ends, raw, bin_ = _find(x_in, values, axis=0)
        t = (x_in - bin_.x0) / bin_.width
        parts = _evaluate(t, bin_)
        inside = x.abs() < _BOX
        ctx.save_for_backward(share, ends, raw, t, inside, *bin_, *parts)
        ctx.shape = values.shape
        y, log_slope = bin_.y0 + parts.rise, parts.slope.log()
        return torch.where(inside, y, x), torch.where(inside, log_slope, 0.0)

    @staticmethod
    def backward(ctx: Any, d_y: Tensor, d_log: Tensor) -> tuple[Tensor, Tensor]:
        """Chain the derivatives of y and log dy/dx with those of the loss."""
        share, ends, raw, t, inside, _, _, width, height, left, right, *parts = ctx.saved_tensors
        rise, slope, mean, bend, below, gain = parts
        outside, d_y, d_log = d_y * ~inside, d_y * inside, d_log * inside
        rest, turn, square = t - t * t, 1 - 2 * t, t * t
        per_gain, per_below = d_log / gain, (2 * d_log + d_y * rise) / below
        lift = d_y * height / below
        d_t = per_gain * 2 * (right * t + mean * turn - left * (1 - t))
        d_t = d_t - 2 * d_log / below * bend * turn
        d_x = d_y * slope + d_t / width
        still = 1 - 2 * rest
        d_mean = lift * square + 2 * (d_log / mean + rest * per_gain) - still * per_below
        d_left = lift * rest + (1 - t).square() * per_gain - rest * per_below
        d_right = square * per_gain - rest * per_below
        d_mean = d_mean / width
        d_end = torch.stack([-d_x * t - d_mean * mean, d_y * rise / height + d_mean], dim=2)
        d_knots = torch.stack([torch.stack([-d_x, d_y], dim=2) - d_end, d_end], dim=3)
        d_slopes = torch.stack([d_left, d_right], dim=2) * (raw + _UNIT_SLOPE).sigmoid()
        return d_x + outside, _spread(share, ends, d_knots, d_slopes).sum_to_size(ctx.shape)


def _find(x: Tensor, values: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor, Bin]:
    """Find the bin that x lies in, along the spline's input (axis 0) or output (axis 1).

    Before it stands what derivatives need: the bins' shares of the box (batch, k, 2, bins, n or 1),
    the numbers of the bin's two knots (batch, k, 2, n) and what decides the slopes there.
    """
    share = values[:, :, : 2 * _BINS].unflatten(2, (2, _BINS)).softmax(dim=3)
    floor, lengths = _knots(share.dtype, share.device)
    knots = lengths @ share + floor
    number = (x.unsqueeze(2) >= knots[:, :, axis, 1:-1]).sum(dim=2, keepdim=True)
    ends = torch.cat([number, number + 1], dim=2)
    raw = pad(values[:, :, 2 * _BINS :], (0, 0, 1, 1))  # slope 1 at both ends of the box
    raw = raw.expand(-1, -1, -1, x.shape[2]).gather(2, ends)
    both = ends.unsqueeze(2).expand(-1, -1, 2, -1, -1)
    start, end = knots.expand(-1, -1, -1, -1, x.shape[2]).gather(3, both).unbind(dim=3)
    slopes = _SMALLEST + softplus(raw + _UNIT_SLOPE)
    corners = *start.unbind(dim=2), *(end - start).unbind(dim=2)
    return share, ends, raw, Bin(*corners, *slopes.unbind(dim=2))


@cache
def _knots(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where knots lie: ``lengths`` (bins + 1, bins) @ shares + ``floor``, what is theirs anyway."""
    number = torch.arange(_BINS + 1, dtype=dtype, device=device)
    floor = 2 * _BOX * (_SMALLEST * number - 0.5)
    before = (number.unsqueeze(1) > number[:-1]).to(dtype)
    return floor.unsqueeze(1), 2 * _BOX * (1 - _BINS * _SMALLEST) * before


def _spread(share: Tensor, ends: Tensor, d_knots: Tensor, d_slopes: Tensor) -> Tensor:
    """Hand derivatives by a bin's two knots and slopes to the values of all bins."""
    batch, k, _, n = d_slopes.shape
    both = ends.unsqueeze(2).expand(-1, -1, 2, -1, -1)
    _, lengths = _knots(share.dtype, share.device)
    d_knots = d_knots.new_zeros(batch, k, 2, _BINS + 1, n).scatter_(3, both, d_knots)
    d_share = (lengths.mT @ d_knots) * share
    d_share = d_share - share * d_share.sum(dim=3, keepdim=True)
    d_raw = d_slopes.new_zeros(batch, k, _BINS + 1, n).scatter_(2, ends, d_slopes)
    return torch.cat([d_share.flatten(2, 3), d_raw[:, :, 1:-1]], dim=2)


class Parts(NamedTuple):
    """One bin of the spline at a share t of its width (Durkan et al., equations 4 and 5)."""

    rise: Tensor  # over its left end
    slope: Tensor
    mean: Tensor  # slope, and what the rise and the slope are made of
    bend: Tensor
    below: Tensor
    gain: Tensor


def _evaluate(t: Tensor, bin_: Bin) -> Parts:
    """Evaluate a bin at a share t of its width."""
    mean, rest, square = bin_.height / bin_.width, t - t * t, t * t
    bend = bin_.left + bin_.right - 2 * mean
    below = mean + bend * rest
    gain = bin_.right * square + 2 * mean * rest + bin_.left * (1 - t).square()
    rise = bin_.height * (mean * square + bin_.left * rest) / below
    return Parts(rise, gain * (mean / below).square(), mean, bend, below, gain)


def _rational_quadratic(x: Tensor, bin_: Bin, inverse: bool) -> tuple[Tensor, Tensor]:
    """One bin of the spline, or of its inverse (equations 6 to 8), and the log of its slope."""
    if not inverse:
        parts = _evaluate((x - bin_.x0) / bin_.width, bin_)
        return bin_.y0 + parts.rise, parts.slope.log()
    mean, rise = bin_.height / bin_.width, x - bin_.y0
    bend = bin_.left + bin_.right - 2 * mean
    a = bin_.height * (mean - bin_.left) + rise * bend
    b = bin_.height * bin_.left - rise * bend
    c = -mean * rise
    t = 2 * c / (-b - (b.square() - 4 * a * c).clamp_min(0).sqrt())
    return bin_.x0 + t * bin_.width, -_evaluate(t, bin_).slope.log()
