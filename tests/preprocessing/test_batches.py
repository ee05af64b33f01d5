"""Minibatches hold the points of their own observations, whole, in part or cut into pieces."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from skbi.preprocessing.batches import Batch, Indexer
from skbi.preprocessing.packed import Packed

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=8)


@given(sizes=SIZES, seed=st.integers(0, 99), part=st.floats(0.01, 1))
def test_minibatches_hold_distinct_points_of_their_own_sets(sizes, seed, part):
    rng = np.random.default_rng(seed)
    points = np.column_stack([np.repeat(np.arange(len(sizes)), sizes), np.arange(sum(sizes))])
    batch = Packed(points.astype(float), np.array(sizes)).tensors(points, torch.empty(0))
    rows = torch.as_tensor(rng.permutation(len(sizes)))
    taken = Indexer(batch, rng).take(rows, part)
    expected = [int(np.ceil(np.float32(part) * np.float32(sizes[r]))) for r in rows]
    assert taken.sizes.tolist() == expected
    assert taken.totals.tolist() == [sizes[r] for r in rows]
    owner, identity = taken.points.numpy().T
    np.testing.assert_array_equal(owner, np.repeat(rows.numpy(), expected))
    assert len(set(identity)) == len(identity)


def test_parts_of_sets_reach_every_point():
    points = np.arange(30.0)[:, None]
    batch = Packed(points, np.array([10, 20])).tensors(points, torch.empty(0))
    indexer = Indexer(batch, np.random.default_rng(0))
    taken = [indexer.take(torch.arange(2), 0.1).points for _ in range(300)]
    assert set(torch.cat(taken).ravel().tolist()) == set(range(30))


@given(sizes=SIZES, n=st.integers(1, 4))
def test_parts_of_a_batch_join_to_the_batch(sizes, n):
    sizes = torch.tensor(sizes)
    points = torch.arange(float(sizes.sum()))[:, None]
    for batch in (Batch(points), Batch(points, sizes), Batch(points, sizes, 2 * sizes)):
        parts = batch.split(n)
        assert len(parts) == min(n, len(batch))
        for name in ("points", "sizes", "totals"):
            whole = getattr(batch, name)
            if whole is not None:
                assert torch.equal(torch.cat([getattr(part, name) for part in parts]), whole)
        assert all(b.sizes is None or len(b.points) == b.sizes.sum() for b in parts)


def test_points_with_an_order_stay_in_it_and_are_taken_whole():
    points, sizes = np.arange(9.0)[:, None], np.array([4, 2, 3])
    batch = Packed(points, sizes, "series").tensors(points, torch.empty(0))
    indexer = Indexer(batch, np.random.default_rng(0), ordered=True)
    taken = indexer.take(torch.tensor([2, 0]))
    assert taken.points.ravel().tolist() == [6, 7, 8, 0, 1, 2, 3]
    assert taken.sizes.tolist() == [3, 4]
    assert taken.totals is None
