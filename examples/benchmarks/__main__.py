"""Accuracy against cost, on one machine: skbi beside sbi, a table and a picture.

    pip install -c tests/constraints.txt -e ".[plot,bench]"
    python -m examples.benchmarks two_moons gaussian_mixture --pairs 1000 10000 --seeds 5
    python -m examples.benchmarks double_moon --methods skbi   # needs no sbi
    python -m examples.benchmarks two_moons double_moon_event --methods "skbi NLE" "sbi NLE MAF"

Every fit has a process of its own. Columns: seconds of the fit; mean held-out log q(theta | X), of
NLE log q(X | theta), and how far that is below the exact one (nats, where known); C2ST against
reference draws (0.5 is perfect; an MLP, five folds, mean over the observations); coverage_score of
1,000 runs; densities a second; draws a second for one observation; seconds to calibrate 2,000 runs
by 1,000 draws; peak memory. Medians over seeds. Everything goes to benchmarks.json and
benchmarks.png in the folder --out. How cost grows with pairs, points, parameters, observations and
draws: scaling.py. NLE reads vectors; NPE cannot learn double_moon_event, one of whose parameters is
discrete.

What the defaults were chosen by, one seed and one thread: nats from the exact posterior at 10,000
pairs, and seconds of the fit, of two_moons (tm) and gaussian_linear_uniform (glu).

- Affine couplings leave C2ST at 0.70 (tm) and 0.64 (gaussian_mixture), splines 0.53 and 0.55.
- Weights that are shrunk to zero unless significant (alpha 1.25): glu 0.13; hardly shrunk 0.70.
  But tm: 0.71 and 0.20. So members differ in it, and the validation pairs weight them.
- Members that keep their own best weights: glu 0.12; the best weights of their mean 0.21 (four
  members of six transforms).
- Six transforms with one gated layer of 64: tm 0.19 in 22 s; two layers 0.13 in 28 s; four with
  two layers 0.15 in 21 s. Shrunk, glu: six with one 0.13 in 33 s, four with one 0.12 in 22 s.
- Two members, seeds 0 and 1: first layer of 32, tm 0.17, 0.17, gaussian_mixture (gm) 0.09, 0.10,
  glu 0.14, 0.15 in 24, 24, 33 s; of 64 0.17, 0.17, 0.09, 0.11, 0.18, 0.16 in 30, 30, 38 s; of 16
  tm 0.20, glu 0.23; both of 32 tm 0.18, 0.19, glu 0.25. NLE is closer with 64: 0.033, not 0.040.
- Three members of that: C2ST tm 0.525, 0.508, gm 0.543, 0.539 in 29 s, glu 0.52, 0.53 in 40 s; two:
  0.539, 0.522, 0.552, 0.555, 0.514, 0.511; four: tm 0.527, 0.508, gm 0.541, 0.543 in 36 s. Half as
  many epochs more: two members tm 0.535, 0.509, gm 0.549, 0.549 in 39 s.
- Bounded gates (value times sigmoid): glu 0.13, 0.18 in the second layer, 0.47, 0.42 in both. A
  second layer without gate: gm 0.11, 0.11. Splines of six bins: tm 0.18, 0.18, not faster.
  On sets, hardswish for SiLU: double moon -9.56, -9.61 instead of -9.64, -9.62, not faster;
  sigmoid -8.82, -8.87 in 0.8 of a step's time, no gate but the product -7.89, -7.78.
- Layers without gates: tm 0.14, glu 0.47. Three gated layers, or two unbounded ones on sets for 50
  epochs, diverged; bounded between the layers they do not.
- Muon instead of Adam: tm 0.14 instead of 0.19, as good as twice the epochs, a third slower.
- Of no use: averaged weights, finer or narrower splines; shrinkage that falls during training (glu
  0.23, tm 0.31), that spares large weights (0.35, 0.39), or that moves to the best member's (tm
  0.17 to 0.23).
- Adam's second decay 0.99 instead of 0.999: glu 0.10, 0.12 instead of 0.15, 0.15; tm, gm alike. Of
  twelve fits to 5,000 sets of 1 to 40 points three diverged; with 0.99 and bounded steps of the
  context none. (Layers of phi bounded instead: two of fourteen. At twice the learning rate one of
  three still ended badly, two with either alone, all eight with bounded layers.)
- The strongest shrinkage, one member: glu at 10,000 pairs (three seeds) alpha 1.1 0.23, 1.25 0.14,
  1.4 0.12, 1.55 0.17; at 30,000 1.1 0.05, 1.25 0.10, 1.4 0.15. Means under noise that grows with
  them (exact by quadrature): six at 1,000 pairs 1.25 0.48, 2 0.26, 3 0.44; twelve at 2,000 1.25
  0.86, 1.7 0.44, 3 0.51; twelve at 5,000 1.1 0.43, 1.4 0.24. Hence alpha by the number of pairs.
- Columns of heavy tails given once more, bent by asinh, if their standard deviation is more than
  1.3 (or 2) times what their quartiles tell; nats closer at 10,000 pairs (one to three seeds) and
  at 1,000 (four): Lotka-Volterra populations 1.4 (1.1) and 1.3 (1.2), Poisson counts with eight
  coefficients 0.02 (0.04) and 0.7 (0.35), SLCP 0.04 and 0.03 (untouched), quantiles of Student t
  samples 0.03 (0.05) and 0.07 (0.1); epidemic curves 0.01 (0.0) and 0.09 (0.06) farther. Bent
  instead (2): 1.2 closer, counts 0.08, curves 0.07 and 0.25 farther.
  Sets of 50, heavy-tailed themselves, 3,000 pairs, one seed: lognormal 0.5 nats closer, as with
  their logarithm alone, Lomax 2.5 (2.6), Cauchy 2.6. NLE, logarithms instead: Lotka-Volterra 7.9
  (2: 5.6) and 13.6 (9.4) nats closer; by asinh, which can bend what the affine map would fit, SLCP
  0.7 and Student t quantiles 0.4 farther.
- Members compared epoch by epoch, by twice what their difference varies, would leave sooner (the
  double moon's at epoch 21, not 29), but the best of SLCP did, too: -4.66 instead of -4.02.
- Members that leave when far behind: glu 12 instead of 18 s, tm 10.5 instead of 13 s, as close. By
  a margin of 0.3 nats alone a good member of tm left, too.
- Two of four members with the strongest shrinkage: glu 0.11, not 0.15, but in 18 s, not 12.
- The start scored before the first epoch: means of five Gaussians 0.009 instead of 0.02 to 0.04.
- 1,000 pairs: four members tm 0.51, gaussian_mixture 0.31; two 0.65 and 0.38 (unbounded layers).
- Vectors start at a regression whose errors are those of pairs left out, not residuals: Gaussians,
  5 parameters through 500 features at 1,000 pairs 0.43 nats off instead of 0.46, coverage 0.98 (was
  0.96), 3 through 500 at 300 pairs 0.57 instead of 1.9, 0.97 (0.67); Lotka-Volterra at 1,000 pairs
  (three seeds) coverage 0.96, 0.97, 0.96 instead of 0.94, 0.97, 0.94.
- Sets start at a regression on their moments: means of Gaussians, 2 through sets of 10 at 500 pairs
  0.06 nats off instead of 0.24, 5 (20 points, 1,000 pairs) 0.20 (0.41), 20 (20 points, 2,000 pairs)
  1.6 (4.8); means_and_precisions 0.18, 0.18 (0.22, 0.20); double moon -9.70, -9.66, -9.74 (-9.71,
  -9.51, -9.64), after 12 epochs -8.11, -7.92 (-7.96, -7.11). By all of the context, not only what
  is predicted: 0.05, 0.10 and 1.1 off, but the double moon -4.3, -4.8 after 12 epochs.
- Base spreads fitted to the 100 pairs aside at 1,000 pairs: coverage lost on four of six fits. More
  pseudo-rows for the members' weights (3, 10): less overconfident, up to 0.02 and 0.1 nats farther.
- Sets read in part for half and 85 % of the epochs: as close after 50, but -7.4, -6.5 after 12.
- Sets learn slower: at the vectors' learning rate and batch the double moon ends at -8.0, not -9.5.
- Sets, one member, shrinkage of the flow and of the summary network, in the standard errors of
  alpha: means_and_precisions 1.3 nats from exact without any (coverage 0.94), 0.54 with 0.26, 0.24
  with 0.6, 0.40 with 1.2; of the flow alone 0.75; random parts of the sets to the end instead 1.1
  to 1.3, with both 0.45. The double moon 0.63 with 0.05, 1.1 with 0.2, 3.6 with 0.6; raised to 1.3
  when whole sets are read 1.2, to 0.6 one change of parts before that, too, 2.0. Two members, of
  0.026 and 0.65: 0.19 and 0.72, in 15 to 45 % more time where the second leaves, else 75 %.
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
    "coverage",
    "evals_per_s",
    "draws_per_s",
    "calibration_s",
    "peak_mb",
)
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
    learnable = [name for name in TASKS if name != "double_moon_event"]
    parser.add_argument("tasks", nargs="*", default=learnable, help=f"of {list(TASKS)}")
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
