"""Experiments beside the paper: their rules against plain PyTorch, and answers that are known."""

import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import precode as pc
from precode.experiments import aligning, expanding, forgetting, paper_networks, unlearning_cells
from precode.experiments import neighbour_alignment as alignment
from precode.experiments import neighbour_expansion as expansion
from precode.experiments import neighbour_unlearning as unlearning
from precode.networks.stacks import Networks

NEIGHBOURS = {"expansion": 3, "unlearning": 1, "alignment": 0}
"""Experiments, with the reported numbers that their quick form measures."""


def module(weights, place):
    """One network of a stack as a plain module in double precision, without anything of the package."""
    w1, b1, w2, b2 = (weights[name][place].double() for name in ("w1", "b1", "w2", "b2"))
    found = nn.Sequential(nn.Linear(w1.shape[1], len(w1)), nn.ReLU(), nn.Linear(len(w1), 1)).double()
    found.load_state_dict({"0.weight": w1, "0.bias": b1, "2.weight": w2[None], "2.bias": b2.view(1)})
    return found


def orders(seed, epochs, samples, batch):
    """Rows of every step: the order is that of the package, what is done with it is not."""
    for epoch in epochs:
        order = torch.from_numpy(pc._precode.epoch_order(seed, epoch, samples).astype(np.int64))
        yield from order.split(batch)


def steps(network, x, y, rows, lr, sign=1.0, masks=()):
    """Training by torch.optim, one step at a time; masked weights are put back to zero."""
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    for batch in rows:
        optimizer.zero_grad()
        logit = network(x[batch].double())[:, 0]
        (sign * nn.functional.binary_cross_entropy_with_logits(logit, y[batch].double())).backward()
        optimizer.step()
        with torch.no_grad():
            for parameter, mask in masks:
                parameter *= mask
    return network


def assert_same(weights, place, network, atol=2e-5):
    state = network.state_dict()
    for name, key in (("w1", "0.weight"), ("b1", "0.bias"), ("w2", "2.weight"), ("b2", "2.bias")):
        ours = weights[name][place].double()
        torch.testing.assert_close(ours, state[key].view(ours.shape), atol=atol, rtol=1e-4, msg=name)


@pytest.fixture(scope="module")
def stack():
    tasks = [pc.Dnf.random(clauses=6, seed=3, index=index) for index in range(3)]
    return pc.train(tasks, hidden=10, seed=3, samples=3200, epochs=12, lr=3e-3, early_stopping=None)


# --- expansion ------------------------------------------------------------------------------------------


def test_a_clause_split_of_rows_with_one_clause_each_keeps_all_outputs():
    task = pc.Dnf([[0, 1], [2, 3], [4, 5]], variables=8)
    w1 = torch.zeros(1, 3, 8)
    for row, clause in enumerate(task.clauses):
        w1[0, row, list(clause)] = 2.0
    weights = {"w1": w1, "b1": torch.full((1, 3), -3.0), "w2": torch.ones(1, 3), "b2": torch.full((1,), -0.5)}
    data = task.sample(1, sampler="truth-table")
    x = data.x.float()[None]
    before = forgetting.logits(weights, x)
    assert torch.equal(before[0] > 0, data.y)
    for alpha in (2, 3):
        inputs = expanding.inputs_of_parts([task], 3, alpha, "clause", overlap=0.0, seed=0, indices=[0])
        wider, _ = expanding.expand(weights, inputs)
        assert wider["w1"].shape == (1, 3 * alpha, 8)
        assert torch.equal(forgetting.logits(wider, x), before)
    # A random split takes clauses apart, so that this is no matter of course.
    inputs = expanding.inputs_of_parts([task], 3, 2, "random", overlap=0.0, seed=0, indices=[0])
    assert not torch.equal(forgetting.logits(expanding.expand(weights, inputs)[0], x), before)


@pytest.mark.parametrize("alpha", [2, 3])
@pytest.mark.parametrize("split", expanding.SPLITS)
@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_a_split_is_that_of_loops(stack, alpha, split, overlap):
    inputs = expanding.inputs_of_parts(stack.tasks, 10, alpha, split, overlap=overlap, seed=1, indices=[0, 1, 2])
    wider, masks = expanding.expand(stack.weights, inputs)
    for place, task in enumerate(stack.tasks):
        if not overlap:
            assert (inputs[place].sum(1) == 1).all()
        w1, w2, b1 = (stack.weights[name][place] for name in ("w1", "w2", "b1"))
        numbers = []
        for neuron in range(10):
            if split == "clause":
                assert any(inputs[place, neuron][:, list(clause)].all(1).any() for clause in task.clauses)
            for part in range(alpha):
                has = inputs[place, neuron, part]
                row = neuron * alpha + part
                assert wider["b1"][place, row] == b1[neuron]
                numbers += [(abs(float(w1[neuron, v])), 0, row, v) for v in range(task.variables) if has[v]]
                numbers.append((abs(float(w2[neuron])), 1, row, 0))
        left = 10 * task.variables + 10 + 10 - 10 * alpha  # weights and biases of the dense network, less the biases
        kept = sorted(numbers, key=lambda item: (-item[0], *item[1:]))[:left]
        assert {(row, v) for _, layer, row, v in kept if not layer} == set(
            map(tuple, masks["w1"][place].nonzero().tolist())
        )
        assert {row for _, layer, row, _ in kept if layer} == set(masks["w2"][place].nonzero()[:, 0].tolist())
        for row in range(10 * alpha):
            assert torch.equal(wider["w1"][place, row], w1[row // alpha] * masks["w1"][place, row])


def test_disjoint_clauses_stay_whole():
    task = pc.Dnf.random(variables=32, clauses=8, disjoint=True, seed=0)
    inputs = expanding.inputs_of_parts([task] * 2, 5, 3, "clause", overlap=0.0, seed=0, indices=[0, 7])
    for clause in task.clauses:
        assert set(inputs[..., list(clause)].sum(-1).unique().tolist()) == {0, 4}
    again = expanding.inputs_of_parts([task], 5, 3, "clause", overlap=0.0, seed=0, indices=[7])
    assert torch.equal(again[0], inputs[1])
    assert not torch.equal(inputs[0], inputs[1])


@pytest.fixture(scope="module")
def split_settings():
    setting = expansion.EXPERIMENT.setting
    return {**setting, "length": 2, "samples": 320, "test": 100, "lr": 0.003}


def test_split_networks_are_trained_as_by_plain_pytorch(split_settings):
    tasks, found = expansion.networks(split_settings, [0, 4])
    data = expansion._data(split_settings, tasks, [0, 4])
    for place in range(2):
        x, y = data[place].x, data[place].y
        dense = module(pc.train(tasks, hidden=8, indices=[0, 4], data=data, epochs=1).start.weights, place)
        steps(dense, x, y, orders(0, range(2), 320, 64), 0.003)
        assert_same(found["dense-at-split"].weights, place, dense)
        inputs = expanding.inputs_of_parts(tasks, 8, 2, "clause", overlap=0.0, seed=0, indices=[0, 4])
        start, masks = expanding.expand(found["dense-at-split"].weights, inputs)
        wider = module(start, place)
        masked = [(wider[0].weight, masks["w1"][place]), (wider[2].weight, masks["w2"][place][None])]
        steps(wider, x, y, orders(0, range(2, 4), 320, 64), 0.003, masks=masked)
        assert_same(found["clause"].weights, place, wider)
    counts = {name: [int((value[0] != 0).sum()) for value in item.weights.values()] for name, item in found.items()}
    budget = sum(counts["dense"])
    assert budget == 8 * 32 + 8 + 8 + 1
    assert {sum(counts[name]) for name in ("random", "clause", "wide-pruned", "wide-random")} == {budget}


def test_a_formula_of_expansion_is_the_same_whatever_is_computed_with_it(split_settings):
    whole = expansion.compute(split_settings, {"formula": (0, 1, 2)})["networks"]
    alone = expansion.compute(split_settings, {"formula": (1,)})["networks"]
    pd.testing.assert_frame_equal(whole[whole["formula"] == 1].reset_index(drop=True), alone, check_exact=True)


def test_gains_are_differences_of_the_same_formula():
    result = pc.experiments.expansion(
        formulas=3, lengths=(2,), vary_hidden=4, vary_clauses=4, vary_alpha=4, vary_overlap=0.5, vary_split=0.25,
        samples=320, test=200, progress=False,
    )  # fmt: skip
    keys = ["length", *expansion.VARIED, "formula"]
    table = result.tables["networks"].set_index(keys).sort_index()
    dense = table[table["networks"] == "dense"]["accuracy"]
    for row in result.tables["gains"].query("networks == 'clause'").to_dict("records"):
        at = tuple(row[name] for name in keys[:-1])
        clause = table[table["networks"] == "clause"].loc[at]["accuracy"]
        assert row["mean"] == pytest.approx((clause - dense.loc[at]).mean())
    assert result.tables["means"].iloc[0]["clauses"] == 8  # the first point, which figures start from
    assert (result.tables["predictors"]["mean"].abs() <= 1).all()


# --- unlearning -----------------------------------------------------------------------------------------


def test_data_of_a_clause_are_what_they_say(stack):
    task, clause = stack.tasks[0], 2
    data = forgetting.data_of_clause(task, clause, 400, seed=0, index=5)
    alone = pc.Dnf([task.clauses[clause]], 32)
    rest = pc.Dnf([item for number, item in enumerate(task.clauses) if number != clause], 32)
    for name, item in data.items():
        here, there = alone.evaluate(item.x), rest.evaluate(item.x)
        assert torch.equal(item.y, here | there)
        assert item.samples == 400
        if name == "alone":
            assert (here & ~there).all()
        elif name == "target":
            assert torch.equal(here, item.y)
            assert not there.any()
            assert item.y.sum() == 200
            literals = item.x[:, list(task.clauses[clause])].sum(1)
            assert (literals[~item.y] == 3).all()
        elif name == "unrelated":
            assert not here.any()
            assert item.y.sum() == 200
    held = forgetting.data_of_clause(task, clause, 400, seed=0, index=5, held_out=True)
    assert not torch.equal(held["alone"].x, data["alone"].x)
    with pytest.raises(pc.PrecodeValueError, match="one clause"):
        forgetting.data_of_clause(alone, 0, 10, seed=0, index=0)
    with pytest.raises(pc.PrecodeValueError, match="clauses share fewer variables"):
        forgetting.data_of_clause(pc.Dnf([[0, 1], [0]], 8), 0, 10, seed=0, index=0)


@pytest.fixture(scope="module")
def of_clause(stack):
    sets = [forgetting.data_of_clause(task, 1, 256, seed=0, index=index) for index, task in enumerate(stack.tasks)]
    return {name: [item[name] for item in sets] for name in sets[0]}


def test_ascent_is_that_of_plain_pytorch_and_stops_where_nothing_is_left(stack, of_clause):
    x = unlearning_cells.inputs(of_clause["alone"])
    after, taken = forgetting.ascend(stack.weights, x, stop=0.05, lr=0.003, batch=64, steps=400)
    assert (taken > 0).all()
    assert (forgetting.called_true(stack.weights, x) > 0.5).all()
    assert (forgetting.called_true(after, x) <= 0.05).all()
    for place in range(3):
        rows = [torch.arange(64 * step, 64 * step + 64) % 256 for step in range(int(taken[place]))]
        network = module(stack.weights, place)
        steps(network, x[place], torch.ones(256), rows[:-1], 0.003, sign=-1.0)
        assert (network(x[place].double()) > 0).double().mean() > 0.05  # not a step too late
        network = steps(module(stack.weights, place), x[place], torch.ones(256), rows, 0.003, sign=-1.0)
        assert_same(after, place, network)
        alone, one = forgetting.ascend(
            {name: value[place : place + 1] for name, value in stack.weights.items()}, x[place : place + 1],
            stop=0.05, lr=0.003, batch=64, steps=400,
        )  # fmt: skip
        assert one.item() == taken[place]
        assert all(torch.equal(value[0], after[name][place]) for name, value in alone.items())
    _, never = forgetting.ascend(stack.weights, x, stop=0.05, lr=1e-6, batch=64, steps=2)
    assert never.tolist() == [-1] * 3


def test_a_task_vector_is_that_of_plain_pytorch(stack, of_clause):
    learned = pc.train(data=of_clause["alone"], init=stack.weights, epochs=2, lr=0.003, early_stopping=None).weights
    x = unlearning_cells.inputs(of_clause["alone"])
    after, scales = forgetting.subtract_until(
        stack.weights, learned, stack.weights, x, stop=0.05, scales=unlearning_cells.SCALES
    )
    assert scales.isfinite().all()
    assert (forgetting.called_true(after, x) <= 0.05).all()
    for place in range(3):
        network = module(stack.weights, place)
        other = steps(copy.deepcopy(network), x[place], torch.ones(256), orders(0, range(2), 256, 64), 0.003)
        smaller = copy.deepcopy(network)
        before = unlearning_cells.SCALES[unlearning_cells.SCALES.index(scales[place].item()) - 1]
        for parameter, less, further in zip(
            network.parameters(), smaller.parameters(), other.parameters(), strict=True
        ):
            vector = (further - parameter).detach()
            parameter.data -= scales[place] * vector
            less.data -= before * vector
        assert_same(after, place, network, atol=1e-3)  # the scale makes rounding larger
        if scales[place] > unlearning_cells.SCALES[0]:
            assert (smaller(x[place].double()) > 0).double().mean() > 0.05
    _, none = forgetting.subtract_until(stack.weights, learned, stack.weights, x, stop=0.0, scales=[1e-6])
    assert none.isnan().all()


def test_distillation_is_that_of_plain_pytorch(stack, of_clause):
    x = unlearning_cells.inputs(of_clause["unrelated"])
    student = forgetting.distill(stack.weights, stack.start.weights, x, lr=0.003, batch=64, steps=6)
    for place in range(3):
        said = module(stack.weights, place)(x[place].double())[:, 0].sigmoid().detach()
        rows = [torch.arange(64 * step, 64 * step + 64) % 256 for step in range(6)]
        assert_same(student, place, steps(module(stack.start.weights, place), x[place], said, rows, 0.003))


@pytest.fixture(scope="module")
def settings():
    setting = {**unlearning.EXPERIMENT.setting, **unlearning.EXPERIMENT.quick, "steps": 30}
    return next(iter(unlearning_cells.points(setting)))


@pytest.fixture(scope="module")
def forgetful(settings):
    found = unlearning_cells.pairs(settings, [0, 2])
    return found, unlearning_cells.erasures(settings, found)


@pytest.fixture(scope="module")
def measured(settings):
    return unlearning_cells.compute(settings, {"formula": (0, 2)})


def test_erasing_erases_and_leaves_the_trained_networks_alone(settings, forgetful, measured):
    found, erasures = forgetful
    table = measured["erasures"].set_index("networks")
    assert (table.loc["trained", "called"] > 0.8).all()
    assert (table.loc["trained", "kept"].dropna() == 1).all()
    assert (table.loc["trained", "length"] == 0).all()
    for name in ("gradient-ascent", "task-vector", "retrained"):
        assert (table.loc[name, "called"] <= 0.1).all(), name
    for name, (weights, _) in erasures.items():
        change = (forgetting.flat(weights) - forgetting.flat(found.trained.weights)).norm(dim=1)
        np.testing.assert_allclose(table.loc[name, "length"], change, rtol=1e-6)
    assert (table["accuracy"] >= 0).all()


def test_recovery_is_fine_tuning_by_plain_pytorch(settings, forgetful, measured):
    found, erasures = forgetful
    weights, _ = erasures["gradient-ascent"]
    data = found.data(settings["steps"] * 64, settings["seed"], 1 << 41, ("target",))["target"]
    test = found.data(settings["test"], settings["seed"], 0, ("alone",), held_out=True)["alone"]
    table = measured["recoveries"].query("networks == 'gradient-ascent' and data == 'target'").reset_index(drop=True)
    for place in range(len(found.clause)):
        network = module(weights, place)
        x, y = data[place].x, data[place].y
        optimizer = torch.optim.Adam(network.parameters(), lr=settings["lr"])
        taken = 0
        for rows in orders(settings["seed"], [0], len(y), 64):
            taken += 1
            optimizer.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(network(x[rows].double())[:, 0], y[rows].double()).backward()
            optimizer.step()
            if (network(test[place].x.double()) > 0).double().mean() >= 0.8:
                break
        assert table["steps"][place] == taken
        start, before = (
            np.concatenate([item[name][place].double().numpy().ravel() for name in ("w1", "b1", "w2", "b2")])
            for item in (weights, found.trained.weights)
        )
        after = np.concatenate([value.detach().numpy().ravel() for value in network.parameters()])
        update, change = after - start, start - before
        cosine = -update @ change / np.linalg.norm(update) / np.linalg.norm(change)
        assert table["cosine"][place] == pytest.approx(cosine, abs=1e-3)
        assert table["parallel"][place] == pytest.approx(cosine**2, abs=1e-3)
        assert table["undone"][place] == pytest.approx(-update @ change / (change @ change), abs=1e-3)


def test_parts_of_an_update_sum_and_are_orthogonal():
    update, direction = torch.randn(2, 5, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    parallel, orthogonal = forgetting.parts_of_update(update, direction)
    torch.testing.assert_close(parallel + orthogonal, update)
    torch.testing.assert_close((orthogonal * direction).sum(1), torch.zeros(5, dtype=torch.float64), atol=1e-9, rtol=0)
    for row in range(5):
        share = update[row] @ direction[row] / (direction[row] @ direction[row])
        torch.testing.assert_close(parallel[row], share * direction[row])


def test_code_rows_are_read_from_signs(settings, forgetful, measured):
    found, erasures = forgetful
    table = measured["erasures"].set_index("networks")

    def rows(weights, place):
        clause = list(found.trained.tasks[place].clauses[found.clause[place]])
        signs = (weights["w1"][place][:, clause] > 0).all(1) & (weights["w2"][place] > 0)
        return set(signs.nonzero()[:, 0].tolist())

    for name, (weights, _) in erasures.items():
        for place in range(len(found.clause)):
            before, after = rows(found.trained.weights, place), rows(weights, place)
            assert table.loc[name, "rows"].iloc[place] == len(after)
            if before:
                assert table.loc[name, "kept"].iloc[place] == pytest.approx(len(before & after) / len(before))
                clause = list(found.trained.tasks[place].clauses[found.clause[place]])
                wrong = (weights["w1"][place][sorted(before)][:, clause] <= 0).sum(1).double().mean()
                assert table.loc[name, "wrong"].iloc[place] == pytest.approx(wrong.item())


def test_rows_that_come_back_are_counted_as_sets(settings, forgetful, measured):
    found, erasures = forgetful
    weights, _ = erasures["retrained"]
    data = found.data(settings["steps"] * 64, settings["seed"], 1 << 41, ("all",))["all"]
    end = pc.train(data=data, init=weights, epochs=1, order_seed=settings["seed"], early_stopping=None).weights
    table = measured["recoveries"].query("networks == 'retrained' and data == 'all'").reset_index(drop=True)
    for place in range(len(found.clause)):
        clause = list(found.trained.tasks[place].clauses[found.clause[place]])

        def rows(of, place=place, clause=clause):
            signs = (of["w1"][place][:, clause] > 0).all(1) & (of["w2"][place] > 0)
            return set(signs.nonzero()[:, 0].tolist())

        positive = set((end["w2"][place] > 0).nonzero()[:, 0].tolist())
        before, between, after = rows(found.trained.weights), rows(weights), rows(end)
        for name, numerator in (("old", before & positive), ("regained", (before - between) & positive)):
            share = len(numerator & after) / len(numerator) if numerator else math.nan
            assert table[name][place] == pytest.approx(share, nan_ok=True)
        assert table["old_chance"][place] == pytest.approx(len(after) / len(positive))
        if (before - between) & positive:
            free = positive - between
            assert table["regained_chance"][place] == pytest.approx(len(after & free) / len(free))


def test_a_formula_of_unlearning_is_the_same_whatever_is_computed_with_it(settings, measured):
    alone = unlearning_cells.compute({**settings}, {"formula": (2,)})
    for name, table in alone.items():
        whole = measured[name]
        whole = whole[whole["formula"] == 2].reset_index(drop=True)
        pd.testing.assert_frame_equal(whole, table.reset_index(drop=True), check_exact=True)


def test_medians_count_networks_that_never_recover():
    keys = {"clauses": 8, "networks": "n", "data": "all", "formula": [0, 0, 0, 1, 1, 1], "clause": [0, 1, 2] * 2}
    steps_ = [3.0, 5.0, math.nan, math.nan, math.nan, 1.0]
    table = pd.DataFrame({**keys, "steps": steps_, "recovered": [1.0, 1, 0, 0, 0, 1]})
    found = unlearning.of_formulas(table, ["clauses", "networks", "data"])
    assert found["steps"].fillna(-1).tolist() == [5, -1]
    assert found["recovered"].round(3).tolist() == [0.667, 0.333]
    medians = unlearning._medians(table, ["clauses", "networks", "data"]).iloc[0]
    assert medians[["quarter", "median", "three_quarters"]].tolist() == [3, 5, math.inf]


def test_threads_are_left_as_they_were(stack, of_clause):
    before = torch.get_num_threads()
    forgetting.ascend(
        stack.weights, unlearning_cells.inputs(of_clause["alone"]), stop=0.05, lr=0.003, batch=64, steps=1
    )
    assert torch.get_num_threads() == before
    assert torch.is_grad_enabled()


# --- alignment ------------------------------------------------------------------------------------------


def test_alignment_is_the_best_next_weight_by_brute_force():
    rng = np.random.default_rng(0)
    features, c0 = rng.normal(size=(3, 6)), rng.normal(size=(4, 6))
    found = aligning.align(features, c0, range(1, 13))
    chosen = [set(), set(), set()]

    def left(row, atoms):
        if not atoms:
            return (features[row] ** 2).sum()
        basis = c0[sorted(atoms)].T
        fit = np.linalg.lstsq(basis, features[row], rcond=None)[0]
        return ((basis @ fit - features[row]) ** 2).sum()

    for count in range(1, 13):
        gains = {
            (row, atom): left(row, chosen[row]) - left(row, chosen[row] | {atom})
            for row in range(3)
            for atom in range(4)
            if atom not in chosen[row]
        }
        row, atom = max(gains, key=gains.get)
        chosen[row].add(atom)
        assert [set(np.flatnonzero(row)) for row in found[count]] == chosen
        distance = ((found[count] @ c0 - features) ** 2).sum()
        assert distance == pytest.approx(sum(left(row, chosen[row]) for row in range(3)))


def test_alignment_finds_what_is_there():
    rng = np.random.default_rng(1)
    w1 = rng.normal(size=(5, 4))
    np.testing.assert_allclose(aligning.align(w1, np.eye(4), [20])[20], w1)
    largest = alignment.largest(torch.from_numpy(w1)[None], 7)[0].numpy()
    np.testing.assert_allclose(aligning.align(w1, np.eye(4), [7])[7], w1 * largest)
    c0 = rng.normal(size=(4, 9))
    np.testing.assert_allclose(aligning.align(w1 @ c0, c0, [20])[20], w1)
    twice = aligning.align(w1 @ c0, np.vstack([c0, c0]), [40])[40]  # atoms that depend on one another
    np.testing.assert_allclose(twice @ np.vstack([c0, c0]), w1 @ c0)
    with pytest.raises(pc.PrecodeShapeError, match="features of shape"):
        aligning.align(w1, c0, [1])
    with pytest.raises(pc.PrecodeValueError, match="counts"):
        aligning.align(w1 @ c0, c0, [21])


def test_scarce_networks_have_their_weights_and_the_oracle_is_nearest():
    setting = {**alignment.EXPERIMENT.setting, **alignment.EXPERIMENT.quick, "clauses": 8}
    settings = next(iter(alignment.points(setting)))
    runs = paper_networks.dense(settings, [0, 3])
    found = alignment.starts(runs, settings, [0, 3])
    assert {name for name, _ in found} == set(alignment.ARMS)
    distance = {}
    for (name, count), start in found.items():
        assert count in (128, 32)
        assert ((start["w1"] != 0).flatten(1).sum(1) == count).all()
        assert all(torch.equal(start[key], runs.weights[key]) for key in ("b1", "w2", "b2"))
        assert torch.equal(start["c0"], runs.weights["c0"]) == (name != "oracle-other-c0")
        made = (start["w1"] @ start["c0"]).numpy()
        distance[name, count] = np.array(
            [np.linalg.norm(a - b) for a, b in zip(made, runs.features.numpy(), strict=True)]
        )
    for count in (128, 32):
        for name in ("oracle-mask", "magnitude", "random"):
            assert (distance["oracle", count] <= distance[name, count] + 1e-6).all()
    whole = alignment.compute(settings, {"formula": (0, 3)})["networks"]
    alone = alignment.compute(settings, {"formula": (3,)})["networks"]
    pd.testing.assert_frame_equal(whole[whole["formula"] == 3].reset_index(drop=True), alone)
    dense = whole[whole["networks"] == "dense"]
    assert (dense["recall"].dropna() == 1).all()
    assert (dense["divergence"] == 0).all()


def test_correlations_are_those_of_ranks():
    rng = np.random.default_rng(0)
    place = {"embedding": "projection-16", "hidden": 32, "clauses": 8, "formula": 0}
    table = pd.DataFrame({**place, "density": np.repeat([0.5, 0.25], 5), "accuracy": rng.random(10)})
    table["divergence_start"] = -(table["accuracy"] ** 3)
    table["divergence"] = np.where(table["density"] == 0.5, table["accuracy"], 1 - table["accuracy"])
    found = alignment.correlations(table).set_index(["over", "divergence"])["correlation"]
    assert found["all", "start"] == pytest.approx(-1)
    assert found["one density", "start"] == pytest.approx(-1)
    assert found["one density", "end"] == pytest.approx(0)


# --- all ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_every_experiment_runs_and_draws(name):
    plt = pytest.importorskip("matplotlib.pyplot")
    experiment = getattr(pc.experiments, name)
    result = experiment(**experiment.quick, progress=False)
    assert result.reported["measured"].notna().sum() == NEIGHBOURS[name]
    assert result.reported["second_hand"].all()
    for figure in result.figures:
        assert result.plot(figure).get_ylabel()
        plt.close("all")


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("expansion", dict(overlap=2.0), "overlap = 2.0: expected a share"),
        ("expansion", dict(vary_split=(1.0,)), "split = 1.0: expected a share of the epochs"),
        ("expansion", dict(alpha=0), "alpha = 0"),
        ("expansion", dict(vary_alpha=33), "alpha = 33"),
        ("expansion", dict(sampler="even"), "sampler 'even': use one of broken-clause, uniform-balanced"),
        ("expansion", dict(hidden=0), "hidden = 0"),
        ("unlearning", dict(clauses=1), "clauses = .1.: expected integers from 2"),
        ("unlearning", dict(erased=9), "erased = 9: there are 8 clauses"),
        ("unlearning", dict(stop=0.0), "stop"),
        ("unlearning", dict(steps=0), "steps = 0"),
        ("unlearning", dict(vector_data="all"), "vector_data = 'all': use one of alone, target"),
    ],
)
def test_bad_settings_are_refused_before_any_work(name, setting, message):
    with pytest.raises(pc.PrecodeValueError, match=message):
        getattr(pc.experiments, name)(**setting, progress=False)


def test_a_stack_takes_its_networks_apart(stack):
    """`module` of these tests is the network that the package evaluates."""
    data = [task.sample(200, seed=9) for task in stack.tasks]
    errors = Networks(stack.weights, stack.tasks, stack.embedding).evaluate(data)["error"]
    for place, item in enumerate(data):
        wrong = (module(stack.weights, place)(item.x.double())[:, 0] > 0) != item.y
        assert errors[place] == pytest.approx(wrong.double().mean().item())
