"""Draw the pictures of how-it-works.md: what each method learns of one problem, and its posterior.

theta ~ N(0, 1) is squared and seen with noise, x ~ N(theta^2, 0.4^2). Its sign is lost, and the
posterior given x = 1 has two modes. Takes about two minutes in one thread:
``python docs/method_pictures.py``.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from pictures import PICTURES, STYLE, save
from scipy import stats

from skbi import (
    CMPEEstimator,
    FMPEEstimator,
    JointPrior,
    NLEEstimator,
    NPEEstimator,
    NREEstimator,
    simulate,
)
from skbi.estimators.flow_odes import transport
from skbi.estimators.fmpe import mean_field

PRIOR = JointPrior({"theta": stats.norm(0, 1)})
NOISE, OBSERVED = 0.4, np.array([1.0])
THETAS, XS = np.linspace(-2.5, 2.5, 201), np.linspace(-1.2, 4.5, 200)
BLUE, GREY, RED = "#3b6ea8", "0.35", "#c44e52"


def simulator(theta, rng):
    """See the square of theta with noise."""
    return theta**2 + NOISE * rng.normal(size=1)


def draw_plane(ax, estimator, theta, X):
    """Draw what is learnt in the plane of x and theta, and pairs."""
    table, observations = np.repeat(THETAS, len(XS)), np.tile(XS, len(THETAS))
    values = estimator.log_prob(table[:, None], observations[:, None]).reshape(201, 200)
    extent = (XS[0], XS[-1], THETAS[0], THETAS[-1])
    options = {"origin": "lower", "aspect": "auto", "extent": extent}
    if isinstance(estimator, NREEstimator):
        image = ax.imshow(values, cmap="RdBu_r", vmin=-4, vmax=4, **options)
    else:
        image = ax.imshow(np.exp(values), cmap="Blues", vmin=0, vmax=1.2, **options)
    ax.figure.colorbar(image, ax=ax, extend="both")
    ax.plot(X[:300, 0], theta[:300, 0], ".", color=GREY, markersize=2)
    ax.axvline(OBSERVED[0], color=RED, linewidth=1)
    ax.set(xlabel="x", ylabel=r"$\theta$", xlim=extent[:2], ylim=extent[2:])


def draw_paths(ax, fmpe):
    """Draw the paths of noise along the mean velocity, given the observation."""
    ensemble, contexts, _ = fmpe._read(
        fmpe._check_observations(OBSERVED)[0], check_typicality=False
    )
    given = [context.unsqueeze(1) for context in contexts]
    field, paths = mean_field(ensemble, given), []

    def recorded(y, angle):
        z = ensemble.members[0].from_residuals(y, given[0])
        paths.append(fmpe._maps.theta.inverse(z.numpy()[0])[:, 0])
        return field(y, angle)

    levels = stats.norm.ppf((np.arange(60) + 0.5) / 60)
    with torch.no_grad():
        transport(recorded, torch.as_tensor(levels, dtype=torch.float32)[None, :, None], 32)
    ax.plot(np.linspace(0, 1, len(paths)), paths, color=BLUE, linewidth=0.7)
    ax.set(xlabel="time t, from noise to parameters", ylabel=r"$\theta$", xlim=(0, 1))


def draw_steps(ax, cmpe):
    """Draw the posterior of one, two and three steps."""
    default = cmpe.n_steps_
    for n_steps, style in zip(range(1, default + 1), (":", "--", "-"), strict=True):
        cmpe.n_steps_ = n_steps
        draws = cmpe.sample_posterior(OBSERVED, 20_000, random_state=0)[:, 0]
        density = stats.gaussian_kde(draws, 0.1)(THETAS)
        ax.plot(THETAS, density, style, color=BLUE, label=f"{n_steps}")
    ax.legend(frameon=False, loc="upper center", fontsize=8, title="steps")
    ax.set(xlabel=r"$\theta$", yticks=[])


def draw_posterior(ax, estimator):
    """Draw a histogram of draws given the observation, and the exact density."""
    draws = estimator.sample_posterior(OBSERVED, 5000, random_state=0)[:, 0]
    exact = stats.norm.pdf(THETAS) * stats.norm.pdf(OBSERVED, THETAS**2, NOISE)
    bins = np.linspace(-2.5, 2.5, 61)
    ax.hist(draws, bins, density=True, color=BLUE, alpha=0.5, label="draws")
    ax.plot(THETAS, exact / np.trapezoid(exact, THETAS), color=RED, label="exact")
    ax.set(xlabel=r"$\theta$", yticks=[], title="posterior given x = 1")
    ax.legend(frameon=False, loc="upper center", fontsize=8)


def main():
    """Draw what is learnt and the posterior, one picture a method."""
    theta, X = simulate(PRIOR, simulator, 5000, random_state=0)
    for name, Estimator, title in [
        ("npe", NPEEstimator, r"$q(\theta \mid x)$"),
        ("nle", NLEEstimator, r"$q(x \mid \theta)$"),
        ("nre", NREEstimator, r"$\log\, p(x \mid \theta) / p(x)$"),
        ("fmpe", FMPEEstimator, "paths along the velocity, given x = 1"),
        ("cmpe", CMPEEstimator, "draws of one to three steps, given x = 1"),
    ]:
        estimator = Estimator(prior=PRIOR, random_state=0).fit(theta, X)
        figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
        if name == "fmpe":
            draw_paths(left, estimator)
        elif name == "cmpe":
            draw_steps(left, estimator)
        else:
            draw_plane(left, estimator, theta, X)
        left.set_title(title)
        draw_posterior(right, estimator)
        save(figure, f"method_{name}")


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    with plt.rc_context(STYLE):
        main()
