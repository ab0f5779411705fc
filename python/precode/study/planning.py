"""The cells of a study: what a configuration falls into, and what that costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from precode._internal.cells import Cell, Job, Kind
from precode._internal.errors import PrecodeTypeError, PrecodeValueError
from precode.claims.cells import CODES, TICKETS
from precode.study.config import StudyConfig
from precode.study.reproduction import KIND as EXPERIMENTS

KINDS: dict[str, Kind] = {kind.name: kind for kind in (CODES, TICKETS, EXPERIMENTS)}
"""The kinds that a study consists of, by name, in the order of computation; see `register`."""


def register(kind: Kind) -> Kind:
    """Makes a kind part of every study; folders that are there stay valid, and compute its cells when run again.

    Raises:
        PrecodeValueError: there is one of that name.
    """
    if kind.name in KINDS:
        raise PrecodeValueError(f"kind {kind.name!r} is there already: choose another name")
    KINDS[kind.name] = kind
    return kind


@dataclass(frozen=True)
class Plan:
    """The cells of a study, in the order of its tables; made by `plan`.

    Example:
        >>> planned = plan(StudyConfig.preset("quick", methods=["imp", "snip"]))
        >>> planned.table()["kind"].value_counts().to_dict()
        {'tickets': 18, 'codes': 6, 'experiment': 6}
    """

    cells: tuple[Cell, ...]

    def __repr__(self) -> str:
        return f"Plan(cells={len(self.cells)}, core-seconds={self.seconds:.3g})"

    def _repr_html_(self) -> str:
        counts = self.table().groupby("kind", sort=False).agg(cells=("key", "size"), seconds=("seconds", "sum"))
        return counts.reset_index().to_html(index=False, float_format="{:.3g}".format, border=0)

    @property
    def seconds(self) -> float:
        """Estimate of what all cells take on one core."""
        return sum(cell.seconds for cell in self.cells)

    def jobs(self, finished: Mapping[str, Iterable[Job]]) -> list[Job]:
        """What is left to do.

        Args:
            finished: jobs that are finished, by the key of their cell.
        """
        return [job for cell in self.cells for job in cell.jobs(finished.get(cell.key, ()))]

    def table(self) -> pd.DataFrame:
        """One row a cell: kind, key, parts (their number), seconds (the estimate for one core), settings (JSON)."""
        rows = [(cell.kind, cell.key, cell.size, cell.seconds, cell.text) for cell in self.cells]
        return pd.DataFrame(rows, columns=["kind", "key", "parts", "seconds", "settings"])

    def describe(self, cores: int) -> str:
        """The cells of each kind, what they cost, and a time for so many cores, as text."""
        table = self.table().groupby("kind", sort=False)["seconds"].agg(["size", "sum"])
        lines = [f"{name}: {row['size']:.0f} cells, {row['sum']:.0f} core-seconds" for name, row in table.iterrows()]
        return "\n".join([*lines, f"{len(self.cells)} cells, about {duration(self.seconds / cores)} on {cores} cores"])


def duration(seconds: float) -> str:
    """A time as people say it.

    Example:
        >>> duration(42), duration(150), duration(7260)
        ('42 s', '2.5 min', '2.0 h')
    """
    for limit, unit, name in ((100, 1, "s"), (6000, 60, "min")):
        if seconds < limit:
            return f"{seconds / unit:.{0 if unit == 1 else 1}f} {name}"
    return f"{seconds / 3600:.1f} h"


def plan(config: StudyConfig, kinds: Iterable[Kind] | None = None) -> Plan:
    """The cells that a configuration falls into.

    Args:
        config: of the study.
        kinds: those of `KINDS` by default.

    Raises:
        PrecodeValueError: a kind's settings have no JSON form, two cells are the same, or there are none.

    Example:
        >>> cells = plan(StudyConfig.preset("quick", methods=["imp"])).cells
        >>> len(cells), cells[0].kind, cells[0].settings["clauses"], cells[0].parts["formula"][-1]
        (18, 'codes', 8, 19)
    """
    if not isinstance(config, StudyConfig):
        raise PrecodeTypeError(f"config must be a StudyConfig, not {type(config).__name__}")
    cells: dict[str, Cell] = {}
    names: set[str] = set()
    for kind in KINDS.values() if kinds is None else kinds:
        if kind.name in names:
            raise PrecodeValueError(f"kind {kind.name!r} is there twice: give each kind a name of its own")
        names.add(kind.name)
        for cell in kind.planned(config):
            if cell.key in cells:
                raise PrecodeValueError(f"cell {cell} is planned twice")
            cells[cell.key] = cell
    if not cells:
        raise PrecodeValueError("the study has no cells: register a kind, or pass kinds")
    return Plan(tuple(cells.values()))
