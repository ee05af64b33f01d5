"""One fit, and everything that is measured of it."""

import resource
import time
from functools import partial
from statistics import fmean, median

import numpy as np

from examples.benchmarks.methods import METHODS
from examples.benchmarks.tasks import TASKS
from skbi import c2st_score, coverage_score, energy_score


def timed(call):
    """Return what a call gives, and the seconds that it takes."""
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def compare(fitted, task):
    """Draw for each observation that has reference draws; tell these apart, and time the draws."""
    found = []
    for x, reference in task.references:
        drawing = partial(fitted.sample_posterior, x[None], len(reference), random_state=0)
        draws, seconds = timed(drawing)
        c2st = c2st_score(reference[:2000], draws[0, :2000], random_state=0)
        forest = c2st_score(reference, draws[0], classifier="forest", random_state=0)
        found.append((c2st, forest, seconds))
    if not found:
        return {"c2st": None, "c2st_rf": None, "posterior_s": None}
    c2st, forest, seconds = zip(*found, strict=True)
    return {"c2st": fmean(c2st), "c2st_rf": fmean(forest), "posterior_s": median(seconds)}


def measure(task_name, method, n_pairs, seed, n_threads):
    """Fit once and measure everything."""
    import torch

    torch.set_num_threads(n_threads)
    task = TASKS[task_name]()
    theta, X = task.pairs(n_pairs, seed)
    theta_test, X_test, exact = task.test()
    unfitted = METHODS[method](seed)
    fitted, seconds = timed(lambda: unfitted.fit(task, theta, X))
    log_q = fitted.log_prob(theta_test, X_test)
    log_score = float(log_q.mean())
    gap = float(exact[fitted.learns].mean()) - log_score if fitted.learns in exact else None
    many = [np.concatenate([a] * (2000 // len(a) + 1))[:2000] for a in (theta_test, X_test)]
    _, evaluating = timed(lambda: fitted.log_prob(*many))
    coverage, energy, drawing, calibrating = None, None, None, None
    if fitted.learns == "posterior":
        runs = theta_test[:1000], X_test[:1000]
        coverage = float(coverage_score(fitted, *runs, n_samples=500, random_state=0))
        energy = energy_score(fitted, *runs, random_state=0)
        _, drawing = timed(lambda: fitted.sample_posterior(X_test[:1], 200_000))
        runs = partial(coverage_score, fitted, *many, n_samples=1000, random_state=0)
        _, calibrating = timed(runs)
    return {
        "task": task_name,
        "method": method,
        "pairs": n_pairs,
        "seed": seed,
        "fit_s": seconds,
        "log_score": log_score,
        "gap": gap,
        **compare(fitted, task),
        "coverage": coverage,
        "energy": energy,
        "evals_per_s": len(many[0]) / evaluating,
        "draws_per_s": drawing and 200_000 / drawing,
        "calibration_s": calibrating,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
