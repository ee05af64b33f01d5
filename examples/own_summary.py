"""A summary of your own
=====================

A summary of your own, in torch: how smooth is a wave around a ring of sensors?

Sixty-four sensors stand in a ring and measure a random wave that has no preferred place: a Gaussian
process of amplitude A and correlation length l, with noise. Nothing about the data changes if the
ring is turned. A torch module that knows this, filters around the ring and the power that each of
them passes, is trained with the flow, as `summary=`. The exact posterior is known, since the
Fourier modes of the wave are independent. The example takes about one minute in one thread and
writes a picture to the folder `pictures` beside this file::

    pip install -c tests/constraints.txt -e ".[plot]" && python examples/own_summary.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy import stats
from torch import nn

from skbi import FunctionSimulator, JointPrior, NPEEstimator, coverage_score, simulate

PICTURES = Path(__file__).parent / "pictures"
STYLE = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 160}
PRIOR = JointPrior({"log A": stats.norm(0, 0.5), "log l": stats.uniform(-2, 2)})
N = 64
ANGLES = 2 * np.pi * np.arange(N) / N


def power(theta):
    """Return the variance of each Fourier mode of the wave and its noise, (n, N)."""
    apart = 2 * np.sin(ANGLES / 2)  # the length of a chord of the ring
    log_A, log_l = np.asarray(theta).T[..., None]
    covariance = np.exp(2 * log_A - 0.5 * (apart / np.exp(log_l)) ** 2)
    return np.fft.fft(covariance, axis=1).real.clip(0) + 0.1**2


def waves(theta, rng):
    """Simulate n rings of sensors, (n, N)."""
    modes = np.fft.fft(rng.normal(size=(len(theta), N)), axis=1)
    return np.fft.ifft(modes * np.sqrt(power(theta)), axis=1).real


def log_likelihood(theta, x):
    """Return the exact log likelihood of one ring x at each theta."""
    squares, variance = np.abs(np.fft.fft(x)) ** 2 / N, power(theta)
    return -0.5 * np.sum(np.log(2 * np.pi * variance) + squares / variance, axis=1)


class Ring(nn.Module):
    """The log power that passes filters around the ring: (n, 64) -> (n, 16)."""

    def __init__(self):
        super().__init__()
        options = {"kernel_size": 17, "padding": 8, "padding_mode": "circular", "bias": False}
        self.filters = nn.Conv1d(1, 16, **options)

    def forward(self, x):
        """Read standardised vectors."""
        return self.filters(x[:, None]).square().mean(dim=2).log()


def main():
    """Simulate, fit with and without the module, compare with the exact posterior, and draw."""
    simulator = FunctionSimulator(waves, vectorized=True)
    theta, X = simulate(PRIOR, simulator, 5000, random_state=0)
    truth, X_test = simulate(PRIOR, simulator, 300, random_state=1)

    torch.manual_seed(0)  # of the module's first weights, which are yours
    options = {"prior": PRIOR, "max_iter": 20, "random_state": 0}
    own = NPEEstimator(summary=Ring(), **options).fit(theta, X)
    default = NPEEstimator(**options).fit(theta, X)
    exact = [log_posterior(t[None], x)[0] for t, x in zip(truth, X_test, strict=True)]
    print(f"mean log posterior of the truth: exact {np.mean(exact):.2f}, own module "
          f"{own.score(truth, X_test):.2f}, default {default.score(truth, X_test):.2f} nats; "
          f"coverage of own {coverage_score(own, truth, X_test, random_state=2):.3f}")  # fmt: skip

    PICTURES.mkdir(exist_ok=True)
    with plt.rc_context(STYLE):
        path = PICTURES / "own_summary.png"
        draw(own, truth[:3], X_test[:3]).savefig(path)
        print("wrote", path)


def grid(n=100):
    """Return all theta of a grid over the prior, and the area of a cell."""
    low, high = PRIOR.ppf([[1e-4, 0]])[0], PRIOR.ppf([[1 - 1e-4, 1]])[0]
    points = np.meshgrid(*np.linspace(low, high, n + 1)[1:].T - (high - low)[:, None] / n / 2)
    return np.stack(points, axis=-1).reshape(-1, 2), np.prod((high - low) / n)


def log_posterior(theta, x):
    """Return the exact log posterior density, by quadrature."""
    points, area = grid()
    log_joint = log_likelihood(points, x) + PRIOR.log_prob(points)
    log_evidence = np.logaddexp.reduce(log_joint) + np.log(area)
    return log_likelihood(theta, x) + PRIOR.log_prob(theta) - log_evidence


def draw(npe, thetas, X):
    """Draw rings above their posteriors, with exact contours."""
    figure, axes = plt.subplots(2, 3, figsize=(8, 4.6), layout="constrained")
    points = grid()[0]
    for (above, below), truth, x in zip(axes.T, thetas, X, strict=True):
        above.plot(ANGLES, x, ".-", lw=0.8)
        above.set(xlabel="angle around the ring", xticks=[0, np.pi, 2 * np.pi])
        above.set_xticklabels(["0", "$\\pi$", "$2\\pi$"])
        density = np.exp(log_posterior(points, x))
        held = np.sort(density)[::-1]
        levels = [held[np.searchsorted(held.cumsum() / held.sum(), q)] for q in (0.865, 0.393)]
        below.plot(*npe.sample_posterior(x, 2000, random_state=0).T, ".", ms=1.5, alpha=0.35)
        below.tricontour(*points.T, density, levels=levels, colors="black", linewidths=1)
        below.plot(*truth, "x", color="C3", ms=8, mew=2)
        below.set(xlabel="log A", ylim=(-2, 0))
    axes[0, 0].set_ylabel("measured")
    axes[1, 0].set_ylabel("log l")
    return figure


if __name__ == "__main__":
    main()
