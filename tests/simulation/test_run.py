"""simulate: pairs do not depend on how the work is divided, and no failure loses a run."""

import multiprocessing
import os
import signal
import threading
import time
import warnings

import joblib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from simulators import (
    FAILURE_LIMIT,
    PRIOR,
    assert_same_observations,
    failing_vector,
    noisy_rows,
    noisy_vector,
    ragged_set,
    set_of_five,
    slow_vector,
)
from sklearn.preprocessing import FunctionTransformer

from skbi import DoubleMoonSimulator, FunctionSimulator, JointPrior, NPEEstimator, simulate

MOON_PRIOR = DoubleMoonSimulator.prior()
SIMULATORS = {
    "vectors": noisy_vector,
    "sets": set_of_five,
    "ragged": ragged_set,
    "vectorized": FunctionSimulator(noisy_rows, vectorized=True),
}
ignore_dependence_on_theta = pytest.mark.filterwarnings("ignore:Whether a simulation fails")


@pytest.mark.parametrize("n_points", [10, (3, 9)])
def test_simulate_does_not_depend_on_n_jobs(n_points):
    simulator = DoubleMoonSimulator(n_points=n_points)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    theta, X = simulate(MOON_PRIOR, simulator, 2500, random_state=0)
    theta2, X2 = simulate(MOON_PRIOR, simulator, 2500, n_jobs=2, random_state=0)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    np.testing.assert_array_equal(theta, theta2)
    assert len(X) == len(X2) == 2500
    assert all(np.array_equal(a, b) for a, b in zip(X, X2, strict=True))
    assert not np.array_equal(X[0], X[1000])


def test_simulate_takes_any_transformer():
    prior = JointPrior({"a": stats.norm(), "b": stats.norm()})
    theta, X = simulate(prior, FunctionTransformer(np.square), 10, random_state=0)
    np.testing.assert_array_equal(X, theta**2)


@given(batch_size=st.integers(1, 2000), n=st.integers(1, 1500))
@pytest.mark.parametrize("name", SIMULATORS)
def test_pairs_do_not_depend_on_the_batch_size(name, batch_size, n):
    theta, X = simulate(PRIOR, SIMULATORS[name], n, random_state=0)
    theta2, X2 = simulate(PRIOR, SIMULATORS[name], n, batch_size=batch_size, random_state=0)
    np.testing.assert_array_equal(theta, theta2)
    assert_same_observations(X, X2)


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
@pytest.mark.parametrize("name", SIMULATORS)
def test_pairs_do_not_depend_on_the_backend(name, backend):
    alone = simulate(PRIOR, SIMULATORS[name], 2100, random_state=0)
    with joblib.parallel_config(backend, n_jobs=2):
        shared = simulate(PRIOR, SIMULATORS[name], 2100, random_state=0)
    np.testing.assert_array_equal(alone[0], shared[0])
    assert_same_observations(alone[1], shared[1])


def test_workers_of_dask_that_are_killed_change_nothing():
    distributed = pytest.importorskip("distributed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of dask and its event loop
        with (
            distributed.LocalCluster(
                n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
            ) as cluster,
            distributed.Client(cluster) as client,
            joblib.parallel_config("dask"),
        ):
            worker = min(client.run(os.getpid).values())
            killer = threading.Timer(0.5, os.kill, (worker, signal.SIGKILL))
            killer.start()
            _, X = simulate(PRIOR, slow_vector, 800, batch_size=20, random_state=0)
            killer.join()
    np.testing.assert_array_equal(X, simulate(PRIOR, slow_vector, 800, random_state=0)[1])


def test_every_simulation_has_its_own_random_numbers():
    def uniform(theta, rng):
        return rng.random(3)

    _, X = simulate(PRIOR, uniform, 3000, random_state=0)
    assert len(np.unique(X)) == X.size
    assert abs(np.corrcoef(X[:-1, 0], X[1:, 0])[0, 1]) < 5 / np.sqrt(3000)
    assert stats.kstest(X.ravel(), "uniform").pvalue > 1e-4
    _, X2 = simulate(PRIOR, uniform, 3000, random_state=1)
    assert not np.isin(X, X2).any()


def test_a_fitted_transformer_stays_fitted():
    class Shift(FunctionTransformer):
        def fit(self, X, y=None):
            self.shift_ = 3.0
            return self

        def transform(self, X):
            return X + self.shift_

    theta, X = simulate(PRIOR, Shift().fit(None), 10, random_state=0)
    np.testing.assert_array_equal(X, theta + 3)


# ---- nuisance parameters


@pytest.mark.parametrize("nuisance", [["a"], ["b"]])
def test_nuisance_parameters_are_drawn_but_left_out(nuisance):
    theta, X = simulate(PRIOR, noisy_vector, 50, random_state=0)
    theta2, X2 = simulate(PRIOR, noisy_vector, 50, nuisance=nuisance, random_state=0)
    np.testing.assert_array_equal(X, X2)
    kept = [name not in nuisance for name in PRIOR.names]
    np.testing.assert_array_equal(theta[:, kept], theta2)
    npe = NPEEstimator(prior=PRIOR.without(*nuisance), max_iter=1, random_state=0).fit(theta2, X2)
    assert npe.sample_posterior(X2[0], 5).shape == (5, 1)


def test_marginalising_over_nuisance_gives_the_marginal_likelihood():
    """If x = mu + eta and eta ~ N(0, 1) is a nuisance parameter, x - mu follows N(0, 1)."""
    prior = JointPrior({"mu": stats.uniform(0, 9), "eta": stats.norm()})
    theta, X = simulate(prior, np.sum, 4000, nuisance=["eta"], random_state=0)
    assert stats.kstest((X - theta)[:, 0], "norm").pvalue > 1e-3


@pytest.mark.parametrize("nuisance", ["a", ["c"], ["a", "b"]])
def test_nuisance_must_be_a_list_of_some_parameters(nuisance):
    with pytest.raises(ValueError, match="nuisance must be a list of some"):
        simulate(PRIOR, noisy_vector, 5, nuisance=nuisance)


# ---- failures


@ignore_dependence_on_theta
@pytest.mark.parametrize("failure", ["exception", "exit", "nan", "infinite", "shape", "killed"])
def test_failures_are_dropped_and_reported(failure):
    theta, X = simulate(PRIOR, noisy_vector, 120, random_state=0)
    succeeds = theta[:, 1] >= FAILURE_LIMIT
    simulator = FunctionSimulator(failing_vector, kwargs={"failure": failure})
    options = {"on_error": "drop", "return_report": True, "random_state": 0}
    theta2, X2, report = simulate(PRIOR, simulator, 120, n_jobs=2, **options)
    np.testing.assert_array_equal(theta[succeeds], theta2)
    np.testing.assert_array_equal(X[succeeds], X2)
    np.testing.assert_array_equal(report.rows, np.flatnonzero(~succeeds))
    np.testing.assert_array_equal(report.theta, theta[~succeeds])
    kind = "exception" if failure == "exit" else failure
    assert set(report.kinds) == {kind}
    assert report.share == np.mean(~succeeds)
    text = f"{kind}: {sum(~succeeds)}, first at a = {theta[~succeeds][0, 0]:.6g}"
    assert text in str(report)


@ignore_dependence_on_theta
@pytest.mark.parametrize(("failure", "n_jobs"), [("timeout", 1), ("timeout", 2), ("hang", 2)])
def test_time_limits(failure, n_jobs):
    theta, X = simulate(PRIOR, noisy_vector, 30, random_state=1)
    succeeds = theta[:, 1] >= FAILURE_LIMIT
    simulator = FunctionSimulator(failing_vector, kwargs={"failure": failure})
    options = {"on_error": "drop", "return_report": True, "random_state": 1, "timeout": 0.2}
    _, X2, report = simulate(PRIOR, simulator, 30, n_jobs=n_jobs, **options)
    np.testing.assert_array_equal(X[succeeds], X2)
    assert set(report.kinds) == {"timeout"}


@pytest.mark.parametrize(("failure", "n_jobs"), [("exception", 2), ("exception", 1), ("nan", 1)])
def test_by_default_a_failure_stops_the_run_and_shows_theta(failure, n_jobs):
    theta = PRIOR.sample(200, random_state=0)
    simulator = FunctionSimulator(failing_vector, kwargs={"failure": failure})
    message = "KeyError: 'nothing'" if failure == "exception" else "1 of 2 numbers are NaN"
    with pytest.raises(RuntimeError, match=message) as error:
        simulate(PRIOR, simulator, 200, n_jobs=n_jobs, random_state=0)
    failed = theta[theta[:, 1] < FAILURE_LIMIT]
    assert any(str(row.tolist()) in str(error.value) for row in failed)


@pytest.mark.parametrize("n", [5, 1000])
def test_a_run_stops_if_its_first_100_simulations_fail(n):
    calls = []

    def always_failing(theta):
        calls.append(theta)
        return 1 / 0

    with pytest.raises(RuntimeError, match="None succeeded") as error:
        simulate(PRIOR, always_failing, n, on_error="drop")
    assert "ZeroDivisionError" in str(error.value)
    assert len(calls) == min(n, 100)


def test_a_first_failure_does_not_set_the_shape():
    theta = PRIOR.sample(30, random_state=0)

    def fails_first(row):
        return np.full(9, np.nan) if row[0] == theta[0, 0] else np.zeros(2)

    with pytest.warns(UserWarning, match="1 of 30 simulations failed"):
        _, X = simulate(PRIOR, fails_first, 30, on_error="drop", random_state=0)
    assert X.shape == (29, 2)


def test_warnings_point_at_the_call_of_simulate():
    def fails_at_random(theta, rng):
        return np.nan if rng.random() < 0.2 else 1.0

    fails_for_small_b = FunctionSimulator(failing_vector, kwargs={"failure": "nan"})
    for simulator in (fails_for_small_b, fails_at_random):
        with pytest.warns(UserWarning, match="of 500 simulations failed") as caught:
            simulate(PRIOR, simulator, 500, on_error="drop", random_state=0)
        assert [warning.filename for warning in caught] == [__file__]


# ---- runs that are killed


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_run_that_is_killed_at_random_moments_is_resumed(tmp_path, monkeypatch):
    """`examples/benchmarks/killed_runs.py` does the same to separate programs, with n_jobs=2."""
    monkeypatch.setattr("skbi.simulation.store._SECONDS_BETWEEN_WRITES", 0.02)
    fork, arguments = multiprocessing.get_context("fork"), (PRIOR, slow_vector, 500)
    options = {"random_state": 0, "store": tmp_path}
    n_chunks = [0]
    for seconds in np.random.default_rng(0).uniform(0, 0.05, 5):
        process = fork.Process(target=simulate, args=arguments, kwargs=options)
        process.start()
        while process.is_alive() and len(list(tmp_path.glob("chunks/*.npz"))) <= n_chunks[-1]:
            time.sleep(0.002)
        process.join(seconds)
        process.kill()
        process.join()
        n_chunks.append(len(list(tmp_path.glob("chunks/*.npz"))))
    assert (np.diff(n_chunks) > 0).all()  # each run kept the chunks of those before
    resumed, unbroken = simulate(*arguments, **options), simulate(*arguments, random_state=0)
    np.testing.assert_array_equal(resumed[0], unbroken[0])
    np.testing.assert_array_equal(resumed[1], unbroken[1])


# ---- options


def test_a_progress_bar_shows_the_rate_only_if_asked(capfd):
    simulate(PRIOR, noisy_vector, 20, random_state=0)
    assert capfd.readouterr() == ("", "")
    simulate(PRIOR, noisy_vector, 20, random_state=0, verbose=1)
    out, err = capfd.readouterr()
    assert (out, "20/20" in err, "simulation/s" in err) == ("", True, True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_samples", 0),
        ("n_samples", 2.5),
        ("batch_size", 0),
        ("batch_size", "big"),
        ("on_error", "ignore"),
        ("missing", "drop"),
        ("timeout", 0),
        ("timeout", "1 s"),
    ],
)
def test_options_are_checked(name, value):
    with pytest.raises(ValueError, match=name):
        simulate(PRIOR, noisy_vector, **{"n_samples": 5} | {name: value})


def test_simulate_refuses_what_cannot_simulate():
    with pytest.raises(TypeError, match="function of one row of theta"):
        simulate(PRIOR, 3, 10)
