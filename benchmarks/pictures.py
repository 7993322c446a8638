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
        1, len(dtypes), figsize=(9, 4.2), sharex=True, sharey=True, layout="constrained", squeeze=False
    )
    for axes, dtype in zip(panels[0], dtypes):
        cases = [case for case in results["cases"] if case["dtype"] == dtype]
        for library, (color, marker) in STYLES.items():
            points = [
                (100 * median(report.shares(results, case, name)), place)
                for place, case in enumerate(cases)
                for name in [_contender(case, library)]
                if name is not None
            ]
            if points:
                label = _label(results, library)
                axes.plot(*zip(*points), color=color, marker=marker, markersize=7, linestyle="none", label=label)
        axes.axvline(100, color="0.5", linewidth=1, zorder=0)
        axes.set(xscale="log", title=dtype, xlabel="% of the floor's bandwidth")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_yticks(range(len(cases)), [SHORT[case["model"]] for case in cases])
        axes.set_ylim(len(cases) - 0.5, -0.5)
        axes.grid(axis="y", color="0.9")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    _legend(figure, panels)
    return figure


def _contender(case: dict[str, Any], library: str) -> Any:
    name = report.better_torch(case) if library == "torch" else library
    return name if name in case["seconds"] else None


def _label(results: dict[str, Any], library: str) -> str:
    name = next((name for name in results["threads"] if name == library or name.startswith(f"{library},")), library)
    threads = results["threads"][name]
    better = ", better variant" if library == "torch" else ""
    return f"{library}{better} ({threads} thread{'s' if threads > 1 else ''})"


def _legend(figure: Any, panels: Any) -> None:
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
