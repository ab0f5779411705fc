"""A claim in each part of a study by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from precode.plot.axes import (
    BLUE,
    GRAY,
    GREEN,
    ORANGE,
    YELLOW,
    axes,
    legend,
    points,
    require,
    require_rows,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

VERDICTS = {
    "holds": (GREEN, "o"),
    "partly": (YELLOW, "s"),
    "does not hold": (ORANGE, "D"),
    "inconclusive": (BLUE, "^"),
}
"""Colour and marker of every verdict."""


def parts(table: pd.DataFrame, null: float = 0.0, whole: float | None = None, *, ax: Axes | None = None) -> Axes:
    """A claim's effect in each part of a study by itself: every width, number of clauses and embedding.

    Points with 95 % intervals over formulas, coloured by the verdict that the part alone would give; dashed: the whole
    study; dotted: the null.

    Args:
        table: ``parts`` of a claim, from `precode.claims.judge_setting`.
        null: the effect where there is nothing to find.
        whole: the effect in the whole study.
        ax: axes to draw on.

    Raises:
        PrecodeValueError: a column is missing, or there are no parts with an effect.

    Example:
        >>> table = pd.DataFrame({"by": "hidden", "part": ["16", "32"], "verdict": ["holds", "partly"],
        ...                       "effect": [0.3, 0.1], "low": [0.2, 0.0], "high": [0.4, 0.2]})
        >>> [label.get_text() for label in parts(table).get_yticklabels()]
        ['hidden 16', 'hidden 32']
    """
    require(table, "by", "part", "verdict", "effect", "low", "high")
    table = table[table["effect"].notna()].reset_index(drop=True)
    require_rows(table, "parts of the study with an effect")
    ax = axes(ax, figsize=(6.4, 1.8 + 0.28 * len(table)))
    for verdict, (color, marker) in VERDICTS.items():
        mine = table[table["verdict"] == verdict]
        if len(mine):
            look = {"fmt": marker, "color": color, "label": verdict, "across": True}
            points(ax, mine.index, mine["effect"], mine["low"], mine["high"], **look)
    ax.axvline(null, color="black", linestyle=":", linewidth=1, label="null")
    if whole is not None:
        ax.axvline(whole, color=GRAY, linestyle="--", linewidth=1, label="whole study")
    for edge in np.flatnonzero(table["by"].ne(table["by"].shift()).to_numpy()[1:]):
        ax.axhline(edge + 0.5, color="0.85", linewidth=0.8)
    ax.set_yticks(table.index, [f"{by} {part}" for by, part in zip(table["by"], table["part"], strict=True)])
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.set_xlabel("effect in this part alone (our definition)")
    legend(ax)
    return ax
