"""Sparse autoencoders beside plain PyTorch, and which of their features are clauses."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import precode as pc
from precode.experiments.dictionaries import KINDS, begin, encode, learn
from precode.experiments.neighbour_dictionary import activations, aucs, satisfied, scores

DICTIONARY = pc.experiments.dictionary


class Plain(torch.nn.Module):
    """A sparse autoencoder as its paper writes it, one penalty, on inputs that have been scaled."""

    def __init__(self, kind, start, penalty):
        super().__init__()
        self.kind, self.penalty = kind, penalty
        for name, value in start.items():
            self.register_parameter(name, torch.nn.Parameter(value[0].clone()))

    def loss(self, x):
        """Equation 8 of arXiv 2404.16014, or the mean of squares plus the penalty."""
        total = 0.0
        for row in x:
            centered = row - self.center
            if self.kind == "sparse":
                f = torch.relu(self.encoder @ centered + self.bias)
                total = total + ((self.decoder @ f + self.center - row) ** 2).sum() + self.penalty * f.sum()
                continue
            gate = self.encoder @ centered + self.gate
            magnitude = torch.relu((self.scale.exp()[:, None] * self.encoder) @ centered + self.bias)
            f = torch.where(gate > 0, magnitude, torch.zeros_like(magnitude))
            via_gate = self.decoder.detach() @ torch.relu(gate) + self.center.detach()
            total = total + ((self.decoder @ f + self.center - row) ** 2).sum()
            total = total + self.penalty * torch.relu(gate).sum() + ((via_gate - row) ** 2).sum()
        return total / len(x)


@pytest.mark.parametrize("kind", KINDS)
def test_dictionaries_are_learned_as_plain_modules_are(kind):
    x = torch.rand(80, 5, generator=torch.Generator().manual_seed(1)) * 3
    penalties, sizes = [0.05, 0.8], {"features": 7, "steps": 25, "batch": 8, "lr": 0.01, "seed": 3}
    found = learn(kind, x, penalties, **sizes)
    scale = (5 / x.square().sum(1).mean()).sqrt()
    for number, penalty in enumerate(penalties):
        generator = torch.Generator().manual_seed(3)
        module = Plain(kind, begin(kind, x * scale, 7, 1, generator), penalty)
        optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
        for _ in range(25):
            chosen = torch.randint(80, (8,), generator=generator)
            optimizer.zero_grad()
            module.loss((x * scale)[chosen]).backward()
            optimizer.step()
            with torch.no_grad():
                module.decoder /= module.decoder.norm(dim=0)
        for name, value in module.named_parameters():
            ours = found[name][number] * (scale if name in ("bias", "gate", "center") else 1)
            torch.testing.assert_close(ours, value.detach(), rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_at_the_scale_of_the_activations(kind):
    x = torch.rand(60, 4, generator=torch.Generator().manual_seed(2))
    sizes = {"features": 6, "steps": 30, "batch": 16, "lr": 0.01, "seed": 0}
    one, ten = learn(kind, x, [0.1], **sizes), learn(kind, 10 * x, [0.1], **sizes)
    torch.testing.assert_close(encode(ten, 10 * x)[0], 10 * encode(one, x)[0], rtol=1e-3, atol=1e-4)


def test_penalties_are_learned_each_as_if_alone():
    x = torch.rand(60, 4, generator=torch.Generator().manual_seed(2))
    sizes = {"features": 6, "steps": 20, "batch": 16, "lr": 0.01, "seed": 0}
    both, alone = learn("gated", x, [0.1, 0.7], **sizes), learn("gated", x, [0.7], **sizes)
    for name, value in alone.items():
        torch.testing.assert_close(both[name][1:], value, rtol=1e-4, atol=1e-6)


def test_areas_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth = rng.random((200, 3)) < 0.3
    features = np.where(rng.random((200, 4)) < 0.5, 0, rng.random((200, 4)))
    expected = [[roc_auc_score(truth[:, c], features[:, k]) for k in range(4)] for c in range(3)]
    np.testing.assert_allclose(aucs(features, truth), expected)
    assert np.isnan(aucs(features, np.zeros((200, 1), dtype=bool))).all()


def test_a_feature_that_is_a_clause_is_found_and_others_are_not():
    task = pc.Dnf([[0, 1], [2, ~3]], variables=5)
    x = task.sample(600, seed=0).x.numpy()
    truth = satisfied(task, x)
    np.testing.assert_array_equal(truth[:, 1], x[:, 2] & ~x[:, 3])
    noise = np.random.default_rng(0).random((600, 2))
    found = scores(np.column_stack([truth[:, 0], noise, np.zeros(600)]), truth, 0.95)
    assert found["recall"] == 0.5
    assert found["precision"] == pytest.approx(1 / 3)  # the feature that is never active does not count
    assert found["live"] == 3


def test_activations_are_those_of_the_module():
    task = pc.Dnf.random(clauses=4, seed=0)
    runs = pc.train([task], hidden=8, samples=640, epochs=2, embedding="projection-16-fixed")
    x = runs.data[0].x
    c0, w1, b1 = (runs.weights[name][0] if name != "c0" else runs.c0[0] for name in ("c0", "w1", "b1"))
    expected = torch.relu(x.float() @ c0.T @ w1.T + b1)
    torch.testing.assert_close(activations(runs, 0, x), expected)


def test_a_formula_is_the_same_alone_and_the_quick_form_draws():
    both = DICTIONARY(**DICTIONARY.quick, progress=False)
    alone = DICTIONARY(**{**DICTIONARY.quick, "formulas": 1}, progress=False)
    whole = both.tables["finders"]
    expected = whole[whole["formula"] == 0].reset_index(drop=True)
    assert alone.tables["finders"].equals(expected)
    assert set(whole["finder"]) == {"neurons", "codes", "random", *KINDS}
    for figure in both.figures:
        assert both.plot(figure).get_ylabel()


def test_impossible_settings_are_refused_before_any_training():
    with pytest.raises(pc.PrecodeValueError, match=r"found = 0\.5"):
        DICTIONARY(found=0.5)
    with pytest.raises(pc.PrecodeValueError, match="penalties"):
        DICTIONARY(penalties=(-1.0,))
    with pytest.raises(pc.PrecodeValueError, match="lr = 0"):
        DICTIONARY(lr=0)
