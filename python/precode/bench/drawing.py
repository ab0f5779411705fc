"""How long drawing a formula and the samples of a network takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import pandas as pd

from precode._internal.errors import PrecodeValueError
from precode.bench import contest
from precode.bench.contest import Entry, interleave, spread
from precode.bench.workload import SEED, Cell, Workload

SAMPLERS = ("broken-clause", "uniform")
"""Samplers that are measured."""
NETWORKS = 8
"""Networks, each with a formula of its own, that are drawn for in one unit of work."""

COLUMNS = (
    "sampler",
    "variables",
    "clauses",
    "samples",
    "ms_per_network",
    "ms_min",
    "ms_max",
    "ns_per_sample",
)

Report: TypeAlias = Callable[[str], None]


def draw(workload: Workload, sampler: str) -> None:
    """Draws the formulas and samples of some networks, one network after the other, each on one core."""
    for index in range(NETWORKS):
        workload.task(index).sample(workload.cell.samples, seed=SEED, index=index, sampler=sampler)


def sampling(
    cells: Sequence[Cell],
    *,
    samplers: Sequence[str] = SAMPLERS,
    repeats: int = 5,
    seconds: float | None = None,
    report: Report | None = None,
) -> pd.DataFrame:
    """Measures drawing of data: ``Dnf.random(...).sample(samples)``, network by network, which takes one core.

    Args:
        cells: settings to measure; variables, clauses and samples of them matter.
        samplers: names as in `precode.Dnf.sample`.
        repeats: stretches of each; they take turns.
        seconds: length of a stretch, by default `precode.bench.contest.SECONDS`.
        report: told what is going on.

    Returns:
        One row a sampler and setting, with `COLUMNS`: medians over the repeats, with the least and the most.

    Raises:
        PrecodeValueError: nothing to measure, or what `precode.Dnf.random` and `precode.Dnf.sample` refuse.
    """
    if not cells or not samplers or repeats < 1:
        raise PrecodeValueError(f"{len(cells)} cells, {len(samplers)} samplers, {repeats} repeats: need one of each")
    seconds = contest.SECONDS if seconds is None else seconds
    tell = report or (lambda line: None)
    entries: list[tuple[Cell, str, Entry]] = []
    for cell in cells:
        for sampler in samplers:
            tell(f"warming up sampler {sampler}, {cell.variables} variables, {cell.clauses} clauses")
            entry = Entry(partial(draw, Workload(cell), sampler), amount=float(NETWORKS))
            entry.calibrate(seconds)
            entries.append((cell, sampler, entry))
    tell(f"measuring {len(entries)} samplers in turn, {repeats} times")
    interleave([entry for *_, entry in entries], repeats, pause=min(contest.PAUSE, seconds))
    return pd.DataFrame([_line(*entry) for entry in entries], columns=list(COLUMNS))


def _line(cell: Cell, sampler: str, entry: Entry) -> dict[str, Any]:
    median, least, most = spread(entry.rates)
    return {
        "sampler": sampler,
        "variables": cell.variables,
        "clauses": cell.clauses,
        "samples": cell.samples,
        "ms_per_network": 1e3 * median,
        "ms_min": 1e3 * least,
        "ms_max": 1e3 * most,
        "ns_per_sample": 1e9 * median / cell.samples,
    }
