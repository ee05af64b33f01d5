"""Seeding: random numbers follow from a call's own seed, wherever they are drawn from."""

import functools
import math
import os
import random

import joblib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from simulators import PRIOR, make_task
from sklearn.preprocessing import FunctionTransformer

from skbi import DoubleMoonSimulator, FunctionSimulator, simulate
from skbi.randomness import are_same_states, global_states, seed_words
from skbi.simulation.seeding import call_each, names_of_own_generators
from skbi.simulation.tasks import run_task

LIMIT = 0.02  # `deadly` kills its process if b is less


def python(theta):
    return [random.random(), random.gauss(0, 1)]


def numpy(theta):
    return np.random.normal(size=2)  # noqa: NPY002


def in_torch(theta):
    return torch.randn(2, dtype=torch.float64).numpy()


def everywhere(theta, rng):
    return np.concatenate([python(theta), numpy(theta), in_torch(theta), rng.normal(size=2)])


def seldom(theta):
    """Draw only at a few theta, so that most simulations do not move the global generators."""
    return numpy(theta) if theta[1] < 0.1 else theta


def rows(theta):
    return theta + np.random.normal(size=theta.shape)  # noqa: NPY002


def deadly(theta):
    return os.kill(os.getpid(), 9) if theta[1] < LIMIT else everywhere(theta, np.random)


SIMULATORS = [python, numpy, in_torch, everywhere, seldom, FunctionSimulator(rows, vectorized=True)]


@pytest.mark.parametrize(
    ("simulator", "backend"),
    [*((simulator, "loky") for simulator in SIMULATORS), (everywhere, "multiprocessing")],
)
def test_global_generators_repeat_for_any_number_of_jobs(simulator, backend):
    before = global_states()
    _, X = simulate(PRIOR, simulator, 1200, random_state=0)
    assert are_same_states(before, global_states())
    random.seed(5), np.random.seed(5), torch.manual_seed(5)  # noqa: NPY002
    with joblib.parallel_config(backend, n_jobs=2):
        np.testing.assert_array_equal(X, simulate(PRIOR, simulator, 1200, random_state=0)[1])
    np.testing.assert_array_equal(
        X, simulate(PRIOR, simulator, 1200, batch_size=7, random_state=0)[1]
    )
    assert not np.isin(X, simulate(PRIOR, simulator, 1200, random_state=1)[1]).any()


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_transform_repeats_as_well(simulator):
    if not isinstance(simulator, FunctionSimulator):
        simulator = FunctionSimulator(simulator)
    simulator.set_params(random_state=3)
    theta, before = PRIOR.sample(50, random_state=0), global_states()
    X = simulator.transform(theta)
    assert are_same_states(before, global_states())
    np.random.seed(5)  # noqa: NPY002
    np.testing.assert_array_equal(X, simulator.transform(theta))


@pytest.mark.filterwarnings("ignore:Whether a simulation fails")
def test_no_noise_repeats_after_simulations_that_kill():
    theta, X = simulate(PRIOR, everywhere, 600, random_state=0)
    _, X2 = simulate(PRIOR, deadly, 600, n_jobs=2, on_error="drop", random_state=0)
    np.testing.assert_array_equal(X[theta[:, 1] >= LIMIT, :6], X2[:, :6])
    assert len(np.unique(X2)) == X2.size


def test_the_generators_do_not_share_their_numbers():
    """Python and numpy have the same generator, which the same seed would start alike."""
    _, X = simulate(PRIOR, everywhere, 2000, random_state=0)
    assert len(np.unique(X)) == X.size
    ranks = stats.rankdata(X, axis=0)
    off_diagonal = np.corrcoef(ranks.T)[~np.eye(X.shape[1], dtype=bool)]
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(2000)
    assert np.abs(np.corrcoef(ranks[:-1].T, ranks[1:].T)[:8, 8:]).max() < 5 / np.sqrt(2000)
    for normal in X[:, 1:].T:
        assert stats.kstest(normal, "norm").pvalue > 1e-4


@given(n=st.integers(1, 30), draws=st.sets(st.integers(0, 29)), only_once=st.booleans())
def test_calls_are_those_of_the_slow_way(n, draws, only_once):
    """Against a seed for every call, whichever calls draw from the global generators."""
    words = seed_words(np.random.SeedSequence(0), n)

    def draw(i, rng):
        return i, rng.random(), np.random.random() if i in draws else 0  # noqa: NPY002

    expected = [next(call_each(lambda _, rng, i=i: draw(i, rng), words[i : i + 1], True))
                for i in range(n)]  # fmt: skip
    assert list(call_each(draw, words, True, only_once=only_once)) == expected


@pytest.mark.parametrize("only_once", [False, True])
def test_simulations_that_draw_are_made_once(only_once):
    calls = []

    def draw(i, rng):
        calls.append(i)
        return np.random.random()  # noqa: NPY002

    list(call_each(draw, seed_words(np.random.SeedSequence(0), 20), False, only_once=only_once))
    assert calls == list(range(20))


def test_a_simulator_may_spawn_and_simulate_itself():
    def nested(theta, rng):
        inner = simulate(PRIOR, numpy, 3, random_state=int(rng.integers(2**31)))[1]
        return [*inner.ravel(), *(child.normal() for child in rng.spawn(2)), *numpy(theta)]

    task = make_task(FunctionSimulator(nested), PRIOR.sample(20, random_state=0))
    X = run_task(task).X
    np.testing.assert_array_equal(X, run_task(task).X)
    assert len(np.unique(X)) == X.size


# ---- generators of the simulator's own

GENERATOR = np.random.default_rng(0)


def from_a_default(theta, noise=np.random.RandomState(0)):  # noqa: B008
    return noise.normal(size=2)


def from_a_keyword(theta, *, noise=random.Random(0)):  # noqa: B008
    return noise.random()


def from_around(theta):
    return GENERATOR.normal(size=2)


def closure():
    noise = np.random.default_rng(0)
    return lambda theta: noise.normal(size=2)


class Model:
    """Holds a generator, besides its random_state."""

    def __init__(self):
        self.noise, self.random_state = np.random.default_rng(0), np.random.default_rng(1)

    def simulate(self, theta):
        return self.noise.normal(size=2)

    __call__ = transform = simulate


def bound(theta, noise):
    return noise.normal(size=2)


HOLDERS = {
    "default": (from_a_default, "noise"),
    "keyword": (from_a_keyword, "noise"),
    "around": (from_around, "GENERATOR"),
    "closure": (closure(), "noise"),
    "method": (Model().simulate, "noise"),
    "object": (Model(), "noise"),
    "partial": (functools.partial(bound, noise=GENERATOR), "noise"),
    "kwargs": (FunctionSimulator(bound, kwargs={"noise": GENERATOR}), "noise"),
    "transformer": (FunctionTransformer(closure()), "noise"),
    "calls another": (lambda theta: from_around(theta), "GENERATOR"),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_a_generator_that_a_simulator_holds_is_found(name):
    simulator, expected = HOLDERS[name]
    assert names_of_own_generators(simulator) == [expected]


def test_what_draws_from_rng_or_global_generators_holds_none():
    for simulator in (
        *SIMULATORS,
        deadly,
        np.square,
        math.prod,
        DoubleMoonSimulator(random_state=GENERATOR),
    ):
        assert names_of_own_generators(simulator) == []


def test_copies_of_a_generator_are_warned_of():
    """Only where there are copies: in one process the noise of a generator does not repeat."""
    options = {"batch_size": 10, "random_state": 0}
    _, X = simulate(PRIOR, closure(), 100, **options)
    assert len(np.unique(X)) == X.size
    with joblib.parallel_config("threading", n_jobs=2):
        _, X = simulate(PRIOR, closure(), 100, **options)
    assert len(np.unique(X)) == X.size
    with pytest.warns(UserWarning, match="generator of its own, noise.*argument rng") as caught:
        _, X = simulate(PRIOR, closure(), 100, n_jobs=2, **options)
    assert len(np.unique(X)) < X.size / 2
    assert [warning.filename for warning in caught] == [__file__]
