"""What data count by themselves, such as the epoch of a sampler, so that they can be read from the same place again."""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, Sampler

from precode._internal.randomness import held_by

State = list[dict[str, tuple[Any, Any]]]
"""The attributes of each object, with copies of those that may be edited in place."""


class Counting:
    """The attributes of the samplers and streams in some data, and of the data, unless they are lists or plain loaders.

    Not those of data sets that are asked for a sample by its place, which may hold what they have read.

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
        inner = [each for each in held_by([data]) if isinstance(each, Sampler | IterableDataset)]
        found = {id(each): each for each in [*own, *inner] if isinstance(getattr(each, "__dict__", None), dict)}
        self._objects = list(found.values())

    def now(self) -> State:
        """What they have now."""
        return [{name: (value, _copy(value)) for name, value in vars(each).items()} for each in self._objects]

    def put(self, state: State) -> None:
        """Gives them what they had, and nothing else."""
        for each, held in zip(self._objects, state, strict=True):
            for value, content in held.values():
                if content is not None:
                    value[... if isinstance(value, np.ndarray | torch.Tensor) else slice(None)] = content
            vars(each).clear()
            vars(each).update({name: value for name, (value, _) in held.items()})

    @staticmethod
    def differ(one: State, other: State) -> bool:
        """Whether anything was counted between two states."""
        return any(
            held.keys() != later.keys() or not all(_equal(held[name], later[name]) for name in held)
            for held, later in zip(one, other, strict=True)
        )


def _copy(value: Any) -> Any:
    """A copy of what may be edited in place; None of anything else."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    return value.copy() if isinstance(value, list | np.ndarray) else None


def _equal(one: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    (value, content), (later, rest) = one, other
    same = value is later or (isinstance(value, int | float | str) and value == later)
    if not same or content is None:
        return same
    if isinstance(content, list):
        return len(content) == len(rest) and all(map(is_, content, rest))
    return torch.equal(content, rest) if isinstance(content, torch.Tensor) else np.array_equal(content, rest)
