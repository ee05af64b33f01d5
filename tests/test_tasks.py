"""A worker's part: rows do not depend on the task that they are in, and failures stay alone."""

import contextlib
import itertools
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators import LIMIT, PRIOR, assert_equal, block, fragile, ragged_set, same_set, vector

from skbi import DoubleMoonSimulator, FunctionSimulator
from skbi._tasks import BLOCK, Task, _blocks, _within, run

N = 1200
THETA = PRIOR.sample(N, random_state=0)


def task(simulator, theta=THETA, **options):
    n_blocks = -(-len(theta) // BLOCK)
    seeds = tuple(range(n_blocks))
    options = {"kind": None, "missing": "error", "timeout": None, "guarded": False} | options
    return Task(simulator, theta, 0, len(theta), seeds, **options)


def by_row(simulator):
    """Return the observations of a task's outcome by row."""
    outcome = run(simulator)
    if outcome.sizes is None:
        return dict(zip(outcome.rows.tolist(), outcome.X, strict=True))
    parts = np.split(outcome.X, np.cumsum(outcome.sizes)[:-1])
    return dict(zip(outcome.rows.tolist(), parts, strict=True))


@settings(max_examples=8)
@given(cuts=st.sets(st.integers(1, N - 1), max_size=4))
@pytest.mark.parametrize("func", [vector, same_set, ragged_set])
def test_rows_do_not_depend_on_the_task(func, cuts):
    whole = task(FunctionSimulator(func))
    edges = [0, *sorted(cuts), N]
    parts = [whole.part(*pair) for pair in itertools.pairwise(edges)]
    together = {row: x for part in parts for row, x in by_row(part).items()}
    assert_equal(list(by_row(whole).values()), [together[row] for row in range(N)])


def test_blocks_do_not_depend_on_the_task():
    whole = task(FunctionSimulator(block, vectorized=True))
    parts = whole.part(0, 1000), whole.part(1000, N)
    together = np.concatenate([run(part).X for part in parts])
    np.testing.assert_array_equal(run(whole).X, together)
    assert len(np.unique(together)) == together.size  # no block repeats another


@given(start=st.integers(0, 3000), n=st.integers(1, 3000))
def test_blocks_are_cut_where_their_seeds_change(start, n):
    part = task(FunctionSimulator(block), PRIOR.sample(6000, random_state=0)).part(start, start + n)
    edges = list(_blocks(part))
    assert [row for edge in edges for row in range(*edge)] == list(range(start, start + n))
    assert all(first // BLOCK == (stop - 1) // BLOCK for first, stop in edges)
    assert len(edges) == len(part.seeds)


def test_a_block_that_fails_loses_only_the_rows_to_blame():
    theta = DoubleMoonSimulator.prior().sample(1200, random_state=0)
    theta[[3, 700, 1100], 1] = -1  # a negative sigma
    outcome = run(task(DoubleMoonSimulator(n_points=4), theta))
    assert [failure.row for failure in outcome.failures] == [3, 700, 1100]
    assert "sigma must not be negative" in outcome.failures[0].message
    assert outcome.rows.tolist() == sorted({*range(1200)} - {3, 700, 1100})
    again = run(task(DoubleMoonSimulator(n_points=4), theta))
    np.testing.assert_array_equal(outcome.X, again.X)


@pytest.mark.parametrize("failure", ["exception", "exit", "nan", "infinite", "shape"])
def test_a_row_that_fails_changes_no_other(failure):
    good = THETA[:, 1] >= LIMIT
    outcome = run(task(FunctionSimulator(fragile, kwargs={"failure": failure})))
    np.testing.assert_array_equal(outcome.rows, np.flatnonzero(good))
    np.testing.assert_array_equal(outcome.X, run(task(FunctionSimulator(vector))).X[good])
    kind = "exception" if failure == "exit" else failure
    assert {f.kind for f in outcome.failures} == {kind}
    assert [bool(f.message) for f in outcome.failures] == [True] + [False] * (sum(~good) - 1)


@pytest.mark.parametrize("simulator", [FunctionSimulator(vector), DoubleMoonSimulator(n_points=3)])
def test_a_guarded_task_gives_the_same(simulator):
    prior = PRIOR if isinstance(simulator, FunctionSimulator) else DoubleMoonSimulator.prior()
    theta = prior.sample(1100, random_state=0)
    free, guarded = (run(task(simulator, theta, guarded=guarded)) for guarded in (False, True))
    np.testing.assert_array_equal(free.X, guarded.X)
    np.testing.assert_array_equal(free.rows, guarded.rows)


@pytest.mark.parametrize("vectorized", [False, True])
def test_a_guarded_task_outlives_simulations_that_kill(vectorized):
    def each(theta, rng):
        return np.array([fragile(row, rng, "killed") for row in theta])

    options = {} if vectorized else {"kwargs": {"failure": "killed"}}
    simulator = FunctionSimulator(each if vectorized else fragile, vectorized=vectorized, **options)
    outcome = run(task(simulator, THETA[:40], guarded=True))
    assert {f.kind for f in outcome.failures} == {"killed"}
    np.testing.assert_array_equal(outcome.rows, np.flatnonzero(THETA[:40, 1] >= LIMIT))


def test_a_guarded_task_has_a_time_limit():
    theta = np.array([[0.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
    simulator = FunctionSimulator(fragile, kwargs={"failure": "timeout"})
    outcome = run(task(simulator, theta, guarded=True, timeout=0.2))
    assert [(f.row, f.kind) for f in outcome.failures] == [(1, "timeout")]
    assert outcome.rows.tolist() == [0, 2]


def test_time_limits_hold_in_a_thread_and_let_errors_through():
    kinds = []

    def inside():
        simulator = FunctionSimulator(fragile, kwargs={"failure": "timeout"})
        outcome = run(task(simulator, np.array([[0.0, 0.0], [0.0, 1.0]]), timeout=0.2))
        kinds.extend(f.kind for f in outcome.failures)
        with pytest.raises(ZeroDivisionError):
            _within(1.0, lambda: 1 / 0)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert kinds == ["timeout"]


def test_a_simulator_cannot_swallow_the_time_limit():
    def stubborn(theta):
        for _ in range(2):
            with contextlib.suppress(Exception):
                time.sleep(60)
        return theta

    outcome = run(task(FunctionSimulator(stubborn), np.zeros((1, 1)), timeout=0.1))
    assert [f.kind for f in outcome.failures] == ["timeout"]


def test_missing_entries_and_absent_points():
    rows = [[1.0, 2.0], [np.nan, 2.0], [np.nan, np.nan], [1.0, np.inf]]
    simulator = FunctionSimulator(lambda t: rows[int(t[0])])
    theta = np.arange(4.0)[:, None]
    assert [f.row for f in run(task(simulator, theta)).failures] == [1, 2, 3]
    assert [f.row for f in run(task(simulator, theta, missing="mask")).failures] == [2, 3]
    padded = FunctionSimulator(lambda t: [[1.0, 2.0], rows[int(t[0])]])
    assert [f.row for f in run(task(padded, theta)).failures] == [1, 3]
