"""The locations that claims are judged on."""

from __future__ import annotations

from typing import Any

import pandas as pd


def candidates(locations: pd.DataFrame, kind: str = "formula") -> pd.DataFrame:
    """Locations that the claims are judged on: all-positive template, right polarity at initialization.

    Example:
        >>> table = pd.DataFrame({"kind": ["formula"] * 2, "template": ["4P", "3N1P"], "polarity": [True, True]})
        >>> candidates(table)["template"].tolist()
        ['4P']
    """
    positive = of_positive_template(locations["template"])
    chosen = (locations["kind"] == kind) & locations["polarity"].astype(bool) & positive
    return locations[chosen.to_numpy()]


def of_positive_template(template: pd.Series[Any]) -> pd.Series[bool]:
    """Whether a template has positive signs only.

    Example:
        >>> of_positive_template(pd.Series(["4P", "3N1P"])).tolist()
        [True, False]
    """
    return ~template.astype(str).str.contains("N")
