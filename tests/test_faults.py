"""What goes wrong around an estimator leaves it usable: interrupts, full disks, threads."""

import errno
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import dynesty.utils
import joblib
import numpy as np
import pytest
import torch
from answers import answers
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.exceptions import ConvergenceWarning

from skbi import CMPEEstimator, FMPEEstimator, JointPrior, NLEEstimator, NPEEstimator, NREEstimator

QUICK = {"n_transforms": 1, "hidden_layer_sizes": (8,), "random_state": 0}
QUICK_NET = {"hidden_layer_sizes": (8,), "random_state": 0}
PRIOR = JointPrior({"a": stats.uniform(-1, 2), "b": stats.halfnorm()})
THETA = PRIOR.sample(100, random_state=0)
X = THETA + 0.3 * np.random.default_rng(0).normal(size=(100, 2))
pytestmark = pytest.mark.filterwarnings("ignore:.*of the draws lie outside the range")
DIRECT = NPEEstimator, FMPEEstimator, CMPEEstimator  # draw without a sampler
kinds = pytest.mark.parametrize("kind", [*DIRECT, NLEEstimator, NREEstimator])


def quick(kind, **options):
    """Return a small, unfitted estimator."""
    return kind(
        prior=PRIOR, **{**(QUICK if kind in (NPEEstimator, NLEEstimator) else QUICK_NET), **options}
    )


class Interrupted(NPEEstimator):
    """Is interrupted after so many evaluations of the loss."""

    after = 10**9

    def _objective(self, *arguments):
        objective = super()._objective(*arguments)

        def counted(rows, fraction):
            self.after -= 1
            if self.after == -1:
                raise KeyboardInterrupt
            return objective(rows, fraction)

        return counted


@given(after=st.integers(0, 19), n_estimators=st.integers(1, 3))
def test_an_interrupt_at_any_moment_leaves_a_usable_estimator(after, n_estimators):
    options = {"n_estimators": n_estimators, "batch_size": 32, "max_iter": 5, **QUICK}
    npe = Interrupted(prior=PRIOR, **options).fit(THETA, X)
    before = npe.log_prob(THETA, X)
    start, per_epoch = 1, 3 + 1  # looks at the validation pairs, and three steps
    npe.after = after
    if after < start + per_epoch:
        with pytest.raises(KeyboardInterrupt):
            npe.fit(THETA, X)
        np.testing.assert_array_equal(npe.log_prob(THETA, X), before)
    else:
        with pytest.warns(ConvergenceWarning, match=r"interrupted.*warm_start=True to continue"):
            npe.fit(THETA, X)
        assert npe.n_iter_ == (after - start) // per_epoch
    npe.after = 10**9
    assert len(npe.members_) == n_estimators
    assert np.isfinite(npe.log_prob(THETA, X)).all()
    npe.set_params(warm_start=True, max_iter=1).fit(THETA, X)
    assert len(npe.members_) == n_estimators


def test_a_full_disk_ends_a_sampling_run_with_its_last_checkpoint(monkeypatch, tmp_path):
    nle = NLEEstimator(prior=PRIOR, max_iter=2, **QUICK).fit(THETA, X)
    path, pickle, calls = tmp_path / "run.save", dynesty.utils.pickle_module, []

    def dump(*arguments):
        calls.append(arguments)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        pickle.dump(*arguments)

    options = {"nlive": 50, "checkpoint_file": path, "sampler": "nested", "random_state": 0}
    monkeypatch.setattr(dynesty.utils, "pickle_module", SimpleNamespace(dump=dump))
    with pytest.raises(OSError, match="No space left"):
        nle.sample_posterior(X[0], 20, checkpoint_every=0, **options)
    monkeypatch.undo()
    assert [file.name for file in tmp_path.iterdir()] == ["run.save"]
    draws, info = nle.sample_posterior(X[0], 20, resume=True, return_info=True, **options)
    whole = nle.log_evidence(X[0], random_state=1)
    assert draws.shape == (20, 2)
    assert abs(info.log_evidence - whole[0]) < 5 * np.hypot(whole[1], info.log_evidence_error)


@kinds
def test_threads_share_an_estimator(kind):
    fitted = quick(kind, max_iter=2).fit(THETA, X)
    options = {} if kind in DIRECT else {"n_particles": 64}

    def work(seed):
        draws = fitted.sample_posterior(X[seed], 20, random_state=seed, **options)
        return draws, answers(fitted, THETA, X)

    alone = [work(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(work, range(4)))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


@kinds
def test_threads_fit_side_by_side(kind):
    def work(seed):
        estimator = quick(kind, max_iter=2, random_state=seed)
        return answers(estimator.fit(THETA, X), THETA, X)

    alone = [work(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(work, range(4)))
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.fixture
def odd_defaults():
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")  # holds no numbers: nothing may go there
    yield
    torch.set_default_device(None)
    torch.set_default_dtype(torch.float32)


def results(kind, missing="error"):
    options = {"dequantize": 0.1} if kind is NLEEstimator else {"missing": missing}
    sets = THETA[:, None] + np.random.default_rng(1).normal(size=(100, 5, 2))
    found = []
    for data in (X, sets):
        estimator = quick(kind, max_iter=2, **options).fit(THETA, data)
        found += [answers(estimator, THETA, data), estimator.loss_curve_]
    if kind in DIRECT:
        found.append(estimator.sample_posterior(data[:2], 5))
    else:
        found.append(estimator.sample_posterior(data[0], 20, n_particles=64))
    if kind is NLEEstimator:
        found.append(estimator.sample_likelihood(THETA[:2], 5))
    return found


@kinds
def test_torchs_defaults_do_not_matter(kind, request):
    expected = results(kind)
    request.getfixturevalue("odd_defaults")
    for one, other in zip(results(kind), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert torch.get_default_dtype() == torch.float64
    assert torch.empty(0).is_meta


@kinds
def test_a_file_gives_the_same_densities_in_another_process(kind, tmp_path):
    """Another thread count, hash seed and state of the global generators; memory-mapped."""
    fitted = quick(kind, max_iter=2).fit(THETA, X)
    joblib.dump((fitted, THETA, X), tmp_path / "fitted.joblib")
    script = f"""
import joblib, numpy as np, sys, torch
np.random.seed(7), torch.manual_seed(7), torch.set_num_threads(3)
fitted, theta, X = joblib.load({str(tmp_path / "fitted.joblib")!r}, mmap_mode="r")
sys.path.append({str(Path(__file__).parent)!r})
from answers import answers
np.save({str(tmp_path / "there.npy")!r}, answers(fitted, theta, X))
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)
    there = np.load(tmp_path / "there.npy")
    np.testing.assert_allclose(there, answers(fitted, THETA, X), atol=1e-6)
