"""Engines, methods and searches in modules on a CUDA device, against the CPU; `make cuda-check` runs them."""

import copy

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import precode as pc
from precode import bench
from precode.bench import engines, machine, workload
from precode.bench.steps import TOLERANCE, check

DEVICE = "cuda"

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
    pytest.mark.filterwarnings("ignore::precode.TicketWarning"),
]

METHODS = pc.methods()["name"].tolist()
TASKS = [pc.Dnf.random(variables=12, clauses=3, width=3, seed=0, index=index) for index in range(3)]
LAYERS = ("linear", "convolution", "attention", "recurrent")


def trained(device, **options):
    settings = dict(hidden=8, epochs=4, samples=320, lr=0.02, early_stopping=None, dtype="float64", engine="libtorch")
    return pc.train(TASKS, device=device, **(settings | options))


@pytest.fixture(scope="module")
def runs():
    """The same networks on the CPU and on the device."""
    return trained("cpu"), trained(DEVICE)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("embedding", ["identity", "hadamard", "projection-5", "projection-5-fixed"])
def test_engines_train_the_same_networks(embedding, optimizer):
    options = dict(embedding=embedding, optimizer=optimizer, snapshots=[1, 7])
    cpu, cuda = trained("cpu", **options), trained(DEVICE, **options)
    assert cuda.engine == "libtorch"
    assert {tensor.device.type for tensor in cuda.weights.values()} == {torch.device(DEVICE).type}
    for moment in (1, 7):
        for name, tensor in cpu.at(moment).weights.items():
            torch.testing.assert_close(cuda.at(moment).weights[name].cpu(), tensor, rtol=1e-7, atol=1e-9)
    for name, tensor in cpu.weights.items():
        torch.testing.assert_close(cuda.weights[name].cpu(), tensor, rtol=1e-6, atol=1e-8)


def test_float32_and_chosen_engine():
    found = trained(DEVICE, dtype="float32", engine="auto")
    assert found.engine == "libtorch"
    expected = trained("cpu", dtype="float32")
    for name, tensor in expected.weights.items():
        torch.testing.assert_close(found.weights[name].cpu(), tensor, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_the_tickets_of_the_cpu(runs, method):
    cpu, cuda = (pc.find_tickets(each, method, 0.25) for each in runs)
    for name, mask in cpu.found[0].masks.items():
        other = cuda.found[0].masks[name]
        assert other.device.type == torch.device(DEVICE).type
        # A ticket of 24 weights: rounding may exchange a pair of near scores, and no more.
        assert ((other.cpu() != mask).flatten(1).sum(1) <= 2).all()
    one, other = (tickets.retrain(test=500).table() for tickets in (cpu, cuda))
    assert (one["accuracy"] - other["accuracy"]).abs().max() < 0.05


def logic():
    """A classifier of a formula of twelve variables, and its data."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 2)).double()
    data = TASKS[0].sample(640, seed=0)
    return module, data.x.double(), data.y.long()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_the_ticket_of_a_module(method):
    module, x, y = logic()
    device = torch.device(DEVICE)
    options = dict(epochs=4, clauses=TASKS[0], layers=("0", "2"), output=1)

    def found(device):
        own = copy.deepcopy(module).to(device)
        # The data stay on the CPU: batches are moved to the module.
        data = [(x[:320], y[:320]), (x[320:], y[320:])]
        try:
            return pc.find_ticket(own, method, 0.3, data, cross_entropy, **options)
        except pc.PrecodeError as error:
            return str(error)

    state = torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    cuda, cpu = found(device), found("cpu")
    assert torch.equal(torch.get_rng_state(), state[0])
    assert state[1] is None or torch.equal(torch.cuda.get_rng_state(device), state[1])
    assert isinstance(cuda, str) == isinstance(cpu, str), (cuda, cpu)
    if isinstance(cuda, str):
        assert cuda == cpu
        return
    assert {tensor.device.type for tensor in (*cuda.masks.values(), *cuda.start.values())} == {device.type}
    assert sum(int((cuda.masks[name].cpu() != mask).sum()) for name, mask in cpu.masks.items()) <= 2


class Tokens(nn.Module):
    """A layer over three tokens of four features."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        x = x.reshape(len(x), 3, 4)
        if isinstance(self.layer, nn.MultiheadAttention):
            return self.layer(x, x, x, need_weights=False)[0].flatten(1)
        if isinstance(self.layer, nn.LSTM):
            return self.layer(x)[0].flatten(1)
        return self.layer(x.mT).mT.flatten(1)


def layered(kind):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = {
            "linear": lambda: nn.Linear(12, 12),
            "convolution": lambda: Tokens(nn.Conv1d(4, 4, 3, padding=1)),
            "attention": lambda: Tokens(nn.MultiheadAttention(4, 2, batch_first=True)),
            "recurrent": lambda: Tokens(nn.LSTM(4, 4, batch_first=True)),
        }[kind]()
        module = nn.Sequential(layer, nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 3)).double()
        return module, torch.randn(64, 12).double(), torch.randint(3, (64,))


@pytest.mark.parametrize("method", ["magnitude-init", "snip", "grasp", "synflow", "imp", "edge-popup"])
@pytest.mark.parametrize("kind", LAYERS)
def test_layers_that_have_kernels_of_their_own(kind, method):
    module, x, y = layered(kind)
    tickets = [
        pc.find_ticket(copy.deepcopy(module).to(device), method, 0.5, (x, y), cross_entropy, epochs=2)
        for device in ("cpu", DEVICE)
    ]
    cpu, cuda = tickets
    assert sum(int((cuda.masks[name].cpu() != mask).sum()) for name, mask in cpu.masks.items()) <= 2


@pytest.mark.parametrize("method", ["snip", "grasp", "synflow", "edge-popup"])
def test_recurrent_layers_in_evaluation_mode(method):
    # cuDNN has no gradients of them there.
    module, x, y = layered("recurrent")
    tickets = [
        pc.find_ticket(copy.deepcopy(module).to(device).eval(), method, 0.5, (x, y), cross_entropy, epochs=2)
        for device in ("cpu", DEVICE)
    ]
    cpu, cuda = tickets
    assert sum(int((cuda.masks[name].cpu() != mask).sum()) for name, mask in cpu.masks.items()) <= 2


@pytest.mark.parametrize(
    "choice",
    [
        {"granularity": "row"},
        {"scope": "per-layer"},
        {"density": {"0.weight": 0.5, "2.weight": 0.25}},
        {"granularity": "2:4", "exclude": ["2"]},
        {"method": lambda name, weight, gradient: (weight * gradient).abs()},
    ],
    ids=["rows", "per-layer", "densities", "pattern", "own"],
)
def test_what_is_kept_is_chosen_as_on_the_cpu(choice):
    module, x, y = logic()
    options = {"method": "snip", "density": 0.5} | choice
    cpu, cuda = (
        pc.find_ticket(copy.deepcopy(module).to(device), data=(x, y), loss=cross_entropy, **options)
        for device in ("cpu", DEVICE)
    )
    assert {mask.device.type for mask in cuda.masks.values()} == {torch.device(DEVICE).type}
    assert sum(int((cuda.masks[name].cpu() != mask).sum()) for name, mask in cpu.masks.items()) <= 2


@pytest.mark.parametrize("scope", ["global", "per-layer", "erk"])
@pytest.mark.parametrize("granularity", ["weight", "row", "column"])
def test_equal_scores_are_told_apart_as_on_the_cpu(granularity, scope):
    def ties(name, weight, gradient):
        return (weight * 200).round().abs()

    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.Flatten(), nn.Linear(32, 16), nn.Linear(16, 3))
    options = dict(granularity=granularity, scope=scope, exclude="3")
    for density in (0.1, 0.5, 0.77):
        cpu, cuda = (
            pc.find_ticket(copy.deepcopy(module).to(device), ties, density, **options) for device in ("cpu", DEVICE)
        )
        assert all(torch.equal(cuda.masks[name].cpu(), mask) for name, mask in cpu.masks.items())


def test_what_cannot_be_chosen_is_refused_on_the_device():
    module = logic()[0].to(DEVICE)
    with pytest.raises(pc.PrecodeValueError, match=r"scores of '0\.weight' are not finite"):
        pc.find_ticket(module, lambda name, weight, gradient: weight / 0 * 0, 0.5)
    with torch.no_grad():
        module[0].weight[0, 0] = torch.nan
    with pytest.raises(pc.PrecodeValueError, match="not finite"):
        pc.find_ticket(module, "magnitude-init", 0.5)


MULTIPLES = {
    "magnitude-init": 4, "random": 4, "snip": 4, "grasp": 5, "magnitude": 6, "imp": 6, "synflow": 9, "edge-popup": 12,
    "early-bird": 9, "continuous-sparsification": 15, "gem-miner": 15,
}  # fmt: skip
"""Times the weights' memory that methods may take on the device, beside the module."""


@pytest.mark.parametrize(("layers", "width"), [(4, 2000), (25, 800)])
@pytest.mark.parametrize("method", MULTIPLES)
def test_a_search_takes_so_many_times_the_memory_of_the_weights(method, layers, width):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(*[nn.Linear(width, width) for _ in range(layers)]).to(DEVICE)
        x, y = torch.randn(32, width), torch.randint(10, (32,))
    weights = 4 * sum(weight.numel() for weight in module.parameters())
    grown = machine.growth(torch.device(DEVICE))
    ticket = pc.find_ticket(module, method, 0.6, [(x, y)] * 3, cross_entropy, epochs=1)
    assert 1 <= grown() / weights <= MULTIPLES[method]
    assert sum(int(mask.sum()) for mask in ticket.masks.values()) == round(0.6 * layers * width**2)


def test_a_search_that_does_not_fit_is_refused_before_any_work():
    module = nn.Linear(2000, 2000).to(DEVICE)
    everything = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 2**25) / everything)
    try:
        with pytest.raises(
            pc.UnsupportedError, match=r"15 MiB of parameters on cuda:0 needs about .* of those that are"
        ):
            pc.find_ticket(module, "imp", 0.5, logic()[1:], cross_entropy)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("kind", ["sgd", "momentum", "adam", "fused"])
def test_masked_training_is_that_of_weights_that_are_put_to_zero(kind):
    module, x, y = logic()
    make = {
        "sgd": lambda all: torch.optim.SGD(all, 0.1),
        "momentum": lambda all: torch.optim.SGD(all, 0.1, momentum=0.9, weight_decay=1e-2),
        "adam": lambda all: torch.optim.Adam(all, 0.01),
        "fused": lambda all: torch.optim.Adam(all, 0.01, fused=True),
    }[kind]
    module = module.to(DEVICE)
    ticket = pc.find_ticket(module, "snip", 0.3, (x, y), cross_entropy)
    own, plain = ticket.apply_(copy.deepcopy(module)), copy.deepcopy(module)
    x, y = x.to(DEVICE), y.to(DEVICE)
    optimizers = [make(each.parameters()) for each in (own, plain)]
    for _ in range(5):
        with torch.no_grad():
            for name, mask in ticket.masks.items():
                plain.get_parameter(name).mul_(mask)
        for each, optimizer in zip((own, plain), optimizers, strict=True):
            optimizer.zero_grad()
            cross_entropy(each(x), y).backward()
        for name, mask in ticket.masks.items():
            plain.get_parameter(name).grad.mul_(mask)
        for optimizer in optimizers:
            optimizer.step()
    with torch.no_grad():
        for name, mask in ticket.masks.items():
            plain.get_parameter(name).mul_(mask)
    for name, value in ticket.remove_(own).state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name], rtol=1e-9, atol=1e-11)


def test_masked_training_in_mixed_precision_and_on_a_stream():
    module, x, y = logic()
    module = module.float().to(DEVICE)
    x, y = x.float().to(DEVICE), y.to(DEVICE)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        ticket = pc.find_ticket(module, "synflow", 0.3, (x, y), cross_entropy)
        ticket.apply_(module)
        optimizer, scaler = torch.optim.Adam(module.parameters(), 0.01), torch.amp.GradScaler()
        for _ in range(5):
            optimizer.zero_grad()
            with torch.autocast("cuda", torch.float16):
                loss = cross_entropy(module(x), y)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    side.synchronize()
    for name, value in ticket.remove_(module).state_dict().items():
        assert torch.isfinite(value).all()
        if name in ticket.masks:
            assert not value[~ticket.masks[name]].any()


def test_a_ticket_goes_through_compile_and_a_graph():
    module, x, _ = logic()
    module = module.float().to(DEVICE).eval()
    x = x.float().to(DEVICE)
    pc.find_ticket(module, "magnitude-init", 0.5).apply_(module)
    with torch.no_grad():
        expected = module(x)
        torch.testing.assert_close(torch.compile(module)(x), expected)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            module(x)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = module(x)
        graph.replay()
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("method", ["snip", "synflow", "grasp"])
def test_tokens_and_bags(method):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Embedding(20, 8), nn.Flatten(), nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 2)).double()
        x, y = torch.randint(20, (64, 3)), torch.randint(2, (64,))
    cpu, cuda = (
        pc.find_ticket(copy.deepcopy(module).to(device), method, 0.4, (x, y), cross_entropy)
        for device in ("cpu", DEVICE)
    )
    assert sum(int((cuda.masks[name].cpu() != mask).sum()) for name, mask in cpu.masks.items()) <= 2


def steps(module, x, y, count=6):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(count):
        optimizer.zero_grad()
        cross_entropy(module(x), y).backward()
        optimizer.step()


def test_what_is_watched_while_training():
    module, x, y = logic()
    tables = []
    for device in ("cpu", DEVICE):
        own = copy.deepcopy(module).to(device)
        with pc.watch(own, TASKS[0], layers=("0", "2"), every=2, densities=0.5, output=1) as log:
            steps(own, x.to(device), y.to(device))
        tables.append(log.table())
    pd.testing.assert_frame_equal(*tables, rtol=1e-6, atol=1e-8)


def test_gradual_pruning_and_removal_of_dead_rows():
    module, x, y = logic()
    own = [copy.deepcopy(module).to(device) for device in ("cpu", DEVICE)]
    tickets = []
    for network in own:
        device = network[0].weight.device
        with pc.Pruner(network, pc.Schedule("cubic", density=0.3, start=1, end=5, every=2)) as pruner:
            steps(network, x.to(device), y.to(device))
        tickets.append(pruner.ticket())
    cpu, cuda = tickets
    assert sum(int((cuda.masks[name].cpu() != mask).sum()) for name, mask in cpu.masks.items()) <= 2
    plain = cuda.remove_(own[1]).eval()
    with torch.no_grad():
        plain[0].weight[:3] = 0
    smaller = pc.remove_dead(plain)
    assert smaller[0].out_features <= 5
    torch.testing.assert_close(smaller(x.to(DEVICE)), plain(x.to(DEVICE)))


def test_methods_are_compared_on_the_device():
    x, y = logic()[1:]

    def model():
        return nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 2)).double().to(DEVICE)

    found = pc.compare(
        model, ["snip", "random"], [0.5], (x[:320], y[:320]), cross_entropy, test=(x[320:], y[320:]), epochs=2, seeds=2
    )
    assert found.table["accuracy"].between(0, 1).all()


def test_a_ticket_goes_to_files_and_to_other_devices(tmp_path):
    module, x, y = logic()
    own = copy.deepcopy(module).to(DEVICE)
    ticket = pc.find_ticket(own, "snip", 0.3, (x, y), cross_entropy)
    ticket.save(tmp_path / "ticket.safetensors")
    assert pc.Ticket.load(tmp_path / "ticket.safetensors") == ticket
    ticket.apply_(own)
    optimizer = torch.optim.AdamW(own.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        cross_entropy(own(x.to(DEVICE)), y.to(DEVICE)).backward()
        optimizer.step()
    plain = ticket.remove_(own)
    for name, mask in ticket.masks.items():
        assert (plain.get_parameter(name)[~mask] == 0).all()
    applied = ticket.apply_(module)  # on the CPU
    assert torch.equal(applied[0].weight, (ticket.start["0.weight"] * ticket.masks["0.weight"]).cpu())


@pytest.mark.parametrize("peer", bench.PEERS, ids=lambda peer: peer.name)
def test_peers_of_the_benchmark_train_as_the_fused_engine(peer, monkeypatch):
    pytest.importorskip(peer.package)
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    cell = bench.Cell(hidden=5, variables=12, clauses=3, batch=32, samples=256)
    work = workload.Workload(cell, torch.device(DEVICE))
    assert work.problem(3).device.type == torch.device(DEVICE).type
    assert check(peer.trainer(work.problem(3)), work) < TOLERANCE / 10


def test_the_engine_of_the_benchmark_runs_on_the_device():
    work = workload.Workload(bench.Cell(hidden=5, variables=12, clauses=3, batch=32, samples=256), torch.device(DEVICE))
    trained = engines.run(work, 2, "libtorch", 1)
    assert trained.weights["w1"].device.type == torch.device(DEVICE).type
    assert engines.peak_bytes(work, 2, engines.Contestant("libtorch", DEVICE)) > 0
