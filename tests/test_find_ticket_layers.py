"""Tickets of any module: layers of every kind, and what makes a score say nothing of them."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

import module_reference as reference
import precode as pc

pytestmark = pytest.mark.usefixtures("one_thread")

METHODS = ("snip", "grasp", "synflow", "edge-popup", "imp", "wanda", "obs", "obs-loss")


def seeded(make, *arguments):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make(*arguments)


def mlp(*last, hidden=8, **kind):
    return seeded(lambda: nn.Sequential(nn.Linear(6, hidden, **kind), nn.ReLU(), nn.Linear(hidden, 3, **kind), *last))


def data(samples=32, *shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(samples, *(shape or (6,)), generator=generator), torch.randint(
        3, (samples,), generator=generator
    )


class Checkpointed(nn.Module):
    """A module that computes its hidden layers again in the backward pass, or does not."""

    def __init__(self, reentrant):
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.reentrant = reentrant

    def hidden(self, x):
        return torch.relu(self.norm(self.first(x)))

    def forward(self, x):
        if self.reentrant is None:
            return self.second(self.hidden(x))
        x = x.clone().requires_grad_() if self.reentrant and torch.is_grad_enabled() else x
        return self.second(checkpoint(self.hidden, x, use_reentrant=self.reentrant))


@pytest.mark.filterwarnings("ignore:nothing is kept of:precode.TicketWarning")
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True:UserWarning")
@pytest.mark.parametrize("method", METHODS)
def test_activation_checkpointing_changes_no_ticket(method):
    plain, fresh, again = (seeded(Checkpointed, way) for way in (None, False, True))
    expected = pc.find_ticket(plain, method, 0.3, data(), cross_entropy, epochs=4)
    got = pc.find_ticket(fresh, method, 0.3, data(), cross_entropy, epochs=4)
    assert all(torch.equal(mask, expected.masks[name]) for name, mask in got.masks.items())
    if method in ("grasp", "obs-loss"):
        with pytest.raises(pc.UnsupportedError, match=r"use_reentrant=False"):
            pc.find_ticket(again, method, 0.3, data(), cross_entropy, epochs=4)
    else:
        got = pc.find_ticket(again, method, 0.3, data(), cross_entropy, epochs=4)
        assert all(torch.equal(mask, expected.masks[name]) for name, mask in got.masks.items())


class Square(torch.autograd.Function):
    """x squared, without a second derivative."""

    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context, gradient):
        return 2 * context.saved_tensors[0] * gradient


class Detached(torch.autograd.Function):
    """x squared, whose derivative autograd takes for a constant."""

    @staticmethod
    def forward(context, x):
        context.x = x.detach().numpy()
        return x * x

    @staticmethod
    def backward(context, gradient):
        return torch.from_numpy(2 * context.x * gradient.detach().numpy())


class Recorded(torch.autograd.Function):
    """x squared, as autograd would have it."""

    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(context, gradient):
        return 2 * context.saved_tensors[0] * gradient


class Layered(nn.Module):
    def __init__(self, middle):
        super().__init__()
        self.first, self.second, self.middle = nn.Linear(6, 8), nn.Linear(8, 3), middle

    def forward(self, x):
        return self.second(self.middle(self.first(x)))


class Reused(nn.Module):
    """Weights in several places, as they are and transposed."""

    def __init__(self):
        super().__init__()
        self.first, self.conv, self.last = nn.Linear(6, 6), nn.Conv1d(1, 1, 3, padding=1), nn.Linear(6, 3)
        self.mixed = nn.Parameter(torch.randn(6, 6) / 3)

    def forward(self, x):
        x = torch.tanh(self.first(torch.tanh(self.first(x)))) @ self.first.weight
        x = torch.tanh(self.conv(x[:, None]) + self.conv(x.square()[:, None]))[:, 0]
        x = torch.einsum("bi,oi->bo", x, self.mixed) * (x @ self.mixed.T.contiguous())
        return self.last(x * self.last.weight.square().sum(0))


def test_grasp_of_weights_that_are_used_in_several_ways():
    module = seeded(Reused).double()
    x, y = data(40)
    batches = [(x[:10].double(), y[:10]), (x[10:].double(), y[10:])]
    names = ["conv.weight", "last.weight", "mixed", "first.weight"]
    pairs = [({"x": x}, y) for x, y in batches]
    scores = reference.grasp(module, names, pairs, lambda out, y, _: cross_entropy(out, y), 200)
    flat = torch.cat([scores[name].flatten() for name in names])
    for density in (0.2, 0.5):
        ticket = pc.find_ticket(module, "grasp", density, batches, cross_entropy, prunable=names)
        least = flat.topk(ticket.kept).values[-1]
        assert all(torch.equal(ticket.masks[name], scores[name] >= least) for name in names)


def attend(x):
    """Attention of four positions of two features, by whatever kernel torch takes."""
    x = x.reshape(len(x), 1, 4, 2)
    return scaled_dot_product_attention(x, x, x).flatten(1)


def attend_by_hand(x):
    x = x.reshape(len(x), 1, 4, 2)
    return (torch.softmax(x @ x.mT / 2**0.5, -1) @ x).flatten(1)


def test_second_derivatives_of_fused_kernels_and_of_layers_without():
    fused, by_hand = seeded(Layered, attend), seeded(Layered, attend_by_hand)
    tickets = [pc.find_ticket(module, "grasp", 0.3, data(), cross_entropy) for module in (fused, by_hand)]
    assert all(float((tickets[0].masks[n] == m).double().mean()) > 0.99 for n, m in tickets[1].masks.items())
    with pytest.raises(pc.UnsupportedError, match=r"second derivatives, .* \(trying to differentiate twice"):
        pc.find_ticket(seeded(Layered, Square.apply), "grasp", 0.3, data(), cross_entropy)
    with pytest.raises(pc.UnsupportedError, match="not the change of its first derivatives"):
        pc.find_ticket(seeded(Layered, Detached.apply), "grasp", 0.3, data(), cross_entropy)
    ours = pc.find_ticket(seeded(Layered, Recorded.apply), "grasp", 0.3, data(), cross_entropy)
    assert ours == pc.find_ticket(seeded(Layered, torch.square), "grasp", 0.3, data(), cross_entropy)

    def ctc(output, y):
        logits = output.log_softmax(-1)[:, None].expand(-1, 2, -1)
        return nn.functional.ctc_loss(logits, torch.ones(2, 4, dtype=torch.long), [32, 32], [4, 4])

    with pytest.raises(pc.UnsupportedError, match="second derivatives"):
        pc.find_ticket(mlp(), "grasp", 0.3, data(), ctc)
    # The same scores at another temperature of a loss that is linear in the outputs.
    cold = pc.find_ticket(mlp(), "grasp", 0.3, data(), cross_entropy, temperature=1)
    assert cold.settings == {"temperature": 1}
    warm = pc.find_ticket(mlp(), "grasp", 0.3, data(), lambda out, y: cross_entropy(out * 200, y))
    assert all(float((cold.masks[n] == m).double().mean()) > 0.99 for n, m in warm.masks.items())


def test_scores_that_say_nothing_are_refused_or_said():
    dead, zero = mlp(), mlp()
    nn.init.constant_(dead[0].bias, -100)
    nn.init.zeros_(zero[2].weight)
    alike = seeded(nn.Linear, 6, 3)
    nn.init.constant_(alike.weight, 0.5)
    for module, method in [(dead, "snip"), (zero, "snip"), (alike, "magnitude-init")]:
        with pytest.raises(pc.PrecodeValueError, match="do not tell the weights apart"):
            pc.find_ticket(module, method, 0.3, data(), cross_entropy)
    with pytest.raises(pc.PrecodeValueError, match="do not tell the weights apart"):
        pc.find_ticket(dead, "snip", 0.3, data(), cross_entropy, granularity="row")
    for last in (nn.Softmax(-1), nn.LayerNorm(3)):
        with pytest.raises(pc.PrecodeValueError, match="behind a softmax or a normalization"):
            pc.find_ticket(mlp(last), "synflow", 0.3)

    class Adapted(nn.Module):
        """A linear layer with a low-rank addition that is zero at the start."""

        def __init__(self):
            super().__init__()
            self.base, self.down, self.up = nn.Linear(6, 8), nn.Linear(6, 2, bias=False), nn.Linear(2, 8, bias=False)
            self.head = nn.Linear(8, 3)
            nn.init.zeros_(self.up.weight)

        def forward(self, x):
            return self.head(torch.relu(self.base(x) + self.up(self.down(x))))

    with pytest.warns(pc.TicketWarning) as said:
        ticket = pc.find_ticket(seeded(Adapted), "snip", 0.3, data(), cross_entropy)
    messages = [str(each.message) for each in said]
    assert any("every score of 'down.weight', 'up.weight' is zero" in message for message in messages)
    assert any("nothing is kept of 'down.weight', 'up.weight'" in message for message in messages)
    assert ticket.config["warnings"] == messages
    # Half precision loses the small gradients.
    (x, y), half = data(), mlp().half()
    with pytest.warns(pc.TicketWarning, match="kept for their place alone"):
        pc.find_ticket(half, "snip", 0.9, (x.half() / 300, y), lambda out, y: cross_entropy(out.float(), y) / 300)


class Everything(nn.Module):
    """Weights of every kind of layer, one shared, one frozen, one parametrized."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.transposed = nn.ConvTranspose1d(4, 4, 3, groups=2, padding=1)
        self.lstm = nn.LSTM(4, 4, batch_first=True)
        self.cell = nn.GRUCell(4, 4)
        self.normed = parametrizations.weight_norm(nn.Linear(4, 4))
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.head = nn.Linear(4, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        x = self.embedding(tokens)
        x = self.attention(x, x, x)[0]
        x = self.transposed(x.mT).mT
        x = self.lstm(x)[0]
        return self.head(self.frozen(self.normed(self.cell(x.flatten(0, 1), x.flatten(0, 1))))).unflatten(
            0, tokens.shape
        )


PRUNED = [
    *("attention.in_proj_weight", "attention.out_proj.weight", "transposed.weight"),
    *("lstm.weight_ih_l0", "lstm.weight_hh_l0", "cell.weight_ih", "cell.weight_hh"),
]


def token_loss(output, labels):
    return cross_entropy(output.flatten(0, 1), labels.flatten())


def test_what_is_pruned_and_what_is_left_out():
    module = seeded(Everything)
    tokens = torch.randint(11, (5, 7), generator=torch.Generator().manual_seed(0))
    with pytest.warns(pc.TicketWarning) as said:
        ticket = pc.find_ticket(module, "snip", 0.5, (tokens, tokens), token_loss)
    assert set(ticket.masks) == set(PRUNED)
    assert [str(each.message) for each in said] == [
        "'normed.weight' is left out of pruning, computed from other parameters (is it parametrized?)",
        "'frozen.weight' is left out of pruning, frozen",
        "'head.weight' is left out of pruning, shared with embedding.weight",
    ]
    weights = sum(p.numel() for p in module.parameters() if p.ndim > 1)
    assert ticket.config["share"] == pytest.approx(ticket.total / weights)
    # Against torch, where no weights are hidden in lists and views.
    network = copy.deepcopy(module)
    token_loss(network(tokens), tokens).backward()
    scores = {name: (network.get_parameter(name) * network.get_parameter(name).grad).abs().detach() for name in PRUNED}
    least = torch.cat([score.flatten() for score in scores.values()]).sort(descending=True).values[ticket.kept - 1]
    for name, score in scores.items():
        assert torch.equal(ticket.masks[name], score >= least), name
    trained = ticket.apply_(copy.deepcopy(module))
    token_loss(trained(tokens), tokens).backward()
    assert all(parameter.grad is not None for name, parameter in trained.named_parameters() if "frozen" not in name)

    def pruned(**which):
        return list(pc.find_ticket(module, "random", 0.5, **which).masks)

    # What is named is not warned of.
    assert set(pruned(exclude=["lstm.*", "normed.weight", "frozen", "head"])) == set(PRUNED) - set(PRUNED[3:5])
    with pytest.raises(pc.PrecodeValueError, match=r"'head.bias' is not a plain parameter .* or several with"):
        pruned(exclude=["normed", "head.bias"])
    assert pruned(prunable="lstm") == ["lstm.weight_ih_l0", "lstm.weight_hh_l0"]
    assert pruned(prunable=["cell.weight_*", nn.ConvTranspose1d]) == [
        "transposed.weight",
        "cell.weight_ih",
        "cell.weight_hh",
    ]
    with pytest.raises(pc.PrecodeValueError, match=r"'embedding\.weight' is shared with head\.weight"):
        pruned(prunable=nn.Embedding)
    with pytest.raises(pc.PrecodeValueError, match="exclude leaves nothing"):
        pruned(prunable="lstm", exclude="*")
    with pytest.raises(pc.PrecodeTypeError, match="names or kinds of layers, not int"):
        pruned(prunable=[3])
    tied = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    tied["b"].weight = tied["a"].weight
    with pytest.raises(pc.PrecodeValueError, match=r"nothing to prune: .*'a\.weight' is shared with b\.weight"):
        pc.find_ticket(tied, "random", 0.5)


class Conv1D(nn.Module):
    """The linear layer of transformers' GPT-2, with inputs first."""

    __module__ = "transformers.pytorch_utils"

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(inputs, outputs) / 3), nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        return nn.functional.linear(x, self.weight.T, self.bias)


@pytest.mark.filterwarnings("ignore:nothing is kept of:precode.TicketWarning")
@pytest.mark.parametrize("method", ["snip", "grasp", "synflow", "imp", "wanda", "obs", "sparsegpt", "snip:shuffle-row"])
@pytest.mark.parametrize("granularity", ["weight", "row"])
def test_a_layer_with_inputs_first_is_the_linear_layer(method, granularity):
    swapped = seeded(lambda: nn.Sequential(Conv1D(6, 8), nn.ReLU(), Conv1D(8, 3)))
    linear = mlp()
    for ours, theirs in zip(linear[::2], swapped[::2], strict=True):
        with torch.no_grad():
            ours.weight.copy_(theirs.weight.T)
            ours.bias.copy_(theirs.bias)
    if granularity == "row" and method != "snip":
        return
    tickets = [
        pc.find_ticket(module, method, 0.4, data(), cross_entropy, epochs=2, granularity=granularity)
        for module in (linear, swapped)
    ]
    for name, mask in tickets[0].masks.items():
        assert torch.equal(tickets[1].masks[name], mask.T)
        torch.testing.assert_close(tickets[1].start[name], tickets[0].start[name].T)


@pytest.mark.filterwarnings("ignore:nothing is kept of:precode.TicketWarning")
@pytest.mark.parametrize("method", ["snip", "imp-rewind", "imp-lr-rewind", lambda name, weight, gradient: weight.abs()])
def test_layers_with_inputs_first_that_are_not_pruned_start_as_they_are(method):
    module = seeded(lambda: nn.Sequential(Conv1D(6, 6), nn.ReLU(), Conv1D(6, 6), nn.ConvTranspose1d(6, 6, 1)))
    x, y = seeded(torch.randn, 2, 8, 6, 6)
    ticket = pc.find_ticket(module, method, 0.5, (x, y), nn.functional.mse_loss, epochs=3, exclude=["2", "3"])
    assert list(ticket.masks) == ["0.weight"]
    if method in ("imp-rewind", "imp-lr-rewind"):
        # By hand: the plain loop, for one epoch or all.
        network = copy.deepcopy(module)
        optimizer = torch.optim.Adam(network.parameters(), 1e-3, fused=True)
        optimizer.zero_grad()
        nn.functional.mse_loss(network(x), y).backward()
        optimizer.step()
        if method == "imp-rewind":
            for name in ("2.weight", "3.weight"):
                assert torch.equal(ticket.start[name], network.get_parameter(name))
        else:
            for name in ("2.weight", "3.weight"):
                torch.testing.assert_close(ticket.start[name], module.get_parameter(name).detach(), atol=0.03, rtol=0)
    else:
        for name in ("2.weight", "3.weight"):
            assert torch.equal(ticket.start[name], module.get_parameter(name))


def test_what_synaptic_flow_has_no_sample_for_is_refused_by_name():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.late, self.early = nn.Linear(8, 3), nn.Linear(6, 8)

        def forward(self, x):
            return self.late(torch.relu(self.early(x)))

    module = seeded(Wide)
    with pytest.raises(pc.PrecodeValueError, match=r"does not take a sample of 8 ones, .*: pass data="):
        pc.find_ticket(module, "synflow", 0.3)
    assert pc.find_ticket(module, "synflow", 0.3, data()).kept == round(0.3 * 72)
    plain = seeded(lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, track_running_stats=False)))
    with pytest.raises(pc.UnsupportedError, match=r"one sample, .*track_running_stats=False.*'snip'"):
        pc.find_ticket(plain, "synflow", 0.3, data())


@pytest.mark.parametrize("method", ["magnitude-init", "synflow", "snip"])
def test_a_density_that_keeps_nothing_of_a_layer_names_it(method):
    module = seeded(lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1)))
    with pytest.raises(pc.PrecodeValueError, match=r"0.05 keeps none of the 8 weights of '2.weight'.*above 0.0625"):
        pc.find_ticket(module, method, 0.05, data(), cross_entropy, scope="per-layer")
    with pytest.raises(pc.PrecodeValueError, match=r"0.001 keeps none of the 56 weights of the module"):
        pc.find_ticket(module, method, 0.001, data(), cross_entropy)


def test_sparse_gradients_are_refused_by_name_where_the_default_optimizer_takes_none():
    module = nn.Sequential(nn.Embedding(10, 4, sparse=True), nn.Flatten(), nn.Linear(12, 3))
    data = torch.randint(10, (32, 3)), torch.randint(3, (32,))
    with pytest.raises(pc.UnsupportedError, match=r"'0' has sparse gradients.*SGD"):
        pc.find_ticket(module, "magnitude", 0.5, data, cross_entropy, epochs=1)
    sgd = partial(torch.optim.SGD, lr=0.1)
    assert pc.find_ticket(module, "magnitude", 0.5, data, cross_entropy, epochs=1, optimizer=sgd).kept == 18


def test_frozen_sparse_layers_and_others_that_are_called_sparse_are_trained_beside():
    class Own(nn.Linear):
        sparse = True

    data = torch.randint(10, (32, 3)), torch.randint(3, (32,))
    frozen = nn.Embedding.from_pretrained(torch.randn(10, 4), sparse=True)
    assert (
        pc.find_ticket(
            nn.Sequential(frozen, nn.Flatten(), Own(12, 3)), "magnitude", 0.5, data, cross_entropy, epochs=1
        ).kept
        == 18
    )
    bag = nn.Sequential(nn.EmbeddingBag(10, 4, sparse=True), nn.Linear(4, 3))
    with pytest.raises(pc.UnsupportedError, match="'0' has sparse gradients"):
        pc.find_ticket(bag, "magnitude", 0.5, data, cross_entropy, epochs=1)


class Ordered(nn.Module):
    """A module that takes its weights in the order of its parameters, or finds them by their names."""

    def __init__(self, way):
        super().__init__()
        self.w1, self.w2 = nn.Parameter(torch.randn(6, 6) / 2), nn.Parameter(torch.randn(6, 6) / 2)
        self.layer, self.way = nn.Linear(6, 3), way

    def forward(self, x):
        for weight in self.way(self):
            x = torch.tanh(x @ weight)
        return self.layer(x)


@pytest.mark.parametrize(
    ("way", "prunable"),
    [
        (lambda self: list(self.parameters())[:2], ["w1"]),
        (lambda self: [self.get_parameter("w1"), self.w2], ["w1"]),
        (lambda self: [dict(self.named_parameters())["w1"], self.w2], ["w1"]),
        (lambda self: [self._parameters["w1"], self.w2], ["w1"]),
    ],
)
@pytest.mark.parametrize("method", ["imp", "obs-rounds"])
def test_a_forward_that_finds_weights_by_place_or_path_is_searched(way, prunable, method):
    module, plain = seeded(Ordered, way), seeded(Ordered, lambda self: [self.w1, self.w2])
    if method == "imp":
        options = {"data": data(), "loss": cross_entropy, "prunable": prunable, "epochs": 5}
        with pytest.warns(pc.TicketWarning, match="once its masks are put on by apply_, the module computes something"):
            ticket = pc.find_ticket(module, method, 0.3, **options)
        expected = pc.find_ticket(plain, method, 0.3, **options)
        assert torch.equal(ticket.masks[prunable[0]], expected.masks[prunable[0]])
    else:
        with pytest.raises(pc.UnsupportedError):  # no layer that it could watch
            pc.find_ticket(module, method, 0.3, data(), cross_entropy, prunable=prunable, epochs=2)
    assert pc.find_ticket(module, "snip", 0.5, data(), cross_entropy, prunable=prunable).kept == 18


def test_a_layer_that_the_first_call_makes_must_be_there_before():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(6, 8), None

        def forward(self, x):
            x = self.first(x).relu()
            if self.second is None:
                self.second = nn.Linear(8, 3)
            return self.second(x)

    module = seeded(Late)
    for method in ("snip", "imp", "wanda"):
        with pytest.raises(pc.PrecodeValueError, match=r"or trained \(second\.bias, second\.weight\)"):
            pc.find_ticket(module, method, 0.3, data(), cross_entropy, epochs=2)
    assert module.second is None


def test_buffers_that_the_search_changes_in_the_module_itself_are_put_back():
    def with_norm(**options):
        return seeded(lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, **options), nn.ReLU(), nn.Linear(8, 3)))

    x, y = data()
    module = with_norm(affine=False)
    module[2].forward = lambda x, norm=module[1]: norm(x).relu()
    teacher = with_norm()

    def distilled(output, y):
        with torch.no_grad():
            targets = teacher(x).softmax(1)
        return cross_entropy(output, targets)

    def counting(output, y):
        teacher[1].running_mean.add_(1)
        return cross_entropy(output, y)

    before = copy.deepcopy(module.state_dict())
    pc.find_ticket(module, "snip", 0.4, (x, y), cross_entropy)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    before = copy.deepcopy(teacher.state_dict())
    with pytest.raises(pc.PrecodeValueError, match="is called during the search"):
        pc.find_ticket(teacher, "snip", 0.4, (x, y), distilled)
    pc.find_ticket(teacher, "snip", 0.4, (x, y), counting)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_weights_are_computed_anew_within_a_cache_of_parametrizations():
    with parametrize.cached():
        within = pc.find_ticket(mlp(), "imp", 0.3, data(), cross_entropy, epochs=2)
    assert within == pc.find_ticket(mlp(), "imp", 0.3, data(), cross_entropy, epochs=2)


def test_a_search_within_a_transform_is_refused():
    def inside(x):
        pc.find_ticket(mlp(), "snip", 0.3, data(), cross_entropy)
        return x.sum()

    with pytest.raises(pc.UnsupportedError, match=r"within a transform of torch\.func"):
        torch.func.grad(inside)(torch.ones(2))


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning")
def test_buffers_of_every_kind_are_as_before():
    class Buffered(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)
            self.register_buffer("quantized", torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8))
            self.register_buffer("turns", torch.polar(torch.ones(3), torch.arange(3.0)))
            self.register_buffer("sparse", torch.eye(3).to_sparse())

        def forward(self, x):
            return self.layer(x) * self.quantized.dequantize() * self.turns.real

    module = seeded(Buffered)
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    assert pc.find_ticket(module, "snip", 0.5, data(), cross_entropy).kept == 9
    for name in ("quantized", "turns"):
        assert torch.equal(module.get_buffer(name), before[name])
    assert torch.equal(module.sparse.to_dense(), before["sparse"].to_dense())
