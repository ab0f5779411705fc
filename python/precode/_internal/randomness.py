"""Randomness that leaves no trace in what the user draws from."""

from __future__ import annotations

import os
import random
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import chain
from types import CellType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch

DEPTH = 6
"""How far generators are looked for within an object: a loader's sampler's generator is at depth 2."""

GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)

ITEMS = 64
"""Items of a list or dictionary that are looked into: a list of samples holds no generators."""

_turn = threading.RLock()
"""Global random states are those of all threads: one at a time has them to itself."""


def _renewed() -> None:
    """A child made by `fork` does not have the threads of its parent, and waits for none of them."""
    global _turn
    _turn = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renewed)


@contextmanager
def isolated(device: torch.device, generators: Sequence[Any] = ()) -> Iterator[None]:
    """Gives the global random states of torch, of the device, of NumPy and of Python back, and those of generators.

    Other threads that want the same wait; those that draw random numbers by themselves do not.
    """
    with _turn:
        python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - what user code may draw from
        devices = [] if device.type == "cpu" else [device]
        states = [state(generator) for generator in generators]
        try:
            with torch.random.fork_rng(devices=devices, device_type="cuda" if device.type == "cpu" else device.type):
                yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
            for generator, before in zip(generators, states, strict=True):
                _restore(generator, before)


def reseed(device: torch.device, *key: int) -> None:
    """Seeds all global generators from numbers; only within `isolated`."""
    seed = _seed(key)
    # Not torch.manual_seed, which would also seed devices that are not in use.
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        kind = torch.get_device_module(device.type)
        # There is one device of Apple's Metal, and no way to choose it.
        with kind.device(device) if hasattr(kind, "device") else nullcontext():
            kind.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002


def reseed_generator(generator: Any, *key: int) -> None:
    """Seeds a generator of the user's own from numbers; only within `isolated`."""
    seed = _seed(key)
    if isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = type(generator.bit_generator)(seed).state
    else:
        generator.seed(seed % 2**32)


def generators_in(*objects: Any) -> list[Any]:
    """The generators of torch, NumPy and Python that objects hold, such as those of a loader, its sampler and data set.

    Example:
        >>> loader = torch.utils.data.DataLoader([1, 2], shuffle=True, generator=torch.Generator())
        >>> len(generators_in(loader))
        1
    """
    held = list(held_by(objects))
    kinds = dict.fromkeys(map(type, held))
    found = [each for each in held if isinstance(each, GENERATORS)] + list(chain.from_iterable(map(_of_class, kinds)))
    return list({id(each): each for each in found}.values())


def held_by(objects: Sequence[Any]) -> Iterator[Any]:
    """Objects and what they hold, each once; what is large is not looked into."""
    seen: set[int] = set()
    waiting = [(each, 0) for each in reversed(objects)]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEPTH or id(value) in seen or isinstance(value, torch.Tensor | np.ndarray | str | bytes | type):
            continue
        seen.add(id(value))
        yield value
        if not isinstance(value, GENERATORS):
            waiting += [(each, depth + 1) for each in reversed(_inner(value))]


def _inner(value: Any) -> list[Any]:
    """What an object, a collection or a function holds."""
    if isinstance(value, dict | list | tuple):
        return list(value.values() if isinstance(value, dict) else value) if len(value) <= ITEMS else []
    held = list(getattr(value, "__dict__", {}).values())
    if isinstance(value, partial):
        held += [value.func, value.args, value.keywords]
    if isinstance(value, FunctionType):
        held += [cell.cell_contents for cell in value.__closure__ or () if cell != CellType()] + _global(value)
    return held + ([value.__self__] if isinstance(value, MethodType) else [])


def _of_class(kind: type) -> list[Any]:
    """The generators that the methods of a class use by a global name."""
    own = [each for each in kind.__mro__ if each.__module__.partition(".")[0] not in ("builtins", "torch")]
    methods = [method for each in own for method in vars(each).values() if isinstance(method, FunctionType)]
    return list(chain.from_iterable(map(_global, methods)))


def _global(function: FunctionType) -> list[Any]:
    """The generators that a function uses by a global name."""
    used = [function.__globals__.get(name) for name in function.__code__.co_names]
    return [value for value in used if isinstance(value, GENERATORS)]


def state(generator: Any) -> Any:
    """The state of a generator, which no later draw changes."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.get_state() if isinstance(generator, np.random.RandomState) else generator.getstate()


def fingerprint(generator: Any) -> int:
    """A number of the state of a generator, by which those of different seeds differ."""
    now = state(generator)
    return zlib.crc32(bytes(now.tolist()) if isinstance(now, torch.Tensor) else repr(now).encode())


def _restore(generator: Any, before: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(before)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = before
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(before)
    else:
        generator.setstate(before)


def _seed(key: Sequence[int]) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
