"""Tickets of any module: methods against direct computations, no side effects, clear refusals."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import prune
from torch.utils.data import DataLoader, TensorDataset

import precode as pc
from precode import _precode
from precode._internal.randomness import Randomness
from precode.modules.batches import Batches

pytestmark = pytest.mark.usefixtures("one_thread")

CONVOLUTIONAL = ("0.weight", "3.weight", "6.weight", "8.weight")


def convolutional(seed=0):
    """A small convolutional network for 8x8 images, with batch normalization and dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(36, 8),
            nn.ReLU(),
            nn.Linear(8, 3),
            nn.Dropout(0.0),
        )


def images(samples=96, seed=0):
    """Images of one of three bright stripes in noise."""
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=samples)
    x = rng.normal(0, 0.3, (samples, 1, 8, 8)).astype(np.float32)
    x[np.arange(samples), 0, 1 + 2 * y] += 1
    return torch.from_numpy(x), torch.from_numpy(y)


def top(scores, density):
    """The best-scored part of all weights together, by a sort of its own."""
    flat = np.concatenate([scores[name].double().numpy().ravel() for name in scores])
    best = np.zeros(flat.size, dtype=bool)
    best[np.argsort(-flat, kind="stable")[: round(density * flat.size)]] = True
    ends = np.cumsum([scores[name].numel() for name in scores])
    parts = np.split(best, ends[:-1])
    return {name: torch.from_numpy(part.reshape(scores[name].shape)) for name, part in zip(scores, parts, strict=True)}


def same_masks(ticket, masks):
    assert ticket.masks.keys() == masks.keys()
    return all(torch.equal(ticket.masks[name], mask) for name, mask in masks.items())


def agreement(ticket, masks):
    return min(float((ticket.masks[name] == mask).double().mean()) for name, mask in masks.items())


def test_magnitude_at_init_is_what_torch_prune_does():
    module, density = convolutional(), 0.3
    ticket = pc.find_ticket(module, "magnitude-init", density)
    pruned = copy.deepcopy(module)
    total = sum(module.get_parameter(name).numel() for name in CONVOLUTIONAL)
    chosen = [(pruned[int(name[0])], "weight") for name in CONVOLUTIONAL]
    prune.global_unstructured(chosen, prune.L1Unstructured, amount=total - round(density * total))
    expected = pc.Ticket.from_torch_prune(pruned)
    assert same_masks(ticket, expected.masks)
    assert all(torch.equal(ticket.start[name], value) for name, value in expected.start.items())
    assert (ticket.kept, ticket.total) == (round(density * total), total)


def test_start_values_are_the_initial_ones_times_the_mask_bit_by_bit():
    module = convolutional()
    ticket = pc.find_ticket(module, "snip", 0.2, images(), cross_entropy)
    for name, value in module.named_parameters():
        expected = value.detach() * ticket.masks[name] if name in ticket.masks else value.detach()
        assert torch.equal(ticket.start[name].view(torch.int32), expected.view(torch.int32))
    assert ticket.cost == {"gradients": 1.0, "epochs": 0.0}


def test_snip_is_the_product_of_weights_and_gradients():
    module, (x, y) = convolutional(), images()
    reference = copy.deepcopy(module).train()
    cross_entropy(reference(x), y).backward()
    scores = {name: (p * p.grad).detach().abs() for name, p in reference.named_parameters() if name in CONVOLUTIONAL}
    assert same_masks(pc.find_ticket(module, "snip", 0.2, (x, y), cross_entropy), top(scores, 0.2))
    # Without normalization, uneven batches have the gradient of all samples together.
    plain = nn.Sequential(module[0], *module[2:])
    cross_entropy(plain(x), y).backward()
    scores = {name: (p * p.grad).detach().abs() for name, p in plain.named_parameters() if name.endswith("weight")}
    plain.zero_grad()
    batches = [(x[:50], y[:50]), (x[50:], y[50:])]
    assert agreement(pc.find_ticket(plain, "snip", 0.2, batches, cross_entropy), top(scores, 0.2)) > 0.99


def test_grasp_is_the_hessian_times_the_gradient():
    x, y = images(48)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 3, bias=False)).double()
    x = x.double()
    weight = module[1].weight.detach()

    def loss(flat):
        return cross_entropy(x.flatten(1) @ flat.view(3, 64).T / 200, y)

    gradient = torch.autograd.functional.jacobian(loss, weight.flatten())
    hessian = torch.autograd.functional.hessian(loss, weight.flatten())
    scores = {"1.weight": weight * (hessian @ gradient).view(3, 64)}
    batches = [(x[:20], y[:20]), (x[20:], y[20:])]
    assert same_masks(pc.find_ticket(module, "grasp", 0.25, batches, cross_entropy), top(scores, 0.25))


def test_synflow_needs_no_data_and_conserves_flow():
    module = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))
    weights = {name: p.detach().double().numpy() for name, p in module.named_parameters() if p.ndim == 2}
    density, alive = 0.3, {name: np.ones_like(w, dtype=bool) for name, w in weights.items()}
    for t in range(1, 101):
        w1, w2, w3 = (np.abs(w) * alive[name] for name, w in weights.items())
        into = [np.ones(6), w1.sum(1), w2 @ w1.sum(1)]
        out = [w3.sum(0) @ w2, w3.sum(0), np.ones(2)]
        flows = [w * o[:, None] * i[None] for w, i, o in zip((w1, w2, w3), into, out, strict=True)]
        # A pruned weight never comes back.
        scores = {name: torch.from_numpy(np.where(alive[name], f, -1)) for name, f in zip(weights, flows, strict=True)}
        alive = {name: mask.numpy() for name, mask in top(scores, density ** (t / 100)).items()}
    ticket = pc.find_ticket(module, "synflow", density)
    assert same_masks(ticket, {name: torch.from_numpy(mask) for name, mask in alive.items()})
    with pytest.raises(pc.PrecodeValueError, match="shape of the input is not known: pass data="):
        pc.find_ticket(convolutional(), "synflow", density)
    flowing = pc.find_ticket(convolutional(), "synflow", density, images(4))
    assert all(mask.any() for mask in flowing.masks.values())


@pytest.mark.filterwarnings("ignore:nothing is kept of:precode.TicketWarning")
@pytest.mark.parametrize(
    "method",
    [row["name"] for row in _precode.methods() if not (row["needs_clauses"] or row["needs_clauses_in_data"])],
)
def test_every_method_has_the_exact_density_and_leaves_no_trace(method):
    module, (x, y) = convolutional(), images(48)
    module[4].eval()
    module[6].bias.requires_grad_(False)
    cross_entropy(module(x), y).backward()
    parameters = dict(module.named_parameters())
    before = copy.deepcopy(module.state_dict())
    gradients = {name: None if p.grad is None else p.grad.clone() for name, p in parameters.items()}
    loader = DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True)
    torch.manual_seed(5), random.seed(5), np.random.seed(5)  # noqa: NPY002
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    with torch.no_grad():
        ticket = pc.find_ticket(module, method, 0.3, loader, cross_entropy, epochs=2, seed=3)
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()  # noqa: NPY002
    assert ticket.kept == round(0.3 * ticket.total)
    assert [part.training for part in module] == [True] * 4 + [False] + [True] * 5
    assert module.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    for name, parameter in module.named_parameters():
        assert parameter is parameters[name]
        assert (parameter.grad is None) == (gradients[name] is None)
        assert gradients[name] is None or torch.equal(parameter.grad, gradients[name])
    torch.manual_seed(6)  # the order of a shuffling loader does not hang on the global state
    assert pc.find_ticket(module, method, 0.3, loader, cross_entropy, epochs=2, seed=3) == ticket


def test_an_error_leaves_no_trace():
    module, (x, y) = convolutional(), images(8)
    before, state = copy.deepcopy(module.state_dict()), torch.get_rng_state()

    def broken(output, y):
        torch.rand(3)
        raise ZeroDivisionError("my own")

    for method in ("snip", "imp", "grasp"):
        with pytest.raises(ZeroDivisionError, match="my own"):
            pc.find_ticket(module, method, 0.3, (x, y), broken)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.is_grad_enabled()


def test_iterative_pruning_with_the_users_own_training():
    module, (x, y) = convolutional(), images()
    seen = []

    def train(network):
        assert network is not module
        assert all(part.training for part in network)
        seen.append(sum(int((network[int(name[0])].weight != 0).sum()) for name in CONVOLUTIONAL))
        optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=1e-3)
        for _ in range(5):
            optimizer.zero_grad()
            cross_entropy(network(x), y).backward()
            optimizer.step()

    ticket = pc.find_ticket(module, "imp", 0.5, train=train, epochs=5)
    # The dense run and three levels, each from theta_0 with zeros.
    assert seen == [round(kept * ticket.total) for kept in (1, 0.8, 0.64, 0.512)]
    assert ticket.cost["epochs"] == 20
    # By hand: train, prune by magnitude among the survivors, go back to theta_0.
    alive = {name: torch.ones_like(module.get_parameter(name), dtype=torch.bool) for name in CONVOLUTIONAL}
    for density in (0.8, 0.64, 0.512, 0.5):
        network = copy.deepcopy(module)
        pc.Ticket(
            alive,
            {n: p.detach() * alive[n] if n in alive else p.detach() for n, p in module.named_parameters()},
            method="hand",
            density=1,
        ).to_torch_prune(network)
        train(network)
        trained = {name: (network[int(name[0])].weight_orig * alive[name]).detach().abs() for name in alive}
        alive = top({name: torch.where(alive[name], trained[name], -1) for name in alive}, density)
    assert same_masks(ticket, alive)
    with pytest.raises(pc.UnsupportedError, match="train= hides it"):
        pc.find_ticket(module, "early-bird", 0.5, train=train)


def test_the_default_training_is_the_plain_loop():
    module, (x, y) = convolutional(), images()
    batches = [(x[:40], y[:40]), (x[40:], y[40:])]
    network = copy.deepcopy(module)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(3):
        for inputs, labels in batches:
            optimizer.zero_grad()
            cross_entropy(network(inputs), labels).backward()
            optimizer.step()
    scores = {name: network.get_parameter(name).detach().abs() for name in CONVOLUTIONAL}
    ticket = pc.find_ticket(module, "magnitude", 0.3, batches, cross_entropy, epochs=3)
    assert same_masks(ticket, top(scores, 0.3))
    rewound = pc.find_ticket(module, "imp-rewind", 0.9, batches, cross_entropy, epochs=3)
    network = copy.deepcopy(module)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for inputs, labels in batches:
        optimizer.zero_grad()
        cross_entropy(network(inputs), labels).backward()
        optimizer.step()
    for name, value in network.named_parameters():
        kept = rewound.masks.get(name, torch.ones_like(value, dtype=torch.bool))
        assert torch.equal(rewound.start[name], value.detach() * kept)
    assert rewound.config["start_epoch"] == 1


def test_a_ticket_of_a_convolutional_network_learns(tmp_path):
    module, (x, y) = convolutional(), images(192)
    ticket = pc.find_ticket(
        module, "imp", 0.3, (x, y), cross_entropy, epochs=20, optimizer=lambda p: torch.optim.Adam(p, 0.02)
    )
    ticket.save(tmp_path / "ticket")
    network = pc.Ticket.load(tmp_path / "ticket").apply_(copy.deepcopy(module))
    optimizer = torch.optim.AdamW(network.parameters(), 0.02, weight_decay=0.1)
    for _ in range(40):
        optimizer.zero_grad()
        cross_entropy(network(x), y).backward()
        optimizer.step()
    fresh = images(200, seed=1)
    accuracy = float((network.eval()(fresh[0]).argmax(1) == fresh[1]).double().mean())
    assert accuracy > 0.9
    assert sum(int((network[int(name[0])].weight != 0).sum()) for name in CONVOLUTIONAL) <= ticket.kept


def test_rows_columns_layers_and_chosen_parameters():
    module, data = convolutional(), images()
    rows = pc.find_ticket(
        module, "snip", 0.5, data, cross_entropy, granularity="row", prunable=["0.weight", "6.weight"]
    )
    assert rows.masks.keys() == {"0.weight", "6.weight"}
    for mask in rows.masks.values():
        assert torch.equal(mask.flatten(1).all(1), mask.flatten(1).any(1))
    layers = pc.find_ticket(module, "snip", 0.5, data, cross_entropy, scope="per-layer")
    assert [int(mask.sum()) for mask in layers.masks.values()] == [round(m.numel() / 2) for m in layers.masks.values()]


class Several(nn.Module):
    """Two inputs by name, a nested output."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(3, 2), nn.Linear(4, 2)

    def forward(self, a, b):
        return {"logits": self.left(a) * self.right(b)}


def test_several_inputs_and_any_output():
    module = Several()
    a, b, y = torch.randn(10, 3), torch.randn(10, 4), torch.randint(2, (10,))

    def loss(output, y):
        return cross_entropy(output["logits"], y)

    by_place = pc.find_ticket(module, "snip", 0.5, [((a, b), y)], loss)
    by_name = pc.find_ticket(module, "snip", 0.5, [({"b": b, "a": a}, y)], loss)
    assert by_place == by_name
    with pytest.raises(pc.UnsupportedError, match="returns one tensor, not dict"):
        pc.find_ticket(module, "grasp", 0.5, [((a, b), y)], loss)


def test_clauses_are_read_at_two_layers():
    module = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 1))
    task = pc.Dnf.random(variables=8, clauses=3, width=2)
    tickets = [
        pc.find_ticket(module, "magnitude-init", 0.5, clauses=clauses, layers=layers)
        for clauses, layers in [(task, None), (task.clauses, ("0", "2")), (None, None)]
    ]
    assert tickets[0] == tickets[1] == tickets[2]


def test_the_batch_of_a_step_is_that_of_training():
    x = torch.arange(10.0)
    loader = DataLoader(TensorDataset(x, x), batch_size=4, shuffle=True)
    batches = Batches(loader, torch.device("cpu"), Randomness([], 7, [loader]), lambda: None)
    with batches.isolated():
        trained = [tuple(batch[0].tolist()) for epoch in range(3) for batch in batches.epoch(epoch)]
        one_after_the_other = [tuple(batches.step(number)[0].tolist()) for number in range(9)]
        at_random = {number: tuple(batches.step(number)[0].tolist()) for number in (8, 2, 3, 3, 0, 7)}
    assert trained == one_after_the_other
    assert all(trained[number] == batch for number, batch in at_random.items())
    assert sorted(sum(trained[:3], ())) == x.tolist()
    assert trained[:3] != trained[3:6]


def test_progress_counts_batches():
    x, y = images(12)
    calls = []
    pc.find_ticket(convolutional(), "snip", 0.5, [(x, y)] * 3, cross_entropy, progress=lambda *n: calls.append(n))
    assert calls == [(1, 0), (2, 0), (3, 0)]


def test_what_cannot_be_done_is_refused_before_any_work():
    x, y = images(8)
    nets = {name: convolutional() for name in ("plain", "frozen", "nan", "pruned", "applied", "tied", "normed")}
    plain = nets["plain"]
    nets["frozen"][3].weight.requires_grad_(False)
    with torch.no_grad():
        nets["nan"][3].weight[0] = float("nan")
    prune.l1_unstructured(nets["pruned"][3], "weight", 0.5)
    pc.find_ticket(plain, "random", 0.5).apply_(nets["applied"])
    nets["tied"].append(nn.Linear(36, 8))[10].weight = nets["tied"][6].weight
    torch.nn.utils.parametrizations.weight_norm(nets["normed"][3])

    def refuse(message, module=plain, method="snip", density=0.5, data=(x, y), loss=cross_entropy, kind=None, **other):
        with pytest.raises(kind or pc.PrecodeValueError, match=message):
            pc.find_ticket(module, method, density, data, loss, **other)

    refuse(r"density = 0: .* in \(0, 1\]", density=0.0)
    refuse(r"density = 1.5: .* in \(0, 1\]", density=1.5)
    refuse("keeps none of", density=1e-5)
    refuse("density must be a number", density="0.1", kind=pc.PrecodeTypeError)
    refuse("method 'snup' is unknown: use one of random", method="snup")
    refuse("control 'x' is unknown", method="snip:x")
    refuse("method 'snip' needs data and a loss", data=None)
    refuse("method 'snip' needs data and a loss", loss=None, train=lambda network: None)
    refuse("method 'imp' needs training: pass data= and loss=, or train=", method="imp", loss=None)
    refuse("'3.weight' is frozen", nets["frozen"], prunable="3.weight")
    refuse("'3.weight' has values that are not finite", nets["nan"])
    refuse(r"'3.weight' is pruned already: undo that first with torch\.nn\.utils\.prune", nets["pruned"])
    refuse(r"is pruned already: undo that first with ticket\.remove_", nets["applied"])
    refuse("'6.weight' is shared with 10.weight", nets["tied"], prunable="10.weight")
    refuse(r"'3.weight' is not a plain parameter .* prunable can name 0.weight", nets["normed"], prunable="3.weight")
    refuse("nothing to prune", nn.Sequential(nn.ReLU(), nn.LayerNorm(3)))
    refuse("prunable is empty", prunable=[])
    refuse("'w' is not a plain parameter", prunable="w")
    refuse("must be a torch.nn.Module, not function", images, kind=pc.PrecodeTypeError)
    refuse("can be read only once", data=iter([(x, y)]), kind=pc.PrecodeTypeError)
    refuse("data has no batches", data=[])
    refuse(r"data must give pairs \(x, y\), not tensors: pass one pair as a tuple", data=[x], kind=pc.PrecodeTypeError)
    refuse("data must be batches", data=x, kind=pc.PrecodeTypeError)
    refuse(
        r"loss returned \(8,\)", loss=lambda out, y: cross_entropy(out, y, reduction="none"), kind=pc.PrecodeShapeError
    )
    refuse("does not depend on the parameters", loss=lambda out, y: out.detach().sum())
    refuse("gradient at '0.weight' is not finite", loss=lambda out, y: (out.sum() - out.sum()).sqrt())
    refuse("training diverged", method="magnitude", optimizer=lambda p: torch.optim.SGD(p, 1e38))
    refuse("loss must be a function", loss=3, kind=pc.PrecodeTypeError)
    refuse("epochs = 0", epochs=0)
    refuse("scope 'all' is unknown", scope="all")
    refuse("layers name 'conv', but the linear layers are 6, 8", layers=("conv", "8"))
    refuse("'8' has 3 outputs, but '6' 36 inputs", layers=("8", "6"), kind=pc.PrecodeShapeError)
    refuse("names variable 36", layers=("6", "8"), clauses=[[0, 36]], output=0)
    refuse("'8' has 3 outputs, and clauses are of one: name it with output=", layers=("6", "8"), clauses=[[0, 3]])


def test_digits():
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    x, y = torch.from_numpy(x / 16).float()[:, None].view(-1, 1, 8, 8), torch.from_numpy(y)
    module = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
    ticket = pc.find_ticket(module, "snip", 0.2, (x[:1000], y[:1000]), cross_entropy)
    ticket.apply_(module)
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        cross_entropy(module(x[:1000]), y[:1000]).backward()
        optimizer.step()
    assert float((module(x[1000:]).argmax(1) == y[1000:]).double().mean()) > 0.85
