"""Probes that read the clauses from the data: against NumPy, for stacks and modules, and what they refuse."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

import precode as pc
import probes_reference as reference

SETTING = dict(hidden=8, epochs=3, early_stopping=None, optimizer=pc.Optimizer("adam", lr=0.01, eps=1e-3))
PROBES = ("target-static", "target-motion", "target-combined", "sign-keeping", "obs-codes", "hot-codes")
CLAUSES = [[0, 1, 2], [2, 3, 4], [5, 6, 7], [0, 8, 9]]


def samples(kind):
    """500 samples of a formula: around its clauses, uniform, and with a tenth of the labels wrong."""
    task = pc.Dnf(CLAUSES, 10)
    data = task.sample(500, seed=1, sampler="uniform" if kind != "broken" else "broken-clause")
    x, y = data.x, data.y
    if kind == "wrong":
        y = y ^ (torch.rand(y.shape, generator=torch.Generator().manual_seed(0)) < 0.1)
    return task, pc.Dataset(x, y)


@pytest.mark.parametrize("kind", ["broken", "uniform", "wrong"])
@pytest.mark.parametrize("embedding", ["identity", "projection-6-fixed", "projection-6"])
def test_masks_are_those_of_clauses_found_by_brute_force(kind, embedding):
    task, data = samples(kind)
    runs = pc.train(task, data=data, embedding=embedding, **SETTING)
    found = pc.find_tickets(runs, ["target-static-blind", "sign-keeping-blind"], 0.3, at=0)
    clauses = reference.told_by_data(data.x.numpy() > 0, data.y.numpy().reshape(-1) > 0, 3)
    assert kind == "wrong" or {frozenset(clause) for clause in clauses} == {frozenset(clause) for clause in CLAUSES}
    weights = {name: value[0].double().numpy() for name, value in runs.start.weights.items()}
    c0 = weights.get("c0", np.eye(10))
    w, w2, s = weights["w1"], weights["w2"].reshape(-1), weights["w1"] @ c0
    for method, rule in (("target-static", reference.target_static), ("sign-keeping", reference.sign_keeping)):
        scores = rule(w, w2, s, None, c0, clauses, w.size // 3)
        kept = np.argsort(-scores.ravel(), kind="stable")[: round(0.3 * w.size)]
        item = found.get(f"{method}-blind", 0.3, 0)
        assert sorted(kept) == np.flatnonzero(item.masks["w1"][0].numpy()).tolist()
        right = len({frozenset(clause) for clause in clauses} & {frozenset(clause) for clause in CLAUSES})
        assert item.notes == {"clauses_recovered": [len(clauses)], "clauses_found": [right]}


@pytest.mark.parametrize("method", PROBES)
def test_all_clauses_of_a_planted_formula_come_back(method):
    """In the paper's setting; told them or not, a probe keeps the same weights."""
    tasks = [pc.Dnf.random(variables=32, clauses=24, width=4, seed=5, index=index) for index in range(2)]
    runs = pc.train(tasks, hidden=16, epochs=2, samples=5000, embedding="projection-16-fixed", early_stopping=None)
    blind, told = (pc.find_tickets(runs, name, 0.25).found[0] for name in (f"{method}-blind", method))
    assert blind.notes["clauses_recovered"].tolist() == blind.notes["clauses_found"].tolist() == [24, 24]
    # Locations that agree equally well stand in the order of the clauses.
    assert (blind.masks["w1"] != told.masks["w1"]).float().mean() < 0.02
    assert (blind.epochs.tolist(), blind.gradients, blind.probe_epoch) == (
        told.epochs.tolist(),
        told.gradients,
        told.probe_epoch,
    )


def test_clauses_are_of_the_output_that_is_asked():
    task = pc.Dnf([[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [0, 5, 9]]], 10)
    runs = pc.train(task, samples=2000, sampler="uniform", **SETTING)
    for output in (0, 1):
        item = pc.find_tickets(runs, "target-static-blind", 0.3, output=output).found[0]
        assert item.notes == {"clauses_recovered": [2], "clauses_found": [2]}
    negated = pc.Dnf([[0, 1, 2], [3, 4, 5]], 10, complemented=True)
    runs = pc.train(negated, samples=2000, sampler="uniform", **SETTING)
    item = pc.find_tickets(runs, "target-static-blind", 0.3).found[0]
    assert item.notes == {"clauses_recovered": [2], "clauses_found": [2]}


def test_rows_have_the_polarity_of_the_output_that_is_asked():
    task = pc.Dnf([CLAUSES[:2], CLAUSES[2:]], 10)
    runs = pc.train(task, samples=2000, sampler="uniform", **SETTING)
    weights = {name: value[0].double().numpy() for name, value in runs.start.weights.items()}
    for output in (0, 1):
        clauses, w = [tuple(clause) for clause in task.clauses_of(output)], weights["w1"]
        scores = reference.target_static(w, weights["w2"][output], w, None, np.eye(10), clauses, w.size // 3)
        mask = pc.find_tickets(runs, "target-static", 0.3, output=output).found[0].masks["w1"][0]
        kept = np.argsort(-scores.ravel(), kind="stable")[: round(0.3 * w.size)]
        assert sorted(kept) == np.flatnonzero(mask.numpy()).tolist()


def test_all_methods_leave_out_what_asks_for_clauses_where_none_are_known():
    from precode.tickets.registry import resolve_methods

    assert {f"{probe}-blind" for probe in PROBES} <= set(resolve_methods("all", clauses=True)[0])
    without, left_out = resolve_methods("all", clauses=False)
    assert "distance-blind" in without
    assert left_out["distance"] == "clauses"
    assert not {f"{probe}-blind" for probe in PROBES} & set(without)


class Model(nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.first, self.second = nn.Linear(10, 8), nn.Linear(8, 1)
        with torch.no_grad():
            for layer, number in ((self.first, 1), (self.second, 2)):
                layer.weight.copy_(weights[f"w{number}"].reshape(layer.weight.shape))
                layer.bias.copy_(weights[f"b{number}"].reshape(layer.bias.shape))

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))[:, 0]


def batches(data):
    return list(zip(data.x.float().split(64), data.y.float().reshape(-1).split(64), strict=True))


@pytest.mark.parametrize("method", PROBES)
def test_a_module_has_them_too(method):
    task, data = samples("broken")
    runs = pc.train(task, data=data, **SETTING)
    options = {"layers": ("first", "second"), "prunable": ["first.weight"], "epochs": 2}
    module, loss = Model(runs.start.weights), binary_cross_entropy_with_logits
    blind, told = (
        pc.find_ticket(module, name, 0.3, batches(data), loss, clauses=task, **options)
        for name in (f"{method}-blind", method)
    )
    assert blind.config["notes"] == {"clauses_recovered": 4, "clauses_found": 4}
    assert blind.cost == told.cost
    assert torch.equal(blind.masks["first.weight"], told.masks["first.weight"])
    if method == "target-static":
        mask = pc.find_tickets(runs, "target-static-blind", 0.3).found[0].masks["w1"][0]
        assert torch.equal(blind.masks["first.weight"], mask)


def test_a_classifier_tells_the_clauses_of_a_class():
    task, data = samples("broken")
    module = nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 2))
    options = {"prunable": ["0.weight"], "clauses": task, "output": 1}
    x, y = data.x.float(), data.y.long().reshape(-1)
    ticket = pc.find_ticket(module, "target-static-blind", 0.3, (x, y), cross_entropy, **options)
    assert ticket.config["notes"] == {"clauses_recovered": 4, "clauses_found": 4}
    columns = torch.stack([1 - y, y], 1).float()
    other = pc.find_ticket(
        module, "target-static-blind", 0.3, (x, columns), binary_cross_entropy_with_logits, **options
    )
    assert torch.equal(ticket.masks["0.weight"], other.masks["0.weight"])


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_module_is_read_at_the_epoch_that_is_asked(at):
    """Against a training of the test's own."""
    task, data = samples("broken")
    weights = pc.train(task, data=data, **SETTING).start.weights
    loss, options = binary_cross_entropy_with_logits, {"layers": ("first", "second"), "prunable": ["first.weight"]}
    module, trained = Model(weights), Model(weights)
    optimizer = torch.optim.SGD(trained.parameters(), 0.5)
    for _ in range(at):
        for x, y in batches(data):
            optimizer.zero_grad()
            loss(trained(x), y).backward()
            optimizer.step()
    w = trained.first.weight.detach().double().numpy()
    w2 = trained.second.weight.detach().double().numpy().reshape(-1)

    def find(method):
        options.update(optimizer=lambda parameters: torch.optim.SGD(parameters, 0.5), epochs=3, at=at)
        ticket = pc.find_ticket(module, method, 0.3, batches(data), loss, clauses=task, **options)
        assert ticket.cost["epochs"] == at
        return np.flatnonzero(ticket.masks["first.weight"].numpy()).tolist()

    def best(scores):
        return sorted(np.argsort(-scores.ravel(), kind="stable")[: round(0.3 * w.size)].tolist())

    assert find("checkpoint-magnitude") == best(abs(w))
    clauses, start = list(task.clauses), weights["w1"][0].double().numpy()
    static = reference.target_static(w, w2, w, None, np.eye(10), clauses, w.size // 3)
    assert find("target-static") == find("target-static-blind") == best(static)
    if at:
        combined = reference.target_combined(w, w2, w, w - start, np.eye(10), clauses, w.size // 3)
        assert find("target-combined") == best(combined)


def test_what_cannot_be_read_is_refused():
    task, data = samples("broken")
    short = pc.train(task, data=pc.Dataset(data.x[:8], data.y[:8]), **SETTING)
    with pytest.raises(pc.PrecodeValueError, match=r"network 0: its data tell no clauses of 3 variables.*-blind"):
        pc.find_tickets(short, "target-combined-blind", 0.3)
    with pytest.raises(pc.PrecodeValueError, match="'target-static-blind' is not told"):
        pc.find_tickets(short, "target-static-blind:wrong-clauses", 0.3)
    module = Model(short.start.weights)
    x, y = data.x.float(), data.y.float().reshape(-1)

    def refuse(match, error=pc.UnsupportedError, method="target-static-blind", pair=(x, y), **options):
        with pytest.raises(error, match=match):
            pc.find_ticket(
                module, method, 0.3, pair, binary_cross_entropy_with_logits, prunable=["first.weight"], **options
            )

    refuse(r"Boolean data, and the inputs of 'first.weight' are not all 0 or 1", pair=(2 * x, y))
    refuse("the labels are not all 0 or 1", pair=(x, y / 2))
    refuse(r"labels of 1 outputs.*not from \(500, 3\)", pair=(x, y[:, None].expand(-1, 3)))
    refuse("at = 5: the dense run has 3 epochs", pc.PrecodeValueError, at=5, epochs=3)
    refuse("at = 1: imp cannot be read early", pc.PrecodeValueError, "imp", at=1)
    refuse("function of your own", pc.PrecodeValueError, lambda name, weights, gradient: weights.abs(), at=0)
    refuse(r"at = 1: train= hides the epochs.*or at=0", at=1, train=lambda module: module)
    ticket = pc.find_ticket(
        module,
        "target-static-blind",
        0.3,
        (x, y),
        binary_cross_entropy_with_logits,
        clauses=task,
        prunable=["first.weight"],
        at=0,
        train=lambda module: module,
    )
    assert ticket.config["notes"]["clauses_found"] == 4
