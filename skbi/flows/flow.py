"""Conditional normalising flows: z -> u ~ N(0, I), log q(z | h) = log N(u; 0, I) + log |det du/dz|.

The frame of every kind of flow. A triangular matrix and a conditional affine map of all of z come
first, then layers of one kind, each an invertible map whose numbers depend on the context h.

Inside, arrays are columns (batch, features, n): operations on some of the features then read
contiguous memory. The batch is the flows of a `stack`, or the observations that draws are made for.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import silu

from skbi.networks.layers import bounded, zero

__all__ = [
    "BASE_SCALES",
    "FLOWS",
    "ConditionalFlow",
    "Layer",
    "affine_columns",
    "gate_columns",
    "make_flow",
    "register_flow",
    "stack",
    "unstack",
]


BASE_SCALES = 0.85, 1.0, 1.2, 4.0  # standard deviations of the components of u
_UNIT = BASE_SCALES.index(1.0)
_MIN_DRAWS = 32  # for each context, from which on a product of their own is as fast


class Layer(nn.Module, ABC):
    """One invertible map of a flow, steered by the context.

    The flow projects the context once for all its layers: ``n_hidden`` numbers are added to the
    layer's first hidden units and ``n_output`` numbers to the output of its network. They are also
    that network's first and last biases. In a `stack` every weight has a leading axis.

    Attributes
    ----------
    n_input, n_hidden, n_output : int
        What the layer's network reads of z, its first hidden units, and its outputs.
    """

    n_input: int
    n_hidden: int
    n_output: int

    @abstractmethod
    def forward(self, z: Tensor, hidden: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        """Map columns z (batch, p, n) to (u, ``log |det du/dz|``), (batch, p, n) and (batch, n).

        ``hidden`` (batch, n_hidden, n or 1) and ``output`` (batch, n_output, n or 1) are what the
        context adds.
        """

    @abstractmethod
    def inverse(self, u: Tensor, hidden: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        """Undo `forward`: map u to (z, ``log |det dz/du|``)."""


class ConditionalFlow(nn.Module, ABC):
    """What all kinds of flow share; a kind says in `make_layer` what its layers are.

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
        Number of layers.
    hidden_layer_sizes : sequence of int, default=(64,)
        Gated hidden layers of each layer's network.

    Attributes
    ----------
    min_features : int
        The least p that this kind can describe.
    base_shares : Tensor, shape (4,)
        u ~ sum_i share_i N(0, s_i^2 I), with standard deviations s from 0.85 to 4. Training is with
        a standard normal distribution; then the validation rows say how wide u is. Without the
        last component, an observation that the flow misjudges by ten standard deviations would
        have a density of e^-50.
    """

    base_shares: Tensor
    min_features = 1

    def __init__(
        self,
        n_features: int,
        n_context: int,
        *,
        n_transforms: int = 6,
        hidden_layer_sizes: Sequence[int] = (64,),
    ) -> None:
        super().__init__()
        self.n_context = n_context
        self.register_buffer("base_shares", torch.empty(len(BASE_SCALES)))
        self.set_base(_UNIT)
        self.layers = nn.ModuleList(
            self.make_layer(n_features, i, hidden_layer_sizes) for i in range(n_transforms)
        )
        self.hidden_widths = [layer.n_hidden for layer in self.layers]
        self.output_widths = [layer.n_output for layer in self.layers]
        self.mix = nn.Parameter(torch.zeros(n_features, n_features))
        self.start = zero(nn.Linear(n_context, 2 * n_features))
        self.to_hidden = nn.Linear(n_context, sum(self.hidden_widths))
        self.to_output = zero(nn.Linear(n_context, sum(self.output_widths)))
        with torch.no_grad():
            biases = self.to_hidden.bias.split(self.hidden_widths)
            for layer, bias in zip(self.layers, biases, strict=True):
                bound = layer.n_input**-0.5
                bias += torch.empty_like(bias).uniform_(-bound, bound)

    @classmethod
    @abstractmethod
    def make_layer(cls, n_features: int, i: int, hidden_layer_sizes: Sequence[int]) -> Layer:
        """Make the i-th layer, which starts at the identity where its ``output`` is zero."""

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Map z to (u, ``log |det du/dz|``); log_det has z's shape less the last axis."""
        u, log_det = self._forward(*_columns(z, context))
        return u.mT.reshape(z.shape), log_det.reshape(z.shape[:-1])

    def inverse(self, u: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Map u to (z, ``log |det dz/du|``)."""
        z, context = _columns(u, context)
        steps, shift, log_scale = self._project(context)
        log_det = -log_scale.sum(dim=1)
        for layer, hidden, output in reversed(steps):
            z, change = layer.inverse(z, hidden, output)
            log_det = log_det + change
        z = (z - shift) * (-log_scale).exp()
        mix = self.mix.triu(1).mT
        z = torch.linalg.solve_triangular(mix, z, upper=False, unitriangular=True)
        return z.mT.reshape(u.shape), log_det.expand(-1, z.shape[2]).reshape(u.shape[:-1])

    def log_prob(self, z: Tensor, context: Tensor) -> Tensor:
        """Log density of z given the context, normalised over z."""
        u, log_det = self._forward(*_columns(z, context))
        return (log_det + self._log_base(u)).reshape(z.shape[:-1])

    def set_base(self, component: int = _UNIT) -> None:
        """Let u have one component only, by default a standard normal distribution."""
        self.base_shares.zero_()
        self.base_shares[component] = 1

    def scale_draws(self, u: Tensor, rng: np.random.Generator) -> Tensor:
        """Turn standard normal u (n, draws, p) into draws of the flow's base.

        Draws of one index are scaled alike for all n.
        """
        shares = self.base_shares.double().cpu().numpy()
        scales = rng.choice(BASE_SCALES, size=u.shape[1], p=shares / shares.sum())
        return u * torch.as_tensor(scales, device=u.device, dtype=u.dtype)[:, None]

    def _log_base(self, u: Tensor) -> Tensor:
        """Log density of columns u (batch, p, n), (batch, n)."""
        p, squared = u.shape[1], u.square().sum(dim=1)
        components = [
            share.log() - 0.5 * (squared / scale**2 + p * math.log(2 * math.pi * scale**2))
            for share, scale in zip(self.base_shares, BASE_SCALES, strict=True)
            if share
        ]
        if len(components) == 1:
            return components[0]
        return torch.logsumexp(torch.stack(components), dim=0)

    @torch.no_grad()
    def start_at(
        self, slopes: NDArray[np.float64], intercept: NDArray[np.float64], root: NDArray[np.float64]
    ) -> None:
        """Start at (z - context @ slopes - intercept) @ root ~ N(0, I), ``root`` upper triangular.

        Gradient steps on minibatches take long to find this where contexts are correlated.
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

    def shrunk(self) -> list[nn.Parameter]:
        """Return what shrinkage pulls to zero: layers' weights, not the map that comes first."""
        return [
            weights
            for name, weights in self.named_parameters()
            if name.split(".")[0] in ("layers", "to_hidden", "to_output")
            and name.endswith("weight")
        ]

    def _forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Map columns; the log determinant is (batch, n)."""
        steps, shift, log_scale = self._project(context)
        z = z + self.mix.triu(1).mT @ z
        z, log_det = shift + z * log_scale.exp(), log_scale.sum(dim=1)
        for layer, hidden, output in steps:
            z, change = layer(z, hidden, output)
            log_det = log_det + change
        return z, log_det

    def _project(self, context: Tensor) -> tuple[list[Any], Tensor, Tensor]:
        """Return each layer with what the context adds to it, then the affine map's two halves."""
        hidden, output, start = (
            affine_columns(linear.weight, context, linear.bias.unsqueeze(-1))
            for linear in (self.to_hidden, self.to_output, self.start)
        )
        shift, log_scale = start.chunk(2, dim=1)
        hidden = hidden.split(self.hidden_widths, dim=1)
        output = output.split(self.output_widths, dim=1)
        steps = list(zip(self.layers, hidden, output, strict=True))
        return steps, shift, bounded(log_scale, 10.0)


FLOWS: dict[str, type[ConditionalFlow]] = {}


def register_flow(name: str) -> Callable[[type[ConditionalFlow]], type[ConditionalFlow]]:
    """Make a kind of flow a choice of the estimators' ``flow=``, by this name (a decorator)."""

    def register(kind: type[ConditionalFlow]) -> type[ConditionalFlow]:
        FLOWS[name] = kind
        return kind

    return register


def make_flow(name: str, n_features: int, n_context: int, **options: Any) -> ConditionalFlow:
    """Build a registered kind of flow."""
    return FLOWS[name](n_features, n_context, **options)


def stack(flows: Sequence[ConditionalFlow]) -> ConditionalFlow:
    """Join flows of one shape: every weight, z and the context get a leading axis, a flow each.

    Most of the time of small operations is the starting of them: four flows together cost little
    more than one.
    """
    stacked = copy.deepcopy(flows[0])
    for name, _ in list(stacked.named_parameters()):
        module, _, last = name.rpartition(".")
        together = torch.stack([flow.get_parameter(name).detach() for flow in flows])
        setattr(stacked.get_submodule(module), last, nn.Parameter(together))
    return stacked


@torch.no_grad()
def unstack(stacked: ConditionalFlow, flows: Sequence[ConditionalFlow]) -> None:
    """Hand the weights of joined flows back to them."""
    for name, weights in stacked.named_parameters():
        for flow, own in zip(flows, weights, strict=True):
            flow.get_parameter(name).copy_(own)


def affine_columns(weight: Tensor, x: Tensor, bias: Tensor) -> Tensor:
    """Compute weight @ x + bias: x (batch, k, n), one weight (m, k) for all or (batch, m, k).

    With k = 1 the product is elementwise, which is 4 to 6 times faster than a matrix product.
    """
    if weight.shape[-1] == 1:
        return torch.addcmul(bias, weight, x)
    return torch.bmm(weight.expand(len(x), *weight.shape[-2:]), x).add_(bias)


def gate_columns(h: Tensor) -> Tensor:
    """Multiply SiLU of one half of the features by the other half, as `Gated` does."""
    gate, value = h.chunk(2, dim=1)
    if torch.is_grad_enabled():
        return silu(gate) * value
    return silu(gate, inplace=True).mul_(value)


def _columns(z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    """Arrange z and its context as (batch, features, n), the context of draws with n = 1.

    A few draws for each context are all in one product: many products of few columns take longer.
    """
    if z.ndim > context.ndim:
        if z.shape[1] >= _MIN_DRAWS:
            return z.mT, context.unsqueeze(-1)
        context = context.repeat_interleave(z.shape[1], dim=0)
        z = z.flatten(0, 1)
    return (z.mT, context.mT) if z.ndim == 3 else (z.mT.unsqueeze(0), context.mT.unsqueeze(0))
