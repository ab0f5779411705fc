"""All claims of the paper at once, judged by the rules of `load_rules`."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from precode._progress import Progress, tracked
from precode.claims.balance import c4
from precode.claims.claim import Claim
from precode.claims.contests import c5, c6
from precode.claims.crowding import c3
from precode.claims.observations import Observations
from precode.claims.proximity import c1, c2
from precode.claims.rules import Rules, load_rules, sentence


def judge(
    observations: Observations,
    tickets: pd.DataFrame | None = None,
    transport: pd.DataFrame | None = None,
    *,
    rules: Rules | None = None,
    progress: Progress = False,
) -> dict[str, Claim]:
    """Judges every claim.

    Args:
        observations: from `observe`, of one cell or several (`Observations.concat`).
        tickets: the table of `Retrained.table`, with the cell's columns where there are several cells.
        transport: the table of `transport_tickets`, likewise.
        rules: the decision rules; those of the package by default.
        progress: True for a bar, or a function of (claims judged, claims).

    Returns:
        The claims by name, C1 to C6; those whose tables were not given have "not enough data".

    Raises:
        PrecodeValueError: a table lacks columns.

    Example:
        >>> from precode.claims import synthetic_study
        >>> study = synthetic_study("shuffled", formulas=10, hidden=16, clauses=8)
        >>> {claim.verdict for claim in judge(study.observations, study.tickets, study.transport).values()}
        {'does not hold'}
    """
    rules = load_rules() if rules is None else rules
    lacking = "no tickets were given" if tickets is None else "no row transport was given" if transport is None else ""
    tests: dict[str, Callable[[], Claim]] = {
        "C1": lambda: c1(observations, rules=rules),
        "C2": lambda: c2(observations, rules=rules),
        "C3": lambda: c3(observations, rules=rules),
        "C4": lambda: c4(observations, tickets, rules=rules),
        "C5": lambda: (
            _missing("C5", lacking, rules)
            if tickets is None or transport is None
            else c5(tickets, transport, rules=rules)
        ),
        "C6": lambda: _missing("C6", lacking, rules) if tickets is None else c6(tickets, rules=rules),
    }
    return {name: tests[name]() for name in tracked(list(tests), progress, "claim")}


def _missing(name: str, reason: str, rules: Rules) -> Claim:
    nan = float("nan")
    texts = (rules[name]["statement"], sentence(rules, name, "measure"))
    return Claim(name, *texts, "not enough data", nan, nan, nan, 0, {}, {}, sentence(rules, name), reason=reason)


def claims_table(claims: dict[str, Claim]) -> pd.DataFrame:
    """The claims as a table: one row each, with columns name, statement, verdict, effect, low, high, formulas, rule.

    Example:
        >>> from precode.claims import synthetic_study
        >>> claims_table(judge(synthetic_study("planted", formulas=10).observations))["verdict"].tolist()
        ['holds', 'holds', 'holds', 'holds', 'not enough data', 'not enough data']
    """
    columns = ["name", "statement", "verdict", "effect", "low", "high", "formulas", "reason", "rule"]
    return pd.DataFrame([{name: getattr(claim, name) for name in columns} for claim in claims.values()])
