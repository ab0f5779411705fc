"""The user's batches, the same ones whenever they are asked for, and randomness that leaves no trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any

import torch

from precode._internal.errors import PrecodeTypeError, PrecodeValueError
from precode._internal.randomness import isolated, reseed

SCORING = 2**32 - 1
"""The epoch whose batches are scored on: no epoch of training."""


def to_device(value: Any, device: torch.device) -> Any:
    """Tensors on a device, also within tuples, lists and dictionaries."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_device(item, device) for item in value]
    return value


class Batches:
    """Batches of (x, y) that can be visited again and again.

    Args:
        data: one pair of tensors, or an iterable of pairs that can be iterated again, such as a DataLoader or a list.
        device: where they are wanted.
        seed: key of the random states in which they are drawn: a loader that shuffles gives the batches of an epoch in
            the same order whenever they are asked for.
        visited: called after each batch.

    Raises:
        PrecodeTypeError: no such data.
        PrecodeValueError: no batch.
    """

    def __init__(self, data: Any, device: torch.device, seed: int, visited: Callable[[], None]) -> None:
        if isinstance(data, tuple):
            data = [data]
        if not isinstance(data, Iterable) or isinstance(data, torch.Tensor | str | dict):
            raise PrecodeTypeError(
                f"data must be batches of (x, y) or one pair of tensors, not {type(data).__name__}: pass a DataLoader, "
                "a list of pairs, or (x, y)"
            )
        if isinstance(data, Iterator):
            raise PrecodeTypeError(f"data is a {type(data).__name__}, which can be read only once: pass list(data)")
        self._data, self._device, self._seed, self._visited = data, device, seed, visited
        with isolated(device):
            self.first = next(self.epoch(0), None)
            self.steps = self._count()
        if self.first is None or not self.steps:
            raise PrecodeValueError("data has no batches: pass at least one")
        self._open: tuple[int, Iterator[tuple[Any, Any]]] | None = None

    def _count(self) -> int:
        """Batches of an epoch; loaders of a stream have a length that cannot be asked for."""
        try:
            return len(self._data)  # type: ignore[arg-type]
        except TypeError:
            return sum(1 for _ in self.epoch(0))

    def epoch(self, number: int) -> Iterator[tuple[Any, Any]]:
        """The batches of an epoch; before each is drawn, all generators are seeded anew."""
        reseed(self._device, self._seed, number)
        drawn = iter(self._data)
        for step in count():
            reseed(self._device, self._seed, number, step)
            try:
                pair = next(drawn)
            except StopIteration:
                return
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise PrecodeTypeError(f"data must give pairs (x, y), not {type(pair).__name__}")
            x, y = to_device(list(pair), self._device)
            yield x, y
            self._visited()

    def step(self, number: int) -> tuple[Any, Any]:
        """The batch of one training step, counted through all epochs; fastest when asked for one after the other."""
        if self._open is None or self._open[0] != number or number % self.steps == 0:
            epoch, skip = divmod(number, self.steps)
            batches = self.epoch(epoch)
            for _ in range(skip):
                next(batches)
        else:
            batches = self._open[1]
        batch = next(batches, None)
        if batch is None:
            raise PrecodeValueError(
                f"data has fewer batches than at first, {self.steps}: it must be the same every time"
            )
        self._open = (number + 1, batches)
        return batch


def samples(x: Any) -> int:
    """Number of samples of a batch, by the first tensor in it."""
    while not isinstance(x, torch.Tensor):
        if not isinstance(x, dict | list | tuple) or not x:
            return 1
        x = next(iter(x.values() if isinstance(x, dict) else x))
    return len(x) if x.ndim else 1
