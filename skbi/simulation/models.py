"""Simulations of several candidate models m: theta_i ~ p(theta | m), x_i ~ p(x | theta_i, m)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skbi.randomness import RandomState, as_generator
from skbi.simulation.run import simulate

__all__ = ["simulate_models"]


def simulate_models(
    models: Mapping[str, tuple[Any, Any]],
    n_samples: int | Mapping[str, int],
    *,
    random_state: RandomState = None,
    on_error: str = "raise",
    store: Any = None,
    return_theta: bool = False,
    **options: Any,
) -> Any:
    """Simulate several models, each at draws of its own prior, to tell them apart.

    What is returned is what `ModelClassifier` is fitted to.

    Parameters
    ----------
    models : mapping of str to (prior, simulator)
        Name, prior and simulator of each model, as `simulate` takes them. All simulators must
        return observations of one kind and width.
    n_samples : int or mapping of str to int
        Number of simulations of each model, one number for all or one for each name.
    random_state : int, SeedSequence, Generator, RandomState or None, default=None
        The only source of randomness. A model that is appended later leaves the simulations of the
        others as they are.
    on_error : {"raise", "drop"}, default="raise"
        What to do with a simulation that fails, as in `simulate`. The shares of the models that are
        left by "drop" are those given success, if failing is part of the models.
    store : path or None, default=None
        Folder in which each model has a folder of its own, a store as of `simulate`: a run that was
        killed continues where it stopped. ``simulate(*models["name"], n_samples,
        store="folder/name")`` opens the pairs of one model, for `NPEEstimator` and others.
    return_theta : bool, default=False
        Whether to return also the parameters of each model.
    **options
        As of `simulate`: ``n_jobs``, ``batch_size``, ``missing``, ``timeout`` and ``verbose``.

    Returns
    -------
    X : ndarray, shape (n, d) or (n, S, d)
        The simulations of one model after those of another, in memory. If sets differ in size, an
        object array of n sets (S_i, d) instead.
    model : ndarray of str, shape (n,)
        The model that made each of them.
    theta : dict of str to ndarray, shape (n_m, p_m)
        Only with ``return_theta``.

    Raises
    ------
    TypeError
        If ``models`` is no mapping of two or more names to pairs.
    ValueError
        If the observations of two models have other shapes; and as of `simulate`.
    RuntimeError
        As of `simulate`.

    See Also
    --------
    ModelClassifier : Learns which model made an observation.

    Examples
    --------
    >>> from scipy import stats
    >>> from skbi import JointPrior
    >>> models = {
    ...     "normal": (JointPrior({"mu": stats.norm()}), lambda t, rng: rng.normal(*t, size=3)),
    ...     "laplace": (JointPrior({"mu": stats.norm()}), lambda t, rng: rng.laplace(*t, size=3)),
    ... }
    >>> X, model = simulate_models(models, 100, random_state=0)
    >>> X.shape, model[[0, 100]]
    ((200, 3), array(['normal', 'laplace'], dtype='<U7'))
    """
    _check_models(models)
    if on_error not in ("raise", "drop"):
        raise ValueError(f"on_error must be 'raise' or 'drop'; got {on_error!r}.")
    sizes = _sizes_of(models, n_samples)
    seeds = _seeds_of(models, random_state)
    found, thetas = {}, {}
    for name, (prior, simulator) in models.items():
        folder = None if store is None else Path(store) / name
        thetas[name], found[name], report = simulate(
            prior, simulator, sizes[name], random_state=seeds[name], store=folder,
            on_error=on_error, return_report=True, **options,
        )  # fmt: skip
        if message := report.warning(is_returned=False):
            warnings.warn(f"Model {name!r}: {message}", stacklevel=2)
    X = _join(found)
    model = np.repeat(list(models), [len(x) for x in found.values()])
    return (X, model, thetas) if return_theta else (X, model)


def _check_models(models: Any) -> None:
    """Refuse what is no mapping of names to pairs of a prior and a simulator."""
    expected = "a dict of two or more models, name -> (prior, simulator)"
    if not isinstance(models, Mapping) or len(models) < 2:
        raise TypeError(f"models must be {expected}; got {models!r}.")
    for name, pair in models.items():
        if not isinstance(name, str):
            raise TypeError(f"Names of models must be strings; got {name!r}.")
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"models must be {expected}; got {pair!r} of {name!r}.")


def _sizes_of(models: Mapping[str, Any], n_samples: int | Mapping[str, int]) -> Mapping[str, int]:
    """Return the number of simulations of each model."""
    if not isinstance(n_samples, Mapping):
        return dict.fromkeys(models, n_samples)
    if set(n_samples) != set(models):
        raise ValueError(
            f"n_samples must be a number, or one for each of the models {list(models)}; got "
            f"{dict(n_samples)}."
        )
    return n_samples


def _seeds_of(models: Mapping[str, Any], random_state: RandomState) -> dict[str, int | None]:
    """Return a seed for each model; None, with which a store knows its own, if none is given."""
    if random_state is None:
        return dict.fromkeys(models)
    rng = as_generator(random_state)
    return {name: int(rng.integers(2**63)) for name in models}


def _join(found: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Return the observations of all models as one array, of objects if sets differ in size."""
    forms = {name: _form(X) for name, X in found.items()}
    if len(set(forms.values())) > 1:
        raise ValueError(f"All models must return observations of one shape; got {forms}.")
    if len({X.shape[1:] for X in found.values()}) == 1:
        return np.concatenate(list(found.values()))
    sets = [x for X in found.values() for x in X]
    joined = np.empty(len(sets), dtype=object)
    joined[:] = sets
    return joined


def _form(X: NDArray[Any]) -> str:
    """Describe the shape of an observation; sets may differ in size."""
    first = np.asarray(X[0])
    return f"({first.shape[0]},)" if first.ndim == 1 else f"(S, {first.shape[1]})"
