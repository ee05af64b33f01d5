"""All parameters of an ensemble as one array, in which every member has a row.

A training step is then a few operations on this array, however many parameters there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn

__all__ = ["StackedParameters"]


class StackedParameters:
    """The parameters of an ensemble's members as one array, of which the parameters are views.

    It also remembers the best parameters of every member, and can go on with only some members.

    Parameters
    ----------
    stacked : sequence of Parameter
        Parameters of all members in one, each with a leading axis of members.
    networks : sequence of Module
        A module for each member that holds its other parameters, all of one shape.
    shrunk : sequence of Parameter
        Those of ``stacked``, and of the first of ``networks``, that shrinkage pulls to zero. The
        other networks' counterparts are shrunk, too.

    Attributes
    ----------
    values : Tensor, shape (members still trained, parameters of a member)
        The array. To change it in place changes the members.
    trained : list of int
        Indices of the members that are still trained.
    shrunk : Tensor, shape (parameters of a member,)
        1 for what is shrunk, and 0 for the rest.

    Examples
    --------
    >>> members = [nn.Linear(2, 1), nn.Linear(2, 1)]
    >>> parameters = StackedParameters([], members, [members[0].weight])
    >>> parameters.values.shape
    torch.Size([2, 3])
    >>> parameters.shrunk
    tensor([1., 1., 0.])
    >>> _ = parameters.values[1].fill_(5)
    >>> members[1].bias.item()
    5.0
    """

    def __init__(
        self,
        stacked: Sequence[nn.Parameter],
        networks: Sequence[nn.Module],
        shrunk: Sequence[nn.Parameter],
    ) -> None:
        self.stacked, self.trained = list(stacked), list(range(len(networks)))
        of_network = [[w for w in net.parameters() if w.requires_grad] for net in networks]
        self.unstacked = list(zip(*of_network, strict=True))  # for each parameter, over members
        self.buffers = [list(net.buffers()) for net in networks]
        with torch.no_grad():
            blocks = self._as_blocks([*self.stacked, *chain(*self.unstacked)])
            self.values = torch.cat(blocks, dim=1)
        self.widths = [block.shape[1] for block in blocks]
        self.shrunk = self._flag(shrunk)
        self._attach()
        self.best = self.values.clone()
        self.best_buffers = [[buffer.clone() for buffer in buffers] for buffers in self.buffers]

    def gradient(self, loss: Tensor) -> Tensor:
        """Return the gradient of a scalar loss, of the shape of ``values``."""
        inputs = [*self.stacked, *(each[i] for each in self.unstacked for i in self.trained)]
        gradients = torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)
        return torch.cat(self._as_blocks(gradients), dim=1)

    def keep_best(self, better: Tensor) -> None:
        """Remember the present parameters and buffers of some members as their best.

        Parameters
        ----------
        better : Tensor of bool, shape (members still trained,)
        """
        for i in better.nonzero()[:, 0].tolist():
            member = self.trained[i]
            self.best[member] = self.values[i]
            self.best_buffers[member] = [buffer.clone() for buffer in self.buffers[member]]

    def keep_members(self, staying: Tensor) -> None:
        """Go on with some members, so that the others are no longer trained.

        Parameters
        ----------
        staying : Tensor of bool, shape (members still trained,)
        """
        self.trained = [self.trained[i] for i in staying.nonzero()[:, 0].tolist()]
        self.values.data = self.values[staying]
        self._attach()

    def restore_best(self) -> None:
        """Give all members, trained or not, their best parameters and buffers.

        Their parameters become arrays of their own: where an array begins in memory can change how
        a matrix product rounds.
        """
        self.trained = list(range(len(self.best)))
        self.values.data = self.best
        self._attach()
        for parameter in (*self.stacked, *chain(*self.unstacked)):
            parameter.data = parameter.data.clone()
        for buffers, best in zip(self.buffers, self.best_buffers, strict=True):
            for buffer, best_buffer in zip(buffers, best, strict=True):
                buffer.copy_(best_buffer)

    def _flag(self, shrunk: Sequence[nn.Parameter]) -> Tensor:
        """Return 1 for the columns of ``values`` that are shrunk, and 0 for the others."""
        ids = {id(parameter) for parameter in shrunk}
        first = (*self.stacked, *(each[0] for each in self.unstacked))
        flags = self.values.new_tensor([id(parameter) in ids for parameter in first])
        return flags.repeat_interleave(torch.tensor(self.widths, device=flags.device))

    def _attach(self) -> None:
        """Make the members' parameters views of ``values``."""
        views = self.values.split(self.widths, dim=1)
        for parameter, view in zip(self.stacked, views, strict=False):
            parameter.data = view.view(len(view), *parameter.shape[1:])
        for parameters, view in zip(self.unstacked, views[len(self.stacked) :], strict=True):
            for i, row in zip(self.trained, view, strict=True):
                parameters[i].data = row.view(parameters[i].shape)

    def _as_blocks(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Turn a tensor for each parameter into one (members still trained, width) for each.

        ``tensors`` are those of ``stacked``, then those of the members still trained for the first
        of ``unstacked``, for its second, and so on.
        """
        n, rest = len(self.trained), iter(tensors[len(self.stacked) :])
        joined = (torch.stack([next(rest) for _ in self.trained]) for _ in self.unstacked)
        return [block.reshape(n, -1) for block in (*tensors[: len(self.stacked)], *joined)]
