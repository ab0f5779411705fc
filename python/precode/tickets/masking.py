"""Masks on the weights of layers: put on, looked through, and taken off, each layer by itself."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from precode._internal.errors import PrecodeShapeError, UnsupportedError
from precode.tickets import in_place
from precode.tickets.computed import (
    called,
    guard,
    is_called,
    refuse_as_parameter,
    was_assigned,
    watched,
    without_guard,
)

SIGN = "_masked_by"
"""The attribute by which a mask knows its trained tensor."""


class Masked(nn.Module):
    """The parametrization that keeps pruned weights at zero: a weight is its trained tensor where the mask is True.

    The optimizer steps the trained tensor, whatever its rule; what the layer computes with is zero at pruned weights
    because it is computed so. A pruned weight also gets no gradient, so that a trained tensor that starts at zero there
    stays at zero, under momentum and weight decay too.
    """

    mask: torch.Tensor
    followers: tuple[str, ...] = ()
    """Parameters that came after the weight in its layer, so that it can return to its place."""
    sign: weakref.ref[set[None]] | None = None
    """What the trained tensor is known by: an attribute of it, since torch swaps no tensors that weak references are
    to."""
    place: int = 0
    """The `id` of the trained tensor, as long as the sign is there."""

    def __init__(self, mask: torch.Tensor, followers: Iterable[str] = ()) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        self.followers = tuple(followers)

    def __deepcopy__(self, memo: dict[int, Any]) -> Masked:
        copied = Masked(copy.deepcopy(self.mask, memo), self.followers).train(self.training)
        if self.sign and self.sign() is not None and self.place in memo:
            copied.know(memo[self.place])
        return copied

    def know(self, weight: torch.Tensor) -> None:
        """Takes a tensor for the trained one, which may be put to zero in place, until another takes its place."""
        sign: set[None] = set()
        setattr(weight, SIGN, sign)
        self.sign, self.place = weakref.ref(sign), id(weight)

    def is_own(self, weight: torch.Tensor) -> bool:
        """Whether a tensor is the trained one, and none that stands in for it, as in `torch.func.functional_call`."""
        sign = self.sign() if self.sign else None
        return sign is not None and getattr(weight, SIGN, None) is sign

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight with zeros where the mask is False; unlike a product, also where a value is not finite.

        Of a large weight that a layer computes with it is the trained tensor itself, else a tensor of its own.
        """
        if is_called() and in_place.is_possible(weight, self.mask) and self.is_own(weight):
            return watched(in_place.masked(weight, self.mask))
        return guard(torch.where(self.mask, weight, 0.0))

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        """What is kept when the weight is assigned to."""
        return weight


def _remember(chain: nn.Module, _: Any = None) -> None:
    """Notes the trained tensor of a weight, when it is put there and when a state dict is loaded by ``assign=True``."""
    for masked in chain.children():
        if isinstance(masked, Masked):
            masked.know(chain.get_parameter("original"))


RESETS = ("reset_parameters", "_reset_parameters")
"""Methods by which torch's layers draw new values."""


def mask_of(layer: nn.Module, attribute: str) -> torch.Tensor | None:
    """The mask of a weight that `put_on` put there alone."""
    if not parametrize.is_parametrized(layer, attribute):
        return None
    chain = list(layer.get_submodule(f"parametrizations.{attribute}").children())
    return chain[0].mask if len(chain) == 1 and isinstance(chain[0], Masked) else None


def put_on(layer: nn.Module, attribute: str, mask: torch.Tensor) -> None:
    """Keeps a weight at zero where the mask, of which a copy is held, is False."""
    weight = layer.get_parameter(attribute)
    with torch.inference_mode(False):  # in which a mask could not be trained with
        names = list(layer._parameters)
        followers = names[names.index(attribute) + 1 :] if attribute in names else ()
        masked = Masked(mask.to(weight.device, copy=True), followers).train(layer.training)
        stand_in = nn.Parameter(weight.detach(), weight.requires_grad)
    if parametrize.is_parametrized(layer):
        _own_class(layer)
    # Torch calls `set_` of what it parametrizes, after which DistributedDataParallel misses its gradients.
    layer._parameters[attribute] = stand_in
    parametrize.register_parametrization(layer, attribute, masked, unsafe=True)
    chain = layer.get_submodule(f"parametrizations.{attribute}")
    chain._parameters["original"] = weight
    chain.training = layer.training
    chain.register_load_state_dict_post_hook(_remember)  # type: ignore[no-untyped-call]
    _remember(chain)
    layer.get_submodule("parametrizations").training = layer.training
    for name in RESETS:
        if hasattr(layer, name):
            setattr(type(layer), name, _resetting(name))
    type(layer).__getstate__ = _refuse_pickling  # type: ignore[method-assign]
    type(layer).__prepare_scriptable__ = _refuse_scripting  # type: ignore[attr-defined]
    type(layer).__setattr__ = _assign  # type: ignore[assignment, method-assign]
    type(layer).register_parameter = _register  # type: ignore[assignment, method-assign]
    if "forward" not in vars(type(layer)):
        type(layer).forward = without_guard(type(layer).forward)
    if isinstance(layer, nn.RNNBase) and _gather not in layer._forward_pre_hooks.values():
        layer.register_forward_pre_hook(_gather)
        layer.register_forward_hook(_scatter, always_call=True)


def take_off(layer: nn.Module, attribute: str) -> None:
    """The inverse of `put_on`: the trained tensor is the weight again.

    Not `parametrize.remove_parametrizations`, which takes the property away from all deep copies of the layer: they
    share its class.
    """
    _own_class(layer)
    chains = layer.get_submodule("parametrizations")
    chain = chains.get_submodule(attribute)
    original, masked = chain.get_parameter("original"), next(chain.children())
    delattr(type(layer), attribute)
    delattr(chains, attribute)
    if not list(chains.children()):
        delattr(layer, "parametrizations")
        layer.__class__ = type(layer).__bases__[0]
    elif not trained(layer):
        for name in RESETS:
            if name in vars(type(layer)):
                delattr(type(layer), name)
    original.__dict__.pop(SIGN, None)
    layer.register_parameter(attribute, original)
    # Optimizers name parameters by their places.
    for name in masked.followers if isinstance(masked, Masked) else ():
        if name in layer._parameters:
            layer._parameters[name] = layer._parameters.pop(name)
    if isinstance(layer, nn.RNNBase) and not trained(layer):
        for hooks, ours in ((layer._forward_pre_hooks, _gather), (layer._forward_hooks, _scatter)):
            for key in [key for key, hook in hooks.items() if hook is ours]:
                del hooks[key]
                layer._forward_hooks_always_called.pop(key, None)
        layer._init_flat_weights()


@contextmanager
def off(layer: nn.Module) -> Iterator[None]:
    """Within the block, a layer is as it was before it was pruned, with the trained tensors as its parameters.

    A parameter that takes the place of one gives it its values.

    Raises:
        PrecodeShapeError: it has another shape.
    """
    weights, by_torch = trained(layer), _by_torch(layer)
    parametrized = type(layer)
    if weights:
        kept = _without(parametrized, (*weights, *RESETS, "__setattr__", "register_parameter"))
        layer.__class__ = type(parametrized.__name__, parametrized.__bases__, kept)
    for name in by_torch:
        layer.__dict__.pop(name, None)
    layer._parameters |= weights | by_torch
    try:
        yield
    finally:
        assigned = {name: layer._parameters.pop(name, None) for name in weights | by_torch}
        layer.__class__ = parametrized
        if weights and isinstance(layer, nn.RNNBase):
            _scatter(layer)
        try:
            for name, original in (weights | by_torch).items():
                if (values := assigned[name]) is not None and values is not original:
                    _check_shape(name, original, values)
                    with torch.no_grad():
                        original.copy_(values)
        finally:
            _compute(layer)


@contextmanager
def all_off(layers: Iterable[nn.Module]) -> Iterator[None]:
    """`off` for several layers at once, each of which may be named more than once."""
    with ExitStack() as stack:
        for layer in dict.fromkeys(layers):
            stack.enter_context(off(layer))
        yield


def reset(module: nn.Module) -> None:
    """Draws new values by the `reset_parameters` of all layers, inner ones first."""
    for layer in reversed(list(module.modules())):
        for name in RESETS:
            if callable(draw := getattr(layer, name, None)):
                draw()


def compute_when_called(module: nn.Module) -> None:
    """Computes all weights pruned by `torch.nn.utils.prune` whenever the module is called."""
    if refresh not in module._forward_pre_hooks.values():
        module.register_forward_pre_hook(refresh)


def refresh(module: nn.Module, _: Any) -> None:
    """The hook that does it."""
    for layer in module.modules():
        _compute(layer)


def mask_by_torch(layer: nn.Module, name: str) -> torch.Tensor | None:
    """The mask that `torch.nn.utils.prune` put on a weight of a layer, which has a hook of its own for it, or None."""
    hooks = layer._forward_pre_hooks.values()
    pruned = any(isinstance(hook, prune.BasePruningMethod) and hook._tensor_name == name for hook in hooks)
    return layer._buffers.get(f"{name}_mask") if pruned else None


def _by_torch(layer: nn.Module) -> dict[str, nn.Parameter]:
    """The trained tensors behind the weights of a layer that `torch.nn.utils.prune` pruned, by name."""
    found = {name.removesuffix("_orig"): value for name, value in layer._parameters.items() if name.endswith("_orig")}
    return {
        name: parameter
        for name, parameter in found.items()
        if parameter is not None and mask_by_torch(layer, name) is not None
    }


def products(layer: nn.Module) -> list[torch.Tensor]:
    """The weights that such a layer computed when it was called last."""
    held = [layer.__dict__.get(name) for name in _by_torch(layer)]
    return [value for value in held if isinstance(value, torch.Tensor)]


def _compute(layer: nn.Module) -> None:
    """What the hook of `torch.nn.utils.prune` does when its layer is called."""
    for name, original in _by_torch(layer).items():
        setattr(layer, name, original * layer.get_buffer(f"{name}_mask"))


def trained(layer: nn.Module) -> dict[str, nn.Parameter]:
    """The trained tensors behind the weights that `put_on` put a mask on, by name."""
    if not parametrize.is_parametrized(layer):
        return {}
    chains = dict(layer.get_submodule("parametrizations").named_children())
    return {name: chain.get_parameter("original") for name, chain in chains.items() if mask_of(layer, name) is not None}


def _without(parametrized: type, names: tuple[str, ...]) -> dict[str, Any]:
    """What a class that torch made for a parametrized layer holds, without some names."""
    return {key: value for key, value in vars(parametrized).items() if key not in (*names, "__dict__", "__weakref__")}


def _own_class(layer: nn.Module) -> None:
    """Gives a parametrized layer a class that no copy of it shares."""
    shared = type(layer)
    layer.__class__ = type(shared.__name__, shared.__bases__, _without(shared, ()))


def _resetting(name: str) -> Callable[[nn.Module], None]:
    """The method of a layer that draws new values, for trained tensors: else it would draw them for temporary ones."""

    def reset(layer: nn.Module) -> None:
        with off(layer):
            getattr(layer, name)()
        with torch.no_grad():
            for weight, original in trained(layer).items():
                original.copy_(getattr(layer, weight))

    return reset


def _assign(layer: nn.Module, name: str, value: Any) -> None:
    """A parameter that is assigned to a masked weight gives the trained tensor its values, as any tensor does.

    Torch would give it the memory of the user's tensor, in which pruned weights would be put to zero.
    """
    if isinstance(value, torch.Tensor) and (mask := mask_of(layer, name)) is not None:
        _check_shape(name, mask, value)
        original = trained(layer)[name]
        with torch.no_grad():
            original.copy_(value)
        was_assigned(original)
    else:
        nn.Module.__setattr__(layer, name, value)


def _check_shape(name: str, masked: torch.Tensor, values: torch.Tensor) -> None:
    """Refuses values of another shape than that of a masked weight."""
    if values.shape != masked.shape:
        raise PrecodeShapeError(
            f"'{name}' has a mask of shape {tuple(masked.shape)}, and was assigned values of shape "
            f"{tuple(values.shape)}: assign values of the same shape, or call ticket.remove_ first"
        )


def _register(layer: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
    """Computed weights are no parameters, which `torch.nn.utils.prune` would make of them."""
    refuse_as_parameter(name, parameter)
    nn.Module.register_parameter(layer, name, parameter)


def _refuse_pickling(layer: nn.Module) -> Any:
    """Torch does not pickle parametrized layers, as `torch.save(module)` and processes that are spawned do."""
    raise UnsupportedError(
        f"{type(layer).__bases__[0].__name__} is parametrized, as by the mask of a ticket, and cannot be pickled so: "
        "save the ticket and module.state_dict(), which a module with the ticket applied loads, or call ticket.remove_ "
        "first"
    )


def _refuse_scripting(layer: nn.Module) -> Any:
    """`torch.jit.script` asks this of a layer first; it does not compile parametrized ones."""
    raise UnsupportedError(
        f"{type(layer).__bases__[0].__name__} has a mask of a ticket and cannot be compiled by torch.jit.script: call "
        "ticket.remove_ first, or use torch.export.export or torch.jit.trace"
    )


def _gather(layer: nn.RNNBase, _: Any) -> None:
    """Recurrent layers compute with a list of their weights, which knows nothing of masks."""
    with called():
        layer._flat_weights = [getattr(layer, name) for name in layer._flat_weights_names]


def _scatter(layer: nn.RNNBase, *_: Any) -> None:
    """The list holds plain parameters between calls: temporary weights could not be copied."""
    held = trained(layer)
    layer._flat_weights = [held.get(name, getattr(layer, name)) for name in layer._flat_weights_names]


@contextmanager
def uncached() -> Iterator[None]:
    """Within the block, layers compute weights anew in every call, also within caches of the user's.

    These are `parametrize.cached`, and `torch.autocast`, which keeps the weights that it made of another type until its
    outermost block ends.

    Example:
        >>> with parametrize.cached(), uncached():
        ...     parametrize._cache_enabled
        0
        >>> with torch.autocast("cpu"), uncached():
        ...     torch.is_autocast_cache_enabled()
        False
    """
    enabled, parametrize._cache_enabled = parametrize._cache_enabled, 0
    kept, depth = torch.is_autocast_cache_enabled(), torch.autocast_increment_nesting()
    # Blocks within this one are outermost ones, which forget what they made at their end.
    for _ in range(depth):
        torch.autocast_decrement_nesting()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        parametrize._cache_enabled = enabled
        for _ in range(depth - 1):
            torch.autocast_increment_nesting()
        torch.set_autocast_cache_enabled(kept)
