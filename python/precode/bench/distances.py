"""Hamming distances a second between all pairs of codes, beside other libraries."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from precode._internal.errors import PrecodeValueError
from precode.bench import contest, machine
from precode.bench.contest import Entry, interleave, spread
from precode.codes.pairs import code_distance, code_distance_counts, code_distance_kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPES = ((20_000, 4_096), (60_000, 64))
"""Codes and bits that are measured."""
MATRIX_BYTES = 1 << 31
"""A whole matrix of 4-byte distances larger than this is not asked for: some rows of it are."""

COLUMNS = (
    "library",
    "call",
    "level",
    "codes",
    "bits",
    "rows",
    "threads",
    "seconds",
    "seconds_min",
    "seconds_max",
    "gpairs_per_second_per_core",
    "gbitops_per_second_per_core",
    "ratio_to_precode",
    "ratio_min",
    "ratio_max",
    "note",
)

Report: TypeAlias = Callable[[str], None]


class Codes:
    """Random codes in the forms that the libraries take; packing is not timed, except precode's own."""

    def __init__(self, count: int, bits: int) -> None:
        generator = np.random.default_rng(0)
        self.bools: NDArray[np.bool_] = generator.random((count, bits), dtype=np.float32) < 0.5
        self.bytes = np.packbits(self.bools, axis=1)
        padded = np.zeros((count, -(-self.bytes.shape[1] // 8) * 8), np.uint8)
        padded[:, : self.bytes.shape[1]] = self.bytes
        self.words = padded.view(np.uint64)


@dataclass(frozen=True)
class Call:
    """One way to get distances.

    Attributes:
        library: package that must be importable.
        name: as printed.
        function: distances of the first `rows` codes from all, from the codes; or of all from all.
        whole: always computes the whole matrix, of which it may use the symmetry.
        keeps: returns distances, so that the size of the matrix matters.
        threads: that it uses.
        level: instructions, where it says so.
        upper: only distances above the diagonal are promised.
    """

    library: str
    name: str
    function: Callable[[Codes, int], Any]
    whole: bool = False
    keeps: bool = True
    threads: Callable[[], int] = lambda: 1
    level: Callable[[], str] = lambda: ""
    upper: bool = False


def _numkong(codes: Codes, rows: int) -> Any:
    nk: Any = importlib.import_module("numkong")
    return nk.hammings_packed(codes.bytes[:rows], nk.hammings_pack(codes.bytes, dtype="uint1"))


def _numkong_symmetric(codes: Codes, rows: int) -> Any:
    return importlib.import_module("numkong").hammings_symmetric(codes.bytes, dtype="uint1")


def _numkong_cdist(codes: Codes, rows: int) -> Any:
    return importlib.import_module("numkong").cdist(codes.bytes[:rows], codes.bytes, "hamming", dtype="uint1")


def _scipy(codes: Codes, rows: int) -> Any:
    distance: Any = importlib.import_module("scipy.spatial.distance")
    return distance.cdist(codes.bools[:rows], codes.bools, "hamming") * codes.bools.shape[1]


def _numpy(codes: Codes, rows: int) -> NDArray[np.uint32]:
    out = np.empty((rows, len(codes.words)), np.uint32)
    for row in range(rows):
        np.bitwise_count(codes.words[row] ^ codes.words).sum(axis=1, dtype=np.uint32, out=out[row])
    return out


def _precode(name: str, function: Callable[[Codes, int], Any], *, whole: bool = False, keeps: bool = True) -> Call:
    return Call("precode", name, function, whole, keeps, threads=machine.rayon_threads, level=code_distance_kernel)


CALLS = (
    _precode("code_distance(a)", lambda codes, rows: code_distance(codes.bools), whole=True),
    _precode("code_distance(a, b)", lambda codes, rows: code_distance(codes.bools[:rows], codes.bools)),
    _precode(
        "code_distance_counts(a)",
        lambda codes, rows: code_distance_counts(codes.bools),
        whole=True,
        keeps=False,
    ),
    Call("numkong", "hammings_symmetric", _numkong_symmetric, whole=True, upper=True),
    Call("numkong", "hammings_packed", _numkong),
    Call("numkong", "cdist", _numkong_cdist),
    Call("scipy", "cdist", _scipy),
    Call("numpy", "xor, bitwise_count", _numpy),
)
"""The contestants; the first that kept anything is the base of the ratios."""


def pairs(
    shapes: Sequence[tuple[int, int]] | None = None,
    *,
    calls: Sequence[Call] = CALLS,
    repeats: int = 5,
    seconds: float | None = None,
    report: Report | None = None,
) -> pd.DataFrame:
    """Measures all-pairs Hamming distances.

    A whole matrix of N codes counts N^2 pairs, also where a call uses its symmetry. A call that takes rows is given as
    many as fill a stretch; one that would fill more memory than `MATRIX_BYTES` is left out. The base of the ratios is
    precode's `code_distance`, of one stack where the matrix fits, else of two.

    Args:
        shapes: numbers of codes and bits, by default `SHAPES`.
        calls: contestants.
        repeats: stretches of each; they take turns.
        seconds: length of a stretch, by default `precode.bench.contest.SECONDS`.
        report: told what is going on.

    Returns:
        One row a contestant and shape, with `COLUMNS`: medians over the repeats, with the least and the most; seconds
        are of one call, ratios of seconds for a pair and core.

    Raises:
        PrecodeValueError: no repeats.
    """
    if repeats < 1:
        raise PrecodeValueError(f"repeats = {repeats}: must be at least 1")
    seconds = contest.SECONDS if seconds is None else seconds
    tell = report or (lambda line: None)
    lines: list[dict[str, Any]] = []
    for count, bits in SHAPES if shapes is None else shapes:
        codes = Codes(count, bits)
        entries: list[tuple[Call, Entry | None, dict[str, Any]]] = []
        for call in calls:
            if call.whole and call.keeps and 4 * count * count > MATRIX_BYTES:
                continue
            tell(f"warming up {call.library} {call.name}, {count} codes of {bits} bits")
            entries.append(_prepare(call, codes, seconds))
        tell(f"measuring {len(entries)} contestants in turn, {repeats} times")
        interleave([entry for _, entry, _ in entries if entry], repeats, pause=min(contest.PAUSE, seconds))
        base = next((entry for call, entry, _ in entries if entry and call.library == "precode"), None)
        lines += [_line(entry, base, bits, line) for _, entry, line in entries]
    return pd.DataFrame(lines, columns=list(COLUMNS)).astype(dict.fromkeys(("rows", "threads"), "Int64"))


def _prepare(call: Call, codes: Codes, seconds: float) -> tuple[Call, Entry | None, dict[str, Any]]:
    """A contestant with as many rows as fill a stretch, if it is there and right."""
    count, bits = codes.bools.shape
    line: dict[str, Any] = dict.fromkeys(COLUMNS, math.nan) | {
        "library": call.library,
        "call": call.name,
        "codes": count,
        "bits": bits,
        "level": "",
        "note": "",
    }
    if importlib.util.find_spec(call.library) is None:
        line["note"] = "not installed: pip install 'precode[bench]'"
        return call, None, line
    line |= {"level": call.level(), "threads": call.threads()}
    try:
        if wrong := _wrong(call, codes):
            line["note"] = f"wrong: {wrong}"
            return call, None, line
        rows = count
        if not call.whole:
            # Twice as many until a single call fills a stretch: what a call does once must not count.
            most, rows = min(count, max(1, MATRIX_BYTES // (8 * count))), 1
            probe = Entry(lambda: call.function(codes, rows), amount=1.0)
            while rows < most and probe.stretch(1) < seconds:
                rows = min(2 * rows, most)
        entry = Entry(lambda: call.function(codes, rows), amount=rows * count / call.threads())
        entry.calibrate(seconds)
    except Exception as error:
        line["note"] = f"failed: {type(error).__name__}: {error}"
        return call, None, line
    line["rows"] = rows
    return call, entry, line


def _wrong(call: Call, codes: Codes) -> str:
    """What is wrong with the distances of some codes, or nothing."""
    some = Codes.__new__(Codes)
    few = 50
    some.bools, some.bytes, some.words = codes.bools[:few], codes.bytes[:few], codes.words[:few]
    expected = (some.bools[:, None] != some.bools).sum(-1)
    got = np.asarray(call.function(some, len(some.bools)))
    if not call.keeps:
        above = expected[np.triu_indices(len(expected), 1)]
        expected = np.bincount(above, minlength=some.bools.shape[1] + 1)
    elif call.upper:
        got, expected = np.triu(got, 1), np.triu(expected, 1)
    if got.shape != expected.shape:
        return f"distances of shape {got.shape}, not {expected.shape}"
    different = int((np.rint(got) != expected).sum())
    return f"{different} of {expected.size} distances differ" if different else ""


def _line(entry: Entry | None, base: Entry | None, bits: int, line: dict[str, Any]) -> dict[str, Any]:
    if entry is None:
        return line
    line["seconds"], line["seconds_min"], line["seconds_max"] = spread(entry.seconds)
    rate = 1e-9 / float(np.median(entry.rates))
    line["gpairs_per_second_per_core"] = rate
    line["gbitops_per_second_per_core"] = rate * bits
    if base is not None:
        ratios = spread(entry.rates / base.rates)
        line["ratio_to_precode"], line["ratio_min"], line["ratio_max"] = ratios
    return line
