"""How many clauses a width holds: onsets, slopes, and readings of the overlap of codes."""

from itertools import combinations

import numpy as np
import pytest

import precode as pc
from precode.experiments.neighbour_capacity import LAWS, OVERLAPS, onset, overlaps, shared_variables, slope

CAPACITY = pc.experiments.capacity


@pytest.fixture(scope="module")
def quick():
    return CAPACITY(**CAPACITY.quick, progress=False)


def plain_overlaps(channels, either, shared):
    """Every reading, pair by pair."""
    codes = [set(np.flatnonzero(rows)) for rows in channels]
    others = [set(np.flatnonzero(rows)) for rows in either]
    pairs = [(a, b) for a, b in combinations(range(len(codes)), 2) if codes[a] and codes[b]]
    common = {(a, b): len(codes[a] & codes[b]) for a, b in pairs}
    largest = [
        max(len(code & other) for other in codes[:c] + codes[c + 1 :] if other)
        for c, code in enumerate(codes)
        if code and any(codes[:c] + codes[c + 1 :])
    ]
    values = {
        "all": list(common.values()),
        "share 0": [n for (a, b), n in common.items() if shared[a, b] == 0],
        "share 1": [n for (a, b), n in common.items() if shared[a, b] == 1],
        "share 2": [n for (a, b), n in common.items() if shared[a, b] >= 2],
        "overlapping": [n for n in common.values() if n],
        "largest": largest,
        "both polarities": [len(a & b) for a, b in combinations(others, 2) if a and b],
    }
    return {name: np.mean(found) if found else np.nan for name, found in values.items()}


@pytest.mark.parametrize("seed", range(8))
def test_overlaps_are_those_of_every_pair(seed):
    rng = np.random.default_rng(seed)
    clauses = int(rng.integers(1, 9))
    channels = rng.random((clauses, 6)) < rng.choice([0.1, 0.4])
    either = channels | (rng.random((clauses, 6)) < 0.2)
    task = pc.Dnf.random(variables=12, clauses=clauses, width=3, seed=seed)
    shared = shared_variables(task)
    found = overlaps(channels, either, shared)
    assert tuple(found) == OVERLAPS
    expected = plain_overlaps(channels, either, shared)
    np.testing.assert_allclose(list(found.values()), [expected[name] for name in OVERLAPS])


def test_shared_variables_are_counted_through_negations():
    task = pc.Dnf([[0, ~1, 2], [1, 2, 3], [4, 5, 6]], variables=7)
    assert shared_variables(task).tolist() == [[3, 2, 0], [2, 3, 0], [0, 0, 3]]


def test_onsets_are_first_crossings_and_slopes_those_of_power_laws():
    clauses = [4, 8, 16, 32]
    assert onset(clauses, [0, 0, 0.01, 0.02], 0.005) == pytest.approx(8 * 2**0.5)
    # The first crossing counts, whatever comes after it.
    assert onset(clauses, [0, 0.02, 0.0, 0.02], 0.01) == pytest.approx(4 * 2**0.5)
    assert onset(clauses, [0, 0.005, 0.01, 0.02], 0.005) == pytest.approx(8)
    assert np.isnan(onset(clauses, [0.01, 0, 0, 0.02], 0.005))
    assert np.isnan(onset(clauses, [0, 0, 0, 0.004], 0.005))
    widths = [8, 16, 32, 64]
    slopes = {name: slope(widths, [law(width) for width in widths]) for name, law in LAWS.items()}
    first, second, third = slopes.values()
    assert (first, second) == (pytest.approx(1), pytest.approx(1.5))
    assert 1.5 < third < 2
    assert np.isnan(slope([8], [3]))


def test_published_onsets_lie_between_the_points_that_cross(quick):
    reported = {(item.quantity, *item.at.values()): item.value for item in CAPACITY.reported}
    # Figure 4: .003 at 16 clauses and .02 at 24 of 16 rows; .004 at 42 and .022 at 56 of 32.
    assert 16 < reported["onset", 16, 0.005] < reported["onset", 16, 0.01] < 24
    assert 42 < reported["onset", 32, 0.005] < reported["onset", 32, 0.01] < 56
    assert not any(item.at["hidden"] == 64 for item in CAPACITY.reported if item.quantity == "onset")
    assert len(quick.reported) == len(CAPACITY.reported)
    overlap = quick.reported[quick.reported["quantity"] == "overlap"].set_index("at")
    assert overlap["measured"].notna().sum() == 2  # 16 rows, 2 and 64 clauses


def test_tables_say_what_networks_say(quick):
    networks = quick.tables["networks"]
    assert len(networks) == 2 * 4 * 3
    codes = pc.train(
        [pc.Dnf.random(clauses=16, seed=4000, index=i) for i in range(3)],
        hidden=16,
        seed=4000,
        indices=range(3),
        samples=2000,
        embedding="hadamard",
        epochs=20,
    ).codes()
    here = networks[(networks["hidden"] == 16) & (networks["clauses"] == 16)]
    np.testing.assert_allclose(here["rows"], codes.code_size().mean(1))
    np.testing.assert_allclose(here["all"], codes.summary()["overlap"])
    np.testing.assert_allclose(here["limit"], 16 * 32 / (16 * 16))
    points = quick.table.set_index(["hidden", "clauses", "quantity"])["mean"]
    assert points[16, 16, "rows"] == pytest.approx(here["rows"].mean())
    assert points[16, 64, "train_error"] > points[16, 2, "train_error"]
    for figure in quick.figures:
        assert quick.plot(figure).get_xlabel()


def test_impossible_settings_are_refused_before_any_training():
    with pytest.raises(pc.PrecodeValueError, match="'hadamar'"):
        CAPACITY(embeddings=("hadamar",))
    with pytest.raises(pc.PrecodeValueError, match="thresholds"):
        CAPACITY(thresholds=(0,))
    with pytest.raises(pc.PrecodeValueError, match="hidden"):
        CAPACITY(hidden=(0,))
