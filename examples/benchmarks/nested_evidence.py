"""Is the evidence of nested sampling unbiased? A linear Gaussian model with closed-form log Z.

Twenty seeds for each way to propose points (uniform, random walk, slice), with batched likelihood
calls and one by one: the mean error of log Z over its own standard error.

    python examples/benchmarks/nested_evidence.py
"""

import numpy as np
from scipy import stats

from skbi import JointPrior
from skbi.samplers import nested

N_SEEDS, N_PARAMETERS, N_DATA, NOISE = 20, 3, 5, 0.3


def main():
    """Run and print."""
    rng = np.random.default_rng(0)
    A = rng.normal(size=(N_DATA, N_PARAMETERS))
    x = A @ rng.normal(size=N_PARAMETERS) + NOISE * rng.normal(size=N_DATA)
    prior = JointPrior({f"a{j}": stats.norm() for j in range(N_PARAMETERS)})
    covariance = A @ A.T + NOISE**2 * np.eye(N_DATA)
    exact = stats.multivariate_normal(np.zeros(N_DATA), covariance).logpdf(x)

    def log_likelihood(theta):
        return stats.norm.logpdf(x, theta @ A.T, NOISE).sum(axis=1)

    for sample in ("unif", "rwalk", "slice"):
        for queue_size in (None, 1):
            errors = []
            for seed in range(N_SEEDS):
                options = {"nlive": 200, "sample": sample, "queue_size": queue_size}
                _, info = nested(log_likelihood, prior, 10, np.random.default_rng(seed), **options)
                errors.append(info.log_evidence - exact)
            mean, error = np.mean(errors), np.std(errors, ddof=1) / N_SEEDS**0.5
            label = "one by one" if queue_size else "batched"
            print(f"{sample:6} {label:10} log Z - exact = {mean:+.3f} +- {error:.3f}", flush=True)


if __name__ == "__main__":
    main()
