"""Independent references for scores of any module: plain torch autograd, written from the published formulas.

Nothing here is shared with the code under test. Batches are pairs (keyword arguments of the module, labels); the loss
of the data is the mean over all labels, which `weight` counts, of the mean losses of the batches.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Scores = dict[str, Tensor]
Loss = Callable[[Tensor, Any, nn.Module], Tensor]
Batches = Sequence[tuple[dict[str, Any], Tensor]]

IGNORED = -100


def weight(labels: Tensor) -> int:
    """How many labels a mean loss is of: those of class -100 are left out by cross_entropy."""
    return int((labels != IGNORED).sum()) if labels.dtype == torch.int64 else labels.numel()


def trained(module: nn.Module) -> nn.Module:
    """A copy in the modes of its first training step: its own, or training mode where nothing is in it."""
    network = copy.deepcopy(module)
    return network if any(layer.training for layer in network.modules()) else network.train()


def loss_of_data(network: nn.Module, batches: Batches, loss: Loss, temperature: float = 1.0) -> Tensor:
    """The mean loss of all labels, the outputs divided by a temperature."""
    counts = [weight(labels) for _, labels in batches]
    terms = [
        loss(network(**inputs) / temperature, labels, network) * (count / sum(counts))
        for (inputs, labels), count in zip(batches, counts, strict=True)
        if count
    ]
    return torch.stack(terms).sum()


def magnitude(module: nn.Module, names: Sequence[str]) -> Scores:
    """The absolute values of the weights."""
    return {name: module.get_parameter(name).detach().double().abs() for name in names}


def snip(module: nn.Module, names: Sequence[str], batches: Batches, loss: Loss) -> Scores:
    """|theta g| (arXiv 1810.02340, eq. 5)."""
    network = trained(module)
    weights = [network.get_parameter(name) for name in names]
    gradient = torch.autograd.grad(loss_of_data(network, batches, loss), weights, materialize_grads=True)
    found = zip(names, weights, gradient, strict=True)
    return {name: (theta.double() * g.double()).detach().abs() for name, theta, g in found}


def grasp(module: nn.Module, names: Sequence[str], batches: Batches, loss: Loss, temperature: float) -> Scores:
    """theta (H g): those of the largest -theta (H g) are removed (arXiv 2002.07376, eq. 8).

    H and g are those of the weights that may be pruned, of the loss of the outputs over the temperature.
    """
    network = trained(module)
    weights = [network.get_parameter(name) for name in names]
    with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):  # the kernel that has second derivatives
        value = loss_of_data(network, batches, loss, temperature)
        gradient = torch.autograd.grad(value, weights, create_graph=True, materialize_grads=True)
        product = torch.stack([(g.detach() * g).sum() for g in gradient]).sum()
        if product.requires_grad:
            curvature = torch.autograd.grad(product, weights, materialize_grads=True)
        else:
            curvature = tuple(map(torch.zeros_like, weights))
    found = zip(names, weights, curvature, strict=True)
    return {name: (theta.double() * h.double()).detach() for name, theta, h in found}


class Flow:
    """Synaptic flow of a module (arXiv 2006.05467, algorithm 1), in float64.

    Magnitudes stand for weights; there are no biases and no shifts of normalization.
    """

    def __init__(self, module: nn.Module, names: Sequence[str], inputs: dict[str, Any]) -> None:
        self.network = copy.deepcopy(module).double().eval()
        for name, parameter in self.network.named_parameters():
            parameter.data = torch.zeros_like(parameter) if "bias" in name.split(".")[-1] else parameter.detach().abs()
        for name, buffer in self.network.named_buffers():
            if name.endswith("running_mean"):
                buffer.zero_()
        self.weights = {name: self.network.get_parameter(name) for name in names}
        self.full = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.ones = {
            name: torch.ones(1, *value.shape[1:], dtype=torch.float64 if value.is_floating_point() else value.dtype)
            for name, value in inputs.items()
        }

    def scores(self, masks: dict[str, Tensor]) -> tuple[Scores, float]:
        """theta dR/dtheta of the masked network for R, the summed outputs for a sample of ones, and R."""
        for name, weight in self.weights.items():
            weight.data = self.full[name] * masks[name]
        total = self.network(**self.ones).sum()
        gradient = torch.autograd.grad(total, list(self.weights.values()), materialize_grads=True)
        found = zip(self.weights.items(), gradient, strict=True)
        return {name: (weight * g).detach() for (name, weight), g in found}, float(total.detach())


def chosen(scores: Scores, density: float, scope: str, among: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """round(density n) of the n largest scores, of equal ones the first, among those that are still there."""
    if scope == "per-layer":
        each = [chosen({name: score}, density, "global", among) for name, score in scores.items()]
        return {name: mask for masks in each for name, mask in masks.items()}
    flat = torch.cat([score.flatten() for score in scores.values()])
    if among is not None:
        flat = flat.where(torch.cat([among[name].flatten() for name in scores]), -torch.inf)
    kept = torch.zeros(len(flat), dtype=torch.bool)
    kept[flat.argsort(descending=True, stable=True)[: round(density * len(flat))]] = True
    parts = kept.split([score.numel() for score in scores.values()])
    return {name: part.reshape(scores[name].shape) for name, part in zip(scores, parts, strict=True)}


class Round(NamedTuple):
    """A round of synaptic flow: what it found, the scores by which it chose, and what it kept."""

    before: dict[str, Tensor]
    scores: Scores
    kept: dict[str, Tensor]
    total: float


def synflow(
    module: nn.Module, names: Sequence[str], inputs: dict[str, Any], density: float, scope: str, rounds: int = 100
) -> list[Round]:
    """The rounds of synaptic flow, of which round t keeps density^(t / rounds)."""
    flow = Flow(module, names, inputs)
    masks = {name: torch.ones_like(module.get_parameter(name), dtype=torch.bool) for name in names}
    history = []
    for t in range(1, rounds + 1):
        found, total = flow.scores(masks)
        scores = {name: score.abs() for name, score in found.items()}
        kept = chosen(scores, density ** (t / rounds), scope, masks)
        history.append(Round(masks, scores, kept, total))
        masks = kept
    return history
