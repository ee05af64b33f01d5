"""Pictures, by scikit-learn's display protocol: `from_estimator`, `from_predictions`, `plot`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erf
from sklearn.utils.validation import check_is_fitted

from skbi import calibration
from skbi.priors import RandomState

__all__ = ["CoverageDisplay", "LossCurveDisplay", "PosteriorDisplay", "RankDisplay"]

_COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"]
_BAND = {"color": "0.88", "linewidth": 0}
_SIGMA = {"$1\\sigma$": 1, "$2\\sigma$": 2, "$3\\sigma$": 3}


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('Pictures need matplotlib: pip install "skbi[plot]"') from error
    return plt


def _axes(ax: Any, n: int) -> NDArray[Any]:
    """Return n axes: new ones, or those given."""
    if ax is None:
        _, ax = _pyplot().subplots(1, n, figsize=(4.2 * n, 4), squeeze=False, layout="constrained")
    ax = np.atleast_1d(ax).ravel()
    if len(ax) != n:
        raise ValueError(f"ax must hold {n} axes; got {len(ax)}.")
    return ax


def _names_of(estimator: Any, names: Sequence[str] | None) -> Sequence[str] | None:
    return getattr(estimator, "parameter_names_in_", None) if names is None else names


class CoverageDisplay:
    """Empirical against nominal coverage, on linear axes and, for the tails, on logarithmic ones.

    Made by `from_estimator` or `from_predictions`.

    Parameters
    ----------
    nominal : ndarray, shape (m,)
    empirical : ndarray, shape (m, k)
    lower, upper : ndarray, shape (m,)
        As `coverage_curve` returns them.
    names : sequence of k str
        What the curves stand for.
    n_runs : int
        Runs behind each: the logarithmic axes end at one of them.

    Attributes
    ----------
    ax_ : Axes or ndarray of Axes
    figure_ : Figure

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
        """Sample the posterior of every observation and plot.

        Parameters
        ----------
        estimator, theta, X, kind, n_samples, n_jobs, random_state
            As in `coverage_score`.
        names : sequence of str, optional
            Of the parameters; by default the estimator's.
        confidence : float, default=0.95
        ax, scale
            As in `plot`.

        Returns
        -------
        CoverageDisplay
        """
        curve = calibration.simulated_curve(
            estimator,
            theta,
            X,
            kind,
            confidence,
            n_samples=n_samples,
            n_jobs=n_jobs,
            random_state=random_state,
        )
        names = _curve_names(curve[1], kind, _names_of(estimator, names))
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
        samples : array-like, shape (n, n_samples, p)
        kind : {"rank", "sigma", "hpd", "tarp"}, default="rank"
        names : sequence of str, optional
        ax, scale
            As in `plot`.
        **options
            Of `coverage_curve`.

        Returns
        -------
        CoverageDisplay
        """
        curve = calibration.coverage_curve(theta, samples, kind=kind, **options)
        names = _curve_names(curve[1], kind, names)
        return cls(*curve, names=names, n_runs=len(theta)).plot(ax, scale=scale)

    def plot(self, ax: Any = None, *, scale: str = "both") -> Self:
        """Draw.

        Parameters
        ----------
        ax : Axes, or two of them for both scales, optional
        scale : {"both", "linear", "log"}, default="both"

        Returns
        -------
        self
        """
        draw = {"linear": [self._linear], "log": [self._log], "both": [self._linear, self._log]}
        if scale not in draw:
            raise ValueError(f"scale must be one of {sorted(draw)}; got {scale!r}.")
        axes = _axes(ax, len(draw[scale]))
        for axis, function in zip(axes, draw[scale], strict=True):
            function(axis)
        axes[0].legend(frameon=False)
        self.ax_, self.figure_ = (axes if scale == "both" else axes[0]), axes[0].figure
        return self

    def _linear(self, ax: Any) -> None:
        self._curves(ax, lambda p: p)
        ax.set(xlabel="nominal coverage", ylabel="empirical coverage", aspect="equal")
        ax.set(xlim=(0, 1), ylim=(0, 1))
        ax.text(0.97, 0.05, "overconfident", ha="right", color="0.5", transform=ax.transAxes)

    def _log(self, ax: Any) -> None:
        self._curves(ax, lambda p: np.maximum(1 - p, 1e-12))
        end = 1 / max(2, self.n_runs)
        ax.set(xlabel="1 - nominal coverage", ylabel="1 - empirical coverage", aspect="equal")
        ax.set(xscale="log", yscale="log", xlim=(1, end), ylim=(1, end))
        for name, k in _SIGMA.items():
            outside = 1 - erf(k / math.sqrt(2))
            if outside > end:
                ax.axvline(outside, color="0.75", lw=0.7, zorder=0)
                ax.text(outside, 0.8, name, color="0.5", size=8, ha="left", va="top")

    def _curves(self, ax: Any, turn: Any) -> None:
        x = turn(self.nominal)
        ax.fill_between(x, turn(self.lower), turn(self.upper), label="by chance", **_BAND)
        ax.plot(x, x, color="0.4", lw=0.8)
        for colour, name, column in _coloured(self.names, self.empirical):
            ax.plot(x, turn(column), color=colour, lw=1.3, label=name)


def _colours(n: int) -> list[str]:
    return [_COLOURS[i % len(_COLOURS)] for i in range(n)]


def _coloured(names: Sequence[str], table: NDArray[Any]) -> Iterator[tuple[str, str, NDArray[Any]]]:
    """Return colour, name and values of each column."""
    return zip(_colours(len(names)), names, table.T, strict=True)


def _curve_names(
    empirical: NDArray[np.float64], kind: str, names: Sequence[str] | None
) -> Sequence[str]:
    k = empirical.shape[1]
    if kind in ("hpd", "tarp"):
        return [{"hpd": "highest density", "tarp": "TARP"}[kind]]
    names = [f"theta_{j}" for j in range(k)] if names is None else list(names)
    if len(names) != k:
        raise ValueError(f"names must hold {k} names; got {names}.")
    return names


class RankDisplay:
    """Ranks of the truths among posterior draws, as histogram and as difference of the ECDF.

    Both with bands in which a calibrated posterior stays: each bar with the given confidence, the
    whole of each curve with it.

    Parameters
    ----------
    ranks : ndarray of int, shape (n, p)
        Of `sbc_ranks`.
    n_samples : int
        Draws that they were taken among.
    names : sequence of p str
    confidence : float, default=0.95

    Attributes
    ----------
    ax_ : Axes or ndarray of Axes
    figure_ : Figure

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
        """Sample the posterior of every observation and plot.

        Parameters
        ----------
        estimator, theta, X, n_samples, n_jobs, random_state
            As in `coverage_score`.
        names : sequence of str, optional
            Of the parameters; by default the estimator's.
        confidence : float, default=0.95
        ax, kind
            As in `plot`.

        Returns
        -------
        RankDisplay
        """
        ranks = calibration.simulated_ranks(
            estimator, theta, X, n_samples=n_samples, n_jobs=n_jobs, random_state=random_state
        )
        names = _curve_names(ranks, "rank", _names_of(estimator, names))
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
        samples : array-like, shape (n, n_samples, p)
        names : sequence of str, optional
        confidence : float, default=0.95
        random_state : int, Generator, RandomState or None, default=None
            Breaks ties.
        ax, kind
            As in `plot`.

        Returns
        -------
        RankDisplay
        """
        ranks = calibration.sbc_ranks(theta, samples, random_state=random_state)
        names = _curve_names(ranks, "rank", names)
        n_samples = np.shape(samples)[1]
        return cls(ranks, n_samples, names=names, confidence=confidence).plot(ax, kind=kind)

    def plot(self, ax: Any = None, *, kind: str = "both") -> Self:
        """Draw.

        Parameters
        ----------
        ax : Axes, or two of them for both kinds, optional
        kind : {"both", "histogram", "ecdf"}, default="both"

        Returns
        -------
        self
        """
        both = [self._histogram, self._ecdf]
        draw = {"histogram": both[:1], "ecdf": both[1:], "both": both}
        if kind not in draw:
            raise ValueError(f"kind must be one of {sorted(draw)}; got {kind!r}.")
        axes = _axes(ax, len(draw[kind]))
        for axis, function in zip(axes, draw[kind], strict=True):
            function(axis)
        axes[-1].legend(frameon=False)
        self.ax_, self.figure_ = (axes if kind == "both" else axes[0]), axes[0].figure
        return self

    def _histogram(self, ax: Any) -> None:
        n, n_bins = len(self.ranks), min(20, self.n_samples + 1)
        edges = np.linspace(-0.5, self.n_samples + 0.5, n_bins + 1)
        share = np.diff(np.ceil(edges)) / (self.n_samples + 1)  # ranks in each bin
        scale = n / share / n_bins  # bins may differ by one rank
        low, high = (b * scale for b in calibration.binomial_band(n, share, self.confidence))
        ax.fill_between(
            edges, np.append(low, low[-1]), np.append(high, high[-1]), step="post", **_BAND
        )
        ax.axhline(n / n_bins, color="0.4", lw=0.8)
        for colour, name, column in _coloured(self.names, self.ranks):
            counts = np.histogram(column, edges)[0] / share / n_bins
            ax.stairs(counts, edges, baseline=None, color=colour, lw=1.3, label=name)
        ax.set(xlabel="rank of the truth among the draws", ylabel="runs", ylim=(0, None))

    def _ecdf(self, ax: Any) -> None:
        at, levels = calibration.rank_grid(self.n_samples)
        lower, upper = calibration.ecdf_band(len(self.ranks), levels, self.confidence)
        label = f"{self.confidence:.0%} by chance"
        ax.fill_between(levels, lower - levels, upper - levels, label=label, **_BAND)
        ax.axhline(0, color="0.4", lw=0.8)
        for colour, name, column in _coloured(self.names, self.ranks):
            share = (column[:, None] <= at).mean(axis=0)
            ax.plot(levels, share - levels, color=colour, lw=1.3, label=name)
        ax.set(xlabel="share of the draws below the truth", ylabel="ECDF - uniform", xlim=(0, 1))


class PosteriorDisplay:
    """Marginal and pairwise posteriors (a corner plot), several overlaid, the truth marked.

    Contours hold 39 % and 86 % of the draws: one and two sigma of a Gaussian.

    Parameters
    ----------
    samples : mapping of str to ndarray of shape (n_samples, p)
        Posteriors by their labels.
    names : sequence of p str
    truth : array-like, shape (p,), optional
        None where unknown.

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
        """Sample the posterior of one observation and plot.

        Parameters
        ----------
        estimator : object with ``sample_posterior``
        X_obs : array-like
            One observation, or a batch that holds one.
        n_samples : int, default=10,000
        names : sequence of str, optional
            Of the parameters; by default the estimator's.
        truth : array-like, shape (p,), optional
        random_state : int, Generator, RandomState or None, default=None
        figure : Figure, optional

        Returns
        -------
        PosteriorDisplay
        """
        draws = estimator.sample_posterior(X_obs, n_samples, random_state=random_state)
        if draws.ndim == 3 and len(draws) == 1:
            draws = draws[0]
        names = _names_of(estimator, names)
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
            One posterior, or several with their labels.
        names : sequence of str, optional
        truth : array-like, shape (p,), optional
        figure : Figure, optional

        Returns
        -------
        PosteriorDisplay
        """
        if names is None:
            names = getattr(samples, "columns", None)
        several = samples if type(samples) is dict else {"posterior": samples}
        several = {label: np.asarray(draws, dtype=float) for label, draws in several.items()}
        shapes = {draws.shape[1:] for draws in several.values()}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1:
            raise ValueError(
                "samples must be draws (n_samples, p) of one observation, or several with the same "
                f"p; got shapes {[draws.shape for draws in several.values()]}."
            )
        (p,) = next(iter(shapes))
        for label, draws in several.items():
            if len(draws) <= p or not np.isfinite(draws).all():
                raise ValueError(
                    f"A corner plot needs more than {p} draws, all finite; {label!r} has "
                    f"{len(draws)}, of which {np.isfinite(draws).all(axis=1).sum()} finite."
                )
        if truth is not None and np.shape(truth) != (p,):
            raise ValueError(f"truth must have shape ({p},); got {np.shape(truth)}.")
        names = _curve_names(np.empty((0, p)), "rank", names)
        return cls(several, names=names, truth=truth).plot(figure)

    def plot(self, figure: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        figure : Figure or SubFigure, optional

        Returns
        -------
        self
        """
        plt, p = _pyplot(), len(self.names)
        try:
            import corner
        except ImportError as error:
            raise ImportError('Corner plots need corner: pip install "skbi[plot]"') from error
        if figure is None:
            figure = plt.figure(figsize=(1.8 + 1.7 * p,) * 2)
        colours = dict(zip(self.samples, _colours(len(self.samples)), strict=True))
        for label, draws in self.samples.items():
            corner.corner(
                draws, fig=figure, color=colours[label], range=self._ranges(), bins=40,
                smooth=1.0, plot_datapoints=False, plot_density=False, max_n_ticks=3,
                fill_contours=len(self.samples) == 1, levels=(0.393, 0.865),
                hist_kwargs={"density": True},
            )  # fmt: skip
        self.ax_, self.figure_ = np.reshape(figure.axes, (p, p)), figure
        for ax in self.ax_.diagonal():  # corner leaves room for the last posterior only
            ax.set_ylim(0, 1.1 * max(bars.get_xy()[:, 1].max() for bars in ax.patches))
        for ax in self.ax_.ravel():
            ax.tick_params(labelsize="small")
        self._mark_truth()
        self._label()
        self._legend(colours)
        return self

    def _ranges(self) -> list[tuple[float, float]]:
        """Hold nearly all draws of every posterior, and the truth."""
        edges = [np.quantile(draws, [1e-3, 1 - 1e-3], axis=0) for draws in self.samples.values()]
        low, high = np.min(edges, axis=0)[0], np.max(edges, axis=0)[1]
        if self.truth is not None:
            margin, truth = 0.05 * (high - low), np.asarray(self.truth, dtype=float)
            low, high = np.fmin(low, truth - margin), np.fmax(high, truth + margin)
        flat = high <= low
        return list(zip(low - 0.5 * flat, high + 0.5 * flat, strict=True))

    def _mark_truth(self) -> None:
        """Draw lines through the truth (corner's own fail for one parameter)."""
        if self.truth is None:
            return
        truth = np.asarray(self.truth, dtype=float)  # unknown ones are NaN, and not drawn
        for i, j in zip(*np.tril_indices(len(truth)), strict=True):
            self.ax_[i, j].axvline(truth[j], color="black")
            if j < i:
                self.ax_[i, j].axhline(truth[i], color="black")

    def _label(self) -> None:
        """Name the axes below their numbers, however long (corner's own labels stay in place)."""
        for ax, name in zip(self.ax_[-1], self.names, strict=True):
            ax.set_xlabel(name)
        for ax, name in zip(self.ax_[1:, 0], self.names[1:], strict=True):
            ax.set_ylabel(name)
        self.figure_.align_labels()

    def _legend(self, colours: Mapping[str, str]) -> None:
        from matplotlib.lines import Line2D

        several = colours if len(colours) > 1 else {}
        lines = {label: Line2D([], [], color=colour) for label, colour in several.items()}
        if self.truth is not None:
            lines["truth"] = Line2D([], [], color="black")
        if lines:
            self.figure_.legend(list(lines.values()), list(lines), frameon=False, loc="upper right")


class LossCurveDisplay:
    """Training and validation loss after each epoch.

    Parameters
    ----------
    loss_curve : sequence of float
    validation_scores : sequence of float or None
        As an estimator's ``loss_curve_`` and ``validation_scores_``.

    Attributes
    ----------
    ax_ : Axes
    figure_ : Figure

    Examples
    --------
    >>> LossCurveDisplay.from_predictions([3.0, 2.0, 1.5], [-3.1, -2.2, -1.8]).ax_.get_xlabel()
    'epoch'
    """

    def __init__(
        self, loss_curve: Sequence[float], validation_scores: Sequence[float] | None = None
    ) -> None:
        self.loss_curve, self.validation_scores = loss_curve, validation_scores

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> Self:
        """Plot what a fitted estimator recorded.

        Parameters
        ----------
        estimator : NPEEstimator or NLEEstimator
        ax : Axes, optional

        Returns
        -------
        LossCurveDisplay
        """
        check_is_fitted(estimator, "loss_curve_")
        return cls(estimator.loss_curve_, estimator.validation_scores_).plot(ax)

    @classmethod
    def from_predictions(
        cls,
        loss_curve: Sequence[float],
        validation_scores: Sequence[float] | None = None,
        *,
        ax: Any = None,
    ) -> Self:
        """Plot given curves.

        Parameters
        ----------
        loss_curve : sequence of float
        validation_scores : sequence of float, optional
        ax : Axes, optional

        Returns
        -------
        LossCurveDisplay
        """
        return cls(loss_curve, validation_scores).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : Axes, optional

        Returns
        -------
        self
        """
        (ax,) = _axes(ax, 1)
        epochs = np.arange(1, len(self.loss_curve) + 1)
        ax.plot(epochs, self.loss_curve, color=_COLOURS[0], label="training")
        if self.validation_scores is not None:
            held_out = np.negative(self.validation_scores)
            ax.plot(epochs[-len(held_out) :], held_out, color=_COLOURS[1], label="held out")
        ax.set(xlabel="epoch", ylabel="-log q [nats]")
        ax.legend(frameon=False)
        self.ax_, self.figure_ = ax, ax.figure
        return self
