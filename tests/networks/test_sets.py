"""Summaries of sets: neither the order of points nor the other sets of a batch matter."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skbi.networks.sets import DeepSet, Sets


def deepset(d=2, n_out=5, seed=0):
    torch.manual_seed(seed)
    net = DeepSet(d, n_out, hidden_layer_sizes=(8, 8)).double()
    for weights in net.parameters():  # zero-initialised layers would hide mistakes
        torch.nn.init.normal_(weights, std=0.2)
    return net


def points_of(sizes, d, seed):
    return torch.as_tensor(np.random.default_rng(seed).normal(2, 3, size=(sum(sizes), d)))


SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=6)


@given(sizes=SIZES, d=st.integers(1, 4), seed=st.integers(0, 99))
def test_a_batch_is_summarised_as_its_sets_one_by_one(sizes, d, seed):
    net, points = deepset(d), points_of(sizes, d, seed)
    together = net(points, torch.tensor(sizes))
    alone = [net(x, torch.tensor([len(x)])) for x in points.split(sizes)]
    torch.testing.assert_close(together, torch.cat(alone))


@given(sizes=SIZES, seed=st.integers(0, 99))
def test_the_order_of_points_does_not_matter(sizes, seed):
    net, points = deepset(), points_of(sizes, 2, seed)
    shuffled = torch.cat([x[torch.randperm(len(x))] for x in points.split(sizes)])
    sizes = torch.tensor(sizes)
    torch.testing.assert_close(net(shuffled, sizes), net(points, sizes))


@given(seed=st.integers(0, 99), factor=st.integers(2, 5))
def test_the_size_of_a_set_changes_its_summary(seed, factor):
    net, points = deepset(), points_of([4], 2, seed)
    repeated = points.repeat(factor, 1)
    change = net(repeated, torch.tensor([4 * factor])) - net(points, torch.tensor([4]))
    assert change.abs().max() > 1e-3


def test_a_part_of_a_set_is_summarised_with_the_size_of_the_whole():
    net, points, sizes = deepset(), points_of([4], 2, 0), torch.tensor([4])
    torch.testing.assert_close(net(points, sizes, sizes), net(points, sizes))
    assert (net(points, sizes, 5 * sizes) - net(points, sizes)).abs().max() > 1e-3


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e6])
def test_summaries_stay_finite_far_from_the_training_data(scale):
    points = points_of([3, 1, 7], 2, 0) * scale
    assert torch.isfinite(deepset()(points, torch.tensor([3, 1, 7]))).all()


@pytest.mark.parametrize("sizes", [[5, 5], [2, 8]])
def test_gradients_are_those_of_finite_differences(sizes):
    net, sizes = deepset(), torch.tensor(sizes)
    points = points_of([10], 2, 0).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: net(x, sizes), points)


def test_the_context_starts_at_the_given_linear_function_of_the_moments():
    net, points, sizes = deepset(), points_of([3, 4], 2, 0), torch.tensor([3, 4])
    slopes, intercept = torch.randn(12, 2).double(), torch.randn(2).double()
    net.start_at(slopes, intercept)
    moments = net.moments(points, sizes)
    torch.testing.assert_close(net.start(moments)[:, :2], moments @ slopes + intercept)


@given(sizes=SIZES, equal=st.booleans(), seed=st.integers(0, 99))
def test_extremes_are_those_of_each_set(sizes, equal, seed):
    sizes = [sizes[0]] * len(sizes) if equal else sizes
    points, sets = points_of(sizes, 2, seed), Sets(torch.tensor(sizes))
    low, high = sets.extremes(sets.arrange(points))
    each = points.split(sizes)
    assert torch.equal(low, torch.stack([x.amin(dim=0) for x in each]))
    assert torch.equal(high, torch.stack([x.amax(dim=0) for x in each]))
