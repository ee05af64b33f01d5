"""Digits behind blur and noise
============================

See behind blurred and noisy pictures of digits: 64 pixels, each a parameter.

Digits of scikit-learn, 8 x 8 pixels, are blurred by one pixel and read with noise. What they were
is uncertain, and the posterior of all pixels is learnt from 10,000 simulations. The pictures to
learn from are drawn from a mixture of ten Gaussians that is as wide as the digits are, so that the
exact posterior is known. The example takes about eight minutes on two cores and writes two pictures
to the folder `pictures` beside this file::

    pip install -c tests/constraints.txt -e ".[plot]" && python -m examples.digits_denoising
"""

import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from examples.benchmarks.tasks import Digits
from skbi import CMPEEstimator, FMPEEstimator, coverage_score, energy_score

PICTURES = Path(__file__).parent / "pictures"
COLUMNS = ["seen", "truth", "mean", "sd", "draw", "draw", "draw", "exact sd"]
SHOWN = 5  # pictures in a figure


class Exact:
    """The posterior that is known."""

    def __init__(self, digits):
        self.digits = digits

    def sample_posterior(self, X, n_samples, *, random_state=None):
        """Draw (n, n_samples, 64)."""
        seeds = np.random.default_rng(random_state).integers(2**31, size=len(X))
        each = zip(X, seeds, strict=True)
        return np.stack([self.digits.posterior(x).sample(n_samples, seed) for x, seed in each])


class Wiener(Exact):
    """The posterior if pictures were Gaussian."""

    def __init__(self, theta, X):
        both = np.cov(np.hstack([theta, X]).T)
        self.gain = np.linalg.solve(both[64:, 64:], both[64:, :64])
        self.root = np.linalg.cholesky(both[:64, :64] - both[:64, 64:] @ self.gain)
        self.mean, self.mean_X = theta.mean(axis=0), X.mean(axis=0)

    def sample_posterior(self, X, n_samples, *, random_state=None):
        """Draw (n, n_samples, 64)."""
        noise = np.random.default_rng(random_state).normal(size=(len(X), n_samples, 64))
        mean = self.mean + (X - self.mean_X) @ self.gain
        return mean[:, None] + noise @ self.root.T


def main():
    """Simulate, fit, score and draw the pictures."""
    digits, rng = Digits(), np.random.default_rng(0)
    theta, theta_test = digits.sample(10_000, rng), digits.sample(1000, rng)
    X, X_test = digits.simulate(theta, rng), digits.simulate(theta_test, rng)
    exact = Exact(digits)
    found = {"exact": exact, "Wiener": Wiener(theta, X)}
    for kind in (FMPEEstimator, CMPEEstimator):
        name, start = kind.__name__, time.perf_counter()
        found[name] = kind(random_state=0, verbose=1).fit(theta, X)
        print(f"{name}: fitted in {time.perf_counter() - start:.0f} s")
    fmpe = found["FMPEEstimator"]
    gap = digits.log_posterior(theta_test, X_test).mean() - fmpe.score(theta_test, X_test)
    print(f"FMPE's log density is {gap:.1f} nats below the exact one")
    for name, posterior in found.items():
        start = time.perf_counter()
        energy = energy_score(posterior, theta_test, X_test, random_state=1)
        seconds = time.perf_counter() - start
        coverage = coverage_score(posterior, theta_test, X_test, n_samples=100, random_state=1)
        print(f"{name:15} energy {energy:.3f}, coverage {coverage:.3f}, {seconds:.1f} s")
    for name in ("FMPEEstimator", "CMPEEstimator"):
        figure = draw(found[name], exact, theta_test[:SHOWN], X_test[:SHOWN])
        PICTURES.mkdir(exist_ok=True)
        path = PICTURES / f"digits_denoising_{name[:4].lower()}.png"
        figure.savefig(path)
        print("wrote", path)


def draw(posterior, exact, theta, X):
    """Draw what is seen, the truth, and what is known of it, one picture a row."""
    figure, axes = plt.subplots(SHOWN, len(COLUMNS), figsize=(9, 6), layout="constrained", dpi=120)
    draws = posterior.sample_posterior(X, 1000, random_state=0)
    exact_sd = exact.sample_posterior(X, 1000, random_state=0).std(axis=1)
    for row, x, truth, own, sd in zip(axes, X, theta, draws, exact_sd, strict=True):
        pictures = [x, truth, own.mean(axis=0), own.std(axis=0), *own[:3], sd]
        for ax, name, picture in zip(row, COLUMNS, pictures, strict=True):
            limits = {"vmin": 0, "vmax": 0.35 if "sd" in name else 1}
            ax.imshow(picture.reshape(8, 8), cmap="magma" if "sd" in name else "gray_r", **limits)
            ax.set(xticks=[], yticks=[])
    for ax, name in zip(axes[0], COLUMNS, strict=True):
        ax.set_title(name, size=10)
    return figure


if __name__ == "__main__":
    main()
