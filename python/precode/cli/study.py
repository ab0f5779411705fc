"""`precode study`: every claim of the paper, from one configuration in one folder."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context, parent_process, resource_tracker
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import click
import pandas as pd

from precode._internal.errors import PrecodeError, PrecodeFileError, PrecodeValueError
from precode._internal.files import write_atomically
from precode.cli.options import Fractions, Names, Numbers
from precode.cli.output import as_json, check_folder

if TYPE_CHECKING:
    from precode._internal.cells import Cell
    from precode.study import Study, StudyConfig


@click.command(name="study")
@click.option("--preset", help="quick, paper, or robust; --dry-run prints an estimate of the time.")
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
    help="A new folder, or one with a study that this one continues or adds to.",
)
@click.option("--methods", type=Names(), help="Names of ticket methods separated by commas, or 'all'.")
@click.option("--densities", type=Fractions(), help="Fractions of the first layer's weights that are kept.")
@click.option("--hidden", type=Numbers(), help="Hidden widths.")
@click.option("--clauses", type=Numbers(), help="Numbers of clauses.")
@click.option("--embeddings", type=Names(), help="Names of maps in front of the networks.")
@click.option("--probe-epochs", type=Numbers(), help="Epochs of the dense run after which methods are read.")
@click.option("--experiments", type=Names(), help="Names of the paper's experiments that are part of the study.")
@click.option("--formulas", type=click.IntRange(1), help="Random formulas for each width, clauses and embedding.")
@click.option("--epochs", type=click.IntRange(1), help="Most passes over the data.")
@click.option("--samples", type=click.IntRange(1), help="Training samples of each network.")
@click.option("--seed", type=click.IntRange(0), help="Key of all random numbers, 0 in the presets.")
@click.option(
    "--workers", type=click.IntRange(1), help="Processes that compute, one a core by default; 1: this one, all cores."
)
@click.option("--repair", is_flag=True, help="Compute again what is missing or was altered in a damaged folder.")
@click.option("--judge", "again", is_flag=True, help="Judge again, even where nothing has changed since the last time.")
@click.option("--dry-run", is_flag=True, help="Print the cells, their cost and an estimate of the time, and end.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path),
    help="Also write the printed verdicts (or cells) to this file.",
)
def study_command(
    preset: str | None,
    config_file: Path | None,
    out: Path,
    workers: int | None,
    repair: bool,
    again: bool,
    dry_run: bool,
    json_file: Path | None,
    **changes: Any,
) -> None:
    """Tests every claim of arXiv 2605.17704, with nulls and intervals.

    Trains networks, finds and retrains tickets, judges the claims by rules that are written down, and leaves
    report.html, claims.json and tables (CSV and Parquet) in the folder. Whatever stops it, the same command goes on
    where it was. More methods, densities, widths, clauses, embeddings or formulas are added to what is there.
    """
    if (preset is None) == (config_file is None):
        raise click.UsageError("name a --preset or a --config, one of the two")
    if json_file:
        check_folder(json_file)
    try:
        rows = _run(preset, config_file, out, workers, repair, again, dry_run, changes)
    except PrecodeError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        # A second Ctrl-C must not keep what is said here from being said.
        with suppress(ValueError):
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        click.echo(f"interrupted: {_kept(out)}; run it again to go on", err=True)
        sys.exit(130)
    if json_file:
        write_atomically(json_file, as_json(pd.DataFrame(rows)))


def _run(
    preset: str | None,
    config_file: Path | None,
    out: Path,
    workers: int | None,
    repair: bool,
    again: bool,
    dry_run: bool,
    changes: dict[str, Any],
) -> list[dict[str, Any]]:
    """Computes, judges and reports; returns the rows that were printed."""
    import precode.report  # noqa: F401 - what is not installed is said now, not after hours of work
    from precode import study
    from precode.claims import rules_version
    from precode.study.verdicts import read_claims

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = workers or cores
    config = _config(preset, config_file, {name: value for name, value in changes.items() if value is not None})
    planned = study.plan(config)
    rows = [_cell(cell) for cell in planned.cells]
    if dry_run:
        _echo("\n".join(map(_cell_line, rows)))
    click.echo(planned.describe(cores if count == 1 else min(count, cores)), err=True)
    click.echo(f"then about {study.duration(judging_seconds(config))} for the verdicts and the report", err=True)
    if few := _too_few(config):
        click.echo(few, err=True)
    if dry_run:
        return rows
    executor = None if count == 1 else _pool(count, max(cores // count, 1))
    with warnings.catch_warnings():
        # What this says is said below.
        warnings.filterwarnings("ignore", message=r"\d+ of \d+ cells failed")
        done = study.run(config, out, executor=executor, repair=repair)
    for failure in done.failures.to_dict("records"):
        click.echo(f"failed: {failure['kind']} {failure['settings']}: {failure['error']}", err=True)
    report = out / "report.html"
    verdicts = None if again or done.finished < done.planned or not report.is_file() else read_claims(done)
    if verdicts is not None:
        click.echo("judged before from the same results by the same rules; --judge judges again", err=True)
    else:
        verdicts = _judge(done, report)
    _echo(_verdicts(verdicts))
    if note := study.rules_note(done.rules, rules_version()):
        click.echo(f"note: {note}", err=True)
    click.echo(f"the report, claims and tables are in {out}: open {report}", err=True)
    return [{name: verdict[name] for name in PRINTED} for verdict in verdicts]


def _judge(done: Study, report: Path) -> list[dict[str, Any]]:
    """Judges the claims, and writes tables and report."""
    from precode import study
    from precode.report import write_report

    if done.finished == done.planned:
        click.echo("judging the claims", err=True)
    claims = study.judge_study(done, progress=True)
    # What was judged before no longer goes with the report, until both are written anew.
    (done.folder / "claims.json").unlink(missing_ok=True)
    report.unlink(missing_ok=True)
    click.echo("writing the tables", err=True)
    study.write_claims(done, claims, progress=True)
    click.echo("drawing the report", err=True)
    write_report(done, claims.values(), report, progress=True)
    return [claim.record() for claim in claims.values()]


def _kept(out: Path) -> str:
    """What is in a folder after Ctrl-C, in words."""
    try:
        from precode.study import Study

        done = Study(out)
    except (PrecodeError, KeyboardInterrupt):
        return "nothing had been computed"
    return f"{done.finished} of {done.planned} cells are finished and kept"


def _config(preset: str | None, file: Path | None, changes: dict[str, Any]) -> StudyConfig:
    from dataclasses import replace

    from precode.study import StudyConfig
    from precode.tickets.registry import records

    if changes.get("methods") == ("all",):
        changes["methods"] = tuple(records())
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
    try:
        return replace(StudyConfig.from_json(text), **changes)
    except PrecodeValueError as error:
        raise PrecodeValueError(f"{file}: {error}") from error


JUDGING = (5.0, 20e-6)
"""Core-seconds of judging all claims once, where there are enough formulas, and of each location in it: measured on a
study of 8 points, 80 networks and 12 methods, which took 56 core-seconds in 7 times."""

DRAWING = 13.0
"""Core-seconds of drawing the report, measured on the same."""


def judging_seconds(config: StudyConfig) -> float:
    """A rough estimate of what verdicts, tables and report take: everything is judged once, and again in its parts."""
    from precode.claims.cells import TEMPLATES

    parts = [len(values) for values in (config.hidden, config.clauses, config.embeddings) if len(values) > 1]
    # Every hidden row of every clause and template, of true and of false clauses.
    points = sum(config.hidden) * sum(config.clauses) * len(config.embeddings)
    locations = 2 * TEMPLATES * points * config.formulas
    start, location = JUDGING
    judged = 0 if _too_few(config) else start * (3 + sum(parts))
    return judged + location * locations * (1 + len(parts)) + DRAWING


def _too_few(config: StudyConfig) -> str:
    """Says that there are fewer formulas than the rules ask for; empty where there are enough."""
    from precode.claims import load_rules

    least = load_rules()["formulas"]
    if config.formulas >= least:
        return ""
    return f'{config.formulas} formulas, but the rules need {least}: the claims will end as "not enough data"'


def _echo(text: str) -> None:
    """Prints to standard output, and on to where it leads, so that errors come now."""
    click.echo(text)
    sys.stdout.flush()


class _Pool(ProcessPoolExecutor):
    """Processes that never hear of Ctrl-C, from their first moment: the driver hears it, and ends them."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if not hasattr(signal, "pthread_sigmask"):
            return super().submit(fn, *args, **kwargs)
        # Processes are started here, and have the mask of this thread. The tracker of resources, which is started with
        # the first of them, would change it.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(fn, *args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _pool(workers: int, threads: int) -> Callable[[], ProcessPoolExecutor]:
    """Makes pools whose processes share the cores. Forked processes could not compute with torch."""
    return lambda: _Pool(workers, mp_context=get_context("spawn"), initializer=_share_cores, initargs=(threads,))


def _share_cores(threads: int) -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A process whose parent was killed would otherwise finish its cells for nobody.
    Thread(target=_end_with_parent, daemon=True).start()
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


PRINTED = ("name", "verdict", "effect", "low", "high", "formulas", "statement", "measure", "reason")
"""What is printed of a verdict, and written by --json."""


POINT = ("hidden", "clauses", "embedding", "method")
"""Settings of a cell that are printed."""


def _cell(cell: Cell) -> dict[str, Any]:
    """A cell as a row: kind, point, method, parts, the estimate, and its key."""
    row: dict[str, Any] = {"kind": cell.kind}
    row |= {name: value for name, value in cell.settings.items() if name in POINT}
    return row | {"parts": cell.size, "seconds": cell.seconds, "key": cell.key}


def _cell_line(row: dict[str, Any]) -> str:
    point = ", ".join(f"{name} {row[name]}" for name in POINT if name in row)
    return f"{row['kind']:8} {point:65} {row['parts']:6} parts {row['seconds']:8.1f} core-seconds  {row['key'][:12]}"


def _verdicts(verdicts: list[dict[str, Any]]) -> str:
    """The claims as lines: name, verdict, effect with its interval, what is claimed, and what is not met."""
    lines = []
    for one in verdicts:
        judged = one["effect"] is not None
        effect = f"{one['effect']:.3g} [{_digits(one['low'])}, {_digits(one['high'])}]" if judged else "-"
        lines.append(f"{one['name']}  {one['verdict']:15}  {effect:25}  {one['statement']}")
        lines.append(f"    {one['measure']}")
        lines += [f"    {answer}: {text}" for text, answer in one["conditions"].items() if answer != "met"]
        if one["reason"]:
            lines.append(f"    {one['reason']}")
    return "\n".join(lines)


def _digits(value: float | None) -> str:
    return "nan" if value is None else f"{value:.3g}"
