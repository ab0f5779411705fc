"""Brute-force reference of exact Optimal Brain Surgeon pruning, plus Wanda and SparseGPT (NumPy, float64).

Every mask is True where a weight is kept. Weights are (rows, m): one output per row, one input per column.
Ties are exact float ties only; a tie broken by rounding may fall either way.
"""

import numpy as np


def _second_moment(samples, damping):
    """Mean of the outer products of the rows of `samples`, plus damping * mean(diagonal) * identity."""
    samples = np.asarray(samples, dtype=np.float64)
    moment = samples.T @ samples / len(samples)
    return moment + damping * np.mean(np.diag(moment)) * np.eye(len(moment))


def hessian(inputs, damping):
    """(samples, m) -> (m, m): mean of z z^T over samples, damped relative to its mean diagonal (no factor 2)."""
    return _second_moment(inputs, damping)


def fisher(gradients, damping):
    """(samples, p) -> (p, p): mean of g g^T over samples (empirical Fisher), damped in the same way."""
    return _second_moment(gradients, damping)


def remove_one_by_one(row, h):
    """Remove every weight of `row`, always the cheapest next one: (order (m,), increments (m,)).

    The increment w_q^2 / [H_rem^-1]_qq is exactly the growth of min (w - row)^T h (w - row) over w that are zero
    at the removed indices (no factor 1/2). H_rem, the remaining submatrix, is inverted afresh at every step, so
    `h` must be positive definite: damp it. Ties go to the lowest index.
    """
    w = np.array(row, dtype=np.float64)
    h = np.asarray(h, dtype=np.float64)
    remaining = list(range(len(w)))  # always ascending
    order, increments = [], []
    while remaining:
        inverse = np.linalg.inv(h[np.ix_(remaining, remaining)])
        scores = w[remaining] ** 2 / np.diag(inverse)
        at = int(np.argmin(scores))  # position among the remaining; the first of equals
        order.append(remaining[at])
        increments.append(scores[at])
        w[remaining] -= w[remaining[at]] / inverse[at, at] * inverse[:, at]
        w[remaining[at]] = 0.0
        del remaining[at]
    return np.array(order, dtype=int), np.array(increments, dtype=np.float64)


def mask(weights, h, kept):
    """Bool (rows, m) with exactly `kept` True: always remove from the row whose NEXT increment is least.

    All rows share `h`. Only each row's next increment is looked at (increments within a row need not rise).
    Ties go to the lowest row.
    """
    weights = np.asarray(weights, dtype=np.float64)
    rows, m = weights.shape
    sequences = [remove_one_by_one(row, h) for row in weights]
    removed = [0] * rows  # how many each row has lost
    keep = np.ones((rows, m), dtype=bool)
    for _ in range(rows * m - kept):
        nexts = [sequences[r][1][removed[r]] if removed[r] < m else np.inf for r in range(rows)]
        r = int(np.argmin(nexts))
        keep[r, sequences[r][0][removed[r]]] = False
        removed[r] += 1
    return keep


def mask_of_loss(weights, fisher, kept):
    """Bool (rows, m) with exactly `kept` True: one-by-one removal over the flat (C order) vector of all weights.

    `fisher` is the one (rows*m, rows*m) matrix, already damped.
    """
    weights = np.asarray(weights, dtype=np.float64)
    order, _ = remove_one_by_one(weights.ravel(), fisher)
    keep = np.ones(weights.size, dtype=bool)
    keep[order[: weights.size - kept]] = False
    return keep.reshape(weights.shape)


def wanda(weight, inputs, density):
    """Wanda (arXiv 2306.11695): per row, keep the round-half-even(density * m) largest |w_ij| * ||inputs[:, j]||_2.

    Of equal scores the lowest index is kept.
    """
    weight = np.asarray(weight, dtype=np.float64)
    scores = np.abs(weight) * np.sqrt(np.sum(np.asarray(inputs, dtype=np.float64) ** 2, axis=0))
    keep = np.zeros(weight.shape, dtype=bool)
    for r in range(len(weight)):
        best = np.argsort(-scores[r], kind="stable")[: round(density * weight.shape[1])]
        keep[r, best] = True
    return keep


def sparsegpt(weight, inputs, density, damping, blocksize):
    """Unstructured SparseGPT (arXiv 2301.00774); returns the mask. Choices:

    - U is the upper Cholesky factor with U^T U = H^-1, so U_jj^2 = [(H_{j:, j:})^-1]_jj.
    - Columns go left to right in blocks; the last block may be narrower.
    - On reaching a block, score its current (already updated) weights by w^2 / U_jj^2, over all rows at once, and
      keep exactly round-half-even(density * rows * width) of them (of equals, the first in C order is kept). The
      authors' code thresholds with <=, so it prunes one more per block; and rounding is per block, so the total may
      differ from round(density * rows * m).
    - Each pruned weight's error w / U_jj is propagated to all later columns by U[j, j+1:].
    - Dead inputs (always zero): H_jj = 1 and their weights 0, before damping, as in the authors' code; of them the
      largest are kept first. H has no factor 2 (theirs has; it changes nothing unless inputs are dead).
    """
    w = np.array(weight, dtype=np.float64)
    rows, m = w.shape
    h = hessian(inputs, 0.0)
    dead = np.diag(h) == 0
    h[dead, dead] = 1.0
    w[:, dead] = 0.0
    h = h + damping * np.mean(np.diag(h)) * np.eye(m)
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    keep = np.zeros((rows, m), dtype=bool)
    for start in range(0, m, blocksize):
        stop = min(start + blocksize, m)
        scores = w[:, start:stop] ** 2 / np.diag(upper)[start:stop] ** 2
        chosen = np.zeros(scores.size, dtype=bool)
        size = np.where(dead[start:stop], np.abs(weight)[:, start:stop], 0.0)
        order = np.lexsort((-size.ravel(), -scores.ravel()))
        chosen[order[: round(density * scores.size)]] = True
        keep[:, start:stop] = chosen.reshape(scores.shape)
        for j in range(start, stop):
            error = np.where(keep[:, j], 0.0, w[:, j]) / upper[j, j]
            w[:, j + 1 :] -= np.outer(error, upper[j, j + 1 :])
            w[~keep[:, j], j] = 0.0
    return keep


def _least_loss(row, inputs, damping, remaining):
    """Least damped squared error with only `remaining` free, by lstsq on stacked rows: no Hessian is inverted."""
    n, m = inputs.shape
    ridge = damping * np.mean(inputs**2)  # = damping * mean diagonal of the undamped Hessian
    design = np.vstack([inputs / np.sqrt(n), np.sqrt(ridge) * np.eye(m)])
    target = design @ row
    if not remaining:
        return np.sum(target**2)
    solution = np.linalg.lstsq(design[:, remaining], target, rcond=None)[0]
    return np.sum((target - design[:, remaining] @ solution) ** 2)


def _self_check(problems=20):
    """Increments against lstsq (also: each removal is truly the cheapest), and the masks against each other."""
    worst = 0.0
    for seed in range(problems):
        rng = np.random.default_rng(seed)
        rows, m, n = rng.integers(2, 5), rng.integers(3, 9), rng.integers(4, 40)
        inputs = rng.normal(size=(n, m)) @ rng.normal(size=(m, m))  # correlated; sometimes fewer samples than m
        weights, damping = rng.normal(size=(rows, m)), rng.choice([0.01, 0.1])
        h = hessian(inputs, damping)
        for row in weights:
            order, increments = remove_one_by_one(row, h)
            assert sorted(order) == list(range(m))
            remaining, loss = list(range(m)), 0.0
            for q, increment in zip(order, increments, strict=True):
                losses = {i: _least_loss(row, inputs, damping, [k for k in remaining if k != i]) for i in remaining}
                assert min(losses, key=losses.get) == q
                worst = max(worst, abs(losses[q] - loss - increment) / max(losses[q], 1e-300))
                assert np.isclose(losses[q] - loss, increment, rtol=1e-6, atol=1e-9 * losses[q])
                remaining.remove(q)
                loss = losses[q]
        for kept in range(rows * m + 1):  # rows that share h = one block-diagonal problem
            ours = mask(weights, h, kept)
            assert ours.sum() == kept
            assert np.array_equal(ours, mask_of_loss(weights, np.kron(np.eye(rows), h), kept))
        gradients = rng.normal(size=(n, rows * m))
        assert mask_of_loss(weights, fisher(gradients, damping), rows).sum() == rows
        assert (wanda(weights, inputs, 0.5).sum(axis=1) == round(0.5 * m)).all()
        upper = np.linalg.cholesky(np.linalg.inv(h)).T
        assert np.allclose(np.diag(upper) ** 2, [np.linalg.inv(h[j:, j:])[0, 0] for j in range(m)])
        widths = [min(2, m - start) for start in range(0, m, 2)]
        assert sparsegpt(weights, inputs, 0.4, damping, 2).sum() == sum(round(0.4 * rows * k) for k in widths)
        # Orthogonal inputs: nothing propagates, so one row in one block is Wanda, and OBS agrees.
        inputs = np.diag(rng.uniform(0.5, 2.0, size=m))
        one, few = weights[:1], wanda(weights[:1], inputs, 0.5)
        assert np.array_equal(sparsegpt(one, inputs, 0.5, 0.0, m), few)
        assert np.array_equal(mask(one, hessian(inputs, 0.0), round(0.5 * m)), few)
    # SparseGPT's propagation by hand: H = [[1, .9], [.9, 1]]; pruning column 0 adds .9 * w_0 to column 1.
    inputs = np.sqrt(2.0) * np.linalg.cholesky(np.array([[1.0, 0.9], [0.9, 1.0]])).T
    got = sparsegpt([[1.0, 1.0], [-0.1, 1.5]], inputs, 0.5, 0.0, 1)
    # Column 0: 1 > .1 keeps row 0. Column 1: 1.0 against 1.5 - .09 = 1.41 keeps row 1.
    assert np.array_equal(got, [[True, False], [False, True]])
    got = sparsegpt([[2.0, 1.0], [-1.0, 1.5]], inputs, 0.5, 0.0, 1)  # now 1.0 against 1.5 - .9 = .6
    assert np.array_equal(got, [[True, True], [False, False]])
    print(f"obs_reference: {problems} random problems agree; worst increment error / loss {worst:.1e}")


if __name__ == "__main__":
    _self_check()
