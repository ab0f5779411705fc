"""Forked children, impossible sizes and Ctrl-C: what could take a process down."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import precode as pc

TASK = pc.Dnf.random(clauses=4, seed=0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_forked_child_trains_and_samples():
    script = (
        "import os, precode as pc\n"
        "task = pc.Dnf.random(clauses=4, seed=0)\n"
        "run = lambda: pc.train([task] * 4, hidden=8, samples=256, epochs=1).codes().code_size().tolist()\n"
        "before = run()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if run() == before else 1)\n"
        "_, status = os.waitpid(child, 0)\n"
        "assert os.waitstatus_to_exitcode(status) == 0\n"
        "assert run() == before\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=60)


@pytest.mark.parametrize(
    "make",
    [
        lambda: TASK.sample(10**12),
        lambda: TASK.sample(2**62),
        lambda: pc.Dnf.random(variables=10**14),
        lambda: pc.Dnf([[0]], variables=10**16),
        lambda: pc.train(TASK, samples=64, validation=10**13),
        lambda: pc.train(TASK, data=TASK.sample(64), hidden=10**13),
        lambda: pc.train([TASK] * 2000, data=[TASK.sample(64)] * 2000, epochs=2**32 - 1),
        lambda: pc.code_distance(np.zeros((3_000_000, 1), bool)),
        lambda: TASK.false_clauses(output=5),
    ],
)
def test_impossible_sizes_are_refused(make):
    with pytest.raises(pc.PrecodeError):
        make()


def test_ctrl_c_stops_sampling():
    def interrupt(signum, frame):
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    began = time.perf_counter()
    try:
        with pytest.raises(KeyboardInterrupt):
            TASK.sample(200_000_000)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert time.perf_counter() - began < 2


def test_nulls_check_shapes_and_keep_the_floor():
    channels = np.zeros((2, 3, 4), bool)
    for output in (np.ones(6), np.ones(4), np.ones((2, 3)), np.full((2, 4), np.nan)):
        with pytest.raises(pc.PrecodeError):
            pc.nulls.permute_rows(channels, output)
    w1 = 0.1 * np.random.default_rng(0).normal(size=(64, 32))
    codes = pc.decode(w1, np.ones(64), TASK, floor=0.1)
    null = pc.nulls.random_network(codes)
    np.testing.assert_array_equal(null.features == 0, np.abs(w1) <= 0.1)
