"""Tables and files that commands leave behind."""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pandas as pd

from precode._internal.errors import PrecodeError
from precode._internal.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Commands(click.Group):
    """The commands, which say in one line when what they print cannot be written (status 1)."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """As `click.Command.main`."""
        try:
            try:
                return super().main(*args, **extra)
            finally:
                # What is buffered would otherwise fail while the interpreter ends, with a trace and another status.
                sys.stdout.flush()
        except OSError as error:
            if error.filename is None:
                # What could not be written must not be tried again at the end.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            what = "standard output" if error.filename is None else error.filename
            click.echo(f"Error: {what}: cannot be written ({error.strerror or error})", err=True)
            sys.exit(1)


def need_figures() -> None:
    """Refuses before any work if there is nothing to draw with."""
    from precode.plot.axes import pyplot

    try:
        pyplot()
    except PrecodeError as error:
        raise click.ClickException(str(error)) from error


def save_figure(ax: Axes, path: Path) -> None:
    """Writes the figure of some axes as the kind of file that its ending names, and closes it.

    An SVG file has the same bytes for the same figure.
    """
    from matplotlib import pyplot as plt

    figure = ax.get_figure(root=True)
    assert figure is not None
    kind = path.suffix.removeprefix(".")
    try:
        image = io.BytesIO()
        with plt.rc_context({"svg.hashsalt": "precode", "svg.fonttype": "none"}):
            figure.savefig(image, dpi=150, format=kind, metadata={"Date": None} if kind == "svg" else None)
    finally:
        plt.close(figure)
    write_atomically(path, image.getvalue())
    click.echo(f"wrote {path}", err=True)


def save_table(table: pd.DataFrame, path: Path) -> None:
    """Writes a table as CSV, and as Parquet beside it where pyarrow is installed."""
    write_atomically(path.with_suffix(".csv"), table.to_csv(index=False))
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        return
    write_atomically(path.with_suffix(".parquet"), table.to_parquet(None, index=False))


def check_folder(path: Path) -> None:
    """Refuses a file whose folder cannot be written to, before any work starts."""
    if not path.parent.is_dir():
        raise click.ClickException(f"{path}: the folder {path.parent} does not exist; create it first")
    if not os.access(path.parent, os.W_OK) or (path.exists() and not path.is_file()):
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
