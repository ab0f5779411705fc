"""Experiments: their records, settings, comparisons, finished cells, and `precode reproduce`."""

import json
import re
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import precode as pc
from precode._internal.statistics import interval
from precode.cli import main
from precode.experiments import EXPERIMENTS, Experiment, Interrupted, Kind, Reported, Setting, place
from precode.experiments.comparison import compared

ROOT = Path(__file__).parent.parent
TINY = {"hidden": [8], "clauses": [2, 3], "epochs": 2, "samples": 400, "scaling": [4], "moments": [0, 1]}


# --- a record of our own --------------------------------------------------------------------------------

COMPUTED = []


def squares(settings, parts):
    COMPUTED.append((settings["x"], list(parts["formula"])))
    return {"squares": pd.DataFrame({"formula": parts["formula"], "square": settings["x"] ** 2 + settings["seed"]})}


def tables(cells):
    frames = [cell.tables["squares"].assign(x=cell.settings["x"]) for cell in cells]
    return {"squares": pd.concat(frames, ignore_index=True)}


def measured(tables):
    table = tables["squares"]
    at = [place({"x": x}) for x in table["x"]]
    named = {"figure": "table 1", "quantity": "square", "at": at}
    return pd.DataFrame({**named, "formula": table["formula"], "value": table["square"]})


def figure(result, ax):
    ax = plt.subplots()[1] if ax is None else ax
    ax.plot(result.table["x"], result.table["square"])
    return ax


SQUARES = Experiment(
    name="squares",
    title="Squares of numbers",
    source="a paper, section 2",
    words="Numbers are squared.",
    setting={"xs": (2, 3), "formulas": 4, "seed": 0},
    quick={"formulas": 1},
    kind=Kind(
        "squares",
        lambda setting: [{"x": x, "seed": setting["seed"]} for x in setting["xs"]],
        squares,
        lambda settings, parts: 0.0,
        axes=("formula",),
        parts=lambda setting: {"formula": range(setting["formulas"])},
    ),
    tables=tables,
    measured=measured,
    reported=(
        Reported("table 1", "square", {"x": 2}, 5.0, "a paper"),
        Reported("table 1", "square", {"x": 9}, 81.0, "a paper", "from a digest", second_hand=True),
    ),
    figures={"squares": figure},
)


@pytest.fixture
def added(monkeypatch):
    COMPUTED.clear()
    monkeypatch.setattr("precode.experiments.EXPERIMENTS", [*EXPERIMENTS, SQUARES])


def test_an_experiment_is_a_record_and_a_line(added, tmp_path):
    assert "squares" in dir(pc.experiments)
    result = pc.experiments.squares(formulas=2, progress=False)
    assert result.table["square"].tolist() == [4, 4, 9, 9]
    assert repr(result) == "Result(experiment=squares, rows=4, formulas=2, compared with 1 of 2 reported numbers)"
    listed = CliRunner().invoke(main, ["reproduce", "--list"])
    assert listed.exit_code == 0
    assert "squares: Squares of numbers" in listed.stdout
    assert "2 reported numbers, 1 second-hand" in listed.stdout
    assert "curves: " in listed.stdout


def test_all_runs_every_record(monkeypatch, tmp_path):
    other = replace(SQUARES, name="others", title="Other squares")
    monkeypatch.setattr("precode.experiments.EXPERIMENTS", [SQUARES, other])
    file = tmp_path / "all.json"
    figures = plt.get_fignums()  # of tests before this one
    done = CliRunner().invoke(main, ["reproduce", "all", "--out", str(tmp_path / "out"), "--json", str(file)])
    assert done.exit_code == 0, done.output
    rows = json.loads(file.read_text())
    assert [(row["experiment"], row["at"], row["measured"]) for row in rows] == [
        ("squares", "x 2", 4.0), ("squares", "x 9", None), ("others", "x 2", 4.0), ("others", "x 9", None),
    ]  # fmt: skip
    for name in ("squares", "others"):
        folder = tmp_path / "out" / name
        assert {path.name for path in folder.iterdir()} == {
            "cells", "setting.json", "squares.csv", "squares.parquet", "squares.svg",
            "reported.csv", "reported.parquet",
        }  # fmt: skip
        assert pd.read_csv(folder / "reported.csv")["second_hand"].tolist() == [False, True]
        assert (folder / "squares.svg").read_bytes().startswith(b"<?xml")
    assert plt.get_fignums() == figures


@pytest.mark.parametrize("experiment", [each for each in EXPERIMENTS if each.full], ids=lambda each: each.name)
def test_the_full_form_goes_on_from_the_default_one(experiment):
    cells = [
        {cell.key for cell in experiment.kind.planned(Setting(experiment.name, experiment.setting, values))}
        for values in ({}, experiment.full)
    ]
    assert cells[0] < cells[1]


def test_values_of_the_full_form_are_those_of_the_record():
    wide = replace(SQUARES, full={"formulas": 3})
    assert not wide(formulas=3, progress=False).differs()
    assert "formulas = 5" in wide(formulas=5, progress=False).differs()


def test_quick_and_full_exclude_each_other():
    ran = CliRunner().invoke(main, ["reproduce", "curves", "--quick", "--full"])
    assert ran.exit_code == 2
    assert "choose one of them" in ran.output


def test_a_comparison_is_means_over_formulas_with_intervals():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 7))  # three values of each of seven formulas
    keys = {"figure": "f", "quantity": "q", "at": "x 1"}
    frame = pd.DataFrame({**keys, "formula": np.tile(np.arange(7), 3), "value": values.ravel()})
    number = Reported("f", "q", {"x": 1}, 0.25, "s", "r")
    row = compared([number, replace(number, at={"x": 2})], frame).iloc[0]
    means = values.mean(0)
    expected = [0.25, means.mean(), *interval(means), means.mean() - 0.25]
    np.testing.assert_allclose(row[["reported", "measured", "low", "high", "difference"]].astype(float), expected)
    assert row["formulas"] == 7
    missing = compared([replace(number, at={"x": 2})], frame).iloc[0]
    assert np.isnan(missing["measured"])
    assert missing["formulas"] == 0


# --- finished cells -------------------------------------------------------------------------------------


def test_only_what_is_new_is_computed(added, tmp_path):
    run = lambda **setting: pc.experiments.squares(out=tmp_path, progress=False, **setting)  # noqa: E731
    run(formulas=2)
    assert COMPUTED == [(2, [0, 1]), (3, [0, 1])]
    COMPUTED.clear()
    grown = run(formulas=4, xs=(2, 3, 5))
    assert COMPUTED == [(2, [2, 3]), (3, [2, 3]), (5, [0, 1, 2, 3])]
    COMPUTED.clear()
    fewer = run(formulas=1)
    assert COMPUTED == []
    assert fewer.table["formula"].tolist() == [0, 0]
    pd.testing.assert_frame_equal(grown.table, pc.experiments.squares(formulas=4, xs=(2, 3, 5), progress=False).table)
    COMPUTED.clear()
    run(seed=1)
    assert COMPUTED == [(2, [0, 1, 2, 3]), (3, [0, 1, 2, 3])]


def test_ctrl_c_keeps_what_is_finished(added, tmp_path):
    def stop(done, total):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="1 of 2 cells") as caught:
        pc.experiments.squares(out=tmp_path, progress=stop)
    assert caught.value.finished.table["square"].tolist() == [4] * 4
    COMPUTED.clear()
    pc.experiments.squares(out=tmp_path, progress=False)
    assert [x for x, _ in COMPUTED] == [3]


def test_a_damaged_cell_is_named(added, tmp_path):
    pc.experiments.squares(out=tmp_path, progress=False)
    for path in sorted((tmp_path / "cells").iterdir()):
        text = path.read_text()
        for broken in (text.replace('"square": [4', '"square": [5').replace('"square": [9', '"square": [8'), "", "[]"):
            path.write_text(broken)
            with pytest.raises(pc.PrecodeFileError, match=f"{path.name} is damaged: remove it"):
                pc.experiments.squares(out=tmp_path, progress=False)
        path.unlink()
        pc.experiments.squares(out=tmp_path, progress=False)


def test_the_founding_curves_are_the_same_whatever_was_there_before(tmp_path):
    names = ("points", "trials", "random", "scaling", "dynamics")
    whole = pc.experiments.curves(formulas=5, progress=False, **TINY)
    pc.experiments.curves(formulas=2, progress=False, out=tmp_path, **TINY)
    grown = pc.experiments.curves(formulas=5, progress=False, out=tmp_path, **TINY)
    for name in names:
        first, second = whole.tables[name], grown.tables[name]
        columns = [column for column in first if column != "seconds"]
        assert list(first) == list(second)
        pd.testing.assert_frame_equal(first[columns], second[columns])
    pd.testing.assert_frame_equal(whole.reported, grown.reported)
    again = pc.experiments.curves(formulas=5, progress=False, out=tmp_path, **TINY)
    pd.testing.assert_frame_equal(grown.table, again.table)  # the timings, too


def test_the_founding_curves_are_those_of_their_functions():
    result = pc.experiments.curves(formulas=3, progress=False, **TINY)
    shared = {"trials": 3, "samples": 400, "embedding": "hadamard", "progress": False}
    alone = pc.curves([8], [2, 3], epochs=2, **shared)
    columns = [name for name in alone.table if name != "seconds"]
    pd.testing.assert_frame_equal(result.table[columns], alone.table[columns])
    pd.testing.assert_frame_equal(result.tables["dynamics"], pc.dynamics(moments=[0, 1], **shared))
    scaled = pc.curves([4], [64], epochs=1, **shared).trials
    columns = [name for name in scaled if name != "seconds"]
    pd.testing.assert_frame_equal(result.tables["scaling"][columns], scaled[columns])


def test_reported_numbers_stand_beside_what_was_measured():
    result = pc.experiments.curves(
        hidden=16, clauses=[2, 64], formulas=2, epochs=2, samples=400, scaling=16, moments=[0, 1], progress=False
    )
    beside = result.reported.set_index(["figure", "quantity", "at"])
    assert len(beside) == len(result.experiment.reported) == 144
    means = result.table.set_index("clauses")
    row = beside.loc["figure 7", "4P_positive", "hidden 16, clauses 64"]
    assert row["reported"] == 0.75
    assert row["measured"] == pytest.approx(means.loc[64, "4P_positive"])
    assert row["difference"] == pytest.approx(row["measured"] - 0.75)
    assert "by eye" in row["reading"]
    assert beside.loc["figure 4", "train_error", "hidden 16, clauses 2"]["measured"] == means.loc[2, "train_error"]
    random = beside.loc["figure 7", "random_4P_positive", "hidden 16"]["measured"]
    assert random == pytest.approx(means["random_4P_positive"].mean())
    error = result.tables["scaling"]["test_error"].mean()
    assert beside.loc["figure 11", "test_error", "hidden 16"]["measured"] == pytest.approx(error)
    dynamics = result.tables["dynamics"].groupby("epoch")["train_bce"].mean()
    assert beside.loc["figure 12", "train_bce", "epoch 1"]["measured"] == pytest.approx(dynamics[1.0])
    codes = result.trials.query("clauses == 64")
    sizes = codes["code_size"] * 64 / (64 - codes["clauses_without_code"])
    assert beside.loc["figure 10", "code_size", "hidden 16, clauses 64"]["measured"] == pytest.approx(sizes.mean())
    assert not beside["second_hand"].any()
    assert "Not in the setting of the source: hidden = (16,)" in result.differs()
    assert result.differs() in result._repr_html_()


def test_figures_draw_what_is_there():
    result = pc.experiments.curves(formulas=2, progress=False, **TINY)
    assert result.figures == ("4P_positive", "train_error", "3N1P_negative", "scaling", "dynamics")
    for name in result.figures:
        ax = result.plot(name)
        labels = [text.get_text() for text in ax.get_legend().get_texts()]
        assert any("published" in label for label in labels), name
        plt.close(ax.figure)
    with pytest.raises(pc.PrecodeValueError, match="'10P'"):
        result.plot("10P")
    points = pc.curves(8, 2, trials=1, epochs=1, samples=200, progress=False)
    with pytest.raises(pc.PrecodeValueError, match="nothing was measured for the figure 'dynamics'"):
        points.plot("dynamics")


# --- settings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            dict(width_of=3),
            "'width_of': no setting of experiment 'curves'; there are hidden, clauses, formulas, epochs",
        ),
        (dict(formulas=0), "formulas = 0"),
        (dict(hidden=[]), "hidden"),
        (dict(hidden=0), "hidden"),
        (dict(scaling=[0]), "scaling"),
        (dict(seed=-1), "seed = -1: expected an integer of at least 0 and below 2\\*\\*64"),
        (dict(embedding="fourier"), "embedding 'fourier': use one of identity, hadamard"),
        (dict(clauses=10**6), "distinct"),
        (dict(moments=[-1]), "moments"),
    ],
)
def test_impossible_settings_are_refused_before_any_work(setting, message, monkeypatch):
    def worked(*_, **__):
        raise AssertionError("worked")

    monkeypatch.setattr("precode.experiments.founding_cells.train", worked)
    with pytest.raises(pc.PrecodeValueError, match=message):
        pc.experiments.curves(progress=False, **setting)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (dict(formulas="2"), "formulas must be an integer, not str"),
        (dict(hidden=[2.0]), "hidden must be integers, not float"),
        (dict(embedding=3), "embedding must be a name such as 'hadamard', not int"),
        (dict(moments="1"), "moments must be numbers, not str"),
        (dict(early_stopping=3), "early_stopping must be an EarlyStopping or None, not int"),
    ],
)
def test_values_of_a_setting_have_the_type_of_their_defaults(setting, message):
    with pytest.raises(pc.PrecodeTypeError, match=message):
        pc.experiments.curves(progress=False, **setting)


def test_a_setting_is_frozen_and_has_one_json_form():
    defaults = EXPERIMENTS[0].setting
    first = Setting("curves", defaults, {"hidden": np.array([8]), "early_stopping": pc.EarlyStopping(patience=3)})
    second = Setting(
        "curves", defaults, {"early_stopping": {"patience": 3, "min_delta": 0.0, "watch": "train"}, "hidden": 8}
    )
    assert first == second
    assert hash(first) == hash(second)
    assert json.loads(first.to_json())["hidden"] == [8]
    with pytest.raises(TypeError):
        first["hidden"] = 3


def test_unknown_experiments_are_refused_with_those_there_are():
    with pytest.raises(pc.PrecodeValueError, match="'curve' is unknown: use one of curves, ticket_cycle"):
        pc.experiments.find("curve")
    with pytest.raises(AttributeError, match="curve"):
        pc.experiments.curve  # noqa: B018
    done = CliRunner().invoke(main, ["reproduce", "curve"])
    assert done.exit_code == 2
    assert "use one of curves, ticket_cycle" in done.stderr
    done = CliRunner().invoke(main, ["reproduce"])
    assert done.exit_code == 2
    assert "name an experiment or all: curves" in done.stderr


# --- command line and documentation ---------------------------------------------------------------------


def test_reproduce_prints_reported_beside_measured_and_resumes(added, tmp_path):
    command = ["reproduce", "squares", "--out", str(tmp_path), "--formulas", "2", "--seed", "1"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    header, row = done.stdout.splitlines()
    assert header.split() == ["figure", "quantity", "at", "reported", "measured", "low", "high", "difference"]
    assert row.split()[-5:] == ["5", "5", "5", "5", "0"]
    assert "1 of 2 reported numbers beside measured ones, 1 of them in the interval" in done.stderr
    assert "Not in the setting of the source: formulas = 2, seed = 1." in done.stderr
    files = {path: path.read_bytes() for path in (tmp_path / "squares").rglob("*") if path.is_file()}
    COMPUTED.clear()
    assert CliRunner().invoke(main, command).exit_code == 0
    assert COMPUTED == []
    assert files == {path: path.read_bytes() for path in (tmp_path / "squares").rglob("*") if path.is_file()}


def test_ctrl_c_in_reproduce_keeps_finished_cells(added, tmp_path, monkeypatch):
    def interrupted(settings, parts):
        if settings["x"] == 3:
            raise KeyboardInterrupt
        return squares(settings, parts)

    broken = replace(SQUARES, kind=replace(SQUARES.kind, compute=interrupted))
    monkeypatch.setattr("precode.experiments.EXPERIMENTS", [broken])
    file = tmp_path / "all.json"
    done = CliRunner().invoke(main, ["reproduce", "all", "--out", str(tmp_path), "--json", str(file)])
    assert done.exit_code == 130
    assert "interrupted: 1 of 2 cells are finished; what is finished is kept in" in done.stderr
    assert json.loads(file.read_text())[0]["measured"] == 4
    assert len(list((tmp_path / "squares" / "cells").iterdir())) == 1
    assert not (tmp_path / "squares" / "squares.csv").exists()


def test_the_page_of_experiments_is_the_list():
    page = (ROOT / "docs/reference/experiments.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in row.strip("|").split(" | ")] for row in re.findall(r"^\| `.*\|$", page, re.MULTILINE)
    ]
    rows = [row for row in rows if len(row) == 5]
    expected = [
        [
            f"`{item.name}`",
            item.title,
            item.source,
            str(len(item.reported)),
            str(sum(number.second_hand for number in item.reported)),
        ]
        for item in EXPERIMENTS
    ]
    assert rows == expected
    for item in EXPERIMENTS:
        assert item.words in " ".join(page.split())
