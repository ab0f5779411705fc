"""Tickets: what they hold, how they act on a module, and their files."""

import copy
import hashlib
import json
import os
import resource
import struct

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

import precode as pc

pytestmark = pytest.mark.usefixtures("one_thread")


class Small(nn.Module):
    """Two linear layers, a convolution, normalization and a shared layer."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv1d(1, 3, 3, padding=1)
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 2))

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.convolution(x[:, None]))).flatten(1))


@pytest.fixture
def module():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Small()


def make_ticket(module, density=0.25, **settings):
    names = ("convolution.weight", "head.0.weight", "head.3.weight")
    start = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    masks = {}
    for name in names:
        scores = torch.from_numpy(np.random.default_rng(len(name)).random(start[name].shape))
        masks[name] = scores <= torch.quantile(scores, density)
        start[name] = start[name] * masks[name]
    return pc.Ticket(masks, start, method="random", density=density, **settings)


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(16, 4, generator=generator), torch.randint(2, (16,), generator=generator)


OPTIMIZERS = {
    "momentum": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, weight_decay=0.1),
    "lbfgs": lambda p: torch.optim.LBFGS(p, 0.1, max_iter=2),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("rewind", [True, False])
def test_pruned_weights_stay_zero_under_every_optimizer(module, optimizer, rewind):
    ticket = make_ticket(module)
    # Made before pruning, with state from dense steps: momentum of weights that are pruned later.
    steps = OPTIMIZERS[optimizer](module.parameters())
    x, y = batch()

    def closure():
        steps.zero_grad()
        loss = nn.functional.cross_entropy(module(x), y)
        loss.backward()
        return loss

    for _ in range(3):
        steps.step(closure)
    ticket.apply_(module, rewind=rewind)
    for _ in range(50):
        steps.step(closure)
        for name, mask in ticket.masks.items():
            weight = module.get_submodule(name.rpartition(".")[0]).weight
            assert not weight[~mask].any()
    assert all(
        (module.get_submodule(name.rpartition(".")[0]).weight[mask] != 0).any() for name, mask in ticket.masks.items()
    )
    ticket.remove_(module)
    assert all(not module.get_parameter(name)[~mask].any() for name, mask in ticket.masks.items())


def test_applying_gives_the_start_values_and_touches_nothing_else(module):
    ticket = make_ticket(module)
    module.head.eval()
    module.head[3].bias.requires_grad_(False)
    module(batch()[0]).sum().backward()
    parameters = dict(module.named_parameters())
    gradients = {name: p.grad for name, p in parameters.items()}
    modes = {name: part.training for name, part in module.named_modules()}
    state, random = {n: b.clone() for n, b in module.named_buffers()}, torch.get_rng_state()
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(1)
    assert ticket.apply_(module) is module
    assert all(not part.training for part in module.head.modules())
    assert torch.equal(module.convolution.weight, ticket.start["convolution.weight"])
    assert {id(p) for p in module.parameters()} == {id(p) for p in parameters.values()}
    ticket.remove_(module)
    after = dict(module.named_parameters())
    assert after.keys() == parameters.keys()
    for name, parameter in after.items():
        assert parameter is parameters[name]
        assert parameter.grad is gradients[name]
        assert torch.equal(parameter, ticket.start[name])
    assert not module.head[3].bias.requires_grad
    assert {name: part.training for name, part in module.named_modules()} == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(b, state[n]) for n, b in module.named_buffers())
    assert type(module.convolution) is nn.Conv1d


def test_a_pruned_module_survives_copies_state_dicts_and_assignments(module):
    ticket = make_ticket(module)
    other = copy.deepcopy(module)
    ticket.apply_(module)
    with torch.no_grad():
        module.head[0].weight = torch.ones_like(module.head[0].weight)
    assert torch.equal(module.head[0].weight, ticket.masks["head.0.weight"].float())
    clone = copy.deepcopy(module)
    assert torch.equal(clone.head[0].weight, module.head[0].weight)
    ticket.apply_(other).load_state_dict(module.state_dict())
    x = batch()[0]
    assert torch.equal(other.eval()(x), module.eval()(x))
    ticket.rewind_(module)
    assert torch.equal(module.head[0].weight, ticket.start["head.0.weight"])
    assert pc.Ticket.from_parametrized(clone).masks.keys() == ticket.masks.keys()


def test_values_that_are_not_finite_do_not_reach_pruned_weights(module):
    ticket = make_ticket(module)
    ticket.apply_(module)
    original = module.head[0].parametrizations.weight.original
    with torch.no_grad():
        original[~ticket.masks["head.0.weight"]] = float("inf")
    assert torch.isfinite(module.head[0].weight).all()
    (module.head[0].weight * float("inf")).sum().backward()
    assert not original.grad[~ticket.masks["head.0.weight"]].any()


def test_torch_prune_and_back(module):
    ticket = make_ticket(module)
    reference = copy.deepcopy(module)
    for name, mask in ticket.masks.items():
        prune.custom_from_mask(reference.get_submodule(name.rpartition(".")[0]), "weight", mask)
    ticket.to_torch_prune(module)
    assert module.state_dict().keys() == reference.state_dict().keys()
    x = batch()[0]
    assert torch.equal(module.eval()(x), reference.eval()(x))
    for back in (pc.Ticket.from_torch_prune(module), pc.Ticket.from_torch_prune(reference)):
        assert all(torch.equal(back.masks[name], mask) for name, mask in ticket.masks.items())
        assert all(torch.equal(back.start[name], start) for name, start in ticket.start.items())
        assert back.kept == ticket.kept
    with torch.no_grad():
        module.head[0].weight_orig.add_(1)
    ticket.rewind_(module)
    assert torch.equal(module.head[0].weight, ticket.start["head.0.weight"])
    with pytest.raises(pc.PrecodeValueError, match=r"pruned already: undo that first with torch\.nn\.utils"):
        ticket.apply_(module)
    with pytest.raises(pc.PrecodeValueError, match="no parameter of the module is pruned by parametrization"):
        pc.Ticket.from_parametrized(module)


def test_a_ticket_of_another_module_is_refused_before_anything_changes(module):
    ticket = make_ticket(module)
    wide, typed, named, tied = (copy.deepcopy(module) for _ in range(4))
    wide.head[3] = nn.Linear(8, 3)
    named.head.add_module("extra", nn.Linear(2, 2))
    tied.head[3].register_parameter("other", tied.head[0].weight)
    typed.head.double()
    for other, message in [
        (wide, r"'head.3.weight' has shape \(2, 8\) in the ticket and \(3, 8\)"),
        (typed, r"convert the module, as by module.to\(torch.float32\)"),
        (named, r"only the module has head.extra.bias, head.extra.weight"),
        (nn.Linear(2, 1), "only the ticket has"),
        (tied, r"'head.0.weight' is shared with head.3.other"),
    ]:
        before = copy.deepcopy(other.state_dict())
        for change in (ticket.apply_, ticket.to_torch_prune):
            with pytest.raises(
                pc.PrecodeValueError if other is not wide and other is not typed else pc.PrecodeShapeError,
                match=message,
            ):
                change(other)
        assert other.state_dict().keys() == before.keys()
        assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    with pytest.raises(pc.PrecodeValueError, match="apply_ comes before remove_"):
        ticket.remove_(module)
    ticket.apply_(module)
    with pytest.raises(pc.PrecodeValueError, match=r"pruned already: undo that first with ticket\.remove_"):
        ticket.apply_(module)
    with pytest.raises(pc.PrecodeTypeError, match=r"must be a torch\.nn\.Module, not dict"):
        ticket.apply_({})
    with pytest.raises(pc.PrecodeValueError, match="has no values yet"):
        ticket.apply_(nn.LazyLinear(3))


def test_what_makes_no_ticket_is_refused():
    mask, start = torch.tensor([True, False]), torch.tensor([0.5, 0.0])

    def refuse(kind, message, masks=None, values=None, **other):
        arguments = {"method": "m", "density": 0.5} | other
        with pytest.raises(kind, match=message):
            pc.Ticket({"w": mask} if masks is None else masks, {"w": start} if values is None else values, **arguments)

    refuse(pc.PrecodeTypeError, r"torch\.float32: masks are torch\.bool", masks={"w": mask.float()})
    refuse(pc.PrecodeTypeError, r"masks\['w'\] must be a dense", masks={"w": [True]})
    refuse(pc.PrecodeTypeError, "masks must be tensors by", masks=[mask])
    refuse(pc.PrecodeTypeError, r"start\['w'\] has type torch\.int64", values={"w": torch.tensor([1, 0])})
    refuse(pc.PrecodeShapeError, r"shape \(3,\), but a mask of \(2,\)", values={"w": torch.zeros(3)})
    refuse(pc.PrecodeValueError, "mask but no start", masks={"v": mask})
    refuse(pc.PrecodeValueError, "not zero where its mask prunes", values={"w": torch.ones(2)})
    refuse(pc.PrecodeValueError, "not finite", values={"w": start * float("nan")})
    refuse(pc.PrecodeValueError, "keep no weight", masks={"w": mask & False}, values={"w": start * 0})
    refuse(pc.PrecodeValueError, "keep no weight", masks={})
    refuse(pc.PrecodeValueError, r"density = 1.5: .* in \(0, 1\]", density=1.5)
    refuse(pc.PrecodeTypeError, "density must be a number", density="half")
    refuse(pc.PrecodeTypeError, "config must be made of what JSON", config={"loss": nn.CrossEntropyLoss()})
    refuse(pc.PrecodeTypeError, "cost must be made of what JSON", cost={"epochs": float("nan")})
    refuse(pc.PrecodeShapeError, "final must have the names", final={"w": start, "v": start})
    refuse(pc.PrecodeValueError, r"final\['w'\] is not zero", final={"w": torch.ones(2)})


def test_a_saved_ticket_is_the_same_ticket(module, tmp_path):
    final = {name: start * 2 for name, start in make_ticket(module).start.items()}
    ticket = make_ticket(module, config={"seed": 3, "lr": 0.1 + 0.2}, cost={"epochs": 2.0}, final=final)
    path = tmp_path / "ticket.safetensors"
    ticket.save(path)
    loaded = pc.Ticket.load(str(path))
    assert loaded == ticket
    assert loaded.versions["torch"] == torch.__version__
    for name, start in ticket.start.items():
        assert start.numpy().tobytes() == loaded.start[name].numpy().tobytes()
    assert loaded != make_ticket(module)
    assert os.listdir(tmp_path) == ["ticket.safetensors"]
    first = path.read_bytes()
    loaded.save(path)
    assert path.read_bytes() == first


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_type_comes_back(module, dtype, tmp_path):
    ticket = make_ticket(module.to(dtype))
    ticket.save(tmp_path / "t")
    assert pc.Ticket.load(tmp_path / "t") == ticket
    assert torch.equal(ticket.apply_(module).head[0].weight, ticket.start["head.0.weight"])


def parts_of(path):
    """Header and tensor bytes, by the format's specification."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def test_the_hash_is_the_one_that_is_described(module, tmp_path):
    make_ticket(module).save(tmp_path / "t")
    header, data = parts_of(tmp_path / "t")
    text = header.pop("__metadata__")["precode"]
    manifest = json.loads(text)
    digest = hashlib.sha256()

    def add(part):
        digest.update(struct.pack("<Q", len(part)) + part)

    add(text.replace(manifest["sha256"], "").encode())
    for name, entry in sorted(header.items()):
        begin, end = entry["data_offsets"]
        for part in (name.encode(), entry["dtype"].encode(), struct.pack(f"<{len(entry['shape'])}Q", *entry["shape"])):
            add(part)
        add(data[begin:end])
    assert manifest["sha256"] == digest.hexdigest()
    assert manifest["counts"] == {"kept": make_ticket(module).kept, "total": make_ticket(module).total}


def test_damaged_and_foreign_files_are_refused_by_name(module, tmp_path):
    path = tmp_path / "ticket.safetensors"
    ticket = make_ticket(module)
    ticket.save(path)
    good = path.read_bytes()
    for damaged in (good[:-1], good[:50], b"", good + b"x", good[:-9] + bytes([good[-9] ^ 64]) + good[-8:]):
        path.write_bytes(damaged)
        with pytest.raises(pc.PrecodeFileError, match=r"ticket\.safetensors: .*: the file is damaged or was altered"):
            pc.Ticket.load(path)
    torch.save(ticket.start, path)
    with pytest.raises(pc.PrecodeFileError, match="no valid safetensors"):
        pc.Ticket.load(path)
    with pytest.raises(OSError, match="check the path"):
        pc.Ticket.load(tmp_path / "missing")
    with pytest.raises(pc.PrecodeFileError, match="choose a folder"):
        ticket.save(tmp_path / "missing" / "ticket")
    with pytest.raises(pc.PrecodeValueError, match="granularity 'block' is unknown: use one of weight, row, column"):
        make_ticket(module, granularity="block").save(path)


def test_a_write_that_fails_leaves_the_old_file(module, tmp_path):
    path = tmp_path / "ticket.safetensors"
    ticket = make_ticket(module)
    ticket.save(path)
    good = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(good) // 2, hard))
    try:
        with pytest.raises(pc.PrecodeFileError, match=r"ticket\.safetensors: cannot be written"):
            make_ticket(module, density=0.5).save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == good
    assert os.listdir(tmp_path) == ["ticket.safetensors"]


def test_a_parametrized_weight_is_refused(module):
    ticket = make_ticket(module)
    parametrize.register_parametrization(module.head[0], "weight", nn.Identity())
    with pytest.raises(pc.PrecodeValueError, match=r"only the module has head.0.parametrizations.weight.original"):
        ticket.apply_(module)


def test_the_display_is_small_and_escaped():
    ticket = pc.Ticket({"<b>": torch.tensor([True])}, {"<b>": torch.ones(1)}, method="m", density=1)
    assert "<td>&lt;b&gt;</td><td>1</td><td>1</td><td>1</td>" in ticket._repr_html_()
    assert repr(ticket) == "Ticket(method='m', density=1, kept=1 of 1 in 1 tensor)"
    with pytest.raises(TypeError):
        hash(ticket)
