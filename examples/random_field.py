"""A random field
==============

How rough is a field? NPE on images of a Gaussian random field, beside the exact posterior.

Maps of the sky, of a surface or of a turbulent flow are often described by the power spectrum of a
Gaussian random field: power A (k / 4)^-slope at k periods an image. Here an image has 32 x 32
pixels, and white noise of 0.3 hides the small scales. The Fourier modes of such a field are
independent, so that the exact posterior of amplitude and slope can be computed on a grid. NPE is
given the images, as they are.

The example takes about four minutes on two cores and writes two pictures to the folder `pictures`
beside this file::

    pip install -c tests/constraints.txt -e ".[plot]" && python -m examples.random_field

Bond, Jaffe and Knox, Estimating the power spectrum of the cosmic microwave background, 1998,
https://doi.org/10.1103/PhysRevD.57.2117.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from examples.benchmarks.ordered import RandomField
from skbi import CoverageDisplay, NPEEstimator, coverage_score

PICTURES = Path(__file__).parent / "pictures"
STYLE = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 160}
SHOWN = np.array([[0.0, 1.3], [0.5, 2.2], [-0.5, 3.0], [1.0, 3.7]])  # log A and slope
LEVELS = 0.393, 0.865  # one and two sigma of a two-dimensional Gaussian


def main():
    """Simulate, fit, compare with the exact posterior and draw the pictures."""
    field, rng = RandomField(), np.random.default_rng(0)
    theta, truth = (field.prior.sample(n, random_state=rng) for n in (10_000, 500))
    X, X_test = field.simulate(theta, rng), field.simulate(truth, rng)

    npe = NPEEstimator(prior=field.prior, summary="image", random_state=0, verbose=1).fit(theta, X)
    exact, found = field.log_posterior(truth, X_test).mean(), npe.score(truth, X_test)
    print(f"mean log posterior of the truth: exact {exact:.2f}, NPE {found:.2f} nats")
    coverage = coverage_score(npe, truth, X_test, n_samples=500, random_state=1)
    print(f"coverage score {coverage:.3f} (1 is calibrated)")

    PICTURES.mkdir(exist_ok=True)
    with plt.rc_context(STYLE):
        for name, figure in {
            "posterior": draw(npe, field, field.simulate(SHOWN, rng)),
            "coverage": CoverageDisplay.from_estimator(npe, truth, X_test, random_state=1).figure_,
        }.items():
            path = PICTURES / f"random_field_{name}.png"
            figure.savefig(path)
            print("wrote", path)


def draw(npe, field, images):
    """Draw four images; below each its exact posterior, draws of NPE, and the truth."""
    figure, axes = plt.subplots(2, 4, figsize=(9, 4.8), layout="constrained")
    for (above, below), truth, image in zip(axes.T, SHOWN, images, strict=True):
        above.imshow(image, cmap="gray", vmin=-2.5, vmax=2.5)
        above.set(xticks=[], yticks=[])
        above.set_title(f"log A = {truth[0]:g}, slope = {truth[1]:g}", size=10)
        draws = npe.sample_posterior(image, 3000, random_state=0)
        below.plot(*draws.T, ".", ms=1.5, color="C0", alpha=0.35, label="draws of NPE")
        low, high = np.quantile(draws, [0.0005, 0.9995], axis=0)
        log_A, slope, density = posterior_on_a_grid(field, image, low - 0.1, high + 0.1)
        below.contour(log_A, slope, density, levels=heights(density), colors="black")
        below.plot([], [], "k-", label="exact, 1 and 2 sigma")
        below.plot(*truth, "x", color="C3", ms=8, mew=2, label="truth")
        below.set_xlabel("log A")
    axes[1, 0].set_ylabel("slope")
    axes[1, 0].legend(frameon=False, fontsize=8, markerscale=1)
    return figure


def posterior_on_a_grid(field, image, low, high):
    """Return a grid and the exact posterior there, (200, 200)."""
    (bottom, top), n = field.prior.support[1], 200
    log_A = np.linspace(low[0], high[0], n)
    slope = np.linspace(max(low[1], bottom), min(high[1], top), n)
    grid = np.stack(np.meshgrid(log_A, slope), axis=-1).reshape(-1, 2)
    log_p = field.log_likelihood(grid, field.power(image[None])[0]) + field.prior.log_prob(grid)
    return log_A, slope, np.exp(log_p - log_p.max()).reshape(n, n)


def heights(density):
    """Return the densities of the contours that hold 39 % and 86 %, from the lowest up."""
    ordered = np.sort(density.ravel())[::-1]
    held = np.cumsum(ordered) / ordered.sum()
    return sorted(ordered[np.searchsorted(held, level)] for level in LEVELS)


if __name__ == "__main__":
    main()
