"""What a study's database says, read in one go and checked from its schema to its last value."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from precode._internal.cells import NAME, Axis, Cell, Job, canonical
from precode._internal.errors import PrecodeFileError
from precode.study import encoding
from precode.study.config import StudyConfig
from precode.study.folder import DATABASE, Kept, damaged, results

TABLES = """
CREATE TABLE study (config TEXT NOT NULL, previous TEXT NOT NULL, rules TEXT NOT NULL, seal TEXT NOT NULL);
CREATE TABLE kinds (place INTEGER PRIMARY KEY, name TEXT NOT NULL, axes TEXT NOT NULL);
CREATE TABLE cells (
    place INTEGER PRIMARY KEY, key TEXT NOT NULL, kind TEXT NOT NULL, version INTEGER NOT NULL, settings TEXT NOT NULL,
    numerics TEXT NOT NULL
);
CREATE TABLE jobs (cell TEXT NOT NULL, parts TEXT NOT NULL);
CREATE TABLE files (
    cell TEXT NOT NULL, job TEXT NOT NULL, name TEXT NOT NULL, ending TEXT NOT NULL, size INTEGER NOT NULL,
    sha256 TEXT NOT NULL
);
CREATE TABLE failures (
    cell TEXT NOT NULL, parts TEXT NOT NULL, attempts INTEGER NOT NULL, error TEXT NOT NULL, trace TEXT NOT NULL,
    sha256 TEXT NOT NULL
);
CREATE TABLE timings (cell TEXT NOT NULL, parts TEXT NOT NULL, seconds REAL NOT NULL, sha256 TEXT NOT NULL);
"""
"""`jobs` and `files` list what is finished. `study.seal` covers all rows of the first five tables, so that one that is
lost or altered is noticed. `failures` and `timings` are no results and differ from run to run: each of their rows has a
digest of its own."""

COLUMNS: dict[str, tuple[str, ...]] = {
    "study": ("config", "previous", "rules", "seal"),
    "kinds": ("place", "name", "axes"),
    "cells": ("place", "key", "kind", "version", "settings", "numerics"),
    "jobs": ("cell", "parts"),
    "files": ("cell", "job", "name", "ending", "size", "sha256"),
    "failures": ("cell", "parts", "attempts", "error", "trace", "sha256"),
    "timings": ("cell", "parts", "seconds", "sha256"),
}
"""The columns of every table."""

NUMBERS = {"place": int, "version": int, "size": int, "attempts": int, "seconds": float}
"""The types of columns that are not text."""

SHA256 = re.compile("[0-9a-f]{64}")

NOTHING = "0" * 64
"""The seal of no rows."""


def seal(rows: Iterable[tuple[Any, ...]], before: str = NOTHING, *, taken: bool = False) -> str:
    """What changes with every row of the tables, in whatever order they came: the sum of digests, 256 bits.

    Args:
        rows: each begins with the name of its table.
        before: the seal of other rows.
        taken: whether the rows are taken away from those, in place of added.
    """
    value = int(before, 16)
    for row in rows:
        value += (-1 if taken else 1) * int(row_digest(*row), 16)
    return f"{value % 2**256:064x}"


def row_digest(*row: Any) -> str:
    """SHA-256 of a row, in hexadecimal; its first value is the name of its table."""
    return hashlib.sha256(repr(row).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Contents:
    """What a study's database says.

    Attributes:
        config: of the study.
        previous: configuration that it grew from last, or None: a process that was killed meanwhile leaves it in the
            folder.
        rules: `precode.study.config.rules_version` when the study was planned.
        seal: see `seal`; of all rows below.
        kinds: the axes of every kind, in the order of the tables.
        cells: by key, in the order of the tables.
        jobs: that are finished, by the key of their cell.
        files: of finished jobs.
        failures: cell, parts, attempts, error and trace of each.
        timings: cell, parts and seconds of each.
    """

    config: StudyConfig
    previous: StudyConfig | None
    rules: str
    seal: str
    kinds: dict[str, tuple[Axis, ...]]
    cells: dict[str, Cell]
    jobs: dict[str, list[Job]]
    files: list[Kept]
    failures: list[tuple[Any, ...]]
    timings: list[tuple[Any, ...]]

    def finished(self) -> list[str]:
        """Keys of the cells all of whose parts are finished."""
        sizes = {key: sum(job.size for job in jobs) for key, jobs in self.jobs.items()}
        return [key for key, cell in self.cells.items() if sizes.get(key) == cell.size]


def plan_rows(cells: Sequence[Cell]) -> Iterator[tuple[Any, ...]]:
    """The rows of the kinds and cells of a plan, each behind the name of its table."""
    kinds = {cell.kind: cell.axes for cell in cells}
    for place, (name, axes) in enumerate(kinds.items()):
        yield "kinds", place, name, canonical([astuple(axis) for axis in axes], "axes")
    for place, cell in enumerate(cells):
        yield "cells", place, cell.key, cell.kind, cell.version, cell.text, cell.numerics


def is_begun(folder: Path, database: sqlite3.Connection) -> bool:
    """Whether the database has its tables; a process that was killed early leaves an empty one, and no results.

    Raises:
        PrecodeFileError: it has none, but there are results.
    """
    if database.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
        return True
    if results(folder):
        raise damaged(folder, f"there are results, but {DATABASE} is missing or empty")
    return False


def read_contents(folder: Path, database: sqlite3.Connection) -> Contents:
    """All that the database says.

    Raises:
        PrecodeFileError: it is not what was written.
        sqlite3.Error: likewise, or it cannot be read.
    """
    try:
        return _read(database)
    except PrecodeFileError:
        raise
    except sqlite3.Error:
        raise
    # A damaged page may hold anything: text that is none, numbers in place of text, lengths beyond all memory.
    except (ValueError, TypeError, LookupError, ArithmeticError, MemoryError, RecursionError, SystemError) as error:
        raise damaged(folder, f"{DATABASE}: {error or type(error).__name__}") from error


def _read(database: sqlite3.Connection) -> Contents:
    if _schema(database) != _known_schema():
        raise ValueError("its tables are not those of a study")
    rows = {table: _rows(database, table) for table in COLUMNS}
    ((config, previous, rules, noted),) = rows["study"]
    sealed = [("study", config, previous, rules)]
    sealed += [(table, *row) for table in ("kinds", "cells", "jobs", "files") for row in rows[table]]
    if noted != seal(sealed):
        raise ValueError("what it says was altered: its seal does not fit")
    for table in ("failures", "timings"):
        for *row, noted in rows[table]:
            if noted != row_digest(table, *row):
                raise ValueError(f"a row of {table} was altered")
    kinds = {name: tuple(_axis(*axis) for axis in json.loads(text)) for _, name, text in rows["kinds"]}
    cells = {}
    for _, key, kind, version, text, numerics in rows["cells"]:
        cells[key] = Cell(kind, version, text, numerics, kinds[kind])
        if cells[key].key != key:
            raise ValueError(f"cell {key} has settings that are not its own")
    jobs: dict[str, list[Job]] = {}
    for cell, parts in rows["jobs"]:
        jobs.setdefault(cell, []).append(Job(cells[cell], parts))
    for key, done in jobs.items():
        _check_parts(cells[key], done)
    known = {job.key for done in jobs.values() for job in done}
    files = [_kept(row, known) for row in rows["files"]]
    return Contents(
        config=StudyConfig.from_json(config),
        previous=StudyConfig.from_json(previous) if previous else None,
        rules=rules,
        seal=seal(sealed),
        kinds=kinds,
        cells=cells,
        jobs=jobs,
        files=files,
        failures=[tuple(row[:-1]) for row in rows["failures"]],
        timings=[tuple(row[:-1]) for row in rows["timings"]],
    )


def _schema(database: sqlite3.Connection) -> list[tuple[Any, ...]]:
    return database.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name").fetchall()


@cache
def _known_schema() -> list[tuple[Any, ...]]:
    database = sqlite3.connect(":memory:")
    try:
        database.executescript(TABLES)
        return _schema(database)
    finally:
        database.close()


def _rows(database: sqlite3.Connection, table: str) -> list[tuple[Any, ...]]:
    """The rows of a table in the order of their writing, every value of the type that was written."""
    rows = database.execute(f"SELECT {', '.join(COLUMNS[table])} FROM {table} ORDER BY rowid").fetchall()
    types = [NUMBERS.get(name, str) for name in COLUMNS[table]]
    for row in rows:
        if [type(value) for value in row] != types:
            raise ValueError(f"{table} has values of other types than were written")
    return rows


def _axis(name: str, column: str, values: list[Any]) -> Axis:
    return Axis(name, column, tuple(values))


def _check_parts(cell: Cell, jobs: Sequence[Job]) -> None:
    """Refuses parts that are not those of a cell, or that are finished twice."""
    planned = {axis.name: set(axis.values) for axis in cell.axes}
    parts: list[tuple[Any, ...]] = []
    for job in jobs:
        values = job.parts
        if canonical(values, "parts") != job.text or not all(set(values[name]) <= planned[name] for name in planned):
            raise ValueError(f"cell {cell.key} has parts that it does not fall into")
        parts += job.tuples()
    if len(set(parts)) < len(parts):
        raise ValueError(f"cell {cell.key} has parts that are finished twice")


def _kept(row: Sequence[Any], jobs: set[tuple[str, str]]) -> Kept:
    """A file, whose name can be trusted because each piece of it is known."""
    file = Kept(*row)
    if (file.cell, file.job) not in jobs:
        raise ValueError(f"a file is listed of a job that is not finished: {file.file!r:.200}")
    if not NAME.fullmatch(file.name) or file.ending not in (encoding.TABLE, encoding.ARRAYS):
        raise ValueError(f"a file is listed that is no result: {file.file!r:.200}")
    if not SHA256.fullmatch(file.sha256) or file.size < 0:
        raise ValueError(f"{file.file} is listed without its SHA-256 or length")
    return file


def grown(config: StudyConfig, previous: StudyConfig, contents: Contents, cells: Sequence[Cell]) -> Contents:
    """What the database is to say when a study has grown; its seal is made anew."""
    rows = [("study", config.to_json(), previous.to_json(), contents.rules), *plan_rows(cells)]
    rows += [("jobs", job.cell.key, job.text) for jobs in contents.jobs.values() for job in jobs]
    rows += [("files", *astuple(file)) for file in contents.files]
    return replace(
        contents,
        config=config,
        previous=previous,
        seal=seal(rows),
        kinds={cell.kind: cell.axes for cell in cells},
        cells={cell.key: cell for cell in cells},
    )
