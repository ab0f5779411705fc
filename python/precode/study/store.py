"""Where a study's results are kept: a folder that one process writes, and that is checked whenever it is opened."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from types import TracebackType

from precode._internal.errors import PrecodeFileError, PrecodeValueError
from precode._internal.files import write_atomically
from precode.study.cells import Cell, Computed
from precode.study.config import StudyConfig
from precode.study.folder import (
    CONFIG,
    DATA,
    DATABASE,
    LOCK,
    RESTORE,
    TABLES,
    Kept,
    check_config,
    damaged,
    explained,
    is_begun,
    read_files,
    results,
    seal,
)

RESULT = re.compile(r"([0-9a-f]{64})\.[a-z0-9_]+\.(?:parquet|safetensors)")
"""Names of files of results; the group is the key of the cell."""

UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}")
"""Names of what a process that was killed in `write_atomically` leaves."""


class Store:
    """The results of one study in one folder, for the one process that writes them.

    ::

        study.json      the configuration, in its canonical form
        study.sqlite    cells, and the files of those that are finished with their SHA-256 (WAL mode)
        data/           one file a result: <key of the cell>.<name>.parquet, or .safetensors for arrays
        study.lock      held by the process that writes

    A cell's files are whole on disk before the database says that it is finished. Opening compares the folder with
    configuration and cells, and every file with its SHA-256; what does not fit is named, and nothing is computed over
    it. A context manager; see `Study` for reading.

    Args:
        folder: a new or empty folder, or one that holds this study.
        config: of the study.
        cells: that it falls into.
        repair: take finished cells whose files are missing or altered for unfinished, so that they are computed again.

    Raises:
        PrecodeFileError: the folder holds something else, another study or a damaged one, or cannot be written; or
            another process is writing it.
    """

    def __init__(self, folder: str | Path, config: StudyConfig, cells: Sequence[Cell], *, repair: bool = False) -> None:
        self.folder = Path(folder)
        self.config = config
        self.cells = {cell.key: cell for cell in cells}
        self._lock: sqlite3.Connection | None = None
        self._database: sqlite3.Connection | None = None
        try:
            with explained(self.folder):
                self._claim()
                self._open()
                self._check_cells()
                self._check_files(repair)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the folder."""
        for connection in (self._database, self._lock):
            if connection is not None:
                connection.close()
        self._database = self._lock = None

    def finished(self) -> set[str]:
        """Keys of the cells that are finished."""
        return {row[0] for row in self._connection.execute("SELECT DISTINCT cell FROM files")}

    def put(self, cell: Cell, computed: Computed) -> None:
        """Keeps what was computed: first the files, then, at once, that the cell is finished.

        Raises:
            PrecodeFileError: it cannot be written; what was kept before is still there.
        """
        files = [Kept.of(cell.key, file.name, file.ending, file.data) for file in computed.files]
        with explained(self.folder):
            try:
                for kept, file in zip(files, computed.files, strict=True):
                    write_atomically(self.folder / DATA / kept.file, file.data)
                self._list(cell, files, computed.seconds)
            except BaseException:
                # An interrupt can come after the cell was listed.
                if cell.key not in self.finished():
                    for kept in files:
                        (self.folder / DATA / kept.file).unlink(missing_ok=True)
                raise

    def _list(self, cell: Cell, files: Sequence[Kept], seconds: float) -> None:
        """Notes at once that a cell is finished, with its files."""
        with self._transaction() as write:
            (before,) = write.execute("SELECT seal FROM study").fetchone()
            write.executemany("INSERT INTO files VALUES (?, ?, ?, ?, ?)", map(astuple, files))
            write.execute("UPDATE study SET seal = ?", (seal(files, before),))
            write.execute("INSERT OR REPLACE INTO timings VALUES (?, ?)", (cell.key, seconds))
            write.execute("DELETE FROM failures WHERE cell = ?", (cell.key,))

    def fail(self, cell: Cell, attempts: int, error: str, trace: str) -> None:
        """Keeps why a cell cannot be computed; it stays unfinished.

        Raises:
            PrecodeFileError: it cannot be written.
        """
        with explained(self.folder), self._transaction() as write:
            write.execute("INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?)", (cell.key, attempts, error, trace))

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._database is None:
            raise PrecodeValueError(f"{self.folder}: the store is closed; open it again")
        return self._database

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All of what is written within, or nothing."""
        database = self._connection
        database.execute("BEGIN IMMEDIATE")
        try:
            yield database
            database.execute("COMMIT")
        except BaseException:
            # After some errors, such as a full disk, SQLite has rolled back already.
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise

    def _claim(self) -> None:
        """Makes the folder this study's, and this process the one that writes it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / CONFIG
        if not path.exists():
            # A process that was killed before it wrote the configuration has left no more than these.
            strangers = [
                entry.name
                for entry in self.folder.iterdir()
                if entry.name not in (CONFIG, LOCK) and not UNFINISHED.fullmatch(entry.name)
            ]
            if strangers:
                raise PrecodeFileError(
                    f"{self.folder}: not the folder of a study (it holds {', '.join(sorted(strangers)[:3])}, but no "
                    f"{CONFIG}): name a new or empty folder"
                )
        # SQLite's lock ends with its process, however that ends, and a forked child does not inherit it.
        self._lock = sqlite3.connect(self.folder / LOCK, timeout=0, isolation_level=None)
        try:
            self._lock.execute("PRAGMA journal_mode = MEMORY")  # no file beside it
            self._lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            raise PrecodeFileError(
                f"{self.folder}: another process is running this study: wait for its end, or name another folder"
            ) from error
        if not path.exists():
            write_atomically(path, self.config.to_json() + "\n")
        check_config(self.folder, self.config)
        (self.folder / DATA).mkdir(exist_ok=True)
        for place in (self.folder, self.folder / DATA):
            for entry in place.iterdir():
                if UNFINISHED.fullmatch(entry.name):
                    entry.unlink()

    def _open(self) -> None:
        """Opens the database, or makes it where nothing has been computed."""
        self._database = sqlite3.connect(self.folder / DATABASE, isolation_level=None)
        run = self._database.execute
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        if is_begun(self.folder, self._database):
            return
        with self._transaction() as write:
            for statement in TABLES.split(";"):
                write.execute(statement)
            write.execute("INSERT INTO study VALUES (?, ?)", (self.config.to_json(), seal([])))
            rows = [(place, cell.key, cell.kind, cell.text) for place, cell in enumerate(self.cells.values())]
            write.executemany("INSERT INTO cells VALUES (?, ?, ?, ?)", rows)

    def _check_cells(self) -> None:
        """Compares the database with the study that is to be run."""
        run = self._connection.execute
        if (problem := run("PRAGMA quick_check(1)").fetchone()) != ("ok",):
            raise damaged(self.folder, f"{DATABASE}: {problem[0]}")
        if run("SELECT config FROM study").fetchall() != [(self.config.to_json(),)]:
            raise damaged(self.folder, f"{DATABASE} is not of the study in {CONFIG}")
        rows = run("SELECT key, kind, settings FROM cells ORDER BY place").fetchall()
        if rows != [(cell.key, cell.kind, cell.text) for cell in self.cells.values()]:
            now = next(iter(self.cells.values())).numerics
            raise PrecodeFileError(
                f"{self.folder}: the cells of this study were not planned by this software ({now}), or were altered: "
                "go on with the software that began it, or name a new folder"
            )

    def _check_files(self, repair: bool) -> None:
        """Compares the results that are there with the database."""
        files = read_files(self._connection)
        broken: dict[str, str] = {}
        for file in files:
            try:
                file.read(self.folder)
            except PrecodeFileError as error:
                broken.setdefault(file.cell, str(error))
        unknown = {name: RESULT.fullmatch(name) for name in results(self.folder) - {file.file for file in files}}
        pending = self.cells.keys() - {file.cell for file in files}
        for name, match in sorted(unknown.items()):
            if match is None or match[1] not in pending:
                raise PrecodeFileError(f"{self.folder}: {DATA}/{name} is no result of this study: move it elsewhere")
        # A cell's files are written after those of the cell before are listed: a killed process leaves those of one.
        lost = {match[1] for match in unknown.values() if match}
        if not repair:
            named = [f"{problem}, a result of {self.cells[key]}" for key, problem in broken.items()]
            if len(lost) > 1:
                named.append(f"{DATABASE} is older than the results of {len(lost)} cells (was {DATABASE}-wal lost?)")
            if named:
                more = f"; and {len(named) - 5} more" if len(named) > 5 else ""
                remedy = f"{RESTORE}, or repair it (repair=True, --repair): these cells are then computed again"
                raise damaged(self.folder, "; ".join(named[:5]) + more, remedy)
        if broken:
            whole = [file for file in files if file.cell not in broken]
            with self._transaction() as write:
                write.executemany("DELETE FROM files WHERE cell = ?", [(key,) for key in broken])
                write.execute("UPDATE study SET seal = ?", (seal(whole),))
        for name in unknown.keys() | {file.file for file in files if file.cell in broken}:
            (self.folder / DATA / name).unlink(missing_ok=True)
