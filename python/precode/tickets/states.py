"""State dicts of pruned modules by the names of the plain module, each way."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from precode._internal.errors import PrecodeShapeError, PrecodeTypeError, PrecodeValueError
from precode._internal.interrupts import uninterrupted
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
    pruned, masks = _pruned(module)
    found: dict[str, torch.Tensor] = {}
    for key, value in masked.unwrapped(module).state_dict().items():
        if key in pruned:
            name, slot = pruned[key]
            found[name] = _zeroed(value, slot)
        elif key not in masks:
            found[key] = value
    return found


def load_plain_state_dict(module: nn.Module, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Gives a pruned module the values of a plain one, in place; masks stay, and pruned weights stay zero.

    Args:
        module: as for `plain_state_dict`.
        state: a state dict by the names of the plain module.

    Returns:
        The module.

    Raises:
        PrecodeTypeError: not a module, or no state dict of tensors.
        PrecodeValueError: names that the plain module does not have, or names that are missing; a value on the meta
            device, or a parameter that was made in inference mode.
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
    if not isinstance(state, Mapping):
        raise PrecodeTypeError(f"state must be a state dict, not {type(state).__name__}")
    pruned, masks = _pruned(module)
    network = masked.unwrapped(module)
    full = dict(network.state_dict())
    keys = {pruned[key][0] if key in pruned else key: key for key in full if key not in masks}
    if keys.keys() != state.keys():
        sides = {"lacks": keys.keys() - state.keys(), "has also": state.keys() - keys.keys()}
        said = [f"{what} {', '.join(sorted(map(str, side))[:5])}" for what, side in sides.items() if side]
        raise PrecodeValueError(f"the state dict is not of the plain module: it {'; '.join(said)}")
    for name, key in keys.items():
        if isinstance(full[key], torch.Tensor) and not isinstance(state[name], torch.Tensor):
            raise PrecodeTypeError(f"'{name}' must be a tensor, not {type(state[name]).__name__}")
        if isinstance(state[name], torch.Tensor) and state[name].is_meta:
            raise PrecodeValueError(f"'{name}' is on the meta device, without values: load them from a file first")
        if isinstance(state[name], torch.Tensor) and full[key].shape != state[name].shape:
            raise PrecodeShapeError(
                f"'{name}' has shape {tuple(state[name].shape)} in the state dict and {tuple(full[key].shape)} in the "
                "module: load it into a module of the same sizes"
            )
        full[key] = _zeroed(state[name], pruned[key][1]) if key in pruned else state[name]
    for slot in masked.slots(module).values():
        masked.check_editable(slot)
    with uninterrupted():
        network.load_state_dict(full)
        for _, slot in pruned.values():  # layers that hold the product too
            slot.put(slot.parameter)
    return module


def _zeroed(value: torch.Tensor, slot: masked.Slot) -> torch.Tensor:
    """Values of a weight with zeros where it is pruned."""
    return value if slot.mask is None else torch.where(slot.mask.to(value.device) != 0, value, 0.0)


def _pruned(module: nn.Module) -> tuple[dict[str, tuple[str, masked.Slot]], set[str]]:
    """The plain names and the slots of pruned weights by their keys in the state dict, and the keys of their masks.

    A layer that stands at several places has keys for each, and wrappers within the module are parts of its names,
    except torch's checkpoint wrapper and Fabric's, which leave themselves out of state dicts.
    """
    slots: dict[nn.Module, list[masked.Slot]] = {}
    for slot in masked.slots(module).values():
        if slot.pruned:
            slots.setdefault(slot.owner, []).append(slot)
    pruned, masks = {}, set()
    for path, layer in masked.unwrapped(module).named_modules(remove_duplicate=False):
        prefix = "".join(f"{part}." for part in path.split(".") if part not in ("", masked.CHECKPOINT, *masked.FABRIC))
        for slot in slots.get(layer, ()):
            inner = f"{prefix}parametrizations.{slot.attribute}"
            of_ticket = slot.pruned == "ticket"
            key = f"{inner}.original" if of_ticket else f"{prefix}{slot.attribute}_orig"
            pruned[key] = (f"{prefix}{slot.attribute}", slot)
            masks.add(f"{inner}.0.mask" if of_ticket else f"{prefix}{slot.attribute}_mask")
    return pruned, masks
