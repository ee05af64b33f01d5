"""Posteriors of discrete parameters k, alone or beside continuous ones c.

    q(k, c | x) = q(k | h) q(c | h, k),    h = s(x),

the first by softmaxes (`Categories`), the second by a flow that reads k. Training begins where h is
Gaussian given k, with a mean that is linear in the codes of k and, where k has few values, with a
covariance matrix of its own for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skbi.estimators.summaries import PosteriorMember
from skbi.flows import ConditionalFlow
from skbi.networks.categories import Categories
from skbi.preprocessing.coordinates import ParameterMap
from skbi.preprocessing.packed import to_tensor
from skbi.priors import Prior, log_masses, possible_values
from skbi.training.ensemble import Ensemble, JointTraining
from skbi.training.start import Discriminant, regress

__all__ = [
    "MixedMember",
    "check_values",
    "joint_log_prob",
    "log_probs_of_values",
    "values_of",
    "width_for_flow",
]

_MAX_VALUES = 1000  # of a discrete parameter
_MAX_PRODUCTS = 128  # of the columns of h and the codes of k, up to which a flow reads them
_LARGEST_UNIFORM = 1 - 1e-7  # below 1 in single precision


class MixedMember(PosteriorMember):
    """q(k | h) q(c | h, k) of discrete and continuous parameters.

    Parameters
    ----------
    summary : Module or None
    flow : ConditionalFlow or None
        Of the continuous parameters; its context is h, the codes of k and, if they are few, all
        products of the two, so that training can start at a regression for each k. None if all
        parameters are discrete.
    categories : Categories
        Of the discrete parameters.
    discrete : sequence of bool, length p
        Which parameters are discrete.
    has_view : bool, default=False
        As of `PosteriorMember`; z is never described in the frame of an emulator.
    """

    discrete: Tensor

    def __init__(
        self,
        summary: nn.Module | None,
        flow: ConditionalFlow | None,
        categories: Categories,
        discrete: Sequence[bool],
        has_view: bool = False,
    ) -> None:
        super().__init__(summary, flow)
        self.categories = categories
        self.register_buffer("discrete", torch.tensor(discrete, dtype=torch.bool))
        self._register_view(has_view)

    @property
    def n_context(self) -> int:
        """Width of h."""
        return self.categories.n_context

    def look(self, groups: Iterable[NDArray[np.int64]], framed: bool) -> None:
        """See some columns only."""
        super().look(groups, framed=False)

    def shrunk(self) -> list[nn.Parameter]:
        """Return what shrinkage pulls to zero besides the weights of the flow."""
        return [*super().shrunk(), *self.categories.shrunk()]

    def condition(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return log q(k | h), c, and what its flow reads, for z (n, p) and one h, or h of each."""
        k, context = z[:, self.discrete], context.expand(len(z), -1)
        log_mass = self.categories.log_prob(k, context)
        return log_mass, z[:, ~self.discrete], self._with_codes(context, k)

    def log_prob(self, z: Tensor, context: Tensor) -> Tensor:
        """Log of mass times density of z (n, p), (n,)."""
        log_mass, c, of_flow = self.condition(z, context)
        return log_mass if self.flow is None else log_mass + self.flow.log_prob(c, of_flow)

    def draw(self, u: Tensor, context: Tensor, rng: np.random.Generator) -> Tensor:
        """Turn standard normal u (n, draws, p) into draws."""
        z, context = torch.empty_like(u), context.repeat_interleave(u.shape[1], dim=0)
        uniform = torch.special.ndtr(u[..., self.discrete]).clamp(max=_LARGEST_UNIFORM)
        k = self.categories.quantiles(uniform.flatten(0, 1), context)
        z[..., self.discrete] = k.unflatten(0, u.shape[:2])
        if self.flow is not None:
            c = self.flow.scale_draws(u[..., ~self.discrete], rng).flatten(0, 1)
            c = self.inverse(c, self._with_codes(context, k))
            z[..., ~self.discrete] = c.unflatten(0, u.shape[:2])
        return z

    def _with_codes(self, context: Tensor, k: Tensor) -> Tensor:
        """Return what the flow reads: h, the codes of k and, if these are few, their products."""
        codes = self.categories.codes(k)
        read = [context, codes]
        if _n_products(self.n_context, codes.shape[1]):
            read.append((context.unsqueeze(2) * codes.unsqueeze(1)).flatten(1))
        return torch.cat(read, dim=1)

    # ---- where training starts

    def learn_values(
        self,
        values: Sequence[NDArray[np.float64]],
        log_masses: Sequence[NDArray[np.float64]],
        seed: int = 0,
    ) -> None:
        """Learn what the values of each discrete parameter are written as, and start at the prior.

        Parameters
        ----------
        values : sequence of ndarray, shape (n_values,)
            Coordinates z of the values.
        log_masses : sequence of ndarray, shape (n_values,)
            Their log probability under the prior.
        seed : int, default=0
            Of the pairs that the member starts at: as many as there are, drawn with replacement.
            Members then differ by as much as the pairs leave open.
        """
        self.seed = seed
        self.categories.set_values([to_tensor(v, self.log_weight) for v in values])
        masses = [to_tensor(np.exp(m), self.log_weight) for m in log_masses]
        self.masses = self.categories.probabilities(masses)
        for j, (mass, head) in enumerate(zip(self.masses, self.categories.heads, strict=True)):
            weight = mass.new_zeros(len(mass), head.linear.in_features)
            self.categories.start_at(j, weight, mass.log())

    def targets(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what a summary should predict of z (n, p): c, and the codes of k."""
        return np.hstack([z[:, ~self._is_discrete], *self._codes(z)])

    def start_at(
        self, context: NDArray[np.float64], z: NDArray[np.float64], seen: NDArray[np.int64]
    ) -> None:
        """Start at Gaussians of what is seen of the context given k, and of c given both."""
        x, k = context[:, seen], to_tensor(z[:, self._is_discrete], self.log_weight)
        codes, (indices, _) = self._codes(z), self.categories.indices(k)
        for j, index in enumerate(indices):
            self._start_softmax(j, x, codes[: j + 1], index.cpu().numpy(), seen)
        if self.flow is None:
            return
        context = np.zeros_like(context)  # what is not seen yet is left out
        context[:, seen] = x
        of_flow = self._with_codes(to_tensor(context, self.log_weight), k)
        of_flow, c = of_flow.cpu().double().numpy(), z[:, ~self._is_discrete]
        slopes = np.zeros((of_flow.shape[1], c.shape[1]))
        used = of_flow.any(axis=0)
        slopes[used], *rest = regress(of_flow[:, used], c)
        self.flow.start_at(slopes, *rest)

    def _start_softmax(
        self,
        j: int,
        x: NDArray[np.float64],
        codes: list[NDArray[np.float64]],
        values: NDArray[np.int64],
        seen: NDArray[np.int64],
    ) -> None:
        """Start softmax j at Bayes' rule for Gaussian x, given its value and the codes before.

        It is fitted to pairs drawn with replacement; the others choose how much the covariance
        matrix of a value is its own.
        """
        like, n_before = self.log_weight, sum(self.categories.widths[:j])
        index = torch.arange(self.categories.sizes[j], device=like.device)
        own_codes = self.categories.code(j, index).cpu().double().numpy()
        rows = np.random.default_rng(self.seed).integers(len(x), size=len(x))
        slopes, intercept, root = regress(np.hstack(codes)[rows], x[rows])
        # what is left of x by the regression on the codes before has a mean for each value
        left_of = np.hstack([np.eye(x.shape[1]), -slopes[:n_before].T])
        left = np.hstack([x, *codes[:-1]]) @ left_of.T
        means = own_codes @ slopes[n_before:] + intercept
        shares = np.bincount(values[rows], minlength=len(means)) + self.masses[j].cpu().numpy()
        rule = Discriminant(means, np.log(shares / shares.sum()), root @ root.T)
        if self.categories.is_quadratic(j):
            rule = rule.with_own_covariances(left, values, rows)
        weight, bias, quadratic = rule.logits()
        n, d = self.n_context + n_before, len(seen)
        read = np.concatenate([seen, np.arange(self.n_context, n)])
        to_left = np.zeros((d, n))
        to_left[:, read] = left_of
        start = [weight @ to_left, bias, to_left.T @ quadratic @ to_left]
        start = [to_tensor(a, like) for a in start]
        self.categories.start_at(j, *(start if self.categories.is_quadratic(j) else start[:2]))

    @property
    def _is_discrete(self) -> NDArray[np.bool_]:
        return self.discrete.cpu().numpy()

    def _codes(self, z: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """Return the codes of each discrete parameter, (n, width) each."""
        codes = self.categories.codes(to_tensor(z[:, self._is_discrete], self.log_weight))
        return [c.cpu().double().numpy() for c in codes.split(self.categories.widths, dim=1)]


def width_for_flow(n_context: int, n_codes: int) -> int:
    """Return how many columns the flow of continuous parameters reads."""
    return n_context + n_codes + _n_products(n_context, n_codes)


def _n_products(n_context: int, n_codes: int) -> int:
    """Return how many products of a context and codes a flow reads: all, if they are few."""
    n_products = n_context * n_codes
    return n_products if n_products <= _MAX_PRODUCTS else 0


def check_values(prior: Prior, theta: NDArray[np.float64]) -> None:
    """Refuse discrete parameters that are none of the values that are learnt; name the first."""
    columns = np.flatnonzero(prior.discrete)
    if not len(columns):
        return
    for j, values in zip(columns, possible_values(prior, _MAX_VALUES), strict=True):
        unknown = ~np.isin(theta[:, j], values)
        if len(values) == 1:
            raise ValueError(
                f"The discrete parameter {prior.names[j]!r} can only be {values[0]:g}: there is "
                "nothing to learn. Leave it out of theta and of the prior."
            )
        if unknown.any():
            row = int(unknown.argmax())
            raise ValueError(
                f"The discrete parameter {prior.names[j]!r} takes whole numbers from "
                f"{values[0]:g} to {values[-1]:g} under the prior, beyond which less than 1e-12 of "
                f"it lies; got {theta[row, j]:g} in row {row}."
            )


def values_of(
    parameters: ParameterMap,
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Return the coordinates z of each discrete parameter's values, and their log masses."""
    prior, columns = parameters.prior, np.flatnonzero(parameters.discrete)
    row = np.asarray(prior.ppf(np.full((1, len(prior.names)), 0.5)), dtype=np.float64)
    coordinates, masses = [], []
    for j, values in zip(columns, possible_values(prior, _MAX_VALUES), strict=True):
        theta = np.repeat(row, len(values), axis=0)
        theta[:, j] = values
        masses.append(log_masses(prior, theta)[:, j])
        coordinates.append((values - parameters.mean[j]) / parameters.scale[j])
    return coordinates, masses


def joint_log_prob(training: JointTraining, z: Tensor, contexts: Tensor) -> Tensor:
    """Log probability of z in every member still trained, (members, n).

    Parameters
    ----------
    training : JointTraining
        Of members that are a `PosteriorMember`.
    z : Tensor, shape (n, p) or (members, n, p)
    contexts : Tensor, shape (members, n, n_context)
    """
    members = [training.members[i] for i in training.weights.trained]
    if not isinstance(members[0], MixedMember):
        return training.log_prob(z, contexts)
    each = zip(members, z.expand(len(contexts), *z.shape[-2:]), contexts, strict=True)
    log_mass, c, of_flow = map(torch.stack, zip(*(m.condition(*a) for m, *a in each), strict=True))
    return log_mass if training.flow is None else log_mass + training.log_prob(c, of_flow)


@torch.no_grad()
def log_probs_of_values(ensemble: Ensemble, contexts: Sequence[Tensor]) -> Tensor:
    """Log probability of every value of the first discrete parameter, (members, n, n_values)."""
    pairs = zip(ensemble.members, contexts, strict=True)
    return torch.stack([member.categories.log_probs(context) for member, context in pairs])
