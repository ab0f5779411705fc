"""Published curves of arXiv 2504.08842, to lay measurements beside.

The values were read off the figures by eye (about 3 % of the axis) and are averages over 10 trials a point.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

import pandas as pd

CLAUSES = (2, 4, 8, 12, 16, 24, 32, 42, 56, 64)
"""Clause counts of figures 4, 7 and 8."""

HIDDEN = (16, 32, 64)
"""Hidden widths of figures 4 and 7."""


@cache
def _raw() -> dict[str, Any]:
    text = resources.files("precode.experiments").joinpath("data/fcc-2504.08842.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


def citation() -> str:
    """Where the values come from and how exact they are.

    Example:
        >>> "2504.08842" in citation()
        True
    """
    return str(_raw()["citation"])


def curves() -> pd.DataFrame:
    """Figures 4 and 7: columns hidden, clauses, train_error, 4P_positive, random_4P_positive.

    `4P_positive` is the number of positive rows that show 4P, per clause; `random_4P_positive` the same for random
    signs; `train_error` a fraction.

    Example:
        >>> table = curves()
        >>> len(table), float(table.query("hidden == 32 and clauses == 4")["4P_positive"].iloc[0])
        (30, 6.0)
    """
    raw = _raw()
    rows = [
        {
            "hidden": int(hidden),
            "clauses": clauses,
            "train_error": error,
            "4P_positive": rows,
            "random_4P_positive": raw["figure_7_random_baseline_4P"][hidden],
        }
        for hidden, errors in raw["figure_4_train_error"].items()
        for clauses, error, rows in zip(
            raw["clauses"], errors, raw["figure_7_4P_rows_per_clause_on_positive_rows"][hidden], strict=True
        )
    ]
    return pd.DataFrame(rows)


def negative_rows() -> pd.DataFrame:
    """Figure 8, hidden 32: columns pattern, clauses, rows, random (rows per clause on negative rows).

    Example:
        >>> sorted(negative_rows()["pattern"].unique())
        ['2P2N', '3N1P']
    """
    raw = _raw()["figure_8_negative_rows_hidden_32"]
    rows = [
        {
            "pattern": pattern,
            "clauses": int(clauses),
            "rows": value,
            "random": raw["random_baseline"][pattern],
        }
        for pattern in ("3N1P", "2P2N")
        for clauses, value in raw[pattern].items()
    ]
    return pd.DataFrame(rows)


def dynamics() -> pd.DataFrame:
    """Figure 12, hidden 32 and 4 clauses: one row an epoch, columns epoch, train_bce and patterns such as 4P_positive.

    Every plotted value is a multiple of 1/4, so the figure looks like one run although its caption says ten.

    Example:
        >>> {"epoch", "train_bce", "4P_positive"} <= set(dynamics())
        True
    """
    raw = _raw()["figure_12_dynamics_hidden_32_clauses_4"]
    return pd.DataFrame({name: values for name, values in raw.items() if isinstance(values, list)})
