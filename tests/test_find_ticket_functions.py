"""Tickets of any module: whatever losses, trainings, optimizers and methods of the user's own are."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrize, prune

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

    def decay(network):
        optimizer = torch.optim.SGD(module.parameters(), 0.1)
        sum(parameter.square().sum() for parameter in module.parameters()).backward()
        optimizer.step()

    for train, message in [
        (decay, "train trained the module that find_ticket"),
        (lambda network: fit(module) and None, "the module that was passed in is called during the search"),
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


made = []


class Closing(nn.Module):
    """A module that uses a layer by a global name, which copies of the module then use too."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)
        made[:] = [self.second]

    def forward(self, x):
        return nn.functional.linear(self.first(x).relu(), made[0].weight, self.second.bias)


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


# --- functions that find parameters by their names and places ---------------------------------------------


def by_name(output, y, network):
    weights = (value for name, value in network.named_parameters() if name.endswith("weight"))
    return cross_entropy(output, y) + 0.05 * sum(value.abs().sum() for value in weights)


def by_axes(output, y, network):
    weights = (value for value in network.parameters() if value.ndim > 1)
    return cross_entropy(output, y) + 0.05 * sum(value.abs().sum() for value in weights)


def adaptive(output, y, network):
    last = network[2].weight
    terms = cross_entropy(output, y), output.square().mean()
    first, second = (torch.autograd.grad(term, last, retain_graph=True)[0].norm() for term in terms)
    return terms[0] + (first / (second + 1e-4)).detach() * terms[1]


def groups(network, decayed):
    rest = [value for value in network.parameters() if all(value is not each for each in decayed)]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 5.0}, {"params": rest, "weight_decay": 0.0}], lr=1e-2
    )
    x, y = data()
    for _ in range(20):
        optimizer.zero_grad()
        cross_entropy(network(x), y).backward()
        optimizer.step()


def train_by_name(network):
    groups(network, [value for name, value in network.named_parameters() if name in ("0.weight", "2.weight")])


def train_by_place(network):
    every = list(network.parameters())
    groups(network, [every[0], every[2]])


def train_by_axes(network):
    groups(network, [value for value in network.parameters() if value.ndim > 1])


ADAM = {"epochs": 20, "optimizer": lambda parameters: torch.optim.Adam(parameters, 1e-2)}


@pytest.mark.parametrize("method", ["imp", "imp-rewind", "obs-rounds"])
def test_losses_find_parameters_by_name_in_every_round(method):
    tickets = [pc.find_ticket(mlp(), method, 0.3, data(), loss, **ADAM) for loss in (by_name, by_axes)]
    assert tickets[0] == tickets[1]


@pytest.mark.parametrize("train", [train_by_name, train_by_place])
def test_trainings_find_parameters_by_name_and_place_in_every_round(train):
    ticket, expected = (pc.find_ticket(mlp(), "imp", 0.3, train=each) for each in (train, train_by_axes))
    assert ticket == expected
    rows = [
        pc.compare(mlp(), "imp", 0.3, train=each, test=lambda network: float(network[0].weight.abs().sum()), seeds=1)
        for each in (train, train_by_axes)
    ]
    assert rows[0].table["accuracy"].equals(rows[1].table["accuracy"])


def test_losses_take_gradients_in_single_weights_in_every_round():
    assert pc.find_ticket(mlp(), "imp", 0.3, data(), adaptive, **ADAM).kept == 22


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
        lambda parameters: torch.optim.Adam(parameters, 1e-2, amsgrad=True),
        lambda parameters: torch.optim.AdamW(parameters, 1e-2, foreach=True),
        lambda parameters: torch.optim.RMSprop(parameters, 1e-2, centered=True),
        lambda parameters: torch.optim.Rprop(parameters, 1e-2),
        lambda parameters: torch.optim.LBFGS(parameters, 0.1, line_search_fn="strong_wolfe"),
        lambda parameters: Noisy(parameters),
    ],
    ids=["sgd", "adam", "adamw", "rmsprop", "rprop", "lbfgs", "noisy"],
)
def test_pruned_weights_stay_at_zero_whatever_steps_them(optimizer):
    """As by a parametrization of torch that multiplies with the mask, of which torch itself takes gradients."""
    (x, y), seen = data(), []
    x = x.double()

    def train(network):
        plain, own = copy.deepcopy(network), torch.Generator()
        pruned = network[0].weight == 0
        seen.append(int(pruned.sum()))
        for each in (network, plain):
            if each is plain and pruned.any():
                parametrize.register_parametrization(each[0], "weight", Times((~pruned).double()))
                parametrize.register_parametrization(each[2], "weight", Times((network[2].weight != 0).double()))
            stepper = optimizer(each.parameters())
            if isinstance(stepper, Noisy):
                stepper.generator = own.manual_seed(0)

            def closure(each=each, stepper=stepper):
                stepper.zero_grad()
                loss = cross_entropy(each(x), y)
                loss.backward()
                return loss

            for _ in range(3):
                stepper.step(closure)
                if each is network:
                    assert not network[0].weight[pruned].any()
        if not isinstance(stepper, Noisy):  # which draws for each parameter in the order of their names
            for layer in (0, 2):
                torch.testing.assert_close(network[layer].weight, plain[layer].weight, rtol=1e-5, atol=1e-7)

    pc.find_ticket(mlp().double(), "imp", 0.6, train=train)
    assert seen[0] == 0
    assert min(seen[1:]) > 0


class Noisy(torch.optim.SGD):
    """It moves every weight, whatever its gradient is."""

    def __init__(self, parameters):
        super().__init__(parameters, 0.1)

    def step(self, closure):
        super().step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                for value in group["params"]:
                    value += 0.1 * torch.randn(value.shape, generator=self.generator)


class Times(nn.Module):
    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight):
        return weight * self.mask


def test_deep_copies_that_a_training_makes_are_pruned_too():
    (x, y), zeros = data(), []

    def train(network):
        averaged = copy.deepcopy(network)
        pruned = network[0].weight == 0
        optimizer = torch.optim.SGD([*network.parameters(), *averaged.parameters()], 0.5)
        for each in (network, averaged):
            for _ in range(3):
                optimizer.zero_grad()
                with torch.no_grad():
                    each[0].weight += 0.1  # by no optimizer
                cross_entropy(each(x), y).backward()
                zeros.append(not each[0].weight[pruned].any())
                optimizer.step()

    pc.find_ticket(mlp(), "imp", 0.5, train=train)
    assert zeros
    assert all(zeros)


@pytest.mark.parametrize(
    "option", [{"weight": torch.tensor([1.0, 5.0, 0.2])}, {"ignore_index": 1}], ids=["weight", "one"]
)
def test_batches_weigh_by_what_the_mean_of_a_loss_of_torch_divides_by(option):
    (x, y), module, loss = data(), mlp(), nn.CrossEntropyLoss(**option)
    whole = pc.find_ticket(module, "snip", 0.3, [(x, y)], loss)
    cut = pc.find_ticket(module, "snip", 0.3, [(x[:3], y[:3]), (x[3:8], y[3:8]), (x[8:], y[8:])], loss)
    assert whole == cut


def test_labels_among_the_inputs_count_where_there_are_no_others():
    class Language(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(7, 5), nn.Linear(5, 7)

        def forward(self, tokens, labels):
            return cross_entropy(self.head(self.embedding(tokens)).transpose(1, 2), labels)

    torch.manual_seed(0)
    module, tokens, labels = Language(), torch.randint(7, (12, 6)), torch.randint(7, (12, 6))
    labels[:4, 1:] = -100
    batches = [{"tokens": tokens[part], "labels": labels[part]} for part in (slice(0, 4), slice(4, 12))]
    whole = pc.find_ticket(module, "snip", 0.3, [{"tokens": tokens, "labels": labels}], own, unpack=alone)
    assert whole == pc.find_ticket(module, "snip", 0.3, batches, own, unpack=alone)


def own(loss, _):
    return loss


def alone(batch):
    return batch, None


@pytest.mark.filterwarnings("ignore:the loss has gradients in parameters that are not of the module")
def test_parameters_of_a_loss_that_stay_as_they_are_are_said():
    class Proxies(nn.Module):
        def __init__(self):
            super().__init__()
            self.proxies = nn.Parameter(torch.eye(3))

        def forward(self, output, y):
            return cross_entropy(output @ self.proxies, y)

    loss = Proxies()
    for method, said in (("snip", 0), ("magnitude", 1)):
        ticket = pc.find_ticket(mlp(), method, 0.3, data(), loss, epochs=2)
        assert sum("of shapes (3, 3)" in each for each in ticket.config["warnings"]) == said
    assert torch.equal(loss.proxies, torch.eye(3))
    loss.requires_grad_(False)
    assert not pc.find_ticket(mlp(), "magnitude", 0.3, data(), loss, epochs=2).config["warnings"]


def test_data_that_hang_on_a_graph_are_detached():
    (x, y), encoder = data(), nn.Linear(6, 6)
    x = encoder(x)
    for method in ("snip", "imp", "obs"):
        expected = pc.find_ticket(mlp(), method, 0.3, (x.detach(), y), cross_entropy, epochs=2)
        assert pc.find_ticket(mlp(), method, 0.3, (x, y), cross_entropy, epochs=2) == expected
    assert encoder.weight.grad is None


# --- trainings in other ways than by a plain loop ---------------------------------------------------------


def loop(network, steps=20, clip=False):
    (x, y), optimizer = data(), torch.optim.SGD(network.parameters(), 0.5)
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(network(x), y).backward()
        if clip:
            nn.utils.clip_grad_norm_(network.parameters(), 0.05)
        optimizer.step()


def replaced(network):
    network[0].weight = nn.Parameter(network[0].weight.detach().clone())
    loop(network)


def assigned(network):
    network.load_state_dict({name: value.clone() for name, value in network.state_dict().items()}, assign=True)
    loop(network)


def another_layer(network):
    layer = nn.Linear(6, 8)
    layer.load_state_dict(network[0].state_dict())
    network[0] = layer
    loop(network)


def functional(network):
    (x, y), values = data(), {name: value.detach().clone() for name, value in network.named_parameters()}
    optimizer = torch.optim.SGD([value.requires_grad_() for value in values.values()], 0.5)
    for _ in range(20):
        optimizer.zero_grad()
        cross_entropy(torch.func.functional_call(network, values, (x,)), y).backward()
        optimizer.step()
    network.load_state_dict(values)


def by_transforms(network):
    (x, y), values = data(), {name: value.detach().clone() for name, value in network.named_parameters()}

    def loss(values):
        return cross_entropy(torch.func.functional_call(network, values, (x,)), y)

    for _ in range(20):
        gradients = torch.func.grad(loss)(values)
        values = {name: value - 0.5 * gradients[name] for name, value in values.items()}
    network.load_state_dict(values)


def parts_called(network):
    (x, y), optimizer = data(), torch.optim.SGD(network.parameters(), 0.5)
    for _ in range(20):
        optimizer.zero_grad()
        cross_entropy(network[2](network[1](network[0](x))), y).backward()
        optimizer.step()


@pytest.mark.parametrize("train", [replaced, assigned, another_layer, functional, by_transforms, parts_called])
def test_pruned_weights_stay_at_zero_in_trainings_of_every_form(train):
    assert pc.find_ticket(mlp(), "imp", 0.2, train=train) == pc.find_ticket(mlp(), "imp", 0.2, train=loop)

    def zeros(network):
        return float((network[0].weight == 0).sum() + (network[2].weight == 0).sum())

    found = pc.compare(mlp(), "magnitude-init", 0.25, train=train, test=zeros, metric="zeros", seeds=1)
    assert found.table["zeros"][0] == 54


def test_copies_within_a_training_are_trained_as_the_module_is():
    def on_a_copy(network):
        copied = copy.deepcopy(network)
        loop(copied, clip=True)
        network.load_state_dict(copied.state_dict())

    def plain(network):
        loop(network, clip=True)

    assert pc.find_ticket(mlp(), "imp", 0.2, train=on_a_copy) == pc.find_ticket(mlp(), "imp", 0.2, train=plain)


def test_weights_that_are_moved_by_hand_are_zero_in_every_call():
    x, seen = data()[0], []
    ways = [lambda network: network(x), lambda network: network[2](network[1](network[0](x)))]

    def train(network, way):
        pruned = network[0].weight == 0
        for _ in range(3):
            with torch.no_grad():
                for value in network.parameters():
                    value += 0.1
            way(network)
            seen.append(bool((network[0].weight[pruned] == 0).all()))

    for way in ways:
        pc.find_ticket(mlp(), "imp", 0.5, train=lambda network, way=way: train(network, way))
    assert all(seen)


def test_a_training_of_another_module_than_the_pruned_one_is_said():
    def rebuilt(network):
        other = mlp()
        other.load_state_dict(network.state_dict())
        loop(other)
        network.load_state_dict(other.state_dict())

    with pytest.warns(pc.TicketWarning, match=r"left weights of '0\.weight', '2\.weight' other than zero"):
        pc.find_ticket(mlp(), "imp", 0.5, train=rebuilt)


def test_a_loss_of_ones_own_that_inherits_from_torchs_has_no_weights():
    class Focal(nn.CrossEntropyLoss):
        def forward(self, output, y):
            return (self.weight[y] * cross_entropy(output, y, reduction="none")).mean()

    (x, y), loss = data(), Focal(weight=torch.tensor([1.0, 5.0, 0.2]))
    whole = pc.find_ticket(mlp(), "snip", 0.3, [(x, y)], loss)
    assert whole == pc.find_ticket(mlp(), "snip", 0.3, [(x[:9], y[:9]), (x[9:], y[9:])], loss)


def penalized(network):
    (x, y), optimizer = data(), torch.optim.SGD(network.parameters(), 0.5)
    for _ in range(10):
        optimizer.zero_grad()
        loss = cross_entropy(network(x), y)
        gradients = torch.autograd.grad(loss, list(network.parameters()), create_graph=True)
        (loss + 0.5 * sum(each.square().sum() for each in gradients)).backward()
        optimizer.step()


def by_hand(network):
    (x, y) = data()
    for _ in range(10):
        gradients = torch.autograd.grad(cross_entropy(network(x), y), list(network.parameters()))
        length = torch.stack([each.norm() for each in gradients]).norm()
        with torch.no_grad():
            for value, each in zip(network.parameters(), gradients, strict=True):
                value -= 0.2 * each / length


@pytest.mark.parametrize("train", [penalized, by_hand, loop])
def test_rounds_are_those_of_masks_that_torch_multiplies_with(train):
    densities = [0.8**level for level in range(1, 5)]
    tickets = pc.find_ticket(mlp(), "imp", densities=densities, train=train)
    masks = {0: torch.ones(8, 6), 2: torch.ones(3, 8)}
    for ticket in tickets:
        network = mlp()
        for layer, mask in masks.items():
            prune.custom_from_mask(network[layer], "weight", mask)
        train(network)
        trained = [network[layer].weight_orig.detach().abs() - (1 - mask) * 1e9 for layer, mask in masks.items()]
        flat = torch.cat([each.flatten() for each in trained])
        kept = torch.zeros(72).index_fill_(0, flat.topk(ticket.kept).indices, 1.0)
        masks = {0: kept[:48].view(8, 6), 2: kept[48:].view(3, 8)}
        for layer, mask in masks.items():
            assert torch.equal(ticket.masks[f"{layer}.weight"], mask.bool())
