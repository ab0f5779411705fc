"""Training stacks of networks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from precode import _memory, _precode
from precode import embedding as embeddings
from precode import sampler as samplers
from precode._progress import Progress, reporter
from precode.dataset import Dataset, as_bools
from precode.errors import PrecodeShapeError, PrecodeTypeError, PrecodeValueError
from precode.networks import Layers, Networks, layered, named
from precode.task import Dnf

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Optimizer:
    """An update rule with the formulas and defaults of `torch.optim`.

    Attributes:
        rule: ``"adam"``, ``"adamw"`` or ``"sgd"``.
        lr: learning rate.
        betas: decay of Adam's moments.
        eps: added to Adam's denominator.
        weight_decay: L2 penalty; with ``"adamw"``, decoupled.
        momentum: of SGD, without dampening.
    """

    rule: str = "adam"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.0

    def __post_init__(self) -> None:
        if self.momentum and self.rule != "sgd":
            raise PrecodeValueError(f"momentum = {self.momentum} with {self.rule!r}: only 'sgd' has momentum")


@dataclass(frozen=True)
class EarlyStopping:
    """Ends a network's training when a loss has not fallen for some epochs.

    Attributes:
        patience: epochs without improvement after which training ends.
        min_delta: an improvement must be larger than this (nats).
        watch: ``"train"``, the mean loss of the epoch's batches, each before its update; or ``"validation"``.
    """

    patience: int = 10
    min_delta: float = 0.0
    watch: str = "train"


DEFAULT_STOPPING = EarlyStopping()
"""Patience 10 on the training loss: the source has patience 10 and does not say on which loss."""


@dataclass(frozen=True)
class TrainSettings:
    """The settings of a run that do not depend on its networks.

    Attributes:
        epochs: most passes over the data.
        batch: samples a step; the last batch of an epoch holds what is left over.
        optimizer: update rule.
        order_seed: key of the order in which epochs visit the samples.
        early_stopping: when networks stop before the last epoch.
        snapshots: optimizer steps after which weights are kept, increasing; 0 is the start.
    """

    epochs: int
    batch: int
    optimizer: Optimizer
    order_seed: int
    early_stopping: EarlyStopping | None
    snapshots: tuple[int, ...]


class Runs(Networks):
    """Trained networks; made by `train`.

    Attributes:
        weights: final weights (see `Networks`).
        start: networks as they were initialized (masked, where masks were given).
        history: one row a network and epoch: train_loss and train_error, means over the epoch's samples before each
            update, and validation_loss if there are validation data.
        epochs_run: epochs each network ran, (R,).
        data: training data of each network.
        engine: name of the engine that ran.
        engine_reason: why it was chosen.
        seconds: wall-clock time of training.
    """

    def __init__(
        self,
        outcome: _precode.Outcome,
        start: Layers,
        tasks: Sequence[Dnf] | None,
        embedding: embeddings.Embedding,
        data: Sequence[Dataset],
        settings: TrainSettings,
        seconds: float,
    ) -> None:
        super().__init__(named(outcome["weights"]), tasks, embedding)
        self.start = Networks(named(start), tasks, embedding)
        self.data = tuple(data)
        self.settings = settings
        self.epochs_run: NDArray[np.int64] = np.array(outcome["epochs_run"], dtype=np.int64)
        self.engine = outcome["engine"]
        self.engine_reason = outcome["reason"]
        self.seconds = seconds
        self._snapshots = dict(zip(settings.snapshots, outcome["snapshots"], strict=True))
        self.history = _history(outcome, self.epochs_run)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one pass over the data."""
        return -(-self.data[0].samples // self.settings.batch)

    def at(self, step: int) -> Networks:
        """The networks after `step` optimizer steps, one of the snapshots; a stopped network keeps its last weights.

        Raises:
            PrecodeValueError: no snapshot was kept there.
        """
        if step not in self._snapshots:
            kept = ", ".join(map(str, self._snapshots)) or "none"
            raise PrecodeValueError(f"no snapshot at step {step} (kept: {kept}): pass snapshots=[{step}] to train")
        return Networks(named(self._snapshots[step]), self.tasks, self.embedding)

    def evaluate(self, data: Dataset | Sequence[Dataset] | None = None) -> pd.DataFrame:
        """Loss and error of the final weights, on the training data by default; see `Networks.evaluate`."""
        return super().evaluate(self.data if data is None else data)


def _history(outcome: _precode.Outcome, epochs_run: NDArray[np.int64]) -> pd.DataFrame:
    columns = {
        "train_loss": outcome["train_loss"],
        "train_error": outcome["train_error"],
        "validation_loss": outcome["validation_loss"],
    }
    ran = np.arange(outcome["train_loss"].shape[1]) < np.expand_dims(epochs_run, 1)
    network, epoch = np.nonzero(ran)
    table = pd.DataFrame({"network": network, "epoch": epoch + 1})
    for name, values in columns.items():
        if name != "validation_loss" or not np.isnan(values).all():
            table[name] = values[ran]
    return table


def sample_all(
    tasks: Sequence[Dnf],
    samples: int,
    *,
    sampler: str | samplers.Sampler,
    seed: int,
    indices: Sequence[int],
    held_out: bool = False,
) -> list[Dataset]:
    """One data set for each task, drawn in parallel: ``tasks[i].sample(samples, seed=seed, index=indices[i])``."""
    packed = _precode.sample_all(
        [task._formula for task in tasks], samplers.resolve(sampler), samples, seed, list(indices), held_out
    )
    return [Dataset._wrap(item) for item in packed]


def _tasks(tasks: Dnf | Sequence[Dnf] | None) -> list[Dnf] | None:
    if tasks is None:
        return None
    listed = [tasks] if isinstance(tasks, Dnf) else list(tasks)
    for task in listed:
        if not isinstance(task, Dnf):
            raise PrecodeTypeError(f"tasks must be Dnf formulas, not {type(task).__name__}")
    return listed


def _data(data: Dataset | Sequence[Dataset], networks: int) -> list[Dataset]:
    listed = [data] * networks if isinstance(data, Dataset) else list(data)
    for item in listed:
        if not isinstance(item, Dataset):
            raise PrecodeTypeError(f"data must be Dataset objects, not {type(item).__name__}: use pc.Dataset(x, y)")
    return listed


def _masks(masks: Mapping[str, Any] | None, start: Layers) -> list[NDArray[np.bool_] | None] | None:
    """One flat mask for each layer, None where nothing is masked."""
    if masks is None:
        return None
    names = [f"w{number}" for number in range(1, len(start) + 1)]
    if unknown := set(masks) - set(names):
        raise PrecodeValueError(
            f"mask for {', '.join(sorted(unknown))}: weights that can be masked are {', '.join(names)}"
        )
    flat: list[NDArray[np.bool_] | None] = []
    for name, (weight, _) in zip(names, start, strict=True):
        if masks.get(name) is None:
            flat.append(None)
            continue
        mask = as_bools(masks[name], f"the mask of {name}")
        shapes = [tuple(weight.shape)]
        if weight.shape[1] == 1:
            shapes.append((weight.shape[0], weight.shape[2]))
        if mask.shape not in shapes:
            raise PrecodeShapeError(f"the mask of {name} has shape {mask.shape}: expected {shapes[-1]}")
        flat.append(mask.ravel())
    return flat


def train(
    tasks: Dnf | Sequence[Dnf] | None = None,
    *,
    hidden: int | Iterable[int] = 32,
    seed: int = 0,
    samples: int = 20_000,
    sampler: str | samplers.Sampler = "broken-clause",
    data: Dataset | Sequence[Dataset] | None = None,
    validation: int | Dataset | Sequence[Dataset] = 0,
    init: Mapping[str, torch.Tensor] | None = None,
    masks: Mapping[str, Any] | None = None,
    embedding: str | embeddings.Embedding | Any = "identity",
    epochs: int = 100,
    batch: int = 64,
    optimizer: str | Optimizer = "adam",
    lr: float | None = None,
    early_stopping: EarlyStopping | None = DEFAULT_STOPPING,
    snapshots: Iterable[int] = (),
    order_seed: int | None = None,
    indices: Sequence[int] | None = None,
    engine: str = "auto",
    dtype: str | torch.dtype = "float32",
    device: str | torch.device = "cpu",
    progress: Progress = False,
) -> Runs:
    """Trains one network for each task, all at once, in the setting of arXiv 2504.08842, section 4.

    Network i draws its data and initial weights from streams of its own, so it is the same alone as in any stack.

    Args:
        tasks: one `Dnf`, or one for each network. None only with `data`.
        hidden: width of the hidden layer, j, or of several hidden layers.
        seed: key of data, initial weights, order and random embedding.
        samples: training samples of each network.
        sampler: see `Dnf.sample`.
        data: training data instead: one data set for all networks, or one for each.
        validation: samples drawn for validation, or validation data as for `data`.
        init: initial weights as in `Networks.weights`; by default PyTorch's of ``nn.Linear``. They are copied.
        masks: by weight name, Boolean arrays of the weight's shape: False weights start at zero and stay there.
        embedding: fixed map in front of the network: ``"identity"``, ``"hadamard"`` (unit columns),
            ``"hadamard-raw"`` (±1), ``"random"`` (orthogonal), or a matrix (inputs, variables).
        epochs: most passes over the data.
        batch: samples a step.
        optimizer: ``"adam"``, ``"adamw"`` (weight decay 0.01, as in torch), ``"sgd"``, or an `Optimizer`.
        lr: learning rate, 1e-3 by default; not together with an `Optimizer`.
        early_stopping: None to run all epochs.
        snapshots: optimizer steps after which weights are kept (see `Runs.at`).
        order_seed: key of the order in which samples are visited; `seed` by default.
        indices: numbers of the networks' streams, by default 0, 1, ...
        engine: ``"fused"`` (one hidden layer, float32, CPU), ``"libtorch"`` (anything), or ``"auto"``.
        dtype: ``"float32"`` or ``"float64"``, of the weights and arithmetic.
        device: such as ``"cpu"`` or ``"cuda"``.
        progress: False, True for a bar, or a function of (network-steps done, in all).

    Raises:
        PrecodeValueError: a setting out of range; the message names it and what it may be.
        PrecodeShapeError: tasks, data, weights or masks that do not fit together.
        UnsupportedError: the chosen engine cannot do what was asked.
        KeyboardInterrupt: Ctrl-C, answered within a tenth of a second or so; nothing is kept.

    Example:
        >>> runs = train([Dnf.random(clauses=4, seed=0)] * 2, hidden=16, epochs=3, snapshots=[0, 313])
        >>> runs
        Runs(networks=2, widths=32-16-1, embedding=identity)
        >>> runs.weights["w1"].shape, runs.at(313).weights["w2"].shape
        (torch.Size([2, 16, 32]), torch.Size([2, 16]))
        >>> runs.engine
        'fused'
    """
    listed = _tasks(tasks)
    if listed is None and data is None:
        raise PrecodeValueError("nothing to train on: pass tasks, or data")
    if listed is not None:
        networks = len(listed)
    elif isinstance(data, Dataset):
        networks = len(next(iter(init.values()))) if init else 1
    else:
        networks = len(data or ())
    if networks == 0:
        raise PrecodeValueError("0 networks: pass at least one task or data set")
    streams = list(range(networks)) if indices is None else [int(index) for index in indices]
    if len(streams) != networks:
        raise PrecodeShapeError(f"{len(streams)} indices for {networks} networks: pass one for each")
    settings = TrainSettings(
        epochs=epochs,
        batch=batch,
        optimizer=_optimizer(optimizer, lr),
        order_seed=seed if order_seed is None else order_seed,
        early_stopping=early_stopping,
        snapshots=tuple(sorted({int(step) for step in snapshots})),
    )
    variables = listed[0].variables if listed else _data(data or (), networks)[0].variables
    outputs = listed[0].outputs if listed else _data(data or (), networks)[0].outputs
    c0 = embeddings.resolve(embedding, variables, seed)
    hidden = [hidden] if isinstance(hidden, int) else list(hidden)
    widths = [c0.rows, *hidden, outputs]
    if min(widths) < 1:
        raise PrecodeValueError(f"hidden = {hidden}: every layer needs at least one unit")
    if data is None:
        _memory.check(
            _precode.memory_needed(widths, networks, variables, samples, settings),
            f"training {networks} networks on {samples} samples each",
            "train fewer at a time, on fewer samples, or on one data set (data=)",
        )
    start = _start(init, widths, seed, streams, dtype, device)
    flat_masks = _masks(masks, start)
    sets = (
        sample_all(listed or (), samples, sampler=sampler, seed=seed, indices=streams)
        if data is None
        else _data(data, networks)
    )
    held_out: list[Dataset] = []
    if not isinstance(validation, int):
        held_out = _data(validation, networks)
    elif validation:
        if listed is None:
            raise PrecodeValueError(f"validation = {validation} samples cannot be drawn without tasks: pass data sets")
        held_out = sample_all(listed, validation, sampler=sampler, seed=seed, indices=streams, held_out=True)
    steps = networks * epochs * -(-sets[0].samples // max(batch, 1))
    began = time.perf_counter()
    with reporter(progress, steps, "step") as report:
        outcome = _precode.train(
            start,
            [item._packed for item in sets],
            [item._packed for item in held_out],
            c0.argument,
            c0.seed,
            flat_masks,
            settings,
            engine,
            report,
        )
    seconds = time.perf_counter() - began
    if flat_masks is not None:
        start = [
            (weight if mask is None else weight * torch.from_numpy(mask).view(weight.shape).to(weight), bias)
            for (weight, bias), mask in zip(start, flat_masks, strict=True)
        ]
    return Runs(outcome, start, listed, c0, sets, settings, seconds)


def _optimizer(optimizer: str | Optimizer, lr: float | None) -> Optimizer:
    if isinstance(optimizer, Optimizer):
        if lr is not None:
            raise PrecodeValueError(f"lr = {lr} beside {optimizer}: set its own lr")
        return optimizer
    decay = 0.01 if optimizer == "adamw" else 0.0
    return Optimizer(optimizer, lr=1e-3 if lr is None else lr, weight_decay=decay)


def _start(
    init: Mapping[str, torch.Tensor] | None,
    widths: list[int],
    seed: int,
    streams: list[int],
    dtype: str | torch.dtype,
    device: str | torch.device,
) -> Layers:
    """Initial weights on the wanted device; a copy, so that the caller's are left alone."""
    kind = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise PrecodeValueError(f"dtype {dtype!r}: use 'float32' or 'float64'")
    if init is None:
        layers = _precode.linear_init(widths, seed, streams)
    else:
        layers = layered(init)
        if layers[0][0].ndim != 3:
            raise PrecodeShapeError(f"init['w1'] of shape {tuple(layers[0][0].shape)}: expected (R, j, m)")
    return [tuple(t.detach().to(device=device, dtype=kind, copy=True) for t in pair) for pair in layers]  # type: ignore[misc]
