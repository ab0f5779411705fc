"""A study that is killed and run again ends with the bytes of one that was not."""

import multiprocessing
import os
import random
import signal
import sqlite3
import sys
import time

import pytest

import precode as pc
import study_children
from precode.study import Study

KILLS = int(os.environ.get("PRECODE_KILLS", "6"))
"""Kills at random moments; set it higher for a thorough trial."""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no forkserver on this platform")


@pytest.fixture(scope="module")
def start():
    """Starts a function in a child made by `fork` from a process that has imported precode and computed nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["precode.study"])

    def start(function, *arguments):
        process = context.Process(target=function, args=arguments)
        process.start()
        return process

    def finish(function, *arguments):
        process = start(function, *arguments)
        process.join()
        return process.exitcode

    start.finish = finish
    return start


def contents(folder):
    """Everything that a study promises: its files by name, its tables, and what its database says of them."""
    Study(folder).export(folder / "tables")
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("study.sqlite")
    }
    database = sqlite3.connect(folder / "study.sqlite")
    tables = ("study", "kinds", "cells", "jobs", "files")
    rows = [database.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in tables]
    database.close()
    return files, rows


def finished(folder):
    """Cells that a killed run has finished, if it came as far as its first."""
    try:
        return Study(folder).finished
    except pc.PrecodeFileError as error:
        if "nothing has been computed yet" in str(error) or "No such file" in str(error):
            return 0
        raise


def wait_for(folder):
    """Waits until a run makes its folder, so that no kill falls on the start of its process; returns when that was."""
    while not folder.exists():
        time.sleep(0.001)
    return time.perf_counter()


def test_kills_at_random_moments(tmp_path, start):
    start.finish(study_children.compute, tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    process = start(study_children.compute, tmp_path / "timed")
    began = wait_for(tmp_path / "timed")
    process.join()
    lasted = time.perf_counter() - began
    draw = random.Random(1)
    counts = []
    for number in range(KILLS):
        folder = tmp_path / str(number)
        process = start(study_children.compute, folder)
        wait_for(folder)
        process.join(draw.uniform(0, lasted))
        process.kill()
        process.join()
        counts.append(finished(folder))
        assert start.finish(study_children.compute, folder) == 0
        assert contents(folder) == expected, f"killed with {counts[-1]} of 8 cells finished"
    print(f"{KILLS} kills within {lasted:.2f} s, with these numbers of 8 cells finished: {sorted(counts)}")
    assert 0 < sum(counts) < 8 * KILLS


def test_a_kill_at_every_step_of_writing(tmp_path, start):
    study_children.act(tmp_path / "whole", 1)
    expected = contents(tmp_path / "whole")
    step = 0
    while start.finish(study_children.die_at_step, tmp_path / str(step), 1, step) == -signal.SIGKILL:
        assert finished(tmp_path / str(step)) == (step == 2 * 3 + 12 + 8)
        study_children.act(tmp_path / str(step), 1)
        assert contents(tmp_path / str(step)) == expected, f"killed before step {step}"
        step += 1
    assert contents(tmp_path / str(step)) == expected
    # A file is written, renamed, its folder synced: the configuration and a result. Making the database: begin, seven
    # tables, study, kinds, cells, commit. Noting the job: begin, job, file, seal, timing (twice), failure, commit.
    assert step == 2 * 3 + 12 + 8


def test_killed_again_and_again(tmp_path, start):
    study_children.act(tmp_path / "whole", 9)
    counts = []
    for _ in range(5):
        start.finish(study_children.die_after_two_jobs, tmp_path / "study", 9)
        counts.append(finished(tmp_path / "study"))
    assert counts == [2, 4, 6, 8, 9]
    assert contents(tmp_path / "study") == contents(tmp_path / "whole")
