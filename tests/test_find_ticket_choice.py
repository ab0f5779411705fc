"""Tickets of any module: what is kept of the scores, methods of one's own, several densities at once."""

import copy
import re
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrizations

import precode as pc

pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def convolutional():
    """A network of a convolution, a grouped one, a transposed one, and linear layers."""
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(2, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, groups=2),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 4, 2, groups=2),
            nn.Flatten(),
            nn.Linear(100, 16),
            nn.ReLU(),
            nn.Linear(16, 4),
        )
    )


def data():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(12, 2, 6, 6, generator=generator), torch.randint(4, (12,), generator=generator)


def units_of(name, shape, granularity):
    """For each weight, the number of its row or column, written out entry by entry."""
    groups = 2 if name in ("2.weight", "4.weight") else 1
    numbers = np.empty(shape, dtype=int)
    for index in np.ndindex(*shape):
        if name == "4.weight":  # (inputs, outputs of a group, window)
            group = index[0] // (shape[0] // groups)
            numbers[index] = index[0] if granularity == "column" else group * shape[1] + index[1]
        elif granularity == "row":
            numbers[index] = index[0]
        else:
            numbers[index] = index[0] // (shape[0] // groups) * shape[1] + index[1]
    return numbers


@pytest.mark.parametrize("granularity", ["row", "column"])
@pytest.mark.parametrize("density", [0.05, 0.3, 0.5])
def test_rows_and_columns_are_of_outputs_and_inputs_and_densities_of_weights(granularity, density):
    module, (x, y) = convolutional(), data()
    network = copy.deepcopy(module)
    cross_entropy(network(x), y).backward()
    names = ["0.weight", "2.weight", "4.weight", "6.weight"] + ["8.weight"] * (granularity == "column")
    units = []
    for name in names:
        weight = network.get_parameter(name)
        scores = (weight * weight.grad).detach().abs().double().numpy()
        numbers = units_of(name, weight.shape, granularity)
        for unit in range(numbers.max() + 1):
            units.append((-scores[numbers == unit].mean(), name, numbers == unit))
    units.sort(key=lambda unit: unit[0])
    total = sum(network.get_parameter(name).numel() for name in names)
    counts = np.cumsum([unit[2].sum() for unit in units])
    masks = {name: np.zeros(network.get_parameter(name).shape, dtype=bool) for name in names}
    for _, name, members in units[: np.argmin(abs(counts - round(density * total))) + 1]:
        masks[name] |= members
    said = [name for name, mask in masks.items() if not mask.any()]
    find = lambda: pc.find_ticket(module, "snip", density, (x, y), cross_entropy, granularity=granularity)  # noqa: E731
    if said:
        with pytest.warns(pc.TicketWarning, match="nothing is kept of"):
            ticket = find()
    else:
        ticket = find()
    assert list(ticket.masks) == names
    for name, mask in masks.items():
        assert torch.equal(ticket.masks[name], torch.from_numpy(mask)), name
    assert abs(ticket.kept / ticket.total - density) < 0.05
    if granularity == "row":
        assert ticket.config["left_out"] == {"8.weight": "its rows are the outputs of the module"}
        asked = pc.find_ticket(
            module, "snip", 0.5, (x, y), cross_entropy, granularity="row", prunable=["6.weight", "8.weight"]
        )
        assert "8.weight" in asked.masks


def test_the_last_layer_is_the_one_that_is_called_last():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.body = nn.Linear(5, 4), nn.Linear(6, 5)

        def forward(self, x):
            return self.head(torch.relu(self.body(x)))

    x, y = torch.randn(8, 6), torch.arange(8) % 4
    ticket = pc.find_ticket(seeded(Backwards), "snip", 0.6, (x, y), cross_entropy, granularity="row")
    assert ticket.masks.keys() == {"body.weight"}


def test_densities_of_layers():
    module, batch = convolutional(), data()
    weights = {name: p.detach() for name, p in module.named_parameters() if p.ndim > 1}
    wanted = dict(zip(weights, (1.0, 0.5, 0.25, 0.1, 0.75), strict=True))
    ticket = pc.find_ticket(module, "magnitude-init", wanted)
    for name, weight in weights.items():
        kept = round(wanted[name] * weight.numel())
        least = weight.abs().flatten().sort(descending=True).values[kept - 1]
        assert torch.equal(ticket.masks[name], weight.abs() >= least)
    assert ticket.config["densities"] == wanted
    assert ticket.kept == round(ticket.density * ticket.total)
    erk = pc.find_ticket(module, "snip", 0.2, batch, cross_entropy, scope="erk")
    assert abs(erk.kept - 0.2 * erk.total) <= len(weights)
    # Proportional to the sum of a layer's sizes over their product, where not dense.
    ratio = {}
    for name, weight in weights.items():
        sizes = [*weight.shape]
        if name == "4.weight":
            sizes = [4, 4, 2, 2]  # outputs, inputs of a group, window
        density = float(erk.masks[name].float().mean())
        if density < 1:
            ratio[name] = density / (sum(sizes) / weight.numel())
    assert len(ratio) > 1
    assert max(ratio.values()) == pytest.approx(min(ratio.values()), rel=0.05)
    with pytest.raises(pc.PrecodeValueError, match=r"must name each prunable parameter .*: 2\.weight"):
        pc.find_ticket(module, "random", {name: 0.5 for name in weights if name != "2.weight"})
    with pytest.raises(pc.UnsupportedError, match="method 'imp' keeps single weights at one density"):
        pc.find_ticket(module, "imp", 0.5, batch, cross_entropy, scope="erk")


def test_patterns_are_those_of_torch():
    pruning = pytest.importorskip("torch.ao.pruning")
    module = seeded(lambda: nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 8)))
    ticket = pc.find_ticket(module, "magnitude-init", 0.5, granularity="2:4")
    reference = copy.deepcopy(module)
    sparsifier = pruning.WeightNormSparsifier(sparsity_level=1.0, sparse_block_shape=(1, 4), zeros_per_block=2)
    sparsifier.prepare(reference, [{"tensor_fqn": "0.weight"}, {"tensor_fqn": "2.weight"}])
    sparsifier.step()
    for name in ("0.weight", "2.weight"):
        assert torch.equal(ticket.masks[name], reference[int(name[0])].weight != 0)
    assert (ticket.config["pattern"], ticket.density, ticket.granularity) == ("2:4", 0.5, "weight")
    filters = seeded(lambda: nn.Conv2d(8, 3, 3))
    ticket = pc.find_ticket(filters, "magnitude-init", 0.25, granularity="1:4")
    # Along the inputs, at every place of the window.
    groups = filters.weight.detach().abs().reshape(3, 2, 4, 3, 3)
    assert torch.equal(ticket.masks["weight"].reshape(3, 2, 4, 3, 3), groups == groups.amax(2, keepdim=True))
    for arguments, message in [
        ((0.3, "2:4"), "keeps 0.5 of the weights, not 0.3: pass density=0.5"),
        ((1.0, "4:4"), "0 < N < M"),
        ((0.5, "4:8:2"), "granularity '4:8:2' is unknown"),
        ((0.5, "8:16"), "'weight' has 8 inputs, which are not in groups of 16: leave it out, as by exclude='weight'"),
    ]:
        with pytest.raises(pc.PrecodeValueError, match=message):
            pc.find_ticket(filters, "random", arguments[0], granularity=arguments[1])


def test_methods_of_ones_own():
    module, batch = convolutional(), data()
    seen = {}

    def taylor(name, weight, gradient):
        seen[name] = weight.shape
        return (weight * gradient) ** 2

    snip = pc.find_ticket(module, "snip", 0.3, batch, cross_entropy)
    own = pc.find_ticket(module, taylor, 0.3, batch, cross_entropy)
    assert own.method == "taylor"
    assert seen == {name: module.get_parameter(name).shape for name in snip.masks}
    assert all(torch.equal(own.masks[name], mask) for name, mask in snip.masks.items())
    assert own.cost == {"gradients": 1.0, "epochs": 0.0}
    pc.register_method("fisher-diagonal", taylor)
    named = pc.find_ticket(module, "fisher-diagonal:invert", 0.3, batch, cross_entropy)
    rest = pc.find_ticket(module, "snip", 0.7, batch, cross_entropy)
    assert all(torch.equal(named.masks[name], ~mask) for name, mask in rest.masks.items())
    assert pc.find_ticket(module, lambda name, weight, gradient: weight.abs(), 0.3).cost["gradients"] == 0
    for method, error, message in [
        (lambda name, w, g: w[0], pc.PrecodeShapeError, "'<lambda>' returned scores of shape .* for '0.weight'"),
        (lambda name, w, g: 1.0, pc.PrecodeTypeError, "must return a dense tensor of real numbers, not float"),
        (lambda name, w, g: w / 0, pc.PrecodeValueError, "scores of '0.weight' are not finite"),
        (lambda name, w, g: torch.ones_like(w), pc.PrecodeValueError, "do not tell the weights apart"),
        ("fisher-diagonal:shuffle-row", pc.PrecodeValueError, "control 'shuffle-row' is not for methods of your own"),
        (3, pc.PrecodeTypeError, "method must be a name or a function, not int"),
    ]:
        with pytest.raises(error, match=message):
            pc.find_ticket(module, method, 0.3, batch, cross_entropy)
    for name in ("snip", "a:b", ""):
        with pytest.raises(pc.PrecodeValueError, match="cannot be registered"):
            pc.register_method(name, taylor)


@pytest.mark.filterwarnings("ignore:nothing is kept of:precode.TicketWarning")
def test_several_densities_cost_one_search():
    module = seeded(lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)))
    x, y = torch.randn(20, 6), torch.arange(20) % 3
    trained = []

    def fit(network):
        trained.append(1)
        optimizer = torch.optim.SGD(network.parameters(), 0.1)
        optimizer.zero_grad()
        cross_entropy(network(x), y).backward()
        optimizer.step()

    densities = [0.64, 0.8, 0.3, 0.5, 0.41]
    tickets = pc.find_ticket(module, "imp", densities=densities, train=fit)
    levels = len(trained)
    # The dense run and the levels 0.8, 0.64, ... above the smallest density.
    assert levels == 1 + sum(0.8**t > 0.3 * (1 + 1e-9) for t in range(1, 20))
    for density, ticket in zip(densities, tickets, strict=True):
        assert ticket == pc.find_ticket(module, "imp", density, train=fit)
    gradients = []
    snip = pc.find_ticket(
        module,
        "snip",
        densities=densities,
        data=(x, y),
        loss=lambda out, y: gradients.append(1) or cross_entropy(out, y),
    )
    assert len(gradients) == 1
    assert [ticket.kept for ticket in snip] == [round(density * 72) for density in densities]


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=3),
    st.floats(0.05, 1),
    st.sampled_from(["weight", "row", "column"]),
    st.sampled_from(["global", "per-layer"]),
    st.integers(0, 9),
)
def test_the_choice_is_that_of_a_sort(shapes, density, granularity, scope, seed):
    from precode.modules import selection

    generator = torch.Generator().manual_seed(seed)
    # Few different scores, so that ties are common.
    scores = {str(i): torch.randint(3, shape, generator=generator).double() for i, shape in enumerate(shapes)}
    sizes = {name: score.numel() for name, score in scores.items()}
    parts = [list(scores)] if scope == "global" else [[name] for name in scores]
    wanted = selection.Wanted(density, granularity, scope)
    if any(round(density * sum(sizes[name] for name in part)) == 0 for part in parts):
        with pytest.raises(pc.PrecodeValueError, match="keeps none of the"):
            selection.choose(scores, {}, wanted)
        return
    masks = selection.choose(scores, {}, wanted)
    for part in parts:
        units = []
        for name in part:
            axis = {"row": (1, 2), "column": (0, 2)}.get(granularity)
            means = scores[name].flatten() if axis is None else scores[name].mean(axis)
            size = sizes[name] // len(means)
            units += [(-float(mean), name, i, size) for i, mean in enumerate(means)]
        order = sorted(range(len(units)), key=lambda i: units[i][0])
        counts = np.cumsum([units[i][3] for i in order])
        target = density * sum(sizes[name] for name in part)
        best = order[: np.argmin(abs(counts - (round(target) if granularity == "weight" else target))) + 1]
        for name in part:
            expected = torch.zeros(scores[name].shape, dtype=torch.bool)
            for i in best:
                if units[i][1] == name:
                    if granularity == "weight":
                        expected.view(-1)[units[i][2]] = True
                    else:
                        expected.select(0 if granularity == "row" else 1, units[i][2]).fill_(True)
            assert torch.equal(masks[name], expected)


def test_tickets_of_every_choice_come_back_from_files(tmp_path):
    module, batch = convolutional(), data()
    weights = [name for name, parameter in module.named_parameters() if parameter.ndim > 1]
    choices = [
        {"scope": "erk"},
        {"density": dict.fromkeys(weights, 0.5)},
        {"granularity": "1:2", "density": 0.5, "exclude": ["0", "4.weight"]},
        {"granularity": "column", "method": lambda name, weight, gradient: weight.abs()},
    ]
    for choice in choices:
        ticket = pc.find_ticket(module, data=batch, loss=cross_entropy, **{"method": "snip", "density": 0.4} | choice)
        ticket.save(tmp_path / "ticket")
        assert pc.Ticket.load(tmp_path / "ticket") == ticket


def test_methods_of_two_layers_are_refused_by_name_where_there_are_more():
    network = seeded(lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)))
    data = torch.randn(16, 8), torch.randint(2, (16,))
    table = pc.methods()
    of_two = table.loc[table["needs"].str.contains("clauses|two linear layers"), "name"].tolist()
    assert {"magnitude-w2", "hot-imp", "distance-blind", "target-combined", "oracle"} <= {*of_two}
    for method in of_two:
        with pytest.raises(
            pc.PrecodeValueError, match=rf"method '{re.escape(method)}' needs .*two linear layers.*layers="
        ):
            pc.find_ticket(network, method, 0.5, data, cross_entropy)


def test_a_loss_that_keeps_and_edits_what_it_was_given_cannot_reach_the_module():
    network = seeded(lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)))
    before, kept = copy.deepcopy(network.state_dict()), []

    def loss(output, y, module):
        kept.append(module)
        return cross_entropy(output, y)

    pc.find_ticket(network, "snip", 0.5, (torch.randn(16, 8), torch.randint(2, (16,))), loss)
    with torch.no_grad():
        for parameter in kept[0].parameters():
            parameter.data.fill_(3.0)
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())


class Named(nn.Module):
    """Layers by name, and what is made of them."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.steps = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        return self.steps(self, x)


X, Y = torch.randn(16, 6, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 3
IS_OUTPUT = "its rows are the outputs of the module"


def spared(module, loss=cross_entropy, **options):
    ticket = pc.find_ticket(module, "magnitude-init", 0.5, (X, Y), loss, granularity="row", **options)
    assert not ticket.masks.keys() & ticket.config["left_out"].keys()
    return ticket.config["left_out"]


def hidden():
    return [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)]


def test_rows_of_hidden_layers_are_not_spared_in_place_of_outputs():
    assert spared(nn.Sequential(*hidden()), exclude="4") == {}
    frozen = nn.Sequential(*hidden())
    frozen[4].requires_grad_(False)
    with pytest.warns(pc.TicketWarning, match="frozen"):
        assert spared(frozen) == {"4.weight": "frozen"}


@pytest.mark.parametrize(
    "end", [lambda y: y, lambda y: y.view(-1, 3), lambda y: y.softmax(1), lambda y: {"logits": y}, lambda y: y.relu_()]
)
def test_rows_of_the_outputs_are_those_of_the_layer_that_makes_them(end):
    head_first = Named(lambda m, x: end(m.head(m.body(x).relu())), head=nn.Linear(8, 3), body=nn.Linear(6, 8))
    assert spared(head_first) == {"head.weight": IS_OUTPUT}


HEADS = {
    "auxiliary": lambda m, x: (lambda y: (m.other(x), y)[1])(m.head(m.body(x).relu()).softmax(1)),
    "cosine": lambda m, x: 10 * nn.functional.linear(m.body(x).relu(), nn.functional.normalize(m.head.weight)),
    "not called": lambda m, x: m.head.forward(m.body.forward(x).relu()),
    "scaled": lambda m, x: m.scale * m.head(m.body(x).relu()).tanh() + m.shift,
    "no gradients of inputs": lambda m, x: (m.head(m.body((x > 0).float()).relu())).softmax(1),
    "edited in place": lambda m, x: m.head(m.body(x.mul_(2)).relu_()).sigmoid(),
    "several heads": lambda m, x: torch.cat([m.head(m.body(x).relu())[:, :2], m.head(m.body(x).relu())[:, 2:]], 1),
}


@pytest.mark.filterwarnings("ignore:nothing is kept of:precode.TicketWarning")
@pytest.mark.parametrize("forward", HEADS)
def test_rows_of_the_outputs_are_those_that_they_are_computed_from(forward):
    module = Named(HEADS[forward], head=nn.Linear(8, 3, bias=False), body=nn.Linear(6, 8), other=nn.Linear(6, 3))
    module.scale, module.shift = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.zeros(3))
    assert spared(module) == {"head.weight": IS_OUTPUT}


@pytest.mark.filterwarnings("ignore:nothing is kept of:precode.TicketWarning")
@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_rows_of_hidden_layers_are_not_spared_behind_a_head_whose_weight_is_computed(norm):
    module = Named(lambda m, x: m.head(m.body(x).relu()).softmax(1), body=nn.Linear(6, 8), head=nn.Linear(8, 3))
    norm(module.head)
    with pytest.warns(pc.TicketWarning, match=r"'head\.weight' is left out of pruning, computed from other"):
        assert spared(module).keys() == {"head.weight"}


def test_rows_of_all_heads_are_outputs():
    heads = Named(
        lambda m, x: (m.first(m.body(x).relu()), {"second": m.second(m.body(x).relu())}),
        body=nn.Linear(6, 8),
        first=nn.Linear(8, 3),
        second=nn.Linear(8, 2),
    )
    assert spared(heads, lambda output, y: cross_entropy(output[0], y)) == {
        "first.weight": IS_OUTPUT,
        "second.weight": IS_OUTPUT,
    }


def centred(y):
    return (y - y.mean(1, keepdim=True)) / y.norm(dim=1, keepdim=True)


TWO = {
    "both plain": lambda m, h: (m.first(h), m.second(h)),
    "one centred": lambda m, h: (centred(m.first(h)), m.second(h)),
    "both centred": lambda m, h: (centred(m.first(h)), centred(m.second(h))),
    "side by side": lambda m, h: torch.cat([m.first(h), m.second(h).sigmoid()], 1),
    "levels": lambda m, h: (
        torch.cat([m.first(h), m.first(h.relu())]),
        torch.stack([m.second(h)[:, i] for i in (0, 1)]),
    ),
    "one by one": lambda m, h: (m.first(h).sum(1), sum(row for row in m.second(h))),
    "losses": lambda m, h: {
        "a": centred(m.first(h)).square().mean(),
        "b": (m.second(h).sigmoid() * m.second(h)).mean(),
    },
    "distribution": lambda m, h: (torch.distributions.Categorical(logits=m.first(h)), m.second(h)),
    "an object": lambda m, h: (SimpleNamespace(logits=centred(m.first(h))), [m.second(h)]),
    "nothing of the middle": lambda m, h: (m.first(h), m.second(m.middle(h).relu())),
    "residual": lambda m, h: (m.first(h), m.second(nn.functional.layer_norm(h + m.middle(h), [8]))),
}


@pytest.mark.filterwarnings("ignore:nothing is kept of:precode.TicketWarning")
@pytest.mark.parametrize("forward", TWO)
def test_rows_of_each_output_are_those_that_it_is_computed_from(forward):
    module = Named(
        lambda m, x: TWO[forward](m, m.body(x).relu()),
        body=nn.Linear(6, 8),
        first=nn.Linear(8, 3),
        middle=nn.Linear(8, 8),
        second=nn.Linear(8, 2),
    )
    assert spared(module).keys() == {"first.weight", "second.weight"}


@pytest.mark.filterwarnings("ignore:nothing is kept of:precode.TicketWarning")
@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_rows_of_recurrent_layers_that_make_the_outputs(layer):
    module = Named(
        lambda m, x: torch.tanh(m.last(m.body(x)[:, None])[0])[:, 0],
        body=nn.Linear(6, 8),
        last=layer(8, 4, num_layers=2, bias=False),
    )
    # A layer's tensors are of several depths, of which the module returns the last.
    assert {name.partition(".")[0] for name in spared(module)} == {"last"}


def test_rows_of_attention_that_is_last_are_those_of_its_projection():
    torch.manual_seed(0)  # at some others nothing is kept of a layer, which is said
    last = Named(
        lambda m, x: m.attention(*[m.body(x)[:, None]] * 3, need_weights=False)[0][:, 0],
        body=nn.Linear(6, 8),
        attention=nn.MultiheadAttention(8, 2, batch_first=True),
    )
    assert spared(last) == {"attention.out_proj.weight": IS_OUTPUT}
    # Fused kernels would not call the layers.
    encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    chain = Named(lambda m, x: m.encoder(m.body(x)[:, None])[:, 0], body=nn.Linear(6, 8), encoder=encoder)
    assert spared(chain) == {"encoder.linear2.weight": IS_OUTPUT}


def test_without_data_the_layer_that_stands_last_is_taken_for_the_output_and_said():
    module = Named(lambda m, x: m.head(m.body(x)), head=nn.Linear(8, 3), body=nn.Linear(6, 8))
    with pytest.warns(pc.TicketWarning, match=r"'body\.weight' is left out of pruning, as its rows .* pass data="):
        ticket = pc.find_ticket(module, "magnitude-init", 0.5, granularity="row")
    assert list(ticket.masks) == ["head.weight"]
    first, second = nn.Linear(6, 6), nn.Linear(6, 6)
    with pytest.warns(pc.TicketWarning, match="pass data="):
        pc.find_ticket(nn.Sequential(first, second, first), "magnitude-init", 0.5, granularity="row")
    assert spared(nn.Sequential(first, second, first)) == {"0.weight": IS_OUTPUT}
    chain = pc.find_ticket(nn.Sequential(first, nn.Sequential(second)), "magnitude-init", 0.5, granularity="row")
    assert chain.config["left_out"] == {"1.0.weight": IS_OUTPUT}


def test_a_module_that_returns_a_sparse_tensor_has_outputs_too():
    module = Named(lambda m, x: m.head(m.body(x)).to_sparse(), body=nn.Linear(6, 8), head=nn.Linear(8, 3))
    assert spared(module, lambda output, y: cross_entropy(output.to_dense(), y)) == {"head.weight": IS_OUTPUT}


@pytest.mark.parametrize("density", [0.25, 0.5])
def test_wanda_keeps_the_same_share_of_every_row_beside_layers_of_other_widths(density):
    module = seeded(lambda: nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 3)))
    x = torch.randn(50, 20, generator=torch.Generator().manual_seed(1))
    ticket = pc.find_ticket(module, "wanda", density, (x, torch.arange(50) % 3), cross_entropy, epochs=1)
    for name, inputs in (("0.weight", 20), ("2.weight", 64)):
        assert set(ticket.masks[name].sum(1).tolist()) == {int(density * inputs)}


@pytest.mark.parametrize("method", ["snip", "wanda", "edge-popup"])
@pytest.mark.parametrize("scope", ["global", "per-layer"])
def test_layers_without_weights_are_left_out(method, scope):
    module = Named(lambda m, x: m.head(x) + 0 * m.none(x).sum(), head=nn.Linear(6, 3), none=nn.Linear(6, 1))
    module.none.weight, module.none.bias = nn.Parameter(torch.empty(0, 6)), nn.Parameter(torch.empty(0))
    with pytest.warns(pc.TicketWarning, match="'none.weight' is left out of pruning, empty"):
        ticket = pc.find_ticket(module, method, 0.5, (X, Y), cross_entropy, epochs=1, scope=scope)
    assert list(ticket.masks) == ["head.weight"]


@pytest.mark.parametrize("granularity", ["row", "column"])
def test_a_number_is_a_row_of_its_own(granularity):
    module = nn.Linear(4, 3, bias=False)
    module.scale = nn.Parameter(torch.tensor(50.0))
    ticket = pc.find_ticket(module, "magnitude-init", 0.5, prunable=["weight", "scale"], granularity=granularity)
    assert bool(ticket.masks["scale"])
    assert ticket.masks["weight"].sum() in (4, 6)


def test_kinds_of_layers_are_excluded():
    module = nn.Sequential(nn.Conv1d(2, 4, 3), nn.Flatten(), nn.Linear(16, 4), nn.Linear(4, 3))
    found = pc.find_ticket(module, "magnitude-init", 0.5, exclude=nn.Conv1d)
    assert found.masks.keys() == {"2.weight", "3.weight"}
    found = pc.find_ticket(module, "magnitude-init", 0.5, exclude=[nn.Conv1d, "3"])
    assert found.masks.keys() == {"2.weight"}
    module[3].weight = module[2].weight
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of the shared weight, which is left out on purpose
        found = pc.find_ticket(module, "magnitude-init", 0.5, exclude=nn.Linear)
    assert found.masks.keys() == {"0.weight"}
    with pytest.raises(pc.PrecodeValueError, match="no plain weights of a layer LSTM, which exclude names"):
        pc.find_ticket(module, "magnitude-init", 0.5, exclude=nn.LSTM)
    for wrong, kind in (([1], "int"), (1, "int"), (module[0], "Conv1d")):
        for argument in ("exclude", "prunable"):
            with pytest.raises(pc.PrecodeTypeError, match=f"{argument} must be names or kinds of layers, not {kind}"):
                pc.find_ticket(module, "magnitude-init", 0.5, **{argument: wrong})


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.stacked = nn.Parameter(torch.randn(4, 8, 6, generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        return sum(nn.functional.linear(x, weight) for weight in self.stacked)


@pytest.mark.parametrize("granularity", ["row", "column", "2:4"])
def test_axes_of_unknown_layers_are_not_guessed(granularity):
    module = Experts()
    with pytest.raises(pc.PrecodeValueError, match=r"'stacked' of shape \(4, 8, 6\) is no weight of a known layer"):
        pc.find_ticket(module, "magnitude-init", 0.5, prunable="stacked", granularity=granularity)
    assert pc.find_ticket(module, "magnitude-init", 0.5, prunable="stacked").kept == 96


def test_rows_come_closest_to_the_density_itself():
    module = nn.Linear(10, 24, bias=False)
    for density in (0.355, 0.37, 0.3542, 0.3541):
        kept = pc.find_ticket(module, "magnitude-init", density, prunable="weight", granularity="row").kept
        assert kept == min(range(10, 250, 10), key=lambda count: abs(count - density * 240))


class Looked(nn.Module):
    """An embedding and two layers."""

    def __init__(self):
        super().__init__()
        self.table, self.first, self.second = nn.Embedding(10, 6), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.second(self.first(self.table(x)).relu())


@pytest.mark.parametrize("prunable", ["auto", ["auto"], nn.Linear, ["auto", nn.Embedding]])
def test_rows_of_outputs_are_spared_unless_they_are_named(prunable):
    module = seeded(Looked)
    batch = torch.arange(32) % 10, torch.arange(32) % 3
    options = {"granularity": "row", "prunable": prunable}
    ticket = pc.find_ticket(module, "snip", 0.4, batch, cross_entropy, **options)
    assert ticket.config["left_out"] == {"second.weight": "its rows are the outputs of the module"}
    assert "second.weight" not in ticket.masks
    options["prunable"] = ["second", *([prunable] if isinstance(prunable, str | type) else prunable)]
    assert "second.weight" in pc.find_ticket(module, "snip", 0.4, batch, cross_entropy, **options).masks
    with pytest.raises(pc.PrecodeValueError, match=r"would prune outputs of the module, .* rows of 'second\.weight'"):
        pc.find_ticket(module, "snip", 0.4, batch, cross_entropy, granularity="row", exclude="first")


class Tied(nn.Module):
    """A language model that returns what its head is called on, with a table that is the weight of the head."""

    def __init__(self):
        super().__init__()
        self.table, self.hidden, self.head = nn.Embedding(10, 6), nn.Linear(6, 6), nn.Linear(6, 10, bias=False)
        self.head.weight = self.table.weight

    def forward(self, x):
        x = self.table(x)
        x = x + self.hidden(x).relu()
        return self.head(x), x


@pytest.mark.filterwarnings("ignore:'head.weight' is left out of pruning:precode.TicketWarning")
def test_a_table_that_is_shared_with_the_head_is_no_layer_called_last():
    module = seeded(Tied)
    with pytest.raises(pc.PrecodeValueError, match=r"which are the rows of 'hidden\.weight'"):
        pc.find_ticket(
            module,
            "magnitude-init",
            0.5,
            (torch.arange(10), torch.arange(10)),
            lambda output, y: cross_entropy(output[0], y),
            granularity="row",
        )


def test_linear_layers_of_pytorch_geometric_are_layers():
    kind = type("Linear", (nn.Module,), {"__module__": "torch_geometric.nn.dense.linear"})
    kind.forward = lambda self, x: nn.functional.linear(x, self.weight, self.bias)
    plain, head = seeded(lambda: nn.Linear(6, 8)), seeded(lambda: nn.Linear(8, 3))
    layer = kind()
    layer.weight, layer.bias = plain.weight, plain.bias
    x = torch.linspace(-1, 1, 32 * 6).view(32, 6).sin()
    tickets = [
        pc.find_ticket(nn.Sequential(first, nn.ReLU(), head), "wanda", 0.5, (x, torch.arange(32) % 3), cross_entropy)
        for first in (layer, plain)
    ]
    assert tickets[0] == tickets[1]


def test_a_buffer_in_the_memory_of_a_weight_is_no_copy_of_it():
    class Viewing(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)
            self.register_buffer("seen", self.first.weight.detach())

        def forward(self, x):
            return self.second((self.first(x) + x @ self.seen.T).relu())

    module = seeded(Viewing)
    with pytest.warns(pc.TicketWarning, match=r"'first\.weight' is left out of pruning, in the memory of seen"):
        ticket = pc.find_ticket(module, "magnitude-init", 0.5)
    assert list(ticket.masks) == ["second.weight"]
    with pytest.raises(pc.PrecodeValueError, match=r"'first\.weight' .*seen"):
        pc.find_ticket(module, "magnitude-init", 0.5, prunable="first.weight")


class Looking(nn.Module):
    """A language model whose head is the table, without being called."""

    def __init__(self):
        super().__init__()
        self.table, self.hidden = nn.Embedding(10, 6), nn.Linear(6, 6)

    def forward(self, x):
        return nn.functional.linear(self.hidden(self.table(x)).tanh(), self.table.weight)


def test_rows_of_a_table_that_is_the_head_are_outputs():
    module = seeded(Looking)
    batch = torch.arange(10), torch.arange(10)
    ticket = pc.find_ticket(module, "snip", 0.5, batch, cross_entropy, granularity="row")
    assert list(ticket.masks) == ["hidden.weight"]
    both = pc.find_ticket(module, "snip", 0.5, batch, cross_entropy, granularity="row", prunable=["auto", nn.Embedding])
    assert both.config["left_out"] == {"table.weight": "its rows are the outputs of the module"}


def test_rows_of_modules_that_take_their_inputs_to_numpy():
    class Scaled(nn.Sequential):
        def forward(self, x):
            return super().forward(x / float(abs(x.numpy()).max()))

    module = seeded(lambda: Scaled(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)))
    batch = torch.linspace(-1, 1, 60).view(10, 6), torch.arange(10) % 3
    ticket = pc.find_ticket(module, "snip", 0.5, batch, cross_entropy, granularity="row")
    assert ticket.config["left_out"] == {"2.weight": "its rows are the outputs of the module"}


class Stacked(nn.Module):
    """Experts whose weights are one parameter of a layer of one's own."""

    def __init__(self):
        super().__init__()
        self.experts, self.head = nn.Parameter(torch.randn(4, 6, 6)), nn.Linear(6, 3)
        self.places, self.table = nn.Parameter(torch.randn(1, 9, 6)), nn.Embedding(20, 6)

    def forward(self, x):
        return self.head(torch.einsum("ni,eio->no", x, self.experts))


def test_large_weights_of_layers_that_are_not_known_are_said_to_be_left_out():
    module = seeded(Stacked)
    with pytest.warns(pc.TicketWarning, match=r"'experts' is left out of pruning, of a Stacked, no known layer"):
        ticket = pc.find_ticket(module, "magnitude-init", 0.5)
    assert ticket.config["left_out"].keys() == {"experts"}
    for options in ({"exclude": "experts"}, {"prunable": ["auto", "experts"]}, {"prunable": "head"}):
        assert not pc.find_ticket(module, "magnitude-init", 0.9, **options).config["warnings"]
