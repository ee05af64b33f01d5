"""The calibration report: in words, whether each parameter's posterior is biased, narrow or wide.

The PIT u of the truth gives the normal score z = Phi^-1(u). For a calibrated posterior of any shape
z is N(0, 1): its mean tells of bias and its standard deviation of a wrong width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import ndtri

from skbi.calibration.coverage import score_levels
from skbi.calibration.ranks import uniformity_test
from skbi.calibration.recovery import Recovery, recover
from skbi.calibration.runs import fitted_estimator, parameter_names
from skbi.randomness import RandomState

__all__ = ["CalibrationReport", "calibration_report", "report_on"]

_MIN_R2 = 0.05  # from which on something was learnt
_MIN_CONTRACTION = 0.15  # the same; three standard errors of its own at 1,000 runs


@dataclass(frozen=True, eq=False)
class CalibrationReport:
    """The findings of `calibration_report`; print it to read them as a table.

    The normal score of a truth is z = Phi^-1(u), where u is its probability integral transform
    among the posterior draws.

    Attributes
    ----------
    names : sequence of p str
        Names of the parameters.
    coverage : ndarray, shape (p,)
        The `coverage_score` of each parameter, of kind "rank".
    bias : ndarray, shape (p,)
        Minus the mean normal score: by how many of its standard deviations the posterior lies above
        the truth, on average.
    spread : ndarray, shape (p,)
        Standard deviation of the normal scores: 1 if calibrated, 2 if the errors are twice as large
        as the posterior claims. Scores, and with them bias and spread, saturate where truths lie
        beyond all draws; for 1,000 draws they do so at 3.3.
    bias_pvalue : ndarray, shape (p,)
        P-value of a bias of 0, by a t-test. All p-values are multiplied by the number of tests, 3 p
        (Bonferroni's correction).
    spread_pvalue : ndarray, shape (p,)
        P-value of a spread of 1, by a chi-squared test. It is set to 1 for a spread below 1 if too
        many truths lie beyond all draws, because the saturation may be what makes it small.
    shape_pvalue : ndarray, shape (p,)
        P-value of uniform ranks, by `uniformity_test`.
    r2 : ndarray, shape (p,)
        Share of the truths' variance that the posterior mean explains: 0 for the prior.
    nrmse : ndarray, shape (p,)
        Root mean squared error of the posterior mean over the standard deviation of the truths,
        which is sqrt(1 - r2): 1 for the prior.
    contraction : ndarray, shape (p,)
        1 - (w / W)^2 with the widths w and W of the central 90 % intervals of the posterior and of
        the truths, the median of the runs: 0 for the prior, 1 for a point. For Gaussians it is 1 -
        posterior variance / prior variance.
    log_score : float or None
        Mean log density of the held-out pairs, in nats, if the estimator has a ``score``.
    n_runs : int
        Number of simulations.
    significance : float
        A p-value below it is a finding. It bounds the probability of any finding if all posteriors
        are calibrated.
    """

    names: Sequence[str]
    coverage: NDArray[np.float64]
    bias: NDArray[np.float64]
    spread: NDArray[np.float64]
    bias_pvalue: NDArray[np.float64]
    spread_pvalue: NDArray[np.float64]
    shape_pvalue: NDArray[np.float64]
    r2: NDArray[np.float64]
    nrmse: NDArray[np.float64]
    contraction: NDArray[np.float64]
    log_score: float | None
    n_runs: int
    significance: float

    @property
    def verdicts(self) -> list[str]:
        """One for each parameter, such as "biased high, overconfident", or "calibrated".

        A calibrated posterior that is hardly narrower than the prior, and whose mean is hardly
        nearer to the truth, is "calibrated, as the prior is": R^2 is below 0.05, and contraction
        below 0.15.
        """
        return [self._verdict(j) for j in range(len(self.names))]

    def _verdict(self, j: int) -> str:
        findings = []
        if self.bias_pvalue[j] < self.significance:
            findings.append("biased high" if self.bias[j] > 0 else "biased low")
        if self.spread_pvalue[j] < self.significance:
            findings.append("overconfident" if self.spread[j] > 1 else "underconfident")
        if not findings and self.shape_pvalue[j] < self.significance:
            findings.append("wrong shape")
        if findings:
            return ", ".join(findings)
        learnt = self.r2[j] >= _MIN_R2 or self.contraction[j] >= _MIN_CONTRACTION
        return "calibrated" if learnt else "calibrated, as the prior is"

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        width = max(9, *(len(name) for name in self.names))
        header = (
            f"{'parameter':{width}}  coverage  bias [sd]   (p)   spread   (p)   shape (p)"
            "    R^2  NRMSE  contraction  verdict"
        )
        rows = [self._row(j, width) for j in range(len(self.names))]
        footer = f"{self.n_runs} runs; p-values are corrected for {3 * len(self.names)} tests"
        if self.log_score is not None:
            footer += f"; held-out log score {self.log_score:.3f} nats"
        return "\n".join([header, *rows, footer])

    def _row(self, j: int, width: int) -> str:
        return (
            f"{self.names[j]:{width}}  {self.coverage[j]:8.3f}"
            f"  {self.bias[j]:+9.2f}  {self.bias_pvalue[j]:6.3f}"
            f"  {self.spread[j]:6.2f}  {self.spread_pvalue[j]:6.3f}"
            f"  {self.shape_pvalue[j]:9.3f}  {self.r2[j]:5.2f}  {self.nrmse[j]:5.2f}"
            f"  {self.contraction[j]:11.2f}  {self._verdict(j)}"
        )


def calibration_report(
    estimator: Any,
    theta: ArrayLike,
    X: Any,
    *,
    n_samples: int = 1000,
    names: Sequence[str] | None = None,
    significance: float = 0.05,
    n_jobs: int | None = None,
    random_state: RandomState = None,
    verbose: int | str = "auto",
) -> CalibrationReport:
    """Say in words whether each parameter's posterior is biased, too narrow or too wide.

    The truth's rank among the draws is turned into a standard normal number. For a calibrated
    posterior of any shape this number is exactly N(0, 1). Its mean tells of bias, and its standard
    deviation tells whether the posterior is too narrow or too wide.

    Parameters
    ----------
    estimator, theta, X, n_samples, n_jobs, random_state, verbose
        As in `coverage_score`.
    names : sequence of str, optional
        Names of the parameters; by default the estimator's ``parameter_names_in_``.
    significance : float, default=0.05
        Probability of any finding if all posteriors are calibrated.

    Returns
    -------
    CalibrationReport

    Raises
    ------
    ValueError
        If there are fewer than two runs, or if an option or an array cannot be used.

    See Also
    --------
    diagnose : All checks in one call.
    coverage_score : One number.

    References
    ----------
    Talts et al., Validating Bayesian inference algorithms with simulation-based calibration, 2018,
    https://arxiv.org/abs/1804.06788.

    Examples
    --------
    >>> class Narrow:  # theta ~ N(0, 1), x ~ N(theta, 1): the sd should be 0.71
    ...     def sample_posterior(self, X, n_samples, *, random_state=None):
    ...         rng = np.random.default_rng(random_state)
    ...         return X[:, None] / 2 + 0.4 * rng.normal(size=(len(X), n_samples, 1))
    >>> rng = np.random.default_rng(0)
    >>> theta = rng.normal(size=(500, 1))
    >>> X = theta + rng.normal(size=(500, 1))
    >>> calibration_report(Narrow(), theta, X, n_samples=200, random_state=0).verdicts
    ['overconfident']
    """
    options = {"n_samples": n_samples, "n_jobs": n_jobs, "random_state": random_state}
    estimator = fitted_estimator(estimator)
    recovery = recover(estimator, theta, X, verbose=verbose, **options)
    names = parameter_names(recovery.theta.shape[1], names, estimator)
    score = getattr(estimator, "score", None)
    log_score = None if score is None else float(score(theta, X))
    return report_on(recovery, names, log_score=log_score, significance=significance)


def report_on(
    recovery: Recovery, names: Sequence[str], *, log_score: float | None, significance: float
) -> CalibrationReport:
    """Make the `calibration_report` of posteriors that are there."""
    n = len(recovery.pit)
    if n < 2:
        raise ValueError(f"A report needs at least 2 runs, better 200 or more; got {n}.")
    z, ranks = ndtri(recovery.pit), recovery.ranks
    return CalibrationReport(
        names=names,
        coverage=score_levels(np.abs(2 * recovery.pit - 1)),
        bias=-z.mean(axis=0),
        spread=z.std(axis=0, ddof=1),
        bias_pvalue=_corrected(stats.ttest_1samp(z, 0).pvalue),
        spread_pvalue=_corrected(_spread_pvalue(z, ranks, recovery.n_samples)),
        shape_pvalue=_corrected(uniformity_test(ranks, recovery.n_samples)),
        r2=recovery.r2,
        nrmse=recovery.nrmse,
        contraction=np.median(recovery.contraction, axis=0),
        log_score=log_score,
        n_runs=n,
        significance=significance,
    )


def _corrected(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bonferroni's correction for three tests of each of p parameters."""
    return np.minimum(1, 3 * len(p_values) * p_values)


def _spread_pvalue(
    z: NDArray[np.float64], ranks: NDArray[np.int64], n_samples: int
) -> NDArray[np.float64]:
    """Two-sided p-values of a standard deviation of 1.

    Where more truths lie beyond all draws than chance puts there, the scores are cut off, and a
    small standard deviation proves nothing: its p-value is then 1.
    """
    n, sum_of_squares = len(z), ((z - z.mean(axis=0)) ** 2).sum(axis=0)
    chi_squared = stats.chi2(n - 1)
    narrow, wide = chi_squared.cdf(sum_of_squares), chi_squared.sf(sum_of_squares)
    n_beyond = ((ranks == 0) | (ranks == n_samples)).sum(axis=0)
    cut_off = stats.binom.sf(n_beyond - 1, n, 2 / (n_samples + 1)) < 0.01
    return np.where(cut_off & (narrow < wide), 1.0, 2 * np.minimum(narrow, wide))
