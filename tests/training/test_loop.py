"""The fit loop on a problem with a closed-form optimum: least squares."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from skbi.randomness import seeded
from skbi.training.loop import TrainingPlan, _relative_rate, evaluate, train
from skbi.training.parameters import StackedParameters

PLAN = TrainingPlan(
    batch_size=20,
    learning_rate=0.05,
    shrinkage=0.0,
    max_iter=60,
    n_iter_no_change=1000,
    tol=0.0,
)
ONES = torch.ones(100)
ALL, TRAIN, VALIDATION = torch.arange(100), torch.arange(80), torch.arange(80, 100)


def problem(seed=0):
    """Return a linear module, its squared-error loss and the least-squares weights."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(100, 3))
    y = x @ [1.0, -2.0, 0.5] + 0.1 * rng.normal(size=100)
    best = np.linalg.lstsq(x, y, rcond=None)[0]
    x, y = torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y, dtype=torch.float32)
    with seeded(rng):
        module = nn.Linear(3, 1, bias=False)

    def objective(rows, fraction):
        losses = (module(x[rows])[:, 0] - y[rows]).square().unsqueeze(0)
        return losses, torch.ones(len(rows))

    return module, objective, best


def mean_loss(objective, rows):
    losses, weights = evaluate(objective, rows)
    return float((weights * losses).mean())


def replace(**changes):
    return TrainingPlan(**{**vars(PLAN), **changes})


def run(module, objective, plan=PLAN, validation_rows=None, *, seed=0, weights=None, progress=None):
    """Train an ensemble, or a module as one of a single member."""
    rows = ALL if validation_rows is None else TRAIN
    weights, rng = weights or StackedParameters([], [module], []), np.random.default_rng(seed)
    return train(module, weights, objective, rows, validation_rows, plan, rng, progress=progress)


def test_it_finds_the_least_squares_solution():
    module, loss, best = problem()
    run(module, loss)
    np.testing.assert_allclose(module.weight.detach().numpy()[0], best, atol=1e-3)


@given(max_iter=st.integers(1, 7), batch_size=st.integers(1, 150))
def test_it_runs_exactly_max_iter_epochs(max_iter, batch_size):
    module, loss, _ = problem()
    history = run(module, loss, replace(max_iter=max_iter, batch_size=batch_size), VALIDATION)
    assert history.n_iter == len(history.validation_scores) == max_iter


@given(share=st.floats(0.01, 1.0), batch_size=st.integers(1, 150))
def test_an_epoch_reads_its_share_of_the_rows_each_at_most_once(share, batch_size):
    module, loss, _ = problem()
    seen = []

    def observed(rows, fraction):
        seen.extend(rows.tolist())
        return loss(rows, fraction)

    run(module, observed, replace(max_iter=1, epoch_share=share, batch_size=batch_size))
    assert len(seen) == len(set(seen)) == math.ceil(share * 100)


def test_a_history_is_followed_by_another():
    module, loss, _ = problem()
    first = run(module, loss, replace(max_iter=2), VALIDATION)
    second = run(module, loss, replace(max_iter=3), VALIDATION)
    both = first.followed_by(second)
    assert both.n_iter == 5
    assert both.validation_scores == first.validation_scores + second.validation_scores
    assert both.best_scores == second.best_scores


def test_the_best_weights_come_back():
    module, loss, _ = problem()
    history = run(module, loss, replace(learning_rate=1.0), VALIDATION)
    score = -mean_loss(loss, VALIDATION)
    assert history.best_scores == [max(history.validation_scores)] == [pytest.approx(score)]
    assert history.has_improved
    assert not module.training


def test_a_start_that_is_never_beaten_comes_back():
    module, loss, best = problem()
    module.weight.data = torch.as_tensor(best, dtype=torch.float32).unsqueeze(0)
    start = module.weight.detach().clone()
    history = run(module, loss, replace(learning_rate=1.0, max_iter=3), VALIDATION)
    assert torch.equal(module.weight, start)
    assert history.best_scores[0] > max(history.validation_scores)
    assert not history.has_improved


def test_it_stops_once_the_score_has_not_improved_for_n_iter_no_change_epochs():
    module, loss, _ = problem()
    history = run(module, loss, replace(n_iter_no_change=4, tol=100.0), VALIDATION)
    assert history.n_iter == 4  # none improves on the start by so much


def test_fractions_are_read_in_order_and_scores_of_different_ones_are_not_compared():
    module, _, _ = problem()
    seen = []

    def loss(rows, fraction):  # the smaller the fraction, the better the score looks
        seen.append(fraction)
        losses = module.weight.square().sum() + fraction + torch.zeros(1, len(rows))
        return losses, torch.ones(len(rows))

    fractions = ((0.3, 0.1), (0.6, 0.5), (1.0, 1.0))
    plan = replace(max_iter=10, batch_size=100, set_fractions=fractions, n_iter_no_change=3)
    history = run(module, loss, plan, VALIDATION)
    assert seen[1::2] == [0.1] * 3 + [0.5] * 3 + [1.0] * 4
    assert history.best_scores == [max(history.validation_scores[-4:])]


@pytest.mark.parametrize("at", [0, 30])
def test_a_loss_that_is_not_finite_is_an_error_with_advice_and_keeps_finite_weights(at):
    module, loss, _ = problem()
    calls = []

    def broken(rows, fraction):
        calls.append(rows)
        losses, weights = loss(rows, fraction)
        return losses * (torch.nan if len(calls) > at else 1.0), weights

    with pytest.raises(FloatingPointError, match="Lower learning_rate_init"):
        run(module, broken)
    assert torch.isfinite(module.weight).all()


def test_interrupting_keeps_the_best_weights_and_says_so():
    module, loss, _ = problem()
    calls = []

    def interrupted(rows, fraction):
        calls.append(rows)
        if len(calls) > 53:
            raise KeyboardInterrupt
        return loss(rows, fraction)

    history = run(module, interrupted, validation_rows=VALIDATION)
    assert history.interrupted
    assert not run(*problem()[:2], replace(max_iter=1)).interrupted
    assert history.n_iter == 10
    score = -mean_loss(loss, VALIDATION)
    assert score == pytest.approx(max(history.validation_scores))


def test_interrupting_before_anything_is_learnt_stops_the_program():
    def interrupted(rows, fraction):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(problem()[0], interrupted)


@given(n_steps=st.integers(1, 500))
def test_the_learning_rate_rises_then_falls_to_zero(n_steps):
    rates = np.array([_relative_rate(n_steps, step) for step in range(n_steps + 1)])
    peak = rates.argmax()
    assert peak <= 0.1 * n_steps + 1
    assert (np.diff(rates[: peak + 1]) > 0).all()
    assert (np.diff(rates[peak:]) < 0).all()
    assert rates[:-1].min() > 0
    assert rates.max() <= 1
    assert rates[-1] == pytest.approx(0, abs=1e-12) or n_steps == 1


@pytest.mark.parametrize("shrinkage", [1.0, (1.0, 2.0)])
def test_shrinkage_pulls_what_it_is_given_to_zero_by_equal_amounts(shrinkage):
    members = np.size(shrinkage)
    module = nn.Linear(2, members)
    nn.init.ones_(module.weight)
    nn.init.ones_(module.bias)
    plan, before = replace(shrinkage=shrinkage, max_iter=2), torch.tensor([1.0, 3e-4])
    module.weight.data.mul_(before)

    def flat(rows, fraction):
        return 0 * module(torch.zeros(len(rows), 2)).T, ONES[rows]

    stacked, networks = [module.weight, module.bias], [nn.Identity()] * members
    weights = StackedParameters(stacked, networks, [module.weight])
    run(module, flat, plan, weights=weights)
    moved = 1 - module.weight[:, 0]
    assert (moved > 0).all()
    torch.testing.assert_close(moved / moved[0], torch.tensor(shrinkage).reshape(-1))
    assert (module.weight[:, 1] == 0).all()
    assert (module.bias == 1).all()


def test_members_are_trained_as_if_alone_and_keep_their_own_best_weights():
    """The members of an ensemble, of which one is learnt too fast, end as they do apart."""
    apart, histories, rate = [], [], 0.3
    for seed in range(2):
        module, loss, _ = problem(seed)
        histories.append(run(module, loss, replace(learning_rate=rate), VALIDATION))
        apart.append(module.weight.detach().clone())
    (one, loss_of_one, _), (two, loss_of_two, _) = problem(0), problem(1)
    ensemble = nn.ModuleList([one, two])

    def losses(rows, fraction):
        each = [loss(rows, fraction)[0] for loss in (loss_of_one, loss_of_two)]
        return torch.cat(each), ONES[rows]

    weights = StackedParameters([], ensemble, [])
    history = run(ensemble, losses, replace(learning_rate=rate), VALIDATION, weights=weights)
    best = [np.argmax(h.validation_scores) for h in histories]
    assert best[0] != best[1]
    torch.testing.assert_close([m.weight.detach() for m in ensemble], apart)
    assert history.best_scores == pytest.approx([h.best_scores[0] for h in histories])


def test_members_far_behind_are_trained_no_longer():
    """The second member's target is noise: it leaves, and the others are trained as without it."""
    seen, plan = [], replace(max_iter=200)

    def train_some(seeds):
        problems = {seed: problem(seed) for seed in seeds}
        ensemble = nn.ModuleList([module for module, *_ in problems.values()])
        weights = StackedParameters([], ensemble, [])

        def losses(rows, fraction):
            seen.append(list(weights.trained))
            noise = torch.as_tensor(99.0 * (np.arange(100) % 3), dtype=torch.float32)[rows]
            each = [
                loss(rows, fraction)[0] + noise * (seed == 1)
                for seed, (_, loss, _) in problems.items()
            ]
            return torch.cat([each[i] for i in weights.trained]), ONES[rows]

        run(ensemble, losses, plan, VALIDATION, weights=weights)
        assert weights.trained == list(range(len(seeds)))
        return [module.weight.detach() for module in ensemble]

    three = train_some([0, 1, 2])
    assert seen[0] == [0, 1, 2]
    assert seen[-1] == [0, 2]
    torch.testing.assert_close(three[::2], train_some([0, 2]))
    assert (three[1] != problem(1)[0].weight).all()  # what it had learnt is kept


def epochs_of_a_laggard(behind, first_lag, max_iter=40):
    """Count the epochs of a member that is always so many nats behind the other one."""
    ensemble = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
    weights, seen = StackedParameters([], ensemble, []), []

    def losses(rows, fraction):
        seen.append(1 in weights.trained)
        each = [0 * member(torch.zeros(len(rows), 1))[:, 0] for member in ensemble]
        each[1] = each[1] + behind
        return torch.stack([each[i] for i in weights.trained]), ONES[rows]

    plan = replace(max_iter=max_iter, batch_size=100, first_lag=first_lag)
    run(ensemble, losses, plan, VALIDATION, weights=weights)
    return sum(seen[1::2])  # the first call is of the start, then each epoch has two


@pytest.mark.parametrize("behind", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("first_lag", [0.0, 1.0, 3.0])
def test_how_far_a_member_may_lag_behind_falls_to_its_least_at_the_end(behind, first_lag):
    """It may lag .3 + first_lag t^2 behind, t the share of time left, after a fifth of the time."""
    allowed = [0.3 + first_lag * (1 - epoch / 40) ** 2 for epoch in range(40)]
    dropped = next(e for e in range(7, 40) if behind > allowed[e])
    assert epochs_of_a_laggard(behind, first_lag) == dropped + 1


def test_a_member_that_hardly_lags_behind_stays():
    assert epochs_of_a_laggard(0.29, 0.0) == 40


def test_the_generator_decides_and_torchs_own_is_untouched():
    before = torch.get_rng_state()
    weights = []
    for seed in (1, 1, 2):
        module, loss, _ = problem(seed=5)
        run(module, loss, replace(max_iter=3), seed=seed)
        weights.append(module.weight.detach().clone())
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_progress_is_shown_only_when_asked(capsys):
    module, loss, _ = problem()
    run(module, loss, replace(max_iter=2), VALIDATION)
    assert capsys.readouterr() == ("", "")
    run(module, loss, replace(max_iter=2), VALIDATION, progress={"desc": "NPEEstimator"})
    out, err = capsys.readouterr()
    assert out == ""
    for text in ("NPEEstimator", "2/2", "train loss", "validation loss"):
        assert text in err


def test_weights_of_rows_count_rows_as_often():
    """Rows of weight two are as good as rows that are there twice, also rows of contrasts."""
    rng = np.random.default_rng(0)
    module, plain, _ = problem()
    counts = torch.as_tensor(rng.integers(1, 3, 100))
    repeated = ALL.repeat_interleave(counts)
    weighted = mean_loss(lambda rows, fraction: (plain(rows, fraction)[0], counts[rows]), ALL)
    assert weighted * 100 == pytest.approx(mean_loss(plain, repeated) * len(repeated))

    def contrasts(rows, fraction):  # two losses a row
        losses, weights = plain(rows, fraction)
        return torch.cat([losses, losses], dim=1), torch.cat([weights, 0 * weights])

    twice, once = (run(*pair, replace(max_iter=3)) for pair in ((module, contrasts), problem()[:2]))
    np.testing.assert_allclose(twice.loss_curve, np.array(once.loss_curve) / 2, rtol=0.3)
