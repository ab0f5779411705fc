"""Studies under attack: flipped bits, names of other files, full disks, and cells that fail in every way."""

import errno
import multiprocessing
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import NamedTuple

import pytest

import precode as pc
import study_children
from precode._internal.cells import digest
from precode._internal.files import write_atomically
from precode.study import Study, StudyConfig, results, run
from precode.study.contents import COLUMNS, row_digest, seal
from precode.study.folder import DATABASE
from study_kinds import CONFIG, FAILURES, acting, overflowing, parting

FLIPS = int(os.environ.get("PRECODE_FLIPS", "600"))
"""Bits flipped in all; set it higher for a thorough trial."""

NOBODY = "0123456789abcdef" * 4


def go(out, kinds, config=CONFIG, **options):
    return run(config, out, kinds=kinds, **{"progress": False, **options})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a study that has grown, with a failure."""
    folder = tmp_path_factory.mktemp("attack") / "study"
    with pytest.warns(UserWarning, match="1 of 3 cells failed"):
        go(folder, parting(2, ["mute"]), retries=0)
    with pytest.warns(UserWarning, match="1 of 4 cells failed"):
        go(folder, parting(3, ["mute"]), replace(CONFIG, epochs=7), retries=0)
    return folder


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder of a study as a killed process leaves it, with the log of its database."""
    made = tmp_path_factory.mktemp("killed")

    def copy(done, total):
        if done == 3:
            shutil.copytree(made / "running", made / "study")

    go(made / "running", parting(3), progress=copy)
    assert (made / "study" / f"{DATABASE}-wal").stat().st_size > 0
    return made / "study"


class Seen(NamedTuple):
    """What can be read of a study: cells that are finished, and digests of its results and of all."""

    finished: int
    results: str
    all: str


def everything(folder):
    """All that can be read of a study."""
    study = Study(folder)
    seen = [study.config.to_json(), study.rules, study.seal, study.planned, study.tables]
    seen += [study.table(name).to_csv() for name in study.tables]
    for settings, arrays in study.arrays("squares"):
        seen.append((settings, {name: (array.dtype, array.tolist()) for name, array in arrays.items()}))
    notes = [study.failures.to_csv(), study.timings.to_csv()]
    return Seen(study.finished, digest(repr(seen)), digest(repr([*seen, *notes])))


def refused(folder, action):
    """What an action gives, or None where it is refused with the name of the folder."""
    try:
        return action()
    except pc.PrecodeFileError as error:
        if str(folder) not in str(error):
            raise AssertionError(f"no folder is named: {error}") from error
        return None


def flipped(path, draw):
    """The bytes of a file with one bit changed."""
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(data)


def test_no_flipped_bit_goes_unnoticed_where_it_matters(whole, tmp_path):
    expected = everything(whole)
    draw = random.Random(7)
    paths = [whole / "study.json", *sorted((whole / "data").iterdir())]
    # Most pages of the database are read; a bit of the others changes nothing.
    chosen = [whole / DATABASE] * (FLIPS // 2) + [paths[number % len(paths)] for number in range(FLIPS // 2)]
    noticed = 0
    for number, path in enumerate(chosen):
        data, before = flipped(path, draw), path.read_bytes()
        try:
            path.write_bytes(data)
            seen = refused(whole, lambda: everything(whole))
            if number % 20 == 0:  # whoever goes on with it
                folder = shutil.copytree(whole, tmp_path / str(number))
                again = replace(parting(3)[0], compute=None)
                refused(folder, lambda folder=folder, again=again: go(folder, [again], replace(CONFIG, epochs=7)))
        finally:
            path.write_bytes(before)
        noticed += seen is None
        assert seen in (None, expected), (path.name, number)
    print(f"{FLIPS} bits flipped: {noticed} noticed, {FLIPS - noticed} without any effect")
    assert noticed > FLIPS // 2
    assert everything(whole) == expected


def test_a_flipped_bit_of_the_log_loses_one_job_at_most(killed):
    expected = everything(killed)
    draw = random.Random(8)
    path = killed / f"{DATABASE}-wal"
    lost = 0
    for _ in range(FLIPS // 6):
        before = path.read_bytes()
        path.write_bytes(flipped(path, draw))
        try:
            seen = refused(killed, lambda: everything(killed))
        finally:
            path.write_bytes(before)
            (killed / f"{DATABASE}-shm").unlink(missing_ok=True)
        if seen not in (None, expected):
            # The state before the last job was noted, which is then computed again.
            assert (seen.finished, expected.finished) == (2, 3)
            lost += 1
    print(f"{FLIPS // 6} bits of the log flipped: {lost} times one job was lost")
    assert everything(killed) == expected


def connect(folder):
    return sqlite3.connect(folder / DATABASE, isolation_level=None)


@pytest.mark.parametrize("table", COLUMNS)
def test_every_value_of_every_table_is_sealed(whole, tmp_path, table):
    for column in COLUMNS[table]:
        for number, value in enumerate(("'x'", "-1", "NULL", "x'ff'", f"{column} || ' '")):
            folder = shutil.copytree(whole, tmp_path / f"{column}{number}")
            database = connect(folder)
            before = database.execute(f"SELECT * FROM {table}").fetchall()
            try:
                database.execute(f"UPDATE {table} SET {column} = {value}")
                changed = database.execute(f"SELECT * FROM {table}").fetchall() != before
            except sqlite3.IntegrityError:
                changed = False  # the database itself refuses it
            finally:
                database.close()
            assert not changed or refused(folder, lambda folder=folder: everything(folder)) is None, (column, value)
    statements = [f"DELETE FROM {table}", f"DROP TABLE {table}", f"ALTER TABLE {table} RENAME TO other"]
    statements += ["CREATE TABLE more (x)", f"CREATE VIEW strange AS SELECT * FROM {table}"]
    if table not in ("failures", "timings"):  # these are no results
        statements.append(f"INSERT INTO {table} SELECT * FROM {table}")
    for number, statement in enumerate(statements):
        folder = shutil.copytree(whole, tmp_path / str(number))
        database = connect(folder)
        try:
            database.execute(statement)
        except sqlite3.IntegrityError:
            continue
        finally:
            database.close()
        seen = refused(folder, lambda folder=folder: everything(folder))
        if statement.startswith("DELETE") and table in ("failures", "timings"):
            assert seen.results == everything(whole).results
        else:
            assert seen is None, statement


def reseal(folder):
    """What an attacker does after an edit: makes the seal fit again."""
    database = connect(folder)
    (config, previous, rules) = database.execute("SELECT config, previous, rules FROM study").fetchone()
    rows = [("study", config, previous, rules)]
    for table in ("kinds", "cells", "jobs", "files"):
        rows += [(table, *row) for row in database.execute(f"SELECT * FROM {table}")]
    database.execute("UPDATE study SET seal = ?", (seal(rows),))
    database.close()


VICTIM = "victim.txt"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("name", value) for value in ("../../../victim", "/etc/victim", "x/../../victim", "", "..", "a\0b")),
        *(("ending", value) for value in ("txt", "/../../victim.txt", "parquet/../../../victim.txt", "")),
        *(("cell", value) for value in ("../../../victim.txt", "/tmp/victim.txt", "{victim}", NOBODY)),
        *(("job", value) for value in ("../../../victim.txt", "{victim}", "0" * 16)),
    ],
)
@pytest.mark.parametrize("repair", [False, True])
def test_no_name_in_the_database_leads_out_of_the_folder(whole, tmp_path, column, value, repair):
    folder = shutil.copytree(whole, tmp_path / "a" / "b" / "study")
    victims = [tmp_path / VICTIM, tmp_path / "a" / VICTIM, tmp_path / "a" / "b" / VICTIM, folder / VICTIM]
    for victim in victims:
        victim.write_text("mine")
    database = connect(folder)
    database.execute(f"UPDATE files SET {column} = ? WHERE rowid = 1", (value.format(victim=victims[0]),))
    database.close()
    reseal(folder)
    for _ in range(2):
        with pytest.raises(pc.PrecodeFileError, match="a file is listed"):
            go(folder, parting(3, ["mute"]), replace(CONFIG, epochs=7), repair=repair)
        with pytest.raises(pc.PrecodeFileError, match="a file is listed"):
            Study(folder)
    assert [victim.read_text() for victim in victims] == ["mine"] * 4


def test_links_are_not_followed(tmp_path):
    folder, victim = tmp_path / "study", tmp_path / VICTIM
    go(folder, parting(2))
    expected = everything(folder).results
    victim.write_text("mine")
    first, second, *_ = sorted((folder / "data").iterdir())
    content = second.read_bytes()
    first.unlink()
    first.symlink_to(victim)
    second.unlink()
    second.symlink_to(tmp_path / "copy")
    (tmp_path / "copy").write_bytes(content)  # the right bytes, but elsewhere
    for path in (first, second):
        with pytest.raises(pc.PrecodeFileError, match="is no file of its own"):
            next(file for file in Study(folder)._files if file.file == path.name).read(folder)
    with pytest.raises(pc.PrecodeFileError, match="is no file of its own"):
        go(folder, parting(2))
    go(folder, parting(2), repair=True)
    assert everything(folder).results == expected
    assert not first.is_symlink()
    # What lies about in the folder of results under a name of ours goes, but not what it points to.
    stray = folder / "data" / first.name.replace("products", "more").replace("squares", "more")
    stray.symlink_to(victim)
    go(folder, parting(2))
    assert not stray.is_symlink()
    assert (victim.read_text(), (tmp_path / "copy").read_bytes()) == ("mine", content)


@pytest.mark.parametrize("name", ["data", "study.sqlite", "study.json", "study.lock"])
def test_a_folder_whose_own_files_are_elsewhere_is_refused(tmp_path, name):
    folder = tmp_path / "study"
    go(folder, parting(2))
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for action in (lambda: go(folder, parting(2), repair=True), lambda: Study(folder)):
        with pytest.raises(pc.PrecodeFileError, match=f"{name} is a link: a study keeps its files in its own folder"):
            action()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_folder_in_place_of_a_result_is_named(tmp_path):
    folder = tmp_path / "study"
    go(folder, parting(2))
    first = min((folder / "data").iterdir())
    first.unlink()
    first.mkdir()
    with pytest.raises(pc.PrecodeFileError, match="is no file of its own"):
        go(folder, parting(2))
    with pytest.raises(pc.PrecodeFileError, match="is a folder: move it elsewhere"):
        go(folder, parting(2), repair=True)
    first.rmdir()
    assert go(folder, parting(2), repair=True).finished == 2


def test_failures_with_a_forged_digest_change_no_result(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "study")
    database = connect(folder)
    (row,) = database.execute("SELECT * FROM failures").fetchall()
    forged = (*row[:3], "nothing", row[4])
    values = (forged[3], row_digest("failures", *forged))
    database.execute("UPDATE failures SET error = ?, sha256 = ?", values)
    database.close()
    assert everything(folder).results == everything(whole).results


# ---------------------------------------------------------------- disks


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of files on this platform")
@pytest.mark.parametrize("allowed", [3_000, 40_000])
def test_a_limit_of_the_length_of_files_is_said(tmp_path, allowed):
    folder, thousands = tmp_path / "study", (1, 1, 20)
    context = multiprocessing.get_context("forkserver" if hasattr(os, "fork") else "spawn")
    process = context.Process(target=study_children.fill, args=(folder, allowed, thousands))
    process.start()
    process.join()
    said = folder.with_suffix(".txt").read_text()
    assert "cannot be written" in said
    assert "what is finished is kept" in said
    assert "damaged" not in said
    done = go(folder, overflowing(*thousands))
    go(tmp_path / "whole", overflowing(*thousands))
    assert done.table("noise").equals(Study(tmp_path / "whole").table("noise"))


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 KiB, where this process may make one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    command = [mount or "", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if not mount or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this process may not make a disk")
    yield place
    subprocess.run([shutil.which("umount"), str(place)], check=True)


@pytest.mark.parametrize("room", [0, 8, 24, 80])
def test_a_full_disk_is_said_and_nothing_is_lost(small_disk, room):
    folder = small_disk / "study"
    filler = small_disk / "filler"
    go(folder, overflowing(1))
    free = shutil.disk_usage(small_disk).free
    filler.write_bytes(bytes(max(free - room * 1024, 0)))
    with pytest.raises(pc.PrecodeFileError, match=r"No space left on device\): free some space"):
        go(folder, overflowing(1, 1, 1, 20))
    assert len(Study(folder).table("noise")) >= 1000
    filler.unlink()
    assert go(folder, overflowing(1, 1, 1)).finished == 3


def test_a_disk_that_fails_is_not_called_damaged(tmp_path, monkeypatch):
    go(tmp_path / "study", acting(2, {}))

    def fail(*arguments):
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(results, "read_contents", fail)
    with pytest.raises(pc.PrecodeFileError, match=r"cannot be read \(Input/output error\)"):
        Study(tmp_path / "study")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(100, 100, 0))
    with pytest.raises(pc.PrecodeFileError, match=r"\(No space left on device\)"):
        Study(tmp_path / "study")


def test_a_folder_that_cannot_be_synced_is_written_all_the_same(tmp_path, monkeypatch):
    opened, synced = os.open, os.fsync

    def refuse(path, *arguments, **options):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)  # as on Windows
    write_atomically(tmp_path / "a", "x")
    monkeypatch.undo()

    def sync(handle):
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        synced(handle)

    monkeypatch.setattr(os, "fsync", sync)  # as on some network file systems
    write_atomically(tmp_path / "b", "x")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "x", "b": "x"}


def test_a_killed_study_is_read_from_a_folder_that_cannot_be_written(killed, tmp_path, monkeypatch):
    folder = shutil.copytree(killed, tmp_path / "study")
    expected = everything(folder)
    (folder / f"{DATABASE}-shm").unlink(missing_ok=True)
    connected = sqlite3.connect

    def connect(path, **options):
        if "mode=ro" in str(path) and str(folder) in str(path):
            raise sqlite3.OperationalError("unable to open database file")
        return connected(path, **options)

    monkeypatch.setattr(sqlite3, "connect", connect)
    before = {path.name for path in folder.iterdir()}
    assert everything(folder) == expected
    assert {path.name for path in folder.iterdir()} == before


# ---------------------------------------------------------------- failing cells


def pool():
    return ProcessPoolExecutor(2, mp_context=get_context("spawn"))


@pytest.mark.parametrize("where", ["here", "threads", "processes"])
def test_a_cell_fails_alone_whatever_it_raises(tmp_path, where):
    raises = [name for name in FAILURES if (where, name) != ("here", "interrupt")]  # here that is Ctrl-C
    executor = {"here": None, "threads": lambda: ThreadPoolExecutor(2), "processes": pool}[where]
    with pytest.warns(UserWarning, match=f"{len(raises)} of {len(raises) + 3} cells failed"):
        study = go(tmp_path / "study", parting(3, raises), executor=executor, retries=1)
    assert study.finished == 3
    assert len(study.table("products")) == 18
    assert study.failures["attempts"].eq(2).all()
    errors = dict(zip(raises, study.failures["error"], strict=True))
    assert errors["mute"] == "MuteError: (its text cannot be had)"
    assert errors["exit"] == "SystemExit: 3"
    assert errors["surrogate"] == r"ValueError: a\ud800b\0c"
    assert errors["cancelled"].startswith("CancelledError")
    assert len(errors["long"]) == 10_000
    study.failures.to_csv().encode()
    assert study.failures["trace"].str.contains("in parted").sum() >= len(raises) - 1


def test_an_executor_that_returns_something_else_fails_its_job(tmp_path):
    class Wrong(ThreadPoolExecutor):
        def submit(self, fn, /, *arguments, **options):
            return super().submit(lambda: "a result")

    with pytest.warns(UserWarning, match=r"2 of 2 cells failed.*the executor returned 'a result'"):
        go(tmp_path, acting(2, {}), executor=Wrong(1), retries=0)


def test_a_study_of_another_folder_is_told_by_its_configuration(tmp_path):
    go(tmp_path / "study", acting(2, {}))
    text = (tmp_path / "study" / "study.json").read_text()
    (tmp_path / "study" / "study.json").write_text(text.replace('"seed":3', '"seed":4'))
    assert StudyConfig.from_json(text.replace('"seed":3', '"seed":4')).seed == 4
    for action in (lambda: Study(tmp_path / "study"), lambda: go(tmp_path / "study", acting(2, {}))):
        with pytest.raises(pc.PrecodeFileError, match=r"study\.json is not of the study in study\.sqlite"):
            action()
