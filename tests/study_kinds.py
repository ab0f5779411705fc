"""Kinds of cells for tests, in a module of their own so that other processes can import them."""

import asyncio
import concurrent.futures
import os
import signal
import time
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

import precode as pc
from precode.study import Kind, StudyConfig, training_seconds

CONFIG = StudyConfig(
    hidden=(8,),
    clauses=(2, 4),
    embeddings=("identity", "hadamard"),
    formulas=2,
    densities=(0.25,),
    methods=("snip",),
    epochs=2,
    samples=256,
    seed=3,
)


def points(config):
    for hidden, clauses, embedding in product(config.hidden, config.clauses, config.embeddings):
        yield {
            "hidden": hidden,
            "clauses": clauses,
            "embedding": embedding,
            **{name: getattr(config, name) for name in ("formulas", "epochs", "samples", "seed")},
        }


def train(settings):
    tasks = [
        pc.Dnf.random(clauses=settings["clauses"], seed=settings["seed"], index=index)
        for index in range(settings["formulas"])
    ]
    names = ("hidden", "embedding", "epochs", "samples", "seed")
    return pc.train(tasks, **{name: settings[name] for name in names})


def table(settings, codes):
    summary = codes.summary()
    for name in ("embedding", "clauses", "hidden"):
        summary.insert(0, name, settings[name])
    return summary


def dense(settings):
    runs = train(settings)
    return {"codes": table(settings, runs.codes()), "weights": dict(runs.weights)}


def start(settings):
    return {"start": table(settings, train({**settings, "epochs": 1}).start.codes())}


def cost(settings):
    return training_seconds(settings["formulas"], settings["hidden"], settings["samples"], settings["epochs"])


KINDS = (Kind("dense", points, dense, cost), Kind("start", points, start, cost))


def act(settings):
    """Waits, fails, or kills its process: always, or once, which a file remembers."""
    time.sleep(settings.get("wait", 0))
    once = settings.get("once")
    if once is None or not Path(once).exists():
        if once is not None:
            Path(once).touch()
        if settings.get("fail"):
            raise ValueError(f"cell {settings['index']} cannot be computed")
        if settings.get("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if settings.get("interrupt"):
            raise KeyboardInterrupt
    return {"numbers": pd.DataFrame({"index": [settings["index"]], "root": [np.sqrt(settings["index"])]})}


def acting(count, special, **every):
    """A kind of `count` cells, some of which have settings of their own, by number."""

    def cells(config):
        for index in range(count):
            yield {"index": index, **every, **special.get(index, {})}

    return (Kind("act", cells, act, lambda settings: 1.0),)


class MuteError(Exception):
    """An exception that cannot tell its own text."""

    def __str__(self):
        raise RuntimeError("no words")


class UnpicklableError(Exception):
    def __reduce__(self):
        raise TypeError("cannot be pickled")


FAILURES = {
    "exit": lambda: SystemExit(3),
    "mute": MuteError,
    "unpicklable": lambda: UnpicklableError("x"),
    "surrogate": lambda: ValueError("a\ud800b\0c"),
    "cancelled": concurrent.futures.CancelledError,
    "cancelled task": asyncio.CancelledError,
    "broken": lambda: concurrent.futures.BrokenExecutor("not mine"),
    "memory": MemoryError,
    "generator": GeneratorExit,
    "long": lambda: ValueError("x" * 10**6),
    "interrupt": KeyboardInterrupt,
}
"""Exceptions that a cell may raise, by name."""


def parted(settings, parts):
    """A table and arrays of parts; fails as its settings say."""
    if "raises" in settings:
        raise FAILURES[settings["raises"]]()
    rows = [(x, y, settings["index"] + x * y) for x in parts["x"] for y in parts["y"]]
    arrays = {f"{x}.{y}": np.full((2, 2), value) for x, y, value in rows}
    return {"products": pd.DataFrame(rows, columns=["x", "y", "product"]), "squares": arrays}


def parting(count, raises=()):
    """A kind of cells with two axes, then one cell for each failure by its name."""

    def cells(config):
        yield from ({"index": index} for index in range(count))
        yield from ({"index": index, "raises": name} for index, name in enumerate(raises))

    axes = {"x": (0.5, 0.25), "y": (0, 1, 2)}
    return (Kind("parted", cells, parted, lambda settings, parts: 1.0, axes=("x", "y"), parts=lambda config: axes),)


def overflow(settings):
    """More bytes than a small disk has."""
    return {"noise": pd.DataFrame({"x": np.random.default_rng(settings["index"]).random(1000 * settings["thousands"])})}


def overflowing(*thousands):
    return (
        Kind(
            "overflow",
            lambda config: [{"index": index, "thousands": size} for index, size in enumerate(thousands)],
            overflow,
            lambda settings: 1.0,
        ),
    )
