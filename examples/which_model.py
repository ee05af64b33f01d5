"""Which model made the track?
===========================

How does an animal walk? The probabilities of three models, from sixty steps of a track.

The animal may diffuse (Brownian motion), keep its direction for a while (a correlated walk), or
take a few very long steps among many short ones (a Levy flight). Each model has a prior of its own.
A classifier is trained on simulations of all three and tells how probable each model is given a
track, however its parameters may be. The track is given by its turning angles and step lengths,
sorted. The example takes about one minute in one thread and writes a picture to the folder
`pictures` beside this file::

    pip install -c tests/constraints.txt -e ".[plot]" && python examples/which_model.py

Codling, Plank and Benhamou, Random walk models in biology, 2008,
https://doi.org/10.1098/rsif.2008.0014.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats
from sklearn.metrics import ConfusionMatrixDisplay, log_loss

from skbi import JointPrior, ModelClassifier, simulate_models

PICTURES = Path(__file__).parent / "pictures"
STYLE = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 160}
N_STEPS = 60
LENGTH = stats.lognorm(0.5)  # prior of a typical step, in metres


def brownian(theta, rng):
    """Take steps in every direction, (60, 2)."""
    return theta[0] * rng.normal(size=(N_STEPS, 2))


def correlated(theta, rng):
    """Turn a little at every step."""
    length, concentration = theta
    heading = np.cumsum(rng.vonmises(0, concentration, N_STEPS))
    return (
        length
        * rng.rayleigh(size=(N_STEPS, 1))
        * np.column_stack([np.cos(heading), np.sin(heading)])
    )


def levy(theta, rng):
    """Take steps whose lengths have a power law."""
    length, exponent = theta
    angle = rng.uniform(0, 2 * np.pi, N_STEPS)
    lengths = length * (1 + rng.pareto(exponent, (N_STEPS, 1)))
    return lengths * np.column_stack([np.cos(angle), np.sin(angle)])


MODELS = {
    "Brownian": (JointPrior({"length": LENGTH}), brownian),
    "correlated": (
        JointPrior({"length": LENGTH, "concentration": stats.expon(scale=1)}),
        correlated,
    ),
    "Levy": (JointPrior({"length": LENGTH, "exponent": stats.uniform(1, 3)}), levy),
}


def features(steps):
    """Return the sorted log lengths of the steps, and the mean cosine of their turns."""
    lengths = np.linalg.norm(steps, axis=-1)
    along = np.sum(steps[:, 1:] * steps[:, :-1], axis=2) / (lengths[:, 1:] * lengths[:, :-1])
    return np.column_stack([np.sort(np.log(lengths), axis=1), along.mean(axis=1)])


def main():
    """Simulate all models, fit, score and draw the picture."""
    steps, model = simulate_models(MODELS, 3000, random_state=0)
    steps_test, model_test = simulate_models(MODELS, 500, random_state=1)
    classifier = ModelClassifier(random_state=0).fit(features(steps), model)
    probability = classifier.predict_proba(features(steps_test))
    print(f"log loss {log_loss(model_test, probability):.3f} nats; guessing has {np.log(3):.3f}")

    PICTURES.mkdir(exist_ok=True)
    with plt.rc_context(STYLE):
        path = PICTURES / "which_model.png"
        draw(classifier, steps_test, model_test).savefig(path)
        print("wrote", path)


def draw(classifier, steps, model):
    """Draw a track of each model with its probabilities, and which is taken for which."""
    figure, axes = plt.subplots(1, 4, figsize=(11, 3), layout="constrained")
    for ax, name in zip(axes, MODELS, strict=False):
        one = steps[np.flatnonzero(model == name)[2]]
        ax.plot(*np.cumsum(one, axis=0).T, lw=1)
        found = zip(
            classifier.classes_, classifier.predict_proba(features(one[None]))[0], strict=True
        )
        label = "\n".join(f"{probability:.0%} {candidate}" for candidate, probability in found)
        ax.set_title(f"made by: {name}")
        ax.set(aspect="equal", adjustable="datalim", xlabel=label, xticks=[], yticks=[])
    options = {"normalize": "true", "values_format": ".0%", "colorbar": False, "cmap": "Blues"}
    X = features(steps)
    ConfusionMatrixDisplay.from_estimator(classifier, X, model, ax=axes[3], **options)
    axes[3].set(xlabel="most probable", ylabel="made by", title="500 tracks of each")
    return figure


if __name__ == "__main__":
    main()
