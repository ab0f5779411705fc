"""C1 and C2 as figures: where codes were at initialization, and what became of near locations, beside every null."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from precode._internal.errors import PrecodeValueError
from precode._internal.statistics import CELL, interval
from precode.codes.interference import NEAR
from precode.plot.axes import (
    BLUE,
    GRAY,
    NULLS,
    ORANGE,
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

METRICS = {
    "hamming": "wrong signs (Hamming)",
    "soft": "weight to be flipped (soft)",
    "margin": "worst weight (margin)",
    "cosine": "cosine",
    "signed_sum": "signed sum",
    "euclidean": "Euclidean, weight space",
    "displacement": "way to the final weights",
    "mass": "weight mass of the clause",
    "row_mass": "weight mass of the row",
    "random": "random numbers",
}
"""Distances and controls in words."""


def distances(nulls: pd.DataFrame, template: str | None = None, *, near: int = NEAR, ax: Axes | None = None) -> Axes:
    """Initial distance of the locations where final codes are, beside every null (C1).

    Bars are means over formulas of the share of codes at each distance, markers the same under the nulls; intervals
    are 95 %.

    Args:
        nulls: from `precode.claims.count_nulls`, of one cell or several.
        template: which; the all-positive one by default.
        near: wrong signs up to which a location is near, where the dashed line is.
        ax: axes to draw on.

    Raises:
        PrecodeValueError: a column is missing, or there are no codes of the template.

    Example:
        >>> table = pd.DataFrame({"formula": 0, "template": "2P", "null": "observed", "distance": [0, 1, 2],
        ...                       "codes": [3.0, 1.0, 0.0]})
        >>> len(distances(table).patches)
        3
    """
    require(nulls, "formula", "template", "null", "distance", "codes")
    table = _of_template(nulls, template)
    keys = [name for name in (*CELL, "formula", "null") if name in table]
    total = table.groupby(keys, observed=True)["codes"].transform("sum")
    shares = over_formulas(table.assign(share=table["codes"] / total.where(total > 0)), ["null", "distance"], "share")
    shares = shares[shares["mean"].notna()]
    require_rows(shares, "codes")
    ax = axes(ax)
    seen = shares[shares["null"] == "observed"]
    ax.bar(seen["distance"], seen["mean"], width=0.85, color=BLUE, alpha=0.35, label="final codes, observed")
    points(ax, seen["distance"], seen["mean"], seen["low"], seen["high"], fmt="none", color=BLUE)
    names = [name for name in NULLS if (shares["null"] == name).any()]
    for offset, name in zip(offsets(len(names), 0.3), names, strict=True):
        part, (label, color, marker) = shares[shares["null"] == name], NULLS[name]
        style = {"fmt": f"{marker}:", "color": color, "label": f"null: {label}"}
        points(ax, part["distance"] + offset, part["mean"], part["low"], part["high"], **style)
    _mark_near(ax, near)
    ax.set_xticks(sorted(shares["distance"].unique()))
    ax.set_xlabel("wrong signs at initialization (Hamming distance, our definition)")
    ax.set_ylabel("share of final codes")
    legend(ax, ncols=2)
    return ax


def metrics(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """How well each distance, and each control that knows nothing of templates, tells future codes (C1).

    Filled: AUC for "will be a code" among locations of the right polarity, with its interval over formulas; crosses:
    the same at false clauses; dashed: chance.

    Args:
        table: details of claim C1.
        ax: axes to draw on.

    Raises:
        PrecodeValueError: a column is missing.

    Example:
        >>> table = pd.DataFrame({"metric": ["soft", "mass"], "group": ["feature space", "control"], "auc": [0.8, 0.5],
        ...                       "low": [0.7, 0.4], "high": [0.9, 0.6], "auc_false": [0.7, 0.5]})
        >>> [label.get_text() for label in metrics(table).get_yticklabels()]
        ['weight to be flipped (soft)', 'weight mass of the clause']
    """
    require(table, "metric", "group", "auc", "low", "high", "auc_false")
    ax = axes(ax, figsize=(6.4, 1.6 + 0.3 * len(table)))
    at = np.arange(len(table))
    for group, color, marker in (("feature space", BLUE, "o"), ("control", GRAY, "s")):
        mine = (table["group"] == group).to_numpy()
        part = table[mine]
        label = "distance in feature space" if group == "feature space" else "control"
        points(ax, at[mine], part["auc"], part["low"], part["high"], fmt=marker, color=color, label=label, across=True)
    ax.plot(table["auc_false"], at, "x", color=ORANGE, label="null: at false clauses", linestyle="none")
    ax.axvline(0.5, color="black", linestyle="--", linewidth=1, label="null: chance")
    ax.set_yticks(at, [METRICS.get(name, name) for name in table["metric"]])
    ax.invert_yaxis()
    ax.grid(axis="y", color="0.92")
    ax.set_axisbelow(True)
    ax.set_xlabel('AUC for "will be a code" (our definition)')
    legend(ax, ncols=2)
    return ax


def similarity(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """How alike the hidden layer is at initialization and at the end, by CKA and SVCCA (C1).

    Filled: the same network, means over formulas with 95 % intervals; open: the final network
    of another formula; small points are formulas.

    Args:
        table: from `precode.claims.similarity`.
        ax: axes to draw on.

    Raises:
        PrecodeValueError: a column is missing, or there are no rows.

    Example:
        >>> table = pd.DataFrame({"formula": [0, 1], "cka": 0.9, "svcca": 0.8, "cka_null": 0.5, "svcca_null": 0.6})
        >>> [label.get_text() for label in similarity(table).get_xticklabels()]
        ['CKA', 'SVCCA']
    """
    require(table, "formula", "cka", "svcca", "cka_null", "svcca_null")
    require_rows(table, "networks")
    ax = axes(ax, figsize=(4.2, 3.6))
    for suffix, offset, color, face, label in (
        ("", -0.12, BLUE, BLUE, "same network"),
        ("_null", 0.12, ORANGE, "white", "null: network of another formula"),
    ):
        for place, name in enumerate(("cka", "svcca")):
            values = table.groupby("formula")[f"{name}{suffix}"].mean()
            ax.plot(np.full(len(values), place + 2 * offset), values, ".", color=color, alpha=0.4, markersize=3)
            low, high = interval(values)
            style = {"fmt": "o", "color": color, "markerfacecolor": face, "label": "" if place else label}
            points(ax, [place + offset], [values.mean()], [low], [high], **style)
    ax.set_xticks([0, 1], ["CKA", "SVCCA"])
    ax.set_xlim(-0.6, 1.6)
    ax.set_ylim(0, 1.02)
    ax.set_ylabel("hidden layer, initialization against end")
    legend(ax, ncols=1)
    return ax


def convergence(
    table: pd.DataFrame,
    nulls: pd.DataFrame | None = None,
    template: str | None = None,
    *,
    near: int = NEAR,
    ax: Axes | None = None,
) -> Axes:
    """How likely a location is a code at the end, against its initial distance (C2).

    Blue: locations of the formula with the right polarity, with their interval over formulas; orange: those of false
    clauses; other markers: the nulls that move or redraw codes.

    Args:
        table: from `precode.claims.convergence`, or details of claim C2.
        nulls: from `precode.claims.count_nulls`, for more nulls.
        template: which; the all-positive one by default.
        near: see `distances`.
        ax: axes to draw on.

    Raises:
        PrecodeValueError: a column is missing, or there is no such template.

    Example:
        >>> table = pd.DataFrame({"kind": "formula", "template": "2P", "polarity": True, "hamming": [0, 1, 2],
        ...                       "share": [0.6, 0.3, 0.0], "share_low": 0.0, "share_high": 1.0})
        >>> convergence(table).get_ylabel()
        'P(code at the end)'
    """
    require(table, "kind", "template", "polarity", "hamming", "share", "share_low", "share_high")
    chosen = _of_template(table, template)
    chosen = chosen[chosen["polarity"].astype(bool)]
    ax = axes(ax)
    kinds = {
        "formula": ("clauses of the formula", BLUE, "o", "-", 0.0),
        "false": ("null: false clauses", ORANGE, "o", ":", 0.05),
    }
    for kind, (label, color, marker, style, offset) in kinds.items():
        part = chosen[chosen["kind"] == kind]
        if len(part):
            ends = part["share_low"], part["share_high"]
            look = {"fmt": f"{marker}{style}", "color": color, "label": label}
            points(ax, part["hamming"] + offset, part["share"], *ends, **look)
    if nulls is not None:
        require(nulls, "formula", "template", "null", "distance", "locations", "codes")
        rates = _of_template(nulls, template)
        rates = rates.assign(rate=rates["codes"] / rates["locations"].where(rates["locations"] > 0))
        means = over_formulas(rates, ["null", "distance"], "rate")
        for name, offset in (("permuted_rows", -0.05), ("random_network", 0.1)):
            part, (label, color, marker) = means[means["null"] == name], NULLS[name]
            look = {"fmt": f"{marker}:", "color": color, "label": f"null: {label}"}
            points(ax, part["distance"] + offset, part["mean"], part["low"], part["high"], **look)
    _mark_near(ax, near)
    ax.set_xticks(sorted(chosen["hamming"].unique()))
    ax.set_xlabel("wrong signs at initialization (Hamming distance, our definition)")
    ax.set_ylabel("P(code at the end)")
    legend(ax, ncols=2)
    return ax


def motion(
    table: pd.DataFrame, metric: str = "hamming", template: str | None = None, *, ax: Axes | None = None
) -> Axes:
    """Distance of near locations from initialization to the end, by their fate (C2).

    Means over formulas with their intervals as bands; "end" are the final weights. Open and dotted: the near locations
    of false clauses, of which some end as if they had become codes or not.

    Args:
        table: from `precode.claims.motion_curves`, or ``motion`` of claim C2.
        metric: hamming or soft.
        template: which; the all-positive one by default.
        ax: axes to draw on.

    Raises:
        PrecodeValueError: a column is missing, or there are no near locations of the template.

    Example:
        >>> table = pd.DataFrame({"kind": "formula", "template": "2P", "fate": "converged", "epoch": [0.0, 1.0, np.inf],
        ...                       "hamming": [0.5, 0.2, 0.0], "hamming_low": 0.0, "hamming_high": 1.0})
        >>> [label.get_text() for label in motion(table).get_xticklabels()]
        ['0', '1', 'end']
    """
    require(table, "kind", "template", "fate", "epoch", metric, f"{metric}_low", f"{metric}_high")
    chosen = _of_template(table, template)
    require_rows(chosen, "near locations")
    ax = axes(ax)
    finite = sorted(epoch for epoch in chosen["epoch"].unique() if np.isfinite(epoch))
    last = 1.8 * max(finite[-1], 1.0)
    looks: dict[str, tuple[str, dict[str, Any], float]] = {
        "formula": ("near at first, {}", {"linestyle": "-"}, 0.2),
        "false": ("null: false clauses, {}", {"linestyle": ":", "markerfacecolor": "white"}, 0.08),
    }
    for (kind, (label, look, alpha)), (fate, color, marker) in product(
        looks.items(), (("converged", BLUE, "o"), ("rejected", ORANGE, "s"))
    ):
        part = chosen[(chosen["kind"] == kind) & (chosen["fate"].astype(str) == fate)].sort_values("epoch")
        if len(part):
            at = part["epoch"].replace(np.inf, last)
            ax.plot(at, part[metric], marker=marker, markersize=4, color=color, label=label.format(fate), **look)
            ends = part[f"{metric}_low"], part[f"{metric}_high"]
            ax.fill_between(at, *ends, color=color, alpha=alpha, linewidth=0)
    ax.set_xscale("symlog", linthresh=1)
    shown = [tick for tick in (0, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 8, 16, 32, 64) if tick <= finite[-1] or tick == 1]
    shown = [tick for tick in shown if tick == int(tick)] if finite[-1] > 1 else [0, *finite[1:]]
    ax.set_xticks([*shown, last], [*(f"{tick:g}" for tick in shown), "end"])
    ax.minorticks_off()
    ax.set_xlim(-0.03 * last if last < 3 else -0.1, 1.1 * last)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("epoch")
    ax.set_ylabel(f"mean distance: {METRICS[metric]} (our definition)")
    legend(ax, ncols=2)
    return ax


def _of_template(table: pd.DataFrame, template: str | None) -> pd.DataFrame:
    """Rows of a template, of the all-positive one by default."""
    names = table["template"].astype(str)
    chosen = ~names.str.contains("N") if template is None else names == template
    if not chosen.any():
        there = ", ".join(names.unique()) or "none"
        raise PrecodeValueError(f"no rows of template {template or 'of positive signs only'}: there are {there}")
    return table[chosen.to_numpy()]


def _mark_near(ax: Axes, near: int) -> None:
    """Marks where near ends, with the word above all curves."""
    ax.axvline(near + 0.5, color="black", linewidth=0.8, linestyle="--")
    ax.set_ylim(0, 1.06 * ax.get_ylim()[1])
    ax.annotate(
        "near (our definition)",
        (near + 0.5, 1),
        xycoords=("data", "axes fraction"),
        xytext=(-4, -4),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize="small",
    )
