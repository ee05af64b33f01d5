"""Networks computed side by side give what they give one after the other."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skbi.estimators.side_by_side import SideBySide


def networks(n, d=3):
    torch.manual_seed(0)
    return [nn.Sequential(nn.Linear(d, 5), nn.Tanh(), nn.Linear(5, 2)) for _ in range(n)]


def apply(network, part):
    return network(part)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 3), n_rows=st.integers(1, 9), size=st.integers(1, 4), k=st.integers(1, 4))
def test_values_and_gradients_are_those_of_one_after_the_other(n, n_rows, size, k):
    nets, x = networks(n), torch.randn(n_rows, 3, generator=torch.Generator().manual_seed(n_rows))
    weights = [w for net in nets for w in net.parameters()]
    out = SideBySide(k)(nets, apply, x.split(size))
    plain = torch.stack([net(x) for net in nets])
    torch.testing.assert_close(out, plain)
    found, wanted = (torch.autograd.grad((y**3).sum(), weights) for y in (out, plain))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_bits_do_not_depend_on_the_number_of_threads():
    nets, x = networks(2), torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    weights = [w for net in nets for w in net.parameters()]
    outs = [SideBySide(k)(nets, apply, x.split(20)) for k in (1, 2, 6)]
    gradients = [torch.autograd.grad(out.square().sum(), weights) for out in outs]
    for out, gradient in zip(outs, gradients, strict=True):
        assert torch.equal(out, outs[0])
        assert all(map(torch.equal, gradient, gradients[0]))


def test_threads_have_one_torch_thread_each_and_no_gradients_unless_asked_for():
    seen = []

    def look(network, part):
        seen.append((threading.get_ident(), torch.get_num_threads(), torch.is_grad_enabled()))
        return network(part)

    before = torch.get_num_threads()
    with torch.no_grad():
        out = SideBySide(2)(networks(2), look, torch.zeros(4, 3).split(2))
    assert not out.requires_grad
    assert {each[1:] for each in seen} == {(1, False)}
    assert torch.get_num_threads() == before
    SideBySide(2)(networks(2), look, [torch.zeros(4, 3)])
    assert seen[-1][2]


def test_networks_without_weights_and_unused_weights_have_no_gradient():
    out = SideBySide(2)([nn.Flatten(), nn.Flatten()], apply, [torch.ones(2, 3)])
    assert not out.requires_grad
    net = nn.ModuleList([nn.Linear(3, 1), nn.Linear(3, 1)])
    out = SideBySide(1)([net], lambda each, part: each[0](part), [torch.ones(2, 3)])
    gradients = torch.autograd.grad(out.sum(), list(net.parameters()))
    assert [bool(g.any()) for g in gradients] == [True, True, False, False]


def test_what_fails_in_a_thread_is_raised():
    def fail(network, part):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        SideBySide(2)(networks(2), fail, [torch.zeros(1, 3)])


def test_training_sees_the_same_with_one_thread_and_with_two():
    from scipy import stats

    from skbi import JointPrior, NPEEstimator

    prior = JointPrior({"m": stats.norm()})
    theta = prior.sample(60, random_state=0)
    X = theta[:, None] + np.random.default_rng(0).normal(size=(60, 200, 1))
    scores, before = [], torch.get_num_threads()
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            npe = NPEEstimator(prior=prior, max_iter=2, batch_size=50, random_state=0).fit(theta, X)
            scores.append(npe.score(theta, X))
    finally:
        torch.set_num_threads(before)
    assert scores[0] == scores[1]
