"""Dead units taken out: the same outputs from fewer weights, and everything else refused by name."""

import copy

import pytest
import torch
from torch import nn

import precode as pc

pytestmark = pytest.mark.usefixtures("one_thread")


def conv(kernel=3, **options):
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(2, 6, kernel, **options), nn.BatchNorm2d(6), nn.ReLU()),
        nn.Conv2d(6, 5, kernel, bias=False, **options),
        nn.Tanh(),
        nn.Dropout(),
        nn.Flatten(),
        nn.LazyLinear(7),
        nn.BatchNorm1d(7, affine=False),
        nn.GELU(),
        nn.Linear(7, 3),
    )


def chain(*layers):
    return lambda: copy.deepcopy(nn.Sequential(*layers))


CHAINS = {
    "mlp": (chain(nn.Linear(5, 8), nn.Sigmoid(), nn.Linear(8, 6), nn.ELU(), nn.Linear(6, 2)), (4, 5)),
    "no bias": (
        lambda: nn.Sequential(
            nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6, bias=False), nn.Softplus(), nn.Linear(6, 2, bias=False)
        ),
        (4, 5),
    ),
    "norm": (
        lambda: nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.SiLU(), nn.Flatten(), nn.Linear(8, 3)),
        (4, 5),
    ),
    "tokens": (chain(nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 3)), (4, 7, 5)),
    "convolutions": (conv, (4, 2, 7, 7)),
    "padded with zeros": (lambda: conv(padding=1), (4, 2, 7, 7)),
    "same": (lambda: conv(padding="same"), (4, 2, 7, 7)),
    "strided": (lambda: conv(stride=2, padding=1), (4, 2, 9, 9)),
    "circular": (lambda: conv(padding=1, padding_mode="circular"), (4, 2, 7, 7)),
    "reflected": (lambda: conv(padding=2, padding_mode="reflect"), (4, 2, 7, 7)),
    "one axis": (
        lambda: nn.Sequential(
            nn.Conv1d(2, 6, 2), nn.Hardswish(), nn.Conv1d(6, 4, 2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)
        ),
        (4, 2, 6),
    ),
    "three axes": (
        lambda: nn.Sequential(nn.Conv3d(1, 4, 2), nn.BatchNorm3d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)),
        (4, 1, 3, 3, 3),
    ),
}


def made(kind, seed=0):
    make, shape = CHAINS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        x = torch.randn(shape, dtype=torch.float64)
        module = make().double()
        for layer in module.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
        for _ in range(3):
            module(torch.randn_like(x))  # which fills lazy layers and running statistics
        return module.eval(), x


def weighted(module):
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)]


def units(module):
    return [len(layer.weight) for layer in weighted(module)]


@pytest.mark.parametrize("kind", CHAINS)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_outputs_are_the_same(kind, seed):
    module, x = made(kind, seed)
    layers = weighted(module)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for number, layer in enumerate(layers[:-1]):
            layer.weight[torch.rand(len(layer.weight), generator=generator) < 0.4] = 0
            layer.weight[0] = 0
            width = len(layer.weight)
            after = layers[number + 1].weight
            after.view(len(after), width, -1)[:, torch.rand(width, generator=generator) < 0.3] = 0
    before = {name: value.clone() for name, value in module.state_dict().items()}
    smaller = pc.remove_dead(module)
    torch.testing.assert_close(smaller(x), module(x), rtol=0, atol=1e-12)
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert units(smaller)[-1] == units(module)[-1]
    # A new state dict fits a new module of these sizes, and it trains.
    smaller.train()(x).sum().backward()
    assert all(parameter.grad is not None for parameter in smaller.parameters())
    again = pc.remove_dead(smaller.eval())
    assert units(again) == units(smaller)


def test_the_units_left_are_those_that_do_something():
    module, x = made("mlp")
    with torch.no_grad():
        module[0].weight[[1, 3]] = 0  # constants
        module[2].weight[:, [4]] = 0  # unread
        module[4].weight[:, [0, 5]] = 0
        module[2].weight[[1, 2, 3, 4], 6] = 0  # read by units alone that nothing reads
    smaller = pc.remove_dead(module)
    assert units(smaller) == [8 - 4, 6 - 2, 2]
    assert (smaller[2].in_features, smaller[2].out_features, smaller[4].in_features) == (4, 4, 4)
    torch.testing.assert_close(smaller(x), module(x), rtol=0, atol=1e-12)
    kept = [0, 2, 5, 7]
    assert torch.equal(smaller[0].weight, module[0].weight[kept])
    assert torch.equal(smaller[2].weight, module[2].weight[1:5][:, kept])


def test_a_constant_channel_stays_before_zeros_at_the_border():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 1, 3, padding=1)).double()
    x = torch.randn(2, 1, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        module[0].weight[0] = 0
    assert units(pc.remove_dead(module)) == [2, 1]
    with torch.no_grad():
        module[0].bias[0] = 0
    smaller = pc.remove_dead(module)
    assert units(smaller) == [1, 1]
    torch.testing.assert_close(smaller(x), module(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("end", ["rows", "columns"])
def test_one_unit_stays_where_all_are_dead(end):
    module, x = made("mlp")
    with torch.no_grad():
        (module[2].weight if end == "rows" else module[4].weight).zero_()
    smaller = pc.remove_dead(module)
    assert units(smaller)[1] == 1
    torch.testing.assert_close(smaller(x), module(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("way", ["apply_", "to_torch_prune"])
def test_tickets_of_rows_make_smaller_modules(way):
    module, x = made("mlp")
    ticket = pc.find_ticket(module, "magnitude-init", 0.5, granularity="row")
    getattr(ticket, way)(module)
    expected, state = module(x), copy.deepcopy(module.state_dict())
    smaller = pc.remove_dead(module)
    torch.testing.assert_close(smaller(x), expected, rtol=0, atol=1e-12)
    rows = [int(ticket.masks[name].any(1).sum()) for name in ("0.weight", "2.weight")]
    assert units(smaller) == [*rows, 2]
    assert smaller.state_dict().keys() == made("mlp")[0].state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


def test_what_is_no_plain_chain_is_refused_by_name():
    shared = nn.Linear(4, 4)
    hooked = nn.Sequential(nn.Linear(2, 2))
    hooked[0].register_forward_hook(lambda *_: None)

    class Residual(nn.Sequential):
        def forward(self, x):
            return x + super().forward(x)

    for module, match in (
        (nn.Sequential(nn.Linear(2, 2), nn.Softmax(-1), nn.Linear(2, 2)), r"'1' \(Softmax\) is not part"),
        (nn.Sequential(nn.Linear(2, 2), nn.MaxPool1d(2)), r"'1' \(MaxPool1d\)"),
        (nn.Sequential(nn.Linear(2, 2), Residual(nn.Linear(2, 2))), r"'1' \(Residual\)"),
        (Residual(nn.Linear(2, 2)), r"'the module' \(Residual\)"),
        (nn.LSTM(2, 2), r"'the module' \(LSTM\)"),
        (nn.Sequential(nn.Conv1d(2, 4, 1), nn.Conv1d(4, 4, 1, groups=2)), "'1' is a convolution of 2 groups"),
        (nn.Sequential(nn.Conv1d(2, 4, 1), nn.Linear(4, 2)), "'1' with 4 inputs does not read the 4 units of '0'"),
        (nn.Sequential(nn.Linear(2, 4), nn.Flatten(), nn.Linear(8, 2)), "'2' with 8 inputs"),
        (nn.Sequential(nn.Linear(2, 4), nn.Flatten(0), nn.Linear(4, 2)), r"'1' \(Flatten\)"),
        (nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(7), nn.Linear(4, 2)).eval(), "'1' normalizes something else"),
        (nn.Sequential(shared, nn.ReLU(), shared), "'2' is used twice"),
        (nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4, track_running_stats=False)).eval(), "no running statistics"),
        (nn.Sequential(nn.Linear(2, 2), nn.PReLU(2)), r"'1' \(PReLU\)"),
        (hooked, "'0' has hooks"),
        (
            nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))),
            "'0' has hooks, a forward or a parametrization",
        ),
        (nn.Sequential(nn.ReLU()), "no linear or convolutional layer"),
    ):
        with pytest.raises(pc.UnsupportedError, match=match):
            pc.remove_dead(module)
    tied = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    tied[2].weight = tied[0].weight
    with pytest.raises(pc.UnsupportedError, match="share a weight"):
        pc.remove_dead(tied)
    for layer in (nn.BatchNorm1d(4), nn.Dropout()):
        with pytest.raises(pc.PrecodeValueError, match=r"in training mode: call module\.eval"):
            pc.remove_dead(nn.Sequential(nn.Linear(2, 4), layer))
    with pytest.raises(pc.PrecodeTypeError):
        pc.remove_dead("module")


def test_a_forward_of_a_layers_own_is_refused():
    for whole in (False, True):
        module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).eval()
        layer = module if whole else module[0]
        plain = layer.forward
        layer.forward = lambda x, plain=plain: plain(x) * 2
        with pytest.raises(pc.UnsupportedError, match="a forward or a parametrization of its own"):
            pc.remove_dead(module)


def test_a_normalization_of_another_axis_is_refused_when_it_is_called():
    module = nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.Linear(16, 3)).eval()
    with torch.no_grad():
        module[0].weight[:8] = 0
    smaller = pc.remove_dead(module)
    x = torch.randn(2, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(smaller(x), module(x))
    with pytest.raises(RuntimeError, match="should contain 16 elements not 8"):
        smaller(x[:, None].expand(2, 16, 12))
