"""Finds tickets in stacks of networks by every method of the registry."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from precode import _precode
from precode._internal import memory
from precode._internal.check import KEY, fractions, integer
from precode._internal.errors import PrecodeTypeError, PrecodeValueError
from precode._internal.progress import Progress, reporter
from precode.codes import embedding as embeddings
from precode.codes.readouts import clause_sets
from precode.networks.stacks import Networks
from precode.networks.training import Runs
from precode.tickets.registry import record, resolve_methods
from precode.tickets.stacked import Found, Tickets

PRUNABLE = ("w1", "all")

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
        densities: fractions of the prunable weights that are kept, in (0, 1].
        prunable: ``"w1"``, the first layer, or ``"all"`` layers; biases are never pruned.
        granularity: what is kept as one: a ``"weight"``, a ``"row"`` (neuron) or a ``"column"`` (input).
        scope: scores are compared over all prunable weights (``"global"``) or ``"per-layer"``.
        seed: key of the methods' own randomness.
        output: the output whose weights give rows their polarity, for methods that read codes.
        engine: what trains the networks of methods that train; see `train`.
        progress: False, True for a bar over the methods, or a function of (methods done, in all).

    Raises:
        PrecodeValueError: an unknown method or a density out of range; a density that keeps no weight; a method that
            needs clauses in networks trained without a formula.
        UnsupportedError: a search that does not fit into memory.
        KeyboardInterrupt: Ctrl-C; nothing is kept.

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
    """
    if not isinstance(runs, Runs):
        raise PrecodeTypeError(f"runs must be the result of precode.train, not {type(runs).__name__}")
    wanted = resolve_methods(methods, clauses=runs.tasks is not None)
    kept = list(dict.fromkeys(fractions(densities, "density")))
    if prunable not in PRUNABLE:
        raise PrecodeValueError(f"prunable = {prunable!r}: use one of {', '.join(PRUNABLE)}")
    seed = integer(seed, "seed", 0, KEY)
    output = integer(output, "output", 0, runs.widths[-1] - 1)
    for method in wanted:
        memory.check(
            _memory_needed(runs, method, engine),
            f"finding tickets of {len(runs)} networks by {method!r}",
            "search fewer networks at a time",
        )
    found = []
    with reporter(progress, len(wanted), "method") as report:
        for number, method in enumerate(wanted):
            if report:
                report(number)
            found += _find(runs, method, kept, prunable, granularity, scope, seed, output, engine)
        if report:
            report(len(wanted))
    return Tickets(runs, found, granularity, scope)


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
        needed += _precode.memory_needed(
            runs.widths,
            0 if runs.embedding.projection is None else runs.embedding.rows * variables,
            networks,
            variables,
            (samples, max((held_out.samples for held_out in runs.validation), default=0)),
            (0, 0),
            runs.settings,
            engine,
            str(runs.weights["w1"].dtype).removeprefix("torch."),
            runs.weights["w1"].device.type == "cpu",
        )
    return needed


def _find(
    runs: Runs,
    method: str,
    densities: Sequence[float],
    prunable: str,
    granularity: str,
    scope: str,
    seed: int,
    output: int,
    engine: str,
) -> list[Found]:
    """The tickets of one method, one item a density."""
    began = time.perf_counter()
    result = _precode.find_stack_tickets(
        runs.start._layers,
        (runs._layers, runs.weights.get("c0"), runs.epochs_run.astype(float).tolist()),
        [item._packed for item in runs.data],
        [item._packed for item in runs.validation],
        runs.start._embedding,
        runs.embedding.seed,
        holds_projection(runs),
        None if runs.tasks is None else clause_sets(runs.tasks, output),
        [task.complemented for task in runs.tasks or ()],
        replace(runs.settings, snapshots=()),
        engine,
        prunable,
        method,
        densities,
        granularity,
        scope,
        seed,
        runs.streams,
        None,
    )
    seconds = (time.perf_counter() - began) / (len(densities) * len(runs))
    scores, features = result["scores"], record(method)["features"]
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
