"""What the rules of all claims share: a value type; each claim holds its own values in its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, TypeAlias

from precode._internal.errors import PrecodeTypeError, PrecodeValueError
from precode._internal.statistics import CONFIDENCE, RESAMPLES
from precode.claims.candidates import POLARITIES
from precode.codes.interference import NEAR
from precode.tickets.recoveries import RELATIVE_FLOOR


@dataclass(frozen=True)
class Rules:
    """What the decision rules of all claims share, and the values of single claims that differ from their records.

    All thresholds are our choices.

    Attributes:
        confidence: of every interval.
        resamples: of every bootstrap.
        seed: of every bootstrap and permutation.
        formulas: fewest formulas that a claim is judged on.
        near: wrong signs up to which a location is near; observations must have been made with the same.
        relative_floor: codes need weights above this fraction of a network's mean magnitude in feature space: what
            observations and recoveries are to be made with.
        alpha: level of tests that are corrected for their number.
        polarities: of the codes that claims are judged on, positive (4P) and negative (3N1P); both count
            [reported by a public digest of arXiv 2605.17704].
        own: by a claim's name, its values that differ from its record, by name.

    Example:
        >>> rules = Rules.of({"resamples": 99, "C1": {"holds": 0.2}})
        >>> rules.resamples, rules.formulas, rules.own["C1"]["holds"]
        (99, 10, 0.2)
    """

    confidence: float = CONFIDENCE
    resamples: int = RESAMPLES
    seed: int = 0
    formulas: int = 10
    near: int = NEAR
    relative_floor: float = RELATIVE_FLOOR
    alpha: float = 0.05
    polarities: tuple[str, ...] = POLARITIES
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def of(cls, rules: RulesLike) -> Rules:
        """Rules from what a caller gave: nothing (those of the package), rules, or a mapping as of `load_rules`.

        A mapping may hold some values alone; the others are those of the package.

        Raises:
            PrecodeTypeError: neither.
            PrecodeValueError: a value that no rule has.
        """
        if rules is None:
            return cls()
        if isinstance(rules, Rules):
            return rules
        if not isinstance(rules, Mapping):
            raise PrecodeTypeError(f"rules must be a mapping such as load_rules() gives, not {type(rules).__name__}")
        shared = {name: value for name, value in rules.items() if not isinstance(value, Mapping)}
        if unknown := sorted(map(str, set(shared) - set(cls.shared()))):
            raise PrecodeValueError(f"rules have no {', '.join(unknown)}: all claims share {', '.join(cls.shared())}")
        if "polarities" in shared:
            shared["polarities"] = tuple(shared["polarities"])
        return cls(**shared, own={name: value for name, value in rules.items() if isinstance(value, Mapping)})

    @classmethod
    def shared(cls) -> list[str]:
        """Names of the values that all claims share."""
        return [item.name for item in fields(cls) if item.name != "own"]


RulesLike: TypeAlias = "Rules | Mapping[str, Any] | None"
