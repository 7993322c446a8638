"""The picture of a run on a GPU: the bandwidth on the device, and the wall-clock time."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter

from benchmarks.gpu import CHAINER, COPY, OURS, PER_PARAMETER, TORCH
from benchmarks.gpu_report import best, shares

# The palette of Okabe and Ito, which is safe for colour-blind readers.
STYLES = {
    OURS: ("#0072B2", "o"),
    PER_PARAMETER: ("#56B4E9", "s"),
    CHAINER: ("#000000", "D"),
    "torch, best variant on the device": ("#D55E00", "^"),
    COPY: ("#999999", "|"),
}
# The names in the legend, where they differ from those in the results.
NAMES = {OURS: "this package", PER_PARAMETER: "this package, per parameter"}


def draw(results: dict[str, Any], folder: Path) -> Path:
    cases = results["cases"]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9, 1.6 + 0.34 * len(cases)), sharey=True, layout="constrained", squeeze=True
    )
    for label, (color, marker) in STYLES.items():
        named = [(place, case, _name(case, label)) for place, case in enumerate(cases)]
        named = [(place, case, name) for place, case, name in named if name]
        if not named:
            continue
        style = {"color": color, "marker": marker, "markersize": 7, "linestyle": "none"}
        style["label"] = NAMES.get(label, label)
        left.plot([100 * median(shares(case, name)) for _, case, name in named], [row[0] for row in named], **style)
        wall = [1e6 * median(case["seconds"][name]["wall"]) for _, case, name in named]
        right.plot(wall, [row[0] for row in named], **style)
    left.set(xlabel="% of a copy's bandwidth (device time)", xlim=(0, None))
    right.set(xlabel="microseconds per update (wall clock)", xscale="log")
    right.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    left.set_yticks(range(len(cases)), [f"{case['model']}, {case['kind']}" for case in cases])
    left.set_ylim(len(cases) - 0.5, -0.5)
    for axes in (left, right):
        axes.grid(axis="y", color="0.9")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    path = folder / "gpu.png"
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def _name(case: dict[str, Any], label: str) -> str | None:
    name = best(case, TORCH) if label.startswith("torch") else label
    return name if name in case["seconds"] else None
