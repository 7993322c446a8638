"""Write the results: Markdown, JSON and, if matplotlib is installed, the pictures."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.libraries import CHAINER, NUMBA, NUMPY, OPTAX, OURS, TORCH, TORCH_COMPILED
from benchmarks.triad import FLOOR, TRIAD, moved_bytes

BEGIN, END = "<!-- the last run begins -->", "<!-- the last run ends -->"


def write(results: dict[str, Any], folder: Path) -> list[Path]:
    written = save(results, _document(results), folder / "results", "python -m benchmarks")
    try:
        from benchmarks import pictures
    except ImportError as error:
        print(f"Left out: the pictures ({error})")
    else:
        written += pictures.draw(results, folder)
    return written


def save(results: dict[str, Any], document: str, stem: Path, command: str) -> list[Path]:
    """Write the results of a command as Markdown and as JSON; return the paths."""
    markdown, data = stem.with_suffix(".md"), stem.with_suffix(".json")
    markdown.write_text(f"# Results of a run of `{command}`\n\n{document}", encoding="utf-8")
    data.write_text(json.dumps(_rounded(results), indent=1) + "\n", encoding="utf-8")
    return [markdown, data]


def insert(results: dict[str, Any], readme: Path) -> None:
    """Replace the text between the README's two marks by the summary."""
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    readme.write_text(f"{before}{BEGIN}\n\n{summary(results)}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def summary(results: dict[str, Any]) -> str:
    about = results["machine"]
    lines = [
        f"{about['CPU']}, {about['cores usable']} cores usable, {about['threads']} threads; {_bandwidths(results)}.",
        "",
    ]
    for dtype in dtypes(results):
        lines += [f"{dtype}: speed-up, median (lower to upper quartile) of the rounds", ""]
        lines += [*_ratios(results, dtype), ""]
    lines += [
        "Host cost of a parameter: median (lower to upper quartile) of the rounds",
        "",
        host_costs(results["host"]),
    ]
    return "\n".join(lines)


def host_costs(results: dict[str, Any]) -> str:
    """Return the rows of ``benchmarks.host.measure`` as a table."""
    lines = ["| | Chainer, µs | ours, µs | ours over Chainer |", "|---|---:|---:|---:|"]
    for row in results["rows"]:
        chainers, ours = (row["microseconds"].get(name, []) for name in (CHAINER, OURS))
        speed_ups = [slow / fast for slow, fast in zip(chainers, ours)]
        lines += [f"| {row['what']} | {' | '.join(map(spread, (chainers, ours, speed_ups)))} |"]
    lines += ["", *(f"Left out: {line}." for line in results["left out"])]
    return "\n".join(lines)


def ratios(case: dict[str, Any], slow: str | None, fast: str | None) -> list[float]:
    """Return the speed-up in each round: if the machine's speed drifts, it drifts for both contenders of a round."""
    seconds = case["seconds"]
    if slow not in seconds or fast not in seconds:
        return []
    return [a / b for a, b in zip(seconds[slow], seconds[fast])]


def shares(case: dict[str, Any], name: str, threads: dict[str, int], yardstick: str = TRIAD) -> list[float]:
    """Return the bandwidth in each round, relative to the yardstick's with as many threads."""
    other = f"{yardstick}, {threads[name]} threads"
    return [case["bytes"] / moved_bytes(other) * ratio for ratio in ratios(case, other, name)]


def best_of_ours(case: dict[str, Any]) -> str:
    return NUMBA if NUMBA in case["seconds"] else NUMPY


def better_torch(case: dict[str, Any]) -> str | None:
    return min((name for name in TORCH if name in case["seconds"]), key=lambda name: _median(case, name), default=None)


def contenders(results: dict[str, Any]) -> list[str]:
    return [name for name in results["threads"] if not name.startswith((TRIAD, FLOOR))]


def dtypes(results: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(case["dtype"] for case in results["cases"]))


def _document(results: dict[str, Any]) -> str:
    threads = results["threads"]
    lines = ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in results["machine"].items())]
    lines += [f"| bandwidth | {_bandwidths(results)} |", f"| minutes | {results['minutes']:.1f} |", ""]
    lines += [f"Left out: {line}." for line in results["left out"]]
    lines += ["", "Every number is the median of the rounds, with the quartiles in parentheses.", ""]
    lines += ["## Speed-up", ""]
    for dtype in dtypes(results):
        lines += [f"{dtype}:", "", *_ratios(results, dtype), ""]
    for dtype in dtypes(results):
        lines += [f"## {dtype}: nanoseconds per element", ""]
        lines += _table(
            results, dtype, lambda case, name: spread([1e9 * s / case["elements"] for s in _of(case, name)])
        )
        lines += ["", f"## {dtype}: GB/s, and its share of the triad with as many threads", ""]
        lines += _table(
            results,
            dtype,
            lambda case, name: _bandwidth(case, name, threads),
        )
        lines += [""]
    lines += ["## Host cost of a parameter", "", host_costs(results["host"]), ""]
    lines += ["## Training iterations, milliseconds", ""]
    lines += ["| network | optimizer | iteration | its update | share of the update | speed-up of the iteration |"]
    lines += ["|---|---|---:|---:|---:|---:|", *(_training_row(results, row) for row in results["training"])]
    return "\n".join(lines) + "\n"


def _ratios(results: dict[str, Any], dtype: str) -> list[str]:
    threads = results["threads"]
    lines = [
        "| model | rounds | ours over Chainer | over the better torch | over torch, compiled | over optax "
        "| ours, NumPy over Chainer | ours: share of the triad | of the floor |"
    ]
    lines += ["|---|---:|---:|---:|---:|---:|---:|---:|---:|"]
    for case in _cases(results, dtype):
        ours = best_of_ours(case)
        pairs = ((CHAINER, ours), (better_torch(case), ours), (TORCH_COMPILED, ours), (OPTAX, ours), (CHAINER, NUMPY))
        cells = (spread(ratios(case, slow, fast)) for slow, fast in pairs)
        of_both = (percent(shares(case, ours, threads, yardstick)) for yardstick in (TRIAD, FLOOR))
        lines += [f"| {case['model']} | {len(case['seconds'][ours])} | {' | '.join(cells)} | {' | '.join(of_both)} |"]
    return lines


def _table(results: dict[str, Any], dtype: str, cell: Any) -> list[str]:
    cases = _cases(results, dtype)
    lines = [f"| | threads | {' | '.join(case['model'] for case in cases)} |", "|---|---:|" + "---:|" * len(cases)]
    for name in contenders(results):
        cells = (cell(case, name) for case in cases)
        lines += [f"| {name} | {results['threads'][name]} | {' | '.join(cells)} |"]
    return lines


def _training_row(results: dict[str, Any], row: dict[str, Any]) -> str:
    chainers = next(
        other for other in results["training"] if (other["network"], other["optimizer"]) == (row["network"], CHAINER)
    )
    cells = [
        spread([1e3 * seconds for seconds in row["iteration"]]),
        spread([1e3 * seconds for seconds in row["update"]]),
        percent([update / iteration for update, iteration in zip(row["update"], row["iteration"])]),
        spread([slow / fast for slow, fast in zip(chainers["iteration"], row["iteration"])]),
    ]
    return f"| {row['network']} | {row['optimizer']} | {' | '.join(cells)} |"


def _bandwidths(results: dict[str, Any]) -> str:
    return "; ".join(
        f"{name.replace('1 threads', '1 thread')}: {spread([rate / 1e9 for rate in rates])} GB/s"
        for name, rates in results["bandwidth"].items()
    )


def _cases(results: dict[str, Any], dtype: str) -> list[dict[str, Any]]:
    return [case for case in results["cases"] if case["dtype"] == dtype]


def _of(case: dict[str, Any], name: str) -> list[float]:
    return case["seconds"][name]


def _median(case: dict[str, Any], name: str) -> float:
    return median(_of(case, name))


def spread(values: list[float]) -> str:
    """Return the median, with the quartiles in parentheses."""
    if not values:
        return "-"
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


def _bandwidth(case: dict[str, Any], name: str, threads: dict[str, int]) -> str:
    return f"{case['bytes'] / _median(case, name) / 1e9:.3g}, {percent(shares(case, name, threads))}"


def percent(values: list[float]) -> str:
    """Return the median and the quartiles of shares, in percent."""
    if not values:
        return "-"
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return f"{_two_digits(100 * middle)} % ({_two_digits(100 * low)} to {_two_digits(100 * high)})"


def _two_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _rounded(value: Any) -> Any:
    """Round to four digits, more than are significant."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value
