"""What a study's folder holds, and what is said when it does not."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from precode._internal.errors import PrecodeFileError
from precode.study.config import VERSION, StudyConfig

CONFIG = "study.json"
DATABASE = "study.sqlite"
LOCK = "study.lock"
DATA = "data"

RESTORE = "Restore it from a copy, or begin again in a new folder"

LITTLE = 2**20
"""Free bytes below which an error of the disk is taken for a full one."""

RESULT = re.compile(r"([0-9a-f]{64})\.([0-9a-f]{16})\.[a-z0-9_]+\.(?:parquet|safetensors)")
"""Names of files of results; the groups are the key of the cell and the digest of the job."""


@dataclass(frozen=True)
class Kept:
    """A file of a finished job, as the database lists it.

    Attributes:
        cell: key of the cell.
        job: digest of the job.
        name: of the result.
        ending: of the file: of a table, or of arrays.
        size: its length, bytes.
        sha256: of its bytes, in hexadecimal.
    """

    cell: str
    job: str
    name: str
    ending: str
    size: int
    sha256: str

    @property
    def file(self) -> str:
        """Its name in the folder of results, which follows from what it is and is read from nowhere."""
        return f"{self.cell}.{self.job}.{self.name}.{self.ending}"

    def read(self, folder: Path) -> bytes:
        """Its bytes.

        Raises:
            PrecodeFileError: it is missing, or was altered; the message begins with its name.
        """
        path = folder / DATA / self.file
        try:
            found = path.lstat()
            if not stat.S_ISREG(found.st_mode):
                raise PrecodeFileError(f"{DATA}/{self.file} is no file of its own (a link, a folder or the like)")
            if found.st_size != self.size:
                raise PrecodeFileError(f"{DATA}/{self.file} has {found.st_size} bytes instead of {self.size}")
            data = path.read_bytes()
        except OSError as error:
            if isinstance(error, PrecodeFileError):
                raise
            raise PrecodeFileError(f"{DATA}/{self.file} cannot be read ({error.strerror or error})") from error
        if digest(data) != self.sha256:
            raise PrecodeFileError(f"{DATA}/{self.file} was altered: its SHA-256 is not the one that was noted")
        return data


def digest(data: bytes) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def results(folder: Path) -> set[str]:
    """Names of the files of results that are there; hidden files are none."""
    data = folder / DATA
    return {entry.name for entry in data.iterdir() if not entry.name.startswith(".")} if data.is_dir() else set()


def check_links(folder: Path) -> None:
    """Refuses a folder whose own files are links: what is written there would be written elsewhere.

    Raises:
        PrecodeFileError: one of them is a link.
    """
    for name in (CONFIG, DATABASE, LOCK, DATA):
        if (folder / name).is_symlink():
            raise PrecodeFileError(
                f"{folder / name} is a link: a study keeps its files in its own folder; move it here"
            )


def read_config(folder: Path) -> StudyConfig:
    """The configuration in a folder.

    Raises:
        PrecodeFileError: there is none, it is damaged, or of another version.
    """
    try:
        text = (folder / CONFIG).read_text(encoding="utf-8")
    except OSError as error:
        raise PrecodeFileError(f"{folder}: not the folder of a study: {CONFIG}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise damaged(folder, f"{CONFIG}: {error}") from error
    try:
        return StudyConfig.from_json(text)
    except ValueError as error:
        if _is_older(text):
            raise PrecodeFileError(
                f"{folder} holds a study of an earlier version of precode, which kept its cells in another way: read "
                "it with that version, or name a new folder"
            ) from error
        raise damaged(folder, f"{CONFIG}: {error}") from error


def _is_older(text: str) -> bool:
    try:
        values = json.loads(text)
    except ValueError:
        return False
    return isinstance(values, dict) and "rules" in values and values.get("version") in range(1, VERSION)


def damaged(folder: Path, what: str, remedy: str = RESTORE) -> PrecodeFileError:
    """The error that says what is damaged."""
    return PrecodeFileError(f"{folder} is damaged: {what}. {remedy}")


@contextmanager
def explained(folder: Path, action: str = "written") -> Iterator[None]:
    """Says of errors of files and database what they mean for the study.

    Args:
        folder: of the study.
        action: what is tried: it is to be ``"written"`` or ``"read"``.
    """
    try:
        yield
    except PrecodeFileError:
        raise
    except sqlite3.Error as error:
        raise _of_database(folder, error, action) from error
    except OSError as error:
        raise _cannot(folder, error, action) from error


def _of_database(folder: Path, error: sqlite3.Error, action: str) -> PrecodeFileError:
    # Python 3.10 has no codes of SQLite's errors.
    text = str(error)
    if "disk is full" in text:
        return _cannot(folder, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), action)
    if "readonly" in text or "unable to open" in text:
        return _cannot(folder, OSError(errno.EACCES, os.strerror(errno.EACCES)), action)
    if "locked" in text:
        return PrecodeFileError(f"{folder}: {DATABASE} is used by another process: try again when that has ended")
    if "disk I/O error" in text:
        # SQLite says so of a full disk too, where a file beside the database cannot grow.
        code = errno.ENOSPC if _is_full(folder) else errno.EIO
        return _cannot(folder, OSError(code, os.strerror(code)), action)
    return damaged(folder, f"{DATABASE}: {text}")


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < LITTLE
    except OSError:
        return False


def _cannot(folder: Path, error: OSError, action: str) -> PrecodeFileError:
    remedies = {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "free some space, or ask for more",
        errno.EFBIG: "files may not grow so long: raise the limit (ulimit -f)",
        errno.EIO: "the disk or its connection fails, or the limit of a file's length is reached: see to it",
    }
    usual = "use a folder that can be written to" if action == "written" else "see to its permissions"
    remedy = remedies.get(error.errno or 0, usual)
    kept = "; what is finished is kept" if action == "written" else ""
    return PrecodeFileError(f"{folder}: cannot be {action} ({error.strerror or error}): {remedy}{kept}")
