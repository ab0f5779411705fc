"""Large tensors some entries at a time, so that what is computed of them takes no memory of their size."""

from __future__ import annotations

from collections.abc import Iterator

import torch

PART = 2**20
"""Entries at a time."""


def parts(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """The same entries of tensors of one shape, in flat order.

    Example:
        >>> [(len(a), len(b)) for a, b in parts(torch.ones(2, 3), torch.zeros(2, 3))]
        [(6, 6)]
    """
    return zip(*(torch.split(tensor.detach().reshape(-1), PART) for tensor in tensors), strict=True)


def exact(tensor: torch.Tensor) -> torch.Tensor:
    """In float64, on the CPU where the device has none (MPS).

    Example:
        >>> exact(torch.ones(2)).dtype
        torch.float64
    """
    return tensor.to("cpu" if tensor.device.type == "mps" else tensor.device, torch.float64)


def all_finite(tensor: torch.Tensor) -> bool:
    """Whether all entries are finite."""
    return all(bool(torch.isfinite(part).all()) for (part,) in parts(tensor))
