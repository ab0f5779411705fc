"""A claim of the paper with its verdict."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, ParamSpec

import pandas as pd

from precode.claims.rules import Rules, load_rules, sentence
from precode.claims.statistics import Estimate, NotEnoughData

P = ParamSpec("P")

VERDICTS = ("holds", "partly", "does not hold", "not enough data")


@dataclass(frozen=True, eq=False)
class Claim:
    """A claim (science.md, section 6), judged by a rule that was written down before the run.

    Attributes:
        name: C1 to C6.
        statement: what is claimed.
        measure: what the effect is.
        verdict: one of `VERDICTS`.
        effect: mean over formulas; NaN if there are not enough data.
        low: lower end of its bootstrap interval over formulas.
        high: upper end.
        formulas: number of formulas behind it.
        nulls: the measure, or its counterpart, under each null, by name.
        conditions: what the rule asks for, and whether it is so.
        rule: the decision rule with its thresholds.
        details: the table behind the effect.
        tables: further tables by name.
        reason: why there are not enough data, or what limits the verdict; empty if nothing does.

    Example:
        >>> claim = Claim("C1", "s", "m", "holds", 0.2, 0.1, 0.3, 12, {"random": 0.0}, {"low > 0": True}, "r")
        >>> claim
        Claim(C1 holds: 0.2 [0.1, 0.3], 12 formulas)
        >>> claim.record()["nulls"]
        {'random': 0.0}
    """

    name: str
    statement: str
    measure: str
    verdict: str
    effect: float
    low: float
    high: float
    formulas: int
    nulls: Mapping[str, float]
    conditions: Mapping[str, bool]
    rule: str
    details: pd.DataFrame = field(default_factory=pd.DataFrame)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    reason: str = ""

    def record(self) -> dict[str, Any]:
        """Everything but the tables, as plain values for JSON; what is not a number becomes None."""
        values = {name: value for name, value in vars(self).items() if name not in ("details", "tables")}
        values["nulls"], values["conditions"] = dict(self.nulls), dict(self.conditions)
        return {name: _plain(value) for name, value in values.items()}

    def __repr__(self) -> str:
        if self.verdict == "not enough data":
            return f"Claim({self.name} not enough data: {self.reason})"
        return (
            f"Claim({self.name} {self.verdict}: {self.effect:.3g} [{self.low:.3g}, {self.high:.3g}], "
            f"{self.formulas} formulas)"
        )

    def _repr_html_(self) -> str:
        shown = {"verdict": self.verdict, "measure": self.measure, "effect": repr(self), "rule": self.rule}
        lines = "".join(f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>" for name, text in shown.items())
        return f"<table><caption>{self.name}: {html.escape(self.statement)}</caption>{lines}</table>"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Finding:
    """What a claim's test found, before it is dressed with statement and rule.

    Attributes:
        effect: of the measure.
        holds: conditions of the verdict "holds", by a sentence each.
        partly: conditions of the verdict "partly".
        nulls: see `Claim`.
        details: see `Claim`.
        tables: see `Claim`.
        reason: see `Claim`.
    """

    effect: Estimate
    holds: Mapping[str, bool]
    partly: Mapping[str, bool]
    nulls: Mapping[str, float]
    details: pd.DataFrame
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    reason: str = ""

    @property
    def verdict(self) -> str:
        """Holds if all its conditions are met, partly if all of that are."""
        if all(self.holds.values()):
            return "holds"
        return "partly" if all(self.partly.values()) else "does not hold"


def claim(name: str) -> Callable[[Callable[P, Finding]], Callable[P, Claim]]:
    """Makes a claim of a function that returns a `Finding`; its last argument is `rules`."""

    def decorate(function: Callable[P, Finding]) -> Callable[P, Claim]:
        @wraps(function)
        def judged(*args: P.args, **kwargs: P.kwargs) -> Claim:
            chosen = kwargs.get("rules")
            rules: Rules = chosen if isinstance(chosen, dict) else load_rules()
            texts = (rules[name]["statement"], sentence(rules, name, "measure"))
            try:
                found = function(*args, **kwargs)
            except NotEnoughData as error:
                nan = float("nan")
                return Claim(
                    name, *texts, "not enough data", nan, nan, nan, 0, {}, {}, sentence(rules, name), reason=str(error)
                )
            effect = found.effect
            return Claim(
                name,
                *texts,
                found.verdict,
                effect.value,
                effect.low,
                effect.high,
                effect.formulas,
                dict(found.nulls),
                {**found.holds, **found.partly},
                sentence(rules, name),
                found.details,
                dict(found.tables),
                found.reason,
            )

        return judged

    return decorate
