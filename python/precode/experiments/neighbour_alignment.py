"""Accuracy and feature-space weights of scarce networks, and an oracle that keeps these (openreview tZszYSchmV)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from precode._internal.cells import Kind, Parts, Settings
from precode._internal.check import fractions
from precode._internal.statistics import with_intervals
from precode.codes.locating import locations, recall
from precode.experiments import paper
from precode.experiments.aligning import align, divergence
from precode.experiments.cells import Finished, Tables
from precode.experiments.founding_cells import FORMULA
from precode.experiments.masking import largest, random_masks
from precode.experiments.paper import PLACE, SETTING, beside_reported, joined, parts, summary
from precode.experiments.paper_budget import SMALL
from precode.experiments.paper_networks import OTHER_START, accuracies, dense, seconds
from precode.experiments.records import Experiment, Result
from precode.networks.stacks import Networks
from precode.networks.training import Runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SOURCE = "openreview tZszYSchmV, told in words"

ARMS = ("oracle", "oracle-mask", "oracle-other-c0", "magnitude", "random")
"""How weights are chosen; see the words of the experiment."""


CONTINUED = "dense-continued"
"""Dense networks that are trained for as long again as the scarce ones are."""


def points(setting: Mapping[str, Any]) -> Iterator[Settings]:
    """A cell for every embedding, width and number of clauses.

    Raises:
        PrecodeValueError: a setting that no networks can have.
    """
    fractions(setting["densities"], "densities")
    return paper.points(setting)


def starts(runs: Runs, settings: Settings, indices: Sequence[int]) -> dict[tuple[str, int], dict[str, torch.Tensor]]:
    """Scarce weights by how they were chosen and their number; all but W1 (and C0) are those of the dense ends."""
    weights = runs.weights
    w1, rows = weights["w1"], weights["w1"][0].numel()
    counts = sorted({max(1, round(density * rows)) for density in settings["densities"]})
    # Initial C0s of networks with another key: nothing of the trained ones is in them.
    other = dense(settings, indices, seed=settings["seed"] ^ OTHER_START, epochs=1).start.weights["c0"]
    features = runs.features.numpy()
    found: dict[tuple[str, int], dict[str, torch.Tensor]] = {}
    for name, c0 in (("oracle", weights["c0"]), ("oracle-other-c0", other)):
        fits = [align(feature, own.numpy(), counts) for feature, own in zip(features, c0, strict=True)]
        for count in counts:
            fitted = torch.from_numpy(np.stack([fit[count] for fit in fits])).to(w1)
            found[name, count] = {**weights, "w1": fitted, "c0": c0}
    for count in counts:
        masks = {
            "oracle-mask": found["oracle", count]["w1"] != 0,
            "magnitude": largest(w1, count),
            "random": random_masks(w1.shape[1:], count / rows, settings["seed"], indices),
        }
        for name, mask in masks.items():
            found[name, count] = {**weights, "w1": w1 * mask}
    return found


def compute(settings: Settings, parts: Parts) -> Tables:
    """Scarce networks of some formulas, before and after training.

    Returns:
        ``networks``, one row a formula, number of weights and kind: accuracy_start and accuracy; divergence_start and
        divergence, of C1 from that of the dense networks; signs, the share of signs of C1 that differ after training;
        and recall, of the dense networks' codes at the same sites. The dense ones are among them, as they were and
        trained on.
    """
    indices = list(parts[FORMULA])
    runs = dense(settings, indices)
    rows = runs.weights["w1"][0].numel()
    features, codes = runs.features.numpy(), locations(runs).code
    longer = dense(settings, indices, data=runs.data, init=runs.weights, hidden=None)
    networks: dict[tuple[str, int], tuple[Networks, Networks]] = {
        ("dense", rows): (runs, runs),
        (CONTINUED, rows): (runs, longer),
    }
    for key, weights in starts(runs, settings, indices).items():
        masks = {"w1": weights["w1"] != 0}
        scarce = dense(settings, indices, data=runs.data, init=weights, masks=masks, hidden=None)
        networks[key] = (scarce.start, scarce)
    frames = []
    measure = partial(accuracies, settings, indices, runs)
    for (name, count), (start, end) in networks.items():
        found = measure({"accuracy_start": start, "accuracy": end})
        columns = {
            **{
                kind: found[found["networks"] == kind]["accuracy"].to_numpy() for kind in ("accuracy_start", "accuracy")
            },
            "divergence_start": divergence(start.features.numpy(), features),
            "divergence": divergence(end.features.numpy(), features),
            "signs": (np.sign(end.features.numpy()) != np.sign(features)).mean((1, 2)),
            "recall": recall(codes, locations(end).code),
        }
        keyed = {FORMULA: indices, "networks": name, "weights": count, "density": count / rows}
        frames.append(pd.DataFrame({**keyed, **columns}))
    table = pd.concat(frames, ignore_index=True)
    return {"networks": table.assign(**{name: settings[name] for name in PLACE})}


def computing_seconds(settings: Settings, parts: Parts) -> float:
    """An estimate of what `compute` takes on one core; choosing is some milliseconds a formula."""
    return seconds(1.5 + len(ARMS) * len(settings["densities"]), settings, parts)


KIND = Kind("alignment", points, compute, computing_seconds, axes=(FORMULA,), parts=parts)

MEASURES = ("accuracy_start", "accuracy", "divergence_start", "divergence", "signs", "recall")


def tables(cells: Sequence[Finished]) -> Tables:
    """``means`` of every density; ``gains`` over pruning by magnitude; ``correlations``; and all networks."""
    found = joined(cells)["networks"]
    by = [*PLACE, "density", "networks"]
    scarce = found[~found["networks"].isin(["dense", CONTINUED])]
    keys = [*PLACE, "density", FORMULA]
    plain = scarce[scarce["networks"] == "magnitude"][[*keys, "accuracy"]].rename(columns={"accuracy": "plain"})
    gains = scarce[scarce["networks"] != "magnitude"].merge(plain, "left", keys, validate="m:1")
    gains = gains.assign(gain=gains["accuracy"] - gains["plain"])
    return {
        "means": summary(found, by, MEASURES),
        "gains": summary(gains, by, ["gain"]),
        "correlations": with_intervals(correlations(scarce), [*PLACE, "over", "divergence"], "correlation"),
        "networks": found,
    }


def correlations(scarce: pd.DataFrame) -> pd.DataFrame:
    """Rank correlations of accuracy after training with divergence before and after it, for each formula.

    Args:
        scarce: one row a network.

    Returns:
        Columns of the point, formula, over (all scarce networks of the formula; or those of one density, the mean over
        densities: fewer weights alone make both worse), divergence (start or end) and correlation.
    """
    rows = []
    for at, group in scarce.groupby([*PLACE, FORMULA], sort=False):
        keyed = dict(zip([*PLACE, FORMULA], at, strict=True))
        alike = [one for _, one in group.groupby("density")]
        for over, groups in (("all", [group]), ("one density", alike)):
            for name, column in (("start", "divergence_start"), ("end", "divergence")):
                found = [np.corrcoef(one[["accuracy", column]].rank().T)[0, 1] for one in groups]
                rows.append({**keyed, "over": over, "divergence": name, "correlation": float(np.mean(found))})
    return pd.DataFrame(rows)


def _draw(quantity: str, label: str) -> Any:
    def draw(result: Result, ax: Axes | None) -> Axes:
        from precode import plot

        table = beside_reported(result.tables["means"])
        table = table[(table["quantity"] == quantity) & ~table["networks"].isin(["dense", CONTINUED])]
        ax = plot.beside(table.sort_values("density", kind="stable"), "density", series="networks", ax=ax)
        ax.set_xscale("log", base=2)
        ax.set_xlabel("share of the weights of W1 that is kept")
        ax.set_ylabel(label)
        return ax

    return draw


EXPERIMENT = Experiment(
    name="alignment",
    title="An oracle that keeps the feature space with scarce weights of its own",
    source=SOURCE,
    words=(
        "The source says that accuracy collapses under pruning where the feature-space weights C1 move away from the "
        "dense network's, and that an oracle which chooses sparse weights, independent of the original ones, so that "
        "the features stay, recovers accuracy within the same budget of retraining. Its formula is not public. Ours "
        "chooses W1 by orthogonal least squares, so that W1 C0 is near the dense C1: behind the same C0 (oracle), and "
        "behind another random one, with nothing in common with the trained weights (oracle-other-c0). Beside them "
        "stand the oracle's mask on the trained weights (oracle-mask), pruning by magnitude, and random weights. All "
        "else is that of the dense networks' end, and all are trained for as long as these were, as are the dense ones "
        "themselves once more (dense-continued)."
    ),
    setting={
        **SETTING,
        "clauses": (48, 16),
        "embeddings": ("projection-16-fixed", "projection-16"),
        "densities": (0.5, 0.25, 0.125, 0.0625),
    },
    quick={**SMALL, "embeddings": ("projection-16-fixed",), "densities": (0.25, 0.0625)},
    kind=KIND,
    tables=tables,
    figures={
        "accuracy": _draw("accuracy", "test accuracy after training"),
        "start": _draw("accuracy_start", "test accuracy before training"),
        "divergence": _draw("divergence", "distance of C1 from the dense one\n(over the dense length; our definition)"),
    },
)
