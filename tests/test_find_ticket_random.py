"""Tickets of modules drawn at random against a plain reference, and what is left of the module afterwards."""

import copy
import warnings

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel

import precode as pc

WIDTH = 6


class Sequence(nn.Module):
    """A layer of sequences of three tokens of two features."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        x = x.reshape(len(x), 3, 2)
        if isinstance(self.layer, nn.MultiheadAttention):
            return self.layer(x, x, x, need_weights=False)[0].flatten(1)
        if isinstance(self.layer, nn.GRU):
            return self.layer(x)[0].flatten(1)
        return self.layer(x.mT).mT.flatten(1)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return x + torch.tanh(self.inner(x))


def frozen():
    layer = nn.BatchNorm1d(WIDTH).eval()
    layer.running_mean.normal_()
    layer.running_var.uniform_(0.5, 2)
    return layer


# What makes a layer, and the names of its weights, which are pruned.
LAYERS = {
    "linear": (lambda: nn.Linear(WIDTH, WIDTH), ["weight"]),
    "relu": (nn.ReLU, []),
    "residual": (Residual, ["inner.weight"]),
    "layer norm": (lambda: nn.LayerNorm(WIDTH), []),
    "batch norm": (lambda: nn.BatchNorm1d(WIDTH), []),
    "frozen norm": (frozen, []),
    "no dropout": (lambda: nn.Dropout(0.5).eval(), []),
    "gru": (lambda: Sequence(nn.GRU(2, 2, batch_first=True)), ["layer.weight_ih_l0", "layer.weight_hh_l0"]),
    "attention": (
        lambda: Sequence(nn.MultiheadAttention(2, 1, batch_first=True)),
        ["layer.in_proj_weight", "layer.out_proj.weight"],
    ),
    "convolution": (lambda: Sequence(nn.Conv1d(2, 2, 3, padding=1, groups=2)), ["layer.weight"]),
    "transposed": (lambda: Sequence(nn.ConvTranspose1d(2, 2, 3, padding=1)), ["layer.weight"]),
}
WRAPPERS = {"none": lambda module: module, "averaged": AveragedModel, "parallel": nn.DataParallel}


def magnitude(network, names, x, y):
    return {name: network.get_parameter(name).detach().abs() for name in names}


def snip(network, names, x, y):
    cross_entropy(network(x), y).backward()
    weights = {name: network.get_parameter(name) for name in names}
    return {name: (weight * weight.grad).detach().abs() for name, weight in weights.items()}


def grasp(network, names, x, y):
    weights = [network.get_parameter(name) for name in names]
    with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        gradient = torch.autograd.grad(cross_entropy(network(x) / 200, y), weights, create_graph=True)
        product = sum((part.detach() * part).sum() for part in gradient)
        found = torch.autograd.grad(product, weights, materialize_grads=True)
    return {name: (weight * part).detach() for name, weight, part in zip(names, weights, found, strict=True)}


def chosen(scores, density, among=None):
    flat = torch.cat([score.flatten() for score in scores.values()]).double()
    if among is not None:
        flat = flat.where(torch.cat([among[name].flatten() for name in scores]), torch.tensor(-1.0).double())
    kept = torch.zeros(len(flat), dtype=torch.bool)
    kept[flat.argsort(descending=True, stable=True)[: round(density * len(flat))]] = True
    parts = kept.split([score.numel() for score in scores.values()])
    return {name: part.reshape(scores[name].shape) for name, part in zip(scores, parts, strict=True)}


def ties(scores, masks):
    """Of the kept weights, the part that pruned ones score as high as, but for rounding."""
    flat = torch.cat([score.flatten() for score in scores.values()])
    kept = torch.cat([mask.flatten() for mask in masks.values()])
    least = flat[kept].min()
    near = (flat - least).abs() <= 1e-9 * flat.abs().max()
    return float((near & kept).sum() / kept.sum()) if (near & ~kept).any() else 0.0


@given(
    st.lists(st.sampled_from(list(LAYERS)), min_size=1, max_size=4),
    st.sampled_from([("magnitude-init", magnitude), ("snip", snip), ("grasp", grasp)]),
    st.sampled_from(list(WRAPPERS)),
    st.booleans(),
    st.lists(st.integers(2, 10), max_size=2, unique=True),
    st.floats(0.1, 0.9),
    st.integers(0, 2**16),
)
def test_masks_are_those_of_a_plain_reference(kinds, method, wrapper, evaluated, cuts, density, seed):
    name, score = method
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inner = nn.Sequential(*(LAYERS[kind][0]() for kind in kinds), nn.Linear(WIDTH, 3)).double()
        x, y = torch.randn(12, WIDTH, dtype=torch.float64), torch.randint(3, (12,))
    if evaluated:
        inner.eval()
    module = WRAPPERS[wrapper](copy.deepcopy(inner))
    names = [f"{place}.{weight}" for place, kind in enumerate(kinds) for weight in LAYERS[kind][1]]
    names.append(f"{len(kinds)}.weight")
    ends = sorted(cuts) if not any(kind == "batch norm" or (evaluated and "norm" in kind) for kind in kinds) else []
    batches = list(zip(x.tensor_split(ends), y.tensor_split(ends), strict=True))
    before, modes = copy.deepcopy(module.state_dict()), [part.training for part in module.modules()]
    state = torch.get_rng_state()
    network = copy.deepcopy(inner)
    if evaluated:  # throughout, so that all is trained; dropout draws numbers that are ours
        if "no dropout" in kinds:
            return
        network.train()
    scores = score(network, names, x, y)
    expected = chosen(scores, density)
    refused = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pc.TicketWarning)
        try:
            ticket = pc.find_ticket(module, name, density, batches, cross_entropy)
        except pc.PrecodeValueError as error:
            if "do not tell the weights apart" not in str(error):
                raise
            refused = True
    assert torch.equal(torch.get_rng_state(), state)
    assert [part.training for part in module.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    if refused:
        assert ties(scores, expected) > 0.4
    else:
        assert list(ticket.masks) == names
        assert ticket.kept == round(density * ticket.total)
        worst = max(float(value.abs().max()) for value in scores.values())
        least = min(float(scores[each][mask].min()) for each, mask in expected.items() if mask.any())
        for each, mask in expected.items():
            differing = ticket.masks[each] != mask
            # Sums over batches are rounded in another order.
            assert (scores[each][differing] - least).abs().le(1e-8 * worst).all()
            assert torch.equal(ticket.start[each], inner.get_parameter(each).detach() * ticket.masks[each])
        assert torch.isfinite(ticket.apply_(module)(x)).all()
        assert ticket.remove_(module).state_dict().keys() == before.keys()
