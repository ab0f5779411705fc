"""Formulas that networks know by heart before they generalize: training against plain PyTorch, and known answers."""

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import precode as pc
from precode.experiments import delayed_cells as cells
from precode.experiments import neighbour_delayed as delayed

DELAYED = pc.experiments.delayed


@pytest.fixture(scope="module")
def settings():
    (cell,) = cells.points({**DELAYED.setting, **DELAYED.quick, "densities": (0.4, 0.2), "moments": (0, 100)})
    return cell


@pytest.fixture(scope="module")
def first(settings):
    return cells.drawn(settings, [0, 2])


@pytest.fixture(scope="module")
def dense(settings, first):
    start = {name: settings["scale"] * value for name, value in first.start.weights.items()}
    return cells.trained(settings, first, cells.Variant("dense", start, settings["decay"]))


@pytest.fixture(scope="module")
def variants(settings, first, dense):
    return list(cells.variants(settings, first.start.weights, dense, [150, 200]))


@pytest.fixture(scope="module")
def found(settings):
    return cells.compute(settings, {"formula": (0, 2)})


def plain_steps(networks, place, data, mask, settings, decay, epochs):
    """All samples a step by torch.optim.AdamW in double precision; masked weights are put back to zero."""
    module = networks.module(place).double()
    optimizer = torch.optim.AdamW(module.parameters(), lr=settings["lr"], weight_decay=decay)
    x, y = data.x.double(), data.y.double().reshape(-1)
    first = dict(module.named_parameters())["0.weight"]
    for _ in range(epochs):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(module(x)[:, 0], y).backward()
        optimizer.step()
        with torch.no_grad():
            first *= mask
    return module


def test_every_variant_is_plain_pytorch(settings, first, variants):
    chosen = {item.networks: item for item in variants if item.density in (0.4, 1.0)}
    for name in ("magnitude", "dense-l1", "dense-usual", "snip"):
        item = chosen[name]
        runs = cells.trained(settings, first, item)
        mask = torch.ones_like(item.start["w1"], dtype=torch.bool) if item.mask is None else item.mask
        for place in range(2):
            for epochs in (1, 5, 25):
                plain = plain_steps(runs.start, place, first.data[place], mask[place], settings, item.decay, epochs)
                for (label, expected), (_, value) in zip(
                    plain.named_parameters(), runs.at(epochs).module(place).named_parameters(), strict=True
                ):
                    torch.testing.assert_close(value.double(), expected, atol=2e-3, rtol=1e-3, msg=f"{name} {label}")


def test_masked_weights_stay_zero(settings, first, variants):
    masked = [item for item in variants if item.mask is not None]
    assert {item.networks for item in masked} == {"magnitude", "magnitude-at", "snip", "grasp", "synflow", "random"}
    for item in masked:
        assert (item.mask.flatten(1).sum(1) == round(item.density * 256)).all()
        runs = cells.trained(settings, first, item)
        for epoch in (0, 5, settings["epochs"]):
            assert (runs.at(epoch).weights["w1"][~item.mask] == 0).all()


def test_tickets_and_controls_start_as_they_are_called(settings, first, dense, variants):
    enlarged = {name: 4 * value for name, value in first.start.weights.items()}
    ticket = variants[0]
    assert (ticket.networks, ticket.density, ticket.read) == ("magnitude", 0.4, "t_gen")
    for place, epoch in enumerate((150, 200)):
        w1 = dense.at(epoch).weights["w1"][place].abs().flatten()
        assert set(ticket.mask[place].flatten().nonzero()[:, 0].tolist()) == set(w1.topk(102).indices.tolist())
    others = {item.networks: item for item in variants if item.networks.startswith("dense") and item.decay}
    assert torch.equal(others["dense-usual"].start["w1"], first.start.weights["w1"])
    for power in (1, 2):
        item = others[f"dense-l{power}"]
        norm = (enlarged["w1"] * ticket.mask).flatten(1).norm(power, dim=1)
        torch.testing.assert_close(item.start["w1"].flatten(1).norm(power, dim=1), norm)
        torch.testing.assert_close(item.norm(power), ticket.norm(power))
        assert torch.equal(item.start["w2"], enlarged["w2"])
    for item in variants:
        if not item.networks.startswith("dense"):
            assert all(torch.equal(item.start[name], value) for name, value in enlarged.items())
    places = [tuple(item.place().values()) for item in variants]
    assert len(set(places)) == len(places)
    assert {item.networks for item in variants if not item.decay} == {"dense", "magnitude"}


def curve(name, formula, train, test, **columns):
    place = {"networks": name, "density": 1.0, "read": "no mask", "decay": 0.1, **columns}
    epochs = [0, 10, 20, 40]
    codes = {"codes": [1.0, 2.0, 3.0, 4.0], "false": [4.0, 3.0, 2.0, 1.0]}
    return pd.DataFrame({**place, "formula": formula, "epoch": epochs, "train": train, "test": test, **codes})


def test_times_of_known_curves():
    late = curve("dense", 0, [0.5, 0.96, 1.0, 1.0], [0.5, 0.6, 0.95, 0.97])
    never = curve("dense", 1, [0.5, 0.9, 0.96, 1.0], [0.5, 0.6, 0.7, 0.8])
    table = cells.times(pd.concat([late, never]), 0.95)
    one, other = (table.iloc[place] for place in (0, 1))
    assert one[["memorized", "generalized", "tau", "reached", "until", "tau_at_least"]].tolist() == [
        10,
        40,
        4,
        1,
        40,
        4,
    ]
    assert one[[f"codes_{at}" for at in cells.AT]].tolist() == [1, 2, 4, 4]
    assert one[[f"false_{at}" for at in cells.AT]].tolist() == [4, 3, 1, 1]
    assert other[["memorized", "reached", "until", "tau_at_least", "test"]].tolist() == [20, 0, 40, 2, 0.8]
    assert math.isnan(other["generalized"])
    assert math.isnan(other["tau"])
    assert math.isnan(other["codes_generalized"])
    assert cells.read_at(pd.concat([late, never]), 0.95) == [40, 40]


def test_networks_that_know_everything_at_once_have_no_ratio():
    row = cells.times(curve("dense", 0, [0.96] * 4, [0.96] * 4), 0.95).iloc[0]
    assert row[["memorized", "generalized", "until"]].tolist() == [0, 0, 0]
    assert math.isnan(row["tau"])


def test_gaps_are_taken_formula_by_formula():
    place = {"density": 0.4, "read": "t_gen"}
    up = {0: [0.0, 0.0, 0.0, 1.0], 1: [0.0, 0.0, 0.0, 0.0]}
    curves = [curve("dense", number, [0, 1, 1, 1], values) for number, values in up.items()]
    curves += [curve("magnitude", number, [0, 1, 1, 1], [0, 0, 1, 1], **place) for number in up]
    curves += [curve("magnitude", number, [0, 1, 1, 1], [0, 1, 1, 1], **{**place, "density": 0.2}) for number in up]
    table = delayed.gaps(cells.times(pd.concat(curves), 0.95), 0.4, 0.1)
    assert table["after_dense"].tolist() == [0, 0, -20, -20, -30, -30]
    assert table["after_ticket"].tolist() == [20, 20, 0, 0, -10, -10]
    assert table["tau_over_dense"].tolist() == [0, 0, -2, -2, -3, -3]


def test_progress_begins_where_samples_are_known():
    epochs = [0, 10, 20, 30, 40]
    masks = pd.DataFrame({
        "formula": 3, "epoch": epochs, "distance": [0.9, 0.1, 0.2, 0.4, 0.3], "jump": [0.9, 0.0, 0.1, 0.2, 0.3],
    })  # fmt: skip
    row = delayed.progress(masks, pd.DataFrame({"formula": [3], "memorized": [10.0]})).iloc[0]
    assert row[["formula", "largest_jump", "largest_distance", "lag"]].tolist() == [3, 40, 30, -10]
    assert row["correlation"] == pytest.approx(0.8)
    assert not len(delayed.progress(masks, pd.DataFrame({"formula": [3], "memorized": [math.nan]})))


def test_distances_and_accuracies_are_those_of_plain_loops(settings, first, dense, found):
    rows = found["masks"].query("formula == 2")
    assert rows["epoch"].tolist() == [0, 50, 100, 150]
    kept = [
        set(dense.at(epoch).weights["w1"][1].abs().flatten().topk(102).indices.tolist()) for epoch in range(0, 201, 50)
    ]
    expected = [1 - len(one & other) / len(one | other) for one, other in pairwise(kept)]
    assert rows["distance"].tolist() == pytest.approx(expected)
    curves = found["curves"].query("formula == 2 and networks == 'dense' and decay > 0").set_index("epoch")
    assert rows["jump"].tolist() == pytest.approx(np.diff(curves.loc[list(range(0, 201, 50)), "test"]))
    for epoch in (0, 25, 200):
        data = first.data[1]
        right = (dense.at(epoch).module(1)(data.x.float())[:, 0] > 0) == data.y.reshape(-1).bool()
        assert curves.loc[epoch, "train"] == pytest.approx(right.double().mean().item())
        signs = (dense.at(epoch).weights["w1"][1].numpy() > 0).astype(int)
        positive = dense.at(epoch).weights["w2"][1].numpy().ravel() > 0
        codes = sum(
            (signs[row][list(clause)].sum() == (4 if positive[row] else 1))
            for row in range(16)
            for clause in dense.tasks[1].clauses
        )
        assert curves.loc[epoch, "codes"] == codes


def test_a_formula_is_the_same_whatever_is_computed_with_it(settings, found):
    alone = cells.compute(settings, {"formula": (2,)})
    for name, table in alone.items():
        whole = found[name]
        mine = whole[whole["formula"] == 2].reset_index(drop=True)
        pd.testing.assert_frame_equal(mine, table.reset_index(drop=True), check_exact=True)


def test_the_quick_form_makes_all_tables_and_figures():
    plt = pytest.importorskip("matplotlib.pyplot")
    result = DELAYED(**DELAYED.quick, progress=False)
    assert list(result.tables) == ["means", "gaps", "lower", "codes", "progress", "masks", "course", "networks"]
    for name in result.figures:
        assert result.plot(name).get_ylabel()
        plt.close("all")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (dict(hidden=0), "hidden = 0"),
        (dict(scale=0.0), "scale = 0: networks do not learn"),
        (dict(lr=0.0), "lr = 0: networks do not learn"),
        (dict(ratio=1.0), "ratio = 1: that of measured epochs is above 1"),
        (dict(level=1.0), "level = 1: no accuracy is above it"),
        (dict(every=300), "epochs = 4000: expected a multiple of every = 300"),
        (dict(kept=0.0), "kept = 0"),
        (dict(densities=(1.5,)), "densities = 1.5"),
        (dict(moments=(5000,)), "moments"),
        (dict(variables=3), "variables"),
    ],
)
def test_impossible_settings_are_refused_before_any_training(setting, message, monkeypatch):
    monkeypatch.setattr(cells, "train", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(pc.PrecodeValueError, match=message):
        DELAYED(progress=False, **setting)
