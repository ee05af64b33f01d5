"""Parallel work: how many threads torch has, that every piece is done once, and progress."""

import io
import sys
from functools import partial
from threading import Barrier, Thread

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from joblib import Parallel, delayed
from known_posterior import Gaussian
from likelihoods import LinearGaussian
from scipy import stats
from sklearn.base import clone
from threadpoolctl import threadpool_info, threadpool_limits
from torch.nn.modules.module import register_module_forward_pre_hook

import skbi.parallel
from skbi import (
    CMPEEstimator,
    FMPEEstimator,
    JointPrior,
    NLEEstimator,
    NPEEstimator,
    NREEstimator,
    coverage_score,
    sequential,
)
from skbi.parallel import (
    blocks,
    each_in_one_thread,
    one_blas_thread,
    one_thread,
    progress_options,
)
from skbi.preprocessing.compression import Compression
from skbi.samplers.nested import nested
from skbi.samplers.nuts import nuts
from skbi.samplers.smc import smc


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_one_thread_holds_for_each_user_and_is_undone_at_the_end(three_threads):
    inside, barrier = [], Barrier(2)

    def work():
        barrier.wait()
        with one_thread():
            barrier.wait()  # both threads are inside
            with one_thread():  # again, inside itself
                pass
            inside.append(torch.get_num_threads())
            barrier.wait()

    other = Thread(target=work)
    other.start()
    work()
    other.join()
    with pytest.raises(ValueError, match="inside"), one_thread():
        raise ValueError("inside")
    assert torch.get_num_threads() == 3
    assert inside == [1, 1]


def blas_threads():
    return {
        library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"
    }


@pytest.fixture
def three_blas_threads():
    limits = threadpool_limits(3, user_api="blas")
    yield
    limits.restore_original_limits()


def test_blas_has_one_thread_for_each_user_and_its_own_at_the_end(three_blas_threads):
    inside, barrier = [], Barrier(2)

    def work():
        barrier.wait()
        with one_blas_thread():
            barrier.wait()  # both threads are inside
            with one_blas_thread():  # again, inside itself
                pass
            inside.append(blas_threads())
            barrier.wait()

    other = Thread(target=work)
    other.start()
    work()
    other.join()
    with pytest.raises(ValueError, match="inside"), one_blas_thread():
        raise ValueError("inside")
    assert blas_threads() == {3}
    assert inside == [{1}, {1}]


def test_a_fit_keeps_blas_to_one_thread(monkeypatch, three_blas_threads):
    found, fit = [], Compression.fit
    monkeypatch.setattr(
        Compression, "fit", lambda *args: found.append(blas_threads()) or fit(*args)
    )
    theta = np.random.default_rng(0).normal(size=(100, 1))
    X = theta + np.random.default_rng(1).normal(size=(100, 20))
    NPEEstimator(max_iter=1, n_estimators=1, random_state=0).fit(theta, X)
    assert found == [{1}]


@pytest.mark.parametrize("n_tasks", [1, 2, 7])
def test_each_task_runs_once_and_in_one_thread(three_threads, n_tasks):
    n_threads = [[] for _ in range(n_tasks)]

    def task(i):
        n_threads[i].append(torch.get_num_threads())

    each_in_one_thread(task, [(i,) for i in range(n_tasks)])
    assert n_threads == [[1]] * n_tasks
    assert torch.get_num_threads() == 3


def draws(estimator, **options):
    return estimator.sample_posterior(X[:1], 20, random_state=0, **options)


AMORTISED = {
    "fit": lambda e: clone(e).fit(THETA, X),
    "score": lambda e: e.score(THETA, X),
    "sample_posterior": draws,
    "coverage_score": lambda e: coverage_score(e, THETA[:3], X[:3], n_samples=20, random_state=0),
}
DENSITY = AMORTISED | {"log_prob": lambda e: e.log_prob(THETA, X)}
SAMPLED = DENSITY | {
    "nuts": partial(draws, sampler="nuts"),
    "log_posterior": lambda e: e.log_posterior(THETA, X[:1]),
}
METHODS = {
    NPEEstimator: DENSITY,
    NLEEstimator: SAMPLED
    | {
        "sample_likelihood": lambda e: e.sample_likelihood(THETA, 2, random_state=0),
        "log_evidence": lambda e: e.log_evidence(X[:1], random_state=0),
    },
    NREEstimator: SAMPLED | {"normalization": lambda e: e.normalization(X[:1], random_state=0)},
    FMPEEstimator: DENSITY,
    CMPEEstimator: AMORTISED,
}


@pytest.mark.filterwarnings("ignore")  # the fits are as short as can be
@pytest.mark.parametrize("kind", METHODS)
def test_every_network_of_every_method_runs_in_one_thread(monkeypatch, kind, three_threads):
    found = []

    def watch(function):
        def call(*args, **kwargs):
            found.append(torch.get_num_threads())
            return function(*args, **kwargs)

        return call

    for name in ("addcmul", "bmm"):  # draws call no module
        monkeypatch.setattr(torch, name, watch(getattr(torch, name)))
    small = {"n_estimators": 1, "max_iter": 2, "random_state": 0, "prior": PRIOR}
    estimator = kind(**small).fit(THETA, X)
    hook = register_module_forward_pre_hook(lambda *_: found.append(torch.get_num_threads()))
    with hook:
        for name, method in METHODS[kind].items():
            found.clear()
            method(estimator)
            assert set(found) == {1}, name


@given(n=st.integers(0, 50), size=st.integers(1, 20))
def test_blocks_cover_every_row_once_and_in_order(n, size):
    parts = [range(n)[rows] for rows in blocks(n, size)]
    assert [row for part in parts for row in part] == list(range(n))
    assert all(1 <= len(part) <= size for part in parts)


# ---- progress

PRIOR = JointPrior({"a": stats.norm()})
THETA = PRIOR.sample(100, random_state=0)
X = THETA + np.random.default_rng(0).normal(size=(100, 1))
QUICK = {"n_estimators": 1, "n_transforms": 1, "max_iter": 2, "random_state": 0}


class Terminal(io.StringIO):
    """Keeps what is written to it."""

    def isatty(self):
        return True


def sample(sampler, verbose, **options):
    model = LinearGaussian()
    sampler(model, model.prior, 9, np.random.default_rng(0), verbose=verbose, **options)


def score(verbose):
    coverage_score(Gaussian(), THETA, X, n_samples=9, verbose=verbose)


def in_rounds(verbose):
    nle = NLEEstimator(verbose=0, **QUICK)
    sequential(PRIOR, lambda theta: theta, X[0], nle, rounds=1, n_samples=99, verbose=verbose)


WORK = {
    "fit": lambda verbose: NLEEstimator(verbose=verbose, **QUICK).fit(THETA, X),
    "smc": partial(sample, smc, n_particles=64),
    "nuts": partial(sample, nuts, n_chains=1, n_warmup=10),
    "nested": partial(sample, nested, nlive=20, dlogz=5),
    "score": score,
    "rounds": in_rounds,
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("work", WORK)
def test_progress_is_shown_on_a_terminal_once_it_takes_long(work, monkeypatch):
    def shown(stream, verbose, seconds):
        monkeypatch.setattr(skbi.parallel, "_SECONDS_UNTIL_PROGRESS", seconds)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", stream)
            WORK[work](verbose=verbose)
        return bool(stream.getvalue().strip())

    assert shown(Terminal(), "auto", 0.0)
    assert not shown(Terminal(), "auto", 1e6)
    assert not shown(io.StringIO(), "auto", 0.0)
    assert not shown(Terminal(), 0, 0.0)
    assert shown(io.StringIO(), 1, 1e6)


def test_workers_show_no_progress_by_themselves(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert not progress_options("auto")["disable"]
    assert progress_options("auto")["delay"] == 5
    assert Parallel(2)(delayed(_is_shown_on_a_terminal)() for _ in range(2)) == 2 * [False]
    monkeypatch.setattr(sys, "stderr", None)  # as without a console
    assert progress_options("auto")["disable"]
    with pytest.raises(ValueError, match=r"verbose must be 'auto', 0 or 1; got 'loud'"):
        progress_options("loud")


def _is_shown_on_a_terminal():
    sys.stderr = Terminal()
    return not progress_options("auto")["disable"]
