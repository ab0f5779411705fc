"""Tickets: accuracy and recovery against density, rows of recovered codes, and contests of methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from precode._internal.errors import PrecodeShapeError, PrecodeTypeError, PrecodeValueError
from precode._internal.statistics import CELL
from precode.plot.axes import (
    BLUE,
    GRAY,
    LABELS,
    ORANGE,
    axes,
    legend,
    line,
    over_formulas,
    points,
    require,
    require_rows,
)
from precode.tickets.registry import ALL_PROBES, ALL_RIVALS
from precode.tickets.stacked import Retrained, Tickets

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

NULL = "random"
"""The method that knows nothing."""

ALPHA = 0.05
"""P-values below it are starred in the matrix of win rates."""


def tickets(table: pd.DataFrame | Retrained | Tickets, value: str | None = None, *, ax: Axes | None = None) -> Axes:
    """A column against the density, one line a method, sparser to the right.

    Lines are means over formulas, bands their 95 % interval; cells of a study that share a
    formula's number count as one formula. A control, such as
    ``snip:shuffle-row``, is dotted in the colour of its method; random tickets, the null of all, are gray. With
    accuracy, the dashed line is that of the dense networks. Methods have the same colours in every figure of a table.

    Args:
        table: `Retrained`, or its table, of one cell or several; or `Tickets`, of which numbers of weights and cost are
            known.
        value: which column: accuracy (the default), recovery_family, ...; of `Tickets` that are not retrained,
            dense_epochs by default.
        ax: axes to draw on.

    Raises:
        PrecodeValueError: there is no such column.
        PrecodeTypeError: neither a table nor tickets.

    Example:
        >>> table = pd.DataFrame({"method": "imp", "density": [0.5, 0.25], "formula": 0, "accuracy": [0.99, 0.98]})
        >>> tickets(table).get_xlabel()
        'density: fraction of weights kept'
    """
    table, usual = _ticket_table(table)
    value = value or usual
    require(table, "method", "density", value)
    if "formula" in table:
        for keys in (["method", "density", *(name for name in CELL if name in table), "formula"], ["formula"]):
            by = list(dict.fromkeys(["method", "density", *keys]))
            table = table.groupby(by, sort=False, observed=True).mean(numeric_only=True).reset_index()
    groups = {str(name): group for name, group in table.groupby("method", sort=False)}
    plain = [name for name in groups if (name.partition(":")[0] not in groups or ":" not in name) and name != NULL]
    ax = axes(ax, figsize=(8.0 if len(groups) > 5 else 6.4, 4.2))
    for name, group in groups.items():
        if name == NULL:
            line(ax, group.groupby("density")[value], GRAY, label=f"null: {name}", linestyle=":", marker="x")
            continue
        number = plain.index(name if name in plain else name.partition(":")[0])
        marker, dashes = [("o", "-"), ("s", "--"), ("D", "-."), ("^", (0, (6, 1)))][number // 10 % 4]
        style = {"linestyle": ":" if ":" in name else dashes, "marker": marker, "markersize": 3.5}
        line(ax, group.groupby("density")[value], f"C{number % 10}", label=name, **style)
    if value == "accuracy" and "dense_accuracy" in table:
        dense = table["dense_accuracy"].mean()
        ax.axhline(dense, color="black", linestyle="--", linewidth=1, label="dense networks")
    densities = sorted(table["density"].unique())
    ax.set_xscale("log")
    ax.set_xticks(densities, [f"{density:.3g}" for density in densities])
    ax.tick_params("x", rotation=45 if len(densities) > 5 else 0)
    ax.minorticks_off()
    ax.invert_xaxis()
    ax.set_xlabel("density: fraction of weights kept")
    ax.set_ylabel(LABELS.get(value, value.replace("_", " ")))
    legend(ax)
    return ax


def _ticket_table(table: Any) -> tuple[pd.DataFrame, str]:
    """The table of tickets in any form, and the column that is drawn by default."""
    if isinstance(table, Retrained):
        return table.table(), "accuracy"
    if isinstance(table, Tickets):
        return table.table(), "dense_epochs"
    if not isinstance(table, pd.DataFrame):
        raise PrecodeTypeError(f"tickets must be a table, Retrained or Tickets, not {type(table).__name__}")
    return table, "accuracy"


def recovery(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """How much of the dense networks' codes matching tickets recover: on any row, and on the same row.

    One line a method. Filled: measured; open: what chance gives, with the codes of another clause for "any row", on
    random rows of the same polarity for "same row". Means over formulas and densities, bars their 95 % interval.

    Args:
        table: from `precode.claims.re_expression`, or ``tickets`` of claim C5.
        ax: axes to draw on.

    Raises:
        PrecodeValueError: a column is missing, or there are no rows.

    Example:
        >>> table = pd.DataFrame({"method": "imp", "formula": [0, 1], "location": 0.1, "family": [0.4, 0.5],
        ...                       "location_permuted": 0.05, "family_permuted": 0.2})
        >>> [label.get_text() for label in recovery(table).get_yticklabels()]
        ['imp']
    """
    require(table, "method", "formula", "location", "family", "location_permuted", "family_permuted")
    require_rows(table, "matching tickets")
    methods = table.groupby("method")["family"].mean().sort_values().index
    ax = axes(ax, figsize=(6.4, 1.6 + 0.26 * len(methods)))
    drawn = {
        "family": ("on any row (family)", BLUE, BLUE, "o", 0.14),
        "family_permuted": ("null: another clause's codes", BLUE, "white", "o", 0.14),
        "location": ("on the same row (location)", ORANGE, ORANGE, "s", -0.14),
        "location_permuted": ("null: random rows", ORANGE, "white", "s", -0.14),
    }
    for column, (label, color, face, marker, offset) in drawn.items():
        means = over_formulas(table, ["method"], column).set_index("method").loc[methods]
        style = {"fmt": marker, "color": color, "markerfacecolor": face, "markersize": 5.5, "label": label}
        points(ax, np.arange(len(methods)) + offset, means["mean"], means["low"], means["high"], across=True, **style)
    ax.set_yticks(range(len(methods)), list(methods))
    ax.set_ylim(-0.6, len(methods) - 0.4)
    ax.set_xlim(left=0)
    ax.grid(axis="y", color="0.92")
    ax.set_axisbelow(True)
    ax.set_xlabel("share of the dense network's codes recovered (our definition)")
    legend(ax, ncols=2)
    return ax


def row_transport(matrix: ArrayLike, null: float | None = None, *, ax: Axes | None = None) -> Axes:
    """From which row of the dense network to which row of the ticket codes went, as a heat map.

    Codes on the diagonal stayed on their row; the title gives their share, beside what chance gives.

    Args:
        matrix: (j, j), of one network: an item of `precode.claims.transport_matrix`.
        null: how many codes would be on the same row if the ticket's were on random rows of the same polarity
            (same_permuted of `precode.claims.transport`, summed over families).
        ax: axes to draw on.

    Raises:
        PrecodeShapeError: not a square matrix.

    Example:
        >>> row_transport(np.eye(4), null=1.0).get_title().splitlines()
        ['4 codes recovered, 100 % of them on the same row', '(null: codes on random rows, 25 %)']
    """
    values = np.asarray(matrix, dtype=float)
    if values.ndim != 2 or values.shape[0] != values.shape[1]:
        raise PrecodeShapeError(f"a transport matrix of shape {values.shape}: expected (j, j), of one network")
    ax = axes(ax, figsize=(5.2, 4.6))
    image = ax.imshow(values, cmap="Blues", vmin=0, vmax=max(values.max(initial=0.0), 1e-12), interpolation="none")
    total, stayed = values.sum(), np.trace(values)
    title = f"{total:.0f} codes recovered"
    if total:
        title += f", {100 * stayed / total:.0f} % of them on the same row"
        if null is not None:
            title += f"\n(null: codes on random rows, {100 * null / total:.0f} %)"
    ax.set_title(title, fontsize="medium")
    ax.set_xlabel("row of the ticket")
    ax.set_ylabel("row of the dense network")
    ax.figure.colorbar(image, ax=ax, label="codes (our definition)", shrink=0.8)
    return ax


def wins(table: pd.DataFrame, measure: str = "accuracy", *, ax: Axes | None = None) -> Axes:
    """How often each probe beats each weight-based method at the same density, in the same cell and formula.

    Blue: the probe wins more often; 0.50, white, is what a coin gives. A star: the mean difference is on the same side,
    and its paired Wilcoxon test over formulas, Holm-corrected, has p < 0.05; the title says where formulas are too few
    for any. All probes and all rivals together, where the table has them, stand first: they are corrected for fewer
    tests, over the probes and rivals alone.

    Args:
        table: details of claim C6.
        measure: accuracy or recovery_family.
        ax: axes to draw on.

    Raises:
        PrecodeValueError: a column is missing, or nothing was measured by that name.

    Example:
        >>> table = pd.DataFrame({"measure": "accuracy", "probe": "motion", "rival": ["imp", "snip"],
        ...                       "win_rate": [0.6, 0.9], "difference": [0.01, 0.05], "p_holm": [0.3, 0.01]})
        >>> [text.get_text() for text in wins(table).texts]
        ['0.60', '0.90*']
    """
    require(table, "measure", "probe", "rival", "win_rate", "difference", "p_holm")
    chosen = table[table["measure"] == measure]
    if chosen.empty:
        there = ", ".join(map(str, table["measure"].unique())) or "nothing"
        raise PrecodeValueError(f"no contests in {measure!r}: there are those in {there}")
    rates, change, p = (
        chosen.pivot_table(index="probe", columns="rival", values=name) for name in ("win_rate", "difference", "p_holm")
    )
    # Together first, then the best.
    order = rates.mean(axis=1).where(rates.index != ALL_PROBES, np.inf).sort_values(ascending=False).index
    columns = rates.mean(axis=0).where(rates.columns != ALL_RIVALS, -np.inf).sort_values().index
    rates = rates.loc[order, columns]
    # A rate may say the opposite of the mean difference: many small wins, few great losses.
    starred = ((p < ALPHA) & ((rates - 0.5) * change > 0)).reindex(index=rates.index, columns=rates.columns)
    ax = axes(ax, figsize=(2.8 + 0.62 * rates.shape[1], 2.2 + 0.42 * rates.shape[0]))
    image = ax.imshow(rates, cmap="RdBu", vmin=0, vmax=1, aspect="auto", interpolation="none")
    for row, column in zip(*np.nonzero(rates.notna().to_numpy()), strict=True):
        rate = rates.iloc[row, column]
        text = f"{rate:.2f}{'*' if starred.iloc[row, column] else ''}"
        color = "white" if abs(rate - 0.5) > 0.32 else "black"
        ax.text(column, row, text, ha="center", va="center", fontsize="x-small", color=color)
    ax.set_xticks(range(rates.shape[1]), list(rates.columns), rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(rates.shape[0]), list(rates.index))
    ax.set_xlabel("weight-based method")
    ax.set_ylabel("probe")
    title = f"wins in: {LABELS.get(measure, measure)}"
    if "could_reject" in chosen:
        single = chosen[(chosen["probe"] != ALL_PROBES) & (chosen["rival"] != ALL_RIVALS)]
        if len(single) and not single["could_reject"].any():
            title += (
                f"\n(no stars for single pairs: no p-value of {single['formulas'].max()} formulas survives "
                f"{len(single)} tests)"
            )
    ax.set_title(title, fontsize="medium")
    ax.figure.colorbar(image, ax=ax, label="win rate (0.5: a coin)")
    return ax


def penalties(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """What penalties on crowding and coverage add to the accuracy of probe tickets, against the density.

    Lines are means over formulas, bands their 95 % interval; on the dashed line they change
    nothing.

    Args:
        table: from `precode.claims.penalty_gains`, or ``penalties`` of claim C4.
        ax: axes to draw on.

    Raises:
        PrecodeValueError: a column is missing, or there are no rows.

    Example:
        >>> table = pd.DataFrame({"method": "distance", "density": [0.5, 0.25], "formula": 0, "accuracy": 0.01})
        >>> penalties(table).get_ylabel()
        'accuracy with penalties, minus without'
    """
    require(table, "method", "density", "formula", "accuracy")
    require_rows(table, "pairs of tickets with and without penalties")
    ax = tickets(table, ax=ax)
    ax.axhline(0, color="black", linestyle="--", linewidth=1, label="no difference")
    ax.set_ylabel("accuracy with penalties, minus without")
    legend(ax)
    return ax
