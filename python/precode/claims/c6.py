"""C6: light feature-space probes beat weight-based methods."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from scipy import stats

from precode import plot
from precode._internal.errors import PrecodeValueError
from precode._internal.statistics import CELL, formula_means
from precode.claims.conditions import AnyOf, Asked, Condition
from precode.claims.records import Claim, Data, Figure, Finding, Law, Shown, Tables, Value, Verdict
from precode.claims.rules import Rules, RulesLike
from precode.claims.statistics import NotEnoughData, by_formula, estimate, holm, measured, require, require_one
from precode.plot.axes import over_formulas, pyplot
from precode.plot.retraining import NULL
from precode.tickets.registry import ALL_PROBES, ALL_RIVALS, WRONG_CLAUSES

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def contests(tickets: pd.DataFrame, rules: RulesLike = None) -> pd.DataFrame:
    """Every probe against every weight-based method at the same density, in the same cell and formula.

    Knowledge is equal where the rival took at most as many epochs of training as the probe (column dense_epochs): a
    method that was read after several epochs meets a probe with its last such reading. What took more is a reference
    and no rival; its first reading stands beside the probe.

    Args:
        tickets: see `Retrained.table`, with or without the cell's columns; with column probe_epoch where methods were
            read several times.
        rules: says which methods are probes, which are weight-based, and which knows nothing.

    Returns:
        One row a pair of methods and contest: the cell's columns, density, formula, probe, rival, role (rival,
        reference, null: tickets that know nothing, or control: the probe itself with another formula's clauses, read
        at the same moment), and for accuracy and the rules' recovery the difference
        (probe - rival), such as accuracy, and the win (1, 1/2 for a tie, 0), such as accuracy_win.

    Raises:
        NotEnoughData: no probe or no weight-based method in the table.
        PrecodeValueError: a column is missing, or a method has several rows at one density, cell and formula.

    Example:
        >>> table = pd.DataFrame({"method": ["motion", "snip", "imp"], "density": 0.1, "formula": 0,
        ...                       "accuracy": [0.9, 0.8, 0.95], "recovery_family": 0.1, "dense_epochs": [1, 0, 80]})
        >>> contests(table)[["rival", "role", "accuracy_win", "recovery_family_win"]].values.tolist()
        [['snip', 'rival', 1.0, 0.5], ['imp', 'reference', 0.0, 0.5]]
    """
    own = CLAIM.own(Rules.of(rules))
    measures = ["accuracy", own["recovery"]]
    require(tickets, ["method", "density", "formula", "dense_epochs", *measures], "the table of tickets")
    keys = [name for name in (*CELL, "density", "formula") if name in tickets]
    read = [name for name in ("probe_epoch",) if name in tickets]
    require_one(tickets, ["method", *keys, *read], "the table of tickets")
    columns = tickets[["method", *keys, *read, "dense_epochs", *measures]]
    probes, rivals = (
        columns[columns["method"].isin(names)] for names in (own["probes"], [*own["weight_based"], own["null"]])
    )
    wrong = columns[columns["method"].isin([f"{probe}{WRONG_CLAUSES}" for probe in own["probes"]])]
    if probes.empty or not rivals["method"].isin(own["weight_based"]).any():
        raise NotEnoughData(f"no {'probe' if probes.empty else 'weight-based method'} among the tickets")
    both = probes.merge(rivals.drop(columns=read), on=keys, suffixes=("", "_rival"))
    both = both.rename(columns={"method": "probe", "method_rival": "rival"})
    equal = both["dense_epochs_rival"] <= both["dense_epochs"]
    # The last reading that knows no more than the probe, or else the first of all.
    known = both["dense_epochs_rival"].to_numpy(dtype=np.float64)
    order = np.lexsort([np.where(equal, -known, known), ~equal.to_numpy()])
    both["role"] = np.where(both["rival"] == own["null"], "null", np.where(equal, "rival", "reference"))
    both = both.iloc[order].drop_duplicates(["probe", "rival", *keys, *read]).sort_index()
    same = [*keys, *read, "probe"]
    control = wrong.assign(probe=wrong["method"].str.removesuffix(WRONG_CLAUSES)).rename(columns={"method": "rival"})
    paired = probes.rename(columns={"method": "probe"}).merge(control, on=same, suffixes=("", "_rival"))
    both = pd.concat([both, paired.assign(role="control")], ignore_index=True)
    if not (both["role"] == "rival").any():
        raise NotEnoughData("no probe and weight-based method of equal knowledge at the same density, cell and formula")
    for name in measures:
        both[name] -= both[f"{name}_rival"]
        # What neither recovers anything of is undefined for both, and no contest.
        both[f"{name}_win"] = ((np.sign(both[name]) + 1) / 2).where(both[name].notna())
    return both[[*keys, *read, "probe", "rival", "role", *measures, *(f"{name}_win" for name in measures)]]


def _paired(pairs: pd.DataFrame, measure: str, rules: Rules) -> pd.DataFrame:
    """Win rate and paired Wilcoxon test of every probe and rival in one measure, Holm-corrected over all of them."""
    rows = []
    for (probe, rival), part in pairs.groupby(["probe", "rival"], sort=False):
        means = by_formula(part, [measure, f"{measure}_win"]).dropna()
        won = measured(means[f"{measure}_win"], rules)
        if won is None:
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
        table["p_holm"] = holm(table["p"])
        table["tests"] = len(table)
        # Of n formulas the least two-sided p-value is 2 / 2^n.
        table["could_reject"] = 2.0 ** (1 - table["formulas"]) * len(table) < rules.alpha
    return table


def _pooled(pairs: pd.DataFrame) -> pd.DataFrame:
    """Contests of every probe against all rivals, and of all probes against every rival."""
    return pd.concat([pairs.assign(rival=ALL_RIVALS), pairs.assign(probe=ALL_PROBES)], ignore_index=True)


def judged(data: Data, rules: Rules) -> Finding:
    """Who wins.

    Details: the win-rate matrix in long form: measure, probe, rival, win_rate, low, high, difference (mean over
    formulas), formulas, p (paired Wilcoxon over formulas), p_holm, tests (how many it is corrected for) and
    could_reject (whether any p-value of so many formulas survives so many tests). First each probe against
    `ALL_RIVALS` and `ALL_PROBES` against each rival, corrected together; then all single pairs, likewise. Tables:
    ``references`` (the same against methods that take more epochs than the probes), ``controls`` (each
    probe against itself with another formula's clauses), ``strata`` (win rates in every
    cell and density) and ``contests``.
    """
    assert data.tickets is not None
    own = CLAIM.own(rules)
    every = contests(data.tickets, rules)
    measures = ["accuracy", own["recovery"]]
    pairs, references, nothing, wrong = (
        every[every["role"] == role] for role in ("rival", "reference", "null", "control")
    )
    wins = {name: estimate(by_formula(pairs, [f"{name}_win"])[f"{name}_win"], rules) for name in measures}
    null = {
        f"{name} over null": measured(by_formula(nothing, [f"{name}_win"])[f"{name}_win"], rules) for name in measures
    }
    effect = min(wins.values(), key=lambda won: won.value)
    details = pd.concat(
        [_paired(part, name, rules) for name in measures for part in (_pooled(pairs), pairs)], ignore_index=True
    )
    beside = references.assign(probe=ALL_PROBES)
    tables = {
        "references": pd.concat([_paired(beside, name, rules) for name in measures], ignore_index=True),
        "controls": pd.concat([_paired(wrong, name, rules) for name in measures], ignore_index=True),
        "strata": _strata(pairs, measures),
        "contests": every,
    }
    nulls = {
        "coin": 0.5,
        **{f"win rate in {name}": won.value for name, won in wins.items()},
        **{
            f"win rate in {name} over {own['null']}": float("nan") if won is None else won.value
            for name, won in zip(measures, null.values(), strict=True)
        },
    }
    reason = "; ".join(f"{name}: {won.value:.2f} [{won.low:.2f}, {won.high:.2f}]" for name, won in wins.items())
    # The pool of rivals may hide strong ones: they are named.
    for words, part in (("the probes lose to", pairs), ("beside the probes, with more training:", references)):
        rates = formula_means(part, ["rival"], ["accuracy_win"])["accuracy_win"].groupby("rival").mean().sort_values()
        lost = ", ".join(f"{rival} ({rate:.2f})" for rival, rate in rates.items() if rate < 0.5)
        if lost:
            reason += f"; in accuracy {words} {lost}"
    if len(wrong):
        rates = by_formula(wrong, [f"{name}_win" for name in measures]).mean()
        reason += "; over themselves with another formula's clauses: " + ", ".join(
            f"{name} {rates[f'{name}_win']:.2f}" for name in measures
        )
    return Finding(effect, {**wins, **null}, nulls, details, tables, reason)


def _strata(pairs: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """Win rates in every cell and density."""
    keys = [name for name in (*CELL, "density") if name in pairs]
    return pairs.groupby([*keys, "probe", "rival"])[[f"{name}_win" for name in measures]].mean().reset_index()


def asks(own: Mapping[str, Any]) -> Asked:
    """The conditions of C6."""
    measures = ["accuracy", own["recovery"]]
    both = [Condition(name, f"the win rate in {name}", own["holds"], above=0.5) for name in measures]
    null = [
        Condition(f"{name} over null", f"the win rate in {name} over {own['null']} tickets", own["holds"], above=0.5)
        for name in measures
    ]
    return Asked(holds=[*both, *null], partly=[AnyOf(both)])


MEASURES = {"accuracy": "Test accuracy", "recovery_family": "Share of the dense network's codes recovered on any row"}
"""What is drawn of tickets against their density, in words."""

GROUPS = {"probes": "probes", "weight_based": "weight-based methods", "": "references and other methods"}
"""Methods that are drawn together, by the name of the value that lists them."""


def _tickets(value: str, group: str) -> Callable[[Verdict, Tables], Axes]:
    def draw(verdict: Verdict, study: Tables) -> Axes:
        table = study.table("tickets")
        named = {key: table["method"].isin(CLAIM.choices[key].value) for key in GROUPS if key}
        chosen = named[group] if group else ~np.logical_or.reduce([*named.values(), table["method"] == NULL])
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


def _wins(value: str, name: str = "") -> Callable[[Verdict, Tables], Axes]:
    return lambda verdict, study: plot.wins(verdict.table(name) if name else verdict.details, value)


CLAIM = Claim(
    name="C6",
    statement="Light feature-space probes beat weight-based methods in accuracy and in code recovery.",
    reported="a public digest of the paper: combined rules lead in accuracy, distance and motion in exact codes, and "
    "checkpoint magnitude catches up later; no numbers are public",
    measure="win rate of probes over weight-based methods, the smaller of accuracy and {recovery}",
    scope="Judged over all pairs of a probe and a weight-based method that took at most as many epochs of training, "
    "at the same density, cell and formula; ties count one half. What took more, such as what trains to the end, "
    "stands beside as a reference. The method code-rounds, which trains the network again and again, is no light "
    "probe.",
    choices={
        "holds": Value(0.6, "least win rate"),
        "recovery": Value("recovery_family", "the measure of code recovery"),
        "probes": Value(
            [
                *("distance", "distance-plain", "distance-blind", "motion", "motion-plain", "motion-blind"),
                *("distance+motion", "distance+motion-plain", "distance+motion-blind"),
                *("target-static", "target-motion", "target-combined", "sign-keeping", "obs-codes", "hot-codes"),
                *("target-static-blind", "target-motion-blind", "target-combined-blind", "sign-keeping-blind"),
                *("obs-codes-blind", "hot-codes-blind"),
            ],
            "light probes",
        ),
        "weight_based": Value(
            [
                *("magnitude-init", "magnitude", "imp", "snip", "grasp", "grasp-magnitude", "synflow"),
                *("edge-popup", "gem-miner", "continuous-sparsification", "early-bird", "early-bird-normalized"),
                *("checkpoint-magnitude", "obs", "magnitude-w2", "hot-obs", "hot-magnitude", "hot-imp"),
            ],
            "their rivals, where these took no more epochs of training, and references otherwise",
        ),
        "null": Value("random", "tickets that know nothing, over which probes must win as well"),
    },
    test=judged,
    asks=asks,
    question="Do methods that look at feature space find better tickets than those that look at weights?",
    words="Every probe meets every weight-based method that took no more training than it, at the same density, on "
    "the same formula and the same network. The effect is the share of such contests that the probe wins, the "
    "smaller of the shares in accuracy and in recovery of codes [ours]; 0.5 is what a coin gives. Probes must win "
    "over random tickets as well. Methods that train longer than the probes are shown beside them, and so are the "
    "probes themselves with the clauses of another formula (:wrong-clauses), where a study has them.",
    nulls={
        "coin": Shown("a coin"),
        "win rate in accuracy": Shown("measured: win rate in accuracy"),
        "win rate in recovery_family": Shown("measured: win rate in recovery on any row"),
        "win rate in accuracy over random": Shown("measured: win rate in accuracy over random tickets"),
        "win rate in recovery_family over random": Shown("measured: win rate in recovery over random tickets"),
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
        Figure(
            "Codes of the dense network that survive the mask, before any retraining, against density: probes. "
            "Bands are 95 % intervals.",
            _tickets("retention", "probes"),
            True,
        ),
        *(
            Figure(
                f"Each probe against itself with the clauses of another formula: {words.lower()}. 0.50: what it is "
                "told does not matter.",
                _wins(value, "controls"),
                True,
            )
            for value, words in MEASURES.items()
        ),
        *(
            Figure(
                f"References, no rivals: methods that train longer than the probes, against all probes: "
                f"{words.lower()}.",
                _wins(value, "references"),
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
