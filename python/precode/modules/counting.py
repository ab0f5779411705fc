"""What data count by themselves, such as the epoch of a sampler, so that they can be read from the same place again."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from copy import copy
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from precode._internal.randomness import GENERATORS, held_by
from precode.modules.copies import equal

State = list[Any]
"""A copy of the content of each object."""

COLLECTIONS = (list, dict, set, deque, bytearray, array)
TENSORS = (torch.Tensor, np.ndarray)

DEPTH = 4
"""How far states are looked for: a sampler's attribute is at depth 1."""

LARGE = 64
"""Items from which a collection is not looked into."""

MOST = 2**20
"""Entries up to which a collection or a tensor is a state; larger ones are samples."""


class Counting:
    """The attributes of the samplers and streams in some data, and of the data, unless they are lists or plain loaders.

    Also those of what these hold, but for data sets that are asked for a sample by its place, which may keep what they
    have read. Iterators within them cannot be put back.

    Example:
        >>> class Epochs(Sampler):
        ...     epoch = 0
        ...     def __iter__(self):
        ...         self.epoch += 1
        ...         return iter(range(self.epoch))
        >>> sampler = Epochs()
        >>> counting = Counting(DataLoader([1.0, 2.0, 3.0], sampler=sampler))
        >>> before = counting.now()
        >>> list(sampler), list(sampler)
        ([0], [0, 1])
        >>> counting.put(before)
        >>> list(sampler)
        [0]
    """

    def __init__(self, data: Any) -> None:
        own = [] if isinstance(data, Sequence) or type(data) is DataLoader else [data]
        self._roots = [*own, *(each for each in held_by([data]) if isinstance(each, Sampler | IterableDataset))]
        self._objects = list(_changing(self._roots))

    @property
    def iterators(self) -> list[str]:
        """The kinds of the iterators that they hold, which cannot be put back."""
        held = [value for each in self._objects if not isinstance(each, DataLoader) for value in _inner(each)]
        return sorted({type(value).__name__ for value in held if isinstance(value, Iterator)})

    def now(self) -> State:
        """What they have now."""
        return [_content(each) for each in self._objects]

    def put(self, state: State) -> None:
        """Gives them what they had, and nothing else."""
        for each, content in zip(self._objects, state, strict=True):
            _put(each, content)

    @staticmethod
    def differ(one: State, other: State) -> bool:
        """Whether anything was counted between two states."""
        return not all(map(_equal, one, other))


def _changing(roots: list[Any]) -> Iterator[Any]:
    """Objects that have a content, from some on, each once."""
    seen: set[int] = set()
    waiting = [(each, 0) for each in roots]
    while waiting:
        value, depth = waiting.pop()
        by_place = isinstance(value, Dataset) and not isinstance(value, IterableDataset)
        if depth > DEPTH or id(value) in seen or by_place or isinstance(value, (type, nn.Module, *GENERATORS)):
            continue
        seen.add(id(value))
        if _has_content(value) and (not callable(value) or depth == 0):
            yield value
            waiting += [(each, depth + 1) for each in _inner(value)]


def _has_content(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.numel() <= MOST
    if isinstance(value, np.ndarray):
        return value.size <= MOST
    return len(value) <= MOST if isinstance(value, COLLECTIONS) else isinstance(getattr(value, "__dict__", None), dict)


def _inner(value: Any) -> list[Any]:
    """What an object or a collection holds that may change; not what is in large ones, such as samples."""
    if isinstance(value, dict):
        return list(value.values()) if len(value) <= LARGE else []
    if isinstance(value, list | set | deque):
        return list(value) if len(value) <= LARGE else []
    return [] if isinstance(value, (*COLLECTIONS, *TENSORS)) else list(vars(value).values())


def _content(value: Any) -> Any:
    """A copy of what an object holds."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    return copy(value) if isinstance(value, COLLECTIONS) else dict(vars(value))


def _put(value: Any, content: Any) -> None:
    if _equal(_content(value), content):
        return
    if isinstance(value, TENSORS):
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
        held = vars(value)
        held.update(content)
        for name in held.keys() - content.keys():
            del held[name]


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
