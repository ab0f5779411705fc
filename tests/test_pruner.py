"""Gradual pruning in a user's own loop, step by step beside the same thing done by hand."""

import io

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import precode as pc

pytestmark = pytest.mark.usefixtures("one_thread")

X = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
Y = torch.randint(3, (32,), generator=torch.Generator().manual_seed(1))


def mlp():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def step(module, optimizer):
    optimizer.zero_grad()
    nn.functional.cross_entropy(module(X), Y).backward()
    optimizer.step()


NAMES = ("0.weight", "2.weight")
TOTAL = 72


def by_hand(optimizer, schedule, steps, score):
    """Zhu and Gupta's loop on a plain module, with weights set to zero after every step."""
    module = mlp()
    made = optimizer(module.parameters())
    masks = {name: torch.ones_like(module.get_parameter(name), dtype=torch.bool) for name in NAMES}
    for done in range(steps + 1):
        if done in schedule.steps:
            scores = torch.cat([score(module.get_parameter(name)).flatten() for name in NAMES]).detach()
            scores[~torch.cat([mask.flatten() for mask in masks.values()])] = -1
            order = scores.argsort(descending=True, stable=True)
            flat = torch.zeros(TOTAL, dtype=torch.bool)
            flat[order[: round(schedule.at(done) * TOTAL)]] = True
            first, second = flat.split([48, 24])
            masks = {NAMES[0]: first.reshape(8, 6), NAMES[1]: second.reshape(3, 8)}
        with torch.no_grad():
            for name, mask in masks.items():
                module.get_parameter(name).mul_(mask)
        if done == steps:
            return module, masks
        made.zero_grad()
        nn.functional.cross_entropy(module(X), Y).backward()
        for name, mask in masks.items():
            module.get_parameter(name).grad.mul_(mask)
        made.step()


OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, weight_decay=0.01),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 0.02),
}
SCHEDULES = {
    "one-shot": pc.Schedule("one-shot", density=0.3, start=4),
    "at once": pc.Schedule("one-shot", density=0.3),
    "linear": pc.Schedule("linear", density=0.2, start=2, end=11, every=4),
    "cubic": pc.Schedule("cubic", density=0.1, start=1, end=9, every=2, initial=0.9),
    "geometric": pc.Schedule("geometric", density=0.4, end=6),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_training_is_that_of_the_loop_by_hand(optimizer, schedule):
    expected, masks = by_hand(OPTIMIZERS[optimizer], SCHEDULES[schedule], 14, torch.abs)
    module = mlp()
    made = OPTIMIZERS[optimizer](module.parameters())
    with pc.Pruner(module, SCHEDULES[schedule]) as pruner:
        for _ in range(14):
            step(module, made)
    for name, mask in pruner.ticket().masks.items():
        assert torch.equal(mask, masks[name])
        owner, _, attribute = name.rpartition(".")
        torch.testing.assert_close(getattr(module.get_submodule(owner), attribute), expected.get_parameter(name))
    assert pruner.table()["kept"].tolist() == [
        round(SCHEDULES[schedule].at(done) * TOTAL) for done in SCHEDULES[schedule].steps
    ]
    step(module, made)  # after the block the masks stay
    assert int((module[0].weight != 0).sum() + (module[2].weight != 0).sum()) == pruner.ticket().kept
    pruner.ticket().remove_(module)
    assert type(module[0]) is nn.Linear


@pytest.mark.parametrize(("start", "every", "times"), [(0, 1, 10), (7, 3, 5), (100, 100, 4)])
def test_the_cubic_schedule_is_that_of_torch(start, every, times):
    scheduler = pytest.importorskip("torch.ao.pruning").CubicSL
    schedule = pc.Schedule("cubic", density=0.15, start=start, end=start + every * times, every=every, initial=0.95)
    for step in range(start, start + every * times + 5):
        sparsity = scheduler.sparsity_compute_fn(0.05, 0.85, step, start, every, times)
        if step % every == start % every:
            assert schedule.at(step) == pytest.approx(1 - sparsity)
        else:
            assert schedule.at(step) == schedule.at(step - 1)


@pytest.mark.filterwarnings("ignore:train left weights of:precode.TicketWarning")  # it moves all by hand
def test_levels_of_iterative_pruning_are_a_geometric_schedule():
    schedule = pc.Schedule("geometric", density=0.8**3, end=3)
    kept = []

    def fit(module):
        kept.append(sum(int((module.get_submodule(name).weight != 0).sum()) for name in "02"))
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.1)

    tickets = pc.find_ticket(mlp(), "imp", densities=schedule, train=fit, epochs=1)
    assert kept[:3] == [round(density * TOTAL) for density in schedule.densities[:3]]
    assert [ticket.kept for ticket in tickets] == [round(density * TOTAL) for density in schedule.densities]


def test_methods_and_functions_choose_by_their_scores():
    seen = []

    def score(name, weight, gradient):
        owner = module.get_submodule(name.removesuffix(".weight")).parametrizations.weight
        assert torch.equal(gradient, owner.original.grad)
        seen.append(name)
        return (weight * gradient).abs()

    module, optimizer = mlp(), OPTIMIZERS["sgd"]
    made = optimizer(module.parameters())
    with pc.Pruner(module, SCHEDULES["linear"], score) as pruner:
        for _ in range(11):
            step(module, made)
    assert pruner.ticket().kept == round(0.2 * TOTAL)
    assert seen == [*NAMES] * 4
    # At the very start a method of the registry finds its ticket.
    for method in ("snip", "grasp", "random"):
        module = mlp()
        given = {"data": (X, Y), "loss": nn.functional.cross_entropy, "seed": 3}
        expected = pc.find_ticket(mlp(), method, 0.25, **given)
        with pc.Pruner(module, pc.Schedule("one-shot", density=0.25), method, **given) as pruner:
            pass
        for name, mask in expected.masks.items():
            assert torch.equal(pruner.ticket().masks[name], mask), method
    with pc.Pruner(mlp(), SCHEDULES["cubic"], "random") as pruner:
        for _ in range(10):
            before = pruner.ticket().masks
            pruner.step()
            for name, mask in pruner.ticket().masks.items():
                assert not (mask & ~before[name]).any()
    assert pruner.ticket().kept == 7


def test_each_layer_has_its_density():
    module = mlp()
    with pc.Pruner(module, pc.Schedule("one-shot", density=0.25), scope="per-layer") as pruner:
        pass
    assert {name: int(mask.sum()) for name, mask in pruner.ticket().masks.items()} == {"0.weight": 12, "2.weight": 6}


def test_the_ticket_starts_where_the_training_did():
    module = mlp()
    made = OPTIMIZERS["sgd"](module.parameters())
    with pc.Pruner(module, SCHEDULES["cubic"]) as pruner:
        for _ in range(10):
            step(module, made)
    ticket, first = pruner.ticket(), mlp()
    for name, mask in ticket.masks.items():
        assert torch.equal(ticket.start[name], torch.where(mask, first.get_parameter(name), 0.0))
    assert torch.equal(ticket.final["0.bias"], module[0].bias)
    assert torch.equal(ticket.final["0.weight"], module[0].weight)
    assert ticket.config["schedule"]["kind"] == "cubic"
    ticket.apply_(first)
    assert torch.equal(first[0].weight, ticket.start["0.weight"])


@pytest.mark.filterwarnings("ignore:nothing was pruned after the start:precode.TicketWarning")
@pytest.mark.parametrize("stop", [0, 3, 4, 12])
def test_a_training_goes_on_from_a_checkpoint(stop):
    def part(module, optimizer, pruner, steps):
        with pruner:
            for _ in range(steps):
                step(module, optimizer)

    def made():
        module = mlp()
        return module, OPTIMIZERS["adamw"](module.parameters()), pc.Pruner(module, SCHEDULES["cubic"])

    whole = made()
    part(*whole, 14)
    first = made()
    part(*first, stop)
    file = io.BytesIO()
    torch.save([thing.state_dict() for thing in first], file)
    file.seek(0)
    resumed = made()
    for thing, state in zip(resumed, torch.load(file, weights_only=True), strict=True):
        thing.load_state_dict(state)
    part(*resumed, 14 - stop)
    for name, value in whole[0].state_dict().items():
        assert torch.equal(value, resumed[0].state_dict()[name]), name
    assert resumed[2].ticket() == whole[2].ticket()
    assert resumed[2].table().equals(whole[2].table())


def test_what_cannot_be_pruned_is_refused_before_any_work():
    once = pc.Schedule("one-shot", density=0.5)
    for method in ("imp", "distance", "synflow"):
        with pytest.raises(pc.UnsupportedError, match="no scores of single weights at one moment"):
            pc.Pruner(mlp(), once, method)
    with pytest.raises(pc.PrecodeValueError, match="'snip' needs data and a loss"):
        pc.Pruner(mlp(), once, "snip")
    with pytest.raises(pc.PrecodeValueError, match="unknown"):
        pc.Pruner(mlp(), once, "snap")
    with pytest.raises(pc.PrecodeTypeError, match=r"must be a precode\.Schedule, not float"):
        pc.Pruner(mlp(), 0.5)
    with pytest.raises(pc.PrecodeValueError, match="keeps none of the 72 weights"):
        pc.Pruner(mlp(), pc.Schedule("one-shot", density=0.001))
    module = mlp()
    pruner = pc.Pruner(module, once)
    with pytest.raises(pc.PrecodeValueError, match="is pruned already"):
        pc.Pruner(module, once)
    pruner.ticket().remove_(module)
    with pytest.raises(pc.PrecodeValueError, match="masks were taken off"):
        pruner.__enter__()
    diverged = mlp()
    with torch.no_grad():
        diverged[2].weight[0, 0] = float("inf")
    with pytest.raises(pc.PrecodeValueError, match="not finite"):
        pc.Pruner(diverged, once)
    for wrong, match in (
        ({"kind": "cosine", "end": 3}, "use one of one-shot, linear, cubic, geometric"),
        ({"end": None}, "needs end="),
        ({"start": 5, "end": 5}, "end = 5: expected an integer of at least 6"),
        ({"kind": "one-shot", "end": 5}, "prunes at start alone"),
        ({"end": 5, "density": 0}, "density = 0"),
        ({"end": 5, "density": 0.5, "initial": 0.4}, "density only falls"),
    ):
        with pytest.raises(pc.PrecodeValueError, match=match):
            pc.Schedule(**wrong)


def test_a_training_that_diverges_is_not_pruned():
    module = mlp()
    with pc.Pruner(module, pc.Schedule("one-shot", density=0.5, start=1)) as pruner:
        with torch.no_grad():
            module[2].parametrizations.weight.original[1, 1] = float("nan")
        with pytest.raises(pc.PrecodeValueError, match=r"'2\.weight' are not finite after 1 steps"):
            pruner.step()


def stepping_in_backward(module):
    optimizers = {parameter: torch.optim.SGD([parameter], 0.1) for parameter in module.parameters()}

    def update(parameter):
        optimizers[parameter].step()
        parameter.grad = None

    for parameter in module.parameters():
        parameter.register_post_accumulate_grad_hook(update)


def test_optimizers_that_step_within_backward_are_counted_by_the_user():
    schedule = pc.Schedule("linear", density=0.2, start=2, end=8, every=2)
    module = mlp()
    stepping_in_backward(module)
    with (
        pytest.raises(
            pc.UnsupportedError, match=r"steps within backward\(\).*call begin\(\) before the loop, step\(\)"
        ),
        pc.Pruner(module, schedule),
    ):
        nn.functional.cross_entropy(module(X), Y).backward()
    module = mlp()
    stepping_in_backward(module)
    pruner = pc.Pruner(module, schedule)
    pruner.begin()
    for _ in range(8):
        nn.functional.cross_entropy(module(X), Y).backward()
        pruner.step()
    pruner.end()
    plain = mlp()
    optimizer = torch.optim.SGD(plain.parameters(), 0.1)
    with pc.Pruner(plain, schedule) as other:
        for _ in range(8):
            step(plain, optimizer)
    assert pruner.table().equals(other.table())
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in module.state_dict().items())


def test_a_layer_that_loses_all_is_named():
    module = mlp()
    with torch.no_grad():
        module[2].weight.mul_(1e-6)
    with pytest.warns(pc.TicketWarning, match=r"nothing is kept of '2\.weight'"):
        pc.Pruner(module, pc.Schedule("one-shot", density=0.5, start=0)).begin()


def test_a_ticket_of_an_earlier_checkpoint_says_what_it_keeps():
    module = mlp()
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    states = []
    with pc.Pruner(module, pc.Schedule("linear", density=0.25, start=1, end=4)) as pruner:
        for _ in range(5):
            step(module, optimizer)
            states.append({name: value.clone() for name, value in module.state_dict().items()})
            ticket = pruner.ticket()
            assert ticket.density == pruner.schedule.at(pruner.steps)
            assert ticket.kept == round(ticket.density * TOTAL)
    module.load_state_dict(states[1])
    with pytest.warns(
        pc.TicketWarning, match="masks keep 54 weights, and those that this Pruner set keep 18: they are"
    ):
        ticket = pruner.ticket()
    assert ticket.density == ticket.kept / TOTAL == round(pruner.schedule.at(2) * TOTAL) / TOTAL


@pytest.mark.parametrize("buffers", [False, True])
def test_averages_while_it_prunes(buffers):
    module = mlp()
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    pruner = pc.Pruner(module, pc.Schedule("linear", density=0.25, start=1, end=4))
    average = AveragedModel(module, use_buffers=buffers, multi_avg_fn=get_ema_multi_avg_fn(0.9))

    def train():
        with pruner:
            for _ in range(5):
                step(module, optimizer)
                average.update_parameters(module)
            module.load_state_dict(average.module.state_dict())

    if buffers:  # True times a decay is True
        with pytest.warns(pc.TicketWarning, match="masks keep 72 weights, .* 18: .* does not with use_buffers=False"):
            train()
    else:
        train()
        assert pruner.ticket().kept == pc.Ticket.from_parametrized(average).kept == 18


def test_a_block_without_steps_of_the_module_warns():
    module, other = mlp(), mlp()
    with (
        pytest.warns(pc.TicketWarning, match="nothing was pruned after the start.*is it one of a copy"),
        pc.Pruner(module, pc.Schedule("cubic", density=0.5, end=3)),
    ):
        step(other, torch.optim.SGD(other.parameters(), 0.1))


def test_a_ticket_of_a_module_that_was_converted():
    module = mlp()
    with pc.Pruner(module, pc.Schedule("one-shot", density=0.5, start=1)) as pruner:
        step(module, torch.optim.SGD(module.parameters(), 0.1))
    start = pruner.ticket().start
    module.double()
    ticket = pruner.ticket()
    assert {value.dtype for value in (*ticket.start.values(), *ticket.final.values())} == {torch.float64}
    assert all(torch.equal(value, start[name].double()) for name, value in ticket.start.items())


@pytest.mark.parametrize("change", [{"steps": -1}, {"steps": None}, {"rows": 3}, {"rows": [{}]}, {"start": None}])
def test_what_is_no_checkpoint_is_refused(change):
    pruner = pc.Pruner(mlp(), pc.Schedule("one-shot", density=0.5))
    state = pruner.state_dict()
    for wrong in (state | change, {name: state[name] for name in state.keys() - change.keys()}, None, [1]):
        with pytest.raises(pc.PrecodeTypeError, match=r"state must be what Pruner\.state_dict returned"):
            pruner.load_state_dict(wrong)
    pruner.load_state_dict(state)


def test_a_block_that_was_left_prunes_no_more():
    module = mlp()
    with pc.Pruner(module, pc.Schedule("linear", density=0.1, start=1, end=5)) as pruner:
        step(module, torch.optim.SGD(module.parameters(), 0.1))
    kept = pruner.ticket().kept
    with pytest.raises(pc.PrecodeValueError, match="block of this Pruner was left: enter it again"):
        pruner.step()
    with pruner:
        assert pruner.ticket().kept == kept
        pruner.step()
    assert pruner.steps == 2
