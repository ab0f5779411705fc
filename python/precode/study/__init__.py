"""Studies: many cells of work from one frozen configuration, run anywhere, resumed from anything."""

from importlib.util import find_spec

from precode._internal.errors import PrecodeError

if find_spec("pyarrow") is None:
    raise PrecodeError("studies need pyarrow: pip install 'precode[study]'")

# isort: split
from precode.study.cells import KINDS, Cell, Kind, Plan, plan, register, training_seconds
from precode.study.config import PRESETS, StudyConfig, hash_file
from precode.study.kinds import CODES, TICKETS
from precode.study.results import Study
from precode.study.runner import run
from precode.study.store import Store
from precode.study.verdicts import judge_study, observations, planned_rules, rules_note, write_claims

__all__ = [
    "CODES",
    "KINDS",
    "PRESETS",
    "TICKETS",
    "Cell",
    "Kind",
    "Plan",
    "Store",
    "Study",
    "StudyConfig",
    "hash_file",
    "judge_study",
    "observations",
    "plan",
    "planned_rules",
    "register",
    "rules_note",
    "run",
    "training_seconds",
    "write_claims",
]
