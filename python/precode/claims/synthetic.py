"""Studies whose answer is known, to check the claims' tests: nothing in them is trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from precode import _precode
from precode._internal.check import KEY, integer
from precode._internal.errors import PrecodeValueError
from precode.claims.conditions import VERDICTS
from precode.claims.counts import count_nulls
from precode.claims.judge import judge
from precode.claims.observations import KINDS, Observations, fates, observe_locations
from precode.claims.registry import CLAIMS
from precode.claims.rules import Rules, RulesLike
from precode.claims.transport import count_transport
from precode.codes import embedding as embeddings
from precode.codes.nulls import random_network
from precode.formulas.dnf import Dnf
from precode.networks.stacks import Networks, named

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from precode.claims.records import Law

SCENARIOS = ("planted", "own-null", "shuffled", "random-network")
"""What the codes are: planted at initialization by the laws of the claims, so that every claim is true; the same, but
with false clauses, random tickets and rows that do as well as what is claimed, so that no claim beats its own null;
with labels shuffled over locations and methods alike, or those of a random network, so that none is true at all."""

FALSE = -2.0
"""Log-odds that a location of a false clause becomes a code in planted and shuffled studies."""

DENSITIES = (0.25, 0.125)
PROBES = ("distance", "distance-plain", "motion")
WEIGHT_BASED = ("magnitude-init", "snip", "imp")
NOTHING = "random"
EPOCHS = {"motion": 1.0, "imp": 175.0}
"""Epochs of training that finding a ticket takes, where it takes any."""

KEPT = 0.3
"""Share of the recovered codes that are drawn anew among the rows in the study of own nulls: most stay."""


@dataclass(frozen=True, eq=False)
class SyntheticStudy:
    """Tables as a study of trained networks has them; made by `synthetic_study`.

    Attributes:
        scenario: one of `SCENARIOS`.
        observations: see `observe`.
        tickets: the columns of `Retrained.table` that the claims use.
        transport: see `transport_tickets`.

    Example:
        >>> study = synthetic_study("shuffled", formulas=2, hidden=8, clauses=4)
        >>> study.scenario, sorted(study.tickets["method"].unique())[:2]
        ('shuffled', ['distance', 'distance-plain'])
    """

    scenario: str
    observations: Observations
    tickets: pd.DataFrame
    transport: pd.DataFrame

    def __repr__(self) -> str:
        return f"SyntheticStudy({self.scenario}, {self.observations!r})"


def synthetic_study(
    scenario: str,
    *,
    formulas: int = 12,
    hidden: int = 32,
    clauses: int = 16,
    seed: int = 0,
    variables: int = 32,
    embedding: str = "identity",
) -> SyntheticStudy:
    """Tables of networks that are initialized for real and whose final codes follow a known law.

    In ``"planted"`` the laws of all claims (`Claim.law`) are true together: they say with which log-odds a location of
    the right polarity becomes a code (one of a false clause: -2 wherever it is), which tickets are better, and where
    recovered codes are. ``"shuffled"`` permutes these codes over the locations of their formula and takes every
    advantage away; ``"random-network"`` reads the codes of a network of random signs. ``"own-null"`` leaves the laws as
    they are and gives the nulls the same: false clauses become codes by the law of the formula's, random tickets are as
    good as those of probes, and recovered codes mostly stay on their rows.

    Args:
        scenario: one of `SCENARIOS`.
        formulas: networks, each with a formula of its own.
        hidden: hidden width, j.
        clauses: number of clauses, C.
        seed: key of everything.
        variables: number of variables, n.
        embedding: what is in front of the networks at initialization, by name; see `precode.train`.

    Raises:
        PrecodeValueError: an unknown scenario or embedding.

    Example:
        >>> study = synthetic_study("planted", formulas=2, hidden=8, clauses=4)
        >>> study.tickets["method"].nunique(), study.observations.locations["formula"].nunique()
        (7, 2)
    """
    if scenario not in SCENARIOS:
        raise PrecodeValueError(f"scenario {scenario!r}: use one of {', '.join(SCENARIOS)}")
    seed = integer(seed, "seed", 0, KEY)
    rng = np.random.default_rng([*b"synthetic", seed, SCENARIOS.index(scenario)])
    tasks = [Dnf.random(variables=variables, clauses=clauses, seed=seed, index=number) for number in range(formulas)]
    start = _start(tasks, hidden, embedding, seed)
    end = _random_end(start, seed) if scenario == "random-network" else start
    frames = []
    for kind in KINDS:
        sets = [
            [list(clause) for clause in (task.clauses if kind == "formula" else task.false_clauses(seed=seed, index=i))]
            for i, task in enumerate(tasks)
        ]
        frame = observe_locations(start, end, sets, seed=seed)
        frame = frame.assign(kind=pd.Categorical([kind] * len(frame), categories=list(KINDS)))
        if scenario != "random-network":
            frame["code"] = _planted(frame, kind == "formula" or scenario == "own-null", rng)
            if scenario == "shuffled":
                frame["code"] = _shuffled(frame, rng)
        frame["fate"] = fates(frame)
        frame["displacement"] = rng.random((formulas, hidden))[frame["formula"], frame["row"]]
        frames.append(frame)
    locations = pd.concat(frames, ignore_index=True)
    tables = {
        "locations": locations,
        "motion": _motion(locations),
        "nulls": count_nulls(locations, end, seed=seed),
        "similarity": pd.DataFrame(columns=["formula", "cka", "svcca", "cka_null", "svcca_null"], dtype=float),
    }
    cell: dict[str, Any] = {"hidden": hidden, "clauses": clauses, "embedding": start.embedding.name}
    tickets, transport = _tickets(scenario, formulas, rng), _transport(scenario, locations, start, rng)
    for table in (*tables.values(), tickets, transport):
        for place, (name, value) in enumerate(cell.items()):
            table.insert(place, name, value)
    return SyntheticStudy(scenario, Observations(**tables), tickets, transport)


def _start(tasks: Sequence[Dnf], hidden: int, embedding: str, seed: int) -> Networks:
    """Networks as `precode.train` initializes them."""
    c0 = embeddings.resolve(embedding, tasks[0].variables, seed)
    streams = range(len(tasks))
    layers = _precode.linear_init([c0.rows, hidden, 1], seed, streams)
    own = None if c0.projection is None else _precode.projection_init(c0.rows, c0.variables, seed, streams)
    return Networks(named(layers, own), tasks, c0)


def _random_end(start: Networks, seed: int) -> Networks:
    """Random signs in feature space with the same polarities, or what of them is in reach of W1 behind C0."""
    import torch

    signs = torch.from_numpy(np.array(random_network(start.codes(), seed=seed).features))
    w1 = signs @ torch.linalg.pinv(start.c0.to(signs.dtype))
    return Networks({**start.weights, "w1": w1.to(start.weights["w1"].dtype)}, start.tasks, start.embedding)


def _laws() -> list[Law]:
    return [claim.law for claim in CLAIMS if claim.law is not None]


def _planted(frame: pd.DataFrame, lawful: bool, rng: np.random.Generator) -> NDArray[np.bool_]:
    logit = sum(law.codes(frame) for law in _laws() if law.codes is not None) if lawful else FALSE
    chance = frame["polarity"] / (1 + np.exp(-logit))
    return np.asarray(rng.random(len(frame)) < chance)


def _shuffled(frame: pd.DataFrame, rng: np.random.Generator) -> NDArray[np.bool_]:
    codes = frame["code"].to_numpy(copy=True)
    groups = frame[frame["polarity"]].groupby(["formula", "template"], observed=True).groups
    for members in groups.values():
        codes[members] = rng.permutation(codes[members])
    return codes


def _motion(locations: pd.DataFrame) -> pd.DataFrame:
    """Converging locations go to distance 0 on a straight line, rejected ones stay."""
    near = locations[locations["near"]]
    left = near["fate"].eq("rejected").to_numpy()
    frames = []
    for epoch, progress in [(0.0, 0.0), (0.2, 0.25), (0.6, 0.5), (1.0, 0.75), (float("inf"), 1.0)]:
        remaining = np.where(left, 1.0, 1.0 - progress)
        frame = near[["formula", "clause", "template", "row", "kind", "fate"]].assign(epoch=epoch)
        frames.append(frame.assign(hamming=near["hamming"] * remaining, soft=near["soft"] * remaining))
    return pd.concat(frames, ignore_index=True)


def _tickets(scenario: str, formulas: int, rng: np.random.Generator) -> pd.DataFrame:
    """Accuracy and recovery with differences between formulas, groups of methods within them, and tickets."""
    lawful = scenario in ("planted", "own-null")
    rows = []
    for number in range(formulas):
        base = 0.97 + rng.normal(0, 0.005)
        lean = {"probe": rng.normal(0, 0.002), "weight": rng.normal(0, 0.002)}
        for method in (*PROBES, *WEIGHT_BASED, NOTHING):
            group = "probe" if method in PROBES else "weight"
            # Random tickets are as good as those of a probe where the null is to be that good.
            like = "motion" if method == NOTHING and scenario == "own-null" else method
            better = lawful * sum(law.accuracy(like) for law in _laws() if law.accuracy is not None)
            more = lawful * sum(law.recovery(like) for law in _laws() if law.recovery is not None)
            for density in DENSITIES:
                recovered = 0.15 + more + lean[group] + rng.normal(0, 0.03)
                rows.append(
                    {
                        "method": method,
                        "density": density,
                        "formula": number,
                        "accuracy": base + better + lean[group] + rng.normal(0, 0.004),
                        "dense_accuracy": base,
                        "recovery_family": max(recovered, 0.0),
                        "dense_epochs": EPOCHS.get(method, 0.0),
                    }
                )
    return pd.DataFrame(rows)


def _transport(scenario: str, locations: pd.DataFrame, start: Networks, rng: np.random.Generator) -> pd.DataFrame:
    """Sparse codes of every ticket: three in five families of the dense ones, some of whose codes change their row."""
    own = locations[locations["kind"] == "formula"]
    names = list(own["template"].cat.categories)
    shape = (own["formula"].nunique(), own["clause"].nunique(), len(names), own["row"].nunique())
    dense = own["code"].to_numpy(dtype=bool).reshape(shape)
    usable = own["polarity"].to_numpy(dtype=bool).reshape(shape)
    weights = start.weights["w2"].double().numpy()
    moved = KEPT if scenario == "own-null" else next((law.moved for law in _laws() if law.moved is not None), 0.0)
    frames = []
    for method in (*PROBES, *WEIGHT_BASED, NOTHING):
        for density in DENSITIES:
            stay = dense & (rng.random((*shape[:3], 1)) < 0.6)
            gone = stay & (rng.random(shape) < moved)
            stay &= ~gone
            # As many of the free rows of the right polarity, at random.
            order = np.where(usable & ~stay, rng.random(shape), 2.0).argsort(-1).argsort(-1)
            sparse = stay | (order < gone.sum(-1, keepdims=True))
            if scenario in ("shuffled", "random-network"):  # the same codes, but of clauses at random
                sparse = np.stack([rng.permutation(one) for one in sparse])
            table = count_transport(names, dense, sparse, weights)
            table.insert(0, "density", density)
            table.insert(0, "method", method)
            frames.append(table)
    return pd.concat(frames, ignore_index=True)


def verdict_rates(
    scenario: str,
    studies: int = 200,
    *,
    seeds: Iterable[int] | None = None,
    rules: RulesLike = None,
    resamples: int = 999,
    **settings: Any,
) -> pd.DataFrame:
    """How often each claim gets each verdict in independent synthetic studies.

    A verdict that the scenario makes false should be as rare as the rules aim at.

    Args:
        scenario: see `synthetic_study`.
        studies: how many.
        seeds: their keys, 0, 1, ... by default.
        rules: the decision rules; those of the package by default.
        resamples: bootstrap resamples, fewer than in a real study to save time.
        settings: of `synthetic_study`.

    Returns:
        One row a claim, one column a verdict: fractions of the studies.

    Example:
        >>> verdict_rates("planted", 1, formulas=10).loc["C1", "holds"]
        np.float64(1.0)
    """
    fewer = replace(Rules.of(rules), resamples=resamples)
    verdicts = []
    for seed in range(integer(studies, "studies", 1)) if seeds is None else seeds:
        study = synthetic_study(scenario, seed=seed, **settings)
        found = judge(study.observations, study.tickets, study.transport, rules=fewer)
        verdicts.append({name: verdict.verdict for name, verdict in found.items()})
    table = pd.DataFrame(verdicts)
    return pd.DataFrame({name: (table == name).mean() for name in VERDICTS})
