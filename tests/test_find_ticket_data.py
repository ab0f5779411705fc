"""Tickets of any module: whatever a user's data and modes are."""

import copy
import random
from collections import UserDict, deque, namedtuple
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.data import ChainDataset, DataLoader, Dataset, IterableDataset, RandomSampler, Sampler, TensorDataset

import precode as pc
from small_modules import assert_same, data, mlp, snip_by_hand

pytestmark = pytest.mark.usefixtures("one_thread")


Pair = namedtuple("Pair", "x y")


WEIGHTS = ("0.weight", "2.weight")


class Language(nn.Module):
    """A token model; sequences first or batch first, it does not mind."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(11, 6), nn.Linear(6, 11)

    def forward(self, tokens):
        return self.head(self.embedding(tokens))


def token_loss(output, labels):
    return cross_entropy(output.flatten(0, 1), labels.flatten())


@pytest.mark.parametrize("time_first", [False, True])
def test_a_mean_over_tokens_is_the_same_however_the_data_are_cut(time_first):
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(11, (16, 9), generator=generator)
    labels = torch.where(
        torch.arange(9) < torch.randint(1, 9, (16, 1), generator=generator),
        torch.randint(11, (16, 9), generator=generator),
        -100,
    )
    module = Language()

    def cut(*ends):
        parts = zip(tokens.tensor_split(ends), labels.tensor_split(ends), strict=True)
        return [(x.T, y.T) if time_first else (x, y) for x, y in parts]

    by_hand = snip_by_hand(module, lambda network: token_loss(network(tokens), labels), ["head.weight"])
    whole = pc.find_ticket(module, "snip", 0.3, cut(), token_loss)
    uneven = pc.find_ticket(module, "snip", 0.3, cut(3, 4, 12), token_loss)
    for ticket in (whole, uneven):
        assert float((ticket.masks["head.weight"] == by_hand["head.weight"]).double().mean()) > 0.99
    # A loss that is the mean over sequences says so by weight.
    sequences = pc.find_ticket(module, "snip", 0.3, cut(3, 12), token_loss, weight=lambda x, y: 1)
    assert not torch.equal(sequences.masks["head.weight"], by_hand["head.weight"])
    nothing = [(tokens, torch.full_like(labels, -100))]
    assert pc.find_ticket(module, "snip", 0.3, cut() + nothing, token_loss) == whole
    with pytest.raises(pc.PrecodeValueError, match="no batch of the data counts"):
        pc.find_ticket(module, "snip", 0.3, nothing, token_loss)
    with pytest.raises(pc.PrecodeValueError, match=r"weight returned -1\.0"):
        pc.find_ticket(module, "snip", 0.3, cut(), token_loss, weight=lambda x, y: -1)


class Named(nn.Module):
    """Takes its input by name, or within a named tuple or an object."""

    def __init__(self):
        super().__init__()
        self.net = mlp()

    def forward(self, inputs):
        return self.net(inputs if isinstance(inputs, torch.Tensor) else inputs.x)


class Moving:
    """An object with tensors that moves by itself, such as a graph or a batch of a tokenizer."""

    def __init__(self, x, moved=False):
        self.x = x if moved else x * float("nan")
        self.still = x

    def to(self, device):
        return Moving(self.still.to(device), moved=True)


@dataclass
class Held:
    x: torch.Tensor


def test_batches_of_every_form():
    (x, y), module = data(), Named()
    expected = pc.find_ticket(module, "snip", 0.3, (x, y), cross_entropy)
    forms = [
        [(UserDict(inputs=x), y)],
        [({"inputs": x}, y)],
        [Pair(x, y)],
        [(Pair(x, y), y)],
        [(Moving(x), y)],
        [(Held(x.numpy()), y.numpy())],
        [(x, y, torch.arange(len(x)))],
        [{"input_ids": x, "labels": y}],
    ]
    unpack = [None] * 6 + [lambda batch: batch[:2], lambda batch: (batch["input_ids"], batch["labels"])]
    for form, function in zip(forms, unpack, strict=True):
        assert pc.find_ticket(module, "snip", 0.3, form, cross_entropy, unpack=function) == expected
    with torch.inference_mode():
        inside = [(x.clone(), y.clone())]
    assert pc.find_ticket(module, "snip", 0.3, inside, cross_entropy) == expected
    # A model that computes its own loss.
    own = pc.find_ticket(
        module, "snip", 0.3, forms[-1], lambda out, batch: cross_entropy(out, batch), unpack=lambda b: tuple(b.values())
    )
    assert own == expected
    for form, message in [
        (forms[-2], r"not 3 items: say which .* unpack=lambda batch: \(batch\[0\], batch\[1\]\)"),
        (forms[-1], r"not dict: say which .*batch\['input_ids'\]"),
    ]:
        with pytest.raises(pc.PrecodeTypeError, match=message):
            pc.find_ticket(module, "snip", 0.3, form, cross_entropy)
    with pytest.raises(pc.PrecodeTypeError, match=r"unpack must return a pair \(x, y\), not int"):
        pc.find_ticket(module, "snip", 0.3, (x, y), cross_entropy, unpack=lambda batch: 3)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.head = nn.GRU(6, 5), nn.Linear(5, 3)

    def forward(self, sequences):
        return self.head(self.gru(sequences)[1][-1])


def test_packed_sequences_and_recurrent_weights():
    module = Recurrent()
    x = torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(0))
    packed, y = pack_padded_sequence(x, torch.tensor([4, 3, 1])), torch.tensor([0, 1, 2])
    ticket = pc.find_ticket(module, "snip", 0.3, [(packed, y)], cross_entropy)
    names = ["gru.weight_ih_l0", "gru.weight_hh_l0", "head.weight"]
    assert_same(ticket, snip_by_hand(module, lambda network: cross_entropy(network(packed), y), names))
    assert ticket.config["share"] == 1


def test_modes_of_single_layers_are_kept():
    x, y = data()
    module = mlp(nn.BatchNorm1d(8), nn.Dropout(0.5))
    with torch.no_grad():
        module[1].running_mean.copy_(torch.linspace(-1, 1, 8))
        module[1].running_var.copy_(torch.linspace(0.1, 4, 8))
    module[1].eval(), module[2].eval()
    names = ("0.weight", "4.weight")
    frozen = pc.find_ticket(module, "snip", 0.3, (x, y), cross_entropy)
    assert_same(frozen, snip_by_hand(module, lambda network: cross_entropy(network(x), y), names))
    module[1].train()
    assert_same(
        pc.find_ticket(module, "snip", 0.3, (x, y), cross_entropy),
        snip_by_hand(module, lambda network: cross_entropy(network(x), y), names),
    )
    # In evaluation mode throughout, as after an evaluation: the first training step would begin with train().
    trained = pc.find_ticket(mlp(nn.BatchNorm1d(8)).eval(), "snip", 0.3, (x, y), cross_entropy)
    names = ("0.weight", "3.weight")
    assert_same(trained, snip_by_hand(mlp(nn.BatchNorm1d(8)), lambda network: cross_entropy(network(x), y), names))


def test_a_batch_of_one_sample_is_refused_before_training():
    x, y = data(33)
    calls = []

    def loss(output, y):
        calls.append(1)
        return cross_entropy(output, y)

    normed, loader = mlp(nn.BatchNorm1d(8)), DataLoader(TensorDataset(x, y), batch_size=16)
    for batches in (loader, [(x[:32], y[:32]), (x[32:], y[32:])]):
        with pytest.raises(pc.PrecodeValueError, match=r"batch of one sample, .*drop_last=True"):
            pc.find_ticket(normed, "imp", 0.5, batches, loss, epochs=1)
        assert not calls
    for module, batches in [
        (mlp(nn.LayerNorm(8)), loader),
        (normed, DataLoader(TensorDataset(x, y), batch_size=16, drop_last=True)),
    ]:
        assert pc.find_ticket(module, "snip", 0.5, batches, cross_entropy).kept == 36


class Noisy(Dataset):
    """Samples with noise from generators of its own."""

    def __init__(self, x, y, seed):
        self.x, self.y, self.generator = x, y, np.random.default_rng(seed)
        self.torch = torch.Generator().manual_seed(seed)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        noise = torch.randn(6, generator=self.torch) + torch.from_numpy(self.generator.normal(0, 1, 6)).float()
        return self.x[index] + noise, self.y[index]


def noisy(samples, generator):
    x, y = (torch.stack(items) for items in zip(*samples, strict=True))
    return x + torch.from_numpy(generator.normal(0, 1, x.shape)).float(), y


def test_generators_of_loaders_and_data_sets_are_as_before():
    x, y = data()
    loaders = [
        lambda seed: DataLoader(TensorDataset(x, y), 8, shuffle=True, generator=torch.Generator().manual_seed(seed)),
        lambda seed: DataLoader(
            TensorDataset(x, y), 8, sampler=RandomSampler(x, generator=torch.Generator().manual_seed(seed))
        ),
        lambda seed: DataLoader(Noisy(x, y, seed), 8),
        lambda seed: DataLoader(
            TensorDataset(x, y), 8, collate_fn=partial(noisy, generator=np.random.default_rng(seed))
        ),
    ]
    for make in loaders:
        loader, untouched = make(0), make(0)
        first = pc.find_ticket(mlp(), "magnitude", 0.5, loader, cross_entropy, epochs=2)
        assert pc.find_ticket(mlp(), "magnitude", 0.5, loader, cross_entropy, epochs=2) == first
        # A generator of another seed gives other batches.
        other = pc.find_ticket(mlp(), "imp-lr-rewind", 0.5, make(1), cross_entropy, epochs=2)
        same = pc.find_ticket(mlp(), "imp-lr-rewind", 0.5, loader, cross_entropy, epochs=2)
        assert not torch.equal(other.start["0.bias"], same.start["0.bias"])
        for ours, theirs in zip(loader, untouched, strict=True):
            assert torch.equal(ours[0], theirs[0])


def test_inference_mode():
    (x, y), module = data(), mlp()
    expected = pc.find_ticket(module, "snip", 0.3, (x, y), cross_entropy)
    with torch.inference_mode():
        ticket = pc.find_ticket(module, "snip", 0.3, (x, y), cross_entropy)
        ticket.apply_(module)
        made = mlp()
    assert ticket == expected
    cross_entropy(module(x), y).backward()
    assert module[0].parametrizations.weight.original.grad is not None
    with pytest.raises(pc.PrecodeValueError, match=r"'0\.weight' was made in inference mode"):
        pc.find_ticket(made, "random", 0.3)


def test_what_cannot_be_copied_is_named():
    class Remembers(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x):
            self.last = self.layer(x)
            return self.last

    module = nn.Sequential(Remembers())
    module(data()[0])
    with pytest.raises(pc.PrecodeTypeError, match=r"because of 'last' of layer '0'; remember it with \.detach"):
        pc.find_ticket(module, "random", 0.5)
    with pytest.warns(FutureWarning):
        normed = nn.Sequential(nn.utils.weight_norm(nn.Linear(6, 3)), nn.Linear(3, 3))
    with pytest.raises(
        pc.PrecodeTypeError, match=r"'weight' of layer '0', which torch.*use that of .*parametrizations"
    ):
        pc.find_ticket(normed, "random", 0.5)


class Tokens(nn.Module):
    """A network of tokens whose classes are the second axis of its outputs."""

    def __init__(self, **options):
        super().__init__()
        self.embedding = nn.Embedding(30, 16, **options)
        self.hidden, self.head = nn.Linear(16, 16), nn.Linear(16, 30)

    def forward(self, x):
        return self.head(self.hidden(self.embedding(x)).relu()).mT


def tokens():
    generator = torch.Generator().manual_seed(0)
    x, labels = (torch.randint(30, (24, 7), generator=generator) for _ in range(2))
    labels[:12, 1:] = -100
    return x, labels


@pytest.mark.parametrize("order", [["labels", "ids"], ["ids", "labels"]])
def test_of_several_tensors_batches_weigh_by_the_labels(order):
    torch.manual_seed(0)
    module, (x, labels) = Tokens(), tokens()
    y = {"labels": labels, "ids": torch.arange(24)}
    batches = [(x[part], {name: y[name][part] for name in order}) for part in (slice(12), slice(12, 24))]
    ticket = pc.find_ticket(module, "snip", 0.2, batches, lambda output, y: cross_entropy(output, y["labels"]))
    whole = pc.find_ticket(module, "snip", 0.2, (x, labels), cross_entropy)
    assert all(torch.equal(mask, whole.masks[name]) for name, mask in ticket.masks.items())


def test_tensors_of_labels_that_say_different_things_are_refused():
    module, (x, labels) = Tokens(), tokens()
    batches = [(x[part], (torch.arange(12), labels[part])) for part in (slice(12), slice(12, 24))]

    def loss(output, y):
        return cross_entropy(output, y[1])

    with pytest.raises(pc.PrecodeValueError, match=r"\[12, 12\] in one batch and \[12, 84\].*weight="):
        pc.find_ticket(module, "snip", 0.2, batches, loss)
    # Tensors that say the same, with a last batch that is smaller.
    same = [(x[part], (labels[part, 0], labels[part, :2])) for part in (slice(12, 20), slice(20, 24))]
    pc.find_ticket(module, "snip", 0.2, same, lambda output, y: cross_entropy(output[..., :2], y[1]))
    weighed = pc.find_ticket(module, "snip", 0.2, batches, loss, weight=lambda x, y: (y[1] != -100).sum())
    whole = pc.find_ticket(module, "snip", 0.2, (x, labels), cross_entropy)
    assert all(torch.equal(mask, whole.masks[name]) for name, mask in weighed.masks.items())


def test_hooks_on_gradients_are_said_to_be_lost():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    module[0].weight.register_hook(lambda gradient: gradient * 0)
    data = (torch.randn(12, 6), torch.arange(12) % 3)
    with pytest.warns(pc.TicketWarning, match=r"gradients of '0\.weight' have hooks"):
        pc.find_ticket(module, "magnitude", 0.5, data, cross_entropy, epochs=1)
    pc.find_ticket(module, "magnitude-init", 0.5)


def test_synaptic_flow_of_tokens_depends_on_no_token():
    torch.manual_seed(0)
    module, data = Tokens(padding_idx=1), tokens()
    ticket = pc.find_ticket(module, "synflow", 0.3, data, cross_entropy)
    # By hand in one round at a time: the flow into the first layer is the mean magnitude of the rows.
    weights = {name: module.get_submodule(name).weight.detach().double() for name in ("hidden", "head")}
    masks = {name: torch.ones_like(weight) for name, weight in weights.items()}
    x = module.embedding.weight.detach().double().abs().mean(0)
    for step in range(1, 101):
        first, second = (weights[name].abs() * masks[name] for name in ("hidden", "head"))
        scores = {"hidden": second.sum(0)[:, None] * first * x, "head": second * (first @ x)}
        flat = torch.cat([score.flatten() for score in scores.values()])
        least = flat.topk(round(0.3 ** (step / 100) * len(flat))).values[-1]
        masks = {name: (score >= least).double() for name, score in scores.items()}
    assert all(torch.equal(ticket.masks[f"{name}.weight"], mask.bool()) for name, mask in masks.items())


def test_synaptic_flow_where_a_module_makes_tensors_of_its_own():
    class Recurrent(nn.Module):
        def __init__(self, kind=None):
            super().__init__()
            self.kind = kind
            self.layer, self.head = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x):
            start = torch.zeros(1, len(x), 8, dtype=self.kind)
            return self.head(self.layer(x, (start, start))[0][:, -1])

    data = (torch.randn(4, 5, 6), torch.arange(4) % 3)
    assert pc.find_ticket(Recurrent(), "synflow", 0.5, data, cross_entropy, prunable="head").kept == 12
    assert torch.get_default_dtype() == torch.float32
    with pytest.raises(pc.UnsupportedError, match=r"of ones in torch\.float64, which the module"):
        pc.find_ticket(Recurrent(torch.float32), "synflow", 0.5, data, cross_entropy)
    assert torch.get_default_dtype() == torch.float32


def test_labels_that_are_packed_count_by_their_elements():
    module = nn.Linear(5, 3)
    x, y = torch.randn(10, 5), torch.arange(10) % 3
    lengths = ([3, 2], [4, 1])
    parts = [(x[:5], y[:5], lengths[0]), (x[5:], y[5:], lengths[1])]
    batches = [(x, pack_padded_sequence(y[None].expand(2, 5).T, lengths)) for x, y, lengths in parts]

    def loss(output, packed):
        return cross_entropy(output, packed.data)

    ticket = pc.find_ticket(module, "snip", 0.4, batches, loss)
    labels = [(x, packed.data) for x, packed in batches]
    assert torch.equal(
        ticket.masks["weight"], pc.find_ticket(module, "snip", 0.4, labels, cross_entropy).masks["weight"]
    )


def test_synaptic_flow_of_bags_depends_on_no_token():
    torch.manual_seed(0)
    module = nn.Sequential(nn.EmbeddingBag(30, 8, mode="sum"), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    data = (torch.randint(2, 30, (12, 4)), torch.arange(12) % 3)
    ticket = pc.find_ticket(module, "synflow", 0.4, data, cross_entropy)
    mean = nn.Sequential(*module[1:])
    scaled = nn.Linear(8, 6)
    with torch.no_grad():
        scaled.weight.copy_(module[1].weight.abs() * module[0].weight.abs().mean(0))
    by_hand = pc.find_ticket(nn.Sequential(scaled, *mean[1:]), "synflow", 0.4)
    assert [mask.tolist() for mask in ticket.masks.values()] == [mask.tolist() for mask in by_hand.masks.values()]


class Stream:
    """Batches that are there once only, although an iterator can be made again and again."""

    def __init__(self):
        samples, labels = data()
        self._batches = iter([(samples[:16], labels[:16]), (samples[16:], labels[16:])])

    def __iter__(self):
        yield from self._batches


class SizedStream(Stream):
    def __len__(self):
        return 2


@pytest.mark.parametrize("stream", [Stream, SizedStream])
@pytest.mark.parametrize("method", ["snip", "grasp", "magnitude", "imp", "early-bird", "edge-popup", "wanda", "obs"])
def test_data_that_are_there_once_only_are_refused(method, stream):
    with pytest.raises(
        pc.PrecodeValueError, match=r"data has [12] batches and gave [01] .*: pass|fewer batches than at"
    ):
        pc.find_ticket(mlp(), method, 0.5, stream(), cross_entropy, epochs=3)


class Editing(nn.Module):
    """A layer that edits its input in place."""

    def forward(self, x):
        return x.mul_(0.5)


@pytest.mark.parametrize("method", ["snip", "grasp", "imp", "synflow", "wanda", "obs", "edge-popup"])
def test_modules_that_edit_their_input_leave_the_data_alone(method):
    samples, labels = data()
    given = samples.clone(), labels.clone()
    found = [
        pc.find_ticket(nn.Sequential(first, *mlp()), method, 0.5, given, cross_entropy, epochs=3)
        for first in (Editing(), Editing(), Halved())
    ]
    assert torch.equal(given[0], samples)
    assert found[0].masks.keys() == {"1.weight", "3.weight"}
    for other in found[1:]:
        assert_same(other, found[0].masks)


class Halved(nn.Module):
    """The same, in memory of its own."""

    def forward(self, x):
        return x * 0.5


def test_losses_that_edit_the_labels_leave_the_data_alone():
    samples, labels = data()

    def loss(output, y):
        return cross_entropy(output, y.add_(1).remainder_(3))

    kept = labels.clone()
    ticket = pc.find_ticket(mlp(), "imp", 0.5, (samples, labels), loss, epochs=2)
    assert torch.equal(labels, kept)
    assert_same(ticket, pc.find_ticket(mlp(), "imp", 0.5, (samples, (labels + 1) % 3), cross_entropy, epochs=2).masks)


class Jittered(Dataset):
    """Data that are drawn anew whenever they are read."""

    def __len__(self):
        return 32

    def __getitem__(self, number):
        samples, labels = data()
        return samples[number] + torch.randn(6), labels[number]


def test_workers_that_stand_by_give_the_same_batches_and_serve_the_users_loop():
    def loader(**options):
        return DataLoader(Jittered(), 8, **options)

    standing = loader(num_workers=1, persistent_workers=True)
    first = pc.find_ticket(mlp(), "snip", 0.3, standing, cross_entropy)
    for other in (standing, loader(num_workers=1)):
        assert_same(pc.find_ticket(mlp(), "snip", 0.3, other, cross_entropy), first.masks)
    count = 0
    for _ in standing:
        count += 1
        pc.find_ticket(mlp(), "snip", 0.3, standing, cross_entropy)
    assert count == 4


class ByName(nn.Module):
    """A layer that is called by the names of its arguments."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(input=x)


@pytest.mark.parametrize("method", ["wanda", "obs", "sparsegpt", "obs-loss"])
def test_layers_that_are_called_by_name(method):
    module, (samples, labels) = mlp(), data()
    named = nn.Sequential(ByName(module[0]), module[1], ByName(module[2]))
    expected = pc.find_ticket(module, method, 0.5, (samples, labels), cross_entropy, epochs=1)
    found = pc.find_ticket(named, method, 0.5, (samples, labels), cross_entropy, epochs=1)
    assert_same(found, {name.replace(".", ".layer."): mask for name, mask in expected.masks.items()})


RANDOM = np.random.default_rng(0)


class GlobalNoise(Dataset):
    """Data that draw from a generator that they know by a global name."""

    def __len__(self):
        return 32

    def __getitem__(self, number):
        samples, labels = data()
        return samples[number] + float(RANDOM.normal()), labels[number]


def test_generators_of_global_names_are_found():
    loader, state = DataLoader(GlobalNoise(), 8), RANDOM.bit_generator.state
    assert pc.find_ticket(mlp(), "grasp", 0.3, loader, cross_entropy) == pc.find_ticket(
        mlp(), "grasp", 0.3, loader, cross_entropy
    )
    assert RANDOM.bit_generator.state == state


class Positioned(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = mlp()

    def forward(self, a, position):
        return self.network(a + position)


def test_without_labels_batches_weigh_by_samples_that_all_inputs_have():
    samples, position = data()[0], torch.ones(1, 6)

    def batches(*names, cut=8):
        given = [{"a": part, "position": position} for part in (samples[:cut], samples[cut:])]
        return [({name: each[name] for name in names}, None) for each in given]

    def loss(output, y):
        return output.square().mean()

    for names in (("a", "position"), ("position", "a")):
        with pytest.raises(pc.PrecodeValueError, match=r"the tensors of x count .*: pass weight=, such as"):
            pc.find_ticket(Positioned(), "snip", 0.3, batches(*names), loss)
        weighed = pc.find_ticket(Positioned(), "snip", 0.3, batches(*names), loss, weight=lambda x, y: len(x["a"]))
        whole = pc.find_ticket(Positioned(), "snip", 0.3, ({"a": samples, "position": position}, None), loss)
        assert_same(whole, weighed.masks)


@pytest.mark.parametrize(
    "method", ["imp", "edge-popup", "gem-miner", "continuous-sparsification", "snip", "obs", "wanda"]
)
def test_a_batch_whose_labels_are_all_ignored_counts_nothing(method):
    samples, labels = data()
    ignored = (samples[:8] + 1, torch.full((8,), -100))

    def loss(output, y):
        return cross_entropy(output, y) if bool((y != -100).any()) else output.sum() * 0

    batches = [(samples[:16], labels[:16]), (samples[16:], labels[16:])]
    found = pc.find_ticket(mlp(), method, 0.3, [batches[0], ignored, batches[1]], loss, epochs=2)
    assert sum(int(mask.sum()) for mask in found.masks.values()) == round(0.3 * 72)


class Encoding(UserDict):
    """A mapping whose entries are attributes too, which moves by a `to` of its own, as tokenizers return."""

    def __getattr__(self, name):
        try:
            return self.__dict__["data"][name]
        except KeyError as error:
            raise AttributeError(name) from error

    def to(self, device):
        return Encoding({name: value.to(device) for name, value in self.data.items()})


class Encoded(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = mlp()

    def forward(self, encoding, shift):
        return self.network(encoding.x + shift)


@pytest.mark.parametrize("options", [{}, {"granularity": "row"}, {"method": "imp", "epochs": 2}])
def test_objects_that_move_by_themselves_stay_what_they_are(options):
    (samples, labels), options = data(), {"method": "snip", "density": 0.5} | options
    batch = ([Encoding(x=samples), torch.zeros(1, 6)], Encoding(labels=labels))
    found = pc.find_ticket(Encoded(), data=batch, loss=lambda output, y: cross_entropy(output, y.labels), **options)
    expected = pc.find_ticket(mlp(), data=(samples, labels), loss=cross_entropy, **options)
    assert_same(found, {f"network.{name}": mask for name, mask in expected.masks.items()})


class Shifting(Encoded):
    """The same, which edits its inputs in place."""

    def forward(self, encoding, shift):
        encoding["x"].add_(1)
        return super().forward(encoding, shift)


class ByKeyword(nn.Module):
    """A module of named inputs, which edits them in place."""

    def __init__(self):
        super().__init__()
        self.network = mlp()

    def forward(self, x):
        return self.network(x.add_(1))


@pytest.mark.parametrize("method", ["snip", "wanda", "imp"])
def test_encodings_that_are_edited_in_place_are_copies(method):
    samples, labels = data()
    before = samples.clone()
    expected = pc.find_ticket(mlp(), method, 0.5, (samples + 1, labels), cross_entropy, epochs=2)
    for module, x in ((Shifting(), [Encoding(x=samples), torch.zeros(1, 6)]), (ByKeyword(), Encoding(x=samples))):
        found = pc.find_ticket(module, method, 0.5, [(x, labels)], cross_entropy, epochs=2)
        assert_same(found, {f"network.{name}": mask for name, mask in expected.masks.items()})
        assert torch.equal(samples, before)


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, packed):
        return self.layer(packed.data.mul_(0.5))


@pytest.mark.parametrize("method", ["snip", "imp"])
def test_packed_sequences_that_are_edited_in_place_stay_what_they_are(method):
    samples, labels = data()
    packed = pack_padded_sequence(samples.reshape(8, 4, 6).clone(), torch.full((8,), 4), batch_first=True)
    before = packed.data.clone()
    pc.find_ticket(Packed(), method, 0.5, (packed, labels), cross_entropy, epochs=2)
    assert torch.equal(packed.data, before)


class Epochs(Sampler):
    """A sampler that counts its epochs by itself, and shuffles places that it keeps."""

    def __init__(self):
        self.epoch, self.places = 0, list(range(32))

    def __iter__(self):
        self.epoch += 1
        random.Random(self.epoch).shuffle(self.places)
        return iter(self.places[:16])

    def __len__(self):
        return 16


def test_samplers_that_count_are_left_as_they_are_and_read_from_the_same_place_again():
    sampler = Epochs()
    loader = DataLoader(TensorDataset(*data()), batch_size=8, sampler=sampler)
    list(sampler)
    before = list(sampler.places)
    options = {"epochs": 3, "optimizer": partial(torch.optim.SGD, lr=0.5)}
    first = [pc.find_ticket(mlp(), method, 0.3, loader, cross_entropy, **options) for method in ("snip", "magnitude")]
    again = [pc.find_ticket(mlp(), method, 0.3, loader, cross_entropy, **options) for method in ("magnitude", "snip")]
    assert first == again[::-1]
    assert (sampler.epoch, sampler.places) == (1, before)

    # As in a loop of the user's own, every epoch has other batches.
    module, seen = copy.deepcopy(mlp()), []
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    for _ in range(3):
        for x, y in loader:
            seen.append(y)
            optimizer.zero_grad()
            cross_entropy(module(x), y).backward()
            optimizer.step()
    assert not torch.equal(seen[0], seen[2])
    sampler.epoch, sampler.places[:] = 1, before
    weights = torch.cat([module[0].weight.flatten(), module[2].weight.flatten()]).abs()
    kept = torch.zeros(72, dtype=torch.bool)
    kept[weights.topk(22).indices] = True
    assert torch.equal(torch.cat([mask.flatten() for mask in first[1].masks.values()]), kept)


def test_functions_that_edit_batches_leave_the_data_alone():
    x, y = data()
    batch = {"x": x.clone(), "y": y}

    def unpack(batch):
        batch["x"].mul_(2)
        return batch.pop("x"), batch.pop("y")

    edited = pc.find_ticket(mlp(), "imp", 0.3, [batch], cross_entropy, unpack=unpack, epochs=3)
    assert edited == pc.find_ticket(mlp(), "imp", 0.3, [(x * 2, y)], cross_entropy, epochs=3)
    assert torch.equal(batch["x"], x)
    pc.find_ticket(mlp(), "snip", 0.3, [(x, y)], cross_entropy, weight=lambda x, y: x.abs_().sum())
    assert torch.equal(batch["x"], x)


def test_a_tensor_that_is_the_inputs_and_the_labels_is_one_in_the_search_too():
    class Restored(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x):
            return self.layer(nn.functional.relu(x, inplace=True))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Restored()
    x, _ = data()
    ticket = pc.find_ticket(module, "snip", 0.3, [(x, x)], mse_loss)
    expected = snip_by_hand(module, lambda net: mse_loss(net(x.clone()), x.relu()), ["layer.weight"])
    assert_same(ticket, expected)


class Graphs:
    """Several graphs in one object, as those of graph libraries."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def to(self, device):
        return Graphs(self.x.to(device), self.y.to(device))

    def clone(self):
        return Graphs(self.x.clone(), self.y.clone())


class ReadGraphs(nn.Module):
    """A module of graphs that edits them in place."""

    def __init__(self):
        super().__init__()
        self.net = mlp()

    def forward(self, batch):
        batch.x.mul_(0.5)
        return self.net(batch.x)


@pytest.mark.parametrize("labels", [lambda batch: batch, lambda batch: None])
def test_objects_as_labels_need_a_weight(labels):
    x, y = data()
    held = [Graphs(x[:20], y[:20]), Graphs(x[20:], y[20:])]

    def unpack(batch):
        return batch, labels(batch)

    def loss(output, batch):
        return output.square().mean()

    with pytest.raises(pc.PrecodeValueError, match=r"how much each batch counts is not known, .*weight=lambda x, y:"):
        pc.find_ticket(ReadGraphs(), "snip", 0.3, held, loss, unpack=unpack)
    by_size = pc.find_ticket(ReadGraphs(), "snip", 0.3, held, loss, unpack=unpack, weight=lambda x, y: len(x.y))
    whole = pc.find_ticket(ReadGraphs(), "snip", 0.3, [Graphs(x, y)], loss, unpack=unpack)
    assert by_size == whole
    assert torch.equal(torch.cat([held[0].x, held[1].x]), x)


def test_several_batches_in_a_tuple_are_refused():
    x, y = data()
    with pytest.raises(pc.PrecodeTypeError, match=r"does not take the inputs .* several batches \(x, y\) go in a list"):
        pc.find_ticket(mlp(), "snip", 0.3, ((x[:5], y[:5]), (x[5:], y[5:])), cross_entropy)


class Walking(Sampler):
    """A sampler that goes on from where it was, whatever it keeps that in."""

    def __init__(self, state, place, step):
        self.state, self.place, self.step = state, place, step

    def __iter__(self):
        for _ in range(16):
            yield self.place(self.state) % 32
            self.step(self.state)

    def __len__(self):
        return 16


STATES = {
    "dict": (lambda: {"at": 0}, lambda s: s["at"], lambda s: s.update(at=s["at"] + 1)),
    "deque": (lambda: deque(range(32)), lambda s: s[0], lambda s: s.rotate(-1)),
    "list": (lambda: [0], lambda s: s[0], lambda s: s.append(s.pop() + 1)),
    "object": (lambda: SimpleNamespace(at=0), lambda s: s.at, lambda s: setattr(s, "at", s.at + 1)),
    "nested": (lambda: {"of": [[0]]}, lambda s: s["of"][0][0], lambda s: s["of"][0].append(s["of"][0].pop() + 1)),
    "tensor": (lambda: torch.zeros(1, dtype=torch.long), int, lambda s: s.add_(1)),
    "array": (lambda: np.zeros(1, dtype=int), lambda s: int(s[0]), lambda s: np.add(s, 1, out=s)),
}


def test_what_streams_hold_and_do_not_change_is_not_written():
    class Held(IterableDataset):
        def __init__(self):
            self.x, self.y = (each.numpy().copy() for each in data())
            self.x[0, 0] = np.nan
            self.x.flags.writeable = self.y.flags.writeable = False

        def __iter__(self):
            return iter([(self.x[i].copy(), self.y[i]) for i in range(1, 32)])

    loader = DataLoader(Held(), batch_size=8)
    first, second = (pc.find_ticket(mlp(), "snip", 0.3, loader, cross_entropy) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("kind", STATES)
def test_samplers_are_put_back_whatever_they_keep_their_place_in(kind):
    make, place, step = STATES[kind]
    sampler = Walking(make(), place, step)
    loader = DataLoader(TensorDataset(*data()), batch_size=8, sampler=sampler)
    first, second = (pc.find_ticket(mlp(), "snip", 0.3, loader, cross_entropy) for _ in range(2))
    assert first == second
    assert place(sampler.state) == 0


def test_iterators_that_samplers_hold_are_said():
    sampler = Walking(iter(range(10**6)), next, lambda state: None)
    loader = DataLoader(TensorDataset(*data()), batch_size=8, sampler=sampler)
    with pytest.warns(pc.TicketWarning, match=r"hold an iterator \(range_iterator\), which cannot"):
        pc.find_ticket(mlp(), "snip", 0.3, loader, cross_entropy)


def test_loaders_of_chained_streams_have_no_length():
    x, y = data()

    class Part(IterableDataset):
        def __iter__(self):
            return iter([(x[i], y[i]) for i in range(8)])

    loader = DataLoader(ChainDataset([Part(), Part()]), batch_size=4)
    ticket = pc.find_ticket(mlp(), "snip", 0.3, loader, cross_entropy)
    assert ticket == pc.find_ticket(mlp(), "snip", 0.3, (torch.cat([x[:8]] * 2), torch.cat([y[:8]] * 2)), cross_entropy)
