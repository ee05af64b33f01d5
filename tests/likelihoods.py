"""Likelihoods with known posteriors that several tests share."""

import math

import numpy as np
from scipy import stats
from scipy.special import logsumexp

from skbi import JointPrior


class LinearGaussian:
    """x = A theta + noise, theta ~ N(0, I): the posterior and the evidence are known."""

    def __init__(self, p=2, d=4, noise=0.3, seed=0):
        rng = np.random.default_rng(seed)
        self.A, self.noise = rng.normal(size=(d, p)), noise
        self.x = self.A @ rng.normal(size=p) + noise * rng.normal(size=d)
        self.prior = JointPrior({f"a{j}": stats.norm() for j in range(p)})
        self.covariance = np.linalg.inv(np.eye(p) + self.A.T @ self.A / noise**2)
        self.mean = self.covariance @ self.A.T @ self.x / noise**2
        total = self.A @ self.A.T + noise**2 * np.eye(d)
        self.log_evidence = stats.multivariate_normal(np.zeros(d), total).logpdf(self.x)

    def __call__(self, theta):
        residual = (self.x - theta @ self.A.T) / self.noise
        return -(0.5 * residual**2 + math.log(self.noise * math.sqrt(2 * math.pi))).sum(axis=1)

    def value_and_gradient(self, z):
        return self(z), (self.x - z @ self.A.T) @ self.A / self.noise**2

    def __eq__(self, other):
        return np.array_equal(self.x, other.x)


class GivenLikelihood:
    """A likelihood and its gradient, of parameters whose prior is N(0, 1) or discrete."""

    def __init__(self, value, gradient):
        self.value, self.gradient = value, gradient

    def __call__(self, theta):
        return self.value(theta)

    def value_and_gradient(self, z):
        return self.value(z), self.gradient(z)


class CoinAndShift:
    """A coin k, of probability 0.3, picks the mean of x = (+-1) + a, a ~ N(0, 1), with noise 1."""

    prior = JointPrior({"k": stats.bernoulli(0.3), "a": stats.norm()})
    x, noise = 0.4, 1.0

    def __init__(self):
        log_mass, total_noise = np.log([0.7, 0.3]), math.hypot(1, self.noise)
        self.log_joint = log_mass + stats.norm.logpdf(self.x, loc=[-1, 1], scale=total_noise)
        self.log_evidence = logsumexp(self.log_joint)
        self.probability = np.exp(self.log_joint[1] - self.log_evidence)  # of k = 1, given x

    def __call__(self, theta):
        return stats.norm.logpdf(self.x, loc=2 * theta[:, 0] - 1 + theta[:, 1], scale=self.noise)

    def value_and_gradient(self, z):
        slope = (self.x - 2 * z[:, 0] + 1 - z[:, 1]) / self.noise**2
        return self(z), np.column_stack([np.zeros(len(z)), slope])

    def assert_follows_posterior(self, k):
        """Check draws of k, of which at least 300 are effective."""
        assert set(k) == {0, 1}
        sd = math.sqrt(self.probability * (1 - self.probability) / 300)
        assert abs(k.mean() - self.probability) < 4 * sd


def flat(theta):
    """Return the same likelihood for every theta."""
    return np.zeros(len(theta))
