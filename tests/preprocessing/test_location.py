"""The emulator's posterior against closed forms; frames against their determinant."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skbi.preprocessing.location import Frame, Location, join_frames


def random_frame(n, p, seed):
    """Return a frame, and the mean and covariance that it belongs to."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(n, p, p)) + 2 * np.eye(p)
    precision = factor @ np.swapaxes(factor, 1, 2) + 0.1 * np.eye(p)
    centre = rng.normal(size=(n, p))
    return Frame.fit(centre, precision), centre, np.linalg.inv(precision)


@given(seed=st.integers(0, 999), n=st.integers(1, 5), p=st.integers(1, 6))
def test_a_frame_has_its_inverse_and_determinant(seed, n, p):
    frame, centre, covariance = random_frame(n, p, seed)
    z = np.random.default_rng(seed).normal(size=(n, p))
    mapped, log_det = frame.forward(z)
    np.testing.assert_allclose(frame.inverse(mapped[:, None])[:, 0], z, atol=1e-8)
    np.testing.assert_array_equal(np.tril(frame.root, -1), 0)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(frame.root)[1], atol=1e-9)
    np.testing.assert_allclose(log_det, -0.5 * np.linalg.slogdet(covariance)[1], atol=1e-8)
    np.testing.assert_allclose(frame.log_scales.sum(axis=1), log_det)
    distance = np.einsum("np,npq,nq->n", z - centre, np.linalg.inv(covariance), z - centre)
    np.testing.assert_allclose((mapped**2).sum(axis=1), distance, rtol=1e-6)
    np.testing.assert_allclose(frame.forward(centre)[0], 0, atol=1e-12)


@given(seed=st.integers(0, 999), m=st.integers(1, 9))
def test_one_frame_is_that_of_all_rows(seed, m):
    frame, *_ = random_frame(1, 3, seed)
    z = np.random.default_rng(seed).normal(size=(m, 3))
    mapped, log_det = frame.forward(z)
    repeated = join_frames([frame] * m)
    each, each_log_det = repeated.forward(z)
    np.testing.assert_allclose(mapped, each)
    np.testing.assert_allclose(np.broadcast_to(log_det, m), each_log_det)
    np.testing.assert_allclose(frame.inverse(mapped[None])[0], z, atol=1e-8)


def test_draws_through_a_frame_have_its_mean_and_covariance():
    frame, centre, covariance = random_frame(3, 2, seed=0)
    n_draws = 100_000
    draws = frame.inverse(np.random.default_rng(1).normal(size=(3, n_draws, 2)))
    for own, mean, expected in zip(draws, centre, covariance, strict=True):
        sd = np.sqrt(np.diag(expected))
        np.testing.assert_array_less(np.abs(own.mean(axis=0) - mean), 5 * sd / n_draws**0.5)
        found = np.cov(own.T)
        np.testing.assert_allclose(found, expected, atol=0.02 * np.outer(sd, sd).max())


def test_frames_are_cut_and_joined_by_rows():
    frame, *_ = random_frame(5, 2, seed=0)
    joined = join_frames([frame[:2], frame[2:3], frame[3:]])
    assert len(joined) == 5
    np.testing.assert_array_equal(joined.centre, frame.centre)
    np.testing.assert_array_equal(joined.root, frame.root)
    assert join_frames([None, None]) is None


# ---- the posterior of an emulator


def linear_model(n, seed=0):
    """Pairs w ~ N(0, I) and y = w A + correlated noise, and w's exact posterior given y."""
    rng, p, k = np.random.default_rng(seed), 2, 5
    fixed = np.random.default_rng(99)
    slopes, mix = fixed.normal(size=(p, k)), np.eye(k) + 0.3 * fixed.normal(size=(k, k))
    w = rng.normal(size=(n, p))
    y = w @ slopes + rng.normal(size=(n, k)) @ mix
    weights = np.linalg.solve(mix.T @ mix, slopes.T)
    precision = slopes @ weights + np.eye(p)
    return w, y, np.linalg.solve(precision, (y @ weights).T).T, precision


@pytest.fixture(scope="module")
def fitted():
    w, y, *_ = linear_model(4000)
    return Location.fit(w, y, np.full(2, 4.0), np.ones(2), np.random.default_rng(0))


def test_a_linear_gaussian_posterior_is_found(fitted):
    """The regression's error is about (degrees of freedom / n)^1/2, here 5 % of a sd."""
    _, y, mean, precision = linear_model(500, seed=1)
    w, found, misfit = fitted.find(y)
    sd = np.sqrt(np.diag(np.linalg.inv(precision)))
    inside = np.abs(mean).max(axis=1) < 2  # where training parameters are dense
    error = (w - mean)[inside] / sd
    assert np.sqrt((error**2).mean(axis=0)).max() < 0.15
    ratio = np.sqrt(np.linalg.inv(found)[:, [0, 1], [0, 1]]) / sd
    np.testing.assert_allclose(np.median(ratio, axis=0), 1, atol=0.05)
    median = np.median(np.linalg.inv(found)[:, 0, 1])
    assert abs(median - np.linalg.inv(precision)[0, 1]) < 0.05 * sd.prod()
    assert abs(misfit.mean() / 5 - 1) < 0.1  # k numbers, p fitted, p of the prior


def test_the_solution_is_a_minimum_within_the_range_of_training(fitted):
    _, y, *_ = linear_model(50, seed=2)
    w, _, loss = fitted.find(y)
    assert ((fitted.low <= w) & (w <= fitted.high)).all()

    def loss_at(w):
        error = y @ fitted.root - fitted.emulator(w)
        return (error**2).sum(axis=1) + (fitted.prior_precision * w**2).sum(axis=1)

    np.testing.assert_allclose(loss_at(w), loss)
    rng = np.random.default_rng(0)
    for step in 0.05 * rng.normal(size=(20, 1, 2)):
        assert (loss_at(np.clip(w + step, fitted.low, fitted.high)) > loss - 1e-3).all()


def test_an_observation_far_from_everything_leaves_more_open(fitted):
    _, y, *_ = linear_model(1, seed=3)
    away = np.array([1.0, -1.0, 1.0, -1.0, 1.0])
    _, near, _ = fitted.find(y)
    widths, misfits = [], []
    for distance in (0, 10, 100, 1000):
        w, precision, misfit = fitted.find(y + distance * away)
        assert np.isfinite(w).all()
        widths.append(np.sqrt(np.linalg.inv(precision[0]).trace()))
        misfits.append(misfit.item())
    assert (np.diff(misfits) > 0).all()
    assert (np.diff(widths) > 0).all()
    np.testing.assert_allclose(widths[0], np.sqrt(np.linalg.inv(near[0]).trace()))


def test_many_rows_are_the_rows_one_by_one(fitted, monkeypatch):
    _, y, *_ = linear_model(40, seed=4)
    together = fitted.find(y)
    one_by_one = [fitted.find(row[None]) for row in y]
    monkeypatch.setattr("skbi.preprocessing.location._MAX_NUMBERS", 7 * 2 * 5)
    in_blocks = fitted.find(y)
    for i, found in enumerate(together):
        np.testing.assert_allclose(found, np.concatenate([each[i] for each in one_by_one]), 1e-6)
        np.testing.assert_allclose(found, in_blocks[i], 1e-6)


def test_a_flat_prior_leaves_the_precision_to_the_data():
    """Without a prior the mean is the least-squares estimate."""
    w, y, *_ = linear_model(4000)
    location = Location.fit(w, y, np.full(2, 4.0), np.zeros(2), np.random.default_rng(0))
    _, y, _, precision = linear_model(300, seed=1)
    _, found, _ = location.find(y)
    np.testing.assert_allclose(np.median(found, axis=0), precision - np.eye(2), rtol=0.1, atol=0.1)


def test_the_best_of_two_solutions_is_found():
    """With y = w^2 and w^3, the steps alone would stay on the wrong side of zero."""
    rng = np.random.default_rng(0)
    w = rng.uniform(-1.7, 1.7, size=(2000, 1))
    y = np.hstack([w**2, w**3]) + 0.05 * rng.normal(size=(2000, 2))
    location = Location.fit(w, y, np.ones(1), np.zeros(1), rng)
    truth = np.array([[-1.2], [-0.8], [0.8], [1.2]])
    found, *_ = location.find(np.hstack([truth**2, truth**3]))
    np.testing.assert_allclose(found, truth, atol=0.05)
