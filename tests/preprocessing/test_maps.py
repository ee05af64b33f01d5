"""What networks read: the features, the columns that compress them, or only these."""

import numpy as np
import pytest
import torch
from scipy import stats

from skbi import JointPrior
from skbi.preprocessing import maps as maps_module
from skbi.preprocessing.batches import Indexer
from skbi.preprocessing.maps import Maps
from skbi.preprocessing.packed import Packed, pack

PRIOR = JointPrior({"a": stats.uniform(-1, 2), "b": stats.norm()})
LIKE = torch.empty(0, dtype=torch.float32)


def pairs(n, d, seed=0):
    """Pairs of two parameters and d noisy linear combinations of them."""
    rng = np.random.default_rng(seed)
    theta = PRIOR.sample(n, random_state=seed)
    slopes = np.random.default_rng(99).normal(size=(2, d))
    return theta, theta @ slopes + rng.normal(size=(n, d))


def fit(theta, X, *, mask=False, training=None):
    """Fit maps, with a compression if X is wide."""
    maps = Maps.fit(PRIOR, theta, X, mask, flat_coordinates=True, asinh=True)
    training = np.arange(len(theta)) if training is None else training
    return maps.with_compression(theta, X, training, np.random.default_rng(0))


@pytest.mark.parametrize("d", [16, 128, 129])
@pytest.mark.parametrize("mask", [False, True])
def test_the_width_is_that_of_what_is_read_and_groups_share_it_out(d, mask):
    theta, X = pairs(700, d)
    if mask:
        X[np.random.default_rng(0).random(X.shape) < 0.1] = np.nan
    maps = fit(theta, Packed(X), mask=mask)
    columns, frame = maps.read(Packed(X[:5]))
    assert columns.shape == (5, maps.width)
    assert len(frame) == 5
    groups = maps.groups
    missing = groups.pop("missing", [])  # also a part of the features
    taken = np.concatenate(list(groups.values()))
    np.testing.assert_array_equal(np.sort(taken), np.arange(maps.width))
    n_features = 0 if d > 128 else d * (1 + mask)
    np.testing.assert_array_equal(groups["features"], np.arange(n_features))
    if mask and n_features:
        np.testing.assert_array_equal(columns[:, missing], np.isnan(X[:5]))
    if n_features:
        np.testing.assert_array_equal(columns[:, :n_features], maps.X.forward(X[:5]))
    rest, _ = maps.compression.forward(X[:5], maps.theta, maps.X)
    np.testing.assert_array_equal(columns[:, n_features:], rest)


def test_narrow_vectors_and_sets_are_read_as_they_are():
    theta, X = pairs(300, 15)
    for packed in (Packed(X), pack(np.repeat(X[:, None], 2, axis=1))):
        maps = fit(theta, packed)
        assert maps.compression is None
        columns, frame = maps.read(packed)
        assert frame is None
        assert columns.shape[1] == maps.width == 15
        assert list(maps.groups) == ["features"]
    wide_sets = pack(np.random.default_rng(0).normal(size=(300, 2, 40)))
    assert fit(theta, wide_sets).compression is None


def test_only_training_pairs_are_looked_at():
    theta, X = pairs(900, 20)
    training = np.arange(700)
    maps = fit(theta, Packed(X), training=training)
    changed = X.copy()
    changed[700:] = 1e3
    other = Maps(maps.theta, maps.X).with_compression(
        np.r_[theta[:700], theta[700:][::-1]], Packed(changed), training, np.random.default_rng(0)
    )
    for one, two in zip(maps.read(Packed(X[:9])), other.read(Packed(X[:9])), strict=True):
        columns = [getattr(a, "root", a) for a in (one, two)]
        np.testing.assert_array_equal(*columns)


def test_a_compression_of_very_many_pairs_or_features_is_fitted_to_some(monkeypatch):
    seen = []

    def count(parameters, features, theta, points, rng):
        seen.append(points.shape)

    monkeypatch.setattr(maps_module.Compression, "fit", count)
    theta = PRIOR.sample(12_000, random_state=0)
    for d in (20, 8000, 40_000):
        X = Packed(np.broadcast_to(np.float32(0), (12_000, d)))
        maps = Maps.fit(PRIOR, theta, Packed(X.points[:2]), False)
        maps.with_compression(theta, X, np.arange(12_000), np.random.default_rng(0))
    assert seen == [(10_000, 20), (5000, 8000), (2000, 40_000)]


@pytest.mark.parametrize("mask", [False, True])
def test_minibatches_of_a_large_compressed_file_are_those_of_memory(tmp_path, monkeypatch, mask):
    theta, X = pairs(700, 20)
    if mask:
        X[np.random.default_rng(0).random(X.shape) < 0.1] = np.nan
    np.save(tmp_path / "X.npy", X)
    on_disk = pack(np.load(tmp_path / "X.npy", mmap_mode="r"), missing="mask")
    maps, rng = fit(theta, Packed(X), mask=mask), np.random.default_rng(0)
    in_memory = maps.indexer(on_disk, LIKE, rng)
    monkeypatch.setattr(maps_module, "_MAX_BYTES_IN_MEMORY", 0)
    mapped = maps.indexer(on_disk, LIKE, rng)
    assert isinstance(mapped, Indexer)  # what is compressed is kept, as it is small
    rows = torch.tensor([5, 3, 600, 5])
    batches = [indexer.take(rows, 1.0).points for indexer in (in_memory, mapped)]
    assert batches[0].shape == (4, maps.width)
    assert torch.isfinite(batches[0]).all()
    torch.testing.assert_close(*batches, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("noise", "compressed"), [(1e-3, True), (0.05, False)])
def test_narrow_vectors_are_compressed_if_they_are_precise(noise, compressed):
    rng = np.random.default_rng(0)
    prior = JointPrior({"a": stats.uniform(), "b": stats.norm()})
    theta = prior.sample(1000, random_state=0)
    X = theta @ [[1.0, 0.5], [0.3, -1.0]] + noise * rng.normal(size=(1000, 2))
    maps = Maps.fit(prior, theta, pack(X), False, flat_coordinates=True)
    found = maps.with_compression(theta, pack(X), np.arange(1000), rng)
    assert (found.compression is not None) == compressed
    few = maps.with_compression(theta, pack(X), np.arange(500), rng)
    assert few.compression is None
