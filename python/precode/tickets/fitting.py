"""Whether a ticket fits a module, and whether the masks there are its own."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import nn

from precode._internal.errors import PrecodeShapeError, PrecodeValueError, TicketWarning
from precode.tickets import masked

if TYPE_CHECKING:
    from precode.tickets.ticket import Ticket


def fit(
    ticket: Ticket, module: nn.Module, *, free: bool = False, rewind: bool = True, strict: bool = True
) -> dict[str, masked.Slot]:
    """The module's parameters, if they are those of the ticket; with `free`, if none has a mask yet.

    With `rewind` all of them can be given values, else those with masks. Without `strict`, the parameters of the
    ticket's names in layers that have no parameter of another shape or type.
    """
    slots = masked.slots(module)
    other = ticket.start.keys() ^ slots.keys()
    if strict and other:
        places = {"the ticket": ticket.start.keys() - slots, "the module": slots.keys() - ticket.start}
        only = [f"only {place} has {', '.join(sorted(names)[:5])}" for place, names in places.items() if names]
        raise PrecodeValueError(
            f"the ticket is of another module ({'; '.join(only)}): apply it to one with the parameters it was "
            f"found for{_within(ticket, slots)}, or take what fits with strict=False"
        )
    problems = {name: _misfit(name, ticket.start[name], slot) for name, slot in slots.items() if name in ticket.start}
    problems = {name: problem for name, problem in problems.items() if problem}
    if strict:
        for problem in problems.values():
            raise PrecodeShapeError(problem)
    owners = {slots[name].owner for name in problems}
    fitting = {name: slot for name, slot in slots.items() if name in ticket.start and slot.owner not in owners}
    if not ticket.masks.keys() & fitting:
        raise PrecodeValueError(
            "no masked weight of the ticket fits the module: names, shapes and types must be the same"
            + _within(ticket, slots)
        )
    for name, slot in fitting.items():
        if rewind or name in ticket.masks:
            masked.check_editable(slot)
        if free and name in ticket.masks:
            masked.check_free(slot)
    if left := sorted((ticket.start.keys() | slots.keys()) - fitting.keys()):
        warnings.warn(f"parameters that do not fit keep what they have: {', '.join(left)}", TicketWarning, 3)
    return fitting


def _within(ticket: Ticket, slots: dict[str, masked.Slot]) -> str:
    """A hint at the part of a module that has the ticket's weights, or nothing."""
    first = next(iter(ticket.masks))
    for name in slots:
        prefix = name.removesuffix(f".{first}")
        if prefix != name and all(f"{prefix}.{mask}" in slots for mask in ticket.masks):
            return f", such as its part '{prefix}'"
    return ""


def check_mask(name: str, slot: masked.Slot, mask: torch.Tensor, *, exact: bool = False) -> None:
    """Refuses a pruned parameter whose mask keeps what the ticket prunes, or with `exact`, any other mask.

    Raises:
        PrecodeValueError: it is such a mask.
    """
    if slot.mask is None:
        return
    kept, own = slot.mask != 0, mask.to(slot.mask.device)
    if not torch.equal(kept, own) if exact else bool((kept & ~own).any()):
        raise PrecodeValueError(
            f"'{name}' has the mask of another ticket: use that one, or Ticket.from_parametrized(module), which has "
            "the masks of the module"
        )


def _misfit(name: str, start: torch.Tensor, slot: masked.Slot) -> str:
    """What keeps a start value from being that of a parameter, and the remedy; nothing if it fits."""
    now = slot.parameter
    if start.shape != now.shape:
        return (
            f"'{name}' has shape {tuple(start.shape)} in the ticket and {tuple(now.shape)} in the module: "
            "apply it to a module of the same sizes, or take what fits with strict=False"
        )
    if start.dtype != now.dtype:
        return (
            f"'{name}' has type {start.dtype} in the ticket and {now.dtype} in the module: convert the module, "
            f"as by module.to({start.dtype})"
        )
    return ""


def pruned(weight: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Values with zeros where they are pruned; unlike a product, also where one is not finite."""
    return torch.where(mask.to(weight.device), weight.detach(), 0.0)
