"""What the estimators share: validation, scaling, fitting an ensemble, pickling, tags."""

from __future__ import annotations

import copy
import math
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist
from sklearn.base import BaseEstimator
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import RidgeCV
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import Interval, InvalidParameterError, StrOptions
from sklearn.utils.extmath import randomized_svd
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import (
    _check_feature_names,
    _check_n_features,
    _check_sample_weight,
    _get_feature_names,
    _num_samples,
    check_is_fitted,
)
from torch import Tensor, nn

from skbi._data import (
    Packed,
    as_batch,
    as_table,
    axes_of,
    pack,
    to_tensor,
    width_of,
)
from skbi.flows import CouplingFlow, NeuralSplineFlow, RealNVP, stack, unstack
from skbi.maps import Maps
from skbi.priors import Prior, as_generator
from skbi.training import History, Schedule, Weights, one_thread, seeded, train

__all__ = [
    "BaseDensityEstimator",
    "Ensemble",
    "Familiar",
    "Member",
    "Pairs",
    "blocks",
    "check_lengths",
    "check_n_samples",
    "check_names",
    "is_trusted",
    "leader",
    "make_flow",
    "mixture_density",
    "regress",
    "trusted",
]

FLOWS = {"realnvp": RealNVP, "spline": NeuralSplineFlow}

_VERSION = version("skbi")
_REMEMBERED = 2000  # training observations that others are compared with, and as many held out
_NEAREST = 5
_COMPONENTS = 64  # of their summaries
_NARROWEST = 1e-2  # sd of y, added to that of a regression's errors
_PAIRS = 10_000  # to which alpha refers
_EM_STEPS = 100
_COUNTS = 0.01  # weight of a member from which on it takes part in the mixture
_ROWS = 500  # validation rows evaluated at a time


def make_flow(flow: str, n_features: int, n_context: int, **options: Any) -> CouplingFlow:
    """Build a flow by name; in one dimension always a spline, as affine maps stay Gaussian."""
    kind = FLOWS["spline" if n_features == 1 else flow]
    return kind(n_features, n_context, **options)


@dataclass(frozen=True)
class Pairs:
    """Checked training pairs, how much each counts, and which to learn from or to keep aside."""

    theta: NDArray[np.float64]
    X: Packed
    parameter_names: NDArray[Any]
    weights: NDArray[np.float64]
    learnt: NDArray[np.int64]
    aside: NDArray[np.int64] | None
    transformer: Any = None


class Member(nn.Module):
    """One member of an ensemble: an embedding of what is given, then a conditional flow."""

    log_weight: Tensor

    def __init__(self, flow: CouplingFlow) -> None:
        super().__init__()
        self.flow = flow
        self.register_buffer("log_weight", torch.zeros(()))

    def embed(self, given: Any) -> Tensor:
        """Embed what the density is conditioned on, (n, c)."""
        raise NotImplementedError

    def shrunk(self) -> list[nn.Parameter]:
        """Return what shrinkage pulls to zero of the embedding; of the flow see there."""
        return []


class Ensemble(nn.Module):
    """Members that are trained together, each for itself, their flows as one network.

    While they are, the members have no flows of their own; `release` gives them back.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        super().__init__()
        self.flows = [member.flow for member in members]  # not registered: they rest
        self.flow = stack(self.flows)
        for member in members:
            member.flow = None
        self.members = nn.ModuleList(members)
        shrunk = [*self.flow.shrunk(), *members[0].shrunk()]
        self.weights = Weights(list(self.flow.parameters()), members, shrunk)

    def log_prob(self, z: Tensor, given: Any) -> Tensor:
        """Log density of z (n, k) in every member that is trained, (members, n)."""
        contexts = torch.stack([self.members[i].embed(given) for i in self.weights.trained])
        return self.flow.log_prob(z.expand(len(contexts), *z.shape), contexts)

    def release(self) -> None:
        """Give the members their flows, with what they have learnt."""
        unstack(self.flow, self.flows)
        for member, flow in zip(self.members, self.flows, strict=True):
            member.flow = flow.eval()


@dataclass(frozen=True)
class Familiar:
    """How far from training simulations other ones lie, by a local outlier factor.

    Summaries are decorrelated; the distance to the nearest few training simulations is divided by
    theirs to each other, so that sparse regions count as such. (Undivided, sets of forty times the
    trained size had p-values of 1e-4 instead of 1e-7.) Held-out simulations tell how large the
    ratio is by chance: by counting, and beyond the largest tenth of them by the power law of their
    tail, taken heavier by two standard errors, lest few of them raise false alarms.

    References
    ----------
    Breunig et al., LOF: identifying density-based local outliers, 2000,
    https://doi.org/10.1145/335191.335388; Hill, A simple general approach to inference about the
    tail of a distribution, 1975, https://doi.org/10.1214/aos/1176343247.
    """

    mean: NDArray[np.float64]
    whiten: NDArray[np.float64]
    references: NDArray[np.float32]
    spacing: NDArray[np.float64]
    ratios: NDArray[np.float64]

    @classmethod
    def fit(cls, learnt: NDArray[np.float64], aside: NDArray[np.float64]) -> Self:
        """Remember summaries (n, k), at most some, and the ratios of those kept aside (m, k)."""
        learnt, aside = (x[_spread_out(len(x), _REMEMBERED)] for x in (learnt, aside))
        mean = learnt.mean(axis=0)
        width = min(_COMPONENTS, *learnt.shape)
        _, values, axes = randomized_svd(learnt - mean, width, random_state=0)
        sd = np.maximum(values, 0.1 * values[0]) / len(learnt) ** 0.5
        whiten = axes.T / np.where(sd > 0, sd, 1)  # hardly varying directions are not blown up
        references = ((learnt - mean) @ whiten).astype(np.float32)
        bare = cls(mean, whiten, references, _spacing(references), np.empty(0))
        return replace(bare, ratios=np.sort(bare.ratio(aside)))

    def ratio(self, summaries: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance to the nearest few training simulations, over their spacing, (n,)."""
        x = (summaries - self.mean) @ self.whiten
        return np.concatenate([self._ratio(x[rows]) for rows in blocks(len(x), _REMEMBERED)])

    def _ratio(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        k = min(_NEAREST, len(self.references))
        distance = cdist(x, self.references)
        nearest = np.argpartition(distance, k - 1, axis=1)[:, :k]
        furthest = np.take_along_axis(distance, nearest, axis=1).max(axis=1)
        return furthest / self.spacing[nearest].mean(axis=1)

    def p_values(self, summaries: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of simulations that are further out, (n,)."""
        ratio, m = self.ratio(summaries), len(self.ratios)
        counted = (1 + m - np.searchsorted(self.ratios, ratio)) / (m + 1)
        largest = m // 10
        edge, tail = self.ratios[-largest - 1], math.inf
        if largest >= 5 and edge > 0:
            tail = np.log(self.ratios[-largest:] / edge).mean() * (1 + 2 * largest**-0.5)
        if tail > 1:  # or not known: take Cauchy's, beyond the largest
            furthest = max(self.ratios[-1], 1)
            return counted * furthest / np.maximum(ratio, furthest)
        extrapolated = largest / m * (np.maximum(ratio, edge) / edge) ** (-1 / max(tail, 1e-3))
        return np.where(ratio > edge, extrapolated, counted)


def _spacing(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Distance of each point to its nearest few others; of duplicates, to the nearest distinct."""
    between = cdist(x, x)
    np.fill_diagonal(between, np.inf)
    k = max(1, min(_NEAREST, len(x) - 1)) - 1
    spacing = np.partition(between, k, axis=1)[:, k]
    distinct = np.where(between > 0, between, np.inf).min(axis=1)
    spacing = np.where(spacing > 0, spacing, distinct)
    return np.where(np.isfinite(spacing), spacing, 1.0)


def _spread_out(n: int, most: int) -> NDArray[np.int64]:
    """At most so many of n rows, evenly spread."""
    return np.linspace(0, n - 1, min(n, most)).astype(np.int64)


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
        "learning_rate_init": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "random_state": ["random_state", np.random.Generator, np.random.SeedSequence],
        "verbose": ["verbose"],
        "device": [str],
    }

    _ladder = 25.0  # the strongest shrinkage of a member over the weakest
    _straight = False  # whether flat parameters stay straight, see `ParameterMap`
    missing = "error"  # unless an estimator makes it an option

    @abstractmethod
    def _specify(self, data: Pairs, maps: Maps) -> dict[str, Any]:
        """Everything that `_build` needs, as plain values: what the pickle keeps."""

    @abstractmethod
    def _build(self, spec: dict[str, Any]) -> Member:
        """Build an untrained member."""

    @abstractmethod
    def _losses(
        self, ensemble: Ensemble, data: Pairs, maps: Maps, rng: np.random.Generator
    ) -> Callable[[Tensor, float], Tensor]:
        """Return losses(rows, part): every member's -log q in the user's units, (members, n)."""

    def fit(self, theta: ArrayLike, X: Any, sample_weight: ArrayLike | None = None) -> Self:
        """Learn from simulated pairs.

        Parameters
        ----------
        theta : array-like or DataFrame, shape (n, p)
            Parameters, one row a pair.
        X : array-like, shape (n, d) or (n, S, d), or a sequence of n arrays (S_i, d)
            What the simulator made of them: vectors, sets, or ragged sets. Rows of a set that are
            all NaN mean "no point here".
        sample_weight : array-like, shape (n,), optional
            How much each pair counts beside the others: p(theta) / r(theta) if theta was drawn
            from r instead of the prior p. Pairs of weight zero are left out.

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
        _check_device(self.device)
        rng = as_generator(self.random_state)
        data = self._check_pairs(theta, X, sample_weight, rng)
        resumed = self._resumes
        if resumed:
            self._check_resumable(data)
            maps, spec = self._maps, self._spec
        else:
            options = {"straight": self._straight, **self._tails()}
            maps = Maps.fit(self.prior, data.theta, data.X, self.missing == "mask", **options)
            spec = self._specify(data, maps)
        members, history = self._train_members(spec, data, maps, rng)
        familiar = self._look_back(leader(members), maps, data)
        self._maps, self._spec, self.members_, self._familiar = maps, spec, members, familiar
        self._describe(X, data, history, resumed)
        return self

    def score(self, theta: ArrayLike, X: Any, sample_weight: ArrayLike | None = None) -> float:
        """Return the mean log density of held-out pairs (in nats; higher is better).

        Parameters
        ----------
        theta : array-like, shape (n, p)
        X : as in `fit`
        sample_weight : array-like, shape (n,), optional
            As in `fit`.

        Returns
        -------
        float
        """
        log_q = self.log_prob(theta, X)
        weights = _check_sample_weight(sample_weight, log_q, ensure_non_negative=True)
        counts = weights > 0
        return float(np.average(log_q[counts], weights=weights[counts]))

    @abstractmethod
    def log_prob(self, theta: ArrayLike, X: Any) -> NDArray[np.float64]:
        """Log density of each pair."""

    @property
    def _resumes(self) -> bool:
        """Whether `fit` goes on from what is fitted."""
        return self.warm_start and hasattr(self, "members_")

    def set_params(self, **params: Any) -> Self:
        """Set options; ``device`` also moves a fitted estimator there.

        Parameters
        ----------
        **params
            Options of the constructor.

        Returns
        -------
        self
        """
        if "device" in params and hasattr(self, "members_"):
            device = _check_device(params["device"])
            for member in self.members_:
                member.to(device)
        return super().set_params(**params)

    @property
    def flow_(self) -> CouplingFlow:
        """The trained flow; of an ensemble, that of the member with the largest weight."""
        check_is_fitted(self, "members_")
        return leader(self.members_).flow

    def _train_members(
        self, spec: dict[str, Any], data: Pairs, maps: Maps, rng: np.random.Generator
    ) -> tuple[list[Member], History]:
        """Train an ensemble."""
        started = self.members_ if self._resumes else []
        members = []
        for i in range(self._count_members(data)):
            with seeded(rng):
                members.append(self._build(spec).to(self.device))
            if i < len(started):
                members[i].load_state_dict(started[i].state_dict())
                members[i].log_weight.zero_()
        self._begin(members[len(started) :], data, maps, rng)
        return members, self._train(members, data, maps, rng)

    def _count_members(self, data: Pairs) -> int:
        return self.n_estimators

    def _reads_sets(self, X: Packed) -> bool:
        """Whether a member has a network for sets: it keeps a processor busy, and learns slower."""
        return False

    def _in_one_thread(self, X: Packed) -> bool:
        """Whether to train in one thread: two are no faster on two_moons.

        Beside another busy process they took ten times as long, as each waits for the other.
        """
        return True

    def _begin(
        self, members: list[Member], data: Pairs, maps: Maps, rng: np.random.Generator
    ) -> None:
        """Choose where the training of new members starts, if not from what they are built with."""

    def _train(
        self, members: list[Member], data: Pairs, maps: Maps, rng: np.random.Generator
    ) -> History:
        """Train members together, and weight them by the pairs kept aside."""
        ensemble, owners = Ensemble(members), self._owners(data.X)
        losses = self._losses(ensemble, data, maps, rng)
        weight = to_tensor(data.weights[owners], members[0].log_weight)

        def rows_of(pairs: NDArray[np.int64]) -> Tensor:
            rows = np.flatnonzero(np.isin(owners, pairs))
            return torch.as_tensor(rows, device=weight.device)

        def weighted(rows: Tensor, part: float) -> Tensor:
            return weight[rows] * losses(rows, part)

        rows = rows_of(data.learnt)
        aside = None if data.aside is None else rows_of(data.aside)
        with one_thread() if self._in_one_thread(data.X) else nullcontext():
            history = train(
                ensemble,
                ensemble.weights,
                weighted,
                rows,
                aside,
                self._schedule(len(rows), data.X, len(members)),
                rng,
                progress=type(self).__name__ if self.verbose else None,
            )
        if aside is not None and len(members) > 1:
            history.best_score = _weigh(members, losses, aside, weight)
        ensemble.release()
        return history

    def _look_back(self, member: nn.Module, maps: Maps, data: Pairs) -> Familiar:
        """Remember what training observations look like; without any kept aside, by a tenth."""
        learnt, aside = data.learnt, data.aside
        if aside is None:
            aside, learnt = np.split(learnt, [math.ceil(len(learnt) / 10)])
        parts = (data.X.take(rows[:_REMEMBERED]) for rows in (learnt, aside))
        return Familiar.fit(*(self._summaries(member, maps, part) for part in parts))

    @abstractmethod
    def _summaries(self, member: nn.Module, maps: Maps, X: Packed) -> NDArray[np.float64]:
        """Describe observations by what they are compared by, (n, k)."""

    def _p_values(self, X: Packed) -> NDArray[np.float64]:
        """Share of simulations that are further from the training simulations, (n,)."""
        return self._familiar.p_values(self._summaries(leader(self.members_), self._maps, X))

    def _warn_of_strangers(self, p_values: NDArray[np.float64], stacklevel: int = 3) -> None:
        """Warn of p-values below 0.001, over the number of observations."""
        strange = np.flatnonzero(p_values * len(p_values) < 1e-3)
        if len(strange):
            worst = strange[p_values[strange].argmin()]
            warnings.warn(
                f"{len(strange)} of {len(p_values)} observations are unlike the training "
                f"simulations, most of all row {worst}: about a share {p_values[worst]:.1g} of "
                "simulations lie as far out. Their posteriors are a guess: look at the data, the "
                "simulator and the prior (see misspecification_score).",
                stacklevel=stacklevel,
            )

    def _misspecification(self, X: Any) -> Any:
        packed, single = self._check_observations(X)
        p_values = self._p_values(packed)
        return float(p_values[0]) if single else p_values

    def _owners(self, X: Packed) -> NDArray[np.int64]:
        """Return the pair that each of `_losses`' rows belongs to."""
        return np.arange(len(X))

    def _parts(self, X: Packed) -> tuple[tuple[float, float], ...]:
        """Return how much of each set to read in a first fit, see `Schedule`."""
        return ((1.0, 1.0),)

    def _tails(self) -> dict[str, Any]:
        """Return what may be done about heavy tails in X, ``bend`` or ``log`` of `FeatureMap`."""
        return {}

    def _split(
        self, n: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
        """Draw the pairs to learn from and those to keep aside."""
        if n < 2:
            raise ValueError(f"At least 2 training pairs are needed; got n_samples = {n}.")
        order = rng.permutation(n)
        if not self.early_stopping:
            return order, None
        n_validation = math.ceil(self.validation_fraction * n)
        if n_validation == n:
            raise ValueError(
                f"validation_fraction={self.validation_fraction} of {n} pairs leaves none to train "
                "on: lower it, simulate more, or set early_stopping=False."
            )
        return order[n_validation:], order[:n_validation]

    def _schedule(self, n_train: int, X: Packed, n_members: int) -> Schedule:
        size, rate, calm = self.batch_size, self.learning_rate_init, 2 if self._reads_sets(X) else 1
        if size == "auto":
            size = 2 ** round(math.log2(max(8.0, 2.56 / calm * math.sqrt(n_train))))
        size = min(size, n_train)
        threshold = self.alpha / calm * (_PAIRS / n_train) ** (1 / 6)  # in standard errors
        strongest = threshold * math.sqrt(size / n_train)  # in sd of a minibatch's mean gradient
        return Schedule(
            batch_size=size,
            learning_rate=1e-2 / calm if rate == "auto" else rate,
            shrinkage=tuple(strongest * self._ladder ** np.linspace(-1, 0, n_members)),
            max_iter=self.max_iter,
            n_iter_no_change=self.n_iter_no_change,
            tol=self.tol,
            parts=((1.0, 1.0),) if self._resumes else self._parts(X),
        )

    def _describe(self, X: Any, data: Pairs, history: History, resumed: bool) -> None:
        """Set the public fitted attributes."""
        _check_feature_names(self, X, reset=True)
        self.n_features_in_, self._n_axes_in = width_of(X), axes_of(X)
        self._transformer = data.transformer
        self.n_parameters_in_ = data.theta.shape[1]
        self.parameter_names_in_ = data.parameter_names
        self.n_iter_ = history.n_iter
        self.loss_curve_ = (self.loss_curve_ if resumed else []) + history.loss_curve
        scores = (self.validation_scores_ or [] if resumed else []) + history.validation_scores
        self.validation_scores_ = scores if self.early_stopping else None
        self.best_validation_score_ = history.best_score if self.early_stopping else None

    def _check_pairs(
        self, theta: ArrayLike, X: Any, sample_weight: ArrayLike | None, rng: np.random.Generator
    ) -> Pairs:
        table, names = as_table(theta, "theta")
        _get_feature_names(X)  # which refuses names that are not all strings
        weights = np.ones(len(table))
        if sample_weight is not None:
            check_lengths(len(table), _num_samples(X))
            weights = _check_sample_weight(
                sample_weight, table, ensure_non_negative=True, copy=True
            )
        if not weights.all():
            counts = np.flatnonzero(weights)
            table, X, weights = (_safe_indexing(a, counts) for a in (table, X, weights))
        learnt, aside = self._split(len(table), rng)
        names = self._check_parameters(table, names)
        transformer = self._fit_transformer(X, table, learnt, rng)
        packed = self._pack(X, transformer, self.missing)
        check_lengths(len(table), len(packed))
        for part in [learnt] if aside is None else [learnt, aside]:
            weights[part] /= weights[part].mean()
        return Pairs(table, packed, names, weights, learnt, aside, transformer)

    def _check_parameters(
        self, theta: NDArray[np.float64], names: NDArray[Any] | None
    ) -> NDArray[Any]:
        """Refuse training parameters that cannot be learnt; return their names."""
        _check_theta_finite(theta)
        if self.prior is not None:
            _check_prior(self.prior, theta, names)
            names = self.prior.names
        self._check_varying(theta)
        if names is None:
            names = _default_names(theta.shape[1])
        return np.array(names, dtype=object)

    def _fit_transformer(
        self,
        X: Any,
        theta: NDArray[np.float64],
        learnt: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> Any:
        """Fit what an estimator passes X through before it is packed, if anything."""

    @staticmethod
    def _pack(X: Any, transformer: Any, missing: str) -> Packed:
        if transformer is None:
            return pack(X, missing=missing)
        return pack(transformer.transform(X), missing=missing, name="summary.transform(X)")

    def _check_varying(self, theta: NDArray[np.float64]) -> None:
        constant = (theta == theta[0]).all(axis=0)
        if constant.any():
            column = int(constant.argmax())
            raise ValueError(f"Column {column} of theta is constant: there is nothing to learn.")

    def _check_resumable(self, data: Pairs) -> None:
        """Refuse data and options for which the networks would have to be others."""
        hint = "Set warm_start=False to start afresh."
        new = data.X.n_axes, data.X.points.shape[1], data.theta.shape[1]
        old = self._spec["n_axes"], self._maps.X.n_features, self.n_parameters_in_
        if new != old:
            raise ValueError(
                "warm_start continues on data of the same shape; fitted with (axes of X, features, "
                f"parameters) = {old}, got {new}. {hint}"
            )
        wanted = self._specify(data, self._maps)
        changed = [k for k, v in self._spec.items() if k != "module" and v != wanted[k]]
        changed += ["missing"] if (self.missing == "mask") != self._maps.X.mask else []
        if changed:
            raise ValueError(f"warm_start continues the same network: {changed} changed. {hint}")
        outside = np.isneginf(self._maps.theta.forward(data.theta)[1])
        if outside.any():
            raise ValueError(
                f"{outside.sum()} rows of theta, first row {outside.argmax()}, lie outside the "
                f"prior of the fit that warm_start continues. {hint}"
            )

    def _check_observations(self, X: Any, n_axes: int | None = None) -> tuple[Packed, bool]:
        """Pack X as `fit` saw it (or by axes); also whether it was a single observation."""
        check_is_fitted(self, "members_")
        X, single = as_batch(X, self._n_axes_in if n_axes is None else n_axes)
        _check_feature_names(self, X, reset=False)
        _check_n_features(self, np.empty((1, width_of(X))), reset=False)
        missing = "mask" if self._maps.X.mask else "error"
        return self._pack(X, self._transformer, missing), single

    def _check_theta(self, theta: ArrayLike) -> NDArray[np.float64]:
        check_is_fitted(self, "members_")
        table, names = as_table(theta, "theta")
        check_names(names, self.parameter_names_in_)
        if table.shape[1] != self.n_parameters_in_:
            raise ValueError(
                f"theta must have {self.n_parameters_in_} columns "
                f"{self.parameter_names_in_.tolist()}; got {table.shape[1]}."
            )
        _check_theta_finite(table)
        return table

    def _double(self) -> list[nn.Module]:
        """Copy the members in double precision, for densities."""
        return [copy.deepcopy(member).double() for member in self._counting]

    @property
    def _counting(self) -> list[Member]:
        """The members that draws and densities are made of: those of a hundredth or more."""
        log_weights = torch.stack([member.log_weight for member in self.members_])
        shares = log_weights.softmax(dim=0).tolist()
        return [m for m, share in zip(self.members_, shares, strict=True) if share >= _COUNTS]

    @torch.no_grad()
    def _draw(
        self, contexts: list[Tensor], shape: tuple[int, ...], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Draw (n, draws, k) from the flows.

        In an ensemble each draw is from a member at random, the same for all n, so that contexts
        need not be repeated.
        """
        device, members = contexts[0].device, self._counting
        u = torch.as_tensor(rng.standard_normal(shape, dtype=np.float32), device=device)
        if len(contexts) == 1:
            z, _ = members[0].flow.inverse(u, contexts[0])
        else:
            weights = torch.stack([member.log_weight for member in members])
            p = weights.double().softmax(dim=0).cpu().numpy()
            chosen = torch.as_tensor(rng.choice(len(p), size=shape[1], p=p), device=device)
            z = torch.empty_like(u)
            for i, (member, context) in enumerate(zip(members, contexts, strict=True)):
                mine = torch.nonzero(chosen == i)[:, 0]
                z[:, mine], _ = member.flow.inverse(u[:, mine], context)
        return z.double().cpu().numpy()

    def __getstate__(self) -> dict[str, Any]:
        state = {**super().__getstate__(), "_skbi_version": _VERSION}
        if "members_" in state:
            state["members_"] = [
                {name: w.cpu().numpy() for name, w in member.state_dict().items()}
                for member in self.members_
            ]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        written = state.pop("_skbi_version", "an older version")
        if written.split(".")[:2] != _VERSION.split(".")[:2]:
            warnings.warn(
                f"This estimator was written by skbi {written} and is opened by {_VERSION}: its "
                "densities may differ. Compare score(theta, X), or fit again.",
                stacklevel=2,
            )
        super().__setstate__(state)
        if "members_" in state:
            self.members_ = [self._restore(arrays) for arrays in state["members_"]]

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> nn.Module:
        with seeded(np.random.default_rng(0)):
            member = self._build(self._spec)
        state = {n: torch.as_tensor(a.copy(), device="cpu") for n, a in arrays.items()}
        member.load_state_dict(state)
        return member.eval()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.two_d_labels = tags.target_tags.multi_output = True
        tags.target_tags.single_output = False
        tags.input_tags.three_d_array = True
        return tags


@contextmanager
def trusted() -> Iterator[None]:
    """Work on data that are known to come from the simulator: no warnings of strange ones."""
    before = is_trusted()
    _HERE.trusted = True
    try:
        yield
    finally:
        _HERE.trusted = before


def is_trusted() -> bool:
    """Whether this thread works on data that are known to come from the simulator."""
    return getattr(_HERE, "trusted", False)


_HERE = threading.local()


def leader(members: Sequence[Member]) -> Member:
    """Return the member with the largest weight in the mixture."""
    return max(members, key=lambda member: float(member.log_weight))


def mixture_density(members: list[Member], z: Tensor, contexts: list[Tensor]) -> Tensor:
    """Log density of z (..., k) under the weighted mixture of all members."""
    log_q = [
        member.log_weight + member.flow.log_prob(z, context)
        for member, context in zip(members, contexts, strict=True)
    ]
    total = torch.logsumexp(torch.stack([member.log_weight for member in members]), dim=0)
    return torch.logsumexp(torch.stack(log_q), dim=0) - total


def regress(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Ridge regression of y (n, k) on x (n, c): slopes (c, k), intercept (k,), and a matrix.

    The matrix, upper triangular, makes errors at new x uncorrelated with variance one. They are
    larger than residuals, most of all where n is not much larger than c: those at x left out of
    the fit, residual / (1 - leverage), tell.
    """
    ridge = RidgeCV(alphas=np.logspace(-3, 5, 9)).fit(x, y)
    slopes, intercept = ridge.coef_.reshape(y.shape[1], -1).T, np.reshape(ridge.intercept_, -1)
    u, s, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    leverage = 1 / len(x) + u**2 @ (s**2 / (s**2 + ridge.alpha_))
    errors = (y - x @ slopes - intercept) / (1 - leverage)[:, None]
    covariance = LedoitWolf(assume_centered=True).fit(errors).covariance_
    covariance += _NARROWEST**2 * np.eye(y.shape[1])
    return slopes, intercept, np.linalg.inv(np.linalg.cholesky(covariance)).T


@torch.no_grad()
def _weigh(
    members: list[Member],
    losses: Callable[[Tensor, float], Tensor],
    rows: Tensor,
    weight: Tensor,
) -> float:
    """Set the mixture's weights by these rows' likelihood, with one pseudo-row for every member.

    Returns the rows' mean log density under the mixture.
    """
    log_q = -torch.cat([losses(part, 1.0) for part in rows.split(_ROWS)], dim=1).double()
    log_weights = torch.zeros_like(log_q[:, :1])
    for _ in range(_EM_STEPS):
        shares = torch.softmax(log_q + log_weights, dim=0) * weight[rows]
        log_weights = (shares.sum(dim=1, keepdim=True) + 1).log()
    for member, log_weight in zip(members, log_weights, strict=True):
        member.log_weight.copy_(log_weight[0] - math.log(len(rows) + len(members)))
    mixed = torch.logsumexp(log_q + log_weights, dim=0) - torch.logsumexp(log_weights, dim=0)
    return float((weight[rows] * mixed).mean())


def blocks(n: int, size: int) -> Iterator[slice]:
    """Cut n rows into blocks of at most ``size``."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def check_names(names: NDArray[Any] | None, fitted: Sequence[str]) -> None:
    """Refuse columns of other names than in `fit`, or in another order, if they had names there."""
    unnamed = list(fitted) == _default_names(len(fitted))
    if names is not None and list(names) != list(fitted) and not unnamed:
        raise ValueError(
            f"theta's columns must be those of fit, {list(fitted)}; got {list(names)}."
        )


def _default_names(p: int) -> list[str]:
    """Names for parameters that have none."""
    return [f"theta_{j}" for j in range(p)]


def check_lengths(n_theta: int, n_X: int) -> None:
    """Refuse pairs that are none."""
    if n_theta != n_X:
        raise ValueError(
            f"theta and X must hold the same number of pairs; got {n_theta} and {n_X}. It is "
            "fit(theta, X)."
        )


def check_n_samples(n_samples: Any) -> None:
    """Refuse anything but a positive integer."""
    if isinstance(n_samples, bool) or not isinstance(n_samples, Integral) or n_samples < 1:
        raise ValueError(f"n_samples must be a positive integer; got {n_samples!r}.")


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
