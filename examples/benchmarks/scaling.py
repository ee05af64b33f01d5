"""Time and memory as pairs, points, parameters, observations and draws grow.

    python examples/benchmarks/scaling.py

One of them grows by factors of ten, the others stay. The slope is that of log seconds over log size
over the last factor: 1 is linear. Fits are of three epochs; memory is the peak of the process so
far.
"""

import resource
import time

import numpy as np
from scipy import stats

from skbi import JointPrior, NPEEstimator


def problem(n, p=2, n_points=None, seed=0):
    """Draw n pairs: parameters seen through unit noise, once or at every point of a set."""
    prior = JointPrior({f"theta_{j}": stats.norm() for j in range(p)})
    rng = np.random.default_rng(seed)
    theta = prior.sample(n, random_state=rng)
    shape = (n, p) if n_points is None else (n, n_points, p)
    centre = theta if n_points is None else theta[:, None]
    return prior, theta, centre + rng.normal(size=shape)


def fitted(*args, **options):
    """Fit for three epochs."""
    prior, theta, X = problem(*args, **options)
    npe = NPEEstimator(prior=prior, max_iter=3, random_state=0)
    return lambda: npe.fit(theta, X)


def drawn(n_observations, n_draws, p=2):
    """Draw from the posteriors of some observations."""
    npe = fitted(1000, p)()
    X = problem(n_observations, p, seed=1)[2]
    return lambda: npe.sample_posterior(X, n_draws)


def embedded(n_sets, n_points):
    """Read sets: one draw for each of them."""
    npe = fitted(500, 2, n_points=min(n_points, 200))()
    X = problem(n_sets, 2, n_points=n_points, seed=1)[2]
    return lambda: npe.sample_posterior(X, 1)


GROWTH = {
    "fit, by pairs": ((1000, 10_000, 100_000), lambda n: fitted(n)),
    "fit of 500 sets, by points of a set": ((10, 100, 1000, 10_000), lambda s: fitted(500, 2, s)),
    "fit of 2,000 pairs, by parameters": ((1, 5, 10, 50), lambda p: fitted(2000, p)),
    "1,000 draws each, by observations": ((10, 100, 1000, 10_000), lambda n: drawn(n, 1000)),
    "draws of one observation": ((10_000, 100_000, 1_000_000, 10_000_000), lambda n: drawn(1, n)),
    "points of 1,000 sets, read": ((10, 100, 1000, 10_000), lambda s: embedded(1000, s)),
}


def main():
    """Time everything, three times, and print medians."""
    for name, (sizes, prepare) in GROWTH.items():
        seconds = []
        for size in sizes:
            run, turns = prepare(size), []
            for _ in range(3):
                start = time.perf_counter()
                run()
                turns.append(time.perf_counter() - start)
            seconds.append(np.median(turns))
        slope = np.diff(np.log(seconds[-2:]))[0] / np.diff(np.log(sizes[-2:]))[0]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        cells = ", ".join(f"{n:,}: {s:.3g} s" for n, s in zip(sizes, seconds, strict=True))
        print(f"{name}: {cells}; slope {slope:.2f}; peak {peak:,.0f} MB", flush=True)


if __name__ == "__main__":
    main()
