"""A CNF is the complement of a DNF: whatever reads codes must read its networks as the DNF's, with w2 negated."""

import numpy as np
import pandas as pd
import pytest
import torch

import precode as pc
from precode.networks.stacks import Networks

CNF = pc.Dnf.cnf([[0, 1, 2], [3, 4, 5], [6, 7, 8]], 12)
DUAL = pc.Dnf(CNF.clauses, 12)


def complement(networks):
    """The networks that compute the negation: output weights and bias negated."""
    weights = {name: -value if name in ("w2", "b2") else value for name, value in networks.weights.items()}
    return Networks(weights, [DUAL] * len(networks), networks.embedding)


@pytest.fixture(scope="module")
def runs():
    return pc.train([CNF] * 4, hidden=16, samples=4000, sampler="uniform", epochs=30, seed=1)


def test_a_cnf_network_has_codes(runs):
    assert runs.evaluate()["error"].max() < 0.05
    codes = runs.codes().code_size().mean()
    as_dnf = (
        pc.train([DUAL] * 4, hidden=16, samples=4000, sampler="uniform", epochs=30, seed=1).codes().code_size().mean()
    )
    assert codes > 0.5 * as_dnf > 0.5


def test_decoding_is_that_of_the_dual_with_w2_negated(runs):
    dual = complement(runs)
    for template in runs.codes().templates:
        np.testing.assert_array_equal(runs.codes().channels(template), dual.codes().channels(template))
        np.testing.assert_array_equal(
            runs.distance(template, polarity="require"), dual.distance(template, polarity="require")
        )
    bare = pc.decode(runs.weights["w1"], runs.weights["w2"], [CNF] * 4)
    np.testing.assert_array_equal(bare.channels(), dual.codes().channels())
    one = pc.decode(runs.weights["w1"][2], runs.weights["w2"][2], CNF)
    np.testing.assert_array_equal(one.channels(), dual.codes().channels()[2])
    np.testing.assert_array_equal(runs.codes().positive_rows, dual.codes().positive_rows)


def test_a_stack_of_both_kinds_is_read_each_in_its_way(runs):
    dual = complement(runs)
    w1 = torch.cat([runs.weights["w1"], dual.weights["w1"]])
    w2 = torch.cat([runs.weights["w2"], dual.weights["w2"]])
    channels = pc.decode(w1, w2, [CNF] * 4 + [DUAL] * 4).channels()
    np.testing.assert_array_equal(channels[:4], channels[4:])


def test_crowding_and_recovery_follow(runs):
    dual = complement(runs)
    own = pc.crowding(runs.features, runs.weights["w2"], [CNF] * 4)
    other = pc.crowding(dual.features, dual.weights["w2"], [DUAL] * 4)
    for name, values in own.items():
        np.testing.assert_array_equal(values, other[name])
    mask = torch.rand(runs.weights["w1"].shape, generator=torch.Generator().manual_seed(0)) < 0.5
    tables = [pc.recovery(networks, networks, {"w1": mask}) for networks in (runs, dual)]
    assert tables[0].equals(tables[1])
    assert np.nansum(tables[0]["relaxed_family"]) > 0


def test_claims_observe_the_same_locations(runs):
    observations = pytest.importorskip("precode.claims.observations")
    dual = complement(runs)
    start = complement(runs.start)
    clauses = [[list(clause) for clause in CNF.clauses]] * 4
    tables = [
        observations.observe_locations(first, last, clauses) for first, last in ((runs.start, runs), (start, dual))
    ]
    columns = ["polarity", "hamming", "soft", "near", "code"]
    assert tables[0][columns].equals(tables[1][columns])
    assert tables[0]["code"].any()


def test_nulls_and_transport_of_claims_are_the_same(runs):
    claims = pytest.importorskip("precode.claims")
    dual, start = complement(runs), complement(runs.start)
    tables = []
    for first, last, task in ((runs.start, runs, CNF), (start, dual, DUAL)):
        clauses = [[list(clause) for clause in task.clauses]] * 4
        kinds = [claims.observe_locations(first, last, clauses).assign(kind=kind) for kind in ("formula", "false")]
        tables.append([claims.count_nulls(pd.concat(kinds, ignore_index=True), last), claims.transport(last, last)])
    for own, other in zip(*tables, strict=True):
        pd.testing.assert_frame_equal(own, other)
    assert tables[0][0].groupby("null")["codes"].sum()["random_network"] > 0


@pytest.mark.parametrize("method", ["distance", "motion", "distance+motion", "oracle", "distance-blind"])
def test_probes_find_the_same_masks(method):
    """Trained on negated labels from a start with w2 negated, the networks are each other's negation bit for bit."""
    tasks = [CNF, DUAL]
    data = [CNF.sample(1000, seed=3, sampler="uniform"), None]
    data[1] = pc.Dataset(data[0].x, ~data[0].y)
    first = pc.train(CNF, hidden=16, data=data[0], epochs=3, seed=1)
    start = {name: -value if name in ("w2", "b2") else value for name, value in first.start.weights.items()}
    second = pc.train(DUAL, hidden=16, data=data[1], init=start, epochs=3, seed=1)
    torch.testing.assert_close(first.weights["w1"], second.weights["w1"], rtol=0, atol=1e-6)
    masks = [pc.find_tickets(runs, method, 0.25).get(method, 0.25).masks["w1"] for runs in (first, second)]
    assert torch.equal(*masks), tasks


def test_probes_of_a_module_find_the_same_mask():
    model = torch.nn.Sequential(torch.nn.Linear(12, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
    negated = torch.nn.Sequential(torch.nn.Linear(12, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
    negated.load_state_dict({name: -value if name[0] == "2" else value for name, value in model.state_dict().items()})
    found = [
        pc.find_ticket(module, "distance", 0.25, clauses=task, prunable=["0.weight"])
        for module, task in ((model, CNF), (negated, DUAL))
    ]
    assert torch.equal(*(ticket.masks["0.weight"] for ticket in found))
    same_sign = pc.find_ticket(model, "distance", 0.25, clauses=DUAL, prunable=["0.weight"])
    assert not torch.equal(found[0].masks["0.weight"], same_sign.masks["0.weight"])
