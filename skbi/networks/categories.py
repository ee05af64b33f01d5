"""Probabilities of the values of discrete variables.

Few combinations of values are the values of one softmax; of more, one variable comes after another,

    log q(k | h) = sum_j log q(k_j | h, k_1, ..., k_{j-1}),

each of them a softmax over the variable's values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skbi.networks.layers import MLP, zero

__all__ = ["Categories"]

_MAX_NAMES = 8  # values up to which they are names rather than numbers
_MAX_INDICATORS = 32  # values up to which each has a column of its own
_MAX_SQUARED = 16  # columns read, up to which logits of up to 32 values begin as quadratic forms


class Categories(nn.Module):
    """log q(k | h) of J discrete variables k, given a context h; uniform until it is started.

    A value is written as a number z of order one. What a network reads of a variable, its code, is
    z and, of up to 32 values, which of them it is. Each value has a logit of its own; of more than
    8 values, which are numbers rather than names, a(h) z + b(h) z^2 is added to it. Up to 8
    combinations of the values of several variables are taken for the values of one.

    Parameters
    ----------
    n_values : sequence of int, length J
        Number of values of each variable, two or more.
    n_context : int
        Width of h.
    hidden_layer_sizes : sequence of int, default=(32, 64)
        Gated layers of the network of each softmax.

    Attributes
    ----------
    sizes, widths : list of int
        How many values each softmax has, and the width of their codes.

    Examples
    --------
    >>> categories = Categories([2, 5], n_context=3)
    >>> categories.set_values([torch.tensor([-1.0, 1.0]), torch.arange(5.0)])
    >>> z, h = torch.tensor([[1.0, 4.0]]), torch.zeros(1, 3)
    >>> round(categories.log_prob(z, h).exp().item(), 3)
    0.1
    >>> categories.codes(z).shape
    torch.Size([1, 7])
    """

    def __init__(
        self,
        n_values: Sequence[int],
        n_context: int,
        hidden_layer_sizes: Sequence[int] = (32, 64),
    ) -> None:
        super().__init__()
        self.n_context, self.n_values = n_context, [int(n) for n in n_values]
        self.is_joint = len(self.n_values) > 1 and math.prod(self.n_values) <= _MAX_NAMES
        self.sizes = [math.prod(self.n_values)] if self.is_joint else self.n_values
        self.widths = self.sizes if self.is_joint else [_width_of_code(n) for n in self.sizes]
        self.heads, self.rules = nn.ModuleList(), nn.ModuleList()
        for j, n in enumerate(self.sizes):
            n_read = n_context + sum(self.widths[:j])
            head = MLP(n_read, n + 2 * (n > _MAX_NAMES), hidden_layer_sizes)
            zero(head.last), zero(head.linear)
            self.heads.append(head)
            is_quadratic = n <= _MAX_INDICATORS and n_read <= _MAX_SQUARED
            self.rules.append(_Rule(n_read, n, is_quadratic))
        for j, n in enumerate(self.n_values):
            self.register_buffer(f"values_{j}", torch.arange(float(n)))

    @property
    def width(self) -> int:
        """Width of the codes of all variables."""
        return sum(self.widths)

    def values(self, j: int) -> Tensor:
        """Return the values of variable j in increasing order, (n_values[j],)."""
        return self.get_buffer(f"values_{j}")

    @torch.no_grad()
    def set_values(self, values: Sequence[Tensor]) -> None:
        """Set the numbers that the values of each variable are written as, in increasing order."""
        for j, own in enumerate(values):
            self.values(j).copy_(own)

    def probabilities(self, of_variables: Sequence[Tensor]) -> list[Tensor]:
        """Return those of the values of each softmax, where variables do not depend on another."""
        if not self.is_joint:
            return list(of_variables)
        return [torch.cartesian_prod(*of_variables).prod(dim=1)]

    def is_quadratic(self, j: int) -> bool:
        """Say whether the logits of softmax j begin as quadratic functions."""
        return self.rules[j].quadratic is not None

    @torch.no_grad()
    def start_at(
        self, j: int, weight: Tensor, bias: Tensor, quadratic: Tensor | None = None
    ) -> None:
        """Start softmax j at logits r' quadratic_k r + weight_k r + bias_k of what it reads, r.

        They stay as they are: the network learns what is added to them.

        Parameters
        ----------
        j : int
        weight : Tensor, shape (sizes[j], n_read)
        bias : Tensor, shape (sizes[j],)
        quadratic : Tensor, shape (sizes[j], n_read, n_read), or None
            For a softmax that `is_quadratic`.
        """
        rule = self.rules[j]
        rule.weight.copy_(weight), rule.bias.copy_(bias)
        if quadratic is not None:
            rule.quadratic.copy_(quadratic.permute(1, 0, 2).flatten(1))

    def shrunk(self) -> list[nn.Parameter]:
        """Return the weights that shrinkage pulls to zero."""
        return [w for name, w in self.heads.named_parameters() if name.endswith("weight")]

    def code(self, j: int, index: Tensor) -> Tensor:
        """Return the codes (..., width) of the values of softmax j at some indices (...)."""
        if self.is_joint:
            return nn.functional.one_hot(index, self.sizes[j]).to(self.values(0))
        number = self.values(j)[index].unsqueeze(-1)
        if self.widths[j] == 1:
            return number
        if self.sizes[j] > _MAX_INDICATORS:
            return torch.cat([number, number.square()], dim=-1)
        indicators = nn.functional.one_hot(index, self.sizes[j]).to(number)
        return torch.cat([number, indicators], dim=-1)

    def codes(self, z: Tensor) -> Tensor:
        """Return the codes of all variables, (..., width), of z (..., J)."""
        indices = self.indices(z)[0]
        return torch.cat([self.code(j, index) for j, index in enumerate(indices)], dim=-1)

    def log_prob(self, z: Tensor, context: Tensor) -> Tensor:
        """Log probability of z (n, J), given the context (n, n_context), (n,).

        It is -inf of a z that is none of the values.
        """
        indices, known = self.indices(z)
        total, read = context.new_zeros(len(z)), context
        for j, index in enumerate(indices):
            total = total + self._log_probs(j, read).gather(1, index.unsqueeze(1))[:, 0]
            read = torch.cat([read, self.code(j, index)], dim=1)
        return torch.where(known, total, -torch.inf)

    def log_probs(self, context: Tensor) -> Tensor:
        """Log probability of every value of the first softmax, (n, sizes[0])."""
        return self._log_probs(0, context)

    @torch.no_grad()
    def quantiles(self, u: Tensor, context: Tensor) -> Tensor:
        """Turn uniform u (n, J) into draws z (n, J), given the context (n, n_context)."""
        indices, read = [], context
        for j, of_softmax in enumerate(u[:, : len(self.sizes)].unbind(dim=1)):
            cumulated = self._log_probs(j, read).exp().cumsum(dim=1)
            cumulated = cumulated / cumulated[:, -1:]
            index = torch.searchsorted(cumulated, of_softmax[:, None].contiguous(), right=True)
            indices.append(index[:, 0].clamp(max=self.sizes[j] - 1))
            read = torch.cat([read, self.code(j, indices[j])], dim=1)
        if self.is_joint:
            indices = torch.unravel_index(indices[0], self.n_values)
        return torch.stack([self.values(j)[index] for j, index in enumerate(indices)], dim=1)

    def indices(self, z: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return which value of each softmax is nearest to z (..., J), and whether z is that."""
        indices, known = [], torch.ones_like(z[..., 0], dtype=torch.bool)
        for j, of_variable in enumerate(z.unbind(dim=-1)):
            values = self.values(j)
            steps = values.diff()
            index = torch.bucketize(of_variable.contiguous(), values[:-1] + steps / 2)
            known = known & ((of_variable - values[index]).abs() < steps.min() / 2)
            indices.append(index)
        if self.is_joint:
            joint = indices[0]
            for n, index in zip(self.n_values[1:], indices[1:], strict=True):
                joint = joint * n + index
            indices = [joint]
        return indices, known

    def _log_probs(self, j: int, read: Tensor) -> Tensor:
        logits, n = self.heads[j](read), self.sizes[j]
        if n > _MAX_NAMES:
            values = self.values(j)
            logits = logits[..., :n] + logits[..., n:] @ torch.stack([values, values.square()])
        return (logits + self.rules[j](read)).log_softmax(dim=-1)


class _Rule(nn.Module):
    """Fixed logits r' Q_k r + w_k r + b_k of what a softmax reads, r."""

    def __init__(self, n_read: int, n_values: int, is_quadratic: bool) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(n_values, n_read))
        self.register_buffer("bias", torch.zeros(n_values))
        quadratic = torch.zeros(n_read, n_values * n_read) if is_quadratic else None
        self.register_buffer("quadratic", quadratic)

    def forward(self, r: Tensor) -> Tensor:
        """Map (..., n_read) to (..., n_values)."""
        logits = nn.functional.linear(r, self.weight, self.bias)
        if self.quadratic is None:
            return logits
        products = (r @ self.quadratic).unflatten(-1, (-1, r.shape[-1]))
        return logits + (products @ r.unsqueeze(-1)).squeeze(-1)


def _width_of_code(n_values: int) -> int:
    """Return how many columns tell a network which of so many values a variable has."""
    if n_values == 2:
        return 1
    return 2 if n_values > _MAX_INDICATORS else 1 + n_values
