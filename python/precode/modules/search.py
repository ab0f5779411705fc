"""Tickets of any `nn.Module`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from precode import _precode
from precode._internal import memory
from precode._internal.check import COUNT, KEY, integer, literals, plain
from precode._internal.errors import PrecodeShapeError, PrecodeTypeError, PrecodeValueError
from precode._internal.progress import Progress, reporter
from precode.formulas.dnf import Dnf
from precode.modules.batches import Batches
from precode.modules.objective import Loss, ModuleObjective, OptimizerFactory, adam
from precode.tickets import masked
from precode.tickets.masked import Slot
from precode.tickets.ticket import Ticket

ONE_SHOT_COPIES = 20
"""Bytes that methods of one shot take at most, as a multiple of the bytes of the parameters. Measured on a linear layer
of 64 MiB: 14.3 (snip, magnitude) to 16.3 (random)."""

TRAINING_COPIES = 36
"""The same of methods that train. Measured likewise: 18.6 to 22.1 (learned masks, Early-Bird), 30.5 to 31.0 (imp)."""

ROUNDS_COPIES = 54
"""The same of a hundred rounds of scores. Measured on a layer of 12 MiB, of which the allocator keeps more: 50.8."""


def find_ticket(
    module: nn.Module,
    method: str = "snip",
    density: float = 0.1,
    data: Any = None,
    loss: Loss | None = None,
    *,
    train: Callable[[nn.Module], Any] | None = None,
    epochs: int = 20,
    optimizer: OptimizerFactory = adam,
    prunable: Iterable[str] | None = None,
    granularity: str = "weight",
    scope: str = "global",
    seed: int = 0,
    layers: tuple[str, str] | None = None,
    clauses: Dnf | Sequence[Sequence[int]] | None = None,
    output: int = 0,
    progress: Progress = False,
) -> Ticket:
    """Finds a lottery ticket of a module, which is left exactly as it is.

    Every method of `precode methods` works on every module with linear or convolutional layers; those that read codes
    or take rows times their weights to the outputs need a pair of linear layers; ``obs`` takes layers of up to 4,096
    inputs, ``obs-loss`` up to 4,096 prunable weights, ``hot-obs`` modules of up to 4,096 parameters.
    Gradients are taken on all of `data`, in training mode: batch normalization uses the
    statistics of each batch, and dropout is drawn from the seed. All user code runs in the calling thread.

    Args:
        module: with the initial weights theta_0, at any depth and on any device. Only deep copies of it are evaluated
            or trained.
        method: name of the method; with a control after a colon, as in ``snip:shuffle-layer``.
        density: fraction of the prunable weights that is kept, in (0, 1]; exactly ``round(density * weights)`` are,
            half to even.
        data: batches of (x, y) that can be visited again (a DataLoader, a list), or one pair of tensors, which is one
            batch. Tuples, lists and dictionaries as x are several arguments. Batches are moved to the module's device.
        loss: from the module's output and y to the mean loss of the batch, such as
            ``torch.nn.functional.cross_entropy``.
        train: trains a module in place, for methods that need training; it is given deep copies, whose pruned weights
            are kept at zero. If None, the default loop trains: one optimizer step a batch for `epochs` epochs.
        epochs: epochs of the default loop.
        optimizer: makes the default loop's optimizer from parameters; Adam at 1e-3 if not given.
        prunable: names of the parameters to prune; the weights of all `Linear` and `Conv1d` to `Conv3d` layers if None.
        granularity: what is kept or pruned as one: weight, row (neuron, filter) or column (input, input channel).
        scope: over what scores are compared: global or per-layer.
        seed: key of the method's own random numbers and of the order of a shuffling loader.
        layers: names of two linear layers that follow one another, for methods that read codes; if None and the module
            has exactly two, those.
        clauses: a task or its clauses as signed literals over the inputs of the first of the two layers, for methods
            that need them.
        output: the output of the second layer whose weights give rows their polarity.
        progress: show a bar of batches, or call a function with their number and 0 (how many there will be is not
            known).

    Returns:
        The ticket. It starts at ``theta_0 * mask``; only tickets of methods that rewind to a later step, or go on from
        trained weights, start there, at ``config["start_epoch"]``.

    Raises:
        PrecodeValueError: unknown method or name; a density out of range or so small that it keeps nothing; data, a
            loss, training or clauses that the method needs and that are not given; no prunable layer; a prunable
            parameter that is shared, frozen or not finite; a module that is pruned already; gradients that are not
            finite; training that diverges.
        PrecodeTypeError: an argument of the wrong type, such as data that can be read only once.
        PrecodeShapeError: layers that do not follow one another; a loss of several elements.
        UnsupportedError: a method that looks into the training where `train` hides it; a search that does not fit into
            memory.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> x, y = torch.randn(64, 8), torch.randint(2, (64,))
        >>> ticket = find_ticket(module, "snip", 0.25, (x, y), nn.functional.cross_entropy)
        >>> ticket
        Ticket(method='snip', density=0.25, kept=40 of 160 in 2 tensors)
        >>> module = ticket.apply_(module)
    """
    slots = masked.slots(module)
    names = _prunable(module, slots, prunable)
    if isinstance(density, bool | str) or not isinstance(density, float | int):
        raise PrecodeTypeError(f"density must be a number, not {type(density).__name__}")
    epochs, seed = integer(epochs, "epochs", 1, COUNT), integer(seed, "seed", 0, KEY)
    for name, function in (("loss", loss), ("train", train), ("optimizer", optimizer)):
        if not callable(function) and not (function is None and name != "optimizer"):
            raise PrecodeTypeError(f"{name} must be a function, not {type(function).__name__}")
    pair = _pair(module, slots, layers, output)
    _check_needs(method, data is not None and loss is not None, train is not None, pair, clauses)
    _check_memory(method, slots)
    with reporter(progress, 0, "batch") as report:
        visited = _Counter(report)
        device = slots[names[0]].parameter.device
        batches = None if data is None else Batches(data, device, seed, visited)
        objective = ModuleObjective(module, names, batches, loss, train, epochs, optimizer, seed, pair)
        signed = _clauses(clauses, slots, pair)
        negated = isinstance(clauses, Dnf) and clauses.complemented
        found = _precode.find_module_ticket(objective, signed, negated, method, density, granularity, scope, seed)
    masks = dict(zip(found["prunable"], (mask[0] for mask in found["masks"][0]), strict=True))
    first = [value for _, value, _ in objective.parameters]
    begin = first if found["start"] is None else [value[0] for value in found["start"][0]]
    start = dict(zip(found["parameters"], begin, strict=True))
    return Ticket(
        masks,
        {name: value * masks[name] if name in masks else value for name, value in start.items()},
        method=method,
        density=density,
        granularity=granularity,
        scope=scope,
        cost={"gradients": found["gradients"][0], "epochs": found["epochs"][0][0]},
        config={
            "seed": seed,
            "epochs": epochs,
            "start_epoch": found["start_epoch"],
            "notes": {name: float(values[0, 0]) for name, values in found["notes"].items()},
        },
    )


class _Counter:
    """Counts batches for a report."""

    def __init__(self, report: Callable[[int], None] | None) -> None:
        self._done, self._report = 0, report

    def __call__(self) -> None:
        self._done += 1
        if self._report is not None:
            self._report(self._done)


def _prunable(module: nn.Module, slots: dict[str, Slot], prunable: Iterable[str] | None) -> list[str]:
    """Names of the parameters to prune, in the module's order."""
    for slot in slots.values():
        if slot.pruned:
            masked.check_free(slot)
    if isinstance(prunable, str):
        prunable = [prunable]
    wanted = masked.layer_weights(module) if prunable is None else list(prunable)
    if not wanted:
        raise PrecodeValueError(
            "the module has nothing to prune: no Linear or Conv1d to Conv3d layer; name parameters with prunable="
            if prunable is None
            else "prunable is empty: name at least one parameter"
        )
    for name in wanted:
        if name not in slots:
            raise PrecodeValueError(
                f"'{name}' is not a plain parameter of the module (is it parametrized?): prunable can name "
                f"{', '.join(slots)}"
            )
        slot = slots[name]
        masked.check_free(slot)
        if not slot.parameter.requires_grad:
            raise PrecodeValueError(
                f"'{name}' is frozen (requires_grad is False): unfreeze it, or leave it out of prunable"
            )
        if not bool(torch.isfinite(slot.parameter).all()):
            raise PrecodeValueError(f"'{name}' has values that are not finite: initialize it again")
    return [name for name in slots if name in set(wanted)]


def _pair(
    module: nn.Module, slots: dict[str, Slot], layers: tuple[str, str] | None, output: int
) -> tuple[str, str, int] | None:
    """Names of the weights of the two layers that codes are read from."""
    linear = {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and f"{name}.weight" in slots
    }
    if layers is None:
        fits = len(linear) == 2 and _follow(*linear.values())
        layers = tuple(linear) if fits else None
    if layers is None:
        return None
    if isinstance(layers, str) or len(layers) != 2:
        raise PrecodeTypeError(f"layers must be the names of two linear layers, not {layers!r}")
    for name in layers:
        if name not in linear:
            raise PrecodeValueError(f"layers name '{name}', but the linear layers are {', '.join(linear) or 'none'}")
    first, second = (linear[name] for name in layers)
    if not _follow(first, second):
        raise PrecodeShapeError(
            f"'{layers[0]}' has {first.out_features} outputs, but '{layers[1]}' {second.in_features} inputs: name two "
            "layers that follow one another"
        )
    return f"{layers[0]}.weight", f"{layers[1]}.weight", integer(output, "output", 0, second.out_features - 1)


def _follow(first: nn.Linear, second: nn.Linear) -> bool:
    return first.out_features == second.in_features


def _check_needs(method: str, learns: bool, trains: bool, pair: Any, clauses: Any) -> None:
    """Refuses a method that lacks what it needs, before any work starts; unknown names are refused later."""
    if not isinstance(method, str):
        raise PrecodeTypeError(f"method must be a name, not {type(method).__name__}")
    record = next((row for row in _precode.methods() if row["name"] == method.partition(":")[0]), None)
    if record is None:
        return
    if record["needs_dense_run"] and not (trains or learns):
        raise PrecodeValueError(f"method '{method}' needs training: pass data= and loss=, or train=")
    only_trains = record["needs_dense_run"] and not record["needs_gradients"] and trains
    if record["needs_data"] and not (learns or only_trains):
        raise PrecodeValueError(f"method '{method}' needs data and a loss: pass data= and loss=")
    if record["needs_clauses"] and (clauses is None or pair is None):
        raise PrecodeValueError(
            f"method '{method}' needs clauses and two linear layers: pass clauses= and layers=, or use a method that "
            "needs none"
        )


def _check_memory(method: str, slots: dict[str, Slot]) -> None:
    """Refuses a search that does not fit into memory beside the module.

    Raises:
        UnsupportedError: it does not fit.
    """
    record = next((row for row in _precode.methods() if row["name"] == method.partition(":")[0]), None)
    schedule = "" if record is None else record["schedule"]
    trains = record is not None and (record["needs_dense_run"] or schedule.startswith("learned"))
    copies = TRAINING_COPIES if trains else ROUNDS_COPIES if schedule.startswith("100 rounds") else ONE_SHOT_COPIES
    weights = sum(slot.parameter.numel() * slot.parameter.element_size() for slot in slots.values())
    memory.check(
        weights * copies,
        f"finding a ticket by {method!r} in a module with {weights / 2**20:.0f} MiB of parameters",
        "free memory, prune a smaller module" + (", or use a method of one shot, such as 'snip'" if trains else ""),
    )


def _clauses(
    clauses: Dnf | Sequence[Sequence[int]] | None, slots: dict[str, Slot], pair: tuple[str, str, int] | None
) -> list[list[int]] | None:
    """Clauses as signed literals over the inputs of the first layer."""
    if clauses is None:
        return None
    if pair is None:
        raise PrecodeValueError("clauses are read at two linear layers: name them with layers=")
    listed: Any = (
        clauses.clauses_of(pair[2] if clauses.outputs > 1 else 0) if isinstance(clauses, Dnf) else plain(clauses)
    )
    if isinstance(listed, str) or not isinstance(listed, Iterable):
        raise PrecodeTypeError(f"clauses must be a Dnf or lists of signed literals, not {type(clauses).__name__}")
    inputs = slots[pair[0]].parameter.shape[1]
    # Checked as a formula over the layer's inputs.
    return [list(clause) for clause in Dnf([literals(clause) for clause in listed], inputs).clauses]
