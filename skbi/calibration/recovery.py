"""Recovery and contraction: how near posteriors come to the truth, and how much they learnt.

For a truth theta with a posterior of mean m and standard deviation s, the z-score is
(m - theta) / s. The contraction is 1 - (w / W)^2, where w and W are the widths of the central 90 %
intervals of posterior and prior. For Gaussians that is 1 - posterior variance / prior variance, but
unlike variances it is not decided by a few extreme draws of a parameter with heavy tails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skbi.calibration.ranks import check_draws, check_truths, pit_values, ranks_of_pit
from skbi.calibration.runs import map_runs

__all__ = ["Recovery", "recover", "recovery_of_draws"]

_ENDS = 0.05, 0.95  # probabilities below the ends of the central intervals


@dataclass(frozen=True, eq=False)
class Recovery:
    """Posteriors of simulations, each by a few numbers, beside the truths.

    Attributes
    ----------
    theta : ndarray, shape (n, p)
        The truths, drawn from the prior.
    mean, sd, lower, upper : ndarray, shape (n, p)
        Of the posterior draws; the last two are the ends of the central interval of 90 %.
    pit : ndarray, shape (n, p)
        Probability integral transform of the truths among the draws, see `pit_values`.
    draw : ndarray, shape (n, p)
        One draw, on which mean and sd do not depend. If the posterior is exact, it cannot be told
        from the truth.
    n_samples : int
        Number of draws of each posterior.
    """

    theta: NDArray[np.float64]
    mean: NDArray[np.float64]
    sd: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    pit: NDArray[np.float64]
    draw: NDArray[np.float64]
    n_samples: int

    @property
    def prior_sd(self) -> NDArray[np.float64]:
        """Standard deviation of the truths, shape (p,)."""
        return self.theta.std(axis=0)

    @property
    def ranks(self) -> NDArray[np.int64]:
        """Ranks of the truths among the draws, shape (n, p)."""
        return ranks_of_pit(self.pit, self.n_samples)

    @property
    def nrmse(self) -> NDArray[np.float64]:
        """Root mean squared error of the posterior mean over the sd of the truths, shape (p,)."""
        error = np.sqrt(((self.mean - self.theta) ** 2).mean(axis=0))
        return _ratio(error, self.prior_sd)

    @property
    def r2(self) -> NDArray[np.float64]:
        """Share of the truths' variance that the posterior mean explains, shape (p,)."""
        return 1 - self.nrmse**2

    @property
    def contraction(self) -> NDArray[np.float64]:
        """1 - (posterior width / prior width)^2 of each run and parameter, shape (n, p)."""
        low, high = np.quantile(self.theta, _ENDS, axis=0)
        return 1 - _ratio(self.upper - self.lower, high - low) ** 2

    @property
    def z_score(self) -> NDArray[np.float64]:
        """(mean - truth) / posterior sd of each run and parameter, shape (n, p)."""
        return _ratio(self.mean - self.theta, self.sd)


def recover(
    estimator: Any, theta: ArrayLike, X: Any, *, n_samples: int, **options: Any
) -> Recovery:
    """Sample the posterior of every observation and compare it with the truth.

    Parameters
    ----------
    estimator, theta, X, n_samples
        As in `coverage_score`. At least three draws are needed.
    **options
        Further options of `map_runs`.

    Returns
    -------
    Recovery
    """
    _check_n_samples(n_samples)
    table = map_runs(estimator, theta, X, _describe_runs, n_samples=n_samples, **options)
    return _from_table(check_truths(theta), table, n_samples)


def recovery_of_draws(theta: ArrayLike, samples: ArrayLike, rng: np.random.Generator) -> Recovery:
    """Compare given draws (n, n_samples, p) with the truths (n, p); ``rng`` breaks ties."""
    theta, samples = check_draws(theta, samples)
    _check_n_samples(samples.shape[1])
    return _from_table(theta, _describe_runs(None, theta, samples, None, rng), samples.shape[1])


def _describe_runs(
    estimator: Any,
    theta: NDArray[np.float64],
    samples: NDArray[np.float64],
    X: Any,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Return what a `Recovery` holds of some runs, side by side, (n, 6 p)."""
    pit, others = pit_values(theta, samples, rng), samples[:, 1:]
    interval = np.quantile(samples, _ENDS, axis=1)
    parts = [others.mean(axis=1), others.std(axis=1, ddof=1), *interval, pit, samples[:, 0]]
    return np.hstack(parts)


def _from_table(theta: NDArray[np.float64], table: NDArray[np.float64], n_samples: int) -> Recovery:
    return Recovery(theta, *np.split(table, 6, axis=1), n_samples=n_samples)


def _check_n_samples(n_samples: int) -> None:
    if n_samples < 3:
        raise ValueError(f"n_samples must be at least 3, for a mean and an sd; got {n_samples}.")


def _ratio(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide, where b may be zero: the posterior of a discrete parameter may hold one value."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(a == 0, 0.0, a / b)
