"""Ensembles: mixture weights, the mixture's density and draws, members that need no flow."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import optimize, special, stats
from torch import nn

from skbi.flows import BASE_SCALES, RealNVP
from skbi.networks import DeepSet
from skbi.networks.vector_fields import VectorField
from skbi.training import DensityMember, Ensemble, JointTraining, Member
from skbi.training.ensemble import _BASE_COUNTS


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


# ---- weights of members and of the components of their bases


def penalised_maximum(scores, row_weights, count, base_counts):
    """Return weights, shares and the largest log likelihood plus log pseudo-rows, by BFGS."""
    n_members, n_components, _ = scores.shape

    def split(x):
        return (special.log_softmax(part) for part in np.split(x, [n_members]))

    def loss(x):
        log_weights, log_shares = split(x)
        joint = scores + log_weights[:, None, None] + log_shares[:, None]
        likelihood = row_weights @ special.logsumexp(joint, axis=(0, 1))
        return -likelihood - count * log_weights.sum() - base_counts @ log_shares

    found = optimize.minimize(loss, np.zeros(n_members + n_components), tol=1e-8)
    weights, shares = (np.exp(part) for part in split(found.x))
    return weights, shares, loss


def spread_out(p=1):
    """Two densities about 0 and 1, the rows of a wider one, and their weights."""
    rng, ensemble = np.random.default_rng(0), densities(0, 0, p=p)
    nn.init.constant_(ensemble.members[1].flow.start.bias[:p], -1.0)
    z = torch.as_tensor(0.3 + 1.3 * rng.standard_t(4, size=(300, p)), dtype=torch.float32)
    row_weights = torch.as_tensor(rng.uniform(0, 2, 300), dtype=torch.float32)
    return ensemble, z, row_weights / row_weights.mean()


@pytest.mark.parametrize("count", [0.1, 1.0, 30.0])
@pytest.mark.parametrize(("n_steps", "nats", "share"), [(100, 0.2, 0.01), (3000, 2e-3, 1e-3)])
def test_weights_and_bases_maximise_the_likelihood_of_rows_and_pseudo_rows(
    count, n_steps, nats, share, monkeypatch
):
    """A hundred steps end .11 nats of 300 rows before the maximum, as the components overlap."""
    monkeypatch.setattr("skbi.training.ensemble._N_EM_STEPS", n_steps)
    ensemble, z, row_weights = spread_out()
    flows = [member.flow for member in ensemble.members]
    training = JointTraining(ensemble.members)
    score = training.weigh(
        lambda: (training.log_prob(z, torch.zeros(2, 300, 1)), row_weights), count
    )
    np.testing.assert_array_equal(training.flow.base_shares, [0, 1, 0, 0])  # as training goes on
    training.release()
    scores = np.array(
        [
            [stats.norm.logpdf(z[:, 0], centre, scale) for scale in BASE_SCALES]
            for centre in (0.0, 1.0)
        ]
    )
    base_counts = np.array(_BASE_COUNTS)
    exact = penalised_maximum(scores, row_weights.numpy(), count, base_counts)
    weights = np.exp([member.log_weight.item() for member in ensemble.members])
    shares = flows[0].base_shares.numpy()
    assert weights.sum() == pytest.approx(1, abs=1e-5)
    assert shares.sum() == pytest.approx(1, abs=1e-5)
    *_, loss = exact
    slow, found = (loss(np.log(np.r_[w, s])) for w, s in (exact[:2], (weights, shares)))
    assert -1e-3 < found - slow < nats
    np.testing.assert_allclose(weights, exact[0], atol=2 * share)
    np.testing.assert_allclose(shares[3], exact[1][3], atol=share)
    np.testing.assert_array_equal(flows[1].base_shares, shares)
    mixed = ensemble.log_prob(z, contexts(ensemble, 300)).detach()
    assert score == pytest.approx(float((row_weights * mixed).mean()), abs=1e-4)


def test_members_of_an_ensemble_are_weighed_with_one_pseudo_row_each():
    rng = np.random.default_rng(0)
    scores, row_weights = rng.normal(size=(3, 40)), rng.uniform(0, 2, 40)
    ensemble = densities(0, 0, 0)
    ensemble.weigh(torch.as_tensor(scores), torch.as_tensor(row_weights))
    weights, *_ = penalised_maximum(scores[:, None], row_weights, 1.0, np.ones(1))
    found = np.exp([member.log_weight.item() for member in ensemble.members])
    np.testing.assert_allclose(found, weights, atol=2e-3)


def test_a_narrower_or_wider_truth_shows_in_the_base():
    rng, variances = np.random.default_rng(0), []
    for sd in (0.87, 1.0, 1.15):
        members = densities(0).members
        training = JointTraining(members)
        z = torch.as_tensor(sd * rng.normal(size=(2000, 2)), dtype=torch.float32)
        log_prob = partial(training.log_prob, z, torch.zeros(1, 2000, 1))
        training.weigh(partial(lambda log_prob: (log_prob(), torch.ones(2000)), log_prob))
        training.release()
        shares = members[0].flow.base_shares.numpy()
        variances.append((shares * np.square(BASE_SCALES)).sum())
    np.testing.assert_allclose(np.sqrt(variances), [0.87, 1.0, 1.15], atol=0.05)


def test_before_training_goes_on_what_validation_decided_is_forgotten():
    (member,) = densities(2.0).members
    member.flow.base_shares.fill_(0.25)
    member.reset()
    assert member.log_weight == 0
    np.testing.assert_array_equal(member.flow.base_shares, densities(0).members[0].flow.base_shares)


def test_members_of_any_weight_can_be_called_active():
    ensemble = densities(0.0, math.log(0.005), math.log(1e-6))
    for least, n in [(0.01, 1), (1e-3, 2), (1e-7, 3)]:
        assert ensemble.active(least).members == ensemble.members[:n]


def test_draws_of_each_member_are_restored_by_its_own_map():
    ensemble = densities(0.0, 0.0, p=1)  # about 0 and 10
    ensemble.members[1].flow.base_shares.copy_(torch.tensor([0, 0.5, 0, 0.5]))

    def restore(member, z):
        assert z.dtype == np.float64
        return z - 10 + 100 if member is ensemble.members[1] else z

    rng = np.random.default_rng(0)
    z = ensemble.draw(contexts(ensemble, 2), (2, 20_000, 1), rng, restore)[..., 0]
    second = z > 50
    assert (second[0] == second[1]).all()
    assert abs(second[0].mean() - 0.5) < 4 * 0.0036
    assert stats.kstest(z[0, ~second[0]], "norm").pvalue > 1e-3
    of_second = z[0, second[0]] - 100
    assert of_second.var() == pytest.approx(0.5 + 0.5 * 16, rel=0.1)


class Aliased(nn.Module):
    """A user's module, which lists its layers a second time."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.layers = [self.first]

    def forward(self, x):
        return self.layers[0](x)


@pytest.mark.parametrize(
    "module",
    [DeepSet(2, 3), VectorField(2, 3, (4, 4)), nn.Sequential(nn.Linear(2, 2), Aliased())],
    ids=["DeepSet", "VectorField", "user's"],
)
def test_a_copy_in_double_precision_is_a_deep_copy(module):
    holder = Member()
    holder.module = module
    (twin,) = Ensemble([holder]).double().members
    deep = copy.deepcopy(holder).double()
    assert list(twin.state_dict()) == list(deep.state_dict())
    for one, other in zip(twin.state_dict().values(), deep.state_dict().values(), strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    twin.log_weight += 1
    for one in twin.module.parameters():
        one.data += 1
    assert holder.log_weight == 0
    assert {parameter.dtype for parameter in holder.parameters()} == {torch.float32}
    assert torch.equal(next(deep.module.parameters()), next(holder.module.parameters()).double())
    if isinstance(module, nn.Sequential):
        x = torch.ones(1, 2, dtype=torch.float64)
        torch.testing.assert_close(twin.module[1](x), deep.module[1](x) + 3)  # two weights, a bias
