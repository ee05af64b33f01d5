"""Observations of all kinds become rows of numbers that neither order nor padding change."""

import numpy as np
import pandas as pd
from known_posterior import Gaussian

from skbi.calibration.observations import feature_tables, sample_observations

RNG = np.random.default_rng(0)
SETS = RNG.normal(size=(6, 9, 2))


def feature_table(X, kind=None):
    (table,), names = feature_tables(X, kind=kind)
    return table, names


def test_vectors_are_their_own_features():
    table, names = feature_table([[1, 2], [3, 4]])
    assert table.tolist() == [[1, 2], [3, 4]]
    assert names == ["x_0", "x_1"]
    frame = pd.DataFrame({"height": [1.0], "width": [2.0]})
    assert feature_table(frame)[1] == ["height", "width"]


def test_sets_are_described_whatever_their_order_and_padding():
    table, names = feature_table(SETS)
    assert names[:3] == ["mean of x_0", "mean of x_1", "sd of x_0"]
    np.testing.assert_allclose(table[:, :2], SETS.mean(axis=1))
    np.testing.assert_allclose(feature_table(SETS[:, ::-1])[0], table)
    padded = np.concatenate([SETS, np.full((6, 3, 2), np.nan)], axis=1)
    np.testing.assert_allclose(feature_table(padded)[0], table)


def test_ragged_sets_have_their_size_too():
    ragged = [SETS[0], SETS[1][:4], SETS[2][:1]]
    table, names = feature_table(ragged)
    assert names[-1] == "number of points"
    assert table[:, -1].tolist() == [9, 4, 1]
    np.testing.assert_allclose(table[:, :2], [x.mean(axis=0) for x in ragged])


def test_a_picture_is_one_cloud_of_pixels():
    pictures = RNG.normal(size=(4, 5, 6))
    table, names = feature_table(pictures, "image")
    assert names == ["mean", "sd", "lowest", "highest"]
    np.testing.assert_allclose(table[:, 3], pictures.max(axis=(1, 2)))
    np.testing.assert_allclose(feature_table(pictures[..., None], "image")[0], table)


def test_one_observation_becomes_a_batch():
    X, rng = RNG.normal(size=(3, 2)), np.random.default_rng
    one, batch = (sample_observations(Gaussian(), x, 7, rng(0)) for x in (X[0], X[:1]))
    assert one.single
    assert not batch.single
    np.testing.assert_array_equal(one.samples, batch.samples)
    np.testing.assert_array_equal(one.X_obs, batch.X_obs)
    np.testing.assert_array_equal(sample_observations(Gaussian(), X, 7, rng(0)).one(2), X[2:])


def test_an_empty_set_is_unknown_and_no_error():
    table, _ = feature_table([SETS[0], np.full((2, 2), np.nan)])
    assert np.isnan(table[1, :8]).all()
    assert table[1, 8] == 0


def test_batches_of_sets_have_the_same_features():
    (one, many), names = feature_tables(SETS[:1], [SETS[1][:4], SETS[2]])
    assert names[-1] == "number of points"
    assert one.shape[1] == many.shape[1] == len(names)
    assert one[0, -1] == 9
