"""The same networks in other bases: what they compute, how they are trained there, and what masks keep."""

import numpy as np
import pandas as pd
import pytest
import torch

import precode as pc
from precode.codes.embedding import resolve
from precode.experiments import neighbour_basis as basis
from precode.networks.stacks import Networks
from precode.networks.training import sample_all

BASIS = pc.experiments.basis
BASES = ("weights", "features", "rotated", "hadamard")


@pytest.fixture(scope="module")
def runs():
    tasks = [pc.Dnf.random(clauses=6, seed=2, index=index) for index in range(2)]
    return pc.train(tasks, hidden=12, seed=2, samples=1280, epochs=8, lr=0.01, embedding="projection-16-fixed")


def stack(weights, tasks):
    return Networks(weights, tasks, resolve(f"projection-{weights['c0'].shape[1]}-fixed", 32))


@pytest.mark.parametrize("name", BASES)
def test_a_network_computes_the_same_in_every_basis(runs, name):
    weights = basis.in_basis(runs, name, 0, [0, 1])
    moved = stack(weights, runs.tasks)
    torch.testing.assert_close(moved.features, runs.features, atol=1e-5, rtol=1e-4)
    for network in range(2):
        x = runs.data[network].x.float()
        torch.testing.assert_close(moved.module(network)(x), runs.module(network)(x), atol=1e-4, rtol=1e-4)
    if name in ("rotated", "hadamard"):
        assert not torch.allclose(weights["w1"], runs.weights["w1"], atol=0.01)
        torch.testing.assert_close(weights["w1"].norm(dim=(1, 2)), runs.weights["w1"].norm(dim=(1, 2)))


def test_rotations_are_orthogonal_and_those_of_each_formula():
    for size in (16, 32):
        for name in basis.ROTATED:
            matrix = basis.rotation(name, size, 3, 1)
            torch.testing.assert_close(matrix @ matrix.T, torch.eye(size, dtype=torch.float64), atol=1e-6, rtol=0)
    assert not torch.equal(basis.rotation("rotated", 16, 3, 1), basis.rotation("rotated", 16, 3, 2))
    assert set(np.round(basis.rotation("hadamard", 16, 0, 0).abs().unique().numpy(), 6)) == {0.25}
    with pytest.raises(pc.PrecodeValueError, match="12 inputs: the Hadamard basis needs a power of 2"):
        basis.rotation("hadamard", 12, 0, 0)


def test_plain_gradient_descent_is_the_same_in_rotated_bases_and_adam_is_not(runs):
    def after(name, optimizer):
        weights = basis.in_basis(runs.start, name, 0, [0, 1])
        found = pc.train(
            runs.tasks, data=runs.data, init=weights, embedding="projection-16-fixed", epochs=4, optimizer=optimizer,
            lr=0.05 if optimizer == "sgd" else 0.01, early_stopping=None,
        )  # fmt: skip
        return found.features

    for name in basis.ROTATED:
        torch.testing.assert_close(after(name, "sgd"), after("weights", "sgd"), atol=1e-4, rtol=1e-3)
        assert (after(name, "adam") - after("weights", "adam")).abs().max() > 0.01


def test_shared_masks_of_feature_space_are_those_of_the_method(runs):
    ticket = pc.find_tickets(runs, "basis-magnitude", 0.25).found[0]
    c1 = basis.in_basis(runs, "features", 0, [0, 1])["w1"]
    expected = ticket.masks["w1"].view(c1.shape)
    assert torch.equal(basis.largest(c1, int(expected[0].sum())), expected)


@pytest.fixture(scope="module")
def settings():
    return next(iter(basis.points({**BASIS.setting, **BASIS.quick})))


@pytest.fixture(scope="module")
def found(settings):
    return basis.compute(settings, {"formula": (0, 2)})["networks"]


def test_a_ticket_in_a_rotated_basis_is_one_of_the_engine_with_another_embedding(settings, found):
    task = pc.Dnf.random(clauses=8, seed=settings["seed"], index=2)
    shared = {"hidden": 32, "seed": settings["seed"], "samples": 2000, "indices": [2], "epochs": 4}
    dense = pc.train(task, embedding="projection-16-fixed", early_stopping=None, **shared)
    turn = basis.rotation("rotated", 16, settings["seed"], 2)
    c0 = (turn @ dense.weights["c0"][0].double()).numpy().astype(np.float32)
    init = {name: value for name, value in dense.start.weights.items() if name != "c0"}
    init["w1"] = (init["w1"].double() @ turn.T).float()
    shared |= {"init": init, "embedding": c0, "early_stopping": None}
    own = pc.train(task, **shared)
    mask = own.weights["w1"].abs() >= own.weights["w1"].abs().flatten().topk(128)[0][-1]
    assert mask.sum() == 128
    ticket = pc.train(task, masks={"w1": mask}, **shared)
    row = found.query("formula == 2 and basis == 'rotated' and masks == 'magnitude' and density == 0.25").iloc[0]
    (test,) = sample_all([task], 1000, sampler="broken-clause", seed=settings["seed"], indices=[2], purpose="test")
    # The two engines' products are rounded differently, so that a sample or two may fall on the other side.
    assert row["accuracy"] == pytest.approx(1 - ticket.evaluate(test)["error"].item(), abs=0.003)
    squared = own.weights["w1"].double() ** 2
    assert row["kept_share"] == pytest.approx((squared * mask).sum().item() / squared.sum().item(), abs=1e-4)


def test_every_basis_keeps_as_many_weights(found):
    assert set(found["basis"]) == set(BASES)
    random = found[found["masks"] == "random"]
    # A random mask keeps its share of the squared length, which in feature space is of twice as many weights.
    means = random.groupby(["basis", "density"])["kept_share"].mean()
    assert means["weights", 0.25] == pytest.approx(0.25, abs=0.06)
    assert means["features", 0.25] == pytest.approx(0.125, abs=0.06)
    dense = found[found["masks"] == "dense"]
    assert (dense[["kept_share", "retention", "recall"]] == 1).all(axis=None)


def test_a_formula_is_the_same_whatever_is_computed_with_it(settings, found):
    alone = basis.compute(settings, {"formula": (2,)})["networks"]
    pd.testing.assert_frame_equal(found[found["formula"] == 2].reset_index(drop=True), alone, check_exact=True)


def test_gains_and_picks_are_those_of_a_table_by_hand():
    at = {"embedding": "identity", "hidden": 8, "clauses": 2, "formula": 0, "density": 0.5}
    table = pd.DataFrame({
        **at,
        "basis": ["weights", "weights", "rotated", "rotated"],
        "masks": ["magnitude", "random"] * 2,
        "accuracy": [0.9, 0.7, 0.8, 0.75],
        "kept_share": [0.6, 0.5, 0.7, 0.5],
        "retention": [0.5, 0.1, np.nan, 0.1],
    })  # fmt: skip
    gains = basis.gains(table).set_index(["basis", "masks"])
    assert gains.loc[("rotated", "magnitude"), "over_random"] == pytest.approx(0.05)
    assert gains.loc[("rotated", "magnitude"), "over_weights"] == pytest.approx(-0.1)
    assert gains.loc[("weights", "random"), "over_weights"] == 0
    picks = basis.picks(table).set_index("predictor")
    assert picks["picked"].to_dict() == {"kept_share": 0.0, "retention": 1.0}
    assert picks.loc["kept_share", "lost"] == pytest.approx(0.1)
    assert (picks["chance"] == 0.5).all()


def test_the_quick_form_makes_all_tables_and_figures():
    result = BASIS(**BASIS.quick, progress=False)
    assert list(result.tables) == ["means", "gains", "picks", "networks"]
    for name in result.figures:
        assert result.plot(name).get_xlabel()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (dict(embeddings=("projection-16",)), "'projection-16' is trained, so that the basis moves"),
        (dict(densities=(0.0,)), "densities"),
        (dict(hidden=0), "hidden"),
        (dict(embeddings=("projection-12-fixed",)), "Hadamard basis needs a power of 2"),
    ],
)
def test_impossible_settings_are_refused_before_any_training(setting, message):
    with pytest.raises(pc.PrecodeValueError, match=message):
        BASIS(progress=False, **setting)
