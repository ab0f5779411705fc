"""Randomness that leaves no trace in what the user draws from."""

from __future__ import annotations

import os
import random
import sys
import sysconfig
import threading
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from enum import IntEnum
from functools import partial
from itertools import chain
from types import CellType, CodeType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

DEPTH = 10
"""How far generators are looked for within an object: a loader's sampler's generator is at depth 2."""

GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)

STATEFUL = (*GENERATORS, nn.Module, DataLoader, Dataset, Sampler)
"""What a function may use by a global name that has, or may hold, a state of its own."""

WITHOUT = (torch.Tensor, np.ndarray, str, bytes, type, ModuleType, random.SystemRandom)
"""What holds no generator that has a state."""

LIBRARIES = ("torch", "numpy", "torchvision", "torchaudio", "transformers", "timm", "lightning", "precode")
"""Packages that are not looked into, beside those of Python and all in its folders for packages."""

SETTINGS = (SimpleNamespace, dict)
"""What settings that functions share are kept in."""

ITEMS = 64
"""Items up to which a list or dictionary is looked into: a list of samples holds no generators."""

INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
"""Folders of libraries."""

_turn = threading.RLock()
"""Global random states are those of all threads: one at a time has them to itself."""


def _renewed() -> None:
    """A child made by `fork` does not have the threads of its parent, and waits for none of them."""
    global _turn
    _turn = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renewed)


class Purpose(IntEnum):
    """What random numbers are for: those for one purpose are not those for another, whatever the rest of the key."""

    MODEL = 1
    SCORES = 2
    TRAINING = 3
    EPOCH = 4
    STEP = 5
    CHECK = 6
    REINITIALIZATION = 7


class Randomness:
    """What a search draws with: the global generators, those of devices, and those that the user's objects hold.

    Args:
        devices: where random numbers may be drawn, beside the CPU.
        seed: key of all.
        objects: whose generators are keyed and given back too, such as data and a loss.

    Example:
        >>> randomness = Randomness([torch.device("cpu")], 0, [])
        >>> with randomness.isolated():
        ...     randomness.reseed(Purpose.EPOCH, 1)
        ...     first = torch.rand(1)
        ...     randomness.reseed(Purpose.EPOCH, 1)
        ...     torch.equal(first, torch.rand(1))
        True
    """

    def __init__(self, devices: Iterable[torch.device], seed: int, objects: Sequence[Any]) -> None:
        self._devices = list(dict.fromkeys(devices))
        self._seed = seed
        self._own = [(generator, fingerprint(generator)) for generator in generators_in(*objects)]

    def isolated(self) -> AbstractContextManager[None]:
        """Within the block anything may be drawn and seeded; all random states are as before afterwards."""
        return isolated(self._devices, [generator for generator, _ in self._own])

    def reseed(self, purpose: Purpose, *key: int) -> None:
        """Seeds all of them by a purpose and numbers; only within `isolated`."""
        reseed(self._devices, purpose, self._seed, *key)
        for number, (generator, own) in enumerate(self._own):
            reseed_generator(generator, purpose, self._seed, number, own, *key)


@contextmanager
def isolated(devices: Sequence[torch.device], generators: Sequence[Any] = ()) -> Iterator[None]:
    """Gives the global random states of torch, of devices, of NumPy and of Python back, and those of generators.

    Other threads that want the same wait; those that draw random numbers by themselves do not.
    """
    with _turn:
        python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - what user code may draw from
        states = [state(generator) for generator in generators]
        others: dict[str, list[torch.device]] = {"cuda": []}  # fork_rng gives the CPU's back in any case
        for device in devices:
            if device.type != "cpu":
                others.setdefault(device.type, []).append(device)
        try:
            with ExitStack() as stack:
                for kind, each in others.items():
                    stack.enter_context(torch.random.fork_rng(devices=each, device_type=kind))
                yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
            for generator, before in zip(generators, states, strict=True):
                restore(generator, before)


def reseed(devices: Iterable[torch.device], purpose: Purpose, *key: int) -> None:
    """Seeds all global generators by a purpose and numbers; only within `isolated`."""
    seed = _seed((purpose, *key))
    # Not torch.manual_seed, which would also seed devices that are not in use.
    torch.default_generator.manual_seed(seed)
    for device in devices:
        if device.type == "cpu":
            continue
        kind = torch.get_device_module(device.type)
        # There is one device of Apple's Metal, and no way to choose it.
        with kind.device(device) if hasattr(kind, "device") else nullcontext():
            kind.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002


def reseed_generator(generator: Any, purpose: Purpose, *key: int) -> None:
    """Seeds a generator of the user's own by a purpose and numbers; only within `isolated`."""
    seed = _seed((purpose, *key))
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
    found = [*held, *held_by(list(chain.from_iterable(map(_of_class, kinds))))]
    return list({id(each): each for each in found if isinstance(each, GENERATORS)}.values())


def held_by(objects: Sequence[Any]) -> Iterator[Any]:
    """Objects and what they hold, each once; what is large is not looked into."""
    seen: set[int] = set()
    waiting = [(each, 0) for each in reversed(objects)]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEPTH or id(value) in seen:
            continue
        seen.add(id(value))
        try:  # objects may refuse to be looked at, as proxies do that stand for nothing yet
            if isinstance(value, WITHOUT):
                continue
            held = [] if isinstance(value, GENERATORS) else _inner(value)
        except Exception:
            continue
        yield value
        waiting += [(each, depth + 1) for each in reversed(held)]


def _inner(value: Any) -> list[Any]:
    """What an object, a collection or a function holds."""
    if isinstance(value, dict | list | tuple | deque):
        return list(value.values() if isinstance(value, dict) else value) if len(value) <= ITEMS else []
    held = list(attributes(value).values())
    if isinstance(value, partial):
        held += [value.func, value.args, value.keywords]
    if isinstance(value, FunctionType):
        held += [cell.cell_contents for cell in value.__closure__ or () if cell != CellType()] + _global(value)
        held += [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    return held + ([value.__self__] if isinstance(value, MethodType) else [])


def attributes(value: Any) -> dict[str, Any]:
    """The attributes of an object, those in slots too.

    Example:
        >>> class Slots:
        ...     __slots__ = ("epoch",)
        >>> slots = Slots()
        >>> slots.epoch = 1
        >>> attributes(slots)
        {'epoch': 1}
    """
    names = chain.from_iterable(
        [each] if isinstance(each := vars(kind).get("__slots__", ()), str) else each for kind in type(value).__mro__
    )
    slots = {}
    for name in names:
        try:
            slots[name] = object.__getattribute__(value, name)
        except AttributeError:  # not set, or of a private name
            continue
    slots.pop("__dict__", None)
    slots.pop("__weakref__", None)
    return slots | getattr(value, "__dict__", {})


def _of_class(kind: type) -> list[Any]:
    """The generators that a class has as attributes, and what its methods use by a global name."""
    own = [each for each in kind.__mro__ if each.__module__.partition(".")[0] not in ("builtins", "torch")]
    held = list(chain.from_iterable(vars(each).values() for each in own))
    used = chain.from_iterable(_global(each) for each in held if isinstance(each, FunctionType))
    return [each for each in held if isinstance(each, GENERATORS)] + list(used)


def _global(function: FunctionType) -> list[Any]:
    """What a function uses by a global name that has a state, and functions of the user's own, also of other files."""
    names = list(chain.from_iterable(code.co_names for code in _codes(function.__code__)))
    used = [function.__globals__.get(name) for name in names]
    for owner in [each for each in used if isinstance(each, ModuleType | type) and _is_own(each)]:
        used += [vars(owner).get(name) for name in names]
    return [
        value
        for value in used
        if isinstance(value, (*STATEFUL, *SETTINGS)) or (isinstance(value, FunctionType) and _is_own(value))
    ]


def _is_own(value: Any) -> bool:
    """Whether a function, a class or a Python module is of the user, and not of a library."""
    name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None) or ""
    package = name.partition(".")[0]
    if package in sys.stdlib_module_names - {"__main__"} or package in LIBRARIES:
        return False
    file = getattr(sys.modules.get(name), "__file__", None) or ""
    return not file.startswith(INSTALLED)


def _codes(code: CodeType) -> Iterator[CodeType]:
    """The code of a function and of the functions within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


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


def restore(generator: Any, before: Any) -> None:
    """Gives a generator a state that it had."""
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
