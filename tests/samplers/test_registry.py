"""The list of samplers, and one of a user's own, written against the public interface."""

import numpy as np
import pytest
from scipy import stats

from skbi import JointPrior
from skbi.priors import from_normal
from skbi.samplers import Sampler, SamplerInfo, find_sampler, register_sampler, sample_each
from skbi.samplers.registry import SAMPLERS, check_options, summarise_warnings

PRIOR = JointPrior({"mu": stats.norm(0, 1)})
DISCRETE = JointPrior({"k": stats.bernoulli(0.5)})


def metropolis(likelihood, prior, n_samples, rng, *, n_steps=100, step=1.0):
    """Walk at random in the prior's Gaussian coordinates, a walker for each draw."""
    z = rng.standard_normal((n_samples, len(prior.names)))

    def log_density(z):
        return likelihood(from_normal(prior, z)) - 0.5 * (z**2).sum(axis=1)

    value = log_density(z)
    for _ in range(n_steps):
        proposed = z + step * rng.standard_normal(z.shape)
        new = log_density(proposed)
        accepted = np.log(rng.random(n_samples)) < new - value
        z[accepted], value[accepted] = proposed[accepted], new[accepted]
    return from_normal(prior, z), SamplerInfo("metropolis", n_samples * (n_steps + 1))


METROPOLIS = Sampler("metropolis", metropolis, many_observations=True)


class Gaussian:
    """The likelihood of one number x ~ N(mu, 1)."""

    def __init__(self, x):
        self.x = x

    def __call__(self, theta):
        """Log likelihood."""
        return stats.norm.logpdf(self.x, theta[:, 0])


def test_a_sampler_of_ones_own_samples_the_posterior():
    likelihoods = [Gaussian(-1.0), Gaussian(2.0)]
    options = {"options": {"n_steps": 40}}
    rng = np.random.default_rng(0)
    draws, infos = sample_each(METROPOLIS, likelihoods, PRIOR, 2000, rng, **options)
    for x, sample, info in zip((-1.0, 2.0), draws, infos, strict=True):
        assert stats.kstest(sample[:, 0], stats.norm(x / 2, 0.5**0.5).cdf).pvalue > 1e-3
        assert info.n_calls == 2000 * 41
    rng = np.random.default_rng(0)
    again, _ = sample_each(METROPOLIS, likelihoods, PRIOR, 2000, rng, n_jobs=2, **options)
    np.testing.assert_array_equal(again, draws)


def test_a_registered_sampler_is_a_choice():
    assert find_sampler(METROPOLIS, PRIOR) is METROPOLIS
    with pytest.raises(ValueError, match="'metropolis'"):
        find_sampler("metropolis", PRIOR)
    register_sampler(METROPOLIS)
    try:
        assert find_sampler("metropolis", PRIOR) is METROPOLIS
    finally:
        del SAMPLERS["metropolis"]
    with pytest.raises(TypeError, match="a name or a Sampler; got function"):
        find_sampler(metropolis, PRIOR)


def test_auto_enumerates_what_can_be_and_samples_the_rest():
    many = JointPrior({f"k{j}": stats.bernoulli(0.5) for j in range(30)})
    assert find_sampler("auto", DISCRETE).name == "enumerate"
    assert find_sampler("auto", PRIOR).name == "smc"
    assert find_sampler("auto", many, evidence=True).name == "smc"
    with pytest.raises(ValueError, match="'nuts' does not know the evidence"):
        find_sampler("nuts", PRIOR, evidence=True)


def test_options_of_another_sampler_are_refused():
    with pytest.raises(TypeError, match=r"'smc' has no options \['nlive'\]; it has \['n_particles"):
        check_options(find_sampler("smc", PRIOR), {"nlive": 50})
    check_options(find_sampler("nested", PRIOR), {"nlive": 50, "dlogz": 1})
    check_options(METROPOLIS, {"n_steps": 3})


def test_warnings_that_differ_in_figures_only_are_told_once():
    infos = [SamplerInfo("nuts", 1, warnings=w) for w in ((), ("R-hat 1.2",), ("R-hat 1.35", "x"))]
    assert summarise_warnings(infos[1:2]) == ["R-hat 1.2"]
    told = summarise_warnings(infos)
    assert told == [
        "2 of 3 observations, first row 1: R-hat 1.2",
        "1 of 3 observations, first row 2: x",
    ]
