"""A prior of dependent parameters that several tests share."""

import numpy as np
from scipy import stats


class Hierarchical:
    """A prior that a user might write: scale ~ Exponential(1), value ~ N(0, scale^2)."""

    names = ("scale", "value")
    discrete = np.array([False, False])
    support = np.array([[0.0, np.inf], [-np.inf, np.inf]])

    def sample(self, n, random_state=None):
        return self.ppf(np.random.default_rng(random_state).random((n, 2)))

    def log_prob(self, theta):
        scale, value = np.asarray(theta).T
        with np.errstate(invalid="ignore"):
            value = stats.norm.logpdf(value, scale=np.where(scale > 0, scale, 1))
        return stats.expon.logpdf(scale) + value

    def cdf(self, theta):
        scale, value = np.asarray(theta).T
        return np.column_stack([stats.expon.cdf(scale), stats.norm.cdf(value, scale=scale)])

    def ppf(self, u):
        scale = stats.expon.ppf(u[:, 0])
        return np.column_stack([scale, stats.norm.ppf(u[:, 1], scale=scale)])
