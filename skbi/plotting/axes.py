"""What the displays share: matplotlib itself, axes, colours, and the names of what is drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skbi.calibration.runs import parameter_names

__all__ = [
    "BAND_STYLE",
    "as_axes",
    "coloured_columns",
    "colours",
    "curve_names",
    "import_pyplot",
]

BAND_STYLE = {"color": "0.88", "linewidth": 0}  # of the region that chance allows

_MAX_COLUMNS = 4  # of axes, in a new figure
_COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"]
_JOINT_CURVES = {"hpd": "highest density", "tarp": "TARP"}


def import_pyplot() -> Any:
    """Import matplotlib, which is an optional dependency."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('Pictures need matplotlib: pip install "skbi[plot]"') from error
    return plt


def as_axes(ax: Any, n: int) -> NDArray[Any]:
    """Return n axes in an array: those given, or those of a new figure if ``ax`` is None.

    A new figure has up to four in a row.
    """
    if ax is None:
        n_rows = math.ceil(n / _MAX_COLUMNS)
        n_columns = math.ceil(n / n_rows)
        size = {"figsize": (4.2 * n_columns, 4 * n_rows), "layout": "constrained"}
        figure, ax = import_pyplot().subplots(n_rows, n_columns, squeeze=False, **size)
        for unused in ax.ravel()[n:]:
            figure.delaxes(unused)
        ax = ax.ravel()[:n]
    ax = np.atleast_1d(ax).ravel()
    if len(ax) != n:
        raise ValueError(f"ax must hold {n} axes; got {len(ax)}.")
    return ax


def colours(n: int) -> list[str]:
    """Return n colours, which repeat after seven."""
    return [_COLOURS[i % len(_COLOURS)] for i in range(n)]


def coloured_columns(
    names: Sequence[str], table: NDArray[Any]
) -> Iterator[tuple[str, str, NDArray[Any]]]:
    """Return the colour, the name and the values of each column of a table (m, k)."""
    return zip(colours(len(names)), names, table.T, strict=True)


def curve_names(
    kind: str, k: int, names: Sequence[str] | None, estimator: Any = None
) -> Sequence[str]:
    """Name k coverage curves: one for each parameter, or the single one of a joint kind."""
    if kind in _JOINT_CURVES:
        return [_JOINT_CURVES[kind]]
    return parameter_names(k, names, estimator)
