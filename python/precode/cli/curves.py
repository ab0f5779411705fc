"""`precode curves`: the founding paper's curves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from precode._internal.errors import PrecodeError
from precode._internal.files import write_atomically
from precode.cli.options import EMBEDDING_HELP, EmbeddingName, Numbers
from precode.cli.output import as_json, check_folder, make_folder, need_figures, save_figure
from precode.experiments import published

if TYPE_CHECKING:
    from precode.experiments import Curves


@click.command(name="curves")
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
    type=EmbeddingName(),
    default="identity",
    show_default=True,
    help=EMBEDDING_HELP,
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
    from precode.experiments import Curves, Interrupted
    from precode.experiments.founding_curves import curves

    if json_file:
        check_folder(json_file)
    if figures:
        need_figures()
        make_folder(figures)
    interrupted = False
    try:
        result: Curves = curves(
            hidden,
            clauses,
            trials=trials,
            epochs=epochs,
            embedding=embedding,
            negated=negated,
            seed=seed,
            engine=engine,
        )
    except Interrupted as interrupt:
        click.echo(f"interrupted: {interrupt}", err=True)
        if not isinstance(interrupt.finished, Curves):
            sys.exit(130)
        result, interrupted = interrupt.finished, True
    except PrecodeError as error:
        raise click.ClickException(str(error)) from error
    click.echo(result.table.to_string(index=False, float_format="{:.4g}".format))
    try:
        if json_file:
            write_atomically(json_file, as_json(result.table))
        if figures:
            _draw(result, figures, embedding=embedding, negated=negated, seed=seed, engine=engine)
    except KeyboardInterrupt:
        interrupted = True
    except (PrecodeError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if interrupted:
        click.echo("interrupted: what was finished is kept", err=True)
        sys.exit(130)


def _draw(result: Curves, folder: Path, **setting: Any) -> None:
    """Draws and writes one figure after the other, so that an interrupt keeps the finished ones."""
    from precode import plot
    from precode.experiments import published
    from precode.experiments.founding_curves import dynamics

    for column in ("4P_positive", "train_error", "3N1P_negative"):
        save_figure(result.plot(column), folder / f"{column}.png")
    save_figure(plot.dynamics(dynamics(**setting), published=published.dynamics()), folder / "dynamics.png")
