"""Files that are whole or not there."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a whole file or nothing: a temporary file beside it, then a rename, both on disk before it returns.

    A new file has the mode that the process's umask gives it, and one that replaces another that one's. Where a folder
    cannot be synced (Windows, some network file systems), the renaming reaches the disk when the system sees fit; the
    file is whole all the same.

    Raises:
        OSError: it cannot be written, or something else than a file is there, such as a device.
    """
    there = path.stat() if path.exists() else None
    if there is not None and not stat.S_ISREG(there.st_mode):
        raise FileExistsError(errno.EEXIST, "it is no regular file", str(path))
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            if there is not None:
                temporary.chmod(stat.S_IMODE(there.st_mode))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    with suppress(OSError):
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
