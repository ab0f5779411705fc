"""Independent brute-force reference for the tests: plain NumPy and PyTorch, straight from the definitions.

One network at a time. ``c1`` (j, n) is the first layer in feature space and ``w2`` (j,) the output weights.
A formula is a list of clauses and a clause a list of signed literals: ``v >= 0`` is the variable v, ``~v``
its negation. A clause's *aligned* value at a row is the row's weight on the variable, times -1 at ``~v``.
Nothing here is meant to be fast and nothing here is shared with the code under test.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Clauses = Sequence[Sequence[int]]
Layer = tuple[torch.Tensor, torch.Tensor]
Layers = list[Layer]


def variable(literal: int) -> int:
    """The variable of a signed literal."""
    return ~int(literal) if literal < 0 else int(literal)


def literal_sign(literal: int) -> int:
    """+1 for a variable, -1 for its negation."""
    return -1 if literal < 0 else 1


def parse_template(template: str) -> tuple[int, int]:
    """(positive signs, negative signs) of a name such as ``4P`` or ``3N1P``."""
    if re.fullmatch(r"(\d+[PN]){1,2}", template) is None:
        raise ValueError(f"not a template: {template!r}")
    counts = {"P": 0, "N": 0}
    for number, letter in re.findall(r"(\d+)([PN])", template):
        counts[letter] += int(number)
    return counts["P"], counts["N"]


def template_polarity(template: str) -> int:
    """+1 (rows with w2 > 0) if all signs are positive, else -1 (rows with w2 < 0)."""
    return 1 if parse_template(template)[1] == 0 else -1


def placements(template: str) -> list[Ints]:
    """Every distinct order of the template's signs, each a vector (k,) of -1/+1."""
    positive, negative = parse_template(template)
    orders = set(itertools.permutations([1] * positive + [-1] * negative))
    return [np.array(order, dtype=np.int64) for order in sorted(orders)]


def polarity_rows(w2: ArrayLike, template: str) -> Bools:
    """(j,) rows whose output weight has the template's sign; a zero output weight has neither."""
    return np.sign(np.asarray(w2, dtype=np.float64)) == template_polarity(template)


def clause_values(c1: ArrayLike, clauses: Clauses, aligned: bool = True) -> Floats:
    """(C, j, k) weights of every row on every clause's variables."""
    weights = np.asarray(c1, dtype=np.float64)
    out = np.zeros((len(clauses), weights.shape[0], len(clauses[0])))
    for c, clause in enumerate(clauses):
        for i, literal in enumerate(clause):
            out[c, :, i] = weights[:, variable(literal)] * (literal_sign(literal) if aligned else 1)
    return out


def row_scale(c1: ArrayLike, scale: str) -> Floats:
    """(j,) the divisor of each row; a divisor of 0 becomes 1."""
    size = np.abs(np.asarray(c1, dtype=np.float64))
    rows = size.shape[0]
    if scale == "row":
        out = size.mean(axis=1)
    elif scale == "layer":
        out = np.full(rows, size.mean())
    elif scale == "none":
        out = np.ones(rows)
    else:
        raise ValueError(f"unknown scale: {scale!r}")
    return np.where(out == 0.0, 1.0, out)


def signs(c1: ArrayLike, clauses: Clauses, aligned: bool, floor: float = 0.0) -> Ints:
    """(C, j, k) signs -1/0/+1; a value of size at most ``floor`` counts as 0."""
    values = clause_values(c1, clauses, aligned)
    out = np.sign(values).astype(np.int64)
    out[np.abs(values) <= floor] = 0
    return out


def pattern_counts(c1: ArrayLike, w2: ArrayLike, clauses: Clauses, aligned: bool = True, floor: float = 0.0) -> Ints:
    """(C, 2, k+1) rows by polarity (0: w2 > 0, 1: w2 < 0) and number of positive signs, no sign being 0."""
    s = signs(c1, clauses, aligned, floor)
    output = np.asarray(w2, dtype=np.float64)
    clause_count, rows, width = s.shape
    out = np.zeros((clause_count, 2, width + 1), dtype=np.int64)
    for c in range(clause_count):
        for r in range(rows):
            if output[r] != 0 and np.all(s[c, r] != 0):
                out[c, 0 if output[r] > 0 else 1, int(np.sum(s[c, r] > 0))] += 1
    return out


def channels(c1: ArrayLike, w2: ArrayLike, clauses: Clauses, template: str, floor: float = 0.0) -> Bools:
    """(C, j) whether the row has the template's polarity and, in any placement, its aligned signs."""
    s = signs(c1, clauses, True, floor)
    out = np.zeros(s.shape[:2], dtype=np.bool_)
    for t in placements(template):
        out |= np.all(s == t, axis=2)
    return out & polarity_rows(w2, template)


def overlap(codes: ArrayLike) -> Ints:
    """(C, C) rows shared by two codes; the diagonal holds the code sizes."""
    return code_distance(codes, "overlap").astype(np.int64)


def code_distance(bits: ArrayLike, metric: str) -> Floats:
    """(C, C) hamming, jaccard (0 for two empty codes) or overlap (number of shared rows) of all pairs."""
    codes = np.asarray(bits, dtype=np.bool_)
    count = codes.shape[0]
    out = np.zeros((count, count))
    for a, b in itertools.product(range(count), repeat=2):
        shared = int(np.sum(codes[a] & codes[b]))
        union = int(np.sum(codes[a] | codes[b]))
        if metric == "hamming":
            out[a, b] = union - shared
        elif metric == "jaccard":
            out[a, b] = 1.0 - shared / union if union else 0.0
        elif metric == "overlap":
            out[a, b] = shared
        else:
            raise ValueError(f"unknown metric: {metric!r}")
    return out


def placed_distance(c: Floats, t: Ints, metric: str, scale: float) -> float:
    """Distance of the aligned values ``c`` (k,) of one row to one placement ``t`` (k,)."""
    if metric == "hamming":
        return float(sum(int(np.sign(value)) != sign for value, sign in zip(c, t, strict=True)))
    if metric == "soft":
        return float(sum(max(0.0, -sign * value) for value, sign in zip(c, t, strict=True))) / scale
    if metric == "margin":
        return -float(np.min(t * c)) / scale
    if metric == "cosine":
        norm = float(np.linalg.norm(c) * np.linalg.norm(t))
        return 1.0 if norm == 0.0 else 1.0 - float(np.sum(c * t)) / norm
    if metric == "signed_sum":
        return -float(np.sum(t * c)) / scale
    raise ValueError(f"unknown metric: {metric!r}")


def distance(
    c1: ArrayLike,
    w2: ArrayLike,
    clauses: Clauses,
    template: str,
    metric: str = "hamming",
    scale: str = "row",
    polarity: str = "ignore",
) -> Floats:
    """(C, j) distance to the nearest placement; polarity: ignore, add (+1) or require (inf)."""
    if polarity not in ("ignore", "add", "require"):
        raise ValueError(f"unknown polarity rule: {polarity!r}")
    values = clause_values(c1, clauses)
    divisor = row_scale(c1, scale)
    choices = placements(template)
    out = np.zeros(values.shape[:2])
    for c, r in np.ndindex(*out.shape):
        out[c, r] = min(placed_distance(values[c, r], t, metric, float(divisor[r])) for t in choices)
    lacks = ~polarity_rows(w2, template)
    if polarity == "add":
        out[:, lacks] += 1.0
    elif polarity == "require":
        out[:, lacks] = np.inf
    return out


def hamming_probabilities(template: str) -> Floats:
    """(k+1,) probability of each hamming distance to the template for k fair random signs, by enumeration."""
    choices = placements(template)
    width = len(choices[0])
    counts = np.zeros(width + 1)
    for s in itertools.product((-1, 1), repeat=width):
        counts[min(int(np.sum(np.array(s) != t)) for t in choices)] += 1
    return counts / 2.0**width


def crowding(
    c1: ArrayLike, w2: ArrayLike, clauses: Clauses, template: str, near: float = 1, scale: str = "row"
) -> dict[str, NDArray]:
    """Demand on each row by the other clauses: near (C, j), graded (C, j), positive_entries (j,)."""
    hamming = distance(c1, w2, clauses, template, "hamming", "none", "require")
    signed = distance(c1, w2, clauses, template, "signed_sum", scale, "ignore")
    near_count = np.zeros(hamming.shape, dtype=np.int64)
    graded = np.zeros(hamming.shape)
    for c, other in itertools.permutations(range(len(clauses)), 2):
        near_count[c] += hamming[other] <= near
        graded[c] += np.maximum(0.0, -signed[other])
    positive = np.sum(np.asarray(c1, dtype=np.float64) > 0, axis=1)
    return {"near": near_count, "graded": graded, "positive_entries": positive}


def conflicts(c1: ArrayLike, w2: ArrayLike, clauses: Clauses, templates: Sequence[str], near: float = 1) -> Ints:
    """(C, j) shared variables on which other clauses' near locations want the opposite sign of the weight."""
    values = clause_values(c1, clauses)
    output = np.asarray(w2, dtype=np.float64)
    clause_count, rows, _ = values.shape
    out = np.zeros((clause_count, rows), dtype=np.int64)
    for r in range(rows):
        fitting = [t for t in templates if np.sign(output[r]) == template_polarity(t)]
        if not fitting:
            continue
        wanted: list[dict[int, int]] = []  # per clause: variable -> sign wanted of its weight
        hamming: list[float] = []
        for c, clause in enumerate(clauses):
            value = values[c, r]
            nearest = [min(placed_distance(value, t, "hamming", 1) for t in placements(n)) for n in fitting]
            best = nearest.index(min(nearest))
            largest = np.argsort(-value, kind="stable")[: parse_template(fitting[best])[0]]
            wanted.append({variable(v): (1 if i in largest else -1) * literal_sign(v) for i, v in enumerate(clause)})
            hamming.append(nearest[best])
        for c, other in itertools.permutations(range(clause_count), 2):
            if hamming[other] <= near:
                shared = wanted[c].keys() & wanted[other].keys()
                out[c, r] += sum(wanted[c][v] != wanted[other][v] for v in shared)
    return out


def feature_capacity(c1: ArrayLike) -> Floats:
    """(n,) (c_i . c_i)^2 / sum_j (c_i . c_j)^2 over the columns; 0 for a column of zeros."""
    weights = np.asarray(c1, dtype=np.float64)
    n = weights.shape[1]
    out = np.zeros(n)
    for i in range(n):
        products = [float(np.sum(weights[:, i] * weights[:, j])) for j in range(n)]
        total = sum(p * p for p in products)
        out[i] = products[i] ** 2 / total if total > 0 else 0.0
    return out


def mean_row_cosine(c1: ArrayLike) -> float:
    """Mean cosine over unordered pairs of rows, rows of zeros left out; 0 with fewer than two rows."""
    rows = [row for row in np.asarray(c1, dtype=np.float64) if np.any(row != 0)]
    cosines = [
        float(np.sum(a * b) / (np.linalg.norm(a) * np.linalg.norm(b))) for a, b in itertools.combinations(rows, 2)
    ]
    return sum(cosines) / len(cosines) if cosines else 0.0


def label(x: ArrayLike, outputs: Sequence[Clauses], complemented: bool | Sequence[bool] = False) -> Bools:
    """(N, o) value of each output's DNF at each input, negated where ``complemented``."""
    inputs = np.asarray(x, dtype=np.bool_)
    flip = [complemented] * len(outputs) if isinstance(complemented, bool) else list(complemented)
    out = np.zeros((inputs.shape[0], len(outputs)), dtype=np.bool_)
    for i, row in enumerate(inputs):
        for o, clauses in enumerate(outputs):
            value = any(all(bool(row[variable(v)]) == (v >= 0) for v in clause) for clause in clauses)
            out[i, o] = value != bool(flip[o])
    return out


def embedding(kind: str, n: int) -> Floats:
    """(m, n) input embedding: identity, hadamard (divided by sqrt(m)) or hadamard-raw (entries -1/+1)."""
    if kind == "identity":
        return np.eye(n)
    if kind not in ("hadamard", "hadamard-raw"):
        raise ValueError(f"unknown embedding: {kind!r}")
    matrix = np.ones((1, 1))
    while matrix.shape[0] < n:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    m = matrix.shape[0]
    return matrix[:, :n] / (math.sqrt(m) if kind == "hadamard" else 1.0)


def train(
    weights: Sequence[Layer],
    x: ArrayLike,
    y: ArrayLike,
    orders: Sequence[ArrayLike],
    optimizer: str = "adam",
    lr: float = 1e-3,
    *,
    momentum: float = 0.9,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    embedding: ArrayLike | None = None,
    masks: Sequence[torch.Tensor | None] | None = None,
    batch: int = 64,
    dtype: torch.dtype = torch.float64,
    every_step: bool = False,
) -> tuple[Layers, list[Layers], list[float], list[float]]:
    """Train one network; returns (final layers, layers per step, loss per epoch, error rate per epoch).

    Layers are (W, b) with W (out, in); ``masks`` holds one tensor (or None) per layer for W. The layers after
    each step are an empty list unless ``every_step``. An output is in error when (logit > 0) differs from y.
    """
    inputs = torch.tensor(np.asarray(x, dtype=np.float64), dtype=dtype)
    targets = torch.tensor(np.asarray(y, dtype=np.float64), dtype=dtype)
    if embedding is not None:
        inputs = inputs @ torch.tensor(np.asarray(embedding, dtype=np.float64), dtype=dtype).T
    keep = [None if m is None else torch.as_tensor(m).to(dtype) for m in masks or [None] * len(weights)]
    layers: Layers = []
    for (w, b), m in zip(weights, keep, strict=True):
        start = w.detach().clone().to(dtype)
        start = start if m is None else start * m
        layers.append((start.requires_grad_(), b.detach().clone().to(dtype).requires_grad_()))
    parameters = [p for layer in layers for p in layer]
    rule: torch.optim.Optimizer
    if optimizer == "adam":
        rule = torch.optim.Adam(parameters, lr, betas, eps, weight_decay, foreach=False)
    elif optimizer == "adamw":
        rule = torch.optim.AdamW(parameters, lr, betas, eps, weight_decay, foreach=False)
    elif optimizer == "sgd":
        rule = torch.optim.SGD(parameters, lr, momentum, weight_decay=weight_decay, foreach=False)
    else:
        raise ValueError(f"unknown optimizer: {optimizer!r}")
    steps: list[Layers] = []
    losses: list[float] = []
    errors: list[float] = []
    for order in orders:
        index = torch.tensor(np.asarray(order, dtype=np.int64))
        loss_sum, error_sum = 0.0, 0.0
        for first in range(0, len(index), batch):
            rows = index[first : first + batch]
            hidden = inputs[rows]
            for depth, (w, b) in enumerate(layers):
                hidden = hidden @ w.T + b
                if depth + 1 < len(layers):
                    hidden = torch.relu(hidden)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(hidden, targets[rows])
            loss_sum += loss.item() * len(rows)
            error_sum += ((hidden > 0) != (targets[rows] > 0.5)).double().mean().item() * len(rows)
            rule.zero_grad()
            loss.backward()
            for (w, _), m in zip(layers, keep, strict=True):
                if m is not None and w.grad is not None:
                    w.grad.mul_(m)
            rule.step()
            with torch.no_grad():
                for (w, _), m in zip(layers, keep, strict=True):
                    if m is not None:
                        w[m == 0] = 0.0
            if every_step:
                steps.append([(w.detach().clone(), b.detach().clone()) for w, b in layers])
        losses.append(loss_sum / len(index))
        errors.append(error_sum / len(index))
    return [(w.detach().clone(), b.detach().clone()) for w, b in layers], steps, losses, errors


def early_stopping_epochs(losses: Sequence[float], patience: int, min_delta: float = 0.0) -> int:
    """Epochs run when training stops at the patience-th epoch in a row without loss < best - min_delta."""
    best, waited = math.inf, 0
    for epoch, loss in enumerate(losses, start=1):
        if loss < best - min_delta:
            best, waited = loss, 0
        else:
            waited += 1
            if waited >= patience:
                return epoch
    return len(losses)
