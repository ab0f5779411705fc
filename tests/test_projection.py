"""A C0 of each network's own: against autograd, in its three modes, with masks, tickets, modules and files."""

import copy
import pickle

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import precode as pc
from precode import _precode
from precode.cli import main
from precode.study import StudyConfig

TASKS = [pc.Dnf.random(variables=12, clauses=4, width=3, seed=0, index=index) for index in range(3)]
SETTING = dict(hidden=9, samples=640, epochs=4, early_stopping=None, optimizer=pc.Optimizer("adam", lr=0.01, eps=1e-3))


def projected(train=True, width=5, **options):
    return pc.train(TASKS, embedding=pc.Projection(width, train=train), **(SETTING | options))


@pytest.fixture(scope="module", params=[True, False, "dense"])
def runs(request):
    return projected(request.param, snapshots=[0, 10])


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    ("engine", "dtype", "tolerance"),
    [("fused", "float32", 2e-4), ("libtorch", "float32", 2e-4), ("libtorch", "float64", 1e-10)],
)
def test_engines_follow_torch(engine, dtype, tolerance, train):
    runs = projected(train, engine=engine, dtype=dtype)
    assert runs.engine == engine
    for network, data in enumerate(runs.data):
        module = nn.Sequential(nn.Linear(12, 5, bias=False), nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 1)).double()
        with torch.no_grad():
            weights = {name: value[network].double() for name, value in runs.start.weights.items()}
            module[0].weight.copy_(weights["c0"]).requires_grad_(train)
            module[1].weight.copy_(weights["w1"])
            module[1].bias.copy_(weights["b1"])
            module[3].weight.copy_(weights["w2"])
            module[3].bias.copy_(weights["b2"])
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=0.01, eps=1e-3)
        for epoch in range(4):
            order = torch.from_numpy(_precode.epoch_order(0, epoch, 640).astype(np.int64))
            for batch in order.split(64):
                logits = module(data.x[batch].double())[:, 0]
                loss = nn.functional.binary_cross_entropy_with_logits(logits, data.y[batch].double())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        expected = {"c0": module[0].weight, "w1": module[1].weight, "w2": module[3].weight[0], "b1": module[1].bias}
        for name, value in expected.items():
            off = (runs.weights[name][network].double() - value).abs().max() / value.abs().max()
            assert off < tolerance, f"{name} of network {network}: {off:.1e}"


def test_c0_is_drawn_as_torch_draws_it_and_nothing_else_changes():
    runs = projected()
    c0 = runs.start.weights["c0"]
    assert c0.shape == (3, 5, 12)
    assert c0.abs().max() <= 12**-0.5
    assert c0.abs().max() > 0.9 * 12**-0.5
    narrow = _precode.linear_init([5, 9, 1], 0, [0, 1, 2])
    assert torch.equal(runs.start.weights["w1"], narrow[0][0])
    alone = pc.train(TASKS[2], embedding="projection-5", indices=[2], **SETTING)
    assert all(torch.equal(alone.weights[name][0], runs.weights[name][2]) for name in runs.weights)
    assert torch.equal(projected(seed=0).weights["c0"], runs.weights["c0"])
    assert not torch.equal(projected(seed=1).start.weights["c0"], c0)


def test_modes_and_features(runs):
    trained = runs.embedding.projection.train is not False
    assert torch.equal(runs.start.weights["c0"], runs.weights["c0"]) != trained
    for moment in (runs, runs.start, runs.at(10)):
        expected = moment.weights["w1"].double() @ moment.weights["c0"].double()
        torch.testing.assert_close(moment.features.double(), expected, rtol=1e-5, atol=1e-6)
        logits = torch.stack([moment.module(i)(data.x.float())[:, 0] for i, data in enumerate(runs.data)])
        wrong = ((logits > 0) != torch.stack([data.y for data in runs.data])).double().mean(1)
        np.testing.assert_allclose(moment.evaluate(runs.data)["error"], wrong, atol=1.1 / 640)
        bare = pc.decode(moment.weights["w1"], moment.weights["w2"], TASKS, embedding=moment.weights["c0"])
        assert np.array_equal(bare.channels(), moment.codes().channels())
    assert torch.equal(runs.at(0).weights["c0"], runs.start.weights["c0"])
    assert torch.equal(runs[1].features, runs.features[1:2])
    again = pickle.loads(pickle.dumps(runs))
    assert torch.equal(again.weights["c0"], runs.weights["c0"])


def test_modules_hold_c0_as_their_first_layer(runs):
    module = runs.module(1)
    first = next(module.children())
    assert isinstance(first, nn.Linear)
    assert first.bias is None
    assert torch.equal(first.weight, runs.weights["c0"][1])
    assert first.weight.requires_grad == (runs.embedding.projection.train is not False)
    data = runs.data[1]
    ticket = pc.find_ticket(copy.deepcopy(module), method="magnitude-init", density=0.5)
    assert set(ticket.masks) == {"0.weight", "2.weight"}
    before = module(data.x.float())
    first.weight.data.zero_()
    assert torch.equal(runs.module(1)(data.x.float()), before)


@pytest.mark.parametrize("method", ["snip", "imp", "distance+motion", "imp-rewind", "gem-miner", "synflow", "grasp"])
def test_tickets_obey_the_mode(runs, method):
    tickets = pc.find_tickets(runs, method, 0.4)
    found, mode = tickets.get(method, 0.4), runs.embedding.projection.train
    assert set(found.masks) == {"w1"}
    assert found.kept.tolist() == [18] * 3
    retrained = tickets.retrain(test=200).networks(method, 0.4)
    assert (retrained.weights["w1"][~found.masks["w1"]] == 0).all()
    assert (retrained.weights["c0"] != 0).all()
    start = found.start.weights
    assert torch.equal(start["c0"], retrained.weights["c0"]) == (mode is not True)
    if mode == "dense":
        assert torch.equal(start["c0"], runs.weights["c0"])
    elif method != "imp-rewind":
        assert torch.equal(start["c0"], runs.start.weights["c0"])
    if method != "imp-rewind":
        assert torch.equal(start["w1"], runs.start.weights["w1"] * found.masks["w1"])


def test_tickets_of_feature_space_need_no_c0(runs):
    found = pc.find_tickets(runs, "basis-magnitude", 0.25).get("basis-magnitude", 0.25)
    assert found.start.embedding.name == "identity"
    assert found.start.weights["w1"].shape == (3, 9, 12)
    assert "c0" not in found.start.weights


def test_every_method_finds_tickets():
    runs = projected(epochs=2, samples=128)
    table = pc.find_tickets(runs, "all", 0.5).retrain(test=100).table()
    assert table["accuracy"].between(0, 1).all()
    assert (table.groupby("method")["kept"].nunique() == 1).all()


def test_ticket_files_hold_c0(runs, tmp_path):
    ticket = pc.find_tickets(runs, "snip", 0.4).ticket(1, "snip", 0.4)
    ticket.save(tmp_path / "ticket.safetensors")
    loaded = pc.Ticket.load(tmp_path / "ticket.safetensors")
    other = runs.module(0)
    loaded.apply_(other)
    start = pc.find_tickets(runs, "snip", 0.4).get("snip", 0.4).start
    x = runs.data[1].x.float()
    torch.testing.assert_close(other(x), start.module(1)(x))
    for stranger in (pc.train(TASKS[0], **SETTING), projected(width=7)):
        with pytest.raises(pc.PrecodeError, match=r"embedding\.weight|0\.weight"):
            loaded.apply_(stranger.module(0))


def test_a_line_between_networks_moves_c0_too(runs):
    table = pc.analyses.path(runs.start, runs, runs.data, points=3)
    np.testing.assert_allclose(table["loss"][2::3], runs.evaluate()["loss"], rtol=1e-5)


def test_masks_prune_w1_alone():
    masks = {"w1": torch.rand(3, 9, 5, generator=torch.Generator().manual_seed(0)) < 0.4}
    for engine in ("fused", "libtorch"):
        runs = projected(masks=masks, engine=engine)
        assert (runs.weights["w1"][~masks["w1"]] == 0).all()
        assert not torch.equal(runs.weights["c0"], runs.start.weights["c0"])
    with pytest.raises(pc.PrecodeValueError, match="mask for c0"):
        projected(masks={"c0": np.ones((3, 5, 12), dtype=bool)})


def test_names_are_taken_everywhere():
    for name, projection in {
        "projection-5": pc.Projection(5),
        "projection-5-fixed": pc.Projection(5, train=False),
        "projection-5-dense": pc.Projection(5, train="dense"),
    }.items():
        assert projection.name == name
        assert projection == eval(repr(projection).replace("Projection", "pc.Projection"))
        runs = pc.train(TASKS[0], hidden=4, samples=64, epochs=1, embedding=name)
        assert runs.embedding.projection == projection
        assert runs.embedding.name == name
    result = CliRunner().invoke(main, ["tickets", "--embedding", "projection-x"])
    assert result.exit_code == 2
    assert "projection-M" in result.output


def test_studies_know_projections():
    names = ["projection-16", "hadamard", "projection-8-dense", "projection-8"]
    config = StudyConfig.preset("quick", embeddings=names)
    assert config.embeddings == ("hadamard", "projection-8", "projection-8-dense", "projection-16")
    assert StudyConfig.from_json(config.to_json()).key == config.key
    with pytest.raises(pc.PrecodeValueError, match="projection-M"):
        StudyConfig.preset("quick", embeddings=["projection-016"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: projected(width=13), "projection of width 13 is wider than the 12 variables: use at most 12"),
        (lambda: pc.Projection(0), "width"),
        (lambda: pc.Projection(4, train="once"), "train = 'once': use True, False or 'dense'"),
        (lambda: projected(init=_init(c0=None)), "have no 'c0'"),
        (lambda: projected(init=_init(c0=torch.zeros(3, 5, 11))), "c0 of shape"),
        (lambda: projected(init=_init(c0=torch.zeros(2, 5, 12))), "c0 of shape"),
        (lambda: projected(init=_init(c0=torch.full((3, 5, 12), torch.nan))), "C0 contains NaN"),
        (lambda: pc.train(TASKS, init=_init(width=12), **_without_hidden()), "pc.Projection"),
        (lambda: pc.decode(np.ones((2, 5)), np.ones(2), TASKS[0], embedding="projection-5"), "weights\\['c0'\\]"),
        (lambda: pc.train(TASKS, embedding="projection-5-frozen"), "projection-M-fixed"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(pc.PrecodeError, match=message):
        make()


def _without_hidden():
    return {name: value for name, value in SETTING.items() if name != "hidden"}


def _init(width=5, **c0):
    layers = _precode.linear_init([width, 9, 1], 0, [0, 1, 2])
    weights = {"w1": layers[0][0], "b1": layers[0][1], "w2": layers[1][0][:, 0], "b2": layers[1][1][:, 0]}
    c0 = c0.get("c0", torch.rand(3, width, 12))
    return weights if c0 is None else {**weights, "c0": c0}


def test_an_explicit_c0_is_the_start():
    init = _init()
    runs = projected(init=init)
    assert torch.equal(runs.start.weights["c0"], init["c0"])
    later = projected(init=runs.weights, epochs=1)
    assert torch.equal(later.start.weights["c0"], runs.weights["c0"])
