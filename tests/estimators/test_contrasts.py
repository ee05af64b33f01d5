"""Losses of pairs and contrasts: slow references, and the true ratio as their optimum."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skbi.estimators.contrasts import ContrastiveLoss, Contrasts, imbalance, nre_a, nre_c
from skbi.networks.critic import Critic
from skbi.preprocessing.packed import Batch
from skbi.training.ensemble import JointTraining, Member

JOINT = torch.tensor([[0.2, 0.1, 0.05], [0.05, 0.15, 0.45]], dtype=torch.float64)  # p(theta, x)
PRIOR, EVIDENCE = JOINT.sum(1), JOINT.sum(0)
LOG_RATIO = (JOINT / PRIOR[:, None] / EVIDENCE).log()


def equal_weights(n, k):
    return torch.zeros(n, k, dtype=torch.float64)


@given(seed=st.integers(0, 1000), k=st.integers(2, 6), gamma=st.floats(0.1, 10), own=st.booleans())
def test_nre_c_is_the_cross_entropy_of_its_classes(seed, k, gamma, own):
    """With candidates 1 .. K and none: q(0) = K / (K + gamma sum h), q(1) = gamma h_1 / (...)."""
    rng = np.random.default_rng(seed)
    f, others = rng.normal(size=1), rng.normal(size=(1, k))
    log_weights = equal_weights(1, k)
    if own:  # the first contrast is the pair itself
        log_weights[0, 0] = -np.inf
    h, h_others = np.exp(f[0]), np.exp(others[0, int(own) :])
    n = len(h_others)
    none = -np.log(n / (n + gamma * h_others.sum()))
    total = h + h_others[:-1].sum()
    pair = -np.log(gamma * h / (n + gamma * total))
    expected = (none + gamma * (pair - np.log(n) + np.log(gamma))) / (1 + gamma)
    found = nre_c(torch.as_tensor(f), torch.as_tensor(others), log_weights, gamma)
    np.testing.assert_allclose(found[0], expected)


@given(f=st.floats(-5, 5), other=st.floats(-5, 5))
def test_with_one_contrast_nre_c_is_nre_a(f, other):
    arguments = torch.tensor([f]), torch.tensor([[other]]), torch.zeros(1, 1)
    torch.testing.assert_close(nre_c(*arguments), nre_a(*arguments))


@given(seed=st.integers(0, 1000), weight=st.integers(1, 3))
def test_a_contrast_of_weight_two_is_two_contrasts(seed, weight):
    torch.manual_seed(seed)
    f, others = torch.randn(1), torch.randn(1, 3)
    log_weights = torch.tensor([[weight, 1.0, 1.0]]).log()
    repeated = torch.cat([others[:, :1].expand(1, weight), others[:, 1:]], dim=1)
    equal = torch.zeros(repeated.shape)
    for loss in (nre_c, nre_a):
        torch.testing.assert_close(loss(f, others, log_weights), loss(f, repeated, equal))


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("loss", [nre_c, nre_a, "gamma"])
def test_the_true_ratio_is_where_the_expected_loss_is_stationary(loss, k):
    """The expectation is over all pairs and contrasts of a joint distribution of six cells."""
    if loss == "gamma":

        def loss(*arguments):
            return nre_c(*arguments, 3.0)

    def expected(f):
        total = 0.0
        for theta, x in itertools.product(range(2), range(3)):
            for others in itertools.product(range(2), repeat=k):
                p = JOINT[theta, x] * math.prod(PRIOR[j] for j in others)
                contrasts = f[list(others), x][None]
                total = total + p * loss(f[theta, x][None], contrasts, equal_weights(1, k))[0]
        return total

    f = LOG_RATIO.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(expected(f), f)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)
    shifted = [expected(LOG_RATIO + step) for step in torch.randn(5, 2, 3).double()]
    assert min(shifted) > expected(LOG_RATIO)


def test_the_true_ratio_is_balanced():
    cells = list(itertools.product(range(2), range(3)))
    theta, x = np.transpose(cells)
    own, contrasts = LOG_RATIO[theta, x], LOG_RATIO[:, x].T
    balanced = imbalance(own, contrasts, PRIOR.log().expand(6, -1), JOINT[theta, x])
    torch.testing.assert_close(balanced, torch.zeros(1).double(), atol=1e-12, rtol=0)
    assert imbalance(own + 1, contrasts, PRIOR.log().expand(6, -1), JOINT[theta, x]) > 0.01


class Tiny(Member):
    """Embeds theta and x by a critic alone."""

    def __init__(self):
        super().__init__()
        self.critic = Critic(1, 1, (4,))

    def embed_parameters(self, z):
        return self.critic.of_parameters(z)

    def embed_observations(self, batch):
        return self.critic.of_observations(batch.points)

    def of_all(self, theta, x):
        return self.critic.of_all(theta, x, torch.zeros(len(x), len(theta), 1))

    def of_pairs(self, theta, x):
        return self.critic.of_pairs(theta, x, torch.zeros(len(x), 1))


@pytest.mark.parametrize("n_contrasts", [2, 5, 7, 30])
@pytest.mark.parametrize("n_rows", [1, 8])
def test_contrasts_are_other_pairs_and_the_same_ones_after_training(n_contrasts, n_rows):
    training = JointTraining([Tiny(), Tiny()])
    z, weights = torch.randn(40, 1), torch.ones(40)
    contrasts = Contrasts(
        training, lambda rows, _: Batch(z[rows]), z, weights, torch.arange(40),
        torch.arange(8, 40), n_contrasts, 6, torch.Generator().manual_seed(0),
    )  # fmt: skip
    rows = torch.arange(n_rows) + 8
    own, others, log_weights, row_weights = contrasts(rows, 1.0)
    assert own.shape == (2, n_rows)
    assert others.shape == (2, *log_weights.shape)
    assert n_contrasts <= others.shape[-1] <= n_contrasts + 1
    assert (log_weights.exp().sum(1) >= n_contrasts - 1).all()
    assert row_weights.shape == (n_rows,)
    training.eval()
    first, again = contrasts(torch.arange(8), 1.0), contrasts(torch.arange(8), 1.0)
    torch.testing.assert_close(first[1], again[1])
    assert first[1].shape == (2, 8, 6)
    losses, _ = ContrastiveLoss(contrasts, "nre-c", 1.0, 0.0)(torch.arange(8), 1.0)
    torch.testing.assert_close(losses, torch.full((2, 8), math.log(2)))  # before training
