"""The report of a study: one HTML file."""

from precode.report.document import write_report

__all__ = [
    "write_report",
]


def __dir__() -> list[str]:
    return __all__
