"""Formulas, samplers and data sets against the brute-force reference."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import precode as pc
import reference


def random_inputs(n, rows=200, seed=0):
    return np.random.default_rng(seed).random((rows, n)) < 0.5


@given(
    n=st.integers(8, 70),
    clauses=st.integers(1, 8),
    width=st.integers(1, 5),
    negated=st.integers(0, 1),
    outputs=st.integers(1, 3),
    seed=st.integers(0, 2**63),
)
def test_labels_equal_the_formula(n, clauses, width, negated, outputs, seed):
    task = pc.Dnf.random(variables=n, clauses=clauses, width=width, negated=negated, outputs=outputs, seed=seed)
    x = random_inputs(n)
    expected = reference.label(x, [task.clauses_of(o) for o in range(outputs)], False)
    np.testing.assert_array_equal(task.evaluate(x).numpy().reshape(len(x), -1), expected)
    for sampler in (pc.Biased(0.6), "uniform"):
        data = task.sample(50, seed=seed, sampler=sampler)
        expected = reference.label(data.x.numpy(), [task.clauses_of(o) for o in range(outputs)], False)
        np.testing.assert_array_equal(data.y.numpy().reshape(50, -1), expected)


def test_broken_clause_sampler_is_balanced_sparse_and_reproducible():
    task = pc.Dnf.random(clauses=16, seed=3)
    data = task.sample(20_000, seed=5)
    assert int(data.y.sum()) == 10_000
    for label in (False, True):
        counts = data.x[data.y == label].sum(1)
        assert counts.min() == 4
        assert counts.max() == 6
    assert torch.equal(data.x, task.sample(20_000, seed=5).x)
    for other in (dict(seed=6), dict(seed=5, index=1), dict(seed=5, held_out=True)):
        assert not torch.equal(data.x, task.sample(20_000, **other).x)
    assert data.nbytes == 20_000 * 4 + 20_000 // 8


def test_broken_clauses_miss_exactly_one_literal():
    task = pc.Dnf([[0, 1, 2, 3]], variables=12)
    data = task.sample(1000, seed=0)
    present = data.x[:, :4].sum(1)
    assert (present[data.y] == 4).all()
    assert (present[~data.y] == 3).all()
    # Which one is missing is uniform: 500 draws, 125 expected of each, 5 standard deviations.
    missing = (~data.x[~data.y][:, :4]).sum(0)
    assert (missing - 125).abs().max() < 50


def test_negated_multi_output_and_cnf_tasks():
    task = pc.Dnf.random(clauses=6, negated=1, outputs=2, seed=1)
    data = task.sample(800, seed=1)
    combinations = data.y.long() @ torch.tensor([1, 2])
    assert torch.bincount(combinations).tolist() == [200] * 4
    cnf = pc.Dnf.cnf([[0, 1], [2, ~3]], variables=5)
    x = random_inputs(5)
    expected = (x[:, 0] | x[:, 1]) & (x[:, 2] | ~x[:, 3])
    np.testing.assert_array_equal(cnf.evaluate(x).numpy(), expected)
    table = cnf.sample(sampler="truth-table")
    assert table.samples == 32
    assert torch.equal(table.x.long() @ 2 ** torch.arange(5), torch.arange(32))
    data = cnf.sample(400, sampler=pc.Biased(0.75, balanced=True))
    assert int(data.y.sum()) == 200


def test_disjoint_clauses_use_each_variable_once():
    task = pc.Dnf.random(variables=32, clauses=8, width=4, disjoint=True, seed=2)
    used = [v for clause in task.clauses for v in clause]
    assert sorted(used) == list(range(32))


def test_false_clauses_are_not_in_the_formula():
    task = pc.Dnf.random(variables=8, clauses=20, seed=0)
    drawn = task.false_clauses(seed=1)
    assert len(drawn) == 20
    assert not {frozenset(c) for c in drawn} & {frozenset(c) for c in task.clauses}
    assert drawn != task.false_clauses(seed=2)


def test_value_semantics():
    task = pc.Dnf([[0, 1], [2, ~3]], variables=4)
    assert task == pc.Dnf(((0, 1), (2, ~3)), variables=4)
    assert hash(task) == hash(pc.Dnf([[0, 1], [2, ~3]], variables=4))
    assert task != pc.Dnf([[0, 1], [2, 3]], variables=4)
    assert pc.Dnf(np.array([[0, 1], [2, 3]]), variables=4).clauses == ((0, 1), (2, 3))
    assert repr(pc.Dnf([[[0]], [[1]]], variables=2)) == "Dnf(variables=2, clauses=1, width=1, outputs=2)"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pc.Dnf([[0, 32]], variables=32), "variable 32, but there are 32 variables"),
        (lambda: pc.Dnf([[0, 0]], variables=32), "variable 0 twice"),
        (lambda: pc.Dnf([[1, ~1]], variables=32), "variable 1 twice"),
        (lambda: pc.Dnf([], variables=32), "at least one clause"),
        (lambda: pc.Dnf([[]], variables=32), "empty"),
        (lambda: pc.Dnf.random(variables=3, width=4), "width = 4 but there are 3 variables"),
        (lambda: pc.Dnf.random(variables=8, clauses=3, disjoint=True), "need 12 variables"),
        (lambda: pc.Dnf.random(variables=5, clauses=6), "only 5 distinct"),
        (lambda: pc.Dnf.random(negated=5), "negated = 5"),
        (lambda: pc.Dnf.random().sample(0), "samples = 0"),
        (lambda: pc.Dnf.random().sample(sampler="sparse"), "'sparse' is unknown"),
        (lambda: pc.Dnf.random().sample(sampler="truth-table"), "at most 16"),
        (lambda: pc.Dnf.random().sample(sampler=pc.Biased(-0.1)), "-0.1"),
        (lambda: pc.Dnf.random().sample(sampler=pc.BrokenClause((9, 5))), r"\(9, 5\)"),
        (lambda: pc.Dnf.random().sample(sampler=pc.BrokenClause((1, 2))), "1 to 2 True variables"),
        (lambda: pc.Dnf.random().sample(sampler=pc.Biased(0.0, balanced=True)), "balanced"),
        (lambda: pc.Dataset([[0.5]], [1]), "0.5"),
        (lambda: pc.Dataset([[1], [0]], [1]), r"\(2, 1\)"),
        (lambda: pc.Dnf.random().evaluate([[1, 0]]), r"\(1, 2\)"),
    ],
)
def test_bad_input_is_refused_with_the_value(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert isinstance(caught.value, pc.PrecodeError)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pc.Dnf([["a"]], variables=2), "sequence of integers"),
        (lambda: pc.Dnf([[0.5]], variables=2), "sequence of integers"),
        (lambda: pc.Dnf.random().sample(sampler=3), "int"),
    ],
)
def test_wrong_types_are_named(make, message):
    with pytest.raises(TypeError, match=message):
        make()
