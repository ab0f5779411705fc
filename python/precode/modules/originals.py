"""The module that the user passed in, which nothing calls while copies of it are searched."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from precode._internal.errors import PrecodeValueError
from precode.tickets import masked

CALLED = (
    "{} of the module that was passed in is called during the search, as by a loss, train=, unpack= or a function that "
    "the module holds and that uses it, while copies with other values are searched: let the loss take a third "
    "argument, as loss=lambda output, y, module: ..., and train= use its own; of a network that stays as it is, such "
    "as a teacher, use a copy.deepcopy"
)


@contextmanager
def uncalled(module: nn.Module) -> Iterator[None]:
    """Within the block, the user's code may not call a module: it would get what the initial values give.

    Layers without parameters, such as a loss, may be called, and other threads may call all.

    Raises:
        PrecodeValueError: it does.

    Example:
        >>> module = nn.Linear(1, 1)
        >>> try:
        ...     with uncalled(module):
        ...         module(torch.ones(1, 1))
        ... except PrecodeValueError as error:
        ...     str(error).partition(" during")[0]
        'the whole of the module that was passed in is called'
    """
    layers = {
        layer: prefix.removesuffix(".")
        for prefix, layer in masked.layers(module)
        if next(layer.parameters(), None) is not None and not isinstance(layer, torch.jit.ScriptModule)
    }
    refuse = Refusing(layers)
    hooks = [layer.register_forward_pre_hook(refuse) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class Refusing:
    """The hook that does it; a deep copy of it, and one from a file, does nothing."""

    def __init__(self, layers: Mapping[nn.Module, str]) -> None:
        self._layers, self._thread = layers, threading.get_ident()

    def __call__(self, layer: nn.Module, _: Any) -> None:
        """Refuses a call in the thread that searches."""
        if layer in self._layers and threading.get_ident() == self._thread:
            name = self._layers[layer]
            raise PrecodeValueError(CALLED.format(f"'{name}'" if name else "the whole"))

    def __reduce__(self) -> tuple[type, tuple[dict[nn.Module, str]]]:
        return Refusing, ({},)


def forget(network: nn.Module) -> None:
    """Takes the hooks off a copy."""
    for layer in network.modules():
        for key in [key for key, hook in layer._forward_pre_hooks.items() if isinstance(hook, Refusing)]:
            del layer._forward_pre_hooks[key]
