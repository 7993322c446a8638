"""Pictures of the last benchmark, of float32 alone and as wide as a phone. `make bench` measures, and draws more."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median

sys.path.append(str(Path(__file__).resolve().parents[2]))

import style

import rmsprop_graves  # noqa: F401  isort: split - chainer is importable from here on
from benchmarks import pictures, report, triad

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "results.json"


def read():
    """What was measured, float32 alone."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    # The arrays of a yardstick are as large as the caches of a machine ask for: here of that which was measured.
    name = f"{triad.TRIAD}, 1 threads"
    seconds = [one for case in results["cases"] for one in case["seconds"][name]]
    moved = median(rate * one for rate, one in zip(results["bandwidth"][name], seconds))
    triad.array_bytes = lambda: moved / 3
    return {**results, "cases": [case for case in results["cases"] if case["dtype"] == "float32"]}


def draw_time(results):
    """The benchmark's own picture of the time for each element, made narrow."""
    figure = pictures.time_per_element(results)
    figure.set_size_inches(style.WIDTH, 5)
    (axes,) = figure.axes
    axes.set_title("")
    (legend,) = figure.legends
    legend.remove()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center")
    return figure


def shares_of_the_floor(results, library):
    """Of each model, in percent and as the median over the rounds, how near a library comes to the floor."""
    shares = []
    for case in results["cases"]:
        name = report.better_torch(case) if library == "torch" else library
        shares.append(100 * median(report.shares(case, name, results["threads"], triad.FLOOR)))
    return shares


def draw_floor(results):
    """How near each library comes to the floor, model by model."""
    figure, (panel,) = style.panels(1, 5)
    names = [pictures.SHORT[case["model"]] for case in results["cases"]]
    for library, (color, marker) in pictures.STYLES.items():
        shares = shares_of_the_floor(results, library)
        print(f"{library}, % of the floor: {', '.join(f'{name} {share:.2g}' for name, share in zip(names, shares))}")
        options = {"color": color, "marker": marker, "linestyle": "none", "markersize": 8}
        panel.plot(shares, range(len(names)), label=library, **options)
    panel.axvline(100, color="0.5")
    panel.set_yticks(range(len(names)), names)
    panel.set(xlim=(0, 110), ylim=(len(names) - 0.5, -0.5), xlabel="% of the floor's bandwidth")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


if __name__ == "__main__":
    results = read()
    style.save(draw_time(results), "benchmark-time.png")
    style.save(draw_floor(results), "benchmark-floor.png")
