"""The user's batches, the same ones whenever they are asked for."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from functools import partial
from itertools import chain, count
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import DataLoader

from precode._internal.errors import PrecodeTypeError, PrecodeValueError, UnsupportedError
from precode._internal.randomness import Purpose, Randomness
from precode.modules.attributes import Contents
from precode.modules.counting import Counting

SCORING = 2**32 - 1
"""The epoch whose batches are scored on: no epoch of training."""

IGNORED = -100
"""The class that `torch.nn.functional.cross_entropy` leaves out of its mean."""

READ_ON = (
    "the data hold an iterator ({}), which cannot be put back: if it goes on from where it was, batches differ each "
    "time that they are read, and so do tickets"
)

NAMED = "make y a dictionary in which those of the loss are named 'labels', or "
"""What to do where the tensors of y count differently."""

Unpack = Callable[[Any], tuple[Any, Any]]
"""From what the data give to the inputs and the labels."""

Weight = Callable[[Any, Any], Any]
"""From the inputs and the labels of a batch to what its mean loss counts among the batches."""


def to_device(value: Any, device: torch.device) -> Any:
    """Tensors and arrays on a device, also within collections and objects that move by a `to` of their own."""
    if isinstance(value, torch.Tensor):
        # Autograd saves no tensor that was made in inference mode.
        return value.to(device, copy=value.is_inference())
    if callable(move := getattr(value, "to", None)) and not isinstance(value, nn.Module):
        return move(device)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return torch.from_numpy(value).to(device)
    return mapped(lambda item: to_device(item, device), value)


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """A collection with a function of each of its items, of mappings a dictionary; anything else as it is."""
    if isinstance(value, Mapping):
        return {key: function(item) for key, item in value.items()}
    if is_named(value):
        return type(value)(*map(function, value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{each.name: function(getattr(value, each.name)) for each in fields(value) if each.init})
    if isinstance(value, list):
        items = copy.copy(value)
        items[:] = map(function, value)
        return items
    return type(value)(map(function, value)) if isinstance(value, tuple) else value


def is_named(value: Any) -> bool:
    """Whether a value is a named tuple, which is one object and not several."""
    return isinstance(value, tuple) and hasattr(value, "_fields")


def of_tensors(
    function: Callable[[torch.Tensor], torch.Tensor], value: Any, opaque: Callable[[Any], Any] = lambda value: value
) -> Any:
    """A collection with a function of each of its tensors, and another of objects that move by a `to` of their own."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, PackedSequence):
        return PackedSequence(function(value.data), *value[1:])
    if callable(getattr(value, "to", None)):
        return opaque(value)
    return mapped(partial(of_tensors, function, opaque=opaque), value)


def owned(*values: Any) -> tuple[Any, ...]:
    """Copies of tensors, also within collections, and of objects that have a `clone`, such as graphs.

    What is one in several places stays one.
    """
    copies: dict[int, Any] = {}

    def own(value: Any) -> Any:
        if id(value) not in copies:
            copies[id(value)] = copied(value)
        return copies[id(value)]

    def copied(value: Any) -> Any:
        if isinstance(value, torch.Tensor):  # whose graph, if any, is the user's, and goes after one training step
            detached = value.detach().clone()
            return detached.requires_grad_() if value.requires_grad else detached
        if callable(getattr(value, "clone", None)):
            return value.clone()
        if isinstance(value, MutableMapping):  # such as tokenizers' encodings
            mapping = copy.copy(value)
            mapping.update({key: of_tensors(own, item, own) for key, item in value.items()})
            return mapping
        return value

    return tuple(of_tensors(own, value, own) for value in values)


def call(module: nn.Module, x: Any) -> Any:
    """What a module makes of a batch: x itself, or the several arguments in a list, a tuple or a mapping.

    The module is given copies of the tensors: it may edit them in place, and they are the user's.
    """
    return called(module, *owned(_arguments(x)))


def called(module: nn.Module, x: Any) -> Any:
    """The same with the tensors themselves, which the module may edit."""
    x = _arguments(x)
    try:
        if isinstance(x, Mapping):
            return module(**x)
        return module(*x) if isinstance(x, list | tuple) and not is_named(x) else module(x)
    except ValueError as error:
        if "more than 1 value per channel" in str(error):
            raise PrecodeValueError(ONE_SAMPLE) from error
        raise
    except TypeError as error:
        if "argument" in str(error) and "forward()" in str(error):
            raise PrecodeTypeError(
                f"the module does not take the inputs as they are given ({error}): a list or a tuple x is several "
                "arguments, and a mapping is named ones; several batches (x, y) go in a list"
            ) from error
        raise


def _arguments(x: Any) -> Any:
    """Mappings that move by a `to` of their own, such as tokenizers' encodings, as plain dictionaries."""
    return dict(x) if isinstance(x, Mapping) else x


def one_tensor(output: Any) -> torch.Tensor:
    """What a module returned, for methods that compute with it.

    Raises:
        UnsupportedError: anything but one tensor.
    """
    if not isinstance(output, torch.Tensor):
        raise UnsupportedError(f"this method needs a module that returns one tensor, not {type(output).__name__}")
    return output


ONE_SAMPLE = (
    "the data have a batch of one sample, of which batch normalization has no statistics in training: leave it out, as "
    "by DataLoader(..., drop_last=True), or put the layer in evaluation mode"
)


class Batches:
    """Batches of (x, y) that can be visited again and again.

    Args:
        data: one pair of tensors, or an iterable of pairs that can be iterated again, such as a DataLoader or a list.
        device: where they are wanted.
        randomness: that they are drawn with: a loader that shuffles gives the batches of an epoch in the same order
            whenever they are asked for.
        visited: called after each batch.
        unpack: makes a pair of what the data give; None where they give pairs.
        weight: what the mean loss of a batch counts; None for the number of its labels.

    Raises:
        PrecodeTypeError: no such data.
        PrecodeValueError: no batch, also in a later epoch.
    """

    def __init__(
        self,
        data: Any,
        device: torch.device,
        randomness: Randomness,
        visited: Callable[[], None],
        unpack: Unpack | None = None,
        weight: Weight | None = None,
    ) -> None:
        if isinstance(data, tuple):
            data = [data]
        if not isinstance(data, Iterable) or isinstance(data, torch.Tensor | str | Mapping):
            raise PrecodeTypeError(
                f"data must be batches of (x, y) or one pair of tensors, not {type(data).__name__}: pass a DataLoader, "
                "a list of pairs, or (x, y)"
            )
        if isinstance(data, Iterator):
            raise PrecodeTypeError(f"data is a {type(data).__name__}, which can be read only once: pass list(data)")
        self._data, self._device, self._visited = _without_standing_workers(data), device, visited
        self._randomness, self._unpack, self._weight = randomness, unpack, weight
        self._proportions: list[int] = []  # labels in each tensor of y, of the first batch that was asked for
        self._counting = Counting(data)
        self._before = {0: self._counting.now()}  # epochs
        self.said = [READ_ON.format(kind) for kind in self._counting.iterators]  # doubts about the data
        self._is_sized, self.steps = hasattr(data, "__len__"), 0  # as long as they are counted
        with self.isolated():
            self.first = next(self.epoch(0), None)
            self.steps = self._count()
        if self.first is None or not self.steps:
            raise PrecodeValueError("data has no batches: pass at least one")
        self._open: tuple[int, Iterator[tuple[Any, Any]], Contents] | None = None

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Within the block, batches are drawn; all random states are as before afterwards, and what the data count."""
        before = self._counting.now()
        try:
            with self._randomness.isolated():
                yield
        finally:
            self._counting.put(before)

    def _count(self) -> int:
        """Batches of an epoch; loaders of a stream have a length that cannot be asked for."""
        try:
            return len(self._data)
        except TypeError:
            self._is_sized = False
            return sum(1 for _ in self.epoch(0))

    def epoch(self, number: int) -> Iterator[tuple[Any, Any]]:
        """The batches of an epoch; before each is drawn, all generators are seeded anew.

        What the data count by themselves, such as epochs, is what it would be after the epochs before; batches to score
        on are those of the first.
        """
        place = 0 if number == SCORING or self._counts_nothing() else number
        while place not in self._before:
            last = max(each for each in self._before if each < place)
            for _ in self._drawn(last, last):
                pass
            place = 0 if self._counts_nothing() else place
        yield from self._drawn(number, place)

    def _counts_nothing(self) -> bool:
        """Whether it is known that an epoch leaves the data as it finds them."""
        return 1 in self._before and not Counting.differ(self._before[0], self._before[1])

    def _drawn(self, number: int, place: int) -> Iterator[tuple[Any, Any]]:
        """The batches of an epoch, from data that have been read so many times."""
        self._counting.put(self._before[place])
        self._randomness.reseed(Purpose.EPOCH, number)
        drawn = iter(self._data)
        for step in count():
            self._randomness.reseed(Purpose.STEP, number, step)
            try:
                given = next(drawn)
            except StopIteration:
                if step < self.steps and (self._is_sized or not step):
                    raise PrecodeValueError(
                        f"data has {self.steps} batches and gave {step} when it was read again: pass what can be read "
                        "as often as wanted, such as list(data), and has the length that it says"
                    ) from None
                self._before.setdefault(place + 1, self._counting.now())
                return
            if self.steps and step == self.steps:
                raise PrecodeValueError(
                    f"data has {self.steps} batches by its length and gives more: pass what has the length that it "
                    "says, such as list(data)"
                )
            # A copy: the function may edit it in place, and it is the user's.
            pair = given if self._unpack is None else self._unpack(*owned(given))
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise PrecodeTypeError(_no_pair(pair, self._unpack is not None))
            yield owned(*(to_device(part, self._device) for part in pair))
            self._visited()

    def step(self, number: int) -> tuple[Any, Any]:
        """The batch of one training step, counted through all epochs; fastest when asked for one after the other."""
        if self._open is None or self._open[0] != number or number % self.steps == 0:
            epoch, skip = divmod(number, self.steps)
            batches = self.epoch(epoch)
            for _ in range(skip):
                next(batches)
        else:
            _, batches, counted = self._open
            self._counting.put(counted)
        batch = next(batches, None)
        if batch is None:
            raise PrecodeValueError(
                f"data has fewer batches than at first, {self.steps}: it must be the same every time"
            )
        self._open = (number + 1, batches, self._counting.now())
        return batch

    def weight(self, x: Any, y: Any) -> float:
        """What the mean loss of a batch counts among the batches.

        By default the number of labels, so that the mean over all data is the same however they are cut into batches;
        labels that `cross_entropy` ignores do not count. Of several tensors it is the one named 'labels', or any if
        they say the same. Where there are no labels it is the number of samples, if the tensors of x agree on it.

        Raises:
            PrecodeTypeError: `weight` does not return a number.
            PrecodeValueError: it returns a negative or infinite one, or the tensors of y, or else of x, say different
            things, or there are none, and several batches.
        """
        if self._weight is None:
            counts, of, remedy = [count_labels(labels) for labels in _labels(x, y)], "y", NAMED
            if not counts:
                counts, of, remedy = [len(each) for each in tensors(x) if each.ndim], "x", ""
            if not counts or (of == "x" and _is_opaque(y)):
                if self.steps > 1:
                    raise PrecodeValueError(
                        f"how much each batch counts is not known, as y is a {type(y).__name__}: pass its labels as y, "
                        "by unpack=, or weight=, such as weight=lambda x, y: y.num_graphs"
                    )
                return 1.0
            first = self._proportions = self._proportions or counts
            if any(a * first[0] != b * counts[0] for a, b in zip(counts, first, strict=False)):
                raise PrecodeValueError(
                    f"the tensors of {of} count {first} in one batch and {counts} in another, so that it is not known "
                    f"what the mean loss counts: {remedy}pass weight=, such as weight=lambda x, y: len(x)"
                )
            return float(counts[0])
        try:
            weight = float(self._weight(*owned(x, y)))
        except (TypeError, ValueError, RuntimeError) as error:
            raise PrecodeTypeError(f"weight must return a number for a batch: {error}") from error
        if not (math.isfinite(weight) and weight >= 0):
            raise PrecodeValueError(f"weight returned {weight}: expected a finite number of at least 0")
        return weight

    def has_single(self) -> bool:
        """Whether some batch of the data is known to have one sample; no batch is drawn to find out."""
        if isinstance(self._data, list) and self._unpack is None:
            return any(samples(pair[0]) == 1 for pair in self._data if isinstance(pair, list | tuple) and pair)
        size, dataset = getattr(self._data, "batch_size", None), getattr(self._data, "dataset", None)
        if not isinstance(size, int) or getattr(self._data, "drop_last", False):
            return False
        try:
            return size == 1 or len(dataset) % size == 1  # type: ignore[arg-type]
        except TypeError:  # a stream, or several
            return False


def _without_standing_workers(data: Any) -> Any:
    """A loader whose workers start anew in each epoch, with its random states; else the data themselves.

    Workers that stand by keep random states of their own, and serve one loop at a time: that of the user would end.
    """
    if not (isinstance(data, DataLoader) and data.persistent_workers):
        return data
    loader = copy.copy(data)
    vars(loader).update(persistent_workers=False, _iterator=None)
    return loader


def _no_pair(given: Any, unpacked: bool) -> str:
    """What is wrong with a batch that is not a pair, and the remedy."""
    if unpacked:
        return f"unpack must return a pair (x, y), not {type(given).__name__}"
    if isinstance(given, Mapping):
        key = next(iter(given), "x")
        return (
            f"data must give pairs (x, y), not {type(given).__name__}: say which entries are inputs and which labels, "
            f"such as unpack=lambda batch: (batch[{key!r}], batch['labels'])"
        )
    if isinstance(given, torch.Tensor):
        return "data must give pairs (x, y), not tensors: pass one pair as a tuple (x, y), or make pairs by unpack="
    if isinstance(given, tuple | list):
        return (
            f"data must give pairs (x, y), not {len(given)} items: say which are inputs and which labels, such as "
            "unpack=lambda batch: (batch[0], batch[1])"
        )
    return f"data must give pairs (x, y), not {type(given).__name__}: make them by unpack="


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in a value."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, PackedSequence):
        yield value.data  # the others say where its parts belong
    elif isinstance(value, Mapping):
        yield from chain.from_iterable(map(tensors, value.values()))
    elif isinstance(value, list | tuple):
        yield from chain.from_iterable(map(tensors, value))
    elif is_dataclass(value) and not isinstance(value, type):
        yield from chain.from_iterable(tensors(getattr(value, field.name)) for field in fields(value))


def _labels(x: Any, y: Any) -> list[torch.Tensor]:
    """The tensors of a batch that may be the labels of the loss: those of y, or the named ones of x if y is None."""
    batch = x if y is None and isinstance(x, Mapping) and "labels" in x else y
    named = batch.get("labels") if isinstance(batch, Mapping) else None
    return list(tensors(batch if named is None else named))


def _is_opaque(value: Any) -> bool:
    """Whether a value is an object that moves by a `to` of its own, whose tensors are not known."""
    return callable(getattr(value, "to", None)) and not isinstance(value, Mapping | torch.Tensor | PackedSequence)


def count_labels(labels: torch.Tensor) -> int:
    """How many labels count in a mean loss."""
    return int((labels != IGNORED).sum()) if labels.dtype == torch.int64 else labels.numel()


def samples(x: Any) -> int:
    """Number of samples of a batch, by the first tensor in it."""
    first = next(tensors(x), None)
    return len(first) if first is not None and first.ndim else 1


def one_sample(value: Any, samples: int, place: int, copies: int) -> Any:
    """A batch that has one sample of a batch, so many times; tensors of other lengths as they are.

    Raises:
        UnsupportedError: an object whose samples are not known.
    """
    if isinstance(value, torch.Tensor):
        return value[[place] * copies] if value.ndim and len(value) == samples else value
    if isinstance(value, PackedSequence) or _is_opaque(value):
        raise UnsupportedError(
            f"this method takes samples one by one, and those of a {type(value).__name__} are not known"
        )
    return mapped(partial(one_sample, samples=samples, place=place, copies=copies), value)
