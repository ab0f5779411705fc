"""What becomes of the weights and codes of a module while a user's own loop trains it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from precode._internal.check import COUNT, fractions, integer
from precode._internal.errors import PrecodeTypeError, PrecodeValueError
from precode._internal.lazy import Lazy
from precode.codes.decoding import Codes
from precode.codes.distances import distances
from precode.codes.readouts import ClauseSets, EmbeddingLike, readout
from precode.formulas.dnf import Dnf
from precode.modules import selection
from precode.modules.pair import pair_of
from precode.modules.prunable import automatic
from precode.modules.steps import Steps
from precode.tickets import masked

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
else:
    pd = Lazy("pandas")

NEAREST = "distance"
"""The column of the mean distance of a clause's nearest row from the template."""

KINDS = ("change", "start", "flips", "weights")
"""What is kept of each weight: two sums of squares, and two counts."""


@dataclass
class Moment:
    """What is kept of a module after some steps.

    Attributes:
        tensors: for each weight the numbers named in `KINDS`.
        masks: for each density the magnitude masks by name, eight weights a byte.
        weights: w1, w2 and, where the module computes it, C0, of the layers that codes are read from.
    """

    tensors: dict[str, dict[str, float]]
    masks: dict[float, dict[str, torch.Tensor]]
    weights: dict[str, torch.Tensor]


class Log(Steps):
    """What `watch` records; a context manager.

    Attributes:
        steps: optimizer steps so far.
        every: steps between two records.
        densities: of the magnitude masks.
        unread: what is not read of the module, each with the reason.
    """

    def __init__(
        self,
        module: nn.Module,
        task: ClauseSets | None,
        layers: tuple[str, str] | None,
        every: int,
        densities: Iterable[float],
        template: str | None,
        embedding: EmbeddingLike | nn.Linear,
        output: int | None,
    ) -> None:
        super().__init__(module)
        self.every = integer(every, "every", 1, COUNT)
        self.densities = list(dict.fromkeys(fractions(densities, "densities")))
        self._task, self._template, self._embedding = task, template, embedding
        slots = masked.slots(self._module)
        self._pair = pair_of(self._module, slots, layers, output, several=task is not None)
        names, left_out = automatic(self._module, slots)
        self._names = [name for name, slot in slots.items() if name in names or slot.pruned]
        self.unread = {name: f"the weight is {reason}" for name, reason in left_out.items()}
        if not self._names:
            raise PrecodeValueError("there is nothing to watch: no linear, convolutional, attention or recurrent layer")
        if task is None:
            self.unread["codes"] = "no task is given"
        elif self._pair is None:
            linear = [name for name, layer in self._module.named_modules() if isinstance(layer, nn.Linear)]
            raise PrecodeValueError(
                "codes are read at two linear layers that follow one another: name them with layers=; the module has "
                + (", ".join(f"'{name}'" for name in linear) or "none")
            )
        if isinstance(embedding, nn.Module) and (
            not isinstance(embedding, nn.Linear) or all(embedding is not layer for layer in module.modules())
        ):
            raise PrecodeTypeError("embedding must be a linear layer of the module, or as in precode.decode")
        self._start: dict[str, torch.Tensor] = {}
        self._moments: dict[int, Moment] = {}
        if task is not None:
            self._codes(self._two_layers(slots)).distance(template)  # what does not fit is said before the training

    # Records

    def begin(self) -> None:
        """Records the start."""
        if not self._moments:
            self.record()

    def _round_ended(self) -> None:
        if self.steps % self.every == 0:
            self.record()

    def end(self) -> None:
        """Records the end."""
        self.record()
        if not self.steps:
            self.unread["steps"] = "no optimizer of torch.optim updated a parameter of the module; see Log.step"

    @torch.no_grad()
    def record(self) -> None:
        """Records the present moment, if it is not recorded yet, whatever `every` says."""
        if self.steps in self._moments:
            return
        slots = masked.slots(self._module)
        weights = {name: slots[name].values() for name in self._names if name in slots}
        if not self._start:
            self._start = {name: weight.clone() for name, weight in weights.items()}
        for name in self._names:
            if name not in slots:
                self.unread[name] = f"the module has no such parameter after {self.steps} steps"
        finite = {name: weight for name, weight in weights.items() if bool(torch.isfinite(weight).all())}
        for name in weights.keys() - finite.keys():
            self.unread.setdefault(name, f"the weight is not finite after {self.steps} steps")
        scores = {name: weight.abs() for name, weight in weights.items()}
        whole = len(finite) == len(self._names)
        masks = {density: selection.largest(scores, density) for density in self.densities} if whole else {}
        packed = {density: {name: _packed(mask) for name, mask in each.items()} for density, each in masks.items()}
        tensors = {name: _change(weight, self._start[name].to(weight.device)) for name, weight in weights.items()}
        layers = {} if self._task is None else self._two_layers(slots)
        if not all(bool(torch.isfinite(weight).all()) for weight in layers.values()):
            layers = {}
        self._moments[self.steps] = Moment(tensors, packed, layers)

    def _two_layers(self, slots: dict[str, masked.Slot]) -> dict[str, torch.Tensor]:
        """Copies of w1, w2 and C0 on the CPU."""
        if self._pair is None:
            return {}
        first, second, _ = self._pair
        layers = {"w1": slots[first].values(), "w2": slots[second].values()}
        if isinstance(self._embedding, nn.Linear):
            layers["c0"] = self._embedding.weight.detach()
        return {name: value.to("cpu", torch.float64, copy=True) for name, value in layers.items()}

    # Readings

    @property
    def recorded(self) -> list[int]:
        """The steps after which the module was recorded, from 0 on."""
        return sorted(self._moments)

    def codes(self, step: int) -> Codes:
        """The codes after some steps, to look into, or for `precode.motion` between two moments.

        Raises:
            PrecodeValueError: no task was given; that step was not recorded, or the weights were not finite then.
        """
        if self._task is None:
            raise PrecodeValueError("codes are read for a task: pass it to watch")
        if step not in self._moments:
            raise PrecodeValueError(f"step = {step} was not recorded: there are {self.recorded}")
        if not self._moments[step].weights:
            raise PrecodeValueError(f"the weights were not finite after {step} steps: there are no codes")
        return self._codes(self._moments[step].weights)

    def _codes(self, layers: Mapping[str, torch.Tensor]) -> Codes:
        assert self._pair is not None
        assert self._task is not None
        output, task = self._pair[2], self._task
        several = isinstance(task, Dnf) and task.outputs > 1
        embedding: Any = layers.get("c0", self._embedding)
        w2 = layers["w2"] if several else layers["w2"][output]
        return Codes(readout(layers["w1"], w2, task, embedding=embedding, output=output if several else 0))

    def table(self) -> pd.DataFrame:
        """One row a moment.

        Columns: step; moved, the distance of all weights from their start, divided by the norm of the start;
        sign_changes, the part of the weights whose sign is not that of the start; for each density d ``jaccard_d``,
        the Jaccard index of the mask of the largest magnitudes with that of the last moment (of two random masks it is
        d / (2 - d), nearly). With a task also those of `Codes.summary`; ``distance``, the mean over clauses of the
        distance ("soft") of the nearest row from the template; and ``motion``, the mean over locations of
        `precode.motion` since the start. NaN where weights are not finite.
        """
        last = self._moments[self.recorded[-1]].masks if self._moments else {}
        start = self._readout(0) if self._task is not None and self._moments else None
        rows = []
        for step in self.recorded:
            moment = self._moments[step]
            sums = {name: sum(part[name] for part in moment.tensors.values()) for name in KINDS}
            row: dict[str, Any] = {
                "step": step,
                "moved": _ratio(sums["change"], sums["start"]),
                "sign_changes": sums["flips"],
            }
            row["sign_changes"] /= sum(part["weights"] for part in moment.tensors.values())
            for density in self.densities:
                row[f"jaccard_{density:g}"] = _jaccard(moment.masks.get(density), last.get(density))
            if start is not None:
                now = self._readout(step)
                row |= {NEAREST: float("nan"), "motion": float("nan")} if now is None else _nearness(start, now)
                if now is not None:
                    row |= {str(name): value for name, value in self.codes(step).summary().iloc[0].items()}
                    del row["network"]
            rows.append(row)
        return pd.DataFrame(rows)

    def tensors(self) -> pd.DataFrame:
        """One row a moment and weight: columns step, name, weights (their number), moved, sign_changes, jaccard_d."""
        last = self._moments[self.recorded[-1]].masks if self._moments else {}
        rows = []
        for step in self.recorded:
            moment = self._moments[step]
            for name, part in moment.tensors.items():
                row: dict[str, Any] = {"step": step, "name": name, "weights": int(part["weights"])}
                row |= {"moved": _ratio(part["change"], part["start"]), "sign_changes": part["flips"] / part["weights"]}
                for density in self.densities:
                    pair = [masks.get(density, {}).get(name) for masks in (moment.masks, last)]
                    one, other = ({} if mask is None else {name: mask} for mask in pair)
                    row[f"jaccard_{density:g}"] = _jaccard(one, other)
                rows.append(row)
        return pd.DataFrame(rows)

    def _readout(self, step: int) -> Any:
        """The distances of all locations after some steps, (C, j); None where weights were not finite."""
        if not self._moments[step].weights:
            return None
        return distances(self.codes(step).read_out(), self._template, "soft", "layer", "ignore")

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """The columns moved, sign_changes and jaccard_d of `table` against the step; codes on a second axis."""
        from precode.plot import watched

        return watched(self.table(), ax=ax)

    # Resuming

    def state_dict(self) -> dict[str, Any]:
        """What has been recorded, for a checkpoint; made of numbers, strings and tensors alone."""
        moments = {step: vars(moment).copy() for step, moment in self._moments.items()}
        return super().state_dict() | {"start": dict(self._start), "moments": moments}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a checkpoint: moments are again those that were recorded.

        Raises:
            PrecodeValueError: it is of other weights or densities.
        """
        if state["start"].keys() != set(self._names):
            raise PrecodeValueError("the checkpoint is of another module: its weights have other names")
        moments = {step: Moment(**moment) for step, moment in state["moments"].items()}
        if any(moment.masks and list(moment.masks) != self.densities for moment in moments.values()):
            raise PrecodeValueError("the checkpoint has masks of other densities: pass the same densities=")
        super().load_state_dict(state)
        self._moments = moments
        slots = masked.slots(self._module)
        self._start = {name: value.to(slots[name].parameter.device) for name, value in state["start"].items()}

    def __repr__(self) -> str:
        codes = "no codes" if self._task is None else "codes"
        return f"Log(steps={self.steps}, moments={len(self._moments)}, weights in {len(self._names)} tensors, {codes})"

    def _repr_html_(self) -> str:
        return str(self.table().to_html(index=False, float_format="{:.3g}".format, max_rows=12, border=0))


def watch(
    module: nn.Module,
    task: ClauseSets | None = None,
    layers: tuple[str, str] | None = None,
    *,
    every: int = 50,
    densities: float | Iterable[float] = (0.5, 0.1),
    template: str | None = None,
    embedding: EmbeddingLike | nn.Linear = None,
    output: int | None = None,
) -> Log:
    """Records what becomes of a module while a user's own loop trains it, within a ``with`` block.

    A moment is recorded when the block is entered, after every so many optimizer steps, and when it is left. Optimizer
    steps are counted, and not calls of the module, because weights change with them alone: validation, accumulated
    gradients, checkpointing and skipped steps of a gradient scaler do not count. A step is a round in which no
    parameter is updated twice, so that two optimizers that share the parameters out make one step together. The loop
    needs one of `torch.optim`, or calls `Log.step` itself.

    Nothing of the module, its gradients and modes, the optimizer and the random states changes; hooks are removed when
    the block is left, also by an exception. Memory: one copy of the weights, and for each moment one bit a weight and
    density. Masks of a ticket are looked through: a pruned weight counts as zero.

    Args:
        module: any module with linear, convolutional, attention or recurrent layers.
        task: a `Dnf`, or clauses as in `precode.decode`, for codes; None: codes are not read.
        layers: names of the two linear layers that codes are read from; if None and the module has exactly two, those.
        every: steps between two records.
        densities: of the masks of the largest magnitudes, over all weights; each in (0, 1].
        template: see `precode.distance`.
        embedding: as in `precode.decode`; or the linear layer of the module that computes C0 x, which is then read
            whenever codes are.
        output: the output of the second layer that the task is of; to be named where it has several.

    Raises:
        PrecodeValueError: nothing to watch; a task, and no two linear layers to read its codes from; a density or
            number of steps out of range.
        PrecodeShapeError: the task does not fit the layers.
        PrecodeTypeError: not a module.

    Example:
        >>> from precode import Dnf
        >>> task = Dnf.random(variables=8, clauses=2, width=2, seed=0)
        >>> module = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        >>> with watch(module, task, every=2, densities=0.5) as log:
        ...     for _ in range(5):
        ...         module(torch.ones(3, 8)).sum().backward()
        ...         optimizer.step()
        >>> log
        Log(steps=5, moments=4, weights in 2 tensors, codes)
        >>> log.table().columns[:6].tolist()
        ['step', 'moved', 'sign_changes', 'jaccard_0.5', 'distance', 'motion']
        >>> log.codes(4).channels().shape
        (2, 4)
    """
    return Log(module, task, layers, every, densities, template, embedding, output)  # type: ignore[arg-type]


def _change(weight: torch.Tensor, start: torch.Tensor) -> dict[str, float]:
    """Sums of squares and counts, from which those of several tensors follow; NaN of a weight that is not finite."""
    if not bool(torch.isfinite(weight).all()):
        return dict.fromkeys(KINDS, float("nan")) | {"weights": float(weight.numel())}
    now, then = (value.float() if value.element_size() < 4 else value for value in (weight, start))
    return {
        "change": float((now - then).square().sum()),
        "start": float(then.square().sum()),
        "flips": float((now.sign() != then.sign()).sum()),
        "weights": float(weight.numel()),
    }


def _ratio(change: float, start: float) -> float:
    return float((change / start) ** 0.5) if start else float("nan")


def _packed(mask: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.packbits(mask.cpu().numpy()))


def _jaccard(one: Mapping[str, torch.Tensor] | None, other: Mapping[str, torch.Tensor] | None) -> float:
    """The Jaccard index of packed masks; NaN where both are empty or one is missing."""
    if not one or not other:
        return float("nan")
    pairs = [(one[name].numpy(), other[name].numpy()) for name in one]
    both = sum(int(np.bitwise_count(first & second).sum()) for first, second in pairs)
    either = sum(int(np.bitwise_count(first | second).sum()) for first, second in pairs)
    return both / either if either else float("nan")


def _nearness(start: Any, now: Any) -> dict[str, float]:
    return {NEAREST: float(now.min(-1).mean()), "motion": float((now - start).mean())}
