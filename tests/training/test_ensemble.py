"""Ensembles: mixture weights, the mixture's density and draws, members that need no flow."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from skbi.flows import RealNVP
from skbi.training import DensityMember, Ensemble, JointTraining, Member


class Density(DensityMember):
    """A density without an embedding."""


class Line(Member):
    """A member that is no density."""

    def __init__(self):
        super().__init__()
        self.line = nn.Linear(3, 1)

    def shrunk(self):
        """Shrink the slopes."""
        return [self.line.weight]


def densities(*log_weights, p=2):
    """Return normal densities of standard deviation 1 about 0, 10, 20 ..."""
    members = [Density(RealNVP(p, 1, n_transforms=1, hidden_layer_sizes=(4,))) for _ in log_weights]
    for i, (member, log_weight) in enumerate(zip(members, log_weights, strict=True)):
        nn.init.constant_(member.flow.start.bias[:p], -10.0 * i)
        member.log_weight.fill_(log_weight)
    return Ensemble(members)


def contexts(ensemble, n):
    return [torch.zeros(n, 1) for _ in ensemble.members]


def test_the_leader_has_the_largest_weight_and_active_members_a_hundredth():
    ensemble = densities(math.log(0.3), math.log(0.695), math.log(0.005))
    assert ensemble.leader is ensemble.members[1]
    assert ensemble.active().members == ensemble.members[:2]


def test_the_mixture_is_the_weighted_sum_of_densities():
    ensemble = densities(math.log(0.25) + 3, math.log(0.75) + 3, p=2)
    z = torch.tensor([[0.5, -1.0], [9.0, 11.0], [5.0, 5.0]])
    values = ensemble.log_prob(z, contexts(ensemble, 3)).detach()
    parts = [w * stats.norm(m).pdf(z.numpy()).prod(axis=1) for w, m in ((0.25, 0), (0.75, 10))]
    np.testing.assert_allclose(values, np.log(np.sum(parts, axis=0)), rtol=1e-5)
    double = ensemble.double()
    precise = double.log_prob(z.double(), [c.double() for c in contexts(double, 3)]).detach()
    assert precise.dtype is torch.float64
    np.testing.assert_allclose(precise, np.log(np.sum(parts, axis=0)), rtol=1e-6)


@pytest.mark.parametrize("n_members", [1, 2])
def test_draws_are_those_of_the_mixture(n_members):
    ensemble = densities(*np.log([0.25, 0.75][:n_members]))
    z = ensemble.draw(contexts(ensemble, 2), (2, 20_000, 2), np.random.default_rng(0))
    second = z[..., 0] > 5
    assert abs(second.mean() - 0.75 * (n_members - 1)) < 4 * 0.0031
    assert (second[0] == second[1]).all()
    assert stats.kstest((z - 10 * second[..., None]).ravel(), "norm").pvalue > 1e-3


def test_mixture_weights_maximise_the_validation_likelihood():
    rng = np.random.default_rng(0)
    log_scores = torch.as_tensor(rng.normal(size=(3, 400)))
    row_weights = torch.as_tensor(rng.uniform(0, 2, 400))
    row_weights /= row_weights.mean()
    ensemble = densities(0, 0, 0)
    score = ensemble.weigh(log_scores, row_weights)
    shares = np.exp([float(member.log_weight) for member in ensemble.members])
    assert shares.sum() == pytest.approx(1)

    def likelihood(shares):
        return float(
            (
                row_weights * (log_scores.exp() * torch.as_tensor(shares)[:, None]).sum(0).log()
            ).mean()
        )

    assert score == pytest.approx(likelihood(shares))
    for move in 0.05 * (np.eye(3) - 1 / 3):
        assert likelihood(shares + move) < score + 1e-4  # one pseudo-row each moves the maximum


def test_rows_of_weight_two_are_rows_that_are_there_twice():
    rng = np.random.default_rng(0)
    log_scores, counts = (
        torch.as_tensor(rng.normal(size=(2, 60))),
        torch.as_tensor(rng.integers(1, 4, 60)),
    )
    one, two = densities(0, 0), densities(0, 0)
    one.weigh(log_scores, counts.double())
    two.weigh(log_scores.repeat_interleave(counts, dim=1), torch.ones(int(counts.sum())))
    logits = [torch.stack([m.log_weight for m in e.members]).log_softmax(0) for e in (one, two)]
    torch.testing.assert_close(*logits)


def test_members_without_flows_are_trained_together():
    members = [Line() for _ in range(3)]
    training = JointTraining(members)
    assert training.weights.values.shape == (3, 4)
    assert training.weights.shrunk.tolist() == [1, 1, 1, 0]
    x = torch.randn(5, 3)
    outputs = training.each(lambda member: member.line(x)[:, 0])
    torch.testing.assert_close(outputs, torch.stack([m.line(x)[:, 0] for m in members]))
    training.weights.keep_members(torch.tensor([True, False, True]))
    assert len(training.each(lambda member: member.line(x))) == 2
    training.release()


def test_flows_are_one_network_in_training_and_come_back():
    ensemble = densities(0, 0)
    flows = [member.flow for member in ensemble.members]
    z = torch.randn(7, 2)
    expected = torch.stack([flow.log_prob(z, torch.zeros(7, 1)) for flow in flows])
    training = JointTraining(ensemble.members)
    assert all(member.flow is None for member in ensemble.members)
    torch.testing.assert_close(training.log_prob(z, torch.zeros(2, 7, 1)), expected)
    with torch.no_grad():
        training.weights.values.add_(0.1)
    training.release()
    assert [member.flow for member in ensemble.members] == flows
    assert not torch.allclose(flows[0].log_prob(z, torch.zeros(7, 1)), expected[0])
