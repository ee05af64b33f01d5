"""Measure accuracy and cost on one machine, skbi beside sbi: a table and a picture.

    pip install -c tests/constraints.txt -e ".[plot,bench]"
    python -m examples.benchmarks two_moons gaussian_mixture --pairs 1000 10000 --seeds 5
    python -m examples.benchmarks double_moon --methods skbi   # needs no sbi
    python -m examples.benchmarks two_moons double_moon_event --methods "skbi NLE" "sbi NLE MAF"

Every fit has a process of its own. The table shows medians over the seeds. Everything goes to
benchmarks.json and benchmarks.png in the folder --out. The tasks are described in tasks.py, the
methods in methods.py, and references.py computes the reference draws. NPE cannot learn
double_moon_event, because one of its parameters is discrete.

Tasks:

two_moons, gaussian_mixture, gaussian_linear_uniform, slcp, sir, bernoulli_glm : of the published
    SBI benchmark, with its observations.
lotka_volterra, slcp_sets : close to those of that benchmark.
means_and_precisions, double_moon, double_moon_event, poisson_counts, cauchy_samples : of skbi, with
    no reference draws.
digits_mixture : of skbi, pictures of 64 pixels; posteriors are mixtures of ten Gaussians.

slcp_sets, means_and_precisions, double_moon and cauchy_samples have sets: NPE reads them, NLE
learns their single points. sir, poisson_counts and the first feature of bernoulli_glm are counts,
which skbi's NLE dequantizes.

Columns:

fit_s : seconds of the fit.
log_score : mean held-out log q(theta | X), of NLE log q(X | theta), in nats; higher is better. CMPE
    has none.
gap : how far log_score is below that of the exact density, in nats, where that is known. Of NLE on
    counts it compares with a mass, which means nothing without dequantization.
c2st : accuracy of an MLP that tells 2,000 draws from 2,000 reference draws (five folds, mean over
    the five observations); 0.5 is perfect.
c2st_rf : the same of a random forest and of 5,000 draws.
posterior_s : seconds for 5,000 draws for one observation (median over the five observations).
coverage : coverage_score of 1,000 runs; 1 is calibrated.
energy : energy_score of the same runs; lower is better.
evals_per_s : densities a second.
draws_per_s : draws a second for one observation.
calibration_s : seconds to calibrate 2,000 runs by 1,000 draws each.
peak_mb : peak memory of the process.

DEFAULTS.md in this folder has the measurements that the defaults of skbi were chosen by, and how to
add to them. scaling.py measures how cost grows with pairs, points, parameters, observations and
draws.
"""

import argparse
import json
import multiprocessing
import os
import platform
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from examples.benchmarks.measure import measure
from examples.benchmarks.methods import METHODS
from examples.benchmarks.tasks import TASKS

COLUMNS = (
    "fit_s",
    "log_score",
    "gap",
    "c2st",
    "c2st_rf",
    "posterior_s",
    "coverage",
    "energy",
    "evals_per_s",
    "draws_per_s",
    "calibration_s",
    "peak_mb",
)
ONLY_SKBI = "ar1_ragged", "ou_process", "lotka_volterra_series"  # ragged, or of several channels
LABELS = {
    "c2st": "C2ST",
    "gap": "below the exact score, nats",
    "log_score": "held-out log score, nats",
}


def machine():
    """Describe what the figures were measured on."""
    versions = {}
    for name in ("skbi", "sbi", "torch", "numpy"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {"versions": versions, "cores": os.cpu_count(), "machine": platform.platform()}


def summarise(rows):
    """Return the median over seeds of every column, by task, pairs and method."""
    keys = sorted({(r["task"], r["pairs"], r["method"]) for r in rows})
    for key in keys:
        same = [r for r in rows if (r["task"], r["pairs"], r["method"]) == key]
        values = {c: [r[c] for r in same if r[c] is not None] for c in COLUMNS}
        yield *key, {c: float(np.median(v)) if v else None for c, v in values.items()}


def show(rows):
    """Print the table."""
    print(f"{'task':24}{'pairs':>7}  {'method':13}" + "".join(f"{c:>14}" for c in COLUMNS))
    for task, pairs, method, medians in summarise(rows):
        cells = ("" if v is None else f"{v:.4g}" for v in medians.values())
        print(f"{task:24}{pairs:7}  {method:13}" + "".join(f"{c:>14}" for c in cells))


def draw(rows, path):
    """Draw accuracy against the time of the fit, a panel for each task."""
    from matplotlib.figure import Figure

    summary = list(summarise(rows))
    tasks = list(dict.fromkeys(task for task, *_ in summary))
    figure = Figure(figsize=(4 * len(tasks), 3.5), layout="constrained")
    for ax, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        mine = [row for row in summary if row[0] == task]
        column = next(name for name in LABELS if mine[0][3][name] is not None)
        for method in dict.fromkeys(row[2] for row in mine):
            found = [row[3] for row in mine if row[2] == method]
            ax.plot([m["fit_s"] for m in found], [m[column] for m in found], "o-", label=method)
        ax.set(xscale="log", xlabel="fit, seconds", title=task)
        ax.set_ylabel(LABELS[column])
    ax.legend()
    figure.savefig(path)


def main():
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    by_all = [name for name in TASKS if name not in ("double_moon_event", *ONLY_SKBI)]
    parser.add_argument("tasks", nargs="*", default=by_all, help=f"of {list(TASKS)}")
    parser.add_argument("--methods", nargs="+", default=["skbi", "sbi NSF"], choices=METHODS)
    parser.add_argument("--pairs", nargs="+", type=int, default=[10_000])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("."))
    options = parser.parse_args()
    if unknown := [name for name in options.tasks if name not in TASKS]:
        parser.error(f"no such tasks: {unknown}; there are {list(TASKS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    rows, spawn = [], multiprocessing.get_context("spawn")
    for seed in range(options.seeds):
        for task in options.tasks:
            for n_pairs in options.pairs:
                for method in options.methods:
                    with ProcessPoolExecutor(1, spawn) as alone:
                        run = alone.submit(measure, task, method, n_pairs, seed, options.threads)
                    rows.append(run.result())
                    result = {"where": machine(), "threads": options.threads, "rows": rows}
                    (options.out / "benchmarks.json").write_text(json.dumps(result, indent=1))
                    show(rows[-1:])
    print()
    show(rows)
    draw(rows, options.out / "benchmarks.png")


if __name__ == "__main__":
    main()
