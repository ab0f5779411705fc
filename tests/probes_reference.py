"""Independent references of the probes behind a projection, in NumPy, written from their formulas before the code.

One network at a time, in float64, as slow as it is plain. Nothing is shared with the code under test. W (h, m) are the
weights of the first layer, w2 (h,) those of the output, C0 (m, n), S = W C0 and D its motion (h, n); clauses are tuples
of variables.
"""

from __future__ import annotations

import heapq
import itertools

import numpy as np


def in_all(x):
    """Divided by the root mean square of the matrix."""
    return x / np.sqrt((x**2).mean())


def in_rows(x):
    """Divided by the root mean square of each row; a row of zeros stays."""
    size = np.sqrt((x**2).mean(1, keepdims=True))
    return np.divide(x, size, out=np.zeros_like(x), where=size > 0)


def templates(x, w2, clauses):
    """Signs T (C, h, k) and scores (C, h) of every location."""
    scaled = in_rows(x)
    signs, scores = [], []
    for clause in clauses:
        values = scaled[:, list(clause)]
        wanted = np.ones_like(values)
        negative = w2 <= 0
        wanted[negative] = -1
        wanted[negative, values[negative].argmax(1)] = 1
        signs.append(wanted)
        scores.append(np.clip(wanted * values, -1, 0.5).mean(1))
    return np.array(signs), np.array(scores)


def chosen(x, w2, clauses, count):
    """The best locations as (row, weight, clause, signs)."""
    signs, scores = templates(x, w2, clauses)
    order = np.argsort(-scores.ravel(), kind="stable")[:count]
    least = scores.ravel()[order[-1]]
    found = []
    for place in order:
        clause, row = divmod(int(place), len(w2))
        weight = 1 / (1 + np.exp(-(scores[clause, row] - least) / 0.1))
        found.append((row, weight, clauses[clause], signs[clause, row]))
    return found


def target(found, c0, rows):
    v = np.zeros((rows, len(c0)))
    for row, weight, clause, signs in found:
        v[row] += weight * c0[:, list(clause)] @ signs
    return v


def target_static(w, w2, s, d, c0, clauses, count):
    return abs(in_rows(w) + in_rows(target(chosen(s, w2, clauses, count), c0, len(w))))


def target_motion(w, w2, s, d, c0, clauses, count):
    return abs(in_rows(w) + in_rows(target(chosen(d, w2, clauses, count), c0, len(w))))


def target_combined(w, w2, s, d, c0, clauses, count):
    v = target(chosen(in_rows(s) + in_rows(d), w2, clauses, count), c0, len(w))
    return abs(in_all(w) + 0.5 * in_all(v)) * abs(w2)[:, None]


def together(rows):
    """One order over rows of (weight, cost) sequences: always the row goes on whose next cost is least."""
    heap = [(costs[0][1], -row, 0) for row, costs in enumerate(rows)]
    heapq.heapify(heap)
    ranks = np.zeros((len(rows), len(rows[0])))
    for rank in range(ranks.size):
        _, row, place = heapq.heappop(heap)
        ranks[-row, rows[-row][place][0]] = rank
        if place + 1 < len(rows[-row]):
            heapq.heappush(heap, (rows[-row][place + 1][1], row, place + 1))
    return ranks


def sign_keeping(w, w2, s, d, c0, clauses, count):
    found = chosen(s, w2, clauses, count)
    rows = []
    for row in range(len(w)):
        wanted = [(v, t) for at, _, clause, signs in found if at == row for v, t in zip(clause, signs, strict=True)]
        scale = np.sqrt((s[row] ** 2).mean())
        left, costs = list(range(w.shape[1])), []
        while left:

            def cost(gone, left=left, row=row, wanted=wanted, scale=scale):
                kept = [i for i in left if i != gone]
                features = w[row, kept] @ c0[kept]
                lost = sum(max(0, 0.3 - t * features[v] / scale) / 0.3 for v, t in wanted)
                return lost + 0.001 * abs(w[row, gone]) / abs(w).max()

            gone = min(left, key=cost)
            costs.append((gone, cost(gone)))
            left = [i for i in left if i != gone]
        rows.append(costs)
    return together(rows)


def exact_removal(w, hessians):
    """Layer-wise OBS with a Hessian of each row."""
    rows = []
    for weights, hessian in zip(w, hessians, strict=True):
        left, costs, now = list(range(len(weights))), [], weights.copy()
        while left:
            inverse = np.linalg.inv(hessian[np.ix_(left, left)])
            losses = now[left] ** 2 / inverse.diagonal()
            place = int(losses.argmin())
            costs.append((left[place], losses[place]))
            now[left] -= now[left[place]] / inverse[place, place] * inverse[:, place]
            now[left[place]] = 0
            del left[place]
        rows.append(costs)
    return together(rows)


def obs_codes(w, w2, s, d, c0, clauses, count, moments):
    found = chosen(in_rows(s) + in_rows(d), w2, clauses, count)
    codes = np.zeros((len(w), *moments.shape))
    for row, _, clause, _ in found:
        columns = c0[:, list(clause)]
        codes[row] += columns @ columns.T
    scale = np.trace(codes, axis1=1, axis2=2).mean() / len(moments)
    both = codes / scale + moments / (np.trace(moments) / len(moments))
    eye = np.eye(len(moments))
    return exact_removal(w, [hessian + 0.01 * np.trace(hessian) / len(eye) * eye for hessian in both])


def gauss_newton(w1, b1, w2, b2, z):
    """Over (W1, b1, w2, b2), for inputs z (N, m) of W1."""
    hidden = np.maximum(z @ w1.T + b1, 0)
    share = 1 / (1 + np.exp(-(hidden @ w2 + b2)))
    through = (hidden > 0) * w2
    rows = np.concatenate(
        [(through[:, :, None] * z[:, None]).reshape(len(z), -1), through, hidden, np.ones((len(z), 1))], 1
    )
    return (rows * (share * (1 - share))[:, None]).T @ rows / len(z)


def pruned_exactly(parameters, alive, hessian, keep):
    """OBS of the first `len(alive)` parameters down to `keep`; the others make up. Parameters and what is alive."""
    now, alive = parameters.copy(), alive.copy()
    first = len(alive)
    entries = np.r_[np.flatnonzero(alive), first : len(now)]
    matrix = hessian[np.ix_(entries, entries)]
    matrix = matrix + 0.1 * np.trace(matrix) / len(matrix) * np.eye(len(matrix))
    while alive.sum() > keep:
        left = [place for place, entry in enumerate(entries) if entry >= first or alive[entry]]
        inverse = np.linalg.inv(matrix[np.ix_(left, left)])
        count = int(alive.sum())
        here = entries[left]
        place = int((now[here[:count]] ** 2 / inverse.diagonal()[:count]).argmin())
        now[here] -= now[here[place]] / inverse[place, place] * inverse[:, place]
        now[here[place]], alive[here[place]] = 0, False
    return now, alive


def told_by_data(x, y, width):
    """Clauses by sequential covering, every set of `width` variables looked at each time.

    x (N, n) and y (N,) are Booleans. The set is taken that is least likely by Chernoff's bound, while the inverse of
    that exceeds 20 times the number of sets; then its True samples are taken out.
    """
    sets = list(itertools.combinations(range(x.shape[1]), width))
    has = np.array([x[:, list(chosen)].all(1) for chosen in sets])
    left, found = np.ones(len(y), bool), []
    while True:
        share = y[left].mean() if left.any() else 1.0
        if share in (0.0, 1.0):
            return found
        counts, trues = (has & left).sum(1), (has & left & y).sum(1)
        exponents = np.zeros(len(sets))
        for place, (count, true) in enumerate(zip(counts, trues, strict=True)):
            if count and true / count > share:
                q = true / count
                wrong = (1 - q) * np.log((1 - q) / (1 - share)) if q < 1 else 0.0
                exponents[place] = count * (q * np.log(q / share) + wrong)
        best = int(exponents.argmax())
        if exponents[best] <= np.log(20 * len(sets)):
            return found
        found.append(sets[best])
        left &= ~(has[best] & y)
