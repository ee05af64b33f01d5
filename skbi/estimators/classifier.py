"""Which simulator made the data: p(model | x), learnt from simulations of all candidate models.

The model is the one discrete parameter of an `NPEEstimator`, which minimises the log loss,
-E log q(model | x). With q learnt at shares s of the models in training, and prior
probabilities pi,

    p(m | x) = q(m | x) pi_m / s_m / sum_k q(k | x) pi_k / s_k,
    log p(x | a) / p(x | b) = log q(a | x) / q(b | x) - log s_a / s_b.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import log_softmax
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    _check_y,
    check_consistent_length,
    check_is_fitted,
)
from torch import nn

from skbi.estimators.mixed import log_probs_of_values
from skbi.estimators.npe import NPEEstimator
from skbi.priors import JointPrior
from skbi.randomness import RandomState

__all__ = ["ModelClassifier"]

_SUM_TOLERANCE = 1e-6  # of prior probabilities that are to sum to one
_FITTED = "n_features_in_", "feature_names_in_", "n_iter_", "loss_curve_", "validation_scores_"


class ModelClassifier(ClassifierMixin, BaseEstimator):
    """Learn which of several simulators has made an observation, for any observation at once.

    It is a classifier of scikit-learn whose classes are models, each a prior and a simulator.
    Trained on simulations of all of them, at parameters drawn from each one's prior, its
    probabilities are those of the models given the observation, marginal over their parameters.

    Parameters
    ----------
    priors : array-like, shape (n_classes,), or None, default=None
        Prior probabilities of the models, in the order of ``classes_``. None takes the shares that
        the models have of the training simulations (weighted, if there are weights): a model that
        was simulated twice as often as another then counts as twice as probable beforehand.
    hidden_layer_sizes : sequence of int, default=(32,)
        Gated layers of the network that gives the probabilities.
    summary, n_summary_features, n_estimators, batch_size, learning_rate_init, alpha, max_iter
        As of `NPEEstimator`, which reads observations of all kinds.
    early_stopping, validation_fraction, n_iter_no_change, tol, warm_start, missing
        As of `NPEEstimator`. Validation simulations weigh the members of the ensemble by their log
        loss, which keeps the probabilities calibrated.
    random_state : int, Generator, RandomState or None, default=None
        Decides the fit.
    verbose, device
        As of `NPEEstimator`.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
        The models, sorted.
    class_prior_ : ndarray, shape (n_classes,)
        Their prior probabilities.
    class_share_ : ndarray, shape (n_classes,)
        Their shares of the training simulations.
    posterior_ : NPEEstimator
        The posterior of the model's index in ``classes_``, under ``class_share_``.
    n_features_in_ : int
        Width of X's vectors or points.
    feature_names_in_ : ndarray of str
    n_iter_, loss_curve_, validation_scores_, best_validation_score_
        As of `NPEEstimator`, where log q is the log probability of the right model.

    See Also
    --------
    NLEEstimator.log_evidence : The same from a likelihood of each model, without its competitors.

    Notes
    -----
    ``predict_proba`` answers one observation (an array with one axis less than X in ``fit``)
    without the leading axis. scikit-learn's own displays show the probabilities:
    ``CalibrationDisplay.from_estimator`` of two models, ``ConfusionMatrixDisplay.from_estimator``.
    ``score`` is the accuracy, as of all classifiers; to compare fits, take
    ``scoring="neg_log_loss"``.

    Like all of this field, the probabilities hold among the candidates. If none of them made the
    data, one will still seem the best: ``typicality`` tells whether any could have.

    References
    ----------
    Pudlo et al., Reliable ABC model choice via random forests, 2016,
    https://doi.org/10.1093/bioinformatics/btv684; Radev et al., Amortized Bayesian model comparison
    with evidential deep learning, 2021, https://arxiv.org/abs/2004.10629.

    Examples
    --------
    Counts of a Poisson distribution, or of one whose rate varies:

    >>> import numpy as np
    >>> from scipy import stats
    >>> from skbi import JointPrior, ModelClassifier, simulate_models
    >>> rate = JointPrior({"rate": stats.gamma(4)})
    >>> varying = JointPrior({"rate": stats.gamma(4), "shape": stats.uniform(0.2, 2)})
    >>> models = {
    ...     "poisson": (rate, lambda theta, rng: rng.poisson(theta[0], size=10)),
    ...     "varying": (varying, lambda theta, rng: rng.poisson(
    ...         theta[0] * rng.gamma(theta[1], 1 / theta[1], size=10))),
    ... }
    >>> X, model = simulate_models(models, 1000, random_state=0)
    >>> classifier = ModelClassifier(max_iter=10, random_state=0).fit(X, model)
    >>> x = np.array([9, 0, 0, 1, 8, 2, 0, 3, 7, 0])
    >>> print(classifier.predict(x))
    varying
    >>> classifier.predict_proba(x).shape, classifier.predict_proba(X[:5]).shape
    ((2,), (5, 2))
    >>> log_factor, error = classifier.log_bayes_factor(x, "varying", "poisson")
    >>> log_factor > 1
    True
    """

    loss_name: ClassVar[str] = "-log q(model | x) [nats]"
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "priors": ["array-like", None],
        **{
            name: constraint
            for name, constraint in NPEEstimator._parameter_constraints.items()
            if name not in ("flow", "n_transforms", "augment")
        },
        "n_estimators": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    }

    def __init__(
        self,
        *,
        priors: ArrayLike | None = None,
        hidden_layer_sizes: Sequence[int] = (32,),
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
        verbose: int | str = "auto",
        device: str = "cpu",
    ) -> None:
        self.priors = priors
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

    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Learn from simulations of all models.

        Parameters
        ----------
        X : array-like, shape (n, d) or (n, S, d), or a sequence of n arrays (S_i, d)
            The simulations, as `NPEEstimator` takes them.
        y : array-like, shape (n,)
            The model that made each of them: names, or any other labels of classes.
        sample_weight : array-like, shape (n,), optional
            How much each simulation counts beside the others.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If an option or the data cannot be used; what was fitted before stays usable.

        Warns
        -----
        UserWarning, ConvergenceWarning
            As of `NPEEstimator.fit`.
        """
        self._validate_params()
        y = _check_y(y)
        check_classification_targets(y)
        check_consistent_length(X, y)
        weights = _check_sample_weight(sample_weight, y, ensure_non_negative=True)
        classes, index = np.unique(y, return_inverse=True)
        share = np.bincount(index, weights)
        if len(classes) < 2 or not share.all():
            counted = classes[share > 0].tolist()
            raise ValueError(
                "A classifier of models needs simulations of at least two, and of each some of "
                f"positive weight; got {len(counted)} class(es) with simulations, {counted}."
            )
        priors = self._check_priors(classes)
        posterior = self._posterior_of(classes)
        posterior.fit(index[:, None].astype(np.float64), X, sample_weight)
        self.classes_, self.class_share_ = classes, share / share.sum()
        self.class_prior_ = self.class_share_ if priors is None else priors
        self.posterior_ = posterior
        for name in (*_FITTED, "best_validation_score_"):
            vars(self).pop(name, None)
            if hasattr(posterior, name):
                setattr(self, name, getattr(posterior, name))
        return self

    def predict_proba(self, X: Any, *, check_typicality: bool = True) -> NDArray[np.float64]:
        """Return p(model | x) of each observation.

        Parameters
        ----------
        X : array-like
            A batch, with as many axes as X in `fit` (a list of sets is a batch), or one
            observation, an array with one axis fewer.
        check_typicality : bool, default=True
            Whether to warn of observations that are unlike the simulations of all models.

        Returns
        -------
        ndarray, shape (n_obs, n_classes), or (n_classes,) for one observation
            Models in the order of ``classes_``.

        Warns
        -----
        UserWarning
            If an observation is unlike the training simulations: no model may be right.
        """
        log_q, _, single = self._log_probs(X, check_typicality)
        probabilities = np.exp(self._reweighted(log_q))
        return probabilities[0] if single else probabilities

    def predict_log_proba(self, X: Any, *, check_typicality: bool = True) -> NDArray[np.float64]:
        """Return log p(model | x) of each observation, in nats; see `predict_proba`.

        Parameters
        ----------
        X, check_typicality
            As in `predict_proba`.

        Returns
        -------
        ndarray, shape (n_obs, n_classes), or (n_classes,) for one observation
        """
        log_q, _, single = self._log_probs(X, check_typicality)
        log_p = self._reweighted(log_q)
        return log_p[0] if single else log_p

    def predict(self, X: Any, *, check_typicality: bool = True) -> Any:
        """Return the most probable model of each observation.

        Parameters
        ----------
        X, check_typicality
            As in `predict_proba`.

        Returns
        -------
        ndarray, shape (n_obs,), or an item of ``classes_`` for one observation
        """
        log_q, _, single = self._log_probs(X, check_typicality)
        models = self.classes_[self._reweighted(log_q).argmax(axis=1)]
        return models[0] if single else models

    def log_bayes_factor(
        self, X: Any, model: Any, other: Any, *, check_typicality: bool = True
    ) -> tuple[Any, Any]:
        """Return log p(x | model) / p(x | other) of each observation, and its error.

        It does not depend on the models' prior probabilities. Beyond about the logarithm of the
        number of simulations it is an extrapolation: no simulation of the one model looked like the
        other's.

        Parameters
        ----------
        X : array-like
            Observations, as in `predict_proba`.
        model, other
            Two of ``classes_``.
        check_typicality : bool, default=True
            As in `predict_proba`.

        Returns
        -------
        log_bayes_factor, error : float, or ndarrays of shape (n_obs,) for a batch
            In nats; positive in favour of ``model``. The standard error is that by which the
            members of the ensemble differ. They have learnt from the same simulations, so that it
            is rather too small; a single member shows nothing, and has NaN.

        Raises
        ------
        ValueError
            If a model is none of ``classes_``.
        """
        check_is_fitted(self, "posterior_")
        a, b = (self._index_of(name) for name in (model, other))
        log_q, of_members, single = self._log_probs(X, check_typicality)
        log_share = np.log(self.class_share_)
        log_factor = log_q[:, a] - log_q[:, b] - (log_share[a] - log_share[b])
        each = of_members[..., a] - of_members[..., b]
        error = each.std(axis=0, ddof=1) if len(each) > 1 else np.full_like(log_factor, np.nan)
        return (float(log_factor[0]), float(error[0])) if single else (log_factor, error)

    def typicality(self, X_obs: Any) -> Any:
        """Return p-values of observations being like the simulations of any model.

        Parameters
        ----------
        X_obs : array-like
            Observations, as in `predict_proba`.

        Returns
        -------
        ndarray, shape (n_obs,), or float for one observation
            See `misspecification_score` for what they mean.
        """
        check_is_fitted(self, "posterior_")
        return self.posterior_.typicality(X_obs)

    def set_params(self, **params: Any) -> Self:
        """Set options; ``device`` also moves a fitted classifier there.

        Parameters
        ----------
        **params
            Options of the constructor.

        Returns
        -------
        self
        """
        if "device" in params and hasattr(self, "posterior_"):
            self.posterior_.set_params(device=params["device"])
        return super().set_params(**params)

    def _posterior_of(self, classes: NDArray[Any]) -> NPEEstimator:
        """Return what learns the model's index, from where it stands if training goes on."""
        prior = JointPrior({"model": stats.randint(0, len(classes))})
        options = {k: v for k, v in self.get_params(deep=False).items() if k != "priors"}
        if not (self.warm_start and hasattr(self, "posterior_")):
            return NPEEstimator(prior=prior, **options)
        if not np.array_equal(classes, self.classes_):
            raise ValueError(
                f"warm_start continues with the same models, {self.classes_.tolist()}; got "
                f"{classes.tolist()}. Set warm_start=False to start afresh."
            )
        return copy.copy(self.posterior_).set_params(**options)

    def _check_priors(self, classes: NDArray[Any]) -> NDArray[np.float64] | None:
        """Return prior probabilities that are given, if they are some."""
        if self.priors is None:
            return None
        priors = np.asarray(self.priors, dtype=np.float64)
        if priors.shape != classes.shape or (priors < 0).any():
            raise ValueError(
                f"priors must hold a probability for each of the {len(classes)} models "
                f"{classes.tolist()}; got {self.priors!r}."
            )
        if abs(priors.sum() - 1) > _SUM_TOLERANCE:
            raise ValueError(f"priors must sum to one; got {self.priors!r}, sum {priors.sum():g}.")
        return priors

    def _index_of(self, model: Any) -> int:
        found = np.flatnonzero(self.classes_ == model)
        if not len(found):
            raise ValueError(f"{model!r} is none of the models {self.classes_.tolist()}.")
        return int(found[0])

    def _log_probs(
        self, X: Any, check_typicality: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
        """Return log q(model | x) (n, K), that of each member, and if X is one observation."""
        check_is_fitted(self, "posterior_")
        packed, single = self.posterior_._check_observations(X)
        ensemble, contexts, _ = self.posterior_._read(
            packed, check_typicality=check_typicality, stacklevel=4
        )
        ensemble = ensemble.double()
        of_members = log_probs_of_values(ensemble, [context.double() for context in contexts])
        mixed = ensemble.mix(list(of_members))
        return mixed.cpu().numpy(), of_members.cpu().numpy(), single

    def _reweighted(self, log_q: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return log p(model | x) (n, K) under the prior probabilities of the models."""
        with np.errstate(divide="ignore"):
            log_prior = np.log(self.class_prior_)
        return log_softmax(log_q + log_prior - np.log(self.class_share_), axis=1)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags
