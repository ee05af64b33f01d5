"""Summaries of series: moments of every channel along time, and gated convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from skbi.networks.convolutions import ConvolutionalSummary
from skbi.networks.layers import hard_clip

__all__ = ["GAP_LAGS", "SeriesSummary"]

GAP_LAGS = (1, 2, 4, 8)  # of pairs that are sorted by the gap between their times
_MIN_VARIANCE = 1e-8  # added to the variance of each series
_LAGS = (1, 2, 4, 8, 16, 32)
_N_COSINES = 8
_PRIOR_COUNT = 0.1  # pairs of uncorrelated points that a mean over pairs counts beforehand


class SeriesSummary(ConvolutionalSummary):
    """A summary of series of any length, whose order counts.

    Every channel of a series is standardised by its own mean and standard deviation. The moments
    are those of a `DeepSet`, the first and the last value, means of the channel times cosines along
    the series, which tell its course, and the logarithms of the mean squares of differences and of
    sums of values that lie 1, 2, 4 ... 32 steps apart, which tell its autocorrelation. Where one
    channel is a clock, the same mean squares of the others, of values that lie 1, 2, 4 or 8 steps
    apart, are taken by the gap between their times.

    Parameters
    ----------
    n_features : int
        Channels of a series.
    n_out : int
        Width of the summary.
    clock : int, optional
        The channel that tells the time.
    bounds : sequence of float, default=()
        Bounds of the bins that gaps between times are sorted into.
    channels : sequence of int, default=(8, 16, 32)
        Width of the gated convolutions. Each reads five neighbours, at every second place of the
        one before.

    Examples
    --------
    >>> points, sizes = torch.zeros(70, 2), torch.tensor([30, 40])
    >>> SeriesSummary(n_features=2, n_out=8)(points, sizes)[0].shape
    torch.Size([2, 8])
    """

    bounds: Tensor

    def __init__(
        self,
        n_features: int,
        n_out: int,
        *,
        clock: int | None = None,
        bounds: Sequence[float] = (),
        channels: Sequence[int] = (8, 16, 32),
    ) -> None:
        n_moments = n_features * (7 + _N_COSINES + 2 * len(_LAGS)) + 1
        if clock is not None:
            n_moments += 2 * (n_features - 1) * (len(bounds) + 1)
        options = {"n_axes": 1, "channels": channels, "width": 5}
        super().__init__(n_features, 1, n_moments, n_out, **options)
        self.clock = clock
        self.register_buffer("bounds", torch.tensor(bounds, dtype=torch.float32))

    def arrange(self, points: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return standardised series with their relative time, their moments, and what counts."""
        x, present = _pad(points, sizes)
        low, high = _extremes(x, present)
        n = sizes[:, None].to(points)
        times = None if self.clock is None else x[:, self.clock]
        mean = x.sum(dim=2) / n
        x = x - mean[:, :, None]
        x = x if present is None else x * present
        sd = (x.square().sum(dim=2) / n + _MIN_VARIANCE).sqrt()
        u = x / sd[:, :, None]
        time = _relative_time(sizes, u) if present is None else _relative_time(sizes, u) * present
        last = u.gather(2, (sizes[:, None, None] - 1).expand(-1, u.shape[1], 1))
        moments = [hard_clip(mean), mean.asinh(), sd.log(), low.asinh(), high.asinh()]
        moments += [u[:, :, 0], last[:, :, 0], _course(u, time, n), _correlation(u, sizes, present)]
        if times is not None:
            others = [j for j in range(u.shape[1]) if j != self.clock]
            moments.append(_correlation_by_gap(u[:, others], times, self.bounds, present))
        moments.append(n.log())
        return torch.cat([u, time.expand(len(u), -1, -1)], dim=1), torch.cat(moments, 1), present


def _pad(points: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return series (n, c, T), with zeros at their end, and which places count, (n, 1, T)."""
    n, longest = len(sizes), int(sizes.max())
    if len(points) == n * longest:
        return points.unflatten(0, (n, longest)).mT.contiguous(), None
    present = torch.arange(longest, device=sizes.device) < sizes[:, None]
    x = points.new_zeros(n, longest, points.shape[1])
    x[present] = points
    return x.mT.contiguous(), present[:, None].to(points)


def _extremes(x: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest value of every channel, (n, c) each."""
    if present is None:
        return x.amin(dim=2), x.amax(dim=2)
    absent = torch.where(present > 0, 0.0, torch.inf)
    return (x + absent).amin(dim=2), (x - absent).amax(dim=2)


def _relative_time(sizes: Tensor, u: Tensor) -> Tensor:
    """Return where in a series its times are, in (-1, 1), (n, 1, T), or (1, 1, T) for all."""
    if len(sizes) * u.shape[2] == int(sizes.sum()):
        sizes = sizes[:1]
    step = torch.arange(u.shape[2], device=u.device).to(u)
    return ((2 * step + 1) / sizes[:, None].to(u) - 1)[:, None]


def _course(u: Tensor, time: Tensor, n: Tensor) -> Tensor:
    """Return means of u (n, c, T) times cosines of one to eight half periods, (n, 8 c)."""
    periods = torch.arange(1, 1 + _N_COSINES, device=u.device).to(u)
    cosines = torch.cos(math.pi / 2 * periods[:, None] * (1 + time))  # (n or 1, 8, T)
    cosines = cosines[0].mT if len(cosines) == 1 else cosines.mT
    return (u @ cosines / n[:, :, None]).flatten(1)


def _correlation(u: Tensor, sizes: Tensor, present: Tensor | None) -> Tensor:
    """Return log mean squares of differences and sums of values some lags apart, (n, 12 c)."""
    longest = u.shape[2]
    found = []
    for lag in _LAGS:
        step = u[:, :, lag:] - u[:, :, : max(0, longest - lag)]
        step = step if present is None else step * present[:, :, lag:]
        found.append(torch.linalg.vecdot(step, step))
    differences = torch.stack(found, dim=2)
    squares = pad(u.square().cumsum(dim=2), (1, 0))  # up to each time
    lags = torch.tensor(_LAGS, device=u.device)
    n_pairs = (sizes[:, None] - lags).clamp(min=0)[:, None]
    early = squares.gather(2, n_pairs.expand_as(differences))
    late = squares[:, :, -1:] - squares.index_select(2, lags.clamp(max=longest))
    sums = (2 * (early + late) - differences).clamp(min=0)
    totals = torch.cat([differences, sums], dim=2) + 2 * _PRIOR_COUNT
    return (totals / (n_pairs.repeat(1, 1, 2) + _PRIOR_COUNT)).log().flatten(1)


def _correlation_by_gap(u: Tensor, times: Tensor, bounds: Tensor, present: Tensor | None) -> Tensor:
    """Return log mean squares of differences and sums by the gap between times, (n, 2 c bins)."""
    n, c, longest = u.shape
    totals = u.new_zeros(2, n, c, len(bounds) + 1)
    counts = u.new_zeros(n, 1, len(bounds) + 1)
    for lag in GAP_LAGS:
        if lag >= longest:
            break
        bins = torch.bucketize(times[:, lag:] - times[:, :-lag], bounds)[:, None]
        counted = torch.ones_like(bins) if present is None else present[:, :, lag:]
        counts = counts.scatter_add(2, bins, counted.to(u))
        late, early = u[:, :, lag:], u[:, :, :-lag]
        squares = torch.stack([late - early, late + early]).square() * counted
        totals = totals.scatter_add(3, bins.expand_as(squares), squares)
    return ((totals + 2 * _PRIOR_COUNT) / (counts + _PRIOR_COUNT)).log().movedim(0, 1).flatten(1)
