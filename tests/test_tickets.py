"""Every method of the registry on the same small networks, against what all of them promise."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

import precode as pc
import recovery_reference
import ticket_reference as reference
from precode.cli import main

METHODS = pc.methods().set_index("name")
# Of what is told the clauses, see test_probes.
CONTROLS = [name for name in pc.controls()["name"] if name != "wrong-clauses"]
SHAPE = dict(variables=12, clauses=3, width=3)
WEIGHTS = 8 * 12
NOT_FROM_INIT = {"imp-lr-rewind", "imp-finetune", "imp-rewind"}
DENSITIES = [1.0, 0.5, 0.25, 0.1, 0.6 / WEIGHTS]


def dense(formulas=range(3), **options):
    tasks = [pc.Dnf.random(**SHAPE, seed=0, index=index) for index in formulas]
    options = {"indices": formulas, **options}
    settings = dict(hidden=8, epochs=5, samples=320, lr=0.02, early_stopping=None, dtype="float64")
    return pc.train(tasks, **{**settings, **options})


@pytest.fixture(scope="module")
def runs():
    return dense()


@pytest.fixture(scope="module")
def tickets(runs):
    """Every method at every density, searched once."""
    return pc.find_tickets(runs, densities=DENSITIES)


# --- what every method promises -------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS.index)
def test_exactly_the_density_is_kept(tickets, method):
    for density in DENSITIES:
        found = tickets.get(method, density)
        assert set(found.masks) == {"w1"}
        assert found.masks["w1"].dtype == torch.bool
        assert found.kept.tolist() == [round(density * WEIGHTS)] * 3
        assert found.total == WEIGHTS
    assert tickets.get(method, 1.0).masks["w1"].all()
    assert tickets.get(method, DENSITIES[-1]).kept.tolist() == [1, 1, 1]


@pytest.mark.parametrize("method", METHODS.index[METHODS["nested"]])
def test_masks_are_nested_where_it_is_promised(tickets, method):
    masks = [tickets.get(method, density).masks["w1"] for density in DENSITIES]
    for larger, smaller in itertools.pairwise(masks):
        assert (smaller <= larger).all()


@pytest.mark.parametrize("method", METHODS.index)
def test_the_start_is_the_masked_start_of_the_method(runs, tickets, method):
    found = tickets.get(method, 0.25)
    mask = found.masks["w1"]
    start = found.start.weights
    assert (start["w1"][~mask] == 0).all()
    if method not in NOT_FROM_INIT:
        assert torch.equal(start["w1"], runs.start.weights["w1"] * mask)
        for name in ("b1", "w2", "b2"):
            assert torch.equal(start[name], runs.start.weights[name])


@pytest.mark.parametrize("method", METHODS.index)
def test_the_same_search_finds_the_same_tickets(runs, tickets, method):
    again = pc.find_tickets(runs, method, 0.25).get(method, 0.25)
    assert torch.equal(again.masks["w1"], tickets.get(method, 0.25).masks["w1"])
    other = pc.find_tickets(runs, method, 0.25, seed=1).get(method, 0.25)
    assert torch.equal(other.masks["w1"], again.masks["w1"]) != METHODS.loc[method, "random"]


@pytest.fixture(scope="module")
def alone():
    """The tickets of one of the networks, trained by itself and searched with another number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    yield pc.find_tickets(dense(formulas=[1]), densities=DENSITIES)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("method", METHODS.index)
def test_a_ticket_depends_neither_on_company_nor_on_threads(tickets, alone, method):
    for density in DENSITIES:
        mine, among = alone.get(method, density), tickets.get(method, density)
        assert torch.equal(mine.masks["w1"][0], among.masks["w1"][1])
        torch.testing.assert_close(mine.start.weights["w1"][0], among.start.weights["w1"][1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", METHODS.index[~METHODS["random"]])
def test_permuted_rows_have_permuted_masks(runs, tickets, method):
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    start = runs.start.weights
    init = {"w1": start["w1"][:, order], "b1": start["b1"][:, order], "w2": start["w2"][:, order], "b2": start["b2"]}
    found = pc.find_tickets(dense(init=init), method, 0.25).get(method, 0.25)
    assert torch.equal(found.masks["w1"], tickets.get(method, 0.25).masks["w1"][:, order])


@pytest.mark.parametrize("method", METHODS.index)
def test_a_search_leaves_everything_as_it_was(method):
    fresh = dense()
    before = {name: value.clone() for name, value in {**fresh.weights, "s": fresh.start.weights["w1"]}.items()}
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    pc.find_tickets(fresh, method, 0.25)
    for name, value in {**fresh.weights, "s": fresh.start.weights["w1"]}.items():
        assert torch.equal(value, before[name])
    assert torch.equal(torch.get_rng_state(), state)
    assert (torch.get_num_threads(), torch.is_grad_enabled()) == (threads, True)


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("method", ["magnitude", "snip", "imp"])
def test_controls_change_what_they_say_and_nothing_else(runs, tickets, method, control):
    plain, found = tickets.get(method, 0.25), pc.find_tickets(runs, f"{method}:{control}", 0.25).found[0]
    mask, other = plain.masks["w1"], found.masks["w1"]
    assert found.kept.tolist() == plain.kept.tolist()
    if control == "reinit":
        assert torch.equal(mask, other)
        assert not torch.equal(plain.start.weights["w1"], found.start.weights["w1"])
        return
    assert (mask != other).any(2).any(1).all()
    if control == "shuffle-row":
        assert torch.equal(mask.sum(2), other.sum(2))
    if control == "shuffle-column":
        assert torch.equal(mask.sum(1), other.sum(1))


def test_tickets_of_another_basis_are_pruned_and_trained_there():
    runs = dense(embedding="hadamard", epochs=3)
    tickets = pc.find_tickets(runs, ["basis-magnitude", "magnitude"], 0.25)
    found = tickets.get("basis-magnitude", 0.25)
    mask = found.masks["w1"]
    assert mask.shape == (3, 8, 12)
    assert found.start.embedding.name == "identity"
    assert torch.equal(found.start.weights["w1"], runs.start.features * mask)
    for network in range(3):
        expected = reference.select({"c1": runs.features[network].abs()}, 0.25)["c1"]
        assert torch.equal(mask[network], expected)
    retrained = tickets.retrain(test=500)
    assert (retrained.networks("basis-magnitude", 0.25).weights["w1"][~mask] == 0).all()
    # At full density the ticket is the dense start, seen from the other basis.
    whole = pc.find_tickets(runs, "basis-magnitude", 1.0).found[0].start
    np.testing.assert_allclose(whole.evaluate(runs.data)["loss"], runs.start.evaluate(runs.data)["loss"], rtol=1e-5)


def test_granularity_and_scope():
    runs = dense(hidden=8)
    for granularity, axis in (("row", 2), ("column", 1)):
        mask = pc.find_tickets(runs, "magnitude", 0.25, granularity=granularity).found[0].masks["w1"]
        whole = mask.all(axis)
        assert torch.equal(whole, mask.any(axis))
        assert whole.sum(1).tolist() == [round(0.25 * whole.shape[1])] * 3
    layers = pc.find_tickets(runs, "magnitude", 0.25, prunable="all", scope="per-layer").found[0]
    assert layers.masks["w1"].flatten(1).sum(1).tolist() == [24] * 3
    assert layers.masks["w2"].flatten(1).sum(1).tolist() == [2] * 3
    both = pc.find_tickets(runs, "magnitude", 0.25, prunable="all").found[0]
    assert both.kept.tolist() == [26] * 3


# --- against references written from the formulas -------------------------------------------------------


def samples(runs, network):
    return runs.data[network].x.double(), runs.data[network].y.double()[:, None]


@pytest.mark.parametrize("embedding", ["identity", "hadamard"])
def test_scores_are_those_of_torch_autograd(embedding):
    runs = dense(embedding=embedding)
    for network in range(3):
        x, y = samples(runs, network)
        module = runs.start.module(network)
        expected = {
            "snip": reference.snip(module, x, y, prunable=["0.weight"]),
            "grasp": reference.grasp(module, x, y, prunable=["0.weight"]),
            "magnitude": reference.magnitude(runs.module(network), prunable=["0.weight"]),
            "magnitude-init": reference.magnitude(module, prunable=["0.weight"]),
        }
        for method, scores in expected.items():
            found = pc.find_tickets(runs, method, [0.5, 0.2, 0.05])
            got, wanted = found.found[0].scores["w1"][network], scores["0.weight"]
            assert (got - wanted).abs().max() / wanted.abs().max() < 1e-5
            for item in found:
                mask = reference.select(scores, item.density)["0.weight"]
                assert torch.equal(item.masks["w1"][network], mask)


def test_synflow_is_that_of_torch_autograd(tickets, runs):
    for network in range(3):
        module = runs.start.module(network)
        for density in (0.5, 0.1):
            masks, scores = reference.synflow(module, density, prunable=["0.weight"])
            found = tickets.get("synflow", density)
            # Of the last round, in which what was pruned before scores zero.
            got, wanted = found.scores["w1"][network], scores["0.weight"]
            assert (got - wanted).abs().max() / wanted.abs().max() < 1e-5
            assert torch.equal(found.masks["w1"][network], masks["0.weight"])


def test_imp_is_a_plain_loop_of_torch(tickets, runs):
    orders = [pc._precode.epoch_order(0, epoch, 320).astype(np.int64) for epoch in range(5)]
    for network in range(2):
        x, y = samples(runs, network)
        masks, _ = reference.imp(
            runs.start.module(network),
            x,
            y,
            reference.batches_of(orders, 64),
            [0.5, 0.25],
            prunable=["0.weight"],
            lr=0.02,
        )
        for density, mask in zip((0.5, 0.25), masks, strict=True):
            assert torch.equal(tickets.get("imp", density).masks["w1"][network], mask["0.weight"])


def test_imp_prunes_as_torch_prune_does(tickets, runs):
    orders = [pc._precode.epoch_order(0, epoch, 320).astype(np.int64) for epoch in range(5)]
    x, y = samples(runs, 0)
    batches = reference.batches_of(orders, 64)
    _, levels = reference.imp(runs.start.module(0), x, y, batches, [0.5], prunable=["0.weight"], lr=0.02)
    module = levels[-1].trained
    torch.nn.utils.prune.custom_from_mask(module[0], "weight", levels[-1].masks["0.weight"])
    left = int(levels[-1].masks["0.weight"].sum())
    torch.nn.utils.prune.global_unstructured(
        [(module[0], "weight")], torch.nn.utils.prune.L1Unstructured, amount=left - WEIGHTS // 2
    )
    assert torch.equal(module[0].weight_mask.bool(), tickets.get("imp", 0.5).masks["w1"][0])


def test_magnitude_is_that_of_torch_prune(tickets, runs):
    for network in range(3):
        module = runs.module(network)
        torch.nn.utils.prune.global_unstructured(
            [(module[0], "weight")], torch.nn.utils.prune.L1Unstructured, amount=WEIGHTS - 24
        )
        assert torch.equal(module[0].weight_mask.bool(), tickets.get("magnitude", 0.25).masks["w1"][network])


# --- retraining -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def retrained():
    tasks = [pc.Dnf.random(clauses=6, seed=0, index=index) for index in range(2)]
    runs = pc.train(tasks, hidden=16, epochs=6, samples=4000, lr=5e-3, seed=3)
    return pc.find_tickets(runs, ["random", "magnitude", "imp-rewind"], [0.5, 0.25]).retrain(test=2000)


def test_retraining_is_training_from_the_start_of_the_ticket(retrained):
    runs, item = retrained.tickets.dense, retrained.tickets.get("magnitude", 0.25)
    alone = pc.train(
        runs.tasks,
        data=runs.data,
        init=item.start.weights,
        masks=item.masks,
        epochs=6,
        lr=5e-3,
        order_seed=3,
    )
    for name, value in retrained.networks("magnitude", 0.25).weights.items():
        assert torch.equal(value, alone.weights[name])
    assert (retrained.networks("magnitude", 0.25).weights["w1"][~item.masks["w1"]] == 0).all()
    late = retrained.tickets.get("imp-rewind", 0.25)
    assert late.first_epoch == 1
    assert not torch.equal(late.start.weights["b1"], runs.start.weights["b1"])


def test_the_table_is_complete(retrained):
    table = retrained.table()
    assert list(table.columns[:6]) == ["method", "density", "formula", "accuracy", "dense_accuracy", "kept"]
    assert len(table) == 3 * 2 * 2
    assert table["formula"].tolist() == [0, 1] * 6
    assert table["density"].isin([0.5, 0.25]).all()
    assert (table["kept"] == table["density"] * 512).all()
    assert (table["achieved_density"] == table["kept"] / table["total"]).all()
    # The density is the one that was asked for: rows find their networks, and fit the table of the search.
    for row in table.itertuples():
        assert len(retrained.networks(row.method, row.density)) == 2
    keys = ["method", "density", "formula"]
    assert len(table.merge(retrained.tickets.table(), on=keys)) == len(table)
    held_out = [
        task.sample(2000, seed=3, index=i, held_out=True) for i, task in enumerate(retrained.tickets.dense.tasks)
    ]
    again = 1 - retrained.networks("random", 0.5).evaluate(held_out)["error"]
    assert table.query("method == 'random' and density == 0.5")["accuracy"].tolist() == again.tolist()
    for measure in ("recovery", "precision", "jaccard"):
        for level in ("location", "family", "clause"):
            values = table[f"{measure}_{level}"].dropna()
            assert values.between(0, 1).all()
    assert (table["recovery_location"] <= table["recovery_family"] + 1e-12).all()
    frame = retrained.polars()
    assert frame.columns == list(table.columns)
    assert frame["accuracy"].to_list() == table["accuracy"].tolist()
    assert "magnitude" in retrained._repr_html_()


def test_densities_may_be_of_any_kind_and_are_the_ones_that_were_asked_for():
    runs = pc.train(pc.Dnf.random(clauses=4, seed=0), hidden=8, samples=64, epochs=1)
    for asked in (0.1, np.float32(0.1), np.float64(0.1), np.array([0.1], dtype=np.float32), [np.float32(0.1)]):
        tickets = pc.find_tickets(runs, "magnitude", asked)
        table = tickets.retrain(test=100).table()
        assert table["density"].tolist() == [0.1]
        assert table[["kept", "total", "achieved_density"]].to_numpy().tolist() == [[26, 256, 26 / 256]]
        assert tickets.get("magnitude", np.float32(0.1)) is tickets.found[0]
    ticket = tickets.ticket(0, "magnitude", 0.1)
    assert pc.Ticket(ticket.masks, ticket.start, method="mine", density=np.float32(0.1)).density == 0.1


def test_recovery_is_that_of_a_plain_count(retrained):
    table = retrained.table().groupby(["method", "density"], sort=False)
    dense, tasks = retrained.tickets.dense, retrained.tickets.dense.tasks
    for item in retrained.tickets:
        rows = table.get_group((item.method, item.density)).to_dict("records")
        sparse = retrained.networks(item.method, item.density)
        for row, task, network in zip(rows, tasks, range(len(tasks)), strict=True):

            def codes(networks, alive, relaxed=False, task=task, network=network):
                w1, w2 = (networks.weights[name][network].double().numpy() for name in ("w1", "w2"))
                floor = 0.1 * np.abs(w1[alive]).mean()
                found = recovery_reference.codes(w1, w2, task.clauses, alive, floor, relaxed)
                return {location for location in found if location[1] in ("4P", "3N1P")}

            alive = item.masks["w1"][network].numpy()
            true = codes(dense, np.ones_like(alive))
            exact, relaxed = (recovery_reference.recovery(codes(sparse, alive, kind), true) for kind in (False, True))
            for level in ("location", "family"):
                assert row[f"recovery_{level}"] == pytest.approx(exact[level]["recall"], nan_ok=True)
                assert row[f"precision_{level}"] == pytest.approx(exact[level]["precision"], nan_ok=True)
                assert row[f"jaccard_{level}"] == pytest.approx(exact[level]["jaccard"], nan_ok=True)
                assert row[f"relaxed_{level}"] == pytest.approx(relaxed[level]["recall"], nan_ok=True)


@pytest.mark.parametrize("embedding", ["identity", "hadamard", "random"])
def test_a_ticket_of_a_stack_trains_on_in_the_module_of_its_network(embedding, tmp_path):
    runs = dense(embedding=embedding)
    tickets = pc.find_tickets(runs, ["magnitude", "snip"], 0.25)
    for method, network in (("magnitude", 0), ("snip", 2)):
        tickets.ticket(network, method, 0.25).save(tmp_path / "ticket.safetensors")
        ticket = pc.Ticket.load(tmp_path / "ticket.safetensors")
        module = runs.module(network)
        x, y = samples(runs, network)
        wrong = ((module(x) > 0) != y.bool()).double().mean().item()
        assert wrong == pytest.approx(runs.evaluate()["error"][network], abs=1e-9)
        assert set(ticket.start) == {name for name, _ in module.named_parameters()}
        ticket.apply_(module)
        fixed = {name: value.clone() for name, value in module.named_buffers()}
        optimizer = torch.optim.Adam(module.parameters(), lr=0.1, weight_decay=0.1)
        torch.nn.functional.binary_cross_entropy_with_logits(module(x), y).backward()
        optimizer.step()
        weight = module.get_submodule("0").weight
        mask = ticket.masks["0.weight"]
        assert (weight[~mask] == 0).all()
        assert not torch.equal(weight[mask], ticket.start["0.weight"][mask])
        assert all(torch.equal(value, fixed[name]) for name, value in module.named_buffers())
        assert ("embedding.weight" in fixed) == (embedding != "identity")
        found = tickets.get(method, 0.25).start.module(network)
        assert all(torch.equal(value, ticket.start[name]) for name, value in found.named_parameters())


def test_a_ticket_of_a_stack_fits_the_module_of_its_network(retrained, tmp_path):
    tickets = retrained.tickets
    ticket = tickets.ticket(1, "magnitude", 0.25)
    ticket.save(tmp_path / "ticket.safetensors")
    loaded = pc.Ticket.load(tmp_path / "ticket.safetensors")
    module = loaded.apply_(tickets.dense.start.module(1))
    mask = tickets.get("magnitude", 0.25).masks["w1"][1]
    assert torch.equal(module[0].weight, tickets.dense.start.weights["w1"][1] * mask)
    with pytest.raises(pc.PrecodeValueError, match="no tickets of 'snip'"):
        tickets.get("snip", 0.25)


# --- what is refused ------------------------------------------------------------------------------------

CLAUSELESS = METHODS.index[METHODS["needs"].str.split(", ").map(lambda needs: "clauses" in needs)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(densities=0), "density = 0: expected a fraction above 0"),
        (dict(densities=1.5), "density = 1.5"),
        (dict(densities=[0.5, math.nan]), "density"),
        (dict(densities=0.001), "keeps none of 96"),
        (dict(methods="magic"), "method 'magic' is unknown: use one of .*snip"),
        (dict(methods="snip:twist"), "control 'twist' is unknown: use one of shuffle-layer"),
        (dict(methods=[]), "no methods"),
        (dict(methods=3), "not int"),
        (dict(prunable="w2"), "prunable = 'w2': use one of w1, all"),
        (dict(granularity="block"), "granularity 'block' is unknown: use one of weight, row, column"),
        (dict(scope="local"), "scope 'local' is unknown: use one of global, per-layer"),
        (dict(output=1), "output = 1"),
        (dict(seed=-1), "seed = -1"),
    ],
)
def test_impossible_requests_are_refused(runs, options, message):
    with pytest.raises(pc.PrecodeError, match=message):
        pc.find_tickets(runs, **{"methods": "snip", "densities": 0.25, **options})


@pytest.mark.parametrize("method", CLAUSELESS)
def test_methods_that_read_codes_need_clauses(runs, method):
    bare = pc.train(data=runs.data, hidden=4, epochs=2)
    with pytest.raises(pc.PrecodeValueError, match="needs clauses"):
        pc.find_tickets(bare, method, 0.25)
    with pytest.raises(pc.PrecodeValueError, match="pass data sets"):
        pc.find_tickets(bare, "random", 0.5).retrain()


def test_all_leaves_out_what_needs_clauses_and_says_so(runs):
    bare = pc.train(data=runs.data, hidden=4, epochs=2)
    with pytest.warns(pc.TicketWarning, match="networks without a formula do not have: distance") as said:
        found = {item.method for item in pc.find_tickets(bare, "all", 0.5)}
    assert found.isdisjoint(CLAUSELESS)
    assert all(f"{method} (clauses" in str(said[0].message) for method in CLAUSELESS)


def test_diverged_networks_are_refused(runs):
    with pytest.warns(pc.DivergenceWarning, match="3 of 3 networks diverged"):
        wild = dense(optimizer="sgd", lr=1e300)
    with pytest.raises(pc.PrecodeError, match="finite"):
        pc.find_tickets(wild, "magnitude", 0.25)


# --- command line ---------------------------------------------------------------------------------------


def test_the_command_prints_and_writes_one_complete_table(tmp_path):
    file = tmp_path / "table.json"
    arguments = ["--hidden", "8", "--clauses", "3", "--formulas", "2", "--densities", "0.5,0.25", "--epochs", "1"]
    result = CliRunner().invoke(
        main, ["tickets", *arguments, "--methods", "random,snip:shuffle-row", "--json", str(file)]
    )
    assert result.exit_code == 0, result.output
    table = pd.read_json(file)
    assert len(table) == 2 * 2 * 2
    assert set(table["method"]) == {"random", "snip:shuffle-row"}
    assert all(str(column) in result.stdout.split("\n")[0] for column in table.columns)
    for wrong, message in (
        (["--densities", "0"], "numbers in \\(0, 1\\]"),
        (["--methods", "magic"], "method 'magic' is unknown"),
        (["--json", str(tmp_path / "no" / "file")], "does not exist"),
        (["--methods", "snip", "--at", "0,2"], "at = 2: the dense run has 1 epochs"),
        (["--methods", "snip", "--at", "-1"], "expected numbers of at least 0"),
        (["--methods", "imp", "--rewind", "1"], "rewind = 1: the dense run has 1 epochs"),
    ):
        result = CliRunner().invoke(main, ["tickets", *arguments, *wrong])
        assert result.exit_code != 0
        assert message.replace("\\", "") in result.stderr
        assert "%|" not in result.stderr, "no training has begun"


def test_the_command_reads_early_and_rewinds(tmp_path):
    file = tmp_path / "table.json"
    arguments = ["--hidden", "8", "--clauses", "3", "--formulas", "1", "--densities", "0.5", "--epochs", "3"]
    result = CliRunner().invoke(
        main, ["tickets", *arguments, "--methods", "checkpoint-magnitude", "--at", "0,2", "--json", str(file)]
    )
    assert result.exit_code == 0, result.output
    assert pd.read_json(file)["probe_epoch"].tolist() == [0, 2]
    result = CliRunner().invoke(main, ["tickets", *arguments, "--methods", "obs", "--rewind", "2", "--json", str(file)])
    assert result.exit_code == 0, result.output
    assert pd.read_json(file)["start_epoch"].tolist() == [2]


def test_the_registry_is_printed_whole(tmp_path):
    result = CliRunner().invoke(main, ["methods", "--json", str(tmp_path / "methods.json")])
    assert result.exit_code == 0
    assert all(name in result.stdout for name in [*METHODS.index, *CONTROLS])
    assert pd.read_json(tmp_path / "methods.json")["name"].tolist() == METHODS.index.tolist()
