"""Masks put on in place: the same numbers as with a tensor of its own, and nothing of the user's is written to."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

import precode as pc
from precode.tickets import in_place

pytestmark = pytest.mark.usefixtures("one_thread")

linear = nn.functional.linear


@pytest.fixture(autouse=True)
def _whatever_the_size(monkeypatch):
    monkeypatch.setattr(in_place, "LEAST", 1)


class Reads(nn.Linear):
    """A layer that remembers where the weight was that it computed with."""

    def forward(self, x):
        self.place = self.weight.data_ptr()
        return linear(x, self.weight, self.bias)


def made(module, name="weight", density=0.5):
    mask = torch.rand(module.get_parameter(name).shape, generator=torch.Generator().manual_seed(0)) < density
    start = {key: value.detach().clone() for key, value in module.named_parameters()}
    start[name] *= mask
    return pc.Ticket({name: mask}, start, method="random", density=density)


def layer(dtype=torch.float32):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Reads(6, 8).to(dtype)
    ticket = made(module)
    return ticket.apply_(module), module.parametrizations.weight.original, ticket.masks["weight"]


def x(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def is_in_place(module, original):
    module(x(1, 6).to(original.dtype))
    return module.place == original.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_layer_computes_with_the_trained_tensor_itself(dtype):
    module, original, mask = layer(dtype)
    # By the user, in a way that autograd is not told of.
    original.data[~mask] = float("nan")
    output = module(x(4, 6).to(dtype))
    assert is_in_place(module, original)
    assert not original[~mask].any()
    assert torch.equal(output, linear(x(4, 6).to(dtype), torch.where(mask, original, 0.0), module.bias))
    output.sum().backward()
    by_hand = torch.autograd.grad(linear(x(4, 6).to(dtype), (w := original.detach().requires_grad_())).sum(), w)[0]
    assert torch.equal(original.grad, torch.where(mask, by_hand, 0.0))
    with torch.no_grad():
        assert torch.equal(module(x(4, 6).to(dtype)), output)
    with torch.inference_mode():
        assert torch.equal(module(x(4, 6).to(dtype)), output)


@pytest.mark.parametrize("threads", [1, 2])
def test_large_weights_on_several_threads(threads):
    torch.set_num_threads(threads)
    module = nn.Linear(1001, 1003, bias=False)
    ticket = made(module, density=0.1)
    mask = ticket.masks["weight"]
    ticket.apply_(module)
    original = module.parametrizations.weight.original
    original.data.normal_()
    before = original.detach().clone()
    module(x(3, 1001)).square().sum().backward()
    assert torch.equal(original, torch.where(mask, before, 0.0))
    assert not original.grad[~mask].any()
    assert bool(original.grad[mask].any())


def test_gradients_that_others_hold_are_left_alone():
    def held(use):
        module, original, mask = layer()
        use(module, original)
        assert not original.grad[~mask].any()
        return mask

    def given(module, original):
        gradient = x(8, 6)
        with_mask = module.parametrizations.weight
        with in_place_reading():
            weight = with_mask()
        for grad in (gradient, gradient.clone()):
            same = grad.clone()
            (weight if grad is gradient else weight.view(8, 6)).backward(grad, retain_graph=True)
            assert torch.equal(grad, same)

    def hooked(keep):
        def use(module, original):
            kept = []
            with in_place_reading():
                weight = module.parametrizations.weight()
            weight.register_hook(lambda gradient: kept.append(keep(gradient)))
            linear(x(4, 6), weight).square().sum().backward()
            mask = module.parametrizations.weight[0].mask
            assert bool(kept[0].reshape(8, 6)[~mask].any())

        return use

    def retained(module, original):
        with in_place_reading():
            weight = module.parametrizations.weight()
        weight.retain_grad()
        linear(x(4, 6), weight).square().sum().backward()
        assert bool(weight.grad[~module.parametrizations.weight[0].mask].any())

    def shared(module, original):
        # Addition gives both the same gradient.
        other = nn.Parameter(x(8, 6))
        with in_place_reading():
            weight = module.parametrizations.weight()
        (other + weight).square().sum().backward()
        assert torch.equal(other.grad, 2 * (other + weight))

    uses = [given, retained, shared, hooked(lambda g: g), hooked(lambda g: g[:]), hooked(lambda g: g.detach())]
    for use in uses:
        held(use)


def in_place_reading():
    from precode.tickets.computed import called

    return called()


def test_second_derivatives_are_those_of_the_product():
    module, original, mask = layer()
    found = []
    for weight in (lambda: module.weight, lambda: torch.where(mask, original, 0.0)):
        with in_place_reading():
            loss = linear(x(4, 6), weight()).pow(3).sum()
        (first,) = torch.autograd.grad(loss, original, create_graph=True)
        found.append(torch.autograd.grad(first.pow(2).sum(), original)[0])
    torch.testing.assert_close(*found)
    assert not found[0][~mask].any()


@pytest.mark.parametrize("reentrant", [True, False])
def test_layers_that_are_called_twice_and_again(reentrant):
    module, original, mask = layer()
    square = nn.Sequential(module, nn.ReLU(), nn.Linear(8, 6), module)
    inputs = x(4, 6).requires_grad_()
    square(inputs).square().sum().backward()
    expected, original.grad = original.grad, None
    checkpoint(square, inputs, use_reentrant=reentrant).square().sum().backward()
    torch.testing.assert_close(original.grad, expected)
    # Gradients of several backward passes add up.
    square(inputs).square().sum().backward()
    torch.testing.assert_close(original.grad, 2 * expected)
    assert not original.grad[~mask].any()


def test_autocast_and_scaled_gradients():
    module, original, mask = layer()
    with torch.autocast("cpu", torch.bfloat16):
        output = module(x(4, 6))
        expected = linear(x(4, 6), torch.where(mask, original, 0.0), module.bias)
    assert torch.equal(output, expected)
    (output.float().square().sum() * 1024).backward()
    assert not original.grad[~mask].any()
    assert original.grad.dtype == torch.float32


def test_convolutions_with_channels_last():
    module = nn.Conv2d(3, 4, 3, bias=False)
    ticket = made(module)
    ticket.apply_(module)
    reference = copy.deepcopy(module)
    ticket.remove_(reference)
    module.to(memory_format=torch.channels_last)
    mask, original = module.parametrizations.weight[0].mask, module.parametrizations.weight.original
    assert in_place.is_possible(original, mask)
    images = x(2, 3, 6, 6)
    for network in (module, reference):
        network(images).square().sum().backward()
    torch.testing.assert_close(original.grad, torch.where(ticket.masks["weight"], reference.weight.grad, 0.0))


def test_others_get_a_tensor_of_their_own():
    module, original, mask = layer()
    given = {name: value.detach().clone() for name, value in module.named_parameters()}
    given["parametrizations.weight.original"] = dirty = torch.ones(8, 6)
    torch.func.functional_call(module, given, (x(4, 6),))
    assert torch.equal(dirty, torch.ones(8, 6))
    torch.func.vmap(module)(x(2, 4, 6))
    assert module.place != original.data_ptr()
    with parametrize.cached():
        assert not is_in_place(module, original)
    held = module.weight.detach().clone()
    before = module.weight
    torch.optim.SGD([original], 0.1).step()
    with torch.no_grad():
        original += 1
    # Read outside of a layer that computes, a weight is what it was.
    assert torch.equal(before, held)
    assert not module.weight[~mask].any()


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers(kind):
    module = kind(4, 5)
    ticket = made(module, "weight_ih_l0")
    ticket.apply_(module)
    original, mask = module.parametrizations.weight_ih_l0.original, ticket.masks["weight_ih_l0"]
    reference = kind(4, 5)
    reference.load_state_dict(pc.plain_state_dict(module))
    original.data[~mask] = 7.0
    for network in (module, reference):
        network(x(3, 2, 4))[0].square().sum().backward()
    torch.testing.assert_close(module(x(3, 2, 4))[0], reference(x(3, 2, 4))[0])
    torch.testing.assert_close(original.grad, torch.where(mask, reference.weight_ih_l0.grad, 0.0))
    assert copy.deepcopy(module)._flat_weights[0] is not original
