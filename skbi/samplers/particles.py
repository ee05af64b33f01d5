"""The particles of one observation, on their way from the prior to the posterior.

p_b(z) is proportional to L(z)^b p(z), for temperatures 0 = b_0 < b_1 < ... = 1. At each of them
particles are resampled by the weights w = L^(b_k - b_(k-1)) and then moved by Metropolis steps that
leave p_b as it is. All points that a chain visits count as particles ("waste-free").

The evidence comes from draws of the posterior and of a mixture q fitted to it, by bridge sampling:
Z = mean_q(h L p) / mean_p(h q), with h = 1 / (s_1 L p + s_2 Z q) for shares s_1, s_2 of the draws.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, softmax
from scipy.stats import rankdata

from skbi.priors import Prior, from_latent
from skbi.samplers.info import Array, LogLikelihood, SamplerInfo
from skbi.samplers.mixture import StudentMixture
from skbi.samplers.moves import Cloud, Moves

__all__ = ["MIN_CHAINS", "Particles", "Request", "Run"]

MIN_CHAINS = 16  # which learn from each other, and draws of the prior to begin with
_N_POINTS = 5  # of each chain, at least, at one temperature
_MAX_SWEEPS = 100  # moves of each chain at one temperature, or between two draws
_LEAST_ESS = 0.5  # of the weights, as a share of the particles: how far a temperature may go
_MAX_CLOUD = 2000  # particles that proposals learn from
_MAX_PRIOR_ROUNDS = 50  # of prior draws, to find some with a likelihood
_MAX_DRIFT = 3.0  # standard errors that a mean may move by chance
_N_BRIDGE_STEPS = 50
_MIN_ESS = 100  # below which a warning says that particles have not mixed
_MIN_FAMILIES = 1 / 8  # of the chains, for families to tell an error by


class _Enough(NamedTuple):
    """How far chains must move: the share that has left its place, and what is left of it."""

    share: float
    correlation: float


_AT_A_TEMPERATURE, _BETWEEN_DRAWS = _Enough(0.8, 0.4), _Enough(0.95, 0.2)


class Request(NamedTuple):
    """Likelihoods that a run asks for, all at the same theta (m, p), and how far it has come."""

    likelihoods: Sequence[LogLikelihood]
    theta: Array
    progress: str


class _State(NamedTuple):
    """All chains at one time: coordinates (m, k), and log likelihoods at both ends of the path."""

    z: Array
    values: list[Array]

    @property
    def features(self) -> Array:
        """What should be forgotten and should not drift: coordinates, and the likelihood's rank."""
        return np.column_stack([self.z, rankdata(self.values[1])])


Run = Generator[Request, list[Array], tuple[Array, SamplerInfo]]
_Step = Generator[Request, list[Array], Any]


class Particles:
    """The particles of one observation.

    Attributes
    ----------
    z : ndarray, shape (n, k)
        Gaussian coordinates of all points that count at the present temperature.
    values : list of ndarray, shape (n,)
        Log likelihoods there: of what the path comes from, and of what it leads to.
    chain, family : ndarray of int, shape (n,)
        The chain that each point belongs to, and the ancestor of that chain. Members of one family
        are not independent.
    half : ndarray of int, shape (m,)
        Which half each chain belongs to. It learns from the other half's particles: proposals that
        had learnt from the chain itself would pull all chains together.
    """

    def __init__(
        self, prior: Prior, n_samples: int, rng: np.random.Generator, n_chains: int
    ) -> None:
        self.prior, self.n_samples, self.rng = prior, n_samples, rng
        self.n_chains, self.k = n_chains, len(prior.names)
        self.latent = np.asarray(prior.discrete)
        self.moves = Moves(self.latent)
        self.temperature = self.log_evidence = 0.0
        self.n_calls = 0

    def run(self, path: Sequence[LogLikelihood]) -> Run:
        """Go along the path; return draws and what was found (a generator of requests)."""
        yield from self._start(path[0])
        for stage, likelihood in enumerate(path):
            if stage:
                yield from self._turn_to(likelihood)
            self.temperature = 0.0
            self._resample(self._reweigh())
            while self.temperature < 1:
                yield from self._move([*path[max(0, stage - 1) : stage], likelihood])
                self._count_all()
                self._resample(self._reweigh())
            if stage < len(path) - 1:
                yield from self._move([likelihood])
                self._count_all()
        return (yield from self._draw(path[-1]))

    # ---- the way to the posterior

    def _ask(self, likelihoods: Sequence[LogLikelihood], z: Array) -> _Step:
        """Ask for likelihoods at the coordinates z (m, k)."""
        self.n_calls += len(z) * len(likelihoods)
        progress = f"temperature {self.temperature:.2g}"
        return (yield Request(likelihoods, from_latent(self.prior, z), progress))

    def _start(self, likelihood: LogLikelihood) -> _Step:
        """Draw from the prior until as many draws as there are chains have a likelihood."""
        z, values, n = [], [], 0
        for _ in range(_MAX_PRIOR_ROUNDS):
            new = self.rng.standard_normal((_N_POINTS * self.n_chains, self.k))
            (found,) = yield from self._ask([likelihood], new)
            possible = np.isfinite(found)
            z.append(new[possible])
            values.append(found[possible])
            n += len(new)
            if sum(map(len, z)) >= self.n_chains:
                break
        self.z = np.concatenate(z)
        if len(self.z) < MIN_CHAINS:
            raise ValueError(
                f"Of {n} draws of the prior {len(self.z)} have a likelihood above zero, too few to "
                "start from. Is X_obs possible under this prior? If so, narrow the prior."
            )
        self.log_evidence = math.log(len(self.z) / n)
        self.values = [np.zeros(len(self.z)), np.concatenate(values)]
        self.chain = self.family = np.arange(len(self.z))

    def _turn_to(self, likelihood: LogLikelihood) -> _Step:
        """Evaluate the next likelihood on the path at the particles."""
        rows = self.rng.permutation(len(self.z))[: _N_POINTS * self.n_chains]
        self.z, self.chain, self.family = self.z[rows], self.chain[rows], self.family[rows]
        (values,) = yield from self._ask([likelihood], self.z)
        self.values = [self.values[1][rows], values]

    def _reweigh(self) -> Array:
        """Raise the temperature as far as the weights allow; return them, and add to log Z."""
        possible = np.isfinite(self.values[1])
        difference = self.values[1][possible] - self.values[0][possible]
        step = _largest_step(difference, 1 - self.temperature, _LEAST_ESS * len(difference))
        is_last = step == 1 - self.temperature
        self.temperature = 1.0 if is_last else self.temperature + step
        self.log_evidence += float(logsumexp(step * difference) - math.log(len(possible)))
        weights = np.zeros(len(possible))
        weights[possible] = softmax(step * difference)
        return weights

    def _resample(self, weights: Array) -> None:
        """Start every chain at a particle, chosen by its weight; let the moves learn from all."""
        half = self.chain % 2
        of_half = [self._choose(np.where(half == i, weights, 0), _MAX_CLOUD) for i in (0, 1)]
        self._learn_from([self.z[rows] for rows in of_half])
        starts = self._choose(weights, self.n_chains)
        self.half, self.chain_family = half[starts], self.family[starts]
        if np.ptp(self.half) == 0:  # all from one half
            self.half = np.arange(self.n_chains) % 2
        self.state = _State(self.z[starts], [values[starts] for values in self.values])
        if len(np.unique(self.chain_family)) < _MIN_FAMILIES * self.n_chains:
            self.chain_family = np.unique(starts, return_inverse=True)[1]  # of one place

    def _choose(self, weights: Array, n: int) -> NDArray[np.int64]:
        """Choose n particles by their weights, systematically, in random order."""
        order = self.rng.permutation(len(weights))
        cumulative = weights[order].cumsum()
        at = (np.arange(n) + self.rng.random()) / n * cumulative[-1]
        chosen = order[np.searchsorted(cumulative, at).clip(max=len(weights) - 1)]
        return self.rng.permutation(chosen)

    def _learn_from(self, halves: Sequence[Array]) -> None:
        """Let the proposals of each half of the chains learn from particles of the other half."""
        some = [z[self.rng.permutation(len(z))[:_MAX_CLOUD]] for z in halves]
        self.clouds = [Cloud(z, self.latent, self.rng) for z in reversed(some)]

    def _learn_from_visited(self) -> None:
        """Let them learn from where the chains of the other half have been lately."""
        visited = np.stack([state.z for state in self.visited])
        self._learn_from([visited[:, self.half == i].reshape(-1, self.k) for i in (0, 1)])

    def _move(
        self, path: Sequence[LogLikelihood], enough: _Enough = _AT_A_TEMPERATURE
    ) -> Generator[Request, list[Array], bool]:
        """Move all chains until they have forgotten where they were, and drift no more.

        Keep what they have visited since they do not drift; return whether they have settled.
        """
        min_sweeps = _N_POINTS - 1 if enough is _AT_A_TEMPERATURE else 1
        self.visited = [self.state]
        for _ in range(_MAX_SWEEPS):
            self.state = yield from self._sweep(path)
            self.visited.append(self.state)
            start = self.visited[0]
            if len(self.visited) <= min_sweeps or not _forgotten(start, self.state, enough):
                continue
            if not _drifts(start, self.state):
                return True
            self._learn_from_visited()
            self.visited = [self.state]
        return not _drifts(self.visited[0], self.state)

    def _sweep(self, path: Sequence[LogLikelihood]) -> _Step:
        """Return the state after a Metropolis step of every chain."""
        z, old_values = self.state
        proposed, log_ratio = np.empty_like(z), np.zeros(self.n_chains)
        halves = [np.flatnonzero(self.half == i) for i in (0, 1)]
        pairs = zip(halves, self.clouds, strict=True)
        tries = [(self.moves.choose(self.rng), *pair) for pair in pairs]
        for kind, rows, cloud in tries:
            proposed[rows], log_ratio[rows] = kind.propose(z[rows], cloud, self.rng)
        values = yield from self._ask(path, proposed)
        values = [np.zeros(self.n_chains)] * (2 - len(path)) + values
        log_ratio += self._log_density(proposed, values) - self._log_density(z, old_values)
        acceptance = np.exp(np.minimum(np.where(np.isnan(log_ratio), -np.inf, log_ratio), 0))
        for kind, rows, cloud in tries:
            kind.learn(acceptance[rows], cloud.squared_distance(proposed[rows] - z[rows]))
        accepted = self.rng.random(self.n_chains) < acceptance
        new_values = [
            np.where(accepted, new, old) for new, old in zip(values, old_values, strict=True)
        ]
        return _State(np.where(accepted[:, None], proposed, z), new_values)

    def _log_density(self, z: Array, values: Sequence[Array]) -> Array:
        """Log of the tempered density, from the values at both ends."""
        b, (before, after) = self.temperature, values
        tempered = after if b == 1 else (1 - b) * before + b * after
        return tempered - 0.5 * (z**2).sum(axis=1)

    def _count_all(self) -> None:
        """Let all points that the chains have visited be particles."""
        self.z = np.concatenate([state.z for state in self.visited])
        both = zip(*(state.values for state in self.visited), strict=True)
        self.values = [np.concatenate(values) for values in both]
        self.chain = np.tile(np.arange(self.n_chains), len(self.visited))
        self.family = np.tile(self.chain_family, len(self.visited))

    # ---- at the posterior

    def _draw(self, likelihood: LogLikelihood) -> Run:
        """Collect draws of all chains, each after they have forgotten the last."""
        states, settled = [], True
        for _ in range(math.ceil(self.n_samples / self.n_chains)):
            settled &= yield from self._move([likelihood], _BETWEEN_DRAWS)
            self._learn_from_visited()
            states.append(self.state)
        z = np.concatenate([state.z for state in states])
        values = np.concatenate([state.values[1] for state in states])
        log_evidence, error = yield from self._bridge(z, values, likelihood)
        theta = from_latent(self.prior, z)
        ess = _effective_sample_size(theta, np.tile(self.chain_family, len(states)))
        info = SamplerInfo(
            "smc",
            n_calls=self.n_calls,
            log_evidence=log_evidence,
            log_evidence_error=error,
            ess=ess,
            warnings=self._diagnose(ess, settled),
        )
        return theta[self.rng.permutation(len(theta))[: self.n_samples]], info

    def _bridge(
        self, z: Array, values: Array, likelihood: LogLikelihood
    ) -> Generator[Request, list[Array], tuple[float, float]]:
        """Estimate log Z and its error: a bridge from each half to a mixture of the other."""
        half, found = np.tile(self.half, len(z) // self.n_chains), []
        for i in (0, 1):
            mixture = StudentMixture(z[half != i], self.rng)
            proposed = mixture.sample((half == i).sum(), self.rng)
            (new_values,) = yield from self._ask([likelihood], proposed)
            log_ratios = [
                value + _log_standard_normal(points) - mixture.log_prob(points)
                for points, value in ((z[half == i], values[half == i]), (proposed, new_values))
            ]
            found.append(_bridge(*log_ratios, self.log_evidence))
        estimates, errors = np.transpose(found)
        return float(estimates.mean()), float(np.sqrt((errors**2).sum())) / 2

    def _diagnose(self, ess: Array, settled: bool) -> tuple[str, ...]:
        """Return the message for particles that have not mixed, if they have not."""
        worst, least = int(ess.argmin()), min(_MIN_ESS, self.n_chains / 4)
        if settled and ess[worst] >= least:
            return ()
        seen = f"their means still drift after {_MAX_SWEEPS} sweeps"
        if settled:
            seen = (
                f"the effective sample size of {self.prior.names[worst]!r} is {int(ess[worst])} "
                f"(should be {math.ceil(least)} or more)"
            )
        return (
            f"The particles have not mixed: {seen}. Raise n_particles, now {self.n_chains}, or "
            "compare with sampler='nested'.",
        )


def _largest_step(difference: Array, longest: float, least_ess: float) -> float:
    """Return the largest power, up to ``longest``, at which the weights' sample size suffices."""

    def suffices(step: float) -> bool:
        weights = softmax(step * difference)
        return 1 / float((weights**2).sum()) >= least_ess

    if suffices(longest):
        return longest
    low, high = -50.0, 0.0  # logarithms, relative to the longest
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if suffices(longest * math.exp(middle)) else (low, middle)
    return longest * math.exp(low)


def _bridge(of_posterior: Array, of_mixture: Array, guess: float) -> tuple[float, float]:
    """Return log Z and its standard error from log (L p / q) at draws of both densities.

    The optimal bridge is found by iteration (Meng and Wong 1996). If the posterior is zero at all
    draws of the mixture there is none: the guess is all that is known, with an infinite error.
    """
    if np.isneginf(of_mixture).all():
        return guess, math.inf
    n = np.array([len(of_posterior), len(of_mixture)])
    log_share, log_z = np.log(n / n.sum()), guess
    for _ in range(_N_BRIDGE_STEPS):
        bridge = [
            -np.logaddexp(log_share[0] + ratio, log_share[1] + log_z)
            for ratio in (of_posterior, of_mixture)
        ]
        log_terms = bridge[0], of_mixture + bridge[1]
        log_means = [logsumexp(terms) - math.log(len(terms)) for terms in log_terms]
        log_z = float(log_means[1] - log_means[0])
    relative = [np.exp(t - m) for t, m in zip(log_terms, log_means, strict=True)]
    return log_z, math.sqrt(sum(terms.var() / len(terms) for terms in relative))


def _log_standard_normal(z: Array) -> Array:
    return -0.5 * (z**2 + math.log(2 * math.pi)).sum(axis=1)


def _forgotten(start: _State, end: _State, enough: _Enough) -> bool:
    """Whether enough chains have left their start, and no feature remembers it."""
    if (start.z != end.z).any(axis=1).mean() < enough.share:
        return False
    first, last = (f - f.mean(axis=0) for f in (start.features, end.features))
    scale = np.sqrt((first**2).sum(axis=0) * (last**2).sum(axis=0))
    return bool(((first * last).sum(axis=0) <= enough.correlation * scale).all())


def _drifts(start: _State, end: _State) -> bool:
    """Whether the mean of a feature has moved by more than chance."""
    steps = end.features - start.features
    error = steps.std(axis=0) / math.sqrt(len(steps))
    return bool((np.abs(steps.mean(axis=0)) > _MAX_DRIFT * error).any())


def _effective_sample_size(theta: Array, family: NDArray[np.int64]) -> Array:
    """Return the effective sample size of each column, from the means of independent families."""
    centred = theta - theta.mean(axis=0)
    _, family = np.unique(family, return_inverse=True)
    sums = np.stack([np.bincount(family, column) for column in centred.T])
    variance = (centred**2).sum(axis=0) / len(theta)
    error = (sums**2).sum(axis=1) / len(theta) ** 2
    ess = variance / np.where(error > 0, error, 1)
    return np.where(error > 0, np.minimum(ess, len(theta)), len(theta))
