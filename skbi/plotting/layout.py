"""The layout of a triangle of axes: ticks, names, legend and margins, fitted to each other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["arrange_triangle"]

_TICK_INTERVALS = (3, 4, 5, 2, 1)  # numbers of intervals between ticks, the best first
_GAP_POINTS = 5.0  # between tick labels, and between all labels and the edge of the figure
_N_PASSES = 3  # the labels depend on the size of the panels, and that depends on the labels


def arrange_triangle(
    figure: Any, axes: NDArray[Any], names: Sequence[str], legend: Any = None
) -> None:
    """Label a lower triangle of axes so that no text collides and none is cut off.

    The panels get as much of the figure as their labels leave. Call it when everything is drawn and
    the axes have their limits and scales: the ticks are chosen for these.

    Parameters
    ----------
    figure : Figure or SubFigure
        Without a layout engine of its own.
    axes : ndarray of Axes, shape (p, p)
        All axes of the figure. Column j, and row j to the left of the diagonal, show quantity j.
        The axes above the diagonal are empty.
    names : sequence of p str
        Names of the quantities. A long name is broken into lines.
    legend : Legend, optional
        In the upper right corner of the figure. It is moved above the panels where it would cover
        one.
    """
    for ax in axes.ravel():
        ax.tick_params(labelsize="small", labelrotation=0)
    figure.align_labels()
    legend_on_top = len(axes) == 1  # in a larger triangle, there may be room on the right
    if legend is not None:
        _fit_legend(legend, figure)
    for _ in range(_N_PASSES):
        for j, name in enumerate(names):
            _label_axis(axes[-1, j].xaxis, [ax.xaxis for ax in axes[j:-1, j]], name)
            if j > 0:
                _label_axis(axes[j, 0].yaxis, [ax.yaxis for ax in axes[j, 1:j]], name)
        legend_on_top |= legend is not None and _covers_a_panel(legend, axes)
        _fit_margins(figure, axes, legend if legend_on_top else None)


def _label_axis(axis: Any, inner_axes: Sequence[Any], name: str) -> None:
    """Put ticks, their labels and a name on an outer axis, and the same ticks on inner ones."""
    import matplotlib as mpl
    from matplotlib.ticker import FixedLocator, NullFormatter

    ticks, offset_text = _label_ticks(axis)
    for inner in inner_axes:
        inner.set_major_locator(FixedLocator(ticks))
        inner.set_major_formatter(NullFormatter())
    for each in (axis, *inner_axes):
        each.set_minor_formatter(NullFormatter())
    words = _words(name)
    if offset_text:
        words = [*words[:-1], words[-1] + " ", f"({offset_text})"]
    low, high = _interval(axis, axis.axes.bbox)
    _fit_text(axis.label, words, high - low, mpl.rcParams["axes.labelsize"])


def _label_ticks(axis: Any) -> tuple[NDArray[np.float64], str]:
    """Put ticks whose labels fit on an axis; return them and what the labels leave out."""
    for min_ticks, n_intervals in product((2, 1), _TICK_INTERVALS):
        ticks, labels, offset_text = _ticks_inside(axis, n_intervals)
        axis.set_ticks(ticks, labels=labels)
        if len(ticks) >= min_ticks and not _labels_collide(axis):
            return ticks, offset_text
    ticks, labels, offset_text = _ticks_inside(axis, 10)
    middle = slice(len(ticks) // 2, len(ticks) // 2 + 1)  # empty if there are none
    axis.set_ticks(ticks[middle], labels=labels[middle])
    return ticks[middle], offset_text


def _ticks_inside(axis: Any, n_intervals: int) -> tuple[NDArray[np.float64], list[str], str]:
    """Ticks whose labels lie within the panel, their labels, and what the labels leave out."""
    ticks, labels, offset_text = _round_numbers(axis, n_intervals)
    axis.set_ticks(ticks, labels=labels)
    low, high = _interval(axis, axis.axes.bbox)
    inside = np.array([low <= a and b <= high for a, b in _label_intervals(axis)], dtype=bool)
    return ticks[inside], list(np.array(labels)[inside]), offset_text


def _round_numbers(axis: Any, n_intervals: int) -> tuple[NDArray[np.float64], list[str], str]:
    """Round numbers on an axis, their labels, and the factor or offset that these leave out."""
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    limits = np.sort(axis.get_view_interval())
    if axis.get_scale() == "log":
        exponents = MaxNLocator(n_intervals, integer=True).tick_values(*np.log10(limits))
        ticks, offset_text = 10.0**exponents, ""
        labels = [rf"$\mathdefault{{10^{{{exponent:.0f}}}}}$" for exponent in exponents]
    else:
        ticks = MaxNLocator(n_intervals).tick_values(*limits)
        formatter = ScalarFormatter(useMathText=True)
        formatter.set_powerlimits((-3, 4))
        formatter.set_axis(axis)
        labels, offset_text = formatter.format_ticks(ticks), formatter.get_offset()
    visible = (limits[0] <= ticks) & (ticks <= limits[1])
    return ticks[visible], list(np.array(labels)[visible]), offset_text


def _labels_collide(axis: Any) -> bool:
    """Whether tick labels of an axis overlap or nearly touch."""
    intervals, gap = _label_intervals(axis), _gap_pixels(axis.axes.figure)
    return any(b + gap > c for (_, b), (c, _) in pairwise(intervals))


def _label_intervals(axis: Any) -> list[tuple[float, float]]:
    """Extents of the tick labels along their axis, in pixels."""
    return [_interval(axis, label.get_window_extent()) for label in axis.get_ticklabels()]


def _interval(axis: Any, box: Any) -> tuple[float, float]:
    """Extent of a box along an axis, in pixels."""
    return (box.x0, box.x1) if axis.axis_name == "x" else (box.y0, box.y1)


def _gap_pixels(figure: Any) -> float:
    return _GAP_POINTS * figure.dpi / 72


def _words(name: str) -> list[str]:
    """Split a name where a line may end: after a space, _ or - outside of $mathematics$."""
    words = re.findall(r"(?:\$[^$]*\$|[^\s_$-])*[\s_-]?", name)
    return words if "".join(words) == name else [name]


def _fit_text(text: Any, words: Sequence[str], max_length: float, size: Any) -> None:
    """Break words into lines of at most ``max_length`` pixels; shrink a text that stays longer."""

    def length() -> float:
        box = text.get_window_extent()
        return box.height if text.get_rotation() == 90 else box.width

    text.set_fontsize(size)
    lines = [""]
    for word in words:
        text.set_text((lines[-1] + word).strip())
        if lines[-1] and length() > max_length:
            lines.append("")
        lines[-1] += word
    text.set_text("\n".join(line.strip() for line in lines))
    if length() > max_length:
        text.set_fontsize(text.get_fontsize() * max_length / length())


def _fit_legend(legend: Any, figure: Any) -> None:
    """Make a legend no wider than its figure."""
    import matplotlib as mpl

    widest = max(text.get_window_extent().width for text in legend.get_texts())
    handle = legend.get_window_extent().width - widest
    room = figure.bbox.width - handle - 2 * _gap_pixels(figure)
    for text in legend.get_texts():
        _fit_text(text, _words(text.get_text()), room, mpl.rcParams["legend.fontsize"])


def _covers_a_panel(legend: Any, axes: NDArray[Any]) -> bool:
    box = legend.get_window_extent()
    return any(box.overlaps(ax.bbox) for ax in axes[np.tril_indices(len(axes))])


def _fit_margins(figure: Any, axes: NDArray[Any], legend_on_top: Any) -> None:
    """Leave as much room around the panels as labels, and a legend above them, need."""
    from matplotlib.transforms import Bbox

    triangle = axes[np.tril_indices(len(axes))]
    panels = Bbox.union([ax.bbox for ax in triangle])
    labelled = Bbox.union([ax.get_tightbbox() for ax in triangle])
    (width, height), gap = figure.bbox.size, _gap_pixels(figure)
    top = labelled.y1 - panels.y1 + gap
    if legend_on_top is not None:
        top += legend_on_top.get_window_extent().height + gap
    left = min(0.6, (panels.x0 - labelled.x0 + gap) / width)  # panels never vanish
    bottom = min(0.6, (panels.y0 - labelled.y0 + gap) / height)
    right = min(0.9 - left, (labelled.x1 - panels.x1 + gap) / width)
    figure.subplots_adjust(left, bottom, 1 - right, 1 - min(0.9 - bottom, top / height))
