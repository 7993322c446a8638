"""Write the results of a run on a GPU: Markdown, JSON and, if matplotlib is installed, a picture."""

from __future__ import annotations

from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.gpu import BY_COMPILER, CHAINER, COPY, EAGER, MASTERS, OURS, PER_PARAMETER
from benchmarks.report import percent, save, spread


def write(results: dict[str, Any], folder: Path) -> list[Path]:
    written = save(results, document(results, summary(results)), folder / "gpu", "python -m benchmarks --gpu")
    try:
        from benchmarks import gpu_picture
    except ImportError as error:
        print(f"Left out: the picture ({error})")
    else:
        written.append(gpu_picture.draw(results, folder))
    return written


def summary(results: dict[str, Any]) -> str:
    """Return a table with a row for each case. Ratios are computed within each round."""
    lines = [
        f"{results['machine']['GPU']}: speed-up, median (lower to upper quartile) of the rounds",
        "",
        "| model | kind | parameters | over Chainer, wall clock | over Chainer, device "
        "| over torch, best eager variant, device | over torch, compiled, wall clock | over torch, compiled, device "
        "| share of the copy's bandwidth | the same, per parameter | host, µs per parameter |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for case in results["cases"]:
        cells = [
            spread(ratios(case, CHAINER, OURS, "wall")),
            spread(ratios(case, CHAINER, OURS, "device")),
            _over(case, EAGER, "device"),
            _over(case, BY_COMPILER, "wall"),
            _over(case, BY_COMPILER, "device"),
            percent(shares(case, OURS)),
            percent(shares(case, PER_PARAMETER)),
            spread([1e6 * seconds / case["parameters"] for seconds in case["seconds"][OURS]["host"]]),
        ]
        lines.append(f"| {case['model']} | {case['kind']} | {case['parameters']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def ratios(case: dict[str, Any], slow: str, fast: str, time: str) -> list[float]:
    """Return the speed-up in each round, by the clock `time`."""
    return [a / b for a, b in zip(case["seconds"][slow][time], case["seconds"][fast][time])]


def shares(case: dict[str, Any], name: str) -> list[float]:
    """Return the bandwidth in each round, relative to a copy of the same number of bytes."""
    return ratios(case, COPY, name, "device")


def best(case: dict[str, Any], names: tuple[str, ...], time: str = "device") -> str | None:
    """Return the contender with the smallest median time among those that were timed, or None."""
    timed = [name for name in names if name in case["seconds"]]
    return min(timed, key=lambda name: median(case["seconds"][name][time]), default=None)


def _over(case: dict[str, Any], names: tuple[str, ...], time: str) -> str:
    name = best(case, names, time)
    return spread(ratios(case, name, OURS, time)) if name else "-"


def document(results: dict[str, Any], summary: str) -> str:
    """Return the machine, a summary, and a table with every time of each case."""
    lines = ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in results["machine"].items())]
    lines += [f"| minutes | {results['minutes']:.1f} |", ""]
    lines += [f"Left out: {line}.\n" for line in results["left out"]]
    lines += [summary]
    for case in results["cases"]:
        lines += [f"## {case['model']}, {case['kind']}: {case['elements']:,} elements in {case['parameters']}", ""]
        lines += [
            "| | device, µs | GB/s | share of the copy | host, µs | wall clock, µs |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        for name, seconds in case["seconds"].items():
            cells = [
                _microseconds(seconds["device"]),
                f"{case['bytes'][name] / median(seconds['device']) / 1e9:,.0f}",
                percent(shares(case, name)),
                _microseconds(seconds["host"]),
                _microseconds(seconds["wall"]),
            ]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    if any(case["kind"].startswith(MASTERS) for case in results["cases"]):
        lines += [f"The bandwidth of {MASTERS} does not include the bytes that the conversions move.", ""]
    return "\n".join(lines)


def _microseconds(seconds: list[float]) -> str:
    low, middle, high = (
        f"{1e6 * one:,.0f}" if one >= 1e-4 else f"{1e6 * one:.3g}"
        for one in quantiles(seconds, n=4, method="inclusive")
    )
    return f"{middle} ({low} to {high})"
