"""Enumeration of discrete parameters against Bayes' rule."""

import numpy as np
import pytest
from likelihoods import flat
from scipy import stats

from skbi import JointPrior
from skbi.samplers.enumeration import discrete_combinations, enumerate_all


def test_enumeration_is_bayes_rule():
    """Poisson(4) events, each seen with probability 0.3: the unseen ones are Poisson(2.8)."""
    prior = JointPrior({"n": stats.poisson(4)})
    seen, rng = 2, np.random.default_rng(0)

    def log_likelihood(theta):
        return stats.binom.logpmf(seen, theta[:, 0], 0.3)

    draws, info = enumerate_all(log_likelihood, prior, 20_000, rng)
    counts = np.bincount(draws[:, 0].astype(int) - seen, minlength=20)[:8]
    expected = 20_000 * stats.poisson(2.8).pmf(np.arange(8))
    assert stats.chi2.sf(((counts - expected) ** 2 / expected).sum(), 8) > 1e-3
    assert info.log_evidence == pytest.approx(stats.poisson(1.2).logpmf(seen))


def test_what_cannot_be_enumerated_says_so():
    rng = np.random.default_rng(0)
    coin = stats.bernoulli(0.5)
    with pytest.raises(ValueError, match=r"'a'.*cannot be enumerated"):
        enumerate_all(flat, JointPrior({"k": coin, "a": stats.norm()}), 1, rng)
    with pytest.raises(ValueError, match="combinations"):
        enumerate_all(flat, JointPrior({c: stats.randint(0, 100) for c in "abc"}), 1, rng)


def test_the_combinations_of_infinite_supports_hold_nearly_all_of_the_prior():
    prior = JointPrior({"n": stats.poisson(4), "m": stats.geom(0.5), "k": stats.randint(-1, 2)})
    combinations = discrete_combinations(prior, 10_000)
    assert len(np.unique(combinations, axis=0)) == len(combinations)
    assert abs(np.exp(prior.log_prob(combinations)).sum() - 1) < 1e-11
