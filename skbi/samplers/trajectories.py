"""One draw by the no-U-turn sampler, for many chains as one batch.

A trajectory of the Hamiltonian H(z, r) = -log p(z) + |r|^2 / 2 starts at a chain's position z, with
a momentum r ~ N(0, I), and doubles until it makes a U-turn. The next draw is one of its points,
chosen at random so that exp(-H), and with it p(z), stays invariant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skbi.samplers.info import Array

__all__ = ["Leapfrog", "State", "no_u_turn_step"]

_MAX_ENERGY_ERROR = 1000.0  # in nats; beyond it, a trajectory has diverged


class State(NamedTuple):
    """A point in phase space for each of m chains.

    Attributes
    ----------
    position : ndarray, shape (m, k)
    momentum : ndarray, shape (m, k)
        In the space where the mass matrix is the identity.
    log_density : ndarray, shape (m,)
        log p at the position.
    gradient : ndarray, shape (m, k)
        Gradient of log p at the position.
    """

    position: Array
    momentum: Array
    log_density: Array
    gradient: Array

    @property
    def log_joint(self) -> Array:
        """Log density of position and momentum together, -H, of shape (m,)."""
        return self.log_density - 0.5 * (self.momentum**2).sum(axis=1)

    def take(self, rows: Any) -> State:
        """Return a copy of the rows of an index array, or of a tuple of them."""
        return State(*(values[rows] for values in self))

    def put(self, rows: Any, other: State) -> None:
        """Overwrite these rows with another state."""
        for values, new in zip(self, other, strict=True):
            values[rows] = new


Leapfrog = Callable[[State, NDArray[np.int64]], State]


def no_u_turn_step(
    state: State, leapfrog: Leapfrog, rng: np.random.Generator, max_depth: int
) -> float:
    """Overwrite the state of each chain with its next draw, a point of a new trajectory.

    Parameters
    ----------
    state : State
        Of m chains. The momentum is not read, because a new one is drawn.
    leapfrog : callable
        Maps a state of some chains and a direction for each, 1 for forward and -1 for backward in
        time, to their state after one leapfrog step.
    rng : numpy.random.Generator
    max_depth : int
        Number of doublings after which a trajectory ends even without a U-turn.

    Returns
    -------
    float
        Acceptance statistic: the mean of min(1, exp(H_initial - H)) over the leapfrog steps of
        each chain, and over chains.

    References
    ----------
    Hoffman and Gelman, The no-U-turn sampler, 2014, https://arxiv.org/abs/1111.4246; Betancourt, A
    conceptual introduction to Hamiltonian Monte Carlo, 2017, https://arxiv.org/abs/1701.02434.

    Examples
    --------
    >>> def leapfrog(state, direction):  # of the density N(0, 1), in steps of 0.5
    ...     step = 0.5 * direction[:, None]
    ...     momentum = state.momentum - 0.5 * step * state.position
    ...     z = state.position + step * momentum
    ...     return State(z, momentum - 0.5 * step * z, -0.5 * z[:, 0] ** 2, -z)
    >>> z = np.zeros((3, 1))  # three chains
    >>> state = State(z, np.zeros((3, 1)), -0.5 * z[:, 0] ** 2, -z)
    >>> acceptance = no_u_turn_step(state, leapfrog, np.random.default_rng(0), max_depth=8)
    >>> 0.9 < acceptance <= 1
    True
    """
    state.momentum[:] = rng.standard_normal(state.momentum.shape)
    trajectories = _Trajectories(state, leapfrog, rng)
    for depth in range(max_depth):
        trajectories.double(2**depth)
        if not trajectories.is_growing.any():
            break
    return float((trajectories.acceptance_sum / trajectories.n_steps).mean())


class _Trajectories:
    """One trajectory for each chain, and a point drawn from it, which is kept in ``state``.

    Biased progressive sampling draws the point, and favours the later halves of the trajectory
    (Betancourt 2017, appendix A.3).
    """

    def __init__(self, state: State, leapfrog: Leapfrog, rng: np.random.Generator) -> None:
        self.state, self.leapfrog, self.rng = state, leapfrog, rng
        self.initial_log_joint = state.log_joint
        # The two ends of each trajectory, along a new first axis: [backward, forward].
        self.ends = State(*(np.stack([values, values]) for values in state))
        self.momentum_sum = state.momentum.copy()
        n_chains = len(state.position)
        self.log_weight = np.zeros(n_chains)  # log of the sum of exp(H_initial - H)
        self.acceptance_sum, self.n_steps = np.zeros(n_chains), np.zeros(n_chains)
        self.is_growing = np.ones(n_chains, dtype=bool)

    def double(self, n_steps: int) -> None:
        """Add ``n_steps`` leapfrog steps at a random end of each trajectory that still grows.

        The trajectory ends without them if they diverge or hold a U-turn.
        """
        rows = np.flatnonzero(self.is_growing)
        end = self.rng.integers(2, size=len(rows))
        subtrees = self._integrate(rows, end, n_steps)
        valid = subtrees.is_valid
        self.is_growing[rows[~valid]] = False
        rows, end = rows[valid], end[valid]
        self.ends.put((end, rows), subtrees.end.take(valid))
        self._choose(rows, subtrees.candidate.take(valid), subtrees.log_weight[valid])
        self.momentum_sum[rows] += subtrees.momentum_sum[valid]
        backward, forward = self.ends.momentum[:, rows]
        self.is_growing[rows[_is_u_turn(backward, forward, self.momentum_sum[rows])]] = False

    def _integrate(
        self, rows: NDArray[np.int64], end: NDArray[np.int64], n_steps: int
    ) -> _Subtrees:
        """Make leapfrog steps from the chosen ends of the trajectories ``rows``."""
        subtrees = _Subtrees(self.ends.take((end, rows)), n_steps)
        direction = 2 * end - 1
        for step in range(n_steps):
            active = np.flatnonzero(subtrees.is_valid)
            state = self.leapfrog(subtrees.end.take(active), direction[active])
            log_weight = state.log_joint - self.initial_log_joint[rows[active]]
            log_weight = np.where(np.isfinite(log_weight), log_weight, -np.inf)
            self.acceptance_sum[rows[active]] += np.exp(np.minimum(log_weight, 0))
            self.n_steps[rows[active]] += 1
            subtrees.add(active, state, log_weight, self.rng)
            is_divergent = log_weight < -_MAX_ENERGY_ERROR
            subtrees.is_valid[active[subtrees.makes_u_turn(active, step) | is_divergent]] = False
            if not subtrees.is_valid.any():
                break
        return subtrees

    def _choose(self, rows: NDArray[np.int64], candidate: State, log_weight: Array) -> None:
        """Replace the points drawn so far by the subtrees' candidates, or keep them, at random."""
        log_ratio = log_weight - self.log_weight[rows]
        accepted = np.log(self.rng.random(len(rows))) < log_ratio
        self.state.put(rows[accepted], candidate.take(accepted))
        self.log_weight[rows] = np.logaddexp(self.log_weight[rows], log_weight)


class _Subtrees:
    """The new halves of m trajectories, of up to ``n_steps`` leapfrog steps each.

    The steps are the leaves of a binary tree, and U-turns of its subtrees are found without
    recursion: the momentum at the first step of the open subtree at each level is kept.
    """

    def __init__(self, end: State, n_steps: int) -> None:
        n_chains, k = end.position.shape
        n_levels = n_steps.bit_length()
        self.end = end  # where the next step starts
        self.candidate = State(*(values.copy() for values in end))  # a point drawn from the subtree
        self.log_weight = np.full(n_chains, -np.inf)
        self.momentum_sum = np.zeros((n_chains, k))
        self.first_momentum = np.zeros((n_levels, n_chains, k))
        self.momentum_sum_at_first = np.zeros((n_levels, n_chains, k))
        self.is_valid = np.ones(n_chains, dtype=bool)  # without a U-turn, and not divergent

    def add(
        self, rows: NDArray[np.int64], state: State, log_weight: Array, rng: np.random.Generator
    ) -> None:
        """Add a leapfrog step, which becomes the candidate in proportion to its weight."""
        total = np.logaddexp(self.log_weight[rows], log_weight)
        chosen = np.log(rng.random(len(rows))) < log_weight - total
        self.candidate.put(rows[chosen], state.take(chosen))
        self.end.put(rows, state)
        self.log_weight[rows] = total
        self.momentum_sum[rows] += state.momentum

    def makes_u_turn(self, rows: NDArray[np.int64], step: int) -> NDArray[np.bool_]:
        """Whether any subtree of two or more steps that ends with this step makes a U-turn."""
        last, momentum_sum = self.end.momentum[rows], self.momentum_sum[rows]
        level = (step >> 1).bit_count()
        found = np.zeros(len(rows), dtype=bool)
        if step % 2 == 0:  # a subtree starts here
            self.first_momentum[level, rows] = last
            self.momentum_sum_at_first[level, rows] = momentum_sum
            return found
        n_ending = (~step & (step + 1)).bit_length() - 1  # the number of trailing ones of step
        for i in range(level, level - n_ending, -1):
            first = self.first_momentum[i, rows]
            within = momentum_sum - self.momentum_sum_at_first[i, rows] + first
            found |= _is_u_turn(first, last, within)
        return found


def _is_u_turn(first: Array, last: Array, momentum_sum: Array) -> NDArray[np.bool_]:
    """Whether an end moves against the sum of the momenta, in which the two ends count half."""
    momentum_sum = momentum_sum - 0.5 * (first + last)
    return ((first * momentum_sum).sum(axis=1) <= 0) | ((last * momentum_sum).sum(axis=1) <= 0)
