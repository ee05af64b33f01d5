"""Coupling layers: (a, b) -> (f(b; a, h), a), with a network that reads a and h and steers f."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from skbi.flows.flow import (
    ConditionalFlow,
    Layer,
    affine_columns,
    gate_columns,
    register_flow,
)
from skbi.networks.layers import soft_clip

__all__ = ["Coupling", "RealNVP"]


class Coupling(Layer):
    """Moves the second half of z by a map that reads the first half, and swaps the two.

    Layers come in pairs, which together move everything; before every further pair the components
    are permuted, always in the same way. Kinds differ in the elementwise map, `transform`, and in
    how many numbers describe it, ``n_values``.

    Parameters
    ----------
    n_features : int
    i : int
        Which layer of the flow this is.
    hidden_layer_sizes : sequence of int
    """

    n_values: int
    order: Tensor | None

    def __init__(self, n_features: int, i: int, hidden_layer_sizes: Sequence[int]) -> None:
        super().__init__()
        order = np.random.default_rng([n_features, i]).permutation(n_features)
        shuffle = i > 0 and i % 2 == 0 and n_features > 2
        self.register_buffer("order", torch.as_tensor(order) if shuffle else None)
        n_kept = (n_features + i % 2) // 2 if n_features > 1 else 0
        self.sizes = [n_kept, n_features - n_kept]
        widths = [max(n_kept, 1), *hidden_layer_sizes]
        self.hidden = nn.ModuleList(
            nn.Linear(n_in, 2 * n_out, bias=j > 0)
            for j, (n_in, n_out) in enumerate(pairwise(widths))
        )
        self.last = nn.Linear(widths[-1], self.sizes[1] * self.n_values, bias=False)
        nn.init.zeros_(self.last.weight)
        self.n_input, self.n_hidden = widths[0], 2 * widths[1]
        self.n_output = self.sizes[1] * self.n_values

    @staticmethod
    @abstractmethod
    def transform(x: Tensor, values: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """Map x (batch, k, n) by its values (batch, k, n_values, n or 1); also ``log |dy/dx|``."""

    def forward(self, z: Tensor, hidden: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        """Move the second half of z."""
        if self.order is not None:
            z = z.index_select(1, self.order)
        kept, moved = z.split(self.sizes, dim=1)
        moved, log_slope = self.transform(moved, self._values(kept, hidden, output), False)
        return torch.cat([moved, kept], dim=1), log_slope.sum(dim=1)

    def inverse(self, u: Tensor, hidden: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        """Move it back."""
        moved, kept = u.split(self.sizes[::-1], dim=1)
        moved, log_slope = self.transform(moved, self._values(kept, hidden, output), True)
        z = torch.cat([kept, moved], dim=1)
        if self.order is not None:
            z = z.index_select(1, self.order.argsort())
        return z, log_slope.sum(dim=1)

    def _values(self, kept: Tensor, hidden: Tensor, output: Tensor) -> Tensor:
        """Return what describes the maps, (batch, moved, n_values, n)."""
        h = (
            kept.clamp(-8, 8)
            if self.sizes[0]
            else hidden.new_zeros(len(hidden), 1, hidden.shape[2])
        )
        h = gate_columns(affine_columns(self.hidden[0].weight, h, hidden))
        for layer in self.hidden[1:]:
            h = gate_columns(affine_columns(layer.weight, soft_clip(h), layer.bias.unsqueeze(-1)))
        return affine_columns(self.last.weight, h, output).unflatten(1, (-1, self.n_values))


class AffineCoupling(Coupling):
    """x -> x * exp(s) + t, with s within (-2, 2)."""

    n_values = 2

    @staticmethod
    def transform(x: Tensor, values: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """Scale and shift."""
        shift, log_scale = values[:, :, 0], 2 * values[:, :, 1].tanh()
        if inverse:
            return (x - shift) * (-log_scale).exp(), -log_scale
        return x * log_scale.exp() + shift, log_scale


@register_flow("realnvp")
class RealNVP(ConditionalFlow):
    """Affine couplings: x -> x * exp(s) + t, with s within (-2, 2).

    In one dimension a coupling reads nothing, and any stack of affine maps is a Gaussian.

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

    min_features = 2

    @classmethod
    def make_layer(cls, n_features: int, i: int, hidden_layer_sizes: Sequence[int]) -> Layer:
        """Make the i-th layer, an `AffineCoupling`."""
        return AffineCoupling(n_features, i, hidden_layer_sizes)
