"""C5: sparse retraining re-expresses families on other rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from precode import plot
from precode._internal.errors import PrecodeValueError
from precode.claims.records import Claim, Data, Figure, Finding, Law, Shown, Tables, Value, Verdict
from precode.claims.rules import Rules, RulesLike
from precode.claims.statistics import CELL, NotEnoughData, by_formula, estimate, require, rounded

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TICKETS = ["method", "density", "formula", "accuracy", "dense_accuracy"]
TRANSPORT = ["method", "density", "formula", "dense", "same", "family", "same_permuted", "family_permuted"]


def matching(tickets: pd.DataFrame, rules: RulesLike = None) -> pd.DataFrame:
    """Tickets whose accuracy is within the rules' margin of their dense network; controls are left out.

    Example:
        >>> table = pd.DataFrame({"method": ["imp", "imp", "random"], "density": 0.1, "formula": [0, 1, 0],
        ...                       "accuracy": [0.99, 0.8, 0.99], "dense_accuracy": 0.99})
        >>> matching(table)["formula"].tolist()
        [0]
    """
    own = CLAIM.own(Rules.of(rules))
    require(tickets, TICKETS, "the table of tickets")
    close: pd.Series[bool] = tickets["accuracy"] >= tickets["dense_accuracy"] - own["matching"]
    control = tickets["method"].str.contains(":") | tickets["method"].isin(own["exclude"])
    chosen: pd.DataFrame = tickets[close & ~control]
    return chosen


def re_expression(tickets: pd.DataFrame, transport: pd.DataFrame, rules: RulesLike = None) -> pd.DataFrame:
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
    counts = rounded(transport).groupby(keys)[TRANSPORT[3:]].sum()
    table = rounded(chosen)[keys].merge(counts.reset_index(), on=keys)
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


def judged(data: Data, rules: Rules) -> Finding:
    """Which codes matching tickets recover, and where.

    Details: means of `re_expression` over formulas: method, density, location, family, their permuted counterparts,
    moved, moved_permuted, and tickets (how many match). Tables: ``tickets``, the same for each.
    """
    assert data.tickets is not None
    assert data.transport is not None
    own = CLAIM.own(rules)
    table = re_expression(data.tickets, data.transport, rules)
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
    reason = f"{len(table)} of {len(data.tickets)} tickets match their dense network and are compared"
    recalled, by_chance = nulls["recall: family"], nulls["recall: family_permuted"]
    reason += f"; families are recalled to {recalled:.3f}, with clauses permuted to {by_chance:.3f}"
    if effect.value < nulls["permuted_rows"]:
        reason += (
            f"; of codes on random rows {nulls['permuted_rows']:.2f} would be on another: fewer move than by chance"
        )
    return Finding(effect, holds, partly, nulls, details.reset_index(), {"tickets": table}, reason)


def _row_transport(verdict: Verdict, study: Tables) -> Axes:
    compared = verdict.table("tickets").query("formula == 0")
    known = [
        (settings, name, matrices[0])
        for settings, arrays in study.arrays("row_transport")
        for name, matrices in arrays.items()
        if len(_of_ticket(compared, settings, name))
    ]
    if not known:
        raise PrecodeValueError("no ticket whose row transport was kept matches its dense network")
    settings, name, matrix = max(known, key=lambda item: float(item[2].sum()))
    moves = _of_ticket(study.table("transport").query("formula == 0"), settings, name)
    ax = plot.row_transport(matrix, float(moves["same_permuted"].sum()))
    cell = ", ".join(f"{key} {settings[key]}" for key in CELL)
    ax.set_title(f"{name}; {cell}\n{ax.get_title()}", fontsize="medium")
    return ax


def _of_ticket(table: pd.DataFrame, settings: Mapping[str, Any], name: str) -> pd.DataFrame:
    """Rows of one cell and ticket, which is named as in ``row_transport``: "imp at 0.125"."""
    method, _, density = name.partition(" at ")
    for key, value in {**{key: settings[key] for key in CELL}, "method": method}.items():
        table = table[table[key] == value]
    # Whole weights are kept, so that the density differs a little from the one that was asked for.
    return table[np.isclose(table["density"], float(density), rtol=0.01)]


CLAIM = Claim(
    name="C5",
    statement="Sparse retraining re-expresses families on other rows.",
    measure="share of the dense network's recovered codes that are on another row than in the dense network",
    rule="Over matching tickets (accuracy within {matching} of the dense network; random ones, oracles, and those "
    "that do not start from the initial weights are left out): holds if the recall of families is at least {excess} "
    "above that with clauses permuted, with an interval above 0, and the share re-expressed on another row has an "
    "interval above {holds}; partly if the first is so and the share has an interval above {partly}; otherwise it "
    "does not hold.",
    choices={
        "holds": Value(0.25, "bound of the share re-expressed for 'holds'"),
        "partly": Value(0.05, "the same for 'partly'"),
        "excess": Value(0.01, "least recall of families above that with clauses permuted"),
        "matching": Value(0.01, "how much less accurate than its dense network a matching ticket may be"),
        "exclude": Value(
            ["random", "oracle", "oracle-codes", "imp-rewind", "imp-lr-rewind", "imp-finetune"],
            "methods that are left out",
        ),
    },
    test=judged,
    question="When a ticket is trained, do the dense network's codes come back, and on the same rows?",
    words="We look at tickets that are about as accurate as their dense network, and count its codes that the "
    "ticket has too: on the same row (location), or on any row (family) [ours]. The effect is the share of "
    "recovered codes that are on another row than before, a mean over tickets. The claim asks that families are "
    "preserved beyond chance and that many codes move; not that more move than if rows were random.",
    nulls={
        "permuted_rows": Shown("codes on random rows", "the final codes, moved to random rows of the same polarity"),
        "recall: location": Shown("measured: recall on the same row"),
        "recall: family": Shown("measured: recall on any row"),
        "recall: location_permuted": Shown("recall on the same row, codes on random rows"),
        "recall: family_permuted": Shown("recall on any row, codes of another clause"),
    },
    figures=(
        Figure(
            "Codes of the dense network that matching tickets recover, on any row and on the same row. Open: what "
            "chance gives.",
            lambda verdict, study: plot.recovery(verdict.table("tickets")),
        ),
        Figure(
            "Row transport of one ticket, the matching one that recovers most codes: on which row of the ticket the "
            "codes of each row of the dense network are. On the diagonal they stayed.",
            _row_transport,
        ),
    ),
    law=Law("seven in ten recovered codes change their row", moved=0.7),
    needs=("tickets", "transport"),
    chance="permuted_rows",
)
"""The record."""
