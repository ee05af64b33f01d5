"""The corner plot: marginal and pairwise posteriors, with the true parameters marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skbi.plotting.axes import colours, import_pyplot, parameter_names
from skbi.plotting.layout import arrange_triangle
from skbi.randomness import RandomState

__all__ = ["PosteriorDisplay"]

_CONTOUR_LEVELS = (0.393, 0.865)  # one and two sigma of a two-dimensional Gaussian
_N_BINS = 40


class PosteriorDisplay:
    """Marginal and pairwise posteriors (a corner plot), with the truth marked.

    Several posteriors are drawn over each other. The contours hold 39 % and 86 % of the draws,
    which is one and two sigma of a Gaussian. A parameter has a logarithmic axis if all its draws
    and the truth are positive and the central 99 % of the draws span more than two decades. A
    histogram then shows the density per decade.

    Parameters
    ----------
    samples : mapping of str to ndarray of shape (n_samples, p)
        Posterior draws by the labels of the posteriors.
    names : sequence of p str
        Names of the parameters.
    truth : array-like, shape (p,), optional
        The true parameters; None or NaN where one is unknown.

    Attributes
    ----------
    ax_ : ndarray of Axes, shape (p, p)
    figure_ : Figure

    Examples
    --------
    >>> draws = np.random.default_rng(0).normal(size=(500, 2))
    >>> display = PosteriorDisplay.from_predictions(draws, names=["a", "b"], truth=[0, 0])
    >>> display.ax_.shape
    (2, 2)
    """

    def __init__(
        self,
        samples: Mapping[str, NDArray[np.float64]],
        *,
        names: Sequence[str],
        truth: ArrayLike | None = None,
    ) -> None:
        self.samples, self.names, self.truth = samples, names, truth

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X_obs: Any,
        *,
        n_samples: int = 10_000,
        names: Sequence[str] | None = None,
        truth: ArrayLike | None = None,
        random_state: RandomState = None,
        figure: Any = None,
    ) -> Self:
        """Sample the posterior of one observation and plot it.

        Parameters
        ----------
        estimator : object with ``sample_posterior``
            As in `coverage_score`.
        X_obs : array-like
            One observation, or a batch that holds one.
        n_samples : int, default=10,000
            Number of posterior draws.
        names : sequence of str, optional
            Names of the parameters; by default the estimator's.
        truth : array-like, shape (p,), optional
            The true parameters; None or NaN where one is unknown.
        random_state : int, Generator, RandomState or None, default=None
            Passed on to ``sample_posterior``.
        figure : Figure or SubFigure, optional
            By default a new one.

        Returns
        -------
        PosteriorDisplay
        """
        draws = estimator.sample_posterior(X_obs, n_samples, random_state=random_state)
        if draws.ndim == 3 and len(draws) == 1:
            draws = draws[0]
        if names is None:
            names = getattr(estimator, "parameter_names_in_", None)
        return cls.from_predictions(draws, names=names, truth=truth, figure=figure)

    @classmethod
    def from_predictions(
        cls,
        samples: ArrayLike | dict[str, ArrayLike],
        *,
        names: Sequence[str] | None = None,
        truth: ArrayLike | None = None,
        figure: Any = None,
    ) -> Self:
        """Plot posterior draws.

        Parameters
        ----------
        samples : array-like, shape (n_samples, p), or dict of str to such
            The draws of one posterior, or of several with their labels.
        names : sequence of str, optional
            Names of the parameters; by default the columns of a DataFrame, or else theta_0, theta_1
            and so on.
        truth : array-like, shape (p,), optional
            The true parameters; None or NaN where one is unknown.
        figure : Figure or SubFigure, optional
            By default a new one.

        Returns
        -------
        PosteriorDisplay

        Raises
        ------
        ValueError
            If the draws are not finite, are too few, or belong to more than one observation.
        """
        if names is None:
            names = getattr(samples, "columns", None)
        posteriors = samples if type(samples) is dict else {"posterior": samples}
        posteriors = {label: np.asarray(draws, float) for label, draws in posteriors.items()}
        p = _check_posteriors(posteriors)
        if truth is not None and np.shape(truth) != (p,):
            raise ValueError(f"truth must have shape ({p},); got {np.shape(truth)}.")
        return cls(posteriors, names=parameter_names(p, names), truth=truth).plot(figure)

    def plot(self, figure: Any = None) -> Self:
        """Draw the posteriors.

        Parameters
        ----------
        figure : Figure or SubFigure, optional
            By default a new one, whose size grows with the number of parameters.

        Returns
        -------
        self
        """
        plt, corner, p = import_pyplot(), _import_corner(), len(self.names)
        if figure is None:
            figure = plt.figure(figsize=(1.8 + 1.7 * p,) * 2, layout="none")
        log_scaled = self._log_scaled()
        options = {
            "axes_scale": ["log" if log else "linear" for log in log_scaled],
            "range": self._ranges(log_scaled),
            "fill_contours": len(self.samples) == 1,
        }
        posterior_colours = dict(zip(self.samples, colours(len(self.samples)), strict=True))
        for label, draws in self.samples.items():
            corner.corner(
                draws, fig=figure, color=posterior_colours[label], bins=_N_BINS, smooth=1.0,
                levels=_CONTOUR_LEVELS, plot_datapoints=False, plot_density=False, quiet=True,
                max_n_ticks=0, weights=np.full(len(draws), 1 / len(draws)), **options,
            )  # fmt: skip
        self.ax_, self.figure_ = np.reshape(figure.axes, (p, p)), figure
        self._scale_histograms()
        self._mark_truth()
        arrange_triangle(figure, self.ax_, self.names, self._add_legend(posterior_colours))
        return self

    def _truth_or_nan(self) -> NDArray[np.float64]:
        truth = np.full(len(self.names), np.nan) if self.truth is None else self.truth
        return np.asarray(truth, dtype=float)

    def _quantiles(self, tail: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lowest lower and highest upper quantile of all posteriors, two arrays (p,)."""
        draws = self.samples.values()
        low = [np.quantile(x, tail, axis=0, method="lower") for x in draws]
        high = [np.quantile(x, 1 - tail, axis=0, method="higher") for x in draws]
        return np.min(low, axis=0), np.max(high, axis=0)

    def _log_scaled(self) -> NDArray[np.bool_]:
        """Which parameters are positive and span more than two decades, (p,)."""
        low, high = self._quantiles(0.005)
        lowest = np.min([draws.min(axis=0) for draws in self.samples.values()], axis=0)
        positive = (lowest > 0) & ~(self._truth_or_nan() <= 0)
        return positive & (high > 100 * low)

    def _ranges(self, log_scaled: NDArray[np.bool_]) -> list[tuple[float, float]]:
        """Return axis limits within which nearly all draws and the truth lie."""
        low, high = self._quantiles(0.001)
        constant = _nearly_equal(low, high)
        half_width = np.where(constant, np.where(low == 0, 0.5, 0.5 * np.abs(low)), 0)
        low, high = low - half_width, high + half_width
        margin = 0.05 * (high - low)
        positive_low, positive_high = (np.where(log_scaled, x, 1) for x in (low, high))
        ratio = positive_high**0.05 / positive_low**0.05  # a margin of 5 % of the decades
        for values in (self._truth_or_nan(), *self._constant_draws()):
            low = np.fmin(low, np.where(log_scaled, values / ratio, values - margin))
            high = np.fmax(high, np.where(log_scaled, values * ratio, values + margin))
        return list(zip(low.tolist(), high.tolist(), strict=True))

    def _constant_draws(self) -> list[NDArray[np.float64]]:
        """Return each posterior's draws of the parameters that do not vary, or NaN, (p,)."""
        return [
            np.where(_nearly_equal(draws.min(axis=0), draws.max(axis=0)), draws[0], np.nan)
            for draws in self.samples.values()
        ]

    def _scale_histograms(self) -> None:
        """Make room for the highest bar; the single bar of constant draws may be cut off."""
        spread = np.isnan(self._constant_draws())
        for ax, varies in zip(self.ax_.diagonal(), spread.T, strict=True):
            outlines = ax.patches[-len(self.samples) :]
            heights = np.array([outline.get_xy()[:, 1].max() for outline in outlines])
            ax.set_ylim(0, 1.1 * (heights[varies] if varies.any() else heights).max())

    def _mark_truth(self) -> None:
        """Draw lines through the true parameters (corner's own fail for one parameter)."""
        truth = self._truth_or_nan()
        for i, j in zip(*np.tril_indices(len(truth)), strict=True):
            if np.isfinite(truth[j]):
                self.ax_[i, j].axvline(truth[j], color="black")
            if j < i and np.isfinite(truth[i]):
                self.ax_[i, j].axhline(truth[i], color="black")

    def _add_legend(self, posterior_colours: Mapping[str, str]) -> Any:
        """Name the posteriors, if there are several, and the truth, if it is known."""
        from matplotlib.lines import Line2D

        lines = dict(posterior_colours) if len(posterior_colours) > 1 else {}
        lines |= {} if self.truth is None else {"truth": "black"}
        if not lines:
            return None
        handles = [Line2D([], [], color=colour) for colour in lines.values()]
        return self.figure_.legend(handles, list(lines), frameon=False, loc="upper right")


def _import_corner() -> Any:
    try:
        import corner
    except ImportError as error:
        raise ImportError('Corner plots need corner: pip install "skbi[plot]"') from error
    return corner


def _check_posteriors(posteriors: dict[str, NDArray[np.float64]]) -> int:
    """Refuse draws that a corner plot cannot show; return their number of parameters."""
    shapes = {draws.shape[1:] for draws in posteriors.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise ValueError(
            "samples must be draws (n_samples, p) of one observation, or several with the same "
            f"p; got shapes {[draws.shape for draws in posteriors.values()]}."
        )
    (p,) = next(iter(shapes))
    for label, draws in posteriors.items():
        if len(draws) <= p or not np.isfinite(draws).all():
            raise ValueError(
                f"A corner plot needs more than {p} draws, all finite; {label!r} has "
                f"{len(draws)}, of which {np.isfinite(draws).all(axis=1).sum()} finite."
            )
    return p


def _nearly_equal(low: ArrayLike, high: ArrayLike) -> Any:
    """Whether numbers are equal but for rounding, so that no axis can resolve them."""
    return np.subtract(high, low) <= 1e-12 * np.maximum(np.abs(low), np.abs(high))
