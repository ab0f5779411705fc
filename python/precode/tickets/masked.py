"""The parameters of any `nn.Module`, by the names they have when nothing is pruned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel

from precode._internal.errors import PrecodeTypeError, PrecodeValueError
from precode.tickets import masking

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
"""Modules that hold another as `module`, which a ticket is of."""

CHECKPOINT = "_checkpoint_wrapped_module"
"""The name under which torch's checkpoint wrapper holds it."""

FABRIC = ("_forward_module", "_original_module")
"""The names under which the wrapper of Lightning Fabric holds it; the first may be wrapped further."""

INNER = ("_orig_mod", CHECKPOINT)
"""The names under which `torch.compile` and the checkpoint wrapper hold it."""

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types of values that a ticket can hold."""


@dataclass(frozen=True)
class Slot:
    """A parameter and where it is.

    Attributes:
        name: its name in the unpruned module, such as ``0.weight``.
        parameter: the tensor that is trained.
        owner: the layer it belongs to.
        attribute: its name there.
        pruned: what keeps its pruned weights at zero, if anything.
        mask: with zeros or False at pruned weights, if it is pruned.
        tied: other names of the same tensor.
        overlapping: names of other tensors that lie in the same memory.
    """

    name: str
    parameter: nn.Parameter
    owner: nn.Module
    attribute: str
    pruned: Literal["ticket", "torch"] | None
    mask: torch.Tensor | None
    tied: tuple[str, ...] = ()
    overlapping: tuple[str, ...] = ()

    @torch.no_grad()
    def put(self, values: torch.Tensor) -> None:
        """Gives the parameter other values, in place."""
        self.parameter.copy_(values)
        if self.pruned == "torch" and self.mask is not None:  # whose layers compute their weight when they are called
            setattr(self.owner, self.attribute, self.parameter * self.mask)

    def values(self) -> torch.Tensor:
        """The weight that its layer computes with, with zeros where it is pruned; a copy only there."""
        value = self.parameter.detach()
        return value if self.mask is None else torch.where(self.mask != 0, value, 0.0)

    def prune(self, mask: torch.Tensor) -> None:
        """Keeps weights at zero where the mask is False."""
        masking.put_on(self.owner, self.attribute, mask)

    def unprune(self) -> None:
        """The inverse of `prune`; pruned weights are zero, and may be trained again."""
        masking.take_off(self.owner, self.attribute)


def _own(layer: nn.Module, prefix: str) -> Iterator[Slot]:
    """The parameters of one layer, without those of its children."""
    for name, parameter in layer.named_parameters(recurse=False, remove_duplicate=False):
        base = name.removesuffix("_orig")
        mask = masking.mask_by_torch(layer, base) if base != name else None
        if mask is None:
            yield Slot(prefix + name, parameter, layer, name, None, None)
        else:
            yield Slot(prefix + base, parameter, layer, base, "torch", mask)
    if not parametrize.is_parametrized(layer):
        return
    for name, chain in layer.get_submodule("parametrizations").named_children():
        if (mask := masking.mask_of(layer, name)) is not None:
            yield Slot(prefix + name, chain.get_parameter("original"), layer, name, "ticket", mask)
        elif any(isinstance(each, masking.Masked) for each in chain.children()):
            raise PrecodeValueError(
                f"'{prefix}{name}' was parametrized once more after its mask was put on, so that pruned weights may be "
                f"other than zero: take both off, by parametrize.remove_parametrizations(layer, {name!r})"
            )
        else:
            for inner, parameter in chain.named_parameters():
                full = f"{prefix}parametrizations.{name}.{inner}"
                yield Slot(full, parameter, layer, name, None, None)


def _layers(module: nn.Module, prefix: str, seen: set[int]) -> Iterator[tuple[str, nn.Module]]:
    """All layers with the prefixes of their parameters' names, shared ones once, without parametrizations."""
    if id(module) in seen:
        return
    seen.add(id(module))
    yield prefix, module
    skip = "parametrizations" if parametrize.is_parametrized(module) else None
    for name, child in module.named_children():
        if name != skip:
            yield from _layers(unwrapped(child), f"{prefix}{name}.", seen)


def unwrapped(module: nn.Module) -> nn.Module:
    """The module within what torch and Fabric wrap around it: compiled, parallel, averaged and checkpointed modules.

    Example:
        >>> unwrapped(nn.DataParallel(nn.Linear(2, 1)))
        Linear(in_features=2, out_features=1, bias=True)
    """
    while True:
        names = INNER if type(module).__name__ != "_FabricModule" else FABRIC[:1]
        inner = [module._modules[name] for name in names if name in module._modules]
        inner += [module._modules.get("module")] if isinstance(module, WRAPPERS) else []
        found = next((child for child in inner if child is not None), None)
        if found is None:
            return module
        module = found


def check_module(module: object) -> None:
    """Refuses what is not an `nn.Module`.

    Raises:
        PrecodeTypeError: it is something else, or compiled by `torch.jit`.
    """
    if not isinstance(module, nn.Module):
        raise PrecodeTypeError(f"module must be a torch.nn.Module, not {type(module).__name__}")
    if any(isinstance(layer, torch.jit.ScriptModule) for layer in module.modules()):
        raise PrecodeTypeError("a module compiled by torch.jit cannot be pruned: pass the module that it was made from")


def slots(module: nn.Module) -> dict[str, Slot]:
    """All parameters of a module by their names; one that has several is listed by its first.

    Names are those within wrappers, such as ``0.weight`` in a compiled or parallel module.

    Raises:
        PrecodeTypeError: not a module, or a parameter that is not a dense tensor of floats in one place.
        PrecodeValueError: a parameter without values yet, an expanded one, or one that was parametrized after its mask
            was put on.
    """
    check_module(module)
    found: dict[str, Slot] = {}
    first: dict[int, str] = {}
    tied: dict[str, list[str]] = {}
    for prefix, layer in layers(module):
        for slot in _own(layer, prefix):
            parameter = slot.parameter
            if isinstance(parameter, nn.parameter.UninitializedParameter):
                raise PrecodeValueError(f"'{slot.name}' has no values yet: call the module once on a batch")
            if parameter.layout != torch.strided or parameter.is_meta or parameter.dtype not in DTYPES:
                raise PrecodeTypeError(
                    f"'{slot.name}' is a tensor of {parameter.dtype} on {parameter.device} ({parameter.layout}): "
                    "expected dense float16, bfloat16, float32 or float64 values in memory; keep complex values as a "
                    "parameter of two real ones (torch.view_as_complex), and what is not trained as a buffer"
                )
            if hasattr(parameter, "placements"):  # of torch.distributed.tensor, which not every torch has
                raise PrecodeTypeError(
                    f"'{slot.name}' is a distributed tensor: prune the module before fully_shard, and read it by "
                    "get_model_state_dict(module, options=StateDictOptions(full_state_dict=True))"
                )
            axes = zip(parameter.shape, parameter.stride(), strict=True)
            if parameter.numel() and any(size > 1 and not stride for size, stride in axes):
                raise PrecodeValueError(
                    f"'{slot.name}' is an expanded tensor, of which several entries are one number in memory: give it "
                    "memory of its own, as by weight.data = weight.data.clone(memory_format=torch.contiguous_format)"
                )
            name = first.setdefault(id(parameter), slot.name)
            if name == slot.name:
                found[name] = slot
            else:
                tied.setdefault(name, []).append(slot.name)
    for name, others in tied.items():
        found[name] = replace(found[name], tied=tuple(others))
    tensors: dict[str, torch.Tensor] = {name: slot.parameter for name, slot in found.items()}
    for prefix, layer in layers(module):
        tensors |= {prefix + name: buffer for name, buffer in layer._buffers.items() if buffer is not None}
    for name, others in _overlapping(tensors).items():
        if name in found:
            found[name] = replace(found[name], overlapping=tuple(others))
    return found


def _overlapping(tensors: Mapping[str, torch.Tensor]) -> dict[str, list[str]]:
    """Names of tensors that lie in the memory of others, such as after ``b.data = a.data``, with those."""
    places: dict[int, list[tuple[int, int, str]]] = {}
    for name, tensor in tensors.items():
        # Not by isinstance, which torch answers for fake tensors too.
        plain = issubclass(type(tensor), nn.Parameter) or type(tensor) is torch.Tensor
        memory = memory_of(tensor) if plain and tensor.layout == torch.strided else 0
        if memory and tensor.numel():
            last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
            start = tensor.data_ptr()
            end = start + (last + 1) * tensor.element_size()
            places.setdefault(memory, []).append((start, end, name))
    found: dict[str, list[str]] = {}
    for several in map(sorted, places.values()):
        for place, (_, end, name) in enumerate(several):
            # By their starts, so that those after the first beyond the end lie beyond it too.
            for start, _, other in islice(several, place + 1, None):
                if start >= end:
                    break
                found.setdefault(name, []).append(other)
                found.setdefault(other, []).append(name)
    return found


def memory_of(tensor: torch.Tensor) -> int:
    """Where a tensor's storage lies; 0 if it has none, such as sparse and freed tensors and those of `torch.vmap`."""
    try:
        return tensor.untyped_storage().data_ptr()
    except RuntimeError:  # it stands for another, or for several
        return 0


def layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All layers of a module with the prefixes of their parameters' names, such as ``0.``, shared layers once."""
    return _layers(unwrapped(module), "", set())


def check_editable(slot: Slot) -> None:
    """Refuses a parameter that torch changes in inference mode alone.

    Raises:
        PrecodeValueError: it was made there.
    """
    if slot.parameter.is_inference():
        raise PrecodeValueError(
            f"'{slot.name}' was made in inference mode and cannot be trained: make it outside of it"
        )


def check_free(slot: Slot) -> None:
    """Refuses a weight that cannot get a mask.

    Raises:
        PrecodeValueError: it is pruned already, or shared with another layer; its layer changes it when it is called,
            or gives it sparse gradients.
    """
    if slot.pruned:
        remedy = "ticket.remove_(module)" if slot.pruned == "ticket" else "torch.nn.utils.prune.remove"
        raise PrecodeValueError(f"'{slot.name}' is pruned already: undo that first with {remedy}")
    if slot.overlapping:
        raise PrecodeValueError(
            f"'{slot.name}' lies in the memory of {', '.join(slot.overlapping)}, which its mask would put to zero too: "
            "make them one parameter (b.weight = a.weight), or give it memory of its own, as by weight.data.clone()"
        )
    if isinstance(slot.owner, nn.Embedding | nn.EmbeddingBag):
        for option in ("max_norm", "sparse"):
            if value := getattr(slot.owner, option):
                raise PrecodeValueError(
                    f"'{slot.name}' is of an embedding with {option}={value}, which masks do not go with: make it "
                    f"without {option}, or leave it out of prunable"
                )
    if slot.tied:
        raise PrecodeValueError(
            f"'{slot.name}' is shared with {', '.join(slot.tied)}: a mask would separate them; untie them, or leave "
            "it out of prunable"
        )
