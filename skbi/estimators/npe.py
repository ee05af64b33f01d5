"""Neural posterior estimation: minimise -E log q(theta | x) over pairs (theta, x) ~ p(theta, x)."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn

from skbi.estimators.amortised import AmortisedPosterior
from skbi.estimators.augmented import LearnsFromMadePairs
from skbi.estimators.checks import check_n_samples
from skbi.estimators.density import DensityEstimator
from skbi.estimators.mixed import (
    MixedMember,
    check_values,
    joint_log_prob,
    values_of,
    width_for_flow,
)
from skbi.estimators.pairs import TrainingData, plan_training
from skbi.estimators.summaries import (
    SET_SLOWDOWN,
    PosteriorMember,
    build_summary,
    embedder,
    reader,
    set_fractions,
    specify_summary,
    start_at_moments,
)
from skbi.estimators.views import (
    MIN_VIEW_WEIGHT,
    VIEW_COUNT,
    VIEW_LAG,
    draw,
    examples,
    log_prob,
    start_views,
    take_views,
    views_of,
)
from skbi.networks.categories import Categories
from skbi.preprocessing.maps import Maps
from skbi.preprocessing.packed import to_tensor
from skbi.priors import Prior
from skbi.randomness import RandomState, as_generator
from skbi.training.ensemble import Ensemble, JointTraining
from skbi.training.loop import Objective, TrainingPlan
from skbi.training.start import MAX_START_ROWS, MIN_START_ROWS

__all__ = ["NPEEstimator"]

_MANY_PAIRS = 5000  # from which on three members do instead of four


class NPEEstimator(LearnsFromMadePairs, AmortisedPosterior, DensityEstimator):
    """Learn the posterior from simulated pairs, for any observation at once.

    Parameters that are discrete under the prior, alone or beside continuous ones, have
    probabilities: `log_prob` is the log of mass times density, and draws are whole numbers.

    Parameters
    ----------
    prior : JointPrior, an object with its methods, or None, default=None
        Decides the support: every draw lies inside and the density is normalised over it. It must
        be the distribution that the training parameters were drawn from, or that `fit` is given
        weights for. Without one the parameters are unbounded, but for those with heavy tails that
        have one sign in all of training, and keep it (`skbi.preprocessing.TailCoordinates`).
        Discrete parameters take at most 1,000 whole numbers, those that the prior allows; an
        infinite support is cut off where 1e-12 of it remains. Custom priors of both kinds need
        ``from_normal``, see `skbi.Prior`.
    flow : {"spline", "realnvp"}, default="spline"
        Kind of coupling layer. Affine maps ("realnvp") draw and train faster; posteriors with
        several modes or sharp edges need splines, and a single parameter always gets them.
    n_transforms : int, default=4
        Number of coupling layers.
    hidden_layer_sizes : sequence of int, default=(32, 64)
        Gated layers of each coupling layer's network. The network of a discrete parameter has the
        first of them, or all if no parameter is continuous.
    summary : {"auto", "deepset", "series", "image"}, transformer or torch Module, default="auto"
        What an observation passes through before the flow. "auto": a `DeepSet` for sets, and
        vectors of less than 16 features as they are, with columns of heavy tails given once more,
        asinh-transformed. Wider vectors, and those with missing entries, are compressed, and
        members of the ensemble see different parts of that (`skbi.preprocessing.compression`).
        "series": X is (n, T) or (n, T, c), or a list of n arrays (T_i,) or (T_i, c), and NaN at the
        end of a series means that it has ended; its order counts. "image": X is (n, H, W) or
        (n, H, W, channels). Of both come vectors: moments, and what a convolutional network says
        that is trained before the flow (`skbi.estimators.ordered`). A scikit-learn transformer is
        cloned and fitted on the pairs that are in training, with theta as y, and may return vectors
        or sets; its options are this estimator's (``summary__n_components``). A module is copied
        and trained with the flow from the weights it has. It maps standardised vectors (n, d) to
        (n, c), or sets in packed form, points (N, d) and sizes (n,), to (n, c), as
        `skbi.networks.DeepSet` does; columns are given to it once; with ``missing="mask"``, d is
        twice as large. An estimator with a module can be pickled, but not written by skops.
    n_summary_features : int, default=32
        Width of the `DeepSet` of sets, and of what convolutions of series or images give.
    augment : float or "auto", default=0
        Pairs that a likelihood, learnt from the training pairs, makes for each of them. The best
        two members, or the best one from 5,000 pairs on, then go on to learn from simulated and
        made pairs, and take the ensemble's place if the validation pairs, which the likelihood has
        not seen, are more probable under them. That takes four to five times as long again, and
        pays where posteriors have several modes or are narrow and curved. Vectors only, without
        ``missing="mask"``. "auto" is 50 for vectors of less than 16 features, and otherwise 0.
    n_estimators : int or "auto", default="auto"
        Members of an ensemble, trained together from different initial weights; the posterior is
        their mixture, weighted by the likelihood of the validation pairs. Their shrinkage differs,
        see ``alpha``. "auto" is 4 for vectors, 3 from 5,000 pairs on, 2 for sets, and 4 to 7 for
        compressed vectors.
    batch_size : int or "auto", default="auto"
        Pairs a step; "auto" is the power of two nearest 2.56 sqrt(n), 256 at 10,000 pairs, and half
        as many sets.
    learning_rate_init : float or "auto", default="auto"
        Highest learning rate, reached after a tenth of the steps; it ends at zero. "auto" is 1e-2
        for vectors and 5e-3 for sets, whose summary network does not learn at 1e-2.
    alpha : float, default=1.3
        Shrinkage of the coupling layers' networks and of a `DeepSet`, against overfitting: weights
        whose mean gradient over n training pairs is less than ``alpha`` (10,000 / n)^(1/6) standard
        errors from zero go to zero. This holds for the last member; the first one, or a single one,
        has a 25th of it, and those in between have steps of equal ratio. Which shrinkage suits the
        problem shows on the validation pairs: members far behind the best are trained no longer.
        Networks for sets are shrunk half as much.
    max_iter : int, default=50
        Epochs.
    early_stopping : bool, default=True
        Hold out ``validation_fraction`` of the pairs, keep the weights that score best on them and
        stop when they have not improved for ``n_iter_no_change`` epochs.
    validation_fraction : float, default=0.1
    n_iter_no_change : int, default=30
        Of sets, only epochs that read them whole count: the last quarter of a first fit.
    tol : float, default=1e-3
        Improvement of the validation score, in nats, that counts.
    warm_start : bool, default=False
        Continue from the weights of the last `fit`, reading sets whole from the start.
    missing : {"error", "mask"}, default="error"
        What to do about NaN inside an observation: refuse, or fill them (in vectors with what is
        expected given the other entries, in sets with the mean) and tell the network which were
        filled.
    random_state : int, Generator, RandomState or None, default=None
        Decides the fit and, unless they are given their own, the draws.
    verbose : int or "auto", default="auto"
        1 shows a progress bar, 0 none; "auto" shows one on a terminal, of a fit that takes more
        than 5 seconds.
    device : str, default="cpu"
        Where to train, "cuda" for a GPU.

    Attributes
    ----------
    flow_ : ConditionalFlow or None
        The trained flow (of the member with the largest weight, in an ensemble); None if all
        parameters are discrete.
    summary_net_ : Module or None
        The trained summary network (of that member), None for vectors.
    summary_transformer_ : transformer or None
        The fitted transformer.
    members_ : list of Module
        The ensemble.
    n_features_in_, n_parameters_in_ : int
        Width of X's vectors or points, and of theta.
    feature_names_in_, parameter_names_in_ : ndarray of str
    n_iter_ : int
        Epochs run.
    loss_curve_ : list of float
        Mean training loss, -log q(theta | x) in nats, of each epoch. On sets the first epochs read
        a part of each set, an eighth and then a third, so that the curve falls in steps.
    validation_scores_ : list of float or None
        Mean log q(theta | x) of the validation pairs after each epoch, on the same part of the set,
        and over the members still trained.
    best_validation_score_ : float or None
        That of the fitted mixture, each member with the weights of its own best epoch.

    See Also
    --------
    NLEEstimator : Learns the likelihood, for any number of points.
    FMPEEstimator : For tens to hundreds of parameters.

    References
    ----------
    Papamakarios and Murray, Fast epsilon-free inference of simulation models with Bayesian
    conditional density estimation, 2016, https://arxiv.org/abs/1605.06376. Mixed parameters:
    Boelts, Lueckmann, Gao and Macke, Flexible and efficient simulation-based inference for models
    of decision-making, 2022, https://doi.org/10.7554/eLife.77220 (there for the likelihood).

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import stats
    >>> from skbi import JointPrior, NPEEstimator
    >>> prior = JointPrior({"mu": stats.norm(0, 1)})
    >>> theta = prior.sample(500, random_state=0)
    >>> X = theta + 0.1 * np.random.default_rng(1).normal(size=(500, 2))
    >>> npe = NPEEstimator(prior=prior, max_iter=5, random_state=0).fit(theta, X)
    >>> npe.sample_posterior(X[0], n_samples=100).shape
    (100, 1)
    >>> npe.log_prob(theta[:3], X[:3]).shape
    (3,)
    """

    loss_name: ClassVar[str] = "-log q(theta | x) [nats]"
    _learns_discrete: ClassVar[bool] = True
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **DensityEstimator._parameter_constraints,
        **AmortisedPosterior._parameter_constraints,
        **LearnsFromMadePairs._parameter_constraints,
        "n_estimators": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    }

    def __init__(
        self,
        *,
        prior: Prior | None = None,
        flow: str = "spline",
        n_transforms: int = 4,
        hidden_layer_sizes: Sequence[int] = (32, 64),
        summary: str | TransformerMixin | nn.Module = "auto",
        n_summary_features: int = 32,
        augment: float | str = 0,
        n_estimators: int | str = "auto",
        batch_size: int | str = "auto",
        learning_rate_init: float | str = "auto",
        alpha: float = 1.3,
        max_iter: int = 50,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 30,
        tol: float = 1e-3,
        warm_start: bool = False,
        missing: str = "error",
        random_state: RandomState = None,
        verbose: int | str = "auto",
        device: str = "cpu",
    ) -> None:
        self.prior = prior
        self.flow = flow
        self.n_transforms = n_transforms
        self.hidden_layer_sizes = hidden_layer_sizes
        self.summary = summary
        self.n_summary_features = n_summary_features
        self.augment = augment
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

    def sample_posterior(
        self,
        X_obs: Any,
        n_samples: int = 1000,
        *,
        refine: Any = None,
        check_typicality: bool = True,
        random_state: RandomState = None,
    ) -> NDArray[np.float64]:
        """Draw from the posterior of each observation.

        Parameters
        ----------
        X_obs : array-like
            A batch, with as many axes as X in `fit` (a list is a batch), or one observation, an
            array with one axis fewer.
        n_samples : int, default=1000
            Draws for each observation.
        refine : NLEEstimator, optional
            Reweight the draws by this likelihood, times its own prior. That is
            ``refine.sample_posterior(X_obs, n_samples, sampler="importance", proposal=self)``,
            which can also return the effective sample size and the evidence.
        check_typicality : bool, default=True
            Whether to warn of observations that are unlike the training simulations. Calibration,
            whose observations are simulations, does without.
        random_state : int, Generator, RandomState or None, default=None
            None uses the estimator's own.

        Returns
        -------
        ndarray, shape (n_obs, n_samples, p), or (n_samples, p) for one observation
            Inside the prior's support.

        Warns
        -----
        UserWarning
            If an observation is unlike the training simulations: its `misspecification_score` lies
            below 0.001 (over the number of observations).
        """
        packed, single = self._check_observations(X_obs)
        check_n_samples(n_samples)
        if refine is not None:
            options = {"proposal": self, "random_state": random_state}
            options["check_typicality"] = check_typicality
            return refine.sample_posterior(X_obs, n_samples, sampler="importance", **options)
        rng = as_generator(self.random_state if random_state is None else random_state)
        read = self._read(packed, check_typicality=check_typicality)
        draws = draw(*read, self._maps, n_samples, rng)
        return draws[0] if single else draws

    def log_prob(self, theta: ArrayLike, X: Any) -> NDArray[np.float64]:
        """Log density of the posterior, log q(theta | X), normalised; of discrete parameters, mass.

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
        return self._evaluate_density(theta, X, log_prob)

    def _active(self) -> Ensemble:
        """Return the members that count; of different views also those that hardly do.

        They are right where an emulator is wrong.
        """
        least = {} if self._maps.compression is None else {"least": MIN_VIEW_WEIGHT}
        return Ensemble(self.members_).active(**least)

    def _member_count(self, training: JointTraining) -> float:
        return VIEW_COUNT if training.members[0].has_view else 1.0

    # ---- fitting

    def _specify(self, data: TrainingData, maps: Maps) -> dict[str, Any]:
        module, n_summary_features = specify_summary(
            self.summary, self.n_summary_features, data.X, maps
        )
        discrete = maps.theta.discrete
        return {
            "n_axes": data.X.n_axes,
            "n_parameters": data.theta.shape[1],
            "n_features": maps.width,
            "has_view": maps.compression is not None,
            "n_summary_features": n_summary_features,
            "module": module,
            "discrete": discrete.tolist(),
            "n_values": [len(v) for v in values_of(maps.theta)[0]] if discrete.any() else [],
            **self._specify_flow(int((~discrete).sum())),
        }

    def _build(self, architecture: dict[str, Any]) -> PosteriorMember:
        (summary, width), has_view = build_summary(architecture), architecture["has_view"]
        discrete, n_values = architecture["discrete"], architecture["n_values"]
        if not n_values:
            flow = self._build_flow(architecture, len(discrete), width)
            return PosteriorMember(summary, flow, has_view)
        n_continuous, flow = len(discrete) - len(n_values), None
        layers = architecture["hidden_layer_sizes"][: 1 if n_continuous else None]
        categories = Categories(n_values, width, layers)
        if n_continuous:
            read = width_for_flow(width, categories.width)
            flow = self._build_flow(architecture, n_continuous, read)
        return MixedMember(summary, flow, categories, discrete, has_view)

    def _plan(self, data: TrainingData, maps: Maps) -> TrainingPlan:
        has_sets, own_module = data.X.sizes is not None, isinstance(self.summary, nn.Module)
        if data.n_made:
            return self._plan_on_made_pairs(data, own_module=own_module)
        n_members = self.n_estimators
        if n_members == "auto" and data.resumed:
            n_members = len(data.fitted)
        elif n_members == "auto":
            n_members = 2 if has_sets else 4 if len(data.X) < _MANY_PAIRS else 3
            n_members = len(views_of(maps)) or n_members
        return plan_training(
            self,
            data,
            n_members=n_members,
            slowdown=SET_SLOWDOWN if has_sets else 1,
            first_lag=VIEW_LAG if maps.compression is not None else 0,
            set_fractions=set_fractions(self.summary, data.X),
            own_module=own_module,
        )

    def _objective(
        self, training: JointTraining, data: TrainingData, maps: Maps, rng: np.random.Generator
    ) -> Objective:
        weights = to_tensor(data.weights, training.weights.values)
        take = examples(training, data, maps, rng)
        embed = embedder(training, maps, data.X)

        def objective(rows: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
            batch, z, log_det = take(rows, fraction, training.weights.trained)
            return -joint_log_prob(training, z, embed(batch)) - log_det, weights[rows]

        return objective

    def _start(
        self,
        members: list[PosteriorMember],
        data: TrainingData,
        maps: Maps,
        rng: np.random.Generator,
    ) -> None:
        """Start at a linear regression, for sets on their moments, unless a module is given."""
        take_views(members, maps, self._plan(data, maps).n_members)
        if members and maps.theta.discrete.any():
            values = values_of(maps.theta)
            for member in members:
                member.learn_values(*values, seed=int(rng.integers(2**31)))
        pairs = data.training[:MAX_START_ROWS]
        if not members or isinstance(self.summary, nn.Module) or len(pairs) < MIN_START_ROWS:
            return
        (z, _), like = maps.theta.forward(data.theta[pairs]), members[0].log_weight
        if maps.compression is not None:
            start_views(members, maps, z, data.X.take(pairs))
            return
        if members[0].summary is None:
            context = members[0].embed_observations(maps.batch(data.X.take(pairs), like))
            context = context.cpu().double().numpy()
            for member in members:
                member.start_at(context, z, np.arange(context.shape[1]))
            return
        fraction = set_fractions(self.summary, data.X)[0][1]
        start_at_moments(members, z, reader(maps, data.X, pairs, like, fraction, rng))

    def _advise(self, data: TrainingData) -> list[str]:
        n_continuous = int(self._is_continuous(data.theta.shape[1]).sum())
        on_flow = self._advise_on_flow(n_continuous) if n_continuous else []
        return on_flow + super()._advise(data)

    def _check_parameters(
        self, theta: NDArray[np.float64], names: NDArray[Any] | None, resumed: bool
    ) -> NDArray[Any]:
        names = super()._check_parameters(theta, names, resumed)
        if self.prior is not None:
            check_values(self.prior, theta)
        return names
