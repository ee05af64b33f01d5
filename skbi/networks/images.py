"""Summaries of images: moments of every channel, its power spectrum, and gated convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from skbi.networks.convolutions import ConvolutionalSummary
from skbi.networks.layers import hard_clip

__all__ = ["ImageSummary"]

_MIN_VARIANCE = 1e-8  # added to the variance of each image
_MIN_POWER = 1e-6  # added to the power in each band, of an image of unit variance
_SHIFTS = (1, 2, 4, 8)
_N_COSINES = 3  # along each axis, the constant one included


class ImageSummary(ConvolutionalSummary):
    """A summary of images of one size.

    Every channel of an image is standardised by its own mean and standard deviation. The moments
    are those of a `DeepSet`, the means of the channel times cosines along both axes, which tell its
    course, the logarithms of the mean power in bands of half an octave of spatial frequency, and
    those of the mean squares of differences of pixels that lie 1, 2, 4 and 8 apart along an axis,
    which tell directions apart.

    Parameters
    ----------
    n_features : int
        Channels of an image.
    n_out : int
        Width of the summary.
    shape : (int, int)
        Height and width of an image.
    channels : sequence of int, default=(8, 16, 32)
        Width of the gated convolutions. Each reads three by three neighbours, at every second place
        of the one before along each axis.

    Examples
    --------
    >>> pixels, sizes = torch.zeros(2 * 12 * 10, 3), torch.tensor([120, 120])
    >>> ImageSummary(n_features=3, n_out=8, shape=(12, 10))(pixels, sizes)[0].shape
    torch.Size([2, 8])
    """

    bands: Tensor
    waves: Tensor
    position: Tensor

    def __init__(
        self,
        n_features: int,
        n_out: int,
        shape: tuple[int, int],
        *,
        channels: Sequence[int] = (8, 16, 32),
    ) -> None:
        bands, waves = _bands(shape), _waves(shape)
        shifts = [[shift for shift in _SHIFTS if shift < length] for length in shape]
        n_each = 5 + len(waves) + bands.shape[1] + sum(map(len, shifts))
        options = {"n_axes": 2, "channels": channels, "width": 3}
        super().__init__(n_features, 2, n_features * n_each, n_out, **options)
        self.shape, self.shifts = shape, shifts
        self.register_buffer("bands", bands, persistent=False)
        self.register_buffer("waves", waves, persistent=False)
        self.register_buffer("position", _position(shape), persistent=False)

    def arrange(self, points: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return standardised images with the places of their pixels, and their moments."""
        x = points.unflatten(0, (len(sizes), -1)).mT.contiguous()
        mean, low, high = x.mean(dim=2), x.amin(dim=2), x.amax(dim=2)
        x = x - mean[:, :, None]
        sd = (x.square().mean(dim=2) + _MIN_VARIANCE).sqrt()
        u = x / sd[:, :, None]
        courses = u @ self.waves.mT / u.shape[2]
        u = u.unflatten(2, self.shape)
        power = torch.fft.rfft2(u, norm="ortho").abs().square().flatten(2) @ self.bands
        moments = [hard_clip(mean), mean.asinh(), sd.log(), low.asinh(), high.asinh()]
        moments += [courses.flatten(1), (power + _MIN_POWER).log().flatten(1)]
        moments += [
            (_shifted_difference(u, axis, shift) + _MIN_POWER).log()
            for axis, shifts in zip((2, 3), self.shifts, strict=True)
            for shift in shifts
        ]
        return (
            torch.cat([u, self.position.expand(len(u), -1, -1, -1)], 1),
            torch.cat(moments, 1),
            None,
        )


def _shifted_difference(u: Tensor, axis: int, shift: int) -> Tensor:
    """Return the mean square difference of pixels so far apart along an axis, (n, c)."""
    n = u.shape[axis] - shift
    return (u.narrow(axis, shift, n) - u.narrow(axis, 0, n)).square().mean(dim=(2, 3))


def _position(shape: tuple[int, int]) -> Tensor:
    """Return where pixels are along both axes, in (-1, 1), (2, H, W)."""
    axes = [(2 * torch.arange(length) + 1) / length - 1 for length in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def _waves(shape: tuple[int, int]) -> Tensor:
    """Return products of cosines along both axes, without the constant one, (k, H W)."""
    down, across = (math.pi / 2 * (1 + place.flatten()) for place in _position(shape))
    waves = [
        torch.cos(k * down) * torch.cos(m * across)
        for k in range(_N_COSINES)
        for m in range(_N_COSINES)
    ]
    return torch.stack(waves[1:])


def _bands(shape: tuple[int, int]) -> Tensor:
    """Return what averages the power of real Fourier modes over bands, (n_modes, n_bands)."""
    height, width = shape
    down, across = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)
    radius = max(shape) * torch.hypot(down, across.expand(height, -1))
    count = torch.full_like(radius, 2.0)  # a mode stands for its complex conjugate as well
    count[:, 0] = 1
    if width % 2 == 0:
        count[:, -1] = 1
    radius, count = radius.flatten(), count.flatten()
    band = torch.where(radius > 0, (2 * radius.clamp(min=0.5).log2() + 1e-4).floor(), -1.0)
    members = band[:, None] == band[band >= 0].unique()
    weights = members * count[:, None]
    return weights / weights.sum(dim=0)
