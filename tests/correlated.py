"""A posterior that is a known, correlated Gaussian at every observation."""

import numpy as np
from scipy import stats

COVARIANCE = np.array([[1.0, 0.6, 0.3], [0.6, 2.0, -0.2], [0.3, -0.2, 0.5]])


class Correlated:
    """N(x, COVARIANCE), with names."""

    parameter_names_in_ = np.array(["a", "b", "c"], dtype=object)

    def sample_posterior(self, X, n_samples, *, random_state=None):
        shape = (*np.shape(X)[:-1], n_samples, 3)
        noise = np.random.default_rng(random_state).normal(size=shape)
        return np.asarray(X)[..., None, :] + noise @ np.linalg.cholesky(COVARIANCE).T

    def log_prob(self, theta, X):
        return stats.multivariate_normal([0, 0, 0], COVARIANCE).logpdf(theta - np.asarray(X))
