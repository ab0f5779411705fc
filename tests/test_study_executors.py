"""Studies on executors: the same results as in process, and workers may die."""

import os
import signal
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest

import precode as pc
from precode.study import Study, run
from study_kinds import CONFIG, KINDS, acting


def go(out, kinds, **options):
    return run(CONFIG, out, kinds=kinds, **{"progress": False, **options})


def results(folder):
    return {path.name: path.read_bytes() for path in (folder / "data").iterdir()}


def pool(workers=2):
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"))


@pytest.fixture(scope="module")
def in_process(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies") / "in_process"
    go(folder, KINDS)
    return results(folder)


def test_threads_give_the_same(tmp_path, in_process):
    with ThreadPoolExecutor(3) as executor:
        study = go(tmp_path / "study", KINDS, executor=executor)
    assert study.finished == 8
    assert results(tmp_path / "study") == in_process


def test_processes_give_the_same_and_may_be_killed(tmp_path, in_process):
    once = str(tmp_path / "once")
    kinds = (*KINDS, *acting(6, {2: {"kill": True, "once": once}, 4: {"kill": True}}))
    with pytest.warns(UserWarning, match=r'1 of 14 cells failed, such as act {"index":4,"kill":true}: Broken'):
        study = go(tmp_path / "study", kinds, executor=pool, retries=0)
    assert study.table("numbers")["index"].tolist() == [0, 1, 2, 3, 5]
    there = results(tmp_path / "study")
    assert {name: there[name] for name in in_process} == in_process


def test_an_executor_that_is_not_replaced_is_named_and_the_study_goes_on_later(tmp_path):
    once = str(tmp_path / "once")
    kinds = acting(6, {3: {"kill": True, "once": once}})
    with (
        pool(1) as executor,
        pytest.raises(pc.UnsupportedError, match="of 6 cells are finished and kept: run it again"),
    ):
        go(tmp_path / "study", kinds, executor=executor)
    with ThreadPoolExecutor(1) as executor:
        pass
    with pytest.raises(pc.UnsupportedError, match="cannot schedule new futures after shutdown"):
        go(tmp_path / "study", kinds, executor=executor)
    assert Study(tmp_path / "study").finished < 6
    go(tmp_path / "study", kinds)
    go(tmp_path / "whole", kinds)
    assert results(tmp_path / "study") == results(tmp_path / "whole")


def test_executors_that_break_whatever_they_compute_are_not_made_forever(tmp_path):
    made = []

    def broken():
        made.append(ThreadPoolExecutor(1))
        made[-1].shutdown()
        return made[-1]

    with pytest.raises(pc.UnsupportedError, match=r"broke 5 times without finishing a cell .*; 0 of 3"):
        go(tmp_path, acting(3, {}), executor=broken, retries=0)
    assert len(made) == 5
    with pytest.raises(pc.PrecodeTypeError, match="made is a dict: return an Executor"):
        go(tmp_path, acting(3, {}), executor=dict)


def test_a_job_that_raises_keyboard_interrupt_in_a_worker_fails_alone(tmp_path):
    kinds = acting(6, {3: {"interrupt": True}})
    with ThreadPoolExecutor(1) as executor, pytest.warns(UserWarning, match=r"1 of 6 cells failed.*KeyboardInterrupt"):
        study = go(tmp_path / "study", kinds, executor=executor)
    assert study.finished == 5


@pytest.mark.filterwarnings("ignore")
def test_dask_gives_the_same_and_a_worker_may_be_killed(tmp_path, in_process):
    distributed = pytest.importorskip("distributed")
    cells = {index: {"wait": 0.1} for index in range(8)}
    kinds = (*acting(8, {**cells, 3: {"fail": True}}), *KINDS)
    with (
        distributed.LocalCluster(2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        victims = list(client.run(os.getpid).values())

        def kill(done, total):
            if done == 2:
                os.kill(victims[0], signal.SIGKILL)

        with pytest.warns(UserWarning, match="1 of 16 cells failed"):
            study = go(tmp_path / "study", kinds, executor=client.get_executor(), in_flight=4, progress=kill)
        assert client.run(os.getpid).values() != victims
        there = results(tmp_path / "study")

        def close(done, total):
            if done == 2:
                cluster.close()

        with pytest.raises(pc.UnsupportedError, match="2 of 8 cells are finished and kept: run it again"):
            go(tmp_path / "other", acting(8, cells), executor=client.get_executor(), in_flight=2, progress=close)
    assert study.table("numbers")["index"].tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert {name: there[name] for name in in_process} == in_process
    assert go(tmp_path / "other", acting(8, cells)).finished == 8
