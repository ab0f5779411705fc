"""Kinds of values that several commands take."""

from __future__ import annotations

from typing import Any

import click

from precode.codes import embedding as embeddings


class Numbers(click.ParamType[tuple[int, ...]]):
    """Comma-separated integers.

    Attributes:
        least: the smallest that is allowed.
    """

    name = "N,N,..."

    def __init__(self, least: int = 1) -> None:
        self.least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """A tuple of integers, or a usage error naming what came."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if not numbers or min(numbers) < self.least:
            message = f"{value!r}: expected numbers of at least {self.least} separated by commas, such as 16,32"
            self.fail(message, param, ctx)
        return numbers


class Fractions(click.ParamType[tuple[float, ...]]):
    """Comma-separated numbers in (0, 1]."""

    name = "D,D,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """A tuple of numbers, or a usage error naming what came."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if not numbers or not all(0 < number <= 1 for number in numbers):
            self.fail(f"{value!r}: expected numbers in (0, 1] separated by commas, such as 0.25,0.125", param, ctx)
        return numbers


class Names(click.ParamType[tuple[str, ...]]):
    """Comma-separated names."""

    name = "NAME,NAME,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """A tuple of names, or a usage error naming what came."""
        if isinstance(value, tuple):
            return value
        names = tuple(part.strip() for part in str(value).split(","))
        if not all(names):
            self.fail(f"{value!r}: expected names separated by commas, such as imp,snip", param, ctx)
        return names


EMBEDDING_HELP = (
    "Map in front of the network: identity, hadamard, hadamard-raw, random; or projection-M, learnable and of M rows "
    "(projection-M-fixed: not trained; projection-M-dense: by the dense run alone)."
)


class EmbeddingName(click.ParamType[str]):
    """The name of an embedding."""

    name = "NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name, or a usage error naming what came."""
        if not embeddings.is_name(str(value)):
            self.fail(f"{value!r}: expected one of {embeddings.ALLOWED}", param, ctx)
        return str(value)
