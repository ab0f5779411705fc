"""Pruned modules in what else is made of modules: exports, state dicts, averages, folders of the hub."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import precode as pc

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
]


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4 * 5 * 5, 3)

    def forward(self, x):
        return self.head(self.body(x).flatten(1))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.attention(x, x, x, need_weights=False)[0])


MODULES = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), (4, 6)),
    "convolutional": (Convolutional, (4, 2, 5, 5)),
    "attention": (Attention, (4, 7, 8)),
}
WAYS = ("apply_", "to_torch_prune")


def made(kind, seed=0):
    make, shape = MODULES[kind]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().eval(), torch.randn(shape)


def pruned(kind, way="apply_"):
    module, x = made(kind)
    ticket = pc.find_ticket(module, "magnitude-init", 0.4)
    return getattr(ticket, way)(module), ticket, x


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("plain", [False, True])
def test_exports_compute_the_same(kind, plain):
    module, ticket, x = pruned(kind)
    expected = module(x)
    if plain:
        ticket.remove_(module)
        torch.testing.assert_close(torch.jit.script(module)(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.export(module, (x,)).module()(x), expected)
        torch.testing.assert_close(torch.jit.trace(module, x)(x), expected)
        torch.testing.assert_close(torch.compile(module, backend="eager")(x), expected)


@pytest.mark.parametrize("kind", MODULES)
def test_scripting_a_masked_module_is_refused_with_the_remedy(kind):
    module, _, _ = pruned(kind)
    with pytest.raises(pc.UnsupportedError, match=r"torch\.jit\.script: call ticket\.remove_ first"):
        torch.jit.script(module)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["mlp", "convolutional"])
def test_onnx_computes_the_same(kind):
    pytest.importorskip("onnxscript", reason="onnx and onnxscript are not installed")
    reference = pytest.importorskip("onnx.reference", reason="onnx is not installed")
    module, _, x = pruned(kind)
    file = io.BytesIO()
    torch.onnx.export(module, (x,), verbose=False).save(file)
    evaluator = reference.ReferenceEvaluator(file.getvalue())
    (found,) = evaluator.run(None, {evaluator.input_names[0]: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), module(x).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("way", WAYS)
def test_state_dicts_go_each_way(kind, way):
    module, ticket, x = pruned(kind, way)
    plain, _ = made(kind, seed=1)
    assert str(plain.load_state_dict(pc.plain_state_dict(module))) == "<All keys matched successfully>"
    torch.testing.assert_close(plain(x), module(x), rtol=0, atol=1e-6)
    other, _ = made(kind, seed=2)
    assert pc.load_plain_state_dict(module, other.state_dict()) is module
    by_hand = copy.deepcopy(other)
    with torch.no_grad():
        for name, mask in ticket.masks.items():
            by_hand.get_parameter(name).mul_(mask)
    torch.testing.assert_close(module(x), by_hand(x), rtol=0, atol=1e-6)
    assert pc.plain_state_dict(other).keys() == other.state_dict().keys()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = other.state_dict()
    first = next(iter(state))
    for wrong, error, match in (
        ({name: value for name, value in state.items() if name != first}, pc.PrecodeValueError, "it lacks"),
        (state | {"more": torch.ones(1)}, pc.PrecodeValueError, "it has also more"),
        (state | {first: torch.ones(1, 1)}, pc.PrecodeShapeError, "load it into a module of the same sizes"),
        (state | {first: state[first].numpy()}, pc.PrecodeTypeError, "must be a tensor, not ndarray"),
        (state | {first: state[first].to("meta")}, pc.PrecodeValueError, f"'{first}' is on the meta device"),
        (list(state), pc.PrecodeTypeError, "state must be a state dict, not list"),
    ):
        with pytest.raises(error, match=match):
            pc.load_plain_state_dict(module, wrong)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("average", [None, get_ema_multi_avg_fn(0.5)])
def test_averages_of_masked_modules_keep_their_masks(average):
    module, ticket, x = pruned("mlp")
    averaged = AveragedModel(module, multi_avg_fn=average)
    optimizer = torch.optim.SGD(module.parameters(), 0.5)
    seen = []
    for _ in range(3):
        optimizer.zero_grad()
        module(x).square().sum().backward()
        optimizer.step()
        averaged.update_parameters(module)
        seen.append(module[0].weight.detach().clone())
    mean = sum(seen) / 3 if average is None else (seen[0] * 0.25 + seen[1] * 0.25 + seen[2] * 0.5)
    torch.testing.assert_close(averaged.module[0].weight.detach(), mean)
    assert not averaged.module[0].weight[~ticket.masks["0.weight"]].any()
    plain, _ = made("mlp")
    plain.load_state_dict(pc.plain_state_dict(averaged))
    torch.testing.assert_close(plain(x), averaged(x))


def test_a_folder_of_the_hub(tmp_path):
    _, ticket, _ = pruned("convolutional")
    ticket.save_pretrained(tmp_path / "new" / "folder")
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["README.md", "ticket.safetensors"]
    assert pc.Ticket.from_pretrained(tmp_path / "new" / "folder") == ticket
    text = (tmp_path / "new" / "folder" / "README.md").read_text(encoding="utf-8")
    yaml = pytest.importorskip("yaml")
    about = yaml.safe_load(text.split("---\n")[1])
    assert about["library_name"] == "precode"
    assert about["precode"] == {"method": "magnitude-init", "density": 0.4, "kept": ticket.kept, "total": ticket.total}
    assert "| `body.0.weight` | 4 × 2 × 3 × 3 |" in text
    (tmp_path / "new" / "folder" / "README.md").write_text("---\nlicense: mit\n---\nMy model.")
    ticket.save_pretrained(tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder" / "README.md").read_text() == "---\nlicense: mit\n---\nMy model."
    with pytest.raises(pc.PrecodeFileError, match="folder"):
        pc.Ticket.from_pretrained(tmp_path / "no folder")
    (tmp_path / "file").write_text("")
    with pytest.raises(pc.PrecodeFileError, match="cannot be written"):
        ticket.save_pretrained(tmp_path / "file" / "below")


def test_the_hubs_own_reader_takes_the_card(tmp_path):
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    _, ticket, _ = pruned("mlp")
    ticket.save_pretrained(tmp_path)
    data = hub.ModelCard.load(tmp_path / "README.md").data
    assert data.library_name == "precode"
    assert "lottery-ticket" in data.tags
