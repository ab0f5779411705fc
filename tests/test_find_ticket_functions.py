"""Tickets of any module: whatever losses, trainings, optimizers and methods of the user's own are."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import precode as pc
from small_modules import assert_same, data, mlp, snip_by_hand

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_loss_of_the_original_modules_parameters():
    (x, y), module = data(), mlp()

    def penalty(network):
        return sum(parameter.abs().sum() for parameter in network.parameters())

    for loss in (lambda out, y: cross_entropy(out, y) + penalty(module), lambda out, y: penalty(module)):
        for method in ("snip", "imp", "grasp"):
            with pytest.raises(pc.PrecodeValueError, match=r"of the very module that was passed in, .* third argument"):
                pc.find_ticket(module, method, 0.3, (x, y), loss, epochs=1)
    ticket = pc.find_ticket(
        module, "snip", 0.3, (x, y), lambda out, y, network: cross_entropy(out, y) + 0.1 * penalty(network)
    )
    assert_same(
        ticket, snip_by_hand(module, lambda n: cross_entropy(n(x), y) + 0.1 * penalty(n), ("0.weight", "2.weight"))
    )
    # Parameters of the loss itself are the user's, gradients included.
    scale = torch.tensor(2.0, requires_grad=True)
    scale.grad = torch.tensor(7.0)
    pc.find_ticket(module, "imp", 0.5, (x, y), lambda out, y: cross_entropy(out * scale, y), epochs=1)
    assert float(scale.grad) == 7
    layer = module[0]
    module.forward = lambda x: module[2](torch.relu(layer(x)))  # a forward that is not the copy's
    with pytest.raises(pc.PrecodeValueError, match="its forward too, must use the layer they are given"):
        pc.find_ticket(module, "snip", 0.3, (x, y), cross_entropy)


def test_training_of_another_module_than_the_copy_is_refused():
    (x, y), module = data(), mlp()
    before = copy.deepcopy(module.state_dict())

    def fit(network):
        optimizer = torch.optim.SGD(network.parameters(), 0.1)
        optimizer.zero_grad()
        cross_entropy(network(x), y).backward()
        optimizer.step()
        return network

    def other(network):
        return fit(copy.deepcopy(network))

    for train, message in [
        (lambda network: fit(module) and None, "train trained the module that find_ticket"),
        (other, "returned another module"),
    ]:
        with pytest.raises(pc.PrecodeValueError, match=message):
            pc.find_ticket(module, "imp", 0.3, train=train)
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    with pytest.warns(pc.TicketWarning, match="train left the module that it was given as it was"):
        ticket = pc.find_ticket(module, "imp", 0.5, train=lambda network: fit(copy.deepcopy(network)) and None)
    assert ticket.masks["0.weight"].equal(pc.find_ticket(module, "magnitude-init", 0.5).masks["0.weight"])
    assert pc.find_ticket(module, "imp", 0.5, train=fit).kept == 36
    assert pc.find_ticket(module, "imp", 0.5, train=lambda network: {"loss": fit(network)}).kept == 36
    with pytest.raises(pc.PrecodeValueError, match="steps other parameters"):
        pc.find_ticket(
            module, "imp", 0.3, (x, y), cross_entropy, optimizer=lambda p: torch.optim.SGD(module.parameters(), 0.1)
        )


class Closing(nn.Module):
    """A module with a function that uses a layer of it, which copies of the module then use too."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)
        self.function = lambda x: self.second(x)

    def forward(self, x):
        return self.function(self.first(x).relu())


def test_a_training_that_takes_gradients_in_the_module_itself_is_refused():
    module, (samples, labels) = Closing(), data()
    module.first.weight.grad = held = torch.ones(8, 6)

    def train(network):
        optimizer = torch.optim.SGD(network.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            cross_entropy(network(samples), labels).backward()
            optimizer.step()

    with pytest.raises(pc.PrecodeValueError, match=r"gradients in 'second\.weight' of the module that find_ticket was"):
        pc.find_ticket(module, "magnitude", 0.5, train=train, epochs=3)
    assert module.second.weight.grad is None
    assert module.first.weight.grad is held
    assert torch.equal(held, torch.ones(8, 6))


@pytest.mark.parametrize("method", ["snip", "grasp"])
def test_a_pruner_refuses_gradients_in_the_module_itself(method):
    module, (samples, labels) = Closing(), data()
    pruner = pc.Pruner(
        module, pc.Schedule("one-shot", density=0.5, start=0), method, data=(samples, labels), loss=cross_entropy
    )
    with pytest.raises(pc.PrecodeValueError, match=r"'second\.weight' of the very module"):
        pruner.begin()


def test_what_is_no_optimizer_is_refused():
    with pytest.raises(pc.PrecodeTypeError, match="optimizer returned NoneType: pass a function of parameters"):
        pc.find_ticket(mlp(), "imp", 0.5, data(), cross_entropy, optimizer=lambda parameters: None)


def test_all_is_no_method_of_ones_own():
    with pytest.raises(pc.PrecodeValueError, match="method 'all' cannot be registered"):
        pc.register_method("all", lambda name, weight, gradient: weight)


@pytest.mark.parametrize("factor", [1 + 1j, torch.ones(1, dtype=torch.complex64)])
def test_a_loss_is_a_real_number(factor):
    with pytest.raises(pc.PrecodeTypeError, match=r"a tensor of torch\.complex64: expected a real number"):
        pc.find_ticket(mlp(), "snip", 0.5, data(), lambda output, y: cross_entropy(output, y) * factor)


def test_what_functions_of_ones_own_draw_is_keyed_by_the_seed():
    def noise(name, weight, gradient):
        return torch.rand_like(weight)

    def optimizer(parameters):
        return torch.optim.SGD(parameters, 0.1 * float(torch.rand(1)))

    state = torch.get_rng_state()
    for options in ({"method": noise}, {"method": "magnitude", "optimizer": optimizer, "epochs": 2}):
        found = []
        for seed in (5, 5, 6):
            torch.rand(1)
            before = torch.get_rng_state()
            found.append(pc.find_ticket(mlp(), density=0.3, data=data(), loss=cross_entropy, seed=seed, **options))
            assert torch.equal(torch.get_rng_state(), before)
        assert found[0] == found[1] != found[2]
    torch.set_rng_state(state)


@pytest.mark.parametrize(
    "score", [torch.empty(1, device="meta"), torch.eye(2).to_sparse(), torch.zeros(1, dtype=torch.complex64)]
)
def test_scores_are_dense_real_numbers(score):
    with pytest.raises(pc.PrecodeTypeError, match="must return a dense tensor of real numbers, not torch"):
        pc.find_ticket(mlp(), lambda name, weight, gradient: score, 0.3)


@pytest.mark.filterwarnings("ignore:nothing is kept of:precode.TicketWarning")
@pytest.mark.filterwarnings("ignore:every score of:precode.TicketWarning")
@pytest.mark.filterwarnings("ignore:.* of inputs that are always zero:precode.TicketWarning")
@pytest.mark.parametrize("method", ["imp", "wanda", "magnitude"])
def test_a_training_that_leaves_all_weights_equal_is_refused(method):
    def collapse(network):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()

    def first_alone(network):
        with torch.no_grad():
            for parameter in network[0].parameters():
                parameter.zero_()

    with pytest.raises(pc.PrecodeValueError, match="training left all prunable weights of each layer equal"):
        pc.find_ticket(mlp(), method, 0.3, data(), cross_entropy, train=collapse)
    with pytest.warns(pc.TicketWarning, match=r"after training all weights of '0\.weight' are equal"):
        pc.find_ticket(mlp(), method, 0.3, data(), cross_entropy, train=first_alone)


def test_classes_are_no_functions():
    with pytest.raises(pc.PrecodeTypeError, match=r"loss is the class CrossEntropyLoss: pass one of it"):
        pc.find_ticket(mlp(), "snip", 0.3, data(), nn.CrossEntropyLoss)
    with pytest.raises(pc.PrecodeTypeError, match="method is the class Linear: pass a function"):
        pc.find_ticket(mlp(), nn.Linear, 0.3, data(), cross_entropy)


def test_a_layer_that_pruning_empties_is_not_called_collapsed():
    module = mlp()
    with torch.no_grad():
        module[2].weight.mul_(1e-6)
    with pytest.warns(pc.TicketWarning) as said:
        pc.find_ticket(module, "imp", 0.3, data(), cross_entropy, train=lambda network: None)
    assert any("nothing is kept of '2.weight'" in str(each.message) for each in said)
    assert not any("after training all weights" in str(each.message) for each in said)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_scores_that_float64_does_not_tell_apart_are_refused():
    with pytest.raises(pc.PrecodeValueError, match=r"whole numbers beyond 2\^53 for 'weight'"):
        pc.find_ticket(nn.Linear(6, 4), lambda name, weight, gradient: torch.arange(24).view(4, 6) + 2**60, 0.25)
    with pytest.raises(pc.PrecodeTypeError, match=r"a dense tensor of real numbers, not torch\.qint8"):
        pc.find_ticket(
            nn.Linear(6, 4), lambda name, weight, gradient: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8), 0.5
        )
