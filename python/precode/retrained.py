"""Tickets after retraining, compared with their dense networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from precode._recovery import recovery
from precode.dataset import Dataset
from precode.errors import PrecodeValueError
from precode.networks import Networks

if TYPE_CHECKING:
    import polars

    from precode.tickets import Tickets


class Retrained:
    """Tickets after retraining beside their dense networks; made by `Tickets.retrain`.

    Attributes:
        tickets: what was retrained.
        test: the data set of each network that accuracy is measured on.

    Example:
        >>> from precode import Dnf, find_tickets, train
        >>> runs = train(Dnf.random(clauses=4, seed=0), hidden=8, samples=640, epochs=2)
        >>> retrained = find_tickets(runs, ["random", "snip"], 0.25).retrain()
        >>> retrained.table()[["method", "density", "kept"]].values.tolist()
        [['random', 0.25, 64], ['snip', 0.25, 64]]
        >>> retrained.networks("snip", 0.25).codes().channels().shape
        (1, 4, 8)
    """

    def __init__(
        self,
        tickets: Tickets,
        networks: Sequence[Networks],
        seconds: Sequence[float],
        test: Sequence[Dataset],
        floor: float,
    ) -> None:
        self.tickets = tickets
        self.test = tuple(test)
        self._networks = tuple(networks)
        self._table = _measure(tickets, networks, seconds, test, floor)

    def networks(self, method: str, density: float) -> Networks:
        """The retrained networks of one method at one density.

        Raises:
            PrecodeValueError: there are none.
        """
        return self._networks[self.tickets.found.index(self.tickets.get(method, density))]

    def table(self) -> pd.DataFrame:
        """One row a method, density and formula.

        Columns: method, density (of all prunable weights), formula, accuracy and dense_accuracy on the test data
        (fraction of labels), kept (weights), the columns of `precode.recovery` (without tasks, or with several hidden
        layers, there are none), gradients and dense_epochs (cost of finding, for each network), and seconds (finding
        and retraining).
        """
        return self._table.copy()

    def polars(self) -> polars.DataFrame:
        """The table as a polars data frame.

        Raises:
            PrecodeValueError: polars is not installed.
        """
        try:
            import polars
        except ImportError as error:
            raise PrecodeValueError("polars is not installed: pip install polars, or use .table()") from error
        return polars.DataFrame({name: column.to_list() for name, column in self._table.items()})

    def summary(self) -> pd.DataFrame:
        """Means over the formulas, one row a method and density, best accuracy first."""
        grouped = self._table.drop(columns="formula").groupby(["method", "density"], sort=False).mean()
        return grouped.reset_index().sort_values(["density", "accuracy"], ascending=False, ignore_index=True)

    def __repr__(self) -> str:
        return f"Retrained({self.tickets!r})"

    def _repr_html_(self) -> str:
        return self.summary().to_html(index=False, float_format="{:.3f}".format, border=0)


def _measure(
    tickets: Tickets, networks: Sequence[Networks], seconds: Sequence[float], test: Sequence[Dataset], floor: float
) -> pd.DataFrame:
    """Accuracy and recovery of every retrained network."""
    dense = tickets.dense
    dense_accuracy = 1 - dense.evaluate(test)["error"].to_numpy()
    frames = []
    readable = dense.tasks is not None and len(dense.widths) == 3
    for item, retrained, spent in zip(tickets.found, networks, seconds, strict=True):
        recovered = recovery(dense, retrained, item.masks, floor=floor) if readable else pd.DataFrame()
        columns = {
            "method": item.method,
            "density": item.kept / item.total,
            "formula": range(len(dense)),
            "accuracy": 1 - retrained.evaluate(test)["error"].to_numpy(),
            "dense_accuracy": dense_accuracy,
            "kept": item.kept,
            **{name: recovered[name].to_numpy() for name in recovered.columns if name != "network"},
            "gradients": item.gradients,
            "dense_epochs": item.epochs,
            "seconds": item.seconds + spent,
        }
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)
