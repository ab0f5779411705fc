"""Sparse autoencoders of hidden activations, plain and gated, trained for several penalties side by side.

Plain, as in Bricken et al., Towards Monosemanticity (2023): x' = D f + b, f = relu(E (x - b) + c), loss |x - x'|^2 +
penalty |f|_1, columns of D of unit length (restored after each step, ours). Gated: arXiv 2404.16014, equations 5 to 8:
a feature is active where its gate is positive, and has a magnitude of its own; gates are penalised, and must
reconstruct as well, through a decoder that this part of the loss leaves alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.nn import functional

from precode._internal.errors import PrecodeValueError
from precode._internal.threads import one_thread

Dictionary = Mapping[str, torch.Tensor]
"""Of P dictionaries with K features of j numbers: encoder (P, K, j), gate and bias (P, K), decoder (P, j, K) and center
(P, j); gated ones have a scale (P, K), the logarithm of what the encoder's rows are stretched by for magnitudes."""

KINDS = ("sparse", "gated")


def begin(
    kind: str, x: torch.Tensor, features: int, penalties: int, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Random unit columns as decoder, its transpose as encoder, the mean activation as center: P times the same.

    Args:
        kind: one of `KINDS`.
        x: activations (samples, j).
        features: K.
        penalties: P.
        generator: what random numbers come from.

    Raises:
        PrecodeValueError: another kind.

    Example:
        >>> start = begin("sparse", torch.ones(5, 3), 4, 2, torch.Generator().manual_seed(0))
        >>> {name: tuple(value.shape) for name, value in start.items()}
        {'encoder': (2, 4, 3), 'bias': (2, 4), 'decoder': (2, 3, 4), 'center': (2, 3)}
    """
    if kind not in KINDS:
        raise PrecodeValueError(f"kind {kind!r}: use one of {', '.join(KINDS)}")
    decoder = functional.normalize(torch.randn(x.shape[1], features, generator=generator), dim=0)
    one = {"encoder": decoder.T, "bias": torch.zeros(features), "decoder": decoder, "center": x.mean(0)}
    if kind == "gated":
        one |= {"gate": torch.zeros(features), "scale": torch.zeros(features)}
    return {name: value.repeat(penalties, *[1] * value.ndim) for name, value in one.items()}


def encode(dictionary: Dictionary, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of activations, and what is penalised of them.

    Args:
        dictionary: see `Dictionary`.
        x: (samples, j), or (P, samples, j).

    Returns:
        Features and penalised parts, (P, samples, K) each, not negative; the same of plain dictionaries.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        >>> start = begin("gated", x, 2, 1, torch.Generator().manual_seed(0))
        >>> features, gates = encode(start, x)
        >>> bool((features == gates).all()), features.shape
        (True, torch.Size([1, 2, 2]))
    """
    projected = (x - dictionary["center"][:, None]) @ dictionary["encoder"].transpose(1, 2)
    if "gate" not in dictionary:
        features = functional.relu(projected + dictionary["bias"][:, None])
        return features, features
    gates = projected + dictionary["gate"][:, None]
    magnitudes = functional.relu(projected * dictionary["scale"].exp()[:, None] + dictionary["bias"][:, None])
    return magnitudes * (gates > 0), functional.relu(gates)


def decode(dictionary: Dictionary, features: torch.Tensor, *, frozen: bool = False) -> torch.Tensor:
    """Activations (P, samples, j) from features; `frozen` keeps gradients from the decoder and the center."""
    decoder, center = dictionary["decoder"], dictionary["center"]
    if frozen:
        decoder, center = decoder.detach(), center.detach()
    return features @ decoder.transpose(1, 2) + center[:, None]


def losses(dictionary: Dictionary, x: torch.Tensor, penalties: torch.Tensor) -> torch.Tensor:
    """The loss of each dictionary, (P,): means over samples; see the module for the formulas.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        >>> start = begin("sparse", x, 2, 1, torch.Generator().manual_seed(0))
        >>> losses(start, x, torch.tensor([0.0])).shape
        torch.Size([1])
    """
    features, penalised = encode(dictionary, x)
    squares = ((decode(dictionary, features) - x) ** 2).sum(-1)
    if "gate" in dictionary:
        squares = squares + ((decode(dictionary, penalised, frozen=True) - x) ** 2).sum(-1)
    return (squares + penalties[:, None] * penalised.sum(-1)).mean(-1)


def learn(
    kind: str,
    x: torch.Tensor,
    penalties: Sequence[float],
    *,
    features: int,
    steps: int,
    batch: int,
    lr: float,
    seed: int,
) -> dict[str, torch.Tensor]:
    """Dictionaries of activations by Adam, one for each penalty, each as if it were alone.

    Args:
        kind: one of `KINDS`.
        x: activations (samples, j), float32; learned at a scale at which the mean of their squared lengths is j.
        penalties: of the sum of features.
        features: K.
        steps: of Adam.
        batch: samples a step, drawn with replacement.
        lr: learning rate.
        seed: of the start and the samples.

    Returns:
        A `Dictionary` of activations at the scale of x.

    Example:
        >>> x = torch.rand(100, 3, generator=torch.Generator().manual_seed(0))
        >>> found = learn("gated", x, [0.1, 1.0], features=4, steps=20, batch=16, lr=1e-3, seed=0)
        >>> found["decoder"].shape, [round(length, 3) for length in found["decoder"][0].norm(dim=0).tolist()]
        (torch.Size([2, 3, 4]), [1.0, 1.0, 1.0, 1.0])
    """
    generator = torch.Generator().manual_seed(seed)
    scale = (x.shape[1] / x.square().sum(1).mean().clamp_min(1e-12)).sqrt()
    x = x * scale
    dictionary = begin(kind, x, features, len(penalties), generator)
    for value in dictionary.values():
        value.requires_grad_()
    optimizer = torch.optim.Adam(dictionary.values(), lr=lr, fused=True)
    weights = torch.tensor(penalties)
    with one_thread():
        for _ in range(steps):
            chosen = torch.randint(len(x), (batch,), generator=generator)
            with torch.enable_grad():
                optimizer.zero_grad()
                losses(dictionary, x[chosen], weights).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            with torch.no_grad():
                dictionary["decoder"].copy_(functional.normalize(dictionary["decoder"], dim=1))
    return _unscaled({name: value.detach() for name, value in dictionary.items()}, scale)


def _unscaled(dictionary: dict[str, torch.Tensor], scale: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same dictionary for activations that are not multiplied by the scale; features are divided by it."""
    divided = ("bias", "gate", "center")
    return {name: value / scale if name in divided else value for name, value in dictionary.items()}
