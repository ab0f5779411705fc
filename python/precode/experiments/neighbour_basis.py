"""Tickets in other bases than that of the weights: rotated ones, and feature space (arXiv 2107.06825)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from precode import _precode
from precode._internal.cells import Kind, Parts, Settings
from precode._internal.check import fractions
from precode._internal.errors import PrecodeValueError
from precode._internal.statistics import with_intervals
from precode.codes import embedding as embeddings
from precode.codes.locating import locations, recall
from precode.experiments import paper
from precode.experiments.cells import Finished, Tables
from precode.experiments.founding_cells import FORMULA
from precode.experiments.masking import largest, random_masks
from precode.experiments.paper import PLACE, SETTING, beside_reported, joined, parts, summary
from precode.experiments.paper_budget import SMALL
from precode.experiments.paper_networks import accuracies, dense, seconds
from precode.experiments.records import Experiment, Result
from precode.networks.stacks import Networks
from precode.networks.training import Runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Weights = dict[str, torch.Tensor]
"""Of a stack of networks behind C0 of their own, by name."""

ROTATED = ("rotated", "hadamard")
"""Bases of the first layer's inputs: a random orthogonal one of each formula, and the Hadamard one."""

FEATURES = "features"
"""The basis of C1 = W1 C0, where codes are read."""

ARMS = ("magnitude", "magnitude-shared", "random")
"""What masks are chosen by; see the words of the experiment."""


def points(setting: Mapping[str, Any]) -> Iterator[Settings]:
    """A cell for every embedding, width and number of clauses.

    Raises:
        PrecodeValueError: a setting that no networks can have, or a C0 that training changes, and with it the basis.
    """
    fractions(setting["densities"], "densities")
    for place in paper.points(setting):
        embedding = embeddings.resolve(place["embedding"], place["variables"])
        if embedding.trained:
            raise PrecodeValueError(
                f"embedding {place['embedding']!r} is trained, so that the basis moves: use a fixed one such as "
                "'projection-16-fixed'"
            )
        rotation("hadamard", embedding.rows, 0, 0)
        yield place


def rotation(name: str, size: int, seed: int, index: int) -> torch.Tensor:
    """An orthogonal matrix, float64 (size, size): of a random basis of each formula, or the Hadamard one.

    Raises:
        PrecodeValueError: there is no Hadamard matrix of this size among Sylvester's.

    Example:
        >>> matrix = rotation("rotated", 4, seed=0, index=0)
        >>> torch.allclose(matrix @ matrix.T, torch.eye(4, dtype=torch.float64))
        True
    """
    if name == "rotated":
        drawn = np.random.default_rng([seed, index, size]).normal(size=(size, size))
        q, r = np.linalg.qr(drawn)
        # With the signs of the diagonal, uniform over all orthogonal matrices (Mezzadri, arXiv math-ph/0609050).
        return torch.from_numpy(q * np.sign(np.diag(r)))
    if size & (size - 1):
        raise PrecodeValueError(f"the first layer has {size} inputs: the Hadamard basis needs a power of 2")
    return torch.from_numpy(_precode.embedding_matrix("hadamard", size, 0)).double()


def in_basis(networks: Networks, name: str, seed: int, indices: Sequence[int]) -> Weights:
    """The same networks with the first layer in another basis, behind C0 of their own.

    With V = W1 Q' and Q C0 in front of it, V (Q C0) x = W1 C0 x for every orthogonal Q: the networks compute the same,
    and so they do with V = W1 C0 in front of the variables themselves. Only what a mask removes, and what an optimizer
    that looks at single weights does, is another.

    Args:
        networks: R networks behind a fixed embedding.
        name: ``"weights"`` (as they are), ``"features"``, or one of `ROTATED`.
        seed: key of random bases.
        indices: number of each network's formula.
    """
    c0 = networks.c0.double()
    c0 = c0.expand(len(networks), *c0.shape[-2:])
    w1 = networks.weights["w1"].double()
    if name == FEATURES:
        first, front = w1 @ c0, torch.eye(c0.shape[-1], dtype=torch.float64).expand(len(networks), -1, -1)
    elif name == "weights":
        first, front = w1, c0
    else:
        turned = torch.stack([rotation(name, w1.shape[-1], seed, index) for index in indices])
        first, front = w1 @ turned.transpose(1, 2), turned @ c0
    kind = networks.weights["w1"].dtype
    return {**networks.weights, "w1": first.to(kind), "c0": front.to(kind).contiguous()}


def trained(settings: Settings, indices: Sequence[int], runs: Runs, weights: Weights, **options: Any) -> Runs:
    """Networks in a basis, trained as the dense ones were."""
    return dense(
        settings,
        indices,
        data=runs.data,
        init=weights,
        hidden=None,
        embedding=f"projection-{weights['c0'].shape[1]}-fixed",
        **options,
    )


def kept_share(weights: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """The share of the squared length of weights that masks keep, (R,).

    Example:
        >>> kept_share(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[False, True]]])).item()
        0.64
    """
    squared = weights.double() ** 2
    share: torch.Tensor = ((squared * masks).flatten(1).sum(1) / squared.flatten(1).sum(1)).round(decimals=12)
    return share


def compute(settings: Settings, parts: Parts) -> Tables:
    """Dense networks and tickets of some formulas in every basis.

    Returns:
        ``networks``, one row a formula, basis, kind of masks (or ``dense``) and density (of the weights of W1, in every
        basis as many): accuracy; codes; kept_share, see there; retention, the share of the codes of the dense networks
        in this basis that they have under the mask before any retraining; recall, that of the retrained ones.
    """
    indices = list(parts[FORMULA])
    seed = settings["seed"]
    runs = dense(settings, indices)
    total = runs.weights["w1"][0].numel()
    identity = runs.embedding.name == "identity"
    names = ["weights", *([] if identity else [FEATURES]), *ROTATED]
    frames = []
    for name in names:
        start = in_basis(runs.start, name, seed, indices)
        shared = in_basis(runs, name, seed, indices)["w1"]
        own = trained(settings, indices, runs, start)
        codes = locations(own).code
        networks: dict[tuple[str, float], tuple[Networks, torch.Tensor]] = {
            ("dense", 1.0): (own, torch.ones_like(shared, dtype=torch.bool))
        }
        shape = shared.shape[1:]
        for density in settings["densities"]:
            count = max(1, round(density * total))
            masks = {
                "magnitude": largest(own.weights["w1"], count),
                "magnitude-shared": largest(shared, count),
                "random": random_masks(shape, count / shape.numel(), seed, indices),
            }
            for arm, mask in masks.items():
                networks[arm, density] = trained(settings, indices, runs, start, masks={"w1": mask}), mask
        found = accuracies(settings, indices, runs, {str(key): item for key, (item, _) in networks.items()})
        for (arm, density), (item, mask) in networks.items():
            masked = Networks({**own.weights, "w1": own.weights["w1"] * mask}, own.tasks, own.embedding)
            after = locations(item).code
            columns = {
                FORMULA: indices,
                "basis": name,
                "masks": arm,
                "density": density,
                "accuracy": found[found["networks"] == str((arm, density))]["accuracy"].to_numpy(),
                "codes": after.sum((1, 2, 3)).astype(float),
                "kept_share": kept_share(own.weights["w1"], mask).numpy(),
                "retention": recall(codes, locations(masked).code),
                "recall": recall(codes, after),
            }
            frames.append(pd.DataFrame(columns))
    table = pd.concat(frames, ignore_index=True)
    return {"networks": table.assign(**{name: settings[name] for name in PLACE})}


def computing_seconds(settings: Settings, parts: Parts) -> float:
    """An estimate of what `compute` takes on one core."""
    return float(seconds(4 * (1 + len(ARMS) * len(settings["densities"])) + 1, settings, parts))


KIND = Kind("basis", points, compute, computing_seconds, axes=(FORMULA,), parts=parts)

MEASURES = ("accuracy", "codes", "kept_share", "retention", "recall")


def gains(networks: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of tickets minus that of random masks in the same basis, and minus that of tickets in the weights' own.

    Args:
        networks: see `compute`.

    Returns:
        One row a ticket: columns of the point, formula, basis, masks, density, over_random and over_weights.
    """
    at = [*PLACE, FORMULA, "density"]
    plain = networks[networks["masks"] == "random"][[*at, "basis", "accuracy"]]
    weights = networks[networks["basis"] == "weights"][[*at, "masks", "accuracy"]]
    found = networks[networks["masks"] != "dense"]
    found = found.merge(plain.rename(columns={"accuracy": "plain"}), "left", [*at, "basis"], validate="m:1")
    found = found.merge(weights.rename(columns={"accuracy": "own"}), "left", [*at, "masks"], validate="m:1")
    return found.assign(over_random=found["accuracy"] - found["plain"], over_weights=found["accuracy"] - found["own"])


def picks(networks: pd.DataFrame) -> pd.DataFrame:
    """How often the basis that keeps most before any retraining is the best one after it.

    Args:
        networks: see `compute`.

    Returns:
        One row a point, formula, density and predictor (kept_share; retention of codes): picked, 1 where the basis with
        the largest value is the most accurate one by magnitude (a mean over those that are tied for it), lost, its
        accuracy below the best one's, and chance, one over the number of bases.
    """
    rows = []
    tickets = networks[networks["masks"] == "magnitude"]
    for at, group in tickets.groupby([*PLACE, "density", FORMULA], sort=False):
        for predictor in ("kept_share", "retention"):
            values = group[predictor].fillna(0)
            chosen = group["accuracy"][values == values.max()]
            best = group["accuracy"].max()
            keyed = dict(zip([*PLACE, "density", FORMULA], at, strict=True))
            measured = {"picked": (chosen == best).mean(), "lost": best - chosen.mean(), "chance": 1 / len(group)}
            rows.append({**keyed, "predictor": predictor, **measured})
    return pd.DataFrame(rows)


def tables(cells: Sequence[Finished]) -> Tables:
    """``means`` in every basis; ``gains`` over random masks and over the weights' basis; ``picks``; all networks."""
    found = joined(cells)["networks"]
    return {
        "means": summary(found, [*PLACE, "basis", "masks", "density"], MEASURES),
        "gains": summary(gains(found), [*PLACE, "basis", "masks", "density"], ["over_random", "over_weights"]),
        "picks": pd.concat(
            [
                with_intervals(picks(found), [*PLACE, "density", "predictor"], name).assign(quantity=name)
                for name in ("picked", "lost", "chance")
            ],
            ignore_index=True,
        ),
        "networks": found,
    }


def _draw(quantity: str, label: str, *arms: str) -> Any:
    def draw(result: Result, ax: Axes | None) -> Axes:
        from precode import plot

        table = beside_reported(result.table)
        table = table[(table["quantity"] == quantity) & table["masks"].isin(arms)]
        names = table["basis"] + ", " + table["masks"]
        ax = plot.beside(table.assign(series=names), "density", series="series", ax=ax)
        ax.set_xscale("log", base=2)
        ax.set_xlabel("weights that are kept, over those of W1")
        ax.set_ylabel(label)
        return ax

    return draw


EXPERIMENT = Experiment(
    name="basis",
    title="Tickets in the basis of the weights, in rotated ones, and in feature space",
    source="arXiv 2107.06825, told in words",
    words=(
        "The source takes sparsity in any basis of the weights, and says that what was found of lottery tickets "
        "carries over. Here a network is written in several bases without changing what it computes: W1 behind C0, C1 "
        "= W1 C0 behind the variables themselves (features), and W1 Q' behind Q C0 for a random orthogonal Q "
        "(rotated) and the Hadamard matrix. In each it is trained, pruned to the same number of weights by its own "
        "magnitudes (magnitude), by those of the one dense network of the weights' basis (magnitude-shared) or at "
        "random, and trained again from its start. With 32 variables behind the identity, the weights' basis is that "
        "of the features. What is ours: whether the share of squared length or the codes that a mask keeps before any "
        "retraining tell which basis is best (picks)."
    ),
    setting={
        **SETTING,
        "seed": 6100,
        "clauses": (16, 48),
        "embeddings": ("projection-16-fixed", "identity"),
        "densities": (0.5, 0.25, 0.125, 0.0625),
    },
    quick={**SMALL, "embeddings": ("projection-16-fixed",), "densities": (0.25, 0.0625)},
    kind=KIND,
    tables=tables,
    figures={
        "accuracy": _draw("accuracy", "test accuracy", "magnitude", "random"),
        "shared": _draw("accuracy", "test accuracy", "magnitude", "magnitude-shared"),
        "retention": _draw("retention", "share of codes under the mask\nbefore retraining", "magnitude", "random"),
    },
)
