"""Measured means beside reported numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from precode.plot.axes import (
    BLUE,
    GRAY,
    GREEN,
    LABELS,
    ORANGE,
    PURPLE,
    RED,
    YELLOW,
    axes,
    legend,
    offsets,
    points,
    require,
    require_rows,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = (BLUE, ORANGE, GREEN, PURPLE, YELLOW, RED, GRAY)


def beside(table: pd.DataFrame, at: str, *, series: str | None = None, ax: Axes | None = None) -> Axes:
    """Means with their intervals over a column, and crosses where a number is reported.

    Args:
        table: one row a point: the columns `at` and `series`, mean, low and high; and reported, NaN where nothing is.
        at: column of the horizontal axis; numbers make lines, names make groups side by side.
        series: column that tells series apart.
        ax: axes to draw on.

    Raises:
        PrecodeValueError: a column is missing, or there are no rows.

    Example:
        >>> table = pd.DataFrame({"networks": ["random", "obs"], "mean": [0.7, 0.8], "low": 0.6, "high": 0.9,
        ...                       "reported": [0.736, 0.767]})
        >>> [label.get_text() for label in beside(table, "networks").get_xticklabels()]
        ['random', 'obs']
    """
    require(table, at, "mean", "low", "high", *([series] if series else []))
    require_rows(table, "means")
    ax = axes(ax)
    named = not pd.api.types.is_numeric_dtype(table[at])
    groups = [("", table)] if series is None else list(table.groupby(series, sort=False, observed=True))
    places: list[Any] = list(dict.fromkeys(table[at]))
    shifts = offsets(len(groups), min(0.3, 0.08 * len(groups))) if named else np.zeros(len(groups))
    for number, ((name, part), shift) in enumerate(zip(groups, shifts, strict=True)):
        where = np.array([places.index(value) for value in part[at]]) + shift if named else part[at].to_numpy()
        look = {"fmt": "o" if named else "o-", "color": COLORS[number % len(COLORS)]}
        points(ax, where, part["mean"], part["low"], part["high"], **look, label=str(name) or "measured")
        if "reported" in part and part["reported"].notna().any():
            ax.plot(where, part["reported"], "x", color="black", markersize=8, zorder=5)
    if "reported" in table and table["reported"].notna().any():
        ax.plot([], [], "x", color="black", label="reported, second-hand")
    if named:
        ax.set_xticks(range(len(places)), [str(place) for place in places])
        ax.set_xlim(-0.5, len(places) - 0.5)
        if sum(len(str(place)) for place in places) > 50:
            ax.tick_params(axis="x", labelrotation=25)
    ax.set_xlabel(LABELS.get(at, at.replace("_", " ")))
    if series or "reported" in table:
        legend(ax)
    return ax
