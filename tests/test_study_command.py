"""The study of the paper's claims: its cells, its verdicts, and the command that runs it."""

import gzip
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module

import numpy as np
import pandas as pd
import psutil
import pytest
from click.testing import CliRunner

import precode as pc
from precode.claims import judge, judge_setting, load_rules, rules_version, synthetic_study, transport_tickets
from precode.claims.c5 import re_expression
from precode.cli import main
from precode.study import (
    KINDS,
    TICKETS,
    Kind,
    Study,
    StudyConfig,
    judge_study,
    plan,
    run,
    write_claims,
)
from precode.study.results import LONG, write_table
from precode.tickets.registry import CUBIC, records

CONFIG = StudyConfig(
    hidden=(8,),
    clauses=(4,),
    embeddings=("identity", "hadamard"),
    formulas=2,
    densities=(0.5, 0.25),
    methods=("random", "imp", "distance"),
    epochs=3,
    samples=640,
    seed=3,
)


def call(*arguments):
    return CliRunner().invoke(main, ["study", *map(str, arguments)])


def contents(folder):
    """Every file that is a result, by its path in the folder."""
    files = [path for path in folder.rglob("*") if path.is_file() and "study.sqlite" not in path.name]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.name != "study.lock"}


def points(kind, config=CONFIG):
    return [cell.settings for cell in plan(config, [kind]).cells]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A small configuration as a file, and the folder of its study, run by the command in one go."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "config.json").write_text(CONFIG.to_json())
    result = call("--config", folder / "config.json", "--out", folder / "out", "--workers", 1)
    assert result.exit_code == 0, result.output
    return folder / "config.json", folder / "out", result


def test_the_command_ends_with_claims_and_tables(own):
    _, out, result = own
    lines = [line for line in result.stdout.splitlines() if not line.startswith(" ")]
    assert [line[:2] for line in lines] == ["C1", "C2", "C3", "C4", "C5", "C6"]
    assert all("not enough data" in line for line in lines)  # two formulas; the rules ask for ten
    assert "8 cells, about" in result.stderr.splitlines()[2]
    assert "for the verdicts and the report" in result.stderr.splitlines()[3]
    assert "2 formulas, but the rules need 10: the claims will end as" in result.stderr.splitlines()[4]
    written = json.loads((out / "claims.json").read_text())
    assert StudyConfig.from_json(json.dumps(written["config"])).key == written["study"] == CONFIG.key
    assert written["rules"] == written["rules_when_planned"] == rules_version()
    assert written["note"] == ""
    for claim in written["claims"]:
        assert claim["verdict"] == "not enough data"
        assert claim["effect"] is None
        assert claim["reason"]
        assert claim["rule"].startswith(("Holds if", "Judged over "))
    assert {path.name for path in (out / "tables").iterdir()} == {
        f"{name}.{ending}"
        for name in (
            *("locations", "motion", "nulls", "similarity", "dense", "tickets", "transport"),
            *(f"c{number}_parts" for number in range(1, 7)),
        )
        for ending in ("csv", "parquet")
    }
    tickets = pd.read_csv(out / "tables" / "tickets.csv")
    pd.testing.assert_frame_equal(tickets, pd.read_parquet(out / "tables" / "tickets.parquet"), check_dtype=False)
    assert len(tickets) == 2 * 3 * 2 * 2  # embeddings, methods, densities, formulas
    assert "seconds" not in tickets


def test_row_transport_counts_the_codes_that_recovery_counts(own):
    tables = own[1] / "tables"
    tickets, moves = (pd.read_parquet(tables / f"{name}.parquet") for name in ("tickets", "transport"))
    keys = ["hidden", "clauses", "embedding", "method", "density", "formula"]
    moves = moves[moves["template"].isin(["4P", "3N1P"])]  # those that recovery counts
    sums = moves.groupby(keys)[["dense", "sparse", "same", "family"]].sum()
    table = tickets.set_index(keys).join(sums)
    assert table["dense"].gt(0).all()
    assert table["family"].gt(0).any()
    for name, counted in (("location", "same"), ("family", "family")):
        np.testing.assert_allclose(table[counted] / table["dense"], table[f"recovery_{name}"], err_msg=name)
        shared = table[counted] / table["sparse"].where(table["sparse"] > 0)
        np.testing.assert_allclose(shared, table[f"precision_{name}"], err_msg=name)


def test_a_study_that_was_stopped_ends_with_the_same_bytes(own, tmp_path):
    config, uninterrupted, _ = own

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="2 of 8 cells are finished and kept"):
        run(CONFIG, tmp_path / "out", progress=stop)
    with pytest.raises(pc.PrecodeValueError, match="2 of 8 cells are finished: run the study to its end"):
        judge_study(Study(tmp_path / "out"))
    assert call("--config", config, "--out", tmp_path / "out", "--workers", 1).exit_code == 0
    assert contents(tmp_path / "out") == contents(uninterrupted)


def test_processes_compute_the_same(own, tmp_path):
    config, in_process, _ = own
    assert call("--config", config, "--out", tmp_path / "out", "--workers", 2).exit_code == 0
    assert contents(tmp_path / "out") == contents(in_process)


@pytest.mark.skipif(sys.platform == "win32", reason="no kill -9 on this platform")
def test_workers_end_with_a_command_that_is_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, time\n"
        "from precode.cli.study import _pool\n"
        "if __name__ == '__main__':\n"
        "    pool = _pool(1, 1)()\n"
        "    print(pool.submit(os.getpid).result(), flush=True)\n"
        "    pool.submit(time.sleep, 60).result()\n"
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as command:
        worker = int(command.stdout.readline())
        command.kill()
    for _ in range(100):
        # Where nobody buries the dead, it is there still as a zombie.
        if not psutil.pid_exists(worker) or psutil.Process(worker).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.1)
    else:
        psutil.Process(worker).kill()
        pytest.fail("the worker went on for ten seconds")


def test_a_dry_run_computes_nothing(tmp_path):
    result = call("--preset", "robust", "--out", tmp_path / "out", "--dry-run")
    assert result.exit_code == 0
    cells = result.stdout.splitlines()
    methods = len(records()) - len(CUBIC)
    assert len(cells) == 3 * 4 * 3 * (1 + methods)  # widths, numbers of clauses, embeddings, codes and methods
    assert len({line.split()[-1] for line in cells}) == len(cells)
    assert f"{len(cells)} cells, about" in result.stderr
    assert "the rules need" not in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("snipp",)}, "snipp"),
        ({"methods": ("imp:nope",)}, "nope"),
        ({"densities": (0.0001,)}, "keeps none of the 256 weights of hidden = 8"),
        ({"clauses": (60_000,)}, "60000|60,000|clauses"),
    ],
)
def test_what_no_cell_could_compute_is_refused_before_any_work(tmp_path, changes, message):
    config = tmp_path / "config.json"
    config.write_text(replace(CONFIG, hidden=(8,), **changes).to_json())
    result = call("--config", config, "--out", tmp_path / "out", "--workers", 1)
    assert result.exit_code == 1
    assert re.search(message, result.output)
    assert not (tmp_path / "out").exists()


def test_presets_use_known_methods():
    quick, paper, robust = (StudyConfig.preset(name, seed=5) for name in ("quick", "paper", "robust"))
    assert quick.seed == 5
    assert set(robust.methods) == set(records()) - set(CUBIC)
    assert {method.partition(":")[0] for method in (*quick.methods, *paper.methods)} <= set(records())
    rules = load_rules()
    named = {*rules["C6"]["probes"], *rules["C6"]["weight_based"], *rules["C5"]["exclude"]}
    penalized = rules["C4"]["penalized"]
    assert named | set(penalized) | set(penalized.values()) <= set(records())
    # Every claim about tickets can be judged on the quick preset.
    assert quick.formulas >= rules["formulas"]
    for group in ("probes", "weight_based"):
        assert set(rules["C6"][group]) & set(quick.methods)
    assert any(set(pair) <= set(quick.methods) for pair in penalized.items())


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--preset", "fast"], 2, "preset 'fast' is unknown: use one of quick, paper"),
        ([], 2, "name a --preset or a --config"),
        (["--preset", "quick", "--config", "{config}"], 2, "one of the two"),
        (["--config", "{folder}/none.json"], 1, "none.json: cannot be read"),
        (["--config", "{folder}/unknown.json"], 1, "unknown field `width`"),
        (["--config", "{folder}/none.json", "--seed", "1"], 1, "none.json: cannot be read"),
        (["--config", "{folder}/broken.json"], 1, "broken.json: study configuration: no JSON"),
        (["--config", "{config}", "--methods", "imp,nope"], 1, "nope"),
        (["--config", "{config}", "--densities", "2"], 2, "'2': expected numbers in (0, 1]"),
        (["--config", "{config}", "--embeddings", "x,"], 2, "expected names separated by commas"),
        (["--config", "{config}", "--methods", "imp"], 1, "methods: distance, random; 4 of 8 finished"),
        (["--config", "{config}", "--json", "{folder}/none/f.json"], 1, "does not exist"),
        (["--config", "{config}", "--seed", "4"], 1, "holds another study (seed = 3 there, 4 here)"),
        (["--config", "{config}", "--out", "{config}/out"], 1, "cannot be written"),
        (["--config", "{config}", "--out", "{folder}"], 1, "not the folder of a study"),
        (["--config", "{config}", "--workers", "0"], 2, "--workers"),
    ],
)
def test_bad_input_is_refused(own, tmp_path, arguments, status, message):
    config, out, _ = own
    (tmp_path / "unknown.json").write_text(json.dumps({**json.loads(CONFIG.to_json()), "width": 4}))
    (tmp_path / "broken.json").write_text("{")
    before = contents(out)
    given = [item.format(config=config, folder=tmp_path) for item in arguments]
    result = call("--out", out, *given)
    assert result.exit_code == status
    assert message in result.output
    assert contents(out) == before


def test_a_cell_that_fails_is_named_and_nothing_is_judged(own, tmp_path, monkeypatch):
    config, _, _ = own

    def fail(settings, parts):
        raise ValueError(f"no tickets behind {settings['embedding']}")

    monkeypatch.setitem(KINDS, "tickets", replace(TICKETS, compute=fail))
    result = call("--config", config, "--out", tmp_path / "out", "--workers", 1)
    assert result.exit_code == 1
    assert 'failed: tickets {"batch":64' in result.output
    assert "no tickets behind hadamard" in result.output
    assert "2 of 8 cells are finished" in result.output
    assert not (tmp_path / "out" / "claims.json").exists()


# ---------------------------------------------------------------- cells


def test_sums_over_clauses_are_all_that_the_claims_need():
    cells = [cell for cell in plan(CONFIG, [TICKETS]).cells if cell.settings["embedding"] == "identity"]
    found = [TICKETS.compute(cell.settings, cell.parts) for cell in cells]
    tables = {name: pd.concat([one[name] for one in found], ignore_index=True) for name in ("tickets", "transport")}
    tasks = [pc.Dnf.random(clauses=4, seed=3, index=index) for index in range(2)]
    runs = pc.train(tasks, hidden=8, epochs=3, samples=640, seed=3)
    retrained = pc.find_tickets(runs, CONFIG.methods, CONFIG.densities, seed=3).retrain()
    rules = load_rules()
    rules["C5"] |= {"matching": 1.0, "exclude": []}
    expected = re_expression(retrained.table(), transport_tickets(retrained), rules)
    got = re_expression(tables["tickets"], tables["transport"], rules)
    pd.testing.assert_frame_equal(got[expected.columns], expected)


def test_an_estimate_grows_with_the_work():
    def cost(**changes):
        return plan(replace(CONFIG, **changes)).seconds

    for change in ({"hidden": (64,)}, {"epochs": 25}, {"methods": ("random", "imp", "edge-popup")}, {"formulas": 9}):
        assert cost(**change) > cost(), change


# ---------------------------------------------------------------- verdicts


def test_what_was_judged_is_not_judged_again_unless_something_changed(own, tmp_path, monkeypatch):
    config, out, first = own
    judged = []
    again = import_module("precode.study.verdicts")
    monkeypatch.setattr(
        "precode.study.judge_study", lambda *args, **options: judged.append(1) or judge_study(*args, **options)
    )
    out = shutil.copytree(out, tmp_path / "out")
    printed = tmp_path / "printed.json"
    result = call("--config", config, "--out", out, "--workers", 1, "--json", printed)
    assert (result.exit_code, result.stdout, judged) == (0, first.stdout, [])
    assert "judged before from the same results by the same rules" in result.stderr
    rows = json.loads(printed.read_text())
    assert [row["name"] for row in rows] == ["C1", "C2", "C3", "C4", "C5", "C6"]
    assert set(rows[0]) == {"name", "verdict", "effect", "low", "high", "formulas", "statement", "measure", "reason"}
    before = contents(out)
    assert call("--config", config, "--out", out, "--workers", 1, "--judge").exit_code == 0
    assert (judged, contents(out)) == ([1], before)
    (out / "tables" / "dense.csv").unlink()
    monkeypatch.setattr(again, "rules_version", lambda: "1" * 64)
    assert call("--config", config, "--out", out, "--workers", 1).exit_code == 0
    written = json.loads((out / "claims.json").read_text())
    assert judged == [1, 1]
    assert written["rules"] != written["rules_when_planned"] == rules_version()
    assert written["note"].startswith("planned under version ")


def test_a_study_grows_by_the_command(own, tmp_path):
    config, out, _ = own
    out = shutil.copytree(out, tmp_path / "out")
    more = ("--methods", "random,imp,distance,snip", "--formulas", 3)
    result = call("--config", config, "--out", out, "--workers", 1, *more)
    assert result.exit_code == 0, result.output
    tickets = Study(out).table("tickets")
    assert len(tickets) == 2 * 4 * 2 * 3  # embeddings, methods, densities, formulas
    assert call("--config", out / "study.json", "--out", tmp_path / "whole", "--workers", 1).exit_code == 0
    grown, whole = (contents(folder / "tables") for folder in (out, tmp_path / "whole"))
    assert grown == whole


@pytest.mark.parametrize("package", ["pyarrow", "scipy", "jinja2"])
def test_what_is_not_installed_is_named_with_its_extra(tmp_path, package):
    script = (
        "import importlib.util as util\n"
        "there = util.find_spec\n"
        f"util.find_spec = lambda name, *more: None if name == {package!r} else there(name, *more)\n"
        "from precode.cli import main\n"
        "main(['study', '--preset', 'quick', '--out', 'out'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert package in line
    assert "pip install 'precode[study]'" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no signals on this platform")
@pytest.mark.parametrize("moment", [0.3, 1.0, 2.0, 3.0, 4.0, 6.0])
def test_ctrl_c_at_any_moment_says_what_is_kept(tmp_path, moment):
    (tmp_path / "config.json").write_text(replace(CONFIG, formulas=9, epochs=60, samples=20_000).to_json())
    line = [sys.executable, "-m", "precode", "study", "--config", "config.json", "--out", "out", "--workers", "2"]
    process = subprocess.Popen(
        line, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    while process.poll() is None and "cells, about" not in (process.stderr.readline() if moment else ""):
        pass
    time.sleep(moment - 0.3)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert "Traceback" not in said
    if process.returncode == 130:  # else it was finished before
        (line,) = [line for line in said.splitlines() if line.startswith("interrupted")]
        kept = re.fullmatch(
            r"interrupted: (nothing had been computed|(\d+) of 8 cells are finished and kept); .*", line
        )
        assert kept
        if kept[2]:
            assert Study(tmp_path / "out").finished == int(kept[2])
    else:
        assert process.returncode == 0


def test_what_is_no_study_is_not_judged(tmp_path):
    with pytest.raises(pc.PrecodeTypeError, match=r"such as Study\('out'\), not str"):
        judge_study("out")
    with pytest.raises(pc.PrecodeTypeError, match=r"observe or Observations\.concat, not be dict"):
        judge({})


def test_verdicts_survive_the_folder(tmp_path):
    """Tables of a study whose answer is known, through files and back."""
    known = synthetic_study("planted", formulas=10, hidden=16, clauses=8)
    tables = {
        "codes": vars(known.observations),
        "tickets": {"tickets": known.tickets, "transport": known.transport},
    }
    kinds = [
        Kind(name, lambda config: [{"hidden": 16}], lambda settings, kept=kept: kept, lambda settings: 1.0)
        for name, kept in tables.items()
    ]
    study = run(replace(CONFIG, hidden=(16,), clauses=(8,)), tmp_path / "out", kinds=kinds, progress=False)
    claims = judge_study(study)
    direct = judge_setting(known.observations, known.tickets, known.transport)
    assert {name: claim.record() for name, claim in claims.items()} == {
        name: claim.record() for name, claim in direct.items()
    }
    written = write_claims(study, claims, tmp_path / "elsewhere")
    assert len(written) == len(set(written))
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "elsewhere/tables/c3.csv"), direct["C3"].details, check_dtype=False
    )


def test_long_tables_are_compressed(tmp_path):
    table = pd.DataFrame({"x": range(LONG + 1)})
    _, text = write_table(tmp_path, "long", table)
    assert text.name == "long.csv.gz"
    pd.testing.assert_frame_equal(pd.read_csv(io.BytesIO(gzip.decompress(text.read_bytes()))), table)
    before = text.read_bytes()
    assert write_table(tmp_path, "long", table)[1].read_bytes() == before
