"""What the members of an ensemble see of vectors of many features, each something else.

Which compression suits a problem shows on the validation rows: members whose view tells them less
fall behind and are dropped, and the others are weighed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skbi.estimators.amortised import draw_in_parts
from skbi.estimators.pairs import TrainingData
from skbi.estimators.summaries import PosteriorMember
from skbi.preprocessing.batches import Batch, Indexer
from skbi.preprocessing.location import Frame
from skbi.preprocessing.maps import Maps
from skbi.preprocessing.packed import Packed, to_tensor
from skbi.training.ensemble import Ensemble, JointTraining

__all__ = [
    "MIN_VIEW_WEIGHT",
    "VIEW_COUNT",
    "VIEW_LAG",
    "Examples",
    "View",
    "draw",
    "examples",
    "log_prob",
    "start_views",
    "take_views",
    "views_of",
]

MIN_VIEW_WEIGHT = 5e-5  # mixture weight from which on a member with a view counts
VIEW_COUNT = 0.1  # validation rows that it counts as beforehand
VIEW_LAG = 3.0  # nats that it may lag behind when training begins

_FURTHEST = 100.0  # coordinate in a frame that training pulls outliers to
_N_GAPS = 4  # further gaps of each row in training, half of the time


@dataclass(frozen=True)
class View:
    """What a member of an ensemble sees of compressed vectors.

    Attributes
    ----------
    groups : tuple of str
        The groups of columns that it reads, see `Maps.groups`.
    framed : bool
        Whether its flow describes z in the frame of the emulator's posterior.
    """

    groups: tuple[str, ...]
    framed: bool = False


_VIEWS = (
    View(("features",)),
    View(("direct", "rest")),
    View(("direct", "location", "precision"), framed=True),
    View(("features", "quantiles")),
    View(("location", "precision", "misfit"), framed=True),
    View(("features",)),
    View(("direct", "rest", "absolute", "quantiles")),
)


def views_of(maps: Maps) -> tuple[View, ...]:
    """Return the views that members can have; the first few members have the last ones.

    Where entries may be missing, features are read with their gaps filled.
    """
    if maps.compression is None:
        return ()
    groups = {name for name, columns in maps.groups.items() if len(columns)}
    if "filled" in groups:
        own = {"features": ("filled", "missing")}
        views = [replace(v, groups=sum((own.get(g, (g,)) for g in v.groups), ())) for v in _VIEWS]
    else:
        views = list(_VIEWS)
    return tuple(view for view in views if set(view.groups) <= groups)


def take_views(members: Sequence[PosteriorMember], maps: Maps, n_members: int) -> None:
    """Give views to new members, the last of ``n_members``: those that the others do not have."""
    views = views_of(maps)
    if not views:
        return
    taken = range(n_members - len(members), n_members)
    for i, member in zip(reversed(taken), members, strict=True):
        view = views[-1 - i % len(views)]
        seen = [name for name in ("missing", *view.groups) if name in maps.groups]
        member.look([maps.groups[name] for name in seen], view.framed)


def start_views(
    members: Sequence[PosteriorMember], maps: Maps, z: NDArray[np.float64], X: Packed
) -> None:
    """Start each member at a linear regression on what it sees, or at the emulator's posterior."""
    points, frame = maps.read(X)
    batch = X.tensors(points, members[0].log_weight)
    for member in members:
        context = member.embed_observations(batch).cpu().double().numpy()
        seen = np.flatnonzero(member.columns.cpu().numpy())
        own, _ = member.to_flow(z, frame)
        member.start_at(context, own.clip(-_FURTHEST, _FURTHEST), seen)


Examples = Callable[[Tensor, float, Sequence[int]], tuple[Batch, Tensor, Tensor]]
"""What flows learn: ``examples(rows, fraction, members)`` returns observations, z (n, p) and
log |det dz/dtheta| (n,), the latter two with a leading axis of members if these have views."""


def examples(
    training: JointTraining, data: TrainingData, maps: Maps, rng: np.random.Generator
) -> Examples:
    """Return what gives the examples of some rows."""
    like = training.weights.values
    z, log_det = maps.theta.forward(data.theta)
    if maps.X.mask and maps.compression is not None:
        return _MaskedExamples(training, data, maps, rng)
    if maps.compression is None:
        take = maps.indexer(data.X, like, rng).take
        z, log_det = to_tensor(z, like), to_tensor(log_det, like)
        return lambda rows, fraction, _: (take(rows, fraction), z[rows], log_det[rows])
    batch, frame = maps.batch_and_frame(data.X, like)
    take = Indexer(batch, rng).take
    each_z, log_dets = _each(training.members, z, log_det, frame, like)
    return lambda rows, fraction, some: (
        take(rows, fraction),
        each_z[:, rows][some],
        log_dets[:, rows][some],
    )


class _MaskedExamples:
    """Examples with entries that are missing, in training also those that are missing elsewhere.

    A row is then an example of several gaps.
    """

    def __init__(
        self, training: JointTraining, data: TrainingData, maps: Maps, rng: np.random.Generator
    ) -> None:
        like, points = training.weights.values, data.X.points
        z, log_det = maps.theta.forward(data.theta)
        self.training, self.versions = training, []
        for i in range(1 + _N_GAPS):
            others = points[rng.choice(data.training, len(points))] if i else points
            columns, frame = maps.read(Packed(np.where(np.isnan(others), np.nan, points)))
            each = _each(training.members, z, log_det, frame, like)
            self.versions.append((to_tensor(columns, like), *each))
        self.rng = torch.Generator(like.device).manual_seed(int(rng.integers(2**63)))

    def __call__(
        self, rows: Tensor, fraction: float, some: Sequence[int]
    ) -> tuple[Batch, Tensor, Tensor]:
        version = 0
        if self.training.training:
            size = (1,)
            version = int(torch.randint(2 * _N_GAPS, size, generator=self.rng, device=rows.device))
            version = max(0, version - _N_GAPS + 1)
        columns, z, log_det = self.versions[version]
        return Batch(columns[rows], None), z[:, rows][some], log_det[:, rows][some]


def _each(
    members: Sequence[PosteriorMember],
    z: NDArray[np.float64],
    log_det: NDArray[np.float64],
    frame: Frame | None,
    like: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return z (members, n, p) as each member describes it, and the log determinants."""
    own = [member.to_flow(z, frame) for member in members]
    each_z = np.stack([z.clip(-_FURTHEST, _FURTHEST) for z, _ in own])
    log_dets = np.stack([log_det + log_scale for _, log_scale in own])
    return to_tensor(each_z, like), to_tensor(log_dets, like)


def log_prob(
    ensemble: Ensemble, z: NDArray[np.float64], contexts: Sequence[Tensor], frame: Frame | None
) -> Tensor:
    """Log density of z (n, p) under the mixture of flows, each in the coordinates of its view."""
    values = []
    for member, context in zip(ensemble.members, contexts, strict=True):
        own, log_scale = member.to_flow(z, frame)
        density = member.log_prob(to_tensor(own, context), context)
        values.append(density + to_tensor(log_scale, context))
    return ensemble.mix(values)


def draw(
    ensemble: Ensemble,
    contexts: Sequence[Tensor],
    frame: Frame | None,
    maps: Maps,
    n_samples: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Draw theta (n, n_samples, p) from the mixture of flows."""

    def fill(
        rows: slice, shape: tuple[int, int, int], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        own = None if frame is None else frame[rows]
        restore = partial(PosteriorMember.from_flow, frame=own)
        return ensemble.draw([context[rows] for context in contexts], shape, rng, restore)

    return draw_in_parts(fill, len(contexts[0]), n_samples, maps, rng)
