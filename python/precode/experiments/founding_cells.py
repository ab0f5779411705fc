"""The cells of the founding curves: networks of one width on formulas of one number of clauses, trained and decoded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, product
from typing import Any

import numpy as np
import pandas as pd

from precode import _precode
from precode._internal.cells import Kind, Parts, Settings, training_seconds
from precode._internal.check import COUNT, integer, integers
from precode._internal.errors import PrecodeTypeError, PrecodeValueError
from precode._internal.progress import Progress
from precode.codes import embedding as embeddings
from precode.codes import nulls
from precode.codes.decoding import POLARITIES, Codes
from precode.experiments.cells import Tables
from precode.formulas.dnf import Dnf
from precode.networks.settings import EarlyStopping
from precode.networks.training import Runs, train
from precode.networks.work import sample_all

NULL_DRAWS = 10
"""Random networks drawn for each trained one, as in the source."""

MOST = {"hidden": 2**24 - 1, "clauses": 2**20 - 1, "formulas": 2**20}
"""Largest settings of a point, so that no two points share a random stream (see `streams`)."""

BATCH = 64
"""Samples a step."""

FORMULA = "formula"
"""The axis of formulas, the unit that intervals are taken over."""

SHARED = ("embedding", "negated", "seed", "variables", "width", "samples", "engine")
"""Names of the setting that every cell has."""


def streams(hidden: int, clauses: int, formulas: Sequence[int]) -> list[int]:
    """Numbers of a point's random streams, shared with no other point."""
    return [(hidden << 40) + (clauses << 20) + formula for formula in formulas]


def cells(setting: Mapping[str, Any]) -> Iterator[Settings]:
    """A cell for every width and number of clauses, for every width of `scaling`, and one for the dynamics.

    Raises:
        PrecodeValueError: a value out of range, or formulas that there cannot be.
        PrecodeTypeError: early stopping of another type.
    """
    _check(setting)
    shared = {name: setting[name] for name in SHARED}
    points = list(product(setting["hidden"], setting["clauses"]))
    ends = {"epochs": setting["epochs"], "early_stopping": setting["early_stopping"]}
    for rows, count in points:
        yield {"series": "points", "hidden": rows, "clauses": count, **shared, **ends}
    half = {**ends, "epochs": max(1, setting["epochs"] // 2)}
    for rows in setting["scaling"]:
        yield {"series": "scaling", "hidden": rows, "clauses": setting["scaling_clauses"], **shared, **half}
    if setting["moments"]:
        place = {"hidden": setting["dynamics_hidden"], "clauses": setting["dynamics_clauses"]}
        yield {"series": "dynamics", **place, **shared, "moments": list(setting["moments"])}


def _check(setting: Mapping[str, Any]) -> None:
    for name in ("hidden", "clauses", "scaling"):
        integers(setting[name], name, 1, MOST.get(name, MOST["hidden"]))
    for name in ("epochs", "samples", "scaling_clauses", "dynamics_hidden", "dynamics_clauses"):
        integer(setting[name], name, 1, COUNT)
    for name in ("hidden", "clauses"):
        if not setting[name]:
            raise PrecodeValueError(f"{name} = []: expected at least one number")
    if not embeddings.is_name(setting["embedding"]):
        raise PrecodeValueError(f"embedding {setting['embedding']!r}: use one of {embeddings.ALLOWED}")
    _stopping(setting["early_stopping"])
    # An impossible formula is refused before any training.
    counts = {*setting["clauses"], *([setting["scaling_clauses"]] if setting["scaling"] else [])}
    for count in [*counts, *([setting["dynamics_clauses"]] if setting["moments"] else [])]:
        _tasks({**setting, "clauses": count}, [0])


def _stopping(values: Any) -> EarlyStopping | None:
    if values is None:
        return None
    try:
        return EarlyStopping(**values)
    except TypeError as error:
        raise PrecodeTypeError(
            f"early_stopping must be an EarlyStopping or None, not {type(values).__name__}: "
            "use pc.EarlyStopping(patience=...)"
        ) from error


def _tasks(settings: Mapping[str, Any], indices: Sequence[int]) -> list[Dnf]:
    names = ("variables", "clauses", "width", "negated", "seed")
    return [Dnf.random(**{name: settings[name] for name in names}, index=index) for index in indices]


def compute(settings: Settings, parts: Parts) -> Tables:
    """Trains and decodes the networks of some formulas.

    Returns:
        ``points``, one row a formula: train_bce, train_error, test_error, the columns of `Codes.summary`, and epochs;
        and ``random``, the mean patterns of random networks with the same polarities and fraction of positive entries.
        Of a cell of the dynamics: ``dynamics``; see `precode.dynamics`.
    """
    formulas = list(parts[FORMULA])
    if settings["series"] == "dynamics":
        return {"dynamics": trained_dynamics(settings, formulas)}
    return _points(settings, formulas)


def seconds(settings: Settings, parts: Parts) -> float:
    """An estimate of what `compute` takes on one core."""
    epochs = math.ceil(max(settings["moments"])) if settings["series"] == "dynamics" else settings["epochs"]
    return training_seconds(len(parts[FORMULA]), settings["hidden"], settings["samples"], epochs, BATCH)


def parts(setting: Mapping[str, Any]) -> dict[str, range]:
    """The numbers of the formulas."""
    return {FORMULA: range(integer(setting["formulas"], "formulas", 1, MOST["formulas"]))}


KIND = Kind("founding_curves", cells, compute, seconds, axes=(FORMULA,), parts=parts)


def _points(settings: Settings, formulas: Sequence[int]) -> Tables:
    indices = streams(settings["hidden"], settings["clauses"], formulas)
    seed, samples = settings["seed"], settings["samples"]
    runs = train(
        _tasks(settings, indices),
        hidden=settings["hidden"],
        seed=seed,
        indices=indices,
        samples=samples,
        embedding=settings["embedding"],
        epochs=settings["epochs"],
        batch=BATCH,
        early_stopping=_stopping(settings["early_stopping"]),
        engine=settings["engine"],
    )
    codes = runs.codes()
    trained = runs.evaluate()
    fresh = sample_all(runs.tasks or (), samples, sampler="broken-clause", seed=seed, indices=indices, purpose="test")
    table = codes.summary().drop(columns="network")
    table.insert(0, FORMULA, formulas)
    table.insert(1, "train_bce", trained["loss"])
    table.insert(2, "train_error", trained["error"])
    table.insert(3, "test_error", runs.evaluate(fresh)["error"])
    table["epochs"] = runs.epochs_run
    random = _random_patterns(runs, seed, indices)
    random.insert(0, FORMULA, formulas)
    return {"points": table, "random": random}


def _random_patterns(runs: Runs, seed: int, indices: Sequence[int]) -> pd.DataFrame:
    """Mean rows per clause of every pattern in random networks, one row a trained network.

    Every draw has a key of its own, and every network its stream, so that a network's draws are the same whichever
    others there are.
    """
    keys = [seed ^ (draw * 0x9E3779B97F4A7C15) % 2**64 for draw in range(NULL_DRAWS)]
    means = np.concatenate([
        np.mean([nulls.random_network(codes, seed=key, index=first).pattern_counts.mean(1) for key in keys], axis=0)
        for codes, first in _neighbours(runs, indices)
    ])  # fmt: skip
    width = means.shape[-1] - 1
    columns = {
        f"{_precode.pattern_name(positives, width - positives)}_{polarity}": means[:, number, positives]
        for number, polarity in enumerate(POLARITIES)
        for positives in range(width, -1, -1)
    }
    return pd.DataFrame(columns)


def _neighbours(runs: Runs, indices: Sequence[int]) -> Iterator[tuple[Codes, int]]:
    """Codes of networks whose streams follow one another, with the first of these."""
    for _, group in groupby(range(len(indices)), lambda place: indices[place] - place):
        places = list(group)
        yield runs[places[0] : places[-1] + 1].codes(), indices[places[0]]


def trained_dynamics(settings: Settings, formulas: Sequence[int], progress: Progress = False) -> pd.DataFrame:
    """Networks of some formulas decoded at moments of their training, one row a moment and formula."""
    steps_per_epoch = -(-settings["samples"] // BATCH)
    steps = {moment: round(moment * steps_per_epoch) for moment in settings["moments"]}
    runs = train(
        _tasks(settings, formulas),
        hidden=settings["hidden"],
        seed=settings["seed"],
        indices=formulas,
        samples=settings["samples"],
        embedding=settings["embedding"],
        epochs=max(1, -(-max(steps.values()) // steps_per_epoch)),
        batch=BATCH,
        early_stopping=None,
        snapshots=steps.values(),
        engine=settings["engine"],
        progress=progress,
    )
    frames = []
    for moment, step in steps.items():
        networks = runs.at(step)
        table = networks.codes().summary().drop(columns="network")
        evaluation = networks.evaluate(runs.data)
        table.insert(0, "epoch", moment)
        table.insert(1, FORMULA, formulas)
        table.insert(2, "train_bce", evaluation["loss"])
        table.insert(3, "train_error", evaluation["error"])
        frames.append(table)
    return pd.concat(frames, ignore_index=True)
