"""How close to the exact posterior? NPE with its defaults on the double moon set problem.

Fits on 10,000 freshly simulated sets of 200 points and scores 100 reference pairs whose exact log
posterior is known by quadrature (double_moon_set_exact.npz). Needs nothing but skbi:

    python examples/benchmarks/double_moon_accuracy.py [seed]
    python examples/benchmarks/double_moon_accuracy.py [seed] refine

"refine" goes on, for some minutes: NLE learns from 20 points of each of the same sets, and
importance sampling finds the evidence of every reference set, with NPE as the proposal. The score
is that of likelihood times prior over evidence.
"""

import sys
import time
from pathlib import Path

import numpy as np

from skbi import DoubleMoonSimulator, NLEEstimator, NPEEstimator, simulate

N_POINTS = 20  # of each set that the likelihood is learnt from


def main(seed="0", refine=""):
    """Fit, time and score."""
    seed = int(seed)
    reference = np.load(Path(__file__).parent / "double_moon_set_exact.npz")
    truths, X_obs = reference["theta"], reference["X"]
    prior = DoubleMoonSimulator.prior()
    theta, X = simulate(prior, DoubleMoonSimulator(n_points=200), 10_000, random_state=seed)
    start = time.perf_counter()
    npe = NPEEstimator(prior=prior, random_state=seed).fit(theta, X)
    seconds = time.perf_counter() - start
    print(f"fit: {seconds:.0f} s, {npe.n_iter_} epochs")
    print(f"mean NLL of the reference pairs: {-npe.score(truths, X_obs):.2f}", flush=True)
    print(f"exact posterior:                 {-reference['log_posterior'].mean():.2f}", flush=True)
    if refine:
        start = time.perf_counter()
        nle = NLEEstimator(prior=prior, random_state=seed).fit(theta, X[:, :N_POINTS])
        print(f"fit of the likelihood: {time.perf_counter() - start:.0f} s", flush=True)
        start = time.perf_counter()
        log_z, _ = nle.log_evidence(X_obs, sampler="importance", proposal=npe, n_jobs=2)
        log_q = nle.log_posterior(truths, X_obs) - log_z
        print(f"evidence of {len(X_obs)} sets: {time.perf_counter() - start:.0f} s")
        print(f"mean NLL, refined:               {-log_q.mean():.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
