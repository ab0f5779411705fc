"""What searches take of memory; those that do not fit are refused before any work."""

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


SEARCH = """
import warnings, torch
import precode as pc

def of_process(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))

def search(width):
    x, y = torch.randn(32, width), torch.randint(10, (32,))
    module = torch.nn.Sequential(*[torch.nn.Linear(width, width) for _ in range({layers})])
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = of_process("VmRSS")
    pc.find_ticket(module, {method}, {density}, [(x, y)] * 3, torch.nn.functional.cross_entropy, {options})
    return (of_process("VmHWM") - before) / (4 * sum(weight.numel() for weight in module.parameters()))

torch.set_num_threads(1)
warnings.simplefilter("ignore")
search(48)  # libraries that are loaded when they are first used
print(search({width}))
"""


def multiple(method, layers, width, density=0.6, options="epochs=1"):
    """Times the memory of its weights that a search in a module takes."""
    code = SEARCH.format(method=method, layers=layers, width=width, density=density, options=options)
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    return float(child.stdout)


# Layers of 64, 16 and 4 MB, of which the allocator would keep the two smaller ones.
@pytest.mark.parametrize(("layers", "width"), [(1, 4000), (4, 2000), (25, 1000)])
@pytest.mark.parametrize(
    ("method", "most"),
    [("magnitude-init", 4), ("random", 4), ("snip", 4), ("grasp", 4.3), ("magnitude", 6), ("imp", 6.5)],
)
def test_a_search_takes_so_many_times_the_memory_of_the_weights(method, most, layers, width):
    assert 1 <= multiple(repr(method), layers, width) <= most


def test_synflow_holds_weights_and_flow_in_float64():
    assert 1 <= multiple("'synflow'", 1, 2100) <= 4.5


@pytest.mark.parametrize(
    ("method", "density", "options"),
    [
        ("'snip'", 0.6, "scope='erk'"),
        ("'snip'", 0.6, "granularity='row'"),
        ("'snip'", 0.6, "granularity='column'"),
        ("'snip'", 0.5, "granularity='2:4'"),
        ("lambda name, weight, gradient: (weight * gradient).abs()", 0.6, ""),
    ],
    ids=["erk", "row", "column", "pattern", "own"],
)
def test_other_choices_take_no_more(method, density, options):
    assert 1 <= multiple(method, 4, 2000, density, options) <= 4
