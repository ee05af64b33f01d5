"""One fit, and everything that is measured of it."""

import resource
import time

import numpy as np

from examples.benchmarks.methods import METHODS
from examples.benchmarks.tasks import TASKS
from skbi import c2st_score, coverage_score


def timed(call):
    """Return what a call gives, and the seconds that it takes."""
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def measure(task_name, method, n_pairs, seed, n_threads):
    """Fit once and measure everything."""
    import torch

    torch.set_num_threads(n_threads)
    task = TASKS[task_name]()
    theta, X = task.pairs(n_pairs, seed)
    theta_test, X_test, exact = task.test()
    fitted, seconds = timed(lambda: METHODS[method](seed).fit(task.prior, theta, X))
    log_q = fitted.log_prob(theta_test, X_test)
    c2st = [
        c2st_score(fitted.sample_posterior(x[None], len(draws))[0], draws)
        for x, draws in task.references
    ]
    runs = theta_test[:1000], X_test[:1000]
    coverage = coverage_score(fitted, *runs, n_samples=500, random_state=0)
    _, drawing = timed(lambda: fitted.sample_posterior(X_test[:1], 200_000))
    many = [np.concatenate([a] * (2000 // len(a) + 1))[:2000] for a in (theta_test, X_test)]
    _, calibrating = timed(lambda: coverage_score(fitted, *many, n_samples=1000, random_state=0))
    return {
        "task": task_name,
        "method": method,
        "pairs": n_pairs,
        "seed": seed,
        "fit_s": seconds,
        "log_score": float(log_q.mean()),
        "gap": None if exact is None else float(exact.mean() - log_q.mean()),
        "c2st": float(np.mean(c2st)) if c2st else None,
        "coverage": float(coverage),
        "draws_per_s": 200_000 / drawing,
        "calibration_s": calibrating,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
