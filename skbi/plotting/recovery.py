"""Recovery and contraction plots: what posteriors of simulations recover of their truths."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from skbi.calibration.recovery import Recovery, recover, recovery_of_draws
from skbi.calibration.runs import fitted_estimator, parameter_names
from skbi.plotting.axes import as_axes, colours
from skbi.randomness import RandomState, as_generator

__all__ = ["ContractionDisplay", "RecoveryDisplay"]

_MAX_INTERVALS = 200  # that are drawn for each parameter
_SHOWN = 0.998  # quantile of the points up to which axes reach


class _RecoveryPanels(ABC):
    """A panel for each parameter, of the posteriors of simulations beside their truths."""

    def __init__(self, recovery: Recovery, *, names: Sequence[str]) -> None:
        self.recovery, self.names = recovery, names

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        theta: ArrayLike,
        X: Any,
        *,
        n_samples: int = 1000,
        names: Sequence[str] | None = None,
        n_jobs: int | None = None,
        random_state: RandomState = None,
        ax: Any = None,
    ) -> Self:
        """Sample the posterior of every observation and plot what it recovers of the truth.

        Parameters
        ----------
        estimator, theta, X, n_samples, n_jobs, random_state
            As in `coverage_score`.
        names : sequence of str, optional
            Names of the parameters; by default the estimator's.
        ax
            As in `plot`.

        Returns
        -------
        Self
        """
        options = {"n_samples": n_samples, "n_jobs": n_jobs, "random_state": random_state}
        estimator = fitted_estimator(estimator)
        recovery = recover(estimator, theta, X, **options)
        names = parameter_names(recovery.theta.shape[1], names, estimator)
        return cls(recovery, names=names).plot(ax)

    @classmethod
    def from_predictions(
        cls,
        theta: ArrayLike,
        samples: ArrayLike,
        *,
        names: Sequence[str] | None = None,
        random_state: RandomState = None,
        ax: Any = None,
    ) -> Self:
        """Plot what given posterior draws recover of the truth.

        Parameters
        ----------
        theta : array-like, shape (n, p)
            The true parameters of n runs.
        samples : array-like, shape (n, n_samples, p)
            Posterior draws for each run.
        names : sequence of str, optional
            Names of the parameters; by default theta_0, theta_1 and so on.
        random_state : int, Generator, RandomState or None, default=None
            Breaks ties.
        ax
            As in `plot`.

        Returns
        -------
        Self
        """
        recovery = recovery_of_draws(theta, samples, as_generator(random_state))
        names = parameter_names(recovery.theta.shape[1], names)
        return cls(recovery, names=names).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw a panel for each parameter.

        Parameters
        ----------
        ax : Axes, or p of them, optional
            By default those of a new figure.

        Returns
        -------
        self
        """
        axes = as_axes(ax, len(self.names))
        for j, axis in enumerate(axes):
            self._plot_panel(j, axis)
        self.ax_, self.figure_ = (axes if len(axes) > 1 else axes[0]), axes[0].figure
        return self

    @abstractmethod
    def _plot_panel(self, j: int, ax: Any) -> None:
        """Draw the panel of one parameter."""


class RecoveryDisplay(_RecoveryPanels):
    """Posterior mean and central 90 % interval of each simulation against its truth.

    Points on the diagonal are recovered. The title of each panel has R^2, the share of the truths'
    variance that the posterior mean explains, and the NRMSE, the root mean squared error over the
    standard deviation of the truths. An unidentified parameter has a horizontal cloud: R^2 = 0.

    Parameters
    ----------
    recovery : Recovery
        The posteriors of simulations, each by a few numbers.
    names : sequence of p str
        Names of the parameters.

    Attributes
    ----------
    ax_ : Axes or ndarray of Axes
    figure_ : Figure

    See Also
    --------
    ContractionDisplay : How much is learnt, and how far means are off.

    References
    ----------
    Radev et al., BayesFlow: Learning complex stochastic models with invertible neural networks,
    2020, https://arxiv.org/abs/2003.06281.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> theta, samples = rng.normal(size=(100, 2)), rng.normal(size=(100, 50, 2))
    >>> RecoveryDisplay.from_predictions(theta, samples, names=["a", "b"]).recovery.r2.shape
    (2,)
    """

    def _plot_panel(self, j: int, ax: Any) -> None:
        """Draw some of the simulations, evenly spaced, so that intervals can be told apart."""
        r, n = self.recovery, len(self.recovery.theta)
        rows = np.linspace(0, n - 1, min(n, _MAX_INTERVALS)).astype(int)
        truth, mean = r.theta[rows, j], r.mean[rows, j]
        (colour,) = colours(1)
        ends = r.lower[rows, j], r.upper[rows, j]
        ax.vlines(truth, *ends, color=colour, alpha=0.25, lw=0.8)
        ax.scatter(truth, mean, color=colour, s=9, linewidths=0, zorder=3)
        low, high = truth.min(), truth.max()
        ax.plot([low, high], [low, high], color="0.3", lw=0.8, zorder=2)
        ax.set(xlabel="truth", ylabel="posterior mean and 90 % interval")
        ax.set_title(f"{self.names[j]}\n$R^2$ = {r.r2[j]:.2f}, NRMSE = {r.nrmse[j]:.2f}")


class ContractionDisplay(_RecoveryPanels):
    """Posterior z-score against contraction, a point for each simulation.

    The z-score is (posterior mean - truth) / posterior standard deviation. The contraction is
    1 - (w / W)^2 with the widths w and W of the central 90 % intervals of posterior and prior, for
    Gaussians 1 - posterior variance / prior variance. A good posterior has contractions near 1 and
    z-scores between -2 and 2, the dashed lines. Contractions near 0 mean that the data told nothing
    of the parameter; large z-scores that the posterior is overconfident or biased; contractions
    below 0 that it is wider than the prior. Those below -1 are drawn there.

    Parameters
    ----------
    recovery : Recovery
        The posteriors of simulations, each by a few numbers.
    names : sequence of p str
        Names of the parameters.

    Attributes
    ----------
    ax_ : Axes or ndarray of Axes
    figure_ : Figure

    See Also
    --------
    RecoveryDisplay : Posteriors against truths.

    References
    ----------
    Schad, Betancourt and Vasishth, Toward a principled Bayesian workflow in cognitive science,
    2019, https://arxiv.org/abs/1904.12765.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> theta, samples = rng.normal(size=(100, 2)), rng.normal(size=(100, 50, 2))
    >>> ContractionDisplay.from_predictions(theta, samples).recovery.contraction.shape
    (100, 2)
    """

    def _plot_panel(self, j: int, ax: Any) -> None:
        contraction, z = self.recovery.contraction[:, j], self.recovery.z_score[:, j]
        (colour,) = colours(1)
        for limit in (-2, 0, 2):
            ax.axhline(limit, color="0.6", lw=0.8, ls="--" if limit else "-", zorder=1)
        height = max(3.5, 1.1 * np.quantile(np.abs(z), _SHOWN))
        left = np.clip(np.quantile(contraction, 1 - _SHOWN), -1, -0.05)
        ax.scatter(
            np.maximum(contraction, left), z, color=colour, s=9, alpha=0.5, linewidths=0, zorder=2
        )
        ax.set(xlabel="contraction", ylabel="z-score", xlim=(left, 1.05), ylim=(-height, height))
        ax.set_title(f"{self.names[j]}\nmedian contraction {np.median(contraction):.2f}")
