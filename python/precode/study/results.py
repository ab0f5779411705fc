"""The results of a study, read from its folder."""

from __future__ import annotations

import gzip
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from precode._internal.cells import Cell
from precode._internal.errors import PrecodeFileError, PrecodeValueError
from precode._internal.files import write_atomically
from precode._internal.progress import Progress, tracked
from precode.study import encoding
from precode.study.contents import Contents, is_begun, read_contents
from precode.study.folder import (
    CONFIG,
    DATA,
    DATABASE,
    RESTORE,
    RESULT,
    Kept,
    check_links,
    damaged,
    explained,
    read_config,
    results,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

LONG = 100_000
"""Rows above which CSV files are compressed."""


class Study:
    """What a study has computed so far, read from its folder, which may be read-only; every file is checked.

    Args:
        folder: that a study was run in.

    Attributes:
        folder: see above.
        config: of the study.
        rules: version of the rules by which claims are judged, when the study was planned; see
            `precode.claims.rules_version`.
        seal: SHA-256 sum of all that the database says of results: another value, another study or other results.
        failures: one row a job that could not be computed: kind, settings and parts (JSON), attempts, error, trace.
        timings: one row a finished job: kind, settings and parts (JSON), seconds where it was computed. No part of the
            results.
        planned: number of cells.
        finished: number of cells all of whose parts are finished.

    Raises:
        PrecodeFileError: no study is there, or it is damaged; the message names what.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from precode.study import Kind, StudyConfig, run
        >>> def squares(cell):
        ...     return {"squares": pd.DataFrame({"y": [cell["x"] ** 2]})}
        >>> kind = Kind("squares", lambda config: [{"x": 2}, {"x": 3}], squares, lambda cell: 0.1)
        >>> with TemporaryDirectory() as folder:
        ...     _ = run(StudyConfig.preset("quick"), folder, kinds=[kind], progress=False)
        ...     study = Study(folder)
        ...     study.tables, study.table("squares")["y"].tolist(), study.finished
        (['squares'], [4, 9], 2)
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        check_links(self.folder)
        there = read_config(self.folder)
        with explained(self.folder, "read"):
            # Before the database is read: what is finished meanwhile is then known to it.
            written = {match.groups() for name in results(self.folder) if (match := RESULT.fullmatch(name))}
        contents = read_database(self.folder)
        if there not in (contents.config, contents.previous):
            raise damaged(self.folder, f"{CONFIG} is not of the study in {DATABASE}")
        self._jobs = {job.key: job for jobs in contents.jobs.values() for job in jobs}
        if len(lost := written - set(self._jobs)) > 1:
            raise damaged(
                self.folder, f"{DATABASE} is older than the results of {len(lost)} jobs (was {DATABASE}-wal lost?)"
            )
        self.config = contents.config
        self.rules = contents.rules
        self.seal = contents.seal
        self.planned = len(contents.cells)
        self.finished = len(contents.finished())
        self._cells = contents.cells
        self._files = contents.files
        self.failures = _placed(contents, contents.failures, ["attempts", "error", "trace"])
        self.timings = _placed(contents, contents.timings, ["seconds"])

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} failed" if len(self.failures) else ""
        return f"Study({str(self.folder)!r}, {self.finished} of {self.planned} cells finished{failed})"

    @property
    def tables(self) -> list[str]:
        """Names of the tables that there are."""
        return self._names(encoding.TABLE)

    def table(self, name: str) -> pd.DataFrame:
        """A table: the rows of all that is finished, in the order of the cells, then of their parts.

        Raises:
            PrecodeValueError: there is none of that name; the message lists those there are.
            PrecodeFileError: a file is missing or was altered.
        """
        tables = [self._joined(name, cell, files) for cell, files in self._of(name, encoding.TABLE)]
        table: pd.DataFrame = pa.concat_tables(tables, promote_options="permissive").to_pandas()
        return table

    def arrays(self, name: str) -> Iterator[tuple[dict[str, Any], dict[str, NDArray[Any]]]]:
        """The settings of each cell that has arrays of that name, and these arrays by name, of all its finished parts.

        Raises:
            PrecodeValueError: there are none of that name; the message lists those there are.
            PrecodeFileError: a file is missing or was altered.
        """
        for cell, files in self._of(name, encoding.ARRAYS):
            found: dict[str, NDArray[Any]] = {}
            for file in files:
                try:
                    arrays = encoding.arrays_from_bytes(self._read(file))
                except PrecodeValueError as error:
                    raise damaged(self.folder, f"{DATA}/{file.file}: {error}") from error
                if twice := sorted(found.keys() & arrays.keys()):
                    raise PrecodeValueError(
                        f"{name!r} of {cell}: array {twice[0]!r} is there twice: the kind of cells must name arrays by "
                        "their part"
                    )
                found.update(arrays)
            yield cell.settings, dict(sorted(found.items()))

    def cells(self, kind: str) -> Iterator[tuple[dict[str, Any], dict[str, pd.DataFrame], float]]:
        """Every cell of a kind of which something is finished: its settings, its tables by name, and seconds it took.

        Raises:
            PrecodeFileError: a file is missing or was altered.
        """
        spent = self.timings[self.timings["kind"] == kind].groupby("settings")["seconds"].sum()
        for key, cell in self._cells.items():
            if cell.kind != kind:
                continue
            files: dict[str, list[Kept]] = {}
            for file in self._files:
                if file.cell == key and file.ending == encoding.TABLE:
                    files.setdefault(file.name, []).append(file)
            if files:
                tables = {name: self._joined(name, cell, some).to_pandas() for name, some in files.items()}
                yield cell.settings, tables, float(spent.get(cell.text, 0.0))

    def export(self, folder: str | Path, *, progress: Progress = False) -> list[Path]:
        """Writes every table as Parquet and as CSV; the same results give the same bytes.

        CSV files of more than `LONG` rows are compressed by gzip.

        Args:
            folder: is made where it is missing.
            progress: True for a bar, or a function of (tables written, tables).

        Returns:
            The files.

        Raises:
            PrecodeFileError: they cannot be written, or a result is missing or was altered.
        """
        names = tracked(self.tables, progress, "table")
        return [path for name in names for path in write_table(Path(folder), name, self.table(name))]

    def _names(self, ending: str) -> list[str]:
        return sorted({file.name for file in self._files if file.ending == ending})

    def _of(self, name: str, ending: str) -> list[tuple[Cell, list[Kept]]]:
        """The files of a result: of every cell that has any, in the order of the cells."""
        found: dict[str, list[Kept]] = {}
        for file in self._files:
            if file.name == name and file.ending == ending:
                found.setdefault(file.cell, []).append(file)
        if not found:
            there = ", ".join(self._names(ending)) or "none"
            raise PrecodeValueError(f"nothing that is finished has {name!r}: there are {there}")
        return [(cell, found[key]) for key, cell in self._cells.items() if key in found]

    def _joined(self, name: str, cell: Cell, files: list[Kept]) -> pa.Table:
        """A table of one cell from the files of its jobs."""
        parts = [self._table(file) for file in files]
        try:
            return encoding.joined(parts, cell.axes)
        except (KeyError, pa.ArrowException) as error:
            raise damaged(self.folder, f"table {name!r} of {cell}: {error}") from error

    def _table(self, file: Kept) -> pa.Table:
        try:
            return encoding.table_from_bytes(self._read(file))
        except pa.ArrowException as error:
            raise damaged(self.folder, f"{DATA}/{file.file}: {error}") from error

    def _read(self, file: Kept) -> bytes:
        try:
            return file.read(self.folder)
        except PrecodeFileError as error:
            raise damaged(self.folder, str(error), RESTORE) from error


def write_table(folder: Path, name: str, table: pd.DataFrame) -> list[Path]:
    """Writes a table as Parquet and as CSV into a folder that is made where it is missing.

    Returns:
        The two files.

    Raises:
        PrecodeFileError: they cannot be written.
    """
    _, data = encoding.to_bytes(table, name)
    text, ending = table.to_csv(index=False, lineterminator="\n").encode(), "csv"
    if len(table) > LONG:
        text, ending = gzip.compress(text, compresslevel=6, mtime=0), "csv.gz"
    files = {folder / f"{name}.parquet": data, folder / f"{name}.{ending}": text}
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            write_atomically(path, content)
    return list(files)


def read_database(folder: Path) -> Contents:
    """What the database of a folder says, which may be read-only, or of a run that goes on or was killed.

    Raises:
        PrecodeFileError: nothing has been computed, or it is damaged or cannot be read.
    """
    path = folder / DATABASE
    with explained(folder, "read"):
        if not path.with_name(f"{DATABASE}-wal").exists():
            # Without a write-ahead log nobody is writing, and nothing but the file is needed.
            return _read(folder, path, "immutable=1")
        try:
            return _read(folder, path, "mode=ro")
        except sqlite3.OperationalError as error:
            if not any(text in str(error) for text in ("readonly", "unable to open", "disk is full", "disk I/O error")):
                raise
        # A killed process left a log, which cannot be read without a file beside it; where none can be made, as on a
        # full disk or a read-only one, a copy is read.
        with TemporaryDirectory() as copies:
            for ending in ("", "-wal"):
                shutil.copyfile(f"{path}{ending}", Path(copies) / f"{DATABASE}{ending}")
            return _read(folder, Path(copies) / DATABASE, "mode=rw")


def _read(folder: Path, path: Path, mode: str) -> Contents:
    uri = f"{path.resolve().as_uri()}?{mode}" if path.is_file() else ":memory:"
    with closing(sqlite3.connect(uri, uri=True)) as database:
        if not is_begun(folder, database):
            raise PrecodeFileError(f"{folder}: nothing has been computed yet: run the study first")
        return read_contents(folder, database)


def _placed(contents: Contents, rows: list[tuple[Any, ...]], columns: list[str]) -> pd.DataFrame:
    """Rows of the database with kind and settings of their cells, in the order of the cells."""
    places = {key: place for place, key in enumerate(contents.cells)}
    known = sorted((row for row in rows if row[0] in places), key=lambda row: (places[row[0]], row[1]))
    cells = [contents.cells[row[0]] for row in known]
    table = [(cell.kind, cell.text, row[1], *row[2:]) for cell, row in zip(cells, known, strict=True)]
    return pd.DataFrame(table, columns=["kind", "settings", "parts", *columns])
