"""Summaries of series: their order counts, and neither padding nor other series of a batch do."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skbi.networks.series import SeriesSummary


def summary(c=2, n_out=5, seed=0, **clock):
    torch.manual_seed(seed)
    return SeriesSummary(c, n_out, channels=(4, 8), **clock).double()


def points_of(lengths, c, seed):
    rng = np.random.default_rng(seed)
    return torch.as_tensor(rng.normal(2, 3, size=(sum(lengths), c)).cumsum(axis=0))


LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=6)


@given(lengths=LENGTHS, c=st.integers(1, 3), seed=st.integers(0, 99), clocked=st.booleans())
def test_a_batch_is_summarised_as_its_series_one_by_one(lengths, c, seed, clocked):
    clock = {"clock": 0, "bounds": [1.0, 5.0]} if clocked else {}
    net, points = summary(c, **clock), points_of(lengths, c, seed)
    together, _ = net(points, torch.tensor(lengths))
    alone = [net(x, torch.tensor([len(x)]))[0] for x in points.split(lengths)]
    torch.testing.assert_close(together, torch.cat(alone))


@pytest.mark.parametrize("length", [3, 40])
def test_the_order_counts(length):
    net, points, sizes = summary(), points_of([length], 2, 0), torch.tensor([length])
    assert (net(points.flip(0), sizes)[0] - net(points, sizes)[0]).abs().max() > 1e-3


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e6])
def test_summaries_stay_finite_far_from_the_training_data(scale):
    points = points_of([3, 1, 70], 2, 0) * scale
    assert torch.isfinite(summary()(points, torch.tensor([3, 1, 70]))[0]).all()


@pytest.mark.parametrize("lengths", [[5, 5], [2, 8]])
def test_gradients_are_those_of_finite_differences(lengths):
    net, sizes = summary(), torch.tensor(lengths)
    points = points_of([10], 2, 0).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: net(x, sizes)[0], points)


def test_the_scale_and_the_mean_are_not_lost():
    net, points, sizes = summary(), points_of([30], 2, 0), torch.tensor([30])
    for other in (2 * points, points + 1):
        assert (net(other, sizes)[0] - net(points, sizes)[0]).abs().max() > 1e-3


def test_moments_are_those_of_a_slow_reference():
    lengths = [6, 45]
    points = points_of(lengths, 2, 0)
    found = SeriesSummary(2, 5).double().arrange(points, torch.tensor(lengths))[1]
    for row, x in zip(found.numpy(), points.split(lengths), strict=True):
        expected, n = [], len(x)
        u = ((x - x.mean(dim=0)) / x.std(dim=0, correction=0)).numpy().T
        for channel in u:
            for k in range(1, 9):
                cosine = [math.cos(math.pi * k * (t + 0.5) / n) for t in range(n)]
                expected.append(channel @ cosine / n)
        for channel in u:
            for sign in (-1, 1):
                for lag in (1, 2, 4, 8, 16, 32):
                    pairs = [(channel[t], channel[t + lag]) for t in range(n - lag)]
                    total = sum((b + sign * a) ** 2 for a, b in pairs)
                    expected.append(math.log((total + 0.2) / (len(pairs) + 0.1)))
        np.testing.assert_allclose(row[14:-1], expected, atol=1e-6)
        assert row[-1] == math.log(n)


def test_gaps_between_times_sort_pairs_as_a_slow_reference_does():
    rng, lengths, bounds = np.random.default_rng(0), [4, 30], [0.5, 1.5, 3.0]
    times = [rng.exponential(size=n).cumsum() for n in lengths]
    points = torch.as_tensor(
        np.vstack([np.column_stack([rng.normal(size=len(t)), t]) for t in times])
    )
    plain, clocked = (
        SeriesSummary(2, 5, **options).double().arrange(points, torch.tensor(lengths))[1]
        for options in ({}, {"clock": 1, "bounds": bounds})
    )
    torch.testing.assert_close(clocked[:, :-9], plain[:, :-1])
    for row, x in zip(clocked[:, -9:-1].numpy(), points.split(lengths), strict=True):
        value, time = x.numpy().T
        u, expected = (value - value.mean()) / value.std(), []
        for sign in (-1, 1):
            totals, counts = np.full(4, 0.2), np.full(4, 0.1)
            for i in range(len(u)):
                for lag in (1, 2, 4, 8):
                    if i + lag < len(u):
                        k = np.searchsorted(bounds, time[i + lag] - time[i])
                        totals[k] += (u[i + lag] + sign * u[i]) ** 2
                        counts[k] += 1
            expected.extend(np.log(totals / counts))
        np.testing.assert_allclose(row, expected, atol=1e-6)
