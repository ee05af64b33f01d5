"""Where training starts: a regularised linear regression, y ~ N(x @ slopes + intercept, C).

Gradient steps on minibatches take long to find these numbers where the columns of x are correlated.
A conditional flow can be set to this Gaussian density before its training (see
`ConditionalFlow.start_at`), and a softmax to Bayes' rule for densities of this kind (see
`Discriminant`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import RidgeCV

__all__ = ["MAX_START_ROWS", "MIN_START_ROWS", "Discriminant", "regress"]

MAX_START_ROWS, MIN_START_ROWS = 10_000, 10  # that the regression is fitted to
_ROWS_OF_COMMON = np.array([3, 30, 300])  # per feature, in the covariance matrix of a class
_MIN_ERROR_SD = 1e-2  # its square is added to the variance of the errors of every column of y


def regress(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Regress y on x by ridge regression, and estimate its errors at new x.

    Errors at new x are larger than the residuals of the fit, above all where n is not much larger
    than c. They are estimated by leaving each row out of the fit in turn: row i then has the error
    residual_i / (1 - leverage_i). The ridge penalty is chosen by the same errors. The covariance
    matrix of the errors is shrunk by the estimator of Ledoit and Wolf.

    Parameters
    ----------
    x : ndarray, shape (n, c)
        What is regressed on, of about unit scale.
    y : ndarray, shape (n, k)
        What is predicted, of about unit scale.

    Returns
    -------
    slopes : ndarray, shape (c, k)
    intercept : ndarray, shape (k,)
    root : ndarray, shape (k, k)
        Upper triangular. (y - x @ slopes - intercept) @ root has uncorrelated columns of variance
        one at new x: root @ root.T is the inverse of the errors' covariance matrix C.

    References
    ----------
    Hoerl and Kennard, Ridge regression: biased estimation for nonorthogonal problems, 1970,
    https://doi.org/10.2307/1267351; Ledoit and Wolf, A well-conditioned estimator for
    large-dimensional covariance matrices, 2004, https://doi.org/10.1016/S0047-259X(03)00096-4.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(5000, 1))
    >>> y = 3 + 2 * x + 0.5 * rng.normal(size=(5000, 1))
    >>> slopes, intercept, root = regress(x, y)
    >>> slopes.round(1), intercept.round(1), root.round(1)
    (array([[2.]]), array([3.]), array([[2.]]))
    """
    ridge = RidgeCV(alphas=np.logspace(-3, 5, 9)).fit(x, y)
    slopes, intercept = ridge.coef_.reshape(y.shape[1], -1).T, np.reshape(ridge.intercept_, -1)
    u, s, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    leverage = 1 / len(x) + u**2 @ (s**2 / (s**2 + ridge.alpha_))
    errors = (y - x @ slopes - intercept) / (1 - leverage)[:, None]
    covariance = LedoitWolf(assume_centered=True).fit(errors).covariance_
    covariance += _MIN_ERROR_SD**2 * np.eye(y.shape[1])
    return slopes, intercept, np.linalg.inv(np.linalg.cholesky(covariance)).T


@dataclass(frozen=True)
class Discriminant:
    """Bayes' rule p(k | y) for y ~ N(mean_k, C_k), as regularised discriminant analysis has it.

    Attributes
    ----------
    means : ndarray, shape (n_classes, d)
    log_shares : ndarray, shape (n_classes,)
    common : ndarray, shape (d, d)
        Inverse covariance matrix of all classes.
    precisions : ndarray, shape (n_classes, d, d), or None
        Those of each class, if they are not all the common one.

    References
    ----------
    Friedman, Regularized discriminant analysis, 1989,
    https://doi.org/10.1080/01621459.1989.10478752.

    Examples
    --------
    >>> rule = Discriminant(np.array([[-1.0], [1.0]]), np.log([0.5, 0.5]), np.eye(1))
    >>> weight, bias, quadratic = rule.logits()
    >>> weight.ravel(), bias.round(2), quadratic.ravel()
    (array([-1.,  1.]), array([-1.19, -1.19]), array([0., 0.]))
    """

    means: NDArray[np.float64]
    log_shares: NDArray[np.float64]
    common: NDArray[np.float64]
    precisions: NDArray[np.float64] | None = None

    def logits(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return weight, bias and quadratic of the logits y' quadratic_k y + weight_k y + bias_k.

        They leave out what all classes have in common.
        """
        own = np.repeat(self.common[None], len(self.means), axis=0)
        own = own if self.precisions is None else self.precisions
        weight = np.einsum("kab,kb->ka", own, self.means)
        bias = self.log_shares + 0.5 * np.linalg.slogdet(own)[1]
        return weight, bias - 0.5 * (weight * self.means).sum(axis=1), 0.5 * (self.common - own)

    def with_own_covariances(
        self, y: NDArray[np.float64], k: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> Self:
        """Give every class a covariance matrix of its own, if that predicts other rows better.

        It is that of some rows of y (n, d) and their classes k (n,), shrunk to the common one as if
        by rows that have the latter. Their number is what predicts the other rows best.
        """
        others = np.setdiff1d(np.arange(len(y)), rows)
        errors, common = y - self.means[k], np.linalg.inv(self.common)
        counts = np.bincount(k[rows], minlength=len(self.means))
        own = [errors[rows[k[rows] == j]] for j in range(len(counts))]
        sums = np.array([e.T @ e for e in own])
        rules = [self]
        for n_common in _ROWS_OF_COMMON * y.shape[1]:
            covariances = (sums + n_common * common) / (counts + n_common)[:, None, None]
            rules.append(replace(self, precisions=np.linalg.inv(covariances)))
        return max(rules, key=lambda rule: rule.score(y[others], k[others]))

    def score(self, y: NDArray[np.float64], k: NDArray[np.int64]) -> float:
        """Mean log p(k | y)."""
        weight, bias, quadratic = self.logits()
        logits = y @ weight.T + bias + np.einsum("na,kab,nb->nk", y, quadratic, y, optimize=True)
        return float(np.mean(logits[np.arange(len(y)), k] - np.logaddexp.reduce(logits, axis=1)))
