"""Records: a claim of the paper with all that tests and reports it, and the verdict on it."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

from precode._internal.errors import PrecodeValueError
from precode.claims.conditions import MISSING, Asked, Estimates
from precode.claims.rules import Rules, RulesLike
from precode.claims.statistics import Estimate, NotEnoughData

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from precode.claims.observations import Observations


class Tables(Protocol):
    """Where figures find the tables and arrays behind a verdict, such as `precode.study.Study`."""

    @property
    def tables(self) -> list[str]:
        """Names of the tables."""

    def table(self, name: str) -> pd.DataFrame:
        """A table by its name; PrecodeValueError where there is none."""

    def arrays(self, name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Settings of each cell with arrays of that name, and these; PrecodeValueError where there are none."""


@dataclass(frozen=True, eq=False)
class Data:
    """What claims are judged from.

    Attributes:
        observations: from `observe`, of one cell or several.
        tickets: the table of `Retrained.table`, with the cell's columns where there are several cells.
        transport: the table of `transport_tickets`, likewise.
    """

    observations: Observations
    tickets: pd.DataFrame | None = None
    transport: pd.DataFrame | None = None


@dataclass(frozen=True)
class Value:
    """A value that a claim is judged by, such as a threshold.

    Attributes:
        value: a number, a name, or a list of names.
        meaning: what it decides.
    """

    value: Any
    meaning: str


@dataclass(frozen=True)
class Shown:
    """An entry of `Verdict.nulls` in words.

    Attributes:
        words: what the entry is called.
        meaning: what the null is; empty for what was measured.
    """

    words: str
    meaning: str = ""


@dataclass(frozen=True)
class Law:
    """What a claim adds to a synthetic study in which it is true; see `synthetic_study`.

    Attributes:
        words: the law, in words.
        codes: what it adds to the log-odds that a location of the formula becomes a code, from the table of locations.
        accuracy: what it adds to the accuracy of a method's tickets, from the method's name.
        recovery: what it adds to the share of codes that a method's tickets recover.
        moved: share of the recovered codes that are on random rows instead of their own.
    """

    words: str
    codes: Callable[[pd.DataFrame], NDArray[Any]] | None = None
    accuracy: Callable[[str], float] | None = None
    recovery: Callable[[str], float] | None = None
    moved: float | None = None


@dataclass(frozen=True)
class Figure:
    """A figure of a claim's section in the report.

    Attributes:
        caption: what it shows, in words.
        draw: draws it from a verdict and the tables behind it.
        wide: whether it needs the width of the page.
    """

    caption: str
    draw: Callable[[Verdict, Tables], Axes]
    wide: bool = False


@dataclass(frozen=True)
class Finding:
    """What a claim's test found, before conditions decide on it.

    Attributes:
        effect: of the measure.
        estimates: what the conditions ask for, by name.
        nulls: see `Verdict`.
        details: see `Verdict`.
        tables: see `Verdict`.
        reason: see `Verdict`.
    """

    effect: Estimate
    estimates: Estimates
    nulls: Mapping[str, float]
    details: pd.DataFrame
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Claim:
    """A claim of arXiv 2605.17704 (science.md, section 6): what is claimed, and the rule that decides, as one record.

    Attributes:
        name: C1 to C6.
        statement: what is claimed.
        measure: what the effect is; values by name in braces.
        scope: what it is judged on, in a sentence, likewise; empty for all that was observed.
        choices: the values that it is judged by, by name, all ours.
        test: measures what the conditions ask for, from data and rules.
        asks: its conditions, from its choices.
        question: what the claim is about, for the report.
        words: what the test does, for the report.
        nulls: entries of `Verdict.nulls`, by name.
        figures: of its section in the report.
        law: how a synthetic study is made in which the claim is true; None where it needs no law of its own.
        needs: tables that it cannot be judged without: attributes of `Data`.
        chance: the entry of `Verdict.nulls` that the effect would be by chance; 0 where empty.
        reported: what the paper reports of it, in words, with its source.
    """

    name: str
    statement: str
    measure: str
    choices: Mapping[str, Value]
    test: Callable[[Data, Rules], Finding]
    asks: Callable[[Mapping[str, Any]], Asked]
    question: str
    words: str
    nulls: Mapping[str, Shown]
    figures: Sequence[Figure] = ()
    law: Law | None = None
    scope: str = ""
    needs: Sequence[str] = ("observations",)
    chance: str = ""
    reported: str = ""

    def _repr_html_(self) -> str:
        shown = {"claim": self.statement, "question": self.question, "test": self.words, "rule": self.rule()}
        lines = "".join(f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>" for name, text in shown.items())
        return f"<table><caption>{self.name}</caption>{lines}</table>"

    def __repr__(self) -> str:
        return f"Claim({self.name}: {self.statement})"

    def own(self, rules: Rules) -> dict[str, Any]:
        """The values of this claim by name, with those that the rules change.

        Raises:
            PrecodeValueError: the rules change a value that the claim does not have.
        """
        changed = rules.own.get(self.name, {})
        if unknown := sorted(map(str, set(changed) - set(self.choices))):
            raise PrecodeValueError(f"{self.name} has no {', '.join(unknown)}: it has {', '.join(self.choices)}")
        return {**{name: item.value for name, item in self.choices.items()}, **changed}

    def sentence(self, text: str, rules: Rules) -> str:
        """A text of the claim with its values filled in."""
        shared = {name: getattr(rules, name) for name in Rules.shared()}
        values = {**shared, **self.own(rules)}
        listed = {name: ", ".join(value) if isinstance(value, list) else value for name, value in values.items()}
        return text.format(**listed)

    def rule(self, rules: RulesLike = None) -> str:
        """The rule in words, made from the conditions and values that judge."""
        rules = Rules.of(rules)
        parts = self.sentence(self.scope, rules), self.asks(self.own(rules)).text, interval_sentence(rules)
        return " ".join(filter(None, parts))

    def judge(self, data: Data, rules: RulesLike = None) -> Verdict:
        """The verdict on this claim.

        Args:
            data: what it is judged from.
            rules: see `Rules.of`.
        """
        rules = Rules.of(rules)
        for name in self.needs:
            if getattr(data, name) is None:
                return self._missing(NOT_GIVEN[name], rules)
        try:
            found = self.test(data, rules)
        except NotEnoughData as error:
            return self._missing(str(error), rules)
        asked, effect = self.asks(self.own(rules)), found.effect
        return Verdict(
            self.name,
            self.statement,
            self.sentence(self.measure, rules),
            asked.verdict(found.estimates),
            effect.value,
            effect.low,
            effect.high,
            effect.formulas,
            dict(found.nulls),
            asked.answers(found.estimates),
            self.rule(rules),
            found.details,
            dict(found.tables),
            found.reason,
        )

    def _missing(self, reason: str, rules: Rules) -> Verdict:
        """The verdict where there are not enough data."""
        nan, measure = math.nan, self.sentence(self.measure, rules)
        return Verdict(
            self.name, self.statement, measure, MISSING, nan, nan, nan, 0, {}, {}, self.rule(rules), reason=reason
        )


INTERVAL = (
    "Intervals are {percent:g} % intervals over formulas: at each end the wider of a bootstrap (bias-corrected and "
    "accelerated) and a t interval."
)
"""What all rules say of intervals."""


def interval_sentence(rules: Rules) -> str:
    """What all rules say of intervals, with the values of the rules."""
    return INTERVAL.format(percent=100 * rules.confidence)


NOT_GIVEN = {"tickets": "no tickets were given", "transport": "no row transport was given"}


@dataclass(frozen=True, eq=False)
class Verdict:
    """A claim of the paper, judged by a rule that was written down before the run.

    Attributes:
        name: C1 to C6.
        statement: what is claimed.
        measure: what the effect is.
        verdict: holds, partly, does not hold, inconclusive, or not enough data.
        effect: mean over formulas; NaN if there are not enough data.
        low: lower end of its interval over formulas.
        high: upper end.
        formulas: number of formulas behind it.
        nulls: the measure, or its counterpart, under each null, by name.
        conditions: what the rule asks for, and whether it is met, refuted or open; see `Condition`.
        rule: the decision rule with its thresholds.
        details: the table behind the effect.
        tables: further tables by name.
        reason: why there are not enough data, or what limits the verdict; empty if nothing does.
        setting: the embedding of the cells that it was reached on; empty where that was not asked.
        elsewhere: the claim in other embeddings, and for codes of each polarity alone: setting, verdict, effect, low,
            high and formulas of each.

    Example:
        >>> verdict = Verdict("C1", "s", "m", "holds", 0.2, 0.1, 0.3, 12, {"random": 0.0}, {"low > 0": "met"}, "r")
        >>> verdict
        Verdict(C1 holds: 0.2 [0.1, 0.3], 12 formulas)
        >>> verdict.record()["nulls"]
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
    conditions: Mapping[str, str]
    rule: str
    details: pd.DataFrame = field(default_factory=pd.DataFrame)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    reason: str = ""
    setting: str = ""
    elsewhere: Sequence[Mapping[str, Any]] = ()

    def table(self, name: str) -> pd.DataFrame:
        """A further table by its name.

        Raises:
            PrecodeValueError: there is none of that name.
        """
        if name not in self.tables:
            raise PrecodeValueError(f"claim {self.name} has no table {name!r}")
        return self.tables[name]

    def record(self) -> dict[str, Any]:
        """Everything but the tables, as plain values for JSON; what is not a number becomes None."""
        values = {name: value for name, value in vars(self).items() if name not in ("details", "tables")}
        values["nulls"], values["conditions"] = dict(self.nulls), dict(self.conditions)
        values["elsewhere"] = [dict(part) for part in self.elsewhere]
        return {name: _plain(value) for name, value in values.items()}

    def __repr__(self) -> str:
        if self.verdict == MISSING:
            return f"Verdict({self.name} not enough data: {self.reason})"
        return (
            f"Verdict({self.name} {self.verdict}: {self.effect:.3g} [{self.low:.3g}, {self.high:.3g}], "
            f"{self.formulas} formulas)"
        )

    def _repr_html_(self) -> str:
        shown = {"verdict": self.verdict, "measure": self.measure, "effect": repr(self), "rule": self.rule}
        lines = "".join(f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>" for name, text in shown.items())
        return f"<table><caption>{self.name}: {html.escape(self.statement)}</caption>{lines}</table>"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
