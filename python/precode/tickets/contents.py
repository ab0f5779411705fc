"""What a ticket may hold: tensors, text and numbers that its file gives back as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from precode._internal.errors import PrecodeShapeError, PrecodeTypeError, PrecodeValueError
from precode._internal.parts import all_finite, parts
from precode.tickets import masked

AXES = 64
"""Most axes of a tensor: torch computes with no more."""
DEPTH = 100
"""Most levels of a dictionary in dictionaries; the reader of the file's JSON stops at 128."""


class Own(dict[str, torch.Tensor]):
    """Tensors by name that nobody else holds, which a ticket takes over as they are."""


def tensors(given: Any, name: str) -> dict[str, torch.Tensor]:
    """Copies of dense tensors by name."""
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise PrecodeTypeError(f"{name} must be tensors by parameter name, not {type(given).__name__}")
    for key, tensor in given.items():
        if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided or tensor.is_meta:
            raise PrecodeTypeError(f"{name}['{key}'] must be a dense torch.Tensor, not {type(tensor).__name__}")
        if tensor.dim() > AXES:
            raise PrecodeShapeError(f"{name}['{key}'] has {tensor.dim()} axes: a ticket's tensors have at most {AXES}")
        check_text(key, f"the name {key!r} in {name}")
    if isinstance(given, Own):
        return dict(given)
    # Copies: what the user does with the tensors later is not the ticket's.
    with torch.inference_mode(False):
        return {key: tensor.detach().clone() for key, tensor in given.items()}


def plain(values: Any, name: str) -> dict[str, Any]:
    """What a file would give back of a dictionary."""
    try:
        read = json.loads(json.dumps(values, allow_nan=False), object_pairs_hook=_unique)
    except (TypeError, ValueError, RecursionError) as error:
        raise PrecodeTypeError(f"{name} must be made of what JSON can hold: {error}") from error
    if not isinstance(read, dict):
        raise PrecodeTypeError(f"{name} must be a dictionary, not {type(values).__name__}")
    _check_plain(read, name)
    return read


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dictionary, unless two of its keys are the same as text, such as 1 and "1"."""
    plain = dict(pairs)
    if len(plain) != len(pairs):
        raise ValueError(f"two names are the same as text, among {', '.join(map(repr, plain))}")
    return plain


def _check_plain(value: Any, place: str, depth: int = 0) -> None:
    """Refuses what JSON can hold but a ticket's file would not give back."""
    if depth > DEPTH:
        raise PrecodeValueError(f"{place} is nested too deeply: a file holds {DEPTH} levels")
    if isinstance(value, dict):
        for key, item in value.items():
            check_text(key, f"the name {key!r} in {place}")
            _check_plain(item, f"{place}[{key!r}]", depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_plain(item, f"{place}[{index}]", depth + 1)
    elif isinstance(value, str):
        check_text(value, place)
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise PrecodeValueError(
            f"{place} = {value}: a file holds whole numbers from -2**63 to 2**64 - 1; give it as a string"
        )


def check_text(text: str, place: str) -> None:
    """Refuses strings that no file can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PrecodeValueError(f"{place} is no text that a file can hold: {error.reason}") from error


def check_values(kind: str, values: dict[str, torch.Tensor], masks: dict[str, torch.Tensor]) -> None:
    """Refuses values that do not fit the masks."""
    for name, tensor in values.items():
        if tensor.dtype not in masked.DTYPES:
            raise PrecodeTypeError(f"{kind}['{name}'] has type {tensor.dtype}: values are floats of 16 to 64 bits")
        if not all_finite(tensor):
            raise PrecodeValueError(f"{kind}['{name}'] has values that are not finite (did training diverge?)")
    for name, mask in masks.items():
        if name not in values:
            raise PrecodeValueError(f"'{name}' has a mask but no {kind} values")
        if values[name].shape != mask.shape:
            raise PrecodeShapeError(
                f"'{name}' has {kind} values of shape {tuple(values[name].shape)}, but a mask of {tuple(mask.shape)}"
            )
        held = mask.to(values[name].device)
        if any(bool(part.masked_fill(kept, 0).any()) for part, kept in parts(values[name], held)):
            raise PrecodeValueError(f"{kind}['{name}'] is not zero where its mask prunes: multiply it by its mask")


def check_final(final: dict[str, torch.Tensor], start: dict[str, torch.Tensor]) -> None:
    """Refuses trained values of other parameters than the start values."""
    described = [{key: (value.shape, value.dtype) for key, value in part.items()} for part in (final, start)]
    if described[0] != described[1]:
        raise PrecodeShapeError("final must have the names, shapes and types of start")
