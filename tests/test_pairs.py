"""All-pairs distances against SciPy and the reference, and the axioms of a metric."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

import precode as pc
import reference


def codes(count, bits, seed, density=0.5):
    return np.random.default_rng(seed).random((count, bits)) < density


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 600),
    st.integers(0, 99),
    st.sampled_from([0.02, 0.5]),
)
def test_distances_equal_scipy(a, b, bits, seed, density):
    first, second = codes(a, bits, seed, density), codes(b, bits, seed + 1, density)
    np.testing.assert_array_equal(pc.code_distance(first, second), np.rint(cdist(first, second, "hamming") * bits))
    np.testing.assert_allclose(
        pc.code_distance(first, second, metric="jaccard"), cdist(first, second, "jaccard"), atol=1e-6
    )
    for metric in ("hamming", "jaccard", "overlap"):
        np.testing.assert_allclose(
            pc.code_distance(first, metric=metric), reference.code_distance(first, metric), atol=1e-6
        )


@given(st.integers(2, 30), st.integers(1, 200), st.integers(0, 99))
def test_ternary_distances(count, length, seed):
    signs = np.random.default_rng(seed).integers(-1, 2, (count, length)).astype(np.int8)
    wide = signs.astype(int)
    np.testing.assert_array_equal(pc.code_distance(signs), (wide[:, None] != wide).sum(-1))
    np.testing.assert_array_equal(pc.code_distance(signs, metric="l1"), np.abs(wide[:, None] - wide).sum(-1))


@given(st.integers(3, 25), st.integers(1, 70), st.integers(0, 99))
def test_metric_axioms(count, bits, seed):
    bools = codes(count, bits, seed)
    signs = np.random.default_rng(seed).integers(-1, 2, (count, bits)).astype(np.int8)
    for stack, metric in ((bools, "hamming"), (bools, "jaccard"), (signs, "mismatch"), (signs, "l1")):
        d = pc.code_distance(stack, metric=metric).astype(float)
        same = (stack[:, None] == stack).all(-1)
        np.testing.assert_array_equal(d == 0, same)
        np.testing.assert_array_equal(d, d.T)
        assert (d[:, None, :] <= d[:, :, None] + d[None] + 1e-6).all()


@given(st.integers(2, 60), st.integers(1, 300), st.integers(0, 99))
def test_nearest_and_counts_agree_with_the_matrix(count, bits, seed):
    stack = codes(count, bits, seed)
    d = pc.code_distance(stack).astype(int)
    expected = d + np.diag(np.full(count, bits + 1))
    index, distance = pc.nearest_codes(stack)
    np.testing.assert_array_equal(index, expected.argmin(1))
    np.testing.assert_array_equal(distance, expected.min(1))
    upper = d[np.triu_indices(count, 1)]
    np.testing.assert_array_equal(pc.code_distance_counts(stack), np.bincount(upper, minlength=bits + 1))


def test_the_smallest_type_that_fits():
    for bits, dtype in ((255, np.uint8), (256, np.uint16), (65536, np.uint32)):
        assert pc.code_distance(codes(2, bits, 0)).dtype == dtype
    assert pc.code_distance(codes(2, 3, 0), metric="jaccard").dtype == np.float32


def test_forced_kernels_agree_and_are_named(monkeypatch):
    stack = codes(37, 700, 0)
    expected = pc.code_distance(stack)
    monkeypatch.setenv("PRECODE_PAIRS_KERNEL", "neon")
    with pytest.raises(pc.PrecodeError, match="neon") as refused:
        pc.code_distance(stack)
    ran = 0
    for kernel in ("portable", "avx2", "avx512"):
        monkeypatch.setenv("PRECODE_PAIRS_KERNEL", kernel)
        with contextlib.suppress(pc.UnsupportedError):  # a kernel that this processor lacks
            assert pc.code_distance_kernel() == kernel
            np.testing.assert_array_equal(pc.code_distance(stack), expected)
            ran += 1
    assert ran >= 1
    assert "portable" in str(refused.value)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: pc.code_distance(np.zeros((2, 3))), TypeError, "float64"),
        (lambda: pc.code_distance(np.zeros(3, bool)), ValueError, r"\(3,\)"),
        (lambda: pc.code_distance(np.zeros((0, 3), bool)), ValueError, r"\(0, 3\)"),
        (lambda: pc.code_distance(np.zeros((2, 3), bool), metric="l2"), ValueError, "'l2' is unknown"),
        (lambda: pc.code_distance(np.zeros((2, 3), bool), np.zeros((2, 4), bool)), ValueError, "3 .*4"),
        (lambda: pc.code_distance(np.zeros((2, 3), bool), np.zeros((2, 3), np.int8)), ValueError, "kind"),
        (lambda: pc.code_distance(np.full((2, 3), 2, np.int8)), ValueError, "2"),
        (lambda: pc.nearest_codes(np.zeros((1, 3), bool)), ValueError, "at least 2"),
        (
            lambda: pc.code_distance_counts(np.zeros((2, 3), bool), metric="jaccard"),
            pc.UnsupportedError,
            "fraction",
        ),
    ],
)
def test_bad_input_is_refused(make, error, message):
    with pytest.raises(error, match=message) as caught:
        make()
    assert isinstance(caught.value, pc.PrecodeError)
