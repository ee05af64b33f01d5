"""What a Dask cluster adds: time a simulation, and how fast results reach a store.

python examples/benchmarks/dask_overhead.py

The figures of examples/distributed_dask.py's arithmetic. Two workers on this machine.
"""

import tempfile
import time

import numpy as np
from dask.distributed import Client, LocalCluster
from joblib import parallel_config
from scipy import stats

from skbi import JointPrior, simulate

PRIOR = JointPrior({"a": stats.norm(), "b": stats.norm()})


def tiny(theta, rng):
    """Return ten numbers at once."""
    return rng.normal(size=10)


def big(theta, rng):
    """Return 80 kB at once."""
    return np.full(10_000, rng.random())


def timed(simulator, n, **options):
    """Seconds a run takes."""
    began = time.perf_counter()
    simulate(PRIOR, simulator, n, random_state=0, **options)
    return time.perf_counter() - began


def main():
    """Measure each three times."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as c, Client(c):
        with parallel_config("dask"):
            timed(tiny, 1000)  # the workers import skbi
        for _ in range(3):
            here = timed(tiny, 20_000)
            with parallel_config("dask"), tempfile.TemporaryDirectory() as folder:
                there = timed(tiny, 20_000)
                tasks = (timed(tiny, 400, batch_size=1) - timed(tiny, 400, batch_size=200)) / 400
                plain, stored = timed(big, 5000), timed(big, 5000, store=folder)
            print(
                f"here {here / 20_000 * 1e6:.0f} us a simulation, on two workers "
                f"{there / 20_000 * 1e6:.0f} us; {tasks * 1e3:.1f} ms a task; to this process "
                f"{400 / plain:.0f} MB/s, to a complete store {400 / stored:.0f} MB/s"
            )


if __name__ == "__main__":
    main()
