"""Fit on more data than memory should hold: peak memory, and the rate beside data in memory.

python examples/benchmarks/out_of_core.py [GB on disk, default 8]

Writes vectors of 1,000 numbers to a temporary folder; trains NPE for one epoch from the file, in a
process of its own, and then, on the first eighth, from the file and from memory in turns.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from scipy import stats

from skbi import JointPrior, NPEEstimator

WIDTH = 1000
PRIOR = JointPrior({"a": stats.norm(), "b": stats.norm()})


def write(folder, n):
    """Write theta (n, 2) and X (n, WIDTH), both plain .npy."""
    rng = np.random.default_rng(0)
    theta = PRIOR.sample(n, random_state=0)
    np.save(folder / "theta.npy", theta)
    X = open_memmap(folder / "X.npy", mode="w+", dtype=np.float64, shape=(n, WIDTH))
    wave = np.sin(np.linspace(0, 20, WIDTH))
    for start in range(0, n, 10_000):
        part = theta[start : start + 10_000]
        noise = rng.standard_normal((len(part), WIDTH), dtype=np.float32)
        X[start : start + 10_000] = part[:, :1] + part[:, 1:] * wave + noise


def rate(theta, X):
    """Pairs a second of training for one epoch, all of `fit` included."""
    began = time.perf_counter()
    NPEEstimator(prior=PRIOR, max_iter=1, random_state=0).fit(theta, X)
    return len(theta) / (time.perf_counter() - began)


def from_file(folder, n=None):
    """Open the pairs as they lie on disk."""
    return [np.load(folder / f"{name}.npy", mmap_mode="r")[:n] for name in ("theta", "X")]


def train_apart(folder):
    """Train on everything in this process, and tell its peak memory."""
    before = peak()
    found = rate(*from_file(folder))
    print(f"from the file: {found:.0f} pairs/s, peak {peak():.2f} GB ({before:.2f} before)")


def peak():
    """Peak resident memory of this process so far, in GB (Linux)."""
    line = next(x for x in Path("/proc/self/status").read_text().split("\n") if "VmHWM" in x)
    return int(line.split()[1]) / 1e6


def main():
    """Write, train on all of it, then compare."""
    size = float(sys.argv[1]) if len(sys.argv) > 1 else 8.0
    n = int(size * 1e9 / 8 / WIDTH)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, n)
        print(f"X on disk: {(folder / 'X.npy').stat().st_size / 1e9:.1f} GB, {n} pairs", flush=True)
        subprocess.run([sys.executable, __file__, "--apart", name], check=True)
        disk = from_file(folder, n // 8)
        memory = [np.array(a) for a in disk]
        for _ in range(3):
            one, other = rate(*disk), rate(*memory)
            print(
                f"{n // 8} pairs: {one:.0f}/s from the file, {other:.0f}/s from memory", flush=True
            )


if __name__ == "__main__":
    train_apart(Path(sys.argv[2])) if "--apart" in sys.argv else main()
