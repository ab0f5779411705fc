"""Training stacks of networks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from precode import _precode
from precode._internal import memory
from precode._internal.check import COUNT, KEY, booleans, integer, integers
from precode._internal.errors import PrecodeShapeError, PrecodeTypeError, PrecodeValueError
from precode._internal.lazy import Lazy
from precode._internal.progress import Progress, reporter
from precode.codes import embedding as embeddings
from precode.formulas import samplers
from precode.formulas.datasets import Dataset
from precode.formulas.dnf import Dnf
from precode.networks import divergence
from precode.networks.settings import (
    DEFAULT_STOPPING,
    EarlyStopping,
    Optimizer,
    TrainSettings,
    resolve_device,
    resolve_dtype,
)
from precode.networks.stacks import Layers, Networks, layered, named
from precode.networks.work import resolve as resolve_work
from precode.networks.work import sample_all

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
else:
    pd = Lazy("pandas")

__all__ = ["DEFAULT_STOPPING", "EarlyStopping", "Optimizer", "Runs", "TrainSettings", "sample_all", "train"]

HIDDEN = 32
"""Width of the hidden layer where none is given, as in most figures of the source."""


class Runs(Networks):
    """Trained networks; made by `train`.

    Attributes:
        weights: final weights (see `Networks`).
        start: networks as they were initialized (masked, where masks were given).
        history: one row a network and epoch: train_loss and train_error, means over the epoch's samples before each
            update, validation_loss if there are validation data, and diverged, whether the network has left the
            finite numbers by the end of the epoch.
        epochs_run: epochs each network ran, (R,).
        diverged: the epoch (from 1) from which on a network's loss is not finite, or its last if only its weights are
            not; 0 for networks that did not diverge, (R,).
        data: training data of each network.
        validation: validation data of each network; empty if there are none.
        engine: name of the engine that ran.
        engine_reason: why it was chosen.
        seed: key of the data, initial weights and projections, order and random embedding.
        streams: number of each network's random streams.
        sampler: what the data were drawn by; None if they were given.
        seconds: wall-clock time of training.

    Example:
        >>> from precode import Dnf
        >>> runs = train(Dnf.random(clauses=4, seed=0), hidden=8, samples=640, epochs=2, snapshots=[5])
        >>> runs.steps_per_epoch, runs.epochs_run.tolist(), runs.at(5).weights["w1"].shape
        (10, [2], torch.Size([1, 8, 32]))
        >>> runs.history["epoch"].tolist(), runs.snapshots
        ([1, 2], [5])
    """

    def __init__(
        self,
        outcome: _precode.Outcome,
        start: Mapping[str, torch.Tensor],
        tasks: Sequence[Dnf] | None,
        embedding: embeddings.Embedding,
        data: Sequence[Dataset],
        validation: Sequence[Dataset],
        settings: TrainSettings,
        seed: int,
        streams: Sequence[int],
        sampler: str | samplers.Sampler | None,
        seconds: float,
    ) -> None:
        super().__init__(named(outcome["weights"], outcome["c0"]), tasks, embedding)
        self.start = Networks(start, tasks, embedding)
        self.data = tuple(data)
        self.validation = tuple(validation)
        self.settings = settings
        self.seed = seed
        self.streams = tuple(streams)
        self.sampler = sampler
        self.epochs_run: NDArray[np.int64] = np.array(outcome["epochs_run"], dtype=np.int64)
        self.engine = outcome["engine"]
        self.engine_reason = outcome["reason"]
        self.seconds = seconds
        kept = zip(outcome["snapshots"], outcome["c0_snapshots"], strict=True)
        self._snapshots = dict(zip(settings.snapshots, kept, strict=True))
        losses = [outcome["train_loss"], *([outcome["validation_loss"]] if self.validation else [])]
        sound = divergence.finite(self.weights.values())
        self.diverged = divergence.first_epochs(losses, self.epochs_run, sound)
        self.history = _history(outcome, self.epochs_run, self.diverged)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one pass over the data."""
        return -(-self.data[0].samples // self.settings.batch)

    @property
    def snapshots(self) -> list[int]:
        """Optimizer steps after which weights were kept, increasing; see `at`."""
        return list(self._snapshots)

    def at(self, step: int) -> Networks:
        """The networks after `step` optimizer steps, one of the snapshots; a stopped network keeps its last weights.

        Raises:
            PrecodeValueError: no snapshot was kept there.
        """
        step = integer(step, "step", 0, KEY)
        if step not in self._snapshots:
            kept = ", ".join(map(str, self._snapshots)) or "none"
            raise PrecodeValueError(f"no snapshot at step {step} (kept: {kept}): pass snapshots=[{step}] to train")
        return Networks(named(*self._snapshots[step]), self.tasks, self.embedding)

    def evaluate(self, data: Dataset | Sequence[Dataset] | None = None) -> pd.DataFrame:
        """Loss and error of the final weights, on the training data by default; see `Networks.evaluate`."""
        return super().evaluate(self.data if data is None else data)

    def __repr__(self) -> str:
        kept = f", snapshots={len(self._snapshots)}" if self._snapshots else ""
        return f"{super().__repr__()[:-1]}, epochs={int(self.epochs_run.max())}, engine={self.engine}{kept})"

    def _repr_html_(self) -> str:
        last = self.history.groupby("network").last().reset_index()
        table = last.to_html(index=False, float_format="{:.4g}".format, max_rows=12, border=0)
        return f"<p>{escape(repr(self))}; the last epoch of each network:</p>{table}"


def _history(outcome: _precode.Outcome, epochs_run: NDArray[np.int64], diverged: NDArray[np.int64]) -> pd.DataFrame:
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
    table["diverged"] = (diverged[network] > 0) & (epoch + 1 >= diverged[network])
    return table


def _masks(masks: Mapping[str, Any] | None, start: Layers) -> list[NDArray[np.bool_] | None] | None:
    """One flat mask for each layer, None where nothing is masked."""
    if masks is None:
        return None
    if not isinstance(masks, Mapping) or not all(isinstance(name, str) for name in masks):
        wrong = next(name for name in masks if not isinstance(name, str)) if isinstance(masks, Mapping) else masks
        raise PrecodeTypeError(f"masks must be arrays by the name of a weight such as 'w1', not {type(wrong).__name__}")
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
        mask = booleans(masks[name], f"the mask of {name}", "masks")
        shapes = [tuple(weight.shape)]
        if weight.shape[1] == 1:
            shapes.append((weight.shape[0], weight.shape[2]))
        if mask.shape not in shapes:
            raise PrecodeShapeError(f"the mask of {name} has shape {mask.shape}: expected {shapes[-1]}")
        flat.append(mask.ravel())
    return flat


def train(
    tasks: Dnf | Iterable[Dnf] | None = None,
    *,
    hidden: int | Iterable[int] | None = None,
    seed: int = 0,
    samples: int = 20_000,
    sampler: str | samplers.Sampler = "broken-clause",
    data: Dataset | Iterable[Dataset] | None = None,
    validation: int | Dataset | Iterable[Dataset] = 0,
    init: Mapping[str, torch.Tensor] | None = None,
    masks: Mapping[str, Any] | None = None,
    embedding: str | embeddings.Embedding | embeddings.Projection | Any = "identity",
    epochs: int = 100,
    batch: int = 64,
    optimizer: str | Optimizer = "adam",
    lr: float | None = None,
    early_stopping: EarlyStopping | None = DEFAULT_STOPPING,
    snapshots: Iterable[int] = (),
    order_seed: int | None = None,
    first_epoch: int = 0,
    indices: int | Iterable[int] | None = None,
    engine: str = "auto",
    dtype: str | torch.dtype = "float32",
    device: str | torch.device = "cpu",
    progress: Progress = False,
) -> Runs:
    """Trains one network for each task, all at once, in the setting of arXiv 2504.08842, section 4.

    Network i draws its data and initial weights from streams of its own, so it is the same alone as in any stack.

    Args:
        tasks: one `Dnf`, or one for each network. None only with `data`.
        hidden: width of the hidden layer, j, or of several hidden layers; 32, or the widths of `init`, by default.
        seed: key of data, initial weights and projections, order and random embedding.
        samples: training samples of each network.
        sampler: see `Dnf.sample`.
        data: training data instead: one data set for all networks, or one for each.
        validation: samples drawn for validation, or validation data as for `data`.
        init: initial weights as in `Networks.weights`, with ``c0`` behind a projection; by default PyTorch's of
            ``nn.Linear``. They are copied.
        masks: by weight name, Boolean arrays of the weight's shape: False weights start at zero and stay there.
        embedding: map in front of the network: fixed, ``"identity"``, ``"hadamard"`` (unit columns),
            ``"hadamard-raw"`` (±1), ``"random"`` (orthogonal), or a matrix (inputs, variables); or a
            `precode.Projection` of each network's own, by name such as ``"projection-16"``.
        epochs: most passes over the data.
        batch: samples a step.
        optimizer: ``"adam"``, ``"adamw"`` (weight decay 0.01, as in torch), ``"sgd"``, or an `Optimizer`.
        lr: learning rate, 1e-3 by default; not together with an `Optimizer`.
        early_stopping: None to run all epochs.
        snapshots: optimizer steps after which weights are kept (see `Runs.at`).
        order_seed: key of the order in which samples are visited; `seed` by default.
        first_epoch: number of the first epoch in that order: with ``init=runs.at(k).weights`` after whole epochs, the
            samples are visited as the run would have gone on to visit them.
        indices: numbers of the networks' streams, by default 0, 1, ...
        engine: ``"fused"`` (one hidden layer, float32, CPU), ``"libtorch"`` (anything), or ``"auto"``.
        dtype: ``"float32"``, ``"float64"``, ``"float16"`` or ``"bfloat16"``, of the weights and arithmetic.
        device: such as ``"cpu"`` or ``"cuda"``.
        progress: False, True for a bar, or a function of (network-steps done, in all).

    Raises:
        PrecodeValueError: a setting out of range; the message names it and what it may be.
        PrecodeShapeError: tasks, data, weights or masks that do not fit together; all tasks and data of a run have the
            same numbers of variables and outputs.
        PrecodeTypeError: an argument of the wrong type; the message names the type that came.
        UnsupportedError: the chosen engine cannot do what was asked, or the device is not available.
        DivergenceWarning: a warning, not an error: networks whose loss or weights are not finite, by number.
        KeyboardInterrupt: Ctrl-C, answered within a tenth of a second or so, by the libtorch engine after the matrix
            product that it is in (seconds for layers of many thousands of units); nothing is kept.

    Example:
        >>> runs = train([Dnf.random(clauses=4, seed=0)] * 2, hidden=16, epochs=3, snapshots=[0, 313])
        >>> runs
        Runs(networks=2, widths=32-16-1, embedding=identity, epochs=3, engine=fused, snapshots=2)
        >>> runs.weights["w1"].shape, runs.at(313).weights["w2"].shape
        (torch.Size([2, 16, 32]), torch.Size([2, 16]))
        >>> runs.engine
        'fused'
    """
    target, kind = resolve_device(device, engine), resolve_dtype(dtype)
    seed, samples = integer(seed, "seed", 0, KEY), integer(samples, "samples", 1, COUNT)
    initial = None if init is None else layered(init)
    work = resolve_work(tasks, data, validation, indices, None if initial is None else len(initial[0][0]))
    settings = TrainSettings(
        epochs=integer(epochs, "epochs", 1, COUNT),
        batch=integer(batch, "batch", 1, COUNT),
        optimizer=_optimizer(optimizer, lr),
        order_seed=seed if order_seed is None else integer(order_seed, "order_seed", 0, KEY),
        first_epoch=integer(first_epoch, "first_epoch", 0, COUNT),
        early_stopping=_stopping(early_stopping),
        snapshots=tuple(sorted(set(integers(snapshots, "snapshots", 0, KEY)))),
    )
    c0 = embeddings.resolve(embedding, work.variables, seed)
    widths = _widths(hidden, initial, c0.rows, work.outputs)
    if init is not None:
        Networks(init, None, c0)  # refuses an initial C0 that does not fit
    # Data that were given are in memory already.
    drawn = samples if data is None else 0
    held_out_samples, held_out_drawn = (
        (work.validation, work.validation)
        if isinstance(work.validation, int)
        else (max((item.samples for item in work.validation), default=0), 0)
    )
    memory.check(
        _precode.memory_needed(
            widths,
            0 if c0.projection is None else c0.rows * c0.variables,
            work.networks,
            work.variables,
            (work.data[0].samples if work.data else samples, held_out_samples),
            (drawn, held_out_drawn),
            settings,
            engine,
            str(kind).removeprefix("torch."),
            target.type == "cpu",
        ),
        f"training {work.networks} networks" + (f" on {drawn} samples each" if drawn else ""),
        "train fewer at a time" + (", on fewer samples, or on one data set (data=)" if drawn else " or narrower ones"),
    )
    start = _on_device(initial or _precode.linear_init(widths, seed, work.streams), target, kind)
    own = None
    if c0.projection is not None:
        drawn_c0 = init["c0"] if init else _precode.projection_init(c0.rows, c0.variables, seed, work.streams)
        own = drawn_c0.detach().to(device=target, dtype=kind, copy=True)
    flat_masks = _masks(masks, start)
    sets, held_out = work.draw(samples, sampler, seed)
    steps = work.networks * settings.epochs * -(-sets[0].samples // settings.batch)
    began = time.perf_counter()
    with reporter(progress, steps, "step") as report:
        outcome = _precode.train(
            start,
            [item._packed for item in sets],
            [item._packed for item in held_out],
            c0.argument(own),
            c0.seed,
            flat_masks,
            settings,
            engine,
            report,
        )
    seconds = time.perf_counter() - began
    runs = Runs(
        outcome,
        named(_masked(start, flat_masks), own),
        work.tasks,
        c0,
        sets,
        held_out,
        settings,
        seed,
        work.streams,
        None if data is not None else sampler,
        seconds,
    )
    divergence.warn(runs.diverged, stacklevel=2)
    return runs


def _optimizer(optimizer: str | Optimizer, lr: float | None) -> Optimizer:
    if isinstance(optimizer, Optimizer):
        if lr is not None:
            raise PrecodeValueError(f"lr = {lr} beside {optimizer}: set its own lr")
        return optimizer
    if not isinstance(optimizer, str):
        raise PrecodeTypeError(f"optimizer must be a name or an Optimizer, not {type(optimizer).__name__}")
    decay = 0.01 if optimizer == "adamw" else 0.0
    return Optimizer(optimizer, lr=1e-3 if lr is None else lr, weight_decay=decay)


def _stopping(early_stopping: EarlyStopping | None) -> EarlyStopping | None:
    if early_stopping is not None and not isinstance(early_stopping, EarlyStopping):
        raise PrecodeTypeError(
            f"early_stopping must be an EarlyStopping or None, not {type(early_stopping).__name__}: "
            "use pc.EarlyStopping(patience=...)"
        )
    return early_stopping


def _widths(hidden: int | Iterable[int] | None, initial: Layers | None, inputs: int, outputs: int) -> list[int]:
    """Widths of the layers, those of the initial weights if there are any.

    Raises:
        PrecodeValueError: no hidden layer, or one without units.
        PrecodeShapeError: `hidden` or the task differ from the initial weights.
    """
    wanted = None if hidden is None else integers(hidden, "hidden", 1, COUNT)
    if wanted == [] or (initial is not None and len(initial) == 1):
        raise PrecodeValueError("hidden = []: a network without hidden layer is not supported")
    if initial is None:
        return [inputs, *(wanted or [HIDDEN]), outputs]
    widths = [initial[0][0].shape[2], *(weight.shape[1] for weight, _ in initial)]
    if wanted not in (None, widths[1:-1]):
        raise PrecodeShapeError(f"hidden = {wanted}, but init has hidden widths {widths[1:-1]}: leave hidden out")
    if (widths[0], widths[-1]) != (inputs, outputs):
        raise PrecodeShapeError(
            f"init has {widths[0]} inputs and {widths[-1]} outputs, but the embedded task has {inputs} and {outputs}"
        )
    return widths


def _on_device(layers: Layers, device: torch.device, dtype: torch.dtype) -> Layers:
    """Copies on the wanted device, so that the caller's weights are left alone."""

    def copy(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().to(device=device, dtype=dtype, copy=True)

    return [(copy(weight), copy(bias)) for weight, bias in layers]


def _masked(layers: Layers, masks: Sequence[NDArray[np.bool_] | None] | None) -> Layers:
    """Layers with zeros where the masks are False."""
    if masks is None:
        return layers
    return [
        (weight if mask is None else weight * torch.from_numpy(mask).view(weight.shape).to(weight), bias)
        for (weight, bias), mask in zip(layers, masks, strict=True)
    ]
