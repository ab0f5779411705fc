"""Studies: many cells of work from one frozen configuration, run anywhere, resumed from anything."""

from importlib.util import find_spec

from precode._internal.errors import PrecodeError

if find_spec("pyarrow") is None:
    raise PrecodeError("studies need pyarrow: pip install 'precode[study]'")

# isort: split
from precode._internal.cells import Axis, Cell, Job, Kind, training_seconds
from precode.claims.cells import CODES, TICKETS
from precode.study.config import PRESETS, StudyConfig
from precode.study.planning import KINDS, Plan, duration, plan, register
from precode.study.reproduction import reproduced
from precode.study.results import Study
from precode.study.runner import run
from precode.study.store import Store
from precode.study.verdicts import judge_study, observations, rules_note, write_claims

__all__ = [
    "CODES",
    "KINDS",
    "PRESETS",
    "TICKETS",
    "Axis",
    "Cell",
    "Job",
    "Kind",
    "Plan",
    "Store",
    "Study",
    "StudyConfig",
    "duration",
    "judge_study",
    "observations",
    "plan",
    "register",
    "reproduced",
    "rules_note",
    "run",
    "training_seconds",
    "write_claims",
]


def __dir__() -> list[str]:
    return __all__
