"""What a study computes: one frozen configuration, the same for Rust and Python."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from precode import _precode
from precode._internal.errors import PrecodeFileError, PrecodeTypeError, PrecodeValueError
from precode.tickets.registry import records

VERSION = 1
"""The version of the configuration's form."""

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        "hidden": (32,),
        "clauses": (8, 16, 32),
        "embeddings": ("identity", "hadamard"),
        "formulas": 12,
        "densities": (0.25, 0.125),
        "methods": (
            *("random", "magnitude", "imp", "snip", "grasp", "synflow", "edge-popup"),
            *("distance", "distance-plain", "distance-blind", "motion", "distance+motion", "oracle"),
        ),
        "epochs": 25,
        "samples": 20_000,
        "seed": 0,
    },
    "paper": {
        "hidden": (16, 32, 64),
        "clauses": (4, 8, 16, 32),
        "embeddings": ("identity", "hadamard", "random"),
        "formulas": 10,
        # Of the weights of every width these are whole numbers, so that all widths reach the same densities.
        "densities": (1 / 2, 45 / 128, 1 / 4, 23 / 128, 1 / 8, 23 / 256, 1 / 16, 1 / 32),
        "epochs": 25,
        "samples": 20_000,
        "seed": 0,
    },
}
"""Named configurations, but for the decision rules. Without methods, all there are."""

RULES = Path(__file__).parents[1] / "claims" / "rules.py"
"""The file with the decision rules, read here without the packages that the claims need."""


@dataclass(frozen=True)
class StudyConfig:
    """Everything that a study's results depend on, beside the software; every value must be given.

    A configuration is checked and put into canonical order when it is made, so that equal studies are equal, hash alike
    and have one JSON text. Another value anywhere is another study, with another `key`.

    Attributes:
        hidden: hidden widths, j, from 1 to 65,536 (kept ascending).
        clauses: numbers of clauses, C, from 1 to 65,536 (kept ascending).
        embeddings: fixed maps in front of the networks: ``"identity"``, ``"hadamard"``, ``"hadamard-raw"``,
            ``"random"``.
        formulas: random formulas for each width, number of clauses and embedding, from 1 to 2²⁰.
        densities: fractions of the prunable weights that tickets keep, in (0, 1] (kept descending).
        methods: names of ticket methods, with or without a control (kept in alphabetical order).
        epochs: most passes over the data.
        samples: training samples of each network.
        seed: key of all random numbers, below 2⁶⁴.
        rules: SHA-256, in hexadecimal, of the file with the rules by which claims are decided; see `hash_file`.
        version: of this form.
        key: SHA-256, in hexadecimal, of the canonical JSON.

    Raises:
        PrecodeValueError: a value out of range, or of the wrong type; the message names it and what it may be.

    Example:
        >>> config = StudyConfig.preset("quick", methods=["imp", "snip"])
        >>> config == StudyConfig.from_json(config.to_json()), config.clauses
        (True, (8, 16, 32))
    """

    hidden: tuple[int, ...]
    clauses: tuple[int, ...]
    embeddings: tuple[str, ...]
    formulas: int
    densities: tuple[float, ...]
    methods: tuple[str, ...]
    epochs: int
    samples: int
    seed: int
    rules: str
    version: int = VERSION
    key: str = field(init=False, repr=False, compare=False)
    _json: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            text = json.dumps({name: getattr(self, name) for name in self.names()}, allow_nan=False, default=_plain)
        except (TypeError, ValueError) as error:
            raise PrecodeValueError(f"study configuration: {error}; give numbers and names") from error
        canonical, key = _precode.study_config(text)
        object.__setattr__(self, "_json", canonical)
        object.__setattr__(self, "key", key)
        for name, value in json.loads(canonical).items():
            object.__setattr__(self, name, tuple(value) if isinstance(value, list) else value)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> StudyConfig:
        """A named configuration, with the decision rules of this package.

        Args:
            name: one of `PRESETS`.
            changes: values that differ from the preset's.

        Raises:
            PrecodeValueError: no such preset, or no such value.
        """
        if name not in PRESETS:
            raise PrecodeValueError(f"preset {name!r} is unknown: use one of {', '.join(PRESETS)}")
        if unknown := sorted(set(changes) - set(cls.names())):
            raise PrecodeValueError(f"{', '.join(unknown)}: a study has no such value; it has {', '.join(cls.names())}")
        return cls(**{"methods": tuple(records()), "rules": hash_file(RULES), **PRESETS[name], **changes})

    @classmethod
    def from_json(cls, text: str) -> StudyConfig:
        """A configuration from JSON; every key must be there.

        Raises:
            PrecodeValueError: no JSON; an unknown or missing key; a value out of range. The message names it.
        """
        if not isinstance(text, str):
            raise PrecodeTypeError(f"a configuration must be JSON text, not {type(text).__name__}")
        canonical, _ = _precode.study_config(text)
        return cls(**json.loads(canonical))

    @classmethod
    def names(cls) -> list[str]:
        """Names of the values."""
        return [item.name for item in fields(cls) if item.init]

    def to_json(self) -> str:
        """The canonical form: compact JSON, keys in alphabetical order."""
        return self._json


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays, ranges and the like as JSON has them."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(f"{value!r} has no JSON form")


def hash_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal, such as `StudyConfig.rules` holds.

    Raises:
        PrecodeFileError: it cannot be read.

    Example:
        >>> hash_file(RULES) == StudyConfig.preset("quick").rules
        True
    """
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise PrecodeFileError(f"{path}: cannot be read ({error.strerror or error}): check the path") from error
