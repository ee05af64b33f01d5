"""Flow matching: E | F(y, a; x) - (cos(a) w - sin(a) e) |^2 / 2, with y = cos(a) e + sin(a) w.

e is standard normal noise and w the residual of a parameter. The minimum is the mean velocity of
all paths through y, and moves noise to p(w | x). The path is the straight one,
(1 - t) e + t w, with the time t = sin(a) / (sin(a) + cos(a)) and lengths that are measured in
standard deviations of a point of it, ((1 - t)^2 + t^2)^(1/2). t is drawn from a density
proportional to t^k; a larger k spends more on the end, where sharp posteriors take shape.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import Tensor

from skbi.estimators.residuals import ResidualRows

__all__ = ["FlowMatching", "best_mean"]

_N_REPEATS = 8  # points of its path that each validation row is judged by
_MAX_ROWS = 500  # weighed at a time


class FlowMatching:
    """The loss of rows: in training of new noise each time, in validation of fixed noise.

    Parameters
    ----------
    rows : ResidualRows
    time_exponent : float
        k of the density of t.
    """

    def __init__(self, rows: ResidualRows, time_exponent: float) -> None:
        self.rows, self.time_exponent = rows, time_exponent
        n, p = rows.n_validation, rows.n_parameters
        self.noise, u = rows.normal(_N_REPEATS, n, p), rows.uniform(_N_REPEATS, n)
        repeats = torch.arange(_N_REPEATS, device=u.device).unsqueeze(1)
        self.angles = self._angles((repeats + u) / _N_REPEATS)

    def __call__(self, rows: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
        """Return the losses (members still trained, n) of rows, and their weights."""
        errors = self.errors(rows, fraction)
        return 0.5 * errors.square().sum(dim=-1).mean(dim=1), self.rows.weights[rows]

    def errors(self, rows: Tensor, fraction: float = 1.0) -> Tensor:
        """Return the errors of velocities, (members still trained, points of a path, n, p)."""
        angle, noise = self._new(rows) if self.rows.in_training else self._fixed(rows)
        cos, sin = angle.cos().unsqueeze(-1), angle.sin().unsqueeze(-1)
        return torch.stack(
            [
                member.field(cos * noise + sin * w, angle, member.condition(context))
                - (cos * w - sin * noise)
                for member, w, context in self.rows.read(rows, fraction)
            ]
        )

    def _new(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Draw angles (1, n), one from each of n quantiles, and noise (1, n, p)."""
        n = len(rows)
        angles = self._angles((self.rows.order(n) + self.rows.uniform(n)) / n)
        return angles.unsqueeze(0), self.rows.normal(1, n, self.rows.n_parameters)

    def _fixed(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the angles (points, n) and the noise (points, n, p) of validation rows."""
        some = self.rows.position[rows]
        return self.angles[:, some], self.noise[:, some]

    def _angles(self, u: Tensor) -> Tensor:
        """Return the angles of which a share u is drawn below."""
        t = u ** (1 / (1 + self.time_exponent))
        return torch.atan2(t, 1 - t)

    @torch.no_grad()
    def weigh(self, rows: Tensor) -> float:
        """Weigh the members so that their mean velocity is best on rows; return minus its loss."""
        products = 0.0
        for some in rows.split(_MAX_ROWS):
            errors = self.errors(some) * self.rows.weights[some].sqrt().unsqueeze(-1)
            flat = errors.double().flatten(1).cpu().numpy()
            products = products + flat @ flat.T / (_N_REPEATS * len(rows))
        shares = best_mean(products)
        for member, share in zip(self.rows.training.members, shares.tolist(), strict=True):
            member.log_weight.fill_(np.log(share))
        return -0.5 * float(shares @ products @ shares)


def best_mean(products: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weights (m,) of m predictions whose mean has the least squared error.

    Weights are at least 1e-6, and sum to one.

    Parameters
    ----------
    products : ndarray, shape (m, m)
        Mean products of the errors of each two predictions.

    Examples
    --------
    >>> best_mean(np.array([[1.0, 0.0], [0.0, 3.0]])).round(3)
    array([0.75, 0.25])
    """
    m, scale = len(products), np.trace(products) / len(products)
    root = np.linalg.cholesky(products / scale + 1e-6 * np.eye(m)).T
    least_squares = np.vstack([root, np.full(m, 1e3)])  # the last row: they sum to one
    shares = np.maximum(nnls(least_squares, np.append(np.zeros(m), 1e3))[0], 1e-6)
    return shares / shares.sum()
