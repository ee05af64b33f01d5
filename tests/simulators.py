"""Simulators that several tests share, and how they fail."""

import itertools
import os
import sys
import time

import numpy as np
from scipy import stats

from skbi import JointPrior

PRIOR = JointPrior({"a": stats.norm(), "b": stats.uniform()})
LIMIT = 0.05  # of b, below which simulations fail

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


def vector(theta, rng):
    """Return a + noise, twice."""
    return theta[0] + rng.normal(size=2)


def fragile(theta, rng, failure):
    """Do as `vector`, but fail where b is small."""
    x = vector(theta, rng)
    return FAILURES[failure]() if theta[1] < LIMIT else x


def same_set(theta, rng):
    """Return five points."""
    return theta[0] + rng.normal(size=(5, 2))


def ragged_set(theta, rng):
    """Return one to four points."""
    return theta[0] + rng.normal(size=(1 + int(4 * theta[1]), 2))


def block(theta, rng):
    """Simulate all rows."""
    return theta[:, :1] + rng.normal(size=(len(theta), 3))


def slow(theta, rng, seconds=0.002):
    """Take its time."""
    time.sleep(seconds)
    return vector(theta, rng)


def assert_equal(X, Y):
    """Compare two X bit by bit, ragged or not."""
    assert type(X[0]) is type(Y[0]) or X.dtype == Y.dtype
    assert len(X) == len(Y)
    for x, y in zip(X, Y, strict=True):
        np.testing.assert_array_equal(x, y)
