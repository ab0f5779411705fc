"""Tickets of any `nn.Module`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from math import ceil, log
from typing import Any, overload

import torch
from torch import nn

from precode import _precode
from precode._internal import memory
from precode._internal.check import COUNT, KEY, fractions, functions, integer, numbers
from precode._internal.errors import PrecodeValueError, TicketWarning, UnsupportedError
from precode._internal.progress import Progress, reporter
from precode._internal.randomness import Randomness
from precode.formulas.dnf import Dnf
from precode.modules import gradients, own, selection
from precode.modules.batches import Batches, Unpack, Weight
from precode.modules.finding import Search, check_choice
from precode.modules.learner import Loss
from precode.modules.objective import LARGE, ModuleObjective
from precode.modules.originals import uncalled
from precode.modules.outputs import without_outputs
from precode.modules.own import Score
from precode.modules.pair import clauses_at, pair_of
from precode.modules.prunable import AUTO, Names, Prunable, check_axes, choose
from precode.modules.training import OptimizerFactory, adam, weight_of
from precode.tickets import masked, masking, registry
from precode.tickets.masked import Slot
from precode.tickets.registry import READS_CODES
from precode.tickets.search import moments
from precode.tickets.ticket import Ticket

SCORES_COPIES = (9, 7)
"""Bytes that methods of one score a weight take at most, as a multiple of the bytes of the parameters (of float32 where
they are of a smaller type): in small modules, where the allocator keeps what is freed, and in large ones, where it
gives it back. Measured in large ones of 1 to 400 layers: 1.6 (magnitude-init) to 5.5 (grasp), and 6.2 (grasp where it
checks second derivatives of the user's own)."""

OF_SCORES = ("random", "magnitude-init", "snip", "grasp", "grasp-magnitude")
"""Those methods."""

ONE_SHOT_COPIES = (20, 20)
"""The same of other methods of one shot, which is more than any takes."""

TRAINING_COPIES = (20, 20)
"""The same of methods that train. Measured in large modules: 4.1 (magnitude) to 13.2 (GEM-MINER)."""

ROUNDS_COPIES = (54, 6)
"""The same of a hundred rounds of scores. Measured: 50.8 in a small module, 4.3 to 4.7 in large ones."""

HESSIANS, HESSIANS_OF_ONE = 2, 5
"""How many of each layer's Hessians there are at once at most, and how many more of the layer that is pruned."""

LEVEL = 0.8
"""What a level of iterative pruning keeps; the outcome of each is remembered where there are several densities."""


@overload
def find_ticket(
    module: nn.Module,
    method: str | Score = "snip",
    density: float | Mapping[str, float] = 0.1,
    data: Any = None,
    loss: Loss | None = None,
    *,
    densities: None = None,
    train: Callable[[nn.Module], Any] | None = None,
    epochs: int = 20,
    optimizer: OptimizerFactory = adam,
    prunable: Prunable = AUTO,
    exclude: Names = (),
    granularity: str = "weight",
    scope: str = "global",
    at: int | None = None,
    seed: int = 0,
    layers: tuple[str, str] | None = None,
    clauses: Dnf | Sequence[Sequence[int]] | None = None,
    output: int | None = None,
    unpack: Unpack | None = None,
    weight: Weight | None = None,
    temperature: float = 200.0,
    progress: Progress = False,
) -> Ticket: ...
@overload
def find_ticket(
    module: nn.Module,
    method: str | Score = "snip",
    *,
    densities: Iterable[float],
    data: Any = None,
    loss: Loss | None = None,
    train: Callable[[nn.Module], Any] | None = None,
    epochs: int = 20,
    optimizer: OptimizerFactory = adam,
    prunable: Prunable = AUTO,
    exclude: Names = (),
    granularity: str = "weight",
    scope: str = "global",
    at: int | None = None,
    seed: int = 0,
    layers: tuple[str, str] | None = None,
    clauses: Dnf | Sequence[Sequence[int]] | None = None,
    output: int | None = None,
    unpack: Unpack | None = None,
    weight: Weight | None = None,
    temperature: float = 200.0,
    progress: Progress = False,
) -> list[Ticket]: ...
def find_ticket(
    module: nn.Module,
    method: str | Score = "snip",
    density: float | Mapping[str, float] = 0.1,
    data: Any = None,
    loss: Loss | None = None,
    *,
    densities: Iterable[float] | None = None,
    train: Callable[[nn.Module], Any] | None = None,
    epochs: int = 20,
    optimizer: OptimizerFactory = adam,
    prunable: Prunable = AUTO,
    exclude: Names = (),
    granularity: str = "weight",
    scope: str = "global",
    at: int | None = None,
    seed: int = 0,
    layers: tuple[str, str] | None = None,
    clauses: Dnf | Sequence[Sequence[int]] | None = None,
    output: int | None = None,
    unpack: Unpack | None = None,
    weight: Weight | None = None,
    temperature: float = 200.0,
    progress: Progress = False,
) -> Ticket | list[Ticket]:
    """Finds a lottery ticket of a module, which is left exactly as it is.

    Every method of `precode methods` works on every module with linear, convolutional, attention or recurrent layers;
    those that read codes or take rows times their weights to the outputs need a pair of linear layers; those that read
    the inputs of layers (``obs``, ``sparsegpt``, ``wanda``) take linear and convolutional layers; ``obs``
    takes layers of up to 4,096 inputs, ``sparsegpt`` of up to 16,384, ``obs-loss`` up to 4,096 prunable weights,
    ``hot-obs`` modules of up to 4,096 parameters.
    Gradients are taken on all of `data`, each layer in the mode that it has: in training mode, batch normalization uses
    the statistics of each batch, and dropout is drawn from the seed. A module in evaluation mode throughout is put in
    training mode. All user code runs in the calling thread.

    Args:
        module: with the initial weights theta_0, at any depth and on any device. Only deep copies of it are evaluated
            or trained. Of a compiled, parallel or averaged module, it is the module inside that is meant.
        method: name of the method; with a control after a colon, as in ``snip:shuffle-layer``. Or a function of your
            own from a parameter's name, its values and the gradient of the loss (None without data) to one score a
            weight; see `register_method`.
        density: fraction of the prunable weights that is kept, in (0, 1]; exactly ``round(density * weights)`` are,
            half to even. A dictionary gives each prunable parameter a density of its own.
        data: batches of (x, y) that can be visited again (a DataLoader, a list), or one pair of tensors, which is one
            batch. Tuples, lists and mappings as x are several arguments; a named tuple is one. Batches are moved to the
            module's device, by their own `to` where they have one.
        loss: from the module's output and y to the mean loss of the batch, such as
            ``torch.nn.functional.cross_entropy``. A loss with a third argument is given the module too, a copy, as for
            penalties on its parameters.
        densities: several fractions in place of `density`: a list of tickets, one for each, from one search. Trainings
            and gradients that they share are done once; the cost of each ticket is what it takes by itself.
        train: trains a module in place, for methods that need training; it is given deep copies, whose pruned weights
            are kept at zero. If None, the default loop trains: one optimizer step a batch for `epochs` epochs.
        epochs: epochs of the default loop.
        optimizer: makes the default loop's optimizer from parameters; Adam at 1e-3 if not given.
        prunable: names of parameters, of layers, patterns with *, or kinds of layers such as ``torch.nn.Embedding``;
            ``"auto"`` stands for the weights of all linear, (transposed) convolutional, attention and recurrent layers
            and of the Conv1D of Hugging Face's transformers. It leaves out those that are shared, frozen or
            parametrized, and names them in a warning.
        exclude: names, patterns or kinds of layers of what is not pruned, likewise.
        granularity: what is kept or pruned as one: weight, row (neuron, filter) or column (input, input channel). Rows
            and columns are kept in the order of their mean scores, as many as come closest to `density` of the weights;
            with ``prunable="auto"``, rows of the last layer are the outputs of the module, and all kept. ``"N:M"``,
            such as ``"2:4"``, keeps N of each M consecutive inputs of an output. All but weight are for methods that
            keep the largest scores: random, the magnitudes, snip, grasp, your own. Of a named matrix that is of no
            known layer, the first axis is that of the outputs.
        scope: over what scores are compared: global, per-layer, or erk: in each layer, with the densities of the
            Erdős–Rényi kernel (arXiv 1911.11134).
        at: epochs of the default loop after which the module is read, by methods that can read it early (``early`` of
            `precode.methods`); if None, each method's own moment. The ticket starts at theta_0 whenever it was read.
        seed: key of the method's own random numbers and of the order of a shuffling loader.
        layers: names of two linear layers that follow one another, for methods that read codes; if None and the module
            has exactly two, those.
        clauses: a task or its clauses as signed literals over the inputs of the first of the two layers, for methods
            that need them.
        output: the output of the second layer whose weights give rows their polarity. If None, the first; where clauses
            are given and the layer has several outputs, it must be named: of a classifier, the logit of True.
        unpack: makes the pair (x, y) of what `data` gives, such as ``lambda batch: (batch["input_ids"],
            batch["labels"])``.
        weight: from x and y to what the mean loss of a batch counts. If None, the number of elements of y, without
            those of value -100 that `cross_entropy` ignores, so that the mean over all data is the same however they
            are cut into batches; where y holds no tensor, the samples of x.
        temperature: what `grasp` divides the outputs by, one tensor; 200 is that of its official code.
        progress: show a bar of batches, or call a function with their number and 0 (how many there will be is not
            known).

    Returns:
        The ticket, or one for each of `densities`. It starts at ``theta_0 * mask``; only tickets of methods that rewind
        to a later step, or go on from trained weights, start there, at ``config["start_epoch"]``. ``config`` also has
        the share of all the module's weights that is prunable, and what was left out. Masks are Boolean, start values
        of the type of the parameters; both are contiguous, of their shapes and on their devices.

    Raises:
        PrecodeValueError: unknown method or name; an epoch that the method or the training does not have; a density out
            of range or so small that it keeps nothing; data, a loss, training or clauses that the method needs and that
            are not given; data that tell no clauses; no prunable layer; a named parameter that is shared, frozen or not
            finite; a module that is pruned already; gradients that are not finite; scores that do not tell weights
            apart; a loss or training that uses the module itself in place of the copy it is given; a batch of one
            sample for batch normalization; training that diverges.
        PrecodeTypeError: an argument of the wrong type, such as data that can be read only once.
        PrecodeShapeError: layers that do not follow one another; a loss of several elements.
        UnsupportedError: a method that looks into the training where `train` hides it; a layer without what the method
            needs, such as second derivatives; a search that does not fit into memory.

    Warns:
        TicketWarning: weights that are left out; scores that say nothing of a layer; a layer of which nothing is kept.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> x, y = torch.randn(64, 8), torch.randint(2, (64,))
        >>> ticket = find_ticket(module, "snip", 0.25, (x, y), nn.functional.cross_entropy)
        >>> ticket
        Ticket(method='snip', density=0.25, kept=40 of 160 in 2 tensors)
        >>> tickets = find_ticket(module, "snip", densities=[0.5, 0.2], data=(x, y), loss=nn.functional.cross_entropy)
        >>> [ticket.kept for ticket in tickets]
        [80, 32]
        >>> module = ticket.apply_(module)
    """
    with torch.inference_mode(False), torch.no_grad(), masking.uncached():
        masked.check_module(module)
        if torch._C._functorch.peek_interpreter_stack() is not None:
            raise UnsupportedError("find_ticket does not work within a transform of torch.func: call it before")
        module = masked.unwrapped(module)
        epochs, seed = integer(epochs, "epochs", 1, COUNT), integer(seed, "seed", 0, KEY)
        functions({"loss": loss, "train": train, "optimizer": optimizer, "unpack": unpack, "weight": weight})
        (temperature,) = numbers([temperature], "temperature", 1e-300)
        name, score = own.resolve(method)
        asked: list[Any] = [density] if densities is None else fractions(densities, "densities")
        slots = masked.slots(module)
        choice = choose(module, slots, prunable, exclude)
        if granularity != "weight":
            check_axes(slots, choice.names)
        pair = pair_of(module, slots, layers, output, several=clauses is not None)
        if score is None:
            _check_needs(name, data is not None and loss is not None, train is not None, pair, clauses)
        if at is not None:
            _check_moment(name, score is not None, at, epochs, train is not None)
        _check_memory(name, slots, asked)
        signed = clauses_at(clauses, slots, pair)
        report_of = reporter(progress, 0, "batch")
        with gradients.searchable(module), uncalled(module), _returned(slots), report_of as report:
            device = slots[choice.names[0]].parameter.device
            held = [data, loss, train, optimizer, unpack, weight, score, module]
            randomness = Randomness((slot.parameter.device for slot in slots.values()), seed, held)
            numbers_of_batches = count(1)
            visited = (lambda: None) if report is None else (lambda: report(next(numbers_of_batches)))
            weight = weight or weight_of(loss)
            batches = None if data is None else Batches(data, device, randomness, visited, unpack, weight)
            if granularity == "row":
                choice = without_outputs(module, choice, batches)
            objective = ModuleObjective(
                module,
                choice.names,
                batches,
                loss,
                train,
                epochs,
                optimizer,
                randomness,
                pair,
                temperature,
                len(asked) > 1,
            )
            shapes = {name: value.shape for name, value, _ in objective.parameters if name in choice.names}
            _check_removal(name, shapes)
            wishes = [selection.wanted(each, granularity, scope, shapes) for each in asked]
            check_choice(name, score is not None, wishes)
            negated = isinstance(clauses, Dnf) and clauses.complemented
            search = Search(objective, name, score, signed, negated, at, seed, choice)
            try:
                tickets = [search.ticket(each) for each in wishes]
            finally:
                objective.restore_buffers()
    for said in dict.fromkeys(each for ticket in tickets for each in ticket.config["warnings"]):
        warnings.warn(said, TicketWarning, stacklevel=2)
    return tickets[0] if densities is None else tickets


def _check_needs(method: str, learns: bool, trains: bool, pair: Any, clauses: Any) -> None:
    """Refuses a method that lacks what it needs, before any work starts; unknown names are refused later."""
    record = registry.records().get(method.partition(":")[0])
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
    if pair is None and not {*registry.needs(record)}.isdisjoint(READS_CODES):
        raise PrecodeValueError(
            f"method '{method}' needs two linear layers that follow one another: name them, as in "
            "layers=('0', '2'), or use a method that needs none, such as 'snip'"
        )


def _check_moment(method: str, is_own: bool, at: int, epochs: int, trains: bool) -> None:
    """Refuses an epoch that a method does not look at, or that the training does not show.

    Raises:
        PrecodeValueError: the method reads no epoch that it is told, or the run does not have it.
        UnsupportedError: a function of the user's own trains, and its epochs are not seen.
    """
    if is_own:
        raise PrecodeValueError(f"at = {at}: {method} is a function of your own, which reads theta_0; leave at out")
    moments([method], integer(at, "at", 0, COUNT), epochs)
    if at and trains:
        raise UnsupportedError(
            f"at = {at}: train= hides the epochs of its training: pass data and loss instead, so that the default loop "
            "trains, or at=0"
        )


def _check_removal(method: str, shapes: Mapping[str, torch.Size]) -> None:
    """Refuses layers that exact removal does not take, before the network is trained and the layers before them pruned.

    Raises:
        PrecodeValueError: a layer has too many inputs, or all layers too many weights; the message names it.
        UnsupportedError: the Hessians of all layers do not fit into memory.
    """
    base, most = method.partition(":")[0], _precode.MOST_REMOVED_TOGETHER
    other = "or take 'wanda', which takes layers of any width"
    if base == "obs-loss":
        if (total := sum(shape.numel() for shape in shapes.values())) > most:
            raise PrecodeValueError(
                f"the Fisher matrix of {total} prunable weights: obs-loss takes at most {most}; prune "
                "fewer, or take 'obs', which goes layer by layer"
            )
        return
    if base == "sparsegpt":
        most = _precode.MOST_SPARSEGPT_INPUTS
    elif base.startswith("obs"):
        other = f"or take 'sparsegpt', which takes up to {_precode.MOST_SPARSEGPT_INPUTS}"
    else:
        return
    widths = {name: shape[1:].numel() for name, shape in shapes.items()}
    for name, inputs in widths.items():
        if inputs > most:
            raise PrecodeValueError(
                f"each output of '{name}' has {inputs} inputs, of which {base} takes at most {most} "
                f"together: leave it out, as by exclude='{name}', {other}"
            )
    cells = [inputs**2 for inputs in widths.values()]
    memory.check(
        8 * (HESSIANS * sum(cells) + HESSIANS_OF_ONE * max(cells)),
        f"holding a Hessian for each layer, of up to {max(widths.values())} inputs,",
        "free memory, leave the widest layers out, or take 'wanda', which needs their diagonals alone",
    )


def _returned(slots: Mapping[str, Slot]) -> AbstractContextManager[None]:
    """What a search in large modules is done in; small ones work faster with memory that is kept."""
    return memory.returned() if _large(slots) else nullcontext()


def _large(slots: Mapping[str, Slot]) -> bool:
    return sum(slot.parameter.numel() for slot in slots.values()) >= LARGE


def _check_memory(method: str, slots: dict[str, Slot], densities: Sequence[Any]) -> None:
    """Refuses a search that does not fit into memory beside the module.

    Raises:
        UnsupportedError: it does not fit.
    """
    base = method.partition(":")[0]
    record = registry.records().get(base)
    schedule = "" if record is None else record["schedule"]
    trains = record is not None and (record["needs_dense_run"] or schedule.startswith("learned"))
    if trains:
        kept, given_back = TRAINING_COPIES
    elif schedule.startswith("100 rounds"):
        kept, given_back = ROUNDS_COPIES
    else:
        kept, given_back = SCORES_COPIES if base in OF_SCORES else ONE_SHOT_COPIES
    remembered = 0  # outcomes
    if len(densities) > 1:
        remembered = 3 + (ceil(log(min(densities), LEVEL)) if schedule.startswith("levels") else 0)
    allocated: dict[torch.device, tuple[int, int]] = {}  # of the weights, and of what is needed
    for slot in slots.values():
        device = slot.parameter.device
        # Other devices use again what was freed there.
        frees = device.type != "cpu" or (_large(slots) and memory.can_return())
        copies = (given_back if frees else kept) + remembered
        weights, needed = allocated.get(device, (0, 0))
        size, count = slot.parameter.element_size(), slot.parameter.numel()
        # What is computed with is of four bytes a number at least.
        allocated[device] = (weights + count * size, needed + count * max(size, 4) * copies)
    for device, (weights, needed) in allocated.items():
        where = "" if device.type == "cpu" else f" on {device}"
        memory.check(
            needed,
            f"finding a ticket by {method!r} in a module with {weights / 2**20:.0f} MiB of parameters{where}",
            "free memory, prune a smaller module" + (", or use a method of one shot, such as 'snip'" if trains else ""),
            device,
        )
