"""What all estimators share: checked pairs, a fitted ensemble, typicality, pickling and tags.

An estimator says what its members are (`_specify`, `_build`), how they are trained (`_plan`,
`_objective`) and how its users' units become the networks' (`_fit_maps`).
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from contextlib import nullcontext
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import (
    _check_feature_names,
    _check_sample_weight,
    _get_feature_names,
    _num_samples,
    check_is_fitted,
)

from skbi.estimators.checks import (
    check_columns,
    check_device,
    check_finite_theta,
    check_hidden_layer_sizes,
    check_lengths,
    check_theta_under_prior,
    check_width,
    default_names,
)
from skbi.estimators.misuse import signs_of_misuse
from skbi.estimators.ordered import ORDERS
from skbi.estimators.pairs import TrainingData, plan_training, split_pairs
from skbi.estimators.summaries import fit_transformer, order_of, pack_through
from skbi.estimators.typicality import MAX_REFERENCES, Typicality
from skbi.parallel import one_blas_thread, one_thread, progress_options
from skbi.preprocessing.maps import Maps
from skbi.preprocessing.packed import Packed, as_batch, as_table, axes_of, width_of
from skbi.randomness import as_generator, seeded
from skbi.training.ensemble import Ensemble, JointTraining, Member
from skbi.training.loop import History, Objective, TrainingPlan, evaluate, train

__all__ = ["BaseSBIEstimator"]


class BaseSBIEstimator(BaseEstimator, ABC):
    """Base of the estimators that learn from pairs (theta, X)."""

    __metadata_request__fit: ClassVar = {"theta": UNUSED}
    __metadata_request__score: ClassVar = {"theta": UNUSED}

    _parameter_constraints: ClassVar[dict[str, Any]] = {
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
        "verbose": ["verbose", StrOptions({"auto"})],
        "device": [str],
    }

    loss_name: ClassVar[str] = "loss"  # what `loss_curve_` holds, for pictures
    _resumes_on_constant_parameters: ClassVar[bool] = False
    _learns_discrete: ClassVar[bool] = False  # posteriors of discrete parameters, by their masses

    # ---- what an estimator says of itself

    @abstractmethod
    def _fit_maps(self, data: TrainingData, rng: np.random.Generator) -> Maps:
        """Fit the maps between the user's units and the networks'."""

    @abstractmethod
    def _specify(self, data: TrainingData, maps: Maps) -> dict[str, Any]:
        """Return the architecture, all that `_build` needs, as plain values for pickles."""

    @abstractmethod
    def _build(self, architecture: dict[str, Any]) -> Member:
        """Build an untrained member."""

    @abstractmethod
    def _objective(
        self, training: JointTraining, data: TrainingData, maps: Maps, rng: np.random.Generator
    ) -> Objective:
        """Return what is minimised."""

    def _plan(self, data: TrainingData, maps: Maps) -> TrainingPlan:
        """Say how to train: see `plan_training`."""
        return plan_training(self, data)

    def _start(
        self, members: list[Member], data: TrainingData, maps: Maps, rng: np.random.Generator
    ) -> None:
        """Set new members to where training starts, if not at the weights they are built with."""

    def _weigh(
        self, training: JointTraining, objective: Objective, validation: torch.Tensor
    ) -> float:
        """Weigh the members by validation rows; return the mixture's score."""
        losses, row_weights = evaluate(objective, validation)
        return Ensemble(training.members).weigh(-losses, row_weights)

    def _advise(self, data: TrainingData) -> list[str]:
        """Return warnings of what a fit to these data cannot do well."""
        return []

    def _summarise(self, member: Any, maps: Maps, X: Packed) -> NDArray[np.float64]:
        """Return what the typicality of observations is judged by, (n, k): the scaled points."""
        return maps.X.forward(X.points)

    def _owners(self, X: Packed) -> NDArray[np.int64]:
        """Return the pair that each row of the objective belongs to."""
        return np.arange(len(X))

    # ---- fitting

    def fit(self, theta: ArrayLike, X: Any, sample_weight: ArrayLike | None = None) -> Self:
        """Learn from simulated pairs.

        Parameters
        ----------
        theta : array-like or DataFrame, shape (n, p)
            Parameters, one row a pair.
        X : array-like, shape (n, d) or (n, S, d), or a sequence of n arrays (S_i, d)
            What the simulator made of them: vectors, sets, or ragged sets. Rows of a set that are
            all NaN mean "no point here". Of series and images, see ``summary``.
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

        Warns
        -----
        UserWarning
            Of what a fit to these data cannot do well.
        ConvergenceWarning
            If training was interrupted, or if its loss ended above that of its first epoch.
        """
        self._check_options()
        rng = as_generator(self.random_state)
        data = self._check_pairs(theta, X, sample_weight, rng)
        if data.resumed:
            self._check_resumable(data)
            maps, architecture = self._maps, self._architecture
        else:
            with one_blas_thread():
                maps = self._fit_maps(data, rng)
            architecture = self._specify(data, maps)
        advice = [*data.advice, *self._advise(data), *signs_of_misuse(data, self.prior)]
        for message in advice:
            warnings.warn(message, stacklevel=2)
        with one_blas_thread():
            members, history, best_score = self._train(architecture, data, maps, rng)
            typicality = self._fit_typicality(Ensemble(members).leader, maps, data)
        self._maps, self._architecture, self.members_ = maps, architecture, members
        self._typicality, self._transformer = typicality, data.transformer
        self._describe(X, data, history, best_score)
        if history.has_diverged:
            warnings.warn(
                f"The training loss rose from {history.loss_curve[0]:.4g} in the first epoch to "
                f"{history.loss_curve[-1]:.4g} in the last: steps were too long. The best weights "
                "are kept; a smaller learning_rate_init should give better ones.",
                ConvergenceWarning,
                stacklevel=2,
            )
        if history.interrupted:
            warnings.warn(
                f"Training was interrupted after {history.n_iter} epochs; the best weights so far "
                "are kept. Fit with warm_start=True to continue.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def _train(
        self,
        architecture: dict[str, Any],
        data: TrainingData,
        maps: Maps,
        rng: np.random.Generator,
    ) -> tuple[list[Member], History, float | None]:
        """Train members together and weigh them; also return the mixture's validation score."""
        plan = self._plan(data, maps)
        members = self._make_members(architecture, plan, data, maps, rng)
        training = JointTraining(members)
        with seeded(rng) if plan.own_module else nullcontext():
            objective = self._objective(training, data, maps, rng)
            rows, validation = self._rows(data)
            with one_thread():  # networks that gain from several are computed side by side
                history = train(
                    training,
                    training.weights,
                    objective,
                    rows,
                    validation,
                    plan,
                    rng,
                    progress={"desc": type(self).__name__, **progress_options(self.verbose)},
                )
                best_score = None
                if validation is not None:
                    best_score = self._weigh(training, objective, validation)
        training.release()
        return members, history, best_score

    def _make_members(
        self,
        architecture: dict[str, Any],
        plan: TrainingPlan,
        data: TrainingData,
        maps: Maps,
        rng: np.random.Generator,
    ) -> list[Member]:
        """Build members: with the weights of fitted ones, if training goes on, or at a start."""
        fitted = data.fitted[: plan.n_members]
        members = []
        for _ in range(plan.n_members):
            with seeded(rng):
                members.append(self._build(architecture).to(self.device))
        for member, old in zip(members, fitted, strict=False):
            member.load_state_dict(old.state_dict())
            member.reset()
        self._start(members[len(fitted) :], data, maps, rng)
        return members

    def _rows(self, data: TrainingData) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the training rows and the validation rows as tensors."""
        rows = torch.as_tensor(data.rows_of(data.training), device=self.device)
        if data.validation is None:
            return rows, None
        return rows, torch.as_tensor(data.rows_of(data.validation), device=self.device)

    def _describe(
        self, X: Any, data: TrainingData, history: History, best_score: float | None
    ) -> None:
        """Set the public fitted attributes."""
        order = order_of(data.transformer)
        _check_feature_names(self, X if order is None else None, reset=True)
        self.n_features_in_, self._n_axes_in = width_of(X, order), axes_of(X)
        self.n_parameters_in_ = data.theta.shape[1]
        self.parameter_names_in_ = data.parameter_names
        self.n_iter_ = history.n_iter
        self.loss_curve_ = (self.loss_curve_ if data.resumed else []) + history.loss_curve
        scores = (self.validation_scores_ or [] if data.resumed else []) + history.validation_scores
        self.validation_scores_ = scores if self.early_stopping else None
        self.best_validation_score_ = best_score

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
            device = check_device(params["device"])
            for member in self.members_:
                member.to(device)
        return super().set_params(**params)

    # ---- typicality

    def _fit_typicality(self, member: Member, maps: Maps, data: TrainingData) -> Typicality:
        """Remember what simulations look like; a tenth stands in for missing validation pairs."""
        training, validation = data.training, data.validation
        if validation is None:
            validation, training = np.split(training, [math.ceil(len(training) / 10)])
        parts = (data.X.take(pairs[:MAX_REFERENCES]) for pairs in (training, validation))
        return Typicality.fit(*(self._summarise(member, maps, part) for part in parts))

    def typicality(self, X_obs: Any) -> Any:
        """Return p-values of observations being like the simulations.

        See `misspecification_score` for what they mean.

        Parameters
        ----------
        X_obs : array-like
            Observations, as in ``sample_posterior``.

        Returns
        -------
        ndarray, shape (n_obs,), or float for one observation
        """
        packed, single = self._check_observations(X_obs)
        p_values = self._p_values(packed)
        return float(p_values[0]) if single else p_values

    def _p_values(self, X: Packed) -> NDArray[np.float64]:
        """Share of simulations that are further from the training simulations, (n,)."""
        leader = Ensemble(self.members_).leader
        return self._typicality.p_values(self._summarise(leader, self._maps, X))

    # ---- checks

    def _check_options(self) -> None:
        """Refuse options that cannot be used."""
        self._validate_params()
        check_hidden_layer_sizes(self.hidden_layer_sizes)
        check_device(self.device)

    def _check_pairs(
        self, theta: ArrayLike, X: Any, sample_weight: ArrayLike | None, rng: np.random.Generator
    ) -> TrainingData:
        """Refuse pairs that cannot be learnt from; split them for training and validation."""
        resumed = self.warm_start and hasattr(self, "members_")
        table, names = as_table(theta, "theta")
        _get_feature_names(X)  # refuses names that are not all strings
        weights = np.ones(len(table))
        if sample_weight is not None:
            check_lengths(len(table), _num_samples(X))
            weights = _check_sample_weight(
                sample_weight, table, ensure_non_negative=True, copy=True
            )
        if not weights.all():
            counted = np.flatnonzero(weights)
            table, X, weights = (_safe_indexing(a, counted) for a in (table, X, weights))
        training, validation = split_pairs(
            len(table), self.validation_fraction if self.early_stopping else None, rng
        )
        names = self._check_parameters(table, names, resumed)
        if resumed:
            transformer = self._transformer
            packed = pack_through(transformer, X, self._missing_option())
        else:
            transformer, packed = fit_transformer(self, X, table, training, rng)
        check_lengths(len(table), len(packed))
        for pairs in [training] if validation is None else [training, validation]:
            weights[pairs] /= weights[pairs].mean()
        data = TrainingData(
            table, packed, names, weights, training, validation, self._owners(packed), transformer
        )
        data = data if order_of(transformer) else data.without_outliers()
        return replace(data, fitted=tuple(self.members_) if resumed else ())

    def _check_parameters(
        self, theta: NDArray[np.float64], names: NDArray[Any] | None, resumed: bool
    ) -> NDArray[Any]:
        """Refuse training parameters that cannot be learnt; return their names."""
        check_finite_theta(theta)
        if self.prior is not None:
            check_theta_under_prior(self.prior, theta, names)
            names = self.prior.names
        constant = (theta == theta[0]).all(axis=0)
        if self._learns_discrete and self.prior is not None and not constant.all():
            constant &= ~np.asarray(self.prior.discrete)  # simulations may make these certain
        if constant.any() and not (resumed and self._resumes_on_constant_parameters):
            column = int(constant.argmax())
            raise ValueError(f"Column {column} of theta is constant: there is nothing to learn.")
        if names is None:
            names = default_names(theta.shape[1])
        return np.array(names, dtype=object)

    def _missing_option(self) -> str:
        """Return the option ``missing``, of estimators that have it."""
        return getattr(self, "missing", "error")

    def _check_resumable(self, data: TrainingData) -> None:
        """Refuse data and options that would need other networks than those that are fitted."""
        hint = "Set warm_start=False to start afresh."
        new = data.X.n_axes, data.X.points.shape[1], data.theta.shape[1]
        old = self._architecture["n_axes"], self._maps.X.n_features, self.n_parameters_in_
        if new != old:
            raise ValueError(
                "warm_start continues on data of the same shape; fitted with (axes of X, features, "
                f"parameters) = {old}, got {new}. {hint}"
            )
        wanted = self._specify(data, self._maps)
        changed = [k for k, v in self._architecture.items() if k != "module" and v != wanted[k]]
        order, summary = order_of(self._transformer), getattr(self, "summary", None)
        features = self._maps.X if order is None else self._transformer.features
        changed += ["missing"] if (self._missing_option() == "mask") != features.mask else []
        changed += ["summary"] if order != (summary if summary in ORDERS else None) else []
        if changed:
            raise ValueError(f"warm_start continues the same network: {changed} changed. {hint}")
        outside = np.isneginf(self._maps.theta.forward(data.theta)[1])
        if outside.any():
            raise ValueError(
                f"{outside.sum()} rows of theta, first row {outside.argmax()}, lie outside the "
                f"prior (or, without one, the signs) of the fit that warm_start continues. {hint}"
            )

    def _check_observations(self, X: Any, n_axes: int | None = None) -> tuple[Packed, bool]:
        """Pack X as `fit` saw it (or by axes); also whether it was a single observation."""
        check_is_fitted(self, "members_")
        order = order_of(self._transformer)
        X, single = as_batch(X, self._n_axes_in if n_axes is None else n_axes, order)
        _check_feature_names(self, X if order is None else None, reset=False)
        check_width(self, width_of(X, order), self._n_axes_in)
        missing = "mask" if self._maps.X.mask else "error"
        return pack_through(self._transformer, X, missing), single

    def _check_thetas(self, theta: ArrayLike) -> tuple[NDArray[np.float64], tuple[int, ...]]:
        """Return one theta a row, and the shape of what is answered: (n,) or (n_obs, n_samples)."""
        if axes_of(theta) != 3:
            table = self._check_theta(theta)
            return table, (len(table),)
        draws = np.asarray(theta)
        return self._check_theta(draws.reshape(-1, draws.shape[2])), draws.shape[:2]

    def _check_theta(self, theta: ArrayLike) -> NDArray[np.float64]:
        """Return theta as an array, if it could have come from `fit`."""
        check_is_fitted(self, "members_")
        table, names = as_table(theta, "theta", self.n_parameters_in_)
        check_columns(names, self.parameter_names_in_)
        if table.shape[1] != self.n_parameters_in_:
            raise ValueError(
                f"theta must have {self.n_parameters_in_} columns "
                f"{self.parameter_names_in_.tolist()}; got {table.shape[1]}."
            )
        check_finite_theta(table)
        return table

    # ---- pickles and tags

    def __getstate__(self) -> dict[str, Any]:
        state = {**super().__getstate__(), "_skbi_version": _version()}
        if "members_" in state:
            state["members_"] = [
                {name: w.cpu().numpy() for name, w in member.state_dict().items()}
                for member in self.members_
            ]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        written = state.pop("_skbi_version", "an older version")
        if written.split(".")[:2] != _version().split(".")[:2]:
            warnings.warn(
                f"This estimator was written by skbi {written} and is opened by {_version()}: its "
                "densities may differ. Compare score(theta, X), or fit again.",
                stacklevel=2,
            )
        super().__setstate__(state)
        if "members_" in state:
            self.members_ = [self._restore(arrays) for arrays in state["members_"]]

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> Member:
        """Build a member with these weights."""
        with seeded(np.random.default_rng(0)):
            member = self._build(self._architecture)
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


def _version() -> str:
    """Return the version of the package, known once it is imported in full."""
    import skbi

    return skbi.__version__
