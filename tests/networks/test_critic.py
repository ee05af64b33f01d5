"""Scores of all pairs are those of each pair, and what the equation says."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import silu

from skbi.networks.critic import Critic


def trained(seed, p=2, d=3):
    """Return a critic whose scales are not zero, embedded theta (5) and x (4), and differences."""
    torch.manual_seed(seed)
    critic = Critic(p, d, (8,), n_products=6, n_compared=3).double()
    for parameter in critic.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    theta = critic.of_parameters(torch.randn(5, p, dtype=torch.float64))
    x = critic.of_observations(torch.randn(4, d, dtype=torch.float64))
    return critic, theta, x, torch.randn(4, 5, 1, dtype=torch.float64)


@given(seed=st.integers(0, 1000))
def test_all_scores_are_those_of_the_pairs(seed):
    critic, theta, x, y = trained(seed)
    scores = critic.of_all(theta, x, y)
    for i in range(4):
        for j in range(5):
            pair = critic.of_pairs(theta[j : j + 1], x[i : i + 1], y[i, j : j + 1])
            torch.testing.assert_close(scores[i, j], pair[0])


def test_a_score_is_what_the_equation_says():
    critic, theta, x, y = trained(0)
    u, a, b = theta[0].split([6, 3, 3])
    v, c, d = x[0].split([6, 3, 3])
    gate_of_y, value_of_y = (critic.differences.weight[:, 0] * y[0, 0, 0]).split([3, 3])
    compared = (a + c + gate_of_y) * (b + d + value_of_y)
    gate, value = critic.phi.linear(compared).chunk(2)
    expected = u @ v + critic.last(silu(gate) * value)[0]
    torch.testing.assert_close(critic.of_all(theta, x, y)[0, 0], expected)


def test_every_score_is_zero_before_training_and_has_a_gradient():
    critic = Critic(2, 3)
    theta, x = critic.of_parameters(torch.randn(5, 2)), critic.of_observations(torch.randn(4, 3))
    scores = critic.of_all(theta, x, torch.randn(4, 5, 1))
    assert (scores == 0).all()
    (scores * torch.randn(4, 5)).sum().backward()
    assert critic.product_scales.grad.abs().min() > 0
    assert critic.last.weight.grad.abs().max() > 0


def test_linear_paths_are_not_shrunk():
    critic = Critic(2, 3)
    shrunk = {id(w) for w in critic.shrunk()}
    assert id(critic.parameters_net.linear.weight) not in shrunk
    assert id(critic.observations_net.last.weight) in shrunk
    assert len(shrunk) == 6
