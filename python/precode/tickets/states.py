"""State dicts of pruned modules by the names of the plain module, each way."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from precode._internal.errors import PrecodeShapeError, PrecodeValueError
from precode.tickets import masked


def plain_state_dict(module: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict that a pruned module would have without masks: for a plain module, a file, or an export.

    Args:
        module: pruned by `Ticket.apply_`, `Pruner` or `torch.nn.utils.prune`, or not at all; within wrappers, the
            module inside.

    Returns:
        All parameters and buffers by the names of the plain module, with zeros where weights are pruned. Masked weights
        are copies; the others share their memory with the module, as those of ``module.state_dict()`` do.

    Raises:
        PrecodeTypeError: not a module.

    Example:
        >>> from precode import find_ticket
        >>> module = nn.Linear(4, 2)
        >>> _ = find_ticket(module, "magnitude-init", 0.5).apply_(module)
        >>> plain = nn.Linear(4, 2)
        >>> plain.load_state_dict(plain_state_dict(module))
        <All keys matched successfully>
        >>> int((plain.weight == 0).sum())
        4
    """
    names, masks = _names(module)
    found: dict[str, torch.Tensor] = {}
    for key, value in masked.unwrapped(module).state_dict().items():
        if key not in masks.values():
            found[names.get(key, key)] = value
    slots = masked.slots(module)
    for name in names.values():
        found[name] = _zeroed(found[name], slots[name])
    return found


def load_plain_state_dict(module: nn.Module, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Gives a pruned module the values of a plain one, in place; masks stay, and pruned weights stay zero.

    Args:
        module: as for `plain_state_dict`.
        state: a state dict by the names of the plain module.

    Returns:
        The module.

    Raises:
        PrecodeTypeError: not a module.
        PrecodeValueError: names that the plain module does not have, or names that are missing.
        PrecodeShapeError: a value of another shape. In each case nothing is changed.

    Example:
        >>> from precode import find_ticket
        >>> module = nn.Linear(4, 2)
        >>> ticket = find_ticket(module, "magnitude-init", 0.5)
        >>> other = nn.Linear(4, 2)
        >>> module = load_plain_state_dict(ticket.apply_(module), other.state_dict())
        >>> torch.equal(module.weight, other.weight * ticket.masks["weight"])
        True
    """
    names, masks = _names(module)
    network, slots = masked.unwrapped(module), masked.slots(module)
    full = dict(network.state_dict())
    keys = {names.get(key, key): key for key in full if key not in masks.values()}
    if keys.keys() != state.keys():
        sides = {"lacks": keys.keys() - state.keys(), "has also": state.keys() - keys.keys()}
        said = [f"{what} {', '.join(sorted(map(str, side))[:5])}" for what, side in sides.items() if side]
        raise PrecodeValueError(f"the state dict is not of the plain module: it {'; '.join(said)}")
    for name, key in keys.items():
        if isinstance(state[name], torch.Tensor) and full[key].shape != state[name].shape:
            raise PrecodeShapeError(
                f"'{name}' has shape {tuple(state[name].shape)} in the state dict and {tuple(full[key].shape)} in the "
                "module: load it into a module of the same sizes"
            )
        full[key] = _zeroed(state[name], slots[name]) if key in names else state[name]
    network.load_state_dict(full)
    for name in names.values():  # layers that hold the product too
        slots[name].put(slots[name].parameter)
    return module


def _zeroed(value: torch.Tensor, slot: masked.Slot) -> torch.Tensor:
    """Values of a weight with zeros where it is pruned."""
    return value if slot.mask is None else torch.where(slot.mask.to(value.device) != 0, value, 0.0)


def _names(module: nn.Module) -> tuple[dict[str, str], dict[str, str]]:
    """The plain names of pruned weights by their keys in the state dict, and the keys of their masks by these names."""
    names, masks = {}, {}
    for name, slot in masked.slots(module).items():
        if slot.pruned == "ticket":
            inner = f"{name.removesuffix(slot.attribute)}parametrizations.{slot.attribute}"
            names[f"{inner}.original"], masks[name] = name, f"{inner}.0.mask"
        elif slot.pruned == "torch":
            names[f"{name}_orig"], masks[name] = name, f"{name}_mask"
    return names, masks
