"""Tables and files that commands leave behind."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import click
import pandas as pd


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
