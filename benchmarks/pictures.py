"""The two pictures of the results: time per element by model size, and share of the floor's bandwidth."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks import models, report
from benchmarks.libraries import CHAINER, NUMBA, NUMPY, OPTAX, TORCH_COMPILED

# The palette of Okabe and Ito, which is safe for colour-blind readers.
STYLES = {
    NUMBA: ("#0072B2", "o"),
    NUMPY: ("#56B4E9", "s"),
    CHAINER: ("#000000", "D"),
    "torch": ("#D55E00", "^"),
    TORCH_COMPILED: ("#E69F00", "P"),
    OPTAX: ("#009E73", "v"),
}
# The names in the legends, where they differ from those in the results.
NAMES = {NUMBA: "this package, Numba", NUMPY: "this package, NumPy"}
SHORT = {**{name: name for name in (*models.SYNTHETIC, *models.REAL)}, "LSTM language model": "LSTM model"}


def draw(results: dict[str, Any], folder: Path) -> list[Path]:
    paths = [folder / "time.png", folder / "bandwidth.png"]
    for path, figure in zip(paths, (time_per_element(results), bandwidth(results))):
        figure.savefig(path, dpi=150)
        plt.close(figure)
    return paths


def time_per_element(results: dict[str, Any]) -> Any:
    dtypes = report.dtypes(results)
    figure, panels = plt.subplots(1, len(dtypes), figsize=(9, 4.2), sharey=True, layout="constrained", squeeze=False)
    for axes, dtype in zip(panels[0], dtypes):
        cases = [case for case in results["cases"] if case["dtype"] == dtype]
        for library, (color, marker) in STYLES.items():
            points = [
                (case["elements"], 1e9 * median(case["seconds"][name]) / case["elements"], case["model"])
                for case in cases
                for name in [_contender(case, library)]
                if name is not None
            ]
            line = [(x, y) for x, y, model in points if model in models.SYNTHETIC]
            dots = [(x, y) for x, y, model in points if model in models.REAL]
            if line:
                axes.plot(*zip(*line), color=color, marker=marker, markersize=5, label=_label(results, library))
            if dots:
                axes.plot(*zip(*dots), color=color, marker=marker, markersize=5, linestyle="none", fillstyle="none")
        axes.set(xscale="log", yscale="log", title=dtype, xlabel="elements in the model")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.grid(color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("nanoseconds per element and update")
    _legend(figure, panels)
    return figure


def bandwidth(results: dict[str, Any]) -> Any:
    dtypes = report.dtypes(results)
    figure, panels = plt.subplots(
        1, len(dtypes), figsize=(9, 5), sharex=True, sharey=True, layout="constrained", squeeze=False
    )
    for axes, dtype in zip(panels[0], dtypes):
        cases = [case for case in results["cases"] if case["dtype"] == dtype]
        libraries = [library for library in STYLES if any(_contender(case, library) for case in cases)]
        for library in libraries:
            color, marker = STYLES[library]
            points = [
                (100 * median(report.shares(results, case, name)), place + offset(library, libraries))
                for place, case in enumerate(cases)
                for name in [_contender(case, library)]
                if name is not None
            ]
            options = {"color": color, "marker": marker, "markersize": 5, "linestyle": "none"}
            axes.plot(*zip(*points), label=_label(results, library), **options)
        axes.set(xscale="log", xlabel="% of the floor's bandwidth")
        axes.set_title(dtype, loc="left")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_yticks(range(len(cases)), [SHORT[case["model"]] for case in cases])
        finish_rows(axes, len(cases))
    _legend(figure, panels)
    return figure


def offset(library: str, libraries: list[str]) -> float:
    """Return where a library's mark is in a row of height 1: one below the other, so that none hides another."""
    return 0.155 * (libraries.index(library) - (len(libraries) - 1) / 2)


def finish_rows(axes: Any, count: int) -> None:
    """Shade every second row, and draw the floor's line with its name above it."""
    axes.set_ylim(count - 0.5, -0.5)
    for row in range(0, count, 2):
        axes.axhspan(row - 0.5, row + 0.5, color="0.96", zorder=0)
    axes.axvline(100, color="0.5", linewidth=1, zorder=1)
    axes.annotate("floor", (100, 1), (0, 2), ("data", "axes fraction"), "offset points", ha="center", va="bottom")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _contender(case: dict[str, Any], library: str) -> Any:
    name = report.better_torch(case) if library == "torch" else library
    return name if name in case["seconds"] else None


def _label(results: dict[str, Any], library: str) -> str:
    name = next((name for name in results["threads"] if name == library or name.startswith(f"{library},")), library)
    threads = results["threads"][name]
    better = ", better variant" if library == "torch" else ""
    return f"{NAMES.get(library, library)}{better} ({threads} thread{'s' if threads > 1 else ''})"


def _legend(figure: Any, panels: Any) -> None:
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
