"""Puts the notebooks, executed, among the pages (a hook of mkdocs; see `hooks` in mkdocs.yml).

Notebooks are committed without outputs. An executed copy is kept in `.executed/`, by the tests or by an earlier build,
and is used as long as neither the notebook nor the installed package is newer.
"""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXECUTED = ROOT / ".executed"


def execute(path: Path) -> nbformat.NotebookNode:
    """Runs a notebook from top to bottom in a folder of its own, and keeps the executed copy in `.executed/`."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=900, kernel_name="python3", resources=resources).execute()
    EXECUTED.mkdir(exist_ok=True)
    nbformat.write(notebook, EXECUTED / path.name)
    return notebook


def executed(path: Path) -> nbformat.NotebookNode:
    """The executed copy of a notebook; it is run if there is none, or an old one."""
    copy = EXECUTED / path.name
    if copy.is_file() and copy.stat().st_mtime > max(path.stat().st_mtime, _package_changed()):
        return nbformat.read(copy, as_version=4)
    logging.getLogger("mkdocs.hooks").info("executing %s", path.name)
    return execute(path)


def _package_changed() -> float:
    """When a file of the package that notebooks import was last written."""
    package = importlib.util.find_spec("precode")
    if package is None or package.origin is None:
        raise RuntimeError("precode is not installed: `make docs` installs it first")
    folder = Path(package.origin).parent
    return max(file.stat().st_mtime for file in folder.rglob("*") if "__pycache__" not in file.parts)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds a page for each notebook, and its figures."""
    from mkdocs.structure.files import File

    exporter = MarkdownExporter()
    for path in NOTEBOOKS:
        place = {"unique_key": path.stem, "output_files_dir": f"{path.stem}_files"}
        page, resources = exporter.from_notebook_node(executed(path), resources=place)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=page))
        for name, content in resources["outputs"].items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files
