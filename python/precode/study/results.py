"""The results of a study, read from its folder."""

from __future__ import annotations

import gzip
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from precode._internal.errors import PrecodeFileError, PrecodeValueError
from precode._internal.files import write_atomically
from precode._internal.progress import Progress, tracked
from precode.study import encoding
from precode.study.folder import DATABASE, RESTORE, Kept, damaged, explained, is_begun, read_config, read_files

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
        failures: one row a cell that could not be computed: kind, settings (JSON), attempts, error, trace.
        timings: one row a finished cell: kind, settings (JSON), seconds where it was computed. No part of the results.
        planned: number of cells.
        finished: number of cells that are finished.
        interrupted: whether Ctrl-C ended the run that returned this.

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

    def __init__(self, folder: str | Path, *, interrupted: bool = False) -> None:
        self.folder = Path(folder)
        self.config = read_config(self.folder)
        self.interrupted = interrupted
        path = self.folder / DATABASE
        # Without a write-ahead log nobody is writing, and nothing but the file is needed.
        mode = "mode=ro" if path.with_name(f"{DATABASE}-wal").exists() else "immutable=1"
        uri = f"{path.resolve().as_uri()}?{mode}" if path.is_file() else ":memory:"
        with explained(self.folder), closing(sqlite3.connect(uri, uri=True)) as database:
            if not is_begun(self.folder, database):
                raise PrecodeFileError(f"{self.folder}: nothing has been computed yet: run the study first")
            self._files = read_files(database)
            self._settings = {key: text for key, text in database.execute("SELECT key, settings FROM cells")}
            self.failures = _joined(database, "failures", "attempts, error, trace")
            self.timings = _joined(database, "timings", "seconds")
        self.planned = len(self._settings)
        self.finished = len({file.cell for file in self._files})

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} failed" if len(self.failures) else ""
        return f"Study({str(self.folder)!r}, {self.finished} of {self.planned} cells finished{failed})"

    @property
    def tables(self) -> list[str]:
        """Names of the tables that there are."""
        return self._names(encoding.TABLE)

    def table(self, name: str) -> pd.DataFrame:
        """A table: the rows of all finished cells, in the order of the cells.

        Raises:
            PrecodeValueError: there is none of that name; the message lists those there are.
            PrecodeFileError: a file is missing or was altered.
        """
        parts = [encoding.table_from_bytes(self._read(file)) for file in self._of(name, encoding.TABLE)]
        return pd.concat(parts, ignore_index=True)

    def arrays(self, name: str) -> Iterator[tuple[dict[str, Any], dict[str, NDArray[Any]]]]:
        """The settings of each finished cell that has arrays of that name, and these arrays by name.

        Raises:
            PrecodeValueError: there are none of that name; the message lists those there are.
            PrecodeFileError: a file is missing or was altered.
        """
        for file in self._of(name, encoding.ARRAYS):
            yield json.loads(self._settings[file.cell]), encoding.arrays_from_bytes(self._read(file))

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
        return sorted({file.name for file in self._files if file.file.endswith(f".{ending}")})

    def _of(self, name: str, ending: str) -> list[Kept]:
        files = [file for file in self._files if file.name == name and file.file.endswith(f".{ending}")]
        if not files:
            there = ", ".join(self._names(ending)) or "none"
            raise PrecodeValueError(f"no finished cell has {name!r}: there are {there}")
        return files

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


def _joined(database: sqlite3.Connection, table: str, columns: str) -> pd.DataFrame:
    """A table of the database with kind and settings of its cells."""
    rows = database.execute(f"SELECT kind, settings, {columns} FROM {table} JOIN cells ON cell = key ORDER BY place")
    return pd.DataFrame(rows.fetchall(), columns=["kind", "settings", *columns.split(", ")])
