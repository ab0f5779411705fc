"""C6: light feature-space probes beat weight-based methods."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from precode import plot
from precode._internal.errors import PrecodeValueError
from precode.claims.records import Claim, Data, Figure, Finding, Law, Shown, Tables, Value, Verdict
from precode.claims.rules import Rules, RulesLike
from precode.claims.statistics import CELL, NotEnoughData, by_formula, estimate, require, rounded
from precode.plot.axes import over_formulas, pyplot
from precode.plot.retraining import NULL
from precode.tickets.registry import ALL_PROBES

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def contests(tickets: pd.DataFrame, rules: RulesLike = None) -> pd.DataFrame:
    """Every probe against every weight-based method at the same density, in the same cell and formula.

    Args:
        tickets: see `Retrained.table`, with or without the cell's columns.
        rules: says which methods are probes and which are weight-based.

    Returns:
        One row a pair of methods and contest: the cell's columns, density, formula, probe, rival, and for accuracy and
        the rules' recovery the difference (probe - rival), such as accuracy, and the win (1, 1/2 for a tie, 0), such
        as accuracy_win.

    Raises:
        NotEnoughData: no probe or no weight-based method in the table.

    Example:
        >>> table = pd.DataFrame({"method": ["motion", "imp"], "density": 0.1, "formula": 0, "accuracy": [0.9, 0.8],
        ...                       "recovery_family": 0.1})
        >>> contests(table)[["accuracy_win", "recovery_family_win"]].values.tolist()
        [[1.0, 0.5]]
    """
    own = CLAIM.own(Rules.of(rules))
    measures = ["accuracy", own["recovery"]]
    require(tickets, ["method", "density", "formula", *measures], "the table of tickets")
    keys = [name for name in (*CELL, "density", "formula") if name in tickets]
    columns = rounded(tickets)[["method", *keys, *measures]]
    sides = [columns[columns["method"].isin(own[group])] for group in ("probes", "weight_based")]
    if sides[0].empty or sides[1].empty:
        missing = "probe" if sides[0].empty else "weight-based method"
        raise NotEnoughData(f"no {missing} among the tickets")
    both = (
        sides[0]
        .merge(sides[1], on=keys, suffixes=("", "_rival"))
        .rename(columns={"method": "probe", "method_rival": "rival"})
    )
    if both.empty:
        raise NotEnoughData("no probe and weight-based method at the same density, cell and formula")
    for name in measures:
        both[name] -= both[f"{name}_rival"]
        # What neither recovers anything of is undefined for both, and no contest.
        both[f"{name}_win"] = ((np.sign(both[name]) + 1) / 2).where(both[name].notna())
    return both[[*keys, "probe", "rival", *measures, *(f"{name}_win" for name in measures)]]


def _paired(pairs: pd.DataFrame, measure: str, rules: Rules) -> pd.DataFrame:
    """Win rate and paired Wilcoxon test of every probe and rival in one measure, Holm-corrected over all of them."""
    rows = []
    for (probe, rival), part in pairs.groupby(["probe", "rival"]):
        means = by_formula(part, [measure, f"{measure}_win"]).dropna()
        try:
            won = estimate(means[f"{measure}_win"], rules)
        except NotEnoughData:
            continue
        with warnings.catch_warnings():
            # Ties make the exact distribution approximate; equal methods have no differences to rank at all.
            warnings.simplefilter("ignore")
            p = float(stats.wilcoxon(means[measure]).pvalue) if means[measure].any() else 1.0
        rows.append(
            {
                "measure": measure,
                "probe": probe,
                "rival": rival,
                "win_rate": won.value,
                "low": won.low,
                "high": won.high,
                "difference": means[measure].mean(),
                "formulas": won.formulas,
                "p": p,
            }
        )
    table = pd.DataFrame(rows)
    if len(table):
        table["p_holm"] = multipletests(table["p"], method="holm")[1]
    return table


def judged(data: Data, rules: Rules) -> Finding:
    """Who wins.

    Details: the win-rate matrix in long form: measure, probe, rival, win_rate, low, high, difference (mean over
    formulas), formulas, p (paired Wilcoxon over formulas) and p_holm (over all pairs of a measure); and the same of all
    probes together, `ALL_PROBES`, corrected over the rivals. Tables: ``strata`` (win rates in every cell and density)
    and ``contests``.
    """
    assert data.tickets is not None
    own = CLAIM.own(rules)
    pairs = contests(data.tickets, rules)
    measures = ["accuracy", own["recovery"]]
    wins = {name: estimate(by_formula(pairs, [f"{name}_win"])[f"{name}_win"], rules) for name in measures}
    beaten = {
        f"the win rate in {name} is at least {own['holds']} with an interval above 1/2": won.value >= own["holds"]
        and won.low > 0.5
        for name, won in wins.items()
    }
    effect = min(wins.values(), key=lambda won: won.value)
    together = pairs.assign(probe=ALL_PROBES)
    details = pd.concat(
        [_paired(part, name, rules) for name in measures for part in (together, pairs)], ignore_index=True
    )
    keys = [name for name in (*CELL, "density") if name in pairs]
    strata = pairs.groupby([*keys, "probe", "rival"])[[f"{name}_win" for name in measures]].mean().reset_index()
    nulls = {"coin": 0.5, **{f"win rate in {name}": won.value for name, won in wins.items()}}
    reason = "; ".join(f"{name}: {won.value:.2f} [{won.low:.2f}, {won.high:.2f}]" for name, won in wins.items())
    # The pool of rivals may hide strong ones: they are named.
    against = pairs.groupby("rival")["accuracy_win"].mean().sort_values()
    lost = ", ".join(f"{rival} ({rate:.2f})" for rival, rate in against[against < 0.5].items())
    if lost:
        reason += f"; in accuracy the probes lose to {lost}"
    tables = {"strata": strata, "contests": pairs}
    # Two ways to a partial verdict: each has half of the level.
    one = any(won.value >= own["holds"] and won.above(0.5, 0.5) for won in wins.values())
    either = {"one of the two win rates is so, at half the level": one}
    return Finding(effect, beaten, either, nulls, details, tables, reason)


MEASURES = {"accuracy": "Test accuracy", "recovery_family": "Share of the dense network's codes recovered on any row"}
"""What is drawn of tickets against their density, in words."""

GROUPS = {"probes": "probes", "weight_based": "weight-based methods", "": "references and other methods"}
"""Methods that are drawn together, by the name of the value that lists them."""


def _tickets(value: str, group: str) -> Callable[[Verdict, Tables], Axes]:
    def draw(verdict: Verdict, study: Tables) -> Axes:
        table = study.table("tickets")
        named = {key: table["method"].isin(CLAIM.choices[key].value) for key in GROUPS if key}
        chosen = named[group] if group else ~np.logical_or.reduce(list(named.values()))
        if not chosen.any():
            raise PrecodeValueError(f"the study has no {GROUPS[group]}")
        chosen |= table["method"] == NULL
        embeddings = list(table["embedding"].unique())
        size = (2.4 + 3.4 * len(embeddings), 4.0)
        _, panels = pyplot().subplots(
            1, len(embeddings), sharey=True, squeeze=False, figsize=size, layout="constrained"
        )
        for ax, name in zip(panels[0], embeddings, strict=True):
            plot.tickets(table[chosen & (table["embedding"] == name)], value, ax=ax)
            ax.set_title(f"embedding: {name}", fontsize="medium")
            if ax is not panels[0][-1]:
                ax.get_legend().remove()
            if ax is not panels[0][0]:
                ax.set_ylabel("")
        # The same scale for all groups, so that they can be compared.
        means = over_formulas(table, ["embedding", "method", "density"], value)
        values = means[["low", "mean", "high"]].to_numpy()
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        if value == "accuracy":
            high = max(high, float(table["dense_accuracy"].mean()))
        margin = 0.05 * max(high - low, 0.01)
        panels[0][0].set_ylim(low - margin, high + margin)
        return cast("Axes", panels[0][0])

    return draw


def _wins(value: str) -> Callable[[Verdict, Tables], Axes]:
    return lambda verdict, study: plot.wins(verdict.details, value)


CLAIM = Claim(
    name="C6",
    statement="Light feature-space probes beat weight-based methods in accuracy and in code recovery.",
    measure="win rate of probes over weight-based methods, the smaller of accuracy and {recovery}",
    rule="Over all pairs of a probe and a weight-based method at the same density, cell and formula (ties count one "
    "half; code-rounds, which trains the network again and again, is no light probe): holds if both win rates are "
    "at least {holds} with intervals above 1/2; partly if one of them is, at half the level; otherwise it does not "
    "hold.",
    choices={
        "holds": Value(0.6, "least win rate"),
        "recovery": Value("recovery_family", "the measure of code recovery"),
        "probes": Value(
            [
                *("distance", "distance-plain", "distance-blind", "motion", "motion-plain", "motion-blind"),
                *("distance+motion", "distance+motion-plain", "distance+motion-blind"),
            ],
            "light probes",
        ),
        "weight_based": Value(
            [
                *("magnitude-init", "magnitude", "imp", "snip", "grasp", "grasp-magnitude", "synflow"),
                *("edge-popup", "gem-miner", "continuous-sparsification", "early-bird", "early-bird-normalized"),
            ],
            "their rivals",
        ),
    },
    test=judged,
    question="Do methods that look at feature space find better tickets than those that look at weights?",
    words="Every probe meets every weight-based method at the same density, on the same formula and the same "
    "network. The effect is the share of such contests that the probe wins, the smaller of the shares in accuracy "
    "and in recovery of codes [ours]; 0.5 is what a coin gives.",
    nulls={
        "coin": Shown("a coin"),
        "win rate in accuracy": Shown("measured: win rate in accuracy"),
        "win rate in recovery_family": Shown("measured: win rate in recovery on any row"),
    },
    figures=(
        *(
            Figure(f"{words} against density: {GROUPS[group]}. Bands are 95 % intervals.", _tickets(value, group), True)
            for value, words in MEASURES.items()
            for group in GROUPS
        ),
        *(
            Figure(
                f"How often each probe (rows) beats each weight-based method (columns): {words.lower()}. 0.50 is what "
                "a coin gives; a star is a difference that survives the correction for many tests.",
                _wins(value),
                True,
            )
            for value, words in MEASURES.items()
        ),
    ),
    law=Law(
        "probes are more accurate by 0.01 and recover more codes by 0.1",
        accuracy=lambda method: 0.01 if "distance" in method or "motion" in method else 0.0,
        recovery=lambda method: 0.1 if "distance" in method or "motion" in method else 0.0,
    ),
    needs=("tickets",),
    chance="coin",
)
"""The record."""
