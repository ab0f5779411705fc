"""The registry of ticket methods, as it is compiled into the extension."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

from precode import _precode
from precode._internal.errors import PrecodeTypeError, PrecodeValueError
from precode._internal.lazy import Lazy

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Lazy("pandas")

ALL_PROBES = "all probes"
"""Stands for the mean over all feature probes where methods are compared."""

ALL_RIVALS = "all rivals"
"""Stands for the mean over all rivals of the probes."""


WRONG_CLAUSES = ":wrong-clauses"
"""What makes a method that is told the clauses its own control: another formula's clauses."""


@cache
def records() -> dict[str, _precode.Method]:
    """Every method's record by its name."""
    return {record["name"]: record for record in _precode.methods()}


def methods() -> pd.DataFrame:
    """Every ticket method: one row each.

    Columns: name, title, needs (what it cannot do without: data, gradients, dense run, clauses, clauses in the data, or
    two linear layers that follow one another, as those of one hidden layer), schedule, cost beside
    retraining, nested (whether the ticket of a smaller density is a part of that of a larger one), early (whether it
    can be read after any epoch, ``at`` of `find_tickets`), rewinds (whether its tickets may start later, ``rewind``
    of `find_tickets`), random (whether it draws random numbers of its own), features (whether it prunes and trains the
    first layer in feature space), reference, and deviations from the published method or its official code. A control
    is put on any of them behind a colon, such as ``"snip:shuffle-row"``; see
    `controls`.

    Example:
        >>> methods().set_index("name").loc["snip", "reference"]
        'arXiv 1810.02340, eq. 5'
    """
    table = pd.DataFrame([{**item, "needs": ", ".join(needs(item))} for item in records().values()])
    return table[
        [
            *("name", "title", "needs", "schedule", "cost", "nested", "early", "rewinds", "random", "features"),
            *("reference", "deviations"),
        ]
    ]


def needs(item: _precode.Method) -> list[str]:
    """What a method cannot do without, in words."""
    wanted = {
        "data": item["needs_data"],
        "gradients": item["needs_gradients"],
        "dense run": item["needs_dense_run"],
        "clauses": item["needs_clauses"],
        "clauses in the data": item["needs_clauses_in_data"],
        "two linear layers": item["needs_pair"],
    }
    return [name for name, needed in wanted.items() if needed]


def controls() -> pd.DataFrame:
    """Every control that can be put on a method: columns name and title.

    Example:
        >>> controls()["name"].tolist()
        ['shuffle-layer', 'shuffle-row', 'shuffle-column', 'reinit', 'invert', 'wrong-clauses']
    """
    return pd.DataFrame(_precode.controls())


def record(method: str) -> _precode.Method:
    """The record of a method, with or without a control.

    Raises:
        PrecodeTypeError: not a name.
        PrecodeValueError: no such method or control, with the list of those there are; ``wrong-clauses`` on a method
            that is not told the clauses.
    """
    if not isinstance(method, str):
        raise PrecodeTypeError(f"a method must be a name such as 'snip', not {type(method).__name__}")
    name, colon, control = method.partition(":")
    if name not in records():
        raise PrecodeValueError(f"method {name!r} is unknown: use one of {', '.join(records())}")
    known = [item["name"] for item in _precode.controls()]
    if colon and control not in known:
        raise PrecodeValueError(f"control {control!r} is unknown: use one of {', '.join(known)}")
    if control == "wrong-clauses" and not records()[name]["needs_clauses"]:
        told = ", ".join(known for known, item in records().items() if item["needs_clauses"])
        raise PrecodeValueError(f"{method!r} changes nothing: {name!r} is not told the clauses; those that are: {told}")
    return records()[name]


CUBIC = ("hot-obs", "obs-loss")
"""Methods that remove weights one by one under a matrix of all of them. Their time grows with the cube of the number,
to 20 seconds and more a formula at 64 rows, where others take one."""

READS_CODES = ("clauses", "clauses in the data", "two linear layers")
"""Needs that networks have which codes can be read from."""


def resolve_methods(
    wanted: str | Iterable[str], *, clauses: bool, pair: bool = True
) -> tuple[list[str], dict[str, str]]:
    """The methods of an argument that takes ``"all"``, one name or several, without repetitions.

    Args:
        wanted: the argument.
        clauses: whether the clauses are known; without them ``"all"`` leaves out the methods that need them, told or in
            the data.
        pair: whether the networks have one hidden layer; without it ``"all"`` leaves out the methods that need two
            layers that follow one another, and nothing between.

    Returns:
        The methods, and those that ``"all"`` leaves out, each with what it needs.

    Raises:
        PrecodeTypeError: not names.
        PrecodeValueError: no such method, none at all, or one that needs clauses where there are none.
    """
    lacking = set(READS_CODES if not pair else READS_CODES[:2] if not clauses else ())
    if isinstance(wanted, str) and wanted == "all":
        lacks = {name: [need for need in needs(item) if need in lacking] for name, item in records().items()}
        if not pair:
            # What is masked in feature space is one layer's W1 C0.
            lacks |= {name: [READS_CODES[2]] for name, item in records().items() if item["features"]}
        left_out = {name: ", ".join(missing) for name, missing in lacks.items() if missing}
        return [name for name in records() if name not in left_out], left_out
    if not isinstance(wanted, Iterable):
        raise PrecodeTypeError(f"methods must be names such as 'snip', not {type(wanted).__name__}")
    listed = list(dict.fromkeys([wanted] if isinstance(wanted, str) else wanted))
    if not listed:
        raise PrecodeValueError("no methods: name at least one, or 'all'")
    for name in listed:
        if record(name)["needs_clauses"] and not clauses:
            raise PrecodeValueError(f"method {name!r} needs clauses: the networks were trained without a formula")
    return listed, {}
