"""Neural ratio estimation: f(theta, x) = log r, the logarithm of r = p(x | theta) / p(x).

A classifier tells the theta of each x from others (`skbi.estimators.contrasts`); its optimum is
log r. No density is learnt, so that theta and x may be numbers, counts or categories. The posterior
is r(theta, x) p(theta), sampled by `skbi.samplers`.
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
from sklearn.utils.validation import _check_sample_weight, check_is_fitted
from torch import Tensor, nn

from skbi.estimators.base import BaseSBIEstimator
from skbi.estimators.checks import check_lengths, check_n_samples, check_pairing
from skbi.estimators.contrasts import ContrastiveLoss, Contrasts
from skbi.estimators.pairs import SMALL_BATCHES, TrainingData, plan_training
from skbi.estimators.ratios import (
    GaussianRatio,
    Ratio,
    RatioMember,
    as_rows,
    contrastive_losses,
    evaluate_draws,
    log_ratio,
    ratios_of,
    start_at_moments,
    start_at_regression,
)
from skbi.estimators.sampled import SampledPosterior, advise_on_points
from skbi.estimators.summaries import (
    SET_SLOWDOWN,
    SUMMARIES,
    build_summary,
    has_gaps,
    n_regressed,
    order_of,
    reader,
    set_fractions,
    specify_summary,
    summarise_sets,
)
from skbi.estimators.typicality import describe_untypical, p_values_of_sets
from skbi.networks.critic import Critic
from skbi.preprocessing.maps import Maps
from skbi.preprocessing.packed import Packed, axes_of, to_tensor
from skbi.priors import Prior
from skbi.randomness import RandomState, as_generator
from skbi.samplers.registry import Sampler
from skbi.training.ensemble import Ensemble, JointTraining
from skbi.training.loop import History, Objective, TrainingPlan
from skbi.training.start import MAX_START_ROWS, MIN_START_ROWS

__all__ = ["NREEstimator"]

_N_FIXED_CONTRASTS = 128  # training theta that the score contrasts with


class NREEstimator(SampledPosterior, BaseSBIEstimator):
    """Learn the ratio of likelihood and evidence from simulated pairs; sample posteriors from it.

    Nothing is described by a density: parameters and features may be discrete, constant or
    repeated. Categories are best given as columns of zeros and ones, for example by
    ``summary=ColumnTransformer(...)``.

    Parameters
    ----------
    prior : JointPrior, an object with its methods, or None, default=None
        Of the posterior. The pairs may come from any other distribution inside its support; r is
        then relative to the data of that distribution, and posteriors are right all the same. It
        may be changed after `fit`, see `NLEEstimator`.
    loss : {"nre-c", "nre-a"}, default="nre-c"
        "nre-c": which of many theta belongs to x, or none. "nre-a": does this one, by binary
        cross-entropy.
    gamma : float, default=1.0
        Odds that one of them does, of "nre-c".
    n_contrasts : int or "auto", default="auto"
        Other theta that each x is compared with at a step, the same ones for all x. "auto": those
        of the minibatch. More come from other training pairs.
    balance : float, default=0.0
        Weight of the condition that the classifier is balanced, which makes posteriors wider where
        pairs are few (100 is usual). See `skbi.estimators.contrasts`.
    hidden_layer_sizes : sequence of int, default=(64, 64)
        Gated layers of the network of theta, and of that of x.
    summary : {"auto", "deepset", "series", "image"}, transformer or torch Module, default="auto"
        What an observation passes through before that, as of `NPEEstimator`. Of compressed vectors
        all members read all columns.
    sets : {"auto", "summary", "sum"}, default="auto"
        What a set in `fit` is. "summary": one observation, through a summary network; points need
        not be independent, and later sets should be of the sizes seen in training. "sum": i.i.d.
        points given theta; log r is learnt of single points and adds up over any number of them.
        "auto": "summary". Vectors in `fit` are i.i.d. points, of which sets may be observed.
    n_summary_features : int, default=32
        Width of the `DeepSet` of sets, and of what convolutions of series or images give.
    n_estimators : int, default=2
        Members of an ensemble, trained together; validation pairs weigh the mixture of their r.
    batch_size : int or "auto", default="auto"
        Rows a step; "auto" is the power of two nearest 0.64 sqrt(n): 64 at 10,000 pairs, and half
        as many sets.
    learning_rate_init : float or "auto", default="auto"
        Highest learning rate, reached after a tenth of the steps; it ends at zero. "auto" is 1e-2
        for vectors and 5e-3 for sets.
    alpha : float, default=0.26
        Shrinkage of the networks, see `NLEEstimator`.
    max_iter : int, default=30
        Epochs.
    early_stopping : bool, default=True
        Hold out ``validation_fraction`` of the pairs, keep the weights that score best on them and
        stop when they have not improved for ``n_iter_no_change`` epochs.
    validation_fraction : float, default=0.1
    n_iter_no_change : int, default=20
    tol : float, default=1e-3
        Improvement of the validation score that counts.
    warm_start : bool, default=False
        Continue from the weights of the last `fit`.
    missing : {"error", "mask"}, default="error"
        What to do about NaN inside an observation: refuse, or fill them and tell the network.
    random_state : int, Generator, RandomState or None, default=None
        Decides the fit and, unless they are given their own, the draws.
    verbose : int or "auto", default="auto"
        1 shows progress bars, of training and of sampling, 0 none; "auto" shows them on a terminal,
        of what takes more than 5 seconds.
    device : str, default="cpu"
        Where to train, "cuda" for a GPU.

    Attributes
    ----------
    summary_transformer_ : transformer or None
        The fitted transformer.
    members_ : list of Module
        The ensemble.
    n_features_in_, n_parameters_in_ : int
        Width of X's vectors or points, and of theta.
    feature_names_in_, parameter_names_in_ : ndarray of str
    n_iter_, loss_curve_
        Epochs run, and the mean training loss of each.
    validation_scores_ : list of float or None
        Minus the mean loss of the validation rows after each epoch, over the members still trained.
    best_validation_score_ : float or None
        What `score` gives of the fitted mixture on the validation pairs.

    See Also
    --------
    NLEEstimator : Learns a density of the data, and the evidence with it.
    NPEEstimator : Learns the posterior itself, for many observations.

    References
    ----------
    Miller, Weniger and Forre, Contrastive neural ratio estimation, 2022,
    https://arxiv.org/abs/2210.06170. Others are in `skbi.estimators.contrasts`.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import stats
    >>> from skbi import JointPrior, NREEstimator
    >>> prior = JointPrior({"rate": stats.gamma(3), "double": stats.bernoulli(0.5)})
    >>> theta = prior.sample(500, random_state=0)
    >>> mean = theta[:, :1] * (1 + theta[:, 1:])
    >>> X = np.random.default_rng(1).poisson(mean, size=(500, 2))  # counts
    >>> nre = NREEstimator(prior=prior, max_iter=5, random_state=0).fit(theta, X)
    >>> nre.sample_posterior(X[0], n_samples=100).shape
    (100, 2)
    >>> nre.log_prob(theta[:3], X[:3]).shape
    (3,)
    """

    loss_name: ClassVar[str] = "contrastive loss"
    _resumes_on_constant_parameters = True

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseSBIEstimator._parameter_constraints,
        "loss": [StrOptions({"nre-c", "nre-a"})],
        "gamma": [Interval(Real, 0, None, closed="neither")],
        "n_contrasts": [Interval(Integral, 2, None, closed="left"), StrOptions({"auto"})],
        "balance": [Interval(Real, 0, None, closed="left")],
        "summary": SUMMARIES,
        "sets": [StrOptions({"auto", "summary", "sum"})],
        "n_summary_features": [Interval(Integral, 1, None, closed="left")],
        "missing": [StrOptions({"error", "mask"})],
    }

    def __init__(
        self,
        *,
        prior: Prior | None = None,
        loss: str = "nre-c",
        gamma: float = 1.0,
        n_contrasts: int | str = "auto",
        balance: float = 0.0,
        hidden_layer_sizes: Sequence[int] = (64, 64),
        summary: str | TransformerMixin | nn.Module = "auto",
        sets: str = "auto",
        n_summary_features: int = 32,
        n_estimators: int = 2,
        batch_size: int | str = "auto",
        learning_rate_init: float | str = "auto",
        alpha: float = 0.26,
        max_iter: int = 30,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 20,
        tol: float = 1e-3,
        warm_start: bool = False,
        missing: str = "error",
        random_state: RandomState = None,
        verbose: int | str = "auto",
        device: str = "cpu",
    ) -> None:
        self.prior = prior
        self.loss = loss
        self.gamma = gamma
        self.n_contrasts = n_contrasts
        self.balance = balance
        self.hidden_layer_sizes = hidden_layer_sizes
        self.summary = summary
        self.sets = sets
        self.n_summary_features = n_summary_features
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

    @property
    def summary_transformer_(self) -> TransformerMixin | None:
        """The fitted transformer, if ``summary`` is one."""
        check_is_fitted(self, "members_")
        return self._transformer

    def log_prob(self, theta: ArrayLike, X: Any) -> NDArray[np.float64]:
        """Log ratio of each observation, log p(X | theta) / p(X); summed over i.i.d. points.

        Summed over several points, it is the logarithm of p(X | theta) over the product of the
        points' own p(x), which differs from p(X) by a factor that does not depend on theta.

        Parameters
        ----------
        theta : array-like, shape (n, p) or (n, n_samples, p)
            A theta, or as many as `sample_posterior` draws, for each observation.
        X : array-like
            n observations, paired with theta's rows; or one observation for all of them; or any
            number of observations for a single theta. As in `fit`; single points may also come as
            sets, of any size, (n, S, d) or a list of arrays (S_i, d).

        Returns
        -------
        ndarray, shape (n,) or (n, n_samples)
            In nats; -inf for theta outside the prior's support.
        """
        table, shape = self._check_thetas(theta)
        packed, _ = self._check_observations(X)
        check_pairing(shape[0], len(packed))
        z, log_det = (a.reshape(*shape, *a.shape[1:]) for a in self._maps.theta.forward(table))
        ensemble = Ensemble(self.members_).active().double()
        if len(shape) == 2 or len(packed) == 1:
            ratios = ratios_of(ensemble, self._maps, packed, None, by_point=self._by_point)
            values = ratios[0].evaluate(z) if len(shape) == 1 else evaluate_draws(ratios, z)
        else:
            rows, owners = as_rows(packed, by_point=self._by_point)
            paired = owners if len(z) > 1 else np.zeros_like(owners)
            values = log_ratio(ensemble, self._maps, z, rows, paired)
            values = np.bincount(owners, values, minlength=len(packed))
        return np.where(np.isfinite(log_det), values, -np.inf)

    def score(self, theta: ArrayLike, X: Any, sample_weight: ArrayLike | None = None) -> float:
        """Return minus the NRE-C loss, gamma = 1, of held-out pairs (higher is better).

        Each x is contrasted with the same training theta, at most 128. A ratio that is 1 everywhere
        scores -log 2, and the score of the true ratio is the highest; the mean of log r is no such
        score, as it rises with any constant added to log r. Of i.i.d. points, it is a mean over
        points.

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
        rows, owners = as_rows(packed, by_point=self._by_point)
        z, log_det = self._maps.theta.forward(table)
        ensemble = Ensemble(self.members_).active()
        losses = contrastive_losses(ensemble, self._maps, z, rows, owners, self._contrasts)
        losses = np.where(np.isfinite(log_det[owners]), losses, np.inf)
        counted = weights[owners] > 0
        return -float(np.average(losses[counted], weights=weights[owners][counted]))

    def normalization(
        self, X_obs: Any, n_samples: int = 100_000, *, random_state: RandomState = None
    ) -> tuple[Any, Any]:
        """Return the mean of r(theta, x) over the prior, which is 1 if r is a ratio, and its error.

        Pairs must have come from this prior. The mean over i.i.d. points is 1 for each point on its
        own, not for sets of them.

        Parameters
        ----------
        X_obs : array-like
            Observations as in `fit`, or one; single points, if log r adds up over points.
        n_samples : int, default=100_000
            Draws of the prior that the mean is taken over.
        random_state : int, Generator, RandomState or None, default=None
            None uses the estimator's own.

        Returns
        -------
        mean, error : float, or ndarrays of shape (n_obs,) for a batch
            The standard error is that of the draws. It is too small where hardly any draw lies
            inside the posterior.
        """
        check_n_samples(n_samples)
        packed, single = self._check_observations(X_obs)
        if self._by_point and packed.sizes is not None and (packed.sizes > 1).any():
            raise ValueError(
                "The ratio of several i.i.d. points is not normalised: pass single points, an "
                f"array (n, {self.n_features_in_}), or sets of one point."
            )
        rng = as_generator(self.random_state if random_state is None else random_state)
        draws = self._sampling_prior().sample(n_samples, random_state=rng)
        values = (np.exp(ratio(draws)) for ratio in self._likelihoods(packed, self.prior))
        mean, error = np.transpose([(r.mean(), r.std() / n_samples**0.5) for r in values])
        return (float(mean[0]), float(error[0])) if single else (mean, error)

    def log_evidence(self, X_obs: Any, **options: Any) -> Any:
        """Refuse: the evidence p(X) is what the ratio is relative to, and stays unknown.

        Raises
        ------
        AttributeError
        """
        raise AttributeError(
            "NREEstimator has no log_evidence: it learns p(X | theta) / p(X), and p(X) stays "
            "unknown. Use NLEEstimator, or learn the model from simulations of all models with "
            "ModelClassifier."
        )

    # ---- fitting

    def _fit_maps(self, data: TrainingData, rng: np.random.Generator) -> Maps:
        """Fit the maps; a user's own module reads every column once, as it is."""
        own_module, mask = isinstance(self.summary, nn.Module), has_gaps(self, data.transformer)
        maps = Maps.fit(self.prior, data.theta, data.X, mask, asinh=not own_module)
        if own_module or data.X.sizes is not None:
            return maps
        framed = order_of(data.transformer) is None  # noise of moments can be far from Gaussian
        return maps.with_compression(data.theta, data.X, data.training, rng, with_frames=framed)

    def _specify(self, data: TrainingData, maps: Maps) -> dict[str, Any]:
        X = self._rows_of(data.X)[0]
        module, width = specify_summary(self.summary, self.n_summary_features, X, maps)
        return {
            "n_axes": data.X.n_axes,
            "n_row_axes": X.n_axes,
            "n_parameters": data.theta.shape[1],
            "n_features": maps.width,
            "framed": maps.with_frames,
            "n_summary_features": width,
            "module": module,
            "hidden_layer_sizes": tuple(int(h) for h in self.hidden_layer_sizes),
        }

    def _build(self, architecture: dict[str, Any]) -> RatioMember:
        p, d, n_axes = (architecture[k] for k in ("n_parameters", "n_features", "n_row_axes"))
        summary, width = build_summary({**architecture, "n_axes": n_axes})
        critic = Critic(p, width, architecture["hidden_layer_sizes"], n_differences=p)
        gaussian = GaussianRatio(p, n_regressed(n_axes, d))
        return RatioMember(summary, gaussian, critic, n_axes == 3, architecture["framed"])

    def _plan(self, data: TrainingData, maps: Maps) -> TrainingPlan:
        X, own_module = self._rows_of(data.X)[0], isinstance(self.summary, nn.Module)
        return plan_training(
            self,
            data,
            shrinkage_range=1.0,
            batch_factor=SMALL_BATCHES,
            slowdown=1 if X.sizes is None else SET_SLOWDOWN,
            set_fractions=set_fractions(self.summary, X),
            own_module=own_module,
        )

    def _start(
        self,
        members: list[RatioMember],
        data: TrainingData,
        maps: Maps,
        rng: np.random.Generator,
    ) -> None:
        """Start where theta and x, or the moments of sets, are jointly Gaussian."""
        for member in members:
            member.read(maps.theta)
            member.read_range(maps.theta.forward(data.theta[data.training])[0])
        X = self._rows_of(data.X)[0]
        rows = data.rows_of(data.training)[:MAX_START_ROWS]
        if not members or isinstance(self.summary, nn.Module) or len(rows) < MIN_START_ROWS:
            return
        z, like = maps.theta.forward(data.theta[data.owners[rows]])[0], members[0].log_weight
        if X.sizes is None:
            start_at_regression(members, z, maps.batch(X.take(rows), like))
            return
        fraction = set_fractions(self.summary, X)[0][1]
        start_at_moments(members, z, reader(maps, X, rows, like, fraction, rng))

    def _objective(
        self, training: JointTraining, data: TrainingData, maps: Maps, rng: np.random.Generator
    ) -> Objective:
        like = training.weights.values
        size = self._plan(data, maps).batch_size
        contrasts = Contrasts(
            training,
            maps.indexer(self._rows_of(data.X)[0], like, rng).take,
            to_tensor(maps.theta.forward(data.theta)[0], like),
            to_tensor(data.weights, like),
            torch.as_tensor(data.owners, device=like.device),
            torch.as_tensor(data.training, device=like.device),
            max(2, size - 1) if self.n_contrasts == "auto" else self.n_contrasts,
            _N_FIXED_CONTRASTS,
            torch.Generator(like.device).manual_seed(int(rng.integers(2**63))),
        )
        return ContrastiveLoss(contrasts, self.loss, self.gamma, self.balance)

    def _weigh(self, training: JointTraining, objective: Objective, validation: Tensor) -> float:
        return objective.weigh(validation)

    def _describe(
        self, X: Any, data: TrainingData, history: History, best_score: float | None
    ) -> None:
        super()._describe(X, data, history, best_score)
        pairs = data.training[:_N_FIXED_CONTRASTS]
        self._contrasts = self._maps.theta.forward(data.theta[pairs])[0], data.weights[pairs]

    # ---- rows: observations, or the i.i.d. points that they consist of

    def _rows_of(self, X: Packed) -> tuple[Packed, NDArray[np.int64]]:
        """Return what training reads as one x each, and the pairs that these belong to."""
        return as_rows(X, by_point=self.sets == "sum")

    def _owners(self, X: Packed) -> NDArray[np.int64]:
        return self._rows_of(X)[1]

    @property
    def _by_point(self) -> bool:
        """Whether log r was learnt of single points or vectors, and adds up over sets of them."""
        return self._architecture["n_row_axes"] == 2 and order_of(self._transformer) is None

    def _check_observations(self, X: Any, n_axes: int | None = None) -> tuple[Packed, bool]:
        """Accept sets also after a fit on single points."""
        check_is_fitted(self, "members_")
        many = self._by_point and axes_of(X) == 3
        return super()._check_observations(X, 3 if many else n_axes)

    def _likelihoods(self, X: Packed, prior: Prior, *, every_member: bool = False) -> list[Ratio]:
        ensemble = Ensemble(self.members_)
        ensemble = ensemble if every_member else ensemble.active()
        return ratios_of(ensemble, self._maps, X, prior, by_point=self._by_point)

    # ---- checks, typicality and advice

    def _summarise(self, member: RatioMember, maps: Maps, X: Packed) -> NDArray[np.float64]:
        """Return scaled points; of sets that are read as one, their summary and moments."""
        if not member.reads_sets:
            return super()._summarise(member, maps, X)
        return summarise_sets(member.summary, maps, X, member.log_weight)

    def _p_values(self, X: Packed) -> NDArray[np.float64]:
        p_values = super()._p_values(X)
        return p_values_of_sets(p_values, X.owners()) if self._by_point else p_values

    def _advise_on_observations(self, X: Packed, sampler: Sampler) -> list[str]:
        messages = advise_on_points(X, sampler) if self._by_point else []
        untypical = describe_untypical(self._p_values(X))
        return messages + ([untypical] if untypical else [])
