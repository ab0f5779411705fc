"""Makes the figures of README and documentation: `make figures`, or `python docs/figures/make.py [FOLDER]`.

Everything shown is trained and read by precode itself, with the functions that anyone has.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from svg import INK, PALE, Picture, shade, sign

import precode as pc

VARIABLES = 16
ROWS = 16
DENSITY = 0.25
FORMULAS = 10


class Network:
    """One network before and after training, and where the codes of its first clause stand.

    Attributes:
        clause: the four variables of the clause.
        start, end: feature space, (rows, variables).
        positive: whether a row's output weight is positive at the start and at the end, (rows,).
        before, after: wrong signs of each row on the clause, infinite on negative rows, (rows,).
        code: rows that carry the code, (rows,).
    """

    def __init__(self) -> None:
        task = pc.Dnf.random(variables=VARIABLES, clauses=4, width=4, seed=1)
        runs = pc.train([task], hidden=ROWS, seed=1, snapshots=[0])
        self.clause = list(task.clauses[0])
        self.start, self.end = runs.start.weights["w1"][0].numpy(), runs.weights["w1"][0].numpy()
        self.positive = (runs.weights["w2"][0] > 0).numpy()
        self.before = runs.start.distance("4P", "hamming", polarity="require")[0, 0]
        self.after = runs.distance("4P", "hamming", polarity="require")[0, 0]
        self.code = runs.codes().channels()[0, 0]
        self.largest = float(np.abs(self.end).max())


def names(variables: list[int]) -> str:
    """Variables in words, such as x0, x2, x6 and x7."""
    *most, last = (f"x{v}" for v in variables)
    return f"{', '.join(most)} and {last}"


def code(network: Network) -> str:
    """What a code is: feature space of a trained network, and the rows that carry the code of one clause."""
    picture = Picture(720, 520, "A code: the rows of a trained network whose weights on a clause are all positive")
    others = [v for v in range(VARIABLES) if v not in network.clause]
    columns = network.clause + others
    order = sorted(range(ROWS), key=lambda row: (not network.code[row], not network.positive[row], row))
    x, y, cell, gap = 62, 112, 22, 10

    def left(place: int) -> float:
        return x + place * cell + gap * (place >= 4)

    picture.text(
        16, 26, f"Where a network keeps the clause x{' ∧ x'.join(map(str, network.clause))}", size=17, bold=True
    )
    picture.text(16, 50, f"Weights of a trained network: one row for each of {ROWS} hidden neurons, one column for")
    picture.text(16, 68, f"each of {VARIABLES} variables. Its formula has four clauses.")
    for place, variable in enumerate(columns):
        ours = place < 4
        picture.text(
            left(place) + cell / 2, y - 8, f"x{variable}", "middle", INK if ours else PALE, 12 if ours else 10, ours
        )
    for line, row in enumerate(order):
        top = y + line * cell
        for place, variable in enumerate(columns):
            value = float(network.end[row, variable])
            picture.rect(left(place), top, cell - 1, cell - 1, shade(value, network.largest))
            if place < 4:
                strong = abs(value) > 0.55 * network.largest
                picture.text(left(place) + 11, top + 16, sign(value), "middle", "#ffffff" if strong else INK, 14)
        picture.text(x - 8, top + 15, f"row {row}", "end", INK if network.code[row] else PALE, 11)
    size, positive = int(network.code.sum()), int(network.positive.sum())
    picture.rect(x - 2, y - 2, 4 * cell + 3, size * cell + 3, stroke=INK, thick=2.5)
    side = left(VARIABLES) + 12
    for first, last, words in ((0, size, "code"), (size, positive, ""), (positive, ROWS, "")):
        if last > first:
            picture.line(side, y + first * cell + 2, side, y + last * cell - 4, INK if words else PALE)
    side += 8
    picture.text(side, y + 14, "The code of the clause:", bold=True)
    picture.text(side, y + 32, f"{size} rows with the signs")
    picture.text(side, y + 50, "+ + + + on its variables")
    picture.text(side, y + 68, "and a positive output")
    picture.text(side, y + 86, "weight (template 4P).")
    picture.text(side, y + (size + positive) / 2 * cell + 22, "Other rows that argue for", colour="#555555")
    picture.text(side, y + (size + positive) / 2 * cell + 40, "True: not all four signs are +.", colour="#555555")
    picture.text(side, y + (positive + ROWS) / 2 * cell - 4, "Rows that argue for False:", colour="#555555")
    picture.text(side, y + (positive + ROWS) / 2 * cell + 14, "negative output weight.", colour="#555555")
    foot = y + ROWS * cell + 26
    for place, (value, words) in enumerate(((1.0, "positive weight"), (-1.0, "negative weight"), (0.0, "near zero"))):
        picture.rect(x + place * 150, foot - 12, 14, 14, shade(value, 1.0), PALE)
        picture.text(x + place * 150 + 20, foot, words)
    return picture.to_svg()


def near_and_far(network: Network) -> str:
    """The same location at initialization and after training: one near, which converges, and one far."""
    picture = Picture(720, 470, "A near location becomes a code; a far one does not")
    rows = np.arange(ROWS)
    near = int(rows[(network.before == 1) & network.code][0])
    far = int(rows[np.isfinite(network.before) & (network.before >= 3) & (network.after >= 2)][0])
    largest = max(
        float(np.abs(weights[row, network.clause]).max())
        for weights in (network.start, network.end)
        for row in (near, far)
    )
    picture.text(16, 26, "Near and far: the same place before and after training", size=17, bold=True)
    picture.text(
        16, 50, f"Weights of two rows on the variables {names(network.clause)} of one clause. The distance counts"
    )
    picture.text(16, 68, "signs that are wrong for the template + + + +. At most one wrong sign is called near.")
    picture.text(290, 100, "at initialization", "middle", bold=True)
    picture.text(545, 100, "after training", "middle", bold=True)
    told = (
        (near, ("Near:", "converges,", "and is part of the code")),
        (far, ("Far:", "stays away,", "and is not part of it")),
    )
    for line, (row, words) in enumerate(told):
        middle = 190 + line * 180
        picture.text(16, middle - 22, f"Row {row}", size=14, bold=True)
        for place, part in enumerate(words):
            picture.text(16, middle - 2 + 18 * place, part)
        for column, (weights, distance) in enumerate(((network.start, network.before), (network.end, network.after))):
            x = 190 + column * 255
            picture.line(x, middle, x + 200, middle, PALE)
            for place, variable in enumerate(network.clause):
                value = float(weights[row, variable])
                height = max(abs(value) / largest * 48, 1.5)
                top = middle - height if value > 0 else middle
                left = x + 12 + place * 48
                picture.rect(left, top, 32, height, shade(value / abs(value) if value else 0.0, 1.0))
                # A small bar has its sign outside.
                picture.text(left + 16, top - 4 if value > 0 else top + height + 13, sign(value), "middle")
                picture.text(left + 16, middle + 76, f"x{variable}", "middle", "#555555", 11)
            wrong = "no wrong sign" if distance[row] == 0 else f"{int(distance[row])} of 4 signs wrong"
            picture.text(x + 100, middle - 68, f"distance {int(distance[row])}: {wrong}", "middle")
    return picture.to_svg()


def ticket() -> str:
    """What a ticket is: the mask over a first layer, and what the sparse networks reach."""
    tasks = [pc.Dnf.random(variables=VARIABLES, clauses=4, width=4, seed=0, index=i) for i in range(FORMULAS)]
    runs = pc.train(tasks, hidden=ROWS, epochs=25, seed=0)
    tickets = pc.find_tickets(runs, methods=["imp", "random"], densities=[DENSITY])
    table = tickets.retrain().summary().set_index("method")
    found = tickets.get("imp", DENSITY)
    mask, start = found.masks["w1"][0].numpy(), found.start.weights["w1"][0].numpy()
    kept, total = int(mask.sum()), mask.size
    picture = Picture(720, 440, "A lottery ticket: which weights are kept, and how well the sparse network does")
    picture.text(16, 26, "A lottery ticket: a mask, and the weights from before training", size=17, bold=True)
    picture.text(
        16, 50, f"{kept} of {total} weights of the first layer are kept, at their initial values. All others are zero,"
    )
    picture.text(16, 68, "and stay zero while the network is trained again.")
    x, y, cell = 40, 112, 17
    largest = float(np.abs(start).max())
    picture.text(x, y - 10, f"One ticket: {ROWS} rows, {VARIABLES} variables", bold=True)
    for row in range(ROWS):
        for variable in range(VARIABLES):
            fill = shade(float(start[row, variable]), largest) if mask[row, variable] else "#eeeeee"
            picture.rect(x + variable * cell, y + row * cell, cell - 1, cell - 1, fill)
            if mask[row, variable]:
                value = float(start[row, variable])
                colour = "#ffffff" if abs(value) > 0.6 * largest else INK
                picture.text(x + variable * cell + 8, y + row * cell + 13, sign(value), "middle", colour, 12)
    foot = y + ROWS * cell + 22
    for place, (fill, words) in enumerate(
        ((shade(1, 1), "kept, +"), (shade(-1, 1), "kept, −"), ("#eeeeee", "pruned: zero"))
    ):
        picture.rect(x + place * 88, foot - 12, 14, 14, fill, PALE)
        picture.text(x + place * 88 + 20, foot, words)
    x, y, width = 400, 140, 200
    picture.text(x, 102, f"Accuracy, mean over {FORMULAS} formulas", bold=True)
    bars = (
        (float(table.loc["imp", "dense_accuracy"]), "the dense network: all weights", "#555555"),
        (float(table.loc["imp", "accuracy"]), f"the ticket: {100 * DENSITY:.0f} % of the weights", "#009e73"),
        (float(table.loc["random", "accuracy"]), f"a random mask: {100 * DENSITY:.0f} % of the weights", "#a0a0a0"),
    )
    for line, (accuracy, words, fill) in enumerate(bars):
        top = y + line * 70
        picture.text(x, top, words)
        picture.rect(x, top + 8, width, 24, "#f4f4f4")
        picture.rect(x, top + 8, width * (accuracy - 0.5) / 0.5, 24, fill)
        picture.text(x + width + 10, top + 25, f"{100 * accuracy:.1f} %")
    foot = y + 3 * 70
    picture.line(x, foot - 24, x + width, foot - 24, PALE)
    picture.text(x, foot - 8, "50 % (guessing)", size=12)
    picture.text(x + width, foot - 8, "100 %", "end", size=12)
    picture.text(x, foot + 22, "Found by iterative magnitude pruning (imp).", size=12)
    return picture.to_svg()


def figures() -> dict[str, str]:
    """All figures by file name."""
    network = Network()
    return {"code.svg": code(network), "near-and-far.svg": near_and_far(network), "ticket.svg": ticket()}


def main() -> None:
    """Writes all figures into a folder, by default the one that this file is in."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    for name, content in figures().items():
        (folder / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
