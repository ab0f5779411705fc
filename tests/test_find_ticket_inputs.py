"""Methods that look at what layers multiply their weights with, and at single samples, in modules of every form."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import conv1d, cross_entropy, linear, pad

import obs_reference as reference
import precode as pc
from small_modules import data

pytestmark = pytest.mark.usefixtures("one_thread")

BY_INPUTS = ("wanda", "wanda-global", "obs", "obs-rounds", "sparsegpt")
SCALE = torch.arange(1.0, 7) * 3


def trained(module):
    """A training that leaves the module as it is: it is one that was trained before."""


class Net(nn.Module):
    """Two linear layers that `forward` uses in ways of its own."""

    def __init__(self, forward=None):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)
        self.way = forward or (lambda net, x: net.second(net.first(x).relu()))

    def forward(self, x):
        return self.way(self, x)


def ticket(module, method, density=0.4, given=None, loss=cross_entropy):
    options = {"epochs": 1} if method == "obs-rounds" else {"train": trained}
    return pc.find_ticket(module, method, density, given or data(), loss, **options)


def edits_later(net, x):
    x = x + 0
    hidden = net.first(x)
    x = x * SCALE if torch.is_grad_enabled() else x.mul_(SCALE)
    return net.second((hidden + x.sum(1, keepdim=True)).relu())


def in_parts(net, x):
    return torch.cat([net.second(net.first(part).relu()) for part in x.split(7)])


@pytest.mark.filterwarnings("ignore:train left the module:precode.TicketWarning")
@pytest.mark.filterwarnings("ignore:nothing is kept of:precode.TicketWarning")
@pytest.mark.parametrize("method", BY_INPUTS)
def test_inputs_are_those_of_each_call_when_it_is_made(method):
    plain = Net(lambda net, x: net.second((net.first(x) + (x * SCALE).sum(1, keepdim=True)).relu()))
    assert ticket(Net(edits_later), method) == ticket(plain, method)
    assert ticket(Net(in_parts), method) == ticket(Net(), method)
    x, y = data()
    skips = Net(lambda net, x: net.second(net.first(x).relu() if len(x) > 10 else x.repeat(1, 2)[:, :8]))
    some = ticket(skips, method, given=[(x[:8], y[:8]), (x[8:], y[8:])])
    assert some.kept == round(0.4 * 72)


@pytest.mark.filterwarnings("ignore:train left the module:precode.TicketWarning")
@pytest.mark.parametrize("method", ["wanda", "obs", "sparsegpt"])
def test_uses_outside_of_the_calls_of_a_layer_are_said(method):
    def mixed(net, x):
        return net.second(torch.cat([net.first(x[:12]), linear(x[12:] * 3, net.first.weight)]).relu())

    with pytest.warns(pc.TicketWarning, match=r"'first\.weight' is used outside of the calls of its layer too"):
        ticket(Net(mixed), method)
    with pytest.raises(pc.UnsupportedError, match=r"'first\.weight' is called within a transform of torch\.func"):
        ticket(Net(lambda net, x: net.second(torch.vmap(net.first)(x).relu())), method)


class Causal(nn.Conv1d):
    """A convolution that sees the past alone: it pads by itself."""

    def forward(self, x):
        return conv1d(pad(x, (2, 0)), self.weight, self.bias)


class Plain(nn.Conv1d):
    """A convolution with a forward of its own, which does the same."""

    def forward(self, x):
        return conv1d(x.clone(), self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups).relu()


class Scaled(nn.Linear):
    def forward(self, x):
        return super().forward(x * SCALE)


class Modulated(nn.Linear):
    def forward(self, x):
        return linear(x, self.weight * SCALE, self.bias)


class Twice(nn.Linear):
    def forward(self, x):
        return super().forward(x) + super().forward(x * SCALE)


class Turned(nn.Linear):
    """A linear layer with inputs first."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.weight = nn.Parameter(self.weight.detach().T.clone())

    def forward(self, x):
        return x @ self.weight + self.bias


@pytest.mark.filterwarnings("ignore:train left the module:precode.TicketWarning")
@pytest.mark.parametrize("method", BY_INPUTS)
def test_layers_whose_own_forward_changes_the_inputs_are_refused(method):
    torch.manual_seed(0)
    x, y = torch.randn(12, 2, 6), torch.randint(3, (12,))

    def with_first(layer):
        return nn.Sequential(layer, nn.Flatten(), nn.Linear(18, 3))

    with pytest.raises(pc.UnsupportedError, match=r"'0\.weight' is of a Causal whose own forward"):
        ticket(with_first(Causal(2, 3, 3)), method, given=(x, y))
    plain = nn.Conv1d(2, 3, 3, padding=1)
    own = Plain(2, 3, 3, padding=1)
    own.load_state_dict(plain.state_dict())
    first, second = (ticket(with_first(layer), "wanda", given=(x, y)).masks["0.weight"] for layer in (plain, own))
    assert torch.equal(first, second)
    for kind in (Scaled, Modulated, Twice, Turned):
        with pytest.raises(pc.UnsupportedError, match=f"is of a {kind.__name__} whose own forward"):
            ticket(nn.Sequential(kind(6, 8), nn.ReLU(), nn.Linear(8, 3)), method)


@pytest.mark.filterwarnings("ignore:train left the module:precode.TicketWarning")
def test_rows_of_a_linear_layer_with_inputs_first_are_its_outputs():
    module = nn.Sequential(Turned(6, 8), nn.ReLU(), nn.Linear(8, 3))
    mask = pc.find_ticket(module, "magnitude-init", 0.5, data(), cross_entropy, granularity="row").masks["0.weight"]
    assert mask.shape == (6, 8)
    assert torch.equal(mask, mask.any(0).expand(6, 8))
    assert int(mask.any(0).sum()) == 4


@pytest.mark.filterwarnings("ignore:train left the module:precode.TicketWarning")
@pytest.mark.parametrize("method", ["wanda", "wanda-global"])
def test_inputs_that_are_always_zero_say_nothing(method):
    x, y = data()
    with pytest.raises(pc.PrecodeValueError, match="9 of 9 kept weights are of inputs that are always zero"):
        ticket(nn.Linear(6, 3), method, 0.5, (x * 0, y))
    x[:, :2] = 0
    with pytest.warns(pc.TicketWarning, match="of inputs that are always zero, .*: they are kept for their place"):
        ticket(nn.Linear(6, 3), method, 0.8, (x, y))


@pytest.mark.filterwarnings("ignore:train left the module:precode.TicketWarning")
def test_sparsegpt_keeps_the_largest_weights_of_inputs_that_are_always_zero():
    torch.manual_seed(0)
    x, y = data()
    x[:, :3] = 0
    module = nn.Linear(6, 8, bias=False)
    found = ticket(module, "sparsegpt", 0.7, (x, y)).masks["weight"].numpy()
    expected = reference.sparsegpt(module.weight.detach().double().numpy(), x.double().numpy(), 34 / 48, 0.01, 128)
    assert np.array_equal(found, expected)
    assert found[:, 3:].all()


def by_hand(module, x, y, loss, density):
    """The mask of Optimal Brain Surgeon by the gradients of single samples, by autograd, of all prunable weights."""
    weights = [parameter for parameter in module.parameters() if parameter.ndim > 1]
    rows = []
    for place in range(len(x)):
        gradient = torch.autograd.grad(loss(module, x[place : place + 1], y[place : place + 1]), weights)
        rows.append(torch.cat([part.double().flatten() for part in gradient]))
    rows = torch.stack(rows)
    fisher = rows.T @ rows / len(rows)
    fisher += 0.01 * fisher.diagonal().mean() * torch.eye(len(fisher), dtype=torch.float64)
    values = torch.cat([weight.detach().double().flatten() for weight in weights])
    left = list(range(len(values)))
    while len(left) > round(density * len(values)):
        inverse = torch.linalg.inv(fisher[left][:, left])
        place = int((values[left].square() / inverse.diagonal()).argmin())
        values[left] -= inverse[:, place] * values[left[place]] / inverse[place, place]
        values[left[place]] = 0
        left.pop(place)
    kept = torch.zeros(len(values), dtype=torch.bool)
    kept[left] = True
    return kept


def flat(found):
    return torch.cat([mask.flatten() for mask in found.masks.values()])


def turned_round(net, x):
    return net.second(net.first(x.flip(0)).flip(0).relu())


def one_by_one(net, x):
    return torch.stack([net.second(net.first(row).relu()) for row in x])


def sorted_first(net, x):
    order = x[:, 0].argsort()
    return net.second(net.first(x[order]).relu()[order.argsort()])


def tied(net, x):
    return torch.tanh(net.first(x)) @ net.first.weight[:, :3] + 0 * net.second.weight.sum()


@pytest.mark.filterwarnings("ignore:train left the module:precode.TicketWarning")
@pytest.mark.parametrize("forward", [None, turned_round, one_by_one, sorted_first, in_parts, tied])
def test_gradients_of_single_samples_are_those_of_autograd(forward):
    module, (x, y) = Net(forward).double(), data()
    x = x.double()
    found = ticket(module, "obs-loss", given=[(x[:20], y[:20]), (x[20:], y[20:])])
    expected = by_hand(module, x, y, lambda net, x, y: cross_entropy(net(x), y), 0.4)
    assert torch.equal(flat(found), expected)


@pytest.mark.filterwarnings("ignore:train left the module:precode.TicketWarning")
def test_penalties_of_the_loss_are_in_the_gradients_of_single_samples():
    module, (x, y) = Net().double(), data()
    x = x.double()

    def loss(output, y, net):
        return cross_entropy(output, y) + 0.1 * sum(parameter.square().sum() for parameter in net.parameters())

    expected = by_hand(module, x, y, lambda net, x, y: loss(net(x), y, net), 0.4)
    assert torch.equal(flat(ticket(module, "obs-loss", given=(x, y), loss=loss)), expected)


def test_samples_that_cannot_be_told_apart_are_refused():
    module = Net(turned_round)
    module.first = nn.Sequential(module.first, nn.BatchNorm1d(8))
    with pytest.raises(pc.UnsupportedError, match="batch normalization in training mode mixes them"):
        ticket(module, "obs-loss")
    with pytest.raises(pc.UnsupportedError, match="single samples, which cannot be told apart"):
        ticket(Net(lambda net, x: net.second(net.first(x).relu()).mean(0, keepdim=True).expand(32, 3)), "obs-loss")


@pytest.mark.filterwarnings("ignore:train left the module:precode.TicketWarning")
def test_losses_of_a_batch_that_are_no_mean():
    module, (x, y) = Net().double(), data()
    x = x.double()

    def summed(output, y):
        return cross_entropy(output, y, reduction="sum")

    assert ticket(module, "obs-loss", given=(x, y), loss=summed) == ticket(module, "obs-loss", given=(x, y))

    def contrasted(output, y):
        return cross_entropy(output @ output.T, torch.arange(len(output)))

    with pytest.raises(pc.UnsupportedError, match="the loss of a batch must be the mean of those of its samples"):
        ticket(module, "obs-loss", given=(x, y), loss=contrasted)


class OwnGradient(nn.Module):
    """A model of forces: its outputs are a gradient."""

    def __init__(self):
        super().__init__()
        self.net = Net()

    def forward(self, x):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(self.net(x).tanh().sum(), x, create_graph=True)[0][:, :3]


@pytest.mark.filterwarnings("ignore:train left the module:precode.TicketWarning")
def test_modules_that_take_gradients_themselves_are_served():
    assert ticket(OwnGradient(), "wanda").masks.keys() == {"net.first.weight", "net.second.weight"}
    module, (x, y) = OwnGradient().double(), data()
    x = x.double()
    expected = by_hand(module, x, y, lambda net, x, y: cross_entropy(net(x), y), 0.4)
    assert torch.equal(flat(ticket(module, "obs-loss", given=(x, y))), expected)


@pytest.mark.filterwarnings("ignore:train left the module:precode.TicketWarning")
@pytest.mark.filterwarnings("ignore:nothing is kept of:precode.TicketWarning")
def test_gradients_of_single_samples_need_no_layer_that_can_be_watched():
    def stopped(net, x):
        with torch.no_grad():
            gate = net.first(x).sigmoid()
        return net.second(net.first(x).relu() * gate)

    module, (x, y) = Net(stopped).double(), data()
    x = x.double()
    expected = by_hand(module, x, y, lambda net, x, y: cross_entropy(net(x), y), 0.4)
    assert torch.equal(flat(ticket(module, "obs-loss", given=(x, y))), expected)

    class Read(nn.Module):
        def __init__(self):
            super().__init__()
            with torch.random.fork_rng():
                torch.manual_seed(0)
                self.cell, self.head = nn.RNN(6, 4, batch_first=True), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.cell(x[:, None])[0][:, -1])

    recurrent = Read().double()
    expected = by_hand(recurrent, x, y, lambda net, x, y: cross_entropy(net(x), y), 0.4)
    assert torch.equal(flat(ticket(recurrent, "obs-loss", given=(x, y))), expected)


def test_a_loss_that_holds_a_state_is_as_before():
    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("centre", torch.zeros(3))

        def forward(self, output, y):
            loss = cross_entropy(output - self.centre, y)
            self.centre = 0.9 * self.centre + 0.1 * output.detach().mean(0)
            return loss

    x, y = data()
    loss, batches = Centred(), [(x[:16], y[:16]), (x[16:], y[16:])]
    for method in ("snip", "grasp", "imp"):
        found = [pc.find_ticket(Net(), method, 0.4, batches, loss, epochs=2) for _ in range(2)]
        assert found[0] == found[1]
        assert not loss.centre.any()


def test_a_loss_whose_buffers_do_not_change_is_not_written():
    x, y = data()
    loss, module = nn.CrossEntropyLoss(weight=torch.ones(3)), Net()
    pending = loss(module(x), y)  # whose graph remembers the weights of the classes
    pc.find_ticket(module, "grasp", 0.4, (x, y), loss)
    pending.backward()
    assert module.first.weight.grad is not None


class Experts(nn.Module):
    """Two experts, of which each gets the samples of one sign, or skips the call where it gets none."""

    def __init__(self, skips):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.experts, self.head = nn.ModuleList(nn.Linear(6, 8) for _ in range(2)), nn.Linear(8, 3)
        self.skips = skips

    def forward(self, x):
        hidden = x.new_zeros(len(x), 8)
        for number, expert in enumerate(self.experts):
            chosen = (x[:, 0] > 0) == bool(number)
            if chosen.any() or not self.skips:
                hidden[chosen] = expert(x[chosen])
        return self.head(hidden.relu())


@pytest.mark.filterwarnings("ignore:train left the module:precode.TicketWarning")
@pytest.mark.parametrize("method", [*BY_INPUTS, "obs-loss"])
def test_layers_may_be_called_on_no_samples(method):
    x, y = data()
    parts = [(x[x[:, 0] > 0], y[x[:, 0] > 0]), (x[x[:, 0] <= 0], y[x[:, 0] <= 0])]
    assert ticket(Experts(False), method, given=parts) == ticket(Experts(True), method, given=parts)


@pytest.mark.filterwarnings("ignore:train left the module:precode.TicketWarning")
@pytest.mark.parametrize("method", BY_INPUTS)
def test_layers_that_are_called_with_another_weight_are_refused(method):
    def other(net, x):
        values = {"weight": net.first.weight * 2, "bias": net.first.bias}
        return net.second(torch.func.functional_call(net.first, values, (x,)).relu())

    with pytest.raises(pc.UnsupportedError, match=r"'first\.weight' is called with another in its place"):
        ticket(Net(other), method)


def test_all_weights_whose_inputs_are_not_seen_are_named_at_once():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        given = torch.randn(4, 5, 8), torch.randn(4, 5, 8)
    names = ["self_attn.in_proj_weight", "self_attn.out_proj.weight"]
    with pytest.raises(pc.UnsupportedError) as raised:
        pc.find_ticket(module, "wanda", 0.5, given, nn.functional.mse_loss, epochs=1)
    assert f"exclude={names}" in str(raised.value)
    found = pc.find_ticket(module, "wanda", 0.5, given, nn.functional.mse_loss, epochs=1, exclude=names)
    assert list(found.masks) == ["linear1.weight", "linear2.weight"]
