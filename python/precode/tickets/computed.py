"""Weights that a layer computes from a trained tensor and a mask: to read, not to edit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import nn

from precode._internal.errors import UnsupportedError

REFUSED = (
    "this weight is computed from a trained tensor and the mask of a ticket, so that '{}' in place would "
    "change nothing: draw new values with ticket.reinitialize_(module, init), or assign to it, as layer.weight = values"
)

WRITTEN = (
    "a layer whose weight has the mask of a ticket changed it in place when it was called, which would be lost: change "
    "it outside of forward, by an assignment (layer.weight = values), or leave the layer out of prunable"
)

EXPORTED = (
    "this weight is computed from a trained tensor and the mask of a ticket, so that edits through DLPack would change "
    "nothing: export a copy, as weight.detach().clone(), and assign to it, as layer.weight = values"
)


class _AnyTensor(type(torch.Tensor)):  # type: ignore[misc]
    """Makes computed weights comparable by `torch.testing`, which asks whether either is of the type of the other."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, torch.Tensor)


class ComputedWeight(torch.Tensor, metaclass=_AnyTensor):
    """A masked weight, or a part of it; operations in place are refused, and all others give what they give."""

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Refuses to change the weight; its parts are refused too.

        Raises:
            UnsupportedError: the operation would change it.
        """
        kwargs = kwargs or {}
        name = str(getattr(func, "__name__", ""))
        out = kwargs.get("out", ())
        changed = [*(out if isinstance(out, tuple) else (out,))]
        if _in_place(name) or (getattr(func, "__self__", None) is torch.Tensor.data and name == "__set__"):
            first = args[0] if args else kwargs.get("tensor")
            changed += first if isinstance(first, list | tuple) else [first]
        if name == "__dlpack__":
            raise UnsupportedError(EXPORTED)
        if any(_is_guarded(each) for each in changed):
            raise UnsupportedError(REFUSED.format(name))
        given = next((each for each in args if type(each) is cls), None)
        own = given is not None and not _is_guarded(given)
        with torch._C.DisableTorchFunctionSubclass():
            if given is not None and own and name in COPYING:
                parameter = nn.Parameter(_plain(given).detach(), given.requires_grad)
                return getattr(parameter, name)(*args[1:], **kwargs)
            if name in ITSELF:
                result = func(*args, **kwargs)
            else:
                result = func(*_plain(args), **{key: _plain(value) for key, value in kwargs.items()})
        return result if given is None or own else _guarded(result, given)

    def set_(self, *args: Any, **kwargs: Any) -> Any:
        """Refused as other operations in place, of which torch does not ask `__torch_function__`.

        Raises:
            UnsupportedError: the weight is computed.
        """
        if _is_guarded(self):
            raise UnsupportedError(REFUSED.format("set_"))
        return super().set_(*args, **kwargs)


ITSELF = (
    *("register_hook", "register_post_accumulate_grad_hook", "retain_grad", "requires_grad_"),
    *("grad", "backward", "__get__", "__set__", "__delete__"),
)
"""Functions of a tensor's place in the graph, and its attributes, which another of the same values does not have."""


COPYING = ("__deepcopy__", "__reduce_ex__")
"""Functions of parameters that make others."""


def _is_guarded(value: Any) -> bool:
    """Whether a value is a computed weight, and no parameter of the user's own that was made of it."""
    return type(value) is ComputedWeight and not getattr(value, "_is_param", False)


ITEMS = ("__setitem__", "__delitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ipow__", "__ifloordiv__")
"""Operations in place whose names do not end as the others do."""


def _in_place(name: str) -> bool:
    """Whether an operation changes its first argument; requires_grad_ and the like do not change values."""
    if name in ("requires_grad_", "retain_grad", "share_memory_"):
        return False
    return name in ITEMS or (name.endswith("_") and not name.endswith("__"))


def _plain(value: Any) -> Any:
    """An argument without guards."""
    if type(value) is ComputedWeight:
        with torch._C.DisableTorchFunctionSubclass():
            return value.as_subclass(torch.Tensor)
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    return value


def _guarded(result: Any, given: ComputedWeight) -> Any:
    """A result that shares memory with the weight, such as a view of it or several in a tuple, is guarded as well."""
    if type(result) in (list, tuple):
        return type(result)(_guarded(each, given) for each in result)
    if isinstance(result, np.ndarray):
        result.flags.writeable = False
    if type(result) is not torch.Tensor:
        return result
    with torch._C.DisableTorchFunctionSubclass():
        shared = torch._C._is_alias_of(result, given)  # type: ignore[attr-defined]
        return result.as_subclass(ComputedWeight) if shared else result


class _Calls(threading.local):
    """How many masked layers are being called, one within the other."""

    running = 0

    def __init__(self) -> None:
        self.read: list[tuple[torch.Tensor, int]] = []
        """Weights that they read, and how often each had been changed before."""


_calls = _Calls()


def is_called() -> bool:
    """Whether a masked layer is being called."""
    return _calls.running > 0


@contextmanager
def called() -> Iterator[None]:
    """Within the block, a masked layer reads its weights to compute with them."""
    _calls.running += 1
    before, _calls.read = _calls.read, []
    try:
        yield
        if any(weight._version != version for weight, version in _calls.read):
            raise UnsupportedError(WRITTEN)
    finally:
        _calls.running -= 1
        _calls.read = before


def watched(weight: torch.Tensor) -> torch.Tensor:
    """A weight that a layer reads while it is called, and that it is not to change."""
    if not (weight.is_inference() or torch._C._functorch.peek_interpreter_stack() is not None):
        _calls.read.append((weight, weight._version))
    return weight


def guard(weight: torch.Tensor) -> torch.Tensor:
    """A computed weight that refuses to be edited.

    It is as it is where its layer computes with it, which a guard would slow down, and where a compiler or a transform
    looks on.
    """
    if is_called() and not torch.compiler.is_compiling():
        return watched(weight)
    traced = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    if traced or type(weight) is not torch.Tensor or torch._C._functorch.peek_interpreter_stack() is not None:
        return weight
    return weight.as_subclass(ComputedWeight)


def without_guard(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The forward function of a layer, which reads its weights without guards."""

    @wraps(forward)
    def unguarded(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return forward(*args, **kwargs)
        with called():
            return forward(*args, **kwargs)

    return unguarded
