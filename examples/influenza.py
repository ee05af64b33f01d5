"""Influenza in a boarding school
==============================

An outbreak of influenza in a boarding school: NPE on the curve of boys in bed.

In January 1978 influenza spread through a boarding school of 763 boys in the north of England. The
number of boys in bed was reported for 14 days. How fast did it spread, how long were the boys
infectious, and how long were they in bed? The simulator follows each day in steps of two hours: a
susceptible boy is infected at a rate in proportion to the share of the infectious, an infectious
boy goes to bed, and a boy in bed gets up after two stages of illness. The curve is given to NPE as
a series, as it is. NRE learns from the same simulations in another way, and should agree.

The example takes about three minutes on two cores and writes two pictures to the folder `pictures`
beside this file::

    pip install -c tests/constraints.txt -e ".[plot]" && python examples/influenza.py

Anonymous, Influenza in a boarding school, British Medical Journal, 1978, 1(6112), p. 587,
https://doi.org/10.1136/bmj.1.6112.586.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from skbi import (
    FunctionSimulator,
    JointPrior,
    NPEEstimator,
    NREEstimator,
    PosteriorDisplay,
    coverage_score,
    misspecification_score,
    posterior_predictive,
    simulate,
)

PICTURES = Path(__file__).parent / "pictures"
STYLE = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 160}
IN_BED = np.array([3, 8, 26, 76, 225, 298, 258, 233, 189, 128, 68, 29, 14, 4])
DAYS = np.arange(1, 15)
N_BOYS, N_STEPS = 763, 12
PRIOR = JointPrior(
    {
        "infections a day": stats.lognorm(0.6, scale=2),  # by one infectious boy, at first
        "days infectious": stats.lognorm(0.6, scale=1.5),
        "days in bed": stats.lognorm(0.5, scale=3),
        "infectious on day 0": stats.lognorm(1.0, scale=2),
    }
)


NAMES = list(PRIOR.names)


def outbreak(theta, rng):
    """Simulate n outbreaks; return the number of boys in bed on 14 days, (n, 14)."""
    spread, infectious, in_bed, at_first = theta.T
    leave = -np.expm1(-1 / (N_STEPS * infectious))
    recover = -np.expm1(-2 / (N_STEPS * in_bed))
    ill = np.minimum(1 + rng.poisson(at_first), N_BOYS)
    healthy, early, late = N_BOYS - ill, np.zeros_like(ill), np.zeros_like(ill)
    X = np.empty((len(theta), len(DAYS)))
    for day in range(len(DAYS)):
        for _ in range(N_STEPS):
            infected = rng.binomial(healthy, -np.expm1(-spread * ill / N_BOYS / N_STEPS))
            to_bed, to_late, up = (
                rng.binomial(*each) for each in ((ill, leave), (early, recover), (late, recover))
            )
            healthy, ill = healthy - infected, ill + infected - to_bed
            early, late = early + to_bed - to_late, late + to_late - up
        X[:, day] = early + late
    return X


def main():
    """Simulate, fit, check, and draw the pictures."""
    simulator = FunctionSimulator(outbreak, vectorized=True)
    theta, X = simulate(PRIOR, simulator, 5000, random_state=0)
    truth, X_test = simulate(PRIOR, simulator, 500, random_state=1)

    options = {"prior": PRIOR, "summary": "series", "random_state": 0, "verbose": 1}
    npe = NPEEstimator(**options).fit(theta, X)
    nre = NREEstimator(**options).fit(theta, X)
    coverage = coverage_score(npe, truth, X_test, n_samples=500, random_state=2)
    print(f"NPE: held-out log density {npe.score(truth, X_test):.2f} nats, coverage {coverage:.3f}")
    p_value = misspecification_score(npe, IN_BED)
    print(f"{p_value:.0%} of simulated outbreaks lie as far out as the real one")

    draws = {
        "NPE": npe.sample_posterior(IN_BED, 10_000, random_state=3),
        "NRE": nre.sample_posterior(IN_BED, 10_000, random_state=3),
    }
    for name, samples in draws.items():
        found = zip(NAMES, samples.mean(axis=0), samples.std(axis=0), strict=True)
        print(name, ", ".join(f"{what} {mean:.2f} +- {sd:.2f}" for what, mean, sd in found))
    replicated = posterior_predictive(npe, simulator, IN_BED, n_samples=2000, random_state=4)

    PICTURES.mkdir(exist_ok=True)
    with plt.rc_context(STYLE):
        posterior = PosteriorDisplay.from_predictions(draws, names=NAMES).figure_
        for name, figure in {
            "posterior": posterior,
            "curves": draw_curves(X, replicated),
        }.items():
            path = PICTURES / f"influenza_{name}.png"
            figure.savefig(path)
            print("wrote", path)


def draw_curves(X, replicated):
    """Draw the real outbreak over simulated ones, of the prior and of the posterior."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True, layout="constrained")
    for ax, curves, name in zip(axes, (X, replicated), ("prior", "posterior"), strict=True):
        for level, shade in ((0.95, 0.15), (0.5, 0.3)):
            band = np.quantile(curves, [(1 - level) / 2, (1 + level) / 2], axis=0)
            ax.fill_between(DAYS, *band, color="C0", alpha=shade, lw=0, label=f"{level:.0%}")
        ax.plot(DAYS, curves[:8].T, color="C0", lw=0.6, alpha=0.8)
        ax.plot(DAYS, IN_BED, "o", color="black", ms=4, label="in bed, 1978")
        ax.set(title=f"{name} predictive", xlabel="day", xticks=DAYS[::2])
    axes[0].set_ylabel("boys in bed")
    axes[1].legend(frameon=False)
    return figure


if __name__ == "__main__":
    main()
