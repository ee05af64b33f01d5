"""Parameters as a regression reads them, as part of a member of an ensemble."""

from __future__ import annotations

import torch
from torch import Tensor

from skbi.preprocessing.coordinates import SD_OF_UNIFORM, ParameterMap, has_flat_prior

__all__ = ["ReadsParameters"]


class ReadsParameters:
    """Mixin of members that know how z, what networks read of theta, becomes the regressors w.

    A parameter with a flat prior is its own regressor, scaled; of any other, it is z.

    Attributes
    ----------
    flat : Tensor of bool, shape (p,)
        Which parameters have a flat prior, and are proportional to their w.
    mean, scale : Tensor, shape (p,)
        Of the Gaussian coordinates of the training parameters: these are mean + scale z.
    """

    flat: Tensor
    mean: Tensor
    scale: Tensor

    def _register(self, p: int) -> None:
        """Make room for what `read` learns of p parameters."""
        self.register_buffer("flat", torch.zeros(p, dtype=torch.bool))
        self.register_buffer("mean", torch.zeros(p))
        self.register_buffer("scale", torch.ones(p))

    def read(self, parameters: ParameterMap) -> None:
        """Learn how z becomes w."""
        if parameters.prior is not None:
            flat = has_flat_prior(parameters.prior)
            self.flat.copy_(torch.as_tensor(flat, device="cpu"))
        self.mean.copy_(torch.as_tensor(parameters.mean, device="cpu"))
        self.scale.copy_(torch.as_tensor(parameters.scale, device="cpu"))

    def regressors(self, z: Tensor) -> Tensor:
        """Return w, of unit scale, (n, p)."""
        u = torch.special.ndtr(self.mean + self.scale * z)
        return torch.where(self.flat, (u - 0.5) / SD_OF_UNIFORM, z)
