"""The peers of the benchmark take the same steps as the fused engine, and as autograd does. No times."""

import dataclasses
import importlib.util

import pytest
import torch

from precode import bench
from precode.bench import engines, torch_peers, workload
from precode.bench.steps import TOLERANCE, check
from precode.bench.trainers import Shuffle

CELL = bench.Cell(hidden=5, variables=12, clauses=3, batch=32, samples=256)
COMPILED = [peer for peer in bench.PEERS if "compile" in peer.name]


def installed(peer):
    if importlib.util.find_spec(peer.package) is None:
        pytest.skip(f"{peer.package} is not installed")


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("peer", [peer for peer in bench.PEERS if peer not in COMPILED], ids=lambda peer: peer.name)
def test_peers_train_as_the_fused_engine(peer, optimizer):
    installed(peer)
    work = workload.Workload(dataclasses.replace(CELL, optimizer=optimizer))
    problem = work.problem(3)
    assert problem.order.shape == (8, 32)
    assert check(peer.trainer(problem), work) < TOLERANCE / 10


@pytest.mark.parametrize("peer", COMPILED, ids=lambda peer: peer.name)
def test_compiled_peer_takes_the_step_of_the_other(peer, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiled.append(options) or function)
    work = workload.Workload(CELL)
    assert check(peer.trainer(work.problem(2)), work) < TOLERANCE / 10
    assert compiled == [{"fullgraph": True, "dynamic": False, "mode": "default"}]


def projected(cell, networks, seed=0):
    """A problem behind projections drawn here, and the C0 that peers must train as well, or not."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape, fan):
        return (2 * torch.rand(*shape, generator=generator) - 1) / fan**0.5

    inputs, variables, hidden = cell.inputs, cell.variables, cell.hidden
    start = {
        "c0": uniform(networks, inputs, variables, fan=variables),
        "w1": uniform(networks, hidden, inputs, fan=inputs),
        "b1": uniform(networks, hidden, fan=inputs),
        "w2": uniform(networks, hidden, fan=hidden),
        "b2": uniform(networks, fan=hidden),
    }
    work = workload.Workload(cell)
    work.start = lambda count: dict(start)
    return work, start


def autograd(work, start, networks, steps):
    """Weights after some steps in float64, by autograd and `torch.optim`, on samples taken one by one."""
    cell = work.cell
    order = work.problem(networks).order[:steps]
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    found = []
    for network, data in enumerate(work.sets(networks)):
        weights = {name: tensor[network].double().requires_grad_() for name, tensor in start.items()}
        if cell.fixes_c0:
            weights["c0"].requires_grad_(False)
        trained = [weight for weight in weights.values() if weight.requires_grad]
        optimizer = kinds[cell.optimizer](trained, lr=cell.rule.lr)
        for samples in order:
            x = torch.stack([data.x[int(sample)] for sample in samples]).double()
            y = torch.stack([data.y[int(sample)] for sample in samples]).double()
            features = torch.einsum("mn,bn->bm", weights["c0"], x)
            hidden = torch.einsum("jm,bm->bj", weights["w1"], features) + weights["b1"]
            logits = torch.einsum("j,bj->b", weights["w2"], hidden.clamp(min=0)) + weights["b2"]
            optimizer.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(logits, y).backward()
            optimizer.step()
        found.append({name: weight.detach() for name, weight in weights.items()})
    return {name: torch.stack([weights[name] for weights in found]) for name in start}


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("embedding", ["projection-4", "projection-4-fixed"])
@pytest.mark.parametrize("peer", bench.PEERS, ids=lambda peer: peer.name)
def test_peers_train_behind_projections_as_autograd_does(peer, embedding, optimizer, monkeypatch):
    installed(peer)
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    work, start = projected(dataclasses.replace(CELL, embedding=embedding, optimizer=optimizer), 3)
    expected = autograd(work, start, 3, 8)
    trainer = peer.trainer(work.problem(3))
    for steps in (8, 5, 8):
        trainer.reset()
        trainer.train(steps)
    got = trainer.weights()
    assert set(got) == set(start) - ({"c0"} if embedding.endswith("fixed") else set())
    for name, weight in got.items():
        assert weight.shape == start[name].shape
        way = (expected[name] - start[name]).norm()
        assert way > 0
        assert (weight - expected[name]).norm() < TOLERANCE / 10 * way, name


@pytest.mark.parametrize("embedding", ["projection-4", "projection-4-fixed"])
def test_fused_engine_trains_behind_projections_as_autograd_does(embedding):
    work = workload.Workload(dataclasses.replace(CELL, embedding=embedding))
    start = work.start(3)
    assert start["c0"].shape == (3, 4, 12)
    expected = autograd(work, start, 3, 8)
    got = engines.reference(work, 3, 8)
    for name in start:
        way = (expected[name] - start[name]).norm()
        assert (got[name] - expected[name]).norm() <= TOLERANCE / 10 * way, name


@pytest.mark.parametrize("shuffled", [False, True])
def test_batches_are_the_samples_of_the_steps(shuffled):
    problem = workload.Workload(CELL).problem(3)
    batches = torch_peers.Batches(problem, shuffled)
    copies = Shuffle((problem.x, problem.y), problem.order)
    for steps in (8, 3):
        taken = [(x.clone(), y.clone()) for x, y in batches.of(steps)]
        assert len(taken) == steps
        for step, (batch, *rows) in enumerate(zip(taken, *copies.of(steps), strict=True)):
            for data, cut, row in zip((problem.x, problem.y), batch, rows, strict=True):
                assert torch.equal(row, data[problem.order[step]])
                assert cut.dtype == torch.float32
                assert torch.equal(cut.transpose(0, 1), row)
