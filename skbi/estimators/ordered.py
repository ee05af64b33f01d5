"""Series and images as vectors: their moments, and what a network that is trained first says.

Moments hold no weights. A network of gated convolutions learns what they leave out. Its task is to
predict the parameters z with errors of standard deviation s, as if posteriors were Gaussian:

    min  mean_i  sum_j  log s_j(x_i) + (z_ij - m_j(x_i))^2 / (2 s_j(x_i)^2).

Moments, m and log s make a vector, from which an estimator learns as from any other vector. What is
predicted of the pairs that a network has learnt from is better than of others. There are therefore
two networks, each for the half of the training pairs that the other one has learnt from; of all
other observations the vector holds the mean of both predictions.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skbi.estimators.checks import check_grid, check_lengths
from skbi.networks.convolutions import ConvolutionalSummary
from skbi.networks.images import ImageSummary
from skbi.networks.layers import bounded, zero
from skbi.networks.series import GAP_LAGS, SeriesSummary
from skbi.parallel import each_in_one_thread, one_thread, progress_options
from skbi.preprocessing.batches import Batch, Indexer
from skbi.preprocessing.coordinates import ParameterMap
from skbi.preprocessing.features import FeatureMap
from skbi.preprocessing.packed import Packed, pack, to_tensor
from skbi.randomness import seeded
from skbi.training.ensemble import JointTraining, Member
from skbi.training.loop import TrainingPlan, train
from skbi.training.start import MAX_START_ROWS, MIN_START_ROWS, regress

__all__ = ["ORDERS", "OrderedSummary", "Predictor"]

ORDERS = ("series", "image")
_MAX_POINTS = 2**14  # points that are in the network of one thread at a time
_MAX_ITER, _N_ITER_NO_CHANGE = 30, 10  # epochs, and those without improvement that end training
_LEARNING_RATE, _BATCH_SIZE = 5e-3, 128
_ALPHA = 0.65  # standard errors of a weight's mean gradient that shrinkage takes, at 10,000 pairs
_MAX_LOG_CHANGE = 5.0  # of the standard deviations that a regression on moments leaves
_N_GAPS, _GAP_RANGE = 12, (0.003, 0.99)  # bins of gaps between times, and quantiles they span
_MIN_SPREAD = 0.05  # of the steps of a clock, as a share of their mean, from which on they differ
_MIN_SCALE = 1e-6  # standard deviation of a moment over observations, from which on it tells


class Predictor(Member):
    """The mean and the standard deviation of parameters, given a series or an image.

    They start at a linear regression on moments, and at the errors that it leaves.

    Parameters
    ----------
    network : ConvolutionalSummary
    n_context, n_parameters : int
        Width of the network's output, and p.
    """

    log_scale: Tensor

    def __init__(self, network: ConvolutionalSummary, n_context: int, n_parameters: int) -> None:
        super().__init__()
        self.network = network
        self.regression = nn.Linear(network.n_moments, n_parameters)
        self.head = zero(nn.Linear(n_context, 2 * n_parameters))
        self.register_buffer("log_scale", torch.zeros(n_parameters))

    @torch.no_grad()
    def start_at(self, moments: NDArray[np.float64], z: NDArray[np.float64]) -> None:
        """Start at the regression of z (n, p) on moments (n, k), without constant ones."""
        mean, sd = moments.mean(axis=0), moments.std(axis=0)
        scale = np.where(sd > _MIN_SCALE, sd, np.inf)
        slopes, intercept, root = regress((moments - mean) / scale, z)
        errors = np.linalg.inv(root)  # root @ root.T is the inverse of their covariance
        like = self.log_scale
        self.network.standardise_moments(to_tensor(mean, like), to_tensor(scale, like))
        self.regression.weight.copy_(to_tensor(slopes.T, like))
        self.regression.bias.copy_(to_tensor(intercept, like))
        like.copy_(to_tensor(0.5 * np.log((errors**2).sum(axis=0)), like))

    def shrunk(self) -> list[nn.Parameter]:
        """Return the weights that shrinkage pulls to zero."""
        return self.network.shrunk()

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return means (n, p), logarithms of standard deviations (n, p), and moments (n, k)."""
        context, moments = self.network(batch.points, batch.sizes)
        standardised = (moments - self.network.mean) / self.network.scale
        shift, log_change = self.head(context).chunk(2, dim=-1)
        log_sd = self.log_scale + bounded(log_change, _MAX_LOG_CHANGE)
        return self.regression(standardised) + log_sd.exp() * shift, log_sd, moments

    def losses(self, batch: Batch, z: Tensor) -> Tensor:
        """Return minus the log density of z (n, p), but for a constant, (n,)."""
        mean, log_sd, _ = self(batch)
        return (log_sd + 0.5 * ((z - mean) * (-log_sd).exp()).square()).sum(dim=-1)


@dataclass(frozen=True)
class OrderedSummary:
    """What turns series or images into vectors, fitted.

    Attributes
    ----------
    order : {"series", "image"}
    grid : tuple of int or None
        Height and width of images.
    lengths : tuple of int or None
        Of series, the shortest and the longest in training.
    features : FeatureMap
        Of single points.
    clock : int or None
        The channel of series that tells the time: the first that never falls, if its steps differ.
    bounds : ndarray
        Of the bins of gaps, as of `SeriesSummary`.
    n_context, n_parameters : int
        As of `Predictor`.
    weights : list of dict of str to ndarray
        Of each `Predictor`.
    kept : ndarray of int
        The moments that differ between observations.
    """

    order: str
    grid: tuple[int, int] | None
    lengths: tuple[int, int] | None
    features: FeatureMap
    clock: int | None
    bounds: NDArray[np.float64]
    n_context: int
    n_parameters: int
    weights: list[dict[str, NDArray[Any]]]
    kept: NDArray[np.int64]

    @classmethod
    def fit(
        cls,
        estimator: Any,
        X: Any,
        theta: NDArray[np.float64],
        training: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> tuple[Self, NDArray[np.float64]]:
        """Learn from the training pairs of an estimator; its other pairs end the training.

        Parameters
        ----------
        estimator : BaseSBIEstimator
            With ``summary``, ``missing``, ``prior`` and the options of training.
        X : array-like
            n series or images.
        theta : ndarray, shape (n, p)
        training : ndarray of int
        rng : Generator

        Returns
        -------
        summary : OrderedSummary
        vectors : ndarray, shape (n, k + 2 p)
            Those of training pairs are by the predictor that has not seen them.
        """
        order, mask = estimator.summary, estimator.missing == "mask"
        packed = pack(X, order=order, missing=estimator.missing)
        check_lengths(len(theta), len(packed))
        if getattr(estimator, "sets", "auto") == "sum":
            raise ValueError(
                "sets='sum' adds up over points without an order, and summary='series' or 'image' "
                "reads an observation as one: leave out either."
            )
        features = FeatureMap.fit(packed, mask, asinh=True)
        points = features.forward(packed.points)
        clock: tuple[int | None, NDArray[np.float64]] = None, np.zeros(0)
        if packed.grid is None:
            clock = _find_clock(points[:, : features.n_features], packed.sizes)
        n_context = estimator.n_summary_features
        shape = order, packed.grid, features.width, *clock, n_context, theta.shape[1]
        z = ParameterMap.fit(estimator.prior, theta, flat_coordinates=True).forward(theta)[0]
        with seeded(rng):
            members = [_build(*shape).to(estimator.device) for _ in range(2)]
        like = members[0].log_weight
        batch = packed.tensors(points, like)
        indexer, z = Indexer(batch, rng, ordered=True), to_tensor(z, like)
        moments = _moments(members[0], indexer)
        parts, validation = np.array_split(training, 2), np.setdiff1d(np.arange(len(z)), training)
        for member, part, own_rng in zip(members, parts, rng.spawn(2), strict=True):
            others = np.setdiff1d(training, part) if len(training) > len(part) else training
            if len(others) >= MIN_START_ROWS:
                start = others[:MAX_START_ROWS]
                member.start_at(moments[start], z[start].double().cpu().numpy())
            _train(estimator, member, indexer, z, others, validation, own_rng)
        kept = np.flatnonzero(moments[training].std(axis=0) > _MIN_SCALE)
        weights = [
            {name: w.cpu().numpy() for name, w in member.state_dict().items()} for member in members
        ]
        summary = cls(order, packed.grid, packed.lengths, features, *shape[3:], weights, kept)
        vectors, predictions = summary._read(packed)
        for predicted, part in zip(predictions, parts, strict=True):
            vectors[part, len(kept) :] = predicted[part]
        return summary, vectors

    def transform(self, X: Any) -> NDArray[np.float64]:
        """Return the vectors of series or images, (n, k + 2 p).

        Warns
        -----
        UserWarning
            Of series that are shorter or longer than all in training.
        """
        packed = pack(X, order=self.order, missing="mask" if self.features.mask else "error")
        check_grid(packed.grid, self.grid)
        if self.lengths is not None:
            _warn_of_lengths(packed.sizes, self.lengths)
        return self._read(packed)[0]

    def _read(self, packed: Packed) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return vectors (n, k + 2 p), with the mean of the predictions, and these, (2, n, 2 p)."""
        members = [self._restore(weights) for weights in self.weights]
        vectors = np.empty((len(packed), len(self.kept) + 2 * self.n_parameters))
        predictions = np.empty((len(members), len(packed), 2 * self.n_parameters))

        @torch.no_grad()
        def read(rows: slice) -> None:
            part = packed[rows]
            batch = part.tensors(self.features.forward(part.points), members[0].log_weight)
            for found, member in zip(predictions, members, strict=True):
                mean, log_sd, moments = member(batch)
                found[rows] = torch.cat([mean, log_sd], dim=1).numpy()
            vectors[rows, : len(self.kept)] = moments[:, self.kept].numpy()

        each_in_one_thread(read, [(rows,) for rows in packed.blocks(_MAX_POINTS)])
        vectors[:, len(self.kept) :] = predictions.mean(axis=0)
        return vectors, predictions

    def _restore(self, weights: dict[str, NDArray[Any]]) -> Predictor:
        shape = self.order, self.grid, self.features.width, self.clock, self.bounds
        with seeded(np.random.default_rng(0)):
            member = _build(*shape, self.n_context, self.n_parameters)
        state = {name: torch.as_tensor(w.copy(), device="cpu") for name, w in weights.items()}
        member.load_state_dict(state)
        return member.double().eval()


def _find_clock(
    points: NDArray[np.float64], sizes: NDArray[np.int64]
) -> tuple[int | None, NDArray[np.float64]]:
    """Return the channel of points (N, c) that tells the time, and bounds of the gaps in it."""
    owners = np.repeat(np.arange(len(sizes)), sizes)

    def gaps(channel: NDArray[np.float64], lag: int) -> NDArray[np.float64]:
        return (channel[lag:] - channel[:-lag])[owners[lag:] == owners[:-lag]]

    for j, channel in enumerate(points.T if points.shape[1] > 1 else []):
        steps = gaps(channel, 1)
        if len(steps) and steps.min() >= 0 and steps.std() > _MIN_SPREAD * steps.mean():
            found = np.concatenate([gaps(channel, lag) for lag in GAP_LAGS])
            low, high = np.quantile(found[found > 0], _GAP_RANGE)
            return j, np.geomspace(low, high, _N_GAPS - 1)
    return None, np.zeros(0)


def _build(
    order: str,
    grid: tuple[int, int] | None,
    n_features: int,
    clock: int | None,
    bounds: NDArray[np.float64],
    n_context: int,
    n_parameters: int,
) -> Predictor:
    """Build an untrained predictor."""
    network: ConvolutionalSummary
    if grid is None:
        network = SeriesSummary(n_features, n_context, clock=clock, bounds=bounds.tolist())
    else:
        network = ImageSummary(n_features, n_context, grid)
    return Predictor(network, n_context, n_parameters)


@torch.no_grad()
def _moments(member: Predictor, indexer: Indexer) -> NDArray[np.float64]:
    """Return the moments of all observations, (n, k)."""
    rows = torch.arange(len(indexer.batch), device=member.log_weight.device)
    batches = (indexer.take(some) for some in rows.split(_BATCH_SIZE))
    found = [member.network.arrange(batch.points, batch.sizes)[1] for batch in batches]
    return torch.cat(found).double().cpu().numpy()


def _train(
    estimator: Any,
    member: Predictor,
    indexer: Indexer,
    z: Tensor,
    training: NDArray[np.int64],
    validation: NDArray[np.int64],
    rng: np.random.Generator,
) -> None:
    """Train a predictor; validation pairs, if there are any, choose its best weights."""
    joint, n = JointTraining([member]), len(training)
    ones = torch.ones_like(z[:, 0])

    def objective(some: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
        batch = indexer.take(some, fraction)
        return joint.each(lambda each: each.losses(batch, z[some])), ones[some]

    plan = TrainingPlan(
        batch_size=min(_BATCH_SIZE, n),
        learning_rate=_LEARNING_RATE,
        shrinkage=_ALPHA * (10_000 / n) ** (1 / 6) * (min(_BATCH_SIZE, n) / n) ** 0.5,
        max_iter=min(_MAX_ITER, estimator.max_iter),
        n_iter_no_change=_N_ITER_NO_CHANGE,
        tol=estimator.tol,
    )
    rows, others = (torch.as_tensor(a, device=z.device) for a in (training, validation))
    others = others if len(others) else None
    progress = {"desc": "summary", **progress_options(estimator.verbose)}
    with one_thread():
        train(joint, joint.weights, objective, rows, others, plan, rng, progress=progress)


def _warn_of_lengths(lengths: NDArray[np.int64], known: Sequence[int]) -> None:
    """Warn of series whose lengths lie outside those of training."""
    shortest, longest = known
    outside = np.flatnonzero((lengths < shortest) | (lengths > longest))
    if len(outside):
        warnings.warn(
            f"{len(outside)} of {len(lengths)} series are shorter or longer than all in training, "
            f"first row {outside[0]}: it has {lengths[outside[0]]} times, and training had "
            f"{shortest} to {longest}. Posteriors of such series are a guess: simulate series of "
            "their lengths.",
            stacklevel=5,
        )
