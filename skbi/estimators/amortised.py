"""What NPE, FMPE and CMPE share: posteriors of any observation, by networks that have read it.

An observation passes through a summary once. What comes out, its context, is all that draws and
densities need.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skbi.estimators.base import BaseSBIEstimator
from skbi.estimators.checks import check_independent, describe_shared_values
from skbi.estimators.pairs import TrainingData
from skbi.estimators.summaries import (
    MAX_POINTS,
    SUMMARIES,
    embed_observations,
    has_gaps,
    join_summaries,
)
from skbi.estimators.typicality import describe_untypical
from skbi.parallel import blocks, each_in_one_thread
from skbi.preprocessing.location import Frame
from skbi.preprocessing.maps import Maps
from skbi.preprocessing.packed import Packed
from skbi.training.ensemble import Ensemble

__all__ = ["AmortisedPosterior", "Fill", "draw_in_parts"]

_MAX_DRAWS = 2**14  # draws that are computed by one thread at a time

Evaluate = Callable[[Ensemble, NDArray[np.float64], list[Tensor], Frame | None], Tensor]
"""Something of z (n, p), given a context (n, c) of each member and the emulator's frame, (n,)."""


class AmortisedPosterior(BaseSBIEstimator):
    """Base of the estimators that learn the posterior of every observation at once."""

    _joblib_prefer = "threads"  # the networks do the work, and free the interpreter

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseSBIEstimator._parameter_constraints,
        "missing": [StrOptions({"error", "mask"})],
        "summary": SUMMARIES,
        "n_summary_features": [Interval(Integral, 1, None, closed="left")],
    }

    @property
    def summary_net_(self) -> nn.Module | None:
        """The trained summary network, of the member with the largest weight."""
        check_is_fitted(self, "members_")
        return Ensemble(self.members_).leader.summary

    @property
    def summary_transformer_(self) -> TransformerMixin | None:
        """The fitted transformer, if ``summary`` is one."""
        check_is_fitted(self, "members_")
        return self._transformer

    def _active(self) -> Ensemble:
        """Return the members that count."""
        return Ensemble(self.members_).active()

    def _read(
        self, packed: Packed, *, check_typicality: bool, stacklevel: int = 3
    ) -> tuple[Ensemble, list[Tensor], Frame | None]:
        """Return the active members, a context (n, c) of each, and the emulator's frame.

        Warn of observations that are unlike the training simulations, if asked to, at the line that
        is so many calls up.
        """
        ensemble = self._active()
        contexts, moments, frame = embed_observations(packed, self._maps, ensemble.members)
        if check_typicality:
            context = contexts[ensemble.members.index(ensemble.leader)]
            summaries = join_summaries(packed, self._maps, context, moments)
            message = describe_untypical(self._typicality.p_values(summaries))
            if message:
                warnings.warn(message, stacklevel=stacklevel)
        return ensemble, contexts, frame

    def _evaluate_density(
        self, theta: ArrayLike, X: Any, log_density: Evaluate
    ) -> NDArray[np.float64]:
        """Return the log densities of pairs, -inf outside the support, from those of z."""
        log_q, log_det = self._evaluate(theta, X, log_density)
        return np.where(np.isfinite(log_det), log_q + log_det, -np.inf)

    def _evaluate(
        self, theta: ArrayLike, X: Any, evaluate: Evaluate
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Evaluate something of theta (n, p) or (n, n_samples, p) and their observations.

        Also return log |det dz/dtheta|.
        """
        table, shape = self._check_thetas(theta)
        packed, _ = self._check_observations(X)
        if len(packed) not in (1, shape[0]):
            raise ValueError(
                f"X must hold one observation or as many as theta has rows, {shape[0]}; got "
                f"{len(packed)}."
            )
        owners = np.repeat(np.arange(len(packed)), len(table) // len(packed))
        ensemble = self._active().double()
        contexts, _, frame = embed_observations(packed, self._maps, ensemble.members)
        z, log_det = self._maps.theta.forward(table)
        values = np.empty(len(table))

        @torch.no_grad()  # which holds for the calling thread only
        def evaluate_block(rows: slice) -> None:
            observations = slice(None) if len(packed) == 1 else owners[rows]
            paired = [context[observations] for context in contexts]
            own = None if frame is None else frame[observations]
            values[rows] = evaluate(ensemble, z[rows], paired, own).cpu().numpy()

        each_in_one_thread(evaluate_block, [(rows,) for rows in blocks(len(table), MAX_POINTS)])
        return values.reshape(shape), log_det.reshape(shape)

    # ---- fitting

    def _fit_maps(self, data: TrainingData, rng: np.random.Generator) -> Maps:
        """Fit the maps; a user's own module reads every column once, as it is."""
        maps = self._fit_plain_maps(data)
        if isinstance(self.summary, nn.Module):
            return maps
        return maps.with_compression(data.theta, data.X, data.training, rng)

    def _fit_plain_maps(self, data: TrainingData) -> Maps:
        """Fit the maps without a compression."""
        tails = {"flat_coordinates": True, "asinh": not isinstance(self.summary, nn.Module)}
        mask = has_gaps(self, data.transformer)
        return Maps.fit(self.prior, data.theta, data.X, mask, **tails)

    def _check_parameters(
        self, theta: NDArray[np.float64], names: NDArray[Any] | None, resumed: bool
    ) -> NDArray[Any]:
        discrete = np.asarray(getattr(self.prior, "discrete", False))
        if discrete.any() and not self._learns_discrete:
            names = [n for n, d in zip(self.prior.names, discrete, strict=True) if d]
            kind = type(self).__name__.removesuffix("Estimator")
            raise ValueError(
                f"The parameters {names} are discrete, and {kind} learns a density over theta. Use "
                "NPEEstimator, NLEEstimator or NREEstimator, which accept discrete parameters."
            )
        names = super()._check_parameters(theta, names, resumed)
        continuous = self._is_continuous(theta.shape[1])
        check_independent(theta[:, continuous], names[continuous])
        return names

    def _is_continuous(self, n_parameters: int) -> NDArray[np.bool_]:
        """Tell which parameters have a density: all of which the prior does not say otherwise."""
        discrete = np.zeros(n_parameters, bool) if self.prior is None else self.prior.discrete
        return ~np.asarray(discrete, dtype=bool)

    def _advise(self, data: TrainingData) -> list[str]:
        continuous = self._is_continuous(data.theta.shape[1])
        return describe_shared_values(data.theta[:, continuous], data.parameter_names[continuous])

    def _summarise(self, member: Any, maps: Maps, X: Packed) -> NDArray[np.float64]:
        if X.sizes is None:
            return super()._summarise(member, maps, X)
        (context,), moments, _ = embed_observations(X, maps, [member])
        return join_summaries(X, maps, context, moments)


Fill = Callable[[slice, tuple[int, int, int], np.random.Generator], NDArray[np.float64]]
"""``fill(rows, shape, rng)`` draws z (n, draws, p) for some of the observations."""


def draw_in_parts(
    fill: Fill, n: int, n_samples: int, maps: Maps, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw theta (n, n_samples, p), a block of draws in each thread.

    Parameters
    ----------
    fill : callable
        See `Fill`.
    n, n_samples : int
        Observations, and draws for each.
    maps : Maps
    rng : Generator
        Seeds the blocks, which do not depend on the number of threads.

    Returns
    -------
    ndarray, shape (n, n_samples, p)
    """
    p = len(maps.theta.mean)
    draws = np.empty((n, n_samples, p))
    parts = [
        (rows, columns)
        for rows in blocks(n, max(1, _MAX_DRAWS // n_samples))
        for columns in blocks(n_samples, _MAX_DRAWS)
    ]

    def fill_part(part: tuple[slice, slice], seed: int) -> None:
        shape = draws[part].shape
        z = fill(part[0], shape, np.random.default_rng(seed))
        draws[part] = maps.theta.inverse(z.reshape(-1, p)).reshape(shape)

    seeds = rng.integers(2**63, size=len(parts)).tolist()
    each_in_one_thread(fill_part, list(zip(parts, seeds, strict=True)))
    return draws
