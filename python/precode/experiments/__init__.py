"""Experiments of papers, one record each, with their published numbers beside ours.

``precode.experiments.<name>(**setting)`` runs one; `EXPERIMENTS` lists them.
"""

from typing import Any

from precode._internal.cells import Kind
from precode._internal.errors import PrecodeValueError
from precode.experiments import (
    founding_curves,
    neighbour_alignment,
    neighbour_basis,
    neighbour_capacity,
    neighbour_connectivity,
    neighbour_delayed,
    neighbour_dictionary,
    neighbour_diet,
    neighbour_expansion,
    neighbour_grokking,
    neighbour_unlearning,
    paper_budget,
    paper_choices,
    paper_cycle,
    paper_fates,
    paper_identity,
    paper_precursors,
    paper_probes,
    paper_scale,
    paper_sweep,
    published,
)
from precode.experiments.cells import Finished
from precode.experiments.comparison import Reported, place
from precode.experiments.founding_curves import Curves
from precode.experiments.records import Experiment, Interrupted, Result
from precode.experiments.setting import Setting

EXPERIMENTS: list[Experiment] = [
    founding_curves.EXPERIMENT,
    paper_cycle.EXPERIMENT,
    paper_fates.EXPERIMENT,
    paper_budget.EXPERIMENT,
    paper_identity.EXPERIMENT,
    paper_precursors.EXPERIMENT,
    paper_sweep.EXPERIMENT,
    paper_probes.EXPERIMENT,
    paper_scale.EXPERIMENT,
    paper_choices.EXPERIMENT,
    neighbour_expansion.EXPERIMENT,
    neighbour_unlearning.EXPERIMENT,
    neighbour_alignment.EXPERIMENT,
    neighbour_capacity.EXPERIMENT,
    neighbour_dictionary.EXPERIMENT,
    neighbour_grokking.EXPERIMENT,
    neighbour_delayed.EXPERIMENT,
    neighbour_connectivity.EXPERIMENT,
    neighbour_basis.EXPERIMENT,
    neighbour_diet.EXPERIMENT,
]
"""Every experiment. A new one is a file with its record, and a line here."""

__all__ = [
    "EXPERIMENTS",
    "Curves",
    "Experiment",
    "Finished",
    "Interrupted",
    "Kind",
    "Reported",
    "Result",
    "Setting",
    "find",
    "place",
    "published",
]


def find(name: str) -> Experiment:
    """The experiment of a name.

    Raises:
        PrecodeValueError: there is none; the message lists those there are.

    Example:
        >>> find("curves").source
        'arXiv 2504.08842, section 4'
    """
    for experiment in EXPERIMENTS:
        if experiment.name == name:
            return experiment
    names = ", ".join(experiment.name for experiment in EXPERIMENTS)
    raise PrecodeValueError(f"experiment {name!r} is unknown: use one of {names}")


def __getattr__(name: str) -> Any:
    for experiment in EXPERIMENTS:
        if experiment.name == name:
            return experiment
    raise AttributeError(f"module 'precode.experiments' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *(experiment.name for experiment in EXPERIMENTS)]
