"""Beside the tickets: linear mode connectivity, overlap of masks, and rewinding on a diet of data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from precode._internal.check import COUNT, KEY, booleans, fraction, integer
from precode._internal.errors import PrecodeShapeError, PrecodeTypeError, PrecodeValueError
from precode._internal.lazy import Lazy
from precode.formulas.datasets import Dataset, data_sets
from precode.networks.stacks import Networks
from precode.networks.training import Runs, train
from precode.tickets.search import holds_projection

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
else:
    pd = Lazy("pandas")

CHOICES = ("easy", "hard", "random")


def path(first: Networks, second: Networks, data: Dataset | Sequence[Dataset], *, points: int = 11) -> pd.DataFrame:
    """Loss and error along the straight line in weight space from each network to its counterpart.

    Args:
        first: R networks.
        second: as many of the same widths and embedding.
        data: one data set for all networks, or one for each.
        points: values of alpha from 0 (`first`) to 1 (`second`), ends included.

    Returns:
        Columns network, alpha, loss (nats) and error (fraction of labels on the wrong side).

    Raises:
        PrecodeShapeError: the two do not have the same networks.
        PrecodeValueError: fewer than 2 points.

    Example:
        >>> from precode import Dnf, train
        >>> task = Dnf.random(clauses=4, seed=0)
        >>> runs = train(task, hidden=8, epochs=1, samples=640)
        >>> path(runs.start, runs, runs.data, points=3)["alpha"].tolist()
        [0.0, 0.5, 1.0]
    """
    points = integer(points, "points", 2, COUNT)
    shapes = [{name: tuple(value.shape) for name, value in side.weights.items()} for side in (first, second)]
    own = [side.embedding.matrix is None for side in (first, second)]
    same = own[0] if own[0] == own[1] else False
    if shapes[0] != shapes[1] or not (same or (not any(own) and torch.equal(first.c0, second.c0.to(first.c0)))):
        raise PrecodeShapeError(f"{first} and {second}: a line needs networks of the same widths and embedding")
    sets = data_sets(data, len(first))
    alphas = np.linspace(0, 1, points)

    def along(start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
        steps = torch.tensor(alphas, dtype=start.dtype, device=start.device)
        steps = steps.reshape(1, -1, *([1] * (start.ndim - 1)))
        line = torch.lerp(start[:, None], end.to(start)[:, None], steps)
        return line.flatten(0, 1)

    weights = {name: along(value.detach(), second.weights[name].detach()) for name, value in first.weights.items()}
    line = Networks(weights, None, first.embedding)
    table = line.evaluate([item for item in sets for _ in alphas])
    table.insert(1, "alpha", np.tile(alphas, len(first)))
    table["network"] //= points
    return table


def barrier(first: Networks, second: Networks, data: Dataset | Sequence[Dataset], *, points: int = 11) -> pd.DataFrame:
    """How much worse the worst point on the line between two networks is than their mean (arXiv 1912.05671, section 2).

    Near zero, the two lie in one linearly connected mode. Never below zero, as the ends are on the line.

    Args:
        first: see `path`.
        second: see `path`.
        data: see `path`.
        points: see `path`.

    Returns:
        Columns network, loss_barrier (nats) and error_barrier (fraction of labels).

    Example:
        >>> from precode import Dnf, train
        >>> task = Dnf.random(clauses=4, seed=0)
        >>> runs = train(task, hidden=8, epochs=1, samples=640)
        >>> barrier(runs, runs, runs.data)["error_barrier"].item()
        0.0
    """
    table = path(first, second, data, points=points)
    rows = []
    for network, line in table.groupby("network"):
        row: dict[str, Any] = {"network": network}
        for name in ("loss", "error"):
            ends = (line[name].iloc[0] + line[name].iloc[-1]) / 2
            row[f"{name}_barrier"] = float(line[name].max() - ends)
        rows.append(row)
    return pd.DataFrame(rows)


def instability(
    runs: Runs,
    epoch: int,
    *,
    order_seeds: tuple[int, int] = (1, 2),
    masks: Mapping[str, Any] | None = None,
    data: Dataset | Sequence[Dataset] | None = None,
    points: int = 11,
) -> pd.DataFrame:
    """Barrier between two copies trained from theta_k on two orders of the data (arXiv 1912.05671, section 3).

    The networks are stable to the noise of SGD at `epoch` if the barrier is about zero.

    Args:
        runs: trained networks with a snapshot at the end of epoch `epoch` (0: their start).
        epoch: epochs behind theta_k; the copies are trained for the rest of the budget, without early stopping.
        order_seeds: keys of the two orders.
        masks: see `train`; both copies are pruned so, behind the C0 that tickets of the run have.
        data: where the barrier is measured, by default the training data.
        points: see `path`.

    Returns:
        As `barrier`.

    Raises:
        PrecodeValueError: no snapshot there, or no epoch left.

    Example:
        >>> from precode import Dnf, train
        >>> runs = train(Dnf.random(clauses=4, seed=0), hidden=8, epochs=2, samples=640)
        >>> instability(runs, 0).columns.tolist()
        ['network', 'loss_barrier', 'error_barrier']
    """
    epoch = integer(epoch, "epoch", 0, runs.settings.epochs - 1)
    start = runs.start if epoch == 0 else runs.at(epoch * runs.steps_per_epoch)
    weights, embedding = start.weights, runs.embedding
    if masks is not None and holds_projection(runs):
        weights, embedding = {**weights, "c0": runs.weights["c0"]}, embedding.fixed
    first, second = (
        train(
            runs.tasks,
            data=runs.data,
            init=weights,
            masks=masks,
            embedding=embedding,
            epochs=runs.settings.epochs - epoch,
            batch=runs.settings.batch,
            optimizer=runs.settings.optimizer,
            early_stopping=None,
            order_seed=seed,
            first_epoch=epoch,
            dtype=start.weights["w1"].dtype,
            device=start.weights["w1"].device,
        )
        for seed in order_seeds
    )
    return barrier(first, second, runs.data if data is None else data, points=points)


def mask_overlap(first: Mapping[str, Any], second: Mapping[str, Any], *, by: str | None = None) -> pd.DataFrame:
    """How much two masks of the same weights agree.

    Args:
        first: Boolean tensors or arrays by name, as `Ticket.masks`.
        second: likewise, of the same names and shapes.
        by: None for whole tensors; ``"row"`` or ``"column"`` for each output or input unit, of tensors with at least
            two axes.

    Returns:
        Columns name, (row or column,) jaccard (weights kept by both among those kept by either; NaN if there are
        none), hamming (fraction of weights kept by one only), and expected_jaccard of two random masks of these
        numbers of kept weights (ratio of the expectations).

    Raises:
        PrecodeShapeError: names or shapes differ.
        PrecodeValueError: another `by`.

    Example:
        >>> mask_overlap({"w1": [[1, 1, 0, 0]]}, {"w1": [[1, 0, 1, 0]]})
          name   jaccard  hamming  expected_jaccard
        0   w1  0.333333      0.5          0.333333
    """
    if by not in (None, "row", "column"):
        raise PrecodeValueError(f"by = {by!r}: use None, 'row' or 'column'")
    for masks in (first, second):
        if not isinstance(masks, Mapping):
            raise PrecodeTypeError(f"masks must be arrays by name, not {type(masks).__name__}")
    if set(first) != set(second):
        raise PrecodeShapeError(f"masks of {', '.join(sorted(first))} and of {', '.join(sorted(second))}")
    rows = []
    for name in first:
        one, other = (booleans(masks[name], f"the mask of {name}", "masks") for masks in (first, second))
        if one.shape != other.shape:
            raise PrecodeShapeError(f"masks of {name} have shapes {one.shape} and {other.shape}")
        for unit, pair in _units(np.stack([one, other]), by):
            rows.append({"name": name, **({by: unit} if by else {}), **_agreement(*pair)})
    return pd.DataFrame(rows)


def _units(pair: NDArray[np.bool_], by: str | None) -> list[tuple[int, NDArray[np.bool_]]]:
    """Both masks of each unit, flat, (2, weights)."""
    if by is None:
        return [(0, pair.reshape(2, -1))]
    if pair.ndim < 3:
        raise PrecodeShapeError(f"a mask of shape {pair.shape[1:]} has no {by}s: it needs at least two axes")
    units = np.moveaxis(pair, 1 if by == "row" else 2, 0)
    return [(number, unit.reshape(2, -1)) for number, unit in enumerate(units)]


def _agreement(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> dict[str, float]:
    both, either = int((one & other).sum()), int((one | other).sum())
    by_chance = one.sum() * other.sum() / one.size
    neither_empty = one.sum() + other.sum() - by_chance
    return {
        "jaccard": both / either if either else float("nan"),
        "hamming": float((one != other).mean()),
        "expected_jaccard": float(by_chance / neither_empty) if neither_empty else float("nan"),
    }


def sample_difficulty(networks: Networks, data: Dataset | Sequence[Dataset]) -> list[NDArray[np.float64]]:
    """How far a network's prediction is from each label: EL2N (arXiv 2107.07075) for logits, mean over the outputs.

    Args:
        networks: R networks, early in training.
        data: one data set for all networks, or one for each.

    Returns:
        For each network, |sigmoid(logit) - label| of every sample, (samples,), in [0, 1].

    Example:
        >>> from precode import Dnf, train
        >>> runs = train(Dnf.random(clauses=4, seed=0), hidden=8, epochs=1, samples=640)
        >>> sample_difficulty(runs, runs.data)[0].shape
        (640,)
    """
    scores = []
    for number, item in enumerate(data_sets(data, len(networks))):
        module = networks.module(number)
        weight = next(module.parameters())
        with torch.no_grad():
            logits = module(item.x.to(weight)).double().cpu()
        labels = item.y.reshape(logits.shape).double()
        scores.append((logits.sigmoid() - labels).abs().mean(1).numpy())
    return scores


def gradient_norms(networks: Networks, data: Dataset | Sequence[Dataset]) -> list[NDArray[np.float64]]:
    """How much a sample would move a network: GraNd (arXiv 2107.07075), the length of its loss's gradient.

    Written out, with logit z: abs(sigmoid(z) - y) times the length of dz/dtheta. The square of this is 1 of b2, plus
    h.h of w2, plus the sum of w2^2 over the rows that are on, times 1 of b1 and seen.seen of W1, seen being C0 x. A
    trained C0 adds the squared length of w2 W1 over these rows, times x.x.

    Args:
        networks: R networks of one hidden layer and one output, early in training.
        data: one data set for all networks, or one for each.

    Returns:
        For each network, the length of every sample's gradient in all weights and biases that are trained, (samples,).

    Raises:
        PrecodeShapeError: several hidden layers or outputs.

    Example:
        >>> from precode import Dnf, train
        >>> runs = train(Dnf.random(clauses=4, seed=0), hidden=8, epochs=1, samples=640)
        >>> gradient_norms(runs, runs.data)[0].shape
        (640,)
    """
    if len(networks.widths) != 3 or networks.widths[-1] != 1:
        raise PrecodeShapeError(f"widths {networks.widths}: gradients are those of one hidden layer and one output")
    sets, c0 = data_sets(data, len(networks)), networks.c0.double()
    scores = sample_difficulty(networks, sets)
    for number, item in enumerate(sets):
        w1, b1, w2 = (networks.weights[name][number].detach().double() for name in ("w1", "b1", "w2"))
        x = item.x.to(w1)
        seen = x @ (c0 if c0.ndim == 2 else c0[number]).detach().T
        hidden = (seen @ w1.T + b1).relu()
        on = (hidden > 0) * w2
        squared = 1 + hidden.square().sum(1) + on.square().sum(1) * (1 + seen.square().sum(1))
        if networks.embedding.trained:
            squared += (on @ w1).square().sum(1) * x.square().sum(1)
        scores[number] = scores[number] * squared.sqrt().cpu().numpy()
    return scores


def diet(
    networks: Networks,
    data: Dataset | Sequence[Dataset],
    keep: float,
    *,
    choose: str = "easy",
    seed: int = 0,
    scores: Sequence[NDArray[np.floating]] | None = None,
) -> list[Dataset]:
    """A part of each network's data, to train on alone (arXiv 2107.07075) or before rewinding (arXiv 2206.01278).

    For the latter, train on it from theta_0 for some steps, and take the result as the start from which tickets are
    searched.

    Args:
        networks: R networks that say how difficult samples are; see `sample_difficulty`.
        data: one data set for all networks, or one for each.
        keep: fraction of the samples kept, in (0, 1].
        choose: ``"easy"`` or ``"hard"`` samples, or ``"random"`` ones.
        seed: key of the random choice.
        scores: how difficult the samples of each network's data are, instead: such as `gradient_norms`, or a mean over
            networks of several starts.

    Returns:
        R data sets of round(keep * samples) samples, in their old order.

    Raises:
        PrecodeValueError: a fraction out of range or another choice; scores that are not finite, or beside a random
            choice.
        PrecodeShapeError: scores of other samples than the data.

    Example:
        >>> from precode import Dnf, train
        >>> runs = train(Dnf.random(clauses=4, seed=0), hidden=8, epochs=2, samples=640)
        >>> easy = diet(runs, runs.data, 0.25)
        >>> warm = train(runs.tasks, init=runs.start.weights, data=easy, epochs=1)
        >>> warm.data[0].samples
        160
    """
    keep = fraction(keep, "keep")
    if choose not in CHOICES:
        raise PrecodeValueError(f"choose = {choose!r}: use one of {', '.join(CHOICES)}")
    seed = integer(seed, "seed", 0, KEY)
    sets = data_sets(data, len(networks))
    if scores is not None:
        shapes, expected = [np.shape(values) for values in scores], [(item.samples,) for item in sets]
        if shapes != expected:
            raise PrecodeShapeError(f"scores of shapes {shapes}: expected one a sample, {expected}")
        for number, values in enumerate(scores):
            if not np.isfinite(values).all():
                wrong = int(np.flatnonzero(~np.isfinite(values))[0])
                raise PrecodeValueError(
                    f"the score of sample {wrong} of network {number} is {values[wrong]}: scores must be finite, since "
                    "samples are kept in their order (did the network diverge?)"
                )
        if choose == "random":
            raise PrecodeValueError("choose = 'random' takes no scores: leave them out, or choose 'easy' or 'hard'")
    if choose == "random":
        streams = [np.random.Generator(np.random.Philox(key=[seed, number])) for number in range(len(sets))]
        ranked = [stream.random(item.samples) for stream, item in zip(streams, sets, strict=True)]
    else:
        sign = 1 if choose == "easy" else -1
        given = sample_difficulty(networks, sets) if scores is None else scores
        ranked = [sign * np.asarray(values, dtype=np.float64) for values in given]
    chosen = []
    for item, values in zip(sets, ranked, strict=True):
        count = max(1, round(keep * item.samples))
        kept = np.sort(np.argsort(values, kind="stable")[:count])
        chosen.append(Dataset(item.x[kept], item.y[kept]))
    return chosen
