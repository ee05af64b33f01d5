"""Run skbi on a Dask cluster: simulate, calibrate, sample many posteriors, search for settings.

pip install -c tests/constraints.txt -e ".[distributed]" && python examples/distributed_dask.py

Nothing in the four calls knows of the cluster, and each gives the same numbers without one. Takes
about two minutes. For a real cluster replace LocalCluster:

    Client("tcp://scheduler:8786")              # a scheduler that runs already
    Client(dask_jobqueue.SLURMCluster(...))     # workers as batch jobs, after cluster.scale(100)

skbi and the simulator's packages must be installed where workers run. On Ray, which was not tried:
``ray.util.joblib.register_ray()``, then ``parallel_config("ray")``; its backend hands results over
in rounds of four tasks a worker, so that a round waits for its slowest.

What 100,000,000 simulations need
---------------------------------
Measured on two busy cores (examples/benchmarks/dask_overhead.py, simulation_overhead.py):
skbi adds c = 40 us to a simulation, 20 us of it for a random generator of its own; joblib and Dask
take 6 to 10 ms of this process for a task; results reach it at 90 to 110 MB/s, and a complete store
(chunks, then X.npy in order, then two checksums) at 50 MB/s.

*Workers.* A simulator of s seconds takes 1e8 (s + c) core seconds: for 1 ms, 29 core hours, of
which skbi's are 4 %; for 1 s, 1,160 core days. A thousand workers need 104 s and 28 h.

*Tasks.* One of 10 ms each can be handed out a hundred times a second. simulate therefore gives a
task 0.5 s, and n_jobs / 100 s beyond 50 workers: with a thousand workers 10 s, or 10,000
simulations of 1 ms, so 10,000 tasks of which the last are shorter.

*Bandwidth.* Every result passes through this process. At b bytes a simulation, w workers send
w b / s bytes a second: 12 numbers (96 bytes) from 1 ms keep a store busy, at 50 MB/s, with 520
workers; sets of 200 points (3.2 kB) with 16. More workers only wait. A simulator of 1 s allows a
thousand times as many. float32 results, which stay so, halve it. Beyond that give each of several
runs a seed, a store and a process of its own, and concatenate.

*Storage.* 1e8 b bytes, and as much again while a store is put in order: 9.6 GB and 19 GB for 12
numbers (3.2 minutes at 50 MB/s), 320 GB and 640 GB for the sets. Theta, with p
parameters, is drawn as one array of 0.8 p GB in this process. Training reads X from the file, so
that it needs no such memory: see examples/benchmarks/out_of_core.py.

*Time to the first result.* A worker imports skbi, with torch, in two to five seconds, once.

*Deaths.* Tasks of a worker that dies are done again by others: at most n_jobs / 100 s of work each.
A simulation that ends every worker it meets must not be sent to Dask: it gives up after four, and
joblib is not told, so the run waits. Find it with joblib's default backend, which names it.
"""

import time

import numpy as np
from dask.distributed import Client, LocalCluster
from joblib import parallel_config
from scipy import stats
from sklearn.model_selection import GridSearchCV

from skbi import JointPrior, NLEEstimator, NPEEstimator, coverage_score, simulate

PRIOR = JointPrior({"growth": stats.uniform(0.5, 1.5), "capacity": stats.uniform(50, 100)})


def colony(theta, rng):
    """Weigh a colony that grows by births and deaths at random, 12 times; about 1 ms."""
    growth, capacity = theta
    n, counts = 10, []
    for _ in range(120):
        births, deaths = rng.poisson([growth * n / 10, growth * n * n / capacity / 10])
        n = max(0, n + births - deaths)
        counts.append(n)
    return np.log1p(counts[9::10]) + 0.05 * rng.normal(size=12)


def timed(name, call):
    """Do it and print how long it took."""
    began = time.perf_counter()
    result = call()
    print(f"{name}: {time.perf_counter() - began:.1f} s", flush=True)
    return result


def main():
    """Do all four on two workers, each result the same as without a cluster."""
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

        grid = {"n_transforms": [2, 6], "alpha": [0.05, 0.2]}
        search = GridSearchCV(NPEEstimator(prior=PRIOR, max_iter=10, random_state=0), grid, cv=2)
        timed("GridSearchCV", lambda: search.fit(theta[:2000], X[:2000]))
        print("  best", search.best_params_)


if __name__ == "__main__":
    main()
