"""Training pairs once they are checked, and the plan to train on them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from skbi.preprocessing.packed import Packed, chunks
from skbi.preprocessing.scales import outlier_bounds
from skbi.training.loop import WHOLE_SETS, TrainingPlan

__all__ = ["SMALL_BATCHES", "TrainingData", "plan_training", "split_pairs"]

SMALL_BATCHES = 0.64  # of the square root of the number of rows: 64 rows of 10,000
_ALPHA_PAIRS = 10_000  # number of rows at which a threshold of ``alpha`` standard errors holds
_BATCH_FACTOR = 2.56  # of the square root of the number of rows: 256 rows of 10,000
_MIN_BATCH = 8.0
_LEARNING_RATE = 1e-2


@dataclass(frozen=True)
class TrainingData:
    """Checked training pairs, and which of them train and which validate.

    Attributes
    ----------
    theta : ndarray, shape (n, p)
    X : Packed
        n observations.
    parameter_names : ndarray of str, shape (p,)
    weights : ndarray, shape (n,)
        How much each pair counts, 1 on average.
    training, validation : ndarray of int
        Pairs; ``validation`` is None without early stopping.
    owners : ndarray of int, shape (rows,)
        The pair that each row of the objective belongs to; -1 for a row that is left out.
    transformer : transformer or None
        What X has passed through.
    fitted : tuple of Module
        Members that training goes on from.
    advice : tuple of str
        Warnings of what was found in the data.
    failures : Failures or None
        Simulations that failed, which are no pairs.
    n_made : int
        How many of the last pairs were made by a learnt likelihood.
    """

    theta: NDArray[np.float64]
    X: Packed
    parameter_names: NDArray[Any]
    weights: NDArray[np.float64]
    training: NDArray[np.int64]
    validation: NDArray[np.int64] | None
    owners: NDArray[np.int64]
    transformer: Any = None
    fitted: tuple[Any, ...] = ()
    advice: tuple[str, ...] = ()
    failures: Any = None
    n_made: int = 0

    @property
    def resumed(self) -> bool:
        """Whether training goes on from members."""
        return bool(self.fitted)

    def rows_of(self, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of the objective that belong to some pairs."""
        return np.flatnonzero(np.isin(self.owners, pairs))

    def without_outliers(self) -> Self:
        """Leave out the rows whose point has an outlier, and say which they are.

        A set is no row but for a density of its points: what is odd in it may be what it tells.
        """
        points = self.X.points
        if len(self.owners) != len(points):
            return self
        low, high = outlier_bounds(points)
        outlying = [((x < low) | (x > high)).any(axis=1) for x in chunks(points)]
        rows = np.flatnonzero(np.concatenate(outlying))
        if not len(rows):
            return self
        owners = self.owners.copy()
        owners[rows] = -1
        training, validation = (
            None if pairs is None else pairs[np.isin(pairs, owners)]
            for pairs in (self.training, self.validation)
        )
        if validation is not None and not len(validation):
            raise ValueError(f"All {len(self.validation)} validation pairs are outliers of X.")
        advice = (self._describe_outliers(rows, low, high),)
        return replace(self, owners=owners, training=training, validation=validation, advice=advice)

    def _describe_outliers(
        self, rows: NDArray[np.int64], low: NDArray[np.float64], high: NDArray[np.float64]
    ) -> str:
        """Write which rows are left out, and why."""
        points, what = self.X.points, "row" if self.X.sizes is None else "point"
        first = points[rows[0]]
        column = int(((first < low) | (first > high)).argmax())
        values = points[:, column]
        within = np.nanquantile(values[(values >= low[column]) & (values <= high[column])], [0, 1])
        return (
            f"{len(rows)} of {len(points)} {what}s of X are left out of training, as they hold "
            f"outliers: {what} {rows[0]} has {first[column]:.4g} in column {column}, whose other "
            f"values lie in [{within[0]:.4g}, {within[1]:.4g}]. Mend or drop simulations that have "
            "diverged; a column that can be so large is learnt better as its logarithm."
        )


def split_pairs(
    n: int, validation_fraction: float | None, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Draw the training pairs and, unless the fraction is None, the validation pairs."""
    if n < 2:
        raise ValueError(f"At least 2 training pairs are needed; got n_samples = {n}.")
    order = rng.permutation(n)
    if validation_fraction is None:
        return order, None
    n_validation = math.ceil(validation_fraction * n)
    if n_validation == n:
        raise ValueError(
            f"validation_fraction={validation_fraction} of {n} pairs leaves none to train on: "
            "lower it, simulate more, or set early_stopping=False."
        )
    return order[n_validation:], order[:n_validation]


def plan_training(
    estimator: Any,
    data: TrainingData,
    *,
    n_members: int | None = None,
    shrinkage_range: float = 25.0,
    slowdown: float = 1.0,
    batch_factor: float = _BATCH_FACTOR,
    learning_rate: float = _LEARNING_RATE,
    first_lag: float = 0.0,
    set_fractions: tuple[tuple[float, float], ...] = WHOLE_SETS,
    own_module: bool = False,
) -> TrainingPlan:
    """Turn an estimator's options into a plan for these data.

    Parameters
    ----------
    estimator : BaseSBIEstimator
    data : TrainingData
    n_members : int, optional
        By default ``n_estimators``.
    shrinkage_range : float, default=25
        The shrinkage of the last member over that of the first.
    slowdown : float, default=1
        What learning rate, batch size and shrinkage are divided by, for networks that need it.
    batch_factor : float, default=2.56
        Rows of a minibatch that is not given, over the square root of the number of rows.
    learning_rate : float, default=1e-2
        Of vectors, if it is not given.
    first_lag, set_fractions, own_module
        See `TrainingPlan`.

    Returns
    -------
    TrainingPlan
    """
    n_rows = len(data.rows_of(data.training))
    n_members = estimator.n_estimators if n_members is None else n_members
    size, rate = estimator.batch_size, estimator.learning_rate_init
    if size == "auto":
        size = 2 ** round(math.log2(max(_MIN_BATCH, batch_factor / slowdown * math.sqrt(n_rows))))
    size = min(size, n_rows)
    # alpha in standard errors of a weight's mean gradient, then in sds over minibatches
    threshold = estimator.alpha / slowdown * (_ALPHA_PAIRS / n_rows) ** (1 / 6)
    strongest = threshold * math.sqrt(size / n_rows)
    return TrainingPlan(
        n_members=n_members,
        batch_size=size,
        learning_rate=learning_rate / slowdown if rate == "auto" else rate,
        shrinkage=tuple(strongest * shrinkage_range ** np.linspace(-1, 0, n_members)),
        max_iter=estimator.max_iter,
        n_iter_no_change=estimator.n_iter_no_change,
        tol=estimator.tol,
        first_lag=first_lag,
        set_fractions=WHOLE_SETS if data.resumed else set_fractions,
        own_module=own_module,
    )
