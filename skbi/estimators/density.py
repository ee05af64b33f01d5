"""What NPE and NLE share: members that are normalised densities, by flows; and their score.

log q(y | h) of y = theta given X, or of y = X given theta, is what training maximises and what
`score` and `best_validation_score_` hold, in nats.
"""

from __future__ import annotations

from abc import abstractmethod
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils._param_validation import Interval, StrOptions, validate_parameter_constraints
from sklearn.utils.validation import _check_sample_weight, check_is_fitted
from torch import Tensor

from skbi.estimators.base import BaseSBIEstimator
from skbi.flows import FLOWS, ConditionalFlow, make_flow
from skbi.training.ensemble import Ensemble, JointTraining
from skbi.training.loop import Objective, evaluate

__all__ = ["DensityEstimator", "ScoredByDensity"]

_FLOW_OF_ANY_WIDTH = "spline"


class ScoredByDensity:
    """Mixin of estimators whose score is the mean log density of held-out pairs."""

    @abstractmethod
    def log_prob(self, theta: ArrayLike, X: Any) -> NDArray[np.float64]:
        """Log density of each pair."""

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
        counted = weights > 0
        return float(np.average(log_q[counted], weights=weights[counted]))


class DensityEstimator(ScoredByDensity, BaseSBIEstimator):
    """Base of the estimators that learn a conditional density by flows."""

    _least_gain: ClassVar[float] = 0.0  # nats of all validation rows that a member must add

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseSBIEstimator._parameter_constraints,
        "flow": [str],
        "n_transforms": [Interval(Integral, 1, None, closed="left")],
    }

    @property
    def flow_(self) -> ConditionalFlow:
        """The trained flow; of an ensemble, that of the member with the largest weight."""
        check_is_fitted(self, "members_")
        return Ensemble(self.members_).leader.flow

    def _check_options(self) -> None:
        super()._check_options()
        flows = {"flow": [StrOptions(set(FLOWS))]}
        validate_parameter_constraints(flows, {"flow": self.flow}, type(self).__name__)

    def _member_count(self, training: JointTraining) -> float:
        """Return how many validation rows more each member counts as when members are weighed."""
        return 1.0

    def _weigh(self, training: JointTraining, objective: Objective, validation: Tensor) -> float:
        """Weigh the members, and widen or narrow their densities, by validation rows."""
        if training.flow is None:
            return super()._weigh(training, objective, validation)

        def log_prob() -> tuple[Tensor, Tensor]:
            losses, row_weights = evaluate(objective, validation)
            return -losses, row_weights

        return training.weigh(log_prob, self._member_count(training), self._least_gain)

    def _specify_flow(self, n_features: int) -> dict[str, Any]:
        """Return a flow's architecture; affine maps of a single variable give way to splines."""
        return {
            "flow": self.flow if self._can_describe(n_features) else _FLOW_OF_ANY_WIDTH,
            "n_transforms": self.n_transforms,
            "hidden_layer_sizes": tuple(int(h) for h in self.hidden_layer_sizes),
        }

    def _build_flow(
        self, architecture: dict[str, Any], n_features: int, n_context: int
    ) -> ConditionalFlow:
        options = {name: architecture[name] for name in ("n_transforms", "hidden_layer_sizes")}
        return make_flow(architecture["flow"], n_features, n_context, **options)

    def _advise_on_flow(self, n_features: int) -> list[str]:
        """Say so if another kind of flow is used than asked for."""
        if self._can_describe(n_features):
            return []
        return [
            f"flow={self.flow!r} needs at least {FLOWS[self.flow].min_features} variables and has "
            f"{n_features}: a stack of its layers would only be a Gaussian. A spline flow is used; "
            f"set flow={_FLOW_OF_ANY_WIDTH!r} to say so."
        ]

    def _can_describe(self, n_features: int) -> bool:
        return n_features >= FLOWS[self.flow].min_features
