"""Masks put on in place while a layer computes: a step costs hardly more than without, and no second tensor."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from precode import _precode

LEAST = 2**16
"""Weights from which it is worth it: below, a second tensor costs less than what is done here for each."""

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def is_possible(weight: torch.Tensor, mask: torch.Tensor) -> bool:
    """Whether a trained tensor may be put to zero in place: an ordinary parameter that nothing but autograd looks at.

    Compilers, tracers, transforms and modes, replicas of a module, tensors that a user puts in a parameter's place, and
    `parametrize.cached` get a tensor of its own.
    """
    watched = (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._len_torch_dispatch_stack() > 0
        or parametrize._cache_enabled
    )
    return not watched and type(weight) is nn.Parameter and weight.numel() >= LEAST and _fits(weight, mask)


def masked(weight: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """A trained tensor itself, after its pruned weights were set to zero; they get no gradient.

    It is looked at whenever its layer computes, as whatever may have changed it: optimizers with momentum, a state
    dict, an edit that autograd is not told of. Where nothing did, memory is only read.
    """
    _holders_of_ones_own()  # which cannot be counted first within a backward pass
    _zero(weight.data, mask)
    result: torch.Tensor = _Masked.apply(weight, mask)  # type: ignore[no-untyped-call]
    return result


def zero(values: torch.Tensor, mask: torch.Tensor) -> None:
    """Sets values to zero where the mask is False, in place, whatever their type; a value that is not finite too.

    Example:
        >>> values = torch.tensor([1.0, float("nan")])
        >>> zero(values, torch.tensor([True, False]))
        >>> values
        tensor([1., 0.])
    """
    if _fits(values, mask):
        _zero(values, mask)
    else:
        values.masked_fill_(~mask, 0)


def _order(tensor: torch.Tensor) -> torch.Tensor | None:
    """A tensor with its axes in the order of its memory, or None if its elements do not stand side by side."""
    if tensor.is_contiguous():
        return tensor
    last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return tensor.permute(0, 2, 3, 1) if last else None


def _fits(values: torch.Tensor, mask: torch.Tensor) -> bool:
    """Whether values can be put to zero in place."""
    if values.device != mask.device or values.dtype not in FLOATS or mask.dtype != torch.bool:
        return False
    pair = _order(values), _order(mask)
    return all(each is not None for each in pair) and values.stride() == mask.stride()


def _zero(values: torch.Tensor, mask: torch.Tensor) -> None:
    """Sets values to zero where the mask is False; unlike a product, also where one is not finite."""
    ordered, kept = _order(values), _order(mask)
    if values.device.type == "cpu" and ordered is not None and kept is not None:
        _precode.zero_pruned(ordered, kept, torch.get_num_threads())
    else:
        torch.where(mask, values, torch.zeros((), dtype=values.dtype, device=values.device), out=values)


class _Masked(torch.autograd.Function):
    """The identity, whose derivative is zero at pruned weights."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(mask)
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (mask,) = ctx.saved_tensors
        (gradient,) = gradients
        # A second derivative needs operations that autograd records.
        if not torch.is_grad_enabled() and _fits(gradient, mask) and _holders(gradient) in _holders_of_ones_own():
            _zero(gradient, mask)
            return gradient, None
        return torch.where(mask, gradient, 0.0), None


Holders = tuple[int, ...]
"""How many hold a gradient, its memory, and what it is a view of, in Python and beneath it."""


def _holders(gradient: torch.Tensor) -> Holders:
    storage = torch._C._storage_Use_Count(gradient.untyped_storage()._cdata)
    counts = (sys.getrefcount(gradient), gradient._use_count(), storage)  # type: ignore[attr-defined]
    base = gradient._base
    return counts if base is None else (*counts, sys.getrefcount(base), base._use_count())  # type: ignore[attr-defined]


class _Counting(torch.autograd.Function):
    """Notes how many hold a gradient that comes to a function as it does to `_Masked`."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, noted: set[Holders]) -> torch.Tensor:
        ctx.noted = noted
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (gradient,) = gradients
        ctx.noted.add(_holders(gradient))
        return gradient, None


@cache
def _holders_of_ones_own() -> frozenset[Holders]:
    """What `_holders` counts where nobody else holds a gradient: counted, since versions of Python and torch differ."""
    noted: set[Holders] = set()
    with torch.inference_mode(False), torch.enable_grad():
        for compute in (lambda weight: 2 * weight, lambda weight: nn.functional.linear(torch.ones(1, 2), weight)):
            weight = torch.ones(2, 2, requires_grad=True)
            counted = _Counting.apply(weight, noted)  # type: ignore[no-untyped-call]
            compute(counted).square().sum().backward()
    return frozenset(noted)
