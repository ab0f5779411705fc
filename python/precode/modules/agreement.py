"""Whether a module computes the same once masks are on as with these weights at zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from precode._internal.randomness import Purpose, Randomness
from precode.modules.batches import call, tensors
from precode.modules.copies import State
from precode.tickets import masked

BY_PLACE = (
    "once its masks are put on by apply_, the module computes something else than with these weights at zero or fails, "
    "as a forward does that finds weights by place or by path: masks change the order of parameters() and the names "
    "that get_parameter and state_dict know; let it use attributes, such as self.layer.weight"
)
"""What is said of a module that computes something else with masks on."""


def doubt(
    network: nn.Module, masks: Mapping[str, torch.Tensor], batch: Sequence[Any] | None, randomness: Randomness
) -> str:
    """What is said of a module that masks are to be put on, if anything; only within `isolated`.

    It is called in evaluation mode, and has its modes and its state again. One that gives other results each time it is
    called is not judged.

    Args:
        network: a copy of the module, whose pruned weights are zero.
        masks: of some of its parameters, by name.
        batch: its first entry is what it is called on.
        randomness: what it is called with.
    """
    modes, state = {layer: layer.training for layer in network.modules()}, State(network)
    slots = masked.slots(network)
    x = batch[0] if batch else None

    def output() -> list[torch.Tensor]:
        randomness.reseed(Purpose.CHECK)
        state.put_back()
        return [value.detach() for value in tensors(call(network, x))]

    try:
        with torch.inference_mode(False), torch.enable_grad():
            network.eval()
            expected = output()
            if not _are_near(output(), expected):
                return ""
            try:
                for name, mask in masks.items():
                    slots[name].prune(mask)
                return "" if _are_near(output(), expected) else BY_PLACE
            except Exception as error:
                return f"{BY_PLACE} ({type(error).__name__}: {error})"
            finally:
                for slot in masked.slots(network).values():
                    if slot.pruned == "ticket":
                        slot.unprune()
    except Exception:  # what it makes of evaluation mode is not asked here
        return ""
    finally:
        state.put_back()
        for layer, mode in modes.items():
            layer.training = mode


def _are_near(results: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    """Whether results are the same but for rounding."""
    return len(results) == len(others) and all(map(_is_near, results, others))


def _is_near(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape or not one.is_floating_point() or not one.numel():
        return one.shape == other.shape
    size = float(other.abs().nan_to_num(0.0, 0.0).max())
    return bool(torch.allclose(one, other, rtol=1e-2, atol=1e-2 * size, equal_nan=True))
