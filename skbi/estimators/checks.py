"""Checks of what users pass, before any training or sampling starts: expected, got, remedy."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils._param_validation import InvalidParameterError

from skbi.estimators.misuse import describe_scaling
from skbi.preprocessing.shapes import describe_width
from skbi.priors import check_prior

__all__ = [
    "check_columns",
    "check_density_exists",
    "check_device",
    "check_finite_theta",
    "check_grid",
    "check_hidden_layer_sizes",
    "check_independent",
    "check_lengths",
    "check_n_samples",
    "check_pairing",
    "check_theta_under_prior",
    "check_width",
    "default_names",
    "describe_atoms",
    "describe_shared_values",
    "features_without_density",
    "linearly_dependent",
]

_MIN_POINTS_WITH_ATOMS = 100
_MIN_SHARE_OF_VALUES = 0.05  # distinct values over points, in a column that has a density
_MAX_SHARE_OF_ATOM = 0.02  # of the points, at one value
_MAX_EXAMINED = 10_000  # rows of theta that are examined for dependences, at least
_MIN_ATOM = 0.05  # share of the rows that have one value of a parameter, of at least so many
_MIN_ATOM_ROWS = 100
_MAX_RESIDUE = 1e-6  # of a combination of columns that is constant up to rounding
_MIN_SHARE = 1e-3  # of a column that is part of a combination


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


def check_pairing(n_theta: int, n_X: int) -> None:
    """Refuse theta and X that neither are paired nor one of which is a single one."""
    if {n_theta, n_X} - {1, max(n_theta, n_X)}:
        raise ValueError(
            "theta and X must be paired row by row, or one of them must hold a single one; got "
            f"{n_theta} rows of theta and {n_X} observations."
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
    check_prior(prior)
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
            f"{theta[row].tolist()}"
            + (f", outside the support of {which}. " if which else ". ")
            + describe_scaling(theta, prior)
        )


def check_width(estimator: Any, found: int, n_axes: int) -> None:
    """Refuse observations of another number of features than in `fit`, where X had these axes."""
    expected = estimator.n_features_in_
    if found != expected:
        hint = describe_width(found, expected, n_axes, getattr(estimator, "missing", None))
        raise ValueError(
            f"X has {found} features, but {type(estimator).__name__} is expecting {expected} "
            f"features as input. {hint}"
        )


def check_grid(found: tuple[int, int] | None, expected: tuple[int, int] | None) -> None:
    """Refuse images of another height or width than in `fit`."""
    if found != expected:
        raise ValueError(
            f"Images must be of the size of fit, {expected[0]} x {expected[1]}; got {found[0]} x "
            f"{found[1]}. Cut or resample them as the simulations are, or fit to images of this "
            "size."
        )


def linearly_dependent(theta: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which columns of theta (n, p) have a linear combination that is constant, (p,).

    Columns are measured in quartiles, and the combination by what holds for 95 % of the rows, so
    that outliers can neither hide a dependence nor make one. Constant columns are part of none.

    >>> shares = np.random.default_rng(0).dirichlet([1, 1, 1], size=100)
    >>> linearly_dependent(np.column_stack([shares, shares[:, 0] ** 2]))
    array([ True,  True,  True, False])
    """
    if theta.shape[1] < 2:
        return np.zeros(theta.shape[1], dtype=bool)
    theta = theta[:: max(1, len(theta) // _MAX_EXAMINED)]
    low, middle, high = np.quantile(theta, [0.25, 0.5, 0.75], axis=0)
    spread = np.where(high > low, high - low, np.ptp(theta, axis=0))
    if len(theta) <= theta.shape[1]:
        return np.zeros(theta.shape[1], dtype=bool)
    z = (theta - middle) / np.where(spread > 0, spread, 1)
    combinations = np.linalg.svd(z - z.mean(axis=0), full_matrices=False)[2]
    values = z @ combinations.T
    typical = np.quantile(np.abs(values - np.median(values, axis=0)), 0.95, axis=0)
    parts = (np.abs(combinations) > _MIN_SHARE) & (spread > 0)
    return parts[(typical < _MAX_RESIDUE) & (parts.sum(axis=1) > 1)].any(axis=0)


def describe_shared_values(theta: NDArray[np.float64], names: NDArray[Any]) -> list[str]:
    """Return a warning if a single value of a parameter is that of many rows, or nothing."""
    if len(theta) < _MIN_ATOM_ROWS or not theta.shape[1]:
        return []
    most = np.array([np.unique(x, return_counts=True)[1].max() for x in theta.T]) / len(theta)
    if most.max() < _MIN_ATOM:
        return []
    return [
        f"One value is that of {most.max():.0%} of the rows of "
        f"{names[most >= _MIN_ATOM].tolist()}: such a value has a probability, but NPE learns a "
        "density, which spreads it. Give a discrete parameter a discrete prior; draws that are "
        "rounded to a bound differ in other units, such as logarithms."
    ]


def check_independent(theta: NDArray[np.float64], names: NDArray[Any]) -> None:
    """Refuse parameters that have no joint density, since they lie on a plane."""
    dependent = linearly_dependent(theta)
    if dependent.any():
        raise ValueError(
            f"A linear combination of the parameters {names[dependent].tolist()} is constant in "
            "all rows of theta (as of shares that sum to one): they have no joint density. Drop "
            "one of them from theta and from the prior, and compute it from the others."
        )


def features_without_density(
    points: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the columns that are constant, else some that are linear combinations of others."""
    none = np.empty(0, dtype=np.int64)
    constant = np.flatnonzero(~(np.ptp(points, axis=0) > 1e-12 * np.abs(points).max(axis=0)))
    if len(constant) or not len(points) > points.shape[1] > 1:
        return constant, none
    values, vectors = np.linalg.eigh(np.corrcoef(points.T))
    return none, np.flatnonzero(np.abs(vectors[:, 0]) > 1e-3) if values[0] < 1e-10 else none


def check_density_exists(points: NDArray[np.float64], columns: NDArray[np.int64]) -> None:
    """Refuse columns without a density: constant ones and linear combinations of others."""
    constant, repeated = (columns[found] for found in features_without_density(points))
    hint = "Drop one, or use dequantize= to add noise of a width that you choose."
    if len(constant):
        raise ValueError(
            f"Features {constant.tolist()} of X are constant, and have no density. {hint}"
        )
    if len(repeated):
        raise ValueError(
            f"Features {repeated.tolist()} of X repeat each other (one is a linear combination "
            f"of the others), and have no joint density. {hint}"
        )


def describe_atoms(points: NDArray[np.float64], columns: NDArray[np.int64]) -> list[str]:
    """Return warnings of columns of points that take some value so often that it has a mass.

    Parameters
    ----------
    points : ndarray, shape (N, k)
    columns : ndarray of int, shape (k,)
        Which features of X these are.

    Returns
    -------
    list of str
    """
    n, few, atoms = len(points), [], []
    if n < _MIN_POINTS_WITH_ATOMS:
        return []
    for column, x in zip(columns.tolist(), points.T, strict=True):
        values, counts = np.unique(x, return_counts=True)
        share = counts.max() / n
        if len(values) < n * _MIN_SHARE_OF_VALUES:
            few.append(column)
        elif share > _MAX_SHARE_OF_ATOM:
            atoms.append(f"{column} is exactly {values[counts.argmax()]:g} in {share:.0%}")
    messages = []
    if few:
        messages.append(
            f"Features {few} of X take few distinct values, and a density is a poor description of "
            "them. For counts, use dequantize=1."
        )
    if atoms:
        messages.append(
            f"Feature {', feature '.join(atoms)} of the points, and a density has no such mass: "
            "posteriors are wrong at that value, and near it. Use dequantize= with a width that "
            "blurs it, learn the two kinds of points apart, or use NPE, which reads them as they "
            "are."
        )
    return messages
