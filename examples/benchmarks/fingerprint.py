"""Fingerprints of what skbi computes, to show that a change of its code changed no result.

    python -m examples.benchmarks.fingerprint > before.txt   # on the commit before
    python -m examples.benchmarks.fingerprint > after.txt    # on the commit after
    diff before.txt after.txt

Every line is a hash of arrays, bit by bit, so that fingerprints compare on one machine, with one
number of threads and the same versions of torch, numpy and dynesty. Only public names are used.
"""

import hashlib
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from sklearn.decomposition import PCA

from skbi import (
    DoubleMoonSimulator,
    FunctionSimulator,
    JointPrior,
    NLEEstimator,
    NPEEstimator,
    c2st_score,
    calibration_report,
    coverage_curve,
    coverage_score,
    misspecification_score,
    posterior_predictive,
    sbc_ranks,
    sequential,
    simulate,
    tarp_curve,
)

QUICK = {"max_iter": 6, "n_transforms": 2, "hidden_layer_sizes": (16,), "random_state": 0}
PRIOR = JointPrior({"a": stats.uniform(-1, 2), "b": stats.halfnorm(), "c": stats.norm(2, 3)})


def digest(*values):
    """Hash arrays, numbers and sequences of them."""
    state = hashlib.sha256()
    for value in values:
        if isinstance(value, list | tuple) or np.asarray(value).dtype.kind == "O":
            state.update(digest(*value).encode())
        else:
            state.update(np.ascontiguousarray(np.asarray(value, dtype=np.float64)).tobytes())
    return state.hexdigest()[:16]


def show(name, *values):
    """Print one line."""
    print(f"{name:44} {digest(*values)}", flush=True)


def show_fit(name, estimator):
    """Print what a fit has learnt, whatever the weights are called, and how it went."""
    weights = [w.numpy() for m in estimator.members_ for w in m.state_dict().values()]
    show(f"{name}: weights", *sorted(weights, key=digest))
    scores = estimator.validation_scores_ or [], estimator.best_validation_score_ or 0.0
    show(f"{name}: history", estimator.n_iter_, estimator.loss_curve_, *scores)


def gaussian(n, seed=0, width=4):
    """Return parameters, and vectors that are linear in them, one column with heavy tails."""
    theta = PRIOR.sample(n, random_state=seed)
    rng = np.random.default_rng(seed + 100)
    X = theta @ rng.normal(size=(3, width)) + 0.3 * rng.normal(size=(n, width))
    X[:, -1] = np.exp(X[:, -1])
    return theta, X


def as_sets(n, low, high, seed=0):
    """Return parameters and sets of between low and high points."""
    theta = PRIOR.sample(n, random_state=seed)
    rng = np.random.default_rng(seed + 200)
    sizes = rng.integers(low, high + 1, n)
    X = np.empty(n, dtype=object)
    X[:] = [
        t[[0, 2]] + np.exp(t[0]) * rng.normal(size=(s, 2))
        for t, s in zip(theta, sizes, strict=True)
    ]
    return theta, (np.stack(list(X)) if low == high else X)


class Pooled(torch.nn.Module):
    """A summary network of a user's own."""

    def __init__(self, width):
        super().__init__()
        self.linear = torch.nn.Linear(width, 5)

    def forward(self, points):
        """Map vectors to five numbers."""
        return torch.tanh(self.linear(points))


def counts(theta, rng):
    """Return eight counts."""
    return rng.poisson(np.exp(0.5 * theta[0]) + theta[1], size=8)


def faulty(theta, rng):
    """Fail now and then."""
    return np.full(3, np.nan) if theta[1] > 1.8 else theta + rng.normal(size=3)


def many(theta, rng):
    """Simulate all rows at once."""
    return theta[:, :2] + rng.normal(size=(len(theta), 2))


def simulations():
    """Simulate in memory and into stores."""
    simulators = {
        "moons": (DoubleMoonSimulator.prior(), DoubleMoonSimulator(n_points=7)),
        "ragged moons": (DoubleMoonSimulator.prior(), DoubleMoonSimulator(n_points=(2, 9))),
        "counts": (PRIOR, counts),
        "many": (PRIOR, FunctionSimulator(many, vectorized=True)),
    }
    for name, (prior, simulator) in simulators.items():
        for n_jobs in (1, 2):
            show(f"simulate {name}, n_jobs={n_jobs}", *simulate(
                prior, simulator, 1500, n_jobs=n_jobs, random_state=3
            ))  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            stored = simulate(prior, simulator, 1500, random_state=3, store=Path(folder) / "s")
            show(f"simulate {name}, store", *stored)
            files = sorted((Path(folder) / "s").glob("*.npy"))
            show(f"simulate {name}, files", *(np.frombuffer(f.read_bytes(), "u1") for f in files))
    for on_error in ("drop", "nan"):
        *pairs, report = simulate(
            PRIOR, faulty, 500, random_state=4, on_error=on_error, return_report=True
        )
        show(f"simulate faulty, {on_error}", *pairs, report.rows, report.p_values)


def posteriors():
    """Fit NPE to every kind of data."""
    torch.manual_seed(0)
    vectors, sets, ragged = gaussian(600), as_sets(300, 12, 12), as_sets(300, 1, 40)
    holes = vectors[1].copy()
    holes[np.random.default_rng(5).random(holes.shape) < 0.1] = np.nan
    set_holes = sets[1].copy()
    set_holes[:, 0, 0] = np.nan
    padded = np.full((300, 40, 2), np.nan)
    for row, x in zip(padded, ragged[1], strict=True):
        row[: len(x)] = x
    cases = {
        "vectors": ({}, vectors),
        "vectors without prior": ({"prior": None}, vectors),
        "vectors, affine": ({"flow": "realnvp", "n_estimators": 2}, vectors),
        "vectors, one parameter": (
            {"prior": None, "flow": "realnvp"}, (vectors[0][:, :1], vectors[1]),
        ),
        "vectors, no early stopping": ({"early_stopping": False}, vectors),
        "vectors, PCA": ({"summary": PCA(2)}, vectors),
        "vectors, module": ({"summary": Pooled(4)}, vectors),
        "vectors, mask": ({"missing": "mask"}, (vectors[0], holes)),
        "sets": ({}, sets),
        "sets, mask": ({"missing": "mask"}, (sets[0], set_holes)),
        "ragged": ({}, ragged),
        "padded": ({}, (ragged[0], padded)),
    }  # fmt: skip
    for name, (options, (theta, X)) in cases.items():
        npe = NPEEstimator(**{"prior": PRIOR, **QUICK, **options}).fit(theta, X)
        show_fit(f"NPE {name}", npe)
        show(f"NPE {name}: log_prob", npe.log_prob(theta, X), npe.score(theta, X))
        show(f"NPE {name}: one", npe.log_prob(theta, np.asarray(X[0])))
        draws = npe.sample_posterior(X[:20], 50), npe.sample_posterior(X[:3], 7, random_state=9)
        show(f"NPE {name}: draws", *draws)
        show(f"NPE {name}: typicality", misspecification_score(npe, X[:50]))
    theta, X = vectors
    weights = np.random.default_rng(6).uniform(0, 2, len(X))
    weights[:20] = 0
    npe = NPEEstimator(prior=PRIOR, warm_start=True, **QUICK).fit(theta, X, weights)
    show_fit("NPE weighted", npe)
    show_fit("NPE again", npe.set_params(learning_rate_init=1e-3).fit(*gaussian(500, seed=7)))
    npe = NPEEstimator(prior=PRIOR, warm_start=True, **QUICK).fit(*ragged)
    show_fit("NPE ragged, again", npe.fit(*as_sets(300, 1, 40, seed=8)))


def likelihoods():
    """Fit NLE and sample it by every sampler."""
    theta, X = gaussian(800, width=3)
    nle = NLEEstimator(prior=PRIOR, **QUICK).fit(theta, X)
    npe = NPEEstimator(prior=PRIOR, **{**QUICK, "max_iter": 20}).fit(theta, X)
    show_fit("NLE vectors", nle)
    show("NLE vectors: log features", nle.log_features_)
    show("NLE vectors: log_prob", nle.log_prob(theta, X), nle.score(theta, X))
    show("NLE vectors: log_prob of sets", nle.log_prob(theta[:4], X[:40].reshape(4, 10, 3)))
    show("NLE vectors: log_posterior", nle.log_posterior(theta, X[0]))
    show("NLE vectors: sample_likelihood", nle.sample_likelihood(theta[:5], 9))
    show("NLE vectors: typicality", misspecification_score(nle, X[:50]))
    observed = X[:12].reshape(3, 4, 3)
    for name, options in {
        "smc": {"n_particles": 64},
        "nested": {"nlive": 60},
        "nuts": {"n_chains": 4},
        "importance": {"proposal": npe, "n_proposals": 500},
    }.items():
        data = X[:3] if name == "importance" else observed
        for n_jobs in (1, 2):
            draws, info = nle.sample_posterior(
                data, 60, sampler=name, n_jobs=n_jobs, return_info=True, **options
            )
            found = [(i.n_calls, i.log_evidence or 0.0, i.ess) for i in info]
            show(f"NLE {name}, n_jobs={n_jobs}", draws, *found)
    show("NPE refined", npe.sample_posterior(X[:2], 40, refine=nle, random_state=3))
    show("NLE evidence", *nle.log_evidence(observed[:1], n_particles=64))
    for name, data in {"sets": as_sets(60, 5, 5), "ragged": as_sets(60, 1, 9)}.items():
        some = NLEEstimator(prior=PRIOR, n_estimators=2, flow="realnvp", **QUICK).fit(*data)
        show_fit(f"NLE {name}", some)
        show(f"NLE {name}: log_prob", some.log_prob(*data))
        show(f"NLE {name}: draws", some.sample_posterior(data[1][:1], 20, n_particles=64))
    prior = JointPrior({"k": stats.bernoulli(0.4), "m": stats.randint(0, 4)})
    theta = prior.sample(500, random_state=0)
    X = theta + 0.7 * np.random.default_rng(1).normal(size=theta.shape)
    discrete = NLEEstimator(prior=prior, **QUICK).fit(theta, X)
    show("NLE enumerate", discrete.sample_posterior(X[:4], 30), *discrete.log_evidence(X[:4]))
    prior = DoubleMoonSimulator.prior("event")
    theta = prior.sample(800, random_state=0)
    X = DoubleMoonSimulator(n_points=1, random_state=1).transform(theta)[:, 0]
    event = NLEEstimator(prior=prior, n_estimators=2, **QUICK).fit(theta, X)
    show_fit("NLE event", event)
    show("NLE event: nuts", event.sample_posterior(X[:1], 40, sampler="nuts", n_chains=4))
    show("NLE event: smc", event.sample_posterior(X[:1], 40, n_particles=64))
    theta, X = simulate(PRIOR, counts, 300, random_state=2)
    dequantized = NLEEstimator(prior=PRIOR, dequantize=1.0, **QUICK).fit(theta, X[:, :2])
    show_fit("NLE dequantized", dequantized)
    dequantized.set_params(warm_start=True, prior=JointPrior({
        "a": stats.uniform(-0.5, 1), "b": stats.halfnorm(), "c": stats.norm(2, 1),
    }))  # fmt: skip
    show("NLE other prior: nuts", dequantized.sample_posterior(X[:1, :2], 40, sampler="nuts"))
    show("NLE other prior: smc", dequantized.sample_posterior(X[:1, :2], 40, n_particles=64))
    show_fit("NLE again", dequantized.set_params(prior=PRIOR).fit(theta, X[:, :2]))


def calibrations():
    """Score, by one and by two jobs."""
    theta, X = gaussian(600)
    npe = NPEEstimator(prior=PRIOR, **QUICK).fit(theta, X)
    test = gaussian(130, seed=1)
    for kind in ("rank", "sigma", "hpd", "tarp"):
        for n_jobs in (1, 2):
            score = coverage_score(
                npe, *test, kind=kind, n_samples=60, n_jobs=n_jobs, random_state=0
            )
            show(f"coverage {kind}, n_jobs={n_jobs}", score)
    report = calibration_report(npe, *test, n_samples=60, random_state=0)
    show("report", report.coverage, report.bias, report.spread, report.shape_pvalue)
    samples = npe.sample_posterior(test[1], 60, random_state=0)
    show("ranks", sbc_ranks(test[0], samples, random_state=0))
    show("curve", *coverage_curve(test[0], samples, random_state=0))
    show("tarp", *tarp_curve(test[0], samples, random_state=0))
    show("c2st", c2st_score(samples[0], samples[1], random_state=0))
    show(
        "predictive", posterior_predictive(npe, many_rows, test[1][:5], n_samples=5, random_state=0)
    )
    nle = NLEEstimator(prior=PRIOR, **QUICK).fit(theta, X)
    for n_jobs in (1, 2):
        fast = Fast(nle)
        score = coverage_score(fast, theta[:4], X[:4], n_samples=30, n_jobs=n_jobs, random_state=0)
        show(f"coverage of NLE, n_jobs={n_jobs}", score)
    _, theta, X = sequential(
        PRIOR, many_rows, test[1][0, :2], NPEEstimator(**QUICK), rounds=2, n_samples=200,
        random_state=0,
    )  # fmt: skip
    show("sequential", theta, X)


def many_rows(theta, rng):
    """Simulate one row."""
    return theta[:2] + rng.normal(size=2)


class Fast:
    """An NLE with a quick sampler."""

    def __init__(self, nle):
        self.nle = nle

    def sample_posterior(self, X, n_samples, *, random_state=None):
        """Sample by chains."""
        return self.nle.sample_posterior(
            X, n_samples, sampler="nuts", n_chains=4, random_state=random_state
        )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parts = {f.__name__: f for f in (simulations, posteriors, likelihoods, calibrations)}
    for part in sys.argv[1:] or parts:
        parts[part]()
