"""Probes that see through the embedding: against NumPy, with their controls, for stacks and modules."""

import numpy as np
import pytest
import torch
from torch import nn

import precode as pc
import probes_reference as reference
from precode._internal.randomness import Randomness
from precode.modules.batches import Batches
from precode.modules.objective import ModuleObjective
from precode.modules.training import adam

TASKS = [pc.Dnf.random(variables=12, clauses=5, width=4, seed=3, index=index) for index in range(2)]
SETTING = dict(hidden=8, samples=640, epochs=4, early_stopping=None, optimizer=pc.Optimizer("adam", lr=0.01, eps=1e-3))
TARGETS = ("target-static", "target-motion", "target-combined", "sign-keeping", "obs-codes")
HOT = ("hot-obs", "hot-magnitude")
EMBEDDINGS = ("projection-6-fixed", "projection-6", "identity")


@pytest.fixture(scope="module", params=EMBEDDINGS)
def runs(request):
    return pc.train(TASKS, embedding=request.param, **SETTING)


def c0_of(networks, network):
    c0 = networks.weights.get("c0")
    return np.eye(12) if c0 is None else c0[network].double().numpy()


def double(networks, network):
    return {name: value[network].double().numpy() for name, value in networks.weights.items()}


def moment(runs, epoch):
    if epoch == 0:
        return runs.start
    again = pc.train(TASKS, embedding=runs.embedding.name, snapshots=[10 * epoch], **SETTING)
    return again.at(10 * epoch)


def seen(runs, network, epoch):
    """W1, w2, S, D and C0 of a network after an epoch."""
    now, start = moment(runs, epoch), double(runs.start, network)
    weights, c0 = double(now, network), c0_of(now, network)
    features = weights["w1"] @ c0
    if epoch:
        motion = features - start["w1"] @ c0_of(runs.start, network)
    else:
        data = runs.data[network]
        w1 = torch.tensor(weights["w1"], requires_grad=True)
        hidden = torch.relu(data.x.double() @ torch.tensor(c0).T @ w1.T + torch.tensor(weights["b1"]))
        logits = hidden @ torch.tensor(weights["w2"]) + torch.tensor(weights["b2"])
        loss = nn.functional.binary_cross_entropy_with_logits(logits, data.y.double().reshape(-1))
        motion = -torch.autograd.grad(loss, w1)[0].numpy() @ c0
    return weights["w1"], weights["w2"], features, motion, c0


def best(scores, keep):
    mask = np.zeros(scores.size, bool)
    mask[np.argsort(-scores.ravel(), kind="stable")[:keep]] = True
    return mask.reshape(scores.shape)


@pytest.mark.parametrize("epoch", [0, 2])
@pytest.mark.parametrize("method", TARGETS)
def test_probes_are_their_formulas(runs, method, epoch):
    found = pc.find_tickets(runs, method, [0.5, 0.2], at=epoch)
    for network, task in enumerate(TASKS):
        w, w2, s, d, c0 = seen(runs, network, epoch)
        z = runs.data[network].x.double().numpy() @ c0.T
        more = (z.T @ z / len(z),) if method == "obs-codes" else ()
        rule = getattr(reference, method.replace("-", "_"))
        scores = rule(w, w2, s, d, c0, task.clauses, w.size // 4, *more)
        for item in found:
            assert np.array_equal(item.masks["w1"][network].numpy(), best(scores, round(item.density * w.size)))
    item = found.found[0]
    gradients = 0 if epoch or method in ("target-static", "sign-keeping") else 1
    assert (item.probe_epoch, item.epochs.tolist(), item.gradients) == (epoch, [epoch] * 2, gradients)


def test_magnitude_w2_is_a_product(runs):
    found = pc.find_tickets(runs, "magnitude-w2", 0.25, at=2).found[0]
    for network in range(2):
        w, w2, *_ = seen(runs, network, 2)
        assert np.array_equal(found.masks["w1"][network].numpy(), best(abs(w) * abs(w2)[:, None], w.size // 4))


@pytest.mark.parametrize("method", HOT)
@pytest.mark.parametrize("epochs", [0, 2])
def test_hot_probes_are_their_formulas(runs, method, epochs):
    found = pc.find_tickets(runs, method, 0.25, at=epochs).found[0]
    values, masks = runs.start.weights, None
    for epoch in range(min(epochs, 1), epochs + 1):
        if epoch:
            trained = pc.train(
                TASKS,
                data=runs.data,
                init=values,
                masks=None if masks is None else {"w1": masks},
                embedding=runs.embedding,
                **{**SETTING, "epochs": 1, "optimizer": pc.Optimizer("adam", lr=0.06, eps=1e-3)},
                order_seed=runs.settings.order_seed,
                first_epoch=epoch - 1,
            )
            values = trained.weights
        keep = round(0.25 ** (max(epoch, 1) / max(epochs, 1)) * values["w1"][0].numel())
        next_values, kept = {name: value.clone() for name, value in values.items()}, []
        for network in range(2):
            w = {name: value[network].double().numpy() for name, value in values.items()}
            alive = np.ones(w["w1"].size, bool) if masks is None else masks[network].numpy().ravel()
            if method == "hot-magnitude":
                scores = np.where(alive.reshape(w["w1"].shape), abs(w["w1"]) * abs(w["w2"])[:, None], -1)
                kept.append(best(scores, keep))
                continue
            c0 = w.get("c0", np.eye(12))
            z = runs.data[network].x.double().numpy() @ c0.T
            names = ("w1", "b1", "w2", "b2")
            hessian = reference.gauss_newton(*(w[name] for name in names), z)
            flat = np.concatenate([np.ravel(w[name]) for name in names])
            flat, alive = reference.pruned_exactly(flat, alive, hessian, keep)
            kept.append(alive.reshape(w["w1"].shape))
            for name, part in zip(
                names, np.split(flat, np.cumsum([np.size(w[name]) for name in names])[:-1]), strict=True
            ):
                next_values[name][network] = torch.from_numpy(part.reshape(np.shape(w[name]))).float()
        values, masks = next_values, torch.from_numpy(np.stack(kept))
    assert torch.equal(found.masks["w1"], masks)
    assert found.epochs.tolist() == [epochs] * 2
    assert found.gradients == (max(epochs, 1) if method == "hot-obs" else 0)


@pytest.mark.parametrize("method", [*TARGETS, "distance", "oracle-codes"])
def test_wrong_clauses_are_those_of_another_formula(runs, method):
    right, wrong = (pc.find_tickets(runs, name, 0.25) for name in (method, f"{method}:wrong-clauses"))
    assert not torch.equal(right.found[0].masks["w1"], wrong.found[0].masks["w1"])
    assert wrong.found[0].kept.tolist() == right.found[0].kept.tolist()
    # A network alone is told what it is told among others.
    alone = pc.train(TASKS[1:], embedding=runs.embedding.name, indices=[1], **SETTING)
    mask = pc.find_tickets(alone, f"{method}:wrong-clauses", 0.25).found[0].masks["w1"]
    assert torch.equal(mask[0], wrong.found[0].masks["w1"][1])


def test_retention_is_what_survives_the_mask(runs):
    tickets = pc.find_tickets(runs, ["magnitude", "random", "basis-magnitude"], 0.5)
    table = tickets.retrain(test=100, relative_floor=0.0).table().set_index(["method", "formula"])["retention"]
    dense = pc.locations(runs).code
    for network, task in enumerate(TASKS):
        for method in ("magnitude", "random"):
            mask = tickets.get(method, 0.5).masks["w1"][network].numpy()
            w, c0 = double(runs, network), c0_of(runs, network)
            features = (w["w1"] * mask) @ c0
            left = total = 0
            for clause, codes in zip(task.clauses, dense[network], strict=True):
                for row in range(8):
                    signs = features[row, list(clause)]
                    positive, negative = w["w2"][row] > 0, w["w2"][row] < 0
                    code = (signs > 0).all() if positive else (signs > 0).sum() == 1 and (signs < 0).sum() == 3
                    total += codes[:, row].sum()
                    left += codes[:, row].any() and code and (positive or negative)
            assert table[method, network] == pytest.approx(left / total)
    assert table["basis-magnitude"].between(0, 1).all()


class Model(nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.first, self.second = nn.Linear(12, 8), nn.Linear(8, 1)
        with torch.no_grad():
            self.first.weight.copy_(weights["w1"][0])
            self.first.bias.copy_(weights["b1"][0])
            self.second.weight.copy_(weights["w2"])
            self.second.bias.copy_(weights["b2"])

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))[:, 0]


@pytest.mark.parametrize("method", [*TARGETS, "magnitude-w2", *HOT, "hot-imp", "hot-codes"])
def test_modules_have_them_too(method):
    """At theta_0, where the order of the data does not matter, a module's masks are those of the stack."""
    runs = pc.train(TASKS[0], **SETTING)
    data = runs.data[0]
    batches = list(zip(data.x.float().split(64), data.y.float().reshape(-1).split(64), strict=True))
    ticket = pc.find_ticket(
        Model(runs.start.weights),
        method,
        0.25,
        batches,
        nn.functional.binary_cross_entropy_with_logits,
        layers=("first", "second"),
        prunable=["first.weight"],
        clauses=TASKS[0],
        epochs=2,
    )
    assert ticket.kept == 24
    if method == "target-static":
        mask = pc.find_tickets(runs, method, 0.25).found[0].masks["w1"][0]
        assert torch.equal(ticket.masks["first.weight"], mask)


def test_a_module_tells_the_gauss_newton_matrix():
    runs = pc.train(TASKS[0], **SETTING)
    x, y = runs.data[0].x[:100], runs.data[0].y.float().reshape(-1)[:100]
    batches = Batches([(x.float(), y)], torch.device("cpu"), Randomness([], 0, []), lambda: None)
    names = ["first.weight"]
    asked = ModuleObjective(
        Model(runs.start.weights),
        names,
        batches,
        nn.functional.binary_cross_entropy_with_logits,
        None,
        1,
        adam,
        Randomness([], 0, []),
        None,
    )
    found = asked.gauss_newton([value for _, value, _ in asked.parameters])
    weights = double(runs.start, 0)
    expected = reference.gauss_newton(*(weights[name] for name in ("w1", "b1", "w2", "b2")), x.double().numpy())
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_what_cannot_be_probed_is_refused(runs):
    with pytest.raises(pc.PrecodeValueError, match=r"changes nothing.*'snip' is not told"):
        pc.find_tickets(runs, "snip:wrong-clauses", 0.25)
    with pytest.raises(pc.PrecodeValueError, match="at = 5: the dense run has 4 epochs"):
        pc.find_tickets(runs, "target-combined", 0.25, at=5)
    deep = pc.train(TASKS[0], **{**SETTING, "hidden": (6, 5)})
    with pytest.raises(pc.PrecodeError, match="one hidden layer"):
        pc.find_tickets(deep, "sign-keeping", 0.25)
    untold = pc.train(data=runs.data[0], **{name: SETTING[name] for name in ("hidden", "epochs", "early_stopping")})
    with pytest.raises(pc.PrecodeValueError, match="needs clauses"):
        pc.find_tickets(untold, "target-static", 0.25)
    wide = pc.train(TASKS[0], **{**SETTING, "hidden": 400, "epochs": 1})
    with pytest.raises(pc.PrecodeValueError, match=r"5601 parameters.*hot-magnitude"):
        pc.find_tickets(wide, "hot-obs", 0.25)
    model = Model(pc.train(TASKS[0], **SETTING).start.weights)
    with pytest.raises(pc.PrecodeError, match="layers="):
        pc.find_ticket(nn.Sequential(nn.Linear(3, 2)), "target-static", 0.5, clauses=[[0, 1]])
    with pytest.raises(pc.PrecodeError, match="variable"):
        pc.find_ticket(model, "target-static", 0.25, layers=("first", "second"), clauses=[[0, 1, 2, 40]])
