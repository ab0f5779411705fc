"""Tickets of a stack of networks: as they were found, and retrained beside their dense networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from precode._internal.check import COUNT, fraction, integer, is_integer
from precode._internal.errors import PrecodeValueError
from precode._internal.lazy import Lazy
from precode._internal.progress import Progress
from precode.codes.readouts import clause_sets
from precode.formulas.datasets import Dataset, data_sets
from precode.networks import divergence
from precode.networks.stacks import Networks
from precode.networks.training import Runs, train
from precode.networks.work import sample_all
from precode.tickets.recoveries import RELATIVE_FLOOR, recovery
from precode.tickets.ticket import Ticket

if TYPE_CHECKING:
    import pandas as pd
    import polars
    from numpy.typing import NDArray
else:
    pd = Lazy("pandas")


@dataclass(frozen=True, eq=False)
class Found:
    """The tickets of one method at one density, one for each of R networks.

    Attributes:
        method: its name, with its control after a colon.
        density: fraction of the prunable weights kept, as it was asked for.
        masks: by weight name, which weights are kept, Boolean (R, ...).
        start: the networks as their retraining starts, pruned.
        first_epoch: epochs trained before the start; retraining has the rest of the budget.
        scores: by weight name, what the weights were kept by, (R, ...); None from methods that keep them for more
            than one score.
        gradients: gradients of a batch that finding them took, for each network.
        epochs: epochs of training that finding them took, of each network, (R,), the dense run included where it was
            used.
        seconds: wall-clock time of the search, divided among the tickets found together.
        notes: what the method reports of itself, by name, (R,).
        probe_epoch: epochs of the dense run after which the method read the networks; None where it reads them at the
            end or not at all, or says itself when it did.

    Example:
        >>> from precode import Dnf, find_tickets, train
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
    epochs: NDArray[np.float64]
    seconds: float
    notes: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    probe_epoch: int | None = None

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

    def __repr__(self) -> str:
        kept = sorted({int(count) for count in self.kept})
        counts = str(kept[0]) if len(kept) == 1 else f"{kept[0]} to {kept[-1]}"
        return (
            f"Found(method={self.method}, density={self.density:g}, networks={len(self.start)}, "
            f"kept={counts} of {self.total})"
        )


class Tickets:
    """Tickets of a stack of trained networks; made by `find_tickets`.

    Iterating gives one `Found` for each method, epoch of reading and density.

    Attributes:
        dense: the dense run they were found in.
        found: in the order of the methods, then of the epochs that they were read after, then of the densities.
        granularity: what was kept as one.
        scope: over what scores were compared.

    Example:
        >>> from precode import Dnf, find_tickets, train
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

    def get(self, method: str, density: float, at: int | None = None) -> Found:
        """The tickets of one method at one density; of a method that was read several times, those read at one epoch.

        Raises:
            PrecodeValueError: there are none, or several; the message lists those there are.
        """
        wanted = fraction(density, "density")
        epoch = None if at is None else integer(at, "at", 0, COUNT)
        fitting = [item for item in self.found if item.method == method and item.density == wanted]
        if epoch is not None:
            fitting = [item for item in fitting if item.probe_epoch == epoch]
        if len(fitting) == 1:
            return fitting[0]
        what = f"tickets of {method!r} at density {wanted:g}" + ("" if epoch is None else f", read at epoch {epoch}")
        if fitting:
            epochs = ", ".join(str(item.probe_epoch) for item in fitting)
            raise PrecodeValueError(f"several {what}: name one of the epochs {epochs} with at=")
        there = ", ".join(map(_named, self.found))
        raise PrecodeValueError(f"no {what}: there are {there}")

    def ticket(self, network: int, method: str, density: float, at: int | None = None) -> Ticket:
        """One network's ticket, for `Runs.module`: masks and start values have the names of its parameters.

        Those of methods that prune feature space (``features`` of `precode.methods`) fit ``get(...).start.module``
        instead, whose first layer is C1 = W1 C0 and sees the variables themselves.

        Raises:
            PrecodeValueError: there is no such ticket or network.
        """
        item = self.get(method, density, at)
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
            cost={"gradients": item.gradients, "epochs": float(item.epochs[network])},
            config={
                "seed": self.dense.seed,
                "stream": self.dense.streams[network],
                "embedding": item.start.embedding.name,
                "start_epoch": item.first_epoch,
            },
        )

    def table(self) -> pd.DataFrame:
        """One row a method, epoch of reading, density and network.

        Columns: method, density, formula, kept, total, probe_epoch and start_epoch (epochs of the dense run before the
        method read the networks, NaN where `Found.probe_epoch` is None, and before the tickets start), gradients,
        dense_epochs, seconds, and notes by name.
        """
        frames = []
        for item in self.found:
            columns = {
                "method": item.method,
                "density": item.density,
                "formula": range(len(self.dense)),
                "kept": item.kept,
                "total": item.total,
                **_moments(item),
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
        relative_floor: float = RELATIVE_FLOOR,
        engine: str = "auto",
        progress: Progress = False,
    ) -> Retrained:
        """Trains every ticket as the dense networks were trained: same data, order, budget and optimizer.

        Args:
            test: samples drawn for each network to measure accuracy on, or data sets; see `train`.
            relative_floor: codes need weights above this fraction of the network's mean magnitude in feature space.
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
            names = [
                f"the ticket of {_named(self.found[number])} in network {network}"
                for number in numbers
                for network in range(len(self.dense))
            ]
            with divergence.naming(names):
                part = self._train([self.found[number] for number in numbers], first_epoch, engine, progress)
            for place, number in enumerate(numbers):
                rows = slice(place * len(self.dense), (place + 1) * len(self.dense))
                weights = {name: value[rows].clone() for name, value in part.weights.items()}
                networks[number] = Networks(weights, self.dense.tasks, part.embedding)
                seconds[number] = part.seconds / len(part)
        ordered = range(len(self.found))
        return Retrained(self, [networks[n] for n in ordered], [seconds[n] for n in ordered], held_out, relative_floor)

    def _train(self, items: Sequence[Found], first_epoch: int, engine: str, progress: Progress) -> Runs:
        """All networks of several tickets in one run."""
        dense = self.dense
        return train(
            None if dense.tasks is None else list(dense.tasks) * len(items),
            data=list(dense.data) * len(items),
            validation=list(dense.validation) * len(items) or 0,
            init={name: torch.cat([item.start.weights[name] for item in items]) for name in items[0].start.weights},
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
        keys, columns = ["method", "probe_epoch", "density"], ["kept", "total", "gradients", "dense_epochs", "seconds"]
        mean = self.table().groupby(keys, sort=False, dropna=False)[columns].mean().reset_index()
        return mean.to_html(index=False, float_format="{:.3g}".format, border=0)


class Retrained:
    """Tickets after retraining beside their dense networks; made by `Tickets.retrain`.

    Attributes:
        tickets: what was retrained.
        test: the data set of each network that accuracy is measured on.

    Example:
        >>> from precode import Dnf, find_tickets, train
        >>> runs = train(Dnf.random(clauses=4, seed=0), hidden=8, samples=640, epochs=2)
        >>> retrained = find_tickets(runs, ["random", "snip"], 0.25).retrain()
        >>> retrained.table()[["method", "density", "kept"]].values.tolist()
        [['random', 0.25, 64], ['snip', 0.25, 64]]
        >>> retrained.networks("snip", 0.25).codes().channels().shape
        (1, 4, 8)
    """

    def __init__(
        self,
        tickets: Tickets,
        networks: Sequence[Networks],
        seconds: Sequence[float],
        test: Sequence[Dataset],
        relative_floor: float,
    ) -> None:
        self.tickets = tickets
        self.test = tuple(test)
        self._networks = tuple(networks)
        self._table = _measure(tickets, networks, seconds, test, relative_floor)

    def networks(self, method: str, density: float, at: int | None = None) -> Networks:
        """The retrained networks of one method at one density; see `Tickets.get`.

        Raises:
            PrecodeValueError: there are none, or several.
        """
        return self._networks[self.tickets.found.index(self.tickets.get(method, density, at))]

    def table(self) -> pd.DataFrame:
        """One row a method, epoch of reading, density and formula.

        Columns: method, density (the one that was asked for, so that ``networks(method, density)`` takes it), formula,
        accuracy and dense_accuracy on the test data (fraction of labels), kept and total (weights), achieved_density
        (their ratio: whole weights are kept), the columns of `precode.recovery` (without tasks, with several hidden
        layers, or with clauses of different widths, there are none; they are NaN where a network diverged, whose
        accuracy counts every NaN logit as wrong),
        retention (the share of the dense network's codes, by location, that it still has once the mask is laid on it,
        before any retraining; our definition),
        probe_epoch and start_epoch (see `Tickets.table`), gradients and dense_epochs (cost of finding, for each
        network), and seconds (finding and retraining).
        """
        return self._table.copy()

    def polars(self) -> polars.DataFrame:
        """The table as a polars data frame.

        Raises:
            PrecodeValueError: polars is not installed.
        """
        try:
            import polars
        except ImportError as error:
            raise PrecodeValueError("polars is not installed: pip install polars, or use .table()") from error
        return polars.DataFrame({name: column.to_list() for name, column in self._table.items()})

    def summary(self) -> pd.DataFrame:
        """Means over the formulas, one row a method, epoch of reading and density, best accuracy first."""
        keys = ["method", "density", "probe_epoch"]
        grouped = self._table.drop(columns="formula").groupby(keys, sort=False, dropna=False).mean()
        return grouped.reset_index().sort_values(["density", "accuracy"], ascending=False, ignore_index=True)

    def __repr__(self) -> str:
        return f"Retrained({self.tickets!r})"

    def _repr_html_(self) -> str:
        return self.summary().to_html(index=False, float_format="{:.3f}".format, border=0)


def _named(item: Found) -> str:
    """A method with its density, and the epoch that it was read after."""
    read = "" if item.probe_epoch is None else f" (read at epoch {item.probe_epoch})"
    return f"{item.method} at {item.density:g}{read}"


def _moments(item: Found) -> dict[str, float]:
    """Columns of when a ticket was read and when it starts."""
    read = float("nan") if item.probe_epoch is None else float(item.probe_epoch)
    return {"probe_epoch": read, "start_epoch": item.first_epoch}


def _measure(
    tickets: Tickets,
    networks: Sequence[Networks],
    seconds: Sequence[float],
    test: Sequence[Dataset],
    relative_floor: float,
) -> pd.DataFrame:
    """Accuracy and recovery of every retrained network."""
    dense = tickets.dense
    dense_accuracy = 1 - dense.evaluate(test)["error"].to_numpy()
    frames = []
    readable = _is_readable(dense)
    for item, retrained, spent in zip(tickets.found, networks, seconds, strict=True):
        recovered = _recovered(dense, retrained, item, relative_floor) if readable else pd.DataFrame()
        retained = _recovered(dense, _masked(dense, item), item, relative_floor) if readable else pd.DataFrame()
        columns = {
            "method": item.method,
            "density": item.density,
            "formula": range(len(dense)),
            "accuracy": 1 - retrained.evaluate(test)["error"].to_numpy(),
            "dense_accuracy": dense_accuracy,
            "kept": item.kept,
            "total": item.total,
            "achieved_density": item.kept / item.total,
            **{name: recovered[name].to_numpy() for name in recovered.columns if name != "network"},
            **({"retention": retained["recovery_location"].to_numpy()} if readable else {}),
            **_moments(item),
            "gradients": item.gradients,
            "dense_epochs": item.epochs,
            "seconds": item.seconds + spent,
        }
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def _is_readable(networks: Networks) -> bool:
    """Whether codes of the first output can be read: there are clauses, of one width all, and one hidden layer."""
    if networks.tasks is None or len(networks.widths) != 3:
        return False
    return len({len(clause) for clauses in clause_sets(networks.tasks) for clause in clauses}) == 1


def _masked(dense: Networks, item: Found) -> Networks:
    """The dense networks under the masks of their tickets, which may be of C1 = W1 C0 in place of W1."""
    weights, embedding = dict(dense.weights), dense.embedding
    if item.start.embedding.name == "identity" != embedding.name:
        weights.pop("c0", None)
        weights["w1"], embedding = dense.features, item.start.embedding
    for name, mask in item.masks.items():
        weights[name] = weights[name] * mask.reshape(weights[name].shape)
    return Networks(weights, dense.tasks, embedding)


def _recovered(dense: Networks, sparse: Networks, item: Found, floor: float) -> pd.DataFrame:
    """As `recovery`, with NaN for pairs of networks of which one has diverged: it has no codes to be read."""
    sound = divergence.finite([*dense.weights.values(), *sparse.weights.values()])
    if sound.all():
        return recovery(dense, sparse, item.masks, relative_floor=floor)

    def legible(networks: Networks) -> Networks:
        kept = {
            name: torch.where(torch.from_numpy(sound).to(value.device).reshape(-1, *[1] * (value.ndim - 1)), value, 0)
            for name, value in networks.weights.items()
        }
        return Networks(kept, networks.tasks, networks.embedding)

    table = recovery(legible(dense), legible(sparse), item.masks, relative_floor=floor)
    numbers = [name for name in table.columns if name != "network"]
    return table.assign(**{name: table[name].astype(float).where(sound) for name in numbers})
