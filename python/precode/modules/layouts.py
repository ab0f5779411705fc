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


def transformers_linears(layer: nn.Module) -> list[type]:
    """The classes of a layer that are the Conv1D of Hugging Face's transformers, a linear layer with inputs first."""
    return _of_library(layer, "Conv1D", "transformers.")


def libraries_linears(layer: nn.Module) -> list[type]:
    """The classes of a layer that are linear layers of transformers and of PyTorch Geometric."""
    return transformers_linears(layer) or _of_library(layer, "Linear", "torch_geometric.nn.dense.")


def _of_library(layer: nn.Module, name: str, library: str) -> list[type]:
    return [kind for kind in type(layer).__mro__ if kind.__name__ == name and kind.__module__.startswith(library)]


def layout(slot: Slot) -> Layout:
    """How the weights of a parameter stand."""
    owner = slot.owner
    if slot.attribute != "weight":
        return Layout()
    if isinstance(owner, TRANSPOSED):
        return Layout(owner.groups, swapped=True)
    if isinstance(owner, nn.Linear):  # or a class of one's own made of it
        sizes, shape = (owner.out_features, owner.in_features), tuple(slot.parameter.shape)
        return Layout(swapped=shape != sizes and shape == sizes[::-1])
    if transformers_linears(owner):
        return Layout(swapped=True)
    groups = getattr(owner, "groups", 1)
    return Layout(groups) if isinstance(owner, nn.Conv1d | nn.Conv2d | nn.Conv3d) else Layout()
