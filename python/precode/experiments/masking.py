"""Masks that experiments choose themselves: of random weights, and of the largest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

ROUND = 0.8
"""Share of the weights that every round of iterative pruning keeps (arXiv 1803.03635)."""


def random_masks(shape: Sequence[int], density: float, seed: int, indices: Sequence[int]) -> torch.Tensor:
    """Random masks of exactly round(density * weights) weights, one for each formula whatever others there are.

    Example:
        >>> masks = random_masks((4, 8), 0.5, seed=0, indices=[0, 1])
        >>> masks.shape, masks.flatten(1).sum(1).tolist()
        (torch.Size([2, 4, 8]), [16, 16])
    """
    total = int(np.prod(shape))
    masks = np.zeros((len(indices), total), dtype=bool)
    for mask, index in zip(masks, indices, strict=True):
        mask[np.random.default_rng([seed, index, total]).permutation(total)[: round(density * total)]] = True
    return torch.from_numpy(masks.reshape(len(indices), *shape))


def largest(weights: torch.Tensor, count: int) -> torch.Tensor:
    """Masks of the largest weights of every network, exactly `count`, ties to the lowest place, Boolean (R, j, m).

    Example:
        >>> largest(torch.tensor([[[1.0, -3.0], [2.0, 2.0]]]), 2).tolist()
        [[[False, True], [True, False]]]
    """
    order = weights.abs().flatten(1).sort(dim=1, descending=True, stable=True).indices[:, :count]
    masks = torch.zeros(weights.flatten(1).shape, dtype=torch.bool)
    masks.scatter_(1, order, value=True)
    return masks.view(weights.shape)
