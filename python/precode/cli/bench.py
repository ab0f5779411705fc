"""`precode bench`: the engines and their peers in one run."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import click
from click.core import ParameterSource

from precode._internal.errors import PrecodeError
from precode._internal.files import write_atomically
from precode.cli.options import Fractions, Names, Numbers
from precode.cli.output import as_json, check_folder

OTHER_TABLES = {
    "pairs": ("pairs", "repeats", "json_file"),
    "modules": ("modules", "device", "markdown", "json_file"),
    "sampling": ("sampling", "variables", "clauses", "samples", "repeats", "json_file"),
}
"""Options that measure something else than training, with the options that go with them."""


@click.command(name="bench")
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
@click.option(
    "--embedding",
    type=Names(),
    multiple=True,
    default=(("identity",),),
    show_default="identity",
    help="identity; projection-16, a trained C0 of 16 rows for each network; projection-16-fixed, a fixed one; or "
    "another number of rows. Several with commas, or given several times.",
)
@click.option(
    "--densities",
    type=Fractions(),
    default=(),
    help="Also measure the fused engine with random masks that keep these fractions of W1, such as 0.5,0.125.",
)
@click.option("--sampling", is_flag=True, help="Measure drawing of formulas and samples instead of training.")
@click.option("--pairs", is_flag=True, help="Measure Hamming distances between all pairs of codes instead of training.")
@click.option(
    "--modules", is_flag=True, help="Measure every ticket method once on networks of torchvision and transformers."
)
@click.option(
    "--device",
    default="cpu",
    show_default=True,
    help="Where the libtorch engine, other libraries and modules are, such as cuda; the fused engine runs on the CPU.",
)
@click.option("--markdown", is_flag=True, help="Print the table as that of the documentation.")
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
    embedding: tuple[tuple[str, ...], ...],
    densities: tuple[float, ...],
    sampling: bool,
    pairs: bool,
    modules: bool,
    device: str,
    markdown: bool,
    repeats: int,
    json_file: Path | None,
) -> None:
    """Measures microseconds per network-step of every engine, in turn in one run.

    Settings given as several values are all combined. Prints medians over the repeats with the least and the most;
    what is measured and how is written in the documentation, under performance. Other work on the machine spoils the
    figures.
    """
    from precode import bench

    def tell(line: str) -> None:
        click.echo(line, err=True)

    def given(name: str) -> bool:
        return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE

    for table_name, own in OTHER_TABLES.items():
        if given(table_name) and (extra := [name for name in sorted(ctx.params) if name not in own and given(name)]):
            raise click.UsageError(f"--{table_name} is a measurement of its own: leave out --{', --'.join(extra)}")
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
        elif modules:
            table = bench.modules(device=device, report=tell)
        elif sampling:
            drawn = [
                bench.Cell(variables=n, clauses=count, samples=samples, batch=1)
                for n, count in itertools.product(variables, clauses)
            ]
            table = bench.sampling(drawn, repeats=repeats, report=tell)
        else:
            embeddings = itertools.chain.from_iterable(embedding)
            combined = itertools.product(hidden, variables, clauses, batch, [samples], optimizer, embeddings)
            cells = [bench.Cell(*cell) for cell in combined]
            table = bench.training(
                cells,
                nets,
                peers=bench.PEERS if peers else (),
                levels=levels,
                densities=densities,
                device=device,
                repeats=repeats,
                report=tell,
            )
    except PrecodeError as error:
        raise click.ClickException(str(error)) from error
    shown = table.to_string(index=False, float_format="{:.4g}".format, na_rep="")
    click.echo(bench.markdown(table) if markdown else shown)
    if json_file and sidecar:
        write_atomically(json_file, as_json(table))
        write_atomically(sidecar, json.dumps(environment, indent=1) + "\n")
