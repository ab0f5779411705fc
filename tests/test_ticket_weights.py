"""Tensors that users make of masked weights or put in their place: they behave as those of torch's parametrizations."""

import copy
import gc
import io

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

import precode as pc

pytestmark = pytest.mark.usefixtures("one_thread")

linear = nn.functional.linear
ORIGINAL = "parametrizations.weight.original"


class ByHand(nn.Module):
    """A mask as torch's own parametrizations put it on."""

    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight):
        return torch.where(self.mask, weight, 0.0)


def pair(*sizes):
    """A layer with a ticket, and the same layer with a parametrization by hand."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ours = nn.Linear(*sizes, bias=False)
    theirs = copy.deepcopy(ours)
    ticket = pc.find_ticket(ours, "random", 0.5)
    ticket.apply_(ours)
    parametrize.register_parametrization(theirs, "weight", ByHand(ticket.masks["weight"]))
    return ours, theirs


def x(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def changed_by_a_hook(layer):
    weight = layer.weight
    handle = weight.register_hook(lambda gradient: 3 * gradient)
    linear(x(2, 6), weight).square().sum().backward()
    handle.remove()
    return layer.get_parameter(ORIGINAL).grad


def of_a_part(layer):
    weight = layer.weight
    part = weight[:3]
    part.retain_grad()
    weight.retain_grad()
    (linear(x(2, 6), weight).square().sum() + part.pow(3).sum()).backward()
    return weight.grad, part.grad


def twice(layer):
    weight = layer.weight
    (first,) = torch.autograd.grad(linear(x(2, 6), weight).pow(3).sum(), weight, create_graph=True)
    return torch.autograd.grad(first.pow(2).sum(), weight)[0]


def by_inputs(layer):
    weight = layer.weight
    weight.retain_grad()
    torch.autograd.backward(linear(x(2, 6), weight).square().sum(), inputs=[weight])
    return weight.grad


def of_a_function(layer):
    return torch.func.grad(lambda weight: linear(x(2, 6), weight).square().sum())(layer.weight.detach())


def a_leaf_that_is_trained(layer):
    weight = layer.weight.detach().requires_grad_()
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        linear(x(2, 6), weight).square().sum().backward()
        optimizer.step()
    return weight.detach().clone()


def a_copy_of_a_leaf(layer):
    weight = copy.deepcopy(layer.weight.detach().requires_grad_())
    assert weight.is_leaf
    linear(x(2, 6), weight).square().sum().backward()
    return weight.grad


def a_parameter_of_a_leaf(layer):
    return nn.Parameter(layer.weight.detach().requires_grad_())


def an_embedding_that_is_trained(layer):
    table = nn.Embedding.from_pretrained(layer.weight.detach(), freeze=False)
    optimizer = torch.optim.SGD(table.parameters(), lr=0.1)
    table(torch.tensor([1, 2])).square().sum().backward()
    optimizer.step()
    return table.weight


USES = [
    *(changed_by_a_hook, of_a_part, twice, by_inputs, of_a_function),
    *(a_leaf_that_is_trained, a_copy_of_a_leaf, a_parameter_of_a_leaf, an_embedding_that_is_trained),
]


@pytest.mark.parametrize("use", USES)
def test_what_is_done_with_a_weight_that_was_read_gives_what_torch_gives(use):
    ours, theirs = pair(6, 8)
    before = ours.weight.detach().clone()
    torch.testing.assert_close(use(ours), use(theirs))
    assert torch.equal(ours.weight, before)


@pytest.mark.parametrize("part", [lambda w: w, lambda w: w[:4], lambda w: w.t(), lambda w: w.data])
@pytest.mark.parametrize("grad", [True, False])
def test_parameters_of_masked_weights_are_parameters_as_any_other(part, grad):
    layer, _ = pair(6, 8)
    before = layer.weight.detach().clone()
    with torch.set_grad_enabled(grad):
        parameter = nn.Parameter(part(layer.weight.detach()))
    assert type(parameter) is nn.Parameter
    assert parameter.is_leaf
    assert repr(parameter).startswith("Parameter containing")
    module = nn.Linear(*reversed(parameter.shape), bias=False)
    module.weight = parameter
    assert module.weight is parameter
    # Edits of every kind are the user's own affair.
    module.weight.data.mul_(2)
    module.weight.detach().add_(1)
    with torch.no_grad():
        module.weight[0] = 0.0
        module.weight -= 1
        module.weight.data[1] = 3.0
    expected = part(before) * 2 + 1
    expected[0] = 0
    expected -= 1
    expected[1] = 3
    torch.testing.assert_close(module.weight.detach(), expected)
    file = io.BytesIO()
    torch.save({"parameter": parameter, "weight": layer.weight.detach()}, file)
    file.seek(0)
    read = torch.load(file, weights_only=True)
    assert type(read["parameter"]) is nn.Parameter
    assert type(read["weight"]) is torch.Tensor
    module.weight.data = torch.ones(2, 3)
    assert torch.equal(layer.weight, before)


def test_a_frozen_parameter_of_a_masked_weight():
    layer, _ = pair(6, 8)
    parameter = nn.Parameter(layer.weight.detach(), requires_grad=False)
    nn.init.ones_(parameter)
    assert not parameter.requires_grad
    assert float(parameter.sum()) == 48


def test_a_large_layer_of_such_a_parameter_is_masked_in_place():
    large, _ = pair(256, 256)
    other = nn.Linear(256, 256)
    other.weight = nn.Parameter(large.weight.detach())
    pc.find_ticket(other, "random", 0.5).apply_(other)
    other.get_parameter(ORIGINAL).data.fill_(1.0)
    other(x(2, 256))
    assert float((other.get_parameter(ORIGINAL) == 0).float().mean()) == pytest.approx(0.5, abs=0.01)


EDITS = {
    "a view by its keyword": lambda weight: torch.t(input=weight.detach()).zero_(),
    "its storage": lambda weight: weight.detach().set_(torch.zeros(8, 6)),
    "its storage, in the graph": lambda weight: weight.set_(torch.zeros(8, 6)),
    "detached in a list": lambda weight: torch._foreach_zero_([weight.detach()[0]]),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("grad", [True, False])
def test_edits_that_would_be_lost_are_refused(edit, grad):
    layer, _ = pair(6, 8)
    before = layer.weight.detach().clone()
    with torch.set_grad_enabled(grad), pytest.raises(pc.UnsupportedError, match=r"of your own is weight\.detach"):
        EDITS[edit](layer.weight)
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize("width", [6, 256])
@pytest.mark.parametrize("kind", [torch.Tensor.clone, nn.Parameter])
def test_a_tensor_that_was_assigned_stays_as_it_is(width, kind):
    layer, _ = pair(width, width)
    mine = kind(torch.ones(width, width))
    layer.weight = mine
    layer(x(2, width)).square().sum().backward()
    torch.optim.SGD(layer.parameters(), lr=0.1).step()
    assert bool((mine == 1).all())


class Assigning(nn.Linear):
    """A layer that clips its weight by an assignment whenever it is called."""

    def forward(self, x):
        with torch.no_grad():
            self.weight = self.weight.clamp(-0.01, 0.01)
        return super().forward(x)


@pytest.mark.parametrize("width", [6, 256])
def test_a_layer_may_assign_to_its_weight_when_it_is_called(width):
    layer = Assigning(width, width)
    ticket = pc.find_ticket(layer, "random", 0.5)
    ticket.apply_(layer)
    layer(x(2, width)).square().sum().backward()
    assert torch.equal(layer.weight, ticket.start["weight"].clamp(-0.01, 0.01))
    assert bool(layer.get_parameter(ORIGINAL).grad.any())


def loaded(module):
    module.load_state_dict({name: value.clone() for name, value in module.state_dict().items()}, assign=True)
    return module


def converted(module):
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        return module.double().float()
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)


@pytest.mark.parametrize("change", [loaded, converted, copy.deepcopy, lambda module: loaded(copy.deepcopy(module))])
@pytest.mark.parametrize("kind", [nn.Linear, nn.LSTM])
def test_tensors_in_the_place_of_trained_ones_are_left_alone(change, kind):
    module = kind(256, 256)
    pc.find_ticket(module, "random", 0.5).apply_(module)
    module = change(module)
    gc.collect()
    given = {name: nn.Parameter(torch.ones_like(value)) for name, value in module.named_parameters()}
    for _ in range(2):
        torch.func.functional_call(module, given, (x(2, 256),))
    assert all(bool((value == 1).all()) for value in given.values())


def test_a_state_dict_that_is_assigned_is_masked_in_place_again():
    layer, _ = pair(256, 256)
    loaded(layer)
    original = layer.get_parameter(ORIGINAL)
    original.data.fill_(1.0)
    layer(x(2, 256))
    assert float((original == 0).float().mean()) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("size", [6, 256])
def test_parameters_that_torch_swaps(size):
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        layer, _ = pair(size, size)
        before = layer.weight.detach().clone()
        layer.double()
        layer.load_state_dict(layer.state_dict())
        torch.testing.assert_close(layer(x(2, size).double()), linear(x(2, size), before).double())
        layer.weight = torch.ones(size, size, dtype=torch.float64)
        assert torch.equal(layer.weight, (before != 0).double())
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def assigns(layer, values):
    layer.weight = nn.Parameter(values)


def registers(layer, values):
    layer.register_parameter("weight", nn.Parameter(values))


def deletes(layer, values):
    del layer.weight
    layer.weight = nn.Parameter(values)


@pytest.mark.parametrize("way", ["apply_", "to_torch_prune"])
@pytest.mark.parametrize("give", [assigns, registers, deletes])
def test_an_init_may_give_new_parameters(way, give):
    module = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3))
    ticket = pc.find_ticket(module, "random", 0.5, prunable="0")
    getattr(ticket, way)(module)
    trained = dict(module.named_parameters())
    ticket.reinitialize_(module, lambda plain: give(plain[0], torch.full((8, 6), 2.0)))
    assert torch.equal(module[0].weight, 2.0 * ticket.masks["0.weight"])
    now = dict(module.named_parameters())
    assert now.keys() == trained.keys()
    assert all(now[name] is trained[name] for name in trained)
    with pytest.raises(pc.PrecodeShapeError, match=r"'weight' has a mask of shape \(8, 6\), and was assigned values"):
        ticket.reinitialize_(module, lambda plain: give(plain[0], torch.ones(2, 2)))
    assert torch.equal(module[0].weight, 2.0 * ticket.masks["0.weight"])
    assert module(x(4, 6)).shape == (4, 3)


def test_new_parameters_of_recurrent_layers():
    module = nn.LSTM(4, 5)
    ticket = pc.find_ticket(module, "random", 0.5, prunable="weight_ih_l0")
    ticket.apply_(module)
    ticket.reinitialize_(module, lambda plain: setattr(plain, "weight_ih_l0", nn.Parameter(torch.ones(20, 4))))
    assert module._flat_weights[0] is module.get_parameter("parametrizations.weight_ih_l0.original")
    plain = nn.LSTM(4, 5)
    plain.load_state_dict(pc.plain_state_dict(module))
    torch.testing.assert_close(module(x(3, 2, 4))[0], plain(x(3, 2, 4))[0])


def test_masked_weights_are_not_pruned_by_torch_besides():
    layer, _ = pair(6, 8)
    names = list(layer.state_dict())
    with pytest.raises(pc.UnsupportedError, match=r"'weight_orig' would be a parameter .* call ticket\.remove_ first"):
        prune.l1_unstructured(layer, "weight", 0.3)
    assert list(layer.state_dict()) == names
    layer.register_parameter("scale", nn.Parameter(torch.ones(1)))
    assert layer(x(2, 6)).shape == (2, 8)
