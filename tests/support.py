"""What several test files share."""

import torch

from precode import _precode


def start(widths, networks, seed=0, dtype=torch.float64):
    """Layers as `nn.Linear` initializes them."""
    return [
        tuple(tensor.to(dtype) for tensor in layer) for layer in _precode.linear_init(widths, seed, range(networks))
    ]


def weights_of(layers):
    """Layers by the names of `Networks.weights`."""
    names = {}
    for number, (weight, bias) in enumerate(layers, start=1):
        names[f"w{number}"], names[f"b{number}"] = weight, bias
    return names
