"""Tickets of any module: whatever the user's objects hold and change, such as generators, counts and what was seen."""

import copy
import dataclasses
import math
import pickle
import types
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader, Dataset, Sampler, TensorDataset

import precode as pc
from small_modules import assert_same, data, mlp, snip_by_hand

pytestmark = pytest.mark.usefixtures("one_thread")

SGD = partial(torch.optim.SGD, lr=0.5)
ADAM = partial(torch.optim.Adam, lr=1e-2)


# --- generators -----------------------------------------------------------------------------------------


def drawn():
    return np.random.default_rng(1)


GLOBAL, SETTINGS = drawn(), types.SimpleNamespace(rng=drawn())


def noisy(value):
    return value + GLOBAL.normal()


class Noise:
    def __init__(self):
        self.rng = drawn()

    def __call__(self, value):
        return value + self.rng.normal()


class OfClass(Noise):
    rng = drawn()

    def __init__(self):
        pass


@dataclasses.dataclass(slots=True)
class InSlots:
    rng: np.random.Generator
    __call__ = Noise.__call__


class Chain:
    def __init__(self, *transforms):
        self.transforms = list(transforms)

    def __call__(self, value):
        for each in self.transforms:
            value = each(value)
        return value


OWN = drawn()


def by_default(value, rng=OWN):
    return value + rng.normal()


class Transformed(Dataset):
    def __init__(self, transform):
        self.transform, (self.x, self.y) = transform, data()

    def __len__(self):
        return 32

    def __getitem__(self, place):
        return self.transform(self.x[place]), self.y[place]


deep, slots = Noise(), InSlots(drawn())
PLACES = {
    "deep": (Chain(Chain(Chain(deep))), deep.rng),
    "class": (OfClass(), OfClass.rng),
    "slots": (slots, slots.rng),
    "default": (by_default, by_default.__defaults__[0]),
    "settings": (lambda value: value + SETTINGS.rng.normal(), SETTINGS.rng),
    "helper": (lambda value: noisy(value), GLOBAL),
}


@pytest.mark.parametrize("place", PLACES)
def test_generators_are_keyed_and_given_back_wherever_data_hold_them(place):
    transform, generator = PLACES[place]
    before, module = str(generator.bit_generator.state), mlp()
    loader = DataLoader(Transformed(transform), 5)
    tickets = [pc.find_ticket(module, "snip", 0.3, loader, cross_entropy) for _ in range(2)]
    assert tickets[0] == tickets[1]
    assert str(generator.bit_generator.state) == before


generator = torch.Generator()


def shaken(value):
    return value + torch.randn(value.shape, generator=generator)


class Shaking(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.second(torch.relu(self.first(shaken(x))))


def shuffled_training(network):
    optimizer = SGD(network.parameters())
    loader = DataLoader(TensorDataset(*data()), 7, shuffle=True, generator=generator)
    for x, y in loader:
        optimizer.zero_grad()
        cross_entropy(network(x), y).backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("module", "method", "options"),
    [
        (mlp, "snip", {"loss": lambda output, y: cross_entropy(shaken(output), y)}),
        (mlp, "snip", {"loss": cross_entropy, "unpack": lambda batch: (shaken(batch[0]), batch[1])}),
        (Shaking, "snip", {"loss": cross_entropy}),
        (mlp, lambda name, weight, gradient: shaken(weight).abs(), {"loss": cross_entropy}),
        (mlp, "imp", {"train": shuffled_training}),
    ],
    ids=["loss", "unpack", "forward", "score", "train"],
)
def test_generators_of_functions_are_keyed_and_given_back(module, method, options):
    generator.manual_seed(5)
    before, module = generator.get_state(), module()
    given = None if "train" in options else [data()]
    several = pc.find_ticket(module, method, densities=[0.5, 0.3], data=given, **options)
    assert torch.equal(generator.get_state(), before)
    assert several == [pc.find_ticket(module, method, density, given, **options) for density in (0.5, 0.3)]


def test_a_comparison_trains_all_tickets_on_the_same_batches():
    generator.manual_seed(5)
    before = generator.get_state()
    x, y = data()

    def of_magnitude(name, weight, gradient):
        return weight.abs()

    found = pc.compare(
        mlp(),
        ["magnitude-init", of_magnitude],
        0.5,
        train=shuffled_training,
        test=lambda network: float(cross_entropy(network(x), y)),
        metric="loss",
        seeds=2,
    )
    losses = found.table.pivot(index="seed", columns="method", values="loss")
    assert (losses["magnitude-init"] == losses["of_magnitude"]).all()
    assert torch.equal(generator.get_state(), before)


def test_random_numbers_for_one_purpose_are_not_those_for_another():
    module, seen = mlp(), {}

    def score(name, weight, gradient):
        seen[name] = torch.rand_like(weight)
        return seen[name]

    drawn = []

    def model():
        torch.rand(3)
        drawn.append(torch.rand(4))
        return mlp()

    ticket = pc.find_ticket(module, score, 0.5)
    pc.compare(model, score, 0.5, [data()], cross_entropy, test=lambda network: 0.0, epochs=1, seeds=1)
    with torch.random.fork_rng():
        new = ticket.reinitialize_(ticket.apply_(module))
    bound = 1 / math.sqrt(6)
    of_reset = (new[0].weight / bound + 1) / 2  # what torch.rand gave
    first = next(iter(seen.values()))
    assert not torch.allclose(of_reset[ticket.masks["0.weight"]], first[ticket.masks["0.weight"]], atol=1e-3)
    assert not torch.isin(drawn[0], first).any()


# --- counts ---------------------------------------------------------------------------------------------


class Places:
    def __init__(self):
        self.epoch = 0

    def __iter__(self):
        self.epoch += 1
        order = np.random.default_rng(self.epoch).permutation(32)
        yield from (part.tolist() for part in np.array_split(order, 4))

    def __len__(self):
        return 4


class PlacesInSlots(Sampler):
    __slots__ = ("epoch",)
    __init__, __iter__, __len__ = Places.__init__, Places.__iter__, Places.__len__


class Reading(Dataset):
    def __init__(self):
        self.read, (self.x, self.y) = 0, data()

    def __len__(self):
        return 32

    def __getitem__(self, place):
        self.read += 1
        return self.x[place] * math.cos(self.read), self.y[place]


class Collating:
    def __init__(self):
        self.read = 0

    def __call__(self, samples):
        self.read += 1
        x, y = map(torch.stack, zip(*samples, strict=True))
        return x * math.cos(self.read), y


def of_places(sampler):
    return DataLoader(TensorDataset(*data()), batch_sampler=sampler), sampler


def of_collating(collating):
    return DataLoader(TensorDataset(*data()), 5, collate_fn=collating), collating


@pytest.mark.parametrize(
    "made",
    [
        lambda: of_places(Places()),
        lambda: of_places(PlacesInSlots()),
        lambda: (lambda read: (DataLoader(read, 5), read))(Reading()),
        lambda: of_collating(Collating()),
    ],
    ids=["batch sampler", "slots", "data set", "collate_fn"],
)
def test_whatever_counts_in_a_loader_is_left_as_it_is(made):
    (loader, counting), module = made(), mlp()
    name = "epoch" if hasattr(counting, "epoch") else "read"
    tickets = [
        pc.find_ticket(module, "magnitude", 0.3, loader, cross_entropy, epochs=2, optimizer=SGD) for _ in range(2)
    ]
    assert tickets[0] == tickets[1]
    assert getattr(counting, name) == 0


class Moving(Sampler):
    """Places from where it is, which it counts itself."""

    def __init__(self):
        self.place = 0

    def __iter__(self):
        self.place = 0
        while self.place < 32:
            yield self.place
            self.place += 1

    def __len__(self):
        return 32


@pytest.mark.parametrize("method", ["edge-popup", "gem-miner"])
def test_methods_that_go_step_by_step_read_the_batches_of_a_sampler_that_counts(method):
    module, dataset = mlp(), TensorDataset(*data())
    options = {"loss": cross_entropy, "epochs": 2}
    plain = pc.find_ticket(module, method, 0.3, DataLoader(dataset, 5), **options)
    assert pc.find_ticket(module, method, 0.3, DataLoader(dataset, 5, sampler=Moving()), **options) == plain


def test_the_loader_of_a_test_is_left_as_it_is():
    dataset, own = TensorDataset(*data()), torch.Generator().manual_seed(3)
    sampler, before = Moving(), own.get_state()
    loaders = [DataLoader(dataset, 5, shuffle=True, generator=own), DataLoader(dataset, 5, sampler=sampler)]
    for loader in loaders:
        pc.compare(mlp(), "random", 0.5, [data()], cross_entropy, test=loader, epochs=1, seeds=1)
    assert torch.equal(own.get_state(), before)
    assert sampler.place == 0


def test_data_with_more_batches_than_their_length_says_are_refused():
    class Endless:
        def __len__(self):
            return 3

        def __iter__(self):
            while True:
                yield data()

    with pytest.raises(pc.PrecodeValueError, match="3 batches by its length and gives more"):
        pc.find_ticket(mlp(), "snip", 0.3, Endless(), cross_entropy)


# --- what modules and losses hold -----------------------------------------------------------------------


class Remembering(nn.Module):
    """It adds what it saw last."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)
        self.calls, self.seen, self.state = 0, [], torch.zeros(8)

    def forward(self, x):
        self.calls += 1
        self.seen.append(self.calls)
        hidden = torch.relu(self.first(x) + self.state + 0.1 * len(self.seen))
        self.state = self.state + hidden.detach().mean(0)
        return self.second(hidden)


@pytest.mark.parametrize("method", ["snip", "wanda", "obs", "edge-popup", "imp", "obs-loss"])
def test_what_a_module_remembers_of_a_call_is_forgotten(method):
    (x, y), module = data(), Remembering()
    batches, densities = [(x[:12], y[:12]), (x[12:], y[12:])], [0.8, 0.5, 0.3]
    several = pc.find_ticket(module, method, densities=densities, data=batches, loss=cross_entropy, epochs=2)
    single = [pc.find_ticket(module, method, each, batches, cross_entropy, epochs=2) for each in densities]
    assert several == single
    assert (module.calls, module.seen) == (0, [])


class Centred(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("center", torch.zeros(3))

    def forward(self, output, y):
        self.center.lerp_(output.detach().mean(0), 0.5)
        return cross_entropy(output - self.center, y)


def test_a_loss_with_a_state_is_put_back_however_it_is_passed():
    (x, y), module, criterion = data(), mlp(), Centred()
    batches = [(x[:12], y[:12]), (x[12:], y[12:])]
    losses = [criterion, lambda output, y: criterion(output, y), criterion.forward, partial(criterion)]
    tickets = [pc.find_ticket(module, "snip", 0.3, batches, loss) for loss in losses]
    assert tickets == [tickets[0]] * 4
    assert not criterion.center.any()


def test_a_teacher_in_a_loss_is_left_as_it_is():
    (x, y), module = data(), mlp()
    teacher = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3)).requires_grad_(False)
    before = copy.deepcopy(teacher.state_dict())
    for method in ("snip", "magnitude"):
        pc.find_ticket(
            module,
            method,
            0.3,
            (x, y),
            lambda output, y: cross_entropy(output, y) + mse_loss(output, teacher(x)),
            epochs=2,
        )
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


class Tapping(nn.Module):
    """Its forward takes what a hook kept in an attribute."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.kept = nn.Sequential(nn.Linear(6, 8), nn.ReLU()), nn.Linear(8, 3), {}

        def keep(layer, given, output):
            self.kept["body"] = output

        self.body.register_forward_hook(keep)

    def forward(self, x):
        self.body(x)
        return self.head(self.kept["body"])


class Straight(Tapping):
    def forward(self, x):
        return self.head(self.body(x))


@pytest.mark.parametrize("method", ["snip", "magnitude", "imp", "wanda"])
@pytest.mark.parametrize("called", [False, True])
def test_hooks_that_close_over_the_module_work_on_its_copies(method, called):
    x, y = data()
    torch.manual_seed(0)
    module, tickets = Tapping(), []
    straight = Straight()
    straight.load_state_dict(module.state_dict())
    if called:
        with torch.no_grad():
            module(x)
    before = dict(module.kept)
    for each in (module, straight):
        tickets.append(pc.find_ticket(each, method, 0.4, (x, y), cross_entropy, epochs=3, optimizer=ADAM))
    assert all(torch.equal(tickets[0].masks[name], mask) for name, mask in tickets[1].masks.items())
    assert module.kept.keys() == before.keys()
    assert all(module.kept[name] is value for name, value in before.items())


def test_functions_that_close_over_the_module_work_on_its_copies():
    (x, y), module = data(), mlp()
    expected = snip_by_hand(module, lambda network: cross_entropy(network(x), y), ("0.weight", "2.weight"))
    layer = module[0]
    module.forward = lambda x: module[2](torch.relu(layer(x)))
    assert_same(pc.find_ticket(module, "snip", 0.3, (x, y), cross_entropy), expected)


@pytest.mark.parametrize("which", [lambda module: module, lambda module: module[0]])
def test_calls_of_the_module_itself_are_refused(which):
    (x, y), module = data(), mlp()
    hooks = [copy.copy(layer._forward_pre_hooks) for layer in module.modules()]

    def loss(output, y):
        with torch.no_grad():
            target = which(module)(x)
        return cross_entropy(output, y) + target.mean()

    for method in ("snip", "imp"):
        with pytest.raises(pc.PrecodeValueError, match=r"of the module that was passed in is called .* third argument"):
            pc.find_ticket(module, method, 0.3, (x, y), loss, epochs=1)
    with pytest.raises(pc.PrecodeValueError, match="is called during the search"):
        pc.find_ticket(
            module, "snip", 0.3, (x, y), cross_entropy, unpack=lambda batch: (batch[0], which(module)(batch[0]))
        )
    assert [layer._forward_pre_hooks for layer in module.modules()] == hooks
    teacher = copy.deepcopy(module)
    pc.find_ticket(module, "snip", 0.3, (x, y), lambda output, y: cross_entropy(output, y) + teacher(x).mean())


def test_copies_have_no_hooks_of_the_search():
    module, hooks = mlp(), []

    def train(network):
        hooks.append([len(layer._forward_pre_hooks) for layer in network.modules()])
        pickle.dumps(network)
        shuffled_training(network)

    pc.find_ticket(module, "magnitude", 0.3, train=train)
    assert hooks == [[0, 0, 0, 0]]


def test_a_loss_among_the_layers_of_a_module_may_be_called():
    class WithLoss(Shaking):
        def __init__(self):
            super().__init__()
            self.criterion = nn.CrossEntropyLoss()

    module = WithLoss()
    pc.find_ticket(module, "snip", 0.3, data(), lambda output, y: module.criterion(output, y))


# --- caches ---------------------------------------------------------------------------------------------


def test_a_search_within_autocast_computes_with_the_weights_it_has():
    (x, y), module = data(), mlp()

    class Inside(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = module

        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16):
                return self.network(x)

    options = {"loss": cross_entropy, "epochs": 20, "optimizer": ADAM}
    for searched in (module, Inside()):
        for method in ("magnitude", "imp"):
            with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
                expected = pc.find_ticket(searched, method, 0.2, (x, y), **options)
            with torch.autocast("cpu", torch.bfloat16):
                assert pc.find_ticket(searched, method, 0.2, (x, y), **options) == expected
                assert torch.is_autocast_cache_enabled()
    plain = pc.compare(mlp, "random", 0.5, (x, y), cross_entropy, test=(x, y), epochs=30, optimizer=ADAM, seeds=1)
    with torch.autocast("cpu", torch.bfloat16):
        around = pc.compare(mlp, "random", 0.5, (x, y), cross_entropy, test=(x, y), epochs=30, optimizer=ADAM, seeds=1)
    assert abs(plain.table["dense_accuracy"][0] - around.table["dense_accuracy"][0]) < 0.2


def test_gradients_of_half_precision_are_averaged_in_float32():
    torch.manual_seed(0)
    x, y = torch.randn(512, 6), torch.randint(3, (512,))
    module = mlp().to(torch.bfloat16)
    batches = [(x[i : i + 2].bfloat16(), y[i : i + 2]) for i in range(0, 512, 2)]
    total = {name: torch.zeros(parameter.shape) for name, parameter in module.named_parameters()}
    for a, b in batches:
        module.zero_grad()
        cross_entropy(module(a), b).backward()
        for name, parameter in module.named_parameters():
            total[name] += parameter.grad.float()
    module.zero_grad()
    scores = torch.cat(
        [(module.get_parameter(name) * total[name]).abs().flatten() for name in ("0.weight", "2.weight")]
    )
    ticket = pc.find_ticket(module, "snip", 0.3, batches, cross_entropy)
    found = torch.cat([ticket.masks[name].flatten() for name in ("0.weight", "2.weight")])
    expected = torch.zeros(len(found), dtype=torch.bool).index_fill_(0, scores.topk(ticket.kept).indices, True)
    assert (found & expected).sum() > 0.98 * ticket.kept


def test_rows_are_counted_exactly_whatever_the_default_type_is():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(700, 400), nn.ReLU(), nn.Linear(400, 300), nn.ReLU(), nn.Linear(300, 10))
    expected = pc.find_ticket(module, "magnitude-init", 0.5, granularity="row")
    for kind in (torch.float16, torch.bfloat16):
        torch.set_default_dtype(kind)
        try:
            assert pc.find_ticket(module, "magnitude-init", 0.5, granularity="row") == expected
        finally:
            torch.set_default_dtype(torch.float32)


def test_rows_are_chosen_on_the_cpu_whatever_the_default_device_is():
    module = mlp()
    expected = pc.find_ticket(module, "magnitude-init", 0.5, granularity="column")
    with torch.device("meta"):
        assert pc.find_ticket(module, "magnitude-init", 0.5, granularity="column") == expected


def test_a_learning_rate_that_is_a_tensor_stays_what_it_is():
    rate = torch.tensor(1e-3)
    for _ in range(2):
        pc.find_ticket(
            mlp(),
            "hot-magnitude",
            0.3,
            data(),
            cross_entropy,
            epochs=3,
            optimizer=lambda parameters: torch.optim.Adam(parameters, lr=rate),
        )
    assert float(rate) == pytest.approx(1e-3)


# --- closures -------------------------------------------------------------------------------------------


def test_functions_may_close_over_libraries_and_draw_from_the_system():
    import random

    from torch.nn import functional

    chance = random.SystemRandom()

    def loss(output, y):
        return functional.cross_entropy(output, y) + 0 * chance.random() + 0 * np.pi

    pc.find_ticket(mlp(), "snip", 0.3, data(), loss, unpack=lambda batch: (batch[0], batch[1] + 0 * np.int64(1)))


def test_generators_of_a_file_of_ones_own_are_found(tmp_path, monkeypatch):
    (tmp_path / "own_augmentation.py").write_text(
        "import torch\n"
        "GENERATOR = torch.Generator().manual_seed(1)\n"
        "def noise(x):\n"
        "    return x + torch.randn(x.shape, generator=GENERATOR)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import own_augmentation

    globals()["own_augmentation"] = own_augmentation
    before, module = own_augmentation.GENERATOR.get_state(), mlp()
    loader = DataLoader(Transformed(augmented), 5)
    tickets = [pc.find_ticket(module, "snip", 0.3, loader, cross_entropy) for _ in range(2)]
    assert tickets[0] == tickets[1]
    assert torch.equal(own_augmentation.GENERATOR.get_state(), before)


def augmented(value):
    return own_augmentation.noise(value)  # noqa: F821 - a file that the test writes


class Holding(nn.Module):
    """A module with a function that closes over parts of it, or over itself."""

    def __init__(self, kind):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)
        layers, old = [self.first, self.second], self.second.forward

        def recursive(x, depth):
            return self.second(x) if not depth else recursive(x, depth - 1)

        self.function = {
            "list": lambda x: layers[1](x),
            "method": lambda x: old(x),
            "recursive": lambda x: recursive(x, 2),
            "named": lambda x, *, layer=self.second: layer(x),
        }[kind]

    def forward(self, x):
        return self.function(self.first(x).relu())


@pytest.mark.parametrize("kind", ["list", "method", "recursive", "named"])
def test_functions_of_every_form_work_on_copies(kind):
    (x, y), module = data(), Holding(kind)

    def by_hand(network):
        return cross_entropy(network.second(network.first(x).relu()), y)

    expected = snip_by_hand(module, by_hand, ("first.weight", "second.weight"))
    assert_same(pc.find_ticket(module, "snip", 0.3, (x, y), cross_entropy), expected)
    assert module.first.weight.grad is None


class Slotted:
    __slots__ = ("cache", "values")

    def __init__(self):
        self.values = {"scale": 2.0}

    def __getattr__(self, name):
        return self.values[name]


class Absent:
    @property
    def __class__(self):
        raise RuntimeError("it stands for nothing yet")


def test_objects_that_cannot_be_looked_at_are_left_alone():
    slotted, absent = Slotted(), Absent()

    def loss(output, y):
        assert absent is not None
        return cross_entropy(output / slotted.scale, y)

    expected = pc.find_ticket(mlp(), "imp", 0.3, data(), lambda output, y: cross_entropy(output / 2, y), epochs=2)
    assert pc.find_ticket(mlp(), "imp", 0.3, data(), loss, epochs=2) == expected
