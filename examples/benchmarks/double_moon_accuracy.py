"""How close to the exact posterior? NPE with its defaults on the double moon set problem.

Fits on 10,000 freshly simulated sets of 200 points and scores 100 reference pairs whose exact log
posterior is known by quadrature (double_moon_set_exact.npz). Needs nothing but skbi:

    python examples/benchmarks/double_moon_accuracy.py [seed]
"""

import sys
import time
from pathlib import Path

import numpy as np

from skbi import DoubleMoonSimulator, NPEEstimator, simulate


def main(seed=0):
    """Fit, time and score."""
    reference = np.load(Path(__file__).parent / "double_moon_set_exact.npz")
    prior = DoubleMoonSimulator.prior()
    theta, X = simulate(prior, DoubleMoonSimulator(n_points=200), 10_000, random_state=seed)
    start = time.perf_counter()
    npe = NPEEstimator(prior=prior, random_state=seed).fit(theta, X)
    seconds = time.perf_counter() - start
    print(f"fit: {seconds:.0f} s, {npe.n_iter_} epochs")
    print(f"mean NLL of the reference pairs: {-npe.score(reference['theta'], reference['X']):.2f}")
    print(f"exact posterior:                 {-reference['log_posterior'].mean():.2f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
