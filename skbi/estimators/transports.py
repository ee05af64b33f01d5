"""What FMPE and CMPE share: members, where they start, how they are trained, and draws.

Both move noise to the residuals of a linear regression (`skbi.estimators.residuals`).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skbi.estimators.amortised import AmortisedPosterior, draw_in_parts
from skbi.estimators.checks import check_n_samples
from skbi.estimators.pairs import SMALL_BATCHES, TrainingData, plan_training
from skbi.estimators.residuals import TransportMember
from skbi.estimators.summaries import (
    SET_SLOWDOWN,
    build_summary,
    embed_observations,
    n_regressed,
    read_linearly,
    reader,
    regress_on_moments,
    set_fractions,
    specify_summary,
)
from skbi.networks.vector_fields import VectorField
from skbi.parallel import one_thread
from skbi.preprocessing.compression import MAX_FEATURES
from skbi.preprocessing.maps import Maps
from skbi.preprocessing.packed import to_tensor
from skbi.randomness import RandomState, as_generator
from skbi.training.ensemble import Ensemble
from skbi.training.loop import History, TrainingPlan
from skbi.training.start import MAX_START_ROWS, MIN_START_ROWS, regress

__all__ = ["TransportEstimator"]

_N_CALIBRATED = 1000  # validation pairs that the scale of noise is judged by
_MAX_SQUARE = 25.0  # that a residual counts at most
_MAX_EMULATED = 20  # parameters up to which vectors of up to 128 features are compressed


class TransportEstimator(AmortisedPosterior):
    """Base of FMPE and CMPE: members, their start, and the plan to train them."""

    _learning_rate: ClassVar[float]

    @abstractmethod
    def _move(
        self,
        ensemble: Ensemble,
        contexts: Sequence[Tensor],
        noise: Tensor,
        rng: np.random.Generator,
    ) -> Tensor:
        """Move noise (n, draws, p) to residuals, given a context (n, 1, c) of each member."""

    @abstractmethod
    def _squares(self, ensemble: Ensemble, contexts: Sequence[Tensor], w: Tensor) -> Tensor:
        """Return squares (n, p), of mean 1 if residuals w are as far out as draws are."""

    @abstractmethod
    def _choose_n_steps(self, data: TrainingData) -> int:
        """Return how many steps a draw takes."""

    def sample_posterior(
        self,
        X_obs: Any,
        n_samples: int = 1000,
        *,
        check_typicality: bool = True,
        random_state: RandomState = None,
    ) -> NDArray[np.float64]:
        """Draw from the posterior of each observation.

        Parameters
        ----------
        X_obs : array-like
            A batch, with as many axes as X in `fit` (a list is a batch), or one observation, an
            array with one axis fewer.
        n_samples : int, default=1000
            Draws for each observation.
        check_typicality : bool, default=True
            Whether to warn of observations that are unlike the training simulations. Calibration,
            whose observations are simulations, does without.
        random_state : int, Generator, RandomState or None, default=None
            None uses the estimator's own.

        Returns
        -------
        ndarray, shape (n_obs, n_samples, p), or (n_samples, p) for one observation
            Inside the prior's support.

        Warns
        -----
        UserWarning
            If an observation is unlike the training simulations: its `misspecification_score` lies
            below 0.001 (over the number of observations).
        """
        packed, single = self._check_observations(X_obs)
        check_n_samples(n_samples)
        rng = as_generator(self.random_state if random_state is None else random_state)
        ensemble, contexts, _ = self._read(packed, check_typicality=check_typicality)

        @torch.no_grad()
        def fill(
            rows: slice, shape: tuple[int, int, int], rng: np.random.Generator
        ) -> NDArray[np.float64]:
            given = [context[rows].unsqueeze(1) for context in contexts]
            noise = to_tensor(rng.standard_normal(shape, dtype=np.float32), given[0])
            w = self._move(ensemble, given, noise, rng)
            return ensemble.members[0].from_residuals(w, given[0]).double().cpu().numpy()

        draws = draw_in_parts(fill, len(packed), n_samples, self._maps, rng)
        return draws[0] if single else draws

    # ---- fitting

    def _fit_maps(self, data: TrainingData, rng: np.random.Generator) -> Maps:
        """Fit the maps; an emulator does not tell many parameters apart, and is left out then."""
        if data.theta.shape[1] <= _MAX_EMULATED or data.X.points.shape[1] > MAX_FEATURES:
            return super()._fit_maps(data, rng)
        return self._fit_plain_maps(data)

    def _specify(self, data: TrainingData, maps: Maps) -> dict[str, Any]:
        module, width = specify_summary(self.summary, self.n_summary_features, data.X, maps)
        return {
            "n_axes": data.X.n_axes,
            "n_parameters": data.theta.shape[1],
            "n_features": maps.width,
            "n_summary_features": width,
            "module": module,
            "hidden_layer_sizes": tuple(int(h) for h in self.hidden_layer_sizes),
        }

    def _build(self, architecture: dict[str, Any]) -> TransportMember:
        summary, width = build_summary(architecture)
        p, d = architecture["n_parameters"], architecture["n_features"]
        field = VectorField(p, width, architecture["hidden_layer_sizes"])
        return TransportMember(summary, field, width, n_regressed(architecture["n_axes"], d))

    def _plan(self, data: TrainingData, maps: Maps) -> TrainingPlan:
        return plan_training(
            self,
            data,
            shrinkage_range=1.0,
            batch_factor=SMALL_BATCHES,
            learning_rate=self._learning_rate,
            slowdown=1 if data.X.sizes is None else SET_SLOWDOWN,
            set_fractions=set_fractions(self.summary, data.X),
            own_module=isinstance(self.summary, nn.Module),
        )

    def _start(
        self,
        members: list[TransportMember],
        data: TrainingData,
        maps: Maps,
        rng: np.random.Generator,
    ) -> None:
        """Start where theta and x, or the moments of sets, are jointly Gaussian."""
        pairs = data.training[:MAX_START_ROWS]
        if not members or isinstance(self.summary, nn.Module) or len(pairs) < MIN_START_ROWS:
            return
        regression = self._regress(members[0], pairs, data, maps, rng)
        if data.resumed:  # what the others' residuals are of
            old = self.members_[0]
            regression = [a.cpu().numpy() for a in (old.slopes, old.intercept, old.root)]
        for member in members:
            member.start_at(regression)
            if member.summary is not None:
                k = min(len(member.intercept), member.n_summary)
                of_summary = regression[0][:, :k], regression[1][:k]
                member.summary.start_at(*(to_tensor(a, member.log_weight) for a in of_summary))

    def _regress(
        self,
        member: TransportMember,
        pairs: NDArray[np.int64],
        data: TrainingData,
        maps: Maps,
        rng: np.random.Generator,
    ) -> Sequence[NDArray[np.float64]]:
        z, like = maps.theta.forward(data.theta[pairs])[0], member.log_weight
        if member.summary is None:
            batch = maps.batch(data.X.take(pairs), like)
            x = read_linearly(None, batch, len(member.slopes))
            return regress(x.double().cpu().numpy(), z)
        fraction = set_fractions(self.summary, data.X)[0][1]
        read = reader(maps, data.X, pairs, like, fraction, rng)
        return regress_on_moments(member.summary, z, read)

    def _describe(
        self, X: Any, data: TrainingData, history: History, best_score: float | None
    ) -> None:
        super()._describe(X, data, history, best_score)
        with one_thread():
            self.noise_scale_ = 1.0
            self.n_steps_ = self._choose_n_steps(data)
            self.noise_scale_ = self._choose_noise_scale(data)

    @torch.no_grad()
    def _choose_noise_scale(self, data: TrainingData) -> float:
        """Return the noise that makes draws as wide as validation pairs need, 1 or more."""
        if data.validation is None:
            return 1.0
        ensemble, contexts, w, weights = self._read_validation(data)
        squares = self._squares(ensemble, contexts, w).clamp(max=_MAX_SQUARE).mean(dim=1)
        variance, n = float(weights @ squares / weights.sum()), w.numel()
        if variance <= 1:
            return 1.0
        gained = n / 2 * (variance - 1 - math.log(variance))  # nats, by n normal numbers
        return variance**0.5 if gained > math.log(n) / 2 else 1.0  # as BIC chooses

    def _read_validation(
        self, data: TrainingData
    ) -> tuple[Ensemble, Sequence[Tensor], Tensor, Tensor]:
        """Return the ensemble; contexts, residuals and weights of some validation pairs."""
        pairs, ensemble = data.validation[:_N_CALIBRATED], self._active()
        contexts, *_ = embed_observations(data.X.take(pairs), self._maps, ensemble.members)
        z = to_tensor(self._maps.theta.forward(data.theta[pairs])[0], contexts[0])
        w = ensemble.members[0].to_residuals(z, contexts[0])
        return ensemble, contexts, w, to_tensor(data.weights[pairs], w)
