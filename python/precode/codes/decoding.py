"""Feature-channel codes read from weights: signs, patterns, templates, channels (arXiv 2504.08842)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from precode import _precode
from precode._internal.errors import PrecodeValueError
from precode._internal.lazy import Lazy
from precode.codes.distances import distances
from precode.codes.readouts import ClauseSets, EmbeddingLike, Readout, Weights, readout, templates

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
else:
    pd = Lazy("pandas")

POLARITIES = ("positive", "negative")


def decode(
    w1: Weights,
    w2: Weights,
    clauses: ClauseSets,
    *,
    embedding: EmbeddingLike = None,
    floor: float = 0.0,
    output: int = 0,
) -> Codes:
    """Reads the feature-channel codes of one network or a stack (arXiv 2504.08842, section 4.1).

    Args:
        w1: first-layer weights, (rows, inputs) or (networks, rows, inputs), as in ``nn.Linear.weight``.
        w2: output weights, (rows,) or (outputs, rows), with a leading axis for a stack.
        clauses: a `Dnf`, or clauses as sequences of integers; or one of either for each network. Networks of a
            complemented formula (a CNF) compute the negation of what its clauses say, so that their w2 is read with the
            opposite sign: a CNF is read as its dual DNF with w2 negated.
        embedding: C0, by name, as a matrix (inputs, variables) or as one of each network (networks, inputs,
            variables), where the network sees ``C0 x``; codes are then
            read in ``w1 @ C0``. None: w1 acts on the variables themselves.
        floor: magnitudes up to this count as zero.
        output: which output, where there are several.

    Raises:
        PrecodeShapeError: w1, w2, the embedding and the clauses do not fit together.
        PrecodeValueError: weights that are not finite, or a clause out of range.
        PrecodeTypeError: something other than weights or clauses.

    Example:
        >>> import torch
        >>> w1 = torch.tensor([[1.0, 2.0, -1.0], [-1.0, 0.5, 1.0]])
        >>> codes = decode(w1, torch.tensor([0.7, -0.3]), [[0, 1], [1, 2]])
        >>> codes.channels()
        array([[ True, False],
               [False, False]])
        >>> codes.code_size()
        array([1, 0])
    """
    return Codes(readout(w1, w2, clauses, embedding=embedding, output=output), floor)


class Codes:
    """Codes of one network or a stack; made by `decode`, `Networks.codes` or `Runs.codes`.

    Arrays have a leading network axis if a stack was decoded. Axes: C clauses, j rows, k literals.

    Example:
        >>> from precode import Dnf, train
        >>> codes = train(Dnf.random(clauses=4, seed=0), hidden=16, samples=640, epochs=2).codes()
        >>> codes.channels().shape, codes.code_size().shape  # (R, C, j), (R, C)
        ((1, 4, 16), (1, 4))
        >>> codes.distance("4P", "hamming").max() <= 4, len(codes.patterns()) > 0
        (np.True_, True)
    """

    def __init__(self, source: Readout, floor: float = 0.0) -> None:
        self._readout = source
        self.floor = floor
        self.pattern_counts: NDArray[np.uint32] = source.squeeze(
            _precode.pattern_counts(source.networks, source.sets, False, floor)
        )
        """(C, 2, k + 1): rows of each polarity (positive, negative) with each number of positive signs on the
        clause. Rows with a zero there are in none."""

    def read_out(self, output: int | None = None) -> Readout:
        """What the codes were read from; see `precode.codes.readouts.Readout`.

        Raises:
            PrecodeValueError: an output is named: they were read for one when they were decoded.
        """
        if output is not None:
            raise PrecodeValueError(
                f"output = {output}: these codes were read for one already; name it where you decode"
            )
        return self._readout

    @property
    def width(self) -> int:
        """Literals of a clause, k."""
        return self._readout.width

    @property
    def templates(self) -> tuple[str, ...]:
        """Names of the templates that compute a clause of this width."""
        return templates(self.width)

    @property
    def rows(self) -> int:
        """Number of rows (hidden neurons), j."""
        return int(self._readout.output.shape[-1])

    @property
    def features(self) -> NDArray[Any]:
        """C1 = W1 C0, (j, n)."""
        return self._readout.squeeze(self._readout.features)

    @property
    def output_weights(self) -> NDArray[Any]:
        """w2, (j,)."""
        return self._readout.squeeze(self._readout.output)

    @property
    def positive_rows(self) -> NDArray[np.int64]:
        """Number of rows with a positive output weight."""
        return np.asarray((self.output_weights > 0).sum(-1))

    def signs(self, *, aligned: bool = False) -> NDArray[np.int8]:
        """Signs at every clause's literals, (C, j, k) of -1, 0, +1; `aligned` flips them at negated literals."""
        source = self._readout
        return source.squeeze(_precode.signs(source.networks, source.sets, aligned, self.floor))

    def channels(self, template: str | None = None) -> NDArray[np.bool_]:
        """Feature channels (C, j): whether the row carries the template, the all-positive one by default.

        Signs are taken per literal, so ``4P`` on a clause with a negated literal is the published "3P1N aligned".

        Raises:
            PrecodeValueError: the template does not fit the clauses; the message lists those that do.
        """
        source = self._readout
        name = source.template(template)
        return source.squeeze(_precode.channels(source.networks, source.sets, name, self.floor))

    def code_size(self, template: str | None = None) -> NDArray[np.int64]:
        """Rows in the code of each clause, (C,)."""
        return np.asarray(self.channels(template).sum(-1))

    def overlap(self, template: str | None = None) -> NDArray[np.int64]:
        """Rows shared by the codes of each two clauses, (C, C); the diagonal is the code size."""
        channels = self.channels(template).astype(np.int64)
        return np.asarray(channels @ np.swapaxes(channels, -1, -2))

    @cached_property
    def _stacked_counts(self) -> NDArray[np.uint32]:
        return self.pattern_counts if self._readout.stacked else self.pattern_counts[None]

    def patterns(self) -> pd.DataFrame:
        """Mean rows per clause of every pattern: columns network, polarity, pattern, rows."""
        means = self._stacked_counts.mean(1)
        counts = means.shape[-1]
        index = np.indices(means.shape).reshape(3, -1)
        names = [_precode.pattern_name(positives, self.width - positives) for positives in range(counts)]
        return pd.DataFrame(
            {
                "network": index[0],
                "polarity": [POLARITIES[i] for i in index[1]],
                "pattern": [names[i] for i in index[2]],
                "rows": means.ravel(),
            }
        )

    def summary(self) -> pd.DataFrame:
        """One row a network: mean rows per clause of every pattern, code size, overlap, clauses without a code.

        `overlap` is the mean number of shared rows over pairs of clauses that both have a code (NaN without such
        a pair), as in figure 10 of arXiv 2504.08842.
        """
        wide = self.patterns().assign(column=lambda t: t["pattern"] + "_" + t["polarity"])
        order = [
            f"{_precode.pattern_name(positives, self.width - positives)}_{polarity}"
            for polarity in POLARITIES
            for positives in range(self.width, -1, -1)
        ]
        table = wide.pivot_table(index="network", columns="column", values="rows")[order]
        channels = self.channels() if self._readout.stacked else self.channels()[None]
        sizes = channels.sum(-1)
        table["code_size"] = sizes.mean(-1)
        table["overlap"] = [_mean_overlap(channel[size > 0]) for channel, size in zip(channels, sizes, strict=True)]
        table["clauses_without_code"] = (sizes == 0).sum(-1)
        table["positive_rows"] = np.atleast_1d(self.positive_rows)
        table.columns.name = None
        return table.reset_index()

    def locations(self, templates: Sequence[str] | None = None) -> pd.DataFrame:
        """Every occupied location: columns network, clause, template, row (our term: clause, template, row)."""
        frames = []
        for name in self.templates if templates is None else templates:
            channels = self.channels(name) if self._readout.stacked else self.channels(name)[None]
            network, clause, row = np.nonzero(channels)
            frames.append(pd.DataFrame({"network": network, "clause": clause, "template": name, "row": row}))
        return pd.concat(frames, ignore_index=True)

    def families(self, templates: Sequence[str] | None = None) -> pd.DataFrame:
        """Every occupied family, a location without its row: columns network, clause, template, rows (their number)."""
        grouped = self.locations(templates).groupby(["network", "clause", "template"], sort=True)
        return grouped.size().rename("rows").reset_index()

    def distance(
        self,
        template: str | None = None,
        metric: str = "hamming",
        *,
        scale: str = "layer",
        polarity: str = "ignore",
    ) -> NDArray[np.float64]:
        """Distance of every location from a template, (C, j); see `precode.distance`."""
        return distances(self._readout, template, metric, scale, polarity)

    def __repr__(self) -> str:
        networks = f"networks={self._readout.output.shape[0]}, " if self._readout.stacked else ""
        size = float(self.code_size().mean())
        return (
            f"Codes({networks}clauses={self.pattern_counts.shape[-3]}, rows={self.rows}, "
            f"template={self.templates[0]}, mean code size={size:.2f})"
        )

    def _repr_html_(self) -> str:
        return self.summary().to_html(index=False, float_format="{:.2f}".format, max_rows=12, border=0)


def _mean_overlap(channels: NDArray[np.bool_]) -> float:
    """Mean number of rows shared by two different codes."""
    count = len(channels)
    if count < 2:
        return float("nan")
    shared = channels.astype(np.int64) @ channels.T.astype(np.int64)
    return float((shared.sum() - np.trace(shared)) / (count * (count - 1)))
