"""A small classifier and its data, and its masks by hand."""

import copy

import torch
from torch import nn


def mlp(*middle):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), *middle, nn.ReLU(), nn.Linear(8, 3))


def data(samples=32):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(samples, 6, generator=generator), torch.randint(3, (samples,), generator=generator)


def snip_by_hand(module, loss, names, density=0.3):
    """Masks of the largest products of weights and gradients, by a sort."""
    network = copy.deepcopy(module)
    loss(network).backward()
    scores = {name: (network.get_parameter(name) * network.get_parameter(name).grad).detach().abs() for name in names}
    flat = torch.cat([score.double().flatten() for score in scores.values()])
    kept = torch.zeros(len(flat), dtype=torch.bool)
    kept[flat.argsort(descending=True, stable=True)[: round(density * len(flat))]] = True
    parts = kept.split([score.numel() for score in scores.values()])
    return {name: part.reshape(scores[name].shape) for name, part in zip(scores, parts, strict=True)}


def assert_same(ticket, masks):
    assert ticket.masks.keys() == masks.keys()
    for name, mask in masks.items():
        assert torch.equal(ticket.masks[name], mask), name
