"""Simulations that fail: P(success | theta), learnt beside the density of those that succeed.

The likelihood is p(x, success | theta) = q(x | theta) P(success | theta). A row of the objective is
a point, whose loss is minus the logarithm of that, or a failure, with loss -log P(failure | theta).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _check_sample_weight
from torch import Tensor
from torch.nn.functional import logsigmoid

from skbi.estimators.checks import check_finite_theta, check_lengths, check_theta_under_prior
from skbi.estimators.pairs import TrainingData, split_pairs
from skbi.estimators.sampled import extend_range
from skbi.preprocessing.maps import Maps
from skbi.preprocessing.packed import as_table, to_tensor
from skbi.training.ensemble import Ensemble, JointTraining
from skbi.training.loop import History, Objective

__all__ = ["Failures", "LearnsFailures", "failed_rows", "with_failures"]


@dataclass(frozen=True)
class Failures:
    """Parameters whose simulations have failed.

    Attributes
    ----------
    theta : ndarray, shape (m, p)
    weights : ndarray, shape (m,)
        How much each counts beside a point.
    training, validation : ndarray of int
        As in `TrainingData`.
    """

    theta: NDArray[np.float64]
    weights: NDArray[np.float64]
    training: NDArray[np.int64]
    validation: NDArray[np.int64] | None

    @classmethod
    def split(
        cls,
        theta: NDArray[np.float64],
        weights: NDArray[np.float64],
        validation_fraction: float | None,
        rng: np.random.Generator,
    ) -> Self:
        """Draw those that train and those that validate."""
        if len(theta) < 2:
            return cls(theta, weights, np.arange(len(theta)), None)
        return cls(theta, weights, *split_pairs(len(theta), validation_fraction, rng))

    def rows(
        self, points: Tensor, validation: Tensor | None, n_points: int
    ) -> tuple[Tensor, Tensor | None]:
        """Add the rows of failures, numbered after all points, to the rows of points."""

        def join(rows: Tensor, more: NDArray[np.int64]) -> Tensor:
            return torch.cat([rows, torch.as_tensor(n_points + more, device=rows.device)])

        if validation is not None and self.validation is not None:
            validation = join(validation, self.validation)
        return join(points, self.training), validation


def failed_rows(X: Any) -> NDArray[np.bool_]:
    """Tell which rows of X (n, d) are all NaN, and refuse other arrays."""
    values = np.asarray(X, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(
            "failures='learn' reads X as single points, of shape (n, d), a row of NaN for a "
            f"simulation that failed; got {values.ndim} axes. Drop failed sets with a weight "
            "of their own, or use NPE."
        )
    return np.isnan(values).all(axis=1)


def with_failures(
    objective: Objective, training: JointTraining, data: TrainingData, maps: Maps
) -> Objective:
    """Return an objective whose rows, after those of all points, are failures, if there are any."""
    if data.failures is None:
        return objective
    like, n_points = training.weights.values, len(data.owners)
    z = to_tensor(maps.theta.forward(data.failures.theta)[0], like)
    weights = to_tensor(data.failures.weights, like)

    def joint(rows: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
        failed = rows >= n_points
        losses, row_weights = objective(rows[~failed], fraction)
        which = rows[failed] - n_points
        logits = training.each(lambda member: member.success(z[which])[:, 0])
        losses = torch.cat([losses, -logsigmoid(-logits)], dim=1)
        return losses, torch.cat([row_weights, weights[which]])

    return joint


class LearnsFailures:
    """Mixin of estimators of a likelihood, with the option ``failures``.

    Their members have ``success(z)``, the logit of the probability of success.
    """

    @torch.no_grad()
    def _log_prob_of_failures(
        self,
        theta: NDArray[np.float64],
        X: Any,
        failed: NDArray[np.bool_],
        shape: tuple[int, ...],
    ) -> NDArray[np.float64]:
        """Log likelihood of rows of X some of which are failures, as `log_prob` answers."""
        theta = np.repeat(theta, len(failed) if len(theta) == 1 else 1, axis=0)
        rows = np.arange(len(failed))
        if len(shape) == 2:
            rows = np.repeat(rows, shape[1] if len(rows) > 1 else len(theta))
        elif len(rows) == 1:
            rows = np.repeat(rows, len(theta))
        check_lengths(len(theta), len(rows))
        X, failed = _safe_indexing(X, rows), failed[rows]
        z, log_det = self._maps.theta.forward(theta)
        ensemble = Ensemble(self.members_).active().double()
        logits = [m.success(to_tensor(z, ensemble.like))[:, 0] for m in ensemble.members]
        values = ensemble.mix([logsigmoid(-logit) for logit in logits]).cpu().numpy()
        if not failed.all():
            values[~failed] = self.log_prob(theta[~failed], _safe_indexing(X, ~failed))
        values = np.where(np.isfinite(log_det), values, -np.inf)
        return values.reshape(shape) if len(shape) == 2 else values

    def _rows(self, data: TrainingData) -> tuple[Tensor, Tensor | None]:
        rows = super()._rows(data)
        return rows if data.failures is None else data.failures.rows(*rows, len(data.owners))

    def _describe(
        self, X: Any, data: TrainingData, history: History, best_score: float | None
    ) -> None:
        super()._describe(X, data, history, best_score)
        if data.failures is not None:
            self._theta_range = extend_range(data.failures.theta, self._theta_range)

    def _check_pairs(
        self, theta: ArrayLike, X: Any, sample_weight: ArrayLike | None, rng: np.random.Generator
    ) -> TrainingData:
        """Check pairs, and set those apart whose simulations have failed."""
        if self.failures == "error" or not (failed := failed_rows(X)).any():
            return super()._check_pairs(theta, X, sample_weight, rng)
        table, _ = as_table(theta, "theta")
        check_lengths(len(table), len(failed))
        check_finite_theta(table)
        if self.prior is not None:
            check_theta_under_prior(self.prior, table, None)
        weights = _check_sample_weight(sample_weight, table, ensure_non_negative=True)
        parts = (_safe_indexing(a, ~failed) for a in (theta, X, weights))
        data = super()._check_pairs(*parts, rng)
        fraction = self.validation_fraction if self.early_stopping else None
        relative = weights[failed] / weights[~failed].mean()
        return replace(data, failures=Failures.split(table[failed], relative, fraction, rng))
