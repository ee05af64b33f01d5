"""Probabilities of the values of discrete variables, one variable after another.

    log q(k | h) = sum_j log q(k_j | h, k_1, ..., k_{j-1}),

each of them a softmax over the variable's values.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skbi.networks.layers import MLP, zero

__all__ = ["Categories"]

_MAX_NAMES = 8  # values up to which they are names rather than numbers
_MAX_INDICATORS = 32  # values up to which each has a column of its own


class Categories(nn.Module):
    """log q(k | h) of J discrete variables k, given a context h; uniform until it is started.

    A value is written as a number z of order one. What a network reads of a variable, its code, is
    z and, of up to 32 values, which of them it is. Each value has a logit of its own; of more than
    8 values, which are numbers rather than names, a(h) z + b(h) z^2 is added to it.

    Parameters
    ----------
    n_values : sequence of int, length J
        Number of values of each variable, two or more.
    n_context : int
        Width of h.
    hidden_layer_sizes : sequence of int, default=(32, 64)
        Gated layers of the network of each variable.

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
        self.widths = [_width_of_code(n) for n in self.n_values]
        self.heads = nn.ModuleList()
        for j, n in enumerate(self.n_values):
            n_outputs = n + 2 * (n > _MAX_NAMES)
            head = MLP(n_context + sum(self.widths[:j]), n_outputs, hidden_layer_sizes)
            zero(head.last), zero(head.linear)
            self.heads.append(head)
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

    @torch.no_grad()
    def start_at(self, j: int, weight: Tensor, bias: Tensor) -> None:
        """Start variable j at a softmax of linear functions of what its network reads."""
        n, linear = self.n_values[j], self.heads[j].linear
        linear.weight[:n], linear.bias[:n] = weight, bias

    def shrunk(self) -> list[nn.Parameter]:
        """Return the weights that shrinkage pulls to zero: all but those of the linear paths."""
        layers = nn.ModuleList(part for head in self.heads for part in (head.hidden, head.last))
        return [w for name, w in layers.named_parameters() if name.endswith("weight")]

    def code(self, j: int, index: Tensor) -> Tensor:
        """Return the codes (..., width) of the values of variable j at some indices (...)."""
        number = self.values(j)[index].unsqueeze(-1)
        if self.widths[j] == 1:
            return number
        if self.n_values[j] > _MAX_INDICATORS:
            return torch.cat([number, number.square()], dim=-1)
        indicators = nn.functional.one_hot(index, self.n_values[j]).to(number)
        return torch.cat([number, indicators], dim=-1)

    def codes(self, z: Tensor) -> Tensor:
        """Return the codes of all variables, (..., width), of z (..., J)."""
        each = [self.code(j, self._index(j, z[..., j])[0]) for j in range(len(self.heads))]
        return torch.cat(each, dim=-1)

    def log_prob(self, z: Tensor, context: Tensor) -> Tensor:
        """Log probability of z (n, J), given the context (n, n_context), (n,).

        It is -inf of a z that is none of the values.
        """
        total, read = context.new_zeros(len(z)), context
        for j in range(len(self.heads)):
            index, known = self._index(j, z[:, j])
            log_q = self._log_probs(j, read).gather(1, index.unsqueeze(1))[:, 0]
            total = total + torch.where(known, log_q, -torch.inf)
            read = torch.cat([read, self.code(j, index)], dim=1)
        return total

    def log_probs(self, context: Tensor) -> Tensor:
        """Log probability of every value of the first variable, (n, n_values[0])."""
        return self._log_probs(0, context)

    @torch.no_grad()
    def quantiles(self, u: Tensor, context: Tensor) -> Tensor:
        """Turn uniform u (n, J) into draws z (n, J), given the context (n, n_context)."""
        columns, read = [], context
        for j, of_variable in enumerate(u.unbind(dim=1)):
            cumulated = self._log_probs(j, read).exp().cumsum(dim=1)
            cumulated = cumulated / cumulated[:, -1:]
            index = torch.searchsorted(cumulated, of_variable[:, None].contiguous(), right=True)
            index = index[:, 0].clamp(max=self.n_values[j] - 1)
            columns.append(self.values(j)[index])
            read = torch.cat([read, self.code(j, index)], dim=1)
        return torch.stack(columns, dim=1)

    def _log_probs(self, j: int, read: Tensor) -> Tensor:
        logits, n = self.heads[j](read), self.n_values[j]
        if n > _MAX_NAMES:
            values = self.values(j)
            logits = logits[..., :n] + logits[..., n:] @ torch.stack([values, values.square()])
        return logits.log_softmax(dim=-1)

    def _index(self, j: int, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the index of the value nearest to each z, and whether z is that value."""
        values = self.values(j)
        steps = values.diff()
        index = torch.bucketize(z.contiguous(), values[:-1] + steps / 2)
        return index, (z - values[index]).abs() < steps.min() / 2


def _width_of_code(n_values: int) -> int:
    """Return how many columns tell a network which of so many values a variable has."""
    if n_values == 2:
        return 1
    return 2 if n_values > _MAX_INDICATORS else 1 + n_values
