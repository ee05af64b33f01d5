"""The one fit loop: minimise the mean of -log q by Adam under a warm-up and cosine schedule."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn
from tqdm.auto import tqdm

__all__ = ["History", "Schedule", "each_in_one_thread", "one_thread", "seeded", "train"]

_INITIALISING = threading.Lock()
_WARM_UP = 0.1  # share of the steps over which the learning rate rises
_MAX_NORM = 1.0  # of the gradient
_EVALUATE = 500  # validation pairs evaluated at a time


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    ``shrinkage`` is how far shrunk weights go to zero at a step, in units of the learning rate: one
    number, or one for each member of an ensemble. Adam's steps measure the mean gradient in its
    standard deviations over minibatches, so that shrinkage is a threshold of significance.
    """

    batch_size: int
    learning_rate: float
    shrinkage: float | tuple[float, ...]
    max_iter: int
    n_iter_no_change: int
    tol: float
    parts: tuple[tuple[float, float], ...] = ((1.0, 1.0),)

    def part(self, epoch: int) -> float:
        """Share of each set's points to read: ``parts`` holds (up to this share of epochs, it)."""
        return next(part for upto, part in self.parts if epoch < upto * self.max_iter)


@dataclass
class History:
    """What a training run reports: one entry an epoch, scores only with validation rows."""

    loss_curve: list[float] = field(default_factory=list)
    validation_scores: list[float] = field(default_factory=list)
    best_score: float = -math.inf
    interrupted: bool = False

    @property
    def n_iter(self) -> int:
        """Epochs run."""
        return len(self.loss_curve)


@contextmanager
def seeded(rng: np.random.Generator) -> Iterator[None]:
    """Initialise modules from ``rng``, in single precision on the CPU.

    Torch's global generator and its default type are put back as they were.
    """
    with _INITIALISING, torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(int(rng.integers(2**63)))
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(default)


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread, as parallel workers should.

    Sums then round in the same way in this process, in a thread and in a worker elsewhere, and
    workers do not compete for cores.
    """
    if getattr(_HERE, "inside", False):
        yield
        return
    with _THREADS.lock:
        current = torch.get_num_threads()  # asking also gives a new thread its number
        if _THREADS.n_users == 0:
            _THREADS.before = current
        _THREADS.n_users += 1
        torch.set_num_threads(1)  # for this thread, and for those that start from now on
    _HERE.inside = True
    try:
        yield
    finally:
        _HERE.inside = False
        with _THREADS.lock:
            _THREADS.n_users -= 1
            torch.set_num_threads(_THREADS.before)


def each_in_one_thread(task: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> None:
    """Run tasks side by side, each in one thread, as many at a time as torch has threads.

    Their arrays are too small to be shared. On two cores draws take 0.6 of the time of one thread.
    """
    n_jobs = min(len(arguments), torch.get_num_threads())
    with one_thread():
        Parallel(n_jobs, require="sharedmem")(delayed(task)(*some) for some in arguments)


@dataclass
class _Threads:
    """How many threads of this process are in `one_thread`, and what torch had before them."""

    lock: Any = field(default_factory=threading.Lock)
    n_users: int = 0
    before: int = 1


_THREADS, _HERE = _Threads(), threading.local()


def train(
    module: nn.Module,
    losses: Callable[[Tensor, float], Tensor],
    rows: Tensor,
    validation_rows: Tensor | None,
    schedule: Schedule,
    rng: np.random.Generator,
    *,
    shrunk: Sequence[Tensor] = (),
    gradients: Callable[[], list[list[Tensor]]] | None = None,
    keep: Callable[[dict[str, Tensor], Tensor], None] | None = None,
    progress: str | None = None,
) -> History:
    """Train ``module`` in place and leave it with its best weights.

    It may be an ensemble, whose members do not see each other: each has its own best weights.

    Parameters
    ----------
    module : Module
        What to train.
    losses : callable
        ``losses(rows, part)`` is -log q of those training pairs, (len(rows),) or (members,
        len(rows)), reading that part of each set's points.
    rows : Tensor of int
        The training pairs.
    validation_rows : Tensor of int or None
        The pairs that choose the best weights and stop training early; None for neither.
    schedule : Schedule
    rng : Generator
        Orders the minibatches.
    shrunk : sequence of Tensor
        The weights of ``module`` that are shrunk, with a leading axis of members if ``shrinkage``
        has more than one number.
    gradients : callable, optional
        Returns the gradients of each member of an ensemble, whose norms are limited one by one.
    keep : callable, optional
        ``keep(best, better)`` copies the weights of those members to the state ``best``.
    progress : str, optional
        Show a progress bar with this label and both losses.

    Returns
    -------
    History

    Raises
    ------
    FloatingPointError
        If the loss is no longer finite.
    """
    run = _Run(module, shrunk, gradients, keep, losses, rows, validation_rows, schedule, rng)
    bar = tqdm(range(schedule.max_iter), desc=progress, unit="epoch", disable=progress is None)
    try:
        for epoch in bar:
            run.epoch(epoch)
            bar.set_postfix_str(run.summary())
            if run.stuck():
                break
    except KeyboardInterrupt:
        if not run.history.loss_curve:
            raise
        run.history.interrupted = True
        warnings.warn(
            f"Training was interrupted after {run.history.n_iter} epochs; the best weights so far "
            "are kept. Fit with warm_start=True to continue.",
            ConvergenceWarning,
            stacklevel=6,
        )
    finally:
        bar.close()
        module.load_state_dict(run.best)
        module.eval()
    return run.history


class _Run:
    """The state of one training run."""

    def __init__(
        self,
        module: nn.Module,
        shrunk: Sequence[Tensor],
        gradients: Callable[[], list[list[Tensor]]] | None,
        keep: Callable[[dict[str, Tensor], Tensor], None] | None,
        losses: Callable[[Tensor, float], Tensor],
        rows: Tensor,
        validation_rows: Tensor | None,
        schedule: Schedule,
        rng: np.random.Generator,
    ) -> None:
        self.module, self.shrunk, self.losses = module, shrunk, losses
        self.schedule, self.rng = schedule, rng
        self.gradients, self.keep = gradients or self._all_gradients, keep or self._keep_all
        self.optimizer = torch.optim.Adam(module.parameters(), schedule.learning_rate, fused=True)
        self.shrinkage = torch.tensor(schedule.shrinkage, dtype=torch.float32, device=rows.device)
        self.rows, self.validation_rows = rows, validation_rows
        self.history, self.best, self.waited = History(), _copy(module), 0
        self.best_scores = torch.full((), -math.inf, device=rows.device)
        n_steps = schedule.max_iter * math.ceil(len(rows) / schedule.batch_size)
        self.rate = torch.optim.lr_scheduler.LambdaLR(self.optimizer, partial(_rate, n_steps))

    def epoch(self, epoch: int) -> None:
        """Go once through the training pairs, then look at the validation pairs."""
        part, previous = self.schedule.part(epoch), self.schedule.part(max(epoch - 1, 0))
        self.module.train()
        loss = self._learn(part)
        self.module.eval()
        if self.validation_rows is None:
            self.best = _copy(self.module)
        else:
            self._select(self._score(part), part != previous)
        self.history.loss_curve.append(loss)

    def _select(self, scores: Tensor, anew: bool) -> None:
        """Keep weights that score best; scores on other parts of the sets do not compare."""
        if anew:
            self.best_scores, self.waited = torch.full_like(scores, -math.inf), 0
        improved = bool((scores > self.best_scores + self.schedule.tol).any())
        self.waited = 0 if improved else self.waited + 1
        self.keep(self.best, scores > self.best_scores)
        self.best_scores = torch.maximum(scores, self.best_scores)
        self.history.best_score = float(self.best_scores.mean())
        self.history.validation_scores.append(_finite(float(scores.mean())))

    def stuck(self) -> bool:
        """Whether the score on whole sets has stopped improving."""
        whole = self.schedule.part(self.history.n_iter - 1) == 1
        return whole and self.waited >= self.schedule.n_iter_no_change

    def summary(self) -> str:
        """Describe the last epoch for the progress bar."""
        text = f"train loss {self.history.loss_curve[-1]:.3f}"
        scores = self.history.validation_scores
        return text + (f", validation loss {-scores[-1]:.3f}" if scores else "")

    def _learn(self, part: float) -> float:
        total = torch.zeros((), dtype=torch.float32, device=self.rows.device)
        order = torch.as_tensor(self.rng.permutation(len(self.rows)), device=self.rows.device)
        for batch in self.rows[order].split(self.schedule.batch_size):
            losses = self.losses(batch, part)
            self.optimizer.zero_grad()
            losses.mean().backward()
            self._clip()
            self.optimizer.step()
            self._shrink(self.rate.get_last_lr()[0])
            self.rate.step()
            total += losses.detach().sum()
        n_members = losses.numel() / len(batch)
        return _finite(float(total) / len(self.rows) / n_members)

    def _all_gradients(self) -> list[list[Tensor]]:
        return [[w.grad for w in self.module.parameters() if w.grad is not None]]

    def _keep_all(self, best: dict[str, Tensor], better: Tensor) -> None:
        if better:
            best.update(_copy(self.module))

    def _clip(self) -> None:
        """Limit the norm of every member's gradient; the loss is their mean."""
        members = self.gradients()
        for gradients in members:
            norms = torch.stack(torch._foreach_norm(gradients))
            norm = len(members) * torch.linalg.vector_norm(norms)
            torch._foreach_mul_(gradients, (_MAX_NORM / (norm + 1e-6)).clamp(max=1))

    @torch.no_grad()
    def _shrink(self, rate: float) -> None:
        """Pull weights to zero by an equal amount, those that are nearer than that all the way."""
        limit = rate * self.shrinkage
        for weights in self.shrunk:
            most = limit.reshape(-1, *[1] * (weights.ndim - 1)) if limit.ndim else limit
            weights.sub_(weights.clamp(-most, most))

    @torch.no_grad()
    def _score(self, part: float) -> Tensor:
        losses = [self.losses(rows, part) for rows in self.validation_rows.split(_EVALUATE)]
        return -torch.cat(losses, dim=-1).mean(dim=-1)


def _rate(n_steps: int, step: int) -> float:
    """Learning rate at a step, relative to its maximum: a linear rise, then half a cosine."""
    rise = max(1.0, _WARM_UP * n_steps)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1.0, n_steps - rise))))


def _finite(value: float) -> float:
    if math.isfinite(value):
        return value
    raise FloatingPointError(
        "The training loss is no longer finite. Lower learning_rate_init, or look for extreme "
        "values in theta and X: a transformation such as log may be needed."
    )


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
