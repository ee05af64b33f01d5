"""What the estimators share: validation, scaling, fitting an ensemble, pickling, tags."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, InvalidParameterError, StrOptions
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import _check_feature_names, _check_n_features, check_is_fitted
from torch import Tensor, nn

from skbi._data import Batch, Indexer, Packed, as_table, pack, pack_observations
from skbi.flows import CouplingFlow, NeuralSplineFlow, RealNVP
from skbi.priors import Prior, as_generator, from_normal, to_normal
from skbi.training import History, Schedule, seeded, train

__all__ = ["BaseDensityEstimator", "FeatureMap", "ParameterMap", "make_flow"]

FLOWS = {"realnvp": RealNVP, "spline": NeuralSplineFlow}
_LEAST_POINTS = 25  # of a set that is read in part
_PARTS = ((0.4, 1 / 8), (0.75, 1 / 3), (1.0, 1.0))


def make_flow(flow: str, n_features: int, n_context: int, **options: Any) -> CouplingFlow:
    """Build a flow by name; in one dimension always a spline, as affine maps stay Gaussian."""
    kind = FLOWS["spline" if n_features == 1 else flow]
    return kind(n_features, n_context, **options)


@dataclass(frozen=True)
class ParameterMap:
    """theta <-> z: the prior's Gaussian coordinates (theta itself without a prior), standardised.

    log q(theta) = log q_z(z) + log |det dz/dtheta|, and the determinant of the prior's map is
    p(theta) / N(z; 0, I). Draws of z therefore land in the prior's support.
    """

    prior: Prior | None
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def fit(cls, prior: Prior | None, theta: NDArray[np.float64]) -> Self:
        """Standardise by the training parameters."""
        z = theta if prior is None else to_normal(prior, theta)
        return cls(prior, z.mean(axis=0), z.std(axis=0))

    def forward(self, theta: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """Return z (n, p) and log |det dz/dtheta| (n,), which is -inf outside the support."""
        log_det = np.full(len(theta), -np.log(self.scale).sum())
        if self.prior is None:
            return (theta - self.mean) / self.scale, log_det
        log_prior = np.asarray(self.prior.log_prob(theta), dtype=np.float64)
        inside = np.isfinite(log_prior)
        z = np.zeros(theta.shape)
        z[inside] = to_normal(self.prior, theta[inside])
        log_normal = -0.5 * (z**2 + math.log(2 * math.pi)).sum(axis=1)
        return (z - self.mean) / self.scale, log_det + log_prior - log_normal

    def inverse(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return theta (n, p)."""
        z = self.mean + self.scale * z
        return z if self.prior is None else from_normal(self.prior, z)


@dataclass(frozen=True)
class FeatureMap:
    """Points standardised column by column; with ``mask``, NaN become 0 and columns say where."""

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    mask: bool

    @classmethod
    def fit(cls, points: NDArray[np.float64], mask: bool) -> Self:
        """Learn the mean and standard deviation of every column from what is present."""
        present = np.isfinite(points)
        count = np.maximum(present.sum(axis=0), 1)
        mean = np.where(present, points, 0).sum(axis=0) / count
        scale = np.sqrt((np.where(present, points - mean, 0) ** 2).sum(axis=0) / count)
        constant = scale <= 1e-12 * np.maximum(np.abs(mean), 1e-300)
        return cls(mean, np.where(constant, 1.0, scale), mask)

    @property
    def width(self) -> int:
        """Columns after the map."""
        return len(self.mean) * (2 if self.mask else 1)

    def forward(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scaled points (N, width)."""
        x = (points - self.mean) / self.scale
        if not self.mask:
            return x
        absent = np.isnan(x)
        return np.hstack([np.where(absent, 0.0, x), absent])


@dataclass(frozen=True)
class _Pairs:
    """Checked training pairs."""

    theta: NDArray[np.float64]
    X: Packed
    parameter_names: NDArray[Any]


@dataclass(frozen=True)
class _Maps:
    """The two maps between the user's units and the networks'."""

    theta: ParameterMap
    X: FeatureMap

    @classmethod
    def fit(cls, prior: Prior | None, data: _Pairs, missing: str) -> Self:
        mask = missing == "mask"
        return cls(ParameterMap.fit(prior, data.theta), FeatureMap.fit(data.X.points, mask))

    def batch(self, X: Packed, like: Tensor) -> Batch:
        return X.tensors(self.X.forward(X.points), like)


class BaseDensityEstimator(BaseEstimator, ABC):
    """Base of the estimators that learn a conditional density from pairs (theta, X)."""

    __metadata_request__fit: ClassVar = {"theta": UNUSED}
    __metadata_request__score: ClassVar = {"theta": UNUSED}

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "flow": [StrOptions(set(FLOWS))],
        "n_transforms": [Interval(Integral, 1, None, closed="left")],
        "hidden_layer_sizes": ["array-like"],
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "missing": [StrOptions({"error", "mask"})],
        "random_state": ["random_state", np.random.Generator],
        "verbose": ["verbose"],
        "device": [str],
    }

    @abstractmethod
    def _specify(self, data: _Pairs, maps: _Maps) -> dict[str, Any]:
        """Everything that `_build` needs, as plain values: what the pickle keeps."""

    @abstractmethod
    def _build(self, spec: dict[str, Any]) -> nn.Module:
        """Build an untrained member: a module with ``log_prob(z, batch)``."""

    def fit(self, theta: ArrayLike, X: Any) -> Self:
        """Learn from simulated pairs.

        Parameters
        ----------
        theta : array-like or DataFrame, shape (n, p)
            Parameters, one row a pair.
        X : array-like, shape (n, d) or (n, S, d), or a sequence of n arrays (S_i, d)
            What the simulator made of them: vectors, sets, or ragged sets. Rows of a set that are
            all NaN mean "no point here".

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If an option or the data cannot be used; what was fitted before stays usable.
        FloatingPointError
            If the training loss is no longer finite.
        """
        self._validate_params()
        _check_sizes(self.hidden_layer_sizes)
        device = _check_device(self.device)
        data = self._check_pairs(theta, X)
        rng = as_generator(self.random_state)
        resumed = self.members_ if self.warm_start and hasattr(self, "members_") else []
        if resumed:
            self._check_resumable(data)
            maps, spec = self._maps, self._spec
        else:
            maps = _Maps.fit(self.prior, data, self.missing)
            spec = self._specify(data, maps)
        members, histories = [], []
        for i in range(self.n_estimators):
            with seeded(rng):
                member = self._build(spec).to(device)
            if i < len(resumed):
                member.load_state_dict(resumed[i].state_dict())
            members.append(member)
            histories.append(self._train(member, data, maps, rng))
        self._maps, self._spec, self.members_ = maps, spec, members
        self._describe(X, data, histories, bool(resumed))
        return self

    def score(self, theta: ArrayLike, X: Any) -> float:
        """Return the mean log density of held-out pairs (in nats; higher is better).

        Parameters
        ----------
        theta : array-like, shape (n, p)
        X : as in `fit`

        Returns
        -------
        float
        """
        return float(np.mean(self.log_prob(theta, X)))

    @abstractmethod
    def log_prob(self, theta: ArrayLike, X: Any) -> NDArray[np.float64]:
        """Log density of each pair."""

    @property
    def flow_(self) -> CouplingFlow:
        """The trained flow; of an ensemble, its first member's."""
        check_is_fitted(self, "members_")
        return self.members_[0].flow

    def _train(
        self, member: nn.Module, data: _Pairs, maps: _Maps, rng: np.random.Generator
    ) -> History:
        like = next(member.parameters())
        z, log_det = (torch.as_tensor(a).to(like) for a in maps.theta.forward(data.theta))
        indexer = Indexer(maps.batch(data.X, like), rng)

        def loss(rows: Tensor, part: float) -> Tensor:
            return -member.log_prob(z[rows], indexer.take(rows, part)) - log_det[rows]

        rows, validation_rows = self._split(len(data.theta), rng, like.device)
        progress = type(self).__name__ if self.verbose else None
        schedule = self._schedule(len(rows), data.X)
        options = {"decayed": member.flow.decayed(), "progress": progress}
        return train(member, loss, rows, validation_rows, schedule, rng, **options)

    def _split(
        self, n: int, rng: np.random.Generator, device: torch.device
    ) -> tuple[Tensor, Tensor | None]:
        order = torch.as_tensor(rng.permutation(n), device=device)
        if not self.early_stopping:
            return order, None
        n_validation = math.ceil(self.validation_fraction * n)
        if n_validation == n:
            raise ValueError(
                f"validation_fraction={self.validation_fraction} of {n} pairs leaves none to train "
                "on: lower it, simulate more, or set early_stopping=False."
            )
        return order[n_validation:], order[:n_validation]

    def _schedule(self, n_train: int, X: Packed) -> Schedule:
        size = self.batch_size
        if size == "auto":
            size = 2 ** round(math.log2(max(8.0, 1.28 * math.sqrt(n_train))))
        parts = ((1.0, 1.0),)
        if X.sizes is not None:
            least = min(1.0, _LEAST_POINTS / float(X.sizes.mean()))
            parts = tuple((upto, max(part, least)) for upto, part in _PARTS)
        return Schedule(
            batch_size=min(size, n_train),
            learning_rate=self.learning_rate_init,
            weight_decay=self.alpha,
            max_iter=self.max_iter,
            n_iter_no_change=self.n_iter_no_change,
            tol=self.tol,
            parts=parts,
        )

    def _describe(self, X: Any, data: _Pairs, histories: list[History], resumed: bool) -> None:
        """Set the public fitted attributes; those of training are the first member's."""
        first = histories[0]
        _check_feature_names(self, X, reset=True)
        _check_n_features(self, data.X.points, reset=True)
        self.n_parameters_in_ = data.theta.shape[1]
        self.parameter_names_in_ = data.parameter_names
        self.n_iter_ = first.n_iter
        self.loss_curve_ = (self.loss_curve_ if resumed else []) + first.loss_curve
        scores = (self.validation_scores_ or [] if resumed else []) + first.validation_scores
        self.validation_scores_ = scores if self.early_stopping else None
        self.best_validation_score_ = first.best_score if self.early_stopping else None

    def _check_pairs(self, theta: ArrayLike, X: Any) -> _Pairs:
        table, names = as_table(theta, "theta")
        packed = pack(X, missing=self.missing)
        if len(table) != len(packed):
            raise ValueError(
                f"theta and X must hold the same number of pairs; got {len(table)} and "
                f"{len(packed)}. It is fit(theta, X)."
            )
        if len(table) < 2:
            raise ValueError(f"At least 2 training pairs are needed; got n_samples = {len(table)}.")
        _check_theta_finite(table)
        if self.prior is not None:
            _check_prior(self.prior, table, names)
            names = self.prior.names
        constant = (table == table[0]).all(axis=0)
        if constant.any():
            column = int(constant.argmax())
            raise ValueError(f"Column {column} of theta is constant: there is nothing to learn.")
        if names is None:
            names = [f"theta_{j}" for j in range(table.shape[1])]
        return _Pairs(table, packed, np.array(names, dtype=object))

    def _check_resumable(self, data: _Pairs) -> None:
        new = data.X.n_axes, data.X.points.shape[1], data.theta.shape[1]
        old = self._spec["n_axes"], self.n_features_in_, self.n_parameters_in_
        if new != old:
            raise ValueError(
                "warm_start continues on data of the same shape; fitted with (axes of X, features, "
                f"parameters) = {old}, got {new}. Set warm_start=False to start afresh."
            )

    def _check_observations(self, X: Any) -> tuple[Packed, bool]:
        """Pack X as `fit` saw it; also whether it was a single observation."""
        check_is_fitted(self, "members_")
        packed, single = pack_observations(X, self._spec["n_axes"], missing=self.missing)
        _check_feature_names(self, X, reset=False)
        _check_n_features(self, packed.points, reset=False)
        return packed, single

    def _check_theta(self, theta: ArrayLike) -> NDArray[np.float64]:
        check_is_fitted(self, "members_")
        table, _ = as_table(theta, "theta")
        if table.shape[1] != self.n_parameters_in_:
            raise ValueError(
                f"theta must have {self.n_parameters_in_} columns "
                f"{self.parameter_names_in_.tolist()}; got {table.shape[1]}."
            )
        _check_theta_finite(table)
        return table

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "members_" in state:
            state["members_"] = [
                {name: w.cpu().numpy() for name, w in member.state_dict().items()}
                for member in self.members_
            ]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "members_" in state:
            self.members_ = [self._restore(arrays) for arrays in state["members_"]]

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> nn.Module:
        with seeded(np.random.default_rng(0)):
            member = self._build(self._spec)
        member.load_state_dict({name: torch.as_tensor(a.copy()) for name, a in arrays.items()})
        return member.eval()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.two_d_labels = tags.target_tags.multi_output = True
        tags.target_tags.single_output = False
        tags.input_tags.three_d_array = True
        return tags


def _check_sizes(sizes: Any) -> None:
    if np.ndim(sizes) != 1 or not len(sizes) or not all(int(h) == h > 0 for h in sizes):
        raise InvalidParameterError(
            "hidden_layer_sizes must be a sequence of at least one positive integer, such as "
            f"(64, 64); got {sizes!r}."
        )


def _check_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device={name!r} cannot be used here ({str(error).splitlines()[0]}). Use 'cpu', or "
            "'cuda' on a machine with a GPU and a CUDA build of torch."
        ) from error
    return device


def _check_theta_finite(theta: NDArray[np.float64]) -> None:
    if not np.isfinite(theta).all():
        row, column = np.argwhere(~np.isfinite(theta))[0]
        raise ValueError(f"theta has NaN or infinite values, first in row {row}, column {column}.")


def _check_prior(prior: Any, theta: NDArray[np.float64], names: NDArray[Any] | None) -> None:
    """Check that the training parameters could have come from the prior."""
    if not isinstance(prior, Prior):
        wanted = ("names", "discrete", "support", "sample", "log_prob", "cdf", "ppf")
        missing = [name for name in wanted if not hasattr(prior, name)]
        raise TypeError(
            f"prior must be a JointPrior or an object with its methods; got "
            f"{type(prior).__name__}, which lacks {missing}."
        )
    if theta.shape[1] != len(prior.names):
        raise ValueError(
            f"The prior has {len(prior.names)} parameters {tuple(prior.names)}, theta has "
            f"{theta.shape[1]} columns."
        )
    if names is not None and list(names) != list(prior.names):
        raise ValueError(
            f"theta's columns {list(names)} are not the prior's parameters {list(prior.names)}: "
            "rename or reorder them."
        )
    outside = ~np.isfinite(prior.log_prob(theta))
    if outside.any():
        row = int(outside.argmax())
        low, high = np.asarray(prior.support, dtype=np.float64).T
        where = (theta[row] < low) | (theta[row] > high)
        which = [n for n, out in zip(prior.names, where, strict=True) if out]
        raise ValueError(
            f"{int(outside.sum())} rows of theta have no finite prior density, first row {row}: "
            f"{theta[row].tolist()}" + (f", outside the support of {which}." if which else ".")
        )
