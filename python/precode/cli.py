"""The command line: `precode curves` and `precode bench`, with the names of the Python API."""

from __future__ import annotations

import io
import itertools
import json
import os
import secrets
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pandas as pd
from click.core import ParameterSource

from precode import embedding as embeddings
from precode import published
from precode.errors import PrecodeError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Numbers(click.ParamType[tuple[int, ...]]):
    """Comma-separated positive integers."""

    name = "N,N,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """A tuple of integers, or a usage error naming what came."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if not numbers or min(numbers) < 1:
            self.fail(f"{value!r}: expected numbers of at least 1 separated by commas, such as 16,32", param, ctx)
        return numbers


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a whole file or nothing: a temporary file beside it, then a rename, both on disk before it returns.

    The file has the mode that the process's umask gives to new files.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def check_folder(path: Path) -> None:
    """Refuses a file whose folder cannot be written to, before any work starts."""
    if not path.parent.is_dir():
        raise click.ClickException(f"{path}: the folder {path.parent} does not exist; create it first")
    if not os.access(path.parent, os.W_OK) or path.is_dir():
        raise click.ClickException(f"{path} cannot be written; choose another file")


def make_folder(path: Path) -> None:
    """Creates a folder for files, or refuses it before any work starts if they cannot be written there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise click.ClickException(
            f"{path}: no files can be written there ({reason}); choose another folder"
        ) from error


def as_json(table: pd.DataFrame) -> str:
    """A table as a list of objects, one a row, missing numbers as null."""
    return json.dumps(json.loads(table.to_json(orient="records", double_precision=15)), indent=1) + "\n"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="precode")
def main() -> None:
    """Reads the codes a network will use before it has learned them."""


@main.command(name="curves")
@click.option("--hidden", type=Numbers(), default=published.HIDDEN, show_default="16,32,64", help="Hidden widths.")
@click.option(
    "--clauses",
    type=Numbers(),
    default=published.CLAUSES,
    show_default=",".join(map(str, published.CLAUSES)),
    help="Numbers of clauses.",
)
@click.option("--trials", type=click.IntRange(1), default=10, show_default=True, help="Formulas for each point.")
@click.option("--epochs", type=click.IntRange(1), default=100, show_default=True, help="Most passes over the data.")
@click.option(
    "--embedding",
    type=click.Choice(embeddings.NAMES),
    default="identity",
    show_default=True,
    help="Fixed map in front of the network.",
)
@click.option("--negated", type=click.IntRange(0), default=0, show_default=True, help="Negated literals a clause.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Key of all random numbers.")
@click.option(
    "--engine",
    type=click.Choice(["auto", "fused", "libtorch"]),
    default="auto",
    show_default=True,
    help="What trains the networks.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write the table to this file.")
@click.option(
    "--figures",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also draw the curves and their dynamics beside the published points, as PNG files in this folder.",
)
def curves_command(
    hidden: tuple[int, ...],
    clauses: tuple[int, ...],
    trials: int,
    epochs: int,
    embedding: str,
    negated: int,
    seed: int,
    engine: str,
    json_file: Path | None,
    figures: Path | None,
) -> None:
    """Trains networks on random DNF formulas and reads their codes (arXiv 2504.08842, section 4).

    Prints one row for each hidden width and number of clauses, means over the trials. Patterns such as 4P_positive are
    rows per clause. Ctrl-C keeps the finished points.
    """
    from precode._curves import curves

    if json_file:
        check_folder(json_file)
    if figures:
        from precode import plot

        plot._axes(None)  # refuses before any work if matplotlib is missing
        make_folder(figures)
    try:
        result = curves(
            hidden,
            clauses,
            trials=trials,
            epochs=epochs,
            embedding=embedding,
            negated=negated,
            seed=seed,
            engine=engine,
        )
    except PrecodeError as error:
        raise click.ClickException(str(error)) from error
    interrupted = result.interrupted
    try:
        if not result.table.empty:
            click.echo(result.table.to_string(index=False, float_format="{:.4g}".format))
            if json_file:
                write_atomically(json_file, as_json(result.table))
            if figures:
                _draw(result.trials, embedding, negated, seed, engine, figures)
    except KeyboardInterrupt:
        interrupted = True
    except (PrecodeError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if interrupted:
        click.echo("interrupted: what was finished is kept", err=True)
        sys.exit(130)


def _draw(trials: pd.DataFrame, embedding: str, negated: int, seed: int, engine: str, folder: Path) -> None:
    """Draws and writes one figure after the other, so that an interrupt keeps the finished ones."""
    from precode import plot
    from precode._curves import dynamics

    for column in ("4P_positive", "train_error", "3N1P_negative"):
        _save(plot.curves(trials, column), folder / f"{column}.png")
    moments = dynamics(embedding=embedding, negated=negated, seed=seed, engine=engine)
    _save(plot.dynamics(moments), folder / "dynamics.png")


def _save(ax: Axes, path: Path) -> None:
    """Writes the figure of some axes as a PNG file and closes it."""
    from matplotlib import pyplot as plt

    figure = ax.get_figure(root=True)
    assert figure is not None
    try:
        image = io.BytesIO()
        figure.savefig(image, dpi=150, format="png")
    finally:
        plt.close(figure)
    write_atomically(path, image.getvalue())
    click.echo(f"wrote {path}", err=True)


@main.command(name="bench")
@click.option("--nets", type=Numbers(), default=(128,), show_default="128", help="Numbers of networks trained at once.")
@click.option("--peers", is_flag=True, help="Also measure other libraries, each at its best number of networks.")
@click.option("--levels", is_flag=True, help="Measure the fused engine at every instruction level of the CPU.")
@click.option("--hidden", type=Numbers(), default=(32,), show_default="32", help="Hidden widths.")
@click.option("--variables", type=Numbers(), default=(32,), show_default="32", help="Numbers of Boolean inputs.")
@click.option("--clauses", type=Numbers(), default=(16,), show_default="16", help="Numbers of clauses.")
@click.option("--batch", type=Numbers(), default=(64,), show_default="64", help="Samples a step.")
@click.option("--samples", type=click.IntRange(1), default=20_000, show_default=True, help="Samples of each network.")
@click.option(
    "--optimizer",
    type=click.Choice(["adam", "adamw", "sgd"]),
    multiple=True,
    default=("adam",),
    show_default="adam",
    help="Update rule; may be given several times.",
)
@click.option("--pairs", is_flag=True, help="Measure Hamming distances between all pairs of codes instead of training.")
@click.option(
    "--repeats", type=click.IntRange(1), default=5, show_default=True, help="Times each contestant is measured."
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path),
    help="Also write the table to this file, and versions and CPU to FILE.environment.json.",
)
@click.pass_context
def bench_command(
    ctx: click.Context,
    nets: tuple[int, ...],
    peers: bool,
    levels: bool,
    hidden: tuple[int, ...],
    variables: tuple[int, ...],
    clauses: tuple[int, ...],
    batch: tuple[int, ...],
    samples: int,
    optimizer: tuple[str, ...],
    pairs: bool,
    repeats: int,
    json_file: Path | None,
) -> None:
    """Measures microseconds per network-step of every engine, in turn in one run.

    Settings given as several numbers are all combined. Prints medians over the repeats with the least and the most;
    what is measured and how is written in the documentation, under performance. Other work on the machine spoils the
    figures.
    """
    from precode import bench

    def tell(line: str) -> None:
        click.echo(line, err=True)

    if pairs:
        other = [name for name in sorted(ctx.params) if name not in ("pairs", "repeats", "json_file")]
        given = [name for name in other if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
        if given:
            raise click.UsageError(f"--pairs does not train anything: leave out --{', --'.join(given)}")
    sidecar = json_file and json_file.with_name(f"{json_file.name}.environment.json")
    for file in filter(None, (json_file, sidecar)):
        check_folder(file)
    environment = bench.environment()
    tell(json.dumps(environment))
    if (load := environment["load_at_start"]) and load > 0.5:
        tell(f"warning: {load:.1f} other processes were running in the last minute; the figures will be too high")
    try:
        if pairs:
            table = bench.pairs(repeats=repeats, report=tell)
        else:
            combined = itertools.product(hidden, variables, clauses, batch, [samples], optimizer)
            cells = [bench.Cell(*cell) for cell in combined]
            table = bench.training(
                cells,
                nets,
                peers=bench.PEERS if peers else (),
                levels=levels,
                repeats=repeats,
                report=tell,
            )
    except PrecodeError as error:
        raise click.ClickException(str(error)) from error
    click.echo(table.to_string(index=False, float_format="{:.4g}".format, na_rep=""))
    if json_file and sidecar:
        write_atomically(json_file, as_json(table))
        write_atomically(sidecar, json.dumps(environment, indent=1) + "\n")


if __name__ == "__main__":
    main()
