"""The ordinary differential equation of a vector field, dy/da = F(y, a), and its density.

A point that moves with the field from a = 0, where it is noise of standard deviation s, ends at w
at a = pi / 2. Its density follows from the way back to noise, y(0), which is computed in steps,

    log q(w) = log N(y(0); 0, s^2 I) + sum of log |det| over the steps,

and is therefore normalised for any number of steps. Where parameters are many, the log determinants
are estimated: to second order in its length a step has the divergence of F as its log determinant,
which is the mean of v . (dF/dy) v over random vectors v of independent signs.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

__all__ = ["Field", "log_densities", "random_signs", "to_noise", "transport"]

Field = Callable[[Tensor, Tensor], Tensor]
"""``field(y, angle)`` returns dy/da at points y (..., p), all at one angle."""


def transport(field: Field, noise: Tensor, n_steps: int) -> Tensor:
    """Move noise (..., p) to w by the midpoint rule.

    Examples
    --------
    >>> transport(lambda y, angle: torch.cos(angle) * torch.ones_like(y), torch.zeros(1, 2), 16)
    tensor([[1.0004, 1.0004]])
    """
    y, step = noise, math.pi / 2 / n_steps
    for k in range(n_steps):
        y = _midpoint(field, y, k * step, step)[0]
    return y


def to_noise(field: Field, w: Tensor, n_steps: int) -> Tensor:
    """Move w (..., p) back to noise by the midpoint rule.

    Examples
    --------
    >>> to_noise(lambda y, angle: torch.cos(angle) * torch.ones_like(y), torch.ones(1, 2), 16)
    tensor([[-0.0004, -0.0004]])
    """
    y, step = w, -math.pi / 2 / n_steps
    for k in reversed(range(n_steps)):
        y = _midpoint(field, y, -(k + 1) * step, step)[0]
    return y


def log_densities(
    field: Field, w: Tensor, n_steps: int, signs: Tensor | None = None, noise_scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return log q of w (n, p), by the midpoint rule on the way back, and its standard error.

    Parameters
    ----------
    field : callable
    w : Tensor, shape (n, p)
    n_steps : int
    signs : Tensor, shape (m, p), optional
        Random vectors to estimate the divergence by; by default log determinants are exact.
    noise_scale : float, default=1
        s.

    Returns
    -------
    log_q, error : Tensor, shape (n,)
    """
    y, step, total = w, -math.pi / 2 / n_steps, w.new_zeros(1 if signs is None else len(signs), 1)
    for k in reversed(range(n_steps)):
        y, changes = _step_with_determinant(field, y, -(k + 1) * step, step, signs)
        total = total + changes
    constant = math.log(2 * math.pi) + 2 * math.log(noise_scale)
    log_normal = -0.5 * ((y / noise_scale).square() + constant).sum(dim=-1)
    error = torch.zeros_like(log_normal)
    if signs is not None:
        error = total.std(dim=0) / len(signs) ** 0.5
    return log_normal + total.mean(dim=0), error


def _midpoint(field: Field, y: Tensor, angle: float, step: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return y after a step, and the point in its middle with the field there."""
    middle = y + step / 2 * field(y, y.new_tensor(angle))
    velocity = field(middle, y.new_tensor(angle + step / 2))
    return y + step * velocity, middle, velocity


@torch.enable_grad()
def _step_with_determinant(
    field: Field, y: Tensor, angle: float, step: float, signs: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return y (n, p) after a step, and the log determinant, (1, n), or estimates of it, (m, n)."""
    y = y.detach().requires_grad_()
    after, middle, velocity = _midpoint(field, y, angle, step)
    if signs is None:
        units = torch.eye(y.shape[1], dtype=y.dtype, device=y.device)
        rows = [_pull_back(after, y, unit) for unit in units]
        return after.detach(), torch.linalg.slogdet(torch.stack(rows, dim=1))[1].unsqueeze(0)
    found = [step * (_pull_back(velocity, middle, v) @ v) for v in signs]
    return after.detach(), torch.stack(found)


def _pull_back(output: Tensor, y: Tensor, v: Tensor) -> Tensor:
    """Return v' d output / dy, (n, p)."""
    return torch.autograd.grad(output, y, v.expand_as(output), retain_graph=True)[0]


def random_signs(m: int, p: int, like: Tensor) -> Tensor:
    """Return m random vectors of p signs, the same ones each time."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (m, p))
    return torch.as_tensor(signs, dtype=like.dtype, device=like.device)
