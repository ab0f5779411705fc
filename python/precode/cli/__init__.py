"""The command line, with the names of the Python API."""

from __future__ import annotations

import click

from precode.cli.bench import bench_command
from precode.cli.curves import curves_command
from precode.cli.output import Commands
from precode.cli.reproduce import reproduce_command
from precode.cli.study import study_command
from precode.cli.tickets import methods_command, tickets_command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="precode")
def main() -> None:
    """Reads the codes a network will use before it has learned them."""


for command in (
    curves_command,
    reproduce_command,
    tickets_command,
    methods_command,
    study_command,
    bench_command,
):
    main.add_command(command)
