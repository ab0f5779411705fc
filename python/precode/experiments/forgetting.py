"""Rules that make networks of one hidden layer forget a clause, and what data of one clause are.

The rules are those of arXiv 2602.19215 as second-hand notes name them: gradient ascent, a task vector, distillation.
Their details are not public to us; ours are marked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch.nn import functional

from precode._internal.errors import PrecodeValueError
from precode._internal.threads import one_thread
from precode.formulas.datasets import Dataset
from precode.formulas.dnf import Dnf

Weights = Mapping[str, torch.Tensor]
"""Of R networks of one hidden layer and one output: w1 (R, j, n), b1 (R, j), w2 (R, j), b2 (R,)."""

Clauses = dict[str, Dataset]
"""Data sets of one clause by name, see `data_of_clause`."""

SPARE = 4
"""How many times as many samples are drawn as are wanted, because some are left out."""


def logits(weights: Weights, x: torch.Tensor) -> torch.Tensor:
    """Logits of R networks on inputs of their own, (R, samples).

    Args:
        weights: see `Weights`.
        x: numbers 0 and 1, (R, samples, n), of the weights' type.

    Example:
        >>> weights = {"w1": torch.ones(1, 1, 2), "b1": -torch.ones(1, 1), "w2": torch.ones(1, 1), "b2": torch.zeros(1)}
        >>> logits(weights, torch.ones(1, 3, 2)).tolist()
        [[1.0, 1.0, 1.0]]
    """
    hidden = torch.baddbmm(weights["b1"][:, None], x, weights["w1"].transpose(1, 2)).relu()
    out: torch.Tensor = torch.bmm(hidden, weights["w2"][:, :, None])[:, :, 0] + weights["b2"][:, None]
    return out


def descend(
    weights: Weights, batches: Iterator[tuple[torch.Tensor, torch.Tensor]], loss: Callable[..., torch.Tensor], lr: float
) -> Iterator[dict[str, torch.Tensor]]:
    """Steps of Adam on the mean loss of every network, each for itself; yields the weights after each step.

    Args:
        weights: where to start; they are left alone.
        batches: inputs (R, batch, n) and targets (R, batch), one pair a step.
        loss: of (logits, targets), both (R, batch): losses of the same shape.
        lr: learning rate.

    Example:
        >>> weights = {"w1": torch.ones(1, 1, 2), "b1": torch.zeros(1, 1), "w2": torch.ones(1, 1), "b2": torch.zeros(1)}
        >>> batch = (torch.ones(1, 4, 2), torch.zeros(1, 4))
        >>> (after,) = descend(weights, iter([batch]), soft_loss, lr=0.5)
        >>> after["b2"].round(decimals=3).tolist()
        [-0.5]
    """
    # A single matrix is multiplied by another kernel than several: a network is the same bits alone as in any stack.
    single = len(weights["w1"]) == 1
    twice = 2 if single else 1
    moving = {
        name: value.detach().repeat(twice, *[1] * (value.ndim - 1)).clone().requires_grad_()
        for name, value in weights.items()
    }
    optimizer = torch.optim.Adam(moving.values(), lr=lr)
    for x, target in batches:
        with torch.enable_grad():
            losses = loss(logits(moving, x.repeat(twice, 1, 1)), target.repeat(twice, 1))
            optimizer.zero_grad()
            losses.mean(1).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        yield {name: value.detach()[: len(weights["w1"])].clone() for name, value in moving.items()}


def soft_loss(found: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy with targets from 0 to 1."""
    return functional.binary_cross_entropy_with_logits(found, target, reduction="none")


def ascending_loss(found: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Minus the binary cross-entropy: descending on it ascends on the loss."""
    return -soft_loss(found, target)


def batches(x: torch.Tensor, y: torch.Tensor, batch: int, steps: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Samples in their order, `batch` at a time, from the start again when they end.

    Example:
        >>> [y.tolist() for _, y in batches(torch.zeros(1, 3, 1), torch.tensor([[0.0, 1.0, 2.0]]), 2, 2)]
        [[[0.0, 1.0]], [[2.0, 0.0]]]
    """
    samples = x.shape[1]
    for step in range(steps):
        rows = torch.arange(step * batch, (step + 1) * batch) % samples
        yield x[:, rows], y[:, rows]


def called_true(weights: Weights, x: torch.Tensor) -> torch.Tensor:
    """Share of inputs that each network calls True, (R,)."""
    with torch.no_grad(), one_thread():
        return (logits(weights, x) > 0).double().mean(1)


def ascend(
    weights: Weights, x: torch.Tensor, *, stop: float, lr: float, batch: int, steps: int
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Gradient ascent on the loss of inputs that are True, until few of them are called True. Our reading.

    Args:
        weights: see `Weights`.
        x: inputs that only the clause to be forgotten makes True, (R, samples, n).
        stop: share of them at which a network is done.
        lr: learning rate of Adam.
        batch: samples a step.
        steps: most of them.

    Returns:
        The weights, each network's at the step at which it was done or the last one; and these steps, -1 where the
        share was never reached.

    Example:
        >>> weights = {"w1": torch.ones(1, 1, 2), "b1": torch.zeros(1, 1), "w2": torch.ones(1, 1), "b2": torch.zeros(1)}
        >>> _, steps = ascend(weights, torch.ones(1, 4, 2), stop=0.05, lr=0.1, batch=4, steps=50)
        >>> 0 < steps.item() < 50
        True
    """
    found = {name: value.detach().clone() for name, value in weights.items()}
    taken = torch.where(called_true(weights, x) <= stop, 0, -1)
    true = torch.ones(x.shape[:2], dtype=x.dtype)
    with one_thread():
        for step, after in enumerate(descend(weights, batches(x, true, batch, steps), ascending_loss, lr), start=1):
            going = taken < 0
            for name, value in after.items():
                found[name][going] = value[going]
            taken[going & (called_true(after, x) <= stop)] = step
            if not (taken < 0).any():
                break
    return found, taken


def subtract(weights: Weights, learned: Weights, base: Weights, scale: torch.Tensor) -> dict[str, torch.Tensor]:
    """A task vector taken away: weights - scale (learned - base), with a scale of each network, (R,).

    The rule of task arithmetic (Ilharco et al., arXiv 2212.04089).

    Example:
        >>> one, two = {"b2": torch.ones(1)}, {"b2": torch.full((1,), 2.0)}
        >>> subtract(one, two, one, torch.tensor([3.0]))["b2"].tolist()
        [-2.0]
    """
    return {
        name: value - scale.to(value).view(-1, *[1] * (value.ndim - 1)) * (learned[name] - base[name])
        for name, value in weights.items()
    }


def subtract_until(
    weights: Weights, learned: Weights, base: Weights, x: torch.Tensor, *, stop: float, scales: Sequence[float]
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The task vector taken away at the least scale at which few inputs are called True. Our reading.

    Args:
        weights: see `Weights`.
        learned: those that learned the clause, from `base` on.
        base: where these began.
        x: inputs that only the clause to be forgotten makes True, (R, samples, n).
        stop: share of them at which a scale is enough.
        scales: what is tried, increasing.

    Returns:
        The weights, and the scale of each network; NaN, and the largest scale's weights, where none was enough.
    """
    chosen = torch.full((len(x),), float("nan"), dtype=torch.float64)
    for scale in scales:
        tried = torch.full((len(x),), scale, dtype=torch.float64)
        enough = called_true(subtract(weights, learned, base, tried), x) <= stop
        chosen = torch.where(chosen.isnan() & enough, tried, chosen)
    return subtract(weights, learned, base, chosen.nan_to_num(scales[-1])), chosen


def distill(
    teacher: Weights, student: Weights, x: torch.Tensor, *, lr: float, batch: int, steps: int
) -> dict[str, torch.Tensor]:
    """A student trained on what the teacher says of inputs without the clause to be forgotten. Our reading.

    Args:
        teacher: see `Weights`.
        student: its initial weights.
        x: inputs that the clause does not make True, (R, samples, n).
        lr: learning rate of Adam.
        batch: samples a step.
        steps: how many.
    """
    last = {name: value.detach().clone() for name, value in student.items()}
    with one_thread():
        with torch.no_grad():
            said = logits(teacher, x).sigmoid()
        for after in descend(student, batches(x, said, batch, steps), soft_loss, lr):
            last = after
    return last


def parts_of_update(update: torch.Tensor, direction: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The parts of updates that are parallel and orthogonal to directions, both (R, p), as the updates.

    Example:
        >>> parallel, orthogonal = parts_of_update(torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0]]))
        >>> parallel.tolist(), orthogonal.tolist()
        ([[3.0, 0.0]], [[0.0, 4.0]])
    """
    unit = functional.normalize(direction, dim=1)
    parallel = (update * unit).sum(1, keepdim=True) * unit
    return parallel, update - parallel


def flat(weights: Weights) -> torch.Tensor:
    """All weights and biases of every network in a row, (R, p), in double precision."""
    return torch.cat([value.reshape(len(value), -1).double() for value in weights.values()], 1)


def data_of_clause(task: Dnf, clause: int, samples: int, *, seed: int, index: int, held_out: bool = False) -> Clauses:
    """Data of one clause and of the others; all by the broken-clause sampler, in random order.

    Args:
        task: the formula.
        clause: number of the clause.
        samples: of each data set.
        seed: key of the random numbers.
        index: number of the data set.
        held_out: see `Dnf.sample`.

    Returns:
        By name: ``alone``, inputs that this clause makes True and no other; ``target``, half of them such inputs, half
        inputs that lack one of its literals; ``unrelated``, samples of the formula without it, less those that it makes
        True; ``all``, samples of the formula. Labels are those of the formula.

    Raises:
        PrecodeValueError: the clause is hardly ever the only one that is True, or there is no other.

    Example:
        >>> task = Dnf.random(clauses=4, seed=0)
        >>> data = data_of_clause(task, 0, 100, seed=0, index=0)
        >>> {name: (item.samples, int(item.y.sum())) for name, item in data.items()}
        {'alone': (100, 100), 'target': (100, 50), 'unrelated': (100, 50), 'all': (100, 50)}
    """
    others = [list(item) for number, item in enumerate(task.clauses) if number != clause]
    if not others:
        raise PrecodeValueError("the formula has one clause: nothing is left when it is forgotten")
    alone = Dnf([list(task.clauses[clause])], task.variables)
    rest = Dnf(others, task.variables)
    sample = partial(Dnf.sample, seed=seed, index=index, held_out=held_out)

    def drawn(of: Dnf, *, true: bool, count: int) -> torch.Tensor:
        """Inputs that this part of the formula makes True and the other does not; or that neither does."""
        x = sample(of, SPARE * count).x
        here, there = alone.evaluate(x), rest.evaluate(x)
        wanted = (here & ~there if of is alone else there & ~here) if true else ~here & ~there
        found = x[wanted][:count]
        if len(found) < count:
            raise PrecodeValueError(
                f"clause {clause} of {task}: of {SPARE * count} inputs only {len(found)} are True or False by one part "
                "of the formula alone: use formulas whose clauses share fewer variables"
            )
        return found

    def both(of: Dnf) -> Dataset:
        half = samples // 2
        x = torch.cat([drawn(of, true=True, count=samples - half), drawn(of, true=False, count=half)])
        order = torch.randperm(samples, generator=torch.Generator().manual_seed(index))
        return Dataset(x[order], task.evaluate(x[order]))

    only = drawn(alone, true=True, count=samples)
    return {
        "alone": Dataset(only, torch.ones(samples, dtype=torch.bool)),
        "target": both(alone),
        "unrelated": both(rest),
        "all": sample(task, samples),
    }
