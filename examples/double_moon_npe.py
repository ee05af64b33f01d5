"""Learn the posterior of the double moon from 10,000 simulations, and see whether to trust it.

A set of 200 points lies on two noisy arcs. Its parameters: the fraction d of points on the upper
arc, the noise sigma, and the vertical dilation t. Takes about two minutes on two cores and writes
four pictures next to this file:

    pip install -c tests/constraints.txt -e ".[plot]" && python examples/double_moon_npe.py
"""

from pathlib import Path

import corner
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator
from scipy import stats

from skbi import DoubleMoonSimulator, NPEEstimator, simulate

PICTURES = Path(__file__).parent / "pictures"
LABELS = ["$d$", r"$\sigma$", "$t$"]
COLOURS = ["#0072b2", "#d55e00", "#009e73"]
STYLE = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
         "legend.frameon": False, "lines.linewidth": 1.2, "savefig.dpi": 160}  # fmt: skip


def main():
    """Simulate, fit, score, draw."""
    prior, simulator = DoubleMoonSimulator.prior(), DoubleMoonSimulator(n_points=200)
    theta, X = simulate(prior, simulator, 10_000, random_state=0)
    theta_test, X_test = simulate(prior, simulator, 2000, random_state=1)

    npe = NPEEstimator(prior=prior, random_state=0, verbose=1).fit(theta, X)
    print(f"held-out NLL: {-npe.score(theta_test, X_test):.2f} nats a pair (lower is better;")
    print(f"              the prior alone: {-prior.log_prob(theta_test).mean():.2f})")

    samples = npe.sample_posterior(X_test, n_samples=1000)
    PICTURES.mkdir(exist_ok=True)
    with plt.rc_context(STYLE):
        for name, figure in {
            "data": draw_data(theta_test[:6], X_test[:6]),
            "loss": draw_loss(npe),
            "posterior": draw_posteriors(npe, theta_test[:3], X_test[:3]),
            "coverage": draw_coverage(theta_test, samples),
        }.items():
            path = PICTURES / f"double_moon_npe_{name}.png"
            figure.savefig(path)
            print("wrote", path)


def draw_data(theta, X):
    """Draw one simulated set for each theta."""
    figure, axes = plt.subplots(2, 3, figsize=(8, 5), layout="constrained")
    for ax, row, points in zip(axes.flat, theta, X, strict=True):
        ax.scatter(*points.T, s=6, color=COLOURS[0], alpha=0.7, linewidths=0)
        ax.set_title(", ".join(f"{a} = {v:.2g}" for a, v in zip(LABELS, row, strict=True)), size=9)
        ax.yaxis.set_major_locator(MaxNLocator(5))
    figure.supxlabel("$x_1$", size=10)
    figure.supylabel("$x_2$", size=10)
    return figure


def draw_loss(npe):
    """Draw what training and validation pairs scored after each epoch."""
    figure, ax = plt.subplots(figsize=(5, 3.5), layout="constrained")
    epochs = np.arange(1, npe.n_iter_ + 1)
    ax.plot(epochs, npe.loss_curve_, color=COLOURS[0], label="training")
    ax.plot(epochs, np.negative(npe.validation_scores_), color=COLOURS[1], label="validation")
    ax.set(xlabel="epoch", ylabel=r"$-\log\, q(\theta \mid X)$ [nats a pair]")
    ax.legend()
    return figure


def draw_posteriors(npe, theta, X):
    """Draw three data sets above the corner plots of their posteriors."""
    samples = npe.sample_posterior(X, n_samples=20_000)
    figure = plt.figure(figsize=(12, 6.2))
    tops, bottoms = figure.subfigures(2, 3, height_ratios=[1, 2.8])
    for top, bottom, colour, truth, points, draws in zip(
        tops, bottoms, COLOURS, theta, X, samples, strict=True
    ):
        ax = top.add_axes([0.3, 0.2, 0.5, 0.75])
        ax.scatter(*points.T, s=4, color=colour, linewidths=0)
        ax.set(xlabel="$x_1$", ylabel="$x_2$")
        ax.tick_params(labelsize=7)
        corner.corner(
            draws, fig=bottom, labels=LABELS, truths=truth, color=colour, truth_color="black",
            bins=40, smooth=1.0, plot_datapoints=False, fill_contours=True, max_n_ticks=3,
            levels=(0.393, 0.865), hist_kwargs={"density": True}, range=[0.998] * 3,
        )  # fmt: skip
        bottom.subplots_adjust(left=0.2, bottom=0.2, right=0.97, top=0.97)
        for ax in bottom.axes:
            ax.tick_params(labelsize=7, rotation=30)
            ax.xaxis.set_label_coords(0.5, -0.42)
            ax.yaxis.set_label_coords(-0.46, 0.5)
    return figure


def draw_coverage(theta, samples):
    """Draw how often the truth lies in the central interval of each nominal probability."""
    rank = (samples < theta[:, None]).mean(axis=1)
    level = 2 * np.abs(rank - 0.5)  # the smallest central interval that holds the truth
    nominal = np.concatenate([np.linspace(0, 0.99, 199), 1 - np.geomspace(0.01, 0.002, 20)])
    n = len(theta)
    low, high = stats.binom.ppf([[0.025], [0.975]], n, nominal) / n
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.8), layout="constrained")
    for ax, turn in zip(axes, (lambda p: p, lambda p: 1 - p), strict=True):
        ax.fill_between(turn(nominal), turn(low), turn(high), color="0.88", label="95 % by chance")
        ax.plot(turn(nominal), turn(nominal), color="0.4", lw=0.8)
        for colour, label, column in zip(COLOURS, LABELS, level.T, strict=True):
            empirical = (column[:, None] <= nominal).mean(axis=0)
            ax.plot(turn(nominal), turn(empirical), color=colour, label=label)
    axes[0].set(xlabel="nominal coverage", ylabel="empirical coverage", aspect="equal")
    axes[1].set(xlabel="1 - nominal coverage", ylabel="1 - empirical coverage", aspect="equal")
    axes[1].set(xscale="log", yscale="log", xlim=(1, 2e-3), ylim=(1, 1e-3))
    axes[0].legend()
    return figure


if __name__ == "__main__":
    main()
