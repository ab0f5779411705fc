"""All claims of the paper at once: everything here loops over the list of claims."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from precode._internal.errors import PrecodeTypeError, PrecodeValueError
from precode._internal.progress import Progress, tracked
from precode._internal.statistics import CELL
from precode.claims.observations import Observations
from precode.claims.records import Claim, Data, Verdict
from precode.claims.registry import CLAIMS
from precode.claims.rules import Rules, RulesLike
from precode.claims.statistics import require


def judge(
    observations: Observations,
    tickets: pd.DataFrame | None = None,
    transport: pd.DataFrame | None = None,
    *,
    claims: str | Iterable[str] | None = None,
    rules: RulesLike = None,
) -> dict[str, Verdict]:
    """Judges every claim, or some.

    Args:
        observations: from `observe`, of one cell or several (`Observations.concat`).
        tickets: the table of `Retrained.table`, with the cell's columns where there are several cells.
        transport: the table of `transport_tickets`, likewise.
        claims: names of those to judge; all by default.
        rules: the decision rules, or those of their values that differ from the package's; see `load_rules`.

    Returns:
        The verdicts by the claim's name; claims whose tables were not given have "not enough data".

    Raises:
        PrecodeTypeError: not observations, or not rules.
        PrecodeValueError: a table lacks columns; no such claim; a value that no rule has.

    Example:
        >>> from precode.claims import synthetic_study
        >>> study = synthetic_study("shuffled", formulas=10, hidden=16, clauses=8)
        >>> "holds" in {verdict.verdict for verdict in judge(study.observations, study.tickets).values()}
        False
    """
    if not isinstance(observations, Observations):
        raise PrecodeTypeError(
            f"observations must come from observe or Observations.concat, not be {type(observations).__name__}"
        )
    shared, data = Rules.of(rules), Data(observations, tickets, transport)
    _check(data, shared)
    return {claim.name: claim.judge(data, shared) for claim in _chosen(claims)}


def _check(data: Data, rules: Rules) -> None:
    """Refuses tables that do not fit together or the rules.

    Raises:
        PrecodeValueError: near means another distance there; a table does not say which cell its rows are of.
    """
    locations = data.observations.locations
    require(locations, ["formula", "kind", "template", "polarity", "hamming", "near", "code"], "the table of locations")
    near = (locations["hamming"] <= rules.near) & locations["polarity"].astype(bool)
    if (wrong := near.to_numpy() != locations["near"].to_numpy(dtype=bool)).any():
        distance, called = (locations[name].to_numpy()[wrong][0] for name in ("hamming", "near"))
        raise PrecodeValueError(
            f"near = {rules.near} in the rules, but in the table a location {distance:g} wrong signs away is "
            f"{'near' if called else 'not near'}: observe with near={rules.near}"
        )
    several = [name for name in CELL if name in locations and len(locations[name].unique()) > 1]
    for table, what in ((data.tickets, "the table of tickets"), (data.transport, "the table of row transport")):
        if table is not None:
            require(table, several, f"{what}, of several cells,")


def _chosen(claims: str | Iterable[str] | None) -> list[Claim]:
    """Records of the claims to judge.

    Raises:
        PrecodeValueError: no such claim.
    """
    if claims is None:
        return CLAIMS
    names = [claims] if isinstance(claims, str) else list(claims)
    known = {claim.name: claim for claim in CLAIMS}
    if unknown := [name for name in names if name not in known]:
        raise PrecodeValueError(f"claims = {', '.join(map(str, unknown))}: there are {', '.join(known)}")
    return [known[name] for name in names]


def judge_parts(
    observations: Observations,
    tickets: pd.DataFrame | None = None,
    transport: pd.DataFrame | None = None,
    *,
    rules: RulesLike = None,
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
    _check(Data(observations, tickets, transport), Rules.of(rules))
    values = {name: observations.locations[name].unique() for name in CELL if name in observations.locations}
    parts = [(name, value) for name, found in values.items() if len(found) > 1 for value in sorted(found)]
    frames = []
    for name, value in tracked(parts, progress, "part"):

        def of_part(table: pd.DataFrame | None, name: str = name, value: Any = value) -> Any:
            return None if table is None else table[table[name] == value]

        seen = Observations(**{key: of_part(table) for key, table in vars(observations).items()})
        verdicts = claims_table(judge(seen, of_part(tickets), of_part(transport), rules=rules))
        frames.append(verdicts.drop(columns=["statement", "rule"]).assign(by=name, part=str(value)))
    columns = ["by", "part", "name", "verdict", "effect", "low", "high", "formulas", "reason"]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


def claims_table(verdicts: Mapping[str, Verdict]) -> pd.DataFrame:
    """The verdicts as a table: one row each, with columns name, statement, verdict, effect, low, high, formulas, rule.

    Example:
        >>> from precode.claims import synthetic_study
        >>> seen = synthetic_study("planted", formulas=10).observations
        >>> claims_table(judge(seen, claims=["C1", "C6"]))["verdict"].tolist()
        ['holds', 'not enough data']
    """
    columns = ["name", "statement", "verdict", "effect", "low", "high", "formulas", "reason", "rule"]
    return pd.DataFrame([{name: getattr(verdict, name) for name in columns} for verdict in verdicts.values()])
