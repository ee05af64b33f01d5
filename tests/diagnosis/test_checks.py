"""Every check passes what is right and names what is wrong."""

import numpy as np
import pytest
from known_posterior import Gaussian, gaussian_runs
from scipy import stats

from skbi import JointPrior
from skbi.calibration.classifier import LocalTest
from skbi.calibration.predictive import compare_with_replications
from skbi.calibration.recovery import recover
from skbi.calibration.report import report_on
from skbi.diagnosis import checks
from skbi.samplers import SamplerInfo

NAMES, LEVEL = ["a", "b"], 0.01
PRIOR = JointPrior({"a": stats.norm(), "b": stats.uniform(-1, 2)})
DATA = np.random.default_rng(0).normal(size=(500, 3))


def test_a_prior_that_did_not_make_the_truths_is_named():
    theta = PRIOR.sample(500, random_state=0)
    assert checks.check_prior(PRIOR, theta, NAMES, LEVEL).passed
    wide = JointPrior({"a": stats.norm(0, 2), "b": stats.uniform(-1, 2)})
    assert "a of the simulations" in checks.check_prior(wide, theta, NAMES, LEVEL).verdict
    narrow = JointPrior({"a": stats.norm(), "b": stats.uniform(-1, 1)})
    assert "lie outside" in checks.check_prior(narrow, theta, NAMES, LEVEL).verdict
    assert checks.check_prior(None, theta, NAMES, LEVEL).passed is None


def test_an_observation_that_is_unlike_the_simulations_is_named():
    typical, far = (compare_with_replications(DATA, [[0, x, 0]]) for x in (0, 9))
    assert checks.check_typicality(np.array([0.5]), [typical], LEVEL).passed
    found = checks.check_typicality(np.array([0.5, 0.5]), [typical, far], LEVEL)
    assert "observation 1" in found.verdict
    assert "x_1" in found.verdict
    assert checks.check_typicality(np.array([1e-4]), [typical], LEVEL).passed is False
    assert "p = 0.5" in checks.check_typicality(np.array([0.25]), [typical], LEVEL).verdict
    assert checks.check_predictions([typical], LEVEL).passed
    assert "misfit" in checks.check_predictions([typical, far], LEVEL).verdict


@pytest.mark.parametrize(
    ("wrong", "verdict"), [({}, None), ({"scale": 0.5}, "overconfident"), ({"shift": 1}, "high")]
)
def test_a_miscalibrated_parameter_is_named(wrong, verdict):
    theta, X = gaussian_runs(500)
    recovery = recover(Gaussian(**wrong), theta, X, n_samples=100, random_state=0, n_jobs=None)
    report = report_on(recovery, NAMES, log_score=None, significance=LEVEL)
    found = checks.check_calibration(report)
    assert found.passed is (verdict is None)
    assert verdict is None or verdict in found.verdict
    assert checks.check_information(report).passed


def test_a_posterior_that_is_the_prior_is_named():
    theta, X = gaussian_runs(500)
    X = np.column_stack([np.full(500, 0.0), X[:, 1]])
    prior_sd = Gaussian(scale=2**0.5)
    recovery = recover(
        prior_sd, theta, np.zeros_like(X), n_samples=100, random_state=0, n_jobs=None
    )
    report = report_on(recovery, NAMES, log_score=None, significance=LEVEL)
    found = checks.check_information(report)
    assert "a, b is calibrated because it is the prior" in found.verdict


def test_the_p_value_of_all_observations_together_is_uniform():
    """Statistics of 3 observations under the null, correlated, of scales of their own."""
    rng, p_values = np.random.default_rng(0), []
    for _ in range(200):
        statistics = (rng.gamma(2, size=(20, 3)) + rng.gamma(2, size=(20, 1))) * [1, 10, 1e-3]
        nothing = np.empty((3, 0))
        test = LocalTest(statistics[0], nothing, statistics[1:], nothing, nothing, NAMES)
        p_values.append(checks.overall_p_value(test)[0])
    assert (
        stats.chisquare(np.bincount(np.rint(20 * np.array(p_values)).astype(int))[1:]).pvalue > 1e-3
    )


def test_particles_that_have_not_mixed_are_named():
    fine = SamplerInfo("smc", 100, ess=np.array([500.0, 900.0]))
    assert "500" in checks.check_sampler([fine]).verdict
    stuck = SamplerInfo("smc", 100, warnings=("The particles have not mixed: raise it.",))
    chains = SamplerInfo("nuts", 100, r_hat=np.array([1.2, np.nan]))
    heavy = SamplerInfo("importance", 100, pareto_k=0.9)
    for info, words in [(stuck, "not mixed"), (chains, "R-hat is 1.2"), (heavy, "k is 0.90")]:
        found = checks.check_sampler([fine, info])
        assert found.passed is False
        assert words in found.verdict
    assert checks.check_sampler([]).passed is None


def test_checks_without_their_data_are_not_done():
    assert checks.check_typicality(None, [], LEVEL).passed is None
    assert checks.check_predictions([], LEVEL).passed is None
    assert checks.check_region(None, LEVEL).passed is None
    assert checks.check_local(None, "no budget", LEVEL).verdict == "no budget"
