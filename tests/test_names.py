"""What a user meets: names that complete, objects that say what they are in one line, and a lean import."""

import importlib
import pkgutil
import subprocess
import sys
import types

import pandas as pd
import pytest

import precode as pc

ROOMS = ("bench", "codes", "experiments", "formulas", "modules", "networks", "plot", "tickets")


@pytest.fixture(scope="module")
def things():
    """One of everything in `precode.__all__` that can be made."""
    tasks = [pc.Dnf.random(clauses=4, seed=0, index=index, outputs=1) for index in range(3)]
    runs = pc.train(tasks, hidden=8, epochs=1, samples=640, snapshots=[0, 5], embedding="hadamard")
    tickets = pc.find_tickets(runs, ["random", "magnitude"], [0.5, 0.25])
    return {
        "Biased": pc.Biased(),
        "BrokenClause": pc.BrokenClause(),
        "Codes": runs.codes(),
        "Comparison": pc.Comparison(
            pd.DataFrame({"method": ["snip"], "density": [0.5], "seed": [0], "accuracy": [0.9]}), "accuracy"
        ),
        "Curves": pc.curves(8, 2, trials=1, epochs=1, samples=200, progress=False),
        "Dataset": runs.data[0],
        "Dnf": pc.Dnf([[[0], [1]], [[0, ~2]]], variables=3),
        "EarlyStopping": pc.EarlyStopping(),
        "Locations": pc.locations(runs),
        "Log": pc.watch(runs.module(0)),
        "Networks": runs.start,
        "Optimizer": pc.Optimizer(),
        "Projection": pc.Projection(),
        "Pruner": pc.Pruner(runs.module(0), pc.Schedule("one-shot")),
        "Retrained": tickets.retrain(test=100),
        "Runs": runs,
        "Schedule": pc.Schedule(end=10),
        "Ticket": tickets.ticket(0, "random", 0.5),
        "Tickets": tickets,
        "TruthTable": pc.TruthTable(),
        "found": tickets.found[0],
        "embedding": runs.embedding,
        "settings": runs.settings,
        "experiment": pc.experiments.curves,
        "setting": pc.experiments.Setting("curves", pc.experiments.curves.setting, {}),
        "reported": pc.experiments.curves.reported[0],
    }


def test_claims_and_studies_say_what_they_are_in_one_line(tmp_path):
    study = pytest.importorskip("precode.study")
    known = pc.claims.synthetic_study("planted", formulas=10, hidden=8, clauses=4)
    planned = study.plan(study.StudyConfig.preset("quick"))
    store = study.Store(tmp_path, study.StudyConfig.preset("quick"), planned.cells)
    store.close()
    things = [
        *pc.claims.CLAIMS,
        known,
        known.observations,
        pc.claims.judge(known.observations)["C1"],
        planned,
        planned.cells[0],
        study.CODES,
        study.StudyConfig.preset("quick", methods=["imp"]),
        store,
    ]
    for thing in things:
        text = repr(thing)
        assert text.startswith(type(thing).__name__), text
        assert "\n" not in text, text
        assert " object at 0x" not in text, text
        assert len(text) <= 400, text
    for thing in (pc.claims.CLAIMS[0], known.observations, planned):
        assert "<table" in thing._repr_html_()


def test_every_object_says_what_it_is_in_one_line(things):
    classes = {
        name
        for name in pc.__all__
        if isinstance(item := getattr(pc, name), type) and not issubclass(item, BaseException)
    }
    assert classes <= things.keys()
    for name, thing in things.items():
        text = repr(thing)
        assert "\n" not in text, name
        assert " object at 0x" not in text, name
        assert len(text) <= 400, text
        assert text.startswith(type(thing).__name__), text


def test_tables_are_shown_as_tables_in_notebooks(things):
    for name in ("Codes", "Curves", "Retrained", "Runs", "Ticket", "Tickets"):
        assert "<table" in things[name]._repr_html_(), name


def test_counts_are_those_of_all_outputs(things):
    assert repr(things["Dnf"]) == "Dnf(variables=3, clauses=2+1, width=1..2, negated literals=1, outputs=2)"
    many = pc.Dnf([[[0]], [[1]], [[0, 1]], [[~0]], [[~1]]], variables=2)
    assert "clauses=5 in all" in repr(many)


def test_no_range_is_a_long_number():
    for make in (
        lambda: pc.Dnf.random(seed=2**64),
        lambda: pc.train(pc.Dnf.random(), seed=-1),
        lambda: pc.train(pc.Dnf.random(), epochs=0),
        lambda: pc.Dnf([[2**63]], variables=2),
    ):
        with pytest.raises(pc.PrecodeValueError, match=r"below 2\*\*(63|64|32)$"):
            make()


@pytest.mark.parametrize("room", ROOMS)
def test_completion_shows_functions_and_classes(room):
    place = getattr(pc, room) if room in pc.__all__ else __import__(f"precode.{room}", fromlist=["x"])
    public = {"nulls", "published", "analyses"}
    for name in dir(place):
        item = getattr(place, name)
        assert not isinstance(item, types.ModuleType) or name in public, name
    assert set(place.__all__) <= set(dir(place))


def test_completion_of_the_package():
    rooms = {"bench", "callbacks", "claims", "experiments", "plot", "report", "study", "analyses", "nulls", "published"}
    assert dir(pc) == sorted(pc.__all__)
    modules = {name for name in dir(pc) if isinstance(getattr(pc, name), types.ModuleType)}
    assert modules == rooms
    with pytest.raises(AttributeError, match="nothing"):
        pc.nothing  # noqa: B018


def test_import_leaves_extras_and_lazy_rooms_alone():
    script = (
        "import sys, precode\n"
        "rooms = ('bench', 'callbacks', 'claims', 'experiments', 'plot', 'report', 'study', 'cli')\n"
        "rooms = [f'precode.{name}' for name in rooms]\n"
        "extras = ['matplotlib', 'scipy', 'pyarrow', 'sklearn', 'statsmodels', 'jinja2', 'polars', 'IPython']\n"
        "extras += ['pytorch_lightning', 'transformers']\n"
        "print([name for name in rooms + extras if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_module_can_be_imported():
    names = [module.name for module in pkgutil.walk_packages(pc.__path__, "precode.")]
    of_extras = ["precode.callbacks.lightning", "precode.callbacks.trainer"]
    assert set(of_extras) < set(names)
    for name in set(names) - {*of_extras, "precode.__main__"}:
        importlib.import_module(name)


def test_indexing_errors_are_of_both_kinds():
    assert issubclass(pc.PrecodeIndexError, IndexError)
    assert issubclass(pc.PrecodeIndexError, pc.PrecodeValueError)
