"""The checks of simulations and observations, each with its verdict.

Checks that have p-values share the significance among them, so that it bounds the probability of
any finding if all is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from skbi.calibration.classifier import LocalTest
from skbi.calibration.predictive import PredictiveCheck
from skbi.calibration.regions import Region
from skbi.calibration.report import CalibrationReport
from skbi.diagnosis.findings import Finding, describe_p

__all__ = [
    "check_calibration",
    "check_information",
    "check_local",
    "check_predictions",
    "check_prior",
    "check_region",
    "check_sampler",
    "check_typicality",
    "overall_p_value",
]

_MAX_R_HAT = 1.01  # of chains that agree, by Vehtari et al. 2021
_MAX_PARETO_K = 0.7  # of importance weights that can be relied on, by Vehtari et al. 2015


def check_prior(
    prior: Any, theta: NDArray[np.float64], names: Sequence[str], significance: float
) -> Finding:
    """Tell whether the truths look like draws of the estimator's prior, by Kolmogorov-Smirnov."""
    name = "prior"
    if prior is None:
        return Finding(name, None, "the estimator knows no prior")
    outside = np.isneginf(prior.log_prob(theta))
    remedy = "Fit with the prior that the simulations are drawn from, or draw them anew."
    if outside.any():
        share = f"{outside.mean():.1%} of the truths lie outside of the estimator's prior"
        return Finding(name, False, f"wrong prior: {share}", remedy)
    levels = prior.cdf(theta)
    p_values = np.array([stats.kstest(u, "uniform").pvalue for u in levels.T])
    p_values = np.where(prior.discrete, 1.0, np.minimum(1, len(names) * p_values))
    worst = int(p_values.argmin())
    if p_values[worst] < significance:
        verdict = (
            f"wrong prior: {names[worst]} of the simulations is not drawn from the estimator's"
        )
        return Finding(name, False, f"{verdict} ({describe_p(p_values[worst])})", remedy)
    return Finding(name, True, f"the truths look like draws of it ({describe_p(p_values[worst])})")


def check_typicality(
    p_values: NDArray[np.float64] | None, checks: Sequence[PredictiveCheck], significance: float
) -> Finding:
    """Tell whether every observation looks like the simulations, by summaries and by features."""
    name = "observation"
    if not checks:
        return Finding(name, None, "no observation was given: pass X_obs")
    n_tests = len(checks) * (1 if p_values is None else 2)
    by_feature = [min(1.0, n_tests * check.p_value) for check in checks]
    worst = int(np.argmin(by_feature))
    feature = checks[worst].names[int(checks[worst].tail_probability.argmin())]
    numbers = f"{describe_p(by_feature[worst])} by features, of which {feature} lies furthest out"
    least = by_feature[worst]
    if p_values is not None:
        by_summary = min(1.0, n_tests * float(p_values.min()))
        numbers, least = (
            f"{describe_p(by_summary)} by typicality, {numbers}",
            min(least, by_summary),
        )
        worst = int(p_values.argmin()) if by_summary < by_feature[worst] else worst
    if least < significance:
        which = f"observation {worst} is unlike the simulations" if len(checks) > 1 else (
            "it is unlike the simulations"
        )  # fmt: skip
        remedy = "Look at the data, the simulator and the prior: its posterior is a guess."
        return Finding(name, False, f"{which}: {numbers}", remedy)
    return Finding(name, True, f"like the simulations: {numbers}")


def check_predictions(checks: Sequence[PredictiveCheck], significance: float) -> Finding:
    """Tell whether data simulated from the posterior look like the observation."""
    name = "posterior predictive"
    if not checks:
        return Finding(name, None, "not checked: pass X_obs and simulator")
    p_values = [min(1.0, len(checks) * check.p_value) for check in checks]
    worst = int(np.argmin(p_values))
    check = checks[worst]
    feature = check.names[int(check.tail_probability.argmin())]
    numbers = (
        f"{describe_p(p_values[worst])}; furthest out is {feature}, with a tail probability of "
        f"{check.tail_probability.min():.2g}"
    )
    if p_values[worst] < significance:
        verdict = f"misfit: the simulator at the posterior does not give such data ({numbers})"
        return Finding(name, False, verdict, "Change the simulator where that feature comes from.")
    return Finding(name, True, f"data simulated from it are like the observation ({numbers})")


def check_calibration(report: CalibrationReport) -> Finding:
    """Name the parameters whose posteriors are wrong on average over the prior."""
    name = "calibration"
    wrong = [
        f"{parameter}: {verdict} (off by {bias:+.2f} sd, errors {spread:.2f} times as large as "
        "claimed)"
        for parameter, verdict, bias, spread in zip(
            report.names, report.verdicts, report.bias, report.spread, strict=True
        )
        if not verdict.startswith("calibrated")
    ]
    if not wrong:
        least = min(
            p.min() for p in (report.bias_pvalue, report.spread_pvalue, report.shape_pvalue)
        )
        verdict = f"all {len(report.names)} parameters are calibrated over the prior"
        return Finding(name, True, f"{verdict} ({describe_p(least)})")
    remedy = "Simulate more pairs, or fit an ensemble (n_estimators) or longer."
    return Finding(name, False, "miscalibrated, " + "; ".join(wrong), remedy)


def check_region(region: Region | None, significance: float) -> Finding:
    """Name the region of the data space in which posteriors are wrong."""
    name = "calibration by region"
    if region is None:
        return Finding(name, None, "fewer than 40 simulations")
    if region.p_value < significance:
        remedy = "Simulate more pairs in that region."
        verdict = f"miscalibrated: {region} ({describe_p(region.p_value)})"
        return Finding(name, False, verdict, remedy)
    return Finding(name, True, f"no region is miscalibrated ({describe_p(region.p_value)})")


def check_local(test: LocalTest | None, reason: str, significance: float) -> Finding:
    """Tell whether a classifier finds the posterior wrong at an observation."""
    name = "local test (L-C2ST)"
    if test is None:
        return Finding(name, None, reason)
    p_value, worst = overall_p_value(test)
    if p_value < significance:
        where = f"observation {worst}" if len(test.statistic) > 1 else "the observation"
        verdict = f"the posterior at {where} can be told from the exact one"
        remedy = "Look at the picture for where; simulate more pairs near the observation."
        return Finding(name, False, f"{verdict} ({describe_p(p_value)})", remedy)
    return Finding(name, True, f"no error at the observation is seen ({describe_p(p_value)})")


def overall_p_value(test: LocalTest) -> tuple[float, int]:
    """Return a p-value of all observations together, and the worst observation.

    The largest standardised statistic is compared with that of every classifier of the null.
    """
    statistics = np.vstack([test.statistic, test.null_statistics])
    sd = statistics.std(axis=0)
    scores = (statistics - statistics.mean(axis=0)) / np.where(sd > 0, sd, 1)
    largest = scores.max(axis=1)
    return float((largest >= largest[0]).mean()), int(scores[0].argmax())


def check_sampler(infos: Sequence[Any]) -> Finding:
    """Tell whether the sampler's particles or chains have mixed."""
    name = "sampler"
    if not infos:
        return Finding(name, None, "the posterior is drawn without one")
    messages = [message for info in infos for message in info.warnings]
    r_hats = [np.nanmax(info.r_hat) for info in infos if info.r_hat is not None]
    ks = [info.pareto_k for info in infos if info.pareto_k is not None]
    if r_hats and max(r_hats) > _MAX_R_HAT:
        messages.append(f"The chains have not mixed: R-hat is {max(r_hats):.3f}")
    if ks and max(ks) > _MAX_PARETO_K:
        messages.append(f"The importance weights have a heavy tail: k is {max(ks):.2f}")
    if messages:
        return Finding(name, False, messages[0].rstrip("."), "Raise the sampler's effort.")
    ess = [np.nanmin(info.ess) for info in infos if info.ess is not None]
    seen = f", effective sample size {min(ess):.0f} or more" if ess else ""
    return Finding(name, True, f"{infos[0].sampler} has converged{seen}")


def check_information(report: CalibrationReport) -> Finding:
    """Name the parameters of which the data tell nothing, as far as the posterior knows."""
    name = "information"
    nothing = [n for n, v in zip(report.names, report.verdicts, strict=True) if "prior" in v]
    if nothing:
        verdict = f"the posterior of {', '.join(nothing)} is calibrated because it is the prior"
        remedy = "Train longer, or on a better summary; or the data tell nothing of it."
        return Finding(name, False, verdict, remedy)
    pairs = zip(report.names, report.contraction, report.r2, strict=True)
    numbers = ", ".join(f"{n} {c:.2f} ({r:.2f})" for n, c, r in pairs)
    return Finding(name, True, f"contraction from the prior (R^2 of the mean): {numbers}")
