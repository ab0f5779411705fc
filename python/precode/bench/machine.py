"""What the figures were measured on."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from precode import _precode
from precode.bench.contest import Entry

PRODUCT = 2048
"""Side of the matrices whose product measures the peak."""
PACKAGES = ("precode", "torch", "numpy", "pandas", "jax", "jaxlib", "numkong", "scipy", "torchvision", "transformers")


def version(package: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cores() -> int:
    """Cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    names = {key.strip(): value.strip() for key, value in fields.items()}
    if "model name" not in names:
        return platform.processor() or platform.machine()
    numbers = ", ".join(f"{key} {names[key]}" for key in ("cpu family", "model", "stepping") if key in names)
    return f"{names['model name']} ({numbers})"


def busy_cores() -> float | None:
    """Mean number of processes that wanted to run in the last minute, or None where nobody counts."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def rayon_threads() -> int:
    """Threads of the fused engine and of the all-pairs distances."""
    asked = os.environ.get("RAYON_NUM_THREADS", "")
    return int(asked) if asked.isdecimal() and int(asked) else cores()


def environment() -> dict[str, Any]:
    """Versions, CPU, cores and threads, as JSON takes them."""
    return {
        "cpu": processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cores": cores(),
        "threads": {"rayon": rayon_threads(), "torch": torch.get_num_threads()},
        "torch_level": torch.backends.cpu.get_cpu_capability().lower(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch_compiled_against": _precode.TORCH_VERSION,
        "versions": {package: found for package in PACKAGES if (found := version(package))},
        "load_at_start": busy_cores(),
    }


def wait(device: torch.device) -> None:
    """Waits until a device has done what it was told; the CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def sgemm(device: torch.device) -> list[Entry]:
    """A product of two float32 matrices: the practical peak of fused multiply-adds of a device.

    On the CPU by torch and by NumPy: which of their libraries is faster depends on the CPU.
    """
    size = PRODUCT
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(size, size, generator=generator).to(device) for _ in range(2))
    out = torch.empty(size, size, device=device)
    amount = 2.0 * size**3
    if device.type != "cpu":

        def product() -> None:
            torch.mm(a, b, out=out)
            wait(device)

        return [Entry(product, amount)]
    arrays = a.numpy(), b.numpy(), out.numpy().copy()
    return [
        Entry(lambda: torch.mm(a, b, out=out), amount),
        Entry(lambda: np.matmul(arrays[0], arrays[1], out=arrays[2]), amount),
    ]


def growth(device: torch.device) -> Callable[[], int | None]:
    """Starts to count memory; what it returns says how much more was taken since at most, bytes.

    On the CPU it is of the whole process, and None where nobody counts it (off Linux); on a CUDA device, of what torch
    allocates there.

    Example:
        >>> grown = growth(torch.device("cpu"))
        >>> (grown() or 0) >= 0
        True
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        allocated = torch.cuda.memory_allocated(device)
        return lambda: torch.cuda.max_memory_allocated(device) - allocated
    _return_memory()
    before = _resident("VmRSS")
    counts = before is not None and _forget_peak()

    def grown() -> int | None:
        most = _resident("VmHWM") if counts else None
        return None if before is None or most is None else max(most - before, 0)

    return grown


def _resident(field: str) -> int | None:
    """Bytes of this process: ``"VmRSS"`` now, or ``"VmHWM"`` at most since `_forget_peak`; None off Linux."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return 1024 * int(found[0]) if found else None


def _return_memory() -> None:
    """Gives memory that was freed back to the system, where the C library can."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return


def _forget_peak() -> bool:
    """Starts the count of ``VmHWM`` anew; False where the system cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return False
    return True
