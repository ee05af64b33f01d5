"""The one fit loop: minimise a weighted mean loss by Adam, with a warm-up and a cosine schedule.

min_w  mean_i weight_i loss_i(w), for every member of an ensemble by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from skbi.training.parameters import StackedParameters

__all__ = ["WHOLE_SETS", "History", "Objective", "TrainingPlan", "evaluate", "train"]

Objective = Callable[[Tensor, float], tuple[Tensor, Tensor]]
"""What is minimised. ``objective(rows, fraction)`` reads some training rows, and of sets a random
fraction of each set's points. It returns losses, (members still trained, n), and their weights,
(n,): one loss a row, whose weight is that of the row, or one a contrast of two rows i and j, whose
weight is w_i w_j. A loss is minus a log probability, so that members can be weighed by it."""

WHOLE_SETS = ((1.0, 1.0),)

_WARM_UP = 0.1  # share of the steps over which the learning rate rises
_MAX_GRADIENT_NORM = 1.0
_ADAM_BETAS = 0.9, 0.99
_MAX_VALIDATION_ROWS = 500  # evaluated at a time
_COMPARED_EPOCHS = 0.2  # share of the epochs whose best score tells how good a member is
_MIN_RISE = 0.1  # nats by which the loss has to rise before that is worth a warning,
_MIN_RELATIVE_RISE = 0.02  # and share of the loss in the first epoch
_MIN_EPOCHS = 10  # after which it should not have risen
_MIN_LAG = 0.3  # nats, at least, by which a member lags behind before it is dropped


@dataclass(frozen=True)
class TrainingPlan:
    """How many members to train, how long and how fast.

    Attributes
    ----------
    n_members : int
    batch_size : int
        Rows of a minibatch.
    learning_rate : float
        The highest, at the end of the warm-up.
    shrinkage : float or tuple of float
        How far weights are pulled to zero at a step, in units of the learning rate: one number, or
        one for each member. As Adam divides a mean gradient by its standard deviation over
        minibatches, this is a threshold of significance.
    max_iter, n_iter_no_change : int
        Epochs, and epochs without improvement after which training stops.
    tol : float
        Improvement of the validation score that counts.
    first_lag : float
        How far a member may lag behind the best one when training begins, in nats, beyond what it
        may at the end. Members that see different things learn at different speed.
    set_fractions : tuple of (float, float)
        Pairs (share of the epochs up to which, share of each set's points that is read).
    own_module : bool
        Whether a module of the user's is trained, which may draw from torch's generator.
    epoch_share : float
        Share of the rows that an epoch reads, at random.
    """

    batch_size: int
    learning_rate: float
    shrinkage: float | tuple[float, ...]
    max_iter: int
    n_iter_no_change: int
    tol: float
    n_members: int = 1
    first_lag: float = 0.0
    set_fractions: tuple[tuple[float, float], ...] = WHOLE_SETS
    own_module: bool = False
    epoch_share: float = 1.0

    def set_fraction(self, epoch: int) -> float:
        """Return the share of each set's points that an epoch reads."""
        return next(f for upto, f in self.set_fractions if epoch < upto * self.max_iter)


@dataclass
class History:
    """What a training run reports.

    Attributes
    ----------
    loss_curve : list of float
        Mean training loss of each epoch.
    validation_scores : list of float
        Mean validation score of each epoch, minus the loss; empty without validation rows.
    best_scores : list of float
        The best score of each member, or that of its start.
    has_improved : bool
        Whether a member scores better than where training started; False without validation rows.
    interrupted : bool
        Whether the user stopped training.
    has_diverged : bool
        Whether the loss, after ten epochs or more on whole sets, ended above that of the first one.
    """

    loss_curve: list[float] = field(default_factory=list)
    validation_scores: list[float] = field(default_factory=list)
    best_scores: list[float] = field(default_factory=list)
    has_improved: bool = False
    interrupted: bool = False
    has_diverged: bool = False

    @property
    def n_iter(self) -> int:
        """Epochs run."""
        return len(self.loss_curve)

    def followed_by(self, other: History) -> History:
        """Return the history of both runs; the latter says how they ended."""
        return replace(
            other,
            loss_curve=self.loss_curve + other.loss_curve,
            validation_scores=self.validation_scores + other.validation_scores,
        )


def train(
    module: nn.Module,
    weights: StackedParameters,
    objective: Objective,
    rows: Tensor,
    validation_rows: Tensor | None,
    plan: TrainingPlan,
    rng: np.random.Generator,
    *,
    progress: Mapping[str, Any] | None = None,
) -> History:
    """Train an ensemble in place and leave every member with its own best weights.

    Members do not see each other, but those that fall far behind the best one are dropped from
    training: in the mixture they would hardly count.

    Parameters
    ----------
    module : Module
        The ensemble, which is told when it is trained and when it is evaluated.
    weights : StackedParameters
        Its parameters.
    objective : Objective
    rows : Tensor of int
        The training rows.
    validation_rows : Tensor of int or None
        The rows that choose each member's best weights, those that training starts from included,
        and stop training early; None for neither.
    plan : TrainingPlan
    rng : Generator
        Orders the minibatches.
    progress : mapping, optional
        Options of tqdm for a progress bar with both losses; None shows nothing.

    Returns
    -------
    History

    Raises
    ------
    FloatingPointError
        If the loss is no longer finite.
    """
    run = _Run(module, weights, objective, rows, validation_rows, plan, rng)
    start = run.best_scores.clone()
    options = {"disable": True} if progress is None else progress
    bar = tqdm(range(plan.max_iter), unit="epoch", **options)
    try:
        for epoch in bar:
            run.epoch(epoch)
            bar.set_postfix_str(run.summary(), refresh=False)
            if run.has_converged():
                break
    except KeyboardInterrupt:
        if not run.history.loss_curve:
            raise
        run.history.interrupted = True
    finally:
        bar.close()
        weights.restore_best()
        module.eval()
    history = run.history
    history.best_scores = run.best_scores.tolist()
    history.has_improved = bool((run.best_scores > start).any())
    rise = history.loss_curve[-1] - history.loss_curve[0]
    comparable = plan.set_fraction(0) == 1 and history.n_iter >= _MIN_EPOCHS
    least = max(_MIN_RISE, _MIN_RELATIVE_RISE * abs(history.loss_curve[0]))
    history.has_diverged = comparable and rise > least
    return history


@torch.no_grad()
def evaluate(objective: Objective, rows: Tensor, fraction: float = 1.0) -> tuple[Tensor, Tensor]:
    """Compute losses (members, n) and weights (n,) of many rows, some rows at a time."""
    parts = [objective(some, fraction) for some in rows.split(_MAX_VALIDATION_ROWS)]
    losses, row_weights = zip(*parts, strict=True)
    return torch.cat(losses, dim=-1), torch.cat(row_weights, dim=-1)


class _Run:
    """The state of one training run."""

    def __init__(
        self,
        module: nn.Module,
        weights: StackedParameters,
        objective: Objective,
        rows: Tensor,
        validation_rows: Tensor | None,
        plan: TrainingPlan,
        rng: np.random.Generator,
    ) -> None:
        self.module, self.weights, self.objective = module, weights, objective
        self.rows, self.validation_rows = rows, validation_rows
        self.plan, self.rng = plan, rng
        self.optimizer = torch.optim.Adam([weights.values], betas=_ADAM_BETAS, fused=True)
        shrinkage = torch.tensor(plan.shrinkage, dtype=torch.float32, device=rows.device)
        self.shrinkage = shrinkage.expand(len(weights.values)).unsqueeze(1) * weights.shrunk
        self.history, self.epochs_without_improvement, self.n_steps = History(), 0, 0
        self.best_scores = torch.full((len(weights.values),), -math.inf, device=rows.device)
        self.recent_scores: list[Tensor] = []
        self.n_rows = math.ceil(plan.epoch_share * len(rows))
        self.max_steps = plan.max_iter * math.ceil(self.n_rows / plan.batch_size)
        module.eval()
        if validation_rows is not None:  # where training starts may be the best that there is
            self.best_scores = self._validation_scores(plan.set_fraction(0))

    def epoch(self, epoch: int) -> None:
        """Go once through the training rows, then score the validation rows."""
        fraction = self.plan.set_fraction(epoch)
        previous_fraction = self.plan.set_fraction(max(epoch - 1, 0))
        self.module.train()
        loss = self._learn(fraction)
        self.module.eval()
        if self.validation_rows is None:
            self.weights.keep_best(torch.ones_like(self.best_scores, dtype=torch.bool))
        else:
            scores = self._validation_scores(fraction)
            self._select(scores, comparable=fraction == previous_fraction)
        self.history.loss_curve.append(loss)

    def has_converged(self) -> bool:
        """Whether the score on whole sets has stopped improving."""
        reads_all = self.plan.set_fraction(self.history.n_iter - 1) == 1
        return reads_all and self.epochs_without_improvement >= self.plan.n_iter_no_change

    def summary(self) -> str:
        """Describe the last epoch for the progress bar."""
        text = f"train loss {self.history.loss_curve[-1]:.3f}"
        scores = self.history.validation_scores
        return text + (f", validation loss {-scores[-1]:.3f}" if scores else "")

    def _learn(self, fraction: float) -> float:
        """Take one step for every minibatch; return the weighted mean loss of rows and members."""
        total, n_terms = torch.zeros((), dtype=torch.float32, device=self.rows.device), 0
        order = self.rng.permutation(len(self.rows))[: self.n_rows]
        order = torch.as_tensor(order, device=self.rows.device)
        for batch in self.rows[order].split(self.plan.batch_size):
            losses, row_weights = self.objective(batch, fraction)
            losses = row_weights * losses
            self._step(self.weights.gradient(losses.mean(dim=1).sum()))
            total += losses.detach().sum()
            n_terms += losses.shape[1]
        return _check_finite(float(total) / n_terms / len(losses))

    def _step(self, gradients: Tensor) -> None:
        rate = self.plan.learning_rate * _relative_rate(self.max_steps, self.n_steps)
        self.optimizer.param_groups[0]["lr"] = rate
        self.weights.values.grad = self._clip(gradients)
        self.optimizer.step()
        self._shrink(rate)
        self.n_steps += 1

    def _clip(self, gradients: Tensor) -> Tensor:
        """Limit the norm of every member's gradient."""
        norms = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
        return gradients.mul_((_MAX_GRADIENT_NORM / (norms + 1e-6)).clamp(max=1))

    def _shrink(self, rate: float) -> None:
        """Pull weights towards zero by an equal amount, and no further than zero."""
        most = rate * self.shrinkage
        self.weights.values.sub_(self.weights.values.clamp(-most, most))

    def _validation_scores(self, fraction: float) -> Tensor:
        """Mean score of the validation rows in every member still trained, minus the mean loss."""
        losses, row_weights = evaluate(self.objective, self.validation_rows, fraction)
        return -(row_weights * losses).mean(dim=-1)

    def _select(self, scores: Tensor, *, comparable: bool) -> None:
        """Keep the weights of members that score best; start anew where scores do not compare.

        Scores on different fractions of the sets do not.
        """
        if not comparable:
            self.best_scores.fill_(-math.inf)
            self.recent_scores, self.epochs_without_improvement = [], 0
        best = self.best_scores[self.weights.trained]
        improved = bool((scores > best + self.plan.tol).any())
        self.epochs_without_improvement = 0 if improved else self.epochs_without_improvement + 1
        self.weights.keep_best(scores > best)
        self.best_scores[self.weights.trained] = torch.maximum(scores, best)
        self.history.validation_scores.append(_check_finite(float(scores.mean())))
        self._drop_laggards(scores)

    def _drop_laggards(self, scores: Tensor) -> None:
        """Stop training members whose best recent score is far below that of the best member.

        Far is more than the best member's scores have varied lately, and `_MIN_LAG` at least.
        """
        length = math.ceil(_COMPARED_EPOCHS * self.plan.max_iter)
        self.recent_scores = [*self.recent_scores, scores][-length:]
        if len(self.recent_scores) < length:
            return
        recent = torch.stack(self.recent_scores)
        best = recent.amax(dim=0)
        variation = best.max() - recent[:, best.argmax()].min()
        time_left = 1 - self.history.n_iter / self.plan.max_iter
        lag = _MIN_LAG + self.plan.first_lag * time_left**2
        staying = best >= best.max() - variation.clamp(min=lag)
        if not staying.all():
            self._keep_members(staying)

    def _keep_members(self, staying: Tensor) -> None:
        """Go on with some members: their parameters, shrinkage, scores and optimiser state."""
        self.weights.keep_members(staying)
        self.shrinkage = self.shrinkage[staying]
        self.recent_scores = [scores[staying] for scores in self.recent_scores]
        for state in self.optimizer.state[self.weights.values].values():
            if state.ndim:
                state.data = state[staying]


def _relative_rate(n_steps: int, step: int) -> float:
    """Learning rate at a step over the highest: a linear rise, then half a cosine."""
    rise = max(1.0, _WARM_UP * n_steps)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1.0, n_steps - rise))))


def _check_finite(value: float) -> float:
    if math.isfinite(value):
        return value
    raise FloatingPointError(
        "The training loss is no longer finite. Lower learning_rate_init, or look for extreme "
        "values in theta and X: a transformation such as log may be needed."
    )
