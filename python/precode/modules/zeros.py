"""Pruned weights that stay at zero while a copy is trained, whose parameters keep their names, places and types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from precode.tickets import in_place, masked

Weights = list[tuple[nn.Parameter, torch.Tensor]]
"""Parameters, and masks that are False where they are pruned."""


@contextmanager
def kept(network: nn.Module, masks: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Within the block, weights are zero where their mask is False, whatever trains the network.

    They get no gradient, and are set to zero after each step of an optimizer and before each call of the network.
    Unlike a module that masks are put on, it may be trained by functions that find its parameters by name or by place.

    Args:
        network: a copy, whose pruned weights are zero.
        masks: of some of its parameters, by name, of their shapes.

    Example:
        >>> network = nn.Linear(1, 2, bias=False)
        >>> _ = network.weight.data.copy_(torch.tensor([[1.0], [0.0]]))
        >>> sgd = torch.optim.SGD(network.parameters(), lr=1.0)
        >>> with kept(network, {"weight": torch.tensor([[True], [False]])}):
        ...     network(torch.ones(1, 1)).sum().backward()
        ...     sgd.step()
        >>> network.weight.flatten().tolist()
        [0.0, 0.0]
    """
    slots = masked.slots(network)
    weights = [(slots[name].parameter, mask.to(slots[name].parameter.device)) for name, mask in masks.items()]
    of = {id(weight): (weight, mask) for weight, mask in weights}

    def after_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        stepped = (of.get(id(weight)) for group in optimizer.param_groups for weight in group["params"])
        _zero([each for each in stepped if each is not None])

    disabled = torch.compiler.disable(after_step)  # type: ignore[no-untyped-call]
    hooks: list[Any] = [register_optimizer_step_post_hook(disabled)] if weights else []
    hooks += [
        weight.register_post_accumulate_grad_hook(partial(_zero_gradient, mask))  # type: ignore[no-untyped-call]
        for weight, mask in weights
    ]
    hooks += [network.register_forward_pre_hook(Zeroing(weights))] if weights else []
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        _zero(weights)


class Zeroing:
    """The hook of a network that sets its pruned weights to zero; that of a deep copy sets those of the copy."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def __call__(self, *_: Any) -> None:
        """Sets them to zero."""
        if not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is None:
            _zero(self._weights)


@torch.no_grad()
def _zero(weights: Weights) -> None:
    for weight, mask in weights:
        in_place.zero(weight.data, mask)


def _zero_gradient(mask: torch.Tensor, weight: torch.Tensor) -> None:
    gradient = weight.grad
    if gradient is None:
        return
    if gradient.requires_grad:  # of which autograd may take derivatives
        weight.grad = torch.where(mask, gradient, 0.0)
    else:
        in_place.zero(gradient, mask)
