"""Consistency model posterior estimation: a function that maps noise to p(theta | x) in few steps.

Minimise the difference of f(w + t' z, t'; x) and f(w + t z, t; x) at neighbouring times t < t',
for residuals w of theta and noise z (`skbi.estimators.consistency`, `skbi.estimators.residuals`).
Draws are f of noise, refined by a few steps of adding noise and applying f again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import TransformerMixin
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import _check_sample_weight
from torch import Tensor, nn

from skbi.estimators.checks import check_lengths
from skbi.estimators.consistency import ConsistencyLoss, draw_in_steps, energies
from skbi.estimators.pairs import TrainingData
from skbi.estimators.residuals import ResidualRows
from skbi.estimators.transports import TransportEstimator
from skbi.preprocessing.maps import Maps
from skbi.preprocessing.packed import to_tensor
from skbi.priors import Prior
from skbi.randomness import RandomState
from skbi.training.ensemble import Ensemble, JointTraining

__all__ = ["CMPEEstimator"]

_N_SCORED = 100  # draws for each observation that `score`, and the width of noise, are judged by
_MAX_ROWS = 50  # validation rows drawn for at a time


class CMPEEstimator(TransportEstimator):
    """Learn to draw from posteriors of many parameters in a few steps, for any observation at once.

    There is no density: `FMPEEstimator` and `NPEEstimator` have one, and take longer to draw where
    parameters are many.

    Parameters
    ----------
    prior : JointPrior, an object with its methods, or None, default=None
        As of `NPEEstimator`: decides the support, and is what the training parameters were drawn
        from.
    hidden_layer_sizes : sequence of int, default=(256, 256)
        Gated layers of the consistency function.
    max_time : float, default=10.0
        T: noise is this many times as large as residuals where draws begin.
    summary : {"auto", "deepset", "series", "image"}, transformer or torch Module, default="auto"
        What an observation passes through before that, as of `NPEEstimator`, but for two things:
        of compressed vectors all members read all columns, and vectors of up to 128 features are
        not compressed where there are more than 20 parameters.
    n_summary_features : int, default=32
        Width of the `DeepSet` of sets, and of what convolutions of series or images give.
    n_steps : int, default=3
        Steps of a draw, one evaluation each.
    n_estimators : int, default=1
        Members of an ensemble, trained together; each draw is from one of them.
    batch_size : int or "auto", default="auto"
        Pairs a step; "auto" is the power of two nearest 0.64 sqrt(n), 64 at 10,000 pairs, and half
        as many sets.
    learning_rate_init : float or "auto", default="auto"
        Highest learning rate, reached after a tenth of the steps; it ends at zero. "auto" is 4e-3
        for vectors and half of that for sets.
    alpha : float, default=0.1
        Shrinkage of the networks, see `NLEEstimator`.
    max_iter : int, default=80
        Epochs.
    early_stopping : bool, default=True
        Hold out ``validation_fraction`` of the pairs, keep the weights that score best on them and
        stop when they have not improved for ``n_iter_no_change`` epochs, which can be in the last
        fifth of them. Their score is minus the energy score of four draws in two steps, from the
        same noise in all epochs.
    validation_fraction : float, default=0.1
    n_iter_no_change : int, default=30
    tol : float, default=1e-4
        Improvement of the validation score that counts.
    warm_start : bool, default=False
        Continue from the weights of the last `fit`, with the finest times.
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
        Steps of a draw. It may be set after `fit`.
    noise_scale_ : float
        How much more noise draws take than in training: the root mean square of 1,000 validation
        pairs' distances from the mean of their draws, in standard deviations of these, where it is
        above 1 by more than chance, because training has overfitted, and if their ranks are more
        even with it.
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
        Epochs run, and the mean training loss of each. It compares neighbouring times, and changes
        when these come closer.
    validation_scores_ : list of float or None
        Minus the mean energy score of the validation pairs after each epoch, in standard deviations
        of the residuals that training starts from, and minus the share of the way to the finest
        times that is still to come, so that only the last fifth of the epochs is chosen from.
    best_validation_score_ : float or None
        That of the fitted ensemble.

    See Also
    --------
    FMPEEstimator : Has a density, and draws more slowly.

    References
    ----------
    Schmitt et al., Consistency models for scalable and fast simulation-based inference, 2023,
    https://arxiv.org/abs/2312.05440; Song and Dhariwal, Improved techniques for training
    consistency models, 2023, https://arxiv.org/abs/2310.14189.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import stats
    >>> from skbi import CMPEEstimator, JointPrior
    >>> prior = JointPrior({"a": stats.uniform(0, 1), "b": stats.norm(0, 1)})
    >>> theta = prior.sample(500, random_state=0)
    >>> X = theta + 0.1 * np.random.default_rng(1).normal(size=(500, 2))
    >>> cmpe = CMPEEstimator(prior=prior, max_iter=5, random_state=0).fit(theta, X)
    >>> cmpe.sample_posterior(X[0], n_samples=100).shape
    (100, 2)
    >>> hasattr(cmpe, "log_prob")
    False
    """

    loss_name: ClassVar[str] = "consistency loss"
    _learning_rate: ClassVar[float] = 4e-3

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **TransportEstimator._parameter_constraints,
        "max_time": [Interval(Real, 1, None, closed="left")],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        *,
        prior: Prior | None = None,
        hidden_layer_sizes: Sequence[int] = (256, 256),
        max_time: float = 10.0,
        summary: str | TransformerMixin | nn.Module = "auto",
        n_summary_features: int = 32,
        n_steps: int = 3,
        n_estimators: int = 1,
        batch_size: int | str = "auto",
        learning_rate_init: float | str = "auto",
        alpha: float = 0.1,
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
        self.max_time = max_time
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

    def score(self, theta: ArrayLike, X: Any, sample_weight: ArrayLike | None = None) -> float:
        """Return minus the energy score of 100 draws for held-out pairs (higher is better).

        See `energy_score`. Parameters are divided by the standard deviation of theta.

        Parameters
        ----------
        theta : array-like, shape (n, p)
        X : as in `fit`
        sample_weight : array-like, shape (n,), optional
            As in `fit`.

        Returns
        -------
        float
        """
        table = self._check_theta(theta)
        packed, _ = self._check_observations(X)
        check_lengths(len(table), len(packed))
        weights = _check_sample_weight(sample_weight, table, ensure_non_negative=True)
        counted = weights > 0
        draws = self.sample_posterior(X, _N_SCORED, check_typicality=False)
        sd = table[counted].std(axis=0)
        scale = np.where(sd > 0, sd, 1.0)
        scaled = (torch.as_tensor(a / scale, device="cpu") for a in (table, draws))
        found = energies(*scaled).numpy()
        return -float(np.average(found[counted], weights=weights[counted]))

    def _move(
        self,
        ensemble: Ensemble,
        contexts: Sequence[Tensor],
        noise: Tensor,
        rng: np.random.Generator,
    ) -> Tensor:
        """Draw each column from a member at random, the same one for all observations."""
        chosen = rng.choice(len(ensemble.members), size=noise.shape[1], p=ensemble.weights)
        more = rng.standard_normal((self.n_steps_ - 1, *noise.shape), dtype=np.float32)
        steps = self.noise_scale_ * torch.cat([noise.unsqueeze(0), to_tensor(more, noise)])
        w, max_time = torch.empty_like(noise), self._architecture["max_time"]
        for i, (member, context) in enumerate(zip(ensemble.members, contexts, strict=True)):
            columns = torch.as_tensor(np.flatnonzero(chosen == i), device=noise.device)
            condition = member.condition(context)
            w[:, columns] = draw_in_steps(member, condition, steps[:, :, columns], max_time)
        return w

    def _squares(self, ensemble: Ensemble, contexts: Sequence[Tensor], w: Tensor) -> Tensor:
        m, found = _N_SCORED, []
        for some, draws in self._draws(ensemble, contexts, w):
            # of m normal draws: 1 / variance is on average too large by (m - 1) / (m - 3)
            precision = (m - 3) / (m - 1) / draws.var(dim=1)
            found.append((some - draws.mean(dim=1)).square() * precision - 1 / m)
        return torch.cat(found)

    @torch.no_grad()
    def _choose_noise_scale(self, data: TrainingData) -> float:
        """Return the noise that validation pairs ask for, if their ranks are more even with it.

        Squares alone mislead where posteriors have far tails or narrow peaks. The central interval
        that ends at a residual holds half of the draws on average, if draws are right.
        """
        scale, errors = super()._choose_noise_scale(data), {}
        if scale == 1:
            return scale
        given = self._read_validation(data)[:-1]
        for self.noise_scale_ in (1.0, scale):
            below = [(d < some[:, None]).float().mean(dim=1) for some, d in self._draws(*given)]
            held = (2 * torch.cat(below) - 1).abs()
            errors[self.noise_scale_] = abs(float(held.mean()) - 0.5)
        return min(errors, key=errors.__getitem__)

    def _draws(
        self, ensemble: Ensemble, contexts: Sequence[Tensor], w: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Return residuals w, some rows at a time, and draws for these, from the same noise."""
        rng = np.random.default_rng(0)
        for rows in torch.arange(len(w), device=w.device).split(_MAX_ROWS):
            given = [context[rows].unsqueeze(1) for context in contexts]
            noise = rng.standard_normal((len(rows), _N_SCORED, w.shape[1]), dtype=np.float32)
            yield w[rows], self._move(ensemble, given, to_tensor(noise, w), rng)

    def _choose_n_steps(self, data: TrainingData) -> int:
        return self.n_steps

    # ---- fitting

    def _specify(self, data: TrainingData, maps: Maps) -> dict[str, Any]:
        return {**super()._specify(data, maps), "max_time": float(self.max_time)}

    def _objective(
        self, training: JointTraining, data: TrainingData, maps: Maps, rng: np.random.Generator
    ) -> ConsistencyLoss:
        plan = self._plan(data, maps)
        n_steps = plan.max_iter * -(-len(data.training) // plan.batch_size)
        loss = ConsistencyLoss(ResidualRows(training, data, maps, rng), self.max_time, n_steps)
        loss.step = n_steps if data.resumed else 0  # whose grid is the finest from the start
        return loss

    def _weigh(
        self, training: JointTraining, objective: ConsistencyLoss, validation: Tensor
    ) -> float:
        return -objective.mean_energy(validation)
