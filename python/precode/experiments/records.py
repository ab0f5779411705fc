"""Experiments as records: a setting, the cells it falls into, tables, figures, and the numbers that were published."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from precode._internal.cells import Kind
from precode._internal.errors import PrecodeError, PrecodeFileError, PrecodeTypeError, PrecodeValueError
from precode._internal.progress import Progress, reporter
from precode.experiments.cells import Finished, Tables, finish
from precode.experiments.comparison import KEYS, Reported, compared, place
from precode.experiments.setting import Setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CELLS = "cells"
"""Folder of finished cells, in the folder of an experiment."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while an experiment was computed. It is a `KeyboardInterrupt`, and brings what was finished.

    Attributes:
        finished: the result of the cells that were finished, None where there were none. After Ctrl-C in a notebook it
            is at hand as ``sys.last_value.finished``.

    Example:
        >>> from precode import curves
        >>> def stop(done, total):
        ...     if done == 1:
        ...         raise KeyboardInterrupt
        >>> try:
        ...     curves(8, [2, 4], trials=1, epochs=1, progress=stop)
        ... except Interrupted as interrupt:
        ...     print(interrupt, len(interrupt.finished.table))
        1 of 2 cells are finished 1
    """

    def __init__(self, finished: Result | None, done: int, planned: int) -> None:
        super().__init__(f"{done} of {planned} cells are finished")
        self.finished = finished


def nothing(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What compares with reported numbers where there are none."""
    return pd.DataFrame(columns=[*KEYS, "formula", "value"])


@dataclass(frozen=True)
class Experiment:
    """An experiment of a paper, or one beside it. Calling it runs it.

    Attributes:
        name: what it is called by: ``precode.experiments.<name>(...)`` and ``precode reproduce <name>``.
        title: in one line.
        source: the paper, with its section.
        words: what is done and what was found, in sentences.
        setting: its named values, with their defaults. Every experiment has ``formulas`` and ``seed``.
        quick: values that make it a matter of seconds, as a trial of the machinery.
        full: values for all points that the documentation tells of, where the defaults are a few minutes' worth.
        kind: its cells, whose results are tables; see `precode.experiments.Kind`. Its functions get the `Setting` as
            configuration, and refuse an impossible one when the cells are listed.
        tables: from the finished cells, in their order, tables by name; the first is the experiment's table.
        figures: by name, what draws a figure of a result: a function of (result, axes or None).
        reported: the published numbers; none where a source tells its findings in words.
        measured: from the tables, what compares with the reported numbers: columns figure, quantity, at (see
            `precode.experiments.place`), formula and value.
        result: the class of its result.

    Example:
        >>> from precode.experiments import EXPERIMENTS
        >>> EXPERIMENTS[0].name, EXPERIMENTS[0].setting["formulas"]
        ('curves', 10)
    """

    name: str
    title: str
    source: str
    words: str
    setting: Mapping[str, Any]
    quick: Mapping[str, Any]
    kind: Kind
    tables: Callable[[Sequence[Finished]], Tables]
    figures: Mapping[str, Callable[[Any, Axes | None], Axes]]
    reported: tuple[Reported, ...] = ()
    measured: Callable[[Mapping[str, pd.DataFrame]], pd.DataFrame] = nothing
    result: type[Result] = field(default_factory=lambda: Result)
    full: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if missing := {"formulas", "seed"} - set(self.setting):
            raise PrecodeValueError(f"experiment {self.name!r}: its setting lacks {', '.join(sorted(missing))}")
        for values in (self.quick, self.full):
            Setting(self.name, self.setting, values)

    def __call__(self, *, out: str | Path | None = None, progress: Progress = True, **setting: Any) -> Any:
        """Runs the experiment.

        Args:
            out: folder in which finished cells are kept: the same call, or one with more formulas, goes on from there.
            progress: True for a bar, or a function of (cells done, in all).
            **setting: values other than the defaults in `setting`.

        Returns:
            Its `Result`.

        Raises:
            PrecodeValueError: an unknown name, or a value out of range; the message lists what there is.
            PrecodeTypeError: a value of the wrong type.
            PrecodeFileError: the folder cannot be written, or what was kept there is damaged.
            Interrupted: Ctrl-C; it brings the cells that are finished.
        """
        chosen = Setting(self.name, self.setting, setting)
        cells = self.kind.planned(chosen)
        folder = None if out is None else _folder(Path(out))
        done: list[Finished] = []
        try:
            with reporter(progress, len(cells), "cell") as report:
                for cell in cells:
                    done.append(finish(self.kind, cell, folder))
                    if report:
                        report(len(done))
        except KeyboardInterrupt as interrupt:
            partly = self.result(self, chosen, self.tables(done), len(done), len(cells)) if done else None
            raise Interrupted(partly, len(done), len(cells)) from interrupt
        return self.result(self, chosen, self.tables(done), len(done), len(cells))

    def __repr__(self) -> str:
        return f"Experiment({self.name!r}, {self.title!r}, settings: {', '.join(self.setting)})"


def _folder(out: Path) -> Path:
    """The folder of finished cells.

    Raises:
        PrecodeFileError: it cannot be made.
    """
    try:
        (out / CELLS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PrecodeFileError(f"{out}: no files can be written there ({error.strerror or error})") from error
    return out / CELLS


class Result:
    """What an experiment measured, beside what was reported; made by calling an `Experiment`.

    Attributes:
        experiment: its record.
        setting: the values it was run with.
        tables: by name; the first is `table`.
        done: cells that are finished.
        planned: cells in all; more than `done` only after Ctrl-C (see `Interrupted`).

    Example:
        >>> from precode import experiments
        >>> small = experiments.curves(hidden=8, clauses=2, formulas=2, epochs=1, samples=640, scaling=(), moments=())
        >>> small
        Curves(experiment=curves, rows=1, formulas=2, compared with 0 of 144 reported numbers)
        >>> list(small.reported)[:7]
        ['figure', 'quantity', 'at', 'reported', 'measured', 'low', 'high']
    """

    def __init__(
        self, experiment: Experiment, setting: Setting, tables: Mapping[str, pd.DataFrame], done: int, planned: int
    ) -> None:
        self.experiment = experiment
        self.setting = setting
        self.tables = dict(tables)
        self.done = done
        self.planned = planned

    @property
    def table(self) -> pd.DataFrame:
        """What was measured, a row a point."""
        return next(iter(self.tables.values()))

    @cached_property
    def reported(self) -> pd.DataFrame:
        """One row a published number: figure, quantity, at, reported, measured, low, high, difference, ...

        measured is the mean over formulas, low and high its 95 % interval, difference measured minus reported; formulas
        their number; then source, reading (how the number was taken from it) and second_hand. What was not measured in
        this setting is NaN.
        """
        return compared(self.experiment.reported, self.experiment.measured(self.tables))

    @property
    def changed(self) -> dict[str, Any]:
        """Values of the setting that are none of the record's, so that numbers compare less or not at all."""
        record = (self.experiment.setting, self.experiment.full)
        return {
            name: value
            for name, value in self.setting.items()
            if not any(name in values and value == values[name] for values in record)
        }

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of its figures."""
        return tuple(self.experiment.figures)

    def plot(self, figure: str | None = None, *, ax: Axes | None = None) -> Axes:
        """Draws a figure, measured beside reported.

        Args:
            figure: one of `figures`; the first by default.
            ax: axes to draw on.

        Raises:
            PrecodeValueError: there is no such figure, or nothing was measured for it.
        """
        name = self.figures[0] if figure is None else figure
        if not isinstance(name, str):
            raise PrecodeTypeError(f"figure must be a name, not {type(name).__name__}")
        if name not in self.experiment.figures:
            raise PrecodeValueError(f"figure {name!r} is unknown: use one of {', '.join(self.figures)}")
        return self.experiment.figures[name](self, ax)

    def __repr__(self) -> str:
        keys = set(
            self.experiment.measured(self.tables).dropna(subset="value")[KEYS].itertuples(index=False, name=None)
        )
        beside = sum((item.figure, item.quantity, place(item.at)) in keys for item in self.experiment.reported)
        part = "" if self.done == self.planned else f", only {self.done} of {self.planned} cells finished"
        return (
            f"{type(self).__name__}(experiment={self.experiment.name}, rows={len(self.table)}, "
            f"formulas={self.setting['formulas']}, compared with {beside} of "
            f"{len(self.experiment.reported)} reported "
            f"numbers{part})"
        )

    def differs(self) -> str:
        """What `changed` means for the comparison, as a sentence; empty where nothing is changed."""
        if not self.changed:
            return ""
        words = ", ".join(f"{name} = {reprlib.repr(value)}" for name, value in self.changed.items())
        return f"Not in the setting of the source: {words}."

    def _repr_html_(self) -> str:
        style: dict[str, Any] = {"index": False, "float_format": "{:.3g}".format, "max_rows": 12, "border": 0}
        measured = f"<p>{escape(self.experiment.title)}</p>{self.table.to_html(**style)}"
        try:
            beside = self.reported[self.reported["measured"].notna()]
        except PrecodeError as error:  # no SciPy
            return f"{measured}<p>{escape(str(error))}</p>"
        columns = ["figure", "quantity", "at", "reported", "measured", "low", "high", "difference"]
        return (
            f"{measured}<p>Reported beside measured ({escape(self.experiment.source)}). {escape(self.differs())}</p>"
            f"{beside[columns].to_html(**style)}"
        )
