"""What simulating costs beside the simulator, next to sbi's simulate_for_sbi.

python examples/benchmarks/simulation_overhead.py

The overhead a simulation against a bare loop, in microseconds, and how much faster two workers are
than one for a simulator that computes for some 5 ms, in turns. On a busy machine two workers do not
get two cores: compare with two bare loops, and look at the best of the tries. sbi is measured where
it is installed (`pip install "sbi>=0.27,<0.28"`).
"""

import importlib.util
import time

import numpy as np
from joblib import Parallel, delayed
from scipy import stats

from skbi import JointPrior, simulate

N_CHEAP, N_COSTLY, N_TRIES = 10_000, 300, 8
PRIOR = JointPrior({"a": stats.uniform(0, 1), "b": stats.uniform(0, 1)})


def cheap(theta, rng):
    """Return three numbers at once."""
    return np.array([theta[0], theta[1], rng.random()])


def costly(theta, rng=None):
    """Compute for about 5 ms."""
    total = 0.0
    for i in range(45_000):
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
    for _ in range(3):
        bare = seconds(lambda: loop(cheap, theta))
        costs.append((seconds(lambda: by(cheap, N_CHEAP, 1)) - bare) / N_CHEAP * 1e6)
    return np.array(costs)


def bare(simulator, n, n_jobs):
    """Simulate in a bare loop for each job: what the machine can give."""
    theta = PRIOR.sample(n, random_state=0)
    Parallel(n_jobs)(delayed(loop)(simulator, part) for part in np.array_split(theta, n_jobs))


def speedups(peers):
    """How much faster two workers are than one: a row a try, a column a peer."""
    for by in peers.values():
        by(costly, 20, 2)  # starts the workers
    ratios = np.empty((N_TRIES, len(peers)))
    for row in ratios:
        for j, by in enumerate(peers.values()):
            row[j] = seconds(lambda by=by: by(costly, N_COSTLY, 1))
            row[j] /= seconds(lambda by=by: by(costly, N_COSTLY, 2))
    return ratios


def main():
    """Measure both, where both are installed."""
    peers = {"bare loops": bare, "skbi": by_skbi}
    if importlib.util.find_spec("sbi"):
        peers["sbi"] = by_sbi
    each = seconds(lambda: loop(costly, PRIOR.sample(100, random_state=0))) / 100
    print(f"the costly simulator takes {each * 1e3:.1f} ms")
    for name, by in list(peers.items())[1:]:
        print(f"{name}: {overhead(by).round(1)} us a simulation above a bare loop")
    ratios = speedups(peers)
    for name, column in zip(peers, ratios.T, strict=True):
        print(f"{name}: two workers {column.max():.2f} times one, all tries {column.round(2)}")


if __name__ == "__main__":
    main()
