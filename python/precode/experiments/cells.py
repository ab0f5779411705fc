"""The cells of an experiment: what is computed, piece by piece, and how finished pieces are kept in a folder."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from precode._internal.errors import PrecodeFileError
from precode._internal.files import write_atomically

Settings: TypeAlias = "dict[str, Any]"
"""What a cell is computed from: names with values that JSON has."""

Parts: TypeAlias = "Mapping[str, Sequence[Any]]"
"""A rectangle of a cell's parts: the values along each axis."""

Tables: TypeAlias = "dict[str, pd.DataFrame]"
"""What is computed: tables by name, with a column for each axis."""

FORMULA = "formula"
"""The axis of formulas, the unit that intervals are taken over. Every kind has it, last."""


def numerics() -> str:
    """The versions of the software that numbers depend on."""
    from precode import TORCH_VERSION, __version__

    return f"precode {__version__}, torch {TORCH_VERSION}"


@dataclass(frozen=True)
class Kind:
    """A kind of cells: how a setting falls into them, and how parts of one are computed.

    Attributes:
        name: of small letters, digits and underscores.
        cells: from the setting of the experiment, the settings of each cell, in the order of the tables.
        compute: from a cell's settings and a rectangle of its parts, tables by name. The rows of a part are the same
            bits whichever others are computed with it.
        seconds: from the same, an estimate of what it takes on one core.
        axes: along which a cell is divided into parts.
        parts: from the setting, the values along each axis.
        version: to be raised when `compute` changes its results.

    Example:
        >>> kind = Kind("squares", lambda setting: [{"x": 2}], lambda cell, parts: {}, lambda cell, parts: 0.1)
        >>> kind.cells(None), kind.axes
        ([{'x': 2}], ('formula',))
    """

    name: str
    cells: Callable[[Any], Iterable[Settings]]
    compute: Callable[[Settings, Parts], Tables]
    seconds: Callable[[Settings, Parts], float]
    axes: tuple[str, ...] = (FORMULA,)
    parts: Callable[[Any], Parts] = lambda setting: {FORMULA: range(setting["formulas"])}
    version: int = 1

    def key(self, settings: Settings) -> str:
        """SHA-256, in hexadecimal, of everything that a cell's results depend on."""
        text = json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(json.dumps([self.name, self.version, text, numerics()]).encode()).hexdigest()


@dataclass(frozen=True)
class Job:
    """A cell and a rectangle of its parts, computed in one go.

    Attributes:
        settings: of the cell.
        parts: what of it was computed.
        tables: the results.
        seconds: wall-clock time it took.
    """

    settings: Settings
    parts: Parts
    tables: Tables
    seconds: float


def compute(kind: Kind, settings: Settings, parts: Parts, folder: Path | None) -> list[Job]:
    """What of a cell is in the folder, and, computed now and kept there, what is not.

    Args:
        kind: of the cell.
        settings: of the cell.
        parts: what of it is wanted.
        folder: of finished jobs; None to keep none.
    """
    jobs = [] if folder is None else [_chosen(job, parts) for job in _read(folder, kind, settings, parts)]
    there = {formula for job in jobs for formula in job.parts[FORMULA]}
    if missing := [formula for formula in parts[FORMULA] if formula not in there]:
        rectangle = {**parts, FORMULA: missing}
        began = time.perf_counter()
        tables = kind.compute(settings, rectangle)
        jobs.append(Job(settings, rectangle, tables, time.perf_counter() - began))
        if folder is not None:
            _write(folder, kind, jobs[-1])
    return jobs


def _chosen(job: Job, parts: Parts) -> Job:
    """The formulas of a job that are wanted, with their share of its time."""
    wanted = [formula for formula in job.parts[FORMULA] if formula in parts[FORMULA]]
    tables = {name: table[table[FORMULA].isin(wanted)].reset_index(drop=True) for name, table in job.tables.items()}
    share = len(wanted) / len(job.parts[FORMULA])
    return Job(job.settings, {**job.parts, FORMULA: wanted}, tables, job.seconds * share)


def _read(folder: Path, kind: Kind, settings: Settings, parts: Parts) -> list[Job]:
    """The finished jobs of a cell with the wanted values on all axes but that of formulas; no formula twice.

    Raises:
        PrecodeFileError: a file is damaged.
    """
    jobs: list[Job] = []
    there: set[Any] = set()
    others = {axis: list(values) for axis, values in parts.items() if axis != FORMULA}
    for path in sorted(folder.glob(f"{kind.key(settings)}.*.json")):
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            content = kept["content"]
            whole = _digest(content) == kept["sha256"] and content["settings"] == json.loads(json.dumps(settings))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise _damaged(path) from error
        if not whole:
            raise _damaged(path)
        found = content["parts"]
        formulas = [formula for formula in found[FORMULA] if formula not in there]
        if formulas and {axis: values for axis, values in found.items() if axis != FORMULA} == others:
            tables = {name: pd.DataFrame(columns) for name, columns in content["tables"].items()}
            jobs.append(_chosen(Job(settings, found, tables, content["seconds"]), {FORMULA: formulas}))
            there.update(formulas)
    return jobs


def _damaged(path: Path) -> PrecodeFileError:
    return PrecodeFileError(f"{path} is damaged: remove it, and what it held is computed again")


def _write(folder: Path, kind: Kind, job: Job) -> None:
    """Keeps a finished job as one whole file: <key of the cell>.<digest of the parts>.json."""
    parts = {axis: list(values) for axis, values in job.parts.items()}
    content = {
        "kind": kind.name,
        "version": kind.version,
        "numerics": numerics(),
        "settings": job.settings,
        "parts": parts,
        "seconds": job.seconds,
        "tables": {name: {str(c): table[c].tolist() for c in table} for name, table in job.tables.items()},
    }
    name = f"{kind.key(job.settings)}.{_digest(parts)[:16]}.json"
    try:
        write_atomically(folder / name, json.dumps({"sha256": _digest(content), "content": content}) + "\n")
    except OSError as error:
        raise PrecodeFileError(
            f"{folder}: cannot be written ({error.strerror or error}); what is finished is kept"
        ) from error


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
