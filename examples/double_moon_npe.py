"""The double moon by NPE
======================

Learn the posterior of the double moon from 10,000 simulations, and see whether to trust it.

A set of 200 points lies on two noisy arcs. It has three parameters: the fraction d of points on the
upper arc, the standard deviation sigma of the noise, and the vertical dilation t. The example takes
about four minutes on two cores. It writes five pictures to the folder `pictures` beside this file,
and a report of everything that a careful referee would ask, double_moon_npe.html::

    pip install -c tests/constraints.txt -e ".[plot]" && python examples/double_moon_npe.py

docs/trust.md says how to read the pictures.
"""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

from skbi import (
    CoverageDisplay,
    DoubleMoonSimulator,
    LossCurveDisplay,
    NPEEstimator,
    PosteriorDisplay,
    RankDisplay,
    diagnose,
    simulate,
)

PICTURES = Path(__file__).parent / "pictures"
LABELS = ["$d$", r"$\sigma$", "$t$"]
STYLE = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 160}


def main():
    """Simulate, fit, score and draw the pictures."""
    prior, simulator = DoubleMoonSimulator.prior(), DoubleMoonSimulator(n_points=200)
    theta, X = simulate(prior, simulator, 10_000, random_state=0)
    theta_test, X_test = simulate(prior, simulator, 2000, random_state=1)

    npe = NPEEstimator(prior=prior, random_state=0, verbose=1).fit(theta, X)
    print(f"held-out NLL: {-npe.score(theta_test, X_test):.2f} nats a pair (lower is better;")
    print(f"              the prior alone: {-prior.log_prob(theta_test).mean():.2f})")
    report = diagnose(npe, theta_test, X_test, X_test[0], simulator, random_state=2, verbose=1)
    print(report)
    print("wrote", report.to_html(PICTURES.parent / "double_moon_npe.html"))

    options = {"names": LABELS, "random_state": 2}
    with plt.rc_context(STYLE):
        for name, figure in {
            "data": draw_data(theta_test[:6], X_test[:6]),
            "loss": LossCurveDisplay.from_estimator(npe).figure_,
            "posterior": draw_posteriors(npe, theta_test[:3], X_test[:3]),
            "coverage": CoverageDisplay.from_estimator(npe, theta_test, X_test, **options).figure_,
            "ranks": RankDisplay.from_estimator(npe, theta_test, X_test, **options).figure_,
        }.items():
            PICTURES.mkdir(exist_ok=True)
            path = PICTURES / f"double_moon_npe_{name}.png"
            figure.savefig(path)
            print("wrote", path)


def draw_data(theta, X):
    """Draw one simulated set for each theta."""
    figure, axes = plt.subplots(2, 3, figsize=(8, 5), layout="constrained")
    for ax, row, points in zip(axes.flat, theta, X, strict=True):
        ax.scatter(*points.T, s=6, alpha=0.7, linewidths=0)
        ax.set_title(", ".join(f"{a} = {v:.2g}" for a, v in zip(LABELS, row, strict=True)), size=9)
        ax.yaxis.set_major_locator(MaxNLocator(5))
    figure.supxlabel("$x_1$", size=10)
    figure.supylabel("$x_2$", size=10)
    return figure


def draw_posteriors(npe, theta, X):
    """Draw three data sets above their posteriors, with the truth marked."""
    samples = npe.sample_posterior(X, n_samples=20_000)
    figure = plt.figure(figsize=(13, 7))
    tops, bottoms = figure.subfigures(2, 3, height_ratios=[1, 2.6])
    for top, bottom, truth, points, draws in zip(tops, bottoms, theta, X, samples, strict=True):
        ax = top.add_axes([0.3, 0.2, 0.5, 0.75])
        ax.scatter(*points.T, s=4, linewidths=0)
        ax.set(xlabel="$x_1$", ylabel="$x_2$")
        PosteriorDisplay.from_predictions(draws, names=LABELS, truth=truth, figure=bottom)
        bottom.subplots_adjust(left=0.22, bottom=0.22, right=0.97, top=0.97)
    return figure


if __name__ == "__main__":
    main()
