"""Experiments as a part of studies: their cells among the others, and their results read back from the folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from precode._internal.cells import Kind, Parts, Results, Settings
from precode._internal.errors import PrecodeValueError
from precode.experiments import EXPERIMENTS, Experiment, Finished, Result, Setting, find
from precode.experiments.founding_cells import FORMULA
from precode.study.config import StudyConfig
from precode.study.results import Study

OF = "experiment"
"""Name of the kind of cells, and of the setting that says whose a cell is."""


def setting(experiment: Experiment, config: StudyConfig) -> Setting:
    """An experiment's own setting, with the formulas and the seed of a study."""
    changes = {"formulas": config.formulas, "seed": config.seed}
    return Setting(experiment.name, experiment.setting, changes)


def cells(config: StudyConfig) -> Iterator[Settings]:
    """The cells of all experiments of a study; those that several of them share come once."""
    seen = []
    for name in config.experiments:
        experiment = find(name)
        if experiment.kind.axes != (FORMULA,):
            raise PrecodeValueError(f"experiment {name!r} is not divided into formulas alone: run it by itself")
        for settings in experiment.kind.cells(setting(experiment, config)):
            whole = {OF: experiment.kind.name, **settings}
            if whole not in seen:
                seen.append(whole)
                yield whole


def _kind(settings: Settings) -> Kind:
    """The kind of cells that settings are of, of whichever experiment."""
    return next(experiment.kind for experiment in EXPERIMENTS if experiment.kind.name == settings[OF])


def _own(settings: Settings) -> Settings:
    """Settings without the name of the kind."""
    return {name: value for name, value in settings.items() if name != OF}


def compute(settings: Settings, parts: Parts) -> Results:
    """The results of a cell, by names that begin with that of its kind."""
    results = _kind(settings).compute(_own(settings), parts)
    return {f"{settings[OF]}_{name}": value for name, value in results.items()}


def seconds(settings: Settings, parts: Parts) -> float:
    """The estimate of the cell's kind."""
    return _kind(settings).seconds(_own(settings), parts)


def formulas(config: StudyConfig) -> Mapping[str, range]:
    """The numbers of the formulas."""
    return {FORMULA: range(config.formulas)}


KIND = Kind(OF, cells, compute, seconds, axes=(FORMULA,), parts=formulas)
"""Cells of experiments."""


def reproduced(study: Study) -> dict[str, Result]:
    """The experiments of a study, by name, from the cells that are finished.

    Raises:
        PrecodeFileError: a file is missing or was altered.
    """
    results = {}
    for name in study.config.experiments:
        experiment = find(name)
        chosen = setting(experiment, study.config)
        planned = list(experiment.kind.cells(chosen))
        done = [
            Finished(_own(one), {key.removeprefix(f"{one[OF]}_"): table for key, table in tables.items()}, spent)
            for one, tables, spent in study.cells(OF)
            if one[OF] == experiment.kind.name and _own(one) in planned
        ]
        done.sort(key=lambda cell: planned.index(cell.settings))
        if done:
            results[name] = experiment.result(experiment, chosen, experiment.tables(done), len(done), len(planned))
    return results
