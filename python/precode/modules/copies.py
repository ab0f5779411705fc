"""Deep copies of modules, and what of them changes with every call."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from functools import update_wrapper
from types import CellType, FunctionType
from typing import Any

import torch
from torch import nn

from precode._internal.errors import PrecodeTypeError
from precode._internal.randomness import GENERATORS
from precode.modules import originals
from precode.modules.attributes import COLLECTIONS, TENSORS, Holders, equal, has_content, inner
from precode.tickets import masked, masking


def copied(module: nn.Module) -> nn.Module:
    """A deep copy.

    Raises:
        PrecodeTypeError: something in the module cannot be copied; the message names it and its layer.
    """
    try:
        with torch.inference_mode(False):
            # The products that layers of `torch.nn.utils.prune` remember, which torch does not copy.
            products = [value for layer in module.modules() for value in masking.products(layer)]
            memo: dict[int, Any] = {id(value): value.detach().clone() for value in products}
            network = copy.deepcopy(module, memo)
            _bind(network, memo)
            originals.forget(network)
            return network
    except Exception as error:
        raise PrecodeTypeError(
            f"the module cannot be copied{_culprit(module)} ({str(error).partition(chr(10))[0]}): tickets are found on "
            "deep copies, which must work"
        ) from error


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _bind(network: nn.Module, memo: dict[int, Any]) -> None:
    """Gives functions that a copy holds the copies of what they close over: deep copies share functions.

    Such are hooks that keep what a layer gives in an attribute of the module.
    """
    for layer in network.modules():
        for held in (*(vars(layer).get(name, {}) for name in HOOKS), vars(layer)):
            for name, value in list(held.items()):
                if isinstance(value, FunctionType) and (bound := _bound(value, memo)) is not value:
                    held[name] = bound


def _bound(function: FunctionType, memo: dict[int, Any]) -> FunctionType:
    """A function that closes over the copies of what it closes over; itself where there are none."""

    def copy_of(value: Any) -> Any:
        return _bound(value, memo) if isinstance(value, FunctionType) else memo.get(id(value), value)

    held = [cell.cell_contents if cell != CellType() else None for cell in function.__closure__ or ()]
    given = function.__defaults__ or ()
    if all(copy_of(value) is value for value in (*held, *given)):
        return function
    cells = tuple(
        cell if copy_of(value) is value else CellType(copy_of(value))
        for cell, value in zip(function.__closure__ or (), held, strict=True)
    )
    defaults = tuple(map(copy_of, given)) or None
    bound = FunctionType(function.__code__, function.__globals__, function.__name__, defaults, cells)
    bound.__kwdefaults__ = function.__kwdefaults__
    update_wrapper(bound, function)
    return bound


def _culprit(module: nn.Module) -> str:
    """Where in a module something is that cannot be copied."""
    inner = ("_modules", "_parameters", "_buffers")
    for prefix, layer in masked.layers(module):
        for name, value in vars(layer).items():
            try:
                if name not in inner:
                    copy.deepcopy(value)
            except Exception:  # whatever it is, it is the one that is looked for
                where = f"layer '{prefix[:-1]}'" if prefix else "the module itself"
                remedy = "; remember it with .detach()" if isinstance(value, torch.Tensor) else ""
                for suffix, norm in (("g", "weight_norm"), ("orig", "spectral_norm")):
                    if f"{name}_{suffix}" in layer._parameters:
                        remedy = f", which torch.nn.utils.{norm} computes; use that of torch.nn.utils.parametrizations"
                return f" because of '{name}' of {where}{remedy}"
    return ""


class Buffers:
    """The buffers of a module, to put back after calls that change them, such as those of batch normalization."""

    def __init__(self, module: nn.Module) -> None:
        self._layers = dict(masked.layers(module))
        self._held = {
            (prefix, name): buffer.detach().clone()
            for prefix, layer in self._layers.items()
            for name, buffer in layer._buffers.items()
            if buffer is not None
        }

    def put_back(self) -> None:
        """Gives the module its buffers again."""
        self._put(self._layers)

    def put(self, module: nn.Module) -> None:
        """Gives a copy of the module, or what it is a copy of, the buffers."""
        self._put(dict(masked.layers(module)))

    def differs(self, module: nn.Module) -> str:
        """The name of a buffer that is not as it was, in the module or what it is a copy of; else nothing."""
        layers = dict(masked.layers(module))
        for (prefix, name), held in self._held.items():
            buffer = layers[prefix]._buffers.get(name) if prefix in layers else None
            if buffer is None or not equal(buffer, held):
                return prefix + name
        return ""

    @torch.no_grad()
    def _put(self, layers: dict[str, nn.Module]) -> None:
        for (prefix, name), held in self._held.items():
            buffers = layers[prefix]._buffers if prefix in layers else {}
            buffer = buffers.get(name)
            # A write, even of the same, breaks a graph of the user's that remembers the buffer.
            if buffer is None or equal(buffer, held):
                continue
            if buffer.shape == held.shape and not buffer.is_inference():
                buffer.copy_(held)
            else:
                buffers[name] = held.clone()


class State(Buffers):
    """What calls of a module may change in it, to put it back: buffers, and attributes of its layers.

    Attributes are given what they held, and so are the lists, dictionaries, tensors and generators in them.

    Example:
        >>> layer = nn.BatchNorm1d(1)
        >>> layer.calls = 0
        >>> state = State(layer)
        >>> layer.calls, _ = 1, layer(torch.ones(2, 1))
        >>> state.put_back()
        >>> layer.calls, int(layer.num_batches_tracked)
        (0, 0)
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self._holders = Holders(_holders(self._layers.values()))
        self._contents = self._holders.now()

    def put_back(self) -> None:
        """Gives the module what it had."""
        super().put_back()
        self._holders.put(self._contents)


def _holders(layers: Iterable[nn.Module]) -> Iterator[Any]:
    """Layers, and the collections, tensors and generators that they hold, each once.

    Not what else they hold, such as a configuration that all of them share, and no parameters.
    """
    waiting, seen = list[Any](layers), set[int]()
    while waiting:
        value = waiting.pop()
        if id(value) in seen or isinstance(value, nn.Parameter) or not has_content(value):
            continue
        seen.add(id(value))
        yield value
        waiting += [each for each in inner(value) if isinstance(each, (*COLLECTIONS, *TENSORS, *GENERATORS))]
