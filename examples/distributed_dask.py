"""A Dask cluster
==============

Run skbi on a Dask cluster: simulate, calibrate, sample many posteriors, search for settings.

::

    pip install -c tests/constraints.txt -e ".[distributed,plot]"
    python examples/distributed_dask.py

None of the four calls mentions the cluster, and each gives the same numbers without one. The
example takes about two minutes. For a real cluster replace LocalCluster::

    Client("tcp://scheduler:8786")              # a scheduler that runs already
    Client(dask_jobqueue.SLURMCluster(...))     # workers as batch jobs, after cluster.scale(100)

skbi and the packages of the simulator must be installed where the workers run. Ray was not tried:
``ray.util.joblib.register_ray()``, then ``parallel_config("ray")``. Its backend returns results in
rounds of four tasks a worker, so that each round waits for its slowest task.

What 100,000,000 simulations need
---------------------------------
These figures were measured on two busy cores, by examples/benchmarks/dask_overhead.py and
simulation_overhead.py. skbi adds c = 40 us to a simulation, of which 20 us make a random generator
of its own. joblib and Dask take 6 to 10 ms of this process for a task. Results reach this process
at 90 to 110 MB/s, and a complete store at 50 MB/s (chunks, then X.npy in order, then two
checksums).

*Workers.* A simulator of s seconds takes 1e8 (s + c) core seconds. For 1 ms that is 29 core hours,
of which skbi takes 4 %; for 1 s it is 1,160 core days. A thousand workers need 104 s and 28 h.

*Tasks.* A hundred tasks of 10 ms each can be handed out in a second. simulate therefore plans 0.5 s
for a task, and n_jobs / 100 s beyond 50 workers. With a thousand workers a task has 10 s, or 10,000
simulations of 1 ms; that makes 10,000 tasks, of which the last are shorter.

*Bandwidth.* Every result passes through this process. At b bytes a simulation, w workers send w b /
s bytes a second. With 1 ms a simulation, a store at 50 MB/s is busy with 520 workers if a result is
12 numbers (96 bytes), and with 16 workers if it is a set of 200 points (3.2 kB). More workers only
wait. A simulator of 1 s allows a thousand times as many. A simulator that returns float32, which
stays float32, halves the bytes. Beyond that, start several runs, each with a seed, a store and a
process of its own, and concatenate their results.

*Storage.* A store takes 1e8 b bytes, and as much again while it is put in order: 9.6 GB and 19 GB
for 12 numbers (3.2 minutes at 50 MB/s), 320 GB and 640 GB for the sets. Theta, with p parameters,
is drawn as one array of 0.8 p GB in this process. Training reads X from the file and needs no such
memory: see examples/benchmarks/out_of_core.py.

*Time to the first result.* A worker imports skbi, and with it torch, in two to five seconds, once.

*Workers that die.* Other workers repeat the tasks of a worker that dies: at most n_jobs / 100 s of
work each. Do not send Dask a simulation that ends every worker that runs it. Dask gives up after
four workers without telling joblib, so that the run waits for ever. Find such a simulation with
joblib's default backend, which names it.
"""

import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from dask.distributed import Client, LocalCluster
from joblib import parallel_config
from scipy import stats
from sklearn.model_selection import GridSearchCV

from skbi import JointPrior, NLEEstimator, NPEEstimator, coverage_score, simulate

PICTURES = Path(__file__).parent / "pictures"
STYLE = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 160}
PRIOR = JointPrior({"growth": stats.uniform(0.5, 1.5), "capacity": stats.uniform(50, 100)})


def colony(theta, rng):
    """Simulate a colony with random births and deaths, seen 12 times; takes about 1 ms."""
    growth, capacity = theta
    n, counts = 10, []
    for _ in range(120):
        births, deaths = rng.poisson([growth * n / 10, growth * n * n / capacity / 10])
        n = max(0, n + births - deaths)
        counts.append(n)
    return np.log1p(counts[9::10]) + 0.05 * rng.normal(size=12)


def timed(name, call):
    """Return the result of a call, and print how long it took."""
    began = time.perf_counter()
    result = call()
    print(f"{name}: {time.perf_counter() - began:.1f} s", flush=True)
    return result


def draw(truth, draws):
    """Draw each colony's posterior, and the truth."""
    figure, ax = plt.subplots(figsize=(6, 4.5), layout="constrained")
    for i, (row, posterior) in enumerate(zip(truth, draws, strict=True)):
        ax.plot(*posterior.T, ".", color=f"C{i}", markersize=3, alpha=0.4)
        ax.plot(*row, "P", color=f"C{i}", markeredgecolor="white", markersize=12)
    ax.set(xlabel="growth", ylabel="capacity", title="four colonies, the truth marked")
    return figure


def main():
    """Make all four calls on two workers."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1) as cluster,
        Client(cluster),
        parallel_config("dask"),
    ):
        print("dashboard:", cluster.dashboard_link)
        theta, X = timed("5,000 simulations", lambda: simulate(PRIOR, colony, 5000, random_state=0))
        truth, X_test = simulate(PRIOR, colony, 500, random_state=1)

        npe = NPEEstimator(prior=PRIOR, random_state=0).fit(theta, X)
        score = timed("coverage_score", lambda: coverage_score(npe, truth, X_test, random_state=0))
        print(f"  coverage score {score:.3f} (1 = calibrated)")

        nle = NLEEstimator(prior=PRIOR, random_state=0).fit(theta, X)
        observed = X_test[:4, None]  # four sets of one point
        draws = timed("NLE posteriors of four", lambda: nle.sample_posterior(observed))
        for row, mean, sd in zip(truth[:4], draws.mean(axis=1), draws.std(axis=1), strict=True):
            print("  truth", row.round(2), "posterior", mean.round(2), "+-", sd.round(2))
        PICTURES.mkdir(exist_ok=True)
        with plt.rc_context(STYLE):
            draw(truth[:4], draws).savefig(PICTURES / "distributed_dask.png")

        grid = {"n_transforms": [2, 6], "alpha": [0.05, 0.2]}
        search = GridSearchCV(NPEEstimator(prior=PRIOR, max_iter=10, random_state=0), grid, cv=2)
        timed("GridSearchCV", lambda: search.fit(theta[:2000], X[:2000]))
        print("  best", search.best_params_)


if __name__ == "__main__":
    main()
