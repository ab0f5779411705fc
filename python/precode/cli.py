"""The command line: `precode curves`, with the names of the Python API."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import pandas as pd

from precode import embedding as embeddings
from precode import published
from precode.errors import PrecodeError


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


def write_atomically(path: Path, text: str) -> None:
    """Writes a whole file or nothing: a temporary file beside it, then a rename."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def check_folder(path: Path) -> None:
    """Refuses a file whose folder cannot be written to, before any work starts."""
    if not path.parent.is_dir():
        raise click.ClickException(f"{path}: the folder {path.parent} does not exist; create it first")
    if not os.access(path.parent, os.W_OK) or path.is_dir():
        raise click.ClickException(f"{path} cannot be written; choose another file")


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
    from precode.curves import curves

    if json_file:
        check_folder(json_file)
    if figures:
        from precode import plot

        plot._axes(None)  # refuses before any work if matplotlib is missing
        figures.mkdir(parents=True, exist_ok=True)
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
    if not result.table.empty:
        click.echo(result.table.to_string(index=False, float_format="{:.4g}".format))
        if json_file:
            write_atomically(json_file, as_json(result.table))
        if figures:
            _draw(result.trials, embedding, negated, seed, engine, figures)
    if result.interrupted:
        click.echo("interrupted: the table holds the finished points", err=True)
        sys.exit(130)


def _draw(trials: pd.DataFrame, embedding: str, negated: int, seed: int, engine: str, folder: Path) -> None:
    from matplotlib import pyplot as plt

    from precode import plot
    from precode.curves import dynamics

    named = {column: plot.curves(trials, column) for column in ("4P_positive", "train_error", "3N1P_negative")}
    moments = dynamics(embedding=embedding, negated=negated, seed=seed, engine=engine)
    named["dynamics"] = plot.dynamics(moments)
    for name, ax in named.items():
        path = folder / f"{name}.png"
        figure = ax.get_figure(root=True)
        if figure is not None:
            figure.savefig(path, dpi=150)
            plt.close(figure)
        click.echo(f"wrote {path}", err=True)


if __name__ == "__main__":
    main()
