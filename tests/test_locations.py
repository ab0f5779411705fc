"""Locations of both polarities against brute force over signs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

import precode as pc
from precode.codes.locating import (
    CLASSES,
    classes,
    independent_jaccard,
    jaccard,
    locations,
    near_at,
    permuted_recall,
    recall,
)

WIDTH = 4


@pytest.fixture(scope="module")
def runs():
    tasks = [pc.Dnf.random(variables=16, clauses=6, seed=5, index=index) for index in range(3)]
    return pc.train(tasks, hidden=12, samples=2000, epochs=4, embedding="random", seed=5)


def placements(positive):
    """All sign patterns of so many positive literals."""
    for chosen in combinations(range(WIDTH), positive):
        yield np.array([1 if place in chosen else -1 for place in range(WIDTH)])


def by_hand(networks, tasks):
    """Wrong signs from the nearest placement of 4P and 3N1P, and codes, one location after the other."""
    features, output = networks.features.numpy(), networks.weights["w2"].numpy()
    shape = (len(tasks), len(tasks[0].clauses), 2, features.shape[1])
    distance, code = np.zeros(shape), np.zeros(shape, dtype=bool)
    for r, task in enumerate(tasks):
        for c, clause in enumerate(task.clauses):
            for row in range(shape[3]):
                signs = np.sign(features[r, row, list(clause)])
                for t, positive in enumerate((WIDTH, 1)):
                    wrong = min(int((signs != target).sum()) for target in placements(positive))
                    distance[r, c, t, row] = wrong
                    code[r, c, t, row] = wrong == 0 and (output[r, row] > 0) == (t == 0)
    return distance, code


def test_distances_and_codes_are_those_found_by_hand(runs):
    for networks in (runs.start, runs):
        found = locations(networks)
        distance, code = by_hand(networks, runs.tasks)
        assert found.templates == ("4P", "3N1P")
        np.testing.assert_array_equal(found.distance, distance)
        np.testing.assert_array_equal(found.code, code)
        right = np.stack([networks.weights["w2"].numpy() > 0, networks.weights["w2"].numpy() < 0], 1)
        np.testing.assert_array_equal(found.near(1), (distance <= 1) & right[:, None])
        np.testing.assert_array_equal(found.near(1, polarity="ignore"), distance <= 1)
        load = ((distance <= 1) & right[:, None]).sum((1, 2))
        np.testing.assert_array_equal(found.load(), load)
        np.testing.assert_array_equal(found.others(), load[:, None, None] - found.near())


def test_margins_are_positive_exactly_where_all_signs_are_right(runs):
    found = locations(runs)
    np.testing.assert_array_equal(found.margin > 0, found.distance == 0)
    features = runs.features.numpy()
    clause = list(runs.tasks[1].clauses[2])
    by_hand = features[1, 7, clause].min() / np.abs(features[1]).mean()
    np.testing.assert_allclose(found.margin[1, 2, 0, 7], by_hand, rtol=1e-5)


def test_other_clauses_and_templates_can_be_asked_for(runs):
    false = [list(task.false_clauses(seed=1, index=number)) for number, task in enumerate(runs.tasks)]
    found = locations(runs, clauses=false, templates=["2P2N"])
    features = np.sign(runs.features.numpy())
    by_hand = [(features[0][:, list(clause)] > 0).sum(1) for clause in false[0]]
    np.testing.assert_array_equal(found.distance[0, :, 0], np.abs(np.array(by_hand) - 2))
    only = locations(runs).only("3N1P")
    np.testing.assert_array_equal(only.code[:, :, 0], locations(runs).code[:, :, 1])


def test_sets_are_compared_as_sets():
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 4, 5, 2, 8)) < 0.3
    for r in range(4):
        a, b = (set(map(tuple, np.argwhere(codes[r]))) for codes in (first, second))
        assert recall(first, second)[r] == pytest.approx(len(a & b) / len(a))
        assert jaccard(first, second)[r] == pytest.approx(len(a & b) / len(a | b))
    assert np.isnan(recall(np.zeros((1, 2), dtype=bool), np.ones((1, 2), dtype=bool))).all()


def test_what_chance_gives_is_the_mean_over_permuted_rows():
    rng = np.random.default_rng(1)
    first, second = rng.random((2, 1, 6, 2, 10)) < 0.3
    draws = [rng.permuted(second, axis=-1) for _ in range(4000)]
    shared = np.mean([(first & one).sum() for one in draws])
    assert permuted_recall(first, second)[0] == pytest.approx(shared / first.sum(), rel=0.02)
    expected = shared / (first.sum() + second.sum() - shared)
    assert independent_jaccard(first, second)[0] == pytest.approx(expected, rel=0.02)


def test_near_at_own_final_sites_and_classes(runs):
    start, end = locations(runs.start), locations(runs)
    share = [(end.code[r] & (start.distance[r] <= 1)).sum() / end.code[r].sum() for r in range(3)]
    np.testing.assert_allclose(near_at(start, end), share)
    mask = torch.rand(runs.weights["w1"].shape, generator=torch.Generator().manual_seed(0)) < 0.5
    masked = {**runs.start.weights, "w1": runs.start.weights["w1"] * mask}
    support = locations(type(runs.start)(masked, runs.tasks, runs.embedding))
    found = classes(start, support, end)
    for number, name in enumerate(CLASSES):
        there = found == number
        backed, close, code = support.near()[there], start.near()[there], end.code[there]
        assert there.any() or name in ("stable", "kept"), name
        match name:
            case "stable":
                assert (backed & code).all()
            case "lost":
                assert (backed & ~code).all()
            case "recruited":
                assert (code & ~close & ~backed).all()
            case "close but lost":
                assert (close & ~code & ~backed).all()
            case "kept":
                assert (close & code & ~backed).all()
            case _:
                assert (~close & ~code & ~backed).all()


def test_bad_input_is_named(runs):
    with pytest.raises(pc.PrecodeValueError, match=r"template '5P': clauses of 4 literals have 4P, 3N1P, 2P2N"):
        locations(runs, templates=["5P"])
    with pytest.raises(pc.PrecodeValueError, match=r"templates = \[\]: give at least one of 4P"):
        locations(runs, templates=[])
    with pytest.raises(pc.PrecodeTypeError, match="not the string '4P'"):
        locations(runs, templates="4P")
    with pytest.raises(pc.PrecodeShapeError, match="1 sets of clauses for 3 networks"):
        locations(runs, clauses=[[[0, 1, 2, 3]]])
    with pytest.raises(pc.PrecodeShapeError, match="compare networks of one shape"):
        recall(np.ones((1, 2), dtype=bool), np.ones((1, 3), dtype=bool))
    with pytest.raises(pc.PrecodeValueError, match="polarity 'add': use one of require, ignore"):
        locations(runs).near(polarity="add")
    with pytest.raises(pc.PrecodeValueError, match="there are 4P, 3N1P"):
        locations(runs).only("2P2N")
