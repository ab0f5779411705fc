"""Weights in one memory, layers at several places, and what masks do not go with: against unpruned modules of torch."""

import copy
import re
import warnings

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrizations
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn, update_bn

import precode as pc
from precode.tickets import masked

pytestmark = pytest.mark.usefixtures("one_thread")

WAYS = ("apply_", "to_torch_prune")


def seeded(make, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def x(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def y(classes, size):
    return torch.randint(classes, (size,), generator=torch.Generator().manual_seed(2))


def values(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(module, before):
    now = module.state_dict()
    return now.keys() == before.keys() and all(torch.equal(now[name], before[name]) for name in now)


# Weights in one memory


class Words(nn.Module):
    """A network whose outputs are compared with its embedding."""

    def __init__(self, tie=None):
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.hidden = nn.Linear(8, 8)
        self.output = nn.Linear(8, 20, bias=False)
        if tie == "parameter":
            self.output.weight = self.embedding.weight
        elif tie == "memory":
            self.output.weight.data = self.embedding.weight.data

    def forward(self, x):
        return self.output(self.hidden(self.embedding(x)))


def overlapping(module):
    return {name: set(slot.overlapping) for name, slot in masked.slots(module).items() if slot.overlapping}


@pytest.mark.parametrize("tie", ["parameter", "memory"])
def test_a_tied_output_layer_is_left_out_and_the_embedding_keeps_its_values(tie):
    module = seeded(lambda: Words(tie))
    before = module.embedding.weight.detach().clone()
    with pytest.warns(pc.TicketWarning, match="'output.weight' is left out of pruning|'embedding.weight' is left out"):
        ticket = pc.find_ticket(module, "random", 0.3)
    assert list(ticket.masks) == ["hidden.weight"]
    ticket.apply_(module)
    assert torch.equal(module.embedding.weight, before)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    cross_entropy(module(y(20, 9)), y(20, 9)).backward()
    optimizer.step()
    assert torch.equal(module.embedding.weight, module.output.weight)
    assert int((module.hidden.weight != 0).sum()) == ticket.kept


@pytest.mark.parametrize("name", ["output.weight", "embedding.weight", nn.Embedding])
def test_a_weight_in_the_memory_of_another_is_refused_before_any_training(name):
    module = seeded(lambda: Words("memory"))
    before = values(module)

    def train(_):
        raise AssertionError("the search began")

    with pytest.raises(pc.PrecodeValueError, match=r"lies in the memory of .*one parameter \(b\.weight = a\.weight\)"):
        pc.find_ticket(module, "imp", 0.5, train=train, prunable=name)
    assert same(module, before)


@pytest.mark.parametrize("way", WAYS)
def test_masks_do_not_reach_weights_in_the_same_memory(way):
    apart, module = seeded(Words), seeded(lambda: Words("memory"))
    ticket = pc.find_ticket(apart, "random", 0.3)
    before = values(module)
    with pytest.raises(pc.PrecodeValueError, match=r"'output\.weight' lies in the memory of embedding\.weight"):
        getattr(ticket, way)(module)
    assert same(module, before)
    # The remedy of the message.
    module.output.weight.data = module.output.weight.data.clone()
    getattr(ticket, way)(module, rewind=False)
    assert torch.equal(module.embedding.weight, before["embedding.weight"])


def test_weights_that_share_a_part_of_their_memory_are_found_whatever_their_order():
    memory = torch.randn(64)
    module = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(4)))
    for layer, start in zip(module, (40, 0, 8, 24), strict=True):
        layer.weight.data = memory[start : start + 16].view(4, 4)
    assert overlapping(module) == {"1.weight": {"2.weight"}, "2.weight": {"1.weight"}}
    assert pc.find_ticket(module, "random", 0.5, prunable=["0", "3"]).masks.keys() == {"0.weight", "3.weight"}


def test_a_kind_of_parameter_of_the_users_own_is_looked_at_too():
    class Own(nn.Parameter):
        pass

    module = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    memory = torch.randn(4, 4)
    for layer in module:
        layer.weight = Own(memory)
    assert overlapping(module) == {"0.weight": {"1.weight"}, "1.weight": {"0.weight"}}


def flat(*sizes):
    """Layers whose weights lie side by side in one storage."""
    memory = torch.zeros(64)
    module = nn.Sequential()
    start = 0
    for inner, outer in sizes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, that empty tensors have no values to initialize
            layer = nn.Linear(inner, outer, bias=False)
        layer.weight.data = memory[start : start + inner * outer].view(outer, inner)
        start += inner * outer
        module.append(layer)
    return module


def freed():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    for parameter in module.parameters():
        parameter.untyped_storage().resize_(0)
    return module


def fake():
    with FakeTensorMode():
        return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))


APART = {
    "side by side": lambda: flat((4, 4), (4, 4), (4, 8)),
    "empty": lambda: flat((4, 4), (0, 4), (4, 0), (4, 4)),
    "freed": freed,
    "fake": fake,
    "recurrent": lambda: nn.LSTM(4, 5, num_layers=2, bidirectional=True),
    "in shared memory": lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).share_memory(),
    "one parameter": lambda: Words("parameter"),
}


@pytest.mark.parametrize("make", APART)
def test_what_lies_in_no_memory_of_others(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert overlapping(APART[make]()) == {}


def test_parameters_within_vmap_have_no_memory_of_their_own():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))

    def total(weight):
        inner = copy.deepcopy(module)
        inner[0].weight = nn.Parameter(weight)
        assert not overlapping(inner)
        return weight.sum()

    weights = x(3, 4, 4)
    torch.testing.assert_close(torch.vmap(total)(weights), weights.sum((1, 2)))


# Plain state dicts


def compiled(layer):
    return torch.compile(layer, backend="eager")


def twice(layer):
    return nn.Sequential(layer, nn.Linear(8, 8), layer)


def beside(layer, wrap):
    return nn.Sequential(wrap(layer), nn.ReLU(), layer)


MODULES = {
    "at two places": lambda: twice(nn.Linear(8, 8)),
    "a block at two places": lambda: twice(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))),
    "a wrapper at two places": lambda: twice(compiled(nn.Linear(8, 8))),
    "parametrized, at two places": lambda: twice(parametrizations.weight_norm(nn.Linear(8, 8))),
    "in a wrapper and beside": lambda: beside(nn.Linear(8, 8), nn.DataParallel),
    "in a compiled one and beside": lambda: beside(nn.Linear(8, 8), compiled),
    "in two wrappers": lambda: nn.Sequential(nn.DataParallel(compiled(nn.Linear(8, 8))), nn.Linear(8, 8)),
    "checkpointed": lambda: nn.Sequential(checkpoint_wrapper(nn.Linear(8, 8)), nn.Linear(8, 8)),
    "checkpointed, at two places": lambda: twice(checkpoint_wrapper(nn.Linear(8, 8))),
    "checkpointed and compiled": lambda: nn.Sequential(compiled(checkpoint_wrapper(nn.Linear(8, 8)))),
    "attention at two places": lambda: nn.ModuleList([nn.MultiheadAttention(8, 2)] * 2),
    "recurrent, at two places": lambda: nn.ModuleList([nn.LSTM(8, 8, num_layers=2)] * 2),
    "tied": lambda: Words("parameter"),
}


@pytest.mark.filterwarnings("ignore::precode.TicketWarning")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", MODULES)
def test_plain_state_dicts_have_the_names_of_the_unpruned_module(make, way):
    module, plain, other = (seeded(MODULES[make], seed) for seed in (0, 0, 1))
    ticket = pc.find_ticket(module, "random", 0.3)
    getattr(ticket, way)(module)
    state = pc.plain_state_dict(module)
    assert state.keys() == plain.state_dict().keys()
    plain.load_state_dict(state, strict=True)
    slots = masked.slots(plain)
    assert all(torch.equal(slots[name].parameter, start) for name, start in ticket.start.items())
    # The other way: what an unpruned module has, with zeros where weights are pruned.
    assert pc.load_plain_state_dict(module, other.state_dict()) is module
    expected = copy.deepcopy(other)
    with torch.no_grad():
        slots = masked.slots(expected)
        for name, mask in ticket.masks.items():
            slots[name].parameter.mul_(mask)
    state = pc.plain_state_dict(module)
    assert state.keys() == expected.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in expected.state_dict().items())


@pytest.mark.parametrize("wrap", [nn.DataParallel, compiled, checkpoint_wrapper])
def test_networks_of_plain_state_dicts_compute_the_same(wrap):
    def make():
        layer = nn.Linear(8, 8)
        return nn.Sequential(wrap(nn.Linear(6, 8)), layer, nn.Tanh(), layer, nn.Linear(8, 3))

    module, plain = seeded(make), seeded(make, 1)
    pc.find_ticket(module, "random", 0.3).apply_(module)
    plain.load_state_dict(pc.plain_state_dict(module))
    torch.testing.assert_close(plain(x(5, 6)), module(x(5, 6)))


@pytest.mark.parametrize("make", ["at two places", "checkpointed"])
def test_plain_state_dicts_that_lack_a_name_are_refused(make):
    module, other = seeded(MODULES[make]), seeded(MODULES[make], 1)
    pc.find_ticket(module, "random", 0.3).apply_(module)
    before = values(module)
    state = other.state_dict()
    name = next(iter(state))
    del state[name]
    with pytest.raises(pc.PrecodeValueError, match=f"it lacks {re.escape(name)}"):
        pc.load_plain_state_dict(module, state)
    assert same(module, before)


# Sparse gradients


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_sparse_embeddings_are_refused_by_name_and_trained_beside(kind, way):
    def make(sparse=True):
        return nn.Sequential(kind(10, 4, sparse=sparse), nn.Flatten(), nn.Linear(12 if kind is nn.Embedding else 4, 3))

    def train(_):
        raise AssertionError("the search began")

    module = seeded(make)
    before = values(module)
    refused = r"'0\.weight' is of an embedding with sparse=True.* make it without sparse"
    with pytest.raises(pc.PrecodeValueError, match=refused):
        pc.find_ticket(module, "imp", 0.5, train=train, prunable=["auto", kind])
    ticket = pc.find_ticket(seeded(lambda: make(False)), "random", 0.5, prunable=["auto", kind])
    with pytest.raises(pc.PrecodeValueError, match=refused):
        getattr(ticket, way)(module)
    assert same(module, before)
    # As long as it has no mask itself, it is trained as torch trains it.
    plain = seeded(make)
    ticket = pc.find_ticket(module, "random", 0.5)
    assert list(ticket.masks) == ["2.weight"]
    getattr(ticket, way)(module)
    optimizers = [torch.optim.SGD(network.parameters(), 0.1) for network in (module, plain)]
    indices = y(10, 30).view(10, 3)
    plain.load_state_dict(ticket.start)
    for _ in range(3):
        for network, optimizer in zip((module, plain), optimizers, strict=True):
            optimizer.zero_grad()
            cross_entropy(network(indices), y(3, 10)).backward()
            assert network[0].weight.grad.is_sparse
            optimizer.step()
        with torch.no_grad():
            plain[2].weight.mul_(ticket.masks["2.weight"])
    torch.testing.assert_close(module[0].weight, plain[0].weight)
    torch.testing.assert_close(pc.plain_state_dict(module)["2.weight"], plain[2].weight)


# Averages of weights


def normalized():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


AVERAGES = {
    "weights alone": {},
    "buffers too, of each": {"use_buffers": True, "avg_fn": get_ema_avg_fn(0.9)},
    "buffers too, of all": {"use_buffers": True, "multi_avg_fn": get_ema_multi_avg_fn(0.9)},
}


@pytest.mark.parametrize("average", AVERAGES)
def test_averages_of_masked_modules_are_those_of_plain_ones(average):
    module, plain = seeded(normalized), seeded(normalized)
    ticket = pc.find_ticket(module, "random", 0.3)
    ticket.apply_(module)
    plain.load_state_dict(pc.plain_state_dict(module))
    networks = [(each, AveragedModel(each, **AVERAGES[average])) for each in (module, plain)]
    optimizers = [torch.optim.SGD(each.parameters(), 0.1) for each, _ in networks]
    for _ in range(4):
        for (network, averaged), optimizer in zip(networks, optimizers, strict=True):
            optimizer.zero_grad()
            cross_entropy(network(x(12, 6)), y(3, 12)).backward()
            optimizer.step()
            with torch.no_grad():
                for name, mask in ticket.masks.items():
                    if network is plain:
                        network.get_parameter(name).mul_(mask)
            averaged.update_parameters(network)
    for _, averaged in networks:
        if not AVERAGES[average]:
            update_bn([(x(12, 6),)], averaged)
    ours, theirs = (averaged.eval() for _, averaged in networks)
    torch.testing.assert_close(ours(x(12, 6)), theirs(x(12, 6)))
    state = pc.plain_state_dict(ours)
    assert sum(int((state[name] != 0).sum()) for name in ticket.masks) == ticket.kept
    masks = pc.Ticket.from_parametrized(ours).masks
    assert all(torch.equal(masks[name], mask) for name, mask in ticket.masks.items())
