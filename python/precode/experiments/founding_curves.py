"""The curves of arXiv 2504.08842, section 4: how codes and error change with width, clauses and training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pandas as pd

from precode._internal.check import COUNT, KEY, integer, integers, numbers
from precode._internal.errors import PrecodeTypeError, PrecodeValueError
from precode._internal.progress import Progress
from precode.experiments import published
from precode.experiments.cells import Finished, Tables
from precode.experiments.comparison import KEYS, place
from precode.experiments.founding_cells import FORMULA, KIND, MOST, trained_dynamics
from precode.experiments.records import Experiment, Result
from precode.networks.settings import DEFAULT_STOPPING, EarlyStopping

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DYNAMICS_EPOCHS = (*(tenths / 5 for tenths in range(16)), 5, 10, 15, 20)
"""Moments of figure 12: five times an epoch for three epochs, then epochs 5, 10, 15 and 20."""

PLACE = ["hidden", "clauses", "trials", "embedding"]
"""Columns that say which point a row is of."""


class Curves(Result):
    """Measured curves; made by `curves`.

    Attributes:
        table: one row a point, means over its trials. Patterns are mean rows per clause; `train_bce` and `train_error`
            are those of the final weights on all training data, `test_error` on as many fresh samples; `code_size`,
            `overlap`, `clauses_without_code` and `positive_rows` as in `Codes.summary`; `seconds` of wall-clock time
            for the point; `random_4P_positive` the all-positive pattern in random networks with the same polarities and
            fraction of positive entries; `epochs` the mean number run.
        trials: the same columns for every single trial, with its number in `trial`; `seconds` is its share.
        reported: published numbers beside measured ones; see `Result`.

    Example:
        >>> from precode import curves
        >>> measured = curves(hidden=[8], clauses=[2], trials=2, epochs=1, progress=False)
        >>> len(measured.table), len(measured.trials), measured.figures
        (1, 2, ('4P_positive', 'train_error', '3N1P_negative', 'scaling', 'dynamics'))
    """

    @property
    def trials(self) -> pd.DataFrame:
        """See the class."""
        return self.tables["trials"]

    def plot(self, figure: str | None = "4P_positive", *, ax: Axes | None = None) -> Axes:
        """Draws one of `figures`, or any column of the table against the number of clauses; beside published points.

        Args:
            figure: its name, or a column of numbers.
            ax: axes to draw on.

        Raises:
            PrecodeValueError: there is neither such a figure nor such a column, or nothing was measured for it.
        """
        if isinstance(figure, str) and figure not in self.figures:
            return _against_clauses(figure)(self, ax)
        return super().plot(figure, ax=ax)


def _against_clauses(column: str) -> Callable[[Any, Axes | None], Axes]:
    def draw(result: Curves, ax: Axes | None) -> Axes:
        from precode import plot

        return plot.curves(result.trials, column, published=published.points(), ax=ax)

    return draw


def _draw_dynamics(result: Curves, ax: Axes | None) -> Axes:
    from precode import plot

    return plot.dynamics(_there(result, "dynamics"), published=published.dynamics(), ax=ax)


def _draw_scaling(result: Curves, ax: Axes | None) -> Axes:
    from precode import plot

    return plot.scaling(_there(result, "scaling"), published=published.scaling(), ax=ax)


def _there(result: Curves, name: str) -> pd.DataFrame:
    table = result.tables[name]
    if table.empty:
        raise PrecodeValueError(f"nothing was measured for the figure {name!r}: run precode.experiments.curves for it")
    return table


def tables(cells: Sequence[Finished]) -> Tables:
    """The experiment's tables from its cells.

    Returns:
        ``points`` and ``trials``, see `Curves`; ``random``, all patterns of random networks; ``scaling``, the trials of
        figure 11; ``dynamics``, see `precode.dynamics`.
    """
    frames: dict[str, list[pd.DataFrame]] = {"trials": [], "random": [], "scaling": [], "dynamics": []}
    for cell in cells:
        found = {name: table.rename(columns={FORMULA: "trial"}) for name, table in cell.tables.items()}
        if cell.settings["series"] == "dynamics":
            frames["dynamics"].append(found["dynamics"].sort_values("epoch", kind="stable", ignore_index=True))
            continue
        rows, random = found["points"], found["random"]
        rows["seconds"] = cell.seconds / len(rows)
        first = str(next(name for name in random if name != "trial"))
        rows[f"random_{first}"] = random[first]
        rows["epochs"] = rows.pop("epochs")  # last
        if cell.settings["series"] == "scaling":
            frames["scaling"].append(_placed(cell, rows))
        else:
            frames["trials"].append(_placed(cell, rows))
            frames["random"].append(_placed(cell, random))
    merged = {name: pd.concat(every, ignore_index=True) if every else pd.DataFrame() for name, every in frames.items()}
    return {"points": _averaged(merged["trials"]), **merged}


def _placed(cell: Finished, table: pd.DataFrame) -> pd.DataFrame:
    """A cell's rows with the columns that say which point they are of, behind the number of the trial."""
    places = {name: cell.settings.get(name, len(table)) for name in PLACE}
    return pd.DataFrame({"trial": table["trial"], **places, **table.drop(columns="trial")})


def _averaged(trials: pd.DataFrame) -> pd.DataFrame:
    if trials.empty:
        return pd.DataFrame()
    groups = trials.drop(columns="trial").groupby(PLACE, sort=False)
    # The time of a point is that of all its trials.
    means = groups.mean().assign(seconds=groups["seconds"].sum()).reset_index()
    return means[[name for name in trials if name != "trial"]]


def measured(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What compares with the published numbers, one row a number and trial."""
    trials, random = tables["trials"], tables["random"]
    frames = [pd.DataFrame(columns=[*KEYS, FORMULA, "value"])]

    def add(figure: str, table: pd.DataFrame, quantity: str, at: Sequence[str], values: Any = None) -> None:
        if not table.empty and (values is not None or quantity in table):
            points = [place(dict(zip(at, row, strict=True))) for row in table[list(at)].to_numpy().tolist()]
            value = table[quantity] if values is None else values
            keys = {"figure": figure, "quantity": quantity, "at": points}
            frames.append(pd.DataFrame({**keys, FORMULA: table["trial"], "value": value}))

    point = ["hidden", "clauses"]
    add("figure 4", trials, "train_error", point)
    add("figure 7", trials, "4P_positive", point)
    add("figure 7", trials, "random_4P_positive", ["hidden"])
    for pattern in ("3N1P", "2P2N"):
        add("figure 8", trials, f"{pattern}_negative", point)
        values = None if random.empty else random.get(f"{pattern}_negative")
        add("figure 8", random, f"random_{pattern}_negative", ["hidden"], values)
    if not trials.empty:
        coded = trials["clauses"] - trials["clauses_without_code"]
        sizes = (trials["code_size"] * trials["clauses"] / coded).where(coded > 0)
        add("figure 10", trials, "code_size", point, sizes)
    add("figure 10", trials, "overlap", point)
    for column in ("test_error", "4P_positive", "3N1P_negative"):
        add("figure 11", tables["scaling"], column, ["hidden"])
    for name in published.dynamics().drop(columns="epoch"):
        add("figure 12", tables["dynamics"], str(name), ["epoch"])
    filled = [frame for frame in frames if not frame.empty]
    return pd.concat(filled, ignore_index=True) if filled else frames[0]


EXPERIMENT = Experiment(
    name="curves",
    title="Codes and errors against width, number of clauses and training time",
    source="arXiv 2504.08842, section 4",
    words=(
        "Networks of one hidden layer are trained on random formulas of four-literal clauses, and their codes are read "
        "from the signs of W1 C0: rows that show a pattern, per clause, against the number of clauses (figures 7, 8), "
        "beside the training error (figure 4), the size and overlap of codes (figure 10), widths at 64 clauses with "
        "half the epochs (figure 11), and patterns while 32 rows learn 4 clauses (figure 12). Codes of positive rows "
        "shrink as clauses are added, and errors begin where fewer than about two rows a clause are left. Figure 8's "
        "random baseline is compared with the mean over all numbers of clauses."
    ),
    setting={
        "hidden": published.HIDDEN,
        "clauses": published.CLAUSES,
        "formulas": 10,
        "epochs": 100,
        "embedding": "hadamard",
        "negated": 0,
        "seed": 0,
        "variables": 32,
        "width": 4,
        "samples": 20_000,
        "early_stopping": asdict(DEFAULT_STOPPING),
        "engine": "auto",
        "scaling": published.SCALING,
        "scaling_clauses": 64,
        "moments": DYNAMICS_EPOCHS,
        "dynamics_hidden": 32,
        "dynamics_clauses": 4,
    },
    quick={
        "hidden": (16, 32),
        "clauses": (4, 16, 64),
        "formulas": 3,
        "epochs": 20,
        "scaling": (8, 32),
        "moments": (0.0, 1.0, 2.0, 3.0),
    },
    kind=KIND,
    tables=tables,
    measured=measured,
    reported=published.reported(),
    figures={
        **{column: _against_clauses(column) for column in ("4P_positive", "train_error", "3N1P_negative")},
        "scaling": _draw_scaling,
        "dynamics": _draw_dynamics,
    },
    result=Curves,
)


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

    The points of `precode.experiments.curves`, in a setting of your own.

    Args:
        hidden: hidden widths, j.
        clauses: numbers of clauses, C.
        trials: networks a point, each with formula, data and initial weights of its own, drawn independently of all
            other points and of which other points there are.
        epochs: most passes over the data.
        embedding: a name; see `train`.
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
        KeyboardInterrupt: Ctrl-C, within a second; the finished points are its `finished` (see
            `precode.experiments.Interrupted`).

    Example:
        >>> result = curves(16, [2, 4], trials=2, epochs=2, progress=False)
        >>> result.table[["hidden", "clauses", "trials"]].values.tolist()
        [[16, 2, 2], [16, 4, 2]]
    """
    if early_stopping is not None and not isinstance(early_stopping, EarlyStopping):
        raise PrecodeTypeError(
            f"early_stopping must be an EarlyStopping or None, not {type(early_stopping).__name__}: "
            "use pc.EarlyStopping(patience=...)"
        )
    done: Curves = EXPERIMENT(
        hidden=integers(hidden, "hidden", 1, MOST["hidden"]),
        clauses=integers(clauses, "clauses", 1, MOST["clauses"]),
        formulas=integer(trials, "trials", 1, MOST["formulas"]),
        epochs=integer(epochs, "epochs", 1, COUNT),
        embedding=embedding,
        negated=negated,
        seed=seed,
        variables=variables,
        width=width,
        samples=integer(samples, "samples", 1, COUNT),
        early_stopping=early_stopping,
        engine=engine,
        scaling=(),
        moments=(),
        progress=progress,
    )
    return done


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
    settings = {
        "hidden": integer(hidden, "hidden", 1, MOST["hidden"]),
        "clauses": clauses,
        "moments": numbers(moments, "moments", 0),
        "embedding": embedding,
        "negated": negated,
        "seed": integer(seed, "seed", 0, KEY),
        "variables": variables,
        "width": width,
        "samples": integer(samples, "samples", 1, COUNT),
        "engine": engine,
    }
    table = trained_dynamics(settings, range(integer(trials, "trials", 1, MOST["formulas"])), progress)
    return table.rename(columns={FORMULA: "trial"})
