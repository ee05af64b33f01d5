"""The tasks: a prior, a simulator, and what the posterior should be.

Three are of the SBI benchmark (Lueckmann et al., Benchmarking simulation-based inference, 2021,
https://arxiv.org/abs/2101.04653), with its reference draws for five observations; SLCP and
Lotka-Volterra follow it. Of these two, the counts and the samples the held-out score alone tells.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import stats

from skbi import DoubleMoonSimulator, JointPrior

FOLDER = Path(__file__).parent


@dataclass
class Task:
    """What is exact, log density (theta, X), by what it is of; references are (X_obs, draws)."""

    prior: JointPrior
    simulate: Callable
    exact: dict[str, Callable] = field(default_factory=dict)
    references: tuple = ()
    held_out: tuple = ()  # theta, X and what is exact of those, where only that is known

    def pairs(self, n, seed):
        """Draw n pairs."""
        rng = np.random.default_rng([seed, n])
        theta = self.prior.sample(n, random_state=rng)
        return theta, self.simulate(theta, rng)

    def test(self, n=2000):
        """Return held-out pairs and their exact log densities, by what these are of."""
        if self.held_out:
            return self.held_out
        theta, X = self.pairs(n, 10**6)
        return theta, X, {name: log_density(theta, X) for name, log_density in self.exact.items()}


def uniform(low, high, p):
    """P independent uniform parameters."""
    return JointPrior({f"theta_{j}": stats.uniform(low, high - low) for j in range(p)})


def references(name):
    """Return observations and reference draws of the SBI benchmark."""
    file = np.load(FOLDER / f"sbibm_{name}.npz")
    return tuple(zip(file["observation"], file["samples"], strict=True))


def two_moons():
    """Move a crescent by theta: the posterior has two of them."""

    def simulate(theta, rng):
        angle = rng.uniform(-np.pi / 2, np.pi / 2, len(theta))
        radius = rng.normal(0.1, 0.01, len(theta))
        crescent = radius * np.array([np.cos(angle), np.sin(angle)]) + [[0.25], [0]]
        shift = np.array([-np.abs(theta.sum(axis=1)), theta[:, 1] - theta[:, 0]]) / np.sqrt(2)
        return (crescent + shift).T

    return Task(uniform(-1, 1, 2), simulate, references=references("two_moons"))


def gaussian_mixture():
    """Find the common mean of a wide and a narrow Gaussian."""
    prior, scales = uniform(-10, 10, 2), (1.0, 0.1)

    def simulate(theta, rng):
        return theta + rng.choice(scales, (len(theta), 1)) * rng.normal(size=theta.shape)

    def log_posterior(theta, X):
        joint, evidence = 0.0, 0.0
        for scale in scales:
            joint += stats.norm.pdf(X, theta, scale).prod(axis=1)
            inside = stats.norm.cdf(10, X, scale) - stats.norm.cdf(-10, X, scale)
            evidence += inside.prod(axis=1)
        return np.log(joint / evidence)

    exact = {"posterior": log_posterior}
    return Task(prior, simulate, exact, references("gaussian_mixture"))


def gaussian_linear_uniform():
    """Ten means under a uniform prior, which cuts their posteriors off."""
    scale = np.sqrt(0.1)

    def simulate(theta, rng):
        return theta + scale * rng.normal(size=theta.shape)

    def log_posterior(theta, X):
        inside = stats.norm.cdf(1, X, scale) - stats.norm.cdf(-1, X, scale)
        return (stats.norm.logpdf(theta, X, scale) - np.log(inside)).sum(axis=1)

    exact = {"posterior": log_posterior}
    return Task(uniform(-1, 1, 10), simulate, exact, references("gaussian_linear_uniform"))


def double_moon():
    """Read sets of 200 points of the running problem; exact by quadrature for 100 of them."""
    file = np.load(FOLDER / "double_moon_set_exact.npz")
    held_out = file["theta"], file["X"], {"posterior": file["log_posterior"]}
    return Task(DoubleMoonSimulator.prior(), moons(200), held_out=held_out)


def double_moon_event():
    """Learn the likelihood of single points; exact by quadrature for 2,000 of them."""
    file = np.load(FOLDER / "double_moon_event_exact.npz")
    held_out = file["theta"], file["X"], {"likelihood": file["log_likelihood"]}
    one = moons(1)
    prior = DoubleMoonSimulator.prior("event")
    return Task(prior, lambda theta, rng: one(theta, rng)[:, 0], held_out=held_out)


def moons(n_points):
    """Return the simulator of sets of points."""
    simulator = DoubleMoonSimulator(n_points=n_points)

    def simulate(theta, rng):
        return simulator.set_params(random_state=int(rng.integers(2**31))).transform(theta)

    return simulate


def means_and_precisions(n_points=50):
    """Read sets of points: five means of unit Gaussians, five precisions of centred ones."""
    means = {f"mean_{j}": stats.norm() for j in range(5)}
    prior = JointPrior(means | {f"precision_{j}": stats.gamma(2) for j in range(5)})

    def simulate(theta, rng):
        noise = rng.normal(size=(len(theta), n_points, 10))
        mean, precision = theta[:, None, :5], theta[:, None, 5:]
        return np.concatenate([mean + noise[..., :5], noise[..., 5:] / np.sqrt(precision)], axis=2)

    def log_posterior(theta, X):
        mean = X[..., :5].sum(axis=1) / (n_points + 1)
        of_means = stats.norm.logpdf(theta[:, :5], mean, (n_points + 1) ** -0.5)
        rate = 1 + (X[..., 5:] ** 2).sum(axis=1) / 2
        of_precisions = stats.gamma.logpdf(theta[:, 5:], 2 + n_points / 2, scale=1 / rate)
        return (of_means + of_precisions).sum(axis=1)

    return Task(prior, simulate, {"posterior": log_posterior})


def slcp():
    """Find mean and covariance of four points in the plane: a simple likelihood, four modes."""

    def simulate(theta, rng):
        shape, first = (len(theta), 4), theta[:, :, None]
        noise, other = rng.normal(size=shape), rng.normal(size=shape)
        correlation = np.tanh(first[:, 4])
        x = first[:, 0] + first[:, 2] ** 2 * noise
        noise = correlation * noise + np.sqrt(1 - correlation**2) * other
        return np.stack([x, first[:, 1] + first[:, 3] ** 2 * noise], axis=2).reshape(len(theta), 8)

    return Task(uniform(-3, 3, 5), simulate)


def lotka_volterra():
    """See two populations, over time, through multiplicative noise: heavy tails."""
    medians = {"growth": -0.125, "hunting": -3.0, "death": -0.125, "feeding": -3.0}
    prior = JointPrior({k: stats.lognorm(0.5, scale=np.exp(m)) for k, m in medians.items()})

    def simulate(theta, rng, step=0.01):
        growth, hunting, death, feeding = theta.T

        def slope(prey, hunters):
            return (growth - hunting * hunters) * prey, (feeding * prey - death) * hunters

        state, seen = np.array([[30.0], [1.0]]) * np.ones(len(theta)), []
        for k in range(2000):  # Heun's method
            if k % 200 == 0:
                seen += [*state]
            first = np.array(slope(*state))
            second = np.array(slope(*np.maximum(state + step * first, 0)))
            state = np.clip(state + step * (first + second) / 2, 0, 1e8)
        seen = np.maximum(np.stack(seen, axis=1), 1e-10)
        return seen * np.exp(0.1 * rng.normal(size=seen.shape))

    return Task(prior, simulate)


def poisson_counts():
    """Regress 40 counts on eight covariates."""
    covariates = np.random.default_rng(3).normal(size=(40, 8)) / np.sqrt(8)
    prior = JointPrior({f"theta_{j}": stats.norm() for j in range(8)})

    def simulate(theta, rng):
        return rng.poisson(np.exp(np.clip(1 + theta @ covariates.T, -9, 9))).astype(float)

    return Task(prior, simulate)


def cauchy_samples(n_points=50):
    """Read sets of points: the location and scale of a Cauchy distribution."""
    prior = JointPrior({"location": stats.norm(0, 3), "log_scale": stats.norm()})

    def simulate(theta, rng):
        noise = rng.standard_cauchy((len(theta), n_points, 1))
        return theta[:, None, :1] + np.exp(theta[:, None, 1:]) * noise

    return Task(prior, simulate)


TASKS = {
    task.__name__: task
    for task in (
        two_moons,
        gaussian_mixture,
        gaussian_linear_uniform,
        means_and_precisions,
        double_moon,
        double_moon_event,
        slcp,
        lotka_volterra,
        poisson_counts,
        cauchy_samples,
    )
}
