"""Pairs made by a learnt likelihood, from which a posterior learns what few simulations tell.

Where posteriors have several modes or follow thin ridges, p(x | theta) is easier to learn than
p(theta | x). A likelihood learnt from the training pairs makes as many more as are wanted:

    theta ~ p(theta),    x ~ q(x | theta).

Whether they help is decided by the validation pairs, which the likelihood has not seen.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils._param_validation import Interval, StrOptions

from skbi.estimators.base import BaseSBIEstimator
from skbi.estimators.checks import features_without_density
from skbi.estimators.nle import NLEEstimator
from skbi.estimators.pairs import SMALL_BATCHES, TrainingData, plan_training
from skbi.estimators.summaries import order_of
from skbi.preprocessing.maps import Maps
from skbi.preprocessing.packed import Packed
from skbi.training.ensemble import Member
from skbi.training.loop import History, TrainingPlan

__all__ = ["LearnsFromMadePairs"]

_EPOCHS = 0.5  # on made pairs, over those before
_READINGS = 10.0  # of every pair, in all of these epochs, shared by the members
_MANY_PAIRS = 5000  # simulated ones, from which on one member does instead of two
_BATCH_FACTOR = 2 * SMALL_BATCHES
_LEARNING_RATE = 6e-3  # if it is "auto": lower than that of networks that know nothing
_AUTO = 50.0  # made pairs for each training pair, of "auto"


class LearnsFromMadePairs(BaseSBIEstimator):
    """Mixin of estimators that train on simulated pairs first, then on made ones as well.

    An estimator has the option ``augment``: pairs made for each training pair, or "auto".
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "augment": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
    }

    def _train(
        self,
        architecture: dict[str, Any],
        data: TrainingData,
        maps: Maps,
        rng: np.random.Generator,
    ) -> tuple[list[Member], History, float | None]:
        """Train on simulated pairs, then on made ones too, and keep what validates better."""
        members, history, score = super()._train(architecture, data, maps, rng)
        n_made = round(self._n_made_per_pair(data, maps) * len(data.training))
        if not n_made or history.interrupted:
            return members, history, score
        made = self._with_made_pairs(data, n_made, rng)
        leaders = sorted(members, key=lambda member: -float(member.log_weight))
        n_going_on = 1 if len(data.theta) >= _MANY_PAIRS else 2
        made = replace(made, fitted=tuple(leaders[:n_going_on]))
        others, further, other_score = super()._train(architecture, made, maps, rng)
        if further.has_improved and other_score > score:
            return others, history.followed_by(further), other_score
        warnings.warn(
            "Pairs made by a likelihood did not help: validation pairs, whose mean log probability "
            f"is {score:.3f}, are no more probable with them. They are not used; augment=0 takes "
            "less time.",
            stacklevel=3,
        )
        return members, history, score

    def _n_made_per_pair(self, data: TrainingData, maps: Maps) -> float:
        if self.augment != "auto":
            return self.augment
        reasons = self._reasons_against(data, maps)
        if not reasons:
            return _AUTO
        warnings.warn(f"augment='auto' makes no pairs: it needs {reasons[0]}.", stacklevel=4)
        return 0

    def _with_made_pairs(
        self, data: TrainingData, n_made: int, rng: np.random.Generator
    ) -> TrainingData:
        """Return the data with more training pairs; features that are whole numbers stay whole."""
        theta, X, weights = (a[data.training] for a in (data.theta, data.X.points, data.weights))
        whole = _whole(X)
        likelihood = NLEEstimator(
            prior=self.prior,
            dequantize=whole.astype(float),
            max_iter=self.max_iter,
            random_state=rng,
            verbose=self.verbose,
            device=self.device,
        ).fit(theta, X, weights)
        if self.prior is None:
            made = theta[rng.choice(len(theta), n_made, p=weights / weights.sum())]
        else:
            made = self.prior.sample(n_made, random_state=rng)
        points = likelihood.sample_likelihood(made, random_state=rng)[:, 0]
        points[:, whole] = np.round(points[:, whole])
        new = len(data.theta) + np.arange(n_made)
        return replace(
            data,
            theta=np.concatenate([data.theta, made]),
            X=Packed(np.concatenate([data.X.points, points])),
            weights=np.concatenate([data.weights, np.ones(n_made)]),
            training=np.concatenate([data.training, new]),
            owners=np.concatenate([data.owners, new]),
            n_made=n_made,
        )

    def _plan_on_made_pairs(self, data: TrainingData, **options: Any) -> TrainingPlan:
        options |= {"batch_factor": _BATCH_FACTOR, "learning_rate": _LEARNING_RATE}
        plan = plan_training(self, data, n_members=len(data.fitted), **options)
        epochs = math.ceil(_EPOCHS * plan.max_iter)
        share = min(1.0, _READINGS / len(data.fitted) / epochs)
        return replace(plan, max_iter=epochs, n_iter_no_change=epochs, epoch_share=share)

    def _check_pairs(
        self, theta: ArrayLike, X: Any, sample_weight: ArrayLike | None, rng: np.random.Generator
    ) -> TrainingData:
        data = super()._check_pairs(theta, X, sample_weight, rng)
        if self.augment not in (0, "auto") and (reasons := self._reasons_against(data)):
            raise ValueError(
                f"augment={self.augment} needs {reasons[0]}. Set augment=0, or augment='auto', "
                "which makes pairs where it can."
            )
        return data

    def _reasons_against(self, data: TrainingData, maps: Maps | None = None) -> list[str]:
        """Return what is needed for pairs to be made, and for "auto" to make them."""
        reasons = []
        if data.X.sizes is not None:
            reasons.append("vectors, as its likelihood is of single points; got sets")
        if order_of(data.transformer) is not None:
            reasons.append("vectors, as its likelihood is of single points; got series or images")
        if self._missing_option() == "mask":
            reasons.append("missing='error', as its likelihood describes whole vectors")
        if data.validation is None:
            reasons.append("early_stopping=True, as validation pairs decide whether they help")
        if maps is not None and maps.compression is not None:
            reasons.append("vectors of less than 16 features")
        if not reasons and len(odd := _without_density(data.X.points[data.training])):
            reasons.append(
                "features that have a density, which its likelihood describes; columns "
                f"{odd.tolist()} of X are constant or repeat each other"
            )
        return reasons


def _whole(X: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Say which features are whole numbers."""
    return (np.round(X) == X).all(axis=0)


def _without_density(X: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the features that are constant or repeat others, those of whole numbers left out."""
    columns = np.flatnonzero(~_whole(X))
    return columns[np.concatenate(features_without_density(X[:, columns]))]
