"""The benchmark: what it prints, and that it notices contestants that are missing, broken or wrong. No times."""

import importlib.util
import json
import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import precode as pc
from precode import bench
from precode.bench import contest, distances, engines, machine, peers, workload
from precode.bench.steps import COLUMNS, TOLERANCE, check
from precode.cli import main

SMALL = ["--nets", "2", "--samples", "256", "--repeats", "1"]
CELL = bench.Cell(hidden=5, variables=12, clauses=3, batch=32, samples=256)
LOOP, VMAP, COMPILED, JAX = bench.PEERS


@pytest.fixture(autouse=True)
def _short_stretches(monkeypatch):
    monkeypatch.setattr(contest, "PAUSE", 0.0)
    monkeypatch.setattr(contest, "SECONDS", 0.01)
    monkeypatch.setattr(machine, "PRODUCT", 64)


def invoke(*arguments, status=0):
    result = CliRunner().invoke(main, ["bench", *arguments])
    assert result.exit_code == status, result.output
    return result


def quick(*contestants, cell=CELL, networks=(2,), **options):
    return bench.training([cell], networks, peers=contestants, repeats=1, **options)


def small(peer, trainer=None):
    return bench.Peer(peer.name, trainer or peer.trainer, peer.package, sizes=(1, 3))


def printed_rows(output):
    return [line.split() for line in output.strip().splitlines()]


def test_prints_and_writes_one_table(tmp_path):
    file = tmp_path / "bench.json"
    result = invoke(*SMALL, "--hidden", "4,8", "--optimizer", "sgd", "--json", str(file))
    table = json.loads(file.read_text())
    header, *lines = printed_rows(result.stdout)
    assert header == list(COLUMNS)
    assert [list(row) for row in table] == [header] * 4
    assert [(row["engine"], row["hidden"]) for row in table] == [
        ("fused", 4),
        ("libtorch", 4),
        ("fused", 8),
        ("libtorch", 8),
    ]
    for row, line in zip(table, lines, strict=True):
        assert line[:8] == [str(row[name]) for name in header[:8]]
        assert line[8] == f"{row['us_per_network_step']:.4g}"
        assert row["us_min"] <= row["us_per_network_step"] <= row["us_max"]
        assert row["note"] == ""
    environment = json.loads((tmp_path / "bench.json.environment.json").read_text())
    assert environment["versions"]["torch"] == torch.__version__.split("+")[0]
    assert environment["cores"] >= 1


def test_engines_levels_and_sizes():
    table = quick(levels=True, networks=(1, 3))
    found = engines.levels()
    assert found[0] == "portable"
    fused = table[table["engine"] == "fused"]
    assert sorted(fused["level"]) == sorted(found * 2)
    assert set(table["networks"]) == {1, 3}
    own = fused[fused["level"] == engines.chosen_level()]
    assert (own[["ratio_to_fused", "ratio_min", "ratio_max"]] == 1).all(axis=None)
    assert (table["us_per_network_step"] > 0).all()
    rates = table["gflops"] * table["us_per_network_step"] * 1e3
    np.testing.assert_allclose(rates, CELL.flops)


def test_forced_level_is_restored(monkeypatch):
    monkeypatch.setenv(engines.LEVEL_VARIABLE, "portable")
    assert engines.chosen_level() == "portable"
    with engines.forced("avx2"):
        assert engines.chosen_level() == "avx2"
    assert engines.chosen_level() == "portable"
    monkeypatch.delenv(engines.LEVEL_VARIABLE)
    with engines.forced("portable"):
        assert engines.chosen_level() == "portable"
    assert engines.chosen_level() == engines.levels()[-1]


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("peer", [LOOP, VMAP, JAX], ids=lambda peer: peer.name)
def test_peers_train_as_the_fused_engine(peer, optimizer):
    if importlib.util.find_spec(peer.package) is None:
        pytest.skip(f"{peer.package} is not installed")
    work = workload.Workload(bench.Cell(hidden=5, variables=12, clauses=3, batch=32, samples=256, optimizer=optimizer))
    problem = work.problem(3)
    assert problem.order.shape == (8, 32)
    assert check(peer.trainer(problem), work) < TOLERANCE / 10


def test_compiled_peer_takes_the_step_of_the_other(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiled.append(options) or function)
    work = workload.Workload(CELL)
    assert check(COMPILED.trainer(work.problem(2)), work) < TOLERANCE / 10
    assert compiled == [{"fullgraph": True, "dynamic": False}]


def test_peers_beside_the_engines():
    table = quick(small(LOOP), small(VMAP))
    assert list(table["engine"]) == ["fused", "libtorch", "torch loop", "torch.func.vmap"]
    rows = table.iloc[2:]
    assert rows["networks"].isin([1, 3]).all()
    assert rows["note"].str.match(r"weights agree to \d+e-0\d; best of 1: .* us, 3: .* us").all()
    assert (rows[["us_per_network_step", "ratio_to_fused"]] > 0).all(axis=None)
    parameters = 5 * 13 + 6
    assert list(rows["bytes_per_network"]) == [12 * parameters + 256 * 13] * 2


class TwiceTheRate(peers.TorchVmap):
    """Wrong: its learning rate is too large."""

    def step(self, parameters, moments, batch):
        x, y, scale = batch
        super().step(parameters, moments, (x, y, scale * torch.tensor([1.05, 1.0])))


class OtherOrder(peers.TorchVmap):
    """Wrong: it visits the samples in another order."""

    def __init__(self, problem):
        super().__init__(bench.Problem(problem.rule, problem.start, problem.x, problem.y, problem.order.flip(0)))


class Broken(peers.TorchVmap):
    """Does not run."""

    def train(self, steps):
        raise RuntimeError("no compiler\nand more")


@pytest.mark.parametrize(
    ("trainer", "note"),
    [
        (TwiceTheRate, "wrong: weights after 8 steps are "),
        (OtherOrder, "wrong: weights after 8 steps are "),
        (Broken, "failed: RuntimeError: no compiler"),
    ],
)
def test_a_wrong_or_broken_peer_is_reported_and_not_timed(trainer, note):
    row = quick(small(VMAP, trainer)).iloc[-1]
    assert row["engine"] == "torch.func.vmap"
    assert row["note"].startswith(note)
    assert "more" not in row["note"]
    assert math.isnan(row["us_per_network_step"])
    assert math.isnan(row["ratio_to_fused"])


def test_a_missing_peer_is_reported(monkeypatch, tmp_path):
    missing = bench.Peer("some library", peers.Jax, package="precode_no_such_package")
    monkeypatch.setattr(bench, "PEERS", (missing,))
    file = tmp_path / "bench.json"
    result = invoke(*SMALL, "--peers", "--json", str(file))
    row = json.loads(file.read_text())[-1]
    assert (row["engine"], row["us_per_network_step"], row["networks"]) == ("some library", None, None)
    assert row["note"] == "not installed: pip install 'precode[bench]'"
    assert row["note"] in result.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--nets", "0"], 2, "'0': expected numbers of at least 1"),
        (["--nets", "many"], 2, "'many': expected numbers of at least 1"),
        (["--optimizer", "lbfgs"], 2, "'lbfgs' is not one of 'adam', 'adamw', 'sgd'"),
        (["--repeats", "0"], 2, "0 is not in the range x>=1"),
        (["--batch", "300", "--samples", "256"], 1, "batch = 300 of 256 samples"),
        (["--clauses", "99999999", "--samples", "64"], 1, "99999999"),
        (["--hidden", "5000", *SMALL], 1, "5000"),
        (["--pairs", "--peers", "--nets", "4"], 2, "leave out --nets, --peers"),
        (["--json", "no/such/folder/file.json"], 1, "no/such/folder"),
    ],
)
def test_refused(arguments, status, message):
    assert message in " ".join(invoke(*arguments, status=status).output.split())


def test_nothing_to_measure_is_refused():
    with pytest.raises(pc.PrecodeValueError, match="0 cells, 1 numbers of networks, 1 repeats"):
        bench.training([], repeats=1)
    with pytest.raises(pc.PrecodeValueError, match="repeats = 0"):
        bench.pairs(repeats=0)


def test_operations_of_the_reference_cell():
    reference = bench.Cell()
    forward = 64 * (2 * 32 * 32 + 2 * 32)
    backward = 64 * (2 * 32 * 32 + 2 * 32 + 2 * 32)
    assert reference.parameters == 1089
    assert reference.flops == forward + backward + 12 * 1089


def test_contestants_take_turns():
    calls = []
    entries = [contest.Entry(lambda name=name: calls.append(name), 1.0) for name in "abc"]
    contest.interleave(entries, 2, pause=0.0)
    assert "".join(calls) == "abcabc"
    assert [len(entry.seconds) for entry in entries] == [2, 2, 2]


def wrong_call(codes, rows):
    return np.zeros((rows, len(codes.bools)))


def test_pairs(monkeypatch, tmp_path):
    calls = (
        *distances.CALLS,
        distances.Call("numpy", "wrong", wrong_call),
        distances.Call("precode_no_such_package", "absent", wrong_call),
    )
    table = bench.pairs([(60, 70), (90, 64)], calls=calls, repeats=1, seconds=0.001)
    assert list(table.columns) == list(distances.COLUMNS)
    assert list(table["bits"]) == [70] * len(calls) + [64] * len(calls)
    for row in table.to_dict("records"):
        if row["call"] == "wrong":
            assert row["note"].startswith("wrong: ")
        elif row["call"] == "absent" or importlib.util.find_spec(row["library"]) is None:
            assert row["note"].startswith("not installed: ")
        else:
            assert row["note"] == ""
            assert row["gpairs_per_second_per_core"] > 0
        assert math.isnan(row["ratio_to_precode"]) == bool(row["note"])
    assert set(table.loc[table["library"] == "precode", "level"]) == {pc.code_distance_kernel()}

    monkeypatch.setattr(distances, "SHAPES", ((80, 64),))
    file = tmp_path / "pairs.json"
    result = invoke("--pairs", "--repeats", "1", "--json", str(file))
    written = json.loads(file.read_text())
    assert len(written) == len(distances.CALLS) == len(printed_rows(result.stdout)) - 1
    assert list(written[0]) == list(distances.COLUMNS)
