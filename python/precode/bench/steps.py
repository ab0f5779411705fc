"""Microseconds per network-step of every engine and every peer, in one run."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import pandas as pd
import torch

from precode._internal.errors import PrecodeValueError
from precode.bench import contest, engines, machine
from precode.bench.contest import Entry, interleave
from precode.bench.engines import Contestant
from precode.bench.machine import wait
from precode.bench.table import Group, Row, summary, table
from precode.bench.trainers import Peer, Trainer
from precode.bench.workload import CHECK_STEPS, Cell, Workload
from precode.networks.settings import resolve_device

TOLERANCE = 0.01
"""How far a peer's weights may be from the fused engine's after `CHECK_STEPS` steps: the Euclidean norm of the
difference, relative to the way that the weights have gone since the start."""

Report: TypeAlias = Callable[[str], None]


def training(
    cells: Sequence[Cell],
    networks: Sequence[int] = (128,),
    *,
    peers: Sequence[Peer] = (),
    levels: bool = False,
    densities: Sequence[float] = (),
    device: str | torch.device = "cpu",
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
        densities: also measure the fused engine with random masks that keep these fractions of W1, in (0, 1].
        device: where the libtorch engine and the peers train, such as ``"cuda"``; the fused engine runs on the CPU.
        repeats: stretches of each contestant; they take turns.
        seconds: length of a stretch, by default `precode.bench.contest.SECONDS`.
        report: told what is going on.

    Returns:
        One row a contestant, with `COLUMNS`: medians over the repeats, with the least and the most. Operations are
        `Cell.flops`; the peak is the best rate of a large float32 product on the device, by torch or NumPy. A peer that
        is not installed, does not run or computes something else has a note instead of figures. ``ratio_to_fused`` is
        to the dense fused engine of the same cell, ``ratio_to_first_cell`` to the same engine in the first of `cells`,
        and ``best_peer_ratio`` is how many times as long as the row the fastest peer of its cell takes.

    Raises:
        PrecodeValueError: nothing to measure, a density out of range, or a device that torch does not know.
        UnsupportedError: a device that is not available.
    """
    place = resolve_device(device)
    if not cells or not networks or repeats < 1:
        raise PrecodeValueError(
            f"{len(cells)} cells, {len(networks)} numbers of networks, {repeats} repeats: need one of each"
        )
    if wrong := [density for density in densities if not 0 < density <= 1]:
        raise PrecodeValueError(f"density = {wrong[0]}: must be in (0, 1]")
    seconds = contest.SECONDS if seconds is None else seconds
    tell = report or (lambda line: None)
    ours = _contestants(levels, densities, place)
    products = machine.sgemm(place)
    for product in products:
        product.calibrate(seconds)
    groups = [Group(_rows(Workload(cell, place), networks, ours, peers, seconds, tell), networks[0]) for cell in cells]
    timed = [row.entry for group in groups for row in group.rows if row.entry]
    tell(f"measuring {len(timed)} contestants in turn, {repeats} times")
    interleave([*products, *timed], repeats, pause=min(contest.PAUSE, seconds))
    best = 1e-9 / min(product.rates.min() for product in products)
    tell(f"practical peak: {best:.0f} GFLOP/s (float32 product of {machine.PRODUCT} x {machine.PRODUCT})")
    for line in summary(groups):
        tell(line)
    return table(groups, best)


def _level(device: torch.device) -> str:
    """The instructions that torch uses on the CPU, or the name of another device."""
    return torch.backends.cpu.get_cpu_capability().lower() if device.type == "cpu" else str(device)


def _contestants(levels: bool, densities: Sequence[float], device: torch.device) -> list[Contestant]:
    """The engines, the fused one at its own level and without masks first."""
    chosen = engines.chosen_level()
    others = [level for level in engines.levels() if level != chosen] if levels else []
    return [
        *(Contestant("fused", level) for level in (chosen, *others)),
        *(Contestant("fused", chosen, density) for density in dict.fromkeys(densities) if density != 1),
        Contestant("libtorch", _level(device)),
    ]


def _rows(
    workload: Workload,
    networks: Sequence[int],
    ours: Sequence[Contestant],
    peers: Sequence[Peer],
    seconds: float,
    tell: Report,
) -> list[Row]:
    """All contestants of a cell, warm."""
    cell, rows = workload.cell, []
    for count in networks:
        workload.sets(count)
        for one in ours:
            masked = "" if one.density == 1 else f", W1 masked to {one.density:g}"
            tell(f"warming up {one.engine} ({one.level}{masked}), {count} networks, {cell}")
            peak = engines.peak_bytes(workload, count, one)
            single = engines.entry(workload, count, one, 1)
            # Enough epochs for a stretch, in one training.
            epochs = max(1, min(math.ceil(seconds / single.calibrate(seconds / 3)), 10_000))
            entry = engines.entry(workload, count, one, epochs)
            entry.warmup = single.warmup
            kept = engines.kept_bytes(workload, one.engine)
            rows.append(Row(cell, one.engine, one.level, count, entry, one.density, True, bytes=kept, peak=peak))
    # A GPU has room for far more networks than a CPU: peers are tried at the engines' own numbers there, too.
    more = networks if workload.device.type != "cpu" else ()
    return rows + [_peer(peer, more, workload, seconds, tell) for peer in peers]


def _entry(trainer: Trainer) -> Entry:
    problem = trainer.problem

    def work() -> None:
        trainer.train(problem.steps)
        wait(problem.device)

    return Entry(
        work,
        amount=float(problem.steps * problem.networks),
        prepare=trainer.reset,
    )


def _peer(peer: Peer, more: Sequence[int], workload: Workload, seconds: float, tell: Report) -> Row:
    """A peer at its best number of networks, if it is there and right; those that stack networks also try `more`."""
    level = peer.level() if workload.device.type == "cpu" else str(workload.device)
    row = Row(workload.cell, peer.name, level, None, None)
    if importlib.util.find_spec(peer.package) is None:
        row.note = f"not installed: {peer.install}"
        return row
    tries: list[tuple[float, int]] = []
    try:
        for networks in sorted({*peer.sizes, *more}) if len(peer.sizes) > 1 else peer.sizes:
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
    row.bytes = peer.kept_bytes(workload.cell)
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
    # The engine may also return what a peer does not train, a fixed C0.
    difference = torch.cat([(got[name].cpu() - expected[name]).flatten() for name in problem.start])
    way = torch.cat([(weight.cpu() - expected[name]).flatten() for name, weight in problem.start.items()])
    return float(difference.norm() / way.norm())
