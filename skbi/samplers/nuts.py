"""The no-U-turn sampler (NUTS) with all chains as one batch: adaptation, draws and diagnosis.

Hamiltonian dynamics, H(z, r) = -log p(z | X) + |r|^2 / 2, move the chains in the prior's Gaussian
coordinates z. The density p(z | X) is that of `skbi.samplers.targets`; `skbi.samplers.trajectories`
makes one draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from tqdm.auto import tqdm

from skbi.parallel import progress_options
from skbi.priors import Prior, from_normal
from skbi.samplers.info import Array, SamplerInfo, effective_sample_size, r_hat
from skbi.samplers.targets import (
    DifferentiableLikelihood,
    Target,
    population_monte_carlo,
    shrunk_covariance,
)
from skbi.samplers.trajectories import State, no_u_turn_step

__all__ = ["nuts"]

_MIN_WARMUP = 10  # draws of each chain
_MIN_DRAWS = 100  # of each chain, after the warm-up
_MIN_ESS = 100  # of a parameter, below which the chains count as not converged
_MAX_R_HAT = 1.05
_SEPARATE_R_HAT = 1.3  # after the warm-up, from which on chains will not come together

# Constants of dual averaging, in the notation of Hoffman and Gelman (2014), section 3.2.
_INITIAL_STEP_SIZE = 1.0
_LOG_STEP_SIZE_CENTRE = math.log(2)  # mu
_SHRINKAGE = 0.05  # gamma
_STABILISING_STEPS = 10  # t_0
_AVERAGING_EXPONENT = 0.75  # kappa


def nuts(
    likelihood: DifferentiableLikelihood,
    prior: Prior,
    n_samples: int,
    rng: np.random.Generator,
    *,
    n_chains: int = 8,
    n_warmup: int = 60,
    target_accept: float = 0.8,
    max_depth: int = 8,
    verbose: int | str = "auto",
) -> tuple[Array, SamplerInfo]:
    """Sample the posterior by the no-U-turn sampler.

    The chains move in the prior's Gaussian coordinates, in which the prior is N(0, I) and no
    parameter has bounds. Discrete parameters are summed out, and are drawn afterwards given the
    continuous ones. Population Monte Carlo finds where the chains start and their first mass
    matrix, because chains that start at draws of the prior need a much longer warm-up.

    Parameters
    ----------
    likelihood : DifferentiableLikelihood
        Maps theta (m, p) to log L (m,), in nats, and has a method ``value_and_gradient``.
    prior : JointPrior or an object with its methods
        At least one parameter must be continuous. With discrete parameters, a JointPrior.
    n_samples : int
        Number of draws, from all chains together.
    rng : numpy.random.Generator
    n_chains : int, default=8
        Number of chains. Each makes at least 100 draws, so that R-hat is meaningful.
    n_warmup : int, default=60
        Number of draws of each chain that adapt the step size and the dense mass matrix, both
        shared by all chains. These draws are then dropped.
    target_accept : float, default=0.8
        Mean acceptance statistic that the step size is adapted to.
    max_depth : int, default=8
        Number of doublings of a trajectory: it has at most 2^max_depth leapfrog steps.
    verbose : int or "auto", default="auto"
        1 shows a progress bar, 0 none; "auto" shows one on a terminal, of a run that takes more
        than 5 seconds.

    Returns
    -------
    samples : ndarray, shape (n_samples, p)
    info : SamplerInfo
        With ``ess`` and ``r_hat``. Its ``warnings`` say so if the chains have not converged. Chains
        that disagree widely after the warm-up are stopped: they lie in separate modes.

    Raises
    ------
    ValueError
        If there is no continuous parameter, if the discrete ones cannot be summed out, or if
        ``n_chains`` or ``n_warmup`` is too small.

    References
    ----------
    Hoffman and Gelman, The no-U-turn sampler, 2014, https://arxiv.org/abs/1111.4246; Betancourt, A
    conceptual introduction to Hamiltonian Monte Carlo, 2017, https://arxiv.org/abs/1701.02434;
    Cappe et al., Population Monte Carlo, 2004, https://doi.org/10.1198/106186004X12803.

    Examples
    --------
    >>> from scipy import stats
    >>> from skbi.priors import JointPrior
    >>> class Likelihood:  # one observation, 0.8, of theta ~ N(0, 1) with noise 0.5
    ...     def __call__(self, theta):
    ...         return stats.norm.logpdf(0.8, theta[:, 0], 0.5)
    ...     def value_and_gradient(self, z):  # here, z = theta
    ...         return self(z), (0.8 - z) / 0.5**2
    >>> prior = JointPrior({"mu": stats.norm(0, 1)})
    >>> samples, info = nuts(Likelihood(), prior, 800, np.random.default_rng(0))
    >>> samples.shape, abs(float(samples.mean()) - 0.64) < 0.1, info.warnings
    ((800, 1), True, ())
    """
    if n_chains < 1 or n_warmup < _MIN_WARMUP:
        raise ValueError(
            f"nuts needs n_chains >= 1 and n_warmup >= {_MIN_WARMUP}, to adapt; got {n_chains} "
            f"and {n_warmup}. Raise them."
        )
    target = Target(likelihood, prior)
    z, weights = population_monte_carlo(target, rng)
    start = z[rng.choice(len(z), size=n_chains, p=weights)]
    covariance = shrunk_covariance(z, weights)
    chains = _HamiltonianChains(target, start, covariance, rng, target_accept, max_depth)
    n_draws = max(_MIN_DRAWS, math.ceil(n_samples / n_chains))
    options = {"desc": "NUTS", "unit": "step", **progress_options(verbose)}
    with tqdm(total=n_warmup + n_draws, **options) as bar:
        draws = _warm_up(chains, n_warmup, bar)
        if stopped := _worst_r_hat(draws) > _SEPARATE_R_HAT:
            n_draws = len(draws)
        else:
            draws = chains.run(n_draws, bar, adapt=False)
    thinned = np.linspace(0, n_draws * n_chains - 1, n_samples).astype(int)
    z = target.draw_discrete(draws.reshape(n_draws * n_chains, -1)[thinned], rng)
    return from_normal(prior, z), _diagnose(draws, target, stopped)


class _StepSize:
    """A step size that is adapted by dual averaging (Hoffman and Gelman 2014, section 3.2)."""

    def __init__(self, target_accept: float) -> None:
        self.target_accept = target_accept
        self.log_value = self.log_average = math.log(_INITIAL_STEP_SIZE)
        self.mean_error, self.n_updates = 0.0, 0

    @property
    def value(self) -> float:
        """The step size, in the space where the mass matrix is the identity."""
        return math.exp(self.log_value)

    def update(self, acceptance: float) -> None:
        """Adapt to the acceptance statistic of the last draw."""
        self.n_updates += 1
        t = self.n_updates
        error = self.target_accept - acceptance
        self.mean_error += (error - self.mean_error) / (t + _STABILISING_STEPS)
        self.log_value = _LOG_STEP_SIZE_CENTRE - math.sqrt(t) / _SHRINKAGE * self.mean_error
        self.log_average += t**-_AVERAGING_EXPONENT * (self.log_value - self.log_average)

    def fix(self) -> None:
        """End the adaptation at the average step size."""
        self.log_value = self.log_average


class _HamiltonianChains:
    """The states of all chains, and the step size and the mass matrix that they share."""

    def __init__(
        self,
        target: Callable[[Array], tuple[Array, Array]],
        position: Array,
        covariance: Array,
        rng: np.random.Generator,
        target_accept: float,
        max_depth: int,
    ) -> None:
        self.target, self.rng = target, rng
        self.target_accept, self.max_depth = target_accept, max_depth
        self.state = State(position, np.zeros_like(position), *target(position))
        self.set_covariance(covariance)

    def set_covariance(self, covariance: Array) -> None:
        """Make the covariance's inverse the mass matrix, and restart the step size."""
        self.cholesky = np.linalg.cholesky(covariance)
        self.step_size = _StepSize(self.target_accept)

    def run(self, n_draws: int, bar: tqdm, *, adapt: bool) -> Array:
        """Return the next draws of all chains, (n_draws, n_chains, k).

        With ``adapt``, every draw adapts the step size.
        """
        draws = np.empty((n_draws, *self.state.position.shape))
        for i in range(n_draws):
            acceptance = no_u_turn_step(self.state, self.leapfrog, self.rng, self.max_depth)
            if adapt:
                self.step_size.update(acceptance)
            draws[i] = self.state.position
            bar.set_postfix_str(f"step size {self.step_size.value:.2g}", refresh=False)
            bar.update()
        return draws

    def leapfrog(self, state: State, direction: NDArray[np.int64]) -> State:
        """Make one leapfrog step, forward (1) or backward (-1) in time."""
        step = self.step_size.value * direction[:, None]
        half_step = 0.5 * step
        momentum = state.momentum + half_step * (state.gradient @ self.cholesky)
        position = state.position + step * (momentum @ self.cholesky.T)
        log_density, gradient = self.target(position)
        momentum = momentum + half_step * (gradient @ self.cholesky)
        return State(position, momentum, log_density, gradient)


def _warm_up(chains: _HamiltonianChains, n_warmup: int, bar: tqdm) -> Array:
    """Adapt the step size, set the mass matrix from all chains' draws, and adapt again.

    Return the draws of the second part, (n_draws, n_chains, k).

    The covariance that sets the mass matrix leaves out the first eighth of the warm-up.
    """
    draws = chains.run(n_warmup // 2, bar, adapt=True)[n_warmup // 8 :]
    pooled = draws.reshape(-1, draws.shape[-1])
    chains.set_covariance(shrunk_covariance(pooled, np.full(len(pooled), 1 / len(pooled))))
    draws = chains.run(n_warmup - n_warmup // 2, bar, adapt=True)
    chains.step_size.fix()
    return draws


def _worst_r_hat(draws: Array) -> float:
    return max(r_hat(column) for column in np.moveaxis(draws, 2, 0))


def _diagnose(draws: Array, target: Target, stopped: bool) -> SamplerInfo:
    """Compute R-hat and effective sample size, and warn if they show no convergence."""
    r_hats, ess, limits = np.full((3, len(target.discrete)), np.nan)
    continuous = np.flatnonzero(~target.discrete)
    for j, column in zip(continuous, np.moveaxis(draws, 2, 0), strict=True):
        r_hats[j], ess[j] = r_hat(column), effective_sample_size(column)
        limits[j] = _r_hat_limit(column, ess[j])
    message = _convergence_message(r_hats, ess, limits)
    if stopped:
        message = (
            "The chains lie in separate modes, or are far from having converged: R-hat is "
            f"{np.nanmax(r_hats):.2f} after the warm-up, so that they were stopped there. Use "
            "sampler='smc', or raise n_warmup."
        )
    warnings = () if message is None else (message,)
    return SamplerInfo("nuts", target.n_calls, ess=ess, r_hat=r_hats, warnings=warnings)


def _r_hat_limit(draws: Array, ess: float) -> float:
    """Return the R-hat of one parameter above which the chains count as not converged.

    It is 1.05 or, if the draws are few, what the R-hat of converged chains exceeds once in 1,000
    times by chance: the variance of the means of the split chains is distributed as chi-squared.
    """
    n_split_chains = 2 * max(draws.shape[1], 2)  # r_hat takes a single chain as two
    dof = n_split_chains - 1
    excess = stats.chi2.ppf(0.999, dof) / dof - 1
    smaller_ess = min(ess, effective_sample_size(np.abs(draws - np.median(draws))))
    return max(_MAX_R_HAT, math.sqrt(1 + excess * n_split_chains / smaller_ess))


def _convergence_message(r_hats: Array, ess: Array, limits: Array) -> str | None:
    """Return the message for chains that have not converged, or None."""
    if not (r_hats > limits).any() and not np.nanmin(ess) < _MIN_ESS:
        return None
    findings, worst, least = [], int(np.nanargmax(r_hats / limits)), np.nanmin(ess)
    if r_hats[worst] > limits[worst]:  # rounded apart, so that the message never contradicts itself
        found, limit = math.ceil(100 * r_hats[worst]) / 100, math.floor(100 * limits[worst]) / 100
        findings.append(f"R-hat is up to {found:.2f} (should be below {limit:.2f})")
    if least < _MIN_ESS:
        sizes = f"{math.floor(least)} (should be {_MIN_ESS} or more)"
        findings.append(f"the effective sample size is down to {sizes}")
    return (
        f"The chains have not converged: {', and '.join(findings)}. Raise n_warmup and n_samples; "
        "if the posterior has separate modes, use sampler='smc'."
    )
