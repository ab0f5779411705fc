"""The report of a study: one HTML file."""

from importlib.util import find_spec

from precode._internal.errors import PrecodeError

if missing := [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]:
    raise PrecodeError(f"reports need {', '.join(missing)}: pip install 'precode[study]'")

# isort: split
from precode.report.document import write_report

__all__ = [
    "write_report",
]


def __dir__() -> list[str]:
    return __all__
