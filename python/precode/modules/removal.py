"""Dead units taken out of a module, which is smaller then and computes the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from precode._internal.errors import PrecodeValueError, UnsupportedError
from precode._internal.parts import exact
from precode.modules.copies import copied
from precode.tickets import masked, masking

LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
Weighted = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
ELEMENTWISE = (
    *(nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh),
    *(nn.Sigmoid, nn.LogSigmoid, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Hardshrink),
    *(nn.Softshrink, nn.Tanhshrink, nn.Threshold),
)
"""Layers that make of every value another one, each by itself."""


@dataclass
class Stage:
    """A layer with weights, and what follows it up to the next.

    Attributes:
        name: of the layer.
        layer: linear or convolutional.
        after: norms and elementwise layers, in order.
        flattened: whether the units are flattened before the next stage.
    """

    name: str
    layer: Weighted
    after: list[nn.Module]
    flattened: bool = False

    @property
    def units(self) -> int:
        """Rows of the weight: neurons, or output channels."""
        return len(self.layer.weight)


def remove_dead(module: nn.Module) -> nn.Module:
    """A smaller module without dead units (rows of linear layers, channels of convolutions) that computes the same.

    A unit is dead if all its weights are zero, so that it is a constant, or if nothing reads it. Constants are folded
    into the biases that come after; a constant channel other than zero stays where the next convolution pads with
    zeros, since it is no constant at the border. Inputs and outputs of the module stay as they are, and every layer
    keeps at least one unit. Removing units makes others dead; all of them are removed.

    Args:
        module: in evaluation mode, a chain: `torch.nn.Sequential`, also of others, of linear layers, convolutions of
            one group, batch normalization, elementwise activations, dropout and `torch.nn.Flatten`. With masks of a
            ticket, of `Pruner` or of `torch.nn.utils.prune`, or with zeros as they are. Inputs of a batch
            normalization are taken to be (batch, units, ...): after a linear layer (batch, units). Of others the
            smaller module cannot know, and torch refuses them when it is called.

    Returns:
        A copy without masks, with fewer units. Its layers have the names they had. Outputs are the same up to rounding.

    Raises:
        UnsupportedError: anything that is not such a chain; the message names the layer.
        PrecodeValueError: a layer in training mode, for which units may not be removed without changing outputs.
        PrecodeTypeError: not a module.

    Example:
        >>> module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).eval()
        >>> with torch.no_grad():
        ...     module[0].weight[:3] = 0
        >>> smaller = remove_dead(module)
        >>> smaller[0], smaller[2]
        (Linear(in_features=4, out_features=3, bias=True), Linear(in_features=3, out_features=2, bias=True))
        >>> torch.allclose(smaller(torch.ones(1, 4)), module(torch.ones(1, 4)), atol=1e-6)
        True
    """
    masked.check_module(module)
    network = _plain(copied(masked.unwrapped(module)))
    stages = _stages(network)
    with torch.no_grad():
        for stage, following in reversed(list(pairwise(stages))):
            _keep(stage, following, (_columns(stage, following) != 0).flatten(2).any(2).any(0))
        for stage, following in pairwise(stages):
            dead = (stage.layer.weight == 0).flatten(1).all(1)
            constants = _constants(stage)
            if _pads_zeros(following.layer):
                dead &= constants == 0
            dead &= torch.isfinite(constants)
            if bool(dead.all()):
                dead[0] = False
            _fold(stage, following, torch.where(dead, constants, 0.0))
            _keep(stage, following, ~dead)
    return network


def _plain(network: nn.Module) -> nn.Module:
    """Takes masks off."""
    for key, hook in list(network._forward_pre_hooks.items()):
        if hook is masking.refresh:
            del network._forward_pre_hooks[key]
    with torch.no_grad():
        for slot in masked.slots(network).values():
            if slot.pruned == "ticket" and slot.mask is not None:
                slot.put(slot.values())
                slot.unprune()
            elif slot.pruned == "torch":
                prune.remove(slot.owner, slot.attribute)  # type: ignore[no-untyped-call]
    return network


def _chain(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers in the order in which they are called."""
    if type(module) is not nn.Sequential:
        yield prefix.removesuffix(".") or "the module", module
        return
    _check_hooks(prefix.removesuffix(".") or "the module", module)
    for name, child in module._modules.items():
        if child is not None:
            yield from _chain(child, f"{prefix}{name}.")


def _check_hooks(name: str, layer: nn.Module) -> None:
    own = "forward" in vars(layer)
    if own or layer._forward_hooks or layer._forward_pre_hooks or parametrize.is_parametrized(layer):
        raise UnsupportedError(
            f"'{name}' has hooks, a forward or a parametrization of its own, which may do anything: take them off"
        )


def _stages(network: nn.Module) -> list[Stage]:
    """The chain in stages.

    Raises:
        UnsupportedError, PrecodeValueError: as `remove_dead` says.
    """
    stages: list[Stage] = []
    seen: set[int] = set()
    for name, layer in _chain(network):
        _check_hooks(name, layer)
        if id(layer) in seen and any(True for _ in layer.parameters()):
            raise UnsupportedError(f"'{name}' is used twice in the chain: its units are those of two places")
        seen.add(id(layer))
        kind = type(layer)
        if kind in (*NORMS, *DROPOUTS) and layer.training:
            raise PrecodeValueError(f"'{name}' ({kind.__name__}) is in training mode: call module.eval() first")
        if kind in LINEAR:
            stage = Stage(name, cast(Weighted, layer), [])
            _check_follows(stage, stages)
            stages.append(stage)
        elif isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) == (1, -1):
            if stages:
                stages[-1].flattened = True
        elif kind in (*NORMS, *ELEMENTWISE, *DROPOUTS):
            if kind in NORMS and stages and (layer.num_features != stages[-1].units or stages[-1].flattened):
                raise UnsupportedError(f"'{name}' normalizes something else than the units of '{stages[-1].name}'")
            if kind in NORMS and layer.running_mean is None:
                raise UnsupportedError(f"'{name}' has no running statistics: what it computes depends on the batch")
            if stages:
                stages[-1].after.append(layer)
        else:
            raise UnsupportedError(
                f"'{name}' ({kind.__name__}) is not part of a plain chain: torch.nn.Sequential of linear layers, "
                "convolutions, batch normalization, elementwise activations, dropout and Flatten"
            )
    if not stages:
        raise UnsupportedError("the module has no linear or convolutional layer: there are no units to remove")
    weights = [parameter for layer in (stage.layer for stage in stages) for parameter in layer.parameters()]
    if len({id(parameter) for parameter in weights}) < len(weights):
        raise UnsupportedError("layers of the chain share a weight: the units of one would be those of the other")
    return stages


def _check_follows(stage: Stage, stages: Sequence[Stage]) -> None:
    """Refuses a layer whose inputs are not the units before it.

    Raises:
        UnsupportedError: the message names both.
    """
    name, layer = stage.name, stage.layer
    groups = 1 if isinstance(layer, nn.Linear) else layer.groups
    if groups != 1:
        raise UnsupportedError(f"'{name}' is a convolution of {groups} groups, which have units of their own")
    if not stages:
        return
    before = stages[-1]
    inputs = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
    ordinary = type(layer) is type(before.layer) and not before.flattened and inputs == before.units
    same = isinstance(layer, nn.Linear) and isinstance(before.layer, nn.Linear) and inputs == before.units
    flat = isinstance(layer, nn.Linear) and not isinstance(before.layer, nn.Linear) and before.flattened
    if not (ordinary or same or (flat and inputs % before.units == 0)):
        raise UnsupportedError(
            f"'{name}' with {inputs} inputs does not read the {before.units} units of '{before.name}' one by one"
        )


def _columns(stage: Stage, following: Stage) -> torch.Tensor:
    """The weights that read each unit: (units of the next stage, units, the rest)."""
    weight = following.layer.weight
    return weight.reshape(len(weight), stage.units, -1)


def _constants(stage: Stage) -> torch.Tensor:
    """What each unit is after its stage if all its weights are zero."""
    weight, bias = stage.layer.weight, stage.layer.bias
    value = weight.new_zeros(len(weight)) if bias is None else bias.detach().clone()
    for layer in stage.after:
        axes = 2 if isinstance(layer, nn.BatchNorm2d) else 3 if isinstance(layer, nn.BatchNorm3d) else 0
        value = layer(value.reshape(1, -1, *[1] * axes)).flatten()
    return value


def _pads_zeros(layer: nn.Module) -> bool:
    """Whether a convolution sees zeros beside its input."""
    if isinstance(layer, nn.Linear) or layer.padding_mode != "zeros":
        return False
    return layer.padding != "valid" if isinstance(layer.padding, str) else any(layer.padding)  # type: ignore[arg-type]


def _fold(stage: Stage, following: Stage, constants: torch.Tensor) -> None:
    """Adds what constants contribute to the bias of the next stage."""
    if not bool((constants != 0).any()):
        return
    layer = following.layer
    added = (exact(_columns(stage, following)).sum(2) @ exact(constants)).to(layer.weight)
    if layer.bias is None:
        layer.bias = nn.Parameter(added, requires_grad=layer.weight.requires_grad)
    else:
        layer.bias.add_(added)


def _keep(stage: Stage, following: Stage, kept: torch.Tensor) -> None:
    """Removes the units that are not kept, but the first if there is none, and the weights that read them."""
    if not bool(kept.any()):
        kept = torch.arange(stage.units, device=kept.device) == 0
    if bool(kept.all()):
        return
    columns = _columns(stage, following)[:, kept]
    after = following.layer
    if isinstance(after, nn.Linear):
        _put(after, "weight", columns.flatten(1))
        after.in_features = after.weight.shape[1]
    else:
        _put(after, "weight", columns.reshape(len(columns), -1, *after.kernel_size))
        after.in_channels = after.weight.shape[1]
    _put(stage.layer, "weight", stage.layer.weight[kept])
    _put(stage.layer, "bias", None if stage.layer.bias is None else stage.layer.bias[kept])
    if isinstance(stage.layer, nn.Linear):
        stage.layer.out_features = stage.units
    else:
        stage.layer.out_channels = stage.units
    for norm in stage.after:
        if isinstance(norm, NORMS):
            for name in ("weight", "bias", "running_mean", "running_var"):
                _put(norm, name, None if getattr(norm, name) is None else getattr(norm, name)[kept])
            norm.num_features = stage.units


def _put(layer: nn.Module, name: str, value: torch.Tensor | None) -> None:
    """Gives a layer a parameter or buffer of another size."""
    if value is None:
        return
    old = getattr(layer, name)
    value = value.detach().clone()
    setattr(layer, name, nn.Parameter(value, old.requires_grad) if isinstance(old, nn.Parameter) else value)
