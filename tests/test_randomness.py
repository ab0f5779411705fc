"""Seeding of devices that are not here."""

import pytest
import torch

from precode._internal.randomness import isolated, reseed


@pytest.mark.parametrize("seed", [0, 7])
def test_devices_without_a_context_are_seeded(seed, monkeypatch):
    seen = []
    assert not hasattr(torch.mps, "device")
    monkeypatch.setattr(torch.mps, "manual_seed", seen.append)
    with isolated(torch.device("cpu")):
        reseed(torch.device("mps"), seed)
        assert seen == [torch.initial_seed()]
