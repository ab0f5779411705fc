"""The Python blocks of the pages run as they stand, one after the other, and the registry stands on its page."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import precode as pc

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "docs/index.md", "docs/first-decode.md"]
# Their output does not depend on the machine, and is compared.
EXACT_PAGES = ["docs/tickets.md", "docs/your-model.md", "docs/ticket-files.md"]
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n?```(?:text)?\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", [*PAGES, *EXACT_PAGES])
def test_code_blocks_run(page, tmp_path, monkeypatch, capsys):
    blocks = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    assert blocks
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for number, (block, output) in enumerate(blocks):
        exec(compile(block, f"{page}, block {number + 1}", "exec"), namespace)
        printed = capsys.readouterr().out
        assert page not in EXACT_PAGES or printed == output
    plt.close("all")


def test_the_page_of_methods_is_the_registry():
    page = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
    lines = [re.split(r" (?<!\\)\| ", line.removeprefix("| ").removesuffix(" |")) for line in page.split("\n")]
    rows = [[cell.replace("\\|", "|").strip() for cell in line] for line in lines if line[0].startswith("`")]
    methods, controls = ([row for row in rows if len(row) == width] for width in (6, 2))
    registry = pc.methods()
    columns = ["name", "title", "schedule", "needs", "cost", "reference"]
    assert methods == [[f"`{name}`", *rest] for name, *rest in registry[columns].to_numpy().tolist()]
    assert controls == [[f"`{name}`", title] for name, title in pc.controls().to_numpy().tolist()]
    deviations = re.findall(r"^- `([^`]+)`: (.+)$", page, re.MULTILINE)
    assert dict(deviations) == {
        row["name"]: row["deviations"] for row in registry.to_dict("records") if row["deviations"]
    }
