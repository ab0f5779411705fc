"""The engines of precode as contestants."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from precode._internal.errors import UnsupportedError
from precode.bench.contest import Entry
from precode.bench.machine import forget_peak, resident, return_memory
from precode.bench.workload import SEED, Workload
from precode.formulas.datasets import Dataset
from precode.networks.training import Runs, train

LEVEL_VARIABLE = "PRECODE_FUSED_LEVEL"
LEVELS = ("portable", "avx2", "avx512")


@contextmanager
def forced(level: str | None) -> Iterator[None]:
    """Runs the fused engine at a level; None leaves the choice to it."""
    before = os.environ.get(LEVEL_VARIABLE)
    if level is not None:
        os.environ[LEVEL_VARIABLE] = level
    try:
        yield
    finally:
        if level is not None:
            if before is None:
                del os.environ[LEVEL_VARIABLE]
            else:
                os.environ[LEVEL_VARIABLE] = before


def levels() -> list[str]:
    """Instruction levels of the fused engine that this CPU has, slowest first."""
    data = Dataset([[True, False]], [True])
    found = []
    for level in LEVELS:
        try:
            with forced(level):
                train(data=data, hidden=1, epochs=1, batch=1, engine="fused")
        except UnsupportedError:
            continue
        found.append(level)
    return found


def chosen_level() -> str:
    """The level that the fused engine takes by itself: what `LEVEL_VARIABLE` says, or else the best."""
    return os.environ.get(LEVEL_VARIABLE) or levels()[-1]


def run(workload: Workload, networks: int, engine: str, epochs: int, snapshots: tuple[int, ...] = ()) -> Runs:
    """Trains all networks for some epochs, the way a user would."""
    cell = workload.cell
    return train(
        data=workload.sets(networks),
        init=workload.start(networks),
        epochs=epochs,
        batch=cell.batch,
        optimizer=cell.rule,
        early_stopping=None,
        snapshots=snapshots,
        order_seed=SEED,
        first_epoch=0,
        engine=engine,
    )


def reference(workload: Workload, networks: int, steps: int) -> dict[str, torch.Tensor]:
    """Weights of the fused engine after some steps."""
    return run(workload, networks, "fused", 1, (steps,)).at(steps).weights


def entry(workload: Workload, networks: int, engine: str, level: str | None, epochs: int) -> Entry:
    """Whole trainings by an engine: order of samples, history and results included."""

    def work() -> None:
        with forced(level):
            run(workload, networks, engine, epochs)

    return Entry(work, amount=float(networks * epochs * workload.cell.steps))


def kept_bytes(workload: Workload, item_bytes: int | None) -> int:
    """Bytes that the training of a network must keep: weights, optimizer state, data.

    Args:
        workload: of the network.
        item_bytes: bytes of an input or label, None for packed bits.
    """
    cell = workload.cell
    weights = 4 * cell.parameters * (1 if cell.optimizer == "sgd" else 3)
    if item_bytes is None:
        return weights + workload.sets(1)[0].nbytes
    return weights + item_bytes * cell.samples * (cell.variables + 1)


def peak_bytes(workload: Workload, networks: int, engine: str, level: str | None) -> int | None:
    """Most resident bytes of a training for each network, its packed data included; None where nobody counts.

    That is what the process grows by during the call: for few networks, mostly threads and code.
    """
    data = sum(item.nbytes for item in workload.sets(networks))
    gc.collect()
    return_memory()
    before = resident("VmRSS")
    if before is None or not forget_peak():
        return None
    with forced(level):
        run(workload, networks, engine, 1)
    most = resident("VmHWM")
    return None if most is None else (data + max(most - before, 0)) // networks
