"""Neural posterior estimation: minimise -E log q(theta | x) over pairs (theta, x) ~ p(theta, x)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import TransformerMixin, clone
from sklearn.ensemble._base import _set_random_states
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import _num_samples, check_is_fitted
from torch import Tensor, nn

from skbi._data import Batch, Packed, to_tensor
from skbi.base import (
    BaseDensityEstimator,
    Ensemble,
    Member,
    Pairs,
    blocks,
    check_lengths,
    check_n_samples,
    is_trusted,
    leader,
    make_flow,
    mixture_density,
    regress,
)
from skbi.flows import CouplingFlow
from skbi.maps import Maps
from skbi.networks import DeepSet, Sets, hard_clip, soft_clip
from skbi.priors import Prior, RandomState, as_generator
from skbi.training import History, each_in_one_thread, seeded

__all__ = ["NPEEstimator"]

_REGRESSED = 10_000  # pairs, at most, that decide where training begins
_FEW = 10  # and at least
_SETS = 256  # sets read at a time for that
_LEAST_SPREAD = 1e-6  # added to the sd of a moment over sets
_MANY = 5000  # from which on an ensemble of three does
_LEAST_POINTS = 25  # of a set that is read in part
_PARTS = ((0.4, 1 / 8), (0.75, 1 / 3), (1.0, 1.0))
_POINTS = 2**14  # points of sets that are in the summary network at one time, of each thread
_DRAWS = 2**14  # draws that are in the flow at one time, of each thread


class NPEEstimator(BaseDensityEstimator):
    """Learn the posterior from simulated pairs, for any observation at once.

    Parameters
    ----------
    prior : JointPrior, an object with its methods, or None, default=None
        Decides the support: every draw lies inside and the density is normalised over it. It must
        be the distribution that the training parameters were drawn from, or that `fit` is given
        weights for. Without one the parameters are unbounded.
    flow : {"spline", "realnvp"}, default="spline"
        Kind of coupling layer. Affine maps ("realnvp") draw and train faster;
        posteriors with several modes or sharp edges need splines. A single
        parameter always gets splines: a stack of affine maps of one variable is a Gaussian.
    n_transforms : int, default=4
        Number of coupling layers.
    hidden_layer_sizes : sequence of int, default=(32, 64)
        Gated layers of each coupling layer's network. Four transforms with two layers each were
        closer to two_moons and faster than six with one; a first layer of 64 was no closer, and
        took a fifth longer.
    summary : {"auto", "deepset"}, transformer or torch Module, default="auto"
        What an observation passes through before the flow. "auto": nothing for vectors, a `DeepSet`
        for sets. Columns of heavy tails, of vectors or within sets, are given once more, bent by
        asinh to normal ones: the posterior of Lotka-Volterra populations is 1.3 nats closer, that
        of Cauchy samples 2.6. A scikit-learn transformer is cloned and fitted on the pairs that are
        not kept aside, with theta as y, and may return vectors or sets; its options are this
        estimator's (``summary__n_components``). A module is copied and trained with the flow from
        the weights it has. It maps standardised vectors (n, d) to (n, c), or sets in packed form,
        points (N, d) and sizes (n,), to (n, c), as `skbi.networks.DeepSet` does; columns are given
        to it once; with ``missing="mask"``, d is twice as large. An estimator with a module can be
        pickled, but not written by skops.
    n_summary_features : int, default=32
        Width of the `DeepSet` of "auto" and "deepset".
    n_estimators : int or "auto", default="auto"
        Members of an ensemble, trained together from different initial weights; the posterior is
        their mixture, weighted by the likelihood of the pairs kept aside. Their shrinkage differs,
        see ``alpha``. "auto" is 4 for vectors, 3 from 5,000 pairs on, and 2 for sets.
    batch_size : int or "auto", default="auto"
        Pairs a step; "auto" is the power of two nearest 2.56 sqrt(n), 256 at 10,000 pairs, and half
        as many sets.
    learning_rate_init : float or "auto", default="auto"
        Highest learning rate, reached after a tenth of the steps; it ends at zero. "auto" is 1e-2
        for vectors and 5e-3 for sets, whose summary network does not learn at 1e-2 (double moon:
        -8.0 instead of -9.5).
    alpha : float, default=1.3
        Shrinkage of the coupling layers' networks and of a `DeepSet`, against overfitting: weights
        whose mean gradient over n training pairs is less than ``alpha`` (10,000 / n)^(1/6) standard
        errors from zero go to zero. (On problems of 6 to 12 parameters 2 was best at 1,000 pairs,
        1.4 at 10,000 and 1.1 at 30,000.) So much for the last member; the first, or a single one,
        has a 25th, and those in between have steps of equal ratio. What suits the problem shows on
        the pairs kept aside: members far behind the best are trained no longer. Sets are shrunk
        half as much. (Ten parameters seen through sets of 50 want that, 0.2 instead of 1.3 nats
        from exact; the double moon next to none, or it ends at -6.9 instead of -9.7.)
    max_iter : int, default=50
        Epochs.
    early_stopping : bool, default=True
        Keep ``validation_fraction`` of the pairs aside, keep the weights that score best on them
        and stop when they have not improved for ``n_iter_no_change`` epochs.
    validation_fraction : float, default=0.1
    n_iter_no_change : int, default=30
        Of sets, only epochs that read them whole count: the last quarter of a first fit.
    tol : float, default=1e-3
        Improvement of the validation score, in nats, that counts.
    warm_start : bool, default=False
        Continue from the weights of the last `fit`, reading sets whole from the start.
    missing : {"error", "mask"}, default="error"
        What to do about NaN inside an observation: refuse, or fill them with the mean and tell the
        network which were filled.
    random_state : int, Generator, RandomState or None, default=None
        Decides the fit and, unless they are given their own, the draws.
    verbose : int, default=0
        1 shows a progress bar.
    device : str, default="cpu"
        Where to train, "cuda" for a GPU.

    Attributes
    ----------
    flow_ : CouplingFlow
        The trained flow (of the member with the largest weight, in an ensemble).
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

    References
    ----------
    Papamakarios and Murray, Fast epsilon-free inference of simulation models with Bayesian
    conditional density estimation, 2016, https://arxiv.org/abs/1605.06376.

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

    _straight = True
    _prefer = "threads"  # of joblib: the flow, which frees the interpreter, does the work

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseDensityEstimator._parameter_constraints,
        "n_estimators": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "missing": [StrOptions({"error", "mask"})],
        "summary": [
            StrOptions({"auto", "deepset"}),
            nn.Module,
            HasMethods(["fit", "transform"]),
        ],
        "n_summary_features": [Interval(Integral, 1, None, closed="left")],
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
        verbose: int = 0,
        device: str = "cpu",
    ) -> None:
        self.prior = prior
        self.flow = flow
        self.n_transforms = n_transforms
        self.hidden_layer_sizes = hidden_layer_sizes
        self.summary = summary
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
    def summary_net_(self) -> nn.Module | None:
        """The trained summary network, as with `flow_`."""
        check_is_fitted(self, "members_")
        return leader(self.members_).summary

    @property
    def summary_transformer_(self) -> TransformerMixin | None:
        """The fitted transformer, if ``summary`` is one."""
        check_is_fitted(self, "members_")
        return self._transformer

    def sample_posterior(
        self,
        X_obs: Any,
        n_samples: int = 1000,
        *,
        refine: Any = None,
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
            return refine.sample_posterior(X_obs, n_samples, sampler="importance", **options)
        rng = as_generator(self.random_state if random_state is None else random_state)
        members = self._counting
        contexts, moments = _read(packed, self._maps, members)
        if not is_trusted():
            best = leader(members)
            its = [contexts[members.index(best)]], moments
            seen = self._summaries(best, self._maps, packed, its)
            self._warn_of_strangers(self._familiar.p_values(seen))
        draws = np.empty((len(packed), n_samples, self.n_parameters_in_))
        parts = [
            (rows, columns)
            for rows in blocks(len(packed), max(1, _DRAWS // n_samples))
            for columns in blocks(n_samples, _DRAWS)
        ]

        def fill(part: tuple[slice, slice], seed: int) -> None:
            shape, some = draws[part].shape, [context[part[0]] for context in contexts]
            z = self._draw(some, shape, np.random.default_rng(seed))
            draws[part] = self._maps.theta.inverse(z.reshape(-1, shape[-1])).reshape(shape)

        seeds = rng.integers(2**63, size=len(parts)).tolist()
        each_in_one_thread(fill, list(zip(parts, seeds, strict=True)))
        return draws[0] if single else draws

    def log_prob(self, theta: ArrayLike, X: Any) -> NDArray[np.float64]:
        """Log density of the posterior, log q(theta | X), normalised.

        Parameters
        ----------
        theta : array-like, shape (n, p)
        X : array-like
            n observations, paired with theta's rows, or one observation for all of them.

        Returns
        -------
        ndarray, shape (n,)
            In nats, -inf outside the prior's support.
        """
        table = self._check_theta(theta)
        packed, _ = self._check_observations(X)
        if len(packed) not in (1, len(table)):
            raise ValueError(
                f"X must hold one observation or as many as theta has rows, {len(table)}; got "
                f"{len(packed)}."
            )
        members = self._double()
        contexts, _ = _read(packed, self._maps, members)
        z, log_det = self._maps.theta.forward(table)
        log_q = np.empty(len(table))
        for rows in blocks(len(table), _POINTS):
            paired = [c if len(packed) == 1 else c[rows] for c in contexts]
            log_q[rows] = _density(members, z[rows], paired)
        return np.where(np.isfinite(log_det), log_q + log_det, -np.inf)

    def _check_parameters(
        self, theta: NDArray[np.float64], names: NDArray[Any] | None
    ) -> NDArray[Any]:
        discrete = np.asarray(getattr(self.prior, "discrete", False))
        if discrete.any():
            names = [n for n, d in zip(self.prior.names, discrete, strict=True) if d]
            raise ValueError(
                f"The parameters {names} are discrete, and NPE learns a density over theta. Use "
                "NLEEstimator, which learns the likelihood and accepts discrete parameters."
            )
        return super()._check_parameters(theta, names)

    def _fit_transformer(
        self,
        X: Any,
        theta: NDArray[np.float64],
        learnt: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> Any:
        if not hasattr(self.summary, "transform"):
            return None
        if self._resumes:
            return self._transformer
        check_lengths(len(theta), _num_samples(X))
        transformer = clone(self.summary)
        _set_random_states(transformer, int(rng.integers(2**31)))
        return transformer.fit(_safe_indexing(X, learnt), theta[learnt])

    def _specify(self, data: Pairs, maps: Maps) -> dict[str, Any]:
        for_sets = self.summary == "deepset" or isinstance(self.summary, DeepSet)
        if for_sets and data.X.n_axes == 2:
            raise ValueError(
                "A DeepSet summary reads sets, X of shape (n, S, d) or a list of arrays "
                "(S_i, d); got vectors. Use summary='auto'."
            )
        module, width = None, None
        if isinstance(self.summary, nn.Module):
            module = copy.deepcopy(self.summary).to("cpu", torch.float32)
            single = torch.empty(0, dtype=torch.float32, device="cpu")
            width = _check_module(module, maps.batch(data.X[:2], single))
        return {
            "n_axes": data.X.n_axes,
            "n_parameters": data.theta.shape[1],
            "n_features": maps.X.width,
            "n_summary_features": self.n_summary_features if module is None else width,
            "module": module,
            "flow": self.flow,
            "n_transforms": self.n_transforms,
            "hidden_layer_sizes": tuple(int(h) for h in self.hidden_layer_sizes),
        }

    def _build(self, spec: dict[str, Any]) -> AmortisedPosterior:
        width, summary = spec["n_features"], copy.deepcopy(spec["module"])
        if summary is None and spec["n_axes"] == 3:
            summary = DeepSet(width, spec["n_summary_features"])
        if summary is not None:
            width = spec["n_summary_features"]
        options = {name: spec[name] for name in ("n_transforms", "hidden_layer_sizes")}
        flow = make_flow(spec["flow"], spec["n_parameters"], width, **options)
        return AmortisedPosterior(summary, flow)

    def _begin(
        self, members: list[Member], data: Pairs, maps: Maps, rng: np.random.Generator
    ) -> None:
        """Start at a linear regression, for sets on their moments, unless a module is given."""
        rows = data.learnt[:_REGRESSED]
        if not members or isinstance(self.summary, nn.Module) or len(rows) < _FEW:
            return
        z, _ = maps.theta.forward(data.theta[rows])
        first = members[0]
        if first.summary is not None:
            self._begin_sets(members, rows, z, data, maps, rng)
            return
        context = first.embed(maps.batch(data.X.take(rows), first.log_weight))
        first.flow.begin(*regress(context.cpu().double().numpy(), z))
        for member in members[1:]:
            member.flow.mix.data.copy_(first.flow.mix)
            member.flow.start.load_state_dict(first.flow.start.state_dict())

    @torch.no_grad()
    def _begin_sets(
        self,
        members: list[Member],
        rows: NDArray[np.int64],
        z: NDArray[np.float64],
        data: Pairs,
        maps: Maps,
        rng: np.random.Generator,
    ) -> None:
        """Begin contexts with what a regression on moments predicts, and flows with those numbers.

        With all of a context the flow would hang on what training is about to change: 12 epochs of
        the double moon ended at -4.3 instead of -8.1.
        """
        indexer = maps.indexer(data.X, members[0].log_weight, rng)
        part = self._parts(data.X)[0][1]
        some = torch.as_tensor(rows, device=self.device).split(_SETS)

        def of_sets(network: Callable[..., Tensor]) -> NDArray[np.float64]:
            parts = (indexer.take(few, part) for few in some)
            each = [network(batch.points, batch.sizes, batch.totals) for batch in parts]
            return torch.cat(each).cpu().double().numpy()

        moments = of_sets(members[0].summary.moments)
        mean, scale = moments.mean(axis=0), moments.std(axis=0) + _LEAST_SPREAD
        k = min(z.shape[1], self.n_summary_features)
        slopes, intercept, _ = regress((moments - mean) / scale, z[:, :k])
        slopes = slopes / scale[:, None]
        for member in members:
            like = member.log_weight
            prediction = slopes, intercept - mean @ slopes
            member.summary.begin(*(to_tensor(a, like) for a in prediction))
            context = of_sets(member.summary)
            weights, *rest = regress(context[:, :k], z)
            others = context.shape[1] - k
            member.flow.begin(np.pad(weights, ((0, others), (0, 0))), *rest)

    def _train(
        self, members: list[Member], data: Pairs, maps: Maps, rng: np.random.Generator
    ) -> History:
        """Train members; a module of the user's own may need torch's generator, for dropout."""
        with seeded(rng) if isinstance(self.summary, nn.Module) else nullcontext():
            return super()._train(members, data, maps, rng)

    def _losses(
        self, ensemble: Ensemble, data: Pairs, maps: Maps, rng: np.random.Generator
    ) -> Callable[[Tensor, float], Tensor]:
        like = next(ensemble.parameters())
        z, log_det = (to_tensor(a, like) for a in maps.theta.forward(data.theta))
        indexer = maps.indexer(data.X, like, rng)

        def losses(rows: Tensor, part: float) -> Tensor:
            return -ensemble.log_prob(z[rows], indexer.take(rows, part)) - log_det[rows]

        return losses

    def _count_members(self, data: Pairs) -> int:
        if self.n_estimators != "auto":
            return self.n_estimators
        if self._resumes:
            return len(self.members_)
        return 2 if self._reads_sets(data.X) else 4 if len(data.X) < _MANY else 3

    def _reads_sets(self, X: Packed) -> bool:
        return X.sizes is not None

    def _in_one_thread(self, X: Packed) -> bool:
        return not (self._reads_sets(X) or isinstance(self.summary, nn.Module))

    def _parts(self, X: Packed) -> tuple[tuple[float, float], ...]:
        foreign = isinstance(self.summary, nn.Module) and not isinstance(self.summary, DeepSet)
        if X.sizes is None or foreign:
            return super()._parts(X)
        least = min(1.0, _LEAST_POINTS / float(X.sizes.mean()))
        return tuple((upto, max(part, least)) for upto, part in _PARTS)

    def _tails(self) -> dict[str, Any]:
        return {"bend": not isinstance(self.summary, nn.Module)}  # which reads what there is

    def _summaries(
        self,
        member: AmortisedPosterior,
        maps: Maps,
        X: Packed,
        read: tuple[list[Tensor], Tensor] | None = None,
    ) -> NDArray[np.float64]:
        """Vectors as they are, scaled; of sets the summary, mean, log sd and log size."""
        if X.sizes is None:
            return maps.X.forward(X.points)
        (context,), moments = read or _read(X, maps, [member])
        return np.hstack([context.cpu(), moments.cpu(), np.log(X.sizes[:, None])])


def _read(
    packed: Packed, maps: Maps, members: list[AmortisedPosterior]
) -> tuple[list[Tensor], Tensor]:
    """Embed every observation once with every member, (n, c) each; give also `_moments` of sets."""
    like, width = next(members[0].parameters()), 0 if packed.sizes is None else 2 * maps.X.width
    contexts = [like.new_empty(len(packed), m.flow.start.in_features) for m in members]
    moments = like.new_empty(len(packed), width)

    @torch.no_grad()
    def read(rows: slice) -> None:
        batch = maps.batch(packed[rows], like)
        for context, member in zip(contexts, members, strict=True):
            context[rows] = member.embed(batch)
        if width:
            moments[rows] = _moments(batch)

    each_in_one_thread(read, [(rows,) for rows in packed.blocks(_POINTS)])
    return contexts, moments


def _moments(batch: Batch) -> Tensor:
    """Mean and log sd of every set, (n, 2 d)."""
    sets = Sets(batch.sizes)
    x = sets.split(batch.points)
    mean = sets.mean(x)
    square = sets.mean((x - sets.spread(mean)).square())
    return torch.cat([mean, 0.5 * (square + 1e-8).log()], dim=1)


class AmortisedPosterior(Member):
    """q(z | x): an optional summary network, then a conditional flow."""

    def __init__(self, summary: nn.Module | None, flow: CouplingFlow) -> None:
        super().__init__(flow)
        self.summary = summary

    def embed(self, batch: Batch) -> Tensor:
        """Summarise observations, (n, c)."""
        return _summarise(self.summary, batch)

    def shrunk(self) -> list[nn.Parameter]:
        """Return what shrinkage pulls to zero of the summary network, if that is skbi's own."""
        return self.summary.shrunk() if isinstance(self.summary, DeepSet) else []


def _summarise(summary: nn.Module | None, batch: Batch) -> Tensor:
    if summary is None:
        return hard_clip(batch.points)
    if isinstance(summary, DeepSet):
        return summary(batch.points, batch.sizes, batch.totals)
    sizes = () if batch.sizes is None else (batch.sizes,)
    return soft_clip(summary(batch.points, *sizes))


@torch.no_grad()
def _check_module(module: nn.Module, batch: Batch) -> int:
    """Try a user's summary network on a few observations; return its width."""
    wanted = f"summary must map points of width {batch.points.shape[1]}"
    wanted += " to (n, c)" if batch.sizes is None else " and sizes (n,) to (n, c)"
    try:
        output = _summarise(module.eval(), batch)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{wanted}; {type(module).__name__} fails: {error}") from error
    if output.ndim != 2 or len(output) != len(batch):
        raise ValueError(f"{wanted}, n = {len(batch)}; got shape {tuple(output.shape)}.")
    return output.shape[1]


@torch.no_grad()
def _density(
    members: list[AmortisedPosterior], z: NDArray[np.float64], contexts: list[Tensor]
) -> NDArray[np.float64]:
    return mixture_density(members, to_tensor(z, contexts[0]), contexts).cpu().numpy()
