"""Boolean formulas, the tasks that networks are trained on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from precode import _precode
from precode._internal import memory
from precode._internal.check import COUNT, KEY, booleans, integer, literals, plain
from precode._internal.errors import PrecodeShapeError, PrecodeTypeError, PrecodeValueError
from precode.formulas import samplers
from precode.formulas.datasets import Dataset, packed_bytes

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Clause: TypeAlias = Sequence[int]
Clauses: TypeAlias = Sequence[Clause]


class Dnf:
    """A formula in disjunctive normal form: True when all literals of some clause are (arXiv 2504.08842).

    A literal is the index of a variable, counted from 0, or ``~index`` for its negation. A minus sign does not negate:
    to Python ``~1`` is -2, so that -2 negates variable 1. Write ``~``, and look at ``print(task)``.

    Args:
        clauses: a sequence of clauses, each a sequence of literals over distinct variables; or one such
            sequence for each output.
        variables: number of variables, n.
        complemented: labels are the negation of the formula (see `cnf`).

    Raises:
        PrecodeValueError: no clause, an empty or repeated one, or a variable out of range or named twice.
        PrecodeTypeError: something other than integers, such as Booleans.

    Example:
        >>> task = Dnf([[0, 1], [2, ~3]], variables=4)
        >>> task
        Dnf(variables=4, clauses=2, width=2, negated literals=1)
        >>> print(task)
        (x0 ∧ x1) ∨ (x2 ∧ ¬x3)
        >>> task.evaluate([[1, 1, 0, 0], [0, 0, 1, 1]])
        tensor([ True, False])
    """

    def __init__(self, clauses: Clauses | Sequence[Clauses], variables: int, *, complemented: bool = False) -> None:
        nested = [[literals(item) for item in outer] for outer in _outputs(clauses)]
        count = integer(variables, "variables", 1, COUNT)
        try:
            self._formula = _precode.Formula(count, nested, bool(complemented))
        except PrecodeValueError as error:
            negative = next((item for outer in nested for clause in outer for item in clause if item < 0), None)
            if negative is None:
                raise
            hint = f"{negative} is ~{~negative}, the negation of variable {~negative}, and not of variable {-negative}"
            raise PrecodeValueError(f"{error} ({hint}: variables are counted from 0 and negated with ~)") from error

    @classmethod
    def _wrap(cls, formula: _precode.Formula) -> Dnf:
        task = cls.__new__(cls)
        task._formula = formula
        return task

    @classmethod
    def random(
        cls,
        *,
        variables: int = 32,
        clauses: int = 16,
        width: int = 4,
        negated: int = 0,
        disjoint: bool = False,
        outputs: int = 1,
        seed: int = 0,
        index: int = 0,
    ) -> Dnf:
        """A formula of random distinct clauses, as in section 4 of arXiv 2504.08842.

        Args:
            variables: number of variables, n.
            clauses: clauses of each output, C.
            width: distinct variables of a clause, k.
            negated: literals of each clause that are negated (section 4.7 has 1).
            disjoint: let a variable occur in at most one clause of an output.
            outputs: number of formulas over the same variables.
            seed: key of the random numbers.
            index: number of the formula among those of the seed.

        Raises:
            PrecodeValueError: a clause wider than there are variables, or more clauses than exist.
            UnsupportedError: they do not fit into memory.

        Example:
            >>> Dnf.random(variables=32, clauses=16, width=4, seed=0)
            Dnf(variables=32, clauses=16, width=4)
        """
        shape = (
            integer(variables, "variables", 1, COUNT),
            integer(outputs, "outputs", 1, COUNT),
            integer(clauses, "clauses", 1, COUNT),
            integer(width, "width", 1, COUNT),
            integer(negated, "negated", 0, COUNT),
            bool(disjoint),
        )
        key, stream = integer(seed, "seed", 0, KEY), integer(index, "index", 0, KEY)
        memory.check(
            _precode.Formula.random_bytes(*shape),
            f"a formula of {clauses} clauses of {width} of {variables} variables",
            "ask for fewer or narrower clauses, or fewer variables",
        )
        return cls._wrap(_precode.Formula.random(*shape, key, stream))

    @classmethod
    def cnf(cls, clauses: Clauses, variables: int) -> Dnf:
        """A conjunction of disjunctions, as the complement of the DNF of its negated literals.

        Example:
            >>> Dnf.cnf([[0, 1], [2, 3]], variables=4).evaluate([[1, 0, 0, 1], [1, 1, 0, 0]])
            tensor([ True, False])
        """
        return cls(
            [[~literal for literal in literals(item)] for item in _listed(clauses)], variables, complemented=True
        )

    @property
    def variables(self) -> int:
        """Number of variables, n."""
        return self._formula.variables

    @property
    def outputs(self) -> int:
        """Number of outputs."""
        return len(self._formula.outputs)

    @property
    def clauses(self) -> tuple[tuple[int, ...], ...]:
        """Clauses of the one output (see `clauses_of` for several).

        Raises:
            PrecodeShapeError: the task has several outputs.
        """
        if self.outputs != 1:
            raise PrecodeShapeError(f"the task has {self.outputs} outputs: use clauses_of(output)")
        return self.clauses_of(0)

    def clauses_of(self, output: int) -> tuple[tuple[int, ...], ...]:
        """Clauses of one output, as tuples of signed literals.

        Raises:
            PrecodeValueError: there is no such output.
        """
        number = integer(output, "output", 0, self.outputs - 1)
        return tuple(tuple(clause) for clause in self._formula.outputs[number])

    @property
    def complemented(self) -> bool:
        """Whether labels are the negation of the DNF."""
        return self._formula.complemented

    def sample(
        self,
        samples: int = 20_000,
        *,
        seed: int = 0,
        index: int = 0,
        sampler: str | samplers.Sampler = "broken-clause",
        held_out: bool = False,
    ) -> Dataset:
        """Draws labelled inputs.

        Args:
            samples: how many.
            seed: key of the random numbers; the same seed and index give the same bits.
            index: number of the data set among those of the seed.
            sampler: ``"broken-clause"``, ``"uniform"``, ``"truth-table"``, or one of `precode.BrokenClause`,
                `precode.Biased`, `precode.TruthTable`.
            held_out: draw from the streams kept for tests, which no training or validation data come from.

        Raises:
            UnsupportedError: the samples do not fit into memory.
            PrecodeValueError: impossible counts or probabilities, or no input with the wanted labels is found.

        Example:
            >>> data = Dnf.random(clauses=8, seed=0).sample(1000, seed=0)
            >>> int(data.y.sum()), int(data.x.sum(1).min()), int(data.x.sum(1).max())
            (500, 4, 6)
        """
        resolved = samplers.resolve(sampler)
        count, key = integer(samples, "samples", 1, COUNT), integer(seed, "seed", 0, KEY)
        stream = integer(index, "index", 0, KEY)
        memory.check(
            packed_bytes(count, self.variables, self.outputs),
            f"drawing {count} samples of {self.variables} variables",
            "draw fewer",
        )
        (packed,) = _precode.sample_all(
            [self._formula], resolved, count, key, [stream], "test" if held_out else "train"
        )
        return Dataset._wrap(packed)

    def evaluate(self, x: ArrayLike | torch.Tensor) -> torch.Tensor:
        """Labels of inputs (samples, variables): Boolean (samples,), or (samples, outputs) for several outputs."""
        inputs = booleans(x, "x", "inputs")
        if inputs.ndim != 2 or inputs.shape[1] != self.variables:
            raise PrecodeShapeError(f"x of shape {inputs.shape}: expected (samples, {self.variables})")
        labels = torch.from_numpy(self._formula.labels(inputs))
        return labels[:, 0] if self.outputs == 1 else labels

    def false_clauses(self, *, output: int = 0, seed: int = 0, index: int = 0) -> tuple[tuple[int, ...], ...]:
        """As many random clauses of the same widths that are *not* in the formula: the clause-permuted null.

        Raises:
            PrecodeValueError: there are not enough other clauses, or no such output.
        """
        number = integer(output, "output", 0, self.outputs - 1)
        drawn = self._formula.false_clauses(number, integer(seed, "seed", 0, KEY), integer(index, "index", 0, KEY))
        return tuple(tuple(clause) for clause in drawn)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.variables, self._formula.outputs, self.complemented)

    def _key(self) -> tuple[object, ...]:
        return (self.variables, self.complemented, *(self.clauses_of(o) for o in range(self.outputs)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dnf) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        widths = {len(clause) for output in self._formula.outputs for clause in output}
        width = str(widths.pop()) if len(widths) == 1 else f"{min(widths)}..{max(widths)}"
        outputs = f", outputs={self.outputs}" if self.outputs > 1 else ""
        complemented = ", complemented=True" if self.complemented else ""
        counts = [len(output) for output in self._formula.outputs]
        count = "+".join(map(str, counts)) if len(counts) <= 4 else f"{sum(counts)} in all"
        negations = sum(literal < 0 for output in self._formula.outputs for clause in output for literal in clause)
        negated = f", negated literals={negations}" if negations else ""
        return f"Dnf(variables={self.variables}, clauses={count}, width={width}{negated}{outputs}{complemented})"

    def __str__(self) -> str:
        def literal(signed: int) -> str:
            return f"x{signed}" if signed >= 0 else f"¬x{~signed}"

        def formula(output: int) -> str:
            clauses = (" ∧ ".join(map(literal, clause)) for clause in self.clauses_of(output))
            joined = " ∨ ".join(f"({clause})" for clause in clauses)
            return f"¬({joined})" if self.complemented else joined

        return "; ".join(map(formula, range(self.outputs)))


def _rebuild(variables: int, outputs: list[Any], complemented: bool) -> Dnf:
    """A formula from the clauses of each output."""
    return Dnf(outputs, variables, complemented=complemented)


def _listed(clauses: Any) -> list[Any]:
    clauses = plain(clauses)
    if isinstance(clauses, str | bytes) or not isinstance(clauses, Iterable):
        raise PrecodeTypeError(f"clauses must be sequences of integers, not {type(clauses).__name__}")
    return [list(item) if isinstance(item, Iterable) else item for item in map(plain, clauses)]


def _outputs(clauses: Any) -> list[Any]:
    """One sequence of clauses for each output, from either form."""
    items = _listed(clauses)
    deep = bool(items) and all(
        isinstance(item, list) and any(isinstance(plain(inner), Iterable) for inner in item) for item in items
    )
    return items if deep else [items]
