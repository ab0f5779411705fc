"""Tickets: which weights are kept, and the values they start from."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn.utils import prune

from precode import _precode
from precode._internal.check import KEY, a_path, fraction, integer
from precode._internal.errors import (
    PrecodeError,
    PrecodeFileError,
    PrecodeTypeError,
    PrecodeValueError,
)
from precode._internal.interrupts import uninterrupted
from precode._internal.randomness import Purpose, Randomness
from precode.tickets import contents, fitting, masked, masking, pretrained


def _versions() -> dict[str, str]:
    return {"precode": _precode.VERSION, "torch": str(torch.__version__)}


@dataclass(frozen=True, eq=False, repr=False)
class Ticket:
    """A sparse subnetwork of a module: masks, and start values that are zero wherever they prune.

    The start values are ``theta_0 * mask``, bit by bit, for every parameter that has a mask; all other parameters
    start as they are. Buffers, such as the statistics of batch normalization, belong to the module and not to the
    ticket. Tensors are those of a single network, on any device.

    Attributes:
        masks: Boolean tensors by parameter name, True where a weight is kept.
        start: start values of all parameters by name (float16, bfloat16, float32 or float64; finite).
        method: name of the method that found it.
        density: the fraction kept that was asked for, in (0, 1].
        granularity: what was kept or pruned as one: weight, row or column.
        scope: over what scores were compared: global or per-layer.
        settings: settings of the method.
        cost: what finding it took, by name: gradients (a Hessian-vector product counts as two) and epochs.
        config: how it was found, such as the seed.
        final: trained values of all parameters, zero where the masks prune, or None.
        versions: versions of the software that found it.

    Raises:
        PrecodeTypeError: masks that are not Boolean, values that are not floats, settings that JSON cannot hold, costs
            that are no numbers, versions that are no strings.
        PrecodeShapeError: a mask and its values differ in shape; more than 64 axes.
        PrecodeValueError: a value that is not finite, or not zero where its mask prunes; a mask without values; masks
            that keep nothing; a density out of range; whole numbers that a file cannot hold (below -2**63, or 2**64
            and above).

    Example:
        >>> mask = torch.tensor([[True, False]])
        >>> ticket = Ticket({"weight": mask}, {"weight": torch.tensor([[0.5, 0.0]])}, method="by hand", density=0.5)
        >>> ticket
        Ticket(method='by hand', density=0.5, kept=1 of 2 in 1 tensor)
        >>> linear = ticket.apply_(torch.nn.Linear(2, 1, bias=False))
        >>> linear.weight.tolist()
        [[0.5, 0.0]]
    """

    masks: dict[str, torch.Tensor]
    start: dict[str, torch.Tensor]
    method: str
    density: float
    granularity: str = "weight"
    scope: str = "global"
    settings: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    final: dict[str, torch.Tensor] | None = None
    versions: dict[str, str] = field(default_factory=_versions)

    def __post_init__(self) -> None:
        for name in ("masks", "start", "final"):
            tensors = getattr(self, name)
            if not (name == "final" and tensors is None):
                object.__setattr__(self, name, contents.tensors(tensors, name))
        if not isinstance(self.method, str):
            raise PrecodeTypeError(f"method must be a string, not {type(self.method).__name__}")
        contents.check_text(self.method, f"method {self.method!r}")
        if isinstance(self.density, np.number):
            object.__setattr__(self, "density", fraction(self.density, "density"))
        if isinstance(self.density, bool) or not isinstance(self.density, float | int):
            raise PrecodeTypeError(f"density must be a number, not {type(self.density).__name__}")
        if not 0 < self.density <= 1:
            raise PrecodeValueError(f"density = {self.density}: the fraction of weights kept must be in (0, 1]")
        for name in ("settings", "cost", "config", "versions"):
            object.__setattr__(self, name, contents.plain(getattr(self, name), name))
        for key, value in self.cost.items():
            if isinstance(value, bool) or not isinstance(value, float | int):
                raise PrecodeTypeError(f"cost['{key}'] must be a number, not {type(value).__name__}")
        object.__setattr__(self, "cost", {key: float(value) for key, value in self.cost.items()})
        for key, text in self.versions.items():
            if not isinstance(text, str):
                raise PrecodeTypeError(f"versions['{key}'] must be a string, not {type(text).__name__}")
        for name, mask in self.masks.items():
            if mask.dtype != torch.bool:
                raise PrecodeTypeError(
                    f"the mask of '{name}' has type {mask.dtype}: masks are torch.bool; convert it with mask.bool()"
                )
        for kind, values in (("start", self.start), ("final", self.final)):
            if values is not None:
                contents.check_values(kind, values, self.masks)
        if self.final is not None:
            contents.check_final(self.final, self.start)
        if not self.kept:
            raise PrecodeValueError("the masks keep no weight: a ticket keeps at least one")

    @property
    def kept(self) -> int:
        """Number of weights kept."""
        return sum(int(mask.count_nonzero()) for mask in self.masks.values())

    @property
    def total(self) -> int:
        """Number of weights that masks were chosen for."""
        return sum(mask.numel() for mask in self.masks.values())

    # Files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the ticket as one safetensors file with a JSON manifest, whole or not at all.

        Masks are ``mask.<name>``, start values ``start.<name>``, trained values ``final.<name>``. The manifest (key
        ``precode`` of the metadata) states everything else, and a SHA-256 over all of it.

        Raises:
            PrecodeFileError: it cannot be written, or is no regular file; what was there is as it was.
            PrecodeTypeError: no path.
            PrecodeValueError: unknown granularity or scope.

        Example:
            >>> import tempfile
            >>> from precode import find_ticket
            >>> linear = nn.Linear(4, 2)
            >>> ticket = find_ticket(linear, "magnitude-init", 0.5)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     ticket.save(f"{folder}/ticket.safetensors")
            ...     Ticket.load(f"{folder}/ticket.safetensors") == ticket
            True
        """
        parts = {"mask": self.masks, "start": self.start, "final": self.final or {}}
        tensors = [(f"{part}.{name}", tensor) for part, named in parts.items() for name, tensor in named.items()]
        about = {
            name: getattr(self, name)
            for name in ("method", "settings", "density", "granularity", "scope", "cost", "versions", "config")
        }
        _precode.save_ticket(a_path(path, "path"), tensors, json.dumps(about, allow_nan=False))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Ticket:
        """Reads a ticket's file onto the CPU; nothing in it is trusted, and nothing of it is run.

        Raises:
            PrecodeFileError: there is no such file, or it is damaged, altered, of another version, or no ticket; the
                message names the file and says which.
            PrecodeTypeError: no path.

        Example:
            >>> from precode import PrecodeFileError
            >>> try:
            ...     Ticket.load("missing.safetensors")
            ... except PrecodeFileError as error:
            ...     "missing.safetensors" in str(error)
            True
        """
        path = a_path(path, "path")
        tensors, manifest = _precode.load_ticket(path)
        parts: dict[str, dict[str, torch.Tensor]] = {"mask": {}, "start": {}, "final": {}}
        for full, tensor in tensors:
            part, _, name = full.partition(".")
            parts[part][name] = tensor
        try:
            return cls(parts["mask"], parts["start"], final=parts["final"] or None, **json.loads(manifest)["about"])
        except PrecodeError as error:  # a manifest that agrees with tensors which make no ticket
            raise PrecodeFileError(
                f"{path}: {error}: the file was not written by precode; take another copy"
            ) from error

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Writes a folder as those of the Hugging Face hub: ``ticket.safetensors``, and ``README.md`` as a model card.

        A ``README.md`` of one's own that is there already is left alone. Nothing is sent anywhere: upload the folder as
        any other.

        Raises:
            PrecodeFileError: it cannot be written.
            PrecodeTypeError: no path.

        Example:
            >>> import tempfile
            >>> from precode import find_ticket
            >>> linear = nn.Linear(4, 2)
            >>> ticket = find_ticket(linear, "magnitude-init", 0.5)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     ticket.save_pretrained(folder)
            ...     sorted(os.listdir(folder)), Ticket.from_pretrained(folder) == ticket
            (['README.md', 'ticket.safetensors'], True)
        """
        pretrained.save(self, a_path(folder, "folder"))

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Ticket:
        """Reads the ticket in a folder of `save_pretrained`, such as a downloaded one.

        Raises:
            PrecodeFileError, PrecodeTypeError: as for `load`.
        """
        return cls.load(os.path.join(a_path(folder, "folder"), pretrained.TICKET))

    # Modules

    def apply_(self, module: nn.Module, *, rewind: bool = True, strict: bool = True) -> nn.Module:
        """Prunes a module in place: pruned weights are zero from now on, whatever the optimizer.

        Each masked weight becomes a parametrization (`torch.nn.utils.parametrize`): the layer computes with the trained
        tensor where the mask is True and with zero elsewhere. The trained tensor is the same `nn.Parameter` as before,
        so an optimizer made before stays valid; in the state dict it is
        ``<layer>.parametrizations.weight.original``, with the mask beside it. ``layer.weight`` is computed whenever it
        is read, so that editing it in place is refused: assign to it, or see `reinitialize_`.

        Args:
            module: of the ticket's parameter names, shapes and types, on any device. Within wrappers, such as
                `torch.compile` and `torch.nn.DataParallel`, it is the module inside that is meant.
            rewind: give all parameters their start values; if False, they keep theirs, with zeros where pruned.
            strict: refuse a module of other parameters; if False, take the layers that fit, such as all but another
                head, and name the parameters of the others in a `precode.TicketWarning`.

        Returns:
            The module.

        Raises:
            PrecodeValueError: other parameters than the ticket's; a masked weight that is pruned already, parametrized
                or shared; a parameter that was made in inference mode; with ``strict=False``, no masked weight that
                fits.
            PrecodeShapeError: another shape or type. In each case nothing is changed. Ctrl-C waits for the edit to be
                done, here and below.
        """
        slots = fitting.fit(self, module, free=True, rewind=rewind, strict=strict)
        with uninterrupted():
            for name, slot in slots.items():
                if rewind or name in self.masks:
                    slot.put(self.start[name] if rewind else fitting.pruned(slot.parameter, self.masks[name]))
            for name, mask in self.masks.items():
                if name in slots:
                    slots[name].prune(mask)
        return module

    def remove_(self, module: nn.Module, *, strict: bool = True) -> nn.Module:
        """Undoes `apply_`: the masked weights are plain parameters again, with the values they have now.

        Pruned weights are zero and may be trained again. To get the dense weights back, load a state dict saved before
        `apply_`. Deep copies of the module keep their masks.

        Args:
            module: as for `apply_`.
            strict: as for `apply_`.

        Returns:
            The module.

        Raises:
            PrecodeValueError: the ticket is not applied to this module, or another one is; nothing is changed.
            PrecodeShapeError: as for `apply_`.

        Example:
            >>> from precode import find_ticket
            >>> linear = nn.Linear(4, 2)
            >>> ticket = find_ticket(linear, "magnitude-init", 0.5)
            >>> linear = ticket.remove_(ticket.apply_(linear))
            >>> [name for name, _ in linear.named_parameters()], int(linear.weight.count_nonzero())
            (['weight', 'bias'], 4)
        """
        slots = fitting.fit(self, module, rewind=False, strict=strict)
        masks = {name: mask for name, mask in self.masks.items() if name in slots}
        for name, mask in masks.items():
            if slots[name].pruned != "ticket":
                raise PrecodeValueError(f"'{name}' has no mask of a ticket: apply_ comes before remove_")
            fitting.check_mask(name, slots[name], mask, exact=True)
        with uninterrupted():
            for name, mask in masks.items():
                slots[name].put(fitting.pruned(slots[name].parameter, mask))
                slots[name].unprune()
        return module

    def rewind_(self, module: nn.Module, *, strict: bool = True) -> nn.Module:
        """Gives all parameters their start values again, in place; masks stay as they are.

        Args:
            module: as for `apply_`.
            strict: as for `apply_`.

        Returns:
            The module.

        Raises:
            PrecodeValueError: other parameters, or masks that keep weights whose start values the ticket does not have.
            PrecodeShapeError: as for `apply_`. In each case nothing is changed.

        Example:
            >>> from precode import find_ticket
            >>> linear = nn.Linear(4, 2)
            >>> ticket = find_ticket(linear, "magnitude-init", 0.5)
            >>> linear = ticket.apply_(linear)
            >>> with torch.no_grad():
            ...     _ = linear.bias.add_(1)
            >>> torch.equal(ticket.rewind_(linear).bias, ticket.start["bias"])
            True
        """
        slots = fitting.fit(self, module, strict=strict)
        for name, mask in self.masks.items():
            if name in slots:
                fitting.check_mask(name, slots[name], mask)
        with uninterrupted():
            for name, slot in slots.items():
                slot.put(self.start[name])
            if any(slot.pruned == "torch" for slot in slots.values()):
                masking.compute_when_called(masked.unwrapped(module))
        return module

    def reinitialize_(
        self, module: nn.Module, init: Callable[[nn.Module], Any] | None = None, *, seed: int = 0, strict: bool = True
    ) -> nn.Module:
        """Gives a pruned module new random values and keeps its masks, in place: the control of arXiv 1803.03635.

        Args:
            module: pruned by `apply_` or `to_torch_prune`.
            init: draws new values for the module that it is given, in place; the module is without masks as long as it
                runs. If None, the `reset_parameters` of all layers, inner ones first.
            seed: key of the random numbers; the global random states are as before.
            strict: as for `apply_`.

        Returns:
            The module. Pruned weights are zero, and biases, normalization and all else that `init` draws are new.

        Raises:
            PrecodeValueError: a masked weight that is not pruned, whose mask keeps what the ticket prunes, or that
                `init` leaves as it was.
            PrecodeTypeError: `init` is no function.
            PrecodeShapeError: as for `apply_`.
            Whatever is raised, by `init` too, the module has the values that it had.

        Example:
            >>> linear = nn.Linear(4, 2, bias=False)
            >>> mask = torch.rand(2, 4) < 0.5
            >>> ticket = Ticket({"weight": mask}, {"weight": linear.weight * mask}, method="by hand", density=0.5)
            >>> linear = ticket.reinitialize_(ticket.apply_(linear), lambda plain: nn.init.ones_(plain.weight))
            >>> torch.equal(linear.weight, mask.float())
            True
        """
        seed = integer(seed, "seed", 0, KEY)
        if init is not None and not callable(init):
            raise PrecodeTypeError(
                f"init must be a function that draws values for the module it is given, not {type(init).__name__}"
            )
        slots = {name: slot for name, slot in fitting.fit(self, module, strict=strict).items() if name in self.masks}
        for name, slot in slots.items():
            if not slot.pruned:
                raise PrecodeValueError(f"'{name}' is not pruned: apply_ or to_torch_prune comes first")
            fitting.check_mask(name, slot, self.masks[name])
        plain, draw = masked.unwrapped(module), masking.reset if init is None else init
        every = masked.slots(module)
        randomness = Randomness((slot.parameter.device for slot in every.values()), seed, [init])
        values = {name: slot.parameter.detach().clone() for name, slot in every.items()}
        buffers = {name: buffer.detach().clone() for name, buffer in plain.named_buffers()}
        with uninterrupted(), torch.no_grad():
            try:
                with randomness.isolated():
                    randomness.reseed(Purpose.REINITIALIZATION)
                    with masking.all_off(slot.owner for slot in slots.values()):
                        draw(plain)
                for name, slot in slots.items():
                    if torch.equal(slot.parameter, values[name]):
                        remedy = "its layer has no reset_parameters; pass init="
                        if init is not None:
                            remedy = "init= must draw new ones for the module it is given"
                        raise PrecodeValueError(f"'{name}' has the values that it had: {remedy}")
            except BaseException:
                for name, slot in every.items():
                    slot.put(values[name])
                for name, buffer in plain.named_buffers():
                    buffer.copy_(buffers[name])
                raise
            for name, slot in slots.items():
                slot.put(fitting.pruned(slot.parameter, self.masks[name]))
        return module

    def to_torch_prune(self, module: nn.Module, *, rewind: bool = True, strict: bool = True) -> nn.Module:
        """Prunes a module in place with `torch.nn.utils.prune` (``weight_orig`` and ``weight_mask``).

        Layers pruned so compute their weight when they are called. The module gets a forward hook that does it for all
        of them, because some layers are used without a call: the output projection of `torch.nn.MultiheadAttention`.
        In a loop that calls another method than the module itself such a layer is computed once, and cannot be trained.

        Args:
            module: as for `apply_`.
            rewind: as for `apply_`.
            strict: as for `apply_`.

        Returns:
            The module.

        Raises:
            PrecodeValueError, PrecodeShapeError: as for `apply_`.

        Example:
            >>> from precode import find_ticket
            >>> linear = nn.Linear(4, 2)
            >>> ticket = find_ticket(linear, "magnitude-init", 0.5)
            >>> sorted(name for name, _ in ticket.to_torch_prune(linear).named_buffers())
            ['weight_mask']
        """
        slots = fitting.fit(self, module, free=True, rewind=rewind, strict=strict)
        with uninterrupted():
            if rewind:
                for name, slot in slots.items():
                    slot.put(self.start[name])
            for name, slot in slots.items():
                if name in self.masks:
                    mask = self.masks[name].to(slot.parameter.device)
                    prune.custom_from_mask(slot.owner, slot.attribute, mask)  # type: ignore[no-untyped-call]
            masking.compute_when_called(masked.unwrapped(module))
        return module

    @classmethod
    def from_torch_prune(cls, module: nn.Module) -> Ticket:
        """The masks that `torch.nn.utils.prune` put on a module, with its present values as start values.

        Raises:
            PrecodeValueError: nothing is pruned so; a mask with other values than 0 and 1.

        Example:
            >>> linear = prune.l1_unstructured(nn.Linear(4, 2), "weight", amount=0.5)
            >>> Ticket.from_torch_prune(linear)
            Ticket(method='torch.nn.utils.prune', density=0.5, kept=4 of 8 in 1 tensor)
        """
        return cls._of(module, "torch", "torch.nn.utils.prune")

    @classmethod
    def from_parametrized(cls, module: nn.Module) -> Ticket:
        """The masks that `apply_` put on a module, with its present values as start values.

        Raises:
            PrecodeValueError: nothing is pruned so.

        Example:
            >>> from precode import find_ticket
            >>> linear = nn.Linear(4, 2)
            >>> ticket = find_ticket(linear, "magnitude-init", 0.5)
            >>> Ticket.from_parametrized(ticket.apply_(linear)).masks["weight"].equal(ticket.masks["weight"])
            True
        """
        return cls._of(module, "ticket", "parametrization")

    @classmethod
    def _of(cls, module: nn.Module, by: Literal["ticket", "torch"], method: str) -> Ticket:
        slots = masked.slots(module)
        masks = {name: slot.mask for name, slot in slots.items() if slot.pruned == by and slot.mask is not None}
        if not masks:
            raise PrecodeValueError(f"no parameter of the module is pruned by {method}")
        for name, mask in masks.items():
            if not bool(((mask == 0) | (mask == 1)).all()):
                raise PrecodeValueError(f"the mask of '{name}' has values other than 0 and 1")
        kept = {name: mask != 0 for name, mask in masks.items()}
        start = {name: slot.parameter.detach().clone() for name, slot in slots.items()}
        start |= {name: start[name] * mask for name, mask in kept.items()}
        density = sum(int(mask.sum()) for mask in kept.values()) / sum(mask.numel() for mask in kept.values())
        if not density:
            raise PrecodeValueError("the masks keep no weight: a ticket keeps at least one")
        return cls(kept, start, method=method, density=density)

    # Comparison and display

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ticket):
            return NotImplemented
        names = ("method", "density", "granularity", "scope", "settings", "cost", "config")
        return all(getattr(self, name) == getattr(other, name) for name in names) and all(
            _equal(getattr(self, name) or {}, getattr(other, name) or {}) for name in ("masks", "start", "final")
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        tensors = f"{len(self.masks)} tensor{'s' * (len(self.masks) != 1)}"
        return f"Ticket(method={self.method!r}, density={self.density}, kept={self.kept} of {self.total} in {tensors})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{' × '.join(map(str, mask.shape))}</td><td>{int(mask.sum())}</td>"
            f"<td>{float(mask.float().mean()):.4g}</td></tr>"
            for name, mask in self.masks.items()
        )
        head = "<tr><th>tensor</th><th>shape</th><th>kept</th><th>density</th></tr>"
        return f"<p>{escape(repr(self))}</p><table>{head}{rows}</table>"


def _equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and torch.equal(a[name].cpu(), b[name].cpu()) for name in a
    )
