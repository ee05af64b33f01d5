"""Report on failed simulations: which failed, how, and whether that depends on theta.

Each parameter is tested for the null hypothesis p(theta_j | failed) = p(theta_j | successful).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from skbi.simulation.tasks import Failure

__all__ = ["SimulationReport"]

_SIGNIFICANCE_LEVEL = 1e-3  # of the tests of all parameters together


@dataclass(frozen=True)
class SimulationReport:
    """Which simulations failed, how, and whether that depends on theta.

    `simulate` returns it with ``return_report=True``. Printed, it is a short summary.

    Attributes
    ----------
    n_samples : int
        Number of simulations, failed ones included.
    names : tuple of str
        Names of all p parameters, nuisance parameters included.
    rows : ndarray of int, shape (k,)
        The simulations that failed, as positions from 0 to n_samples - 1.
    theta : ndarray, shape (k, p)
        Parameters of the failed simulations, nuisance parameters included.
    kinds : ndarray of str, shape (k,)
        How each of them failed: "exception", "nan", "infinite", "shape", "timeout" or "killed".
    first : dict of str to str
        Message of the first failure of each kind. For an exception this is the traceback.
    p_values : ndarray, shape (p,)
        For each parameter, the p-value of a two-sample Kolmogorov-Smirnov test between failed and
        successful simulations. It is 1 if none or all of the simulations failed.

    Examples
    --------
    >>> from scipy import stats
    >>> from skbi import JointPrior, simulate
    >>> prior = JointPrior({"mu": stats.norm(), "scale": stats.uniform(0, 1)})
    >>> def mean(theta, rng):
    ...     x = rng.normal(*theta, size=10)
    ...     return x.mean() if rng.random() > 0.02 else float("nan")
    >>> theta, X, report = simulate(
    ...     prior, mean, 200, on_error="drop", random_state=0, return_report=True)
    >>> print(report)
    6 of 200 simulations failed (3.00%)
    nan: 6, first at mu = -0.732267, scale = 0.912622: 1 of 1 numbers are NaN
    >>> report.depends_on
    []
    """

    n_samples: int
    names: tuple[str, ...]
    rows: NDArray[np.int64]
    theta: NDArray[np.float64]
    kinds: NDArray[np.str_]
    first: dict[str, str]
    p_values: NDArray[np.float64]

    @classmethod
    def of(
        cls, failures: list[Failure], theta: NDArray[np.float64], names: Sequence[str]
    ) -> SimulationReport:
        """Summarise the failures of a run.

        Parameters
        ----------
        failures : list of Failure
        theta : ndarray, shape (n_samples, p)
            Parameters of all simulations.
        names : sequence of str
            Names of the p parameters.

        Returns
        -------
        SimulationReport
        """
        failures = sorted(failures)
        rows = np.array([failure.row for failure in failures], dtype=np.int64)
        kinds = np.array([failure.kind for failure in failures], dtype=str)
        first = {failure.kind: failure.message for failure in reversed(failures) if failure.message}
        p_values = _compare_distributions(theta, rows)
        return cls(len(theta), tuple(names), rows, theta[rows], kinds, first, p_values)

    @property
    def share(self) -> float:
        """Share of the simulations that failed, from 0 to 1."""
        return len(self.rows) / self.n_samples

    @property
    def depends_on(self) -> list[str]:
        """Names of the parameters that failure depends on.

        The tests of all parameters together have a significance level of 0.001.
        """
        level = _SIGNIFICANCE_LEVEL / len(self.names)
        return [name for name, p in zip(self.names, self.p_values, strict=True) if p < level]

    def __str__(self) -> str:
        lines = [f"{len(self.rows)} of {self.n_samples} simulations failed ({self.share:.2%})"]
        for kind, count in Counter(self.kinds.tolist()).most_common():
            theta = _format_theta(self.theta[np.argmax(self.kinds == kind)], self.names)
            lines.append(f"{kind}: {count}, first at {theta}: {_last_line(self.first[kind])}")
        for name in self.depends_on:
            low, high = np.quantile(self.theta[:, self.names.index(name)], [0.05, 0.95])
            lines.append(
                f"depends on {name}: 90 % of the failed simulations have {name} between "
                f"{low:.3g} and {high:.3g}"
            )
        return "\n".join(lines)

    def warning(self, *, is_returned: bool) -> str | None:
        """Return the text of the warning that failures call for, or None if they call for none.

        Parameters
        ----------
        is_returned : bool
            Whether the user gets this report. Failures that do not depend on theta then call for no
            warning.

        Returns
        -------
        str or None
        """
        if self.depends_on:
            return (
                "Whether a simulation fails depends on theta, and pairs without the failed "
                "simulations are conditional on success. If real data could not have failed, NPE "
                "learns the right posterior, while that of NLE lacks a factor P(success | theta). "
                "If failing is a flaw of the simulator, NPE learns with another prior, which "
                "favours theta at which simulations seldom fail: mend the simulator, or narrow the "
                f"prior to the region where it works.\n{self}"
            )
        return str(self) if len(self.rows) and not is_returned else None


def _compare_distributions(
    theta: NDArray[np.float64], failed: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Test for each parameter whether failed and successful simulations have one distribution.

    Returns the p-values.
    """
    if not 0 < len(failed) < len(theta):
        return np.ones(theta.shape[1])
    successful = np.delete(theta, failed, axis=0)
    return stats.ks_2samp(theta[failed], successful, method="asymp").pvalue


def _format_theta(theta: NDArray[np.float64], names: Sequence[str]) -> str:
    return ", ".join(f"{name} = {value:.6g}" for name, value in zip(names, theta, strict=True))


def _last_line(message: str) -> str:
    return message.splitlines()[-1]
