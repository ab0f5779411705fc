"""`precode study`: every claim of the paper, from one configuration in one folder."""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import click

from precode._internal.errors import PrecodeError, PrecodeFileError, PrecodeValueError

if TYPE_CHECKING:
    from precode.claims import Verdict
    from precode.study import Plan, StudyConfig


@click.command(name="study")
@click.option("--preset", help="quick (a few minutes) or paper (see the estimate that --dry-run prints).")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A configuration of your own instead, such as the study.json of another study.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="A new folder, or one in which this study was begun.",
)
@click.option("--seed", type=click.IntRange(0), help="Key of all random numbers, 0 in the presets.")
@click.option(
    "--workers", type=click.IntRange(1), help="Processes that compute, one a core by default; 1: this one, all cores."
)
@click.option("--repair", is_flag=True, help="Compute again what is missing or was altered in a damaged folder.")
@click.option("--dry-run", is_flag=True, help="Print the cells, their cost and an estimate of the time, and end.")
def study_command(
    preset: str | None,
    config_file: Path | None,
    out: Path,
    seed: int | None,
    workers: int | None,
    repair: bool,
    dry_run: bool,
) -> None:
    """Tests every claim of arXiv 2605.17704, with nulls and intervals.

    Trains networks, finds and retrains tickets, judges the claims by rules that are written down, and leaves
    report.html, claims.json and tables (CSV and Parquet) in the folder. Whatever stops it, the same command goes on
    where it was.
    """
    if (preset is None) == (config_file is None):
        raise click.UsageError("name a --preset or a --config, one of the two")
    from precode import study
    from precode.claims import rules_version
    from precode.report import write_report

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = workers or cores
    try:
        config = _config(preset, config_file, seed)
        planned = study.plan(config)
        if dry_run:
            click.echo(_cells(planned))
        click.echo(planned.describe(cores if count == 1 else min(count, cores)), err=True)
        if dry_run:
            return
        executor = None if count == 1 else _pool(count, max(cores // count, 1))
        with warnings.catch_warnings():
            # What these say is said below.
            warnings.filterwarnings("ignore", message=r"interrupted: |\d+ of \d+ cells failed")
            done = study.run(config, out, executor=executor, repair=repair)
        if done.interrupted:
            click.echo(
                f"interrupted: {done.finished} of {done.planned} cells are finished and kept; run it again to go on",
                err=True,
            )
            sys.exit(130)
        for failure in done.failures.to_dict("records"):
            click.echo(f"failed: {failure['kind']} {failure['settings']}: {failure['error']}", err=True)
        if done.finished == done.planned:
            click.echo("judging the claims", err=True)
        claims = study.judge_study(done, progress=True)
        if note := study.rules_note(done.rules, rules_version()):
            click.echo(f"note: {note}", err=True)
        click.echo("writing the tables", err=True)
        study.write_claims(done, claims, progress=True)
        click.echo("drawing the report", err=True)
        write_report(done, claims.values(), out / "report.html", progress=True)
    except PrecodeError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("interrupted: all cells are finished and kept; run it again for the claims", err=True)
        sys.exit(130)
    click.echo(_verdicts(claims))
    click.echo(f"the report, claims and tables are in {out}: open {out / 'report.html'}", err=True)


def _config(preset: str | None, file: Path | None, seed: int | None) -> StudyConfig:
    from dataclasses import replace

    from precode.study import StudyConfig

    changes: dict[str, Any] = {} if seed is None else {"seed": seed}
    if preset is not None:
        try:
            return StudyConfig.preset(preset, **changes)
        except PrecodeValueError as error:
            raise click.BadParameter(str(error)) from error
    assert file is not None
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PrecodeFileError(f"{file}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    return replace(StudyConfig.from_json(text), **changes)


def _pool(workers: int, threads: int) -> Callable[[], ProcessPoolExecutor]:
    """Makes pools whose processes share the cores. Forked processes could not compute with torch."""
    return lambda: ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_share_cores, initargs=(threads,)
    )


def _share_cores(threads: int) -> None:
    import torch

    # A process whose parent was killed would otherwise finish its cells for nobody.
    Thread(target=_end_with_parent, daemon=True).start()
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _cells(planned: Plan) -> str:
    """One line a cell: kind, point, the estimate, and the beginning of its key."""
    lines = []
    for cell in planned.cells:
        point = ", ".join(f"{name} {cell.settings[name]}" for name in ("hidden", "clauses", "embedding"))
        lines.append(f"{cell.kind:8} {point:45} {cell.seconds:8.1f} core-seconds  {cell.key[:12]}")
    return "\n".join(lines)


def _verdicts(claims: dict[str, Verdict]) -> str:
    """The claims as lines: name, verdict, effect with its interval, what is claimed, and what is not met."""
    lines = []
    for claim in claims.values():
        judged = math.isfinite(claim.effect)
        effect = f"{claim.effect:.3g} [{claim.low:.3g}, {claim.high:.3g}]" if judged else "-"
        lines.append(f"{claim.name}  {claim.verdict:15}  {effect:25}  {claim.statement}")
        lines.append(f"    {claim.measure}")
        lines += [f"    {answer}: {text}" for text, answer in claim.conditions.items() if answer != "met"]
        if claim.reason:
            lines.append(f"    {claim.reason}")
    return "\n".join(lines)
