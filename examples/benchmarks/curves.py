"""Curves, spectra and histograms as plain vectors: 40 to 1,000 features, a few thousand pairs.

    python -m examples.benchmarks.curves [--problems decay ricker] [--seeds 0 1 2] [--sbi]

Each row is one fit with the defaults, scored on 1,000 held-out pairs. The exact posterior of
the decay, by quadrature, and of the baseline stand beside.
"""

import argparse
import time

import numpy as np
from scipy import stats

from examples.benchmarks.methods import Sbi
from examples.benchmarks.tasks import Task
from skbi import JointPrior, NPEEstimator, coverage_score

SECONDS, FREQUENCY, BINS = np.linspace(0, 4, 500), np.linspace(-10, 10, 1000), np.arange(50)


def uniform(low, high):
    """Uniform distribution between two bounds."""
    return stats.uniform(low, high - low)


def decay(rng, n):
    """Return an exponential decay at 500 times, with noise of a twentieth."""
    theta = rng.exponential(0.5, size=(n, 1))
    X = 2 * np.exp(-theta * SECONDS) + 0.1 * rng.normal(size=(n, 500))
    return [stats.expon(scale=0.5)], theta, X


def line(centre, width, height):
    """Lorentz profile at all frequencies."""
    return height / (1 + ((FREQUENCY - centre) / width) ** 2)


def lorentz(rng, n):
    """Return three blended lines; position, width and height of the middle one are unknown."""
    priors = [uniform(-2, 2), uniform(0.3, 1.5), uniform(0.3, 2)]
    theta = np.column_stack([prior.rvs(n, random_state=rng) for prior in priors])
    X = line(-2.5, 1, 1) + line(2.5, 0.8, 1.2) + line(*theta.T[:, :, None])
    return priors, theta, X + 0.02 * rng.normal(size=(n, 1000))


def oscillator(rng, n):
    """Return a damped oscillation at 100 times."""
    priors = [uniform(0.5, 3), uniform(0.05, 0.5), stats.norm(0, 1)]
    theta = np.column_stack([prior.rvs(n, random_state=rng) for prior in priors])
    (speed, damping, phase), t = theta.T[:, :, None], np.linspace(0, 10, 100)
    X = np.exp(-damping * t) * np.cos(speed * t + phase) + 0.1 * rng.normal(size=(n, 100))
    return priors, theta, X


def line_spectrum(rng, n):
    """Return counts of a line over a background in 50 bins."""
    priors = [
        stats.lognorm(0.7, scale=np.exp(3)),
        uniform(10, 40),
        uniform(1, 5),
        stats.lognorm(0.5, scale=np.e),
    ]
    theta = np.column_stack([prior.rvs(n, random_state=rng) for prior in priors])
    height, centre, width, background = theta.T[:, :, None]
    rate = background + height * np.exp(-0.5 * ((BINS - centre) / width) ** 2)
    return priors, theta, rng.poisson(rate).astype(float)


def student(rng, n):
    """Return a line through 40 points with noise of heavy tails and unknown scale."""
    priors = [stats.norm(), stats.norm(), stats.lognorm(0.5, scale=np.exp(-1))]
    theta = np.column_stack([prior.rvs(n, random_state=rng) for prior in priors])
    offset, slope, scale = theta.T[:, :, None]
    X = offset + slope * np.linspace(-1, 1, 40) + scale * rng.standard_t(2, size=(n, 40))
    return priors, theta, X


def ricker(rng, n):
    """Return counts of a chaotic population over 50 generations."""
    priors = [uniform(2, 5), uniform(0.1, 0.8), uniform(4, 20)]
    theta = np.column_stack([prior.rvs(n, random_state=rng) for prior in priors])
    (growth, noise, scale), size, X = theta.T, np.ones(n), []
    for generation in range(100):
        size = np.exp(growth + noise * rng.normal(size=n) - size) * size
        if generation >= 50:
            X.append(rng.poisson(np.minimum(scale * size, 1e6)))
    return priors, theta, np.column_stack(X).astype(float)


TIMES = np.linspace(0, 1, 200)
PEAKS = np.exp([-TIMES / 0.2, -(((TIMES - 0.6) / 0.1) ** 2)])
DRIFTS = 2 * np.array([np.ones(200), 3**0.5 * (TIMES - 0.5), 3**0.5 * (TIMES - 0.5) ** 2])


def baseline(rng, n):
    """Return two peaks of unknown height over a parabola that is not asked for."""
    theta = rng.normal(size=(n, 2))
    X = theta @ PEAKS + rng.normal(size=(n, 3)) @ DRIFTS + 0.5 * rng.normal(size=(n, 200))
    return [stats.norm(), stats.norm()], theta, X


def exact_baseline(theta, X):
    """Log density of the posterior, which is Gaussian."""
    gain = np.linalg.solve(DRIFTS.T @ DRIFTS + 0.25 * np.eye(200), PEAKS.T)
    covariance = np.linalg.inv(PEAKS @ gain + np.eye(2))
    return stats.multivariate_normal(np.zeros(2), covariance).logpdf(theta - X @ gain @ covariance)


def exact_decay(theta, X):
    """Log density, mean and standard deviation of the posterior, by quadrature."""
    found = []
    for (rate,), x in zip(theta, X, strict=True):
        sd = 0.1 / np.linalg.norm(2 * SECONDS * np.exp(-rate * SECONDS))
        grid = np.linspace(max(rate - 12 * sd, 1e-12), rate + 12 * sd, 4001)
        every = np.append(grid, rate)[:, None]
        log_p = -50 * ((x - 2 * np.exp(-every * SECONDS)) ** 2).sum(axis=1) - 2 * every[:, 0]
        share = np.exp(log_p[:-1] - log_p.max())
        log_z = np.log(share.sum() * (grid[1] - grid[0])) + log_p.max()
        mean = share @ grid / share.sum()
        found.append([log_p[-1] - log_z, mean, np.sqrt(share @ (grid - mean) ** 2 / share.sum())])
    return np.transpose(found)


PROBLEMS = {  # and the numbers of pairs
    decay: (2000, 10_000),
    lorentz: (5000,),
    oscillator: (3000,),
    line_spectrum: (3000,),
    student: (3000,),
    ricker: (3000,),
    baseline: (2000,),
}


def measure(problem, n, seed, with_sbi):
    """Fit, score and print."""
    priors, theta, X = problem(np.random.default_rng(seed), n)
    _, theta_test, X_test = problem(np.random.default_rng(1000 + seed), 1000)
    prior = JointPrior({f"theta_{j}": marginal for j, marginal in enumerate(priors)})
    start = time.perf_counter()
    npe = NPEEstimator(prior=prior, random_state=seed).fit(theta, X)
    seconds, log_q = time.perf_counter() - start, npe.log_prob(theta_test, X_test)
    text = f"{problem.__name__} {n} seed {seed}: {log_q.mean():.2f} (worst {log_q.min():.0f}), "
    text += f"coverage {coverage_score(npe, theta_test, X_test):.3f}, {seconds:.0f} s"
    if problem is baseline:
        text += f"; exact {exact_baseline(theta_test, X_test).mean():.2f}"
    if problem is decay:
        log_p, mean, sd = exact_decay(theta_test[:200], X_test[:200])
        draws = npe.sample_posterior(X_test[:200], check_typicality=False)[:, :, 0]
        off = np.abs(draws.mean(axis=1) - mean) / sd
        text += f"; exact {log_p.mean():.2f} (skbi there {log_q[:200].mean():.2f}), sd / exact "
        text += f"{np.median(draws.std(axis=1) / sd):.2f}, mean off {np.median(off):.2f}"
    print(text, flush=True)
    if with_sbi:
        start = time.perf_counter()
        method = Sbi(seed).fit(Task(prior, problem), theta, X)
        seconds, log_q = time.perf_counter() - start, method.log_prob(theta_test, X_test)
        print(f"    sbi: {log_q.mean():.2f} (worst {log_q.min():.0f}), {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    names = {problem.__name__: problem for problem in PROBLEMS}
    parser.add_argument("--problems", nargs="+", choices=names, default=list(names))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--sbi", action="store_true")
    options = parser.parse_args()
    for name in options.problems:
        for size in PROBLEMS[names[name]]:
            for seed in options.seeds:
                measure(names[name], size, seed, options.sbi)
