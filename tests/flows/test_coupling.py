"""Coupling layers: half of z passes unchanged, the other half is moved one component at a time."""

import pytest
import torch

from skbi.flows.coupling import AffineCoupling
from skbi.flows.spline import SplineCoupling

couplings = pytest.mark.parametrize("kind", [AffineCoupling, SplineCoupling])


def layer_and_inputs(kind, p, i, n=7):
    """Make a layer far from the identity, columns z and what the context adds."""
    torch.manual_seed(0)
    layer = kind(p, i, (8, 8)).double()
    for weights in layer.parameters():
        torch.nn.init.normal_(weights, std=0.3)
    shapes = p, layer.n_hidden, layer.n_output
    return layer, [torch.randn(1, width, n, dtype=torch.float64) for width in shapes]


@couplings
@pytest.mark.parametrize("i", [0, 1, 2, 3])
@pytest.mark.parametrize("p", [1, 2, 3, 6])
def test_half_of_the_components_pass_unchanged(kind, p, i):
    layer, (z, hidden, output) = layer_and_inputs(kind, p, i)
    u, _ = layer(z, hidden, output)
    same = (u[0, :, None, 0] == z[0, None, :, 0]).any(dim=0)
    assert same.sum() == layer.sizes[0] == ((p + i % 2) // 2 if p > 1 else 0)
    back, _ = layer.inverse(u, hidden, output)
    torch.testing.assert_close(back, z)


@couplings
def test_two_layers_in_a_row_move_all_components(kind):
    for p in range(2, 9):
        for i in (0, 2):
            (first, (z, *steer)), (second, (_, *others)) = (
                layer_and_inputs(kind, p, j) for j in (i, i + 1)
            )
            u, _ = second(first(z, *steer)[0], *others)
            assert not (u[0, :, None, 0] == z[0, None, :, 0]).any()


@couplings
def test_a_moved_component_does_not_read_the_other_moved_ones(kind):
    layer, (z, hidden, output) = layer_and_inputs(kind, 6, 0)
    z.requires_grad_()
    u, _ = layer(z, hidden, output)
    n_moved = layer.sizes[1]
    for j in range(n_moved):
        (slope,) = torch.autograd.grad(u[0, j].sum(), z, retain_graph=True)
        moved = slope[0, -n_moved:].abs().sum(dim=1) > 0
        assert moved.tolist() == [k == j for k in range(n_moved)]
