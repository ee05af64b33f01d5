"""Where training starts: a regularised linear regression, y ~ N(x @ slopes + intercept, C).

Gradient steps on minibatches take long to find these numbers where the columns of x are correlated.
A conditional flow can be set to this Gaussian density before its training (see
`ConditionalFlow.start_at`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import RidgeCV

__all__ = ["MAX_START_ROWS", "MIN_START_ROWS", "regress"]

MAX_START_ROWS, MIN_START_ROWS = 10_000, 10  # that the regression is fitted to
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
