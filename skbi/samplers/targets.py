"""The density that NUTS samples, and population Monte Carlo, which finds where its chains start.

In the prior's Gaussian coordinates z, with the discrete parameters c summed out,
log p(z | X) = log sum_c L(z, c) P(c) + log N(z; 0, I) + constant.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, softmax

from skbi.priors import JointPrior, Prior, from_normal
from skbi.samplers.enumeration import discrete_combinations
from skbi.samplers.info import Array

__all__ = ["DifferentiableLikelihood", "Target", "population_monte_carlo", "shrunk_covariance"]

_MAX_COMBINATIONS = 64  # of discrete values; each costs a likelihood at every leapfrog step
_MIN_PROBABILITY = 1e-10  # below it at every particle, a combination is dropped
_MIN_WEIGHT = 1e-6  # of the particles that decide about combinations
_N_SHRINKAGE_DRAWS = 5  # number of draws that the covariance's diagonal counts for
_KERNEL_VARIANCE = 0.5  # as a fraction of the particles' variance
_LOG_2PI = math.log(2 * math.pi)


class DifferentiableLikelihood(Protocol):
    """A log likelihood with its gradient in the prior's Gaussian coordinates: what `nuts` needs."""

    def __call__(self, theta: Array) -> Array:
        """Return log L, of shape (m,), of theta, of shape (m, p), in nats."""

    def value_and_gradient(self, z: Array) -> tuple[Array, Array]:
        """Return log L, of shape (m,), and its gradient, of shape (m, p), at z, of shape (m, p).

        z holds the prior's Gaussian coordinates of continuous parameters and the values of discrete
        ones, whose gradient is not read. log L must be finite: where the likelihood is zero, return
        a large negative number.
        """


class Target:
    """The log posterior density of the continuous parameters, in their Gaussian coordinates.

    Discrete parameters are summed out. The density is not normalised.

    Parameters
    ----------
    likelihood : DifferentiableLikelihood
    prior : JointPrior or an object with its methods
        At least one parameter must be continuous. With discrete parameters, a JointPrior.

    Attributes
    ----------
    discrete : ndarray of bool, shape (p,)
        Which parameters are discrete.
    combinations : ndarray, shape (n_combinations, n_discrete)
        The values of the discrete parameters that are summed over.
    log_mass : ndarray, shape (n_combinations,)
        Log prior probability of each combination.
    n_calls : int
        Number of likelihood evaluations so far, one for each theta.

    Raises
    ------
    ValueError
        If all parameters are discrete, if discrete parameters are not under a JointPrior, or if
        there are more than 64 combinations of their values.

    Examples
    --------
    >>> from scipy import stats
    >>> class Likelihood:  # one observation, 0.8, of theta ~ N(0, 1) with noise 0.5
    ...     def __call__(self, theta):
    ...         return stats.norm.logpdf(0.8, theta[:, 0], 0.5)
    ...     def value_and_gradient(self, z):
    ...         return self(z), (0.8 - z) / 0.5**2
    >>> target = Target(Likelihood(), JointPrior({"mu": stats.norm(0, 1)}))
    >>> _, gradient = target(np.array([[0.64]]))  # at the posterior's mode
    >>> bool(abs(gradient[0, 0]) < 1e-12)
    True
    """

    def __init__(self, likelihood: DifferentiableLikelihood, prior: Prior) -> None:
        if np.all(prior.discrete):
            raise ValueError(
                "NUTS needs a continuous parameter; got discrete ones only. Use "
                "sampler='enumerate', which is exact."
            )
        self.likelihood, self.prior = likelihood, prior
        self.discrete = np.asarray(prior.discrete)
        self.combinations, self.log_mass = _combinations_and_log_mass(prior)
        self.n_calls = 0

    def __call__(self, z: Array) -> tuple[Array, Array]:
        """Return the log density (m,) and its gradient (m, k).

        z, of shape (m, k), holds the Gaussian coordinates of the k continuous parameters.
        """
        coordinates = self._with_every_combination(z)
        log_likelihood, gradient = self.likelihood.value_and_gradient(coordinates)
        log_joint = self._add_log_mass(log_likelihood)
        probability = softmax(log_joint, axis=1)[..., None]
        gradient = gradient.reshape(*log_joint.shape, -1)[..., ~self.discrete]
        log_density = logsumexp(log_joint, axis=1) + _log_standard_normal(z)
        return log_density, (probability * gradient).sum(axis=1) - z

    def log_joint(self, z: Array) -> Array:
        """Return log L(z, c) + log P(c) for the m rows of z and all K combinations c, (m, K)."""
        theta = from_normal(self.prior, self._with_every_combination(z))
        return self._add_log_mass(self.likelihood(theta))

    def draw_discrete(self, z: Array, rng: np.random.Generator) -> Array:
        """Draw the discrete parameters given the continuous coordinates z (m, k).

        Return the coordinates of all parameters, (m, p).
        """
        coordinates = np.empty((len(z), len(self.discrete)))
        coordinates[:, ~self.discrete] = z
        if self.discrete.any():
            several = len(self.combinations) > 1
            log_joint = self.log_joint(z) if several else np.zeros((len(z), 1))
            perturbed = log_joint + rng.gumbel(size=log_joint.shape)  # the Gumbel-max trick
            coordinates[:, self.discrete] = self.combinations[perturbed.argmax(axis=1)]
        return coordinates

    def keep_combinations(self, mask: NDArray[np.bool_]) -> None:
        """From now on, sum over the combinations of this mask only."""
        self.combinations, self.log_mass = self.combinations[mask], self.log_mass[mask]

    def _with_every_combination(self, z: Array) -> Array:
        """Combine each row of z (m, k) with each of the K combinations, (m K, p)."""
        coordinates = np.empty((len(z), len(self.combinations), len(self.discrete)))
        coordinates[..., ~self.discrete] = z[:, None]
        coordinates[..., self.discrete] = self.combinations
        return coordinates.reshape(-1, len(self.discrete))

    def _add_log_mass(self, log_likelihood: Array) -> Array:
        """Return log L(z, c) + log P(c), (m, K), from log L (m K,); count the evaluations."""
        self.n_calls += len(log_likelihood)
        return log_likelihood.reshape(-1, len(self.combinations)) + self.log_mass


def _combinations_and_log_mass(prior: Prior) -> tuple[Array, Array]:
    """Return the combinations of the discrete parameters' values and their log prior mass."""
    if not np.any(prior.discrete):
        return np.empty((1, 0)), np.zeros(1)
    if not isinstance(prior, JointPrior):
        raise ValueError(
            "NUTS can sum discrete parameters out only under a JointPrior, whose parameters are "
            f"independent; got {type(prior).__name__}. Use sampler='smc'."
        )
    combinations = discrete_combinations(prior, _MAX_COMBINATIONS)
    theta = np.zeros((len(combinations), len(prior.names)))
    theta[:, prior.discrete] = combinations
    return combinations, prior.log_masses(theta).sum(axis=1)


def population_monte_carlo(
    target: Target, rng: np.random.Generator, *, n_particles: int = 200, max_rounds: int = 20
) -> tuple[Array, Array]:
    """Move draws of the prior to the posterior; return them with their importance weights.

    Each round gives the particles importance weights and draws new particles from a kernel estimate
    of the weighted ones. The weights are tempered: they are raised to a power of at most one, so
    small that the effective sample size is at least an eighth of the particles. The rounds end when
    this power is one. Combinations of the discrete parameters' values that have a negligible
    probability at all particles are then dropped from the target.

    Parameters
    ----------
    target : Target
        Changed in place if combinations are dropped.
    rng : numpy.random.Generator
    n_particles : int, default=200
        Number of draws in each round.
    max_rounds : int, default=20
        Number of rounds after which to end in any case.

    Returns
    -------
    z : ndarray, shape (n_particles, k)
        Gaussian coordinates of the k continuous parameters.
    weights : ndarray, shape (n_particles,)
        Their sum is one.

    References
    ----------
    Cappe et al., Population Monte Carlo, 2004, https://doi.org/10.1198/106186004X12803; West,
    Approximating posterior distributions by mixtures, 1993,
    https://doi.org/10.1111/j.2517-6161.1993.tb01911.x.

    Examples
    --------
    >>> from scipy import stats
    >>> class Likelihood:  # one observation, 0.8, of theta ~ N(0, 1) with noise 0.5
    ...     def __call__(self, theta):
    ...         return stats.norm.logpdf(0.8, theta[:, 0], 0.5)
    >>> target = Target(Likelihood(), JointPrior({"mu": stats.norm(0, 1)}))
    >>> z, weights = population_monte_carlo(target, np.random.default_rng(0))
    >>> bool(abs(weights @ z[:, 0] - 0.64) < 0.2)  # the posterior's mean
    True
    """
    z = rng.standard_normal((n_particles, int((~target.discrete).sum())))
    log_q = _log_standard_normal(z)
    for _ in range(max_rounds):
        log_joint = target.log_joint(z)
        log_weights = logsumexp(log_joint, axis=1) + _log_standard_normal(z) - log_q
        weights, exponent = _tempered_weights(log_weights, min_ess=n_particles / 8)
        if exponent == 1:
            break
        z, log_q = _draw_from_kernel_estimate(z, weights, rng)
    probability = softmax(log_joint[weights > _MIN_WEIGHT], axis=1)
    target.keep_combinations(probability.max(axis=0) > _MIN_PROBABILITY)
    return z, weights


def _tempered_weights(log_weights: Array, min_ess: float) -> tuple[Array, float]:
    """Temper the weights until their effective sample size suffices; return also the exponent."""
    exponent = 1.0
    while 1 / (softmax(exponent * log_weights) ** 2).sum() < min_ess:
        exponent *= 0.8
    return softmax(exponent * log_weights), exponent


def _draw_from_kernel_estimate(
    z: Array, weights: Array, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Draw as many particles from a Gaussian kernel estimate; return also their log density.

    The kernels' centres are moved towards the mean, so that the estimate has the covariance of the
    weighted particles (West 1993).
    """
    n_particles, k = z.shape
    mean, cholesky = weights @ z, np.linalg.cholesky(shrunk_covariance(z, weights))
    centres = mean + math.sqrt(1 - _KERNEL_VARIANCE) * (z - mean)
    chosen = rng.choice(n_particles, size=n_particles, p=weights)
    noise = math.sqrt(_KERNEL_VARIANCE) * rng.standard_normal((n_particles, k))
    particles = centres[chosen] + noise @ cholesky.T
    differences = (particles[:, None] - centres).reshape(-1, k)
    whitened = np.linalg.solve(cholesky, differences.T).T.reshape(n_particles, n_particles, k)
    log_kernel = -0.5 * (whitened**2).sum(axis=2) / _KERNEL_VARIANCE
    log_kernel -= 0.5 * k * (_LOG_2PI + math.log(_KERNEL_VARIANCE))
    log_determinant = np.log(np.diag(cholesky)).sum()
    return particles, logsumexp(log_kernel, b=weights, axis=1) - log_determinant


def shrunk_covariance(z: Array, weights: Array) -> Array:
    """Covariance of weighted draws, shrunk towards its diagonal so that it is positive definite.

    Parameters
    ----------
    z : ndarray, shape (n, k)
    weights : ndarray, shape (n,)
        Their sum must be one.

    Returns
    -------
    ndarray, shape (k, k)

    Examples
    --------
    >>> z = np.array([[-1.0, -1.0], [1.0, 1.0]])
    >>> shrunk_covariance(z, np.array([0.5, 0.5])).round(2)
    array([[1.  , 0.29],
           [0.29, 1.  ]])
    """
    centred = z - weights @ z
    covariance, ess = (weights * centred.T) @ centred, 1 / (weights**2).sum()
    diagonal = np.diag(np.diag(covariance) + 1e-12)
    return (ess * covariance + _N_SHRINKAGE_DRAWS * diagonal) / (ess + _N_SHRINKAGE_DRAWS)


def _log_standard_normal(z: Array) -> Array:
    return -0.5 * (z**2 + _LOG_2PI).sum(axis=1)
