"""The paper's experiments: reported numbers, and what is measured, against the same by hand."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import precode as pc
from precode.codes.locating import CLASSES
from precode.experiments import paper, paper_choices, paper_networks
from precode.experiments.paper_budget import SMALL

PAPER = ("ticket_cycle", "fates", "fixed_budget", "identity", "precursors", "scale", "choices")


@pytest.fixture(scope="module")
def settings():
    left = {name: value for name, value in {**paper.SETTING, **SMALL}.items() if name not in ("formulas", "embeddings")}
    return {**left, "embedding": "projection-16"}


@pytest.fixture(scope="module")
def measured(settings):
    return paper_networks.measures(settings, {"formula": (0, 1, 2)})


@pytest.fixture(scope="module")
def networks(settings):
    return paper_networks.arms(settings, [0, 1, 2])


def test_reported_numbers_are_the_digests():
    table = paper.digest()["fixed_budget"]
    found = {(item.quantity, dict(item.at)["networks"]): item.value for item in paper_choices.REPORTED}
    assert len(found) == 11
    assert found["accuracy", "random"] == table["random_32x16_half"]["accuracy"]
    assert found["accuracy", "dense"] == table["dense_32x16"]["accuracy"]
    assert found["recall", "obs-rewound"] == table["obs_rewound"]["dense_codes_recovered_same_site"]
    assert found["near", "obs"] == table["obs_from_init"]["near_at_own_final_sites"]
    assert found["jaccard", "obs"] == table["jaccard_random_against_obs"]
    assert all(item.second_hand and "digest" in item.source for item in paper_choices.REPORTED)


def test_all_networks_have_the_budget(networks, settings):
    runs, found = networks
    budget = settings["hidden"] * 16 // 2
    for name, arm in found.items():
        weights = arm.start.weights["w1"]
        alive = (arm.end.weights["w1"] != 0).flatten(1).sum(1)
        expected = 2 * budget if name == "dense" else budget
        assert (alive <= expected).all()
        if name in ("random", "random-same", "obs", "obs-rewound"):
            assert ((weights != 0).flatten(1).sum(1) == budget).all()
    for name, own in (("random-same", ""), ("random", "w1"), ("random-other", "w1 b1 w2 b2 c0")):
        kept = found[name].start.weights["w1"] != 0
        for weight, value in found[name].start.weights.items():
            dense = runs.start.weights[weight]
            same = (value == dense)[kept] if weight == "w1" else value == dense
            assert not same.any() if weight in own.split() else same.all(), (name, weight)
    later = found["obs-rewound"].start.weights["w2"]
    assert (later != runs.start.weights["w2"]).any()


def test_measures_are_those_of_sets(measured, networks):
    runs, found = networks
    codes = measured["codes"].set_index(["networks", "of", "template", "formula"])
    dense, random = (pc.locations(found[name].end).code for name in ("dense", "random"))
    for name in ("random", "obs", "obs-rewound"):
        start, end = pc.locations(found[name].start), pc.locations(found[name].end)
        for r in range(3):
            mine, parent, other = (set(map(tuple, np.argwhere(code[r]))) for code in (end.code, dense, random))
            row = codes.loc[name, "formula", "both", r]
            assert row["codes"] == len(mine)
            assert row["recall"] == pytest.approx(len(mine & parent) / len(parent))
            if name != "random":
                assert row["jaccard"] == pytest.approx(len(mine & other) / len(mine | other))
            near = sum(start.distance[r][site] <= 1 for site in mine)
            assert row["near_end"] == pytest.approx(near / len(mine))
            assert row["near"] == pytest.approx(len(mine & set(map(tuple, np.argwhere(start.near()[r])))) / len(mine))
    test = paper_networks.accuracies({"test": 500, "seed": 0}, [0, 1, 2], runs, {"dense": found["dense"].end})
    assert test["accuracy"].between(0.4, 1).all()


def test_a_formula_is_the_same_whatever_is_computed_with_it(measured, settings):
    alone = paper_networks.measures(settings, {"formula": (1,)})
    for name, table in alone.items():
        whole = measured[name]
        pd.testing.assert_frame_equal(whole[whole["formula"] == 1].reset_index(drop=True), table.reset_index(drop=True))


@pytest.mark.parametrize("name", PAPER)
def test_every_experiment_runs_and_draws(name):
    plt = pytest.importorskip("matplotlib.pyplot")
    experiment = getattr(pc.experiments, name)
    result = experiment(**experiment.quick, progress=False)
    assert len(result.table)
    assert result.reported["measured"].notna().all()
    for figure in result.figures:
        assert result.plot(figure).get_ylabel()
        plt.close("all")
    json.dumps(json.loads(result.setting.to_json()))


def test_classes_count_every_location_once():
    result = pc.experiments.fates(**{**SMALL, "embeddings": ["projection-16-fixed"]}, progress=False)
    counts = result.tables["classes"].groupby(["formula", "of", "template"])["locations"].sum()
    assert (counts == SMALL["clauses"] * 32).all()
    assert set(result.tables["classes"]["class"]) == set(CLASSES)


def test_states_of_the_cycle_are_those_of_the_weights():
    result = pc.experiments.ticket_cycle(**{**SMALL, "embeddings": ["projection-16-fixed"]}, progress=False)
    codes = result.tables["codes"].query("of == 'formula' and template == 'both'")
    runs = paper_networks.dense({**paper.SETTING, **SMALL, "embedding": "projection-16-fixed"}, [0, 1, 2])
    for state, networks in (("dense start", runs.start), ("dense end", runs)):
        expected = pc.locations(networks).code.sum((1, 2, 3))
        np.testing.assert_array_equal(codes[codes["state"] == state]["codes"], expected)


def test_choices_are_ordered_by_their_distance():
    table = pc.experiments.choices(**pc.experiments.choices.quick, progress=False).table
    assert table["distance"].is_monotonic_increasing
    columns = [f"{item.quantity} {paper.networks_of(item)}" for item in paper_choices.REPORTED]
    differences = table[columns] - [item.value for item in paper_choices.REPORTED]
    np.testing.assert_allclose(table["distance"], np.sqrt((differences**2).mean(axis=1)))
    assert table["near"].nunique() == 6


def test_bad_settings_are_refused_before_any_work():
    budget = pc.experiments.fixed_budget
    with pytest.raises(pc.PrecodeValueError, match="rewind = 100: tickets are rewound to an epoch before the last of"):
        budget(rewind=100)
    with pytest.raises(pc.PrecodeValueError, match="density"):
        budget(density=0.0)
    with pytest.raises(pc.PrecodeValueError, match="embedding 'projektion-16': use one of identity"):
        budget(embeddings=("projection-16", "projektion-16"))
    with pytest.raises(pc.PrecodeValueError, match="method 'obz' is unknown: use one of"):
        budget(pruning="obz")
    with pytest.raises(pc.PrecodeValueError, match="near = 5: expected an integer from 0 to 4"):
        budget(near=5)
    with pytest.raises(pc.PrecodeValueError, match="'widht': no setting of experiment 'fixed_budget'"):
        budget(widht=3)
