"""Studies: configurations, results, damage, failures. Kills and executors have files of their own."""

import dataclasses
import errno
import hashlib
import io
import json
import os
import signal
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import precode as pc
from precode.claims import rules_version
from precode.study import Kind, Store, Study, StudyConfig, plan, run, runner, store
from study_kinds import CONFIG, KINDS, acting


def go(out, kinds=KINDS, config=CONFIG, **options):
    return run(config, out, kinds=kinds, **{"progress": False, **options})


@pytest.fixture
def done(tmp_path):
    """The folder of a finished study."""
    folder = tmp_path / "study"
    go(folder, acting(6, {}))
    return folder


def test_a_configuration_has_one_form_and_one_key():
    text = CONFIG.to_json()
    # An independent reading of "compact JSON, keys in alphabetical order".
    assert json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")) == text
    assert CONFIG.key == hashlib.sha256(text.encode()).hexdigest()
    shuffled = dataclasses.replace(
        CONFIG, clauses=np.array([4, 2]), embeddings=["hadamard", "identity"], seed=np.int64(3)
    )
    assert shuffled == CONFIG
    assert hash(shuffled) == hash(CONFIG)
    assert StudyConfig.from_json(json.dumps(json.loads(text), indent=2)) == CONFIG
    others = [dataclasses.replace(CONFIG, **change) for change in ({"seed": 4}, {"hidden": (16,)}, {"formulas": 9})]
    assert len({CONFIG.key, *(other.key for other in others)}) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": (0,)}, "hidden contains 0: each must be from 1 to 65536"),
        ({"hidden": ("8",)}, r"hidden\[0\]: invalid type: string"),
        ({"densities": (0.5, 2)}, "densities contains 2: each must be above 0 and at most 1"),
        ({"densities": (float("nan"),)}, "study configuration"),
        ({"embeddings": ("fourier",)}, "one of identity, hadamard, hadamard-raw, random"),
        ({"formulas": True}, "formulas: invalid type: boolean"),
        ({"seed": 2**64}, "seed"),
        ({"methods": ("snip", "snip")}, "snip stands twice"),
        ({"version": 4}, "version = 4: this precode reads version 3"),
        ({"samples": object()}, "JSON"),
        ({"clauses": ()}, r"clauses = \[\]: give at least one"),
        ({"methods": ("imp:a:b",)}, "methods contains imp:a:b: each must be the name of a method"),
        ({"formulas": 0}, "formulas = 0: must be from 1 to 1048576"),
        ({"epochs": 1.5}, "epochs: invalid type: floating point 1.5"),
    ],
)
def test_a_bad_configuration_is_refused(change, message):
    with pytest.raises(pc.PrecodeValueError, match=message):
        dataclasses.replace(CONFIG, **change)


def test_unknown_keys_and_presets_are_refused():
    with pytest.raises(pc.PrecodeValueError, match="unknown field `width`, expected one of `clauses`"):
        StudyConfig.from_json(json.dumps({**json.loads(CONFIG.to_json()), "width": 4}))
    with pytest.raises(pc.PrecodeValueError, match="'fast' is unknown: use one of quick, paper"):
        StudyConfig.preset("fast", methods=["snip"])
    with pytest.raises(pc.PrecodeValueError, match="width: a study has no such value; it has hidden, clauses"):
        StudyConfig.preset("quick", methods=["snip"], width=3)
    assert StudyConfig.preset("quick", methods=["snip"], epochs=3).epochs == 3


def test_every_key_of_the_json_stands_once():
    text = CONFIG.to_json()
    for changed, message in (
        (text.replace('"seed":3,', ""), "missing field `seed`"),
        (text.replace('"seed":3', '"seed":3,"seed":3'), "duplicate field `seed`"),
        (text[1:], "no JSON"),
        ("[1]", "must be a JSON object"),
        (text.replace("[8]", "8"), "hidden: invalid type: integer 8, expected a list"),
    ):
        with pytest.raises(pc.PrecodeValueError, match=message):
            StudyConfig.from_json(changed)


def test_the_rules_are_noted_when_a_study_is_planned_and_are_no_part_of_its_cells(tmp_path, monkeypatch):
    go(tmp_path, acting(2, {}))
    assert Study(tmp_path).rules == rules_version()
    monkeypatch.setattr(store, "rules_version", lambda: "1" * 64)
    never = dataclasses.replace(acting(2, {})[0], compute=None)
    assert go(tmp_path, [never]).rules == rules_version()  # as it was planned


def test_cells_are_known_by_what_they_depend_on():
    cells = plan(CONFIG, KINDS).cells
    assert len(cells) == len({cell.key for cell in cells}) == 2 * 2 * 2
    same = plan(dataclasses.replace(CONFIG, densities=(0.5,)), KINDS).cells
    assert [cell.key for cell in same] == [cell.key for cell in cells]  # these kinds do not look at densities
    other = plan(dataclasses.replace(CONFIG, epochs=3), KINDS).cells
    assert not {cell.key for cell in other} & {cell.key for cell in cells}
    newer = plan(CONFIG, [dataclasses.replace(KINDS[0], version=2)]).cells
    assert not {cell.key for cell in newer} & {cell.key for cell in cells}
    assert plan(CONFIG, acting(100, {})).describe(cores=2).splitlines() == [
        "act: 100 cells, 100 core-seconds",
        "100 cells, about 50 s on 2 cores",
    ]
    for kinds, message in (
        ([], "no cells"),
        (acting(2, {1: {"index": 0}}), "twice"),
        (acting(1, {0: {"a": {1}}}), "JSON"),
    ):
        with pytest.raises(pc.PrecodeValueError, match=message):
            plan(CONFIG, kinds)


def test_results_come_back_in_the_order_of_the_plan(tmp_path):
    study = go(tmp_path / "study")
    assert (study.planned, study.finished, study.tables) == (8, 8, ["codes", "start"])
    codes = study.table("codes")
    assert codes[["hidden", "clauses", "embedding"]].drop_duplicates().to_numpy().tolist() == [
        [8, clauses, embedding] for clauses in (2, 4) for embedding in ("identity", "hadamard")
    ]
    settings, arrays = list(study.arrays("weights"))[2]
    tasks = [pc.Dnf.random(clauses=settings["clauses"], seed=3, index=index) for index in range(2)]
    options = {name: settings[name] for name in ("hidden", "embedding", "epochs", "samples", "seed")}
    runs = pc.train(tasks, **options)
    for name, weights in runs.weights.items():
        np.testing.assert_array_equal(arrays[name], weights.numpy())
    pd.testing.assert_series_equal(codes["code_size"][4:6], runs.codes().summary()["code_size"], check_index=False)
    with pytest.raises(pc.PrecodeValueError, match="'fates': there are codes, start"):
        study.table("fates")
    files = study.export(tmp_path / "tables")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "tables" / "codes.parquet"), codes)
    assert [path.name for path in files] == ["codes.parquet", "codes.csv", "start.parquet", "start.csv"]
    assert set(study.timings["kind"]) == {"dense", "start"}


def test_every_kind_of_array_survives(tmp_path):
    arrays = {
        dtype: np.arange(6).reshape(2, 3).astype(dtype)
        for dtype in ("bool", "uint8", "int32", "int64", "float32", "float64")
    }
    settings = lambda config: [{}]  # noqa: E731
    kind = Kind("arrays", settings, lambda _: {"all": arrays}, lambda _: 1.0)
    ((_, there),) = go(tmp_path / "a", [kind]).arrays("all")
    assert there.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(there[name], array, strict=True)
    for number, wrong in enumerate(({"all": {"a": np.zeros(2, np.complex64)}}, {"all": 3}, {}, {"All": arrays})):
        bad = Kind("arrays", settings, lambda _, wrong=wrong: wrong, lambda _: 1.0)
        with pytest.warns(UserWarning, match=r"1 of 1 cells failed.*(complex64|DataFrame|at least one|small letters)"):
            go(tmp_path / f"bad{number}", [bad])


def test_progress_counts_cells_and_its_errors_pass_on(tmp_path):
    seen = []
    go(tmp_path, acting(3, {}), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]

    def stop(done, total):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        go(tmp_path / "other", acting(3, {}), progress=stop)
    assert go(tmp_path / "other", acting(3, {})).finished == 3


def test_a_cell_that_always_fails_is_noted_and_the_others_finish(tmp_path):
    once = str(tmp_path / "once")
    kinds = acting(5, {1: {"fail": True}, 3: {"fail": True, "once": once}})
    with pytest.warns(UserWarning, match=r'1 of 5 cells failed, such as act .*"index":1.*cell 1 cannot be computed'):
        study = go(tmp_path / "study", kinds, retries=1)
    assert study.table("numbers")["index"].tolist() == [0, 2, 3, 4]
    (failure,) = study.failures.to_dict("records")
    assert json.loads(failure["settings"]) == {"index": 1, "fail": True}
    assert failure["attempts"] == 2
    assert failure["error"] == "ValueError: cell 1 cannot be computed"
    assert "in act" in failure["trace"]
    with pytest.warns(UserWarning, match="1 of 5 cells failed"):
        assert go(tmp_path / "study", kinds, retries=0).failures["attempts"].tolist() == [1]


def test_ctrl_c_keeps_what_is_finished(tmp_path):
    def interrupt(done, total):
        if done == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match=r"[34] of 8 cells are finished and kept: run it again"):
        go(tmp_path, acting(8, {}, wait=0.01), progress=interrupt)
    study = Study(tmp_path)
    assert len(study.table("numbers")) == study.finished in (3, 4)
    assert go(tmp_path, acting(8, {}, wait=0.01)).finished == 8


def edit(folder, statement):
    connection = sqlite3.connect(folder / "study.sqlite")
    with connection:
        connection.execute(statement)
    connection.close()


def first(folder):
    return min((folder / "data").iterdir())


def shorten_database(folder):
    data = (folder / "study.sqlite").read_bytes()
    (folder / "study.sqlite").write_bytes(data[: len(data) // 2])


DAMAGE = {
    "an altered file": (lambda f: first(f).write_bytes(first(f).read_bytes()[:-1] + b"x"), "{file} was altered"),
    "a shortened file": (lambda f: first(f).write_bytes(b"x"), "{file} has 1 bytes instead of"),
    "a missing file": (lambda f: first(f).unlink(), "{file} cannot be read"),
    "a strange file": (lambda f: (f / "data" / "notes.txt").touch(), "data/notes.txt is no result of this study"),
    "another cell's file": (
        lambda f: (f / "data" / f"{'0' * 64}.{'0' * 16}.a.parquet").touch(),
        "is no result of this study",
    ),
    "no database": (lambda f: (f / "study.sqlite").unlink(), "study.sqlite is missing"),
    "an empty database": (lambda f: (f / "study.sqlite").write_bytes(b""), "missing or empty|no such table"),
    "no database at all": (lambda f: (f / "study.sqlite").write_bytes(b"x" * 5000), "file is not a database"),
    "half a database": (shorten_database, "study.sqlite"),
    "a lost row": (lambda f: edit(f, "DELETE FROM files WHERE rowid = 3"), "its seal does not fit"),
    "an altered row": (lambda f: edit(f, "UPDATE files SET size = 1"), "its seal does not fit"),
    "an altered cell": (lambda f: edit(f, "UPDATE cells SET settings = '{}' WHERE place = 2"), "its seal does not fit"),
    "another's database": (lambda f: edit(f, "UPDATE study SET config = '{}'"), "its seal does not fit"),
    "an altered configuration": (lambda f: (f / "study.json").write_text("{}"), "study.json: .*missing field"),
    "no configuration": (lambda f: (f / "study.json").unlink(), "not the folder of a study"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_and_nothing_is_computed_over(done, damage):
    harm, message = DAMAGE[damage]
    name = first(done).name
    harm(done)
    before = {path: path.read_bytes() for path in done.rglob("*") if path.is_file()}

    def never(settings):
        raise AssertionError("computed again")

    (kind,) = acting(6, {})
    with pytest.raises(pc.PrecodeFileError, match=message.format(file=f"data/{name}")):
        go(done, [dataclasses.replace(kind, compute=never)])
    ours = {path: content for path, content in before.items() if path.suffix not in (".sqlite", ".lock")}
    assert {path: path.read_bytes() for path in ours} == ours


@pytest.mark.parametrize("damage", ["an altered file", "a shortened file", "a missing file"])
def test_damaged_results_are_not_read_and_can_be_repaired(done, damage):
    whole = {path.name: path.read_bytes() for path in (done / "data").iterdir()}
    DAMAGE[damage][0](done)
    with pytest.raises(pc.PrecodeFileError, match=r"is damaged: data/.*Restore it from a copy"):
        Study(done).table("numbers")
    assert go(done, acting(6, {}), repair=True).finished == 6
    assert {path.name: path.read_bytes() for path in (done / "data").iterdir()} == whole


def test_a_lost_log_of_the_database_is_noticed(tmp_path):
    folder, kinds = tmp_path / "study", acting(5, {})
    go(folder, kinds)
    other = tmp_path / "other"
    with Store(other, CONFIG, plan(CONFIG, kinds).cells):
        pass
    (folder / "study.sqlite").write_bytes((other / "study.sqlite").read_bytes())  # knows of no results
    with pytest.raises(pc.PrecodeFileError, match="older than the results of 5 jobs"):
        go(folder, kinds)
    assert go(folder, kinds, repair=True).finished == 5


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path, done):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(pc.PrecodeFileError, match=r"not the folder of a study \(it holds study, thesis.tex, but no"):
        go(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study", "thesis.tex"]
    seeded = tmp_path.parent / "seeded"
    go(seeded)
    with pytest.raises(
        pc.PrecodeFileError, match=r"holds another study \(seed = 3 there, 4 here\): name another folder"
    ):
        go(seeded, KINDS, dataclasses.replace(CONFIG, seed=4))
    with pytest.raises(pc.PrecodeFileError, match=r'leaves out what is finished there \(act {"index":5}; 1 of 6'):
        go(done, acting(5, {}))
    with pytest.raises(pc.PrecodeFileError, match="cannot be written"):
        go(tmp_path / "thesis.tex")
    with pytest.raises(pc.PrecodeFileError, match="not the folder of a study"):
        Study(tmp_path)
    assert go(done, acting(6, {})).finished == 6


def test_only_one_process_writes(tmp_path):
    kinds = acting(3, {})
    with Store(tmp_path, CONFIG, plan(CONFIG, kinds).cells):
        with pytest.raises(pc.PrecodeFileError, match="another process is running this study"):
            go(tmp_path, kinds)
        assert Study(tmp_path).finished == 0  # but others may read
    assert go(tmp_path, kinds).finished == 3


@pytest.mark.parametrize("place", ["file", "database"])
def test_a_full_disk_loses_nothing(tmp_path, monkeypatch, place):
    kinds = acting(6, {})
    go(tmp_path / "whole", kinds)
    calls = iter(range(100))
    if place == "file":
        write = store.write_atomically

        def fill(path, content):
            if path.parent.name == "data" and next(calls) == 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            write(path, content)

        monkeypatch.setattr(store, "write_atomically", fill)
    else:

        def fill(rows, before="0" * 64):
            if next(calls) == 4:
                raise sqlite3.OperationalError("database or disk is full")
            return seal(rows, before)

        seal = store.seal
        monkeypatch.setattr(store, "seal", fill)
    with pytest.raises(
        pc.PrecodeFileError, match=r"No space left on device\): free some space; what is finished is kept"
    ):
        go(tmp_path / "study", kinds)
    monkeypatch.undo()
    assert Study(tmp_path / "study").finished == 3
    assert len(list((tmp_path / "study" / "data").iterdir())) == 3
    go(tmp_path / "study", kinds)
    for path in (tmp_path / "whole" / "data").iterdir():
        assert (tmp_path / "study" / "data" / path.name).read_bytes() == path.read_bytes()


def test_a_folder_that_cannot_be_written_can_be_read(done, monkeypatch):
    def refuse(self, *arguments, **options):
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(pc.PrecodeFileError, match=r"Read-only file system\): use a folder that can be written to"):
        go(done, acting(6, {}))
    names = {path.name for path in done.iterdir()}
    assert len(Study(done).table("numbers")) == 6
    assert {path.name for path in done.iterdir()} == names
    monkeypatch.undo()
    assert go(done, acting(6, {})).finished == 6


def test_bad_arguments_are_refused(tmp_path):
    for options, message in (
        ({"executor": "processes"}, "executor must be a concurrent.futures.Executor"),
        ({"retries": 1.5}, "retries must be an integer"),
        ({"config": CONFIG.to_json()}, "config must be a StudyConfig, not str"),
    ):
        with pytest.raises(pc.PrecodeTypeError, match=message):
            go(tmp_path / "study", **options)
    with pytest.raises(pc.PrecodeValueError, match="in_flight = 0"):
        go(tmp_path / "study", in_flight=0)
    assert not (tmp_path / "study").exists()


def test_a_bar_goes_by_the_estimates(tmp_path, monkeypatch):
    seen = []

    class Bar(runner.tqdm):
        def __init__(self, **options):
            super().__init__(**{**options, "disable": False, "file": io.StringIO()})

        def close(self):
            seen.append((self.initial, self.n, self.total, self.postfix))
            super().close()

    monkeypatch.setattr(runner, "tqdm", Bar)
    go(tmp_path, acting(4, {}), progress=True)
    go(tmp_path, acting(4, {}), progress=True)
    assert seen[0] == (0, 4, 4, "4 of 4 cells")
    assert seen[-1] == (4, 4, 4, None)
