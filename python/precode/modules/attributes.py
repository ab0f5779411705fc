"""What objects hold in attributes, collections and tensors, so that they can be given it again."""

from __future__ import annotations

import random
from array import array
from collections import deque
from collections.abc import Iterable
from copy import copy
from operator import is_
from types import MemberDescriptorType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset, IterableDataset

from precode._internal.randomness import GENERATORS, ITEMS, attributes, restore, state

Contents = list[Any]
"""A copy of what each of some objects holds."""

COLLECTIONS = (list, dict, set, deque, bytearray, array)
TENSORS = (torch.Tensor, np.ndarray)

MOST = 2**20
"""Entries up to which a collection or a tensor is a state; larger ones are samples."""

OF_EVERY_MODULE = frozenset(vars(nn.Module()))
"""Attributes of modules that are no state of their own: parameters, buffers, layers, hooks and the mode."""


class Holders:
    """Objects, and what they hold.

    Args:
        objects: those for which `has_content`.

    Example:
        >>> counter = {"calls": 1}
        >>> holders = Holders([counter])
        >>> before = holders.now()
        >>> counter["calls"] += 1
        >>> holders.put(before)
        >>> counter
        {'calls': 1}
    """

    def __init__(self, objects: Iterable[Any]) -> None:
        self.objects = list(objects)

    def now(self) -> Contents:
        """What they hold now."""
        return [_content(each) for each in self.objects]

    def put(self, contents: Contents) -> None:
        """Gives them what they held, and nothing else."""
        for each, content in zip(self.objects, contents, strict=True):
            _put(each, content)

    @staticmethod
    def differ(one: Contents, other: Contents) -> bool:
        """Whether anything changed between two times."""
        return not all(map(_equal, one, other))


def has_content(value: Any) -> bool:
    """Whether an object can be given again what it holds: one with attributes, a collection or tensor of some size."""
    if isinstance(value, GENERATORS):
        return not isinstance(value, random.SystemRandom)
    if isinstance(value, torch.Tensor):
        return value.numel() <= MOST and not value.is_inference()
    if isinstance(value, np.ndarray):
        return value.size <= MOST
    if isinstance(value, COLLECTIONS):
        return len(value) <= MOST
    return isinstance(getattr(value, "__dict__", None), dict) or bool(attributes(value))


def inner(value: Any) -> list[Any]:
    """What an object or a collection holds that may change; not what is in large ones, such as samples."""
    if isinstance(value, dict):
        return list(value.values()) if len(value) <= ITEMS else []
    if isinstance(value, list | set | deque):
        return list(value) if len(value) <= ITEMS else []
    return [] if isinstance(value, (*COLLECTIONS, *TENSORS, *GENERATORS)) else list(_attributes(value).values())


def _attributes(value: Any) -> dict[str, Any]:
    held = attributes(value)
    if isinstance(value, Dataset) and not isinstance(value, IterableDataset):  # which may keep what they have read
        return {name: each for name, each in held.items() if each is None or isinstance(each, int | float | str)}
    if not isinstance(value, nn.Module):
        return held
    # Layers of `torch.nn.utils.prune` remember their weight, which follows their parameters.
    own = {f"{name}_orig" for name in held} & value._parameters.keys()
    return {name: each for name, each in held.items() if name not in OF_EVERY_MODULE and f"{name}_orig" not in own}


def _content(value: Any) -> Any:
    """A copy of what an object holds."""
    if isinstance(value, GENERATORS):
        return state(value)
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    return copy(value) if isinstance(value, COLLECTIONS) else _attributes(value)


def _put(value: Any, content: Any) -> None:
    if isinstance(value, GENERATORS):
        restore(value, content)
        return
    if _equal(_content(value), content):
        return
    if isinstance(value, torch.Tensor):
        with torch.no_grad():
            value.copy_(content)
    elif isinstance(value, np.ndarray):
        value[...] = content
    elif isinstance(value, list | bytearray | array):
        value[:] = content
    elif isinstance(value, deque):
        value.clear()
        value.extend(content)
    elif isinstance(value, dict | set):
        value.clear()
        value.update(content)
    else:  # at no time without an attribute, which another thread may read
        held = getattr(value, "__dict__", {})
        new = _attributes(value).keys() - content.keys()
        for name, each in content.items():
            if _is_slot(value, name):
                object.__setattr__(value, name, each)
            else:  # not by `setattr`, which a class may have made something else
                held[name] = each
        for name in new:
            if _is_slot(value, name):
                object.__delattr__(value, name)
            else:
                del held[name]


def _is_slot(value: Any, name: str) -> bool:
    return isinstance(getattr(type(value), name, None), MemberDescriptorType)


def _equal(one: Any, other: Any) -> bool:
    """Whether contents are the same; numbers and words may be equal, other things must be the same ones."""
    if isinstance(one, torch.Tensor):
        return equal(one, other)
    if isinstance(one, np.ndarray):
        return bool(one.tobytes() == other.tobytes())  # not-a-number is the same too
    if isinstance(one, set | bytearray | array):
        return bool(one == other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and _equal(list(one.values()), list(other.values()))
    return len(one) == len(other) and all(map(_same, one, other))


def _same(one: Any, other: Any) -> bool:
    return is_(one, other) or (isinstance(one, int | float | str) and one == other)


def equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether tensors are the same, not-a-number too.

    Example:
        >>> equal(torch.tensor([float("nan")]), torch.tensor([float("nan")]))
        True
    """
    if one.shape != other.shape or one.dtype != other.dtype or one.layout != torch.strided:
        return one.shape == other.shape and one.dtype == other.dtype
    if one.is_quantized:  # whose bytes cannot be looked at
        return torch.equal(one, other)
    first, second = (each.detach().resolve_conj().contiguous().reshape(-1).view(torch.uint8) for each in (one, other))
    return torch.equal(first, second)
