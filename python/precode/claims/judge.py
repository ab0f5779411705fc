"""All claims of the paper at once, judged by the rules of `load_rules`."""

from __future__ import annotations

from typing import Any

import pandas as pd

from precode._internal.errors import PrecodeTypeError
from precode._internal.progress import Progress, tracked
from precode.claims.balance import c4
from precode.claims.claim import Claim
from precode.claims.contests import c5, c6
from precode.claims.crowding import c3
from precode.claims.observations import Observations
from precode.claims.proximity import c1, c2
from precode.claims.rules import Rules, load_rules, sentence
from precode.claims.statistics import CELL


def judge(
    observations: Observations,
    tickets: pd.DataFrame | None = None,
    transport: pd.DataFrame | None = None,
    *,
    rules: Rules | None = None,
) -> dict[str, Claim]:
    """Judges every claim.

    Args:
        observations: from `observe`, of one cell or several (`Observations.concat`).
        tickets: the table of `Retrained.table`, with the cell's columns where there are several cells.
        transport: the table of `transport_tickets`, likewise.
        rules: the decision rules; those of the package by default.

    Returns:
        The claims by name, C1 to C6; those whose tables were not given have "not enough data".

    Raises:
        PrecodeTypeError: not observations.
        PrecodeValueError: a table lacks columns.

    Example:
        >>> from precode.claims import synthetic_study
        >>> study = synthetic_study("shuffled", formulas=10, hidden=16, clauses=8)
        >>> {claim.verdict for claim in judge(study.observations, study.tickets, study.transport).values()}
        {'does not hold'}
    """
    if not isinstance(observations, Observations):
        raise PrecodeTypeError(
            f"observations must come from observe or Observations.concat, not be {type(observations).__name__}"
        )
    rules = load_rules() if rules is None else rules
    found = {
        "C1": c1(observations, rules=rules),
        "C2": c2(observations, rules=rules),
        "C3": c3(observations, rules=rules),
        "C4": c4(observations, tickets, rules=rules),
    }
    no_tickets = "no tickets were given"
    if tickets is None or transport is None:
        found["C5"] = _missing("C5", no_tickets if tickets is None else "no row transport was given", rules)
    else:
        found["C5"] = c5(tickets, transport, rules=rules)
    found["C6"] = _missing("C6", no_tickets, rules) if tickets is None else c6(tickets, rules=rules)
    return found


def judge_parts(
    observations: Observations,
    tickets: pd.DataFrame | None = None,
    transport: pd.DataFrame | None = None,
    *,
    rules: Rules | None = None,
    progress: Progress = False,
) -> pd.DataFrame:
    """Judges every claim again in parts of a study: each width, number of clauses and embedding by itself.

    A claim may hold in one part and fail in another. These are many looks at the same networks, without a correction:
    they say where to look next, and no verdict rests on them.

    Args:
        observations: see `judge`.
        tickets: see `judge`.
        transport: see `judge`.
        rules: see `judge`.
        progress: True for a bar, or a function of (parts judged, parts).

    Returns:
        One row a part and claim: by (the column that the parts differ in), part (its value, as text), name, verdict,
        effect, low, high, formulas and reason. Columns in which a study has one value make no parts.

    Example:
        >>> from precode.claims import Observations, synthetic_study
        >>> studies = [synthetic_study("planted", formulas=10, hidden=hidden) for hidden in (24, 32)]
        >>> both = Observations.concat([study.observations for study in studies])
        >>> judge_parts(both).query("name == 'C1'")[["by", "part", "verdict"]].values.tolist()
        [['hidden', '24', 'holds'], ['hidden', '32', 'holds']]
    """
    values = {name: observations.locations[name].unique() for name in CELL if name in observations.locations}
    parts = [(name, value) for name, found in values.items() if len(found) > 1 for value in sorted(found)]
    frames = []
    for name, value in tracked(parts, progress, "part"):

        def of_part(table: pd.DataFrame | None, name: str = name, value: Any = value) -> Any:
            return None if table is None else table[table[name] == value]

        seen = Observations(**{key: of_part(table) for key, table in vars(observations).items()})
        claims = claims_table(judge(seen, of_part(tickets), of_part(transport), rules=rules))
        frames.append(claims.drop(columns=["statement", "rule"]).assign(by=name, part=str(value)))
    columns = ["by", "part", "name", "verdict", "effect", "low", "high", "formulas", "reason"]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


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
