"""Kill a stored run ten times at random moments (kill -9 of the process and its workers).

python examples/benchmarks/killed_runs.py

Each time it is begun again, with two workers; at the end its arrays are compared, bit by bit, with
those of an unbroken run. Takes about three minutes.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import stats

from skbi import JointPrior, simulate

N_SAMPLES, N_KILLS = 30_000, 10
PRIOR = JointPrior({"rate": stats.gamma(2), "size": stats.uniform(1, 20)})


def bursts(theta, rng):
    """Return a set of some points, after 2 ms."""
    time.sleep(0.002)
    return rng.gamma(theta[0], size=(int(theta[1]), 2))


def run(store):
    """Simulate into the store with two workers."""
    return simulate(PRIOR, bursts, N_SAMPLES, n_jobs=2, random_state=0, store=store)


def kill(store, seconds):
    """Begin a run and kill it after some seconds of simulating."""
    before = count(store)
    process = subprocess.Popen([sys.executable, __file__, store], start_new_session=True)
    while count(store) <= before:
        time.sleep(0.01)
    time.sleep(seconds)
    assert process.poll() is None, "the run was over before it was killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def count(store):
    """Return the number of chunks written."""
    return len(list(Path(store).glob("chunks/*.npz")))


def main():
    """Kill, resume, compare."""
    waits = np.random.default_rng().uniform(0, 1.5, N_KILLS)
    with tempfile.TemporaryDirectory() as folder:
        for i, seconds in enumerate(waits):
            kill(folder, seconds)
            print(f"killed {i + 1}: {seconds:.2f} s after its first chunk, {count(folder)} chunks")
        theta, X = run(folder)
        theta2, X2 = simulate(PRIOR, bursts, N_SAMPLES, n_jobs=2, random_state=0)
        same = np.array_equal(theta, theta2) and all(map(np.array_equal, X, X2))
        print(f"{N_SAMPLES} pairs, equal to an unbroken run bit for bit: {same}")


if __name__ == "__main__":
    run(sys.argv[1]) if len(sys.argv) > 1 else main()
