"""Connectivity, overlap and diet, against loops in plain torch and NumPy."""

import numpy as np
import pytest
import torch

import precode as pc
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
