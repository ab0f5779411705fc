"""The decision rules of the claims: written down before any run, in one file."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

Rules = dict[str, Any]


@cache
def _text() -> str:
    return resources.files("precode.claims").joinpath("rules.json").read_text(encoding="utf-8")


def load_rules() -> Rules:
    """The rules as a fresh dictionary: what all claims share, and thresholds, statement and rule of each.

    All thresholds are our choices.

    Example:
        >>> rules = load_rules()
        >>> rules["formulas"], rules["C1"]["statement"]
        (10, 'Final codes were near at initialization.')
    """
    rules: Rules = json.loads(_text())
    return rules


def sentence(rules: Rules, claim: str, key: str = "rule") -> str:
    """A sentence of a claim with its thresholds filled in.

    Example:
        >>> sentence(load_rules(), "C6", "measure")
        'win rate of probes over weight-based methods, the smaller of accuracy and recovery_family'
    """
    values = {**rules, **rules[claim], "level": f"{(1 - rules['confidence']) / 2:g}"}
    listed = {name: ", ".join(value) if isinstance(value, list) else value for name, value in values.items()}
    text = f"{rules[claim][key]} {rules['interval']}" if key == "rule" else str(rules[claim][key])
    return text.format(**listed)
