"""Error barriers of both definitions against plain PyTorch, and tickets trained on two orders of the data."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch

import precode as pc
from precode.experiments import neighbour_connectivity as connectivity
from precode.networks.stacks import Networks
from precode.networks.training import sample_all

CONNECTIVITY = pc.experiments.connectivity


@pytest.fixture(scope="module")
def settings():
    return {**next(iter(connectivity.points({**CONNECTIVITY.setting, **CONNECTIVITY.quick}))), "rewind": 2}


@pytest.fixture(scope="module")
def found(settings):
    return connectivity.compute(settings, {"formula": (0, 3)})


@pytest.fixture(scope="module")
def pair():
    tasks = [pc.Dnf.random(clauses=6, seed=5, index=index) for index in range(2)]
    return [
        pc.train(tasks, hidden=10, samples=1280, epochs=20, lr=0.01, embedding="projection-16", seed=seed)
        for seed in (0, 1)
    ]


def plain_error(module, data):
    with torch.no_grad():
        return ((module(data.x.float())[:, 0] > 0) != data.y).double().mean().item()


def test_barriers_are_those_of_modules_moved_along_the_line(pair):
    first, second = pair
    (table,) = connectivity.measure([(first, second)], first.data)
    alphas = np.linspace(0, 1, 11)
    for network in range(2):
        ends = [side.module(network) for side in pair]
        errors = []
        for alpha in alphas:
            middle = copy.deepcopy(ends[0])
            with torch.no_grad():
                for moved, end in zip(middle.parameters(), ends[1].parameters(), strict=True):
                    moved.mul_(1 - alpha).add_(alpha * end)
            errors.append(plain_error(middle, first.data[network]))
        straight = np.interp(alphas, [0, 1], [errors[0], errors[-1]])
        assert table["barrier_mean"][network] == pytest.approx(max(errors) - np.mean([errors[0], errors[-1]]), abs=2e-3)
        assert table["barrier_line"][network] == pytest.approx(max(np.array(errors) - straight), abs=2e-3)
        assert table["accuracy"][network] == pytest.approx(1 - errors[-1], abs=1e-3)
    assert (table["barrier_line"] > 0.02).all()  # two starts lie in two modes


def test_a_network_has_no_barrier_to_itself_and_one_to_itself_with_other_places(pair):
    runs = pair[0]
    weights = dict(runs.weights)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    for name in ("w1", "b1", "w2"):
        weights[name] = weights[name][:, order]
    same, permuted = connectivity.measure(
        [(runs, runs), (runs, Networks(weights, runs.tasks, runs.embedding))], runs.data
    )
    assert (same[["barrier_mean", "barrier_line"]] == 0).all(axis=None)
    assert (same[["recall", "jaccard"]] == 1).all(axis=None)
    np.testing.assert_allclose(permuted["accuracy"], permuted["accuracy_first"], atol=1e-3)
    assert (permuted["barrier_line"] > 0.02).all()
    assert (permuted["codes"] == same["codes"]).all()
    assert (permuted["recall"] < 1).all()


def test_ends_of_different_errors_have_no_barrier_above_a_straight_line():
    line = pd.DataFrame({"network": [0] * 3 + [1] * 3, "alpha": [0, 0.5, 1] * 2, "error": [0, 0.2, 0.4, 0.1, 0.5, 0.3]})
    mean, above = connectivity.barriers(line)
    np.testing.assert_allclose(mean, [0.2, 0.3])
    np.testing.assert_allclose(above, [0, 0.3])


def test_tickets_are_trained_again_from_the_epoch_on_two_orders(settings, found):
    indices = [0, 3]
    tasks = [pc.Dnf.random(clauses=8, seed=settings["seed"], index=index) for index in indices]
    shared = {"hidden": 32, "seed": settings["seed"], "samples": 2000, "indices": indices, "early_stopping": None}
    shared |= {"embedding": "projection-16-fixed", "lr": 0.01}
    early = pc.train(tasks, epochs=2, **shared)
    shared |= {"data": early.data, "epochs": 2, "first_epoch": 2, "init": early.weights}
    dense = pc.train(tasks, **shared)
    # The largest four fifths of the trained weights, each network by itself.
    masks = torch.zeros(2, 32, 16, dtype=torch.bool)
    for network in range(2):
        flat = dense.weights["w1"][network].abs().flatten()
        masks[network].view(-1)[flat.argsort(descending=True)[: round(0.8 * 512)]] = True
    orders = settings["seed"], settings["seed"] ^ connectivity.OTHER_ORDER
    tickets = [pc.train(tasks, **shared, masks={"w1": masks}, order_seed=order) for order in orders]
    assert not torch.equal(tickets[0].weights["w1"], tickets[1].weights["w1"])
    test = sample_all(tasks, 1000, sampler="broken-clause", seed=settings["seed"], indices=indices, purpose="test")
    first, *successive = connectivity.measure(
        [(tickets[0], tickets[1]), (dense, tickets[0]), (dense, tickets[1])], test
    )
    rows = found["orders"].query("round == 1 and masks == 'magnitude'")
    for name in ("barrier_mean", "barrier_line", "codes", "recall", "jaccard"):
        np.testing.assert_array_equal(rows[name], first[name])
    steps = found["successive"].query("round == 1").groupby("order", sort=False)
    assert list(steps.groups) == ["same", "other"]
    for (_, rows), expected in zip(steps, successive, strict=True):
        for name in ("barrier_line", "recall", "accuracy"):
            np.testing.assert_array_equal(rows[name], expected[name])


def test_rounds_keep_four_fifths_and_dense_ones_have_no_gap(found):
    orders = found["orders"]
    assert sorted(set(orders["density"]), reverse=True) == [1.0, 410 / 512, 328 / 512]
    assert (orders[orders["round"] == 0]["gap"] == 0).all()
    assert set(orders[orders["round"] == 0]["masks"]) == {"magnitude"}
    assert set(found["successive"]["round"]) == {1, 2}


def test_a_formula_is_the_same_whatever_is_computed_with_it(settings, found):
    alone = connectivity.compute(settings, {"formula": (3,)})
    for name, table in alone.items():
        whole = found[name]
        pd.testing.assert_frame_equal(whole[whole["formula"] == 3].reset_index(drop=True), table, check_exact=True)


def test_claims_count_pairs_without_a_barrier_among_those_that_match():
    at = {"embedding": "identity", "hidden": 8, "clauses": 2, "lr": 0.1, "formula": 0}
    orders = pd.DataFrame({
        **at, "masks": "magnitude", "round": [0, 1, 2, 3, 4], "barrier_mean": [9, 0, 0.01, 0.1, 0.3],
        "jaccard": [0, 0.9, np.nan, 0.3, 0.2],
        "gap": [0, 0.0, -0.005, -0.02, -0.1],
    })  # fmt: skip
    successive = pd.DataFrame({
        **at, "order": "same", "barrier_line": [0, 0.1], "gap": [0, -0.2], "gap_first": [0.0, 0.0],
        "jaccard": [1.0, 0.5],
    })  # fmt: skip
    values = connectivity.claims(orders, successive).set_index(["pair", "quantity"])["value"]
    assert values["orders, magnitude", "matching"] == 1  # the dense round is no ticket
    assert values["orders, magnitude", "failing"] == 0
    assert values["orders, magnitude", "correlation"] == pytest.approx(-1)
    assert values["orders, magnitude", "codes"] == pytest.approx(-1)
    assert values["successive, same", "matching"] == 1
    assert values["successive, same", "failing"] == 0


def test_the_quick_form_makes_all_tables_and_figures():
    result = CONNECTIVITY(**CONNECTIVITY.quick, progress=False)
    assert list(result.tables) == ["means", "steps", "claims", "orders", "successive"]
    for name in result.figures:
        assert result.plot(name).get_xlabel()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (dict(rewinds=(100,)), "rewinds = 100: tickets are rewound to an epoch before the last of 100"),
        (dict(rounds=0), "rounds = 0"),
        (dict(embeddings=("hadamar",)), "'hadamar'"),
        (dict(clauses=(0,)), "clauses"),
        (dict(rates=(0.0,)), "rates"),
    ],
)
def test_impossible_settings_are_refused_before_any_training(setting, message):
    with pytest.raises(pc.PrecodeValueError, match=message):
        CONNECTIVITY(progress=False, **setting)
