"""Shared settings: small examples, no surprises from timing on busy machines."""

import os

import matplotlib
import pytest
import torch
from hypothesis import settings

matplotlib.use("Agg")
# Each example of a plot leaves its figure open, as a notebook would; one process may run more than 20 of them.
matplotlib.rcParams["figure.max_open_warning"] = 0
if examples := os.environ.get("PRECODE_EXAMPLES"):
    # `make fuzz`: new examples on every run, and how a failing one is repeated.
    settings.register_profile("precode", max_examples=int(examples), deadline=None, print_blob=True)
else:
    # The same examples on every run: a test that passed stays passed until the code changes.
    settings.register_profile("precode", max_examples=40, deadline=None, derandomize=True)
settings.load_profile("precode")


@pytest.fixture
def one_thread():
    """Small tensors are slower on several threads, much so on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
