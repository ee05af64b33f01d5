"""The samplers by name: what each needs and gives, which one "auto" is, and many observations.

This is the only place that knows the list. A sampler of one's own is a `Sampler`, passed as
``sampler=`` or registered under its name.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs

from skbi.parallel import n_threads, one_blas_thread, one_thread
from skbi.priors import Prior
from skbi.samplers.enumeration import can_enumerate, enumerate_all
from skbi.samplers.importance import importance
from skbi.samplers.info import Array, SamplerInfo
from skbi.samplers.nested import nested
from skbi.samplers.nuts import nuts
from skbi.samplers.smc import smc, smc_together

__all__ = [
    "Sampler",
    "check_options",
    "find_sampler",
    "register_sampler",
    "sample_each",
    "summarise_warnings",
]


@dataclass(frozen=True)
class Sampler:
    """A way to draw from L(theta) p(theta) / Z.

    Attributes
    ----------
    name : str
        What users call it.
    function : callable
        ``function(likelihood, prior, n_samples, rng, **options)`` returns draws (n_samples, p) and
        a `SamplerInfo`. ``likelihood(theta)`` is log L of theta (m, p), (m,), and
        ``likelihood.value_and_gradient(z)`` that and its gradient at the Gaussian coordinates of
        the prior.
    gives_evidence : bool, default=False
        Whether the info holds ``log_evidence``.
    needs_gradient : bool, default=False
        Whether it calls ``value_and_gradient``.
    needs_proposal : bool, default=False
        Whether it takes ``proposal=``, an approximate posterior of the observation.
    needs_discrete : bool, default=False
        Whether all parameters must be discrete.
    shows_progress : bool, default=False
        Whether it takes ``verbose=``.
    many_observations : bool, default=False
        Whether a further observation costs next to nothing, rather than a run of its own.
    together : callable, optional
        The same for several observations in one call: ``together(likelihoods, prior, n_samples,
        rngs, **options)`` returns lists of draws and infos. Each must be what ``function`` gives.
    """

    name: str
    function: Callable[..., tuple[Array, SamplerInfo]]
    gives_evidence: bool = False
    needs_gradient: bool = False
    needs_proposal: bool = False
    needs_discrete: bool = False
    shows_progress: bool = False
    many_observations: bool = False
    together: Callable[..., tuple[list[Array], list[SamplerInfo]]] | None = None


SAMPLERS: dict[str, Sampler] = {}


def register_sampler(sampler: Sampler) -> Sampler:
    """Make a sampler a choice of the estimators' ``sampler=``, by its name."""
    SAMPLERS[sampler.name] = sampler
    return sampler


register_sampler(
    Sampler(
        "smc",
        smc,
        gives_evidence=True,
        shows_progress=True,
        many_observations=True,
        together=smc_together,
    )
)
register_sampler(Sampler("nested", nested, gives_evidence=True, shows_progress=True))
register_sampler(Sampler("nuts", nuts, needs_gradient=True, shows_progress=True))
register_sampler(
    Sampler(
        "importance", importance, gives_evidence=True, needs_proposal=True, many_observations=True
    )
)
register_sampler(
    Sampler(
        "enumerate",
        enumerate_all,
        gives_evidence=True,
        needs_discrete=True,
        many_observations=True,
    )
)


def find_sampler(sampler: str | Sampler, prior: Prior, *, evidence: bool = False) -> Sampler:
    """Return the sampler of a name, or the one that "auto" is for a prior.

    Parameters
    ----------
    sampler : str or Sampler
    prior : JointPrior or an object with its methods
    evidence : bool, default=False
        Whether the evidence is wanted.

    Returns
    -------
    Sampler

    Raises
    ------
    ValueError
        If there is no such sampler, or it does not know the evidence and that is wanted.
    """
    if isinstance(sampler, str):
        names = sorted(("auto", *SAMPLERS))
        if sampler not in names:
            raise ValueError(f"sampler must be one of {names}, or a Sampler; got {sampler!r}.")
        sampler = _choose(prior) if sampler == "auto" else SAMPLERS[sampler]
    if not isinstance(sampler, Sampler):
        raise TypeError(f"sampler must be a name or a Sampler; got {type(sampler).__name__}.")
    if evidence and not sampler.gives_evidence:
        able = [s.name for s in SAMPLERS.values() if s.gives_evidence]
        raise ValueError(f"sampler={sampler.name!r} does not know the evidence: use one of {able}.")
    return sampler


def check_options(sampler: Sampler, options: Collection[str]) -> None:
    """Refuse options that a sampler does not have, before any work."""
    parameters = inspect.signature(sampler.function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    own = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - {"verbose", "proposal"}
    if unknown := sorted(set(options) - own):
        raise TypeError(
            f"sampler={sampler.name!r} has no options {unknown}; it has {sorted(own)}. Name the "
            "sampler whose options these are, as in sampler='nested'."
        )


def _choose(prior: Prior) -> Sampler:
    """Return what "auto" is: exact where every combination of values can be tried."""
    return SAMPLERS["enumerate" if can_enumerate(prior) else "smc"]


def sample_each(
    sampler: Sampler,
    likelihoods: Sequence[Any],
    prior: Prior,
    n_samples: int,
    rng: np.random.Generator,
    *,
    options: Mapping[str, Any],
    proposals: Sequence[Any] | None = None,
    n_jobs: int | None = None,
    verbose: int | str = 0,
    number_files: bool = False,
) -> tuple[list[Array], list[SamplerInfo]]:
    """Sample the posterior of every observation; the result does not depend on ``n_jobs``.

    Parameters
    ----------
    sampler : Sampler
    likelihoods : sequence of callable
        One for each observation.
    prior : JointPrior or an object with its methods
    n_samples : int
        Draws for each observation.
    rng : Generator
        Gives each observation a seed, before the work is split.
    options : mapping
        Of the sampler.
    proposals : sequence, optional
        One for each observation, if the sampler needs them.
    n_jobs : int or None, default=None
        Observations sampled in parallel, through joblib.
    verbose : int or "auto", default=0
        1 shows the progress of samplers that have any.
    number_files : bool, default=False
        Whether ``checkpoint_file`` gets the number of the observation before its suffix.

    Returns
    -------
    samples : list of ndarray, shape (n_samples, p)
    infos : list of SamplerInfo
    """
    seeds = rng.integers(2**63, size=len(likelihoods)).tolist()
    calls = []
    for i in range(len(likelihoods)):
        own = _numbered(options, i) if number_files else dict(options)
        if sampler.shows_progress:
            own["verbose"] = verbose
        if proposals is not None:
            own["proposal"] = proposals[i]
        calls.append(own)
    if sampler.together is not None:
        return _sample_together(sampler, likelihoods, prior, n_samples, seeds, calls[0], n_jobs)
    alone = len(likelihoods) == 1
    found = Parallel(n_jobs=1 if alone else n_jobs)(
        delayed(_sample_one)(sampler, likelihood, prior, n_samples, seed, own, alone)
        for likelihood, seed, own in zip(likelihoods, seeds, calls, strict=True)
    )
    samples, infos = zip(*found, strict=True)
    return list(samples), list(infos)


def _sample_together(
    sampler: Sampler,
    likelihoods: Sequence[Any],
    prior: Prior,
    n_samples: int,
    seeds: Sequence[int],
    options: Mapping[str, Any],
    n_jobs: int | None,
) -> tuple[list[Array], list[SamplerInfo]]:
    """Sample all observations in as many pieces as work side by side, each in one torch thread.

    Those are processes with ``n_jobs``, and otherwise the threads that torch would have had.
    """
    n = len(likelihoods)
    n_pieces = min(n, n_threads() if n_jobs is None else effective_n_jobs(n_jobs))
    pieces = [slice(n * i // n_pieces, n * (i + 1) // n_pieces) for i in range(n_pieces)]
    found = Parallel(n_pieces, prefer="threads" if n_jobs is None else None)(
        delayed(_sample_piece)(
            sampler, likelihoods[i], prior, n_samples, seeds[i], options, n_pieces == 1
        )
        for i in pieces
    )
    return [x for samples, _ in found for x in samples], [x for _, infos in found for x in infos]


def _sample_piece(
    sampler: Sampler,
    likelihoods: Sequence[Any],
    prior: Prior,
    n_samples: int,
    seeds: Sequence[int],
    options: Mapping[str, Any],
    alone: bool,
) -> tuple[list[Array], list[SamplerInfo]]:
    """Sample some observations, whose likelihoods have all of torch's threads only if alone."""
    with nullcontext() if alone else one_thread(), one_blas_thread():
        rngs = [np.random.default_rng(seed) for seed in seeds]
        return sampler.together(likelihoods, prior, n_samples, rngs, **options)


def _sample_one(
    sampler: Sampler,
    likelihood: Any,
    prior: Prior,
    n_samples: int,
    seed: int,
    options: dict[str, Any],
    alone: bool,
) -> tuple[Array, SamplerInfo]:
    """Sample one observation, with all of torch's threads only if it is the only one."""
    with nullcontext() if alone else one_thread(), one_blas_thread():
        rng = np.random.default_rng(seed)
        return sampler.function(likelihood, prior, n_samples, rng, **options)


def _numbered(options: Mapping[str, Any], i: int) -> dict[str, Any]:
    """Give an observation a checkpoint file of its own."""
    path = options.get("checkpoint_file")
    if path is None:
        return dict(options)
    stem, suffix = os.path.splitext(os.fspath(path))
    return {**options, "checkpoint_file": f"{stem}-{i}{suffix}"}


def summarise_warnings(infos: Sequence[SamplerInfo]) -> list[str]:
    """Return what samplers warn of: messages that differ in their figures only are told once."""
    alike: dict[str, list[tuple[int, str]]] = {}
    for i, info in enumerate(infos):
        for message in info.warnings:
            alike.setdefault(re.sub(r"\d+", "", message), []).append((i, message))
    if len(infos) == 1:
        return [message for found in alike.values() for _, message in found]
    return [
        f"{len(found)} of {len(infos)} observations, first row {found[0][0]}: {found[0][1]}"
        for found in alike.values()
    ]
