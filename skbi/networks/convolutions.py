"""Summaries of series and images: moments, and what gated convolutions add to them.

Moments m hold no weights. Gated convolutions read the observation at coarser and coarser scales.
The summary, called the context, starts at a linear function of the moments, and is updated in
rounds by what the convolutions see on average:

    h_1 = conv(x), h_2 = conv(h_1), ...,
    context <- context + Phi(mean h_1, mean h_2, ..., m, context).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from skbi.networks.layers import MLP, soft_clip

__all__ = ["ConvolutionalSummary", "GatedConvolution"]

_MAX_STEP = 2.0  # by which a round changes the context
_N_ROUNDS = 2


class GatedConvolution(nn.Module):
    """h -> SiLU(W * h + a) * (V * h + b), at every second place along each axis.

    Parameters
    ----------
    n_in, n_out : int
        Channels of the input and of the output.
    n_axes : int
        1 for series, 2 for images.
    width : int
        Of the kernels, odd.
    """

    def __init__(self, n_in: int, n_out: int, n_axes: int, width: int) -> None:
        super().__init__()
        kind = (nn.Conv1d, nn.Conv2d)[n_axes - 1]
        self.convolution = kind(n_in, 2 * n_out, width, stride=2, padding=width // 2)

    def forward(self, h: Tensor) -> Tensor:
        """Map (n, n_in, L) to (n, n_out, ceil(L / 2)), and images likewise."""
        gate, value = self.convolution(h).chunk(2, dim=1)
        return silu(gate) * value


class ConvolutionalSummary(nn.Module, ABC):
    """Base of summaries of observations with an order.

    Parameters
    ----------
    n_features : int
        Channels of an observation.
    n_positions : int
        Channels that tell where in an observation a point is.
    n_moments, n_out : int
        Number of moments, and width of the summary.
    n_axes : int
        1 for series, 2 for images.
    channels : sequence of int
        Width of each gated convolution.
    width : int
        Of the kernels.

    Attributes
    ----------
    mean, scale : Tensor, shape (n_moments,)
        What standardises the moments.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        n_features: int,
        n_positions: int,
        n_moments: int,
        n_out: int,
        *,
        n_axes: int,
        channels: Sequence[int],
        width: int,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            GatedConvolution(a, b, n_axes, width)
            for a, b in pairwise([n_features + n_positions, *channels])
        )
        self.n_moments, n_read = n_moments, sum(channels) + n_moments
        self.start = nn.Linear(n_moments, n_out)
        self.rounds = nn.ModuleList(MLP(n_read + n_out, n_out) for _ in range(_N_ROUNDS))
        self.register_buffer("mean", torch.zeros(n_moments))
        self.register_buffer("scale", torch.ones(n_moments))

    @abstractmethod
    def arrange(self, points: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return what the convolutions read, the moments, and which places count.

        Parameters
        ----------
        points : Tensor, shape (N, n_features)
            The points of all observations, one observation after another.
        sizes : Tensor of int, shape (n,), sum N
            Number of points of each.

        Returns
        -------
        x : Tensor, shape (n, channels, T) or (n, channels, H, W)
        moments : Tensor, shape (n, n_moments)
            They hold no weights.
        present : Tensor, shape (n, 1, T), or None
            1 where a series has not ended, and 0 beyond; None if all places count.
        """

    def shrunk(self) -> list[nn.Parameter]:
        """Return the weights that shrinkage pulls to zero: all but linear paths."""
        steps = [layer for Phi in self.rounds for layer in (Phi.hidden, Phi.last)]
        named = nn.ModuleList([self.layers, *steps]).named_parameters()
        return [weights for name, weights in named if name.endswith("weight")]

    @torch.no_grad()
    def standardise_moments(self, mean: Tensor, scale: Tensor) -> None:
        """Tell the network the mean and the scale of the moments, (n_moments,) each."""
        self.mean.copy_(mean)
        self.scale.copy_(scale)

    def forward(self, points: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Summarise packed observations, (n, n_out); also return their moments, (n, n_moments).

        ``points`` and ``sizes`` are as in `arrange`.
        """
        h, moments, present = self.arrange(points, sizes)
        standardised = soft_clip((moments - self.mean) / self.scale)
        features = [standardised]
        for layer in self.layers:
            h = layer(soft_clip(h))
            if present is not None:
                present = present[..., ::2]
                h = h * present
            features.append(_mean(h, present))
        context = self.start(standardised)
        for Phi in self.rounds:
            step = Phi(soft_clip(torch.cat([*features, context], dim=-1)))
            context = soft_clip(context + soft_clip(step, _MAX_STEP))
        return context, moments


def _mean(h: Tensor, present: Tensor | None) -> Tensor:
    """Average (n, k, ...) over the places that count, (n, k)."""
    if present is None:
        return h.flatten(2).mean(dim=-1)
    return h.sum(dim=-1) / present.sum(dim=-1)
