"""Ticks, names, legend and margins fit together on figures of any size."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from figures import assert_readable, texts_of

from skbi.plotting.layout import arrange_triangle


def triangle(limits, figure=None, scale="linear"):
    """Return a figure with a triangle of axes that have these limits."""
    p = len(limits)
    figure = plt.figure(layout="none") if figure is None else figure
    axes = figure.subplots(p, p, squeeze=False)
    for i, j in np.ndindex(p, p):
        axes[i, j].set(xscale=scale, xlim=limits[j], yscale=scale, ylim=limits[i])
        if j >= i:
            axes[i, j].yaxis.set_visible(False)
        if j > i:
            axes[i, j].set_visible(False)
    return figure, axes


@pytest.mark.parametrize(
    ("inches", "unit"), [((3, 3), 1.0), ((5, 5), 1e-9), ((20, 20), 1.0), ((12, 4), 1e9)]
)
def test_all_text_can_be_read_on_a_figure_of_any_size(inches, unit):
    limits = unit * np.sort(np.random.default_rng(0).normal(size=(6, 2)), axis=1)
    figure, axes = triangle(limits, plt.figure(figsize=inches))
    arrange_triangle(figure, axes, [f"parameter {i} [kpc]" for i in range(6)])
    assert_readable(figure)


def test_all_text_can_be_read_on_part_of_a_figure():
    whole = plt.figure(figsize=(9, 5))
    for part in whole.subfigures(1, 2):
        figure, axes = triangle([(-1e5, 1e5), (0, 1), (0, 1e-5)], part)
        arrange_triangle(figure, axes, ["a", "b", "c"])
    whole.canvas.draw()
    for part in whole.subfigs:
        for text in texts_of(part):
            box = text.get_window_extent()
            assert part.bbox.x0 <= box.x0 <= box.x1 <= part.bbox.x1
            assert part.bbox.y0 <= box.y0 <= box.y1 <= part.bbox.y1


@pytest.mark.parametrize(
    ("limits", "factor", "offset"),
    [((-4e-7, 4e-7), 1e-7, 0), ((123_453, 123_459), 1, 123_450), ((-4, 4), 1, 0), ((0, 9e3), 1, 0)],
)
def test_what_tick_labels_leave_out_stands_beside_the_name(limits, factor, offset):
    figure, axes = triangle([limits])
    arrange_triangle(figure, axes, ["mass [kg]"])
    (ax,) = axes[0]
    left_out = r" \(.*\)" if (factor, offset) != (1, 0) else ""
    assert re.fullmatch(r"mass \[kg\]" + left_out, ax.get_xlabel())
    labels = [label.get_text().replace("\u2212", "-") for label in ax.get_xticklabels()]
    shown = [float(re.search(r"-?[\d.]+", label)[0]) for label in labels]
    np.testing.assert_allclose(np.multiply(shown, factor) + offset, ax.get_xticks(), rtol=1e-9)


@pytest.mark.parametrize(("low", "high"), [(0.3, 50), (1e-6, 1.2), (2e-12, 3e12), (1.5, 800)])
def test_ticks_on_a_logarithmic_axis_are_powers_of_ten(low, high):
    figure, axes = triangle([(low, high), (low, high)], scale="log")
    arrange_triangle(figure, axes, ["a", "b"])
    for ax in axes[-1]:
        exponents = np.log10(ax.get_xticks())
        np.testing.assert_allclose(exponents, exponents.round(), atol=1e-9)
        labels = [label.get_text() for label in ax.get_xticklabels()]
        assert labels == [rf"$\mathdefault{{10^{{{e:.0f}}}}}$" for e in exponents]
        assert len(labels) >= 2
    assert_readable(figure)


def test_all_panels_of_a_column_or_row_have_the_same_ticks():
    figure, axes = triangle([(0, 1), (-3, 9), (10, 30)])
    arrange_triangle(figure, axes, ["a", "b", "c"])
    for i, j in zip(*np.tril_indices(3), strict=True):
        np.testing.assert_array_equal(axes[i, j].get_xticks(), axes[-1, j].get_xticks())
        if j < i:
            np.testing.assert_array_equal(axes[i, j].get_yticks(), axes[i, 0].get_yticks())
    inner = [axes[0, 0].xaxis, axes[1, 0].xaxis, axes[1, 1].xaxis, axes[2, 1].yaxis]
    assert not any(label.get_text() for axis in inner for label in axis.get_ticklabels())


@pytest.mark.parametrize(
    ("name", "n_lines"),
    [("a", 1), ("word " * 12, 4), ("snake_" * 12, 4), ("$" + "x + " * 20 + "y$", 1), ("m" * 50, 1)],
)
def test_long_names_are_broken_or_shrunk(name, n_lines):
    figure, axes = triangle([(0, 1), (0, 1)], plt.figure(figsize=(4, 4)))
    arrange_triangle(figure, axes, [name, name])
    label = axes[-1, 1].get_xlabel()
    assert label.count("\n") + 1 >= n_lines
    assert re.sub(r"\s", "", label) == re.sub(r"\s", "", name)
    assert_readable(figure)


def test_a_legend_moves_above_the_panels_only_where_it_would_cover_one():
    tops = []
    for label in ("short", "a label that is longer than the panel beside it"):
        figure, axes = triangle([(0, 1), (0, 1)])
        (line,) = axes[1, 1].plot([0, 1], [0, 1])
        legend = figure.legend([line], [label], loc="upper right")
        arrange_triangle(figure, axes, ["a", "b"], legend)
        assert_readable(figure)
        assert not any(legend.get_window_extent().overlaps(axes[i, 0].bbox) for i in range(2))
        tops.append(axes[0, 0].get_position().y1)
    assert tops[0] > tops[1] + 0.03
