"""What a task is: a prior, a simulator, and what the posterior should be."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from skbi import JointPrior, Prior


@dataclass
class Task:
    """A prior, a simulator, and what is known of the posterior.

    What is exact is a log density or log mass (theta, X) of the "posterior" or the "likelihood".
    A likelihood that is a mass of values with no common spacing is called "mass": no density of X
    compares with it. References are pairs (X_obs, draws).
    """

    prior: Prior | None
    simulate: Callable
    exact: dict[str, Callable] = field(default_factory=dict)
    references: tuple = ()
    held_out: tuple = ()  # theta, X and what is exact of those, where only that is known
    sample: Callable | None = None  # draws theta, where the estimators are given no prior
    dequantize: float | tuple = 0.0  # spacing of the values of X, or of each feature: 1 for counts
    summary: str = "auto"  # "series" or "image", if the order of points counts

    def pairs(self, n, seed):
        """Draw n pairs."""
        rng = np.random.default_rng([seed, n])
        theta = (self.sample or self.prior.sample)(n, random_state=rng)
        return theta, self.simulate(theta, rng)

    def test(self, n=2000):
        """Return held-out pairs and their exact log densities, by what these are of."""
        if self.held_out:
            return self.held_out
        theta, X = self.pairs(n, 10**6)
        return theta, X, {name: log_density(theta, X) for name, log_density in self.exact.items()}


def uniform(low, high, p):
    """P independent uniform parameters."""
    return JointPrior({f"theta_{j}": stats.uniform(low, high - low) for j in range(p)})
