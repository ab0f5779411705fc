"""Tickets of modules drawn at random against a plain reference, and what is left of the module afterwards."""

import random
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import assume, event, example, given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader, TensorDataset

import module_reference as reference
import precode as pc
from random_modules import NORMS, WIDTH, WRAPPERS, Part, build, parts

pytestmark = pytest.mark.usefixtures("one_thread")

SAMPLES = 12

NEAR = {torch.float64: 1e-8, torch.float32: 2e-4, torch.bfloat16: 0.1}
"""How near to the least kept score, as a part of the largest, scores are that rounding may exchange."""


def penalized(output, y, module):
    return cross_entropy(output, y) + 0.01 * sum(each.square().sum() for each in module.parameters())


# A loss, and whether it is of classes.
LOSSES = {"cross entropy": (cross_entropy, True), "mse": (mse_loss, False), "penalized": (penalized, True)}


class Generated:
    """Batches that a generator makes, anew whenever they are asked for."""

    def __init__(self, pairs):
        self.pairs = pairs

    def __iter__(self):
        yield from self.pairs


FORMS = {
    "none": lambda pairs: (None, None),
    "list": lambda pairs: (pairs, None),
    "mappings": lambda pairs: ([({"input": x}, y) for x, y in pairs], None),
    "lists": lambda pairs: ([([x], y) for x, y in pairs], None),
    "whole mappings": lambda pairs: (
        [{"x": x, "y": y} for x, y in pairs],
        lambda batch: (batch["x"], batch["y"]),
    ),
    "generated": lambda pairs: (Generated(pairs), None),
    "generator": lambda pairs: ((pair for pair in pairs), None),
    "loader": lambda pairs: (
        DataLoader(TensorDataset(*(torch.cat(each) for each in zip(*pairs, strict=True))), len(pairs[0][0])),
        None,
    ),
}


@dataclass(frozen=True)
class Data:
    """How the samples are given: of which form, cut where, of which type and loss, how many labels left out."""

    form: str
    cuts: tuple[int, ...]
    dtype: torch.dtype
    loss: str
    ignored: int

    def draw(self):
        """Batches for the reference, and what the product is given."""
        x = torch.randn(SAMPLES, WIDTH).to(self.dtype)
        y = torch.randint(3, (SAMPLES,)) if LOSSES[self.loss][1] else torch.randn(SAMPLES, 3).to(self.dtype)
        if LOSSES[self.loss][1]:
            y[: self.ignored] = reference.IGNORED
        ends = list(self.cuts)
        if self.form == "loader":  # batches of one size, and what is left over
            ends = list(range(ends[0], SAMPLES, ends[0])) if ends else []
        pairs = list(zip(x.tensor_split(ends), y.tensor_split(ends), strict=True))
        return [({"input": x}, y) for x, y in pairs], *FORMS[self.form](pairs)


data = st.builds(
    Data,
    st.sampled_from(list(FORMS)),
    st.lists(st.integers(1, SAMPLES - 1), max_size=2, unique=True).map(sorted).map(tuple),
    st.sampled_from([torch.float64, torch.float64, torch.float32, torch.bfloat16]),
    st.sampled_from(list(LOSSES)),
    st.sampled_from([0, 0, 3, SAMPLES]),
)


def random_states():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002


def state_of(module):
    """All that a search must leave as it is."""
    return [
        [(name, value.tolist(), value.requires_grad, id(value.grad)) for name, value in module.named_parameters()],
        [value.grad.tolist() for value in module.parameters() if value.grad is not None],
        [(name, value.tolist()) for name, value in module.named_buffers()],
        [(layer.training, len(layer._forward_hooks), len(layer._forward_pre_hooks)) for layer in module.modules()],
        torch.is_grad_enabled(),
    ]


def differing(masks, scores, expected):
    """How far from the least kept score the weights are that two masks do not share."""
    least = min((float(scores[name][mask].min()) for name, mask in expected.items() if mask.any()), default=0.0)
    apart = [(scores[name][masks[name] != mask] - least).abs() for name, mask in expected.items()]
    return max((float(each.max()) for each in apart if each.numel()), default=0.0)


def largest(scores):
    return max(float(score.abs().max()) for score in scores.values())


def ties(scores, masks, near):
    """Of the kept weights, the part that pruned ones score as high as, but for rounding."""
    flat = torch.cat([score.flatten() for score in scores.values()])
    kept = torch.cat([mask.flatten() for mask in masks.values()])
    close = (flat - flat[kept].min()).abs() <= near * flat.abs().max()
    return float((close & kept).sum() / kept.sum()) if (close & ~kept).any() else 0.0


def compared(scores, scope):
    """The scores that are compared with one another."""
    return [scores] if scope == "global" else [{name: score} for name, score in scores.items()]


@dataclass(frozen=True)
class Case:
    """A search: of which module, in which wrapper and mode, by which method, for what."""

    parts: list[Part]
    wrapper: str
    evaluated: bool
    data: Data
    method: str
    scope: str
    density: float
    temperature: float
    gradients: bool
    seed: int

    @property
    def near(self):
        """How near scores are that rounding may exchange; synaptic flow is float64 whatever the weights are."""
        return 1e-8 if self.method in ("synflow", "magnitude-init") else NEAR[self.data.dtype]

    def kinds(self):
        return [part.kind for part in self.parts]

    def scores(self, module, names, batches):
        """The scores that the reference chooses by; of synaptic flow, those of the last round."""
        loss = LOSSES[self.data.loss][0]
        three = loss if loss is penalized else lambda output, y, _: loss(output, y)
        if self.method == "magnitude-init":
            return reference.magnitude(module, names)
        if self.method == "snip":
            return reference.snip(module, names, batches, three)
        return reference.grasp(module, names, batches, three, self.temperature)

    def is_noisy(self, module):
        """Whether dropout, whose draws are the product's own, is a part of the scores."""
        dropped = [each for each in reference.trained(module).modules() if isinstance(each, nn.Dropout)]
        return self.method in ("snip", "grasp") and any(each.p and each.training for each in dropped)

    def is_explained(self, error, module, names, batches):
        """Whether what a refusal says is so."""
        said = str(error)
        sizes = [module.get_parameter(name).numel() for name in names]
        alone = any(len(inputs["input"]) == 1 for inputs, _ in batches)
        statistics = any(kind in NORMS for kind in self.kinds())
        if "can be read only once" in said:
            return self.data.form == "generator"
        if "cannot be copied" in said:
            place = self.kinds().index("old weight norm")
            return f"of layer '{place}" in said
        if "needs data and a loss" in said or "pass data=" in said:
            return self.data.form == "none" and self.method != "magnitude-init"
        if "keeps none of" in said:
            return round(self.density * (min(sizes) if self.scope == "per-layer" else sum(sizes))) == 0
        if "have a batch of one sample" in said:
            return alone and statistics
        if "synaptic flow is that of one sample" in said:
            return "batch norm without statistics" in self.kinds()
        if "no batch of the data counts" in said:
            return self.data.ignored == SAMPLES
        if self.method == "synflow":
            rounds = reference.synflow(module, names, batches[0][0], self.density, self.scope)
            if "does not depend on the weights" in said:
                return any(
                    max(float(score.sum()) for score in each.scores.values()) <= 1e-8 * abs(each.total)
                    for each in rounds
                )
            scores, masks = rounds[-1].scores, rounds[-1].kept
        elif self.is_noisy(module):
            return "do not tell the weights apart" in said
        else:
            scores = self.scores(module, names, batches)
            if "is not finite" in said:
                return not all(bool(score.isfinite().all()) for score in scores.values())
            masks = reference.chosen(scores, self.density, self.scope)
        if "do not tell the weights apart" not in said:
            return False
        tied = [ties(part, {name: masks[name] for name in part}, self.near) for part in compared(scores, self.scope)]
        return max(tied) > 0.4


cases = st.builds(
    Case,
    parts=st.lists(parts, max_size=4),
    wrapper=st.sampled_from(list(WRAPPERS)),
    evaluated=st.booleans(),
    data=data,
    method=st.sampled_from(["magnitude-init", *["snip"] * 4, *["grasp"] * 4, "synflow"]),
    scope=st.sampled_from(["global", "per-layer"]),
    density=st.floats(0.05, 1.0),
    temperature=st.sampled_from([200.0, 1.0]),
    gradients=st.booleans(),
    seed=st.integers(0, 2**16),
)


@example(
    Case(
        [
            Part("linear", "none", False),
            Part("attention", "none", False),
            *[Part("cross attention", "none", False)] * 2,
        ],
        "none",
        False,
        Data("list", (1,), torch.float32, "cross entropy", 0),
        "snip",
        "per-layer",
        0.5,
        200.0,
        False,
        0,
    )
)
@given(cases)
def test_masks_are_those_of_a_plain_reference(case):
    with torch.random.fork_rng():
        torch.manual_seed(case.seed)
        dressed, module, names, left_out = build(case.parts)
        dressed.to(case.data.dtype)
        batches, given, unpack = case.data.draw()
        if case.gradients:
            for parameter in module.parameters():
                parameter.grad = torch.randn_like(parameter) if parameter.requires_grad else None
    if case.evaluated:
        dressed.eval()
        module.eval()
    copies = "old weight norm" not in case.kinds()
    assume(copies or case.wrapper != "averaged")  # which is a copy
    wrapped = WRAPPERS[case.wrapper](dressed)

    def find():
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = pc.find_ticket(
                wrapped,
                case.method,
                case.density,
                given,
                None if case.data.form == "none" else LOSSES[case.data.loss][0],
                scope=case.scope,
                unpack=unpack,
                temperature=case.temperature,
            )
        others = [str(each.message) for each in said if each.category is not pc.TicketWarning]
        assert all("not supported with oneDNN" in each for each in others), others
        return found

    before, states = state_of(wrapped), random_states()
    try:
        ticket, refusal = find(), None
    except pc.PrecodeError as error:
        ticket, refusal = None, error
    assert random_states() == states
    assert state_of(wrapped) == before
    if refusal is not None:
        event(f"refused: {str(refusal)[:30]}")
        assert case.is_explained(refusal, module, names, batches), refusal
        return
    event(f"found: {case.method}")
    assert list(ticket.masks) == names
    assert set(left_out) <= set(ticket.config["left_out"])
    sizes = [mask.numel() for mask in ticket.masks.values()]
    if case.scope == "global":
        assert ticket.kept == round(case.density * sum(sizes))
    else:
        kept = [int(mask.sum()) for mask in ticket.masks.values()]
        assert kept == [round(case.density * size) for size in sizes]
    for name, mask in ticket.masks.items():
        assert torch.equal(ticket.start[name], module.get_parameter(name).detach() * mask)
    if case.is_noisy(module):
        assert find() == ticket
    elif case.method == "synflow":
        rounds = reference.synflow(module, names, batches[0][0], case.density, case.scope)
        if any(not torch.equal(ticket.masks[name], mask) for name, mask in rounds[-1].kept.items()):
            # A round in which rounding, or the order of equal scores, decides; all later ones follow from it.
            event("synflow: another order of equal scores")
            assert any(
                ties(
                    {name: score[each.before[name]] for name, score in part.items()},
                    {name: each.kept[name][each.before[name]] for name in part},
                    1e-9,
                )
                for each in rounds
                for part in compared(each.scores, case.scope)
            )
    else:
        scores = case.scores(module, names, batches)
        expected = reference.chosen(scores, case.density, case.scope)
        for part in compared(scores, case.scope):
            # Of a layer whose scores are a millionth of the others', float32 has the rounding alone.
            rounding = max(case.near * largest(part), torch.finfo(case.data.dtype).eps * largest(scores))
            assert differing(ticket.masks, part, {name: expected[name] for name in part}) <= rounding
    ticket.apply_(wrapped)
    if not (any(kind in NORMS for kind in case.kinds()) and len(batches[0][1]) == 1):
        assert torch.isfinite(module(**batches[0][0])).all() or case.wrapper == "averaged"
    ticket.remove_(wrapped)
    assert {name for name, _ in wrapped.named_parameters()} == {name for name, *_ in before[0]}
