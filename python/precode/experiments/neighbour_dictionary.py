"""Whether features of sparse autoencoders find a network's clauses, beside codes read from its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from precode._internal.cells import Kind, Parts, Settings, training_seconds
from precode._internal.check import COUNT, integer, integers, numbers
from precode._internal.errors import PrecodeValueError
from precode._internal.threads import shared
from precode.codes import embedding as embeddings
from precode.experiments.cells import Finished, Tables
from precode.experiments.dictionaries import KINDS, Dictionary, begin, encode, learn
from precode.experiments.founding_cells import BATCH, FORMULA, MOST, parts
from precode.experiments.paper import PLACE, formulas, joined, summary
from precode.experiments.records import Experiment, Result
from precode.networks.training import Runs, train
from precode.networks.work import sample_all

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from precode.formulas.dnf import Dnf

FINDERS = ("neurons", "codes", "random", *KINDS)
"""What is read of the activations: each neuron as a feature; for each clause the mean of the neurons that carry its 4P
code; random directions, which are an autoencoder before it has learned; and features of autoencoders."""

TRAINED = "penalty"
"""Column of the penalty, NaN of finders that have none."""


def cells(setting: Mapping[str, Any]) -> Iterator[Settings]:
    """A cell for every embedding, width and number of clauses.

    Raises:
        PrecodeValueError: a value out of range, an unknown embedding, or formulas that there cannot be.
    """
    for name in ("hidden", "clauses"):
        integers(setting[name], name, 1, MOST[name])
    for name in ("samples", "epochs", "test", "features", "steps", "batch"):
        integer(setting[name], name, 1, COUNT)
    penalties = list(numbers(setting["penalties"], "penalties", 0))
    if not 0 < setting["lr"] < float("inf"):
        raise PrecodeValueError(f"lr = {setting['lr']}: must be a positive number")
    if not 0.5 < setting["found"] <= 1:
        raise PrecodeValueError(
            f"found = {setting['found']}: the least AUC of what is found is above 0.5 and at most 1"
        )
    for name in setting["embeddings"]:
        if not embeddings.is_name(name):
            raise PrecodeValueError(f"embedding {name!r}: use one of {embeddings.ALLOWED}")
    for clauses in setting["clauses"]:
        formulas({**setting, "clauses": clauses}, [0])
    left = {name: value for name, value in setting.items() if name not in ("formulas", "embeddings")}
    for embedding, hidden, clauses in product(setting["embeddings"], setting["hidden"], setting["clauses"]):
        place = {"embedding": embedding, "hidden": hidden, "clauses": clauses}
        yield {**left, **place, "penalties": penalties}


def compute(settings: Settings, parts: Parts) -> Tables:
    """Trains networks and autoencoders of their activations, and asks which features are clauses.

    Returns:
        ``finders``, one row a formula, finder and penalty: recall, the share of the formula's clauses that are true
        where some feature is large (AUC of at least ``found``); precision, the share of the live features that are so
        for some clause; auc, the mean over clauses of the best AUC; live, the features that are ever active; active,
        how many are at a time; unexplained, the share of the variance that is not reconstructed; learned, the samples
        that finding had to learn from, each as often as it came.
    """
    indices = list(parts[FORMULA])
    tasks = formulas(settings, indices)
    runs = train(
        tasks,
        hidden=settings["hidden"],
        seed=settings["seed"],
        indices=indices,
        samples=settings["samples"],
        embedding=settings["embedding"],
        epochs=settings["epochs"],
        batch=BATCH,
        early_stopping=None,
    )
    fresh = sample_all(
        tasks, settings["test"], sampler="broken-clause", seed=settings["seed"], indices=indices, purpose="test"
    )
    channels = runs.codes().channels()

    def of_formula(at: int) -> list[dict[str, Any]]:
        seen, unseen = (activations(runs, at, data.x) for data in (runs.data[at], fresh[at]))
        truth = satisfied(tasks[at], fresh[at].x.numpy())
        rows = []
        for found in _found(settings, seen, unseen, channels[at], indices[at]):
            features = found.pop("features")
            rows.append({FORMULA: indices[at], **found, **scores(features, truth, settings["found"])})
        return rows

    rows = [row for rows in shared(of_formula, range(len(tasks))) for row in rows]
    return {"finders": pd.DataFrame(rows).assign(**{name: settings[name] for name in PLACE})}


def _found(
    settings: Settings, seen: torch.Tensor, unseen: torch.Tensor, channels: NDArray[np.bool_], number: int
) -> Iterator[dict[str, Any]]:
    """What each finder has: finder, penalty, learned, unexplained, and features (test samples, features)."""
    none = {TRAINED: np.nan, "learned": 0.0, "unexplained": np.nan}
    yield {"finder": "neurons", **none, "features": unseen.numpy()}
    code = torch.from_numpy(channels).float()
    coded = unseen @ (code / code.sum(1, keepdim=True).clamp_min(1)).T
    yield {"finder": "codes", **none, "features": coded.numpy()}
    seed, penalties = settings["seed"] ^ number, settings["penalties"]
    start = begin("sparse", seen, settings["features"], 1, torch.Generator().manual_seed(seed))
    yield {"finder": "random", **none, "features": encode(start, unseen)[0][0].numpy()}
    names = ("features", "steps", "batch", "lr")
    for kind in KINDS:
        dictionary = learn(kind, seen, penalties, seed=seed, **{name: settings[name] for name in names})
        learned = float(settings["steps"] * settings["batch"])
        features, _ = encode(dictionary, unseen)
        for place, penalty in enumerate(penalties):
            share = unexplained({name: value[place : place + 1] for name, value in dictionary.items()}, unseen)
            about = {"finder": kind, TRAINED: penalty, "learned": learned, "unexplained": share}
            yield {**about, "features": features[place].numpy()}


def activations(runs: Runs, network: int, x: torch.Tensor) -> torch.Tensor:
    """Activations of the hidden rows of one network, (samples, j).

    Args:
        runs: of one hidden layer.
        network: which.
        x: inputs (samples, n).
    """
    with torch.no_grad():
        hidden: torch.Tensor = runs.module(network)[:-1](x.float())
    return hidden


def unexplained(dictionary: Dictionary, x: torch.Tensor) -> float:
    """The share of the variance of activations (samples, j) that one dictionary does not reconstruct.

    Example:
        >>> x = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
        >>> start = begin("sparse", x, 2, 1, torch.Generator().manual_seed(0))
        >>> silent = {**start, "bias": start["bias"] - 9}
        >>> round(unexplained(silent, x), 3)
        1.0
    """
    features, _ = encode(dictionary, x)
    rebuilt = features[0] @ dictionary["decoder"][0].T + dictionary["center"][0]
    return float((rebuilt - x).square().sum() / (x - x.mean(0)).square().sum())


def satisfied(task: Dnf, x: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which clauses are true of which inputs, (samples, C).

    Args:
        task: a formula.
        x: inputs (samples, n).

    Example:
        >>> from precode import Dnf
        >>> x = np.array([[True, True, True], [False, True, False]])
        >>> satisfied(Dnf([[0, 1], [1, ~2]], variables=3), x).tolist()
        [[True, False], [False, True]]
    """
    columns = []
    for clause in task.clauses:
        holds = [x[:, literal] if literal >= 0 else ~x[:, ~literal] for literal in clause]
        columns.append(np.logical_and.reduce(holds))
    return np.stack(columns, axis=1)


def scores(features: NDArray[Any], truth: NDArray[np.bool_], found: float) -> dict[str, float]:
    """How well features tell clauses: recall, precision, auc, live and active; see `compute`.

    Args:
        features: (samples, K).
        truth: (samples, C).
        found: the least AUC of a feature that finds a clause.

    Example:
        >>> truth = np.array([[True, False], [False, True], [False, False]])
        >>> features = np.array([[2.0, 0, 1], [0, 0, 2], [0, 0, 3]])
        >>> {name: round(value, 2) for name, value in scores(features, truth, 0.95).items()}
        {'recall': 0.5, 'precision': 0.5, 'auc': 0.75, 'live': 2.0, 'active': 1.33}
    """
    table = aucs(features, truth)
    active = features > 0
    live = active.any(0)
    best = table.max(1)
    known = ~np.isnan(best)
    return {
        "recall": float((best[known] >= found).mean()) if known.any() else np.nan,
        "precision": float((table[known][:, live].max(0) >= found).mean()) if known.any() and live.any() else np.nan,
        "auc": float(best[known].mean()) if known.any() else np.nan,
        "live": float(live.sum()),
        "active": float(active.sum(1).mean()),
    }


def aucs(features: NDArray[Any], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The area under the ROC curve of every feature for every clause, (C, K).

    NaN of clauses that are never or always true.

    Example:
        >>> aucs(np.array([[0.0], [1.0], [1.0]]), np.array([[False], [False], [True]])).tolist()
        [[0.75]]
    """
    from scipy.stats import rankdata

    ranks = rankdata(features, axis=0)
    positive = truth.sum(0)[:, None].astype(float)
    negative = len(truth) - positive
    sums = truth.T.astype(float) @ ranks
    with np.errstate(invalid="ignore", divide="ignore"):
        found: NDArray[np.float64] = (sums - positive * (positive + 1) / 2) / (positive * negative)
    return found


def computing_seconds(settings: Settings, parts: Parts) -> float:
    """An estimate of what `compute` takes on one core."""
    count = len(parts[FORMULA])
    one = training_seconds(count, settings["hidden"], settings["samples"], settings["epochs"], BATCH)
    sizes = settings["batch"] * settings["features"] * settings["hidden"] * len(settings["penalties"])
    return float(one + count * len(KINDS) * settings["steps"] * (1.2e-3 + 1e-9 * sizes))


KIND = Kind("dictionary", cells, compute, computing_seconds, axes=(FORMULA,), parts=parts)

QUANTITIES = ("recall", "precision", "auc", "live", "active", "unexplained", "learned")


def tables(cells: Sequence[Finished]) -> Tables:
    """``means`` of every finder and penalty; ``differences`` from codes, formula by formula; and all ``finders``."""
    finders = joined(cells)["finders"]
    by = [*PLACE, "finder", TRAINED]
    # What has no penalty stands at none.
    shown = finders.assign(**{TRAINED: finders[TRAINED].fillna(-1.0)})
    keys = [*PLACE, FORMULA]
    codes = shown[shown["finder"] == "codes"][[*keys, "recall", "precision", "auc"]]
    both = shown[shown["finder"] != "codes"].merge(codes, on=keys, suffixes=("", "_codes"))
    for name in ("recall", "precision", "auc"):
        both[name] -= both[f"{name}_codes"]
    found = {
        "means": summary(shown, by, QUANTITIES),
        "differences": summary(both, by, ("recall", "precision", "auc")),
        "finders": finders,
    }
    for name in ("means", "differences"):
        found[name][TRAINED] = found[name][TRAINED].astype(float).where(found[name][TRAINED].astype(float) >= 0)
    return found


def _draw(quantity: str, label: str) -> Any:
    def draw(result: Result, ax: Axes | None) -> Axes:
        from precode.plot.axes import axes, legend

        ax = axes(ax)
        table = result.table[result.table["quantity"] == quantity]
        table = table[
            (table["hidden"] == table["hidden"].iloc[-1]) & (table["embedding"] == table["embedding"].iloc[0])
        ]
        names = table["finder"] + table[TRAINED].map(lambda value: "" if np.isnan(value) else f", {value:g}")
        for number, (name, part) in enumerate(table.groupby(names, sort=False)):
            errors = np.abs(part[["low", "high"]].to_numpy().T - part["mean"].to_numpy())
            ax.errorbar(part["clauses"], part["mean"], errors, label=name, color=f"C{number % 10}", marker="o", ms=4)
        ax.set(xlabel="clauses", ylabel=label)
        legend(ax, fontsize="x-small")
        return ax

    return draw


EXPERIMENT = Experiment(
    name="dictionary",
    title="Whether features of sparse autoencoders find the clauses, beside codes read from weights",
    source="sparse autoencoders: Bricken et al. 2023, arXiv 2404.16014; the comparison is ours",
    words=(
        "Sparse autoencoders, plain and gated, are trained on the hidden activations of trained networks, with several "
        "penalties. A clause is found where some feature tells the inputs that satisfy it, on fresh samples, with an "
        "AUC of at least .95 [ours]. Beside them stand the neurons themselves, random directions, and the mean of the "
        "neurons that carry a clause's 4P code, which is read from weights and signs and knows which clause it is of. "
        "No published numbers compare: there are none for networks of this kind."
    ),
    setting={
        "formulas": 20,
        "seed": 4500,
        "hidden": (32,),
        "clauses": (32,),
        "embeddings": ("identity",),
        "variables": 32,
        "width": 4,
        "samples": 20_000,
        "epochs": 50,
        "test": 8000,
        "features": 64,
        "penalties": (0.5, 2.0),
        "steps": 1000,
        "batch": 256,
        "lr": 0.003,
        "found": 0.95,
    },
    quick={
        "formulas": 2,
        "clauses": (4,),
        "hidden": (16,),
        "embeddings": ("identity",),
        "samples": 2000,
        "epochs": 5,
        "test": 1000,
        "features": 16,
        "steps": 60,
        "batch": 64,
    },
    full={
        "clauses": (8, 16, 32),
        "embeddings": ("identity", "projection-16-fixed"),
    },
    kind=KIND,
    tables=tables,
    figures={
        "recall": _draw("recall", "share of clauses that are found"),
        "auc": _draw("auc", "best AUC, mean over clauses"),
    },
)
