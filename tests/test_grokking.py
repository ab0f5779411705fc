"""Networks that generalize late: their training against plain PyTorch, and answers that are known."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import precode as pc
from precode._internal.threads import one_thread
from precode.experiments import delaying
from precode.experiments import grokking_cells as grokking

GROKKING = pc.experiments.grokking
MODULUS, EMBEDDING, HIDDEN = 11, 9, 6


class Adder(nn.Module):
    """softmax(ReLU((E_a + E_b) W_in) W_out W_unembed) as it is written, in double precision, without its softmax."""

    def __init__(self, weights, network):
        super().__init__()
        for name, value in weights.items():
            self.register_parameter(name, nn.Parameter(value[network].double().clone()))

    def forward(self, pairs):
        e = self.embed.T[pairs[:, 0]] + self.embed.T[pairs[:, 1]]
        return torch.relu(e @ self.w_in.T) @ self.w_out.T @ self.unembed.T

    def accuracy(self, pairs):
        return float((self(pairs).argmax(1) == pairs.sum(1) % MODULUS).double().mean())


@pytest.fixture(scope="module", autouse=True)
def small_steps():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def data():
    return delaying.split(MODULUS, 0.6, seed=1)


@pytest.fixture(scope="module")
def weights():
    found = [delaying.initial(MODULUS, EMBEDDING, HIDDEN, seed) for seed in range(3)]
    return {name: torch.cat([item[name] for item in found]) for name in delaying.LAYERS}


@pytest.fixture(scope="module")
def masks(weights):
    return torch.rand(delaying.flatten(weights).shape, generator=torch.Generator().manual_seed(5)) < 0.5


def plain_steps(network, data, masks, lr, decay, steps, every):
    """AdamW by torch.optim, whose masked weights are put back to zero; accuracies every so often."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=decay, betas=(0.9, 0.98))
    found = []
    for step in range(steps + 1):
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter *= masks[name]
        if step % every == 0:
            found.append((network.accuracy(data.train), network.accuracy(data.test)))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(data.train), data.train.sum(1) % MODULUS)
        loss.backward()
        if step < steps:
            optimizer.step()
    return np.array(found)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_training_is_that_of_plain_pytorch(weights, masks, data, masked, decay):
    rule = {"lr": 0.01, "decay": decay, "steps": 60, "every": 20}
    course = delaying.descend(weights, data, masks=masks if masked else None, **rule)
    there = delaying.layers(masks if masked else torch.ones_like(masks), weights)
    for network in range(3):
        plain = Adder(weights, network)
        found = plain_steps(plain, data, {name: value[network] for name, value in there.items()}, **rule)
        np.testing.assert_allclose(course.train[:, network], found[:, 0], atol=0.02)
        np.testing.assert_allclose(course.test[:, network], found[:, 1], atol=0.04)
        for name, parameter in plain.named_parameters():
            torch.testing.assert_close(course.weights[name][network].double(), parameter, atol=1e-4, rtol=1e-3)
    if masked:
        assert (delaying.flatten(course.weights)[~masks] == 0).all()


def test_tables_are_the_full_product(weights, data):
    found = delaying.logits(weights, data.test)
    for network in range(3):
        expected = Adder(weights, network)(data.test)
        torch.testing.assert_close(found[network].double(), expected, atol=1e-5, rtol=1e-4)
        inputs = delaying.two_hot(data.test, MODULUS)
        torch.testing.assert_close(delaying.module(weights, network)(inputs).double(), expected, atol=1e-5, rtol=1e-4)


def test_pairs_are_all_and_once(data):
    pairs = sorted(map(tuple, torch.cat([data.train, data.test]).tolist()))
    assert pairs == [(a, b) for a in range(MODULUS) for b in range(a + 1)]
    assert len(data.train) == int(0.6 * 66)


def test_networks_stop_where_they_generalize_and_others_go_on(weights, masks, data):
    rule = {"lr": 0.01, "decay": 1.0, "steps": 60, "every": 20}
    whole = delaying.descend(weights, data, masks=masks, level=0.05, **rule)
    course = delaying.descend(weights, data, masks=masks, level=0.05, after=0, **rule)
    assert torch.equal(course.memorized.nan_to_num(-1), whole.memorized.nan_to_num(-1))
    assert torch.equal(course.generalized.nan_to_num(-1), whole.generalized.nan_to_num(-1))
    stopped = 0
    for network in range(3):
        above = (whole.test[:, network] > 0.05).nonzero()
        first = int(above[0]) if len(above) else len(whole.steps) - 1
        assert (math.nan if not len(above) else first * 20) == pytest.approx(
            float(whole.generalized[network]), nan_ok=True
        )
        mine = course.test[: first + 1, network]
        torch.testing.assert_close(mine, whole.test[: first + 1, network], atol=0.04, rtol=0)
        assert course.test[first + 1 :, network].isnan().all()
        stopped += len(above) > 0
        if len(above):
            early = delaying.descend(weights, data, masks=masks, **{**rule, "steps": first * 20})
            for name, value in course.weights.items():
                torch.testing.assert_close(value[network], early.weights[name][network], atol=1e-5, rtol=1e-4)
    assert stopped > 0


def test_edge_popup_is_that_of_plain_pytorch(weights, data):
    rule = {"lr": 0.02, "decay": 1.0, "steps": 20, "every": 10}
    for learned in (True, False):
        numbers, test = delaying.popup(weights, data, kept=0.4, learned=learned, seed=7, **rule)
        assert numbers.tolist() == [0, 10, 20]
        # One generator draws the scores of all networks, layer by layer.
        generator = torch.Generator().manual_seed(7)
        drawn = {
            name: (2 * torch.rand(value.shape, generator=generator) - 1) / math.sqrt(value.shape[2])
            for name, value in weights.items()
        }
        for network in range(3):
            scores = {name: nn.Parameter(value[network].double().clone()) for name, value in drawn.items()}
            values = {name: nn.Parameter(value[network].double().clone()) for name, value in weights.items()}
            moving = [*scores.values(), *(values.values() if learned else [])]
            optimizer = torch.optim.AdamW(moving, lr=0.02, weight_decay=1.0, betas=(0.9, 0.98))
            for step in range(21):
                effective = {}
                for name, score in scores.items():
                    strength = score.abs()
                    kept = torch.zeros(score.numel(), dtype=torch.float64)
                    kept[strength.flatten().argsort(descending=True)[: round(0.4 * score.numel())]] = 1
                    through = kept.view_as(score) + strength - strength.detach()
                    effective[name] = (values[name] * through)[None]
                adder = Adder({name: value.detach() for name, value in effective.items()}, 0)
                if step % 10 == 0:
                    assert test[step // 10, network] == pytest.approx(adder.accuracy(data.test), abs=0.08)
                e = effective["embed"][0].T
                hidden = torch.relu((e[data.train[:, 0]] + e[data.train[:, 1]]) @ effective["w_in"][0].T)
                logits = hidden @ effective["w_out"][0].T @ effective["unembed"][0].T
                optimizer.zero_grad()
                nn.functional.cross_entropy(logits, data.train.sum(1) % MODULUS).backward()
                optimizer.step()


# --- the experiment -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def settings():
    cells = grokking.points({**GROKKING.setting, **GROKKING.quick})
    return {cell["cell"]: cell for cell in cells}


def test_networks_start_as_they_are_called(settings):
    cell = settings["tickets"]
    data = delaying.split(cell["modulus"], cell["share"], 3)
    dense = grokking.train_dense(cell, 3, data)
    found = grokking.variants(cell, 3, data, dense)
    theta = delaying.flatten(dense.kept[0])
    ticket = found[0]
    assert (ticket.networks, ticket.read, ticket.pruned) == ("magnitude", 120, 0.6)
    last = delaying.flatten(dense.kept[120]).abs()[0]
    kept = set(last.argsort(descending=True)[: round(0.4 * last.numel())].tolist())
    assert set(ticket.mask[0].nonzero()[:, 0].tolist()) == kept
    for item in found:
        assert torch.equal(delaying.flatten(item.start), theta) == (item.networks not in ("dense-l1", "dense-l2"))
        if item.mask is not None:
            assert int((~item.mask).sum()) == pytest.approx(item.pruned * theta.numel(), abs=1)
    norms = {item.networks: item for item in found if item.networks.startswith("dense-l")}
    assert norms["dense-l1"].norm(1) == pytest.approx(ticket.norm(1), rel=1e-5)
    assert norms["dense-l2"].norm(2) == pytest.approx(ticket.norm(2), rel=1e-5)
    assert {item.decay for item in found} == {0.0, 1.0}


def test_times_and_their_ratio_are_read_off_curves(settings):
    theta = delaying.initial(11, 4, 3, 0)
    item = grokking.Variant("magnitude", 0.5, 100, theta, torch.ones(1, 112, dtype=torch.bool), 1.0)
    item.mask[:, 44:48] = False  # the first neuron's inputs
    course = delaying.Course(
        steps=torch.tensor([0, 20, 40]),
        train=torch.tensor([[0.1], [0.97], [1.0]]),
        test=torch.tensor([[0.0], [0.5], [0.96]], dtype=torch.float64),
        memorized=torch.tensor([16.0]),
        generalized=torch.tensor([40.0]),
        weights=theta,
        kept={},
    )
    row = grokking.described(settings["tickets"], [item], course).iloc[0]
    assert (row["tau"], row["test"], row["ended"], row["dead"]) == (2.5, 0.96, 40, 1)
    assert row["l1"] == pytest.approx(float((delaying.flatten(theta) * item.mask).abs().sum()))


def test_distances_of_known_masks(settings):
    first = {name: torch.ones(1, 2, 5) for name in delaying.LAYERS}
    one = torch.tensor([True, True, False, False])
    assert delaying.jaccard_distance(one, one) == 0
    assert delaying.jaccard_distance(one, ~one) == 1
    assert delaying.jaccard_distance(one, torch.tensor([True, False, True, True])) == 0.75
    assert delaying.flatten(first).shape == (1, 40)


def test_a_seed_is_the_same_whatever_is_computed_with_it(settings):
    for cell in settings.values():
        both = grokking.compute(cell, {"formula": (0, 1)})
        alone = grokking.compute(cell, {"formula": (1,)})
        for name, table in alone.items():
            if len(table):
                mine = both[name][both[name]["formula"] == 1].reset_index(drop=True)
                assert mine.equals(table.reset_index(drop=True)), name


def test_the_quick_form_runs_and_draws():
    plt = pytest.importorskip("matplotlib.pyplot")
    result = GROKKING(**GROKKING.quick, progress=False)
    assert result.reported["measured"].notna().sum() == 3
    assert result.reported["second_hand"].all()
    table = result.table.set_index(["networks", "quantity"])
    assert (table.loc[("dense", "memorized"), "reached"] == 2).all()
    for figure in result.figures:
        assert result.plot(figure).get_ylabel()
        plt.close("all")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (dict(modulus=2), "modulus = 2"),
        (dict(kept=0.0), "kept"),
        (dict(moments=(30,)), "moments = 30: expected a multiple of apart = 2000"),
        (dict(apart=30), "apart = 30: expected a multiple of every = 20"),
        (dict(popup_steps=(50,)), "popup_steps = 50"),
        (dict(rates=(1.5,)), "rates"),
    ],
)
def test_impossible_settings_are_refused_before_any_training(setting, message):
    with pytest.raises(pc.PrecodeValueError, match=message):
        GROKKING(progress=False, **setting)
