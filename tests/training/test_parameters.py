"""The parameters of an ensemble as one array: views, gradients, the best of every member."""

import torch
from torch import nn

from skbi.training.parameters import StackedParameters


def test_the_weights_of_members_are_one_array():
    """Stacked parameters, those of networks, frozen ones, unused ones, buffers and scalars."""
    stacked = nn.Parameter(torch.arange(12.0).reshape(2, 3, 2))
    networks = [nn.Sequential(nn.Linear(2, 2), nn.PReLU(), nn.BatchNorm1d(2)) for _ in range(2)]
    for i, net in enumerate(networks):
        nn.init.constant_(net[0].weight, i + 1.0)
        net[0].bias.requires_grad_(False)
    frozen = networks[1][0].bias.clone()
    parameters = StackedParameters([stacked], networks, [stacked, networks[0][0].weight])
    assert parameters.values.shape == (2, 6 + 4 + 1 + 2 + 2)
    assert parameters.shrunk.tolist() == [1] * (6 + 4) + [0] * (1 + 2 + 2)
    gradient = parameters.gradient((stacked[1] * 3).sum() + networks[0][0].weight.square().sum())
    expected = torch.zeros_like(parameters.values)
    expected[1, :6], expected[0, 6:10] = 3, 2
    assert torch.equal(gradient, expected)
    parameters.keep_best(torch.tensor([False, True]))
    before = parameters.values.clone()
    with torch.no_grad():
        parameters.values.add_(1)
    networks[1][2].running_mean.add_(1)
    assert (networks[1][0].weight == 3).all()
    assert torch.equal(stacked.flatten(1), parameters.values[:, :6])
    parameters.keep_best(torch.tensor([True, False]))
    parameters.restore_best()
    assert torch.equal(parameters.values, before + torch.tensor([[1.0], [0.0]]))
    assert torch.equal(networks[1][0].bias, frozen)
    assert (networks[1][2].running_mean == 0).all()


def test_members_that_are_no_longer_trained_keep_their_best_weights():
    networks = [nn.Linear(1, 1) for _ in range(3)]
    parameters = StackedParameters([], networks, [])
    before = parameters.values.clone()
    parameters.keep_members(torch.tensor([True, False, True]))
    assert parameters.trained == [0, 2]
    assert torch.equal(parameters.values, before[[0, 2]])
    with torch.no_grad():
        parameters.values.add_(1)
    assert networks[2].weight == before[2, 0] + 1
    gradient = parameters.gradient(sum(net.weight.sum() for net in networks))
    assert torch.equal(gradient, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    parameters.keep_best(torch.tensor([False, True]))
    parameters.restore_best()
    assert parameters.trained == [0, 1, 2]
    assert torch.equal(parameters.values, before + torch.tensor([[0.0], [0.0], [1.0]]))
    assert [net.weight.item() for net in networks] == parameters.values[:, 0].tolist()
