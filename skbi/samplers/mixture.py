"""A mixture of Student t distributions fitted to points: a density to propose from.

q(z) = sum_c w_c t_nu(z; m_c, S_c). The components are fitted as Gaussians, by expectation
maximisation, and get heavier tails than these, so that proposals reach beyond the points.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.special import gammaln

from skbi.samplers.info import Array

__all__ = ["StudentMixture"]

_LogKernel = Callable[[Array, int], Array]

_DEGREES_OF_FREEDOM = 8.0
_N_EM_STEPS = 5
_MAX_COMPONENTS = 16
_POINTS_A_COMPONENT = 20  # for each dimension
_MIN_VARIANCE = 1e-30
_PRIOR_VARIANCE = 0.02  # of each component, relative to that of all points,
_PRIOR_COUNT = 1.0  # that each dimension counts for as many points


class StudentMixture:
    """A mixture of up to sixteen Student t distributions with 8 degrees of freedom.

    Parameters
    ----------
    points : ndarray, shape (n, k)
        Draws of the density that is to be approximated. Each component needs 20 k of them.
    rng : numpy.random.Generator
        Draws the first centres.

    References
    ----------
    Peel and McLachlan, Robust mixture modelling using the t distribution, 2000,
    https://doi.org/10.1023/A:1008981510081; Arthur and Vassilvitskii, k-means++: the advantages of
    careful seeding, 2007, https://dl.acm.org/doi/10.5555/1283383.1283494.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> points = rng.normal(size=(1000, 1)) + np.where(rng.random((1000, 1)) < 0.3, -20, 20)
    >>> mixture = StudentMixture(points, rng)
    >>> bool(abs((mixture.sample(1000, rng) < 0).mean() - 0.3) < 0.05)
    True
    """

    def __init__(self, points: Array, rng: np.random.Generator) -> None:
        n, k = points.shape
        self.mean = points.mean(axis=0)
        covariance = np.cov(points.T).reshape(k, k)
        floor = 1e-12 * np.diag(covariance) + _MIN_VARIANCE
        self.root = np.linalg.cholesky(covariance + np.diag(floor))
        self.to_whitened = np.linalg.inv(self.root)
        y = self._whiten(points)
        n_components = int(np.clip(n // (_POINTS_A_COMPONENT * k), 1, _MAX_COMPONENTS))
        share = _nearest(y, _spread_centres(y, n_components, rng))
        products = (y[:, :, None] * y[:, None]).reshape(n, k * k)
        for _ in range(_N_EM_STEPS):
            self._maximise(y, products, share)
            share = _share(self._log_components(y, _log_gaussian))

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draw points (n, k)."""
        component = rng.choice(len(self.weights), size=n, p=self.weights)
        noise = rng.standard_normal((n, len(self.mean)))
        noise /= np.sqrt(rng.chisquare(_DEGREES_OF_FREEDOM, n) / _DEGREES_OF_FREEDOM)[:, None]
        y = self.centres[component] + np.einsum("nij,nj->ni", self._roots[component], noise)
        return self.mean + y @ self.root.T

    def log_prob(self, points: Array) -> Array:
        """Return the log density of points (n, k), (n,)."""
        log_q = _log_sum(self._log_components(self._whiten(points), _log_student))
        return log_q - np.log(np.diag(self.root)).sum()

    def step(self, z: Array, scale: float, rng: np.random.Generator) -> tuple[Array, Array]:
        """Step from z (m, k) as a component that each row may belong to is wide.

        Return the new points z', and log q(z | z') - log q(z' | z).
        """
        y = self._whiten(z)
        share = _share(self._log_components(y, _log_student))
        at = rng.random(len(z))
        component = (share.cumsum(axis=0) < at).sum(axis=0).clip(max=len(share) - 1)
        noise = scale * rng.standard_normal(z.shape)
        step = np.einsum("nij,nj->ni", self._roots[component], noise)
        backward = _share(self._log_components(y + step, _log_student))
        squared = self._squared_distances(step) / scale**2
        log_kernel = self._log_scale[:, None] - np.log(self.weights)[:, None] - 0.5 * squared
        ratio = _log_sum(np.log(backward) + log_kernel) - _log_sum(np.log(share) + log_kernel)
        return z + step @ self.root.T, ratio

    def _whiten(self, points: Array) -> Array:
        return (points - self.mean) @ self.to_whitened.T

    def _maximise(self, y: Array, products: Array, share: Array) -> None:
        """Set the components by points (n, k), their products (n, k^2) and shares (c, n)."""
        k, count = y.shape[1], share.sum(axis=1) + 1e-9
        self.weights = (count + 1) / (count + 1).sum()
        self.centres = share @ y / count[:, None]
        of_centres = self.centres[:, :, None] * self.centres[:, None]
        scatter = (share @ products).reshape(-1, k, k) - count[:, None, None] * of_centres
        prior = _PRIOR_COUNT * k * _PRIOR_VARIANCE * np.eye(k)
        covariance = (scatter + prior) / (count + _PRIOR_COUNT * k)[:, None, None]
        self._roots = np.linalg.cholesky(covariance)
        self._inverse_roots = np.linalg.inv(self._roots)
        diagonals = np.diagonal(self._roots, axis1=1, axis2=2)
        self._log_scale = np.log(self.weights) - np.log(diagonals).sum(axis=1)

    def _log_components(self, y: Array, log_kernel: _LogKernel) -> Array:
        """Return the log densities (c, n) of whitened points, times the components' weights."""
        squared = self._squared_distances(y, self.centres)
        return self._log_scale[:, None] + log_kernel(squared, y.shape[1])

    def _squared_distances(self, y: Array, centres: Array | None = None) -> Array:
        """Measure y (n, k), less each component's centre, in its own units, squared (c, n)."""
        c, k, _ = self._roots.shape
        z = self._inverse_roots.swapaxes(0, 1).reshape(k * c, k) @ y.T  # one for all components
        if centres is not None:
            z -= np.einsum("cij,cj->ic", self._inverse_roots, centres).reshape(k * c, 1)
        return (z**2).reshape(k, c, len(y)).sum(axis=0)


def _log_gaussian(squared: Array, k: int) -> Array:
    return -0.5 * squared


def _log_student(squared: Array, k: int) -> Array:
    nu = _DEGREES_OF_FREEDOM
    constant = gammaln((nu + k) / 2) - gammaln(nu / 2) - 0.5 * k * math.log(nu * math.pi)
    return constant - 0.5 * (nu + k) * np.log1p(squared / nu)


def _share(log_values: Array) -> Array:
    """Normalise exp(log_values), (c, n), over its first axis (scipy's softmax takes longer)."""
    values = np.exp(log_values - log_values.max(axis=0))
    return values / values.sum(axis=0)


def _log_sum(log_values: Array) -> Array:
    """Sum exp(log_values), (c, n), over its first axis; return the logarithm."""
    largest = log_values.max(axis=0)
    return largest + np.log(np.exp(log_values - largest).sum(axis=0))


def _spread_centres(y: Array, n_centres: int, rng: np.random.Generator) -> Array:
    """Choose points far from each other (k-means++)."""
    chosen = [int(rng.integers(len(y)))]
    distance = np.full(len(y), math.inf)
    for _ in range(n_centres - 1):
        distance = np.minimum(distance, ((y - y[chosen[-1]]) ** 2).sum(axis=1))
        total = distance.sum()
        if not total > 0:
            break
        chosen.append(int(rng.choice(len(y), p=distance / total)))
    return y[chosen]


def _nearest(y: Array, centres: Array) -> Array:
    """Give every point to its nearest centre: shares (c, n) of zero and one."""
    distance = ((y - centres[:, None]) ** 2).sum(axis=2)
    return (distance.argmin(axis=0) == np.arange(len(centres))[:, None]).astype(float)
