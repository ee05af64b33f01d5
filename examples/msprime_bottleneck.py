"""A population that shrank
========================

How large was a population, and when did it shrink? NPE with msprime, a coalescent simulator.

A population of size N0 today had size N1 before some time T (in generations). We observe ten
diploid genomes of one megabase through their site frequency spectrum: the number of sites at which
1, 2 ... 19 of the 20 copies carry the new variant. The mutation rate is known to within a factor of
about 1.3. It is a nuisance parameter: it is drawn and left out of theta, so that the posteriors are
marginal over it.

One simulation takes from 10 ms to 1 s. The example takes about three minutes on two cores and
writes three pictures to the folder `pictures` beside this file::

    pip install -c tests/constraints.txt -e ".[plot,examples]"
    python examples/msprime_bottleneck.py

Kelleher, Etheridge and McVean, Efficient coalescent simulation and genealogical analysis for large
sample sizes, 2016, https://doi.org/10.1371/journal.pcbi.1004842.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from msprime import Demography, sim_ancestry, sim_mutations
from scipy import stats

from skbi import (
    CoverageDisplay,
    JointPrior,
    LossCurveDisplay,
    NPEEstimator,
    PosteriorDisplay,
    calibration_report,
    simulate,
)

PICTURES = Path(__file__).parent / "pictures"
STYLE = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 160}
PRIOR = JointPrior(
    {
        "log10 N0": stats.uniform(3, 1.5),
        "log10 N1": stats.uniform(3, 1.5),
        "log10 T": stats.uniform(2, 1.5),
        "log10 mutation rate": stats.norm(-7.9, 0.05),
    }
)


def spectrum(theta, rng):
    """Simulate ten genomes; return log(1 + number of sites) for 1 ... 19 copies of 20."""
    today, before, when, rate = 10**theta
    history = Demography()
    history.add_population(name="all", initial_size=today)
    history.add_population_parameters_change(time=when, initial_size=before)
    seeds = rng.integers(1, 2**31, size=2)
    trees = sim_ancestry(
        10,
        demography=history,
        sequence_length=1e6,
        recombination_rate=1e-8,
        random_seed=seeds[0],
    )
    trees = sim_mutations(trees, rate=rate, random_seed=seeds[1])
    counts = trees.allele_frequency_spectrum(span_normalise=False, polarised=True)
    return np.log1p(counts[1:-1])


def main():
    """Simulate, fit, score and draw the pictures."""
    options = {"n_jobs": 2, "nuisance": ["log10 mutation rate"], "verbose": 1}
    theta, X = simulate(PRIOR, spectrum, 5000, random_state=0, **options)
    truth, X_test = simulate(PRIOR, spectrum, 500, random_state=1, **options)

    prior = PRIOR.without("log10 mutation rate")
    npe = NPEEstimator(prior=prior, n_estimators=3, random_state=0, verbose=1).fit(theta, X)
    print(f"held-out NLL: {-npe.score(truth, X_test):.2f} nats a pair (lower is better;")
    print(f"              the prior alone: {-prior.log_prob(truth).mean():.2f})")
    print(calibration_report(npe, truth, X_test, random_state=2))
    draw(npe, truth, X_test)


def draw(npe, truth, X_test):
    """Draw the loss, the coverage and the posterior of the population that shrank most."""
    PICTURES.mkdir(exist_ok=True)
    shrunk = (truth[:, 1] - truth[:, 0]).argmax()
    samples = npe.sample_posterior(X_test[shrunk], 20_000, random_state=2)
    with plt.rc_context(STYLE):
        posterior = PosteriorDisplay.from_predictions(
            samples, names=npe.prior.names, truth=truth[shrunk]
        ).figure_
        posterior.subplots_adjust(left=0.15, bottom=0.15)
        for name, figure in {
            "loss": LossCurveDisplay.from_estimator(npe).figure_,
            "coverage": CoverageDisplay.from_estimator(npe, truth, X_test, random_state=2).figure_,
            "posterior": posterior,
        }.items():
            path = PICTURES / f"msprime_bottleneck_{name}.png"
            figure.savefig(path)
            print("wrote", path)


if __name__ == "__main__":
    main()
