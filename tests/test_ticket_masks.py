"""Masks on layers of every kind: copies, edits, recurrent and attention layers, wrappers, modules that fit in part."""

import copy
import pickle
import signal
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.optim.swa_utils import AveragedModel

import precode as pc
from precode.tickets import masked

pytestmark = pytest.mark.usefixtures("one_thread")


def made(module, *names, density=0.5, seed=0):
    """A ticket with random masks for some parameters."""
    generator = torch.Generator().manual_seed(seed)
    start = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    masks = {name: torch.rand(start[name].shape, generator=generator) < density for name in names}
    start |= {name: start[name] * mask for name, mask in masks.items()}
    return pc.Ticket(masks, start, method="random", density=density)


def mlp(outputs=3):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, outputs))


def x(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def step(module, optimizer, *inputs):
    optimizer.zero_grad()
    output = module(*inputs)
    (output[0] if isinstance(output, tuple) else output).square().mean().backward()
    optimizer.step()


class Attention(nn.Module):
    """Attention, whose output projection is used without being called, and a layer that is used by its weight."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.table = nn.Linear(8, 8)

    def forward(self, x):
        return nn.functional.linear(self.attention(x, x, x)[0], self.table.weight)


ATTENTION = ("attention.in_proj_weight", "attention.out_proj.weight", "table.weight")


def test_a_mask_taken_off_a_copy_stays_on_the_original():
    module = mlp()
    ticket = made(module, "0.weight", "2.weight")
    ticket.apply_(module)
    averaged, copied = AveragedModel(module), copy.deepcopy(module)
    before = module(x(4, 6))
    ticket.remove_(averaged)
    ticket.remove_(copied)
    assert type(copied[0]) is type(averaged.module[0]) is nn.Linear
    assert torch.equal(module(x(4, 6)), before)
    assert torch.equal(copied(x(4, 6)), before)
    ticket.apply_(copied)
    ticket.remove_(module)
    assert torch.equal(copied(x(4, 6)), before)


def test_a_mask_beside_another_parametrization_leaves_copies_alone():
    module = mlp()
    parametrizations.weight_norm(module[0])
    before, twin = module(x(4, 6)), copy.deepcopy(module)
    ticket = pc.find_ticket(
        module,
        "imp",
        0.5,
        (x(4, 6), torch.tensor([0, 1, 2, 0])),
        nn.functional.cross_entropy,
        epochs=1,
        prunable=["0.bias", "2.weight"],
    )
    ticket.apply_(twin)
    assert torch.equal(module(x(4, 6)), before)
    assert torch.equal(twin[0].bias, ticket.start["0.bias"])
    ticket.remove_(twin)
    assert torch.equal(module(x(4, 6)), before)
    assert parametrize.is_parametrized(twin[0], "weight")
    assert isinstance(twin[0].bias, nn.Parameter)


def test_a_ticket_is_its_own():
    ours, others = mlp(), mlp()
    ticket, other = made(ours, "0.weight", density=0.2), made(others, "0.weight", density=0.7, seed=1)
    ticket.apply_(ours)
    kept, mask = ticket.kept, ticket.masks["0.weight"].clone()
    ours.load_state_dict(other.apply_(others).state_dict())
    assert ticket.kept == kept
    assert torch.equal(ticket.masks["0.weight"], mask)
    # The tensors that a ticket is made of may be trained on.
    mask, start = torch.tensor([True, False]), torch.tensor([0.5, 0.0])
    own = pc.Ticket({"w": mask}, {"w": start}, method="m", density=0.5)
    start += 1
    mask[:] = False
    assert own.start["w"].tolist() == [0.5, 0.0]
    assert own.kept == 1


@pytest.mark.parametrize("way", ["apply_", "to_torch_prune"])
def test_new_random_values_under_the_same_masks(way):
    module = Attention()
    ticket = made(module, *ATTENTION)
    getattr(ticket, way)(module)
    state = torch.get_rng_state()
    assert ticket.reinitialize_(module, seed=3) is module
    assert torch.equal(torch.get_rng_state(), state)
    plain = [Attention() for _ in range(50)]
    again = ticket.reinitialize_(getattr(ticket, way)(Attention()), seed=3)
    for name in ATTENTION:
        owner, _, attribute = name.rpartition(".")
        now = getattr(module.get_submodule(owner), attribute).detach()
        mask = ticket.masks[name]
        assert not now[~mask].any()
        assert not torch.equal(now[mask], ticket.start[name][mask])
        assert torch.equal(now, getattr(again.get_submodule(owner), attribute))
        # Drawn by torch's own rule for the layer.
        usual = torch.stack([getattr(each.get_submodule(owner), attribute).detach() for each in plain]).std()
        assert float(now[mask].std() / usual) == pytest.approx(1, abs=0.25)

    def ones(network):
        assert isinstance(network.table.weight, nn.Parameter)
        for parameter in network.parameters():
            nn.init.ones_(parameter)

    ticket.reinitialize_(module, ones)
    assert torch.equal(module.table.weight, ticket.masks["table.weight"].float())
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    for _ in range(2):
        step(module, optimizer, x(3, 5, 8))
    assert not torch.equal(module.table.weight, ticket.masks["table.weight"].float())
    with pytest.raises(pc.PrecodeValueError, match="in_proj_weight' has the values that it had: init= must"):
        ticket.reinitialize_(module, lambda network: None)
    with pytest.raises(pc.PrecodeValueError, match="is not pruned: apply_ or to_torch_prune comes first"):
        ticket.reinitialize_(Attention())
    with pytest.raises(pc.PrecodeTypeError, match=r"init must be a function that draws values .*, not int"):
        ticket.reinitialize_(module, 3)


def test_the_layers_own_reset_draws_trained_values():
    module = mlp()
    made(module, "0.weight").apply_(module)
    before = module[0].weight.clone()
    twin = copy.deepcopy(module)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        module[0].reset_parameters()
        torch.manual_seed(5)
        fresh = nn.Linear(6, 8)
    mask = before != 0
    assert torch.equal(module[0].weight, fresh.weight * mask)
    assert torch.equal(module[0].parametrizations.weight.original, fresh.weight * mask)
    assert torch.equal(twin[0].weight, before)


@pytest.mark.parametrize("way", ["apply_", "to_torch_prune"])
def test_layers_that_are_used_without_a_call_are_trained(way):
    module = Attention()
    ticket = made(module, *ATTENTION)
    reference = copy.deepcopy(module)
    ticket.rewind_(getattr(ticket, way)(module))
    ticket.rewind_(reference)
    optimizers = [torch.optim.SGD(network.parameters(), 1.0) for network in (module, reference)]
    for _ in range(3):
        step(module, optimizers[0], x(3, 5, 8))
        # By hand: a plain step, and zeros again.
        step(reference, optimizers[1], x(3, 5, 8))
        with torch.no_grad():
            for name, mask in ticket.masks.items():
                reference.get_parameter(name).mul_(mask)
        torch.testing.assert_close(module(x(3, 5, 8)), reference(x(3, 5, 8)))
        with torch.no_grad():
            torch.testing.assert_close(module.eval()(x(3, 5, 8)), reference.eval()(x(3, 5, 8)))
        module.train(), reference.train()
    assert not torch.equal(reference.attention.out_proj.weight, ticket.start["attention.out_proj.weight"])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_weights_stay_zero(kind):
    module = kind(4, 5, num_layers=2, bidirectional=True)
    names = [name for name, _ in module.named_parameters() if name.startswith("weight")]
    ticket = made(module, *names)
    reference = copy.deepcopy(module)
    ticket.apply_(module)
    ticket.rewind_(reference)
    optimizers = [torch.optim.SGD(network.parameters(), 1.0, weight_decay=0.1) for network in (module, reference)]
    for _ in range(3):
        step(module, optimizers[0], x(6, 3, 4))
        step(reference, optimizers[1], x(6, 3, 4))
        with torch.no_grad():
            for name, mask in ticket.masks.items():
                reference.get_parameter(name).mul_(mask)
    torch.testing.assert_close(module(x(6, 3, 4))[0], reference(x(6, 3, 4))[0])
    clone = copy.deepcopy(module)
    step(clone, torch.optim.SGD(clone.parameters(), 1.0), x(6, 3, 4))
    torch.testing.assert_close(module(x(6, 3, 4))[0], reference(x(6, 3, 4))[0])
    ticket.remove_(module)
    torch.testing.assert_close(module(x(6, 3, 4))[0], reference(x(6, 3, 4))[0])
    assert not module._forward_pre_hooks
    with torch.no_grad():
        module.weight_ih_l0.zero_()
    assert not torch.allclose(module(x(6, 3, 4))[0], reference(x(6, 3, 4))[0])


def test_the_layers_that_fit_another_head():
    module, other = mlp(), mlp(outputs=5)
    ticket = made(module, "0.weight", "2.weight")
    head = other[2].weight.detach().clone()
    with pytest.raises(pc.PrecodeShapeError, match="take what fits with strict=False"):
        ticket.apply_(other)
    with pytest.warns(pc.TicketWarning, match=r"do not fit keep what they have: 2\.bias, 2\.weight"):
        ticket.apply_(other, strict=False)
    assert torch.equal(other[0].weight, ticket.start["0.weight"])
    assert torch.equal(other[2].weight, head)
    with pytest.warns(pc.TicketWarning):
        ticket.remove_(other, strict=False)
    assert type(other[0]) is nn.Linear
    with pytest.raises(pc.PrecodeValueError, match="no masked weight of the ticket fits"):
        ticket.apply_(nn.Linear(2, 1), strict=False)
    with pytest.raises(pc.PrecodeValueError, match="such as its part 'backbone'"):
        ticket.apply_(nn.ModuleDict({"backbone": mlp()}))
    with pytest.raises(pc.PrecodeTypeError, match=r"convert it with mask\.bool\(\)"):
        pc.Ticket({"w": torch.tensor([1, 0])}, {"w": torch.tensor([0.5, 0.0])}, method="m", density=0.5)


@pytest.mark.parametrize("way", ["apply_", "to_torch_prune"])
def test_a_layer_that_does_not_fit_keeps_its_bias_too(way):
    def two(inputs):
        return nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, 3))

    ticket, other = made(two(6), "0.weight", "2.weight"), two(5)
    bias = other[0].bias.detach().clone()
    left = r"do not fit keep what they have: 0\.bias, 0\.weight$"
    with pytest.warns(pc.TicketWarning, match=left):
        getattr(ticket, way)(other, strict=False)
    with pytest.warns(pc.TicketWarning, match=left):
        ticket.rewind_(other, strict=False)
    assert torch.equal(other[0].bias, bias)
    assert torch.equal(other[2].bias, ticket.start["2.bias"])


@pytest.mark.parametrize("wrap", [nn.DataParallel, AveragedModel, lambda m: torch.compile(m, backend="eager")])
def test_wrappers_are_looked_through(wrap):
    module = mlp()
    ticket = made(module, "0.weight")
    wrapped = wrap(copy.deepcopy(module))
    assert ticket.apply_(wrapped) is wrapped
    nested = nn.ModuleDict({"backbone": wrap(copy.deepcopy(module))})
    named = pc.find_ticket(nested, "magnitude-init", 0.5)
    assert named.masks.keys() == {"backbone.0.weight", "backbone.2.weight"}
    assert pc.find_ticket(wrap(module), "magnitude-init", 0.5).masks.keys() == {"0.weight", "2.weight"}
    back = pc.Ticket.from_parametrized(wrapped)
    assert torch.equal(back.masks["0.weight"], ticket.masks["0.weight"])
    assert torch.equal(ticket.remove_(wrapped)(x(4, 6)), ticket.rewind_(module)(x(4, 6)))


def test_torch_prune_can_be_undone_by_torch():
    module = Attention()
    ticket = made(module, *ATTENTION).to_torch_prune(module)
    prune.remove(ticket.table, "weight")
    assert torch.isfinite(ticket(x(3, 5, 8))).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_masks_do_not_allow_is_said():
    module = mlp()
    ticket = made(module, "0.weight")
    with pytest.raises(pc.PrecodeTypeError, match=r"compiled by torch\.jit cannot be pruned"):
        ticket.apply_(torch.jit.script(mlp()))
    ticket.apply_(module)
    with pytest.raises(pc.UnsupportedError, match=r"Linear is parametrized, .* call ticket\.remove_ first"):
        pickle.dumps(module)
    pickle.dumps(ticket.remove_(module))
    pickle.dumps(ticket.to_torch_prune(mlp()))


EDITS = {
    "an initialization": lambda weight: nn.init.kaiming_normal_(weight),
    "one by name": lambda weight: nn.init.xavier_uniform_(tensor=weight),
    "its data": lambda weight: weight.data.clamp_(-1, 1),
    "a copy into it": lambda weight: weight.detach().copy_(torch.ones_like(weight)),
    "a part": lambda weight: weight[0].zero_(),
    "one of several parts": lambda weight: weight.chunk(2)[0].zero_(),
    "row by row": lambda weight: [row.fill_(1.0) for row in weight],
    "an item": lambda weight: weight.__setitem__(0, 0.0),
    "a view of a view": lambda weight: weight.detach().t().flatten(0, 0).add_(1),
    "an output": lambda weight: torch.ones(weight.shape, out=weight.detach()),
    "a list": lambda weight: torch._foreach_mul_([weight.detach()], 2.0),
    "other data": lambda weight: setattr(weight, "data", torch.ones_like(weight)),
    "another library": lambda weight: torch.from_dlpack(weight.detach()).zero_(),
    "a part in another library": lambda weight: np.from_dlpack(weight.detach()[0]).fill(0),
    "a vector": lambda weight: nn.utils.vector_to_parameters(torch.ones(weight.numel()), [weight]),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("grad", [True, False])
def test_edits_in_place_of_a_masked_weight_are_refused(edit, grad):
    module = mlp()
    made(module, "0.weight").apply_(module)
    before = module[0].weight.detach().clone()
    with (
        torch.set_grad_enabled(grad),
        pytest.raises(pc.UnsupportedError, match=r"assign to it, as layer\.weight ="),
    ):
        EDITS[edit](module[0].weight)
    with pytest.raises(ValueError, match="read-only"):
        module[0].weight.detach().numpy()[0] = 1
    assert torch.equal(module[0].weight, before)
    EDITS[edit](module[2].weight.detach())  # which has no mask


def test_a_masked_weight_reads_and_is_assigned_as_any_other():
    module = mlp()
    made(module, "0.weight").apply_(module)
    weight = module[0].weight
    mask = module[0].parametrizations.weight[0].mask
    torch.testing.assert_close(weight, nn.Parameter(weight.detach().clone()))
    (weight * 2).square().sum().backward()
    assert torch.equal(module[0].parametrizations.weight.original.grad, 8 * weight.detach())
    weight.clone().detach().zero_()
    assert type(copy.deepcopy(weight.detach())) is type(weight + 1) is torch.Tensor
    for values in (torch.full((8, 6), 2.0), nn.Parameter(torch.full((8, 6), 3.0))):
        module[0].weight = values
        assert torch.equal(module[0].weight, values * mask)
    trained = module[0].parametrizations.weight.original
    assert isinstance(trained, nn.Parameter)
    assert any(trained is parameter for parameter in module.parameters())
    with pytest.raises(
        pc.PrecodeShapeError, match=r"a mask of shape \(8, 6\), and was assigned values of shape \(2, 2\)"
    ):
        module[0].weight = torch.ones(2, 2)


@pytest.mark.parametrize(
    ("layer", "names"),
    [
        (nn.Linear(6, 8), ["0.weight"]),
        (nn.LSTM(4, 5), ["0.weight_ih_l0", "0.weight_hh_l0"]),
        (nn.LSTM(4, 5), ["0.weight_hh_l0"]),
        (nn.MultiheadAttention(4, 2), ["0.in_proj_weight", "0.out_proj.weight"]),
    ],
)
def test_parameters_are_in_their_old_places_when_masks_are_taken_off(layer, names):
    module = nn.Sequential(copy.deepcopy(layer))
    before = [name for name, _ in module.named_parameters()]
    ticket = made(module, *names)
    ticket.apply_(module)
    for network in (copy.deepcopy(module), module):
        ticket.remove_(network)
        assert [name for name, _ in network.named_parameters()] == before


class Writing(nn.Linear):
    """A layer that clips its weight whenever it is called."""

    def forward(self, x):
        with torch.no_grad():
            self.weight.clamp_(-0.01, 0.01)
        return super().forward(x)


@pytest.mark.parametrize("width", [16, 256])
def test_layers_that_edit_their_weight_when_they_are_called_are_refused(width):
    layer = Writing(width, width)
    pc.find_ticket(layer, "random", 0.5).apply_(layer)
    with pytest.raises(pc.UnsupportedError, match="changed it in place when it was called"):
        layer(torch.ones(1, width))
    # What else is computed afterwards is not to blame.
    plain = nn.Linear(width, width)
    pc.find_ticket(plain, "random", 0.5).apply_(plain)
    plain(torch.ones(1, width)).sum().backward()


@pytest.mark.parametrize("option", [{"max_norm": 1.0}, {"sparse": True}])
@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_embeddings_that_masks_do_not_go_with_are_refused(kind, option):
    module = nn.Sequential(kind(10, 4, **option), nn.Linear(4, 3))
    (name,) = option
    with pytest.raises(pc.PrecodeValueError, match=rf"'0.weight' is of an embedding with {name}=.* make it without"):
        pc.find_ticket(module, "random", 0.5, prunable=["auto", kind])
    plain = nn.Sequential(kind(10, 4), nn.Linear(4, 3))
    ticket = pc.find_ticket(plain, "random", 0.5, prunable=["auto", kind])
    before = module[1].weight.clone()
    with pytest.raises(pc.PrecodeValueError, match=name):
        ticket.apply_(module)
    assert torch.equal(module[1].weight, before)
    pc.find_ticket(module, "random", 0.5).apply_(module)  # beside it


def test_weights_in_one_memory_are_shared_weights():
    module = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 4), nn.Linear(4, 10, bias=False))
    module[2].weight.data = module[0].weight.data
    with pytest.warns(pc.TicketWarning, match="'2.weight' is left out of pruning, in the memory of 0.weight"):
        ticket = pc.find_ticket(module, "random", 0.5)
    assert list(ticket.masks) == ["1.weight"]
    with pytest.raises(pc.PrecodeValueError, match=r"'2\.weight' lies in the memory of 0\.weight"):
        pc.find_ticket(module, "random", 0.5, prunable="2")
    apart = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 4), nn.Linear(4, 10, bias=False))
    values = module[0].weight.clone()
    with pytest.raises(pc.PrecodeValueError, match=r"'2\.weight' lies in the memory of 0\.weight"):
        pc.find_ticket(apart, "random", 0.5).apply_(module)
    assert torch.equal(module[0].weight, values)
    # Side by side in one storage is nobody else's memory.
    flat = torch.randn(32)
    beside = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    for place, layer in enumerate(beside):
        layer.weight.data = flat[16 * place : 16 * (place + 1)].view(4, 4)
    assert len(pc.find_ticket(beside, "random", 0.5).masks) == 2


@pytest.mark.parametrize("width", [16, 256])
def test_tensors_that_stand_in_for_trained_ones_are_left_as_they_are(width):
    layer = nn.Linear(width, width, bias=False)
    ticket = pc.find_ticket(layer, "random", 0.5)
    ticket.apply_(layer)
    x = torch.randn(2, width)
    for module in (layer, copy.deepcopy(layer)):
        mine = nn.Parameter(torch.ones(width, width))
        named = {"parametrizations.weight.original": mine}
        found = torch.func.functional_call(module, named, (x,))
        assert torch.equal(mine, torch.ones(width, width))
        torch.testing.assert_close(found, x @ ticket.masks["weight"].float().T)
        module(x).sum().backward()
        assert torch.equal(module.weight, ticket.start["weight"])


@pytest.mark.parametrize("change", ["swap", "assign", "to_empty", "deepcopy", "double"])
def test_large_masks_go_with_whatever_takes_the_place_of_a_trained_tensor(change):
    layer = nn.Linear(256, 256)
    ticket = pc.find_ticket(layer, "random", 0.5)
    ticket.apply_(layer)
    state, kind = {name: value.clone() for name, value in layer.state_dict().items()}, torch.float32
    if change == "swap":
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            layer.double()
        finally:
            torch.__future__.set_swap_module_params_on_conversion(False)
        kind = torch.float64
    elif change == "assign":
        layer.load_state_dict(state, assign=True)
    elif change == "to_empty":
        layer.to_empty(device="cpu").load_state_dict(state)
    elif change == "deepcopy":
        layer = copy.deepcopy(layer)
    else:
        layer, kind = layer.double(), torch.float64
    trained = dict(layer.named_parameters())["parametrizations.weight.original"]
    pruned = ~ticket.masks["weight"]
    with torch.no_grad():
        trained.add_(1)
    layer(x(2, 256).to(kind)).square().sum().backward()
    assert not trained.grad[pruned].any()
    # A large trained tensor is put to zero in place, but for one that torch made another in the place of.
    assert change == "swap" or not trained[pruned].any()
    assert not hasattr(ticket.remove_(layer.float()).weight, "_masked_by")


def test_new_values_may_be_assigned_as_parameters():
    module = nn.Sequential(nn.Linear(4, 3))
    ticket = pc.find_ticket(module, "random", 0.5)
    ticket.apply_(module)
    trained = dict(module.named_parameters())["0.parametrizations.weight.original"]

    def init(plain):
        plain[0].weight = nn.Parameter(torch.full((3, 4), 2.0))

    ticket.reinitialize_(module, init)
    assert torch.equal(module[0].weight, 2.0 * ticket.masks["0.weight"])
    assert dict(module.named_parameters())["0.parametrizations.weight.original"] is trained


def at_two_places(wrap):
    """A network with one layer at two places and another in a wrapper."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        twice = nn.Linear(8, 8)
        return nn.Sequential(wrap(nn.Linear(6, 8)), twice, nn.Tanh(), twice, nn.Linear(8, 3))


@pytest.mark.parametrize("by_torch", [False, True])
@pytest.mark.parametrize(
    "wrap", [lambda layer: layer, nn.DataParallel, lambda layer: torch.compile(layer, backend="eager")]
)
def test_plain_state_dicts_of_layers_at_two_places_and_in_wrappers(wrap, by_torch):
    module, plain, other = at_two_places(wrap), at_two_places(wrap), at_two_places(wrap)
    ticket = pc.find_ticket(module, "random", 0.5)
    (ticket.to_torch_prune if by_torch else ticket.apply_)(module)
    state = pc.plain_state_dict(module)
    assert state.keys() == plain.state_dict().keys()
    plain.load_state_dict(state)
    inputs = x(2, 6)
    torch.testing.assert_close(plain(inputs), module(inputs))
    values = {name: value + 1 for name, value in other.state_dict().items()}
    pc.load_plain_state_dict(module, values)
    other.load_state_dict(values)
    ticket.apply_(other, rewind=False)
    torch.testing.assert_close(module(inputs), other(inputs))


def hooked(layer, inputs):
    weight, seen = layer.weight, []
    weight.register_hook(seen.append)
    (inputs @ weight.T).square().sum().backward()
    return seen[0]


def retained(layer, inputs):
    weight = layer.weight
    weight.retain_grad()
    (inputs @ weight.T).square().sum().backward()
    return weight.grad


def asked_for(layer, inputs):
    weight = layer.weight
    return torch.autograd.grad((inputs @ weight.T).square().sum(), [weight])[0]


def of_a_leaf(layer, inputs):
    weight = layer.weight.detach().requires_grad_()
    assert weight.is_leaf
    (inputs @ weight.T).square().sum().backward()
    return weight.grad


def of_a_leaf_by_its_attribute(layer, inputs):
    weight = layer.weight.detach()
    weight.requires_grad = True
    torch.autograd.backward((inputs @ weight.T).square().sum())
    return weight.grad


@pytest.mark.parametrize("ask", [hooked, retained, asked_for, of_a_leaf, of_a_leaf_by_its_attribute])
@pytest.mark.parametrize("width", [6, 256])
def test_gradients_at_a_weight_that_was_read_are_those_of_torch(ask, width):
    layer = nn.Linear(width, width)
    pc.find_ticket(layer, "random", 0.5).apply_(layer)
    inputs = x(2, width)
    plain = nn.Linear(width, width)
    plain.load_state_dict(pc.plain_state_dict(layer))
    torch.testing.assert_close(ask(layer, inputs), ask(plain, inputs))


@pytest.mark.parametrize("part", [lambda w: w, lambda w: w[:4], lambda w: w.t()])
def test_parameters_made_of_a_masked_weight_are_the_users_own(part):
    layer = nn.Linear(6, 8, bias=False)
    pc.find_ticket(layer, "random", 0.5).apply_(layer)
    other = nn.Linear(1, 1, bias=False)
    other.weight = nn.Parameter(part(layer.weight.detach()))
    values = other.weight.clone().detach()
    copied = copy.deepcopy(other)
    assert type(copied.weight) is nn.Parameter
    assert type(other.state_dict()["weight"]) is torch.Tensor
    inputs = x(2, other.weight.shape[1])
    for network in (other, copied):
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
        network(inputs).square().sum().backward()
        optimizer.step()
        assert not torch.equal(network.weight, values)
    torch.testing.assert_close(other.weight.detach().clone(), copied.weight.detach().clone())
    nn.init.ones_(other.weight)
    assert torch.equal(other.weight.detach().clone(), torch.ones_like(values))
    trained = pickle.loads(pickle.dumps(other))
    assert type(trained.weight) is nn.Parameter
    assert pc.find_ticket(other, "random", 0.5).kept == values.numel() // 2


def test_another_memory_is_refused():
    layer = nn.Linear(6, 8)
    pc.find_ticket(layer, "random", 0.5).apply_(layer)
    for grad in (True, False):
        with torch.set_grad_enabled(grad), pytest.raises(pc.UnsupportedError, match="'set_' in place"):
            layer.weight.set_(torch.zeros(8, 6))


def test_pruned_weights_are_zero_whatever_they_were_trained_to():
    layer = nn.Linear(6, 8)
    ticket = pc.find_ticket(layer, "random", 0.5)
    ticket.apply_(layer)
    with torch.no_grad():
        layer.parametrizations.weight.original[~ticket.masks["weight"]] = torch.nan
    assert not ticket.remove_(layer).weight[~ticket.masks["weight"]].any()
    with torch.no_grad():
        layer.weight[~ticket.masks["weight"]] = torch.inf
    assert not ticket.apply_(layer, rewind=False).weight[~ticket.masks["weight"]].any()
    assert not layer.parametrizations.weight.original[~ticket.masks["weight"]].any()


def two_tickets(module):
    """A ticket, and another whose mask is a part of the first's."""
    wide = made(module, "0.weight", density=0.8)
    narrow = {"0.weight": wide.masks["0.weight"] & made(module, "0.weight", seed=1).masks["0.weight"]}
    start = {**wide.start, "0.weight": wide.start["0.weight"] * narrow["0.weight"]}
    return wide, pc.Ticket(narrow, start, method="random", density=0.4)


@pytest.mark.parametrize("put_on", ["apply_", "to_torch_prune"])
def test_a_ticket_does_not_rewind_what_another_keeps(put_on):
    module = mlp()
    wide, narrow = two_tickets(module)
    getattr(wide, put_on)(module)
    step(module, torch.optim.SGD(module.parameters(), 0.1), x(4, 6))
    state = copy.deepcopy(module.state_dict())
    for call in (narrow.rewind_, narrow.reinitialize_, narrow.remove_):
        with pytest.raises(pc.PrecodeValueError, match=r"'0\.weight' has (the mask of another|no mask of a) ticket"):
            call(module)
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    wide.rewind_(module)
    assert torch.equal(module[0].weight, wide.start["0.weight"])


def test_a_ticket_rewinds_a_module_that_keeps_a_part_of_it():
    module = mlp()
    wide, narrow = two_tickets(module)
    narrow.apply_(module)
    step(module, torch.optim.SGD(module.parameters(), 0.1), x(4, 6))
    wide.rewind_(module)
    assert torch.equal(module[0].weight, narrow.start["0.weight"])
    with pytest.raises(pc.PrecodeValueError, match=r"the mask of another ticket: use that one, or Ticket\.from_param"):
        wide.remove_(module)
    pc.Ticket.from_parametrized(module).remove_(module)
    assert torch.equal(module[0].weight, narrow.start["0.weight"])


def test_expanded_parameters_are_refused_by_name():
    module = mlp()
    module[0].bias = nn.Parameter(torch.zeros(1).expand(8))
    with pytest.raises(pc.PrecodeValueError, match=r"'0\.bias' is an expanded tensor.*weight\.data\.clone"):
        pc.find_ticket(module, "magnitude-init", 0.5)
    module[0].bias = nn.Parameter(torch.zeros(1).expand(8).clone())
    pc.find_ticket(module, "magnitude-init", 0.5).apply_(module)


class Soft(nn.Module):
    """A layer of one's own with names that `torch.nn.utils.prune` uses too."""

    def __init__(self):
        super().__init__()
        self.weight_orig = nn.Parameter(torch.randn(3, 6))
        self.register_buffer("weight_mask", torch.full((3, 6), 0.5))

    def forward(self, x):
        return x @ (self.weight_orig * self.weight_mask).T


def test_names_alone_do_not_make_a_pruned_weight():
    module = nn.Sequential(Soft(), nn.Linear(3, 2))
    assert pc.find_ticket(module, "magnitude-init", 0.5, prunable="0.weight_orig").masks.keys() == {"0.weight_orig"}
    assert pc.plain_state_dict(module).keys() == module.state_dict().keys()
    prune.l1_unstructured(module[1], "weight", 0.5)
    assert pc.Ticket.from_torch_prune(module).masks.keys() == {"1.weight"}


def test_weights_parametrized_after_their_mask_are_refused_by_name():
    module = mlp()
    ticket = made(module, "0.weight", "2.weight")
    ticket.apply_(module)
    parametrizations.spectral_norm(module[0])
    for call in (pc.plain_state_dict, pc.Ticket.from_parametrized, ticket.rewind_, ticket.remove_):
        with pytest.raises(pc.PrecodeValueError, match=r"'0\.weight' was parametrized once more after its mask"):
            call(module)
    parametrize.remove_parametrizations(module[0], "weight")
    assert pc.Ticket.from_parametrized(module).masks.keys() == {"2.weight"}


def test_what_follows_the_trained_tensor_stays():
    # Such as DistributedDataParallel, which waits for the node that a gradient ends in.
    module = mlp()
    weight = module[0].weight
    node = weight.view_as(weight).grad_fn.next_functions[0][0]
    ticket = made(module, "0.weight")
    for call in (ticket.apply_, ticket.rewind_, ticket.remove_, ticket.apply_):
        call(module)
        assert weight.view_as(weight).grad_fn.next_functions[0][0] is node


ON_MODULES = {
    "apply_": lambda ticket, module: ticket.apply_(module),
    "to_torch_prune": lambda ticket, module: ticket.to_torch_prune(module),
    "rewind_": lambda ticket, module: ticket.rewind_(module),
    "reinitialize_": lambda ticket, module: ticket.reinitialize_(module),
    "remove_": lambda ticket, module: ticket.remove_(module),
    "load_plain_state_dict": lambda ticket, module: pc.load_plain_state_dict(module, mlp().state_dict()),
}


@pytest.mark.parametrize("edit", ON_MODULES)
def test_an_edit_that_is_interrupted_is_made_whole(edit, monkeypatch):
    def moved():
        module = mlp()
        ticket = made(module, "0.weight", "2.weight")
        if edit not in ("apply_", "to_torch_prune"):
            ticket.apply_(module)
        step(module, torch.optim.SGD(module.parameters(), 0.1), x(4, 6))
        return ticket, module

    expected = ON_MODULES[edit](*moved()).state_dict()
    (ticket, module), (_, other) = moved(), moved()
    put, handler = masked.Slot.put, signal.getsignal(signal.SIGINT)

    def interrupted(slot, values):
        signal.raise_signal(signal.SIGINT)
        put(slot, values)

    monkeypatch.setattr(masked.Slot, "put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ON_MODULES[edit](ticket, module)
    assert signal.getsignal(signal.SIGINT) is handler
    monkeypatch.undo()
    # Threads are not interrupted, and have no handlers.
    thread = threading.Thread(target=ON_MODULES[edit], args=(ticket, other))
    thread.start()
    thread.join()
    for state in (module.state_dict(), other.state_dict()):
        assert state.keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in state.items())


def test_parameters_made_in_inference_mode_are_refused_before_any_change():
    module = mlp()
    ticket = made(module, "0.weight", "2.weight")
    with torch.inference_mode():
        module[2].bias = nn.Parameter(torch.zeros(3), requires_grad=False)
    with torch.no_grad():
        module[0].weight.add_(1)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    for call in (ticket.apply_, ticket.to_torch_prune, lambda module: pc.load_plain_state_dict(module, before)):
        with pytest.raises(pc.PrecodeValueError, match=r"'2\.bias' was made in inference mode and cannot be trained"):
            call(module)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    ticket.apply_(module, rewind=False)
    for call in (ticket.rewind_, ticket.reinitialize_):
        with pytest.raises(pc.PrecodeValueError, match=r"'2\.bias' was made in inference mode"):
            call(module)
    ticket.remove_(module)


def test_a_reinitialization_that_fails_changes_nothing():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))
    ticket = pc.find_ticket(module, "magnitude-init", 0.5)
    ticket.apply_(module)
    before = {name: value.clone() for name, value in module.state_dict().items()}

    def one_layer(plain):
        plain[0].reset_parameters()
        plain[1].running_mean.add_(1)

    def failing(plain):
        one_layer(plain)
        raise RuntimeError("no more")

    for init, error in ((one_layer, pc.PrecodeValueError), (failing, RuntimeError)):
        with pytest.raises(error, match=r"'2\.weight' has the values that it had|no more"):
            ticket.reinitialize_(module, init)
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
