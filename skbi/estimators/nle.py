"""Neural likelihood estimation: minimise -E log q(x | theta) over pairs (theta, x).

Points of a set are independent given theta, so that log L(theta) = sum_i log q(x_i | theta) for any
number of points. The posterior is L(theta) p(theta) / Z, sampled by `skbi.samplers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor
from torch.nn.functional import logsigmoid

from skbi.estimators.checks import (
    check_density_exists,
    check_n_samples,
    check_pairing,
    describe_atoms,
    linearly_dependent,
)
from skbi.estimators.density import DensityEstimator
from skbi.estimators.failures import LearnsFailures, failed_rows, with_failures
from skbi.estimators.likelihoods import (
    MAX_POINTS,
    Likelihood,
    LikelihoodMember,
    embed_parameters,
    log_likelihood,
    start_at_regression,
)
from skbi.estimators.pairs import TrainingData, plan_training
from skbi.estimators.sampled import SampledPosterior, advise_on_points, extend_range
from skbi.estimators.typicality import describe_untypical, p_values_of_sets
from skbi.networks.layers import MLP
from skbi.parallel import blocks, one_thread
from skbi.preprocessing.maps import Maps
from skbi.preprocessing.packed import Packed, axes_of, to_tensor
from skbi.priors import Prior
from skbi.randomness import RandomState, as_generator
from skbi.samplers.registry import Sampler
from skbi.training.ensemble import Ensemble, JointTraining
from skbi.training.loop import History, Objective, TrainingPlan
from skbi.training.start import MAX_START_ROWS

__all__ = ["NLEEstimator"]

_MAX_EXAMINED_POINTS = 200_000  # points whose columns are examined for having a density
_MIN_START_POINTS = 10
_EMBEDDING_LAYER_SIZES = 64, 64  # of the network that embeds theta
_SUCCESS_LAYER_SIZES = (32,)  # of the network of the probability that a simulation succeeds
_N_CONTEXT = 32  # width of the embedding of theta


class NLEEstimator(LearnsFailures, SampledPosterior, DensityEstimator):
    """Learn the likelihood of single points from simulated pairs; sample posteriors from it.

    Any number of independent points can be observed, and parameters may be discrete. Features that
    are positive in all of training and have heavy tails are learnt as their logarithm, if that is
    more normal. Zero and less are then impossible, -inf.

    Of more than 32 features the flow describes the directions in which their mean depends on theta,
    and the size of the rest, whose direction is taken as uniform (`skbi.preprocessing.projection`).
    The density is one of all features, but what they say on theta in other ways is not learnt.

    Parameters
    ----------
    prior : JointPrior, an object with its methods, or None, default=None
        Of the posterior. The pairs may come from any other distribution inside its support.
        `fit`, `log_prob` and `sample_likelihood` do without. It may be changed after `fit`; beyond
        the one given then there is no likelihood, and a hundredth of the new one may lie there.
    flow : {"spline", "realnvp"}, default="spline"
        Kind of coupling layer. A single feature always gets splines, with a warning.
    n_transforms : int, default=4
        Number of coupling layers.
    hidden_layer_sizes : sequence of int, default=(32, 64)
        Gated layers of each coupling layer's network.
    n_estimators : int, default=2
        Members of an ensemble, trained together; the likelihood of a point is their mixture,
        weighted by that of the validation points. Every other member begins at a linear regression
        of the points on theta, the first one too, and the others at a standard normal density:
        which start suits the problem shows on the validation points. The mixture is closer to the
        likelihood than a single member; three are closer still, and take longer to train and to
        sample. Members of less than a hundredth of the mixture are left out of sampling.
    batch_size : int or "auto", default="auto"
        Points a step; "auto" is the power of two nearest 2.56 sqrt(n): 256 at 10,000 points.
    learning_rate_init : float or "auto", default="auto"
        Highest learning rate, 1e-2 by default, reached after a tenth of the steps; it ends at zero.
    alpha : float, default=0.26
        Shrinkage of the coupling layers' networks, the same for all members: weights whose mean
        gradient over n points is less than ``alpha`` (10,000 / n)^(1/6) standard errors from zero
        go to zero.
    max_iter : int, default=50
        Epochs.
    early_stopping : bool, default=True
        Hold out ``validation_fraction`` of the pairs, keep the weights that score best on them and
        stop when they have not improved for ``n_iter_no_change`` epochs.
    validation_fraction : float, default=0.1
    n_iter_no_change : int, default=20
    tol : float, default=1e-3
        Improvement of the validation score, in nats a point, that counts.
    dequantize : float or array-like of shape (d,), default=0
        Width, in X's units, of uniform noise, centred on zero, that is added to the training
        points: 1 for counts, of which those of heavy tails are learnt as log(c + 1). A feature that
        is constant, that repeats others or takes few values has no density without.
    failures : {"error", "learn"}, default="error"
        What rows of X that are all NaN mean, where each row is a single point. "learn": simulations
        that failed, as ``simulate(..., on_error="nan")`` returns them. The probability of success
        is learnt beside the density, and the likelihood is p(x, success | theta). To drop them
        would condition the likelihood on success: wrong, where that depends on theta. (NPE is right
        without them, if real data could not have failed.)
    warm_start : bool, default=False
        Continue from the weights of the last `fit`.
    random_state : int, Generator, RandomState or None, default=None
        Decides the fit and, unless they are given their own, the draws.
    verbose : int or "auto", default="auto"
        1 shows progress bars, of training and of sampling, 0 none; "auto" shows them on a terminal,
        of what takes more than 5 seconds.
    device : str, default="cpu"
        Where to train, "cuda" for a GPU.

    Attributes
    ----------
    flow_ : ConditionalFlow
        The trained flow (of the member with the largest weight, in an ensemble).
    members_ : list of Module
        The ensemble.
    n_features_in_, n_parameters_in_ : int
        Width of a point, and of theta.
    feature_names_in_, parameter_names_in_ : ndarray of str
    log_features_ : ndarray of bool, shape (d,)
        Which features are learnt as their logarithm.
    n_iter_ : int
        Epochs run.
    loss_curve_ : list of float
        Mean training loss, -log q(x | theta) in nats a point, of each epoch.
    validation_scores_ : list of float or None
        Mean log q(x | theta) of the validation points after each epoch, and over the members.
    best_validation_score_ : float or None
        That of the fitted mixture, each member with the weights of its own best epoch.

    See Also
    --------
    NREEstimator : For data that have no density.
    NPEEstimator : Learns the posterior itself, for many observations.

    References
    ----------
    Papamakarios et al., Sequential neural likelihood, 2018, https://arxiv.org/abs/1805.07226.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import stats
    >>> from skbi import JointPrior, NLEEstimator
    >>> prior = JointPrior({"mu": stats.norm(0, 1)})
    >>> theta = prior.sample(500, random_state=0)
    >>> X = theta + 0.5 * np.random.default_rng(1).normal(size=(500, 2))
    >>> nle = NLEEstimator(prior=prior, max_iter=5, random_state=0).fit(theta, X)
    >>> observed = 0.3 + 0.5 * np.random.default_rng(2).normal(size=(1, 20, 2))  # one set
    >>> nle.sample_posterior(observed, n_samples=100).shape
    (1, 100, 1)

    Two estimators of two models give a Bayes factor:

    >>> noisier = theta + np.random.default_rng(1).normal(size=(500, 2))
    >>> other = NLEEstimator(prior=prior, max_iter=5, random_state=0).fit(theta, noisier)
    >>> one, two = (model.log_evidence(observed)[0][0] for model in (nle, other))
    >>> bool(one - two > 5)  # the log Bayes factor
    True

    A Markov series is learnt step by step: the next state is X, and the state is one more parameter
    beside theta. The log likelihood of a series is then a sum over its steps:

    >>> state = np.random.default_rng(4).normal(size=(500, 1))
    >>> following = theta * state + 0.5 * np.random.default_rng(5).normal(size=(500, 1))
    >>> step = NLEEstimator(max_iter=5, random_state=0).fit(np.hstack([theta, state]), following)
    >>> x = np.array([0.1, 0.8, 0.3, -0.4])  # a series
    >>> given = np.column_stack([np.full(3, 0.5), x[:-1]])  # theta = 0.5, and its states
    >>> bool(np.isfinite(step.log_prob(given, x[1:, None]).sum()))
    True

    Errors of the likelihood add up over points. What counts is its accuracy inside the posterior,
    where further simulations are best spent. They need no correction; keep the old ones, for the
    likelihood elsewhere:

    >>> _ = nle.set_params(warm_start=True, learning_rate_init=1e-3)
    >>> rng = np.random.default_rng(3)
    >>> for _ in range(2):
    ...     more = nle.sample_posterior(observed, n_samples=100)[0]
    ...     more = more + 2 * more.std(axis=0) * rng.normal(size=more.shape)  # somewhat wider
    ...     X_more = more + 0.5 * rng.normal(size=(100, 2))
    ...     theta, X = np.concatenate([theta, more]), np.concatenate([X, X_more])
    ...     nle = nle.fit(theta, X)
    """

    loss_name: ClassVar[str] = "-log q(x | theta) [nats a point]"
    _least_gain: ClassVar[float] = 3.0  # errors of a member add up over the points of a set
    _resumes_on_constant_parameters = True  # a round may have settled one

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **DensityEstimator._parameter_constraints,
        "dequantize": [Interval(Real, 0, None, closed="left"), "array-like"],
        "failures": [StrOptions({"error", "learn"})],
    }

    def __init__(
        self,
        *,
        prior: Prior | None = None,
        flow: str = "spline",
        n_transforms: int = 4,
        hidden_layer_sizes: Sequence[int] = (32, 64),
        n_estimators: int = 2,
        batch_size: int | str = "auto",
        learning_rate_init: float | str = "auto",
        alpha: float = 0.26,
        max_iter: int = 50,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 20,
        tol: float = 1e-3,
        dequantize: float | ArrayLike = 0.0,
        failures: str = "error",
        warm_start: bool = False,
        random_state: RandomState = None,
        verbose: int | str = "auto",
        device: str = "cpu",
    ) -> None:
        self.prior = prior
        self.flow = flow
        self.n_transforms = n_transforms
        self.hidden_layer_sizes = hidden_layer_sizes
        self.n_estimators = n_estimators
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.alpha = alpha
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.dequantize = dequantize
        self.failures = failures
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose
        self.device = device

    def log_prob(self, theta: ArrayLike, X: Any) -> NDArray[np.float64]:
        """Log likelihood of each observation, summed over a set's points.

        Parameters
        ----------
        theta : array-like, shape (n, p) or (n, n_samples, p)
            A theta, or as many as `sample_posterior` draws, for each observation.
        X : array-like
            n observations, paired with theta's rows; or one observation for all of them; or any
            number of observations for a single theta. Points (n, d); sets, of any size, (n, S, d)
            or a list of arrays (S_i, d).

        Returns
        -------
        ndarray, shape (n,) or (n, n_samples)
            In nats; -inf for theta outside the prior's support, and for X without a logarithm in
            `log_features_`.
        """
        table, shape = self._check_thetas(theta)
        if self._architecture["failures"] and (failed := failed_rows(X)).any():
            return self._log_prob_of_failures(table, X, failed, shape)
        packed, _ = self._check_observations(X)
        check_pairing(shape[0], len(packed))
        z, log_det = (a.reshape(*shape, *a.shape[1:]) for a in self._maps.theta.forward(table))
        ensemble = Ensemble(self.members_).active().double()
        values = log_likelihood(ensemble, self._maps, z, packed)
        impossible = ~self._maps.X.possible(packed.points)
        impossible = np.bincount(packed.owners(), impossible, minlength=len(packed)) > 0
        impossible = impossible.reshape(-1, *[1] * (len(shape) - 1))
        return np.where(np.isfinite(log_det) & ~impossible, values, -np.inf)

    def sample_likelihood(
        self, theta: ArrayLike, n_samples: int = 1, *, random_state: RandomState = None
    ) -> NDArray[np.float64]:
        """Simulate points from the learnt likelihood, those of simulations that succeed.

        Parameters
        ----------
        theta : array-like, shape (n, p)
        n_samples : int, default=1
            Points for each theta.
        random_state : int, Generator, RandomState or None, default=None
            None uses the estimator's own.

        Returns
        -------
        ndarray, shape (n, n_samples, d)
        """
        table = self._check_theta(theta)
        check_n_samples(n_samples)
        z, log_det = self._maps.theta.forward(table)
        if not np.isfinite(log_det).all():
            row = int(np.isfinite(log_det).argmin())
            raise ValueError(
                f"theta must lie in the prior's support; row {row} is {table[row].tolist()}."
            )
        rng = as_generator(self.random_state if random_state is None else random_state)
        ensemble = Ensemble(self.members_).active()
        contexts = embed_parameters(ensemble, z)
        points = np.empty((len(table), n_samples, self._maps.width_of_density))
        for rows in blocks(len(table), max(1, MAX_POINTS // n_samples)):
            for columns in blocks(n_samples, MAX_POINTS):
                shape = points[rows, columns].shape
                with one_thread():
                    points[rows, columns] = ensemble.draw([c[rows] for c in contexts], shape, rng)
        return self._maps.from_density(points, rng)

    # ---- fitting

    def _fit_maps(self, data: TrainingData, rng: np.random.Generator) -> Maps:
        tails = {"log": True, "noise_width": self.dequantize}
        maps = Maps.fit(self.prior, data.theta, data.X, False, **tails)
        rows = data.rows_of(data.training)
        return maps.with_projection(data.theta[data.owners[rows]], data.X.points[rows], rng)

    def _specify(self, data: TrainingData, maps: Maps) -> dict[str, Any]:
        return {
            "n_axes": data.X.n_axes,
            "n_parameters": data.theta.shape[1],
            "n_features": maps.width_of_density,
            "failures": data.failures is not None,
            **self._specify_flow(maps.width_of_density),
        }

    def _build(self, architecture: dict[str, Any]) -> LikelihoodMember:
        p, width = architecture["n_parameters"], architecture["n_features"]
        flow = self._build_flow(architecture, width, _N_CONTEXT + p)
        success = MLP(p, 1, _SUCCESS_LAYER_SIZES) if architecture["failures"] else None
        return LikelihoodMember(MLP(p, _N_CONTEXT, _EMBEDDING_LAYER_SIZES), flow, success)

    def _plan(self, data: TrainingData, maps: Maps) -> TrainingPlan:
        return plan_training(self, data, shrinkage_range=1.0)

    def _owners(self, X: Packed) -> NDArray[np.int64]:
        """Return the pair of each point."""
        return X.owners()

    def _start(
        self,
        members: list[LikelihoodMember],
        data: TrainingData,
        maps: Maps,
        rng: np.random.Generator,
    ) -> None:
        """Start every other member, the first one too, at a linear regression on theta."""
        for member in members:
            member.read(maps.theta)
        first = (self.n_estimators - len(members)) % 2
        rows = rng.permutation(data.rows_of(data.training))[:MAX_START_ROWS]
        if len(rows) < _MIN_START_POINTS:
            return
        points = data.X.points[rows].astype(np.float64)
        noise = self.dequantize * (rng.random(points.shape) - 0.5)
        z = maps.theta.forward(data.theta[data.owners[rows]])[0]
        start_at_regression(members[first::2], z, maps.to_density(points + noise)[0])

    def _objective(
        self, training: JointTraining, data: TrainingData, maps: Maps, rng: np.random.Generator
    ) -> Objective:
        like = training.weights.values
        z = to_tensor(maps.theta.forward(data.theta)[0], like)
        indexer = maps.indexer(Packed(data.X.points), like, rng)
        owners = torch.as_tensor(data.owners, device=like.device)
        weights = to_tensor(data.weights, like)
        constant, slopes = maps.X.volume()
        slopes = to_tensor(slopes, like)
        noise = torch.Generator(like.device).manual_seed(int(rng.integers(2**63)))

        def objective(rows: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
            x, pairs = indexer.take(rows).points, owners[rows]
            if (
                maps.X.noise_width.any()
            ):  # new noise at every step, as fixed noise would be memorised
                x = maps.X.add_noise(x, torch.empty_like(x).uniform_(-0.5, 0.5, generator=noise))
            log_volume = constant + x @ slopes
            if maps.projection is not None:
                x, log_ratio = maps.projection.project(x)
                log_volume = log_volume - log_ratio
            contexts = training.each(lambda member: member.embed_parameters(z[pairs]))
            if data.failures is not None:
                log_volume = log_volume - logsigmoid(contexts[..., -1])
                contexts = contexts[..., :-1]
            return log_volume - training.log_prob(x, contexts), weights[pairs]

        return with_failures(objective, training, data, maps)

    def _describe(
        self, X: Any, data: TrainingData, history: History, best_score: float | None
    ) -> None:
        super()._describe(X, data, history, best_score)
        self.log_features_ = self._maps.X.log_columns
        known, points = self._X_range if data.resumed else None, data.X.points
        if (data.owners < 0).any():
            points = points[data.owners >= 0]
        self._X_range = extend_range(points, known)

    # ---- checks and advice

    def _check_pairs(
        self, theta: ArrayLike, X: Any, sample_weight: ArrayLike | None, rng: np.random.Generator
    ) -> TrainingData:
        data = super()._check_pairs(theta, X, sample_weight, rng)
        d = data.X.points.shape[1]
        width = np.asarray(self.dequantize, dtype=np.float64)
        if width.shape not in {(), (d,)} or not (width >= 0).all():
            raise ValueError(
                f"dequantize must be a width >= 0, or one for each of the {d} features; got "
                f"{self.dequantize!r}."
            )
        check_density_exists(*self._examined(data))
        return data

    def _examined(self, data: TrainingData) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return some points (N, k) of the features without noise of their own, and which."""
        points = data.X.points
        undisturbed = np.broadcast_to(np.asarray(self.dequantize) == 0, points.shape[1])
        columns = np.flatnonzero(undisturbed)
        n = min(len(points), _MAX_EXAMINED_POINTS)
        rows = np.linspace(0, len(points) - 1, n).astype(np.int64)
        return points[np.ix_(rows, columns)].astype(np.float64), columns

    def _advise(self, data: TrainingData) -> list[str]:
        messages = self._advise_on_flow(data.X.points.shape[1])
        dependent = linearly_dependent(data.theta)
        if dependent.any():
            messages.append(
                "A linear combination of the parameters "
                f"{data.parameter_names[dependent].tolist()} is constant in all rows of theta (as "
                "of shares that sum to one): elsewhere, where posterior draws would lie, the "
                "likelihood is a guess. Drop one of them from theta and from the prior."
            )
        return messages + describe_atoms(*self._examined(data))

    def _check_resumable(self, data: TrainingData) -> None:
        super()._check_resumable(data)
        logged = self._maps.X.log_columns
        changed = self._maps.X.noise_width != self.dequantize
        if not self._maps.X.possible(data.X.points).all() or (changed & logged).any():
            raise ValueError(
                f"Features {np.flatnonzero(logged).tolist()} were learnt as their logarithm: they "
                "must stay positive, with the same dequantize. Set warm_start=False to start "
                "afresh."
            )

    def _check_observations(self, X: Any, n_axes: int | None = None) -> tuple[Packed, bool]:
        """Accept sets also after a fit on single points."""
        return super()._check_observations(X, 3 if axes_of(X) == 3 else n_axes)

    def _p_values(self, X: Packed) -> NDArray[np.float64]:
        by_point = np.where(self._maps.X.possible(X.points), super()._p_values(X), 0.0)
        return p_values_of_sets(by_point, X.owners())

    def _likelihoods(
        self, X: Packed, prior: Prior, *, every_member: bool = False
    ) -> list[Likelihood]:
        ensemble = Ensemble(self.members_)
        ensemble = ensemble if every_member else ensemble.active()
        return [Likelihood(ensemble, self._maps, X[i : i + 1], prior) for i in range(len(X))]

    def _advise_on_observations(self, X: Packed, sampler: Sampler) -> list[str]:
        messages = advise_on_points(X, sampler)
        maps, (low, high) = self._maps.X, self._X_range
        if not maps.possible(X.points).all():
            features = np.flatnonzero(maps.log_columns).tolist()
            return [
                *messages,
                f"X_obs is impossible: features {features} were positive in all of training and "
                "are learnt as their logarithm. What is not positive is read as the least training "
                "value. If it can be, train on such simulations.",
            ]
        x, x_low, x_high = (maps.forward(a) for a in (X.points, low[None], high[None]))
        beyond = np.maximum(x_low - x, x - x_high).max(axis=0)
        worst = int(beyond.argmax())
        if beyond[worst] <= 0.1:
            untypical = describe_untypical(self._p_values(X))
            return messages + ([untypical] if untypical else [])
        values = X.points[:, worst]
        return [
            *messages,
            f"X_obs lies outside the training points: feature {worst} spans "
            f"[{values.min():.4g}, {values.max():.4g}], in training [{low[worst]:.4g}, "
            f"{high[worst]:.4g}]; that is {beyond[worst]:.1f} standard deviations beyond. The "
            "likelihood there is a guess.",
        ]
