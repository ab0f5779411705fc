"""The nulls against exact probabilities and their invariants."""

import numpy as np
import pytest
from scipy import stats

import precode as pc
import reference
from precode.codes.readouts import templates


@pytest.mark.parametrize("width", [2, 3, 4, 6])
def test_analytic_null_is_exact(width):
    for template in templates(width):
        np.testing.assert_allclose(pc.nulls.hamming_probabilities(template), reference.hamming_probabilities(template))
    expected = stats.binom.pmf(range(width + 1), width, 0.5)
    np.testing.assert_allclose(pc.nulls.hamming_probabilities(f"{width}P"), expected)


@pytest.mark.parametrize("width", [9, 10, 12, 20])
def test_widths_of_several_digits_are_read_from_the_name(width):
    expected = stats.binom.pmf(range(width + 1), width, 0.5)
    np.testing.assert_allclose(pc.nulls.hamming_probabilities(f"{width}P"), expected)


def test_random_networks_keep_polarities_and_the_fraction_of_positive_entries():
    rng = np.random.default_rng(0)
    w1, w2 = rng.normal(0.3, 1, (2, 64, 32)), rng.normal(size=(2, 64))
    tasks = [pc.Dnf.random(clauses=10, seed=seed) for seed in range(2)]
    codes = pc.decode(w1, w2, tasks)
    draws = [pc.nulls.random_network(codes, seed=1, index=2 * draw) for draw in range(50)]
    np.testing.assert_array_equal(draws[0].positive_rows, codes.positive_rows)
    fractions = np.array([(draw.features > 0).mean((1, 2)) for draw in draws])
    expected = (w1 > 0).mean((1, 2))
    np.testing.assert_allclose(fractions.mean(0), expected, atol=5 * 0.5 / np.sqrt(50 * 64 * 32))
    # Rows that carry 4P by chance: as many as a binomial count expects.
    mean = np.mean([draw.code_size().mean(-1) for draw in draws], axis=0)
    np.testing.assert_allclose(mean, codes.positive_rows * expected**4, rtol=0.1)


def test_permuted_rows_stay_within_their_polarity():
    rng = np.random.default_rng(0)
    channels, w2 = rng.random((3, 5, 40)) < 0.3, rng.normal(size=(3, 40))
    permuted = pc.nulls.permute_rows(channels, w2, seed=0)
    assert (permuted != channels).any()
    np.testing.assert_array_equal(permuted.sum(-1), channels.sum(-1))
    for r in range(3):
        for positive in (True, False):
            rows = (w2[r] > 0) == positive
            before, after = channels[r][:, rows].T, permuted[r][:, rows].T
            assert sorted(map(tuple, before)) == sorted(map(tuple, after))
        np.testing.assert_array_equal(pc.nulls.permute_rows(channels[r], w2[r], index=r), permuted[r])
    with pytest.raises(pc.PrecodeShapeError, match="do not fit"):
        pc.nulls.permute_rows(channels, w2[:, :7])


def test_templates_are_checked():
    with pytest.raises(pc.PrecodeValueError, match="'5Q'"):
        pc.nulls.hamming_probabilities("5Q")
    with pytest.raises(pc.PrecodeTypeError, match=r"template must be a name.*int"):
        pc.nulls.hamming_probabilities(4)


def test_keys_and_arrays_are_checked():
    codes = pc.decode(np.ones((3, 6)), np.ones(3), [[0, 1]])
    channels, w2 = codes.channels(), np.ones(3)
    for options, error, message in (
        (dict(seed=-1), pc.PrecodeValueError, "seed = -1"),
        (dict(index=2**64), pc.PrecodeValueError, "index = 18446744073709551616"),
        (dict(seed=True), pc.PrecodeTypeError, "seed must be an integer, not bool"),
    ):
        with pytest.raises(error, match=message):
            pc.nulls.random_network(codes, **options)
        with pytest.raises(error, match=message):
            pc.nulls.permute_rows(channels, w2, **options)
    with pytest.raises(pc.PrecodeShapeError, match=r"channels of shape \(3,\)"):
        pc.nulls.permute_rows(channels[0], w2)
    with pytest.raises(pc.PrecodeTypeError, match=r"channels must be Booleans.*str"):
        pc.nulls.permute_rows("4P", w2)
    assert pc.nulls.permute_rows(channels, w2, seed=np.int64(1)).shape == channels.shape
