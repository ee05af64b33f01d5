"""Compute reference draws of the tasks from their exact likelihoods, and store them.

    python -m examples.benchmarks.references [slcp sir ...]

Each task has five observations, of which its file <task>.npz here has 5,000 draws each. How they
are computed:

two_moons, gaussian_mixture, gaussian_linear_uniform : exact draws by rejection, or of truncated
    normals.
sir : from a grid of the two parameters.
slcp : from a grid of three parameters; the two means are normal given these.
bernoulli_glm, lotka_volterra : by rejection from a Student t. Printed are the effective sample size
    as a share of its draws, the share accepted, and the k of Pareto smoothing.

All but lotka_volterra have observations of the SBI benchmark, which stay as they are in the file.
Those of lotka_volterra are simulated from the parameters there, which are of the SBI benchmark too.
"""

import argparse

import numpy as np
from scipy import optimize, stats
from scipy.differentiate import hessian

from examples.benchmarks.tasks import FOLDER, TASKS
from skbi.priors import from_normal
from skbi.samplers import pareto_smoothed

N_DRAWS = 5000


def two_moons(task, x, rng):
    """Invert the simulator, with either sign of theta_0 + theta_1; the prior is flat."""
    crescent = task.simulate(np.zeros((20 * N_DRAWS, 2)), rng)
    crescent = crescent[crescent[:, 0] > x[0]]
    total = rng.choice([-1, 1], len(crescent)) * (crescent[:, 0] - x[0])
    difference = x[1] - crescent[:, 1]
    theta = np.column_stack([total - difference, total + difference]) / np.sqrt(2)
    return inside(theta, 1)


def gaussian_mixture(task, x, rng):
    """Draw from the mixture around x, and reject what is outside of the prior."""
    scale = rng.choice([1.0, 0.1], (20 * N_DRAWS, 1))
    return inside(x + scale * rng.normal(size=(len(scale), 2)), 10)


def gaussian_linear_uniform(task, x, rng):
    """Draw from ten truncated normals."""
    scale = np.sqrt(0.1)
    bounds = (-1 - x) / scale, (1 - x) / scale
    return stats.truncnorm.rvs(*bounds, x, scale, size=(N_DRAWS, 10), random_state=rng)


def inside(theta, bound):
    """Return the first draws inside of the prior."""
    return theta[np.all(np.abs(theta) < bound, axis=1)][:N_DRAWS]


def sir(task, x, rng):
    """Draw the logarithms from a grid."""
    likelihood = log_likelihood(task, x)

    def log_p(log_theta):
        theta = np.exp(log_theta)
        return likelihood(theta) + task.prior.log_prob(theta) + log_theta.sum(axis=1)

    low, high = np.log(task.prior.ppf(np.array([[1e-6] * 2, [1 - 1e-6] * 2])))
    return np.exp(from_grid(log_p, low, high, 400, N_DRAWS, rng))


def slcp(task, x, rng):
    """Draw scales and correlation from a grid, the means from a normal that the prior cuts off."""
    points = x.reshape(4, 2)
    scatter = 3 * np.cov(points.T)

    def log_p(theta):  # with the means integrated out
        scales, correlation = theta[:, :2] ** 2, np.tanh(theta[:, 2])
        left = 1 - correlation**2
        square = scatter[0, 0] / scales[:, 0] ** 2 + scatter[1, 1] / scales[:, 1] ** 2
        square -= 2 * correlation * scatter[0, 1] / scales.prod(axis=1)
        return -square / (2 * left) - 1.5 * np.log(left * scales.prod(axis=1) ** 2)

    scales = from_grid(log_p, [0, 0, -3], [3, 3, 3], 150, 500 * N_DRAWS, rng)
    (a, b), correlation = scales[:, :2].T ** 2 / 2, np.tanh(scales[:, 2])
    noise, other = rng.normal(size=(2, len(scales)))
    noisy = correlation * noise + np.sqrt(1 - correlation**2) * other
    means = points.mean(axis=0) + np.column_stack([a * noise, b * noisy])
    theta = inside(np.column_stack([means, scales]), 3)
    theta[:, 2:4] *= rng.choice([-1, 1], (N_DRAWS, 2))
    return theta


def from_grid(log_p, low, high, n, n_draws, rng):
    """Draw from a grid of n cells a side, around the cells with a density above e^-25 of the top.

    Each draw is uniform in its cell.
    """
    lowest, highest = low, high = np.array(low, float), np.array(high, float)
    for size in (n // 4, n // 4, n // 4, n):
        width = (high - low) / size
        cells = np.stack(np.meshgrid(*[np.arange(size)] * len(low), indexing="ij"), axis=-1)
        cells, start = cells.reshape(-1, len(low)), low
        parts = np.array_split(cells, len(cells) // 10_000 + 1)
        density = np.concatenate([log_p(start + (part + 0.5) * width) for part in parts])
        kept = cells[density > density.max() - 25]
        low = np.maximum(start + (kept.min(axis=0) - 1) * width, lowest)
        high = np.minimum(start + (kept.max(axis=0) + 2) * width, highest)
    share = np.exp(density - density.max())
    chosen = cells[rng.choice(len(cells), n_draws, p=share / share.sum())]
    return start + (chosen + rng.random(chosen.shape)) * width


def by_rejection(task, x, rng, n=100_000):
    """Fit a Student t in the prior's Gaussian coordinates; accept its draws by their weights."""
    likelihood = log_likelihood(task, x)

    def log_p(z):  # (p, ...)
        parts = np.array_split(z.reshape(len(z), -1).T, z.size // 10**5 + 1)
        log_l = [likelihood(from_normal(task.prior, part)) for part in parts]
        return np.concatenate(log_l).reshape(z.shape[1:]) + stats.norm.logpdf(z).sum(axis=0)

    z = rng.normal(size=(len(task.prior.names), n // 10))
    mean = optimize.minimize(lambda one: -log_p(one[:, None])[0], z[:, log_p(z).argmax()]).x
    covariance = np.linalg.inv(-hessian(log_p, mean, initial_step=0.05, maxiter=3).ddf)
    for size in (n // 10, n // 10, n):
        proposal = stats.multivariate_t(mean, covariance, df=8)
        z = proposal.rvs(size, random_state=rng)
        log_w = log_p(z.T) - proposal.logpdf(z)
        w = np.exp(log_w - log_w.max())
        mean, covariance = w @ z / w.sum(), np.cov(z.T, aweights=w)
    accepted = rng.random(n) < w
    share, k = w.sum() ** 2 / (w @ w) / n, pareto_smoothed(log_w)[1]
    print(f"    effective {share:.3f}, accepted {accepted.mean():.3f}, k {k:.2f}", flush=True)
    return from_normal(task.prior, z[accepted][:N_DRAWS])


def log_likelihood(task, x):
    """Return the exact log likelihood of one observation, as a function of theta."""
    exact = task.exact.get("likelihood") or task.exact["mass"]
    return lambda theta: exact(theta, np.tile(x, (len(theta), 1)))


HOW = {
    "two_moons": two_moons,
    "gaussian_mixture": gaussian_mixture,
    "gaussian_linear_uniform": gaussian_linear_uniform,
    "slcp": slcp,
    "sir": sir,
    "bernoulli_glm": by_rejection,
    "lotka_volterra": by_rejection,
}


def compute(name):
    """Compute the draws of a task and store them."""
    task, file = TASKS[name](), dict(np.load(FOLDER / f"{name}.npz"))
    if name == "lotka_volterra":
        file["observation"] = task.simulate(file["theta_true"], np.random.default_rng(0))
    draws = []
    for number, x in enumerate(file["observation"]):
        rng = np.random.default_rng([0, number])
        draws.append(rng.permutation(HOW[name](task, x, rng)).astype(np.float32))
    np.savez_compressed(FOLDER / f"{name}.npz", **file | {"samples": np.array(draws)})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tasks", nargs="*", default=list(HOW), help=f"of {list(HOW)}")
    for name in parser.parse_args().tasks:
        print(name, flush=True)
        compute(name)
