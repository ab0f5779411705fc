"""`precode reproduce`: published numbers beside ours."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pandas as pd

from precode._internal.errors import PrecodeError
from precode._internal.files import write_atomically
from precode.cli.output import as_json, check_folder, make_folder, need_figures, save_figure, save_table

if TYPE_CHECKING:
    from precode.experiments import Experiment, Result

PRINTED = ["figure", "quantity", "at", "reported", "measured", "low", "high", "difference"]
"""Columns of a comparison that are printed; the files have all."""


@click.command(name="reproduce")
@click.argument("names", nargs=-1, metavar="[NAME ... | all]")
@click.option("--list", "listed", is_flag=True, help="List the experiments, and end.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for tables, figures and finished cells; the same command goes on where it was.",
)
@click.option("--quick", is_flag=True, help="Fewer points, formulas and epochs: a trial of the machinery.")
@click.option("--full", is_flag=True, help="All points of the documentation, where there are more than by default.")
@click.option("--formulas", type=click.IntRange(1), help="Formulas of each point, which intervals are taken over.")
@click.option("--seed", type=click.IntRange(0), help="Key of all random numbers.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write the comparison to this file.")
def reproduce_command(
    names: tuple[str, ...],
    listed: bool,
    out: Path | None,
    quick: bool,
    full: bool,
    formulas: int | None,
    seed: int | None,
    json_file: Path | None,
) -> None:
    """Runs experiments of papers, and prints every published number that we have beside ours.

    measured is the mean over formulas, low and high its 95 % interval, difference measured minus reported. With --out,
    each experiment gets a folder with its tables (CSV, and Parquet where pyarrow is installed), its figures (SVG), and
    the comparison, and what is finished is kept there.
    """
    from precode.experiments import EXPERIMENTS, Interrupted

    if listed:
        _list(EXPERIMENTS)
        return
    if quick and full:
        raise click.UsageError("--quick has fewer points and --full all: choose one of them")
    chosen = _chosen(names)
    if json_file:
        check_folder(json_file)
    if out:
        need_figures()
        for experiment in chosen:
            make_folder(out / experiment.name)
    changes = {name: value for name, value in (("formulas", formulas), ("seed", seed)) if value is not None}
    beside: list[pd.DataFrame] = []
    interrupted = False
    try:
        for experiment in chosen:
            folder = None if out is None else out / experiment.name
            form = experiment.quick if quick else experiment.full if full else {}
            setting: dict[str, Any] = {**form, **changes}
            click.echo(f"{experiment.name}: {experiment.title} ({experiment.source})", err=True)
            try:
                result = experiment(out=folder, **setting)
            except Interrupted as interrupt:
                kept = f"; what is finished is kept in {folder}: run it again to go on" if folder else ""
                click.echo(f"interrupted: {interrupt}{kept}", err=True)
                interrupted = True
                result = interrupt.finished
            if result is not None:
                beside.append(_print(result))
                if folder and not interrupted:
                    _write(result, folder)
            if interrupted:
                break
    except KeyboardInterrupt:
        interrupted = True
        click.echo("interrupted", err=True)
    except (PrecodeError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if json_file and beside:
        write_atomically(json_file, as_json(pd.concat(beside, ignore_index=True)))
    if interrupted:
        sys.exit(130)


def _list(experiments: list[Experiment]) -> None:
    for experiment in experiments:
        click.echo(click.style(experiment.name, bold=True) + f": {experiment.title}")
        second_hand = sum(item.second_hand for item in experiment.reported)
        numbers = f"{len(experiment.reported)} reported numbers"
        click.echo(f"    {experiment.source}; {numbers}" + (f", {second_hand} second-hand" if second_hand else ""))
        click.echo(f"    {experiment.words}")


def _chosen(names: tuple[str, ...]) -> list[Experiment]:
    """The experiments of the command line, each once.

    Raises:
        UsageError: none, or an unknown one.
    """
    from precode.experiments import EXPERIMENTS, find

    known = ", ".join(experiment.name for experiment in EXPERIMENTS)
    if not names:
        raise click.UsageError(f"name an experiment or all: {known}")
    if "all" in names:
        return list(EXPERIMENTS)
    try:
        return [find(name) for name in dict.fromkeys(names)]
    except PrecodeError as error:
        raise click.UsageError(f"{error}, or all") from error


def _print(result: Result) -> pd.DataFrame:
    """Prints what was reported beside what was measured.

    Returns:
        All of the comparison, with the experiment's name.
    """
    table = result.reported
    measured = table[table["measured"].notna()]
    if measured.empty:
        click.echo(f"{result.experiment.name}: nothing of this setting compares with a published number")
    else:
        click.echo(measured[PRINTED].to_string(index=False, float_format="{:.4g}".format))
    click.echo(
        f"{result.experiment.name}: {len(measured)} of {len(table)} reported numbers beside measured ones, "
        f"{_inside(measured)} of them in the interval of the measured mean",
        err=True,
    )
    if result.differs():
        click.echo(f"{result.experiment.name}: {result.differs()}", err=True)
    table = table.copy()
    table.insert(0, "experiment", result.experiment.name)
    return table


def _inside(table: pd.DataFrame) -> int:
    return int(((table["low"] <= table["reported"]) & (table["reported"] <= table["high"])).sum())


def _write(result: Result, folder: Path) -> None:
    """Writes tables, figures, the comparison and the setting of an experiment."""
    write_atomically(folder / "setting.json", result.setting.to_json() + "\n")
    for name, table in {**result.tables, "reported": result.reported}.items():
        save_table(table, folder / name)
    for name in result.figures:
        save_figure(result.plot(name), folder / f"{name}.svg")
