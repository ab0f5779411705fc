"""Studies that grow: only what is new is computed, and what comes out is what one run would have given."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import precode as pc
from precode._internal.cells import rectangles
from precode.study import CODES, KINDS, TICKETS, Kind, Study, StudyConfig, plan, register, run

BASE = StudyConfig(
    hidden=(8,),
    clauses=(4,),
    embeddings=("identity",),
    formulas=2,
    densities=(0.5,),
    methods=("random", "snip"),
    epochs=1,
    samples=128,
    seed=3,
)


class Counted:
    """The kinds of the claims, which remember what was computed."""

    def __init__(self):
        self.jobs = []
        self.kinds = [replace(kind, compute=self._remembering(kind)) for kind in (CODES, TICKETS)]

    def _remembering(self, kind):
        def compute(settings, parts):
            self.jobs.append((kind.name, settings, parts))
            return kind.compute(settings, parts)

        return compute

    def sizes(self):
        """The number of parts of every job, by kind."""
        return {
            name: [
                int(np.prod([len(values) for values in parts.values()])) for kind, _, parts in self.jobs if kind == name
            ]
            for name in ("codes", "tickets")
        }


def go(config, out, kinds=(CODES, TICKETS), **options):
    return run(config, out, kinds=kinds, **{"progress": False, **options})


def exported(folder, out):
    return {path.name: path.read_bytes() for path in Study(folder).export(out)}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("growth") / "base"
    go(BASE, folder)
    return folder


GROWTH = {
    "a method": ({"methods": ("random", "magnitude", "snip")}, [], [2]),
    "a density": ({"densities": (0.5, 0.25)}, [], [2, 2]),
    "a width": ({"hidden": (8, 4)}, [2], [2, 2]),
    "a number of clauses": ({"clauses": (4, 2)}, [2], [2, 2]),
    "an embedding": ({"embeddings": ("hadamard", "identity")}, [2], [2, 2]),
    "formulas": ({"formulas": 3}, [1], [1, 1]),
}
"""What is changed, and the number of parts of each new job, of codes and of tickets."""


@pytest.mark.parametrize("growth", GROWTH)
def test_only_what_is_new_is_computed(base, tmp_path, growth):
    change, codes, tickets = GROWTH[growth]
    config = replace(BASE, **change)
    folder = shutil.copytree(base, tmp_path / "grown")
    before = {path.name: path.read_bytes() for path in (folder / "data").iterdir()}
    counted = Counted()
    study = go(config, folder, counted.kinds)
    assert counted.sizes() == {"codes": codes, "tickets": tickets}
    assert (study.finished, study.config) == (study.planned, config)
    assert (folder / "study.json").read_text() == config.to_json() + "\n"
    assert {name: (folder / "data" / name).read_bytes() for name in before} == before
    assert go(config, folder, [replace(kind, compute=None) for kind in counted.kinds]).finished == study.finished
    go(config, tmp_path / "whole")
    assert exported(folder, tmp_path / "a") == exported(tmp_path / "whole", tmp_path / "b")
    assert _weights(study) == _weights(Study(tmp_path / "whole"))


def _weights(study):
    return [
        (settings, {name: array.tobytes() for name, array in arrays.items()})
        for settings, arrays in study.arrays("weights")
    ]


def test_a_study_that_grows_twice_in_two_directions_is_that_of_one_run(base, tmp_path):
    folder = shutil.copytree(base, tmp_path / "grown")
    go(replace(BASE, formulas=3, densities=(0.5, 0.125)), folder)
    config = replace(BASE, formulas=4, densities=(0.5, 0.25, 0.125), methods=("random", "distance", "snip"))
    counted = Counted()
    go(config, folder, counted.kinds)
    # Of each of the two methods that are there: the new formula at two densities, and the new density of all formulas.
    assert counted.sizes() == {"codes": [1], "tickets": [12, 4, 2, 4, 2]} or counted.sizes() == {
        "codes": [1],
        "tickets": [12, 2, 4, 2, 4],
    }
    go(config, tmp_path / "whole")
    assert exported(folder, tmp_path / "a") == exported(tmp_path / "whole", tmp_path / "b")


def test_a_kind_that_is_registered_later_leaves_folders_valid(base, tmp_path):
    def squares(settings, parts):
        return {"squares": pd.DataFrame({"x": list(parts["x"]), "y": [x**2 for x in parts["x"]]})}

    kind = Kind("squares", lambda _: [{}], squares, lambda *_: 0.1, axes=("x",), parts=lambda _: {"x": range(3)})
    folder = shutil.copytree(base, tmp_path / "study")
    tickets = Study(folder).table("tickets")
    register(kind)
    try:
        with pytest.raises(pc.PrecodeValueError, match="'squares' is there already"):
            register(kind)
        assert Study(folder).table("tickets").equals(tickets)
        study = run(BASE, folder, progress=False)
    finally:
        del KINDS["squares"]
    assert study.table("squares")["y"].tolist() == [0, 1, 4]
    pd.testing.assert_frame_equal(study.table("tickets"), tickets)
    with pytest.raises(pc.PrecodeFileError, match=r"\(kinds of cells: squares; 1 of 4 finished"):
        go(BASE, folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ("random", "magnitude")}, r"methods: snip; 1 of 3 finished"),
        ({"densities": (0.25,)}, r"densities: 0.5; 2 of 3 finished"),
        ({"hidden": (16,)}, r"hidden: 8; 3 of 3 finished"),
        ({"clauses": (2,)}, "clauses: 4; 3 of 3"),
        ({"embeddings": ("random",)}, "embeddings: identity; 3 of 3"),
        ({"formulas": 1}, "formulas: 2 there, 1 here; 3 of 3"),
        ({"formulas": 1, "methods": ("snip",)}, "methods: random; formulas: 2 there, 1 here"),
        ({"epochs": 2}, r"holds another study \(epochs = 1 there, 2 here\): name another folder"),
        ({"samples": 129, "seed": 4}, r"samples = 128 there, 129 here; seed = 3 there, 4 here"),
    ],
)
def test_what_would_be_lost_is_named_and_nothing_changes(base, change, message):
    before = {path: path.read_bytes() for path in base.rglob("*") if path.is_file()}
    with pytest.raises(pc.PrecodeFileError, match=message):
        go(replace(BASE, **change), base)
    assert {path: path.read_bytes() for path in base.rglob("*") if path.is_file()} == before


def test_other_software_is_named(base, monkeypatch):
    monkeypatch.setattr("precode._internal.cells.numerics", lambda: "precode 9, torch 9")
    with pytest.raises(
        pc.PrecodeFileError, match=r"not computed by this software \(precode 0.* there, precode 9, torch 9"
    ):
        go(BASE, base)
    monkeypatch.undo()
    newer = [CODES, replace(TICKETS, version=99)]
    with pytest.raises(pc.PrecodeFileError, match=r"another version of the kinds tickets; 2 of 3"):
        go(BASE, base, newer)


def test_an_unfinished_study_may_become_any_other(tmp_path):
    go(
        BASE,
        tmp_path,
        kinds=[Kind("none", lambda _: [{"x": 1}], lambda _: {"t": pd.DataFrame({"x": [1]})}, lambda _: 0.1)],
    )
    with pytest.warns(UserWarning, match="1 of 1 cells failed"):
        go(BASE, tmp_path / "new", [Kind("bad", lambda _: [{"x": 1}], lambda _: {}, lambda _: 0.1)])
    assert go(replace(BASE, seed=9), tmp_path / "new").finished == 3
    assert len(Study(tmp_path / "new").failures) == 0


def test_an_earlier_layout_is_refused_in_one_sentence(tmp_path):
    text = '{"clauses":[4],"rules":"00","seed":3,"version":1}'
    (tmp_path / "study.json").write_text(text)
    for read in (Study, lambda folder: go(BASE, folder)):
        with pytest.raises(pc.PrecodeFileError, match="a study of an earlier version of precode"):
            read(tmp_path)
    assert (tmp_path / "study.json").read_text() == text


# ---------------------------------------------------------------- parts


CONTROLS = [control for control in pc.controls()["name"] if control != "wrong-clauses"]
METHODS = [*pc.methods()["name"], *(f"snip:{control}" for control in CONTROLS), "target-static:wrong-clauses"]


@pytest.mark.parametrize("method", METHODS)
def test_a_part_is_the_same_whatever_is_computed_with_it(method, one_thread):
    config = replace(BASE, methods=(method,), embeddings=("hadamard",), clauses=(3,), epochs=2)
    (cell,) = plan(config, [TICKETS]).cells
    everything = TICKETS.compute(cell.settings, {"density": (0.5, 0.25, 0.125), "formula": tuple(range(10))})
    for densities, formulas in (((0.25,), (3, 4)), ((0.5, 0.25, 0.125), (7,))):
        alone = TICKETS.compute(cell.settings, {"density": densities, "formula": formulas})
        for name in ("tickets", "transport"):
            table = everything[name]
            rows = table[table["formula"].isin(formulas) & table["density"].isin(densities)]
            pd.testing.assert_frame_equal(rows.reset_index(drop=True), alone[name], check_exact=True)


@pytest.mark.parametrize("embedding", ["identity", "random"])
def test_observations_of_a_formula_are_the_same_whatever_is_computed_with_it(embedding, one_thread):
    config = replace(BASE, embeddings=(embedding,))
    (cell,) = plan(config, [CODES]).cells
    everything = CODES.compute(cell.settings, {"formula": tuple(range(6))})
    for formulas in ((3, 4), (5,)):
        alone = CODES.compute(cell.settings, {"formula": formulas})
        for name, table in everything.items():
            if name != "weights":
                rows = table[table["formula"].isin(formulas)].reset_index(drop=True)
                pd.testing.assert_frame_equal(rows, alone[name], check_exact=True)
        for name, array in alone["weights"].items():
            np.testing.assert_array_equal(array, everything["weights"][name])


def test_row_transport_is_kept_of_the_first_formula_at_some_densities(base):
    (cell,) = plan(replace(BASE, methods=("snip",)), [TICKETS]).cells
    found = TICKETS.compute(cell.settings, {"density": (0.5, 0.25, 0.125), "formula": (0, 1)})
    assert {name: matrix.shape for name, matrix in found["row_transport"].items()} == {
        "snip at 0.25": (1, 8, 8),
        "snip at 0.125": (1, 8, 8),
    }
    assert "row_transport" not in TICKETS.compute(cell.settings, {"density": (0.25,), "formula": (1,)})


def test_rectangles_cover_each_part_once():
    draw = np.random.default_rng(0)
    for _ in range(100):
        parts = [(a, b, c) for a in range(3) for b in range(4) for c in range(2) if draw.random() < 0.6]
        covered = [
            (a, b, c) for first, second, third in rectangles(parts) for a in first for b in second for c in third
        ]
        assert sorted(covered) == parts


def test_a_kind_must_say_the_part_of_every_row(tmp_path):
    def kind(table):
        return Kind(
            "kind",
            lambda _: [{}],
            lambda settings, parts: {"table": table},
            lambda settings, parts: 1.0,
            axes=("x",),
            parts=lambda _: {"x": (1, 2)},
        )

    for number, (table, message) in enumerate(
        (
            (pd.DataFrame({"y": [1]}), "has no column 'x', which says the part along axis 'x'"),
            (pd.DataFrame({"x": [1, 3]}), r"x = 3 was not asked for, but x = \[1, 2\]"),
        )
    ):
        with pytest.warns(UserWarning, match=message):
            go(BASE, tmp_path / str(number), [kind(table)])
    for options, message in (
        ({"axes": ("x",)}, "give axes and parts together"),
        ({"axes": ("X",), "parts": lambda _: {}}, "axis of kind 'kind' 'X': names are of small letters"),
        ({"columns": {"x": "y"}}, "x in columns is none of its axes"),
    ):
        with pytest.raises(pc.PrecodeValueError, match=message):
            Kind("kind", lambda _: [{}], lambda _: {}, lambda _: 1.0, **options)
    for values, message in (((), "give at least one value, none twice"), ((1, 1), "none twice"), (({1},), "JSON")):
        bad = replace(kind(None), parts=lambda _, values=values: {"x": values})
        with pytest.raises(pc.PrecodeValueError, match=message):
            plan(BASE, [bad])
