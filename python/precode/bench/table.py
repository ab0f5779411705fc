"""The table of a benchmark of training: one row a contestant, compared with the others of its turn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from precode.bench.contest import Entry, spread
from precode.bench.workload import Cell

COLUMNS = (
    "engine",
    "level",
    "networks",
    "hidden",
    "variables",
    "clauses",
    "batch",
    "optimizer",
    "embedding",
    "density",
    "us_per_network_step",
    "us_min",
    "us_max",
    "ratio_to_fused",
    "ratio_min",
    "ratio_max",
    "ratio_to_first_cell",
    "best_peer",
    "best_peer_ratio",
    "gflops",
    "share_of_peak",
    "bytes_per_network",
    "peak_bytes_per_network",
    "warmup_seconds",
    "note",
)
COUNTS = ("networks", "bytes_per_network", "peak_bytes_per_network")


@dataclass
class Row:
    """A line of the table before it is timed.

    Attributes:
        cell: what is trained.
        engine: name of the engine or peer.
        level: instructions it uses, where it says so.
        networks: trained at once, if any are.
        entry: the contestant, None if it is missing, broken or wrong.
        density: fraction of W1 that masks keep.
        ours: whether it is an engine of precode.
        note: what else is to say.
        bytes: that it must keep for each network.
        peak: most resident bytes for each network.
    """

    cell: Cell
    engine: str
    level: str | None
    networks: int | None
    entry: Entry | None
    density: float = 1.0
    ours: bool = False
    note: str = ""
    bytes: int | None = None
    peak: int | None = None

    @property
    def contestant(self) -> tuple[str, str | None, int | None, float]:
        """What is the same for this contestant in other cells."""
        return self.engine, self.level, self.networks, self.density

    @property
    def seconds(self) -> float:
        """Of a network-step, the median; infinite if it was not timed."""
        return float(np.median(self.entry.rates)) if self.entry else math.inf


def ratio(row: Row, base: Row | None) -> tuple[float, float, float]:
    """How many times as long as `base` a row takes: median, least and most of the turns; NaN if one was not timed."""
    if row.entry is None or base is None or base.entry is None:
        return math.nan, math.nan, math.nan
    # Neighbours in time are compared, then the median is taken.
    return spread(row.entry.rates / base.entry.rates)


@dataclass(frozen=True)
class Group:
    """The contestants of a cell.

    Attributes:
        rows: all of them; the fused engine without masks at its own level is the first of each number of networks.
        networks: the first number of networks of the engines.
    """

    rows: Sequence[Row]
    networks: int

    def fused(self, row: Row) -> Row | None:
        """The dense fused engine at its own level: at as many networks as an engine, at `networks` for a peer."""
        networks = row.networks if row.ours else self.networks
        return next((other for other in self.rows if other.engine == "fused" and other.networks == networks), None)

    @property
    def best_peer(self) -> Row | None:
        """The fastest peer that was timed."""
        timed = [row for row in self.rows if not row.ours and row.entry]
        return min(timed, key=lambda row: row.seconds, default=None)

    def same(self, row: Row) -> Row | None:
        """The row of the same contestant as one of another cell's."""
        return next((other for other in self.rows if other.contestant == row.contestant), None)


def table(groups: Sequence[Group], peak: float) -> pd.DataFrame:
    """All rows with `COLUMNS`; `peak` is in GFLOP/s."""
    lines = [_line(row, group, groups[0], peak) for group in groups for row in group.rows]
    return pd.DataFrame(lines, columns=list(COLUMNS)).astype(dict.fromkeys(COUNTS, "Int64"))


def _line(row: Row, group: Group, first: Group, peak: float) -> dict[str, Any]:
    cell = row.cell
    line: dict[str, Any] = dict.fromkeys(COLUMNS, math.nan)
    line |= {
        "engine": row.engine,
        "level": row.level or "",
        "networks": row.networks,
        "hidden": cell.hidden,
        "variables": cell.variables,
        "clauses": cell.clauses,
        "batch": cell.batch,
        "optimizer": cell.optimizer,
        "embedding": cell.embedding,
        "density": row.density,
        "best_peer": "",
        "bytes_per_network": row.bytes,
        "peak_bytes_per_network": row.peak,
        "note": row.note,
    }
    if row.entry is None:
        return line
    median, least, most = spread(row.entry.rates)
    line |= {"us_per_network_step": 1e6 * median, "us_min": 1e6 * least, "us_max": 1e6 * most}
    line["ratio_to_fused"], line["ratio_min"], line["ratio_max"] = ratio(row, group.fused(row))
    if row.ours:
        line["ratio_to_first_cell"], *_ = ratio(row, first.same(row))
    if best := group.best_peer:
        line |= {"best_peer": best.engine, "best_peer_ratio": ratio(best, row)[0]}
    rate = 1e-9 * cell.flops / median
    line |= {"gflops": rate, "share_of_peak": rate / peak, "warmup_seconds": row.entry.warmup}
    return line


def summary(groups: Sequence[Group]) -> Iterator[str]:
    """What the fused engine is to the best peer, to its masked steps and to the first cell: a line each."""
    for group in groups:
        for row in group.rows:
            dense = group.fused(row)
            if not row.ours or row.engine != "fused" or dense is None:
                continue
            name = f"{row.cell}: fused engine, {row.networks} networks"
            if row is not dense:
                if row.density != 1:
                    yield f"{name}: W1 masked to {row.density:g} takes {_words(ratio(row, dense))} times the dense step"
                continue
            if best := group.best_peer:
                yield (
                    f"{name}: the best peer, {best.engine} at {best.networks}, takes {_words(ratio(best, row))} times "
                    "as long"
                )
            same = groups[0].same(row)
            if group is not groups[0] and same:
                yield f"{name}: {_words(ratio(row, same))} times the first cell"


def _words(ratios: tuple[float, float, float]) -> str:
    return "{:.3g} ({:.3g} to {:.3g})".format(*ratios)


def markdown(table: pd.DataFrame) -> str:
    """The table of the documentation: a line for each contestant, a dash where it was not timed."""
    head = [*("contestant", "level", "networks", "microseconds", "least to most", "times fused (least to most)")]
    head += ["share of peak", "bytes a network"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in table.to_dict("records"):

        def cell(form: str, *names: str, row: dict[Any, Any] = row) -> str:
            return "—" if any(pd.isna(row[name]) for name in names) else form.format(*(row[name] for name in names))

        cells = [
            cell("{}", "engine"),
            cell("{}", "level"),
            cell("{}", "networks"),
            cell("{:.3g}", "us_per_network_step"),
            cell("{:.3g} to {:.3g}", "us_min", "us_max"),
            cell("{:.3g} ({:.3g} to {:.3g})", "ratio_to_fused", "ratio_min", "ratio_max"),
            cell("{:.3g}", "share_of_peak"),
            cell("{:,}", "bytes_per_network"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
