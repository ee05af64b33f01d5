"""Checks of what users pass, before any training or sampling starts: expected, got, remedy."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils._param_validation import InvalidParameterError

from skbi.priors import Prior

__all__ = [
    "check_columns",
    "check_density_exists",
    "check_device",
    "check_finite_theta",
    "check_hidden_layer_sizes",
    "check_lengths",
    "check_n_samples",
    "check_theta_under_prior",
    "default_names",
]


def default_names(p: int) -> list[str]:
    """Return names for parameters that have none."""
    return [f"theta_{j}" for j in range(p)]


def check_columns(names: NDArray[Any] | None, fitted: Sequence[str]) -> None:
    """Refuse columns of other names than in `fit`, or in another order, if they had names there."""
    unnamed = list(fitted) == default_names(len(fitted))
    if names is not None and list(names) != list(fitted) and not unnamed:
        raise ValueError(
            f"theta's columns must be those of fit, {list(fitted)}; got "
            f"{np.asarray(names).tolist()}."
        )


def check_lengths(n_theta: int, n_X: int) -> None:
    """Refuse theta and X of different lengths."""
    if n_theta != n_X:
        raise ValueError(
            f"theta and X must hold the same number of pairs; got {n_theta} and {n_X}. It is "
            "fit(theta, X)."
        )


def check_n_samples(n_samples: Any) -> None:
    """Refuse anything but a positive integer."""
    if isinstance(n_samples, bool) or not isinstance(n_samples, Integral) or n_samples < 1:
        raise ValueError(f"n_samples must be a positive integer; got {n_samples!r}.")


def check_hidden_layer_sizes(sizes: Any) -> None:
    """Refuse anything but a sequence of positive integers."""
    if np.ndim(sizes) != 1 or not len(sizes) or not all(int(h) == h > 0 for h in sizes):
        raise InvalidParameterError(
            "hidden_layer_sizes must be a sequence of at least one positive integer, such as "
            f"(64, 64); got {sizes!r}."
        )


def check_device(name: str) -> torch.device:
    """Return the device of this name, if it can be used."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device={name!r} cannot be used here ({str(error).splitlines()[0]}). Use 'cpu', or "
            "'cuda' on a machine with a GPU and a CUDA build of torch."
        ) from error
    return device


def check_finite_theta(theta: NDArray[np.float64]) -> None:
    """Refuse NaN and infinite parameters; name the first."""
    if not np.isfinite(theta).all():
        row, column = np.argwhere(~np.isfinite(theta))[0]
        raise ValueError(f"theta has NaN or infinite values, first in row {row}, column {column}.")


def check_theta_under_prior(
    prior: Any, theta: NDArray[np.float64], names: NDArray[Any] | None
) -> None:
    """Refuse training parameters that could not have come from the prior."""
    _check_is_prior(prior)
    if theta.shape[1] != len(prior.names):
        raise ValueError(
            f"The prior has {len(prior.names)} parameters {tuple(prior.names)}, theta has "
            f"{theta.shape[1]} columns."
        )
    if names is not None and list(names) != list(prior.names):
        raise ValueError(
            f"theta's columns {list(names)} are not the prior's parameters {list(prior.names)}: "
            "rename or reorder them."
        )
    outside = ~np.isfinite(prior.log_prob(theta))
    if outside.any():
        row = int(outside.argmax())
        low, high = np.asarray(prior.support, dtype=np.float64).T
        beyond = (theta[row] < low) | (theta[row] > high)
        which = [name for name, out in zip(prior.names, beyond, strict=True) if out]
        raise ValueError(
            f"{int(outside.sum())} rows of theta have no finite prior density, first row {row}: "
            f"{theta[row].tolist()}" + (f", outside the support of {which}." if which else ".")
        )


def _check_is_prior(prior: Any) -> None:
    if isinstance(prior, Prior):
        return
    methods = ("names", "discrete", "support", "sample", "log_prob", "cdf", "ppf")
    missing = [name for name in methods if not hasattr(prior, name)]
    raise TypeError(
        f"prior must be a JointPrior or an object with its methods; got {type(prior).__name__}, "
        f"which lacks {missing}."
    )


def check_density_exists(points: NDArray[np.float64], columns: NDArray[np.int64]) -> None:
    """Refuse columns without a density: constant ones and linear combinations of others."""
    constant = columns[~(np.ptp(points, axis=0) > 1e-12 * np.abs(points).max(axis=0))]
    hint = "Drop one, or use dequantize= to add noise of a width that you choose."
    if len(constant):
        raise ValueError(
            f"Features {constant.tolist()} of X are constant, and have no density. {hint}"
        )
    if len(points) > points.shape[1] > 1:
        values, vectors = np.linalg.eigh(np.corrcoef(points.T))
        if values[0] < 1e-10:
            repeated = columns[np.abs(vectors[:, 0]) > 1e-3]
            raise ValueError(
                f"Features {repeated.tolist()} of X repeat each other (one is a linear combination "
                f"of the others), and have no joint density. {hint}"
            )
