"""A problem whose posterior is known, for tests of calibration."""

import numpy as np
from scipy import stats

KINDS = ["rank", "sigma", "hpd", "tarp"]


class Gaussian:
    """theta ~ N(0, I), x = theta + N(0, I): the posterior is N(x / 2, I / 2), or made wrong."""

    def __init__(self, shift=0.0, scale=1.0):
        self.shift, self.sd = shift * 0.5**0.5, scale * 0.5**0.5

    def sample_posterior(self, X, n_samples, *, random_state=None):
        shape = (*X.shape[:-1], n_samples, X.shape[-1])
        noise = np.random.default_rng(random_state).normal(size=shape)
        return (X / 2 + self.shift)[..., None, :] + self.sd * noise

    def log_prob(self, theta, X):
        return stats.norm.logpdf(theta, X / 2 + self.shift, self.sd).sum(axis=1)


def gaussian_runs(n=2000, p=2, seed=0):
    """Return n truths and their observations."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(n, p))
    return theta, theta + rng.normal(size=(n, p))
