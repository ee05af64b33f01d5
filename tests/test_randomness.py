"""Randomness: ``random_state`` decides all draws, and global generators are left alone."""

import numpy as np
import torch

from skbi.randomness import as_generator, seeded


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
