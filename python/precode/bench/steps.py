"""Microseconds per network-step of every engine and every peer, in one run."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pandas as pd
import torch

from precode._internal.errors import PrecodeValueError
from precode.bench import contest, engines, machine
from precode.bench.contest import Entry, interleave, spread
from precode.bench.peers import Peer, Trainer
from precode.bench.workload import CHECK_STEPS, Cell, Workload

TOLERANCE = 0.01
"""How far a peer's weights may be from the fused engine's after `CHECK_STEPS` steps: the Euclidean norm of the
difference, relative to the way that the weights have gone since the start."""

COLUMNS = (
    "engine",
    "level",
    "networks",
    "hidden",
    "variables",
    "clauses",
    "batch",
    "optimizer",
    "us_per_network_step",
    "us_min",
    "us_max",
    "ratio_to_fused",
    "ratio_min",
    "ratio_max",
    "gflops",
    "share_of_peak",
    "bytes_per_network",
    "peak_bytes_per_network",
    "warmup_seconds",
    "note",
)

Report: TypeAlias = Callable[[str], None]


@dataclass
class Row:
    """A line of the table before it is timed."""

    cell: Cell
    engine: str
    level: str | None
    networks: int | None
    entry: Entry | None
    note: str = ""
    bytes: int | None = None
    peak: int | None = None


def training(
    cells: Sequence[Cell],
    networks: Sequence[int] = (128,),
    *,
    peers: Sequence[Peer] = (),
    levels: bool = False,
    repeats: int = 5,
    seconds: float | None = None,
    report: Report | None = None,
) -> pd.DataFrame:
    """Measures training.

    Each peer runs at the number of networks that is best for it; its ratio is to the fused engine at the first of
    `networks`.

    Args:
        cells: settings to measure.
        networks: numbers of networks that the engines train at once.
        peers: what to compare with; see `precode.bench.PEERS`.
        levels: measure the fused engine at every instruction level of the CPU, not only at its own choice.
        repeats: stretches of each contestant; they take turns.
        seconds: length of a stretch, by default `precode.bench.contest.SECONDS`.
        report: told what is going on.

    Returns:
        One row a contestant, with `COLUMNS`: medians over the repeats, with the least and the most. Operations are
        `Cell.flops`; the peak is the best rate of a large float32 product by torch or NumPy. A peer that is not
        installed, does not run or computes something else has a note instead of figures.

    Raises:
        PrecodeValueError: nothing to measure.
    """
    if not cells or not networks or repeats < 1:
        raise PrecodeValueError(
            f"{len(cells)} cells, {len(networks)} numbers of networks, {repeats} repeats: need one of each"
        )
    seconds = contest.SECONDS if seconds is None else seconds
    tell = report or (lambda line: None)
    chosen = engines.chosen_level()
    listed = [level for level in engines.levels() if level != chosen] if levels else []
    products = machine.sgemm()
    for product in products:
        product.calibrate(seconds)
    groups = [_group(cell, networks, (chosen, *listed), peers, seconds, tell) for cell in cells]
    timed = [row.entry for group in groups for row in group if row.entry]
    tell(f"measuring {len(timed)} contestants in turn, {repeats} times")
    interleave([*products, *timed], repeats, pause=min(contest.PAUSE, seconds))
    best = 1e-9 / min(product.rates.min() for product in products)
    tell(f"practical peak: {best:.0f} GFLOP/s (float32 product of {machine.PRODUCT} x {machine.PRODUCT})")
    lines = [_line(row, _base(row, group, networks[0]), best) for group in groups for row in group]
    counts = ("networks", "bytes_per_network", "peak_bytes_per_network")
    return pd.DataFrame(lines, columns=list(COLUMNS)).astype(dict.fromkeys(counts, "Int64"))


def _group(
    cell: Cell,
    networks: Sequence[int],
    levels: Sequence[str],
    peers: Sequence[Peer],
    seconds: float,
    tell: Report,
) -> list[Row]:
    """All contestants of a cell, warm."""
    workload = Workload(cell)
    rows = []
    ours = [("fused", level) for level in levels]
    ours.append(("libtorch", torch.backends.cpu.get_cpu_capability().lower()))
    for count in networks:
        workload.sets(count)
        for engine, level in ours:
            tell(f"warming up {engine} ({level}), {count} networks, {cell}")
            forced = level if engine == "fused" else None
            peak = engines.peak_bytes(workload, count, engine, forced)
            single = engines.entry(workload, count, engine, forced, 1)
            # Enough epochs for a stretch, in one training.
            epochs = max(1, min(math.ceil(seconds / single.calibrate(seconds / 3)), 10_000))
            entry = engines.entry(workload, count, engine, forced, epochs)
            entry.warmup = single.warmup
            kept = engines.kept_bytes(workload, None if engine == "fused" else 1)
            rows.append(Row(cell, engine, level, count, entry, bytes=kept, peak=peak))
    return rows + [_peer(peer, workload, seconds, tell) for peer in peers]


def _entry(trainer: Trainer) -> Entry:
    problem = trainer.problem
    return Entry(
        lambda: trainer.train(problem.steps),
        amount=float(problem.steps * problem.networks),
        prepare=trainer.reset,
    )


def _peer(peer: Peer, workload: Workload, seconds: float, tell: Report) -> Row:
    """A peer at its best number of networks, if it is there and right."""
    row = Row(workload.cell, peer.name, peer.level(), None, None)
    if importlib.util.find_spec(peer.package) is None:
        row.note = f"not installed: {peer.install}"
        return row
    tries: list[tuple[float, int]] = []
    try:
        for networks in peer.sizes:
            tell(f"calibrating {peer.name}, {networks} networks")
            trainer = peer.trainer(workload.problem(networks))
            entry = _entry(trainer)
            rate = entry.calibrate(seconds) / entry.amount
            # Batches and compiled code are kept of the best only.
            tries = [*tries, (rate, networks)]
            if rate == min(tries)[0]:
                row.networks, row.entry, best = networks, entry, trainer
        deviation = check(best, workload)
    except Exception as error:
        # Whatever goes wrong in a peer must not take the benchmark down, and must not be hidden.
        row.entry = None
        row.note = f"failed: {type(error).__name__}: {_first_line(error)}"
        return row
    if not deviation <= TOLERANCE:
        row.entry = None
        row.note = f"wrong: weights after {CHECK_STEPS} steps are {deviation:.1%} off (tolerance {TOLERANCE:.0%})"
        return row
    tried = ", ".join(f"{networks}: {1e6 * rate:.1f} us" for rate, networks in tries)
    row.note = f"weights agree to {deviation:.0e}"
    if len(tries) > 1:
        row.note += f"; best of {tried}"
    row.bytes = engines.kept_bytes(workload, peer.item_bytes)
    return row


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "no message"


def check(trainer: Trainer, workload: Workload) -> float:
    """How far a peer's weights are from the fused engine's after a few steps; see `TOLERANCE`."""
    problem = trainer.problem
    steps = min(CHECK_STEPS, problem.steps)
    expected = engines.reference(workload, problem.networks, steps)
    trainer.reset()
    trainer.train(steps)
    got = trainer.weights()
    difference = torch.cat([(got[name] - expected[name]).flatten() for name in expected])
    way = torch.cat([(problem.start[name] - expected[name]).flatten() for name in expected])
    return float(difference.norm() / way.norm())


def _base(row: Row, group: Sequence[Row], networks: int) -> Entry | None:
    """The fused engine at its own level, at as many networks, or at `networks` for a peer."""
    ours = {other.networks: other.entry for other in reversed(group) if other.engine == "fused"}
    return ours.get(row.networks if row.engine in ("fused", "libtorch") else networks)


def _line(row: Row, base: Entry | None, peak: float) -> dict[str, Any]:
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
        "bytes_per_network": row.bytes,
        "peak_bytes_per_network": row.peak,
        "note": row.note,
    }
    if row.entry is None or base is None:
        return line
    median, least, most = spread(row.entry.rates)
    line |= {"us_per_network_step": 1e6 * median, "us_min": 1e6 * least, "us_max": 1e6 * most}
    # Neighbours in time are compared, then the median is taken.
    ratio, least, most = spread(row.entry.rates / base.rates)
    line |= {"ratio_to_fused": ratio, "ratio_min": least, "ratio_max": most}
    rate = 1e-9 * cell.flops / median
    line |= {"gflops": rate, "share_of_peak": rate / peak, "warmup_seconds": row.entry.warmup}
    return line
