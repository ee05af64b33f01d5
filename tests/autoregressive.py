"""A flow of another kind, written against the public interface: masked autoregressive layers.

u_j = z_j exp(s_j) + t_j, where s_j and t_j read z_1 .. z_{j-1} and the context; then the order of
the components is reversed. Papamakarios et al., Masked autoregressive flow for density estimation,
2017, https://arxiv.org/abs/1705.07057.
"""

import torch
from torch import nn

from skbi.flows import ConditionalFlow, Layer, affine_columns, gate_columns, register_flow


class AutoregressiveLayer(Layer):
    """One masked hidden layer, gated."""

    def __init__(self, n_features, i, hidden_layer_sizes):
        super().__init__()
        n, p = hidden_layer_sizes[0], n_features
        self.n_input, self.n_hidden, self.n_output = p, 2 * n, 2 * p
        degree, component = torch.arange(n) % p, torch.arange(p)
        reads = (component < degree[:, None]).repeat(2, 1)  # hidden unit k: its first components
        feeds = (degree <= component[:, None]).repeat(2, 1)  # output j: units of components below
        self.register_buffer("reads", reads.float())
        self.register_buffer("feeds", feeds.float())
        self.first, self.last = nn.Linear(p, 2 * n, bias=False), nn.Linear(n, 2 * p, bias=False)
        nn.init.zeros_(self.last.weight)

    def forward(self, z, hidden, output):
        """Map all components at once."""
        shift, log_scale = self._steer(z, hidden, output)
        return (z * log_scale.exp() + shift).flip(1), log_scale.sum(dim=1)

    def inverse(self, u, hidden, output):
        """Map back one component after another."""
        u = u.flip(1)
        z = torch.zeros_like(u)
        for _ in range(u.shape[1]):
            shift, log_scale = self._steer(z, hidden, output)
            z = (u - shift) * (-log_scale).exp()
        return z, -log_scale.sum(dim=1)

    def _steer(self, z, hidden, output):
        h = affine_columns(self.first.weight * self.reads, z.clamp(-8, 8), hidden)
        values = affine_columns(self.last.weight * self.feeds, gate_columns(h), output)
        shift, log_scale = values.chunk(2, dim=1)
        return shift, log_scale.tanh()


@register_flow("autoregressive")
class AutoregressiveFlow(ConditionalFlow):
    """Masked autoregressive layers."""

    @classmethod
    def make_layer(cls, n_features, i, hidden_layer_sizes):
        """Make the i-th layer."""
        return AutoregressiveLayer(n_features, i, hidden_layer_sizes)
