"""What an observation passes through before a flow: h = s(x), by a summary network if there is one.

Vectors are their own summary, clipped so that products stay bounded far from the data. Sets, and
whatever the user brings a module for, have a network that is trained with the flow.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import TransformerMixin, clone
from sklearn.ensemble._base import _set_random_states
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils.validation import _num_samples
from torch import Tensor, nn

from skbi.estimators.checks import check_lengths
from skbi.estimators.ordered import ORDERS, OrderedSummary
from skbi.estimators.side_by_side import SideBySide
from skbi.flows import ConditionalFlow
from skbi.networks.layers import hard_clip, soft_clip
from skbi.networks.sets import DeepSet, Sets, n_moments
from skbi.parallel import each_in_one_thread, n_threads
from skbi.preprocessing.batches import Batch
from skbi.preprocessing.location import Frame, join_frames
from skbi.preprocessing.maps import Maps
from skbi.preprocessing.packed import Packed, pack, to_tensor
from skbi.training.ensemble import DensityMember, JointTraining
from skbi.training.loop import WHOLE_SETS
from skbi.training.start import regress

__all__ = [
    "MAX_POINTS",
    "SET_SLOWDOWN",
    "SUMMARIES",
    "PosteriorMember",
    "build_summary",
    "check_module",
    "embed_observations",
    "embedder",
    "fit_transformer",
    "has_gaps",
    "join_summaries",
    "n_regressed",
    "order_of",
    "pack_through",
    "read_linearly",
    "reader",
    "regress_on_moments",
    "set_fractions",
    "specify_summary",
    "start_at_moments",
    "summarise",
    "summarise_sets",
]

MAX_POINTS = 2**14  # points that are in the summary network of one thread at a time
SET_SLOWDOWN = 2  # networks for sets learn at half the rate
_NAMES = {"auto", "deepset", "series", "image"}
SUMMARIES = [StrOptions(_NAMES), nn.Module, HasMethods(["fit", "transform"])]  # what may be given
_MAX_PARTS, _MIN_NUMBERS = 4, 2**15  # of a minibatch, and numbers that are worth a part
_N_TRIED = 8  # observations that a module is tried on
_START_SETS = 256  # read at a time by the regression that training starts from
_MIN_SET_POINTS = 25  # of a set that is read in part
_SET_FRACTIONS = ((0.4, 1 / 8), (0.75, 1 / 3), (1.0, 1.0))
_MIN_MOMENT_SCALE = 1e-6  # added to the standard deviation of a moment over sets


class PosteriorMember(DensityMember):
    """q(z | x): a summary network, if there is one, then a conditional flow.

    Parameters
    ----------
    summary : Module or None
    flow : ConditionalFlow
    has_view : bool, default=False
        Whether it sees only some columns, see `View`.
    """

    columns: Tensor
    framed: Tensor

    def __init__(
        self, summary: nn.Module | None, flow: ConditionalFlow | None, has_view: bool = False
    ) -> None:
        super().__init__(flow)
        self.summary = summary
        self._register_view(has_view)

    def _register_view(self, has_view: bool) -> None:
        """Make room for what `look` says."""
        self.has_view = has_view
        if has_view:
            self.register_buffer("columns", torch.ones(self.n_context))
            self.register_buffer("framed", torch.zeros((), dtype=torch.bool))

    @property
    def n_context(self) -> int:
        """Width of a context."""
        return self.flow.n_context

    def look(self, groups: Iterable[NDArray[np.int64]], framed: bool) -> None:
        """See some columns only, and describe z in the frame of the emulator's posterior or not."""
        self.columns.zero_()
        for columns in groups:
            self.columns[torch.as_tensor(columns)] = 1
        self.framed.fill_(framed)

    def embed_observations(self, batch: Batch) -> Tensor:
        """Summarise observations, (n, c)."""
        summary = summarise(self.summary, batch)
        return summary * self.columns if self.has_view else summary

    def to_flow(
        self, z: NDArray[np.float64], frame: Frame | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return z (n, p) as the flow describes it, and the log determinant, (n,) or (1,)."""
        if self.has_view and self.framed:
            return frame.forward(z)
        return z, np.zeros(1)

    def from_flow(self, z: NDArray[np.float64], frame: Frame | None) -> NDArray[np.float64]:
        """Map draws (n, draws, p) back."""
        return frame.inverse(z) if self.has_view and self.framed else z

    def targets(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what a summary should predict of z (n, p)."""
        return z

    def start_at(
        self, context: NDArray[np.float64], z: NDArray[np.float64], seen: NDArray[np.int64]
    ) -> None:
        """Start the flow at a regression of z (n, p) on what is seen of the context (n, c)."""
        slopes = np.zeros((context.shape[1], z.shape[1]))
        slopes[seen], *rest = regress(context[:, seen], z)
        self.flow.start_at(slopes, *rest)

    def shrunk(self) -> list[nn.Parameter]:
        """Return what shrinkage pulls to zero of the summary network, if that is skbi's own."""
        return self.summary.shrunk() if isinstance(self.summary, DeepSet) else []


def summarise(summary: nn.Module | None, batch: Batch) -> Tensor:
    """Pass observations through a summary network, (n, c)."""
    if summary is None:
        return hard_clip(batch.points)
    if isinstance(summary, DeepSet):
        return summary(batch.points, batch.sizes, batch.totals)
    sizes = () if batch.sizes is None else (batch.sizes,)
    return soft_clip(summary(batch.points, *sizes))


def read_linearly(summary: nn.Module | None, batch: Batch, width: int) -> Tensor:
    """Return what a regression reads, (n, width): vectors, moments of sets, nothing of modules."""
    if summary is None:
        return hard_clip(batch.points)
    if isinstance(summary, DeepSet):
        return summary.moments(batch.points, batch.sizes, batch.totals)
    return batch.points.new_zeros(len(batch), width)


def n_regressed(n_axes: int, n_features: int) -> int:
    """Return how many columns a regression reads of vectors (two axes), or of sets."""
    return n_features if n_axes == 2 else n_moments(n_features)


def specify_summary(
    summary: str | TransformerMixin | nn.Module, n_summary_features: int, X: Packed, maps: Maps
) -> tuple[nn.Module | None, int]:
    """Return a copy of the user's module, if ``summary`` is one, and the width of summaries."""
    if (summary == "deepset" or isinstance(summary, DeepSet)) and X.n_axes == 2:
        raise ValueError(
            "A DeepSet summary reads sets, X of shape (n, S, d) or a list of arrays "
            "(S_i, d); got vectors. Use summary='auto'."
        )
    if not isinstance(summary, nn.Module):
        return None, n_summary_features
    module = copy.deepcopy(summary).to("cpu", torch.float32)
    single = torch.empty(0, dtype=torch.float32, device="cpu")
    return module, check_module(module, maps.batch(X[:2], single))


def build_summary(architecture: dict[str, Any]) -> tuple[nn.Module | None, int]:
    """Build a summary network, or none for vectors, and return the width of its output."""
    width, summary = architecture["n_features"], copy.deepcopy(architecture["module"])
    if summary is None and architecture["n_axes"] == 2:
        return None, width
    if summary is None:
        summary = DeepSet(width, architecture["n_summary_features"])
    return summary, architecture["n_summary_features"]


def set_fractions(
    summary: str | TransformerMixin | nn.Module, X: Packed
) -> tuple[tuple[float, float], ...]:
    """Return how much of each set the epochs read, see `TrainingPlan`."""
    of_users = isinstance(summary, nn.Module) and not isinstance(summary, DeepSet)
    if X.sizes is None or of_users:
        return WHOLE_SETS
    least = min(1.0, _MIN_SET_POINTS / float(X.sizes.mean()))
    return tuple((upto, max(fraction, least)) for upto, fraction in _SET_FRACTIONS)


def order_of(transformer: Any) -> str | None:
    """Return what the order of points is to what X passes through: "series", "image", or None."""
    return transformer.order if isinstance(transformer, OrderedSummary) else None


def has_gaps(estimator: Any, transformer: Any) -> bool:
    """Whether what an estimator learns from may have missing entries, to be masked."""
    return estimator.missing == "mask" and order_of(transformer) is None


def fit_transformer(
    estimator: Any,
    X: Any,
    theta: NDArray[np.float64],
    training: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[TransformerMixin | OrderedSummary | None, Packed]:
    """Fit what X passes through, if anything: a clone of a transformer, or what reads an order.

    Also return what it makes of X.
    """
    summary, missing = getattr(estimator, "summary", None), getattr(estimator, "missing", "error")
    if isinstance(summary, str) and summary in ORDERS:
        ordered, vectors = OrderedSummary.fit(estimator, X, theta, training, rng)
        return ordered, Packed(vectors)
    if not hasattr(summary, "transform"):
        return None, pack_through(None, X, missing)
    check_lengths(len(theta), _num_samples(X))
    transformer = clone(summary)
    _set_random_states(transformer, int(rng.integers(2**31)))
    transformer = transformer.fit(_safe_indexing(X, training), theta[training])
    return transformer, pack_through(transformer, X, missing)


def pack_through(transformer: Any, X: Any, missing: str) -> Packed:
    """Pack X, or what a fitted transformer makes of it."""
    if transformer is None:
        return pack(X, missing=missing)
    return pack(transformer.transform(X), missing=missing, name="summary.transform(X)")


@torch.no_grad()
def check_module(module: nn.Module, batch: Batch) -> int:
    """Try a user's summary network on a few observations; return its width."""
    wanted = f"summary must map points of width {batch.points.shape[1]}"
    wanted += " to (n, c)" if batch.sizes is None else " and sizes (n,) to (n, c)"
    try:
        output = summarise(module.eval(), batch)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{wanted}; {type(module).__name__} fails: {error}") from error
    if output.ndim != 2 or len(output) != len(batch):
        raise ValueError(f"{wanted}, n = {len(batch)}; got shape {tuple(output.shape)}.")
    return output.shape[1]


def embedder(training: JointTraining, maps: Maps, X: Packed) -> Callable[[Batch], Tensor]:
    """Return what embeds a batch with each member still trained, (members, n, c).

    Summary networks are computed side by side, on parts of the batch if that changes nothing.

    Parameters
    ----------
    training : JointTraining
    maps : Maps
    X : Packed
        The first of them are what a user's module is tried on.
    """

    def embed(member: PosteriorMember, batch: Batch) -> Tensor:
        return member.embed_observations(batch)

    summary = training.members[0].summary
    if summary is None:
        return lambda batch: training.each(lambda member: embed(member, batch))
    like, repeats, divides = training.weights.values, True, True
    if not isinstance(summary, DeepSet):
        repeats, divides = _try(summary, maps.batch(X[:_N_TRIED], like))
    threads = n_threads() if repeats and like.device.type == "cpu" else 1
    side_by_side = SideBySide(threads)

    def embed_side_by_side(batch: Batch) -> Tensor:
        members = [training.members[i] for i in training.weights.trained]
        n_parts = min(_MAX_PARTS, 1 + batch.points.numel() // _MIN_NUMBERS) if divides else 1
        return side_by_side(members, embed, batch.split(n_parts))

    return embed_side_by_side


@torch.no_grad()
def _try(module: nn.Module, batch: Batch) -> tuple[bool, bool]:
    """Whether a module in training draws no random numbers, and takes observations one by one."""
    module, before = copy.deepcopy(module).train(), torch.get_rng_state()
    whole = summarise(module, batch)
    repeats = bool((torch.get_rng_state() == before).all())
    if not repeats or len(batch) < 4:  # a batch normalisation refuses a single one
        return repeats, False
    parts = torch.cat([summarise(module, part) for part in batch.split(2)])
    return True, torch.allclose(parts, whole, rtol=1e-4, atol=1e-5)


def embed_observations(
    packed: Packed, maps: Maps, members: Sequence[PosteriorMember]
) -> tuple[list[Tensor], Tensor, Frame | None]:
    """Embed every observation once with every member, a block of observations in each thread.

    Returns
    -------
    contexts : list of Tensor, shape (n, c)
        One for each member.
    moments : Tensor, shape (n, 2 d), or (n, 0) for vectors
        Mean and log standard deviation of every set.
    frame : Frame or None
        Of the emulator's posteriors, for vectors that are compressed.
    """
    like = next(members[0].parameters())
    contexts = [like.new_empty(len(packed), member.n_context) for member in members]
    moments = like.new_empty(len(packed), 0 if packed.sizes is None else 2 * maps.X.width)

    frames: dict[int, Frame | None] = {}

    @torch.no_grad()
    def embed(rows: slice) -> None:
        points, frames[rows.start] = maps.read(packed[rows])
        batch = packed[rows].tensors(points, like)
        for context, member in zip(contexts, members, strict=True):
            context[rows] = member.embed_observations(batch)
        if packed.sizes is not None:
            moments[rows] = _moments(batch)

    each_in_one_thread(embed, [(rows,) for rows in packed.blocks(MAX_POINTS)])
    return contexts, moments, join_frames([frames[start] for start in sorted(frames)])


@torch.no_grad()
def start_at_moments(
    members: Sequence[PosteriorMember],
    z: NDArray[np.float64],
    read: Callable[[], Iterable[Batch]],
) -> None:
    """Start set summaries at what a regression on moments predicts, and flows at those numbers.

    The rest of a summary is left out of the flow's start, as training is about to change it.

    Parameters
    ----------
    members : sequence of PosteriorMember
        With a `DeepSet`.
    z : ndarray, shape (n, p)
    read : callable
        Returns the n sets that belong to z, in batches.
    """
    targets = members[0].targets(z)[:, : members[0].n_context]
    slopes, intercept, _ = regress_on_moments(members[0].summary, targets, read)
    for member in members:
        member.summary.start_at(*(to_tensor(a, member.log_weight) for a in (slopes, intercept)))
        member.start_at(_of_sets(member.summary, read), z, np.arange(targets.shape[1]))


@torch.no_grad()
def reader(
    maps: Maps,
    X: Packed,
    rows: NDArray[np.int64],
    like: Tensor,
    fraction: float,
    rng: np.random.Generator,
) -> Callable[[], Iterable[Batch]]:
    """Return what reads some sets, a random ``fraction`` of each, as often as it is called."""
    indexer = maps.indexer(X, like, rng)
    parts = torch.as_tensor(rows, device=like.device).split(_START_SETS)
    return lambda: (indexer.take(some, fraction) for some in parts)


def regress_on_moments(
    summary: DeepSet, z: NDArray[np.float64], read: Callable[[], Iterable[Batch]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Regress z (n, p) on the moments of the n sets that `read` returns, as `regress` does."""
    moments = _of_sets(summary.moments, read)
    mean, scale = moments.mean(axis=0), moments.std(axis=0) + _MIN_MOMENT_SCALE
    slopes, intercept, root = regress((moments - mean) / scale, z)
    slopes = slopes / scale[:, None]
    return slopes, intercept - mean @ slopes, root


def _of_sets(
    network: Callable[..., Tensor], read: Callable[[], Iterable[Batch]]
) -> NDArray[np.float64]:
    outputs = [network(batch.points, batch.sizes, batch.totals) for batch in read()]
    return torch.cat(outputs).cpu().double().numpy()


def join_summaries(X: Packed, maps: Maps, context: Tensor, moments: Tensor) -> NDArray[np.float64]:
    """Return what typicality is judged by: scaled vectors; of sets context, moments, log size."""
    if X.sizes is None:
        return maps.X.forward(X.points)
    return np.hstack([context.cpu(), moments.cpu(), np.log(X.sizes[:, None])])


@torch.no_grad()
def summarise_sets(summary: nn.Module, maps: Maps, X: Packed, like: Tensor) -> NDArray[np.float64]:
    """Return what typicality of sets is judged by, (n, k), see `join_summaries`."""
    batches = [maps.batch(X[rows], like) for rows in X.blocks(MAX_POINTS)]
    context = torch.cat([summarise(summary, batch) for batch in batches])
    return join_summaries(X, maps, context, torch.cat([_moments(batch) for batch in batches]))


def _moments(batch: Batch) -> Tensor:
    """Mean and log standard deviation of every set, (n, 2 d)."""
    sets = Sets(batch.sizes)
    x = sets.arrange(batch.points)
    mean = sets.mean(x)
    variance = sets.mean((x - sets.to_points(mean)).square())
    return torch.cat([mean, 0.5 * (variance + 1e-8).log()], dim=1)
