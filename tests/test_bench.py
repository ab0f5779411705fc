"""The benchmark: what it prints, and that it notices contestants that are missing, broken or wrong. No times."""

import dataclasses
import importlib.util
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

import precode as pc
from precode import bench
from precode.bench import contest, distances, drawing, engines, machine, real_networks, torch_peers, workload
from precode.bench.jax_peer import Jax
from precode.bench.table import COLUMNS
from precode.cli import main

SMALL = ["--nets", "2", "--samples", "256", "--repeats", "1"]
CELL = bench.Cell(hidden=5, variables=12, clauses=3, batch=32, samples=256)
LOOP, VMAP = bench.PEERS[:4:2]


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
    return dataclasses.replace(peer, trainer=trainer or peer.trainer, sizes=(1, 3))


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
        assert line[:9] == [str(row[name]) for name in header[:9]]
        assert line[9:11] == ["1", f"{row['us_per_network_step']:.4g}"]
        assert (row["density"], row["best_peer"], row["best_peer_ratio"]) == (1, "", None)
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


def test_projections_beside_the_first_cell(tmp_path):
    file = tmp_path / "bench.json"
    names = ["identity", "projection-4", "projection-4-fixed"]
    result = invoke(*SMALL, "--embedding", ",".join(names[:2]), "--embedding", names[2], "--json", str(file))
    table = json.loads(file.read_text())
    assert [(row["embedding"], row["engine"]) for row in table] == [
        (name, engine) for name in names for engine in ("fused", "libtorch")
    ]
    assert [row["ratio_to_first_cell"] for row in table[:2]] == [1, 1]
    assert all(row["ratio_to_first_cell"] > 0 for row in table)
    assert "projection-4-fixed: fused engine, 2 networks: " in result.stderr


def test_peers_beside_the_engines():
    lines = []
    both = [small(peer) for peer in bench.PEERS[:4]]
    table = quick(*both, report=lines.append)
    assert list(table["engine"]) == ["fused", "libtorch", *(peer.name for peer in both)]
    rows = table.iloc[2:]
    assert rows["networks"].isin([1, 3]).all()
    assert rows["note"].str.match(r"weights agree to \d+e-0\d; best of 1: .* us, 3: .* us").all()
    assert (rows[["us_per_network_step", "ratio_to_fused"]] > 0).all(axis=None)
    state, data = 12 * (5 * 13 + 6), 256 * 13
    expected = [state + 4 * data, state + 8 * data, state + data, state + 5 * data]
    assert list(rows["bytes_per_network"]) == expected

    fastest = rows.loc[rows["us_per_network_step"].idxmin()]
    assert (table["best_peer"] == fastest["engine"]).all()
    np.testing.assert_allclose(
        table["best_peer_ratio"], fastest["us_per_network_step"] / table["us_per_network_step"], rtol=1e-9
    )
    said = f"fused engine, 2 networks: the best peer, {fastest['engine']} at {fastest['networks']}, takes "
    assert sum(said in line for line in lines) == 1


def test_masks_beside_the_dense_step(tmp_path):
    file = tmp_path / "bench.json"
    result = invoke(*SMALL, "--nets", "2,3", "--densities", "1,0.5,0.125", "--json", str(file))
    table = json.loads(file.read_text())
    assert [(row["networks"], row["engine"], row["density"]) for row in table] == [
        (networks, engine, density)
        for networks in (2, 3)
        for engine, density in (("fused", 1), ("fused", 0.5), ("fused", 0.125), ("libtorch", 1))
    ]
    for row, dense in zip(table, [table[0]] * 4 + [table[4]] * 4, strict=True):
        ratio = row["us_per_network_step"] / dense["us_per_network_step"]
        assert row["ratio_to_fused"] == pytest.approx(ratio)
    assert result.stderr.count(" takes ") == 4
    assert "3 networks: W1 masked to 0.125 takes " in result.stderr


@pytest.mark.parametrize("density", [0.5, 0.125])
def test_masks_keep_what_they_say(density, monkeypatch):
    work = workload.Workload(CELL)
    mask = work.masks(3, density)["w1"]
    assert mask.shape == (3, 5, 12)
    assert mask.sum((1, 2)).tolist() == [round(density * 60)] * 3
    assert not torch.equal(mask[0], mask[1])
    assert torch.equal(mask[:2], work.masks(2, density)["w1"])
    assert work.masks(3, 1.0) is None

    contestant = engines.Contestant("fused", engines.chosen_level(), density)
    ran = []
    monkeypatch.setattr(engines, "train", lambda **options: ran.append(pc.train(**options)))
    engines.entry(work, 3, contestant, 2).run()
    assert torch.equal(ran[0].weights["w1"] != 0, mask)


def test_sampling(tmp_path):
    file = tmp_path / "sampling.json"
    options = ["--variables", "12,16", "--clauses", "3", "--samples", "40", "--repeats", "2"]
    result = invoke("--sampling", *options, "--json", str(file))
    table = json.loads(file.read_text())
    assert [list(row) for row in table] == [list(drawing.COLUMNS)] * 4
    assert [(row["sampler"], row["variables"]) for row in table] == [
        (sampler, variables) for variables in (12, 16) for sampler in drawing.SAMPLERS
    ]
    for row, line in zip(table, printed_rows(result.stdout)[1:], strict=True):
        assert 0 < row["ms_min"] <= row["ms_per_network"] <= row["ms_max"]
        assert row["ns_per_sample"] == pytest.approx(1e6 * row["ms_per_network"] / 40)
        assert line[:4] == [str(row[name]) for name in drawing.COLUMNS[:4]]


def test_sampling_draws_the_data_of_the_networks(monkeypatch):
    drawn = []
    work = workload.Workload(CELL)
    sample = pc.Dnf.sample
    monkeypatch.setattr(pc.Dnf, "sample", lambda *args, **options: drawn.append(sample(*args, **options)))
    drawing.draw(work, "broken-clause")
    assert len(drawn) == drawing.NETWORKS
    for one, other in zip(drawn, work.sets(drawing.NETWORKS), strict=True):
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.y, other.y)


class TwiceTheRate(torch_peers.TorchVmap):
    """Wrong: its learning rate is too large."""

    def step(self, parameters, moments, batch):
        x, y, scale = batch
        super().step(parameters, moments, (x, y, scale * torch.tensor([1.05, 1.0])))


class OtherOrder(torch_peers.TorchVmap):
    """Wrong: it visits the samples in another order."""

    def __init__(self, problem):
        super().__init__(bench.Problem(problem.rule, problem.start, problem.x, problem.y, problem.order.flip(0)))


class Broken(torch_peers.TorchVmap):
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
    missing = bench.Peer("some library", Jax, package="precode_no_such_package")
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
        (["--pairs", "--sampling"], 2, "leave out --sampling"),
        (["--sampling", "--hidden", "4", "--clauses", "4"], 2, "is a measurement of its own: leave out --hidden"),
        (["--modules", "--levels", "--repeats", "2"], 2, "own: leave out --levels, --repeats"),
        (["--modules", "--device", "cuda:77"], 1, "device 'cuda:77' is not available: use one of cpu"),
        (["--pairs", "--markdown"], 2, "own: leave out --markdown"),
        (["--device", "cuda:77"], 1, "device 'cuda:77' is not available: use one of cpu"),
        (["--device", "abacus"], 1, "device 'abacus' is unknown: use one of cpu"),
        (["--densities", "0"], 2, "'0': expected numbers in (0, 1]"),
        (["--embedding", "identity,hadamard"], 1, "embedding = 'hadamard' is not part of the benchmark"),
        (["--embedding", "projection-0"], 1, "embedding = 'projection-0' is not part of the benchmark"),
        (["--embedding", "projection-33-fixed"], 1, "'projection-33-fixed' of 32 variables"),
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
    with pytest.raises(pc.PrecodeValueError, match="1 cells, 2 samplers, 0 repeats"):
        bench.sampling([CELL], repeats=0)
    with pytest.raises(pc.PrecodeValueError, match=r"density = 1.5: must be in \(0, 1\]"):
        bench.training([CELL], densities=[0.5, 1.5])


def test_operations_of_the_reference_cell():
    reference = bench.Cell()
    forward = 64 * (2 * 32 * 32 + 2 * 32)
    backward = 64 * (2 * 32 * 32 + 2 * 32 + 2 * 32)
    assert reference.parameters == 1089
    assert reference.flops == forward + backward + 12 * 1089


def test_operations_of_the_projection_cells():
    trained, fixed = (bench.Cell(embedding=name) for name in ("projection-16", "projection-16-fixed"))
    first, second, c0 = 2 * 32 * 16, 2 * 32, 2 * 16 * 32
    assert (trained.inputs, trained.trains_c0, trained.fixes_c0) == (16, True, False)
    assert (fixed.inputs, fixed.trains_c0, fixed.fixes_c0) == (16, False, True)
    assert fixed.parameters == 32 * 16 + 32 + 32 + 1
    assert trained.parameters == fixed.parameters + 16 * 32
    passes = 64 * (c0 + 2 * first + 3 * second)
    assert fixed.flops == passes + 12 * fixed.parameters
    assert trained.flops == passes + 64 * (first + c0) + 12 * trained.parameters
    # Peers keep the inputs that a fixed C0 embeds as float32.
    assert VMAP.kept_bytes(trained) == 12 * trained.parameters + 20_000 * 33
    assert bench.PEERS[3].kept_bytes(fixed) == 12 * fixed.parameters + 20_000 * (4 * 16 + 1 + 4 * 16 + 4)
    assert trained.state_bytes == 3 * dataclasses.replace(trained, optimizer="sgd").state_bytes


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


def test_the_table_of_the_documentation():
    table = quick(bench.Peer("some library", Jax, package="precode_no_such_package"))
    head, rule, *lines = bench.markdown(table).splitlines()
    assert head.split(" | ")[::3] == ["| contestant", "microseconds", "share of peak"]
    assert rule == "|---" * 8 + "|"
    fused, libtorch, missing = (line.strip("| ").split(" | ") for line in lines)
    assert fused[:3] == ["fused", engines.chosen_level(), "2"]
    assert float(fused[3]) == pytest.approx(table["us_per_network_step"][0], rel=0.01)
    assert fused[5] == "1 (1 to 1)"
    assert libtorch[7] == f"{table['bytes_per_network'][1]:,}"
    assert [missing[0], *missing[2:]] == ["some library", *["—"] * 6]
    assert invoke(*SMALL, "--markdown").stdout.splitlines()[0] == head


def test_every_method_on_a_network(monkeypatch, tmp_path):
    def make():
        module = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        return module, lambda generator: (torch.randn(8, 6, generator=generator), torch.arange(8) % 3)

    def fail():
        raise ModuleNotFoundError("No module named 'truststore'\nwhich it needs")

    networks = {
        "small": real_networks.Network("torch", make),
        "broken": real_networks.Network("numpy", fail),
        "absent": real_networks.Network("precode_no_such_package", make),
    }
    monkeypatch.setattr(real_networks, "NETWORKS", networks)
    file = tmp_path / "modules.json"
    invoke("--modules", "--json", str(file))
    table = pd.read_json(file)
    assert table.columns.tolist() == list(real_networks.COLUMNS)
    assert table["method"].tolist() == [*pc.methods()["name"], "", ""]
    assert table["note"].tolist()[-2:] == [
        "cannot be made with the numpy installed: No module named 'truststore'",
        "not installed: pip install precode_no_such_package",
    ]
    found = table[table["seconds"].notna()]
    assert (found["note"] == "").all()
    assert {"imp", "snip", "grasp", "synflow", "obs-loss", "hot-obs", "wanda"} <= set(found["method"])
    assert (found["parameters"] == 83).all()
    refused = table[table["seconds"].isna()]["note"]
    assert refused.str.contains("clauses|not 0 and 1|not Boolean|installed").all(), refused.tolist()
    with pytest.raises(pc.PrecodeValueError, match="method 'snap' is unknown"):
        bench.modules(methods=["snap"])
