"""Calibration by region: whether posteriors are right in every part of the data space.

If the posterior is exact, the normal score z = Phi^-1(u) of the truth's probability integral
transform u is N(0, 1) given x, and so it is among all simulations whose x lies in some region.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import ndtri

from skbi.calibration.recovery import Recovery

__all__ = ["Region", "worst_region"]

_N_REGIONS = 5
_MIN_RUNS = 20  # in a region, below which there are fewer regions


@dataclass(frozen=True)
class Region:
    """Where posteriors are worst.

    Attributes
    ----------
    parameter : str
        The parameter whose posterior is worst.
    bias, spread : float
        Minus the mean and the standard deviation of its normal scores there; 0 and 1 if calibrated.
    along : str
        The parameter whose posterior mean tells the region.
    low, high : float
        The region's ends, which may be infinite.
    n_runs : int
        Simulations in the region.
    p_value : float
        Of a bias of 0 and a spread of 1, times the number of tests: it bounds the probability of
        any so small a value in any region if all posteriors are exact.
    """

    parameter: str
    bias: float
    spread: float
    along: str
    low: float
    high: float
    n_runs: int
    p_value: float

    def __str__(self) -> str:
        where = f"between {self.low:.3g} and {self.high:.3g}"
        if np.isinf(self.low) or np.isinf(self.high):
            where = f"below {self.high:.3g}" if np.isinf(self.low) else f"above {self.low:.3g}"
        return (
            f"{self.parameter} is off by {self.bias:+.2f} sd with errors {self.spread:.2f} times "
            f"as large as claimed, where the posterior mean of {self.along} is {where}"
        )


def worst_region(recovery: Recovery, names: Sequence[str]) -> Region | None:
    """Find the region in which a parameter's posterior is worst.

    Regions are a fifth of the simulations each, by the posterior mean of one of the parameters.

    Parameters
    ----------
    recovery : Recovery
    names : sequence of p str

    Returns
    -------
    Region or None
        None if there are fewer than 40 simulations.
    """
    n, p = recovery.pit.shape
    n_regions = min(_N_REGIONS, n // _MIN_RUNS)
    if n_regions < 2:
        return None
    z, found = ndtri(recovery.pit), []
    for k, along in enumerate(names):
        order = np.argsort(recovery.mean[:, k], kind="stable")
        for rows in np.array_split(order, n_regions):
            ends = _ends(recovery.mean[order, k], recovery.mean[rows, k])
            for name, scores in zip(names, z[rows].T, strict=True):
                p_value = min(1.0, _p_value(scores) * 2 * n_regions * p * p)
                numbers = -scores.mean(), scores.std(ddof=1)
                found.append(Region(name, *numbers, along, *ends, len(rows), p_value))
    return min(found, key=lambda region: region.p_value)


def _ends(all_means: NDArray[np.float64], means: NDArray[np.float64]) -> tuple[float, float]:
    low, high = float(means.min()), float(means.max())
    return -np.inf if low == all_means[0] else low, np.inf if high == all_means[-1] else high


def _p_value(scores: NDArray[np.float64]) -> float:
    """Return the smaller of the two-sided p-values of mean 0 and of standard deviation 1."""
    n = len(scores)
    of_mean = 2 * stats.norm.sf(abs(scores.mean()) * n**0.5)
    squares, chi_squared = n * scores.var(), stats.chi2(n - 1)
    of_spread = 2 * min(chi_squared.cdf(squares), chi_squared.sf(squares))
    return float(min(of_mean, of_spread))
