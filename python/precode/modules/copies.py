"""Deep copies of modules, and what of them changes with every call."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from functools import update_wrapper
from types import CellType, FunctionType, MethodType
from typing import Any

import torch
from torch import nn

from precode._internal.errors import PrecodeTypeError
from precode._internal.randomness import GENERATORS, ITEMS
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


LONGEST = 2**12
"""Entries up to which a collection in a module is looked at whenever it was called; longer ones are vocabularies."""

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
    if id(function) in memo:
        return memo[id(function)]  # type: ignore[no-any-return]
    if not _reaches(function, memo, set()):
        return function
    cells = tuple(CellType() for _ in function.__closure__ or ())
    defaults = function.__defaults__ and tuple(_copy_of(each, memo) for each in function.__defaults__)
    bound = FunctionType(function.__code__, function.__globals__, function.__name__, defaults, cells)
    update_wrapper(bound, function)
    memo[id(function)] = bound  # before its cells are filled: it may close over itself
    named = function.__kwdefaults__
    bound.__kwdefaults__ = named and {name: _copy_of(each, memo) for name, each in named.items()}
    for cell, before in zip(cells, function.__closure__ or (), strict=True):
        if before != CellType():
            cell.cell_contents = _copy_of(before.cell_contents, memo)
    return bound


def _closed_over(function: FunctionType) -> list[Any]:
    held = [cell.cell_contents for cell in function.__closure__ or () if cell != CellType()]
    return [*held, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]


def _reaches(value: Any, memo: dict[int, Any], seen: set[int]) -> bool:
    """Whether something that a function closes over was copied, or holds what was."""
    if id(value) in memo or id(value) in seen:
        return id(value) in memo
    seen.add(id(value))
    if isinstance(value, FunctionType):
        return any(_reaches(each, memo, seen) for each in _closed_over(value))
    if isinstance(value, MethodType):
        return _reaches(value.__self__, memo, seen)
    return any(isinstance(each, nn.Module) and id(each) in memo for each in _items(value))


def _items(value: Any) -> list[Any]:
    """What a small collection holds."""
    if type(value) not in (list, tuple, dict) or len(value) > ITEMS:
        return []
    return list(value.values() if isinstance(value, dict) else value)


def _copy_of(value: Any, memo: dict[int, Any]) -> Any:
    """The copy of what a function closes over; itself where there is none."""
    if id(value) in memo or not _reaches(value, memo, set()):
        return memo.get(id(value), value)
    if isinstance(value, FunctionType):
        return _bound(value, memo)
    if isinstance(value, MethodType):
        return MethodType(value.__func__, _copy_of(value.__self__, memo))
    own = [_copy_of(each, memo) for each in _items(value)]
    return dict(zip(value, own, strict=True)) if isinstance(value, dict) else type(value)(own)


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
        long = isinstance(value, COLLECTIONS) and len(value) > LONGEST
        if id(value) in seen or isinstance(value, nn.Parameter) or long or not has_content(value):
            continue
        seen.add(id(value))
        yield value
        waiting += [each for each in inner(value) if isinstance(each, (*COLLECTIONS, *TENSORS, *GENERATORS))]
