"""GridSearchCV chooses the settings
=================================

Let GridSearchCV choose the settings: where is the ship, by its distances to two lighthouses?

A ship measures its distance to two lighthouses on a straight coast, each with an error. Ships on
either side of the coast's line measure the same, so that the posterior has two modes. scikit-learn
compares kinds of flows and numbers of layers by the mean log density of held-out pairs, and takes
the best. The example takes about one minute in one thread and writes a picture to the folder
`pictures` beside this file::

    pip install -c tests/constraints.txt -e ".[plot]" && python examples/grid_search.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats
from sklearn.model_selection import GridSearchCV

from skbi import JointPrior, NPEEstimator, coverage_score, simulate

PICTURES = Path(__file__).parent / "pictures"
STYLE = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 160}
PRIOR = JointPrior({"east": stats.uniform(-1, 2), "north": stats.uniform(-1, 2)})
LIGHTHOUSES = np.array([[-0.6, 0.0], [0.6, 0.0]])
SHIP = np.array([0.2, 0.5])


def distances(theta, rng):
    """Measure the distance to each lighthouse, with a standard deviation of 0.05."""
    return np.linalg.norm(theta - LIGHTHOUSES, axis=1) + 0.05 * rng.normal(size=2)


def main():
    """Simulate, search, check the best and draw the picture."""
    theta, X = simulate(PRIOR, distances, 3000, random_state=0)
    truth, X_test = simulate(PRIOR, distances, 500, random_state=1)

    grid = {"flow": ["realnvp", "spline"], "n_transforms": [2, 4]}
    npe = NPEEstimator(prior=PRIOR, max_iter=20, random_state=0)
    search = GridSearchCV(npe, grid, cv=3).fit(theta, X)
    found = search.cv_results_
    for settings, mean in zip(found["params"], found["mean_test_score"], strict=True):
        print(settings, f"mean log density {mean:.2f} nats")
    best = search.best_estimator_  # fitted once more, to all pairs
    print(f"best on other pairs: {best.score(truth, X_test):.2f} nats, coverage "
          f"{coverage_score(search, truth, X_test, random_state=2):.3f}")  # fmt: skip

    other = NPEEstimator(
        **{**npe.get_params(), **found["params"][found["mean_test_score"].argmin()]}
    )
    PICTURES.mkdir(exist_ok=True)
    with plt.rc_context(STYLE):
        path = PICTURES / "grid_search.png"
        draw(search, other.fit(theta, X)).savefig(path)
        print("wrote", path)


def draw(search, worst):
    """Draw the scores of the folds, and the posteriors of the best and the worst settings."""
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
    names = ["{flow}, {n_transforms}".format(**each) for each in search.cv_results_["params"]]
    for fold in range(3):
        axes[0].plot(
            search.cv_results_[f"split{fold}_test_score"], names, "o", label=f"fold {fold}"
        )
    axes[0].set_xlabel("mean log density of held-out pairs [nats]")
    axes[0].legend(frameon=False)
    posteriors = zip(axes[1:], (search.best_estimator_, worst), ("best", "worst"), strict=True)
    x_obs = np.linalg.norm(SHIP - LIGHTHOUSES, axis=1)
    for ax, posterior, name in posteriors:
        draws = posterior.sample_posterior(x_obs, 4000, random_state=0)
        ax.plot(*draws.T, ".", ms=1, color="C0", alpha=0.5)
        ax.plot(*LIGHTHOUSES.T, "^", color="black")
        ax.plot(*SHIP, "x", color="C3", ms=8, mew=2)
        ax.set(title=name, xlim=(-1, 1), ylim=(-1, 1), aspect="equal", xlabel="east")
    axes[1].set_ylabel("north")
    return figure


if __name__ == "__main__":
    main()
