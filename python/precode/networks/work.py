"""What a run trains on: tasks, data and random streams, checked against each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from precode import _precode
from precode._internal import memory
from precode._internal.check import COUNT, KEY, integer, integers, is_integer
from precode._internal.errors import PrecodeShapeError, PrecodeTypeError, PrecodeValueError
from precode.formulas import samplers
from precode.formulas.datasets import Dataset, data_sets, packed_bytes
from precode.formulas.dnf import Dnf


def sample_all(
    tasks: Sequence[Dnf],
    samples: int,
    *,
    sampler: str | samplers.Sampler,
    seed: int,
    indices: Sequence[int],
    purpose: Literal["train", "validation", "test"] = "train",
) -> list[Dataset]:
    """One data set for each task, drawn in parallel: ``tasks[i].sample(samples, seed=seed, index=indices[i])``.

    Raises:
        UnsupportedError: they do not fit into memory.
    """
    memory.check(
        sum(packed_bytes(samples, task.variables, task.outputs) for task in tasks),
        f"drawing {samples} samples for each of {len(tasks)} tasks",
        "draw fewer, or for fewer tasks at a time",
    )
    packed = _precode.sample_all(
        [task._formula for task in tasks], samplers.resolve(sampler), samples, seed, list(indices), purpose
    )
    return [Dataset._wrap(item) for item in packed]


@dataclass(frozen=True)
class Work:
    """What a run trains on, before anything is drawn.

    Attributes:
        tasks: the formula of each network, or None.
        data: the data set of each network, or None where they are to be drawn.
        validation: number of samples to draw, or the data set of each network.
        streams: number of each network's random streams.
        variables: n, the same for all.
        outputs: labels of a sample, the same for all.
    """

    tasks: list[Dnf] | None
    data: list[Dataset] | None
    validation: int | list[Dataset]
    streams: list[int]
    variables: int
    outputs: int

    @property
    def networks(self) -> int:
        """R."""
        return len(self.streams)

    def draw(self, samples: int, sampler: str | samplers.Sampler, seed: int) -> tuple[list[Dataset], list[Dataset]]:
        """Training and validation data of each network; no validation data if none are wanted."""
        sets, held_out = self.data, self.validation
        if sets is None:
            sets = sample_all(self.tasks or (), samples, sampler=sampler, seed=seed, indices=self.streams)
        if isinstance(held_out, int):
            held_out = (
                sample_all(
                    self.tasks or (), held_out, sampler=sampler, seed=seed, indices=self.streams, purpose="validation"
                )
                if held_out
                else []
            )
        return sets, held_out


def resolve(
    tasks: Dnf | Iterable[Dnf] | None,
    data: Dataset | Iterable[Dataset] | None,
    validation: int | Dataset | Iterable[Dataset],
    indices: int | Iterable[int] | None,
    stacked: int | None,
) -> Work:
    """Tasks, data and streams of a run, checked against each other.

    Args:
        tasks: see `train`.
        data: see `train`.
        validation: see `train`.
        indices: see `train`.
        stacked: number of networks in the initial weights, if there are any.
    """
    formulas = None if tasks is None else _tasks(tasks)
    if formulas is None and data is None:
        raise PrecodeValueError("nothing to train on: pass tasks, or data")
    sets = None if data is None else data_sets(data, stacked if formulas is None else len(formulas))
    networks = len(formulas if formulas is not None else sets or ())
    if networks == 0:
        raise PrecodeValueError("0 networks: pass at least one task or data set")
    if stacked not in (None, networks):
        raise PrecodeShapeError(f"init has {stacked} networks, but there are {networks} tasks")
    streams = list(range(networks)) if indices is None else integers(indices, "indices", 0, KEY)
    if len(streams) != networks:
        raise PrecodeShapeError(f"{len(streams)} indices for {networks} networks: pass one for each")
    held_out: int | list[Dataset]
    if isinstance(validation, Dataset | Iterable) and not isinstance(validation, str) and not is_integer(validation):
        held_out = data_sets(validation, networks, "validation")
    else:
        held_out = integer(validation, "validation", 0, COUNT)
        if held_out and formulas is None:
            raise PrecodeValueError(f"validation = {held_out} samples cannot be drawn without tasks: pass data sets")
    sized = {"task": formulas, "data set": sets, "validation set": held_out if isinstance(held_out, list) else None}
    variables, outputs = _sizes(sized)
    return Work(formulas, sets, held_out, streams, variables, outputs)


def _sizes(items: Mapping[str, Sequence[Dnf | Dataset] | None]) -> tuple[int, int]:
    """The variables and outputs that all tasks and data sets have.

    Raises:
        PrecodeShapeError: two of them differ.
    """
    sizes: dict[tuple[int, int], str] = {}
    seen: set[int] = set()
    for kind, listed in items.items():
        for number, item in enumerate(listed or ()):
            if id(item) not in seen:
                seen.add(id(item))
                sizes.setdefault((item.variables, item.outputs), f"{kind} {number}")
    if len(sizes) > 1:
        (first, name), (second, other) = list(sizes.items())[:2]
        raise PrecodeShapeError(
            f"{name} has {first[0]} variables and {first[1]} outputs, but {other} has {second[0]} variables and "
            f"{second[1]} outputs: all tasks and data of a run have as many"
        )
    return next(iter(sizes))


def _tasks(tasks: Dnf | Iterable[Dnf]) -> list[Dnf]:
    if isinstance(tasks, str) or not isinstance(tasks, Dnf | Iterable):
        raise PrecodeTypeError(f"tasks must be Dnf formulas, not {type(tasks).__name__}")
    listed = [tasks] if isinstance(tasks, Dnf) else list(tasks)
    for task in listed:
        if not isinstance(task, Dnf):
            raise PrecodeTypeError(f"tasks must be Dnf formulas, not {type(task).__name__}")
    return listed
