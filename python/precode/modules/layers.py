"""What linear and convolutional layers multiply their weights with, and the gradients of single samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from types import TracebackType
from typing import Any

import torch
from torch import nn

from precode._internal.errors import UnsupportedError
from precode.modules.layouts import is_transformers_linear
from precode.tickets.masked import Slot

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def windows(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The inputs that meet the weights of an output unit: (samples, positions, groups, inputs).

    Example:
        >>> layer = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
        >>> windows(layer, torch.zeros(5, 4, 8, 8)).shape
        torch.Size([5, 16, 2, 18])
    """
    if not isinstance(layer, CONVOLUTIONS):
        return x.reshape(1 if x.ndim == 1 else len(x), -1, 1, x.shape[-1])
    axes = len(layer.kernel_size)
    x = x if x.ndim == axes + 2 else x[None]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = nn.functional.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    for axis in range(axes):
        step, apart = layer.stride[axis], layer.dilation[axis]
        x = x.unfold(2 + axis, apart * (layer.kernel_size[axis] - 1) + 1, step)[..., ::apart]
    samples, channels, *places = x.shape
    x = x.reshape(samples, layer.groups, channels // layer.groups, *places)
    # Positions before groups; within a group channels before the places of the kernel, as in the weight.
    order = [0, *range(3, 3 + axes), 1, 2, *range(3 + axes, 3 + 2 * axes)]
    positions = int(torch.tensor(places[:axes]).prod())
    return x.permute(order).reshape(samples, positions, layer.groups, -1)


def _units(layer: nn.Module, y: torch.Tensor) -> torch.Tensor:
    """Something of every output unit in the form of `windows`: (samples, positions, groups, outputs)."""
    if not isinstance(layer, CONVOLUTIONS):
        return y.reshape(1 if y.ndim == 1 else len(y), -1, 1, y.shape[-1])
    y = y if y.ndim == len(layer.kernel_size) + 2 else y[None]
    return y.flatten(2).transpose(1, 2).reshape(len(y), -1, layer.groups, y.shape[1] // layer.groups)


class Watch:
    """Watches the layers of some weights while a module is called, within a ``with`` block.

    Args:
        slots: the parameters of the module.
        names: weights of linear or convolutional layers.

    Raises:
        UnsupportedError: parameters of other layers.
    """

    def __init__(self, slots: Mapping[str, Slot], names: Sequence[str]) -> None:
        self._layers: dict[str, nn.Module] = {}
        for name in names:
            owner = slots[name].owner
            known = isinstance(owner, (nn.Linear, *CONVOLUTIONS)) or is_transformers_linear(owner)
            if not known or slots[name].attribute != "weight":
                raise UnsupportedError(
                    f"this method needs the inputs of layers, and '{name}' is no weight of a Linear or Conv1d to "
                    f"Conv3d layer: leave it out, as by exclude='{name}'"
                )
            self._layers[name] = owner
        self._calls: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        self._hooks: list[Any] = []

    def __enter__(self) -> Watch:
        for name, layer in self._layers.items():
            self._calls[name] = []

            def seen(layer: nn.Module, given: Any, named: Any, output: torch.Tensor, name: str = name) -> torch.Tensor:
                self._calls[name].append((next(chain(given, named.values())), output))
                # What is watched is left alone by operations in place.
                return output.clone()

            self._hooks.append(layer.register_forward_hook(seen, with_kwargs=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def taken(self) -> list[tuple[torch.Tensor, list[torch.Tensor]]]:
        """For each layer, its inputs since last asked, in float64 in the form of `windows`, and its outputs.

        Positions of several calls stand one after another.

        Raises:
            UnsupportedError: a layer was not called.
        """
        found = []
        for name, calls in self._calls.items():
            if not calls:
                raise UnsupportedError(
                    f"this method needs the inputs of layers, and that of '{name}' is never called: leave it out, as "
                    f"by exclude='{name}'"
                )
            layer = self._layers[name]
            inputs = torch.cat([windows(layer, given.detach()) for given, _ in calls], 1)
            found.append((inputs.to("cpu", torch.float64), [output for _, output in calls]))
            calls.clear()
        return found

    def gradients(self, loss: torch.Tensor) -> list[torch.Tensor]:
        """Each sample's term in the gradient of a loss, (samples, groups, outputs, inputs) for each layer, float64."""
        taken = self.taken()
        parts = []
        for layer, (inputs, outputs) in zip(self._layers.values(), taken, strict=True):
            try:
                back = torch.autograd.grad(loss, outputs, retain_graph=True, allow_unused=True)
            except RuntimeError as error:
                raise UnsupportedError(
                    "this method needs the gradients at the outputs of layers, which checkpointed layers do not give: "
                    "switch activation checkpointing off in the module that is passed in"
                ) from error
            filled = [torch.zeros_like(y) if g is None else g for g, y in zip(back, outputs, strict=True)]
            units = torch.cat([_units(layer, gradient) for gradient in filled], 1).to("cpu", torch.float64)
            parts.append(torch.einsum("spgo,spgi->sgoi", units, inputs))
        return parts
