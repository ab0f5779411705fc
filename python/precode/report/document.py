"""The report of a study: one HTML file that says of every claim whether it holds, and shows why."""

from __future__ import annotations

import base64
import io
import math
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jinja2
import numpy as np
import pandas as pd

from precode import plot
from precode._internal.cells import numerics
from precode._internal.errors import PrecodeValueError
from precode._internal.files import write_atomically
from precode._internal.progress import Progress, tracked
from precode.claims import Claim, load_rules
from precode.claims.rules import Rules, sentence
from precode.claims.statistics import CELL
from precode.plot.axes import NULLS, over_formulas, pyplot
from precode.plot.retraining import NULL
from precode.study import Study
from precode.study.config import rules_version
from precode.study.folder import explained
from precode.study.verdicts import OTHER_RULES
from precode.tickets.registry import controls, methods

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEMPLATE = "report.html.jinja"
TABLES = "tables"

MEASURES = {"accuracy": "Test accuracy", "recovery_family": "Share of the dense network's codes recovered on any row"}
"""What is drawn of tickets against their density, in words."""

GROUPS = {"probes": "probes", "weight_based": "weight-based methods", "": "references and other methods"}
"""Methods that are drawn together, by their key in the rules of claim C6."""

BESIDE = {
    "observed share": "measured: share of codes that were near",
    "coin": "a coin",
    "recall: location": "measured: recall on the same row",
    "recall: family": "measured: recall on any row",
    "recall: location_permuted": "recall on the same row, codes on random rows",
    "recall: family_permuted": "recall on any row, codes of another clause",
    "win rate in accuracy": "measured: win rate in accuracy",
    "win rate in recovery_family": "measured: win rate in recovery on any row",
}
"""Entries of `Claim.nulls` that are not in `precode.plot.axes.NULLS`, in words."""


@dataclass(frozen=True)
class Figure:
    """A figure of the report.

    Attributes:
        caption: what it shows, in words.
        draw: draws it from a claim and the study.
        wide: whether it needs the width of the page.
    """

    caption: str
    draw: Callable[[Claim, Study], Axes]
    wide: bool = False


def _behind(claim: Claim, name: str) -> pd.DataFrame:
    """A further table of a claim.

    Raises:
        PrecodeValueError: it has none of that name.
    """
    if name not in claim.tables:
        raise PrecodeValueError(f"claim {claim.name} has no table {name!r}")
    return claim.tables[name]


def _convergence(claim: Claim, study: Study) -> Axes:
    return plot.convergence(claim.details, study.table("nulls") if "nulls" in study.tables else None)


def _row_transport(claim: Claim, study: Study) -> Axes:
    compared = _behind(claim, "tickets").query("formula == 0")
    known = [
        (settings, name, matrices[0])
        for settings, arrays in study.arrays("row_transport")
        for name, matrices in arrays.items()
        if len(_of_ticket(compared, settings, name))
    ]
    if not known:
        raise PrecodeValueError("no ticket whose row transport was kept matches its dense network")
    settings, name, matrix = max(known, key=lambda item: float(item[2].sum()))
    moves = _of_ticket(study.table("transport").query("formula == 0"), settings, name)
    ax = plot.row_transport(matrix, float(moves["same_permuted"].sum()))
    cell = ", ".join(f"{key} {settings[key]}" for key in CELL)
    ax.set_title(f"{name}; {cell}\n{ax.get_title()}", fontsize="medium")
    return ax


def _of_ticket(table: pd.DataFrame, settings: Mapping[str, Any], name: str) -> pd.DataFrame:
    """Rows of one cell and ticket, which is named as in ``row_transport``: "imp at 0.125"."""
    method, _, density = name.partition(" at ")
    for key, value in {**{key: settings[key] for key in CELL}, "method": method}.items():
        table = table[table[key] == value]
    # Whole weights are kept, so that the density differs a little from the one that was asked for.
    return table[np.isclose(table["density"], float(density), rtol=0.01)]


def _tickets(value: str, group: str) -> Callable[[Claim, Study], Axes]:
    def draw(claim: Claim, study: Study) -> Axes:
        table = study.table("tickets")
        own = load_rules()["C6"]
        named = {key: table["method"].isin(own[key]) for key in GROUPS if key}
        chosen = named[group] if group else ~np.logical_or.reduce(list(named.values()))
        if not chosen.any():
            raise PrecodeValueError(f"the study has no {GROUPS[group]}")
        chosen |= table["method"] == NULL
        embeddings = list(table["embedding"].unique())
        size = (2.4 + 3.4 * len(embeddings), 4.0)
        _, panels = pyplot().subplots(
            1, len(embeddings), sharey=True, squeeze=False, figsize=size, layout="constrained"
        )
        for ax, name in zip(panels[0], embeddings, strict=True):
            plot.tickets(table[chosen & (table["embedding"] == name)], value, ax=ax)
            ax.set_title(f"embedding: {name}", fontsize="medium")
            if ax is not panels[0][-1]:
                ax.get_legend().remove()
            if ax is not panels[0][0]:
                ax.set_ylabel("")
        # The same scale for all groups, so that they can be compared.
        means = over_formulas(table, ["embedding", "method", "density"], value)
        values = means[["low", "mean", "high"]].to_numpy()
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        if value == "accuracy":
            high = max(high, float(table["dense_accuracy"].mean()))
        margin = 0.05 * max(high - low, 0.01)
        panels[0][0].set_ylim(low - margin, high + margin)
        return cast("Axes", panels[0][0])

    return draw


def _parts(claim: Claim, study: Study) -> Axes:
    # What chance gives is no difference, but for a win rate, and for the share of codes on other rows.
    null = {"C5": claim.nulls.get("permuted_rows", math.nan), "C6": claim.nulls.get("coin", math.nan)}
    return plot.parts(_behind(claim, "parts"), null.get(claim.name, 0.0), claim.effect)


PARTS = Figure(
    "The claim in each part of the study by itself, coloured by the verdict that the part alone would give. These are "
    "many looks at the same networks, without a correction: no verdict rests on them. Parts with too few data are "
    "left out.",
    _parts,
)

FIGURES: Mapping[str, tuple[Figure, ...]] = {
    "C1": (
        Figure(
            "How far final codes were from their template at initialization. Bars: observed; markers: the nulls. "
            "The claim says that the bars left of the dashed line are higher than the nulls.",
            lambda claim, study: plot.distances(study.table("nulls")),
        ),
        Figure(
            "Metric ablation: how well each distance, and each control that knows nothing of templates, tells which "
            "locations become codes. 0.5 is chance, 1 is perfect. The way to the final weights knows the end.",
            lambda claim, study: plot.metrics(claim.details),
        ),
        Figure(
            "Alternatives that compare whole hidden layers, CKA and SVCCA. They cannot say which location becomes a "
            "code; open: the final network of another formula.",
            lambda claim, study: plot.similarity(_behind(claim, "similarity")),
        ),
        PARTS,
    ),
    "C2": (
        Figure("How likely a location is a code at the end, by its distance at initialization.", _convergence),
        Figure(
            "How the distance of near locations changes in training, for those that become codes and those that do "
            "not: wrong signs. Dotted: the same at false clauses.",
            lambda claim, study: plot.motion(_behind(claim, "motion")),
        ),
        Figure(
            "The same, counted in weight that has the wrong sign.",
            lambda claim, study: plot.motion(_behind(claim, "motion"), "soft"),
        ),
        PARTS,
    ),
    "C3": (
        Figure(
            "Dose-response: how often near locations are rejected, from the least to the most crowded fifth. Dotted: "
            "the null of no effect.",
            lambda claim, study: plot.crowding(_behind(claim, "doses")),
        ),
        Figure(
            "The effect of crowding with the distance held equal, by the number of clauses to a row. Above 0: crowded "
            "rows reject more. Dotted: the nulls.",
            lambda claim, study: plot.slopes(claim.details, claim.nulls),
        ),
        PARTS,
    ),
    "C4": (
        Figure(
            "What knowing the interference adds to knowing the distance. Above 0: it helps to tell which locations "
            "become codes. Open and dotted: the nulls.",
            lambda claim, study: plot.gains(claim.details, claim.nulls),
        ),
        Figure(
            "What a price on crowded rows and covered clauses adds to the accuracy of tickets that are chosen by "
            "distance or motion.",
            lambda claim, study: plot.penalties(_behind(claim, "penalties")),
        ),
        PARTS,
    ),
    "C5": (
        Figure(
            "Codes of the dense network that matching tickets recover, on any row and on the same row. Open: what "
            "chance gives.",
            lambda claim, study: plot.recovery(_behind(claim, "tickets")),
        ),
        Figure(
            "Row transport of one ticket, the matching one that recovers most codes: on which row of the ticket the "
            "codes of each row of the dense network are. On the diagonal they stayed.",
            _row_transport,
        ),
        PARTS,
    ),
    "C6": (
        *(
            Figure(f"{words} against density: {GROUPS[group]}. Bands are 95 % intervals.", _tickets(value, group), True)
            for value, words in MEASURES.items()
            for group in GROUPS
        ),
        *(
            Figure(
                f"How often each probe (rows) beats each weight-based method (columns): {words.lower()}. 0.50 is what "
                "a coin gives; a star is a difference that survives the correction for many tests.",
                lambda claim, study, value=value: plot.wins(claim.details, value),  # type: ignore[misc]
                True,
            )
            for value, words in MEASURES.items()
        ),
        PARTS,
    ),
}
"""The figures of every claim."""


def write_report(study: Study, claims: Iterable[Claim], path: str | Path, *, progress: Progress = False) -> None:
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
    for claim, figure in tracked(
        [(one, item) for one in claims for item in FIGURES.get(one.name, ())], progress, "figure"
    ):
        figures[claim.name].append(_figure(figure, claim, study))
    text = _template().render(
        claims=claims,
        figures=figures,
        study=study,
        config={**{name: getattr(study.config, name) for name in study.config.names()}, "rules": _rules(study)},
        methods=_methods(study),
        controls=controls().to_dict("records"),
        failures=study.failures.to_dict("records"),
        files=_files(path.parent / TABLES),
        intervals=_intervals(load_rules()),
        software=numerics(),
        system={"Python": platform.python_version(), "System": platform.platform(), "Processor": platform.machine()},
    )
    with explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)


def _rules(study: Study) -> str:
    """The version of the rules, and what is to be said where it is not the one that the study was planned under."""
    now = rules_version()
    return now if study.rules == now else f"{now}, but {study.rules} when the study was planned. {OTHER_RULES}"


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


def _intervals(rules: Rules) -> str:
    """What all rules say of intervals, in the words that end each of them."""
    return sentence(rules, "C1").removeprefix(sentence({**rules, "interval": ""}, "C1"))


def _number(value: float) -> str:
    """Three digits, or a dash where there is no number."""
    return f"{value:.3g}" if math.isfinite(value) else "–"


def _null(name: str) -> str:
    """A null's name in words."""
    if name in BESIDE:
        return BESIDE[name]
    return NULLS[name][0] if name in NULLS else name.replace("_", " ")


def _joined(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _figure(figure: Figure, claim: Claim, study: Study) -> dict[str, Any]:
    """Caption and width, and the image as base64 or the reason why there is none."""
    described = {"caption": figure.caption, "wide": figure.wide}
    try:
        return {**described, "image": _svg(lambda: figure.draw(claim, study))}
    except PrecodeValueError as error:
        return {**described, "missing": str(error)}


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
