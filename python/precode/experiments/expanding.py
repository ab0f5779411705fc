"""Fixed-parameter expansion: every neuron is split into sub-neurons over parts of its inputs (arXiv 2510.04500).

The rule as second-hand notes tell it: weights and the output weight are copied, and the smallest weights are pruned
until there are as many as before. What the notes leave open is ours, and marked so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from precode._internal.errors import PrecodeValueError
from precode.formulas.dnf import Dnf

if TYPE_CHECKING:
    from numpy.typing import NDArray


def random_split(task: Dnf, alpha: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The sub-neuron of every input of one neuron, drawn at random: parts of as equal sizes as can be, (n,).

    Example:
        >>> task = Dnf([[0, 1], [2, 3]], variables=6)
        >>> np.bincount(random_split(task, 2, np.random.default_rng(0))).tolist()
        [3, 3]
    """
    return rng.permutation(np.arange(task.variables) % alpha)


def clause_split(task: Dnf, alpha: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The sub-neuron of every input of one neuron, (n,), with the variables of a clause together.

    Clauses are dealt to sub-neurons at random, as many to each as can be; inputs in no clause likewise. A variable of
    several clauses goes with one of them, drawn at random. All of this is our choice.

    Example:
        >>> task = Dnf([[0, 1], [2, 3]], variables=6)
        >>> part = clause_split(task, 2, np.random.default_rng(0))
        >>> bool(part[0] == part[1] != part[2] == part[3]), np.bincount(part).tolist()
        (True, [3, 3])
    """
    part = random_split(task, alpha, rng)
    order = rng.permutation(len(task.clauses))
    free = np.ones(task.variables, dtype=bool)
    for place, number in enumerate(order):
        variables = [literal if literal >= 0 else ~literal for literal in task.clauses[number]]
        part[variables] = place % alpha
        free[variables] = False
    loose = np.flatnonzero(free)
    part[loose] = rng.permutation(np.arange(len(loose)) % alpha)
    return part


Split = Callable[[Dnf, int, np.random.Generator], "NDArray[np.int64]"]

SPLITS: dict[str, Split] = {"random": random_split, "clause": clause_split}
"""Splits by name."""


def inputs_of_parts(
    tasks: Sequence[Dnf], hidden: int, alpha: int, split: str, *, overlap: float, seed: int, indices: Sequence[int]
) -> torch.Tensor:
    """Which inputs the sub-neurons of every neuron have, Boolean (R, hidden, alpha, n).

    Args:
        tasks: of R networks.
        hidden: neurons before the split.
        alpha: sub-neurons of each.
        split: a name of `SPLITS`.
        overlap: share of the inputs of the other parts, drawn at random, that a sub-neuron has as well.
        seed: key of the random numbers.
        indices: number of each network, so that its split is the same whatever others there are.

    Raises:
        PrecodeValueError: an unknown split.

    Example:
        >>> inputs = inputs_of_parts([Dnf([[0, 1], [2, 3]], 4)], 3, 2, "clause", overlap=0.0, seed=0, indices=[0])
        >>> inputs.shape, bool((inputs.sum(2) == 1).all())
        (torch.Size([1, 3, 2, 4]), True)
    """
    if split not in SPLITS:
        raise PrecodeValueError(f"split {split!r}: use one of {', '.join(SPLITS)}")
    found = np.zeros((len(tasks), hidden, alpha, tasks[0].variables), dtype=bool)
    for network, task, index in zip(found, tasks, indices, strict=True):
        rng = np.random.default_rng([seed, index, alpha, list(SPLITS).index(split)])
        for neuron in network:
            part = SPLITS[split](task, alpha, rng)
            for number, own in enumerate(neuron):
                own[:] = part == number
                others = np.flatnonzero(~own)
                own[rng.permutation(others)[: round(overlap * len(others))]] = True
    return torch.from_numpy(found)


def expand(
    weights: Mapping[str, torch.Tensor], inputs: torch.Tensor
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Networks with every neuron split, and the masks that keep as many weights and biases as there were.

    A sub-neuron has the weights of its inputs, the bias and the output weight of its neuron. Of W1 and w2 together, the
    smallest are pruned until the weights and biases of the network are as many as before. That biases are copied, and
    count, is our choice.

    Args:
        weights: of R networks of one hidden layer and one output: w1 (R, j, n), b1 (R, j), w2 (R, j), b2 (R,).
        inputs: of the sub-neurons, Boolean (R, j, alpha, n); see `inputs_of_parts`.

    Returns:
        Weights of alpha j rows, the sub-neurons of a neuron next to each other; and masks of w1 and w2.

    Raises:
        PrecodeValueError: see `budget`.

    Example:
        >>> weights = {"w1": torch.ones(1, 2, 4), "b1": torch.zeros(1, 2), "w2": torch.ones(1, 2), "b2": torch.zeros(1)}
        >>> task = Dnf([[0, 1], [2, 3]], variables=4)
        >>> inputs = inputs_of_parts([task], 2, 2, "clause", overlap=0.0, seed=0, indices=[0])
        >>> wider, masks = expand(weights, inputs)
        >>> wider["w1"].shape, int(masks["w1"].sum() + masks["w2"].sum()) + 4, 2 * 4 + 2 + 2
        (torch.Size([1, 4, 4]), 12, 12)
    """
    _, neurons, alpha, variables = inputs.shape
    wider = {name: weights[name].repeat_interleave(alpha, 1) for name in ("b1", "w2")}
    wider["w1"] = (weights["w1"][:, :, None] * inputs).flatten(1, 2)
    wider["b2"] = weights["b2"].clone()
    return keep_largest(wider, budget(neurons, variables, alpha), inputs.flatten(1, 2))


def budget(neurons: int, variables: int, alpha: int) -> int:
    """Weights of W1 and w2 that alpha times as many neurons may have: their biases count as well.

    Raises:
        PrecodeValueError: there are none, because of the biases.

    Example:
        >>> budget(8, 32, alpha=2)  # 8 * 32 + 8 weights and 8 biases, less 16 biases
        256
    """
    left = neurons * (variables + 2) - neurons * alpha
    if left < 1:
        raise PrecodeValueError(f"alpha = {alpha}: the biases alone are {neurons * (variables + 2)} numbers or more")
    return left


def keep_largest(
    weights: Mapping[str, torch.Tensor], count: int, there: torch.Tensor | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Networks pruned to the largest weights of W1 and w2 together, with their masks.

    Args:
        weights: of R networks of one hidden layer and one output.
        count: weights that are kept, exactly; ties go to the lowest place, W1 first.
        there: weights of W1 that may be kept, Boolean (R, j, n); all by default.

    Example:
        >>> weights = {"w1": torch.tensor([[[3.0, -1.0]]]), "b1": torch.zeros(1, 1), "w2": torch.tensor([[2.0]]),
        ...            "b2": torch.zeros(1)}
        >>> pruned, masks = keep_largest(weights, 2)
        >>> masks["w1"].tolist(), masks["w2"].tolist(), pruned["w1"].count_nonzero().item()
        ([[[True, False]]], [[True]], 1)
    """
    w1, w2 = weights["w1"], weights["w2"]
    sizes = torch.cat([w1.flatten(1), w2], 1).abs()
    if there is not None:
        # Sizes are at least 0, so that what is not there comes last.
        sizes = sizes.masked_fill(~torch.cat([there.flatten(1), torch.ones_like(w2, dtype=torch.bool)], 1), -1.0)
    order = sizes.sort(dim=1, descending=True, stable=True).indices[:, :count]
    kept = torch.zeros_like(sizes, dtype=torch.bool)
    kept.scatter_(1, order, value=True)
    masks = {"w1": kept[:, : w1[0].numel()].view(w1.shape), "w2": kept[:, w1[0].numel() :]}
    return {**weights, "w1": w1 * masks["w1"], "w2": w2 * masks["w2"]}, masks
