"""Vector fields: a vector at every point of a path from noise to parameters, given a context.

A point of the path is y = cos(a) noise + sin(a) w, with an angle a from 0 (noise) to pi / 2 (w).
The field is a stack of gated layers, each added to what it reads,

    h <- h + SiLU(W h + g(a, context)) * (V h + g'(a, context)),

so that angle and context act on the gates, however wide the context is.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from skbi.networks.layers import soft_clip, zero

__all__ = ["VectorField", "describe_angle"]

_N_HARMONICS = 4
_MIN_PART = 0.02  # added to noise and signal, so that the log of their ratio is smooth


def describe_angle(angle: Tensor) -> Tensor:
    """Return what a network reads of angles (...) in [0, pi / 2], (..., 5).

    Cosines resolve the middle of the path, the log of the ratio of noise to signal its two ends.
    """
    harmonics = [torch.cos(2 * k * angle) for k in range(1, _N_HARMONICS + 1)]
    log_ratio = (angle.cos() + _MIN_PART).log() - (angle.sin() + _MIN_PART).log()
    return torch.stack([*harmonics, log_ratio / 4], dim=-1)


class VectorField(nn.Module):
    """F(y, angle; context): zero everywhere until it is trained.

    Parameters
    ----------
    n_parameters, n_context : int
        Width of y and of the context.
    hidden_layer_sizes : sequence of int, default=(256, 256)
        Width of each gated layer.

    Examples
    --------
    >>> field = VectorField(2, 3, (8, 8))
    >>> context = field.condition(torch.ones(4, 3))  # of four observations
    >>> field(torch.ones(4, 10, 2), torch.tensor(0.5), context.unsqueeze(1)).shape
    torch.Size([4, 10, 2])
    """

    def __init__(
        self, n_parameters: int, n_context: int, hidden_layer_sizes: Sequence[int] = (256, 256)
    ) -> None:
        super().__init__()
        self.n_parameters, widths = n_parameters, [n_parameters, *hidden_layer_sizes]
        self.of_context = nn.Linear(n_context, 2 * sum(hidden_layer_sizes))
        self.of_angle = nn.Linear(_N_HARMONICS + 1, 2 * sum(hidden_layer_sizes), bias=False)
        self.layers = nn.ModuleList(nn.Linear(a, 2 * b, bias=False) for a, b in pairwise(widths))
        self.skips = nn.ModuleList(
            nn.Identity() if a == b else nn.Linear(a, b, bias=False) for a, b in pairwise(widths)
        )
        self.last = zero(nn.Linear(widths[-1], n_parameters))

    def shrunk(self) -> list[nn.Parameter]:
        """Return the weights that shrinkage pulls to zero: those of the gated layers."""
        return [self.of_context.weight, *(layer.weight for layer in self.layers)]

    def condition(self, context: Tensor) -> Tensor:
        """Return what the gates read of contexts (n, n_context), once for all points."""
        return self.of_context(context)

    def forward(self, y: Tensor, angle: Tensor, condition: Tensor) -> Tensor:
        """Return the field at points y (..., p), for angles and conditions that broadcast to it."""
        biases = condition + self.of_angle(describe_angle(angle))
        widths = [layer.out_features for layer in self.layers]
        h = y
        for layer, skip, bias in zip(
            self.layers, self.skips, biases.split(widths, dim=-1), strict=True
        ):
            gate, value = (layer(soft_clip(h)) + bias).chunk(2, dim=-1)
            h = skip(h) + silu(gate) * value
        return self.last(h)
