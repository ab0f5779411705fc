"""`precode tickets` and `precode methods`: every ticket method on the same networks."""

from __future__ import annotations

from pathlib import Path

import click

from precode._internal.errors import PrecodeError
from precode._internal.files import write_atomically
from precode.cli.options import EMBEDDING_HELP, EmbeddingName, Fractions, Numbers
from precode.cli.output import as_json, check_folder


@click.command(name="tickets")
@click.option("--hidden", type=click.IntRange(1), default=32, show_default=True, help="Hidden width.")
@click.option("--clauses", type=click.IntRange(1), default=8, show_default=True, help="Clauses of a formula.")
@click.option("--formulas", type=click.IntRange(1), default=8, show_default=True, help="Random formulas.")
@click.option(
    "--densities",
    type=Fractions(),
    default=(0.25, 0.125),
    show_default="0.25,0.125",
    help="Fractions of the first layer's weights that are kept.",
)
@click.option(
    "--methods",
    default="all",
    show_default=True,
    help="Names separated by commas, or 'all'; a control after a colon, such as snip:shuffle-row.",
)
@click.option("--epochs", type=click.IntRange(1), default=25, show_default=True, help="Most passes over the data.")
@click.option(
    "--embedding",
    type=EmbeddingName(),
    default="identity",
    show_default=True,
    help=EMBEDDING_HELP,
)
@click.option(
    "--at", type=Numbers(least=0), help="Epochs after which methods read the dense run that can read it early."
)
@click.option(
    "--rewind",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Epoch of the dense run that tickets start after, for methods that prune a trained network.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Key of all random numbers.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write the table to this file.")
def tickets_command(
    hidden: int,
    clauses: int,
    formulas: int,
    densities: tuple[float, ...],
    methods: str,
    epochs: int,
    embedding: str,
    at: tuple[int, ...] | None,
    rewind: int,
    seed: int,
    json_file: Path | None,
) -> None:
    """Finds tickets by every method in the same dense networks, retrains them, and compares them.

    Prints one row for each method, moment of reading, density and formula: accuracy on fresh samples and recovery of
    the dense network's codes. Means over the formulas follow on standard error.
    """
    from precode import Dnf, find_tickets, train
    from precode.tickets.registry import resolve_methods
    from precode.tickets.search import moments, rewinding

    if json_file:
        check_folder(json_file)
    names = methods if methods == "all" else [name.strip() for name in methods.split(",")]
    try:
        # What find_tickets would refuse after the dense run is refused before it.
        wanted, _ = resolve_methods(names, clauses=True)
        moments(wanted, at, epochs)
        rewinding(wanted, rewind, epochs)
        tasks = [Dnf.random(clauses=clauses, seed=seed, index=index) for index in range(formulas)]
        runs = train(tasks, hidden=hidden, epochs=epochs, embedding=embedding, seed=seed, progress=True)
        tickets = find_tickets(runs, wanted, densities, at=at, rewind=rewind, seed=seed, progress=True)
        retrained = tickets.retrain(progress=True)
    except PrecodeError as error:
        raise click.ClickException(str(error)) from error
    table = retrained.table()
    click.echo(table.to_string(index=False, float_format="{:.4g}".format))
    if json_file:
        write_atomically(json_file, as_json(table))
    columns = ["method", "probe_epoch", "density", "accuracy", "recovery_location", "recovery_family", "seconds"]
    means = retrained.summary()[columns]
    text = means.to_string(index=False, float_format="{:.3f}".format)
    click.echo(f"\nmeans over {formulas} formulas, best first:\n{text}", err=True)


@click.command(name="methods")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write the table to this file.")
def methods_command(json_file: Path | None) -> None:
    """Prints the registry of ticket methods and of the controls that can be put on them."""
    from precode import controls, methods

    if json_file:
        check_folder(json_file)
    table = methods()
    for row in table.to_dict("records"):
        click.echo(click.style(row["name"], bold=True) + f": {row['title']}")
        for name in ("needs", "schedule", "cost", "reference", "deviations"):
            if row[name]:
                click.echo(f"    {name}: {row[name]}")
    click.echo("\ncontrols, after any method's name and a colon:")
    for row in controls().to_dict("records"):
        click.echo(f"    {row['name']}: {row['title']}")
    if json_file:
        write_atomically(json_file, as_json(table))
