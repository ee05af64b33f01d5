"""Reports on failed simulations, and the warnings that they call for."""

import numpy as np
import pytest
from scipy import stats
from simulators import PRIOR, failing_vector

from skbi import FunctionSimulator, JointPrior, simulate
from skbi.simulation import SimulationReport
from skbi.simulation.tasks import Failure

THETA = PRIOR.sample(400, random_state=0)


def report_of(rows):
    """Return the report of a run in which these simulations failed."""
    failures = [Failure(int(row), "nan", "some numbers are NaN") for row in rows]
    return SimulationReport.of(failures, THETA, PRIOR.names)


def test_a_report_lists_failures_by_row_with_the_first_message_of_each_kind():
    failures = [Failure(7, "nan", "late"), Failure(2, "nan", "early"), Failure(5, "shape", "(3,)")]
    report = SimulationReport.of(failures, THETA, PRIOR.names)
    assert report.rows.tolist() == [2, 5, 7]
    assert report.kinds.tolist() == ["nan", "shape", "nan"]
    assert report.first == {"nan": "early", "shape": "(3,)"}
    np.testing.assert_array_equal(report.theta, THETA[[2, 5, 7]])
    assert str(report).splitlines()[0] == "3 of 400 simulations failed (0.75%)"


def test_p_values_compare_each_parameter_between_failed_and_successful_simulations():
    failed = THETA[:, 1] < 0.3
    report = report_of(np.flatnonzero(failed))
    for theta_j, p_value in zip(THETA.T, report.p_values, strict=True):
        expected = stats.ks_2samp(theta_j[failed], theta_j[~failed], method="asymp").pvalue
        assert p_value == expected
    assert report.depends_on == ["b"]


@pytest.mark.parametrize("rows", [[], range(len(THETA))])
def test_without_two_groups_failure_depends_on_nothing(rows):
    report = report_of(rows)
    assert report.p_values.tolist() == [1.0, 1.0]
    assert report.depends_on == []
    assert report.share == len(rows) / len(THETA)


def test_which_failures_call_for_a_warning():
    none, at_random = report_of([]), report_of([0, 1])
    dependent = report_of(np.flatnonzero(THETA[:, 1] < 0.3))
    for is_returned in (False, True):
        assert none.warning(is_returned=is_returned) is None
        assert "depends on b" in dependent.warning(is_returned=is_returned)
    assert at_random.warning(is_returned=False) == str(at_random)
    assert at_random.warning(is_returned=True) is None


def test_what_the_warning_says_npe_and_nle_learn_is_what_the_pairs_hold():
    """M ~ U(-2, 2), x = m + N(0, 1), and a simulation fails if x < 0, as data then do, too."""
    prior = JointPrior({"m": stats.uniform(-2, 4)})
    simulator = FunctionSimulator(censored, vectorized=True)
    with pytest.warns(UserWarning, match="conditional on success") as caught:
        m, X = simulate(prior, simulator, 200_000, on_error="drop", random_state=0)
    message = str(caught[0].message)
    assert "NPE learns the right posterior" in message
    assert "that of NLE lacks a factor P(success | theta)" in message
    m, x = m[:, 0], X[:, 0]
    grid = np.linspace(-2, 2, 4001)
    exact = np.average(grid, weights=stats.norm.pdf(0.3, grid))  # 0.231
    near = m[np.abs(x - 0.3) < 0.05]
    assert abs(near.mean() - exact) < 5 * near.std() / np.sqrt(len(near))
    below_half = (x < 0.5)[np.abs(m + 1) < 0.02]  # at m = -1: a ninth without the condition
    without = stats.norm.cdf(0.5, -1) - stats.norm.cdf(0, -1)
    expected = without / stats.norm.sf(0, -1)
    assert abs(below_half.mean() - expected) < 5 * below_half.std() / np.sqrt(len(below_half))


def censored(theta, rng):
    x = theta + rng.normal(size=theta.shape)
    return np.where(x < 0, np.nan, x)


def test_a_warning_says_when_failures_depend_on_theta():
    options = {"on_error": "drop", "random_state": 0, "return_report": True}
    simulator = FunctionSimulator(failing_vector, kwargs={"failure": "nan"})
    with pytest.warns(UserWarning, match="depends on theta(.|\n)*depends on b"):
        _, _, report = simulate(PRIOR, simulator, 500, **options)
    assert report.depends_on == ["b"]

    def fails_at_random(theta, rng):
        return np.nan if rng.random() < 0.2 else 1.0

    _, _, report = simulate(PRIOR, fails_at_random, 500, **options)
    assert report.depends_on == []
    assert 0.1 < report.share < 0.3
    with pytest.warns(UserWarning, match="^[0-9]+ of 500 simulations failed"):
        simulate(PRIOR, fails_at_random, 500, on_error="drop", random_state=0)
