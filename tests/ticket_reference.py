"""Independent references for the ticket methods: plain PyTorch and NumPy, written from the formulas alone.

One network at a time, in float64, as slow as it is plain. Nothing here is shared with the code under test, and
nothing was taken from it: each function follows its published formula, or the definition in the documentation.
A network is an ``nn.Module``, never changed; scores and masks map a parameter's name to a tensor of its shape.
The order of weights is that of the names, each tensor flat in row-major order: the *flat index*.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

Scores = dict[str, Tensor]
Masks = dict[str, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


class Level(NamedTuple):
    """One round of IMP: the mask it trained under, its network at the start and at the end."""

    masks: Masks
    start: nn.Module
    trained: nn.Module


# Networks


def mlp(layers: Sequence[tuple[ArrayLike, ArrayLike | None]]) -> nn.Sequential:
    """The network of (W (out, in), b (out,) or None) layers, ReLU between: names "0.weight", "0.bias", "2.weight"."""
    parts: list[nn.Module] = []
    for weight, bias in layers:
        w = torch.tensor(np.array(weight, dtype=np.float64, order="C"))
        linear = nn.Linear(w.shape[1], w.shape[0], bias=bias is not None, dtype=torch.float64)
        linear.weight = nn.Parameter(w)
        if bias is not None:
            linear.bias = nn.Parameter(torch.tensor(np.array(bias, dtype=np.float64, order="C")))
        parts += [linear, nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def bce(logits: Tensor, y: Tensor) -> Tensor:
    """Mean binary cross entropy of logits against labels 0/1 of as many entries."""
    return nn.functional.binary_cross_entropy_with_logits(logits, y.reshape(logits.shape).to(logits.dtype))


def weight_names(module: nn.Module, prunable: Sequence[str] | None = None) -> list[str]:
    """The prunable names as given, or those of the weights of every linear layer."""
    if prunable is not None:
        return list(prunable)
    return [f"{name}.weight" for name, part in module.named_modules() if isinstance(part, nn.Linear)]


def copy_of(module: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    """An independent copy in ``dtype``."""
    return copy.deepcopy(module).to(dtype)


def masked(module: nn.Module, masks: Masks, dtype: torch.dtype = torch.float64) -> nn.Module:
    """An independent copy whose parameters are multiplied by their masks."""
    out = copy_of(module, dtype)
    with torch.no_grad():
        for name, mask in masks.items():
            out.get_parameter(name).mul_(mask)
    return out


# Selection


def kept_count(density: float, size: int) -> int:
    """The number kept of ``size`` weights: density * size, rounded half to even."""
    return round(density * size)


def kept_counts(sizes: Sequence[int], density: float, scope: str) -> list[int]:
    """Numbers kept: one over all tensors (scope "global") or one per tensor ("layer")."""
    if scope == "global":
        return [kept_count(density, sum(sizes))]
    if scope == "layer":
        return [kept_count(density, size) for size in sizes]
    raise ValueError(f"unknown scope: {scope!r}")


def top_k(scores: Scores, k: int, among: Masks | None = None) -> Masks:
    """The k highest scores of all tensors together, ties to the lowest flat index; only where ``among`` is 1."""
    values = [v for score in scores.values() for v in score.flatten().tolist()]
    allowed = [True] * len(values)
    if among is not None:
        allowed = [bool(v) for name in scores for v in among[name].flatten().tolist()]
    candidates = [i for i in range(len(values)) if allowed[i]]
    if not all(math.isfinite(values[i]) for i in candidates):
        raise ValueError("a score is not finite")
    if k > len(candidates):
        raise ValueError(f"{k} of {len(candidates)} weights cannot be kept")
    chosen = set(sorted(candidates, key=lambda i: (-values[i], i))[:k])
    masks, first = {}, 0
    for name, score in scores.items():
        bits = [first + i in chosen for i in range(score.numel())]
        masks[name] = torch.tensor(bits, dtype=torch.bool).reshape(score.shape)
        first += score.numel()
    return masks


def select(scores: Scores, density: float, among: Masks | None = None, scope: str = "global") -> Masks:
    """Exactly ``kept_counts`` of the highest scores, over all tensors or in each."""
    counts = kept_counts([s.numel() for s in scores.values()], density, scope)
    if scope == "global":
        return top_k(scores, counts[0], among)
    out: Masks = {}
    for (name, score), k in zip(scores.items(), counts, strict=True):
        out |= top_k({name: score}, k, among)
    return out


# Scores


def magnitude(module: nn.Module, prunable: Sequence[str] | None = None) -> Scores:
    """abs(theta); of the initial or of the trained network."""
    net = copy_of(module)
    return {name: net.get_parameter(name).detach().abs() for name in weight_names(net, prunable)}


def snip(module: nn.Module, x: Tensor, y: Tensor, loss: Loss = bce, prunable: Sequence[str] | None = None) -> Scores:
    """abs(theta * dL/dtheta), L over all of (x, y) (Lee et al. 2019, arXiv 1810.02340); not normalised."""
    net = copy_of(module)
    names = weight_names(net, prunable)
    theta = [net.get_parameter(name).requires_grad_() for name in names]
    gradient = torch.autograd.grad(loss(net(x.double()), y), theta)
    return {name: (p * g).detach().abs() for name, p, g in zip(names, theta, gradient, strict=True)}


def grasp(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: Loss = bce,
    prunable: Sequence[str] | None = None,
    temperature: float = 200.0,
) -> Scores:
    """theta * (H g), the highest kept (Wang et al. 2020, arXiv 2002.07376); H and g of the prunable weights alone.

    The loss takes the logits divided by ``temperature``. H g is the gradient of (g held fixed) . g(theta).
    """
    net = copy_of(module)
    names = weight_names(net, prunable)
    theta = [net.get_parameter(name).requires_grad_() for name in names]
    g = torch.autograd.grad(loss(net(x.double()) / temperature, y), theta, create_graph=True)
    product = torch.stack([(a.detach() * a).sum() for a in g]).sum()
    hg = torch.autograd.grad(product, theta)
    return {name: (p * h).detach() for name, p, h in zip(names, theta, hg, strict=True)}


def synflow_score(
    module: nn.Module, masks: Masks | None = None, prunable: Sequence[str] | None = None
) -> tuple[Scores, float]:
    """theta * dR/dtheta at abs(masked theta), and R = 1' prod abs(theta) 1 (Tanaka et al. 2020, arXiv 2006.05467).

    The input is ones and biases are zero, so that every ReLU passes its input on. Linear layers that are not
    prunable, such as a fixed embedding, take part in R with their absolute values.
    """
    names = weight_names(module, prunable)
    theta: dict[str, Tensor] = {}
    flow: Tensor | None = None
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear):
            weight = part.weight.detach().double().abs()
            if masks is not None and f"{name}.weight" in masks:
                weight = weight * masks[f"{name}.weight"]
            theta[f"{name}.weight"] = weight.requires_grad_()
            flow = weight @ (torch.ones(part.in_features, dtype=torch.float64) if flow is None else flow)
        elif not isinstance(part, nn.ReLU | nn.Sequential):
            raise ValueError(f"not a chain of Linear and ReLU: {name} is {type(part).__name__}")
    if flow is None:
        raise ValueError("no linear layer")
    total = flow.sum()
    gradient = torch.autograd.grad(total, [theta[name] for name in names])
    return {name: (theta[name] * g).detach() for name, g in zip(names, gradient, strict=True)}, total.item()


def synflow(
    module: nn.Module,
    density: float,
    prunable: Sequence[str] | None = None,
    rounds: int = 100,
    scope: str = "global",
) -> tuple[Masks, Scores]:
    """The mask after ``rounds`` rounds, and the scores that chose it; round t keeps density^(t / rounds).

    Each round scores the network under the mask so far and chooses among its survivors.
    """
    names = weight_names(module, prunable)
    masks = {name: torch.ones_like(module.get_parameter(name), dtype=torch.bool) for name in names}
    scores: Scores = {}
    for t in range(1, rounds + 1):
        scores, _ = synflow_score(module, masks, names)
        masks = select(scores, density ** (t / rounds), masks, scope)
    return masks, scores


# Training


def batches_of(orders: Sequence[ArrayLike], size: int = 64) -> list[NDArray[np.int64]]:
    """The batches of sample indices, one order of all samples an epoch; an epoch's last batch may be smaller."""
    out = []
    for order in orders:
        index = np.asarray(order, dtype=np.int64)
        out += [index[first : first + size] for first in range(0, len(index), size)]
    return out


def train(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    batches: Sequence[ArrayLike],
    masks: Masks | None = None,
    lr: float = 1e-3,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    loss: Loss = bce,
    dtype: torch.dtype = torch.float64,
) -> nn.Module:
    """A trained copy: Adam with a fresh state, one step per batch, weights multiplied by their masks in the forward.

    Pruned weights start at 0. Their gradient is 0, so that they, their moments and their decay stay 0.
    Only parameters that require a gradient are trained: freeze an embedding with ``requires_grad_(False)``.
    """
    masks = masks or {}
    net = masked(module, masks, dtype)
    inputs = x.to(dtype)
    parameters = {name: p for name, p in net.named_parameters() if p.requires_grad}
    optimizer = torch.optim.Adam(parameters.values(), lr, betas, eps, weight_decay, foreach=False)
    for batch in batches:
        index = torch.tensor(np.asarray(batch, dtype=np.int64))
        effective = {name: p * masks[name] if name in masks else p for name, p in parameters.items()}
        logits = torch.func.functional_call(net, effective, (inputs[index],))
        optimizer.zero_grad()
        loss(logits, y[index]).backward()
        optimizer.step()
    return net


def imp(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    batches: Sequence[ArrayLike],
    densities: Sequence[float],
    prunable: Sequence[str] | None = None,
    lr: float = 1e-3,
    *,
    drop: float = 0.2,
    scope: str = "global",
    keep_trained: bool = False,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    loss: Loss = bce,
    dtype: torch.dtype = torch.float64,
) -> tuple[list[Masks], list[Level]]:
    """Iterative magnitude pruning (Frankle & Carbin 2019): a mask per density, and the levels that were trained.

    Level t keeps (1 - drop)^t of all prunable weights: the largest abs(theta_T) of level t - 1 among its survivors.
    It starts at ``module`` times its mask, with ``keep_trained`` at level t - 1's theta_T times its mask
    (learning-rate rewinding and fine-tuning, which are one at a constant rate), and sees the same batches.
    The mask of density d is the top k of abs(theta_T) among the survivors of the last level that keeps more than k.
    Rewinding to step i is ``imp(train(module, x, y, batches[:i]), x, y, batches[i:], ...)``.
    """
    names = weight_names(module, prunable)
    sizes = [module.get_parameter(name).numel() for name in names]
    masks = {name: torch.ones_like(module.get_parameter(name), dtype=torch.bool) for name in names}
    wanted = [kept_counts(sizes, density, scope) for density in densities]
    out: list[Masks] = [masks] * len(densities)
    levels: list[Level] = []
    # At equal counts one more round would choose all survivors, so counts say as much as densities do.
    while above := [
        i
        for i, counts in enumerate(wanted)
        if any(now > k for now, k in zip(kept_counts(sizes, (1 - drop) ** len(levels), scope), counts, strict=True))
    ]:
        start = masked(levels[-1].trained if keep_trained and levels else module, masks, dtype)
        trained = train(
            start, x, y, batches, masks, lr, betas=betas, eps=eps, weight_decay=weight_decay, loss=loss, dtype=dtype
        )
        levels.append(Level(masks, start, trained))
        size = magnitude(trained, names)
        for i in above:
            out[i] = select(size, densities[i], masks, scope)
        masks = select(size, (1 - drop) ** len(levels), masks, scope)
    return out, levels


# Masks


def flat(masks: Masks) -> NDArray[np.bool_]:
    """All masks as one vector."""
    return np.concatenate([np.asarray(mask.cpu(), dtype=np.bool_).ravel() for mask in masks.values()])


def early_bird(
    masks: Sequence[Masks],
    threshold: float = 0.1,
    window: int = 5,
    *,
    normalise: bool = False,
    density: float | None = None,
) -> int | None:
    """The epoch, counted from 1, whose mask is within ``threshold`` of each of the window - 1 masks before it.

    ``masks`` has one entry per epoch (You et al. 2020, arXiv 1909.11957). The distance is the fraction of entries
    that differ; with ``normalise`` it is divided by 2 d (1 - d), that of two random masks, d being ``density`` or the
    fraction kept in the newest mask. None where no epoch fires, at the earliest ``window``.
    """
    vectors = [flat(m) for m in masks]
    for epoch in range(window, len(vectors) + 1):
        newest = vectors[epoch - 1]
        d = newest.mean() if density is None else density
        divisor = 2 * d * (1 - d) if normalise and 0 < d < 1 else 1.0
        distances = [np.mean(newest != old) / divisor for old in vectors[epoch - window : epoch - 1]]
        if max(distances) <= threshold:
            return epoch
    return None


def mask_overlap(first: ArrayLike, second: ArrayLike, by: str = "all") -> dict[str, NDArray[np.float64]]:
    """Agreement of two masks (j, n) in all (0-d), by "row" (j,) or by "column" (n,).

    shared, union: entries kept by both and by either; jaccard: shared / union, 1 where both keep none;
    hamming: entries that differ; hamming_fraction: that over the number of entries.
    """
    a, b = np.asarray(first, dtype=np.bool_), np.asarray(second, dtype=np.bool_)
    if a.shape != b.shape:
        raise ValueError(f"masks of shapes {a.shape} and {b.shape}")
    axis = {"all": None, "row": 1, "column": 0}[by]
    shared = np.asarray((a & b).sum(axis=axis), dtype=np.float64)
    union = np.asarray((a | b).sum(axis=axis), dtype=np.float64)
    entries = a.size if axis is None else a.shape[axis]
    return {
        "shared": shared,
        "union": union,
        "jaccard": np.where(union == 0, 1.0, shared / np.maximum(union, 1.0)),
        "hamming": union - shared,
        "hamming_fraction": (union - shared) / entries,
    }


# Linear mode connectivity


def error_rate(module: nn.Module, x: Tensor, y: Tensor) -> float:
    """Fraction of outputs where (logit > 0) differs from the label."""
    with torch.no_grad():
        logits = copy_of(module)(x.double())
    return ((logits > 0) != (y.reshape(logits.shape) > 0.5)).double().mean().item()


def segment_errors(
    first: nn.Module,
    second: nn.Module,
    x: Tensor,
    y: Tensor,
    points: int = 11,
    error: Callable[[nn.Module, Tensor, Tensor], float] = error_rate,
) -> NDArray[np.float64]:
    """(points,) error of (1 - a) first + a second, a from 0 to 1 in equal steps, biases included."""
    ends = dict(copy_of(first).named_parameters()), dict(copy_of(second).named_parameters())
    errors = []
    for a in np.linspace(0.0, 1.0, points):
        between = copy_of(first)
        with torch.no_grad():
            for name, p in between.named_parameters():
                p.copy_((1 - a) * ends[0][name] + a * ends[1][name])
        errors.append(error(between, x, y))
    return np.array(errors)


def barrier(errors: ArrayLike) -> float:
    """Largest error along a segment, ends included, less the mean of its end errors (arXiv 1912.05671)."""
    values = np.asarray(errors, dtype=np.float64)
    return float(values.max() - (values[0] + values[-1]) / 2)
