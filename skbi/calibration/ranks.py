"""Ranks: where the truth stands among posterior draws, and how far chance moves it.

If the posterior is calibrated, the rank r of the truth theta* among S draws of q(theta | x) is
uniform on 0 ... S. Its probability integral transform (r + u) / (S + 1), with u ~ U(0, 1), is then
uniform on (0, 1).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import gammaln

from skbi.randomness import RandomState, as_generator

__all__ = [
    "binomial_band",
    "check_confidence",
    "check_draws",
    "check_truths",
    "ecdf_band",
    "pit_values",
    "rank_grid",
    "ranks_of_pit",
    "sbc_ranks",
    "uniformity_test",
]

_MAX_GRID_POINTS = 100


def sbc_ranks(
    theta: ArrayLike, samples: ArrayLike, *, random_state: RandomState = None
) -> NDArray[np.int64]:
    """Rank the truth among the posterior draws (simulation-based calibration, SBC).

    The rank is the number of draws below the truth. It is uniform on 0 ... n_samples if the
    posterior is calibrated.

    Parameters
    ----------
    theta : array-like, shape (n, p)
        The true parameters of n runs.
    samples : array-like, shape (n, n_samples, p)
        Posterior draws for each run.
    random_state : int, Generator, RandomState or None, default=None
        Breaks ties between the truth and the draws, which discrete parameters have.

    Returns
    -------
    ndarray of int, shape (n, p)

    See Also
    --------
    RankDisplay : A picture of the ranks.
    uniformity_test : Their p-values.

    References
    ----------
    Talts et al., Validating Bayesian inference algorithms with simulation-based calibration, 2018,
    https://arxiv.org/abs/1804.06788.

    Examples
    --------
    >>> sbc_ranks([[0.5], [2.0]], [[[0.0], [1.0], [3.0]], [[0.0], [1.0], [3.0]]]).tolist()
    [[1], [2]]
    """
    theta, samples = check_draws(theta, samples)
    pit = pit_values(theta, samples, as_generator(random_state))
    return ranks_of_pit(pit, samples.shape[1])


def pit_values(
    theta: NDArray[np.float64], samples: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Probability integral transform of the truths (n, p) among the draws (n, n_samples, p).

    A value is uniform within the slot of the truth's rank, and ties are broken at random. It is
    therefore exactly uniform on (0, 1) for a truth that is exchangeable with the draws.

    Returns
    -------
    ndarray, shape (n, p)
    """
    n_below = (samples < theta[:, None]).sum(axis=1)
    n_equal = (samples == theta[:, None]).sum(axis=1)
    return (n_below + (n_equal + 1) * rng.random(theta.shape)) / (samples.shape[1] + 1)


def ranks_of_pit(pit: NDArray[np.float64], n_samples: int) -> NDArray[np.int64]:
    """Turn the values of `pit_values` back into ranks among ``n_samples`` draws."""
    return np.floor(pit * (n_samples + 1)).astype(np.int64)


def uniformity_test(ranks: ArrayLike, n_samples: int) -> NDArray[np.float64]:
    """Test whether ranks are uniform; exact for any number of runs and draws.

    The test compares the empirical distribution function of the ranks with the uniform one, at up
    to 100 ranks. The statistic is the smallest of their two-sided binomial p-values. Its own
    distribution is computed, not simulated.

    Parameters
    ----------
    ranks : array-like of int, shape (n, p)
        The ranks from `sbc_ranks`.
    n_samples : int
        Number of draws that each truth was ranked among.

    Returns
    -------
    ndarray, shape (p,)
        One p-value for each parameter. A value below 1e-10 is an upper bound.

    See Also
    --------
    sbc_ranks : The ranks.
    ecdf_band : The band of the same test.

    References
    ----------
    Säilynoja, Bürkner and Vehtari, Graphical test for discrete uniformity and its applications in
    goodness of fit evaluation and multiple sample comparison, 2022,
    https://arxiv.org/abs/2103.10522.

    Examples
    --------
    >>> ranks = np.random.default_rng(0).integers(101, size=(500, 1))
    >>> uniformity_test(ranks, 100)[0] > 0.01, uniformity_test(ranks // 2, 100)[0] < 1e-6
    (np.True_, np.True_)
    """
    ranks = np.asarray(ranks)
    if ranks.ndim != 2 or not len(ranks) or ranks.min() < 0 or ranks.max() > n_samples:
        raise ValueError(
            f"ranks must have shape (n, p), n > 0, and lie in 0 ... {n_samples} (n_samples); got "
            f"shape {ranks.shape}" + (f", up to {ranks.max()}." if ranks.size else ".")
        )
    grid, levels = rank_grid(n_samples)
    counts, n = (ranks[:, :, None] <= grid).sum(axis=0), len(ranks)
    tails = np.minimum(stats.binom.cdf(counts, n, levels), stats.binom.sf(counts - 1, n, levels))
    smallest = 2 * tails.min(axis=1)
    p_values = len(grid) * smallest  # Bonferroni's bound, kept where binomial quantiles underflow
    for j in np.flatnonzero(p_values > 1e-10):
        lower, upper = _pointwise_limits(n, levels, smallest[j])
        p_values[j] = 1 - _probability_within(n, levels, lower, upper)
    return np.clip(p_values, 0, 1)


def rank_grid(n_samples: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Ranks at which a distribution function of ranks is evaluated, at most 100 of them.

    Returns
    -------
    ranks : ndarray of int, shape (m,)
    levels : ndarray, shape (m,)
        The probability that a uniform rank is at most as large as each of them.
    """
    n_points = min(n_samples, _MAX_GRID_POINTS)
    ranks = np.linspace(0, n_samples - 1, n_points).astype(np.int64)
    return ranks, (ranks + 1) / (n_samples + 1)


def ecdf_band(
    n: int, levels: ArrayLike, confidence: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute a simultaneous band for the distribution function of n uniform numbers.

    Parameters
    ----------
    n : int
        Number of uniform numbers.
    levels : array-like, shape (m,), increasing, in (0, 1)
        Where the empirical distribution function is evaluated.
    confidence : float, default=0.95
        Probability that the function stays within the band at all levels together.

    Returns
    -------
    lower, upper : ndarray, shape (m,)

    See Also
    --------
    uniformity_test : The p-values of the same test.
    RankDisplay : A picture with the band.

    References
    ----------
    Säilynoja, Bürkner and Vehtari, Graphical test for discrete uniformity and its applications in
    goodness of fit evaluation and multiple sample comparison, 2022,
    https://arxiv.org/abs/2103.10522.

    Examples
    --------
    >>> lower, upper = ecdf_band(100, [0.25, 0.5, 0.75])
    >>> lower.round(2), upper.round(2)
    (array([0.15, 0.39, 0.65]), array([0.35, 0.61, 0.85]))
    """
    levels = np.asarray(levels, dtype=np.float64)
    check_confidence(confidence)
    if levels.ndim != 1 or not (np.diff([0, *levels, 1]) > 0).all():
        raise ValueError(f"levels must increase within (0, 1); got {levels}.")
    # bisect the log of the largest pointwise tail probability that keeps the confidence
    low, high = math.log((1 - confidence) / len(levels) / 2), math.log(1 - confidence)
    for _ in range(30):
        middle = (low + high) / 2
        limits = _pointwise_limits(n, levels, math.exp(middle))
        inside = _probability_within(n, levels, *limits)
        low, high = (middle, high) if inside >= confidence else (low, middle)
    lower, upper = _pointwise_limits(n, levels, math.exp(low))
    return lower / n, upper / n


def _pointwise_limits(
    n: int, levels: NDArray[np.float64], tail: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lowest and highest count at each level whose two-sided p-value exceeds ``tail``."""
    half = min(0.5, tail / 2 * (1 + 1e-9))
    lower, upper = stats.binom.ppf(half, n, levels), n - stats.binom.ppf(half, n, 1 - levels)
    return lower.astype(np.int64), upper.astype(np.int64)


def _probability_within(
    n: int,
    levels: NDArray[np.float64],
    lower: NDArray[np.int64],
    upper: NDArray[np.int64],
) -> float:
    """Probability that the counts of n uniform numbers below each level stay within limits.

    The counts are a Markov chain: given the count below one level, the number of points between
    that level and the next is binomial.
    """
    log_factorial = gammaln(np.arange(n + 1) + 1)
    counts, probability, previous_level = np.zeros(1, dtype=np.int64), np.ones(1), 0.0
    for level, low, high in zip(levels, lower, upper, strict=True):
        next_counts = np.arange(low, high + 1)
        n_added = next_counts - counts[:, None]
        n_above = n - counts[:, None]
        share = (level - previous_level) / (1 - previous_level)
        possible = n_added >= 0
        n_added = np.where(possible, n_added, 0)
        log_pmf = log_factorial[n_above] - log_factorial[n_added] - log_factorial[n_above - n_added]
        log_pmf += n_added * math.log(share) + (n_above - n_added) * math.log1p(-share)
        probability = probability @ np.where(possible, np.exp(log_pmf), 0)
        counts, previous_level = next_counts, level
    return float(probability.sum())


def binomial_band(
    n: int, share: NDArray[np.float64], confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute a band for the share of n runs that succeed, pointwise.

    Parameters
    ----------
    n : int
        Number of runs.
    share : ndarray, shape (m,)
        The probability that a run succeeds.
    confidence : float
        Probability that the observed share lies in the band, for each of the m values by itself.

    Returns
    -------
    lower, upper : ndarray, shape (m,)
    """
    tails = [[0.5 - confidence / 2], [0.5 + confidence / 2]]
    lower, upper = stats.binom.ppf(tails, n, share) / n
    return np.maximum(lower, 0), upper


def check_confidence(confidence: float) -> None:
    """Refuse a confidence outside (0, 1)."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, such as 0.95; got {confidence}.")


def check_truths(theta: ArrayLike) -> NDArray[np.float64]:
    """Return the truths as a finite float64 array (n, p)."""
    theta = np.asarray(theta, dtype=np.float64)
    if theta.ndim != 2 or not theta.size:
        raise ValueError(f"theta must have shape (n, p), one truth a row; got {theta.shape}.")
    if not np.isfinite(theta).all():
        raise ValueError(f"theta must be finite; row {_first_not_finite(theta)} is not.")
    return theta


def check_draws(
    theta: ArrayLike, samples: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return truths (n, p) and their draws (n, n_samples, p) as finite float64 arrays."""
    theta, samples = check_truths(theta), np.asarray(samples, dtype=np.float64)
    n, p = theta.shape
    if samples.ndim != 3 or (len(samples), samples.shape[2]) != (n, p) or not samples.shape[1]:
        raise ValueError(
            f"Posterior draws of {n} observations and {p} parameters must have shape ({n}, "
            f"n_samples, {p}); got {samples.shape}."
        )
    if not np.isfinite(samples).all():
        row = _first_not_finite(samples)
        raise ValueError(f"Posterior draws must be finite; those of observation {row} are not.")
    return theta, samples


def _first_not_finite(values: NDArray[np.float64]) -> int:
    """First row that holds a value that is not finite."""
    return int((~np.isfinite(values)).reshape(len(values), -1).any(axis=1).argmax())
