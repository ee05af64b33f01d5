"""Nested sampling against closed forms: evidence, moments, checkpoints; and its pool of threads."""

import math
import warnings

import numpy as np
import pytest
from likelihoods import CoinAndShift, LinearGaussian, flat
from scipy import stats

from skbi import JointPrior
from skbi.samplers.nested import Batched, BatchPool, nested


@pytest.mark.parametrize("queue_size", [None, 1], ids=["batched", "one by one"])
@pytest.mark.parametrize("sample", ["unif", "rwalk", "slice"])
def test_the_evidence_is_unbiased_and_the_draws_follow_the_posterior(sample, queue_size):
    model, n_runs = LinearGaussian(), 3
    errors, means = [], []
    for seed in range(n_runs):
        rng, options = np.random.default_rng(seed), {"nlive": 50, "sample": sample}
        draws, info = nested(model, model.prior, 100, rng, queue_size=queue_size, **options)
        errors.append((info.log_evidence - model.log_evidence) / info.log_evidence_error)
        means.append((draws.mean(axis=0) - model.mean) / np.sqrt(np.diag(model.covariance)))
    assert abs(np.mean(errors)) < 3 / math.sqrt(n_runs)
    # 100 draws of about 150 effective ones, three times: a standard error of about 0.08
    assert np.abs(np.mean(means, axis=0)).max() < 0.35


def test_discrete_parameters_beside_continuous_ones():
    model = CoinAndShift()
    draws, info = nested(model, model.prior, 400, np.random.default_rng(0), nlive=200)
    model.assert_follows_posterior(draws[:, 0])
    assert abs(info.log_evidence - model.log_evidence) < 4 * info.log_evidence_error


def test_discrete_parameters_alone_are_refused():
    with pytest.raises(ValueError, match="enumerate"):
        nested(flat, JointPrior({"k": stats.bernoulli(0.5)}), 1, np.random.default_rng(0))


def test_dynesty_options_pass_through_and_its_results_come_back():
    model, rng = LinearGaussian(), np.random.default_rng(0)
    options = {"nlive": 40, "bound": "single", "dlogz": 1.0, "maxiter": 300}
    _, info = nested(model, model.prior, 10, rng, **options)
    assert info.results.nlive == 40
    assert info.results.niter <= 300
    _, info = nested(model, model.prior, 10, rng, nlive=40, dynamic=True, maxbatch=0)
    assert abs(info.log_evidence - model.log_evidence) < 4 * info.log_evidence_error
    with pytest.raises(TypeError, match="no_such_option"):
        nested(model, model.prior, 10, rng, no_such_option=1)


def test_too_few_live_points_for_the_draws_are_reported():
    model = LinearGaussian()
    _, info = nested(model, model.prior, 5000, np.random.default_rng(0), nlive=40)
    (message,) = info.warnings
    assert "Raise nlive" in message
    _, info = nested(model, model.prior, 10, np.random.default_rng(0), nlive=40)
    assert info.warnings == ()


def test_a_run_resumes_from_its_checkpoint(tmp_path):
    model, path = LinearGaussian(), tmp_path / "run.save"
    options = {"nlive": 60, "checkpoint_file": path, "checkpoint_every": 0}
    rng = np.random.default_rng(0)
    with pytest.warns(UserWarning, match="stopped short"):
        _, part = nested(model, model.prior, 1, rng, maxiter=60, add_live=False, **options)
    _, whole = nested(model, model.prior, 10, rng, resume=True, **options)
    assert whole.n_calls > part.n_calls
    np.testing.assert_array_equal(whole.results.logl[:50], part.results.logl[:50])
    assert abs(whole.log_evidence - model.log_evidence) < 4 * whole.log_evidence_error
    _, again = nested(model, model.prior, 10, rng, resume=True, **options)
    assert again.log_evidence == whole.log_evidence
    with pytest.raises(ValueError, match="belongs to another"):
        nested(LinearGaussian(seed=1), model.prior, 10, rng, resume=True, **options)


def test_nested_sampling_is_quiet_and_repeats(capsys):
    model = LinearGaussian()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one, two = (
            nested(model, model.prior, 50, np.random.default_rng(1), nlive=60)[0] for _ in range(2)
        )
    np.testing.assert_array_equal(one, two)
    assert capsys.readouterr() == ("", "")


# ---- the pool


@pytest.mark.parametrize("size", [1, 3, 20])
def test_the_pool_maps_as_map_does_and_batches_the_calls(size):
    batches = []

    def square(rows):
        batches.append(len(rows))
        return (rows**2).sum(axis=1)

    function = Batched(square)

    def task(n):
        return sum(function(np.full(2, float(i))) for i in range(n))

    items = [4, 0, 7, 1, 2]
    together = max(sum(n > 0 for n in items[i : i + size]) for i in range(0, len(items), size))
    with BatchPool(size) as pool:
        found = pool.map(task, items)
    assert max(batches) == together
    assert found == [task(n) for n in items]


def test_tasks_that_call_different_functions_get_their_own_answers():
    double, negative = Batched(lambda rows: 2 * rows[:, 0]), Batched(lambda rows: -rows[:, 0])

    def task(i):
        return (double if i % 2 else negative)(np.array([float(i)]))

    with BatchPool(4) as pool:
        assert pool.map(task, range(4)) == [0, 2, -2, 6]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_errors_inside_the_pool_reach_the_caller_and_end_every_task(error):
    def fail(rows):
        raise error("inside")

    function, done = Batched(fail), []

    def task(i):
        try:
            return function(np.zeros(1))
        finally:
            done.append(i)

    with BatchPool(3) as pool, pytest.raises(error, match="inside"):
        pool.map(task, range(3))
    assert sorted(done) == [0, 1, 2]
