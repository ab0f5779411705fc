"""What makes a ticket say less than it seems to: scores that do not tell weights apart, layers left empty."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from precode._internal.errors import PrecodeValueError
from precode._internal.parts import parts

Tensors = Mapping[str, torch.Tensor]

MOST_TIED = 0.5
"""Part of the kept weights that may be kept for their place alone."""

SOME_TIED = 0.01
"""The part from which it is said."""


def of_scores(method: str, scores: Tensors, masks: Tensors, *, per_layer: bool) -> list[str]:
    """Doubts about masks that keep the largest scores, in sentences.

    Raises:
        PrecodeValueError: most weights are kept for their place alone, because the scores are equal.
    """
    said = []
    silent = [name for name, score in scores.items() if not any(bool(part.any()) for (part,) in parts(score))]
    ties = kept = 0
    for names in [[name] for name in scores] if per_layer else [list(scores)]:
        pairs = [(scores[name], masks[name].to(scores[name].device)) for name in names]
        count = sum(int(mask.count_nonzero()) for _, mask in pairs)
        if not 0 < count < sum(mask.numel() for _, mask in pairs):
            continue
        of_kept = (part[mask] for pair in pairs for part, mask in parts(*pair) if mask.any())
        least = min(float(part.min()) for part in of_kept)
        kept += count
        equal = [(part == least, mask) for pair in pairs for part, mask in parts(*pair)]
        if any(bool((tied & ~mask).any()) for tied, mask in equal):
            ties += sum(int((tied & mask).sum()) for tied, mask in equal)
    because = f" (every score of {_names(silent)} is zero)" if silent else ""
    if ties > MOST_TIED * kept:
        raise PrecodeValueError(
            f"the scores of {method!r} do not tell the weights apart{because}: {ties} of {kept} kept weights would be "
            "kept for their place alone; look for dead or saturated units, layers that are zero at the start, and "
            "gradients too small for the type of the weights, or use another method"
        )
    if silent:
        said.append(
            f"every score of {_names(silent)} is zero, so that {method!r} says nothing of {_these(silent)} weights: is "
            "a layer after it dead, or zero at the start?"
        )
    if ties > max(1, SOME_TIED * kept):
        said.append(
            f"{ties} of {kept} kept weights are kept for their place alone, because as good ones are pruned: of equal "
            "scores the first are kept"
        )
    return said


def of_inputs(method: str, silent: Tensors, masks: Tensors) -> list[str]:
    """Doubts about masks of scores that are zero for inputs that are always zero, in sentences.

    Args:
        method: its name.
        silent: inputs that are always zero, (groups, inputs), of each layer.
        masks: outputs first.

    Raises:
        PrecodeValueError: most weights are kept for their place alone.
    """
    ties = 0
    for name, mask in masks.items():
        groups, inputs = silent[name].shape
        there = mask.reshape(groups, -1, inputs) & silent[name].to(mask.device)[:, None]
        ties += int(there.sum())
    kept = sum(int(mask.count_nonzero()) for mask in masks.values())
    if not ties or kept == sum(mask.numel() for mask in masks.values()):
        return []
    said = f"{ties} of {kept} kept weights are of inputs that are always zero, of which {method!r} says nothing"
    if ties > MOST_TIED * kept:
        raise PrecodeValueError(
            f"{said}: look for dead units and for data without values, or use another method, such as 'magnitude'"
        )
    return [f"{said}: they are kept for their place alone"] if ties > max(1, SOME_TIED * kept) else []


def of_masks(masks: Tensors) -> list[str]:
    """Doubts about masks whatever the method, in sentences."""
    empty = [name for name, mask in masks.items() if not bool(mask.any())]
    return [f"nothing is kept of {_names(empty)}: use a larger density, or scope='per-layer'"] if empty else []


def of_choice(left_out: Mapping[str, str]) -> list[str]:
    """What is said of weights that cannot be pruned, in sentences."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        by_reason.setdefault(reason, []).append(name)
    return [f"{_names(names)} {_is(names)} left out of pruning, {reason}" for reason, names in by_reason.items()]


def _names(names: list[str], most: int = 5) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"'{name}'" for name in names[:most]) + rest


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _these(names: list[str]) -> str:
    return "its" if len(names) == 1 else "their"
