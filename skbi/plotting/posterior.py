"""The corner plot: marginal and pairwise posteriors, with the true parameters marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skbi.analysis.conditional import ConditionalPosterior
from skbi.calibration.runs import fitted_estimator, parameter_names
from skbi.plotting.axes import colours, import_pyplot
from skbi.plotting.layout import arrange_triangle
from skbi.randomness import RandomState

__all__ = ["PosteriorDisplay"]

Limits = Mapping[str, tuple[float, float] | None] | Sequence[tuple[float, float] | None]

_CONTOUR_LEVELS = (0.393, 0.865)  # one and two sigma of a two-dimensional Gaussian
_N_BINS = 40
_MIN_LOG_RATIO = 100.0  # of the largest and the smallest draws, for a logarithmic axis
_TINY, _HUGE = 1e-300, 1e300  # sizes of numbers that axes can show


class PosteriorDisplay:
    """Marginal and pairwise posteriors (a corner plot), with the truth marked.

    Several posteriors are drawn over each other. The contours hold 39 % and 86 % of the draws,
    which is one and two sigma of a Gaussian. A parameter has a logarithmic axis if none of its
    draws is negative, the truth is positive, and the central 99 % of the positive draws span more
    than two decades. A histogram then shows the density per decade, and draws of zero are shown at
    the lower end of the axis.

    Parameters
    ----------
    samples : mapping of str to ndarray of shape (n_samples, p)
        Posterior draws by the labels of the posteriors.
    names : sequence of p str
        Names of the parameters.
    truth : array-like, shape (p,), optional
        The true parameters; None or NaN where one is unknown.
    limits : mapping of str to (low, high), or sequence of p of them, optional
        The ends of axes, by the names of the parameters; None or left out where they follow from
        the draws. Draws beyond them are left out of histograms and contours.
    titles : bool, default=False
        Whether to write the median and the central 68 % interval of the first posterior above the
        histograms.

    Attributes
    ----------
    ax_ : ndarray of Axes, shape (p, p)
    figure_ : Figure

    See Also
    --------
    posterior_summary : The same in numbers.

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
        limits: Limits | None = None,
        titles: bool = False,
    ) -> None:
        self.samples, self.names, self.truth, self.limits = samples, names, truth, limits
        self.titles = titles

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X_obs: Any,
        *,
        n_samples: int = 10_000,
        names: Sequence[str] | None = None,
        parameters: Sequence[str | int] | None = None,
        truth: ArrayLike | None = None,
        limits: Limits | None = None,
        given: Mapping[str, float] | None = None,
        titles: bool = False,
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
        parameters, truth, limits, titles
            As in `from_predictions`.
        given : mapping of str to float, optional
            Values of some parameters by their names: the others are drawn given these, see
            `skbi.ConditionalPosterior`.
        random_state : int, Generator, RandomState or None, default=None
            Passed on to ``sample_posterior``.
        figure : Figure or SubFigure, optional
            By default a new one.

        Returns
        -------
        PosteriorDisplay
        """
        estimator = fitted_estimator(estimator)
        if given is not None:
            estimator = ConditionalPosterior(estimator, given)
        draws = estimator.sample_posterior(X_obs, n_samples, random_state=random_state)
        if draws.ndim == 3 and len(draws) == 1:
            draws = draws[0]
        if names is None:
            names = getattr(estimator, "parameter_names_in_", None)
        options = {"names": names, "parameters": parameters, "truth": truth, "limits": limits}
        options["titles"] = titles
        return cls.from_predictions(draws, figure=figure, **options)

    @classmethod
    def from_predictions(
        cls,
        samples: ArrayLike | dict[str, ArrayLike],
        *,
        names: Sequence[str] | None = None,
        parameters: Sequence[str | int] | None = None,
        truth: ArrayLike | None = None,
        limits: Limits | None = None,
        titles: bool = False,
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
        parameters : sequence of str or int, optional
            The parameters to show, in this order, by their names or numbers; by default all.
        truth : array-like, shape (p,), optional
            The true parameters; None or NaN where one is unknown.
        limits : mapping of str to (low, high), or sequence of them, optional
            The ends of the axes of parameters by their names, or of all parameters that are shown;
            None where they follow from the draws. Draws beyond them are left out of histograms and
            contours.
        titles : bool, default=False
            Whether to write the median and the central 68 % interval of the first posterior above
            the histograms, between whose dashed lines they lie.
        figure : Figure or SubFigure, optional
            By default a new one.

        Returns
        -------
        PosteriorDisplay

        Raises
        ------
        ValueError
            If the draws are not finite, are too few, or belong to more than one observation; if
            there is no such parameter; or if the limits leave nothing to show.
        """
        if names is None:
            names = getattr(samples, "columns", None)
        posteriors = samples if type(samples) is dict else {"posterior": samples}
        posteriors = {label: np.asarray(draws, float) for label, draws in posteriors.items()}
        p = _check_posteriors(posteriors)
        if truth is not None and np.shape(truth) != (p,):
            raise ValueError(f"truth must have shape ({p},); got {np.shape(truth)}.")
        if truth is not None and (np.abs(np.asarray(truth, float)) > _HUGE).any():
            raise ValueError(f"truth must be finite, or None where it is unknown; got {truth}.")
        names = parameter_names(p, names)
        shown = _find_parameters(names, parameters)
        posteriors = {label: draws[:, shown] for label, draws in posteriors.items()}
        truth = None if truth is None else [truth[j] for j in shown]
        names = [names[j] for j in shown]
        options = {"truth": truth, "limits": limits, "titles": titles}
        return cls(posteriors, names=names, **options).plot(figure)

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
        limits = self._given_limits()
        log_scaled = [self._is_log_scaled(j, limits[j]) for j in range(p)]
        limits = [
            self._fitting_limits(j, log) if given is None else given
            for j, (given, log) in enumerate(zip(limits, log_scaled, strict=True))
        ]
        shown = self._shown_draws(limits, log_scaled)
        options = {
            "axes_scale": ["log" if log else "linear" for log in log_scaled],
            "range": limits,
            "fill_contours": len(self.samples) == 1,
        }
        posterior_colours = dict(zip(self.samples, colours(len(self.samples)), strict=True))
        for label, draws in shown.items():
            corner.corner(
                draws, fig=figure, color=posterior_colours[label], bins=_N_BINS, smooth=1.0,
                levels=_CONTOUR_LEVELS, plot_datapoints=False, plot_density=False, quiet=True,
                max_n_ticks=0, weights=np.full(len(draws), 1 / len(draws)), **options,
            )  # fmt: skip
        self.ax_, self.figure_ = np.reshape(figure.axes, (p, p)), figure
        self._scale_histograms()
        self._mark_truth()
        if self.titles:
            self._write_titles()
        arrange_triangle(figure, self.ax_, self.names, self._add_legend(posterior_colours))
        return self

    def _truth_or_nan(self) -> NDArray[np.float64]:
        truth = np.full(len(self.names), np.nan) if self.truth is None else self.truth
        return np.asarray(truth, dtype=float)

    def _given_limits(self) -> list[tuple[float, float] | None]:
        """Return the limits that the user gave, or None, for each parameter."""
        limits = {} if self.limits is None else self.limits
        if not isinstance(limits, Mapping):
            if len(limits) != len(self.names):
                raise ValueError(
                    f"limits must hold a pair (low, high) for each of {list(self.names)}; got "
                    f"{len(limits)} of them."
                )
            limits = dict(zip(self.names, limits, strict=True))
        if unknown := sorted(set(limits) - set(self.names)):
            raise ValueError(f"limits are for {unknown}; the parameters are {list(self.names)}.")
        return [_check_limits(name, limits.get(name)) for name in self.names]

    def _columns(self, j: int) -> list[NDArray[np.float64]]:
        """Return the draws of a parameter, of each posterior."""
        return [draws[:, j] for draws in self.samples.values()]

    def _is_log_scaled(self, j: int, limits: tuple[float, float] | None) -> bool:
        """Whether a parameter is never negative and spans more than two decades."""
        columns = self._columns(j)
        if min(x.min() for x in columns) < 0 or self._truth_or_nan()[j] <= 0:
            return False
        if limits is not None:
            return limits[0] > 0 and limits[1] > _MIN_LOG_RATIO * limits[0]
        positive = _positive(columns)
        if not positive:
            return False
        low, high = _outer_quantiles(positive, 0.005)
        return bool(high > _MIN_LOG_RATIO * low)

    def _fitting_limits(self, j: int, log: bool) -> tuple[float, float]:
        """Return limits within which nearly all draws and the truth lie."""
        columns = self._columns(j)
        low, high = _outer_quantiles(_positive(columns) if log else columns, 0.001)
        shown = [self._truth_or_nan()[j], *self._constant_draws()[:, j]]
        if log:
            ratio = high**0.05 / low**0.05  # a margin of 5 % of the decades
            positive = [x for x in shown if x > _TINY]
            return (
                max(_TINY, min([low, *(x / ratio for x in positive)])),
                min(_HUGE, max([high, *(x * ratio for x in positive)])),
            )
        if _nearly_equal(low, high):
            half_width = 0.5 * abs(low) if abs(low) > _TINY else 0.5
            low, high = low - half_width, high + half_width
        margin = 0.05 * (high - low)
        for value in shown:
            low, high = np.fmin(low, value - margin), np.fmax(high, value + margin)
        return float(low), float(high)

    def _shown_draws(
        self, limits: Sequence[tuple[float, float]], log_scaled: Sequence[bool]
    ) -> dict[str, NDArray[np.float64]]:
        """Return the draws, zeros at the lower end of logarithmic axes; refuse to show nothing."""
        low, high = np.transpose(limits)
        shown = {}
        for label, draws in self.samples.items():
            zero = (draws >= 0) & (draws <= _TINY) & log_scaled
            shown[label] = np.where(zero, low * (1 + 1e-9), draws)
            inside = ((low <= shown[label]) & (shown[label] <= high)).astype(np.float64)
            n_inside = inside.T @ inside  # of pairs of parameters, and of each on the diagonal
            empty = [np.flatnonzero(n_inside.diagonal() == 0), *np.argwhere(n_inside == 0)]
            if len(empty) > 1:
                which = empty[0] if len(empty[0]) else empty[1]
                names = [self.names[j] for j in which]
                raise ValueError(
                    f"No draw of {label!r} lies within the limits of {names}. Its central 99 % "
                    f"span {np.quantile(draws[:, which], [0.005, 0.995], axis=0).T.tolist()}."
                )
        return shown

    def _constant_draws(self) -> NDArray[np.float64]:
        """Return each posterior's draws of the parameters that do not vary, or NaN, (k, p)."""
        return np.stack(
            [
                np.where(_nearly_equal(draws.min(axis=0), draws.max(axis=0)), draws[0], np.nan)
                for draws in self.samples.values()
            ]
        )

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

    def _write_titles(self) -> None:
        """Write medians with the distances to the ends of their intervals, and mark all three."""
        first, one_sigma = next(iter(self.samples.values())), [0.16, 0.5, 0.84]
        for ax, draws in zip(self.ax_.diagonal(), first.T, strict=True):
            low, median, high = np.quantile(draws, one_sigma)
            for value in (low, median, high):
                ax.axvline(value, color=colours(1)[0], lw=0.8, ls="--")
            ax.set_title(_with_errors(median, low, high), fontsize="small")

    def _add_legend(self, posterior_colours: Mapping[str, str]) -> Any:
        """Name the posteriors, if there are several, and the truth, if it is known."""
        from matplotlib.lines import Line2D

        lines = dict(posterior_colours) if len(posterior_colours) > 1 else {}
        lines |= {} if self.truth is None else {"truth": "black"}
        if not lines:
            return None
        handles = [Line2D([], [], color=colour) for colour in lines.values()]
        return self.figure_.legend(handles, list(lines), frameon=False, loc="upper right")


def _with_errors(median: float, low: float, high: float) -> str:
    """Write a median and the distances to two quantiles, these with two digits."""
    below, above = median - low, high - median
    least = min([e for e in (below, above) if e > 0], default=1.0)
    digits = int(np.clip(1 - np.floor(np.log10(least)), 0, 12))
    return f"${median:.{digits}f}_{{-{below:.{digits}f}}}^{{+{above:.{digits}f}}}$"


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
        if np.abs(draws).max() > _HUGE:
            raise ValueError(
                f"Axes show numbers up to {_HUGE:.0e} in size; draws of {label!r} reach "
                f"{np.abs(draws).max():.2e}. Draw their logarithm."
            )
    return p


def _find_parameters(names: Sequence[str], parameters: Sequence[str | int] | None) -> list[int]:
    """Return the numbers of the parameters to show."""
    if parameters is None:
        return list(range(len(names)))
    if isinstance(parameters, str | int):
        parameters = [parameters]
    known = {name: j for j, name in enumerate(names)} | {j: j for j in range(len(names))}
    unknown = [parameter for parameter in parameters if parameter not in known]
    if unknown or not len(parameters):
        raise ValueError(
            f"parameters must be some of {list(names)}, or of their numbers from 0; got "
            f"{list(parameters)}."
        )
    return [known[parameter] for parameter in parameters]


def _check_limits(name: str, limits: Any) -> tuple[float, float] | None:
    """Return limits as two floats that increase."""
    if limits is None:
        return None
    ends = np.asarray(limits, dtype=np.float64)
    if ends.shape != (2,) or not (np.abs(ends) <= _HUGE).all() or ends[0] >= ends[1]:
        raise ValueError(f"limits of {name!r} must be (low, high), low < high; got {limits}.")
    return float(ends[0]), float(ends[1])


def _positive(columns: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """Return the positive numbers of every column that has any."""
    positive = [x[x > _TINY] for x in columns]
    return [x for x in positive if len(x)]


def _outer_quantiles(columns: Sequence[NDArray[np.float64]], tail: float) -> tuple[float, float]:
    """Return the lowest lower and the highest upper quantile of all columns."""
    low = min(np.quantile(x, tail, method="lower") for x in columns)
    high = max(np.quantile(x, 1 - tail, method="higher") for x in columns)
    return float(low), float(high)


def _nearly_equal(low: ArrayLike, high: ArrayLike) -> Any:
    """Whether numbers are equal but for rounding, so that no axis can resolve them."""
    size = np.maximum(np.abs(low), np.abs(high))
    return (np.subtract(high, low) <= 1e-12 * size) | (size < _TINY)
