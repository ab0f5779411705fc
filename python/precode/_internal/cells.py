"""Cells: pieces of work known by everything that their result depends on, and the parts that they are divided into."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any, TypeAlias

from precode._internal.errors import PrecodeTypeError, PrecodeValueError

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from numpy.typing import NDArray

Settings: TypeAlias = "dict[str, Any]"
"""What a cell is computed from: names with values that JSON has."""

Parts: TypeAlias = "Mapping[str, tuple[Any, ...]]"
"""Values of every axis, by its name: all combinations of them are meant, a rectangle. Empty without axes."""

Value: TypeAlias = "pd.DataFrame | Mapping[str, NDArray[Any] | torch.Tensor]"
"""What a result can be: a table, or arrays by name."""

Results: TypeAlias = "Mapping[str, Value]"
"""What a cell computes, by the name of the result."""

NAME = re.compile("[a-z0-9_]+")
"""Names of kinds, axes and results."""


def numerics() -> str:
    """The versions of the software that numbers depend on."""
    from precode import TORCH_VERSION, __version__

    return f"precode {__version__}, torch {TORCH_VERSION}"


def named(name: object, what: str) -> str:
    """A name of a kind, axis or result.

    Raises:
        PrecodeValueError: not of small letters, digits and underscores.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise PrecodeValueError(f"{what} {name!r}: names are of small letters, digits and underscores")
    return name


def canonical(value: Any, what: str) -> str:
    """A value as JSON that is the same for the same value.

    Raises:
        PrecodeValueError: it has no JSON form.

    Example:
        >>> canonical({"b": (1, 2), "a": 0.5}, "settings")
        '{"a":0.5,"b":[1,2]}'
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise PrecodeValueError(f"{what} {value!r} have no JSON form: {error}") from error


def digest(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, eq=False)
class Kind:
    """A kind of cells: how a configuration falls into them, and how one is computed.

    A cell is divided into parts along the axes of its kind, such as densities and formulas: a study that grows computes
    the parts that are new. `compute` gets a cell's settings and the values of every axis that are wanted, and nothing
    else. It must give the same bits whenever it gets the same, and a part's rows must be the same whatever other parts
    are computed with it. It is a function of a module, so that other processes can find it.

    Attributes:
        name: of small letters, digits and underscores.
        cells: from the configuration, the settings of each cell, without values of the axes, in the order of the
            tables.
        compute: ``compute(settings, parts)`` gives the cell's results by name, for a rectangle of its parts; without
            axes ``compute(settings)``. Every table of a kind with axes has a column for each axis. Arrays of such
            a kind are named by their part as well, as in ``"3.w1"``.
        seconds: ``seconds(settings, parts)``, or ``seconds(settings)``: an estimate of what it takes on one core.
        axes: names of the axes. Rows of tables are put in the order of the first, then of the second, and so on.
        parts: from the configuration, the values of every axis by its name, in their order.
        columns: the column of tables that has an axis' values, by the axis, where it has another name than the axis.
        version: to be raised when `compute` changes its results.

    Raises:
        PrecodeValueError: a name that is none, or `axes` without `parts`.

    Example:
        >>> def powers(settings, parts):
        ...     rows = [{"power": power, "y": settings["x"] ** power} for power in parts["power"]]
        ...     return {"powers": pd.DataFrame(rows)}
        >>> import pandas as pd
        >>> from precode.study import StudyConfig, plan
        >>> kind = Kind(
        ...     "powers",
        ...     lambda config: [{"x": 2}, {"x": 3}],
        ...     powers,
        ...     lambda settings, parts: 0.1 * len(parts["power"]),
        ...     axes=("power",),
        ...     parts=lambda config: {"power": (1, 2, 3)},
        ... )
        >>> [(cell.settings, cell.parts) for cell in plan(StudyConfig.preset("quick"), [kind]).cells]
        [({'x': 2}, {'power': (1, 2, 3)}), ({'x': 3}, {'power': (1, 2, 3)})]
    """

    name: str
    cells: Callable[[Any], Iterable[Settings]]
    compute: Callable[..., Results]
    seconds: Callable[..., float]
    axes: tuple[str, ...] = ()
    parts: Callable[[Any], Mapping[str, Iterable[Any]]] | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    version: int = 1

    def __repr__(self) -> str:
        axes = f", axes={', '.join(self.axes)}" if self.axes else ""
        return f"Kind({self.name}{axes}, version={self.version})"

    def __post_init__(self) -> None:
        named(self.name, "kind")
        for axis in self.axes:
            named(axis, f"axis of kind {self.name!r}")
        if bool(self.axes) != (self.parts is not None):
            raise PrecodeValueError(f"kind {self.name!r}: give axes and parts together, or neither")
        if unknown := sorted(set(self.columns) - set(self.axes)):
            raise PrecodeValueError(f"kind {self.name!r}: {', '.join(unknown)} in columns is none of its axes")

    def planned(self, config: Any) -> list[Cell]:
        """The cells of a configuration.

        Raises:
            PrecodeValueError: settings or parts have no JSON form, or an axis has no values or the same one twice.
        """
        axes = self._axes(config)
        cells = []
        for settings in self.cells(config):
            text = canonical(settings, f"kind {self.name!r}: settings")
            cell = Cell(self.name, self.version, text, numerics(), axes)
            seconds = self.seconds(cell.settings, cell.parts) if axes else self.seconds(cell.settings)
            cells.append(replace(cell, seconds=float(seconds)))
        return cells

    def _axes(self, config: Any) -> tuple[Axis, ...]:
        given = {} if self.parts is None else dict(self.parts(config))
        if set(given) != set(self.axes):
            raise PrecodeValueError(f"kind {self.name!r}: parts of {sorted(given)}, but its axes are {list(self.axes)}")
        found = []
        for name in self.axes:
            text = canonical(list(given[name]), f"kind {self.name!r}: parts")
            values = tuple(json.loads(text))
            if not values or len(set(map(str, values))) < len(values):
                raise PrecodeValueError(f"kind {self.name!r}: {name} = {text}: give at least one value, none twice")
            found.append(Axis(name, self.columns.get(name, name), values))
        return tuple(found)


@dataclass(frozen=True)
class Axis:
    """An axis of a kind of cells, as it is planned.

    Attributes:
        name: of the axis.
        column: of tables that has its values.
        values: in their order.
    """

    name: str
    column: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Cell:
    """One piece of a study's work: a point of the setting, and for tickets one method.

    Attributes:
        kind: name of its kind.
        version: of its kind.
        text: its settings as canonical JSON.
        numerics: see `numerics`.
        axes: along which it is divided into parts; no part of its key.
        seconds: estimate of what all of its parts take on one core.
        key: SHA-256, in hexadecimal, of kind, version, settings and numerics.
    """

    kind: str
    version: int
    text: str
    numerics: str
    axes: tuple[Axis, ...] = field(default=(), compare=False)
    seconds: float = field(default=0.0, compare=False)

    @cached_property
    def key(self) -> str:
        """See the class."""
        return digest(json.dumps([self.kind, self.version, self.text, self.numerics]))

    @property
    def settings(self) -> Settings:
        """What it is computed from."""
        settings: Settings = json.loads(self.text)
        return settings

    @property
    def parts(self) -> dict[str, tuple[Any, ...]]:
        """All of its parts."""
        return {axis.name: axis.values for axis in self.axes}  # noqa: PD011

    @property
    def size(self) -> int:
        """Number of its parts."""
        return math.prod(map(len, self.parts.values()))

    def jobs(self, finished: Iterable[Job] = ()) -> list[Job]:
        """What is left to do: as few rectangles of unfinished parts as are easily found."""
        there = {part for job in finished for part in job.tuples()}
        missing = [part for part in product(*self.parts.values()) if part not in there]
        names = [axis.name for axis in self.axes]
        return [Job(self, canonical(dict(zip(names, found, strict=True)), "parts")) for found in rectangles(missing)]

    def __repr__(self) -> str:
        return f"Cell({self.kind}, parts={self.size}, key={self.key[:12]})"

    def __str__(self) -> str:
        return f"{self.kind} {self.text}"


@dataclass(frozen=True)
class Job:
    """What is computed in one go: a cell's parts of a rectangle.

    Attributes:
        cell: whose parts they are.
        text: the values of every axis as canonical JSON.
        digest: first 16 digits of the SHA-256 of `text`, in hexadecimal.
    """

    cell: Cell
    text: str

    @cached_property
    def digest(self) -> str:
        """See the class."""
        return digest(self.text)[:16]

    @property
    def parts(self) -> dict[str, tuple[Any, ...]]:
        """The values of every axis, in the order of the axes."""
        values = json.loads(self.text)
        return {axis.name: tuple(values[axis.name]) for axis in self.cell.axes}

    @property
    def key(self) -> tuple[str, str]:
        """The key of its cell and its digest."""
        return self.cell.key, self.digest

    @property
    def size(self) -> int:
        """Number of its parts."""
        return math.prod(map(len, self.parts.values()))

    @property
    def seconds(self) -> float:
        """Its share of the cell's estimate."""
        return self.cell.seconds * self.size / self.cell.size

    def tuples(self) -> Iterator[tuple[Any, ...]]:
        """Every part: one value of each axis."""
        return product(*self.parts.values())

    def __str__(self) -> str:
        return f"{self.cell} {self.text}" if self.cell.axes else str(self.cell)


def rectangles(parts: Collection[tuple[Any, ...]]) -> list[tuple[tuple[Any, ...], ...]]:
    """Parts as rectangles that cover each of them once: values of every axis, all combinations of which are meant.

    Example:
        >>> rectangles([(0.5, 2), (0.25, 0), (0.25, 1), (0.25, 2), (0.125, 2)])
        [((0.5, 0.125), (2,)), ((0.25,), (0, 1, 2))]
        >>> rectangles([()]), rectangles([])
        ([()], [])
    """
    if not parts or not len(next(iter(parts))):
        return [()] if parts else []
    behind: dict[Any, list[tuple[Any, ...]]] = {}
    for first, *rest in parts:
        behind.setdefault(first, []).append(tuple(rest))
    groups: dict[tuple[tuple[Any, ...], ...], list[Any]] = {}
    for first, rests in behind.items():
        groups.setdefault(tuple(rests), []).append(first)
    return [(tuple(firsts), *others) for rests, firsts in groups.items() for others in rectangles(rests)]


def check_results(results: object, job: Job) -> dict[str, Value]:
    """What a kind computed, by name in alphabetical order.

    Raises:
        PrecodeTypeError: something else than results by name.
        PrecodeValueError: a name that is none; a table that lacks the column of an axis, or has rows of parts that were
            not asked for.
    """
    if not isinstance(results, Mapping) or not results:
        raise PrecodeTypeError(f"kind {job.cell.kind!r} must return at least one result by name, not {results!r:.80}")
    for name, value in results.items():
        named(name, "result")
        columns = getattr(value, "columns", None)
        if columns is None:
            continue
        for axis in job.cell.axes:
            if axis.column not in columns:
                raise PrecodeValueError(
                    f"table {name!r} of kind {job.cell.kind!r} has no column {axis.column!r}, which says "
                    f"the part along axis {axis.name!r} that a row belongs to"
                )
            if strange := set(value[axis.column].unique()) - set(job.parts[axis.name]):
                raise PrecodeValueError(
                    f"table {name!r} of kind {job.cell.kind!r}: {axis.column} = {sorted(map(str, strange))[0]} was not "
                    f"asked for, but {axis.name} = {list(job.parts[axis.name])}"
                )
    return dict(sorted(results.items()))


STEP = (0.3e-6, 0.0175e-6)
"""Core-seconds of one network-step of training, and of each hidden row of it: the fused engine with AVX-512 on 32
variables, batches of 64 and Adam (see the documentation, under performance). AVX2 takes 1.6 times as long."""


def training_seconds(networks: int, hidden: int, samples: int, epochs: int, batch: int = 64) -> float:
    """An estimate of what it takes to train a stack on one core, by `STEP`.

    Example:
        >>> round(training_seconds(10, hidden=32, samples=20_000, epochs=25), 3)
        0.067
    """
    start, row = STEP
    return networks * -(-samples // batch) * epochs * (start + row * hidden)
