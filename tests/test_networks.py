"""Summaries of sets: order, padding, company and scale must not matter where they should not."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skbi.networks import MLP, DeepSet, Gated, bounded, hard_clip, soft_clip


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
def test_a_batch_of_sets_is_summarised_as_one_by_one(sizes, d, seed):
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
def test_the_size_of_a_set_is_information(seed, factor):
    net, points = deepset(), points_of([4], 2, seed)
    repeated = points.repeat(factor, 1)
    change = net(repeated, torch.tensor([4 * factor])) - net(points, torch.tensor([4]))
    assert change.abs().max() > 1e-3


def test_a_part_of_a_set_knows_the_size_of_the_whole():
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


def test_the_context_begins_as_it_is_told():
    net, points, sizes = deepset(), points_of([3, 4], 2, 0), torch.tensor([3, 4])
    slopes, intercept = torch.randn(8, 2).double(), torch.randn(2).double()
    net.begin(slopes, intercept)
    moments = net.moments(points, sizes)
    torch.testing.assert_close(net.start(moments)[:, :2], moments @ slopes + intercept)


def test_a_gated_layer_is_its_formula():
    layer, x = Gated(3, 2), torch.randn(4, 3)
    (w, v), (a, b) = layer.linear.weight.split(2), layer.linear.bias.split(2)
    gate = x @ w.T + a
    torch.testing.assert_close(layer(x), gate * torch.sigmoid(gate) * (x @ v.T + b))


def test_an_mlp_has_a_linear_path():
    net, x = MLP(3, 2, (4, 4)), torch.randn(5, 3)
    torch.nn.init.zeros_(net.last.weight)
    torch.nn.init.zeros_(net.last.bias)
    torch.testing.assert_close(net(x), x @ net.linear.weight.T + net.linear.bias)


@given(x=st.floats(-1e6, 1e6, allow_subnormal=False), bound=st.floats(0.5, 20))
def test_clips_are_odd_increasing_bounded_and_the_identity_near_zero(x, bound):
    for clip in (soft_clip, hard_clip, bounded):
        pair = clip(torch.tensor([x, -x, 0.0, 1e-4], dtype=torch.float64), bound)
        assert pair.abs().max() <= bound * (1 + 1e-12)
        assert pair[0] == -pair[1]
        assert torch.sign(pair[0]) == np.sign(x)
        assert abs(pair[3] - 1e-4) < 1e-10
