"""Which parameters of a module are pruned: by layer, by name, all but some."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.conv import _ConvNd

from precode._internal.errors import PrecodeTypeError, PrecodeValueError
from precode._internal.parts import all_finite
from precode.modules.layouts import libraries_linears
from precode.tickets import masked
from precode.tickets.masked import Slot

AUTO = "auto"
"""Stands for the weights of all layers that are known."""

Names = str | type[nn.Module] | Iterable[str | type[nn.Module]]
"""Names, patterns of names, and kinds of layers."""

Prunable = Names | None
"""The same, and `AUTO`."""


NOTABLE = 0.05
"""The part of a module's weights from which it is said of a parameter that its layer is not known."""


@dataclass(frozen=True)
class Choice:
    """What is pruned.

    Attributes:
        names: of the parameters, in the module's order.
        left_out: weights of known layers that cannot be pruned, and large ones of others, each with the reason.
        share: the part of all the module's weights that is prunable.
        spared: weights that could be pruned and are not, because of how they would be.
        by_name: those that the user named, not as one of a kind of layers.
    """

    names: list[str]
    left_out: dict[str, str]
    share: float
    spared: dict[str, str] = field(default_factory=dict)
    by_name: frozenset[str] = frozenset()


def layer_weights(layer: nn.Module) -> list[str]:
    """Names of a layer's own tensors that are weights: those of linear, convolutional, attention and recurrent layers.

    Example:
        >>> layer_weights(nn.LSTM(2, 3)), layer_weights(nn.LayerNorm(2))
        (['weight_ih_l0', 'weight_hh_l0'], [])
    """
    if not getattr(layer, "prunable", True):  # such as the C0 of `precode.Networks.module`
        return []
    if isinstance(layer, nn.Linear | nn.Bilinear | _ConvNd) or libraries_linears(layer):
        return ["weight"]
    own = [name for name, value in layer.named_parameters(recurse=False) if value.ndim > 1]
    if isinstance(layer, nn.MultiheadAttention):
        return [name for name in own if name.endswith("proj_weight")]
    recurrent = isinstance(layer, nn.RNNBase | nn.RNNCellBase)
    return [name for name in own if name.startswith("weight_")] if recurrent else []


def choose(module: nn.Module, slots: dict[str, Slot], prunable: Prunable, exclude: Names) -> Choice:
    """The parameters to prune.

    Args:
        module: the module.
        slots: its parameters.
        prunable: as in `precode.find_ticket`.
        exclude: as in `precode.find_ticket`.

    Raises:
        PrecodeTypeError: neither names nor kinds of layers.
        PrecodeValueError: nothing to prune; a name that nothing has; a parameter that is named and cannot be pruned, or
            pruned already, or not finite.
    """
    for slot in slots.values():
        if slot.pruned:
            masked.check_free(slot)
    wanted, excluded = _listed(AUTO if prunable is None else prunable, "prunable"), _listed(exclude, "exclude")
    named: dict[str, None] = {}  # in order
    left_out: dict[str, str] = {}
    by_name: list[str] = []
    for entry in wanted:
        if isinstance(entry, str) and entry == AUTO:
            found, left_out = automatic(module, slots)
        else:
            found = _matching(entry, slots, "prunable")
            by_name += found if isinstance(entry, str) else []
        named |= dict.fromkeys(found)
    layers = dict(masked.layers(module))
    for entry in excluded:
        for name in [name for name in left_out if _means(entry, name, layers)] or _matching(entry, slots, "exclude"):
            left_out.pop(name, None)
        named = {name: None for name in named if not _matches(entry, name, slots[name].owner)}
    if not named:
        raise PrecodeValueError(_nothing(wanted, left_out, bool(excluded)))
    left_out = {name: reason for name, reason in left_out.items() if name not in named}
    for name in named:
        masked.check_free(slots[name])
        masked.check_editable(slots[name])
        if not slots[name].parameter.requires_grad:
            raise PrecodeValueError(
                f"'{name}' is frozen (requires_grad is False): unfreeze it, or leave it out of prunable"
            )
    for name in named:
        if not all_finite(slots[name].parameter):
            raise PrecodeValueError(f"'{name}' has values that are not finite: initialize it again")
    names = [name for name in slots if name in named]
    share = sum(slots[name].parameter.numel() for name in names) / max(_weights_of(slots), 1)
    return Choice(names, left_out, min(share, 1.0), by_name=frozenset(by_name))


def automatic(module: nn.Module, slots: dict[str, Slot]) -> tuple[list[str], dict[str, str]]:
    """The weights of all known layers, and those that are left out, with the reasons."""
    found, left_out = [], {}
    tied = {alias: name for name, slot in slots.items() for alias in slot.tied}
    for name in _weights(module):
        slot = slots.get(name)
        if slot is None:
            left_out[name] = (
                f"shared with {tied[name]}" if name in tied else "computed from other parameters (is it parametrized?)"
            )
        elif slot.tied:
            left_out[name] = f"shared with {', '.join(slot.tied)}"
        elif slot.overlapping:
            left_out[name] = f"in the memory of {', '.join(slot.overlapping)}"
        elif not slot.parameter.requires_grad:
            left_out[name] = "frozen"
        elif not slot.parameter.numel():
            left_out[name] = "empty"
        else:
            found.append(name)
    least = NOTABLE * _weights_of(slots)
    for name, slot in slots.items():
        known = name in found or name in left_out or not {name, *slot.tied}.isdisjoint(left_out)
        # Tables of vectors, and what is added to each sample, are no weights that something is multiplied with.
        other = isinstance(slot.owner, nn.Embedding | nn.EmbeddingBag) or slot.parameter.shape[:1] == (1,)
        other = other or bool(layer_weights(slot.owner)) or not getattr(slot.owner, "prunable", True)
        if slot.parameter.ndim > 1 and slot.parameter.numel() >= least and not (known or other):
            left_out[name] = f"of a {type(slot.owner).__name__}, no known layer: name it in prunable to prune it"
    return found, left_out


def _weights_of(slots: Mapping[str, Slot]) -> int:
    """Numbers in all parameters of several axes."""
    return sum(slot.parameter.numel() for slot in slots.values() if slot.parameter.ndim > 1)


def _weights(module: nn.Module) -> Iterator[str]:
    """Names of the weights of all known layers, also of those that are computed."""
    for prefix, layer in masked.layers(module):
        for attribute in layer_weights(layer):
            yield f"{prefix}{attribute}"


def check_axes(slots: Mapping[str, Slot], names: Iterable[str]) -> None:
    """Refuses parameters of which it is not known which axis is of outputs: those of several, of layers of one's own.

    Raises:
        PrecodeValueError: there is one.
    """
    for name in names:
        slot = slots[name]
        if slot.parameter.ndim > 2 and slot.attribute not in layer_weights(slot.owner):
            raise PrecodeValueError(
                f"'{name}' of shape {tuple(slot.parameter.shape)} is no weight of a known layer, so that its rows and "
                "inputs are not known: leave it out, or take granularity='weight'"
            )


def _listed(names: Names, argument: str) -> list[str | type[nn.Module]]:
    listed = list(names) if isinstance(names, Iterable) and not isinstance(names, str | type | nn.Module) else [names]
    for entry in listed:
        if not isinstance(entry, str) and not (isinstance(entry, type) and issubclass(entry, nn.Module)):
            raise PrecodeTypeError(f"{argument} must be names or kinds of layers, not {type(entry).__name__}")
    return listed


def _matching(entry: str | type[nn.Module], slots: dict[str, Slot], argument: str) -> list[str]:
    """The parameters that a name, the name of their layer, a pattern with *, or a kind of layers means."""
    found = [
        name for name, slot in slots.items() if any(_matches(entry, each, slot.owner) for each in (name, *slot.tied))
    ]
    is_name = isinstance(entry, str) and (entry in slots or "*" in entry)
    if argument == "prunable" and not is_name:
        # A layer means its weights, not its biases.
        found = [name for name in found if slots[name].parameter.ndim > 1]
    if found:
        return found
    if not isinstance(entry, str):
        raise PrecodeValueError(f"the module has no plain weights of a layer {entry.__name__}, which {argument} names")
    raise PrecodeValueError(
        f"'{entry}' is not a plain parameter of the module (is it parametrized?): {argument} can name "
        f"{_some(list(slots))}, or a layer, or several with *"
    )


def _means(entry: str | type[nn.Module], name: str, layers: dict[str, nn.Module]) -> bool:
    """Whether an entry means a weight of one of some layers, by their prefixes."""
    path, dot, _ = name.rpartition(".")
    return _matches(entry, name, layers[path + dot])


def _matches(entry: str | type[nn.Module], name: str, layer: nn.Module) -> bool:
    """Whether an entry means a parameter of a layer."""
    if isinstance(entry, str):
        return fnmatchcase(name, entry) or name.startswith(f"{entry}.")
    return isinstance(layer, entry)


def _nothing(wanted: list[str | type[nn.Module]], left_out: dict[str, str], excluded: bool) -> str:
    if not wanted:
        return "prunable is empty: name at least one parameter"
    if excluded:
        return "exclude leaves nothing to prune: leave out less"
    reasons = [f"'{name}' is {reason}" for name, reason in left_out.items()]
    return (
        "the module has nothing to prune: no linear, convolutional, attention or recurrent layer with weights of its "
        f"own{f' ({_some(reasons)})' if reasons else ''}; name parameters with prunable="
    )


def _some(items: list[str], most: int = 12) -> str:
    """A list that fits into a message."""
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + rest
