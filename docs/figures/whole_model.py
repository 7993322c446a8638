"""Picture of the update of a whole model: the contents of the table, and the spans that two threads share."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))

from rmsprop_graves import RMSpropGraves, kernels  # isort: split

import chainer
import numpy
import style
import train_text
from matplotlib.patches import Rectangle

from rmsprop_graves.kernels import threads

ARRAYS = ("param", "n", "g", "delta", "grad")
SHADES = ("#0072B2", "#56B4E9")


def observe(n_characters=96, n_units=440):
    """Updates the model of the text example twice, with a hook on the rule of one parameter.

    Returns:
        For each parameter the path, the shape and the range of its elements in the table (unless it takes Chainer's
        path); and the spans of elements that two threads take, in order.
    """
    kernels.use_on_cpu("numba")
    model = train_text.CharacterModel(n_characters, n_units)
    optimizer = RMSpropGraves().setup(model)
    model.embed.W.update_rule.add_hook(chainer.optimizer_hooks.WeightDecay(1e-4))
    ids = numpy.arange(8, dtype="i").reshape(2, 4)
    for _ in range(2):
        model.lstm.reset_state()
        optimizer.update(model, ids, ids)

    (table,) = optimizer._plan._tables
    place_of = {id(array): place for place, array in enumerate(table._columns[0])}
    rows = []
    for path, param in sorted(model.namedparams()):
        place = place_of.get(id(param.array))
        bounds = None if place is None else tuple(table._bounds[place : place + 2].tolist())
        rows.append((path, param.shape, bounds))
    ends = threads.spans(int(table._bounds[-1]), 2).tolist()
    return rows, list(zip(ends, ends[1:]))


def draw(rows, spans):
    """Draws the parameters with their entries in the table, and below them the spans of all elements."""
    figure, (panel,) = style.panels(1, 5.8)
    height = len(rows) + 6.2
    panel.set(xlim=(0, 45), ylim=(height, -1.6))
    panel.axis("off")
    for column, name in enumerate(ARRAYS):
        panel.text(
            30.5 + 3.1 * column, -0.5, name, rotation=45, rotation_mode="anchor", family="monospace", fontsize=10
        )
    for row, (path, shape, bounds) in enumerate(rows):
        panel.text(0, row + 0.5, path, family="monospace", va="center")
        panel.text(28.5, row + 0.5, " \N{MULTIPLICATION SIGN} ".join(map(str, shape)), ha="right", va="center")
        if bounds is None:
            panel.text(29.8, row + 0.5, "Chainer's path", va="center")
            continue
        for column, name in enumerate(ARRAYS):
            color = {"edgecolor": style.RED, "facecolor": "none"} if name == "grad" else {"color": SHADES[row % 2]}
            panel.add_patch(Rectangle((29.9 + 3.1 * column, row + 0.15), 2.3, 0.7, linewidth=1.5, **color))
    notes = (
        "filled: an address that the table keeps",
        "open: looked up at each update",
        "Chainer's path: its rule has a hook",
    )
    for line, note in enumerate(notes):
        panel.text(0, len(rows) + 0.6 + 0.75 * line, note, va="center")

    top = len(rows) + 3.6
    size = max(bounds[1] for *_, bounds in rows if bounds)
    panel.text(0, top - 0.25, f"{size:,} elements in one loop, to scale")
    for row, (path, _, bounds) in enumerate(rows):
        if bounds:
            begin, end = (45 * bound / size for bound in bounds)
            panel.add_patch(Rectangle((begin, top), end - begin, 0.8, color=SHADES[row % 2], linewidth=0))
            if end - begin > 20:  # wider than the path
                panel.text((begin + end) / 2, top + 0.4, path, family="monospace", ha="center", va="center")
    for begin, end in spans:
        left, right = 45 * begin / size, 45 * end / size
        # The limits of the axes would cut the outer borders in half.
        options = {"edgecolor": "0.3", "facecolor": "0.93", "clip_on": False}
        panel.add_patch(Rectangle((left, top + 0.95), right - left, 0.75, **options))
        if right - left > 7:  # wider than the number
            panel.text((left + right) / 2, top + 1.33, f"{end - begin:,}", ha="center", va="center")
    panel.text(0, top + 2.3, "A free thread takes the next span.", va="center")
    return figure


if __name__ == "__main__":
    rows, spans = observe()
    for path, shape, bounds in rows:
        print(path, shape, bounds)
    print("spans", spans)
    style.save(draw(rows, spans), "whole-model.png")
