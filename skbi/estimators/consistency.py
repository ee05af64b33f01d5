"""Consistency training: f(y, t; x) maps every point of a path from noise to where the path ends.

With w the residual of a parameter, y = w + t z, t from 0.001 to T, and d = t - 0.001,

    f(y, t; x) = y / (1 + d^2)^(1/2) + d / (1 + t^2)^(1/2) F(y / (1 + t^2)^(1/2), t; x),

so that f(y, 0.001; x) = y. The first term is the consistency function of standard normal w, where
training starts; the field F starts at zero. Neighbours t_i < t_{i+1} of a grid that is refined
during training shall give the same, with the same z:

    loss = (t_{i+1} - t_i)^-1 D(f(w + t_{i+1} z, t_{i+1}; x), f(w + t_i z, t_i; x)),

D(a, b) = (|a - b|^2 + c^2)^(1/2) - c. No gradient flows through the second f.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from skbi.estimators.residuals import ResidualRows, TransportMember

__all__ = [
    "MIN_TIME",
    "ConsistencyLoss",
    "consistency",
    "draw_in_steps",
    "draw_times",
    "energies",
    "time_grid",
]

MIN_TIME = 1e-3
_RHO = 7.0  # of the grid of times: the larger, the finer it is at small times
_HUBER = 0.03  # c over sqrt(p)
_LOG_TIME_MEAN, _LOG_TIME_SD = -1.1, 2.0  # of the normal that times are drawn by
_FIRST_INTERVALS, _N_REFINEMENTS = 10, 4  # of the grid, whose intervals are halved so often
_N_DRAWS, _N_STEPS = 4, 2  # that validation rows are judged by
_LAST_TIME = 0.25  # of draws in more than one step
_MAX_ROWS = 500  # validation rows drawn for at a time


def time_grid(n: int, max_time: float, *, like: Tensor) -> Tensor:
    """Return n + 1 times from `MIN_TIME` to ``max_time``, as the seventh power of an even grid."""
    low, high = MIN_TIME ** (1 / _RHO), max_time ** (1 / _RHO)
    return torch.linspace(low, high, n + 1, dtype=like.dtype, device=like.device) ** _RHO


def draw_times(n: int, max_time: float, *, like: Tensor) -> Tensor:
    """Return the n times of a draw, from ``max_time`` to 0.25 in equal ratios.

    Examples
    --------
    >>> draw_times(3, 10.0, like=torch.zeros(1))
    tensor([10.0000,  1.5811,  0.2500])
    """
    share = torch.linspace(0, 1, n, dtype=like.dtype, device=like.device)
    return max_time * (_LAST_TIME / max_time) ** share


def consistency(member: TransportMember, y: Tensor, time: Tensor, condition: Tensor) -> Tensor:
    """Return f at points y (..., p) and times that broadcast to (...,)."""
    t = time.unsqueeze(-1)
    d, length = t - MIN_TIME, (1 + t.square()).sqrt()
    angle = torch.atan2(torch.ones_like(time), time)
    return y / (1 + d.square()).sqrt() + d / length * member.field(y / length, angle, condition)


def draw_in_steps(
    member: TransportMember, condition: Tensor, noise: Tensor, max_time: float
) -> Tensor:
    """Draw w (..., p) from noise (steps, ..., p): f at the largest time, then at smaller ones."""
    times = draw_times(len(noise), max_time, like=noise)
    w = torch.zeros_like(noise[0])
    for i, (time, z) in enumerate(zip(times, noise, strict=True)):
        spread = (1 + time.square()).sqrt() if i == 0 else (time.square() - MIN_TIME**2).sqrt()
        w = consistency(member, w + spread * z, time, condition)
    return w


def energies(w: Tensor, draws: Tensor) -> Tensor:
    """Return the energy score of each w (n, p), given draws (n, m, p), (n,)."""
    m = draws.shape[1]
    to_truth = torch.linalg.vector_norm(draws - w.unsqueeze(1), dim=-1).mean(dim=1)
    return to_truth - torch.cdist(draws, draws).sum(dim=(1, 2)) / (2 * m * (m - 1))


class ConsistencyLoss:
    """The loss of rows: in training that of neighbours in time, in validation the energy score.

    Losses of two grids do not compare, but energy scores of draws do. They hardly see how sharp a
    posterior is, which takes the finest grid: until that is reached, the share of the way that is
    still to come is added, so that no earlier weights are kept.

    Parameters
    ----------
    rows : ResidualRows
    max_time : float
        T.
    n_steps : int
        Steps of training, over which the grid is refined.
    """

    def __init__(self, rows: ResidualRows, max_time: float, n_steps: int) -> None:
        self.rows, self.max_time, self.n_steps, self.step = rows, max_time, n_steps, 0
        shape = _N_STEPS, rows.n_validation, _N_DRAWS, rows.n_parameters
        self.noise = [rows.normal(*shape) for _ in rows.training.members]
        self.huber = _HUBER * math.sqrt(rows.n_parameters)

    def __call__(self, rows: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
        """Return the losses (members still trained, n) of rows, and their weights."""
        compute = self._losses if self.rows.in_training else self._energies
        return compute(rows, fraction), self.rows.weights[rows]

    @property
    def n_intervals(self) -> int:
        """Intervals of the grid: the first number, doubled after equal shares of training."""
        phase = min(_N_REFINEMENTS, self.step * (_N_REFINEMENTS + 1) // self.n_steps)
        return _FIRST_INTERVALS * 2**phase

    @property
    def to_come(self) -> float:
        """Share of the steps until the grid is finest that are still to come."""
        n = self.n_steps * _N_REFINEMENTS / (_N_REFINEMENTS + 1)
        return max(0.0, 1 - self.step / n)

    def _losses(self, rows: Tensor, fraction: float) -> Tensor:
        earlier, later = self._times(len(rows))
        self.step += 1
        z = self.rows.normal(len(rows), self.rows.n_parameters)
        losses = []
        for member, w, context in self.rows.read(rows, fraction):
            condition = member.condition(context)
            found = consistency(member, w + later.unsqueeze(1) * z, later, condition)
            with torch.no_grad():
                wanted = consistency(member, w + earlier.unsqueeze(1) * z, earlier, condition)
            distance = ((found - wanted).square().sum(dim=-1) + self.huber**2).sqrt() - self.huber
            losses.append(distance / (later - earlier))
        return torch.stack(losses)

    def _times(self, n: int) -> tuple[Tensor, Tensor]:
        """Draw neighbours of the grid, one pair from each of n quantiles, (n,) and (n,)."""
        grid = time_grid(self.n_intervals, self.max_time, like=self.rows.z)
        level = torch.special.ndtr((grid.log() - _LOG_TIME_MEAN) / _LOG_TIME_SD)
        share = (level - level[0]) / (level[-1] - level[0])
        u = (self.rows.order(n) + self.rows.uniform(n)) / n
        i = torch.searchsorted(share, u).clamp(1, len(grid) - 1)
        return grid[i - 1], grid[i]

    def _energies(self, rows: Tensor, fraction: float) -> Tensor:
        found = [energies(w, draws) for w, draws in self._draws(rows, fraction)]
        return torch.stack(found) + self.to_come

    def _draws(self, rows: Tensor, fraction: float = 1.0) -> list[tuple[Tensor, Tensor]]:
        """Return residuals of validation rows and draws (n, draws, p) of each member."""
        some, found = self.rows.position[rows], []
        read = zip(self.rows.training.weights.trained, self.rows.read(rows, fraction), strict=True)
        for i, (member, w, context) in read:
            condition, noise = member.condition(context).unsqueeze(1), self.noise[i][:, some]
            found.append((w, draw_in_steps(member, condition, noise, self.max_time)))
        return found

    @torch.no_grad()
    def mean_energy(self, rows: Tensor) -> float:
        """Return the mean energy score of validation rows, of all members' draws together."""
        total = 0.0
        for some in rows.split(_MAX_ROWS):
            found = self._draws(some)
            together = torch.cat([draws for _, draws in found], dim=1)
            total += float((self.rows.weights[some] * energies(found[0][0], together)).sum())
        return total / len(rows)
