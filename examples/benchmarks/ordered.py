"""Tasks whose observations have an order: series and images, most with exact posteriors."""

import numpy as np
from scipy import special, stats

from examples.benchmarks.task import Task
from skbi import JointPrior

_NORMAL = np.linspace(-5.5, 5.5, 201)  # Gaussian coordinates that integrals over priors are sums of
_GRID, _LOG_SHARES = stats.norm.cdf(_NORMAL), stats.norm.logpdf(_NORMAL) + np.log(0.055)


def ar1(n_times=100, shortest=None):
    """Find correlation, innovation and mean of a stationary autoregressive series."""
    prior = JointPrior(
        {
            "phi": stats.uniform(-0.95, 1.9),
            "sigma": stats.lognorm(0.5),
            "mean": stats.norm(0, 2),
        }
    )

    def simulate(theta, rng):
        phi, sigma, mean = theta.T
        noise = rng.normal(size=(n_times, len(theta)))
        z = [noise[0] / np.sqrt(1 - phi**2)]
        for step in noise[1:]:
            z.append(phi * z[-1] + step)
        X = mean[:, None] + sigma[:, None] * np.array(z).T
        if shortest is not None:
            length = rng.integers(shortest, n_times, len(theta), endpoint=True)
            X[np.arange(n_times) >= length[:, None]] = np.nan
        return X

    def log_posterior(theta, X):
        return np.array(
            [_log_ar1(t, x[~np.isnan(x)], prior) for t, x in zip(theta, X, strict=True)]
        )

    return Task(prior, simulate, {"posterior": log_posterior}, summary="series")


def ar1_ragged():
    """See 20 to 200 values."""
    return ar1(200, shortest=20)


def ou_process(n_times=100):
    """Find rate, spread and mean of a process seen at irregular times, which are a channel."""
    prior = JointPrior(
        {
            "rate": stats.lognorm(1.0),
            "spread": stats.lognorm(0.5),
            "mean": stats.norm(0, 2),
        }
    )

    def simulate(theta, rng):
        gaps = rng.exponential(size=(n_times, len(theta)))
        noise = rng.normal(size=gaps.shape)
        z = [noise[0]]
        for gap, step in zip(gaps[1:], noise[1:], strict=True):
            kept = np.exp(-theta[:, 0] * gap)
            z.append(kept * z[-1] + np.sqrt(1 - kept**2) * step)
        values = theta[:, 2:] + theta[:, 1:2] * np.array(z).T
        return np.stack([np.cumsum(gaps, axis=0).T, values], axis=2)

    def log_posterior(theta, X):
        return np.array([_log_ou(t, x, prior) for t, x in zip(theta, X, strict=True)])

    return Task(prior, simulate, {"posterior": log_posterior}, summary="series")


def _log_ar1(theta, x, prior):
    """Log posterior of correlation, innovation and mean."""
    phi = np.append(theta[0], prior.marginals["phi"].ppf(_GRID))[:, None]
    left = np.sqrt(1 - phi**2)
    y = np.hstack([x[:1] * left, x[1:] - phi * x[:-1]])
    a = np.hstack([left, np.repeat(1 - phi, len(x) - 1, axis=1)])
    return _log_density(theta, y, a, np.log(left[:, 0]), prior)


def _log_ou(theta, x, prior):
    """Log posterior of rate, spread and mean."""
    times, values = x.T
    rate = np.append(theta[0], prior.marginals["rate"].ppf(_GRID))[:, None]
    kept = np.exp(-rate * np.diff(times))
    left = np.sqrt(1 - kept**2)
    first = np.ones_like(rate)
    y = np.hstack([first * values[0], (values[1:] - kept * values[:-1]) / left])
    a = np.hstack([first, (1 - kept) / left])
    return _log_density(theta, y, a, -np.log(left).sum(axis=1), prior)


def _log_density(theta, y, a, log_volume, prior):
    """Log posterior of theta = (first, scale, mean), where y ~ N(mean a, scale^2) given the first.

    y and a (1 + m, n) are those of theta, then of m values of the first parameter. The evidence is
    a sum over these and as many values of the scale; the mean, N(0, 2), is integrated out.
    """
    scales, n = prior.marginals[prior.names[1]].ppf(_GRID), y.shape[1]
    aa, ay, yy = (a * a).sum(axis=1), (a * y).sum(axis=1), (y * y).sum(axis=1)
    _, scale, mean = theta
    error = yy[0] - 2 * mean * ay[0] + mean**2 * aa[0]
    log_likelihood = log_volume[0] - n * np.log(scale) - 0.5 * error / scale**2
    square = scales[:, None] ** 2
    precision = 1 / 4 + aa[1:] / square
    log_marginal = log_volume[1:] - n * np.log(scales)[:, None] - 0.5 * yy[1:] / square
    log_marginal += 0.5 * (ay[1:] / square) ** 2 / precision - 0.5 * np.log(4 * precision)
    log_evidence = special.logsumexp(log_marginal + _LOG_SHARES[:, None] + _LOG_SHARES)
    return log_likelihood + prior.log_prob(theta[None])[0] - log_evidence


def lotka_volterra_series():
    """See two populations at 201 times, through multiplicative noise."""
    medians = {"growth": -0.125, "hunting": -3.0, "death": -0.125, "feeding": -3.0}
    prior = JointPrior({k: stats.lognorm(0.5, scale=np.exp(m)) for k, m in medians.items()})

    def populations(theta, step=0.01):
        growth, hunting, death, feeding = theta.T
        alone, together = np.array([growth, -death]), np.array([-hunting, feeding])
        state, seen = np.array([[30.0], [1.0]]) * np.ones(len(theta)), []
        for k in range(2001):  # Heun's method
            if k % 10 == 0:
                seen.append(state)
            slope = (alone + together * state[::-1]) * state
            ahead = np.maximum(state + step * slope, 0)
            second = (alone + together * ahead[::-1]) * ahead
            state = np.minimum(np.maximum(state + step / 2 * (slope + second), 0), 1e8)
        return np.maximum(np.moveaxis(np.array(seen), 2, 0), 1e-10)

    def simulate(theta, rng):
        seen = populations(theta)
        return seen * np.exp(0.1 * rng.normal(size=seen.shape))

    return Task(prior, simulate, summary="series")


class RandomField:
    """Gaussian fields of power A (k / 4)^-slope at k periods an image, seen through white noise.

    k = 0 has no power. The modes of a field are independent, so that the likelihood is known.
    """

    prior = JointPrior({"log A": stats.norm(), "slope": stats.uniform(1, 3)})

    def __init__(self, size=32, noise=0.3, pivot=4.0):
        self.size, self.noise, self.pivot = size, noise, pivot
        wave = size * np.fft.fftfreq(size)
        radius = np.hypot(wave[:, None], wave).round(6).ravel()
        self.radii, self.owner, self.count = np.unique(
            radius, return_inverse=True, return_counts=True
        )

    def variance(self, theta):
        """Power of the field and of the noise at each radius, (n, n_radii)."""
        log_k = np.log(np.maximum(self.radii, 1) / self.pivot)
        power = np.exp(theta[:, :1] - theta[:, 1:] * log_k)
        return self.noise**2 + np.where(self.radii > 0, power, 0)

    def simulate(self, theta, rng):
        """Draw one image for each theta, (n, size, size)."""
        shape = len(theta), self.size, self.size
        modes = np.fft.fft2(rng.normal(size=shape), norm="ortho")
        scale = np.sqrt(self.variance(theta))[:, self.owner].reshape(shape)
        return np.fft.ifft2(scale * modes, norm="ortho").real

    def power(self, X):
        """Sum the power of the modes at each radius, (n, n_radii)."""
        modes = np.abs(np.fft.fft2(X, norm="ortho")) ** 2
        return np.array([np.bincount(self.owner, m.ravel()) for m in modes])

    def log_likelihood(self, theta, power):
        """Log likelihood, but for a constant, of every theta for one image, (m,)."""
        v = self.variance(theta)
        return -0.5 * (np.log(v) @ self.count + (1 / v) @ power)

    def log_posterior(self, theta, X):
        """Log p(theta | X), (n,), by quadrature of the evidence."""
        log_A, slope = (self.prior.marginals[name].ppf(_GRID) for name in self.prior.names)
        grid = np.stack(np.meshgrid(log_A, slope), axis=-1).reshape(-1, 2)
        v = self.variance(grid)
        inverse = 1 / v
        log_shares = np.add.outer(_LOG_SHARES, _LOG_SHARES).ravel() - 0.5 * np.log(v) @ self.count
        log_p = [
            self.log_likelihood(t[None], power)[0]
            - special.logsumexp(log_shares - 0.5 * (inverse @ power))
            for t, power in zip(theta, self.power(X), strict=True)
        ]
        return np.array(log_p) + self.prior.log_prob(theta)


def random_field():
    """Find amplitude and slope of the power spectrum of a Gaussian random field, through noise."""
    field = RandomField()
    exact = {"posterior": field.log_posterior}
    return Task(field.prior, field.simulate, exact, summary="image")
