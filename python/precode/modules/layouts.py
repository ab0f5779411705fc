"""How weights stand in a tensor: which axis is of outputs, which of inputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from precode.tickets.masked import Slot

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""Layers whose weight is (inputs, outputs / groups, window)."""


@dataclass(frozen=True)
class Layout:
    """From the tensor of a layer to (outputs, inputs of an output, window), and back.

    Attributes:
        groups: parts of the outputs that have inputs of their own.
        swapped: whether inputs come first.
    """

    groups: int = 1
    swapped: bool = False

    def canonical(self, weight: torch.Tensor) -> torch.Tensor:
        """A weight, or something of each of its entries, with outputs first.

        Example:
            >>> Layout(groups=2, swapped=True).canonical(torch.zeros(4, 3, 5)).shape
            torch.Size([6, 2, 5])
        """
        return self._turned(weight) if self.swapped else weight

    def original(self, weight: torch.Tensor) -> torch.Tensor:
        """The inverse of `canonical`."""
        return self._turned(weight) if self.swapped else weight

    def _turned(self, weight: torch.Tensor) -> torch.Tensor:
        first, second, *window = weight.shape
        turned = weight.reshape(self.groups, first // self.groups, second, *window).transpose(1, 2)
        return turned.reshape(self.groups * second, first // self.groups, *window)


def is_transformers_linear(layer: nn.Module) -> bool:
    """Whether a layer is the Conv1D of Hugging Face's transformers, a linear layer with inputs first."""
    kinds = [kind for kind in type(layer).__mro__ if kind.__name__ == "Conv1D"]
    return any(kind.__module__.startswith("transformers.") for kind in kinds)


def layout(slot: Slot) -> Layout:
    """How the weights of a parameter stand."""
    if slot.attribute != "weight":
        return Layout()
    if isinstance(slot.owner, TRANSPOSED):
        return Layout(slot.owner.groups, swapped=True)
    if is_transformers_linear(slot.owner):
        return Layout(swapped=True)
    groups = getattr(slot.owner, "groups", 1)
    return Layout(groups) if isinstance(slot.owner, nn.Conv1d | nn.Conv2d | nn.Conv3d) else Layout()
