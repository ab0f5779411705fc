"""Tickets of networks whose codes cannot be read: accuracy comes, recovery is missing, probes are refused by name."""

import re

import pytest

import precode as pc

pytestmark = pytest.mark.usefixtures("one_thread")

TASK = pc.Dnf.random(variables=12, clauses=4, width=3, seed=0)
CODES = ("recovery_location", "retention")

NETWORKS = {
    "two hidden layers": lambda: pc.train([TASK] * 2, hidden=[8, 6], epochs=2, samples=400),
    "three hidden layers": lambda: pc.train(TASK, hidden=[8, 6, 4], epochs=2, samples=400),
    "two behind an embedding": lambda: pc.train(TASK, hidden=[8, 6], epochs=2, samples=400, embedding=pc.Projection(8)),
    "clauses of mixed widths": lambda: pc.train(pc.Dnf([[0, 1], [2, 3, 4]], 12), hidden=8, epochs=2, samples=400),
    "formulas of other widths": lambda: pc.train(
        [TASK, pc.Dnf.random(variables=12, clauses=4, width=2, seed=0)], hidden=8, epochs=2, samples=400
    ),
    "a negated formula": lambda: pc.train(pc.Dnf.cnf([[0, 1], [2, 3, 4]], 12), hidden=8, epochs=2, samples=400),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_accuracy_comes_without_codes(kind):
    runs = NETWORKS[kind]()
    retrained = pc.find_tickets(runs, ["random", "snip", "imp"], 0.25).retrain(test=200)
    table = retrained.table()
    assert table["accuracy"].between(0, 1).all()
    assert (table["kept"] == round(0.25 * table["total"].iloc[0])).all()
    assert not [name for name in CODES if name in table]
    assert len(retrained.summary()) == 3


@pytest.mark.parametrize("kind", ["two hidden layers", "three hidden layers", "two behind an embedding"])
def test_methods_that_read_codes_are_refused_by_name(kind):
    with pytest.raises(pc.PrecodeValueError, match="distance, motion: for networks of one hidden layer"):
        pc.find_tickets(NETWORKS[kind](), ["snip", "distance", "motion"], 0.25)


def test_codes_are_still_read_where_they_can_be():
    retrained = pc.find_tickets(pc.train(TASK, hidden=8, epochs=2, samples=400), "random", 0.25).retrain(test=200)
    assert all(name in retrained.table() for name in CODES)


@pytest.mark.parametrize("kind", ["two hidden layers", "two behind an embedding"])
def test_all_are_the_methods_that_the_networks_can_have(kind):
    runs = NETWORKS[kind]()
    with pytest.warns(pc.TicketWarning, match=r"'all' leaves out .*; distance \(clauses, two linear layers\);") as said:
        tickets = pc.find_tickets(runs, "all", 0.25)
    found = set(tickets.table()["method"])
    left_out = {name for name in pc.methods()["name"] if f" {name} (" in str(said[0].message)}
    assert found | left_out == set(pc.methods()["name"])
    assert not found & left_out
    assert {"random", "imp", "snip", "obs", "synflow"} <= found
    assert {"magnitude-w2", "hot-imp", "oracle"} <= left_out
    for method in sorted(left_out):
        with pytest.raises(pc.PrecodeValueError, match=f"{re.escape(method)}: for networks of one hidden layer"):
            pc.find_tickets(runs, method, 0.25)
