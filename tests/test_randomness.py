"""Random states: of devices that are not here, and of all threads."""

import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import precode as pc
from precode._internal.randomness import Purpose, isolated, reseed


@pytest.mark.parametrize("seed", [0, 7])
def test_devices_without_a_context_are_seeded(seed, monkeypatch):
    seen = []
    assert not hasattr(torch.mps, "device")
    monkeypatch.setattr(torch.mps, "manual_seed", seen.append)
    with isolated([]):
        reseed([torch.device("mps")], Purpose.EPOCH, seed)
        assert seen == [torch.initial_seed()]


def test_threads_take_turns():
    module = nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.3), nn.Linear(16, 2))
    x, y = torch.linspace(-1, 1, 48).reshape(8, 6), torch.arange(8) % 2

    def found(_=None):
        return pc.find_ticket(module, "snip", 0.3, (x, y), nn.functional.cross_entropy)

    expected, states = found(), (torch.get_rng_state(), random.getstate())
    with ThreadPoolExecutor(4) as pool:
        assert all(ticket == expected for ticket in pool.map(found, range(60)))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_does_not_wait_for_threads_that_it_does_not_have():
    entered, done = threading.Event(), threading.Event()

    def hold():
        with isolated([]):
            entered.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    try:
        if not (child := os.fork()):
            with isolated([]):
                os._exit(0)
        for _ in range(200):
            finished, status = os.waitpid(child, os.WNOHANG)
            if finished:
                break
            threading.Event().wait(0.05)
        else:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the child waits")
        assert status == 0
    finally:
        done.set()
        thread.join()
