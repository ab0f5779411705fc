"""Connectivity, overlap and diet, against loops in plain torch and NumPy."""

import numpy as np
import pytest
import torch

import precode as pc
from precode.codes.embedding import resolve
from precode.tickets import analyses

TASK = pc.Dnf.random(clauses=6, seed=0)


@pytest.fixture(scope="module")
def runs():
    return pc.train([TASK] * 2, hidden=12, epochs=4, samples=640, lr=0.01, embedding="hadamard", snapshots=[10, 20])


def test_the_path_is_a_straight_line_in_weight_space(runs):
    table = analyses.path(runs.at(10), runs, runs.data, points=5)
    assert table["network"].tolist() == [0] * 5 + [1] * 5
    for network in range(2):
        x = runs.data[network].x.float()
        labels = runs.data[network].y
        ends = [side.module(network) for side in (runs.at(10), runs)]
        for alpha, loss, error in table.query("network == @network")[["alpha", "loss", "error"]].to_numpy():
            module = runs.module(network)
            with torch.no_grad():
                for middle, start, end in zip(*(m.parameters() for m in (module, *ends)), strict=True):
                    middle.copy_((1 - alpha) * start + alpha * end)
                logits = module(x)[:, 0]
            expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.float())
            assert loss == pytest.approx(expected.item(), rel=1e-4)
            assert error == pytest.approx(((logits > 0) != labels).float().mean().item(), abs=2 / 640)


def test_the_barrier_is_the_worst_point_above_the_mean_of_the_ends(runs):
    other = pc.train([TASK] * 2, hidden=12, epochs=4, samples=640, lr=0.01, embedding="hadamard", seed=1)
    table = analyses.path(runs, other, runs.data)
    result = analyses.barrier(runs, other, runs.data)
    for network in range(2):
        line = table.query("network == @network")["loss"].to_numpy()
        assert result["loss_barrier"][network] == pytest.approx(line.max() - (line[0] + line[-1]) / 2)
    # Two initializations lie in different modes, a network and itself in one.
    assert (result["loss_barrier"] > 0.05).all()
    assert (analyses.barrier(runs, runs, runs.data)["loss_barrier"] == 0).all()


def test_networks_become_stable_to_the_order_of_the_data(runs):
    early = analyses.instability(runs, 0)["loss_barrier"].mean()
    late = analyses.instability(runs, 2)["loss_barrier"].mean()
    assert early > late >= 0
    with pytest.raises(pc.PrecodeValueError, match="no snapshot at step 30"):
        analyses.instability(runs, 3)
    with pytest.raises(pc.PrecodeValueError, match="epoch = 4"):
        analyses.instability(runs, 4)


def test_overlap_agrees_with_sets():
    rng = np.random.default_rng(0)
    one, other = rng.random((2, 6, 5)) < 0.4
    kept = [set(map(tuple, np.argwhere(mask))) for mask in (one, other)]
    whole = analyses.mask_overlap({"w": one}, {"w": torch.from_numpy(other)})
    assert whole["jaccard"].item() == pytest.approx(len(kept[0] & kept[1]) / len(kept[0] | kept[1]))
    assert whole["hamming"].item() == pytest.approx(len(kept[0] ^ kept[1]) / 30)
    for axis, by in enumerate(("row", "column")):
        table = analyses.mask_overlap({"w": one}, {"w": other}, by=by)
        assert len(table) == one.shape[axis]
        for unit, jaccard in zip(table[by], table["jaccard"], strict=True):
            a, b = ({cell for cell in side if cell[axis] == unit} for side in kept)
            assert jaccard == pytest.approx(len(a & b) / len(a | b)) if a | b else np.isnan(jaccard)
    draws = [rng.permuted(np.arange(2000) < 500) for _ in range(2)]
    chance = analyses.mask_overlap({"w": draws[0]}, {"w": draws[1]})
    assert chance["expected_jaccard"].item() == pytest.approx(1 / 7)
    assert chance["jaccard"].item() == pytest.approx(1 / 7, abs=0.03)


def test_a_diet_keeps_the_samples_that_are_easy_for_the_network(runs):
    scores = analyses.sample_difficulty(runs, runs.data)
    for choose, worse in (("easy", np.less_equal), ("hard", np.greater_equal)):
        chosen = analyses.diet(runs, runs.data, 0.25, choose=choose)
        for network, part in enumerate(chosen):
            whole = runs.data[network]
            assert part.samples == 160
            limit = np.sort(scores[network] if choose == "easy" else -scores[network])[159]
            kept = np.flatnonzero(worse(scores[network], limit if choose == "easy" else -limit))
            member = {whole.x[row].numpy().tobytes() for row in kept}
            assert {row.numpy().tobytes() for row in part.x} <= member
    first, again, other = (analyses.diet(runs, runs.data, 0.5, choose="random", seed=s)[0] for s in (0, 0, 1))
    assert torch.equal(first.x, again.x)
    assert not torch.equal(first.x, other.x)


def test_difficulty_is_the_distance_from_the_label_by_hand():
    weights = {"w1": torch.tensor([[[2.0, 0.0], [0.0, -1.0]]]), "b1": torch.tensor([[-1.0, 0.5]])}
    weights |= {"w2": torch.tensor([[1.5, -1.0]]), "b2": torch.tensor([0.25])}
    network = pc.Networks(weights, None, resolve("identity", 2))
    data = pc.Dataset([[1, 1], [0, 0], [1, 0]], [1, 1, 0])
    # Logits: 1.5 (2 - 1) + .25, -(.5) + .25, 1.5 - .5 + .25.
    probabilities = 1 / (1 + np.exp(-np.array([1.75, -0.25, 1.25])))
    expected = np.abs(probabilities - [1, 1, 0])
    np.testing.assert_allclose(analyses.sample_difficulty(network, data)[0], expected, rtol=1e-6)
    # Squared gradients of the logit: b2, w2, b1, W1 of the rows that are on.
    squared = np.array([1 + 1 + 2.25 * (1 + 2), 1 + 0.25 + 1 * (1 + 0), 1 + 1 + 0.25 + (2.25 + 1) * (1 + 1)])
    np.testing.assert_allclose(analyses.gradient_norms(network, data)[0], expected * np.sqrt(squared), rtol=1e-6)


@pytest.mark.parametrize("embedding", ["identity", "hadamard", "projection-16", "projection-16-fixed"])
def test_lengths_of_gradients_are_those_of_each_sample_alone(embedding):
    runs = pc.train([TASK] * 2, hidden=12, epochs=2, samples=200, lr=0.01, embedding=embedding)
    found = analyses.gradient_norms(runs, runs.data)
    for network, norms in enumerate(found):
        module = runs.module(network).double()
        trained = {name: value for name, value in module.named_parameters() if value.requires_grad}

        def loss(parameters, x, y, module=module):
            logit = torch.func.functional_call(module, parameters, (x[None],))[0, 0]
            return torch.nn.functional.binary_cross_entropy_with_logits(logit, y)

        data = runs.data[network]
        each = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(trained, data.x.double(), data.y.double())
        expected = torch.stack([value.flatten(1).square().sum(1) for value in each.values()]).sum(0).sqrt().detach()
        np.testing.assert_allclose(norms, expected, rtol=1e-5)
    with pytest.raises(pc.PrecodeShapeError, match="one hidden layer"):
        analyses.gradient_norms(pc.train(TASK, hidden=[4, 4], epochs=1, samples=64), runs.data[0])


def test_a_diet_by_given_scores_keeps_the_largest_or_smallest(runs):
    scores = [np.random.default_rng(network).random(640) for network in range(2)]
    for choose, order in (("easy", 1), ("hard", -1)):
        chosen = analyses.diet(runs, runs.data, 0.25, choose=choose, scores=scores)
        for network, part in enumerate(chosen):
            kept = np.sort(np.argsort(order * scores[network])[:160])
            assert torch.equal(part.x, runs.data[network].x[kept])
            assert torch.equal(part.y, runs.data[network].y[kept])
    with pytest.raises(pc.PrecodeShapeError, match=r"\(3,\)"):
        analyses.diet(runs, runs.data, 0.5, scores=[np.zeros(3)] * 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda runs: analyses.path(runs, pc.train(TASK, hidden=8, epochs=1, samples=64), runs.data), "same widths"),
        (lambda runs: analyses.path(runs, runs, runs.data, points=1), "points = 1"),
        (lambda runs: analyses.diet(runs, runs.data, 0), "keep = 0"),
        (lambda runs: analyses.diet(runs, runs.data, 0.5, choose="nice"), "easy, hard, random"),
        (lambda runs: analyses.mask_overlap({"a": [1]}, {"b": [1]}), "masks of a and of b"),
        (lambda runs: analyses.mask_overlap({"a": [1]}, {"a": [1, 0]}), r"shapes \(1,\) and \(2,\)"),
        (lambda runs: analyses.mask_overlap({"a": [1]}, {"a": [1]}, by="row"), "no rows"),
        (lambda runs: analyses.mask_overlap({"a": [1]}, {"a": [1]}, by="rows"), "by = 'rows'"),
        (lambda runs: analyses.mask_overlap([1], {"a": [1]}), "not list"),
    ],
)
def test_bad_requests_are_refused(runs, call, message):
    with pytest.raises(pc.PrecodeError, match=message):
        call(runs)


def test_scores_that_give_no_order_are_refused(runs):
    scores = [np.arange(item.samples, dtype=np.float64) for item in runs.data]
    with pytest.raises(pc.PrecodeValueError, match="takes no scores"):
        pc.analyses.diet(runs, runs.data, 0.5, choose="random", scores=scores)
    for wrong in (np.nan, np.inf):
        scores[0][3] = wrong
        with pytest.raises(pc.PrecodeValueError, match=f"sample 3 of network 0 is {wrong}"):
            pc.analyses.diet(runs, runs.data, 0.5, scores=scores)
