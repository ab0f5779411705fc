"""Modules that are watched while a loop of the user's own trains them."""

import copy
import io

import numpy as np
import pytest
import torch
from torch import nn

import precode as pc
from precode.modules import selection

pytestmark = pytest.mark.usefixtures("one_thread")

TASK = pc.Dnf.random(variables=16, clauses=4, width=3, seed=0)


def mlp(outputs=1):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, outputs))


def data(samples=64):
    x = torch.rand(samples, 16, generator=torch.Generator().manual_seed(0)) < 0.5
    return x.float(), torch.as_tensor(TASK.evaluate(x)).float().reshape(samples, -1)


def train(module, steps, optimizer=None):
    """A loop as users write it; the weights after each step."""
    x, y = data()
    optimizer = optimizer or torch.optim.Adam(module.parameters(), 0.05)
    seen = [{name: value.detach().clone() for name, value in module.named_parameters()}]
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(module(x), y).backward()
        optimizer.step()
        seen.append({name: value.detach().clone() for name, value in module.named_parameters()})
    return seen


def test_what_is_recorded_is_what_the_weights_were():
    module = mlp()
    with pc.watch(module, TASK, every=3, densities=[0.3, 0.1]) as log:
        seen = train(module, 10)
    table = log.table()
    assert table["step"].tolist() == log.recorded == [0, 3, 6, 9, 10]
    names = ["0.weight", "2.weight"]

    def magnitude(step, density):
        flat = torch.cat([seen[step][name].abs().flatten() for name in names])
        mask = torch.zeros(len(flat), dtype=torch.bool)
        mask[flat.argsort(descending=True, stable=True)[: round(density * len(flat))]] = True
        return mask

    for row in table.to_dict("records"):
        now, start = (torch.cat([seen[step][name].flatten() for name in names]) for step in (row["step"], 0))
        assert row["moved"] == pytest.approx(float((now - start).norm() / start.norm()), rel=1e-5)
        assert row["sign_changes"] == pytest.approx(float((now.sign() != start.sign()).float().mean()))
        for density in (0.3, 0.1):
            one, end = magnitude(row["step"], density), magnitude(10, density)
            assert row[f"jaccard_{density}"] == pytest.approx(float((one & end).sum() / (one | end).sum()))
        w1, w2 = seen[row["step"]]["0.weight"], seen[row["step"]]["2.weight"]
        codes = pc.decode(w1, w2, TASK)
        assert np.array_equal(log.codes(row["step"]).channels(), codes.channels())
        assert row["code_size"] == codes.code_size().mean()
        near = pc.distance(w1, w2, TASK, metric="soft")
        assert row["distance"] == pytest.approx(near.min(-1).mean(), rel=1e-5)
        before = (seen[0]["0.weight"], seen[0]["2.weight"])
        assert row["motion"] == pytest.approx(pc.motion(before, (w1, w2), TASK).mean(), abs=1e-6)
    parts = log.tensors()
    assert parts.query("step == 9")["name"].tolist() == names
    change = seen[9]["2.weight"] - seen[0]["2.weight"]
    expected = float(change.norm() / seen[0]["2.weight"].norm())
    assert parts.query("step == 9 and name == '2.weight'")["moved"].item() == pytest.approx(expected, rel=1e-5)
    assert log.plot().get_xlabel() == "optimizer step"
    assert "<table" in log._repr_html_()


@pytest.mark.parametrize("seed", range(3))
def test_masks_are_those_of_the_stable_order(seed):
    generator = torch.Generator().manual_seed(seed)
    # Many ties.
    scores = {name: torch.randint(4, (7, 5), generator=generator).float() for name in "ab"}
    for density in (0.05, 0.33, 0.5, 1.0):
        wanted = selection.Wanted(density, "weight", "global")
        for name, mask in selection.choose(scores, {}, wanted).items():
            assert torch.equal(selection.largest(scores, density)[name], mask)


def test_nothing_else_changes():
    watched, plain = mlp(), mlp()
    watched[1].eval(), plain[1].eval()
    state = torch.get_rng_state()
    with pc.watch(watched, TASK, every=1):
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.is_grad_enabled()
        train(watched, 4)
    train(plain, 4)
    for ours, theirs in zip(watched.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert torch.equal(ours.grad, theirs.grad)
    assert [layer.training for layer in watched.modules()] == [layer.training for layer in plain.modules()]
    copy.deepcopy(watched)


def test_hooks_are_gone_after_an_exception_too():
    from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

    before = len(_global_optimizer_pre_hooks), len(_global_optimizer_post_hooks)
    module = mlp()
    log = pc.watch(module, every=2)

    def interrupted():
        with log:
            train(module, 3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (len(_global_optimizer_pre_hooks), len(_global_optimizer_post_hooks)) == before
    assert log.recorded == [0, 2, 3]
    train(module, 2)
    assert log.steps == 3


def test_only_steps_with_the_modules_parameters_count():
    module, other = mlp(), mlp()
    whole = torch.optim.SGD(module.parameters(), 0.1)
    with pc.watch(module, every=1) as log:
        train(other, 3)
        assert log.steps == 0
        x, y = data()
        for _ in range(4):  # accumulated gradients, and an evaluation
            nn.functional.mse_loss(module(x), y).backward()
        with torch.no_grad():
            module(x)
        whole.step()
        assert log.steps == 1
        first, last = (torch.optim.SGD(module[layer].parameters(), 0.1) for layer in (0, 2))
        for _ in range(3):
            first.step()
            middle = module[2].weight.clone()
            last.step()
            assert not torch.equal(middle, module[2].weight)
        assert log.steps == 4
        end = module[2].weight.detach().clone()
        whole.step()  # which ends the round
        start = log._start["2.weight"]
        moved = log.tensors().query("step == 4 and name == '2.weight'")["moved"].item()
        assert moved == pytest.approx(float((end - start).norm() / start.norm()), rel=1e-5)
        log.step()
        assert log.steps == 6


def test_any_module_is_watched_and_what_is_not_read_is_named():
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    network = nn.ModuleDict({"tied": tied, "lstm": nn.LSTM(4, 3), "conv": nn.Conv1d(2, 3, 2)})
    with pc.watch(network, every=1) as log:
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        torch.optim.SGD(network.parameters(), 0.1).step()
    assert log.tensors()["name"].unique().tolist() == ["lstm.weight_ih_l0", "lstm.weight_hh_l0", "conv.weight"]
    assert log.unread["codes"] == "no task is given"
    assert log.unread["tied.0.weight"] == "the weight is shared with tied.1.weight"
    assert list(log.table().columns) == ["step", "moved", "sign_changes", "jaccard_0.5", "jaccard_0.1"]
    with pytest.raises(pc.PrecodeValueError, match=r"name them with layers=; the module has 'tied\.0', 'tied\.1'"):
        pc.watch(network, TASK)
    with pytest.raises(pc.PrecodeValueError, match="nothing to watch"):
        pc.watch(nn.BatchNorm1d(3))
    with pytest.raises(pc.PrecodeShapeError, match="takes 16 inputs but the task has 8"):
        pc.watch(mlp(), pc.Dnf.random(variables=8, clauses=2, width=2))
    with pytest.raises(pc.PrecodeValueError, match=r"name it with output="):
        pc.watch(mlp(2), TASK)
    with pytest.raises(pc.PrecodeTypeError, match="linear layer of the module"):
        pc.watch(mlp(), TASK, embedding=nn.Linear(2, 2))
    with pytest.raises(pc.PrecodeValueError, match="every = 0"):
        pc.watch(mlp(), every=0)
    with pytest.raises(pc.PrecodeValueError, match="codes are read for a task"):
        log.codes(0)


def test_a_classifier_is_read_at_its_logit_and_behind_its_embedding():
    c0 = nn.Linear(16, 16, bias=False)
    network = nn.Sequential(c0, nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 2))
    with pc.watch(network, TASK, ("1", "3"), embedding=c0, output=1, every=1) as log:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        log.step()
        assert log.recorded == [0, 1]
    expected = pc.decode(network[1].weight @ c0.weight, network[3].weight[1], TASK)
    assert np.array_equal(log.codes(1).channels(), expected.channels())
    with pytest.raises(pc.PrecodeValueError, match=r"step = 5 was not recorded: there are \[0, 1\]"):
        log.codes(5)


def test_a_diverged_network_is_no_number_and_named():
    module = mlp()
    with pc.watch(module, TASK, every=1) as log:
        train(module, 1)
        log.record()
        with torch.no_grad():
            module[2].weight.fill_(float("nan"))
        log.step()
    assert log.table().iloc[-1].drop("step").isna().all()
    assert log.unread["2.weight"] == "the weight is not finite after 2 steps"
    with pytest.raises(pc.PrecodeValueError, match="not finite after 2 steps"):
        log.codes(2)


def test_masks_of_a_ticket_are_looked_through():
    module = mlp()
    ticket = pc.find_ticket(module, "magnitude-init", 0.25)
    ticket.apply_(module)
    with pc.watch(module, TASK, every=1, densities=0.25) as log:
        train(module, 2)
    mask = torch.cat([each.flatten() for each in ticket.masks.values()])
    start = torch.cat([ticket.start[name].flatten() for name in ticket.masks])
    now = torch.cat([module[layer].weight.detach().flatten() for layer in (0, 2)])
    assert not now[~mask].any()
    assert log.table()["moved"].iloc[-1] == pytest.approx(float((now - start).norm() / start.norm()), rel=1e-5)
    assert log.table()["jaccard_0.25"].tolist() == [1, 1, 1]


def test_a_log_goes_on_from_a_checkpoint():
    whole, parted = mlp(), mlp()
    with pc.watch(whole, TASK, every=2) as expected:
        train(whole, 6, torch.optim.SGD(whole.parameters(), 0.5))
    with pc.watch(parted, TASK, every=2) as first:
        train(parted, 2, torch.optim.SGD(parted.parameters(), 0.5))
    file = io.BytesIO()
    torch.save({"model": parted.state_dict(), "log": first.state_dict()}, file)
    file.seek(0)
    held = torch.load(file, weights_only=True)
    resumed = mlp(1)
    resumed.load_state_dict(held["model"])
    log = pc.watch(resumed, TASK, every=2)
    log.load_state_dict(held["log"])
    with log:
        train(resumed, 4, torch.optim.SGD(resumed.parameters(), 0.5))
    assert log.table().equals(expected.table())
    with pytest.raises(pc.PrecodeValueError, match="masks of other densities"):
        pc.watch(mlp(), TASK, densities=0.2).load_state_dict(held["log"])
    with pytest.raises(pc.PrecodeValueError, match="of another module"):
        pc.watch(nn.Linear(2, 2)).load_state_dict(held["log"])


def test_compiled_modules_and_optimizers_are_watched():
    module = mlp()
    compiled = torch.compile(module, backend="eager")
    with pc.watch(compiled, TASK, every=1) as log:
        train(compiled, 2, torch.optim.SGD(compiled.parameters(), 0.1))
    assert log.recorded == [0, 1, 2]
    assert log.tensors()["name"].unique().tolist() == ["0.weight", "2.weight"]


def test_a_loop_without_steps_is_named():
    module = mlp()
    with pc.watch(module) as log:
        with torch.no_grad():
            module[0].weight.add_(1)
        with pytest.raises(pc.PrecodeValueError, match="in use already"):
            log.__enter__()
    assert "see Log.step" in log.unread["steps"]


def test_a_block_that_was_never_entered_records_nothing():
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    log = pc.watch(module, every=1)
    log.__exit__(None, None, None)  # as a callback does where a training fails before it begins
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    with torch.no_grad():
        module[0].weight += 1
    with log:
        module(torch.ones(3, 4)).sum().backward()
        optimizer.step()
    moved = log.table()["moved"]
    assert moved.iloc[0] == 0
