"""The study of the paper's claims: its cells, its verdicts, and the command that runs it."""

import gzip
import io
import json
import re
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import psutil
import pytest
from click.testing import CliRunner
from precode.claims.c5 import re_expression

import precode as pc
from precode.claims import judge, load_rules, rules_version, synthetic_study, transport_tickets
from precode.cli import main
from precode.study import CODES, KINDS, TICKETS, Kind, StudyConfig, hash_file, judge_study, plan, run, write_claims
from precode.study.config import RULES
from precode.study.results import LONG, write_table
from precode.tickets.registry import records

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
    rules=hash_file(RULES),
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
    assert "4 cells, about" in result.stderr.splitlines()[2]
    written = json.loads((out / "claims.json").read_text())
    assert StudyConfig.from_json(json.dumps(written["config"])).key == written["study"] == CONFIG.key
    assert written["rules"]["judged"] == rules_version()
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

    with pytest.warns(UserWarning, match="interrupted: 2 of 4 cells"):
        begun = run(CONFIG, tmp_path / "out", progress=stop)
    with pytest.raises(pc.PrecodeValueError, match="2 of 4 cells are finished: run the study to its end"):
        judge_study(begun)
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
    result = call("--preset", "paper", "--out", tmp_path / "out", "--dry-run")
    assert result.exit_code == 0
    cells = result.stdout.splitlines()
    assert len(cells) == 2 * 3 * 4 * 3  # kinds, widths, numbers of clauses, embeddings
    assert len({line.split()[-1] for line in cells}) == len(cells)
    assert "72 cells, about" in result.stderr
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
    quick, paper = (StudyConfig.preset(name, seed=5) for name in ("quick", "paper"))
    assert quick.seed == 5
    assert set(paper.methods) == set(records())
    rules = load_rules()
    named = {*rules["C6"]["probes"], *rules["C6"]["weight_based"], *rules["C5"]["exclude"]}
    penalized = rules["C4"]["penalized"]
    # The last two are rivals where the registry has them.
    assert named | set(penalized) | set(penalized.values()) <= set(records()) | {"checkpoint-magnitude", "obs"}
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
        (["--config", "{config}", "--seed", "4"], 1, "holds another study (seed = 3 there, 4 here)"),
        (["--config", "{config}", "--out", "{config}/out"], 1, "cannot be written"),
        (["--config", "{config}", "--out", "{folder}"], 1, "not the folder of a study"),
        (["--config", "{config}", "--workers", "0"], 2, "--workers"),
    ],
)
def test_bad_input_is_refused(own, tmp_path, arguments, status, message):
    config, out, _ = own
    (tmp_path / "unknown.json").write_text(json.dumps({**json.loads(CONFIG.to_json()), "width": 4}))
    before = contents(out)
    given = [item.format(config=config, folder=tmp_path) for item in arguments]
    result = call("--out", out, *given)
    assert result.exit_code == status
    assert message in result.output
    assert contents(out) == before


def test_a_cell_that_fails_is_named_and_nothing_is_judged(own, tmp_path, monkeypatch):
    config, _, _ = own

    def fail(settings):
        raise ValueError(f"no tickets behind {settings['embedding']}")

    monkeypatch.setitem(KINDS, "tickets", replace(TICKETS, compute=fail))
    result = call("--config", config, "--out", tmp_path / "out", "--workers", 1)
    assert result.exit_code == 1
    assert 'failed: tickets {"batch":64' in result.output
    assert "no tickets behind hadamard" in result.output
    assert "2 of 4 cells are finished" in result.output
    assert not (tmp_path / "out" / "claims.json").exists()


# ---------------------------------------------------------------- cells


def test_a_formula_is_the_same_among_more():
    few, more = points(TICKETS)[0], points(TICKETS, replace(CONFIG, formulas=3))[0]
    for compute, names in ((TICKETS.compute, ("tickets", "transport")), (CODES.compute, ("locations", "nulls"))):
        first, second = compute(few), compute(more)
        for name in names:
            rest = second[name][second[name]["formula"] < 2].reset_index(drop=True)
            pd.testing.assert_frame_equal(first[name], rest)


def test_sums_over_clauses_are_all_that_the_claims_need():
    (settings, _) = points(TICKETS)
    found = TICKETS.compute(settings)
    tasks = [pc.Dnf.random(clauses=4, seed=3, index=index) for index in range(2)]
    runs = pc.train(tasks, hidden=8, epochs=3, samples=640, seed=3)
    retrained = pc.find_tickets(runs, CONFIG.methods, CONFIG.densities, seed=3).retrain()
    rules = load_rules()
    rules["C5"] |= {"matching": 1.0, "exclude": []}
    expected = re_expression(retrained.table(), transport_tickets(retrained), rules)
    got = re_expression(found["tickets"], found["transport"], rules)
    pd.testing.assert_frame_equal(got[expected.columns], expected)


def test_an_estimate_grows_with_the_work():
    def cost(**changes):
        return plan(replace(CONFIG, **changes)).seconds

    for change in ({"hidden": (64,)}, {"epochs": 25}, {"methods": ("random", "imp", "edge-popup")}, {"formulas": 9}):
        assert cost(**change) > cost(), change


# ---------------------------------------------------------------- verdicts


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
    direct = judge(known.observations, known.tickets, known.transport)
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
