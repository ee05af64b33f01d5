"""The rank plot: histogram and distribution function of the truths' ranks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skbi.calibration.ranks import binomial_band, ecdf_band, rank_grid, sbc_ranks
from skbi.calibration.runs import estimator_ranks, fitted_estimator, parameter_names
from skbi.plotting.axes import BAND_STYLE, as_axes, coloured_columns
from skbi.randomness import RandomState

__all__ = ["RankDisplay"]

_MAX_BINS = 20


class RankDisplay:
    """Ranks of the truths among posterior draws: histogram and empirical distribution function.

    Every parameter has a histogram of its own. Of the empirical distribution function (ECDF), the
    difference from the uniform one is drawn, of all parameters in one panel. All panels have a band
    in which the ranks of a calibrated posterior lie. In a histogram, each bar lies within the band
    with the given confidence; of the ECDF, the whole curve does.

    Parameters
    ----------
    ranks : ndarray of int, shape (n, p)
        The ranks from `sbc_ranks`.
    n_samples : int
        Number of draws that each truth was ranked among.
    names : sequence of p str
        Names of the parameters.
    confidence : float, default=0.95
        Confidence of the bands.

    Attributes
    ----------
    ax_ : Axes or ndarray of Axes
    figure_ : Figure

    See Also
    --------
    sbc_ranks : The ranks.
    uniformity_test : Their p-values.

    References
    ----------
    Talts et al., Validating Bayesian inference algorithms with simulation-based calibration, 2018,
    https://arxiv.org/abs/1804.06788; Säilynoja, Bürkner and Vehtari, Graphical test for discrete
    uniformity, 2022, https://arxiv.org/abs/2103.10522.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> theta, samples = rng.normal(size=(100, 2)), rng.normal(size=(100, 200, 2))
    >>> RankDisplay.from_predictions(theta, samples, names=["a", "b"]).ranks.shape
    (100, 2)
    """

    def __init__(
        self,
        ranks: NDArray[np.int64],
        n_samples: int,
        *,
        names: Sequence[str],
        confidence: float = 0.95,
    ) -> None:
        self.ranks, self.n_samples = ranks, n_samples
        self.names, self.confidence = names, confidence

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        theta: ArrayLike,
        X: Any,
        *,
        n_samples: int = 1000,
        names: Sequence[str] | None = None,
        confidence: float = 0.95,
        n_jobs: int | None = None,
        random_state: RandomState = None,
        ax: Any = None,
        kind: str = "both",
    ) -> Self:
        """Sample the posterior of every observation and plot the ranks of the truths.

        Parameters
        ----------
        estimator, theta, X, n_samples, n_jobs, random_state
            As in `coverage_score`.
        names : sequence of str, optional
            Names of the parameters; by default the estimator's.
        confidence : float, default=0.95
            Confidence of the bands.
        ax, kind
            As in `plot`.

        Returns
        -------
        RankDisplay
        """
        options = {"n_samples": n_samples, "n_jobs": n_jobs, "random_state": random_state}
        estimator = fitted_estimator(estimator)
        ranks = estimator_ranks(estimator, theta, X, **options)
        names = parameter_names(ranks.shape[1], names, estimator)
        return cls(ranks, n_samples, names=names, confidence=confidence).plot(ax, kind=kind)

    @classmethod
    def from_predictions(
        cls,
        theta: ArrayLike,
        samples: ArrayLike,
        *,
        names: Sequence[str] | None = None,
        confidence: float = 0.95,
        random_state: RandomState = None,
        ax: Any = None,
        kind: str = "both",
    ) -> Self:
        """Plot the ranks of truths among posterior draws.

        Parameters
        ----------
        theta : array-like, shape (n, p)
            The true parameters of n runs.
        samples : array-like, shape (n, n_samples, p)
            Posterior draws for each run.
        names : sequence of str, optional
            Names of the parameters; by default theta_0, theta_1 and so on.
        confidence : float, default=0.95
            Confidence of the bands.
        random_state : int, Generator, RandomState or None, default=None
            Breaks ties.
        ax, kind
            As in `plot`.

        Returns
        -------
        RankDisplay
        """
        ranks = sbc_ranks(theta, samples, random_state=random_state)
        names = parameter_names(ranks.shape[1], names)
        n_samples = np.shape(samples)[1]
        return cls(ranks, n_samples, names=names, confidence=confidence).plot(ax, kind=kind)

    def plot(self, ax: Any = None, *, kind: str = "both") -> Self:
        """Draw the ranks.

        Parameters
        ----------
        ax : Axes, or several of them, optional
            One for each histogram, and then one for the ECDF; by default those of a new figure.
        kind : {"both", "histogram", "ecdf"}, default="both"
            Which panels to draw: p histograms, the ECDF, or p + 1 panels.

        Returns
        -------
        self
        """
        histograms = [partial(self._plot_histogram, j) for j in range(len(self.names))]
        panels = {
            "histogram": histograms,
            "ecdf": [self._plot_ecdf],
            "both": [*histograms, self._plot_ecdf],
        }
        if kind not in panels:
            raise ValueError(f"kind must be one of {sorted(panels)}; got {kind!r}.")
        axes = as_axes(ax, len(panels[kind]))
        for axis, plot_panel in zip(axes, panels[kind], strict=True):
            plot_panel(axis)
        if kind != "histogram":  # in a new figure beside the panel, to hide no part of the band
            beside = {"loc": "upper left", "bbox_to_anchor": (1.02, 1)} if ax is None else {}
            axes[-1].legend(frameon=False, **beside)
        self.ax_, self.figure_ = (axes if len(axes) > 1 else axes[0]), axes[0].figure
        return self

    def _plot_histogram(self, j: int, ax: Any) -> None:
        """Draw runs per bin, scaled as if all bins held equally many ranks (they may not)."""
        n, n_bins = len(self.ranks), min(_MAX_BINS, self.n_samples + 1)
        edges = np.linspace(-0.5, self.n_samples + 0.5, n_bins + 1)
        share = np.diff(np.ceil(edges)) / (self.n_samples + 1)  # of all ranks, in each bin
        scale = n / share / n_bins
        lower, upper = (edge * scale for edge in binomial_band(n, share, self.confidence))
        lower, upper = np.append(lower, lower[-1]), np.append(upper, upper[-1])
        ax.fill_between(edges, lower, upper, step="post", **BAND_STYLE)
        ax.axhline(n / n_bins, color="0.4", lw=0.8)
        colour, name, column = list(coloured_columns(self.names, self.ranks))[j]
        counts = np.histogram(column, edges)[0] / share / n_bins
        ax.stairs(counts, edges, baseline=None, color=colour, lw=1.3, label=name)
        ax.set(xlabel="rank of the truth among the draws", ylabel="runs", ylim=(0, None))
        ax.set_title(name)

    def _plot_ecdf(self, ax: Any) -> None:
        grid, levels = rank_grid(self.n_samples)
        lower, upper = ecdf_band(len(self.ranks), levels, self.confidence)
        label = f"{self.confidence:.0%} by chance"
        ax.fill_between(levels, lower - levels, upper - levels, label=label, **BAND_STYLE)
        ax.axhline(0, color="0.4", lw=0.8)
        for colour, name, column in coloured_columns(self.names, self.ranks):
            ecdf = (column[:, None] <= grid).mean(axis=0)
            ax.plot(levels, ecdf - levels, color=colour, lw=1.3, label=name)
        ax.set(xlabel="share of the draws below the truth", ylabel="ECDF - uniform", xlim=(0, 1))
