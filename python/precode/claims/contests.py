"""C5 and C6: what tickets preserve, and which methods find them."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from precode.claims.claim import Finding, claim
from precode.claims.rules import Rules, load_rules
from precode.claims.statistics import CELL, NotEnoughData, by_formula, estimate, require
from precode.tickets.registry import ALL_PROBES

TICKETS = ["method", "density", "formula", "accuracy", "dense_accuracy"]
TRANSPORT = ["method", "density", "formula", "dense", "same", "family", "same_permuted", "family_permuted"]


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Densities that agree although they were computed in another way."""
    return table.assign(density=table["density"].round(9))


def matching(tickets: pd.DataFrame, rules: Rules | None = None) -> pd.DataFrame:
    """Tickets whose accuracy is within the rules' margin of their dense network; controls are left out.

    Example:
        >>> table = pd.DataFrame({"method": ["imp", "imp", "random"], "density": 0.1, "formula": [0, 1, 0],
        ...                       "accuracy": [0.99, 0.8, 0.99], "dense_accuracy": 0.99})
        >>> matching(table)["formula"].tolist()
        [0]
    """
    own = (load_rules() if rules is None else rules)["C5"]
    require(tickets, TICKETS, "the table of tickets")
    close: pd.Series[bool] = tickets["accuracy"] >= tickets["dense_accuracy"] - own["matching"]
    control = tickets["method"].str.contains(":") | tickets["method"].isin(own["exclude"])
    chosen: pd.DataFrame = tickets[close & ~control]
    return chosen


def re_expression(tickets: pd.DataFrame, transport: pd.DataFrame, rules: Rules | None = None) -> pd.DataFrame:
    """How matching tickets recover the dense network's codes: on the same row, or elsewhere in the family.

    Args:
        tickets: see `Retrained.table`, with or without the cell's columns.
        transport: see `transport_tickets`, with the same columns beside.
        rules: see `load_rules`.

    Returns:
        One row a cell, method, density and formula: location, family (recall of the dense codes), location_permuted
        and family_permuted (recall by chance), moved (share of the recovered codes that are on another row) and
        moved_permuted (if rows were random).

    Raises:
        NotEnoughData: no matching ticket.

    Example:
        >>> tickets = pd.DataFrame({"method": "imp", "density": 0.1, "formula": [0], "accuracy": 1.0,
        ...                         "dense_accuracy": 1.0})
        >>> moves = pd.DataFrame({"method": "imp", "density": 0.1, "formula": [0], "dense": 4, "same": 1, "family": 2,
        ...                       "same_permuted": 0.5, "family_permuted": 1.0})
        >>> re_expression(tickets, moves)[["location", "family", "moved"]].values.tolist()
        [[0.25, 0.5, 0.5]]
    """
    require(transport, TRANSPORT, "the table of row transport")
    chosen = matching(tickets, rules)
    if chosen.empty:
        raise NotEnoughData("no ticket matches its dense network")
    keys = [name for name in (*CELL, "method", "density", "formula") if name in tickets and name in transport]
    counts = _rounded(transport).groupby(keys)[TRANSPORT[3:]].sum()
    table = _rounded(chosen)[keys].merge(counts.reset_index(), on=keys)
    table = table[table["dense"] > 0]
    if table.empty:
        raise NotEnoughData("no matching ticket has row transport to look at")
    recalls = {
        "location": "same",
        "family": "family",
        "location_permuted": "same_permuted",
        "family_permuted": "family_permuted",
    }
    shares = pd.DataFrame({name: table[column] / table["dense"] for name, column in recalls.items()})
    recovered = table["family"].where(table["family"] > 0)
    moved = {"moved": 1 - table["same"] / recovered, "moved_permuted": 1 - table["same_permuted"] / recovered}
    return table[keys].assign(**shares, **moved).reset_index(drop=True)


@claim("C5")
def c5(tickets: pd.DataFrame, transport: pd.DataFrame, *, rules: Rules | None = None) -> Finding:
    """C5: sparse retraining re-expresses families on other rows.

    Args:
        tickets: see `re_expression`.
        transport: see `re_expression`.
        rules: see `load_rules`.

    Returns:
        A `Claim`. Its details are means of `re_expression` over formulas: method, density, location, family, their
        permuted counterparts, moved, moved_permuted, and tickets (how many match). Its tables have ``tickets``, the
        same for each.

    Example:
        >>> from precode.claims import synthetic_study
        >>> study = synthetic_study("planted", formulas=10, hidden=16, clauses=8)
        >>> c5(study.tickets, study.transport).verdict
        'holds'
    """
    rules = load_rules() if rules is None else rules
    own = rules["C5"]
    table = re_expression(tickets, transport, rules)
    table["above"] = table["family"] - table["family_permuted"]
    measures = ["location", "family", "location_permuted", "family_permuted", "moved", "moved_permuted"]
    means = by_formula(table, [*measures, "above"])
    effect, above = estimate(means["moved"], rules), estimate(means["above"], rules)
    preserved = {
        "the interval of the family recall above clauses permuted is above 0": above.above(0),
        f"the family recall above clauses permuted is at least {own['excess']}": above.value >= own["excess"],
    }
    holds = {**preserved, f"the interval of the share re-expressed is above {own['holds']}": effect.above(own["holds"])}
    partly = {
        **preserved,
        f"the interval of the share re-expressed is above {own['partly']}": effect.above(own["partly"]),
    }
    nulls = {
        "permuted_rows": float(means["moved_permuted"].mean()),
        **{f"recall: {name}": float(means[name].mean()) for name in measures[:4]},
    }
    details = table.groupby(["method", "density"])[measures].mean()
    details["tickets"] = table.groupby(["method", "density"]).size()
    reason = f"{len(table)} of {len(tickets)} tickets match their dense network and are compared"
    recalled, by_chance = nulls["recall: family"], nulls["recall: family_permuted"]
    reason += f"; families are recalled to {recalled:.3f}, with clauses permuted to {by_chance:.3f}"
    if effect.value < nulls["permuted_rows"]:
        reason += (
            f"; of codes on random rows {nulls['permuted_rows']:.2f} would be on another: fewer move than by chance"
        )
    return Finding(effect, holds, partly, nulls, details.reset_index(), {"tickets": table}, reason)


def contests(tickets: pd.DataFrame, rules: Rules | None = None) -> pd.DataFrame:
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
    own = (load_rules() if rules is None else rules)["C6"]
    measures = ["accuracy", own["recovery"]]
    require(tickets, ["method", "density", "formula", *measures], "the table of tickets")
    keys = [name for name in (*CELL, "density", "formula") if name in tickets]
    columns = _rounded(tickets)[["method", *keys, *measures]]
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


@claim("C6")
def c6(tickets: pd.DataFrame, *, rules: Rules | None = None) -> Finding:
    """C6: light feature-space probes beat weight-based methods in accuracy and in code recovery.

    Args:
        tickets: see `contests`.
        rules: see `load_rules`.

    Returns:
        A `Claim`. Its details are the win-rate matrix in long form: measure, probe, rival, win_rate, low, high,
        difference (mean over formulas), formulas, p (paired Wilcoxon over formulas) and p_holm (over all pairs of a
        measure); and the same of all probes together, `ALL_PROBES`, corrected over the rivals. Its tables: ``strata``
        (win rates in every cell and density) and ``contests``.

    Example:
        >>> from precode.claims import synthetic_study
        >>> c6(synthetic_study("planted", formulas=10, hidden=16, clauses=8).tickets).verdict
        'holds'
    """
    rules = load_rules() if rules is None else rules
    own = rules["C6"]
    pairs = contests(tickets, rules)
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
