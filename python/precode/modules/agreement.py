"""Whether a module computes the same with masks on as with these weights at zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from precode._internal.errors import UnsupportedError
from precode._internal.randomness import reseed
from precode.modules.batches import call, tensors

BY_PLACE = (
    "with masks on, the module computes something else than with these weights at zero: masks change the order of "
    "parameters() and the names that get_parameter and state_dict know, so that its forward must find weights by "
    "attributes, such as self.layer.weight"
)


def check(plain: nn.Module, masked: nn.Module, batch: Sequence[Any] | None, device: torch.device, seed: int) -> None:
    """Refuses a module that computes something else once masks are on, or nothing; only within `isolated`.

    Both are called in evaluation mode, and have their modes again. A module that gives other results each time it is
    called is not judged.

    Args:
        plain: a copy of the module without masks.
        masked: one with masks, whose weights have the same values.
        batch: its first entry is what they are called on.
        device: whose random numbers are keyed.
        seed: the key.

    Raises:
        UnsupportedError: it does.
    """
    modes = {layer: layer.training for each in (plain, masked) for layer in each.modules()}
    x = batch[0] if batch else None

    def output(module: nn.Module) -> list[torch.Tensor]:
        reseed(device, seed)
        return [value.detach() for value in tensors(call(module.eval(), x))]

    with torch.inference_mode(False), torch.enable_grad():
        try:
            expected = output(plain)
            try:
                differs = not _are_near(output(masked), expected)
            except Exception as error:
                raise UnsupportedError(f"{BY_PLACE} ({type(error).__name__}: {error})") from error
            if differs and _are_near(output(plain), expected):
                raise UnsupportedError(BY_PLACE)
        except UnsupportedError:
            raise
        except Exception:  # what it makes of evaluation mode is not asked here
            return
        finally:
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
