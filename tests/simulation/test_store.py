"""Stores: a folder gives the results that memory gives, and is refused if it holds others."""

import functools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulators import (
    PRIOR,
    assert_same_observations,
    failing_vector,
    make_task,
    noisy_vector,
    ragged_set,
    set_of_five,
)

from skbi import DoubleMoonSimulator, FunctionSimulator, simulate
from skbi.simulation.store import Results, StoredResults, describe
from skbi.simulation.tasks import run_task

OPTIONS = {"on_error": "drop", "random_state": 0, "return_report": True}


def failing_set(theta, rng):
    """Return five points, which are NaN if b is small."""
    return set_of_five(theta, rng) * (np.nan if theta[1] < 0.1 else 1)


def failing_ragged_set(theta, rng):
    """Return one to four points, which are NaN if b is small."""
    return ragged_set(theta, rng) * (np.nan if theta[1] < 0.1 else 1)


FAILING_SIMULATORS = {
    "vectors": FunctionSimulator(failing_vector, kwargs={"failure": "nan"}),
    "sets": FunctionSimulator(failing_set),
    "ragged": FunctionSimulator(failing_ragged_set),
}


@pytest.mark.filterwarnings("ignore:Whether a simulation fails")
@pytest.mark.parametrize("on_error", ["drop", "nan"])
@pytest.mark.parametrize("name", FAILING_SIMULATORS)
def test_a_store_gives_what_memory_gives(name, on_error, tmp_path):
    simulator, options = FAILING_SIMULATORS[name], OPTIONS | {"on_error": on_error}
    theta, X, report = simulate(PRIOR, simulator, 300, **options)
    for _ in range(2):  # the first call simulates, and the second one opens the store
        theta2, X2, report2 = simulate(PRIOR, simulator, 300, store=tmp_path, **options)
        assert_same_observations(X, X2)
        np.testing.assert_array_equal(theta, theta2)
        assert str(report) == str(report2)
        assert isinstance(theta2, np.memmap)
        assert isinstance(X2[0], np.memmap)
    assert {path.suffix for path in tmp_path.iterdir()} == {".npy", ".json"}


def test_failed_rows_are_nan_or_empty():
    options = OPTIONS | {"on_error": "nan"}
    with pytest.warns(UserWarning, match="depends on theta"):
        results = {
            name: simulate(PRIOR, simulator, 300, **options)
            for name, simulator in FAILING_SIMULATORS.items()
        }
    for theta, X, report in results.values():
        assert len(theta) == len(X) == 300
        assert len(report.rows) > 0
        assert all(np.isnan(X[row]).all() for row in report.rows)
    assert results["sets"][1].shape == (300, 5, 2)
    _, X, report = results["ragged"]
    assert {X[row].shape for row in report.rows} == {(0, 2)}


@given(
    order=st.permutations(range(5)), func=st.sampled_from([noisy_vector, set_of_five, ragged_set])
)
def test_the_order_of_arrival_does_not_matter(order, func):
    theta = PRIOR.sample(500, random_state=0)
    whole = make_task(FunctionSimulator(func), theta)
    outcomes = [run_task(whole.subtask(100 * i, 100 * i + 100)) for i in range(5)]
    in_order, out_of_order = Results(500), Results(500)
    for i, j in enumerate(order):
        in_order.add(outcomes[i])
        out_of_order.add(outcomes[j])
    X, X2 = (results.finish(theta, "raise")[1] for results in (in_order, out_of_order))
    assert_same_observations(X, X2)


# ---- resuming


class Stopped(Exception):
    """The run was stopped here."""


def stop_after(monkeypatch, n_flushes):
    """Write the outcome of every task, and stop the run after some of them."""
    flush = StoredResults.flush

    def counted(self):
        flush(self)
        counted.n_left -= 1
        if counted.n_left == 0:
            raise Stopped

    counted.n_left = n_flushes
    monkeypatch.setattr("skbi.simulation.store._SECONDS_BETWEEN_WRITES", 0.0)
    monkeypatch.setattr(StoredResults, "flush", counted)


@pytest.mark.parametrize("simulator", [noisy_vector, ragged_set, DoubleMoonSimulator(n_points=3)])
def test_a_stopped_run_is_resumed(simulator, tmp_path, monkeypatch):
    in_blocks = hasattr(simulator, "transform")
    prior, n = (DoubleMoonSimulator.prior(), 3500) if in_blocks else (PRIOR, 100)
    options = {"batch_size": 7, "random_state": 0}
    theta, X = simulate(prior, simulator, n, **options)
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Stopped):
            simulate(prior, simulator, n, store=tmp_path, **options)
    assert len(list((tmp_path / "chunks").iterdir())) == 3
    theta2, X2 = simulate(prior, simulator, n, store=tmp_path, **options)
    assert_same_observations(X, X2)
    np.testing.assert_array_equal(theta, theta2)


def test_a_store_keeps_its_own_seed(tmp_path):
    first = simulate(PRIOR, noisy_vector, 20, store=tmp_path)[1]
    np.testing.assert_array_equal(first, simulate(PRIOR, noisy_vector, 20, store=tmp_path)[1])
    other = simulate(PRIOR, noisy_vector, 20, store=tmp_path / "other")[1]
    assert (first != other).all()


def test_names_in_the_files_stay_readable_by_other_versions(tmp_path, monkeypatch):
    header_keys = {"format", "seed", "made_by", "finished"}
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(Stopped):
            simulate(PRIOR, noisy_vector, 20, store=tmp_path)
    assert set(json.loads((tmp_path / "store.json").read_text())) == header_keys
    with np.load(next((tmp_path / "chunks").iterdir())) as chunk:
        assert set(chunk) == {"rows", "X", "sizes", "failures", "kind"}
    simulate(PRIOR, noisy_vector, 20, store=tmp_path)
    header = json.loads((tmp_path / "store.json").read_text())
    assert set(header["finished"]) == {"on_error", "failures", "files"}
    assert set(header["finished"]["files"]) == {"X.npy", "theta.npy"}


# ---- stores that are refused


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
    call = {"prior": PRIOR, "simulator": noisy_vector, "n_samples": 20, "random_state": 0}
    simulate(**call, store=tmp_path)
    with pytest.raises(ValueError, match=f"holds simulations of another .*{what}"):
        simulate(**call | change, store=tmp_path)


def test_folders_of_other_things_are_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="not empty"):
        simulate(PRIOR, noisy_vector, 5, store=tmp_path)


@pytest.mark.filterwarnings("ignore:Whether a simulation fails")
def test_a_complete_store_answers_only_as_it_was_completed(tmp_path):
    simulator, options = FAILING_SIMULATORS["vectors"], OPTIONS | {"store": tmp_path}
    simulate(PRIOR, simulator, 200, **options)
    for on_error in ("nan", "raise"):
        with pytest.raises(ValueError, match="on_error='drop'"):
            simulate(PRIOR, simulator, 200, **options | {"on_error": on_error})


def change_byte(path, position):
    """Change one byte of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_damaged_files_are_refused(tmp_path, monkeypatch):
    options = {"random_state": 0, "store": tmp_path, "batch_size": 10}
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Stopped):
            simulate(PRIOR, noisy_vector, 100, **options)
    chunk = max((tmp_path / "chunks").iterdir())
    change_byte(chunk, chunk.read_bytes().index(b"X.npy") + 200)
    with pytest.raises(ValueError, match=r"damaged.*Delete that file"):
        simulate(PRIOR, noisy_vector, 100, **options)
    chunk.unlink()
    _, X = simulate(PRIOR, noisy_vector, 100, **options)
    np.testing.assert_array_equal(X, simulate(PRIOR, noisy_vector, 100, random_state=0)[1])
    change_byte(tmp_path / "X.npy", 500)
    with pytest.raises(ValueError, match="checksum"):
        simulate(PRIOR, noisy_vector, 100, **options)


def test_a_newer_format_is_refused(tmp_path):
    simulate(PRIOR, noisy_vector, 5, store=tmp_path)
    path = tmp_path / "store.json"
    header = json.loads(path.read_text())
    path.write_text(json.dumps(header | {"format": 99}))
    with pytest.raises(ValueError, match="format 99"):
        simulate(PRIOR, noisy_vector, 5, store=tmp_path)


# ---- descriptions of simulators


class Amplifier:
    """An object with state and a method."""

    def __init__(self, gain):
        self.gain = gain

    def run(self, theta):
        return self.gain * theta


def make_amplifier(gain):
    def amplify(theta):
        return gain * theta

    return amplify


def test_simulators_are_distinguished_by_code_and_values():
    functions = [
        lambda t: t + 1,
        lambda t: t + 2,
        lambda t: t - 1,
        lambda t: {"a", "b"}.__contains__(t) + 1,
        make_amplifier(1),
        make_amplifier(2),
        Amplifier(1).run,
        Amplifier(2).run,
        functools.partial(noisy_vector, rng=1),
        functools.partial(noisy_vector, rng=2),
        np.square,
    ]
    simulators = [FunctionSimulator(function) for function in functions]
    simulators += [FunctionSimulator(noisy_vector, kwargs={"x": np.arange(k)}) for k in (3, 4)]
    simulators += [DoubleMoonSimulator(n_points=k) for k in (3, 4)]
    descriptions = [json.dumps(describe(simulator)) for simulator in simulators]
    assert len(set(descriptions)) == len(descriptions)
    assert describe(make_amplifier(1)) == describe(make_amplifier(1))
    assert describe(DoubleMoonSimulator(random_state=0)) == describe(DoubleMoonSimulator())
