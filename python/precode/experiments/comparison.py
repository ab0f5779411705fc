"""Published numbers beside measured ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from precode._internal.statistics import interval


@dataclass(frozen=True)
class Reported:
    """A published number.

    Attributes:
        figure: where it stands, such as ``"figure 7"``.
        quantity: what it is, such as a column of the experiment's table.
        at: the point of the setting.
        value: the number.
        source: the paper.
        reading: how it was taken from there, and how exact it is.
        second_hand: whether it was taken from a text about the paper instead.

    Example:
        >>> Reported("figure 7", "4P_positive", {"hidden": 32, "clauses": 4}, 6.0, "arXiv 2504.08842").value
        6.0
    """

    figure: str
    quantity: str
    at: Mapping[str, Any]
    value: float
    source: str
    reading: str = field(default="", repr=False)
    second_hand: bool = False


def place(at: Mapping[str, Any]) -> str:
    """A point of the setting in words.

    Example:
        >>> place({"hidden": 32, "epoch": 1.0})
        'hidden 32, epoch 1'
    """
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in at.items()
    )


KEYS = ["figure", "quantity", "at"]
"""What a reported number and its measurement are matched by."""


def compared(reported: Iterable[Reported], measured: pd.DataFrame) -> pd.DataFrame:
    """Reported numbers beside means over formulas with their 95 % intervals (`precode._internal.statistics.interval`).

    Args:
        reported: published numbers.
        measured: columns figure, quantity, at, formula, value; rows whose value is NaN are left out.

    Returns:
        Columns figure, quantity, at, reported, measured, low, high, difference, formulas, source, reading, second_hand;
        NaN where nothing was measured, and for the ends of intervals of a single formula.

    Raises:
        PrecodeError: SciPy is not installed.

    Example:
        >>> number = Reported("table 1", "accuracy", {"density": 0.5}, 0.9, "a paper")
        >>> values = pd.DataFrame({"figure": "table 1", "quantity": "accuracy", "at": "density 0.5", "formula": [0, 1],
        ...                        "value": [0.8, 0.9]})
        >>> compared([number], values)[["reported", "measured", "difference"]].round(3).values.tolist()
        [[0.9, 0.85, -0.05]]
    """
    listed = [
        {
            "figure": item.figure,
            "quantity": item.quantity,
            "at": place(item.at),
            "reported": item.value,
            "source": item.source,
            "reading": item.reading,
            "second_hand": item.second_hand,
        }
        for item in reported
    ]
    columns = [*KEYS, "reported", "source", "reading", "second_hand"]
    table = pd.DataFrame(listed, columns=columns).merge(_means(measured), "left", KEYS)
    table["difference"] = table["measured"] - table["reported"]
    table["formulas"] = table["formulas"].fillna(0).astype(int)
    order = [*KEYS, "reported", "measured", "low", "high", "difference", "formulas", "source", "reading", "second_hand"]
    return table[order]


def _means(measured: pd.DataFrame) -> pd.DataFrame:
    # A formula counts once, however many values it has at a point.
    formulas = measured.dropna(subset="value").groupby([*KEYS, "formula"], sort=False)["value"].mean()
    rows = []
    for key, values in formulas.groupby(KEYS, sort=False):
        low, high = interval(values)
        rows.append((*key, values.mean(), low, high, len(values)))
    return pd.DataFrame(rows, columns=[*KEYS, "measured", "low", "high", "formulas"])
