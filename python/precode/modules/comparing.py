"""Methods beside one another on any module: tickets found, trained and tested, with seeds and intervals."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from precode._internal.check import COUNT, KEY, fractions, functions, integer, integers
from precode._internal.errors import PrecodeError, PrecodeTypeError, PrecodeValueError, TicketWarning
from precode._internal.lazy import Lazy
from precode._internal.parts import all_finite
from precode._internal.progress import Progress, tracked
from precode._internal.randomness import Purpose, Randomness
from precode.modules import own
from precode.modules.batches import Batches, Unpack, Weight, call, count_labels
from precode.modules.copies import copied
from precode.modules.learner import Learner, Loss
from precode.modules.originals import uncalled
from precode.modules.own import Score
from precode.modules.search import find_ticket
from precode.modules.training import OptimizerFactory, adam, weight_of
from precode.tickets import masked, masking
from precode.tickets.ticket import Ticket

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
else:
    pd = Lazy("pandas")

Model = nn.Module | Callable[[], nn.Module]
"""A module with its initial values, or a function that draws a new one."""

TAKEN = ("method", "density", "seed", "kept", "total", "gradients", "epochs", "seconds", "mean", "low", "high", "gain")
"""Columns that no metric may be called as."""


@dataclass(frozen=True, repr=False)
class Comparison:
    """What `compare` found.

    Attributes:
        table: one row a method, density and seed: method, density, seed, kept, total, what was tested
            (``accuracy``, unless named otherwise), the same of the dense networks (``dense_accuracy``), and the
            gradients, epochs and seconds that finding the ticket took by itself (shared work is divided).
        metric: the column of what was tested.
        refused: methods that cannot be run here, each with the reason.
    """

    table: pd.DataFrame
    metric: str
    refused: dict[str, str] = field(default_factory=dict)

    def summary(self) -> pd.DataFrame:
        """Means over the seeds, one row a method and density, with 95 % intervals where there are several seeds.

        Columns: method, density, mean, low, high, and gain: the mean difference to ``random`` with the same seed, where
        that is among the methods. Where what was tested is missing (NaN) for a seed, so is what is made of it.
        """
        from precode._internal.statistics import interval

        rows = []
        for (method, density), group in self.table.groupby(["method", "density"], sort=False):
            known = len(group) > 1 and group[self.metric].notna().all()
            low, high = interval(group[self.metric]) if known else (float("nan"), float("nan"))
            null = self.table.query("method == 'random' and density == @density").set_index("seed")[self.metric]
            values = group.set_index("seed")[self.metric]
            gain = (values - null).mean(skipna=False) if len(null) else float("nan")
            row = {"method": method, "density": density, "mean": values.mean(skipna=False), "low": low, "high": high}
            rows.append({**row, "gain": gain})
        return pd.DataFrame(rows)

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """What was tested against the density, one line a method, as `precode.plot.tickets` draws it."""
        from precode.plot import tickets

        ax = tickets(self.table, self.metric, ax=ax)
        if self.metric != "accuracy":  # of which it draws the dense networks itself
            dense = self.table[f"dense_{self.metric}"].mean()
            ax.axhline(dense, color="black", linestyle="--", linewidth=1, label="dense networks")
        return ax

    def __repr__(self) -> str:
        methods, densities, seeds = (self.table[name].nunique() for name in ("method", "density", "seed"))
        return f"Comparison(methods={methods}, densities={densities}, seeds={seeds}, metric={self.metric!r})"

    def _repr_html_(self) -> str:
        return str(self.summary().to_html(index=False))


def compare(
    model: Model,
    methods: str | Score | Iterable[str | Score],
    densities: float | Iterable[float],
    data: Any = None,
    loss: Loss | None = None,
    *,
    test: Any,
    train: Callable[[nn.Module], Any] | None = None,
    epochs: int = 20,
    optimizer: OptimizerFactory = adam,
    seeds: int | Sequence[int] = 3,
    metric: str = "accuracy",
    unpack: Unpack | None = None,
    weight: Weight | None = None,
    progress: Progress = False,
    **options: Any,
) -> Comparison:
    """Finds tickets of a module by several methods, trains each, and tests it beside the dense network.

    Tickets of a seed start from the same initial values and are trained alike, on the same batches in the same order,
    so that differences between methods are differences between masks. Methods that go on from a later epoch are
    trained for the rest of the epochs by the default loop.

    Args:
        model: a module with its initial values, which all seeds then share; or a function without arguments that
            returns a new module, which is called for each seed with torch's generators keyed by it.
        methods: names or functions, as in `find_ticket`; ``"random"`` is the null of all.
        densities: fractions kept.
        data: batches to find tickets and to train on, as in `find_ticket`.
        loss: as in `find_ticket`.
        test: from a trained module in evaluation mode to a number, or data like `data` that the module classifies: then
            the number is the part of the labels that the largest output names. Labels of -100, which `cross_entropy`
            ignores, do not count; where the loss ignores others, pass a function. Where a largest output is not finite,
            as after a training that diverged, it is missing (NaN), and a `precode.TicketWarning` names the network.
        train: as in `find_ticket`; it trains the tickets too.
        epochs: as in `find_ticket`.
        optimizer: as in `find_ticket`.
        seeds: how many, or which.
        metric: name of what `test` returns.
        unpack: as in `find_ticket`.
        weight: as in `find_ticket`.
        progress: show a bar of searches, or call a function with (done, in all).
        options: what else `find_ticket` takes, such as ``scope="erk"`` and ``exclude="head"``.

    Returns:
        A table, means with intervals, and a plot.

    Raises:
        PrecodeValueError, PrecodeTypeError: no method, density or seed; two methods of one name; what `test` returns is
            no number; no method can be run. A method that cannot, of one seed or of all, is left out with a
            `precode.TicketWarning` and its reason.

    Example:
        >>> from functools import partial
        >>> x = torch.randn(96, 8, generator=torch.Generator().manual_seed(0))
        >>> y = (x[:, 0] > 0).long()
        >>> model = lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> sgd = partial(torch.optim.SGD, lr=0.5)
        >>> got = compare(
        ...     model, ["snip", "random"], [0.5, 0.2], (x[:64], y[:64]), nn.functional.cross_entropy,
        ...     test=(x[64:], y[64:]), epochs=10, optimizer=sgd, seeds=2,
        ... )
        >>> got
        Comparison(methods=2, densities=2, seeds=2, metric='accuracy')
        >>> got.table.columns.tolist()[:6]
        ['method', 'density', 'seed', 'kept', 'total', 'accuracy']
    """
    listed = [methods] if isinstance(methods, str) or callable(methods) else list(methods)
    named: dict[str, str | Score] = {}
    for method in listed:
        name, _ = own.resolve(method)
        if named.setdefault(name, method) != method:
            raise PrecodeValueError(f"two methods are called {name!r}: give each its name by pc.register_method")
    kept = list(dict.fromkeys(fractions(densities, "densities")))
    chosen = (
        list(range(integer(seeds, "seeds", 1, COUNT)))
        if isinstance(seeds, int)
        else list(dict.fromkeys(integers(seeds, "seeds", 0, KEY)))
    )
    if not isinstance(metric, str) or metric in TAKEN or metric.startswith("dense_"):
        raise PrecodeValueError(f"metric = {metric!r}: choose a name that is no other column, such as 'accuracy'")
    if "seed" in options:
        raise PrecodeTypeError(f"seed is that of one ticket: pass seeds=[{options['seed']}]")
    if not named or not chosen:
        raise PrecodeValueError("there is nothing to compare: name at least one method and one seed")
    if not isinstance(model, nn.Module) and not callable(model):
        raise PrecodeTypeError(f"model must be a module or a function that makes one, not {type(model).__name__}")
    functions({"loss": loss, "train": train, "optimizer": optimizer, "unpack": unpack, "weight": weight})
    settings: dict[str, Any] = {"epochs": epochs, "optimizer": optimizer, "unpack": unpack, "weight": weight}
    settings |= {"train": train, **options}
    rows: list[dict[str, Any]] = []
    refused: dict[str, str] = {}
    bench = dense = None
    for seed, name in tracked([(seed, name) for seed in chosen for name in named], progress, "search"):
        if bench is None or bench.seed != seed:
            bench = _Bench(_seeded(model, seed), data, loss, train, epochs, optimizer, seed, unpack, weight, test)
            dense = bench.tested(bench.learner.copy(), 0)
        if name in refused:
            continue
        began = time.perf_counter()
        try:
            tickets = find_ticket(
                bench.module, named[name], densities=kept, data=data, loss=loss, seed=seed, **settings
            )
        except PrecodeError as error:
            refused[name] = str(error)
            continue
        seconds = (time.perf_counter() - began) / len(kept)
        for density, ticket in zip(kept, tickets, strict=True):
            row = {"method": name, "density": density, "seed": seed, "kept": ticket.kept, "total": ticket.total}
            row |= {metric: bench.tested_ticket(ticket), f"dense_{metric}": dense}
            rows.append(row | {**ticket.cost, "seconds": seconds})
    # One that another seed refused would be compared on fewer seeds than the others.
    rows = [row for row in rows if row["method"] not in refused]
    if not rows:
        raise PrecodeValueError("no method can be run: " + "; ".join(f"{name}: {why}" for name, why in refused.items()))
    for name, why in refused.items():
        warnings.warn(f"{name!r} is left out: {why}", TicketWarning, stacklevel=2)
    if not callable(test) and (missing := _without_accuracy(rows, metric)):
        warnings.warn(
            f"{metric} is missing (NaN) where the largest output for the test data is not finite: of "
            f"{'; '.join(missing)}; train so that networks do not diverge, as with a lower learning rate",
            TicketWarning,
            stacklevel=2,
        )
    return Comparison(pd.DataFrame(rows), metric, refused)


def _without_accuracy(rows: list[dict[str, Any]], metric: str) -> list[str]:
    """The networks whose outputs name no class."""
    dense = {f"the dense network of seed {row['seed']}": row[f"dense_{metric}"] for row in rows}
    pruned = {f"{row['method']!r} at density {row['density']:g} of seed {row['seed']}": row[metric] for row in rows}
    return [name for name, value in (dense | pruned).items() if math.isnan(value)]


def _seeded(model: Model, seed: int) -> nn.Module:
    """The module of a seed; the global random states are as before."""
    if isinstance(model, nn.Module):
        return masked.unwrapped(model)
    # It may make its weights on the device that is current.
    devices = [torch.device("cuda", torch.cuda.current_device())] if torch.cuda.is_available() else []
    randomness = Randomness(devices, seed, [model])
    with randomness.isolated():
        randomness.reseed(Purpose.MODEL)
        made = model()
    masked.check_module(made)
    return made


class _Bench:
    """The module of a seed, and how its tickets are trained and tested."""

    def __init__(
        self,
        module: nn.Module,
        data: Any,
        loss: Loss | None,
        train: Callable[[nn.Module], Any] | None,
        epochs: int,
        optimizer: OptimizerFactory,
        seed: int,
        unpack: Unpack | None,
        weight: Weight | None,
        test: Any,
    ) -> None:
        self.module, self.seed, self._epochs = module, seed, epochs
        devices = [slot.parameter.device for slot in masked.slots(module).values()]
        randomness = Randomness(devices, seed, [data, loss, train, optimizer, unpack, weight, test, module])
        weight = weight or weight_of(loss)
        batches = None if data is None else Batches(data, devices[0], randomness, lambda: None, unpack, weight)
        if train is None and (batches is None or loss is None):
            raise PrecodeValueError("tickets are trained: pass data= and loss=, or train=")
        self.learner = Learner(module, [], batches, loss, train, epochs, optimizer, randomness)
        self._test = test if callable(test) else Batches(test, devices[0], randomness, lambda: None, unpack)

    def tested_ticket(self, ticket: Ticket) -> float:
        """What is tested, of a ticket after training."""
        network = self.learner.copy()
        for name, slot in masked.slots(network).items():
            slot.put(ticket.start[name])
        return self.tested(network, int(ticket.config["start_epoch"]), ticket.masks)

    def tested(self, network: nn.Module, first_epoch: int, masks: Mapping[str, torch.Tensor] | None = None) -> float:
        """What is tested, of a copy after training."""
        with masking.uncached(), uncalled(self.module):
            self.learner.fit(network, range(first_epoch, self._epochs), masks=masks)
        network.eval()
        with torch.inference_mode(False), torch.no_grad(), masking.uncached():
            if isinstance(self._test, Batches):
                value = _accuracy(network, self._test)
            else:
                with self.learner.randomness.isolated():
                    value = self._test(copied(network))
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise PrecodeTypeError(f"test must return a number, not {type(value).__name__}") from error


def _accuracy(network: nn.Module, batches: Batches) -> float:
    """The part of the labels that the largest output names, NaN where an output is not finite."""
    right, count, known = 0, 0, True
    with batches.isolated():
        for x, y in batches.epoch(0):
            output = call(network, x)
            if not isinstance(output, torch.Tensor) or output.ndim < 2 or not isinstance(y, torch.Tensor):
                raise PrecodeTypeError("test data are for modules that return logits, and labels: pass a function")
            if output.argmax(1).shape != y.shape:
                raise PrecodeValueError(
                    f"outputs of shape {tuple(output.shape)} name classes of shape {tuple(output.argmax(1).shape)}, "
                    f"but labels have shape {tuple(y.shape)}: pass a function as test="
                )
            if output.shape[1] == 1:
                raise PrecodeValueError(
                    f"outputs of shape {tuple(output.shape)} name one class: pass a function as test=, such as one "
                    "that asks which logits are above 0"
                )
            if output.ndim > 2 and output.argmax(-1).shape == y.shape:
                raise PrecodeValueError(
                    f"outputs of shape {tuple(output.shape)} may have their classes along the second or the last "
                    "axis: pass a function as test="
                )
            # Of outputs that are no numbers argmax names a class too.
            known = known and all_finite(output.amax(1))
            right, count = right + int((output.argmax(1) == y).sum()), count + count_labels(y)
    if not count:
        raise PrecodeValueError("the test data have no label that counts: all are ignored")
    return right / count if known else math.nan
