"""What simulating costs beside the simulator, next to sbi's simulate_for_sbi.

python examples/benchmarks/simulation_overhead.py

Runs in one process after another: the overhead a simulation against a bare loop, in microseconds,
and how much faster two workers are than one for a simulator that computes for 5 ms. Ratios of a
busy machine vary: each is the best of several tries, with all of them shown. sbi is measured where
it is installed (`pip install "sbi>=0.27,<0.28"`).
"""

import importlib.util
import time

import numpy as np
from joblib import Parallel, delayed
from scipy import stats

from skbi import JointPrior, simulate

N_CHEAP, N_COSTLY, N_TRIES = 10_000, 1000, 5
PRIOR = JointPrior({"a": stats.uniform(0, 1), "b": stats.uniform(0, 1)})


def cheap(theta, rng):
    """Return three numbers at once."""
    return np.array([theta[0], theta[1], rng.random()])


def costly(theta, rng=None):
    """Compute for about 5 ms."""
    total = 0.0
    for i in range(60_000):
        total += theta[0] / (i + 1.0)
    return np.array([total, theta[1], 0.0])


def loop(simulator, theta):
    """Call the simulator in a bare loop."""
    rng = np.random.default_rng(0)
    return np.array([simulator(row, rng) for row in theta])


def seconds(call):
    """How long a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def by_skbi(simulator, n, n_jobs):
    """Simulate by skbi."""
    return simulate(PRIOR, simulator, n, n_jobs=n_jobs, random_state=0)


def by_sbi(simulator, n, n_jobs):
    """Simulate by sbi."""
    import torch
    from sbi.inference import simulate_for_sbi
    from sbi.utils import BoxUniform

    rng = np.random.default_rng(0)
    prior = BoxUniform(torch.zeros(2), torch.ones(2))
    function = lambda theta: torch.as_tensor(simulator(np.asarray(theta).ravel(), rng))  # noqa: E731
    options = {"num_workers": n_jobs, "show_progress_bar": False}
    return simulate_for_sbi(function, prior, n, **options)


def overhead(by):
    """Microseconds a simulation above a bare loop, for each try."""
    theta, costs = PRIOR.sample(N_CHEAP, random_state=0), []
    for _ in range(N_TRIES):
        bare = seconds(lambda: loop(cheap, theta))
        costs.append((seconds(lambda: by(cheap, N_CHEAP, 1)) - bare) / N_CHEAP * 1e6)
    return np.array(costs)


def speedup(by):
    """How much faster two workers are than one, for each try."""
    by(costly, 50, 2)  # starts the workers
    ratios = []
    for _ in range(N_TRIES):
        one = seconds(lambda: by(costly, N_COSTLY, 1))
        ratios.append(one / seconds(lambda: by(costly, N_COSTLY, 2)))
    return np.array(ratios)


def bare_speedup():
    """Return the same for two bare loops, side by side: what the machine gives."""
    theta, ratios = PRIOR.sample(N_COSTLY, random_state=0), []
    halves = [delayed(loop)(costly, half) for half in np.split(theta, 2)]
    for _ in range(N_TRIES):
        one = seconds(lambda: loop(costly, theta))
        ratios.append(one / seconds(lambda: Parallel(2)(halves)))
    return np.array(ratios)


def main():
    """Measure both, where both are installed."""
    peers = {"skbi": by_skbi}
    if importlib.util.find_spec("sbi"):
        peers["sbi"] = by_sbi
    each = seconds(lambda: loop(costly, PRIOR.sample(100, random_state=0))) / 100
    print(f"the costly simulator takes {each * 1e3:.1f} ms")
    for name, by in peers.items():
        costs = overhead(by)
        print(f"{name}: overhead {np.median(costs):.0f} us a simulation, best {costs.min():.0f} us")
    print(f"two bare loops: {bare_speedup().round(2)} times one")
    for name, by in peers.items():
        ratios = speedup(by)
        print(f"{name}: two workers {ratios.max():.2f} times one, all tries {ratios.round(2)}")


if __name__ == "__main__":
    main()
