"""The list of claims: one line each. Judging, reports, documentation and synthetic studies loop over it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from precode._internal import statistics
from precode.claims.c1 import CLAIM as C1
from precode.claims.c2 import CLAIM as C2
from precode.claims.c3 import CLAIM as C3
from precode.claims.c4 import CLAIM as C4
from precode.claims.c5 import CLAIM as C5
from precode.claims.c6 import CLAIM as C6
from precode.claims.records import Claim
from precode.claims.rules import Rules

CLAIMS: list[Claim] = [C1, C2, C3, C4, C5, C6]
"""Every claim, in the order of reports."""


def record_of(name: str) -> Claim | None:
    """The record of a claim by its name; None where there is none.

    Example:
        >>> record_of("C3").statement
        'Rejection grows with crowding.'
    """
    return next((claim for claim in CLAIMS if claim.name == name), None)


def load_rules() -> dict[str, Any]:
    """The values of all rules as a fresh dictionary: those that all claims share, and those of each by its name.

    All thresholds are our choices. The dictionary, changed or in parts, is what `judge` takes as rules.

    Example:
        >>> rules = load_rules()
        >>> rules["formulas"], rules["C1"]["holds"]
        (10, 0.1)
    """
    shared = {name: getattr(Rules(), name) for name in Rules.shared()}
    return {**shared, **{claim.name: claim.own(Rules()) for claim in CLAIMS}}


MEASURING = ("__init__", "cells", "counts", "observations", "similarity", "synthetic", "transport")
"""Files beside this one that do not judge: they measure, or make studies to test with."""


def rules_version() -> str:
    """Which rules this package judges by: a SHA-256, in hexadecimal, over all source files that judge.

    Code and text of the rules are one: whichever changes, it is another version. It is no part of a study's
    configuration or of its cells, which do not depend on how they are judged.

    Example:
        >>> len(rules_version())
        64
    """
    here = Path(__file__).parent
    files = [path for path in here.glob("*.py") if path.stem not in MEASURING]
    digest = hashlib.sha256()
    for path in [*sorted(files), Path(statistics.__file__)]:
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()
