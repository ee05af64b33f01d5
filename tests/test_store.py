"""Outcomes kept in a folder are those kept in memory, and nothing else is taken for them."""

import functools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulators import PRIOR, assert_equal, fragile, ragged_set, same_set, vector
from test_tasks import task

from skbi import DoubleMoonSimulator, FunctionSimulator, simulate
from skbi._store import Memory, Store, describe
from skbi._tasks import run

OPTIONS = {"on_error": "drop", "random_state": 0, "return_report": True}
FAILING = {
    "vectors": FunctionSimulator(fragile, kwargs={"failure": "nan"}),
    "sets": FunctionSimulator(lambda t, rng: same_set(t, rng) * (np.nan if t[1] < 0.1 else 1)),
    "ragged": FunctionSimulator(lambda t, rng: ragged_set(t, rng) * (np.nan if t[1] < 0.1 else 1)),
}


@pytest.mark.filterwarnings("ignore:Whether a simulation fails")
@pytest.mark.parametrize("on_error", ["drop", "nan"])
@pytest.mark.parametrize("kind", FAILING)
def test_a_store_gives_what_memory_gives(kind, on_error, tmp_path):
    options = OPTIONS | {"on_error": on_error}
    theta, X, report = simulate(PRIOR, FAILING[kind], 300, **options)
    for _ in range(2):  # simulated, then opened
        theta2, X2, report2 = simulate(PRIOR, FAILING[kind], 300, store=tmp_path, **options)
        assert_equal(X, X2)
        np.testing.assert_array_equal(theta, theta2)
        assert str(report) == str(report2)
        assert isinstance(theta2, np.memmap)
        assert isinstance(X2[0], np.memmap)
    assert {path.suffix for path in tmp_path.iterdir()} == {".npy", ".json"}


def test_failed_rows_are_nan_or_empty():
    options = OPTIONS | {"on_error": "nan"}
    with pytest.warns(UserWarning, match="depends on theta"):
        results = {kind: simulate(PRIOR, f, 300, **options) for kind, f in FAILING.items()}
    for theta, X, report in results.values():
        assert len(theta) == len(X) == 300
        assert len(report.rows) > 0
        assert all(np.isnan(X[row]).all() for row in report.rows)
    assert results["sets"][1].shape == (300, 5, 2)
    _, X, report = results["ragged"]
    assert {X[row].shape for row in report.rows} == {(0, 2)}


@given(order=st.permutations(range(5)), kind=st.sampled_from([vector, same_set, ragged_set]))
def test_the_order_of_arrival_does_not_matter(order, kind):
    whole = task(FunctionSimulator(kind)).part(0, 500)
    outcomes = [run(whole.part(100 * i, 100 * i + 100)) for i in range(5)]
    in_order, as_come = Memory(500), Memory(500)
    for i, j in enumerate(order):
        in_order.add(outcomes[i])
        as_come.add(outcomes[j])
    theta = np.arange(500.0)[:, None]
    assert_equal(in_order.finish(theta, "raise")[1], as_come.finish(theta, "raise")[1])


class Stopped(Exception):
    """The run was killed here."""


def stop_after(monkeypatch, n_flushes):
    """Write every outcome at once, and stop the program after some."""
    flush = Store.flush

    def counted(self):
        flush(self)
        counted.left -= 1
        if counted.left == 0:
            raise Stopped

    counted.left = n_flushes
    monkeypatch.setattr("skbi._store._SECONDS", 0.0)
    monkeypatch.setattr(Store, "flush", counted)


@pytest.mark.parametrize("simulator", [vector, ragged_set, DoubleMoonSimulator(n_points=3)])
def test_a_stopped_run_goes_on(simulator, tmp_path, monkeypatch):
    prior = DoubleMoonSimulator.prior() if hasattr(simulator, "transform") else PRIOR
    n = 3500 if hasattr(simulator, "transform") else 100
    options = {"batch_size": 7, "random_state": 0}
    theta, X = simulate(prior, simulator, n, **options)
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Stopped):
            simulate(prior, simulator, n, store=tmp_path, **options)
    names = {path.name for path in (tmp_path / "chunks").iterdir()}
    assert len(names) == 3
    theta2, X2 = simulate(prior, simulator, n, store=tmp_path, **options)
    assert_equal(X, X2)
    np.testing.assert_array_equal(theta, theta2)


def test_a_store_keeps_its_own_seed(tmp_path):
    first = simulate(PRIOR, vector, 20, store=tmp_path)[1]
    np.testing.assert_array_equal(first, simulate(PRIOR, vector, 20, store=tmp_path)[1])
    other = simulate(PRIOR, vector, 20, store=tmp_path / "other")[1]
    assert (first != other).all()


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("prior", {"prior": DoubleMoonSimulator.prior()}),
        ("random_state", {"random_state": 1}),
        ("simulator", {"simulator": lambda theta, rng: theta[0] + rng.normal(size=3)}),
        ("n_samples", {"n_samples": 21}),
        ("nuisance", {"nuisance": ["a"]}),
        ("missing", {"missing": "mask"}),
    ],
)
def test_a_store_of_something_else_is_refused(what, change, tmp_path):
    call = {"prior": PRIOR, "simulator": vector, "n_samples": 20, "random_state": 0}
    simulate(**call, store=tmp_path)
    with pytest.raises(ValueError, match=f"holds simulations of another .*{what}"):
        simulate(**call | change, store=tmp_path)


def test_folders_of_other_things_are_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="not empty"):
        simulate(PRIOR, vector, 5, store=tmp_path)


@pytest.mark.filterwarnings("ignore:Whether a simulation fails")
def test_a_complete_store_answers_only_as_it_was_completed(tmp_path):
    simulate(PRIOR, FAILING["vectors"], 200, store=tmp_path, **OPTIONS)
    for on_error in ("nan", "raise"):
        with pytest.raises(ValueError, match="on_error='drop'"):
            simulate(
                PRIOR, FAILING["vectors"], 200, store=tmp_path, **OPTIONS | {"on_error": on_error}
            )


def flip(path, where):
    """Change one byte."""
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)


def test_damage_is_noticed(tmp_path, monkeypatch):
    options = {"random_state": 0, "store": tmp_path, "batch_size": 10}
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Stopped):
            simulate(PRIOR, vector, 100, **options)
    chunk = max((tmp_path / "chunks").iterdir())
    flip(chunk, chunk.read_bytes().index(b"X.npy") + 200)
    with pytest.raises(ValueError, match=r"damaged.*Delete that file"):
        simulate(PRIOR, vector, 100, **options)
    chunk.unlink()
    _, X = simulate(PRIOR, vector, 100, **options)
    np.testing.assert_array_equal(X, simulate(PRIOR, vector, 100, random_state=0)[1])
    flip(tmp_path / "X.npy", 500)
    with pytest.raises(ValueError, match="checksum"):
        simulate(PRIOR, vector, 100, **options)


def test_a_newer_format_is_refused(tmp_path):
    simulate(PRIOR, vector, 5, store=tmp_path)
    head = json.loads((tmp_path / "store.json").read_text())
    (tmp_path / "store.json").write_text(json.dumps(head | {"format": 99}))
    with pytest.raises(ValueError, match="format 99"):
        simulate(PRIOR, vector, 5, store=tmp_path)


class Machine:
    """Something with state and a method."""

    def __init__(self, gain):
        self.gain = gain

    def run(self, theta):
        return self.gain * theta


def make(gain):
    def inner(theta):
        return gain * theta

    return inner


def test_simulators_are_told_apart_by_code_and_values():
    simulators = [
        lambda t: t + 1,
        lambda t: t + 2,
        lambda t: t - 1,
        lambda t: {"a", "b"}.__contains__(t) + 1,
        make(1),
        make(2),
        Machine(1).run,
        Machine(2).run,
        functools.partial(vector, rng=1),
        functools.partial(vector, rng=2),
        np.square,
    ]
    found = [describe(FunctionSimulator(f)) for f in simulators]
    found += [describe(FunctionSimulator(vector, kwargs={"x": np.arange(k)})) for k in (3, 4)]
    found += [describe(DoubleMoonSimulator(n_points=k)) for k in (3, 4)]
    texts = [json.dumps(f) for f in found]
    assert len(set(texts)) == len(texts)
    assert describe(make(1)) == describe(make(1))
    assert describe(DoubleMoonSimulator(random_state=0)) == describe(DoubleMoonSimulator())
