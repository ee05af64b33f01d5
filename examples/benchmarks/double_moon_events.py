"""NLE on the double moon event problem: distance to the exact posterior.

    python examples/benchmarks/double_moon_events.py posterior [n_thetas]
    python examples/benchmarks/double_moon_events.py batched

"posterior" trains on 200,000 events (2 minutes), then infers 500 events at each of ten random
thetas, at first and after three rounds of 50,000 events in the posterior's region, and compares
with the exact posterior: errors of the means of ln sigma and ln t in exact sds, ratios of their
sds, error of P(d = 1). "batched" times nested sampling of 500 events with batched likelihood calls
and one by one. How far the likelihood is from the exact one tells `python -m examples.benchmarks
double_moon_event --methods "skbi NLE" --pairs 20000`.
"""

import copy
import sys
import time

import numpy as np
from scipy import optimize
from scipy.special import logsumexp

from skbi import DoubleMoonSimulator, NLEEstimator

PRIOR = DoubleMoonSimulator.prior("event")


def events(theta, seed):
    """Simulate one point for each theta, (n, 2)."""
    return DoubleMoonSimulator(n_points=1, random_state=seed).transform(theta)[:, 0]


def exact_log_likelihood(theta, X, n_angles=400):
    """Log p(x | theta), by quadrature over the angle; theta (3,), X (n, 2)."""
    d, sigma, t = theta
    angle = (np.arange(n_angles) + 0.5) * np.pi / n_angles
    x, y = np.cos(angle), np.sin(angle)
    x, y = (x, y) if d == 1 else (1 - x, 0.5 - y)
    distance = (X[:, :1] - x) ** 2 + (X[:, 1:] / t - y) ** 2
    kernel = logsumexp(-0.5 * distance / sigma**2, axis=1)
    return kernel - np.log(2 * np.pi * sigma**2 * t * n_angles)


class ExactPosterior:
    """The posterior of X on a grid of (ln sigma, ln t) around the mode, for each d."""

    def __init__(self, X, start, width=5, n=21):
        tables, log_weights, self.cells = [], [], {}
        for d in (0, 1):

            def log_joint(q, d=d):
                theta = np.array([d, *np.exp(q)])
                log_prior = PRIOR.log_prob(theta[None])[0] + q.sum()
                return exact_log_likelihood(theta, X).sum() + log_prior

            options = {"xatol": 1e-3, "fatol": 1e-2, "maxfev": 150}
            found = optimize.minimize(
                lambda q: -log_joint(q), np.log(start[1:]), method="Nelder-Mead", options=options
            )
            mode, step = found.x, 0.01 * np.eye(2)
            bend = [2 * log_joint(mode) - log_joint(mode + s) - log_joint(mode - s) for s in step]
            sd = 0.01 / np.sqrt(np.maximum(bend, 1e-4))
            axes = mode[:, None] + width * sd[:, None] * np.linspace(-1, 1, n)
            grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
            self.cells[d] = axes[:, 1] - axes[:, 0]
            values = np.array([log_joint(q) for q in grid])
            tables.append(np.column_stack([np.full(n**2, d), grid]))
            log_weights.append(values + np.log(self.cells[d]).sum())
        self.table, log_weights = np.vstack(tables), np.concatenate(log_weights)
        self.log_evidence = logsumexp(log_weights)
        self.weights = np.exp(log_weights - self.log_evidence)
        self.mean = self.weights @ self.table
        self.sd = np.sqrt(self.weights @ (self.table - self.mean) ** 2)

    def sample(self, n, rng):
        """Draw theta (n, 3), uniformly within the cells of the grid."""
        rows = self.table[rng.choice(len(self.table), size=n, p=self.weights)]
        cells = np.array([self.cells[d] for d in rows[:, 0]])
        q = rows[:, 1:] + cells * rng.uniform(-0.5, 0.5, size=(n, 2))
        return np.column_stack([rows[:, 0], np.exp(q)])


def compare(samples, exact):
    """Errors of the means of (ln sigma, ln t) in sds, ratios of the sds, error of P(d = 1)."""
    q = np.log(samples[:, 1:])
    mean, sd = exact.mean[1:], exact.sd[1:]
    wrong = abs(samples[:, 0].mean() - exact.mean[0])
    return np.r_[np.abs(q.mean(axis=0) - mean) / sd, q.std(axis=0) / sd, wrong]


def region(samples, n, rng, widen=3.0):
    """Draw n thetas around posterior samples, ``widen`` times as wide, in the prior's support."""
    z = PRIOR.to_normal(samples)
    rows = z[rng.integers(len(z), size=n)]
    spread = widen * z.std(axis=0) * ~PRIOR.discrete
    return PRIOR.from_normal(rows + spread * rng.standard_normal(rows.shape))


def batched(seed=0):
    """Time nested sampling of 500 events, with batched likelihood calls and one by one."""
    theta = PRIOR.sample(20_000, random_state=seed)
    nle = NLEEstimator(prior=PRIOR, random_state=seed).fit(theta, events(theta, seed))
    X_obs = events(np.tile([1.0, 0.05, 0.8], (500, 1)), seed + 1)
    for queue_size in (None, 1):
        start = time.perf_counter()
        options = {"nlive": 300, "queue_size": queue_size, "return_info": True}
        info = nle.sample_posterior(X_obs[None], 500, sampler="nested", **options)[1][0]
        seconds, log_z = time.perf_counter() - start, info.log_evidence
        label = "one by one" if queue_size else "batched"
        print(f"{label:10} {seconds:5.1f} s, {info.n_calls} calls, log Z {log_z:.2f}", flush=True)


def posterior(n_thetas=10, seed=0):
    """Train on 200,000 events; infer, refine, compare."""
    theta = PRIOR.sample(200_000, random_state=seed)
    X = events(theta, seed)
    first = NLEEstimator(prior=PRIOR, random_state=seed).fit(theta, X)
    thetas = PRIOR.sample(int(n_thetas), random_state=seed + 1)
    for i, truth in enumerate(thetas):
        X_obs = events(np.tile(truth, (500, 1)), 100 + i)
        exact = ExactPosterior(X_obs, truth)
        print(f"theta {truth.round(3)}, exact sds {exact.sd.round(4)}", flush=True)
        nle = copy.deepcopy(first).set_params(warm_start=True, max_iter=8)
        rng, new_theta, new_X = np.random.default_rng(i), np.empty((0, 3)), np.empty((0, 2))
        for k in range(4):
            samples = infer(nle, X_obs, exact, f"round {k}")
            if k in (0, 3):
                infer(nle, X_obs, exact, f"round {k}", sampler="nested", nlive=300)
            if k < 3:
                more = region(samples, 50_000, rng)
                new_theta = np.concatenate([new_theta, more])
                new_X = np.concatenate([new_X, events(more, 1000 + 10 * i + k)])
                old = rng.choice(len(theta), 50_000, replace=False)
                nle.fit(np.concatenate([new_theta, theta[old]]), np.concatenate([new_X, X[old]]))


def infer(nle, X_obs, exact, label, **options):
    """Sample, compare with the exact posterior, time and print."""
    start = time.perf_counter()
    samples = nle.sample_posterior(X_obs[None], 1000, **options)[0]
    seconds = time.perf_counter() - start
    found = compare(samples, exact).round(2)
    print(f"  {label} {options.get('sampler', 'smc'):6} {found} {seconds:.0f} s", flush=True)
    return samples


if __name__ == "__main__":
    commands = {"posterior": posterior, "batched": batched}
    commands[sys.argv[1]](*sys.argv[2:])
