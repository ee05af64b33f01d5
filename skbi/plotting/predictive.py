"""The predictive check as a picture: prior and posterior predictive data beside the observation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skbi.calibration.observations import as_batch, sample_observations
from skbi.calibration.predictive import (
    PredictiveCheck,
    compare_with_replications,
    posterior_predictive,
    prior_predictive,
)
from skbi.calibration.runs import fitted_estimator
from skbi.plotting.axes import as_axes, colours
from skbi.randomness import RandomState, as_generator

__all__ = ["PredictiveDisplay", "kind_of"]

_KINDS = ("vector", "set", "series", "image")
_MAX_PANELS = 12
_N_BINS = 30
_N_CURVES = 5  # replications drawn among the bands
_MAX_POINTS = 2000  # of replicated sets that are drawn
_N_PICTURES = 3  # replications shown of images
_POSTERIOR, _PRIOR = "posterior predictive", "prior predictive"
_STYLES = {
    _POSTERIOR: {"color": colours(1)[0], "lw": 1.3},
    _PRIOR: {"color": "0.75", "lw": 0, "fill": True},
}
_SIGNED = {"cmap": "RdBu_r", "vmin": -4, "vmax": 4}

Panel = tuple[Callable[..., None], tuple[Any, ...]]


class PredictiveDisplay:
    """Replicated data from prior and posterior beside the observation.

    If the simulator and the posterior are right, the observation (black) looks like a draw of the
    posterior predictive (blue), which lies within the prior predictive (grey). Tail probabilities
    are two-sided. Those of the posterior predictive are no p-values of the simulator: the posterior
    has seen the observation, so that they are larger than those would be.

    - "vector": the distribution of every feature, at most 12, those with the smallest tail
      probabilities.
    - "set": the points, if they have two columns, and the distribution of the mean, the standard
      deviation, the lowest and the highest value of every column.
    - "series": bands that hold 50 % and 90 % of the replications at each time, and some of them.
    - "image": the observation, mean and standard deviation of the replications, the difference of
      observation and mean in standard deviations, and some replications.

    Parameters
    ----------
    predictions : mapping of str to n observations
        Replications by their labels, which are "posterior predictive" and "prior predictive" or
        only one of these.
    X_obs : ndarray
        The observation, with a leading axis of length 1.
    kind : {"vector", "set", "series", "image"}
        How the data are drawn.

    Attributes
    ----------
    check : PredictiveCheck
        Tail probability of every feature among the replications of the posterior, or of the prior
        if that is all there is, and the p-value of all features together.
    ax_ : Axes or ndarray of Axes
    figure_ : Figure

    See Also
    --------
    posterior_predictive : The replications.

    References
    ----------
    Gabry et al., Visualization in Bayesian workflow, 2017, https://arxiv.org/abs/1709.01449;
    Gelman, Meng and Stern, Posterior predictive assessment of model fitness, 1996,
    https://www.jstor.org/stable/24306036.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> replicated = rng.normal(size=(500, 2))
    >>> display = PredictiveDisplay.from_predictions(replicated, [0.1, 5.0])
    >>> display.kind, display.check.tail_probability.round(2).tolist()
    ('vector', [0.83, 0.0])
    """

    def __init__(self, predictions: Mapping[str, Any], X_obs: Any, *, kind: str) -> None:
        self.predictions, self.X_obs, self.kind = predictions, X_obs, kind
        self.check = self._check(_POSTERIOR if _POSTERIOR in predictions else _PRIOR)

    def _check(self, label: str) -> PredictiveCheck:
        return compare_with_replications(self.predictions[label], self.X_obs, self.kind)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        simulator: Any,
        X_obs: Any,
        *,
        n_samples: int = 200,
        kind: str | None = None,
        n_jobs: int | None = None,
        random_state: RandomState = None,
        ax: Any = None,
    ) -> Self:
        """Simulate from the posterior of one observation, and from the prior, and plot both.

        Parameters
        ----------
        estimator : object with ``sample_posterior``
            As in `coverage_score`. Without an attribute ``prior``, only posterior predictive data
            are drawn.
        simulator : callable, or object with ``transform(theta)``
            As in `skbi.simulate`. Simulations that fail are left out, with a warning.
        X_obs : array-like
            One observation, or a batch that holds one.
        n_samples : int, default=200
            Number of simulations from each of the two.
        kind : {"vector", "set", "series", "image"}, optional
            By default the estimator's ``summary`` if that is "series" or "image", and else as in
            `from_predictions`.
        n_jobs : int or None, default=None
            Number of parallel jobs of the simulator. The result does not depend on it.
        random_state : int, Generator, RandomState or None, default=None
            The only source of randomness.
        ax
            As in `plot`.

        Returns
        -------
        PredictiveDisplay
        """
        estimator, rng = fitted_estimator(estimator), as_generator(random_state)
        batch = sample_observations(estimator, X_obs, 1, rng).X_obs
        options = {"n_samples": n_samples, "n_jobs": n_jobs, "random_state": rng}
        options["on_error"] = "drop"
        drawn = posterior_predictive(estimator, simulator, batch, **options)
        predictions = {_POSTERIOR: drawn[0]}
        prior = getattr(estimator, "prior", None)
        if prior is not None:
            predictions[_PRIOR] = prior_predictive(
                prior, simulator, n_samples, n_jobs=n_jobs, rng=rng
            )
        kind = kind or kind_of(batch, getattr(estimator, "summary", None))
        return cls(predictions, batch, kind=kind).plot(ax)

    @classmethod
    def from_predictions(
        cls,
        replicated: Any,
        X_obs: ArrayLike,
        *,
        prior_replicated: Any = None,
        kind: str | None = None,
        ax: Any = None,
    ) -> Self:
        """Plot given replications beside the observation.

        Parameters
        ----------
        replicated : n observations
            Data simulated from the posterior, as `posterior_predictive` returns them for one
            observation.
        X_obs : array-like
            The observation, without a leading axis.
        prior_replicated : n observations, optional
            Data simulated from the prior.
        kind : {"vector", "set", "series", "image"}, optional
            By default "vector" for vectors of up to 12 features and "series" for longer ones, "set"
            for two axes, and "image" for three.
        ax
            As in `plot`.

        Returns
        -------
        PredictiveDisplay
        """
        batch = as_batch(np.asarray(X_obs) if not hasattr(X_obs, "to_frame") else X_obs)
        predictions = {_POSTERIOR: replicated}
        if prior_replicated is not None:
            predictions[_PRIOR] = prior_replicated
        return cls(predictions, batch, kind=kind or kind_of(batch)).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw the data.

        Parameters
        ----------
        ax : Axes, or several of them, optional
            By default those of a new figure.

        Returns
        -------
        self
        """
        panels = {
            "vector": self._histograms,
            "set": self._points_and_histograms,
            "series": self._bands,
            "image": self._pictures,
        }
        if self.kind not in panels:
            raise ValueError(f"kind must be one of {list(_KINDS)}; got {self.kind!r}.")
        drawn = panels[self.kind]()
        axes = as_axes(ax, len(drawn))
        for axis, (draw, arguments) in zip(axes, drawn, strict=True):
            draw(axis, *arguments)
        if self.kind != "image" and ax is None:
            named = axes[-1].get_legend_handles_labels()
            columns = {"ncols": 3 if len(axes) > 1 else 1, "frameon": False}
            axes[0].figure.legend(*named, loc="outside lower center", **columns)
        elif self.kind != "image":
            axes[-1].legend(frameon=False)
        if ax is None:
            p_value = f"all features together: p = {self.check.p_value:.2g}"
            axes[0].figure.suptitle(p_value, fontsize="medium")
        self.ax_, self.figure_ = (axes if len(axes) > 1 else axes[0]), axes[0].figure
        return self

    # ---- panels: a function that draws on axes, and its further arguments

    def _histograms(self) -> list[Panel]:
        """Return a panel for every feature, or for those with the smallest tail probabilities."""
        checks = {label: self._check(label) for label in self.predictions}
        shown = np.sort(np.argsort(self.check.tail_probability, kind="stable")[:_MAX_PANELS])
        return [(self._draw_histogram, (j, checks)) for j in shown.tolist()]

    def _draw_histogram(self, ax: Any, j: int, checks: Mapping[str, PredictiveCheck]) -> None:
        """Draw the histograms of a feature on common edges, with the observation marked."""
        observed, columns = self.check.observed[j], {}
        for label, check in checks.items():
            column = check.replicated[:, j]
            columns[label] = column[np.isfinite(column)]
        inner = [np.quantile(column, [0.002, 0.998]) for column in columns.values()]
        low = min([observed, *(q[0] for q in inner)])
        high = max([observed, *(q[1] for q in inner)])
        margin = 0.03 * (high - low) or 0.5
        edges = np.linspace(low - margin, high + margin, _N_BINS + 1)
        for label in reversed(list(columns)):  # the posterior on top
            counts, _ = np.histogram(columns[label], edges)
            share = counts / len(columns[label])
            ax.stairs(share, edges, label=label, zorder=2, **_STYLES[label])
        ax.axvline(observed, color="black", lw=1.5, label="observed", zorder=3)
        tail = self.check.tail_probability[j]
        ax.set(xlabel=self.check.names[j], yticks=[], ylim=(0, None), xlim=edges[[0, -1]])
        ax.set_title(f"tail probability {tail:.2g}", fontsize="medium")

    def _points_and_histograms(self) -> list[Panel]:
        points = np.asarray(self.X_obs[0], dtype=np.float64)
        panels = [(self._draw_points, (points,))] if points.shape[1] == 2 else []
        return panels + self._histograms()[: _MAX_PANELS - len(panels)]

    def _draw_points(self, ax: Any, points: NDArray[np.float64]) -> None:
        """Draw the points of the observation over those of the first replications, pooled."""
        for label in reversed(list(self.predictions)):
            pooled = np.concatenate([np.asarray(x) for x in self.predictions[label]])[:_MAX_POINTS]
            ax.scatter(*pooled.T, s=4, linewidths=0, color=_STYLES[label]["color"], alpha=0.5)
        ax.scatter(*points.T, s=7, linewidths=0, color="black")
        both = np.vstack([points, pooled])
        low, high = np.nanquantile(both, [0.002, 0.998], axis=0)
        margin = 0.1 * (high - low)
        ax.set(xlim=(low[0] - margin[0], high[0] + margin[0]), xlabel="x_0", ylabel="x_1")
        ax.set(ylim=(low[1] - margin[1], high[1] + margin[1]))
        ax.set_title("observed over replicated points", fontsize="medium")

    def _bands(self) -> list[Panel]:
        observed = _channels(self.X_obs)[0]
        return [(self._draw_band, (c, observed)) for c in range(observed.shape[1])]

    def _draw_band(self, ax: Any, channel: int, observed: NDArray[np.float64]) -> None:
        """Draw bands of one channel, some curves, and the observation."""
        times = np.arange(len(observed))
        for label in reversed(list(self.predictions)):
            curves, style = _channels(self.predictions[label])[:, :, channel], _STYLES[label]
            low, q1, q3, high = np.nanquantile(curves, [0.05, 0.25, 0.75, 0.95], axis=0)
            ax.fill_between(times, low, high, color=style["color"], alpha=0.35, lw=0, label=label)
            if label == _POSTERIOR or len(self.predictions) == 1:
                ax.fill_between(times, q1, q3, color=style["color"], alpha=0.4, lw=0)
                ax.plot(times, curves[:_N_CURVES].T, color=style["color"], lw=0.5, alpha=0.8)
                outside = np.mean((observed[:, channel] < low) | (observed[:, channel] > high))
        ax.plot(times, observed[:, channel], color="black", lw=1.2, label="observed")
        ax.set(xlabel="time", ylabel=f"x_{channel}", xlim=(0, len(observed) - 1))
        ax.set_title(
            f"{100 * outside:.0f} % of the observation outside of the 90 % band", fontsize="medium"
        )

    def _pictures(self) -> list[Panel]:
        label = _POSTERIOR if _POSTERIOR in self.predictions else _PRIOR
        draws, observed = (
            np.asarray(self.predictions[label], float),
            np.asarray(self.X_obs[0], float),
        )
        mean, sd = draws.mean(axis=0), draws.std(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            difference = np.where(sd > 0, (observed - mean) / sd, 0.0)
        limits = {"vmin": min(observed.min(), mean.min()), "vmax": max(observed.max(), mean.max())}
        pictures = [("observed", observed, limits), (f"mean of {label}", mean, limits)]
        pictures += [
            ("standard deviation", sd, {}),
            ("(observed - mean) / sd", difference, _SIGNED),
        ]
        pictures += [(f"replication {i + 1}", x, limits) for i, x in enumerate(draws[:_N_PICTURES])]
        if _PRIOR in self.predictions and label != _PRIOR:
            pictures.append(("from the prior", np.asarray(self.predictions[_PRIOR])[0], limits))
        return [(_draw_picture, picture) for picture in pictures]


def kind_of(batch: Any, summary: Any = None) -> str:
    """Say how an observation, in a batch, is drawn."""
    if isinstance(summary, str) and summary in ("series", "image"):
        return summary
    n_axes = np.ndim(batch[0]) if not hasattr(batch, "columns") else 1
    if n_axes == 1:
        return "vector" if np.shape(batch)[1] <= _MAX_PANELS else "series"
    return "set" if n_axes == 2 else "image"


def _channels(X: Any) -> NDArray[np.float64]:
    """Return series as (n, times, channels); vectors have one channel."""
    series = np.asarray(X, dtype=np.float64)
    return series[..., None] if series.ndim == 2 else series


def _draw_picture(
    ax: Any, title: str, picture: NDArray[np.float64], limits: dict[str, Any]
) -> None:
    """Draw a picture; of several channels, their mean."""
    flat = picture.mean(axis=2) if picture.ndim == 3 else picture
    image = ax.imshow(flat, interpolation="nearest", **{"cmap": "viridis", **limits})
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize="medium")
    ax.figure.colorbar(image, ax=ax, shrink=0.8)
