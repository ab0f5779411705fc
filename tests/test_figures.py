"""The figures of README and documentation are what `make figures` draws."""

import importlib.util
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs/figures"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """All figures, drawn as `make figures` draws them."""
    folder = tmp_path_factory.mktemp("figures")
    subprocess.run([sys.executable, FOLDER / "make.py", folder], check=True)
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def words(svg):
    """Everything that is written in a picture; the digits of accuracies may differ between processors."""
    texts = [element.text for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    return [re.sub(r"\d+\.\d %", "# %", text) for text in texts]


def test_the_committed_figures_are_the_drawn_ones(drawn):
    committed = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.svg")}
    assert committed.keys() == drawn.keys()
    for name, svg in drawn.items():
        assert words(svg) == words(committed[name]), name
        assert len(svg.encode()) < 60_000


def test_the_same_networks_are_the_same_bytes(drawn, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("make_figures", FOLDER / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    network = make.Network()
    assert {name: drawn[name] for name in ("code.svg", "near-and-far.svg")} == {
        "code.svg": make.code(network),
        "near-and-far.svg": make.near_and_far(network),
    }


def test_nothing_is_said_by_colour_alone(drawn):
    signs = [text for svg in drawn.values() for text in words(svg) if text in ("+", "−")]
    assert {"+", "−"} == set(signs)


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/science.md"])
def test_pages_show_figures_that_exist(page):
    path = ROOT / page
    shown = re.findall(r"!\[[^]]+\]\(([^)]+\.svg)\)", path.read_text(encoding="utf-8"))
    assert shown
    assert all((path.parent / figure).is_file() for figure in shown)
