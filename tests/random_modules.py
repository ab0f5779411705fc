"""Small modules of every kind, drawn at random: each layer goes from eight features to eight."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations
from torch.optim.swa_utils import AveragedModel

WIDTH = 8


class Shaped(nn.Module):
    """A layer of inputs of another shape."""

    def __init__(self, shape: tuple[int, ...], layer: nn.Module) -> None:
        super().__init__()
        self.shape, self.layer = shape, layer

    def forward(self, x):
        return self.layer(x.reshape(len(x), *self.shape)).flatten(1)


class Recurrent(nn.Module):
    """A recurrent layer over two steps of four features."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x.reshape(len(x), 2, 4))[0].flatten(1)


class Attention(nn.Module):
    """Attention of two tokens of four features, with keys and values of as many or of fewer."""

    def __init__(self, keys: int) -> None:
        super().__init__()
        self.keys = keys
        self.layer = nn.MultiheadAttention(4, 2, batch_first=True, kdim=keys, vdim=keys, bias=keys == 4)

    def forward(self, x):
        x = x.reshape(len(x), 2, 4)
        return self.layer(x, x[..., : self.keys], x[..., : self.keys], need_weights=False)[0].flatten(1)


class Embedded(nn.Module):
    """Adds a number of an embedding for the sign of each feature."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(2, 1)

    def forward(self, x):
        return x + self.table((x > 0).long()).squeeze(-1)


class Halves(nn.Module):
    """A bilinear layer of both halves."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Bilinear(4, 4, WIDTH)

    def forward(self, x):
        return self.layer(x[:, :4], x[:, 4:])


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return x + torch.tanh(self.inner(x))


class Again(nn.Module):
    """One layer, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return self.inner(torch.relu(self.inner(x)))


class Unused(nn.Module):
    """A layer that is never called, so that no gradient comes to its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Linear(3, 2)

    def forward(self, x):
        return x


class Conv1D(nn.Module):
    """As that of Hugging Face's transformers: a linear layer with inputs first."""

    __module__ = "transformers.pytorch_utils"

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(WIDTH, WIDTH) / 3), nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x):
        return x @ self.weight + self.bias


def tied() -> nn.Module:
    first, second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
    second.weight = first.weight
    return nn.Sequential(first, nn.Tanh(), second)


def repeated() -> nn.Module:
    layer = nn.Linear(WIDTH, WIDTH)
    return nn.Sequential(layer, nn.Tanh(), layer)


def frozen() -> nn.Module:
    return nn.Linear(WIDTH, WIDTH).requires_grad_(False)


def frozen_bias() -> nn.Module:
    layer = nn.Linear(WIDTH, WIDTH)
    layer.bias.requires_grad_(False)
    return layer


def batch_norm(kind: type[nn.Module], *shape: int, **options) -> nn.Module:
    layer = kind(shape[0] if shape else WIDTH, **options)
    if layer.running_var is not None:
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2)
    return Shaped(shape, layer) if shape else layer


def old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(nn.Linear(WIDTH, WIDTH))


def encoder() -> nn.Module:
    return Shaped((2, 4), nn.TransformerEncoderLayer(4, 2, 4, dropout=0.0, batch_first=True))


@dataclass(frozen=True)
class Kind:
    """A kind of layer.

    Attributes:
        make: draws one.
        pruned: names of its weights.
        left_out: names of weights that cannot be pruned.
    """

    make: Callable[[], nn.Module]
    pruned: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def _shaped(shape, make) -> Kind:
    return Kind(lambda: Shaped(shape, make()), ("layer.weight",))


def _recurrent(kind, *more: str, **options) -> Kind:
    names = [f"layer.weight_{way}_l0" for way in ("ih", "hh", *more)]
    return Kind(lambda: Recurrent(kind(4, batch_first=True, **options)), tuple(names))


KINDS = {
    "linear": Kind(lambda: nn.Linear(WIDTH, WIDTH), ("weight",)),
    "linear without bias": Kind(lambda: nn.Linear(WIDTH, WIDTH, bias=False), ("weight",)),
    "relu": Kind(nn.ReLU),
    "gelu": Kind(nn.GELU),
    "residual": Kind(Residual, ("inner.weight",)),
    "again": Kind(Again, ("inner.weight",)),
    "unused": Kind(Unused, ("idle.weight",)),
    "bilinear": Kind(Halves, ("layer.weight",)),
    "embedding": Kind(Embedded),
    "conv1d": _shaped((2, 4), lambda: nn.Conv1d(2, 2, 3, padding=1, groups=2)),
    "conv2d": _shaped((2, 2, 2), lambda: nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")),
    "conv3d": _shaped((1, 2, 2, 2), lambda: nn.Conv3d(1, 1, 3, padding=1)),
    "transposed 1d": _shaped((2, 4), lambda: nn.ConvTranspose1d(2, 2, 3, padding=1)),
    "transposed 2d": _shaped((2, 2, 2), lambda: nn.ConvTranspose2d(2, 2, 3, padding=1, groups=2)),
    "transposed 3d": _shaped((1, 2, 2, 2), lambda: nn.ConvTranspose3d(1, 1, 3, padding=1)),
    "inputs first": Kind(Conv1D, ("weight",)),
    "layer norm": Kind(lambda: nn.LayerNorm(WIDTH)),
    "group norm": Kind(lambda: nn.GroupNorm(2, WIDTH)),
    "batch norm": Kind(lambda: batch_norm(nn.BatchNorm1d)),
    "batch norm 2d": Kind(lambda: batch_norm(nn.BatchNorm2d, 2, 2, 2)),
    "batch norm without statistics": Kind(lambda: batch_norm(nn.BatchNorm1d, track_running_stats=False)),
    "dropout": Kind(lambda: nn.Dropout(0.5)),
    "attention": Kind(lambda: Attention(4), ("layer.in_proj_weight", "layer.out_proj.weight")),
    "cross attention": Kind(
        lambda: Attention(2), (*(f"layer.{name}_proj_weight" for name in "qkv"), "layer.out_proj.weight")
    ),
    "encoder": Kind(
        encoder,
        tuple(
            f"layer.{name}"
            for name in ("self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight")
        ),
    ),
    "gru": _recurrent(nn.GRU, hidden_size=4),
    "lstm": _recurrent(nn.LSTM, hidden_size=4),
    "lstm with projection": _recurrent(nn.LSTM, "hr", hidden_size=5, proj_size=4),
    "rnn": _recurrent(nn.RNN, hidden_size=4),
    "tied": Kind(tied, (), ("0.weight",)),
    "repeated": Kind(repeated, ("0.weight",)),  # one layer, at two places
    "frozen": Kind(frozen, (), ("weight",)),
    "frozen bias": Kind(frozen_bias, ("weight",)),
    "weight norm": Kind(lambda: parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH)), (), ("weight",)),
    "old weight norm": Kind(old_weight_norm),
}

NORMS = ("batch norm", "batch norm 2d", "batch norm without statistics")
"""Layers that use the statistics of the batch in training."""


def compiled(module: nn.Module) -> nn.Module:
    """As `torch.compile` makes it; nothing is compiled before a call."""
    return torch.compile(module, backend="eager")


WRAPPERS = {
    "none": lambda module: module,
    "averaged": AveragedModel,
    "parallel": nn.DataParallel,
    "compiled": compiled,
    "both": lambda module: compiled(nn.DataParallel(module)),
}
"""What a module may be wrapped in as a whole."""

NESTS = ("none", "sequential", "parallel")
"""What a layer may be wrapped in."""


@dataclass(frozen=True)
class Part:
    """A layer of a module: its kind, what it is wrapped in, whether it is in training mode."""

    kind: str
    nest: str
    training: bool


parts = st.builds(Part, st.sampled_from(list(KINDS)), st.sampled_from(NESTS), st.booleans())
"""Layers drawn at random."""


def build(drawn: list[Part]) -> tuple[nn.Sequential, nn.Sequential, list[str], list[str]]:
    """The module, the same without parallel layers, and names of weights: those that are pruned or cannot be.

    Both have the very same layers.
    """
    dressed, plain, pruned, left_out = [], [], [], []
    for place, part in enumerate(drawn):
        kind = KINDS[part.kind]
        layer = kind.make().train(part.training)
        prefix = f"{place}."
        if part.nest == "sequential":
            layer, prefix = nn.Sequential(layer, nn.Identity()), f"{place}.0."
        plain.append(layer)
        dressed.append(nn.DataParallel(layer) if part.nest == "parallel" else layer)
        pruned += [prefix + name for name in kind.pruned]
        left_out += [prefix + name for name in kind.left_out]
    head = nn.Linear(WIDTH, 3)
    names = [*pruned, f"{len(drawn)}.weight"]
    return nn.Sequential(*dressed, head), nn.Sequential(*plain, head), names, left_out
