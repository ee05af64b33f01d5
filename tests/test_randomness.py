"""Randomness: ``random_state`` decides all draws, and global generators are left alone."""

import pickle
import random
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skbi.randomness import (
    Seed,
    are_same_states,
    as_generator,
    global_generators_restored,
    global_states,
    seed_global_generators,
    seed_words,
    seeded,
)

DRAWS = {
    "python": random.random,
    "numpy": np.random.normal,
    "torch": lambda: torch.rand(()).item(),
}


def test_as_generator_leaves_numpys_global_generator_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    for state in (None, 0, np.random.SeedSequence(1), np.random.RandomState(0)):
        as_generator(state).normal()
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_as_generator_repeats_seeds_and_returns_generators_themselves():
    rng = np.random.default_rng(0)
    assert as_generator(rng) is rng
    assert as_generator(0).random() == as_generator(0).random()
    state = np.random.RandomState(0)
    assert as_generator(state).random() != as_generator(state).random()


def test_seeded_initialises_reproducibly():
    def draw(seed):
        with seeded(np.random.default_rng(seed)):
            return torch.randn(3)

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


def test_seeded_restores_torchs_generator_and_dtype():
    before = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        with seeded(np.random.default_rng(0)):
            assert torch.randn(3).dtype == torch.float32
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(before, torch.get_rng_state())


# ---- seeds, and the global generators


@given(n=st.integers(1, 20), more=st.integers(0, 20), entropy=st.integers(0, 2**64))
def test_seeds_are_different_and_do_not_depend_on_their_number(n, more, entropy):
    sequence = np.random.SeedSequence(entropy)
    words = seed_words(sequence, n + more)
    np.testing.assert_array_equal(words[:n], seed_words(sequence, n))
    assert len(np.unique(words)) == words.size


def test_a_seed_starts_generators_as_a_seed_sequence_does():
    words = seed_words(np.random.SeedSequence(0), 1)[0]
    rng = np.random.default_rng(Seed(words))
    np.testing.assert_array_equal(words, np.random.SeedSequence(0).generate_state(4, np.uint64))
    assert rng.random() == np.random.default_rng(0).random()
    children = rng.spawn(2) + rng.spawn(1)
    grandchild = pickle.loads(pickle.dumps(children[0])).spawn(1)[0]
    values = [each.random() for each in (rng, *children, grandchild)]
    assert len(set(values)) == 5
    again = np.random.default_rng(Seed(words))
    assert [child.random() for child in again.spawn(3)] == values[1:4]
    for kind in (np.random.MT19937, np.random.Philox, np.random.SFC64):
        assert kind(Seed(words)).random_raw() == kind(Seed(words)).random_raw()


@pytest.mark.parametrize("name", DRAWS)
def test_global_generators_are_seeded_and_put_back(name):
    draw, first = DRAWS[name], Seed(seed_words(np.random.SeedSequence(0), 1)[0])
    before = global_states()
    with global_generators_restored():
        seed_global_generators(first)
        seeded_states, values = global_states(), [draw(), draw()]
        assert not are_same_states(seeded_states, global_states())
        with global_generators_restored():
            seed_global_generators(np.random.SeedSequence(1))
            assert draw() not in values
        third = draw()
        seed_global_generators(first)
        assert are_same_states(seeded_states, global_states())
        assert [draw(), draw(), draw()] == [*values, third]
    assert are_same_states(before, global_states())


def test_another_bit_generator_of_numpy_is_seeded_and_put_back_as_well():
    usual = np.random.get_bit_generator()
    np.random.set_bit_generator(np.random.PCG64(0))
    try:
        test_global_generators_are_seeded_and_put_back("numpy")
    finally:
        np.random.set_bit_generator(usual)


def test_global_generators_are_left_alone_in_other_threads():
    before, after = global_states(), []

    def work():
        with global_generators_restored():
            seed_global_generators(np.random.SeedSequence(0))
            after.append(global_states())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert are_same_states(before, after[0])
