"""Searches that do not fit into memory are refused before any work."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are those of Linux")

CHILD = """
import os, resource, psutil, torch
import precode as pc
from precode._internal import memory

module = torch.nn.Linear(2000, 2000)

def batches():
    raise SystemExit("work began")
    yield

class Data:
    def __iter__(self):
        return batches()

room = psutil.Process().memory_info().vms + memory.THREADS * os.cpu_count() + 2**25
resource.setrlimit(resource.RLIMIT_AS, (room, resource.RLIM_INFINITY))
try:
    pc.find_ticket(module, {method!r}, 0.5, Data(), torch.nn.functional.cross_entropy)
except pc.UnsupportedError as error:
    print(error)
"""


@pytest.mark.parametrize("method", ["snip", "grasp", "synflow", "magnitude-init", "random", "imp"])
def test_a_search_that_does_not_fit_is_refused_before_any_work(method):
    child = subprocess.run([sys.executable, "-c", CHILD.format(method=method)], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert f"finding a ticket by '{method}' in a module with 15 MiB of parameters needs about" in child.stdout
    assert "left by the limit RLIMIT_AS (ulimit -v)): free memory, prune a smaller module" in child.stdout
