"""The cells of a study: what is computed, piece by piece, each known by everything that its result depends on."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import pandas as pd

from precode._internal.errors import PrecodeTypeError, PrecodeValueError, UnsupportedError
from precode.study import encoding
from precode.study.config import StudyConfig

Settings: TypeAlias = "dict[str, Any]"
"""What a cell is computed from: names with values that JSON has."""

Results: TypeAlias = "Mapping[str, encoding.Value]"
"""What a cell computes: tables, and arrays by name, by the name of the result."""

NAME = re.compile("[a-z0-9_]+")
"""Names of kinds and results."""


def numerics() -> str:
    """The versions of the software that numbers depend on."""
    from precode import TORCH_VERSION, __version__

    return f"precode {__version__}, torch {TORCH_VERSION}"


@dataclass(frozen=True)
class Kind:
    """A kind of cells: how a configuration falls into them, and how one is computed.

    `compute` gets a cell's settings and nothing else, so that a result depends on nothing that its cell does not name.
    It must give the same bits whenever it gets the same settings. It is a function of a module, so that other processes
    can find it.

    Attributes:
        name: of small letters, digits and underscores.
        cells: from the configuration, the settings of each cell, in the order of the tables.
        compute: from a cell's settings, its results.
        seconds: from a cell's settings, an estimate of what it takes on one core.
        version: to be raised when `compute` changes its results.

    Example:
        >>> from precode.study import StudyConfig
        >>> kind = Kind("squares", lambda config: [{"x": 2}, {"x": 3}], lambda cell: {}, lambda cell: 0.1)
        >>> [cell.settings for cell in plan(StudyConfig.preset("quick"), [kind]).cells]
        [{'x': 2}, {'x': 3}]
    """

    name: str
    cells: Callable[[StudyConfig], Iterable[Settings]]
    compute: Callable[[Settings], Results]
    seconds: Callable[[Settings], float]
    version: int = 1

    def __post_init__(self) -> None:
        _named(self.name, "kind")


KINDS: dict[str, Kind] = {}
"""The kinds that a study consists of, by name, in the order of computation; see `register`."""


def register(kind: Kind) -> Kind:
    """Makes a kind part of every study.

    Raises:
        PrecodeValueError: there is one of that name.
    """
    if kind.name in KINDS:
        raise PrecodeValueError(f"kind {kind.name!r} is there already: choose another name")
    KINDS[kind.name] = kind
    return kind


def _named(name: object, what: str) -> str:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise PrecodeValueError(f"{what} {name!r}: names are of small letters, digits and underscores")
    return name


@dataclass(frozen=True)
class Cell:
    """One piece of a study's work.

    Attributes:
        kind: name of its kind.
        version: of its kind.
        text: its settings as canonical JSON.
        numerics: see `numerics`.
        seconds: estimate of what it takes on one core.
        key: SHA-256, in hexadecimal, of kind, version, settings and numerics.
    """

    kind: str
    version: int
    text: str
    numerics: str
    seconds: float

    @cached_property
    def key(self) -> str:
        """See the class."""
        named = [self.kind, self.version, self.text, self.numerics]
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()

    @property
    def settings(self) -> Settings:
        """What it is computed from."""
        settings: Settings = json.loads(self.text)
        return settings

    def __str__(self) -> str:
        return f"{self.kind} {self.text}"


@dataclass(frozen=True)
class Plan:
    """The cells of a study, in the order of its tables; made by `plan`.

    Example:
        >>> from precode.study import StudyConfig
        >>> planned = plan(StudyConfig.preset("quick"))
        >>> planned.table()["kind"].value_counts().to_dict()
        {'codes': 6, 'tickets': 6}
    """

    cells: tuple[Cell, ...]

    @property
    def seconds(self) -> float:
        """Estimate of what all cells take on one core."""
        return sum(cell.seconds for cell in self.cells)

    def table(self) -> pd.DataFrame:
        """One row a cell: kind, key, seconds (the estimate for one core), settings (JSON)."""
        rows = [(cell.kind, cell.key, cell.seconds, cell.text) for cell in self.cells]
        return pd.DataFrame(rows, columns=["kind", "key", "seconds", "settings"])

    def describe(self, cores: int) -> str:
        """The cells of each kind, what they cost, and a time for so many cores, as text."""
        table = self.table().groupby("kind", sort=False)["seconds"].agg(["size", "sum"])
        lines = [f"{name}: {row['size']:.0f} cells, {row['sum']:.0f} core-seconds" for name, row in table.iterrows()]
        return "\n".join([*lines, f"{len(self.cells)} cells, about {duration(self.seconds / cores)} on {cores} cores"])


def duration(seconds: float) -> str:
    """A time as people say it.

    Example:
        >>> duration(42), duration(150), duration(7260)
        ('42 s', '2.5 min', '2.0 h')
    """
    for limit, unit, name in ((100, 1, "s"), (6000, 60, "min")):
        if seconds < limit:
            return f"{seconds / unit:.{0 if unit == 1 else 1}f} {name}"
    return f"{seconds / 3600:.1f} h"


def plan(config: StudyConfig, kinds: Iterable[Kind] | None = None) -> Plan:
    """The cells that a configuration falls into.

    Args:
        config: of the study.
        kinds: those of `KINDS` by default.

    Raises:
        PrecodeValueError: a kind's settings have no JSON form, two cells are the same, or there are none.

    Example:
        >>> from precode.study import StudyConfig
        >>> cells = plan(StudyConfig.preset("quick", methods=["imp"])).cells
        >>> len(cells), cells[0].kind, cells[0].settings["clauses"]
        (12, 'codes', 8)
    """
    if not isinstance(config, StudyConfig):
        raise PrecodeTypeError(f"config must be a StudyConfig, not {type(config).__name__}")
    cells: dict[str, Cell] = {}
    for kind in KINDS.values() if kinds is None else kinds:
        for settings in kind.cells(config):
            try:
                text = json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False)
            except (TypeError, ValueError) as error:
                raise PrecodeValueError(f"kind {kind.name!r}: settings {settings!r} have no JSON form") from error
            cell = Cell(kind.name, kind.version, text, numerics(), float(kind.seconds(json.loads(text))))
            if cell.key in cells:
                raise PrecodeValueError(f"cell {cell} is planned twice")
            cells[cell.key] = cell
    if not cells:
        raise PrecodeValueError("the study has no cells: register a kind, or pass kinds")
    return Plan(tuple(cells.values()))


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


@dataclass(frozen=True)
class File:
    """A result as it is written.

    Attributes:
        name: of the result.
        ending: `encoding.TABLE` or `encoding.ARRAYS`.
        data: its bytes.
    """

    name: str
    ending: str
    data: bytes


@dataclass(frozen=True)
class Computed:
    """What comes back from wherever a cell was computed.

    Attributes:
        files: its results, by name.
        seconds: wall-clock time it took there.
    """

    files: tuple[File, ...]
    seconds: float


def compute(function: Callable[[Settings], Results], cell: Cell, attempt: int) -> Computed:
    """Computes a cell, in whatever process.

    Args:
        function: its kind's.
        cell: what to compute.
        attempt: number of the attempt; some executors answer the same call with the same failure.

    Raises:
        UnsupportedError: this process has other software than the one that planned the cell.
        PrecodeTypeError: the function returned something else than results.
    """
    if numerics() != cell.numerics:
        raise UnsupportedError(f"a worker has {numerics()}, the study {cell.numerics}: install the same everywhere")
    began = time.perf_counter()
    results = function(cell.settings)
    if not isinstance(results, Mapping) or not results:
        raise PrecodeTypeError(f"kind {cell.kind!r} must return at least one result by name, not {results!r:.80}")
    files = [
        File(_named(name, "result"), *encoding.to_bytes(value, f"{cell.kind}.{name}"))
        for name, value in sorted(results.items())
    ]
    return Computed(tuple(files), time.perf_counter() - began)
