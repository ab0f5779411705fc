"""What a study's folder holds, and what is said when it does not."""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

from precode._internal.errors import PrecodeFileError
from precode.study.config import StudyConfig

CONFIG = "study.json"
DATABASE = "study.sqlite"
LOCK = "study.lock"
DATA = "data"

RESTORE = "Restore it from a copy, or begin again in a new folder"

TABLES = """
CREATE TABLE study (config TEXT NOT NULL, seal TEXT NOT NULL);
CREATE TABLE cells (place INTEGER PRIMARY KEY, key TEXT NOT NULL, kind TEXT NOT NULL, settings TEXT NOT NULL);
CREATE TABLE files (
    cell TEXT NOT NULL, name TEXT NOT NULL, file TEXT NOT NULL, size INTEGER NOT NULL, sha256 TEXT NOT NULL,
    PRIMARY KEY (cell, name)
);
CREATE TABLE failures (cell TEXT PRIMARY KEY, attempts INTEGER NOT NULL, error TEXT NOT NULL, trace TEXT NOT NULL);
CREATE TABLE timings (cell TEXT PRIMARY KEY, seconds REAL NOT NULL);
"""
"""`files` lists what was computed; `study.seal` covers it, so that a row that is lost or altered is noticed. `failures`
and `timings` are no results: they differ from run to run."""


@dataclass(frozen=True)
class Kept:
    """A file of a finished cell, as the database lists it.

    Attributes:
        cell: key of the cell.
        name: of the result.
        file: name in the folder of results.
        size: its length, bytes.
        sha256: of its bytes, in hexadecimal.
    """

    cell: str
    name: str
    file: str
    size: int
    sha256: str

    @classmethod
    def of(cls, cell: str, name: str, ending: str, data: bytes) -> Kept:
        """A file that is to hold some bytes."""
        return cls(cell, name, f"{cell}.{name}.{ending}", len(data), digest(data))

    def read(self, folder: Path) -> bytes:
        """Its bytes.

        Raises:
            PrecodeFileError: it is missing, or was altered; the message begins with its name.
        """
        try:
            data = (folder / DATA / self.file).read_bytes()
        except OSError as error:
            raise PrecodeFileError(f"{DATA}/{self.file} cannot be read ({error.strerror or error})") from error
        if len(data) != self.size:
            raise PrecodeFileError(f"{DATA}/{self.file} has {len(data)} bytes instead of {self.size}")
        if digest(data) != self.sha256:
            raise PrecodeFileError(f"{DATA}/{self.file} was altered: its SHA-256 is not the one that was noted")
        return data


def digest(data: bytes) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def seal(files: Iterable[Kept], before: str = "0" * 64) -> str:
    """What changes with every entry of a list of files, in whatever order they came: the exclusive or of digests."""
    value = int(before, 16)
    for file in files:
        value ^= int(digest(repr(astuple(file)).encode()), 16)
    return f"{value:064x}"


def results(folder: Path) -> set[str]:
    """Names of the files of results that are there; hidden files are none."""
    data = folder / DATA
    return {entry.name for entry in data.iterdir() if not entry.name.startswith(".")} if data.is_dir() else set()


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


def read_files(database: sqlite3.Connection) -> list[Kept]:
    """The files of finished cells, in the order of the cells.

    Raises:
        sqlite3.DatabaseError: the database is not what was written.
    """
    # An outer join, so that a file without a cell is seen.
    rows = database.execute(
        "SELECT cell, name, file, size, sha256 FROM files LEFT JOIN cells ON cell = key ORDER BY place, name"
    )
    files = [Kept(*row) for row in rows]
    if database.execute("SELECT seal FROM study").fetchall() != [(seal(files),)]:
        raise sqlite3.DatabaseError("the list of finished files was altered")
    return files


def read_config(folder: Path) -> StudyConfig:
    """The configuration of the study in a folder.

    Raises:
        PrecodeFileError: there is none, or it is damaged.
    """
    try:
        return StudyConfig.from_json((folder / CONFIG).read_text(encoding="utf-8"))
    except OSError as error:
        raise PrecodeFileError(f"{folder}: not the folder of a study: {CONFIG}: {error.strerror or error}") from error
    except ValueError as error:
        raise damaged(folder, f"{CONFIG}: {error}") from error


def check_config(folder: Path, config: StudyConfig) -> None:
    """Refuses a folder that holds a study of another configuration.

    Raises:
        PrecodeFileError: that is so, or its configuration is damaged.
    """
    there = read_config(folder)
    differing = [
        f"{name} = {getattr(there, name)} there, {getattr(config, name)} here"
        for name in config.names()
        if getattr(there, name) != getattr(config, name)
    ]
    if differing:
        raise PrecodeFileError(f"{folder} holds another study ({'; '.join(differing)}): name another folder")


def damaged(folder: Path, what: str, remedy: str = RESTORE) -> PrecodeFileError:
    """The error that says what is damaged."""
    return PrecodeFileError(f"{folder} is damaged: {what}. {remedy}")


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Says of errors of files and database what they mean for the study."""
    try:
        yield
    except PrecodeFileError:
        raise
    except sqlite3.DatabaseError as error:
        # Python 3.10 has no codes of SQLite's errors.
        known = {"disk is full": errno.ENOSPC, "readonly": errno.EACCES, "unable to open": errno.EACCES}
        for text, code in known.items():
            if text in str(error):
                raise _cannot_write(folder, OSError(code, os.strerror(code))) from error
        raise damaged(folder, f"{DATABASE}: {error}") from error
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _cannot_write(folder: Path, error: OSError) -> PrecodeFileError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "free some space" if full else "use a folder that can be written to"
    reason = error.strerror or error
    return PrecodeFileError(f"{folder}: cannot be written ({reason}): {remedy}; what is finished is kept")
