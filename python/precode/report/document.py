"""The report of a study: one HTML file that says of every claim whether it holds, and shows why."""

from __future__ import annotations

import base64
import io
import math
import platform
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from precode import plot
from precode._internal.cells import numerics
from precode._internal.errors import PrecodeValueError
from precode._internal.files import write_atomically
from precode._internal.progress import Progress, tracked
from precode.claims import Verdict
from precode.claims.records import Figure, Shown, interval_sentence
from precode.claims.registry import CLAIMS, record_of, rules_version
from precode.claims.rules import Rules
from precode.experiments import Result
from precode.plot.axes import pyplot
from precode.study import Study
from precode.study.folder import explained
from precode.study.reproduction import reproduced
from precode.study.verdicts import rules_note
from precode.tickets.registry import controls, methods

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEMPLATE = "report.html.jinja"
TABLES = "tables"


def _parts(verdict: Verdict, study: Study) -> Axes:
    claim = record_of(verdict.name)
    chance = verdict.nulls.get(claim.chance, math.nan) if claim is not None and claim.chance else 0.0
    return plot.parts(verdict.table("parts"), chance, verdict.effect)


PARTS = Figure(
    "The claim in each part of the study by itself, coloured by the verdict that the part alone would give. These are "
    "many looks at the same networks, without a correction: no verdict rests on them. Parts with too few data are "
    "left out.",
    _parts,  # type: ignore[arg-type]
)
"""The last figure of every claim."""


def figures_of(name: str) -> tuple[Figure, ...]:
    """The figures of a claim's section: those of its record, and its parts; none where there is no such claim."""
    claim = record_of(name)
    return () if claim is None else (*claim.figures, PARTS)


def write_report(study: Study, claims: Iterable[Verdict], path: str | Path, *, progress: Progress = False) -> None:
    """Writes one HTML file that says of every claim whether it holds, how strongly, against which nulls, by which rule.

    Nothing in it is fetched from elsewhere; it links to the data in the folder ``tables`` beside it. A figure whose
    table is missing is left out, and the report says why.

    Args:
        study: that was judged, finished or not.
        claims: in the order of the report.
        path: of the file; its folder is made where it is missing.
        progress: True for a bar, or a function of (figures drawn, figures).

    Raises:
        PrecodeFileError: the file cannot be written, or a result is missing or was altered.
        PrecodeError: matplotlib is not installed.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> import pandas as pd
        >>> from precode.study import Kind, StudyConfig, run
        >>> config = StudyConfig.preset("quick", methods=["imp"])
        >>> def squares(cell):
        ...     return {"squares": pd.DataFrame({"y": [cell["x"] ** 2]})}
        >>> kind = Kind("squares", lambda config: [{"x": 3}], squares, lambda cell: 0.1)
        >>> with TemporaryDirectory() as folder:
        ...     write_report(run(config, folder, kinds=[kind]), [], f"{folder}/report.html")
        ...     Path(folder, "report.html").read_text(encoding="utf-8")[:15]
        '<!DOCTYPE html>'
    """
    path, claims = Path(path), list(claims)
    figures: dict[str, list[dict[str, Any]]] = {claim.name: [] for claim in claims}
    for claim, figure in tracked([(one, item) for one in claims for item in figures_of(one.name)], progress, "figure"):
        figures[claim.name].append(_figure(figure, claim, study))
    experiments = [_experiment(result) for result in reproduced(study).values()]
    planned, judged = study.rules, rules_version()
    text = _template().render(
        claims=claims,
        records={claim.name: claim for claim in CLAIMS},
        nulls=_nulls(),
        rules=Rules(),
        figures=figures,
        experiments=experiments,
        study=study,
        config={name: getattr(study.config, name) for name in study.config.names()},
        methods=_methods(study),
        controls=controls().to_dict("records"),
        failures=study.failures.to_dict("records"),
        files=_files(path.parent / TABLES),
        intervals=interval_sentence(Rules()),
        software=numerics(),
        versions=(planned, judged, rules_note(planned, judged)),
        system={"Python": platform.python_version(), "System": platform.platform(), "Processor": platform.machine()},
    )
    with explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("precode.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=_number, null=_null, joined=_joined)
    return environment.get_template(TEMPLATE)


def _number(value: float) -> str:
    """Three digits, or a dash where there is no number."""
    return f"{value:.3g}" if math.isfinite(value) else "–"


def _null(name: str, claim: str) -> str:
    """An entry of a verdict's nulls in words."""
    record = record_of(claim)
    return record.nulls[name].words if record is not None and name in record.nulls else name.replace("_", " ")


def _nulls() -> list[tuple[Shown, str]]:
    """Every null that some claim explains, and its names in tables."""
    names: dict[Shown, list[str]] = {}
    for claim in CLAIMS:
        for name, shown in claim.nulls.items():
            if shown.meaning and name not in names.setdefault(shown, []):
                names[shown].append(name)
    return [(shown, ", ".join(found)) for shown, found in names.items()]


def _joined(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _figure(figure: Figure, claim: Verdict, study: Study) -> dict[str, Any]:
    """Caption and width, and the image as base64 or the reason why there is none."""
    described = {"caption": figure.caption, "wide": figure.wide}
    try:
        return {**described, "image": _svg(lambda: figure.draw(claim, study))}
    except PrecodeValueError as error:
        return {**described, "missing": str(error)}


def _experiment(result: Result) -> dict[str, Any]:
    """An experiment of the paper: its record, the reported numbers beside ours, and its figures."""
    beside = result.reported
    figures = []
    for name in result.figures:
        described = {"caption": f"{result.experiment.title}: {name}.", "wide": True}
        try:
            figures.append({**described, "image": _svg(lambda name=name: result.plot(name))})  # type: ignore[misc]
        except PrecodeValueError as error:
            figures.append({**described, "missing": str(error)})
    return {
        "record": result.experiment,
        "setting": {name: _joined(value) for name, value in result.setting.items()},
        "numbers": beside[beside["measured"].notna()].to_dict("records"),
        "figures": figures,
        "part": "" if result.done == result.planned else f"{result.done} of {result.planned} cells are finished",
    }


def _svg(draw: Callable[[], Axes]) -> str:
    """A figure as SVG in base64; the same figure gives the same bytes."""
    plt = pyplot()
    with plt.style.context(["default", {"svg.hashsalt": "precode"}]):
        before = set(plt.get_fignums())
        file = io.BytesIO()
        try:
            figure: Any = draw().figure
            figure.savefig(file, format="svg", metadata={"Date": None})
        finally:
            for number in set(plt.get_fignums()) - before:
                plt.close(number)
    return base64.b64encode(file.getvalue()).decode()


def _methods(study: Study) -> list[dict[str, Any]]:
    """What the registry says of the study's methods."""
    used = {name.partition(":")[0] for name in study.config.methods}
    table = methods()
    rows = table[table["name"].isin(used)].to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in rows]


def _files(folder: Path) -> dict[str, list[str]]:
    """Files of each table that are in a folder, by the table's name."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.endswith((".csv", ".csv.gz", ".parquet")):
            found.setdefault(path.name.partition(".")[0], []).append(path.name)
    return found
