"""How long every ticket method takes on networks that people use, and how much memory."""

from __future__ import annotations

import gc
import importlib.util
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pandas as pd
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from precode import _precode
from precode._internal.errors import PrecodeError, PrecodeValueError, TicketWarning
from precode.bench.machine import growth, wait
from precode.modules.search import find_ticket
from precode.networks.settings import resolve_device

DENSITY = 0.5
"""What tickets keep."""
EPOCHS = 2
"""Epochs of a training."""
BATCHES = 2
"""Batches of an epoch."""

COLUMNS = ("network", "parameters", "method", "seconds", "cpu_seconds", "peak_mib", "gradients", "epochs", "note")

Report: TypeAlias = Callable[[str], None]


@dataclass(frozen=True)
class Network:
    """A network and what it is to learn.

    Attributes:
        package: what it is from.
        make: makes the module, and a batch (x, y) for a generator of random numbers.
    """

    package: str
    make: Callable[[], tuple[nn.Module, Callable[[torch.Generator], tuple[torch.Tensor, torch.Tensor]]]]


def resnet18() -> tuple[nn.Module, Callable[[torch.Generator], tuple[torch.Tensor, torch.Tensor]]]:
    """ResNet-18 of torchvision with random weights, ten classes, and batches of 8 images of 32 x 32."""
    from torchvision.models import resnet18

    def batch(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(8, 3, 32, 32, generator=generator), torch.randint(10, (8,), generator=generator)

    return resnet18(num_classes=10), batch


class Logits(nn.Module):
    """A language model of transformers that returns its logits, one tensor: (samples, classes, tokens)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of (samples, tokens) numbers of tokens."""
        logits: torch.Tensor = self.model(tokens, use_cache=False).logits
        return logits.mT


def gpt2() -> tuple[nn.Module, Callable[[torch.Generator], tuple[torch.Tensor, torch.Tensor]]]:
    """GPT-2 of transformers with random weights, 2 layers of 128 features, 512 tokens; batches of 8 texts of 32."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=512, n_positions=32, n_embd=128, n_layer=2, n_head=4, bos_token_id=None, eos_token_id=None
    )

    def batch(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = torch.randint(512, (8, 33), generator=generator)
        return tokens[:, :-1], tokens[:, 1:]

    return Logits(GPT2LMHeadModel(config)), batch


NETWORKS: dict[str, Network] = {
    "torchvision ResNet-18": Network("torchvision", resnet18),
    "transformers GPT-2": Network("transformers", gpt2),
}
"""Networks that are measured."""


def modules(
    networks: Mapping[str, Network] | None = None,
    *,
    methods: Sequence[str] | None = None,
    device: str | torch.device = "cpu",
    report: Report | None = None,
) -> pd.DataFrame:
    """Finds a ticket of each network by each method, once: half of the weights, 2 epochs of 2 batches a training.

    Args:
        networks: by name; `NETWORKS` if None. Those of packages that are not installed, or do not work, are rows with
            a note.
        methods: names; all of `precode.methods` if None.
        device: where the modules are; their data come from the CPU.
        report: told what is going on.

    Returns:
        One row a network and method, with `COLUMNS`: seconds of the search, CPU seconds of all its threads,
        mebibytes that the process grew by meanwhile (missing off Linux), or on a CUDA device those that torch allocated
        there beside the module, the cost in gradients on all data and in
        epochs, and why a method refuses.

    Raises:
        PrecodeValueError: an unknown method, or a device that torch does not see.
    """
    place = resolve_device(device)
    known = [record["name"] for record in _precode.methods()]
    if unknown := [name for name in methods or () if name not in known]:
        raise PrecodeValueError(f"method {unknown[0]!r} is unknown: precode.methods() lists all")
    tell = report or (lambda line: None)
    lines: list[dict[str, Any]] = []
    for name, network in (NETWORKS if networks is None else networks).items():
        if importlib.util.find_spec(network.package) is None:
            lines.append(_line(name, note=f"not installed: pip install {network.package}"))
            continue
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                module, batch = network.make()
                module = module.to(place)
        except (ImportError, RuntimeError) as error:  # torchvision beside another torch gives RuntimeError
            what = str(error).strip().partition("\n")[0]
            lines.append(_line(name, note=f"cannot be made with the {network.package} installed: {what}"))
            continue
        generator = torch.Generator().manual_seed(0)
        data = [batch(generator) for _ in range(BATCHES)]
        for method in methods or known:
            tell(f"{name}: {method}")
            lines.append(_found(module, data, method, place, _line(name, module, method)))
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _line(name: str, module: nn.Module | None = None, method: str = "", note: str = "") -> dict[str, Any]:
    size = math.nan if module is None else float(sum(each.numel() for each in module.parameters()))
    missing = dict.fromkeys(("seconds", "cpu_seconds", "peak_mib", "gradients", "epochs"), math.nan)
    return {"network": name, "parameters": size, "method": method, "note": note} | missing


def _found(module: nn.Module, data: Any, method: str, device: torch.device, line: dict[str, Any]) -> dict[str, Any]:
    """A row with what a method takes, or why it refuses."""
    gc.collect()
    grown = growth(device)
    began, worked = time.perf_counter(), time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TicketWarning)
            ticket = find_ticket(module, method, DENSITY, data, cross_entropy, epochs=EPOCHS)
        wait(device)
    except PrecodeError as error:
        return line | {"note": str(error).partition("\n")[0]}
    line |= {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - worked}
    if (most := grown()) is not None:
        line["peak_mib"] = most / 2**20
    return line | {"gradients": ticket.cost["gradients"], "epochs": ticket.cost["epochs"]}
