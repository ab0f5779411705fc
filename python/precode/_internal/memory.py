"""Refuses work that does not fit into memory, before it starts, and gives back what work leaves."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from precode._internal.errors import UnsupportedError

SHARE = 0.9
"""Part of the free memory that one piece of work may take."""

THREADS = 16 * 2**20
"""Address space that a thread takes beside its work: its stack, and what the allocator sets aside for it."""

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of ``mallopt`` (malloc.h of glibc)."""

RETURNED = 2**18
"""Least size of what goes back to the system at once within `returned`, bytes."""

MOST_KEPT = 32 * 2**20
"""Size up to which glibc comes to keep what is freed in a process that works with large tensors, bytes; of what is free
at the end of the heap it keeps twice as much."""

MEMBERSHIP = Path("/proc/self/cgroup")
"""The control groups that this process is in (Linux)."""

CONTROL_GROUPS = Path("/sys/fs/cgroup")
"""Where control groups are mounted (Linux)."""


def free(device: torch.device | None = None) -> tuple[int, str]:
    """Bytes that this process may still take, and what sets this limit.

    The least of what the machine has, what the control groups (of a container, a batch system, a service) allow, and
    what ``ulimit -v`` and ``ulimit -d`` allow. On a CUDA device, the least of what is free there, with what torch holds
    and does not use, and what `torch.cuda.set_per_process_memory_fraction` allows.

    Args:
        device: where; None for the memory of the CPU, as on devices that do not say what is free.

    Example:
        >>> bytes_, limit = free()
        >>> bytes_ > 0, isinstance(limit, str)
        (True, True)
    """
    if device is not None and device.type == "cuda":
        rooms = [*_on_cuda(device)]
    else:
        rooms = [(psutil.virtual_memory().available, "are free"), *control_groups(), *_resource_limits()]
    room, limit = min(rooms)
    return max(room, 0), limit


def _on_cuda(device: torch.device) -> Iterator[tuple[int, str]]:
    there, everything = torch.cuda.mem_get_info(device)
    allocated = torch.cuda.memory_allocated(device)
    yield there + torch.cuda.memory_reserved(device) - allocated, f"are free on {device}"
    allowed = torch.cuda.get_per_process_memory_fraction(device)
    yield int(allowed * everything) - allocated, f"are left on {device} by torch.cuda.set_per_process_memory_fraction"


def control_groups(membership: Path = MEMBERSHIP, mount: Path = CONTROL_GROUPS) -> Iterator[tuple[int, str]]:
    """What the control groups of versions 1 and 2 that this process is in leave, by group, as `free`.

    Args:
        membership: the file that says in which groups the process is.
        mount: where the groups are.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            base, names = mount, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base, names = mount / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # A limit of a group holds for all groups in it. A container may see its own group as the root.
        group = base / path.lstrip("/")
        for place in (group, *group.parents):
            if place == base or base in place.parents:
                room = _room(place, *names)
                if room is not None:
                    yield room, "are left by the limit of the control group"


def _room(group: Path, limit: str, usage: str, reclaimable: str) -> int | None:
    """What a group leaves; files that it keeps only to read them faster can be given up."""
    try:
        allowed = (group / limit).read_text().strip()
        if allowed == "max":
            return None
        used = int((group / usage).read_text())
        statistics = dict(line.split(maxsplit=1) for line in (group / "memory.stat").read_text().splitlines())
        return int(allowed) - used + min(int(statistics.get(reclaimable, 0)), used)
    except (OSError, ValueError):
        return None


def _resource_limits() -> Iterator[tuple[int, str]]:
    try:
        import resource
    except ImportError:  # Windows
        return
    used = psutil.Process().memory_info()
    for name, taken, option in (("RLIMIT_AS", used.vms, "v"), ("RLIMIT_DATA", getattr(used, "data", 0), "d")):
        soft = resource.getrlimit(getattr(resource, name))[0]
        if soft != resource.RLIM_INFINITY:
            threads = THREADS * (os.cpu_count() or 1)
            yield soft - taken - threads, f"are left by the limit {name} (ulimit -{option})"


def check(needed: int, what: str, remedy: str, device: torch.device | None = None) -> None:
    """Compares an estimate with the memory that is free.

    Args:
        needed: estimated peak, bytes.
        what: the work, for the message.
        remedy: what to do instead, for the message.
        device: where it is needed, as in `free`.

    Raises:
        UnsupportedError: it does not fit.
    """
    if needed < 2**20:
        return
    room, limit = free(device)
    room = int(room * SHARE)
    if needed > room:
        raise UnsupportedError(
            f"{what} needs about {needed / 2**30:.2f} GiB of memory, but {room / 2**30:.2f} GiB can be used "
            f"({SHARE:.0%} of those that {limit}): {remedy}"
        )


def can_return() -> bool:
    """Whether `returned` does something: not where the user has tuned malloc, or it is not glibc's."""
    named = {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"} & set(os.environ)
    return not named and "malloc" not in os.environ.get("GLIBC_TUNABLES", "") and platform.libc_ver()[0] == "glibc"


@contextmanager
def returned() -> Iterator[None]:
    """Within the block, large memory that is freed goes back to the system at once, where it can (`can_return`).

    glibc keeps freed tensors of up to 32 MiB, so that a search in many layers would take twice the memory of one in a
    single layer. Afterwards it keeps what it would have come to keep. What is smaller goes back by `trim`.

    Example:
        >>> with returned():
        ...     trim()
    """
    if not can_return():
        yield
        return
    library = ctypes.CDLL(None)
    library.mallopt(MMAP_THRESHOLD, RETURNED)
    _trims.append(library.malloc_trim)
    try:
        yield
    finally:
        _trims.pop()
        library.mallopt(MMAP_THRESHOLD, MOST_KEPT)
        library.mallopt(TRIM_THRESHOLD, 2 * MOST_KEPT)


_trims: list[Callable[[int], int]] = []
"""How `trim` does it, once for each block of `returned`."""


def trim() -> None:
    """Gives small memory that is free back to the system, within a block of `returned`; else it does nothing.

    It takes milliseconds, but memory that is new takes time as well: for the ends of passes over the data, not of
    batches.

    Example:
        >>> trim()
    """
    if _trims:
        _trims[-1](0)
