"""The ticket references against finite differences, closed forms and cases worked out by hand."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

import recovery_reference
import reference
import ticket_reference as ref


def network(sizes=(6, 5, 1), seed=0, bias=True):
    rng = np.random.default_rng(seed)
    return ref.mlp([(rng.normal(size=(o, i)), rng.normal(size=o) if bias else None) for i, o in pairwise(sizes)])


def data(n=6, samples=40, seed=1):
    rng = np.random.default_rng(seed)
    x = torch.tensor(rng.random((samples, n)) < 0.4, dtype=torch.float64)
    return x, torch.tensor(rng.random(samples) < 0.5)


def with_weights(module, values):
    """A copy with other values for some parameters."""
    out = ref.copy_of(module)
    with torch.no_grad():
        for name, value in values.items():
            out.get_parameter(name).copy_(value)
    return out


def gradient(module, x, y, names, temperature):
    """Of the loss by central differences, one weight at a time."""
    out = {}
    for name in names:
        weight = module.get_parameter(name).detach()
        out[name] = torch.zeros_like(weight)
        for i in np.ndindex(*weight.shape):
            ends = []
            for step in (1e-5, -1e-5):
                moved = weight.clone()
                moved[i] += step
                ends.append(ref.bce(with_weights(module, {name: moved})(x) / temperature, y).item())
            out[name][i] = (ends[0] - ends[1]) / 2e-5
    return out


@pytest.mark.parametrize("prunable", [["0.weight"], ["0.weight", "2.weight"]])
def test_snip_and_grasp_are_finite_differences(prunable):
    module, (x, y) = network(), data()
    theta = {name: module.get_parameter(name).detach() for name in prunable}
    g = gradient(module, x, y, prunable, 1.0)
    scores = ref.snip(module, x, y, prunable=prunable)
    assert list(scores) == prunable
    for name in prunable:
        torch.testing.assert_close(scores[name], (theta[name] * g[name]).abs(), atol=1e-9, rtol=1e-5)
    # H g is the change of the gradient along g, here of the gradient by differences as well.
    step = 1e-2
    ahead = gradient(with_weights(module, {n: theta[n] + step * g[n] for n in prunable}), x, y, prunable, 1.0)
    behind = gradient(with_weights(module, {n: theta[n] - step * g[n] for n in prunable}), x, y, prunable, 1.0)
    scores = ref.grasp(module, x, y, prunable=prunable, temperature=1.0)
    for name in prunable:
        expected = theta[name] * (ahead[name] - behind[name]) / (2 * step)
        torch.testing.assert_close(scores[name], expected, atol=1e-6, rtol=1e-3)
        assert scores[name].min() < 0 < scores[name].max()


def test_grasp_of_one_weight_by_hand():
    # L = (w x / T - y)^2 / 2: g = (w x / T - y) x / T and H = (x / T)^2.
    w, x, y, t = -3.0, 2.0, 0.5, 4.0
    score = ref.grasp(
        ref.mlp([([[w]], None)]),
        torch.tensor([[x]]),
        torch.tensor([[y]]),
        loss=lambda logits, target: ((logits - target) ** 2).sum() / 2,
        temperature=t,
    )
    assert score["0.weight"].item() == pytest.approx(w * (x / t) ** 2 * (w * x / t - y) * x / t)
    assert score["0.weight"].item() > 0


def test_grasp_divides_the_logits_by_200():
    module, (x, y) = network(bias=False), data()
    scaled = with_weights(module, {"2.weight": module.get_parameter("2.weight").detach() / 200})
    expected = ref.grasp(scaled, x, y, prunable=["0.weight"], temperature=1.0)
    torch.testing.assert_close(ref.grasp(module, x, y, prunable=["0.weight"]), expected)


def test_scoring_leaves_the_network_alone():
    module, (x, y) = network(), data()
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    ref.snip(module, x, y)
    ref.grasp(module, x, y)
    ref.synflow(module, 0.5, rounds=3)
    ref.imp(module, x, y, ref.batches_of([range(40)], 8), [0.5])
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in module.named_parameters())


def test_synflow_of_one_hidden_layer_has_a_closed_form():
    module = network()
    w1, w2 = (module.get_parameter(name).detach().abs() for name in ("0.weight", "2.weight"))
    scores, total = ref.synflow_score(module)
    torch.testing.assert_close(scores["0.weight"], w1 * w2.T)
    torch.testing.assert_close(scores["2.weight"], w2 * w1.sum(1))
    assert total == pytest.approx((w2 @ w1).sum().item())
    # With w2 kept the scores of the first layer never change, and 100 rounds choose what one does.
    masks, _ = ref.synflow(module, 0.3, ["0.weight"])
    assert torch.equal(masks["0.weight"], ref.select({"0.weight": w1 * w2.T}, 0.3)["0.weight"])


def test_synflow_conserves_flow_under_a_mask():
    module = network((6, 5, 4, 1))
    masks, _ = ref.synflow(module, 0.4)
    assert sum(int(m.sum()) for m in masks.values()) == round(0.4 * 54)
    scores, total = ref.synflow_score(module, masks)
    first, second, third = scores.values()
    torch.testing.assert_close(first.sum(1), second.sum(0))
    torch.testing.assert_close(second.sum(1), third.sum(0))
    assert [s.sum().item() for s in scores.values()] == pytest.approx([total] * 3)
    assert all(torch.all(scores[name][~masks[name]] == 0) for name in masks)


def test_synflow_collapses_in_one_round_and_not_in_a_hundred():
    module = ref.mlp([(np.full((30, 2), 0.5), None), (np.full((30, 30), 0.5), None), (np.full((1, 30), 0.5), None)])
    kept = [[int(m.sum()) for m in ref.synflow(module, 0.01, rounds=rounds)[0].values()] for rounds in (1, 100)]
    assert [sum(k) for k in kept] == [10, 10]
    assert min(kept[0]) == 0
    assert min(kept[1]) > 0


def test_selection_is_exact_and_ties_go_to_the_lowest_index():
    scores = {"a": torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "b": torch.tensor([2.0, 1.0])}
    assert ref.flat(ref.top_k(scores, 2)).tolist() == [False, True, True, False, False, False]
    assert ref.flat(ref.top_k(scores, 4)).tolist() == [True, True, True, False, True, False]
    among = {"a": torch.tensor([[True, False], [True, True]]), "b": torch.tensor([False, True])}
    assert ref.flat(ref.top_k(scores, 2, among)).tolist() == [True, False, True, False, False, False]
    assert ref.flat(ref.select(scores, 0.5, scope="layer")).tolist() == [False, True, True, False, True, False]
    assert [ref.kept_count(d, 5) for d in (0.1, 0.3, 0.5, 0.7, 1.0)] == [0, 2, 2, 4, 5]
    with pytest.raises(ValueError, match="finite"):
        ref.top_k({"a": torch.tensor([1.0, math.nan])}, 1)
    with pytest.raises(ValueError, match="3 of 2"):
        ref.top_k({"a": torch.ones(2)}, 3)


def test_training_is_the_masked_reference_loop():
    module, (x, y) = network(), data()
    rng = np.random.default_rng(2)
    orders = [rng.permutation(40) for _ in range(3)]
    mask = torch.tensor(rng.random((5, 6)) < 0.5)
    trained = ref.train(module, x, y, ref.batches_of(orders, 16), {"0.weight": mask}, 0.01, weight_decay=0.1)
    layers = [(module[i].weight.detach(), module[i].bias.detach()) for i in (0, 2)]
    expected, *_ = reference.train(
        layers, x, y[:, None], orders, lr=0.01, weight_decay=0.1, masks=[mask, None], batch=16
    )
    for i, (w, b) in zip((0, 2), expected, strict=True):
        torch.testing.assert_close(trained[i].weight.detach(), w, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(trained[i].bias.detach(), b, rtol=1e-12, atol=1e-14)
    assert torch.all(trained[0].weight[~mask] == 0)


def test_imp_without_training_is_magnitude_at_init():
    module, (x, y) = network(), data()
    densities = [1.0, 0.9, 0.8, 0.5, 0.8**5, 0.1]
    masks, levels = ref.imp(module, x, y, [range(40)], densities, lr=0.0)
    size = ref.magnitude(module)
    for density, mask in zip(densities, masks, strict=True):
        assert np.array_equal(ref.flat(mask), ref.flat(ref.select(size, density)))
    # 35 weights: 0.1 keeps 4, and 0.8^9 (5 kept) is the last level that keeps more.
    assert [int(ref.flat(level.masks).sum()) for level in levels] == [35, 28, 22, 18, 14, 11, 9, 7, 6, 5]


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("keep_trained", [False, True])
def test_imp_levels(scope, keep_trained):
    module, (x, y) = network(), data()
    batches = ref.batches_of([range(40)] * 3, 8)
    wanted = [0.9, 0.64, 0.6]
    masks, levels = ref.imp(module, x, y, batches, wanted, lr=0.1, scope=scope, keep_trained=keep_trained)
    assert len(levels) == 3
    one_shot = ref.magnitude(ref.train(module, x, y, batches, lr=0.1))
    assert np.array_equal(ref.flat(masks[0]), ref.flat(ref.select(one_shot, 0.9, scope=scope)))
    assert np.array_equal(ref.flat(masks[1]), ref.flat(levels[2].masks))
    assert np.all(ref.flat(masks[2]) <= ref.flat(levels[2].masks))
    assert np.all(ref.flat(levels[2].masks) <= ref.flat(levels[1].masks))
    assert not np.array_equal(ref.flat(masks[1]), ref.flat(ref.select(one_shot, 0.64, scope=scope)))
    for t, level in enumerate(levels):
        origin = levels[t - 1].trained if keep_trained and t else module
        for name, mask in level.masks.items():
            assert torch.equal(level.start.get_parameter(name), origin.get_parameter(name) * mask)
            assert torch.all(level.trained.get_parameter(name)[~mask] == 0)
        torch.testing.assert_close(level.start[0].bias, origin[0].bias, rtol=0, atol=0)


def test_early_bird_fires_when_five_masks_agree():
    def masks(*kept, size=20):
        return [{"w": torch.tensor([i in k for i in range(size)])} for k in kept]

    a, b, c = {0, 1}, {0, 2}, {3, 4}
    # a and b differ in 2 of 20 entries (0.1), a and c in 4 (0.2); of two random masks 0.18 would differ.
    assert ref.early_bird(masks(a, a, a, a)) is None
    assert ref.early_bird(masks(a, b, a, b, a)) == 5
    assert ref.early_bird(masks(c, a, b, a, b, a)) == 6
    assert ref.early_bird(masks(a, b, a, b, a), normalise=True) is None
    assert ref.early_bird(masks(a, b, a, b, a), threshold=0.56, normalise=True) == 5
    assert ref.early_bird(masks(a, b, a, b, a), threshold=0.56, normalise=True, density=0.05) is None
    assert ref.early_bird(masks(a, b, b, b, b, b), normalise=True) == 6
    assert ref.early_bird(masks(a, b), window=2) == 2


def test_early_bird_is_vacuous_at_high_sparsity_unless_normalised():
    rng = np.random.default_rng(3)
    masks = [{"w": torch.tensor(rng.permutation(4000) < 160)} for _ in range(8)]
    assert ref.early_bird(masks) == 5
    assert ref.early_bird(masks, normalise=True) is None


def test_mask_overlap_by_hand():
    first, second = [[1, 1, 0], [0, 0, 0]], [[0, 1, 1], [0, 0, 0]]
    both = ref.mask_overlap(first, second)
    assert {key: float(value) for key, value in both.items()} == {
        "shared": 1, "union": 3, "jaccard": 1 / 3, "hamming": 2, "hamming_fraction": 1 / 3,
    }  # fmt: skip
    rows, columns = ref.mask_overlap(first, second, "row"), ref.mask_overlap(first, second, "column")
    assert rows["jaccard"].tolist() == [1 / 3, 1]
    assert rows["hamming_fraction"].tolist() == [2 / 3, 0]
    assert columns["jaccard"].tolist() == [0, 1, 0]
    assert columns["hamming"].tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match="shapes"):
        ref.mask_overlap(first, [[1]])


def test_barrier_by_hand():
    assert ref.barrier([0.1, 0.5, 0.3]) == pytest.approx(0.3)
    assert ref.barrier([0.2, 0.1, 0.2]) == pytest.approx(0.0)
    # XOR by two hidden rows, and the same network with its rows swapped: halfway both rows are alike.
    x, y = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]]), torch.tensor([0, 1, 1, 0])
    w1, w2 = np.array([[1.0, -1], [-1, 1]]), np.array([[1.0, 1]])
    first = ref.mlp([(w1, [0.0, 0.0]), (w2, [-0.5])])
    swapped = ref.mlp([(w1[::-1], [0.0, 0.0]), (w2, [-0.5])])
    # At a the logit of (0, 1) and (1, 0) is abs(1 - 2a) - 0.5: wrong from 1/4 to 3/4.
    errors = ref.segment_errors(first, swapped, x, y, points=11)
    assert errors.tolist() == [0, 0, 0, 0.5, 0.5, 0.5, 0.5, 0.5, 0, 0, 0]
    assert ref.barrier(errors) == 0.5
    assert ref.segment_errors(first, first, x, y, points=3).tolist() == [0, 0, 0]


CLAUSES = [[0, 1, 2, 3], [4, 5, ~6, 7]]


def test_codes_by_hand():
    assert [sorted(recovery_reference.templates(k)) for k in (1, 2, 4)] == [
        ["1P"],
        ["1P1N", "2P"],
        ["2P2N", "3N1P", "4P"],
    ]
    w2 = np.array([1.0, 1.0, -1.0, -1.0, 0.0])
    c1 = np.array(
        [
            [1, 2, 3, 4, 1, 1, -1, 1],  # 4P of both, the second with its negated literal
            [1, 2, 3, -4, 1, 1, 1, 1],  # neither
            [1, -2, -3, -4, 1, 1, 1, -1],  # one and two positive signs
            [1, 2, 3, 4, -1, -1, 1, -1],  # four and no positive signs
            [1, 2, 3, 4, 1, 1, -1, 1],  # no polarity
        ]
    )
    one, two = "3N1P", "2P2N"
    whole = {(0, "4P", 0), (1, "4P", 0), (0, one, 2), (1, two, 2)}
    assert recovery_reference.codes(c1, w2, CLAUSES) == whole
    assert recovery_reference.codes(c1, w2, CLAUSES, relaxed=True) == whole
    # At the floor is not above it.
    assert recovery_reference.codes(c1, w2, CLAUSES, floor=1.0) == set()
    assert recovery_reference.codes(2 * c1, w2, CLAUSES, floor=1.0) == whole
    alive = np.ones(c1.shape, dtype=bool)
    alive[0, [0, 4, 5, 6]] = False  # three cells of the first clause, one of the second
    alive[1, 3] = False  # the wrong sign
    alive[2, [1, 2]] = False  # two cells, + and - left
    assert recovery_reference.codes(c1, w2, CLAUSES, alive) == {(1, two, 2)}
    relaxed = {(0, "4P", 0), (0, "4P", 1), (0, one, 2), (0, two, 2), (1, two, 2)}
    assert recovery_reference.codes(c1, w2, CLAUSES, alive, relaxed=True) == relaxed


def test_recovery_by_hand():
    true = {(0, "4P", 0), (0, "4P", 1), (1, "4P", 2), (1, "2P2N", 3)}
    found = {(0, "4P", 1), (0, "4P", 5), (0, "4P", 6), (1, "4P", 7), (2, "4P", 7)}
    levels = recovery_reference.recovery(found, true)
    # Shared by location: row 1. By family: clause 0 twice, clause 1 once.
    assert levels["location"] == agreement(1, 5, 4)
    assert levels["family"] == agreement(3, 5, 4)
    assert levels["clause"] == agreement(2, 3, 2)
    assert set(recovery_reference.recovery(true, true)["family"].values()) == {4, 1.0}
    empty = recovery_reference.recovery(set(), true)["location"]
    assert math.isnan(empty["precision"])
    assert (empty["recall"], empty["jaccard"]) == (0, 0)


def agreement(shared, found, true):
    union = found + true - shared
    return {
        "shared": shared, "found": found, "true": true, "union": union,
        "precision": shared / found, "recall": shared / true, "jaccard": shared / union,
    }  # fmt: skip
