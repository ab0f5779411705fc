"""Cells of experiments: computed part by part, and kept in a folder so that only what is new is computed again."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from precode._internal.cells import Cell, Job, Kind, canonical, check_results
from precode._internal.errors import PrecodeFileError, PrecodeTypeError
from precode._internal.files import write_atomically

Tables: TypeAlias = "dict[str, pd.DataFrame]"
"""Tables by name."""


@dataclass(frozen=True)
class Finished:
    """A cell of an experiment with its results.

    Attributes:
        settings: what it was computed from.
        tables: its results by name, rows in the order of the axes of its kind.
        seconds: wall-clock time that it took, in however many pieces.

    Example:
        >>> Finished({"x": 2}, {}, 0.1).settings["x"]
        2
    """

    settings: dict[str, Any]
    tables: Tables
    seconds: float


def finish(kind: Kind, cell: Cell, folder: Path | None) -> Finished:
    """A cell with its results: those parts that are in the folder are read, the others computed and kept there.

    Args:
        kind: of the cell. Its results are tables.
        cell: with the parts that are wanted.
        folder: of finished jobs; None to keep none.

    Raises:
        PrecodeFileError: a file of the folder is damaged, or it cannot be written.
        PrecodeTypeError, PrecodeValueError: the kind returned something else than tables of the parts.
    """
    jobs = [] if folder is None else _read(folder, cell)
    for job in cell.jobs(done.job for done in jobs):
        began = time.perf_counter()
        arguments = (cell.settings, job.parts) if cell.axes else (cell.settings,)
        results = check_results(kind.compute(*arguments), job)
        for name, value in results.items():
            if not isinstance(value, pd.DataFrame):
                raise PrecodeTypeError(f"result {name!r} of an experiment must be a table, not {type(value).__name__}")
        tables: Tables = dict(results)  # type: ignore[arg-type]
        jobs.append(_Done(job, tables, time.perf_counter() - began))
        if folder is not None:
            _write(folder, jobs[-1])
    return _joined(cell, jobs)


@dataclass(frozen=True)
class _Done:
    """A job with its results."""

    job: Job
    tables: Tables
    seconds: float


def _joined(cell: Cell, jobs: Sequence[_Done]) -> Finished:
    """The wanted parts of a cell from all of its jobs."""
    places = {part: place for place, part in enumerate(product(*cell.parts.values()))}
    columns = [axis.column for axis in cell.axes]
    found: dict[str, list[pd.DataFrame]] = {}
    seconds = 0.0
    taken: set[tuple[Any, ...]] = set()
    for done in jobs:
        wanted = {part for part in done.job.tuples() if part in places and part not in taken}
        taken |= wanted
        seconds += done.seconds * len(wanted) / done.job.size
        for name, table in done.tables.items():
            parts = (
                list(zip(*(table[column].tolist() for column in columns), strict=True))
                if columns
                else [()] * len(table)
            )
            rows = [part in wanted for part in parts]
            place = [places[part] for part in parts if part in wanted]
            found.setdefault(name, []).append(table[rows].set_axis(place))
    tables = {name: pd.concat(every).sort_index(kind="stable") for name, every in found.items()}
    whole = {name: table.reset_index(drop=True) for name, table in tables.items()}
    return Finished(cell.settings, whole, seconds)


def _read(folder: Path, cell: Cell) -> list[_Done]:
    """The finished jobs of a cell, whatever parts they have.

    Raises:
        PrecodeFileError: a file is damaged.
    """
    jobs = []
    for path in sorted(folder.glob(f"{cell.key}.*.json")):
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            content = kept["content"]
            job = Job(cell, canonical(content["parts"], "parts"))
            whole = (
                _digest(content) == kept["sha256"] and content["settings"] == cell.settings and job.parts is not None
            )
            tables = {name: pd.DataFrame(columns) for name, columns in content["tables"].items()}
            done = _Done(job, tables, float(content["seconds"]))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise _damaged(path) from error
        if not whole or path.name != _name(job):
            raise _damaged(path)
        jobs.append(done)
    return jobs


def _damaged(path: Path) -> PrecodeFileError:
    return PrecodeFileError(f"{path} is damaged: remove it, and what it held is computed again")


def _name(job: Job) -> str:
    return f"{job.cell.key}.{job.digest}.json"


def _write(folder: Path, done: _Done) -> None:
    """Keeps a finished job as one whole file."""
    cell = done.job.cell
    content = {
        "kind": cell.kind,
        "version": cell.version,
        "numerics": cell.numerics,
        "settings": cell.settings,
        "parts": json.loads(done.job.text),
        "seconds": done.seconds,
        "tables": {name: {str(c): table[c].tolist() for c in table} for name, table in done.tables.items()},
    }
    text = json.dumps({"sha256": _digest(content), "content": content}) + "\n"
    try:
        write_atomically(folder / _name(done.job), text)
    except OSError as error:
        raise PrecodeFileError(
            f"{folder}: cannot be written ({error.strerror or error}); what is finished is kept"
        ) from error


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
