"""The curves of arXiv 2504.08842, section 4: how codes and error change with width and number of clauses."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import pandas as pd

from precode._internal.check import COUNT, KEY, integer, integers, numbers
from precode._internal.errors import PrecodeValueError
from precode._internal.progress import Progress, reporter
from precode.codes import nulls
from precode.codes.decoding import Codes
from precode.experiments import published
from precode.formulas.dnf import Dnf
from precode.networks.settings import DEFAULT_STOPPING, EarlyStopping
from precode.networks.training import Runs, sample_all, train

NULL_DRAWS = 10
"""Random networks drawn for each trained one, as in the source."""


@dataclass(frozen=True)
class Curves:
    """Measured curves; made by `curves`.

    Attributes:
        table: one row a point, means over its trials. Patterns are mean rows per clause; `train_bce` and `train_error`
            are those of the final weights on all training data, `test_error` on as many fresh samples; `code_size`,
            `overlap`, `clauses_without_code` and `positive_rows` as in `Codes.summary`; `seconds` of wall-clock time
            for the point; `random_4P_positive` the all-positive pattern in random networks with the same polarities and
            fraction of positive entries; `epochs` the mean number run.
        trials: the same columns for every single trial, with its number in `trial`.
        interrupted: whether Ctrl-C ended the run before the last point.

    Example:
        >>> from precode import curves
        >>> measured = curves(hidden=[8], clauses=[2], trials=2, epochs=1, progress=False)
        >>> len(measured.table), len(measured.trials), measured.interrupted
        (1, 2, False)
    """

    table: pd.DataFrame
    trials: pd.DataFrame = field(repr=False)
    interrupted: bool = False

    def plot(self, column: str = "4P_positive", **options: Any) -> Any:
        """Draws one column against the number of clauses; see `precode.plot.curves`."""
        from precode import plot

        return plot.curves(self.trials, column, **options)


MOST = {"hidden": 2**24 - 1, "clauses": 2**20 - 1, "trials": 2**20}
"""Largest settings of a point, so that no two points share a random stream (see `_streams`)."""


def _listed(values: int | Iterable[int], name: str) -> list[int]:
    listed = integers(values, name, 1, MOST[name])
    if not listed:
        raise PrecodeValueError(f"{name} = []: expected at least one number")
    return listed


def curves(
    hidden: int | Iterable[int] = published.HIDDEN,
    clauses: int | Iterable[int] = published.CLAUSES,
    *,
    trials: int = 10,
    epochs: int = 100,
    embedding: str = "identity",
    negated: int = 0,
    seed: int = 0,
    variables: int = 32,
    width: int = 4,
    samples: int = 20_000,
    early_stopping: EarlyStopping | None = DEFAULT_STOPPING,
    engine: str = "auto",
    progress: Progress = True,
) -> Curves:
    """Trains `trials` networks on fresh formulas for every width and number of clauses, and decodes them.

    Ctrl-C ends the run within a second; the finished points are returned with a warning.

    Args:
        hidden: hidden widths, j.
        clauses: numbers of clauses, C.
        trials: networks a point, each with formula, data and initial weights of its own, drawn independently of all
            other points and of which other points there are.
        epochs: most passes over the data.
        embedding: see `train`.
        negated: negated literals of each clause (1 in section 4.7). Patterns are those of the raw signs; `code_size`
            counts rows whose signs agree with the literals, the published "3P1N aligned".
        seed: key of formulas, data, weights and order.
        variables: number of variables, n.
        width: literals of a clause, k.
        samples: training samples of each network, and as many for the test error.
        early_stopping: see `train`.
        engine: see `train`.
        progress: True for a bar, or a function of (points done, points).

    Raises:
        PrecodeValueError: a setting out of range.

    Example:
        >>> result = curves(16, [2, 4], trials=2, epochs=2, progress=False)
        >>> result.table[["hidden", "clauses", "trials"]].values.tolist()
        [[16, 2, 2], [16, 4, 2]]
    """
    trials = integer(trials, "trials", 1, MOST["trials"])
    epochs, samples = integer(epochs, "epochs", 1, COUNT), integer(samples, "samples", 1, COUNT)
    seed = integer(seed, "seed", 0, KEY)
    points = list(product(_listed(hidden, "hidden"), _listed(clauses, "clauses")))
    # All formulas first, so that impossible ones are refused before any training.
    drawn = {
        (rows, count): [
            Dnf.random(variables=variables, clauses=count, width=width, negated=negated, seed=seed, index=stream)
            for stream in _streams(rows, count, trials)
        ]
        for rows, count in points
    }
    frames: list[pd.DataFrame] = []
    interrupted = False
    with reporter(progress, len(points), "point") as report:
        try:
            for done, (rows, count) in enumerate(points, start=1):
                began = time.perf_counter()
                streams = _streams(rows, count, trials)
                runs = train(
                    drawn[rows, count],
                    hidden=rows,
                    seed=seed,
                    indices=streams,
                    samples=samples,
                    embedding=embedding,
                    epochs=epochs,
                    early_stopping=early_stopping,
                    engine=engine,
                )
                measured = _measure(runs, seed, samples, streams)
                measured.insert(0, "embedding", embedding)
                for name, value in (("trials", trials), ("clauses", count), ("hidden", rows)):
                    measured.insert(0, name, value)
                measured["seconds"] = time.perf_counter() - began
                frames.append(measured)
                if report:
                    report(done)
        except KeyboardInterrupt:
            interrupted = True
            warnings.warn(f"interrupted: {len(frames)} of {len(points)} points are finished", stacklevel=2)
    return _collect(frames, interrupted)


def _collect(frames: Sequence[pd.DataFrame], interrupted: bool) -> Curves:
    if not frames:
        return Curves(pd.DataFrame(), pd.DataFrame(), interrupted)
    every = pd.concat(frames, ignore_index=True)
    keys = ["hidden", "clauses", "trials", "embedding"]
    means = every.drop(columns="trial").groupby(keys, sort=False).mean().reset_index()
    random = next(name for name in map(str, every) if name.startswith("random_"))
    last = ["seconds", random, "epochs"]
    order = [name for name in map(str, means) if name not in last] + last
    return Curves(means[order], every[["trial", *order]], interrupted)


def _streams(hidden: int, clauses: int, trials: int) -> list[int]:
    """Numbers of a point's random streams, shared with no other point."""
    return [(hidden << 40) + (clauses << 20) + trial for trial in range(trials)]


def _measure(runs: Runs, seed: int, samples: int, streams: Sequence[int]) -> pd.DataFrame:
    """One row a trial: errors, patterns and codes of trained networks."""
    assert runs.tasks is not None
    codes = runs.codes()
    trained = runs.evaluate()
    fresh = sample_all(runs.tasks, samples, sampler="broken-clause", seed=seed, indices=streams, purpose="test")
    table = codes.summary().rename(columns={"network": "trial"})
    table.insert(1, "train_bce", trained["loss"])
    table.insert(2, "train_error", trained["error"])
    table.insert(3, "test_error", runs.evaluate(fresh)["error"])
    name = f"{codes.templates[0]}_positive"
    table[f"random_{name}"] = _random_baseline(codes, seed, streams[0], name)
    table["epochs"] = runs.epochs_run
    return table


def _random_baseline(codes: Codes, seed: int, stream: int, column: str) -> pd.Series[float]:
    networks = len(codes.positive_rows)
    draws = [
        nulls.random_network(codes, seed=seed, index=stream + draw * networks).summary()[column]
        for draw in range(NULL_DRAWS)
    ]
    return pd.concat(draws, axis=1).mean(axis=1)


DYNAMICS_EPOCHS = (*(tenths / 5 for tenths in range(16)), 5, 10, 15, 20)
"""Moments of figure 12: five times an epoch for three epochs, then epochs 5, 10, 15 and 20."""


def dynamics(
    *,
    hidden: int = 32,
    clauses: int = 4,
    trials: int = 10,
    moments: Iterable[float] = DYNAMICS_EPOCHS,
    embedding: str = "identity",
    negated: int = 0,
    seed: int = 0,
    variables: int = 32,
    width: int = 4,
    samples: int = 20_000,
    engine: str = "auto",
    progress: Progress = False,
) -> pd.DataFrame:
    """How patterns emerge in training (arXiv 2504.08842, section 4.6 and figure 12).

    Args:
        hidden: hidden width, j.
        clauses: number of clauses, C.
        trials: networks, each with a formula of its own.
        moments: finite epochs, in fractions, at which the networks are decoded; training ends at the last.
        embedding: see `train`.
        negated: see `curves`.
        seed: see `curves`.
        variables: number of variables, n.
        width: literals of a clause, k.
        samples: training samples of each network.
        engine: see `train`.
        progress: see `train`.

    Returns:
        One row a moment and trial: epoch, trial, train_bce (of the weights at that moment on all training data),
        train_error, and the columns of `Codes.summary`.

    Raises:
        PrecodeValueError: a setting out of range.

    Example:
        >>> table = dynamics(trials=2, moments=[0, 0.2, 1])
        >>> table.groupby("epoch")["4P_positive"].mean().is_monotonic_increasing
        True
    """
    listed = numbers(moments, "moments", 0)
    trials = integer(trials, "trials", 1, MOST["trials"])
    samples = integer(samples, "samples", 1, COUNT)
    tasks = [
        Dnf.random(variables=variables, clauses=clauses, width=width, negated=negated, seed=seed, index=trial)
        for trial in range(trials)
    ]
    steps_per_epoch = -(-samples // 64)
    steps = {moment: round(moment * steps_per_epoch) for moment in listed}
    runs = train(
        tasks,
        hidden=hidden,
        seed=seed,
        samples=samples,
        embedding=embedding,
        epochs=max(1, -(-max(steps.values()) // steps_per_epoch)),
        early_stopping=None,
        snapshots=steps.values(),
        engine=engine,
        progress=progress,
    )
    frames = []
    for moment, step in steps.items():
        networks = runs.at(step)
        table = networks.codes().summary().rename(columns={"network": "trial"})
        evaluation = networks.evaluate(runs.data)
        table.insert(0, "epoch", moment)
        table.insert(2, "train_bce", evaluation["loss"])
        table.insert(3, "train_error", evaluation["error"])
        frames.append(table)
    return pd.concat(frames, ignore_index=True)
