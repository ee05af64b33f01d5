"""The picture of a local test: where a posterior has too much density, and where too little."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skbi.calibration.classifier import LocalTest, lc2st
from skbi.calibration.runs import parameter_names
from skbi.plotting.axes import import_pyplot
from skbi.plotting.layout import arrange_triangle

__all__ = ["LC2STDisplay"]

_N_BINS = 30
_SHOWN = (0.002, 0.998)  # quantiles of the draws that the axes show
_LEAST_RANGE = 0.1  # of the colours around 1/2, so that chance does not look like a finding


class LC2STDisplay:
    """Probabilities of the `lc2st` classifier over the posterior draws, by pairs of parameters.

    Where the probability of being a truth is below 1/2 (blue), the posterior has too much density;
    where it is above (red), too little. The diagonal has its mean along each parameter.

    Parameters
    ----------
    result : LocalTest
        From `lc2st`.
    observation : int, default=0
        Which of its observations to show.

    Attributes
    ----------
    ax_ : ndarray of Axes, shape (p, p)
    figure_ : Figure

    See Also
    --------
    lc2st : The test.

    References
    ----------
    Linhart et al., L-C2ST: Local diagnostics for posterior approximations in simulation-based
    inference, 2023, https://arxiv.org/abs/2306.03580.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> draws = rng.normal(size=(500, 2))
    >>> LC2STDisplay.from_predictions(draws, 0.5 + 0.1 * np.tanh(draws[:, 0])).ax_.shape
    (2, 2)
    """

    def __init__(self, result: LocalTest, *, observation: int = 0) -> None:
        self.result, self.observation = result, observation

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        theta: ArrayLike,
        X: Any,
        X_obs: Any,
        *,
        figure: Any = None,
        **options: Any,
    ) -> Self:
        """Run the test and draw its first observation.

        Parameters
        ----------
        estimator, theta, X, X_obs, **options
            As in `lc2st`.
        figure : Figure or SubFigure, optional
            By default a new one.

        Returns
        -------
        LC2STDisplay
        """
        return cls(lc2st(estimator, theta, X, X_obs, **options)).plot(figure)

    @classmethod
    def from_predictions(
        cls,
        samples: ArrayLike,
        probabilities: ArrayLike,
        *,
        names: Sequence[str] | None = None,
        figure: Any = None,
    ) -> Self:
        """Draw given probabilities.

        Parameters
        ----------
        samples : array-like, shape (n_samples, p)
            Posterior draws at one observation.
        probabilities : array-like, shape (n_samples,)
            The classifier's probability that each of them is a truth.
        names : sequence of str, optional
            Names of the parameters; by default theta_0, theta_1 and so on.
        figure : Figure or SubFigure, optional
            By default a new one.

        Returns
        -------
        LC2STDisplay
        """
        draws, d = np.asarray(samples, float)[None], np.asarray(probabilities, float)[None]
        nothing = np.full((0, 1), np.nan)
        statistic = ((d - 0.5) ** 2).mean(axis=1)
        names = parameter_names(draws.shape[2], names)
        return cls(LocalTest(statistic, np.full(1, np.nan), nothing, d, draws, names)).plot(figure)

    def plot(self, figure: Any = None) -> Self:
        """Draw the probabilities.

        Parameters
        ----------
        figure : Figure or SubFigure, optional
            By default a new one.

        Returns
        -------
        self
        """
        plt = import_pyplot()
        draws = self.result.samples[self.observation]
        d, p = self.result.probabilities[self.observation], draws.shape[1]
        if figure is None:
            figure = plt.figure(figsize=(2.2 + 1.7 * p, 1.8 + 1.7 * p), layout="none")
        axes = figure.subplots(p, p, squeeze=False)
        reach = max(_LEAST_RANGE, math.ceil(20 * np.quantile(np.abs(d - 0.5), 0.99)) / 20)
        colour = {"cmap": "RdBu_r", "vmin": 0.5 - reach, "vmax": 0.5 + reach}
        limits = np.quantile(draws, _SHOWN, axis=0).T
        for i, j in np.ndindex(p, p):
            ax = axes[i, j]
            ax.set_visible(i >= j)
            ax.set_xlim(*_widened(limits[j]))
            if i > j:
                order = np.argsort(np.abs(d - 0.5))  # the clearest on top
                x, y = draws[order, j], draws[order, i]
                image = ax.scatter(x, y, c=d[order], s=5, linewidths=0, **colour)
                ax.set_ylim(*_widened(limits[i]))
        for j, ax in enumerate(axes.diagonal()):
            self._plot_mean(ax, draws[:, j], d, limits[j], reach)
        self.ax_, self.figure_ = axes, figure
        arrange_triangle(figure, axes, self.result.names)
        if p > 1:
            upper = axes[0, -1].get_position()
            bar = figure.add_axes([upper.x0 + 0.3 * upper.width, upper.y0, 0.03, upper.height])
            figure.colorbar(image, cax=bar, label="P(truth)")
        return self

    def _plot_mean(self, ax: Any, x: Any, d: Any, limits: Any, reach: float) -> None:
        """Draw the mean probability along one parameter, over the histogram of the draws."""
        counts, edges = np.histogram(x, _N_BINS, limits)
        sums, _ = np.histogram(x, edges, weights=d)
        ax.stairs(
            0.5 - reach + counts / counts.max() * reach, edges, baseline=0, fill=True, color="0.9"
        )
        ax.axhline(0.5, color="0.5", lw=0.8)
        with np.errstate(invalid="ignore"):
            mean = np.where(counts >= 5, sums / counts, np.nan)
        ax.plot((edges[1:] + edges[:-1]) / 2, mean, color="black", lw=1.2)
        ax.set_ylim(0.5 - reach, 0.5 + reach)
        ax.yaxis.tick_right()
        ticks = [0.5 - reach / 2, 0.5, 0.5 + reach / 2]
        ax.set_yticks(ticks, [f"{tick:.2g}" for tick in ticks])


def _widened(limits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Leave a margin of 5 % around limits."""
    low, high = limits
    margin = 0.05 * (high - low) or 0.5
    return np.array([low - margin, high + margin])
