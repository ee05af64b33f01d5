"""The coverage plot: empirical against nominal coverage of credible regions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erf

from skbi.calibration.coverage import coverage_curve, estimator_curve
from skbi.calibration.runs import fitted_estimator
from skbi.plotting.axes import BAND_STYLE, as_axes, coloured_columns, curve_names
from skbi.randomness import RandomState

__all__ = ["CoverageDisplay"]

_SIGMA_LABELS = {1: "$1\\sigma$", 2: "$2\\sigma$", 3: "$3\\sigma$"}


class CoverageDisplay:
    """Empirical against nominal coverage, on linear and on logarithmic axes.

    The logarithmic axes show the tails: the probability outside of the credible regions. Make a
    display by `from_estimator` or `from_predictions`.

    Parameters
    ----------
    nominal : ndarray, shape (m,)
        Nominal coverage, as `coverage_curve` returns it.
    empirical : ndarray, shape (m, k)
        Empirical coverage, one column for each curve.
    lower, upper : ndarray, shape (m,)
        The band in which a calibrated curve lies.
    names : sequence of k str
        Names of the curves.
    n_runs : int
        Number of runs behind each curve. The logarithmic axes end at the share of one of them.

    Attributes
    ----------
    ax_ : Axes or ndarray of Axes
    figure_ : Figure

    See Also
    --------
    coverage_score : One number.
    RankDisplay : The same runs as ranks.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> theta, samples = rng.normal(size=(100, 2)), rng.normal(size=(100, 200, 2))
    >>> display = CoverageDisplay.from_predictions(theta, samples, names=["a", "b"])
    >>> display.empirical.shape[1]
    2
    """

    def __init__(
        self,
        nominal: NDArray[np.float64],
        empirical: NDArray[np.float64],
        lower: NDArray[np.float64],
        upper: NDArray[np.float64],
        *,
        names: Sequence[str],
        n_runs: int,
    ) -> None:
        self.nominal, self.empirical = nominal, empirical
        self.lower, self.upper = lower, upper
        self.names, self.n_runs = names, n_runs

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        theta: ArrayLike,
        X: Any,
        *,
        kind: str = "rank",
        n_samples: int = 1000,
        names: Sequence[str] | None = None,
        confidence: float = 0.95,
        n_jobs: int | None = None,
        random_state: RandomState = None,
        ax: Any = None,
        scale: str = "both",
    ) -> Self:
        """Sample the posterior of every observation and plot the coverage of the truths.

        Parameters
        ----------
        estimator, theta, X, kind, n_samples, n_jobs, random_state
            As in `coverage_score`.
        names : sequence of str, optional
            Names of the parameters; by default the estimator's.
        confidence : float, default=0.95
            Probability that a calibrated curve lies within the band, as in `coverage_curve`.
        ax, scale
            As in `plot`.

        Returns
        -------
        CoverageDisplay
        """
        options = {"n_samples": n_samples, "n_jobs": n_jobs, "random_state": random_state}
        estimator = fitted_estimator(estimator)
        curve = estimator_curve(estimator, theta, X, kind, confidence, **options)
        names = curve_names(kind, curve[1].shape[1], names, estimator)
        return cls(*curve, names=names, n_runs=len(theta)).plot(ax, scale=scale)

    @classmethod
    def from_predictions(
        cls,
        theta: ArrayLike,
        samples: ArrayLike,
        *,
        kind: str = "rank",
        names: Sequence[str] | None = None,
        ax: Any = None,
        scale: str = "both",
        **options: Any,
    ) -> Self:
        """Plot the coverage of truths by posterior draws.

        Parameters
        ----------
        theta : array-like, shape (n, p)
            The true parameters of n runs.
        samples : array-like, shape (n, n_samples, p)
            Posterior draws for each run.
        kind : {"rank", "sigma", "hpd", "tarp"}, default="rank"
            The kind of credible region, see `coverage_score`.
        names : sequence of str, optional
            Names of the parameters; by default theta_0, theta_1 and so on.
        ax, scale
            As in `plot`.
        **options
            Further options of `coverage_curve`.

        Returns
        -------
        CoverageDisplay
        """
        curve = coverage_curve(theta, samples, kind=kind, **options)
        names = curve_names(kind, curve[1].shape[1], names)
        return cls(*curve, names=names, n_runs=len(theta)).plot(ax, scale=scale)

    def plot(self, ax: Any = None, *, scale: str = "both") -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : Axes, or two of them for both scales, optional
            By default those of a new figure.
        scale : {"both", "linear", "log"}, default="both"
            Which axes to draw.

        Returns
        -------
        self
        """
        panels = {
            "linear": [self._plot_linear],
            "log": [self._plot_log],
            "both": [self._plot_linear, self._plot_log],
        }
        if scale not in panels:
            raise ValueError(f"scale must be one of {sorted(panels)}; got {scale!r}.")
        axes = as_axes(ax, len(panels[scale]))
        for axis, plot_panel in zip(axes, panels[scale], strict=True):
            plot_panel(axis)
        axes[0].legend(frameon=False)
        self.ax_, self.figure_ = (axes if scale == "both" else axes[0]), axes[0].figure
        return self

    def _plot_linear(self, ax: Any) -> None:
        self._plot_curves(ax, lambda coverage: coverage)
        ax.set(xlabel="nominal coverage", ylabel="empirical coverage", aspect="equal")
        ax.set(xlim=(0, 1), ylim=(0, 1))
        ax.text(0.97, 0.05, "overconfident", ha="right", color="0.5", transform=ax.transAxes)

    def _plot_log(self, ax: Any) -> None:
        self._plot_curves(ax, lambda coverage: np.maximum(1 - coverage, 1e-12))
        end = 1 / max(2, self.n_runs)
        ax.set(xlabel="1 - nominal coverage", ylabel="1 - empirical coverage", aspect="equal")
        ax.set(xscale="log", yscale="log", xlim=(1, end), ylim=(1, end))
        for k, label in _SIGMA_LABELS.items():
            outside = 1 - erf(k / math.sqrt(2))
            if outside > end:
                ax.axvline(outside, color="0.75", lw=0.7, zorder=0)
                ax.text(outside, 0.8, label, color="0.5", size=8, ha="left", va="top")

    def _plot_curves(
        self, ax: Any, transform: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    ) -> None:
        """Draw band, diagonal and curves, with all coverages transformed."""
        x, lower, upper = (transform(values) for values in (self.nominal, self.lower, self.upper))
        ax.fill_between(x, lower, upper, label="by chance", **BAND_STYLE)
        ax.plot(x, x, color="0.4", lw=0.8)
        for colour, name, column in coloured_columns(self.names, self.empirical):
            ax.plot(x, transform(column), color=colour, lw=1.3, label=name)
