"""What data count by themselves, such as the epoch of a sampler, so that they can be read from the same place again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn
from torch.utils.data import DataLoader, IterableDataset, Sampler

from precode._internal.randomness import GENERATORS, held_by
from precode.modules.attributes import Holders, has_content, inner

DEPTH = 4
"""How far states are looked for: a sampler's attribute is at depth 1."""


class Counting(Holders):
    """The attributes of the samplers and streams in some data, and of the data, unless they are lists or plain loaders.

    Also those of what these hold, and of a loader's function that makes batches. Of data sets that are asked for a
    sample by its place, which may keep what they have read, it is numbers and words alone. Iterators within them cannot
    be put back.

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
        held = list(held_by([data]))
        own += [each for each in held if isinstance(each, Sampler | IterableDataset)]
        loaders = [each for each in held if isinstance(each, DataLoader)]
        # Whatever gives places is a sampler, and whatever makes a batch may count them.
        own += [part for each in loaders for part in (each.dataset, each.sampler, each.batch_sampler, each.collate_fn)]
        super().__init__(_changing(own))

    @property
    def iterators(self) -> list[str]:
        """The kinds of the iterators that they hold, which cannot be put back."""
        held = [value for each in self.objects if not isinstance(each, DataLoader) for value in inner(each)]
        return sorted({type(value).__name__ for value in held if isinstance(value, Iterator)})


def _changing(roots: list[Any]) -> Iterator[Any]:
    """Objects that have a content, from some on, each once."""
    seen: set[int] = set()
    waiting = [(each, 0) for each in roots]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEPTH or id(value) in seen or isinstance(value, (type, nn.Module, *GENERATORS)):
            continue
        seen.add(id(value))
        if has_content(value) and (not callable(value) or depth == 0):
            yield value
            waiting += [(each, depth + 1) for each in inner(value)]
