"""The double moon by NLE
======================

Learn the likelihood of double moon events; infer the parameters behind 500 observed ones.

An event is one point on one of two noisy arcs. It has three parameters: which arc it lies on (d, 0
or 1), the standard deviation sigma of the noise, and the vertical dilation t. The example takes
about two minutes on two cores and writes four pictures to the folder `pictures` beside this file::

    pip install -c tests/constraints.txt -e ".[plot]" && python examples/double_moon_nle.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from benchmarks.double_moon_events import ExactPosterior, events, region

from skbi import DoubleMoonSimulator, LossCurveDisplay, NLEEstimator, PosteriorDisplay

PICTURES = Path(__file__).parent / "pictures"
LABELS = ["$d$", r"$\sigma$", "$t$"]
COLOURS = ["#0072b2", "#d55e00"]
STYLE = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
         "legend.frameon": False, "lines.linewidth": 1.2, "savefig.dpi": 160}  # fmt: skip


def main():
    """Simulate, fit, infer and draw the pictures."""
    prior, rng = DoubleMoonSimulator.prior("event"), np.random.default_rng(0)
    theta = prior.sample(50_000, random_state=rng)
    X = events(theta, seed=0)
    truth = np.array([1.0, 0.05, 0.8])
    X_obs = events(np.tile(truth, (500, 1)), seed=1)

    nle = NLEEstimator(prior=prior, random_state=0, verbose=1).fit(theta, X)
    loss, scores = nle.loss_curve_, nle.validation_scores_

    # Errors of the likelihood add up over 500 events. More events from where the posterior is
    # make it more accurate there; the old ones keep it right elsewhere.
    first = nle.sample_posterior(X_obs[None])[0]
    more = region(first, 50_000, rng)
    nle.set_params(warm_start=True, learning_rate_init=1e-3, max_iter=8)
    nle.fit(np.concatenate([theta, more]), np.concatenate([X, events(more, seed=2)]))

    samples = nle.sample_posterior(X_obs[None])
    exact = ExactPosterior(X_obs, truth)
    (log_z,), (error,) = nle.log_evidence(X_obs[None])
    print(f"evidence: log Z = {log_z:.1f} +- {error:.1f}, exact {exact.log_evidence:.1f}")

    PICTURES.mkdir(exist_ok=True)
    with plt.rc_context(STYLE):
        for name, figure in {
            "prior": draw_prior(theta),
            "loss": LossCurveDisplay.from_predictions(loss, scores).figure_,
            "generated": draw_generated(nle, prior.sample(4, random_state=4)),
            "posterior": draw_posterior(samples[0], exact.sample(20_000, rng), truth),
        }.items():
            path = PICTURES / f"double_moon_nle_{name}.png"
            figure.savefig(path)
            print("wrote", path)


def draw_prior(theta):
    """Draw histograms of draws from the prior."""
    figure, axes = plt.subplots(1, 3, figsize=(8, 2.6), layout="constrained")
    bins = [[-0.25, 0.25, 0.75, 1.25], 60, 60]
    for ax, label, column, edges in zip(axes, LABELS, theta.T, bins, strict=True):
        ax.hist(column, edges, density=True, color=COLOURS[0], alpha=0.8)
        ax.set(xlabel=label, yticks=[])
    axes[0].set(ylabel="prior density", xticks=[0, 1])
    return figure


def draw_generated(nle, theta, n=1000):
    """Draw simulated events above events drawn from the learnt likelihood, for each theta."""
    generated = nle.sample_likelihood(theta, n)
    figure, axes = plt.subplots(2, 4, figsize=(9, 4.4), sharex="col", sharey="col")
    for (top, bottom), row, points in zip(axes.T, theta, generated, strict=True):
        simulated = events(np.tile(row, (n, 1)), seed=5)
        for ax, x, colour in ((top, simulated, COLOURS[0]), (bottom, points, COLOURS[1])):
            ax.scatter(*x.T, s=3, color=colour, alpha=0.6, linewidths=0)
        top.set_title(", ".join(f"{a} = {v:.2g}" for a, v in zip(LABELS, row, strict=True)), size=9)
        bottom.set_xlabel("$x_1$")
    axes[0, 0].set_ylabel("simulated\n$x_2$")
    axes[1, 0].set_ylabel("generated\n$x_2$")
    figure.tight_layout()
    return figure


def draw_posterior(samples, exact, truth):
    """Draw the learnt posterior of sigma and t over the exact one, with the truth marked."""
    draws = {"exact": exact, "learnt": samples}
    labels = {f"{name}, P(d = 1) = {rows[:, 0].mean():.3f}": rows for name, rows in draws.items()}
    return PosteriorDisplay.from_predictions(
        {label: rows[:, 1:] for label, rows in labels.items()}, names=LABELS[1:], truth=truth[1:]
    ).figure_


if __name__ == "__main__":
    main()
