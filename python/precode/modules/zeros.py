"""Pruned weights that stay at zero while a copy is trained, whose parameters keep their names, places and types."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from precode.tickets import in_place, masked

Masks = dict[str, torch.Tensor]
"""Masks by the names of parameters, False where they are pruned."""


class Pruned:
    """The parameters that are kept at zero within a `kept` block, those that come in their place included."""

    def __init__(self) -> None:
        self.is_over = False
        self._known: dict[int, tuple[weakref.ref[torch.Tensor], torch.Tensor, Any]] = {}

    def __deepcopy__(self, _: Any) -> Pruned:
        return self

    def __reduce__(self) -> tuple[type, tuple[()]]:  # one from a file knows nobody
        return Pruned, ()

    @torch.no_grad()
    def zero(self, weight: torch.Tensor, mask: torch.Tensor) -> None:
        """Sets pruned weights to zero, and their gradients from now on."""
        if (own := self._mask_of(weight)) is None:
            own = mask.to(weight.device)
            # Also for `torch.autograd.grad`, whose gradients may go into norms and penalties.
            hook = weight.register_hook(partial(_masked, own)) if weight.requires_grad else None  # type: ignore[no-untyped-call]
            self._known[id(weight)] = weakref.ref(weight), own, hook
        in_place.zero(weight.data, own)

    def _mask_of(self, weight: torch.Tensor) -> torch.Tensor | None:
        """The mask of a parameter that is known, and not of one that had its place in memory."""
        known = self._known.get(id(weight))
        return None if known is None or known[0]() is not weight else known[1]

    def after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Sets those to zero that an optimizer stepped."""
        if torch.compiler.is_compiling():
            return
        stepped: Iterator[torch.Tensor] = (weight for group in optimizer.param_groups for weight in group["params"])
        for weight in stepped:
            if (mask := self._mask_of(weight)) is not None:
                self.zero(weight, mask)

    def end(self) -> None:
        """Leaves all gradients alone."""
        self.is_over = True
        for _, _, hook in self._known.values():
            if hook is not None:
                hook.remove()
        self._known.clear()


def _masked(mask: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """A gradient with zeros at pruned weights."""
    return torch.where(mask, gradient, 0.0)


class Zeroing:
    """The hook of a module that sets its pruned weights to zero; that of a deep copy sets those of the copy.

    Tensors that stand in for parameters and are computed, as in `torch.func.functional_call`, are given zeros that
    autograd follows.
    """

    def __init__(self, pruned: Pruned, masks: Masks) -> None:
        self._pruned, self._masks = pruned, masks
        self._stand_ins: list[tuple[dict[str, Any], str, Any]] = []  # of the call, with where they belong

    def __deepcopy__(self, _: Any) -> Zeroing:
        return Zeroing(self._pruned, self._masks)

    def __call__(self, module: nn.Module, *_: Any) -> None:
        """Sets them to zero."""
        if self._pruned.is_over or torch.compiler.is_compiling():
            return
        for name, mask in self._masks.items():
            path, attribute = name.rpartition(".")[::2]
            try:
                held: dict[str, Any] = module.get_submodule(path)._parameters
            except AttributeError:  # a layer that is not there any more
                continue
            weight: Any = held.get(attribute)
            if weight is None:
                continue
            if weight.is_leaf and not torch._C._functorch.is_functorch_wrapped_tensor(weight):
                self._pruned.zero(weight, mask)
            else:
                self._stand_ins.append((held, attribute, weight))
                held[attribute] = torch.where(mask.to(weight.device), weight, 0.0)

    def after_call(self, *_: Any) -> None:
        """Gives tensors that stand in for parameters back: they are returned to who put them there."""
        while self._stand_ins:
            held, attribute, weight = self._stand_ins.pop()
            held[attribute] = weight


@contextmanager
def kept(network: nn.Module, masks: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Within the block, weights are zero where their mask is False, whatever trains the network.

    They get no gradient, and are set to zero after each step of an optimizer and before each call of the network or of
    their layer. Unlike a module that masks are put on, it may be trained by functions that find its parameters by name
    or by place.

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
    if not masks:
        yield
        return
    slots, pruned = masked.slots(network), Pruned()
    of_layers: dict[nn.Module, Masks] = {network: dict(masks)}
    for name, mask in masks.items():
        pruned.zero(slots[name].parameter, mask)
        if slots[name].owner is not network:
            of_layers.setdefault(slots[name].owner, {})[slots[name].attribute] = mask
    hooks: list[Any] = []
    for layer, each in of_layers.items():
        zeroing = Zeroing(pruned, each)
        hooks.append(layer.register_forward_pre_hook(zeroing))
        hooks.append(layer.register_forward_hook(zeroing.after_call, always_call=True))
    hooks.append(register_optimizer_step_post_hook(pruned.after_step))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        pruned.end()


def left(network: nn.Module, masks: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of pruned weights that are not all zero, which are zero afterwards.

    Example:
        >>> network = nn.Linear(1, 1)
        >>> left(network, {"weight": torch.tensor([[False]])}), left(network, {"weight": torch.tensor([[False]])})
        (['weight'], [])
    """
    slots, found = masked.slots(network), []
    for name, mask in masks.items():
        if name not in slots:
            continue
        value = slots[name].parameter.detach()
        mask = mask.to(value.device)
        if bool((value != 0).logical_and_(~mask).any()):
            found.append(name)
            in_place.zero(value, mask)
    return found
