"""Gradual pruning of a module while a user's own loop trains it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from precode._internal.check import KEY, integer
from precode._internal.errors import PrecodeTypeError, PrecodeValueError, TicketWarning, UnsupportedError
from precode._internal.interrupts import uninterrupted
from precode._internal.lazy import Lazy
from precode._internal.randomness import Randomness
from precode.modules import doubts, own, selection
from precode.modules.batches import Batches
from precode.modules.copies import copied
from precode.modules.finding import Search
from precode.modules.gradients import searchable
from precode.modules.learner import Loss
from precode.modules.objective import ModuleObjective
from precode.modules.own import Score
from precode.modules.prunable import AUTO, Names, Prunable, choose
from precode.modules.schedules import Schedule
from precode.modules.steps import Steps
from precode.modules.training import adam, weight_of
from precode.tickets import masked, registry
from precode.tickets.ticket import Ticket

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Lazy("pandas")

Tensors = dict[str, torch.Tensor]

MAGNITUDE = "magnitude"

OF_THE_REGISTRY = ("random", "snip", "grasp")
"""Methods of the registry whose scores can be taken at any moment, beside the magnitudes that the weights have then."""


class Pruner(Steps):
    """Prunes a module in steps of a schedule while a user's own loop trains it, within a ``with`` block.

    Masks as of `Ticket.apply_` are put on at once, with nothing pruned, so that an optimizer, a checkpoint and the
    names in the state dict are the same from the first step to the last. After an optimizer step that the schedule
    names, the weights of the lowest scores among those left are pruned: exactly ``round(density * weights)`` stay.
    A pruned weight stays zero under any optimizer and never returns (arXiv 1710.01878 leaves that open: there a pruned
    weight has its last value and no gradient). Of several optimizers that share the parameters out, it is done when the
    first of them has made its step. Leaving the block stops the schedule; the masks stay until ``ticket().remove_``.

    To go on from a checkpoint, make the module and the pruner as before, and load the state dicts of the module, which
    has the masks, and of the pruner.

    Args:
        module: of any kind, not pruned yet.
        schedule: the density after each step.
        method: ``"magnitude"``, of the weights at that moment; ``"random"``, ``"snip"`` or ``"grasp"`` on `data`; or a
            function of a parameter's name, its values and its gradient (None if there is none) to one score a weight,
            the larger the better, or its name by `register_method`.
        prunable: as in `find_ticket`.
        exclude: as in `find_ticket`.
        scope: over what scores are compared: global or per-layer.
        data: batches of (x, y) for methods that need them, as in `find_ticket`.
        loss: likewise.
        seed: key of the method's random numbers.

    Attributes:
        steps: optimizer steps so far.
        schedule: the density after each.

    Raises:
        PrecodeTypeError, PrecodeValueError: as `find_ticket` does; scores that are not finite, as of a training that
            diverged.
        UnsupportedError: a method that trains, or reads codes; an optimizer that steps within ``backward()``, once it
            does.

    Warns:
        TicketWarning: a layer of which nothing is kept; a block in which no step was seen, or at whose end the masks
            keep more than those that were set last.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        >>> with Pruner(module, Schedule("cubic", density=0.25, start=2, end=8, every=2)) as pruner:
        ...     for _ in range(10):
        ...         optimizer.zero_grad()
        ...         module(torch.ones(4, 8)).square().mean().backward()
        ...         optimizer.step()
        >>> pruner.table()["kept"].tolist()
        [160, 76, 44, 40]
        >>> pruner.ticket()
        Ticket(method='magnitude', density=0.25, kept=40 of 160 in 2 tensors)
    """

    def __init__(
        self,
        module: nn.Module,
        schedule: Schedule,
        method: str | Score = MAGNITUDE,
        *,
        prunable: Prunable = AUTO,
        exclude: Names = (),
        scope: str = "global",
        data: Any = None,
        loss: Loss | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(module)
        if not isinstance(schedule, Schedule):
            raise PrecodeTypeError(f"schedule must be a precode.Schedule, not {type(schedule).__name__}")
        if scope not in ("global", "per-layer"):
            raise PrecodeValueError(f"scope {scope!r} is unknown: use 'global' or 'per-layer'")
        self.schedule, self._scope, self._seed = schedule, scope, integer(seed, "seed", 0, KEY)
        self._method, self._score = own.resolve(method)
        if self._score is None and self._method != MAGNITUDE:
            registry.record(self._method)
            if self._method not in OF_THE_REGISTRY:
                raise UnsupportedError(
                    f"method {self._method!r} has no scores of single weights at one moment of a training: use "
                    f"{MAGNITUDE}, {', '.join(OF_THE_REGISTRY)}, or a function of your own"
                )
            if self._method != "random" and (data is None or loss is None):
                raise PrecodeValueError(f"method {self._method!r} needs data and a loss: pass data= and loss=")
        slots = masked.slots(self._module)
        self._choice = choose(self._module, slots, prunable, exclude)
        self._data, self._loss = data, loss
        devices = [slot.parameter.device for slot in slots.values()]
        self._randomness = Randomness(devices, self._seed, [data, loss, self._score])
        sizes = [slots[name].parameter.numel() for name in self._choice.names]
        for size in sizes if scope == "per-layer" else [sum(sizes)]:
            selection.kept_of(schedule.density, size, "the module" if scope == "global" else "a layer")
        self._start = {name: slot.parameter.detach().clone() for name, slot in slots.items()}
        self._moments = frozenset(schedule.steps)
        self._rows: list[dict[str, float]] = []
        self._said: set[str] = set()
        with uninterrupted():
            for name in self._choice.names:
                slots[name].prune(torch.ones_like(slots[name].parameter, dtype=torch.bool))

    def begin(self) -> None:
        """Prunes if the schedule names this step."""
        self._follow()

    def end(self) -> None:
        """Warns if the module was not pruned because no step of it was seen, or if it lost its masks since."""
        if not self.steps and max(self._moments) > 0:
            warnings.warn(
                "nothing was pruned after the start: no optimizer of torch.optim updated a parameter of the module "
                "(is it one of a copy?); see Pruner.step",
                TicketWarning,
                stacklevel=3,
            )
        if said := self._doubt(self._masks(masked.slots(self._module))):
            warnings.warn(said, TicketWarning, stacklevel=3)

    def _counted(self) -> None:
        if torch._C._current_graph_task_id() >= 0:
            raise UnsupportedError(
                "an optimizer steps within backward(), which still needs the weights that would be pruned: leave the "
                "with block out, call begin() before the loop, step() after each backward() and end() after the loop"
            )
        self._follow()

    def _follow(self) -> None:
        """Prunes if the schedule names this step, and it is not done."""
        done = self._rows[-1]["step"] if self._rows else -1
        if self.steps > done and self.steps in self._moments:
            self._prune(self.schedule.at(self.steps))

    @torch.no_grad()
    def _prune(self, density: float) -> None:
        slots = masked.slots(self._module)
        held = {name: slots[name] for name in self._choice.names}
        masks = {name: slot.mask for name, slot in held.items() if slot.mask is not None}
        if masks.keys() != held.keys():
            raise PrecodeValueError("the masks were taken off the module: make a new pruner to go on pruning")
        scores = self._scores(held, masks, density)
        for name, score in scores.items():
            if not bool(torch.isfinite(score[masks[name]]).all()):
                raise PrecodeValueError(
                    f"scores of '{name}' are not finite after {self.steps} steps: the training diverged, or the method "
                    "divides by zero"
                )
        if self._scope == "per-layer":
            chosen: Tensors = {}
            for name, score in scores.items():
                chosen |= selection.largest({name: score}, density, masks)
        else:
            chosen = selection.largest(scores, density, masks)
        with uninterrupted():
            for name, slot in held.items():
                masks[name].copy_(chosen[name])
                slot.put(torch.where(masks[name], slot.parameter, 0.0))
            self._rows.append({"step": self.steps, "density": density, "kept": _count(masks)})
        for said in set(doubts.of_masks(masks)) - self._said:
            self._said.add(said)
            warnings.warn(said, TicketWarning, stacklevel=4)

    def _scores(self, held: Mapping[str, masked.Slot], masks: Tensors, density: float) -> Tensors:
        """The score of every weight, pruned ones as zeros."""
        weights = {name: slot.values() for name, slot in held.items()}
        if self._score is not None:
            gradients = {name: slot.parameter.grad for name, slot in held.items()}
            given = {name: None if each is None else each.detach() for name, each in gradients.items()}
            return own.scores_of(self._method, self._score, weights, given, self._randomness, self.steps)
        if self._method == MAGNITUDE:
            return {name: weight.abs() for name, weight in weights.items()}
        plain = copied(self._module)
        for name, slot in masked.slots(plain).items():
            if name in held:
                slot.put(weights[name])
                slot.unprune()
        device = next(iter(weights.values())).device
        with searchable(plain), torch.inference_mode(False):
            names, data, loss, drawn = self._choice.names, self._data, self._loss, self._randomness
            counts = weight_of(loss)
            batches = None if data is None else Batches(data, device, drawn, lambda: None, weight=counts)
            objective = ModuleObjective(plain, names, batches, loss, None, 1, adam, drawn, None, 200.0, False)
            objective.belongs_to(self._module)
            search = Search(objective, self._method, None, None, False, None, self._seed, self._choice)
            found = search.scores(selection.Wanted(density, "weight", self._scope))
        return {name: score.to(weights[name].device) for name, score in found.items()}

    def ticket(self) -> Ticket:
        """The masks as they are, with the values before training as start values and those now as trained values.

        Its density is what the schedule says, or what the masks keep where they are those of another step.

        Warns:
            TicketWarning: the masks keep more than those that were set last, as those of an earlier checkpoint, and of
                averages that average them too.
        """
        slots = masked.slots(self._module)
        kept = self._masks(slots)
        if len(kept) != len(self._choice.names):
            raise PrecodeValueError("the masks were taken off the module: ask for the ticket before that")
        if said := self._doubt(kept):
            warnings.warn(said, TicketWarning, stacklevel=2)
        final = {name: slot.parameter.detach().clone() for name, slot in slots.items()}
        start = {name: self._start[name].to(value) for name, value in final.items()}
        for values in (start, final):
            values |= {name: torch.where(mask, values[name], 0.0) for name, mask in kept.items()}
        config = {"seed": self._seed, "steps": self.steps, "schedule": vars(self.schedule).copy()}
        density = self._density(kept)
        return Ticket(kept, start, method=self._method, density=density, scope=self._scope, config=config, final=final)

    def _masks(self, slots: Mapping[str, masked.Slot]) -> Tensors:
        """The masks that are on the module."""
        masks = {name: slots[name].mask for name in self._choice.names if name in slots}
        return {name: mask != 0 for name, mask in masks.items() if mask is not None}

    def _doubt(self, masks: Tensors) -> str:
        """What is said of masks that keep more than those that were set last; else nothing."""
        kept = _count(masks)
        if not self._rows or kept <= self._rows[-1]["kept"]:
            return ""
        return (
            f"the masks keep {kept} weights, and those that this Pruner set keep {self._rows[-1]['kept']}: they are of "
            "an earlier checkpoint, or of an average that averages masks too, which it does not with use_buffers=False"
        )

    def _density(self, masks: Tensors) -> float:
        """What was asked for, or what the masks keep where they are others, as those of an earlier checkpoint."""
        kept = _count(masks)
        total = sum(mask.numel() for mask in masks.values())
        last = self._rows[-1] if self._rows else {"density": 1.0, "kept": total}
        return last["density"] if last["kept"] == kept else kept / total

    def table(self) -> pd.DataFrame:
        """One row a pruning: columns step, density (asked for) and kept (the number of weights)."""
        return pd.DataFrame(self._rows, columns=["step", "density", "kept"])

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule is, for a checkpoint beside that of the module; numbers and tensors alone."""
        return super().state_dict() | {"rows": [dict(row) for row in self._rows], "start": dict(self._start)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a checkpoint; the masks come with the state dict of the module.

        Raises:
            PrecodeTypeError: it is none.
            PrecodeValueError: it is of a module with other parameters.
        """
        if not _is_state(state):
            raise PrecodeTypeError("state must be what Pruner.state_dict returned")
        if state["start"].keys() != self._start.keys():
            raise PrecodeValueError("the checkpoint is of another module: its parameters have other names")
        super().load_state_dict(state)
        self._rows = [dict(row) for row in state["rows"]]
        self._start = {name: value.to(self._start[name].device) for name, value in state["start"].items()}

    def __repr__(self) -> str:
        density = self._rows[-1]["density"] if self._rows else 1.0
        return f"Pruner(steps={self.steps}, density={density:g}, method={self._method!r}, schedule={self.schedule!r})"


def _count(masks: Tensors) -> int:
    """How many weights masks keep."""
    return sum(int(mask.sum()) for mask in masks.values())


def _is_state(state: Any) -> bool:
    """Whether something has the form of a pruner's checkpoint."""
    if not isinstance(state, Mapping) or not {"steps", "rows", "start"} <= state.keys():
        return False
    steps, rows, start = state["steps"], state["rows"], state["start"]
    return (
        isinstance(steps, int)
        and steps >= 0
        and isinstance(rows, list)
        and all(isinstance(row, Mapping) and {"step", "density", "kept"} <= row.keys() for row in rows)
        and isinstance(start, Mapping)
        and all(isinstance(value, torch.Tensor) for value in start.values())
    )
