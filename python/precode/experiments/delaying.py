"""Addition in a modulus, learned late: networks that know their training pairs long before all others.

The task, the networks and their training are those of arXiv 2310.19470 and of its official code. Inputs are pairs, so
that the first two layers are a table of one row for every number, and the last two another one: a step costs little
more than what lies between them. Gradients are written out; the tests hold them against autograd.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from precode._internal.threads import one_thread

LAYERS = ("embed", "w_in", "w_out", "unembed")
"""Matrices of a network, in the layout of `torch.nn.Linear`: (e, p), (h, e), (e, h) and (p, e) for a modulus p, an
embedding of e dimensions and h neurons."""

BETAS = (0.9, 0.98)
"""Of AdamW."""

Weights = Mapping[str, torch.Tensor]
"""Of R networks, by the names `LAYERS`, each with a leading R."""


@dataclass(frozen=True)
class Split:
    """Pairs (a, b) with a >= b, and which of them are trained on.

    Attributes:
        modulus: p of (a + b) mod p.
        train: int64 (n, 2).
        test: all others, int64 (m, 2).
    """

    modulus: int
    train: torch.Tensor
    test: torch.Tensor


def split(modulus: int, share: float, seed: int) -> Split:
    """A random split of all p (p + 1) / 2 pairs.

    Args:
        modulus: p.
        share: of the pairs, for training.
        seed: key of the split.

    Example:
        >>> found = split(67, 0.4, seed=0)
        >>> len(found.train), len(found.test)
        (911, 1367)
    """
    pairs = torch.tril_indices(modulus, modulus).T
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))
    count = int(share * len(pairs))
    return Split(modulus, pairs[order[:count]], pairs[order[count:]])


def initial(modulus: int, embedding: int, hidden: int, seed: int) -> dict[str, torch.Tensor]:
    """One network, R = 1, of normal weights with standard deviation 1 / sqrt(fan in).

    Example:
        >>> {name: tuple(value.shape) for name, value in initial(7, 5, 3, seed=0).items()}
        {'embed': (1, 5, 7), 'w_in': (1, 3, 5), 'w_out': (1, 5, 3), 'unembed': (1, 7, 5)}
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = {
        "embed": (embedding, modulus),
        "w_in": (hidden, embedding),
        "w_out": (embedding, hidden),
        "unembed": (modulus, embedding),
    }
    return {name: torch.randn(1, *size, generator=generator) / math.sqrt(size[1]) for name, size in sizes.items()}


def module(weights: Weights, network: int = 0) -> nn.Sequential:
    """One network as a module: its input has a one for each of the two numbers, or a two. See `two_hot`.

    Example:
        >>> weights = initial(7, 5, 3, seed=0)
        >>> data = split(7, 0.5, seed=0)
        >>> torch.allclose(module(weights)(two_hot(data.train, 7)), logits(weights, data.train)[0], atol=1e-6)
        True
    """
    layers = [nn.Linear(value.shape[2], value.shape[1], bias=False) for value in weights.values()]
    for layer, value in zip(layers, weights.values(), strict=True):
        layer.weight.data.copy_(value[network])
    return nn.Sequential(*layers[:2], nn.ReLU(), *layers[2:])


def two_hot(pairs: torch.Tensor, modulus: int) -> torch.Tensor:
    """Pairs as inputs of `module`, (n, p).

    Example:
        >>> two_hot(torch.tensor([[1, 0], [2, 2]]), 3).tolist()
        [[1.0, 1.0, 0.0], [0.0, 0.0, 2.0]]
    """
    return functional.one_hot(pairs, modulus).sum(1).float()


class Tables:
    """R networks as two tables: what each number adds to each neuron, and what each neuron adds to each logit.

    Attributes:
        first: (R, p, h).
        last: (R, p, h).
    """

    def __init__(self, weights: Weights) -> None:
        self.first = torch.bmm(weights["embed"].mT, weights["w_in"].mT)
        self.last = torch.bmm(weights["unembed"], weights["w_out"])


class Pairs:
    """Pairs as R networks see them.

    Args:
        pairs: (n, 2).
        modulus: p.
        networks: R.
    """

    def __init__(self, pairs: torch.Tensor, modulus: int, networks: int) -> None:
        self.labels = pairs.sum(1).remainder(modulus)
        places = pairs + modulus * torch.arange(networks)[:, None, None]
        self.places = places.view(-1, 2).int()  # (R n, 2), rows of the first table of all networks
        numbers = places.reshape(-1)
        self.samples = (numbers.argsort(stable=True) // 2).int()  # by the number that they have
        counts = torch.bincount(numbers, minlength=networks * modulus)
        self.begins = (counts.cumsum(0) - counts).int()
        self.targets = self.labels[None, :, None].expand(networks, -1, 1)

    def hidden(self, tables: Tables) -> torch.Tensor:
        """What neurons say, (R, n, h)."""
        networks, _, neurons = tables.first.shape
        return (
            functional.embedding_bag(self.places, tables.first.view(-1, neurons), mode="sum")
            .relu_()
            .view(networks, -1, neurons)
        )

    def right(self, logits: torch.Tensor) -> torch.Tensor:
        """Accuracies, (R,)."""
        return (logits.argmax(-1) == self.labels).double().mean(1)

    def accuracy(self, weights: Weights) -> torch.Tensor:
        """Share of the pairs that each network adds right, (R,)."""
        tables = Tables(weights)
        return self.right(torch.bmm(self.hidden(tables), tables.last.mT))

    def gradients(self, weights: Weights, into: Weights) -> torch.Tensor:
        """Gradients of the mean cross-entropy, written into `into`; returns the logits before the step, (R, n, p)."""
        tables = Tables(weights)
        hidden = self.hidden(tables)
        logits = torch.bmm(hidden, tables.last.mT)
        # Softmax minus the label, over n.
        delta = logits.softmax(-1).scatter_add_(-1, self.targets, torch.full(self.targets.shape, -1.0))
        delta /= len(self.labels)
        last = torch.bmm(delta.mT, hidden)
        back = torch.ops.aten.threshold_backward(torch.bmm(delta, tables.last), hidden, 0)
        first = functional.embedding_bag(self.samples, back.view(-1, hidden.shape[-1]), self.begins, mode="sum")
        first = first.view(tables.first.shape)
        torch.bmm(weights["w_in"].mT, first.mT, out=into["embed"])
        torch.bmm(first.mT, weights["embed"].mT, out=into["w_in"])
        torch.bmm(weights["unembed"].mT, last, out=into["w_out"])
        torch.bmm(last, weights["w_out"].mT, out=into["unembed"])
        return logits


def logits(weights: Weights, pairs: torch.Tensor) -> torch.Tensor:
    """Logits of R networks for pairs, (R, n, p)."""
    networks, modulus, _ = weights["unembed"].shape
    tables = Tables(weights)
    return torch.bmm(Pairs(pairs, modulus, networks).hidden(tables), tables.last.mT)


def layers(flat: torch.Tensor, like: Weights) -> dict[str, torch.Tensor]:
    """Views of (R, P) numbers as the matrices of R networks."""
    sizes = [value[0].numel() for value in like.values()]
    parts = flat.split_with_sizes(sizes, 1)
    return {
        name: part.view(len(flat), *value.shape[1:]) for (name, value), part in zip(like.items(), parts, strict=True)
    }


def flatten(weights: Weights) -> torch.Tensor:
    """All numbers of R networks, (R, P), copied."""
    return torch.cat([value.reshape(len(value), -1) for value in weights.values()], 1)


@dataclass
class Course:
    """How R networks learned.

    Attributes:
        steps: at which they were measured, (M,).
        train: accuracy on the pairs that they learn, (M, R); NaN once a network has stopped.
        test: on all others.
        memorized: t_mem, the first step at which the train accuracy is above the level, NaN if there is none, (R,).
        generalized: t_gen, the first measured one at which the test accuracy is.
        weights: at the end of each.
        kept: weights at the steps that were asked for.
    """

    steps: torch.Tensor
    train: torch.Tensor
    test: torch.Tensor
    memorized: torch.Tensor
    generalized: torch.Tensor
    weights: dict[str, torch.Tensor]
    kept: dict[int, dict[str, torch.Tensor]]


class _Run:
    """Networks that are trained, their gradients and the optimizer."""

    def __init__(self, flat: torch.Tensor, like: Weights, data: Split, lr: float, rule: Mapping[str, Any]) -> None:
        self.flat, self.grad = flat, torch.zeros_like(flat)
        self.flat.grad = self.grad
        self.weights, self.grads = layers(self.flat, like), layers(self.grad, like)
        self.seen, self.fresh = (Pairs(pairs, data.modulus, len(flat)) for pairs in (data.train, data.test))
        self.optimizer = torch.optim.AdamW([self.flat], lr=lr, fused=True, **rule)
        self.like, self.data, self.lr, self.rule = like, data, lr, rule

    def only(self, on: torch.Tensor) -> _Run:
        """Some of the networks, which go on as they were."""
        run = _Run(self.flat[on], self.like, self.data, self.lr, self.rule)
        state = self.optimizer.state[self.flat]
        run.optimizer.state[run.flat] = {
            name: value.clone() if name == "step" else value[on] for name, value in state.items()
        }
        return run


def descend(
    weights: Weights,
    data: Split,
    *,
    masks: torch.Tensor | None = None,
    lr: float,
    decay: float,
    betas: tuple[float, float] = BETAS,
    steps: int,
    every: int,
    level: float = 0.95,
    after: int | None = None,
    keep: int | None = None,
) -> Course:
    """Steps of AdamW on all training pairs.

    Args:
        weights: where to start; they are left alone.
        data: what is learned.
        masks: Boolean (R, P), in the order of `flatten`: weights that are there. The others are zero throughout.
        lr: learning rate of AdamW.
        decay: its weight decay.
        betas: its betas.
        steps: most of them.
        every: steps between two measurements.
        level: accuracy above which pairs count as known.
        after: steps that a network goes on for once it has generalized. None to go on to the end.
        keep: steps between two moments at which the weights are kept, a multiple of `every`.

    Example:
        >>> course = descend(initial(7, 32, 32, seed=0), split(7, 0.6, seed=0), lr=0.01, decay=1, steps=40, every=20)
        >>> course.memorized.item() < 40, course.train[:, 0].tolist()[-1]
        (True, 1.0)
    """
    count = len(weights["embed"])
    flat = flatten(weights)
    there = None if masks is None else masks.to(flat)
    if there is not None:
        flat *= there
    ends = torch.zeros_like(flat)
    going = torch.arange(count)
    memorized, generalized, last = (torch.full((count,), value) for value in (math.nan, math.nan, math.inf))
    found: list[tuple[int, torch.Tensor, torch.Tensor]] = []
    kept: dict[int, dict[str, torch.Tensor]] = {}
    with one_thread(), torch.no_grad():
        run = _Run(flat.clone(), weights, data, lr, {"weight_decay": decay, "betas": betas})
        for step in range(steps + 1):
            said = run.seen.gradients(run.weights, run.grads)
            if memorized[going].isnan().any():
                knows = going[run.seen.right(said) > level]
                memorized[knows] = memorized[knows].nan_to_num(step)
            if step % every == 0:
                train, test = torch.full((2, count), math.nan, dtype=torch.float64)
                train[going], test[going] = run.seen.right(said), run.fresh.accuracy(run.weights)
                found.append((step, train, test))
                generalized[test > level] = generalized[test > level].nan_to_num(step)
                if keep is not None and step % keep == 0:
                    kept[step] = {name: value.clone() for name, value in run.weights.items()}
                if after is not None:
                    last = (generalized + after).nan_to_num(math.inf)
                on = last[going] > step
                if not on.all():
                    ends[going[~on]] = run.flat[~on]
                    going = going[on]
                    if not len(going):
                        break
                    there = None if there is None else there[on]
                    run = run.only(on)
            if step < steps:
                if there is not None:
                    run.grad.mul_(there)
                run.optimizer.step()
        if len(going):
            ends[going] = run.flat
    numbers, train, test = _columns(found)
    return Course(numbers, train, test, memorized, generalized, layers(ends, weights), kept)


def _columns(found: list[tuple[int, torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    steps, train, test = zip(*found, strict=True)
    return torch.tensor(steps), torch.stack(train), torch.stack(test)


def popup(
    weights: Weights,
    data: Split,
    *,
    kept: float,
    learned: bool,
    seed: int,
    lr: float,
    decay: float,
    betas: tuple[float, float] = BETAS,
    steps: int,
    every: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Edge-popup (arXiv 1911.13299) on all training pairs, as the official code has it.

    Of every layer those weights are there whose scores are largest in magnitude; scores learn by the straight-through
    gradient, under the same AdamW and decay as weights.

    Args:
        weights: where to start; they are left alone.
        data: what is learned.
        kept: share of every layer's weights that is there.
        learned: whether the weights learn and decay as well.
        seed: of the scores, uniform in +-1 / sqrt(fan in).
        lr: learning rate of AdamW.
        decay: its weight decay.
        betas: its betas.
        steps: how many.
        every: steps between two measurements.

    Returns:
        The steps that were measured, (M,), and the test accuracy at each, (M, R).
    """
    generator = torch.Generator().manual_seed(seed)
    scores = torch.cat(
        [
            (2 * torch.rand(value.shape, generator=generator) - 1).flatten(1) / math.sqrt(value.shape[2])
            for value in weights.values()
        ],
        1,
    )
    flat = flatten(weights)
    grad, there = torch.zeros_like(flat), torch.zeros_like(flat)
    grads = layers(grad, weights)
    seen, fresh = (Pairs(pairs, data.modulus, len(flat)) for pairs in (data.train, data.test))
    optimizer = torch.optim.AdamW(
        [scores, flat] if learned else [scores], lr=lr, weight_decay=decay, betas=betas, fused=True
    )
    found = []
    with one_thread(), torch.no_grad():
        for step in range(steps + 1):
            strength = layers(scores.abs(), weights)
            for name, value in layers(there, weights).items():
                least = strength[name].flatten(1).kthvalue(_pruned(value, kept), 1, keepdim=True).values
                value.copy_(strength[name] > least[..., None])
            effective = layers(flat * there, weights)
            said = seen.gradients(effective, grads)
            if step % every == 0:
                found.append((step, seen.right(said), fresh.accuracy(effective)))
            if step < steps:
                scores.grad = grad * flat * scores.sign()
                flat.grad = grad * there
                optimizer.step()
    numbers, _, test = _columns(found)
    return numbers, test


def _pruned(value: torch.Tensor, kept: float) -> int:
    """How many weights of a layer are not there."""
    return value[0].numel() - round(kept * value[0].numel())


def jaccard_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """One minus the share of the weights of either mask that both have.

    Example:
        >>> jaccard_distance(torch.tensor([True, True, False]), torch.tensor([True, False, True])) == 1 - 1 / 3
        True
    """
    return 1 - int((first & second).sum()) / int((first | second).sum())
