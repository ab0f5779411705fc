"""Methods beside one another on any module: `precode.compare`."""

import copy

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import precode as pc
from precode.modules.comparing import Comparison

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:nothing is kept of:precode.TicketWarning"),
]


def make():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def data(samples=96):
    x = torch.randn(samples, 6, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] * x[:, 1] > 0).long()


def sgd(parameters):
    return torch.optim.SGD(parameters, 0.1, momentum=0.9)


def accuracy(network, x, y):
    return float((network.eval()(x).argmax(1) == y).double().mean())


def test_a_row_is_what_find_apply_train_and_test_give():
    (x, y), module = data(), make()
    before, state = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    batches = [(x[:32], y[:32]), (x[32:64], y[32:64])]
    got = pc.compare(
        module,
        ["random", "snip", "imp"],
        [0.6, 0.3],
        batches,
        cross_entropy,
        test=(x[64:], y[64:]),
        epochs=4,
        optimizer=sgd,
        seeds=[3],
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())

    def trained(network):
        optimizer = sgd(network.parameters())
        for _ in range(4):
            for inputs, labels in batches:
                optimizer.zero_grad()
                cross_entropy(network(inputs), labels).backward()
                optimizer.step()
        return accuracy(network, x[64:], y[64:])

    assert got.table["dense_accuracy"].tolist() == [trained(copy.deepcopy(module))] * 6
    assert got.table[["method", "density"]].to_numpy().tolist() == [
        [method, density] for method in ("random", "snip", "imp") for density in (0.6, 0.3)
    ]
    for row in got.table.itertuples():
        ticket = pc.find_ticket(
            module, row.method, row.density, batches, cross_entropy, epochs=4, optimizer=sgd, seed=3
        )
        assert row.kept == ticket.kept
        assert row.accuracy == trained(ticket.apply_(copy.deepcopy(module)))
        assert (row.gradients, row.epochs) == tuple(ticket.cost.values())


def test_seeds_intervals_plots_and_own_measures():
    pytest.importorskip("scipy")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    x, y = data(48)
    loader = DataLoader(TensorDataset(x, y), 16, shuffle=True)

    def loss_of(network):
        assert not network.training
        return cross_entropy(network(x), y)

    arguments = ([0.5, 0.2], loader, cross_entropy)
    settings = {"epochs": 2, "optimizer": sgd, "metric": "loss", "test": loss_of, "seeds": 3}
    got = pc.compare(make, ["random", lambda name, weight, gradient: weight.abs()], *arguments, **settings)
    assert got.table.groupby("seed")["dense_loss"].nunique().tolist() == [1, 1, 1]
    assert got.table["dense_loss"].nunique() == 3
    again = pc.compare(make, ["random"], *arguments, **settings)
    both = got.table.query("method == 'random'").reset_index(drop=True).drop(columns="seconds")
    assert both.equals(again.table.drop(columns="seconds"))
    summary = got.summary()
    assert list(summary) == ["method", "density", "mean", "low", "high", "gain"]
    assert (summary["low"] <= summary["mean"]).all()
    assert (summary["mean"] <= summary["high"]).all()
    wide = got.table.pivot_table(index=["density", "seed"], columns="method", values="loss")
    gain = (wide["<lambda>"] - wide["random"]).groupby("density").mean()
    assert summary.query("method != 'random'").set_index("density")["gain"].to_dict() == pytest.approx(gain.to_dict())
    assert repr(got) == "Comparison(methods=2, densities=2, seeds=3, metric='loss')"
    assert "<table" in got._repr_html_()
    ax = got.plot()
    assert ax.get_ylabel() == "loss"
    pyplot.close(ax.figure)


def test_methods_that_cannot_be_run_are_named():
    (x, y), settings = data(48), {"epochs": 1, "optimizer": sgd, "seeds": 1}
    data_ = (x, y)
    with pytest.warns(pc.TicketWarning, match="'distance' is left out: method 'distance' needs clauses"):
        got = pc.compare(make(), ["snip", "distance"], 0.5, data_, cross_entropy, test=data_, **settings)
    assert got.table["method"].tolist() == ["snip"]
    assert got.refused.keys() == {"distance"}
    for arguments, error, message in [
        ({"methods": "distance"}, pc.PrecodeValueError, "no method can be run: distance: "),
        ({"methods": []}, pc.PrecodeValueError, "nothing to compare"),
        ({"model": 3}, pc.PrecodeTypeError, "model must be a module or a function that makes one, not int"),
        ({"test": lambda network: "good"}, pc.PrecodeTypeError, "test must return a number, not str"),
        ({"test": (x, y.float()[:, None])}, pc.PrecodeValueError, r"labels have shape \(48, 1\)"),
        ({"loss": None}, pc.PrecodeValueError, "pass data= and loss=, or train="),
        ({"seeds": 0}, pc.PrecodeValueError, "seeds = 0"),
        ({"optimizer": "adam"}, pc.PrecodeTypeError, "optimizer must be a function, not str"),
        ({"loss": nn.CrossEntropyLoss}, pc.PrecodeTypeError, r"loss is the class CrossEntropyLoss: pass one of it"),
    ]:
        given = {"model": make(), "methods": "snip", "loss": cross_entropy, "test": data_} | settings | arguments
        with pytest.raises(error, match=message):
            pc.compare(densities=0.5, data=data_, **given)


def test_two_methods_of_one_name_are_refused_before_any_work():
    own = [lambda name, weight, gradient: weight.abs(), lambda name, weight, gradient: -weight.abs()]
    with pytest.raises(pc.PrecodeValueError, match="two methods are called '<lambda>': give each its name by"):
        pc.compare(make, own, 0.5, data(), cross_entropy, test=data(), epochs=1, seeds=1)


def test_a_method_that_one_seed_refuses_has_no_rows():
    seen = []

    def sometimes(name, weight, gradient):
        seen.append(name)
        return weight.abs() if len(seen) <= 2 else torch.full_like(weight, float("nan"))

    with pytest.warns(pc.TicketWarning, match="'sometimes' is left out: scores of .* are not finite"):
        got = pc.compare(
            make, ["random", sometimes], 0.5, data(), cross_entropy, test=data(), epochs=1, optimizer=sgd, seeds=2
        )
    assert set(got.table["method"]) == {"random"}
    assert list(got.refused) == ["sometimes"]


def test_a_function_is_not_called_as_a_method_of_the_registry():
    def snip(name, weight, gradient):
        return weight.abs()

    with pytest.raises(pc.PrecodeValueError, match="a function called 'snip', as one of the registry is: rename it"):
        pc.find_ticket(make(), snip, 0.5)


def test_labels_that_the_loss_ignores_are_not_wrong_answers():
    torch.manual_seed(0)
    x = torch.randn(40, 6)
    y = (x[:, 0] > 0).long()
    y[::2] = -100
    module = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))

    def right(network):
        counted = y != -100
        return float((network(x).argmax(1) == y)[counted].float().mean())

    options = {"epochs": 10, "seeds": 1}
    given = pc.compare(module, ["random"], [0.5], (x, y), cross_entropy, test=(x, y), **options).table
    by_hand = pc.compare(module, ["random"], [0.5], (x, y), cross_entropy, test=right, **options).table
    assert given["accuracy"].tolist() == pytest.approx(by_hand["accuracy"].tolist())
    assert given["dense_accuracy"].tolist() == pytest.approx(by_hand["dense_accuracy"].tolist())
    with pytest.raises(pc.PrecodeValueError, match="no label that counts"):
        pc.compare(module, ["random"], [0.5], (x, y), cross_entropy, test=(x, torch.full_like(y, -100)), **options)


def test_classes_along_two_axes_are_no_accuracy():
    x, y = torch.randn(40, 3, 10), torch.randint(3, (40, 3))

    def loss(output, y):
        return cross_entropy(output.flatten(0, 1), y.flatten())

    def model():
        return nn.Linear(10, 3)

    with pytest.raises(pc.PrecodeValueError, match=r"shape \(40, 3, 3\) may have their classes along the second or"):
        pc.compare(model, ["random"], [0.5], (x, y), loss, test=(x, y), epochs=1)


def test_one_logit_names_no_class():
    x, y = data()

    def loss(output, y):
        return nn.functional.binary_cross_entropy_with_logits(output[:, 0], y.float())

    with pytest.raises(pc.PrecodeValueError, match=r"outputs of shape \(96, 1\) name one class: pass a function"):
        pc.compare(lambda: nn.Linear(6, 1), ["random"], [0.5], (x, y), loss, test=(x, y), epochs=1)


class Fails(nn.Linear):
    """Outputs of finite weights that are no numbers in evaluation mode."""

    def forward(self, x):
        output = super().forward(x)
        return output if self.training else output.sqrt()


@pytest.mark.parametrize(("model", "rate"), [(make, 1e30), (lambda: Fails(6, 2), 0.1)])
def test_networks_that_diverge_have_no_accuracy(model, rate):
    x, y = data()
    with pytest.warns(
        pc.TicketWarning,
        match=r"accuracy is missing \(NaN\) .* of the dense network of seed 0; the dense network of seed 1; "
        r"'random' at density 0\.5 of seed 0; 'random' at density 0\.5 of seed 1; train so",
    ):
        got = pc.compare(
            model,
            ["random"],
            [0.5],
            (x[:48], y[:48]),
            cross_entropy,
            test=(x[48:], y[48:]),
            epochs=3,
            optimizer=lambda parameters: torch.optim.SGD(parameters, rate),
            seeds=2,
        )
    assert got.table[["accuracy", "dense_accuracy"]].isna().all(axis=None)
    assert got.summary()["mean"].isna().all()


def test_seeds_count_once_and_columns_have_one_name():
    x, y = data()

    def compared(**options):
        return pc.compare(make, ["random"], [0.5], (x, y), cross_entropy, test=lambda network: 0.5, epochs=1, **options)

    assert compared(seeds=[3, 3, 1]).table["seed"].tolist() == [3, 1]
    with pytest.raises(pc.PrecodeTypeError, match=r"pass seeds=\[3\]"):
        compared(seed=3)
    for metric in ("seed", "density", "gain", "dense_accuracy", 3):
        with pytest.raises(pc.PrecodeValueError, match="choose a name that is no other column"):
            compared(metric=metric)


def test_what_is_missing_of_a_seed_is_missing_in_the_summary():
    table = pd.DataFrame(
        {
            "method": ["random"] * 2 + ["snip"] * 4,
            "density": [0.5, 0.5, 0.5, 0.5, 0.2, 0.2],
            "seed": [0, 1] * 3,
            "accuracy": [0.5, 0.7, 0.8, float("nan"), 0.6, 0.8],
        }
    )
    summary = Comparison(table, "accuracy").summary()
    assert summary["mean"].isna().tolist() == [False, True, False]
    assert summary["low"].isna().tolist() == [False, True, False]
    assert summary["gain"].isna().tolist() == [False, True, True]
    assert summary["mean"][2] == pytest.approx(0.7)
