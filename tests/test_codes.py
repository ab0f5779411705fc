"""Decoding, distances and interference against the brute-force reference."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import precode as pc
import reference
from precode.codes.readouts import readout, templates


def network(rows, n, seed, zeros=0.1):
    """Weights with some exact zeros, as a pruned network has."""
    rng = np.random.default_rng(seed)
    w1 = rng.normal(size=(rows, n)) * (rng.random((rows, n)) >= zeros)
    w2 = rng.normal(size=rows) * (rng.random(rows) >= zeros)
    return w1, w2


cases = st.builds(
    lambda n, rows, clauses, width, negated, seed: (
        *network(rows, n, seed),
        pc.Dnf.random(variables=n, clauses=clauses, width=min(width, n), negated=min(negated, width, n), seed=seed),
    ),
    n=st.integers(6, 20),
    rows=st.integers(1, 9),
    clauses=st.integers(1, 5),
    width=st.integers(2, 5),
    negated=st.integers(0, 2),
    seed=st.integers(0, 2**32),
)


@given(cases, st.sampled_from([0.0, 0.3]), st.booleans())
def test_signs_patterns_and_channels(case, floor, aligned):
    w1, w2, task = case
    codes = pc.decode(w1, w2, task, floor=floor)
    np.testing.assert_array_equal(codes.signs(aligned=aligned), reference.signs(w1, task.clauses, aligned, floor))
    np.testing.assert_array_equal(codes.pattern_counts, reference.pattern_counts(w1, w2, task.clauses, False, floor))
    if floor == 0:
        for template in codes.templates:
            expected = reference.channels(w1, w2, task.clauses, template)
            np.testing.assert_array_equal(codes.channels(template), expected)
            np.testing.assert_array_equal(codes.overlap(template), reference.overlap(expected))


@given(
    cases,
    st.sampled_from(["hamming", "soft", "margin", "cosine", "signed_sum"]),
    st.sampled_from(["row", "layer", "none"]),
    st.sampled_from(["ignore", "add", "require"]),
)
def test_distances(case, metric, scale, polarity):
    w1, w2, task = case
    for template in templates(len(task.clauses[0])):
        got = pc.distance(w1, w2, task, template=template, metric=metric, scale=scale, polarity=polarity)
        expected = reference.distance(w1, w2, task.clauses, template, metric, scale, polarity)
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


@given(cases, st.integers(0, 2))
def test_crowding_conflicts_capacity_and_cosine(case, near):
    w1, w2, task = case
    for template in templates(len(task.clauses[0])):
        got = pc.crowding(w1, w2, task, template=template, near=near)
        expected = reference.crowding(w1, w2, task.clauses, template, near, "layer")
        for name, values in expected.items():
            np.testing.assert_allclose(got[name], values, rtol=1e-12, atol=1e-12)
    dense = w1 + 1e-3 * np.random.default_rng(0).normal(size=w1.shape)
    names = list(templates(len(task.clauses[0])))
    np.testing.assert_array_equal(
        pc.conflicts(dense, w2, task, near=near), reference.conflicts(dense, w2, task.clauses, names, near)
    )
    np.testing.assert_allclose(pc.feature_capacity(w1), reference.feature_capacity(w1), rtol=1e-9)
    if (np.abs(w1).sum(1) > 0).sum() > 1:
        np.testing.assert_allclose(pc.mean_row_cosine(w1), reference.mean_row_cosine(w1), atol=1e-12)


def test_a_stack_equals_its_networks():
    tasks = [pc.Dnf.random(variables=12, clauses=5, seed=seed) for seed in range(3)]
    w1, w2 = map(np.stack, zip(*(network(7, 12, seed) for seed in range(3)), strict=True))
    stack = pc.decode(w1, w2, tasks)
    crowding = pc.crowding(w1, w2, tasks)
    for r, task in enumerate(tasks):
        alone = pc.decode(w1[r], w2[r], task)
        np.testing.assert_array_equal(stack.channels()[r], alone.channels())
        np.testing.assert_array_equal(stack.pattern_counts[r], alone.pattern_counts)
        np.testing.assert_array_equal(stack.distance(metric="soft")[r], alone.distance(metric="soft"))
        np.testing.assert_array_equal(crowding["graded"][r], pc.crowding(w1[r], w2[r], task)["graded"])
        pd.testing.assert_series_equal(
            stack.summary().iloc[r].drop("network"),
            alone.summary().iloc[0].drop("network"),
            check_names=False,
        )


def test_torch_numpy_and_views_are_read_alike_and_contiguous_ones_in_place():
    module = torch.nn.Sequential(torch.nn.Linear(12, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    task = pc.Dnf.random(variables=12, clauses=4, seed=0)
    codes = pc.decode(module[0].weight, module[2].weight, task)
    expected = codes.channels()
    w1, w2 = module[0].weight.detach(), module[2].weight.detach()
    assert np.shares_memory(readout(w1, w2, task).features, w1.numpy())
    transposed = w1.T.contiguous().T
    for first in (w1.numpy(), transposed, w1.double(), w1[:, torch.arange(12)], w1.tolist):
        if callable(first):
            with pytest.raises(TypeError, match="w1 must be a tensor or array"):
                pc.decode(first, w2, task)
        else:
            np.testing.assert_array_equal(pc.decode(first, w2, task).channels(), expected)
    assert module[0].weight.requires_grad
    half = pc.decode(w1.bfloat16(), w2.bfloat16(), task).channels()
    np.testing.assert_array_equal(half, pc.decode(w1.bfloat16().float(), w2, task).channels())


def test_codes_of_an_embedded_network_are_read_in_feature_space():
    task = pc.Dnf.random(variables=12, clauses=4, seed=0)
    rng = np.random.default_rng(0)
    w2 = rng.normal(size=6)
    for name in ("hadamard", "hadamard-raw"):
        c0 = reference.embedding(name, 12)
        w1 = rng.normal(size=(6, 16))
        got = pc.decode(w1, w2, task, embedding=name)
        np.testing.assert_allclose(got.features, w1 @ c0, rtol=1e-6)
        np.testing.assert_array_equal(got.channels(), pc.decode(w1 @ c0, w2, task).channels())
        np.testing.assert_array_equal(got.channels(), pc.decode(w1, w2, task, embedding=c0).channels())


def test_the_embedding_of_a_run_is_the_one_it_was_trained_with():
    task = pc.Dnf.random(variables=12, clauses=4, seed=0)
    for name in ("random", "hadamard-raw"):
        runs = pc.train(task, hidden=6, seed=3, samples=100, epochs=1, embedding=name)
        w1, w2 = runs.weights["w1"], runs.weights["w2"]
        expected = w1.numpy() @ runs.embedding.matrix
        np.testing.assert_allclose(runs.codes().features, expected, rtol=1e-5, atol=1e-6)
        for given_as in (runs.embedding, runs.embedding.matrix):
            np.testing.assert_allclose(pc.decode(w1, w2, task, embedding=given_as).features, expected, atol=1e-6)
        again = pc.train(task, init=runs.start.weights, data=runs.data, seed=3, epochs=1, embedding=runs.embedding)
        for key, tensor in runs.weights.items():
            torch.testing.assert_close(again.weights[key], tensor, rtol=1e-4, atol=1e-5)


def test_locations_families_and_tables():
    w1, w2 = network(16, 12, 1, zeros=0)
    codes = pc.decode(w1, w2, pc.Dnf.random(variables=12, clauses=6, seed=1))
    locations = codes.locations()
    for template in codes.templates:
        rows = locations[locations["template"] == template]
        assert set(zip(rows["clause"], rows["row"], strict=True)) == set(
            zip(*np.nonzero(codes.channels(template)), strict=True)
        )
    assert codes.families()["rows"].sum() == len(locations)
    summary = codes.summary().iloc[0]
    names = [f"{p}_{s}" for s in ("positive", "negative") for p in ("4P", "3P1N", "2P2N", "3N1P", "4N")]
    assert list(codes.summary())[1:11] == names
    assert summary[names].sum() == pytest.approx(16)
    assert summary["positive_rows"] == (w2 > 0).sum()
    assert "Codes(clauses=6, rows=16" in repr(codes)
    assert "<table" in codes._repr_html_()


def test_mean_overlap_leaves_out_clauses_without_a_code():
    w1 = np.array([[1.0, 1, 1, -1], [1, 1, -1, -1]])
    codes = pc.decode(w1, np.ones(2), [[0, 1], [1, 2], [2, 3]])
    assert codes.code_size().tolist() == [2, 1, 0]
    assert codes.summary()["overlap"].item() == 1
    assert codes.summary()["clauses_without_code"].item() == 1
    assert np.isnan(pc.decode(w1, -np.ones(2), [[0, 1], [1, 2]]).summary()["overlap"].item())


def test_several_outputs_are_decoded_one_at_a_time():
    task = pc.Dnf([[[0, 1]], [[2, 3]]], variables=4)
    w1 = np.array([[1.0, 1, 1, 1], [1, 1, -1, 1]])
    w2 = np.array([[1.0, 1.0], [-1.0, 1.0]])
    assert pc.decode(w1, w2, task, output=0).code_size().tolist() == [2]
    assert pc.decode(w1, w2, task, output=1).code_size().tolist() == [0]


def test_motion_is_the_change_of_distance():
    task = pc.Dnf.random(variables=12, clauses=4, seed=0)
    before, after = network(6, 12, 0), network(6, 12, 1)
    got = pc.motion(before, after, task, metric="soft")
    expected = pc.distance(*after, task, metric="soft") - pc.distance(*before, task, metric="soft")
    np.testing.assert_array_equal(got, expected)


W1, W2, CLAUSES = np.ones((3, 6)), np.ones(3), [[0, 1], [2, 3]]
N20 = pc.Dnf.random(variables=20, clauses=4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pc.decode(np.full((3, 6), np.nan), W2, CLAUSES), "w1 contains NaN"),
        (lambda: pc.decode(W1, np.full(3, np.inf), CLAUSES), "w2 contains inf"),
        (lambda: pc.decode(W1, np.ones(4), CLAUSES), r"w2 of shape \(4,\) does not fit w1 of shape \(3, 6\)"),
        (lambda: pc.decode(np.ones(6), W2, CLAUSES), r"w1 of shape \(6,\)"),
        (lambda: pc.decode(W1, W2, [[0, 6]]), "variable 6, but there are 6"),
        (lambda: pc.decode(W1, W2, [[0, 0]]), "variable 0 twice"),
        (lambda: pc.decode(W1, W2, []), "no clauses"),
        (lambda: pc.decode(W1, W2, [[0, 1], [2]]), "one width at a time"),
        (lambda: pc.decode(np.ones((2, 3, 6)), np.ones((2, 3)), [CLAUSES] * 3), "3 sets of clauses for 2"),
        (lambda: pc.decode(np.ones((0, 3, 6)), np.ones((0, 3)), CLAUSES), "0 networks"),
        (lambda: pc.decode(W1, W2, CLAUSES, floor=-1), "floor = -1"),
        (lambda: pc.decode(W1, W2, CLAUSES, embedding="fourier"), "'fourier' is unknown"),
        (lambda: pc.decode(W1, W2, CLAUSES, embedding="random"), "pass its matrix"),
        (lambda: pc.decode(W1, W2, CLAUSES, embedding="hadamard"), "embedding has 8 rows"),
        (lambda: pc.decode(W1, W2, CLAUSES, output=2), "output = 2, but w2 of shape"),
        (lambda: pc.decode(W1, W2, CLAUSES).channels("4P"), "use one of 2P, 1P1N, 2N"),
        (lambda: pc.distance(W1, W2, CLAUSES, metric="euclid"), "'euclid' is unknown: use one of hamming"),
        (lambda: pc.distance(W1, W2, CLAUSES, scale="net"), "'net' is unknown: use one of row, layer, none"),
        (lambda: pc.distance(W1, W2, CLAUSES, polarity="skip"), "use one of ignore, add, require"),
        (lambda: pc.decode(W1, np.ones((1, 3)), CLAUSES, output=2), "output = 2"),
        (lambda: pc.decode(W1, W2, CLAUSES, output=-1), "output = -1: expected an integer of at least 0"),
        (lambda: pc.distance(W1, W2, CLAUSES, output=-1), "output = -1"),
        (lambda: pc.decode(W1, W2, [[2**63]]), "literal = 9223372036854775808"),
        (lambda: pc.decode(W1, W2, N20), "w1 takes 6 inputs but the task has 20 variables: pass embedding="),
        (lambda: pc.distance(W1, W2, N20), "w1 takes 6 inputs but the task has 20 variables: pass embedding="),
        (lambda: pc.decode(np.ones((3, 32)), W2, N20), "w1 takes 32 inputs but the task has 20 variables"),
        (lambda: pc.decode(np.ones((2, 3, 20)), np.ones((2, 3)), [N20, pc.Dnf([[0]], 6)]), "task has 6 variables"),
        (
            lambda: pc.decode(np.ones((2, 3, 32)), np.ones((2, 3)), [N20, pc.Dnf([[0]], 6)], embedding="hadamard"),
            "tasks of 6 and 20 variables",
        ),
        (lambda: pc.conflicts(W1, W2, CLAUSES, templates=[]), r"templates = \[\]: expected at least one, such as"),
        (lambda: pc.conflicts(W1, W2, CLAUSES, near=-1), "near = -1"),
        (lambda: pc.crowding(W1, W2, CLAUSES, near=2**32), "near = 4294967296"),
    ],
)
def test_bad_input_is_refused_with_the_value(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert isinstance(caught.value, pc.PrecodeError)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pc.decode(W1, W2, 3), "clauses must be a Dnf, or sequences of integers.*not int"),
        (lambda: pc.decode(W1, W2, None), "not NoneType"),
        (lambda: pc.decode(W1, W2, "01"), "not str"),
        (lambda: pc.decode(W1, W2, [0, 1]), "a clause must be a sequence of integers"),
        (lambda: pc.decode(W1, W2, [[True, False]]), "a clause must be a sequence of integers.*True"),
        (lambda: pc.decode(W1, W2, np.ones((2, 2))), "a clause must be a sequence of integers.*1.0"),
        (lambda: pc.decode(W1, W2, [pc.Dnf([[0]], 6), [[0]]]), "not a mixture"),
        (lambda: pc.decode(torch.eye(3).to_sparse(), W2, [[0]]), "w1 must be a dense tensor, not torch.sparse_coo"),
        (lambda: pc.decode(torch.ones(3, 6, device="meta"), W2, [[0]]), "w1 must be a dense tensor.*meta"),
        (lambda: pc.decode(W1, W2, CLAUSES, embedding=torch.eye(6).to_sparse()), "embedding must be a dense tensor"),
        (lambda: pc.decode(W1, W2, CLAUSES, output="0"), "output must be an integer, not str"),
        (lambda: pc.crowding(W1, W2, CLAUSES, near=True), "near must be an integer, not bool"),
        (lambda: pc.conflicts(W1, W2, CLAUSES, near=0.5), "near must be an integer, not float"),
        (lambda: pc.conflicts(W1, W2, CLAUSES, templates="2P"), "templates must be a sequence of names"),
    ],
)
def test_wrong_types_are_named(make, message):
    with pytest.raises(pc.PrecodeTypeError, match=message):
        make()


def test_clauses_of_every_form_are_read_alike():
    w1, w2 = network(6, 12, 0)
    expected = pc.decode(w1, w2, CLAUSES).signs()
    for clauses in (
        np.array(CLAUSES),
        torch.tensor(CLAUSES),
        (iter(clause) for clause in CLAUSES),
        pc.Dnf(CLAUSES, 12),
    ):
        np.testing.assert_array_equal(pc.decode(w1, w2, clauses).signs(), expected)
    several = [np.array(CLAUSES), torch.tensor(CLAUSES)]
    stack = pc.decode(np.stack([w1, w1]), np.stack([w2, w2]), several)
    np.testing.assert_array_equal(stack.signs(), np.stack([expected, expected]))


@pytest.mark.parametrize("copied", [lambda item: pickle.loads(pickle.dumps(item)), copy.deepcopy])
def test_codes_are_pickled_and_copied(copied):
    codes = pc.decode(*network(6, 20, 0), N20)
    again = copied(codes)
    np.testing.assert_array_equal(again.pattern_counts, codes.pattern_counts)
    np.testing.assert_array_equal(again.channels(), codes.channels())
    pd.testing.assert_frame_equal(again.summary(), codes.summary())


def test_codes_and_networks_stand_for_their_weights():
    tasks = [pc.Dnf.random(clauses=4, seed=0, index=index) for index in range(2)]
    runs = pc.train(tasks, hidden=8, epochs=2, samples=640, embedding="random")
    w1, w2, c0 = runs.weights["w1"], runs.weights["w2"], runs.embedding
    for source in (runs, runs.codes()):
        for name, values in pc.crowding(w1, w2, tasks, embedding=c0, template="3N1P").items():
            np.testing.assert_allclose(pc.crowding(source, template="3N1P")[name], values, rtol=1e-5)
        np.testing.assert_array_equal(pc.conflicts(source), pc.conflicts(w1, w2, tasks, embedding=c0))
        np.testing.assert_allclose(pc.feature_capacity(source), pc.feature_capacity(w1, embedding=c0), rtol=1e-5)
        np.testing.assert_allclose(pc.mean_row_cosine(source), pc.mean_row_cosine(w1, embedding=c0), atol=1e-5)
        first = (runs.start.weights["w1"], runs.start.weights["w2"])
        expected = pc.motion(first, (w1, w2), tasks, embedding=c0)
        np.testing.assert_allclose(pc.motion(runs.start, source), expected, atol=1e-5)
    one = pc.decode(w1[0], w2[0], tasks[0], embedding=c0)
    assert pc.conflicts(one).shape == (4, 8)
    for wrong, message in (
        (lambda: pc.crowding(runs, w2), "w2 beside Runs, which brings its own: leave out w2"),
        (lambda: pc.conflicts(runs.codes(), clauses=tasks), "clauses beside Codes"),
        (lambda: pc.feature_capacity(runs, embedding=c0), "embedding beside Runs"),
        (lambda: pc.crowding(w1), "w2 and clauses must be given beside bare weights"),
        (lambda: pc.motion(w1, runs), "before must be .w1, w2., Codes or Networks, not Tensor"),
        (lambda: pc.motion(runs.start, (w1, w2)), "clauses must be given"),
    ):
        with pytest.raises(pc.PrecodeTypeError, match=message):
            wrong()
    with pytest.raises(pc.PrecodeValueError, match="output = 1: these codes were read for one already"):
        pc.crowding(runs.codes(), output=1)
