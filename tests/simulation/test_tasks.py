"""Tasks: an observation does not depend on the task that it is part of, nor on other failures."""

import contextlib
import itertools
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators import (
    FAILURE_LIMIT,
    PRIOR,
    assert_same_observations,
    failing_vector,
    make_task,
    noisy_rows,
    noisy_vector,
    ragged_set,
    set_of_five,
)

from skbi import DoubleMoonSimulator, FunctionSimulator
from skbi.simulation.tasks import ROWS_PER_BLOCK, call_within, run_task

N = 1200
THETA = PRIOR.sample(N, random_state=0)


def observations_by_row(task):
    """Run a task and return its observations by row."""
    outcome = run_task(task)
    if outcome.sizes is None:
        return dict(zip(outcome.rows.tolist(), outcome.X, strict=True))
    sets = np.split(outcome.X, np.cumsum(outcome.sizes)[:-1])
    return dict(zip(outcome.rows.tolist(), sets, strict=True))


@settings(max_examples=8)
@given(cuts=st.sets(st.integers(1, N - 1), max_size=4))
@pytest.mark.parametrize("func", [noisy_vector, set_of_five, ragged_set])
def test_rows_do_not_depend_on_the_task(func, cuts):
    whole = make_task(FunctionSimulator(func), THETA)
    edges = [0, *sorted(cuts), N]
    parts = [whole.subtask(*pair) for pair in itertools.pairwise(edges)]
    together = {row: x for part in parts for row, x in observations_by_row(part).items()}
    expected = list(observations_by_row(whole).values())
    assert_same_observations(expected, [together[row] for row in range(N)])


def test_blocks_do_not_depend_on_the_task():
    whole = make_task(FunctionSimulator(noisy_rows, vectorized=True), THETA)
    parts = whole.subtask(0, 1000), whole.subtask(1000, N)
    together = np.concatenate([run_task(part).X for part in parts])
    np.testing.assert_array_equal(run_task(whole).X, together)
    assert len(np.unique(together)) == together.size  # no block repeats another


@given(start=st.integers(0, 3000), n=st.integers(1, 3000))
def test_a_task_is_divided_where_seeds_change(start, n):
    theta = PRIOR.sample(6000, random_state=0)
    part = make_task(FunctionSimulator(noisy_rows), theta).subtask(start, start + n)
    blocks = list(part.blocks())
    rows = [row for block in blocks for row in range(block.start, block.stop)]
    assert rows == list(range(start, start + n))
    assert all(b.start // ROWS_PER_BLOCK == (b.stop - 1) // ROWS_PER_BLOCK for b in blocks)
    assert len(blocks) == len(part.seeds)
    assert [block.seeds for block in blocks] == [(seed,) for seed in part.seeds]


def test_a_block_that_fails_loses_only_the_rows_to_blame():
    theta = DoubleMoonSimulator.prior().sample(1200, random_state=0)
    theta[[3, 700, 1100], 1] = -1  # a negative sigma
    outcome = run_task(make_task(DoubleMoonSimulator(n_points=4), theta))
    assert [failure.row for failure in outcome.failures] == [3, 700, 1100]
    assert "sigma must not be negative" in outcome.failures[0].message
    assert outcome.rows.tolist() == sorted({*range(1200)} - {3, 700, 1100})
    again = run_task(make_task(DoubleMoonSimulator(n_points=4), theta))
    np.testing.assert_array_equal(outcome.X, again.X)


@pytest.mark.parametrize("failure", ["exception", "exit", "nan", "infinite", "shape"])
def test_a_row_that_fails_changes_no_other(failure):
    succeeds = THETA[:, 1] >= FAILURE_LIMIT
    simulator = FunctionSimulator(failing_vector, kwargs={"failure": failure})
    outcome = run_task(make_task(simulator, THETA))
    expected = run_task(make_task(FunctionSimulator(noisy_vector), THETA)).X[succeeds]
    np.testing.assert_array_equal(outcome.rows, np.flatnonzero(succeeds))
    np.testing.assert_array_equal(outcome.X, expected)
    kind = "exception" if failure == "exit" else failure
    assert {f.kind for f in outcome.failures} == {kind}
    has_message = [bool(f.message) for f in outcome.failures]
    assert has_message == [True] + [False] * (sum(~succeeds) - 1)


# ---- simulations in child processes


@pytest.mark.parametrize(
    "simulator", [FunctionSimulator(noisy_vector), DoubleMoonSimulator(n_points=3)]
)
def test_isolation_changes_no_result(simulator):
    prior = PRIOR if isinstance(simulator, FunctionSimulator) else DoubleMoonSimulator.prior()
    theta = prior.sample(1100, random_state=0)
    direct = run_task(make_task(simulator, theta))
    isolated = run_task(make_task(simulator, theta, isolated=True))
    np.testing.assert_array_equal(direct.X, isolated.X)
    np.testing.assert_array_equal(direct.rows, isolated.rows)


@pytest.mark.parametrize("vectorized", [False, True])
def test_an_isolated_task_outlives_simulations_that_kill(vectorized):
    def each_row(theta, rng):
        return np.array([failing_vector(row, rng, "killed") for row in theta])

    if vectorized:
        simulator = FunctionSimulator(each_row, vectorized=True)
    else:
        simulator = FunctionSimulator(failing_vector, kwargs={"failure": "killed"})
    outcome = run_task(make_task(simulator, THETA[:40], isolated=True))
    assert {f.kind for f in outcome.failures} == {"killed"}
    np.testing.assert_array_equal(outcome.rows, np.flatnonzero(THETA[:40, 1] >= FAILURE_LIMIT))


# ---- time limits


def test_an_isolated_task_has_a_time_limit():
    theta = np.array([[0.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
    simulator = FunctionSimulator(failing_vector, kwargs={"failure": "timeout"})
    outcome = run_task(make_task(simulator, theta, isolated=True, timeout=0.2))
    assert [(f.row, f.kind) for f in outcome.failures] == [(1, "timeout")]
    assert outcome.rows.tolist() == [0, 2]


def test_time_limits_hold_in_a_thread_and_let_errors_through():
    kinds = []

    def run_in_thread():
        simulator = FunctionSimulator(failing_vector, kwargs={"failure": "timeout"})
        theta = np.array([[0.0, 0.0], [0.0, 1.0]])
        outcome = run_task(make_task(simulator, theta, timeout=0.2))
        kinds.extend(f.kind for f in outcome.failures)
        with pytest.raises(ZeroDivisionError):
            call_within(1.0, lambda: 1 / 0)

    thread = threading.Thread(target=run_in_thread)
    thread.start()
    thread.join()
    assert kinds == ["timeout"]


def test_a_simulator_cannot_swallow_the_time_limit():
    def catches_exceptions(theta):
        for _ in range(2):
            with contextlib.suppress(Exception):
                time.sleep(60)
        return theta

    task = make_task(FunctionSimulator(catches_exceptions), np.zeros((1, 1)), timeout=0.1)
    assert [f.kind for f in run_task(task).failures] == ["timeout"]


# ---- missing entries


def test_missing_entries_and_absent_points():
    rows = [[1.0, 2.0], [np.nan, 2.0], [np.nan, np.nan], [1.0, np.inf]]
    theta = np.arange(4.0)[:, None]

    def failed_rows(func, **options):
        task = make_task(FunctionSimulator(func), theta, **options)
        return [f.row for f in run_task(task).failures]

    def vector(theta):
        return rows[int(theta[0])]

    def padded_set(theta):
        return [[1.0, 2.0], vector(theta)]

    assert failed_rows(vector) == [1, 2, 3]
    assert failed_rows(vector, missing="mask") == [2, 3]
    assert failed_rows(padded_set) == [1, 3]
