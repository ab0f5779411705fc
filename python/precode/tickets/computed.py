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
    "change nothing: draw new values with ticket.reinitialize_(module, init), or assign to it, as layer.weight = "
    "values; a tensor of your own is weight.detach().clone()"
)

WRITTEN = (
    "a layer whose weight, of shape {}, has the mask of a ticket changed it in place when it was called, which would "
    "be lost: change it outside of forward, by an assignment (layer.weight = values), or leave the layer out of "
    "prunable"
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
    """A masked weight, or a part of it; operations in place are refused, and all others give what they give.

    Of a copy that autograd does not follow, the user may make a tensor of their own: a parameter, which is one as any
    other, or a leaf that requires gradients, which may be changed. Neither is taken for the weight of the layer.
    """

    @property
    def _is_param(self) -> bool:
        """By this, `nn.Parameter` marks what it makes of tensors that are not plain ones."""
        return False

    @_is_param.setter
    def _is_param(self, _: bool) -> None:
        self.__class__ = nn.Parameter  # type: ignore[assignment]

    def set_(self, *_: Any, **__: Any) -> Any:
        """Refused here, since torch does not ask `__torch_function__`."""
        raise UnsupportedError(REFUSED.format("set_"))

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
        if any(type(each) is cls and not _is_own(each) for each in changed):
            raise UnsupportedError(REFUSED.format(name))
        # Hooks, gradients and leaves are of this very tensor, so that it is not another that is handed on.
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*map(_plain, args), **kwargs) if name in OF_THE_TYPE else func(*args, **kwargs)
        given = next((each for each in (*args, *kwargs.values()) if type(each) is cls), None)
        return result if given is None else _guarded(result, given)


ITEMS = ("__setitem__", "__delitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ipow__", "__ifloordiv__")
"""Operations in place whose names do not end as the others do."""

OF_THE_TYPE = ("__deepcopy__", "__reduce_ex__", "__repr__", "__format__")
"""Functions that go by the type of a tensor: copies and files of a computed weight are plain tensors."""


def _in_place(name: str) -> bool:
    """Whether an operation changes its first argument; requires_grad_ and the like do not change values."""
    if name in ("requires_grad_", "retain_grad", "share_memory_"):
        return False
    return name in ITEMS or (name.endswith("_") and not name.endswith("__"))


def _is_own(weight: ComputedWeight) -> bool:
    """Whether a tensor is the user's own: a leaf that gradients are asked of, which no computed weight is."""
    with torch._C.DisableTorchFunctionSubclass():
        return weight.is_leaf and weight.requires_grad


def _plain(value: Any) -> Any:
    """An argument without a guard."""
    if type(value) is not ComputedWeight:
        return value
    with torch._C.DisableTorchFunctionSubclass():
        if value.is_leaf:
            return value.detach().requires_grad_(value.requires_grad)
        return value.as_subclass(torch.Tensor)


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


def refuse_as_parameter(name: str, value: Any) -> None:
    """Refuses a computed weight where a layer registers a parameter.

    Raises:
        UnsupportedError: it is one.
    """
    if type(value) is ComputedWeight:
        raise UnsupportedError(
            f"'{name}' would be a parameter that is computed from a trained tensor and the mask of a ticket: call "
            "ticket.remove_ first, or register nn.Parameter(weight.detach())"
        )


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
        for weight, version in _calls.read:
            if weight._version != version:
                raise UnsupportedError(WRITTEN.format(tuple(weight.shape)))
    finally:
        _calls.running -= 1
        _calls.read = before


def watched(weight: torch.Tensor) -> torch.Tensor:
    """A weight that a layer reads while it is called, and that it is not to change."""
    if not (weight.is_inference() or torch._C._functorch.peek_interpreter_stack() is not None):
        _calls.read.append((weight, weight._version))
    return weight


def was_assigned(trained: torch.Tensor) -> None:
    """Says that a trained tensor was assigned to: unlike an edit of what is computed from it, that is not lost."""
    if _calls.read:
        shared = torch._C._is_alias_of  # type: ignore[attr-defined]
        _calls.read = [(each, each._version if shared(each, trained) else version) for each, version in _calls.read]


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
