"""Draws to plot, and what a figure shows of them."""

import itertools

import numpy as np
from matplotlib.figure import Figure

_RNG = np.random.default_rng(0)
THETA, SAMPLES = _RNG.normal(size=(200, 2)), _RNG.normal(size=(200, 99, 2))


def blank_axes(n):
    """Return n axes of a new figure."""
    return Figure().subplots(1, n, squeeze=False)[0]


def labelled_curves(ax):
    """Return the points of every line that the legend names."""
    return {
        line.get_label(): line.get_xydata()
        for line in ax.get_lines()
        if not line.get_label().startswith("_")
    }


def texts_of(figure):
    """Return all visible text: tick labels, names of axes, legend."""
    shown = [ax for ax in figure.axes if ax.get_visible()]
    axes = [axis for ax in shown for axis in (ax.xaxis, ax.yaxis) if axis.get_visible()]
    texts = [label for axis in axes for label in axis.get_ticklabels(which="both")]
    texts += [text for axis in axes for text in (axis.label, axis.get_offset_text())]
    texts += [text for legend in figure.legends for text in legend.get_texts()]
    return [text for text in texts if text.get_visible() and text.get_text()]


def assert_readable(figure):
    """All text lies inside the figure and apart from other text, also after it is drawn."""
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in texts_of(figure)]
    boxes += [legend.get_window_extent() for legend in figure.legends]
    for box in boxes:
        assert min(box.x0, box.y0) >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
    boxes = {text: text.get_window_extent() for text in texts_of(figure)}
    for (a, box), (b, other) in itertools.combinations(boxes.items(), 2):
        assert not box.overlaps(other), (a.get_text(), b.get_text())
