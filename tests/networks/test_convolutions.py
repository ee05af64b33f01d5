"""Gated convolutions: products of linear maps of neighbours, at every second place."""

import pytest
import torch

from skbi.networks import SeriesSummary
from skbi.networks.convolutions import GatedConvolution


@pytest.mark.parametrize(("n_axes", "width", "length"), [(1, 5, 9), (1, 3, 8), (2, 3, 7)])
def test_every_second_place_is_a_gated_product_of_its_neighbours(n_axes, width, length):
    layer = GatedConvolution(2, 3, n_axes, width)
    h = torch.randn(4, 2, *[length] * n_axes)
    found = layer(h)
    assert found.shape == (4, 3, *[-(-length // 2)] * n_axes)
    weight, bias = layer.convolution.weight.flatten(1), layer.convolution.bias
    half = width // 2
    start = 4 - half
    patch = h[(..., *[slice(start, start + width)] * n_axes)].flatten(1)  # about place 4
    gate, value = (patch @ weight.mT + bias).chunk(2, dim=1)
    expected = torch.nn.functional.silu(gate) * value
    torch.testing.assert_close(found[(..., *[2] * n_axes)], expected, rtol=1e-4, atol=1e-5)


def test_moments_are_read_standardised():
    torch.manual_seed(0)
    net, points, sizes = SeriesSummary(1, 4), torch.randn(40, 1), torch.tensor([20, 20])
    before, moments = net(points, sizes)
    net.standardise_moments(moments.mean(dim=0), torch.full((net.n_moments,), 2.0))
    after, same = net(points, sizes)
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(same, moments)


def test_weights_are_shrunk_but_no_biases_and_no_linear_paths():
    net = SeriesSummary(1, 4)
    names = {id(w): name for name, w in net.named_parameters()}
    shrunk = [names[id(w)] for w in net.shrunk()]
    assert all(name.endswith("weight") for name in shrunk)
    assert {name.partition(".")[0] for name in shrunk} == {"layers", "rounds"}
    assert not [name for name in shrunk if "linear.weight" in name and "hidden" not in name]
