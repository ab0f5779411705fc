"""Finds tickets in stacks of networks by every method of the registry."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import torch

from precode import _precode
from precode._internal import memory
from precode._internal.check import COUNT, KEY, fractions, integer, integers
from precode._internal.errors import PrecodeTypeError, PrecodeValueError, TicketWarning
from precode._internal.progress import Progress, reporter
from precode.codes import embedding as embeddings
from precode.codes.readouts import clause_sets
from precode.networks.stacks import Layers, Networks
from precode.networks.training import Runs, TrainSettings
from precode.tickets.registry import READS_CODES, needs, record, records, resolve_methods
from precode.tickets.stacked import Found, Tickets

PRUNABLE = ("w1", "all")

Moment: TypeAlias = "tuple[int, Layers, torch.Tensor | None]"
"""Networks during training: optimizer steps behind them, their layers, and their own C0 where they have some."""

SCORING_SAMPLES = 4096
"""Samples of the scoring batch, if there are so many."""

SCORING_CHUNK = 256
"""Samples of the scoring batch that are evaluated at a time."""


def find_tickets(
    runs: Runs,
    methods: str | Iterable[str] = "all",
    densities: float | Iterable[float] = (0.25, 0.125),
    *,
    prunable: str = "w1",
    granularity: str = "weight",
    scope: str = "global",
    at: int | Iterable[int] | None = None,
    rewind: int = 0,
    seed: int = 0,
    output: int = 0,
    engine: str = "auto",
    progress: Progress = False,
) -> Tickets:
    """Finds lottery tickets in a stack of trained networks by any of the methods of `precode.methods`.

    Every ticket starts from the same initial weights as its dense network (methods that do not are marked in the
    registry) and keeps exactly round(density * weights) of the prunable weights, half to even, ties to the lowest
    flat index.

    Args:
        runs: dense networks, from `train`.
        methods: names, ``"all"``, or names with a control such as ``"snip:shuffle-row"``; see `precode.methods`.
            ``"all"`` are those that the networks have what they need for; the others are named in a warning.
        densities: fractions of the prunable weights that are kept, in (0, 1].
        prunable: ``"w1"``, the first layer, or ``"all"`` layers; biases are never pruned.
        granularity: what is kept as one: a ``"weight"``, a ``"row"`` (neuron) or a ``"column"`` (input).
        scope: scores are compared over all prunable weights (``"global"``) or ``"per-layer"``.
        at: epochs of the dense run after which the networks are read, one or several, by methods that can read them
            early (``early`` of `precode.methods`); by default, each method's own moment. Such a method gives tickets
            for every epoch, the others theirs once. Tickets start at the initial weights whenever they were read.
            Networks that stopped before an epoch are read as they stopped.
        rewind: epochs of the dense run that tickets start after, with the rest of its epochs and of its order of the
            data ahead of them; for methods that prune a trained network (``rewinds`` of `precode.methods`).
        seed: key of the methods' own randomness.
        output: the output whose weights give rows their polarity, for methods that read codes.
        engine: what trains the networks of methods that train; see `train`.
        progress: False, True for a bar over the methods, or a function of (methods done, in all).

    Raises:
        PrecodeValueError: an unknown method or a density out of range; a density that keeps no weight; a method that
            needs clauses in networks trained without a formula; data that tell no clauses, where they are sought in
            them; an epoch that the dense run does not have; ``at``
            without a method that reads early, ``rewind`` with one that does not rewind; a network whose layer inputs
            are all zero, for OBS.
        UnsupportedError: a search that does not fit into memory.
        KeyboardInterrupt: Ctrl-C; nothing is kept.

    Warns:
        TicketWarning: methods that ``"all"`` leaves out, with what they need.

    Example:
        >>> from precode import Dnf, train
        >>> runs = train([Dnf.random(clauses=4, seed=0)] * 2, hidden=16, epochs=3, samples=2000)
        >>> tickets = find_tickets(runs, ["magnitude", "snip"], 0.25)
        >>> tickets.table()[["method", "density", "formula", "kept", "total"]]
              method  density  formula  kept  total
        0  magnitude     0.25        0   128    512
        1  magnitude     0.25        1   128    512
        2       snip     0.25        0   128    512
        3       snip     0.25        1   128    512
        >>> bool(tickets.retrain().table()["accuracy"].between(0.5, 1).all())
        True
        >>> early = find_tickets(runs, ["checkpoint-magnitude", "snip"], 0.25, at=[0, 2])
        >>> early.table().query("formula == 0")[["method", "probe_epoch", "dense_epochs"]].values.tolist()
        [['checkpoint-magnitude', 0.0, 0.0], ['checkpoint-magnitude', 2.0, 2.0], ['snip', 0.0, 0.0], ['snip', 2.0, 2.0]]
    """
    if not isinstance(runs, Runs):
        raise PrecodeTypeError(f"runs must be the result of precode.train, not {type(runs).__name__}")
    deep = len(runs.widths) != 3
    wanted, left_out = resolve_methods(methods, clauses=runs.tasks is not None, pair=not deep)
    reading = [
        method
        for method in wanted
        if record(method)["features"] or not {*needs(record(method))}.isdisjoint(READS_CODES)
    ]
    if deep and reading:
        raise PrecodeValueError(
            f"{', '.join(reading)}: for networks of one hidden layer, whose rows have codes and weights to outputs, "
            f"not of widths {runs.widths}; use methods that do not need two linear layers"
        )
    if left_out:
        has = f"networks of widths {runs.widths}" if deep else "networks without a formula"
        named = "; ".join(f"{name} ({missing})" for name, missing in left_out.items())
        warnings.warn(f"'all' leaves out methods that need what {has} do not have: {named}", TicketWarning, 2)
    kept = list(dict.fromkeys(fractions(densities, "density")))
    if prunable not in PRUNABLE:
        raise PrecodeValueError(f"prunable = {prunable!r}: use one of {', '.join(PRUNABLE)}")
    seed = integer(seed, "seed", 0, KEY)
    output = integer(output, "output", 0, runs.widths[-1] - 1)
    readings = moments(wanted, at, runs.settings.epochs)
    rewind = rewinding(wanted, rewind, runs.settings.epochs)
    for method in wanted:
        memory.check(
            _memory_needed(runs, method, engine),
            f"finding tickets of {len(runs)} networks by {method!r}",
            "search fewer networks at a time",
        )
    found = []
    with reporter(progress, len(readings), "method") as report:
        began = time.perf_counter()
        during = _during(runs, readings, rewind)
        shared = (time.perf_counter() - began) / (len(readings) * len(kept) * len(runs))
        for number, (method, epoch) in enumerate(readings):
            if report:
                report(number)
            items = _find(runs, method, kept, prunable, granularity, scope, epoch, rewind, seed, output, engine, during)
            found += [replace(item, seconds=item.seconds + shared) for item in items]
        if report:
            report(len(readings))
    return Tickets(runs, found, granularity, scope)


def moments(wanted: Sequence[str], at: int | Iterable[int] | None, trained: int) -> list[tuple[str, int | None]]:
    """Every method with each epoch that it is read after; None for its own moment.

    Args:
        wanted: names of methods.
        at: see `find_tickets`.
        trained: epochs of the dense run.

    Raises:
        PrecodeValueError: an epoch that the dense run does not have, none at all, or no method that reads early.
    """
    if at is None:
        return [(method, None) for method in wanted]
    epochs = list(dict.fromkeys(integers(at, "at", 0, COUNT)))
    if not epochs:
        raise PrecodeValueError("at is empty: name at least one epoch, or leave it out")
    for epoch in epochs:
        if epoch > trained:
            raise PrecodeValueError(
                f"at = {epoch}: the dense run has {trained} epochs; train for more, or read it earlier"
            )
    if not any(record(method)["early"] for method in wanted):
        raise PrecodeValueError(f"at = {epochs[0]}: {', '.join(wanted)} cannot be read early; leave at out")
    return [(method, epoch) for method in wanted for epoch in (epochs if record(method)["early"] else [None])]


def rewinding(wanted: Sequence[str], rewind: int, trained: int) -> int:
    """The epoch that tickets start after.

    Args:
        wanted: names of methods.
        rewind: see `find_tickets`.
        trained: epochs of the dense run.

    Raises:
        PrecodeValueError: an epoch that leaves none to train for, or a method that does not rewind.
    """
    rewind = integer(rewind, "rewind", 0, COUNT)
    if rewind >= trained:
        raise PrecodeValueError(
            f"rewind = {rewind}: the dense run has {trained} epochs, and a ticket needs one; start earlier"
        )
    if fixed := [method for method in wanted if rewind and not record(method)["rewinds"]]:
        able = ", ".join(name for name, item in records().items() if item["rewinds"])
        raise PrecodeValueError(f"rewind = {rewind}: {', '.join(fixed)} cannot rewind, but {able} can")
    return rewind


def _during(runs: Runs, readings: Sequence[tuple[str, int | None]], rewind: int) -> list[Moment]:
    """The networks after every epoch that is read early, in the order of the optimizer steps.

    Snapshots of the run are taken where there are such; the others come from one repetition of the run up to the last
    of them, on its engine, which has the same numbers bit by bit.
    """
    epochs = {rewind}
    for method, at in readings:
        item = record(method)
        if item["reads_at"] is None:
            # Early-Bird looks at every epoch up to the last.
            epochs |= set(range(at + 1 if at else 0))
        else:
            epochs |= {at} if at is not None else set(range(item["reads_at"] + 1))
    steps = [epoch * runs.steps_per_epoch for epoch in sorted(epochs) if 0 < epoch < runs.settings.epochs]
    known = {step: kept for step, kept in runs._snapshots.items() if step in steps}
    if missing := [step for step in steps if step not in known]:
        settings = replace(runs.settings, epochs=missing[-1] // runs.steps_per_epoch, snapshots=tuple(missing))
        memory.check(
            _training_memory(runs, settings, runs.engine),
            f"reading {len(runs)} networks after {len(missing)} epochs",
            "read them at fewer epochs, or search fewer networks at a time",
        )
        outcome = _precode.train(
            runs.start._layers,
            [item._packed for item in runs.data],
            [item._packed for item in runs.validation],
            runs.start._embedding,
            runs.embedding.seed,
            None,
            settings,
            runs.engine,
            None,
        )
        kept = zip(outcome["snapshots"], outcome["c0_snapshots"], strict=True)
        known |= dict(zip(missing, kept, strict=True))
    return [(step, *known[step]) for step in sorted(known)]


def _memory_needed(runs: Runs, method: str, engine: str) -> int:
    """An estimate of the peak bytes of a search beside the dense run.

    Methods that train need what training needs; those that take gradients hold all networks at once: the scoring batch
    in float64, or, where a mask is learned, all data, one byte a variable and label.
    """
    item, element = record(method), runs.weights["w1"].element_size()
    networks, samples = len(runs), runs.data[0].samples
    parameters = sum(weight.numel() for weight in runs.weights.values())
    variables, outputs, width = runs.data[0].variables, runs.data[0].outputs, sum(runs.widths)
    # Scores in float64 with their order, masks and copies of the start.
    needed = 10 * 8 * parameters

    def batch(count: int, bytes_: int) -> int:
        return networks * min(count, samples) * (variables + 3 * width) * bytes_

    if item["needs_gradients"]:
        scored = networks * min(SCORING_SAMPLES, samples) * (variables + outputs)
        needed += 6 * 8 * parameters + 2 * scored + batch(SCORING_CHUNK, 8)
    if item["schedule"].startswith("learned"):
        needed += 12 * element * parameters + networks * samples * (variables + outputs)
        needed += batch(runs.settings.batch, element)
    if item["needs_data"] and not item["needs_gradients"]:
        needed += _training_memory(runs, runs.settings, engine)
    name = method.partition(":")[0]
    if name in ("obs", "obs-rounds"):
        # Moments as tensors and as numbers; all data, one byte a variable.
        needed += 2 * 8 * networks * sum(inputs**2 for inputs in runs.widths[:-1])
        needed += networks * samples * (variables + outputs) + batch(SCORING_CHUNK, 8)
    if name == "obs-codes":
        needed += 8 * networks * runs.widths[0] ** 2 + (os.cpu_count() or 1) * 8 * runs.widths[1] * runs.widths[0] ** 2
    if name == "hot-obs":
        # The inverse of every network, and of those in work the matrix and its copies.
        size = sum(weight[0].numel() + bias[0].numel() for weight, bias in runs._layers)
        needed += 8 * size**2 * (networks + 4 * (os.cpu_count() or 1))
    if name == "obs-loss":
        weights = sum(weight[0].numel() for weight, _ in runs._layers)
        # Of each network in work: its matrix, the inverse, two copies, and the gradients of a part of the batch.
        needed += 8 * (os.cpu_count() or 1) * weights * (4 * weights + 2 * SCORING_CHUNK)
    return needed


def _training_memory(runs: Runs, settings: TrainSettings, engine: str) -> int:
    """An estimate of the peak bytes of training the networks again."""
    return _precode.memory_needed(
        runs.widths,
        0 if runs.embedding.projection is None else runs.embedding.rows * runs.embedding.variables,
        len(runs),
        runs.data[0].variables,
        (runs.data[0].samples, max((held_out.samples for held_out in runs.validation), default=0)),
        (0, 0),
        settings,
        engine,
        str(runs.weights["w1"].dtype).removeprefix("torch."),
        runs.weights["w1"].device.type == "cpu",
    )


def _find(
    runs: Runs,
    method: str,
    densities: Sequence[float],
    prunable: str,
    granularity: str,
    scope: str,
    at: int | None,
    rewind: int,
    seed: int,
    output: int,
    engine: str,
    during: Sequence[Moment],
) -> list[Found]:
    """The tickets of one method, one item a density."""
    began = time.perf_counter()
    result = _precode.find_stack_tickets(
        runs.start._layers,
        (runs._layers, runs.weights.get("c0"), runs.epochs_run.astype(float).tolist()),
        during,
        [item._packed for item in runs.data],
        [item._packed for item in runs.validation],
        runs.start._embedding,
        runs.embedding.seed,
        holds_projection(runs),
        None if runs.tasks is None or len(runs.widths) != 3 else clause_sets(runs.tasks, output),
        [] if len(runs.widths) != 3 else [task.complemented for task in runs.tasks or ()],
        output,
        replace(runs.settings, snapshots=()),
        engine,
        prunable,
        method,
        densities,
        granularity,
        scope,
        at,
        rewind,
        seed,
        runs.streams,
        None,
    )
    seconds = (time.perf_counter() - began) / (len(densities) * len(runs))
    item = record(method)
    scores, features, usual = result["scores"], item["features"], item["reads_at"]
    read = at if at is not None or usual is None else min(usual, runs.settings.epochs)
    found = []
    for number, density in enumerate(densities):
        masks = dict(zip(result["prunable"], result["masks"][number], strict=True))
        values = result["start"][number] if result["start"] else None
        named = None if values is None else dict(zip(result["parameters"], values, strict=True))
        found.append(
            Found(
                method=method,
                density=density,
                masks=masks,
                start=_start(runs, named, masks, features),
                first_epoch=result["start_epoch"],
                scores=None if scores is None else dict(zip(result["prunable"], scores[number], strict=True)),
                gradients=result["gradients"][number],
                epochs=np.broadcast_to(np.array(result["epochs"][number]), len(runs)).copy(),
                seconds=seconds,
                notes={name: note[number] for name, note in result["notes"].items()},
                probe_epoch=read,
            )
        )
    return found


def _start(
    runs: Runs, values: Mapping[str, torch.Tensor] | None, masks: Mapping[str, torch.Tensor], features: bool
) -> Networks:
    """The networks as a ticket's training starts: initial or other values, multiplied by the masks.

    Behind a projection that is held fixed after the dense run, C0 is that of the run's end. Tickets of feature space
    have C1 = W1 C0 in place of W1, with the identity embedding.
    """
    weights = dict(runs.start.weights)
    if values is not None:
        # A C0 that is never trained is not among the values.
        weights = {
            name: values[name].reshape(weight.shape) if name in values else weight for name, weight in weights.items()
        }
    embedding = runs.embedding
    if holds_projection(runs):
        weights["c0"], embedding = runs.weights["c0"], embedding.fixed
    networks = Networks(weights, runs.tasks, embedding)
    if features:
        identity = embeddings.resolve("identity", embedding.variables)
        weights = {name: value for name, value in weights.items() if name != "c0"}
        networks = Networks({**weights, "w1": networks.features}, runs.tasks, identity)
    weights = dict(networks.weights)
    for name, mask in masks.items():
        weights[name] = weights[name] * mask.reshape(weights[name].shape)
    return Networks(weights, runs.tasks, networks.embedding)


def holds_projection(runs: Runs) -> bool:
    """Whether tickets are trained behind the C0 that the dense run ends with."""
    return runs.embedding.projection is not None and runs.embedding.projection.train == "dense"
