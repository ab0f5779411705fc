"""The locations that claims are judged on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from precode._internal.errors import PrecodeValueError
from precode.claims.observations import positives

POLARITIES = ("positive", "negative")
"""Codes of rows of positive output weight, 4P of four literals, and of negative ones, 3N1P. A public digest of arXiv
2605.17704 reports that both count."""


def candidates(locations: pd.DataFrame, kind: str = "formula", polarities: Sequence[str] = POLARITIES) -> pd.DataFrame:
    """Locations that the claims are judged on: of the code templates, with the right polarity at initialization.

    Args:
        locations: see `observe_locations`.
        kind: of the clauses of the formula, or false ones.
        polarities: some of `POLARITIES`.

    Example:
        >>> table = pd.DataFrame({"kind": "formula", "template": ["4P", "3N1P", "2P2N"], "polarity": True})
        >>> candidates(table)["template"].tolist(), candidates(table, polarities=["positive"])["template"].tolist()
        (['4P', '3N1P'], ['4P'])
    """
    chosen = (locations["kind"] == kind) & locations["polarity"].astype(bool)
    found = locations[chosen.to_numpy() & of_codes(locations["template"], polarities).to_numpy()]
    if isinstance(found["template"].dtype, pd.CategoricalDtype):
        found = found.assign(template=found["template"].cat.remove_unused_categories())
    return found


def of_codes(template: pd.Series[Any], polarities: Sequence[str] = POLARITIES) -> pd.Series[bool]:
    """Whether a template is that of a code of one of the polarities.

    Raises:
        PrecodeValueError: an unknown polarity, or none.

    Example:
        >>> of_codes(pd.Series(["4P", "3N1P", "2P2N", "4N"])).tolist()
        [True, True, False, False]
    """
    if not polarities or not set(polarities) <= set(POLARITIES):
        raise PrecodeValueError(f"polarities = {list(polarities)}: use some of {', '.join(POLARITIES)}")
    names = template.astype(str)
    kinds = {name: _polarity(name) for name in names.unique()}
    return names.map(lambda name: kinds[name] in polarities).astype(bool)


def _polarity(template: str) -> str:
    """The polarity whose code a template is; empty where it is none."""
    if "N" not in template:
        return "positive"
    return "negative" if positives(template) == 1 else ""
