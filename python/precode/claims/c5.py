"""C5: sparse retraining re-expresses families on other rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from precode import plot
from precode._internal.errors import PrecodeValueError
from precode._internal.statistics import CELL
from precode.claims.candidates import of_codes
from precode.claims.conditions import Asked, Condition
from precode.claims.records import Claim, Data, Figure, Finding, Law, Shown, Tables, Value, Verdict
from precode.claims.rules import Rules, RulesLike
from precode.claims.statistics import NotEnoughData, by_formula, estimate, measured, require, require_one, summarize

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
    if differ := [name for name in CELL if (name in tickets) != (name in transport)]:
        raise PrecodeValueError(
            f"one of tickets and row transport lacks {', '.join(differ)}: both must say which cell a row is of"
        )
    if "template" in transport:
        transport = transport[of_codes(transport["template"], Rules.of(rules).polarities).to_numpy()]
    keys = [name for name in (*CELL, "method", "probe_epoch", "density", "formula") if name in tickets]
    if lacking := [name for name in keys if name not in transport]:
        raise PrecodeValueError(f"the table of row transport lacks {', '.join(lacking)}, which that of tickets has")
    require_one(tickets, keys, "the table of tickets")
    counts = transport.groupby(keys, dropna=False)[TRANSPORT[3:]].sum()
    table = chosen[keys].merge(counts.reset_index(), on=keys)
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
    table = re_expression(data.tickets, data.transport, rules)
    table["families"] = table["family"] - table["family_permuted"]
    table["rows"] = table["location"] - table["location_permuted"]
    table["re-expressed"] = table["families"] - table["rows"]
    measures = ["location", "family", "location_permuted", "family_permuted", "moved", "moved_permuted"]
    answers = ["families", "rows", "re-expressed"]
    means = by_formula(table, [*measures, *answers])
    effect = estimate(means["re-expressed"], rules)
    families, rows = estimate(means["families"], rules), estimate(means["rows"], rules)
    estimates = {"re-expressed": effect, "families": families, "moved": measured(means["moved"], rules)}
    names = {"permuted_rows": "moved_permuted", "moved": "moved", **{f"recall: {name}": name for name in measures[:4]}}
    nulls = {name: float(means[column].mean()) for name, column in names.items()}
    details = summarize(table, ["method", "density"], [*measures, *answers], rules)
    details["tickets"] = table.groupby(["method", "density"]).size().to_numpy()
    reason = (
        f"{len(table)} of {len(data.tickets)} tickets match their dense network and are compared; families survive "
        f"beyond those of another clause by {families.value:.3g} [{families.low:.3g}, {families.high:.3g}] of the "
        f"codes, rows beyond random rows by {rows.value:.3g} [{rows.low:.3g}, {rows.high:.3g}]; "
        f"{nulls['moved']:.2f} of the recovered codes are on another row, of codes on random rows "
        f"{nulls['permuted_rows']:.2f} would be"
    )
    return Finding(effect, estimates, nulls, details, {"tickets": table}, reason)


def asks(own: Mapping[str, Any]) -> Asked:
    """The conditions of C5."""
    recall = "the recall of families, above that with clauses permuted,"
    families = Condition("families", recall, own["excess"])
    beyond = f"{recall} minus the recall of locations, above that with rows permuted,"
    moved = "the share of recovered codes that are on another row"
    return Asked(
        holds=[
            families,
            Condition("re-expressed", beyond, own["beyond"]),
            Condition("moved", moved, own["holds"], own["holds"]),
        ],
        partly=[families, Condition("moved", moved, own["partly"], own["partly"])],
    )


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
    # The name has the density in six digits.
    return table[np.isclose(table["density"], float(density), rtol=1e-5)]


CLAIM = Claim(
    name="C5",
    statement="Sparse retraining re-expresses families on other rows.",
    reported="the abstract: the same families on another row; a public digest: tickets have .528 and .543 of the dense "
    "codes at the same sites, random ones .200",
    measure="how many more of the dense network's codes tickets keep as families, beyond those of another clause, "
    "than on their rows, beyond random rows",
    scope="Judged over matching tickets: accuracy within {matching} of the dense network; random ones, oracles, and "
    "those that do not start from the initial weights are left out.",
    choices={
        "beyond": Value(0.01, "least excess of families over rows, each above its null"),
        "holds": Value(0.25, "bound of the share on another row for 'holds'"),
        "partly": Value(0.05, "the same for 'partly'"),
        "excess": Value(0.01, "least recall of families above that with clauses permuted"),
        "matching": Value(0.01, "how much less accurate than its dense network a matching ticket may be"),
        "exclude": Value(
            ["random", "oracle", "oracle-codes", "imp-rewind", "imp-lr-rewind", "imp-finetune"],
            "methods that are left out",
        ),
    },
    test=judged,
    asks=asks,
    question="When a ticket is trained, do the dense network's codes come back, and on the same rows?",
    words="We look at tickets that are about as accurate as their dense network, and count its codes that the "
    "ticket has too: on the same row (location), or on any row (family) [ours]. Two questions: do families survive "
    "beyond what any ticket has, which has many codes of every clause? And do rows survive less than families do? "
    "Each is measured above its own null: families above the codes of another clause, rows above codes on random "
    "rows. The effect is the difference: above 0, a ticket keeps families rather than rows; below 0, it keeps rows.",
    nulls={
        "moved": Shown("measured: share of the recovered codes on another row"),
        "permuted_rows": Shown("share on another row, codes on random rows"),
        "recall: location": Shown("measured: recall on the same row"),
        "recall: family": Shown("measured: recall on any row"),
        "recall: location_permuted": Shown("recall on the same row, codes on random rows"),
        "recall: family_permuted": Shown(
            "recall on any row, codes of another clause",
            "the ticket's codes of another clause in the place of each clause's",
        ),
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
    law=Law("tickets have the codes of three in five families, on random rows of their polarity", moved=1.0),
    needs=("tickets", "transport"),
)
"""The record."""
