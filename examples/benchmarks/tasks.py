"""The tasks: a prior, a simulator, and what the posterior should be.

Six are of the SBI benchmark (Lueckmann et al., Benchmarking simulation-based inference, 2021,
https://arxiv.org/abs/2101.04653), with its first five observations: two_moons, gaussian_mixture,
gaussian_linear_uniform, slcp, sir and bernoulli_glm. lotka_volterra follows it, but observes every
2 days instead of every 2.1, and slcp_sets is slcp with its four points as a set. The reference
draws of these eight are from references.py. The held-out score alone tells of the others.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage, special, stats
from sklearn.datasets import load_digits

from examples.benchmarks.ordered import (
    ar1,
    ar1_ragged,
    lotka_volterra_series,
    ou_process,
    random_field,
)
from examples.benchmarks.task import Task, uniform
from skbi import DoubleMoonSimulator, JointPrior

FOLDER = Path(__file__).parent


class GaussianPrior:
    """A prior of dependent parameters: N(0, covariance)."""

    def __init__(self, covariance):
        p = len(covariance)
        self.names, self.discrete = tuple(f"theta_{j}" for j in range(p)), np.zeros(p, dtype=bool)
        self.support = np.tile([-np.inf, np.inf], (p, 1))
        self.covariance, self.root = covariance, np.linalg.cholesky(covariance)

    def sample(self, n, random_state=None):
        """Draw theta (n, p)."""
        rng = np.random.default_rng(random_state)
        return self.from_normal(rng.normal(size=(n, len(self.root))))

    def log_prob(self, theta):
        """Log density (n,)."""
        log_volume = np.log(np.diag(self.root)).sum()
        return stats.norm.logpdf(self.to_normal(theta)).sum(axis=1) - log_volume

    def to_normal(self, theta):
        """Gaussian coordinates (n, p) of theta."""
        return np.linalg.solve(self.root, np.transpose(theta)).T

    def from_normal(self, z):
        """Return theta (n, p) of Gaussian coordinates."""
        return z @ self.root.T

    def cdf(self, theta):
        """Map theta (n, p) to the unit cube."""
        return special.ndtr(self.to_normal(theta))

    def ppf(self, u):
        """Map points of the unit cube to theta (n, p)."""
        return self.from_normal(special.ndtri(u))


def references(name):
    """Return observations and reference draws."""
    file = np.load(FOLDER / f"{name}.npz")
    return tuple(zip(file["observation"], file["samples"], strict=True))


def two_moons():
    """Move a crescent by theta: the posterior has two of them."""

    def simulate(theta, rng):
        angle = rng.uniform(-np.pi / 2, np.pi / 2, len(theta))
        radius = rng.normal(0.1, 0.01, len(theta))
        crescent = radius * np.array([np.cos(angle), np.sin(angle)]) + [[0.25], [0]]
        shift = np.array([-np.abs(theta.sum(axis=1)), theta[:, 1] - theta[:, 0]]) / np.sqrt(2)
        return (crescent + shift).T

    def log_likelihood(theta, X):
        across = X[:, 0] + np.abs(theta.sum(axis=1)) / np.sqrt(2) - 0.25
        radius = np.hypot(across, X[:, 1] - (theta[:, 1] - theta[:, 0]) / np.sqrt(2))
        log_p = stats.norm.logpdf(radius, 0.1, 0.01) - np.log(np.pi * radius)
        return np.where(across > 0, log_p, -np.inf)

    exact = {"likelihood": log_likelihood}
    return Task(uniform(-1, 1, 2), simulate, exact, references("two_moons"))


def gaussian_mixture():
    """Find the common mean of a wide and a narrow Gaussian."""
    prior, scales = uniform(-10, 10, 2), (1.0, 0.1)

    def simulate(theta, rng):
        return theta + rng.choice(scales, (len(theta), 1)) * rng.normal(size=theta.shape)

    def log_likelihood(theta, X):
        each = [stats.norm.logpdf(X, theta, scale).sum(axis=1) for scale in scales]
        return np.logaddexp(*each) - np.log(2)

    def log_posterior(theta, X):
        inside = [stats.norm.cdf(10, X, s) - stats.norm.cdf(-10, X, s) for s in scales]
        return log_likelihood(theta, X) - np.log(np.mean(np.prod(inside, axis=2), axis=0))

    exact = {"posterior": log_posterior, "likelihood": log_likelihood}
    return Task(prior, simulate, exact, references("gaussian_mixture"))


def gaussian_linear_uniform():
    """Ten means under a uniform prior, which cuts their posteriors off."""
    scale = np.sqrt(0.1)

    def simulate(theta, rng):
        return theta + scale * rng.normal(size=theta.shape)

    def log_likelihood(theta, X):
        return stats.norm.logpdf(X, theta, scale).sum(axis=1)

    def log_posterior(theta, X):
        inside = stats.norm.cdf(1, X, scale) - stats.norm.cdf(-1, X, scale)
        return log_likelihood(theta, X) - np.log(inside).sum(axis=1)

    exact = {"posterior": log_posterior, "likelihood": log_likelihood}
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
    task = slcp_sets()
    known = tuple((x.ravel(), draws) for x, draws in task.references)
    return replace(
        task, simulate=lambda *args: task.simulate(*args).reshape(-1, 8), references=known
    )


def slcp_sets():
    """Read the four points as a set."""

    def simulate(theta, rng):
        shape, first = (len(theta), 4), theta[:, :, None]
        noise, other = rng.normal(size=shape), rng.normal(size=shape)
        correlation = np.tanh(first[:, 4])
        x = first[:, 0] + first[:, 2] ** 2 * noise
        noise = correlation * noise + np.sqrt(1 - correlation**2) * other
        return np.stack([x, first[:, 1] + first[:, 3] ** 2 * noise], axis=2)

    def log_likelihood(theta, X):
        scales, correlation = theta[:, None, 2:4] ** 2, np.tanh(theta[:, 4:])
        z, w = np.moveaxis((X.reshape(-1, 4, 2) - theta[:, None, :2]) / scales, 2, 0)
        left = 1 - correlation**2
        log_p = -(z**2 - 2 * correlation * z * w + w**2) / (2 * left) - np.log(left) / 2
        return (log_p - np.log(2 * np.pi * scales.prod(axis=2))).sum(axis=1)

    known = tuple((x.reshape(4, 2), draws) for x, draws in references("slcp"))
    return Task(uniform(-3, 3, 5), simulate, {"likelihood": log_likelihood}, known)


def lotka_volterra():
    """See two populations, over time, through multiplicative noise: heavy tails."""
    medians = {"growth": -0.125, "hunting": -3.0, "death": -0.125, "feeding": -3.0}
    prior = JointPrior({k: stats.lognorm(0.5, scale=np.exp(m)) for k, m in medians.items()})

    def populations(theta, step=0.01):
        growth, hunting, death, feeding = theta.T
        alone, together = np.array([growth, -death]), np.array([-hunting, feeding])
        state, seen = np.array([[30.0], [1.0]]) * np.ones(len(theta)), []
        for k in range(1801):  # Heun's method
            if k % 200 == 0:
                seen += [*state]
            first = (alone + together * state[::-1]) * state
            ahead = np.maximum(state + step * first, 0)
            second = (alone + together * ahead[::-1]) * ahead
            state = np.minimum(np.maximum(state + step / 2 * (first + second), 0), 1e8)
        return np.maximum(np.stack(seen, axis=1), 1e-10)

    def simulate(theta, rng):
        seen = populations(theta)
        return seen * np.exp(0.1 * rng.normal(size=seen.shape))

    def log_likelihood(theta, X):
        log_X = np.log(X)
        return (stats.norm.logpdf(log_X, np.log(populations(theta)), 0.1) - log_X).sum(axis=1)

    exact = {"likelihood": log_likelihood}
    return Task(prior, simulate, exact, references("lotka_volterra"))


def sir():
    """Find two rates of an epidemic: positive tests of 1,000 people, every 17 days."""
    contact, recovery = stats.lognorm(0.5, scale=0.4), stats.lognorm(0.2, scale=0.125)
    prior = JointPrior({"contact": contact, "recovery": recovery})

    def infected(theta, step=0.25):
        contact, recovery = theta.T

        def slope(state):  # of the share of the healthy, and of the log of that of the infected
            spread = contact * state[0]
            return np.array([-spread * np.exp(state[1]), spread - recovery])

        state = np.array([[1 - 1e-6], [np.log(1e-6)]]) * np.ones(len(theta))
        seen = [state[1]]
        for k in range(1, 613):  # Runge and Kutta's method of fourth order
            first = slope(state)
            second = slope(state + step / 2 * first)
            third = slope(state + step / 2 * second)
            fourth = slope(state + step * third)
            state = state + step / 6 * (first + 2 * second + 2 * third + fourth)
            if k % 68 == 0:
                seen.append(state[1])
        return np.exp(np.minimum(np.stack(seen, axis=1), 0))

    def simulate(theta, rng):
        return rng.binomial(1000, infected(theta)).astype(float)

    def log_likelihood(theta, X):
        return stats.binom.logpmf(X, 1000, infected(theta)).sum(axis=1)

    exact = {"likelihood": log_likelihood}
    return Task(prior, simulate, exact, references("sir"), dequantize=1.0)


def bernoulli_glm():
    """Find offset and filter of a neuron: the spikes that 100 stimuli cause, and their mean."""
    stimuli = np.random.RandomState(42).randn(100)
    lagged = [np.append(np.zeros(lag), stimuli[: 100 - lag]) for lag in range(9)]
    design = np.column_stack([np.ones(100), *lagged])
    smooth = np.linalg.matrix_power(np.eye(9) - np.eye(9, k=-1), 2)
    smooth += np.diag(np.sqrt(np.arange(9) / 9))
    precision = np.zeros((10, 10))
    precision[0, 0], precision[1:, 1:] = 0.5, smooth.T @ smooth

    def simulate(theta, rng):
        spikes = rng.random((len(theta), 100)) < special.expit(theta @ design.T)
        return spikes @ design

    def log_mass(theta, X):
        return (theta * X).sum(axis=1) - np.logaddexp(0, theta @ design.T).sum(axis=1)

    prior, exact = GaussianPrior(np.linalg.inv(precision)), {"mass": log_mass}
    width = (1.0, *[0.0] * 9)  # the number of spikes, and nine sums of normal numbers
    return Task(prior, simulate, exact, references("bernoulli_glm"), dequantize=width)


def poisson_counts():
    """Regress 40 counts on eight covariates."""
    covariates = np.random.default_rng(3).normal(size=(40, 8)) / np.sqrt(8)
    prior = JointPrior({f"theta_{j}": stats.norm() for j in range(8)})

    def rate(theta):
        return np.exp(np.clip(1 + theta @ covariates.T, -9, 9))

    def simulate(theta, rng):
        return rng.poisson(rate(theta)).astype(float)

    def log_likelihood(theta, X):
        return stats.poisson.logpmf(X, rate(theta)).sum(axis=1)

    return Task(prior, simulate, {"likelihood": log_likelihood}, dequantize=1.0)


def cauchy_samples(n_points=50):
    """Read sets of points: the location and scale of a Cauchy distribution."""
    prior = JointPrior({"location": stats.norm(0, 3), "log_scale": stats.norm()})

    def simulate(theta, rng):
        noise = rng.standard_cauchy((len(theta), n_points, 1))
        return theta[:, None, :1] + np.exp(theta[:, None, 1:]) * noise

    return Task(prior, simulate)


class GaussianMixture:
    """A mixture of Gaussians with weights (k,), means (k, p) and covariances (k, p, p)."""

    def __init__(self, weights, means, covariances):
        self.weights, self.means, self.covariances = weights, means, covariances

    def sample(self, n, random_state=None):
        """Draw rows (n, p)."""
        rng = np.random.default_rng(random_state)
        roots = np.linalg.cholesky(self.covariances)
        k = rng.choice(len(self.weights), n, p=self.weights)
        noise = rng.normal(size=(n, self.means.shape[1]))
        return self.means[k] + np.einsum("nij,nj->ni", roots[k], noise)

    def log_joint(self, rows):
        """Log of weight times density of each component, (n, k)."""
        each = zip(self.means, self.covariances, strict=True)
        found = [stats.multivariate_normal(m, c).logpdf(rows).reshape(len(rows)) for m, c in each]
        return np.log(self.weights) + np.stack(found, axis=-1)

    def log_prob(self, rows):
        """Log density, (n,)."""
        return special.logsumexp(self.log_joint(rows), axis=1)


class Digits:
    """Pictures of 64 pixels that are blurred by one pixel and read with noise of 0.1.

    Pictures are a mixture of ten Gaussians, as wide as scikit-learn's digits are; so are blurred
    ones with noise, and the posterior.
    """

    noise = 0.1

    def __init__(self):
        pictures, labels = load_digits(return_X_y=True)
        kinds = [pictures[labels == k] / 16 for k in range(10)]
        weights = np.array([len(kind) for kind in kinds]) / len(pictures)
        means = np.array([kind.mean(axis=0) for kind in kinds])
        covariances = np.array([np.cov(kind.T) + 0.05**2 * np.eye(64) for kind in kinds])
        self.pictures = GaussianMixture(weights, means, covariances)
        units = np.eye(64).reshape(64, 8, 8)
        self.blur = np.array([ndimage.gaussian_filter(u, 1).ravel() for u in units])
        blurred = self.blur.T @ covariances @ self.blur + self.noise**2 * np.eye(64)
        self.observations = GaussianMixture(weights, means @ self.blur, blurred)

    def sample(self, n, random_state=None):
        """Draw pictures (n, 64)."""
        return self.pictures.sample(n, random_state)

    def simulate(self, theta, rng):
        """Blur pictures and add noise."""
        return theta @ self.blur + self.noise * rng.normal(size=theta.shape)

    def log_likelihood(self, theta, X):
        """Log p(X | theta), (n,)."""
        return stats.norm.logpdf(X, theta @ self.blur, self.noise).sum(axis=1)

    def log_posterior(self, theta, X):
        """Log p(theta | X), (n,)."""
        prior, evidence = self.pictures.log_prob(theta), self.observations.log_prob(X)
        return prior + self.log_likelihood(theta, X) - evidence

    def posterior(self, x):
        """Return the posterior of one observation (64,), a `GaussianMixture`."""
        prior, evidence = self.pictures, self.observations
        weights = special.softmax(evidence.log_joint(x[None])[0])
        gains = prior.covariances @ self.blur @ np.linalg.inv(evidence.covariances)
        means = prior.means + np.einsum("kij,kj->ki", gains, x - evidence.means)
        covariances = prior.covariances - gains @ self.blur.T @ prior.covariances
        return GaussianMixture(weights, means, (covariances + covariances.mT) / 2)


def digits_mixture():
    """Find a picture of 64 pixels behind a blurred and noisy one; no prior is given."""
    digits = Digits()
    exact = {"posterior": digits.log_posterior, "likelihood": digits.log_likelihood}
    return Task(None, digits.simulate, exact, sample=digits.sample)


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
        slcp_sets,
        sir,
        bernoulli_glm,
        lotka_volterra,
        poisson_counts,
        cauchy_samples,
        digits_mixture,
        ar1,
        ar1_ragged,
        ou_process,
        lotka_volterra_series,
        random_field,
    )
}
