"""Randomness that leaves no trace in what the user draws from."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def isolated(device: torch.device) -> Iterator[None]:
    """Gives the global random states of torch, of the device, of NumPy and of Python back as they were."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - what user code may draw from
    devices = [] if device.type == "cpu" else [device]
    try:
        with torch.random.fork_rng(devices=devices, device_type="cuda" if device.type == "cpu" else device.type):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def reseed(device: torch.device, *key: int) -> None:
    """Seeds all global generators from numbers; only within `isolated`."""
    (seed,) = np.random.SeedSequence(key).generate_state(1, np.uint64)
    # Not torch.manual_seed, which would also seed devices that are not in use.
    torch.default_generator.manual_seed(int(seed))
    if device.type != "cpu":
        kind = getattr(torch, device.type)
        with kind.device(device):
            kind.manual_seed(int(seed))
    random.seed(int(seed))
    np.random.seed(int(seed) % 2**32)  # noqa: NPY002
