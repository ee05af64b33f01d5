"""Everything that a careful referee would ask of a posterior, in one call."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import scipy
import sklearn
import torch
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin

from skbi.calibration.coverage import curve_of_levels
from skbi.calibration.regions import worst_region
from skbi.calibration.report import CalibrationReport, report_on
from skbi.calibration.runs import fitted_estimator
from skbi.diagnosis.checks import (
    check_calibration,
    check_information,
    check_local,
    check_predictions,
    check_prior,
    check_region,
    check_sampler,
    check_typicality,
)
from skbi.diagnosis.findings import Finding, in_order
from skbi.diagnosis.measurements import Measured, Measuring
from skbi.diagnosis.report import Diagnosis
from skbi.diagnosis.training import check_training
from skbi.plotting import (
    ContractionDisplay,
    CoverageDisplay,
    LC2STDisplay,
    LossCurveDisplay,
    PosteriorDisplay,
    PredictiveDisplay,
    RankDisplay,
    RecoveryDisplay,
)
from skbi.plotting.predictive import kind_of
from skbi.randomness import RandomState, as_generator

__all__ = ["diagnose"]

_N_TESTS = 6  # checks that share the significance
_N_SHOWN = 5000  # draws of the posterior in its picture


def diagnose(
    estimator: Any,
    theta: ArrayLike,
    X: Any,
    X_obs: Any = None,
    simulator: Any = None,
    *,
    n_samples: int = 1000,
    significance: float = 0.05,
    budget: float | None = None,
    classifier: ClassifierMixin | None = None,
    names: Sequence[str] | None = None,
    n_jobs: int | None = None,
    random_state: RandomState = None,
    verbose: int | str = "auto",
) -> Diagnosis:
    """Ask of a fitted estimator what a careful referee would ask, and answer in words.

    Was training long enough, and are there enough pairs? Do the simulations come from the
    estimator's prior? Is the posterior calibrated, for every parameter, in every region, and at the
    observation? Has it learnt anything beyond the prior? Is the observation like the simulations,
    and are data simulated from its posterior like the observation? Has the sampler converged?

    The checks with p-values share the significance, so that it bounds the probability of any
    finding by chance. Training, overfitting and information are judged by thresholds.

    Parameters
    ----------
    estimator : object with ``sample_posterior(X, n_samples, random_state=seed)``
        As of `coverage_score`. Checks that need more of an estimator than this are left out for
        those that lack it.
    theta : array-like or DataFrame, shape (n, p)
        The truths of simulations that were held out from training, drawn from the prior. A thousand
        are enough for errors of a tenth of a standard deviation.
    X : array-like or sequence of n observations
        The simulations.
    X_obs : array-like, optional
        The observation, or a batch, as in ``sample_posterior``. Without it, the checks at the
        observation are left out. Pictures show the first one.
    simulator : callable, or object with ``transform(theta)``, optional
        As in `skbi.simulate`. Without it, no posterior predictive data are simulated.
    n_samples : int, default=1000
        Posterior draws for each simulation and observation.
    significance : float, default=0.05
        Probability of any finding of the checks with p-values if all posteriors are exact.
    budget : float, optional
        Seconds that the diagnosis may take, about, pictures excluded. The posteriors of a few
        simulations, and a few simulations, tell what each costs; then so many are used as fit, in
        the order given. Results then depend on the speed of the machine. By default everything is
        used, whatever it takes.
    classifier : scikit-learn classifier with ``predict_proba``, optional
        Of the local test, see `lc2st`.
    names : sequence of str, optional
        Names of the parameters; by default the estimator's.
    n_jobs : int or None, default=None
        Number of parallel jobs, through joblib. The result does not depend on it.
    random_state : int, Generator, RandomState or None, default=None
        The only source of randomness. The report records the seed that follows from it.
    verbose : int or "auto", default="auto"
        1 shows a progress bar, 0 none; "auto" shows one on a terminal, of what takes more than 5
        seconds.

    Returns
    -------
    Diagnosis
        Print it for a verdict a line, what failed first, with what to do about it. ``figures`` are
        the displays, ``to_html(path)`` writes all of it to one file.

    Raises
    ------
    ValueError
        If an option or an array cannot be used.

    See Also
    --------
    calibration_report : Calibration alone.
    lc2st : The test at the observation alone.

    References
    ----------
    Gelman et al., Bayesian workflow, 2020, https://arxiv.org/abs/2011.01808; Deistler et al.,
    Simulation-based inference: a practical guide, 2025, https://arxiv.org/abs/2508.12939.

    Examples
    --------
    >>> class Narrow:  # theta ~ N(0, 1), x ~ N(theta, 1): the sd should be 0.71
    ...     def sample_posterior(self, X, n_samples, *, random_state=None):
    ...         rng = np.random.default_rng(random_state)
    ...         return X[:, None] / 2 + 0.4 * rng.normal(size=(len(X), n_samples, 1))
    >>> rng = np.random.default_rng(0)
    >>> theta = rng.normal(size=(500, 1))
    >>> X = theta + rng.normal(size=(500, 1))
    >>> report = diagnose(Narrow(), theta, X, n_samples=200, names=["a"], random_state=0)
    >>> print(str(report)[:49])
    [!!] calibration: miscalibrated, a: overconfident
    """
    seed = random_state
    if not isinstance(random_state, int):
        seed = int(as_generator(random_state).integers(2**31))
    if not 0 < significance < 1:
        raise ValueError(f"significance must lie between 0 and 1; got {significance}.")
    estimator, level = fitted_estimator(estimator), significance / _N_TESTS
    options = {"n_samples": n_samples, "budget": budget, "n_jobs": n_jobs, "classifier": classifier}
    measuring = Measuring(estimator, names=names, level=level, seed=seed, **options)
    found = measuring.run(theta, X, X_obs, simulator, verbose)
    report = report_on(found.recovery, found.names, log_score=found.score, significance=level)
    settings = {
        "estimator": " ".join(repr(estimator).split()),
        "parameters": ", ".join(map(str, found.names)),
        "simulations": str(len(found.recovery.theta)),
        "draws of each posterior": str(n_samples),
        "significance": f"{significance:g}",
        "budget": "none" if budget is None else f"{budget:g} s",
        "random_state": str(seed),
        **_environment(),
    }
    return Diagnosis(
        findings=_judge(estimator, found, report, level),
        calibration=report,
        recovery=found.recovery,
        local=found.local,
        predictive=found.among_replications,
        names=found.names,
        settings=settings,
        seconds=found.seconds,
        displays=_displays(estimator, found),
    )


def _judge(
    estimator: Any, found: Measured, report: CalibrationReport, level: float
) -> list[Finding]:
    """Return the verdict of every check, those that failed first, causes before symptoms."""
    names, drawn = found.names, found.drawn
    findings = [
        *check_training(estimator, found.log_q),
        check_prior(getattr(estimator, "prior", None), found.recovery.theta, names, level),
        check_typicality(found.typicality, found.among_simulations, level),
        check_predictions(found.among_replications, level),
        check_calibration(report),
        check_region(worst_region(found.recovery, names), level),
        check_local(found.local, found.no_local_test, level),
        check_sampler([] if drawn is None else drawn.infos),
        check_information(report),
    ]
    return in_order(findings)


def _environment() -> dict[str, str]:
    """Return versions, platform and date."""
    versions = {module.__name__: module.__version__ for module in (np, scipy, sklearn, torch)}
    used = {"skbi": _version(), "python": platform.python_version(), **versions}
    return {
        "versions": ", ".join(f"{name} {version}" for name, version in used.items()),
        "platform": platform.platform(),
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _displays(estimator: Any, found: Measured) -> dict[str, Callable[[], Any]]:
    """Return what draws each picture."""
    recovery, names, drawn = found.recovery, {"names": found.names}, {}
    if found.drawn is not None:
        samples, first = found.drawn.samples[0], found.drawn.one(0)
        drawn["posterior"] = partial(PosteriorDisplay.from_predictions, samples, **names)
        predictions = {"prior predictive": found.X}
        if found.replicated is not None:
            predictions["posterior predictive"] = found.replicated[0]
        kind = kind_of(first, getattr(estimator, "summary", None))
        drawn["predictive"] = PredictiveDisplay(predictions, first, kind=kind).plot
    if found.local is not None:
        drawn["local"] = LC2STDisplay(found.local).plot
    levels = curve_of_levels(np.abs(2 * recovery.pit - 1), 0.95)
    drawn["recovery"] = RecoveryDisplay(recovery, **names).plot
    drawn["contraction"] = ContractionDisplay(recovery, **names).plot
    drawn["coverage"] = CoverageDisplay(*levels, n_runs=len(recovery.pit), **names).plot
    drawn["ranks"] = RankDisplay(recovery.ranks, recovery.n_samples, **names).plot
    if hasattr(estimator, "loss_curve_"):
        drawn["loss"] = partial(LossCurveDisplay.from_estimator, estimator)
    return drawn


def _version() -> str:
    """Return the version of the package, known once it is imported in full."""
    import skbi

    return skbi.__version__
