"""The search of one method, from what it finds to tickets: scores, masks, start values, doubts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from precode import _precode
from precode._internal import memory
from precode._internal.errors import UnsupportedError
from precode._internal.parts import parts
from precode.modules import doubts, own, selection
from precode.modules.objective import ModuleObjective
from precode.modules.own import Score
from precode.modules.prunable import Choice
from precode.modules.selection import Wanted
from precode.tickets.contents import Own
from precode.tickets.ticket import Ticket

Tensors = dict[str, torch.Tensor]

BY_SCORES = ("random", "magnitude-init", "magnitude", "checkpoint-magnitude", "snip", "grasp", "grasp-magnitude")
"""Methods that keep the weights of the largest scores, whose scores may be compared in any other way as well."""

IN_ROUNDS = ("synflow",)
"""Methods that do so in rounds, of which the scores of the last are known."""

BY_INPUTS = ("wanda", "wanda-global")
"""Methods whose scores are products with the size of inputs."""


def check_choice(method: str, is_own: bool, wishes: Sequence[Wanted]) -> None:
    """Refuses a choice that a method, with or without a control, cannot make.

    Raises:
        UnsupportedError: it cannot.
    """
    base, _, control = method.partition(":")
    if all(wanted.plain for wanted in wishes):
        return
    if not is_own and base not in BY_SCORES:
        raise UnsupportedError(
            f"method {base!r} keeps single weights at one density, global or per-layer: for rows, columns, N:M and "
            f"densities of layers use one of {', '.join(BY_SCORES)}, or a function of your own"
        )
    if control.startswith("shuffle"):
        raise UnsupportedError(
            f"control {control!r} is for single weights at one density: leave granularity out, or the control"
        )


@dataclass
class Outcome:
    """What a method finds; tensors have outputs first, see `Layout`."""

    masks: Tensors | None
    scores: Tensors
    start: Tensors
    start_epoch: int
    cost: dict[str, float]
    notes: dict[str, float]


class Search:
    """The search of a method for tickets, one density after the other.

    Args:
        objective: the module and what it is to learn.
        method: name of the method, with its control.
        score: the function, of a method of the user's own.
        clauses: over the inputs of the first layer that codes are read from, or None.
        negated: whether the network computes the negation of what its clauses say.
        at: epochs of the dense run after which the module is read; None for the method's own moment.
        seed: key of the method's own random numbers.
        choice: what is pruned, and what is not.
    """

    def __init__(
        self,
        objective: ModuleObjective,
        method: str,
        score: Score | None,
        clauses: list[list[int]] | None,
        negated: bool,
        at: int | None,
        seed: int,
        choice: Choice,
    ) -> None:
        self._objective, self._method, self._score, self._choice = objective, method, score, choice
        self._clauses, self._negated, self._at, self._seed = clauses, negated, at, seed
        self._base, _, self._control = method.partition(":")

    def ticket(self, wanted: Wanted) -> Ticket:
        """The ticket for what is wanted."""
        objective, layouts = self._objective, self._objective.layouts
        found = self._found(wanted) if self._score is None else self._found_by(self._score)
        masks = found.masks
        if masks is None or not wanted.plain:
            inverted = {name: -score for name, score in found.scores.items()} if self._control == "invert" else None
            masks = selection.choose(inverted or found.scores, layouts, wanted)
            del inverted
        said = doubts.of_choice(self._choice.left_out)
        if self._has_scores and not self._control and wanted.pattern is None:
            compared = selection.compared(found.scores, layouts, wanted.granularity)
            said += doubts.of_scores(self._method, compared, masks, per_layer=wanted.scope == "per-layer")
            del compared
            memory.trim()
        if self._base in BY_INPUTS and not self._control:
            said += doubts.of_inputs(self._method, objective.silent, masks)
        said += objective.said + doubts.of_masks(masks)
        config: dict[str, Any] = {
            "seed": self._seed,
            "epochs": objective.epochs,
            "start_epoch": found.start_epoch,
            "notes": found.notes,
            "share": self._choice.share,
            "left_out": self._choice.left_out | self._choice.spared,
            "warnings": said,
        }
        if wanted.layers is not None:
            config["densities"] = wanted.layers
        if wanted.pattern is not None:
            config["pattern"] = "{}:{}".format(*wanted.pattern)
        objective.check_original()
        found.scores.clear()  # so that they do not lie beside the start values
        masks = Own({name: layouts[name].original(mask).contiguous() for name, mask in masks.items()})
        start = Own()
        for name, value in found.start.items():
            start[name] = layouts[name].original(value).clone(memory_format=torch.contiguous_format)
            if name in masks:
                masks[name] = masks[name].to(start[name].device)
                for part, kept in parts(start[name], masks[name]):
                    part *= kept
        return Ticket(
            masks,
            start,
            method=self._method,
            density=wanted.density,
            granularity=wanted.granularity,
            scope=wanted.scope,
            settings={"temperature": objective.temperature} if self._base.startswith("grasp") else {},
            cost=found.cost,
            config=config,
        )

    def scores(self, wanted: Wanted) -> Tensors:
        """The scores of a method of the registry that keeps the largest, as the weights stand in the module."""
        layouts = self._objective.layouts
        return {name: layouts[name].original(score) for name, score in self._found(wanted).scores.items()}

    @property
    def _has_scores(self) -> bool:
        return self._score is not None or self._base in BY_SCORES + IN_ROUNDS

    def _found(self, wanted: Wanted) -> Outcome:
        """What a method of the registry finds."""
        found = _precode.find_module_ticket(
            self._objective,
            self._clauses,
            self._negated,
            self._method,
            wanted.density,
            "weight",
            "global" if wanted.scope == "global" else "per-layer",
            self._at,
            self._seed,
        )
        memory.trim()
        first = [value for _, value, _ in self._objective.parameters]
        start = first if found["start"] is None else [value[0] for value in found["start"][0]]
        scores = [] if found["scores"] is None else [score[0] for score in found["scores"][0]]
        names = found["prunable"]
        return Outcome(
            masks=dict(zip(names, (mask[0] for mask in found["masks"][0]), strict=True)),
            scores=dict(zip(names, scores, strict=bool(scores))),
            start=dict(zip(found["parameters"], start, strict=True)),
            start_epoch=found["start_epoch"],
            cost={"gradients": found["gradients"][0], "epochs": found["epochs"][0][0]},
            notes={name: float(values[0, 0]) for name, values in found["notes"].items()},
        )

    def _found_by(self, score: Score) -> Outcome:
        """What a function of the user's own says."""
        objective, layouts = self._objective, self._objective.layouts
        first = {name: value for name, value, _ in objective.parameters}
        gradients = objective.gradients()
        scores = own.scores_of(
            self._base,
            score,
            {name: layouts[name].original(first[name]) for name in objective.prunable},
            gradients and {name: layouts[name].original(gradients[name]) for name in objective.prunable},
            objective.randomness,
        )
        return Outcome(
            masks=None,
            scores={name: layouts[name].canonical(score) for name, score in scores.items()},
            start=first,
            start_epoch=0,
            cost={"gradients": float(gradients is not None), "epochs": 0.0},
            notes={},
        )
