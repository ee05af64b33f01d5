"""Conditional posteriors: q(theta_free | theta_given, x), up to a constant q(theta | x)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from skbi.analysis.densities import log_density_at
from skbi.calibration.observations import sample_observations
from skbi.calibration.runs import fitted_estimator, without_typicality_check
from skbi.priors import JointPrior, Prior
from skbi.randomness import RandomState, as_generator
from skbi.samplers.smc import smc

__all__ = ["ConditionalPosterior"]

_N_DRAWS = 1000  # of the posterior, which tell where to look
_WIDTH = 2.0  # posterior standard deviations of what the sampler starts from
_DEGREES_OF_FREEDOM = 5.0


class ConditionalPosterior:
    """The posterior of some parameters, given the values of the others.

    It has the methods of an estimator, for the parameters that are left. Its draws come from
    sequential Monte Carlo, `skbi.samplers.smc`, on the density of the estimator, so that they find
    separate modes and ridges.

    Parameters
    ----------
    estimator : object with ``sample_posterior`` and ``log_prob`` or ``log_posterior``
        A fitted estimator; CMPE has no density.
    given : mapping of str to float
        Values by the names of parameters, at least one and not all.

    Attributes
    ----------
    parameter_names_in_ : list of str
        Names of the parameters that are left.

    Raises
    ------
    ValueError
        If there is no such parameter, or if none is left.

    See Also
    --------
    PosteriorDisplay : Draws a picture with ``given=``.

    Examples
    --------
    >>> class Exact:  # two parameters with a correlation of 0.8, whatever x
    ...     parameter_names_in_ = ["a", "b"]
    ...     law = stats.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]])
    ...     def sample_posterior(self, X, n_samples, *, random_state=None):
    ...         return self.law.rvs((len(X), n_samples), random_state=random_state)
    ...     def log_prob(self, theta, X):
    ...         return self.law.logpdf(theta)
    >>> conditional = ConditionalPosterior(Exact(), {"a": 1.0})
    >>> b = conditional.sample_posterior(np.zeros((2, 2)), 2000, random_state=0)
    >>> b.shape, abs(float(b.mean()) - 0.8) < 0.1, abs(float(b.std()) - 0.6) < 0.1
    ((2, 2000, 1), True, True)
    """

    def __init__(self, estimator: Any, given: Mapping[str, float]) -> None:
        self.estimator = fitted_estimator(estimator)
        names = getattr(self.estimator, "parameter_names_in_", None)
        if names is None:
            raise ValueError("given= needs an estimator that names its parameters.")
        self._names, self.given = list(names), dict(given)
        unknown = sorted(set(given) - set(self._names))
        if unknown or not 0 < len(given) < len(self._names):
            raise ValueError(
                f"given must hold values of some, not all, of the parameters {self._names}; got "
                f"{self.given}."
            )
        self._free = [j for j, name in enumerate(self._names) if name not in self.given]
        self.parameter_names_in_ = [self._names[j] for j in self._free]

    def log_posterior(self, theta: Any, X: Any) -> NDArray[np.float64]:
        """Log density of the parameters that are left, up to a constant of the observation.

        Parameters
        ----------
        theta : array-like, shape (n, number of parameters that are left)
        X : array-like
            A batch of one observation.

        Returns
        -------
        ndarray, shape (n,)
        """
        return log_density_at(self.estimator, X)(self._complete(np.asarray(theta, float)))

    def sample_posterior(
        self, X_obs: Any, n_samples: int = 1000, *, random_state: RandomState = None
    ) -> NDArray[np.float64]:
        """Draw the parameters that are left.

        Parameters
        ----------
        X_obs : array-like
            One observation or a batch, as in the estimator's ``sample_posterior``.
        n_samples : int, default=1000
            Draws for each observation.
        random_state : int, Generator, RandomState or None, default=None
            The only source of randomness.

        Returns
        -------
        ndarray, shape (n_obs, n_samples, p), or (n_samples, p) for one observation
        """
        rng, options = as_generator(random_state), without_typicality_check(self.estimator)
        drawn = sample_observations(self.estimator, X_obs, _N_DRAWS, rng, **options)
        samples = np.stack(
            [
                self._sample(theta, drawn.one(i), n_samples, rng)
                for i, theta in enumerate(drawn.samples)
            ]
        )
        return samples[0] if drawn.single else samples

    def _sample(
        self, draws: NDArray[np.float64], X: Any, n_samples: int, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Sample one conditional, beginning from what the unconditional draws look like."""
        start = self._start(draws[:, self._free])

        def log_ratio(theta: NDArray[np.float64]) -> NDArray[np.float64]:
            return self.log_posterior(theta, X) - start.log_prob(theta)

        return smc(log_ratio, start, n_samples, rng)[0]

    def _start(self, draws: NDArray[np.float64]) -> Prior:
        """Return a distribution that is wider than the draws; discrete ones keep their prior."""
        prior = getattr(self.estimator, "prior", None)
        if isinstance(prior, JointPrior):
            return prior.without(*self.given)
        scale = np.maximum(draws.std(axis=0), 1e-12 * np.abs(draws).max(axis=0) + 1e-300)
        marginals = zip(self.parameter_names_in_, draws.mean(axis=0), _WIDTH * scale, strict=True)
        return JointPrior({n: stats.t(_DEGREES_OF_FREEDOM, mean, sd) for n, mean, sd in marginals})

    def _complete(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Put the given values beside those that are left, (n, p)."""
        full = np.empty((len(theta), len(self._names)))
        full[:, self._free] = theta
        for name, value in self.given.items():
            full[:, self._names.index(name)] = value
        return full
