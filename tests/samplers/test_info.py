"""Diagnostics of chains against processes whose values are known."""

import math

import numpy as np
import pytest

from skbi.samplers.info import SamplerInfo, effective_sample_size, r_hat


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.9])
def test_effective_sample_size_of_an_autoregression(rho):
    n, m, rng = 4000, 4, np.random.default_rng(0)
    x = np.empty((n, m))
    x[0] = rng.normal(size=m) / math.sqrt(1 - rho**2)
    for i in range(1, n):
        x[i] = rho * x[i - 1] + rng.normal(size=m)
    exact = n * m * (1 - rho) / (1 + rho)
    assert effective_sample_size(x) == pytest.approx(exact, rel=0.25)
    assert r_hat(x) == pytest.approx(1, abs=0.02)


def test_r_hat_of_shifted_and_of_scaled_chains():
    x = np.random.default_rng(0).normal(size=(1000, 4))
    assert r_hat(x) < 1.01
    assert r_hat(x + np.array([0, 0, 0, 1])) > 1.1
    assert r_hat(x * np.array([1, 1, 1, 5])) > 1.1


def test_a_single_chain_is_compared_with_itself():
    x = np.random.default_rng(0).normal(size=(999, 1))
    drift = np.linspace(0, 2, 999)[:, None]
    assert r_hat(x) < 1.02
    assert r_hat(x + drift) > 1.1
    assert r_hat(x * (0.1 + drift)) > 1.1


def test_ranks_are_compared_and_the_order_of_chains_does_not_matter():
    """A Cauchy has no variance; its ranks have one, and are those of any increasing map of it."""
    x = np.random.default_rng(0).standard_cauchy((1000, 4))
    for diagnostic in (r_hat, effective_sample_size):
        assert diagnostic(x[:, ::-1]) == pytest.approx(diagnostic(x))
    assert r_hat(x) < 1.01
    assert effective_sample_size(np.arctan(x)) == pytest.approx(effective_sample_size(x))


@pytest.mark.parametrize("p", [1, 3, 1000])
def test_what_was_found_is_printed_in_a_line(p):
    info = SamplerInfo(
        "nested",
        1234,
        log_evidence=-2.62856651,
        ess=np.linspace(100.04, 507.6, p),
        r_hat=np.full(p, np.nan),
        results={"samples": np.zeros((10_000, 3))},
        warnings=("too few",),
    )
    text = str(info)
    assert text == repr(info)
    assert "sampler='nested', n_calls=1234, log_evidence=-2.629, ess=" in text
    assert "results=<dict>, warnings=('too few',)" in text
    assert "None" not in text
    assert ("<1000 from 100 to 507.6>" if p == 1000 else "[100") in text
    assert len(text) < 250
