"""The command line as a program: how it is called, and what it says when something cannot be written or is missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PYTHON = [sys.executable, "-m", "precode"]


def run(*arguments, **options):
    command = [*PYTHON, *map(str, arguments)]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, timeout=300, **options)


def test_it_runs_as_a_module():
    done = run("--help", stdout=subprocess.PIPE)
    assert done.returncode == 0
    for command in ("bench", "curves", "methods", "reproduce", "study", "tickets"):
        assert f"\n  {command} " in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize(
    "command",
    [["methods"], ["reproduce", "--list"], ["--version"], ["methods", "--help"], ["tickets", "--formulas", "0"]],
)
def test_output_that_cannot_be_written_is_one_line(command):
    with open("/dev/full", "w") as full:
        done = run(*command, stdout=full)
    if command[0] == "tickets":  # it prints nothing there
        assert done.returncode == 2
        return
    assert done.returncode == 1
    assert done.stderr == "Error: standard output: cannot be written (No space left on device)\n"


def test_a_closed_pipe_is_silent():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        done = run("methods", stdout=pipe)
    assert done.returncode == 1
    assert done.stderr == ""


@pytest.mark.parametrize("command", [["curves", "--figures", "{}"], ["reproduce", "curves", "--out", "{}"]])
def test_missing_matplotlib_is_one_sentence_that_names_the_extra(command, tmp_path):
    (tmp_path / "matplotlib").mkdir()
    (tmp_path / "matplotlib" / "__init__.py").write_text("raise ImportError('not there')")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    out = tmp_path / "figures"
    done = run(*(part.format(out) for part in command), stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 1
    assert done.stderr == "Error: figures need matplotlib: pip install 'precode[plot]'\n"
    assert done.stdout == ""
    assert not out.exists()


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    done = run("methods", "--json", tmp_path / "none" / "f.json", stdout=subprocess.PIPE)
    assert done.returncode == 1
    assert "does not exist" in done.stderr
    assert "Traceback" not in done.stderr
