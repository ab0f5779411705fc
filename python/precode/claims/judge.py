"""All claims of the paper at once: everything here loops over the list of claims."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from precode._internal.errors import PrecodeTypeError, PrecodeValueError
from precode._internal.progress import Progress, tracked
from precode._internal.statistics import CELL
from precode.claims.candidates import of_codes
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


HEAD = "projection-16"
"""The embedding of the paper's setting, in which claims are judged first; see `precode.experiments.paper`."""

PARTS = ["by", "part", "name", "verdict", "effect", "low", "high", "formulas", "reason"]
"""Columns of the parts of a study."""


def judge_setting(
    observations: Observations,
    tickets: pd.DataFrame | None = None,
    transport: pd.DataFrame | None = None,
    *,
    head: str | None = None,
    rules: RulesLike = None,
    progress: Progress = False,
) -> dict[str, Verdict]:
    """Judges every claim in one setting, the paper's where it is there, and shows the others beside it.

    The verdict is that of the cells of one embedding, over all widths and numbers of clauses. Other embeddings, and
    codes of each polarity alone, are judged by themselves: a mean over settings that give opposite answers is none.

    Args:
        observations: see `judge`.
        tickets: see `judge`.
        transport: see `judge`.
        head: the embedding whose cells give the verdict; by default `HEAD` where there are such cells, else the first.
        rules: see `judge`.
        progress: True for a bar, or a function of (parts judged, parts).

    Returns:
        The verdicts by the claim's name. Their `setting` is the head, `elsewhere` the other embeddings and each
        polarity, and their tables have ``parts``: all of these, and each width and number of clauses of the head. These
        are many looks at the same networks, without a correction.

    Raises:
        PrecodeValueError: no cells of the head; else as `judge`.

    Example:
        >>> from precode.claims import Observations, synthetic_study
        >>> studies = [synthetic_study("planted", formulas=10, hidden=hidden) for hidden in (24, 32)]
        >>> verdict = judge_setting(Observations.concat([study.observations for study in studies]))["C1"]
        >>> verdict.setting, [(part["setting"], part["verdict"]) for part in verdict.elsewhere]
        ('identity', [('4P alone', 'holds'), ('3N1P alone', 'holds')])
        >>> verdict.table("parts")[["by", "part"]].values.tolist()
        [['codes', '4P alone'], ['codes', '3N1P alone'], ['hidden', '24'], ['hidden', '32']]
    """
    shared = Rules.of(rules)
    data = Data(observations, tickets, transport)
    _check(data, shared)
    found = list(dict.fromkeys(observations.locations["embedding"])) if "embedding" in observations.locations else []
    chosen = head or (HEAD if HEAD in found else found[0] if found else "")
    if found and chosen not in found:
        raise PrecodeValueError(f"head = {chosen!r}: there are cells of {', '.join(found)}")
    first = _of(data, "embedding", chosen) if found else data
    verdicts = {claim.name: claim.judge(first, shared) for claim in CLAIMS}
    looks = [("embedding", str(name), _of(data, "embedding", name), shared, CLAIMS) for name in found if name != chosen]
    # Claims about tickets do not look at single templates.
    seen = [claim for claim in CLAIMS if claim.needs == ("observations",)]
    looks += [
        ("codes", f"{template} alone", first, replace(shared, polarities=(polarity,)), seen)
        for polarity, template in _templates(first, shared)
    ]
    for name in ("hidden", "clauses"):
        values = sorted(first.observations.locations[name].unique()) if name in first.observations.locations else []
        looks += [(name, str(value), _of(first, name, value), shared, CLAIMS) for value in values if len(values) > 1]
    frames = [pd.DataFrame(columns=PARTS)]
    for by, part, some, own, claims in tracked(looks, progress, "part"):
        table = claims_table({claim.name: claim.judge(some, own) for claim in claims})
        frames.append(table.assign(by=by, part=part)[PARTS])
    parts = pd.concat([frame for frame in frames if len(frame)] or frames, ignore_index=True)
    return {name: _beside(verdict, chosen, parts[parts["name"] == name]) for name, verdict in verdicts.items()}


def _templates(data: Data, rules: Rules) -> list[tuple[str, str]]:
    """The polarities of codes with their templates, where there are several."""
    names = data.observations.locations["template"].astype(str).unique()
    found = [
        (polarity, name)
        for polarity in rules.polarities
        for name in names
        if of_codes(pd.Series([name]), [polarity]).item()
    ]
    return found if len(found) > 1 else []


def _of(data: Data, column: str, value: Any) -> Data:
    """The rows of all tables that have a value in a column."""

    def some(table: pd.DataFrame | None) -> Any:
        return None if table is None else table[table[column] == value]

    seen = Observations(**{name: some(table) for name, table in vars(data.observations).items()})
    return Data(seen, some(data.tickets), some(data.transport))


def _beside(verdict: Verdict, setting: str, parts: pd.DataFrame) -> Verdict:
    """A verdict with where it was reached, and what was found elsewhere."""
    parts = parts.drop(columns="name").reset_index(drop=True)
    others = parts[parts["by"].isin(["embedding", "codes"])].rename(columns={"part": "setting"})
    columns = ["setting", "verdict", "effect", "low", "high", "formulas"]
    elsewhere = [{str(name): value for name, value in row.items()} for row in others[columns].to_dict("records")]
    return replace(verdict, setting=setting, elsewhere=elsewhere, tables={**verdict.tables, "parts": parts})


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
