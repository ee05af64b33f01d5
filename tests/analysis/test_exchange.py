"""Tables and trees hold the draws, by name."""

import arviz_stats
import numpy as np
import pytest
from correlated import COVARIANCE, Correlated
from scipy import stats

from skbi import JointPrior, NLEEstimator, posterior_frame, posterior_summary, to_arviz

X = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]])


class UnderPrior(Correlated):
    """It has a wide prior."""

    prior = JointPrior({name: stats.norm(0, 5) for name in "abc"})


def noisy(theta, rng):
    return theta + rng.normal(size=3)


def test_a_frame_holds_the_draws_by_name():
    frame = posterior_frame(Correlated(), X, n_samples=10, random_state=0)
    draws = Correlated().sample_posterior(
        X, 10, random_state=np.random.default_rng(0).integers(2**31)
    )
    np.testing.assert_array_equal(frame.loc[1].to_numpy(), draws[1])
    assert frame.columns.tolist() == ["a", "b", "c"]
    one = posterior_frame(Correlated(), X[0], n_samples=10, random_state=0)
    assert one.index.names == ["draw"]


def test_a_summary_has_moments_and_quantiles():
    table = posterior_summary(Correlated(), X, intervals=[0.9], random_state=0)
    sd = np.diag(COVARIANCE) ** 0.5
    for i, x in enumerate(X):
        np.testing.assert_allclose(table.loc[i, "mean"], x, atol=0.06)
        np.testing.assert_allclose(table.loc[i, "median"], x, atol=0.06)
        np.testing.assert_allclose(table.loc[i, "sd"], sd, rtol=0.05)
        np.testing.assert_allclose(table.loc[i, "90% high"], x + 1.645 * sd, atol=0.1)
    assert posterior_summary(Correlated(), X[0], random_state=0).index.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="intervals must lie between 0 and 1"):
        posterior_summary(Correlated(), X, intervals=[95])


def test_a_tree_has_every_group_and_arviz_summarises_it():
    tree = to_arviz(UnderPrior(), X[0], simulator=noisy, n_samples=500, random_state=0)
    assert set(tree.children) == {
        "posterior", "observed_data", "sample_stats", "prior", "posterior_predictive",
        "prior_predictive",
    }  # fmt: skip
    np.testing.assert_array_equal(tree["observed_data"]["x"], X[0])
    theta = np.stack([tree["posterior"][name] for name in "abc"], axis=-1)
    lp = UnderPrior().log_prob(theta.reshape(-1, 3), X[:1])
    np.testing.assert_allclose(tree["sample_stats"]["lp"], lp.reshape(4, 500))
    noise = tree["posterior_predictive"]["x"].to_numpy() - theta  # data of the very same draws
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    table = arviz_stats.summary(tree, round_to="none")
    np.testing.assert_allclose(table["mean"].astype(float), X[0], atol=0.15)
    assert table["r_hat"].astype(float).max() < 1.02


@pytest.mark.filterwarnings("ignore:.*of the draws lie outside the range")
def test_a_tree_has_what_the_sampler_says():
    theta = np.random.default_rng(0).normal(size=(60, 1))
    prior = JointPrior({"a": stats.norm()})
    nle = NLEEstimator(prior=prior, max_iter=1, hidden_layer_sizes=(8,), random_state=0)
    tree = to_arviz(nle.fit(theta, theta + theta[::-1]), theta[:1], n_samples=50, random_state=0)
    assert "smc" in tree["sample_stats"].attrs["sampler"]
    assert "posterior_predictive" not in tree.children


def test_a_tree_is_of_one_observation():
    with pytest.raises(ValueError, match="one observation; got 2"):
        to_arviz(Correlated(), X)
