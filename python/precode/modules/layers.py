"""What linear and convolutional layers multiply their weights with, and the gradients of single samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch._C import DisableTorchFunction
from torch.overrides import TorchFunctionMode

from precode._internal.errors import UnsupportedError
from precode.modules.layouts import libraries_linears
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
    return x.permute(order).reshape(samples, math.prod(places[:axes]), layer.groups, -1)


def _units(layer: nn.Module, y: torch.Tensor) -> torch.Tensor:
    """Something of every output unit in the form of `windows`: (samples, positions, groups, outputs)."""
    if not isinstance(layer, CONVOLUTIONS):
        return y.reshape(1 if y.ndim == 1 else len(y), -1, 1, y.shape[-1])
    y = y if y.ndim == len(layer.kernel_size) + 2 else y[None]
    return y.flatten(2).transpose(1, 2).reshape(len(y), -1, layer.groups, y.shape[1] // layer.groups)


class Watch(TorchFunctionMode):
    """Watches the layers of some weights while a module is called, within a ``with`` block.

    Args:
        slots: the parameters of the module.
        names: weights of linear or convolutional layers.
        of: what is kept of the inputs of each call, which are in float64 on the CPU in the form of `windows`.
        strict: refuse layers that compute with something else than what they are given.

    Attributes:
        elsewhere: weights that are used outside of the calls of their layer as well, and the function that does so.

    Raises:
        UnsupportedError: parameters of other layers.
    """

    def __init__(
        self,
        slots: Mapping[str, Slot],
        names: Sequence[str],
        of: Callable[[torch.Tensor], Any] = lambda inputs: inputs,
        strict: bool = True,
    ) -> None:
        super().__init__()
        if others := [name for name in names if not _is_watchable(slots[name])]:
            raise UnsupportedError(
                "this method needs the inputs of layers, and some weights are of no Linear or Conv1d to Conv3d layer, "
                f"or of one that is not called: leave them out, as by exclude={others}"
            )
        self._layers = {name: slots[name].owner for name in names}
        self._weights = {id(slots[name].parameter): name for name in names}
        self._of, self._strict = of, strict
        self._calls: dict[str, list[tuple[Any, torch.Tensor]]] = {name: [] for name in names}
        self._own = {name for name, layer in self._layers.items() if has_own_forward(layer)}
        self._called, self._hooks = set[str](), list[Any]()
        # Of the layers that are being called: what operations get, where a forward of one's own may change it.
        self._open: dict[str, list[Operation]] = {}
        self.elsewhere: dict[str, str] = {}

    def __enter__(self) -> Watch:
        super().__enter__()  # type: ignore[no-untyped-call]
        for name, layer in self._layers.items():
            before = layer.register_forward_pre_hook(partial(self._enters, name))
            self._hooks += [before, layer.register_forward_hook(partial(self._seen, name), with_kwargs=True)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def __torch_function__(
        self, function: Any, types: Any, arguments: Sequence[Any] = (), named: Mapping[str, Any] | None = None
    ) -> Any:
        named = named or {}
        result = function(*arguments, **named)
        if isinstance(result, torch.Tensor) and result.is_floating_point():
            kind = getattr(function, "__name__", repr(function))
            kind = function.__self__.__name__ if kind == "__get__" else kind
            for value in chain(arguments, named.values()):
                name = self._weights.get(id(value))
                if name is not None and name not in self._open and kind != "grad":
                    self.elsewhere.setdefault(name, kind)
            for name, operations in self._open.items():
                if name in self._own:
                    operations.append(Operation(kind, arguments, named))
        return result

    def _enters(self, name: str, *_: Any) -> None:
        self._open[name] = []

    def _seen(self, name: str, layer: nn.Module, given: Any, named: Any, output: torch.Tensor) -> torch.Tensor:
        operations = self._open.pop(name, [])
        inputs = next(chain(given, named.values()))
        with DisableTorchFunction():
            if torch._C._functorch.is_functorch_wrapped_tensor(inputs):
                raise UnsupportedError(
                    f"this method needs the inputs of layers, and that of '{name}' is called within a transform of "
                    f"torch.func, such as vmap, which hides them: call it on the whole batch, or leave it out, as by "
                    f"exclude='{name}'"
                )
            if not inputs.numel():  # such as those of an expert that gets no token
                self._called.add(name)
                return output
            weight = layer.weight
            if not isinstance(weight, torch.Tensor) or id(weight) not in self._weights:
                raise UnsupportedError(
                    f"this method needs the inputs that weights are multiplied with, and '{name}' is called with "
                    f"another in its place, as by torch.func.functional_call: leave it out, as by exclude='{name}'"
                )
            uses = [each for each in operations if each.takes(weight)]
            plain = name not in self._own or (bool(uses) and all(each.is_of(layer, inputs) for each in uses))
            if self._strict and not plain:
                raise UnsupportedError(
                    f"this method needs the inputs that weights are multiplied with, and '{name}' is of a "
                    f"{type(layer).__name__} whose own forward does more, or other, than to multiply what it is given "
                    f"with its weight, such as padding or scaling one of them: leave it out, as by exclude='{name}'"
                )
            self._called.add(name)
            # At once, and as a copy: the module may go on to edit them in place.
            exact = windows(layer, inputs.detach()).to("cpu", torch.float64, copy=True)
            self._calls[name].append((self._of(exact), output))
            return output.clone()

    def taken(self) -> list[tuple[list[Any], list[torch.Tensor]]]:
        """For each layer, what is kept of its inputs and its outputs, one of each call since last asked."""
        found = []
        for calls in self._calls.values():
            found.append(([kept for kept, _ in calls], [output for _, output in calls]))
            calls.clear()
        return found

    def check_called(self) -> None:
        """Refuses layers that were never called.

        Raises:
            UnsupportedError: one was not.
        """
        for name in self._layers:
            if name not in self._called:
                raise UnsupportedError(
                    f"this method needs the inputs of layers, and that of '{name}' is never called: leave it out, as "
                    f"by exclude='{name}'"
                )

    def gradients(self, loss: torch.Tensor, samples: int) -> torch.Tensor | None:
        """Each sample's term in the gradient of a loss, (samples, weights), float64; of all layers, outputs first.

        The inputs of calls must be kept as they are. It is right if the samples of the batch are the first axis of
        each call, in their order, and weights are used in calls only; None if it is known not to be.
        """
        parts = []
        for layer, (inputs, outputs) in zip(self._layers.values(), self.taken(), strict=True):
            calls = [(z, output) for z, output in zip(inputs, outputs, strict=True) if output.requires_grad]
            try:
                followed = [output for _, output in calls]
                back = torch.autograd.grad(loss, followed, retain_graph=True, allow_unused=True) if calls else ()
            except RuntimeError:  # checkpointed layers do not give them
                return None
            size = layer.get_parameter("weight").numel()
            part = torch.zeros(samples, size, dtype=torch.float64, device="cpu")
            for (z, _), gradient in zip(calls, back, strict=True):
                if len(z) != samples:
                    return None
                if gradient is not None:
                    units = _units(layer, gradient).to("cpu", torch.float64)
                    part += torch.einsum("spgo,spgi->sgoi", units, z).flatten(1)
            parts.append(part)
        return torch.cat(parts, 1)


class Operation(NamedTuple):
    """A call of a function of torch."""

    function: str
    arguments: Sequence[Any]
    named: Mapping[str, Any]

    def takes(self, weight: torch.Tensor) -> bool:
        """Whether it computes with a weight."""
        return any(each is weight for each in chain(self.arguments, self.named.values()))

    def is_of(self, layer: nn.Module, inputs: torch.Tensor) -> bool:
        """Whether it multiplies these inputs with a weight as the layer of PyTorch does."""
        names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
        given = dict(zip(names, self.arguments, strict=False)) | dict(self.named)
        if isinstance(layer, CONVOLUTIONS):
            axes = len(layer.kernel_size)
            usual = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1} | given
            if self.function != f"conv{axes}d" or layer.padding_mode != "zeros" or layer.groups != usual["groups"]:
                return False
            for option in ("stride", "padding", "dilation"):
                if _of_axes(usual[option], axes) != _of_axes(getattr(layer, option), axes):
                    return False
        elif self.function != "linear":
            return False
        x = given["input"]
        if given["weight"] is not layer.weight or x.shape != inputs.shape:
            return False
        return x is inputs or torch.allclose(x.detach().float(), inputs.detach().float(), rtol=1e-2)


def _is_watchable(slot: Slot) -> bool:
    """Whether a weight is of a layer that is called with what it is multiplied with."""
    layer = slot.owner
    known = isinstance(layer, (nn.Linear, *CONVOLUTIONS)) or bool(libraries_linears(layer))
    # Attention uses the weight of its output projection without calling it.
    used = isinstance(layer, nn.modules.linear.NonDynamicallyQuantizableLinear)
    return known and not used and slot.attribute == "weight"


def _of_axes(option: Any, axes: int) -> Any:
    if isinstance(option, str):
        return option
    return (option,) * axes if isinstance(option, int) else tuple(option)


def has_own_forward(layer: nn.Module) -> bool:
    """Whether a layer computes by something else than the linear or convolutional layer of the library.

    Example:
        >>> has_own_forward(nn.Linear(2, 3))
        False
    """
    made_by = next(kind for kind in type(layer).__mro__ if "forward" in vars(kind))
    return "forward" in vars(layer) or made_by not in (nn.Linear, *CONVOLUTIONS, *libraries_linears(layer))
