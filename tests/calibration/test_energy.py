"""The energy score against closed forms and a slow reference."""

import numpy as np
import pytest
from known_posterior import Gaussian, gaussian_runs
from sklearn.model_selection import cross_val_score

from skbi import NPEEstimator, energy_score


def slow(theta, draws):
    """Return the score by loops."""
    scale, scores = theta.std(axis=0), []
    for truth, own in zip(theta / scale, draws / scale, strict=True):
        m = len(own)
        to_truth = np.mean([np.linalg.norm(a - truth) for a in own])
        others = [np.linalg.norm(own[i] - own[j]) for i in range(m) for j in range(m) if i != j]
        scores.append(to_truth - 0.5 * np.mean(others))
    return np.array(scores)


class Fixed:
    """Gives the same draws to every observation, of which the first number says which it is."""

    def __init__(self, draws):
        self.draws = draws

    def sample_posterior(self, X, n_samples, *, random_state=None):
        return self.draws[X[:, 0].astype(int), :n_samples]


def test_it_is_what_the_equation_says():
    rng = np.random.default_rng(0)
    theta, draws = rng.normal(size=(120, 3)) * [1, 5, 0.1], rng.normal(size=(120, 7, 3))
    fixed, rows = Fixed(draws), np.arange(120)[:, None]
    expected = slow(theta, draws)
    assert energy_score(fixed, theta, rows, n_samples=7) == pytest.approx(expected.mean())
    weights = rng.integers(0, 3, 120)
    found = energy_score(fixed, theta, rows, n_samples=7, sample_weight=weights)
    assert found == pytest.approx(np.average(expected, weights=weights))


def test_a_gaussian_posterior_has_the_score_of_the_closed_form():
    """In one dimension E |a - theta| = E |a - b| = 2 sd / sqrt(pi) for the exact posterior."""
    theta, X = gaussian_runs(20_000, p=1)
    expected = 0.5 * 2 * 0.5**0.5 / np.pi**0.5 / theta.std()
    found = energy_score(Gaussian(), theta, X, n_samples=20, random_state=0)
    assert found == pytest.approx(expected, rel=0.01)


def test_the_exact_posterior_scores_best():
    theta, X = gaussian_runs()
    exact = energy_score(Gaussian(), theta, X, random_state=0)
    for options in ({"shift": 0.3}, {"shift": -0.3}, {"scale": 0.7}, {"scale": 1.4}):
        assert energy_score(Gaussian(**options), theta, X, random_state=0) > exact


def test_neither_units_nor_jobs_nor_the_number_of_draws_matter():
    theta, X = gaussian_runs(500)
    score = energy_score(Gaussian(), theta, X, random_state=0)
    assert energy_score(Gaussian(), theta, X, random_state=0, n_jobs=2) == score
    few = energy_score(Gaussian(), theta, X, n_samples=2, random_state=0)
    assert few == pytest.approx(score, rel=0.05)

    class InMillimetres(Gaussian):
        def sample_posterior(self, X, n_samples, *, random_state=None):
            return 1000 * super().sample_posterior(X, n_samples, random_state=random_state)

    found = energy_score(InMillimetres(), 1000 * theta, X, random_state=0)
    assert found == pytest.approx(score)


def test_a_parameter_that_is_constant_among_the_truths_counts_in_its_own_units():
    theta, X = gaussian_runs(100)
    theta[:, 1] = 1.0
    assert np.isfinite(energy_score(Gaussian(), theta, X, random_state=0))


def scorer(estimator, theta, X):
    """Return a score that is higher if better."""
    return -energy_score(estimator, theta, X, n_samples=20, random_state=0)


def test_it_scores_a_search_and_estimators_of_all_kinds():
    theta, X = gaussian_runs(200)
    npe = NPEEstimator(max_iter=1, n_transforms=1, hidden_layer_sizes=(8,), random_state=0)
    assert (cross_val_score(npe, theta, X, scoring=scorer, cv=2, error_score="raise") < 0).all()


@pytest.mark.parametrize("n_samples", [1, 0, 2.5, "many"])
def test_numbers_of_draws_that_tell_nothing_are_refused(n_samples):
    theta, X = gaussian_runs(10)
    with pytest.raises(ValueError, match=f"at least 2; got {n_samples!r}"):
        energy_score(Gaussian(), theta, X, n_samples=n_samples)


def test_pairs_that_do_not_match_are_refused():
    theta, X = gaussian_runs(10)
    with pytest.raises(ValueError, match="same number of runs; got 9 and 10"):
        energy_score(Gaussian(), theta[:9], X)
    with pytest.raises(ValueError, match=r"sample_weight.shape == \(3,\)"):
        energy_score(Gaussian(), theta, X, sample_weight=np.ones(3))
