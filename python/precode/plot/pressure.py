"""C3 and C4 as figures: what crowding and interference do to near locations, beside every null."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from precode.plot.axes import (
    ABOVE,
    BLUE,
    GRAY,
    GREEN,
    NULLS,
    axes,
    legend,
    offsets,
    over_formulas,
    points,
    require,
    require_rows,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def crowding(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Dose-response: how often near locations are rejected, against how crowded their row is (C3).

    One line for every superposition pressure C/j, clauses to a row, with intervals over formulas; its dotted line is
    the null of no effect, the same rejection at every dose.

    Args:
        table: from `precode.claims.dose_response`, or ``doses`` of claim C3.
        ax: axes to draw on.

    Raises:
        PrecodeValueError: a column is missing, or there are no rows.

    Example:
        >>> table = pd.DataFrame({"pressure": 0.5, "dose": [1, 2], "rejected": [0.4, 0.6], "rejected_low": 0.3,
        ...                       "rejected_high": 0.7, "locations": 9})
        >>> len(crowding(table).lines) > 0
        True
    """
    require(table, "pressure", "dose", "rejected", "rejected_low", "rejected_high", "locations")
    require_rows(table, "near locations")
    ax = axes(ax)
    groups = list(table.groupby("pressure"))
    for (pressure, part), color, offset in zip(groups, _shades(len(groups)), offsets(len(groups), 0.1), strict=True):
        look = {"fmt": "o-", "color": color, "label": f"{pressure:g}"}
        points(ax, part["dose"] + offset, part["rejected"], part["rejected_low"], part["rejected_high"], **look)
        ax.axhline(np.average(part["rejected"], weights=part["locations"]), color=color, linestyle=":", linewidth=1)
    ax.plot([], [], ":", color=GRAY, label="null: no effect")
    doses = sorted(table["dose"].unique())
    words = {doses[0]: f"{doses[0]}\nleast", doses[-1]: f"{doses[-1]}\nmost"}
    ax.set_xticks(doses, [words.get(dose, str(dose)) for dose in doses])
    ax.set_xlabel("crowding of the row, in equal groups (graded demand) [ours]")
    ax.set_ylabel("share of near locations rejected")
    legend(ax, title="clauses to a row, C/j", title_fontsize="small")
    return ax


def slopes(table: pd.DataFrame, nulls: Mapping[str, float] | None = None, *, ax: Axes | None = None) -> Axes:
    """Effect of crowding on rejection, with the distance controlled, against superposition pressure C/j (C3).

    Args:
        table: details of claim C3.
        nulls: `Claim.nulls` of C3: the slope under each null, a dotted line.
        ax: axes to draw on.

    Raises:
        PrecodeValueError: a column is missing, or there are no rows.

    Example:
        >>> table = pd.DataFrame({"pressure": [0.25, 0.5], "slope": [0.1, 0.4], "low": 0.0, "high": 0.5})
        >>> [label.get_text() for label in slopes(table, {"permuted_demand": 0.0}).get_xticklabels()]
        ['0.25', '0.5']
    """
    require(table, "pressure", "slope", "low", "high")
    require_rows(table, "strata of C/j")
    ax = axes(ax)
    at = range(len(table))
    points(ax, at, table["slope"], table["low"], table["high"], fmt="o", color=BLUE, label="clauses of the formula")
    _null_lines(ax, nulls)
    ax.axhline(0, color="0.6", linewidth=0.8)
    ax.set_xticks(at, [f"{pressure:g}" for pressure in table["pressure"]])
    ax.set_xlim(-0.5, len(table) - 0.5)
    ax.set_xlabel("clauses to a row, C/j")
    ax.set_ylabel("log-odds of rejection\nfor one SD of crowding [ours]")
    legend(ax, ncols=2, **ABOVE)
    return ax


def gains(table: pd.DataFrame, nulls: Mapping[str, float] | None = None, *, ax: Axes | None = None) -> Axes:
    """What interference adds to proximity in telling future codes, against superposition pressure C/j (C4).

    Filled: gain in cross-validated AUC, means over formulas with 95 % intervals; open: with
    interference permuted inside every formula.

    Args:
        table: from `precode.claims.prediction_gains`, or details of claim C4.
        nulls: `Claim.nulls` of C4, for the gain at false clauses, a dotted line.
        ax: axes to draw on.

    Raises:
        PrecodeValueError: a column is missing, or there are no rows.

    Example:
        >>> table = pd.DataFrame({"hidden": 16, "clauses": 8, "formula": [0, 1], "gain": [0.03, 0.05],
        ...                       "gain_permuted": 0.0})
        >>> [label.get_text() for label in gains(table).get_xticklabels()]
        ['0.5']
    """
    require(table, "hidden", "clauses", "formula", "gain", "gain_permuted")
    require_rows(table, "formulas")
    ax = axes(ax)
    table = table.assign(pressure=table["clauses"] / table["hidden"])
    pressures = sorted(table["pressure"].unique())
    for column, label, color, face, offset in (
        ("gain", "interference of the row", BLUE, BLUE, -0.08),
        ("gain_permuted", "null: interference permuted", GRAY, "white", 0.08),
    ):
        means = over_formulas(table, ["pressure"], column)
        look = {"fmt": "o", "color": color, "markerfacecolor": face, "label": label}
        points(ax, np.arange(len(means)) + offset, means["mean"], means["low"], means["high"], **look)
    _null_lines(ax, {name: value for name, value in (nulls or {}).items() if name != "permuted_interference"})
    ax.axhline(0, color="0.6", linewidth=0.8)
    ax.set_xticks(range(len(pressures)), [f"{pressure:g}" for pressure in pressures])
    ax.set_xlim(-0.5, len(pressures) - 0.5)
    ax.set_xlabel("clauses to a row, C/j")
    ax.set_ylabel("gain in AUC over proximity alone [ours]")
    legend(ax, ncols=2, **ABOVE)
    return ax


def _shades(count: int) -> list[Any]:
    """Colours from light to dark for something ordered."""
    from matplotlib import colormaps

    return [colormaps["viridis_r"](value) for value in np.linspace(0.15, 1.0, count)]


def _null_lines(ax: Axes, nulls: Mapping[str, float] | None) -> None:
    for name, value in (nulls or {}).items():
        if np.isfinite(value):
            label, color, _ = NULLS.get(name, (name.replace("_", " "), GREEN, ""))
            ax.axhline(value, color=color, linestyle=":", linewidth=1.5, label=f"null: {label}")
