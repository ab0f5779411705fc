"""The engines of precode as contestants."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from precode._internal.errors import UnsupportedError
from precode.bench.contest import Entry
from precode.bench.machine import growth, wait
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


@dataclass(frozen=True)
class Contestant:
    """A way to train with precode.

    Attributes:
        engine: ``"fused"`` or ``"libtorch"``.
        level: instructions it uses, which the fused engine is made to use, or the device that is not the CPU.
        density: fraction of W1 that masks keep.
    """

    engine: str
    level: str
    density: float = 1.0

    @property
    def forced(self) -> str | None:
        """The level that must be forced."""
        return self.level if self.engine == "fused" else None


def run(
    workload: Workload,
    networks: int,
    engine: str,
    epochs: int,
    snapshots: tuple[int, ...] = (),
    masks: Mapping[str, torch.Tensor] | None = None,
) -> Runs:
    """Trains all networks for some epochs, the way a user would."""
    cell = workload.cell
    return train(
        data=workload.sets(networks),
        hidden=cell.hidden,
        seed=SEED,
        masks=masks,
        embedding=cell.embedding,
        epochs=epochs,
        batch=cell.batch,
        optimizer=cell.rule,
        early_stopping=None,
        snapshots=snapshots,
        engine=engine,
        device="cpu" if engine == "fused" else workload.device,
    )


def reference(workload: Workload, networks: int, steps: int) -> dict[str, torch.Tensor]:
    """Weights of the fused engine after some steps."""
    return run(workload, networks, "fused", 1, (steps,)).at(steps).weights


def entry(workload: Workload, networks: int, contestant: Contestant, epochs: int) -> Entry:
    """Whole trainings by an engine: initial weights, order of samples, history and results included."""
    masks = workload.masks(networks, contestant.density)

    def work() -> None:
        with forced(contestant.forced):
            run(workload, networks, contestant.engine, epochs, masks=masks)
        wait(workload.device)

    return Entry(work, amount=float(networks * epochs * workload.cell.steps))


def kept_bytes(workload: Workload, engine: str) -> int:
    """Bytes that the training of a network by an engine must keep: weights, optimizer state, data."""
    cell = workload.cell
    c0 = 4 * cell.inputs * cell.variables if cell.fixes_c0 else 0
    data = workload.sets(1)[0].nbytes if engine == "fused" else cell.samples * (cell.variables + 1)
    return cell.state_bytes + c0 + data


def peak_bytes(workload: Workload, networks: int, contestant: Contestant) -> int | None:
    """Most resident bytes of a training for each network, its packed data included; None where nobody counts.

    That is what the process grows by during the call: for few networks, mostly threads and code. Of a training on a
    CUDA device, it is what torch has allocated there.
    """
    on_device = contestant.engine == "libtorch" and workload.device.type != "cpu"
    data = 0 if on_device else sum(item.nbytes for item in workload.sets(networks))
    masks = workload.masks(networks, contestant.density)
    gc.collect()
    grown = growth(workload.device if on_device else torch.device("cpu"))
    with forced(contestant.forced):
        run(workload, networks, contestant.engine, 1, masks=masks)
    most = grown()
    return None if most is None else (data + most) // networks
