"""What happens to a job wherever it is computed: results as the bytes of files, or the words for why there are none."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from precode._internal.cells import Job, Results, check_results, numerics
from precode._internal.errors import UnsupportedError
from precode.study import encoding
from precode.study.folder import digest

LONGEST = 10_000
"""Characters of an error that are kept; of its trace, ten times as many."""


@dataclass(frozen=True)
class File:
    """A result as it is written.

    Attributes:
        name: of the result.
        ending: `encoding.TABLE` or `encoding.ARRAYS`.
        data: its bytes.
        sha256: of its bytes, in hexadecimal.
    """

    name: str
    ending: str
    data: bytes
    sha256: str


@dataclass(frozen=True)
class Computed:
    """What comes back from wherever a job was computed.

    Attributes:
        files: its results, by name.
        seconds: wall-clock time it took there.
    """

    files: tuple[File, ...]
    seconds: float


@dataclass(frozen=True)
class Failed:
    """Why a job could not be computed, in plain text, which every process can read.

    Attributes:
        error: name and text of the exception.
        trace: where it was raised.
    """

    error: str
    trace: str

    @classmethod
    def of(cls, error: BaseException) -> Failed:
        """The words for an exception, even one that cannot tell its own."""
        name = type(error).__name__
        try:
            said = str(error)
            text = f"{name}: {said}" if said else name
        except BaseException:
            text = f"{name}: (its text cannot be had)"
        try:
            trace = "".join(traceback.format_exception(error))
        except BaseException:
            trace = text
        return cls(plain(text)[:LONGEST], plain(trace)[-10 * LONGEST :])


def plain(text: str) -> str:
    r"""Text that can be written as UTF-8 and shown: lone surrogates and NUL as escapes.

    Example:
        >>> plain("a\ud800b")
        'a\\ud800b'
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\0")


def compute(
    function: Callable[..., Results], job: Job, attempt: int, passed: tuple[type[BaseException], ...] = ()
) -> Computed | Failed:
    """Computes a job, in whatever process; what it raises, whatever it is, fails this job alone.

    Args:
        function: its kind's.
        job: what to compute.
        attempt: number of the attempt; some executors answer the same call with the same failure.
        passed: exceptions that are passed on: Ctrl-C, where this process is the one that the user runs.
    """
    try:
        return _computed(function, job)
    except passed:
        raise
    except BaseException as error:
        return Failed.of(error)


def _computed(function: Callable[..., Results], job: Job) -> Computed:
    if numerics() != job.cell.numerics:
        raise UnsupportedError(f"a worker has {numerics()}, the study {job.cell.numerics}: install the same everywhere")
    began = time.perf_counter()
    settings = job.cell.settings
    results = check_results(function(settings, job.parts) if job.cell.axes else function(settings), job)
    files = []
    for name, value in results.items():
        ending, data = encoding.to_bytes(value, f"{job.cell.kind}.{name}")
        files.append(File(name, ending, data, digest(data)))
    return Computed(tuple(files), time.perf_counter() - began)
