"""Simulators that several tests share, ways in which they fail, and tasks for workers."""

import itertools
import os
import sys
import time

import numpy as np
from scipy import stats

from skbi import JointPrior
from skbi.simulation.tasks import ROWS_PER_BLOCK, Task

PRIOR = JointPrior({"a": stats.norm(), "b": stats.uniform()})
FAILURE_LIMIT = 0.05  # `failing_vector` fails if b is less

FAILURES = {
    "exception": lambda: {}["nothing"],
    "exit": lambda: sys.exit(3),
    "nan": lambda: np.array([1.0, np.nan]),
    "infinite": lambda: np.array([1.0, np.inf]),
    "shape": lambda: np.zeros(3),
    "timeout": lambda: time.sleep(60),
    "hang": lambda: sum(itertools.repeat(1, 10**13)),  # no signal interrupts it
    "killed": lambda: os.kill(os.getpid(), 9),
}


def noisy_vector(theta, rng):
    """Return two numbers, each a plus noise."""
    return theta[0] + rng.normal(size=2)


def failing_vector(theta, rng, failure):
    """Return what `noisy_vector` does, but fail if b is small."""
    x = noisy_vector(theta, rng)
    return FAILURES[failure]() if theta[1] < FAILURE_LIMIT else x


def set_of_five(theta, rng):
    """Return five points."""
    return theta[0] + rng.normal(size=(5, 2))


def ragged_set(theta, rng):
    """Return one to four points."""
    return theta[0] + rng.normal(size=(1 + int(4 * theta[1]), 2))


def noisy_rows(theta, rng):
    """Simulate all rows of theta at once."""
    return theta[:, :1] + rng.normal(size=(len(theta), 3))


def slow_vector(theta, rng, seconds=0.002):
    """Return what `noisy_vector` does, after a while."""
    time.sleep(seconds)
    return noisy_vector(theta, rng)


def make_task(simulator, theta, **options):
    """Return the task of simulating all rows of theta."""
    n_blocks = -(-len(theta) // ROWS_PER_BLOCK)
    seeds = tuple(range(n_blocks))
    options = {"spec": None, "missing": "error", "timeout": None, "isolated": False} | options
    return Task(simulator, theta, 0, len(theta), seeds, **options)


def assert_same_observations(X, Y):
    """Assert that two X are equal bit by bit, also if they hold sets of several sizes."""
    assert type(X[0]) is type(Y[0]) or X.dtype == Y.dtype
    assert len(X) == len(Y)
    for x, y in zip(X, Y, strict=True):
        np.testing.assert_array_equal(x, y)
