"""Probabilities of discrete variables: they sum to one, draws follow them, and others have none."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from skbi.networks.categories import Categories

VALUES = [torch.tensor([-1.0, 1.0]), torch.tensor([-0.5, 0.0, 2.0]), torch.arange(40.0) / 10]


@pytest.fixture(params=[1, 2, 3], ids=["one", "two", "three"])
def categories(request):
    torch.manual_seed(0)
    made = Categories([len(v) for v in VALUES[: request.param]], 4, (5,))
    made.set_values(VALUES[: request.param])
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
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
