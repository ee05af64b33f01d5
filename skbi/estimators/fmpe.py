"""Flow matching posterior estimation: a velocity field that moves noise to p(theta | x).

Minimise E | F(y, a; x) - dy/da |^2 over pairs (theta, x), noise e and points y = cos(a) e +
sin(a) w of the path from e to the residual w of theta (`skbi.estimators.flow_matching`,
`skbi.estimators.residuals`). Draws solve dy/da = F, and densities follow from the way back
(`skbi.estimators.flow_odes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn

from skbi.estimators.density import ScoredByDensity
from skbi.estimators.flow_matching import FlowMatching
from skbi.estimators.flow_odes import Field, log_densities, random_signs, to_noise, transport
from skbi.estimators.pairs import TrainingData
from skbi.estimators.residuals import ResidualRows
from skbi.estimators.summaries import embed_observations
from skbi.estimators.transports import TransportEstimator
from skbi.preprocessing.location import Frame
from skbi.preprocessing.maps import Maps
from skbi.preprocessing.packed import to_tensor
from skbi.priors import Prior
from skbi.randomness import RandomState
from skbi.training.ensemble import Ensemble, JointTraining

__all__ = ["FMPEEstimator"]

_MAX_EXACT = 20  # parameters up to which log densities are exact
_N_SIGNS = 16  # random vectors that they are estimated by beyond
_N_STEPS = (4, 8, 16, 32, 64)  # tried by "auto", the last without being tried
_MAX_CHANGE = 0.05  # nats by which log densities may change when steps are halved, root mean square
_N_TRIED = 100  # pairs of which they are


class FMPEEstimator(ScoredByDensity, TransportEstimator):
    """Learn the posterior of many parameters from simulated pairs, for any observation at once.

    Draws and densities take longer than those of `NPEEstimator`. It pays for tens to hundreds of
    parameters, such as the pixels of an image.

    Parameters
    ----------
    prior : JointPrior, an object with its methods, or None, default=None
        As of `NPEEstimator`: decides the support, and is what the training parameters were drawn
        from.
    hidden_layer_sizes : sequence of int, default=(256, 256, 256)
        Gated layers of the velocity field.
    time_exponent : float, default=1.0
        k: times t between 0, noise, and 1, parameters, are drawn in training from a density
        proportional to t^k.
    summary : {"auto", "deepset", "series", "image"}, transformer or torch Module, default="auto"
        What an observation passes through before that, as of `NPEEstimator`, but for two things:
        of compressed vectors all members read all columns, and vectors of up to 128 features are
        not compressed where there are more than 20 parameters.
    n_summary_features : int, default=32
        Width of the `DeepSet` of sets, and of what convolutions of series or images give.
    n_steps : int or "auto", default="auto"
        Steps of the midpoint rule in draws and densities, two evaluations each. "auto": the fewest
        of 4, 8, 16, 32 and 64 so that twice as many change log densities of 100 validation pairs
        by at most 0.05 nats (root mean square).
    n_estimators : int, default=2
        Members of an ensemble, trained together. Their velocities are averaged, with the weights
        that suit the validation pairs best, so that there is one field and one density.
    batch_size : int or "auto", default="auto"
        Pairs a step; "auto" is the power of two nearest 0.64 sqrt(n), 64 at 10,000 pairs, and half
        as many sets.
    learning_rate_init : float or "auto", default="auto"
        Highest learning rate, reached after a tenth of the steps; it ends at zero. "auto" is 2e-3
        for vectors and half of that for sets.
    alpha : float, default=0.5
        Shrinkage of the networks, see `NLEEstimator`.
    max_iter : int, default=80
        Epochs.
    early_stopping : bool, default=True
        Hold out ``validation_fraction`` of the pairs, keep the weights that score best on them and
        stop when they have not improved for ``n_iter_no_change`` epochs. Times and noise of the
        validation pairs, eight for each, are the same in all epochs.
    validation_fraction : float, default=0.1
    n_iter_no_change : int, default=30
    tol : float, default=1e-4
        Improvement of the validation score that counts.
    warm_start : bool, default=False
        Continue from the weights of the last `fit`.
    missing : {"error", "mask"}, default="error"
        What to do about NaN inside an observation: refuse, or fill them and tell the network.
    random_state : int, Generator, RandomState or None, default=None
        Decides the fit and, unless they are given their own, the draws.
    verbose : int or "auto", default="auto"
        1 shows a progress bar, 0 none; "auto" shows one on a terminal, of a fit that takes more
        than 5 seconds.
    device : str, default="cpu"
        Where to train, "cuda" for a GPU.

    Attributes
    ----------
    n_steps_ : int
        Steps of draws and densities. It may be set after `fit`.
    noise_scale_ : float
        Standard deviation of the noise that draws begin with: that of 1,000 validation pairs, moved
        back to noise, where it is above 1 by more than chance, because training has overfitted.
    summary_net_ : Module or None
        The trained summary network (of the member with the largest weight), None for vectors.
    summary_transformer_ : transformer or None
        The fitted transformer.
    members_ : list of Module
        The ensemble.
    n_features_in_, n_parameters_in_ : int
        Width of X's vectors or points, and of theta.
    feature_names_in_, parameter_names_in_ : ndarray of str
    n_iter_, loss_curve_
        Epochs run, and the mean training loss of each: half the squared error of velocities.
    validation_scores_ : list of float or None
        Minus the mean loss of the validation pairs after each epoch.
    best_validation_score_ : float or None
        That of the fitted mean velocity. It is no log density, as `score` is.

    See Also
    --------
    NPEEstimator : For up to about ten parameters.
    CMPEEstimator : Draws in three steps, without a density.

    References
    ----------
    Wildberger et al., Flow matching for scalable simulation-based inference, 2023,
    https://arxiv.org/abs/2305.17161; Lipman et al., Flow matching for generative modeling, 2022,
    https://arxiv.org/abs/2210.02747.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import stats
    >>> from skbi import FMPEEstimator, JointPrior
    >>> prior = JointPrior({"a": stats.uniform(0, 1), "b": stats.norm(0, 1)})
    >>> theta = prior.sample(500, random_state=0)
    >>> X = theta + 0.1 * np.random.default_rng(1).normal(size=(500, 2))
    >>> fmpe = FMPEEstimator(prior=prior, max_iter=5, random_state=0).fit(theta, X)
    >>> fmpe.sample_posterior(X[0], n_samples=100).shape
    (100, 2)
    >>> fmpe.log_prob(theta[:3], X[:3]).shape
    (3,)
    """

    loss_name: ClassVar[str] = "squared error of velocities / 2"
    _learning_rate: ClassVar[float] = 2e-3

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **TransportEstimator._parameter_constraints,
        "time_exponent": [Interval(Real, -1, None, closed="neither")],
        "n_steps": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    }

    def __init__(
        self,
        *,
        prior: Prior | None = None,
        hidden_layer_sizes: Sequence[int] = (256, 256, 256),
        time_exponent: float = 1.0,
        summary: str | TransformerMixin | nn.Module = "auto",
        n_summary_features: int = 32,
        n_steps: int | str = "auto",
        n_estimators: int = 2,
        batch_size: int | str = "auto",
        learning_rate_init: float | str = "auto",
        alpha: float = 0.5,
        max_iter: int = 80,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 30,
        tol: float = 1e-4,
        warm_start: bool = False,
        missing: str = "error",
        random_state: RandomState = None,
        verbose: int | str = "auto",
        device: str = "cpu",
    ) -> None:
        self.prior = prior
        self.hidden_layer_sizes = hidden_layer_sizes
        self.time_exponent = time_exponent
        self.summary = summary
        self.n_summary_features = n_summary_features
        self.n_steps = n_steps
        self.n_estimators = n_estimators
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.alpha = alpha
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.missing = missing
        self.random_state = random_state
        self.verbose = verbose
        self.device = device

    def log_prob(self, theta: ArrayLike, X: Any) -> NDArray[np.float64]:
        """Log density of the posterior, log q(theta | X), normalised.

        It is the density of the way back to noise, in ``n_steps_`` steps, whose determinants are
        exact up to 20 parameters. Beyond, they are estimated by 16 random vectors, the same ones in
        every call. The result has an error then, of mean zero; `log_prob_error` estimates it.

        Parameters
        ----------
        theta : array-like, shape (n, p) or (n, n_samples, p)
            A theta, or as many as `sample_posterior` draws, for each observation.
        X : array-like
            n observations, paired with theta's rows, or one observation for all of them.

        Returns
        -------
        ndarray, shape (n,) or (n, n_samples)
            In nats, -inf outside the prior's support.
        """
        return self._evaluate_density(theta, X, lambda *given: self._log_densities(*given)[0])

    def log_prob_error(self, theta: ArrayLike, X: Any) -> NDArray[np.float64]:
        """Estimate the standard error of `log_prob`, which is zero up to 20 parameters.

        It is judged by how the 16 random vectors differ, and hardly shrinks when densities are
        averaged over pairs: all pairs have the same vectors.

        Parameters
        ----------
        theta, X
            As in `log_prob`.

        Returns
        -------
        ndarray, shape (n,) or (n, n_samples)
            In nats.
        """
        return self._evaluate(theta, X, lambda *given: self._log_densities(*given)[1])[0]

    # ---- draws and densities

    def _move(
        self,
        ensemble: Ensemble,
        contexts: Sequence[Tensor],
        noise: Tensor,
        rng: np.random.Generator,
    ) -> Tensor:
        return transport(mean_field(ensemble, contexts), self.noise_scale_ * noise, self.n_steps_)

    def _squares(self, ensemble: Ensemble, contexts: Sequence[Tensor], w: Tensor) -> Tensor:
        return to_noise(mean_field(ensemble, contexts), w, self.n_steps_).square()

    def _signs(self, ensemble: Ensemble) -> Tensor | None:
        """Return random vectors, if the divergence is estimated by them."""
        p = self.n_parameters_in_
        return None if p <= _MAX_EXACT else random_signs(_N_SIGNS, p, ensemble.like)

    def _log_densities(
        self,
        ensemble: Ensemble,
        z: NDArray[np.float64],
        contexts: Sequence[Tensor],
        frame: Frame | None = None,
        *,
        n_steps: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return log densities of z (n, p), and their standard errors."""
        member, context = ensemble.members[0], contexts[0]
        w = member.to_residuals(to_tensor(z, context), context)
        field, n_steps = mean_field(ensemble, contexts), n_steps or self.n_steps_
        signs, scale = self._signs(ensemble), self.noise_scale_
        log_q, error = log_densities(field, w, n_steps, signs, scale)
        return log_q + member.log_volume, error

    @torch.no_grad()
    def _choose_n_steps(self, data: TrainingData) -> int:
        """Return the number given, or the fewest that twice as many agree with on some pairs."""
        if self.n_steps != "auto":
            return self.n_steps
        pairs = (data.training if data.validation is None else data.validation)[:_N_TRIED]
        z, ensemble = self._maps.theta.forward(data.theta[pairs])[0], self._active().double()
        contexts, *_ = embed_observations(data.X.take(pairs), self._maps, ensemble.members)
        before: Tensor | None = None
        for n_steps in _N_STEPS:
            log_q, _ = self._log_densities(ensemble, z, contexts, n_steps=n_steps)
            if before is not None and (log_q - before).square().mean().sqrt() <= _MAX_CHANGE:
                return n_steps // 2
            before = log_q
        return n_steps

    # ---- fitting

    def _objective(
        self, training: JointTraining, data: TrainingData, maps: Maps, rng: np.random.Generator
    ) -> FlowMatching:
        return FlowMatching(ResidualRows(training, data, maps, rng), self.time_exponent)

    def _weigh(self, training: JointTraining, objective: FlowMatching, validation: Tensor) -> float:
        return objective.weigh(validation)


def mean_field(ensemble: Ensemble, contexts: Sequence[Tensor]) -> Field:
    """Return the members' mean velocity, given a context of each."""
    each = list(zip(ensemble.members, ensemble.weights.tolist(), contexts, strict=True))
    fields = [(member.field, share, member.condition(context)) for member, share, context in each]
    return lambda y, angle: sum(share * field(y, angle, h) for field, share, h in fields)
