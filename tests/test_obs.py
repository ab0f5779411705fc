"""Exact removal, on stacks and modules, against an independent reference; reading early and rewinding."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

import obs_reference as reference
import precode as pc
from precode import _precode
from precode._internal import memory
from precode._internal.randomness import Randomness
from precode.modules.batches import Batches
from precode.modules.layers import windows
from precode.modules.objective import ModuleObjective
from precode.modules.training import adam

DAMPING = 0.01
DENSITIES = [0.8, 0.5, 0.25, 0.1]
METHODS = pc.methods().set_index("name")
EARLY = METHODS.index[METHODS["early"]]
REWINDING = METHODS.index[METHODS["rewinds"]]


def dense(networks=3, variables=12, hidden=8, **options):
    tasks = [pc.Dnf.random(variables=variables, clauses=3, width=3, seed=0, index=index) for index in range(networks)]
    settings = dict(hidden=hidden, epochs=5, samples=320, lr=0.02, early_stopping=None)
    return pc.train(tasks, **{**settings, **options})


@pytest.fixture(scope="module")
def runs():
    return dense()


def embedded(runs, network):
    return runs.data[network].x.double().numpy() @ runs.embedding.matrix.astype(float).T


# --- removal --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "hidden", "embedding"),
    [(12, 8, "identity"), (12, 3, "hadamard"), (9, 5, "random"), (20, 4, "projection")],
)
def test_obs_is_removal_one_by_one(variables, hidden, embedding):
    if embedding == "projection":
        embedding = np.random.default_rng(1).uniform(-0.2, 0.2, (7, variables)).astype(np.float32)
    runs = dense(variables=variables, hidden=hidden, embedding=embedding)
    tickets = pc.find_tickets(runs, "obs", DENSITIES)
    for network in range(3):
        weights = runs.weights["w1"][network].double().numpy()
        hessian = reference.hessian(embedded(runs, network), DAMPING)
        for found in tickets:
            expected = reference.mask(weights, hessian, int(found.kept[network]))
            np.testing.assert_array_equal(found.masks["w1"][network].numpy(), expected)
    assert not torch.equal(
        tickets.get("obs", 0.5).masks["w1"], pc.find_tickets(runs, "magnitude", 0.5).found[0].masks["w1"]
    )


def test_obs_compares_the_rows_of_all_layers(runs):
    tickets = pc.find_tickets(runs, "obs", [0.5, 0.2], prunable="all")
    layers = pc.find_tickets(runs, "obs", 0.5, prunable="all", scope="per-layer").found[0]
    for network in range(3):
        x = embedded(runs, network)
        w1, b1, w2 = (runs.weights[name][network].double().numpy() for name in ("w1", "b1", "w2"))
        hidden = np.maximum(x @ w1.T + b1, 0)
        rows = [(row, reference.hessian(x, DAMPING)) for row in w1] + [(w2, reference.hessian(hidden, DAMPING))]
        ways = [reference.remove_one_by_one(row, hessian) for row, hessian in rows]
        for found in tickets:
            left = [0] * len(rows)
            for _ in range(found.total - int(found.kept[network])):
                costs = [way[1][done] if done < len(way[1]) else np.inf for way, done in zip(ways, left, strict=True)]
                left[int(np.argmin(costs))] += 1
            got = [*found.masks["w1"][network], found.masks["w2"][network].flatten()]
            for kept, way, done in zip(got, ways, left, strict=True):
                assert set(np.flatnonzero(kept.numpy())) == set(way[0][done:])
        expected = reference.mask(w1, rows[0][1], 48)
        np.testing.assert_array_equal(layers.masks["w1"][network].numpy(), expected)


def test_obs_on_the_loss_is_removal_under_the_fisher_matrix():
    runs = dense(networks=2, hidden=5)
    tickets = pc.find_tickets(runs, "obs-loss", DENSITIES)
    for network in range(2):
        module = runs.module(network).double()
        gradients = []
        for x, y in zip(runs.data[network].x.double(), runs.data[network].y.double(), strict=True):
            loss = nn.functional.binary_cross_entropy_with_logits(module(x[None]), y.reshape(1, 1))
            gradients.append(torch.autograd.grad(loss, module[0].weight)[0].flatten().numpy())
        fisher = reference.fisher(np.array(gradients), DAMPING)
        weights = runs.weights["w1"][network].double().numpy()
        for found in tickets:
            expected = reference.mask_of_loss(weights, fisher, int(found.kept[network]))
            np.testing.assert_array_equal(found.masks["w1"][network].numpy(), expected)


def test_rounds_remove_among_the_survivors_of_retrained_tickets():
    runs = dense(networks=2)
    found = pc.find_tickets(runs, "obs-rounds", 0.5).found[0]
    assert found.epochs.tolist() == [5 + 3 * 5] * 2
    mask, trained = torch.ones(2, 8, 12, dtype=torch.bool), runs
    for kept in (0.8, 0.64, 0.512, 0.5):
        masks = []
        for network in range(2):
            hessian = reference.hessian(embedded(runs, network), DAMPING)
            alive = mask[network].numpy()
            weights = trained.weights["w1"][network].double().numpy()
            ways = []
            for row, here in zip(weights, alive, strict=True):
                places = np.flatnonzero(here)
                order, costs = reference.remove_one_by_one(row[places], hessian[np.ix_(places, places)])
                ways.append((places[order], costs))
            after, done = alive.copy(), [0] * 8
            for _ in range(int(alive.sum()) - round(kept * 96)):
                nexts = [way[1][n] if n < len(way[1]) else np.inf for way, n in zip(ways, done, strict=True)]
                row = int(np.argmin(nexts))
                after[row, ways[row][0][done[row]]] = False
                done[row] += 1
            masks.append(torch.from_numpy(after))
        mask = torch.stack(masks)
        trained = pc.train(
            runs.tasks, data=runs.data, init=runs.start.weights, masks={"w1": mask}, epochs=5, lr=0.02,
            early_stopping=None,
        )  # fmt: skip
    assert torch.equal(found.masks["w1"], mask)


def test_inputs_without_a_moment_are_refused(runs):
    still = pc.Dataset(np.zeros((8, 12), dtype=bool), np.arange(8) % 2 == 0)
    silent = pc.train(data=[still], hidden=4, epochs=1)
    with pytest.raises(pc.PrecodeValueError, match="network 0: prunable tensor 0: the Hessian is zero"):
        pc.find_tickets(silent, "obs", 0.5)
    wide = pc.train(data=[pc.Dataset(np.eye(65, dtype=bool), np.arange(65) % 2 == 0)], hidden=64, epochs=1)
    with pytest.raises(pc.PrecodeValueError, match=r"Fisher matrix of 4160 prunable weights.*take 'obs'"):
        pc.find_tickets(wide, "obs-loss", 0.5)


def test_wanda_keeps_the_same_share_of_every_row(runs):
    tickets = pc.find_tickets(runs, ["wanda", "wanda-global"], [0.5, 0.25, 0.3])
    for network in range(3):
        weights, x = runs.weights["w1"][network].double().numpy(), embedded(runs, network)
        for density in (0.5, 0.25):
            got = tickets.get("wanda", density).masks["w1"][network].numpy()
            np.testing.assert_array_equal(got, reference.wanda(weights, x, density))
        # 29 weights in 8 rows: 3 of each, and the 5 best of those that come fourth.
        scores = np.abs(weights) * np.sqrt((x**2).sum(0))
        expected = reference.wanda(weights, x, 0.25)
        fourth = np.argsort(-scores, axis=1)[:, 3]
        best = np.argsort(-scores[np.arange(8), fourth])[:5]
        expected[best, fourth[best]] = True
        np.testing.assert_array_equal(tickets.get("wanda", 0.3).masks["w1"][network].numpy(), expected)
        flat = np.zeros(96, dtype=bool)
        flat[np.argsort(-scores.ravel())[:48]] = True
        np.testing.assert_array_equal(tickets.get("wanda-global", 0.5).masks["w1"][network].flatten().numpy(), flat)


@pytest.mark.parametrize(("variables", "hidden"), [(12, 8), (192, 4)])
def test_sparsegpt_goes_from_column_to_column(variables, hidden):
    runs = dense(networks=2, variables=variables, hidden=hidden, samples=640)
    tickets = pc.find_tickets(runs, "sparsegpt", [0.5, 0.25])
    for network in range(2):
        weights, x = runs.weights["w1"][network].double().numpy(), embedded(runs, network)
        for found in tickets:
            expected = reference.sparsegpt(weights, x, found.density, DAMPING, 128)
            np.testing.assert_array_equal(found.masks["w1"][network].numpy(), expected)
    both = pc.find_tickets(runs, "sparsegpt", 0.3, prunable="all").found[0]
    size = variables * hidden
    assert int(both.masks["w1"][0].sum()) == round(round(0.3 * (size + hidden)) * size / (size + hidden))
    with pytest.raises(pc.UnsupportedError, match="sparsegpt removes single weights"):
        pc.find_tickets(runs, "sparsegpt", 0.5, granularity="row")


@pytest.mark.filterwarnings("ignore:train left the module:precode.TicketWarning")
def test_sparsegpt_takes_layers_wider_than_exact_removal_does():
    inputs = 4160
    module, x = nn.Linear(inputs, 2), torch.randn(200, inputs)
    x[:, 3] = 0
    data = x, torch.arange(200) % 2
    found = pc.find_ticket(module, "sparsegpt", 0.5, data, nn.functional.cross_entropy, train=lambda module: None)
    weights = module.weight.detach().double().numpy()
    expected = reference.sparsegpt(weights, x.double().numpy(), 0.5, DAMPING, 128)
    np.testing.assert_array_equal(found.masks["weight"].numpy(), expected)


@pytest.mark.filterwarnings("ignore:train left the module:precode.TicketWarning")
@pytest.mark.parametrize("inputs", [20, 700])
def test_sparsegpt_refuses_inputs_that_are_all_zero(inputs):
    data = torch.zeros(8, inputs), torch.arange(8) % 2
    with pytest.raises(pc.PrecodeValueError, match="the Hessian is zero"):
        pc.find_ticket(nn.Linear(inputs, 2), "sparsegpt", 0.5, data, nn.functional.cross_entropy, train=lambda _: None)


# --- modules --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(4, 6, 3, stride=2, dilation=2, padding=1, groups=2),
        nn.Conv2d(3, 4, (3, 2), padding="same", dilation=(1, 2)),
        nn.Conv2d(2, 4, 3, stride=2, padding=1, padding_mode="circular"),
        nn.Conv3d(2, 2, 2, padding=(1, 0, 1), groups=2),
        nn.Linear(5, 3),
    ],
)
def test_windows_are_what_the_weights_are_multiplied_with(layer):
    layer = layer.double()
    axes = layer.weight.ndim - 2
    shape = (2, layer.in_channels, *[7] * axes) if axes else (2, 4, 5)
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    groups = layer.groups if axes else 1
    seen = windows(layer, x)
    weight = layer.weight.flatten(1).unflatten(0, (groups, -1))
    ours = torch.einsum("spgi,goi->sgop", seen, weight).flatten(1, 2)
    expected = layer(x) - layer.bias.reshape(-1, *[1] * axes)
    if not axes:
        expected = expected.transpose(1, 2)
    torch.testing.assert_close(ours, expected.flatten(2))


def test_modules_of_linear_layers_have_the_tickets_of_their_stack(runs):
    bce = nn.functional.binary_cross_entropy_with_logits
    for network in range(2):
        trained = runs.module(network).double()

        def train(module, trained=trained):
            module.load_state_dict(trained.state_dict())

        data = (runs.data[network].x.double(), runs.data[network].y.double()[:, None])
        for method in ("obs", "obs-loss", "sparsegpt", "wanda"):
            ticket = pc.find_ticket(
                runs.start.module(network).double(), method, 0.4, data, bce, train=train, prunable=["0.weight"]
            )
            expected = pc.find_tickets(runs, method, 0.4).found[0].masks["w1"][network]
            assert torch.equal(ticket.masks["0.weight"], expected), method


@pytest.mark.filterwarnings("ignore:train left the module:precode.TicketWarning")
def test_convolutions_are_removed_group_by_group():
    layer = nn.Conv2d(4, 6, 3, groups=2, bias=False)
    module = nn.Sequential(layer, nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(6 * 4, 2))
    x, y = torch.randn(20, 4, 4, 4), torch.arange(20) % 2
    ticket = pc.find_ticket(
        copy.deepcopy(module), "obs", 0.5, (x, y), nn.functional.cross_entropy, train=lambda module: None,
        prunable=["0.weight"],
    )  # fmt: skip
    seen = windows(layer, x.double()).numpy()
    ways = []
    for group in range(2):
        # Positions are added up: a factor that changes no order.
        hessian = reference.hessian(seen[:, :, group].reshape(-1, 18), 0.0) * seen.shape[1]
        hessian += DAMPING * np.diag(hessian).mean() * np.eye(18)
        rows = layer.weight[3 * group : 3 * group + 3].detach().double().flatten(1).numpy()
        ways += [reference.remove_one_by_one(row, hessian) for row in rows]
    done = [0] * 6
    for _ in range(54):
        nexts = [way[1][n] if n < 18 else math.inf for way, n in zip(ways, done, strict=True)]
        done[int(np.argmin(nexts))] += 1
    for row, (order, _) in enumerate(ways):
        assert set(np.flatnonzero(ticket.masks["0.weight"][row].flatten().numpy())) == set(order[done[row] :])


def test_gradients_of_samples_are_those_of_their_own_losses():
    module = nn.Sequential(nn.Conv2d(2, 4, 2, groups=2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(16, 3)).double()
    x, y = torch.randn(10, 2, 3, 3, dtype=torch.float64), torch.arange(10) % 3
    names = ["0.weight", "3.weight"]
    rows = []
    for i in range(10):
        loss = nn.functional.cross_entropy(module(x[i : i + 1]), y[i : i + 1])
        parts = torch.autograd.grad(loss, [module.get_parameter(name) for name in names])
        rows.append(torch.cat([part.flatten() for part in parts]))
    rows = torch.stack(rows)
    randomness = Randomness([], 0, [])
    batches = Batches([(x[:4], y[:4]), (x[4:], y[4:])], torch.device("cpu"), randomness, lambda: None)
    asked = ModuleObjective(module, names, batches, nn.functional.cross_entropy, None, 1, adam, randomness, None)
    fisher = asked.fisher([value for _, value, _ in asked.parameters])
    torch.testing.assert_close(fisher, rows.T @ rows / 10)


# --- reading early --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", EARLY)
def test_methods_are_read_at_the_epochs_they_are_told(runs, method):
    tickets = pc.find_tickets(runs, method, [0.5, 0.1], at=[0, 2, 5])
    table = tickets.table()
    assert table["probe_epoch"].unique().tolist() == [0, 2, 5]
    assert (table["dense_epochs"] <= table["probe_epoch"]).all()
    assert method.startswith("early-bird") or (table["dense_epochs"] == table["probe_epoch"]).all()
    for found in tickets:
        assert found.kept.tolist() == [round(found.density * 96)] * 3
        assert torch.equal(found.start.weights["w1"], runs.start.weights["w1"] * found.masks["w1"])
    usual = next(row["reads_at"] for row in _precode.methods() if row["name"] == method)
    # These two have two moments of their own: one for the clauses, one for the rows.
    if usual is not None and method not in ("distance-blind", "motion-blind"):
        own, told = pc.find_tickets(runs, method, 0.5), pc.find_tickets(runs, method, 0.5, at=usual)
        assert torch.equal(own.found[0].masks["w1"], told.found[0].masks["w1"])
        assert own.table()["probe_epoch"].tolist() == [usual] * 3


def test_what_is_read_is_the_run_itself():
    kept = dense(snapshots=[10, 15], early_stopping=pc.EarlyStopping(patience=1, min_delta=0.1))
    bare = dense(early_stopping=pc.EarlyStopping(patience=1, min_delta=0.1))
    assert kept.epochs_run.min() < 5
    for runs in (kept, bare):
        tickets = pc.find_tickets(runs, ["checkpoint-magnitude", "snip", "magnitude"], 0.25, at=[2, 3])
        for at in (2, 3):
            expected = pc.find_tickets(runs, "magnitude-init", 0.25).found[0]
            scores = tickets.get("checkpoint-magnitude", 0.25, at).scores["w1"]
            assert torch.equal(scores.double(), kept.at(5 * at).weights["w1"].abs().double())
            assert tickets.get("snip", 0.25, at).epochs.tolist() == np.minimum(kept.epochs_run, at).tolist()
            assert not torch.equal(expected.masks["w1"], tickets.get("snip", 0.25, at).masks["w1"])
        assert tickets.get("magnitude", 0.25).probe_epoch is None
        assert len(tickets) == 5
    with pytest.raises(pc.PrecodeValueError, match=r"several tickets of 'snip'.*epochs 2, 3 with at="):
        tickets.get("snip", 0.25)
    with pytest.raises(pc.PrecodeValueError, match=r"no tickets of 'magnitude' at density 0\.25, read at epoch 2"):
        tickets.get("magnitude", 0.25, 2)
    retrained = tickets.retrain(test=100)
    assert retrained.table().groupby(["method", "probe_epoch"], dropna=False).size().tolist() == [3] * 5
    assert len(retrained.summary()) == 5
    assert torch.equal(retrained.networks("snip", 0.25, 2).weights["w1"] != 0, tickets.get("snip", 0.25, 2).masks["w1"])
    assert tickets.ticket(0, "snip", 0.25, 3).kept == 24


# --- rewinding ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", REWINDING)
def test_rewound_tickets_start_in_the_dense_run(method):
    runs = dense(snapshots=[10])
    tickets = pc.find_tickets(runs, method, 0.5, rewind=2)
    found = tickets.found[0]
    assert found.first_epoch == 2
    if not METHODS.loc[method, "features"]:
        assert torch.equal(found.start.weights["w1"], runs.at(10).weights["w1"] * found.masks["w1"])
    for name in ("b1", "w2", "b2"):
        assert torch.equal(found.start.weights[name], runs.at(10).weights[name])
    table = tickets.retrain(test=100).table()
    assert table["start_epoch"].tolist() == [2] * 3
    if METHODS.loc[method, "schedule"].startswith("one shot"):
        assert torch.equal(found.masks["w1"], pc.find_tickets(runs, method, 0.5).found[0].masks["w1"])


def test_a_rewound_ticket_goes_on_as_the_run_did(runs):
    tickets = pc.find_tickets(runs, "obs", [1.0, 0.5], rewind=2)
    retrained = tickets.retrain(test=100)
    start = tickets.get("obs", 0.5).start
    plain = pc.train(
        runs.tasks, data=runs.data, init=start.weights, masks=tickets.get("obs", 0.5).masks, epochs=3, lr=0.02,
        early_stopping=None, first_epoch=2,
    )  # fmt: skip
    assert torch.equal(retrained.networks("obs", 0.5).weights["w1"], plain.weights["w1"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(at=6), "at = 6: the dense run has 5 epochs; train for more"),
        (dict(at=[0, 60]), "at = 60: the dense run has 5 epochs"),
        (dict(at=-1), "at = -1"),
        (dict(at=[]), "at is empty"),
        (dict(at=1.5), "at must be integers"),
        (dict(methods=["magnitude", "obs"], at=1), "at = 1: magnitude, obs cannot be read early"),
        (dict(rewind=2), "rewind = 2: snip cannot rewind, but magnitude, .*obs"),
        (dict(methods=["obs", "imp-finetune"], rewind=1), "rewind = 1: imp-finetune cannot rewind"),
        (dict(methods="obs", rewind=5), "rewind = 5: the dense run has 5 epochs"),
        (dict(methods="obs:reinit", rewind=1), "leave rewind out"),
    ],
)
def test_moments_that_there_are_not_are_refused(runs, options, message):
    error = pc.PrecodeTypeError if options.get("at") == 1.5 else pc.PrecodeValueError
    with pytest.raises(error, match=message):
        pc.find_tickets(runs, **{"methods": "snip", "densities": 0.5, **options})


def test_hessians_that_do_not_fit_are_refused_before_any_training(monkeypatch):
    monkeypatch.setattr(memory, "free", lambda device: (2**28, "are free"))
    module, data = nn.Linear(4000, 2), (torch.randn(4, 4000), torch.arange(4) % 2)
    with pytest.raises(pc.UnsupportedError, match="a Hessian for each layer, of up to 4000 inputs, needs"):
        pc.find_ticket(
            module, "sparsegpt", 0.5, data, nn.functional.cross_entropy, train=lambda _: pytest.fail("trained")
        )


def test_layers_too_wide_for_exact_removal_are_refused_before_any_training():
    module = nn.Sequential(nn.Conv1d(1025, 2, 4), nn.Flatten(), nn.Linear(2, 2))
    data = torch.randn(4, 1025, 4), torch.arange(4) % 2
    trained = []
    for method in ("obs", "obs-rounds", "obs:reinit"):
        with pytest.raises(pc.PrecodeValueError, match=r"output of '0.weight' has 4100 inputs, .* at most 4096"):
            pc.find_ticket(module, method, 0.5, data, nn.functional.cross_entropy, train=trained.append)
    wider, far = nn.Sequential(nn.Flatten(), nn.Linear(16_388, 2)), (torch.randn(4, 4097, 4), data[1])
    with pytest.raises(pc.PrecodeValueError, match=r"output of '1.weight' has 16388 inputs, .* at most 16384"):
        pc.find_ticket(wider, "sparsegpt", 0.5, far, nn.functional.cross_entropy, train=trained.append)
    with pytest.raises(pc.PrecodeValueError, match="Fisher matrix of 8204 prunable weights"):
        pc.find_ticket(module, "obs-loss", 0.5, data, nn.functional.cross_entropy, train=trained.append)
    assert trained == []
    thin = pc.find_ticket(module, "obs", 0.5, data, nn.functional.cross_entropy, exclude="0", epochs=1)
    assert list(thin.masks) == ["2.weight"]
