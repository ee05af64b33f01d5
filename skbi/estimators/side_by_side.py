"""Networks computed side by side: every member, and every part of a batch, in a thread of its own.

Threads that share each single operation, as torch's own do, wait for one another thousands of times
a second, and a neighbour who keeps one of them from its core keeps all of them waiting. Here a
thread computes a whole network, forwards or backwards, before it waits for the others. What comes
out does not depend on how many threads there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from skbi.parallel import each_in_one_thread

__all__ = ["SideBySide"]


class SideBySide:
    """Computes networks of several members on several parts of a batch.

    Parameters
    ----------
    n_threads : int
        How many are computed at a time.

    Examples
    --------
    >>> networks = [nn.Linear(2, 1), nn.Linear(2, 1)]
    >>> parts = torch.arange(8.0).reshape(4, 2).split(3)
    >>> out = SideBySide(n_threads=2)(networks, lambda net, part: net(part), parts)
    >>> out.shape  # (networks, rows, 1)
    torch.Size([2, 4, 1])
    >>> torch.allclose(out[1], networks[1](torch.cat(parts)))
    True
    """

    def __init__(self, n_threads: int) -> None:
        self.pool = ThreadPoolExecutor(n_threads) if n_threads > 1 else None

    def __call__(
        self,
        networks: Sequence[nn.Module],
        compute: Callable[[Any, Any], Tensor],
        parts: Sequence[Any],
    ) -> Tensor:
        """Return ``compute(network, part)``, stacked over networks, joined over parts."""
        weights = [[w for w in net.parameters() if w.requires_grad] for net in networks]
        tasks = [(compute, net, part) for net in networks for part in parts]
        record = torch.is_grad_enabled()
        outputs = _Networks.apply(self.pool, tasks, weights, record, *chain(*weights))
        n = len(parts)
        joined = [torch.cat(outputs[i * n : (i + 1) * n]) for i in range(len(networks))]
        return torch.stack(joined)


class _Networks(torch.autograd.Function):
    """All networks on all parts as one operation, whose gradients are computed side by side."""

    @staticmethod
    def forward(
        ctx: Any,
        pool: ThreadPoolExecutor | None,
        tasks: Sequence[tuple[Any, ...]],
        weights: Sequence[Sequence[Tensor]],
        record: bool,
        *_: Tensor,
    ) -> tuple[Tensor, ...]:
        def compute(function: Callable[..., Tensor], *arguments: Any) -> Tensor:
            with torch.set_grad_enabled(record):  # which holds for the calling thread only
                return function(*arguments)

        outputs = each_in_one_thread(compute, tasks, pool)
        ctx.pool, ctx.outputs, ctx.weights = pool, outputs, weights
        return tuple(output.detach() for output in outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        n = len(ctx.outputs) // len(ctx.weights)
        pairs = zip(ctx.outputs, gradients, strict=True)
        tasks = [(output, ctx.weights[i // n], slope) for i, (output, slope) in enumerate(pairs)]
        found = each_in_one_thread(_gradient, tasks, ctx.pool)
        summed = [
            [sum(g) for g in zip(*found[i : i + n], strict=True)] for i in range(0, len(found), n)
        ]
        return None, None, None, None, *chain(*summed)


def _gradient(output: Tensor, weights: Sequence[Tensor], gradient: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(output, weights, gradient, allow_unused=True, materialize_grads=True)
