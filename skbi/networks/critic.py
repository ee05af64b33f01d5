"""Scores of every theta with every x: what compares the two is a small part of the network.

Each side has a deep network of its own, whose outputs u, a, b and v, c, d meet for every pair in

    f(theta, x) = u(theta) . v(x) + w . phi((a(theta) + c(x)) * (b(theta) + d(x))).

The first term of all pairs is one matrix product. The second is a layer of products that reads
theta and x, evaluated for all pairs at the price of sums, and a narrow layer phi.

Where x tells theta precisely, what counts are small differences of theta from what x predicts. Such
differences y(theta, x), of unit scale, are read by a linear map, and added to a + c and b + d.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skbi.networks.layers import MLP, Gated, zero

__all__ = ["Critic"]


class Critic(nn.Module):
    """Score pairs of parameters and observations: zero for all pairs until it is trained.

    Parameters
    ----------
    n_parameters, n_observed : int
        Width of what is read of theta, and of x.
    hidden_layer_sizes : sequence of int, default=(64, 64)
        Gated layers of the network of each side.
    n_products : int, default=64
        Width of u and v.
    n_differences : int, default=1
        Width of y.
    n_compared : int, default=16
        Width of a, b, c and d, and of phi.

    Examples
    --------
    >>> critic = Critic(2, 3)
    >>> theta, x = critic.of_parameters(torch.ones(5, 2)), critic.of_observations(torch.ones(4, 3))
    >>> critic.of_all(theta, x, torch.zeros(4, 5, 1)).shape
    torch.Size([4, 5])
    >>> critic.of_pairs(theta[:4], x, torch.zeros(4, 1)).shape
    torch.Size([4])
    """

    def __init__(
        self,
        n_parameters: int,
        n_observed: int,
        hidden_layer_sizes: Sequence[int] = (64, 64),
        *,
        n_differences: int = 1,
        n_products: int = 64,
        n_compared: int = 16,
    ) -> None:
        super().__init__()
        self.n_compared, self.width = n_compared, n_products + 2 * n_compared
        self.parameters_net = MLP(n_parameters, self.width, hidden_layer_sizes)
        self.observations_net = MLP(n_observed, self.width, hidden_layer_sizes)
        self.product_scales = nn.Parameter(torch.zeros(n_products))
        self.differences = nn.Linear(n_differences, 2 * n_compared, bias=False)
        self.phi = Gated(n_compared, n_compared)
        self.last = zero(nn.Linear(n_compared, 1))

    def shrunk(self) -> list[nn.Parameter]:
        """Return the weights that shrinkage pulls to zero: all but linear paths and the last."""
        nets = self.parameters_net, self.observations_net
        layers = nn.ModuleList(layer for net in nets for layer in (net.hidden, net.last))
        return [w for name, w in layers.named_parameters() if name.endswith("weight")]

    def of_parameters(self, w: Tensor) -> Tensor:
        """Embed parameters (n, n_parameters), (n, width)."""
        return self.parameters_net(w)

    def of_observations(self, x: Tensor) -> Tensor:
        """Embed observations (n, n_observed), (n, width)."""
        output, n = self.observations_net(x), len(self.product_scales)
        return torch.cat([output[:, :n] * self.product_scales, output[:, n:]], dim=-1)

    def of_all(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Score every embedded theta (m, width) with every embedded x (n, width), (n, m).

        ``y`` (n, m, n_differences) are their differences.
        """
        (u, compared), (v, with_x) = self._split(theta), self._split(x)
        return v @ u.mT + self._compare(compared + with_x.unsqueeze(1), y)

    def of_pairs(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Score embedded pairs (n, width), (n,): as `of_all` does the diagonal."""
        (u, compared), (v, with_x) = self._split(theta), self._split(x)
        return (u * v).sum(dim=-1) + self._compare(compared + with_x, y)

    def _split(self, embedded: Tensor) -> tuple[Tensor, Tensor]:
        n = len(self.product_scales)
        return embedded[:, :n], embedded[:, n:]

    def _compare(self, both: Tensor, y: Tensor) -> Tensor:
        gate, value = (both + self.differences(y)).chunk(2, dim=-1)
        return self.last(self.phi(gate * value))[..., 0]
