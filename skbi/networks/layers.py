"""Layers that every network is built from: gated products, clips, and layers that start at zero.

A gated layer multiplies two maps of its input, SiLU(W x + a) * (V x + b). Products grow faster than
what is multiplied. Clips therefore keep the numbers that networks read within bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

__all__ = ["MLP", "Gated", "affine", "bounded", "hard_clip", "soft_clip", "zero"]


def soft_clip(x: Tensor, bound: float = 8.0) -> Tensor:
    """Map x smoothly into (-bound, bound): x / sqrt(1 + (x / bound)^2).

    It is applied to what gated layers read and to contexts, so that products stay bounded on
    observations that are far from the training data.
    """
    return x * torch.addcmul(x.new_ones(()), x, x, value=bound**-2).rsqrt_()


def hard_clip(x: Tensor, bound: float = 8.0) -> Tensor:
    """Map x smoothly into [-bound, bound]: x / (1 + (x / bound)^8)^(1/8).

    It is applied to standardised features, which a network should read unchanged as long as they
    look like the training data: at x = 3 the relative change is 5e-5, and 6 % by `soft_clip`.
    """
    x = x.clamp(-1e4 * bound, 1e4 * bound)  # so that the eighth power is a finite float32
    return x * (1 + (x / bound).pow(8)).pow(-1 / 8)


def bounded(x: Tensor, bound: float) -> Tensor:
    """Map x smoothly into [-bound, bound]: bound * tanh(x / bound).

    It is applied to logarithms of scales, whose exponentials must neither overflow nor vanish.
    """
    return bound * torch.tanh(x / bound)


def zero(linear: nn.Linear) -> nn.Linear:
    """Set the weights and biases of a linear layer to zero, and return it.

    It is applied to layers that yield the shifts and log scales of another map, which then starts
    at the identity.
    """
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


class Gated(nn.Module):
    """x -> SiLU(W x + a) * (V x + b): a layer that can multiply.

    All hidden layers are of this kind. To estimate a scale, a network needs squares, and a product
    of two linear maps is nearly a square.

    Parameters
    ----------
    n_in, n_out : int
        Width of the input and of the output.

    References
    ----------
    Shazeer, GLU variants improve transformer, 2020, https://arxiv.org/abs/2002.05202.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_in, 2 * n_out)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Map (..., n_in) to (..., n_out).

        ``bias`` (..., 2 n_out) is added to W x + a and V x + b; it may depend on a context.
        """
        h = self.linear(x) if bias is None else affine(self.linear, x, bias)
        gate, value = h.chunk(2, dim=-1)
        if torch.is_grad_enabled():
            return silu(gate) * value
        return silu(gate, inplace=True).mul_(value)  # without gradients no new memory is needed


def affine(linear: nn.Linear, x: Tensor, bias: Tensor) -> Tensor:
    """Compute linear(x) + bias in one operation.

    It serves layers with another bias for every row or set, which a context yields: x is (n, k)
    with a bias (n, m), or (n, S, k) with a bias (n, 1, m).
    """
    weight, bias = linear.weight.mT, bias + linear.bias
    if linear.in_features == 1:
        return torch.addcmul(bias, x, weight)  # faster than a matrix product
    if x.ndim == 2:
        return torch.addmm(bias, x, weight)
    return torch.baddbmm(bias, x, weight.expand(len(x), -1, -1))


class MLP(nn.Module):
    """A multilayer perceptron: gated hidden layers, added to a linear map of the input.

    It embeds parameters, and it updates the context of a `DeepSet`.

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
        widths = [n_in, *hidden_layer_sizes]
        self.hidden = nn.Sequential(*(Gated(a, b) for a, b in pairwise(widths)))
        self.last = nn.Linear(widths[-1], n_out)
        self.linear = nn.Linear(n_in, n_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n_in) to (..., n_out)."""
        return self.last(self.hidden(x)) + self.linear(x)
