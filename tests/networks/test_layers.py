"""Layers: gated products, the linear path of a perceptron, and the clips."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from skbi.networks.layers import MLP, Gated, affine, bounded, hard_clip, soft_clip, zero


def test_a_gated_layer_follows_its_formula():
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


@given(n=st.integers(1, 4), n_in=st.integers(1, 3))
def test_affine_adds_a_bias_of_every_row_or_set_to_the_linear_layer(n, n_in):
    linear = torch.nn.Linear(n_in, 5)
    for shape, shape_of_bias in [((n, n_in), (n, 5)), ((n, 7, n_in), (n, 1, 5))]:
        x, bias = torch.randn(shape), torch.randn(shape_of_bias)
        torch.testing.assert_close(affine(linear, x, bias), linear(x) + bias)


def test_a_zero_layer_returns_zero():
    assert (zero(torch.nn.Linear(3, 2))(torch.randn(4, 3)) == 0).all()
