"""What was recorded while a module was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from precode._internal.errors import PrecodeTypeError
from precode.plot.axes import GRAY, LABELS, axes, legend, require, require_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OVERLAP = "jaccard_"
"""What the columns of masks of each density start with."""


def watched(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Motion of weights, changes of sign and overlap of magnitude masks with those of the end, against the step.

    Dotted lines are the overlap of random masks, d / (2 - d). Where codes were read, their mean size is on a second
    vertical axis.

    Args:
        table: `precode.modules.Log.table`.
        ax: axes to draw on.

    Raises:
        PrecodeValueError: a column is missing, or there are no rows.
        PrecodeTypeError: not a table.

    Example:
        >>> table = pd.DataFrame({"step": [0, 9], "moved": [0, 0.5], "sign_changes": [0, 0.1], "jaccard_0.5": [0.4, 1]})
        >>> watched(table).get_xlabel()
        'optimizer step'
    """
    if not isinstance(table, pd.DataFrame):
        raise PrecodeTypeError(f"table must be a table, not {type(table).__name__}: pass log.table()")
    require(table, "step", "moved", "sign_changes")
    require_rows(table, "moments")
    ax = axes(ax)
    overlaps = [name for name in map(str, table) if name.startswith(OVERLAP)]
    ax.plot(table["step"], table["moved"], color="black", label="distance from the start, relative")
    ax.plot(table["step"], table["sign_changes"], color=GRAY, label="signs changed")
    for number, column in enumerate(overlaps):
        density = float(column.removeprefix(OVERLAP))
        ax.plot(table["step"], table[column], color=f"C{number}", label=f"mask of {density:g} now and at the end")
        ax.axhline(density / (2 - density), color=f"C{number}", linestyle=":", linewidth=1)
    if "code_size" in table:
        codes = ax.twinx()
        codes.plot(table["step"], table["code_size"], color="C5", linestyle="--")
        codes.set_ylabel(LABELS["code_size"])
        codes.set_ylim(bottom=0)
        ax.plot([], [], color="C5", linestyle="--", label=f"{LABELS['code_size']} (right)")
    ax.set_xlabel("optimizer step")
    ax.set_ylabel("relative distance, overlap")
    ax.set_ylim(bottom=0)
    legend(ax, ncols=2)
    return ax
