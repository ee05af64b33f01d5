"""What a diagnosis measures: posteriors of simulations and observations, within a time budget."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils import _safe_indexing
from tqdm.auto import tqdm

from skbi.calibration.classifier import LocalTest, run_local_test
from skbi.calibration.observations import ObservedDraws, sample_observations
from skbi.calibration.predictive import (
    PredictiveCheck,
    compare_with_replications,
    posterior_predictive,
)
from skbi.calibration.ranks import check_truths
from skbi.calibration.recovery import Recovery, recover
from skbi.calibration.runs import parameter_names, takes, without_typicality_check
from skbi.parallel import progress_options

__all__ = ["Measured", "Measuring"]

_N_SHOWN = 5000  # draws of the posterior in its picture
_N_REPLICATIONS = 500  # of each observation
_MIN_REPLICATIONS = 100
_N_TRIAL = 50  # simulations whose posteriors tell what one costs
_SHARES = {"calibration": 0.6, "local test": 0.25, "posterior predictive": 0.15}  # of the budget


@dataclass(eq=False)
class Measured:
    """What was measured; what was not is None or empty.

    Attributes
    ----------
    recovery : Recovery
    X : n observations
        The simulations that were used.
    names : list of p str
    log_q : ndarray, shape (n,), or None
        Log density of each pair, if training maximised it.
    score : float or None
        The estimator's score of the pairs.
    drawn : ObservedDraws or None
        Posterior draws at the observations.
    typicality : ndarray, shape (n_obs,), or None
        P-values of the observations.
    among_simulations, among_replications : list of PredictiveCheck
        Where each observation lies.
    replicated : n_obs sequences of observations, or None
        Data simulated from the posterior of each observation.
    local : LocalTest or None
    no_local_test : str
        Why there is none.
    seconds : dict of str to float
        Time of each part.
    """

    recovery: Recovery
    X: Any
    names: Sequence[str]
    log_q: NDArray[np.float64] | None = None
    score: float | None = None
    drawn: ObservedDraws | None = None
    typicality: NDArray[np.float64] | None = None
    among_simulations: list[PredictiveCheck] = field(default_factory=list)
    among_replications: list[PredictiveCheck] = field(default_factory=list)
    replicated: Any = None
    local: LocalTest | None = None
    no_local_test: str = "no observation was given: pass X_obs"
    seconds: dict[str, float] = field(default_factory=dict)


class Measuring:
    """One diagnosis: its options, generator and times.

    Parameters
    ----------
    estimator, n_samples, budget, classifier, names, n_jobs
        As in `diagnose`.
    level : float
        Significance of each check.
    seed : int
    """

    def __init__(
        self,
        estimator: Any,
        *,
        names: Sequence[str] | None,
        level: float,
        budget: float | None,
        seed: int,
        n_samples: int,
        n_jobs: int | None,
        classifier: ClassifierMixin | None,
    ) -> None:
        if budget is not None and not budget > 0:
            raise ValueError(f"budget must be a positive number of seconds, or None; got {budget}.")
        self.estimator, self.names, self.n_samples = estimator, names, n_samples
        self.level, self.budget, self.n_jobs, self.classifier = level, budget, n_jobs, classifier
        self.rng, self.seconds = np.random.default_rng(seed), {}
        self.kind = getattr(estimator, "summary", None)

    def run(
        self, theta: ArrayLike, X: Any, X_obs: Any, simulator: Any, verbose: int | str
    ) -> Measured:
        """Measure everything that is asked for."""
        n_parts = 2 if X_obs is None else 4 if simulator is None else 5
        with tqdm(total=n_parts, desc="diagnosis", unit="part", **progress_options(verbose)) as bar:
            with self._part("calibration", bar):
                recovery = self._recover(theta, X)
            used = slice(len(recovery.theta))
            names = parameter_names(recovery.theta.shape[1], self.names, self.estimator)
            found = Measured(recovery, _safe_indexing(X, used), names, seconds=self.seconds)
            with self._part("held-out score", bar):
                found.log_q, found.score = self._score(_safe_indexing(theta, used), found.X)
            if X_obs is not None:
                self._measure_observations(found, X_obs, simulator, bar)
        return found

    def _measure_observations(self, found: Measured, X_obs: Any, simulator: Any, bar: Any) -> None:
        """Measure what needs an observation."""
        with self._part("observations", bar):
            found.drawn = self._sample(X_obs)
            X_obs = found.drawn.X_obs
            found.typicality = self._typicality(X_obs)
            simulated = [found.X] * len(found.drawn.samples)
            found.among_simulations = self._compare(simulated, found.drawn)
        with self._part("local test", bar):
            found.local, found.no_local_test = self._test_locally(found)
        if simulator is not None:
            with self._part("posterior predictive", bar):
                found.replicated = self._replicate(simulator, X_obs)
                found.among_replications = self._compare(found.replicated, found.drawn)

    @contextmanager
    def _part(self, name: str, bar: Any) -> Iterator[None]:
        """Time a part, and show it."""
        bar.set_description(f"diagnosis: {name}", refresh=False)
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start
        bar.update()

    def _affordable(self, part: str, cost: Callable[[], int], most: int) -> int:
        """Return how many pieces of work a part's share of the budget allows.

        ``cost`` does a few pieces and returns their number; its time tells what each costs.
        """
        if self.budget is None:
            return most
        start = time.perf_counter()
        n = cost()
        each = (time.perf_counter() - start) / n
        return min(most, int(_SHARES[part] * self.budget / max(each, 1e-9)))

    def _recover(self, theta: ArrayLike, X: Any) -> Recovery:
        """Compare posteriors with the truth, of as many simulations as the budget allows."""
        options = {"n_samples": self.n_samples, "n_jobs": self.n_jobs}
        n = len(check_truths(theta))

        def recover_first(n: int, seed: int) -> Recovery:
            first = slice(n)
            some = _safe_indexing(theta, first), _safe_indexing(X, first)
            return recover(self.estimator, *some, random_state=seed, **options)

        def trial() -> int:
            return len(recover_first(min(n, _N_TRIAL), 0).theta)

        n_used = max(min(n, _N_TRIAL), self._affordable("calibration", trial, n))
        if n_used < n:
            return recover_first(n_used, self._draw_seed())
        return recover(self.estimator, theta, X, random_state=self._draw_seed(), **options)

    def _draw_seed(self) -> int:
        return int(self.rng.integers(2**31))

    def _score(self, theta: ArrayLike, X: Any) -> tuple[NDArray[np.float64] | None, float | None]:
        """Return the log density of each pair, if training maximised it, and the score."""
        if getattr(self.estimator, "loss_name", "").startswith("-log q(theta"):
            log_q = self.estimator.log_prob(theta, X)
            return log_q, float(log_q.mean())
        score = getattr(self.estimator, "score", None)
        return None, None if score is None else float(score(theta, X))

    def _sample(self, X_obs: Any) -> ObservedDraws:
        options = without_typicality_check(self.estimator)
        if takes(self.estimator, "return_info"):
            options["return_info"] = True
        n = max(self.n_samples, _N_SHOWN)
        return sample_observations(self.estimator, X_obs, n, self.rng, **options)

    def _typicality(self, X_obs: Any) -> NDArray[np.float64] | None:
        typicality = getattr(self.estimator, "typicality", None)
        return np.atleast_1d(typicality(X_obs)) if callable(typicality) else None

    def _compare(self, replicated: Sequence[Any], drawn: ObservedDraws) -> list[PredictiveCheck]:
        """Compare each observation with data simulated for it."""
        return [
            compare_with_replications(data, drawn.one(i), self.kind)
            for i, data in enumerate(replicated)
        ]

    def _test_locally(self, found: Measured) -> tuple[LocalTest | None, str]:
        """Run the local test with as many null classifiers as the significance needs."""
        samples, X_obs = found.drawn.samples[:, : self.n_samples], found.drawn.X_obs
        options = {"names": found.names, "kind": self.kind, "n_jobs": self.n_jobs}
        options["classifier"] = self.classifier
        test = partial(run_local_test, found.recovery, found.X, samples, X_obs, **options)

        def trial() -> int:
            test(n_null=1, random_state=0)
            return 2

        least = math.ceil(1 / self.level)
        if self._affordable("local test", trial, least) < least:
            return None, f"{least} classifiers do not fit into the budget"
        return test(n_null=least, random_state=self._draw_seed()), ""

    def _replicate(self, simulator: Any, X_obs: Any) -> NDArray[Any]:
        """Simulate from the posteriors of the observations, as often as the budget allows."""

        def replicate(n_samples: int, seed: int) -> NDArray[Any]:
            options = {"n_samples": n_samples, "n_jobs": self.n_jobs, "random_state": seed}
            options["on_error"] = "drop"
            return posterior_predictive(self.estimator, simulator, X_obs, **options)

        def trial() -> int:
            replicate(10, 0)
            return 10

        n = self._affordable("posterior predictive", trial, _N_REPLICATIONS)
        return replicate(max(n, _MIN_REPLICATIONS), self._draw_seed())
