"""Minibatches: packed observations as tensors, and what takes some of them by index."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Batch", "Indexer", "MappedIndexer"]


@dataclass(frozen=True)
class Batch:
    """Packed observations as tensors: what networks read.

    Attributes
    ----------
    points : Tensor, shape (N, width)
        As in `Packed`, in the networks' units.
    sizes : Tensor of int, shape (n,), or None
        Number of points of each set; None for vectors.
    totals : Tensor of int, shape (n,), or None
        Sizes of the whole sets, if ``points`` are a random part of each set.
    """

    points: Tensor
    sizes: Tensor | None = None
    totals: Tensor | None = None

    def __len__(self) -> int:
        return len(self.points) if self.sizes is None else len(self.sizes)

    def split(self, n: int) -> list[Batch]:
        """Cut into at most n parts of consecutive observations."""
        edges = sorted({len(self) * i // n for i in range(n + 1)})
        lengths = [b - a for a, b in pairwise(edges)]
        if self.sizes is None:
            return [Batch(points) for points in self.points.split(lengths)]
        sizes = self.sizes.split(lengths)
        points = self.points.split([int(size.sum()) for size in sizes])
        totals = [None] * len(sizes) if self.totals is None else self.totals.split(lengths)
        return list(map(Batch, points, sizes, totals))


class Indexer:
    """Takes minibatches by index from a `Batch` in memory: whole sets, or a random part of each.

    The points of every set are shuffled once. A random part of a set is then a run of consecutive
    points that begins at a random point, and that goes on from the last point of the set to the
    first. Points with an order are left in it, and are taken whole.

    Parameters
    ----------
    batch : Batch
        All observations.
    rng : Generator
        Shuffles the points and chooses the parts.
    ordered : bool, default=False
        Whether the order of the points tells something.

    Examples
    --------
    >>> batch = Batch(torch.arange(6.0).unsqueeze(1), torch.tensor([4, 2]))
    >>> indexer = Indexer(batch, np.random.default_rng(0))
    >>> part = indexer.take(torch.tensor([0, 1]), fraction=0.5)
    >>> part.sizes, part.totals
    (tensor([2, 1]), tensor([4, 2]))
    """

    def __init__(self, batch: Batch, rng: np.random.Generator, *, ordered: bool = False) -> None:
        self.batch, self.rng, self.ordered = batch, rng, ordered
        if batch.sizes is None:
            return
        self.starts = batch.sizes.cumsum(0) - batch.sizes
        if not ordered:
            owner = np.repeat(np.arange(len(batch)), batch.sizes.cpu())
            order = np.argsort(owner + rng.random(len(owner)))
            points = batch.points[torch.as_tensor(order, device=batch.points.device)]
            self.batch = Batch(points, batch.sizes)

    def take(self, rows: Tensor, fraction: float = 1.0) -> Batch:
        """Return the observations ``rows``; of every set a random ``fraction`` of its points.

        The number of points of a set is rounded up.
        """
        points, totals = self.batch.points, self.batch.sizes
        if totals is None:
            return Batch(points[rows])
        totals = totals[rows]
        sizes = (totals.float() * fraction).ceil().long()
        first = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
        offset = torch.arange(int(sizes.sum()), device=points.device) - first
        if fraction < 1:
            start = int(self.rng.integers(2**31))
            offset = (offset + start) % totals.repeat_interleave(sizes)
        taken = points[self.starts[rows].repeat_interleave(sizes) + offset]
        return Batch(taken, sizes, None if self.ordered else totals)


class MappedIndexer:
    """Takes minibatches by index, as `Indexer` does, from a file that stays out of memory.

    Parameters
    ----------
    X : Packed
        All observations, with points in a memory-mapped file.
    to_batch : callable
        Turns some observations (a `Packed`) into a `Batch`.
    rng : Generator
        Chooses the parts of sets.
    """

    def __init__(self, X: Any, to_batch: Callable[[Any], Batch], rng: np.random.Generator) -> None:
        self.X, self.to_batch, self.rng = X, to_batch, rng

    def take(self, rows: Tensor, fraction: float = 1.0) -> Batch:
        """Read the observations ``rows``; of every set a random ``fraction`` of its points."""
        batch = self.to_batch(self.X.take(rows.cpu().numpy()))
        indexer = Indexer(batch, self.rng, ordered=self.X.order is not None)
        return indexer.take(torch.arange(len(batch), device=rows.device), fraction)
