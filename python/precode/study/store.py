"""Where a study's results are kept: a folder that one process writes, and that is checked whenever it is opened."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from types import TracebackType

from precode._internal.cells import Cell, Job
from precode._internal.errors import PrecodeFileError, PrecodeValueError
from precode._internal.files import write_atomically
from precode.claims.registry import rules_version
from precode.study.computing import Computed
from precode.study.config import StudyConfig
from precode.study.contents import TABLES, Contents, grown, is_begun, plan_rows, read_contents, row_digest, seal
from precode.study.folder import (
    CONFIG,
    DATA,
    DATABASE,
    LOCK,
    RESTORE,
    RESULT,
    Kept,
    check_links,
    damaged,
    explained,
    read_config,
    results,
)
from precode.study.growth import check_growth

UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}")
"""Names of what a process that was killed in `write_atomically` leaves."""


class Store:
    """The results of one study in one folder, for the one process that writes them.

    ::

        study.json      the configuration, in its canonical form
        study.sqlite    cells, finished jobs, and their files with length and SHA-256 (WAL mode)
        data/           one file a result and job: <key of the cell>.<digest of the job>.<name>.parquet, or .safetensors
                        for arrays
        study.lock      held by the process that writes

    A job's files are whole on disk before the database says that it is finished. Opening checks all that the database
    says against its seal, and every file against its SHA-256; what does not fit is named, and nothing is computed over
    it. Names of files follow from cell, job and result: none is read from the folder. A context manager; see `Study`
    for reading.

    Args:
        folder: a new or empty folder, or one whose study can grow into this one; see `run`.
        config: of the study.
        cells: that it falls into.
        repair: take finished jobs whose files are missing or altered for unfinished, so that they are computed again.

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
                contents = self._open()
                self._check_files(contents, repair)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        state = "closed" if self._database is None else "open"
        return f"Store({str(self.folder)!r}, {len(self.cells)} cells, {state})"

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

    def finished(self) -> dict[str, list[Job]]:
        """Jobs that are finished, by the key of their cell."""
        jobs: dict[str, list[Job]] = {}
        with explained(self.folder, "read"):
            for cell, parts in self._connection.execute("SELECT cell, parts FROM jobs ORDER BY rowid"):
                jobs.setdefault(cell, []).append(Job(self.cells[cell], parts))
        return jobs

    def put(self, job: Job, computed: Computed) -> None:
        """Keeps what was computed: first the files, then, at once, that the job is finished.

        Raises:
            PrecodeFileError: it cannot be written; what was kept before is still there.
        """
        files = [Kept(*job.key, file.name, file.ending, len(file.data), file.sha256) for file in computed.files]
        with explained(self.folder):
            try:
                for kept, file in zip(files, computed.files, strict=True):
                    write_atomically(self.folder / DATA / kept.file, file.data)
                self._list(job, files, computed.seconds)
            except BaseException:
                # An interrupt can come after the job was listed.
                if not self._is_listed(job):
                    for kept in files:
                        (self.folder / DATA / kept.file).unlink(missing_ok=True)
                raise

    def _is_listed(self, job: Job) -> bool:
        there = self._connection.execute("SELECT count(*) FROM jobs WHERE cell = ? AND parts = ?", _place(job))
        return bool(there.fetchone()[0])

    def _list(self, job: Job, files: Sequence[Kept], seconds: float) -> None:
        """Notes at once that a job is finished, with its files."""
        rows = [("jobs", *_place(job)), *(("files", *astuple(file)) for file in files)]
        with self._transaction() as write:
            (before,) = write.execute("SELECT seal FROM study").fetchone()
            _insert(write, rows)
            write.execute("UPDATE study SET seal = ?", (seal(rows, before),))
            write.execute("DELETE FROM timings WHERE cell = ? AND parts = ?", _place(job))
            _insert(write, [_noted("timings", *_place(job), float(seconds))])
            write.execute("DELETE FROM failures WHERE cell = ? AND parts = ?", _place(job))

    def fail(self, job: Job, attempts: int, error: str, trace: str) -> None:
        """Keeps why a job cannot be computed; it stays unfinished.

        Raises:
            PrecodeFileError: it cannot be written.
        """
        with explained(self.folder), self._transaction() as write:
            write.execute("DELETE FROM failures WHERE cell = ? AND parts = ?", _place(job))
            _insert(write, [_noted("failures", *_place(job), attempts, error, trace)])

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
        check_links(self.folder)
        if not (self.folder / CONFIG).exists():
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
        except sqlite3.DatabaseError as error:
            raise PrecodeFileError(f"{self.folder / LOCK} is damaged ({error}): remove it") from error
        if not (self.folder / CONFIG).exists():
            # Before anything else, so that whatever a killed process leaves is known for a study's.
            self._write_config()
        (self.folder / DATA).mkdir(exist_ok=True)
        for place in (self.folder, self.folder / DATA):
            for entry in place.iterdir():
                if UNFINISHED.fullmatch(entry.name) and entry.is_file():
                    entry.unlink()

    def _open(self) -> Contents:
        """Opens the database, or makes it where nothing has been computed; returns what it says."""
        there = read_config(self.folder)
        self._database = sqlite3.connect(self.folder / DATABASE, isolation_level=None)
        run = self._database.execute
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        if not is_begun(self.folder, self._database):
            if there != self.config:
                self._write_config()
            self._make()
            return read_contents(self.folder, self._database)
        contents = read_contents(self.folder, self._database)
        if (problem := run("PRAGMA integrity_check(1)").fetchone()) != ("ok",):
            raise damaged(self.folder, f"{DATABASE}: {problem[0]}")
        if there not in (contents.config, contents.previous):
            raise damaged(self.folder, f"{CONFIG} is not of the study in {DATABASE}")
        contents = self._grow(contents)
        if there != self.config:
            self._write_config()
        return contents

    def _write_config(self) -> None:
        write_atomically(self.folder / CONFIG, self.config.to_json() + "\n")

    def _make(self) -> None:
        """Makes the tables."""
        cells = list(self.cells.values())
        study = ("study", self.config.to_json(), "", rules_version())
        with self._transaction() as write:
            for statement in TABLES.split(";"):
                write.execute(statement)
            _insert(write, [(*study, seal([study, *plan_rows(cells)])), *plan_rows(cells)])

    def _grow(self, there: Contents) -> Contents:
        """Makes the database that of this study, if it is not."""
        cells = list(self.cells.values())
        if there.config == self.config and list(plan_rows(cells)) == list(plan_rows(list(there.cells.values()))):
            return there
        check_growth(self.folder, there, self.config, cells)
        new = grown(self.config, there.config, there, cells)
        gone = [(key,) for key in there.cells if key not in self.cells]
        assert new.previous is not None
        with self._transaction() as write:
            write.execute("DELETE FROM kinds")
            write.execute("DELETE FROM cells")
            _insert(write, plan_rows(cells))
            write.executemany("DELETE FROM failures WHERE cell = ?", gone)
            values = (new.config.to_json(), new.previous.to_json(), new.seal)
            write.execute("UPDATE study SET config = ?, previous = ?, seal = ?", values)
        return new

    def _check_files(self, contents: Contents, repair: bool) -> None:
        """Compares the results that are there with the database."""
        broken: dict[tuple[str, str], str] = {}
        for file in contents.files:
            try:
                file.read(self.folder)
            except PrecodeFileError as error:
                broken.setdefault((file.cell, file.job), str(error))
        unknown = {
            name: RESULT.fullmatch(name) for name in results(self.folder) - {file.file for file in contents.files}
        }
        for name, match in sorted(unknown.items()):
            if match is None or match[1] not in self.cells | contents.cells:
                raise PrecodeFileError(f"{self.folder}: {DATA}/{name} is no result of this study: move it elsewhere")
        # A job's files are written after those of the job before are listed: a killed process leaves those of one.
        lost = {match.groups() for match in unknown.values() if match}
        jobs = {job.key: job for done in contents.jobs.values() for job in done}
        if not repair:
            named = [f"{problem}, a result of {jobs[key]}" for key, problem in broken.items()]
            if len(lost) > 1:
                named.append(f"{DATABASE} is older than the results of {len(lost)} jobs (was {DATABASE}-wal lost?)")
            if named:
                more = f"; and {len(named) - 5} more" if len(named) > 5 else ""
                remedy = f"{RESTORE}, or repair it (repair=True, --repair): these are then computed again"
                raise damaged(self.folder, "; ".join(named[:5]) + more, remedy)
        useless = [file for file in contents.files if (file.cell, file.job) in broken]
        if broken:
            rows = [("jobs", *_place(jobs[key])) for key in broken] + [("files", *astuple(file)) for file in useless]
            with self._transaction() as write:
                write.executemany(
                    "DELETE FROM jobs WHERE cell = ? AND parts = ?", [row[1:] for row in rows[: len(broken)]]
                )
                write.executemany("DELETE FROM files WHERE cell = ? AND job = ?", list(broken))
                write.execute("UPDATE study SET seal = ?", (seal(rows, contents.seal, taken=True),))
        for name in [*unknown, *(file.file for file in useless)]:
            path = self.folder / DATA / name
            if path.is_dir() and not path.is_symlink():
                raise PrecodeFileError(f"{path} is a folder: move it elsewhere")
            path.unlink(missing_ok=True)


def _place(job: Job) -> tuple[str, str]:
    """How the database names a job."""
    return job.cell.key, job.text


def _noted(*row: object) -> tuple[object, ...]:
    """A row with its own digest behind it."""
    return (*row, row_digest(*row))


def _insert(write: sqlite3.Connection, rows: Iterable[tuple[object, ...]]) -> None:
    """Inserts rows, each behind the name of its table."""
    for table, *values in rows:
        write.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values))})", values)
