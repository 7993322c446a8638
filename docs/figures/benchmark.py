"""Pictures of the last benchmark in float32, as wide as a phone. `make bench` measures it and draws more pictures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median

sys.path.append(str(Path(__file__).resolve().parents[2]))

import style

import rmsprop_graves  # noqa: F401  isort: split - chainer is importable from here on
from benchmarks import pictures, report

# The run in the pictures. benchmarks/README.md shows it too.
RESULTS = report.FOLDER / "amd-epyc" / "results.json"


def read():
    """Reads the measurements in float32."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    return {**results, "cases": [case for case in results["cases"] if case["dtype"] == "float32"]}


def draw_time(results):
    """Draws the benchmark's picture of the time per element, but narrower."""
    figure = pictures.time_per_element(results)
    figure.set_size_inches(style.WIDTH, 5)
    (axes,) = figure.axes
    axes.set_title("")
    axes.set_ylabel("ns per element and update")
    (legend,) = figure.legends
    legend.remove()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center")
    return figure


def shares_of_the_floor(results, library):
    """Returns the share of the floor that a library reaches on each model, in percent: the median of the rounds."""
    shares = []
    for case in results["cases"]:
        name = report.better_torch(case) if library == "torch" else library
        shares.append(100 * median(report.shares(results, case, name)))
    return shares


def draw_floor(results):
    """Draws how close each library comes to the floor for each model."""
    figure, (panel,) = style.panels(1, 6.4)
    names = [pictures.SHORT[case["model"]] for case in results["cases"]]
    # The run may have left some out.
    libraries = [name for name in pictures.STYLES if name == "torch" or name in results["threads"]]
    for library in libraries:
        color, marker = pictures.STYLES[library]
        shares = shares_of_the_floor(results, library)
        print(f"{library}, % of the floor: {', '.join(f'{name} {share:.3g}' for name, share in zip(names, shares))}")
        options = {"color": color, "marker": marker, "linestyle": "none", "markersize": 5.5}
        rows = [row + pictures.offset(library, libraries) for row in range(len(names))]
        panel.plot(shares, rows, label=pictures.NAMES.get(library, library), **options)
    panel.set_yticks(range(len(names)), names)
    panel.grid(axis="y", visible=False)
    pictures.finish_rows(panel, len(names))
    panel.set(xlabel="% of the floor's bandwidth")
    panel.set_xlim(left=-3)  # room for a mark at 0
    figure.legend(loc="outside lower center", ncols=2)
    return figure


if __name__ == "__main__":
    results = read()
    style.save(draw_time(results), "benchmark-time.png")
    style.save(draw_floor(results), "benchmark-floor.png")
