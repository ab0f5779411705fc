"""Published curves of arXiv 2504.08842, to lay measurements beside.

The values were read off the figures by eye (about 3 % of the axis) and are averages over 10 trials a point.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

import pandas as pd

from precode.experiments.comparison import Reported

SOURCE = "arXiv 2504.08842v2"
READING = "read off the figure by eye, about 3 % of the axis; a mean over 10 trials"

CLAUSES = (2, 4, 8, 12, 16, 24, 32, 42, 56, 64)
"""Clause counts of figures 4, 7 and 8."""

HIDDEN = (16, 32, 64)
"""Hidden widths of figures 4 and 7."""

SCALING = (4, 8, 16, 32, 64, 128)
"""Hidden widths of figure 11."""


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


def scaling() -> pd.DataFrame:
    """Figure 11, 64 clauses and half the epochs: columns hidden, test_error, 4P_positive, 3N1P_negative.

    Example:
        >>> scaling()["hidden"].tolist()
        [4, 8, 16, 32, 64, 128]
    """
    return pd.DataFrame(_raw()["figure_11_clauses_64_half_epochs"])


def code_sizes() -> pd.DataFrame:
    """Figure 10: columns hidden, clauses, code_size (of clauses that have a code), overlap (mean over their pairs).

    Example:
        >>> code_sizes().query("hidden == 32 and clauses == 16").values.tolist()
        [[32.0, 16.0, 3.4, 1.3]]
    """
    rows = [
        {"hidden": int(hidden), "clauses": int(clauses), "code_size": size, "overlap": overlap}
        for hidden, points in _raw()["figure_10_code_size_and_overlap"].items()
        if hidden != "note"
        for clauses, (size, overlap) in points.items()
    ]
    return pd.DataFrame(rows)


def points() -> pd.DataFrame:
    """Figures 4, 7, 8 and 10 by point: the columns of `curves`, and 3N1P_negative, 2P2N_negative, overlap or NaN.

    Example:
        >>> points().query("hidden == 32 and clauses == 64")[["4P_positive", "3N1P_negative"]].values.tolist()
        [[1.2, 4.6]]
    """
    negative = negative_rows().pivot_table(index="clauses", columns="pattern", values="rows").add_suffix("_negative")
    sizes = code_sizes().drop(columns="code_size")
    return curves().merge(negative.reset_index().assign(hidden=32), "left").merge(sizes, "left")


def reported() -> tuple[Reported, ...]:
    """Every published number of section 4 that we have, one by one.

    Example:
        >>> len(reported()), reported()[0].figure
        (144, 'figure 4')
    """
    found: list[Reported] = []

    def add(figure: str, table: pd.DataFrame, columns: list[str], at: list[str], reading: str = READING) -> None:
        for column in columns:
            for row in table.to_dict("records"):
                point = {name: row[name] for name in at}
                found.append(Reported(figure, column, point, float(row[column]), SOURCE, reading))

    points = curves()
    add("figure 4", points, ["train_error"], ["hidden", "clauses"])
    add("figure 7", points, ["4P_positive"], ["hidden", "clauses"])
    add("figure 7", points.drop_duplicates("hidden"), ["random_4P_positive"], ["hidden"])
    for pattern, rows in negative_rows().groupby("pattern", sort=False):
        named = rows.assign(hidden=32).rename(columns={"rows": f"{pattern}_negative"})
        named = named.rename(columns={"random": f"random_{pattern}_negative"})
        add("figure 8", named, [f"{pattern}_negative"], ["hidden", "clauses"])
        add("figure 8", named.head(1), [f"random_{pattern}_negative"], ["hidden"])
    add("figure 10", code_sizes(), ["code_size", "overlap"], ["hidden", "clauses"])
    add("figure 11", scaling(), ["test_error", "4P_positive", "3N1P_negative"], ["hidden"])
    one_run = f"{READING}, which looks like a single run: every value is a multiple of 1/4"
    add("figure 12", dynamics(), [str(name) for name in dynamics() if name != "epoch"], ["epoch"], one_run)
    return tuple(found)
