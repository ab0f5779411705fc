"""Tickets of stacks of networks: found by every method, and retrained."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from precode import _precode
from precode import embedding as embeddings
from precode._check import COUNT, KEY, fractions, integer, is_integer
from precode._progress import Progress, reporter
from precode._registry import record, resolve_methods
from precode._work import sample_all
from precode.dataset import Dataset, data_sets
from precode.errors import PrecodeTypeError, PrecodeValueError
from precode.networks import Networks
from precode.readout import clause_sets
from precode.retrained import Retrained
from precode.ticket import Ticket
from precode.training import Runs, train

if TYPE_CHECKING:
    from numpy.typing import NDArray

PRUNABLE = ("w1", "all")


@dataclass(frozen=True, eq=False)
class Found:
    """The tickets of one method at one density, one for each of R networks.

    Attributes:
        method: its name, with its control behind a colon.
        density: fraction of the prunable weights kept, as it was asked for.
        masks: by weight name, which weights are kept, Boolean (R, ...).
        start: the networks as their retraining starts, pruned.
        first_epoch: epochs already behind the start; retraining has the rest of the budget.
        scores: by weight name, what the weights were kept by, (R, ...); None from methods that keep them for more
            than one score.
        gradients: gradients of a batch that finding them took, for each network.
        epochs: epochs of training that finding them took, for each network, the dense run included where it was used.
        seconds: wall-clock time of the search, divided among the tickets found together.
        notes: what the method reports of itself, by name, (R,).

    Example:
        >>> from precode import Dnf, train
        >>> runs = train(Dnf.random(clauses=4, seed=0), hidden=8, samples=640, epochs=1)
        >>> found = find_tickets(runs, "magnitude", 0.125).get("magnitude", 0.125)
        >>> found.kept.tolist(), found.total, found.masks["w1"].shape
        ([32], 256, torch.Size([1, 8, 32]))
    """

    method: str
    density: float
    masks: Mapping[str, torch.Tensor]
    start: Networks
    first_epoch: int
    scores: Mapping[str, torch.Tensor] | None
    gradients: float
    epochs: float
    seconds: float
    notes: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def kept(self) -> NDArray[np.int64]:
        """Weights kept, (R,)."""
        counts = [mask.flatten(1).sum(1) for mask in self.masks.values()]
        kept: NDArray[np.int64] = torch.stack(counts).sum(0).cpu().numpy()
        return kept

    @property
    def total(self) -> int:
        """Prunable weights of each network."""
        return sum(mask[0].numel() for mask in self.masks.values())


class Tickets:
    """Tickets of a stack of trained networks; made by `find_tickets`.

    Iterating gives one `Found` for each method and density.

    Attributes:
        dense: the dense run they were found in.
        found: in the order of the methods, then of the densities.
        granularity: what was kept as one.
        scope: over what scores were compared.

    Example:
        >>> from precode import Dnf, train
        >>> runs = train(Dnf.random(clauses=4, seed=0), hidden=8, samples=640, epochs=1)
        >>> tickets = find_tickets(runs, ["random", "snip"], [0.5, 0.25])
        >>> [(found.method, found.density) for found in tickets]
        [('random', 0.5), ('random', 0.25), ('snip', 0.5), ('snip', 0.25)]
        >>> tickets.ticket(0, "snip", 0.25).kept, len(tickets.retrain().table())
        (64, 4)
    """

    def __init__(self, dense: Runs, found: Sequence[Found], granularity: str, scope: str) -> None:
        self.dense = dense
        self.found = tuple(found)
        self.granularity = granularity
        self.scope = scope

    def __iter__(self) -> Iterator[Found]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def get(self, method: str, density: float) -> Found:
        """The tickets of one method at one density.

        Raises:
            PrecodeValueError: there are none; the message lists those there are.
        """
        for item in self.found:
            if item.method == method and item.density == density:
                return item
        there = ", ".join(f"{item.method} at {item.density:g}" for item in self.found)
        raise PrecodeValueError(f"no tickets of {method!r} at density {density:g}: there are {there}")

    def ticket(self, network: int, method: str, density: float) -> Ticket:
        """One network's ticket, for `Runs.module`: masks and start values have the names of its parameters.

        Raises:
            PrecodeValueError: there is no such ticket or network.
        """
        item = self.get(method, density)
        network = integer(network, "network", 0, len(self.dense) - 1)
        names = {
            f"{kind}{number}": f"{2 * number - 2}.{long}"
            for number in range(1, len(self.dense.widths))
            for kind, long in (("w", "weight"), ("b", "bias"))
        }
        module = item.start.module(network)
        start = {name: value.detach() for name, value in module.named_parameters()}
        masks = {names[name]: mask[network].reshape(start[names[name]].shape) for name, mask in item.masks.items()}
        return Ticket(
            masks,
            start,
            method=item.method,
            density=item.density,
            granularity=self.granularity,
            scope=self.scope,
            cost={"gradients": item.gradients, "epochs": item.epochs},
            config={
                "seed": self.dense.seed,
                "stream": self.dense.streams[network],
                "embedding": item.start.embedding.name,
            },
        )

    def table(self) -> pd.DataFrame:
        """One row a method, density and network: kept, total, gradients, dense_epochs, seconds, and notes by name."""
        frames = []
        for item in self.found:
            columns = {
                "method": item.method,
                "density": item.density,
                "formula": range(len(self.dense)),
                "kept": item.kept,
                "total": item.total,
                "gradients": item.gradients,
                "dense_epochs": item.epochs,
                "seconds": item.seconds,
            }
            frames.append(pd.DataFrame({**columns, **item.notes}))
        return pd.concat(frames, ignore_index=True)

    def retrain(
        self,
        *,
        test: int | Dataset | Sequence[Dataset] = 10_000,
        floor: float = 0.1,
        engine: str = "auto",
        progress: Progress = False,
    ) -> Retrained:
        """Trains every ticket as the dense networks were trained: same data, order, budget and optimizer.

        Args:
            test: samples drawn for each network to measure accuracy on, or data sets; see `train`.
            floor: codes need weights above this fraction of the network's mean magnitude in feature space.
            engine: see `train`.
            progress: see `train`.

        Raises:
            PrecodeValueError: samples cannot be drawn since the dense run was given its data: pass data sets.
            KeyboardInterrupt: Ctrl-C; nothing is kept.
        """
        held_out = self._test_data(test)
        groups: dict[tuple[int, str], list[int]] = {}
        for number, item in enumerate(self.found):
            groups.setdefault((item.first_epoch, item.start.embedding.name), []).append(number)
        networks: dict[int, Networks] = {}
        seconds: dict[int, float] = {}
        for (first_epoch, _), numbers in groups.items():
            part = self._train([self.found[number] for number in numbers], first_epoch, engine, progress)
            for place, number in enumerate(numbers):
                rows = slice(place * len(self.dense), (place + 1) * len(self.dense))
                weights = {name: value[rows].clone() for name, value in part.weights.items()}
                networks[number] = Networks(weights, self.dense.tasks, part.embedding)
                seconds[number] = part.seconds / len(part)
        ordered = range(len(self.found))
        return Retrained(self, [networks[n] for n in ordered], [seconds[n] for n in ordered], held_out, floor)

    def _train(self, items: Sequence[Found], first_epoch: int, engine: str, progress: Progress) -> Runs:
        """All networks of several tickets in one run."""
        dense = self.dense
        return train(
            None if dense.tasks is None else list(dense.tasks) * len(items),
            data=list(dense.data) * len(items),
            validation=list(dense.validation) * len(items) or 0,
            init={name: torch.cat([item.start.weights[name] for item in items]) for name in dense.weights},
            masks={name: torch.cat([item.masks[name] for item in items]) for name in items[0].masks},
            embedding=items[0].start.embedding,
            seed=dense.seed,
            epochs=dense.settings.epochs - first_epoch,
            batch=dense.settings.batch,
            optimizer=dense.settings.optimizer,
            early_stopping=dense.settings.early_stopping,
            order_seed=dense.settings.order_seed,
            first_epoch=dense.settings.first_epoch + first_epoch,
            engine=engine,
            dtype=dense.weights["w1"].dtype,
            device=dense.weights["w1"].device,
            progress=progress,
        )

    def _test_data(self, test: int | Dataset | Sequence[Dataset]) -> list[Dataset]:
        dense = self.dense
        if not is_integer(test):
            return data_sets(test, len(dense), "test")
        samples = integer(test, "test", 1, COUNT)
        if dense.tasks is None or dense.sampler is None:
            raise PrecodeValueError(
                f"test = {samples} samples cannot be drawn for networks whose data were given: pass data sets"
            )
        return sample_all(
            dense.tasks, samples, sampler=dense.sampler, seed=dense.seed, indices=dense.streams, purpose="test"
        )

    def __repr__(self) -> str:
        methods = list(dict.fromkeys(item.method for item in self.found))
        densities = list(dict.fromkeys(f"{item.density:g}" for item in self.found))
        return f"Tickets(networks={len(self.dense)}, methods={', '.join(methods)}, densities={', '.join(densities)})"

    def _repr_html_(self) -> str:
        columns = ["method", "density", "kept", "total", "gradients", "dense_epochs", "seconds"]
        mean = self.table().groupby(["method", "density"], sort=False)[columns[2:]].mean().reset_index()
        return mean.to_html(index=False, float_format="{:.3g}".format, border=0)


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
        KeyboardInterrupt: Ctrl-C; nothing is kept.

    Example:
        >>> from precode import Dnf
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
    found = []
    with reporter(progress, len(wanted), "method") as report:
        for number, method in enumerate(wanted):
            if report:
                report(number)
            found += _find(runs, method, kept, prunable, granularity, scope, seed, output, engine)
        if report:
            report(len(wanted))
    return Tickets(runs, found, granularity, scope)


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
        (runs._layers, float(runs.epochs_run.mean())),
        [item._packed for item in runs.data],
        [item._packed for item in runs.validation],
        runs.embedding.argument,
        runs.embedding.seed,
        None if runs.tasks is None else clause_sets(runs.tasks, output),
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
                epochs=result["epochs"][number],
                seconds=seconds,
                notes={name: note[number] for name, note in result["notes"].items()},
            )
        )
    return found


def _start(
    runs: Runs, values: Mapping[str, torch.Tensor] | None, masks: Mapping[str, torch.Tensor], features: bool
) -> Networks:
    """The networks as a ticket's training starts: initial or other values, multiplied by the masks.

    Tickets of feature space have C1 = W1 C0 in place of W1, behind the identity.
    """
    weights = dict(runs.start.weights)
    if values is not None:
        weights = {name: values[name].reshape(weight.shape) for name, weight in weights.items()}
    networks = Networks(weights, runs.tasks, runs.embedding)
    if features:
        identity = embeddings.resolve("identity", runs.embedding.matrix.shape[1])
        networks = Networks({**weights, "w1": networks.features}, runs.tasks, identity)
    weights = dict(networks.weights)
    for name, mask in masks.items():
        weights[name] = weights[name] * mask.reshape(weights[name].shape)
    return Networks(weights, runs.tasks, networks.embedding)
