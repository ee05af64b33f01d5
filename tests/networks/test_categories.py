"""Probabilities of discrete variables: they sum to one, draws follow them, and others have none."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import log_softmax

from skbi.networks.categories import Categories

VALUES = [torch.tensor([-1.0, 1.0]), torch.tensor([-0.5, 0.0, 2.0]), torch.arange(40.0) / 10]


@pytest.fixture(params=[1, 2, 3], ids=["one", "two of one softmax", "three"])
def categories(request):
    torch.manual_seed(0)
    made = Categories([len(v) for v in VALUES[: request.param]], 4, (5,))
    assert len(made.sizes) == 1 if request.param < 3 else 3
    made.set_values(VALUES[: request.param])
    for tensor in (*made.parameters(), *made.rules.buffers()):
        torch.nn.init.normal_(tensor, std=0.3)
    return made


def combinations(categories):
    return torch.tensor(list(itertools.product(*VALUES[: len(categories.n_values)])))


def test_probabilities_sum_to_one_for_every_context(categories):
    z = combinations(categories)
    for context in torch.randn(5, 4):
        log_q = categories.log_prob(z, context.expand(len(z), -1))
        assert torch.isclose(log_q.exp().sum(), torch.ones(()))


def test_draws_have_these_probabilities(categories):
    z, context, n = combinations(categories), torch.randn(1, 4), 20_000
    u = torch.as_tensor(np.random.default_rng(0).random((n, len(categories.n_values))))
    draws = categories.quantiles(u.float(), context.expand(n, -1))
    expected = n * categories.log_prob(z, context.expand(len(z), -1)).exp().detach().numpy()
    _, found = np.unique(np.vstack([z, draws]), axis=0, return_counts=True)
    common = expected > 5
    chi2 = ((found - 1 - expected)[common] ** 2 / expected[common]).sum()
    assert stats.chi2.sf(chi2, common.sum()) > 1e-3


def test_the_ends_of_the_unit_interval_are_the_outermost_values(categories):
    ends = torch.tensor([[0.0], [1 - 1e-7]]).expand(-1, len(categories.n_values))
    low, high = categories.quantiles(ends, torch.zeros(2, 4)).tolist()
    assert low == [float(v[0]) for v in VALUES[: len(low)]]
    assert high == [float(v[-1]) for v in VALUES[: len(low)]]


def test_what_is_no_value_has_no_probability(categories):
    z = combinations(categories)[:1].clone()
    z[0, -1] = VALUES[len(categories.n_values) - 1][-1] + 1
    assert categories.log_prob(z, torch.zeros(1, 4)).item() == -np.inf


def test_codes_tell_the_values_apart(categories):
    z = combinations(categories)
    codes = categories.codes(z)
    assert codes.shape == (len(z), categories.width)
    assert len(np.unique(codes.round(decimals=5), axis=0)) == len(z)


def test_probabilities_of_combinations_are_products():
    masses = [torch.tensor([0.1, 0.9]), torch.tensor([0.2, 0.3, 0.5])]
    (joint,) = Categories([2, 3], 4).probabilities(masses)
    torch.testing.assert_close(joint, torch.outer(*masses).flatten())
    assert Categories([2, 5], 4).probabilities(masses) == masses


@pytest.mark.parametrize("n_values", [[4], [2, 2], [40]])
def test_it_starts_where_it_is_told(n_values):
    categories, rng = Categories(n_values, 3), np.random.default_rng(0)
    n, h = categories.sizes[0], rng.normal(size=(7, 3))
    weight, bias, quadratic = (rng.normal(size=s) for s in ((n, 3), (n,), (n, 3, 3)))
    start = [torch.tensor(a) for a in (weight, bias, quadratic)]
    categories.start_at(0, *(start if categories.is_quadratic(0) else start[:2]))
    logits = np.array([[w @ x + b for w, b in zip(weight, bias, strict=True)] for x in h])
    if n_values != [40]:
        logits += [[x @ q @ x for q in quadratic] for x in h]
    found = categories.log_probs(torch.tensor(h).float()).detach().numpy()
    np.testing.assert_allclose(found, log_softmax(logits, axis=1), atol=1e-5)
