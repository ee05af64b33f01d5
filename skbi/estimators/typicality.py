"""Typicality: whether an observation is like the training simulations.

A local outlier factor: the distance of an observation to its nearest training simulations, divided
by the distance of those to their own neighbours, compared with the same ratio of validation
simulations, which gives a p-value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.utils.extmath import randomized_svd

from skbi.parallel import blocks

__all__ = ["MAX_REFERENCES", "Typicality", "describe_untypical", "p_values_of_sets"]

MAX_REFERENCES = 2000  # training simulations to compare with, and validation simulations, at most
_N_NEIGHBOURS = 5
_MAX_COMPONENTS = 64  # principal components of the summaries
_MIN_RELATIVE_SCALE = 0.1  # of a component, over that of the first
_MIN_TAIL = 5  # validation ratios from which on a tail is fitted


@dataclass(frozen=True)
class Typicality:
    """How far from the training simulations other observations lie.

    Summaries are decorrelated first. The distance to the nearest training simulations is divided
    by their spacing, so that sparse regions count as such. Validation simulations tell how large
    the ratio is by chance: p-values count them, and beyond their largest tenth follow the power
    law of their tail, taken two standard errors heavier so that few of them raise no false alarm.

    Attributes
    ----------
    mean : ndarray, shape (k,)
    whitening : ndarray, shape (k, c)
        Maps centred summaries to uncorrelated components.
    references : ndarray, shape (m, c)
        Components of training simulations.
    spacings : ndarray, shape (m,)
        Distance of each of these to its own nearest ones.
    validation_ratios : ndarray
        The ratios of validation simulations, sorted.

    References
    ----------
    Breunig et al., LOF: identifying density-based local outliers, 2000,
    https://doi.org/10.1145/335191.335388; Hill, A simple general approach to inference about the
    tail of a distribution, 1975, https://doi.org/10.1214/aos/1176343247.
    """

    mean: NDArray[np.float64]
    whitening: NDArray[np.float64]
    references: NDArray[np.float32]
    spacings: NDArray[np.float64]
    validation_ratios: NDArray[np.float64]

    @classmethod
    def fit(cls, training: NDArray[np.float64], validation: NDArray[np.float64]) -> Self:
        """Remember summaries of training simulations (n, k), and ratios of validation ones."""
        training, validation = (
            x[_evenly_spaced(len(x), MAX_REFERENCES)] for x in (training, validation)
        )
        mean = training.mean(axis=0)
        n_components = min(_MAX_COMPONENTS, *training.shape)
        _, values, axes = randomized_svd(training - mean, n_components, random_state=0)
        # components that hardly vary are not blown up
        scale = np.maximum(values, _MIN_RELATIVE_SCALE * values[0]) / len(training) ** 0.5
        whitening = axes.T / np.where(scale > 0, scale, 1)
        references = ((training - mean) @ whitening).astype(np.float32)
        unscored = cls(mean, whitening, references, _spacings(references), np.empty(0))
        return replace(unscored, validation_ratios=np.sort(unscored.ratio(validation)))

    def ratio(self, summaries: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance to the nearest training simulations, over their spacing, (n,)."""
        x = (summaries - self.mean) @ self.whitening
        return np.concatenate([self._ratio(x[rows]) for rows in blocks(len(x), MAX_REFERENCES)])

    def _ratio(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        k = min(_N_NEIGHBOURS, len(self.references))
        distance = cdist(x, self.references)
        nearest = np.argpartition(distance, k - 1, axis=1)[:, :k]
        furthest = np.take_along_axis(distance, nearest, axis=1).max(axis=1)
        return furthest / self.spacings[nearest].mean(axis=1)

    def p_values(self, summaries: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of simulations that lie further out, (n,)."""
        ratio, ratios, m = (
            self.ratio(summaries),
            self.validation_ratios,
            len(self.validation_ratios),
        )
        counted = (1 + m - np.searchsorted(ratios, ratio)) / (m + 1)
        n_tail = m // 10
        edge, index = ratios[-n_tail - 1], math.inf
        if n_tail >= _MIN_TAIL and edge > 0:
            index = np.log(ratios[-n_tail:] / edge).mean() * (1 + 2 * n_tail**-0.5)
        if index > 1:  # or unknown: the tail of a Cauchy distribution, beyond the largest ratio
            largest = max(ratios[-1], 1)
            return counted * largest / np.maximum(ratio, largest)
        extrapolated = n_tail / m * (np.maximum(ratio, edge) / edge) ** (-1 / max(index, 1e-3))
        return np.where(ratio > edge, extrapolated, counted)


def p_values_of_sets(
    p_values: NDArray[np.float64], owners: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return, for each set, the smallest p-value of its points times their number."""
    n_points = np.bincount(owners)
    smallest = np.ones(len(n_points))
    np.minimum.at(smallest, owners, p_values)
    return np.minimum(1, smallest * n_points)


def describe_untypical(p_values: NDArray[np.float64]) -> str | None:
    """Return a warning of p-values below 0.001 over the number of observations, if any."""
    untypical = np.flatnonzero(p_values * len(p_values) < 1e-3)
    if not len(untypical):
        return None
    worst = untypical[p_values[untypical].argmin()]
    return (
        f"{len(untypical)} of {len(p_values)} observations are unlike the training simulations, "
        f"most of all row {worst}: about a share {p_values[worst]:.1g} of simulations lie as far "
        "out. Their posteriors are a guess: look at the data, the simulator and the prior (see "
        "misspecification_score)."
    )


def _spacings(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Distance of each point to its nearest ones; of duplicates, to the nearest distinct point."""
    distance = cdist(x, x)
    np.fill_diagonal(distance, np.inf)
    k = max(1, min(_N_NEIGHBOURS, len(x) - 1)) - 1
    spacings = np.partition(distance, k, axis=1)[:, k]
    to_distinct = np.where(distance > 0, distance, np.inf).min(axis=1)
    spacings = np.where(spacings > 0, spacings, to_distinct)
    return np.where(np.isfinite(spacings), spacings, 1.0)


def _evenly_spaced(n: int, n_max: int) -> NDArray[np.int64]:
    """Return the indices of at most ``n_max`` of n rows, evenly spaced."""
    return np.linspace(0, n - 1, min(n, n_max)).astype(np.int64)
