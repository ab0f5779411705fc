"""The claims about codes and their locations: tables of `precode.claims` as figures, beside every null."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from precode.errors import PrecodeValueError
from precode.plot._axes import (
    ABOVE,
    BLUE,
    GRAY,
    GREEN,
    NULLS,
    ORANGE,
    YELLOW,
    axes,
    legend,
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

VERDICTS = {"holds": (GREEN, "o"), "partly": (YELLOW, "s"), "does not hold": (ORANGE, "D")}
"""Colour and marker of every verdict."""

NEAR = 1
"""Wrong signs up to which a location is near."""


def distances(nulls: pd.DataFrame, template: str | None = None, *, ax: Axes | None = None) -> Axes:
    """Initial distance of the locations where final codes are, beside every null (C1).

    Bars are means over formulas of the share of codes at each distance, markers the same under the nulls; intervals
    are 95 % (1.96 standard errors).

    Args:
        nulls: from `precode.claims.count_nulls`, of one cell or several.
        template: which; the all-positive one by default.
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
    keys = [name for name in ("hidden", "clauses", "embedding", "formula", "null") if name in table]
    total = table.groupby(keys, observed=True)["codes"].transform("sum")
    shares = over_formulas(table.assign(share=table["codes"] / total.where(total > 0)), ["null", "distance"], "share")
    shares = shares[shares["mean"].notna()]
    require_rows(shares, "codes")
    ax = axes(ax)
    seen = shares[shares["null"] == "observed"]
    ax.bar(seen["distance"], seen["mean"], width=0.85, color=BLUE, alpha=0.35, label="final codes, observed")
    points(ax, seen["distance"], seen["mean"], seen["low"], seen["high"], fmt="none", color=BLUE)
    names = [name for name in NULLS if (shares["null"] == name).any()]
    for offset, name in zip(_offsets(len(names), 0.3), names, strict=True):
        part, (label, color, marker) = shares[shares["null"] == name], NULLS[name]
        style = {"fmt": f"{marker}:", "color": color, "label": f"null: {label}"}
        points(ax, part["distance"] + offset, part["mean"], part["low"], part["high"], **style)
    _mark_near(ax)
    ax.set_xticks(sorted(shares["distance"].unique()))
    ax.set_xlabel("wrong signs at initialization (Hamming distance) [ours]")
    ax.set_ylabel("share of final codes")
    legend(ax)
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
    ax.set_xlabel('AUC for "will be a code" [ours]')
    legend(ax, ncols=2, **ABOVE)
    return ax


def similarity(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """How alike the hidden layer is at initialization and at the end, by CKA and SVCCA (C1).

    Filled: the same network, means over formulas with 95 % intervals (1.96 standard errors); open: the final network
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
            half = 1.96 * values.std(ddof=1) / np.sqrt(values.count())
            style = {"fmt": "o", "color": color, "markerfacecolor": face, "label": "" if place else label}
            points(ax, [place + offset], [values.mean()], [values.mean() - half], [values.mean() + half], **style)
    ax.set_xticks([0, 1], ["CKA", "SVCCA"])
    ax.set_xlim(-0.6, 1.6)
    ax.set_ylim(0, 1.02)
    ax.set_ylabel("hidden layer, initialization against end")
    legend(ax, **ABOVE)
    return ax


def convergence(
    table: pd.DataFrame, nulls: pd.DataFrame | None = None, template: str | None = None, *, ax: Axes | None = None
) -> Axes:
    """How likely a location is a code at the end, against its initial distance (C2).

    Blue: locations of the formula with the right polarity, with their interval over formulas; orange: those of false
    clauses; other markers: the nulls that move or redraw codes.

    Args:
        table: from `precode.claims.convergence`, or details of claim C2.
        nulls: from `precode.claims.count_nulls`, for more nulls.
        template: which; the all-positive one by default.
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
    _mark_near(ax)
    ax.set_xticks(sorted(chosen["hamming"].unique()))
    ax.set_xlabel("wrong signs at initialization (Hamming distance) [ours]")
    ax.set_ylabel("P(code at the end)")
    legend(ax)
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
    ax.set_ylabel(f"mean distance: {METRICS[metric]} [ours]")
    legend(ax)
    return ax


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
    for (pressure, part), color, offset in zip(groups, _shades(len(groups)), _offsets(len(groups), 0.1), strict=True):
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

    Filled: gain in cross-validated AUC, means over formulas with 95 % intervals (1.96 standard errors); open: with
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


def parts(table: pd.DataFrame, null: float = 0.0, whole: float | None = None, *, ax: Axes | None = None) -> Axes:
    """A claim's effect in each part of a study by itself: every width, number of clauses and embedding.

    Points with 95 % intervals over formulas, coloured by the verdict that the part alone would give; dashed: the whole
    study; dotted: the null.

    Args:
        table: from `precode.claims.judge_parts`, of one claim, or ``parts`` of a claim.
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
    ax.invert_yaxis()
    ax.set_xlabel("effect in this part alone [ours]")
    legend(ax, ncols=3, **ABOVE)
    return ax


def _of_template(table: pd.DataFrame, template: str | None) -> pd.DataFrame:
    """Rows of a template, of the all-positive one by default."""
    names = table["template"].astype(str)
    chosen = ~names.str.contains("N") if template is None else names == template
    if not chosen.any():
        there = ", ".join(names.unique()) or "none"
        raise PrecodeValueError(f"no rows of template {template or 'of positive signs only'}: there are {there}")
    return table[chosen.to_numpy()]


def _mark_near(ax: Axes) -> None:
    """Marks where near ends, with the word above all curves."""
    ax.axvline(NEAR + 0.5, color="black", linewidth=0.8, linestyle="--")
    ax.set_ylim(0, 1.06 * ax.get_ylim()[1])
    ax.annotate(
        "near [ours]",
        (NEAR + 0.5, 1),
        xycoords=("data", "axes fraction"),
        xytext=(-4, -4),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize="small",
    )


def _offsets(count: int, half: float) -> Any:
    """Small shifts, so that intervals beside each other can be told apart."""
    return np.linspace(-half, half, count) if count > 1 else np.zeros(count)


def _shades(count: int) -> list[Any]:
    """Colours from light to dark for something ordered."""
    from matplotlib import colormaps

    return [colormaps["viridis_r"](value) for value in np.linspace(0.15, 1.0, count)]


def _null_lines(ax: Axes, nulls: Mapping[str, float] | None) -> None:
    for name, value in (nulls or {}).items():
        if np.isfinite(value):
            label, color, _ = NULLS.get(name, (name.replace("_", " "), GREEN, ""))
            ax.axhline(value, color=color, linestyle=":", linewidth=1.5, label=f"null: {label}")
