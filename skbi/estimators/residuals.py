"""Residuals of a linear regression: the coordinates in which FMPE and CMPE move noise.

Training begins at z ~ N(m(x), C), the regression of z on x. With R a root of the precision,
C = (R R')^-1, the residuals are

    w = (z - m(x)) R.

If the regression is right they are standard normal, and so is every point of the path from noise e
to w, y = cos(a) e + sin(a) w: nothing has to move. A network, which starts at zero, learns the
rest. All directions count alike, however precisely x tells them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skbi.estimators.pairs import TrainingData
from skbi.estimators.summaries import embedder, read_linearly, summarise
from skbi.networks.sets import DeepSet
from skbi.networks.vector_fields import VectorField
from skbi.preprocessing.batches import Batch
from skbi.preprocessing.maps import Maps
from skbi.preprocessing.packed import to_tensor
from skbi.training.ensemble import JointTraining, Member

__all__ = ["ResidualRows", "TransportMember"]


class TransportMember(Member):
    """A summary network, if there is one, the regression, and a vector field of residuals.

    Parameters
    ----------
    summary : Module or None
    field : VectorField
    n_summary, n_regressed : int
        Width of a summary, and of what the regression reads.

    Attributes
    ----------
    slopes : Tensor, shape (n_regressed, p)
    intercept : Tensor, shape (p,)
    root : Tensor, shape (p, p)
        Of the regression, see `regress`.
    """

    slopes: Tensor
    intercept: Tensor
    root: Tensor

    def __init__(
        self, summary: nn.Module | None, field: VectorField, n_summary: int, n_regressed: int
    ) -> None:
        super().__init__()
        p = field.n_parameters
        self.summary, self.field, self.n_summary = summary, field, n_summary
        self.register_buffer("slopes", torch.zeros(n_regressed, p))
        self.register_buffer("intercept", torch.zeros(p))
        self.register_buffer("root", torch.eye(p))

    @property
    def n_context(self) -> int:
        """Width of a context: a summary, and what the regression predicts."""
        return self.n_summary + len(self.intercept)

    def start_at(self, regression: Sequence[NDArray[np.float64]]) -> None:
        """Set the regression: slopes, intercept and root."""
        for buffer, value in zip((self.slopes, self.intercept, self.root), regression, strict=True):
            buffer.copy_(torch.as_tensor(value, device="cpu"))

    def embed_observations(self, batch: Batch) -> Tensor:
        """Read observations, (n, n_context)."""
        regressed = read_linearly(self.summary, batch, len(self.slopes))
        mean = regressed @ self.slopes + self.intercept
        return torch.cat([summarise(self.summary, batch), mean], dim=-1)

    def to_residuals(self, z: Tensor, context: Tensor) -> Tensor:
        """Return w of z (..., p)."""
        return (z - context[..., self.n_summary :]) @ self.root

    def from_residuals(self, w: Tensor, context: Tensor) -> Tensor:
        """Return z of w (..., p)."""
        z = torch.linalg.solve_triangular(self.root, w, upper=True, left=False)
        return z + context[..., self.n_summary :]

    @property
    def log_volume(self) -> Tensor:
        """Log |det dw/dz|."""
        return self.root.diagonal().abs().log().sum()

    def condition(self, context: Tensor) -> Tensor:
        """Return what the field reads of contexts."""
        return self.field.condition(context[..., : self.n_summary])

    def shrunk(self) -> list[nn.Parameter]:
        """Return what shrinkage pulls to zero, of the networks that are skbi's own."""
        own = self.summary.shrunk() if isinstance(self.summary, DeepSet) else []
        return [*own, *self.field.shrunk()]


class ResidualRows:
    """What an objective reads of rows: their residuals and contexts; and random numbers for it.

    Parameters
    ----------
    training : JointTraining
    data : TrainingData
    maps : Maps
    rng : Generator

    Attributes
    ----------
    weights : Tensor, shape (N,)
        How much each row counts.
    n_validation, n_parameters : int
    """

    def __init__(
        self, training: JointTraining, data: TrainingData, maps: Maps, rng: np.random.Generator
    ) -> None:
        like = training.weights.values
        self.training, self.take = training, maps.indexer(data.X, like, rng).take
        self.embed = embedder(training, maps, data.X)
        self.z = to_tensor(maps.theta.forward(data.theta)[0], like)
        self.weights, self.n_parameters = to_tensor(data.weights, like), self.z.shape[1]
        self.generator = torch.Generator(like.device).manual_seed(int(rng.integers(2**63)))
        validation = torch.as_tensor(
            np.zeros(0, np.int64) if data.validation is None else data.validation,
            device=like.device,
        )
        self.n_validation = len(validation)
        self.position = torch.zeros(len(self.z), dtype=torch.long, device=like.device)
        self.position[validation] = torch.arange(len(validation), device=like.device)

    @property
    def in_training(self) -> bool:
        """Whether rows are learnt from, and not scored."""
        return self.training.training

    def read(
        self, rows: Tensor, fraction: float = 1.0
    ) -> list[tuple[TransportMember, Tensor, Tensor]]:
        """Return the members still trained, with residuals (n, p) and contexts of rows."""
        contexts = self.embed(self.take(rows, fraction))
        members = [self.training.members[i] for i in self.training.weights.trained]
        return [
            (member, member.to_residuals(self.z[rows], context), context)
            for member, context in zip(members, contexts, strict=True)
        ]

    def uniform(self, *shape: int) -> Tensor:
        """Draw numbers between 0 and 1."""
        like = {"device": self.z.device, "dtype": self.z.dtype}
        return torch.rand(shape, generator=self.generator, **like)

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal numbers."""
        like = {"device": self.z.device, "dtype": self.z.dtype}
        return torch.randn(shape, generator=self.generator, **like)

    def order(self, n: int) -> Tensor:
        """Draw an order of n things."""
        return torch.randperm(n, generator=self.generator, device=self.z.device)
