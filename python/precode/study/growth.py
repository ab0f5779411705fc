"""Whether a study's folder can become that of another configuration: it may grow, and lose nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from precode._internal.cells import Cell, Job
from precode._internal.errors import PrecodeFileError
from precode.study.config import StudyConfig
from precode.study.contents import Contents

LISTS = ("hidden", "clauses", "embeddings", "densities", "methods", "probe_epochs", "experiments")
"""What a configuration may have more of, beside formulas."""

FIXED = ("epochs", "samples", "seed")
"""What all cells depend on."""

NAMED = 3
"""Pieces of work that are named before the rest is counted."""


def check_growth(folder: Path, there: Contents, config: StudyConfig, cells: Sequence[Cell]) -> None:
    """Refuses a configuration that does not contain all that is finished.

    Raises:
        PrecodeFileError: the message names what would be lost, and what to do.
    """
    planned = {cell.key: cell for cell in cells}
    finished = [job for jobs in there.jobs.values() for job in jobs]
    lost = [job for job in finished if not _contains(planned.get(job.cell.key), job)]
    if not lost:
        return
    of_all = f"{len(lost)} of {len(finished)} finished pieces of work are not part of it"
    then, now = lost[0].cell.numerics, cells[0].numerics
    if then != now:
        raise PrecodeFileError(
            f"{folder} was not computed by this software ({then} there, {now} here): go on with the software that "
            "began it, or name a new folder"
        )
    other = [f"{name} = {getattr(there.config, name)} there, {getattr(config, name)} here" for name in FIXED]
    other = [
        text for name, text in zip(FIXED, other, strict=True) if getattr(there.config, name) != getattr(config, name)
    ]
    if other:
        raise PrecodeFileError(f"{folder} holds another study ({'; '.join(other)}): name another folder")
    missing = _missing(there.config, config)
    if kinds := sorted({job.cell.kind for job in lost} - {cell.kind for cell in cells}):
        missing.append(f"kinds of cells: {', '.join(kinds)}")
    versions = {(cell.kind, cell.version) for cell in cells}
    changed = sorted({job.cell.kind for job in lost if (job.cell.kind, job.cell.version) not in versions} - set(kinds))
    if changed:
        missing.append(f"another version of the kinds {', '.join(changed)}")
    if not missing:
        counts = Counter(str(job) for job in lost)
        more = f" and {len(counts) - NAMED} more" if len(counts) > NAMED else ""
        missing.append("; ".join(list(counts)[:NAMED]) + more)
    raise PrecodeFileError(
        f"{folder}: the study leaves out what is finished there ({'; '.join(missing)}; {of_all}): a study can only "
        "grow; put these back, or name another folder"
    )


def _contains(cell: Cell | None, job: Job) -> bool:
    return cell is not None and all(set(job.parts[name]) <= set(values) for name, values in cell.parts.items())


def _missing(there: StudyConfig, here: StudyConfig) -> list[str]:
    """What a configuration has less of than the one before."""
    found = []
    for name in LISTS:
        if less := [f"{value}" for value in getattr(there, name) if value not in getattr(here, name)]:
            found.append(f"{name}: {', '.join(less)}")
    if there.formulas > here.formulas:
        found.append(f"formulas: {there.formulas} there, {here.formulas} here")
    return found
