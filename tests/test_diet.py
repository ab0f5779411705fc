"""Training on parts of the data, and tickets rewound to a short training on them, against plain loops."""

import numpy as np
import pandas as pd
import pytest
import torch

import precode as pc
from precode.experiments import neighbour_diet as diet
from precode.networks.training import sample_all

DIET = pc.experiments.diet


@pytest.fixture(scope="module")
def settings():
    return next(iter(diet.points({**DIET.setting, **DIET.quick, "samples": (1000,), "shares": (0.5,), "steps": (8,)})))


@pytest.fixture(scope="module")
def found(settings):
    return diet.compute(settings, {"formula": (0, 2)})


@pytest.fixture(scope="module")
def task(settings):
    return pc.Dnf.random(clauses=8, seed=settings["seed"], index=2)


@pytest.fixture(scope="module")
def whole(settings, task):
    shared = {"hidden": 32, "embedding": "projection-16-fixed", "early_stopping": None, "lr": 0.01}
    return pc.train(task, seed=settings["seed"], samples=1000, indices=[2], epochs=4, **shared)


def plain_difficulty(settings, task, data):
    """EL2N after an epoch, mean over two other starts, by modules."""
    scores = []
    for start in range(2):
        early = pc.train(
            task, data=data, seed=settings["seed"] ^ diet.OTHER_START ^ (start + 1), indices=[2], hidden=32, epochs=1,
            lr=0.01, embedding="projection-16-fixed", early_stopping=None,
        )  # fmt: skip
        with torch.no_grad():
            logits = early.module(0)(data.x.float())[:, 0].double()
        scores.append((logits.sigmoid() - data.y.double()).abs())
    return torch.stack(scores).mean(0)


def test_networks_on_a_part_are_those_of_plain_choices(settings, task, whole, found):
    data = whole.data[0]
    order = plain_difficulty(settings, task, data).argsort()
    test = sample_all([task], 1000, sampler="broken-clause", seed=settings["seed"], indices=[2], purpose="test")
    rows = found["parts"].query("formula == 2").set_index(["score", "part"])
    for choice, some in (("easy", order[:500]), ("hard", order[500:])):
        kept = some.sort()[0]
        part = pc.Dataset(data.x[kept], data.y[kept])
        runs = pc.train(
            task, data=part, init=whole.start.weights, embedding="projection-16-fixed", seed=settings["seed"],
            indices=[2], epochs=8, lr=0.01, early_stopping=None,
        )  # fmt: skip
        row = rows.loc[("el2n", choice)]
        assert row["true"] == pytest.approx(part.y.double().mean().item())
        assert row["accuracy"] == 1 - runs.evaluate(test)["error"].item()
        assert row["gap"] == pytest.approx(row["accuracy"] - rows.loc[("none", "all"), "accuracy"])
    assert rows.loc[("none", "all"), "accuracy"] == 1 - whole.evaluate(test)["error"].item()
    assert rows.loc[("none", "all"), "recall"] == 1
    assert rows.loc[("none", "all, other order"), "recall"] < 1
    assert set(rows.index) == {
        ("none", "all"), ("none", "all, other order"), ("none", "random"),
        ("el2n", "hard"), ("el2n", "easy"), ("grand", "hard"), ("grand", "easy"),
    }  # fmt: skip


def test_a_start_is_trained_for_the_steps_on_its_part_alone(settings, task, whole):
    data = whole.data[0]
    scores = [plain_difficulty(settings, task, data).numpy()]
    (easy,) = diet.chosen(settings, [2], whole, scores, 0.125, "easy")
    assert easy.samples == 125
    start = diet.warmed(settings, [2], [easy], whole.start, 5)
    # Two steps an epoch, so that the fifth is the first of the third epoch.
    module = whole.start.module(0).double()
    parameters = [value for value in module.parameters() if value.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=0.01)
    rows = [
        torch.from_numpy(pc._precode.epoch_order(settings["seed"], epoch, 125).astype(np.int64)).split(64)
        for epoch in range(3)
    ]
    for batch in [*rows[0], *rows[1], rows[2][0]]:
        optimizer.zero_grad()
        logit = module(easy.x[batch].double())[:, 0]
        torch.nn.functional.binary_cross_entropy_with_logits(logit, easy.y[batch].double()).backward()
        optimizer.step()
    w1 = dict(module.named_parameters())["0.weight"].detach()
    torch.testing.assert_close(start.weights["w1"][0].double(), w1, atol=2e-5, rtol=1e-4)


def test_random_parts_do_not_depend_on_scores_and_differ_between_formulas(settings, whole):
    zeros, drawn = [np.zeros(1000)], [np.random.default_rng(0).random(1000)]
    (first,), (second,) = (diet.chosen(settings, [2], whole, scores, 0.25, "random") for scores in (zeros, drawn))
    assert torch.equal(first.x, second.x)
    (other,) = diet.chosen(settings, [3], whole, zeros, 0.25, "random")
    assert not torch.equal(first.x, other.x)


def test_tickets_are_pruned_from_their_own_start(found):
    table = found["rewinding"]
    assert set(zip(table["part"], table["steps"], strict=True)) == {
        ("none", 0), ("all", 8), ("random", 8), ("easy", 8), ("hard", 8),
    }  # fmt: skip
    assert sorted(set(table["density"]), reverse=True) == [1.0, 410 / 512, 328 / 512]
    gains = diet.gains(table)
    row = gains.query("formula == 2 and part == 'easy' and round == 1").iloc[0]
    at = table.query("formula == 2 and round == 1").set_index("part")["accuracy"]
    assert row["over_none"] == pytest.approx(at["easy"] - at["none"])
    assert row["over_all"] == pytest.approx(at["easy"] - at["all"])


def test_all_numbers_of_samples_have_as_many_steps():
    cells = list(diet.points({**DIET.setting, **DIET.full}))
    assert {cell["samples"]: cell["epochs"] for cell in cells} == {2000: 100, 20_000: 10}
    assert len(cells) == 3 * 2 * 2


def test_a_formula_is_the_same_whatever_is_computed_with_it(settings, found):
    alone = diet.compute(settings, {"formula": (2,)})
    for name, table in alone.items():
        whole = found[name]
        pd.testing.assert_frame_equal(whole[whole["formula"] == 2].reset_index(drop=True), table, check_exact=True)


def test_the_quick_form_makes_all_tables_and_figures():
    result = DIET(**DIET.quick, progress=False)
    assert list(result.tables) == ["means", "tickets", "gains", "parts", "rewinding"]
    for name in result.figures:
        assert result.plot(name).get_xlabel()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (dict(shares=(0.0,)), "shares"),
        (dict(small=2.0), "small"),
        (dict(steps=0), "steps"),
        (dict(rates=(0.0,)), "rates = 0"),
        (dict(starts=0), "starts"),
    ],
)
def test_impossible_settings_are_refused_before_any_training(setting, message):
    with pytest.raises(pc.PrecodeValueError, match=message):
        DIET(progress=False, **setting)
