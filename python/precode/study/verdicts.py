"""From a finished study to the paper's claims, and to files that others can read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from precode._internal.cells import digest, numerics
from precode._internal.errors import PrecodeTypeError, PrecodeValueError
from precode._internal.files import write_atomically
from precode._internal.progress import Progress
from precode.claims.cells import SETTING
from precode.claims.registry import rules_version
from precode.codes.readouts import templates
from precode.study.folder import explained
from precode.study.reproduction import reproduced
from precode.study.results import Study, write_table

if TYPE_CHECKING:
    from precode.claims import Observations, Verdict

CLAIMS = "claims.json"
TABLES = "tables"


def rules_note(planned: str, judged: str) -> str:
    """What to say of the rules of a study's verdicts: nothing where they are those it was planned under.

    Args:
        planned: version of the rules when the study was planned, `Study.rules`.
        judged: version that it was judged by.

    Example:
        >>> rules_note("0" * 64, "0" * 64)
        ''
        >>> rules_note("0" * 64, "1" * 64)[:70]
        'planned under version 000000000000 of the rules and judged by version '
    """
    if planned == judged:
        return ""
    return (
        f"planned under version {planned[:12]} of the rules and judged by version {judged[:12]}: the rules may have "
        "been changed with the results in sight"
    )


def judged_from(study: Study) -> str:
    """What verdicts rest on, as one SHA-256 in hexadecimal: all results, the rules of this package, and its version.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from precode.study import Kind, StudyConfig, run
        >>> kind = Kind("ones", lambda config: [{}], lambda cell: {"ones": pd.DataFrame({"y": [1]})}, lambda cell: 0.1)
        >>> with TemporaryDirectory() as folder:
        ...     study = run(StudyConfig.preset("quick"), folder, kinds=[kind], progress=False)
        ...     judged_from(study) == judged_from(study)
        True
    """
    return digest(f"{study.seal} {rules_version()} {numerics()}")


def read_claims(study: Study) -> list[dict[str, Any]] | None:
    """The claims that were written beside a study, if they were judged from the very same; None otherwise.

    Every file that was written with them must still be there.

    Args:
        study: in whose folder they would be.
    """
    try:
        record = json.loads((study.folder / CLAIMS).read_text(encoding="utf-8"))
        same = record["judged_from"] == judged_from(study)
        there = all((study.folder / TABLES / name).is_file() for name in record["files"])
        claims: list[dict[str, Any]] = record["claims"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return claims if same and there else None


def observations(study: Study) -> Observations:
    """The tables of a study that claims C1 to C4 are about.

    Args:
        study: in which cells of codes are finished.

    Raises:
        PrecodeValueError: there are none.
        PrecodeFileError: a file is missing or was altered.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from precode.study import StudyConfig, run
        >>> small = {"hidden": [8], "clauses": [4], "embeddings": ["random"], "formulas": 2, "epochs": 1, "samples": 99}
        >>> config = StudyConfig.preset("robust", methods=["random", "snip"], densities=[0.5], **small)
        >>> with TemporaryDirectory() as folder:
        ...     study = run(config, folder, progress=False)
        ...     observations(study).locations["kind"].unique().tolist()
        ['formula', 'false']
    """
    from precode.claims.observations import FATES, KINDS, Observations

    kept = {"kind": list(KINDS), "fate": list(FATES), "template": list(templates(SETTING["width"]))}

    def read(name: str) -> pd.DataFrame:
        table = study.table(name)
        # Files know the categories that occur in them; all cells have the same ones here.
        return table.assign(**{key: pd.Categorical(table[key], names) for key, names in kept.items() if key in table})

    return Observations(read("locations"), read("motion"), study.table("nulls"), study.table("similarity"))


def judge_study(study: Study, *, progress: Progress = False) -> dict[str, Verdict]:
    """Judges every claim of the paper from a finished study, by the rules of this package.

    Args:
        study: all cells of which are finished.
        progress: True for a bar, or a function of (parts of the study judged, parts).

    Returns:
        The claims by name, C1 to C6, in the paper's setting where the study has it, with other settings beside; see
        `precode.claims.judge_setting`.

    Raises:
        PrecodeTypeError: not a study.
        PrecodeValueError: unfinished cells, which may be the very ones that speak against a claim.
        PrecodeFileError: a file is missing or was altered.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from precode.study import StudyConfig, run
        >>> small = {"hidden": [8], "clauses": [4], "embeddings": ["random"], "formulas": 2, "epochs": 1, "samples": 99}
        >>> config = StudyConfig.preset("robust", methods=["random", "snip"], densities=[0.5], **small)
        >>> with TemporaryDirectory() as folder:
        ...     study = run(config, folder, progress=False)
        ...     judge_study(study)["C1"]
        Verdict(C1 not enough data: 2 formulas with a value, 10 are needed)
    """
    from precode.claims import judge_setting  # isort: skip - says what is not installed
    from threadpoolctl import threadpool_limits

    if not isinstance(study, Study):
        raise PrecodeTypeError(f"study must be a Study, such as Study({str(study)[:40]!r}), not {type(study).__name__}")
    if study.finished < study.planned:
        raise PrecodeValueError(
            f"{study.folder}: {study.finished} of {study.planned} cells are finished: run the study to its end first"
        )
    tables = observations(study), study.table("tickets"), study.table("transport")
    # Matrices are small: several threads would wait for each other, much so beside other work.
    with threadpool_limits(1):
        return judge_setting(*tables, progress=progress)


def write_claims(
    study: Study, claims: dict[str, Verdict], folder: str | Path | None = None, *, progress: Progress = False
) -> list[Path]:
    """Writes the claims as JSON, and all tables of the study and of the claims as CSV and Parquet.

    The same results give the same bytes. `claims.json` says by which rules was judged (``rules``), and under which the
    study was planned (``rules_when_planned``): where these differ, ``note`` says so.

    Args:
        study: that was judged.
        claims: see `judge_study`.
        folder: for ``claims.json`` and the folder ``tables``; that of the study by default.
        progress: True for a bar, or a function of (tables of the study written, tables).

    Returns:
        The files. The tables of a claim begin with its name: ``c1`` is the one behind its effect.

    Raises:
        PrecodeFileError: they cannot be written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from precode.study import StudyConfig, run
        >>> small = {"hidden": [8], "clauses": [4], "embeddings": ["random"], "formulas": 2, "epochs": 1, "samples": 99}
        >>> config = StudyConfig.preset("robust", methods=["random", "snip"], densities=[0.5], **small)
        >>> with TemporaryDirectory() as folder:
        ...     study = run(config, folder, progress=False)
        ...     written = write_claims(study, judge_study(study))
        >>> written[0].name, sorted({path.suffix for path in written[1:]})
        ('claims.json', ['.csv', '.parquet'])
    """
    folder = study.folder if folder is None else Path(folder)
    written = study.export(folder / TABLES, progress=progress)
    for name, claim in claims.items():
        tables = {name.lower(): claim.details, **{f"{name.lower()}_{key}": item for key, item in claim.tables.items()}}
        for label, table in tables.items():
            if len(table):
                written += write_table(folder / TABLES, label, table)
    for name, result in reproduced(study).items():
        if len(result.reported):
            written += write_table(folder / TABLES, f"{name}_reported", result.reported)
    record = {
        "study": study.config.key,
        "config": json.loads(study.config.to_json()),
        "software": numerics(),
        "rules": rules_version(),
        "rules_when_planned": study.rules,
        "note": rules_note(study.rules, rules_version()),
        "judged_from": judged_from(study),
        "files": sorted(path.name for path in written),
        "claims": [claim.record() for claim in claims.values()],
    }
    # Last, so that its being there says that all is.
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / CLAIMS, json.dumps(record, indent=1, allow_nan=False) + "\n")
    return [folder / CLAIMS, *written]
