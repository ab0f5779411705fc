"""Formulas, samplers and data sets against the brute-force reference."""

import copy
import pickle

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
    assert repr(pc.Dnf([[[0]], [[1]]], variables=2)) == "Dnf(variables=2, clauses=1+1, width=1, outputs=2)"


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
        (lambda: pc.Dnf.random(negated=-1), "negated = -1: expected an integer of at least 0"),
        (lambda: pc.Dnf.random(clauses=0), "clauses = 0: expected an integer of at least 1"),
        (lambda: pc.Dnf.random(outputs=0), "outputs = 0"),
        (lambda: pc.Dnf.random(variables=2**40), "variables = 1099511627776"),
        (lambda: pc.Dnf.random(width=0), "width = 0"),
        (lambda: pc.Dnf.random(seed=-1), "seed = -1: expected an integer of at least 0 and below 2"),
        (lambda: pc.Dnf.random(seed=2**64), "seed = 18446744073709551616"),
        (lambda: pc.Dnf.random(index=-1), "index = -1"),
        (lambda: pc.Dnf([[0]], variables=0), "variables = 0"),
        (lambda: pc.Dnf([[2**63]], variables=2), "literal = 9223372036854775808"),
        (lambda: pc.Dnf.random().sample(-1), "samples = -1"),
        (lambda: pc.Dnf.random().sample(seed=2**64), "seed = "),
        (lambda: pc.Dnf.random().sample(index=-1), "index = -1"),
        (lambda: pc.Dnf.random().clauses_of(1), "output = 1: expected an integer from 0 to 0"),
        (lambda: pc.Dnf.random().false_clauses(output=1), "output = 1: expected an integer from 0 to 0"),
        (lambda: pc.Dnf.random().false_clauses(seed=-1), "seed = -1"),
        (lambda: pc.Dataset([[1, 0], [1]], [1, 1]), "x must be a regular array"),
        (lambda: pc.Dataset([[np.nan]], [1]), "x contains nan: inputs and labels are Boolean"),
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
        (lambda: pc.Dnf([[True, False]], variables=2), "sequence of integers.*True"),
        (lambda: pc.Dnf(np.array([[True, False]]), variables=2), "sequence of integers.*True"),
        (lambda: pc.Dnf(3, variables=2), "clauses must be sequences of integers, not int"),
        (lambda: pc.Dnf([0, 1], variables=2), "sequence of integers"),
        (lambda: pc.Dnf([[0]], variables=2.0), "variables must be an integer, not float"),
        (lambda: pc.Dnf([[0]], variables="2"), "variables must be an integer, not str"),
        (lambda: pc.Dnf.random(clauses=True), "clauses must be an integer, not bool"),
        (lambda: pc.Dnf.random(seed=0.5), r"seed must be an integer, not float \(0.5\)"),
        (lambda: pc.Dnf.random(seed=None), "seed must be an integer, not NoneType"),
        (lambda: pc.Dnf.random().sample("many"), "samples must be an integer, not str"),
        (lambda: pc.Dnf.random().sample(sampler=3), "int"),
        (lambda: pc.Dataset("x", [1]), "x must be Booleans or numbers 0 and 1, not str"),
        (lambda: pc.Dataset(None, [1]), "x must be Booleans or numbers 0 and 1, not NoneType"),
        (lambda: pc.Dataset(torch.eye(2).to_sparse(), [0, 1]), "x must be a dense tensor, not torch.sparse_coo"),
        (lambda: pc.Dataset(torch.ones(2, 2, device="meta"), [0, 1]), "x must be a dense tensor.*meta"),
    ],
)
def test_wrong_types_are_named(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_integers_of_every_kind_are_taken():
    expected = pc.Dnf.random(variables=12, clauses=4, seed=3, index=2)
    for kind in (np.int32, np.uint64, np.array, torch.tensor):
        task = pc.Dnf.random(variables=kind(12), clauses=kind(4), seed=kind(3), index=kind(2))
        assert task == expected
        assert torch.equal(task.sample(kind(50), seed=kind(1)).x, expected.sample(50, seed=1).x)
        assert task.false_clauses(seed=kind(1)) == expected.false_clauses(seed=1)
    assert pc.Dnf.random(seed=2**64 - 1) != pc.Dnf.random(seed=2**64 - 2)
    for clauses in (np.array([[0, 1], [2, -4]]), torch.tensor([[0, 1], [2, -4]]), ([*c] for c in ((0, 1), (2, -4)))):
        assert pc.Dnf(clauses, variables=np.int64(4)).clauses == ((0, 1), (2, ~3))
    two = pc.Dnf(torch.tensor([[[0, 1]], [[2, 3]]]), variables=4)
    assert two.outputs == 2
    assert two.clauses_of(np.int64(1)) == ((2, 3),)


@pytest.mark.parametrize("copied", [lambda item: pickle.loads(pickle.dumps(item)), copy.deepcopy, copy.copy])
def test_formulas_and_data_sets_are_pickled_and_copied(copied):
    for task in (
        pc.Dnf.random(variables=40, clauses=5, negated=1, seed=1),
        pc.Dnf.random(variables=9, clauses=3, outputs=3),
        pc.Dnf.cnf([[0, 1], [2, ~3]], variables=5),
    ):
        again = copied(task)
        assert again == task
        assert (again.variables, again.complemented) == (task.variables, task.complemented)
        data = task.sample(101, sampler="uniform")
        same = copied(data)
        assert repr(same) == repr(data)
        assert torch.equal(same.x, data.x)
        assert torch.equal(same.y, data.y)


def test_a_pickled_data_set_stays_packed():
    data = pc.Dnf.random(clauses=4).sample(20_000)
    assert len(pickle.dumps(data)) < data.nbytes + 1000


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.uint8, torch.bool])
def test_data_of_every_kind_are_taken(dtype):
    x = torch.tensor([[1, 0, 1], [0, 0, 1]])
    data = pc.Dataset(x.to(dtype), torch.tensor([1, 0]).to(dtype))
    assert torch.equal(data.x, x.bool())
    assert data.y.tolist() == [True, False]


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (
            lambda: pc.Dnf([[1, -2]], variables=4),
            r"twice \(-2 is ~1, the negation of variable 1, and not of variable 2",
        ),
        (
            lambda: pc.Dnf([[1, 2], [-5, 0]], variables=4),
            r"-5 is ~4, the negation of variable 4, and not of variable 5",
        ),
    ],
)
def test_a_minus_sign_that_does_not_negate_is_explained(make, hint):
    with pytest.raises(pc.PrecodeValueError, match=hint):
        make()


def test_what_is_negated_is_seen():
    task = pc.Dnf([[0, -2, 3]], variables=4)
    assert repr(task) == "Dnf(variables=4, clauses=1, width=3, negated literals=1)"
    assert str(task) == "(x0 ∧ ¬x1 ∧ x3)"
