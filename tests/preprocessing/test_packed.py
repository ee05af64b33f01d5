"""Every way of writing down observations packs to the same thing."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skbi.preprocessing.packed import Packed, as_batch, as_table, pack, width_of

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=8)


def ragged(sizes, d=2, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(s, d)) for s in sizes]


def padded(sets, extra=0):
    d = sets[0].shape[1]
    X = np.full((len(sets), max(map(len, sets)) + extra, d), np.nan)
    for row, x in zip(X, sets, strict=True):
        row[: len(x)] = x
    return X


def as_object_array(sets):
    array = np.empty(len(sets), dtype=object)
    array[:] = sets
    return array


@given(sizes=SIZES, d=st.integers(1, 3), extra=st.integers(0, 3))
def test_list_tuple_object_array_and_padding_pack_alike(sizes, d, extra):
    sets = ragged(sizes, d)
    expected = np.concatenate(sets)
    for X in (sets, tuple(sets), as_object_array(sets), padded(sets, extra)):
        packed = pack(X)
        np.testing.assert_array_equal(packed.points, expected)
        assert packed.sizes.tolist() == sizes
        assert packed.n_axes == 3
        assert len(packed) == len(sizes)


def test_padding_may_stand_anywhere():
    X = np.array([[[np.nan, np.nan], [1, 2], [np.nan, np.nan], [3, 4]]])
    np.testing.assert_array_equal(pack(X).points, [[1, 2], [3, 4]])


def test_a_point_with_missing_entries_is_no_padding():
    X = np.array([[[np.nan, 1], [np.nan, np.nan]], [[2, 3], [4, np.nan]]])
    packed = pack(X, missing="mask")
    np.testing.assert_array_equal(packed.points, [[np.nan, 1], [2, 3], [4, np.nan]])
    assert packed.sizes.tolist() == [1, 2]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, bool, object])
def test_dtypes_and_layouts_of_vectors(dtype):
    X = np.array([[0, 1, 1], [1, 0, 1]])
    for form in (X.astype(dtype), np.asfortranarray(X.astype(dtype)), X.tolist(), pd.DataFrame(X)):
        packed = pack(form)
        assert packed.points.dtype == np.float64
        assert packed.sizes is None
        np.testing.assert_array_equal(packed.points, X)


@given(sizes=SIZES, n_points=st.integers(1, 30))
def test_blocks_cover_everything_once_and_stay_small(sizes, n_points):
    packed = pack(ragged(sizes))
    blocks = [packed[rows] for rows in packed.blocks(n_points)]
    np.testing.assert_array_equal(np.concatenate([b.points for b in blocks]), packed.points)
    assert np.concatenate([b.sizes for b in blocks]).tolist() == sizes
    assert all(len(b.points) <= n_points or len(b) == 1 for b in blocks)
    vectors = Packed(np.arange(20.0)[:, None])
    assert sum(len(vectors[rows]) for rows in vectors.blocks(n_points)) == 20


def test_one_observation_or_many():
    vectors, sets = np.zeros((3, 2)), np.zeros((3, 4, 2))
    for X, n_axes, n, single in [
        (vectors, 2, 3, False),
        (vectors[0], 2, 1, True),
        (vectors.tolist(), 2, 3, False),
        (sets, 3, 3, False),
        (sets[0], 3, 1, True),
        (list(sets), 3, 3, False),
        ([sets[0], sets[0, :1]], 3, 2, False),
    ]:
        batch, is_single = as_batch(X, n_axes)
        assert (len(pack(batch)), is_single) == (n, single)
    for X, n_axes in [(sets, 2), (vectors[0], 3), (vectors.tolist(), 3), ([1.0, 2.0], 2)]:
        with pytest.raises(ValueError, match="fitted on"):
            as_batch(X, n_axes)
    with pytest.raises(ValueError, match="fitted on"):
        as_batch([sets[0], sets[0, :1]], 2)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.array([[0.0, 1], [np.inf, 0]]), "infinite values, first in row 1, column 0"),
        (np.array([[0.0, 1], [0, np.nan]]), r"NaN\) in rows \[1\], first in column 1"),
        ([np.zeros((2, 2)), np.array([[0, np.nan]])], r"NaN\) in rows \[1\], first in column 1"),
        ([np.zeros((2, 2)), np.zeros((0, 2))], r"at least one point; sets \[1\]"),
        (np.full((2, 3, 2), np.nan), r"at least one point; sets \[0, 1\]"),
        ([np.zeros((2, 2)), np.zeros((2, 3))], "same d"),
        (np.zeros((2, 3, 4, 5)), r"got shape \(2, 3, 4, 5\)"),
        (np.zeros(3), "reshape"),
        (np.array([["a", "b"]]), "real numbers"),
        (np.array([[1j]]), "real numbers"),
        ([np.zeros(2), np.zeros(3)], "real numbers"),
    ],
)
def test_bad_observations_name_what_is_wrong(X, message):
    with pytest.raises(ValueError, match=message):
        pack(X)


def test_missing_entries_pass_when_masked_and_infinite_ones_never():
    X = np.array([[0.0, np.nan], [1, 2]])
    assert np.isnan(pack(X, missing="mask").points[0, 1])
    with pytest.raises(ValueError, match="infinite"):
        pack(np.array([[np.inf, np.nan]]), missing="mask")


def test_sparse_is_refused_and_tables_are_two_dimensional():
    sparse = pytest.importorskip("scipy.sparse").csr_matrix(np.eye(2))
    with pytest.raises(TypeError, match="toarray"):
        pack(sparse)
    with pytest.raises(ValueError, match="reshape"):
        as_table(np.zeros(3), "theta")
    with pytest.raises(ValueError, match="swapped"):
        as_table(np.zeros((3, 2, 2)), "theta")
    table, names = as_table(pd.DataFrame({"a": [1], "b": [2]}), "theta")
    assert table.tolist() == [[1, 2]]
    assert list(names) == ["a", "b"]


# ---- an order


@given(sizes=SIZES, c=st.integers(1, 3), extra=st.integers(0, 3))
def test_series_pack_alike_in_their_order_however_they_are_written(sizes, c, extra):
    series = ragged(sizes, c)
    for X in (series, tuple(series), as_object_array(series), padded(series, extra)):
        packed = pack(X, order="series")
        np.testing.assert_array_equal(packed.points, np.concatenate(series))
        assert packed.sizes.tolist() == sizes
        assert packed.order == "series"
        assert packed.lengths == (min(sizes), max(sizes))
        assert packed[:1].order == packed.take(np.array([0])).order == "series"
    flat = [x[:, 0] for x in series]
    for X in (flat, as_object_array(flat), padded([x[:, :1] for x in series], extra)[..., 0]):
        packed = pack(X, order="series")
        np.testing.assert_array_equal(packed.points[:, 0], np.concatenate(flat))
        assert packed.sizes.tolist() == sizes


def test_only_the_end_of_a_series_is_padding():
    X = np.array([[np.nan, 1, np.nan, 2, np.nan, np.nan], [3, 4, 5, 6, 7, 8]])
    packed = pack(X, order="series", missing="mask")
    assert packed.sizes.tolist() == [4, 6]
    np.testing.assert_array_equal(packed.points[:4, 0], [np.nan, 1, np.nan, 2])
    with pytest.raises(ValueError, match=r"missing values \(NaN\) in rows \[0\]"):
        pack(X, order="series")


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5)])
def test_images_are_packed_row_after_row(shape):
    X = np.random.default_rng(0).normal(size=shape)
    packed = pack(X, order="image")
    assert (packed.order, packed.grid) == ("image", (3, 4))
    assert packed.sizes.tolist() == [12, 12]
    for i, x in enumerate(X):
        np.testing.assert_array_equal(packed[i : i + 1].points.reshape(x.shape), x)


def test_the_width_of_what_has_an_order_is_its_number_of_channels():
    for X, order, width in (
        (np.ones((2, 7)), "series", 1),
        (np.ones((2, 7, 3)), "series", 3),
        ([np.ones(7), np.ones(5)], "series", 1),
        ([np.ones((7, 3)), np.ones((5, 3))], "series", 3),
        (np.ones((2, 7, 3)), "image", 1),
        (np.ones((2, 7, 3, 4)), "image", 4),
    ):
        assert width_of(X, order) == width
