"""Notebooks run from top to bottom, check what they say, and are committed without outputs."""

import ast
import importlib.util
import os
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.fixture(scope="module")
def hooks():
    """What puts executed notebooks among the pages: the documentation uses the copies that are executed here."""
    spec = importlib.util.spec_from_file_location("documentation_hooks", ROOT / "docs/hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_runs(hooks, path):
    notebook = hooks.execute(path)
    assert all(cell.execution_count for cell in code_cells(notebook))
    assert hooks.executed(path) == nbformat.read(hooks.EXECUTED / path.name, as_version=4)


def test_old_copies_are_not_shown(hooks, tmp_path, monkeypatch):
    notebook = tmp_path / "one.ipynb"
    cell = nbformat.v4.new_code_cell("print(6 * 7)", id="product")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), notebook)
    monkeypatch.setattr(hooks, "EXECUTED", tmp_path / "executed")
    runs = []
    monkeypatch.setattr(hooks, "execute", lambda path, run=hooks.execute: runs.append(path) or run(path))
    assert hooks.executed(notebook).cells[0].outputs[0].text == "42\n"
    assert hooks.executed(notebook).cells[0].outputs[0].text == "42\n"
    assert len(runs) == 1
    os.utime(notebook, (2**32, 2**32))
    hooks.executed(notebook)
    assert len(runs) == 2
    os.utime(notebook, (0, 0))
    monkeypatch.setattr(hooks, "_package_changed", lambda: 2**32)
    hooks.executed(notebook)
    assert len(runs) == 3


def test_is_committed_without_outputs(notebook):
    for cell in code_cells(notebook):
        assert cell.outputs == []
        assert cell.execution_count is None
        assert not cell.metadata


def test_names_no_machine(notebook):
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }


def test_cells_have_stable_names(notebook):
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z][a-z0-9-]*", name) and not re.fullmatch(r"[0-9a-f]{8}", name) for name in ids)


def test_ends_with_assertions(notebook):
    tree = ast.parse(code_cells(notebook)[-1].source)
    assert any(isinstance(node, ast.Assert) for node in tree.body)
