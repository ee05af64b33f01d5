"""Run skbi on a Dask cluster: simulate, calibrate, sample many posteriors, search for settings.

pip install -c tests/constraints.txt -e ".[distributed]" && python examples/distributed_dask.py
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
