"""Curves, their command line and their figures."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from matplotlib import pyplot as plt

import precode as pc
from precode._internal.files import write_atomically
from precode._internal.statistics import interval
from precode.cli import main

COLUMNS = [
    "hidden", "clauses", "trials", "embedding", "train_bce", "train_error", "test_error",
    "4P_positive", "3P1N_positive", "2P2N_positive", "3N1P_positive", "4N_positive",
    "4P_negative", "3P1N_negative", "2P2N_negative", "3N1P_negative", "4N_negative",
    "code_size", "overlap", "clauses_without_code", "positive_rows", "seconds",
    "random_4P_positive", "epochs",
]  # fmt: skip


@pytest.fixture(scope="module")
def small():
    return pc.curves([8, 16], [2, 6], trials=3, epochs=3, samples=2000, progress=False)


def test_columns_and_means(small):
    assert list(small.table) == COLUMNS
    assert small.table[["hidden", "clauses"]].to_numpy().tolist() == [[8, 2], [8, 6], [16, 2], [16, 6]]
    assert len(small.trials) == 12
    patterns = [name for name in COLUMNS if name.endswith(("_positive", "_negative"))][:10]
    np.testing.assert_allclose(small.table[patterns].sum(axis=1), small.table["hidden"])
    np.testing.assert_allclose(small.table["code_size"], small.table["4P_positive"])
    means = small.trials.groupby(["hidden", "clauses"])["4P_positive"].mean().to_numpy()
    np.testing.assert_allclose(small.table["4P_positive"], means)
    assert (small.done, small.planned) == (4, 4)


def test_a_point_is_the_same_whatever_else_is_run(small):
    alone = pc.curves(16, 2, trials=3, epochs=3, samples=2000, progress=False)
    columns = [name for name in COLUMNS if name != "seconds"]
    pd.testing.assert_frame_equal(
        alone.table[columns],
        small.table.query("hidden == 16 and clauses == 2")[columns].reset_index(drop=True),
    )


def test_a_trial_can_be_reproduced_by_hand(small):
    stream = (16 << 40) + (6 << 20) + 1
    task = pc.Dnf.random(clauses=6, seed=0, index=stream)
    runs = pc.train(task, hidden=16, epochs=3, samples=2000, indices=[stream])
    expected = small.trials.query("hidden == 16 and clauses == 6 and trial == 1").iloc[0]
    assert runs.codes().summary()["4P_positive"].item() == expected["4P_positive"]
    assert runs.evaluate()["loss"].item() == expected["train_bce"]


def test_training_builds_codes_beyond_chance():
    table = pc.curves(32, [4], trials=10, epochs=4, samples=8000, progress=False).trials
    assert (table["4P_positive"] > 2 * table["random_4P_positive"]).all()


def test_negated_literals_shift_the_pattern():
    point = pc.curves(32, 4, trials=4, epochs=6, samples=8000, negated=1, progress=False).table.iloc[0]
    assert point["code_size"] > 2 * point["random_4P_positive"]
    assert point["3P1N_positive"] > point["4P_positive"]


def test_an_interrupt_is_raised_and_brings_the_finished_points():
    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="2 of 3 cells are finished") as caught:
        pc.curves([8], [2, 3, 4], trials=1, epochs=1, samples=200, progress=stop)
    result = caught.value.finished
    assert result.table["clauses"].tolist() == [2, 3]
    assert (result.done, result.planned) == (2, 3)
    assert "only 2 of 3 cells finished" in repr(result)
    whole = pc.curves([8], [2, 3], trials=1, epochs=1, samples=200, progress=False)
    columns = [name for name in COLUMNS if name != "seconds"]
    pd.testing.assert_frame_equal(result.table[columns], whole.table[columns])


def test_an_interrupt_before_the_first_point_brings_nothing(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("precode.experiments.founding_cells.train", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        pc.curves(8, 2, trials=1, epochs=1, samples=200, progress=False)
    assert caught.value.finished is None


def test_dynamics_starts_at_chance_and_builds_codes():
    table = pc.dynamics(trials=6, moments=[0, 0.2, 1, 2], samples=8000)
    means = table.groupby("epoch").mean(numeric_only=True)
    assert means.index.tolist() == [0, 0.2, 1, 2]
    # Random signs on about 16 positive rows: one in sixteen shows 4P.
    assert 0.4 < means.loc[0, "4P_positive"] < 1.8
    assert means["4P_positive"].is_monotonic_increasing
    assert means["train_bce"].is_monotonic_decreasing
    assert means.loc[0, "train_bce"] == pytest.approx(0.693, abs=0.05)


def test_published_values_are_shipped():
    points = pc.published.curves()
    assert len(points) == 30
    assert points.query("hidden == 64 and clauses == 2")["4P_positive"].item() == 14.2
    assert points.query("hidden == 16 and clauses == 64")["train_error"].item() == 0.12
    assert len(pc.published.negative_rows()) == 5
    assert pc.published.dynamics()["train_bce"].tolist() == [0.695, 0.615, 0.54, 0.47, 0.018]
    assert "arXiv 2504.08842" in pc.published.citation()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(hidden=[]), "hidden"),
        (dict(hidden=0), "hidden = 0"),
        (dict(clauses=[4, -1]), "clauses"),
        (dict(trials=0), "trials = 0"),
        (dict(hidden=2**24), "hidden = 16777216"),
        (dict(epochs=0), "epochs = 0"),
        (dict(samples=0), "samples = 0"),
        (dict(seed=-1), "seed = -1"),
        (dict(variables=0), "variables = 0"),
        (dict(width=0), "width = 0"),
        (dict(negated=5), "negated = 5"),
        (dict(embedding="fourier"), "'fourier'"),
        (dict(clauses=[4, 10**6]), "distinct"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(pc.PrecodeValueError, match=message):
        pc.curves(**{**dict(hidden=8, clauses=2, trials=1, epochs=1, progress=False), **options})


@pytest.mark.parametrize("moments", [[], [-1.0], [np.nan], [np.inf], np.array([-1])])
def test_bad_moments_are_refused(moments):
    with pytest.raises(pc.PrecodeValueError, match="moments"):
        pc.dynamics(moments=moments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pc.curves("8", 2), "hidden must be integers, not str"),
        (lambda: pc.curves(8, [2.0]), "clauses must be integers, not float"),
        (lambda: pc.curves(8, 2, trials=True), "trials must be an integer, not bool"),
        (lambda: pc.curves(8, 2, seed=None), "seed must be an integer, not NoneType"),
        (lambda: pc.dynamics(moments="1"), "moments must be numbers, not str"),
        (lambda: pc.dynamics(moments=[None]), "moments must be numbers, not NoneType"),
        (lambda: pc.dynamics(moments=[True]), "moments must be numbers, not bool"),
        (lambda: pc.dynamics(trials=1.5), "trials must be an integer, not float"),
    ],
)
def test_wrong_types_are_named(make, message):
    with pytest.raises(pc.PrecodeTypeError, match=message):
        make()


def test_numpy_numbers_and_generators_are_taken():
    options = dict(trials=np.int64(1), epochs=np.int64(1), samples=np.int64(200), seed=np.uint64(0), progress=False)
    table = pc.curves(np.int64(8), np.array([2, 3]), **options).table
    assert table["clauses"].tolist() == [2, 3]
    assert pc.curves((rows for rows in [8]), np.array([2]), **options).table["hidden"].tolist() == [8]
    moments = pc.dynamics(hidden=8, moments=np.array([0, 0.5, 1]), trials=1, samples=200)
    assert moments["epoch"].tolist() == [0, 0.5, 1]


# --- command line ---------------------------------------------------------------------------------------

ARGUMENTS = ["curves", "--hidden", "8", "--clauses", "2,3", "--trials", "2", "--epochs", "1"]


def test_the_json_file_is_the_printed_table(tmp_path):
    file = tmp_path / "curves.json"
    result = CliRunner().invoke(main, [*ARGUMENTS, "--json", str(file), "--figures", str(tmp_path)])
    assert result.exit_code == 0, result.output
    rows = json.loads(file.read_text())
    header, *lines = result.stdout.splitlines()
    assert header.split() == COLUMNS == list(rows[0])
    for line, row in zip(lines, rows, strict=True):
        for printed, value in zip(line.split(), row.values(), strict=True):
            assert printed == str(value) or float(printed) == pytest.approx(
                np.nan if value is None else value, rel=1e-3, nan_ok=True
            )
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "4P_positive.png", "train_error.png", "3N1P_negative.png", "dynamics.png",
    }  # fmt: skip
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hidden", "a"], "'a': expected numbers of at least 1"),
        (["--hidden", "8,0"], "'8,0'"),
        (["--embedding", "fourier"], "identity, hadamard, hadamard-raw, random, projection-M"),
        (["--engine", "gpu"], "'auto', 'fused', 'libtorch'"),
        (["--trials", "0"], "0 is not in the range x>=1"),
        (["--negated", "7"], "negated = 7"),
        (["--json", "/nowhere/there/f.json"], "does not exist"),
        (["--hiden", "8"], "No such option"),
    ],
)
def test_bad_flags_are_refused_with_what_is_allowed(arguments, message):
    result = CliRunner().invoke(main, [*ARGUMENTS, *arguments])
    assert result.exit_code != 0
    assert message in result.stderr


def test_help_explains_every_flag():
    result = CliRunner().invoke(main, ["curves", "--help"])
    for flag in (
        "hidden",
        "clauses",
        "trials",
        "epochs",
        "embedding",
        "negated",
        "seed",
        "engine",
        "json",
        "figures",
    ):
        assert f"--{flag}" in result.output


def test_ctrl_c_on_the_command_line_keeps_the_table(tmp_path):
    file = tmp_path / "curves.json"
    many = ",".join(map(str, range(2, 300)))
    command = [sys.executable, "-m", "precode", "curves", "--hidden", "8", "--clauses", many, "--trials", "4"]
    terminal, errors_to = pty.openpty()  # a terminal, for which there is a bar that says when the first point is done
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    process = subprocess.Popen(
        [*command, "--json", str(file)],
        stdout=subprocess.PIPE,
        stderr=errors_to,
        env={**os.environ, "PYTHONWARNINGS": "default"},
        text=True,
    )
    os.close(errors_to)
    errors = ""
    while not re.search(r"[1-9][\d.]*/298", errors):
        errors += os.read(terminal, 4096).decode(errors="replace")
    process.send_signal(signal.SIGINT)
    with suppress(OSError):  # how a terminal says that the other end is closed
        while part := os.read(terminal, 4096):
            errors += part.decode(errors="replace")
    os.close(terminal)
    table, _ = process.communicate(timeout=20)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    assert 0 < len(json.loads(file.read_text())) < 298
    assert len(table.splitlines()) < 298


def test_files_are_written_whole_with_the_mode_of_new_files(tmp_path):
    path = tmp_path / "a.json"
    before = os.umask(0o027)
    try:
        write_atomically(path, "größer")
        assert path.stat().st_mode & 0o777 == 0o640
        write_atomically(path, b"\x00")
    finally:
        os.umask(before)
    assert path.read_bytes() == b"\x00"
    path.chmod(0o600)
    write_atomically(path, b"\x00")
    assert path.stat().st_mode & 0o777 == 0o600  # that of the file before it
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_atomically(tmp_path / "folder", "x")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(OSError, match="pipe"):
            write_atomically(tmp_path / "pipe", "x")
        (tmp_path / "pipe").unlink()
    assert {item.name for item in tmp_path.iterdir()} == {"a.json", "folder"}


def test_figures_that_cannot_be_written_are_refused_before_any_work(tmp_path, monkeypatch):
    def worked(*_, **__):
        raise AssertionError("worked")

    monkeypatch.setattr("precode.experiments.founding_curves.curves", worked)
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "below", "/proc/none"):
        result = CliRunner().invoke(main, [*ARGUMENTS, "--figures", str(folder)])
        assert result.exit_code == 1
        assert "no files can be written there" in result.stderr


def test_ctrl_c_while_drawing_keeps_what_was_written(tmp_path, monkeypatch):
    def interrupted(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr("precode.experiments.founding_curves.dynamics", interrupted)
    file = tmp_path / "curves.json"
    result = CliRunner().invoke(main, [*ARGUMENTS, "--json", str(file), "--figures", str(tmp_path)])
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    assert len(json.loads(file.read_text())) == 2
    assert {path.name for path in tmp_path.iterdir()} == {
        "curves.json", "4P_positive.png", "train_error.png", "3N1P_negative.png",
    }  # fmt: skip
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.glob("*.png"))


# --- figures --------------------------------------------------------------------------------------------


def test_figures_draw_on_the_given_axes_and_return_them(small):
    task = pc.Dnf.random(clauses=4, seed=0)
    codes = pc.train([task] * 2, hidden=8, epochs=1, samples=500).codes()
    moments = pc.dynamics(trials=2, moments=[0, 1], samples=500)
    compared = pd.DataFrame({"method": ["a", "a:invert"], "density": 0.5, "accuracy": 0.9, "dense_accuracy": 1.0})
    for draw in (
        lambda ax: small.plot(ax=ax),
        lambda ax: small.plot("train_error", ax=ax),
        lambda ax: pc.plot.dynamics(moments, ax=ax),
        lambda ax: pc.plot.weights(codes, 1, ax=ax),
        lambda ax: pc.plot.channels(codes, 1, ax=ax),
        lambda ax: pc.plot.tickets(compared, ax=ax),
    ):
        figure, ax = plt.subplots()
        assert draw(ax) is ax
        assert ax.has_data()
        figure.canvas.draw()
        plt.close(figure)
        own = draw(None)
        assert own.has_data()
        plt.close(own.figure)
    with pytest.raises(pc.PrecodeValueError, match="no column '5P'"):
        small.plot("5P")
    with pytest.raises(pc.PrecodeValueError, match="5P"):
        pc.plot.dynamics(moments, ("5P",))
    with pytest.raises(pc.PrecodeValueError, match="no column 'recovery'"):
        pc.plot.tickets(compared, "recovery")


def test_the_sorted_heat_map_shows_every_code():
    task = pc.Dnf([[0, 1, 2, 3], [3, 5, 6, 7]], variables=10)
    codes = pc.train(task, hidden=12, epochs=20, samples=2000).codes()
    ax = pc.plot.weights(codes)
    columns = [int(label.get_text()) for label in ax.get_xticklabels()]
    rows = [int(label.get_text()) for label in ax.get_yticklabels()]
    assert columns == [0, 1, 2, 3, 5, 6, 7, 4, 8, 9]
    framed = np.zeros((12, 10), dtype=int)
    for patch in ax.patches:
        row, first = round(patch.get_y() + 0.5), round(patch.get_x() + 0.5)
        framed[rows[row], columns[first : first + round(patch.get_width())]] += 1
    expected = np.zeros_like(framed)
    for clause, row in zip(*np.nonzero(codes.channels()[0]), strict=True):
        expected[row, list(task.clauses[clause])] += 1
    np.testing.assert_array_equal(framed, expected)
    assert expected.any()
    plt.close(ax.figure)


def test_tickets_are_drawn_as_means_and_intervals_over_formulas():
    rng = np.random.default_rng(0)
    names = [f"method-{number}" for number in range(12)]
    index = pd.MultiIndex.from_product([[*names, "method-1:invert"], [0.5, 0.25, 0.1], range(5)])
    table = index.to_frame(index=False, name=["method", "density", "formula"])
    table["accuracy"], table["dense_accuracy"] = rng.random(len(table)), 0.75
    table["recovery_family"] = np.where(table["formula"] == 4, np.nan, table["accuracy"])
    for value, formulas in (("accuracy", 5), ("recovery_family", 4)):
        ax = pc.plot.tickets(table, value)
        lines = {line.get_label(): line for line in ax.get_lines()}
        assert ("dense networks" in lines) == (value == "accuracy")
        for band, name in zip(ax.collections, [*names, "method-1:invert"], strict=True):
            for density in (0.5, 0.25, 0.1):
                values = table[(table["method"] == name) & (table["density"] == density)][value].to_numpy()[:formulas]
                drawn = dict(zip(*lines[name].get_data(), strict=True))[density]
                assert drawn == pytest.approx(values.mean())
                corners = band.get_paths()[0].vertices
                heights = corners[np.isclose(corners[:, 0], density), 1]
                assert (heights.min(), heights.max()) == pytest.approx(interval(values))
        styles = {(lines[name].get_color(), lines[name].get_marker()) for name in names}
        assert len(styles) == len(names)
        assert lines["method-1:invert"].get_color() == lines["method-1"].get_color()
        assert lines["method-1:invert"].get_linestyle() != lines["method-1"].get_linestyle()
        assert ax.get_xlim()[0] > ax.get_xlim()[1]
        plt.close(ax.figure)


def test_published_points_are_drawn_where_they_are_given(small):
    labels = lambda ax: {text.get_text() for text in ax.get_legend().get_texts()}  # noqa: E731
    alone = pc.plot.curves(small.trials)
    assert "published" not in labels(alone)
    beside = pc.plot.curves(small.trials, published=pc.published.curves())
    assert labels(beside) == labels(alone) | {"published"}
    crosses = [line for line in beside.get_lines() if line.get_marker() == "x" and len(line.get_xdata())]
    known = pc.published.curves().query("hidden == 16")
    assert [line.get_ydata().tolist() for line in crosses] == [[], known["4P_positive"].tolist()][1:]
    moments = pc.dynamics(trials=2, moments=[0, 1], samples=500)
    ax = pc.plot.dynamics(moments)
    assert not any("published" in label for label in labels(ax))
    ax = pc.plot.dynamics(moments, published=pc.published.dynamics())
    assert "published (loss: +)" in labels(ax)
    # Published points of something else are none.
    assert "published" not in labels(pc.plot.curves(small.trials, "overlap", published=pc.published.curves()))
    plt.close("all")


def test_legends_stand_outside_the_axes(small):
    task = pc.Dnf.random(clauses=4, seed=0)
    runs = pc.train([task] * 3, hidden=8, epochs=1, samples=500)
    retrained = pc.find_tickets(runs, ["random", "magnitude"], [0.5, 0.25]).retrain(test=100)
    for ax in (
        small.plot(),
        pc.plot.dynamics(pc.dynamics(trials=2, moments=[0, 1], samples=500), published=pc.published.dynamics()),
        pc.plot.tickets(retrained),
        pc.plot.tickets(pd.concat([retrained.table().assign(method=str(number)) for number in range(9)])),
    ):
        ax.figure.canvas.draw()
        legend = ax.get_legend().get_window_extent()
        assert not legend.overlaps(ax.get_window_extent().shrunk(0.99, 0.99)), ax.get_ylabel()
    plt.close("all")


def test_what_cannot_be_drawn_is_refused_in_the_users_words(small):
    runs = pc.train(pc.Dnf.random(clauses=4, seed=0), hidden=8, epochs=1, samples=500)
    tickets = pc.find_tickets(runs, ["random", "snip"], 0.5)
    assert pc.plot.tickets(tickets).get_ylabel() == "epochs of training that finding took"
    assert pc.plot.tickets(tickets, "kept").get_ylabel() == "kept"
    assert pc.plot.tickets(tickets.retrain(test=100)).get_ylabel() == "test accuracy"
    own = pd.DataFrame({"step": [0, 1], "4P_positive": [1.0, 2.0]})
    for draw, error, message in (
        (
            lambda: pc.plot.channels(runs.codes(), 7),
            pc.PrecodeValueError,
            "network = 7: expected an integer from -1 to 0",
        ),
        (lambda: pc.plot.weights(runs.codes(), "a"), pc.PrecodeTypeError, "network must be an integer, not str"),
        (lambda: pc.plot.channels(runs), pc.PrecodeTypeError, "codes must be Codes, not Runs: pass runs.codes"),
        (lambda: pc.plot.dynamics(own), pc.PrecodeValueError, "no column 'epoch', 'train_bce', '2P2N_positive'"),
        (lambda: pc.plot.dynamics(runs), pc.PrecodeTypeError, "table must be a table, not Runs: pass the result of"),
        (lambda: pc.plot.curves(small), pc.PrecodeTypeError, "trials must be a table, not Curves: pass Curves.trials"),
        (
            lambda: pc.plot.curves(small.trials, published=True),
            pc.PrecodeTypeError,
            "published must be a table, not bool",
        ),
        (lambda: pc.plot.curves(small.trials.head(0)), pc.PrecodeValueError, "there are no trials to draw"),
        (lambda: pc.plot.tickets(runs), pc.PrecodeTypeError, "tickets must be a table, Retrained or Tickets, not Runs"),
        (lambda: pc.plot.tickets(tickets, "accuracy"), pc.PrecodeValueError, "no column 'accuracy'"),
    ):
        with pytest.raises(error, match=message):
            draw()
    plt.close("all")


def test_axes_say_our_definition_in_words():
    table = pd.DataFrame({"method": "imp", "formula": [0, 1], "location": 0.1, "family": [0.4, 0.5],
                          "location_permuted": 0.05, "family_permuted": 0.2})  # fmt: skip
    assert pc.plot.recovery(table).get_xlabel().endswith("(our definition)")
    folder = Path(pc.plot.__file__).parent
    assert not [path for path in folder.glob("*.py") if "[ours]" in path.read_text()]
    assert not [path for path in folder.glob("*.py") if "experiments import" in path.read_text()]
    plt.close("all")
