"""The compiled extension. Private: the public API with its documentation is the package `precode`."""

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict, final, type_check_only

import numpy as np
import torch
from numpy.typing import NDArray

from precode.formulas.samplers import Sampler
from precode.modules.objective import ModuleObjective
from precode.networks.training import TrainSettings

__all__ = [
    "MOST_REMOVED_TOGETHER",
    "MOST_SPARSEGPT_INPUTS",
    "TORCH_VERSION",
    "VERSION",
    "Formula",
    "Samples",
    "arrays_from_bytes",
    "arrays_to_bytes",
    "best_weights",
    "channels",
    "code_distance_counts",
    "code_distances",
    "conflicts",
    "controls",
    "crowding",
    "distances",
    "embedding_matrix",
    "epoch_order",
    "evaluate",
    "feature_capacity",
    "find_module_ticket",
    "find_stack_tickets",
    "hamming_probabilities",
    "linear_init",
    "liveness",
    "load_ticket",
    "mean_row_cosine",
    "memory_needed",
    "methods",
    "nearest_codes",
    "pattern_counts",
    "pattern_name",
    "permute_rows",
    "projection_init",
    "random_signs",
    "recovery",
    "sample_all",
    "save_ticket",
    "signs",
    "templates",
    "train",
    "zero_pruned",
]

MOST_REMOVED_TOGETHER: int
MOST_SPARSEGPT_INPUTS: int
TORCH_VERSION: str
VERSION: str

_Layers = Sequence[tuple[torch.Tensor, torch.Tensor]]
_Networks = tuple[NDArray[Any], NDArray[Any]]
_Sets = list[list[list[int]]]
_Array = tuple[str, str, Sequence[int], bytes]
_Embedding = str | NDArray[np.float32] | tuple[torch.Tensor, bool]

@type_check_only
class Outcome(TypedDict):
    weights: list[tuple[torch.Tensor, torch.Tensor]]
    snapshots: list[list[tuple[torch.Tensor, torch.Tensor]]]
    c0: torch.Tensor | None
    c0_snapshots: list[torch.Tensor | None]
    train_loss: NDArray[np.float64]
    train_error: NDArray[np.float64]
    validation_loss: NDArray[np.float64]
    epochs_run: list[int]
    engine: str
    reason: str

@type_check_only
class Tickets(TypedDict):
    parameters: list[str]
    prunable: list[str]
    masks: list[list[torch.Tensor]]
    start: list[list[torch.Tensor]] | None
    start_epoch: int
    scores: list[list[torch.Tensor]] | None
    gradients: list[float]
    epochs: list[list[float]]
    notes: dict[str, NDArray[np.float64]]

@type_check_only
class Method(TypedDict):
    name: str
    title: str
    needs_data: bool
    needs_gradients: bool
    needs_dense_run: bool
    needs_clauses: bool
    needs_clauses_in_data: bool
    needs_pair: bool
    schedule: str
    cost: str
    nested: bool
    early: bool
    reads_at: int | None
    rewinds: bool
    random: bool
    features: bool
    reference: str
    deviations: str

@type_check_only
class Control(TypedDict):
    name: str
    title: str

@final
class Formula:
    def __new__(cls, variables: int, outputs: Sequence[Sequence[Sequence[int]]], complemented: bool) -> Formula: ...
    @staticmethod
    def random_bytes(variables: int, outputs: int, clauses: int, width: int, negated: int, disjoint: bool) -> int: ...
    @staticmethod
    def random(
        variables: int,
        outputs: int,
        clauses: int,
        width: int,
        negated: int,
        disjoint: bool,
        seed: int,
        index: int,
    ) -> Formula: ...
    @property
    def variables(self) -> int: ...
    @property
    def outputs(self) -> list[list[list[int]]]: ...
    @property
    def complemented(self) -> bool: ...
    def false_clauses(self, output: int, seed: int, index: int) -> list[list[int]]: ...
    def labels(self, x: NDArray[np.bool_]) -> NDArray[np.bool_]: ...

@final
class Samples:
    def __new__(cls, x: NDArray[np.bool_], y: NDArray[np.bool_]) -> Samples: ...
    @property
    def samples(self) -> int: ...
    @property
    def variables(self) -> int: ...
    @property
    def outputs(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    def inputs(self) -> NDArray[np.uint8]: ...
    def labels(self) -> NDArray[np.uint8]: ...

def sample_all(
    formulas: Sequence[Formula],
    sampler: Sampler,
    samples: int,
    seed: int,
    indices: Sequence[int],
    purpose: Literal["train", "validation", "test"],
) -> list[Samples]: ...
def linear_init(
    widths: Sequence[int], seed: int, indices: Sequence[int]
) -> list[tuple[torch.Tensor, torch.Tensor]]: ...
def projection_init(rows: int, variables: int, seed: int, indices: Sequence[int]) -> torch.Tensor: ...
def train(
    start: _Layers,
    data: Sequence[Samples],
    validation: Sequence[Samples],
    embedding: _Embedding,
    embedding_seed: int,
    masks: Sequence[NDArray[np.bool_] | None] | None,
    settings: TrainSettings,
    engine: str,
    progress: Callable[[int], None] | None,
) -> Outcome: ...
def memory_needed(
    widths: Sequence[int],
    projection: int,
    networks: int,
    variables: int,
    samples: tuple[int, int],
    drawn: tuple[int, int],
    settings: TrainSettings,
    engine: str,
    kind: str,
    on_cpu: bool,
) -> int: ...
def evaluate(
    stack: _Layers,
    data: Sequence[Samples],
    embedding: _Embedding,
    embedding_seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
def methods() -> list[Method]: ...
def controls() -> list[Control]: ...
def find_module_ticket(
    objective: ModuleObjective,
    clauses: list[list[int]] | None,
    complemented: bool,
    method: str,
    density: float,
    granularity: str,
    scope: str,
    at: int | None,
    seed: int,
) -> Tickets: ...
def find_stack_tickets(
    start: _Layers,
    dense: tuple[_Layers, torch.Tensor | None, Sequence[float]] | None,
    snapshots: Sequence[tuple[int, _Layers, torch.Tensor | None]],
    data: Sequence[Samples],
    validation: Sequence[Samples],
    embedding: _Embedding,
    embedding_seed: int,
    holds_projection: bool,
    clauses: _Sets | None,
    complemented: Sequence[bool],
    output: int,
    settings: TrainSettings,
    engine: str,
    prunable: str,
    method: str,
    densities: Sequence[float],
    granularity: str,
    scope: str,
    at: int | None,
    rewind: int,
    seed: int,
    streams: Sequence[int],
    progress: Callable[[int], None] | None,
) -> Tickets: ...
def recovery(
    dense: _Networks, sparse: _Networks, alive: NDArray[np.bool_], sets: _Sets, templates: Sequence[str], floor: float
) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32]]: ...
def liveness(alive: NDArray[np.bool_], outputs: NDArray[np.bool_]) -> NDArray[np.uint32]: ...
def epoch_order(seed: int, epoch: int, samples: int) -> NDArray[np.uint32]: ...
def embedding_matrix(kind: str, variables: int, seed: int) -> NDArray[np.float32]: ...
def signs(networks: _Networks, sets: _Sets, aligned: bool, floor: float) -> NDArray[np.int8]: ...
def pattern_counts(networks: _Networks, sets: _Sets, aligned: bool, floor: float) -> NDArray[np.uint32]: ...
def channels(networks: _Networks, sets: _Sets, template: str, floor: float) -> NDArray[np.bool_]: ...
def distances(
    networks: _Networks, sets: _Sets, template: str, metric: str, scale: str, polarity: str
) -> NDArray[np.float64]: ...
def crowding(
    networks: _Networks, sets: _Sets, template: str, near: int, scale: str
) -> tuple[NDArray[np.uint32], NDArray[np.float64], NDArray[np.uint32]]: ...
def conflicts(networks: _Networks, sets: _Sets, templates: Sequence[str], near: int) -> NDArray[np.uint32]: ...
def feature_capacity(networks: _Networks) -> NDArray[np.float64]: ...
def mean_row_cosine(networks: _Networks) -> NDArray[np.float64]: ...
def random_signs(networks: _Networks, floor: float, seed: int, index: int) -> NDArray[np.float32]: ...
def permute_rows(
    channels: NDArray[np.bool_], output: NDArray[np.float64], seed: int, index: int
) -> NDArray[np.bool_]: ...
def hamming_probabilities(template: str, width: int) -> list[float]: ...
def pattern_name(positives: int, negatives: int) -> str: ...
def templates(width: int) -> list[str]: ...
def code_distances(a: NDArray[Any], b: NDArray[Any] | None, metric: str) -> tuple[NDArray[Any], str]: ...
def nearest_codes(
    a: NDArray[Any], b: NDArray[Any] | None, metric: str
) -> tuple[NDArray[np.uint32], NDArray[np.float32]]: ...
def code_distance_counts(a: NDArray[Any], b: NDArray[Any] | None, metric: str) -> NDArray[np.uint64]: ...
def save_ticket(path: str | os.PathLike[str], tensors: Sequence[tuple[str, torch.Tensor]], about: str) -> None: ...
def load_ticket(path: str | os.PathLike[str]) -> tuple[list[tuple[str, torch.Tensor]], str]: ...
def arrays_to_bytes(arrays: Sequence[_Array]) -> bytes: ...
def arrays_from_bytes(bytes: bytes) -> list[_Array]: ...
def best_weights(
    scores: Sequence[torch.Tensor], density: float, alive: Sequence[torch.Tensor] | None
) -> list[torch.Tensor]: ...
def zero_pruned(values: torch.Tensor, kept: torch.Tensor, threads: int) -> None: ...
