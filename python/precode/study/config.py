"""What a study computes: one frozen configuration with one JSON form."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from precode._internal.cells import canonical, digest
from precode._internal.errors import PrecodeTypeError, PrecodeValueError
from precode.codes import embedding as embeddings_of
from precode.experiments import EXPERIMENTS
from precode.tickets.registry import CUBIC, records

VERSION = 3
"""The version of the configuration's form."""

COMPARED = (
    *("random", "magnitude", "obs", "imp", "checkpoint-magnitude", "early-bird", "snip", "grasp", "synflow"),
    *("distance", "distance-plain", "motion", "motion-plain", "distance+motion", "distance+motion-plain", "oracle"),
    *("target-static", "target-motion", "target-combined", "sign-keeping", "obs-codes", "hot-codes"),
    # Not hot-obs, which is level with hot-magnitude and would take as long as a dozen of the others.
    *("magnitude-w2", "hot-magnitude", "hot-imp"),
    *("target-static:wrong-clauses", "target-motion:wrong-clauses", "target-combined:wrong-clauses"),
    *("sign-keeping:wrong-clauses", "obs-codes:wrong-clauses", "hot-codes:wrong-clauses"),
)
"""Methods that are compared in the paper's setting: those of the digest, probes, their controls, and references."""

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        "hidden": (32,),
        "clauses": (8, 32),
        "embeddings": ("projection-16", "projection-16-fixed", "identity"),
        "formulas": 20,
        "densities": (0.5, 0.1),
        "methods": (
            *("random", "magnitude", "obs", "checkpoint-magnitude", "snip", "grasp", "synflow"),
            *("distance", "distance-plain", "magnitude-w2", "sign-keeping"),
            *("target-combined", "target-combined:wrong-clauses"),
        ),
        "probe_epochs": (0, 2),
        "experiments": ("ticket_cycle", "fates", "fixed_budget", "identity", "precursors"),
        "epochs": 100,
        "samples": 2000,
        "seed": 0,
    },
    "paper": {
        "hidden": (16, 32),
        "clauses": (8, 16, 32),
        "embeddings": ("projection-16", "projection-16-fixed"),
        "formulas": 20,
        "densities": (0.5, 0.25, 0.1),
        "methods": COMPARED,
        "probe_epochs": (0, 1, 2, 5, 10, 20),
        "experiments": ("ticket_cycle", "fates", "fixed_budget", "identity", "precursors", "scale"),
        "epochs": 100,
        "samples": 2000,
        "seed": 0,
    },
    "robust": {
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
"""Named configurations: ``quick`` and ``paper`` in the setting of arXiv 2605.17704 as a public digest reports it,
``robust`` in others. Without methods, all but those whose time grows with the cube of the weights."""

MOST = 65_536
"""Most hidden rows, and most clauses."""

FORMULAS = 2**20
"""Most formulas."""

COUNT = 2**32 - 1
"""Most epochs, and most samples."""

KEY = 2**64 - 1
"""Largest seed."""


@dataclass(frozen=True)
class StudyConfig:
    """Everything that a study's results depend on, beside the software; every value must be given.

    A configuration is checked and put into canonical order when it is made, so that equal studies are equal, hash alike
    and have one JSON text. Another value anywhere is another study, with another `key`; a folder can grow from one
    to the other where nothing is lost, see `run`.

    Attributes:
        hidden: hidden widths, j, from 1 to 65,536 (kept ascending).
        clauses: numbers of clauses, C, from 1 to 65,536 (kept ascending).
        embeddings: maps in front of the networks: ``"identity"``, ``"hadamard"``, ``"hadamard-raw"``, ``"random"``, or
            the name of a `precode.Projection` such as ``"projection-16"``.
        formulas: random formulas for each width, number of clauses and embedding, from 1 to 2²⁰.
        densities: fractions of the prunable weights that tickets keep, in (0, 1] (kept descending).
        methods: names of ticket methods, with or without a control (kept in alphabetical order).
        epochs: most passes over the data.
        samples: training samples of each network.
        seed: key of all random numbers, below 2⁶⁴.
        probe_epochs: epochs of the dense run after which methods that can be are read, in place of their own moment
            (kept ascending); none for that moment alone.
        experiments: names of experiments that are part of the study (kept in their order); see
            `precode.experiments.EXPERIMENTS`. Each runs in its own setting, with the study's formulas and seed.
        version: of this form.
        key: SHA-256, in hexadecimal, of the canonical JSON.

    Raises:
        PrecodeValueError: a value out of range, or of the wrong type; the message names it and what it may be.

    Example:
        >>> config = StudyConfig.preset("quick", methods=["imp", "snip"])
        >>> config == StudyConfig.from_json(config.to_json()), config.clauses
        (True, (8, 32))
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
    probe_epochs: tuple[int, ...] = ()
    experiments: tuple[str, ...] = ()
    version: int = VERSION
    key: str = field(init=False, repr=False, compare=False)
    _json: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            text = json.dumps({name: getattr(self, name) for name in self.names()}, allow_nan=False, default=_plain)
        except (TypeError, ValueError) as error:
            raise PrecodeValueError(f"study configuration: {error}; give numbers and names") from error
        values = _checked(json.loads(text))
        for name, value in values.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "_json", canonical(values, "values"))
        object.__setattr__(self, "key", digest(self._json))

    @classmethod
    def preset(cls, name: str, **changes: Any) -> StudyConfig:
        """A named configuration.

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
        methods = tuple(method for method in records() if method not in CUBIC)
        return cls(**{"methods": methods, **PRESETS[name], **changes})

    @classmethod
    def from_json(cls, text: str) -> StudyConfig:
        """A configuration from JSON; every key must be there.

        Raises:
            PrecodeValueError: no JSON; an unknown or missing key, or one that stands twice; a value out of range. The
                message names it.
        """
        if not isinstance(text, str):
            raise PrecodeTypeError(f"a configuration must be JSON text, not {type(text).__name__}")
        try:
            values = json.loads(text, object_pairs_hook=_once)
        except (json.JSONDecodeError, RecursionError) as error:
            raise PrecodeValueError(f"study configuration: no JSON ({error})") from error
        if not isinstance(values, dict):
            raise PrecodeValueError(f"study configuration: must be a JSON object, not {text[:40]!r}")
        # A form of another version has other keys: what is wrong with it is its version.
        if "version" in values:
            _version(values["version"])
        known = ", ".join(f"`{name}`" for name in sorted(cls.names()))
        if unknown := sorted(set(values) - set(cls.names())):
            raise PrecodeValueError(f"study configuration: unknown field `{unknown[0]}`, expected one of {known}")
        if missing := sorted(set(cls.names()) - set(values)):
            raise PrecodeValueError(f"study configuration: missing field `{missing[0]}`")
        return cls(**values)

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


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(name for number, (name, _) in enumerate(pairs) if name in dict(pairs[:number]))
        raise PrecodeValueError(f"study configuration: duplicate field `{twice}`")
    return values


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    """The values in canonical order, refused where one is not allowed."""
    _version(values["version"])
    wide = f"from 1 to {MOST}"
    fraction, allowed = "above 0 and at most 1", f"one of {embeddings_of.ALLOWED}"
    named = "the name of a method such as snip, or snip:shuffle-row"
    names = [experiment.name for experiment in EXPERIMENTS]
    later, known, there, order = f"from 0 to {COUNT}", f"one of {', '.join(names)}", names.__contains__, names.index
    numbers = {name: _each(name, values[name], _integer, wide, _within(1, MOST)) for name in ("hidden", "clauses")}
    densities = _each("densities", values["densities"], _number, fraction, lambda value: 0 < value <= 1)
    embeddings = _each("embeddings", values["embeddings"], _text, allowed, embeddings_of.is_name)
    return {
        **{name: tuple(sorted(found)) for name, found in numbers.items()},
        "embeddings": tuple(sorted(embeddings, key=embeddings_of.order)),
        "formulas": _one("formulas", values["formulas"], 1, FORMULAS),
        "densities": tuple(sorted(densities, reverse=True)),
        "probe_epochs": tuple(sorted(_any("probe_epochs", values["probe_epochs"], _integer, later, _within(0, COUNT)))),
        "experiments": tuple(sorted(_any("experiments", values["experiments"], _text, known, there), key=order)),
        "methods": tuple(sorted(_each("methods", values["methods"], _text, named, _is_method))),
        "epochs": _one("epochs", values["epochs"], 1, COUNT),
        "samples": _one("samples", values["samples"], 1, COUNT),
        "seed": _one("seed", values["seed"], 0, KEY),
        "version": VERSION,
    }


def _version(value: Any) -> None:
    if value != VERSION or isinstance(value, bool):
        raise PrecodeValueError(f"version = {value}: this precode reads version {VERSION}")


def _within(low: int, high: int) -> Callable[[int], bool]:
    return lambda value: low <= value <= high


def _one(name: str, value: Any, low: int, high: int) -> int:
    number = _integer(name, value)
    if not low <= number <= high:
        raise PrecodeValueError(f"{name} = {number}: must be from {low} to {high}")
    return number


def _each(
    name: str, values: Any, read: Callable[[str, Any], Any], allowed: str, is_allowed: Callable[[Any], bool]
) -> list[Any]:
    """A list of at least one value, each of which is allowed and stands there once."""
    if not isinstance(values, list):
        raise _wrong(name, values, "a list")
    if not values:
        raise PrecodeValueError(f"{name} = []: give at least one, {allowed}")
    found = [read(f"{name}[{place}]", value) for place, value in enumerate(values)]
    for place, value in enumerate(found):
        if not is_allowed(value):
            raise PrecodeValueError(
                f"{name} contains {value:{'g' if isinstance(value, float) else ''}}: each must be {allowed}"
            )
        if value in found[:place]:
            raise PrecodeValueError(f"{name} = {found}: {value} stands twice")
    return found


def _any(name: str, values: Any, *how: Any) -> list[Any]:
    """A list as of `_each` that may be empty."""
    return [] if values == [] else _each(name, values, *how)


def _integer(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(name, value, "a whole number")
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(name, value, "a number")
    return float(value)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(name, value, "a name")
    return value


def _wrong(name: str, value: Any, expected: str) -> PrecodeValueError:
    kinds = {bool: "boolean", int: "integer", float: "floating point", str: "string", list: "list", dict: "map"}
    kind = kinds.get(type(value), "null")
    return PrecodeValueError(
        f"study configuration, {name}: invalid type: {kind} {json.dumps(value)[:80]}, expected {expected}"
    )


def _is_method(name: str) -> bool:
    """Whether a name has the form of a method's, with or without a control behind a colon."""
    words: Sequence[str] = name.split(":")
    letters = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-+")
    return len(words) <= 2 and all(word and set(word) <= letters for word in words)
