"""Draw the pictures of trust.md: what a right posterior looks like, and three wrong ones.

theta ~ N(0, 1) is seen with noise, x ~ N(theta, 1/2), so that the posterior is N(4 x / 5, 1/5). The
wrong ones are half as wide, twice as wide, or shifted by half a standard deviation. Takes about one
minute in one thread: ``python docs/pictures.py``.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from skbi import (
    ContractionDisplay,
    CoverageDisplay,
    JointPrior,
    LC2STDisplay,
    LossCurveDisplay,
    NPEEstimator,
    PredictiveDisplay,
    RankDisplay,
    RecoveryDisplay,
    simulate,
)

PICTURES = Path(__file__).parent / "pictures"
STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 120}
PRIOR = JointPrior({"theta": stats.norm(0, 1)})


def simulator(theta, rng):
    """See theta with noise."""
    return theta + 0.5 * rng.normal(size=1)


class Posterior:
    """The posterior, or one that is wrong by a factor of its width, or by a shift of its mean."""

    def __init__(self, width=1.0, shift=0.0):
        self.width, self.shift = width, shift

    def sample_posterior(self, X, n_samples, *, random_state=None):
        """Draw (n, n_samples, 1)."""
        X, rng = np.asarray(X, dtype=float), np.random.default_rng(random_state)
        noise = self.shift + self.width * rng.normal(size=(*X.shape[:-1], n_samples, 1))
        return 0.8 * X[..., None, :] + np.sqrt(0.2) * noise


POSTERIORS = {
    "right": Posterior(),
    "too narrow": Posterior(width=0.5),
    "too wide": Posterior(width=2.0),
    "shifted": Posterior(shift=0.5),
}


def main():
    """Draw one row of panels a display."""
    theta, X = simulate(PRIOR, simulator, 1000, random_state=0)
    for name, display, limits, options in [
        ("coverage", CoverageDisplay, (0, 1), {"scale": "linear"}),
        ("ranks", RankDisplay, (0, 220), {"kind": "histogram"}),
        ("ecdf", RankDisplay, (-0.2, 0.25), {"kind": "ecdf"}),
        ("recovery", RecoveryDisplay, (-4, 4), {}),
        ("contraction", ContractionDisplay, (-7, 7), {}),
    ]:
        figure, axes = panels(sharey=True)
        for ax, (title, posterior) in zip(axes, POSTERIORS.items(), strict=True):
            display.from_estimator(posterior, theta, X, ax=ax, random_state=0, **options)
            ax.set(title=title, ylim=limits)
            if ax.get_legend():
                ax.get_legend().remove()
            ax.set_xlabel(ax.get_xlabel().replace(" the draws", " draws"), size=8)
            ax.label_outer()
        save(figure, name)
    draw_local(theta, X)
    draw_loss()
    draw_predictions()


def draw_local(theta, X):
    """Draw the local test at one observation."""
    figure = plt.figure(figsize=(9, 2.6))
    for part, (title, posterior) in zip(figure.subfigures(1, 4), POSTERIORS.items(), strict=True):
        LC2STDisplay.from_estimator(posterior, theta, X, X[:1], figure=part, random_state=0)
        part.suptitle(title)
    save(figure, "local")


def draw_loss():
    """Draw the losses of fits: long enough, too short, and to few pairs without shrinkage.

    They learn the place of a ship from its distances to two lighthouses (examples/grid_search.py).
    """
    theta = 2 * np.random.default_rng(0).random((3000, 2)) - 1
    X = np.hypot(theta[:, :1] - [-0.6, 0.6], theta[:, 1:])
    X += 0.05 * np.random.default_rng(1).normal(size=X.shape)
    prior = JointPrior({"east": stats.uniform(-1, 2), "north": stats.uniform(-1, 2)})
    figure, axes = panels(3)
    for ax, title, n, options in [
        (axes[0], "right", 3000, {}),
        (axes[1], "too short", 3000, {"max_iter": 5, "learning_rate_init": 2e-3}),
        (axes[2], "overfitted: 200 pairs", 200, {"alpha": 0.0, "tol": 0.0}),
    ]:
        npe = NPEEstimator(prior=prior, n_estimators=1, random_state=0, **options)
        LossCurveDisplay.from_estimator(npe.fit(theta[:n], X[:n]), ax=ax)
        ax.set_title(title)
    save(figure, "loss")


def draw_predictions():
    """Draw series simulated from a posterior, beside data that fit and others that do not."""
    rng, times = np.random.default_rng(0), np.arange(30)
    replicated = 0.1 * rng.normal(1, 0.1, size=(300, 1)) * times + 0.3 * rng.normal(size=(300, 30))
    fits = 0.1 * times + 0.3 * rng.normal(size=30)
    figure, axes = panels(2)
    for ax, title, x in [
        (axes[0], "right", fits),
        (axes[1], "a simulator that knows no seasons", fits + 0.8 * np.sin(times / 2)),
    ]:
        PredictiveDisplay.from_predictions(replicated, x, kind="series", ax=ax)
        ax.set_title(title)
    save(figure, "predictive")


def panels(n=4, **options):
    """Return a figure of n panels side by side."""
    return plt.subplots(1, n, figsize=(9, 2.6), layout="constrained", **options)


def save(figure, name):
    """Write a picture."""
    figure.savefig(PICTURES / f"{name}.png")
    plt.close(figure)


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    with plt.rc_context(STYLE):
        main()
